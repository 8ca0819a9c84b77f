/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The block allocator: reservations of blocks for data, before any handle; claims, by which
 * reserved blocks become allocated in a handle; allocation in a handle, for metadata; frees.
 * search.c says where a run is placed.
 *
 * Workers, loop threads in the mode of base/nowait.h, the ticker, and the thread that opens or
 * closes the volume; giving back never waits and runs on any thread. alloc.lock guards the counts
 * and the images.
 *
 * Space: free_blocks counts clear bits of the images. Of these, metadata_held are set aside for
 * handles that begin soon, kept_for_metadata for metadata that must not fail, and kept_for_root for
 * root. If what remains is too small and freed blocks wait for their transaction, one commit is
 * forced before the caller gets -ENOSPC.
 */
#include "ext4/alloc/groups.h"

#include "base/nowait.h"

#include <errno.h>

/* alloc.lock held. How many blocks the requester who may take. */
static uint64_t available(const struct ext4_vol *vol, enum ext4_requester who)
{
	uint64_t keep = vol->alloc.metadata_held;

	/*
	 * Blocks set aside come out of those kept for metadata while these suffice, so that setting
	 * blocks aside does not cause -ENOSPC for other requesters.
	 */
	if (who != EXT4_REQUESTER_SYSTEM)
		keep = FDIO_MAX(keep, vol->alloc.kept_for_metadata);
	if (who == EXT4_REQUESTER_USER)
		keep += vol->alloc.kept_for_root;
	return vol->alloc.free_blocks > keep ? vol->alloc.free_blocks - keep : 0;
}

/*
 * alloc.lock held, dropped meanwhile. Makes freed blocks durable and waits until they are given
 * back. True if some were: the caller looks again, though another thread may have taken them by
 * now.
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
	ext4_discard_hurry(vol);
	(void)journal_commit_wait(vol->journal, tid, NULL);
	fdio_mutex_lock(&vol->alloc.lock);
	/*
	 * The callbacks that give blocks back may run a moment after journal_commit_wait returns.
	 * Other threads free and take blocks meanwhile, so pending_free alone proves nothing.
	 */
	for (int n = 0; n < 100 && vol->alloc.nr_given_back == before && vol->alloc.pending_free &&
			!journal_error(vol->journal); n++)
		fdio_cond_timedwait(&vol->alloc.cond, &vol->alloc.lock,
				    fdio_now_ns() + 20 * 1000000ULL);
	return vol->alloc.nr_given_back != before;
}

/* ------------------------------------------------------------------ reservations */
int ext4_blocks_reserve(struct ext4_vol *vol, struct ext4_inode *inode, uint64_t goal, uint32_t n,
			bool root, uint64_t *ret_blk, uint32_t *ret_n)
{
	struct ext4_run run;
	uint64_t avail;
	int err;

	FDIO_ASSERT(n > 0);
	fdio_mutex_lock(&vol->alloc.lock);
	for (;;) {
		avail = available(vol, ext4_requester(root));
		if (!goal && inode)
			goal = inode->alloc.next;
		if (avail)
			err = ext4_run_take(vol, inode, goal,
					    (uint32_t)FDIO_MIN((uint64_t)n, avail), &run);
		else
			err = -ENOSPC;
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

/*
 * Runs the statement that follows for the part of [blk, blk + n) in each group: len bits at bit.
 * Changes blk and n.
 */
#define for_each_part(v, blk, n, group, bit, len)                                              \
	for (uint32_t group = ext4_group_of((v), (blk)), bit = ext4_group_bit((v), (blk)),     \
		      len = FDIO_MIN((n), (v)->blocks_per_group - bit);                        \
	     (n) > 0;                                                                          \
	     (blk) += len, (n) -= len, group = ext4_group_of((v), (blk)),                      \
		      bit = ext4_group_bit((v), (blk)),                                        \
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
		vol->alloc.metadata_held += n;
	fdio_mutex_unlock(&vol->alloc.lock);
	return err;
}

void ext4_metadata_unreserve(struct ext4_vol *vol, unsigned n)
{
	fdio_mutex_lock(&vol->alloc.lock);
	FDIO_ASSERT(vol->alloc.metadata_held >= n);
	vol->alloc.metadata_held -= n;
	fdio_mutex_unlock(&vol->alloc.lock);
}

/* ------------------------------------------------------------------ inside handles */
int ext4_blocks_alloc(struct journal_handle *handle, struct ext4_inode *inode, uint64_t goal,
		      uint32_t n, uint64_t *ret_blk, uint32_t *ret_n)
{
	struct ext4_vol *vol = inode->vol;
	struct ext4_run run;
	int err;

	FDIO_ASSERT(n > 0);
	fdio_mutex_lock(&vol->alloc.lock);
	/* If any blocks are set aside, they are assumed to be for this allocation. */
	if (!vol->alloc.metadata_held && !available(vol, EXT4_REQUESTER_SYSTEM))
		err = -ENOSPC;
	else
		err = ext4_run_take(vol, inode, goal, n, &run);
	fdio_mutex_unlock(&vol->alloc.lock);
	if (err)
		return err;
	err = ext4_group_op_begin(handle, vol, run.group, EXT4_GROUP_OP_ALLOC, run.bit, run.len);
	if (err) {
		ext4_blocks_unreserve(vol, ext4_group_start(vol, run.group) + run.bit, run.len);
		return err;
	}
	/* From here on, cancelling the handle gives the blocks back. */
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
