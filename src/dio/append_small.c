/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small files without a worker: a write at the end of a file whose blocks are not there yet, all of it on the loop thread. Blocks are
 * reserved in the mode of nowait.h, the data goes to the device on the loop's ring, and when it is there the extent is inserted
 * and the size moves, in one handle, again in that mode (DIO-4: the same steps in the same order as in slow.c).
 *
 * Only what is simple: one run of new blocks with nothing mapped behind it, and before it at most the rest of the block that holds the
 * end of the file, from a sector's boundary. What is behind the data in its last block is zeroed in the caller's buffer and
 * written with it. No append window; streams of whole blocks are left to the slow path, which opens one.
 *
 * GROW-1 From the reservation to the end the request is counted in the gate as a write, which keeps out whoever moves the size or maps
 *    blocks behind it (they close the gate first), and `growing` of the inode keeps out a second request like this.
 * GROW-2 Whatever cannot be done without waiting, at either end, gives everything back and takes the slow path from the beginning: what
 *    was written lies in free blocks, or behind the end of the file, where nobody trusts it.
 * GROW-3 The inode lock is held while blocks are looked for and while they are inserted, not in between: see GROW-1.
 */
#include "base/nowait.h"
#include "dio/types.h"

#include <errno.h>
#include <string.h>

#define GROW_MAX (256u << 10) /* longer requests get a window from the slow path */

static void piece_done(struct dev_io *io);

/* Bytes to be written: up to the end of the last block. */
static uint64_t span_of(const struct dio_req *r)
{
	return fdio_round_up(r->pos + r->len, r->dio->block_size) - r->pos;
}

/* By what needs no lock; all of it is looked at again, or holds as long as the file is open. */
static bool is_candidate(const struct dio_req *r)
{
	const struct dio *d = r->dio;
	struct x4_inode *i = r->file->inode;
	uint64_t span = span_of(r);

	if (!(r->flags & DIO_WRITE) || r->want != r->len || r->len > GROW_MAX || span > r->buf_cap || span > d->max_io)
		return false;
	if (r->pos != x4_inode_size(i) || x4_window_end(i))
		return false;
	if (((uintptr_t)r->buf & (d->mem_align - 1)) || (r->pos & (d->lbs - 1)))
		return false;
	return !(r->pos & (d->block_size - 1)) || d->mem_align <= d->lbs;
}

/* Whole blocks again and again: a window serves these better. The inode is locked, shared at least. */
static bool is_stream(const struct dio_req *r)
{
	return !((r->pos | r->len) & (r->dio->block_size - 1)) && r->file->di->app_streak + 1 >= DIO_STREAM_REQUESTS;
}

/* The rest of the block that holds the end of the file; grow_head stays 0 if there is none. */
static int find_head(struct dio_req *r)
{
	uint32_t in = r->pos & (r->dio->block_size - 1);
	struct dio_piece p;
	int err;

	r->grow_head = 0;
	if (!in)
		return 0;
	err = dio_piece_at(r->dio, r->file->inode, r->pos, r->dio->block_size - in, &p);
	if (err || p.state != X4_EXT_WRITTEN || p.len != r->dio->block_size - in)
		return -EAGAIN;
	r->grow_head = p.len;
	r->grow_off = p.dev_off;
	return 0;
}

static int reserve(struct dio_req *r)
{
	struct x4_inode *i = r->file->inode;
	uint64_t first = (r->pos + r->grow_head) >> r->dio->block_bits;
	uint32_t n = (r->span - r->grow_head) >> r->dio->block_bits;
	struct x4_ext x;
	int err;

	if (!n)
		return 0;
	if (first + n > UINT32_MAX)
		return -EAGAIN;
	err = x4_map_lookup(i, (uint32_t)first, &x);
	if (err || x.state != X4_EXT_HOLE || (uint64_t)x.lblk + x.len < UINT32_MAX)
		return -EAGAIN;
	err = x4_resv_holes(i, (uint32_t)first, n, r->flags & DIO_ROOT, &r->resv);
	return !err && (r->resv.nr != 1 || r->resv.ext[0].len != n) ? -EAGAIN : err;
}

