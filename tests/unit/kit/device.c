/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tests of the fake device itself (kit/device.h), on which the other tests rest: what a power cut
 * loses, held and failing requests, refusal of what dev.h does not allow, cuts in a record, and
 * e2fsprogs on its image. One thread.
 */
#include "kit/device.h"
#include "kit/runner.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int results[8];
static unsigned nr_results;
static void note(struct dev_io *io) { results[nr_results++] = io->result; }

static struct dev_io request(enum dev_op kind, uint64_t off, uint32_t len, void *buf,
			     unsigned flags)
{
	return (struct dev_io){ .kind = kind,
				.off = off,
				.len = len,
				.buf = buf,
				.flags = flags,
				.buf_index = -1,
				.done = note };
}

START_TEST(power_cut_loses_the_cache)
{
	struct fake_dev *fake = fake_new(1 << 20, 512);
	char a[512], b[512];

	memset(a, 'a', 512);
	ck_assert_int_eq(dev_write(fake_dev(fake), a, 512, 4096, 0), 0);
	ck_assert_int_eq(dev_write(fake_dev(fake), a, 512, 8192, DEV_FUA), 0);
	struct fake_dev *left = fake_power_cut(fake, FAKE_CUT_DROP, 0);
	fake_peek(left, b, 512, 4096);
	ck_assert_int_eq(b[0], 0);
	fake_peek(left, b, 512, 8192);
	ck_assert_int_eq(b[0], 'a');
	fake_free(left);
	ck_assert_int_eq(dev_flush(fake_dev(fake)), 0);
	left = fake_power_cut(fake, FAKE_CUT_DROP, 0);
	fake_peek(left, b, 512, 4096);
	ck_assert_int_eq(b[511], 'a');
	fake_free(left);
	ck_assert_uint_eq(fake_stats(fake).fua, 1);
	ck_assert_uint_eq(fake_stats(fake).flushes, 1);
	fake_free(fake);
}
END_TEST

/* The flush of an older cached write must not overwrite a newer FUA write. */
START_TEST(flush_does_not_undo_fua)
{
	struct fake_dev *fake = fake_new(1 << 20, 512);
	char a[1024], b[512], r[1024];

	memset(a, 'a', sizeof(a));
	memset(b, 'b', sizeof(b));
	dev_write(fake_dev(fake), a, 1024, 0, 0);
	dev_write(fake_dev(fake), b, 512, 0, DEV_FUA);
	dev_flush(fake_dev(fake));
	fake_peek_media(fake, r, 1024, 0);
	ck_assert_int_eq(r[0], 'b');
	ck_assert_int_eq(r[512], 'a');
	fake_free(fake);
}
END_TEST

START_TEST(held_requests_complete_in_any_order)
{
	struct fake_dev *fake = fake_new(1 << 20, 512);
	char *buf = aligned_alloc(4096, 16384);
	struct dev_io io[4];

	memset(buf, 7, 16384);
	fake_set_mode(fake, FAKE_HELD, 1);
	fake_fault_add(fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						   .off = 4096,
						   .len = 1,
						   .action = FAKE_ERROR,
						   .err = -EIO });
	fake_fault_add(fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						   .off = 8192,
						   .len = 1,
						   .action = FAKE_SHORT,
						   .n = 1024 });
	for (unsigned k = 0; k < 3; k++) {
		io[k] = request(DEV_WRITE, k * 4096, 4096, buf + k * 4096, 0);
		dev_submit(fake_dev(fake), &io[k]);
	}
	ck_assert_uint_eq(fake_held(fake), 3);
	ck_assert(fake_complete(fake, 2));
	ck_assert(fake_complete(fake, 0));
	ck_assert(fake_complete(fake, 0));
	ck_assert(!fake_complete(fake, 0));
	ck_assert_int_eq(results[0], 3072);
	ck_assert_int_eq(results[1], 4096);
	ck_assert_int_eq(results[2], -EIO);
	ck_assert_uint_eq(fake_fault_hits(fake), 2);
	fake_free(fake);
	free(buf);
}
END_TEST

