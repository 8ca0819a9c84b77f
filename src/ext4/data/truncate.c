/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Truncate, and freeing all blocks of a deleted file. Called outside handles with the inode lock
 * held exclusively and the inode's I/O drained: by workers, by orphan processing at mount (main
 * thread), and by eviction. ext4_remove_step and the ext4_free_root functions run in a handle of
 * the caller, also on loop threads in the mode of base/nowait.h.
 *
 * ext4_truncate first zeroes the bytes behind the new end on the device, so that they never show
 * when the file grows again. The new size and the first frees share a transaction. If that does not
 * free everything, the inode is on the orphan list until the last transaction, and a crash in
 * between is finished at the next mount. If one in between fails, the inode stays on the list and
 * beyond_stale is set: any operation that extends the file finishes the truncate first, or fails.
 * Blocks go from the end of the file downwards, so each transaction leaves a tree that checks
 * clean.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- zeroing on the device ---- */

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

int ext4_zero_in_block(struct ext4_inode *inode, uint64_t from, uint64_t to)
{
	struct ext4_vol *vol = inode->vol;
	uint64_t base = fdio_round_down(from, vol->block_size);
	struct ext4_extent extent;
	uint8_t *buf;
	int err;

	if (from >= to)
		return 0;
	FDIO_ASSERT(to - base <= vol->block_size);
	err = ext4_map_lookup_load(inode, base >> vol->block_bits, &extent);
	if (err || extent.state != EXT4_EXTENT_WRITTEN)
		return err;
	buf = fdio_alloc_aligned(FDIO_MAX(vol->dev->caps.mem_align, 4096u), vol->block_size);
	if (!buf)
		return -ENOMEM;
	err = dev_read(vol->dev, buf, vol->block_size, extent.pblk << vol->block_bits);
	if (!err && !all_zero(buf + (from - base), to - from)) {
		memset(buf + (from - base), 0, to - from);
		err = dev_write(vol->dev, buf, vol->block_size, extent.pblk << vol->block_bits, 0);
	}
	free(buf);
	return err;
}

int ext4_zero_tail(struct ext4_inode *inode, uint64_t pos)
{
	return ext4_zero_in_block(inode, pos, fdio_round_up(pos, inode->vol->block_size));
}

/* ---- freeing ---- */

int ext4_remove_step(struct journal_handle *handle, struct ext4_inode *inode, uint32_t from,
		     uint32_t *to, bool metadata)
{
	uint32_t was = *to;
	bool more = false;
	int err;

	switch (ext4_map_kind(inode)) {
	case EXT4_MAPPED_EXTENTS:
		err = ext4_extent_remove(handle, inode, from, *to, metadata, to);
		if (!err && *to == was && was > from)
			err = -ENOSPC; /* the log is too small for this tree */
		return err;
	case EXT4_MAPPED_INDIRECT:
		err = ext4_indirect_remove(handle, inode, from, *to, metadata, &more);
		if (err)
			return err;
		if (more)
			ext4_map_drop(inode); /* how far it came is not known here */
		else
			ext4_map_apply(inode, &(struct ext4_extent){ .lblk = from,
								     .len = was - from,
								     .state = EXT4_EXTENT_HOLE });
		if (!more)
			*to = from;
		return 0;
	case EXT4_MAPPED_NOT:
		break;
	}
	*to = from;
	return 0;
}

int ext4_remove_range(struct ext4_inode *inode, uint32_t from, uint32_t to, bool metadata,
		      bool stamp)
{
	int err = 0;

	fdio_mutex_lock(&inode->map_lock);
	while (to > from && !err) {
		struct journal_handle *handle;

		err = ext4_inode_change_begin(inode, ext4_extent_batch_credits(inode), &handle);
		if (err)
			break;
		err = ext4_remove_step(handle, inode, from, &to, metadata);
		if (!err && stamp)
			ext4_stamp(inode, EXT4_SIZE_KEEP);
		err = ext4_inode_change_end(handle, inode, err, true);
	}
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}

static bool nothing_mapped(struct ext4_inode *inode)
{
	switch (ext4_map_kind(inode)) {
	case EXT4_MAPPED_NOT:
		return true;
	case EXT4_MAPPED_EXTENTS:
		return !ext4_extent_node_depth(ext4_extent_root(inode)) &&
		       !ext4_extent_node_entries(ext4_extent_root(inode));
	case EXT4_MAPPED_INDIRECT:
		break;
	}
	for (unsigned k = 0; k < EXT2_N_BLOCKS; k++)
		if (inode->raw->i_block[k])
			return false;
	return true;
}

bool ext4_blocks_in_root(struct ext4_inode *inode)
{
	return nothing_mapped(inode) || (ext4_map_kind(inode) == EXT4_MAPPED_EXTENTS &&
					 !ext4_extent_node_depth(ext4_extent_root(inode)));
}

unsigned ext4_free_root_credits(struct ext4_inode *inode)
{
	return nothing_mapped(inode) ? 0 : ext4_extent_batch_credits(inode);
}

/* Blocks of these are metadata: freeing them revokes them. */
static bool blocks_are_metadata(const struct ext4_inode *inode)
{
	return !ext4_is_regular(inode) || (inode->raw->i_flags & EXT4_EA_INODE_FL);
}

