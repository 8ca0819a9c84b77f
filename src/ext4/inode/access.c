/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plain access to the inode room's state, for the rooms above, which do not touch it themselves.
 * Any thread, never blocks.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode.h"

void ext4_inode_cache_set_evict(struct ext4_vol *vol, int (*fn)(struct ext4_inode *inode))
{
	vol->inode.evict = fn;
}

void ext4_inode_cache_set_forget_map(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode))
{
	vol->inode.forget_map = fn;
}

void ext4_inode_cache_set_forget_names(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode))
{
	vol->inode.forget_names = fn;
}

void ext4_inode_cache_lock(struct ext4_vol *vol) { fdio_mutex_lock(&vol->inode.lock); }

void ext4_inode_cache_unlock(struct ext4_vol *vol) { fdio_mutex_unlock(&vol->inode.lock); }

void ext4_iref_locked(struct ext4_inode *inode) { inode->inode.refs++; }

bool ext4_inode_is_bad(const struct ext4_inode *inode) { return inode->inode.bad; }

void ext4_inode_set_bad(struct ext4_inode *inode) { inode->inode.bad = true; }

uint32_t ext4_inode_nr_open(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->inode.nr_open, __ATOMIC_RELAXED);
}

uint64_t ext4_inode_left_ns(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->inode.left_ns, __ATOMIC_RELAXED);
}

uint64_t ext4_lookups(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->inode.lookups, __ATOMIC_RELAXED);
}

void ext4_inode_map_edited(struct ext4_inode *inode)
{
	__atomic_fetch_add(&inode->inode.map_edits, 1, __ATOMIC_RELAXED);
}

uint64_t ext4_evictions(const struct ext4_vol *vol)
{
	return __atomic_load_n(&vol->inode.nr_evicted, __ATOMIC_SEQ_CST);
}

bool ext4_evictions_running(const struct ext4_vol *vol)
{
	return __atomic_load_n(&vol->inode.nr_evicting, __ATOMIC_SEQ_CST) > 0;
}
