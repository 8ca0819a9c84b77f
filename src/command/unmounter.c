/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The daemon's side of the unmounter, see unmounter.h: starts the process, and asks it over the two
 * sockets of unmounter_child.h. The signal thread and the main thread use the unmount socket, one
 * at a time; ops workers use the question socket, where unmounter.lock (RANK_LEAF) lets one ask at
 * a time and ASK_MS bounds how long.
 *
 * If the process is gone, unmounting fails with -EPIPE, and questions are answered with no.
 */
#include "command/unmounter.h"

#include "base/lock.h"
#include "base/magic.h"
#include "command/unmounter_child.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define ASK_MS 2000

struct unmounter {
	FDIO_MAGIC_FIELD;
	int unmount_sock, question_sock;
	pid_t pid;
	struct fdio_mutex lock; /* guards serial, and lets one thread ask at a time */
	uint32_t serial;        /* of the last question */
};

/* Makes both socket pairs. child: the unmounter process's ends (unmount, question). */
static int make_sockets(struct unmounter *unmounter, int child[2])
{
	struct timeval patience = { .tv_sec = ASK_MS / 1000, .tv_usec = ASK_MS % 1000 * 1000 };
	int unmount[2], question[2], err;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, unmount))
		return -errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, question)) {
		err = -errno;
		close(unmount[0]);
		close(unmount[1]);
		return err;
	}
	setsockopt(question[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	unmounter->unmount_sock = unmount[0];
	unmounter->question_sock = question[0];
	child[0] = unmount[1];
	child[1] = question[1];
	return 0;
}

/* Forks the process and closes its ends of the sockets here. */
static int start_process(struct unmounter *unmounter, const char *mountpoint, bool filter,
			 const int child[2])
{
	int err;

	fflush(NULL);
	unmounter->pid = fork();
	if (!unmounter->pid)
		unmounter_child_main(mountpoint, filter, child[0], child[1]);
	err = unmounter->pid < 0 ? -errno : 0;
	close(child[0]);
	close(child[1]);
	return err;
}

static int fail_to_start(int err, struct fdio_reason *reason)
{
	return fdio_reason_fail(reason, err, "cannot start the process that unmounts: %s",
				strerror(-err));
}

int unmounter_new(const char *mountpoint, bool filter, struct unmounter **ret,
		  struct fdio_reason *reason)
{
	struct unmounter *unmounter = calloc(1, sizeof(*unmounter));
	int child[2] = { -1, -1 }, ready, err;

	*ret = NULL;
	if (!unmounter)
		return fail_to_start(-ENOMEM, reason);
	err = make_sockets(unmounter, child);
	if (err) {
		free(unmounter);
		return fail_to_start(err, reason);
	}
	fdio_magic_set(unmounter, MAGIC_UNMOUNTER);
	fdio_mutex_init(&unmounter->lock, RANK_LEAF);
	err = start_process(unmounter, mountpoint, filter, child);
	if (err) {
		unmounter_free(unmounter);
		return fail_to_start(err, reason);
	}
	if (recv(unmounter->unmount_sock, &ready, sizeof(ready), 0) != sizeof(ready))
		ready = -EPERM;
	if (ready) {
		unmounter_free(unmounter);
		return fail_to_start(ready, reason);
	}
	*ret = unmounter;
	return 0;
}

/* Asks one question, which becomes the answer; false also if none comes within ASK_MS. */
static bool ask(struct unmounter *unmounter, struct unmounter_question *question)
{
	struct unmounter_question answer = { 0 };
	bool yes = false;
	ssize_t n;

	fdio_magic_check(unmounter, MAGIC_UNMOUNTER);
	fdio_mutex_lock(&unmounter->lock);
	question->serial = ++unmounter->serial;
	if (send(unmounter->question_sock, question, sizeof(*question),
		 MSG_NOSIGNAL | MSG_DONTWAIT) == sizeof(*question)) {
		do /* skips the late answers to earlier questions */
			n = recv(unmounter->question_sock, &answer, sizeof(answer), 0);
		while ((n < 0 && errno == EINTR) ||
		       (n == sizeof(answer) && answer.serial != question->serial));
		yes = n == sizeof(answer) && answer.yes;
		*question = answer;
	}
	fdio_mutex_unlock(&unmounter->lock);
	return yes;
}

bool unmounter_in_group(struct unmounter *unmounter, uint32_t pid, uint32_t gid)
{
	struct unmounter_question question = { .kind = UNMOUNTER_IN_GROUP,
					       .pid = pid,
					       .what = gid };

	return ask(unmounter, &question);
}

bool unmounter_capable(struct unmounter *unmounter, uint32_t pid, uint32_t uid, unsigned cap)
{
	struct unmounter_question question = { .kind = UNMOUNTER_CAPABLE,
					       .pid = pid,
					       .uid = uid,
					       .what = cap };

	return ask(unmounter, &question);
}

bool unmounter_is_mounted(struct unmounter *unmounter)
{
	struct unmounter_question question = { .kind = UNMOUNTER_IS_MOUNTED };

	return ask(unmounter, &question);
}

bool unmounter_ids(struct unmounter *unmounter, uint32_t pid, uint32_t *uid, uint32_t *gid)
{
	struct unmounter_question question = { .kind = UNMOUNTER_IDS, .pid = pid };

	if (!ask(unmounter, &question))
		return false;
	*uid = question.uid;
	*gid = question.what;
	return true;
}

/* Sends a command whose answer is an int, and returns that, or -errno. */
static int command(struct unmounter *unmounter, char what)
{
	int answer;

	if (send(unmounter->unmount_sock, &what, 1, MSG_NOSIGNAL) != 1)
		return -errno;
	for (;;) {
		ssize_t n = recv(unmounter->unmount_sock, &answer, sizeof(answer), 0);

		if (n == sizeof(answer))
			return answer;
		if (n < 0 && errno == EINTR)
			continue;
		return n < 0 ? -errno : -EPIPE;
	}
}

bool unmounter_holders(struct unmounter *unmounter, char *buf, size_t cap)
{
	const char what = UNMOUNTER_HOLDERS;
	char who[UNMOUNTER_TEXT_CAP];
	ssize_t n;

	if (send(unmounter->unmount_sock, &what, 1, MSG_NOSIGNAL) != 1)
		return false;
	do
		n = recv(unmounter->unmount_sock, who, sizeof(who), 0);
	while (n < 0 && errno == EINTR);
	if (n <= 1)
		return false;
	who[n - 1] = '\0';
	snprintf(buf, cap, "%s", who);
	return true;
}

void unmounter_mounted(struct unmounter *unmounter) { command(unmounter, UNMOUNTER_MOUNTED); }

int unmounter_do(struct unmounter *unmounter, bool lazy)
{
	return command(unmounter, lazy ? UNMOUNTER_LAZY : UNMOUNTER_UMOUNT);
}

void unmounter_free(struct unmounter *unmounter)
{
	if (!unmounter)
		return;
	/* The process ends when the daemon's ends of the sockets are closed. */
	close(unmounter->unmount_sock);
	close(unmounter->question_sock);
	while (unmounter->pid > 0 && waitpid(unmounter->pid, NULL, 0) < 0 && errno == EINTR)
		;
	fdio_mutex_fini(&unmounter->lock);
	fdio_magic_clear(unmounter, MAGIC_UNMOUNTER);
	free(unmounter);
}
