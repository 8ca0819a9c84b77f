/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finding out what DEVICE is: resolves UUID= and LABEL=, refuses what is not there, in use, or not
 * ext4, and says what it is instead. Main thread, before any thread that touches the device.
 * Nothing is written, and nothing stays open. Fails with -errno and a reason.
 */
#include "command/probe.h"

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

#define SUPER_OFF 1024
#define TABLE_CAP (1u << 20)
#define EXT4_MAGIC 0xEF53u

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

/* Where path is mounted, by the table of mounts; false if nowhere. */
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

/* Who has it mounted in a mount namespace of its own. */
static bool held_elsewhere(dev_t rdev, char *who, size_t cap)
{
	const unsigned dev[2] = { major(rdev), minor(rdev) };
	char *text = malloc(TABLE_CAP);
	bool held = text && mounts_holders(dev, text, TABLE_CAP, who, cap);

	free(text);
	return held;
}

/* Whether the loop device with this "backing_file" of sysfs is made from the image. */
static bool made_from(const char *backing_file, const struct stat *image)
{
	static char path[PATH_MAX];
	struct stat st;

	return fdio_sysfs_line(path, sizeof(path), "%s", backing_file) && !stat(path, &st) &&
	       st.st_dev == image->st_dev && st.st_ino == image->st_ino;
}

/* Whether a loop device made from this image is mounted or otherwise claimed; which, and where. */
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

static int open_it(struct probe *probe, bool read_only, const struct stat *st,
		struct fdio_reason *reason)
{
	char where[1024];
	int excl = S_ISBLK(st->st_mode) ? O_EXCL : 0;
	int fd = read_only ? -1 : open(probe->path, O_RDWR | O_CLOEXEC | excl),
	    err = fd < 0 ? errno : 0;

	/*
	 * The claim of a mount that has just ended goes a moment after its daemon: the kernel takes
	 * rings apart later.
	 */
	for (int n = 0; fd < 0 && !read_only && err == EBUSY &&
			!mounted_on(probe->path, st->st_rdev, where, sizeof(where)) && n < 100;
	     n++) {
		usleep(20000);
		fd = open(probe->path, O_RDWR | O_CLOEXEC | excl);
		err = errno;
	}
	if (!read_only && fd < 0 &&
	    (err == EROFS || err == EACCES || err == EPERM || err == ETXTBSY))
		probe->read_only_dev = true;
	if (fd < 0 && (read_only || probe->read_only_dev)) {
		fd = open(probe->path, O_RDONLY | O_CLOEXEC | excl);
		err = errno;
	}
	if (fd >= 0)
		return fd;
	if (err == EBUSY && mounted_on(probe->path, st->st_rdev, where, sizeof(where)))
		return fdio_reason_fail(reason, -EBUSY, "%s is already mounted on %s: unmount it "
				"first", probe->path, where);
	if (err == EBUSY && held_elsewhere(st->st_rdev, where, sizeof(where)))
		return fdio_reason_fail(reason, -EBUSY, "%s is still mounted elsewhere (%s): end "
				"that, or unmount it there with nsenter(1)", probe->path,
			    where);
	if (err == EBUSY)
		return fdio_reason_fail(reason, -EBUSY, "%s is in use by another program (device "
				"mapper, RAID, swap?): see lsblk(8)", probe->path);
	if (err == EACCES || err == EPERM)
		return fdio_reason_fail(reason, -err, "no permission to open %s: %s", probe->path,
					geteuid() ? "run as root, or be given access to it"
						  : "this container or sandbox has no access to "
						    "it");
	return fdio_reason_fail(reason, -err, "cannot open %s: %s", probe->path, strerror(err));
}

static int read_super(int fd, struct probe *probe)
{
	ssize_t n = pread(fd, probe->super, sizeof(probe->super), SUPER_OFF);

	return n < 0 ? -errno : n == (ssize_t)sizeof(probe->super) ? 0 : -ENODATA;
}

/* What libblkid makes of it, and of its partitions if that is all; "" when it does not know. */
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
	uint32_t magic = probe->super[56] | (uint32_t)probe->super[57] << 8;
	uint32_t log_bs = probe->super[24] | (uint32_t)probe->super[25] << 8;
	char type[64], pttype[64];

	blkid_type(fd, type, pttype, sizeof(type));
	if (!strcmp(type, "jbd"))
		return fdio_reason_fail(reason, -EINVAL, "%s is an external journal, not a file "
				"system", probe->path);
	if (magic != EXT4_MAGIC || pttype[0] || (type[0] && strncmp(type, "ext", 3))) {
		whatis_say(fd, probe->path, type, pttype, reason);
		return -EINVAL;
	}
	if (log_bs > 6)
		return fdio_reason_fail(reason, -EUCLEAN, "%s: the superblock is damaged (block "
				"size): run e2fsck", probe->path);
	probe->fs_block_size = 1024u << log_bs;
	return 0;
}

static int look(int fd, struct probe *probe, struct fdio_reason *reason)
{
	int v = 0, err;

	probe->sector_bytes = 512;
	if (probe->is_block) {
		if (!ioctl(fd, BLKSSZGET, &v) && v > 0)
			probe->sector_bytes = (uint32_t)v;
		v = 0;
		if (!ioctl(fd, BLKROGET, &v) && v)
			probe->read_only_dev = true;
	}
	err = read_super(fd, probe);
	if (err == -ENODATA && whatis_format(fd, probe->path, reason))
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

int probe_device(const char *spec, bool read_only, struct probe *probe, struct fdio_reason *reason)
{
	char user[1200];
	struct stat st;
	int fd, err;

	memset(probe, 0, sizeof(*probe));
	err = resolve(spec, probe->path, reason);
	if (err)
		return err;
	if (stat(probe->path, &st))
		return fdio_reason_fail(reason, -errno, "cannot find %s: %s", probe->path,
				strerror(errno));
	if (S_ISDIR(st.st_mode))
		return fdio_reason_fail(reason, -EISDIR, "%s is a directory: give the device or "
				"image first, then the mount point", probe->path);
	if (!S_ISBLK(st.st_mode) && !S_ISREG(st.st_mode))
		return fdio_reason_fail(reason, -ENOTBLK, "%s is neither a block device nor an "
				"image file", probe->path);
	probe->is_block = S_ISBLK(st.st_mode);
	if (!probe->is_block && used_by_loop(&st, user, sizeof(user)))
		return fdio_reason_fail(reason, -EBUSY, "%s is in use by %s: unmount it there, or "
				"name the loop device", probe->path, user);
	if (probe->is_block && backing_locked(st.st_rdev, read_only, user, sizeof(user)))
		return fdio_reason_fail(reason, -EBUSY, "%s is made from %s, which is in use by "
				"another process (locked): unmount it there first",
			    probe->path, user);
	fd = open_it(probe, read_only, &st, reason);
	if (fd < 0)
		return fd;
	err = look(fd, probe, reason);
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
	n = pread(fd, now, 8192, 0); /* the descriptor may be O_DIRECT */
	same = n >= SUPER_OFF + (ssize_t)sizeof(probe->super) &&
	       !memcmp(now + SUPER_OFF, probe->super, sizeof(probe->super));
	free(now);
	if (!same)
		return fdio_reason_fail(reason, -EBUSY, "%s changed while it was being claimed: "
				"another program uses it", probe->path);
	return 0;
}
