/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inode room's own parts of a volume and of an inode. What other rooms read of an inode (the
 * disk inode, its locks, atomic copies) stands in struct ext4_inode itself.
 */
#ifndef FDIO_EXT4_INODE_STATE_H
#define FDIO_EXT4_INODE_STATE_H

#include "base/list.h"
#include "base/lock.h"
#include "ext4/core/core.h"

struct ext4_inode_state {
	/* The cache (cache.c): guarded by lock. */
	struct fdio_mutex lock;     /* RANK_EXT4_ICACHE */
	struct list *hash;
	unsigned hash_bits, nr_cached, lru_len, lru_max;
	struct list lru;            /* unreferenced inodes, oldest first */
	struct list reap;           /* evicting, left to ext4_vol_reap; through lru */
	unsigned nr_reap;           /* atomic: of these; grows and shrinks under the lock */
	void (*reaper)(void *arg);
	void *reaper_arg;
	pthread_cond_t cond;
	uint32_t walk_hand;         /* bucket of hash where ext4_inode_cache_walk goes on */
	/* newest transaction that changed an inode which has left memory since */
	journal_tid gone_tid;
	bool has_gone_tid;
	uint32_t nr_evicting;       /* atomic: deletions under way */
	uint64_t nr_evicted;        /* atomic: deletions that have ended */

	/* What the rooms above do to an inode; each room sets its own while the volume opens. */
	int (*evict)(struct ext4_inode *i);         /* deletes it (life) */
	/* its extent map, which may be wrong or goes with it (data) */
	void (*forget_map)(struct ext4_inode *i);
	void (*forget_names)(struct ext4_inode *i); /* what is remembered of a directory (dir) */

	/*
	 * orphan_list.c: the list on disk, and the same in memory in the same order; guarded by the
	 * journal handle.
	 */
	struct list orphans;
	uint32_t orphan_rest;       /* where the list on disk goes on behind what is in memory */
	uint32_t nr_orphans;        /* atomic: inodes on the list */

	/*
	 * times.c: inodes whose lazy_* differ from raw; lock-free stack, taken whole by
	 * ext4_vol_write_times
	 */
	struct ext4_inode *lazy_head;
};

struct ext4_inode_own {
	/* The cache: guarded by its lock. */
	struct list hash, lru;
	uint64_t refs;
	uint64_t lookups;           /* atomic; of refs, those the kernel has to give back */
	bool loading, evicting, bad;
	/* gone but for its place on lazy_head: whoever takes it from there frees it */
	bool zombie;
	uint32_t nr_open;           /* atomic: open files, as ext4_opened was told */
	/* atomic: when it was closed, or lost its last name while it was open; 0: never */
	uint64_t left_ns;
	struct list orphan;         /* on the list of orphans */
	bool on_orphans;            /* atomic: it is on that list */
	struct journal_handle *begun;   /* the handle that has raw open (ext4_inode_begin) */
	/* atomic; edits of the tree that the map was told of, and drops */
	uint32_t map_edits;
	uint32_t killpriv_cache;    /* atomic: 0 unknown, 1 nothing to kill, 2 something may be */
	void *upper;                /* atomic; rooms above */
	void (*upper_dtor)(void *);
	/* atomic copies of the times in raw: for relatime without a lock */
	int64_t atime_ns, mtime_ns, ctime_ns;

	/*
	 * Times changed without a handle: CLOCK_REALTIME in ns, 0 = none; atomic. Stored only when
	 * the coarse clock moved, so that overwriting threads do not fight for the line.
	 */
	uint64_t lazy_wtime_ns, lazy_atime_ns;
	uint32_t lazy_queued;       /* atomic: on lazy_head */
	struct ext4_inode *lazy_next;

	journal_tid sync_tid, datasync_tid; /* atomic: what fsync and fdatasync wait for */
	bool has_sync_tid, has_datasync_tid;
};

#endif
