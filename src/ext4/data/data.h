/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Data: where the content of a file lies.
 *
 *   map.h, map.c           private: the extent map in memory, read on any thread without a lock
 *   map_memory.c, map_twice.c, map_evict.c   its memory, its checks, and how maps are given up
 *   extent.h               private: extent trees on disk, and what the files below share
 *   extent_node.c, extent_tree.c, extent.c   nodes, edits of a tree, ranges
 *   block_map.c, block_map_convert.c   files with indirect blocks
 *   reservation.c          blocks reserved before data moves, inserted afterwards
 *   append_window.c        blocks ahead of a file that grows
 *   truncate.c, fallocate.c, seek.c   the operations
 *   log_map.c              where the log lies
 *
 * Workers, and loop threads in the mode of nowait.h; what says so, any thread. State: data_state.h.
 * The tree and the map are guarded by map_lock (regular files) or rw held exclusively (directories,
 * symbolic links).
 */
#ifndef FDIO_EXT4_DATA_DATA_H
#define FDIO_EXT4_DATA_DATA_H

#include "base/epoch.h"
#include "base/nowait.h"
#include "ext4/inode/inode.h"

/* ---- reading ---- */
enum ext4_extent_state { EXT4_EXTENT_HOLE = 0, EXT4_EXTENT_WRITTEN, EXT4_EXTENT_UNWRITTEN };
/*
 * A run of blocks in one state. For a hole pblk is 0 and lblk + len is the next extent (or
 * UINT32_MAX).
 */
struct ext4_extent {
	uint32_t lblk, len;
	uint64_t pblk;
	enum ext4_extent_state state;
};
/*
 * The run that contains lblk, from lblk on. 0, or -EAGAIN: the map is not in memory, call
 * ext4_map_load on a worker. Any thread, never blocks, no lock; brackets itself with
 * epoch_enter/epoch_exit unless the caller is inside already (the result is a copy). The length of
 * a hole never makes lblk + len exceed UINT32_MAX. What keeps the blocks from being freed under an
 * I/O in flight is the dio gate.
 */
int ext4_map_lookup(struct ext4_inode *inode, uint32_t lblk, struct ext4_extent *ret);
/* Brings the whole map into memory. Blocks. -EUCLEAN for a broken tree. */
int ext4_map_load(struct ext4_inode *inode) FDIO_MAY_MISS;
/* SEEK_DATA / SEEK_HOLE: byte offsets; -ENXIO beyond the end. */
int ext4_seek(struct ext4_inode *inode, uint64_t off, bool want_data, uint64_t *ret) FDIO_MAY_MISS;

/* ---- changing ---- */
/*
 * A reservation of blocks for a range of holes: taken before any data I/O, so that ENOSPC is found
 * with nothing changed. The blocks are marked in the in-memory allocation image only; a crash
 * forgets them. Then data is written, then ext4_insert puts the extents in the tree in one
 * transaction. Extents beyond nr_inline are chained; ext4_reservation_free releases what was not
 * inserted.
 */
struct ext4_reservation {
	struct ext4_inode *inode;
	unsigned nr, cap;
	/* blocks set aside (ext4_metadata_reserve) for the tree nodes that inserting may need */
	unsigned meta;
	bool root;
	/* sorted, state WRITTEN; ext == inline_ext or ext4_map_mem */
	struct ext4_extent *ext;
	struct ext4_extent inline_ext[8];
};
/*
 * Reserves blocks for every hole in [lblk, lblk+len). -ENOSPC with nothing taken. Caller holds
 * ext4_inode_lock (either mode) and excludes other reservations of the same blocks (range lock).
 * root: may use the reserved blocks.
 */
int ext4_reserve_holes(struct ext4_inode *inode, uint32_t lblk, uint32_t len, bool root,
		       struct ext4_reservation *reservation) FDIO_MAY_MISS;
