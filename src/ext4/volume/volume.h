/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Volume: a file system from opening to closing.
 *
 *   parts.h      private: calls among these files
 *   opening.h    private: a volume that is being opened
 *   load.c       superblock, geometry and groups, read and checked
 *   recovery.c   the journal at mount: where it lies, and its replay
 *   volume.c     open, sync, shut down, close
 *   features.c   which file systems are served, and how
 *   mmp.c        multiple mount protection
 *   ticker.c     the thread that does what comes round again
 *
 * Opening and closing on one thread, sync and shutdown on any worker. State: volume_state.h.
 */
#ifndef FDIO_EXT4_VOLUME_VOLUME_H
#define FDIO_EXT4_VOLUME_VOLUME_H

#include "base/nowait.h"
#include "base/reason.h"
#include "ext4/dir/dir.h"

/*
 * Opens the file system on dev: validates, checks features, replays the journal, processes orphans,
 * marks it mounted. *ret_ro_reason (may be NULL) says why it is read-only although rw was asked for
 * (static string or NULL). reason gets one line with the cause and the way out. The device stays
 * the caller's.
 */
int ext4_vol_open(struct dev *dev, const struct ext4_options *options, struct ext4_vol **ret,
		  const char **ret_ro_reason, struct fdio_reason *reason) FDIO_BLOCKS;
/*
 * The first step of ext4_vol_open alone, for a device that somebody else is going to claim before
 * it is opened: the journal is replayed, and, if orphans, interrupted deletions and truncates are
 * finished, which a read-only mount later cannot do; nothing else changes. *ret_fsck: e2fsck must
 * do it; it needs the device for itself.
 */
int ext4_vol_recover(struct dev *dev, bool orphans, bool *ret_fsck, struct fdio_reason *reason)
	FDIO_BLOCKS;
/* Everything durable: time-dirty inodes, running transaction, flush. */
int ext4_vol_sync(struct ext4_vol *vol) FDIO_BLOCKS;
/*
 * Clean unmount: evicts, writes, empties the log, marks clean. Frees vol in any case. The caller
 * has drained all I/O.
 */
int ext4_vol_close(struct ext4_vol *vol) FDIO_BLOCKS;
/*
 * As ext4's ioctl of that name: from now on nothing is written, as if the power went; the next
 * mount replays what the log holds. Before that DEFAULT makes everything durable, LOGFLUSH commits,
 * NOLOGFLUSH does nothing. Again: 0. Blocks.
 */
enum ext4_shutdown { EXT4_SHUTDOWN_DEFAULT = 0, EXT4_SHUTDOWN_LOGFLUSH, EXT4_SHUTDOWN_NOLOGFLUSH };
int ext4_vol_shutdown(struct ext4_vol *vol, enum ext4_shutdown how) FDIO_BLOCKS;
/* Frees without writing anything, as if the power went. For tests. */
void ext4_vol_abandon(struct ext4_vol *vol) FDIO_BLOCKS;

#endif
