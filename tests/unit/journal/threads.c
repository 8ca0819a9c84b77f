/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the journal with eight threads: waiters share a commit, handles work beside commits
 * and checkpoints, readers beside rollbacks, and an abort wakes everybody, the owner first
 * (JOURNAL-10). The fake device makes flushes slow, hold or fail. Run with ThreadSanitizer these
 * tests also look for races.
 */
#include "kit/journal.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

enum { NR_THREADS = 8 };

struct worker {
	pthread_t thread;
	struct testlog *e;
	unsigned id, rounds;
	int result;
};

static void start_workers(struct testlog *e, struct worker *worker, unsigned rounds,
			  void *(*fn)(void *))
{
	for (unsigned i = 0; i < NR_THREADS; i++) {
		worker[i] = (struct worker){ .e = e, .id = i, .rounds = rounds };
		ck_assert_int_eq(pthread_create(&worker[i].thread, NULL, fn, &worker[i]), 0);
	}
}

static void join_workers(struct worker *worker)
{
	for (unsigned i = 0; i < NR_THREADS; i++)
		pthread_join(worker[i].thread, NULL);
}

/*
 * Changes one block in a handle of its own. No assertions: libcheck wants them on the main thread.
 */
static int change(struct testlog *e, uint64_t blk, uint32_t value, journal_tid *ret_tid)
{
	struct journal_handle *handle;
	struct journal_buffer *buffer;
	int err = journal_begin(e->journal, 2, &handle);

	if (err)
		return err;
	err = journal_read_block(e->journal, blk, &buffer);
	if (!err) {
		err = journal_get_write(handle, buffer);
		if (!err)
			testlog_pattern(buffer->data, e->params.block_size, blk, value);
		journal_buffer_release(buffer);
	}
	if (err) {
		journal_cancel(handle);
		return err;
	}
	*ret_tid = journal_end(handle);
	return 0;
}

static void *fsyncer(void *arg)
{
	struct worker *worker = arg;

	for (unsigned i = 0; i < worker->rounds && !worker->result; i++) {
		journal_tid tid;

		worker->result = change(worker->e, worker->e->base + worker->id, i, &tid);
		if (!worker->result)
			worker->result = journal_commit_wait(worker->e->journal, tid, NULL);
		if (!worker->result && !journal_tid_durable(worker->e->journal, tid))
			worker->result = -EPROTO;
	}
	return NULL;
}

START_TEST(waiters_share_a_commit)
{
	struct testlog e;
	struct worker worker[NR_THREADS];
	uint64_t before;

	testlog_up(&e);
	before = fdio_counter_read(COUNTER_journal_commit);
	/* The first commit waits in its flush; all other threads must get into the next one. */
	fake_block(e.fake, FAKE_FLUSH);
	start_workers(&e, worker, 1, fsyncer);
	ck_assert(fake_wait_blocked(e.fake, 1));
	for (unsigned i = 0; i < 1000; i++) {
		unsigned n;

		fdio_mutex_lock(&e.journal->state_lock);
		n = (e.journal->committing ? e.journal->committing->nr_buffers : 0) +
		    (e.journal->running ? e.journal->running->nr_buffers : 0);
		fdio_mutex_unlock(&e.journal->state_lock);
		if (n == NR_THREADS)
			break;
		unit_pause_ms(1);
	}
	fake_unblock(e.fake);
	join_workers(worker);
	for (unsigned i = 0; i < NR_THREADS; i++)
		ck_assert_int_eq(worker[i].result, 0);
	ck_assert_uint_le(fdio_counter_read(COUNTER_journal_commit) - before, 2);
	testlog_crash(&e, NULL);
	for (unsigned i = 0; i < NR_THREADS; i++)
		ck_assert_int_eq(testlog_value(&e, e.base + i), 0);
	testlog_drop(&e);
}
END_TEST

static void *unblocker(void *arg)
{
	unit_pause_ms(30);
	fake_unblock(arg);
	return NULL;
}

/*
 * journal_commit_wait_turn waits for the commit before it if the transaction still runs, and not at
 * all if the transaction is being committed.
 */
START_TEST(turn_comes_after_the_commit_before)
{
	struct testlog e;
	struct worker worker = { .rounds = 1 };
	pthread_t t;
	journal_tid tid;

	testlog_up(&e);
	worker.e = &e;
	fake_block(e.fake, FAKE_FLUSH);
	ck_assert_int_eq(pthread_create(&worker.thread, NULL, fsyncer, &worker), 0);
	ck_assert(fake_wait_blocked(e.fake, 1));
	ck_assert_int_eq(change(&e, e.base + 1, 0, &tid), 0);
	journal_commit_wait_turn(e.journal, tid - 1);
	ck_assert(!journal_tid_durable(e.journal, tid - 1));
	ck_assert_int_eq(pthread_create(&t, NULL, unblocker, e.fake), 0);
	journal_commit_wait_turn(e.journal, tid);
	ck_assert(journal_tid_durable(e.journal, tid - 1));
	ck_assert(!journal_tid_durable(e.journal, tid));
	pthread_join(t, NULL);
	pthread_join(worker.thread, NULL);
	ck_assert_int_eq(worker.result, 0);
	journal_commit_wait_turn(e.journal, tid); /* nothing is being committed */
	ck_assert_int_eq(journal_commit_wait(e.journal, tid, NULL), 0);
	testlog_crash(&e, NULL);
	testlog_drop(&e);
}
END_TEST

