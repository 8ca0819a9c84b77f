/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The unmounter process, see unmounter.h. It has one thread, never allocates, because it runs after
 * a fork, and never returns. What cannot be done is answered with -errno, or with no.
 *
 * umount2 takes a path, and by then the path may lead to another mount: somebody may have moved the
 * mount, unmounted it and mounted something else there, or mounted something over it. So the
 * process remembers the mount ID, the device number, the source, and the unique mount ID (Linux
 * 6.8), looks up where that mount is now, and unmounts a path only if it leads to that mount.
 */
#include "command/unmounter_child.h"

#include "command/caller.h"
#include "command/mounts.h"
#include "command/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define TABLE_CAP (4 << 20) /* fits thousands of mounts, even with the long lines of overlayfs */

/* Where the process keeps its ends of the sockets. */
enum { UNMOUNT_FD = 3, QUESTION_FD = 4, FIRST_OTHER_FD = 5, FIRST_FREE_FD = 10 };

/* Static, because the process does not allocate. */
static char table[TABLE_CAP]; /* a table of mounts */
static char place[PATH_MAX];  /* where find_ours has found the mount */

/*
 * The daemon's mount. Its path may change, and once it is gone the kernel may reuse its ID for
 * another mount; but while the daemon lives, no other mount has the same device or image as source.
 */
static struct mount_line ours;
static char our_source[4 * PATH_MAX + 64]; /* in a table one character takes up to four */
static uint64_t our_unique_number;         /* 0: unknown */
static bool remembered;                    /* UNMOUNTER_MOUNTED has come */
static bool blind;                         /* no /proc: unmount whatever is on the mount point */

/* For an ordinary user: fusermount3 is set-user-ID root and checks that the mount is the user's. */
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

/*
 * The unique ID of the mount at path, which the kernel never reuses; 0 before Linux 6.8. Sends no
 * GETATTR to the daemon (AT_STATX_DONT_SYNC), which may hang and not answer.
 */
static uint64_t unique_number(const char *path)
{
	const unsigned mask = 0x4000; /* STATX_MNT_ID_UNIQUE */
	struct statx s;

	if (statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, mask,
		  &s))
		return 0;
	return s.stx_mask & mask ? s.stx_mnt_id : 0;
}

/*
 * Remembers the topmost mount on path as ours. Works only once, so that a compromised daemon cannot
 * make this process take another mount for ours.
 */
static int remember(const char *path)
{
	struct mount_line line;
	const char *rest = table;

	if (remembered)
		return -EINVAL;
	remembered = true;
	blind = !mounts_read("/proc/self/mountinfo", table, sizeof(table));
	if (blind)
		return -ENOENT;
	while ((rest = mounts_next(rest, &line)))
		if (mounts_is_path(&line, path))
			ours = line;
	if (!ours.id)
		return -ENOENT;
	our_unique_number = unique_number(path);
	snprintf(our_source, sizeof(our_source), "%.*s", (int)strcspn(ours.source, "\n"),
		 ours.source);
	return 0;
}

static bool is_ours(const struct mount_line *line)
{
	return line->id == ours.id && line->dev[0] == ours.dev[0] && line->dev[1] == ours.dev[1] &&
	       mounts_same_source(line->source, our_source);
}

/* Finds the mount in the table of mounts and writes its path to place. */
static bool find_ours(void)
{
	struct mount_line line;
	const char *rest = table;

	if (!mounts_read("/proc/self/mountinfo", table, sizeof(table)))
		return false;
	while ((rest = mounts_next(rest, &line)))
		if (is_ours(&line))
			return mounts_path(&line, place, sizeof(place));
	return false;
}

/*
 * True if the path in place leads to another mount: one over ours, or over a directory above it. If
 * place cannot be opened for a reason that a covering mount does not explain, false: umount2 will
 * then return the error.
 */
