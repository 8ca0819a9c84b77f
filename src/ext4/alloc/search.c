/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a run of blocks is placed. Runs where blocks.c runs, with alloc.lock held, which is dropped
 * while a bitmap is read: what was found before may be taken by then, and is looked at again. Fails
 * with -ENOSPC, or with the error of a bitmap that could not be read.
 *
 * If the goal is free, the run begins there and makes an extent longer. Otherwise a file that grows
 * (it has a goal, or asks for more than SMALL_RUN blocks) gets the start of a long free run near
 * its goal, and the group's cursor moves on by stream_step, so that files that grow side by side do
 * not interleave. A small file gets the first free blocks of its group, close to its directory.
 *
 * Groups without a long enough run, and regions of such groups, are skipped by upper bounds that
 * earlier searches have left (max_run, longest). A search loads at most SEARCH_GROUPS bitmaps
 * before it is content with the longest run it has seen.
 */
#include "ext4/alloc/groups.h"

#include "base/counters.h"
#include "base/nowait.h"

#include <errno.h>

#define SEARCH_GROUPS 64U
#define SMALL_RUN 16U /* blocks */

/* Blocks left for a growing file: 8 MiB with blocks of 4 KiB, but several files to a group. */
static uint32_t stream_step(const struct ext4_vol *vol)
{
	return FDIO_MIN(2048U, vol->blocks_per_group / 16);
}

/* How many bits from bit on are clear, up to max. */
static uint32_t run_at(const struct ext4_group *grp, uint32_t bit, uint32_t max)
{
	uint32_t end = FDIO_MIN(grp->nr_blocks, bit + max);

	return ext4_bit(grp->image, bit) ? 0 : ext4_bits_next(grp->image, end, bit, true) - bit;
}

/*
 * Finds the first run of at least want clear bits from bit on and stores it in *best. Without one,
 * returns false; *best has become the longest run seen if it was shorter, *longest likewise.
 */
static bool scan(const struct ext4_group *grp, uint32_t group, uint32_t bit, uint32_t want,
		 struct ext4_run *best, uint32_t *longest)
{
	while (bit < grp->nr_blocks) {
		uint32_t start = ext4_bits_next(grp->image, grp->nr_blocks, bit, false), end;

		if (start >= grp->nr_blocks)
			break;
		end = ext4_bits_next(grp->image, grp->nr_blocks, start, true);
		*longest = FDIO_MAX(*longest, end - start);
		if (end - start > best->len)
			*best = (struct ext4_run){ group, start, end - start };
		if (end - start >= want) {
			*best = (struct ext4_run){ group, start, end - start };
			return true;
		}
		bit = end;
	}
	return false;
}

/* As scan, from bit from on and then from the group's first free block on. */
static bool scan_group(struct ext4_group *grp, uint32_t group, uint32_t from, uint32_t want,
		       struct ext4_run *best)
{
	uint32_t longest = 0;

	if (from >= grp->nr_blocks)
		from = 0;
	if (scan(grp, group, from, want, best, &longest))
		return true;
	if (from > grp->first_free && scan(grp, group, grp->first_free, want, best, &longest))
		return true;
	grp->max_run = longest;
	return false;
}

/*
 * alloc.lock held. True if no group of group's region has a run of want clear bits. Adds to *looked
 * the groups and regions that it has looked at.
 */
static bool region_full(struct ext4_vol *vol, uint32_t group, uint32_t want, uint32_t *looked)
{
	struct ext4_region *region = ext4_region_of(vol, group);
	uint32_t longest = 0;

	++*looked;
	if (region->longest < want)
		return true;
	for (uint32_t k = ext4_region_first(group); k < ext4_region_end(vol, group); k++) {
		uint32_t most = FDIO_MIN(vol->alloc.groups[k].free_in_image,
					 vol->alloc.groups[k].max_run);

		longest = FDIO_MAX(longest, most);
	}
	*looked += EXT4_REGION_GROUPS;
	fdio_count(COUNTER_ext4_region_scan);
	region->longest = longest;
	return longest < want;
}

static uint32_t group_at(const struct ext4_vol *vol, uint32_t first, uint32_t k)
{
	return (uint32_t)(((uint64_t)first + k) % vol->nr_groups);
}

/*
 * One step of a walk over all groups, from group first on and around: *k is how far it has come,
 * and moves on over full regions. False: that was the last group.
 */
static bool next_group(struct ext4_vol *vol, uint32_t first, uint32_t want, uint32_t *k,
		       uint32_t *looked)
{
	while (*k < vol->nr_groups) {
		uint32_t group = group_at(vol, first, *k);

		if ((*k && group != ext4_region_first(group)) ||
		    !region_full(vol, group, want, looked))
			return true;
		*k += ext4_region_end(vol, group) - group;
	}
	return false;
}

/*
 * Finds a run of at least want, from group first and bit0 on; without one returns false, and *best
 * is the longest run seen. stream: behind the group's cursor, for a file that grows. alloc.lock
 * held, dropped while a bitmap is read.
 */
static bool search(struct ext4_vol *vol, uint32_t first, uint32_t bit0, uint32_t want, bool stream,
		   struct ext4_run *best)
{
	uint32_t looked = 0;
	unsigned scanned = 0;

