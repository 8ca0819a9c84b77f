/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files that may be mapped, with the kernel played by the test: which answers wait until the kernel
 * has written back and forgotten pages, that none waits for ever, and what is left out of the pages
 * that are written back after a truncate. The page cache's side is tried with the real kernel in
 * tests/root/34-mapped.py.
 */
#include "base/log.h"
#include "kit/daemon.h"
#include "kit/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define ROOT FUSE_ROOT_ID
#define BLOCK 4096u /* of the volume */
#define LARGE_PAGE 16384u

static struct fake_kernel *k;
static uint64_t node, fh;
static uint32_t page; /* bytes of a page of the kernel */
static uint8_t buf[4 * LARGE_PAGE];

static void a_while(void) { unit_pause_ms(30); }

static void start_with(uint32_t page_size)
{
	page = page_size;
	k = kernel_new(testvol_copy(), &(struct kernel_options){ .page_size = page });
}
static void start(void) { start_with(4096); }
static void start_large(void) { start_with(LARGE_PAGE); }
static void stop(void) { kernel_close(k); }

/* A file of so many bytes, open; its last page is read through the page cache. */
static void file_of(uint32_t size, uint32_t flags)
{
	struct fuse_entry_out entry;

	memset(buf, 'a', sizeof(buf));
	ck_assert_int_eq(kernel_create(k, ROOT, "f", flags, 0644, &entry, &fh), 0);
	node = entry.nodeid;
	ck_assert_int_eq(kernel_write(k, node, fh, 0, buf, size, flags), (int)size);
	ck_assert_int_eq(kernel_read(k, node, fh, size / page * page, buf, page, flags),
			 (int)(size % page));
}

static void fill_page(char c) { memset(buf, c, page); }

static int write_back(uint64_t pos, uint32_t len)
{
	return kernel_wait(k, kernel_send_write(k, node, fh, pos, buf, len, 0, FUSE_WRITE_CACHE))
			->err;
}

/* Bytes [from, to) of the file are all c. */
static void expect_bytes(uint32_t from, uint32_t to, char c)
{
	static uint8_t got[4 * LARGE_PAGE];

	ck_assert_int_ge(kernel_read(k, node, fh, 0, got, sizeof(got), O_RDWR | O_DIRECT), (int)to);
	for (uint32_t n = from; n < to; n++)
		ck_assert_msg(got[n] == (uint8_t)c, "byte %u is %#x, not %#x", n, got[n], c);
}

static int grow(uint64_t size)
{
	struct fuse_setattr_in in = { .valid = FATTR_SIZE, .size = size };

	return kernel_setattr(k, node, &in, NULL);
}

/* ---- pages written back after a truncate ---- */

START_TEST(behind_the_old_end_is_masked)
{
	file_of(100, O_RDWR);
	ck_assert_int_eq(grow(2 * page), 0);
	fill_page('F');
	ck_assert_int_eq(write_back(0, page), 0);
	expect_bytes(0, 100, 'F');
	expect_bytes(100, 2 * page, 0);
	/*
	 * Once more, with the next page, which the kernel made after the truncate: what is stored
	 * in that belongs to the file.
	 */
	memset(buf, 'G', 2 * page);
	ck_assert_int_eq(write_back(0, 2 * page), 0);
	expect_bytes(0, 100, 'G');
	expect_bytes(100, page, 0);
	expect_bytes(page, 2 * page, 'G');
}
END_TEST

enum { READ_IT, WRITE_IT, WRITE_IT_DIRECTLY, SHRINK, NOBODY_MAPS, NR_ENDS };

/*
 * A request that reads or writes the page means that the kernel has a new one: what is stored in
 * that belongs to the file.
 */
START_TEST(the_mask_ends)
{
	static const uint32_t all = O_RDWR | O_DIRECT;

	file_of(100, _i == NOBODY_MAPS ? O_WRONLY : O_RDWR);
	ck_assert_int_eq(grow(3000), 0);
	fill_page('w');
	switch (_i) {
	case READ_IT: ck_assert_int_eq(kernel_read(k, node, fh, 0, buf, page, O_RDWR), 3000); break;
	case WRITE_IT:
		ck_assert_int_eq(kernel_write(k, node, fh, 2000, buf, 10, O_RDWR), 10);
		break;
	case WRITE_IT_DIRECTLY:
		ck_assert_int_eq(kernel_write(k, node, fh, 0, buf, page, all), (int)page);
		break;
	case SHRINK: ck_assert_int_eq(grow(2999), 0); break;
	default: break;
	}
	fill_page('F');
	ck_assert_int_eq(write_back(0, 2999), 0);
	expect_bytes(0, 2999, 'F');
}
END_TEST

