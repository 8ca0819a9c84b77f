/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fast path: reads, and overwrites of mapped, written blocks inside the size, from the loop thread
 * straight to the device. A request that is one piece uses the dev_io embedded in it: nothing is allocated
 * or counted, submitting it is the last touch, its completion answers. The second piece hands over to
 * extents.c. Holes and unwritten blocks of a read are zeroed here. What does not fit (map not in memory,
 * gate closed, not aligned, a hole under a write) goes to a worker; of a write whose beginning fits, only
 * the rest goes there, after the beginning has completed.
 */
#include "dio/types.h"

#include <errno.h>
#include <string.h>

int dio_piece_at(struct dio *d, struct x4_inode *i, uint64_t pos, uint32_t max, struct dio_piece *ret)
{
	uint32_t in = pos & (d->block_size - 1);
	struct x4_ext e;
	uint64_t run;
	int r = x4_map_lookup(i, pos >> d->block_bits, &e);

	if (r)
		return r;
	if (unlikely(!e.len))
		return -EUCLEAN;
	run = ((uint64_t)e.len << d->block_bits) - in;
	ret->len = FDIO_MIN(run, (uint64_t)max);
	ret->state = e.state;
	ret->dev_off = 0;
	if (e.state == X4_EXT_HOLE)
		return 0;
	if (e.state == X4_EXT_WRITTEN)
		ret->len = FDIO_MIN(ret->len, d->max_io);
	ret->dev_off = (e.pblk << d->block_bits) + in;
	if (unlikely(ret->dev_off + ret->len > d->cfg.dev->caps.size_bytes))
		return -EUCLEAN;
	return 0;
}

static unsigned count_kind(const struct dio_req *r) { return r->flags & DIO_WRITE ? DIO_COUNT_WRITE : DIO_COUNT_READ; }

static void leave(struct dio_req *r)
{
	r->state &= ~DIO_R_ENTERED;
	dio_gate_leave(r->file->di, r->cpu, count_kind(r));
}

/* All pieces have completed (or none was needed). On the thread of the last completion. */
void dio_fast_finished(struct dio_req *r)
{
	if (r->flags & DIO_WRITE) {
		if (!(r->state & DIO_R_FUA))
			dio_mark_dirty(r->dio, r->file->di);
		x4_touch_write(r->file->inode);
		if (r->state & DIO_R_APPEND) {
			dio_append_done(r);
			return;
		}
	}
	dio_fast_end(r);
}

/* Holds nothing but the gate; appends: published, unless something failed. */
void dio_fast_end(struct dio_req *r)
{
	bool write = r->flags & DIO_WRITE;

	leave(r);
	if (unlikely(r->error)) {
		dio_req_fail(r, r->error);
		return;
	}
	if (unlikely(r->direct_len < r->want)) {
		if (write)
			fdio_count(CTR_dio_write_remainder);
		dio_req_slow(r);
		return;
	}
	if (write) {
		dio_write_finish(r, true);
		return;
	}
	if (unlikely(r->span > r->want)) /* what the last device block holds beyond the end of the file */
		memset((uint8_t *)r->buf + r->want, 0, r->span - r->want);
	if (likely(!(r->flags & DIO_NOATIME)))
		x4_touch_read(r->file->inode);
	dio_req_end(r);
}

bool dio_io_again(struct dio *d, struct dev_io *io, uint32_t *retries, int *ret_err)
{
	int res = io->result;

	*ret_err = 0;
	if (likely(res == (int)io->len))
		return false;
	if (res == -EAGAIN || res == -EINTR) {
		if ((*retries)++ >= DIO_RETRIES_MAX) {
			*ret_err = -EIO;
			return false;
		}
		fdio_count(CTR_dio_again_retry);
		io->flags |= DEV_ASYNC;
		dev_submit(d->cfg.dev, io);
		return true;
	}
	if (res <= 0 || (uint32_t)res > io->len) {
		*ret_err = res < 0 ? res : -EIO;
		return false;
	}
	/* Go on at the device block that was not completed. */
	uint32_t n = fdio_round_down(res, d->lbs);
	if (!n && (*retries)++ >= DIO_RETRIES_MAX) {
		*ret_err = -EIO;
		return false;
	}
	fdio_count(CTR_dio_short_resubmit);
	io->off += n;
	io->buf = (uint8_t *)io->buf + n;
	io->len -= n;
	dev_submit(d->cfg.dev, io);
	return true;
}

