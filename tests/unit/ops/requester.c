/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requesters that the kernel does not name, because the mount may be idmapped: the daemon finds out
 * who they are where that matters, and takes nobody for root who is not. A request that creates has
 * the owner of the new inode in its header, not the requester.
 */
#include "kit/daemon.h"
#include "kit/runner.h"
#include "unit/ops/files.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define IMAGE_BYTES (16u << 20)
#define USER 1000u
#define WRITE_BYTES (64u << 10)

static uint8_t data[WRITE_BYTES];

/* A mount that may be idmapped: requests that create nothing have unknown IDs from here on. */
static struct fake_kernel *start_idmapped(void)
{
	struct kernel_options options = { .idmap = true, .parallel_dio = true };
	struct fake_kernel *kernel = kernel_new(testvol_copy(), &options);

	kernel_set_uid(kernel, 0);
	return kernel;
}

/* Creates a file that the header gives to owner, with mode and content. */
static struct file file_of(struct fake_kernel *kernel, const char *name, uint32_t owner,
			   uint32_t mode)
{
	struct file file = { 0 };

	kernel_set_uid(kernel, owner);
	ck_assert_int_eq(kernel_create(kernel, ROOT, name, O_RDWR, mode, &file.entry, &file.fh), 0);
	kernel_set_uid(kernel, MESSAGE_UNKNOWN_ID);
	file.node = file.entry.nodeid;
	return file;
}

static unsigned mode_of(struct fake_kernel *kernel, const struct file *file)
{
	return attr_at(kernel, file->node).mode & 07777;
}

/* Writes at the end of the file until that fails; returns the error. */
static int fill(struct fake_kernel *kernel, const struct file *file, uint64_t *end)
{
	int n = 0;

	for (uint32_t len = WRITE_BYTES; len >= BS; len /= 4)
		while ((n = kernel_write(kernel, file->node, file->fh, *end, data, len,
					 O_RDWR)) > 0)
			*end += (uint64_t)n;
	return n;
}

static int set_xattr(struct fake_kernel *kernel, uint64_t node, const char *name, unsigned len)
{
	struct fuse_setxattr_in in = { .size = len };
	char *tail = calloc(1, strlen(name) + 1 + len);

	strcpy(tail, name);
	int err = kernel_call(kernel, FUSE_SETXATTR, node, &in, sizeof(in), tail,
			      strlen(name) + 1 + len, NULL);
	free(tail);
	return err;
}

static int make_directory(struct fake_kernel *kernel, const char *name, uint32_t owner)
{
	struct fuse_entry_out entry;
	int err;

	kernel_set_uid(kernel, owner);
	err = kernel_mkdir(kernel, ROOT, name, 0755, &entry);
	kernel_set_uid(kernel, MESSAGE_UNKNOWN_ID);
	return err;
}

START_TEST(reserved_blocks_are_for_root)
{
	struct fake_kernel *kernel = start_idmapped();
	struct file file = file_of(kernel, "f", USER, 0644);
	uint64_t end = 0, before;
	unsigned n = 0;
	char name[8];
	int err;

	kernel_set_requester(kernel, USER);
	ck_assert_int_eq(fill(kernel, &file, &end), -ENOSPC);
	before = end;
	/* The requester is a user, although the directory is to belong to root of its container. */
	do {
		snprintf(name, sizeof(name), "u%u", n);
		err = make_directory(kernel, name, 0);
	} while (!err && ++n < 16);
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert_int_eq(set_xattr(kernel, file.node, "user.x", 2000), -ENOSPC);
	struct fuse_fallocate_in more = { .fh = file.fh, .offset = end, .length = BS };
	ck_assert_int_eq(kernel_call(kernel, FUSE_FALLOCATE, file.node, &more, sizeof(more), NULL,
				     0, NULL), -ENOSPC);
	kernel_set_requester(kernel, MESSAGE_UNKNOWN_ID);
	ck_assert_int_eq(make_directory(kernel, "d", 0), -ENOSPC);

	kernel_set_requester(kernel, 0);
	ck_assert_int_eq(make_directory(kernel, "d", USER), 0);
	ck_assert_int_eq(set_xattr(kernel, file.node, "user.x", 2000), 0);
	ck_assert_int_eq(kernel_call(kernel, FUSE_FALLOCATE, file.node, &more, sizeof(more), NULL,
				     0, NULL), 0);
	ck_assert_int_eq(fill(kernel, &file, &end), -ENOSPC);
	ck_assert_uint_gt(end, before + IMAGE_BYTES / 20); /* half of the reserve, at least */
	kernel_release(kernel, file.node, file.fh);
	kernel_close(kernel);
}
END_TEST