/* GROW-3 */
static int prepare(struct dio_req *r)
{
	struct x4_inode *i = r->file->inode;
	int err = x4_inode_enter_shared(i);

	if (err)
		return err;
	if (r->pos != x4_inode_size(i) || x4_window_end(i) || is_stream(r) ||
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
	struct dio_inode *di = r->file->di;

	x4_resv_free(&r->resv);
	r->state &= ~DIO_R_ENTERED;
	__atomic_store_n(&di->growing, false, __ATOMIC_RELEASE);
	dio_gate_leave(di, r->cpu, DIO_COUNT_WRITE);
}

/* Sends the piece at nr_done; the last touch. */
static void send_piece(struct dio_req *r)
{
	struct dio_piece p = { .state = X4_EXT_WRITTEN };

	if (r->nr_done < r->grow_head) {
		p.dev_off = r->grow_off;
		p.len = r->grow_head;
		/* One request for both where the new blocks follow the old one. */
		if (r->resv.nr && r->grow_off + r->grow_head == r->resv.ext[0].pblk << r->dio->block_bits)
			p.len = r->span;
	} else {
		p.dev_off = r->resv.ext[0].pblk << r->dio->block_bits;
		p.len = r->span - r->grow_head;
	}
	r->retries = 0;
	uint32_t at = r->nr_done;
	r->nr_done += p.len;
	dio_io_fill(r, &r->io, at, &p, piece_done);
	dev_submit(r->dio->cfg.dev, &r->io);
}

bool dio_grow_start(struct dio_req *r)
{
	struct dio_inode *di = r->file->di;
	int err;

	if (!is_candidate(r) || !dio_gate_enter(di, r->cpu, DIO_COUNT_WRITE))
		return false;
	if (__atomic_exchange_n(&di->growing, true, __ATOMIC_ACQ_REL)) {
		dio_gate_leave(di, r->cpu, DIO_COUNT_WRITE);
		return false;
	}
	r->state |= DIO_R_ENTERED;
	r->span = (uint32_t)span_of(r);
	r->resv.inode = NULL;
	r->resv.nr = 0;
	nowait_begin();
	err = prepare(r);
	if (nowait_end() || err) {
		let_go(r);
		return false;
	}
	memset((uint8_t *)r->buf + r->len, 0, r->span - r->len);
	send_piece(r);
	return true;
}

/* The data is on the device. */
static int publish(struct dio_req *r)
{
	struct x4_inode *i = r->file->inode;
	bool whole = !((r->pos | r->len) & (r->dio->block_size - 1));
	int err = x4_inode_enter_excl(i);

	if (err)
		return err;
	err = x4_insert(i, &r->resv, 0, 0, r->pos + r->len);
	if (!err)
		r->file->di->app_streak = whole ? r->file->di->app_streak + 1 : 0;
	x4_inode_unlock(i);
	return err;
}

static void piece_done(struct dev_io *io)
{
	struct dio_req *r = container_of(io, struct dio_req, io);
	int err = 0;
	bool missed;

	if (unlikely(io->result != (int)io->len) && dio_io_again(r->dio, io, &r->retries, &err))
		return;
	if (!err && r->nr_done < r->span) {
		send_piece(r);
		return;
	}
	dio_mark_dirty(r->dio, r->file->di);
	if (unlikely(err)) {
		let_go(r);
		dio_req_fail(r, err);
		return;
	}
	nowait_begin();
	err = publish(r);
	missed = nowait_end();
	let_go(r);
	if (unlikely(missed || err)) { /* GROW-2; what is wrong is told by the slow path */
		fdio_count(CTR_dio_grow_again);
		r->direct_len = r->nr_done = 0;
		dio_req_slow(r);
		return;
	}
	fdio_count(CTR_dio_grow);
	dio_write_finish(r, true);
}
