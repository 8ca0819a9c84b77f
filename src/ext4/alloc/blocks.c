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
static uint32_t stream_step(const struct x4_vol *v) { return FDIO_MIN(2048U, v->blocks_per_group / 16); }

static uint64_t available(const struct x4_vol *v, enum x4_asks who)
{
	uint64_t keep = v->alloc.meta_held;

	/* What is set aside comes out of what is kept for metadata, while that lasts: others do not see it as ENOSPC. */
	if (who != X4_ASKS_SYSTEM)
		keep = FDIO_MAX(keep, v->alloc.resv_blocks);
	if (who == X4_ASKS_USER)
		keep += v->alloc.root_blocks;
	return v->alloc.free_blocks > keep ? v->alloc.free_blocks - keep : 0;
}

/* alloc_lock held, dropped meanwhile. True if blocks came back, which somebody else may have taken by now: look again. */
static bool wait_for_frees(struct x4_vol *v)
{
	uint64_t before = v->alloc.nr_given_back;
	jnl_tid tid = v->alloc.last_free_tid;

	if (!v->alloc.pending_free || x4_vol_read_only(v))
		return false;
	if (nowait_on()) {
		nowait_miss();
		return false;
	}
	fdio_mutex_unlock(&v->alloc.lock);
	x4_discard_hurry(v); /* somebody waits for what is to be discarded first */
	(void)jnl_commit_wait(v->jnl, tid, NULL);
	fdio_mutex_lock(&v->alloc.lock);
	/* The callbacks that give them back may run a moment after the commit is announced. Others free and take meanwhile. */
	for (int n = 0; n < 100 && v->alloc.nr_given_back == before && v->alloc.pending_free && !jnl_error(v->jnl); n++)
		fdio_cond_timedwait(&v->alloc.cond, &v->alloc.lock, fdio_now_ns() + 20 * 1000000ULL);
	return v->alloc.nr_given_back != before;
}

/* ------------------------------------------------------------------ search */
struct run { uint32_t g, bit, len; };

static uint32_t run_at(const struct x4_group *grp, uint32_t bit, uint32_t max)
{
	uint32_t end = FDIO_MIN(grp->nbits, bit + max);

	return x4_bit(grp->alloc, bit) ? 0 : x4_bits_next(grp->alloc, end, bit, true) - bit;
}

/* First run of at least want from bit on, else false; *best grows. */
static bool scan(const struct x4_group *grp, uint32_t g, uint32_t bit, uint32_t want, struct run *best, uint32_t *longest)
{
	while (bit < grp->nbits) {
		uint32_t s = x4_bits_next(grp->alloc, grp->nbits, bit, false), e;

		if (s >= grp->nbits)
			break;
		e = x4_bits_next(grp->alloc, grp->nbits, s, true);
		*longest = FDIO_MAX(*longest, e - s);
		if (e - s > best->len)
			*best = (struct run){ g, s, e - s };
		if (e - s >= want) {
			*best = (struct run){ g, s, e - s };
			return true;
		}
		bit = e;
	}
	return false;
}

static bool scan_group(struct x4_group *grp, uint32_t g, uint32_t from, uint32_t want, struct run *best)
{
	uint32_t longest = 0;

	if (from >= grp->nbits)
		from = 0;
	if (scan(grp, g, from, want, best, &longest))
		return true;
	if (from > grp->first_free && scan(grp, g, grp->first_free, want, best, &longest))
		return true;
	grp->max_run = longest;
	return false;
}

/*
 * alloc_lock held: no group of g's region has a run of want clear bits. *looked grows by the
 * groups and regions that were looked at for that.
 */
