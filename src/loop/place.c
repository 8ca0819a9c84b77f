/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Puts a loop's thread on the CPU of its number, beside the clients whose requests it gets, and looks back at windows of time. Called
 * by the loop on its own thread; asks the kernel for nothing but its affinity, once. What cannot be placed (a CPU that is offline or
 * not allowed) stays where the scheduler puts it.
 */
#include "loop/types.h"

#include "base/counters.h"
#include "base/log.h"

#define WINDOW_NS 4000000u
#define CROWDED_PART 8u         /* one batch in so many */
#define WINDOW_BATCHES 32u      /* the clock is read once in so many batches */

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
