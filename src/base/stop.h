/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ending while starting. SIGTERM and SIGINT are blocked, and stay pending until the signal thread
 * runs. So whatever takes long before that asks fdio_stop_asked now and then, or waits by
 * fdio_stop_wait. Any thread, no state, nothing fails. In tests and tools these signals are not
 * blocked, and end the process as usual.
 */
#ifndef FDIO_BASE_STOP_H
#define FDIO_BASE_STOP_H

#include "base/nowait.h"
#include "base/util.h"

/* True if SIGTERM or SIGINT is pending. */
bool fdio_stop_asked(void);
/* Waits until the time until_ns (of fdio_now_ns), or until fdio_stop_asked, which it returns. */
bool fdio_stop_wait(uint64_t until_ns) FDIO_BLOCKS;

#endif
