/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finding out what DEVICE is: resolves UUID= and the like, and refuses a device that is missing, in
 * use, or not ext4, with a reason that says what it is instead. Main thread, before any other
 * thread uses the device. Writes nothing and keeps nothing open. Fails with -errno and a reason.
 */
#include "command/probe.h"

#include "base/bytes.h"
#include "base/sysfs.h"
#include "command/backing.h"
#include "command/mounts.h"
#include "command/whatis.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/fs.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define TABLE_CAP (1u << 20) /* bytes for a table of mounts */
#define CLAIM_TRIES 100u     /* waits 2 s for a claim to go away */
#define CLAIM_POLL_US 20000u

/* Writes the absolute path of spec to path, which has PATH_MAX bytes. */
static int resolve(const char *spec, char *path, struct fdio_reason *reason)
{
	char *dev = NULL;
	bool tag = !strncmp(spec, "UUID=", 5) || !strncmp(spec, "LABEL=", 6) ||
		   !strncmp(spec, "PARTUUID=", 9) || !strncmp(spec, "PARTLABEL=", 10);

	if (!*spec)
		return fdio_reason_fail(reason, -EINVAL, "the name of the device is empty");
	if (tag) {
		dev = blkid_evaluate_tag(spec, NULL, NULL);
		if (!dev)
			return fdio_reason_fail(reason, -ENOENT,
						"no device has %.200s: see blkid(8)", spec);
	}
	if (!realpath(tag ? dev : spec, path)) {
		int err = -errno;

		fdio_reason_set(reason, "cannot find %.200s: %s", tag ? dev : spec, strerror(-err));
		free(dev);
		return err;
	}
	free(dev);
	return 0;
}

/*
 * Writes to where the directory that path, or another name of the device rdev (0: none), is mounted
 * on in this mount namespace; false: it is not mounted.
 */
static bool mounted_on(const char *path, dev_t rdev, char *where, size_t cap)
{
	FILE *f = setmntent("/proc/self/mounts", "r");
	struct mntent *m;
	bool found = false;

	while (f && !found && (m = getmntent(f))) {
		struct stat st;

		if (m->mnt_fsname[0] != '/')
			continue;
		if (!strcmp(m->mnt_fsname, path) || (rdev && !stat(m->mnt_fsname, &st) &&
						     S_ISBLK(st.st_mode) && st.st_rdev == rdev)) {
			snprintf(where, cap, "%s", m->mnt_dir);
			found = true;
		}
	}
	if (f)
		endmntent(f);
	return found;
}

/* As mounted_on, but also finds mounts in other mount namespaces (mounts_holders). */
static bool held_elsewhere(dev_t rdev, char *who, size_t cap)
{
	const unsigned dev[2] = { major(rdev), minor(rdev) };
	char *text = malloc(TABLE_CAP);
	bool held = text && mounts_holders(dev, text, TABLE_CAP, who, cap);

	free(text);
	return held;
}

/*
 * True if a loop device is made from this image. backing_file: the path of the device's attribute
 * of that name in sysfs.
 */
static bool made_from(const char *backing_file, const struct stat *image)
{
	static char path[PATH_MAX];
	struct stat st;

	return fdio_sysfs_line(path, sizeof(path), "%s", backing_file) && !stat(path, &st) &&
	       st.st_dev == image->st_dev && st.st_ino == image->st_ino;
}

/* True if a loop device made from this image is mounted or otherwise claimed: names it in what. */
static bool used_by_loop(const struct stat *image, char *what, size_t cap)
{
	glob_t found;
	bool used = false;

	if (glob("/sys/block/loop*/loop/backing_file", 0, NULL, &found))
		return false;
	for (size_t i = 0; i < found.gl_pathc && !used; i++) {
		const char *name = found.gl_pathv[i] + strlen("/sys/block/");
		char dev[64], where[1024];
		int fd;

		if (!made_from(found.gl_pathv[i], image))
			continue;
		snprintf(dev, sizeof(dev), "/dev/%.*s",
			 (int)FDIO_MIN(strcspn(name, "/"), (size_t)32), name);
		fd = open(dev, O_RDONLY | O_CLOEXEC | O_EXCL);
		used = fd < 0 && errno == EBUSY;
		if (fd >= 0)
			close(fd);
		if (used && mounted_on(dev, 0, where, sizeof(where)))
			snprintf(what, cap, "%s, which is mounted on %s", dev, where);
		else if (used)
			snprintf(what, cap, "%s", dev);
	}
	globfree(&found);
	return used;
}

/*
 * Opens path for reading and writing; a descriptor or -errno. If the device is claimed but not
 * mounted, retries for two seconds: the claim of a mount that has just ended outlives its daemon a
 * little, because the kernel frees io_uring rings late.
 */
