/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watchdog, see watchdog.h. watchdog_main runs on a thread of its own, which wakes every 5 s
 * until the daemon is asked to end, and every 200 ms or less after that. The main thread, the
 * signal thread and the transport's control thread tell it the phase.
 *
 * It compares the counters of device requests begun and completed. Their difference is in flight; a
 * stall is a time in which something was in flight and nothing completed. Time is the sum of the
 * ticks that the thread slept, and no tick counts for more than its nominal length: so a stopped
 * process or a suspended machine does not make the daemon give up on a device.
 *
 * watchdog.lock (RANK_LEAF) guards phase and stop. Only starting it can fail.
 */
#include "command/watchdog.h"

#include "base/counters.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/magic.h"
#include "base/thread.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MS 1000000ull
#define TICK_SERVING_MS 5000u
#define TICK_ENDING_MS 200u
#define STALL_LOGGED_MS 30000u
#define ALIVE_MS 5000u
#define WHOLE_END 10u /* the whole end may take this many times limit_ms */

enum phase {
	STARTING,
	SERVING,
	ASKED,  /* asked to end */
	ENDING, /* no more requests are taken */
};

struct watchdog {
	FDIO_MAGIC_FIELD;
	struct watchdog_config config;
	int abort_fd;            /* atomic: a write to it aborts the connection; -1: none */
	struct fdio_mutex lock;
	pthread_cond_t changed;  /* phase or stop */
	enum phase phase;
	bool stop;
	pthread_t thread;

	/* Used by the thread only. */
	uint64_t done;           /* completed() at the last tick with progress */
	uint64_t stalled_ms;     /* since then, with requests in flight */
	uint64_t ending_ms;      /* in the phase ENDING */
	uint64_t alive_ms;       /* since tell_alive was called */
	bool logged;             /* the present stall has been logged */
};

static uint64_t completed(void) { return fdio_counter_read(COUNTER_dev_done); }

/*
 * A request is counted as begun before it is counted as completed, so completed must be read first:
 * then the difference is never negative.
 */
static uint64_t in_flight(uint64_t done)
{
	uint64_t begun = fdio_counter_read(COUNTER_dev_read) +
			 fdio_counter_read(COUNTER_dev_write) +
			 fdio_counter_read(COUNTER_dev_flush) +
			 fdio_counter_read(COUNTER_dev_discard);

	return begun > done ? begun - done : 0;
}

/* Adds ms to the stall, or ends it. Returns the requests in flight, 0 if there is no stall. */
static uint64_t measure_stall(struct watchdog *watchdog, uint64_t ms)
{
	uint64_t done = completed(), n = in_flight(done);

	if (done != watchdog->done || !n) {
		if (watchdog->logged)
			log_warn("%s answers again after %" PRIu64 " s", watchdog->config.name,
				 watchdog->stalled_ms / 1000);
		watchdog->logged = false;
		watchdog->stalled_ms = 0;
		watchdog->done = done;
		return 0;
	}
	watchdog->stalled_ms += ms;
	if (watchdog->stalled_ms >= STALL_LOGGED_MS && !watchdog->logged) {
		watchdog->logged = true;
		log_err("%s has completed none of %" PRIu64 " requests for %" PRIu64 " s",
			watchdog->config.name, n, watchdog->stalled_ms / 1000);
		watchdog->config.log_in_flight(watchdog->config.arg);
	}
	return n;
}

static void give_up(struct watchdog *watchdog, uint64_t n)
{
	bool stalled = watchdog->stalled_ms;
	uint64_t ms = stalled ? watchdog->stalled_ms : watchdog->ending_ms;

	log_err("%s: giving up %s after %" PRIu64 " s with %" PRIu64
		" requests to the device in flight: the next mount recovers",
		watchdog->config.name,
		stalled ? "a device that completes nothing" : "an end that takes too long",
		ms / 1000, n);
	watchdog->config.log_in_flight(watchdog->config.arg);
	/*
	 * Exiting may not end the connection: a thread that hangs in the driver of the device keeps
	 * /dev/fuse open.
	 */
	int fd = __atomic_load_n(&watchdog->abort_fd, __ATOMIC_ACQUIRE);
	if (fd >= 0 && write(fd, "1", 1) != 1)
		log_warn("cannot abort the connection: %s", strerror(errno));
	watchdog->config.give_up(watchdog->config.arg);
}

static bool too_long(const struct watchdog *watchdog, enum phase phase)
{
	uint64_t limit_ms = watchdog->config.limit_ms;

	return limit_ms && phase >= ASKED &&
	       (watchdog->stalled_ms >= limit_ms || watchdog->ending_ms >= WHOLE_END * limit_ms);
}

static uint64_t ending_tick_ms(const struct watchdog *watchdog)
{
	unsigned fifth = watchdog->config.limit_ms / 5 + 1;

	return watchdog->config.limit_ms ? FDIO_MIN(TICK_ENDING_MS, fifth) : TICK_ENDING_MS;
}

/*
 * Calls tell_alive every ALIVE_MS, but not while the device is silent, nor during an end without a
 * limit: there the service manager's own timeout decides.
 */
