/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plain access to the inode room's state, for the rooms above, which do not touch it themselves. Any thread,
 * never blocks.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode.h"

void x4_icache_set_evict(struct x4_vol *v, int (*fn)(struct x4_inode *i)) { v->inode.evict = fn; }

void x4_icache_set_forget_map(struct x4_vol *v, void (*fn)(struct x4_inode *i)) { v->inode.forget_map = fn; }

void x4_icache_set_forget_names(struct x4_vol *v, void (*fn)(struct x4_inode *i)) { v->inode.forget_names = fn; }

void x4_icache_lock(struct x4_vol *v) { fdio_mutex_lock(&v->inode.lock); }

void x4_icache_unlock(struct x4_vol *v) { fdio_mutex_unlock(&v->inode.lock); }

void x4_iref_locked(struct x4_inode *i) { i->inode.refs++; }

bool x4_inode_is_bad(const struct x4_inode *i) { return i->inode.bad; }

void x4_inode_set_bad(struct x4_inode *i) { i->inode.bad = true; }

uint32_t x4_inode_nr_open(const struct x4_inode *i) { return __atomic_load_n(&i->inode.nr_open, __ATOMIC_RELAXED); }

uint64_t x4_inode_left_ns(const struct x4_inode *i) { return __atomic_load_n(&i->inode.left_ns, __ATOMIC_RELAXED); }

uint64_t x4_lookups(const struct x4_inode *i) { return __atomic_load_n(&i->inode.lookups, __ATOMIC_RELAXED); }

void x4_inode_map_edited(struct x4_inode *i) { __atomic_fetch_add(&i->inode.map_edits, 1, __ATOMIC_RELAXED); }

uint64_t x4_evictions(const struct x4_vol *v) { return __atomic_load_n(&v->inode.nr_evicted, __ATOMIC_SEQ_CST); }

bool x4_evictions_running(const struct x4_vol *v) { return __atomic_load_n(&v->inode.nr_evicting, __ATOMIC_SEQ_CST) > 0; }
