/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the journal under threads: group commit, handles beside commits and checkpoints,
 * readers beside rollbacks, aborts that wake everybody. Meant for ThreadSanitizer as much as for
 * the assertions.
 */
#include "kit/journal.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <stdlib.h>

enum { NT = 8 };

struct worker {
	pthread_t thread;
	struct testlog *e;
	unsigned id, rounds;
	int result;
};

static void run(struct testlog *e, struct worker *worker, unsigned rounds, void *(*fn)(void *))
{
	for (unsigned i = 0; i < NT; i++) {
		worker[i] = (struct worker){ .e = e, .id = i, .rounds = rounds };
		ck_assert_int_eq(pthread_create(&worker[i].thread, NULL, fn, &worker[i]), 0);
	}
}

static void join(struct worker *worker)
{
	for (unsigned i = 0; i < NT; i++)
		pthread_join(worker[i].thread, NULL);
}

/* Plain calls only: check's assertions are for the main thread. */
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
	struct worker worker[NT];
	uint64_t before;

	testlog_up(&e);
	before = fdio_counter_read(COUNTER_journal_commit);
	/* The first commit hangs in its flush; everybody else must meet in the next. */
	fake_block(e.fake, FAKE_FLUSH);
	run(&e, worker, 1, fsyncer);
	ck_assert(fake_wait_blocked(e.fake, 1));
	for (unsigned i = 0; i < 1000; i++) {
		unsigned n;

		fdio_mutex_lock(&e.journal->state_lock);
		n = (e.journal->committing ? e.journal->committing->nr_buffers : 0) +
		    (e.journal->running ? e.journal->running->nr_buffers : 0);
		fdio_mutex_unlock(&e.journal->state_lock);
		if (n == NT)
			break;
		unit_pause_ms(1);
	}
	fake_unblock(e.fake);
	join(worker);
	for (unsigned i = 0; i < NT; i++)
		ck_assert_int_eq(worker[i].result, 0);
	ck_assert_uint_le(fdio_counter_read(COUNTER_journal_commit) - before, 2);
	testlog_crash(&e, NULL);
	for (unsigned i = 0; i < NT; i++)
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
 * Whose transaction still runs waits for the commit before it; whose is being committed does not.
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

/*
 * Eight threads that sync on a device with slow flushes do several times what one does there: a
 * commit serves more than two of them.
 */
START_TEST(threads_get_more_than_one)
{
	enum { ROUNDS = 30 };
	struct worker worker[NT];
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
	run(&e, worker, ROUNDS, fsyncer);
	join(worker);
	for (unsigned i = 0; i < NT; i++)
		ck_assert_int_eq(worker[i].result, 0);
	ck_assert_uint_le((fdio_counter_read(COUNTER_journal_commit) - before) * 2, NT * ROUNDS);
	fake_set_hook(e.fake, NULL, NULL);
	testlog_down(&e);
}
END_TEST

START_TEST(fsync_storm)
{
	struct testlog e;
	struct worker worker[NT];
	uint64_t before;

	/* the small log wraps under it */
	testlog_format(&e, &testlog_formats[_i ? 2 : 0], _i ? 1 : 4);
	testlog_open(&e);
	testlog_start(&e);
	before = fdio_counter_read(COUNTER_journal_commit);
	run(&e, worker, 300, fsyncer);
	join(worker);
	for (unsigned i = 0; i < NT; i++)
		ck_assert_int_eq(worker[i].result, 0);
	ck_assert_uint_le(fdio_counter_read(COUNTER_journal_commit) - before, NT * 300);
	testlog_crash(&e, NULL);
	for (unsigned i = 0; i < NT; i++)
		ck_assert_int_eq(testlog_value(&e, e.base + i), 299);
	testlog_drop(&e);
}
END_TEST

/*
 * Each thread owns 64 bytes in shared blocks, as inodes share a block; half of its handles are
 * cancelled.
 */
static void *neighbour(void *arg)
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

