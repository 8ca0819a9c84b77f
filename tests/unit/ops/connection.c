/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A whole connection: FUSE requests in at the top, a device that completes when the test says so at
 * the bottom, the product with its threads between them. Here are rules that concern several rooms:
 * times, references, which requests wait for which, and what is refused. ending.c has the end of a
 * mount, invalidation.c the notifications.
 */
#include "kit/daemon.h"
#include "kit/runner.h"
#include "unit/ops/files.h"

#include "base/log.h"
#include "loop/types.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/stat.h>
#include <stdlib.h>
#include <string.h>

#define IMAGE_BYTES (16u << 20)

/* ---- no polling ---- */

/*
 * Polled completions need a ring of their own. The loops' rings carry FUSE requests too, so no ring
 * polls, and no device request may ask for it.
 */
static unsigned flags_seen;

static void see_flags(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
		      bool after)
{
	(void)arg, (void)kind, (void)off, (void)len, (void)after;
	__atomic_or_fetch(&flags_seen, flags, __ATOMIC_RELAXED);
}

START_TEST(no_ring_polls)
{
	struct loop_config config = {
		.nr_loops = 2, .entries = 16, .poll_ns = 1000, .nr_fixed_files = LOOP_NR_FILES
	};
	struct loop_set *set;
	char err[256];

	ck_assert_int_eq(loop_set_new(&config, &set, FDIO_REASON(err)), 0);
	for (unsigned n = 0; n < 2; n++)
		ck_assert_uint_eq(loop_set_get(set, n)->ring.flags & IORING_SETUP_IOPOLL, 0);
	loop_set_free(set);

	struct fake_kernel *kernel = start_mount();
	fake_set_hook(kernel_dev(kernel), see_flags, NULL);
	struct file file = new_file(kernel, "f", 4);
	kernel_wait(kernel, kernel_send_write(kernel, file.node, file.fh, 0, "x", 1, O_RDWR, 0));
	expect_block(kernel, &file, 1, 1 + BS / 512);
	ck_assert_uint_eq(flags_seen & ~(unsigned)(DEV_FUA | DEV_ASYNC), 0);
	fake_set_hook(kernel_dev(kernel), NULL, NULL);
	kernel_close(kernel);
}
END_TEST

/* ---- times of a write ---- */

START_TEST(times_of_a_write)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 4);
	struct timespec t = { .tv_sec = 2000000000, .tv_nsec = 123456789 };
	static uint8_t buf[BS];

	fake_set_clock(kernel_dev(kernel), &t);
	kernel_wait(kernel, send_block(kernel, &file, 0, 9));
	struct fuse_attr a = attr_at(kernel, file.node);
	ck_assert_uint_eq(a.mtime, 2000000000);
	ck_assert_uint_eq(a.mtimensec, 123456789);
	ck_assert_uint_eq(a.ctime, a.mtime);
	ck_assert_uint_eq(a.ctimensec, a.mtimensec);
	/* A read changes neither. */
	t.tv_sec++;
	fake_set_clock(kernel_dev(kernel), &t);
	ck_assert_int_eq(kernel_read(kernel, file.node, file.fh, 0, buf, BS, O_RDWR | O_DIRECT),
			 (int)BS);
	a = attr_at(kernel, file.node);
	ck_assert_uint_eq(a.mtime, 2000000000);
	ck_assert_uint_eq(a.ctime, 2000000000);
	/* After an append, fsync and a power cut, the times are those that GETATTR said. */
	kernel_wait(kernel, send_block(kernel, &file, 4, 9));
	a = attr_at(kernel, file.node);
	ck_assert_uint_eq(a.mtime, 2000000001);
	ck_assert_int_eq(kernel_fsync(kernel, file.node, file.fh, false), 0);
	struct fake_dev *after = fake_power_cut(kernel_dev(kernel), FAKE_CUT_DROP, 1);
	kernel_close(kernel);
	kernel = kernel_new(after, NULL);
	ck_assert_int_eq(kernel_lookup(kernel, ROOT, "f", &file.entry), 0);
	ck_assert_uint_eq(file.entry.attr.mtime, 2000000001);
	ck_assert_uint_eq(file.entry.attr.mtimensec, 123456789);
	ck_assert_uint_eq(file.entry.attr.size, 5 * BS);
	kernel_close(kernel);
}
END_TEST

