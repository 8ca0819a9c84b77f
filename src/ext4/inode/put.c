/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dropping references to inodes. When the last reference goes, an inode with a name is put on the
 * LRU list; one without a name is deleted, by the function that the room life has registered
 * (evict).
 *
 * Any thread. A worker deletes at once and may block. A loop thread in the mode of base/nowait.h
 * deletes an inode that is small and in memory; others it puts on the list `reap`, which
 * ext4_vol_reap works off on a worker. vol->inode.lock guards the cache and that list; no lock is
 * held while an inode is deleted or freed. If deleting fails, the inode stays on the orphan list on
 * disk, and the next mount deletes it.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/disk_inode.h"

#include "base/counters.h"
#include "base/nowait.h"

#include <errno.h>

/* A loop thread deletes at most NOWAIT_EVICTIONS inodes in NOWAIT_EVICT_NS nanoseconds. */
#define NOWAIT_EVICTIONS 8u
#define NOWAIT_EVICT_NS 200000u

bool ext4_inode_nameless(const struct ext4_inode *inode)
{
	return !inode->inode.bad && !inode->inode.loading &&
	       __atomic_load_n(&inode->nlink, __ATOMIC_RELAXED) == 0;
}

/* Before inode is freed: keeps the transaction that its fsync would wait for (get.c). */
static void keep_sync_tid(const struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;

	if (!inode->inode.has_sync_tid ||
	    (vol->inode.has_gone_tid &&
	     journal_tid_geq(vol->inode.gone_tid, inode->inode.sync_tid)))
		return;
	vol->inode.gone_tid = inode->inode.sync_tid;
	vol->inode.has_gone_tid = true;
}

/*
 * Moves the oldest unreferenced inodes beyond lru_max to the list dead, for free_list. The caller
 * holds vol->inode.lock.
 */
static void shrink(struct ext4_vol *vol, struct list *dead)
{
	unsigned look = vol->inode.lru_len;

	while (vol->inode.lru_len > vol->inode.lru_max && look-- > 0) {
		struct ext4_inode *inode;

		inode = list_first(&vol->inode.lru, struct ext4_inode, inode.lru);
		/* Skips an inode whose times are not written yet, or that is on the orphan list. */
		if (__atomic_load_n(&inode->inode.lazy_queued, __ATOMIC_SEQ_CST) ||
		    __atomic_load_n(&inode->inode.on_orphans, __ATOMIC_RELAXED)) {
			list_move_tail(&vol->inode.lru, &inode->inode.lru);
			continue;
		}
		list_del(&inode->inode.lru);
		vol->inode.lru_len--;
		keep_sync_tid(inode);
		ext4_inode_unhash_locked(inode);
		list_add_tail(dead, &inode->inode.lru);
	}
}

static void free_list(struct list *dead)
{
	while (!list_empty(dead)) {
		struct ext4_inode *inode = list_first(dead, struct ext4_inode, inode.lru);

		list_del(&inode->inode.lru);
		ext4_inode_free(inode);
	}
}

/*
 * Takes inode out of the hash. True: the caller frees it. False: it is still on the stack of noted
 * times, and a zombie from now on. The caller holds vol->inode.lock.
 */
static bool may_free(struct ext4_inode *inode)
{
	ext4_inode_unhash_locked(inode);
	inode->inode.zombie = __atomic_load_n(&inode->inode.lazy_queued, __ATOMIC_SEQ_CST) != 0;
	return !inode->inode.zombie;
}

/* ------------------------------------------------------------------ deleting */
/* Frees the struct of an inode whose deletion has ended, unless it becomes a zombie. */
static void free_evicted(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	bool mine;

	fdio_mutex_lock(&vol->inode.lock);
	mine = may_free(inode);
	fdio_mutex_unlock(&vol->inode.lock);
	if (mine)
		ext4_inode_free(inode);
}

static void evict_over(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;

	__atomic_add_fetch(&vol->inode.nr_evicted, 1, __ATOMIC_SEQ_CST);
	__atomic_sub_fetch(&vol->inode.nr_evicting, 1, __ATOMIC_SEQ_CST);
	/* After a failure the inode is still on the orphan list, which needs the struct. */
	if (!__atomic_load_n(&inode->inode.on_orphans, __ATOMIC_RELAXED))
		free_evicted(inode);
}

/* Calls ext4_evict of the room life. */
static int evict(struct ext4_inode *inode) { return inode->vol->inode.evict(inode); }

/* Deletes inode. An error is logged by ext4_evict; the next mount deletes the inode then. */
static void evict_now(struct ext4_inode *inode)
{
	nowait_ignore(evict(inode));
	evict_over(inode);
}

/*
 * Deletes inode on a loop thread, unless that would wait or this thread has deleted enough. True if
 * the deletion is over. A miss here is no miss of the caller's operation (NOWAIT-4): the state of
 * the mode is put back.
 */
