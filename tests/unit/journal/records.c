/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the memory for records that end together (arena.c), and of what a handle and a
 * transaction make of it: how long a record lasts, what a cancelled handle gives back, which memory
 * serves the next.
 */
#include "kit/journal.h"

#include "base/counters.h"
#include "base/poison.h"

#include <stdalign.h>
#include <stdlib.h>

static uint64_t counter(enum fdio_counter c) { return fdio_counter_read(c); }

static bool gone(void *p)
{
#if FDIO_ASAN
	return __asan_address_is_poisoned(p);
#elif defined(FDIO_DEBUG_LOCKS)
	return *(uint8_t *)p == 0xdb;
#else
	(void)p;
	return true;
#endif
}

/* ---- the memory itself ---- */

/* libcheck writes a note for each assertion: not one for each byte. */
static bool is_all(const uint8_t *p, uint8_t v, size_t len)
{
	while (len && *p == v)
		p++, len--;
	return !len;
}

/*
 * Pieces of all sizes do not overlap, are aligned, and those of before a mark stay as they were
 * when the rest goes.
 */
static void pieces_and_a_mark(unsigned kept)
{
	enum { NR = 400 };
	static struct { uint8_t *p; size_t len; } a[NR];
	struct journal_arena_mark mark = { 0 }, behind = { 0 };
	struct journal_arena arena;
	uint64_t more = counter(COUNTER_journal_mem_more);
	unsigned wrong = 0;

	ck_assert_int_eq(journal_arena_init(&arena, 4096), 0);
	for (unsigned k = 0; k < NR; k++) {
		if (k == kept)
			mark = journal_arena_mark(&arena);
		a[k].len = k % 97 == 96 ? 10000 : k % 60;
		a[k].p = journal_arena_alloc(&arena, a[k].len);
		wrong += !a[k].p || (uintptr_t)a[k].p % alignof(max_align_t);
		memset(a[k].p, (int)k, a[k].len);
		if (k == kept)
			behind = journal_arena_mark(&arena);
	}
	ck_assert_uint_ge(counter(COUNTER_journal_mem_more), more + 4);
	for (unsigned k = 0; k < NR; k++)
		wrong += !is_all(a[k].p, (uint8_t)k, a[k].len);
	journal_arena_cut(&arena, mark);
	for (unsigned k = 0; k < kept; k++)
		wrong += !is_all(a[k].p, (uint8_t)k, a[k].len);
	ck_assert_uint_eq(wrong, 0);
	/* What comes next comes where the mark was. */
	if (behind.chunk == mark.chunk)
		ck_assert_ptr_eq(journal_arena_alloc(&arena, a[kept].len), a[kept].p);
	journal_arena_clear(&arena);
	ck_assert_ptr_eq(journal_arena_alloc(&arena, 1), a[0].p);
	ck_assert_ptr_null(journal_arena_alloc(&arena, SIZE_MAX - 8));
	journal_arena_fini(&arena);
	journal_arena_fini(&arena);
}

START_TEST(pieces_and_marks)
{
	for (unsigned kept = 0; kept < 200; kept++)
		pieces_and_a_mark(kept);
}
END_TEST

/* ---- handles ---- */

struct rec { struct journal_callback callback; unsigned id; };

static unsigned seen[8], nr_seen, nr_ended;

static void on_undo(struct journal_callback *callback, int ended)
{
	struct rec *r = container_of(callback, struct rec, callback);

	nr_ended += ended;
	seen[nr_seen++] = r->id;
}

static void on_commit(struct journal_callback *callback, int err)
{
	struct rec *r = container_of(callback, struct rec, callback);

	ck_assert_int_eq(err, 0);
	seen[nr_seen++] = r->id;
}

static struct rec *remember(struct journal_handle *handle, unsigned id, bool txn)
{
	struct rec *r = txn ? journal_transaction_alloc(handle, sizeof(*r))
			    : journal_handle_alloc(handle, sizeof(*r));

	ck_assert_ptr_nonnull(r);
	*r = (struct rec){ .callback = { .fn = txn ? on_commit : on_undo }, .id = id };
	if (txn)
		journal_on_commit(handle, &r->callback);
	else
		journal_on_undo(handle, &r->callback);
	return r;
}