/* ---- which request waits for which ---- */

START_TEST(truncate_waits_for_writes_in_flight)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 8);
	struct fuse_setattr_in in = { .valid = FATTR_SIZE, .size = BS };

	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	unsigned w = send_block(kernel, &file, 6, 3);
	ck_assert(fake_wait_held(kernel_dev(kernel), 1));
	unsigned s = kernel_send(kernel, FUSE_SETATTR, file.node, &in, sizeof(in), NULL, 0);
	a_while();
	ck_assert(!kernel_answered(kernel, s));
	while (!kernel_answered(kernel, s))
		fake_complete_all(kernel_dev(kernel));
	ck_assert_int_eq(kernel_wait(kernel, w)->err, 0);
	ck_assert_int_eq(kernel_wait(kernel, s)->err, 0);
	fake_set_mode(kernel_dev(kernel), FAKE_INLINE, 0);
	ck_assert_uint_eq(attr_at(kernel, file.node).size, BS);
	kernel_close(kernel);
}
END_TEST

START_TEST(others_go_on_beside_held_io)
{
	struct fake_kernel *kernel = start_mount();
	struct file f = new_file(kernel, "f", 8), g = new_file(kernel, "g", 8);
	struct fuse_entry_out entry;
	uint64_t fh;

	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	unsigned r = kernel_send_read(kernel, f.node, f.fh, 0, BS, O_RDWR | O_DIRECT);
	unsigned w = send_block(kernel, &f, 2, 77);
	ck_assert(fake_wait_held(kernel_dev(kernel), 2));
	/* Names, attributes and new files do not wait for the held file's I/O. */
	ck_assert_int_eq(kernel_lookup(kernel, ROOT, "g", &entry), 0);
	ck_assert_int_eq(kernel_getattr(kernel, f.node, &entry.attr), 0);
	ck_assert_int_eq(kernel_create(kernel, ROOT, "h", O_RDWR, 0600, &entry, &fh), 0);
	ck_assert_int_eq(kernel_rename(kernel, ROOT, "h", ROOT, "i", 0), 0);
	ck_assert_int_eq(kernel_unlink(kernel, ROOT, "f"), 0);
	ck_assert(!kernel_answered(kernel, r) && !kernel_answered(kernel, w));
	while (!kernel_answered(kernel, r) || !kernel_answered(kernel, w))
		fake_complete_all(kernel_dev(kernel));
	fake_set_mode(kernel_dev(kernel), FAKE_INLINE, 0);
	expect_block(kernel, &f, 2, 77); /* unlinked, but open */
	expect_block(kernel, &g, 0, 1);
	kernel_close(kernel);
}
END_TEST

START_TEST(fsync_waits_for_the_flush)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 4);
	struct fuse_fsync_in in = { .fh = file.fh, .fsync_flags = FUSE_FSYNC_FDATASYNC };
	static uint8_t got[BS];

	kernel_wait(kernel, send_block(kernel, &file, 1, 5));
	fake_block(kernel_dev(kernel), FAKE_FLUSH);
	unsigned s = kernel_send(kernel, FUSE_FSYNC, file.node, &in, sizeof(in), NULL, 0);
	ck_assert(fake_wait_blocked(kernel_dev(kernel), 1));
	ck_assert(!kernel_answered(kernel, s));
	/* The loop serves other requests meanwhile. */
	ck_assert_int_eq(kernel_read(kernel, file.node, file.fh, BS, got, BS, O_RDWR | O_DIRECT),
			 (int)BS);
	ck_assert(!kernel_answered(kernel, s));
	fake_unblock(kernel_dev(kernel));
	ck_assert_int_eq(kernel_wait(kernel, s)->err, 0);
	kernel_close(kernel);
}
END_TEST

