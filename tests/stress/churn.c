/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Many processes create, write, read, truncate, punch, rename, link and remove files in one small
 * tree. The stress test runs it together with other loads. The bytes of a file depend only on the
 * file and the offset, so it checks that each byte it reads is that one or zero: blocks of other
 * files and old contents would show. And no call may fail with an error that has no cause here.
 *
 *   churn DIR SEED SECONDS PROCESSES [dying]
 *     dying: the mount may end under it; errors are no failure then, only a process that hangs is.
 *
 * Prints "ok OPERATIONS ERRORS" and exits with 0; if a process finds a fault, it prints it, and the
 * exit status is 1. No threads.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#ifndef FALLOC_FL_KEEP_SIZE
#define FALLOC_FL_KEEP_SIZE 1
#define FALLOC_FL_PUNCH_HOLE 2
#define FALLOC_FL_ZERO_RANGE 16
#endif

enum { PAGE = 4096, SECTOR = 512, MAX_FILE = 1 << 20, MAX_IO = 64 << 10, NAMES = 24, DIRS = 6 };

static uint64_t rng;
static int dying;
static unsigned char *buf;
static unsigned long nr_ops, nr_errors;
static sigjmp_buf on_bus;
static char last_op[256];

static uint32_t below(uint32_t n)
{
	rng = rng * 6364136223846793005ULL + 1442695040888963407ULL;
	return n ? (uint32_t)(rng >> 33) % n : 0;
}

static void wrong(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "churn: %s: ", last_op);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputs("\n", stderr);
	_exit(1);
}

/*
 * Takes the result of a call. Returns whether it succeeded; it may fail only with an error that
 * occurs when other processes change the same tree.
 */
static int fine(long r)
{
	static const int usual[] = { ENOENT, EEXIST, ENOTDIR, EISDIR,     ENOTEMPTY, ENOSPC,
				     EINVAL, EMLINK, ENXIO,   ELOOP,      ENODATA,   EBUSY,
				     EXDEV,  EDQUOT, ETXTBSY, EOPNOTSUPP, EPERM,     ESPIPE };
	size_t i;

	nr_ops++;
	if (r >= 0)
		return 1;
	nr_errors++;
	for (i = 0; i < sizeof usual / sizeof *usual; i++)
		if (errno == usual[i])
			return 0;
	if (dying) /* the mount has ended: all later calls fail as well */
		_exit(0);
	wrong("%s", strerror(errno));
	return 0;
}

static unsigned char byte_of(uint64_t ino, uint64_t off)
{
	return (unsigned char)(1 + (ino * 31 + off / SECTOR * 7 + off % 11) % 255);
}

static void fill(uint64_t ino, uint64_t off, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = byte_of(ino, off + i);
}

static void check(const unsigned char *p, uint64_t ino, uint64_t off, ssize_t n)
{
	for (ssize_t i = 0; i < n; i++)
		if (p[i] && p[i] != byte_of(ino, off + (uint64_t)i))
			wrong("inode %llu has %02x at %llu, not %02x or zero",
			      (unsigned long long)ino, p[i], (unsigned long long)off + (uint64_t)i,
			      byte_of(ino, off + (uint64_t)i));
}

static const char *some_dir(char *s, size_t n)
{
	uint32_t d = below(DIRS + 2);

	if (d < 2)
		snprintf(s, n, ".");
	else if (d < 5)
		snprintf(s, n, "d%u", d - 2);
	else
		snprintf(s, n, "d%u/e%u", below(3), d - 5);
	return s;
}

static const char *some_name(char *s, size_t n)
{
	char dir[32];
	uint32_t k = below(NAMES);

	some_dir(dir, sizeof dir);
	/* Some names are long, so that directories have many blocks. */
	snprintf(s, n, "%s/%c%u%s", dir, 'a' + (char)(k % 4), k,
		 k % 5 ? "" : "-with-a-name-that-is-rather-longer-than-most-others-are-here");
	return s;
}

static uint64_t ino_of(int fd)
{
	struct stat st;

	return fine(fstat(fd, &st)) ? st.st_ino : 0;
}

