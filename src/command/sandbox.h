/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sandbox: once the mount serves, the daemon gives up its capabilities, new privileges, the
 * file tree, and all system calls except those of sandbox.def. SECURITY.md says what that protects
 * against and what not. The unmounter process has a smaller sandbox of its own.
 */
#ifndef FDIO_COMMAND_SANDBOX_H
#define FDIO_COMMAND_SANDBOX_H

#include "base/reason.h"
#include "base/util.h"

enum sandbox_mode { SANDBOX_ON = 0, SANDBOX_OFF, SANDBOX_LOG };

/*
 * Main thread, after the mount serves and after all files that are opened by name.
 *   always    drops the main thread's capabilities, bounding set included; the other threads have
 *             none since thread_start
 *   ON, LOG   makes an empty directory, outside any file tree, the root directory (root only); sets
 *             no_new_privs and a seccomp filter for all threads
 *   ON        a call that is not allowed fails with EPERM
 *   LOG       such a call succeeds, and the kernel logs it
 * 0, or -errno with a reason.
 */
int sandbox_enter(enum sandbox_mode mode, struct fdio_reason *reason);

/*
 * In the unmounter process, as root: drops all capabilities but CAP_SYS_ADMIN, and CAP_SYS_PTRACE
 * and CAP_DAC_READ_SEARCH if it has them; filter: also all system calls that it does not need. 0 or
 * -errno.
 */
int sandbox_unmounter(bool filter);

#endif
