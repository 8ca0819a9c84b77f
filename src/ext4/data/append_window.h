/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Append windows, a part of data.h: blocks ahead of a file that grows at its end by whole blocks,
 * mapped as written behind the size, so that an append is an overwrite. append_window.c explains
 * them and draws their states.
 */
#ifndef FDIO_EXT4_DATA_APPEND_WINDOW_H
#define FDIO_EXT4_DATA_APPEND_WINDOW_H

#include "base/nowait.h"
#include "ext4/core/core.h"

struct ext4_inode;

/*
 * Opens a window of at most bytes bytes at the end of the file. Inode lock held exclusively. root:
 * may use the reserved blocks. -ENOSPC: no window was opened; appends go on without one.
 */
int ext4_window_open(struct ext4_inode *inode, uint64_t bytes, bool root) FDIO_BLOCKS;
/*
 * Byte where the window ends, 0 without one. Appends up to there are overwrites of mapped blocks.
 * Any thread, never blocks.
 */
uint64_t ext4_window_end(const struct ext4_inode *inode);
/*
 * Moves the file's size to size, so that readers see the data before it. That data must be on the
 * device already. size is a multiple of the block size, in the window; calls come in ascending
 * order. Any thread, never blocks.
 */
void ext4_window_publish(struct ext4_inode *inode, uint64_t size);
/*
 * Blocks that were published but are not in the tree. fsync settles them before it asks
 * ext4_sync_tid. Any thread, never blocks.
 */
uint32_t ext4_window_unsettled(const struct ext4_inode *inode);
/*
 * Records the published blocks in the tree and the size in the inode on disk, in one transaction.
 */
int ext4_window_settle(struct ext4_inode *inode) FDIO_BLOCKS;
/*
 * Settles, gives the other blocks back and closes the window, which is closed also on error. Inode
 * lock held exclusively, no append in flight (gate closed for writes). A caller that moves the size
 * or maps blocks behind it does this first. After an error the published blocks are lost: before
 * they are given back, drain(arg) is called, which returns when no thread reads them any more.
 * drain NULL: no read is in flight.
 */
int ext4_window_close(struct ext4_inode *inode, void (*drain)(void *arg), void *arg) FDIO_BLOCKS;
/*
 * The error with which closing a window lost data, 0 if none did. clear: the caller reports it now,
 * so the next call returns 0. Any thread, never blocks.
 */
int ext4_window_lost(struct ext4_inode *inode, bool clear);

/* ---- all windows of a volume ---- */
/* Settles all windows. Returns the first error. */
int ext4_windows_settle(struct ext4_vol *vol) FDIO_BLOCKS;
unsigned ext4_windows_count(struct ext4_vol *vol);
/* The next inode with a window, in turn, with a reference; NULL if there is none. */
struct ext4_inode *ext4_windows_next(struct ext4_vol *vol);
/*
 * fn closes all windows, on a worker that holds no lock, and returns true if there were any. NULL:
 * windows stay open. Called while no other thread runs.
 */
void ext4_windows_set_reclaim(struct ext4_vol *vol, bool (*fn)(void *arg), void *arg);
/* For a caller that has found no free block: calls fn. */
bool ext4_windows_reclaim(struct ext4_vol *vol);

#endif
