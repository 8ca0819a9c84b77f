/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The block allocator: reservations (data, before any handle), claims (reserved blocks become
 * allocated in a handle), direct allocation in a handle (metadata), frees. Called on workers.
 *
 * Placement: exactly at the goal if that is free, because it makes an extent longer. Otherwise a
 * file that grows (it has a goal, or asks for much) is given the start of a long free run near its
 * goal, and the group's cursor moves on by a stretch, so that files that grow side by side do not
 * interleave; small files are packed from the group's first free block, close to their directory.
 * Groups without a long enough run, and whole regions of such groups, are skipped by a remembered
 * upper bound; the search loads at most SEARCH_GROUPS bitmaps before it is content with the
 * longest run seen.
 *
 * Space: free_blocks counts clear bits of the images. Of these meta_held are set aside for handles
 * that begin soon, resv_blocks are for metadata that must not fail, root_blocks for root. When the
 * rest is too small and freed blocks wait for their transaction, one commit is forced.
 */
#include "ext4/alloc/groups.h"

#include "base/counters.h"
#include "base/nowait.h"

#include <errno.h>

#define SEARCH_GROUPS 64U
#define SMALL_RUN 16U      /* up to so many blocks a new file is small */
/* Room left for a growing file: 8 MiB with blocks of 4 KiB, but several files to a group. */
static uint32_t stream_step(const struct ext4_vol *vol)
{
	return FDIO_MIN(2048U, vol->blocks_per_group / 16);
}

static uint64_t available(const struct ext4_vol *vol, enum ext4_requester who)
{
	uint64_t keep = vol->alloc.meta_held;

	/*
	 * What is set aside comes out of what is kept for metadata, while that lasts: others do not
	 * see it as ENOSPC.
	 */
	if (who != EXT4_REQUESTER_SYSTEM)
		keep = FDIO_MAX(keep, vol->alloc.resv_blocks);
	if (who == EXT4_REQUESTER_USER)
		keep += vol->alloc.root_blocks;
	return vol->alloc.free_blocks > keep ? vol->alloc.free_blocks - keep : 0;
}

/*
 * alloc.lock held, dropped meanwhile. True if blocks came back, which somebody else may have taken
 * by now: look again.
 */
static bool wait_for_frees(struct ext4_vol *vol)
{
	uint64_t before = vol->alloc.nr_given_back;
	journal_tid tid = vol->alloc.last_free_tid;

	if (!vol->alloc.pending_free || ext4_vol_read_only(vol))
		return false;
	if (nowait_on()) {
		nowait_miss();
		return false;
	}
	fdio_mutex_unlock(&vol->alloc.lock);
	ext4_discard_hurry(vol); /* somebody waits for what is to be discarded first */
	(void)journal_commit_wait(vol->journal, tid, NULL);
	fdio_mutex_lock(&vol->alloc.lock);
	/*
	 * The callbacks that give them back may run a moment after the commit is announced. Others
	 * free and take meanwhile.
	 */
	for (int n = 0; n < 100 && vol->alloc.nr_given_back == before && vol->alloc.pending_free &&
			!journal_error(vol->journal);
	     n++)
		fdio_cond_timedwait(&vol->alloc.cond, &vol->alloc.lock,
				    fdio_now_ns() + 20 * 1000000ULL);
	return vol->alloc.nr_given_back != before;
}

/* ------------------------------------------------------------------ search */
struct run { uint32_t group, bit, len; };

static uint32_t run_at(const struct ext4_group *grp, uint32_t bit, uint32_t max)
{
	uint32_t end = FDIO_MIN(grp->nbits, bit + max);

	return ext4_bit(grp->alloc, bit) ? 0 : ext4_bits_next(grp->alloc, end, bit, true) - bit;
}

/* First run of at least want from bit on, else false; *best grows. */
static bool scan(const struct ext4_group *grp, uint32_t group, uint32_t bit, uint32_t want,
		 struct run *best, uint32_t *longest)
{
	while (bit < grp->nbits) {
		uint32_t s = ext4_bits_next(grp->alloc, grp->nbits, bit, false), e;

		if (s >= grp->nbits)
			break;
		e = ext4_bits_next(grp->alloc, grp->nbits, s, true);
		*longest = FDIO_MAX(*longest, e - s);
		if (e - s > best->len)
			*best = (struct run){ group, s, e - s };
		if (e - s >= want) {
			*best = (struct run){ group, s, e - s };
			return true;
		}
		bit = e;
	}
	return false;
}

