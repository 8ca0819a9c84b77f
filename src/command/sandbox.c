/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sandbox, see sandbox.h. sandbox_enter runs on the main thread, sandbox_unmounter in the
 * unmounter process. sandbox.def lists the system calls that the C library, liburing and the rooms
 * make while serving and ending. A seccomp filter does not see the operations of io_uring: each
 * ring is restricted where it is made (loop/limits.c), and the filter forbids new rings. A step
 * that fails ends the start, with a reason that names the step.
 */
#include "command/sandbox.h"

#include "base/thread.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

/* Conditions of sandbox.def. An argument of type int is the lower 32 bits of its register. */
#define MASKED(n, mask, value) \
	SCMP_CMP64(n, SCMP_CMP_MASKED_EQ, (uint32_t)(mask), (uint32_t)(value))
#define IS(n, value) MASKED(n, UINT32_MAX, value)
#define IS_NULL(n) SCMP_CMP64(n, SCMP_CMP_EQ, 0)
#define AT_MOST(n, value) SCMP_CMP64(n, SCMP_CMP_LE, value)
/* Flags of clone that a thread of this process does not need. */
#define CLONE_NOT_OURS                                                                    \
	(CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |     \
	 CLONE_NEWPID | CLONE_NEWNET | CLONE_PTRACE | CLONE_UNTRACED | CLONE_PARENT |      \
	 CLONE_PIDFD | CLONE_IO)

static int add_rule(scmp_filter_ctx ctx, int call, unsigned nr, const struct scmp_arg_cmp *args)
{
	int err = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, call, nr, args);

	return err == -EDOM ? 0 : err; /* this architecture has no such call */
}

#define NOTHING(...)
#define ADD_CALL(name) \
	if (!err)      \
		err = add_rule(ctx, SCMP_SYS(name), 0, NULL);
#define ADD_RULE(name, ...)                                                        \
	if (!err) {                                                                \
		const struct scmp_arg_cmp args[] = { __VA_ARGS__ };                \
		err = add_rule(ctx, SCMP_SYS(name), ARRAY_SIZE(args), args);       \
	}

static int add_daemon_rules(scmp_filter_ctx ctx)
{
	/* A filter cannot check the flags of clone3; after ENOSYS the C library calls clone. */
	int err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

#define CALL ADD_CALL
#define RULE ADD_RULE
#define UNMOUNTER_CALL NOTHING
#define UNMOUNTER_RULE NOTHING
#include "command/sandbox.def"
#undef CALL
#undef RULE
#undef UNMOUNTER_CALL
#undef UNMOUNTER_RULE
	return err;
}

static int add_unmounter_rules(scmp_filter_ctx ctx)
{
	int err = 0;

#define CALL NOTHING
#define RULE NOTHING
#define UNMOUNTER_CALL ADD_CALL
#define UNMOUNTER_RULE ADD_RULE
#include "command/sandbox.def"
	return err;
}

static int load_filter(bool log)
{
	scmp_filter_ctx ctx = seccomp_init(log ? SCMP_ACT_LOG : SCMP_ACT_ERRNO(EPERM));
	int err;

	if (!ctx)
		return -ENOMEM;
	/* TSYNC: for all threads at once, or for none. seccomp_load sets no_new_privs as well. */
	err = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!err)
		err = add_daemon_rules(ctx);
	if (!err)
		err = seccomp_load(ctx);
	seccomp_release(ctx);
	return err;
}

/*
 * Makes a directory below base, removes it and makes it the root directory: in a removed directory
 * nothing can be created, and no path leads out of it.
 */
static int empty_root_below(const char *base)
{
	char dir[64];
	int fd, err;

	snprintf(dir, sizeof(dir), "%s/fusedio-root-XXXXXX", base);
	if (!mkdtemp(dir))
		return -errno;
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	err = fd < 0 ? -errno : 0;
	if (rmdir(dir) && !err)
		err = -errno;
	if (!err && (fchdir(fd) || chroot(".")))
		err = -errno;
	if (fd >= 0)
		close(fd);
	return err;
}

/* Early in the boot of a system some of these directories are read-only or not there yet. */
static int empty_root(void)
{
	static const char *const bases[] = { "/run", "/dev/shm", "/tmp" };
	int err = -ENOENT;

	for (size_t i = 0; i < ARRAY_SIZE(bases) && err; i++)
		err = empty_root_below(bases[i]);
	return err;
}

int sandbox_enter(enum sandbox_mode mode, struct fdio_reason *reason)
{
	const char *what = "empty root directory";
	int err = 0;

	if (mode != SANDBOX_OFF && geteuid() == 0)
		err = empty_root();
	if (!err) {
		what = "capabilities";
		err = thread_drop_capabilities();
	}
	if (!err && mode != SANDBOX_OFF) {
		what = "no_new_privs";
		err = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ? -errno : 0;
	}
	if (!err && mode != SANDBOX_OFF) {
		what = "seccomp filter";
		err = load_filter(mode == SANDBOX_LOG);
	}
	if (err)
		fdio_reason_set(reason,
				"sandbox: %s: %s: mount with -o sandbox=off if this system cannot "
				"do it",
				what, strerror(-err));
	return err;
}

/*
 * Keeps CAP_SYS_ADMIN, to unmount, and two that it can do without:
 *   CAP_SYS_PTRACE       without it, callers with more capabilities than this process cannot prove
 *                        them, and their requests are refused
 *   CAP_DAC_READ_SEARCH  without it, a mount below a directory that not even root may search
 *                        cannot be unmounted
 */
static int keep_unmounter_capabilities(void)
{
	static const unsigned wanted[] = { CAP_SYS_PTRACE, CAP_DAC_READ_SEARCH };
	bool have[ARRAY_SIZE(wanted)];
	int err;

	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		have[i] = capng_have_capability(CAPNG_PERMITTED, wanted[i]);
	capng_clear(CAPNG_SELECT_ALL);
	err = capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_ADMIN);
	for (size_t i = 0; i < ARRAY_SIZE(wanted) && !err; i++)
		if (have[i])
			err = capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, wanted[i]);
	return err || capng_apply(CAPNG_SELECT_ALL) ? -EPERM : 0;
}

int sandbox_unmounter(bool filter)
{
	int err = keep_unmounter_capabilities();
	scmp_filter_ctx ctx;

	if (err || !filter)
		return err;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!ctx)
		return -ENOMEM;
	err = add_unmounter_rules(ctx);
	if (!err)
		err = seccomp_load(ctx);
	seccomp_release(ctx);
	return err;
}
