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

static bool is_whole(const struct dio_req *req)
{
	return !((req->pos | req->len) & (dio_own(req)->dio->block_size - 1));
}

/* Bytes to be written: up to the end of the last block. */
static uint64_t span_of(const struct dio_req *req)
{
	return fdio_round_up(req->pos + req->len, dio_own(req)->dio->block_size) - req->pos;
}

/* By what needs no lock; all of it is looked at again, or holds as long as the file is open. */
bool dio_grow_fits(const struct dio_req *req)
{
	const struct dio *dio = dio_own(req)->dio;
	uint64_t span = span_of(req);

	if (req->len > GROW_MAX || span > req->buf_cap || span > dio->max_io)
		return false;
	if (req->pos != ext4_inode_size(req->file->inode))
		return false;
	if (((uintptr_t)req->buf & (dio->mem_align - 1)) || (req->pos & (dio->sector_bytes - 1)))
		return false;
	return !(req->pos & (dio->block_size - 1)) || dio->mem_align <= dio->sector_bytes;
}

/* ---- the blocks ---- */

/* The rest of the block that holds the end of the file; grow_head stays 0 if there is none. */
static int find_head(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);
	uint32_t in = req->pos & (o->dio->block_size - 1);
	struct dio_piece piece;
	int err;

	o->grow_head = 0;
	if (!in)
		return 0;
	err = dio_piece_at(o->dio, req->file->inode, req->pos, o->dio->block_size - in, &piece);
	if (err || piece.state != EXT4_EXTENT_WRITTEN || piece.len != o->dio->block_size - in)
		return -EAGAIN;
	o->grow_head = piece.len;
	o->grow_off = piece.dev_off;
	return 0;
}

static int reserve(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);
	struct ext4_inode *inode = req->file->inode;
	uint64_t first = (req->pos + o->grow_head) >> o->dio->block_bits;
	uint32_t n = (o->span - o->grow_head) >> o->dio->block_bits;
	struct ext4_extent extent;
	int err;

	if (!n)
		return 0;
	if (first + n > UINT32_MAX)
		return -EAGAIN;
	err = ext4_map_lookup(inode, (uint32_t)first, &extent);
	if (err || extent.state != EXT4_EXTENT_HOLE ||
	    (uint64_t)extent.lblk + extent.len < UINT32_MAX)
		return -EAGAIN;
	err = ext4_reserve_holes(inode, (uint32_t)first, n, req->flags & DIO_ROOT, &o->resv);
	return !err && (o->resv.nr != 1 || o->resv.ext[0].len != n) ? -EAGAIN : err;
}

/* GROW-3 */
static int prepare(struct dio_req *req)
{
	struct ext4_inode *inode = req->file->inode;
	int err = ext4_inode_enter_shared(inode);

	if (err)
		return err;
	if (req->pos != ext4_inode_size(inode) || ext4_window_end(inode) ||
	    (is_whole(req) && dio_append_is_stream(req->file->dinode)) ||
	    ((req->flags & (DIO_KILLPRIV | DIO_KILLCAPS)) && !ext4_nothing_to_kill(inode)))
		err = -EAGAIN;
	if (!err)
		err = find_head(req);
	if (!err)
		err = reserve(req);
	ext4_inode_unlock(inode);
	return err;
}

/* Gives everything back; the gate last. */
static void let_go(struct dio_req *req)
{
	ext4_reservation_free(&dio_own(req)->resv);
	__atomic_store_n(&req->file->dinode->growing, false, __ATOMIC_RELEASE);
	dio_leave(req);
}

/* ---- the way ---- */

/* Sends the piece at nr_done; the last touch. */
static void send_piece(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);
	struct dio_piece piece = { .state = EXT4_EXTENT_WRITTEN };
	uint32_t at = o->nr_done;

	if (at < o->grow_head) {
		piece.dev_off = o->grow_off;
		piece.len = o->grow_head;
		/* One request for both where the new blocks follow the old one. */
		if (o->resv.nr && o->grow_off + o->grow_head == o->resv.ext[0].pblk
									<< o->dio->block_bits)
			piece.len = o->span;
	} else {
		piece.dev_off = o->resv.ext[0].pblk << o->dio->block_bits;
		piece.len = o->span - o->grow_head;
	}
	o->retries = 0;
	o->nr_done += piece.len;
	dio_io_fill(req, &o->io, at, &piece, piece_done);
	dev_submit(o->dio->config.dev, &o->io);
}

bool dio_grow_start(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);
	struct dio_inode *dinode = req->file->dinode;
	int err;

	if (!dio_gate_enter(dinode, o->cpu, DIO_COUNT_WRITE))
		return false;
	o->stage = DIO_AT_SMALL;
	if (__atomic_exchange_n(&dinode->growing, true, __ATOMIC_ACQ_REL)) {
		dio_leave(req);
		return false;
	}
	o->span = (uint32_t)span_of(req);
	o->resv.inode = NULL;
	o->resv.nr = 0;
	nowait_begin();
	err = prepare(req);
	if (nowait_end() || err) {
		let_go(req);
		return false;
	}
	memset((uint8_t *)req->buf + req->len, 0, o->span - req->len);
	send_piece(req);
	return true;
}

/* The data is on the device. */
static int publish(struct dio_req *req)
{
	struct ext4_inode *inode = req->file->inode;
	int err = ext4_inode_enter_exclusive(inode);

	if (err)
		return err;
	err = ext4_insert(inode, &dio_own(req)->resv, 0, 0, req->pos + req->len);
	if (!err)
		dio_append_count(req->file->dinode, is_whole(req));
	ext4_inode_unlock(inode);
	return err;
}

/* GROW-2; what is wrong is told by the slow path. */
static void again_slow(struct dio_req *req)
{
	fdio_count(COUNTER_dio_grow_again);
	dio_own(req)->direct_len = dio_own(req)->nr_done = 0;
	dio_req_slow(req);
}

/* All of it is written. */
static void finish(struct dio_req *req)
{
	bool missed;
	int err;

	nowait_begin();
	err = publish(req);
	missed = nowait_end();
	let_go(req);
	if (unlikely(missed || err)) {
		again_slow(req);
		return;
	}
	fdio_count(COUNTER_dio_grow);
	dio_write_finish(req, true);
}

static void piece_done(struct dev_io *io)
{
	struct dio_req *req = dio_req_of_io(io);
	struct dio_own *o = dio_own(req);
	int err = 0;

	if (unlikely(io->result != (int)io->len) && dio_io_again(o->dio, io, &o->retries, &err))
		return;
	if (!err && o->nr_done < o->span) {
		send_piece(req);
		return;
	}
	dio_mark_dirty(o->dio, req->file->dinode);
	if (unlikely(err)) {
		let_go(req);
		dio_req_fail(req, err);
		return;
	}
	finish(req);
}
