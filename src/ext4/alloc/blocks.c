/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The block allocator: reservations (data, before any handle), claims (reserved blocks become allocated
 * in a handle), direct allocation in a handle (metadata), frees. Called on workers.
 *
 * Placement: exactly at the goal if that is free, because it makes an extent longer. Otherwise a
 * file that grows (it has a goal, or asks for much) is given the start of a long free run near its
 * goal, and the group's cursor moves on by a stretch, so that files that grow side by side do not
 * interleave; small files are packed from the group's first free block, close to their directory.
 * Groups without a long enough run, and whole regions of such groups, are skipped by a remembered
 * upper bound; the search loads at most SEARCH_GROUPS bitmaps before it is content with the
 * longest run seen.
 *
 * Space: free_blocks counts clear bits of the images. Of these meta_held are set aside for handles that
 * begin soon, resv_blocks are for metadata that must not fail, root_blocks for root. When the rest is too
 * small and freed blocks wait for their transaction, one commit is forced.
 */
#include "ext4/alloc/groups.h"

#include "base/counters.h"
#include "base/nowait.h"

#include <errno.h>

#define SEARCH_GROUPS 64U
#define SMALL_RUN 16U      /* up to so many blocks a new file is small */
/* Room left for a growing file: 8 MiB with blocks of 4 KiB, but several files to a group. */
static uint32_t stream_step(const struct x4_vol *vol) { return FDIO_MIN(2048U, vol->blocks_per_group / 16); }

static uint64_t available(const struct x4_vol *vol, enum x4_asks who)
{
	uint64_t keep = vol->alloc.meta_held;

	/* What is set aside comes out of what is kept for metadata, while that lasts: others do not see it as ENOSPC. */
	if (who != X4_ASKS_SYSTEM)
		keep = FDIO_MAX(keep, vol->alloc.resv_blocks);
	if (who == X4_ASKS_USER)
		keep += vol->alloc.root_blocks;
	return vol->alloc.free_blocks > keep ? vol->alloc.free_blocks - keep : 0;
}

/* alloc_lock held, dropped meanwhile. True if blocks came back, which somebody else may have taken by now: look again. */
static bool wait_for_frees(struct x4_vol *vol)
{
	uint64_t before = vol->alloc.nr_given_back;
	journal_tid tid = vol->alloc.last_free_tid;

	if (!vol->alloc.pending_free || x4_vol_read_only(vol))
		return false;
	if (nowait_on()) {
		nowait_miss();
		return false;
	}
	fdio_mutex_unlock(&vol->alloc.lock);
	x4_discard_hurry(vol); /* somebody waits for what is to be discarded first */
	(void)journal_commit_wait(vol->journal, tid, NULL);
	fdio_mutex_lock(&vol->alloc.lock);
	/* The callbacks that give them back may run a moment after the commit is announced. Others free and take meanwhile. */
	for (int n = 0; n < 100 && vol->alloc.nr_given_back == before && vol->alloc.pending_free && !journal_error(vol->journal); n++)
		fdio_cond_timedwait(&vol->alloc.cond, &vol->alloc.lock, fdio_now_ns() + 20 * 1000000ULL);
	return vol->alloc.nr_given_back != before;
}

/* ------------------------------------------------------------------ search */
struct run { uint32_t group, bit, len; };

static uint32_t run_at(const struct x4_group *grp, uint32_t bit, uint32_t max)
{
	uint32_t end = FDIO_MIN(grp->nbits, bit + max);

	return x4_bit(grp->alloc, bit) ? 0 : x4_bits_next(grp->alloc, end, bit, true) - bit;
}

