/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a loop runs, and whether it looks for more work before it sleeps.
 *
 * loop_place_start puts a loop's thread on the CPU of its number, beside the clients whose requests
 * it gets. What cannot be placed (a CPU that is offline or not allowed) stays where the scheduler
 * puts it. loop_place_note then counts batches of completions and looks back at windows of time.
 *
 * Wandering: a client that waits for each answer is woken by the loop that answers, while that loop
 * still runs. To the scheduler the client's CPU is busy then and another one is idle, so it wakes
 * the client there. The client's next request comes to the loop of that CPU, which sends it back
 * with its answer, and so on: each request wakes a CPU that has just fallen asleep. That costs
 * several times what the request does, and because both CPUs sleep half of the time, nothing ends
 * it.
 *
 * A loop that polls for a moment instead of sleeping ends it: while another thread runs on its CPU,
 * the client's going to sleep is not completed before it is woken again, and the client stays. So a
 * loop polls when requests come now to it and now to another loop, one at a time. Whether polling
 * is still needed cannot be seen while it helps, so it is left off now and then for a window.
 *
 * Thread: the loop's own. Locks: none; loop_set.last and loop.nr_io are atomics that other loops
 * read. The clock is read once in WINDOW_BATCHES batches, and the kernel is asked for nothing but
 * the affinity, once. Nothing here fails: a loop that is not placed is not looked at.
 */
#include "loop/types.h"

#include "base/counters.h"
#include "base/log.h"

#define WINDOW_NS 4000000u
#define CROWDED_PART 8u         /* one batch in so many */
#define WINDOW_BATCHES 32u      /* the clock is read once in so many batches */
#define BATCH_FEW 3u            /* completions a batch: more are a queue, which has no need of it */
#define ARRIVALS_PART 8u        /* one batch in so many comes after another loop's */
#define LENGTH_MIN 64u          /* windows */
#define LENGTH_MAX 1024u
#define CALM 16u                /* windows after which the next time is short again */

/* ---- wandering: pure arithmetic ---- */

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
	if (!loop->placed) /* An offline CPU or a cpuset without it: the scheduler decides. */
		log_debug("loop %u is not placed: CPU %u cannot be used", loop->index, loop->cpu);
}

static void look_back(struct loop *loop, uint64_t now)
{
	if (loop->window_crowded * CROWDED_PART >= loop->window_batches) {
		/*
		 * Several clients: none of them would find its CPU idle for long, and polling takes
		 * it from them.
		 */
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

/* The line is shared by all loops; it stays where it is while one of them is alone at work. */
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
		look_back(loop, now);
}
