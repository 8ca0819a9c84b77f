/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The thread that takes signals, see signals.h. It sleeps in sigwaitinfo. Only while it awaits an
 * end that somebody else holds up does it look every TICK_MS. SIGUSR2 wakes it when it must end:
 * the flag says so, the signal alone means nothing. No locks; its fields are its own but for the
 * atomic stop. Only starting it can fail.
 */
#include "command/signals.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/magic.h"
#include "base/thread.h"
#include "command/unmounter.h"
#include "command/watchdog.h"
#include "transport/transport.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS 200u
#define FIRST_LOOK_MS 1000u /* an end that nobody holds up takes less, most of the time */
#define LOOK_AGAIN_MS 5000u

struct signals {
	FDIO_MAGIC_FIELD;
	struct signals_config cfg;
	pthread_t thread;
	bool stop;              /* atomic */
	/* the thread's own */
	bool waiting, said;
	uint64_t waited_ms, look_ms;
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
	signal(SIGCHLD, SIG_DFL); /* ignored by the starter, children would leave no status */
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

static bool has_ended(const struct signals *g) { return __atomic_load_n(g->cfg.ended, __ATOMIC_ACQUIRE); }

static void let_go(struct signals *g)
{
	g->waiting = false;
	log_warn("%s: ending the connection: what is left of the mount gives errors and keeps the device in use until it is unmounted there",
		 g->cfg.name);
	tr_let_go(g->cfg.tr);
}

static void asked(struct signals *g)
{
	if (has_ended(g))
		return; /* our mount is gone: nothing is left to unmount */
	if (g->waiting) {
		let_go(g);
		return;
	}
	watchdog_asked(g->cfg.watchdog);
	tr_unmount(g->cfg.tr);
	g->waiting = true;
	g->waited_ms = 0;
	g->look_ms = FIRST_LOOK_MS;
}

/* Unmounted here, and nothing has happened since. */
static void say_who(struct signals *g)
{
	char who[512];

	g->look_ms = g->waited_ms + LOOK_AGAIN_MS;
	if (g->said || !unmounter_holders(g->cfg.unmounter, who, sizeof(who)))
		return;
	g->said = true;
	if (g->cfg.limit_ms)
		log_warn("%s is unmounted from %s, but still mounted elsewhere (%s): waiting at most %u s for that to end (drain_timeout)",
			 g->cfg.name, g->cfg.mountpoint, who, g->cfg.limit_ms / 1000);
	else
		log_warn("%s is unmounted from %s, but still mounted elsewhere (%s): waiting for that to end, or for another signal",
			 g->cfg.name, g->cfg.mountpoint, who);
}

static void tick(struct signals *g)
{
	bool over;

	if (has_ended(g)) {
		g->waiting = false;
		return;
	}
	g->waited_ms += TICK_MS;
	over = g->cfg.limit_ms && g->waited_ms >= g->cfg.limit_ms;
	if (over || g->waited_ms >= g->look_ms)
		say_who(g);
	if (over)
		let_go(g);
}

static void *signal_main(void *arg)
{
	struct signals *g = arg;
	struct timespec nap = { .tv_nsec = TICK_MS * 1000000l };
	sigset_t set;

	fdio_magic_check(g, MAGIC_SIGNALS);
	taken_signals(&set);
	while (!__atomic_load_n(&g->stop, __ATOMIC_ACQUIRE)) {
		int sig = g->waiting ? sigtimedwait(&set, NULL, &nap) : sigwaitinfo(&set, NULL);

		if (sig == SIGUSR1)
			fdio_counters_log();
		else if (sig == SIGTERM || sig == SIGINT)
			asked(g);
		else if (sig < 0 && errno == EAGAIN)
			tick(g);
	}
	return NULL;
}

int signals_start(const struct signals_config *cfg, struct signals **ret)
{
	struct signals *g = calloc(1, sizeof(*g));
	int err;

	*ret = NULL;
	if (!g)
		return -ENOMEM;
	fdio_magic_set(g, MAGIC_SIGNALS);
	g->cfg = *cfg;
	err = thread_start(&g->thread, "fusedio-sig", signal_main, g);
	if (err)
		free(g);
	else
		*ret = g;
	return err;
}

void signals_stop(struct signals *g)
{
	if (!g)
		return;
	__atomic_store_n(&g->stop, true, __ATOMIC_RELEASE);
	pthread_kill(g->thread, SIGUSR2);
	pthread_join(g->thread, NULL);
	fdio_magic_clear(g, MAGIC_SIGNALS);
	free(g);
}
