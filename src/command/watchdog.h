/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watchdog: a thread that notices a device which no longer completes anything. While the mount
 * starts and serves it says so in the log. While it starts or ends, and the device does not keep it
 * waiting, it also tells whoever must know that this goes on. Once the daemon has been told to end,
 * it bounds how long the end can take, because a request that never completes would hold it up for
 * ever: it logs what is in flight, aborts the connection, so that no client waits any longer, and
 * ends the process. What that leaves is what a power cut leaves: the next mount replays the
 * journal.
 */
#ifndef FDIO_COMMAND_WATCHDOG_H
#define FDIO_COMMAND_WATCHDOG_H

#include "base/nowait.h"
#include "base/util.h"

struct watchdog_config {
	const char *name;            /* the device, for the log */
	/* time without any completion that an end waits; ten times as many in all. 0: for ever */
	unsigned limit_ms;
	void (*in_flight)(void *arg); /* logs what is not answered yet */
	void (*alive)(void *arg);     /* starting or ending, and not stuck: every few seconds */
	/* serving: every few seconds, for what nobody else would see */
	void (*look)(void *arg);
	/* ends the process; tests return from it, and the watchdog rests */
	void (*give_up)(void *arg);
	void *arg;
};

struct watchdog;

/* Starts the thread. 0 or -errno. */
int watchdog_new(const struct watchdog_config *config, struct watchdog **ret) FDIO_BLOCKS;
/*
 * Opens the file that aborts the FUSE connection mounted on mountpoint, for root also where fusectl
 * is not mounted; without it, which is logged, nothing is aborted. While starting, before the
 * sandbox.
 */
void watchdog_open_abort(struct watchdog *watchdog, const char *mountpoint);
/* The mount serves: starting is over. */
void watchdog_serving(struct watchdog *watchdog);
/*
 * The daemon has been asked to end: from now on a device that completes nothing is waited for
 * limit_ms. Any thread.
 */
void watchdog_asked(struct watchdog *watchdog);
/* No more requests are taken: from now on the whole end is bounded too. Any thread. */
void watchdog_ending(struct watchdog *watchdog);
/* The end has been reached. NULL is fine. */
void watchdog_free(struct watchdog *watchdog) FDIO_BLOCKS;

#endif
