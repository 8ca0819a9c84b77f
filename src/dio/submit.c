/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The top of the engine: dio_submit checks a request and chooses its way (enum dio_way).
 *
 *   DIRECT  Reads, and overwrites of mapped, written blocks inside the size, from the loop thread
 *           straight to the device. A request of one piece uses the dev_io embedded in it: nothing
 *           is allocated or counted, submitting it is the last touch, its completion answers. The
 *           second piece hands over to segments.c. Holes and unwritten blocks of a read are zeroed
 *           here. Of a write whose beginning is mapped and whose rest is not, the rest (the
 *           remainder) takes the slow path once the beginning has completed.
 *   WINDOW, SMALL  Appends without a worker: append.c says when.
 *   SLOW    Everything else goes to a worker (slow.c): not aligned, the map not in memory, the gate
 *           closed, a hole under a write, a change of the size that is not an append.
 *
 * On a loop thread (or the test's). Never blocks, allocates nothing, takes no lock but app_lock for
 * an append.
 */
#include "dio/types.h"

#include <errno.h>
#include <string.h>

/* ---- what is refused ---- */

/*
 * Unaligned as no kernel file system would take it. The kernel splits a long request where the
 * pages of the application's memory end, at any byte: of its pieces all but the last are nearly as
 * long as a request may be, and the last one ends aligned. These are no fault of the application's.
 */
static bool is_misaligned(const struct dio *dio, const struct dio_req *req)
{
	uint64_t mask = dio->sector_bytes - 1, end = req->pos + req->len;

	if (likely(!((req->pos | req->len) & mask)))
		return false;
	/* A read may stop anywhere behind the end of the file, and begin there. */
	if (!(req->flags & DIO_WRITE)) {
		uint64_t size = ext4_inode_size(req->file->inode);

		if (req->pos >= size ||
		    (!(req->pos & mask) && end >= fdio_round_up(size, dio->sector_bytes)))
			return false;
	}
	return req->len < DIO_SPLIT_MIN && (!(req->pos & mask) || (end & mask));
}

/* 1: go on; else the result of the request. */
static int validate(struct dio *dio, struct dio_req *req)
{
	struct dio_own *o = dio_own(req);
	uint64_t size, most = (uint64_t)UINT32_MAX << dio->block_bits;

	if ((req->flags & DIO_DIRECT) && dio->config.strict && is_misaligned(dio, req)) {
		fdio_count(COUNTER_dio_einval_align);
		return -EINVAL;
	}
	if (!req->len)
		return 0;
	if (req->pos > (uint64_t)INT64_MAX - req->len)
		return req->flags & DIO_WRITE ? -EFBIG : -EINVAL;
	o->want = req->len;
	if (req->flags & DIO_WRITE) {
		if (ext4_vol_read_only(dio->config.vol))
			return -EROFS;
		/*
		 * As write(2) does it: what fits is written. (FUSE makes EIO of a short direct
		 * write, so that one fails whole.)
		 */
		if (!(req->flags & DIO_DIRECT) && req->pos < most && req->len > most - req->pos)
			o->want = req->len = (uint32_t)(most - req->pos);
	} else {
		size = ext4_inode_size(req->file->inode);
		if (req->pos >= size)
			return 0;
		o->want = FDIO_MIN((uint64_t)req->len, size - req->pos);
	}
	if (req->pos + o->want > most)
		return -EFBIG;
	return 1;
}

/* ---- the direct way ---- */

/*
 * A durable overwrite can be made with FUA alone if it is all mapped and the way to it is on disk
 * already.
 */
static bool may_fua(struct dio_req *req)
{
	struct dio *dio = dio_own(req)->dio;
	struct ext4_inode *inode = req->file->inode;
	struct dio_piece piece;
	journal_tid tid;

	if (!(req->flags & DIO_DSYNC) || (req->flags & DIO_SYNC) || !dio->fua_ok ||
	    dio_own(req)->stage == DIO_AT_APPEND)
		return false;
	if (ext4_window_unsettled(inode)) /* the way to it may be in memory only */
		return false;
	for (uint32_t at = 0; at < req->len; at += piece.len)
		if (dio_piece_at(dio, inode, req->pos + at, req->len - at, &piece) ||
		    piece.state != EXT4_EXTENT_WRITTEN || (!dio->fua_multi && piece.len < req->len))
			return false;
	return !ext4_sync_tid_noted(inode, true, &tid) ||
	       journal_tid_durable(ext4_vol_journal(dio->config.vol), tid);
}

static void simple_done(struct dev_io *io)
{
	struct dio_req *req = dio_req_of_io(io);

	if (unlikely(io->result != (int)io->len)) {
		int err;
		if (dio_io_again(dio_own(req)->dio, io, &dio_own(req)->retries, &err))
			return;
		dio_own(req)->error = err;
	}
	dio_direct_finished(req);
}

/* The only written piece. */
static void send_simple(struct dio_req *req, const struct dio_piece *piece, uint32_t at)
{
	struct dio_own *o = dio_own(req);

	fdio_count(req->flags & DIO_WRITE ? COUNTER_dio_write_simple : COUNTER_dio_read_simple);
	dio_io_fill(req, &o->io, at, piece, simple_done);
	dev_submit(o->dio->config.dev, &o->io); /* the last touch */
}

/* Walks the pieces. Zeroes holes of reads up to the second device piece, where it stops. */
static void plan(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);
	bool write = req->flags & DIO_WRITE, have = false;
	struct dio_piece piece, first = { 0 };
	uint32_t at = 0, first_at = 0;
	int err;

	while (at < o->span) {
		err = dio_piece_at(o->dio, req->file->inode, req->pos + at, o->span - at, &piece);
		if (err == -EAGAIN || (!err && write && piece.state != EXT4_EXTENT_WRITTEN))
			break;
		if (unlikely(err)) {
			o->error = err;
			dio_direct_finished(req);
			return;
		}
		if (piece.state != EXT4_EXTENT_WRITTEN) {
			memset((uint8_t *)req->buf + at, 0, piece.len);
		} else if (have) {
			dio_multi_start(req, &first, first_at, at);
			return;
		} else {
			have = true;
			first = piece;
			first_at = at;
		}
		at += piece.len;
	}
	o->direct_len = FDIO_MIN(at, o->want);
	if (have) {
		send_simple(req, &first, first_at);
	} else if (at < o->span) {
		dio_direct_nothing(req);
	} else {
		fdio_count(COUNTER_dio_read_zero);
		dio_direct_finished(req);
	}
}

