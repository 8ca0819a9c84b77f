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
 * several times what the request does, and because both CPUs sleep half of the time, nothing ends it.
 *
 * A loop that polls for a moment instead of sleeping ends it: while another thread runs on its CPU,
 * the client's going to sleep is not completed before it is woken again, and the client stays.
 * So a loop polls when requests come now to it and now to another loop, one at a time. Whether
 * polling is still needed cannot be seen while it helps, so it is left off now and then for a window.
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

/* ---- placement and windows ---- */

void loop_place_start(struct loop *l)
{
	cpu_set_t may, own;

	if (!l->set->cfg.pin)
		return;
	CPU_ZERO(&own);
	CPU_SET(l->cpu, &own);
	l->placed = !sched_getaffinity(0, sizeof(may), &may) && CPU_COUNT(&may) > 1 &&
		    !sched_setaffinity(0, sizeof(own), &own);
	if (!l->placed) /* An offline CPU or a cpuset without it: the scheduler decides. */
		log_debug("loop %u is not placed: CPU %u cannot be used", l->index, l->cpu);
}

static void look_back(struct loop *l, uint64_t now)
{
	if (l->window_crowded * CROWDED_PART >= l->window_batches) {
		/* Several clients: none of them would find its CPU idle for long, and polling takes it from them. */
		l->wander = (struct loop_wander){ 0 };
		l->poll_ns = l->set->cfg.poll_ns;
	} else if (l->set->cfg.poll_auto_ns && !l->no_wander) {
		bool was_on = l->wander.on;

		l->poll_ns = loop_wander_window(&l->wander, l->window_ops, l->window_batches, l->window_arrivals) ? l->set->cfg.poll_auto_ns : 0;
		if (l->wander.on && !was_on)
			fdio_count(CTR_loop_wander);
	}
	l->window_start_ns = now;
	l->window_ops = 0;
	l->window_batches = l->window_arrivals = l->window_crowded = 0;
}

/* The line is shared by all loops; it stays where it is while one of them is alone at work. */
static void note_turn(struct loop *l)
{
	unsigned last = __atomic_load_n(&l->set->last, __ATOMIC_RELAXED), io = l->nr_io;

	if (last != l->index) {
		io += __atomic_load_n(&l->set->loops[last].nr_io, __ATOMIC_RELAXED);
		__atomic_store_n(&l->set->last, l->index, __ATOMIC_RELAXED);
		l->window_arrivals++;
	}
	l->window_crowded += io > 1;
}

void loop_no_wander(struct loop *l)
{
	l->no_wander = true;
	l->wander = (struct loop_wander){ 0 };
	l->poll_ns = l->set->cfg.poll_ns;
}

void loop_note_io(struct loop *l, int n) { __atomic_store_n(&l->nr_io, l->nr_io + (unsigned)n, __ATOMIC_RELAXED); }

void loop_place_note(struct loop *l, unsigned n)
{
	if (!l->placed)
		return;
	l->window_ops += n;
	note_turn(l);
	if (++l->window_batches % WINDOW_BATCHES)
		return;
	uint64_t now = fdio_now_ns();
	if (now - l->window_start_ns >= WINDOW_NS)
		look_back(l, now);
}
