/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the journal: the block cache, handles and their rollback, and opening. There is one
 * thread of the test beside the journal's own. journal/journal_types.h has the rules JOURNAL-1 to
 * JOURNAL-12. Commits are in commits.c, freeing blocks and aborts in freeing.c, replay in replay.c,
 * threads in threads.c.
 */
#include "kit/journal.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- cache ---- */

START_TEST(read_block_reads_and_caches)
{
	struct testlog e;
	static uint8_t pat[4096];
	struct journal_buffer *buffer, *again;

	testlog_up(&e);
	testlog_pattern(pat, 4096, e.base, 7);
	fake_poke(e.fake, pat, 4096, e.base * 4096);
	ck_assert_int_eq(journal_read_cached(e.journal, e.base, &buffer), -EAGAIN);
	ck_assert_int_eq(journal_read_block(e.journal, e.base, &buffer), 0);
	ck_assert_int_eq(testlog_parse(buffer->data, 4096, e.base), 7);
	ck_assert_uint_eq((uintptr_t)buffer->data % 4096, 0);
	ck_assert_int_eq(journal_read_cached(e.journal, e.base, &again), 0);
	ck_assert_ptr_eq(buffer, again);
	journal_buffer_release(buffer);
	journal_buffer_release(again);
	journal_buffer_release(NULL);
	ck_assert_int_eq(journal_read_block(e.journal, e.params.nr_blocks, &buffer), -EUCLEAN);
	ck_assert_int_eq(journal_read_cached(e.journal, UINT64_MAX, &buffer), -EUCLEAN);
	testlog_down(&e);
}
END_TEST

START_TEST(read_error_is_not_cached)
{
	struct testlog e;
	struct journal_buffer *buffer;

	testlog_up(&e);
	fdio_log_set_level(0);
	fake_fault_add(e.fake, &(struct fake_fault){ .kinds = FAKE_READ,
						     .off = e.base * 4096,
						     .len = 4096,
						     .repeat = 1,
						     .action = FAKE_ERROR,
						     .err = -EIO });
	ck_assert_int_eq(journal_read_block(e.journal, e.base, &buffer), -EIO);
	ck_assert_int_eq(journal_read_block(e.journal, e.base, &buffer), 0);
	journal_buffer_release(buffer);
	testlog_down(&e);
}
END_TEST

START_TEST(readahead_is_one_read)
{
	struct testlog e;
	struct journal_buffer *buffer;

	testlog_up(&e);
	fake_stats_reset(e.fake);
	journal_readahead(e.journal, e.base, 16);
	ck_assert_uint_eq(fake_stats(e.fake).reads, 1);
	for (unsigned i = 0; i < 16; i++) {
		ck_assert_int_eq(journal_read_cached(e.journal, e.base + i, &buffer), 0);
		journal_buffer_release(buffer);
	}
	/* A readahead across the end of the file system does nothing. */
	journal_readahead(e.journal, e.params.nr_blocks - 2, 16);
	testlog_down(&e);
}
END_TEST

START_TEST(cache_stays_near_its_limit)
{
	struct testlog e;
	struct journal_buffer *pinned, *buffer;

	testlog_format(&e, &testlog_formats[0], 4);
	e.params.cache_bytes = 1 << 20; /* 256 blocks */
	testlog_open(&e);
	testlog_start(&e);
	ck_assert_int_eq(journal_read_block(e.journal, 1, &pinned), 0);
	for (uint64_t blk = 2; blk < e.params.nr_blocks; blk++) {
		ck_assert_int_eq(journal_read_block(e.journal, blk, &buffer), 0);
		journal_buffer_release(buffer);
	}
	ck_assert_uint_le(e.journal->nr_buffers, 256 + 2 * JOURNAL_CACHE_SHARDS);
	ck_assert_int_eq(journal_read_cached(e.journal, 1, &buffer), 0);
	ck_assert_ptr_eq(buffer, pinned);
	journal_buffer_release(buffer);
	journal_buffer_release(pinned);
	testlog_down(&e);
}
END_TEST

/* ---- handles ---- */

static unsigned undone[4], nr_undone, ended;
struct callback_record { struct journal_callback callback; unsigned id; int err; unsigned calls; };

static void on_undo(struct journal_callback *callback, int err)
{
	struct callback_record *callback_record =
			container_of(callback, struct callback_record, callback);

	if (err)
		ended++;
	else
		undone[nr_undone++] = callback_record->id;
}

