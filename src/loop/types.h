/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Structures of the event loops. Included only inside src/loop. Unless its comment says otherwise,
 * a field belongs to the loop's thread while that runs, and to the main thread before and after.
 * loop.c calls the other files of the room, which do not call each other.
 */
#ifndef FDIO_LOOP_TYPES_H
#define FDIO_LOOP_TYPES_H

#include "base/lock.h"
#include "base/magic.h"
#include "loop/loop.h"

#include <sched.h>

/* place.c: zero at first; all but on are private to loop_wander_window. */
struct loop_wander {
	bool on;                  /* the loop polls, to stop a client from wandering */
	unsigned left;            /* windows of polling that are left */
	unsigned length;          /* value of left when polling began */
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
	bool placed;                     /* pinned to its CPU, and there are other CPUs */
	unsigned window_batches;
	uint64_t window_start_ns, window_ops;
	struct loop_wander wander;
	bool no_wander;                  /* ignores poll_auto_ns */
	unsigned window_arrivals;        /* batches that followed one of another loop */
	/* Batches that left more than one device request in flight, here or at that loop. */
	unsigned window_crowded;
	/* atomic: device requests in flight; written by the loop */
	unsigned nr_io;

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
	/* Atomic: index of the loop that handled the last batch; written only if that changes. */
	unsigned last fdio_cacheline_aligned;
};

/* ---- place.c ---- */
/* Puts the calling thread on the loop's CPU, if the configuration says so. */
void loop_place_start(struct loop *loop);
/* On the loop's thread: a batch of n completions has been handled. */
void loop_place_note(struct loop *loop, unsigned n);
/*
 * Evaluates a window of time with ops completions in `batches` batches, of which `arrivals`
 * followed a batch of another loop. True if the loop is to poll from now on. For place.c and its
 * test.
 */
bool loop_wander_window(struct loop_wander *wander, uint64_t ops, unsigned batches,
			unsigned arrivals);

#endif
