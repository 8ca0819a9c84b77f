/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Alloc's parts of a volume and of an inode. alloc.lock guards them, but for what is constant once
 * the volume is open (zones, static_blocks, overhead, kept_for_root, kept_for_metadata, the bad
 * groups) and discard.
 */
#ifndef FDIO_EXT4_ALLOC_STATE_H
#define FDIO_EXT4_ALLOC_STATE_H

#include "base/list.h"
#include "base/lock.h"
#include "ext4/core/core.h"

struct ext4_alloc_state {
	struct fdio_mutex lock;     /* RANK_EXT4_ALLOC */
	struct ext4_group *groups;
	struct ext4_region *regions;  /* sums of neighbouring groups */
	uint32_t nr_regions;
	pthread_cond_t cond;        /* a group was loaded; freed blocks became reusable */
	struct list dirty_groups;   /* to be sealed */
	struct list images;         /* groups with an allocation image, oldest first */
	uint32_t nr_images, max_images;

	/* Space in blocks, see blocks.c. */
	uint64_t free_blocks;       /* clear bits of all allocation images */
	uint64_t metadata_held;     /* set aside by ext4_metadata_reserve */
	uint64_t pending_free;      /* freed, but not given back yet */
	uint64_t nr_given_back;     /* freed blocks that were given back since the volume opened */
	uint64_t kept_for_root;
	uint64_t kept_for_metadata;
	journal_tid last_free_tid;  /* transaction that last freed blocks */

	uint32_t nr_dirs;
	/* Groups with damaged descriptors. If there are any, the volume is only read. */
	uint32_t nr_bad_groups, first_bad_group;
	/* zones.c: ranges of blocks that no file may own; sorted, disjoint */
	struct ext4_zone *zones;
	unsigned nr_zones;
	uint64_t static_blocks;     /* blocks of superblocks, descriptors, bitmaps, inode tables */
	uint64_t overhead;          /* blocks that statfs hides: metadata and the log */
	struct ext4_discard *discard; /* discard.c; NULL without the option */
};

struct ext4_alloc_inode {
	uint64_t next;              /* block behind the last allocation of this file; 0: none */
};

#endif
