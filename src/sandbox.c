/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sandbox, see sandbox.h. Main thread. The list of system calls is what the C library, liburing and the rooms call while
 * serving and ending; starting up is over by then. Operations of io_uring do not meet a seccomp filter: rings are limited where they
 * are made (loop_limits.c), and no more can be made from here on.
 */
#include "sandbox.h"

#include "base/thread.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static const int daemon_calls[] = {
	/* I/O on what is open */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(preadv),
	SCMP_SYS(pwritev), SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(lseek), SCMP_SYS(fsync), SCMP_SYS(fdatasync),
	SCMP_SYS(fallocate), SCMP_SYS(fcntl), SCMP_SYS(close), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(poll), SCMP_SYS(ppoll),
	SCMP_SYS(io_uring_enter), SCMP_SYS(io_uring_register), SCMP_SYS(flock), SCMP_SYS(dup2), SCMP_SYS(dup3),
	/* logs, the service manager, the unmounter: sockets that are connected already */
	SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(shutdown),
	/* memory; mmap, mprotect: see add_arg_rules */
	SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(brk), SCMP_SYS(mlock), SCMP_SYS(munlock),
	/* threads and time; clone: see add_arg_rules */
	SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity),
	SCMP_SYS(sched_setaffinity), SCMP_SYS(getcpu), SCMP_SYS(gettid), SCMP_SYS(getpid), SCMP_SYS(tgkill), SCMP_SYS(membarrier),
	SCMP_SYS(clock_gettime), SCMP_SYS(clock_nanosleep), SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time),
	SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigtimedwait), SCMP_SYS(sigaltstack),
	SCMP_SYS(restart_syscall), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(wait4), SCMP_SYS(waitid),
	/* questions about ourselves */
	SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(getrandom), SCMP_SYS(uname), SCMP_SYS(sysinfo),
	SCMP_SYS(getrusage),
};

static const unsigned daemon_ioctls[] = { BLKDISCARD, BLKZEROOUT, BLKGETSIZE64 };

static const int unmounter_calls[] = {
	SCMP_SYS(recvfrom), SCMP_SYS(sendto), SCMP_SYS(umount2), SCMP_SYS(exit_group), SCMP_SYS(exit), SCMP_SYS(rt_sigreturn),
	SCMP_SYS(restart_syscall), SCMP_SYS(poll), SCMP_SYS(ppoll), SCMP_SYS(openat), SCMP_SYS(read), SCMP_SYS(close),
	SCMP_SYS(newfstatat),
};

static int allow(scmp_filter_ctx ctx, const int *calls, size_t nr)
{
	int err = 0;

	for (size_t i = 0; i < nr && !err; i++) {
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, calls[i], 0);
		if (err == -EDOM)
			err = 0; /* not a call of this machine's architecture */
	}
	return err;
}

/* Calls that are harmless with some arguments only. */
static int add_arg_rules(scmp_filter_ctx ctx)
{
	int err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));

	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1, SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	/* Its flags are behind a pointer; the C library falls back to clone. */
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1, SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME));
	for (size_t i = 0; i < ARRAY_SIZE(daemon_ioctls) && !err; i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1, SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffffU, daemon_ioctls[i]));
	return err;
}

static int load_filter(bool log)
{
	scmp_filter_ctx ctx = seccomp_init(log ? SCMP_ACT_LOG : SCMP_ACT_ERRNO(EPERM));
	int err;

	if (!ctx)
		return -ENOMEM;
	/* All threads, at once or not at all; it sets no_new_privs as well. */
	err = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!err)
		err = allow(ctx, daemon_calls, ARRAY_SIZE(daemon_calls));
	if (!err)
		err = add_arg_rules(ctx);
	if (!err)
		err = seccomp_load(ctx);
	seccomp_release(ctx);
	return err;
}

/* An unlinked directory: nothing can be made in it, and nothing leads out of it. */
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

/* Early in the start of a system some of them are read-only or not there yet. */
static int empty_root(void)
{
	static const char *const bases[] = { "/run", "/dev/shm", "/tmp" };
	int err = -ENOENT;

	for (size_t i = 0; i < ARRAY_SIZE(bases) && err; i++)
		err = empty_root_below(bases[i]);
	return err;
}

int sandbox_enter(enum sandbox_mode mode, char *errbuf, size_t errlen)
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
		snprintf(errbuf, errlen, "sandbox: %s: %s: mount with -o sandbox=off if this system cannot do it", what, strerror(-err));
	return err;
}

int sandbox_unmounter(bool filter)
{
	scmp_filter_ctx ctx;
	int err;

	/* Without the second one, capabilities of others cannot be proved, and what needs them is refused. */
	bool ptrace = capng_have_capability(CAPNG_PERMITTED, CAP_SYS_PTRACE);

	capng_clear(CAPNG_SELECT_ALL);
	if (capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_ADMIN) ||
	    (ptrace && capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_PTRACE)) ||
	    capng_apply(CAPNG_SELECT_ALL))
		return -EPERM;
	if (!filter)
		return 0;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	ctx = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	if (!ctx)
		return -ENOMEM;
	err = allow(ctx, unmounter_calls, ARRAY_SIZE(unmounter_calls));
	if (!err)
		err = seccomp_load(ctx);
	seccomp_release(ctx);
	return err;
}
