/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small appends without a worker: a write at the end of a file whose blocks are not there yet, all
 * of it on the loop thread. Blocks are reserved in the mode of nowait.h, the data goes to the
 * device on the loop's ring, and when it is there the extent is inserted and the size moves, in one
 * handle, again in that mode (DIO-4: the same steps in the same order as in slow.c).
 *
 * Only what is simple: one run of new blocks with nothing mapped behind it, and before it at most
 * the rest of the block that holds the end of the file, from a sector's boundary. What is behind
 * the data in its last block is zeroed in the caller's buffer and written with it. No append
 * window; streams of whole blocks are left to the slow path, which opens one.
 *
 * GROW-1 From the reservation to the end the request is counted in the gate as a write, which keeps
 *        out whoever moves the size or maps blocks behind it (they close the gate first), and
 *        `growing` of the inode keeps out a second request like this.
 * GROW-2 Whatever cannot be done without waiting, at either end, gives everything back and takes
 *    the
 *        slow path from the beginning: what was written lies in free blocks, or behind the end of
 *        the file, where nobody trusts it.
 * GROW-3 The inode lock is held while blocks are looked for and while they are inserted, not in
 *        between: see GROW-1.
 *
 * Errors of the device go to dio_req_fail, all others to the slow path, which meets and tells them.
 */
#include "base/nowait.h"
#include "dio/types.h"

#include <errno.h>
#include <string.h>

#define GROW_MAX (256u << 10) /* longer requests get a window from the slow path */

static void piece_done(struct dev_io *io);

/* ---- is it one? ---- */

static bool is_whole(const struct dio_req *r)
{
	return !((r->pos | r->len) & (dio_own(r)->dio->block_size - 1));
}

/* Bytes to be written: up to the end of the last block. */
static uint64_t span_of(const struct dio_req *r)
{
	return fdio_round_up(r->pos + r->len, dio_own(r)->dio->block_size) - r->pos;
}

/* By what needs no lock; all of it is looked at again, or holds as long as the file is open. */
bool dio_grow_fits(const struct dio_req *r)
{
	const struct dio *d = dio_own(r)->dio;
	uint64_t span = span_of(r);

	if (r->len > GROW_MAX || span > r->buf_cap || span > d->max_io)
		return false;
	if (r->pos != x4_inode_size(r->file->inode))
		return false;
	if (((uintptr_t)r->buf & (d->mem_align - 1)) || (r->pos & (d->lbs - 1)))
		return false;
	return !(r->pos & (d->block_size - 1)) || d->mem_align <= d->lbs;
}

/* ---- the blocks ---- */

/* The rest of the block that holds the end of the file; grow_head stays 0 if there is none. */
static int find_head(struct dio_req *r)
{
	struct dio_own *o = dio_own(r);
	uint32_t in = r->pos & (o->dio->block_size - 1);
	struct dio_piece p;
	int err;

	o->grow_head = 0;
	if (!in)
		return 0;
	err = dio_piece_at(o->dio, r->file->inode, r->pos, o->dio->block_size - in, &p);
	if (err || p.state != X4_EXT_WRITTEN || p.len != o->dio->block_size - in)
		return -EAGAIN;
	o->grow_head = p.len;
	o->grow_off = p.dev_off;
	return 0;
}

static int reserve(struct dio_req *r)
{
	struct dio_own *o = dio_own(r);
	struct x4_inode *i = r->file->inode;
	uint64_t first = (r->pos + o->grow_head) >> o->dio->block_bits;
	uint32_t n = (o->span - o->grow_head) >> o->dio->block_bits;
	struct x4_ext x;
	int err;

	if (!n)
		return 0;
	if (first + n > UINT32_MAX)
		return -EAGAIN;
	err = x4_map_lookup(i, (uint32_t)first, &x);
	if (err || x.state != X4_EXT_HOLE || (uint64_t)x.lblk + x.len < UINT32_MAX)
		return -EAGAIN;
	err = x4_resv_holes(i, (uint32_t)first, n, r->flags & DIO_ROOT, &o->resv);
	return !err && (o->resv.nr != 1 || o->resv.ext[0].len != n) ? -EAGAIN : err;
}

