/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fallocate: preallocation with unwritten extents, with or without a new size; punching holes;
 * zeroing a range. Workers of ops, with the inode lock held exclusively and the inode's I/O
 * drained, outside handles.
 *
 * Blocks and tree nodes are reserved before anything changes, so a full file system is found early
 * (-ENOSPC). Partial blocks at the edges are zeroed on the device; whole blocks change their state
 * in the tree, in bounded transactions. After each transaction every block holds its old content or
 * zeroes; a new size comes last.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <sys/stat.h>

/* A byte range and the whole blocks in and around it. */
struct range {
	uint64_t off, end;
	uint32_t in_first, in_end;   /* blocks entirely inside; in_first >= in_end: none */
	uint32_t out_first, out_end; /* blocks that it touches */
};

static struct range range_of(struct ext4_inode *inode, uint64_t off, uint64_t end)
{
	unsigned bits = inode->vol->block_bits;

	return (struct range) {
		.off = off, .end = end,
		.in_first = fdio_blocks(off, bits), .in_end = end >> bits,
		.out_first = off >> bits, .out_end = fdio_blocks(end, bits),
	};
}

/* Zeroes the parts of the range that do not cover a whole block. */
static int zero_edges(struct ext4_inode *inode, const struct range *range)
{
	unsigned bits = inode->vol->block_bits;
	uint64_t first = (uint64_t)range->in_first << bits, last = (uint64_t)range->in_end << bits;
	int err;

	if (range->in_first > range->in_end)
		return ext4_zero_in_block(inode, range->off, range->end);
	err = ext4_zero_in_block(inode, range->off, first);
	return err ? err : ext4_zero_in_block(inode, last, range->end);
}

/* Changes nothing but mtime and ctime. */
static int stamp_only(struct ext4_inode *inode) { return ext4_publish_size(inode, 0); }

/* Fills every hole with unwritten blocks; the size changes in the last transaction. */
static int preallocate(struct ext4_inode *inode, const struct range *range, uint64_t new_size,
		       bool root)
{
	struct ext4_reservation reservation;
	bool any;
	int err = ext4_reserve_range(inode, range->out_first, range->out_end - range->out_first,
				     root, EXT4_EXTENT_UNWRITTEN, &reservation);

	if (err)
		return err;
	any = reservation.nr;
	if (new_size)
		err = ext4_zero_tail(inode, ext4_raw_size(inode));
	if (!err && any) {
		fdio_mutex_lock(&inode->map_lock);
		err = ext4_reservation_insert(inode, &reservation, new_size, true);
		fdio_mutex_unlock(&inode->map_lock);
	}
	if (!err && !any)
		err = ext4_publish_size(inode, new_size);
	ext4_reservation_free(&reservation);
	return err;
}

static int punch(struct ext4_inode *inode, uint64_t off, uint64_t len)
{
	uint64_t size = ext4_raw_size(inode), end = off + len;
	struct range range;
	unsigned meta = 0;
	int err;

	if (off >= size)
		return stamp_only(inode); /* frees nothing, but counts as a change */
	if (end > size)
		end = fdio_round_up(size, inode->vol->block_size);
	range = range_of(inode, off, end);
	if (ext4_map_kind(inode) == EXT4_MAPPED_EXTENTS) {
		/*
		 * Cutting an extent in two may split a node. Punching gives blocks back, so it may
		 * use the blocks that are kept for the system.
		 */
		meta = ext4_extent_metadata_for(inode, 1);
		err = ext4_metadata_reserve(inode->vol, meta, EXT4_REQUESTER_SYSTEM);
		if (err)
			return err;
	}
	err = zero_edges(inode, &range);
	if (!err)
		err = range.in_first < range.in_end ? ext4_remove_range(inode, range.in_first,
									range.in_end, false, true)
						    : stamp_only(inode);
	if (meta)
		ext4_metadata_unreserve(inode->vol, meta);
	return err;
}

