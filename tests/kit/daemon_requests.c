/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The requests that tests of the whole daemon send most, each with its FUSE arguments filled in as
 * the kernel does it, sent and waited for. See kit/daemon.h. The test's thread.
 */
#include "kit/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* Copies the answer's data, of which there must be at least len bytes. The answer's error. */
static int want_data(const struct kernel_answer *answer, void *to, size_t len)
{
	if (answer->err)
		return answer->err;
	ck_assert_uint_ge(answer->len, len);
	memcpy(to, answer->data, len);
	return 0;
}

int kernel_lookup(struct fake_kernel *kernel, uint64_t dir, const char *name,
		  struct fuse_entry_out *entry)
{
	const struct kernel_answer *answer;

	kernel_call(kernel, FUSE_LOOKUP, dir, NULL, 0, name, strlen(name) + 1, &answer);
	int err = want_data(answer, entry, sizeof(*entry));
	return !err && !entry->nodeid ? -ENOENT : err; /* a cacheable "no such name" */
}

int kernel_create(struct fake_kernel *kernel, uint64_t dir, const char *name, uint32_t flags,
		  uint32_t mode, struct fuse_entry_out *entry, uint64_t *fh)
{
	struct fuse_create_in in = { .flags = flags | O_CREAT,
				     .mode = S_IFREG | mode,
				     .umask = 022 };
	const struct kernel_answer *answer;

	if (kernel_call(kernel, FUSE_CREATE, dir, &in, sizeof(in), name, strlen(name) + 1, &answer))
		return answer->err;
	ck_assert_uint_eq(answer->len, sizeof(*entry) + sizeof(struct fuse_open_out));
	memcpy(entry, answer->data, sizeof(*entry));
	*fh = ((const struct fuse_open_out *)(answer->data + sizeof(*entry)))->fh;
	return 0;
}

int kernel_mkdir(struct fake_kernel *kernel, uint64_t dir, const char *name, uint32_t mode,
		 struct fuse_entry_out *entry)
{
	struct fuse_mkdir_in in = { .mode = mode, .umask = 022 };
	const struct kernel_answer *answer;

	kernel_call(kernel, FUSE_MKDIR, dir, &in, sizeof(in), name, strlen(name) + 1, &answer);
	return want_data(answer, entry, sizeof(*entry));
}

int kernel_unlink(struct fake_kernel *kernel, uint64_t dir, const char *name)
{
	return kernel_call(kernel, FUSE_UNLINK, dir, NULL, 0, name, strlen(name) + 1, NULL);
}

int kernel_rmdir(struct fake_kernel *kernel, uint64_t dir, const char *name)
{
	return kernel_call(kernel, FUSE_RMDIR, dir, NULL, 0, name, strlen(name) + 1, NULL);
}

int kernel_rename(struct fake_kernel *kernel, uint64_t dir, const char *from, uint64_t dir2,
		  const char *to, uint32_t flags)
{
	struct fuse_rename2_in in = { .newdir = dir2, .flags = flags };
	char names[600];
	size_t n = strlen(from) + 1, m = strlen(to) + 1;

	ck_assert_uint_le(n + m, sizeof(names));
	memcpy(names, from, n);
	memcpy(names + n, to, m);
	return kernel_call(kernel, FUSE_RENAME2, dir, &in, sizeof(in), names, n + m, NULL);
}

int kernel_getattr(struct fake_kernel *kernel, uint64_t nodeid, struct fuse_attr *attr)
{
	struct fuse_getattr_in in = { 0 };
	struct fuse_attr_out out;
	const struct kernel_answer *answer;

	kernel_call(kernel, FUSE_GETATTR, nodeid, &in, sizeof(in), NULL, 0, &answer);
	int err = want_data(answer, &out, sizeof(out));
	if (!err)
		*attr = out.attr;
	return err;
}

int kernel_setattr(struct fake_kernel *kernel, uint64_t nodeid, struct fuse_setattr_in *in,
		   struct fuse_attr *attr)
{
	struct fuse_attr_out out;
	const struct kernel_answer *answer;

	kernel_call(kernel, FUSE_SETATTR, nodeid, in, sizeof(*in), NULL, 0, &answer);
	int err = want_data(answer, &out, sizeof(out));
	if (!err && attr)
		*attr = out.attr;
	return err;
}

int kernel_open(struct fake_kernel *kernel, uint64_t nodeid, uint32_t flags,
		struct fuse_open_out *ret)
{
	struct fuse_open_in in = { .flags = flags };
	const struct kernel_answer *answer;

	kernel_call(kernel, FUSE_OPEN, nodeid, &in, sizeof(in), NULL, 0, &answer);
	return want_data(answer, ret, sizeof(*ret));
}

int kernel_release(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh)
{
	struct fuse_release_in in = { .fh = fh };

	return kernel_call(kernel, FUSE_RELEASE, nodeid, &in, sizeof(in), NULL, 0, NULL);
}

void kernel_forget(struct fake_kernel *kernel, uint64_t nodeid, uint64_t n)
{
	struct fuse_forget_in in = { .nlookup = n };

	kernel_wait(kernel, kernel_send(kernel, FUSE_FORGET, nodeid, &in, sizeof(in), NULL, 0));
}

int kernel_fsync(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, bool datasync)
{
	struct fuse_fsync_in in = { .fh = fh, .fsync_flags = datasync ? FUSE_FSYNC_FDATASYNC : 0 };

	return kernel_call(kernel, FUSE_FSYNC, nodeid, &in, sizeof(in), NULL, 0, NULL);
}

unsigned kernel_send_write(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos,
			   const void *buf, uint32_t len, uint32_t open_flags, uint32_t write_flags)
{
	/* The kernel names a lock owner for O_DIRECT, and none for its page cache. */
	if (open_flags & O_DIRECT)
		write_flags |= FUSE_WRITE_LOCKOWNER;
	struct fuse_write_in in = { .fh = fh,
				    .offset = pos,
				    .size = len,
				    .flags = open_flags,
				    .write_flags = write_flags };

	return kernel_send(kernel, FUSE_WRITE, nodeid, &in, sizeof(in), buf, len);
}

unsigned kernel_send_read(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos,
			  uint32_t len, uint32_t open_flags)
{
	struct fuse_read_in in = { .fh = fh, .offset = pos, .size = len, .flags = open_flags };

	in.read_flags = open_flags & O_DIRECT ? FUSE_READ_LOCKOWNER : 0;
	return kernel_send(kernel, FUSE_READ, nodeid, &in, sizeof(in), NULL, 0);
}

int kernel_write(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos,
		 const void *buf, uint32_t len, uint32_t open_flags)
{
	const struct kernel_answer *answer =
			kernel_wait(kernel, kernel_send_write(kernel, nodeid, fh, pos, buf, len,
							      open_flags, 0));

	return answer->err ? answer->err : (int)((const struct fuse_write_out *)answer->data)->size;
}

int kernel_read(struct fake_kernel *kernel, uint64_t nodeid, uint64_t fh, uint64_t pos, void *buf,
		uint32_t len, uint32_t open_flags)
{
	const struct kernel_answer *answer = kernel_wait(
			kernel, kernel_send_read(kernel, nodeid, fh, pos, len, open_flags));

	if (answer->err)
		return answer->err;
	ck_assert_uint_le(answer->len, len);
	memcpy(buf, answer->data, answer->len);
	return (int)answer->len;
}

