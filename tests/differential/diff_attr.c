/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Steps on attributes: stat, modes, owners, times, extended attributes, ACLs, inode flags.
 */
#include "differential/diff.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

static void say_statx(struct outcome *outcome, const struct statx *x)
{
	say(outcome, "mode %o nlink %u uid %u gid %u rdev %u:%u blksize %u size %llu", x->stx_mode,
	    x->stx_nlink, x->stx_uid, x->stx_gid, x->stx_rdev_major, x->stx_rdev_minor,
	    x->stx_blksize, (unsigned long long)x->stx_size);
}

void run_stat(struct side *side, const struct step *step, struct outcome *outcome)
{
	unsigned mask = STATX_BASIC_STATS | (step->v[0] & 4 ? STATX_BTIME : 0);
	int fl = (step->v[0] & 1 ? AT_SYMLINK_NOFOLLOW : 0) |
		 (step->v[0] & 2 ? AT_STATX_FORCE_SYNC : 0);
	struct statx x = { 0 };
	struct stat st;

	if (step->has_path[0] && !(step->v[0] & 6)) {
		done(outcome, fstatat(side->root, step->path[0], &st, fl));
		if (!outcome->ret)
			say(outcome, "mode %o nlink %u uid %u gid %u rdev %u", st.st_mode,
			    (unsigned)st.st_nlink, st.st_uid, st.st_gid, (unsigned)st.st_rdev);
		return;
	}
	if (step->has_path[0])
		done(outcome, statx(side->root, step->path[0], fl, mask, &x));
	else
		done(outcome, statx(slot_fd(side, step, 0), "", fl | AT_EMPTY_PATH, mask, &x));
	if (outcome->ret)
		return;
	say_statx(outcome, &x);
	if (mask & STATX_BTIME)
		say(outcome, " btime %d", !!(x.stx_mask & STATX_BTIME));
}

void run_statfs(struct side *side, const struct step *step, struct outcome *outcome)
{
	struct statfs f;
	int fd = step->has_slot[0] ? slot_fd(side, step, 0)
				   : openat(side->root, step->path[0],
					    O_PATH | O_CLOEXEC | O_NOFOLLOW);

	done(outcome, fd < 0 ? -1 : fstatfs(fd, &f));
	if (step->has_path[0] && fd >= 0)
		close(fd);
	if (outcome->ret)
		return;
	say(outcome, "bsize %ld frsize %ld namelen %ld blocks %llu files %llu reserved %lld",
	    (long)f.f_bsize, (long)f.f_frsize, (long)f.f_namelen, (unsigned long long)f.f_blocks,
	    (unsigned long long)f.f_files, (long long)(f.f_bfree - f.f_bavail));
}

void run_chmod(struct side *side, const struct step *step, struct outcome *outcome)
{
	if (step->has_path[0])
		done(outcome, fchmodat(side->root, step->path[0], (mode_t)step->v[0], 0));
	else
		done(outcome, fchmod(slot_fd(side, step, 0), (mode_t)step->v[0]));
}

void run_chown(struct side *side, const struct step *step, struct outcome *outcome)
{
	if (step->has_path[0])
		done(outcome, fchownat(side->root, step->path[0], (uid_t)step->v[0],
				       (gid_t)step->v[1], step->v[2] ? AT_SYMLINK_NOFOLLOW : 0));
	else
		done(outcome, fchown(slot_fd(side, step, 0), (uid_t)step->v[0], (gid_t)step->v[1]));
}

void run_utimens(struct side *side, const struct step *step, struct outcome *outcome)
{
	struct timespec ts[2] = { { (time_t)step->v[0], (long)step->v[1] },
				  { (time_t)step->v[2], (long)step->v[3] } };
	const struct timespec *t = step->v[4] ? ts : NULL;

	/* The C library refuses a path of NULL; the system call takes it. */
	if (step->has_path[0])
		done(outcome, syscall(SYS_utimensat, side->root, step->path[0], t,
				      step->v[4] == 1 ? AT_SYMLINK_NOFOLLOW : 0));
	else
		done(outcome, syscall(SYS_utimensat, slot_fd(side, step, 0), NULL, t, 0));
}