START_TEST(flush_error_reaches_fsync)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 4);
	struct fake_fault bad = {
		.kinds = FAKE_FLUSH, .repeat = 1, .action = FAKE_ERROR, .err = -EIO
	};

	kernel_wait(kernel, send_block(kernel, &file, 1, 5));
	fake_fault_add(kernel_dev(kernel), &bad);
	ck_assert_int_eq(kernel_fsync(kernel, file.node, file.fh, true), -EIO);
	ck_assert_uint_eq(fake_fault_hits(kernel_dev(kernel)), 1);
	fake_fault_clear(kernel_dev(kernel));
	kernel_close(kernel);
}
END_TEST

/* ---- references ---- */

static uint64_t free_inodes(struct fake_kernel *kernel)
{
	const struct kernel_answer *answer;

	ck_assert_int_eq(kernel_call(kernel, FUSE_STATFS, ROOT, NULL, 0, NULL, 0, &answer), 0);
	return ((const struct fuse_statfs_out *)answer->data)->st.ffree;
}

START_TEST(an_inode_lives_until_it_is_forgotten)
{
	struct fake_kernel *kernel = start_mount();
	uint64_t before = free_inodes(kernel);
	struct file file = new_file(kernel, "f", 1);
	struct fuse_entry_out entry;

	for (unsigned n = 0; n < 9; n++)
		ck_assert_int_eq(kernel_lookup(kernel, ROOT, "f", &entry), 0);
	ck_assert_uint_eq(entry.nodeid, file.node);
	ck_assert_int_eq(kernel_release(kernel, file.node, file.fh), 0);
	ck_assert_int_eq(kernel_unlink(kernel, ROOT, "f"), 0);
	ck_assert_int_eq(kernel_lookup(kernel, ROOT, "f", &entry), -ENOENT);
	kernel_forget(kernel, file.node, 9); /* of ten: nine lookups and the create */
	ck_assert_uint_eq(attr_at(kernel, file.node).nlink, 0);
	ck_assert_uint_eq(free_inodes(kernel), before - 1);
	kernel_forget(kernel, file.node, 1);
	/* Forgetting more than the kernel was given does not underflow. */
	kernel_forget(kernel, file.node, 1000);
	for (unsigned n = 0; free_inodes(kernel) != before; n++) {
		ck_assert_uint_lt(n, 1000);
		unit_pause_ms(1);
	}
	ck_assert_int_eq(kernel_getattr(kernel, file.node, &entry.attr), -ESTALE);
	kernel_close(kernel);
}
END_TEST

START_TEST(an_open_unlinked_file_keeps_its_blocks)
{
	struct fake_kernel *kernel = start_mount();
	struct file f = new_file(kernel, "f", 8), g;

	ck_assert_int_eq(kernel_unlink(kernel, ROOT, "f"), 0);
	kernel_forget(kernel, f.node, 1);
	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	unsigned w = send_block(kernel, &f, 3, 200);
	ck_assert(fake_wait_held(kernel_dev(kernel), 1));
	/* The handle is released after its write, as the kernel does. */
	while (!kernel_answered(kernel, w))
		fake_complete_all(kernel_dev(kernel));
	fake_set_mode(kernel_dev(kernel), FAKE_INLINE, 0);
	expect_block(kernel, &f, 3, 200);
	ck_assert_int_eq(kernel_release(kernel, f.node, f.fh), 0);
	g = new_file(kernel, "g", 16);
	expect_block(kernel, &g, 0, 1);
	kernel_close(kernel);
}
END_TEST

/* ---- answers ---- */

