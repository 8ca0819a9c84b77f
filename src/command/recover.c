/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replaying the journal before the mount, see recover.h. After the mount it would be too late for a
 * block device: a fuseblk mount claims it for the kernel, and programs that ask about the mount,
 * e2fsck among them, would wait for an answer until the volume is open. So recovery claims the
 * device, replays the journal, and gives the device up again; then the mount claims it, and
 * probe_recheck finds out whether another program changed the device in between.
 *
 * e2fsck -p replays the journals that fusedio cannot. e2fsck claims a block device itself, so our
 * claim ends before e2fsck runs; an image file stays locked meanwhile. Whether e2fsck succeeded is
 * judged by trying our recovery again, not by its exit status.
 *
 * Main thread, beside the watchdog. Fails with -errno and a reason.
 */
#include "command/recover.h"

#include "base/bytes.h"
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
#define PATIENCE_NS 5000000000ull /* from SIGTERM to e2fsck until SIGKILL */

extern char **environ;

static bool wants_recovery(const struct probe *probe)
{
	return fdio_get_le32(probe->super, SUPER_FEATURE_INCOMPAT) & SUPER_INCOMPAT_RECOVER;
}

static bool has_orphans(const struct probe *probe)
{
	return fdio_get_le32(probe->super, SUPER_LAST_ORPHAN) ||
	       (fdio_get_le32(probe->super, SUPER_FEATURE_RO_COMPAT) &
		SUPER_RO_COMPAT_ORPHAN_PRESENT);
}

/*
 * Waits until e2fsck has ended. On SIGTERM or SIGINT sends SIGTERM to e2fsck, and SIGKILL after
 * PATIENCE_NS: the next run of e2fsck then starts over, as after a crash. True if waitpid returned
 * its status.
 */
static bool wait_for_e2fsck(pid_t pid)
{
	const struct timespec nap = { .tv_nsec = POLL_NS };
	uint64_t kill_at = 0; /* 0: e2fsck has not been sent SIGTERM */
	int status;
	pid_t got;

	while (!(got = waitpid(pid, &status, WNOHANG)) || (got < 0 && errno == EINTR)) {
		uint64_t now = fdio_now_ns();

		if (kill_at) {
			if (now > kill_at)
				kill(pid, SIGKILL);
			nanosleep(&nap, NULL);
		} else if (fdio_stop_wait(now + POLL_NS)) {
			log_warn("told to end: stopping e2fsck");
			kill(pid, SIGTERM);
			kill_at = now + PATIENCE_NS;
		}
	}
	return got == pid;
}

/* Runs e2fsck -p, with no signal blocked, unlike in this process. False: it could not be run. */
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
	return wait_for_e2fsck(pid);
}

/*
 * Opens the device and replays the journal. If we cannot replay it and may_fsck is set, runs
 * e2fsck instead and sets *ret_fsck: then the caller tries once more.
 */
static int try_once(const struct probe *probe, bool orphans, bool may_fsck, bool *ret_fsck,
		    struct fdio_reason *reason)
{
	struct dev *dev;
	bool fsck_helps;
	int err = dev_uring_open(probe->path, DEV_OPEN_EXCL, &dev, reason);

	*ret_fsck = false;
	if (err)
		return err;
	err = ext4_vol_recover(dev, orphans, &fsck_helps, reason);
	if (!err || !fsck_helps || !may_fsck) {
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
	/*
	 * The probe of a read-only mount opens the device for reading only, so this open is the
	 * first to find that the image or device cannot be written.
	 */
	if (read_only && (err == -EROFS || err == -EACCES || err == -EPERM))
		return 0;
	*ret_changed = true;
	return err;
}
