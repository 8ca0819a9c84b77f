/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watchdog: a thread that notices a device which no longer completes requests.
 *   - Always: it logs that the device is silent, and with which requests.
 *   - While the mount starts or ends: unless the device is silent, it calls tell_alive, so that the
 *     service manager goes on waiting.
 *   - Once the daemon has been told to end: it bounds how long that takes, because one request that
 *     never completes would delay the end for ever. After the limit it logs the requests in flight,
 *     aborts the connection, so that no client waits any longer, and ends the process. The device
 *     is then as after a power cut: the next mount replays the journal.
 */
#ifndef FDIO_COMMAND_WATCHDOG_H
#define FDIO_COMMAND_WATCHDOG_H

#include "base/nowait.h"
#include "base/util.h"

struct watchdog_config {
	const char *name; /* the device, for the log */
	/*
	 * How long an end waits for a device that completes nothing; the whole end may take ten
	 * times as long. 0: for ever.
	 */
	unsigned limit_ms;
	/* The callbacks run on the watchdog's thread and must not wait for the device. */
	void (*log_in_flight)(void *arg); /* logs the requests that are not answered yet */
	void (*tell_alive)(void *arg);    /* every 5 s while starting or ending, if not silent */
	void (*check_device)(void *arg);  /* every 5 s while serving */
	void (*give_up)(void *arg);       /* ends the process; if it returns (tests), all is over */
	void *arg;
};

struct watchdog;

/* Starts the thread, in the state of starting. Copies config. 0 or -errno. */
int watchdog_new(const struct watchdog_config *config, struct watchdog **ret) FDIO_BLOCKS;
/*
 * Opens the file that aborts the FUSE connection mounted on mountpoint; root can do that also where
 * fusectl is not mounted. If it cannot be opened, that is logged, and nothing is aborted. Main
 * thread, while starting, before the sandbox.
 */
void watchdog_open_abort(struct watchdog *watchdog, const char *mountpoint);
/* The mount serves; starting is over. Any thread. */
void watchdog_serving(struct watchdog *watchdog);
/*
 * The daemon has been asked to end: from now on a device that completes nothing is given up after
 * limit_ms. Any thread.
 */
void watchdog_end_asked(struct watchdog *watchdog);
/* No more requests are taken: from now on the whole end is bounded, too. Any thread. */
void watchdog_ending(struct watchdog *watchdog);
/* Ends the thread: the end has been reached. NULL is fine. Main thread. */
void watchdog_free(struct watchdog *watchdog) FDIO_BLOCKS;

#endif
