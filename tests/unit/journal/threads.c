/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the journal under threads: group commit, handles beside commits and checkpoints, readers
 * beside rollbacks, aborts that wake everybody. Meant for ThreadSanitizer as much as for the assertions.
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

static void run(struct testlog *e, struct worker *w, unsigned rounds, void *(*fn)(void *))
{
	for (unsigned i = 0; i < NT; i++) {
		w[i] = (struct worker){ .e = e, .id = i, .rounds = rounds };
		ck_assert_int_eq(pthread_create(&w[i].thread, NULL, fn, &w[i]), 0);
	}
}

static void join(struct worker *w)
{
	for (unsigned i = 0; i < NT; i++)
		pthread_join(w[i].thread, NULL);
}

/* Plain calls only: check's assertions are for the main thread. */
static int change(struct testlog *e, uint64_t blk, uint32_t value, jnl_tid *ret_tid)
{
	struct jnl_handle *h;
	struct jnl_buf *b;
	int r = jnl_begin(e->j, 2, &h);

	if (r)
		return r;
	r = jnl_bread(e->j, blk, &b);
	if (!r) {
		r = jnl_get_write(h, b);
		if (!r)
			testlog_pattern(b->data, e->p.block_size, blk, value);
		jnl_brelse(b);
	}
	if (r) {
		jnl_cancel(h);
		return r;
	}
	*ret_tid = jnl_end(h);
	return 0;
}

static void *fsyncer(void *arg)
{
	struct worker *w = arg;

	for (unsigned i = 0; i < w->rounds && !w->result; i++) {
		jnl_tid tid;

		w->result = change(w->e, w->e->base + w->id, i, &tid);
		if (!w->result)
			w->result = jnl_commit_wait(w->e->j, tid, NULL);
		if (!w->result && !jnl_tid_durable(w->e->j, tid))
			w->result = -EPROTO;
	}
	return NULL;
}

