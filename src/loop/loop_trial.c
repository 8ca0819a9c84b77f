/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * At home, the CPU of the loop's number, a request costs no wake-up of another CPU: best for clients that wait for each request,
 * and whenever all CPUs are busy. But requests of one client come to one loop. A client with a deep queue then shares one CPU
 * with the thread that serves it, while other CPUs may have nothing to do. Such a loop is seen by its large batches and by the
 * silence of enough other loops, and goes away. Whether that is really better depends on what else runs there, which a loop cannot
 * know: so it tries home again now and then, and stays where more requests are completed in the same time.
 *
 * No locks, no clock, no system calls; the loop's thread.
 *
 * P1 Away only while batches are large and half of the CPUs have no busy loop; home at once when that ends.
 * P2 A trial compares TRIAL_WINDOWS windows at one place with as many just before at the other. Home has to be clearly better. The
 *    time to the next trial doubles with each, so a mistake lasts seconds and trials cost little.
 * P3 Going away makes batches smaller, because client and loop work at the same time. Where that ends the deep queue (P1), and being at
 *    home begins it again, the loop would go to and fro: a deep queue that did not last is not believed in again for a time that doubles.
 */
#include "loop/loop_trial.h"

#define BATCH_DEEP 6u           /* completions a batch: a request has two */
#define BATCH_STILL_DEEP 3u
#define TRIAL_WINDOWS 8u
#define TRIAL_FIRST 32u         /* windows until the first */
#define TRIAL_PAUSE_MIN 128u
#define TRIAL_PAUSE_MAX 1024u
#define LASTING 64u             /* P3: windows */
#define HOLD_MIN 8u
#define HOLD_MAX 1024u

/* Loops that did more than a part of what this one did; this one is among them. */
static unsigned busy_loops(const struct loop_window *w, unsigned part)
{
	unsigned n = 1;

	for (unsigned i = 0; i < w->nr_others; i++)
		n += w->others[i] * part >= w->ops;
	return n;
}

/* Slower to give up than to begin. */
static bool is_deep(const struct loop_trial *t, const struct loop_window *w)
{
	return w->ops >= (uint64_t)(t->deep ? BATCH_STILL_DEEP : BATCH_DEEP) * w->batches && w->ops &&
	       busy_loops(w, t->deep ? 2 : 8) * 2 <= w->cpus;
}

static void begin_measuring(struct loop_trial *t)
{
	t->measured = 0;
	t->measured_ops = t->measured_ns = 0;
}

static void begin(struct loop_trial *t)
{
	t->deep = t->away = true;
	t->trying = false;
	t->age = 0;
	t->until = TRIAL_FIRST;
	t->pause = TRIAL_PAUSE_MIN;
	begin_measuring(t);
}

static void end(struct loop_trial *t)
{
	if (t->age < LASTING) { /* P3 */
		t->hold = FDIO_MAX(t->next_hold, HOLD_MIN);
		t->next_hold = FDIO_MIN(t->hold * 2, HOLD_MAX);
	} else {
		t->next_hold = 0;
	}
	t->deep = t->away = t->trying = false;
}

/* Both places have been measured; rate is that of the later one, where the loop is. */
static void judge(struct loop_trial *t, uint64_t rate)
{
	uint64_t away = t->away ? rate : t->rate_before, home = t->away ? t->rate_before : rate;

	t->away = away + away / 12 >= home;
	t->trying = false;
	t->until = t->pause;
	t->pause = FDIO_MIN(t->pause * 2, TRIAL_PAUSE_MAX);
}

/* P2 */
static void measure(struct loop_trial *t, const struct loop_window *w)
{
	if (t->until) {
		t->until--;
		return;
	}
	/* The first window after a move is not typical. */
	if (t->measured++) {
		t->measured_ops += w->ops;
		t->measured_ns += w->ns;
	}
	if (t->measured <= TRIAL_WINDOWS)
		return;
	uint64_t rate = t->measured_ops * 1000000 / (t->measured_ns / 1000 + 1);
	begin_measuring(t);
	if (t->trying) {
		judge(t, rate);
		return;
	}
	t->rate_before = rate;
	t->trying = true;
	t->away = !t->away;
}

bool loop_trial_window(struct loop_trial *t, const struct loop_window *w)
{
	bool deep = is_deep(t, w);

	if (t->hold) {
		t->hold--;
	} else if (t->deep && !deep) {
		end(t);
	} else if (t->deep) {
		t->age++;
		measure(t, w);
	} else if (deep) {
		begin(t);
	}
	return t->away;
}
