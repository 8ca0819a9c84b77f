/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Alloc: which blocks and inodes are free, in memory and on disk.
 *
 *   groups.h   private: the body of a group, images of its bitmap, undo
 *   groups.c   the groups' descriptors; group_images.c: what is free, as the allocator sees it;
 *              group_changes.c: changes in handles; group_seal.c: checksums, for the journal
 *   blocks.c   the block allocator: reserve, claim, allocate, free, set aside
 *   inodes.c   the inode allocator
 *   change.c   a handle with blocks set aside for it
 *   zones.c    blocks that no file may own
 *   statfs.c   the numbers of statfs
 *   trim.c     FITRIM
 *   discard.c  the thread of the mount option discard
 *
 * Workers, and loop threads in the mode of nowait.h where a call says so by its result;
 * ext4_groups_seal on the committing thread; ext4_blocks_valid on any. State: alloc_state.h,
 * guarded by alloc.lock.
 */
#ifndef FDIO_EXT4_ALLOC_ALLOC_H
#define FDIO_EXT4_ALLOC_ALLOC_H

#include "base/nowait.h"
#include "ext4/core/core.h"

struct ext4_statfs { uint64_t blocks, bfree, bavail, files, ffree; uint32_t bsize, namelen; };
void ext4_vol_statfs(struct ext4_vol *vol, struct ext4_statfs *ret);
/* Free blocks to the device (FITRIM): byte range and minimum run; trimmed bytes out. */
int ext4_vol_trim(struct ext4_vol *vol, uint64_t off, uint64_t len, uint64_t minlen,
		  uint64_t *ret_trimmed) FDIO_BLOCKS;

/* ------------------------------------------------------------------ inside ext4 */
/* ---- opening and closing the volume ---- */
void ext4_alloc_init(struct ext4_vol *vol);
void ext4_alloc_fini(struct ext4_vol *vol);
int ext4_groups_init(struct ext4_vol *vol);
void ext4_groups_fini(struct ext4_vol *vol);
/* What no file may own: what the groups say, then the log. -ENOMEM. */
int ext4_zones_init(struct ext4_vol *vol);
int ext4_zones_add_log(struct ext4_vol *vol, const struct journal_extent *log, unsigned nr_log);
/* What statfs hides, and what is kept for root and for metadata: once the groups are loaded. */
void ext4_alloc_limits(struct ext4_vol *vol, uint64_t for_root);
/* So many descriptors are damaged; the first of them (may be NULL). */
uint32_t ext4_bad_groups(const struct ext4_vol *vol, uint32_t *ret_first);
/*
 * Around the journal's life: the thread of the option discard (alloc/discard.c). Stopping does what
 * is queued.
 */
int ext4_discard_start(struct ext4_vol *vol) FDIO_BLOCKS;
void ext4_discard_stop(struct ext4_vol *vol) FDIO_BLOCKS;
/* seal: bitmap checksums and descriptors of dirty groups into handle (journal callback). */
void ext4_groups_seal(void *vol, struct journal_handle *handle) FDIO_BLOCKS;
uint64_t ext4_groups_free_on_disk(struct ext4_vol *vol); /* as the descriptors count */

/* ---- blocks ---- */
/*
 * True if [blk, blk+n) lies in the file system, not in the superblock/descriptor/bitmap/inode-table
 * areas and not in the log. Every block number read from disk goes through it before it is used.
 */
bool ext4_blocks_valid(struct ext4_vol *vol, uint64_t blk, uint64_t n);
/*
 * Who asks for blocks. A user leaves what is kept for root and for metadata; root takes the former;
 * the system takes everything: conversion, insertion of data that is on the device, and what takes
 * something away.
 */
enum ext4_requester { EXT4_REQUESTER_USER, EXT4_REQUESTER_ROOT, EXT4_REQUESTER_SYSTEM };
static inline enum ext4_requester ext4_requester(bool root)
{
	return root ? EXT4_REQUESTER_ROOT : EXT4_REQUESTER_USER;
}
/*
 * Blocks for metadata, or for data inside one handle: marked on disk in handle. goal 0: near the
 * inode. *ret_n <= n, >= 1. Who asks was said to ext4_metadata_reserve; what has set nothing aside
 * is metadata that must not fail (EXT4_REQUESTER_SYSTEM).
 */