static bool region_full(struct x4_vol *v, uint32_t g, uint32_t want, uint32_t *looked)
{
	struct x4_region *r = x4_region_of(v, g);
	uint32_t longest = 0;

	++*looked;
	if (r->longest < want)
		return true;
	for (uint32_t k = x4_region_first(g); k < x4_region_end(v, g); k++) {
		uint32_t most = FDIO_MIN(v->alloc.groups[k].free_alloc, v->alloc.groups[k].max_run);

		longest = FDIO_MAX(longest, most);
	}
	*looked += X4_REGION_GROUPS;
	fdio_count(CTR_x4_region_scan);
	r->longest = longest;
	return longest < want;
}

/*
 * Goes through the groups from g0 on, all once; *k counts them. Full regions are passed over.
 * False: the end.
 */
static bool next_group(struct x4_vol *v, uint32_t g0, uint32_t want, uint32_t *k, uint32_t *looked)
{
	while (*k < v->nr_groups) {
		uint32_t g = (uint32_t)(((uint64_t)g0 + *k) % v->nr_groups);

		if ((*k && g != x4_region_first(g)) || !region_full(v, g, want, looked))
			return true;
		*k += x4_region_end(v, g) - g;
	}
	return false;
}

/* Any run of at least want, near group g0; otherwise the longest seen. alloc_lock held (dropped while loading). */
static bool search(struct x4_vol *v, uint32_t g0, uint32_t bit0, uint32_t want, bool stream, struct run *best)
{
	uint32_t looked = 0;
	unsigned scanned = 0;

	for (uint32_t k = 0; next_group(v, g0, want, &k, &looked); k++) {
		uint32_t g = (uint32_t)(((uint64_t)g0 + k) % v->nr_groups);
		struct x4_group *grp = &v->alloc.groups[g];

		if (nowait_on() && looked >= X4_NOWAIT_GROUPS) {
			nowait_miss();
			return false;
		}
		if (grp->free_alloc < want || grp->max_run < want)
			continue;
		if (scanned++ >= SEARCH_GROUPS && best->len)
			return false;
		if (x4_group_load(v, g))
			continue;
		if (scan_group(grp, g, stream ? FDIO_MAX(grp->cursor, k ? 0 : bit0) : grp->first_free, want, best))
			return true;
	}
	return false;
}

/*
 * The longest run of the first group that has anything: nothing better was found, or it has gone meanwhile. Full is only what
 * could be looked at: a bitmap that could not be read now is the error. Damaged groups are out of use.
 */
static int search_any(struct x4_vol *v, uint32_t g0, struct run *best)
{
	uint32_t looked = 0;
	int err = -ENOSPC;

	for (uint32_t k = 0; next_group(v, g0, 1, &k, &looked); k++) {
		uint32_t g = (uint32_t)(((uint64_t)g0 + k) % v->nr_groups);
		struct x4_group *grp = &v->alloc.groups[g];
		int r;

		*best = (struct run){ 0, 0, 0 };
		if (!grp->free_alloc)
			continue;
		r = x4_group_load(v, g);
		if (r) {
			if (err == -ENOSPC && r != -EUCLEAN)
				err = r;
			continue;
		}
		scan_group(grp, g, grp->first_free, UINT32_MAX, best);
		if (best->len)
			return 0;
	}
	return err;
}

/* Where to look for blocks of i without a goal: its inode's group. */
static uint64_t default_goal(struct x4_vol *v, const struct x4_inode *i)
{
	uint32_t g = i ? (i->ino - 1) / v->inodes_per_group : 0;

	return x4_group_start(v, g < v->nr_groups ? g : 0);
}