#ifndef SYS_faccessat2
#define SYS_faccessat2 439
#endif

void run_access(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fl = (step->v[1] & 1 ? AT_EACCESS : 0) | (step->v[1] & 2 ? AT_SYMLINK_NOFOLLOW : 0);

	done(outcome, syscall(SYS_faccessat2, side->root, step->path[0], (int)step->v[0], fl));
}

/* ------------------------------------------------------------------ extended attributes */

/* There are no *at calls for these, so the directory is changed first. */
static const char *at_path(struct side *side, const struct step *step, char *buf, size_t cap)
{
	snprintf(buf, cap, "%s", step->path[0]);
	return fchdir(side->root) ? "" : buf;
}

void run_setxattr(struct side *side, const struct step *step, struct outcome *outcome)
{
	char path[PATH_CAP];
	size_t len = (size_t)step->v[0];

	fill_bytes(diff_arena, len, step->seed);
	if (!step->has_path[0])
		done(outcome, fsetxattr(slot_fd(side, step, 0), step->name, diff_arena, len,
					(int)step->v[1]));
	else if (step->v[2])
		done(outcome, setxattr(at_path(side, step, path, sizeof(path)), step->name,
				       diff_arena, len, (int)step->v[1]));
	else
		done(outcome, lsetxattr(at_path(side, step, path, sizeof(path)), step->name,
					diff_arena, len, (int)step->v[1]));
}

void run_getxattr(struct side *side, const struct step *step, struct outcome *outcome)
{
	char path[PATH_CAP];
	size_t cap = (size_t)step->v[0];
	ssize_t n;

	if (!step->has_path[0])
		n = fgetxattr(slot_fd(side, step, 0), step->name, diff_arena, cap);
	else if (step->v[2])
		n = getxattr(at_path(side, step, path, sizeof(path)), step->name, diff_arena, cap);
	else
		n = lgetxattr(at_path(side, step, path, sizeof(path)), step->name, diff_arena, cap);
	done(outcome, n);
	if (n > 0 && cap)
		say(outcome, "value %016" PRIx64, hash_bytes(1, diff_arena, (size_t)n));
}

/* The order of the names is not defined. */
void run_listxattr(struct side *side, const struct step *step, struct outcome *outcome)
{
	char path[PATH_CAP];
	size_t cap = (size_t)step->v[0];
	ssize_t n;
	uint64_t sum = 0;

	if (!step->has_path[0])
		n = flistxattr(slot_fd(side, step, 0), (char *)diff_arena, cap);
	else if (step->v[2])
		n = listxattr(at_path(side, step, path, sizeof(path)), (char *)diff_arena, cap);
	else
		n = llistxattr(at_path(side, step, path, sizeof(path)), (char *)diff_arena, cap);
	done(outcome, n);
	if (n <= 0 || !cap)
		return;
	for (const char *p = (char *)diff_arena; p < (char *)diff_arena + n; p += strlen(p) + 1) {
		sum += hash_bytes(1, p, strlen(p));
		say(outcome, "%.30s ", p);
	}
	outcome->len = 0; /* replaces the names by their sum, which does not depend on the order */
	say(outcome, "names %016" PRIx64, sum);
}

void run_removexattr(struct side *side, const struct step *step, struct outcome *outcome)
{
	char path[PATH_CAP];

	if (!step->has_path[0])
		done(outcome, fremovexattr(slot_fd(side, step, 0), step->name));
	else if (step->v[2])
		done(outcome, removexattr(at_path(side, step, path, sizeof(path)), step->name));
	else
		done(outcome, lremovexattr(at_path(side, step, path, sizeof(path)), step->name));
}

static size_t acl_entry(uint8_t *p, unsigned tag, unsigned perm, uint32_t id)
{
	uint16_t t = (uint16_t)tag, m = (uint16_t)perm;

	memcpy(p, &t, 2);
	memcpy(p + 2, &m, 2);
	memcpy(p + 4, &id, 4);
	return 8;
}

