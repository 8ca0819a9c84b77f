/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watchdog's callbacks (watchdog.h). They run on the watchdog's thread, which must not wait for
 * the device; check_device_work does wait, and runs on a sync worker. Until session->serving is set
 * they leave transport and device alone, which are still being made. Nothing here fails, except
 * starting the watchdog.
 */
#include "command/daemon.h"
#include "command/session.h"
#include "command/watchdog.h"
#include "dev/dev.h"
#include "transport/connection.h"

#include <string.h>
#include <unistd.h>

#define EXTEND_USEC "60000000" /* how long the service manager then waits for the next message */

static void log_in_flight(void *arg)
{
	struct session *session = arg;

	fdio_magic_check(session, MAGIC_SESSION);
	if (!__atomic_load_n(&session->serving, __ATOMIC_ACQUIRE))
		return;
	transport_log_busy(session->transport);
	dev_log_busy(session->dev);
}

static void check_device_work(struct work *work)
{
	struct session *session = container_of(work, struct session, check_work);

	fdio_magic_check(session, MAGIC_SESSION);
	dev_lost(session->dev); /* logs if the device is lost, and makes all later writes fail */
	__atomic_store_n(&session->checking, false, __ATOMIC_RELEASE);
}

/*
 * Called while the mount serves. Hands the check to a worker, because dev_lost hangs if the image
 * lies on a network file system that hangs.
 */
static void check_device(void *arg)
{
	struct session *session = arg;

	if (!__atomic_exchange_n(&session->checking, true, __ATOMIC_ACQ_REL))
		work_queue_add(session->syncers, &session->check_work, check_device_work);
}

/* Called while the mount starts or ends. */
static void tell_alive(void *arg)
{
	struct session *session = arg;
	const char *doing = __atomic_load_n(&session->doing, __ATOMIC_ACQUIRE);

	daemon_notify("EXTEND_TIMEOUT_USEC=" EXTEND_USEC, "%s %s", doing, session->probe.path);
}

static void give_up(void *arg)
{
	(void)arg;
	daemon_notify("STOPPING=1", "given up: the next mount recovers");
	_exit(EXIT_SYSTEM);
}

/* From here on tell_alive keeps the service manager waiting during a long start. */
int session_watch(struct session *session)
{
	struct watchdog_config config = {
		.name = session->probe.path,
		.limit_ms = (unsigned)session->options.drain_timeout * 1000,
		.log_in_flight = log_in_flight,
		.tell_alive = tell_alive,
		.check_device = check_device,
		.give_up = give_up,
		.arg = session,
	};
	int err;

	session->doing = "recovering";
	err = watchdog_new(&config, &session->watchdog);
	if (!err)
		return 0;
	return session_failed(session, EXIT_SYSTEM, "cannot start the watchdog thread: %s",
			      strerror(-err));
}
