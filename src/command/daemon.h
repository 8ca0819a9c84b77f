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

/* Closes all descriptors that were inherited, except the standard streams. Before any is opened. */
void daemon_close_inherited(void);
/*
 * Forks, before any other thread exists. In the child returns 0. The parent never returns: it waits
 * for daemon_ready in the child and exits with 0, or with the child's exit status if the child ends
 * before. The parent passes SIGTERM and SIGINT on to the child. -errno: there is no child.
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
 * The mount serves: lets the parent exit and detaches from the terminal; log lines go to syslog
 * from now on. Without daemon_fork it does nothing.
 */
void daemon_ready(void);
/*
 * Sends one datagram to the service manager, if there is one: vars ("READY=1"), and what the daemon
 * is doing, in words. Any thread; waits for the service manager only with READY=.
 */
void daemon_notify(const char *vars, const char *status, ...) __attribute__((format(printf, 2, 3)));
/*
 * Raises the limits of open files and of file size as far as it may. -EFBIG with a reason if a file
 * of this many bytes could then still not be written; bytes 0: none is going to be written.
 */
int daemon_raise_limits(uint64_t bytes, struct fdio_reason *reason);
/*
 * Locks the process in memory (mlockall) and exempts it from reclaim and the OOM killer
 * (PR_SET_IO_FLUSHER, oom_score_adj). Before any other thread exists. -errno with a reason if one
 * of them fails.
 */
int daemon_mlock(struct fdio_reason *reason) FDIO_BLOCKS;
/*
 * Enters a mount namespace. ns: the number of a process, or the path of a namespace file. -errno
 * with a reason.
 */
int daemon_setns(const char *ns, struct fdio_reason *reason);

#endif
