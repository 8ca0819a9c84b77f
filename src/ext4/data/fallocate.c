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

static struct range range_of(struct x4_inode *i, uint64_t off, uint64_t end)
{
	unsigned bits = i->vol->block_bits;

	return (struct range) {
		.off = off, .end = end,
		.in_first = fdio_blocks(off, bits), .in_end = end >> bits,
		.out_first = off >> bits, .out_end = fdio_blocks(end, bits),
	};
}

/* The parts of the range that do not cover a whole block. */
static int zero_edges(struct x4_inode *i, const struct range *rg)
{
	unsigned bits = i->vol->block_bits;
	uint64_t first = (uint64_t)rg->in_first << bits, last = (uint64_t)rg->in_end << bits;
	int r;

	if (rg->in_first > rg->in_end)
		return x4_zero_in_block(i, rg->off, rg->end);
	r = x4_zero_in_block(i, rg->off, first);
	return r ? r : x4_zero_in_block(i, last, rg->end);
}

static int stamp_only(struct x4_inode *i) { return x4_publish_size(i, 0); }

/* Unwritten blocks for every hole; the size with the last transaction. */
static int preallocate(struct x4_inode *i, const struct range *rg, uint64_t new_size, bool root)
{
	struct x4_resv r;
	bool any;
	int err = x4_resv_range(i, rg->out_first, rg->out_end - rg->out_first, root, X4_EXT_UNWRITTEN, &r);

	if (err)
		return err;
	any = r.nr;
	if (new_size)
		err = x4_zero_tail(i, x4_raw_size(i));
	if (!err && any) {
		fdio_mutex_lock(&i->map_lock);
		err = x4_resv_insert(i, &r, new_size, true);
		fdio_mutex_unlock(&i->map_lock);
	}
	if (!err && !any)
		err = x4_publish_size(i, new_size);
	x4_resv_free(&r);
	return err;
}

static int punch(struct x4_inode *i, uint64_t off, uint64_t len)
{
	uint64_t size = x4_raw_size(i), end = off + len;
	struct range rg;
	unsigned meta = 0;
	int r;

	if (off >= size)
		return stamp_only(i); /* nothing to free, but it counts as a change */
	if (end > size)
		end = fdio_round_up(size, i->vol->block_size);
	rg = range_of(i, off, end);
	if (x4_map_kind(i) == X4_MAPPED_EXTENTS) {
		/* Cutting an extent in two may split a node; the range frees blocks, so it may use what is kept back. */
		meta = x4_extent_meta_for(i, 1);
		r = x4_meta_reserve(i->vol, meta, X4_ASKS_SYSTEM);
		if (r)
			return r;
	}
	r = zero_edges(i, &rg);
	if (!r)
		r = rg.in_first < rg.in_end ? x4_remove_range(i, rg.in_first, rg.in_end, false, true) : stamp_only(i);
	if (meta)
		x4_meta_unreserve(i->vol, meta);
	return r;
}

static int zero_convert(struct x4_inode *i, const struct range *rg, struct x4_resv *r, uint64_t new_size)
{
	int err = 0;

	fdio_mutex_lock(&i->map_lock);
	if (r->nr)
		err = x4_resv_insert(i, r, 0, false);
	if (!err && rg->in_first < rg->in_end)
		err = x4_convert_range(i, rg->in_first, rg->in_end, X4_EXT_UNWRITTEN, 0);
	fdio_mutex_unlock(&i->map_lock);
	return err ? err : x4_publish_size(i, new_size);
}

static int zero_range(struct x4_inode *i, const struct range *rg, uint64_t new_size, bool root)
{
	struct x4_resv r;
	unsigned meta;
	int err = x4_resv_range(i, rg->out_first, rg->out_end - rg->out_first, root, X4_EXT_UNWRITTEN, &r);

	if (err)
		return err;
	meta = x4_extent_meta_for(i, 2 + (rg->out_end - rg->out_first) / X4_EXT_UNWRITTEN_MAX);
	err = x4_meta_reserve(i->vol, meta, root ? X4_ASKS_SYSTEM : X4_ASKS_USER);
	if (err) {
		x4_resv_free(&r);
		return err;
	}
	if (new_size)
		err = x4_zero_tail(i, x4_raw_size(i));
	if (!err)
		err = zero_edges(i, rg);
	if (!err)
		err = zero_convert(i, rg, &r, new_size);
	x4_meta_unreserve(i->vol, meta);
	x4_resv_free(&r);
	return err;
}

static int check(struct x4_inode *i, int mode, uint64_t off, uint64_t len)
{
	uint32_t flags = le32toh(i->raw->i_flags), type = le16toh(i->raw->i_mode) & S_IFMT;
	int how = mode & ~X4_FALLOC_KEEP_SIZE;

	if (x4_vol_read_only(i->vol))
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
	if (off + len < off || off + len > x4_max_size(i))
		return -EFBIG;
	if (x4_map_kind(i) == X4_MAPPED_NOT)
		return -EOPNOTSUPP;
	return how == X4_FALLOC_PUNCH_HOLE ? 0 : x4_ind_convert_file(i); /* unwritten blocks need extents */
}

int x4_fallocate(struct x4_inode *i, int mode, uint64_t off, uint64_t len, bool root)
{
	struct range rg;
	uint64_t new_size;
	int r = check(i, mode, off, len);

	if (!r)
		r = x4_window_close(i, NULL, NULL);
	if (!r)
		r = x4_truncate_finish(i);
	if (r)
		return r;
	if (mode & X4_FALLOC_PUNCH_HOLE)
		return punch(i, off, len);
	rg = range_of(i, off, off + len);
	new_size = !(mode & X4_FALLOC_KEEP_SIZE) && rg.end > x4_raw_size(i) ? rg.end : 0;
	if (mode & X4_FALLOC_ZERO_RANGE)
		return zero_range(i, &rg, new_size, root);
	return preallocate(i, &rg, new_size, root);
}
