/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Starting threads. Every thread of the daemon but the first one is started here, so that none
 * takes signals, which are for the signal thread, and none has a capability: the main thread does
 * what needs privileges before the mount is served, and the unmounter process after that. Any
 * thread that may block; no locks.
 */
#ifndef FDIO_BASE_THREAD_H
#define FDIO_BASE_THREAD_H

#include "base/nowait.h"
#include "base/util.h"

#include <pthread.h>

/*
 * Runs fn(arg) on a new thread with all signals blocked and without capabilities, in the bounding
 * set too. Of name, 15 bytes are kept. 0, or -errno and no thread.
 */
int thread_start(pthread_t *ret, const char *name, void *(*fn)(void *), void *arg) FDIO_BLOCKS;

/*
 * The calling thread gives up all capabilities for good, and the bounding set if it may. 0 or
 * -errno.
 */
int thread_drop_capabilities(void);

#endif
