/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the journal: freeing blocks (journal_forget, revocations, and what a cancelled
 * handle takes back), and aborts. The fake device cuts the power and makes writes and flushes fail.
 * journal/journal_types.h has the rules JOURNAL-1 to JOURNAL-12.
 */
#include "kit/journal.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

struct commit_record { struct journal_callback callback; int err; unsigned calls; };

static void on_commit(struct journal_callback *callback, int err)
{
	struct commit_record *commit_record =
			container_of(callback, struct commit_record, callback);

	commit_record->err = err;
	__atomic_add_fetch(&commit_record->calls, 1, __ATOMIC_SEQ_CST);
}

/* ---- forget and revoke ---- */

/* A write of file data to a freed block, durable at once. */
static void write_data(struct testlog *e, uint64_t blk, uint32_t value)
{
	static uint8_t pat[4096];

	testlog_pattern(pat, e->params.block_size, blk, value);
	ck_assert_int_eq(dev_write(fake_dev(e->fake), pat, e->params.block_size,
				   blk * e->params.block_size, DEV_FUA),
			 0);
}

static journal_tid forget(struct testlog *e, uint64_t blk)
{
	struct journal_handle *handle;

	ck_assert_int_eq(journal_begin(e->journal, 1, &handle), 0);
	ck_assert_int_eq(journal_forget(handle, blk, 1), 0);
	return journal_end(handle);
}

START_TEST(freed_block_is_not_replayed_over_data)
{
	struct testlog e;
	struct journal_replay_stats stats;

	testlog_up_as(&e, &testlog_formats[_i], 4);
	testlog_write(&e, e.base, 1);
	testlog_write(&e, e.base + 1, 2);
	testlog_sync(&e);
	ck_assert_int_eq(journal_commit_wait(e.journal, forget(&e, e.base), NULL), 0);
	write_data(&e, e.base, 42);
	/* The cache no longer has the freed block either. */
	ck_assert_int_eq(testlog_value(&e, e.base), 42);
	testlog_crash(&e, &stats);
	ck_assert_uint_eq(stats.revoked, 1);
	ck_assert_int_eq(testlog_home(&e, e.base), 42);
	ck_assert_int_eq(testlog_home(&e, e.base + 1), 2);
	testlog_drop(&e);
}
END_TEST

START_TEST(freed_block_is_not_checkpointed_over_data)
{
	struct testlog e;

	testlog_up(&e);
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	ck_assert_int_eq(journal_commit_wait(e.journal, forget(&e, e.base), NULL), 0);
	write_data(&e, e.base, 42);
	ck_assert_int_eq(journal_stop(e.journal), 0);
	ck_assert_int_eq(testlog_home(&e, e.base), 42);
	testlog_drop(&e);
}
END_TEST

START_TEST(forgotten_before_its_first_commit_is_not_logged)
{
	struct testlog e;
	struct journal_replay_stats stats;

	testlog_up(&e);
	testlog_write(&e, e.base, 1);
	testlog_write(&e, e.base + 1, 2);
	forget(&e, e.base);
	ck_assert_uint_eq(e.journal->running->nr_buffers, 1);
	testlog_sync(&e);
	testlog_crash(&e, &stats);
	ck_assert_uint_eq(stats.blocks, 1);
	ck_assert_int_ne(testlog_home(&e, e.base), 1);
	testlog_drop(&e);
}
END_TEST

START_TEST(block_logged_again_in_the_same_transaction_cancels_the_revoke)
{
	struct testlog e;
	struct journal_handle *handle;
	struct journal_buffer *buffer;
	struct journal_replay_stats stats;

	testlog_up(&e);
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	ck_assert_int_eq(journal_begin(e.journal, 2, &handle), 0);
	ck_assert_int_eq(journal_forget(handle, e.base, 1), 0);
	ck_assert_int_eq(journal_new_block(handle, e.base, &buffer), 0);
	testlog_pattern(buffer->data, 4096, e.base, 2);
	journal_buffer_release(buffer);
	journal_end(handle);
	testlog_sync(&e);
	testlog_crash(&e, &stats);
	ck_assert_uint_eq(stats.revoked, 0);
	ck_assert_int_eq(testlog_value(&e, e.base), 2);
	testlog_drop(&e);
}
END_TEST

