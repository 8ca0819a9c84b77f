/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the daemon gives up once it serves: capabilities, new privileges, the file tree, and every
 * system call that it does not make. SECURITY.md says what that protects against and what not. Main
 * thread; the unmounter process has a smaller one of its own.
 */
#ifndef FDIO_COMMAND_SANDBOX_H
#define FDIO_COMMAND_SANDBOX_H

#include "base/reason.h"
#include "base/util.h"

enum sandbox_mode { SANDBOX_ON = 0, SANDBOX_OFF, SANDBOX_LOG };

/*
 * Main thread, after the mount serves and everything that is opened by name is open; the filter and
 * no_new_privs reach all threads, which have no capabilities already (thread_start).
 *   always: the main thread's capabilities go, bounding set included
 *   ON, LOG: no_new_privs; the root directory becomes an empty one that is not in any tree (root
 *   only); a seccomp filter:
 *            forbidden calls fail with EPERM (ON), or are done and logged by the kernel (LOG)
 * 0, or -errno with one line in reason.
 */
int sandbox_enter(enum sandbox_mode mode, struct fdio_reason *reason);

/*
 * In the unmounter process, as root: keeps CAP_SYS_ADMIN, CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH if
 * they are there, and, with filter, the calls that it needs. 0 or -errno.
 */
int sandbox_unmounter(bool filter);

#endif
