/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether a loop should look for the next request before it sleeps: pure arithmetic over windows of time, see wander.c. Used
 * by place.c on the loop's thread, and by the unit tests.
 */
#ifndef FDIO_LOOP_WANDER_H
#define FDIO_LOOP_WANDER_H

#include "base/util.h"

/* Zero to begin with. Fields are wander.c's own, but for on. */
struct loop_wander {
	bool on;                  /* the answer */
	unsigned left, length;    /* windows until it is tried without; how many that were at its beginning */
	unsigned calm;            /* windows without, in which nobody wandered */
};

/* A window has passed: ops completions came in so many batches, arrivals of these after another loop had been at work. */
bool loop_wander_window(struct loop_wander *w, uint64_t ops, unsigned batches, unsigned arrivals);

#endif
