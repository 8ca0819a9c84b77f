/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Being told to end during the start. SIGTERM and SIGINT are blocked, and stay pending until the
 * signal thread runs. So a step that takes long before that calls fdio_stop_asked now and then, or
 * waits by fdio_stop_wait. Any thread, no state, nothing fails. In tests and tools these signals
 * are not blocked, and end the process as usual.
 */
#ifndef FDIO_BASE_STOP_H
#define FDIO_BASE_STOP_H

#include "base/nowait.h"
#include "base/util.h"

/* True if SIGTERM or SIGINT is pending. */
bool fdio_stop_asked(void);
/* Sleeps until fdio_now_ns reaches until_ns, or fdio_stop_asked is true; returns the latter. */
bool fdio_stop_wait(uint64_t until_ns) FDIO_BLOCKS;

#endif
