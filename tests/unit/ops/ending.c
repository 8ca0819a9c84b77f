/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of a mount with requests and I/O in flight, over a whole connection: FUSE requests in at
 * the top, a device that completes when the test says so at the bottom, the product with its
 * threads between them. After an abort or a DESTROY the volume is closed only when nothing is in
 * flight any more; an INTERRUPT cancels nothing.
 */
#include "kit/daemon.h"
#include "kit/runner.h"
#include "unit/ops/files.h"

#include "base/log.h"

#include <errno.h>
#include <ext2fs/ext2_fs.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define IMAGE_BYTES (16u << 20)

static struct ext2_super_block media_super(struct fake_dev *fake)
{
	static uint8_t b[4096];
	struct ext2_super_block sb;

	fake_peek_media(fake, b, sizeof(b), 0);
	memcpy(&sb, b + 1024, sizeof(sb));
	return sb;
}

/* ---- aborts and interrupts ---- */

START_TEST(abort_waits_for_the_device)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 4);
	unsigned w[3];

	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	for (unsigned n = 0; n < 3; n++)
		w[n] = send_block(kernel, &file, n, (uint8_t)(40 + n));
	ck_assert(fake_wait_held(kernel_dev(kernel), 3));
	kernel_abort(kernel);
	/* The device still has three buffers: nothing may be closed. */
	a_while();
	ck_assert(!kernel_destroying(kernel));
	for (unsigned n = 0; n < 3; n++)
		ck_assert(!kernel_answered(kernel, w[n]));
	while (!kernel_ended(kernel)) {
		fake_complete_all(kernel_dev(kernel));
		if (!fake_held(kernel_dev(kernel)) && kernel_wait_ended(kernel))
			break;
	}
	for (unsigned n = 0; n < 3; n++)
		/* The answer is sent; the channel ignores that the kernel does not take it. */
		ck_assert_int_eq(kernel_wait(kernel, w[n])->err, 0);
	ck_assert_uint_eq(media_super(kernel_dev(kernel)).s_state & EXT2_VALID_FS, EXT2_VALID_FS);
	fake_set_mode(kernel_dev(kernel), FAKE_INLINE, 0);
	kernel_close(kernel);
}
END_TEST

START_TEST(no_request_starts_after_an_abort)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 2);

	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	unsigned w = send_block(kernel, &file, 0, 7);
	ck_assert(fake_wait_held(kernel_dev(kernel), 1));
	kernel_abort(kernel);
	/* Requests are served until the control thread has noticed the abort. */
	unsigned late;
	do {
		/* Behind the end of the file, so that the device is not needed. */
		late = kernel_send_read(kernel, file.node, file.fh, 8 * BS, BS, O_RDWR | O_DIRECT);
	} while (kernel_wait(kernel, late)->err == 0);
	ck_assert_int_eq(kernel_wait(kernel, late)->err, -ENOTCONN);
	ck_assert(!kernel_answered(kernel, w));
	fake_complete_all(kernel_dev(kernel));
	ck_assert(kernel_wait_ended(kernel));
	fake_set_mode(kernel_dev(kernel), FAKE_INLINE, 0);
	kernel_close(kernel);
}
END_TEST

START_TEST(interrupt_cancels_nothing)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 2);
	struct fuse_interrupt_in in = { 0 };

	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	unsigned w = send_block(kernel, &file, 1, 99);
	ck_assert(fake_wait_held(kernel_dev(kernel), 1));
	in.unique = 2 * (w + 1ull);
	kernel_wait(kernel, kernel_send(kernel, FUSE_INTERRUPT, 0, &in, sizeof(in), NULL, 0));
	a_while();
	ck_assert(!kernel_answered(kernel, w));
	ck_assert_uint_eq(fake_held(kernel_dev(kernel)), 1);
	fake_complete_all(kernel_dev(kernel));
	ck_assert_int_eq(kernel_wait(kernel, w)->err, 0);
	fake_set_mode(kernel_dev(kernel), FAKE_INLINE, 0);
	expect_block(kernel, &file, 1, 99);
	kernel_close(kernel);
}
END_TEST

/* ---- the end ---- */

