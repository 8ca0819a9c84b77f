/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What /proc says about the process that a request comes from. FUSE passes the process ID, user
 * and group, but neither the supplementary groups nor the capabilities. Runs in the unmounter
 * process, which still has the file tree. If something cannot be read, or may belong to another
 * process, the answer is false.
 */
#ifndef FDIO_COMMAND_CALLER_H
#define FDIO_COMMAND_CALLER_H

#include "base/util.h"

/* True if gid is among the supplementary groups of the process. */
bool caller_in_group(uint32_t pid, uint32_t gid);
/* For caller_capable: whatever user the thread belongs to. */
#define CALLER_UNKNOWN_ID UINT32_MAX
/*
 * True if the thread pid belongs to user uid and has the capability cap in our own user namespace.
 * False for pid 0, which means that the thread is in a PID namespace that we do not see. The root
 * user of a container is in another user namespace or, if the container shares ours, lacks the
 * capability.
 */
bool caller_capable(uint32_t pid, uint32_t uid, unsigned cap);

/*
 * The user and group for file access of the thread pid, as our user namespace numbers them. False
 * if they cannot be found out. The thread must be waiting for our reply.
 */
bool caller_ids(uint32_t pid, uint32_t *uid, uint32_t *gid);

#endif
