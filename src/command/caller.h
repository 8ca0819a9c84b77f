/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What /proc says of the process that a request comes from: FUSE tells its number, user and group,
 * and nothing of its groups and capabilities. Runs in the unmounter process, which still has the
 * file tree. What cannot be found out, or might be said of another process, is answered with false.
 */
#ifndef FDIO_COMMAND_CALLER_H
#define FDIO_COMMAND_CALLER_H

#include "base/util.h"

/* Whether gid is among the supplementary groups of the process. */
bool caller_in_group(uint32_t pid, uint32_t gid);
/*
 * Whether the thread pid (0: it is in a process namespace that we do not see) is of user uid and
 * has the capability cap in our own user namespace. Root of a container has neither the namespace
 * nor, if it shares that, the capability.
 */
bool caller_capable(uint32_t pid, uint32_t uid, unsigned cap);

#endif
