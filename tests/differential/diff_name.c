/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Steps on names: making, linking, renaming and removing them, reading directories, file handles.
 */
#include "differential/diff.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

void run_mkdir(struct side *d, const struct step *s, struct outcome *o) { done(o, mkdirat(d->root, s->path[0], (mode_t)s->v[0])); }
void run_rmdir(struct side *d, const struct step *s, struct outcome *o) { done(o, unlinkat(d->root, s->path[0], AT_REMOVEDIR)); }
void run_unlink(struct side *d, const struct step *s, struct outcome *o) { done(o, unlinkat(d->root, s->path[0], 0)); }

void run_link(struct side *d, const struct step *s, struct outcome *o)
{
	done(o, linkat(d->root, s->path[0], d->root, s->path[1], (int)s->v[0]));
}

void run_link_fd(struct side *d, const struct step *s, struct outcome *o)
{
	char path[64];

	if (s->v[0]) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", slot_fd(d, s, 0));
		done(o, linkat(AT_FDCWD, path, d->root, s->path[1], AT_SYMLINK_FOLLOW));
	} else {
		done(o, linkat(slot_fd(d, s, 0), "", d->root, s->path[1], AT_EMPTY_PATH));
	}
}

void run_symlink(struct side *d, const struct step *s, struct outcome *o)
{
	static char filler[5000];
	const char *target = s->path[1];

	if (s->v[0]) {
		memset(filler, 'f', (size_t)s->v[0]);
		filler[s->v[0]] = '\0';
		target = filler;
	}
	done(o, symlinkat(target, d->root, s->path[0]));
}

void run_readlink(struct side *d, const struct step *s, struct outcome *o)
{
	char *buf = (char *)diff_arena;
	ssize_t n = readlinkat(d->root, s->path[0], buf, 8192);

	done(o, n);
	if (n > 0)
		say(o, "%.*s", (int)(n < 100 ? n : 100), buf);
}

void run_mknod(struct side *d, const struct step *s, struct outcome *o)
{
	done(o, mknodat(d->root, s->path[0], (mode_t)s->v[0], (dev_t)s->v[1]));
}

void run_rename(struct side *d, const struct step *s, struct outcome *o)
{
	done(o, renameat2(d->root, s->path[0], d->root, s->path[1], (unsigned)s->v[0]));
}

static int by_text(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Names and types, in an order of their own; and whether reading on from a remembered place gives what followed it. */
void run_readdir(struct side *d, const struct step *s, struct outcome *o)
{
	int fd = openat(d->root, s->path[0], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	static char *names[2000];
	unsigned n = 0, again = 0;
	long place = -1;
	uint64_t h = 1, rest = 0, rest2 = 0;
	struct dirent *e;

	done(o, dir ? 0 : -1);
	if (!dir)
		return;
	errno = 0;
	while (n < 2000 && (e = readdir(dir))) {
		if (place >= 0)
			rest = hash_bytes(rest, e->d_name, strlen(e->d_name));
		if (asprintf(&names[n], "%s/%d", e->d_name, e->d_type) < 0)
			break;
		if (++n == (unsigned)s->v[1] + 1)
			place = telldir(dir);
	}
	done(o, errno ? -1 : (long)n);
	if (place >= 0 && s->v[0]) {
		seekdir(dir, place);
		while ((e = readdir(dir)))
			rest2 = hash_bytes(rest2, e->d_name, strlen(e->d_name));
		say(o, "%s ", rest == rest2 ? "seekdir goes on" : "seekdir goes astray");
	}
	if (s->v[0] == 2) {
		rewinddir(dir);
		while (readdir(dir))
			again++;
		say(o, "again %u ", again);
	}
	qsort(names, n, sizeof(names[0]), by_text);
	for (unsigned k = 0; k < n; k++) {
		h = hash_bytes(h, names[k], strlen(names[k]));
		if (k < 12)
			say(o, "%.40s ", names[k]);
		free(names[k]);
	}
	say(o, "names %016" PRIx64, h);
	closedir(dir);
}

void run_handle(struct side *d, const struct step *s, struct outcome *o)
{
	union { struct file_handle h; char room[sizeof(struct file_handle) + MAX_HANDLE_SZ]; } u;
	struct stat st = { 0 };
	int id, fd;

	u.h.handle_bytes = MAX_HANDLE_SZ;
	done(o, name_to_handle_at(d->root, s->path[0], &u.h, &id, 0));
	if (o->ret < 0)
		return;
	fd = open_by_handle_at(d->top, &u.h, O_PATH | O_CLOEXEC);
	if (fd < 0)
		done(o, -1);
	else if (!fstat(fd, &st))
		say(o, "mode %o nlink %u size %lld", st.st_mode, (unsigned)st.st_nlink, (long long)st.st_size);
	if (fd >= 0)
		close(fd);
}

/* Many names in one directory, so that it grows, splits and shrinks. */
void run_many(struct side *d, const struct step *s, struct outcome *o)
{
	char path[PATH_CAP + 300], other[PATH_CAP + 300], pad[256];
	int err = 0, good = 0;
	size_t len = (size_t)s->v[2];

	memset(pad, 'm', sizeof(pad));
	pad[len] = '\0';
	for (int k = 0; k < s->v[1]; k++) {
		int r, fd;

		snprintf(path, sizeof(path), "%s/%s%d", s->path[0], pad, k);
		snprintf(other, sizeof(other), "%s/%s%d", s->path[0], pad, k + 1000);
		switch (s->v[0]) {
		case 0:
			r = fd = openat(d->root, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
			if (fd >= 0)
				close(fd);
			break;
		case 1: r = unlinkat(d->root, path, 0); break;
		case 2: r = mkdirat(d->root, path, 0755); break;
		case 3: r = unlinkat(d->root, path, AT_REMOVEDIR); break;
		default: r = renameat(d->root, path, d->root, other); break;
		}
		if (r < 0 && !err)
			err = errno;
		good += r >= 0;
	}
	o->ret = good;
	o->err = err;
}