START_TEST(names_and_handles_that_cannot_be)
{
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 1);
	struct fuse_entry_out entry;
	struct fuse_open_out o;
	char name[257];
	uint64_t fh;

	memset(name, 'n', 256);
	name[256] = '\0';
	ck_assert_int_eq(kernel_lookup(kernel, ROOT, name, &entry), -ENAMETOOLONG);
	ck_assert_int_eq(kernel_create(kernel, ROOT, name, O_RDWR, 0644, &entry, &fh),
			 -ENAMETOOLONG);
	name[255] = '\0';
	ck_assert_int_eq(kernel_create(kernel, ROOT, name, O_RDWR, 0644, &entry, &fh), 0);
	ck_assert_int_eq(kernel_create(kernel, file.node, "x", O_RDWR, 0644, &entry, &fh),
			 -ENOTDIR);
	ck_assert_int_eq(kernel_create(kernel, ROOT, "f", O_RDWR | O_EXCL, 0644, &entry, &fh),
			 -EEXIST);
	ck_assert_int_eq(kernel_rmdir(kernel, ROOT, "f"), -ENOTDIR);
	ck_assert_int_eq(kernel_mkdir(kernel, ROOT, "d", 0755, &entry), 0);
	ck_assert_int_eq(kernel_unlink(kernel, ROOT, "d"), -EISDIR);
	ck_assert_int_eq(kernel_rename(kernel, ROOT, "d", entry.nodeid, "e", 0), -EINVAL);
	ck_assert_int_eq(kernel_release(kernel, file.node, file.fh + 1000), -EBADF);
	ck_assert_int_eq(kernel_open(kernel, 999999, O_RDWR, &o), -ESTALE);
	ck_assert_int_eq(kernel_open(kernel, 8, O_RDWR, &o), -ESTALE); /* the journal */
	ck_assert_int_eq(kernel_open(kernel, 1ull << 32 | file.node, O_RDWR, &o), -ESTALE);
	/* dio=strict */
	ck_assert_int_eq(kernel_write(kernel, file.node, file.fh, 1, "abc", 3, O_RDWR | O_DIRECT),
			 -EINVAL);
	kernel_close(kernel);
}
END_TEST

static int fallocate_err(struct fake_kernel *kernel, const struct file *file, uint64_t off,
			 uint64_t len)
{
	struct fuse_fallocate_in in = { .fh = file->fh, .offset = off, .length = len };

	return kernel_call(kernel, FUSE_FALLOCATE, file->node, &in, sizeof(in), NULL, 0, NULL);
}

/* Offsets and lengths at 2^63 and beyond are refused: no sum overflows, and nothing changes. */
START_TEST(offsets_at_the_end_of_the_numbers)
{
	const uint64_t max = INT64_MAX, over = (uint64_t)INT64_MAX + 1, all = UINT64_MAX;
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 2);
	static uint8_t buf[BS];
	struct fuse_lseek_in seek = { .fh = file.fh, .offset = all, .whence = SEEK_DATA };
	struct fuse_attr at;
	int fl = O_RDWR | O_DIRECT;

	for (unsigned direct = 0; direct < 2; direct++) {
		fl = direct ? O_RDWR | O_DIRECT : O_RDWR;
		/* behind the end */
		ck_assert_int_eq(kernel_read(kernel, file.node, file.fh, max - BS + 1, buf,
					     BS - 512, fl),
				 0);
		ck_assert_int_eq(kernel_read(kernel, file.node, file.fh, max - 511, buf, BS, fl),
				 -EINVAL);
		ck_assert_int_eq(kernel_read(kernel, file.node, file.fh, over, buf, BS, fl),
				 -EINVAL);
		ck_assert_int_eq(kernel_read(kernel, file.node, file.fh, all - 511, buf, BS, fl),
				 -EINVAL);
		ck_assert_int_eq(kernel_write(kernel, file.node, file.fh, max - BS + 1, buf,
					      BS - 512, fl),
				 -EFBIG);
		ck_assert_int_eq(kernel_write(kernel, file.node, file.fh, max - 511, buf, BS, fl),
				 -EINVAL);
		ck_assert_int_eq(kernel_write(kernel, file.node, file.fh, over, buf, BS, fl),
				 -EINVAL);
		ck_assert_int_eq(kernel_write(kernel, file.node, file.fh, all - 511, buf, BS, fl),
				 -EINVAL);
	}
	ck_assert_int_eq(fallocate_err(kernel, &file, max, 1), -EFBIG);
	ck_assert_int_eq(fallocate_err(kernel, &file, max - 1, 1), -EFBIG);
	ck_assert_int_eq(fallocate_err(kernel, &file, 0, all), -EFBIG);
	ck_assert_int_eq(fallocate_err(kernel, &file, over, 1), -EINVAL);
	ck_assert_int_eq(fallocate_err(kernel, &file, all, all), -EINVAL);
	ck_assert_int_eq(kernel_call(kernel, FUSE_LSEEK, file.node, &seek, sizeof(seek), NULL, 0,
				     NULL),
			 -ENXIO);
	ck_assert_int_eq(kernel_setattr(kernel, file.node,
					&(struct fuse_setattr_in){ .valid = FATTR_SIZE,
								   .size = max },
					NULL),
			 -EFBIG);
	ck_assert_int_eq(kernel_setattr(kernel, file.node,
					&(struct fuse_setattr_in){ .valid = FATTR_SIZE,
								   .size = all },
					NULL),
			 -EFBIG);
	ck_assert_int_eq(kernel_getattr(kernel, file.node, &at), 0);
	ck_assert_uint_eq(at.size, 2 * BS);
	expect_block(kernel, &file, 1, 1 + BS / 512);
	kernel_close(kernel);
}
END_TEST

