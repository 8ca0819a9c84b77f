/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The watchdog, see watchdog.h. A thread of its own, which sleeps for seconds while the mount
 * serves and for a moment at the end.
 *
 * How it knows: the counters of device requests that were begun and of those that completed. In
 * flight is their difference; a stall is a time in which something was in flight and nothing
 * completed. Time is counted in ticks that were slept, never more than TICK_MAX each: a process
 * that was stopped, or a machine that slept, is no reason to give up on a device.
 *
 * watchdog.lock (RANK_LEAF) guards phase and stop. Only starting it can fail; without the file that
 * aborts the connection, clients of a device that hangs may wait for it, which is logged.
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
#include <sys/sysmacros.h>
#include <unistd.h>

#define MS 1000000ull
#define TICK_SERVING_MS 5000u
#define TICK_ENDING_MS 200u
#define STALL_SAID_MS 30000u
#define ALIVE_MS 5000u
#define WHOLE_END 10u /* times limit_ms */

enum phase { STARTING, SERVING, ASKED, ENDING };

struct watchdog {
	FDIO_MAGIC_FIELD;
	struct watchdog_config cfg;
	int abort_fd;          /* atomic: -1 until there is one */
	struct fdio_mutex lock;
	pthread_cond_t changed;
	enum phase phase;
	bool stop;
	pthread_t thread;
	/* the thread's own */
	uint64_t done, stalled_ms, ending_ms, alive_ms;
	bool said;
};

static uint64_t completed(void) { return fdio_counter_read(CTR_dev_done); }

/* Begun first, completed later: read in the other order the difference is never negative. */
static uint64_t in_flight(uint64_t done)
{
	uint64_t begun = fdio_counter_read(CTR_dev_read) + fdio_counter_read(CTR_dev_write) + fdio_counter_read(CTR_dev_flush) +
			 fdio_counter_read(CTR_dev_discard);

	return begun > done ? begun - done : 0;
}

/* ms have passed: how long has the device been silent? */
static uint64_t look(struct watchdog *w, uint64_t ms)
{
	uint64_t done = completed(), n = in_flight(done);

	if (done != w->done || !n) {
		if (w->said)
			log_warn("%s answers again after %" PRIu64 " s", w->cfg.name, w->stalled_ms / 1000);
		w->said = false;
		w->stalled_ms = 0;
		w->done = done;
		return 0;
	}
	w->stalled_ms += ms;
	if (w->stalled_ms >= STALL_SAID_MS && !w->said) {
		w->said = true;
		log_err("%s has completed none of %" PRIu64 " requests for %" PRIu64 " s", w->cfg.name, n, w->stalled_ms / 1000);
		w->cfg.in_flight(w->cfg.arg);
	}
	return n;
}

static void give_up(struct watchdog *w, uint64_t n)
{
	log_err("%s: giving up %s after %" PRIu64 " s with %" PRIu64 " requests to the device in flight: the next mount recovers", w->cfg.name,
		w->stalled_ms ? "a device that completes nothing" : "an end that takes too long",
		(w->stalled_ms ? w->stalled_ms : w->ending_ms) / 1000, n);
	w->cfg.in_flight(w->cfg.arg);
	int fd = __atomic_load_n(&w->abort_fd, __ATOMIC_ACQUIRE);
	/* A thread that the driver does not let go keeps the connection open after exit. */
	if (fd >= 0 && write(fd, "1", 1) != 1)
		log_warn("cannot abort the connection: %s", strerror(errno));
	w->cfg.give_up(w->cfg.arg);
}

static bool too_long(const struct watchdog *w, enum phase phase)
{
	uint64_t limit_ms = w->cfg.limit_ms;

	return limit_ms && phase >= ASKED && (w->stalled_ms >= limit_ms || w->ending_ms >= WHOLE_END * limit_ms);
}

static uint64_t ending_tick(const struct watchdog *w)
{
	unsigned fifth = w->cfg.limit_ms / 5 + 1;

	return w->cfg.limit_ms ? FDIO_MIN(TICK_ENDING_MS, fifth) : TICK_ENDING_MS;
}

