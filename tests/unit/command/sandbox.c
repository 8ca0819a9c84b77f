/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sandbox. Each case enters it in a child process: there the calls that serving needs work, in
 * threads made before and after, and others fail with EPERM. Needs no root; tests/root tests the
 * empty root directory on real mounts.
 */
#include "command/sandbox.h"

#include "base/thread.h"
#include "kit/runner.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs fn in a child; its return value is the exit status. */
static int in_child(int (*fn)(void))
{
	pid_t pid = fork();
	int status;

	ck_assert_int_ge(pid, 0);
	if (!pid)
		_exit(fn());
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
	return WEXITSTATUS(status);
}

/* In a case: ends it with a status that names the line. */
#define MUST(e) do { if (!(e)) return __LINE__ % 250 + 1; } while (0)
#define DENIED(e) MUST((errno = 0, (e) == -1) && errno == EPERM)

static int enter(enum sandbox_mode mode)
{
	char err[200];

	return sandbox_enter(mode, FDIO_REASON(err));
}

/* A call that is not in sandbox.def, or has other arguments, fails with EPERM. */
static int forbidden(void)
{
	char *argv[] = { (char *)"/bin/true", NULL };
	int fd = open("/dev/null", O_RDWR);

	MUST(fd >= 0 && !enter(SANDBOX_ON));
	DENIED(open("/etc/passwd", O_RDONLY));
	DENIED(open("/", O_RDONLY | O_DIRECTORY));
	DENIED(socket(AF_UNIX, SOCK_STREAM, 0));
	DENIED(socket(AF_INET, SOCK_DGRAM, 0));
	DENIED(execv(argv[0], argv));
	DENIED(fork());
	DENIED(unlink("/nothing"));
	DENIED(chdir("/"));
	DENIED(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0));
	DENIED(ioctl(fd, BLKROSET, &fd));
	MUST(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
			     MAP_FAILED &&
	     errno == EPERM);
	return 0;
}

static void *thread_works(void *arg)
{
	*(int *)arg = malloc(1 << 20) ? 1 : 0;
	return NULL;
}

/* I/O, memory and new threads still work. */
static int allowed(void)
{
	int fd = open("/dev/zero", O_RDWR), ran = 0;
	pthread_t t;
	char c = 1;

	MUST(fd >= 0 && !enter(SANDBOX_ON));
	MUST(read(fd, &c, 1) == 1 && c == 0 && write(fd, &c, 1) == 1);
	MUST(!thread_start(&t, "later", thread_works, &ran) && !pthread_join(t, NULL) && ran == 1);
	free(malloc(64 << 20));
	return 0;
}

static pthread_barrier_t meet;

static void *earlier(void *arg)
{
	pthread_barrier_wait(&meet); /* the main thread is not in the sandbox yet */
	pthread_barrier_wait(&meet); /* it is now */
	errno = 0;
	*(int *)arg = open("/etc/passwd", O_RDONLY) == -1 && errno == EPERM;
	return NULL;
}

/* The filter applies to a thread that was started before. */
static int all_threads(void)
{
	int denied = 0;
	pthread_t t;

	pthread_barrier_init(&meet, NULL, 2);
	MUST(!thread_start(&t, "earlier", earlier, &denied));
	pthread_barrier_wait(&meet);
	MUST(!enter(SANDBOX_ON));
	pthread_barrier_wait(&meet);
	MUST(!pthread_join(t, NULL) && denied);
	return 0;
}

static void *counts_caps(void *arg)
{
	*(int *)arg = capng_get_caps_process() ? -1 : capng_have_capabilities(CAPNG_SELECT_CAPS);
	return NULL;
}

/* thread_start drops the capabilities of a thread, also outside the sandbox. */
static int threads_without_capabilities(void)
{
	int have = -1;
	pthread_t t;

	MUST(!thread_start(&t, "a name that is far too long", counts_caps, &have) &&
	     !pthread_join(t, NULL));
	MUST(have == CAPNG_NONE);
	return 0;
}

/* sandbox=off: every call is allowed, but the capabilities are gone. */
static int off(void)
{
	int fd;

	MUST(!enter(SANDBOX_OFF));
	fd = open("/etc/passwd", O_RDONLY);
	MUST(fd >= 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0);
	MUST(!capng_get_caps_process() && capng_have_capabilities(CAPNG_SELECT_CAPS) == CAPNG_NONE);
	return 0;
}

/*
 * sandbox=log: a call that is not allowed works. Uses socket, not open: for root the file tree is
 * gone in this mode, too.
 */
static int only_logged(void)
{
	MUST(!enter(SANDBOX_LOG));
	MUST(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	MUST(socket(AF_UNIX, SOCK_STREAM, 0) >= 0);
	return 0;
}

static int (*const cases[])(void) = { forbidden,   allowed,
				      all_threads, threads_without_capabilities,
				      off,         only_logged };

START_TEST(child)
{
	int line = in_child(cases[_i]);

	ck_assert_msg(!line, "case %d: see line %d (modulo 250)", _i, line - 1);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("command: sandbox");
	TCase *t = unit_case(s, "sandbox", 60);

	unit_needs_seccomp();
#ifndef FDIO_SANITIZED
	unit_loop(t, child, 0, (int)ARRAY_SIZE(cases));
#else
	/* A sanitizer's own calls would meet the filter: only the cases that load none. */
	unit_loop(t, child, 3, 5);
#endif
	return s;
}
