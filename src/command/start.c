/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The start of a session, step by step, until the kernel's requests are served. Main thread. A step
 * that fails ends the start; SIGTERM and SIGINT end it between two steps.
 *
 * The journal is recovered first (recover.h). Then a block device as root is mounted as fuseblk, so
 * that the kernel claims it, and the volume is opened after that; the kernel's first request is
 * answered last. An image file is locked by us, and its volume is opened before the mount.
 */
#include "base/log.h"
#include "base/stop.h"
#include "command/daemon.h"
#include "command/recover.h"
#include "command/sandbox.h"
#include "command/session.h"
#include "command/superopts.h"
#include "command/unmounter.h"
#include "dev/open.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static int lock_memory(struct session *session)
{
	return session->options.mlock && daemon_mlock(&session->reason) ? EXIT_SYSTEM : 0;
}

/* Before there are threads, and descriptors that it must not keep open. */
static int start_unmounter(struct session *session)
{
	bool filter = session->options.sandbox == OPT_SANDBOX_ON;
	int err = unmounter_new(session->mountpoint, filter, &session->unmounter, &session->reason);

	return err ? EXIT_SYSTEM : 0;
}

/* An image is a file, and RLIMIT_FSIZE is meant for files. */
static int raise_limits(struct session *session)
{
	bool writes = !session->probe.is_block && !session->options.norecovery &&
		      !session->probe.read_only_dev;
	struct stat st = { 0 };
	uint64_t bytes;

	if (writes && stat(session->probe.path, &st))
		return session_failed(session, EXIT_MOUNT, "%s: %s", session->probe.path,
				      strerror(errno));
	bytes = writes ? (uint64_t)st.st_size : 0;
	return daemon_raise_limits(bytes, &session->reason) ? EXIT_SYSTEM : 0;
}

static int probe(struct session *session)
{
	return probe_device(session->options.device, session->options.read_only, &session->probe,
			    &session->reason)
			       ? EXIT_MOUNT
			       : 0;
}

static int find_device(struct session *session)
{
	int status = probe(session);

	if (status)
		return status;
	superopts_apply(&session->options, session->probe.super, session->probe.path);
	return raise_limits(session);
}

static int recover(struct session *session)
{
	bool again = false;

	if (!session->options.norecovery &&
	    recover_device(&session->probe, session->options.read_only, &again, &session->reason))
		return EXIT_MOUNT;
	__atomic_store_n(&session->doing, "opening", __ATOMIC_RELEASE);
	return again ? probe(session) : 0;
}

static int open_device(struct session *session)
{
	unsigned flags = 0;

	session->read_only = session->options.read_only || session->probe.read_only_dev;
	if (session->probe.read_only_dev && !session->options.read_only)
		log_warn("%s is write-protected: serving it read-only", session->probe.path);
	session->options.read_only = session->read_only;
	session->fuseblk = session->root && session->probe.is_block;
	if (session->fuseblk && session->options.fsname)
		return session_failed(session, EXIT_USAGE,
				      "option fsname is for image files: the kernel "
				      "shows a block device under its own name");
	flags |= session->read_only ? DEV_OPEN_RDONLY : 0;
	flags |= session->fuseblk ? 0 : DEV_OPEN_EXCL;
	return dev_uring_open(session->probe.path, flags, &session->dev, &session->reason)
			       ? EXIT_MOUNT
			       : 0;
}

/* fuseblk: the kernel's claim replaces ours before anything is written. */
static int mount_block(struct session *session)
{
	int status = assemble_transport(session);

	if (!status && probe_recheck(&session->probe, dev_uring_fd(session->dev), &session->reason))
		status = EXIT_MOUNT;
	return status ? status : assemble_volume(session);
}

static int mount_file(struct session *session)
{
	int status = assemble_volume(session);

	return status ? status : assemble_transport(session);
}

static int mount_and_open(struct session *session)
{
	return session->fuseblk ? mount_block(session) : mount_file(session);
}

int session_start(struct session *session)
{
	static int (*const steps[])(struct session *session) = {
		lock_memory, start_unmounter, find_device, session_watch, recover, open_device,
		assemble_loops, mount_and_open, assemble_operations, session_serve,
	};
	int status = 0;

	for (size_t i = 0; i < ARRAY_SIZE(steps) && !status && !fdio_stop_asked(); i++)
		status = steps[i](session);
	/* Once the signal thread is there it takes the signal: the mount ends in order. */
	if (!session->signals && fdio_stop_asked()) {
		session->stopped = true;
		status = session_failed(session, EXIT_MOUNT,
					"%s: told to end before it was mounted",
					session->options.device);
	}
	return status;
}
