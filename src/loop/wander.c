/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A client that waits for each answer is woken by the loop that answers, while that loop still runs. To the scheduler the client's
 * CPU is busy then, and another one has nothing to do: so it wakes the client there. The next request comes to the loop of that
 * CPU, which sends the client back with its answer, and so on: each request wakes a CPU that has just fallen asleep. That costs several
 * times what the request does, and because both CPUs sleep half of the time, nothing ends it.
 *
 * A loop that looks for more work for a moment instead of sleeping ends it: with somebody else running, the client's going to sleep is not
 * completed before it is woken again, and it stays. So loops that see requests come now here, now there, one at a time, poll. Whether it
 * is still needed cannot be seen while it helps, so it is left off now and then, for a window.
 *
 * No locks, no clock, no system calls; the loop's thread.
 */
#include "loop/wander.h"

#define BATCH_FEW 3u            /* completions a batch: more are a queue, which has no need of it */
#define ARRIVALS_PART 8u        /* one batch in so many comes after another loop's */
#define LENGTH_MIN 64u          /* windows */
#define LENGTH_MAX 1024u
#define CALM 16u                /* windows after which the next time is short again */

static bool is_wandering(uint64_t ops, unsigned batches, unsigned arrivals)
{
	return arrivals && ops < (uint64_t)BATCH_FEW * batches && arrivals * ARRIVALS_PART >= batches;
}

bool loop_wander_window(struct loop_wander *w, uint64_t ops, unsigned batches, unsigned arrivals)
{
	if (w->on) {
		w->on = --w->left > 0 && ops < (uint64_t)BATCH_FEW * batches;
	} else if (is_wandering(ops, batches, arrivals)) {
		w->length = w->length ? FDIO_MIN(w->length * 2, LENGTH_MAX) : LENGTH_MIN;
		w->left = w->length;
		w->calm = 0;
		w->on = true;
	} else if (++w->calm >= CALM) {
		w->length = 0;
	}
	return w->on;
}
