/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A session: one mount, from the parsed command line to the end of the process. A process has one
 * session. The main thread writes the fields; a field that another thread reads while the mount
 * serves is set before that thread begins, or is marked atomic.
 *
 * The files of a session, in the order of its life:
 *
 *   main.c      reads the command line, becomes a daemon, runs the steps below
 *   start.c     the steps until the mount serves: probe, recover, open, assemble, mount
 *   assemble.c  makes the rooms and joins transport, operations and engine; the only place that
 *               connects them
 *   serve.c     starts the threads, gives up privileges, waits for the end
 *   watch.c     the watchdog's callbacks
 *   end.c       writes everything out while umount waits, and frees the rooms
 *
 * A step returns 0 or an exit status of mount(8), with one line in session->reason. session_free
 * undoes the steps that were taken, in reverse order.
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
	char mount_opts[256];             /* the mount options for the kernel and mount(8) */
	char reason_text[PATH_MAX + 512]; /* the text of reason */
	struct fdio_reason reason;        /* why a step failed */
	bool root;                        /* started by root */
	bool fuseblk;                     /* the kernel claims the block device for the mount */
	bool read_only;

	/* The rooms, from the bottom up; NULL until they are made. */
	struct dev *dev;
	struct loop_set *loops;
	bool loops_started;            /* the loop threads run */
	struct work_queue *workers;    /* run operations that may block */
	struct work_queue *io_workers; /* run reads and writes that loop threads cannot */
	struct work_queue *syncers;    /* commit and flush for fsync and O_DSYNC */
	struct ext4_vol *vol;          /* NULL again once it is closed */
	struct dio *dio;
	struct ops *ops;
	struct transport *transport;

	struct unmounter *unmounter;
	struct watchdog *watchdog;
	struct signals *signals;

	const char *doing;      /* atomic: the current step, in words, for the service manager */
	bool serving;           /* atomic: the watchdog may use transport and dev */
	bool ended;             /* atomic: the kernel sends no more requests */
	struct work check_work; /* watch.c: checks the device */
	bool checking;          /* atomic: check_work is queued or runs */
	bool unmounting;        /* atomic: the daemon itself unmounts, or has unmounted */
	bool left_behind;       /* the mount could not be unmounted; it stays, without a daemon */
	bool stopped;           /* SIGTERM or SIGINT came before the mount served */
	int result;             /* of writing everything at the end: 0 or -errno */
};

/* session.c, main thread: sets session->reason to the formatted text and returns status. */
int session_failed(struct session *session, int status, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* start.c, main thread: all steps until the requests of the kernel are served. */
int session_start(struct session *session);

/*
 * assemble.c, main thread.
 *   assemble_loops       makes the loops and work queues, and attaches the device to each ring
 *   assemble_volume      opens the file system
 *   assemble_transport   makes the request slots, and mounts
 *   assemble_operations  makes the operations and the engine on the open volume, and joins them
 *                        with the transport
 */
int assemble_loops(struct session *session) FDIO_BLOCKS;
int assemble_volume(struct session *session) FDIO_BLOCKS;
int assemble_transport(struct session *session) FDIO_BLOCKS;
int assemble_operations(struct session *session) FDIO_BLOCKS;

/* serve.c, main thread: starts the loop threads, the transport and the signal thread. */
int session_serve(struct session *session) FDIO_BLOCKS;
/* Takes the last steps that need privileges, then enters the sandbox. */
int session_drop_privileges(struct session *session) FDIO_BLOCKS;
/* Tells the parent and the service manager that the mount serves, and waits for its end. */
void session_wait(struct session *session) FDIO_BLOCKS;

/* watch.c, main thread: starts the watchdog. */
int session_watch(struct session *session) FDIO_BLOCKS;

/*
 * end.c. The transport's callbacks; arg is the session. session_ending and session_destroy run on
 * its control thread, session_umount on the thread that called transport_unmount.
 */
int session_umount(void *arg, bool lazy);
void session_ending(void *arg, bool aborted);
void session_destroy(void *arg) FDIO_BLOCKS;
/* Main thread: a late step of the start failed. Ends the mount, which serves already. */
int session_end_early(struct session *session, int status) FDIO_BLOCKS;
/* Main thread: frees everything, at the end or after a step that failed. */
void session_free(struct session *session) FDIO_BLOCKS;

#endif
