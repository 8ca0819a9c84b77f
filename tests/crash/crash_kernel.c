/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The kernel's ext4 as one more recovery of a crash state: mounts a copy of the image through a
 * loop device, which replays the log and deletes the orphans, and unmounts it again. The driver
 * calls this on its one thread.
 *
 * This happens in a mount namespace of its own, so that the mount and the loop device (autoclear)
 * end with the last process in it, even when the checker is killed. Without root or loop devices
 * nothing is tried.
 */
#include "crash/crash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MOUNT_AND_UMOUNT \
	"mkdir $IMG.d || exit 9; export LC_ALL=C; " \
	"timeout 60 unshare -m --propagation slave sh -c '" \
	"n=0; until mount -t ext4 -o loop,nodev,nosuid,noexec $IMG $IMG.d 2>$IMG.err; do " \
	"n=$((n + 1)); grep -q \"loop device\" $IMG.err && [ $n -lt 20 ] || exit 8; " \
	"sleep 0.1; done; " \
	"n=0; until umount $IMG.d 2>$IMG.err; do n=$((n + 1)); " \
	"[ $n -lt 50 ] || exit 7; sleep 0.1; done'; " \
	"r=$?; cat $IMG.err; rm -f $IMG.err; rmdir $IMG.d; exit $r"

static int mount_once(struct fake_dev *fake, char *why, size_t len)
{
	char out[512] = "";
	int err = fake_run(fake, MOUNT_AND_UMOUNT, out, sizeof(out), true);

	if (!err)
		return 0;
	snprintf(why, len, "%s (code %d): %.300s",
		 err == 8   ? "mount refused"
		 : err == 7 ? "umount failed"
			    : "killed after 60 s, or cannot begin",
		 err, out);
	return -EIO;
}

bool crash_kernel_possible(char *why, size_t len)
{
	struct fake_dev *fake;
	bool ok;

	if (geteuid() != 0 || access("/dev/loop-control", R_OK | W_OK)) {
		snprintf(why, len, "%s", geteuid() ? "not root" : "no /dev/loop-control");
		return false;
	}
	fake = fake_mkfs((uint64_t)8 << 20, "-t ext4 -b 1024");
	if (!fake) {
		snprintf(why, len, "mke2fs failed");
		return false;
	}
	ok = !mount_once(fake, why, len);
	fake_free(fake);
	return ok;
}

int crash_kernel_replay(struct fake_dev *fake, char *why, size_t len)
{
	return mount_once(fake, why, len);
}
