/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signals: blocked in all threads, taken by the signal thread. SIGTERM and SIGINT unmount, as
 * umount(8) would; SIGUSR1 logs the counters; SIGHUP and SIGUSR2 do nothing.
 *
 * After the unmount the file system may still be mounted elsewhere (a copy in another mount
 * namespace, a bind mount), and then the FUSE connection stays alive. The signal thread logs where
 * the file system is still mounted, and ends the connection after limit_ms, or at a second SIGTERM
 * or SIGINT.
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
	unsigned limit_ms;             /* how long it may stay mounted elsewhere; 0: for ever */
	const bool *ended;             /* atomic: the kernel sends no more requests */
};

/*
 * Blocks all signals except those that report a fault of this program, such as SIGSEGV. Main
 * thread, before any other exists: later threads inherit it.
 */
void signals_block(void);
/* Starts the thread, which takes pending signals at once. Copies config. 0 or -errno. */
int signals_start(const struct signals_config *config, struct signals **ret) FDIO_BLOCKS;
/* Ends the thread. NULL is fine. */
void signals_stop(struct signals *signals) FDIO_BLOCKS;
/* Ends the process by the SIGTERM or SIGINT that came before the signal thread existed. */
void signals_die(void) __attribute__((noreturn));

#endif
