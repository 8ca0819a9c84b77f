/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The filters that sandbox.def makes: no other system call is allowed, and a call whose arguments
 * can name another process, a file or an address is refused if they do. A call that is added there
 * must be added here, to harmless or with an attack. Each case runs in a child process. Only the
 * unmounter's filter needs root.
 */
#include "command/sandbox.h"
#include "kit/runner.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST_NUMBERS 600
/* The CPU clock of another process, as clock_getcpuclockid(3) makes it. */
#define OTHERS_CLOCK(pid) ((int)(~(unsigned)(pid) << 3 | 2))

/* sandbox.def once more; rule: with conditions. */
struct call { int nr; const char *name; bool unmounter, rule; };

static const struct call calls[] = {
#define CALL(name) { SCMP_SYS(name), #name, false, false },
#define RULE(name, ...) { SCMP_SYS(name), #name, false, true },
#define UNMOUNTER_CALL(name) { SCMP_SYS(name), #name, true, false },
#define UNMOUNTER_RULE(name, ...) { SCMP_SYS(name), #name, true, true },
#include "command/sandbox.def"
};

/* Their arguments can only name open descriptors and our own memory, signals and children. */
static const char *const harmless[] = {
	"read",           "write",
	"readv",          "writev",
	"pread64",        "pwrite64",
	"preadv",         "pwritev",
	"preadv2",        "pwritev2",
	"lseek",          "fsync",
	"fdatasync",      "fallocate",
	"close",          "fstat",
	"poll",           "ppoll",
	"dup2",           "dup3",
	"io_uring_enter", "recvfrom",
	"munmap",         "mremap",
	"madvise",        "brk",
	"mlock",          "munlock",
	"futex",          "set_robust_list",
	"rseq",           "sched_yield",
	"getcpu",         "gettid",
	"getpid",         "membarrier",
	"exit",           "exit_group",
	"wait4",          "nanosleep",
	"gettimeofday",   "time",
	"rt_sigprocmask", "rt_sigaction",
	"rt_sigreturn",   "rt_sigtimedwait",
	"sigaltstack",    "restart_syscall",
	"getuid",         "geteuid",
	"getgid",         "getegid",
	"getrandom",      "uname",
	"sysinfo",
};

/*
 * The unmounter may look up files by name, so these may too: newfstatat and statx tell about a
 * file, getdents64 lists a directory.
 */
static const char *const harmless_for_unmounter[] = {
	"recvfrom", "exit_group", "exit",  "rt_sigreturn", "restart_syscall", "poll",
	"ppoll",    "read",       "close", "newfstatat",   "getdents64",      "statx",
};

static bool listed(const char *const *list, size_t nr, const char *name)
{
	for (size_t i = 0; i < nr; i++)
		if (!strcmp(list[i], name))
			return true;
	return false;
}

/* ------------------------------------------------------------------ what must be refused */

/* Made before the filter is entered. */
static int pair[2], zero;
static pid_t parent;
static char page[4096] __attribute__((aligned(4096)));
static struct sockaddr_un abstract = { .sun_family = AF_UNIX, .sun_path = "\0fusedio-nobody" };

/* fn makes the call with arguments that must be refused; what: which, for the message. */
struct attack { const char *call, *what; long (*fn)(void); };

#define ATTACK(name, ...) static long name(void) { return __VA_ARGS__; }
ATTACK(tgkill_parent, syscall(SYS_tgkill, parent, parent, 0))
ATTACK(tgkill_wide, syscall(SYS_tgkill, (1ul << 32) | (unsigned)parent, parent, 0))
ATTACK(owner, syscall(SYS_fcntl, pair[0], F_SETOWN, parent))
ATTACK(owner_ex, syscall(SYS_fcntl, pair[0], F_SETOWN_EX, page))
ATTACK(sig, syscall(SYS_fcntl, pair[0], F_SETSIG, SIGTERM))
ATTACK(async, syscall(SYS_fcntl, pair[0], F_SETFL, O_ASYNC))
ATTACK(lease, syscall(SYS_fcntl, zero, F_SETLEASE, F_RDLCK))
ATTACK(notify, syscall(SYS_fcntl, zero, F_NOTIFY, DN_ACCESS))
ATTACK(send_to, syscall(SYS_sendto, pair[0], "x", 1, 0, &abstract, sizeof(abstract)))
ATTACK(setaffinity, syscall(SYS_sched_setaffinity, parent, sizeof(page), page))
ATTACK(getaffinity, syscall(SYS_sched_getaffinity, parent, sizeof(page), page))
ATTACK(stat_path, syscall(SYS_newfstatat, AT_FDCWD, "/etc/passwd", page, 0))
ATTACK(stat_below, syscall(SYS_newfstatat, zero, "..", page, 0))
ATTACK(stat_cwd, syscall(SYS_newfstatat, AT_FDCWD, "..", page, AT_EMPTY_PATH))
ATTACK(clock_of, syscall(SYS_clock_gettime, OTHERS_CLOCK(parent), page))
ATTACK(sleep_by, syscall(SYS_clock_nanosleep, OTHERS_CLOCK(parent), 0, page, NULL))
ATTACK(forks, syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0))
ATTACK(new_users,
       syscall(SYS_clone, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND | CLONE_NEWUSER, 0, 0, 0, 0))
