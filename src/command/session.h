/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One mount, from the parsed command line to its end: what was asked for, what was found, and the
 * rooms that were made for it. There is one session a process. The main thread writes it; what
 * other threads read while the mount serves is set before they begin, or marked atomic.
 *
 * The files of a session, in the order of its life:
 *   main.c      the command line, the daemon's process, and the three steps below
 *   start.c     the steps until the mount serves: probe, recover, open, assemble, mount
 *   assemble.c  which room is made from which, and how a request gets from one to the next
 *   serve.c     the last steps before the mount is used, and what is given up then
 *   watch.c     what the watchdog sees and does
 *   end.c       what umount waits for, and taking the rooms apart
 *
 * A step returns 0 or an exit status of mount(8), with one line in reason; session_free undoes
 * whatever steps were taken, in reverse.
 */
#ifndef FDIO_COMMAND_SESSION_H
#define FDIO_COMMAND_SESSION_H

#include "base/magic.h"
#include "base/nowait.h"
#include "base/reason.h"
#include "base/work.h"
#include "command/options.h"
#include "command/probe.h"

struct session {
	FDIO_MAGIC_FIELD;
	struct options options;
	struct probe probe;
	char device[PATH_MAX], mountpoint[PATH_MAX];
	char mount_opts[256];      /* for the kernel and mount(8) */
	char err[PATH_MAX + 512];  /* what reason writes into */
	struct fdio_reason reason; /* why a step failed */
	bool root, fuseblk, read_only;

	/* The rooms, from the bottom up; NULL until they are made. */
	struct dev *dev;
	struct loop_set *loops;
	bool loops_on;             /* their threads run */
	struct work_queue *workers, *io, *syncers;
	struct ext4_vol *vol;        /* NULL again once it is closed */
	struct dio *dio;
	struct ops *ops;
	struct transport *transport;

	struct unmounter *unmounter;
	struct watchdog *watchdog;
	struct signals *signals;

	const char *doing;         /* atomic: for the service manager */
	bool serving;              /* atomic: tr and dev are there for the watchdog */
	bool ended;                /* atomic: no request comes any more */
	struct work look_work;     /* watch.c */
	bool looking;              /* atomic: look_work is queued or runs */
	bool left_behind;          /* the mount could not be reached when it was to go */
	bool stopped;              /* told to end before it served */
	int result;                /* of writing everything at the end: 0 or -errno */
};

/* Notes why a step failed; returns status. Main thread. */
int session_failed(struct session *session, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* start.c, main thread: everything until the kernel's requests are served. */
int session_start(struct session *session);

/*
 * assemble.c, main thread. assemble_loops: loops and work queues, with the device on each ring.
 * assemble_volume: opens the file system. assemble_transport: request slots, and the mount.
 * assemble_operations: the engine and the operations, on an open volume, and their callbacks.
 */
int assemble_loops(struct session *session) FDIO_BLOCKS;
int assemble_volume(struct session *session) FDIO_BLOCKS;
int assemble_transport(struct session *session) FDIO_BLOCKS;
int assemble_operations(struct session *session) FDIO_BLOCKS;

/* serve.c, main thread. session_serve: requests are taken from now on, and signals. */
int session_serve(struct session *session) FDIO_BLOCKS;
/* The last privileged steps, and then none any more. */
int session_settle(struct session *session) FDIO_BLOCKS;
/* Tells everybody that the mount is there, and waits for its end. */
void session_wait(struct session *session) FDIO_BLOCKS;

/* watch.c, main thread. From then on a device that does not answer shows in the log. */
int session_watch(struct session *session) FDIO_BLOCKS;

/*
 * end.c. The transport's callbacks (arg is the session), on its control thread but for
 * session_umount, which runs on the thread that asks for the end.
 */
int session_umount(void *arg, bool lazy);
void session_ending(void *arg);
void session_destroy(void *arg, bool aborted) FDIO_BLOCKS;
/* Main thread: the mount serves already, but the start has failed. Ends it; returns status. */
int session_end_early(struct session *session, int status) FDIO_BLOCKS;
/* Main thread, at the end or after a step that failed. */
void session_free(struct session *session) FDIO_BLOCKS;

#endif
