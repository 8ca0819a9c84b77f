/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inode allocator. Workers, loop threads in the mode of base/nowait.h, the control thread, the
 * ticker, and the thread that opens or closes the volume. Numbers are taken and freed inside a
 * handle, of which there is one at a time, so the bitmap on disk is all there is: no image, no
 * reservation. A number may be freed and taken again in one transaction. alloc.lock guards the
 * descriptors and sums that placement reads.
 *
 * Directories at the top level spread over regions and groups, so that each tree has room; deeper
 * ones stay near their parent unless it is crowded; files go into their directory's group. A block
 * of the inode table above the high-water mark (bg_itable_unused) was never written: the caller
 * starts it with zeroes instead of reading it.
 *
 * A damaged inode bitmap takes its group out of use, and another group is tried. -ENOSPC if no
 * group has a free inode.
 */
#include "ext4/alloc/groups.h"

#include "base/counters.h"
#include "base/nowait.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define NEAR_REGIONS 4u /* regions in which a directory looks at each group for a place */
#define MAX_TRIES 64u   /* groups with a damaged bitmap that one call meets before it fails */

static uint32_t first_ino_of(const struct ext4_vol *vol, uint32_t group)
{
	return group * vol->inodes_per_group + 1;
}

/*
 * Called with the result of EXT4_CORRUPT, and returns it. Damage that was reported takes the group
 * out of use; after a miss (-EAGAIN) a worker does both.
 */
static int inode_bitmap_damaged(struct ext4_group *grp, int err)
{
	if (err == -EUCLEAN)
		__atomic_store_n(&grp->inode_bitmap_bad, true, __ATOMIC_RELAXED);
	return err;
}

/* The inode bitmap of group for reading, its checksum verified once. The caller releases *ret. */
static int read_bitmap(struct ext4_vol *vol, uint32_t group, struct journal_buffer **ret)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_group_desc *raw_desc = ext4_group_raw_desc(vol, group);
	int err;

	if (__atomic_load_n(&grp->inode_bitmap_bad, __ATOMIC_RELAXED))
		return -EUCLEAN;
	err = EXT4_READ_BLOCK(vol, 0, grp->inode_bitmap, ret);
	if (err || __atomic_load_n(&grp->inode_bitmap_checked, __ATOMIC_RELAXED))
		return err;
	if (vol->has_csum &&
	    !ext4_bitmap_checksum_ok(vol, (*ret)->data, vol->inodes_per_group / 8,
				     raw_desc->bg_inode_bitmap_csum_lo,
				     raw_desc->bg_inode_bitmap_csum_hi)) {
		journal_buffer_release(*ret);
		err = EXT4_CORRUPT(vol, 0, grp->inode_bitmap,
				   "group %u: wrong checksum of the inode bitmap", group);
		return inode_bitmap_damaged(grp, err);
	}
	__atomic_store_n(&grp->inode_bitmap_checked, true, __ATOMIC_RELAXED);
	return 0;
}

/* As read_bitmap, opened for change in handle. An INODE_UNINIT group gets its bitmap. */
static int write_bitmap(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group,
			struct journal_buffer **ret)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_descriptor desc = grp->desc;
	int err;

	if (!(desc.flags & EXT2_BG_INODE_UNINIT)) {
		err = read_bitmap(vol, group, ret);
		if (err)
			return err;
		err = journal_get_write(handle, *ret);
		if (err)
			journal_buffer_release(*ret);
		return err;
	}
	err = journal_new_block(handle, grp->inode_bitmap, ret);
	if (err)
		return err;
	memset((*ret)->data, 0, vol->block_size);
	ext4_bits_fill((*ret)->data, vol->inodes_per_group,
		       vol->block_size * 8 - vol->inodes_per_group, true);
	desc.flags &= (uint16_t)~EXT2_BG_INODE_UNINIT;
	fdio_mutex_lock(&vol->alloc.lock);
	ext4_group_set_desc(vol, group, &desc);
	fdio_mutex_unlock(&vol->alloc.lock);
	__atomic_store_n(&grp->inode_bitmap_checked, true, __ATOMIC_RELAXED);
	return 0;
}

