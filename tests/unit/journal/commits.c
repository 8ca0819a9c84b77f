/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the journal: what a commit makes durable, what it logs of a block that changes
 * meanwhile, the order of writes on the device, the log as a ring, and the checkpoint. A fake
 * device records the order, holds requests and cuts the power; there is one thread of the test
 * beside the journal's own. journal/journal_types.h has the rules JOURNAL-1 to JOURNAL-12.
 */
#include "kit/journal.h"

#include "base/counters.h"

#include <stdlib.h>

/* ---- commit ---- */

struct callback_record { struct journal_callback callback; int err; unsigned calls; };

static void on_commit(struct journal_callback *callback, int err)
{
	struct callback_record *callback_record =
			container_of(callback, struct callback_record, callback);

	callback_record->err = err;
	__atomic_add_fetch(&callback_record->calls, 1, __ATOMIC_SEQ_CST);
}

START_TEST(committed_survives_uncommitted_does_not)
{
	struct testlog e;
	struct journal_replay_stats stats;

	testlog_up_as(&e, &testlog_formats[_i], 4);
	for (unsigned i = 0; i < 200; i++)
		testlog_write(&e, e.base + i, 100 + i);
	testlog_sync(&e);
	testlog_sync(&e);
	testlog_write(&e, e.base, 999);
	testlog_crash(&e, &stats);
	ck_assert_uint_ge(stats.transactions, 1);
	for (unsigned i = 0; i < 200; i++)
		ck_assert_int_eq(testlog_value(&e, e.base + i), 100 + i);
	ck_assert(!journal_needs_replay(e.journal));
	testlog_drop(&e);
}
END_TEST

START_TEST(stop_leaves_nothing_in_the_log)
{
	struct testlog e;

	testlog_up(&e);
	for (unsigned i = 0; i < 50; i++)
		testlog_write(&e, e.base + i, i);
	ck_assert_int_eq(journal_stop(e.journal), 0);
	testlog_cut(&e, FAKE_CUT_DROP, 0);
	for (unsigned i = 0; i < 50; i++)
		ck_assert_int_eq(testlog_home(&e, e.base + i), i);
	testlog_open(&e);
	ck_assert(!journal_needs_replay(e.journal));
	testlog_start(&e); /* the journal goes on */
	testlog_write(&e, e.base, 77);
	testlog_down(&e);
}
END_TEST

START_TEST(old_image_is_logged_when_block_changes_during_commit)
{
	struct testlog e;
	uint64_t frozen = fdio_counter_read(COUNTER_journal_frozen);
	enum { N = 250, SECOND = 256 };
	journal_tid tid;

	/* One write takes 256 log blocks. There are more images, so the last are not copied yet. */
	testlog_up_as(&e, &testlog_formats[0], 32);
	for (unsigned i = 0; i < 2 * N; i++)
		testlog_write(&e, e.base + i - (i < N ? 0 : N + SECOND), i);
	tid = testlog_write(&e, e.base, 0);
	fake_block(e.fake, FAKE_WRITE);
	journal_commit_start(e.journal, tid);
	ck_assert(fake_wait_blocked(e.fake, 1));
	testlog_write(&e, e.base - SECOND + 200, 5000);
	ck_assert_uint_gt(fdio_counter_read(COUNTER_journal_frozen), frozen);
	fake_unblock(e.fake);
	ck_assert_int_eq(journal_commit_wait(e.journal, tid, NULL), 0);
	ck_assert_int_eq(testlog_value(&e, e.base - SECOND + 200), 5000);
	testlog_crash(&e, NULL);
	ck_assert_int_eq(testlog_value(&e, e.base - SECOND + 200), N + 200);
	testlog_drop(&e);
}
END_TEST