/* ---- what waits ---- */

static unsigned send_gap(uint64_t pos)
{
	return kernel_send_write(k, node, fh, pos, buf, 10, O_RDWR, 0);
}

static unsigned send_lseek(void)
{
	struct fuse_lseek_in in = { .fh = fh, .whence = SEEK_DATA };

	return kernel_send(k, FUSE_LSEEK, node, &in, sizeof(in), NULL, 0);
}

static unsigned send_getattr(void)
{
	struct fuse_getattr_in in = { 0 };

	return kernel_send(k, FUSE_GETATTR, node, &in, sizeof(in), NULL, 0);
}

static unsigned send_utime(void)
{
	struct fuse_setattr_in in = { .valid = FATTR_MTIME, .mtime = 1000000 };

	return kernel_send(k, FUSE_SETATTR, node, &in, sizeof(in), NULL, 0);
}

static unsigned send_fallocate(void)
{
	struct fuse_fallocate_in in = { .fh = fh, .offset = 0, .length = 3 * page };

	return kernel_send(k, FUSE_FALLOCATE, node, &in, sizeof(in), NULL, 0);
}

enum { GAP_BEHIND, GAP_IN_PAGE, LSEEK, GETATTR, UTIME, FALLOCATE, NR_WAITERS };

/* Requests whose answers depend on page 1, which was read and of which a part is a hole. */
static unsigned send_waiter(int which)
{
	switch (which) {
	case GAP_BEHIND: return send_gap(3 * page);
	case GAP_IN_PAGE: return send_gap(2 * page - 10);
	case LSEEK: return send_lseek();
	case GETATTR: return send_getattr();
	case UTIME: return send_utime();
	default: return send_fallocate();
	}
}

static void file_with_a_hole(uint32_t flags)
{
	file_of(page, flags);
	ck_assert_int_eq(grow(page + 1000), 0);
	ck_assert_int_eq(kernel_read(k, node, fh, page, buf, page, flags), 1000);
}

START_TEST(answers_wait_for_pages)
{
	unsigned w, before;

	file_with_a_hole(O_RDWR);
	before = kernel_invalidations(k);
	kernel_hold_notifications(k);
	w = send_waiter(_i);
	a_while();
	ck_assert(!kernel_answered(k, w));
	kernel_release_notifications(k);
	ck_assert_int_eq(kernel_wait(k, w)->err, 0);
	ck_assert_uint_eq(kernel_invalidations(k), before + 1);
	ck_assert(kernel_invalidated(k, node, page, page));
	/* LSEEK and GETATTR have taken the note, so that a second one does not wait. */
	ck_assert_int_eq(kernel_wait(k, _i == UTIME ? send_utime() : send_getattr())->err, 0);
	ck_assert_uint_le(kernel_invalidations(k),
			  before + 1 + (_i == LSEEK || _i == GETATTR ? 0 : 1));
}
END_TEST

/* The notification is held, as if the request itself had locked the page. */
START_TEST(none_waits_for_ever)
{
	static const int waiters[] = { GAP_IN_PAGE, GETATTR, FALLOCATE };
	unsigned w;

	file_with_a_hole(O_RDWR);
	kernel_hold_notifications(k);
	w = send_waiter(waiters[_i]);
	ck_assert_int_eq(kernel_wait(k, w)->err, 0);
	kernel_release_notifications(k);
}
END_TEST

/*
 * If the pages are not written back in time, the answer of LSEEK must be right whatever they hold:
 * pages that were read over a hole, here page 2 of 4, count as data.
 */
