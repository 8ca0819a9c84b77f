/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Evicting extent maps. The kernel remembers an inode as long as it likes, and the daemon keeps the
 * map of the inode as long. So all maps together have a budget, and when they take more, some are
 * evicted; a caller that needs one of these loads it again. The data path only knows that a map may
 * be missing (ext4_map_lookup says -EAGAIN), and sets map_used when it looks into one.
 *
 * A shrink goes through the inodes several times, until three quarters of the budget are left. It
 * takes maps of inodes without a reference first; then maps that no lookup has used since the last
 * shrink, those of closed files before those of open ones. If maps still take twice the budget, it
 * takes all others too, closed files first, except the map that was loaded last: so one file may
 * have a map of any size, and a caller that loads a map gets to use it.
 *
 * Runs on the ticker thread every second, and when a map was loaded over the budget; at unmount on
 * the main thread. Locks are taken with a try: rw, against readers and writers of a directory and
 * against work on a file, and map_lock, against edits of the tree. Where a try fails, the map is in
 * use and stays. Nothing here fails.
 */
#include "ext4/data/map.h"

#include "base/counters.h"

#ifdef __GLIBC__
#include <malloc.h>
#endif

#define BATCH 64u
/* After a shrink that found all maps in use, ext4_map_mem_check requests no other for this time. */
#define REST_NS 1000000000u

/* Evicts the map of an inode that is referenced, unless it is in use. */
static void drop_one(struct ext4_inode *inode)
{
	if (!fdio_rwlock_trywrlock(&inode->rw))
		return;
	if (fdio_mutex_trylock(&inode->map_lock)) {
		ext4_map_drop(inode);
		fdio_count(COUNTER_ext4_map_evicted);
		fdio_mutex_unlock(&inode->map_lock);
	}
	fdio_rwlock_unlock(&inode->rw);
}

/* Which maps one pass through the inodes takes. */
enum map_pick {
	PICK_UNREFERENCED, PICK_CLOSED_UNUSED, PICK_OPEN_UNUSED, PICK_CLOSED, PICK_OPEN
};

struct pass {
	enum map_pick pick;
	struct epoch_node *gone; /* maps taken from inodes without a reference */
};

/* True: no lookup has used the map since the last call. Clears map_used. */
static bool unused(struct ext4_inode *inode)
{
	return !__atomic_exchange_n(&inode->data.map_used, false, __ATOMIC_RELAXED);
}

/* Called under the lock of the inode cache. */
static bool wanted(struct ext4_inode *inode, bool referenced, void *arg)
{
	const struct pass *p = arg;
	bool open = ext4_inode_nr_open(inode);
	bool newest = inode->ino == __atomic_load_n(&inode->vol->data.map_newest, __ATOMIC_RELAXED);

	if (!__atomic_load_n(&inode->data.map, __ATOMIC_RELAXED))
		return false;
	switch (p->pick) {
	case PICK_UNREFERENCED: return !referenced;
	case PICK_CLOSED_UNUSED: return !open && unused(inode);
	case PICK_OPEN_UNUSED: return open && unused(inode);
	case PICK_CLOSED: return !open && !newest;
	case PICK_OPEN: return !newest;
	}
	return false;
}

static void detach(struct ext4_inode *inode, void *arg)
{
	struct pass *p = arg;
	struct epoch_node *map = ext4_map_detach(inode);

	map->next = p->gone;
	p->gone = map;
}

static void retire_all(struct epoch_node *map)
{
	struct epoch_node *next;

	for (; map; map = next) {
		next = map->next;
		ext4_map_retire(map);
		fdio_count(COUNTER_ext4_map_evicted);
	}
}

/* Goes once through the inodes at most; ends early when maps take down_to bytes or less. */
static void pass(struct ext4_vol *vol, enum map_pick pick, size_t down_to)
{
	uint32_t left = ext4_inode_cache_walk_length(vol);

	while (left && ext4_map_mem_used() > down_to) {
		struct pass p = { .pick = pick };
		const struct ext4_walk walk = { wanted, detach, &p };
		struct ext4_inode *found[BATCH];
		unsigned n = ext4_inode_cache_walk(vol, &walk, &left, found, BATCH);

		for (unsigned k = 0; k < n; k++) {
			drop_one(found[k]);
			ext4_inode_put(found[k]);
		}
		retire_all(p.gone);
		epoch_drain();
	}
}

bool ext4_maps_shrink(struct ext4_vol *vol)
{
	size_t budget = vol->data.map_budget, down_to = budget - budget / 4;

	if (likely(ext4_map_mem_used() <= budget))
		return true;
	pass(vol, PICK_UNREFERENCED, down_to);
	pass(vol, PICK_CLOSED_UNUSED, down_to);
	pass(vol, PICK_OPEN_UNUSED, down_to);
	if (ext4_map_mem_used() / 2 > budget) {
		pass(vol, PICK_CLOSED, down_to);
		pass(vol, PICK_OPEN, down_to);
	}
#ifdef __GLIBC__
	(void)malloc_trim(0); /* maps are many small pieces; this gives their pages back */
#endif
	if (ext4_map_mem_used() <= budget)
		return true;
	__atomic_store_n(&vol->data.map_rest_ns, fdio_now_ns() + REST_NS, __ATOMIC_RELAXED);
	return false;
}

void ext4_data_init(struct ext4_vol *vol)
{
	vol->data.map_budget = EXT4_MAP_BUDGET;
	list_init(&vol->data.windows);
	ext4_inode_cache_set_forget_map(vol, ext4_map_drop);
}