static bool scan_group(struct ext4_group *grp, uint32_t group, uint32_t from, uint32_t want,
		       struct run *best)
{
	uint32_t longest = 0;

	if (from >= grp->nbits)
		from = 0;
	if (scan(grp, group, from, want, best, &longest))
		return true;
	if (from > grp->first_free && scan(grp, group, grp->first_free, want, best, &longest))
		return true;
	grp->max_run = longest;
	return false;
}

/*
 * alloc.lock held: no group of group's region has a run of want clear bits. *looked grows by the
 * groups and regions that were looked at for that.
 */
static bool region_full(struct ext4_vol *vol, uint32_t group, uint32_t want, uint32_t *looked)
{
	struct ext4_region *region = ext4_region_of(vol, group);
	uint32_t longest = 0;

	++*looked;
	if (region->longest < want)
		return true;
	for (uint32_t k = ext4_region_first(group); k < ext4_region_end(vol, group); k++) {
		uint32_t most = FDIO_MIN(vol->alloc.groups[k].free_alloc,
					 vol->alloc.groups[k].max_run);

		longest = FDIO_MAX(longest, most);
	}
	*looked += EXT4_REGION_GROUPS;
	fdio_count(COUNTER_ext4_region_scan);
	region->longest = longest;
	return longest < want;
}

/*
 * Goes through the groups from g0 on, all once; *k counts them. Full regions are passed over.
 * False: the end.
 */
static bool next_group(struct ext4_vol *vol, uint32_t g0, uint32_t want, uint32_t *k,
		       uint32_t *looked)
{
	while (*k < vol->nr_groups) {
		uint32_t group = (uint32_t)(((uint64_t)g0 + *k) % vol->nr_groups);

		if ((*k && group != ext4_region_first(group)) ||
		    !region_full(vol, group, want, looked))
			return true;
		*k += ext4_region_end(vol, group) - group;
	}
	return false;
}

/*
 * Any run of at least want, near group g0; otherwise the longest seen. alloc.lock held (dropped
 * while loading).
 */
static bool search(struct ext4_vol *vol, uint32_t g0, uint32_t bit0, uint32_t want, bool stream,
		   struct run *best)
{
	uint32_t looked = 0;
	unsigned scanned = 0;

	for (uint32_t k = 0; next_group(vol, g0, want, &k, &looked); k++) {
		uint32_t group = (uint32_t)(((uint64_t)g0 + k) % vol->nr_groups);
		struct ext4_group *grp = &vol->alloc.groups[group];

		if (nowait_on() && looked >= EXT4_NOWAIT_GROUPS) {
			nowait_miss();
			return false;
		}
		if (grp->free_alloc < want || grp->max_run < want)
			continue;
		if (scanned++ >= SEARCH_GROUPS && best->len)
			return false;
		if (ext4_group_load(vol, group))
			continue;
		if (scan_group(grp, group,
			       stream ? FDIO_MAX(grp->cursor, k ? 0 : bit0) : grp->first_free, want,
			       best))
			return true;
	}
	return false;
}

/*
 * The longest run of the first group that has anything: nothing better was found, or it has gone
 * meanwhile. Full is only what could be looked at: a bitmap that could not be read now is the
 * error. Damaged groups are out of use.
 */
static int search_any(struct ext4_vol *vol, uint32_t g0, struct run *best)
{
	uint32_t looked = 0;
	int err = -ENOSPC;

	for (uint32_t k = 0; next_group(vol, g0, 1, &k, &looked); k++) {
		uint32_t group = (uint32_t)(((uint64_t)g0 + k) % vol->nr_groups);
		struct ext4_group *grp = &vol->alloc.groups[group];
		int r;

		*best = (struct run){ 0, 0, 0 };
		if (!grp->free_alloc)
			continue;
		r = ext4_group_load(vol, group);
		if (r) {
			if (err == -ENOSPC && r != -EUCLEAN)
				err = r;
			continue;
		}
		scan_group(grp, group, grp->first_free, UINT32_MAX, best);
		if (best->len)
			return 0;
	}
	return err;
}