static void on_commit(struct journal_callback *callback, int err)
{
	struct callback_record *callback_record =
			container_of(callback, struct callback_record, callback);

	callback_record->err = err;
	__atomic_add_fetch(&callback_record->calls, 1, __ATOMIC_SEQ_CST);
}

START_TEST(cancel_restores_everything)
{
	struct testlog e;
	struct journal_handle *handle;
	struct callback_record callback_record[3] = { { { .fn = on_undo }, 0 },
			    { { .fn = on_undo }, 1 },
			    { { .fn = on_commit }, 2 } };
	struct journal_buffer *buffer;

	testlog_up(&e);
	nr_undone = ended = 0;
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	testlog_write(&e, e.base + 1, 2); /* in the running transaction */
	ck_assert_int_eq(journal_read_block(e.journal, e.base + 2, &buffer), 0);
	buffer->verified = 5;

	ck_assert_int_eq(journal_begin(e.journal, 10, &handle), 0);
	journal_on_undo(handle, &callback_record[0].callback);
	journal_on_undo(handle, &callback_record[1].callback);
	journal_on_commit(handle, &callback_record[2].callback);
	testlog_fill(&e, handle, e.base, 11);
	testlog_fill(&e, handle, e.base + 1, 12);
	testlog_fill(&e, handle, e.base + 2, 13);
	buffer->verified = 6;
	ck_assert_uint_eq(journal_credits_left(handle), 7);
	journal_cancel(handle);

	ck_assert_int_eq(testlog_value(&e, e.base), 1);
	ck_assert_int_eq(testlog_value(&e, e.base + 1), 2);
	ck_assert_int_eq(testlog_value(&e, e.base + 2), testlog_home(&e, e.base + 2));
	ck_assert_uint_eq(buffer->verified, 5);
	journal_buffer_release(buffer);
	ck_assert_uint_eq(nr_undone, 2);
	ck_assert_uint_eq(undone[0], 1); /* newest first */
	ck_assert_uint_eq(undone[1], 0);
	/* Only what earlier handles changed is still in the transaction. */
	ck_assert_uint_eq(e.journal->running->nr_buffers, 1);
	testlog_sync(&e);
	ck_assert_uint_eq(callback_record[2].calls, 0);
	testlog_crash(&e, NULL);
	ck_assert_int_eq(testlog_value(&e, e.base), 1);
	ck_assert_int_eq(testlog_value(&e, e.base + 1), 2);
	testlog_drop(&e);
}
END_TEST

START_TEST(end_runs_undo_callbacks_with_one)
{
	struct testlog e;
	struct journal_handle *handle;
	struct callback_record callback_record = { { .fn = on_undo }, 0 };

	testlog_up(&e);
	nr_undone = ended = 0;
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	journal_on_undo(handle, &callback_record.callback);
	journal_end(handle);
	ck_assert_uint_eq(ended, 1);
	ck_assert_uint_eq(nr_undone, 0);
	testlog_down(&e);
}
END_TEST

START_TEST(credits_are_a_limit)
{
	struct testlog e;
	struct journal_handle *handle;
	struct journal_buffer *buffer[3];

	testlog_up(&e);
	fdio_log_set_level(0);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_int_eq(journal_read_block(e.journal, e.base + i, &buffer[i]), 0);
	ck_assert_int_eq(journal_begin(e.journal, journal_max_credits(e.journal) + 1, &handle),
			 -ENOSPC);
	ck_assert_int_eq(journal_begin(e.journal, 2, &handle), 0);
	ck_assert_int_eq(journal_get_write(handle, buffer[0]), 0);
	ck_assert_int_eq(journal_get_write(handle, buffer[0]), 0); /* counts once */
	ck_assert_int_eq(journal_get_write(handle, buffer[1]), 0);
	ck_assert_int_eq(journal_get_write(handle, buffer[2]), -ENOSPC);
	journal_cancel(handle);
	ck_assert_int_eq(journal_begin(e.journal, journal_max_credits(e.journal), &handle), 0);
	journal_cancel(handle);
	for (unsigned i = 0; i < 3; i++)
		journal_buffer_release(buffer[i]);
	testlog_down(&e);
}
END_TEST

/*
 * A block whose page is read-only, so that the signal handler sees the moment when a cancelled
 * handle restores its content, and in which state the block is then.
 */
static struct {
	struct journal_cache_buffer *buffer;
	void *page;
	unsigned hits;
	bool in_txn, held;
} guarded;

static void on_first_write(int sig, siginfo_t *si, void *ctx)
{
	uint8_t *at = si->si_addr;

	if (at < (uint8_t *)guarded.page || at >= (uint8_t *)guarded.page + 4096)
		_exit(99);
	guarded.hits++;
	guarded.in_txn = guarded.buffer->running != NULL;
	guarded.held = guarded.buffer->refs > 0;
	mprotect(guarded.page, 4096, PROT_READ | PROT_WRITE);
}

