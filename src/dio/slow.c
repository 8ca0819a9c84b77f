/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The slow path, on workers: everything that the direct way and the appends on loop threads leave.
 * Reads whose map is not in memory or that are not aligned; writes that allocate, convert, extend,
 * or touch part of a sector, and the remainder of a write whose beginning went out directly.
 * dio_req_slow, which hands a request over, runs on any thread; the request then holds nothing.
 *
 * A write: kill privileges; close the gate for writes if part of a sector changes; inode lock,
 * exclusive if the file grows, shared otherwise; block range lock; reserve blocks for all holes
 * (ENOSPC here, with nothing changed); data; then extents and size in one step (DIO-4); unlock, and
 * only then what follows a write (DIO-3). An error before publishing leaves the extents as they
 * were: blocks that were reserved are given back, unwritten ones stay unwritten, so whatever was
 * written to them stays unreachable.
 */
#include "base/log.h"
#include "dio/types.h"

#include <errno.h>
#include <string.h>

static int slow_read(struct dio_req *r)
{
	struct dio_slow s = {
		.r = r, .d = dio_own(r)->dio, .i = r->file->inode, .di = r->file->di
	};
	uint64_t pos = r->pos + dio_own(r)->direct_len, end = r->pos + dio_own(r)->want, size;
	struct dio_piece p;
	int err = 0;

	fdio_count(CTR_dio_read_slow);
	x4_inode_lock_shared(s.i);
	/* The size may have shrunk since submission; what was read already stays. */
	size = x4_inode_size(s.i);
	end = FDIO_MIN(end, size);
	end = FDIO_MAX(end, pos);
	for (; pos < end && !err; pos += p.len) {
		uint8_t *b = (uint8_t *)r->buf + (pos - r->pos);
		err = dio_slow_piece(&s, pos, end, &p);
		if (err)
			break;
		if (p.state == X4_EXT_WRITTEN)
			err = dev_read(s.d->cfg.dev, b, p.len, p.dev_off);
		else
			memset(b, 0, p.len);
	}
	x4_inode_unlock(s.i);
	dio_own(r)->want = end - r->pos;
	if (!err && !(r->flags & DIO_NOATIME))
		x4_touch_read(s.i);
	return err;
}

static int reserve(struct dio_slow *s)
{
	struct dio_piece p;
	int r;

	for (uint64_t pos = s->pos; pos < s->end; pos += p.len) {
		r = dio_slow_piece(s, pos, s->end, &p);
		if (r)
			return r;
		if (p.state == X4_EXT_WRITTEN)
			continue;
		uint64_t first = s->pos >> s->d->block_bits,
			 last = (s->end - 1) >> s->d->block_bits;
		r = x4_resv_holes(s->i, first, last - first + 1, s->r->flags & DIO_ROOT, &s->resv);
		s->has_resv = !r;
		return r;
	}
	return 0;
}

static int publish(struct dio_slow *s)
{
	uint64_t new_size = s->end > s->size ? s->end : 0;
	uint32_t conv = s->conv_first < s->conv_end ? s->conv_end - s->conv_first : 0;

	if (s->append) {
		x4_window_publish(s->i, s->end);
		x4_touch_write(s->i);
		return 0;
	}
	if (s->has_resv)
		return x4_insert(s->i, &s->resv, conv ? s->conv_first : 0, conv, new_size);
	if (new_size)
		return x4_publish_size(s->i, new_size);
	x4_touch_write(s->i);
	return 0;
}

static int write_locked(struct dio_slow *s)
{
	int r = 0;

	if (s->end > s->size && !(s->append = dio_append_fits(s)))
		r = x4_window_close(s->i, dio_gate_drain, s->di);
	if (!r && s->end > s->size)
		r = x4_truncate_finish(s->i);
	if (!r && s->pos > s->size) {
		dio_own(s->r)->gap = s->size & (s->d->page_size - 1) ? s->size : 0;
		r = dio_slow_zero_gap(s);
	}
	if (!r)
		r = reserve(s);
	if (!r)
		r = dio_slow_data(s);
	if (!r)
		r = publish(s);
	if (s->has_resv)
		x4_resv_free(&s->resv);
	if (!r && s->end > s->size && !s->append)
		dio_append_refill(s);
	return r;
}