static void slow_flush(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
		       bool after)
{
	if (kind == FAKE_FLUSH && !after)
		unit_pause_ms(2);
}

/* On a device with slow flushes, eight threads that sync share commits: more than two use each. */
START_TEST(commit_serves_more_than_two_threads)
{
	enum { ROUNDS = 30 };
	struct worker worker[NR_THREADS];
	struct testlog e;
	uint64_t before;

	testlog_up(&e);
	fake_set_hook(e.fake, slow_flush, NULL);
	before = fdio_counter_read(COUNTER_journal_commit);
	worker[0] = (struct worker){ .e = &e, .rounds = ROUNDS };
	fsyncer(&worker[0]);
	ck_assert_int_eq(worker[0].result, 0);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_journal_commit) - before, ROUNDS);
	before = fdio_counter_read(COUNTER_journal_commit);
	start_workers(&e, worker, ROUNDS, fsyncer);
	join_workers(worker);
	for (unsigned i = 0; i < NR_THREADS; i++)
		ck_assert_int_eq(worker[i].result, 0);
	ck_assert_uint_le((fdio_counter_read(COUNTER_journal_commit) - before) * 2,
			  NR_THREADS * ROUNDS);
	fake_set_hook(e.fake, NULL, NULL);
	testlog_down(&e);
}
END_TEST

START_TEST(many_fsyncs)
{
	struct testlog e;
	struct worker worker[NR_THREADS];
	uint64_t before;

	/* The smaller log (_i 1) wraps meanwhile. */
	testlog_format(&e, &testlog_formats[_i ? 2 : 0], _i ? 1 : 4);
	testlog_open(&e);
	testlog_start(&e);
	before = fdio_counter_read(COUNTER_journal_commit);
	start_workers(&e, worker, 300, fsyncer);
	join_workers(worker);
	for (unsigned i = 0; i < NR_THREADS; i++)
		ck_assert_int_eq(worker[i].result, 0);
	ck_assert_uint_le(fdio_counter_read(COUNTER_journal_commit) - before, NR_THREADS * 300);
	testlog_crash(&e, NULL);
	for (unsigned i = 0; i < NR_THREADS; i++)
		ck_assert_int_eq(testlog_value(&e, e.base + i), 299);
	testlog_drop(&e);
}
END_TEST

/*
 * Each thread owns 64 bytes in each of the shared blocks, as inodes share a block, and cancels half
 * of its handles.
 */
static void *change_own_part(void *arg)
{
	struct worker *worker = arg;
	struct journal *journal = worker->e->journal;
	unsigned seed = worker->id + 1;
	uint64_t mine[4] = { 0 };
	journal_tid tid = 0;

	for (unsigned i = 1; i <= worker->rounds && !worker->result; i++) {
		unsigned blk = rand_r(&seed) % 4;
		struct journal_handle *handle;
		struct journal_buffer *buffer;
		uint64_t v = i, got;

		worker->result = journal_read_block(journal, worker->e->base + blk, &buffer);
		if (worker->result)
			break;
		memcpy(&got, buffer->data + worker->id * 64, 8); /* nobody else writes here */
		if (got != mine[blk])
			worker->result = -EPROTO;
		if (!worker->result)
			worker->result = journal_begin(journal, 3, &handle);
		if (worker->result) {
			journal_buffer_release(buffer);
			break;
		}
		worker->result = journal_get_write(handle, buffer);
		memcpy(buffer->data + worker->id * 64, &v, 8);
		if (rand_r(&seed) % 2) {
			journal_cancel(handle);
		} else {
			tid = journal_end(handle);
			mine[blk] = v;
		}
		journal_buffer_release(buffer);
		if (i % 50 == 0)
			journal_commit_start(journal, tid);
		if (i % 97 == 0)
			worker->result = journal_sync(journal);
	}
	return NULL;
}

START_TEST(cancel_spares_neighbours_in_a_block)
{
	struct testlog e;
	struct worker worker[NR_THREADS];
	struct journal_handle *handle;
	struct journal_buffer *buffer;

	testlog_up(&e);
	ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(journal_new_block(handle, e.base + i, &buffer), 0);
		journal_buffer_release(buffer);
	}
	journal_end(handle);
	start_workers(&e, worker, 2000, change_own_part);
	join_workers(worker);
	for (unsigned i = 0; i < NR_THREADS; i++)
		ck_assert_int_eq(worker[i].result, 0);
	testlog_down(&e);
}
END_TEST

static void *changer(void *arg)
{
	struct worker *worker = arg;
	unsigned seed = worker->id;
	journal_tid tid;

	for (unsigned i = 0; i < worker->rounds && !worker->result; i++)
		worker->result = change(worker->e,
					worker->e->base + worker->id * 16 + rand_r(&seed) % 16, i,
					&tid);
	return NULL;
}

