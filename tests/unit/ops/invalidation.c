/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notifications to the kernel, over a whole connection: which requests have the kernel forget pages
 * or attributes, which of them wait for that, and what the notifications cover. The test plays the
 * kernel and can make notifications wait, as pages that READs have locked do.
 */
#include "kit/daemon.h"
#include "kit/runner.h"
#include "unit/ops/files.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>

#define IMAGE_BYTES (16u << 20)

/* A direct write to a file with cached pages has the kernel forget them before the answer. */
START_TEST(invalidation_comes_before_the_answer)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 4);
	struct fuse_open_out o;
	static uint8_t buf[BS];

	ck_assert_int_eq(kernel_open(kernel, file.node, O_RDWR, &o), 0);
	/* The block is in the page cache now. */
	ck_assert_int_eq(kernel_read(kernel, file.node, o.fh, 0, buf, BS, O_RDWR), (int)BS);
	unsigned before = kernel_invalidations(kernel);
	kernel_wait(kernel, send_block(kernel, &file, 0, 31));
	ck_assert_uint_gt(kernel_invalidations(kernel), before);
	kernel_close(kernel);
}
END_TEST

static unsigned nr_answered(struct fake_kernel *kernel, const unsigned *w, unsigned n)
{
	unsigned nr = 0;

	for (unsigned m = 0; m < n; m++)
		nr += kernel_answered(kernel, w[m]);
	return nr;
}

/*
 * A notification can wait for a page that a READ has locked, and the READ for a slot. So at most
 * (slots - 2) / 2 writes wait for their notifications, and none if a loop has few slots. The others
 * are answered first.
 */
static void writes_beside_held_notifications(unsigned slots, unsigned may_wait)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 16);
	struct fuse_open_out o;
	static uint8_t buf[BS];
	unsigned w[16], n = may_wait + 2;

	ck_assert_int_eq(kernel_open(kernel, file.node, O_RDWR, &o), 0);
	/* The block is in the page cache now. */
	ck_assert_int_eq(kernel_read(kernel, file.node, o.fh, 0, buf, BS, O_RDWR), (int)BS);
	if (slots)
		kernel_set_slots(kernel, slots);
	kernel_hold_notifications(kernel);
	for (unsigned m = 0; m < n; m++)
		w[m] = send_block(kernel, &file, m, 50);
	for (unsigned tries = 0; nr_answered(kernel, w, n) < 2; tries++) {
		ck_assert_msg(tries < 300, "%u of %u writes were answered, 2 should be",
			      nr_answered(kernel, w, n), n);
		a_while();
	}
	a_while();
	ck_assert_uint_eq(nr_answered(kernel, w, n), 2);
	while (nr_answered(kernel, w, n) < n)
		kernel_release_notifications(kernel);
	kernel_release_notifications(kernel);
	kernel_close(kernel);
}

START_TEST(few_writes_wait_for_invalidations)
{
	writes_beside_held_notifications(0, (KERNEL_MAX_REQUESTS - 2) / 2);
}
END_TEST

START_TEST(none_waits_where_slots_are_few) { writes_beside_held_notifications(1, 0); }
END_TEST

/* Notifications of one inode that wait to be sent are joined: the one that is sent covers all. */
START_TEST(joined_invalidations_are_of_all)
{
	static const unsigned order[] = { 4, 9, 2, 13, 6 };
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 16);
	struct fuse_open_out o;
	static uint8_t buf[BS];

	ck_assert_int_eq(kernel_open(kernel, file.node, O_RDWR, &o), 0);
	/* The block is in the page cache now. */
	ck_assert_int_eq(kernel_read(kernel, file.node, o.fh, 0, buf, BS, O_RDWR), (int)BS);
	kernel_set_slots(kernel, 1); /* so no write waits */
	kernel_hold_notifications(kernel);
	for (unsigned n = 0; n < ARRAY_SIZE(order); n++)
		ck_assert_int_eq(kernel_wait(kernel, send_block(kernel, &file, order[n], 50))->err,
				 0);
	kernel_release_notifications(kernel);
	for (unsigned n = 0; n < ARRAY_SIZE(order); n++)
		for (unsigned tries = 0; !kernel_invalidated(kernel, file.node, order[n] * BS, BS);
		     tries++) {
			ck_assert_msg(tries < 300, "block %u was never invalidated", order[n]);
			a_while();
		}
	kernel_close(kernel);
}
END_TEST

static void set_sync_flag(struct fake_kernel *kernel, const struct file *file)
{
	uint32_t flags = FS_SYNC_FL | FS_EXTENT_FL;
	struct fuse_ioctl_in in = { .fh = file->fh,
				    .cmd = (uint32_t)FS_IOC_SETFLAGS,
				    .in_size = sizeof(flags) };

	ck_assert_int_eq(kernel_call(kernel, FUSE_IOCTL, file->node, &in, sizeof(in), &flags,
				     sizeof(flags), NULL),
			 0);
}

static int resize(struct fake_kernel *kernel, const struct file *file, unsigned how)
{
	struct fuse_fallocate_in fallocate = { .fh = file->fh, .length = BS };
	struct fuse_setattr_in setattr = { .valid = FATTR_SIZE, .size = BS };

	return how ? kernel_call(kernel, FUSE_FALLOCATE, file->node, &fallocate, sizeof(fallocate),
				 NULL, 0, NULL)
		   : kernel_setattr(kernel, file->node, &setattr, NULL);
}

/*
 * The size has changed although the answer is an error. The kernel keeps attributes for a day, so
 * it is told to ask for them again.
 */
START_TEST(size_that_failed_is_told)
{
	struct kernel_options options = { .breaks = true };
	struct fake_kernel *kernel = kernel_new(testvol_copy(), &options);
	struct file file = new_file(kernel, "f", _i ? 0 : 4);
	struct fake_fault bad = { .kinds = FAKE_FLUSH, .action = FAKE_ERROR, .err = -EIO };
	struct fuse_open_out again;

	set_sync_flag(kernel, &file);
	if (_i) {
		ck_assert_int_eq(kernel_open(kernel, file.node, O_RDWR, &again),
				 0);
		file.fh = again.fh;
	}
	unsigned before = kernel_invalidations(kernel);
	fake_fault_add(kernel_dev(kernel), &bad);
	ck_assert_int_eq(resize(kernel, &file, _i), -EIO);
	ck_assert_uint_eq(attr_at(kernel, file.node).size, BS);
	ck_assert_uint_eq(kernel_invalidations(kernel), before + 1);
	fake_fault_clear(kernel_dev(kernel));
	kernel_close(kernel);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ops: invalidation");
	TCase *t = unit_case(s, "conn", 60);

	unit_needs_io_uring();
	fdio_log_set_level(FDIO_LOG_ERR);
	testvol_use_template(t, IMAGE_BYTES, "-t ext4 -b 4096 -J size=4", NULL);
	unit_test(t, invalidation_comes_before_the_answer, PROVES("ENGINE-7"));
	unit_loop(t, size_that_failed_is_told, 0, 2);
	unit_test(t, few_writes_wait_for_invalidations, PROVES("ENGINE-7 NOTIFY-1"));
	unit_test(t, none_waits_where_slots_are_few);
	unit_test(t, joined_invalidations_are_of_all);
	return s;
}