static void report_alive(struct watchdog *watchdog, enum phase phase, uint64_t ms)
{
	watchdog->alive_ms += ms;
	if (phase == SERVING || watchdog->stalled_ms || watchdog->alive_ms < ALIVE_MS ||
	    (phase >= ASKED && !watchdog->config.limit_ms))
		return;
	watchdog->alive_ms = 0;
	watchdog->config.tell_alive(watchdog->config.arg);
}

static void *watchdog_main(void *arg)
{
	struct watchdog *watchdog = arg;

	fdio_magic_check(watchdog, MAGIC_WATCHDOG);
	fdio_mutex_lock(&watchdog->lock);
	while (!watchdog->stop) {
		enum phase phase = watchdog->phase;
		uint64_t tick = phase <= SERVING ? TICK_SERVING_MS : ending_tick_ms(watchdog);
		uint64_t begun = fdio_now_ns();

		if (fdio_cond_timedwait(&watchdog->changed, &watchdog->lock, begun + tick * MS) &&
		    watchdog->stop)
			break;
		fdio_mutex_unlock(&watchdog->lock);
		uint64_t slept = FDIO_MIN((fdio_now_ns() - begun) / MS, tick);
		uint64_t n = measure_stall(watchdog, slept);
		watchdog->ending_ms += phase == ENDING ? slept : 0;
		report_alive(watchdog, phase, slept);
		if (phase == SERVING)
			watchdog->config.check_device(watchdog->config.arg);
		bool over = too_long(watchdog, phase);
		if (over)
			give_up(watchdog, n);
		fdio_mutex_lock(&watchdog->lock);
		while (over && !watchdog->stop)
			fdio_cond_wait(&watchdog->changed, &watchdog->lock);
	}
	fdio_mutex_unlock(&watchdog->lock);
	return NULL;
}

int watchdog_new(const struct watchdog_config *config, struct watchdog **ret)
{
	struct watchdog *watchdog = calloc(1, sizeof(*watchdog));
	int err;

	*ret = NULL;
	if (!watchdog)
		return -ENOMEM;
	fdio_magic_set(watchdog, MAGIC_WATCHDOG);
	watchdog->config = *config;
	watchdog->abort_fd = -1;
	watchdog->done = completed();
	fdio_mutex_init(&watchdog->lock, RANK_LEAF);
	fdio_cond_init(&watchdog->changed);
	err = thread_start(&watchdog->thread, "fusedio-watch", watchdog_main, watchdog);
	if (err) {
		pthread_cond_destroy(&watchdog->changed);
		fdio_mutex_fini(&watchdog->lock);
		free(watchdog);
		return err;
	}
	*ret = watchdog;
	return 0;
}

static void advance(struct watchdog *watchdog, enum phase phase)
{
	fdio_mutex_lock(&watchdog->lock);
	watchdog->phase = FDIO_MAX(watchdog->phase, phase);
	pthread_cond_broadcast(&watchdog->changed);
	fdio_mutex_unlock(&watchdog->lock);
}

void watchdog_serving(struct watchdog *watchdog) { advance(watchdog, SERVING); }

void watchdog_end_asked(struct watchdog *watchdog) { advance(watchdog, ASKED); }

void watchdog_ending(struct watchdog *watchdog) { advance(watchdog, ENDING); }

void watchdog_free(struct watchdog *watchdog)
{
	if (!watchdog)
		return;
	fdio_mutex_lock(&watchdog->lock);
	watchdog->stop = true;
	pthread_cond_broadcast(&watchdog->changed);
	fdio_mutex_unlock(&watchdog->lock);
	pthread_join(watchdog->thread, NULL);
	pthread_cond_destroy(&watchdog->changed);
	fdio_mutex_fini(&watchdog->lock);
	if (watchdog->abort_fd >= 0)
		close(watchdog->abort_fd);
	fdio_magic_clear(watchdog, MAGIC_WATCHDOG);
	free(watchdog);
}

/*
 * Opens a file of fusectl where fusectl is not mounted, as in a container or a small system: makes
 * a detached mount of fusectl (root only), which the open file keeps alive.
 */
static int open_in_new_fusectl(const char *name)
{
	int fs = (int)syscall(SYS_fsopen, "fusectl", FSOPEN_CLOEXEC), mnt = -1, fd = -1;

	if (fs >= 0 && !syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		mnt = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, 0);
	if (mnt >= 0) {
		fd = openat(mnt, name, O_WRONLY | O_CLOEXEC);
		close(mnt);
	}
	if (fs >= 0)
		close(fs);
	return fd;
}

void watchdog_open_abort(struct watchdog *watchdog, const char *mountpoint)
{
	char path[64], name[24];
	struct statx stx;
	int fd;

	/*
	 * Without AT_STATX_DONT_SYNC this would be a request to this daemon. If a signal then
	 * killed the loops, this thread would wait for ever, and its descriptors would keep the
	 * connection.
	 */
	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &stx))
		return;
	/* fusectl names a connection by the kernel's internal form of the device number. */
	snprintf(name, sizeof(name), "%u/abort", stx.stx_dev_major << 20 | stx.stx_dev_minor);
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fd = open_in_new_fusectl(name);
	if (fd < 0)
		log_info("%s cannot be opened (is fusectl mounted there?): clients of a device "
			 "that hangs may wait for it",
			 path);
	__atomic_store_n(&watchdog->abort_fd, fd, __ATOMIC_RELEASE);
}
