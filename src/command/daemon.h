/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Going to the background, telling the service manager, and staying in memory. Main thread, before
 * any other exists, but for daemon_notify.
 */
#ifndef FDIO_COMMAND_DAEMON_H
#define FDIO_COMMAND_DAEMON_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"

/*
 * First of all: closes what whoever started us left open, but for the standard streams. Nothing of
 * ours is open yet.
 */
void daemon_close_inherited(void);
/*
 * Forks. The child returns 0 and carries on; the parent waits until the child calls daemon_ready
 * and exits with 0, or with the child's exit status if it ends before. SIGTERM and SIGINT of the
 * parent reach the child. -errno if there can be no child.
 */
int daemon_fork(void) FDIO_BLOCKS;
/* Connects to the service manager, if there is one ($NOTIFY_SOCKET). */
void daemon_open_notify(void);
/* After daemon_fork: opens what is opened by name and used later. Changes to /. */
void daemon_open_files(void);
/*
 * The mount answers: lets the parent go, detaches from the terminal; log lines go to syslog. No-op
 * without daemon_fork.
 */
void daemon_ready(void);
/*
 * One datagram to the service manager: vars ("READY=1"), and what the daemon is doing, in words.
 * Any thread.
 */
void daemon_notify(const char *vars, const char *status, ...) __attribute__((format(printf, 2, 3)));
/*
 * Raises the limits of open files and of the size of files as far as it may; then a file of so many
 * bytes must be writable. bytes 0: nothing is going to be written. reason: one line.
 */
int daemon_raise_limits(uint64_t bytes, struct fdio_reason *reason);
/*
 * mlockall, PR_SET_IO_FLUSHER, oom_score_adj; each verified. Before any other thread exists.
 * reason: one line.
 */
int daemon_mlock(struct fdio_reason *reason) FDIO_BLOCKS;
/* Enters the mount namespace of a process id or a namespace file. */
int daemon_setns(const char *ns, struct fdio_reason *reason);

#endif
