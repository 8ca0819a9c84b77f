/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The unmounter process, see unmounter.h. A request is one byte, 'u' or 'l' (lazy); the answer is an int, 0 or -errno.
 * The child never allocates after the fork and never returns.
 */
#include "unmounter.h"

#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

struct unmounter {
	int sock;
	pid_t pid;
};

/* fusermount3 is set-user-ID root and knows which mounts are the user's. */
static int run_fusermount(const char *mountpoint)
{
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (!pid) {
		sigset_t none;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		execlp("fusermount3", "fusermount3", "-u", "-q", "-z", "--", mountpoint, NULL);
		_exit(127);
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	if (!WIFEXITED(status) || WEXITSTATUS(status) == 127)
		return -ENOENT;
	return WEXITSTATUS(status) ? -EINVAL : 0;
}

static int do_unmount(const char *mountpoint, bool root, bool lazy)
{
	if (!root)
		return lazy ? run_fusermount(mountpoint) : -EPERM;
	return umount2(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)) ? -errno : 0;
}

static void child_main(const char *mountpoint, bool filter, int sock) __attribute__((noreturn));
static void child_main(const char *mountpoint, bool filter, int sock)
{
	bool root = geteuid() == 0;
	int null = open("/dev/null", O_RDWR);
	sigset_t all;
	char c;

	/* The daemon's end, not a signal for its process group, is what ends this process. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "fdio-unmounter");
	for (int fd = 0; null >= 0 && fd <= 2; fd++)
		dup2(null, fd);
	dup2(sock, 3);
	sock = 3;
	close_range(4, UINT_MAX, 0);
	if (chdir("/") || (root && sandbox_unmounter(filter)))
		_exit(1);
	if (send(sock, "", 1, MSG_NOSIGNAL) != 1)
		_exit(0);
	while (recv(sock, &c, 1, 0) == 1) {
		int err = do_unmount(mountpoint, root, c == 'l');

		if (send(sock, &err, sizeof(err), MSG_NOSIGNAL) != sizeof(err))
			break;
	}
	_exit(0);
}

int unmounter_new(const char *mountpoint, bool filter, struct unmounter **ret, char *errbuf, size_t errlen)
{
	struct unmounter *u = calloc(1, sizeof(*u));
	int fds[2], err;
	char c;

	*ret = NULL;
	if (!u || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds)) {
		err = u ? -errno : -ENOMEM;
		goto fail;
	}
	u->sock = fds[0];
	fflush(NULL);
	u->pid = fork();
	if (!u->pid)
		child_main(mountpoint, filter, fds[1]);
	err = u->pid < 0 ? -errno : 0;
	close(fds[1]);
	if (err) {
		close(u->sock);
		goto fail;
	}
	if (recv(u->sock, &c, 1, 0) != 1) {
		unmounter_free(u);
		u = NULL;
		err = -EPERM;
		goto fail;
	}
	*ret = u;
	return 0;
fail:
	snprintf(errbuf, errlen, "cannot start the process that unmounts: %s", strerror(-err));
	free(u);
	return err;
}

int unmounter_do(struct unmounter *u, bool lazy)
{
	int answer;

	if (send(u->sock, lazy ? "l" : "u", 1, MSG_NOSIGNAL) != 1)
		return -errno;
	for (;;) {
		ssize_t n = recv(u->sock, &answer, sizeof(answer), 0);

		if (n == sizeof(answer))
			return answer;
		if (n < 0 && errno == EINTR)
			continue;
		return n < 0 ? -errno : -EPIPE;
	}
}

void unmounter_free(struct unmounter *u)
{
	if (!u)
		return;
	close(u->sock);
	while (waitpid(u->pid, NULL, 0) < 0 && errno == EINTR)
		;
	free(u);
}
