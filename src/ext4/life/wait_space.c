/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Waiting for deletions that are on their way, for those who found no space, after append windows
 * have given back what they hold. Called on workers, with no lock held: a deletion takes the
 * inode's lock and runs in handles. Deletions run on workers as well; if all of them wait here
 * nothing is deleted meanwhile, so the wait for what has not begun has an end, and then there is no
 * space.
 *
 * A file that nobody has open can be a working directory, or held in another way, for days. So the
 * kernel is asked whether it has the inode (v->held): it queues the FORGET when it lets go of an
 * inode, before the unlink(2) or close(2) that did it returns, so whoever saw that call return
 * finds the inode gone, but for a RELEASE, which keeps it until it is answered. The question can
 * wait for the kernel to write back pages of such an inode, which takes workers: one asks at a
 * time.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/life/life.h"

#include "base/nowait.h"

#include <time.h>

/*
 * In *since: append windows were asked for already. Who has no inode finds no space either, and
 * windows are opened again and again.
 */
#define RECLAIMED (1ull << 63)

/*
 * How long a RELEASE may take to come to us, and its answer to the kernel, which keeps the inode
 * until then; and a FORGET that is on its way.
 */
enum { RELEASE_MS = 50, ANSWER_MS = 250, FORGET_MS = 2000 };
/* So many inodes are asked about, those that lost their names last. */
enum { ASK_MOST = 16 };

void ext4_vol_set_held(struct ext4_vol *vol, bool (*fn)(void *arg, uint32_t ino), void *arg)
{
	vol->life.held_arg = arg;
	vol->life.held = fn;
}

/*
 * What is on the list, which is read in a handle, as it is changed: whether a RELEASE may be on its
 * way or the kernel may not have seen its answer yet; and inodes that nobody has open.
 */
struct nameless { uint32_t ino[ASK_MOST]; unsigned n; bool leaving; };

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
	if (!open && ext4_lookups(inode) && ret->n < ASK_MOST)
		ret->ino[ret->n++] = inode->ino;
}

static void look(struct ext4_vol *vol, struct nameless *ret)
{
	struct journal_handle *handle;

	*ret = (struct nameless) { .n = 0 };
	if (journal_begin(vol->journal, 0, &handle))
		return;
	ext4_orphans_each(vol, look_at, ret);
	journal_end(handle);
}

/* The FORGET of one of them is on its way. */
static bool forget_comes(struct ext4_vol *vol, const struct nameless *nameless)
{
	bool comes = false;

	if (!vol->life.held || !nameless->n)
		return false;
	if (__atomic_exchange_n(&vol->life.asking, true, __ATOMIC_ACQUIRE))
		return true; /* look again when the other has its answer */
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
		ext4_vol_reap(vol); /* those that have begun must not wait for who waits here */
		bool any = ext4_orphans_count(vol) > 0;
		bool begun = ext4_evictions_running(vol);
		uint64_t now = ext4_evictions(vol);

		if (now != (*since & ~RECLAIMED)) {
			*since = now | RECLAIMED;
			return true;
		}
		/* What is left otherwise are files that are in use, maybe for long. */
		if (!begun && (!any || ms++ >= FORGET_MS || !deletion_comes(vol)))
			return false;
		nanosleep(&nap, NULL);
	}
}
