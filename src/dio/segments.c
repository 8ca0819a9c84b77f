/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Direct requests over several extents. The first piece uses the request's embedded dev_io, the
 * others segments from the pool. On the loop thread that submits the request, or that gives it the
 * segment it waits for; never blocks. Errors of the map and of the device are recorded and told at
 * the end, the first one; after an error no further piece is sent.
 *
 * refs counts the pieces in flight plus one for the splitter, and is set before the first piece is
 * submitted (DIO-2). Completions come in any order and, in tests, on any thread: the count is
 * atomic, and whoever takes it to 0 finishes. Only the holder of the splitter's reference touches
 * nr_done (the next byte to split) and direct_len; it passes to another thread with the request
 * when that waits for a segment.
 */
#include "dio/types.h"

#include <errno.h>
#include <string.h>

static void unref(struct dio_req *req)
{
	if (__atomic_sub_fetch(&dio_own(req)->refs, 1, __ATOMIC_ACQ_REL) == 0)
		dio_direct_finished(req);
}

static void record_error(struct dio_req *req, int err)
{
	int none = 0;

	__atomic_compare_exchange_n(&dio_own(req)->error, &none, err, false, __ATOMIC_ACQ_REL,
				    __ATOMIC_RELAXED);
}

static void first_done(struct dev_io *io)
{
	struct dio_req *req = dio_req_of_io(io);
	int err;

	if (dio_io_again(dio_own(req)->dio, io, &dio_own(req)->retries, &err))
		return;
	if (err)
		record_error(req, err);
	unref(req);
}

static void seg_done(struct dev_io *io)
{
	struct dio_segment *seg = container_of(io, struct dio_segment, io);
	struct dio_req *req = seg->req;
	int err;

	if (dio_io_again(dio_own(req)->dio, io, &seg->retries, &err))
		return;
	if (err)
		/* before the segment is given on: req itself may be waiting for it */
		record_error(req, err);
	/* before the last reference: the reserve is part of the file */
	dio_segment_put(seg);
	unref(req);
}

/* Sends the written piece at nr_done with seg. */
static void send_piece(struct dio_req *req, struct dio_segment *seg, const struct dio_piece *piece)
{
	uint32_t at = dio_own(req)->nr_done;

	seg->req = req;
	seg->retries = 0;
	dio_io_fill(req, &seg->io, at, piece, seg_done);
	dio_own(req)->nr_done = at + piece->len;
	__atomic_fetch_add(&dio_own(req)->refs, 1, __ATOMIC_RELAXED);
	dev_submit(dio_own(req)->dio->config.dev, &seg->io);
}

/* Go on splitting req with a segment just obtained, or NULL. */
static void split(struct dio_req *req, struct dio_segment *seg)
{
	struct dio_own *o = dio_own(req);
	struct dio_piece piece;
	int err;

	while (o->nr_done < o->span && !__atomic_load_n(&o->error, __ATOMIC_ACQUIRE)) {
		err = dio_piece_at(o->dio, req->file->inode, req->pos + o->nr_done,
				   o->span - o->nr_done, &piece);
		if (err == -EAGAIN ||
		    (!err && (req->flags & DIO_WRITE) && piece.state != EXT4_EXTENT_WRITTEN))
			break; /* the rest is for a worker */
		if (err) {
			record_error(req, err);
			break;
		}
		if (piece.state != EXT4_EXTENT_WRITTEN) {
			memset((uint8_t *)req->buf + o->nr_done, 0, piece.len);
			o->nr_done += piece.len;
			continue;
		}
		if (!seg && !(seg = dio_segment_take(req, split)))
			return; /* req goes on when its turn has come */
		send_piece(req, seg, &piece);
		seg = NULL;
	}
	o->direct_len = FDIO_MIN(o->nr_done, o->want);
	if (seg)
		dio_segment_put(seg);
	unref(req);
}

void dio_multi_start(struct dio_req *req, const struct dio_piece *first, uint32_t first_at,
		     uint32_t at)
{
	struct dio_own *o = dio_own(req);

	fdio_count(req->flags & DIO_WRITE ? COUNTER_dio_write_multi : COUNTER_dio_read_multi);
	o->nr_done = at;
	__atomic_store_n(&o->refs, 2, __ATOMIC_RELAXED); /* the splitter and the first piece */
	dio_io_fill(req, &o->io, first_at, first, first_done);
	dev_submit(o->dio->config.dev, &o->io);
	split(req, NULL);
}