START_TEST(violations_are_refused)
{
	struct fake_dev *fake = fake_new(1 << 20, 512);
	char *buf = aligned_alloc(4096, 4096);
	struct dev_io io = request(DEV_READ, 100, 512, buf, 0);

	nr_results = 0;
	dev_submit(fake_dev(fake), &io);
	ck_assert_int_eq(results[0], -EINVAL);
	ck_assert_uint_eq(fake_stats(fake).violations, 1);
	fake_free(fake);
	free(buf);
}
END_TEST

/*
 * In each cut of a record, flushed data is there; a write that completed after the flush was
 * submitted may be missing.
 */
START_TEST(cuts_of_a_record)
{
	struct fake_dev *fake = fake_new(1 << 20, 512);
	char *buf = aligned_alloc(4096, 4096), r[512];
	struct dev_io io;

	memset(buf, 'x', 4096);
	fake_record_start(fake);
	fake_set_mode(fake, FAKE_HELD, 1);
	io = request(DEV_WRITE, 0, 512, buf, 0);
	dev_submit(fake_dev(fake), &io);           /* 0 submit */
	dev_write(fake_dev(fake), buf, 512, 4096, 0); /* 1 2 */
	dev_flush(fake_dev(fake));                 /* 3 4: does not cover the held one */
	fake_complete(fake, 0);                    /* 5 */
	dev_flush(fake_dev(fake));                 /* 6 7 */
	ck_assert_uint_eq(fake_record_events(fake), 8);
	for (unsigned k = 0; k <= 8; k++) {
		struct fake_dev *left = fake_record_cut(fake, k, FAKE_CUT_DROP, 0);
		fake_peek(left, r, 512, 4096);
		ck_assert_int_eq(r[0], k >= 5 ? 'x' : 0);
		fake_peek(left, r, 512, 0);
		ck_assert_int_eq(r[0], k >= 8 ? 'x' : 0);
		fake_free(left);
		left = fake_record_cut(fake, k, FAKE_CUT_KEEP, 0);
		fake_peek(left, r, 512, 0);
		ck_assert_int_eq(r[0], k >= 1 ? 'x' : 0);
		fake_free(left);
	}
	fake_free(fake);
	free(buf);
}
END_TEST

START_TEST(e2fsprogs_on_the_image)
{
	struct fake_dev *fake = fake_mkfs(8 << 20, "-t ext4 -b 4096");
	uint8_t *junk = malloc(4096);

	ck_assert_ptr_nonnull(fake);
	ck_assert_int_eq(fake_e2fsck(fake), 0);
	char out[256];
	ck_assert_int_eq(fake_run(fake, "debugfs -w -R 'mkdir /made' \"$IMG\" 2>/dev/null", out,
				  sizeof(out), true),
			 0);
	ck_assert_int_eq(fake_e2fsck(fake), 0);
	struct fake_dev *left = fake_clone(fake);
	memset(junk, 0xff, 4096);
	for (unsigned k = 2; k < 12; k++)
		fake_poke(left, junk, 4096, k * 4096);
	free(junk);
	ck_assert_int_ne(fake_run(left, "e2fsck -fn \"$IMG\" >/dev/null 2>&1", out, sizeof(out),
				  false),
			 0);
	fake_free(left);
	fake_free(fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("kit: device");
	TCase *t = unit_case(s, "fake_dev", 30);

	unit_test(t, power_cut_loses_the_cache);
	unit_test(t, flush_does_not_undo_fua);
	unit_test(t, held_requests_complete_in_any_order);
	unit_test(t, violations_are_refused);
	unit_test(t, cuts_of_a_record);
	unit_test(t, e2fsprogs_on_the_image);
	return s;
}
