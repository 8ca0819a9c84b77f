/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether this process has been told to end while it is still starting. SIGTERM and SIGINT are
 * blocked and stay pending until the thread that takes them is there; what takes long before that
 * asks here, or does its waiting here. Any thread, no state, cannot fail. Where these signals are
 * not blocked (tests, tools), they do what they always do.
 */
#ifndef FDIO_BASE_STOP_H
#define FDIO_BASE_STOP_H

#include "base/nowait.h"
#include "base/util.h"

/* SIGTERM or SIGINT is pending. */
bool fdio_stop_asked(void);
/* Waits until this moment of fdio_now_ns, or until told to end. True: told to end. */
bool fdio_stop_wait(uint64_t until_ns) FDIO_BLOCKS;

#endif
