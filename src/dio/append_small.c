/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Small appends without a worker: a write at the end of a file, whose blocks do not exist yet, all
 * of it on the loop thread. Blocks are reserved in the mode of nowait.h; the data goes to the
 * device on the loop's ring; when it is there, one handle inserts the extent and moves the size,
 * again in that mode. These are the steps of slow.c in the same order (DIO-4).
 *
 * Only the simple case: one run of new blocks with nothing mapped behind it, and before it at most
 * the rest of the block that holds the end of the file, from the boundary of a sector. The rest of
 * the last block behind the data is zeroed in the caller's buffer and written with it. The file has
 * no append window; streams of whole blocks are left to the slow path, which opens one.
 *
 * GROW-1 From the reservation to the end the request is counted in the gate as a write. So no other
 *        thread moves the size or maps blocks behind it: such operations close the gate first.
 *        dio_inode.growing keeps out a second request of this kind.
 * GROW-2 If anything cannot be done without waiting, at either end, the request gives everything
 *        back and takes the slow path from its beginning. The data that it has written lies in free
 *        blocks, or behind the end of the file, where nothing is ever read.
 * GROW-3 The inode lock is held while blocks are reserved and while they are inserted, not in
 *        between: GROW-1 is enough there.
 *
 * Errors of the device go to dio_fail, all others to the slow path, which meets them again.
 */
#include "base/nowait.h"
#include "dio/types.h"

#include <errno.h>
#include <string.h>

#define GROW_MAX (256u << 10) /* for longer requests the slow path opens a window */

static void piece_done(struct dev_io *io);

/* ---- the choice ---- */

static bool is_whole(const struct dio_req *req)
{
	return !((req->pos | req->len) & (dio_own(req)->dio->block_size - 1));
}

/* Bytes to write: up to the end of the last block. */
static uint64_t span_of(const struct dio_req *req)
{
	return fdio_round_up(req->pos + req->len, dio_own(req)->dio->block_size) - req->pos;
}

/* The size is checked again under the inode lock; the other conditions cannot change. */
bool dio_append_small_fits(const struct dio_req *req)
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

/* Finds the rest of the block that holds the end of the file. grow_head is 0 if there is none. */
static int find_head(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	uint32_t in = req->pos & (own->dio->block_size - 1);
	struct dio_piece piece;
	int err;

	own->grow_head = 0;
	if (!in)
		return 0;
	err = dio_piece_at(own->dio, req->file->inode, req->pos, own->dio->block_size - in, &piece);
	if (err || piece.state != EXT4_EXTENT_WRITTEN || piece.len != own->dio->block_size - in)
		return -EAGAIN;
	own->grow_head = piece.len;
	own->grow_off = piece.dev_off;
	return 0;
}

static int reserve(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	struct ext4_inode *inode = req->file->inode;
	uint64_t first = (req->pos + own->grow_head) >> own->dio->block_bits;
	uint32_t n = (own->span - own->grow_head) >> own->dio->block_bits;
	struct ext4_reservation *reservation = &own->reservation;
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
	err = ext4_reserve_holes(inode, (uint32_t)first, n, req->flags & DIO_ROOT, reservation);
	return !err && (reservation->nr != 1 || reservation->ext[0].len != n) ? -EAGAIN : err;
}

/* Reserves the blocks that the write needs, under the inode lock (GROW-3). */
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

/* Gives everything back, and leaves the gate last. */
static void let_go(struct dio_req *req)
{
	ext4_reservation_free(&dio_own(req)->reservation);
	__atomic_store_n(&req->file->dinode->growing, false, __ATOMIC_RELEASE);
	dio_leave(req);
}

/* ---- from the first piece to the end ---- */

/* Where the reserved blocks begin on the device. */
static uint64_t new_blocks_at(const struct dio_own *own)
{
	return own->reservation.ext[0].pblk << own->dio->block_bits;
}

/* Sends the piece at nr_sent. req may have ended when this returns. */
static void send_piece(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	struct dio_piece piece = { .state = EXT4_EXTENT_WRITTEN };
	uint32_t at = own->nr_sent;

	if (at < own->grow_head) {
		piece.dev_off = own->grow_off;
		piece.len = own->grow_head;
		/* One request for both where the new blocks follow the old one. */
		if (own->reservation.nr && own->grow_off + own->grow_head == new_blocks_at(own))
			piece.len = own->span;
	} else {
		piece.dev_off = new_blocks_at(own);
		piece.len = own->span - own->grow_head;
	}
	own->retries = 0;
	own->nr_sent += piece.len;
	dio_io_fill(req, &own->io, at, &piece, piece_done);
	dev_submit(own->dio->config.dev, &own->io);
}

bool dio_append_small_start(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	struct dio_inode *dinode = req->file->dinode;
	int err;

	if (!dio_gate_enter(dinode, own->cpu, DIO_COUNT_WRITE))
		return false;
	own->stage = DIO_AT_SMALL;
	if (__atomic_exchange_n(&dinode->growing, true, __ATOMIC_ACQ_REL)) {
		dio_leave(req);
		return false;
	}
	own->span = (uint32_t)span_of(req);
	own->reservation.inode = NULL;
	own->reservation.nr = 0;
	nowait_begin();
	err = prepare(req);
	if (nowait_end() || err) {
		let_go(req);
		return false;
	}
	memset((uint8_t *)req->buf + req->len, 0, own->span - req->len);
	send_piece(req);
	return true;
}

/* The data is on the device: inserts the extent and moves the size, in one handle. */
static int publish(struct dio_req *req)
{
	struct ext4_inode *inode = req->file->inode;
	int err = ext4_inode_enter_exclusive(inode);

	if (err)
		return err;
	err = ext4_insert(inode, &dio_own(req)->reservation, 0, 0, req->pos + req->len);
	if (!err)
		dio_append_count(req->file->dinode, is_whole(req));
	ext4_inode_unlock(inode);
	return err;
}

/* GROW-2: the slow path does all of it again, and reports the error if it meets one. */
static void retry_on_worker(struct dio_req *req)
{
	fdio_count(COUNTER_dio_grow_again);
	dio_own(req)->direct_len = dio_own(req)->nr_sent = 0;
	dio_hand_to_worker(req);
}

/* All pieces are written. */
static void finish(struct dio_req *req)
{
	bool missed;
	int err;

	nowait_begin();
	err = publish(req);
	missed = nowait_end();
	let_go(req);
	if (unlikely(missed || err)) {
		retry_on_worker(req);
		return;
	}
	fdio_count(COUNTER_dio_grow);
	dio_write_finish(req, true);
}

static void piece_done(struct dev_io *io)
{
	struct dio_req *req = dio_req_of_io(io);
	struct dio_own *own = dio_own(req);
	int err = 0;

	if (unlikely(io->result != (int)io->len) &&
	    dio_io_resubmit(own->dio, io, &own->retries, &err))
		return;
	if (!err && own->nr_sent < own->span) {
		send_piece(req);
		return;
	}
	dio_mark_dirty(own->dio, req->file->dinode);
	if (unlikely(err)) {
		let_go(req);
		dio_fail(req, err);
		return;
	}
	finish(req);
}
