/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One more block at the end of a directory: what it costs, and adding it in a handle.
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h. Called with dir->rw held
 * exclusively. Fails with -ENOSPC for a full directory and with the errors of allocation; the
 * caller then cancels the handle.
 */
#include "ext4/dir/directory.h"

#include <errno.h>

bool dir_can_grow(const struct ext4_inode *dir, unsigned blocks)
{
	uint64_t size = ((uint64_t)dir_nr_blocks(dir) + blocks) << dir->vol->block_bits;

	/* A pair of the hash index holds 28 bits of block number. */
	return size >> dir->vol->block_bits <= 0x0fffffff &&
	       (size <= INT32_MAX || dir->vol->has_large_dir);
}

/* A directory with a block map is converted to extents first. */
unsigned dir_append_credits(struct ext4_inode *dir)
{
	unsigned convert = ext4_map_kind(dir) == EXT4_MAPPED_INDIRECT ? EXT4_INDIRECT_CREDITS : 0;

	return 1 + EXT4_CREDITS_ALLOC + ext4_extent_credits(dir) + convert;
}

unsigned dir_append_blocks(struct ext4_inode *dir) { return 1 + ext4_extent_metadata_blocks(dir); }

int dir_append(struct journal_handle *handle, struct ext4_inode *dir, uint32_t *ret_lblk,
	       struct journal_buffer **ret)
{
	uint32_t lblk = dir_nr_blocks(dir);
	int err;

	if (!dir_can_grow(dir, 1))
		return -ENOSPC;
	err = ext4_append_metadata_block(handle, dir, lblk, ret);
	if (err)
		return err;
	fdio_mutex_lock(&dir->attr);
	ext4_raw_set_size(dir, ((uint64_t)lblk + 1) << dir->vol->block_bits);
	fdio_mutex_unlock(&dir->attr);
	*ret_lblk = lblk;
	return 0;
}
