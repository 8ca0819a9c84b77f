/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Recovery before the mount. A fuseblk mount claims its block device for the kernel, and would have
 * to answer whoever asks about it, e2fsck for one, before it can. So the journal comes first: the
 * device is claimed by us, replayed, and given up again (before a read-only mount, with what a
 * crash interrupted finished). The mount claims it then, and probe_recheck finds out whether
 * somebody was faster.
 *
 * e2fsck -p does what we do not replay ourselves. It claims a block device, so our claim ends
 * before it runs; an image file stays locked meanwhile. What it did is judged by looking at the
 * file system again, not by its exit status.
 *
 * Main thread, beside the watchdog. SIGTERM and SIGINT end it early. Fails with -errno and a
 * reason.
 */
#include "command/recover.h"

#include "base/lock.h"
#include "base/log.h"
#include "base/stop.h"
#include "dev/open.h"
#include "ext4/ext4.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

#define POLL_NS 50000000
#define PATIENCE_NS 5000000000ull
#define INCOMPAT_OFF 0x60
#define INCOMPAT_RECOVER 4u
#define RO_COMPAT_OFF 0x64
#define ORPHAN_PRESENT_BYTE2 1u
#define LAST_ORPHAN_OFF 0xe8

extern char **environ;

static bool wants_recovery(const struct probe *probe)
{
	return probe->super[INCOMPAT_OFF] & INCOMPAT_RECOVER;
}

static bool has_orphans(const struct probe *probe)
{
	static const uint8_t none[4];

	return memcmp(probe->super + LAST_ORPHAN_OFF, none, sizeof(none)) ||
	       (probe->super[RO_COMPAT_OFF + 2] & ORPHAN_PRESENT_BYTE2);
}

/* To its end, or to ours: told to end, we tell it, and do not wait for long. */
static bool wait_for(pid_t pid)
{
	const struct timespec nap = { .tv_nsec = POLL_NS };
	uint64_t patience = 0;
	int status;
	pid_t got;

	while (!(got = waitpid(pid, &status, WNOHANG)) || (got < 0 && errno == EINTR)) {
		uint64_t now = fdio_now_ns();

		if (patience) {
			if (now > patience)
				/* a crash of e2fsck: the next one begins anew */
				kill(pid, SIGKILL);
			nanosleep(&nap, NULL);
		} else if (fdio_stop_wait(now + POLL_NS)) {
			log_warn("told to end: stopping e2fsck");
			kill(pid, SIGTERM);
			patience = now + PATIENCE_NS;
		}
	}
	return got == pid;
}

/* False: it could not be run. Signals are blocked in this process, and must not be in that one. */
static bool run_e2fsck(const char *path)
{
	char *argv[] = { (char *)"e2fsck", (char *)"-p", (char *)"--", (char *)path, NULL };
	posix_spawnattr_t attr;
	sigset_t none;
	pid_t pid;
	int err;

	if (posix_spawnattr_init(&attr))
		return false;
	sigemptyset(&none);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
	err = posix_spawnp(&pid, "e2fsck", NULL, &attr, argv, environ);
	if (err == ENOENT)
		err = posix_spawn(&pid, "/sbin/e2fsck", NULL, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	if (err) {
		log_warn("e2fsck cannot be run: %s", strerror(err));
		return false;
	}
	return wait_for(pid);
}

/* One look, and our replay if that is enough. *ret_fsck: e2fsck was run instead, look again. */
static int try_once(const struct probe *probe, bool orphans, bool may_fsck, bool *ret_fsck,
		struct fdio_reason *reason)
{
	struct dev *dev;
	bool wanted;
	int err = dev_uring_open(probe->path, DEV_OPEN_EXCL, &dev, reason);

	*ret_fsck = false;
	if (err)
		return err;
	err = ext4_vol_recover(dev, orphans, &wanted, reason);
	if (!err || !wanted || !may_fsck) {
		dev_close(dev);
		return err;
	}
	log_warn("%s: the journal is one that fusedio does not replay: running e2fsck -p",
		 probe->path);
	if (probe->is_block)
		dev_close(dev);
	*ret_fsck = run_e2fsck(probe->path);
	if (!probe->is_block)
		dev_close(dev);
	return *ret_fsck ? 0 : err;
}

int recover_device(const struct probe *probe, bool read_only, bool *ret_changed,
		struct fdio_reason *reason)
{
	bool fsck = false;
	int err;

	*ret_changed = false;
	if (probe->read_only_dev || !(wants_recovery(probe) || (read_only && has_orphans(probe))))
		return 0;
	err = try_once(probe, read_only, true, &fsck, reason);
	if (!err && fsck)
		err = try_once(probe, read_only, false, &fsck, reason);
	/* A write-protected image shows only now, if nobody has asked to write before. */
	if (read_only && (err == -EROFS || err == -EACCES || err == -EPERM))
		return 0;
	*ret_changed = true;
	return err;
}
