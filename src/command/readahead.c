/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Readahead of the mount. A FUSE mount begins with 128 KiB, and the reply to INIT can only lower
 * that. To raise it, root writes to the mount's directory in /sys/class/bdi, after the mount and
 * before the sandbox. A read-ahead request has at most 1 MiB; with more readahead than that the
 * kernel keeps several in flight.
 *
 * Main thread, no state. If it cannot be set, the kernel's default stays, which is logged at level
 * debug.
 */
#include "command/readahead.h"

#include "base/log.h"
#include "base/sysfs.h"
#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define LEAST_KIB 1024u
#define MOST_KIB 16384u

static int write_number(const char *file, unsigned n)
{
	char text[16];
	int fd = open(file, O_WRONLY | O_CLOEXEC), len = snprintf(text, sizeof(text), "%u\n", n);

	if (fd < 0)
		return -errno;
	int err = write(fd, text, (size_t)len) == len ? 0 : -errno;
	close(fd);
	return err;
}

unsigned readahead_default(const char *path)
{
	unsigned of_device = 0;
	struct stat st;
	char kib[32];

	if (stat(path, &st) == 0 && S_ISBLK(st.st_mode) &&
	    fdio_sysfs_line(kib, sizeof(kib), "/sys/class/bdi/%u:%u/read_ahead_kb",
			    major(st.st_rdev), minor(st.st_rdev)))
		of_device = (unsigned)strtoul(kib, NULL, 10);
	of_device = FDIO_MAX(of_device, LEAST_KIB);
	return FDIO_MIN(of_device, MOST_KIB);
}

void readahead_set(const char *mountpoint, unsigned kib)
{
	static const char *const suffixes[] = { "", "-fuseblk" };
	struct statx stx;
	char file[96];
	int err = -ENOENT;

	/* AT_STATX_DONT_SYNC: the kernel answers by itself, without a request to this daemon. */
	if (statx(AT_FDCWD, mountpoint, AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT, STATX_TYPE, &stx)) {
		log_debug("readahead is left as it is: %s: %s", mountpoint, strerror(errno));
		return;
	}
	/*
	 * A fuseblk mount has the device number of its block device, whose directory has the name
	 * without a suffix: so the name with the suffix is tried first.
	 */
	for (size_t i = ARRAY_SIZE(suffixes); i-- > 0 && err == -ENOENT;) {
		snprintf(file, sizeof(file), "/sys/class/bdi/%u:%u%s/read_ahead_kb",
			 stx.stx_dev_major, stx.stx_dev_minor, suffixes[i]);
		err = write_number(file, kib);
	}
	if (err)
		log_debug("readahead is left as it is: %s: %s", file, strerror(-err));
}
