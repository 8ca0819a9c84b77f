/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The allocation images of the groups (see groups.h): loaded from the bitmap on disk when a group
 * is first searched, changed by reservations, allocations and frees, and given up when there are
 * too many. alloc.lock guards them; ext4_group_load drops it while it reads.
 *
 * Workers, loop threads in the mode of base/nowait.h, the ticker, the thread that opens or closes
 * the volume; to give back freed blocks, the thread that commits and the discard thread as well. A
 * bitmap with a wrong checksum or count makes the group bad: nothing is allocated or freed there
 * any more, and the rest of the file system goes on.
 */
#include "ext4/alloc/groups.h"

#include "base/counters.h"
#include "base/crc32c.h"
#include "base/nowait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* How many images a load looks at to find some to give up: so it does not take long. */
#define TRIM_LOOK 4u

/* Marks those of the blocks [blk, blk + n) that lie in group. */
static void mark_if_inside(struct ext4_vol *vol, uint32_t group, uint8_t *map, uint64_t blk,
			   uint64_t n)
{
	uint64_t start = ext4_group_start(vol, group);
	uint64_t end = start + vol->alloc.groups[group].nr_blocks;

	for (; n; n--, blk++)
		if (blk >= start && blk < end)
			ext4_bits_fill(map, (uint32_t)(blk - start), 1, true);
}

void ext4_group_synthesize_blocks(struct ext4_vol *vol, uint32_t group, uint8_t *map)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct journal_extent base[3];
	unsigned nr = ext4_group_base_ranges(vol, group, base);

	memset(map, 0, vol->block_size);
	for (unsigned n = 0; n < nr; n++)
		mark_if_inside(vol, group, map, base[n].pblk, base[n].len);
	mark_if_inside(vol, group, map, grp->block_bitmap, 1);
	mark_if_inside(vol, group, map, grp->inode_bitmap, 1);
	mark_if_inside(vol, group, map, grp->itable, vol->itable_blocks);
	ext4_bits_fill(map, grp->nr_blocks, vol->block_size * 8 - grp->nr_blocks, true);
}

bool ext4_bitmap_checksum_ok(const struct ext4_vol *vol, const uint8_t *map, uint32_t bytes,
			     uint16_t low, uint16_t high)
{
	uint32_t sum = fdio_crc32c(vol->checksum_seed, map, bytes);

	return (uint16_t)sum == low && (vol->desc_size < 64 || sum >> 16 == high);
}

/*
 * desc and unsealed are as they were before the bitmap was read: an inode may be allocated in this
 * group meanwhile, which changes its descriptor.
 */
static int check_block_bitmap(struct ext4_vol *vol, uint32_t group,
			      const struct ext4_descriptor *desc, bool unsealed, const uint8_t *map)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_group_desc *raw_desc = ext4_group_raw_desc(vol, group);
	uint64_t start = ext4_group_start(vol, group);
	uint32_t n;

	/*
	 * An unsealed bitmap has changed since its checksum was computed; the next seal computes it
	 * anew. Such a group was uninitialised when this mount allocated an inode in it.
	 */
	if (vol->has_csum && !(desc->flags & EXT2_BG_BLOCK_UNINIT) && !unsealed &&
	    !ext4_bitmap_checksum_ok(vol, map, vol->blocks_per_group / 8,
				     raw_desc->bg_block_bitmap_csum_lo,
				     raw_desc->bg_block_bitmap_csum_hi))
		return EXT4_CORRUPT(vol, 0, grp->block_bitmap,
				    "group %u: wrong checksum of the block bitmap", group);
	if (!ext4_zones_marked(vol, start, grp->nr_blocks, map))
		return EXT4_CORRUPT(vol, 0, grp->block_bitmap,
				    "group %u: blocks of the file system's own are marked free",
				    group);
	n = ext4_bits_clear_count(map, grp->nr_blocks);
	if (n != desc->free_blocks)
		return EXT4_CORRUPT(vol, 0, grp->block_bitmap,
				    "group %u: %u free blocks in the bitmap, %u in the descriptor",
				    group, n, desc->free_blocks);
	return 0;
}

/*
 * Runs without alloc.lock: grp->loading keeps other threads from loading the group meanwhile. The
 * caller frees *ret.
 */