static int open_for_writing(const char *path, const struct stat *st)
{
	int flags = O_RDWR | O_CLOEXEC | (S_ISBLK(st->st_mode) ? O_EXCL : 0);
	char where[1024];

	for (unsigned n = 0;; n++) {
		int fd = open(path, flags), err = fd < 0 ? -errno : 0;

		if (fd >= 0)
			return fd;
		if (err != -EBUSY || mounted_on(path, st->st_rdev, where, sizeof(where)) ||
		    n >= CLAIM_TRIES)
			return err;
		usleep(CLAIM_POLL_US);
	}
}

static int open_for_reading(const char *path, const struct stat *st)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | (S_ISBLK(st->st_mode) ? O_EXCL : 0));

	return fd < 0 ? -errno : fd;
}

/* Returns err, with the reason why the device could not be opened. */
static int open_failed(const char *path, dev_t rdev, int err, struct fdio_reason *reason)
{
	char where[1024];

	if (err == -EBUSY && mounted_on(path, rdev, where, sizeof(where)))
		return fdio_reason_fail(reason, err,
					"%s is already mounted on %s: unmount it first", path,
					where);
	if (err == -EBUSY && held_elsewhere(rdev, where, sizeof(where)))
		return fdio_reason_fail(reason, err,
					"%s is still mounted elsewhere (%s): end that, or unmount "
					"it there with nsenter(1)",
					path, where);
	if (err == -EBUSY)
		return fdio_reason_fail(reason, err,
					"%s is in use by another program (device mapper, RAID, "
					"swap?): see lsblk(8)",
					path);
	if ((err == -EACCES || err == -EPERM) && geteuid())
		return fdio_reason_fail(reason, err,
					"no permission to open %s: run as root, or be given access "
					"to it",
					path);
	if (err == -EACCES || err == -EPERM)
		return fdio_reason_fail(reason, err,
					"no permission to open %s: this container or sandbox has "
					"no access to it",
					path);
	return fdio_reason_fail(reason, err, "cannot open %s: %s", path, strerror(-err));
}

/*
 * Opens the device for writing, or for reading if read_only is set or it is write-protected, which
 * sets read_only_dev. A descriptor or -errno.
 */
static int open_device(struct probe *probe, bool read_only, const struct stat *st,
		       struct fdio_reason *reason)
{
	int fd;

	if (read_only) {
		fd = open_for_reading(probe->path, st);
	} else {
		fd = open_for_writing(probe->path, st);
		probe->read_only_dev = fd == -EROFS || fd == -EACCES || fd == -EPERM ||
				       fd == -ETXTBSY;
		if (probe->read_only_dev)
			fd = open_for_reading(probe->path, st);
	}
	return fd < 0 ? open_failed(probe->path, st->st_rdev, fd, reason) : fd;
}

static int read_super(int fd, struct probe *probe)
{
	ssize_t n = pread(fd, probe->super, sizeof(probe->super), SUPER_OFFSET);

	return n < 0 ? -errno : n == (ssize_t)sizeof(probe->super) ? 0 : -ENODATA;
}

/*
 * Asks libblkid for the type of the device's content and, if it knows none, for the type of the
 * partition table. "" if libblkid does not know.
 */
static void blkid_type(int fd, char *type, char *pttype, size_t cap)
{
	blkid_probe pr = blkid_new_probe();
	const char *v = NULL;

	type[0] = pttype[0] = '\0';
	if (!pr)
		return;
	if (!blkid_probe_set_device(pr, fd, 0, 0)) {
		blkid_probe_enable_superblocks(pr, 1);
		blkid_probe_set_superblocks_flags(pr, BLKID_SUBLKS_TYPE);
		blkid_probe_enable_partitions(pr, 1);
		if (!blkid_do_safeprobe(pr)) {
			if (!blkid_probe_lookup_value(pr, "TYPE", &v, NULL))
				snprintf(type, cap, "%s", v);
			else if (!blkid_probe_lookup_value(pr, "PTTYPE", &v, NULL))
				snprintf(pttype, cap, "%s", v);
		}
	}
	blkid_free_probe(pr);
}

static int check_type(int fd, struct probe *probe, struct fdio_reason *reason)
{
	unsigned magic = fdio_get_le16(probe->super, SUPER_MAGIC);
	/* The field has 32 bits; its upper half is checked when the volume is opened. */
	unsigned log_block_size = fdio_get_le16(probe->super, SUPER_LOG_BLOCK_SIZE);
	char type[64], pttype[64];

	blkid_type(fd, type, pttype, sizeof(type));
	if (!strcmp(type, "jbd"))
		return fdio_reason_fail(reason, -EINVAL,
					"%s is an external journal, not a file system",
					probe->path);
	if (magic != SUPER_MAGIC_VALUE || pttype[0] || (type[0] && strncmp(type, "ext", 3))) {
		whatis_explain(fd, probe->path, type, pttype, reason);
		return -EINVAL;
	}
	if (log_block_size > SUPER_LOG_BLOCK_SIZE_MAX)
		return fdio_reason_fail(reason, -EUCLEAN,
					"%s: the superblock is damaged (block size): run e2fsck",
					probe->path);
	probe->fs_block_size = 1024u << log_block_size;
	return 0;
}

