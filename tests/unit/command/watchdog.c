/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watchdog. The tests begin and complete device requests by counting them, as the device does;
 * the callbacks count their calls, and give_up returns.
 */
#include "base/counters.h"
#include "base/lock.h"
#include "base/log.h"
#include "command/watchdog.h"
#include "kit/runner.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static unsigned gave_up, logged_in_flight, told_alive; /* atomic: calls of each callback */

static void on_give_up(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&gave_up, 1, __ATOMIC_SEQ_CST);
}

static void on_log_in_flight(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&logged_in_flight, 1, __ATOMIC_SEQ_CST);
}

static void on_tell_alive(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&told_alive, 1, __ATOMIC_SEQ_CST);
}

static void on_check_device(void *arg) { (void)arg; }

static unsigned ended(void) { return __atomic_load_n(&gave_up, __ATOMIC_SEQ_CST); }

static struct watchdog *start(unsigned limit_ms)
{
	struct watchdog_config config = {
		.name = "test",
		.limit_ms = limit_ms,
		.log_in_flight = on_log_in_flight,
		.tell_alive = on_tell_alive,
		.check_device = on_check_device,
		.give_up = on_give_up,
	};
	struct watchdog *watchdog;

	fdio_log_set_level(0);
	gave_up = logged_in_flight = told_alive = 0;
	ck_assert_int_eq(watchdog_new(&config, &watchdog), 0);
	return watchdog;
}

/* Waits at most ms for give_up. */
static void wait_end(unsigned ms)
{
	for (unsigned k = 0; k < ms / 10 && !ended(); k++)
		unit_pause_ms(10);
	ck_assert_uint_eq(ended(), 1);
}

/* A request never completes and the daemon is asked to end: give_up is called, once. */
START_TEST(stalled_at_the_end)
{
	struct watchdog *watchdog = start(200);

	fdio_count(COUNTER_dev_read);
	watchdog_end_asked(watchdog);
	wait_end(20000);
	ck_assert_uint_eq(logged_in_flight, 1);
	unit_pause_ms(300);
	ck_assert_uint_eq(ended(), 1);
	watchdog_free(watchdog);
	fdio_count(COUNTER_dev_done);
}
END_TEST

/* Not asked to end; or nothing is in flight; or there is no limit: give_up is not called. */
START_TEST(no_reason_to_give_up)
{
	struct watchdog *watchdog = start(200);

	fdio_count(COUNTER_dev_write);
	unit_pause_ms(500);
	ck_assert_uint_eq(ended(), 0);
	watchdog_free(watchdog);
	fdio_count(COUNTER_dev_done);

	watchdog = start(200);
	watchdog_end_asked(watchdog);
	unit_pause_ms(500);
	ck_assert_uint_eq(ended(), 0);
	watchdog_free(watchdog);

	watchdog = start(0);
	fdio_count(COUNTER_dev_flush);
	watchdog_ending(watchdog);
	unit_pause_ms(500);
	ck_assert_uint_eq(ended(), 0);
	watchdog_free(watchdog);
	fdio_count(COUNTER_dev_done);
}
END_TEST

/* A device that still completes something gets ten times the limit, and not more. */
START_TEST(slow_device)
{
	struct watchdog *watchdog = start(200);
	uint64_t begun = fdio_now_ns(), took;

	fdio_count_add(COUNTER_dev_discard, 10000);
	watchdog_ending(watchdog);
	for (unsigned k = 0; k < 9999 && !ended(); k++) {
		fdio_count(COUNTER_dev_done);
		unit_pause_ms(10);
	}
	took = (fdio_now_ns() - begun) / 1000000;
	ck_assert_uint_eq(ended(), 1);
	ck_assert_uint_ge(took, 1950);
	watchdog_free(watchdog);
}
END_TEST

/*
 * While starting, tell_alive is called, but not while a request does not complete; while serving,
 * it is not called.
 */
START_TEST(alive_while_starting)
{
	struct watchdog *watchdog = start(200);

	for (unsigned k = 0; k < 2000 && !__atomic_load_n(&told_alive, __ATOMIC_SEQ_CST); k++)
		unit_pause_ms(10);
	ck_assert_uint_ge(told_alive, 1);
	ck_assert_uint_eq(ended(), 0);
	watchdog_serving(watchdog);
	unit_pause_ms(100);
	told_alive = 0;
	unit_pause_ms(5500);
	ck_assert_uint_eq(told_alive, 0);
	watchdog_free(watchdog);

	watchdog = start(200);
	fdio_count(COUNTER_dev_read);
	unit_pause_ms(5500);
	ck_assert_uint_eq(told_alive, 0);
	watchdog_free(watchdog);
	fdio_count(COUNTER_dev_done);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("command: watchdog");
	TCase *t = unit_case(s, "watchdog", 120);

	unit_test(t, stalled_at_the_end);
	unit_test(t, no_reason_to_give_up);
	unit_test(t, slow_device);
	unit_test(t, alive_while_starting);
	return s;
}