int ext4_free_root_blocks(struct journal_handle *handle, struct ext4_inode *inode)
{
	uint32_t to = EXT4_LBLK_END;
	int err;

	if (nothing_mapped(inode))
		return 0;
	ext4_map_drop(inode);
	err = ext4_remove_step(handle, inode, 0, &to, blocks_are_metadata(inode));
	return !err && to ? -ENOSPC : err;
}

int ext4_free_all_blocks(struct ext4_inode *inode)
{
	if (nothing_mapped(inode))
		return 0;
	/* No thread reads this file any more, so the edits need no map. */
	ext4_map_drop(inode);
	return ext4_remove_range(inode, 0, EXT4_LBLK_END, blocks_are_metadata(inode), false);
}

/* ---- truncate ---- */

/*
 * One transaction of a truncate. The first one changes the size; while there is more to free, the
 * inode is on the orphan list.
 */
static int truncate_step(struct ext4_inode *inode, uint64_t size, bool first, uint32_t from,
		      uint32_t *to)
{
	struct journal_handle *handle;
	bool unlinked = !inode->raw->i_links_count;
	uint32_t end = *to;
	int err = ext4_inode_change_begin(inode,
					  end > from ? ext4_extent_batch_credits(inode)
						     : EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN,
					  &handle);

	if (err)
		return err;
	if (first)
		ext4_stamp(inode, size);
	if (end > from)
		err = ext4_remove_step(handle, inode, from, &end, false);
	if (!err && end == from)
		ext4_indirect_emptied(inode);
	/* An unlinked file is on the list anyway and stays there. */
	if (!err && !unlinked)
		err = end > from ? ext4_orphan_add(handle, inode) : ext4_orphan_del(handle, inode);
	err = ext4_inode_change_end(handle, inode, err, true);
	if (!err)
		*to = end;
	return err;
}

/* Sets the size and frees the blocks behind byte keep. */
static int truncate_blocks(struct ext4_inode *inode, uint64_t size, uint64_t keep)
{
	uint32_t from = FDIO_MIN(fdio_blocks(keep, inode->vol->block_bits),
				 (uint64_t)EXT4_LBLK_END),
		 to = EXT4_LBLK_END;
	bool first = true;
	uint64_t blocks;
	unsigned runs;
	int err;

	fdio_mutex_lock(&inode->map_lock);
	err = ext4_map_load_locked(inode);
	if (!err)
		err = ext4_map_count(inode, from, 1, &runs, &blocks);
	if (!err && !runs)
		to = from;
	while (!err && (first || to > from)) {
		err = truncate_step(inode, size, first, from, &to);
		first = false;
		if (!err)
			inode->data.beyond_stale = to > from;
	}
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}

/* Whether written blocks lie behind the end; preallocated blocks are unwritten and may. */
static int data_beyond(struct ext4_inode *inode, uint64_t size, bool *ret)
{
	uint64_t at = fdio_blocks(size, inode->vol->block_bits);
	struct ext4_extent extent;

	*ret = false;
	while (at < EXT4_LBLK_END && !*ret) {
		int err = ext4_map_lookup_load(inode, (uint32_t)at, &extent);

		if (err)
			return err;
		*ret = extent.state == EXT4_EXTENT_WRITTEN;
		at = ext4_extent_end(&extent);
	}
	return 0;
}

int ext4_truncate_finish(struct ext4_inode *inode)
{
	bool stale = inode->data.beyond_stale;
	uint64_t size;
	int err = 0;

	if (likely(inode->data.beyond_checked && !stale))
		return 0;
	if (ext4_vol_read_only(inode->vol))
		return -EROFS;
	size = ext4_raw_size(inode); /* no window is open, so no settling changes it */
	if (!stale)
		err = data_beyond(inode, size, &stale);
	if (!err && stale)
		err = ext4_zero_tail(inode, size);
	if (!err && stale)
		err = truncate_blocks(inode, size, size);
	inode->data.beyond_checked = !err;
	return err;
}

int ext4_truncate(struct ext4_inode *inode, uint64_t size)
{
	uint64_t old;
	int err;

	if (!ext4_is_regular(inode))
		return -EINVAL;
	if (ext4_vol_read_only(inode->vol))
		return -EROFS; /* before the device is written */
	if (size > ext4_max_size(inode))
		return -EFBIG;
	err = ext4_window_close(inode, NULL, NULL);
	if (err)
		return err;
	old = ext4_raw_size(inode); /* includes what the window had published */
	/*
	 * Neither bytes that are cut off now, nor bytes that a crash or another writer left behind
	 * the old end, may become part of the file.
	 */
	err = ext4_zero_tail(inode, FDIO_MIN(size, old));
	if (err || size <= old)
		return err ? err : truncate_blocks(inode, size, size);
	/* Before the size grows: in between, or after a crash, the old content would show. */
	err = ext4_truncate_finish(inode);
	/* A file that grows keeps the blocks that were preallocated for it. */
	return err ? err : truncate_blocks(inode, size, UINT64_MAX - inode->vol->block_size);
}

bool ext4_truncate_pending(const struct ext4_inode *inode) { return inode->data.beyond_stale; }

void ext4_truncate_interrupted(struct ext4_inode *inode)
{
	inode->data.beyond_stale = ext4_is_regular(inode);
}
