/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of a session. The transport's control thread runs session_destroy, which umount(8) of a
 * fuseblk mount waits for: when it returns, the file system is clean on the device. The main thread
 * runs session_free, which frees the rooms in the reverse order of their creation, also after a
 * start that failed. An error of the last writes is logged and becomes the exit status.
 */
#include "base/epoch.h"
#include "base/log.h"
#include "command/daemon.h"
#include "command/session.h"
#include "command/signals.h"
#include "command/unmounter.h"
#include "command/watchdog.h"
#include "dio/engine.h"
#include "ops/ops.h"
#include "transport/connection.h"

#include <errno.h>
#include <string.h>

int session_umount(void *arg, bool lazy)
{
	struct session *session = arg;
	int err;

	fdio_magic_check(session, MAGIC_SESSION);
	__atomic_store_n(&session->unmounting, true, __ATOMIC_RELEASE);
	err = unmounter_do(session->unmounter, lazy);
	/* The mount stays. The transport ends the connection next; log_result reports the mount. */
	if (err == -EEXIST || (lazy && err && err != -EINVAL))
		session->left_behind = true;
	return err;
}

/*
 * True if the connection has ended although nobody unmounted: the mount is still there, and gives
 * errors. umount -f ends the connection first, too.
 */
static bool was_cut_off(struct session *session)
{
	return !__atomic_load_n(&session->unmounting, __ATOMIC_ACQUIRE) &&
	       unmounter_is_mounted(session->unmounter);
}

static void log_cause(struct session *session, bool aborted)
{
	unsigned limit = transport_conn(session->transport)->request_timeout;

	if (aborted)
		log_warn("the connection of %s was aborted", session->mountpoint);
	else if (!was_cut_off(session))
		return;
	else if (limit)
		log_warn("the kernel has ended the connection of %s, as it does after umount -f, "
			 "and if a request takes longer than %u s (sysctls fs.fuse)",
			 session->mountpoint, limit);
	else
		log_warn("the kernel has ended the connection of %s, as it does after umount -f",
			 session->mountpoint);
}

void session_ending(void *arg, bool aborted)
{
	struct session *session = arg;

	fdio_magic_check(session, MAGIC_SESSION);
	__atomic_store_n(&session->ended, true, __ATOMIC_RELEASE);
	watchdog_ending(session->watchdog);
	log_cause(session, aborted);
}

static void log_result(const struct session *session)
{
	const char *path = session->probe.path;

	if (session->result)
		log_err("%s could not be written completely: %s; run e2fsck", path,
			strerror(-session->result));
	else if (session->left_behind)
		log_info("%s is written and clean; its mount on %s is left behind", path,
			 session->mountpoint);
	else
		log_info("%s unmounted from %s", path, session->mountpoint);
}

/*
 * Called once, after the last request. ops_shutdown waits for the operations that still run and
 * closes the files that are still open. Both can submit I/O to the engine, so the engine is drained
 * before and after.
 */
void session_destroy(void *arg)
{
	struct session *session = arg;

	fdio_magic_check(session, MAGIC_SESSION);
	__atomic_store_n(&session->doing, "writing out", __ATOMIC_RELEASE);
	daemon_notify("STOPPING=1", "writing out %s", session->probe.path);
	dio_drain(session->dio);
	ops_shutdown(session->ops);
	dio_drain(session->dio);
	work_queue_drain(session->io_workers);
	work_queue_drain(session->syncers);
	session->result = ext4_vol_close(session->vol);
	session->vol = NULL;
	log_result(session);
}

int session_end_early(struct session *session, int status)
{
	transport_unmount(session->transport);
	transport_wait(session->transport);
	return status;
}

void session_free(struct session *session)
{
	signals_stop(session->signals);
	if (session->loops_started)
		loop_set_stop(session->loops);
	watchdog_free(session->watchdog);
	transport_free(session->transport);
	if (session->dio)
		dio_drain(session->dio);
	if (session->ops)
		ops_shutdown(session->ops);
	/* Only if the start failed: otherwise session_destroy has closed the volume. */
	if (session->vol)
		ext4_vol_close(session->vol);
	unmounter_free(session->unmounter);
	work_queue_free(session->workers);
	work_queue_free(session->io_workers);
	work_queue_free(session->syncers);
	if (session->dio)
		dio_free(session->dio);
	ops_free(session->ops);
	if (session->loops)
		loop_set_free(session->loops);
	if (session->dev)
		dev_close(session->dev);
	epoch_drain();
}