ATTACK(new_mounts,
       syscall(SYS_clone, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND | CLONE_NEWNS, 0, 0, 0, 0))
ATTACK(dumpable, syscall(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0))
ATTACK(ptracer, syscall(SYS_prctl, PR_SET_PTRACER, parent, 0, 0, 0))
ATTACK(push_back, syscall(SYS_ioctl, zero, TIOCSTI, "x"))
ATTACK(set_owner, syscall(SYS_ioctl, pair[0], FIOSETOWN, &parent))
ATTACK(go_async, syscall(SYS_ioctl, pair[0], FIOASYNC, page))
ATTACK(set_ro, syscall(SYS_ioctl, zero, BLKROSET, page))
ATTACK(map_exec,
       syscall(SYS_mmap, NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))
ATTACK(make_exec, syscall(SYS_mprotect, page, 4096, PROT_READ | PROT_EXEC))
ATTACK(ring_message,
       syscall(SYS_io_uring_register, -1, 31 /* IORING_REGISTER_SEND_MSG_RING */, page, 1))
ATTACK(ring_personality, syscall(SYS_io_uring_register, zero, IORING_REGISTER_PERSONALITY, NULL, 0))

static const struct attack attacks[] = {
	{ "tgkill", "another process", tgkill_parent },
	{ "tgkill", "with a bit above an int", tgkill_wide },
	{ "fcntl", "F_SETOWN", owner },
	{ "fcntl", "F_SETOWN_EX", owner_ex },
	{ "fcntl", "F_SETSIG", sig },
	{ "fcntl", "O_ASYNC", async },
	{ "fcntl", "F_SETLEASE", lease },
	{ "fcntl", "F_NOTIFY", notify },
	{ "sendto", "an address", send_to },
	{ "sched_setaffinity", "another process", setaffinity },
	{ "sched_getaffinity", "another process", getaffinity },
	{ "newfstatat", "a path", stat_path },
	{ "newfstatat", "a path below", stat_below },
	{ "newfstatat", "from here", stat_cwd },
	{ "clock_gettime", "another's clock", clock_of },
	{ "clock_nanosleep", "another's clock", sleep_by },
	{ "clone", "a process", forks },
	{ "clone", "a user namespace", new_users },
	{ "clone", "a mount namespace", new_mounts },
	{ "prctl", "PR_SET_DUMPABLE", dumpable },
	{ "prctl", "PR_SET_PTRACER", ptracer },
	{ "ioctl", "TIOCSTI", push_back },
	{ "ioctl", "FIOSETOWN", set_owner },
	{ "ioctl", "FIOASYNC", go_async },
	{ "ioctl", "BLKROSET", set_ro },
	{ "mmap", "PROT_EXEC", map_exec },
	{ "mprotect", "PROT_EXEC", make_exec },
	{ "io_uring_register", "a message to any ring", ring_message },
	{ "io_uring_register", "a personality", ring_personality },
};

ATTACK(write_a_file, syscall(SYS_openat, AT_FDCWD, "/dev/null", O_WRONLY))
ATTACK(read_write, syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR))
ATTACK(create, syscall(SYS_openat, AT_FDCWD, "/dev/null", O_CREAT, 0600))
ATTACK(truncate_it, syscall(SYS_openat, AT_FDCWD, "/dev/null", O_TRUNC))
ATTACK(force, syscall(SYS_umount2, "/nowhere", UMOUNT_NOFOLLOW | MNT_FORCE))
ATTACK(follow, syscall(SYS_umount2, "/nowhere", 0))

static const struct attack attacks_of_unmounter[] = {
	{ "openat", "for writing", write_a_file }, { "openat", "for both", read_write },
	{ "openat", "O_CREAT", create },           { "openat", "O_TRUNC", truncate_it },
	{ "umount2", "by force", force },          { "umount2", "through a link", follow },
	{ "sendto", "an address", send_to },
};

/* ------------------------------------------------------------------ children */

