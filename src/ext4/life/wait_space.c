/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Waiting for space: an operation that has found none closes the append windows, which hold blocks,
 * then waits for deletions that are under way. On workers, with no lock held, because a deletion
 * takes the inode's lock and runs in handles. Deletions run on workers as well. If all workers wait
 * here, nothing is deleted meanwhile; so the wait for deletions that have not begun has a limit,
 * and then the operation fails.
 *
 * An inode without a name can live for days although nobody has it open, for example as a working
 * directory. So the kernel is asked whether it still has the inode (vol->life.held). It queues the
 * FORGET when it lets go of the inode, before the unlink(2) or close(2) that did so returns. So a
 * process that has seen the call return finds the inode gone, unless a RELEASE keeps it, until that
 * is answered. The question may wait until the kernel has written back pages of the inode, which
 * takes workers, so one thread asks at a time.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/life/life.h"

#include "base/nowait.h"

#include <time.h>

/*
 * A bit of *since: this operation has closed the windows. It does so once, because windows are
 * opened again and again, and no window can help an operation that lacks an inode number.
 */
#define RECLAIMED (1ull << 63)

/* How long these may take: a RELEASE to arrive, its answer to reach the kernel, a FORGET. */
enum { RELEASE_MS = 50, ANSWER_MS = 250, FORGET_MS = 2000 };
/* The kernel is asked about at most 16 inodes, those that lost their last name most recently. */
enum { ASK_MAX = 16 };

void ext4_vol_set_held(struct ext4_vol *vol, bool (*fn)(void *arg, uint32_t ino), void *arg)
{
	vol->life.held_arg = arg;
	vol->life.held = fn;
}

/*
 * A look at the orphan list: ino, n inodes that are not open but to which the kernel has
 * references; leaving: there is an inode whose RELEASE, or the answer to it, may be on its way.
 */
struct nameless { uint32_t ino[ASK_MAX]; unsigned n; bool leaving; };

/* True if the inode's RELEASE (if it is open), or the answer to it, may be on its way. */
static bool leaving(const struct ext4_inode *inode, bool open)
{
	uint64_t left = ext4_inode_left_ns(inode);

	return left && fdio_now_ns() - left < (open ? RELEASE_MS : ANSWER_MS) * 1000000ull;
}

static void look_at(struct ext4_inode *inode, void *arg)
{
	struct nameless *ret = arg;
	bool open = ext4_inode_nr_open(inode);

	if (__atomic_load_n(&inode->nlink, __ATOMIC_RELAXED))
		return;
	ret->leaving = ret->leaving || leaving(inode, open);
	if (!open && ext4_lookups(inode) && ret->n < ASK_MAX)
		ret->ino[ret->n++] = inode->ino;
}

/* In a handle, which guards the orphan list. */
static void look(struct ext4_vol *vol, struct nameless *ret)
{
	struct journal_handle *handle;

	*ret = (struct nameless) { .n = 0 };
	if (journal_begin(vol->journal, 0, &handle))
		return;
	ext4_orphans_each(vol, look_at, ret);
	journal_end(handle);
}

/* True if the FORGET of one of these inodes may be on its way. */
static bool forget_comes(struct ext4_vol *vol, const struct nameless *nameless)
{
	bool comes = false;

	if (!vol->life.held || !nameless->n)
		return false;
	if (__atomic_exchange_n(&vol->life.asking, true, __ATOMIC_ACQUIRE))
		return true; /* another thread asks: the caller looks again later */
	for (unsigned k = 0; k < nameless->n && !comes; k++)
		comes = !vol->life.held(vol->life.held_arg, nameless->ino[k]);
	__atomic_store_n(&vol->life.asking, false, __ATOMIC_RELEASE);
	return comes;
}

static bool deletion_comes(struct ext4_vol *vol)
{
	struct nameless nameless;

	look(vol, &nameless);
	return nameless.leaving || forget_comes(vol, &nameless);
}

/* The first call closes the windows: true if there were any. */
static bool windows_closed(struct ext4_vol *vol, uint64_t *since)
{
	if (*since & RECLAIMED)
		return false;
	*since |= RECLAIMED;
	return ext4_windows_reclaim(vol);
}

bool ext4_space_has_come(struct ext4_vol *vol, int err, uint64_t *since)
{
	struct timespec nap = { .tv_nsec = 1000000 };
	unsigned ms = 0;

	if (err != -ENOSPC)
		return false;
	if (nowait_on()) {
		nowait_miss();
		return false;
	}
	if (windows_closed(vol, since))
		return true;
	for (;;) {
		/* Deletions that loop threads have left to workers must not wait for this one. */
		ext4_vol_reap(vol);
		bool any = ext4_orphans_count(vol) > 0;
		bool begun = ext4_evictions_running(vol);
		uint64_t now = ext4_evictions(vol);

		if (now != (*since & ~RECLAIMED)) {
			*since = now | RECLAIMED;
			return true;
		}
		/* No deletion has begun or is about to: the orphans are in use, maybe for long. */
		if (!begun && (!any || ms++ >= FORGET_MS || !deletion_comes(vol)))
			return false;
		nanosleep(&nap, NULL);
	}
}
