/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening the device: claims it, reads its limits, and fails with a reason if it cannot be served.
 * Main thread; no locks.
 *
 * The claim of a block device (O_EXCL) is a second file descriptor, held until close. There is
 * none for a fuseblk mount: the kernel claims the device itself, and our claim would prevent that.
 * Image files are locked twice, because programs use either kind of lock: flock, and an
 * open-file-description lock.
 */
#include "dev/uring.h"

#include "base/log.h"
#include "base/sysfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define MAX_IO_BYTES (1u << 20)
#define LOCK_WAIT_MS 3000u
#define LOCK_POLL_MS 20u

static int open_error(const char *path, int err, struct fdio_reason *reason)
{
	switch (err) {
	case EBUSY:
		return fdio_reason_fail(reason, -EBUSY, "%s is in use: unmount it or stop the "
				"program that holds it (see lsblk, fuser)", path);
	case EROFS:
	case EACCES:
	case EPERM:
		return fdio_reason_fail(reason, -err, "cannot open %s: %s (run as root, or use -o "
				"ro)", path, strerror(err));
	default:
		return fdio_reason_fail(reason, -err, "cannot open %s: %s", path, strerror(err));
	}
}

/* Reads a line of /sys about the device, or about the disk of which it is a partition. */
static bool block_line(dev_t rdev, const char *name, char *line, size_t cap)
{
	unsigned maj = major(rdev), min = minor(rdev);

	return fdio_sysfs_line(line, cap, "/sys/dev/block/%u:%u/%s", maj, min, name) ||
	       fdio_sysfs_line(line, cap, "/sys/dev/block/%u:%u/../%s", maj, min, name);
}

/* A queue attribute as a number; "write back" is 1. dflt if the attribute does not exist. */
static unsigned long queue_number(dev_t rdev, const char *name, unsigned long dflt)
{
	char text[64];

	if (!block_line(rdev, name, text, sizeof(text)))
		return dflt;
	if (!strncmp(text, "write back", 10))
		return 1;
	if (!strncmp(text, "write through", 13))
		return 0;
	return strtoul(text, NULL, 10);
}

/*
 * True for drives that accept FUA and keep the data in their cache nevertheless. QEMU's NVMe does
 * (versions 7.2 and 10.0): after a power cut of the guest, or a crash of QEMU, the commit block of
 * an fsync could be missing. The kernel cannot know, so the models are listed here.
 */
static bool ignores_fua(dev_t rdev)
{
	static const char *const models[] = { "QEMU NVMe Ctrl" };
	char model[64];

	if (!block_line(rdev, "device/model", model, sizeof(model)))
		return false;
	for (size_t m = 0; m < ARRAY_SIZE(models); m++)
		if (!strncmp(model, models[m], strlen(models[m])))
			return true;
	return false;
}

static int block_caps(struct dev_uring *uring, const struct stat *st)
{
	struct dev_caps *c = &uring->dev.caps;
	int lbs = 0, ro = 0;
	unsigned int pbs = 0;

	if (ioctl(uring->fd, BLKSSZGET, &lbs) || ioctl(uring->fd, BLKGETSIZE64, &c->size_bytes))
		return -errno;
	if (ioctl(uring->fd, BLKPBSZGET, &pbs))
		pbs = (unsigned int)lbs;
	if (!ioctl(uring->fd, BLKROGET, &ro) && ro)
		c->read_only = true;
	c->sector_bytes = (uint32_t)lbs;
	c->physical_bytes = FDIO_MAX((uint32_t)pbs, c->sector_bytes);
	c->volatile_cache = queue_number(st->st_rdev, "queue/write_cache", 1) != 0;
	c->fua = !c->volatile_cache || queue_number(st->st_rdev, "queue/fua", 0) != 0;
	if (c->volatile_cache && c->fua && ignores_fua(st->st_rdev)) {
		log_info("%s: this drive does not honour FUA; flushes take its place",
			 uring->dev.name);
		c->fua_ignored = true;
		c->fua = false;
	}
	c->discard = queue_number(st->st_rdev, "queue/discard_max_bytes", 0) != 0;
	c->is_block = true;
	return 0;
}

static void file_caps(struct dev_uring *uring, const struct stat *st, bool direct)
{
	struct dev_caps *c = &uring->dev.caps;

	c->size_bytes = (uint64_t)st->st_size;
	c->sector_bytes = c->physical_bytes = 512;
	if (direct && st->st_blksize > 512) {
		/* The file system below may need larger units: a read of 512 bytes tells. */
		void *p = fdio_alloc_aligned(4096, 4096);
		if (p && pread(uring->fd, p, 512, 512) < 0 && errno == EINVAL)
			c->sector_bytes = c->physical_bytes = 4096;
		free(p);
	}
	/* The file system below, and its disk, may keep writes in their caches. */
	c->volatile_cache = true;
	c->fua = false;
	c->discard = true;
}

