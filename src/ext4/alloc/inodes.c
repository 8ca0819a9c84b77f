/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inode allocator. Always inside a handle, and handles are serial, so the bitmap on disk is all
 * there is: no image, no reservation; an inode freed and taken again in one transaction is safe.
 *
 * Directories at the top level spread over regions and groups, so that each tree has room; deeper
 * ones stay near their parent unless it is crowded; files go into their directory's group. A table
 * block above the high-water mark (bg_itable_unused) was never written: the caller starts it with
 * zeroes instead of reading it.
 */
#include "ext4/alloc/groups.h"

#include "base/counters.h"
#include "base/crc32c.h"
#include "base/nowait.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define NEAR_REGIONS 4u
#define MAX_TRIES 64u

static uint32_t first_ino_of(const struct ext4_vol *vol, uint32_t group)
{
	return group * vol->inodes_per_group + 1;
}

/*
 * Once damage has been told, nothing in the group is touched any more; a loop thread leaves both to
 * a worker. Returns err.
 */
static int ib_damaged(struct ext4_group *grp, int err)
{
	if (err == -EUCLEAN)
		__atomic_store_n(&grp->ib_bad, true, __ATOMIC_RELAXED);
	return err;
}

/* The inode bitmap of group for reading; verified once. */
static int read_bitmap(struct ext4_vol *vol, uint32_t group, struct journal_buffer **ret)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_group_desc *rd = ext4_group_raw_desc(vol, group);
	uint32_t sum;
	int err;

	if (__atomic_load_n(&grp->ib_bad, __ATOMIC_RELAXED))
		return -EUCLEAN;
	err = EXT4_READ_BLOCK(vol, 0, grp->inode_bitmap, ret);
	if (err || __atomic_load_n(&grp->ib_checked, __ATOMIC_RELAXED))
		return err;
	sum = vol->has_csum ? fdio_crc32c(vol->checksum_seed, (*ret)->data,
					  vol->inodes_per_group / 8)
			    : 0;
	if (vol->has_csum &&
	    ((uint16_t)sum != rd->bg_inode_bitmap_csum_lo ||
	     (vol->desc_size >= 64 && (uint16_t)(sum >> 16) != rd->bg_inode_bitmap_csum_hi))) {
		journal_buffer_release(*ret);
		return ib_damaged(grp, EXT4_CORRUPT(vol, 0, grp->inode_bitmap,
						    "group %u: wrong checksum of the inode bitmap",
						    group));
	}
	__atomic_store_n(&grp->ib_checked, true, __ATOMIC_RELAXED);
	return 0;
}

/* For reading and changing in handle; an uninitialised one is made. */
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
	__atomic_store_n(&grp->ib_checked, true, __ATOMIC_RELAXED);
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
/* What all groups have on average. */
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

/* The groups of r have so much on average. */
static bool region_has(const struct ext4_vol *vol, uint32_t r, uint64_t inodes, uint64_t blocks)
{
	const struct ext4_region *reg = &vol->alloc.regions[r];
	uint32_t n = ext4_region_end(vol, r << EXT4_REGION_BITS) - (r << EXT4_REGION_BITS);

	fdio_count(COUNTER_ext4_place_look);
	return reg->free_inodes >= inodes * n && reg->free_blocks >= blocks * n;
}

/*
 * The region with the fewest directories of those above average, any of them first; UINT32_MAX:
 * none.
 */
static uint32_t spread_region(struct ext4_vol *vol, const struct average *avg, uint32_t start)
{
	uint32_t best = UINT32_MAX, best_dirs = UINT32_MAX;

	for (uint32_t k = 0; k < vol->alloc.nr_regions && best_dirs; k++) {
		uint32_t r = (uint32_t)(((uint64_t)start + k) % vol->alloc.nr_regions);

		if (vol->alloc.regions[r].used_dirs >= best_dirs ||
		    !region_has(vol, r, avg->inodes, avg->blocks))
			continue;
		best = r;
		best_dirs = vol->alloc.regions[r].used_dirs;
	}
	return best;
}

/* A directory of the top level: the emptiest group of those above average in such a region. */
static uint32_t spread(struct ext4_vol *vol)
{
	uint32_t start = 0, best = UINT32_MAX, best_dirs = UINT32_MAX, first, n, r;
	struct average avg = average(vol);

	if (getrandom(&start, sizeof(start), GRND_NONBLOCK) != sizeof(start))
		start = vol->alloc.nr_dirs;
	r = spread_region(vol, &avg, start % vol->alloc.nr_regions);
	if (r == UINT32_MAX)
		return UINT32_MAX;
	first = r << EXT4_REGION_BITS;
	n = ext4_region_end(vol, first) - first;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t group = first + (uint32_t)(((uint64_t)start + k) % n);
		const struct ext4_descriptor *desc = &vol->alloc.groups[group].desc;

		fdio_count(COUNTER_ext4_place_look);
		if (!desc->free_inodes || vol->alloc.groups[group].ib_bad ||
		    desc->used_dirs >= best_dirs || desc->free_inodes < avg.inodes ||
		    desc->free_blocks < avg.blocks)
			continue;
		best = group;
		best_dirs = desc->used_dirs;
	}
	return best;
}