START_TEST(owners_come_with_the_request)
{
	struct fake_kernel *kernel = start_idmapped();
	struct fuse_entry_out entry;
	struct file file;

	kernel_set_requester(kernel, 5);
	file = file_of(kernel, "f", 7, 0644);
	ck_assert_uint_eq(attr_at(kernel, file.node).uid, 7);
	ck_assert_uint_eq(attr_at(kernel, file.node).gid, 7);
	/* An owner that the file system has no number for. */
	ck_assert_int_eq(kernel_mkdir(kernel, ROOT, "d", 0755, &entry), -EOVERFLOW);
	ck_assert_int_eq(kernel_create(kernel, ROOT, "g", O_RDWR, 0644, &entry, &(uint64_t){ 0 }),
			 -EOVERFLOW);
	/* A rename makes nothing, unless it leaves a whiteout. */
	ck_assert_int_eq(kernel_rename(kernel, ROOT, "f", ROOT, "h", RENAME_WHITEOUT), -EOVERFLOW);
	ck_assert_int_eq(kernel_rename(kernel, ROOT, "f", ROOT, "h", RENAME_NOREPLACE), 0);
	kernel_release(kernel, file.node, file.fh);
	kernel_close(kernel);
}
END_TEST

/* Who the requester is, and whether that is root. */
static const struct {
	uint32_t id;
	bool root;
} requesters[] = { { 0, true }, { USER, false }, { MESSAGE_UNKNOWN_ID, false } };

START_TEST(only_root_keeps_privileges)
{
	struct fake_kernel *kernel = start_idmapped();
	struct file file = file_of(kernel, "f", USER, 06755);
	struct fuse_setattr_in nothing = { 0 };
	struct fuse_fallocate_in some = { .fh = file.fh, .length = BS };
	struct fuse_attr attr;

	kernel_set_requester(kernel, requesters[_i].id);
	ck_assert_int_eq(kernel_setattr(kernel, file.node, &nothing, &attr), 0);
	ck_assert_uint_eq(attr.mode & 07777, requesters[_i].root ? 06755 : 0755);
	kernel_release(kernel, file.node, file.fh);

	file = file_of(kernel, "g", USER, 06755);
	some.fh = file.fh;
	ck_assert_int_eq(kernel_call(kernel, FUSE_FALLOCATE, file.node, &some, sizeof(some), NULL,
				     0, NULL), 0);
	ck_assert_uint_eq(mode_of(kernel, &file), requesters[_i].root ? 06755 : 0755);
	kernel_release(kernel, file.node, file.fh);
	kernel_close(kernel);
}
END_TEST

START_TEST(only_root_sees_trusted_attributes)
{
	struct fake_kernel *kernel = start_idmapped();
	struct file file = file_of(kernel, "f", USER, 0644);
	struct fuse_getxattr_in in = { .size = 1000 };
	const struct kernel_answer *answer;

	ck_assert_int_eq(set_xattr(kernel, file.node, "user.x", 10), 0);
	ck_assert_int_eq(set_xattr(kernel, file.node, "trusted.y", 10), 0);
	kernel_set_requester(kernel, requesters[_i].id);
	ck_assert_int_eq(kernel_call(kernel, FUSE_LISTXATTR, file.node, &in, sizeof(in), NULL, 0,
				     &answer), 0);
	ck_assert_uint_eq(answer->len, sizeof("user.x") +
			  (requesters[_i].root ? sizeof("trusted.y") : 0));
	kernel_release(kernel, file.node, file.fh);
	kernel_close(kernel);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ops: requester");
	TCase *c = unit_case(s, "all", 120);

	unit_needs_io_uring();
	fdio_log_set_level(FDIO_LOG_ERR);
	testvol_use_template(c, IMAGE_BYTES, "-t ext4 -b 4096 -m 10 -J size=4", NULL);
	unit_test(c, reserved_blocks_are_for_root);
	unit_test(c, owners_come_with_the_request);
	unit_loop(c, only_root_keeps_privileges, 0, ARRAY_SIZE(requesters));
	unit_loop(c, only_root_sees_trusted_attributes, 0, ARRAY_SIZE(requesters));
	return s;
}
