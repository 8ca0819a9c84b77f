/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a loop should run, decided from what it did: pure arithmetic over windows of time, see loop_trial.c. Used by
 * loop_place.c on the loop's thread, and by the unit tests with rates of their own.
 */
#ifndef FDIO_LOOP_LOOP_TRIAL_H
#define FDIO_LOOP_LOOP_TRIAL_H

#include "base/util.h"

/* What a loop did in a window of some milliseconds. */
struct loop_window {
	uint64_t ns;
	uint64_t ops;           /* completions */
	unsigned batches;       /* they came in so many */
	const uint64_t *others; /* completions of each other loop in that time */
	unsigned nr_others;
	unsigned cpus;          /* that the process may use */
};

/* Zero to begin with. Fields are loop_trial.c's own, but for away. */
struct loop_trial {
	bool away;              /* the answer */
	bool deep, trying;
	unsigned age;           /* windows of this deep queue */
	unsigned hold, next_hold; /* windows until a deep queue counts again */
	unsigned pause, until;  /* windows between trials, to the next */
	unsigned measured;
	uint64_t measured_ops, measured_ns, rate_before;
};

/* A window has passed: true if the loop should now run away from its own CPU. */
bool loop_trial_window(struct loop_trial *t, const struct loop_window *w);

#endif
