/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes into holes. Blocks are reserved in memory before any data moves, so that a full file
 * system is found with nothing changed. When the data is on the device, the extents are inserted,
 * unwritten extents converted, and the size published. The states of a reservation:
 *
 *   state      event                              next state   function
 *   empty      every hole got blocks              reserved     ext4_reserve_range
 *   empty      no space, no memory, a miss        empty        ext4_reserve_range
 *   reserved   its extents are in the tree        inserted     ext4_reservation_insert
 *   reserved   a transaction of several fails     reserved     ext4_reservation_insert: the rest
 *   reserved   the write failed or is given up    empty        ext4_reservation_free
 *   inserted   tree blocks are given back         empty        ext4_reservation_free
 *
 * A crash forgets what is reserved. Inserting takes bounded transactions, each of which leaves a
 * file system that checks clean: written blocks never lie behind i_size on disk. So where the range
 * is new at the end of the file, i_size follows the inserted blocks, whose data is complete, and
 * reaches new_size with the last transaction. Blocks for tree nodes are set aside before.
 *
 * Called by dio and fallocate.c on workers; by dio for one run of blocks also on loop threads in
 * the mode of base/nowait.h. The inode lock is held in either mode, exclusively when the size
 * moves; never inside a handle. After an error the extents inserted so far stay in the tree.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <string.h>

/* Sets *ret_n blocks aside for the nodes that n inserts may need; the caller gives them back. */
static int reserve_tree_blocks(struct ext4_inode *inode, unsigned n, bool root, unsigned *ret_n)
{
	unsigned meta;
	int err;

	*ret_n = 0;
	err = fdio_mutex_enter(&inode->map_lock); /* other writers may be growing the tree */
	if (err)
		return err;
	meta = ext4_extent_metadata_for(inode, n);
	fdio_mutex_unlock(&inode->map_lock);
	err = ext4_metadata_reserve(inode->vol, meta,
				    root ? EXT4_REQUESTER_SYSTEM : EXT4_REQUESTER_USER);
	*ret_n = err ? 0 : meta;
	return err;
}

/* ---- reserving ---- */

/* Room for one more extent. */
static int room_for_extent(struct ext4_reservation *reservation)
{
	unsigned cap = reservation->cap * 2;
	struct ext4_extent *extent;

	if (reservation->nr < reservation->cap)
		return 0;
	extent = ext4_map_mem(cap * sizeof(*extent));
	if (!extent)
		return -ENOMEM;
	memcpy(extent, reservation->ext, reservation->nr * sizeof(*extent));
	if (reservation->ext != reservation->inline_ext)
		ext4_map_mem_free(reservation->ext);
	reservation->ext = extent;
	reservation->cap = cap;
	return 0;
}

/* Reserves one run of at most len blocks for the hole at lblk; *goal moves behind it. */
static int reserve_run(struct ext4_reservation *reservation, uint32_t lblk, uint32_t len,
		     enum ext4_extent_state state, uint64_t *goal, uint32_t *ret_n)
{
	struct ext4_extent *last;
	uint64_t blk;
	uint32_t n;
	int err = room_for_extent(reservation);

	if (err)
		return err;
	err = ext4_blocks_reserve(reservation->inode->vol, reservation->inode, *goal,
				  FDIO_MIN(len, ext4_extent_limit(state)), reservation->root, &blk,
				  &n);
	if (err)
		return err;
	last = reservation->nr ? &reservation->ext[reservation->nr - 1] : NULL;
	if (last && ext4_extent_end(last) == lblk && last->pblk + last->len == blk &&
	    last->len + n <= ext4_extent_limit(state))
		last->len += n;
	else
		reservation->ext[reservation->nr++] = (struct ext4_extent) { lblk, n, blk, state };
	*goal = blk + n;
	*ret_n = n;
	return 0;
}

/* Reserves blocks for all holes in [lblk, lblk + len). */
static int reserve_in_holes(struct ext4_reservation *reservation, uint32_t lblk, uint32_t len,
		     enum ext4_extent_state state)
{
	uint64_t end = (uint64_t)lblk + len, goal = 0;
	struct ext4_extent extent;
	int err;

