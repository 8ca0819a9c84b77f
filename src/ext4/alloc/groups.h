/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Private to alloc: the body of struct ext4_group and the calls among its files. From the bottom
 * up, each calling those below it: groups.c (descriptors), group_images.c (allocation images),
 * discard.c (gives back what is discarded), group_changes.c (changes in handles), and the
 * allocators blocks.c, inodes.c, trim.c; group_seal.c is called by the journal.
 *
 * Two images of a group's block bitmap: the disk one is the cached journal block and changes only
 * inside handles; the allocation image is disk | reservations | freed-but-not-durable, lives in
 * memory only and is what the allocator searches. A clear bit in it is free for anyone, at once.
 *
 * Where nothing is reserved or pending (free_alloc == desc.free_blocks: every reserved or pending
 * block makes the first smaller) and no operation may have to take back or give back (pins), the
 * two are equal, and the allocation image can be given up: there are at most max_images that could
 * be.
 *
 * alloc.lock guards everything here. The fields that mirror the descriptor change only inside a
 * handle (which is one at a time), under alloc.lock too, so a handle may read them without it.
 */
#ifndef FDIO_EXT4_ALLOC_GROUPS_H
#define FDIO_EXT4_ALLOC_GROUPS_H

#include "base/nowait.h"
#include "ext4/alloc/alloc.h"
#include "ext4/core/bits.h"
#include "ext4/core/structs.h"

/* So many groups are looked at on a loop thread. */
#define EXT4_NOWAIT_GROUPS 4096u

/* What the descriptor says and handles change; put back as a whole when one is cancelled. */
struct ext4_descriptor {
	uint32_t free_blocks, free_inodes, used_dirs, itable_unused;
	uint16_t flags;
};

struct ext4_group {
	/* the allocation image; NULL: not loaded, then nothing is reserved in it */
	uint8_t *alloc;
	/*
	 * where the bitmaps and the inode table are: validated at mount; 0: nowhere
	 * (v->nr_bad_groups)
	 */
	uint64_t block_bitmap, inode_bitmap, itable;
	struct ext4_descriptor desc;
	uint32_t nbits;             /* blocks in this group: fewer in the last */
	uint32_t free_alloc;        /* clear bits of alloc; d.free_blocks while not loaded */
	uint32_t first_free;        /* no clear bit below */
	uint32_t cursor;            /* where the next growing file is placed */
	uint32_t max_run;           /* no longer run of clear bits; UINT32_MAX: unknown */
	/* bad: the bitmap cannot be trusted, nothing is allocated or freed here */
	bool loading, bad;
	bool ib_checked, ib_bad;
	bool bb_dirty, ib_dirty, dirty;
	/* atomic: operations that may still change alloc; up under alloc.lock */
	uint32_t pins;
	struct list dirty_node;     /* on v->dirty_groups */
	struct list image_node;     /* on v->images while alloc is there */
};

/*
 * So many neighbouring groups have sums, so that a search need not look at each of half a million
 * groups. alloc.lock, as the groups themselves. longest: no group here has a longer run of clear
 * bits; it goes down when somebody looks.
 */
#define EXT4_REGION_BITS 7
#define EXT4_REGION_GROUPS (1U << EXT4_REGION_BITS)
struct ext4_region {
	uint64_t free_inodes, free_blocks; /* as the descriptors say */
	uint32_t used_dirs, longest;
};

static inline struct ext4_region *ext4_region_of(const struct ext4_vol *vol, uint32_t group)
{
	return &vol->alloc.regions[group >> EXT4_REGION_BITS];
}
static inline uint32_t ext4_region_first(uint32_t group)
{
	return group & ~(EXT4_REGION_GROUPS - 1);
}
static inline uint32_t ext4_region_end(const struct ext4_vol *vol, uint32_t group)
{
	return FDIO_MIN(ext4_region_first(group) + EXT4_REGION_GROUPS, vol->nr_groups);
}

