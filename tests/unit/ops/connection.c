/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A whole connection: FUSE requests in at the top, a device that completes when the test says so at
 * the bottom, the product with its threads between them. Here are the rules that no room can be
 * asked about alone: the end of a mount with I/O in flight, what an interrupt may do, times,
 * references, and which requests wait for which.
 */
#include "kit/daemon.h"
#include "kit/runner.h"

#include "base/log.h"
#include "loop/types.h"

#include <errno.h>
#include <ext2fs/ext2_fs.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ROOT FUSE_ROOT_ID
#define BS 4096u
#define IMAGE_BYTES (16u << 20)


struct file { struct fuse_entry_out entry; uint64_t node, fh; };

static struct fake_kernel *start(void)
{
	struct kernel_options options = { .parallel_dio = true };

	return kernel_new(testvol_copy(), &options);
}

static void fill(uint8_t *buf, uint8_t seed, uint32_t len)
{
	for (uint32_t n = 0; n < len; n++)
		buf[n] = (uint8_t)(seed + n / 512);
}

/* A file of n written blocks, open for direct I/O. */
static struct file new_file(struct fake_kernel *kernel, const char *name, unsigned blocks)
{
	static uint8_t buf[16 * BS];
	struct file file;

	ck_assert_uint_le(blocks, 16);
	ck_assert_int_eq(kernel_create(kernel, ROOT, name, O_RDWR | O_DIRECT, 0644, &file.entry,
				       &file.fh),
			 0);
	file.node = file.entry.nodeid;
	fill(buf, 1, blocks * BS);
	if (blocks)
		ck_assert_int_eq(kernel_write(kernel, file.node, file.fh, 0, buf, blocks * BS,
					      O_RDWR | O_DIRECT),
				 (int)(blocks * BS));
	ck_assert_int_eq(kernel_fsync(kernel, file.node, file.fh, false), 0);
	return file;
}

static unsigned send_block(struct fake_kernel *kernel, const struct file *file, unsigned block,
			   uint8_t seed)
{
	static uint8_t buf[BS];

	fill(buf, seed, BS);
	return kernel_send_write(kernel, file->node, file->fh, (uint64_t)block * BS, buf, BS,
				 O_RDWR | O_DIRECT, 0);
}

static void expect_block(struct fake_kernel *kernel, const struct file *file, unsigned block,
			 uint8_t seed)
{
	static uint8_t want[BS], got[BS];

	fill(want, seed, BS);
	ck_assert_int_eq(kernel_read(kernel, file->node, file->fh, (uint64_t)block * BS, got, BS,
				     O_RDWR | O_DIRECT),
			 (int)BS);
	ck_assert_mem_eq(want, got, BS);
}

/*
 * Long enough that what can happen wrongly would have happened; a wrong program fails here, a right
 * one never does.
 */
static void a_while(void) { unit_pause_ms(30); }

static struct ext2_super_block media_super(struct fake_dev *fake)
{
	static uint8_t b[4096];
	struct ext2_super_block sb;

	fake_peek_media(fake, b, sizeof(b), 0);
	memcpy(&sb, b + 1024, sizeof(sb));
	return sb;
}

/* ---- no polling ---- */

/*
 * Polled completions need rings of their own; ours carry FUSE requests too, so no ring polls and no
 * request may ask for it.
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

	struct fake_kernel *kernel = start();
	fake_set_hook(kernel_dev(kernel), see_flags, NULL);
	struct file file = new_file(kernel, "f", 4);
	kernel_wait(kernel, kernel_send_write(kernel, file.node, file.fh, 0, "x", 1, O_RDWR, 0));
	expect_block(kernel, &file, 1, 1 + BS / 512);
	ck_assert_uint_eq(flags_seen & ~(unsigned)(DEV_FUA | DEV_ASYNC), 0);
	fake_set_hook(kernel_dev(kernel), NULL, NULL);
	kernel_close(kernel);
}
END_TEST

/* ---- aborts and interrupts ---- */

START_TEST(abort_waits_for_the_device)
{
	struct fake_kernel *kernel = start();
	struct file file = new_file(kernel, "f", 4);
	unsigned w[3];

	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	for (unsigned n = 0; n < 3; n++)
		w[n] = send_block(kernel, &file, n, (uint8_t)(40 + n));
	ck_assert(fake_wait_held(kernel_dev(kernel), 3));
	kernel_abort(kernel);
	/* The device still has three buffers of ours: nothing is taken down under it. */
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
		/* answered; that nobody listens is the channel's to tolerate */
		ck_assert_int_eq(kernel_wait(kernel, w[n])->err, 0);
	ck_assert_uint_eq(media_super(kernel_dev(kernel)).s_state & EXT2_VALID_FS, EXT2_VALID_FS);
	fake_set_mode(kernel_dev(kernel), FAKE_INLINE, 0);
	kernel_close(kernel);
}
END_TEST

