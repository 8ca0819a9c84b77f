/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the memory for records that end together (arena.c), and of what handles and
 * transactions make of it: how long a record lasts, what a cancelled handle gives back, which
 * memory the next handle gets. One thread. With AddressSanitizer or the debug build the tests also
 * see that a record is freed.
 */
#include "kit/journal.h"

#include "base/counters.h"
#include "base/poison.h"

#include <stdalign.h>
#include <stdlib.h>

static uint64_t counter(enum fdio_counter c) { return fdio_counter_read(c); }

static bool is_freed(void *p)
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

/* libcheck makes a system call for each assertion, so there is none for each byte. */
static bool is_all(const uint8_t *p, uint8_t v, size_t len)
{
	while (len && *p == v)
		p++, len--;
	return !len;
}

/*
 * Pieces of all sizes are aligned and do not overlap. Those allocated before a mark keep their
 * contents when the arena is cut back to it.
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
	/* The next piece comes where the mark was. */
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

struct record { struct journal_callback callback; unsigned id; };

static unsigned called[8], nr_called, nr_ended;

static void on_undo(struct journal_callback *callback, int ended)
{
	struct record *record = container_of(callback, struct record, callback);

	nr_ended += ended;
	called[nr_called++] = record->id;
}

static void on_commit(struct journal_callback *callback, int err)
{
	struct record *record = container_of(callback, struct record, callback);

	ck_assert_int_eq(err, 0);
	called[nr_called++] = record->id;
}

static struct record *remember(struct journal_handle *handle, unsigned id, bool txn)
{
	struct record *record = txn ? journal_transaction_alloc(handle, sizeof(*record))
			    : journal_handle_alloc(handle, sizeof(*record));

	ck_assert_ptr_nonnull(record);
	*record = (struct record){ .callback = { .fn = txn ? on_commit : on_undo }, .id = id };
	if (txn)
		journal_on_commit(handle, &record->callback);
	else
		journal_on_undo(handle, &record->callback);
	return record;
}

/* Undo callbacks run newest first and still see their records, which are freed after them. */
START_TEST(records_of_a_handle)
{
	struct journal_handle *handle;
	struct record *record[4];
	struct testlog e;

	testlog_up(&e);
	nr_called = nr_ended = 0;
	ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
	for (unsigned k = 0; k < 4; k++) {
		record[k] = remember(handle, k, false);
		if (k == 2) /* in between, more than the arena starts with */
			for (unsigned n = 0; n < 100; n++)
				memset(journal_handle_alloc(handle, 4000), 1, 4000);
	}
	if (_i)
		journal_cancel(handle);
	else
		journal_end(handle);
	ck_assert_uint_eq(nr_called, 4);
	for (unsigned k = 0; k < 4; k++)
		ck_assert_uint_eq(called[k], 3 - k);
	ck_assert_uint_eq(nr_ended, _i ? 0 : 4);
	ck_assert(is_freed(record[0]));
	/* The next handle gets the same memory. */
	ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
	ck_assert_ptr_eq(journal_handle_alloc(handle, sizeof(struct record)), record[0]);
	journal_end(handle);
	testlog_down(&e);
}
END_TEST

/* ---- transactions ---- */

/*
 * Records of a transaction last until its commit callbacks have run, whatever other handles do. A
 * cancelled handle frees its own records and no others.
 */
START_TEST(records_of_a_transaction)
{
	struct record *first, *cancelled, *next;
	struct journal_handle *handle;
	struct testlog e;

	testlog_up(&e);
	nr_called = 0;
	for (unsigned round = 0; round < 5;
	     round++) { /* each of the two sets of memory, more than once */
		nr_called = 0;
		ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
		first = remember(handle, 1, true);
		journal_end(handle);
		ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
		cancelled = remember(handle, 2, true);
		for (unsigned n = 0; n < 100; n++)
			memset(journal_transaction_alloc(handle, 4000), 1, 4000);
		journal_cancel(handle);
		ck_assert(is_freed(cancelled));
		ck_assert_int_eq(journal_begin(e.journal, 4, &handle), 0);
		next = remember(handle, 3, true);
		ck_assert_ptr_eq(next, cancelled);
		journal_end(handle);
		testlog_write(&e, e.base + round, round);
		ck_assert_uint_eq(first->id, 1);
		testlog_sync(&e);
		ck_assert_uint_eq(nr_called, 2);
		ck_assert_uint_eq(called[0], 1);
		ck_assert_uint_eq(called[1], 3);
		ck_assert(is_freed(first));
	}
	testlog_down(&e);
}
END_TEST

static struct journal *other_journal;
static void *other_memory;

static void begin_on_commit(struct journal_callback *callback, int err)
{
	struct record *record = container_of(callback, struct record, callback);
	struct journal_handle *handle;

	(void)err;
	/* A handle of the next transaction does not get the memory of this record. */
	ck_assert_int_eq(journal_begin(other_journal, 1, &handle), 0);
	other_memory = journal_transaction_alloc(handle, sizeof(*record));
	memset(other_memory, 0xff, sizeof(*record));
	journal_end(handle);
	ck_assert_uint_eq(record->id, 7);
	nr_called++;
}

START_TEST(commit_callbacks_beside_the_next_transaction)
{
	struct journal_handle *handle;
	struct record *record;
	struct testlog e;

	testlog_up(&e);
	other_journal = e.journal;
	nr_called = 0;
	ck_assert_int_eq(journal_begin(e.journal, 1, &handle), 0);
	record = journal_transaction_alloc(handle, sizeof(*record));
	*record = (struct record){ .callback = { .fn = begin_on_commit }, .id = 7 };
	journal_on_commit(handle, &record->callback);
	journal_end(handle);
	testlog_sync(&e);
	ck_assert_uint_eq(nr_called, 1);
	ck_assert_ptr_ne(other_memory, record);
	testlog_down(&e);
}
END_TEST

/* A transaction with many revocations leaves none of them to the next, and its table shrinks. */
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
	TCase *tc = unit_case(s, "memory", 60);

	unit_test(tc, pieces_and_marks);
	unit_loop(tc, records_of_a_handle, 0, 2);
	unit_test(tc, records_of_a_transaction);
	unit_test(tc, commit_callbacks_beside_the_next_transaction);
	unit_test(tc, tables_of_a_large_transaction);
	return s;
}