int ext4_inode_in_use(struct ext4_vol *vol, uint32_t ino)
{
	uint32_t group = (ino - 1) / vol->inodes_per_group;
	struct journal_buffer *buffer;
	int err;

	if (ino == 0 || ino > vol->nr_inodes)
		return 0;
	if (vol->alloc.groups[group].desc.flags & EXT2_BG_INODE_UNINIT)
		return 0;
	err = read_bitmap(vol, group, &buffer);
	if (err)
		return err;
	err = ext4_bit(buffer->data, (ino - 1) % vol->inodes_per_group);
	journal_buffer_release(buffer);
	return err;
}

/* ------------------------------------------------------------------ placement */
/* What a group has on average. */
struct average { uint32_t inodes, blocks, dirs; };

static struct average average(const struct ext4_vol *vol)
{
	return (struct average){
		.inodes = ext4_free_inodes(vol) / vol->nr_groups,
		.blocks = (uint32_t)((vol->alloc.free_blocks + vol->alloc.pending_free) /
				     vol->nr_groups),
		.dirs = vol->alloc.nr_dirs / vol->nr_groups,
	};
}

/* The groups of a region have at least so many free inodes and blocks on average. */
static bool region_has(const struct ext4_vol *vol, uint32_t index, uint64_t inodes,
		       uint64_t blocks)
{
	const struct ext4_region *region = &vol->alloc.regions[index];
	uint32_t first = index << EXT4_REGION_BITS, n = ext4_region_end(vol, first) - first;

	fdio_count(COUNTER_ext4_place_look);
	return region->free_inodes >= inodes * n && region->free_blocks >= blocks * n;
}

/*
 * The index of the region with the fewest directories among those that have at least the average,
 * the first from region start on; UINT32_MAX: none.
 */
static uint32_t spread_region(struct ext4_vol *vol, const struct average *avg, uint32_t start)
{
	uint32_t best = UINT32_MAX, best_dirs = UINT32_MAX;

	for (uint32_t k = 0; k < vol->alloc.nr_regions && best_dirs; k++) {
		uint32_t index = (uint32_t)(((uint64_t)start + k) % vol->alloc.nr_regions);

		if (vol->alloc.regions[index].used_dirs >= best_dirs ||
		    !region_has(vol, index, avg->inodes, avg->blocks))
			continue;
		best = index;
		best_dirs = vol->alloc.regions[index].used_dirs;
	}
	return best;
}

/*
 * For a directory of the top level: in the region of spread_region, the group with the fewest
 * directories among those that have at least the average; UINT32_MAX: none.
 */
static uint32_t spread(struct ext4_vol *vol)
{
	uint32_t start = 0, best = UINT32_MAX, best_dirs = UINT32_MAX, first, n, region;
	struct average avg = average(vol);

	if (getrandom(&start, sizeof(start), GRND_NONBLOCK) != sizeof(start))
		start = vol->alloc.nr_dirs;
	region = spread_region(vol, &avg, start % vol->alloc.nr_regions);
	if (region == UINT32_MAX)
		return UINT32_MAX;
	first = region << EXT4_REGION_BITS;
	n = ext4_region_end(vol, first) - first;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t group = first + (uint32_t)(((uint64_t)start + k) % n);
		const struct ext4_descriptor *desc = &vol->alloc.groups[group].desc;

		fdio_count(COUNTER_ext4_place_look);
		if (!desc->free_inodes || vol->alloc.groups[group].inode_bitmap_bad ||
		    desc->used_dirs >= best_dirs || desc->free_inodes < avg.inodes ||
		    desc->free_blocks < avg.blocks)
			continue;
		best = group;
		best_dirs = desc->used_dirs;
	}
	return best;
}

/* What a group must have to be good enough for a directory. */
struct limits { uint32_t min_inodes, min_blocks, max_dirs; };

/* The first group within limits, from group on to the end of its region; UINT32_MAX: none. */
static uint32_t nearby_in(struct ext4_vol *vol, uint32_t group, const struct limits *limits)
{
	for (uint32_t end = ext4_region_end(vol, group); group < end; group++) {
		const struct ext4_descriptor *desc = &vol->alloc.groups[group].desc;

		fdio_count(COUNTER_ext4_place_look);
		if (!vol->alloc.groups[group].inode_bitmap_bad &&
		    desc->used_dirs < limits->max_dirs &&
		    desc->free_inodes >= limits->min_inodes &&
		    desc->free_blocks >= limits->min_blocks)
			return group;
	}
	return UINT32_MAX;
}