/* alloc_lock held. Finds and takes 1..n contiguous blocks. */
static int take_run(struct x4_vol *v, const struct x4_inode *i, uint64_t goal, uint32_t n, struct run *ret)
{
	bool exact = goal >= v->first_data_block && goal < v->nr_blocks, stream = exact || n > SMALL_RUN;
	uint64_t near = exact ? goal : default_goal(v, i);
	uint32_t g0 = x4_group_of(v, near), bit0 = x4_group_bit(v, near), want;
	struct run best = { 0, 0, 0 };
	int err;

	n = FDIO_MIN(n, v->blocks_per_group / 2);
	if (exact && !x4_group_load(v, g0)) {
		best = (struct run){ g0, bit0, run_at(&v->alloc.groups[g0], bit0, n) };
		if (best.len)
			goto take;
	}
	want = stream && n < 512 ? FDIO_MAX(8 * n, 64U) : n;
	want = FDIO_MIN(want, v->blocks_per_group / 2);
	if (search(v, g0, bit0, want, stream, &best)) {
		if (stream)
			v->alloc.groups[best.g].cursor = best.bit + FDIO_MAX(n, stream_step(v));
		goto take;
	}
	/* The best may have been taken while a bitmap was read, and its image given up. */
	if (best.len < n)
		search(v, g0, bit0, n, false, &best);
	if (best.len && x4_group_load(v, best.g))
		best.len = 0;
	if (best.len)
		best.len = run_at(&v->alloc.groups[best.g], best.bit, best.len);
	if (!best.len) {
		err = search_any(v, g0, &best);
		if (err)
			return err;
	}
take:
	best.len = FDIO_MIN(best.len, n);
	x4_image_take(v, best.g, best.bit, best.len);
	*ret = best;
	return 0;
}

/*
 * As take_run. A block of metadata that has been read and checked is in use, whatever the bitmap
 * says: it may be a node on the very path that this allocation is for. Then nothing of that group
 * is believed any more, and another one is asked. alloc_lock is dropped meanwhile.
 */
static int take_unused(struct x4_vol *v, struct x4_inode *i, uint64_t goal, uint32_t n,
		       struct run *ret)
{
	bool refused = false;

	for (;;) {
		int err = take_run(v, i, goal, n, ret);
		uint64_t blk;

		if (err)
			return err == -ENOSPC && refused ? -EUCLEAN : err;
		blk = x4_group_start(v, ret->g) + ret->bit;
		fdio_mutex_unlock(&v->alloc.lock);
		if (jnl_verified(v->jnl, blk, ret->len))
			err = X4_CORRUPT(v, i ? i->ino : 0, blk,
					 "group %u: blocks in use are marked free", ret->g);
		fdio_mutex_lock(&v->alloc.lock);
		if (!err)
			return 0;
		refused = true;
		if (err != -EUCLEAN) { /* for a worker */
			x4_image_give(v, ret->g, ret->bit, ret->len);
			return err;
		}
		x4_group_distrust(v, ret->g);
	}
}