START_TEST(revocation_stops_older_images_only)
{
	struct testlog e;

	testlog_up(&e);
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	ck_assert_int_eq(journal_commit_wait(e.journal, forget(&e, e.base), NULL), 0);
	testlog_write(&e, e.base, 3);
	testlog_sync(&e);
	testlog_crash(&e, NULL);
	ck_assert_int_eq(testlog_value(&e, e.base), 3);
	testlog_drop(&e);
}
END_TEST

START_TEST(cancel_takes_a_forget_back)
{
	struct testlog e;
	struct journal_handle *handle;
	struct journal_buffer *buffer;

	testlog_up(&e);
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	testlog_write(&e, e.base + 1, 2);
	ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
	testlog_fill(&e, handle, e.base, 50);
	ck_assert_int_eq(journal_forget(handle, e.base, 3), 0); /* the third is not cached */
	/* The second is allocated again, and freed again. */
	ck_assert_int_eq(journal_new_block(handle, e.base + 1, &buffer), 0);
	journal_buffer_release(buffer);
	ck_assert_int_eq(journal_forget(handle, e.base + 1, 1), 0);
	ck_assert_int_eq(journal_forget(handle, e.params.nr_blocks - 1, 2), -EUCLEAN);
	journal_cancel(handle);
	ck_assert_uint_eq(e.journal->running->kit->revokes.nr, 0);
	ck_assert_uint_eq(e.journal->running->nr_forgets, 0);
	ck_assert_uint_eq(e.journal->running->nr_buffers, 1);
	ck_assert_int_eq(testlog_value(&e, e.base), 1);
	ck_assert_int_eq(testlog_value(&e, e.base + 1), 2);
	testlog_sync(&e);
	testlog_crash(&e, NULL);
	ck_assert_int_eq(testlog_value(&e, e.base), 1);
	ck_assert_int_eq(testlog_value(&e, e.base + 1), 2);
	testlog_drop(&e);
}
END_TEST

START_TEST(many_revokes_fill_several_blocks)
{
	struct testlog e;
	struct journal_handle *handle;
	unsigned n = 3000;

	testlog_up_as(&e, &testlog_formats[_i], 4);
	testlog_write(&e, e.base + 17, 1);
	testlog_sync(&e);
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	ck_assert_int_eq(journal_forget(handle, e.base + 17 - n / 2, n / 2 + 200), 0);
	journal_end(handle);
	testlog_sync(&e);
	write_data(&e, e.base + 17, 42);
	testlog_crash(&e, NULL);
	ck_assert_int_eq(testlog_home(&e, e.base + 17), 42);
	testlog_drop(&e);
}
END_TEST

/* ---- abort ---- */

static void check_aborted(struct testlog *e, struct commit_record *commit_record)
{
	struct journal_handle *handle;
	struct journal_buffer *buffer;
	uint8_t sb[1024];

	ck_assert_int_ne(journal_error(e->journal), 0);
	ck_assert_int_eq(journal_begin(e->journal, 1, &handle), -EROFS);
	ck_assert_int_eq(journal_sync(e->journal), -EIO);
	fake_fault_clear(e->fake);
	/* Reads still work. */
	ck_assert_int_eq(journal_read_block(e->journal, e->base + 100, &buffer), 0);
	journal_buffer_release(buffer);
	ck_assert_int_eq(journal_stop(e->journal), journal_error(e->journal));
	ck_assert_uint_eq(e->aborted, 1);
	ck_assert_int_eq(e->aborted_err, journal_error(e->journal));
	ck_assert_uint_eq(commit_record->calls, 1);
	ck_assert_int_eq(commit_record->err, -EIO);
	fake_peek(e->fake, sb, sizeof(sb), e->log[0].pblk * 4096);
	ck_assert_int_eq((int32_t)fdio_get_be32(sb, JOURNAL_SB_ERRNO), journal_error(e->journal));
	ck_assert(journal_log_superblock_checksum_ok(sb));
}

static void start_with_an_open_change(struct testlog *e, struct commit_record *commit_record)
{
	struct journal_handle *handle;

	testlog_up(e);
	fdio_log_set_level(0);
	testlog_write(e, e->base, 1);
	ck_assert_int_eq(journal_sync(e->journal), 0);
	ck_assert_int_eq(journal_begin(e->journal, 1, &handle), 0);
	testlog_fill(e, handle, e->base, 2);
	journal_on_commit(handle, &commit_record->callback);
	journal_end(handle);
}

