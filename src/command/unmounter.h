/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The unmounter: a small process that does what the daemon can no longer do once it is in the
 * sandbox. It unmounts on command, and looks up in /proc the groups and capabilities of a caller
 * (caller.h), so the daemon needs neither privileges nor the file tree for either. It is forked
 * while the daemon has one thread and no device open. It keeps CAP_SYS_ADMIN, CAP_SYS_PTRACE and
 * CAP_DAC_READ_SEARCH, if root starts it; for an ordinary user it has no privilege and runs
 * fusermount3. It ends when the daemon's ends of its sockets are closed, however the daemon ends.
 */
#ifndef FDIO_COMMAND_UNMOUNTER_H
#define FDIO_COMMAND_UNMOUNTER_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"

struct unmounter;

/*
 * Starts the process, before any other thread exists. mountpoint: absolute. filter: a seccomp
 * filter for the process, too. 0, or -errno with a reason.
 */
int unmounter_new(const char *mountpoint, bool filter, struct unmounter **ret,
		  struct fdio_reason *reason) FDIO_BLOCKS;
/*
 * Called once the mount exists: the process remembers this mount and from now on never unmounts
 * another one, even on the same path. Main thread.
 */
void unmounter_mounted(struct unmounter *unmounter);
/*
 * Unmounts the mount, wherever it is by now. 0, or -errno: -EBUSY: files are open and lazy is not
 * set; -EINVAL: it is not mounted any more; -EEXIST: another mount covers it, or a directory above
 * it; -EPERM: an ordinary user can only unmount lazily. Waits as umount(2) does: until a fuseblk
 * daemon has answered DESTROY. One thread at a time.
 */
int unmounter_do(struct unmounter *unmounter, bool lazy);
/*
 * After unmounter_do: writes to buf, in words, where the file system is still mounted
 * (mounts_holders). False: no mount was found. Called by the thread that calls unmounter_do.
 */
bool unmounter_holders(struct unmounter *unmounter, char *buf, size_t cap);
/*
 * True if gid is among the supplementary groups of the process; false also if that cannot be found
 * out. Any thread that may block: usually for a moment, but for up to 2 s during an unmount.
 */
bool unmounter_in_group(struct unmounter *unmounter, uint32_t pid, uint32_t gid);
/*
 * The user and group of the thread pid for file access (caller_ids). False if they cannot be found
 * out. The thread must be waiting for our reply. Blocks as unmounter_in_group.
 */
bool unmounter_ids(struct unmounter *unmounter, uint32_t pid, uint32_t *uid, uint32_t *gid);
/*
 * True if the thread pid, whose user for file access is uid (or CALLER_UNKNOWN_ID), has the
 * capability cap in the user namespace of the mount; false also if that cannot be proved. The
 * thread must be waiting for our reply to its request: then neither its ID nor its credentials can
 * change. Blocks as unmounter_in_group.
 */
bool unmounter_capable(struct unmounter *unmounter, uint32_t pid, uint32_t uid, unsigned cap);
/*
 * True if the mount is still there, in this mount namespace. False also if that cannot be found
 * out, and during unmounter_do. Any thread that may block, as unmounter_in_group.
 */
bool unmounter_is_mounted(struct unmounter *unmounter);
/* Ends the process, waits for its exit and frees unmounter, which may be NULL. */
void unmounter_free(struct unmounter *unmounter) FDIO_BLOCKS;

#endif
