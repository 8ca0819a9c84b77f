/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Puts a loop's thread on the CPU that loop_trial.c says. Called by the loop on its own thread; asks the kernel for nothing but its
 * affinity, which is changed at most once a window. What cannot be placed (a CPU that is offline or not allowed) stays where the
 * scheduler puts it.
 */
#include "loop/loop_types.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

#define WINDOW_NS 4000000u
#define WINDOW_BATCHES 32u      /* the clock is read once in so many batches */

static void place(struct loop *l, const cpu_set_t *set)
{
	/* An offline CPU or a cpuset without it: the scheduler decides. */
	if (pthread_setaffinity_np(pthread_self(), sizeof(*set), set)) {
		log_debug("loop %u is not placed: CPU %u cannot be used", l->index, l->cpu);
		l->can_move = false;
	}
}

int loop_place_init(struct loop *l)
{
	l->others_seen = calloc(2 * (size_t)l->set->nr, sizeof(*l->others_seen));
	return l->others_seen ? 0 : -ENOMEM;
}

void loop_place_fini(struct loop *l) { free(l->others_seen); }

void loop_place_start(struct loop *l)
{
	if (!l->set->cfg.pin)
		return;
	CPU_ZERO(&l->home_set);
	CPU_SET(l->cpu, &l->home_set);
	if (pthread_getaffinity_np(pthread_self(), sizeof(l->away_set), &l->away_set))
		CPU_ZERO(&l->away_set);
	l->cpus = (unsigned)CPU_COUNT(&l->away_set);
	CPU_CLR(l->cpu, &l->away_set);
	l->can_move = CPU_COUNT(&l->away_set) > 0;
	place(l, &l->home_set);
}

void loop_place_anywhere(struct loop *l)
{
	if (l->can_move)
		CPU_SET(l->cpu, &l->away_set);
}

/* What each other loop has done since the last time; behind it in memory is what it had done then. */
static const uint64_t *others_since(struct loop *l)
{
	uint64_t *since = l->others_seen, *seen = since + l->set->nr;

	for (unsigned i = 0; i + 1 < l->set->nr; i++) {
		uint64_t now = __atomic_load_n(&l->set->loops[i + (i >= l->index)].nr_ops, __ATOMIC_RELAXED);

		since[i] = now - seen[i];
		seen[i] = now;
	}
	return since;
}

static void look_back(struct loop *l, uint64_t now)
{
	bool was_away = l->trial.away;
	struct loop_window w = {
		.ns = now - l->window_start_ns,
		.ops = l->nr_ops - l->window_ops,
		.batches = l->window_batches,
		.others = others_since(l),
		.nr_others = l->set->nr - 1,
		.cpus = l->cpus,
	};

	if (loop_trial_window(&l->trial, &w) != was_away) {
		fdio_count(CTR_loop_moves);
		place(l, was_away ? &l->home_set : &l->away_set);
	}
	if (l->set->cfg.poll_auto_ns) {
		bool was_on = l->wander.on;

		l->poll_ns = loop_wander_window(&l->wander, w.ops, w.batches, l->window_arrivals) ? l->set->cfg.poll_auto_ns : 0;
		if (l->wander.on && !was_on)
			fdio_count(CTR_loop_wander);
	}
	l->window_start_ns = now;
	l->window_ops = l->nr_ops;
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
	__atomic_store_n(&l->nr_ops, l->nr_ops + n, __ATOMIC_RELAXED);
	if (!l->can_move)
		return;
	note_turn(l);
	if (++l->window_batches % WINDOW_BATCHES)
		return;
	uint64_t now = fdio_now_ns();
	if (now - l->window_start_ns >= WINDOW_NS)
		look_back(l, now);
}
