/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The size of a file: its limit, and moving it in a handle. Workers; loop threads in the mode of
 * base/nowait.h. The caller holds the inode lock exclusively when the size moves. attr, which is
 * taken here, guards the fields in raw.
 */
#include "ext4/data/extent.h"

#include <errno.h>

uint64_t ext4_max_size(const struct ext4_inode *inode)
{
	const struct ext4_vol *vol = inode->vol;
	uint64_t per = vol->block_size / 4, blocks = EXT4_LBLK_END, max;

	if (ext4_map_kind(inode) == EXT4_MAPPED_INDIRECT)
		blocks = FDIO_MIN(blocks, EXT2_NDIR_BLOCKS + per + per * per + per * per * per);
	max = blocks << vol->block_bits;
	if (!ext2fs_has_feature_large_file(vol->fs->super))
		max = FDIO_MIN(max, (uint64_t)INT32_MAX);
	return max;
}

void ext4_stamp(struct ext4_inode *inode, uint64_t size)
{
	struct timespec now = ext4_now(inode->vol);

	fdio_mutex_lock(&inode->attr);
	if (size != EXT4_SIZE_KEEP) {
		if (ext4_map_note_size(inode))
			ext4_raw_put_size(inode, size);
		else
			ext4_raw_set_size(inode, size);
	}
	ext4_raw_set_time(inode, EXT4_SET_MTIME, now);
	ext4_raw_set_time(inode, EXT4_SET_CTIME, now);
	fdio_mutex_unlock(&inode->attr);
}

void ext4_stamp_grown(struct ext4_inode *inode, uint64_t size)
{
	ext4_stamp(inode, size > ext4_raw_size(inode) ? size : EXT4_SIZE_KEEP);
}

bool ext4_size_over_stale(const struct ext4_inode *inode, uint64_t new_size)
{
	return new_size && inode->data.beyond_stale && new_size > ext4_raw_size(inode);
}

int ext4_publish_size(struct ext4_inode *inode, uint64_t new_size)
{
	struct journal_handle *handle;
	int err;

	if (new_size > ext4_max_size(inode))
		return -EFBIG;
	if (ext4_size_over_stale(inode, new_size))
		return -EIO;
	err = ext4_inode_change_begin(inode, EXT4_CREDITS_INODE, &handle);
	if (err)
		return err;
	ext4_stamp_grown(inode, new_size);
	return ext4_inode_change_end(handle, inode, 0, true);
}
