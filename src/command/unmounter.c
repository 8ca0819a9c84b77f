/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The unmounter process, see unmounter.h, and the daemon's side of its two sockets.
 *
 * Over one socket it is told that the mount is there ('m'), and to unmount: 'u', or 'l' (lazy). The
 * answer is an int, 0 or -errno. 'w' asks who else has the file system mounted; the answer is text.
 * Over the other socket it is asked what /proc says of a caller (caller.h): struct question, which
 * comes back with its answer. While it waits in umount(2) it answers nothing, so whoever asks waits
 * for a bounded time.
 *
 * It knows the mount by the kernel's numbers of it, by its source, and by the number that is never
 * given out again, where there is one. The mount may have been renamed since, and umount2 takes
 * names, so it looks first whether the name leads to that mount: somebody may have unmounted it and
 * mounted something else, or something over it.
 *
 * The child has one thread, never allocates after the fork and never returns. In the daemon,
 * unmounter.lock (RANK_LEAF) lets one thread ask at a time; unmounting is called by one thread at a
 * time. A child that is gone is -EPIPE to who unmounts, and no to who asks.
 */
#include "command/unmounter.h"

#include "base/lock.h"
#include "base/magic.h"
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
#include <sys/wait.h>
#include <unistd.h>

#define TABLE_CAP (4 << 20) /* thousands of mounts, also of containers, whose lines are long */
#define HOLDERS_CAP 512
#define ASK_MS 2000

/* what: a group, or a capability that the caller, whose user is uid, may have. */
enum { ASK_GROUP, ASK_CAPABILITY };
struct question { uint32_t kind, pid, uid, what, serial, yes; };

struct unmounter {
	FDIO_MAGIC_FIELD;
	int sock, ask;
	pid_t pid;
	struct fdio_mutex lock; /* one question at a time; guards serial */
	uint32_t serial;
};

/* ------------------------------------------------------------------ the child */

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

/* The child does not allocate. */
static char text[TABLE_CAP];

/*
 * What the daemon mounted, by the kernel's numbers of it and by its source: its place may change,
 * and numbers are given to others once it is gone, but the device or image is the daemon's until
 * its end. blind: without /proc its first place must do.
 */
static struct mount_line ours;
static uint64_t our_number;
static char our_source[4 * PATH_MAX + 64]; /* four characters for one, at most */
static bool told, blind;
static char where[PATH_MAX];

/*
 * The number of the mount at path that is never given to another, 0 before Linux 6.8. Asks nobody
 * for attributes: the daemon may be the one that does not answer.
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

/* The topmost mount on path. Believed once. */
static int remember(const char *path)
{
	struct mount_line line;
	const char *rest = text;

	if (told)
		return -EINVAL;
	told = true;
	blind = !mounts_read("/proc/self/mountinfo", text, sizeof(text));
	if (blind)
		return -ENOENT;
	while ((rest = mounts_next(rest, &line)))
		if (mounts_is_path(&line, path))
			ours = line;
	if (!ours.id)
		return -ENOENT;
	our_number = unique_number(path);
	snprintf(our_source, sizeof(our_source), "%.*s", (int)strcspn(ours.source, "\n"),
		 ours.source);
	return 0;
}

static bool is_ours(const struct mount_line *line)
{
	return line->id == ours.id && line->dev[0] == ours.dev[0] && line->dev[1] == ours.dev[1] &&
	       mounts_same_source(line->source, our_source);
}

/* Where it is now, in where. */
static bool find_ours(void)
{
	struct mount_line line;
	const char *rest = text;

	if (!mounts_read("/proc/self/mountinfo", text, sizeof(text)))
		return false;
	while ((rest = mounts_next(rest, &line)))
		if (is_ours(&line))
			return mounts_path(&line, where, sizeof(where));
	return false;
}

/*
 * Whether the way to where leads to another mount: one that was made over it, or over a directory
 * above it.
 */
