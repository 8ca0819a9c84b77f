/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Compares two whole trees: names, types, modes, owners, link counts, sizes, contents, link
 * targets, extended attributes, and times that were set to a value. Reads as root. Contents are
 * compared by the bytes that are not zero and their offsets: holes and unwritten blocks equal
 * zeroes, and a sparse file of terabytes takes no time.
 */
#include "differential/diff.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAX_NAMES 4000
#define MAX_DEPTH 40
#define CHUNK 65536

static unsigned nr_diffs;

static void __attribute__((format(printf, 2, 3))) report(const char *path, const char *fmt, ...)
{
	va_list ap;

	if (++nr_diffs > 20)
		return;
	printf("  tree: %s: ", path);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

static uint64_t content(int dir, const char *path, int *ret_err)
{
	int fd = openat(dir, path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	uint64_t h = 1;
	off_t at = 0, end;

	*ret_err = fd < 0 ? errno : 0;
	if (fd < 0)
		return 0;
	while ((at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		at &= ~(off_t)4095;
		while (at < end) {
			ssize_t n = pread(fd, diff_arena, CHUNK, at);

			if (n <= 0) {
				*ret_err = n ? errno : 0;
				break;
			}
			for (ssize_t k = 0; k < n; k += 512) {
				size_t part = n - k < 512 ? (size_t)(n - k) : 512;
				off_t place = at + k;

				if (all_zero(diff_arena + k, part))
					continue;
				/* Fills a short last piece with zeroes. */
				while (!diff_arena[(size_t)k + part - 1])
					part--;
				h = hash_bytes(hash_bytes(h, &place, sizeof(place)), diff_arena + k,
					       part);
			}
			at += n;
		}
		if (*ret_err || at < end)
			break;
	}
	close(fd);
	return h;
}

static uint64_t xattrs(int dir, const char *path)
{
	static char names[65536], link[64 + PATH_CAP];
	uint64_t sum = 0;
	ssize_t n, m;

	if (fchdir(dir))
		return 0;
	snprintf(link, sizeof(link), "%s", path);
	n = llistxattr(link, names, sizeof(names));
	for (const char *p = names; p < names + n; p += strlen(p) + 1) {
		m = lgetxattr(link, p, diff_arena, 65536);
		sum += hash_bytes(hash_bytes(1, p, strlen(p)), diff_arena, m > 0 ? (size_t)m : 0) +
		       (uint64_t)m;
	}
	return sum + (uint64_t)n;
}

static bool is_set(struct statx_timestamp t)
{
	return t.tv_sec < diff_run_start.tv_sec - 86400 || t.tv_sec > diff_run_start.tv_sec + 86400;
}

static void compare_time(const char *path, const char *what, struct statx_timestamp a,
			 struct statx_timestamp b)
{
	if ((is_set(a) || is_set(b)) && (a.tv_sec != b.tv_sec || a.tv_nsec != b.tv_nsec))
		report(path, "%s: fusedio %lld.%09u, ext4 %lld.%09u", what, (long long)a.tv_sec,
		       a.tv_nsec, (long long)b.tv_sec, b.tv_nsec);
}

static void compare_file(int a, int b, const char *path, const struct statx *x,
			 const struct statx *y)
{
	static char ta[4200], tb[4200];
	int ea, eb;

	if (x->stx_mode != y->stx_mode)
		report(path, "mode: fusedio %o, ext4 %o", x->stx_mode, y->stx_mode);
	if (x->stx_nlink != y->stx_nlink)
		report(path, "link count: fusedio %u, ext4 %u", x->stx_nlink, y->stx_nlink);
	if (x->stx_uid != y->stx_uid || x->stx_gid != y->stx_gid)
		report(path, "owner: fusedio %u:%u, ext4 %u:%u", x->stx_uid, x->stx_gid, y->stx_uid,
		       y->stx_gid);
	if (x->stx_size != y->stx_size)
		report(path, "size: fusedio %llu, ext4 %llu", (unsigned long long)x->stx_size,
		       (unsigned long long)y->stx_size);
	if (!S_ISFIFO(x->stx_mode))
		compare_time(path, "mtime", x->stx_mtime, y->stx_mtime);
	if (xattrs(a, path) != xattrs(b, path))
		report(path, "extended attributes differ");
	if (S_ISREG(x->stx_mode) && S_ISREG(y->stx_mode)) {
		uint64_t ha = content(a, path, &ea), hb = content(b, path, &eb);

		if (ha != hb || ea != eb)
			report(path,
			       "content: fusedio %016" PRIx64 " (%s), ext4 %016" PRIx64 " (%s)", ha,
			       strerror(ea), hb, strerror(eb));
	}
	memset(ta, 0, sizeof(ta));
	memset(tb, 0, sizeof(tb));
	if (S_ISLNK(x->stx_mode) &&
	    (readlinkat(a, path, ta, sizeof(ta) - 1) != readlinkat(b, path, tb, sizeof(tb) - 1) ||
	     strcmp(ta, tb)))
		report(path, "link target: fusedio %.100s, ext4 %.100s", ta, tb);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static char **list(int top, const char *path, unsigned *ret)
{
	int fd = openat(top, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	char **names = calloc(MAX_NAMES, sizeof(*names));
	struct dirent *e;

	*ret = 0;
	while (d && names && *ret < MAX_NAMES && (e = readdir(d)))
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))
			names[(*ret)++] = strdup(e->d_name);
	if (d)
		closedir(d);
	if (names)
		qsort(names, *ret, sizeof(*names), by_text);
	return names;
}

static void free_list(char **names, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		free(names[k]);
	free(names);
}

static void compare_dir(int a, int b, const char *path, unsigned depth)
{
	unsigned na, nb, k = 0, l = 0;
	char **la = list(a, path, &na), **lb = list(b, path, &nb), *sub = malloc(8192);

	while (sub && (k < na || l < nb)) {
		int order = k == na ? 1 : l == nb ? -1 : strcmp(la[k], lb[l]);
		const char *name = order <= 0 ? la[k] : lb[l];
		struct statx x, y;

		k += order <= 0;
		l += order >= 0;
		snprintf(sub, 8192, "%s%s%s", strcmp(path, ".") ? path : "",
			 strcmp(path, ".") ? "/" : "", name);
		if (order) {
			report(sub, "only on %s", order < 0 ? "fusedio" : "ext4");
			continue;
		}
		if (statx(a, sub, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &x) ||
		    statx(b, sub, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &y)) {
			report(sub, "stat: %s", strerror(errno));
			continue;
		}
		compare_file(a, b, sub, &x, &y);
		if (S_ISDIR(x.stx_mode) && S_ISDIR(y.stx_mode) && depth < MAX_DEPTH)
			compare_dir(a, b, sub, depth + 1);
	}
	free_list(la, na);
	free_list(lb, nb);
	free(sub);
}

unsigned diff_trees(int a, int b, bool verbose)
{
	nr_diffs = 0;
	compare_dir(a, b, ".", 0);
	if (nr_diffs > 20 || verbose)
		printf("  tree: %u differences\n", nr_diffs);
	return nr_diffs;
}

static void clear_flags(int top, const char *path)
{
	int fd = openat(top, path, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
	unsigned v;

	if (fd >= 0 && !ioctl(fd, FS_IOC_GETFLAGS, &v)) {
		v &= ~(unsigned)(FS_IMMUTABLE_FL | FS_APPEND_FL);
		ioctl(fd, FS_IOC_SETFLAGS, &v);
	}
	if (fd >= 0)
		close(fd);
}

bool diff_wipe(int top, const char *path)
{
	struct stat st;
	char **names, *sub;
	bool good = true;
	unsigned n;

	if (fstatat(top, path, &st, AT_SYMLINK_NOFOLLOW))
		return false;
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))
		clear_flags(top, path);
	if (!S_ISDIR(st.st_mode))
		return !unlinkat(top, path, 0);
	names = list(top, path, &n);
	sub = malloc(8192);
	for (unsigned k = 0; sub && k < n; k++) {
		snprintf(sub, 8192, "%s/%s", path, names[k]);
		good &= diff_wipe(top, sub);
	}
	free(sub);
	free_list(names, n);
	return !unlinkat(top, path, AT_REMOVEDIR) && good;
}
