/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inode room's own parts of a volume and of an inode; types only. What other rooms read of an
 * inode (the disk inode, its locks, atomic copies) stands in struct ext4_inode itself.
 */
#ifndef FDIO_EXT4_INODE_STATE_H
#define FDIO_EXT4_INODE_STATE_H

#include "base/list.h"
#include "base/lock.h"
#include "ext4/core/core.h"

struct ext4_inode_state {
	/* The cache (cache.c): guarded by lock. */
	struct fdio_mutex lock;     /* RANK_EXT4_ICACHE */
	struct list *hash;          /* 2^hash_bits buckets, through inode.hash */
	unsigned hash_bits, nr_cached, lru_len, lru_max;
	struct list lru;            /* unreferenced inodes, oldest first, through inode.lru */
	struct list reap;           /* evicting, left to ext4_vol_reap; through inode.lru */
	unsigned nr_reap;           /* atomic: length of reap; changes under the lock */
	void (*reaper)(void *arg);  /* ext4_vol_set_reaper */
	void *reaper_arg;
	pthread_cond_t cond;        /* an inode was loaded, or has left the hash */
	uint32_t walk_hand;         /* bucket of hash where ext4_inode_cache_walk goes on */
	/* The newest transaction that changed an inode whose struct was freed since (get.c). */
	journal_tid gone_tid;
	bool has_gone_tid;
	uint32_t nr_evicting;       /* atomic: deletions under way */
	uint64_t nr_evicted;        /* atomic: deletions that have ended */

	/* What the rooms above do to an inode; each room sets its own while the volume opens. */
	int (*evict)(struct ext4_inode *inode);         /* life: deletes it */
	void (*forget_map)(struct ext4_inode *inode);   /* data: drops its extent map */
	void (*forget_names)(struct ext4_inode *inode); /* dir: what it remembers of a directory */

	/*
	 * orphan_list.c: the list on disk, and the same in memory in the same order; guarded by the
	 * journal handle.
	 */
	struct list orphans;        /* through inode.orphan */
	uint32_t orphan_rest;       /* inode with which the list on disk goes on; 0: none */
	uint32_t nr_orphans;        /* atomic: inodes on the list in memory */

	/*
	 * times.c: the inodes with noted times, a lock-free stack through lazy_next, which
	 * ext4_vol_write_times takes whole.
	 */
	struct ext4_inode *lazy_head;
};

struct ext4_inode_inode {
	/* The cache: guarded by its lock. The states are explained in cache.c. */
	struct list hash, lru;
	uint64_t refs;
	uint64_t lookups;           /* atomic: of refs, those that the kernel has to give back */
	bool loading, evicting, bad;
	bool zombie;                /* freed by the thread that takes it from lazy_head */
	uint32_t nr_open;           /* atomic: open files and directories (ext4_open_count_add) */
	/* Atomic: when it was closed, or lost its last name while it was open; 0: never. */
	uint64_t left_ns;

	struct list orphan;         /* on the list orphans, if on_orphans */
	bool on_orphans;            /* atomic */

	struct journal_handle *begun; /* atomic: the handle that has raw open (ext4_inode_begin) */
	uint32_t map_edits;         /* atomic: counts ext4_inode_map_edited */
	uint32_t killpriv_cache;    /* atomic: 0 unknown, 1 a write has nothing to take away */
	void *upper;                /* atomic: of a room above (ext4_inode_set_upper) */
	void (*upper_dtor)(void *);

	/* Atomic copies of the times in raw: for relatime without a lock. */
	int64_t atime_ns, mtime_ns, ctime_ns;
	/*
	 * Atomic: times noted without a handle, CLOCK_REALTIME in ns; 0: none. Stored only when the
	 * coarse clock has moved, so that overwriting threads do not fight for the cache line.
	 */
	uint64_t lazy_wtime_ns, lazy_atime_ns;
	uint32_t lazy_queued;       /* atomic: it is on lazy_head */
	struct ext4_inode *lazy_next;

	journal_tid sync_tid, datasync_tid; /* atomic: what fsync and fdatasync wait for */
	bool has_sync_tid, has_datasync_tid;
};

#endif