/* The records are there when the callbacks run, newest first, and not after them. */
START_TEST(records_of_a_handle)
{
	struct journal_handle *handle;
	struct rec *r[4];
	struct testlog e;

	testlog_up(&e);
	nr_seen = nr_ended = 0;
	ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
	for (unsigned k = 0; k < 4; k++) {
		r[k] = remember(handle, k, false);
		if (k == 2) /* more than is set aside, between them */
			for (unsigned n = 0; n < 100; n++)
				memset(journal_handle_alloc(handle, 4000), 1, 4000);
	}
	if (_i)
		journal_cancel(handle);
	else
		journal_end(handle);
	ck_assert_uint_eq(nr_seen, 4);
	for (unsigned k = 0; k < 4; k++)
		ck_assert_uint_eq(seen[k], 3 - k);
	ck_assert_uint_eq(nr_ended, _i ? 0 : 4);
	ck_assert(gone(r[0]));
	/* The next begins where this one did. */
	ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
	ck_assert_ptr_eq(journal_handle_alloc(handle, sizeof(struct rec)), r[0]);
	journal_end(handle);
	testlog_down(&e);
}
END_TEST

/* ---- transactions ---- */

/*
 * Records last until the commit callbacks have run, through other handles; a cancelled handle gives
 * back its own and no other.
 */
START_TEST(records_of_a_transaction)
{
	struct rec *first, *cancelled, *next;
	struct journal_handle *handle;
	struct testlog e;

	testlog_up(&e);
	nr_seen = 0;
	for (unsigned round = 0; round < 5; round++) { /* both kits, more than once */
		nr_seen = 0;
		ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
		first = remember(handle, 1, true);
		journal_end(handle);
		ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
		cancelled = remember(handle, 2, true);
		for (unsigned n = 0; n < 100; n++)
			memset(journal_transaction_alloc(handle, 4000), 1, 4000);
		journal_cancel(handle);
		ck_assert(gone(cancelled));
		ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
		next = remember(handle, 3, true);
		ck_assert_ptr_eq(next, cancelled);
		journal_end(handle);
		testlog_write(&e, e.base + round, round);
		ck_assert_uint_eq(first->id, 1);
		testlog_sync(&e);
		ck_assert_uint_eq(nr_seen, 2);
		ck_assert_uint_eq(seen[0], 1);
		ck_assert_uint_eq(seen[1], 3);
		ck_assert(gone(first));
	}
	testlog_down(&e);
}
END_TEST

static struct journal *meanwhile;
static void *meanwhile_got;

static void on_commit_begin(struct journal_callback *callback, int err)
{
	struct rec *r = container_of(callback, struct rec, callback);
	struct journal_handle *handle;

	(void)err;
	/* A handle of the next transaction does not get what this record lies in. */
	ck_assert_int_eq(journal_begin(meanwhile, 1, &handle), 0);
	meanwhile_got = journal_transaction_alloc(handle, sizeof(*r));
	memset(meanwhile_got, 0xff, sizeof(*r));
	journal_end(handle);
	ck_assert_uint_eq(r->id, 7);
	nr_seen++;
}

START_TEST(commit_callbacks_beside_the_next_transaction)
{
	struct journal_handle *handle;
	struct rec *r;
	struct testlog e;

	testlog_up(&e);
	meanwhile = e.journal;
	nr_seen = 0;
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	r = journal_transaction_alloc(handle, sizeof(*r));
	*r = (struct rec){ .callback = { .fn = on_commit_begin }, .id = 7 };
	journal_on_commit(handle, &r->callback);
	journal_end(handle);
	testlog_sync(&e);
	ck_assert_uint_eq(nr_seen, 1);
	ck_assert_ptr_ne(meanwhile_got, r);
	testlog_down(&e);
}
END_TEST

/*
 * A transaction that revoked much leaves nothing of it to the next, and its tables are small again.
 */
START_TEST(tables_of_a_large_transaction)
{
	enum { MANY = 9000 };
	struct journal_handle *handle;
	struct testlog e;

	testlog_up_as(&e, &testlog_formats[2], 16); /* 1 KiB blocks: the file system has many */
	for (unsigned round = 0; round < 4; round++) {
		ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
		ck_assert_uint_ge(journal_forgets_left(handle), MANY);
		ck_assert_int_eq(journal_forget(handle, e.base - MANY, MANY), 0);
		ck_assert_uint_gt(e.journal->running->kit->revokes.cap, 8192);
		journal_end(handle);
		testlog_sync(&e);
		testlog_write(&e, e.base + round, round + 1);
		ck_assert_int_eq(e.journal->running->kit->revokes.nr, 0);
		ck_assert_uint_le(e.journal->running->kit->revokes.cap, 8192);
		testlog_sync(&e);
		ck_assert_int_eq(testlog_value(&e, e.base + round), round + 1);
	}
	testlog_down(&e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: records");
	TCase *tc = unit_case(s, "mem", 60);

	unit_test(tc, pieces_and_marks);
	unit_loop(tc, records_of_a_handle, 0, 2);
	unit_test(tc, records_of_a_transaction);
	unit_test(tc, commit_callbacks_beside_the_next_transaction);
	unit_test(tc, tables_of_a_large_transaction);
	return s;
}
