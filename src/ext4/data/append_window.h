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
 * Opens a window of at most bytes at the end of the file. Inode lock held exclusively. root: may
 * use the reserved blocks. -ENOSPC: there is no window, and nothing else is wrong.
 */
int ext4_window_open(struct ext4_inode *inode, uint64_t bytes, bool root) FDIO_BLOCKS;
/*
 * Byte where the window ends, 0 without one. Appends up to there are overwrites of mapped blocks.
 * Any thread, never blocks.
 */
uint64_t ext4_window_end(const struct ext4_inode *inode);
/*
 * Moves the size to size, so that readers see what is before it: all of that is on the device.
 * size is a multiple of the block size, in the window; calls come in ascending order. Any thread,
 * never blocks.
 */
void ext4_window_publish(struct ext4_inode *inode, uint64_t size);
/*
 * Blocks that were published but are not in the tree. fsync settles them before it asks
 * ext4_sync_tid. Any thread, never blocks.
 */
uint32_t ext4_window_unsettled(const struct ext4_inode *inode);
/* Puts what was published into the tree, and the size on disk, in one transaction. */
int ext4_window_settle(struct ext4_inode *inode) FDIO_BLOCKS;
/*
 * Settles, gives the other blocks back and closes the window, which is closed also on error. Inode
 * lock held exclusively, no append in flight (gate closed for writes). A caller that moves the size
 * or maps blocks behind it does this first. After an error the published blocks are lost: drain is
 * called, which returns when nobody reads them any more, before they are given back. drain NULL:
 * no read is in flight.
 */
int ext4_window_close(struct ext4_inode *inode, void (*drain)(void *arg), void *arg) FDIO_BLOCKS;
/*
 * The error with which closing a window lost data, 0 if none did. clear: reported now, so the next
 * call says 0. Any thread, never blocks.
 */
int ext4_window_lost(struct ext4_inode *inode, bool clear);

/* ---- all windows of a volume ---- */
/* Settles all; the first error. */
int ext4_windows_settle(struct ext4_vol *vol) FDIO_BLOCKS;
unsigned ext4_windows_count(struct ext4_vol *vol);
/* The next inode with a window, in turn, with a reference; NULL if there is none. */
struct ext4_inode *ext4_windows_next(struct ext4_vol *vol);
/*
 * fn closes all windows, on a worker that holds no lock, and returns true if there were any. NULL:
 * windows stay open. Set while nothing runs.
 */
void ext4_windows_set_reclaim(struct ext4_vol *vol, bool (*fn)(void *arg), void *arg);
/* Calls that function. For a caller that has found no free block. */
bool ext4_windows_reclaim(struct ext4_vol *vol);

#endif
