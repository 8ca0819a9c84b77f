/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Locks on the images of loop devices, see backing.h. The loop driver ignores locks on the image,
 * so fusedio must check them before it serves the device. The image's path comes from sysfs. In
 * this mount namespace it may lead to another file, so inode and device number are compared with
 * those that the driver reports.
 *
 * Main thread; waits at most WAIT_MS for a lock to be released. What cannot be examined counts as
 * not locked.
 */
#include "command/backing.h"

#include "base/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define MOST_LEVELS 8 /* of loop devices whose image is a loop device */
#define WAIT_MS 3000u
#define POLL_MS 20u

/* The path of the image of a loop device; false: rdev is no loop device, or has no image. */
static bool image_of(dev_t rdev, char path[PATH_MAX])
{
	return fdio_sysfs_line(path, PATH_MAX, "/sys/dev/block/%u:%u/loop/backing_file",
			       major(rdev), minor(rdev));
}

/* A device number in the form in which the loop driver reports it. */
static uint64_t kernel_number(dev_t dev)
{
	return (minor(dev) & 0xffu) | (uint64_t)major(dev) << 8 |
	       (uint64_t)(minor(dev) & ~0xffu) << 12;
}

/* True if the loop device rdev is made from the file that has this stat. */
static bool is_image_of(dev_t rdev, const struct stat *st)
{
	struct loop_info64 info;
	char name[64];
	int fd;
	bool same;

	snprintf(name, sizeof(name), "/dev/block/%u:%u", major(rdev), minor(rdev));
	fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0) { /* no udev: try the usual name */
		snprintf(name, sizeof(name), "/dev/loop%u", minor(rdev));
		fd = open(name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	}
	if (fd < 0)
		return false;
	same = !ioctl(fd, LOOP_GET_STATUS64, &info) && info.lo_inode == st->st_ino &&
	       info.lo_device == kernel_number(st->st_dev);
	close(fd);
	return same;
}

/* True if a lock conflicts with ours. Tests flock by taking the lock for a moment. */
static bool is_locked(const char *path, bool read_only)
{
	struct flock fl = { .l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	bool locked;

	if (fd < 0)
		return false;
	locked = flock(fd, (read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) && errno == EWOULDBLOCK;
	if (!locked)
		locked = !fcntl(fd, F_OFD_GETLK, &fl) && fl.l_type != F_UNLCK;
	close(fd);
	return locked;
}

/* True if the lock is still there after WAIT_MS. */
static bool stays_locked(const char *path, bool read_only)
{
	struct timespec nap = { .tv_nsec = POLL_MS * 1000000l };

	for (unsigned ms = 0; is_locked(path, read_only); ms += POLL_MS) {
		if (ms >= WAIT_MS)
			return true;
		nanosleep(&nap, NULL);
	}
	return false;
}

bool backing_locked(dev_t rdev, bool read_only, char *what, size_t cap)
{
	static char path[PATH_MAX];
	struct stat st;

	for (unsigned level = 0; level < MOST_LEVELS && image_of(rdev, path); level++) {
		if (stat(path, &st))
			return false;
		if (S_ISBLK(st.st_mode)) {
			rdev = st.st_rdev;
			continue;
		}
		if (!is_image_of(rdev, &st) || !stays_locked(path, read_only))
			return false;
		snprintf(what, cap, "%s", path);
		return true;
	}
	return false;
}
