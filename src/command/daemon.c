/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon as a process, see daemon.h. The main thread runs all of this, mostly before other
 * threads exist; only daemon_notify runs on any thread (control thread, watchdog), and the
 * descriptor that it uses is set before that. No locks. A step that the mount cannot do without
 * fails with a reason; other failures are only logged.
 */
#include "command/daemon.h"

#include "base/log.h"
#include "command/options.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

#define OOM_SCORE_ADJ "-1000\n"

/* -1: none */
static int ready_fd = -1;  /* pipe to the parent, which waits for a byte */
static int null_fd = -1;   /* /dev/null, for the standard streams */
static int notify_fd = -1; /* socket of the service manager */

static pid_t child_pid; /* in the parent, for its signal handler */

static void set_of_stop_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
}

static void pass_on(int sig)
{
	int saved = errno;

	kill(child_pid, sig);
	errno = saved;
}

/* In the parent: SIGTERM and SIGINT, blocked until here, go to the child. */
static void pass_signals_on(pid_t pid)
{
	struct sigaction sa = { .sa_handler = pass_on };
	sigset_t set;

	child_pid = pid;
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	set_of_stop_signals(&set);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
}

/*
 * The parent waits for one byte from the child: the mount serves. End of file without it: the child
 * has ended, and the parent exits in the same way.
 */
static void parent_wait(int fd, pid_t pid) __attribute__((noreturn));
static void parent_wait(int fd, pid_t pid)
{
	int status = 0;
	ssize_t n;
	char c;

	do
		n = read(fd, &c, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(0);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGTERM || WTERMSIG(status) == SIGINT)) {
		/* The child has already printed why. */
		signal(WTERMSIG(status), SIG_DFL);
		raise(WTERMSIG(status));
	}
	if (WIFEXITED(status) && WEXITSTATUS(status))
		_exit(WEXITSTATUS(status));
	fprintf(stderr, "fusedio: the daemon ended before the mount was ready%s\n",
		WIFSIGNALED(status) ? " (killed)" : "");
	_exit(EXIT_SYSTEM);
}

int daemon_fork(void)
{
	sigset_t set;
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return -errno;
	fflush(NULL);
	set_of_stop_signals(&set);
	sigprocmask(SIG_BLOCK, &set, NULL); /* they stay blocked in the child */
	pid = fork();
	if (pid < 0) {
		int err = -errno;

		close(fds[0]);
		close(fds[1]);
		return err;
	}
	if (pid) {
		close(fds[1]);
		pass_signals_on(pid);
		parent_wait(fds[0], pid);
	}
	close(fds[0]);
	ready_fd = fds[1];
	setsid();
	return 0;
}

void daemon_close_inherited(void)
{
	if (syscall(SYS_close_range, STDERR_FILENO + 1, UINT_MAX, 0))
		log_warn("descriptors of the program that started this one stay open: %s",
			 strerror(errno));
}

void daemon_open_notify(void)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sa = { .sun_family = AF_UNIX };
	size_t len = path ? strlen(path) : 0;

	if (!len || len >= sizeof(sa.sun_path) || (path[0] != '/' && path[0] != '@'))
		return;
	memcpy(sa.sun_path, path, len);
	if (path[0] == '@')
		sa.sun_path[0] = '\0';
	notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (notify_fd >= 0 && !connect(notify_fd, (struct sockaddr *)&sa,
				       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)))
		return;
	log_warn("cannot reach the service manager: %s", strerror(errno));
	if (notify_fd >= 0)
		close(notify_fd);
	notify_fd = -1;
}

void daemon_open_files(void)
{
	if (ready_fd < 0)
		return;
	if (chdir("/"))
		log_warn("cannot change to /: %s", strerror(errno));
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
}

void daemon_ready(void)
{
	if (ready_fd < 0)
		return;
	fdio_log_switch_to_syslog();
	if (null_fd >= 0) {
		for (int fd = 0; fd <= 2; fd++)
			dup2(null_fd, fd);
		if (null_fd > 2)
			close(null_fd);
	}
	/* The parent may have been killed; the mount does not depend on it. */
	if (write(ready_fd, "", 1) != 1)
		log_debug("nobody waits for the mount: %s", strerror(errno));
	close(ready_fd);
	ready_fd = -1;
}