static void write_some(int fd, int direct)
{
	uint64_t ino = ino_of(fd), off = below(MAX_FILE);
	size_t n = 1 + below(below(4) ? 8192 : MAX_IO);

	if (direct) {
		off = off / SECTOR * SECTOR;
		n = (n + SECTOR - 1) / SECTOR * SECTOR;
	}
	fill(ino, off, n);
	fine(pwrite(fd, buf, n, (off_t)off));
}

static void read_some(int fd, int direct)
{
	uint64_t ino = ino_of(fd), off = below(MAX_FILE);
	size_t n = 1 + below(MAX_IO);
	ssize_t got;

	if (direct) {
		off = off / SECTOR * SECTOR;
		n = (n + SECTOR - 1) / SECTOR * SECTOR;
	}
	got = pread(fd, buf, n, (off_t)off);
	if (fine(got))
		check(buf, ino, off, got);
}

static void map_some(int fd)
{
	struct stat st;
	unsigned char *p;
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), off; /* where mappings begin */

	if (!fine(fstat(fd, &st)) || st.st_size < (off_t)page)
		return;
	off = below((uint32_t)((uint64_t)st.st_size / page)) * page;
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)off);
	if (p == MAP_FAILED) {
		fine(-1);
		return;
	}
	/* SIGBUS: another process may truncate the file, or the mount may end. */
	if (!sigsetjmp(on_bus, 1)) {
		check(p, st.st_ino, off, PAGE);
		fill(st.st_ino, off, PAGE);
		memcpy(p + 100, buf + 100, 1000);
		if (below(4) == 0)
			fine(msync(p, PAGE, MS_SYNC));
	}
	munmap(p, PAGE);
}

static void reshape(int fd)
{
	static const int modes[] = { 0, FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				     FALLOC_FL_ZERO_RANGE };

	if (below(2))
		fine(ftruncate(fd, below(MAX_FILE)));
	else
		fine(fallocate(fd, modes[below(4)], below(MAX_FILE), 1 + below(MAX_IO)));
}

static void do_file(const char *name)
{
	int direct = below(3) == 0, fd;
	static const int extra[] = {
		0, O_CREAT, O_CREAT, O_CREAT | O_EXCL, O_TRUNC, O_DSYNC, O_SYNC
	};

	fd = open(name, O_RDWR | extra[below(7)] | (direct ? O_DIRECT : 0), 0644);
	if (!fine(fd))
		return;
	for (uint32_t i = below(6); i; i--) {
		switch (below(7)) {
		case 0: case 1: write_some(fd, direct); break;
		case 2: case 3: read_some(fd, direct); break;
		case 4: map_some(fd); break;
		case 5: reshape(fd); break;
		default: fine(below(2) ? fsync(fd) : fdatasync(fd)); break;
		}
	}
	if (below(10) == 0)
		fine(unlink(name)); /* the file is used while it has no name */
	if (below(2))
		read_some(fd, direct);
	close(fd);
}

static void do_names(const char *a, const char *b)
{
	char target[200];
	struct stat st;

	switch (below(12)) {
	case 0: fine(mkdir(a, 0755)); break;
	case 1: fine(rmdir(a)); break;
	case 2: case 3: fine(unlink(a)); break;
	case 4: fine(link(a, b)); break;
	case 5: fine(symlink(b, a)); break;
	case 6: fine(rename(a, b)); break;
	case 7: fine(syscall(SYS_renameat2, AT_FDCWD, a, AT_FDCWD, b, 1 << below(2))); break;
	case 8: fine(readlink(a, target, sizeof target)); break;
	case 9: fine(mknod(a, S_IFIFO | 0600, 0)); fine(unlink(a)); break;
	default: fine(lstat(a, &st)); break;
	}
}

static void do_attrs(const char *a)
{
	static const char *const names[] = { "user.one", "user.two", "trusted.three" };
	char value[600];
	struct timespec ts[2] = { { .tv_sec = below(1u << 30) }, { .tv_nsec = UTIME_NOW } };
	struct statvfs sv;

	memset(value, 'v', sizeof value);
	switch (below(7)) {
	case 0: fine(chmod(a, 0600 | below(0200))); break;
	case 1: fine(lchown(a, below(3), below(3))); break;
	case 2: fine(utimensat(AT_FDCWD, a, ts, AT_SYMLINK_NOFOLLOW)); break;
	case 3: fine(setxattr(a, names[below(3)], value, below(sizeof value), 0)); break;
	case 4: fine(getxattr(a, names[below(3)], value, sizeof value)); break;
	case 5: fine(removexattr(a, names[below(3)])); break;
	default: fine(statvfs(a, &sv)); break;
	}
}

