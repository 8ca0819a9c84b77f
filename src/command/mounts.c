/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tables of mounts, see mounts.h. Runs in the unmounter process, whose filter allows openat,
 * read, getdents64 and close, and while starting in the main thread. No state, no locks, and no
 * allocation: hence getdents64 instead of readdir. Numbers are not read with sscanf, which would
 * look for the end of the whole table for each line.
 */
#include "command/mounts.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NAMED_MAX 3u          /* processes that are named; the others are only counted */
#define PROCESSES_MAX 100000u /* processes that are examined */

bool mounts_read(const char *name, char *text, size_t cap)
{
	size_t n = 0;
	ssize_t r;
	int fd = open(name, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	while (n < cap - 1 && (r = read(fd, text + n, cap - 1 - n)) > 0)
		n += (size_t)r;
	text[n] = '\0';
	close(fd);
	return true;
}

/* Reads a number and the character behind it, and moves *at behind both. */
static bool number(const char **at, char behind, unsigned *ret)
{
	char *end;

	*ret = (unsigned)strtoul(*at, &end, 10);
	if (end == *at || *end != behind)
		return false;
	*at = end + 1;
	return true;
}

/* A line is "36 35 98:0 /root /path options optional-fields - type source ...". */
static bool parse(const char *line, struct mount_line *ret)
{
	if (!number(&line, ' ', &ret->id) || !number(&line, ' ', &ret->parent) ||
	    !number(&line, ':', &ret->dev[0]) || !number(&line, ' ', &ret->dev[1]))
		return false;
	line += strcspn(line, " \n");
	ret->path = line + 1;
	if (*line != ' ')
		return false;
	while (*line == ' ' && strncmp(line, " - ", 3))
		line += 1 + strcspn(line + 1, " \n");
	ret->source = *line == ' ' ? line + 3 : "";
	return true;
}

/* The length of type and source. */
static size_t source_length(const char *source)
{
	size_t n = strcspn(source, " \n");

	return source[n] == ' ' ? n + 1 + strcspn(source + n + 1, " \n") : n;
}

bool mounts_same_source(const char *a, const char *b)
{
	size_t n = source_length(a);

	return n == source_length(b) && !strncmp(a, b, n);
}

const char *mounts_next(const char *rest, struct mount_line *ret)
{
	while (rest && *rest) {
		const char *end = strchr(rest, '\n');
		bool ok = parse(rest, ret);

		rest = end ? end + 1 : "";
		if (ok)
			return rest;
	}
	return NULL;
}

/* Decodes one character of a field. Returns how many characters it takes in the table. */
static unsigned decode(const char *p, char *ret)
{
	*ret = *p;
	if (*p != '\\' || !p[1] || !p[2] || !p[3])
		return 1;
	*ret = (char)((p[1] - '0') << 6 | (p[2] - '0') << 3 | (p[3] - '0'));
	return 4;
}

bool mounts_path(const struct mount_line *line, char *out, size_t cap)
{
	size_t n = 0;

	for (const char *p = line->path; *p && *p != ' ' && *p != '\n';) {
		if (n + 1 >= cap)
			return false;
		p += decode(p, &out[n++]);
	}
	out[n] = '\0';
	return true;
}

bool mounts_is_path(const struct mount_line *line, const char *path)
{
	for (const char *p = line->path; *p && *p != ' ' && *p != '\n'; path++) {
		char c;

		p += decode(p, &c);
		if (c != *path)
			return false;
	}
	return !*path;
}

/* Finds the first mount of the file system dev in the table. */
static bool has_dev(const char *text, const unsigned dev[2], struct mount_line *line)
{
	while ((text = mounts_next(text, line)))
		if (line->dev[0] == dev[0] && line->dev[1] == dev[1])
			return true;
	return false;
}

/* Appends " (NAME)", the name of the process; a character that is not printable becomes '?'. */
static size_t add_name(unsigned pid, char *out, size_t n, size_t cap)
{
	char name[32], comm[32];

	snprintf(name, sizeof(name), "/proc/%u/comm", pid);
	if (!mounts_read(name, comm, sizeof(comm)))
		return n;
	comm[strcspn(comm, "\n")] = '\0';
	for (char *p = comm; *p; p++)
		*p = isprint((unsigned char)*p) ? *p : '?';
	return n + (size_t)snprintf(out + n, cap - n, " (%s)", comm);
}

/* The processes found so far: nr of them, of which the first few are named in out. */
struct found { unsigned nr; size_t len; char *out; size_t cap; };

/* Adds the process if its mount namespace has the file system. */
static void check_process(unsigned pid, const unsigned dev[2], char *text, size_t textcap,
			  struct found *found)
{
	struct mount_line line;
	char name[32];

	snprintf(name, sizeof(name), "/proc/%u/mountinfo", pid);
	if (!mounts_read(name, text, textcap) || !has_dev(text, dev, &line) ||
	    found->nr++ >= NAMED_MAX || found->cap - found->len < 64)
		return;
	found->len += (size_t)snprintf(found->out + found->len, found->cap - found->len, "%s%u",
				       found->len ? ", " : "in the mount namespace of process ",
				       pid);
	found->len = add_name(pid, found->out, found->len, found->cap);
}

static void check_all_processes(const unsigned dev[2], char *text, size_t textcap,
				struct found *found)
{
	char names[2048] __attribute__((aligned(8)));
	int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	unsigned seen = 0;
	long n;

	while (fd >= 0 && seen < PROCESSES_MAX &&
	       (n = syscall(SYS_getdents64, fd, names, sizeof(names))) > 0)
		for (long at = 0; at < n && seen < PROCESSES_MAX;) {
			const struct dirent *d = (const void *)(names + at);

			at += d->d_reclen;
			if (!isdigit((unsigned char)d->d_name[0]))
				continue;
			seen++;
			check_process((unsigned)strtoul(d->d_name, NULL, 10), dev, text, textcap,
				      found);
		}
	if (fd >= 0)
		close(fd);
}

bool mounts_holders(const unsigned dev[2], char *text, size_t textcap, char *out, size_t cap)
{
	struct found found = { .out = out, .cap = cap };
	struct mount_line line;
	char where[256];

	out[0] = '\0';
	/* If this namespace has the mount, so has every process here: report the path instead. */
	if (mounts_read("/proc/self/mountinfo", text, textcap) && has_dev(text, dev, &line)) {
		snprintf(out, cap, "on %s",
			 mounts_path(&line, where, sizeof(where)) ? where : "a long path");
		return true;
	}
	check_all_processes(dev, text, textcap, &found);
	if (found.nr > NAMED_MAX)
		snprintf(out + found.len, cap - found.len, " and %u more", found.nr - NAMED_MAX);
	return found.nr;
}