/* An ACL with the bits in v[1] and v[3] named entries. v[2] is 0 or a way to make it invalid. */
static size_t make_acl(const struct step *step, uint8_t *p)
{
	uint32_t version = step->v[2] == 1 ? 3 : 2;
	unsigned bits = (unsigned)step->v[1], named = (unsigned)step->v[3];
	size_t n = 4;

	memcpy(p, &version, 4);
	if (step->v[2] == 2)
		return step->v[1] & 1 ? 4 : 0;
	n += acl_entry(p + n, 1, bits & 7, UINT32_MAX);
	for (unsigned k = 0; k < named; k++)
		n += acl_entry(p + n, k & 1 ? 8 : 2, bits >> (3 * k) & 7, 0);
	/* named users come before the owning group, named groups after it */
	n = 4 + 8;
	for (unsigned k = 0; k < (named + 1) / 2; k++)
		n += acl_entry(p + n, 2, bits >> (3 + 3 * k) & 7, 1001 + k);
	n += acl_entry(p + n, 4, bits >> 9 & (step->v[2] == 3 ? 15 : 7), UINT32_MAX);
	for (unsigned k = 0; k < named / 2; k++)
		n += acl_entry(p + n, 8, bits >> (12 + 3 * k) & 7, 2000 + k);
	if ((named || bits & 0x800000) && step->v[2] != 4)
		n += acl_entry(p + n, 0x10, bits >> 18 & 7, UINT32_MAX);
	if (step->v[2] != 5)
		n += acl_entry(p + n, 0x20, bits >> 15 & 7, UINT32_MAX);
	return n;
}

void run_setacl(struct side *side, const struct step *step, struct outcome *outcome)
{
	const char *name = step->v[0] ? "system.posix_acl_default" : "system.posix_acl_access";
	char path[PATH_CAP];
	size_t n = make_acl(step, diff_arena);

	if (!step->has_path[0])
		done(outcome, fsetxattr(slot_fd(side, step, 0), name, diff_arena, n, 0));
	else
		done(outcome,
		     setxattr(at_path(side, step, path, sizeof(path)), name, diff_arena, n, 0));
}

/* ------------------------------------------------------------------ inode flags */

void run_getflags(struct side *side, const struct step *step, struct outcome *outcome)
{
	unsigned v = 0;
	int fd = slot_fd(side, step, 0);

	done(outcome, ioctl(fd, FS_IOC_GETFLAGS, &v));
	if (!outcome->ret)
		say(outcome, "flags %#x", v);
	say(outcome, " version %d", ioctl(fd, FS_IOC_GETVERSION, &v));
}

void run_setflags(struct side *side, const struct step *step, struct outcome *outcome)
{
	unsigned v = 0;
	int fd = slot_fd(side, step, 0);

	/*
	 * Keeps the flags that tell how the file is stored: without FS_EXTENT_FL ext4 would convert
	 * it to a block map, which fusedio does not support.
	 */
	ioctl(fd, FS_IOC_GETFLAGS, &v);
	v = (v & (FS_INDEX_FL | FS_EXTENT_FL | FS_HUGE_FILE_FL)) | (unsigned)step->v[0];
	done(outcome, ioctl(fd, FS_IOC_SETFLAGS, &v));
	v = 0;
	if (!ioctl(fd, FS_IOC_GETFLAGS, &v))
		say(outcome, "flags %#x", v);
}

void run_fsxattr(struct side *side, const struct step *step, struct outcome *outcome)
{
	struct fsxattr x = { 0 };
	int fd = slot_fd(side, step, 0);

	done(outcome, ioctl(fd, FS_IOC_FSGETXATTR, &x));
	say(outcome, "get %ld: %#x %u %u %u", outcome->ret, x.fsx_xflags, x.fsx_extsize,
	    x.fsx_projid, x.fsx_cowextsize);
	if (step->v[3])
		return;
	x = (struct fsxattr){ .fsx_xflags = (unsigned)step->v[0],
			      .fsx_projid = (unsigned)step->v[1],
			      .fsx_extsize = (unsigned)step->v[2] };
	done(outcome, ioctl(fd, FS_IOC_FSSETXATTR, &x));
}