	if (lblk && !ext4_map_lookup(reservation->inode, lblk - 1, &extent) &&
	    extent.state != EXT4_EXTENT_HOLE)
		goal = extent.pblk + 1;
	while (lblk < end) {
		uint32_t n;

		err = ext4_map_lookup_load(reservation->inode, lblk, &extent);
		if (err)
			return err;
		n = FDIO_MIN((uint64_t)extent.len, end - lblk);
		if (extent.state != EXT4_EXTENT_HOLE) {
			goal = extent.pblk + extent.len;
		} else {
			err = ext4_indirect_convert_file(reservation->inode);
			if (!err)
				err = reserve_run(reservation, lblk, n, state, &goal, &n);
			if (err)
				return err;
		}
		lblk += n;
	}
	return 0;
}

int ext4_reserve_range(struct ext4_inode *inode, uint32_t lblk, uint32_t len, bool root,
		       enum ext4_extent_state state, struct ext4_reservation *reservation)
{
	int err;

	memset(reservation, 0, sizeof(*reservation));
	reservation->inode = inode;
	reservation->root = root;
	reservation->ext = reservation->inline_ext;
	reservation->cap = ARRAY_SIZE(reservation->inline_ext);
	if (ext4_vol_read_only(inode->vol))
		return -EROFS;
	if ((uint64_t)lblk + len > EXT4_LBLK_END)
		return -EFBIG;
	err = reserve_in_holes(reservation, lblk, len, state);
	if (!err && reservation->nr)
		err = reserve_tree_blocks(inode, reservation->nr, root, &reservation->meta);
	if (err)
		ext4_reservation_free(reservation);
	return err;
}

int ext4_reserve_holes(struct ext4_inode *inode, uint32_t lblk, uint32_t len, bool root,
		       struct ext4_reservation *reservation)
{
	return ext4_reserve_range(inode, lblk, len, root, EXT4_EXTENT_WRITTEN, reservation);
}

void ext4_reservation_free(struct ext4_reservation *reservation)
{
	if (!reservation->inode)
		return;
	for (unsigned k = 0; k < reservation->nr; k++)
		ext4_blocks_unreserve(reservation->inode->vol, reservation->ext[k].pblk,
				      reservation->ext[k].len);
	if (reservation->meta)
		ext4_metadata_unreserve(reservation->inode->vol, reservation->meta);
	if (reservation->ext != reservation->inline_ext)
		ext4_map_mem_free(reservation->ext);
	memset(reservation, 0, sizeof(*reservation));
}

/* ---- inserting ---- */

/* The size, at most new_size, when the tree has all blocks before end. */
static uint64_t size_upto(struct ext4_inode *inode, uint64_t new_size, uint64_t end)
{
	return FDIO_MIN(new_size, end << inode->vol->block_bits);
}

unsigned ext4_insert_credits(struct ext4_inode *inode, const struct ext4_extent *extent)
{
	return ext4_extent_credits(inode) + extent->len / inode->vol->blocks_per_group + 2 +
	       EXT4_CREDITS_INODE;
}

/* Inserts as many of ext[0..n) as one handle takes, at least one. */
static int insert_batch(struct ext4_inode *inode, const struct ext4_extent *ext, unsigned n,
			uint64_t new_size, bool last, unsigned *ret_done)
{
	unsigned credits = FDIO_MAX(ext4_extent_batch_credits(inode),
				    ext4_insert_credits(inode, &ext[0])),
		 done = 0;
	struct journal_handle *handle;
	int err;

	/* For one extent, the usual case, a large share of the log is not needed. */
	if (n == 1)
		credits = ext4_insert_credits(inode, &ext[0]);
	*ret_done = 0;
	err = ext4_inode_change_begin(inode, credits, &handle);
	if (err)
		return err;
	while (!err && done < n &&
	       (!done || journal_credits_left(handle) >= ext4_insert_credits(inode, &ext[done]))) {
		const struct ext4_extent *extent = &ext[done++];

		err = ext4_blocks_claim(handle, inode, extent->pblk, extent->len);
		if (!err)
			err = ext4_extent_insert(handle, inode, extent->lblk, extent->len,
						 extent->pblk,
						 extent->state == EXT4_EXTENT_UNWRITTEN);
	}
	if (!err)
		ext4_stamp_grown(inode, last && done == n ? new_size
						     : size_upto(inode, new_size,
								 ext4_extent_end(&ext[done - 1])));
	err = ext4_inode_change_end(handle, inode, err, true);
	if (!err)
		*ret_done = done;
	return err;
}