static bool is_covered(void)
{
	int fd = open(place, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char name[40], info[512];
	const char *id;
	bool known;

	if (fd < 0)
		return errno == ENOENT || errno == ENOTDIR;
	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
	known = mounts_read(name, info, sizeof(info));
	close(fd); /* before umount2: an open file keeps the mount busy */
	id = known ? strstr(info, "mnt_id:") : NULL;
	return id && strtoul(id + strlen("mnt_id:"), NULL, 10) != ours.id;
}

static int unmount_ours(const char *mountpoint, bool root, bool lazy)
{
	uint64_t number;

	if (blind)
		return do_unmount(mountpoint, root, lazy);
	if (!ours.id || !find_ours())
		return -EINVAL;
	if (is_covered())
		return -EEXIST;
	number = unique_number(place);
	if (our_unique_number && number && number != our_unique_number)
		return -EINVAL;
	return do_unmount(place, root, lazy);
}

/* Serves one command. False: the daemon's end of the socket is closed. */
static bool serve_command(const char *mountpoint, bool root)
{
	static char who[UNMOUNTER_TEXT_CAP];
	char command;
	int err;

	if (recv(UNMOUNT_FD, &command, 1, 0) != 1)
		return false;
	if (command == UNMOUNTER_HOLDERS) {
		mounts_holders(ours.dev, table, sizeof(table), who, sizeof(who));
		return send(UNMOUNT_FD, who, strlen(who) + 1, MSG_NOSIGNAL) > 0;
	}
	if (command == UNMOUNTER_MOUNTED)
		err = remember(mountpoint);
	else
		err = unmount_ours(mountpoint, root, command == UNMOUNTER_LAZY);
	return send(UNMOUNT_FD, &err, sizeof(err), MSG_NOSIGNAL) == sizeof(err);
}

/* Answers one question. False: the daemon's end of the socket is closed. */
static bool serve_question(void)
{
	struct unmounter_question question;

	if (recv(QUESTION_FD, &question, sizeof(question), 0) != sizeof(question))
		return false;
	if (question.kind == UNMOUNTER_IN_GROUP)
		question.yes = caller_in_group(question.pid, question.what);
	else if (question.kind == UNMOUNTER_IDS)
		question.yes = caller_ids(question.pid, &question.uid, &question.what);
	else if (question.kind == UNMOUNTER_IS_MOUNTED)
		question.yes = ours.id && find_ours();
	else
		question.yes = caller_capable(question.pid, question.uid, question.what);
	return send(QUESTION_FD, &question, sizeof(question), MSG_NOSIGNAL) == sizeof(question);
}

/*
 * Moves the sockets to UNMOUNT_FD and QUESTION_FD and closes everything else but the standard
 * streams. On failure unmount_sock is still open.
 */
static int keep_sockets(int unmount_sock, int question_sock)
{
	/* Out of the way first: either may have the other's number. */
	unmount_sock = fcntl(unmount_sock, F_DUPFD, FIRST_FREE_FD);
	question_sock = fcntl(question_sock, F_DUPFD, FIRST_FREE_FD);
	if (unmount_sock < 0 || question_sock < 0)
		/* EINVAL: RLIMIT_NOFILE is too small */
		return errno == EINVAL ? -EMFILE : -errno;
	dup2(unmount_sock, UNMOUNT_FD);
	dup2(question_sock, QUESTION_FD);
	syscall(SYS_close_range, FIRST_OTHER_FD, UINT_MAX, 0);
	return 0;
}

static void set_up_process(void)
{
	int null = open("/dev/null", O_RDWR);
	sigset_t all;

	/* A signal to the daemon's process group must not end this process before the daemon. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "fdio-unmounter");
	for (int fd = 0; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
}

void unmounter_child_main(const char *mountpoint, bool filter, int unmount_sock, int question_sock)
{
	struct pollfd fds[] = { { .fd = UNMOUNT_FD, .events = POLLIN },
				{ .fd = QUESTION_FD, .events = POLLIN } };
	bool root = geteuid() == 0, more = true;
	int err, daemon;

	set_up_process();
	err = keep_sockets(unmount_sock, question_sock);
	daemon = err ? unmount_sock : UNMOUNT_FD;
	if (!err && (chdir("/") || (root && sandbox_unmounter(filter))))
		err = -EPERM;
	/* 0: ready */
	if (send(daemon, &err, sizeof(err), MSG_NOSIGNAL) != sizeof(err) || err)
		_exit(1);
	while (more && poll(fds, ARRAY_SIZE(fds), -1) > 0) {
		if (fds[0].revents)
			more = serve_command(mountpoint, root);
		if (more && fds[1].revents)
			more = serve_question();
	}
	_exit(0);
}