START_TEST(magic_is_escaped)
{
	struct testlog e;
	struct journal_handle *handle;
	struct journal_buffer *buffer;

	testlog_up_as(&e, &testlog_formats[_i], 4);
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	ck_assert_int_eq(journal_new_block(handle, e.base, &buffer), 0);
	/* Looks like the commit block of this transaction. */
	journal_format_put_header(buffer->data, JOURNAL_BLOCK_COMMIT, journal_handle_tid(handle));
	memset(buffer->data + 12, 0xab, 100);
	journal_buffer_release(buffer);
	journal_end(handle);
	testlog_write(&e, e.base + 1, 3);
	testlog_sync(&e);
	testlog_crash(&e, NULL);
	ck_assert_int_eq(journal_read_block(e.journal, e.base, &buffer), 0);
	ck_assert_uint_eq(fdio_get_be32(buffer->data, 0), JOURNAL_MAGIC);
	ck_assert_uint_eq(fdio_get_be32(buffer->data, 4), JOURNAL_BLOCK_COMMIT);
	ck_assert_uint_eq(buffer->data[50], 0xab);
	journal_buffer_release(buffer);
	ck_assert_int_eq(testlog_value(&e, e.base + 1), 3);
	testlog_drop(&e);
}
END_TEST

START_TEST(commit_callbacks_run_once)
{
	struct testlog e;
	struct journal_handle *handle;
	struct callback_record callback_record = { { .fn = on_commit } };

	testlog_up(&e);
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	testlog_fill(&e, handle, e.base, 1);
	journal_on_commit(handle, &callback_record.callback);
	journal_end(handle);
	ck_assert_uint_eq(callback_record.calls, 0);
	testlog_sync(&e);
	ck_assert_uint_eq(callback_record.calls, 1);
	ck_assert_int_eq(callback_record.err, 0);
	testlog_down(&e);
	ck_assert_uint_eq(callback_record.calls, 1);
}
END_TEST

static void seal_writes(struct testlog *e, struct journal_handle *handle)
{
	testlog_fill(e, handle, e->base + 200, e->seals);
}

START_TEST(seal_joins_the_closing_transaction)
{
	struct testlog e;

	testlog_up(&e);
	e.seal = seal_writes;
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	ck_assert_uint_eq(e.seals, 1);
	testlog_crash(&e, NULL);
	ck_assert_int_eq(testlog_value(&e, e.base), 1);
	ck_assert_int_eq(testlog_value(&e, e.base + 200), 1);
	testlog_drop(&e);
}
END_TEST

START_TEST(periodic_commit)
{
	struct testlog e;
	journal_tid tid;

	testlog_format(&e, &testlog_formats[0], 4);
	e.params.commit_interval_s = 1;
	testlog_open(&e);
	testlog_start(&e);
	tid = testlog_write(&e, e.base, 1);
	for (unsigned i = 0; i < 500 && !journal_tid_durable(e.journal, tid); i++)
		unit_pause_ms(10);
	ck_assert(journal_tid_durable(e.journal, tid));
	testlog_down(&e);
}
END_TEST

/* ---- the log as a ring ---- */

START_TEST(log_wraps_and_space_is_reused)
{
	struct testlog e;
	uint32_t last[200] = { 0 };
	unsigned seed = 4711 + _i;
	journal_tid tid = 0;
	uint64_t tails = fdio_counter_read(COUNTER_journal_tail);

	testlog_format(&e, &testlog_formats[_i], _i == 2 ? 1 : 4);
	testlog_open(&e);
	testlog_start(&e);
	/* Eight times the length of the log; nobody asks for a checkpoint. */
	for (unsigned round = 1; round <= 400; round++) {
		for (unsigned k = 0; k < 20; k++) {
			unsigned i = rand_r(&seed) % 200;

			tid = testlog_write(&e, e.base + i, round * 100 + k);
			last[i] = round * 100 + k;
		}
		journal_commit_start(e.journal, tid);
		if (round % 50 == 0)
			testlog_sync(&e);
	}
	ck_assert_uint_gt(fdio_counter_read(COUNTER_journal_tail), tails);
	testlog_sync(&e);
	testlog_crash(&e, NULL);
	for (unsigned i = 0; i < 200; i++)
		if (last[i])
			ck_assert_int_eq(testlog_value(&e, e.base + i), last[i]);
	testlog_drop(&e);
}
END_TEST

START_TEST(log_pressure_without_waiting)
{
	struct testlog e;
	struct journal_handle *handle;

	testlog_up(&e);
	for (unsigned round = 0; round < 300; round++) {
		ck_assert_int_eq(journal_begin(e.journal, journal_max_credits(e.journal), &handle),
				 0);
		for (unsigned i = 0; i < journal_max_credits(e.journal); i++)
			testlog_fill(&e, handle, e.base + i, round);
		journal_end(handle);
	}
	testlog_sync(&e);
	testlog_crash(&e, NULL);
	for (unsigned i = 0; i < 100; i++)
		ck_assert_int_eq(testlog_value(&e, e.base + i), 299);
	testlog_drop(&e);
}
END_TEST