	for (uint32_t k = 0; next_group(vol, first, want, &k, &looked); k++) {
		uint32_t group = group_at(vol, first, k), from;
		struct ext4_group *grp = &vol->alloc.groups[group];

		if (nowait_on() && looked >= EXT4_NOWAIT_GROUPS) {
			nowait_miss();
			return false;
		}
		if (grp->free_in_image < want || grp->max_run < want)
			continue;
		if (scanned++ >= SEARCH_GROUPS && best->len)
			return false;
		if (ext4_group_load(vol, group))
			continue;
		from = stream ? FDIO_MAX(grp->cursor, k ? 0 : bit0) : grp->first_free;
		if (scan_group(grp, group, from, want, best))
			return true;
	}
	return false;
}

/*
 * The last resort: the longest run of the first group that has any. The file system counts as full
 * only if all bitmaps could be read: one that cannot be read now is the error. Groups with a
 * damaged bitmap are out of use and do not count.
 */
static int search_any(struct ext4_vol *vol, uint32_t first, struct ext4_run *best)
{
	uint32_t looked = 0;
	int err = -ENOSPC;

	for (uint32_t k = 0; next_group(vol, first, 1, &k, &looked); k++) {
		uint32_t group = group_at(vol, first, k);
		struct ext4_group *grp = &vol->alloc.groups[group];
		int load_err;

		*best = (struct ext4_run){ 0, 0, 0 };
		if (!grp->free_in_image)
			continue;
		load_err = ext4_group_load(vol, group);
		if (load_err) {
			if (err == -ENOSPC && load_err != -EUCLEAN)
				err = load_err;
			continue;
		}
		scan_group(grp, group, grp->first_free, UINT32_MAX, best);
		if (best->len)
			return 0;
	}
	return err;
}

/* Where to look for blocks of inode without a goal: the start of the group its number is in. */
static uint64_t default_goal(struct ext4_vol *vol, const struct ext4_inode *inode)
{
	uint32_t group = inode ? (inode->ino - 1) / vol->inodes_per_group : 0;

	return ext4_group_start(vol, group < vol->nr_groups ? group : 0);
}

/* alloc.lock held, dropped while a bitmap is read. Finds and takes 1 to n contiguous blocks. */
static int take_run(struct ext4_vol *vol, const struct ext4_inode *inode, uint64_t goal, uint32_t n,
		    struct ext4_run *ret)
{
	bool exact = goal >= vol->first_data_block && goal < vol->nr_blocks,
	     stream = exact || n > SMALL_RUN;
	uint64_t near = exact ? goal : default_goal(vol, inode);
	uint32_t first = ext4_group_of(vol, near), bit0 = ext4_group_bit(vol, near), want;
	struct ext4_run best = { 0, 0, 0 };
	int err;

	n = FDIO_MIN(n, vol->blocks_per_group / 2);
	if (exact && !ext4_group_load(vol, first)) {
		best = (struct ext4_run){ first, bit0, run_at(&vol->alloc.groups[first], bit0, n) };
		if (best.len)
			goto take;
	}
	want = stream && n < 512 ? FDIO_MAX(8 * n, 64U) : n;
	want = FDIO_MIN(want, vol->blocks_per_group / 2);
	if (search(vol, first, bit0, want, stream, &best)) {
		if (stream)
			vol->alloc.groups[best.group].cursor =
					best.bit + FDIO_MAX(n, stream_step(vol));
		goto take;
	}
	if (best.len < n)
		search(vol, first, bit0, n, false, &best);
	/* While another bitmap was read, the run may have been taken, or its image given up. */
	if (best.len && ext4_group_load(vol, best.group))
		best.len = 0;
	if (best.len)
		best.len = run_at(&vol->alloc.groups[best.group], best.bit, best.len);
	if (!best.len) {
		err = search_any(vol, first, &best);
		if (err)
			return err;
	}
take:
	best.len = FDIO_MIN(best.len, n);
	ext4_image_take(vol, best.group, best.bit, best.len);
	*ret = best;
	return 0;
}

/*
 * A block of metadata that was read and checked is in use, whatever the bitmap says: it may even be
 * a node on the path that this allocation is for. If the bitmap calls such a block free, nothing
 * else in its group is given out, and the search goes on in another one.
 */
int ext4_run_take(struct ext4_vol *vol, struct ext4_inode *inode, uint64_t goal, uint32_t n,
		  struct ext4_run *ret)
{
	bool refused = false;

	for (;;) {
		int err = take_run(vol, inode, goal, n, ret);
		uint64_t blk;

		if (err)
			return err == -ENOSPC && refused ? -EUCLEAN : err;
		blk = ext4_group_start(vol, ret->group) + ret->bit;
		fdio_mutex_unlock(&vol->alloc.lock);
		if (journal_any_verified(vol->journal, blk, ret->len))
			err = EXT4_CORRUPT(vol, inode ? inode->ino : 0, blk,
					   "group %u: blocks in use are marked free", ret->group);
		fdio_mutex_lock(&vol->alloc.lock);
		if (!err)
			return 0;
		refused = true;
		if (err != -EUCLEAN) { /* a miss: a worker reports the damage */
			ext4_image_give(vol, ret->group, ret->bit, ret->len);
			return err;
		}
		ext4_group_distrust(vol, ret->group);
	}
}
