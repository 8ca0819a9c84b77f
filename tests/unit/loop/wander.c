/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of loop/place.c: when a loop looks for more work before it sleeps. No thread, no
 * clock.
 */
#include "loop/types.h"
#include "kit/runner.h"

#include <stdlib.h>
#include <string.h>

#define BATCHES 64u

static struct loop_wander w;

static void setup(void) { memset(&w, 0, sizeof(w)); }

/* Windows in which it was on afterwards. */
static unsigned live(unsigned windows, unsigned per_batch, unsigned arrivals)
{
	unsigned on = 0;

	for (unsigned i = 0; i < windows; i++)
		on += loop_wander_window(&w, (uint64_t)BATCHES * per_batch, BATCHES, arrivals);
	return on;
}

/* A client that wanders unless its loop polls. */
static unsigned live_with_cure(unsigned windows)
{
	unsigned on = 0;

	for (unsigned i = 0; i < windows; i++)
		on += loop_wander_window(&w, BATCHES, BATCHES, w.on ? 0 : BATCHES / 2);
	return on;
}

/* A window of batches each of which comes after another loop's; how long the loop polls then. */
static unsigned polls_after_a_window(struct loop *loop)
{
	loop->window_start_ns = 0;
	for (unsigned i = 0; i < BATCHES; i++) {
		loop->set->last = 1;
		loop_place_note(loop, 1);
	}
	return loop->poll_ns;
}

START_TEST(a_loop_may_be_left_out)
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
	ck_assert_uint_eq(live(5000, 1, 0), 0);
	ck_assert_uint_eq(live(5000, 1, BATCHES / 16), 0);
}
END_TEST

START_TEST(a_wandering_client_makes_it_poll_at_once)
{
	ck_assert_uint_eq(live(1, 1, BATCHES / 2), 1);
	ck_assert(w.on);
}
END_TEST

START_TEST(it_is_left_off_less_and_less_often_while_it_helps)
{
	ck_assert_uint_ge(live_with_cure(100), 97);
	ck_assert_uint_ge(live_with_cure(10000), 9980);
}
END_TEST

START_TEST(a_client_that_has_stopped_wandering_ends_it)
{
	live_with_cure(10);
	live(64, 1, 0);
	ck_assert(!w.on);
	ck_assert_uint_eq(live(1000, 1, 0), 0);
}
END_TEST

START_TEST(after_a_calm_time_it_begins_short_again)
{
	live_with_cure(2000);
	live(1100, 1, 0);
	ck_assert(!w.on);
	live(1, 1, BATCHES);
	ck_assert(w.on);
	ck_assert_uint_le(live(200, 1, 0), 64);
}
END_TEST

START_TEST(a_deep_queue_ends_it_at_once)
{
	live(1, 1, BATCHES);
	ck_assert(w.on);
	ck_assert_uint_eq(live(1, 8, BATCHES), 0);
	ck_assert_uint_eq(live(100, 8, BATCHES), 0);
}
END_TEST

START_TEST(an_empty_window_is_harmless)
{
	ck_assert(!loop_wander_window(&w, 0, 0, 0));
	live(1, 1, BATCHES);
	ck_assert(!loop_wander_window(&w, 0, 0, 0));
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("loop: wander");
	TCase *tc = unit_case(s, "loop_wander", 60);

	tcase_add_checked_fixture(tc, setup, NULL);
	unit_test(tc, one_loop_alone_never_polls);
	unit_test(tc, a_loop_may_be_left_out);
	unit_test(tc, a_wandering_client_makes_it_poll_at_once);
	unit_test(tc, it_is_left_off_less_and_less_often_while_it_helps);
	unit_test(tc, a_client_that_has_stopped_wandering_ends_it);
	unit_test(tc, after_a_calm_time_it_begins_short_again);
	unit_test(tc, a_deep_queue_ends_it_at_once);
	unit_test(tc, an_empty_window_is_harmless);
	return s;
}