/*
 * For a directory further down: a group near its parent that is not crowded; UINT32_MAX: none.
 * Looks through the NEAR_REGIONS nearest regions, and then through as many again of those whose
 * groups have enough on average.
 */
static uint32_t nearby_dir(struct ext4_vol *vol, uint32_t parent)
{
	struct average avg = average(vol);
	uint32_t few_inodes = vol->inodes_per_group / 4, few_blocks = vol->blocks_per_group / 4;
	struct limits limits = {
		.min_inodes = avg.inodes > few_inodes ? avg.inodes - few_inodes : 1,
		.min_blocks = avg.blocks > few_blocks ? avg.blocks - few_blocks : 0,
		.max_dirs = avg.dirs + vol->inodes_per_group / 16 + 1,
	};
	uint32_t through = 0, group = parent;

	for (uint32_t k = 0; k <= vol->alloc.nr_regions && through < 2 * NEAR_REGIONS; k++) {
		if (k < NEAR_REGIONS || region_has(vol, group >> EXT4_REGION_BITS,
						   limits.min_inodes, limits.min_blocks)) {
			uint32_t found = nearby_in(vol, group, &limits);

			if (found != UINT32_MAX)
				return found;
			through++;
		}
		group = ext4_region_end(vol, group) % vol->nr_groups;
	}
	return UINT32_MAX;
}

/*
 * The first group with a free inode, from the parent's on. want_blocks: it must have a free block
 * too, and is looked for in EXT4_NOWAIT_GROUPS groups at most. UINT32_MAX: none.
 */
static uint32_t first_with_room(struct ext4_vol *vol, uint32_t parent, bool want_blocks)
{
	uint32_t looked = 0;

	for (uint32_t k = 0; k < vol->nr_groups && !(want_blocks && looked > EXT4_NOWAIT_GROUPS);) {
		uint32_t group = (uint32_t)(((uint64_t)parent + k) % vol->nr_groups);
		const struct ext4_region *region = ext4_region_of(vol, group);
		const struct ext4_group *grp;

		fdio_count(COUNTER_ext4_place_look);
		if (!region->free_inodes || (want_blocks && !region->free_blocks)) {
			k += ext4_region_end(vol, group) - group;
			continue;
		}
		grp = &vol->alloc.groups[group];
		if (!grp->inode_bitmap_bad && grp->desc.free_inodes &&
		    (!want_blocks || grp->desc.free_blocks))
			return group;
		looked++;
		k++;
	}
	return UINT32_MAX;
}

/* alloc.lock held. The group for a new inode in dir; UINT32_MAX: none has a free inode. */
static uint32_t pick_group(struct ext4_vol *vol, struct ext4_inode *dir, bool is_dir)
{
	uint32_t parent = (dir->ino - 1) / vol->inodes_per_group, group = UINT32_MAX;

	if (is_dir)
		group = dir->ino == EXT4_ROOT_INO || (dir->raw->i_flags & EXT2_TOPDIR_FL)
					? spread(vol)
					: nearby_dir(vol, parent);
	if (group == UINT32_MAX)
		group = first_with_room(vol, parent, true);
	return group == UINT32_MAX ? first_with_room(vol, parent, false) : group;
}

/* ------------------------------------------------------------------ take and give back */
/* Takes the first free inode of group, in handle. */
static int take_bit(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group,
		    bool is_dir, uint32_t *ret_bit, bool *ret_fresh)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	uint32_t from = group == 0 ? vol->first_ino - 1 : 0, bit, used;
	struct ext4_descriptor desc;
	struct journal_buffer *buffer;
	int err = write_bitmap(handle, vol, group, &buffer);

	if (err)
		return err;
	bit = ext4_bits_next(buffer->data, vol->inodes_per_group, from, false);
	if (bit >= vol->inodes_per_group) {
		journal_buffer_release(buffer);
		err = EXT4_CORRUPT(vol, 0, grp->inode_bitmap,
				   "group %u: no free inode in the bitmap, %u in the descriptor",
				   group, grp->desc.free_inodes);
		return inode_bitmap_damaged(grp, err);
	}
	ext4_bits_fill(buffer->data, bit, 1, true);
	journal_buffer_release(buffer);
	desc = grp->desc;
	used = vol->inodes_per_group - desc.itable_unused;
	/* Fresh: the block of the table begins above the mark. */
	*ret_fresh = bit / vol->inodes_per_block * vol->inodes_per_block >= used;
	if (bit >= used)
		desc.itable_unused = vol->inodes_per_group - bit - 1;
	desc.free_inodes--;
	desc.used_dirs += is_dir;
	fdio_mutex_lock(&vol->alloc.lock);
	ext4_group_set_desc(vol, group, &desc);
	grp->inode_bitmap_dirty = true;
	fdio_mutex_unlock(&vol->alloc.lock);
	*ret_bit = bit;
	return 0;
}