/* Where to look for blocks of inode without a goal: its inode's group. */
static uint64_t default_goal(struct ext4_vol *vol, const struct ext4_inode *inode)
{
	uint32_t group = inode ? (inode->ino - 1) / vol->inodes_per_group : 0;

	return ext4_group_start(vol, group < vol->nr_groups ? group : 0);
}

/* alloc.lock held. Finds and takes 1..n contiguous blocks. */
static int take_run(struct ext4_vol *vol, const struct ext4_inode *inode, uint64_t goal, uint32_t n,
		    struct run *ret)
{
	bool exact = goal >= vol->first_data_block && goal < vol->nr_blocks,
	     stream = exact || n > SMALL_RUN;
	uint64_t near = exact ? goal : default_goal(vol, inode);
	uint32_t g0 = ext4_group_of(vol, near), bit0 = ext4_group_bit(vol, near), want;
	struct run best = { 0, 0, 0 };
	int err;

	n = FDIO_MIN(n, vol->blocks_per_group / 2);
	if (exact && !ext4_group_load(vol, g0)) {
		best = (struct run){ g0, bit0, run_at(&vol->alloc.groups[g0], bit0, n) };
		if (best.len)
			goto take;
	}
	want = stream && n < 512 ? FDIO_MAX(8 * n, 64U) : n;
	want = FDIO_MIN(want, vol->blocks_per_group / 2);
	if (search(vol, g0, bit0, want, stream, &best)) {
		if (stream)
			vol->alloc.groups[best.group].cursor =
					best.bit + FDIO_MAX(n, stream_step(vol));
		goto take;
	}
	/* The best may have been taken while a bitmap was read, and its image given up. */
	if (best.len < n)
		search(vol, g0, bit0, n, false, &best);
	if (best.len && ext4_group_load(vol, best.group))
		best.len = 0;
	if (best.len)
		best.len = run_at(&vol->alloc.groups[best.group], best.bit, best.len);
	if (!best.len) {
		err = search_any(vol, g0, &best);
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
 * As take_run. A block of metadata that has been read and checked is in use, whatever the bitmap
 * says: it may be a node on the very path that this allocation is for. Then nothing of that group
 * is believed any more, and another one is asked. alloc.lock is dropped meanwhile.
 */
static int take_unused(struct ext4_vol *vol, struct ext4_inode *inode, uint64_t goal, uint32_t n,
		       struct run *ret)
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
		if (err != -EUCLEAN) { /* for a worker */
			ext4_image_give(vol, ret->group, ret->bit, ret->len);
			return err;
		}
		ext4_group_distrust(vol, ret->group);
	}
}

/* ------------------------------------------------------------------ reservations */
int ext4_blocks_reserve(struct ext4_vol *vol, struct ext4_inode *inode, uint64_t goal, uint32_t n,
			bool root, uint64_t *ret_blk, uint32_t *ret_n)
{
	struct run run;
	uint64_t avail;
	int err;

	FDIO_ASSERT(n > 0);
	fdio_mutex_lock(&vol->alloc.lock);
	for (;;) {
		avail = available(vol, ext4_requester(root));
		if (!goal && inode)
			goal = inode->alloc.next;
		err = !avail ? -ENOSPC :
			take_unused(vol, inode, goal, (uint32_t)FDIO_MIN((uint64_t)n, avail), &run);
		if (err != -ENOSPC || !wait_for_frees(vol))
			break;
	}
	if (!err) {
		*ret_blk = ext4_group_start(vol, run.group) + run.bit;
		*ret_n = run.len;
		if (inode)
			inode->alloc.next = *ret_blk + run.len;
	}
	fdio_mutex_unlock(&vol->alloc.lock);
	return err;
}

/* Calls fn for the part of [blk, blk+n) in each group. */
#define for_each_part(v, blk, n, g, bit, len)                                          \
	for (uint32_t g = ext4_group_of((v), (blk)), bit = ext4_group_bit((v), (blk)),      \
		      len = FDIO_MIN((n), (v)->blocks_per_group - bit);                 \
	     (n) > 0;                                                                    \
	     (blk) += len, (n) -= len, g = ext4_group_of((v), (blk)),                      \
		      bit = ext4_group_bit((v), (blk)),                                    \
		      len = FDIO_MIN((n), (v)->blocks_per_group - bit))

