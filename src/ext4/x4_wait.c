/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Waiting for deletions that are on their way, for those who found no space, after append windows have given back what they hold.
 * Called on workers, with no lock held: a deletion
 * takes the inode's lock and runs in handles. Deletions run on workers as well; if all of them wait here nothing is deleted
 * meanwhile, so the wait for what has not begun has an end, and then there is no space.
 */
#include "ext4/x4_types.h"

#include "base/nowait.h"

#include <time.h>

/* In *since: append windows were asked for already. Who has no inode finds no space either, and windows are opened again and again. */
#define RECLAIMED (1ull << 63)

/* How long a RELEASE may take to come, and a FORGET on a busy machine. */
enum { RELEASE_MS = 50, FORGET_MS = 2000 };

void x4_opened(struct x4_inode *i, int n) { __atomic_add_fetch(&i->nr_open, (uint32_t)n, __ATOMIC_RELAXED); }

uint64_t x4_evictions(const struct x4_vol *v) { return __atomic_load_n(&v->nr_evicted, __ATOMIC_SEQ_CST); }

/* A directory that was removed can be somebody's working directory for days. */
static bool recently(const struct x4_vol *v)
{
	return fdio_now_ns() - __atomic_load_n(&v->orphaned_ns, __ATOMIC_SEQ_CST) < FORGET_MS * 1000000ull;
}

static bool windows_closed(struct x4_vol *v, uint64_t *since)
{
	if (*since & RECLAIMED)
		return false;
	*since |= RECLAIMED;
	return v->reclaim && v->reclaim(v->reclaim_arg);
}

bool x4_eviction_since(struct x4_vol *v, uint64_t *since)
{
	struct timespec nap = { .tv_nsec = 1000000 };
	unsigned ms = 0, most = RELEASE_MS;

	if (nowait_on()) {
		nowait_miss();
		return false;
	}
	if (windows_closed(v, since))
		return true;
	for (;;) {
		x4_vol_reap(v); /* those that have begun must not wait for who waits here */
		bool any = __atomic_load_n(&v->nr_orphans, __ATOMIC_SEQ_CST) > 0;
		bool begun = __atomic_load_n(&v->nr_evicting, __ATOMIC_SEQ_CST) > 0;
		uint64_t now = x4_evictions(v);

		if (now != (*since & ~RECLAIMED)) {
			*since = now | RECLAIMED;
			return true;
		}
		if (any && !begun && ms == 0 && recently(v) && x4_icache_dying(v))
			most = FORGET_MS;
		if (!begun && (!any || ms++ >= most)) /* what is left are files that are in use, maybe for long */
			return false;
		nanosleep(&nap, NULL);
	}
}
