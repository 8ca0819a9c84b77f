/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Callers, see caller.h. Runs in the unmounter process: one thread, no locks, and no allocation,
 * because it runs after a fork. What cannot be read is answered with false.
 *
 * Two namespaces can make an answer wrong. FUSE passes process IDs of the PID namespace that the
 * mount was made in, which is ours; if /proc belongs to another PID namespace, the same ID there is
 * another process, so status_of refuses to answer. And a capability counts only within a user
 * namespace: any user can create one and hold every capability in it, so caller_capable requires
 * that the caller's user namespace is ours.
 */
#include "command/caller.h"

#include "command/mounts.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TEXT_CAP (1 << 20) /* fits 65,536 groups of up to ten digits */

static char text[TEXT_CAP];

/* The contents of a file of /proc, valid until the next call; NULL if it cannot be read. */
static const char *read_proc(const char *name)
{
	return mounts_read(name, text, sizeof(text)) ? text : NULL;
}

/*
 * The text after the name of a field in the text of /proc/PID/status; NULL: there is no such field.
 * name begins with a newline and ends with a colon.
 */
static const char *field(const char *status, const char *name)
{
	const char *p = status ? strstr(status, name) : NULL;

	return p ? p + strlen(name) : NULL;
}

/* Reads the next number of a field and moves *p behind it; false at the end of the line. */
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

/* The n-th number of a field; n begins at 0. */
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
 * True if the process IDs in /proc are those of our PID namespace: then NSpid lists a single ID for
 * this process. A kernel without PID namespaces has no such field.
 */
static bool numbers_are_ours(void)
{
	const char *status = read_proc("/proc/self/status");
	uint64_t number;

	return status && !nth_number(status, "\nNSpid:", 1, 10, &number);
}

/* The text of /proc/PID/status; NULL if it cannot be read or may belong to another process. */
static const char *status_of(uint32_t pid)
{
	char name[32];
	uint64_t listed;

	if (!pid || !numbers_are_ours())
		return NULL;
	snprintf(name, sizeof(name), "/proc/%" PRIu32 "/status", pid);
	const char *status = read_proc(name);
	return nth_number(status, "\nPid:", 0, 10, &listed) && listed == pid ? status : NULL;
}

bool caller_in_group(uint32_t pid, uint32_t gid)
{
	const char *p = field(status_of(pid), "\nGroups:");
	uint64_t group;

	while (p && next_number(&p, 10, &group))
		if (group == gid)
			return true;
	return false;
}

bool caller_ids(uint32_t pid, uint32_t *uid, uint32_t *gid)
{
	const char *status = status_of(pid);
	uint64_t user, group;

	if (!nth_number(status, "\nUid:", 3, 10, &user) ||
	    !nth_number(status, "\nGid:", 3, 10, &group))
		return false;
	*uid = (uint32_t)user;
	*gid = (uint32_t)group;
	return true;
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

	if (cap > 63 || !nth_number(status, "\nUid:", 3, 10, &fsuid) ||
	    (uid != CALLER_UNKNOWN_ID && fsuid != uid) ||
	    !nth_number(status, "\nCapEff:", 0, 16, &caps))
		return false;
	return (caps >> cap & 1) && in_our_user_namespace(pid);
}