static bool is_covered(void)
{
	int fd = open(where, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	char name[40], info[512];
	const char *id;
	bool known;

	if (fd < 0)
		/* otherwise umount2 says what is the matter */
		return errno == ENOENT || errno == ENOTDIR;
	snprintf(name, sizeof(name), "/proc/self/fdinfo/%d", fd);
	known = mounts_read(name, info, sizeof(info));
	close(fd); /* before umount2: an open file keeps it busy */
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
	number = unique_number(where);
	if (our_number && number && number != our_number)
		return -EINVAL;
	return do_unmount(where, root, lazy);
}

/* False: the daemon's end of the socket is gone. */
static bool serve_unmount(const char *mountpoint, bool root, int sock)
{
	static char who[HOLDERS_CAP];
	char c;
	int err;

	if (recv(sock, &c, 1, 0) != 1)
		return false;
	if (c == 'w') {
		mounts_holders(ours.dev, text, sizeof(text), who, sizeof(who));
		return send(sock, who, strlen(who) + 1, MSG_NOSIGNAL) > 0;
	}
	err = c == 'm' ? remember(mountpoint) : unmount_ours(mountpoint, root, c == 'l');
	return send(sock, &err, sizeof(err), MSG_NOSIGNAL) == sizeof(err);
}

static bool serve_question(int ask)
{
	struct question question;

	if (recv(ask, &question, sizeof(question), 0) != sizeof(question))
		return false;
	question.yes = question.kind == ASK_GROUP ? caller_in_group(question.pid, question.what)
				    : caller_capable(question.pid, question.uid, question.what);
	return send(ask, &question, sizeof(question), MSG_NOSIGNAL) == sizeof(question);
}

/* Both sockets to fixed places, everything else closed. On failure sock is still where it was. */
static int keep_sockets(int sock, int ask)
{
	sock = fcntl(sock, F_DUPFD, 10);
	ask = fcntl(ask, F_DUPFD, 10);
	if (sock < 0 || ask < 0)
		/* EINVAL: RLIMIT_NOFILE is no more than that */
		return errno == EINVAL ? -EMFILE : -errno;
	dup2(sock, 3);
	dup2(ask, 4);
	close_range(5, UINT_MAX, 0);
	return 0;
}

static void child_main(const char *mountpoint, bool filter, int sock, int ask)
		__attribute__((noreturn));
static void child_main(const char *mountpoint, bool filter, int sock, int ask)
{
	struct pollfd p[] = { { .fd = 3, .events = POLLIN }, { .fd = 4, .events = POLLIN } };
	bool root = geteuid() == 0, more = true;
	int null = open("/dev/null", O_RDWR);
	sigset_t all;

	/* The daemon's end, not a signal for its process group, is what ends this process. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	prctl(PR_SET_NAME, "fdio-unmounter");
	for (int fd = 0; null >= 0 && fd <= 2; fd++)
		dup2(null, fd);
	int err = keep_sockets(sock, ask), daemon = err ? sock : 3;
	if (!err && (chdir("/") || (root && sandbox_unmounter(filter))))
		err = -EPERM;
	/* Ready, or why not. */
	if (send(daemon, &err, sizeof(err), MSG_NOSIGNAL) != sizeof(err) || err)
		_exit(1);
	while (more && poll(p, 2, -1) > 0) {
		if (p[0].revents)
			more = serve_unmount(mountpoint, root, 3);
		if (more && p[1].revents)
			more = serve_question(4);
	}
	_exit(0);
}

/* ------------------------------------------------------------------ the daemon's side */

static int connect_child(struct unmounter *unmounter, int child[2])
{
	struct timeval patience = { .tv_sec = ASK_MS / 1000, .tv_usec = ASK_MS % 1000 * 1000 };
	int a[2], b[2], err;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, a))
		return -errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, b)) {
		err = -errno;
		close(a[0]);
		close(a[1]);
		return err;
	}
	setsockopt(b[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	unmounter->sock = a[0];
	unmounter->ask = b[0];
	child[0] = a[1];
	child[1] = b[1];
	return 0;
}

int unmounter_new(const char *mountpoint, bool filter, struct unmounter **ret,
		struct fdio_reason *reason)
{
	struct unmounter *unmounter = calloc(1, sizeof(*unmounter));
	int child[2] = { -1, -1 }, err = unmounter ? connect_child(unmounter, child) : -ENOMEM;
	int ready;

	*ret = NULL;
	if (err)
		goto fail;
	fdio_magic_set(unmounter, MAGIC_UNMOUNTER);
	fdio_mutex_init(&unmounter->lock, RANK_LEAF);
	fflush(NULL);
	unmounter->pid = fork();
	if (!unmounter->pid)
		child_main(mountpoint, filter, child[0], child[1]);
	err = unmounter->pid < 0 ? -errno : 0;
	close(child[0]);
	close(child[1]);
	if (err) {
		close(unmounter->sock);
		close(unmounter->ask);
		fdio_mutex_fini(&unmounter->lock);
		goto fail;
	}
	if (recv(unmounter->sock, &ready, sizeof(ready), 0) != sizeof(ready))
		ready = -EPERM;
	if (ready) {
		unmounter_free(unmounter);
		unmounter = NULL;
		err = ready;
		goto fail;
	}
	*ret = unmounter;
	return 0;
fail:
	fdio_reason_set(reason, "cannot start the process that unmounts: %s", strerror(-err));
	free(unmounter);
	return err;
}

static bool ask(struct unmounter *unmounter, struct question question)
{
	struct question a = { 0 };
	bool yes = false;
	ssize_t n;

	fdio_magic_check(unmounter, MAGIC_UNMOUNTER);
	fdio_mutex_lock(&unmounter->lock);
	question.serial = ++unmounter->serial;
	if (send(unmounter->ask, &question, sizeof(question), MSG_NOSIGNAL | MSG_DONTWAIT) ==
	    sizeof(question)) {
		do /* answers that came too late are for nobody */
			n = recv(unmounter->ask, &a, sizeof(a), 0);
		while ((n < 0 && errno == EINTR) ||
		       (n == sizeof(a) && a.serial != question.serial));
		yes = n == sizeof(a) && a.yes;
	}
	fdio_mutex_unlock(&unmounter->lock);
	return yes;
}

bool unmounter_in_group(struct unmounter *unmounter, uint32_t pid, uint32_t gid)
{
	return ask(unmounter, (struct question){ .kind = ASK_GROUP, .pid = pid, .what = gid });
}

bool unmounter_capable(struct unmounter *unmounter, uint32_t pid, uint32_t uid, unsigned cap)
{
	return ask(unmounter,
		   (struct question){
				   .kind = ASK_CAPABILITY, .pid = pid, .uid = uid, .what = cap });
}

static int tell(struct unmounter *unmounter, const char *what)
{
	int answer;

	if (send(unmounter->sock, what, 1, MSG_NOSIGNAL) != 1)
		return -errno;
	for (;;) {
		ssize_t n = recv(unmounter->sock, &answer, sizeof(answer), 0);

		if (n == sizeof(answer))
			return answer;
		if (n < 0 && errno == EINTR)
			continue;
		return n < 0 ? -errno : -EPIPE;
	}
}

bool unmounter_holders(struct unmounter *unmounter, char *buf, size_t cap)
{
	char who[HOLDERS_CAP];
	ssize_t n;

	if (send(unmounter->sock, "w", 1, MSG_NOSIGNAL) != 1)
		return false;
	do
		n = recv(unmounter->sock, who, sizeof(who), 0);
	while (n < 0 && errno == EINTR);
	if (n <= 1)
		return false;
	who[n - 1] = '\0';
	snprintf(buf, cap, "%s", who);
	return true;
}

void unmounter_mounted(struct unmounter *unmounter) { tell(unmounter, "m"); }

int unmounter_do(struct unmounter *unmounter, bool lazy)
{
	return tell(unmounter, lazy ? "l" : "u");
}

void unmounter_free(struct unmounter *unmounter)
{
	if (!unmounter)
		return;
	close(unmounter->sock);
	close(unmounter->ask);
	while (waitpid(unmounter->pid, NULL, 0) < 0 && errno == EINTR)
		;
	fdio_mutex_fini(&unmounter->lock);
	fdio_magic_clear(unmounter, MAGIC_UNMOUNTER);
	free(unmounter);
}