int ext4_blocks_alloc(struct journal_handle *handle, struct ext4_inode *inode, uint64_t goal,
		      uint32_t n, uint64_t *ret_blk, uint32_t *ret_n) FDIO_MAY_MISS;
/*
 * Frees in handle: bitmap in this transaction, reusable only once it is durable (JOURNAL-8),
 * discarded then if discard is on. metadata: the blocks were journalled, so journal_forget is
 * called for them. Undone on cancel.
 */
int ext4_blocks_free(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
		     uint32_t n, bool metadata) FDIO_MAY_MISS;
/*
 * Reservation: only the in-memory image. No handle. Contiguous as possible; *ret_n <= n. -ENOSPC.
 * May force a commit to get freed blocks back, so not inside a handle and with no lock above
 * RANK_EXT4_MAP held.
 */
int ext4_blocks_reserve(struct ext4_vol *vol, struct ext4_inode *inode, uint64_t goal, uint32_t n,
			bool root, uint64_t *ret_blk, uint32_t *ret_n) FDIO_MAY_MISS;
void ext4_blocks_unreserve(struct ext4_vol *vol, uint64_t blk, uint32_t n);
/* Blocks that ext4_blocks_reserve could still give. */
uint64_t ext4_blocks_available(struct ext4_vol *vol, bool root);
/* Where the next allocation of inode without a goal begins. */
void ext4_blocks_next(struct ext4_inode *inode, uint64_t blk);
/* Reserved blocks become allocated on disk in handle (undone to reserved on cancel). */
int ext4_blocks_claim(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
		      uint32_t n) FDIO_MAY_MISS;
/*
 * So that metadata allocation inside a handle cannot fail half-way: n blocks are set aside for the
 * handle to come; ext4_blocks_alloc may take them. Given back, all n whatever was taken, by
 * ext4_metadata_unreserve(n) after the handle has ended. -ENOSPC. Not inside a handle.
 */
int ext4_metadata_reserve(struct ext4_vol *vol, unsigned n, enum ext4_requester who) FDIO_MAY_MISS;
void ext4_metadata_unreserve(struct ext4_vol *vol, unsigned n);
/*
 * A handle for a change that may need up to `blocks` blocks of metadata: begin sets them aside and
 * opens the handle, end ends it (ext4_handle_end) and gives back what was set aside. -EROFS,
 * -ENOSPC, or what journal_begin says; then nothing has begun.
 */
struct ext4_change {
	struct ext4_vol *vol;
	struct journal_handle *handle;
	unsigned reserved;          /* blocks set aside */
};
int ext4_change_begin(struct ext4_vol *vol, unsigned credits, unsigned blocks,
		      enum ext4_requester who, struct ext4_change *ret) FDIO_MAY_MISS;
int ext4_change_end(struct ext4_change *change, int err) FDIO_MAY_WAIT;
#define EXT4_CREDITS_ALLOC 1 /* bitmap block per allocation; descriptors join at seal */

/* ---- inodes ---- */
/*
 * Inodes, inside handle (alloc/inodes.c): near dir; *ret_fresh: the table block was never used, do
 * not read it.
 */
int ext4_inode_number_alloc(struct journal_handle *handle, struct ext4_inode *dir, uint32_t mode,
			    uint32_t *ret_ino, bool *ret_fresh) FDIO_MAY_MISS;
/*
 * ino was given out although it was in use: its group's bitmap is wrong, and nothing more is taken
 * from it.
 */
void ext4_inode_number_distrust(struct ext4_vol *vol, uint32_t ino);
int ext4_inode_number_free(struct journal_handle *handle, struct ext4_vol *vol, uint32_t ino,
			   bool is_dir) FDIO_MAY_MISS;
/* 1 if the inode bitmap says in use, 0 if not, or an error. */
int ext4_inode_in_use(struct ext4_vol *vol, uint32_t ino) FDIO_MAY_MISS;
/* Byte place of ino in the inode table: its block, 0 if a damaged descriptor does not say. */
uint64_t ext4_itable_place(struct ext4_vol *vol, uint32_t ino, uint32_t *ret_off);
/* in a part of the table that the descriptor calls unused */
bool ext4_above_mark(struct ext4_vol *vol, uint32_t ino);

#endif
