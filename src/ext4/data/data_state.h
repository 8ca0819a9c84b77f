/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Data's parts of a volume and of an inode.
 */
#ifndef FDIO_EXT4_DATA_STATE_H
#define FDIO_EXT4_DATA_STATE_H

#include "base/list.h"
#include "ext4/core/core.h"

struct ext4_map;      /* map.c: immutable snapshot, published by pointer, retired through epochs */
struct ext4_map_note; /* extent.c */

struct ext4_data_state {
	/* inodes with an append window; under the lock of the inode cache */
	struct list windows;
	uint64_t win_blocks;        /* atomic: what append windows hold ahead of the tree */
	bool (*reclaim)(void *arg); /* closes append windows */
	void *reclaim_arg;

	/* map_evict.c */
	size_t map_budget;          /* bytes that extent maps may take */
	uint32_t map_newest;        /* atomic: the inode whose map was loaded last */
	uint64_t map_rest_ns;       /* atomic: all are in use, nobody looks again before */
	/* wakes whoever calls ext4_maps_shrink; atomic, NULL: nobody does */
	void (*crowded)(struct ext4_vol *v);
};

struct ext4_data_inode {
	struct ext4_map *map;         /* atomic; NULL: not in memory */
	bool map_used;              /* atomic: looked at since map_evict.c came by */
	/* what the open handle has mapped and readers must not see yet; map_lock */
	struct ext4_map_note *map_note;
	/* no data lies behind the size: it was looked for; guarded by rw */
	bool trimmed;
	/* a truncate failed on the way: old blocks lie behind the size; guarded by rw */
	bool untrimmed;

	/* The append window (append_window.c); win_end 0: none. */
	uint64_t win_end;           /* atomic: byte where it ends */
	/* what of it is not in the tree; map_lock (win_lblk is read without it) */
	uint32_t win_lblk, win_len;
	uint64_t win_pblk;
	unsigned win_meta;          /* set aside for the nodes that settling may need */
	/* atomic: why appended data was given up, until an fsync has told it; 0: it was not */
	int win_lost;
	struct list win_link;       /* on the volume's windows */
};

#endif