START_TEST(late_pages_count_as_data)
{
	const struct { uint64_t off; uint32_t whence; int err; uint64_t want; } seeks[] = {
		{ 0, SEEK_DATA, 0, 0 },
		{ page, SEEK_DATA, 0, 2 * page },
		{ 2 * page + 1, SEEK_DATA, 0, 2 * page + 1 },
		{ 3 * page, SEEK_DATA, -ENXIO, 0 },
		{ 0, SEEK_HOLE, 0, page },
		{ 2 * page, SEEK_HOLE, 0, 3 * page },
	};
	struct fuse_lseek_in in = { .whence = seeks[_i].whence, .offset = seeks[_i].off };
	struct fuse_lseek_out out;
	const struct kernel_answer *answer;

	file_of(page, O_RDWR);
	ck_assert_int_eq(grow(4 * page), 0);
	ck_assert_int_eq(kernel_read(k, node, fh, 2 * page, buf, page, O_RDWR), (int)page);
	in.fh = fh;
	kernel_hold_notifications(k);
	answer = kernel_wait(k, kernel_send(k, FUSE_LSEEK, node, &in, sizeof(in), NULL, 0));
	ck_assert_int_eq(answer->err, seeks[_i].err);
	memcpy(&out, answer->data, sizeof(out));
	if (!answer->err)
		ck_assert_uint_eq(out.offset, seeks[_i].want);
	kernel_release_notifications(k);
}
END_TEST

/* The same with the last page: then the file has no hole. */
START_TEST(late_pages_up_to_the_end)
{
	struct fuse_lseek_in in = { .whence = SEEK_HOLE };
	const struct kernel_answer *answer;
	struct fuse_lseek_out out;

	file_with_a_hole(O_RDWR);
	in.fh = fh;
	kernel_hold_notifications(k);
	answer = kernel_wait(k, kernel_send(k, FUSE_LSEEK, node, &in, sizeof(in), NULL, 0));
	ck_assert_int_eq(answer->err, 0);
	memcpy(&out, answer->data, sizeof(out));
	ck_assert_uint_eq(out.offset, page + 1000);
	kernel_release_notifications(k);
}
END_TEST

/* The page at the end of the file, which a late notification leaves, is forgotten when it grows. */
START_TEST(late_pages_keep_the_note_of_the_end)
{
	unsigned before;

	file_of(1000, O_RDWR);
	before = kernel_invalidations(k);
	kernel_hold_notifications(k);
	ck_assert_int_eq(kernel_wait(k, send_utime())->err, 0);
	kernel_release_notifications(k);
	while (kernel_invalidations(k) == before) /* the late one, from a thread of the daemon */
		unit_pause_ms(1);
	ck_assert_int_eq(kernel_wait(k, send_gap(2000))->err, 0);
	ck_assert_uint_eq(kernel_invalidations(k), before + 2);
}
END_TEST

/* A time that was set without waiting for the pages says nothing about the blocks. */
START_TEST(late_times_leave_the_blocks)
{
	const struct kernel_answer *answer;
	struct fuse_attr_out out;

	file_of(1000, O_RDWR);
	ck_assert_int_eq(grow(4 * page), 0);
	ck_assert_int_eq(kernel_read(k, node, fh, 0, buf, page, O_RDWR), (int)page);
	kernel_hold_notifications(k);
	answer = kernel_wait(k, send_utime());
	ck_assert_int_eq(answer->err, 0);
	memcpy(&out, answer->data, sizeof(out));
	ck_assert_uint_eq(out.attr.blocks, BLOCK / 512);
	kernel_release_notifications(k);
}
END_TEST

/* Programs would take a file without blocks for a single hole. */
START_TEST(late_pages_count_as_blocks)
{
	const struct kernel_answer *answer;
	struct fuse_attr_out out;

	file_of(page, O_RDWR);
	ck_assert_int_eq(grow(0), 0);
	ck_assert_int_eq(grow(4 * page), 0);
	ck_assert_int_eq(kernel_read(k, node, fh, 2 * page, buf, page, O_RDWR), (int)page);
	kernel_hold_notifications(k);
	answer = kernel_wait(k, send_getattr());
	ck_assert_int_eq(answer->err, 0);
	memcpy(&out, answer->data, sizeof(out));
	ck_assert_uint_eq(out.attr.blocks, page / 512);
	kernel_release_notifications(k);
}
END_TEST

