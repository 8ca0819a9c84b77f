/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Blocks of directories, symbolic links and attribute values: finding one, and appending one.
 * Called by the rooms above inside or outside a handle, with the inode's rw held, which guards the
 * tree of such an inode. Workers; loop threads in the mode of base/nowait.h. A hole is damage:
 * recorded, -EUCLEAN.
 */
#include "ext4/data/extent.h"

#include <errno.h>

#define LOOKUPS_MOST 8

int ext4_bmap(struct ext4_inode *inode, uint32_t lblk, uint64_t *ret_blk)
{
	struct ext4_extent extent;
	int err = ext4_map_lookup(inode, lblk, &extent);

	/* map_evict.c may take the map away again at once, but not every time. */
	for (unsigned tries = 0; err == -EAGAIN && tries < LOOKUPS_MOST; tries++) {
		err = ext4_map_load_locked(inode);
		if (!err)
			err = ext4_map_lookup(inode, lblk, &extent);
	}
	if (err)
		return err;
	if (extent.state != EXT4_EXTENT_WRITTEN)
		return EXT4_CORRUPT(inode->vol, inode->ino, 0, "block %u is not mapped", lblk);
	*ret_blk = extent.pblk;
	return 0;
}

int ext4_append_metadata_block(struct journal_handle *handle, struct ext4_inode *inode,
			       uint32_t lblk, struct journal_buffer **ret)
{
	uint64_t goal = 0, blk;
	struct ext4_extent extent;
	uint32_t n;
	int err;

	err = ext4_indirect_convert(handle, inode);
	if (!err)
		err = ext4_map_load_locked(inode);
	if (err)
		return err;
	if (lblk && !ext4_map_lookup(inode, lblk - 1, &extent) && extent.state != EXT4_EXTENT_HOLE)
		goal = extent.pblk + 1;
	err = ext4_blocks_alloc(handle, inode, goal, 1, &blk, &n);
	if (err)
		return err;
	err = ext4_extent_insert(handle, inode, lblk, 1, blk, false);
	return err ? err : journal_new_block(handle, blk, ret);
}