void ext4_blocks_unreserve(struct ext4_vol *vol, uint64_t blk, uint32_t n)
{
	fdio_mutex_lock(&vol->alloc.lock);
	for_each_part(vol, blk, n, group, bit, len)
		ext4_image_give(vol, group, bit, len);
	pthread_cond_broadcast(&vol->alloc.cond);
	fdio_mutex_unlock(&vol->alloc.lock);
}

uint64_t ext4_blocks_available(struct ext4_vol *vol, bool root)
{
	uint64_t n;

	fdio_mutex_lock(&vol->alloc.lock);
	n = available(vol, ext4_requester(root));
	fdio_mutex_unlock(&vol->alloc.lock);
	return n;
}

void ext4_blocks_next(struct ext4_inode *inode, uint64_t blk)
{
	fdio_mutex_lock(&inode->vol->alloc.lock);
	inode->alloc.next = blk;
	fdio_mutex_unlock(&inode->vol->alloc.lock);
}

int ext4_blocks_claim(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
		      uint32_t n)
{
	struct ext4_vol *vol = inode->vol;

	for_each_part(vol, blk, n, group, bit, len) {
		int err = ext4_group_op_begin(handle, vol, group, EXT4_GROUP_OP_CLAIM, bit, len);

		if (!err)
			err = ext4_group_disk_bits(handle, vol, group, bit, len, true);
		if (err)
			return err;
	}
	return 0;
}

int ext4_metadata_reserve(struct ext4_vol *vol, unsigned n, enum ext4_requester who)
{
	int err = 0;

	fdio_mutex_lock(&vol->alloc.lock);
	while (available(vol, who) < n)
		if (!wait_for_frees(vol)) {
			err = -ENOSPC;
			break;
		}
	if (!err)
		vol->alloc.meta_held += n;
	fdio_mutex_unlock(&vol->alloc.lock);
	return err;
}

void ext4_metadata_unreserve(struct ext4_vol *vol, unsigned n)
{
	fdio_mutex_lock(&vol->alloc.lock);
	FDIO_ASSERT(vol->alloc.meta_held >= n);
	vol->alloc.meta_held -= n;
	fdio_mutex_unlock(&vol->alloc.lock);
}

/* ------------------------------------------------------------------ inside handles */
int ext4_blocks_alloc(struct journal_handle *handle, struct ext4_inode *inode, uint64_t goal,
		      uint32_t n, uint64_t *ret_blk, uint32_t *ret_n)
{
	struct ext4_vol *vol = inode->vol;
	struct run run;
	int err;

	FDIO_ASSERT(n > 0);
	fdio_mutex_lock(&vol->alloc.lock);
	/* With a reservation outstanding this allocation is what it was made for. */
	if (!vol->alloc.meta_held && !available(vol, EXT4_REQUESTER_SYSTEM))
		err = -ENOSPC;
	else
		err = take_unused(vol, inode, goal, n, &run);
	fdio_mutex_unlock(&vol->alloc.lock);
	if (err)
		return err;
	err = ext4_group_op_begin(handle, vol, run.group, EXT4_GROUP_OP_ALLOC, run.bit, run.len);
	if (err) {
		ext4_blocks_unreserve(vol, ext4_group_start(vol, run.group) + run.bit, run.len);
		return err;
	}
	/* From here on the undo record gives the blocks back. */
	err = ext4_group_disk_bits(handle, vol, run.group, run.bit, run.len, true);
	if (err)
		return err;
	*ret_blk = ext4_group_start(vol, run.group) + run.bit;
	*ret_n = run.len;
	return 0;
}

static int free_part(struct journal_handle *handle, struct ext4_inode *inode, uint32_t group,
		     uint32_t bit, uint32_t n)
{
	struct ext4_vol *vol = inode->vol;
	int err = ext4_group_op_begin(handle, vol, group, EXT4_GROUP_OP_FREE, bit, n);

	return err ? err : ext4_group_disk_bits(handle, vol, group, bit, n, false);
}

int ext4_blocks_free(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
		     uint32_t n, bool metadata)
{
	struct ext4_vol *vol = inode->vol;
	int err;

	if (!ext4_blocks_valid(vol, blk, n))
		return EXT4_CORRUPT(vol, inode->ino, blk, "it owns %u blocks that are not data", n);
	if (metadata) {
		err = journal_forget(handle, blk, n);
		if (err)
			return err;
	}
	for_each_part(vol, blk, n, group, bit, len) {
		err = free_part(handle, inode, group, bit, len);
		if (err)
			return err;
	}
	return 0;
}
