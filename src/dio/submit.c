/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The top of the engine: dio_submit checks a request and chooses its way (enum dio_way). Runs on a
 * loop thread (in tests on the one that stands for it). Never blocks. The simple path takes no lock
 * and allocates nothing; the others take leaf locks (append_lock, dio_cpu.lock), the work queue's
 * lock and, for a small append, what the mode of base/nowait.h allows. Errors of a request are
 * answered by its done.
 *
 *   DIRECT  Reads, and overwrites of written blocks inside the size: from the loop thread straight
 *           to the device. The simple path is a request of one piece: send_simple_request submits
 *           the dev_io inside it, which is the last touch, and simple_request_done answers. At the
 *           second piece segments.c takes over. Holes and unwritten blocks of a read are zeroed
 *           here. A write stops at its first piece that is not written, and either kind of request
 *           where the map is not in memory; what follows is the remainder, which goes to a worker
 *           when the pieces before it have completed (complete.c).
 *   WINDOW, SMALL  Appends without a worker: append.c says when.
 *   SLOW    Everything else goes to a worker (slow.c): a request that is not aligned, a map that is
 *           not in memory, a closed gate, a write that begins at a hole, a change of the size that
 *           is not an append.
 */
#include "dio/types.h"

#include <errno.h>
#include <string.h>

/* ---- refusing ---- */

/*
 * True if the application's request was not aligned, which file systems of the kernel refuse. The
 * kernel splits a long request where pages of the application's memory end, at any byte: all pieces
 * but the last are nearly as long as a request may be, and the last one ends aligned. Such pieces
 * are not the application's fault.
 */
static bool is_misaligned(const struct dio *dio, const struct dio_req *req)
{
	uint64_t mask = dio->sector_bytes - 1, end = req->pos + req->len;

	if (likely(!((req->pos | req->len) & mask)))
		return false;
	/* A read may begin, and end, anywhere behind the end of the file. */
	if (!(req->flags & DIO_WRITE)) {
		uint64_t size = ext4_inode_size(req->file->inode);

		if (req->pos >= size ||
		    (!(req->pos & mask) && end >= fdio_round_up(size, dio->sector_bytes)))
			return false;
	}
	return req->len < DIO_REQ_MAX - dio->page_size && (!(req->pos & mask) || (end & mask));
}

/* Returns 1 if the request is valid, else its result. */
static int validate(struct dio *dio, struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	uint64_t size, largest = (uint64_t)UINT32_MAX << dio->block_bits;

	if ((req->flags & DIO_DIRECT) && dio->config.strict && is_misaligned(dio, req)) {
		fdio_count(COUNTER_dio_einval_align);
		return -EINVAL;
	}
	if (!req->len)
		return 0;
	if (req->pos > (uint64_t)INT64_MAX - req->len)
		return req->flags & DIO_WRITE ? -EFBIG : -EINVAL;
	own->want = req->len;
	if (req->flags & DIO_WRITE) {
		if (ext4_vol_read_only(dio->config.vol))
			return -EROFS;
		/*
		 * As write(2) does, write what fits below the largest size. FUSE turns a short
		 * direct write into EIO, so a direct write fails as a whole.
		 */
		if (!(req->flags & DIO_DIRECT) && req->pos < largest &&
		    req->len > largest - req->pos)
			own->want = req->len = (uint32_t)(largest - req->pos);
	} else {
		size = ext4_inode_size(req->file->inode);
		if (req->pos >= size)
			return 0;
		own->want = FDIO_MIN((uint64_t)req->len, size - req->pos);
	}
	if (req->pos + own->want > largest)
		return -EFBIG;
	return 1;
}

/* ---- the direct way ---- */

/*
 * True if FUA alone makes the overwrite durable: all of it is mapped, and the extents and the size
 * that lead to its blocks are durable.
 */
static bool is_durable_by_fua(struct dio_req *req)
{
	struct dio *dio = dio_own(req)->dio;
	struct ext4_inode *inode = req->file->inode;
	struct dio_piece piece;
	journal_tid tid;

	if (!(req->flags & DIO_DSYNC) || (req->flags & DIO_SYNC) || !dio->fua_ok ||
	    dio_own(req)->stage == DIO_AT_APPEND)
		return false;
	if (ext4_window_unsettled(inode)) /* its extents may be in memory only */
		return false;
	for (uint32_t at = 0; at < req->len; at += piece.len)
		if (dio_piece_at(dio, inode, req->pos + at, req->len - at, &piece) ||
		    piece.state != EXT4_EXTENT_WRITTEN || (!dio->fua_multi && piece.len < req->len))
			return false;
	return !ext4_sync_tid_noted(inode, true, &tid) ||
	       journal_tid_durable(ext4_vol_journal(dio->config.vol), tid);
}

static void simple_request_done(struct dev_io *io)
{
	struct dio_req *req = dio_req_of_io(io);

	if (unlikely(io->result != (int)io->len)) {
		int err;
		if (dio_io_resubmit(dio_own(req)->dio, io, &dio_own(req)->retries, &err))
			return;
		dio_own(req)->error = err;
	}
	dio_pieces_done(req);
}

