/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Data: where the content of a file lies. The contract of the room, with append_window.h.
 *
 *   map.c, map_edit.c, map_load.c                the extent map in memory; private: map.h
 *   map_memory.c, map_twice.c, map_evict.c       its memory, its checks, its end
 *   extent_node.c, extent_tree.c, extent.c       nodes, edits of a tree, ranges; private: extent.h
 *   map_note.c                                   when readers see what a handle has mapped
 *   block_map.c, block_map_convert.c             files with indirect blocks
 *   reservation.c, append_window.c               writes into holes; appends
 *   size.c, truncate.c, fallocate.c, seek.c      the operations
 *   metadata_blocks.c, log_map.c                 blocks of directories and links; of the log
 *
 * The tree and the map are guarded by map_lock (regular files) or by rw held exclusively
 * (directories, symbolic links). Workers, and loop threads in the mode of base/nowait.h, unless a
 * comment says any thread. Errors are -errno; damage is recorded (EXT4_CORRUPT) and -EUCLEAN.
 */
#ifndef FDIO_EXT4_DATA_DATA_H
#define FDIO_EXT4_DATA_DATA_H

#include "base/epoch.h"
#include "base/nowait.h"
#include "ext4/data/append_window.h"
#include "ext4/inode/inode.h"

/* ---- reading ---- */
enum ext4_extent_state { EXT4_EXTENT_HOLE = 0, EXT4_EXTENT_WRITTEN, EXT4_EXTENT_UNWRITTEN };
/* A run of blocks in one state. A hole has pblk 0 and ends at the next extent or at UINT32_MAX. */
struct ext4_extent {
	uint32_t lblk, len;
	uint64_t pblk;
	enum ext4_extent_state state;
};
/*
 * The run that contains lblk, from lblk on. -EAGAIN: the map is not in memory, call ext4_map_load
 * on a worker. Any thread, never blocks, no lock. The blocks may be freed at any time unless the
 * caller keeps out the operations that free blocks (by the dio gate).
 */
int ext4_map_lookup(struct ext4_inode *inode, uint32_t lblk, struct ext4_extent *ret);
/* Brings the whole map into memory. */
int ext4_map_load(struct ext4_inode *inode) FDIO_MAY_MISS;
/* SEEK_DATA, SEEK_HOLE in byte offsets; -ENXIO beyond the end. */
int ext4_seek(struct ext4_inode *inode, uint64_t off, bool want_data, uint64_t *ret) FDIO_MAY_MISS;

/* ---- writing into holes: reservation.c ---- */
/* Blocks for a range of holes. In memory only: a crash forgets them. */
struct ext4_reservation {
	struct ext4_inode *inode;
	unsigned nr, cap;
	unsigned meta;          /* tree blocks set aside (ext4_metadata_reserve) for inserting */
	bool root;              /* may use the reserved blocks */
	struct ext4_extent *ext; /* sorted; inline_ext or from ext4_map_mem */
	struct ext4_extent inline_ext[8];
};
/*
 * Reserves blocks for every hole in [lblk, lblk + len). -ENOSPC: nothing is taken. The caller holds
 * the inode lock in either mode and keeps out other reservations of these blocks (range lock).
 */
int ext4_reserve_holes(struct ext4_inode *inode, uint32_t lblk, uint32_t len, bool root,
		       struct ext4_reservation *reservation) FDIO_MAY_MISS;
/* Gives back the blocks that were not inserted. */
void ext4_reservation_free(struct ext4_reservation *reservation);
/*
 * When the data of the blocks is on the device: inserts the reservation's extents (NULL: none),
 * turns unwritten extents in [conv_lblk, conv_lblk + conv_len) into written ones, and moves the
 * size to new_size if that is larger (0: no change), mtime and ctime too. One or more transactions,
 * the size last. -EIO if ext4_truncate_finish should have come first.
 */
int ext4_insert(struct ext4_inode *inode, struct ext4_reservation *reservation, uint32_t conv_lblk,
		uint32_t conv_len, uint64_t new_size) FDIO_MAY_MISS;