void daemon_notify(const char *vars, const char *status, ...)
{
	char text[1024], raw[512];
	int at = snprintf(text, sizeof(text), "%s\nSTATUS=", vars);
	va_list ap;

	if (notify_fd < 0)
		return;
	va_start(ap, status);
	vsnprintf(raw, sizeof(raw), status, ap);
	va_end(ap);
	/* A newline in a file name must not begin another variable. */
	fdio_escape(text + at, sizeof(text) - (size_t)at, raw);
	/*
	 * If the socket is full, READY=, which the main thread sends, waits. Other messages, some
	 * of which the watchdog sends, are dropped.
	 */
	bool waits = !strncmp(vars, "READY=", strlen("READY="));
	if (send(notify_fd, text, strlen(text), MSG_NOSIGNAL | (waits ? 0 : MSG_DONTWAIT)) < 0 &&
	    errno != EAGAIN)
		log_warn("cannot notify the service manager: %s", strerror(errno));
}

/* Writes oom_score_adj and reads it back. */
static int set_oom_score(void)
{
	char now[16] = "";
	int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
	ssize_t len = sizeof(OOM_SCORE_ADJ) - 1;
	bool ok = fd >= 0 && write(fd, OOM_SCORE_ADJ, (size_t)len) == len &&
		  pread(fd, now, sizeof(now) - 1, 0) > 0 && !strcmp(now, OOM_SCORE_ADJ);
	int err = ok ? 0 : errno ? -errno : -EIO;

	if (fd >= 0)
		close(fd);
	return err;
}

/* Raises the soft limit to want, or as far as the process may; returns the resulting limit. */
static rlim_t raise_limit(int which, rlim_t want)
{
	struct rlimit l = { RLIM_INFINITY, RLIM_INFINITY }, more = { want, want };

	if (getrlimit(which, &l) || l.rlim_cur >= want)
		return l.rlim_cur;
	if (l.rlim_max >= want)
		more.rlim_max = l.rlim_max;
	if (setrlimit(which, &more)) {
		/* Without CAP_SYS_RESOURCE the hard limit stays, and bounds the soft one. */
		more.rlim_cur = more.rlim_max = l.rlim_max;
		if (setrlimit(which, &more))
			return l.rlim_cur;
	}
	return more.rlim_cur;
}

int daemon_raise_limits(uint64_t bytes, struct fdio_reason *reason)
{
	rlim_t size = raise_limit(RLIMIT_FSIZE, RLIM_INFINITY);

	raise_limit(RLIMIT_NOFILE, 1024);
	if (bytes <= size)
		return 0;
	return fdio_reason_fail(reason, -EFBIG,
				"RLIMIT_FSIZE (ulimit -f) does not let the image's %llu bytes be "
				"written: raise it, or mount with -o ro,norecovery",
				(unsigned long long)bytes);
}

int daemon_mlock(struct fdio_reason *reason)
{
	const struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
	int err;

	/* Threads map more memory later, when the process no longer has CAP_IPC_LOCK. */
	if (geteuid() == 0 && setrlimit(RLIMIT_MEMLOCK, &all))
		return fdio_reason_fail(reason, -errno,
					"mlock: cannot raise RLIMIT_MEMLOCK: %s: CAP_SYS_RESOURCE "
					"is needed",
					strerror(errno));
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		return fdio_reason_fail(reason, -errno,
					"mlock: cannot lock memory: %s: run as root or raise "
					"RLIMIT_MEMLOCK",
					strerror(errno));
	/* Later threads inherit this. */
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) || prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) != 1) {
		err = errno ? -errno : -EINVAL;
		return fdio_reason_fail(reason, err,
					"mlock: cannot become an I/O flusher: %s: "
					"CAP_SYS_RESOURCE is needed",
					strerror(-err));
	}
	errno = 0;
	err = set_oom_score();
	if (err)
		fdio_reason_set(reason,
				"mlock: cannot set oom_score_adj: %s: CAP_SYS_RESOURCE is needed",
				strerror(-err));
	return err;
}

int daemon_setns(const char *ns, struct fdio_reason *reason)
{
	char path[64];
	int fd, err = 0;

	if (ns[strspn(ns, "0123456789")] == '\0') {
		snprintf(path, sizeof(path), "/proc/%.20s/ns/mnt", ns);
		ns = path;
	}
	fd = open(ns, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNS)) {
		err = -errno;
		fdio_reason_set(reason, "cannot enter the mount namespace %s: %s", ns,
				strerror(-err));
	}
	if (fd >= 0)
		close(fd);
	return err;
}
