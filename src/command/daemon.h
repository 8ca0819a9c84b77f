/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon as a process: going to the background, notifying the service manager, limits, locked
 * memory, the mount namespace. Main thread; daemon_notify: any thread. No locks.
 */
#ifndef FDIO_COMMAND_DAEMON_H
#define FDIO_COMMAND_DAEMON_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"

/*
 * Closes all inherited descriptors except the standard streams. Call it before the daemon opens any
 * descriptor of its own.
 */
void daemon_close_inherited(void);
/*
 * Forks, before any other thread exists. In the child returns 0. The parent never returns: it waits
 * until the child calls daemon_ready and then exits with 0, or exits with the child's exit status
 * if the child ends before that. The parent passes SIGTERM and SIGINT on to the child. -errno if
 * the fork failed.
 */
int daemon_fork(void) FDIO_BLOCKS;
/*
 * Connects to the service manager, if $NOTIFY_SOCKET names one. Before other threads exist, because
 * daemon_notify reads the socket's descriptor on any thread.
 */
void daemon_open_notify(void);
/*
 * After daemon_fork, before the sandbox: opens the files that are needed later, and changes to /.
 * Without daemon_fork it does nothing.
 */
void daemon_open_files(void);
/*
 * Called once the mount serves: lets the parent exit and detaches from the terminal; log lines go
 * to syslog from now on. Without daemon_fork it does nothing.
 */
void daemon_ready(void);
/*
 * Sends one datagram to the service manager, if there is one: vars ("READY=1"), and what the daemon
 * is doing, in words. Any thread; waits for the service manager only with READY=.
 */
void daemon_notify(const char *vars, const char *status, ...) __attribute__((format(printf, 2, 3)));
/*
 * Raises RLIMIT_NOFILE and RLIMIT_FSIZE as far as the process may. -EFBIG with a reason if
 * RLIMIT_FSIZE is still below bytes, the size of the image file; bytes is 0 if no image file is
 * going to be written.
 */
int daemon_raise_limits(uint64_t bytes, struct fdio_reason *reason);
/*
 * Locks the process in memory (mlockall) and exempts it from reclaim and the OOM killer
 * (PR_SET_IO_FLUSHER, oom_score_adj). Before any other thread exists. -errno with a reason if one
 * of them fails.
 */
int daemon_mlock(struct fdio_reason *reason) FDIO_BLOCKS;
/*
 * Enters a mount namespace. ns: a process ID, or the path of a namespace file. -errno
 * with a reason.
 */
int daemon_setns(const char *ns, struct fdio_reason *reason);

#endif
