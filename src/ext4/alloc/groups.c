/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The groups' descriptors, read and checked when the volume opens, and the sums over regions of
 * groups. A descriptor with a wrong checksum or impossible numbers makes its group bad, and the
 * volume is only read.
 *
 * The thread that opens or closes the volume, without locks; ext4_group_set_desc in any handle
 * (workers, loop threads in the mode of base/nowait.h, the ticker) under alloc.lock.
 */
#include "ext4/alloc/groups.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

void ext4_group_set_desc(struct ext4_vol *vol, uint32_t group, const struct ext4_descriptor *desc)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_region *region = ext4_region_of(vol, group);

	ext4_free_inodes_set(vol,
			     ext4_free_inodes(vol) + desc->free_inodes - grp->desc.free_inodes);
	vol->alloc.nr_dirs = vol->alloc.nr_dirs + desc->used_dirs - grp->desc.used_dirs;
	region->free_inodes = region->free_inodes + desc->free_inodes - grp->desc.free_inodes;
	region->free_blocks = region->free_blocks + desc->free_blocks - grp->desc.free_blocks;
	region->used_dirs = region->used_dirs + desc->used_dirs - grp->desc.used_dirs;
	grp->desc = *desc;
	if (!grp->dirty) {
		grp->dirty = true;
		list_add_tail(&vol->alloc.dirty_groups, &grp->dirty_node);
	}
}

/* [blk, blk + n) lies in the file system. */
static bool inside(struct ext4_vol *vol, uint64_t blk, uint64_t n)
{
	return blk >= vol->first_data_block && blk < vol->nr_blocks && n <= vol->nr_blocks - blk;
}

/* A static string that says what is wrong with the descriptor of group; NULL: nothing. */
static const char *desc_fault(struct ext4_vol *vol, uint32_t group)
{
	const struct ext4_group *grp = &vol->alloc.groups[group];

	if (!ext2fs_group_desc_csum_verify(vol->fs, group))
		return "wrong checksum of the descriptor";
	if (!inside(vol, grp->block_bitmap, 1) || !inside(vol, grp->inode_bitmap, 1) ||
	    !inside(vol, grp->itable, vol->itable_blocks))
		return "a bitmap or the inode table lies outside the file system";
	if (grp->desc.free_blocks > grp->nr_blocks ||
	    grp->desc.free_inodes > vol->inodes_per_group ||
	    grp->desc.itable_unused > vol->inodes_per_group)
		return "impossible free counts";
	return NULL;
}

/*
 * The volume is going to be read only. Places that lie in the file system are believed, since the
 * inodes there have checksums of their own; counts are not.
 */
static void distrust(struct ext4_vol *vol, uint32_t group, const char *why)
{
	struct ext4_group *grp = &vol->alloc.groups[group];

	log_ratelimited(FDIO_LOG_INFO, "%s: group %u: %s", vol->dev->name, group, why);
	if (!vol->alloc.nr_bad_groups++)
		vol->alloc.first_bad_group = group;
	grp->block_bitmap = inside(vol, grp->block_bitmap, 1) ? grp->block_bitmap : 0;
	grp->inode_bitmap = inside(vol, grp->inode_bitmap, 1) ? grp->inode_bitmap : 0;
	grp->itable = inside(vol, grp->itable, vol->itable_blocks) ? grp->itable : 0;
	grp->bad = grp->inode_bitmap_bad = true;
	grp->desc = (struct ext4_descriptor){ 0 };
}