static void do_list(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	int n = 0;

	if (!fine(d ? 0 : -1))
		return;
	while (errno = 0, (e = readdir(d)))
		n++;
	fine(errno ? -1 : 0);
	if (n < 2 && !dying && !errno) {
		struct stat st;

		if (!fstat(dirfd(d), &st) && st.st_nlink)
			wrong("%s has %d entries", dir, n);
	}
	if (below(4) == 0)
		fine(fsync(dirfd(d)));
	closedir(d);
}

static void do_tmpfile(const char *dir, const char *name)
{
	int fd = open(dir, O_TMPFILE | O_RDWR, 0600);
	char proc[64];

	if (!fine(fd))
		return;
	write_some(fd, 0);
	read_some(fd, 0);
	snprintf(proc, sizeof proc, "/proc/self/fd/%d", fd);
	if (below(2))
		fine(linkat(AT_FDCWD, proc, AT_FDCWD, name, AT_SYMLINK_FOLLOW));
	close(fd);
}

static void bus(int sig)
{
	siglongjmp(on_bus, sig);
}

static void work(uint64_t seed, long seconds)
{
	time_t end = time(NULL) + seconds;
	char a[256], b[256], d[64];

	rng = seed * 0x9e3779b97f4a7c15ULL + 1;
	buf = aligned_alloc(PAGE, MAX_IO + PAGE);
	if (!buf)
		wrong("no memory");
	signal(SIGBUS, bus);
	while (time(NULL) < end) {
		uint32_t k = below(20);

		some_name(a, sizeof a);
		some_name(b, sizeof b);
		some_dir(d, sizeof d);
		snprintf(last_op, sizeof last_op, "operation %lu of seed %llu, kind %u, %.100s",
			 nr_ops, (unsigned long long)seed, k, a);
		if (k < 10)
			do_file(a);
		else if (k < 15)
			do_names(a, b);
		else if (k < 17)
			do_attrs(a);
		else if (k < 19)
			do_list(d);
		else
			do_tmpfile(d, a);
	}
}

int main(int argc, char **argv)
{
	long seconds, processes;
	uint64_t seed;
	unsigned long all[2], sum[2] = { 0, 0 };
	int status, bad = 0, p[2];

	if (argc < 5) {
		fputs("usage: churn DIR SEED SECONDS PROCESSES [dying]\n", stderr);
		return 2;
	}
	seed = strtoull(argv[2], NULL, 0);
	seconds = atol(argv[3]);
	processes = atol(argv[4]);
	dying = argc > 5;
	if (chdir(argv[1]) || pipe(p)) {
		perror("churn");
		return 1;
	}
	for (int i = 0; i < 3; i++) {
		char d[16];

		for (int k = -1; k < 3; k++) {
			snprintf(d, sizeof d, k < 0 ? "d%d" : "d%d/e%d", i, k);
			if (mkdir(d, 0755) && errno != EEXIST && !dying)
				perror(d);
		}
	}
	for (long i = 0; i < processes; i++) {
		pid_t pid = fork();

		if (pid < 0)
			return 1;
		if (!pid) {
			work(seed + (uint64_t)i, seconds);
			all[0] = nr_ops;
			all[1] = nr_errors;
			_exit(write(p[1], all, sizeof all) != sizeof all);
		}
	}
	close(p[1]);
	while (read(p[0], all, sizeof all) == sizeof all) {
		sum[0] += all[0];
		sum[1] += all[1];
	}
	while (wait(&status) > 0)
		if (status) {
			fprintf(stderr, "churn: a process ended with status %x\n", status);
			bad = 1;
		}
	if (!bad)
		printf("ok %lu %lu\n", sum[0], sum[1]);
	return bad;
}