/* The size and times alone, as ext4_insert. */
int ext4_publish_size(struct ext4_inode *inode, uint64_t new_size) FDIO_MAY_MISS;

/* ---- operations: inode locked exclusively, gate closed, no handle ---- */
/* Sets the size; zeroes the rest of the last block, frees all blocks behind it. */
int ext4_truncate(struct ext4_inode *inode, uint64_t size) FDIO_BLOCKS;
/*
 * Frees stale data behind the end, which a failed truncate, a crash or another writer has left; it
 * must not show when the file grows. Searches once for each inode in memory; ext4_window_open
 * counts as that search, because afterwards the window's own blocks lie behind the end.
 */
int ext4_truncate_finish(struct ext4_inode *inode) FDIO_BLOCKS;
bool ext4_truncate_pending(const struct ext4_inode *inode); /* a truncate has failed half-way */
void ext4_truncate_interrupted(struct ext4_inode *inode);   /* sets that, at mount */
/* as FALLOC_FL_* */
enum { EXT4_FALLOC_KEEP_SIZE = 1, EXT4_FALLOC_PUNCH_HOLE = 2, EXT4_FALLOC_ZERO_RANGE = 0x10 };
int ext4_fallocate(struct ext4_inode *inode, int mode, uint64_t off, uint64_t len,
		   bool root) FDIO_BLOCKS;

/* ---- for the rooms of ext4: how an inode is mapped, directories, links, attribute values ---- */
enum ext4_map_kind { EXT4_MAPPED_NOT, EXT4_MAPPED_EXTENTS, EXT4_MAPPED_INDIRECT };
enum ext4_map_kind ext4_map_kind(const struct ext4_inode *inode);
bool ext4_link_is_fast(const struct ext4_inode *inode); /* a link whose target lies in the inode */
/* Block lblk; a hole is damage. Caller holds rw in any mode; also inside a handle. */
int ext4_bmap(struct ext4_inode *inode, uint32_t lblk, uint64_t *ret_blk) FDIO_MAY_MISS;
/*
 * In handle, with the inode open and rw held exclusively (or the inode new): a zeroed block, mapped
 * at lblk, open for writing. The caller changes the size and calls ext4_inode_dirty. Needs credits
 * and metadata blocks as the next two say, and EXT4_INDIRECT_CREDITS for a block map.
 */
int ext4_append_metadata_block(struct journal_handle *handle, struct ext4_inode *inode,
			       uint32_t lblk, struct journal_buffer **ret) FDIO_MAY_MISS;
unsigned ext4_extent_credits(struct ext4_inode *inode);
unsigned ext4_extent_metadata_blocks(struct ext4_inode *inode);
#define EXT4_INDIRECT_CREDITS 8

/* ---- deleting an inode with nlink 0 ---- */
int ext4_free_all_blocks(struct ext4_inode *inode) FDIO_BLOCKS; /* in transactions of its own */
/*
 * In handle, with map_lock held, where ext4_blocks_in_root says that the extents lie in the inode
 * itself. -ENOSPC: one handle is not enough.
 */
bool ext4_blocks_in_root(struct ext4_inode *inode);
unsigned ext4_free_root_credits(struct ext4_inode *inode);
int ext4_free_root_blocks(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;

/* ---- opening a volume ---- */
int ext4_map_mem_init(void); /* the reserve of map_memory.c; -ENOMEM */
void ext4_data_init(struct ext4_vol *vol);
/* The log's blocks, malloc'd; the block cache is open, the journal is not. */
int ext4_map_log_extents(struct ext4_vol *vol, uint32_t journal_ino, struct journal_extent **ret,
			 unsigned *ret_n) FDIO_MAY_MISS;
/* Evicts maps until they fit the budget; false: all are in use. Caller holds no lock, may block. */
bool ext4_maps_shrink(struct ext4_vol *vol) FDIO_MAY_WAIT;
/* fn is called, on any thread, when ext4_maps_shrink is needed; it must not block. NULL: none. */
void ext4_maps_set_crowded(struct ext4_vol *vol, void (*fn)(struct ext4_vol *vol));

#endif
