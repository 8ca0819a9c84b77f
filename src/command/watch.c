/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the watchdog (watchdog.h) sees of a session and does to it. The callbacks run on the
 * watchdog's thread, which must not wait for the device: so look_at_device runs on a syncer.
 */
#include "command/daemon.h"
#include "command/session.h"
#include "command/watchdog.h"
#include "dev/dev.h"
#include "transport/connection.h"

#include <string.h>
#include <unistd.h>

#define ALIVE_USEC "60000000"

static void log_in_flight(void *arg)
{
	struct session *session = arg;

	fdio_magic_check(session, MAGIC_SESSION);
	if (!__atomic_load_n(&session->serving, __ATOMIC_ACQUIRE))
		return;
	transport_log_busy(session->transport);
	dev_log_busy(session->dev);
}

static void look_at_device(struct work *work)
{
	struct session *session = container_of(work, struct session, look_work);

	fdio_magic_check(session, MAGIC_SESSION);
	dev_lost(session->dev); /* what it sees, it says and remembers */
	__atomic_store_n(&session->looking, false, __ATOMIC_RELEASE);
}

/* While the mount serves. An image on a server that hangs lets who looks wait. */
static void on_look(void *arg)
{
	struct session *session = arg;

	if (!__atomic_exchange_n(&session->looking, true, __ATOMIC_ACQ_REL))
		work_queue_add(session->syncers, &session->look_work, look_at_device);
}

/* While the mount does not serve yet, or no longer. */
static void on_alive(void *arg)
{
	struct session *session = arg;
	const char *doing = __atomic_load_n(&session->doing, __ATOMIC_ACQUIRE);

	daemon_notify("EXTEND_TIMEOUT_USEC=" ALIVE_USEC, "%s %s", doing, session->probe.path);
}

static void give_up(void *arg)
{
	(void)arg;
	daemon_notify("STOPPING=1", "given up: the next mount recovers");
	_exit(EXIT_SYSTEM);
}

/* A service manager sees from here on that we are alive. */
int session_watch(struct session *session)
{
	struct watchdog_config config = {
		.name = session->probe.path,
		.limit_ms = (unsigned)session->options.drain_timeout * 1000,
		.in_flight = log_in_flight,
		.alive = on_alive,
		.look = on_look,
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