/* ---- statx ---- */

/* The attributes that ext4 has, each by itself; the kernel gets all that are known as the mask. */
START_TEST(attributes_of_statx)
{
	static const struct {
		uint32_t flag;
		uint64_t attribute;
	} settable[] = {
		{ FS_IMMUTABLE_FL, STATX_ATTR_IMMUTABLE },
		{ FS_APPEND_FL, STATX_ATTR_APPEND },
		{ FS_NODUMP_FL, STATX_ATTR_NODUMP },
		{ 0, 0 },
	};
	struct fake_kernel *kernel = start_mount();
	struct file file = new_file(kernel, "f", 1);
	struct fuse_statx_in in = { .sx_mask = STATX_BASIC_STATS | STATX_BTIME };
	const struct kernel_answer *answer;
	struct fuse_statx_out out;

	for (size_t n = 0; n < ARRAY_SIZE(settable); n++) {
		struct fuse_ioctl_in set = { .cmd = (uint32_t)FS_IOC_SETFLAGS, .in_size = 4 };
		uint32_t flags = settable[n].flag | FS_EXTENT_FL;

		ck_assert_int_eq(kernel_call(kernel, FUSE_IOCTL, file.node, &set, sizeof(set),
					     &flags, sizeof(flags), NULL), 0);
		ck_assert_int_eq(kernel_call(kernel, FUSE_STATX, file.node, &in, sizeof(in), NULL,
					     0, &answer), 0);
		ck_assert_uint_eq(answer->len, sizeof(out));
		memcpy(&out, answer->data, sizeof(out));
		ck_assert_uint_eq(out.stat.attributes, settable[n].attribute);
		ck_assert_uint_eq(out.stat.attributes_mask,
				  STATX_ATTR_COMPRESSED | STATX_ATTR_IMMUTABLE |
				  STATX_ATTR_APPEND | STATX_ATTR_NODUMP |
				  STATX_ATTR_ENCRYPTED | STATX_ATTR_VERITY);
		ck_assert_uint_eq(out.stat.mask, STATX_BASIC_STATS | STATX_BTIME);
		ck_assert_uint_eq(out.stat.ino, file.node);
	}
	kernel_release(kernel, file.node, file.fh);
	kernel_close(kernel);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ops: connection");
	TCase *t = unit_case(s, "conn", 60);

	unit_needs_io_uring();
	fdio_log_set_level(FDIO_LOG_ERR);
	testvol_use_template(t, IMAGE_BYTES, "-t ext4 -b 4096 -J size=4", NULL);
	unit_test(t, no_ring_polls);
	unit_test(t, times_of_a_write);
	unit_test(t, truncate_waits_for_writes_in_flight, PROVES("ENGINE-6"));
	unit_test(t, others_go_on_beside_held_io);
	unit_test(t, fsync_waits_for_the_flush);
	unit_test(t, flush_error_reaches_fsync);
	unit_test(t, an_inode_lives_until_it_is_forgotten);
	unit_test(t, an_open_unlinked_file_keeps_its_blocks);
	unit_test(t, names_and_handles_that_cannot_be);
	unit_test(t, offsets_at_the_end_of_the_numbers);
	unit_test(t, attributes_of_statx);
	return s;
}