START_TEST(destroy_is_answered_last)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 4);

	ck_assert_uint_ne(media_super(kernel_dev(kernel)).s_feature_incompat &
					  EXT3_FEATURE_INCOMPAT_RECOVER,
			  0);
	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	unsigned w = send_block(kernel, &file, 2, 55);
	ck_assert(fake_wait_held(kernel_dev(kernel), 1));
	unsigned d = kernel_send(kernel, FUSE_DESTROY, 0, NULL, 0, NULL, 0);
	a_while();
	ck_assert(!kernel_answered(kernel, d) && !kernel_destroying(kernel));
	fake_complete_all(kernel_dev(kernel));
	ck_assert(kernel_wait_ended(kernel));
	ck_assert_int_eq(kernel_wait(kernel, d)->err, 0);
	ck_assert_int_eq(kernel_wait(kernel, w)->err, 0);
	ck_assert_uint_lt(kernel_wait(kernel, w)->order, kernel_wait(kernel, d)->order);
	/* When umount returns, the data is on the media, and the file system there is clean. */
	struct ext2_super_block sb = media_super(kernel_dev(kernel));
	ck_assert_uint_eq(sb.s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER, 0);
	ck_assert_uint_eq(sb.s_state & EXT2_VALID_FS, EXT2_VALID_FS);
	fake_set_mode(kernel_dev(kernel), FAKE_INLINE, 0);
	struct fake_dev *after = fake_power_cut(kernel_dev(kernel), FAKE_CUT_DROP, 1);
	kernel_close(kernel);
	kernel = kernel_new(after, NULL);
	ck_assert_int_eq(kernel_lookup(kernel, ROOT, "f", &file.entry), 0);
	struct fuse_open_out o;
	ck_assert_int_eq(kernel_open(kernel, file.entry.nodeid, O_RDWR | O_DIRECT, &o), 0);
	file.node = file.entry.nodeid;
	file.fh = o.fh;
	expect_block(kernel, &file, 2, 55);
	kernel_close(kernel);
}
END_TEST

/* While a worker is in a handler, in the middle of a commit, nothing is closed. */
START_TEST(destroy_waits_for_workers)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 1);
	struct fuse_fsync_in in = { .fh = file.fh };
	struct fuse_setattr_in chmod = { .valid = FATTR_MODE, .mode = S_IFREG | 0600 };

	ck_assert_int_eq(kernel_setattr(kernel, file.node, &chmod, NULL), 0);
	fake_block(kernel_dev(kernel), FAKE_FLUSH);
	unsigned s = kernel_send(kernel, FUSE_FSYNC, file.node, &in, sizeof(in), NULL, 0);
	ck_assert(fake_wait_blocked(kernel_dev(kernel), 1));
	unsigned d = kernel_send(kernel, FUSE_DESTROY, 0, NULL, 0, NULL, 0);
	a_while();
	ck_assert(!kernel_answered(kernel, s) && !kernel_destroying(kernel));
	fake_unblock(kernel_dev(kernel));
	ck_assert_int_eq(kernel_wait(kernel, d)->err, 0);
	ck_assert_uint_lt(kernel_wait(kernel, s)->order, kernel_wait(kernel, d)->order);
	kernel_close(kernel);
}
END_TEST

/* While a loop is in a handler that has answered, what the handler uses is not closed. */
START_TEST(destroy_waits_for_handlers_after_their_answer)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 1);
	struct fuse_release_in in = { .fh = file.fh };

	kernel_linger(kernel, true);
	unsigned r = kernel_send(kernel, FUSE_RELEASE, file.node, &in, sizeof(in), NULL, 0);
	ck_assert_int_eq(kernel_wait(kernel, r)->err, 0);
	kernel_abort(kernel);
	a_while();
	ck_assert(!kernel_destroying(kernel));
	kernel_linger(kernel, false);
	ck_assert(kernel_wait_ended(kernel));
	kernel_close(kernel);
}
END_TEST

/* A notification that follows the answer of its write is sent before the transport is closed. */
START_TEST(destroy_waits_for_notifications)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 1);
	struct fuse_open_out o;
	static uint8_t buf[BS];

	ck_assert_int_eq(kernel_open(kernel, file.node, O_RDWR, &o), 0);
	/* The block is in the page cache now. */
	ck_assert_int_eq(kernel_read(kernel, file.node, o.fh, 0, buf, BS, O_RDWR), (int)BS);
	unsigned before = kernel_invalidations(kernel);
	kernel_set_slots(kernel, 1);
	kernel_hold_notifications(kernel);
	unsigned w = send_block(kernel, &file, 0, 50);
	ck_assert_int_eq(kernel_wait(kernel, w)->err, 0);
	unsigned d = kernel_send(kernel, FUSE_DESTROY, 0, NULL, 0, NULL, 0);
	a_while();
	ck_assert(!kernel_answered(kernel, d));
	kernel_release_notifications(kernel);
	ck_assert_int_eq(kernel_wait(kernel, d)->err, 0);
	ck_assert_uint_eq(kernel_invalidations(kernel), before + 1);
	kernel_close(kernel);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ops: ending");
	TCase *t = unit_case(s, "conn", 60);

	unit_needs_io_uring();
	fdio_log_set_level(FDIO_LOG_ERR);
	testvol_use_template(t, IMAGE_BYTES, "-t ext4 -b 4096 -J size=4", NULL);
	unit_test(t, abort_waits_for_the_device);
	unit_test(t, no_request_starts_after_an_abort);
	unit_test(t, interrupt_cancels_nothing);
	unit_test(t, destroy_is_answered_last);
	unit_test(t, destroy_waits_for_workers);
	unit_test(t, destroy_waits_for_handlers_after_their_answer, PROVES("DISPATCH-4"));
	unit_test(t, destroy_waits_for_notifications);
	return s;
}