static void group_init(struct ext4_vol *vol, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_region *region = ext4_region_of(vol, group);
	const char *why;

	list_init(&grp->dirty_node);
	list_init(&grp->image_node);
	grp->block_bitmap = ext2fs_block_bitmap_loc(vol->fs, group);
	grp->inode_bitmap = ext2fs_inode_bitmap_loc(vol->fs, group);
	grp->itable = ext2fs_inode_table_loc(vol->fs, group);
	grp->nr_blocks = (uint32_t)FDIO_MIN((uint64_t)vol->blocks_per_group,
					vol->nr_blocks - ext4_group_start(vol, group));
	grp->desc.free_blocks = ext2fs_bg_free_blocks_count(vol->fs, group);
	grp->desc.free_inodes = ext2fs_bg_free_inodes_count(vol->fs, group);
	grp->desc.used_dirs = ext2fs_bg_used_dirs_count(vol->fs, group);
	grp->desc.flags = ext2fs_bg_flags(vol->fs, group);
	if (ext2fs_has_group_desc_csum(vol->fs))
		grp->desc.itable_unused = ext2fs_bg_itable_unused(vol->fs, group);
	else
		grp->desc.flags &= (uint16_t)~(EXT2_BG_BLOCK_UNINIT | EXT2_BG_INODE_UNINIT);
	why = desc_fault(vol, group);
	if (why)
		distrust(vol, group, why);
	grp->free_in_image = grp->desc.free_blocks;
	grp->max_run = UINT32_MAX;
	vol->alloc.free_blocks += grp->desc.free_blocks;
	ext4_free_inodes_set(vol, ext4_free_inodes(vol) + grp->desc.free_inodes);
	vol->alloc.nr_dirs += grp->desc.used_dirs;
	region->free_blocks += grp->desc.free_blocks;
	region->free_inodes += grp->desc.free_inodes;
	region->used_dirs += grp->desc.used_dirs;
	region->longest = UINT32_MAX;
}

int ext4_groups_init(struct ext4_vol *vol)
{
	vol->alloc.free_blocks = vol->alloc.metadata_held = vol->alloc.pending_free = 0;
	ext4_free_inodes_set(vol, 0);
	vol->alloc.nr_dirs = vol->alloc.nr_bad_groups = vol->alloc.nr_images = 0;
	vol->alloc.max_images = (uint32_t)FDIO_MAX(vol->options.cache_bytes / 2 / vol->block_size,
						   (size_t)64);
	list_init(&vol->alloc.images);
	vol->alloc.groups = calloc(vol->nr_groups, sizeof(*vol->alloc.groups));
	vol->alloc.nr_regions = (vol->nr_groups - 1) / EXT4_REGION_GROUPS + 1;
	vol->alloc.regions = calloc(vol->alloc.nr_regions, sizeof(*vol->alloc.regions));
	if (!vol->alloc.groups || !vol->alloc.regions)
		return -ENOMEM;
	for (uint32_t group = 0; group < vol->nr_groups; group++)
		group_init(vol, group);
	/* With bigalloc, which is only read, the counts are of clusters; statfs wants blocks. */
	vol->alloc.free_blocks *= EXT2FS_CLUSTER_RATIO(vol->fs);
	return 0;
}

uint64_t ext4_groups_free_on_disk(struct ext4_vol *vol)
{
	uint64_t sum = 0;

	for (uint32_t group = 0; group < vol->nr_groups; group++)
		sum += vol->alloc.groups[group].desc.free_blocks;
	return sum;
}

void ext4_groups_fini(struct ext4_vol *vol)
{
	free(vol->alloc.zones);
	vol->alloc.zones = NULL;
	vol->alloc.nr_zones = 0;
	free(vol->alloc.regions);
	vol->alloc.regions = NULL;
	if (!vol->alloc.groups)
		return;
	for (uint32_t group = 0; group < vol->nr_groups; group++)
		free(vol->alloc.groups[group].image);
	free(vol->alloc.groups);
	vol->alloc.groups = NULL;
	list_init(&vol->alloc.dirty_groups);
}

void ext4_alloc_init(struct ext4_vol *vol)
{
	fdio_mutex_init(&vol->alloc.lock, RANK_EXT4_ALLOC);
	fdio_cond_init(&vol->alloc.cond);
	list_init(&vol->alloc.dirty_groups);
}

void ext4_alloc_fini(struct ext4_vol *vol)
{
	fdio_mutex_fini(&vol->alloc.lock);
	pthread_cond_destroy(&vol->alloc.cond);
}

uint32_t ext4_bad_groups(const struct ext4_vol *vol, uint32_t *ret_first)
{
	if (ret_first)
		*ret_first = vol->alloc.first_bad_group;
	return vol->alloc.nr_bad_groups;
}