void ext4_reservation_free(struct ext4_reservation *reservation);
/*
 * The data of reservation's blocks and of [conv_lblk, +conv_len) is on the device (completed):
 * inserts reservation's extents, converts unwritten extents in the conv range (len 0: none) to
 * written, and publishes new_size if it is larger than i_size (0: no change), mtime and ctime too.
 * One or more transactions, each leaves a checkable file system; size last. -EIO if
 * ext4_truncate_finish should have come first; so also of ext4_publish_size.
 */
int ext4_insert(struct ext4_inode *inode, struct ext4_reservation *reservation, uint32_t conv_lblk,
		uint32_t conv_len, uint64_t new_size) FDIO_MAY_MISS;
/* Size only (extending a file within allocated blocks or as a hole). */
int ext4_publish_size(struct ext4_inode *inode, uint64_t new_size) FDIO_MAY_MISS;

/* ---- append windows ---- */
/*
 * Append windows (data/append_window.c): blocks ahead of a file that grows at its end by whole
 * blocks, mapped as written behind the size. Opened with the inode lock held exclusively, at the
 * end of the file; at most bytes. -ENOSPC: no window, nothing else is wrong.
 */
int ext4_window_open(struct ext4_inode *inode, uint64_t bytes, bool root) FDIO_BLOCKS;
/*
 * Byte where the window ends, 0 without one; appends up to there are overwrites of mapped blocks.
 * Any thread, never blocks.
 */
uint64_t ext4_window_end(const struct ext4_inode *inode);
/*
 * Everything before size (a multiple of blocks, in the window) is on the device: readers may see
 * it. In ascending order. Any thread, never blocks.
 */
void ext4_window_publish(struct ext4_inode *inode, uint64_t size);
/*
 * Blocks that were published but are not in the tree: fsync settles before ext4_sync_tid. Any
 * thread.
 */
uint32_t ext4_window_unsettled(const struct ext4_inode *inode);
int ext4_window_settle(struct ext4_inode *inode) FDIO_BLOCKS;
/*
 * Settles and gives the rest back. Inode lock held exclusively, no append in flight (gate closed
 * for writes). Whoever moves the size or maps blocks behind it does this first. The window is
 * closed whatever the result: after an error drain (NULL: no read is in flight either) is called
 * before the blocks are given back, and returns when nobody reads what is no longer mapped.
 */
int ext4_window_close(struct ext4_inode *inode, void (*drain)(void *arg), void *arg) FDIO_BLOCKS;
/*
 * What closing a window gave up and nobody was told yet: its error, once; clear false: it stays.
 * Any thread, never blocks.
 */
int ext4_window_lost(struct ext4_inode *inode, bool clear);
/* All windows of the volume; the next of them in turn with a reference, NULL if there is none. */
int ext4_windows_settle(struct ext4_vol *vol) FDIO_BLOCKS;
unsigned ext4_windows_count(struct ext4_vol *vol);
struct ext4_inode *ext4_windows_next(struct ext4_vol *vol);
/*
 * fn closes all windows for ext4_space_has_come, on a worker that holds no lock; true if there were
 * any. NULL: nobody. Set while nothing runs.
 */
void ext4_windows_set_reclaim(struct ext4_vol *vol, bool (*fn)(void *arg), void *arg);

/*
 * Shrinks or grows; zeroes the tail of the last block on disk; frees blocks beyond, also
 * preallocated ones. Bounded transactions, orphan list in between.
 */
int ext4_truncate(struct ext4_inode *inode, uint64_t size) FDIO_BLOCKS;
/*
 * Frees data behind the end of the file, if there is any: a truncate that failed half-way leaves it
 * there, or a crash, or whoever made the image. Comes before anything is written behind the end or
 * the size grows, because the old contents must not show. Looks once for each inode in memory.
 * Workers, the inode locked exclusively, the gate closed for writes; no append window, or one that
 * was opened before.
 */
int ext4_truncate_finish(struct ext4_inode *inode) FDIO_BLOCKS;
/* as FALLOC_FL_* */
enum { EXT4_FALLOC_KEEP_SIZE = 1, EXT4_FALLOC_PUNCH_HOLE = 2, EXT4_FALLOC_ZERO_RANGE = 0x10 };
int ext4_fallocate(struct ext4_inode *inode, int mode, uint64_t off, uint64_t len,
		   bool root) FDIO_BLOCKS;

