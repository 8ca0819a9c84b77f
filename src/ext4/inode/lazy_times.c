/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing back the times that were noted without a handle (times.c): for all inodes, on the ticker,
 * a worker or the thread that closes the volume; and for the one inode of an fsync, on a worker or
 * a loop thread in the mode of base/nowait.h, which misses where it would wait.
 *
 * Inodes are taken from the lock-free stack lazy_head and held by references; vol->inode.lock
 * guards what is read of them there. An inode whose times could not be written is put on the stack
 * again, for the next round.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/disk_inode.h"

#include "base/nowait.h"

#define TIME_BATCH 32U

/*
 * Takes up to TIME_BATCH inodes from the chain *rest, each with one more reference, and frees
 * zombies (cache.c). As soon as lazy_queued is cleared, another thread may put the inode on the
 * stack again and overwrite lazy_next: so lazy_next is read before, and the inodes are returned in
 * an array.
 */
static unsigned take_batch(struct ext4_vol *vol, struct ext4_inode **rest,
			   struct ext4_inode *batch[TIME_BATCH])
{
	unsigned n = 0;

	while (*rest && n < TIME_BATCH) {
		struct ext4_inode *inode = *rest;
		bool zombie, mine;

		*rest = inode->inode.lazy_next;
		fdio_mutex_lock(&vol->inode.lock);
		zombie = inode->inode.zombie;
		/* An inode that is being deleted needs no times; its deleter frees it. */
		mine = !zombie && !inode->inode.evicting && !inode->inode.bad;
		if (mine)
			ext4_inode_use_locked(inode);
		__atomic_store_n(&inode->inode.lazy_queued, 0, __ATOMIC_SEQ_CST);
		fdio_mutex_unlock(&vol->inode.lock);
		if (zombie)
			ext4_inode_free(inode);
		else if (mine)
			batch[n++] = inode;
	}
	return n;
}

/* Writes the times of n inodes in one handle. The times of an inode without a name are moot. */
static int write_batch(struct ext4_vol *vol, struct ext4_inode **batch, unsigned n)
{
	struct journal_handle *handle;
	int err = journal_begin(vol->journal, n * EXT4_CREDITS_INODE, &handle);

	if (err)
		return err;
	for (unsigned k = 0; k < n && !err; k++) {
		if (!ext4_has_lazy(batch[k]) ||
		    !__atomic_load_n(&batch[k]->nlink, __ATOMIC_RELAXED))
			continue;
		err = ext4_inode_begin(handle, batch[k]);
		if (!err)
			err = ext4_inode_dirty(handle, batch[k], false);
	}
	return ext4_handle_end(handle, err);
}

int ext4_vol_write_times(struct ext4_vol *vol)
{
	struct ext4_inode *rest, *batch[TIME_BATCH];
	int err = 0;

	if (ext4_vol_read_only(vol))
		return 0;
	rest = __atomic_exchange_n(&vol->inode.lazy_head, NULL, __ATOMIC_ACQUIRE);
	while (rest) {
		unsigned n = take_batch(vol, &rest, batch);
		int e = n ? write_batch(vol, batch, n) : 0;

		err = err ? err : e;
		for (unsigned k = 0; k < n; k++) {
			if (e && ext4_has_lazy(batch[k]))
				ext4_queue_lazy(batch[k]);
			ext4_inode_put(batch[k]);
		}
	}
	return err;
}

bool ext4_sync_tid(struct ext4_inode *inode, bool datasync, journal_tid *ret)
{
	struct journal_handle *handle;

	if (!datasync && ext4_times_pending(inode) &&
	    !ext4_inode_change_begin(inode, EXT4_CREDITS_INODE, &handle))
		nowait_ignore(ext4_inode_change_end(handle, inode, 0, false));
	return ext4_sync_tid_noted(inode, datasync, ret);
}