static void ask_block_device(int fd, struct probe *probe)
{
	int sector_bytes = 0, read_only = 0;

	if (!ioctl(fd, BLKSSZGET, &sector_bytes) && sector_bytes > 0)
		probe->sector_bytes = (uint32_t)sector_bytes;
	if (!ioctl(fd, BLKROGET, &read_only) && read_only)
		probe->read_only_dev = true;
}

/* Fills the fields of probe from the open device; fails if it is not an ext4 file system. */
static int inspect(int fd, struct probe *probe, struct fdio_reason *reason)
{
	int err;

	probe->sector_bytes = 512;
	if (probe->is_block)
		ask_block_device(fd, probe);
	err = read_super(fd, probe);
	if (err == -ENODATA && whatis_explain_format(fd, probe->path, reason))
		return -EINVAL;
	if (err == -ENODATA)
		return fdio_reason_fail(reason, -EINVAL, "%s is too small to hold a file system",
				probe->path);
	if (err)
		return fdio_reason_fail(reason, err, "cannot read %s: %s", probe->path,
					strerror(-err));
	return check_type(fd, probe, reason);
}

bool probe_is_missing(const char *spec)
{
	char *path = malloc(PATH_MAX);
	int fd = -1, err = path ? resolve(spec, path, NULL) : -ENOMEM;

	if (!err) {
		fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
		err = fd < 0 ? -errno : 0;
	}
	if (fd >= 0)
		close(fd);
	free(path);
	return err == -ENOENT || err == -ENOTDIR || err == -ENXIO || err == -ENODEV ||
	       err == -ENOMEDIUM;
}

/* Refuses what is neither a block device nor an image file. */
static int check_file_type(const struct probe *probe, const struct stat *st,
			   struct fdio_reason *reason)
{
	if (S_ISDIR(st->st_mode))
		return fdio_reason_fail(reason, -EISDIR,
					"%s is a directory: give the device or image first, then "
					"the mount point",
					probe->path);
	if (!S_ISBLK(st->st_mode) && !S_ISREG(st->st_mode))
		return fdio_reason_fail(reason, -ENOTBLK,
					"%s is neither a block device nor an image file",
					probe->path);
	return 0;
}

/* Refuses an image in use through a loop device, and a loop device whose image is in use. */
static int check_loop_devices(const struct probe *probe, const struct stat *st, bool read_only,
			      struct fdio_reason *reason)
{
	char user[1200];

	if (!probe->is_block && used_by_loop(st, user, sizeof(user)))
		return fdio_reason_fail(reason, -EBUSY,
					"%s is in use by %s: unmount it there, or name the loop "
					"device",
					probe->path, user);
	if (probe->is_block && backing_locked(st->st_rdev, read_only, user, sizeof(user)))
		return fdio_reason_fail(reason, -EBUSY,
					"%s is made from %s, which is in use by another process "
					"(locked): unmount it there first",
					probe->path, user);
	return 0;
}

int probe_device(const char *spec, bool read_only, struct probe *probe, struct fdio_reason *reason)
{
	struct stat st;
	int fd, err;

	memset(probe, 0, sizeof(*probe));
	err = resolve(spec, probe->path, reason);
	if (err)
		return err;
	if (stat(probe->path, &st))
		return fdio_reason_fail(reason, -errno, "cannot find %s: %s", probe->path,
					strerror(errno));
	err = check_file_type(probe, &st, reason);
	if (err)
		return err;
	probe->is_block = S_ISBLK(st.st_mode);
	err = check_loop_devices(probe, &st, read_only, reason);
	if (err)
		return err;
	fd = open_device(probe, read_only, &st, reason);
	if (fd < 0)
		return fd;
	err = inspect(fd, probe, reason);
	close(fd);
	return err;
}

int probe_recheck(const struct probe *probe, int fd, struct fdio_reason *reason)
{
	uint8_t *now = fdio_alloc_aligned(4096, 8192);
	ssize_t n;
	bool same;

	if (!now)
		return fdio_reason_fail(reason, -ENOMEM, "out of memory");
	n = pread(fd, now, 8192, 0); /* aligned: the descriptor may be O_DIRECT */
	same = n >= SUPER_OFFSET + (ssize_t)sizeof(probe->super) &&
	       !memcmp(now + SUPER_OFFSET, probe->super, sizeof(probe->super));
	free(now);
	if (!same)
		return fdio_reason_fail(reason, -EBUSY,
					"%s changed while it was being claimed: another program "
					"uses it",
					probe->path);
	return 0;
}