static void simple_done(struct dev_io *io)
{
	struct dio_req *r = container_of(io, struct dio_req, io);

	if (unlikely(io->result != (int)io->len)) {
		int err;
		if (dio_io_again(r->dio, io, &r->retries, &err))
			return;
		r->error = err;
	}
	dio_fast_finished(r);
}

void dio_io_fill(struct dio_req *r, struct dev_io *io, uint32_t at, const struct dio_piece *p, void (*done)(struct dev_io *))
{
	io->kind = r->flags & DIO_WRITE ? DEV_WRITE : DEV_READ;
	io->flags = r->state & DIO_R_FUA ? DEV_FUA : 0;
	io->off = p->dev_off;
	io->len = p->len;
	io->buf = (uint8_t *)r->buf + at;
	io->buf_index = r->buf_index;
	io->result = 0;
	io->done = done;
	if (io->flags & DEV_FUA)
		fdio_count(CTR_dio_fua);
}

/* A durable overwrite can be made with FUA alone if it is all mapped and the way to it is on disk already. */
static bool may_fua(struct dio_req *r)
{
	struct dio *d = r->dio;
	struct x4_inode *i = r->file->inode;
	struct dio_piece p;
	jnl_tid tid;

	if (!(r->flags & DIO_DSYNC) || (r->flags & DIO_SYNC) || !d->fua_ok || (r->state & DIO_R_APPEND))
		return false;
	if (x4_window_unsettled(i)) /* the way to it may be in memory only */
		return false;
	for (uint32_t at = 0; at < r->len; at += p.len)
		if (dio_piece_at(d, i, r->pos + at, r->len - at, &p) || p.state != X4_EXT_WRITTEN || (!d->fua_multi && p.len < r->len))
			return false;
	return !x4_sync_tid_noted(i, true, &tid) || jnl_tid_durable(x4_vol_jnl(d->cfg.vol), tid);
}

/* Walks the pieces. Zeroes holes of reads up to the second device piece, where it stops. */
static void plan(struct dio_req *r)
{
	struct dio *d = r->dio;
	bool write = r->flags & DIO_WRITE, have = false;
	struct dio_piece p, first = { 0 };
	uint32_t at = 0, first_at = 0;
	int err;

	while (at < r->span) {
		err = dio_piece_at(d, r->file->inode, r->pos + at, r->span - at, &p);
		if (err == -EAGAIN || (!err && write && p.state != X4_EXT_WRITTEN))
			break;
		if (unlikely(err)) {
			r->error = err;
			dio_fast_finished(r);
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
	r->direct_len = FDIO_MIN(at, r->want);
	if (!have && at < r->span && !(r->state & DIO_R_APPEND)) {
		leave(r);
		dio_req_slow(r);
	} else if (!have && at < r->span) {
		dio_append_done(r);
	} else if (!have) {
		fdio_count(CTR_dio_read_zero);
		dio_fast_finished(r);
	} else {
		fdio_count(write ? CTR_dio_write_simple : CTR_dio_read_simple);
		dio_io_fill(r, &r->io, first_at, &first, simple_done);
		dev_submit(d->cfg.dev, &r->io); /* the last touch */
	}
}

/* Can it go to the device as it is? */
static bool fits(struct dio_req *r)
{
	struct dio *d = r->dio;
	struct x4_inode *i = r->file->inode;

	if ((r->pos & (d->lbs - 1)) || ((uintptr_t)r->buf & (d->mem_align - 1)))
		return false;
	r->span = fdio_round_up(r->want, d->lbs);
	if (!(r->flags & DIO_WRITE))
		return r->span <= r->len; /* the tail may be read up to the device block's end */
	if (r->span != r->len || (r->pos + r->len > x4_inode_size(i) && r->pos + r->len > x4_window_end(i)))
		return false;
	return !(r->flags & (DIO_KILLPRIV | DIO_KILLCAPS)) || !x4_needs_killpriv(i);
}

void dio_fast_start(struct dio_req *r)
{
	if (!fits(r)) {
		if (!dio_grow_start(r))
			dio_req_slow(r);
		return;
	}
	if (!dio_gate_enter(r->file->di, r->cpu, count_kind(r))) {
		dio_req_slow(r);
		return;
	}
	r->state |= DIO_R_ENTERED;
	if (r->flags & DIO_WRITE) {
		/* Again, inside the gate: a truncate may have run between. */
		if (r->pos + r->len > x4_inode_size(r->file->inode) && !dio_append_start(r)) {
			leave(r);
			dio_req_slow(r);
			return;
		}
		if (may_fua(r))
			r->state |= DIO_R_FUA;
	}
	plan(r);
}
