/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Private to alloc: struct ext4_group and the calls among the room's files. From the bottom up,
 * each calls those below it: zones.c, groups.c (descriptors), group_images.c (allocation images),
 * discard.c (discards, then gives back), group_changes.c (changes in handles), search.c
 * (placement), and the allocators blocks.c and inodes.c; beside them trim.c, and group_seal.c for
 * the journal.
 *
 * A group's block bitmap exists twice. The bitmap on disk is the cached journal block and changes
 * only inside handles. The allocation image is that bitmap with every block marked, too, that is
 * reserved or freed but not yet given back; it lives in memory only, and the allocator searches it.
 * A block whose bit is clear there may be given to anybody at once.
 *
 * The two are equal while nothing is reserved or waits (then free_in_image == desc.free_blocks,
 * since each such block makes the former smaller) and no operation in a handle may still have to
 * change the image (pins). Such an image may be freed, and is freed while there are more than
 * max_images.
 *
 * alloc.lock guards everything here. desc changes only inside a handle, of which there is one at a
 * time, and under alloc.lock too: so code inside a handle may read it without the lock.
 */
#ifndef FDIO_EXT4_ALLOC_GROUPS_H
#define FDIO_EXT4_ALLOC_GROUPS_H

#include "base/nowait.h"
#include "ext4/alloc/alloc_open.h"
#include "ext4/core/bits.h"
#include "ext4/core/structs.h"

/* A loop thread examines at most this many groups in one search; then it leaves it to a worker. */
#define EXT4_NOWAIT_GROUPS 4096u

/* What changes in a descriptor; a cancelled handle puts it back as a whole. */
struct ext4_descriptor {
	uint32_t free_blocks, free_inodes, used_dirs, itable_unused;
	uint16_t flags;
};

struct ext4_group {
	uint8_t *image;             /* block_size bytes; NULL: not loaded, nothing is reserved */
	/* Block numbers, checked when the volume opens; 0 if the descriptor is damaged. */
	uint64_t block_bitmap, inode_bitmap, itable;
	struct ext4_descriptor desc;
	uint32_t nr_blocks;         /* in this group: fewer in the last one */
	uint32_t free_in_image;     /* clear bits of image; desc.free_blocks if not loaded */
	uint32_t first_free;        /* all bits below are set */
	uint32_t cursor;            /* where the next growing file is placed */
	uint32_t max_run;           /* no run of clear bits is longer; UINT32_MAX: unknown */
	bool loading;               /* a thread reads the bitmap, without alloc.lock */
	bool bad;                   /* the block bitmap is damaged: no allocation, no free */
	bool inode_bitmap_checked;  /* atomic */
	bool inode_bitmap_bad;      /* atomic: no inode is taken or freed any more */
	bool block_bitmap_dirty, inode_bitmap_dirty; /* the seal computes their checksums */
	bool dirty;                 /* on alloc.dirty_groups */
	uint32_t pins;              /* atomic, raised under alloc.lock: changes of image to come */
	struct list dirty_node;     /* on alloc.dirty_groups */
	struct list image_node;     /* on alloc.images while image is not NULL */
};

/*
 * Sums of up to 128 neighbouring groups, so that a search need not look at each of half a million
 * groups. Guarded by alloc.lock.
 */