/* What is not flushed yet on the device, by kind, and how often the order was wrong. */
struct device_order {
	struct testlog *e;
	unsigned dirty_log, dirty_home, dirty_superblock, bad, commits;
};

static void watch_order(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
			bool after)
{
	struct device_order *order = arg;
	bool log = journal_is_log_block(order->e->journal, off / 4096),
	     superblock = off / 4096 == order->e->log[0].pblk;

	if (!after)
		return;
	if (kind == FAKE_FLUSH) {
		order->dirty_log = order->dirty_home = order->dirty_superblock = 0;
	} else if (kind == FAKE_WRITE && superblock) {
		/* JOURNAL-7: the tail must not move over home writes that are still volatile. */
		if (order->dirty_home)
			order->bad++;
		if (!(flags & DEV_FUA))
			order->dirty_superblock++;
	} else if (kind == FAKE_WRITE && log && (flags & DEV_FUA)) {
		order->commits++;
		/* JOURNAL-4, JOURNAL-5 */
		if (order->dirty_log || order->dirty_superblock)
			order->bad++;
	} else if (kind == FAKE_WRITE && log) {
		order->dirty_log++;
	} else if (kind == FAKE_WRITE) {
		order->dirty_home++;
	}
}

/* One thread works at a time, so the hook needs no lock. */
START_TEST(device_sees_the_required_order)
{
	struct testlog e;
	struct device_order order = { .e = &e };

	testlog_up(&e);
	fake_set_hook(e.fake, watch_order, &order);
	for (unsigned i = 0; i < 5; i++) {
		testlog_write(&e, e.base + i, i);
		testlog_sync(&e);
	}
	ck_assert_int_eq(journal_stop(e.journal), 0);
	fake_set_hook(e.fake, NULL, NULL);
	ck_assert_uint_eq(order.commits, 5);
	ck_assert_uint_eq(order.bad, 0);
	testlog_drop(&e);
}
END_TEST

START_TEST(commit_times_never_decrease)
{
	struct testlog e;
	static uint8_t blk[4096];
	uint64_t prev = 0;
	unsigned seen = 0;

	testlog_up(&e);
	for (int i = 0; i < 4; i++) {
		fake_set_clock(e.fake,
			       &(struct timespec){ .tv_sec = 1000000 - i * 100, .tv_nsec = i });
		testlog_write(&e, e.base, i);
		testlog_sync(&e);
	}
	for (uint32_t i = 1; i < 40; i++) {
		fake_peek(e.fake, blk, 4096, (e.log[0].pblk + i) * 4096);
		if (fdio_get_be32(blk, 0) != JOURNAL_MAGIC ||
		    fdio_get_be32(blk, 4) != JOURNAL_BLOCK_COMMIT)
			continue;
		ck_assert_uint_ge(fdio_get_be64(blk, JOURNAL_COMMIT_SECONDS), prev);
		prev = fdio_get_be64(blk, JOURNAL_COMMIT_SECONDS);
		seen++;
	}
	ck_assert_uint_eq(seen, 4);
	fake_set_clock(e.fake, NULL);
	testlog_down(&e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: commits");
	TCase *tc = unit_case(s, "commits", 60);

	unit_loop(tc, committed_survives_uncommitted_does_not, 0, 4, PROVES("JOURNAL-4"));
	unit_test(tc, stop_leaves_nothing_in_the_log, PROVES("JOURNAL-11"));
	unit_test(tc, old_image_is_logged_when_block_changes_during_commit, PROVES("JOURNAL-2"));
	unit_loop(tc, magic_is_escaped, 0, 4);
	unit_test(tc, commit_callbacks_run_once);
	unit_test(tc, seal_joins_the_closing_transaction);
	unit_test(tc, periodic_commit);
	unit_loop(tc, log_wraps_and_space_is_reused, 0, 3, PROVES("JOURNAL-3 JOURNAL-7"));
	unit_test(tc, log_pressure_without_waiting, PROVES("JOURNAL-3"));
	unit_test(tc, device_sees_the_required_order, PROVES("JOURNAL-4 JOURNAL-5 JOURNAL-7"));
	unit_test(tc, commit_times_never_decrease, PROVES("JOURNAL-9"));
	return s;
}
