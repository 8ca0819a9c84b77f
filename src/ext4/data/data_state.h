/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The data room's parts of a volume and of an inode.
 */
#ifndef FDIO_EXT4_DATA_STATE_H
#define FDIO_EXT4_DATA_STATE_H

#include "base/list.h"
#include "ext4/core/core.h"

struct ext4_map;      /* map_layout.h */
struct ext4_map_note; /* map_note.c */

struct ext4_data_state {
	/* append_window.c: inodes with a window; guarded by the lock of the inode cache */
	struct list windows;
	uint64_t window_blocks;     /* atomic: blocks in windows that are not in a tree yet */
	bool (*reclaim)(void *arg); /* closes all windows; set while no other thread runs */
	void *reclaim_arg;

	/* map_evict.c */
	size_t map_budget;          /* bytes that extent maps may take; constant */
	uint32_t map_newest;        /* atomic: the inode whose map was loaded last */
	/*
	 * atomic: all maps were in use, so ext4_map_mem_check requests no eviction before this time
	 */
	uint64_t map_rest_ns;
	/* atomic: wakes the caller of ext4_maps_shrink; NULL: there is none */
	void (*crowded)(struct ext4_vol *vol);
};

/* An append window (append_window.c). end is 0 where there is no window. */
struct ext4_window {
	uint64_t end;               /* atomic: byte where the window ends */
	/* the part that is not in the tree; map_lock (lblk is atomic, and read without it) */
	uint32_t lblk, len;
	uint64_t pblk;
	unsigned meta;              /* tree blocks set aside for settling */
	/* atomic: why appended data was lost, until an fsync has reported it; 0: nothing lost */
	int lost;
	struct list link;           /* on the volume's windows */
};

struct ext4_data_inode {
	struct ext4_map *map;       /* atomic; NULL: not loaded */
	bool map_used;              /* atomic: a lookup came since map_evict.c cleared it */
	struct ext4_map_note *map_note; /* of the open handle; map_lock */
	/* ext4_truncate_finish has looked: no data lies behind the size; guarded by rw */
	bool beyond_checked;
	/* data lies behind the size: a truncate failed half-way; guarded by rw */
	bool beyond_stale;
	struct ext4_window window;
};

#endif
