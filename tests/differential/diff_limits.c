/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The fixed limits that README and fusedio(8) list, each tried on both sides: that FUSE still has it, and that ext4 has not.
 * Where a newer kernel has lifted one, the line says so; an answer that is neither the limit's nor ext4's is a failure.
 */
#include "differential/diff.h"

#include <errno.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#define DIOALIGN 0x2000u
#define NOWAIT 0x8
#define DONTCACHE 0x80

static int result(long r) { return r < 0 ? errno : 0; }

static int probe_fiemap(int fd, int dir)
{
	struct fiemap m = { .fm_length = 1 << 20 };

	(void)dir;
	return result(ioctl(fd, FS_IOC_FIEMAP, &m));
}

/* 0 if the file system tells. */
static int probe_dioalign(int fd, int dir)
{
	struct statx x = { 0 };

	(void)dir;
	return statx(fd, "", AT_EMPTY_PATH, DIOALIGN, &x) ? errno : x.stx_mask & DIOALIGN ? 0 : ENODATA;
}

static int probe_attributes(int fd, int dir)
{
	struct statx x = { 0 };

	(void)dir;
	return statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x) ? errno : x.stx_attributes_mask & STATX_ATTR_IMMUTABLE ? 0 : ENODATA;
}

static int probe_rwf(int fd, int flag)
{
	struct iovec iov = { diff_arena, 4096 };
	int r = result(preadv2(fd, &iov, 1, 0, flag));

	return r == EAGAIN ? 0 : r;
}

static int probe_nowait(int fd, int dir) { return (void)dir, probe_rwf(fd, NOWAIT); }
static int probe_dontcache(int fd, int dir) { return (void)dir, probe_rwf(fd, DONTCACHE); }
static int probe_collapse(int fd, int dir) { return (void)dir, result(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 4096)); }
static int probe_insert(int fd, int dir) { return (void)dir, result(fallocate(fd, FALLOC_FL_INSERT_RANGE, 4096, 4096)); }

static int probe_seek_far(int fd, int dir)
{
	int r = result(lseek(fd, 1LL << 50, SEEK_SET));

	(void)dir;
	lseek(fd, 0, SEEK_SET);
	return r;
}

static int probe_memory(int fd, int dir)
{
	int direct = openat(dir, "limits", O_RDONLY | O_DIRECT | O_CLOEXEC), r = result(pread(direct, diff_arena + 3, 4096, 0));

	(void)fd;
	close(direct);
	return r;
}

static int with_flag(int fd, int dir, unsigned flag, int (*fn)(int fd, int dir))
{
	unsigned was = 0, now;
	int r = result(ioctl(fd, FS_IOC_GETFLAGS, &was));

	now = was | flag;
	if (!r)
		r = result(ioctl(fd, FS_IOC_SETFLAGS, &now));
	if (r)
		return r;
	r = fn(fd, dir);
	ioctl(fd, FS_IOC_SETFLAGS, &was);
	return r;
}

static int try_access(int fd, int dir) { return (void)fd, result(faccessat(dir, "limits", W_OK, 0)); }

static int try_map(int fd, int dir)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int r = p == MAP_FAILED ? errno : 0;

	(void)dir;
	if (!r)
		munmap(p, 4096);
	return r;
}

static int probe_immutable(int fd, int dir) { return with_flag(fd, dir, FS_IMMUTABLE_FL, try_access); }
static int probe_append(int fd, int dir) { return with_flag(fd, dir, FS_APPEND_FL, try_map); }

static const struct probe {
	const char *name;
	int (*fn)(int fd, int dir);
	int ours; /* what FUSE makes of it */
} probes[] = {
	{ "FIEMAP", probe_fiemap, EOPNOTSUPP },
	{ "statx, STATX_DIOALIGN", probe_dioalign, ENODATA },
	{ "statx, stx_attributes", probe_attributes, ENODATA },
	{ "RWF_NOWAIT", probe_nowait, EOPNOTSUPP },
	{ "RWF_DONTCACHE", probe_dontcache, EOPNOTSUPP },
	{ "FALLOC_FL_COLLAPSE_RANGE", probe_collapse, EOPNOTSUPP },
	{ "FALLOC_FL_INSERT_RANGE", probe_insert, EOPNOTSUPP },
	{ "lseek beyond the largest file", probe_seek_far, 0 },
	{ "O_DIRECT to unaligned memory", probe_memory, 0 },
	{ "access(W_OK) of an immutable file", probe_immutable, 0 },
	{ "mmap of an append-only file", probe_append, 0 },
};

static int open_it(int top)
{
	int fd = openat(top, "limits", O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	memset(diff_arena, 'x', 65536);
	if (fd >= 0 && pwrite(fd, diff_arena, 65536, 0) != 65536)
		perror("limits");
	fsync(fd);
	return fd;
}

unsigned diff_limits(struct side *a, struct side *b)
{
	int fa = open_it(a->top), fb = open_it(b->top);
	unsigned bad = 0;

	for (size_t k = 0; k < sizeof(probes) / sizeof(probes[0]); k++) {
		int ours = probes[k].fn(fa, a->top), theirs = probes[k].fn(fb, b->top);
		bool limit = ours == probes[k].ours, lifted = ours == theirs;

		printf("  limit, %s: fusedio %s, ext4 %s%s\n", probes[k].name, ours ? strerrorname_np(ours) : "ok", theirs ? strerrorname_np(theirs) : "ok",
		       lifted ? ": not one here" : limit ? "" : ": NOT AS LISTED");
		bad += !limit && !lifted;
	}
	close(fa);
	close(fb);
	unlinkat(a->top, "limits", 0);
	unlinkat(b->top, "limits", 0);
	return bad;
}
