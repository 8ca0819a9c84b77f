/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serving: starts the loop threads, answers the kernel's INIT, attaches the mount to its directory,
 * gives up the privileges that serving does not need, and waits for the end. Main thread. Once INIT
 * is answered the mount serves already, so a later failure unmounts it in order
 * (session_end_early).
 */
#include "base/log.h"
#include "command/daemon.h"
#include "command/readahead.h"
#include "command/sandbox.h"
#include "command/session.h"
#include "command/signals.h"
#include "command/watchdog.h"
#include "transport/connection.h"

#include <errno.h>
#include <string.h>
#include <sys/mount.h>

static int start_signals(struct session *session)
{
	struct signals_config config = {
		.transport = session->transport,
		.watchdog = session->watchdog,
		.unmounter = session->unmounter,
		.name = session->probe.path,
		.mountpoint = session->mountpoint,
		.limit_ms = (unsigned)session->options.drain_timeout * 1000,
		.ended = &session->ended,
	};
	int err = signals_start(&config, &session->signals);

	if (!err)
		return 0;
	session_failed(session, EXIT_SYSTEM, "cannot start the signal thread: %s", strerror(-err));
	return session_end_early(session, EXIT_SYSTEM);
}

int session_serve(struct session *session)
{
	int err = loop_set_start(session->loops);

	if (err)
		return session_failed(session, EXIT_SYSTEM, "cannot start the loop threads: %s",
				      strerror(-err));
	session->loops_started = true;
	__atomic_store_n(&session->serving, true, __ATOMIC_RELEASE);
	if (transport_start(session->transport, &session->reason))
		return EXIT_MOUNT;
	if (transport_attach(session->transport, &session->reason))
		return session_end_early(session, EXIT_MOUNT);
	return start_signals(session);
}

static unsigned long remount_flags(const struct options *options)
{
	unsigned long flags = MS_REMOUNT | MS_RDONLY;

	flags |= options->nosuid ? MS_NOSUID : 0;
	flags |= options->nodev ? MS_NODEV : 0;
	flags |= options->noexec ? MS_NOEXEC : 0;
	flags |= options->sync ? MS_SYNCHRONOUS : 0;
	flags |= options->dirsync ? MS_DIRSYNC : 0;
	flags |= options->atime == OPT_ATIME_NO ? MS_NOATIME : 0;
	flags |= options->nodiratime ? MS_NODIRATIME : 0;
	return flags;
}

/*
 * fuseblk is mounted before the volume is opened. If the volume turned out to be read-only and the
 * mount was made with rw, remounts it with ro.
 */
static void tell_kernel_read_only(struct session *session)
{
	if (!session->fuseblk || strncmp(session->mount_opts, "rw", 2) || !session->read_only)
		return;
	if (mount(NULL, session->mountpoint, NULL, remount_flags(&session->options), NULL))
		log_warn("the mount looks writable but is not: %s", strerror(errno));
}

static void set_readahead(struct session *session)
{
	unsigned kib = (unsigned)session->options.readahead;

	if (session->root)
		readahead_set(session->mountpoint,
			      kib ? kib : readahead_default(session->probe.path));
	else if (kib)
		log_warn("option readahead needs root: the kernel reads 128 KiB ahead, as on every "
			 "FUSE mount");
}

_Static_assert((int)OPT_SANDBOX_ON == SANDBOX_ON && (int)OPT_SANDBOX_OFF == SANDBOX_OFF &&
	       (int)OPT_SANDBOX_LOG == SANDBOX_LOG, "one list of values");

int session_drop_privileges(struct session *session)
{
	tell_kernel_read_only(session);
	set_readahead(session);
	watchdog_open_abort(session->watchdog, session->mountpoint);
	daemon_open_files();
	if (sandbox_enter((enum sandbox_mode)session->options.sandbox, &session->reason))
		return session_end_early(session, EXIT_SYSTEM);
	return 0;
}

void session_wait(struct session *session)
{
	watchdog_serving(session->watchdog);
	daemon_ready();
	fdio_log_set_level(options_log_level(&session->options));
	log_info("%s mounted on %s%s", session->probe.path, session->mountpoint,
		 session->read_only ? " read-only" : "");
	daemon_notify("READY=1", "serving %s on %s", session->probe.path, session->mountpoint);
	transport_wait(session->transport);
}