static int read_image(struct ext4_vol *vol, uint32_t group, const struct ext4_descriptor *desc,
		      bool unsealed, uint8_t **ret)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	uint8_t *map;
	struct journal_buffer *buffer;
	int err = 0;

	if (vol->blocks_per_group > vol->block_size * 8)
		return -EOPNOTSUPP; /* bigalloc: a bit is a cluster */
	map = malloc(vol->block_size);
	if (!map)
		return -ENOMEM;
	if (desc->flags & EXT2_BG_BLOCK_UNINIT) {
		ext4_group_synthesize_blocks(vol, group, map);
	} else {
		err = EXT4_READ_BLOCK(vol, 0, grp->block_bitmap, &buffer);
		if (!err) {
			memcpy(map, buffer->data, vol->block_size);
			journal_buffer_release(buffer);
		}
	}
	if (!err)
		err = check_block_bitmap(vol, group, desc, unsealed, map);
	if (err) {
		free(map);
		return err;
	}
	ext4_bits_fill(map, grp->nr_blocks, vol->block_size * 8 - grp->nr_blocks, true);
	*ret = map;
	return 0;
}

/* alloc.lock held. Whether the image equals the bitmap on disk, and may be given up. */
static bool image_clean(const struct ext4_group *grp)
{
	return grp->free_in_image == grp->desc.free_blocks &&
	       !__atomic_load_n(&grp->pins, __ATOMIC_ACQUIRE);
}

/* alloc.lock held. Gives up old images while there are too many, but not that of keep. */
static void trim_images(struct ext4_vol *vol, const struct ext4_group *keep)
{
	for (unsigned look = 0; vol->alloc.nr_images > vol->alloc.max_images && look < TRIM_LOOK;
	     look++) {
		struct ext4_group *grp =
				list_first(&vol->alloc.images, struct ext4_group, image_node);

		if (grp == keep || !image_clean(grp)) {
			list_move_tail(&vol->alloc.images, &grp->image_node);
			continue;
		}
		list_del(&grp->image_node);
		vol->alloc.nr_images--;
		free(grp->image);
		grp->image = NULL;
		fdio_count(COUNTER_ext4_image_evicted);
	}
}

int ext4_group_load(struct ext4_vol *vol, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_descriptor desc;
	uint8_t *map = NULL;
	bool unsealed;
	int err;

	if (grp->loading && nowait_on())
		return nowait_miss();
	while (grp->loading)
		fdio_cond_wait(&vol->alloc.cond, &vol->alloc.lock);
	if (grp->image)
		return 0;
	if (grp->bad)
		return -EUCLEAN;
	grp->loading = true;
	desc = grp->desc;
	unsealed = grp->block_bitmap_dirty;
	fdio_mutex_unlock(&vol->alloc.lock);
	err = read_image(vol, group, &desc, unsealed, &map);
	fdio_mutex_lock(&vol->alloc.lock);
	grp->loading = false;
	if (!err) {
		grp->image = map;
		grp->first_free = ext4_bits_next(map, grp->nr_blocks, 0, false);
		list_add_tail(&vol->alloc.images, &grp->image_node);
		vol->alloc.nr_images++;
		trim_images(vol, grp);
	} else if (err == -EUCLEAN) {
		grp->bad = true;
		vol->alloc.free_blocks -= grp->free_in_image;
		grp->free_in_image = 0;
	}
	pthread_cond_broadcast(&vol->alloc.cond);
	return err;
}

void ext4_group_distrust(struct ext4_vol *vol, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];

	ext4_bits_fill(grp->image, 0, grp->nr_blocks, true);
	vol->alloc.free_blocks -= grp->free_in_image;
	grp->free_in_image = 0;
	grp->first_free = grp->nr_blocks;
}

void ext4_image_take(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n)
{
	struct ext4_group *grp = &vol->alloc.groups[group];

	ext4_bits_fill(grp->image, bit, n, true);
	grp->free_in_image -= n;
	vol->alloc.free_blocks -= n;
	if (bit <= grp->first_free && grp->first_free < bit + n)
		grp->first_free = bit + n;
}

void ext4_image_give(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n)
{
	struct ext4_group *grp = &vol->alloc.groups[group];

	ext4_bits_fill(grp->image, bit, n, false);
	grp->free_in_image += n;
	vol->alloc.free_blocks += n;
	grp->first_free = FDIO_MIN(grp->first_free, bit);
	grp->max_run = UINT32_MAX;
	ext4_region_of(vol, group)->longest = UINT32_MAX;
}

void ext4_group_give_freed(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n)
{
	fdio_mutex_lock(&vol->alloc.lock);
	vol->alloc.pending_free -= n;
	vol->alloc.nr_given_back += n;
	ext4_image_give(vol, group, bit, n);
	pthread_cond_broadcast(&vol->alloc.cond);
	fdio_mutex_unlock(&vol->alloc.lock);
	__atomic_sub_fetch(&vol->alloc.groups[group].pins, 1, __ATOMIC_RELEASE);
}