#define EXT4_REGION_BITS 7
#define EXT4_REGION_GROUPS (1U << EXT4_REGION_BITS)
struct ext4_region {
	uint64_t free_inodes, free_blocks; /* sums over the descriptors */
	uint32_t used_dirs;
	uint32_t longest; /* no group here has a longer run of clear bits; search.c lowers it */
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

/* The descriptor as libext2fs keeps it in memory: its bytes as on disk, owned by vol->fs. */
static inline struct ext4_group_desc *ext4_group_raw_desc(const struct ext4_vol *vol,
							  uint32_t group)
{
	return (struct ext4_group_desc *)(void *)ext2fs_group_desc(vol->fs, vol->fs->group_desc,
								   group);
}

/* Block number to group and bit, and back. */
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

/* ---- zones.c ---- */
/* Extents of superblock and descriptors in group, reserved descriptors too. Returns how many. */
unsigned ext4_group_base_ranges(struct ext4_vol *vol, uint32_t group, struct journal_extent ret[3]);
/* map, a bitmap of nr_blocks blocks from start on, has all blocks set that no file may own. */
bool ext4_zones_marked(struct ext4_vol *vol, uint64_t start, uint32_t nr_blocks,
		       const uint8_t *map);

/* ---- groups.c ---- */
/* In a handle, alloc.lock held: the group's descriptor becomes desc, and is written by the seal. */
void ext4_group_set_desc(struct ext4_vol *vol, uint32_t group, const struct ext4_descriptor *desc);

/* ---- group_images.c: alloc.lock held, unless noted ---- */
/*
 * Loads the image. It stays until the lock is dropped or another image is loaded. The lock is
 * dropped while the bitmap is read. -EUCLEAN: the bitmap is damaged, and the group is bad.
 */
int ext4_group_load(struct ext4_vol *vol, uint32_t group) FDIO_MAY_MISS;
/* Sets clear bits of a loaded image, or clears set ones; counts and hints follow. */
void ext4_image_take(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n);
void ext4_image_give(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n);
/* The loaded bitmap shows used blocks as free: no block of the group is given out any more. */
void ext4_group_distrust(struct ext4_vol *vol, uint32_t group);
/* Makes freed blocks reusable, and drops the pin of their free. Without alloc.lock. */
void ext4_group_give_freed(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n);
/*
 * Compares the checksum of a bitmap with the halves in its descriptor, of which only a descriptor
 * of 64 bytes has the high one. No lock.
 */
bool ext4_bitmap_checksum_ok(const struct ext4_vol *vol, const uint8_t *map, uint32_t bytes,
			     uint16_t low, uint16_t high);
/* Fills map, block_size bytes, with the bitmap of a group that was never used. No lock. */
void ext4_group_synthesize_blocks(struct ext4_vol *vol, uint32_t group, uint8_t *map);

/* ---- discard.c: any thread, without alloc.lock ---- */
/* Queues freed blocks to be discarded and then given. False: not queued, the caller gives them. */
bool ext4_discard_later(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n);
/* A thread waits for blocks: the queued ones are given back without being discarded. */
void ext4_discard_hurry(struct ext4_vol *vol);

/* ---- group_changes.c: in a handle, without alloc.lock ---- */
enum ext4_group_op_kind {
	EXT4_GROUP_OP_ALLOC, /* undone: the blocks are free again */
	EXT4_GROUP_OP_CLAIM, /* undone: the blocks are still reserved */
	EXT4_GROUP_OP_FREE,  /* loads the group; given back when durable */
	EXT4_GROUP_OP_DESC   /* of the descriptor alone; bit and n are not used */
};
/* Called before handle changes group: registers the undo, and for FREE the giving back. */
int ext4_group_op_begin(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group,
			enum ext4_group_op_kind kind, uint32_t bit, uint32_t n) FDIO_MAY_MISS;
/* Bits [bit, bit + n) of the bitmap on disk become set. -EUCLEAN if one of them is already. */
int ext4_group_disk_bits(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group,
			 uint32_t bit, uint32_t n, bool set) FDIO_MAY_MISS;
/* Gives a BLOCK_UNINIT group its bitmap on disk; does nothing for others. */
int ext4_group_init_disk(struct journal_handle *handle, struct ext4_vol *vol,
			 uint32_t group) FDIO_MAY_MISS;

/* ---- search.c ---- */
struct ext4_run { uint32_t group, bit, len; };
/*
 * Finds 1 to n contiguous free blocks for inode (may be NULL) and takes them in the image. goal 0:
 * near the inode. alloc.lock held, dropped meanwhile. -EUCLEAN: the bitmaps call blocks free that
 * are in use.
 */
int ext4_run_take(struct ext4_vol *vol, struct ext4_inode *inode, uint64_t goal, uint32_t n,
		  struct ext4_run *ret) FDIO_MAY_MISS;

#endif