static void start_direct(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);

	if (!dio_gate_enter(req->file->dinode, o->cpu, dio_count_kind(req))) {
		dio_req_slow(req);
		return;
	}
	o->stage = DIO_AT_DIRECT;
	if (req->flags & DIO_WRITE) {
		/* Again, inside the gate: a truncate may have run between. */
		if (req->pos + req->len > ext4_inode_size(req->file->inode) &&
		    !dio_append_start(req)) {
			dio_direct_nothing(req);
			return;
		}
		if (may_fua(req))
			o->bits |= DIO_R_FUA;
	}
	plan(req);
}

/* ---- the choice ---- */

/* Can it go to the device as it is? Sets span. */
static bool fits(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);
	struct dio *dio = o->dio;

	if ((req->pos & (dio->sector_bytes - 1)) || ((uintptr_t)req->buf & (dio->mem_align - 1)))
		return false;
	o->span = fdio_round_up(o->want, dio->sector_bytes);
	if (!(req->flags & DIO_WRITE))
		return o->span <= req->len; /* the tail may be read up to the device block's end */
	if (o->span != req->len)
		return false;
	return !(req->flags & (DIO_KILLPRIV | DIO_KILLCAPS)) ||
	       !ext4_needs_killpriv(req->file->inode);
}

static enum dio_way choose(struct dio_req *req)
{
	bool direct = fits(req);

	if ((req->flags & DIO_WRITE) && req->pos + req->len > ext4_inode_size(req->file->inode))
		return dio_append_way(req, direct);
	return direct ? DIO_WAY_DIRECT : DIO_WAY_SLOW;
}

static void start(struct dio_req *req)
{
	switch (choose(req)) {
	case DIO_WAY_DIRECT:
	case DIO_WAY_WINDOW:
		start_direct(req);
		break;
	case DIO_WAY_SMALL:
		if (!dio_grow_start(req))
			dio_req_slow(req);
		break;
	case DIO_WAY_SLOW:
		dio_req_slow(req);
		break;
	}
}

static void init_own(struct dio *dio, struct dio_req *req)
{
	struct loop *loop = dio->config.loops ? loop_self() : NULL;
	struct dio_own *o = dio_own(req);

	o->dio = dio;
	o->cpu = loop ? loop_index(loop) : 0;
	o->stage = DIO_AT_SUBMITTED;
	o->bits = o->refs = o->nr_done = o->direct_len = o->want = o->span = o->retries = 0;
	o->error = 0;
	o->gap = 0;
	FDIO_ASSERT(o->cpu < dio->config.nr_cpus);
}

void dio_submit(struct dio *dio, struct dio_req *req)
{
	struct dio_inode *dinode = req->file->dinode;
	int v;

	init_own(dio, req);
	__atomic_fetch_add(&dio->cpus[dio_own(req)->cpu].inflight, 1, __ATOMIC_RELAXED);
	/* Before the data is looked at: a direct write that completes from here on sees it. */
	if (!(req->flags & DIO_DIRECT))
		__atomic_fetch_add(&dinode->cache_seq, 1, __ATOMIC_SEQ_CST);
	if (unlikely(__atomic_load_n(&dinode->mask_to, __ATOMIC_RELAXED)))
		dio_mask_req(req);
	if (!(req->flags & DIO_DIRECT))
		dio_cached_note(req);
	v = validate(dio, req);
	if (v == 1) {
		start(req);
		return;
	}
	dio_own(req)->error = v; /* 0: nothing to transfer */
	dio_own(req)->want = 0;
	dio_req_end(req);
}
