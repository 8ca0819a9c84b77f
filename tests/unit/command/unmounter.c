/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The unmounter process, with a file system of memory in place of ours: what it takes away, and
 * what a daemon that somebody has taken over cannot make it take away. And what it says of callers.
 * In a mount namespace, and without root in a user namespace, of its own; where there is neither,
 * nothing is tested.
 */
#include "command/unmounter.h"
#include "kit/runner.h"

#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define CANNOT 77
#define MUST(e) do { if (!(e)) return __LINE__ % 70 + 1; } while (0)

static char point[] = "/tmp/check_unmounter.XXXXXX";

static bool write_line(const char *file, const char *line)
{
	FILE *f = fopen(file, "w");
	bool ok = f && fputs(line, f) >= 0;

	return f ? !fclose(f) && ok : false;
}

/* Root of a user namespace. */
static bool become_root(void)
{
	char uids[40], gids[40];

	snprintf(uids, sizeof(uids), "0 %u 1", geteuid());
	snprintf(gids, sizeof(gids), "0 %u 1", getegid());
	return !unshare(CLONE_NEWUSER | CLONE_NEWNS) &&
	       write_line("/proc/self/setgroups", "deny") &&
	       write_line("/proc/self/uid_map", uids) && write_line("/proc/self/gid_map", gids);
}

static bool enter_namespaces(void)
{
	if (unshare(CLONE_NEWNS) && !become_root())
		return false;
	return !mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) &&
	       !mount("none", point, "tmpfs", 0, NULL);
}

/* How many lines of the table of mounts name the place. */
static unsigned mounts_there(void)
{
	FILE *f = fopen("/proc/self/mounts", "r");
	static char line[4096];
	unsigned n = 0;

	while (f && fgets(line, sizeof(line), f))
		n += strstr(line, point) != NULL;
	if (f)
		fclose(f);
	return n;
}

static struct unmounter *start(void)
{
	struct unmounter *unmounter;
	char err[300];

#ifdef FDIO_SANITIZED
	const bool filter = false; /* a sanitizer's own calls would meet it */
#else
	const bool filter = true;
#endif

	return unmounter_new(point, filter, &unmounter, FDIO_REASON(err)) ? NULL : unmounter;
}

/* One mount is there already. */
static int takes_away_its_own(void)
{
	struct unmounter *unmounter = start();

	/* it was not told of any */
	MUST(unmounter && unmounter_do(unmounter, true) < 0 && mounts_there() == 1);
	unmounter_mounted(unmounter);
	MUST(unmounter_do(unmounter, true) == 0 && mounts_there() == 0);
	MUST(unmounter_do(unmounter, true) < 0);
	unmounter_free(unmounter);
	return 0;
}

/* What was mounted over it later is another's, whatever the daemon says then. */
static int is_told_once(void)
{
	struct unmounter *unmounter = start();

	MUST(unmounter);
	unmounter_mounted(unmounter);
	MUST(!mount("others", point, "tmpfs", 0, NULL) && mounts_there() == 2);
	MUST(unmounter_do(unmounter, true) < 0 && mounts_there() == 2);
	unmounter_mounted(unmounter);
	MUST(unmounter_do(unmounter, true) < 0 && mounts_there() == 2);
	unmounter_free(unmounter);
	return 0;
}

/* When ours is gone the kernel gives its numbers to the next mount, which is another's. */
static int knows_its_own_when_numbers_return(void)
{
	struct unmounter *unmounter = start();

	MUST(unmounter);
	unmounter_mounted(unmounter);
	MUST(!umount(point) && !mount("others", point, "tmpfs", 0, NULL));
	MUST(unmounter_do(unmounter, true) < 0 && mounts_there() == 1);
	unmounter_free(unmounter);
	return 0;
}

/* We ourselves have the capability, by our own number, as the user that we are. */
static int knows_capabilities(void)
{
	struct unmounter *unmounter = start();
	uint32_t me = (uint32_t)getpid();

	MUST(unmounter);
	MUST(unmounter_capable(unmounter, me, geteuid(), CAP_SYS_ADMIN));
	MUST(!unmounter_capable(unmounter, me, geteuid() + 1, CAP_SYS_ADMIN));
	MUST(!unmounter_capable(unmounter, me, geteuid(), 63) &&
	     !unmounter_capable(unmounter, me, geteuid(), 64));
	MUST(!unmounter_capable(unmounter, 0, geteuid(), CAP_SYS_ADMIN));
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct none[2] = { { 0 } };
	MUST(!syscall(SYS_capset, &head, none));
	MUST(!unmounter_capable(unmounter, me, geteuid(), CAP_SYS_ADMIN));
	unmounter_free(unmounter);
	return 0;
}

static int (*const cases[])(void) = { takes_away_its_own, is_told_once,
				      knows_its_own_when_numbers_return, knows_capabilities };

START_TEST(in_namespaces)
{
	int status;
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (!pid)
		_exit(enter_namespaces() ? cases[_i]() : CANNOT);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	if (WEXITSTATUS(status) == CANNOT)
		printf("case %d is skipped: no namespaces\n", _i);
	else
		ck_assert_msg(!WEXITSTATUS(status), "case %d: see line %d (modulo 70)", _i,
			      WEXITSTATUS(status) - 1);
}
END_TEST

static void make_point(void) { ck_assert_ptr_nonnull(mkdtemp(point)); }
static void remove_point(void) { rmdir(point); }

Suite *unit_suite(void)
{
	Suite *s = suite_create("command: unmounter");
	TCase *t = unit_case(s, "unmounter", 60);

	tcase_add_unchecked_fixture(t, make_point, remove_point);
	unit_loop(t, in_namespaces, 0, (int)ARRAY_SIZE(cases));
	return s;
}