int ext4_reservation_insert(struct ext4_inode *inode, struct ext4_reservation *reservation,
			    uint64_t new_size, bool last)
{
	unsigned at = 0, done = 0;
	int err = 0;

	while (at < reservation->nr && !err) {
		err = insert_batch(inode, reservation->ext + at, reservation->nr - at, new_size,
				   last, &done);
		at += done;
	}
	/* Inserted extents no longer belong to the reservation. */
	memmove(reservation->ext, reservation->ext + at,
		(reservation->nr - at) * sizeof(*reservation->ext));
	reservation->nr -= at;
	return err;
}

int ext4_convert_range(struct ext4_inode *inode, uint32_t lblk, uint32_t end,
		       enum ext4_extent_state to, uint64_t new_size)
{
	while (lblk < end) {
		struct journal_handle *handle;
		uint32_t next = lblk;
		int err = ext4_inode_change_begin(inode, ext4_extent_batch_credits(inode), &handle);

		if (err)
			return err;
		err = ext4_extent_convert(handle, inode, lblk, end, to, &next);
		if (!err && next == lblk)
			err = -ENOSPC; /* the log is too small for this tree */
		if (!err)
			ext4_stamp_grown(inode,
				    next == end ? new_size : size_upto(inode, new_size, next));
		err = ext4_inode_change_end(handle, inode, err, true);
		if (err)
			return err;
		lblk = next;
	}
	return 0;
}

/* Narrows [*lblk, *end) to where unwritten blocks lie; *ret_any: there are some. */
static int find_unwritten(struct ext4_inode *inode, uint32_t *lblk, uint32_t *end, bool *ret_any)
{
	uint32_t first = *end, last = *lblk;

	*ret_any = false;
	for (uint32_t at = *lblk; at < *end;) {
		struct ext4_extent extent;
		int err = ext4_map_lookup(inode, at, &extent);

		if (err == -EAGAIN) {
			err = ext4_map_load_locked(inode);
			if (err)
				return err;
			continue;
		}
		if (extent.state == EXT4_EXTENT_UNWRITTEN) {
			first = FDIO_MIN(first, at);
			last = FDIO_MIN(ext4_extent_end(&extent), (uint64_t)*end);
			*ret_any = true;
		}
		at = FDIO_MIN(ext4_extent_end(&extent), (uint64_t)*end);
	}
	if (*ret_any) {
		*lblk = first;
		*end = last;
	}
	return 0;
}

/* *ret_sized: a transaction was made, which has moved the size too. map_lock held. */
static int insert_locked(struct ext4_inode *inode, struct ext4_reservation *reservation,
			 uint32_t lblk, uint32_t end, uint64_t new_size, bool *ret_sized)
{
	bool inserts = reservation && reservation->nr, converts = false;
	int err = 0;

	if (lblk < end)
		err = find_unwritten(inode, &lblk, &end, &converts);
	if (!err && inserts)
		err = ext4_reservation_insert(inode, reservation, new_size, !converts);
	if (!err && converts)
		err = ext4_convert_range(inode, lblk, end, EXT4_EXTENT_WRITTEN, new_size);
	*ret_sized = inserts || converts;
	return err;
}

int ext4_insert(struct ext4_inode *inode, struct ext4_reservation *reservation, uint32_t conv_lblk,
		uint32_t conv_len, uint64_t new_size)
{
	unsigned meta = 0;
	bool sized;
	int err;

	if (new_size > ext4_max_size(inode) || (uint64_t)conv_lblk + conv_len > EXT4_LBLK_END)
		return -EFBIG;
	if (ext4_size_over_stale(inode, new_size))
		return -EIO;
	if (conv_len) {
		err = reserve_tree_blocks(inode, 2, true, &meta);
		if (err)
			return err;
	}
	err = fdio_mutex_enter(&inode->map_lock);
	if (err) {
		if (meta)
			ext4_metadata_unreserve(inode->vol, meta);
		return err;
	}
	err = insert_locked(inode, reservation, conv_lblk, conv_lblk + conv_len, new_size, &sized);
	fdio_mutex_unlock(&inode->map_lock);
	if (meta)
		ext4_metadata_unreserve(inode->vol, meta);
	err = nowait_err(err);
	if (!err && !sized && new_size)
		err = ext4_publish_size(inode, new_size);
	return err;
}