/*
 * Exclusive if the file grows, and then with the gate closed for writes. The size is stable under
 * either mode, but for appends on loop threads: those the gate keeps out.
 */
static void lock_inode(struct dio_slow *s)
{
	x4_inode_lock_shared(s->i);
	s->size = x4_inode_size(s->i);
	if (s->end <= s->size)
		return;
	x4_inode_unlock(s->i);
	if (!s->shut)
		dio_gate_shut(s->di, DIO_GATE_WRITES);
	s->shut = true;
	x4_inode_lock_excl(s->i);
	s->size = x4_inode_size(s->i);
}

static int kill_privileges(struct dio_req *r)
{
	const struct dio_config *cfg = &dio_own(r)->dio->cfg;
	struct x4_inode *i = r->file->inode;
	const struct x4_attr none = { 0 };

	if (!(r->flags & (DIO_KILLPRIV | DIO_KILLCAPS)) || !x4_needs_killpriv(i))
		return 0;
	if (r->flags & DIO_KILLPRIV)
		return x4_setattr(i, X4_KILL_SUIDGID | (cfg->kill_sgid ? cfg->kill_sgid(r) : 0),
				  &none);
	return x4_setattr(i, X4_KILL_CAPS, &none);
}

static int slow_write(struct dio_req *r)
{
	struct dio_own *o = dio_own(r);
	struct dio_slow s = { .r = r, .d = o->dio, .i = r->file->inode, .di = r->file->di };
	struct dio_range range;
	int err;

	fdio_count(CTR_dio_write_slow);
	/*
	 * Meant for all of it, but the map was dropped on the way: what is written here is not
	 * durable by itself.
	 */
	o->bits &= ~DIO_R_FUA;
	s.pos = r->pos + o->direct_len;
	s.end = r->pos + r->len;
	s.shut = (s.pos | s.end) & (s.d->lbs - 1);
	err = kill_privileges(r);
	if (err)
		return err;
	s.bounce = dio_bounce_take(s.d);
	__atomic_add_fetch(&s.di->slow_writes, 1, __ATOMIC_SEQ_CST);
	if (s.shut)
		dio_gate_shut(s.di, DIO_GATE_WRITES);
	lock_inode(&s);
	dio_range_lock(s.di, &range, s.pos >> s.d->block_bits, (s.end - 1) >> s.d->block_bits);
	err = write_locked(&s);
	/* Also after an error: some of it may be in the device's cache. */
	dio_mark_dirty(s.d, s.di);
	__atomic_sub_fetch(&s.di->slow_writes, 1, __ATOMIC_SEQ_CST);
	dio_range_unlock(s.di, &range);
	x4_inode_unlock(s.i);
	if (s.shut)
		dio_gate_unshut(s.di, DIO_GATE_WRITES);
	dio_bounce_put(s.d, s.bounce);
	return err;
}

static void slow_work(struct work *w)
{
	struct dio_req *r = dio_req_of_work(w);
	struct dio_own *o = dio_own(r);
	struct x4_vol *vol = o->dio->cfg.vol;
	bool write = r->flags & DIO_WRITE;
	uint64_t since = x4_evictions(vol);

	o->error = write ? slow_write(r) : slow_read(r);
	while (write && o->error == -ENOSPC && x4_eviction_since(vol, &since))
		o->error = slow_write(r);
	if (o->error) {
		fdio_count(CTR_dio_io_error);
		if (o->error != -ENOSPC)
			log_ratelimited(FDIO_LOG_ERR, "inode %u: %s of %u bytes at %llu failed: %s",
					x4_inode_ino(r->file->inode), write ? "write" : "read",
					r->len, (unsigned long long)r->pos, strerror(-o->error));
	}
	if (write)
		dio_write_finish(r, false);
	else
		dio_req_end(r);
}

void dio_req_slow(struct dio_req *r)
{
	dio_own(r)->stage = DIO_AT_SLOW;
	wq_queue(dio_own(r)->dio->cfg.workers, &dio_own(r)->work, slow_work);
}
