/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The unmounter: a small process that does what the daemon cannot do any more once it serves. It
 * unmounts when told to, and looks up in /proc what a caller may do (caller.h), so that the daemon
 * itself needs no privilege and no file tree. It is forked while the daemon has one thread and no
 * device open. It holds CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH and nothing else (or,
 * for an ordinary user, runs fusermount3), and ends when its socket does, however the daemon ends.
 */
#ifndef FDIO_COMMAND_UNMOUNTER_H
#define FDIO_COMMAND_UNMOUNTER_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"

struct unmounter;

/*
 * Before any other thread exists. mountpoint: absolute. filter: a seccomp filter for it too.
 * reason: one line.
 */
int unmounter_new(const char *mountpoint, bool filter, struct unmounter **ret,
		struct fdio_reason *reason) FDIO_BLOCKS;
/*
 * The mount is there. From now on nothing else is unmounted, if something else should be mounted at
 * that place.
 */
void unmounter_mounted(struct unmounter *unmounter);
/*
 * Unmounts it, wherever it is by now. 0, or -errno: -EBUSY when files are open and lazy is not set;
 * -EINVAL when it is not mounted any more; -EEXIST when another mount covers it, or a directory
 * above it; -EPERM for an ordinary user unless lazy. Waits as umount(2) does: until a fuseblk
 * daemon has answered DESTROY. One thread at a time.
 */
int unmounter_do(struct unmounter *unmounter, bool lazy);
/*
 * Who else has the file system mounted, in words, once it is unmounted here; false: nobody that can
 * be seen. One thread at a time, the one that calls unmounter_do.
 */
bool unmounter_holders(struct unmounter *unmounter, char *buf, size_t cap);
/*
 * Whether gid is among the supplementary groups of the process; false also when that cannot be
 * found out. Any thread; blocks for a moment, in the worst case (an unmount is under way) for two
 * seconds.
 */
bool unmounter_in_group(struct unmounter *unmounter, uint32_t pid, uint32_t gid);
/*
 * Whether the thread pid, whose user for files is uid, has the capability cap in the user namespace
 * of the mount; false also when that cannot be proved. It must be waiting for our answer: then
 * neither its number nor its credentials can change. Any thread; blocks as above.
 */
bool unmounter_capable(struct unmounter *unmounter, uint32_t pid, uint32_t uid, unsigned cap);
/* Ends the process. NULL is fine. */
void unmounter_free(struct unmounter *unmounter) FDIO_BLOCKS;

#endif