START_TEST(failed_log_write_aborts)
{
	struct testlog e;
	struct commit_record commit_record = { { .fn = on_commit } };

	start_with_an_open_change(&e, &commit_record);
	/* The log fails but for its superblock, where the error must be recorded. */
	fake_fault_add(e.fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						     .off = (e.log[0].pblk + 1) * 4096,
						     .len = 4096 * 100,
						     .skip = _i,
						     .action = FAKE_ERROR,
						     .err = -EIO });
	ck_assert_int_eq(journal_sync(e.journal), -EIO);
	check_aborted(&e, &commit_record);
	testlog_crash(&e, NULL);
	ck_assert_int_eq(testlog_value(&e, e.base), 1);
	testlog_drop(&e);
}
END_TEST

START_TEST(failed_flush_aborts)
{
	struct testlog e;
	struct commit_record commit_record = { { .fn = on_commit } };

	start_with_an_open_change(&e, &commit_record);
	fake_fault_add(e.fake, &(struct fake_fault){ .kinds = FAKE_FLUSH,
						     .repeat = 1,
						     .action = FAKE_ERROR,
						     .err = -EIO });
	ck_assert_int_eq(journal_sync(e.journal), -EIO);
	check_aborted(&e, &commit_record);
	testlog_crash(&e, NULL);
	ck_assert_int_eq(testlog_value(&e, e.base), 1);
	testlog_drop(&e);
}
END_TEST

START_TEST(failed_home_write_aborts_and_the_log_keeps_it)
{
	struct testlog e;

	testlog_up(&e);
	fdio_log_set_level(0);
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	fake_fault_add(e.fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						     .off = e.base * 4096,
						     .len = 4096,
						     .action = FAKE_ERROR,
						     .err = -EIO });
	ck_assert_int_eq(journal_stop(e.journal), -EIO);
	ck_assert_uint_eq(e.aborted, 1);
	testlog_crash(&e, NULL);
	ck_assert_int_eq(testlog_value(&e, e.base), 1);
	testlog_drop(&e);
}
END_TEST

START_TEST(abort_inside_a_handle)
{
	struct testlog e;
	struct journal_handle *handle;
	struct journal_buffer *buffer;
	struct commit_record commit_record = { { .fn = on_commit } };

	testlog_up(&e);
	fdio_log_set_level(0);
	ck_assert_int_eq(journal_read_block(e.journal, e.base, &buffer), 0);
	ck_assert_int_eq(journal_begin(e.journal, 2, &handle), 0);
	testlog_fill(&e, handle, e.base + 1, 2);
	journal_on_commit(handle, &commit_record.callback);
	journal_abort(e.journal, -EUCLEAN);
	journal_abort(e.journal, -EIO); /* the first error stays */
	ck_assert_int_eq(journal_get_write(handle, buffer), -EROFS);
	ck_assert_int_eq(journal_forget(handle, e.base, 1), -EROFS);
	journal_end(handle);
	ck_assert_int_eq(journal_error(e.journal), -EUCLEAN);
	journal_buffer_release(buffer);
	check_aborted(&e, &commit_record);
	testlog_drop(&e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: freeing");
	TCase *tc;

	tc = unit_case(s, "forget", 30);
	unit_loop(tc, freed_block_is_not_replayed_over_data, 0, 4, PROVES("JOURNAL-8"));
	unit_test(tc, freed_block_is_not_checkpointed_over_data, PROVES("JOURNAL-6 JOURNAL-8"));
	unit_test(tc, forgotten_before_its_first_commit_is_not_logged);
	unit_test(tc, block_logged_again_in_the_same_transaction_cancels_the_revoke,
		  PROVES("JOURNAL-8"));
	unit_test(tc, revocation_stops_older_images_only);
	unit_test(tc, cancel_takes_a_forget_back, PROVES("JOURNAL-1"));
	unit_loop(tc, many_revokes_fill_several_blocks, 0, 3);

	tc = unit_case(s, "abort", 30);
	unit_loop(tc, failed_log_write_aborts, 0, 2, PROVES("JOURNAL-10"));
	unit_test(tc, failed_flush_aborts, PROVES("JOURNAL-10"));
	unit_test(tc, failed_home_write_aborts_and_the_log_keeps_it);
	unit_test(tc, abort_inside_a_handle);
	return s;
}