/* Takes both locks; -errno. */
static int try_lock(int fd, bool rdonly)
{
	struct flock fl = { .l_type = rdonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };

	if (flock(fd, (rdonly ? LOCK_SH : LOCK_EX) | LOCK_NB) || fcntl(fd, F_OFD_SETLK, &fl))
		return -errno;
	return 0;
}

static bool is_locked(int err) { return err == -EWOULDBLOCK || err == -EACCES; }

/*
 * Waits a moment for the lock: umount of a plain FUSE mount returns before its daemon has written
 * everything, so a mount that follows at once meets the lock of a daemon that is about to end.
 */
static int lock_image(struct dev_uring *uring, const char *path, bool rdonly,
		struct fdio_reason *reason)
{
	struct timespec nap = { .tv_nsec = LOCK_POLL_MS * 1000000l };
	int err = try_lock(uring->fd, rdonly);

	for (unsigned ms = 0; is_locked(err) && ms < LOCK_WAIT_MS; ms += LOCK_POLL_MS) {
		nanosleep(&nap, NULL);
		err = try_lock(uring->fd, rdonly);
	}
	if (is_locked(err))
		return fdio_reason_fail(reason, -EBUSY, "%s is in use by another process (locked): "
				"unmount it there first", path);
	if (err)
		log_warn("%s cannot be locked (%s): make sure that nobody else uses it", path,
			 strerror(-err));
	return 0;
}

/* Opens with O_DIRECT, or without it if the file system below has none (EINVAL). */
static int open_fd(struct dev_uring *uring, const char *path, int mode, bool nodirect,
		   bool *ret_direct)
{
	*ret_direct = !nodirect;
	uring->fd = open(path, mode | (nodirect ? 0 : O_DIRECT));
	if (uring->fd < 0 && errno == EINVAL && !nodirect) {
		*ret_direct = false;
		uring->fd = open(path, mode);
	}
	return uring->fd < 0 ? -errno : 0;
}

static int open_all(struct dev_uring *uring, const char *path, unsigned flags,
		struct fdio_reason *reason)
{
	int mode = (flags & DEV_OPEN_RDONLY ? O_RDONLY : O_RDWR) | O_CLOEXEC;
	struct stat st;
	bool direct;
	int err;

	if (stat(path, &st))
		return open_error(path, errno, reason);
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return fdio_reason_fail(reason, -ENOTBLK, "%s is %s, not a block device or an "
				"image file", path,
			    S_ISDIR(st.st_mode) ? "a directory" : S_ISCHR(st.st_mode)
					? "a character device" : "a special file");
	if (S_ISBLK(st.st_mode) && (flags & DEV_OPEN_EXCL)) {
		uring->claim_fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);
		if (uring->claim_fd < 0)
			return open_error(path, errno, reason);
	}
	err = open_fd(uring, path, mode, flags & DEV_OPEN_NODIRECT, &direct);
	if (err)
		return open_error(path, -err, reason);
	if (!direct && !(flags & DEV_OPEN_NODIRECT))
		log_warn("%s: its file system has no O_DIRECT; I/O goes through the page cache "
			 "below as well",
			 path);
	if (S_ISREG(st.st_mode)) {
		err = lock_image(uring, path, flags & DEV_OPEN_RDONLY, reason);
		if (err)
			return err;
		file_caps(uring, &st, direct);
	} else {
		err = block_caps(uring, &st);
		if (err)
			return fdio_reason_fail(reason, err, "cannot ask %s for its size: %s", path,
					strerror(-err));
	}
	if (!direct && uring->dev.caps.sector_bytes > 512)
		uring->dev.caps.sector_bytes = 512;
	uring->dev.caps.mem_align = direct ? 512 : 1;
	uring->dev.caps.max_io_bytes = MAX_IO_BYTES;
	if (flags & DEV_OPEN_RDONLY)
		uring->dev.caps.read_only = true;
	return 0;
}

int dev_uring_open(const char *path, unsigned flags, struct dev **ret, struct fdio_reason *reason)
{
	struct dev_uring *uring = calloc(1, sizeof(*uring));
	int err;

	if (!uring || dev_init(&uring->dev, &dev_uring_ops, path)) {
		free(uring);
		return fdio_reason_fail(reason, -ENOMEM, "out of memory while opening %s", path);
	}
	uring->fd = uring->claim_fd = -1;
	err = dev_uring_rings_new(uring);
	if (err)
		fdio_reason_set(reason, "cannot set up io_uring for %s: %s (sysctl "
				"kernel.io_uring_disabled must be 0)", path, strerror(-err));
	else
		err = open_all(uring, path, flags, reason);
	if (err) {
		uring->dev.ops->close(&uring->dev);
		return err;
	}
	*ret = &uring->dev;
	return 0;
}