/* GROW-3 */
static int prepare(struct dio_req *r)
{
	struct x4_inode *i = r->file->inode;
	int err = x4_inode_enter_shared(i);

	if (err)
		return err;
	if (r->pos != x4_inode_size(i) || x4_window_end(i) ||
	    (is_whole(r) && dio_append_is_stream(r->file->di)) ||
	    ((r->flags & (DIO_KILLPRIV | DIO_KILLCAPS)) && !x4_nothing_to_kill(i)))
		err = -EAGAIN;
	if (!err)
		err = find_head(r);
	if (!err)
		err = reserve(r);
	x4_inode_unlock(i);
	return err;
}

/* Gives everything back; the gate last. */
static void let_go(struct dio_req *r)
{
	x4_resv_free(&dio_own(r)->resv);
	__atomic_store_n(&r->file->di->growing, false, __ATOMIC_RELEASE);
	dio_leave(r);
}

/* ---- the way ---- */

/* Sends the piece at nr_done; the last touch. */
static void send_piece(struct dio_req *r)
{
	struct dio_own *o = dio_own(r);
	struct dio_piece p = { .state = X4_EXT_WRITTEN };
	uint32_t at = o->nr_done;

	if (at < o->grow_head) {
		p.dev_off = o->grow_off;
		p.len = o->grow_head;
		/* One request for both where the new blocks follow the old one. */
		if (o->resv.nr && o->grow_off + o->grow_head == o->resv.ext[0].pblk
									<< o->dio->block_bits)
			p.len = o->span;
	} else {
		p.dev_off = o->resv.ext[0].pblk << o->dio->block_bits;
		p.len = o->span - o->grow_head;
	}
	o->retries = 0;
	o->nr_done += p.len;
	dio_io_fill(r, &o->io, at, &p, piece_done);
	dev_submit(o->dio->cfg.dev, &o->io);
}

bool dio_grow_start(struct dio_req *r)
{
	struct dio_own *o = dio_own(r);
	struct dio_inode *di = r->file->di;
	int err;

	if (!dio_gate_enter(di, o->cpu, DIO_COUNT_WRITE))
		return false;
	o->stage = DIO_AT_SMALL;
	if (__atomic_exchange_n(&di->growing, true, __ATOMIC_ACQ_REL)) {
		dio_leave(r);
		return false;
	}
	o->span = (uint32_t)span_of(r);
	o->resv.inode = NULL;
	o->resv.nr = 0;
	nowait_begin();
	err = prepare(r);
	if (nowait_end() || err) {
		let_go(r);
		return false;
	}
	memset((uint8_t *)r->buf + r->len, 0, o->span - r->len);
	send_piece(r);
	return true;
}

/* The data is on the device. */
static int publish(struct dio_req *r)
{
	struct x4_inode *i = r->file->inode;
	int err = x4_inode_enter_excl(i);

	if (err)
		return err;
	err = x4_insert(i, &dio_own(r)->resv, 0, 0, r->pos + r->len);
	if (!err)
		dio_append_count(r->file->di, is_whole(r));
	x4_inode_unlock(i);
	return err;
}

/* GROW-2; what is wrong is told by the slow path. */
static void again_slow(struct dio_req *r)
{
	fdio_count(CTR_dio_grow_again);
	dio_own(r)->direct_len = dio_own(r)->nr_done = 0;
	dio_req_slow(r);
}

/* All of it is written. */
static void finish(struct dio_req *r)
{
	bool missed;
	int err;

	nowait_begin();
	err = publish(r);
	missed = nowait_end();
	let_go(r);
	if (unlikely(missed || err)) {
		again_slow(r);
		return;
	}
	fdio_count(CTR_dio_grow);
	dio_write_finish(r, true);
}

static void piece_done(struct dev_io *io)
{
	struct dio_req *r = dio_req_of_io(io);
	struct dio_own *o = dio_own(r);
	int err = 0;

	if (unlikely(io->result != (int)io->len) && dio_io_again(o->dio, io, &o->retries, &err))
		return;
	if (!err && o->nr_done < o->span) {
		send_piece(r);
		return;
	}
	dio_mark_dirty(o->dio, r->file->di);
	if (unlikely(err)) {
		let_go(r);
		dio_req_fail(r, err);
		return;
	}
	finish(r);
}