/* ------------------------------------------------------------------ inside ext4 */
/* The rooms above the cache tell it what they do to an inode. First of all. */
void ext4_data_init(struct ext4_vol *vol);
/*
 * data/map_memory.c: memory of maps and of reservations (ext4_reservation), from a reserve when
 * there is none else. -ENOMEM.
 */
int ext4_map_mem_init(void);
/*
 * data/map_evict.c: gives up maps until they fit the budget. On a thread that may block and holds
 * no lock. False: all are in use.
 */
bool ext4_maps_shrink(struct ext4_vol *vol) FDIO_MAY_WAIT;
/*
 * fn is called, on any thread, not blocking but for leaf locks, when ext4_maps_shrink has something
 * to do. NULL: no more.
 */
void ext4_maps_set_crowded(struct ext4_vol *vol, void (*fn)(struct ext4_vol *vol));
/* Closes append windows; true if there were any. On a worker that holds no lock. */
bool ext4_windows_reclaim(struct ext4_vol *vol);
/*
 * Old blocks lie behind the size, because a truncate failed on the way or a crash came; the latter
 * said, at mount.
 */
bool ext4_truncate_pending(const struct ext4_inode *inode);
void ext4_truncate_interrupted(struct ext4_inode *inode);
/* The log's blocks; the block cache is open without it. *ret is malloc'd. */
int ext4_map_log_extents(struct ext4_vol *vol, uint32_t journal_ino, struct journal_extent **ret,
		       unsigned *ret_n) FDIO_MAY_MISS;
/* Directories, symbolic links, attribute values. */
/* inode is a symbolic link whose target lies in the inode itself. */
bool ext4_link_is_fast(const struct ext4_inode *inode);
/*
 * For directories and symlinks: block lblk of inode; loads the map if needed. -EUCLEAN for a hole.
 * Blocks. The caller holds inode.rw (any mode), which is what guards the tree of a directory or
 * symlink; so it may be called inside a handle.
 */
int ext4_bmap(struct ext4_inode *inode, uint32_t lblk, uint64_t *ret_blk) FDIO_MAY_MISS;
enum ext4_map_kind { EXT4_MAPPED_NOT, EXT4_MAPPED_EXTENTS, EXT4_MAPPED_INDIRECT };
enum ext4_map_kind ext4_map_kind(const struct ext4_inode *inode);
/* Worst case credits and metadata blocks of one insert or convert: depth + splits. */
unsigned ext4_extent_credits(struct ext4_inode *inode);
unsigned ext4_extent_metadata_blocks(struct ext4_inode *inode);
/*
 * A directory or new symlink grows by one block in handle: allocated, zeroed, mapped at lblk, open
 * for writing; size not changed. The caller holds inode.rw exclusively (or inode is new and nobody
 * else can reach it), has called ext4_inode_begin and calls ext4_inode_dirty.
 */
int ext4_append_metadata_block(struct journal_handle *handle, struct ext4_inode *inode,
			       uint32_t lblk, struct journal_buffer **ret) FDIO_MAY_MISS;
#define EXT4_INDIRECT_MOST 8 /* indirect blocks: a directory that grows has credits for no more */
#define EXT4_INDIRECT_CREDITS EXT4_INDIRECT_MOST
/* Eviction. */
/*
 * Eviction: frees all blocks of an inode with nlink 0 in bounded transactions (metadata: directory
 * or symlink blocks are revoked).
 */
int ext4_free_all_blocks(struct ext4_inode *inode) FDIO_BLOCKS;
/*
 * The same inside h if the inode itself says where they are (extents in its root); map_lock held.
 * -ENOSPC: not in one handle.
 */
bool ext4_blocks_in_root(struct ext4_inode *inode);
unsigned ext4_free_root_credits(struct ext4_inode *inode);
int ext4_free_root_blocks(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;

#endif
