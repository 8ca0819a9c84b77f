/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The numbers of statfs: what is free, and what of the volume is hidden because it holds metadata.
 * The overhead is found once, while the volume opens, on its thread; ext4_vol_statfs runs on any
 * worker.
 */
#include "ext4/core/structs.h"
#include "ext4/alloc/alloc.h"

/* The log's size without looking for its blocks, which norecovery does not. */
static uint64_t log_blocks(struct ext4_vol *vol)
{
	struct ext2_super_block *sb = vol->fs->super;
	struct ext2_inode i;

	if (!ext2fs_has_feature_journal(sb) || !sb->s_journal_inum ||
	    ext2fs_read_inode(vol->fs, sb->s_journal_inum, &i))
		return 0;
	return EXT2_I_SIZE(&i) >> vol->block_bits;
}

/*
 * As the kernel: what mke2fs has noted is believed only where blocks go by clusters, of which
 * several structures may share one. tune2fs -I leaves the old number behind.
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
	keep = vol->alloc.root_blocks + vol->alloc.resv_blocks;
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
	vol->alloc.root_blocks = FDIO_MIN(for_root, vol->nr_blocks);
	vol->alloc.resv_blocks =
			vol->has_extents
					? FDIO_MIN((vol->nr_blocks >> cluster) / 50, (uint64_t)4096)
							  << cluster
					: 0;
}