/* Inserts the reserved blocks and makes all whole blocks unwritten; then the size. */
static int zero_convert(struct ext4_inode *inode, const struct range *range,
			struct ext4_reservation *reservation, uint64_t new_size)
{
	int err = 0;

	fdio_mutex_lock(&inode->map_lock);
	if (reservation->nr)
		err = ext4_reservation_insert(inode, reservation, 0, false);
	if (!err && range->in_first < range->in_end)
		err = ext4_convert_range(inode, range->in_first, range->in_end,
					 EXT4_EXTENT_UNWRITTEN, 0);
	fdio_mutex_unlock(&inode->map_lock);
	return err ? err : ext4_publish_size(inode, new_size);
}

static int zero_range(struct ext4_inode *inode, const struct range *range, uint64_t new_size,
		      bool root)
{
	struct ext4_reservation reservation;
	unsigned meta;
	int err = ext4_reserve_range(inode, range->out_first, range->out_end - range->out_first,
				     root, EXT4_EXTENT_UNWRITTEN, &reservation);

	if (err)
		return err;
	meta = ext4_extent_metadata_for(
			inode, 2 + (range->out_end - range->out_first) / EXT4_EXTENT_UNWRITTEN_MAX);
	err = ext4_metadata_reserve(inode->vol, meta,
				    root ? EXT4_REQUESTER_SYSTEM : EXT4_REQUESTER_USER);
	if (err) {
		ext4_reservation_free(&reservation);
		return err;
	}
	if (new_size)
		err = ext4_zero_tail(inode, ext4_raw_size(inode));
	if (!err)
		err = zero_edges(inode, range);
	if (!err)
		err = zero_convert(inode, range, &reservation, new_size);
	ext4_metadata_unreserve(inode->vol, meta);
	ext4_reservation_free(&reservation);
	return err;
}

static int check(struct ext4_inode *inode, int mode, uint64_t off, uint64_t len)
{
	uint32_t flags = inode->raw->i_flags, type = inode->raw->i_mode & S_IFMT;
	int how = mode & ~EXT4_FALLOC_KEEP_SIZE;

	if (ext4_vol_read_only(inode->vol))
		return -EROFS; /* before the device is written */
	if (type != S_IFREG)
		return type == S_IFDIR ? -EISDIR : -ENODEV;
	if (!len)
		return -EINVAL;
	if (how && how != EXT4_FALLOC_PUNCH_HOLE && how != EXT4_FALLOC_ZERO_RANGE)
		return -EOPNOTSUPP;
	if (how == EXT4_FALLOC_PUNCH_HOLE && !(mode & EXT4_FALLOC_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (flags & EXT2_IMMUTABLE_FL || (how && flags & EXT2_APPEND_FL))
		return -EPERM;
	if (off + len < off || off + len > ext4_max_size(inode))
		return -EFBIG;
	if (ext4_map_kind(inode) == EXT4_MAPPED_NOT)
		return -EOPNOTSUPP;
	/* Unwritten blocks need extents. */
	return how == EXT4_FALLOC_PUNCH_HOLE ? 0 : ext4_indirect_convert_file(inode);
}

int ext4_fallocate(struct ext4_inode *inode, int mode, uint64_t off, uint64_t len, bool root)
{
	struct range range;
	uint64_t new_size;
	int err = check(inode, mode, off, len);

	if (!err)
		err = ext4_window_close(inode, NULL, NULL);
	if (!err)
		err = ext4_truncate_finish(inode);
	if (err)
		return err;
	if (mode & EXT4_FALLOC_PUNCH_HOLE)
		return punch(inode, off, len);
	range = range_of(inode, off, off + len);
	new_size = !(mode & EXT4_FALLOC_KEEP_SIZE) && range.end > ext4_raw_size(inode) ? range.end
										       : 0;
	if (mode & EXT4_FALLOC_ZERO_RANGE)
		return zero_range(inode, &range, new_size, root);
	return preallocate(inode, &range, new_size, root);
}
