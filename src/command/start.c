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
#include "dev/dev.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static int lock_memory(struct session *s)
{
	return s->opt.mlock && daemon_mlock(&s->reason) ? EXIT_SYSTEM : 0;
}

/* Before there are threads, and descriptors that it must not keep open. */
static int start_unmounter(struct session *s)
{
	bool filter = s->opt.sandbox == OPT_SANDBOX_ON;
	int err = unmounter_new(s->mountpoint, filter, &s->unmounter, &s->reason);

	return err ? EXIT_SYSTEM : 0;
}

/* An image is a file, and RLIMIT_FSIZE is meant for files. */
static int raise_limits(struct session *s)
{
	bool writes = !s->probe.is_block && !s->opt.norecovery && !s->probe.read_only_dev;
	struct stat st = { 0 };
	uint64_t bytes;

	if (writes && stat(s->probe.path, &st))
		return session_failed(s, EXIT_MOUNT, "%s: %s", s->probe.path, strerror(errno));
	bytes = writes ? (uint64_t)st.st_size : 0;
	return daemon_raise_limits(bytes, &s->reason) ? EXIT_SYSTEM : 0;
}

static int probe(struct session *s)
{
	return probe_device(s->opt.device, s->opt.read_only, &s->probe, &s->reason)
		? EXIT_MOUNT : 0;
}

static int find_device(struct session *s)
{
	int status = probe(s);

	if (status)
		return status;
	superopts_apply(&s->opt, s->probe.super, s->probe.path);
	return raise_limits(s);
}

static int recover(struct session *s)
{
	bool again = false;

	if (!s->opt.norecovery &&
	    recover_device(&s->probe, s->opt.read_only, &again, &s->reason))
		return EXIT_MOUNT;
	__atomic_store_n(&s->doing, "opening", __ATOMIC_RELEASE);
	return again ? probe(s) : 0;
}

static int open_device(struct session *s)
{
	unsigned flags = 0;

	s->read_only = s->opt.read_only || s->probe.read_only_dev;
	if (s->probe.read_only_dev && !s->opt.read_only)
		log_warn("%s is write-protected: serving it read-only", s->probe.path);
	s->opt.read_only = s->read_only;
	s->fuseblk = s->root && s->probe.is_block;
	if (s->fuseblk && s->opt.fsname)
		return session_failed(s, EXIT_USAGE, "option fsname is for image files: the kernel "
						     "shows a block device under its own name");
	flags |= s->read_only ? DEV_OPEN_RDONLY : 0;
	flags |= s->fuseblk ? 0 : DEV_OPEN_EXCL;
	return dev_uring_open(s->probe.path, flags, &s->dev, &s->reason) ? EXIT_MOUNT : 0;
}

/* fuseblk: the kernel's claim replaces ours before anything is written. */
static int mount_block(struct session *s)
{
	int status = assemble_transport(s);

	if (!status && probe_recheck(&s->probe, dev_uring_fd(s->dev), &s->reason))
		status = EXIT_MOUNT;
	return status ? status : assemble_volume(s);
}

static int mount_file(struct session *s)
{
	int status = assemble_volume(s);

	return status ? status : assemble_transport(s);
}

static int mount_and_open(struct session *s) { return s->fuseblk ? mount_block(s) : mount_file(s); }

int session_start(struct session *s)
{
	static int (*const steps[])(struct session *s) = {
		lock_memory, start_unmounter, find_device, session_watch, recover, open_device,
		assemble_loops, mount_and_open, assemble_operations, session_serve,
	};
	int status = 0;

	for (size_t i = 0; i < ARRAY_SIZE(steps) && !status && !fdio_stop_asked(); i++)
		status = steps[i](s);
	/* Once the signal thread is there it takes the signal: the mount ends in order. */
	if (!s->signals && fdio_stop_asked()) {
		s->stopped = true;
		status = session_failed(s, EXIT_MOUNT, "%s: told to end before it was mounted", s->opt.device);
	}
	return status;
}
