/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Alloc: which blocks and inodes are free, in memory and on disk.
 *
 *   groups.h   private: the body of a group, images of its bitmap, undo
 *   groups.c   the groups: loading and writing their descriptors and bitmaps
 *   blocks.c   the block allocator: reserve, claim, allocate, free, set aside
 *   inodes.c   the inode allocator
 *   zones.c    blocks that no file may own
 *   statfs.c   the numbers of statfs
 *   trim.c     FITRIM
 *   discard.c  the thread of the mount option discard
 *
 * Workers, and loop threads in the mode of nowait.h where a call says so by its result; x4_groups_seal on the
 * committing thread; x4_blk_valid on any. State: alloc_state.h, guarded by alloc.lock.
 */
#ifndef FDIO_EXT4_ALLOC_ALLOC_H
#define FDIO_EXT4_ALLOC_ALLOC_H

#include "base/nowait.h"
#include "ext4/core/core.h"

struct x4_statfs { uint64_t blocks, bfree, bavail, files, ffree; uint32_t bsize, namelen; };
void x4_vol_statfs(struct x4_vol *vol, struct x4_statfs *ret);
/* Free blocks to the device (FITRIM): byte range and minimum run; trimmed bytes out. */
int x4_vol_trim(struct x4_vol *vol, uint64_t off, uint64_t len, uint64_t minlen, uint64_t *ret_trimmed)
	FDIO_BLOCKS;

/* ------------------------------------------------------------------ inside ext4 */
/* ---- opening and closing the volume ---- */
void x4_alloc_init(struct x4_vol *vol);
void x4_alloc_fini(struct x4_vol *vol);
int x4_groups_init(struct x4_vol *vol);
void x4_groups_fini(struct x4_vol *vol);
/* What no file may own: what the groups say, then the log. -ENOMEM. */
int x4_zones_init(struct x4_vol *vol);
int x4_zones_add_log(struct x4_vol *vol, const struct journal_extent *log, unsigned nr_log);
/* What statfs hides, and what is kept for root and for metadata: once the groups are loaded. */
void x4_alloc_limits(struct x4_vol *vol, uint64_t for_root);
/* So many descriptors are damaged; the first of them (may be NULL). */
uint32_t x4_bad_groups(const struct x4_vol *vol, uint32_t *ret_first);
/*
 * Around the journal's life: the thread of the option discard (alloc/discard.c). Stopping does what is
 * queued.
 */
int x4_discard_start(struct x4_vol *vol) FDIO_BLOCKS;
void x4_discard_stop(struct x4_vol *vol) FDIO_BLOCKS;
/* seal: bitmap checksums and descriptors of dirty groups into handle (journal callback). */
void x4_groups_seal(void *vol, struct journal_handle *handle) FDIO_BLOCKS;
/* alloc/groups.c */
uint64_t x4_groups_free_on_disk(struct x4_vol *vol); /* as the descriptors count */

/* ---- blocks ---- */
/* True if [blk, blk+n) lies in the file system, not in the superblock/descriptor/bitmap/inode-table areas and not in the log.
 * Every block number read from disk goes through it before it is used. */
bool x4_blk_valid(struct x4_vol *vol, uint64_t blk, uint64_t n);
/*
 * Who asks for blocks. A user leaves what is kept for root and for metadata; root takes the former; the system takes
 * everything: conversion, insertion of data that is on the device, and what takes something away.
 */
enum x4_asks { X4_ASKS_USER, X4_ASKS_ROOT, X4_ASKS_SYSTEM };
static inline enum x4_asks x4_asks(bool root) { return root ? X4_ASKS_ROOT : X4_ASKS_USER; }
/* Blocks for metadata, or for data inside one handle: marked on disk in handle. goal 0: near the inode. *ret_n <= n, >= 1. Who asks
 * was said to x4_meta_reserve; what has set nothing aside is metadata that must not fail (X4_ASKS_SYSTEM). */
int x4_balloc(struct journal_handle *handle, struct x4_inode *inode, uint64_t goal, uint32_t n, uint64_t *ret_blk, uint32_t *ret_n)
	FDIO_MAY_MISS;
/* Frees in handle: bitmap in this transaction, reusable only once it is durable (JOURNAL-8), discarded then if discard is on.
 * metadata: the blocks were journalled, so journal_forget is called for them. Undone on cancel. */
int x4_bfree(struct journal_handle *handle, struct x4_inode *inode, uint64_t blk, uint32_t n, bool metadata)
	FDIO_MAY_MISS;
/* Reservation: only the in-memory image. No handle. Contiguous as possible; *ret_n <= n. -ENOSPC. May force a commit to get
 * freed blocks back, so not inside a handle and with no lock above RANK_X4_MAP held. */
int x4_balloc_reserve(struct x4_vol *vol, struct x4_inode *inode, uint64_t goal, uint32_t n, bool root, uint64_t *ret_blk, uint32_t *ret_n)
	FDIO_MAY_MISS;
void x4_balloc_unreserve(struct x4_vol *vol, uint64_t blk, uint32_t n);
/* Blocks that x4_balloc_reserve could still give. */
uint64_t x4_balloc_available(struct x4_vol *vol, bool root);
/* Where the next allocation of inode without a goal begins. */
void x4_balloc_next(struct x4_inode *inode, uint64_t blk);
/* Reserved blocks become allocated on disk in handle (undone to reserved on cancel). */
int x4_balloc_claim(struct journal_handle *handle, struct x4_inode *inode, uint64_t blk, uint32_t n)
	FDIO_MAY_MISS;
/* So that metadata allocation inside a handle cannot fail half-way: n blocks are set aside for the handle to come; x4_balloc
 * may take them. Given back, all n whatever was taken, by x4_meta_unreserve(n) after the handle has ended. -ENOSPC. Not
 * inside a handle. */
int x4_meta_reserve(struct x4_vol *vol, unsigned n, enum x4_asks who) FDIO_MAY_MISS;
void x4_meta_unreserve(struct x4_vol *vol, unsigned n);
#define X4_CREDITS_ALLOC 1 /* bitmap block per allocation; descriptors join at seal */

/* ---- inodes ---- */
/* Inodes, inside handle (alloc/inodes.c): near dir; *ret_fresh: the table block was never used, do not read it. */
int x4_ialloc(struct journal_handle *handle, struct x4_inode *dir, uint32_t mode, uint32_t *ret_ino, bool *ret_fresh)
	FDIO_MAY_MISS;
/* ino was given out although it was in use: its group's bitmap is wrong, and nothing more is taken from it. */
void x4_ialloc_distrust(struct x4_vol *vol, uint32_t ino);
int x4_ifree(struct journal_handle *handle, struct x4_vol *vol, uint32_t ino, bool is_dir) FDIO_MAY_MISS;
/* 1 if the inode bitmap says in use, 0 if not, or an error. */
int x4_inode_in_use(struct x4_vol *vol, uint32_t ino) FDIO_MAY_MISS;
/* Byte place of ino in the inode table: its block, 0 if a damaged descriptor does not say. */
uint64_t x4_itable_place(struct x4_vol *vol, uint32_t ino, uint32_t *ret_off);
bool x4_above_mark(struct x4_vol *vol, uint32_t ino); /* in a part of the table that the descriptor calls unused */

#endif
