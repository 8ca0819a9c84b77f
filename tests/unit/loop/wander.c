/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of loop/place.c: when a loop polls for more work before it sleeps. A client whose
 * requests come over one loop after another "wanders"; a loop that polls keeps it. The test feeds
 * the numbers of one window after another; there is no thread and no clock.
 */
#include "loop/types.h"
#include "kit/runner.h"

#include <stdlib.h>
#include <string.h>

#define BATCHES 64u

static struct loop_wander wander;

static void setup(void) { memset(&wander, 0, sizeof(wander)); }

/*
 * So many windows, each of BATCHES batches, of which "arrivals" come after a batch of another loop.
 * Returns after how many of them the loop polls.
 */
static unsigned run_windows(unsigned windows, unsigned per_batch, unsigned arrivals)
{
	unsigned on = 0;

	for (unsigned i = 0; i < windows; i++)
		on += loop_wander_window(&wander, (uint64_t)BATCHES * per_batch, BATCHES, arrivals);
	return on;
}

/* As run_windows, with a client that wanders while its loop does not poll. */
static unsigned run_windows_with_cure(unsigned windows)
{
	unsigned on = 0;

	for (unsigned i = 0; i < windows; i++)
		on += loop_wander_window(&wander, BATCHES, BATCHES, wander.on ? 0 : BATCHES / 2);
	return on;
}

/* How long the loop polls after a window in which each batch comes after one of another loop. */
static unsigned polls_after_a_window(struct loop *loop)
{
	loop->window_start_ns = 0;
	for (unsigned i = 0; i < BATCHES; i++) {
		loop->set->last = 1;
		loop_place_note(loop, 1);
	}
	return loop->poll_ns;
}

START_TEST(loop_no_wander_stops_polling_for_good)
{
	static struct loop two[2];
	static struct loop_set set = { .config = { .poll_auto_ns = 100000, .poll_ns = 7 },
				       .nr = 2,
				       .loops = two };

	memset(two, 0, sizeof(two));
	two[0].set = &set;
	two[0].placed = true;
	ck_assert_uint_eq(polls_after_a_window(&two[0]), 100000);
	loop_no_wander(&two[0]);
	ck_assert_uint_eq(two[0].poll_ns, 7);
	ck_assert_uint_eq(polls_after_a_window(&two[0]), 7);
}
END_TEST

START_TEST(one_loop_alone_never_polls)
{
	ck_assert_uint_eq(run_windows(5000, 1, 0), 0);
	ck_assert_uint_eq(run_windows(5000, 1, BATCHES / 16), 0);
}
END_TEST

START_TEST(wandering_client_makes_it_poll_at_once)
{
	ck_assert_uint_eq(run_windows(1, 1, BATCHES / 2), 1);
	ck_assert(wander.on);
}
END_TEST

START_TEST(pauses_get_rare_while_polling_helps)
{
	ck_assert_uint_ge(run_windows_with_cure(100), 97);
	ck_assert_uint_ge(run_windows_with_cure(10000), 9980);
}
END_TEST

START_TEST(ends_when_the_client_stays)
{
	run_windows_with_cure(10);
	run_windows(64, 1, 0);
	ck_assert(!wander.on);
	ck_assert_uint_eq(run_windows(1000, 1, 0), 0);
}
END_TEST

START_TEST(after_a_calm_time_polling_begins_short)
{
	run_windows_with_cure(2000);
	run_windows(1100, 1, 0);
	ck_assert(!wander.on);
	run_windows(1, 1, BATCHES);
	ck_assert(wander.on);
	ck_assert_uint_le(run_windows(200, 1, 0), 64);
}
END_TEST

START_TEST(deep_queue_ends_it_at_once)
{
	run_windows(1, 1, BATCHES);
	ck_assert(wander.on);
	ck_assert_uint_eq(run_windows(1, 8, BATCHES), 0);
	ck_assert_uint_eq(run_windows(100, 8, BATCHES), 0);
}
END_TEST

START_TEST(empty_window_changes_nothing)
{
	ck_assert(!loop_wander_window(&wander, 0, 0, 0));
	run_windows(1, 1, BATCHES);
	ck_assert(!loop_wander_window(&wander, 0, 0, 0));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("loop: wander");
	TCase *tc = unit_case(s, "loop_wander", 60);

	tcase_add_checked_fixture(tc, setup, NULL);
	unit_test(tc, one_loop_alone_never_polls);
	unit_test(tc, loop_no_wander_stops_polling_for_good);
	unit_test(tc, wandering_client_makes_it_poll_at_once);
	unit_test(tc, pauses_get_rare_while_polling_helps);
	unit_test(tc, ends_when_the_client_stays);
	unit_test(tc, after_a_calm_time_polling_begins_short);
	unit_test(tc, deep_queue_ends_it_at_once);
	unit_test(tc, empty_window_changes_nothing);
	return s;
}
