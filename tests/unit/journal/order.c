/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the order in which the journal does things: a commit is told only when no home
 * write of a block that it frees is in flight (JOURNAL-8), the tail stays before what is not home
 * yet (JOURNAL-7), a cancelled handle restores revocations (JOURNAL-1), and when a transaction is
 * closed unasked.
 *
 * A fake device holds or records writes; the log is small, so that the checkpoint has to work. The
 * test's thread changes blocks, a second thread waits for commits.
 */
#include "kit/journal.h"

#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <stdlib.h>

/* Three transactions of this many blocks fill a log of 1 MiB so far that the checkpoint runs. */
enum { BIG = 180 };

static void small_log(struct testlog *e)
{
	testlog_format(e, &testlog_formats[2], 1);
	testlog_open(e);
	testlog_start(e);
	ck_assert_uint_ge(journal_max_credits(e->journal), BIG);
}

/* One transaction of BIG blocks that no other round uses; it is not committed yet. */
static journal_tid write_big(struct testlog *e, unsigned round)
{
	struct journal_handle *handle;

	ck_assert_int_eq(journal_begin(e->journal, BIG, &handle), 0);
	for (unsigned k = 0; k < BIG; k++)
		testlog_fill(e, handle, e->base + 1 + round * BIG + k, round);
	return journal_end(handle);
}

struct committer { struct testlog *e; journal_tid tid; int done; };

static void *commit(void *arg)
{
	struct committer *committer = arg;
	int err = journal_commit_wait(committer->e->journal, committer->tid, NULL);

	__atomic_store_n(&committer->done, err ? err : 1, __ATOMIC_RELEASE);
	return NULL;
}

static void start_committer(struct committer *committer, pthread_t *t)
{
	ck_assert_int_eq(thread_start(t, "committer", commit, committer), 0);
}

/* The commit that frees a block waits for a home write of the block that is in flight. */
START_TEST(commit_waits_for_home_write_of_freed_block)
{
	struct journal_handle *handle;
	struct committer committer;
	struct testlog e;
	uint64_t fua;
	pthread_t t;

	small_log(&e);
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	fake_fault_add(e.fake, &(struct fake_fault){ .kinds = FAKE_WRITE, .off = e.base * 1024,
		.len = 1024, .action = FAKE_STUCK });
	for (unsigned round = 0; round < 3; round++)
		ck_assert_int_eq(journal_commit_wait(e.journal, write_big(&e, round), NULL), 0);
	for (unsigned n = 0; !fake_fault_hits(e.fake); n++) {
		ck_assert_uint_lt(n, 2000);
		unit_pause_ms(10);
	}
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	ck_assert_int_eq(journal_forget(handle, e.base, 1), 0);
	fua = fake_stats(e.fake).fua;
	committer = (struct committer){ .e = &e, .tid = journal_end(handle) };
	start_committer(&committer, &t);
	/* The commit block is written, but the waiter is not told. */
	for (unsigned n = 0; fake_stats(e.fake).fua == fua; n++) {
		ck_assert_uint_lt(n, 2000);
		unit_pause_ms(10);
	}
	unit_pause_ms(300);
	ck_assert_int_eq(__atomic_load_n(&committer.done, __ATOMIC_ACQUIRE), 0);
	ck_assert(!journal_tid_durable(e.journal, committer.tid));
	fake_fault_clear(e.fake);
	fake_unstick(e.fake);
	pthread_join(t, NULL);
	ck_assert_int_eq(committer.done, 1);
	testlog_down(&e);
}
END_TEST

/*
 * The oldest transaction has a block that an open transaction has changed again, so the block
 * cannot go home; younger blocks can. The tail stays before the oldest transaction: a power cut
 * loses nothing that was committed, at whatever moment it comes.
 */
