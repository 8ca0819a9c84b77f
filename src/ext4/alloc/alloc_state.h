/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Alloc's parts of a volume and of an inode. lock guards all of the first but what never changes
 * after the mount (zones, static_blocks, overhead, root_blocks, resv_blocks, the bad groups) and
 * discard.
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
	/*
	 * Clear bits of all allocation images; set aside by ext4_metadata_reserve; freed but not
	 * durable. See blocks.c.
	 */
	uint64_t free_blocks, meta_held, pending_free;
	uint64_t nr_given_back;     /* of those that were freed: reusable, ever; only grows */
	uint64_t root_blocks, resv_blocks; /* only for root; only for metadata */
	journal_tid last_free_tid;
	uint32_t nr_dirs;
	/* of damaged descriptors: then the volume is only read; from mount on */
	uint32_t nr_bad_groups, first_bad_group;
	/* zones.c: ranges of blocks that no file may own; sorted, disjoint */
	struct ext4_zone *zones;
	unsigned nr_zones;
	uint64_t static_blocks;     /* superblocks, descriptors, bitmaps, inode tables */
	uint64_t overhead;          /* blocks that statfs hides: metadata and the log */
	struct ext4_discard *discard; /* discard.c's, NULL without the option */
};

struct ext4_alloc_inode {
	uint64_t next;              /* where the last allocation of this file ended */
};

#endif
