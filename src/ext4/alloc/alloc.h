/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Alloc: which blocks and inodes are free, in memory and on disk. The contract of the room, with
 * alloc_open.h for the volume room.
 *
 *   blocks.c, search.c      reserve, claim, allocate, free, set aside; where a run is placed
 *   inodes.c                the inode allocator and the place of an inode in its table
 *   change.c                a handle with blocks set aside for it
 *   zones.c                 the blocks that no file may own
 *   statfs.c, trim.c        the numbers of statfs; FITRIM
 *   groups.c, group_*.c     descriptors, allocation images, undo, checksums; private: groups.h
 *   discard.c               the thread of the mount option discard
 *
 * Unless a comment says otherwise: workers, loop threads in the mode of base/nowait.h, the control
 * thread, the ticker, and the thread that opens or closes the volume. alloc.lock, which the
 * functions take themselves, guards the state. Counts and numbers are of blocks of the file system.
 * Errors: -ENOSPC, -ENOMEM, -EIO, and -EUCLEAN for damage, which is logged already.
 */
#ifndef FDIO_EXT4_ALLOC_ALLOC_H
#define FDIO_EXT4_ALLOC_ALLOC_H

#include "base/nowait.h"
#include "ext4/core/core.h"

struct ext4_statfs { uint64_t blocks, bfree, bavail, files, ffree; uint32_t bsize, namelen; };
void ext4_vol_statfs(struct ext4_vol *vol, struct ext4_statfs *ret); /* as statvfs; any thread */
/*
 * Discards free runs of at least minlen bytes in the range of bytes; *ret_trimmed: bytes discarded.
 * -EOPNOTSUPP if the device cannot discard, -EROFS, -EINVAL. Workers, outside handles.
 */
int ext4_vol_trim(struct ext4_vol *vol, uint64_t off, uint64_t len, uint64_t minlen,
		  uint64_t *ret_trimmed) FDIO_BLOCKS;

/* ------------------------------------------------------------------ for the rooms of ext4 */
/*
 * True if [blk, blk + n) lies in the file system and holds neither superblocks, descriptors,
 * bitmaps, inode tables nor the log. Every block number that comes from the disk must pass before
 * it is used. Any thread, no lock.
 */
bool ext4_blocks_valid(struct ext4_vol *vol, uint64_t blk, uint64_t n);
/*
 * On whose behalf blocks are taken. USER may take neither the blocks kept for root nor those kept
 * for metadata; ROOT may not take the latter; SYSTEM may take all: its changes map data that is
 * already on the device, convert extents, or remove something.
 */
enum ext4_requester { EXT4_REQUESTER_USER, EXT4_REQUESTER_ROOT, EXT4_REQUESTER_SYSTEM };
static inline enum ext4_requester ext4_requester(bool root)
{
	return root ? EXT4_REQUESTER_ROOT : EXT4_REQUESTER_USER;
}

/* ---- reservations: blocks in memory alone, which a crash forgets. Outside handles ---- */
/*
 * Reserves 1 to n contiguous blocks, at goal if these are free. goal 0: behind the inode's last
 * ones. inode may be NULL. When space is short it forces a commit, to get freed blocks back: so the
 * caller holds no lock above RANK_EXT4_MAP.
 */
int ext4_blocks_reserve(struct ext4_vol *vol, struct ext4_inode *inode, uint64_t goal, uint32_t n,
			bool root, uint64_t *ret_blk, uint32_t *ret_n) FDIO_MAY_MISS;
void ext4_blocks_unreserve(struct ext4_vol *vol, uint64_t blk, uint32_t n); /* any thread */
uint64_t ext4_blocks_available(struct ext4_vol *vol, bool root); /* that could be reserved now */
/* The inode's next allocation without a goal tries blk first. Any thread. */
void ext4_blocks_next(struct ext4_inode *inode, uint64_t blk);
/*
 * Sets aside n blocks of metadata for a handle to come, so that ext4_blocks_alloc cannot run out of
 * them half-way. The caller gives back all n, however many the handle took, after it has ended.
 */
int ext4_metadata_reserve(struct ext4_vol *vol, unsigned n, enum ext4_requester who) FDIO_MAY_MISS;
void ext4_metadata_unreserve(struct ext4_vol *vol, unsigned n); /* any thread */

/* ---- blocks in a handle. A cancelled handle undoes these ---- */
#define EXT4_CREDITS_ALLOC 1 /* for each run of blocks: a bitmap; descriptors join at the seal */
/* Reserved blocks become allocated on disk; a cancelled handle leaves them reserved. */
int ext4_blocks_claim(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
		      uint32_t n) FDIO_MAY_MISS;
/*
 * Allocates 1 to n contiguous blocks, for metadata or for data that one handle writes. goal 0: near
 * the inode. A caller that has set nothing aside counts as EXT4_REQUESTER_SYSTEM.
 */
int ext4_blocks_alloc(struct journal_handle *handle, struct ext4_inode *inode, uint64_t goal,
		      uint32_t n, uint64_t *ret_blk, uint32_t *ret_n) FDIO_MAY_MISS;
/*
 * Frees blocks. They are not reused before the transaction is durable (JOURNAL-8) and, with the
 * option discard, before they are discarded. metadata: the blocks went through the journal, so
 * journal_forget is called.
 */
int ext4_blocks_free(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
		     uint32_t n, bool metadata) FDIO_MAY_MISS;

/* ---- change.c: a handle that may need up to `blocks` blocks of metadata ---- */
struct ext4_change { /* belongs to the caller */
	struct ext4_vol *vol;
	struct journal_handle *handle;
	unsigned reserved;
};
/* Sets the blocks aside and opens the handle. After an error (-EROFS too) nothing has begun. */
int ext4_change_begin(struct ext4_vol *vol, unsigned credits, unsigned blocks,
		      enum ext4_requester who, struct ext4_change *ret) FDIO_MAY_MISS;
/* Ends the handle as ext4_handle_end, whose result it returns, and gives the blocks back. */
int ext4_change_end(struct ext4_change *change, int err) FDIO_MAY_WAIT;

/* ---- inode numbers, in a handle ---- */
/* Takes a number near dir. *ret_fresh: its block of the inode table holds nothing yet. */
int ext4_inode_number_alloc(struct journal_handle *handle, struct ext4_inode *dir, uint32_t mode,
			    uint32_t *ret_ino, bool *ret_fresh) FDIO_MAY_MISS;
int ext4_inode_number_free(struct journal_handle *handle, struct ext4_vol *vol, uint32_t ino,
			   bool is_dir) FDIO_MAY_MISS;
/* ino was free in the bitmap and is in use: no more inodes are taken from its group. Any thread. */
void ext4_inode_number_distrust(struct ext4_vol *vol, uint32_t ino);
int ext4_inode_in_use(struct ext4_vol *vol, uint32_t ino) FDIO_MAY_MISS; /* 1, 0 or an error */
/* The block of the inode table that holds ino, at byte *ret_off; 0: its descriptor is damaged. */
uint64_t ext4_itable_place(struct ext4_vol *vol, uint32_t ino, uint32_t *ret_off);
/* The descriptor says that this part of the inode table (bg_itable_unused) was never written. */
bool ext4_itable_never_used(struct ext4_vol *vol, uint32_t ino);

#endif