/*
 * Until a cancelled handle has restored a block, the block must not go home or leave the cache. So
 * it is still in the transaction, and referenced, while its content is restored.
 */
START_TEST(cancel_restores_content_before_the_block_leaves)
{
	struct sigaction sa = { .sa_sigaction = on_first_write, .sa_flags = SA_SIGINFO }, old;
	struct journal_handle *handle;
	struct journal_buffer *buffer;
	struct testlog e;

	testlog_up(&e);
	if (_i) { /* the block's last commit is to be written home */
		testlog_write(&e, e.base, 1);
		testlog_sync(&e);
	}
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	ck_assert_int_eq(journal_read_block(e.journal, e.base, &buffer), 0);
	ck_assert_int_eq(journal_get_write(handle, buffer), 0);
	memset(buffer->data, 0xee, 4096);
	guarded.buffer = (struct journal_cache_buffer *)(void *)buffer;
	guarded.page = buffer->data;
	guarded.hits = 0;
	journal_buffer_release(buffer); /* the handle still holds it */
	ck_assert_int_eq(sigaction(SIGSEGV, &sa, &old), 0);
	ck_assert_int_eq(mprotect(guarded.page, 4096, PROT_READ), 0);
	journal_cancel(handle);
	ck_assert_int_eq(sigaction(SIGSEGV, &old, NULL), 0);
	ck_assert_uint_eq(guarded.hits, 1);
	ck_assert(guarded.in_txn);
	ck_assert(guarded.held);
	if (_i)
		ck_assert_int_eq(testlog_value(&e, e.base), 1);
	testlog_down(&e);
}
END_TEST

/* Adds as many blocks as the transaction has. */
static void seal_as_many(struct testlog *e, struct journal_handle *handle)
{
	unsigned n = e->journal->running->nr_buffers;

	for (unsigned k = 0; k < n; k++)
		testlog_fill(e, handle, e->base + 512 + k, 7);
}

/*
 * The owner may add a block for each block of a full transaction when it closes; a small log holds
 * both.
 */
START_TEST(full_transaction_is_sealed)
{
	struct journal_handle *handle;
	struct testlog e;
	unsigned most;

	testlog_format(&e, &testlog_formats[2], 1);
	e.params.seal_blocks = 500;
	e.seal = seal_as_many;
	testlog_open(&e);
	testlog_start(&e);
	most = journal_max_credits(e.journal);
	ck_assert_uint_ge(most, 100);
	for (unsigned round = 0; round < 3; round++) {
		ck_assert_int_eq(journal_begin(e.journal, most, &handle), 0);
		for (unsigned k = 0; k < most; k++)
			testlog_fill(&e, handle, e.base + k, round);
		journal_end(handle);
		testlog_sync(&e);
	}
	ck_assert_uint_eq(e.aborted, 0);
	testlog_down(&e);
}
END_TEST

START_TEST(new_block_is_not_read_and_cancel_forgets_it)
{
	struct testlog e;
	struct journal_handle *handle;
	struct journal_buffer *buffer;
	static uint8_t pat[4096];

	testlog_up(&e);
	testlog_pattern(pat, 4096, e.base, 9);
	fake_poke(e.fake, pat, 4096, e.base * 4096);
	fake_stats_reset(e.fake);
	ck_assert_int_eq(journal_begin(e.journal, 2, &handle), 0);
	ck_assert_int_eq(journal_new_block(handle, e.base, &buffer), 0);
	ck_assert_uint_eq(fake_stats(e.fake).reads, 0);
	for (unsigned i = 0; i < 4096; i++)
		ck_assert_uint_eq(buffer->data[i], 0);
	memset(buffer->data, 0x55, 4096);
	journal_cancel(handle);
	journal_buffer_release(buffer);
	/* The cancelled new block is not in the cache: the next reader sees the device. */
	ck_assert_int_eq(testlog_value(&e, e.base), 9);

	/* A cached block gets its content back. */
	ck_assert_int_eq(journal_begin(e.journal, 2, &handle), 0);
	ck_assert_int_eq(journal_new_block(handle, e.base, &buffer), 0);
	ck_assert_uint_eq(buffer->data[0], 0);
	journal_buffer_release(buffer);
	journal_cancel(handle);
	ck_assert_int_eq(testlog_value(&e, e.base), 9);
	ck_assert_int_eq(journal_begin(e.journal, 2, &handle), 0);
	ck_assert_int_eq(journal_new_block(handle, e.params.nr_blocks, &buffer), -EUCLEAN);
	journal_cancel(handle);
	testlog_down(&e);
}
END_TEST

