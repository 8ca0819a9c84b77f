/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Callers, see caller.h. Runs in the unmounter process: one thread, no locks, and no allocation,
 * because it runs after a fork.
 *
 * Process numbers are those of the namespace that the mount was made in, which is ours; /proc may
 * be of another one, where the same number is somebody else's. Capabilities hold in the user
 * namespace of whoever has them, and everybody has all of them in a namespace of his own, so that
 * namespace must be ours. Both are looked at for each question. What cannot be read is answered
 * with false.
 */
#include "command/caller.h"

#include "command/mounts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TEXT_CAP (1 << 20) /* 65536 groups of ten digits and more; thousands of mounts */

static char text[TEXT_CAP];

/* A file of /proc, which is there until the next call; NULL if it cannot be read. */
static const char *read_proc(const char *name)
{
	return mounts_read(name, text, sizeof(text)) ? text : NULL;
}

/*
 * What follows the name of a field; names begin with a newline and end with a colon. NULL: there is
 * no such field.
 */
static const char *field(const char *status, const char *name)
{
	const char *p = status ? strstr(status, name) : NULL;

	return p ? p + strlen(name) : NULL;
}

/* The next number of a field, in this base; false at the end of its line. */
static bool next_number(const char **p, int base, uint64_t *ret)
{
	char *end;

	while (**p == ' ' || **p == '\t')
		++*p;
	if (**p == '\n' || **p == '\0' || **p == '-')
		return false;
	*ret = strtoull(*p, &end, base);
	if (end == *p)
		return false;
	*p = end;
	return true;
}

/* The n-th number of a field, from 0. */
static bool nth_number(const char *status, const char *name, unsigned n, int base, uint64_t *ret)
{
	const char *p = field(status, name);

	if (!p)
		return false;
	for (unsigned i = 0; i <= n; i++)
		if (!next_number(&p, base, ret))
			return false;
	return true;
}

/*
 * Process numbers in /proc are ours: it knows us by one number only. Without such namespaces the
 * field is not there.
 */
static bool numbers_are_ours(void)
{
	const char *status = read_proc("/proc/self/status");
	uint64_t number;

	return status && !nth_number(status, "\nNSpid:", 1, 10, &number);
}

static const char *status_of(uint32_t pid)
{
	char name[32];
	uint64_t said;

	if (!pid || !numbers_are_ours())
		return NULL;
	snprintf(name, sizeof(name), "/proc/%" PRIu32 "/status", pid);
	const char *status = read_proc(name);
	return nth_number(status, "\nPid:", 0, 10, &said) && said == pid ? status : NULL;
}

bool caller_in_group(uint32_t pid, uint32_t gid)
{
	const char *p = field(status_of(pid), "\nGroups:");
	uint64_t g;

	while (p && next_number(&p, 10, &g))
		if (g == gid)
			return true;
	return false;
}

static bool in_our_user_namespace(uint32_t pid)
{
	struct stat ours, theirs;
	char name[40];

	if (stat("/proc/self/ns/user", &ours))
		return false;
	snprintf(name, sizeof(name), "/proc/%" PRIu32 "/ns/user", pid);
	return !stat(name, &theirs) && theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino;
}

bool caller_capable(uint32_t pid, uint32_t uid, unsigned cap)
{
	const char *status = status_of(pid);
	uint64_t fsuid, caps;

	if (cap > 63 || !nth_number(status, "\nUid:", 3, 10, &fsuid) || fsuid != uid ||
	    !nth_number(status, "\nCapEff:", 0, 16, &caps))
		return false;
	return (caps >> cap & 1) && in_our_user_namespace(pid);
}
