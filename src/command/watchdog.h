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
	void (*give_up)(void *arg);       /* ends the process; in tests it returns */
	void *arg;
};

struct watchdog;

/* Starts the thread, in the phase "the mount starts". Copies config. 0 or -errno. */
int watchdog_new(const struct watchdog_config *config, struct watchdog **ret) FDIO_BLOCKS;
/*
 * Opens the file of fusectl that aborts the FUSE connection of mountpoint; for root this works even
 * where fusectl is not mounted. If the open fails, it is logged, and the watchdog will end the
 * process without aborting the connection. Main
 * thread, while starting, before the sandbox.
 */
void watchdog_open_abort(struct watchdog *watchdog, const char *mountpoint);
/* The mount serves; starting is over. Any thread. */
void watchdog_serving(struct watchdog *watchdog);
/*
 * The daemon has been asked to end: from now on the watchdog gives up after a device has completed
 * nothing for limit_ms. Any thread.
 */
void watchdog_end_asked(struct watchdog *watchdog);
/* The kernel sends no more requests: from now on the whole end is bounded, too. Any thread. */
void watchdog_ending(struct watchdog *watchdog);
/* Stops the thread and frees watchdog, which may be NULL. Main thread, at the very end. */
void watchdog_free(struct watchdog *watchdog) FDIO_BLOCKS;

#endif
