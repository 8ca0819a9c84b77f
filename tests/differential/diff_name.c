/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Steps on names: creating, linking, renaming and removing them, reading directories, file handles.
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

void run_mkdir(struct side *side, const struct step *step, struct outcome *outcome)
{
	done(outcome, mkdirat(side->root, step->path[0], (mode_t)step->v[0]));
}
void run_rmdir(struct side *side, const struct step *step, struct outcome *outcome)
{
	done(outcome, unlinkat(side->root, step->path[0], AT_REMOVEDIR));
}
void run_unlink(struct side *side, const struct step *step, struct outcome *outcome)
{
	done(outcome, unlinkat(side->root, step->path[0], 0));
}

void run_link(struct side *side, const struct step *step, struct outcome *outcome)
{
	done(outcome,
	     linkat(side->root, step->path[0], side->root, step->path[1], (int)step->v[0]));
}

void run_link_fd(struct side *side, const struct step *step, struct outcome *outcome)
{
	char path[64];

	if (step->v[0]) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", slot_fd(side, step, 0));
		done(outcome, linkat(AT_FDCWD, path, side->root, step->path[1], AT_SYMLINK_FOLLOW));
	} else {
		done(outcome,
		     linkat(slot_fd(side, step, 0), "", side->root, step->path[1], AT_EMPTY_PATH));
	}
}

void run_symlink(struct side *side, const struct step *step, struct outcome *outcome)
{
	static char filler[5000];
	const char *target = step->path[1];

	if (step->v[0]) {
		memset(filler, 'f', (size_t)step->v[0]);
		filler[step->v[0]] = '\0';
		target = filler;
	}
	done(outcome, symlinkat(target, side->root, step->path[0]));
}

void run_readlink(struct side *side, const struct step *step, struct outcome *outcome)
{
	char *buf = (char *)diff_arena;
	ssize_t n = readlinkat(side->root, step->path[0], buf, 8192);

	done(outcome, n);
	if (n > 0)
		say(outcome, "%.*s", (int)(n < 100 ? n : 100), buf);
}

void run_mknod(struct side *side, const struct step *step, struct outcome *outcome)
{
	done(outcome, mknodat(side->root, step->path[0], (mode_t)step->v[0], (dev_t)step->v[1]));
}

void run_rename(struct side *side, const struct step *step, struct outcome *outcome)
{
	done(outcome,
	     renameat2(side->root, step->path[0], side->root, step->path[1], (unsigned)step->v[0]));
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/*
 * Compares names and types, whose order is not defined. And checks that reading on from a
 * remembered position returns the entry that followed it.
 */
void run_readdir(struct side *side, const struct step *step, struct outcome *outcome)
{
	int fd = openat(side->root, step->path[0],
			O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	static char *names[2000];
	unsigned n = 0, again = 0;
	long place = -1;
	uint64_t h = 1, rest = 0, rest2 = 0;
	struct dirent *e;

	done(outcome, dir ? 0 : -1);
	if (!dir)
		return;
	errno = 0;
	while (n < 2000 && (e = readdir(dir))) {
		if (place >= 0)
			rest = hash_bytes(rest, e->d_name, strlen(e->d_name));
		if (asprintf(&names[n], "%s/%d", e->d_name, e->d_type) < 0)
			break;
		if (++n == (unsigned)step->v[1] + 1)
			place = telldir(dir);
	}
	done(outcome, errno ? -1 : (long)n);
	if (place >= 0 && step->v[0]) {
		seekdir(dir, place);
		while ((e = readdir(dir)))
			rest2 = hash_bytes(rest2, e->d_name, strlen(e->d_name));
		say(outcome, "%s ", rest == rest2 ? "seekdir goes on" : "seekdir goes astray");
	}
	if (step->v[0] == 2) {
		rewinddir(dir);
		while (readdir(dir))
			again++;
		say(outcome, "again %u ", again);
	}
	qsort(names, n, sizeof(names[0]), by_text);
	for (unsigned k = 0; k < n; k++) {
		h = hash_bytes(h, names[k], strlen(names[k]));
		if (k < 12)
			say(outcome, "%.40s ", names[k]);
		free(names[k]);
	}
	say(outcome, "names %016" PRIx64, h);
	closedir(dir);
}

void run_handle(struct side *side, const struct step *step, struct outcome *outcome)
{
	union { struct file_handle h; char room[sizeof(struct file_handle) + MAX_HANDLE_SZ]; } u;
	struct stat st = { 0 };
	int id, fd;

	u.h.handle_bytes = MAX_HANDLE_SZ;
	done(outcome, name_to_handle_at(side->root, step->path[0], &u.h, &id, 0));
	if (outcome->ret < 0)
		return;
	fd = open_by_handle_at(side->top, &u.h, O_PATH | O_CLOEXEC);
	if (fd < 0)
		done(outcome, -1);
	else if (!fstat(fd, &st))
		say(outcome, "mode %o nlink %u size %lld", st.st_mode, (unsigned)st.st_nlink,
		    (long long)st.st_size);
	if (fd >= 0)
		close(fd);
}

/* Creates or removes many names in one directory, so that it grows, splits and shrinks. */
void run_many(struct side *side, const struct step *step, struct outcome *outcome)
{
	char path[PATH_CAP + 300], other[PATH_CAP + 300], pad[256];
	int err = 0, good = 0;
	size_t len = (size_t)step->v[2];

	memset(pad, 'm', sizeof(pad));
	pad[len] = '\0';
	for (int k = 0; k < step->v[1]; k++) {
		int r, fd;

		snprintf(path, sizeof(path), "%s/%s%d", step->path[0], pad, k);
		snprintf(other, sizeof(other), "%s/%s%d", step->path[0], pad, k + 1000);
		switch (step->v[0]) {
		case 0:
			r = fd = openat(side->root, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
			if (fd >= 0)
				close(fd);
			break;
		case 1: r = unlinkat(side->root, path, 0); break;
		case 2: r = mkdirat(side->root, path, 0755); break;
		case 3: r = unlinkat(side->root, path, AT_REMOVEDIR); break;
		default: r = renameat(side->root, path, side->root, other); break;
		}
		if (r < 0 && !err)
			err = errno;
		good += r >= 0;
	}
	outcome->ret = good;
	outcome->err = err;
}