/* The only piece that needs the device: one dev_submit, which is the last touch of req. */
static void send_simple_request(struct dio_req *req, const struct dio_piece *piece, uint32_t at)
{
	struct dio_own *own = dio_own(req);

	fdio_count(req->flags & DIO_WRITE ? COUNTER_dio_write_simple : COUNTER_dio_read_simple);
	dio_io_fill(req, &own->io, at, piece, simple_request_done);
	dev_submit(own->dio->config.dev, &own->io);
}

/*
 * Walks the pieces of req, and zeroes holes of reads, up to the second piece for the device, where
 * segments.c takes over, or to a piece that a worker must do.
 */
static void send_pieces(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	bool write = req->flags & DIO_WRITE, has_first = false;
	struct dio_piece piece, first = { 0 };
	uint32_t at = 0, first_at = 0;
	int err;

	while (at < own->span) {
		err = dio_piece_at(own->dio, req->file->inode, req->pos + at, own->span - at,
				   &piece);
		if (err == -EAGAIN || (!err && write && piece.state != EXT4_EXTENT_WRITTEN))
			break;
		if (unlikely(err)) {
			own->error = err;
			dio_pieces_done(req);
			return;
		}
		if (piece.state != EXT4_EXTENT_WRITTEN) {
			memset((uint8_t *)req->buf + at, 0, piece.len);
		} else if (has_first) {
			dio_segments_start(req, &first, first_at, at);
			return;
		} else {
			has_first = true;
			first = piece;
			first_at = at;
		}
		at += piece.len;
	}
	own->direct_len = FDIO_MIN(at, own->want);
	if (has_first) {
		send_simple_request(req, &first, first_at);
	} else if (at < own->span) {
		dio_no_piece_sent(req);
	} else {
		fdio_count(COUNTER_dio_read_zero);
		dio_pieces_done(req);
	}
}

static void start_direct(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);

	if (!dio_gate_enter(req->file->dinode, own->cpu, dio_count_kind(req))) {
		dio_hand_to_worker(req);
		return;
	}
	own->stage = DIO_AT_DIRECT;
	if (req->flags & DIO_WRITE) {
		/* Check the size again inside the gate: a truncate may have run since choose(). */
		if (req->pos + req->len > ext4_inode_size(req->file->inode) &&
		    !dio_append_start(req)) {
			dio_no_piece_sent(req);
			return;
		}
		if (is_durable_by_fua(req))
			own->bits |= DIO_R_FUA;
	}
	send_pieces(req);
}

/* ---- the choice ---- */

/* True if the device can take the request as it is. Sets span. */
static bool fits_device(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	struct dio *dio = own->dio;

	if ((req->pos & (dio->sector_bytes - 1)) || ((uintptr_t)req->buf & (dio->mem_align - 1)))
		return false;
	own->span = fdio_round_up(own->want, dio->sector_bytes);
	if (!(req->flags & DIO_WRITE))
		return own->span <= req->len; /* the last sector is read whole */
	if (own->span != req->len)
		return false;
	return !(req->flags & (DIO_KILLPRIV | DIO_KILLCAPS)) ||
	       !ext4_needs_killpriv(req->file->inode);
}

static enum dio_way choose(struct dio_req *req)
{
	bool direct = fits_device(req);

	if ((req->flags & DIO_WRITE) && req->pos + req->len > ext4_inode_size(req->file->inode))
		return dio_append_way(req, direct);
	return direct ? DIO_WAY_DIRECT : DIO_WAY_SLOW;
}

static void start_request(struct dio_req *req)
{
	switch (choose(req)) {
	case DIO_WAY_DIRECT:
	case DIO_WAY_WINDOW:
		start_direct(req);
		break;
	case DIO_WAY_SMALL:
		if (!dio_append_small_start(req))
			dio_hand_to_worker(req);
		break;
	case DIO_WAY_SLOW:
		dio_hand_to_worker(req);
		break;
	}
}

static void init_own(struct dio *dio, struct dio_req *req)
{
	struct loop *loop = dio->config.loops ? loop_self() : NULL;
	struct dio_own *own = dio_own(req);

	own->dio = dio;
	own->cpu = loop ? loop_index(loop) : 0;
	own->stage = DIO_AT_SUBMITTED;
	own->bits = own->refs = own->nr_sent = own->direct_len = 0;
	own->want = own->span = own->retries = 0;
	own->error = 0;
	own->gap = 0;
	FDIO_ASSERT(own->cpu < dio->config.nr_cpus);
}

void dio_submit(struct dio *dio, struct dio_req *req)
{
	struct dio_inode *dinode = req->file->dinode;
	int result;

	init_own(dio, req);
	__atomic_fetch_add(&dio->cpus[dio_own(req)->cpu].inflight, 1, __ATOMIC_RELAXED);
	/*
	 * Before the data is read: a direct write that completes later sees the count and
	 * invalidates the pages that this request fills.
	 */
	if (!(req->flags & DIO_DIRECT))
		__atomic_fetch_add(&dinode->cache_seq, 1, __ATOMIC_SEQ_CST);
	if (unlikely(__atomic_load_n(&dinode->mask_to, __ATOMIC_RELAXED)))
		dio_mask_req(req);
	if (!(req->flags & DIO_DIRECT))
		dio_cached_note(req);
	result = validate(dio, req);
	if (result == 1) {
		start_request(req);
		return;
	}
	dio_own(req)->error = result; /* 0: nothing to transfer */
	dio_own(req)->want = 0;
	dio_req_end(req);
}