START_TEST(no_request_starts_after_an_abort)
{
	struct fake_kernel *kernel = start();
	struct file file = new_file(kernel, "f", 2);

	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	unsigned w = send_block(kernel, &file, 0, 7);
	ck_assert(fake_wait_held(kernel_dev(kernel), 1));
	kernel_abort(kernel);
	/* Until the control thread has taken notice, requests are served. */
	unsigned late;
	do {
		/* beyond the end: no device */
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
	struct fake_kernel *kernel = start();
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
	struct fake_kernel *kernel = start();
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
	/*
	 * What umount's caller may rely on: the data is on the media, and the file system is clean
	 * there.
	 */
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

/* A handler on a worker, in the middle of a commit: nothing is closed under it. */
START_TEST(destroy_waits_for_workers)
{
	struct fake_kernel *kernel = start();
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

/*
 * A handler on a loop has answered and is not through: what it lets go of last must still be there.
 */
START_TEST(destroy_waits_for_who_has_answered)
{
	struct fake_kernel *kernel = start();
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

/*
 * Of a write that was answered before it: what the transport is made of must be there until it has
 * been sent.
 */
START_TEST(destroy_waits_for_notifications)
{
	struct fake_kernel *kernel = start();
	struct file file = new_file(kernel, "f", 1);
	struct fuse_open_out o;
	static uint8_t buf[BS];

	ck_assert_int_eq(kernel_open(kernel, file.node, O_RDWR, &o), 0);
	/* now in the page cache */
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

/* ---- times of a write ---- */

static struct fuse_attr attr_at(struct fake_kernel *kernel, uint64_t node)
{
	struct fuse_attr a;

	ck_assert_int_eq(kernel_getattr(kernel, node, &a), 0);
	return a;
}

START_TEST(times_of_a_write)
{
	struct fake_kernel *kernel = start();
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
	/* A read moves neither; what a failed write leaves is the old time. */
	t.tv_sec++;
	fake_set_clock(kernel_dev(kernel), &t);
	ck_assert_int_eq(kernel_read(kernel, file.node, file.fh, 0, buf, BS, O_RDWR | O_DIRECT),
			 (int)BS);
	a = attr_at(kernel, file.node);
	ck_assert_uint_eq(a.mtime, 2000000000);
	ck_assert_uint_eq(a.ctime, 2000000000);
	/* Extending, then a crash after fsync: the times are what GETATTR said. */
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
	struct fake_kernel *kernel = start();
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
	struct fake_kernel *kernel = start();
	struct file f = new_file(kernel, "f", 8), g = new_file(kernel, "g", 8);
	struct fuse_entry_out entry;
	uint64_t fh;

	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	unsigned r = kernel_send_read(kernel, f.node, f.fh, 0, BS, O_RDWR | O_DIRECT);
	unsigned w = send_block(kernel, &f, 2, 77);
	ck_assert(fake_wait_held(kernel_dev(kernel), 2));
	/* Names, attributes, new files: nothing of the held file's I/O is in their way. */
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
	struct fake_kernel *kernel = start();
	struct file file = new_file(kernel, "f", 4);
	struct fuse_fsync_in in = { .fh = file.fh, .fsync_flags = FUSE_FSYNC_FDATASYNC };
	static uint8_t got[BS];

	kernel_wait(kernel, send_block(kernel, &file, 1, 5));
	fake_block(kernel_dev(kernel), FAKE_FLUSH);
	unsigned s = kernel_send(kernel, FUSE_FSYNC, file.node, &in, sizeof(in), NULL, 0);
	ck_assert(fake_wait_blocked(kernel_dev(kernel), 1));
	ck_assert(!kernel_answered(kernel, s));
	/* The loop does not wait with it. */
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
	struct fake_kernel *kernel = start();
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
 * The size has changed and the answer is an error: the kernel, which keeps attributes for a day, is
 * told to ask for them.
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
				 0); /* with the flag */
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

/* ---- references ---- */

static uint64_t free_inodes(struct fake_kernel *kernel)
{
	const struct kernel_answer *answer;

	ck_assert_int_eq(kernel_call(kernel, FUSE_STATFS, ROOT, NULL, 0, NULL, 0, &answer), 0);
	return ((const struct fuse_statfs_out *)answer->data)->st.ffree;
}

START_TEST(an_inode_lives_until_it_is_forgotten)
{
	struct fake_kernel *kernel = start();
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
	/* More than was given is not an underflow. */
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
	struct fake_kernel *kernel = start();
	struct file f = new_file(kernel, "f", 8), g;

	ck_assert_int_eq(kernel_unlink(kernel, ROOT, "f"), 0);
	kernel_forget(kernel, f.node, 1);
	fake_set_mode(kernel_dev(kernel), FAKE_HELD, 1);
	unsigned w = send_block(kernel, &f, 3, 200);
	ck_assert(fake_wait_held(kernel_dev(kernel), 1));
	/*
	 * What is released with a write under way is another handle's business; here it is the last
	 * one's, after its write.
	 */
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
	struct fake_kernel *kernel = start();
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

/* A direct write to a file with cached pages tells the kernel to drop them, before the answer. */
START_TEST(invalidation_comes_before_the_answer)
{
	struct fake_kernel *kernel = start();
	struct file file = new_file(kernel, "f", 4);
	struct fuse_open_out o;
	static uint8_t buf[BS];

	ck_assert_int_eq(kernel_open(kernel, file.node, O_RDWR, &o), 0);
	/* now in the page cache */
	ck_assert_int_eq(kernel_read(kernel, file.node, o.fh, 0, buf, BS, O_RDWR), (int)BS);
	unsigned before = kernel_invalidations(kernel);
	kernel_wait(kernel, send_block(kernel, &file, 0, 31));
	ck_assert_uint_gt(kernel_invalidations(kernel), before);
	kernel_close(kernel);
}
END_TEST

static int fallocate_err(struct fake_kernel *kernel, const struct file *file, uint64_t off,
			 uint64_t len)
{
	struct fuse_fallocate_in in = { .fh = file->fh, .offset = off, .length = len };

	return kernel_call(kernel, FUSE_FALLOCATE, file->node, &in, sizeof(in), NULL, 0, NULL);
}

/* Offsets and lengths at 2^63 and beyond: their sums are not computed, and nothing changes. */
START_TEST(offsets_at_the_end_of_the_numbers)
{
	const uint64_t max = INT64_MAX, over = (uint64_t)INT64_MAX + 1, all = UINT64_MAX;
	struct fake_kernel *kernel = start();
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

static unsigned nr_answered(struct fake_kernel *kernel, const unsigned *w, unsigned n)
{
	unsigned nr = 0;

	for (unsigned m = 0; m < n; m++)
		nr += kernel_answered(kernel, w[m]);
	return nr;
}

/*
 * A notification can wait for a page that a READ has locked, and the READ for a slot: so at most
 * (slots - 2) / 2 writes wait for theirs, and none where a loop has next to no slots. The others
 * are answered first.
 */
static void writes_beside_held_notifications(unsigned slots, unsigned may_wait)
{
	struct fake_kernel *kernel = start();
	struct file file = new_file(kernel, "f", 16);
	struct fuse_open_out o;
	static uint8_t buf[BS];
	unsigned w[16], n = may_wait + 2;

	ck_assert_int_eq(kernel_open(kernel, file.node, O_RDWR, &o), 0);
	/* now in the page cache */
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

/*
 * Those of one inode that wait to be sent are joined: the one that goes is of what each of them was
 * of.
 */
START_TEST(joined_invalidations_are_of_all)
{
	static const unsigned order[] = { 4, 9, 2, 13, 6 };
	struct fake_kernel *kernel = start();
	struct file file = new_file(kernel, "f", 16);
	struct fuse_open_out o;
	static uint8_t buf[BS];

	ck_assert_int_eq(kernel_open(kernel, file.node, O_RDWR, &o), 0);
	/* now in the page cache */
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

Suite *unit_suite(void)
{
	Suite *s = suite_create("ops: connection");
	TCase *t = unit_case(s, "conn", 60);

	fdio_log_set_level(FDIO_LOG_ERR);
	testvol_use_template(t, IMAGE_BYTES, "-t ext4 -b 4096 -J size=4", NULL);
	unit_test(t, no_ring_polls);
	unit_test(t, abort_waits_for_the_device);
	unit_test(t, no_request_starts_after_an_abort);
	unit_test(t, interrupt_cancels_nothing);
	unit_test(t, destroy_is_answered_last);
	unit_test(t, destroy_waits_for_workers);
	unit_test(t, destroy_waits_for_who_has_answered, PROVES("DISPATCH-4"));
	unit_test(t, destroy_waits_for_notifications);
	unit_test(t, times_of_a_write);
	unit_test(t, truncate_waits_for_writes_in_flight, PROVES("ENGINE-6"));
	unit_test(t, others_go_on_beside_held_io);
	unit_test(t, fsync_waits_for_the_flush);
	unit_test(t, flush_error_reaches_fsync);
	unit_loop(t, size_that_failed_is_told, 0, 2);
	unit_test(t, an_inode_lives_until_it_is_forgotten);
	unit_test(t, an_open_unlinked_file_keeps_its_blocks);
	unit_test(t, names_and_handles_that_cannot_be);
	unit_test(t, invalidation_comes_before_the_answer, PROVES("ENGINE-7"));
	unit_test(t, offsets_at_the_end_of_the_numbers);
	unit_test(t, few_writes_wait_for_invalidations, PROVES("ENGINE-7 NOTIFY-1"));
	unit_test(t, none_waits_where_slots_are_few);
	unit_test(t, joined_invalidations_are_of_all);
	return s;
}