START_TEST(abort_wakes_everybody)
{
	struct testlog e;
	struct worker syncing[NR_THREADS], changing[NR_THREADS];

	testlog_up(&e);
	fdio_log_set_level(0);
	start_workers(&e, syncing, 1000000, fsyncer);
	start_workers(&e, changing, 100000000, changer);
	unit_pause_ms(50);
	fake_fault_add(e.fake, &(struct fake_fault){ .kinds = FAKE_FLUSH,
						     .repeat = 1,
						     .action = FAKE_ERROR,
						     .err = -EIO });
	join_workers(syncing);
	join_workers(changing);
	for (unsigned i = 0; i < NR_THREADS; i++) {
		ck_assert(syncing[i].result == -EIO || syncing[i].result == -EROFS);
		ck_assert_int_eq(changing[i].result, -EROFS);
	}
	ck_assert_int_eq(journal_stop(e.journal), -EIO);
	ck_assert_uint_eq(e.aborted, 1);
	testlog_drop(&e);
}
END_TEST

START_TEST(changers_and_fsyncers_in_a_small_log)
{
	struct testlog e;
	struct worker syncing[NR_THREADS], changing[NR_THREADS];

	testlog_format(&e, &testlog_formats[2], 1);
	e.params.cache_bytes = 256 << 10;
	testlog_open(&e);
	testlog_start(&e);
	start_workers(&e, syncing, 100, fsyncer);
	start_workers(&e, changing, 3000, changer);
	join_workers(syncing);
	join_workers(changing);
	for (unsigned i = 0; i < NR_THREADS; i++) {
		ck_assert_int_eq(syncing[i].result, 0);
		ck_assert_int_eq(changing[i].result, 0);
	}
	testlog_down(&e);
}
END_TEST

/*
 * Changes and syncs until an error. worker->result is then the error, or -EPROTO if the owner had
 * not been told of the abort before.
 */
static void *change_until_error(void *arg)
{
	struct worker *worker = arg;

	while (!worker->result) {
		journal_tid tid;

		worker->result = change(worker->e, worker->e->base + worker->id, ++worker->rounds,
					&tid);
		if (!worker->result && worker->id % 2)
			worker->result = journal_sync(worker->e->journal);
		else if (!worker->result)
			worker->result = journal_commit_wait(worker->e->journal, tid, NULL);
	}
	if (!__atomic_load_n(&worker->e->aborted, __ATOMIC_SEQ_CST))
		worker->result = -EPROTO;
	return NULL;
}

struct commit_record {
	struct journal_callback callback;
	struct testlog *e;
	int err;
	bool owner_knew;
};

static void on_commit(struct journal_callback *callback, int err)
{
	struct commit_record *t = container_of(callback, struct commit_record, callback);

	t->err = err;
	t->owner_knew = __atomic_load_n(&t->e->aborted, __ATOMIC_SEQ_CST) != 0;
}

/*
 * Waiters, callbacks and new handles see an abort only after the owner has been told. _i: the abort
 * comes from a call, a failed flush, a failed write.
 */
START_TEST(owner_is_told_first)
{
	struct testlog e;
	struct worker worker[NR_THREADS];
	struct commit_record cb = { { .fn = on_commit }, &e };
	struct journal_handle *handle;

	testlog_up(&e);
	fdio_log_set_level(0);
	e.aborted_ms = 50;
	start_workers(&e, worker, 0, change_until_error);
	unit_pause_ms(10);
	if (_i) {
		fake_fault_add(e.fake,
			       &(struct fake_fault){ .kinds = _i == 1 ? FAKE_FLUSH : FAKE_WRITE,
						     .repeat = 1,
						     .action = FAKE_ERROR,
						     .err = -EIO });
	} else {
		ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
		testlog_fill(&e, handle, e.base + NR_THREADS, 1);
		cb.e = &e;
		journal_on_commit(handle, &cb.callback);
		journal_end(handle);
		journal_abort(e.journal, -EUCLEAN);
	}
	join_workers(worker);
	for (unsigned i = 0; i < NR_THREADS; i++)
		ck_assert(worker[i].result == -EIO || worker[i].result == -EROFS);
	(void)journal_stop(e.journal);
	ck_assert(_i || !cb.err || (cb.err == -EIO && cb.owner_knew));
	ck_assert_uint_eq(e.aborted, 1);
	testlog_drop(&e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: threads");
	TCase *tc = unit_case(s, "threads", 60);

	unit_test(tc, waiters_share_a_commit);
	unit_test(tc, turn_comes_after_the_commit_before);
	unit_test(tc, commit_serves_more_than_two_threads);
	unit_loop(tc, many_fsyncs, 0, 2);
	unit_test(tc, cancel_spares_neighbours_in_a_block);
	unit_test(tc, abort_wakes_everybody);
	unit_loop(tc, owner_is_told_first, 0, 3, PROVES("JOURNAL-10"));
	unit_test(tc, changers_and_fsyncers_in_a_small_log);
	return s;
}
