/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The unmounter process, with a tmpfs in place of our mount: it unmounts that, and not even a
 * daemon that was taken over can make it unmount another mount; and what it answers about callers.
 * Each case runs in a mount namespace of its own, and without root in a user namespace of its own;
 * where neither can be made, the case is skipped.
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

#define CANNOT 77 /* exit status: no namespaces */
/* In a case: ends it with a status that names the line. */
#define MUST(e) do { if (!(e)) return __LINE__ % 70 + 1; } while (0)

static char point[] = "/tmp/check_unmounter.XXXXXX";

static bool write_line(const char *file, const char *line)
{
	FILE *f = fopen(file, "w");
	bool ok = f && fputs(line, f) >= 0;

	return f ? !fclose(f) && ok : false;
}

/* Becomes root of a new user namespace, with a new mount namespace. */
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

/* How many mounts are on point. */
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
	const bool filter = false; /* a sanitizer's own calls would meet the filter */
#else
	const bool filter = true;
#endif

	return unmounter_new(point, filter, &unmounter, FDIO_REASON(err)) ? NULL : unmounter;
}

/* It unmounts the mount that it was told of, once; before it was told, nothing. */
static int unmounts_its_own(void)
{
	struct unmounter *unmounter = start();

	/* the tmpfs of enter_namespaces, of which it has not been told yet */
	MUST(unmounter && unmounter_do(unmounter, true) < 0 && mounts_there() == 1);
	unmounter_mounted(unmounter);
	MUST(unmounter_do(unmounter, true) == 0 && mounts_there() == 0);
	MUST(unmounter_do(unmounter, true) < 0);
	unmounter_free(unmounter);
	return 0;
}

/* A mount on top of ours stays, even if the daemon says again that it has mounted. */
static int remembers_once(void)
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

/* After ours is gone the kernel gives its numbers to the next mount, which must stay. */
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

/* This process has CAP_SYS_ADMIN, by its own number and user only, until it drops it. */
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

static int (*const cases[])(void) = { unmounts_its_own, remembers_once,
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

	unit_needs_seccomp();
	tcase_add_unchecked_fixture(t, make_point, remove_point);
	unit_loop(t, in_namespaces, 0, (int)ARRAY_SIZE(cases));
	return s;
}