void ext4_inode_number_distrust(struct ext4_vol *vol, uint32_t ino)
{
	struct ext4_group *grp = &vol->alloc.groups[(ino - 1) / vol->inodes_per_group];

	__atomic_store_n(&grp->inode_bitmap_bad, true, __ATOMIC_RELAXED);
}

int ext4_inode_number_alloc(struct journal_handle *handle, struct ext4_inode *dir, uint32_t mode,
			    uint32_t *ret_ino, bool *ret_fresh)
{
	struct ext4_vol *vol = dir->vol;
	bool is_dir = S_ISDIR(mode);
	uint32_t group, bit = 0;
	int err = -ENOSPC;

	*ret_fresh = false;
	/*
	 * A round that meets a damaged bitmap takes its group out of use, so the next one picks
	 * another. If all are damaged, the call fails after MAX_TRIES of them, not at the last.
	 */
	for (uint32_t tries = 0; tries < MAX_TRIES; tries++) {
		fdio_mutex_lock(&vol->alloc.lock);
		group = pick_group(vol, dir, is_dir);
		fdio_mutex_unlock(&vol->alloc.lock);
		if (group == UINT32_MAX)
			return -ENOSPC;
		err = ext4_group_op_begin(handle, vol, group, EXT4_GROUP_OP_DESC, 0, 0);
		if (!err)
			err = take_bit(handle, vol, group, is_dir, &bit, ret_fresh);
		if (err == -EUCLEAN && !ext4_vol_read_only(vol))
			continue;
		/* By the format, a group with inodes in use has an initialised block bitmap. */
		if (!err)
			err = ext4_group_init_disk(handle, vol, group);
		if (!err)
			*ret_ino = first_ino_of(vol, group) + bit;
		return err;
	}
	return err;
}

int ext4_inode_number_free(struct journal_handle *handle, struct ext4_vol *vol, uint32_t ino,
			   bool is_dir)
{
	uint32_t group = (ino - 1) / vol->inodes_per_group, bit = (ino - 1) % vol->inodes_per_group;
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_descriptor desc;
	struct journal_buffer *buffer;
	int err = ext4_group_op_begin(handle, vol, group, EXT4_GROUP_OP_DESC, 0, 0);

	if (!err)
		err = write_bitmap(handle, vol, group, &buffer);
	if (err)
		return err;
	if (!ext4_bit(buffer->data, bit)) {
		journal_buffer_release(buffer);
		return EXT4_CORRUPT(vol, ino, grp->inode_bitmap,
				    "freed, but not in use according to the bitmap");
	}
	ext4_bits_fill(buffer->data, bit, 1, false);
	journal_buffer_release(buffer);
	desc = grp->desc;
	desc.free_inodes++;
	if (is_dir && desc.used_dirs)
		desc.used_dirs--;
	fdio_mutex_lock(&vol->alloc.lock);
	ext4_group_set_desc(vol, group, &desc);
	grp->inode_bitmap_dirty = true;
	fdio_mutex_unlock(&vol->alloc.lock);
	return 0;
}

uint64_t ext4_itable_place(struct ext4_vol *vol, uint32_t ino, uint32_t *ret_off)
{
	uint32_t group = (ino - 1) / vol->inodes_per_group, n = (ino - 1) % vol->inodes_per_group;
	uint64_t table = vol->alloc.groups[group].itable;

	*ret_off = n % vol->inodes_per_block * vol->inode_size;
	return table ? table + n / vol->inodes_per_block : 0;
}

bool ext4_itable_never_used(struct ext4_vol *vol, uint32_t ino)
{
	uint32_t group = (ino - 1) / vol->inodes_per_group, n = (ino - 1) % vol->inodes_per_group;
	bool unused;

	fdio_mutex_lock(&vol->alloc.lock);
	unused = n >= vol->inodes_per_group - vol->alloc.groups[group].desc.itable_unused;
	fdio_mutex_unlock(&vol->alloc.lock);
	return unused;
}
