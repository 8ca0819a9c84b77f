/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which CPU a loop's thread runs on. Called by the loop on its own thread; asks the kernel for nothing but its affinity, which
 * is changed at most once a window.
 *
 * At home, the CPU of the loop's number, a request costs no wake-up of another CPU: best for clients that wait for each request,
 * and whenever all CPUs are busy. But requests of one client come to one loop. A client with a deep queue then shares one CPU
 * with the thread that serves it while the other CPUs have nothing to do. Such a loop is seen by its large batches and by the
 * silence of the others: it goes away from its CPU, to any other that the process may use, until batches get small or other
 * loops get work. Wake-ups across CPUs are dear, but there are few of them when batches are large.
 */
#include "loop/loop_types.h"

#include "base/counters.h"
#include "base/log.h"

#define WINDOW_NS 4000000u
#define WINDOW_BATCHES 32u      /* the clock is read once in so many batches */
#define BATCH_AWAY 6u           /* completions a batch: a request has two */
#define BATCH_HOME 3u

static void place(struct loop *l, const cpu_set_t *set)
{
	/* An offline CPU or a cpuset without it: the scheduler decides. */
	if (pthread_setaffinity_np(pthread_self(), sizeof(*set), set)) {
		log_debug("loop %u is not placed: CPU %u cannot be used", l->index, l->cpu);
		l->can_move = false;
	}
}

static uint64_t ops_of_others(const struct loop *l)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < l->set->nr; i++)
		if (i != l->index)
			n += __atomic_load_n(&l->set->loops[i].nr_ops, __ATOMIC_RELAXED);
	return n;
}

void loop_place_start(struct loop *l)
{
	if (!l->set->cfg.pin)
		return;
	CPU_ZERO(&l->home_set);
	CPU_SET(l->cpu, &l->home_set);
	if (pthread_getaffinity_np(pthread_self(), sizeof(l->away_set), &l->away_set))
		CPU_ZERO(&l->away_set);
	CPU_CLR(l->cpu, &l->away_set);
	l->can_move = CPU_COUNT(&l->away_set) > 0;
	place(l, &l->home_set);
}

static void look_back(struct loop *l, uint64_t now)
{
	uint64_t ops = l->nr_ops - l->window_ops, others_now = ops_of_others(l), others = others_now - l->others_ops;
	bool away = l->away ? ops >= (uint64_t)BATCH_HOME * l->window_batches && others * 2 < ops
			    : ops >= (uint64_t)BATCH_AWAY * l->window_batches && others * 8 < ops;

	if (away != l->away) {
		l->away = away;
		fdio_count(CTR_loop_moves);
		place(l, away ? &l->away_set : &l->home_set);
	}
	l->window_start_ns = now;
	l->window_ops = l->nr_ops;
	l->others_ops = others_now;
	l->window_batches = 0;
}

void loop_place_note(struct loop *l, unsigned n)
{
	if (!l->can_move)
		return;
	__atomic_store_n(&l->nr_ops, l->nr_ops + n, __ATOMIC_RELAXED);
	if (++l->window_batches % WINDOW_BATCHES)
		return;
	uint64_t now = fdio_now_ns();
	if (now - l->window_start_ns >= WINDOW_NS)
		look_back(l, now);
}
