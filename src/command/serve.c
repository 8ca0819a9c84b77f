/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From the first request to the last: starts the loops, answers the kernel's INIT, gives up what
 * serving does not need, and waits. Main thread. What fails here ends a mount that serves already,
 * in order (session_end_early).
 */
#include "base/log.h"
#include "command/daemon.h"
#include "command/readahead.h"
#include "command/sandbox.h"
#include "command/session.h"
#include "command/signals.h"
#include "command/watchdog.h"
#include "transport/transport.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

static int start_signals(struct session *s)
{
	struct signals_config sc = {
		.tr = s->tr,
		.watchdog = s->watchdog,
		.unmounter = s->unmounter,
		.name = s->probe.path,
		.mountpoint = s->mountpoint,
		.limit_ms = (unsigned)s->opt.drain_timeout * 1000,
		.ended = &s->ended,
	};
	int err = signals_start(&sc, &s->signals);

	if (!err)
		return 0;
	session_failed(s, EXIT_SYSTEM, "cannot start the signal thread: %s", strerror(-err));
	return session_end_early(s, EXIT_SYSTEM);
}

int session_serve(struct session *s)
{
	int err = loop_set_start(s->loops);

	if (err)
		return session_failed(s, EXIT_SYSTEM, "cannot start the loop threads: %s", strerror(-err));
	s->loops_on = true;
	__atomic_store_n(&s->serving, true, __ATOMIC_RELEASE);
	if (tr_start(s->tr, &s->reason))
		return EXIT_MOUNT;
	return start_signals(s);
}

static unsigned long remount_flags(const struct options *o)
{
	unsigned long flags = MS_REMOUNT | MS_RDONLY;

	flags |= o->nosuid ? MS_NOSUID : 0;
	flags |= o->nodev ? MS_NODEV : 0;
	flags |= o->noexec ? MS_NOEXEC : 0;
	flags |= o->sync ? MS_SYNCHRONOUS : 0;
	flags |= o->dirsync ? MS_DIRSYNC : 0;
	flags |= o->atime == OPT_ATIME_NO ? MS_NOATIME : 0;
	flags |= o->nodiratime ? MS_NODIRATIME : 0;
	return flags;
}

/* The kernel was told rw before the volume was opened (fuseblk) and it turned out read-only. */
static void tell_kernel_read_only(struct session *s)
{
	if (!s->fuseblk || strncmp(s->mount_opts, "rw", 2) || !s->read_only)
		return;
	if (mount(NULL, s->mountpoint, NULL, remount_flags(&s->opt), NULL))
		log_warn("the mount looks writable but is not: %s", strerror(errno));
}

static void set_readahead(struct session *s)
{
	unsigned kib = (unsigned)s->opt.readahead;

	if (s->root)
		readahead_set(s->mountpoint, kib ? kib : readahead_default(s->probe.path));
	else if (kib)
		log_warn("option readahead needs root: the kernel reads 128 KiB ahead, as on every FUSE mount");
}

_Static_assert((int)OPT_SANDBOX_ON == SANDBOX_ON && (int)OPT_SANDBOX_OFF == SANDBOX_OFF &&
	       (int)OPT_SANDBOX_LOG == SANDBOX_LOG, "one list of values");

int session_settle(struct session *s)
{
	tell_kernel_read_only(s);
	set_readahead(s);
	watchdog_open_abort(s->watchdog, s->mountpoint);
	daemon_open_files();
	if (sandbox_enter((enum sandbox_mode)s->opt.sandbox, &s->reason))
		return session_end_early(s, EXIT_SYSTEM);
	return 0;
}

void session_wait(struct session *s)
{
	watchdog_serving(s->watchdog);
	daemon_ready();
	fdio_log_set_level(options_log_level(&s->opt));
	log_info("%s mounted on %s%s", s->probe.path, s->mountpoint, s->read_only ? " read-only" : "");
	daemon_notify("READY=1", "serving %s on %s", s->probe.path, s->mountpoint);
	tr_wait(s->tr);
}