START_TEST(waiters_share_a_commit)
{
	struct testlog e;
	struct worker w[NT];
	uint64_t before;

	testlog_up(&e);
	before = fdio_counter_read(CTR_jnl_commit);
	/* The first commit hangs in its flush; everybody else must meet in the next. */
	fake_block(e.f, FAKE_FLUSH);
	run(&e, w, 1, fsyncer);
	ck_assert(fake_wait_blocked(e.f, 1));
	for (unsigned i = 0; i < 1000; i++) {
		unsigned n;

		fdio_mutex_lock(&e.j->state);
		n = (e.j->committing ? e.j->committing->nr : 0) + (e.j->running ? e.j->running->nr : 0);
		fdio_mutex_unlock(&e.j->state);
		if (n == NT)
			break;
		unit_pause_ms(1);
	}
	fake_unblock(e.f);
	join(w);
	for (unsigned i = 0; i < NT; i++)
		ck_assert_int_eq(w[i].result, 0);
	ck_assert_uint_le(fdio_counter_read(CTR_jnl_commit) - before, 2);
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

/* Whose transaction still runs waits for the commit before it; whose is being committed does not. */
START_TEST(turn_comes_after_the_commit_before)
{
	struct testlog e;
	struct worker w = { .rounds = 1 };
	pthread_t t;
	jnl_tid tid;

	testlog_up(&e);
	w.e = &e;
	fake_block(e.f, FAKE_FLUSH);
	ck_assert_int_eq(pthread_create(&w.thread, NULL, fsyncer, &w), 0);
	ck_assert(fake_wait_blocked(e.f, 1));
	ck_assert_int_eq(change(&e, e.base + 1, 0, &tid), 0);
	jnl_commit_turn(e.j, tid - 1);
	ck_assert(!jnl_tid_durable(e.j, tid - 1));
	ck_assert_int_eq(pthread_create(&t, NULL, unblocker, e.f), 0);
	jnl_commit_turn(e.j, tid);
	ck_assert(jnl_tid_durable(e.j, tid - 1));
	ck_assert(!jnl_tid_durable(e.j, tid));
	pthread_join(t, NULL);
	pthread_join(w.thread, NULL);
	ck_assert_int_eq(w.result, 0);
	jnl_commit_turn(e.j, tid); /* nothing is being committed */
	ck_assert_int_eq(jnl_commit_wait(e.j, tid, NULL), 0);
	testlog_crash(&e, NULL);
	testlog_drop(&e);
}
END_TEST

static void slow_flush(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags, bool after)
{
	if (kind == FAKE_FLUSH && !after)
		unit_pause_ms(2);
}

/* Eight threads that sync on a device with slow flushes do several times what one does there: a commit serves more than two of them. */
START_TEST(threads_get_more_than_one)
{
	enum { ROUNDS = 30 };
	struct worker w[NT];
	struct testlog e;
	uint64_t before;

	testlog_up(&e);
	fake_set_hook(e.f, slow_flush, NULL);
	before = fdio_counter_read(CTR_jnl_commit);
	w[0] = (struct worker){ .e = &e, .rounds = ROUNDS };
	fsyncer(&w[0]);
	ck_assert_int_eq(w[0].result, 0);
	ck_assert_uint_eq(fdio_counter_read(CTR_jnl_commit) - before, ROUNDS);
	before = fdio_counter_read(CTR_jnl_commit);
	run(&e, w, ROUNDS, fsyncer);
	join(w);
	for (unsigned i = 0; i < NT; i++)
		ck_assert_int_eq(w[i].result, 0);
	ck_assert_uint_le((fdio_counter_read(CTR_jnl_commit) - before) * 2, NT * ROUNDS);
	fake_set_hook(e.f, NULL, NULL);
	testlog_down(&e);
}
END_TEST

START_TEST(fsync_storm)
{
	struct testlog e;
	struct worker w[NT];
	uint64_t before;

	testlog_format(&e, &testlog_formats[_i ? 2 : 0], _i ? 1 : 4); /* the small log wraps under it */
	testlog_open(&e);
	testlog_start(&e);
	before = fdio_counter_read(CTR_jnl_commit);
	run(&e, w, 300, fsyncer);
	join(w);
	for (unsigned i = 0; i < NT; i++)
		ck_assert_int_eq(w[i].result, 0);
	ck_assert_uint_le(fdio_counter_read(CTR_jnl_commit) - before, NT * 300);
	testlog_crash(&e, NULL);
	for (unsigned i = 0; i < NT; i++)
		ck_assert_int_eq(testlog_value(&e, e.base + i), 299);
	testlog_drop(&e);
}
END_TEST

/* Each thread owns 64 bytes in shared blocks, as inodes share a block; half of its handles are cancelled. */
static void *neighbour(void *arg)
{
	struct worker *w = arg;
	struct jnl *j = w->e->j;
	unsigned seed = w->id + 1;
	uint64_t mine[4] = { 0 };
	jnl_tid tid = 0;

	for (unsigned i = 1; i <= w->rounds && !w->result; i++) {
		unsigned blk = rand_r(&seed) % 4;
		struct jnl_handle *h;
		struct jnl_buf *b;
		uint64_t v = i, got;

		w->result = jnl_bread(j, w->e->base + blk, &b);
		if (w->result)
			break;
		memcpy(&got, b->data + w->id * 64, 8); /* nobody else writes here */
		if (got != mine[blk])
			w->result = -EPROTO;
		if (!w->result)
			w->result = jnl_begin(j, 3, &h);
		if (w->result) {
			jnl_brelse(b);
			break;
		}
		w->result = jnl_get_write(h, b);
		memcpy(b->data + w->id * 64, &v, 8);
		if (rand_r(&seed) % 2) {
			jnl_cancel(h);
		} else {
			tid = jnl_end(h);
			mine[blk] = v;
		}
		jnl_brelse(b);
		if (i % 50 == 0)
			jnl_commit_start(j, tid);
		if (i % 97 == 0)
			w->result = jnl_sync(j);
	}
	return NULL;
}

START_TEST(neighbours_in_a_block)
{
	struct testlog e;
	struct worker w[NT];
	struct jnl_handle *h;
	struct jnl_buf *b;

	testlog_up(&e);
	ck_assert_int_eq(jnl_begin(e.j, 4, &h), 0);
	for (unsigned i = 0; i < 4; i++) {
		ck_assert_int_eq(jnl_bnew(h, e.base + i, &b), 0);
		jnl_brelse(b);
	}
	jnl_end(h);
	run(&e, w, 2000, neighbour);
	join(w);
	for (unsigned i = 0; i < NT; i++)
		ck_assert_int_eq(w[i].result, 0);
	testlog_down(&e);
}
END_TEST

static void *presser(void *arg)
{
	struct worker *w = arg;
	unsigned seed = w->id;
	jnl_tid tid;

	for (unsigned i = 0; i < w->rounds && !w->result; i++)
		w->result = change(w->e, w->e->base + w->id * 16 + rand_r(&seed) % 16, i, &tid);
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
	fake_fault_add(e.f, &(struct fake_fault){ .kinds = FAKE_FLUSH, .repeat = 1, .action = FAKE_ERROR, .err = -EIO });
	join(w);
	join(p);
	for (unsigned i = 0; i < NT; i++) {
		ck_assert(w[i].result == -EIO || w[i].result == -EROFS);
		ck_assert_int_eq(p[i].result, -EROFS);
	}
	ck_assert_int_eq(jnl_stop(e.j), -EIO);
	ck_assert_uint_eq(e.aborted, 1);
	testlog_drop(&e);
}
END_TEST

START_TEST(pressers_and_fsyncers)
{
	struct testlog e;
	struct worker w[NT], p[NT];

	testlog_format(&e, &testlog_formats[2], 1);
	e.p.cache_bytes = 256 << 10;
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

/* Changes or syncs until that fails; *result is then the error, or -EPROTO if the owner had not been told yet. */
static void *until_told(void *arg)
{
	struct worker *w = arg;

	while (!w->result) {
		jnl_tid tid;

		w->result = change(w->e, w->e->base + w->id, ++w->rounds, &tid);
		if (!w->result && w->id % 2)
			w->result = jnl_sync(w->e->j);
		else if (!w->result)
			w->result = jnl_commit_wait(w->e->j, tid, NULL);
	}
	if (!__atomic_load_n(&w->e->aborted, __ATOMIC_SEQ_CST))
		w->result = -EPROTO;
	return NULL;
}

struct told_cb { struct jnl_callback cb; struct testlog *e; int err; bool owner_knew; };

static void told(struct jnl_callback *cb, int err)
{
	struct told_cb *t = container_of(cb, struct told_cb, cb);

	t->err = err;
	t->owner_knew = __atomic_load_n(&t->e->aborted, __ATOMIC_SEQ_CST) != 0;
}

/* Waiters, callbacks and new handles hear of an abort only after the owner, whoever aborts. */
START_TEST(owner_is_told_first)
{
	struct testlog e;
	struct worker w[NT];
	struct told_cb cb = { { .fn = told }, &e };
	struct jnl_handle *h;

	testlog_up(&e);
	fdio_log_set_level(0);
	e.aborted_ms = 50;
	run(&e, w, 0, until_told);
	unit_pause_ms(10);
	if (_i) {
		fake_fault_add(e.f, &(struct fake_fault){ .kinds = _i == 1 ? FAKE_FLUSH : FAKE_WRITE, .repeat = 1, .action = FAKE_ERROR, .err = -EIO });
	} else {
		ck_assert_int_eq(jnl_begin(e.j, 1, &h), 0);
		testlog_fill(&e, h, e.base + NT, 1);
		cb.e = &e;
		jnl_on_commit(h, &cb.cb);
		jnl_end(h);
		jnl_abort(e.j, -EUCLEAN);
	}
	join(w);
	for (unsigned i = 0; i < NT; i++)
		ck_assert(w[i].result == -EIO || w[i].result == -EROFS);
	(void)jnl_stop(e.j);
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
