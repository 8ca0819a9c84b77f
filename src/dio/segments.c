/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Direct requests over several extents. The first piece uses the dev_io inside the request, each
 * further one a segment of the pool. Runs on the loop thread that submits the request, or that
 * gives it the segment it waits for; never blocks.
 *
 * refs counts the pieces in flight, plus one for the splitter (whichever thread is in
 * send_segments; refs counts it so that the request cannot end while pieces are still being sent),
 * and is set before the first piece is submitted (DIO-2). Completions come in any order, and in
 * tests on any thread, so the count is atomic. drop_reference is where a request waits for its
 * segments: the thread that takes the count to 0 ends the direct part, which also hands a remainder
 * to a worker (dio_pieces_done). Only the splitter touches nr_sent and direct_len. While the
 * request waits for a segment, the splitter's reference passes to the thread that resumes the
 * request.
 *
 * The first error of the map or of the device is recorded and becomes the request's result; after
 * an error no further piece is sent.
 */
#include "dio/types.h"

#include <errno.h>
#include <string.h>

static void take_reference(struct dio_req *req)
{
	__atomic_fetch_add(&dio_own(req)->refs, 1, __ATOMIC_RELAXED);
}

static void drop_reference(struct dio_req *req)
{
	if (__atomic_sub_fetch(&dio_own(req)->refs, 1, __ATOMIC_ACQ_REL) == 0)
		dio_pieces_done(req);
}

static void record_error(struct dio_req *req, int err)
{
	int none = 0;

	__atomic_compare_exchange_n(&dio_own(req)->error, &none, err, false, __ATOMIC_ACQ_REL,
				    __ATOMIC_RELAXED);
}

static void first_piece_done(struct dev_io *io)
{
	struct dio_req *req = dio_req_of_io(io);
	int err;

	if (dio_io_resubmit(dio_own(req)->dio, io, &dio_own(req)->retries, &err))
		return;
	if (err)
		record_error(req, err);
	drop_reference(req);
}

static void segment_done(struct dev_io *io)
{
	struct dio_segment *segment = container_of(io, struct dio_segment, io);
	struct dio_req *req = segment->req;
	int err;

	if (dio_io_resubmit(dio_own(req)->dio, io, &segment->retries, &err))
		return;
	if (err)
		/* Before dio_segment_put, which may go on with this very request. */
		record_error(req, err);
	/* Before the last reference: the file, which holds its reserve, may go with the request. */
	dio_segment_put(segment);
	drop_reference(req);
}

/* Sends the written piece at nr_sent, which takes a reference of the request. */
static void send_segment(struct dio_req *req, struct dio_segment *segment,
			 const struct dio_piece *piece)
{
	uint32_t at = dio_own(req)->nr_sent;

	segment->req = req;
	segment->retries = 0;
	dio_io_fill(req, &segment->io, at, piece, segment_done);
	dio_own(req)->nr_sent = at + piece->len;
	take_reference(req);
	dev_submit(dio_own(req)->dio->config.dev, &segment->io);
}

/*
 * The splitter: sends pieces from nr_sent on, with a segment for the next one or NULL. It stops at
 * a piece that a worker must do; what follows is the remainder.
 */
static void send_segments(struct dio_req *req, struct dio_segment *segment)
{
	struct dio_own *own = dio_own(req);
	struct dio_piece piece;
	int err;

	while (own->nr_sent < own->span && !__atomic_load_n(&own->error, __ATOMIC_ACQUIRE)) {
		err = dio_piece_at(own->dio, req->file->inode, req->pos + own->nr_sent,
				   own->span - own->nr_sent, &piece);
		if (err == -EAGAIN ||
		    (!err && (req->flags & DIO_WRITE) && piece.state != EXT4_EXTENT_WRITTEN))
			break;
		if (err) {
			record_error(req, err);
			break;
		}
		if (piece.state != EXT4_EXTENT_WRITTEN) {
			memset((uint8_t *)req->buf + own->nr_sent, 0, piece.len);
			own->nr_sent += piece.len;
			continue;
		}
		if (!segment && !(segment = dio_segment_take(req, send_segments)))
			return; /* called again with a segment, perhaps already */
		send_segment(req, segment, &piece);
		segment = NULL;
	}
	own->direct_len = FDIO_MIN(own->nr_sent, own->want);
	if (segment)
		dio_segment_put(segment);
	drop_reference(req);
}

void dio_segments_start(struct dio_req *req, const struct dio_piece *first, uint32_t first_at,
			uint32_t at)
{
	struct dio_own *own = dio_own(req);

	fdio_count(req->flags & DIO_WRITE ? COUNTER_dio_write_multi : COUNTER_dio_read_multi);
	own->nr_sent = at;
	__atomic_store_n(&own->refs, 2, __ATOMIC_RELAXED); /* the splitter and the first piece */
	dio_io_fill(req, &own->io, first_at, first, first_piece_done);
	dev_submit(own->dio->config.dev, &own->io);
	send_segments(req, NULL);
}
