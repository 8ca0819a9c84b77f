/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The table of open files: handles are found while they are open, and invented or released ones
 * never. The inodes are addresses only, which the table does not dereference.
 */
#include "ops/types.h"
#include "kit/runner.h"

#include <fcntl.h>
#include <stdlib.h>

static struct ops *ops;
static char things[4096];

static struct ext4_inode *inode(unsigned i) { return (struct ext4_inode *)(void *)&things[i]; }

static void setup(void)
{
	ops = calloc(1, sizeof(*ops));
	ck_assert_ptr_nonnull(ops);
	fdio_mutex_init(&ops->files_lock, RANK_OPS_FILES);
}

static void teardown(void)
{
	ops_files_free(ops);
	fdio_mutex_fini(&ops->files_lock);
	free(ops);
}

START_TEST(find_and_forget)
{
	struct ops_file file;
	uint32_t index = 0;
	uint64_t a, b, a2;

	ck_assert_int_eq(ops_file_add(ops, inode(1), NULL, O_RDWR, &a), 0);
	ck_assert_int_eq(ops_file_add(ops, inode(2), NULL, 0, &b), 0);
	ck_assert_uint_ne(a, b);
	ck_assert_ptr_eq(ops_file_get(ops, a)->inode, inode(1));
	ck_assert_uint_eq(ops_file_get(ops, a)->open_flags, O_RDWR);
	ck_assert_ptr_eq(ops_file_get(ops, b)->inode, inode(2));
	ck_assert(ops_file_remove(ops, a, &file));
	ck_assert_ptr_eq(file.inode, inode(1));
	ck_assert_ptr_null(ops_file_get(ops, a));
	ck_assert(!ops_file_remove(ops, a, &file));
	/* The entry is used again, and the old handle still finds nothing. */
	ck_assert_int_eq(ops_file_add(ops, inode(3), NULL, 0, &a2), 0);
	ck_assert_uint_eq((uint32_t)a2, (uint32_t)a);
	ck_assert_ptr_null(ops_file_get(ops, a));
	ck_assert_ptr_eq(ops_file_get(ops, a2)->inode, inode(3));
	ck_assert_uint_eq(ops->nr_open, 2);
	while (ops_file_remove_next(ops, &index, &file))
		;
	ck_assert_uint_eq(ops->nr_open, 0);
	ck_assert_ptr_null(ops_file_get(ops, b));
}
END_TEST

START_TEST(invented_handles)
{
	static const uint64_t bad[] = { 0,
					1,
					UINT64_MAX,
					1ull << 32,
					2ull << 32,
					(1ull << 32) | 1,
					(1ull << 32) | (OPS_FILES_CHUNK - 1),
					(1ull << 32) | (OPS_FILES_CHUNK * OPS_FILES_CHUNKS),
					(1ull << 32) | UINT32_MAX };
	struct ops_file file;
	uint64_t a;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		ck_assert_ptr_null(ops_file_get(ops, bad[i]));
	ck_assert_int_eq(ops_file_add(ops, inode(1), NULL, 0, &a), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		if (bad[i] != a) {
			ck_assert_ptr_null(ops_file_get(ops, bad[i]));
			ck_assert(!ops_file_remove(ops, bad[i], &file));
		}
	ck_assert(ops_file_remove(ops, a, &file));
}
END_TEST

START_TEST(grows)
{
	enum { N = 3 * OPS_FILES_CHUNK + 7 };
	uint64_t *fh = calloc(N, sizeof(*fh));
	struct ops_file file, *first;

	ck_assert_ptr_nonnull(fh);
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(ops_file_add(ops, inode(i), NULL, 0, &fh[i]), 0);
	first = ops_file_get(ops, fh[0]);
	for (unsigned i = 0; i < N; i++)
		ck_assert_ptr_eq(ops_file_get(ops, fh[i])->inode, inode(i));
	ck_assert_ptr_eq(first, ops_file_get(ops, fh[0])); /* entries never move */
	for (unsigned i = 0; i < N; i += 2)
		ck_assert(ops_file_remove(ops, fh[i], &file));
	for (unsigned i = 0; i < N; i++)
		ck_assert(!!ops_file_get(ops, fh[i]) == (i & 1));
	ck_assert_uint_eq(ops->nr_open, N / 2);
	free(fh);
}
END_TEST

/*
 * The end of a mount closes all files: each call goes on where the last one ended, so a table of a
 * million entries costs a million steps.
 */
START_TEST(closing_all_is_one_walk)
{
	enum { N = 400 * OPS_FILES_CHUNK };
	struct ops_file file;
	uint32_t index = 0;
	uint64_t fh;

	for (unsigned i = 0; i < N; i++)
		if (ops_file_add(ops, inode(i % 4096), NULL, 0, &fh))
			ck_abort_msg("%u handles and no more", i);
	for (uint32_t i = 0; i < N; i++)
		if (!ops_file_remove_next(ops, &index, &file) || file.index != i || index != i + 1)
			ck_abort_msg("handle %u: index %u, the next look begins at %u", i,
				     (unsigned)file.index, index);
	ck_assert(!ops_file_remove_next(ops, &index, &file));
	ck_assert_uint_eq(ops->nr_open, 0);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ops: open files");
	TCase *tc = unit_case(s, "files", 60);

	tcase_add_checked_fixture(tc, setup, teardown);
	unit_test(tc, find_and_forget);
	unit_test(tc, invented_handles);
	unit_test(tc, grows);
	unit_test(tc, closing_all_is_one_walk);
	return s;
}