/* ------------------------------------------------------------------ reservations */
int x4_balloc_reserve(struct x4_vol *v, struct x4_inode *i, uint64_t goal, uint32_t n, bool root, uint64_t *ret_blk, uint32_t *ret_n)
{
	struct run r;
	uint64_t avail;
	int err;

	FDIO_ASSERT(n > 0);
	fdio_mutex_lock(&v->alloc.lock);
	for (;;) {
		avail = available(v, x4_asks(root));
		if (!goal && i)
			goal = i->alloc.next;
		err = !avail ? -ENOSPC :
			take_unused(v, i, goal, (uint32_t)FDIO_MIN((uint64_t)n, avail), &r);
		if (err != -ENOSPC || !wait_for_frees(v))
			break;
	}
	if (!err) {
		*ret_blk = x4_group_start(v, r.g) + r.bit;
		*ret_n = r.len;
		if (i)
			i->alloc.next = *ret_blk + r.len;
	}
	fdio_mutex_unlock(&v->alloc.lock);
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

void x4_balloc_unreserve(struct x4_vol *v, uint64_t blk, uint32_t n)
{
	fdio_mutex_lock(&v->alloc.lock);
	for_each_part(v, blk, n, g, bit, len)
		x4_image_give(v, g, bit, len);
	pthread_cond_broadcast(&v->alloc.cond);
	fdio_mutex_unlock(&v->alloc.lock);
}

uint64_t x4_balloc_available(struct x4_vol *v, bool root)
{
	uint64_t n;

	fdio_mutex_lock(&v->alloc.lock);
	n = available(v, x4_asks(root));
	fdio_mutex_unlock(&v->alloc.lock);
	return n;
}

void x4_balloc_next(struct x4_inode *i, uint64_t blk)
{
	fdio_mutex_lock(&i->vol->alloc.lock);
	i->alloc.next = blk;
	fdio_mutex_unlock(&i->vol->alloc.lock);
}

int x4_balloc_claim(struct jnl_handle *h, struct x4_inode *i, uint64_t blk, uint32_t n)
{
	struct x4_vol *v = i->vol;

	for_each_part(v, blk, n, g, bit, len) {
		int err = x4_gop_begin(h, v, g, X4_GOP_CLAIM, bit, len);

		if (!err)
			err = x4_group_disk_bits(h, v, g, bit, len, true);
		if (err)
			return err;
	}
	return 0;
}

int x4_meta_reserve(struct x4_vol *v, unsigned n, enum x4_asks who)
{
	int err = 0;

	fdio_mutex_lock(&v->alloc.lock);
	while (available(v, who) < n)
		if (!wait_for_frees(v)) {
			err = -ENOSPC;
			break;
		}
	if (!err)
		v->alloc.meta_held += n;
	fdio_mutex_unlock(&v->alloc.lock);
	return err;
}

void x4_meta_unreserve(struct x4_vol *v, unsigned n)
{
	fdio_mutex_lock(&v->alloc.lock);
	FDIO_ASSERT(v->alloc.meta_held >= n);
	v->alloc.meta_held -= n;
	fdio_mutex_unlock(&v->alloc.lock);
}

/* ------------------------------------------------------------------ inside handles */
int x4_balloc(struct jnl_handle *h, struct x4_inode *i, uint64_t goal, uint32_t n, uint64_t *ret_blk, uint32_t *ret_n)
{
	struct x4_vol *v = i->vol;
	struct run r;
	int err;

	FDIO_ASSERT(n > 0);
	fdio_mutex_lock(&v->alloc.lock);
	/* With a reservation outstanding this allocation is what it was made for. */
	if (!v->alloc.meta_held && !available(v, X4_ASKS_SYSTEM))
		err = -ENOSPC;
	else
		err = take_unused(v, i, goal, n, &r);
	fdio_mutex_unlock(&v->alloc.lock);
	if (err)
		return err;
	err = x4_gop_begin(h, v, r.g, X4_GOP_ALLOC, r.bit, r.len);
	if (err) {
		x4_balloc_unreserve(v, x4_group_start(v, r.g) + r.bit, r.len);
		return err;
	}
	/* From here on the undo record gives the blocks back. */
	err = x4_group_disk_bits(h, v, r.g, r.bit, r.len, true);
	if (err)
		return err;
	*ret_blk = x4_group_start(v, r.g) + r.bit;
	*ret_n = r.len;
	return 0;
}

static int free_part(struct jnl_handle *h, struct x4_inode *i, uint32_t g, uint32_t bit, uint32_t n)
{
	struct x4_vol *v = i->vol;
	int err = x4_gop_begin(h, v, g, X4_GOP_FREE, bit, n);

	return err ? err : x4_group_disk_bits(h, v, g, bit, n, false);
}

int x4_bfree(struct jnl_handle *h, struct x4_inode *i, uint64_t blk, uint32_t n, bool metadata)
{
	struct x4_vol *v = i->vol;
	int err;

	if (!x4_blk_valid(v, blk, n))
		return X4_CORRUPT(v, i->ino, blk, "it owns %u blocks that are not data", n);
	if (metadata) {
		err = jnl_forget(h, blk, n);
		if (err)
			return err;
	}
	for_each_part(v, blk, n, g, bit, len) {
		err = free_part(h, i, g, bit, len);
		if (err)
			return err;
	}
	return 0;
}
