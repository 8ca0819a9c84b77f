/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the daemon (unmounter.c) and the unmounter process (unmounter_child.c) send each other.
 *
 * The unmount socket carries commands of one byte. The answer to UNMOUNTER_HOLDERS is a text of at
 * most UNMOUNTER_TEXT_CAP bytes with its NUL; the answer to the others is an int, 0 or -errno. The
 * process also sends one such int unasked, when it is ready or has failed to start. The question
 * socket carries struct unmounter_question, which comes back with its answer. The sockets keep
 * message boundaries (SOCK_SEQPACKET). While the process is inside umount2 it answers neither.
 */
#ifndef FDIO_COMMAND_UNMOUNTER_CHILD_H
#define FDIO_COMMAND_UNMOUNTER_CHILD_H

#include "base/nowait.h"
#include "base/util.h"

#define UNMOUNTER_TEXT_CAP 512

enum {
	UNMOUNTER_MOUNTED = 'm', /* the mount exists now: remember it */
	UNMOUNTER_UMOUNT = 'u',
	UNMOUNTER_LAZY = 'l',    /* unmount lazily (MNT_DETACH) */
	UNMOUNTER_HOLDERS = 'w', /* where is the file system still mounted? */
};

/* Which function answers: one of caller.h, or find_ours. */
enum { UNMOUNTER_IN_GROUP, UNMOUNTER_CAPABLE, UNMOUNTER_IDS, UNMOUNTER_IS_MOUNTED };
struct unmounter_question {
	uint32_t kind;
	uint32_t pid, uid;
	uint32_t what;   /* the group, or the capability; UNMOUNTER_IDS answers with uid and it */
	uint32_t serial; /* copied to the answer, which shows its question */
	uint32_t yes;    /* the answer */
};

/*
 * The unmounter process, after the fork. Closes everything but its ends of the two sockets, and
 * serves them until the daemon's ends are closed.
 */
void unmounter_child_main(const char *mountpoint, bool filter, int unmount_sock, int question_sock)
	__attribute__((noreturn)) FDIO_BLOCKS;

#endif
