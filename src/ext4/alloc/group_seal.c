/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sealing a transaction: the journal calls ext4_groups_seal once for each, on the thread that
 * commits, while no other handle runs. It computes the checksums of changed bitmaps and writes the
 * changed descriptors into the transaction, once however often a group has changed. alloc.lock
 * guards the flags of dirty bitmaps; the rest changes in handles only. If it fails the transaction
 * would be inconsistent, so it aborts the journal.
 */
#include "ext4/alloc/groups.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

/* Computes the checksum of the first bytes of bitmap blk, into its halves in the descriptor. */
static int seal_bitmap(struct ext4_vol *vol, uint64_t blk, uint32_t bytes, uint16_t *low,
		       uint16_t *high)
{
	struct journal_buffer *buffer;
	uint32_t sum;
	int err = EXT4_READ_BLOCK(vol, 0, blk, &buffer);

	if (err)
		return err;
	sum = fdio_crc32c(vol->checksum_seed, buffer->data, bytes);
	journal_buffer_release(buffer);
	*low = (uint16_t)sum;
	if (vol->desc_size >= 64)
		*high = (uint16_t)(sum >> 16);
	return 0;
}

/* Copies the descriptor that libext2fs keeps in memory into its block, if it differs. */
static int seal_desc(struct ext4_vol *vol, struct journal_handle *handle, uint32_t group)
{
	uint32_t per_block = vol->block_size / vol->desc_size;
	uint64_t blk = ext2fs_descriptor_block_loc2(vol->fs, vol->first_data_block,
						    group / per_block);
	size_t at = (size_t)(group % per_block) * vol->desc_size;
	struct journal_buffer *buffer;
	int err = EXT4_READ_BLOCK(vol, 0, blk, &buffer);

	if (err)
		return err;
	if (memcmp(buffer->data + at, ext4_group_raw_desc(vol, group), vol->desc_size)) {
		err = journal_get_write(handle, buffer);
		if (!err)
			memcpy(buffer->data + at, ext4_group_raw_desc(vol, group), vol->desc_size);
	}
	journal_buffer_release(buffer);
	return err;
}

static int seal_group(struct ext4_vol *vol, struct journal_handle *handle, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_group_desc *raw = ext4_group_raw_desc(vol, group);
	int err = 0;

	ext2fs_bg_free_blocks_count_set(vol->fs, group, grp->desc.free_blocks);
	ext2fs_bg_free_inodes_count_set(vol->fs, group, grp->desc.free_inodes);
	ext2fs_bg_used_dirs_count_set(vol->fs, group, grp->desc.used_dirs);
	ext2fs_bg_itable_unused_set(vol->fs, group, grp->desc.itable_unused);
	raw->bg_flags = grp->desc.flags;
	if (vol->has_csum && grp->block_bitmap_dirty && !(grp->desc.flags & EXT2_BG_BLOCK_UNINIT))
		err = seal_bitmap(vol, grp->block_bitmap, vol->blocks_per_group / 8,
				  &raw->bg_block_bitmap_csum_lo, &raw->bg_block_bitmap_csum_hi);
	if (!err && vol->has_csum && grp->inode_bitmap_dirty &&
	    !(grp->desc.flags & EXT2_BG_INODE_UNINIT))
		err = seal_bitmap(vol, grp->inode_bitmap, vol->inodes_per_group / 8,
				  &raw->bg_inode_bitmap_csum_lo, &raw->bg_inode_bitmap_csum_hi);
	if (err)
		return err;
	/* From now on ext4_group_load verifies the bitmap by its checksum. */
	fdio_mutex_lock(&vol->alloc.lock);
	grp->block_bitmap_dirty = grp->inode_bitmap_dirty = false;
	fdio_mutex_unlock(&vol->alloc.lock);
	ext2fs_group_desc_csum_set(vol->fs, group);
	return seal_desc(vol, handle, group);
}

void ext4_groups_seal(void *arg, struct journal_handle *handle)
{
	struct ext4_vol *vol = arg;

	while (!list_empty(&vol->alloc.dirty_groups)) {
		struct ext4_group *grp =
				list_first(&vol->alloc.dirty_groups, struct ext4_group, dirty_node);
		int err = seal_group(vol, handle, (uint32_t)(grp - vol->alloc.groups));

		if (err) {
			log_err("%s: cannot write group descriptors: %s", vol->dev->name,
				strerror(-err));
			journal_abort(vol->journal, err);
			return;
		}
		list_del(&grp->dirty_node);
		grp->dirty = false;
	}
}