/* In the groups from group to the end of its region; UINT32_MAX. */
static uint32_t nearby_in(struct ext4_vol *vol, uint32_t group, uint32_t max_dirs, uint32_t min_i,
			  uint32_t min_b)
{
	for (uint32_t end = ext4_region_end(vol, group); group < end; group++) {
		const struct ext4_descriptor *desc = &vol->alloc.groups[group].desc;

		fdio_count(COUNTER_ext4_place_look);
		if (!vol->alloc.groups[group].ib_bad && desc->used_dirs < max_dirs &&
		    desc->free_inodes >= min_i && desc->free_blocks >= min_b)
			return group;
	}
	return UINT32_MAX;
}

/*
 * A directory further down: near its parent, in a group that is not crowded. The nearest regions
 * are looked through, further ones if they have as much on average, and not too many of these.
 */
static uint32_t nearby_dir(struct ext4_vol *vol, uint32_t parent)
{
	struct average avg = average(vol);
	uint32_t max_dirs = avg.dirs + vol->inodes_per_group / 16 + 1, through = 0, group = parent;
	uint32_t few_i = vol->inodes_per_group / 4, few_b = vol->blocks_per_group / 4;
	uint32_t min_i = avg.inodes > few_i ? avg.inodes - few_i : 1;
	uint32_t min_b = avg.blocks > few_b ? avg.blocks - few_b : 0;

	for (uint32_t k = 0; k <= vol->alloc.nr_regions && through < 2 * NEAR_REGIONS; k++) {
		if (k < NEAR_REGIONS || region_has(vol, group >> EXT4_REGION_BITS, min_i, min_b)) {
			uint32_t found = nearby_in(vol, group, max_dirs, min_i, min_b);

			if (found != UINT32_MAX)
				return found;
			through++;
		}
		group = ext4_region_end(vol, group) % vol->nr_groups;
	}
	return UINT32_MAX;
}

/*
 * Anything with a free inode, the parent's group first; want_blocks: and a free block, if that is
 * not far.
 */
static uint32_t first_with_room(struct ext4_vol *vol, uint32_t parent, bool want_blocks)
{
	uint32_t looked = 0;

	for (uint32_t k = 0; k < vol->nr_groups && !(want_blocks && looked > EXT4_NOWAIT_GROUPS);) {
		uint32_t group = (uint32_t)(((uint64_t)parent + k) % vol->nr_groups);
		const struct ext4_region *region = ext4_region_of(vol, group);

		fdio_count(COUNTER_ext4_place_look);
		if (!region->free_inodes || (want_blocks && !region->free_blocks)) {
			k += ext4_region_end(vol, group) - group;
			continue;
		}
		if (!vol->alloc.groups[group].ib_bad && vol->alloc.groups[group].desc.free_inodes &&
		    (!want_blocks || vol->alloc.groups[group].desc.free_blocks))
			return group;
		looked++;
		k++;
	}
	return UINT32_MAX;
}

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
		return ib_damaged(grp, EXT4_CORRUPT(vol, 0, grp->inode_bitmap,
						    "group %u: no free inode in the bitmap, %u in "
						    "the descriptor",
						    group, grp->desc.free_inodes));
	}
	ext4_bits_fill(buffer->data, bit, 1, true);
	journal_buffer_release(buffer);
	desc = grp->desc;
	used = vol->inodes_per_group - desc.itable_unused;
	/* The whole table block is above the mark: nothing in it was ever used. */
	*ret_fresh = bit / vol->inodes_per_block * vol->inodes_per_block >= used;
	if (bit >= used)
		desc.itable_unused = vol->inodes_per_group - bit - 1;
	desc.free_inodes--;
	desc.used_dirs += is_dir;
	fdio_mutex_lock(&vol->alloc.lock);
	ext4_group_set_desc(vol, group, &desc);
	grp->ib_dirty = true;
	fdio_mutex_unlock(&vol->alloc.lock);
	*ret_bit = bit;
	return 0;
}

void ext4_inode_number_distrust(struct ext4_vol *vol, uint32_t ino)
{
	__atomic_store_n(&vol->alloc.groups[(ino - 1) / vol->inodes_per_group].ib_bad, true,
			 __ATOMIC_RELAXED);
}

int ext4_inode_number_alloc(struct journal_handle *handle, struct ext4_inode *dir, uint32_t mode,
			    uint32_t *ret_ino, bool *ret_fresh)
{
	struct ext4_vol *vol = dir->vol;
	bool is_dir = S_ISDIR(mode);
	uint32_t group, bit = 0;
	int err = -ENOSPC;

	/*
	 * Each round either succeeds or takes a damaged group out of the game; not all at once,
	 * where all are.
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
		/* The format wants the block bitmap initialised before inodes are in use. */
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
	grp->ib_dirty = true;
	fdio_mutex_unlock(&vol->alloc.lock);
	return 0;
}

uint64_t ext4_itable_place(struct ext4_vol *vol, uint32_t ino, uint32_t *ret_off)
{
	uint32_t group = (ino - 1) / vol->inodes_per_group, n = (ino - 1) % vol->inodes_per_group;

	*ret_off = n % vol->inodes_per_block * vol->inode_size;
	return vol->alloc.groups[group].itable
			       ? vol->alloc.groups[group].itable + n / vol->inodes_per_block
			       : 0;
}

bool ext4_above_mark(struct ext4_vol *vol, uint32_t ino)
{
	uint32_t group = (ino - 1) / vol->inodes_per_group, n = (ino - 1) % vol->inodes_per_group;
	bool above;

	fdio_mutex_lock(&vol->alloc.lock);
	above = n >= vol->inodes_per_group - vol->alloc.groups[group].desc.itable_unused;
	fdio_mutex_unlock(&vol->alloc.lock);
	return above;
}