static bool evict_tried(struct ext4_inode *inode)
{
	static __thread uint64_t since;
	static __thread unsigned nr;
	struct nowait saved = nowait_save();
	uint64_t now = fdio_now_ns();
	int err;

	if (now - since > NOWAIT_EVICT_NS) {
		since = now;
		nr = 0;
	}
	if (nr++ >= NOWAIT_EVICTIONS)
		return false;
	nowait_self.missed = false;
	err = evict(inode);
	err = nowait_err(err);
	nowait_restore(saved);
	if (err == -EAGAIN)
		return false;
	evict_over(inode);
	return true;
}

/* On a loop thread: deletes inode now if that is quick, else leaves it to a worker. */
static void evict_soon(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	bool wake;

	if (evict_tried(inode))
		return;
	fdio_count(COUNTER_ext4_reaped);
	fdio_mutex_lock(&vol->inode.lock);
	wake = list_empty(&vol->inode.reap);
	list_add_tail(&vol->inode.reap, &inode->inode.lru);
	__atomic_add_fetch(&vol->inode.nr_reap, 1, __ATOMIC_SEQ_CST);
	fdio_mutex_unlock(&vol->inode.lock);
	if (wake && vol->inode.reaper)
		vol->inode.reaper(vol->inode.reaper_arg);
}

void ext4_inode_put_many(struct ext4_inode *inode, uint64_t n)
{
	struct ext4_vol *vol = inode->vol;
	struct list dead;
	bool evict = false, drop = false;

	list_init(&dead);
	fdio_mutex_lock(&vol->inode.lock);
	FDIO_ASSERT(inode->inode.refs >= n);
	inode->inode.refs -= n;
	if (inode->inode.refs == 0) {
		if (inode->inode.bad) {
			drop = may_free(inode);
		} else if (ext4_inode_nameless(inode) && !ext4_vol_read_only(vol)) {
			evict = inode->inode.evicting = true;
			__atomic_add_fetch(&vol->inode.nr_evicting, 1, __ATOMIC_SEQ_CST);
		} else {
			list_add_tail(&vol->inode.lru, &inode->inode.lru);
			vol->inode.lru_len++;
			shrink(vol, &dead);
		}
	}
	fdio_mutex_unlock(&vol->inode.lock);
	free_list(&dead);
	if (drop)
		ext4_inode_free(inode);
	if (evict && !nowait_on())
		evict_now(inode);
	else if (evict)
		evict_soon(inode);
}

void ext4_vol_set_reaper(struct ext4_vol *vol, void (*fn)(void *arg), void *arg)
{
	vol->inode.reaper_arg = arg;
	vol->inode.reaper = fn;
}

void ext4_vol_reap(struct ext4_vol *vol)
{
	for (;;) {
		struct ext4_inode *inode = NULL;
		bool more;

		if (!__atomic_load_n(&vol->inode.nr_reap, __ATOMIC_SEQ_CST))
			return;
		fdio_mutex_lock(&vol->inode.lock);
		if (!list_empty(&vol->inode.reap)) {
			inode = list_first(&vol->inode.reap, struct ext4_inode, inode.lru);
			list_del(&inode->inode.lru);
			__atomic_sub_fetch(&vol->inode.nr_reap, 1, __ATOMIC_SEQ_CST);
		}
		more = !list_empty(&vol->inode.reap);
		fdio_mutex_unlock(&vol->inode.lock);
		/* Deleting this inode may take long: another worker takes the others. */
		if (more && vol->inode.reaper)
			vol->inode.reaper(vol->inode.reaper_arg);
		if (inode)
			evict_now(inode);
	}
}

/* ------------------------------------------------------------------ end of the volume */
/* An inode without a name that no thread is deleting, marked as evicting; NULL: none is left. */
static struct ext4_inode *next_nameless(struct ext4_vol *vol)
{
	struct ext4_inode *inode, *found = NULL;

	fdio_mutex_lock(&vol->inode.lock);
	for (size_t n = 0; n < (size_t)1 << vol->inode.hash_bits && !found; n++)
		list_for_each(inode, &vol->inode.hash[n], inode.hash)
			if (ext4_inode_nameless(inode) && !inode->inode.evicting) {
				inode->inode.evicting = true;
				found = inode;
				break;
			}
	fdio_mutex_unlock(&vol->inode.lock);
	return found;
}

void ext4_inode_cache_evict_unlinked(struct ext4_vol *vol)
{
	struct ext4_inode *inode;

	while (!ext4_vol_read_only(vol) && (inode = next_nameless(vol)) != NULL) {
		if (!list_empty(&inode->inode.lru)) {
			list_del(&inode->inode.lru);
			vol->inode.lru_len--;
		}
		nowait_ignore(evict(inode));
		if (!__atomic_load_n(&inode->inode.on_orphans, __ATOMIC_RELAXED))
			free_evicted(inode);
	}
}
