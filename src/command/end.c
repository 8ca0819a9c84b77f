/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of a session. session_destroy, on the transport's control thread, is what umount of a
 * fuseblk mount waits for: when it returns, the file system is clean on the device. session_free,
 * on the main thread, takes apart what is left, in the reverse order of its making; it also does
 * that for a start that failed.
 */
#include "base/epoch.h"
#include "base/log.h"
#include "command/daemon.h"
#include "command/session.h"
#include "command/signals.h"
#include "command/unmounter.h"
#include "command/watchdog.h"
#include "ops/ops.h"

#include <errno.h>
#include <string.h>

int session_umount(void *arg, bool lazy)
{
	struct session *s = arg;
	int err;

	fdio_magic_check(s, MAGIC_SESSION);
	err = unmounter_do(s->unmounter, lazy);
	if (err == -EEXIST || (lazy && err && err != -EINVAL))
		s->left_behind = true; /* the connection is ended next: session_destroy sees it */
	return err;
}

void session_ending(void *arg)
{
	struct session *s = arg;

	fdio_magic_check(s, MAGIC_SESSION);
	__atomic_store_n(&s->ended, true, __ATOMIC_RELEASE);
	watchdog_ending(s->watchdog);
}

static void say_result(const struct session *s)
{
	const char *path = s->probe.path;

	if (s->result)
		log_err("%s could not be written completely: %s; run e2fsck", path, strerror(-s->result));
	else if (s->left_behind)
		log_info("%s is written and clean; its mount on %s is left behind", path, s->mountpoint);
	else
		log_info("%s unmounted from %s", path, s->mountpoint);
}

/* Called once: no request will come any more. */
void session_destroy(void *arg, bool aborted)
{
	struct session *s = arg;

	fdio_magic_check(s, MAGIC_SESSION);
	__atomic_store_n(&s->doing, "writing out", __ATOMIC_RELEASE);
	daemon_notify("STOPPING=1", "writing out %s", s->probe.path);
	if (aborted)
		log_warn("the connection of %s was aborted", s->mountpoint);
	dio_drain(s->dio);
	ops_shutdown(s->ops);
	dio_drain(s->dio);
	wq_drain(s->io);
	wq_drain(s->syncers);
	s->result = x4_vol_close(s->vol);
	s->vol = NULL;
	say_result(s);
}

int session_end_early(struct session *s, int status)
{
	tr_unmount(s->tr);
	tr_wait(s->tr);
	return status;
}

void session_free(struct session *s)
{
	signals_stop(s->signals);
	if (s->loops_on)
		loop_set_stop(s->loops);
	watchdog_free(s->watchdog);
	tr_free(s->tr);
	if (s->dio)
		dio_drain(s->dio);
	if (s->ops)
		ops_shutdown(s->ops);
	/* Only when starting failed: otherwise the volume was closed while the umount waited. */
	if (s->vol)
		x4_vol_close(s->vol);
	unmounter_free(s->unmounter);
	wq_free(s->workers);
	wq_free(s->io);
	wq_free(s->syncers);
	if (s->dio)
		dio_free(s->dio);
	ops_free(s->ops);
	if (s->loops)
		loop_set_free(s->loops);
	if (s->dev)
		dev_close(s->dev);
	epoch_drain();
}
