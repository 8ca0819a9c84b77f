/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The top of the engine: dio_submit checks a request and chooses its way (enum dio_way).
 *
 *   DIRECT  Reads, and overwrites of mapped, written blocks inside the size, from the loop thread
 *           straight to the device. A request of one piece uses the dev_io embedded in it: nothing
 *           is allocated or counted, submitting it is the last touch, its completion answers. The
 *           second piece hands over to extents.c. Holes and unwritten blocks of a read are zeroed
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
static bool is_misaligned(const struct dio *d, const struct dio_req *r)
{
	uint64_t mask = d->lbs - 1, end = r->pos + r->len;

	if (likely(!((r->pos | r->len) & mask)))
		return false;
	/* A read may stop anywhere behind the end of the file, and begin there. */
	if (!(r->flags & DIO_WRITE)) {
		uint64_t size = x4_inode_size(r->file->inode);

		if (r->pos >= size || (!(r->pos & mask) && end >= fdio_round_up(size, d->lbs)))
			return false;
	}
	return r->len < DIO_SPLIT_MIN && (!(r->pos & mask) || (end & mask));
}

/* 1: go on; else the result of the request. */
static int validate(struct dio *d, struct dio_req *r)
{
	struct dio_own *o = dio_own(r);
	uint64_t size, most = (uint64_t)UINT32_MAX << d->block_bits;

	if ((r->flags & DIO_DIRECT) && d->cfg.strict && is_misaligned(d, r)) {
		fdio_count(CTR_dio_einval_align);
		return -EINVAL;
	}
	if (!r->len)
		return 0;
	if (r->pos > (uint64_t)INT64_MAX - r->len)
		return r->flags & DIO_WRITE ? -EFBIG : -EINVAL;
	o->want = r->len;
	if (r->flags & DIO_WRITE) {
		if (x4_vol_read_only(d->cfg.vol))
			return -EROFS;
		/*
		 * As write(2) does it: what fits is written. (FUSE makes EIO of a short direct
		 * write, so that one fails whole.)
		 */
		if (!(r->flags & DIO_DIRECT) && r->pos < most && r->len > most - r->pos)
			o->want = r->len = (uint32_t)(most - r->pos);
	} else {
		size = x4_inode_size(r->file->inode);
		if (r->pos >= size)
			return 0;
		o->want = FDIO_MIN((uint64_t)r->len, size - r->pos);
	}
	if (r->pos + o->want > most)
		return -EFBIG;
	return 1;
}

/* ---- the direct way ---- */

/*
 * A durable overwrite can be made with FUA alone if it is all mapped and the way to it is on disk
 * already.
 */
static bool may_fua(struct dio_req *r)
{
	struct dio *d = dio_own(r)->dio;
	struct x4_inode *i = r->file->inode;
	struct dio_piece p;
	jnl_tid tid;

	if (!(r->flags & DIO_DSYNC) || (r->flags & DIO_SYNC) || !d->fua_ok ||
	    dio_own(r)->stage == DIO_AT_APPEND)
		return false;
	if (x4_window_unsettled(i)) /* the way to it may be in memory only */
		return false;
	for (uint32_t at = 0; at < r->len; at += p.len)
		if (dio_piece_at(d, i, r->pos + at, r->len - at, &p) || p.state != X4_EXT_WRITTEN ||
		    (!d->fua_multi && p.len < r->len))
			return false;
	return !x4_sync_tid_noted(i, true, &tid) || jnl_tid_durable(x4_vol_jnl(d->cfg.vol), tid);
}

static void simple_done(struct dev_io *io)
{
	struct dio_req *r = dio_req_of_io(io);

	if (unlikely(io->result != (int)io->len)) {
		int err;
		if (dio_io_again(dio_own(r)->dio, io, &dio_own(r)->retries, &err))
			return;
		dio_own(r)->error = err;
	}
	dio_direct_finished(r);
}

/* The only written piece. */
static void send_simple(struct dio_req *r, const struct dio_piece *p, uint32_t at)
{
	struct dio_own *o = dio_own(r);

	fdio_count(r->flags & DIO_WRITE ? CTR_dio_write_simple : CTR_dio_read_simple);
	dio_io_fill(r, &o->io, at, p, simple_done);
	dev_submit(o->dio->cfg.dev, &o->io); /* the last touch */
}