/* Not while the device is silent; nor at an end that may take for ever, which is for others to judge. */
static void tell_alive(struct watchdog *w, enum phase phase, uint64_t ms)
{
	w->alive_ms += ms;
	if (phase == SERVING || w->stalled_ms || w->alive_ms < ALIVE_MS || (phase >= ASKED && !w->cfg.limit_ms))
		return;
	w->alive_ms = 0;
	w->cfg.alive(w->cfg.arg);
}

static void *watchdog_main(void *arg)
{
	struct watchdog *w = arg;

	fdio_magic_check(w, MAGIC_WATCHDOG);
	fdio_mutex_lock(&w->lock);
	while (!w->stop) {
		enum phase phase = w->phase;
		uint64_t tick = phase <= SERVING ? TICK_SERVING_MS : ending_tick(w), begun = fdio_now_ns();

		if (fdio_cond_timedwait(&w->changed, &w->lock, begun + tick * MS) && w->stop)
			break;
		fdio_mutex_unlock(&w->lock);
		uint64_t slept = FDIO_MIN((fdio_now_ns() - begun) / MS, tick);
		uint64_t n = look(w, slept);
		w->ending_ms += phase == ENDING ? slept : 0;
		tell_alive(w, phase, slept);
		if (phase == SERVING)
			w->cfg.look(w->cfg.arg);
		bool over = too_long(w, phase);
		if (over)
			give_up(w, n);
		fdio_mutex_lock(&w->lock);
		while (over && !w->stop)
			fdio_cond_wait(&w->changed, &w->lock);
	}
	fdio_mutex_unlock(&w->lock);
	return NULL;
}

int watchdog_new(const struct watchdog_config *cfg, struct watchdog **ret)
{
	struct watchdog *w = calloc(1, sizeof(*w));
	int err;

	*ret = NULL;
	if (!w)
		return -ENOMEM;
	fdio_magic_set(w, MAGIC_WATCHDOG);
	w->cfg = *cfg;
	w->abort_fd = -1;
	w->done = completed();
	fdio_mutex_init(&w->lock, RANK_LEAF);
	fdio_cond_init(&w->changed);
	err = thread_start(&w->thread, "fusedio-watch", watchdog_main, w);
	if (err) {
		pthread_cond_destroy(&w->changed);
		fdio_mutex_fini(&w->lock);
		free(w);
		return err;
	}
	*ret = w;
	return 0;
}

static void advance(struct watchdog *w, enum phase phase)
{
	fdio_mutex_lock(&w->lock);
	w->phase = FDIO_MAX(w->phase, phase);
	pthread_cond_broadcast(&w->changed);
	fdio_mutex_unlock(&w->lock);
}

void watchdog_serving(struct watchdog *w) { advance(w, SERVING); }

void watchdog_asked(struct watchdog *w) { advance(w, ASKED); }

void watchdog_ending(struct watchdog *w) { advance(w, ENDING); }

void watchdog_free(struct watchdog *w)
{
	if (!w)
		return;
	fdio_mutex_lock(&w->lock);
	w->stop = true;
	pthread_cond_broadcast(&w->changed);
	fdio_mutex_unlock(&w->lock);
	pthread_join(w->thread, NULL);
	pthread_cond_destroy(&w->changed);
	fdio_mutex_fini(&w->lock);
	if (w->abort_fd >= 0)
		close(w->abort_fd);
	fdio_magic_clear(w, MAGIC_WATCHDOG);
	free(w);
}

/*
 * systemd mounts the files of all connections; where nobody does, as in a container or a small system,
 * root mounts them for itself, at no place. The open file keeps that mount.
 */
static int open_unmounted(const char *name)
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

void watchdog_open_abort(struct watchdog *w, const char *mountpoint)
{
	char path[64], name[24];
	struct stat st;
	int fd;

	if (stat(mountpoint, &st))
		return;
	/* The connection is named by the kernel's own form of the device number. */
	snprintf(name, sizeof(name), "%u/abort", major(st.st_dev) << 20 | minor(st.st_dev));
	snprintf(path, sizeof(path), "/sys/fs/fuse/connections/%s", name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fd = open_unmounted(name);
	if (fd < 0)
		log_info("%s cannot be opened (is fusectl mounted there?): clients of a device that hangs may wait for it",
			 path);
	__atomic_store_n(&w->abort_fd, fd, __ATOMIC_RELEASE);
}