/* Nobody can store through a mapping of a file that is open for writing only: no notification. */
START_TEST(files_open_for_writing_do_not_wait)
{
	unsigned before;

	file_with_a_hole(O_WRONLY);
	before = kernel_invalidations(k);
	ck_assert_int_eq(kernel_wait(k, send_waiter(_i))->err, 0);
	ck_assert_uint_eq(kernel_invalidations(k), before);
}
END_TEST

/* From protocol 7.46 on the kernel clears what pages hold behind the end: no notification. */
START_TEST(kernels_that_clear_the_tail)
{
	static const int waiters[] = { GAP_BEHIND, GAP_IN_PAGE, FALLOCATE };
	unsigned before;

	kernel_set_minor(k, 46);
	file_with_a_hole(O_RDWR);
	before = kernel_invalidations(k);
	ck_assert_int_eq(kernel_wait(k, send_waiter(waiters[_i]))->err, 0);
	ck_assert_uint_eq(kernel_invalidations(k), before);
	ck_assert_int_eq(grow(4 * page), 0);
	fill_page('F');
	ck_assert_int_eq(write_back(page, page), 0);
	expect_bytes(page, 2 * page, 'F');
}
END_TEST

/*
 * The kernel has forgotten the pages meanwhile, so no request waits for them. A write into the last
 * page would have to wait until its time is over, because it locks the page itself.
 */
START_TEST(forgotten_pages_are_not_waited_for)
{
	static const uint32_t all = O_RDWR | O_DIRECT;
	unsigned before;

	file_of(1000, O_RDWR);
	if (_i == 0)
		ck_assert_int_eq(grow(990), 0); /* the kernel forgets all pages after it */
	else if (_i == 1)
		ck_assert_int_eq(kernel_write(k, node, fh, 0, buf, 512, all), 512);
	else
		ck_assert_int_eq(kernel_wait(k, send_utime())->err, 0);
	before = kernel_invalidations(k);
	ck_assert_int_eq(kernel_wait(k, send_gap(2000))->err, 0);
	ck_assert_uint_eq(kernel_invalidations(k), before);
	/* A truncate to the same size does not make the kernel forget pages. */
	ck_assert_int_eq(kernel_read(k, node, fh, 0, buf, page, O_RDWR), 2010);
	ck_assert_int_eq(grow(2010), 0);
	ck_assert_int_eq(kernel_wait(k, send_gap(3000))->err, 0);
	ck_assert_uint_eq(kernel_invalidations(k), before + 1);
}
END_TEST

/* An append leaves no gap. */
START_TEST(appends_do_not_wait)
{
	unsigned before;

	file_of(100, O_RDWR);
	before = kernel_invalidations(k);
	for (unsigned at = 100; at < 3 * page; at += 1000)
		ck_assert_int_eq(kernel_write(k, node, fh, at, buf, 1000, O_RDWR), 1000);
	ck_assert_uint_eq(kernel_invalidations(k), before);
}
END_TEST

static void add_case(Suite *s, const char *name, void (*begin)(void))
{
	TCase *t = unit_case(s, name, 60);

	testvol_use_template(t, 16u << 20, "-t ext4 -b 4096 -J size=4", NULL);
	tcase_add_checked_fixture(t, begin, stop);
	unit_test(t, behind_the_old_end_is_masked);
	unit_loop(t, the_mask_ends, 0, NR_ENDS);
	unit_loop(t, answers_wait_for_pages, 0, NR_WAITERS, PROVES("ENGINE-7"));
	unit_loop(t, none_waits_for_ever, 0, 3);
	unit_loop(t, late_pages_count_as_data, 0, 6);
	unit_test(t, late_pages_up_to_the_end);
	unit_test(t, late_pages_count_as_blocks);
	unit_test(t, late_pages_keep_the_note_of_the_end);
	unit_test(t, late_times_leave_the_blocks);
	unit_loop(t, files_open_for_writing_do_not_wait, 0, NR_WAITERS);
	unit_loop(t, kernels_that_clear_the_tail, 0, 3);
	unit_test(t, appends_do_not_wait);
	unit_loop(t, forgotten_pages_are_not_waited_for, 0, 3);
}

Suite *unit_suite(void)
{
	Suite *s = suite_create("ops: mapped");

	unit_needs_io_uring();
	fdio_log_set_level(FDIO_LOG_ERR);
	add_case(s, "mapped", start);
	add_case(s, "mapped, large pages", start_large);
	return s;
}
