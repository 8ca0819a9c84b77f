/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The signal thread, see signals.h; the main thread starts and stops it. It sleeps in sigwaitinfo.
 * Only after it has asked for the unmount, and until the connection ends, it wakes every TICK_MS.
 * signals_stop sets stop and wakes it with SIGUSR2; that signal alone does nothing. No locks: the
 * thread alone uses the fields, except stop, which is atomic. Only starting it can fail.
 */
#include "command/signals.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/magic.h"
#include "base/thread.h"
#include "command/unmounter.h"
#include "command/watchdog.h"
#include "transport/connection.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 200u
#define FIRST_LOOK_MS 1000u /* before looking for other mounts; most unmounts take less */
#define LOOK_AGAIN_MS 5000u

struct signals {
	FDIO_MAGIC_FIELD;
	struct signals_config config;
	pthread_t thread;
	bool stop;              /* atomic */

	/* Used by the thread only. */
	bool waiting;           /* unmounted, and waiting for the end of the connection */
	bool logged;            /* log_other_mounts has logged */
	uint64_t waited_ms;
	uint64_t look_ms;       /* look for other mounts when waited_ms reaches this */
};

static void taken_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	sigaddset(set, SIGUSR1);
	sigaddset(set, SIGUSR2);
}

void signals_block(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_DFL); /* if it were ignored, waitpid would get no exit status */
	sigfillset(&set);
	sigdelset(&set, SIGSEGV);
	sigdelset(&set, SIGBUS);
	sigdelset(&set, SIGFPE);
	sigdelset(&set, SIGILL);
	sigdelset(&set, SIGABRT);
	pthread_sigmask(SIG_SETMASK, &set, NULL);
}

void signals_die(void)
{
	sigset_t set;

	signal(SIGTERM, SIG_DFL);
	signal(SIGINT, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL); /* the pending one arrives here */
	raise(SIGTERM);
	_exit(128 + SIGTERM);
}

static bool has_ended(const struct signals *signals)
{
	return __atomic_load_n(signals->config.ended, __ATOMIC_ACQUIRE);
}

static void end_connection(struct signals *signals)
{
	signals->waiting = false;
	log_warn("%s: ending the connection: what is left of the mount gives errors and keeps the "
		 "device in use until it is unmounted there",
		 signals->config.name);
	transport_let_go(signals->config.transport);
}

/* SIGTERM or SIGINT. */
static void unmount(struct signals *signals)
{
	if (has_ended(signals))
		return; /* nothing is left to unmount */
	if (signals->waiting) {
		end_connection(signals);
		return;
	}
	watchdog_end_asked(signals->config.watchdog);
	transport_unmount(signals->config.transport);
	signals->waiting = true;
	signals->waited_ms = 0;
	signals->look_ms = FIRST_LOOK_MS;
}

/* The mount is gone but the connection is not: logs, once, where else it is still mounted. */
static void log_other_mounts(struct signals *signals)
{
	char who[512];

	signals->look_ms = signals->waited_ms + LOOK_AGAIN_MS;
	if (signals->logged || !unmounter_holders(signals->config.unmounter, who, sizeof(who)))
		return;
	signals->logged = true;
	if (signals->config.limit_ms)
		log_warn("%s is unmounted from %s, but still mounted elsewhere (%s): waiting at "
			 "most %u s for that to end (drain_timeout)",
			 signals->config.name, signals->config.mountpoint, who,
			 signals->config.limit_ms / 1000);
	else
		log_warn("%s is unmounted from %s, but still mounted elsewhere (%s): waiting for "
			 "that to end, or for another signal",
			 signals->config.name, signals->config.mountpoint, who);
}

static void tick(struct signals *signals)
{
	bool over;

	if (has_ended(signals)) {
		signals->waiting = false;
		return;
	}
	signals->waited_ms += TICK_MS;
	over = signals->config.limit_ms && signals->waited_ms >= signals->config.limit_ms;
	if (over || signals->waited_ms >= signals->look_ms)
		log_other_mounts(signals);
	if (over)
		end_connection(signals);
}

static void *signal_main(void *arg)
{
	struct signals *signals = arg;
	struct timespec nap = { .tv_nsec = TICK_MS * 1000000l };
	sigset_t set;

	fdio_magic_check(signals, MAGIC_SIGNALS);
	taken_signals(&set);
	while (!__atomic_load_n(&signals->stop, __ATOMIC_ACQUIRE)) {
		int sig = signals->waiting ? sigtimedwait(&set, NULL, &nap)
					   : sigwaitinfo(&set, NULL);

		if (sig == SIGUSR1)
			fdio_counters_log();
		else if (sig == SIGTERM || sig == SIGINT)
			unmount(signals);
		else if (sig < 0 && errno == EAGAIN)
			tick(signals);
	}
	return NULL;
}

int signals_start(const struct signals_config *config, struct signals **ret)
{
	struct signals *signals = calloc(1, sizeof(*signals));
	int err;

	*ret = NULL;
	if (!signals)
		return -ENOMEM;
	fdio_magic_set(signals, MAGIC_SIGNALS);
	signals->config = *config;
	err = thread_start(&signals->thread, "fusedio-sig", signal_main, signals);
	if (err)
		free(signals);
	else
		*ret = signals;
	return err;
}

void signals_stop(struct signals *signals)
{
	if (!signals)
		return;
	__atomic_store_n(&signals->stop, true, __ATOMIC_RELEASE);
	pthread_kill(signals->thread, SIGUSR2);
	pthread_join(signals->thread, NULL);
	fdio_magic_clear(signals, MAGIC_SIGNALS);
	free(signals);
}
