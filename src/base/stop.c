/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Being told to end during the start, see stop.h. Any thread, no locks, nothing fails. These
 * functions leave the signals pending, for the signal thread to take.
 */
#include "base/stop.h"

#include "base/lock.h"

#include <signal.h>
#include <time.h>

#define SLICE_NS 50000000ull

bool fdio_stop_asked(void)
{
	sigset_t set;

	return !sigpending(&set) &&
	       (sigismember(&set, SIGTERM) == 1 || sigismember(&set, SIGINT) == 1);
}

bool fdio_stop_wait(uint64_t until_ns)
{
	for (;;) {
		uint64_t now = fdio_now_ns();
		struct timespec nap = { 0 };

		if (fdio_stop_asked())
			return true;
		if (now >= until_ns)
			return false;
		nap.tv_nsec = (long)FDIO_MIN(until_ns - now, SLICE_NS);
		nanosleep(&nap, NULL);
	}
}
