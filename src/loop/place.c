/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a loop runs, and whether it polls for more work before it sleeps.
 *
 * loop_place_start puts a loop's thread on the CPU of its number, beside the clients whose requests
 * it gets. Where that fails (the CPU is offline or not allowed) the scheduler decides.
 * loop_place_note counts batches of completions, and evaluates windows of time.
 *
 * Wandering: a client that waits for each answer is woken by the loop that answers, while that loop
 * still runs. To the scheduler the client's CPU is busy then and another one is idle, so it wakes
 * the client there. The client's next request comes to the loop of that CPU, which sends the client
 * back with its answer, and so on: each request wakes a CPU that has just fallen asleep. That costs
 * several times what the request does, and because both CPUs sleep half of the time, the scheduler
 * sees no reason to stop.
 *
 * A loop that polls for a moment instead of sleeping stops it: while another thread runs on its
 * CPU, the client has not fully gone to sleep when it is woken again, and stays. So a loop polls
 * when single requests come now to it and now to another loop. Whether polling is still needed
 * cannot be seen while it helps, so it is left off now and then for a window.
 *
 * Runs on the loop's own thread. No locks: loop_set.last and loop.nr_io are atomics that other
 * loops read. The clock is read once in WINDOW_BATCHES batches, and the affinity is set once.
 * Nothing here fails; a loop that could not be pinned never polls by itself.
 */
#include "loop/types.h"

#include "base/counters.h"
#include "base/log.h"

#define WINDOW_NS 4000000u
#define CROWDED_PART 8u         /* crowded: 1 in 8 batches leaves several requests in flight */
#define WINDOW_BATCHES 32u      /* the clock is read once in this many batches */
#define BATCH_FEW 3u            /* completions per batch; a deeper queue needs no polling */
#define ARRIVALS_PART 8u        /* wandering: 1 in 8 batches follows one of another loop */
#define LENGTH_MIN 64u          /* windows of polling until a try without */
#define LENGTH_MAX 1024u
#define CALM 16u                /* windows without wandering: the next length is short again */

/* ---- wandering: pure arithmetic ---- */

/* True if a window looks like a client that wanders. */
static bool is_wandering(uint64_t ops, unsigned batches, unsigned arrivals)
{
	return arrivals && ops < (uint64_t)BATCH_FEW * batches &&
	       arrivals * ARRIVALS_PART >= batches;
}

bool loop_wander_window(struct loop_wander *wander, uint64_t ops, unsigned batches,
			unsigned arrivals)
{
	if (wander->on) {
		wander->on = --wander->left > 0 && ops < (uint64_t)BATCH_FEW * batches;
	} else if (is_wandering(ops, batches, arrivals)) {
		wander->length = wander->length ? FDIO_MIN(wander->length * 2, LENGTH_MAX)
						: LENGTH_MIN;
		wander->left = wander->length;
		wander->calm = 0;
		wander->on = true;
	} else if (++wander->calm >= CALM) {
		wander->length = 0;
	}
	return wander->on;
}

/* ---- placement and windows ---- */

void loop_place_start(struct loop *loop)
{
	cpu_set_t may, own;

	if (!loop->set->config.pin)
		return;
	CPU_ZERO(&own);
	CPU_SET(loop->cpu, &own);
	loop->placed = !sched_getaffinity(0, sizeof(may), &may) && CPU_COUNT(&may) > 1 &&
		    !sched_setaffinity(0, sizeof(own), &own);
	if (!loop->placed) /* the CPU is offline, or not in the cpuset */
		log_debug("loop %u is not placed: CPU %u cannot be used", loop->index, loop->cpu);
}

/* The window is over: decides whether the loop polls in the next. */
static void evaluate_window(struct loop *loop, uint64_t now)
{
	if (loop->window_crowded * CROWDED_PART >= loop->window_batches) {
		/* Several requests in flight: the CPU is rarely idle, and polling costs time. */
		loop->wander = (struct loop_wander){ 0 };
		loop->poll_ns = loop->set->config.poll_ns;
	} else if (loop->set->config.poll_auto_ns && !loop->no_wander) {
		bool was_on = loop->wander.on;

		loop->poll_ns = loop_wander_window(&loop->wander, loop->window_ops,
						   loop->window_batches, loop->window_arrivals)
						? loop->set->config.poll_auto_ns
						: 0;
		if (loop->wander.on && !was_on)
			fdio_count(COUNTER_loop_wander);
	}
	loop->window_start_ns = now;
	loop->window_ops = 0;
	loop->window_batches = loop->window_arrivals = loop->window_crowded = 0;
}

/* All loops share loop_set.last; its cache line moves only when another loop gets to work. */
static void note_turn(struct loop *loop)
{
	unsigned last = __atomic_load_n(&loop->set->last, __ATOMIC_RELAXED), io = loop->nr_io;

	if (last != loop->index) {
		io += __atomic_load_n(&loop->set->loops[last].nr_io, __ATOMIC_RELAXED);
		__atomic_store_n(&loop->set->last, loop->index, __ATOMIC_RELAXED);
		loop->window_arrivals++;
	}
	loop->window_crowded += io > 1;
}

void loop_no_wander(struct loop *loop)
{
	loop->no_wander = true;
	loop->wander = (struct loop_wander){ 0 };
	loop->poll_ns = loop->set->config.poll_ns;
}

void loop_note_io(struct loop *loop, int n)
{
	__atomic_store_n(&loop->nr_io, loop->nr_io + (unsigned)n, __ATOMIC_RELAXED);
}

void loop_place_note(struct loop *loop, unsigned n)
{
	if (!loop->placed)
		return;
	loop->window_ops += n;
	note_turn(loop);
	if (++loop->window_batches % WINDOW_BATCHES)
		return;
	uint64_t now = fdio_now_ns();
	if (now - loop->window_start_ns >= WINDOW_NS)
		evaluate_window(loop, now);
}
