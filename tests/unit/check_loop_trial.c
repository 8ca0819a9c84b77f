/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of loop_trial.c: where a loop runs, by the rates of an imagined machine. No thread, no clock; random numbers come from
 * a fixed seed.
 */
#include "loop/loop_trial.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW_NS 4000000u
#define DEEP 16u
#define SHALLOW 1u

/* A machine: what one window brings at either place. */
struct machine {
	unsigned cpus, nr_others;
	uint64_t others[63];
	uint64_t home_ops, away_ops;
	unsigned home_batch, away_batch; /* completions a batch */
	unsigned noise;                  /* per cent */
};

static struct loop_trial t;
static unsigned nr_moves, windows_away;

static uint64_t noisy(uint64_t v, unsigned percent)
{
	if (!percent)
		return v;
	int64_t off = (int64_t)(rand() % (int)(2 * percent * 100 + 1)) - (int64_t)percent * 100;

	return (uint64_t)((int64_t)v + (int64_t)v * off / 10000);
}

static void live(const struct machine *m, unsigned windows)
{
	nr_moves = windows_away = 0;
	for (unsigned i = 0; i < windows; i++) {
		bool away = t.away;
		uint64_t ops = noisy(away ? m->away_ops : m->home_ops, m->noise);
		struct loop_window w = {
			.ns = WINDOW_NS, .ops = ops, .batches = (unsigned)(ops / (away ? m->away_batch : m->home_batch)),
			.others = m->others, .nr_others = m->nr_others, .cpus = m->cpus,
		};

		windows_away += away;
		nr_moves += loop_trial_window(&t, &w) != away;
	}
}

static void setup(void)
{
	memset(&t, 0, sizeof(t));
	srand(4);
}

static struct machine machine(unsigned cpus, uint64_t home_ops, uint64_t away_ops)
{
	return (struct machine){ .cpus = cpus, .nr_others = cpus - 1, .home_ops = home_ops, .away_ops = away_ops,
				 .home_batch = DEEP, .away_batch = DEEP };
}

START_TEST(single_requests_are_served_at_home)
{
	struct machine m = machine(2, 1000, 4000);

	m.home_batch = m.away_batch = SHALLOW;
	live(&m, 5000);
	ck_assert_uint_eq(nr_moves, 0);
	ck_assert(!t.away);
}
END_TEST

START_TEST(a_deep_queue_goes_away_at_once_and_comes_home_at_once)
{
	struct machine m = machine(2, 1000, 1500);

	live(&m, 1);
	ck_assert(t.away);
	live(&m, 200);
	m.home_batch = m.away_batch = SHALLOW;
	live(&m, 1);
	ck_assert(!t.away);
	live(&m, 1000);
	ck_assert_uint_eq(nr_moves, 0);
}
END_TEST

START_TEST(an_idle_loop_stays)
{
	struct machine m = machine(2, 0, 0);

	live(&m, 100);
	ck_assert_uint_eq(nr_moves, 0);
}
END_TEST

START_TEST(one_cpu_is_home)
{
	struct machine m = machine(1, 1000, 5000);

	live(&m, 5000);
	ck_assert_uint_eq(nr_moves, 0);
}
END_TEST

START_TEST(two_busy_loops_on_two_cpus_stay)
{
	struct machine m = machine(2, 1000, 5000);

	m.others[0] = 900;
	live(&m, 5000);
	ck_assert_uint_eq(nr_moves, 0);
	/* The other one ends; then it comes back. */
	m.others[0] = 10;
	live(&m, 1);
	ck_assert(t.away);
	live(&m, 100);
	m.others[0] = 5000;
	live(&m, 1);
	ck_assert(!t.away);
}
END_TEST

START_TEST(half_of_64_cpus_may_be_busy)
{
	struct machine m = machine(64, 1000, 2000);

	for (unsigned i = 0; i < 32; i++)
		m.others[i] = 1000;
	live(&m, 1000);
	ck_assert_uint_eq(nr_moves, 0);
	m.others[31] = 0;
	live(&m, 1);
	ck_assert(t.away);
}
END_TEST

/* P2 */
START_TEST(it_stays_where_more_is_done)
{
	struct machine m = machine(2, 1000, 2000);

	live(&m, 20000);
	ck_assert_uint_gt(windows_away, 19000);
	setup();
	m = machine(2, 1150, 1000);
	live(&m, 20000);
	ck_assert_uint_lt(windows_away, 1000);
	/* Not clearly better is not better. */
	setup();
	m = machine(2, 1030, 1000);
	live(&m, 20000);
	ck_assert_uint_gt(windows_away, 19000);
}
END_TEST

START_TEST(it_follows_a_change_within_seconds)
{
	struct machine m = machine(2, 1000, 2000);

	live(&m, 20000);
	m.home_ops = 3000;
	live(&m, 1100);
	live(&m, 1100);
	ck_assert_uint_lt(windows_away, 100);
	m.away_ops = 4000;
	live(&m, 1100);
	live(&m, 1100);
	ck_assert_uint_gt(windows_away, 1000);
}
END_TEST

START_TEST(noise_does_not_make_it_run_to_and_fro)
{
	struct machine m = machine(2, 1000, 1000);

	m.noise = 30;
	live(&m, 100000); /* nearly seven minutes */
	ck_assert_uint_lt(nr_moves, 220); /* two a trial */
	setup();
	m.noise = 10;
	live(&m, 100000);
	ck_assert_uint_lt(nr_moves, 220);
	ck_assert_uint_gt(windows_away, 90000);
}
END_TEST

/* P3 */
START_TEST(being_away_that_ends_the_reason_for_it)
{
	struct machine m = machine(2, 1000, 1000);

	m.away_batch = 2;
	live(&m, 100000);
	ck_assert_uint_lt(nr_moves, 230);
	ck_assert_uint_lt(windows_away, 120);
	/* A real one afterwards is believed, and short ones then count afresh. */
	m.away_batch = DEEP;
	live(&m, 1100);
	ck_assert(t.away);
	m.home_batch = m.away_batch = SHALLOW;
	live(&m, 2);
	m.home_batch = m.away_batch = DEEP;
	live(&m, 1);
	ck_assert(t.away);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("loop_trial");
	TCase *tc = tcase_create("loop_trial");

	tcase_add_checked_fixture(tc, setup, NULL);
	tcase_add_test(tc, single_requests_are_served_at_home);
	tcase_add_test(tc, a_deep_queue_goes_away_at_once_and_comes_home_at_once);
	tcase_add_test(tc, an_idle_loop_stays);
	tcase_add_test(tc, one_cpu_is_home);
	tcase_add_test(tc, two_busy_loops_on_two_cpus_stay);
	tcase_add_test(tc, half_of_64_cpus_may_be_busy);
	tcase_add_test(tc, it_stays_where_more_is_done);
	tcase_add_test(tc, it_follows_a_change_within_seconds);
	tcase_add_test(tc, noise_does_not_make_it_run_to_and_fro);
	tcase_add_test(tc, being_away_that_ends_the_reason_for_it);
	suite_add_tcase(s, tc);
	SRunner *r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
