/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of what the checkpoint may write home: nothing that is not committed (JOURNAL-6), and
 * afterwards it may forget only the image that it has written, not a younger one (JOURNAL-7).
 *
 * A fake device holds the home write, or a waiter for log space makes the checkpoint thread work,
 * at the moment that matters. The test's thread changes blocks.
 */
#include "kit/journal.h"

#include "base/lock.h"

#include <stdlib.h>

/* Adds "by" waiters for log space; the checkpoint thread works while there are any. */
static void demand_space(struct testlog *e, int by)
{
	fdio_mutex_lock(&e->journal->state_lock);
	e->journal->space_waiters += by;
	pthread_cond_signal(&e->journal->checkpoint_cv);
	fdio_mutex_unlock(&e->journal->state_lock);
}

/*
 * A block that an open transaction has changed again does not go home, although its last committed
 * image is due.
 */
START_TEST(uncommitted_stays_away_from_home)
{
	struct journal_handle *handle;
	struct testlog e;

	testlog_up(&e);
	testlog_write(&e, e.base, 1);
	testlog_write(&e, e.base + 1, 5);
	testlog_sync(&e);
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	testlog_fill(&e, handle, e.base, 2);
	demand_space(&e, 1);
	unit_wait_until(testlog_home(&e, e.base + 1) == 5);
	ck_assert_int_ne(testlog_home(&e, e.base), 2);
	demand_space(&e, -1);
	journal_end(handle);
	testlog_down(&e);
}
END_TEST

/*
 * The home write of an older image completes after a younger commit of the same block: the younger
 * image is still due.
 */
START_TEST(younger_image_is_still_due)
{
	struct testlog e;
	struct fake_fault stuck = { .kinds = FAKE_WRITE, .repeat = 1, .action = FAKE_STUCK };

	testlog_up(&e);
	stuck.off = e.base * e.params.block_size;
	stuck.len = e.params.block_size;
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	fake_fault_add(e.fake, &stuck);
	demand_space(&e, 1);
	unit_wait_until(fake_fault_hits(e.fake));
	testlog_write(&e, e.base, 2);
	testlog_sync(&e);
	demand_space(&e, -1);
	fake_unstick(e.fake);
	ck_assert_int_eq(journal_stop(e.journal), 0);
	ck_assert_int_eq(testlog_home(&e, e.base), 2);
	testlog_drop(&e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: home writes");
	TCase *tc = unit_case(s, "home", 60);

	unit_test(tc, uncommitted_stays_away_from_home, PROVES("JOURNAL-6"));
	unit_test(tc, younger_image_is_still_due, PROVES("JOURNAL-7"));
	return s;
}
