/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Volume: a file system from opening to closing.
 *
 *   volume.c        open, sync, shut down, close
 *   load.c          superblock, geometry and groups, read and checked
 *   recovery.c      the journal at mount: where it lies, and its replay
 *   features.c      which file systems are served, and how
 *   mmp.c           multiple mount protection
 *   ticker.c        the thread that does what has to be done regularly
 *
 * Private headers: parts.h (calls among these files), opening.h (a volume that is being opened).
 * volume.c calls the others; no two files call each other in a circle. Everything here blocks:
 * opening and closing run on one thread, sync and shutdown on any worker. Errors are -errno. State:
 * volume_state.h.
 */
#ifndef FDIO_EXT4_VOLUME_VOLUME_H
#define FDIO_EXT4_VOLUME_VOLUME_H

#include "base/nowait.h"
#include "base/reason.h"
#include "ext4/dir/dir.h"

/*
 * Opens the file system on dev: checks features and geometry, replays the journal, finishes
 * interrupted deletions, marks it mounted. *ret is the caller's until ext4_vol_close; dev stays the
 * caller's. *ret_ro_reason (may be NULL) says why the volume is read-only although read-write was
 * asked for: a static string, or NULL. After an error reason has one line with the cause and the
 * way out.
 */
int ext4_vol_open(struct dev *dev, const struct ext4_options *options, struct ext4_vol **ret,
		  const char **ret_ro_reason, struct fdio_reason *reason) FDIO_BLOCKS;
/*
 * The first step of ext4_vol_open alone, for a device that the kernel is going to claim before the
 * volume is opened: the journal is replayed. orphans: interrupted deletions and truncates are
 * finished too, which a read-only mount later cannot do. Nothing else changes. *ret_fsck: e2fsck
 * must replay the journal, and needs the device for itself.
 */
int ext4_vol_recover(struct dev *dev, bool orphans, bool *ret_fsck, struct fdio_reason *reason)
	FDIO_BLOCKS;
/*
 * Makes everything durable: append windows, noted times, the running transaction; flushes the
 * device. Returns the first error, but tries all of it.
 */
int ext4_vol_sync(struct ext4_vol *vol) FDIO_BLOCKS;
/*
 * Clean unmount: finishes deletions, writes everything, empties the log, marks the file system
 * clean. The caller makes sure that no I/O is in flight. Frees vol in any case; if the log could
 * not be emptied, needs_recovery stays set, and the next mount replays the log.
 */
int ext4_vol_close(struct ext4_vol *vol) FDIO_BLOCKS;
/*
 * As EXT4_IOC_SHUTDOWN: from now on nothing is written, as after a power cut; the next mount
 * replays the log. Before that DEFAULT makes everything durable, LOGFLUSH commits, NOLOGFLUSH does
 * nothing. On a volume that is shut down already it does nothing.
 */
enum ext4_shutdown { EXT4_SHUTDOWN_DEFAULT = 0, EXT4_SHUTDOWN_LOGFLUSH, EXT4_SHUTDOWN_NOLOGFLUSH };
int ext4_vol_shutdown(struct ext4_vol *vol, enum ext4_shutdown how) FDIO_BLOCKS;
/* Frees vol without writing anything, as after a power cut. For tests. */
void ext4_vol_abandon(struct ext4_vol *vol) FDIO_BLOCKS;

#endif
