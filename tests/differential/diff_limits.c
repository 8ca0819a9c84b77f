/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tries each limit of FUSE that doc/compatibility.md and fusedio(8) list on both sides: fusedio
 * must have the limit, and ext4 must not. If a newer kernel has lifted a limit, the line of output
 * says so; any other result is a failure.
 */
#include "differential/diff.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
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

/* 0 if statx returns the alignment for direct I/O. */
static int probe_dioalign(int fd, int dir)
{
	struct statx x = { 0 };

	(void)dir;
	return statx(fd, "", AT_EMPTY_PATH, DIOALIGN, &x) ? errno
	       : x.stx_mask & DIOALIGN                    ? 0
							  : ENODATA;
}

static int probe_attributes(int fd, int dir)
{
	struct statx x = { 0 };

	(void)dir;
	return statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x) ? errno
	       : x.stx_attributes_mask & STATX_ATTR_IMMUTABLE      ? 0
								   : ENODATA;
}

static int probe_rwf(int fd, int flag)
{
	struct iovec iov = { diff_arena, 4096 };
	int err = result(preadv2(fd, &iov, 1, 0, flag));

	return err == EAGAIN ? 0 : err;
}

static int probe_nowait(int fd, int dir) { return (void)dir, probe_rwf(fd, NOWAIT); }
static int probe_dontcache(int fd, int dir) { return (void)dir, probe_rwf(fd, DONTCACHE); }
static int probe_collapse(int fd, int dir)
{
	return (void)dir, result(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 4096));
}
static int probe_insert(int fd, int dir)
{
	return (void)dir, result(fallocate(fd, FALLOC_FL_INSERT_RANGE, 4096, 4096));
}

static int probe_seek_far(int fd, int dir)
{
	int err = result(lseek(fd, 1LL << 50, SEEK_SET));

	(void)dir;
	lseek(fd, 0, SEEK_SET);
	return err;
}

static int probe_memory(int fd, int dir)
{
	int direct = openat(dir, "limits", O_RDONLY | O_DIRECT | O_CLOEXEC),
	    err = result(pread(direct, diff_arena + 3, 4096, 0));

	(void)fd;
	close(direct);
	return err;
}

static int with_flag(int fd, int dir, unsigned flag, int (*fn)(int fd, int dir))
{
	unsigned was = 0, now;
	int err = result(ioctl(fd, FS_IOC_GETFLAGS, &was));

	now = was | flag;
	if (!err)
		err = result(ioctl(fd, FS_IOC_SETFLAGS, &now));
	if (err)
		return err;
	err = fn(fd, dir);
	ioctl(fd, FS_IOC_SETFLAGS, &was);
	return err;
}

static int try_access(int fd, int dir)
{
	return (void)fd, result(faccessat(dir, "limits", W_OK, 0));
}

static int try_map(int fd, int dir)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	int err = p == MAP_FAILED ? errno : 0;

	(void)dir;
	if (!err)
		munmap(p, 4096);
	return err;
}

static int probe_immutable(int fd, int dir)
{
	return with_flag(fd, dir, FS_IMMUTABLE_FL, try_access);
}
static int probe_append(int fd, int dir) { return with_flag(fd, dir, FS_APPEND_FL, try_map); }

/* 0 if statfs returns a number for the file system. */
static int probe_fsid(int fd, int dir)
{
	struct statfs s;
	int id[2];

	(void)dir;
	if (fstatfs(fd, &s))
		return errno;
	memcpy(id, &s.f_fsid, sizeof(id));
	return id[0] || id[1] ? 0 : ENODATA;
}

static int probe_fanotify(int fd, int dir)
{
	int n = fanotify_init(FAN_CLASS_NOTIF | FAN_REPORT_FID | FAN_CLOEXEC, 0);
	unsigned how = FAN_MARK_ADD | FAN_MARK_FILESYSTEM;
	int err = n < 0 ? errno : result(fanotify_mark(n, how, FAN_MODIFY, dir, "limits"));

	(void)fd;
	if (n >= 0)
		close(n);
	return err;
}

/* A user namespace that maps user and group 0 to 1000; a descriptor, or -1. */
static int user_namespace(void)
{
	char path[64];
	int ready[2], ns = -1, map;
	pid_t pid;

	if (pipe(ready))
		return -1;
	pid = fork();
	if (!pid) {
		if (write(ready[1], "", unshare(CLONE_NEWUSER) ? 0 : 1) == 1)
			pause();
		_exit(0);
	}
	close(ready[1]);
	if (pid > 0 && read(ready[0], path, 1) == 1) {
		for (int k = 0; k < 2; k++) {
			snprintf(path, sizeof(path), "/proc/%d/%cid_map", pid, "ug"[k]);
			map = open(path, O_WRONLY | O_CLOEXEC);
			if (write(map, "0 1000 1\n", 9) != 9)
				perror(path);
			close(map);
		}
		snprintf(path, sizeof(path), "/proc/%d/ns/user", pid);
		ns = open(path, O_RDONLY | O_CLOEXEC);
	}
	close(ready[0]);
	if (pid > 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
	return ns;
}

static int probe_idmap(int fd, int dir)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP };
	int ns = user_namespace(), err;
	unsigned how = AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
	long tree = syscall(SYS_open_tree, dir, "", how);

	(void)fd;
	attr.userns_fd = (uint64_t)ns;
	err = ns < 0 || tree < 0 ? errno
				 : result(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr,
						  sizeof(attr)));
	if (tree >= 0)
		close((int)tree);
	if (ns >= 0)
		close(ns);
	return err;
}

static const struct probe {
	const char *name;
	int (*fn)(int fd, int dir);
	int ours; /* the listed result over FUSE */
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
	{ "f_fsid of statfs", probe_fsid, ENODATA },
	{ "fanotify of the file system, FAN_REPORT_FID", probe_fanotify, ENODEV },
	{ "idmapped mounts", probe_idmap, EINVAL },
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

		printf("  limit, %s: fusedio %s, ext4 %s%s\n", probes[k].name,
		       ours ? strerror(ours) : "ok", theirs ? strerror(theirs) : "ok",
		       lifted  ? ": not one here"
		       : limit ? ""
			       : ": NOT AS LISTED");
		bad += !limit && !lifted;
	}
	close(fa);
	close(fb);
	unlinkat(a->top, "limits", 0);
	unlinkat(b->top, "limits", 0);
	return bad;
}