START_TEST(empty_handles_cost_no_transaction)
{
	struct testlog e;
	struct journal_handle *handle;
	journal_tid tid;
	uint64_t before;
	bool flushed;

	testlog_up(&e);
	before = fdio_counter_read(COUNTER_journal_commit);
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	tid = journal_end(handle);
	ck_assert(journal_tid_durable(e.journal, tid));
	ck_assert_int_eq(journal_commit_wait(e.journal, tid, &flushed), 0);
	ck_assert(!flushed);
	fake_stats_reset(e.fake);
	ck_assert_int_eq(journal_commit_wait(e.journal, tid + 1, &flushed), 0);
	ck_assert(flushed);
	ck_assert_uint_eq(fake_stats(e.fake).flushes, 1);
	ck_assert_uint_eq(fake_stats(e.fake).writes, 0);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_journal_commit), before);
	tid = testlog_write(&e, e.base, 1);
	ck_assert(!journal_tid_durable(e.journal, tid));
	ck_assert_int_eq(journal_commit_wait(e.journal, tid, &flushed), 0);
	ck_assert(flushed);
	ck_assert(journal_tid_durable(e.journal, tid));
	testlog_down(&e);
}
END_TEST

/* ---- opening ---- */

START_TEST(read_only_and_refusals)
{
	struct testlog e;
	struct journal_handle *handle;
	struct journal *journal;
	char err[256];
	struct journal_params params;
	uint8_t sb[1024];

	testlog_format(&e, &testlog_formats[0], 4);
	params = e.params;
	params.nr_log = 0;
	ck_assert_int_eq(journal_open(&params, &journal, FDIO_REASON(err)), -EROFS);
	params.read_only = true;
	ck_assert_int_eq(journal_open(&params, &journal, FDIO_REASON(err)), 0);
	ck_assert_int_eq(journal_start(journal), -EROFS);
	ck_assert_int_eq(journal_begin(journal, 1, &handle), -EROFS);
	ck_assert_int_eq(journal_sync(journal), 0);
	ck_assert_int_eq(journal_stop(journal), 0);
	journal_close(journal);

	params = e.params;
	e.log[0].pblk = params.nr_blocks - 2;
	ck_assert_int_eq(journal_open(&params, &journal, FDIO_REASON(err)), -EUCLEAN);
	testlog_drop(&e);
	for (unsigned i = 0; i < 6; i++) {
		static const struct {
			unsigned off;
			uint32_t v;
		} bad[6] = { { 0, 1 },
			     { JOURNAL_SB_BLOCKSIZE, 512 },
			     { JOURNAL_SB_MAXLEN, 100000 },
			     { JOURNAL_SB_FIRST, 0 },
			     { JOURNAL_SB_START, 5000 },
			     { JOURNAL_SB_INCOMPAT, 0x4000 } };

		testlog_format(&e, &testlog_formats[0], 4);
		fake_peek(e.fake, sb, 1024, e.log[0].pblk * 4096);
		fdio_put_be32(sb, bad[i].off, bad[i].v);
		fake_poke(e.fake, sb, 1024, e.log[0].pblk * 4096);
		ck_assert_int_lt(journal_open(&e.params, &journal, FDIO_REASON(err)), 0);
		ck_assert(err[0]);
		testlog_drop(&e);
	}
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: transactions");
	TCase *tc = unit_case(s, "cache and handles", 30);

	unit_test(tc, read_block_reads_and_caches);
	unit_test(tc, read_error_is_not_cached);
	unit_test(tc, readahead_is_one_read);
	unit_test(tc, cache_stays_near_its_limit);
	unit_test(tc, cancel_restores_everything, PROVES("JOURNAL-1"));
	/* It makes a block read-only, which must have a page of its own. */
	if (sysconf(_SC_PAGESIZE) == 4096)
		unit_loop(tc, cancel_restores_content_before_the_block_leaves, 0, 2,
			  PROVES("JOURNAL-1 JOURNAL-6"));
	unit_test(tc, end_runs_undo_callbacks_with_one);
	unit_test(tc, credits_are_a_limit);
	unit_test(tc, full_transaction_is_sealed);
	unit_test(tc, new_block_is_not_read_and_cancel_forgets_it);
	unit_test(tc, empty_handles_cost_no_transaction);
	unit_test(tc, read_only_and_refusals);
	return s;
}