/* The descriptor as libext2fs keeps it in memory, in disk order. */
static inline struct ext4_group_desc *ext4_group_raw_desc(const struct ext4_vol *vol,
							  uint32_t group)
{
	return (struct ext4_group_desc *)(void *)ext2fs_group_desc(vol->fs, vol->fs->group_desc,
								   group);
}

static inline uint32_t ext4_group_of(const struct ext4_vol *vol, uint64_t blk)
{
	return (uint32_t)((blk - vol->first_data_block) / vol->blocks_per_group);
}
static inline uint32_t ext4_group_bit(const struct ext4_vol *vol, uint64_t blk)
{
	return (uint32_t)((blk - vol->first_data_block) % vol->blocks_per_group);
}
static inline uint64_t ext4_group_start(const struct ext4_vol *vol, uint32_t group)
{
	return vol->first_data_block + (uint64_t)group * vol->blocks_per_group;
}

/*
 * alloc.lock held; dropped and retaken while it reads. 0 when the image is there, which it is
 * until the lock is dropped or another one is loaded.
 */
int ext4_group_load(struct ext4_vol *vol, uint32_t group) FDIO_MAY_MISS;
/*
 * The image, alloc.lock held, loaded: marks clear bits, or clears marked ones, with the counts and
 * hints.
 */
void ext4_image_take(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n);
void ext4_image_give(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n);
/*
 * Freed blocks, durably and discarded if that is wanted, become reusable; the pin of their freeing
 * goes.
 */
void ext4_group_give_freed(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n);
/*
 * alloc/discard.c: they are discarded first, and then given. False: not discarded, the caller gives
 * them.
 */
bool ext4_discard_later(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n);
/*
 * Who would get ENOSPC waits: what is queued is given back without being discarded. Any lock may be
 * held.
 */
void ext4_discard_hurry(struct ext4_vol *vol);
/*
 * The bitmap of group, loaded, called blocks free that are not: what else it calls free is not
 * given out. alloc.lock held.
 */
void ext4_group_distrust(struct ext4_vol *vol, uint32_t group);
/* The bitmap of a group that was never used, as the format defines it; map has block_size bytes. */
void ext4_group_synthesize_blocks(struct ext4_vol *vol, uint32_t group, uint8_t *map);

enum ext4_group_op_kind {
	EXT4_GROUP_OP_ALLOC,
	EXT4_GROUP_OP_CLAIM,
	EXT4_GROUP_OP_FREE,
	EXT4_GROUP_OP_DESC
};
/*
 * Remembers how to undo what handle is going to do to group group, and for FREE what to do once it
 * is durable; FREE loads the group.
 */
int ext4_group_op_begin(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group,
			enum ext4_group_op_kind kind, uint32_t bit, uint32_t n) FDIO_MAY_MISS;
/*
 * The descriptor's mirror of group has changed in a handle: its totals follow, it is sealed with
 * the transaction.
 */
void ext4_group_set_desc(struct ext4_vol *vol, uint32_t group, const struct ext4_descriptor *desc);
/*
 * The disk bitmap of group in handle: bits [bit, bit+n) must all be !set and become set. The group
 * is loaded.
 */
int ext4_group_disk_bits(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group,
			 uint32_t bit, uint32_t n, bool set) FDIO_MAY_MISS;
/* Gives a BLOCK_UNINIT group its bitmap on disk, in handle. Nothing to do for others. */
int ext4_group_init_disk(struct journal_handle *handle, struct ext4_vol *vol,
			 uint32_t group) FDIO_MAY_MISS;

/*
 * Blocks of group group that its own static metadata takes: super, descriptors and reserved
 * descriptors: [start, start+n).
 */
unsigned ext4_group_base_ranges(struct ext4_vol *vol, uint32_t group, struct journal_extent ret[3]);
/*
 * The bitmap map of nbits blocks from start marks all that must never be given to a file: bitmaps,
 * tables, descriptors, the log.
 */
bool ext4_zones_marked(struct ext4_vol *vol, uint64_t start, uint32_t nbits, const uint8_t *map);

#endif
