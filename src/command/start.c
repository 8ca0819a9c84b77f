/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The start of a session: the steps until the requests of the kernel are served (session_start).
 * Main thread. A step that fails ends the start; SIGTERM and SIGINT end it between two steps.
 *
 * The journal is recovered first (recover.h). What follows depends on the device:
 *   - Root mounts a block device as fuseblk: the kernel claims the device during the mount, and the
 *     volume is opened after it. The kernel's first request is answered last.
 *   - An image file, or a block device without root, is locked or claimed by dev_uring_open, and
 *     the volume is opened before the mount.
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

/* The unmounter is forked, so this comes before other threads and before the device is open. */
static int start_unmounter(struct session *session)
{
	bool filter = session->options.sandbox == OPT_SANDBOX_ON;
	int err = unmounter_new(session->mountpoint, filter, &session->unmounter, &session->reason);

	return err ? EXIT_SYSTEM : 0;
}

/* RLIMIT_FSIZE applies to an image file, not to a block device. */
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
	const struct options *options = &session->options;
	int err = probe_device(options->device, options->read_only, &session->probe,
			       &session->reason);

	return err ? EXIT_MOUNT : 0;
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
	bool changed = false;

	if (!session->options.norecovery &&
	    recover_device(&session->probe, session->options.read_only, &changed,
			   &session->reason))
		return EXIT_MOUNT;
	__atomic_store_n(&session->doing, "opening", __ATOMIC_RELEASE);
	return changed ? probe(session) : 0;
}

static int open_device(struct session *session)
{
	unsigned flags = 0;
	int err;

	session->read_only = session->options.read_only || session->probe.read_only_dev;
	if (session->probe.read_only_dev && !session->options.read_only)
		log_warn("%s is write-protected: serving it read-only", session->probe.path);
	session->options.read_only = session->read_only;
	session->fuseblk = session->root && session->probe.is_block;
	if (session->fuseblk && session->options.fsname)
		return session_failed(session, EXIT_USAGE,
				      "option fsname is for image files: the kernel shows a block "
				      "device under its own name");
	flags |= session->read_only ? DEV_OPEN_RDONLY : 0;
	flags |= session->fuseblk ? 0 : DEV_OPEN_EXCL;
	err = dev_uring_open(session->probe.path, flags, &session->dev, &session->reason);
	return err ? EXIT_MOUNT : 0;
}

/*
 * fuseblk: the mount claims the device for the kernel. probe_recheck then makes sure that no other
 * program changed the device between recovery and the claim; fusedio writes nothing before that.
 */
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
	/* If the signal thread runs already, it takes the signal and unmounts in order. */
	if (!session->signals && fdio_stop_asked()) {
		session->stopped = true;
		status = session_failed(session, EXIT_MOUNT,
					"%s: told to end before it was mounted",
					session->options.device);
	}
	return status;
}