/* Walks the pieces. Zeroes holes of reads up to the second device piece, where it stops. */
static void plan(struct dio_req *r)
{
	struct dio_own *o = dio_own(r);
	bool write = r->flags & DIO_WRITE, have = false;
	struct dio_piece p, first = { 0 };
	uint32_t at = 0, first_at = 0;
	int err;

	while (at < o->span) {
		err = dio_piece_at(o->dio, r->file->inode, r->pos + at, o->span - at, &p);
		if (err == -EAGAIN || (!err && write && p.state != X4_EXT_WRITTEN))
			break;
		if (unlikely(err)) {
			o->error = err;
			dio_direct_finished(r);
			return;
		}
		if (p.state != X4_EXT_WRITTEN) {
			memset((uint8_t *)r->buf + at, 0, p.len);
		} else if (have) {
			dio_multi_start(r, &first, first_at, at);
			return;
		} else {
			have = true;
			first = p;
			first_at = at;
		}
		at += p.len;
	}
	o->direct_len = FDIO_MIN(at, o->want);
	if (have) {
		send_simple(r, &first, first_at);
	} else if (at < o->span) {
		dio_direct_nothing(r);
	} else {
		fdio_count(CTR_dio_read_zero);
		dio_direct_finished(r);
	}
}

static void start_direct(struct dio_req *r)
{
	struct dio_own *o = dio_own(r);

	if (!dio_gate_enter(r->file->di, o->cpu, dio_count_kind(r))) {
		dio_req_slow(r);
		return;
	}
	o->stage = DIO_AT_DIRECT;
	if (r->flags & DIO_WRITE) {
		/* Again, inside the gate: a truncate may have run between. */
		if (r->pos + r->len > x4_inode_size(r->file->inode) && !dio_append_start(r)) {
			dio_direct_nothing(r);
			return;
		}
		if (may_fua(r))
			o->bits |= DIO_R_FUA;
	}
	plan(r);
}

/* ---- the choice ---- */

/* Can it go to the device as it is? Sets span. */
static bool fits(struct dio_req *r)
{
	struct dio_own *o = dio_own(r);
	struct dio *d = o->dio;

	if ((r->pos & (d->lbs - 1)) || ((uintptr_t)r->buf & (d->mem_align - 1)))
		return false;
	o->span = fdio_round_up(o->want, d->lbs);
	if (!(r->flags & DIO_WRITE))
		return o->span <= r->len; /* the tail may be read up to the device block's end */
	if (o->span != r->len)
		return false;
	return !(r->flags & (DIO_KILLPRIV | DIO_KILLCAPS)) || !x4_needs_killpriv(r->file->inode);
}

static enum dio_way choose(struct dio_req *r)
{
	bool direct = fits(r);

	if ((r->flags & DIO_WRITE) && r->pos + r->len > x4_inode_size(r->file->inode))
		return dio_append_way(r, direct);
	return direct ? DIO_WAY_DIRECT : DIO_WAY_SLOW;
}

static void start(struct dio_req *r)
{
	switch (choose(r)) {
	case DIO_WAY_DIRECT:
	case DIO_WAY_WINDOW:
		start_direct(r);
		break;
	case DIO_WAY_SMALL:
		if (!dio_grow_start(r))
			dio_req_slow(r);
		break;
	case DIO_WAY_SLOW:
		dio_req_slow(r);
		break;
	}
}

static void init_own(struct dio *d, struct dio_req *r)
{
	struct loop *l = d->cfg.loops ? loop_self() : NULL;
	struct dio_own *o = dio_own(r);

	o->dio = d;
	o->cpu = l ? loop_index(l) : 0;
	o->stage = DIO_AT_SUBMITTED;
	o->bits = o->refs = o->nr_done = o->direct_len = o->want = o->span = o->retries = 0;
	o->error = 0;
	o->gap = 0;
	FDIO_ASSERT(o->cpu < d->cfg.nr_cpus);
}

void dio_submit(struct dio *d, struct dio_req *r)
{
	struct dio_inode *di = r->file->di;
	int v;

	init_own(d, r);
	__atomic_fetch_add(&d->cpus[dio_own(r)->cpu].inflight, 1, __ATOMIC_RELAXED);
	/* Before the data is looked at: a direct write that completes from here on sees it. */
	if (!(r->flags & DIO_DIRECT))
		__atomic_fetch_add(&di->cache_seq, 1, __ATOMIC_SEQ_CST);
	if (unlikely(__atomic_load_n(&di->mask_to, __ATOMIC_RELAXED)))
		dio_mask_req(r);
	if (!(r->flags & DIO_DIRECT))
		dio_cached_note(r);
	v = validate(d, r);
	if (v == 1) {
		start(r);
		return;
	}
	dio_own(r)->error = v; /* 0: nothing to transfer */
	dio_own(r)->want = 0;
	dio_req_end(r);
}
