/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signals: blocked in every thread and taken by one. SIGTERM and SIGINT unmount, as umount(8)
 * would; SIGUSR1 logs the counters; SIGHUP and SIGUSR2 do nothing. A mount that is gone from here
 * but still there elsewhere (another mount namespace has a copy, or a bind mount) keeps its
 * connection alive: who holds it is logged, and after a time, or at the second signal, the
 * connection is ended all the same.
 */
#ifndef FDIO_COMMAND_SIGNALS_H
#define FDIO_COMMAND_SIGNALS_H

#include "base/nowait.h"
#include "base/util.h"

struct transport;
struct unmounter;
struct watchdog;
struct signals;

struct signals_config {
	struct transport *transport;
	struct watchdog *watchdog;
	struct unmounter *unmounter;
	const char *name, *mountpoint; /* for the log */
	unsigned limit_ms;             /* how long others may hold the mount; 0: for ever */
	const bool *ended;             /* atomic: no request comes any more */
};

/*
 * In the main thread, before there is another one: all are blocked, but those that tell of a fault
 * of our own.
 */
void signals_block(void);
/* Starts the thread; what is pending is taken at once. 0 or -errno. */
int signals_start(const struct signals_config *config, struct signals **ret) FDIO_BLOCKS;
/* Ends the thread. NULL is fine. */
void signals_stop(struct signals *signals) FDIO_BLOCKS;
/*
 * SIGTERM or SIGINT came before the thread was there: does what it does to a process that does not
 * care.
 */
void signals_die(void) __attribute__((noreturn));

#endif
