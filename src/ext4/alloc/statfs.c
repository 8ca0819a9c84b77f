/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The numbers of statfs: what is free, and how much of the volume is hidden because it holds
 * metadata. The limits are set once, on the thread that opens the volume; ext4_vol_statfs runs on
 * workers and loop threads, takes alloc.lock for a moment and cannot fail.
 */
#include "ext4/core/structs.h"
#include "ext4/alloc/alloc_open.h"

/* The log's size in blocks, from its inode, because with norecovery the log is not mapped. */
static uint64_t log_blocks(struct ext4_vol *vol)
{
	struct ext2_super_block *sb = vol->fs->super;
	struct ext2_inode inode;

	if (!ext2fs_has_feature_journal(sb) || !sb->s_journal_inum ||
	    ext2fs_read_inode(vol->fs, sb->s_journal_inum, &inode))
		return 0;
	return EXT2_I_SIZE(&inode) >> vol->block_bits;
}

/*
 * Blocks that statfs hides. As the kernel, it believes the number that mke2fs has noted only with
 * bigalloc, where several structures may share a cluster: tune2fs -I leaves an old number behind.
 */
static uint64_t overhead(struct ext4_vol *vol)
{
	uint64_t noted = (uint64_t)vol->fs->super->s_overhead_clusters
			 << vol->fs->cluster_ratio_bits;

	if (vol->fs->cluster_ratio_bits && noted && noted <= vol->nr_blocks)
		return noted;
	return FDIO_MIN(vol->alloc.static_blocks + log_blocks(vol), vol->nr_blocks);
}

void ext4_vol_statfs(struct ext4_vol *vol, struct ext4_statfs *ret)
{
	uint64_t keep;

	fdio_mutex_lock(&vol->alloc.lock);
	ret->bfree = vol->alloc.free_blocks + vol->alloc.pending_free;
	ret->ffree = ext4_free_inodes(vol);
	keep = vol->alloc.kept_for_root + vol->alloc.kept_for_metadata;
	fdio_mutex_unlock(&vol->alloc.lock);
	ret->blocks = vol->nr_blocks - vol->alloc.overhead;
	ret->bavail = ret->bfree > keep ? ret->bfree - keep : 0;
	ret->files = vol->nr_inodes;
	ret->bsize = vol->block_size;
	ret->namelen = EXT4_NAME_MAX;
}

void ext4_alloc_limits(struct ext4_vol *vol, uint64_t for_root)
{
	unsigned cluster = (unsigned)vol->fs->cluster_ratio_bits;

	vol->alloc.overhead = overhead(vol);
	vol->alloc.kept_for_root = FDIO_MIN(for_root, vol->nr_blocks);
	vol->alloc.kept_for_metadata = 0;
	if (vol->has_extents) /* as the kernel: 2 %, at most 4096 clusters */
		vol->alloc.kept_for_metadata =
				FDIO_MIN((vol->nr_blocks >> cluster) / 50, (uint64_t)4096)
				<< cluster;
}
