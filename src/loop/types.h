/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Struct bodies of the event loops. Included only inside src/loop. Fields without a remark belong
 * to the loop's thread once it runs, and to the main thread before and after.
 */
#ifndef FDIO_LOOP_TYPES_H
#define FDIO_LOOP_TYPES_H

#include "base/lock.h"
#include "base/magic.h"
#include "loop/loop.h"

#include <sched.h>

/* place.c. Zero to begin with; on is for all, the others are loop_wander_window's own. */
struct loop_wander {
	bool on;                  /* the loop polls, against wandering */
	/* windows until it is tried without; how many that were at its beginning */
	unsigned left, length;
	unsigned calm;            /* windows without polling in which no client wandered */
};

struct loop {
	FDIO_MAGIC_FIELD;
	struct io_uring ring;
	struct loop_set *set;
	unsigned index;
	unsigned cpu;
	bool ring_on;
	int efd;
	uint64_t efd_value;
	struct loop_op efd_op;
	bool stop;
	struct loop_msg stop_msg;
	pthread_t thread;
	bool thread_on;

	unsigned poll_ns, poll_credit, poll_skipped;

	/* place.c */
	bool placed;                     /* on a CPU of its own, and there are others */
	unsigned window_batches;
	uint64_t window_start_ns, window_ops;
	struct loop_wander wander;
	bool no_wander;                  /* poll_auto_ns does not matter */
	unsigned window_arrivals;        /* batches after another loop's */
	/* batches that left more than one device request under way, here or at that loop */
	unsigned window_crowded;
	unsigned nr_io;                  /* atomic: device requests under way; this loop writes */

	struct loop_msg *msgs fdio_cacheline_aligned; /* atomic: newest first */
	bool notified;                   /* atomic, LOOP-1 */
};

struct loop_set {
	FDIO_MAGIC_FIELD;
	struct loop_config config;
	unsigned nr;
	unsigned setup_flags;            /* what the kernel took */
	struct loop *loops;
	struct fdio_mutex start_lock;    /* RANK_LEAF; guards nr_started */
	pthread_cond_t start_cond;
	unsigned nr_started;
	/* atomic: the loop that was last at work; only written when it is another one */
	unsigned last fdio_cacheline_aligned;
};

/* ---- place.c ---- */
/* On the loop's thread. */
void loop_place_start(struct loop *loop);
/* A batch of n completions has been handled. */
void loop_place_note(struct loop *loop, unsigned n);
/*
 * A window has passed: ops completions came in so many batches, arrivals of these after another
 * loop had been at work. Returns whether the loop is to poll. For place.c and its test.
 */
bool loop_wander_window(struct loop_wander *wander, uint64_t ops, unsigned batches,
			unsigned arrivals);

#endif
