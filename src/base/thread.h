/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starting threads: every thread of the daemon but the first one is made here, so that none of them
 * takes signals (they belong to the signal thread) and none of them holds a capability: what is
 * privileged is done by the main thread before it serves, and by the unmounter process after that.
 * Any thread that may block; no locks.
 */
#ifndef FDIO_BASE_THREAD_H
#define FDIO_BASE_THREAD_H

#include "base/nowait.h"
#include "base/util.h"

#include <pthread.h>

/*
 * Runs fn(arg) on a new thread named name (at most 15 characters are kept) with all signals blocked
 * and no capabilities, bounding set included. 0, or -errno and no thread.
 */
int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg) FDIO_BLOCKS;

/*
 * The calling thread gives up every capability for good; the bounding set as well if it may. 0 or
 * -errno.
 */
int thread_drop_capabilities(void);

#endif
