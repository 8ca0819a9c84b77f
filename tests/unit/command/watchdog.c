/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of src/command/watchdog.c: requests are "begun" and "completed" by counting, as the
 * device does; give_up only tells.
 */
#include "base/counters.h"
#include "base/lock.h"
#include "base/log.h"
#include "command/watchdog.h"
#include "kit/runner.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static unsigned gave_up, asked_what, told_alive; /* atomic */

static void on_give_up(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&gave_up, 1, __ATOMIC_SEQ_CST);
}

static void on_in_flight(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&asked_what, 1, __ATOMIC_SEQ_CST);
}

static void on_alive(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&told_alive, 1, __ATOMIC_SEQ_CST);
}

static void on_look(void *arg) { (void)arg; }

static unsigned ended(void) { return __atomic_load_n(&gave_up, __ATOMIC_SEQ_CST); }

static struct watchdog *start(unsigned limit_ms)
{
	struct watchdog_config c = { .name = "test",
				     .limit_ms = limit_ms,
				     .in_flight = on_in_flight,
				     .alive = on_alive,
				     .look = on_look,
				     .give_up = on_give_up };
	struct watchdog *watchdog;

	fdio_log_set_level(0);
	gave_up = asked_what = told_alive = 0;
	ck_assert_int_eq(watchdog_new(&c, &watchdog), 0);
	return watchdog;
}

static void wait_end(unsigned ms)
{
	for (unsigned k = 0; k < ms / 10 && !ended(); k++)
		unit_pause_ms(10);
	ck_assert_uint_eq(ended(), 1);
}

START_TEST(stalled_at_the_end)
{
	struct watchdog *watchdog = start(200);

	fdio_count(COUNTER_dev_read);
	watchdog_asked(watchdog);
	wait_end(20000);
	ck_assert_uint_eq(asked_what, 1);
	unit_pause_ms(300);
	ck_assert_uint_eq(ended(), 1);
	watchdog_free(watchdog);
	fdio_count(COUNTER_dev_done);
}
END_TEST

/* Nobody asked it to end; or nothing is in flight; or waiting for ever was asked for. */
START_TEST(no_reason)
{
	struct watchdog *watchdog = start(200);

	fdio_count(COUNTER_dev_write);
	unit_pause_ms(500);
	ck_assert_uint_eq(ended(), 0);
	watchdog_free(watchdog);
	fdio_count(COUNTER_dev_done);

	watchdog = start(200);
	watchdog_asked(watchdog);
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

/* A device that completes something now and then is waited for, but not for ever. */
START_TEST(slow)
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
 * Starting, it is told that this goes on, but not while the device keeps it waiting; serving,
 * nobody wants to know.
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
	unit_test(t, no_reason);
	unit_test(t, slow);
	unit_test(t, alive_while_starting);
	return s;
}
