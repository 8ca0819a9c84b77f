/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plain access to the state of an inode, for the rooms above, which do not touch it themselves:
 * numbers, mode, size, flags, open files and lookups; its lock; the callbacks that the rooms above
 * set. Any thread; cannot fail. Only the lock of the inode may wait for the device, because it is
 * held across I/O; a loop thread in the mode of base/nowait.h misses then.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"

uint32_t ext4_inode_ino(const struct ext4_inode *inode) { return inode->ino; }
uint32_t ext4_inode_gen(const struct ext4_inode *inode) { return inode->gen; }
uint32_t ext4_inode_mode(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->mode, __ATOMIC_RELAXED);
}
uint64_t ext4_inode_size(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->size, __ATOMIC_ACQUIRE);
}
struct ext4_vol *ext4_inode_vol(struct ext4_inode *inode) { return inode->vol; }

bool ext4_inode_inline(const struct ext4_inode *inode)
{
	return inode->raw->i_flags & EXT4_INLINE_DATA_FL;
}

uint32_t ext4_inode_live_flags(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->live_flags, __ATOMIC_RELAXED);
}

uint32_t ext4_inode_flags(struct ext4_inode *inode)
{
	uint32_t flags;

	fdio_mutex_lock(&inode->attr);
	flags = inode->raw->i_flags;
	fdio_mutex_unlock(&inode->attr);
	return flags;
}

void *ext4_inode_upper(struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->inode.upper, __ATOMIC_ACQUIRE);
}

void *ext4_inode_set_upper(struct ext4_inode *inode, void *p, void (*dtor)(void *))
{
	void *winner;

	fdio_mutex_lock(&inode->attr);
	winner = __atomic_load_n(&inode->inode.upper, __ATOMIC_RELAXED);
	if (!winner) {
		inode->inode.upper_dtor = dtor;
		__atomic_store_n(&inode->inode.upper, p, __ATOMIC_RELEASE);
		winner = p;
	}
	fdio_mutex_unlock(&inode->attr);
	return winner;
}

void ext4_inode_lock_shared(struct ext4_inode *inode) { fdio_rwlock_rdlock(&inode->rw); }
void ext4_inode_lock_exclusive(struct ext4_inode *inode) { fdio_rwlock_wrlock(&inode->rw); }
int ext4_inode_enter_shared(struct ext4_inode *inode) { return fdio_rwlock_rdenter(&inode->rw); }
int ext4_inode_enter_exclusive(struct ext4_inode *inode) { return fdio_rwlock_wrenter(&inode->rw); }
void ext4_inode_unlock(struct ext4_inode *inode) { fdio_rwlock_unlock(&inode->rw); }

void ext4_lookups_add(struct ext4_inode *inode, uint64_t n)
{
	__atomic_add_fetch(&inode->inode.lookups, n, __ATOMIC_RELAXED);
}

uint64_t ext4_lookups_sub(struct ext4_inode *inode, uint64_t n)
{
	uint64_t have = __atomic_load_n(&inode->inode.lookups, __ATOMIC_RELAXED);

	while (!__atomic_compare_exchange_n(&inode->inode.lookups, &have, have - FDIO_MIN(have, n),
					    true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	return FDIO_MIN(have, n);
}

uint64_t ext4_lookups(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->inode.lookups, __ATOMIC_RELAXED);
}

void ext4_open_count_add(struct ext4_inode *inode, int n)
{
	if (n < 0)
		__atomic_store_n(&inode->inode.left_ns, fdio_now_ns(), __ATOMIC_RELAXED);
	__atomic_add_fetch(&inode->inode.nr_open, (uint32_t)n, __ATOMIC_RELAXED);
}

uint32_t ext4_inode_nr_open(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->inode.nr_open, __ATOMIC_RELAXED);
}

uint64_t ext4_inode_left_ns(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->inode.left_ns, __ATOMIC_RELAXED);
}

/* ------------------------------------------------------------------ inside ext4 */
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

void ext4_inode_ref_locked(struct ext4_inode *inode) { inode->inode.refs++; }

bool ext4_inode_is_bad(const struct ext4_inode *inode) { return inode->inode.bad; }

void ext4_inode_set_bad(struct ext4_inode *inode) { inode->inode.bad = true; }

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
