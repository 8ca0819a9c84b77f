/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The numbers of statfs: what is free, and what of the volume is hidden because it holds metadata. The
 * overhead is found once, while the volume opens, on its thread; x4_vol_statfs runs on any worker.
 */
#include "ext4/core/structs.h"
#include "ext4/alloc/alloc.h"

/* The log's size without looking for its blocks, which norecovery does not. */
static uint64_t log_blocks(struct x4_vol *v)
{
	struct ext2_super_block *sb = v->fs->super;
	struct ext2_inode i;

	if (!ext2fs_has_feature_journal(sb) || !sb->s_journal_inum || ext2fs_read_inode(v->fs, sb->s_journal_inum, &i))
		return 0;
	return EXT2_I_SIZE(&i) >> v->block_bits;
}

/*
 * As the kernel: what mke2fs has noted is believed only where blocks go by clusters, of which several structures may share one.
 * tune2fs -I leaves the old number behind.
 */
static uint64_t overhead(struct x4_vol *v)
{
	uint64_t noted = (uint64_t)v->fs->super->s_overhead_clusters << v->fs->cluster_ratio_bits;

	if (v->fs->cluster_ratio_bits && noted && noted <= v->nr_blocks)
		return noted;
	return FDIO_MIN(v->alloc.static_blocks + log_blocks(v), v->nr_blocks);
}

void x4_vol_statfs(struct x4_vol *v, struct x4_statfs *ret)
{
	uint64_t keep;

	fdio_mutex_lock(&v->alloc.lock);
	ret->bfree = v->alloc.free_blocks + v->alloc.pending_free;
	ret->ffree = x4_free_inodes(v);
	keep = v->alloc.root_blocks + v->alloc.resv_blocks;
	fdio_mutex_unlock(&v->alloc.lock);
	ret->blocks = v->nr_blocks - v->alloc.overhead;
	ret->bavail = ret->bfree > keep ? ret->bfree - keep : 0;
	ret->files = v->nr_inodes;
	ret->bsize = v->block_size;
	ret->namelen = X4_NAME_MAX;
}

void x4_alloc_limits(struct x4_vol *v, uint64_t for_root)
{
	unsigned cluster = (unsigned)v->fs->cluster_ratio_bits;

	v->alloc.overhead = overhead(v);
	v->alloc.root_blocks = FDIO_MIN(for_root, v->nr_blocks);
	v->alloc.resv_blocks = v->has_extents ? FDIO_MIN((v->nr_blocks >> cluster) / 50, (uint64_t)4096) << cluster : 0;
}