START_TEST(neighbours_in_a_block)
{
	struct testlog e;
	struct worker worker[NT];
	struct journal_handle *handle;
	struct journal_buffer *buffer;

	testlog_up(&e);
	ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(journal_new_block(handle, e.base + i, &buffer), 0);
		journal_buffer_release(buffer);
	}
	journal_end(handle);
	run(&e, worker, 2000, neighbour);
	join(worker);
	for (unsigned i = 0; i < NT; i++)
		ck_assert_int_eq(worker[i].result, 0);
	testlog_down(&e);
}
END_TEST

static void *presser(void *arg)
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
	struct worker w[NT], p[NT];

	testlog_up(&e);
	fdio_log_set_level(0);
	run(&e, w, 1000000, fsyncer);
	run(&e, p, 100000000, presser);
	unit_pause_ms(50);
	fake_fault_add(e.fake, &(struct fake_fault){ .kinds = FAKE_FLUSH,
						     .repeat = 1,
						     .action = FAKE_ERROR,
						     .err = -EIO });
	join(w);
	join(p);
	for (unsigned i = 0; i < NT; i++) {
		ck_assert(w[i].result == -EIO || w[i].result == -EROFS);
		ck_assert_int_eq(p[i].result, -EROFS);
	}
	ck_assert_int_eq(journal_stop(e.journal), -EIO);
	ck_assert_uint_eq(e.aborted, 1);
	testlog_drop(&e);
}
END_TEST

START_TEST(pressers_and_fsyncers)
{
	struct testlog e;
	struct worker w[NT], p[NT];

	testlog_format(&e, &testlog_formats[2], 1);
	e.params.cache_bytes = 256 << 10;
	testlog_open(&e);
	testlog_start(&e);
	run(&e, w, 100, fsyncer);
	run(&e, p, 3000, presser);
	join(w);
	join(p);
	for (unsigned i = 0; i < NT; i++) {
		ck_assert_int_eq(w[i].result, 0);
		ck_assert_int_eq(p[i].result, 0);
	}
	testlog_down(&e);
}
END_TEST

/*
 * Changes or syncs until that fails; *result is then the error, or -EPROTO if the owner had not
 * been told yet.
 */
static void *until_told(void *arg)
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

struct told_cb { struct journal_callback callback; struct testlog *e; int err; bool owner_knew; };

static void told(struct journal_callback *callback, int err)
{
	struct told_cb *t = container_of(callback, struct told_cb, callback);

	t->err = err;
	t->owner_knew = __atomic_load_n(&t->e->aborted, __ATOMIC_SEQ_CST) != 0;
}

/* Waiters, callbacks and new handles hear of an abort only after the owner, whoever aborts. */
START_TEST(owner_is_told_first)
{
	struct testlog e;
	struct worker worker[NT];
	struct told_cb cb = { { .fn = told }, &e };
	struct journal_handle *handle;

	testlog_up(&e);
	fdio_log_set_level(0);
	e.aborted_ms = 50;
	run(&e, worker, 0, until_told);
	unit_pause_ms(10);
	if (_i) {
		fake_fault_add(e.fake,
			       &(struct fake_fault){ .kinds = _i == 1 ? FAKE_FLUSH : FAKE_WRITE,
						     .repeat = 1,
						     .action = FAKE_ERROR,
						     .err = -EIO });
	} else {
		ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
		testlog_fill(&e, handle, e.base + NT, 1);
		cb.e = &e;
		journal_on_commit(handle, &cb.callback);
		journal_end(handle);
		journal_abort(e.journal, -EUCLEAN);
	}
	join(worker);
	for (unsigned i = 0; i < NT; i++)
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
	unit_test(tc, threads_get_more_than_one);
	unit_loop(tc, fsync_storm, 0, 2);
	unit_test(tc, neighbours_in_a_block);
	unit_test(tc, abort_wakes_everybody);
	unit_loop(tc, owner_is_told_first, 0, 3, PROVES("JOURNAL-10"));
	unit_test(tc, pressers_and_fsyncers);
	return s;
}