START_TEST(tail_stays_before_what_is_not_home)
{
	struct committer committer;
	struct testlog e, cut;
	pthread_t t;
	unsigned n;

	small_log(&e);
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	fake_record_start(e.fake);
	for (unsigned round = 0; round < 2; round++)
		ck_assert_int_eq(journal_commit_wait(e.journal, write_big(&e, round), NULL), 0);
	/*
	 * The third commit is held at its flush until the next transaction has the block. The flush
	 * is blocked first, because a transaction of this size is committed unasked.
	 */
	fake_block(e.fake, FAKE_FLUSH);
	committer = (struct committer){ .e = &e, .tid = write_big(&e, 2) };
	start_committer(&committer, &t);
	ck_assert(fake_wait_blocked(e.fake, 1));
	testlog_write(&e, e.base, 2);
	fake_unblock(e.fake);
	pthread_join(t, NULL);
	ck_assert_int_eq(committer.done, 1);
	/* The checkpoint makes the transaction with the block commit, and goes on. */
	for (n = 0;
	     __atomic_load_n(&e.journal->log.free, __ATOMIC_RELAXED) < e.journal->log.len / 2;
	     n++) {
		ck_assert_uint_lt(n, 2000);
		unit_pause_ms(10);
	}
	n = fake_record_events(e.fake);
	for (unsigned k = 0; k <= n; k++) {
		cut = e;
		cut.journal = NULL;
		cut.fake = fake_record_cut(e.fake, k, FAKE_CUT_DROP, 0);
		testlog_replay(&cut, NULL);
		ck_assert_msg(testlog_home(&cut, e.base) == 1 || testlog_home(&cut, e.base) == 2,
			      "cut after %u of %u", k, n);
		testlog_drop(&cut);
	}
	testlog_down(&e);
}
END_TEST

/*
 * A block is freed, and allocated again by a handle of the same transaction, which is cancelled:
 * the block's revocation is back.
 */
START_TEST(cancel_brings_back_the_revocation)
{
	struct journal_replay_stats stats;
	struct journal_handle *handle;
	struct journal_buffer *buffer;
	struct testlog e;

	testlog_up(&e);
	testlog_write(&e, e.base, 1);
	testlog_write(&e, e.base + 1, 2);
	testlog_sync(&e);
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	ck_assert_int_eq(journal_forget(handle, e.base, 1), 0);
	journal_end(handle);
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	ck_assert_int_eq(journal_new_block(handle, e.base, &buffer), 0);
	journal_buffer_release(buffer);
	journal_cancel(handle);
	ck_assert(journal_block_set_has(&e.journal->running->kit->revokes, e.base));
	testlog_sync(&e);
	testlog_crash(&e, &stats);
	ck_assert_uint_eq(stats.revoked, 1);
	ck_assert_int_ne(testlog_home(&e, e.base), 1);
	ck_assert_int_eq(testlog_home(&e, e.base + 1), 2);
	testlog_drop(&e);
}
END_TEST

/*
 * A transaction with more than three quarters of the blocks that it may have (_i 1) is committed
 * unasked, one with exactly that many (_i 0) is not.
 */
START_TEST(nearly_full_transaction_is_committed)
{
	struct journal_handle *handle;
	unsigned n, blocks;
	struct testlog e;
	journal_tid tid;

	small_log(&e);
	blocks = journal_max_credits(e.journal) / 4 * 3 + (_i ? 1 : 0);
	ck_assert_int_eq(journal_begin(e.journal, blocks, &handle), 0);
	for (unsigned k = 0; k < blocks; k++)
		testlog_fill(&e, handle, e.base + k, 7);
	tid = journal_end(handle);
	for (n = 0; n < (_i ? 2000u : 20u) && !journal_tid_durable(e.journal, tid); n++)
		unit_pause_ms(10);
	ck_assert_int_eq(journal_tid_durable(e.journal, tid), _i);
	testlog_down(&e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: order");
	TCase *tc = unit_case(s, "order", 120);

	unit_test(tc, commit_waits_for_home_write_of_freed_block, PROVES("JOURNAL-8"));
	unit_test(tc, tail_stays_before_what_is_not_home, PROVES("JOURNAL-7"));
	unit_test(tc, cancel_brings_back_the_revocation, PROVES("JOURNAL-1 JOURNAL-8"));
	unit_loop(tc, nearly_full_transaction_is_committed, 0, 2);
	return s;
}