/* Runs fn(arg) in a child that is under the filter; its return value is the exit status. */
static int filtered(bool unmounter, int (*fn)(const void *), const void *arg)
{
	char err[200];
	int status;

	parent = getpid();
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
	zero = open("/dev/zero", O_RDWR);
	pid_t pid = fork();
	ck_assert_int_ge(pid, 0);
	if (!pid) {
		int failed = unmounter ? sandbox_unmounter(true)
				       : sandbox_enter(SANDBOX_ON, FDIO_REASON(err));

		_exit(failed ? 250 : fn(arg));
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	close(pair[0]);
	close(pair[1]);
	close(zero);
	ck_assert_msg(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
	ck_assert_msg(WEXITSTATUS(status) != 250, "the filter could not be entered");
	return WEXITSTATUS(status);
}

/* 0: refused */
static int run_attack(const void *arg)
{
	const struct attack *attack = arg;

	errno = 0;
	return attack->fn() != -1 || errno != EPERM;
}

static void expect_refused(bool unmounter, const struct attack *attack, size_t nr)
{
	for (size_t i = 0; i < nr; i++)
		ck_assert_msg(!filtered(unmounter, run_attack, &attack[i]), "%s: %s is not refused",
			      attack[i].call, attack[i].what);
}

START_TEST(others_cannot_be_named)
{
	expect_refused(false, attacks, ARRAY_SIZE(attacks));
}
END_TEST

START_TEST(unmounter_only_reads_and_unmounts)
{
	if (geteuid() != 0)
		return;
	expect_refused(true, attacks_of_unmounter, ARRAY_SIZE(attacks_of_unmounter));
}
END_TEST

static bool has_attack(const struct attack *attack, size_t nr, const char *name)
{
	for (size_t i = 0; i < nr; i++)
		if (!strcmp(attack[i].call, name))
			return true;
	return false;
}

static bool is_tested(const struct call *call)
{
	const char *name = call->name;

	if (call->rule && call->unmounter)
		return has_attack(attacks_of_unmounter, ARRAY_SIZE(attacks_of_unmounter), name);
	if (call->rule)
		return has_attack(attacks, ARRAY_SIZE(attacks), name);
	if (call->unmounter)
		return listed(harmless_for_unmounter, ARRAY_SIZE(harmless_for_unmounter), name);
	return listed(harmless, ARRAY_SIZE(harmless), name);
}

/* Each call of sandbox.def is in a list here, or has an attack if it has conditions. */
START_TEST(each_call_is_known_here)
{
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		ck_assert_msg(is_tested(&calls[i]),
			      "%s is allowed, and this test knows nothing about it", calls[i].name);
}
END_TEST

static bool is_known(int nr)
{
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		if (calls[i].nr == nr && !calls[i].unmounter)
			return true;
	return false;
}

/* uretprobe and uprobe: the kernel answers these, with a signal, before it asks the filter. */
static bool is_unfiltered(int nr)
{
#ifdef __x86_64__
	return nr == 335 || nr == 336;
#else
	return nr < 0;
#endif
}

/*
 * Makes each system call that sandbox.def does not list, with *arg for each argument. 0: all were
 * refused; else 1 + the number, modulo 200, of one that was not.
 */
static int call_everything_else(const void *arg)
{
	long a = *(const long *)arg;

	for (int nr = 0; nr < MOST_NUMBERS; nr++) {
		if (is_known(nr) || is_unfiltered(nr) || nr == SYS_clone3)
			continue;
		errno = 0;
		if (syscall(nr, a, a, a, a, a, a) != -1 || errno != EPERM)
			return nr % 200 + 1;
	}
	return 0;
}

static const long everywhere[] = { -1, 0 };

START_TEST(nothing_else_is_allowed)
{
	int bad = filtered(false, call_everything_else, &everywhere[_i]);

	ck_assert_msg(!bad, "system call %d (modulo 200) is allowed", bad - 1);
}
END_TEST

/* Makes the calls that have conditions with arguments that meet them. 0: all work. */
static int as_meant(const void *arg)
{
	struct timespec ts;
	struct stat st;
	cpu_set_t set;

	(void)arg;
	if (syscall(SYS_tgkill, getpid(), (int)syscall(SYS_gettid), 0) ||
	    send(pair[0], "x", 1, 0) != 1 || fcntl(zero, F_GETFL) < 0)
		return 1;
	if (sched_getaffinity(0, sizeof(set), &set) || sched_setaffinity(0, sizeof(set), &set) ||
	    fstat(zero, &st))
		return 2;
	if (syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts) ||
	    syscall(SYS_clock_gettime, CLOCK_THREAD_CPUTIME_ID, &ts))
		return 3;
	return prctl(PR_SET_NAME, "another") ? 4 : 0;
}

START_TEST(what_is_meant_works)
{
	ck_assert_int_eq(filtered(false, as_meant, NULL), 0);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("command: sandbox arguments");
	TCase *t = unit_case(s, "sandbox_args", 60);

	unit_needs_seccomp();
	unit_test(t, each_call_is_known_here);
#ifndef FDIO_SANITIZED
	/* A sanitizer's own calls would meet the filter. */
	unit_test(t, others_cannot_be_named);
	unit_test(t, unmounter_only_reads_and_unmounts);
	unit_loop(t, nothing_else_is_allowed, 0, (int)ARRAY_SIZE(everywhere));
	unit_test(t, what_is_meant_works);
#endif
	return s;
}