/* First run of at least want from bit on, else false; *best grows. */
static bool scan(const struct x4_group *grp, uint32_t group, uint32_t bit, uint32_t want, struct run *best, uint32_t *longest)
{
	while (bit < grp->nbits) {
		uint32_t s = x4_bits_next(grp->alloc, grp->nbits, bit, false), e;

		if (s >= grp->nbits)
			break;
		e = x4_bits_next(grp->alloc, grp->nbits, s, true);
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

static bool scan_group(struct x4_group *grp, uint32_t group, uint32_t from, uint32_t want, struct run *best)
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
 * alloc_lock held: no group of group's region has a run of want clear bits. *looked grows by the
 * groups and regions that were looked at for that.
 */
static bool region_full(struct x4_vol *vol, uint32_t group, uint32_t want, uint32_t *looked)
{
	struct x4_region *region = x4_region_of(vol, group);
	uint32_t longest = 0;

	++*looked;
	if (region->longest < want)
		return true;
	for (uint32_t k = x4_region_first(group); k < x4_region_end(vol, group); k++) {
		uint32_t most = FDIO_MIN(vol->alloc.groups[k].free_alloc, vol->alloc.groups[k].max_run);

		longest = FDIO_MAX(longest, most);
	}
	*looked += X4_REGION_GROUPS;
	fdio_count(CTR_x4_region_scan);
	region->longest = longest;
	return longest < want;
}

/*
 * Goes through the groups from g0 on, all once; *k counts them. Full regions are passed over.
 * False: the end.
 */
static bool next_group(struct x4_vol *vol, uint32_t g0, uint32_t want, uint32_t *k, uint32_t *looked)
{
	while (*k < vol->nr_groups) {
		uint32_t group = (uint32_t)(((uint64_t)g0 + *k) % vol->nr_groups);

		if ((*k && group != x4_region_first(group)) || !region_full(vol, group, want, looked))
			return true;
		*k += x4_region_end(vol, group) - group;
	}
	return false;
}

/* Any run of at least want, near group g0; otherwise the longest seen. alloc_lock held (dropped while loading). */
static bool search(struct x4_vol *vol, uint32_t g0, uint32_t bit0, uint32_t want, bool stream, struct run *best)
{
	uint32_t looked = 0;
	unsigned scanned = 0;

	for (uint32_t k = 0; next_group(vol, g0, want, &k, &looked); k++) {
		uint32_t group = (uint32_t)(((uint64_t)g0 + k) % vol->nr_groups);
		struct x4_group *grp = &vol->alloc.groups[group];

		if (nowait_on() && looked >= X4_NOWAIT_GROUPS) {
			nowait_miss();
			return false;
		}
		if (grp->free_alloc < want || grp->max_run < want)
			continue;
		if (scanned++ >= SEARCH_GROUPS && best->len)
			return false;
		if (x4_group_load(vol, group))
			continue;
		if (scan_group(grp, group, stream ? FDIO_MAX(grp->cursor, k ? 0 : bit0) : grp->first_free, want, best))
			return true;
	}
	return false;
}

/*
 * The longest run of the first group that has anything: nothing better was found, or it has gone meanwhile. Full is only what
 * could be looked at: a bitmap that could not be read now is the error. Damaged groups are out of use.
 */
static int search_any(struct x4_vol *vol, uint32_t g0, struct run *best)
{
	uint32_t looked = 0;
	int err = -ENOSPC;

	for (uint32_t k = 0; next_group(vol, g0, 1, &k, &looked); k++) {
		uint32_t group = (uint32_t)(((uint64_t)g0 + k) % vol->nr_groups);
		struct x4_group *grp = &vol->alloc.groups[group];
		int r;

		*best = (struct run){ 0, 0, 0 };
		if (!grp->free_alloc)
			continue;
		r = x4_group_load(vol, group);
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
static uint64_t default_goal(struct x4_vol *vol, const struct x4_inode *inode)
{
	uint32_t group = inode ? (inode->ino - 1) / vol->inodes_per_group : 0;

	return x4_group_start(vol, group < vol->nr_groups ? group : 0);
}

/* alloc_lock held. Finds and takes 1..n contiguous blocks. */
static int take_run(struct x4_vol *vol, const struct x4_inode *inode, uint64_t goal, uint32_t n, struct run *ret)
{
	bool exact = goal >= vol->first_data_block && goal < vol->nr_blocks, stream = exact || n > SMALL_RUN;
	uint64_t near = exact ? goal : default_goal(vol, inode);
	uint32_t g0 = x4_group_of(vol, near), bit0 = x4_group_bit(vol, near), want;
	struct run best = { 0, 0, 0 };
	int err;

	n = FDIO_MIN(n, vol->blocks_per_group / 2);
	if (exact && !x4_group_load(vol, g0)) {
		best = (struct run){ g0, bit0, run_at(&vol->alloc.groups[g0], bit0, n) };
		if (best.len)
			goto take;
	}
	want = stream && n < 512 ? FDIO_MAX(8 * n, 64U) : n;
	want = FDIO_MIN(want, vol->blocks_per_group / 2);
	if (search(vol, g0, bit0, want, stream, &best)) {
		if (stream)
			vol->alloc.groups[best.group].cursor = best.bit + FDIO_MAX(n, stream_step(vol));
		goto take;
	}
	/* The best may have been taken while a bitmap was read, and its image given up. */
	if (best.len < n)
		search(vol, g0, bit0, n, false, &best);
	if (best.len && x4_group_load(vol, best.group))
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
	x4_image_take(vol, best.group, best.bit, best.len);
	*ret = best;
	return 0;
}

/*
 * As take_run. A block of metadata that has been read and checked is in use, whatever the bitmap
 * says: it may be a node on the very path that this allocation is for. Then nothing of that group
 * is believed any more, and another one is asked. alloc_lock is dropped meanwhile.
 */
static int take_unused(struct x4_vol *vol, struct x4_inode *inode, uint64_t goal, uint32_t n,
		       struct run *ret)
{
	bool refused = false;

	for (;;) {
		int err = take_run(vol, inode, goal, n, ret);
		uint64_t blk;

		if (err)
			return err == -ENOSPC && refused ? -EUCLEAN : err;
		blk = x4_group_start(vol, ret->group) + ret->bit;
		fdio_mutex_unlock(&vol->alloc.lock);
		if (journal_any_verified(vol->journal, blk, ret->len))
			err = X4_CORRUPT(vol, inode ? inode->ino : 0, blk,
					 "group %u: blocks in use are marked free", ret->group);
		fdio_mutex_lock(&vol->alloc.lock);
		if (!err)
			return 0;
		refused = true;
		if (err != -EUCLEAN) { /* for a worker */
			x4_image_give(vol, ret->group, ret->bit, ret->len);
			return err;
		}
		x4_group_distrust(vol, ret->group);
	}
}

/* ------------------------------------------------------------------ reservations */
int x4_balloc_reserve(struct x4_vol *vol, struct x4_inode *inode, uint64_t goal, uint32_t n, bool root, uint64_t *ret_blk, uint32_t *ret_n)
{
	struct run run;
	uint64_t avail;
	int err;

	FDIO_ASSERT(n > 0);
	fdio_mutex_lock(&vol->alloc.lock);
	for (;;) {
		avail = available(vol, x4_asks(root));
		if (!goal && inode)
			goal = inode->alloc.next;
		err = !avail ? -ENOSPC :
			take_unused(vol, inode, goal, (uint32_t)FDIO_MIN((uint64_t)n, avail), &run);
		if (err != -ENOSPC || !wait_for_frees(vol))
			break;
	}
	if (!err) {
		*ret_blk = x4_group_start(vol, run.group) + run.bit;
		*ret_n = run.len;
		if (inode)
			inode->alloc.next = *ret_blk + run.len;
	}
	fdio_mutex_unlock(&vol->alloc.lock);
	return err;
}

/* Calls fn for the part of [blk, blk+n) in each group. */
#define for_each_part(v, blk, n, g, bit, len)                                          \
	for (uint32_t g = x4_group_of((v), (blk)), bit = x4_group_bit((v), (blk)),      \
		      len = FDIO_MIN((n), (v)->blocks_per_group - bit);                 \
	     (n) > 0;                                                                    \
	     (blk) += len, (n) -= len, g = x4_group_of((v), (blk)),                      \
		      bit = x4_group_bit((v), (blk)),                                    \
		      len = FDIO_MIN((n), (v)->blocks_per_group - bit))

void x4_balloc_unreserve(struct x4_vol *vol, uint64_t blk, uint32_t n)
{
	fdio_mutex_lock(&vol->alloc.lock);
	for_each_part(vol, blk, n, group, bit, len)
		x4_image_give(vol, group, bit, len);
	pthread_cond_broadcast(&vol->alloc.cond);
	fdio_mutex_unlock(&vol->alloc.lock);
}

uint64_t x4_balloc_available(struct x4_vol *vol, bool root)
{
	uint64_t n;

	fdio_mutex_lock(&vol->alloc.lock);
	n = available(vol, x4_asks(root));
	fdio_mutex_unlock(&vol->alloc.lock);
	return n;
}

void x4_balloc_next(struct x4_inode *inode, uint64_t blk)
{
	fdio_mutex_lock(&inode->vol->alloc.lock);
	inode->alloc.next = blk;
	fdio_mutex_unlock(&inode->vol->alloc.lock);
}

int x4_balloc_claim(struct journal_handle *handle, struct x4_inode *inode, uint64_t blk, uint32_t n)
{
	struct x4_vol *vol = inode->vol;

	for_each_part(vol, blk, n, group, bit, len) {
		int err = x4_gop_begin(handle, vol, group, X4_GOP_CLAIM, bit, len);

		if (!err)
			err = x4_group_disk_bits(handle, vol, group, bit, len, true);
		if (err)
			return err;
	}
	return 0;
}

int x4_meta_reserve(struct x4_vol *vol, unsigned n, enum x4_asks who)
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

void x4_meta_unreserve(struct x4_vol *vol, unsigned n)
{
	fdio_mutex_lock(&vol->alloc.lock);
	FDIO_ASSERT(vol->alloc.meta_held >= n);
	vol->alloc.meta_held -= n;
	fdio_mutex_unlock(&vol->alloc.lock);
}

/* ------------------------------------------------------------------ inside handles */
int x4_balloc(struct journal_handle *handle, struct x4_inode *inode, uint64_t goal, uint32_t n, uint64_t *ret_blk, uint32_t *ret_n)
{
	struct x4_vol *vol = inode->vol;
	struct run run;
	int err;

	FDIO_ASSERT(n > 0);
	fdio_mutex_lock(&vol->alloc.lock);
	/* With a reservation outstanding this allocation is what it was made for. */
	if (!vol->alloc.meta_held && !available(vol, X4_ASKS_SYSTEM))
		err = -ENOSPC;
	else
		err = take_unused(vol, inode, goal, n, &run);
	fdio_mutex_unlock(&vol->alloc.lock);
	if (err)
		return err;
	err = x4_gop_begin(handle, vol, run.group, X4_GOP_ALLOC, run.bit, run.len);
	if (err) {
		x4_balloc_unreserve(vol, x4_group_start(vol, run.group) + run.bit, run.len);
		return err;
	}
	/* From here on the undo record gives the blocks back. */
	err = x4_group_disk_bits(handle, vol, run.group, run.bit, run.len, true);
	if (err)
		return err;
	*ret_blk = x4_group_start(vol, run.group) + run.bit;
	*ret_n = run.len;
	return 0;
}

static int free_part(struct journal_handle *handle, struct x4_inode *inode, uint32_t group, uint32_t bit, uint32_t n)
{
	struct x4_vol *vol = inode->vol;
	int err = x4_gop_begin(handle, vol, group, X4_GOP_FREE, bit, n);

	return err ? err : x4_group_disk_bits(handle, vol, group, bit, n, false);
}

int x4_bfree(struct journal_handle *handle, struct x4_inode *inode, uint64_t blk, uint32_t n, bool metadata)
{
	struct x4_vol *vol = inode->vol;
	int err;

	if (!x4_blk_valid(vol, blk, n))
		return X4_CORRUPT(vol, inode->ino, blk, "it owns %u blocks that are not data", n);
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
