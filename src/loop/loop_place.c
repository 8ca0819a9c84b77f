/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Puts a loop's thread on the CPU of its number, beside the clients whose requests it gets, and looks back at windows of time. Called
 * by the loop on its own thread; asks the kernel for nothing but its affinity, once. What cannot be placed (a CPU that is offline or
 * not allowed) stays where the scheduler puts it.
 */
#include "loop/loop_types.h"

#include "base/counters.h"
#include "base/log.h"

#define WINDOW_NS 4000000u
#define WINDOW_BATCHES 32u      /* the clock is read once in so many batches */

void loop_place_start(struct loop *l)
{
	cpu_set_t may, own;

	if (!l->set->cfg.pin)
		return;
	CPU_ZERO(&own);
	CPU_SET(l->cpu, &own);
	l->placed = !pthread_getaffinity_np(pthread_self(), sizeof(may), &may) && CPU_COUNT(&may) > 1 &&
		    !pthread_setaffinity_np(pthread_self(), sizeof(own), &own);
	if (!l->placed) /* An offline CPU or a cpuset without it: the scheduler decides. */
		log_debug("loop %u is not placed: CPU %u cannot be used", l->index, l->cpu);
}

static void look_back(struct loop *l, uint64_t now)
{
	if (l->set->cfg.poll_auto_ns) {
		bool was_on = l->wander.on;

		l->poll_ns = loop_wander_window(&l->wander, l->window_ops, l->window_batches, l->window_arrivals) ? l->set->cfg.poll_auto_ns : 0;
		if (l->wander.on && !was_on)
			fdio_count(CTR_loop_wander);
	}
	l->window_start_ns = now;
	l->window_ops = 0;
	l->window_batches = l->window_arrivals = 0;
}

/* The line is shared by all loops; it stays where it is while one of them is alone at work. */
static void note_turn(struct loop *l)
{
	if (__atomic_load_n(&l->set->last, __ATOMIC_RELAXED) == l->index)
		return;
	__atomic_store_n(&l->set->last, l->index, __ATOMIC_RELAXED);
	l->window_arrivals++;
}

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
