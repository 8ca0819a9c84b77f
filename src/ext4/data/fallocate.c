/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fallocate: preallocation with unwritten extents, with or without a new size; punching holes; zeroing a range. Called by the
 * rooms above with the inode lock held exclusively and the inode's I/O drained, on workers, outside handles.
 *
 * Blocks and tree nodes are reserved before anything changes, so a full file system is found early. Partial blocks at the
 * edges are zeroed on the device; whole blocks change their state in the tree in bounded transactions, after each of which
 * every block holds its old content or zeroes; a new size comes last.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <sys/stat.h>

/* A byte range and the whole blocks in and around it. */
struct range {
	uint64_t off, end;
	uint32_t in_first, in_end;   /* blocks entirely inside; in_first >= in_end: none */
	uint32_t out_first, out_end; /* blocks touched */
};

static struct range range_of(struct x4_inode *inode, uint64_t off, uint64_t end)
{
	unsigned bits = inode->vol->block_bits;

	return (struct range) {
		.off = off, .end = end,
		.in_first = fdio_blocks(off, bits), .in_end = end >> bits,
		.out_first = off >> bits, .out_end = fdio_blocks(end, bits),
	};
}

/* The parts of the range that do not cover a whole block. */
static int zero_edges(struct x4_inode *inode, const struct range *range)
{
	unsigned bits = inode->vol->block_bits;
	uint64_t first = (uint64_t)range->in_first << bits, last = (uint64_t)range->in_end << bits;
	int err;

	if (range->in_first > range->in_end)
		return x4_zero_in_block(inode, range->off, range->end);
	err = x4_zero_in_block(inode, range->off, first);
	return err ? err : x4_zero_in_block(inode, last, range->end);
}

static int stamp_only(struct x4_inode *inode) { return x4_publish_size(inode, 0); }

/* Unwritten blocks for every hole; the size with the last transaction. */
static int preallocate(struct x4_inode *inode, const struct range *range, uint64_t new_size, bool root)
{
	struct x4_resv reservation;
	bool any;
	int err = x4_resv_range(inode, range->out_first, range->out_end - range->out_first, root, X4_EXT_UNWRITTEN, &reservation);

	if (err)
		return err;
	any = reservation.nr;
	if (new_size)
		err = x4_zero_tail(inode, x4_raw_size(inode));
	if (!err && any) {
		fdio_mutex_lock(&inode->map_lock);
		err = x4_resv_insert(inode, &reservation, new_size, true);
		fdio_mutex_unlock(&inode->map_lock);
	}
	if (!err && !any)
		err = x4_publish_size(inode, new_size);
	x4_resv_free(&reservation);
	return err;
}

static int punch(struct x4_inode *inode, uint64_t off, uint64_t len)
{
	uint64_t size = x4_raw_size(inode), end = off + len;
	struct range range;
	unsigned meta = 0;
	int err;

	if (off >= size)
		return stamp_only(inode); /* nothing to free, but it counts as a change */
	if (end > size)
		end = fdio_round_up(size, inode->vol->block_size);
	range = range_of(inode, off, end);
	if (x4_map_kind(inode) == X4_MAPPED_EXTENTS) {
		/* Cutting an extent in two may split a node; the range frees blocks, so it may use what is kept back. */
		meta = x4_extent_meta_for(inode, 1);
		err = x4_meta_reserve(inode->vol, meta, X4_ASKS_SYSTEM);
		if (err)
			return err;
	}
	err = zero_edges(inode, &range);
	if (!err)
		err = range.in_first < range.in_end ? x4_remove_range(inode, range.in_first, range.in_end, false, true) : stamp_only(inode);
	if (meta)
		x4_meta_unreserve(inode->vol, meta);
	return err;
}

static int zero_convert(struct x4_inode *inode, const struct range *range, struct x4_resv *reservation, uint64_t new_size)
{
	int err = 0;

	fdio_mutex_lock(&inode->map_lock);
	if (reservation->nr)
		err = x4_resv_insert(inode, reservation, 0, false);
	if (!err && range->in_first < range->in_end)
		err = x4_convert_range(inode, range->in_first, range->in_end, X4_EXT_UNWRITTEN, 0);
	fdio_mutex_unlock(&inode->map_lock);
	return err ? err : x4_publish_size(inode, new_size);
}

static int zero_range(struct x4_inode *inode, const struct range *range, uint64_t new_size, bool root)
{
	struct x4_resv reservation;
	unsigned meta;
	int err = x4_resv_range(inode, range->out_first, range->out_end - range->out_first, root, X4_EXT_UNWRITTEN, &reservation);

	if (err)
		return err;
	meta = x4_extent_meta_for(inode, 2 + (range->out_end - range->out_first) / X4_EXT_UNWRITTEN_MAX);
	err = x4_meta_reserve(inode->vol, meta, root ? X4_ASKS_SYSTEM : X4_ASKS_USER);
	if (err) {
		x4_resv_free(&reservation);
		return err;
	}
	if (new_size)
		err = x4_zero_tail(inode, x4_raw_size(inode));
	if (!err)
		err = zero_edges(inode, range);
	if (!err)
		err = zero_convert(inode, range, &reservation, new_size);
	x4_meta_unreserve(inode->vol, meta);
	x4_resv_free(&reservation);
	return err;
}

static int check(struct x4_inode *inode, int mode, uint64_t off, uint64_t len)
{
	uint32_t flags = le32toh(inode->raw->i_flags), type = le16toh(inode->raw->i_mode) & S_IFMT;
	int how = mode & ~X4_FALLOC_KEEP_SIZE;

	if (x4_vol_read_only(inode->vol))
		return -EROFS; /* before the device is written */
	if (type != S_IFREG)
		return type == S_IFDIR ? -EISDIR : -ENODEV;
	if (!len)
		return -EINVAL;
	if (how && how != X4_FALLOC_PUNCH_HOLE && how != X4_FALLOC_ZERO_RANGE)
		return -EOPNOTSUPP;
	if (how == X4_FALLOC_PUNCH_HOLE && !(mode & X4_FALLOC_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (flags & EXT2_IMMUTABLE_FL || (how && flags & EXT2_APPEND_FL))
		return -EPERM;
	if (off + len < off || off + len > x4_max_size(inode))
		return -EFBIG;
	if (x4_map_kind(inode) == X4_MAPPED_NOT)
		return -EOPNOTSUPP;
	return how == X4_FALLOC_PUNCH_HOLE ? 0 : x4_ind_convert_file(inode); /* unwritten blocks need extents */
}

int x4_fallocate(struct x4_inode *inode, int mode, uint64_t off, uint64_t len, bool root)
{
	struct range range;
	uint64_t new_size;
	int err = check(inode, mode, off, len);

	if (!err)
		err = x4_window_close(inode, NULL, NULL);
	if (!err)
		err = x4_truncate_finish(inode);
	if (err)
		return err;
	if (mode & X4_FALLOC_PUNCH_HOLE)
		return punch(inode, off, len);
	range = range_of(inode, off, off + len);
	new_size = !(mode & X4_FALLOC_KEEP_SIZE) && range.end > x4_raw_size(inode) ? range.end : 0;
	if (mode & X4_FALLOC_ZERO_RANGE)
		return zero_range(inode, &range, new_size, root);
	return preallocate(inode, &range, new_size, root);
}
