/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mounting with fsopen(2) and the calls beside it (Linux 5.2): the mount exists, and claims a block
 * device, but is attached to no directory before it serves. Until then nobody can see or use it,
 * and if the start fails, closing the descriptors is the end of it. So a mount that is refused is
 * never seen. (FUSE_DEV_IOC_SYNC_INIT of Linux 6.18 would do the same with a thread that waits in
 * mount(2) meanwhile.)
 *
 * Main thread, no locks. The calls need CAP_SYS_ADMIN; a process without it, and a source that is
 * too long for fsconfig(2), take the way of mount.c through libfuse.
 */
#include "transport/mount.h"
#include "transport/types.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SUBTYPE "fusedio"
/* The longest text that fsconfig takes, and its NUL. */
#define VALUE_CAP 256u

/* The C library may be older than these calls. */
static int fs_open(const char *type)
{
	return (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
}

static int fs_config(int fd, unsigned command, const char *key, const char *value)
{
	return (int)syscall(SYS_fsconfig, fd, command, key, value, 0);
}

static int fs_mount(int fd, unsigned attributes)
{
	return (int)syscall(SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes);
}

static bool has_option(const struct transport *transport, const char *name)
{
	size_t len = strlen(name);
	const char *at = transport->mount_opts;

	while (*at) {
		size_t n = strcspn(at, ",");

		if (n == len && !strncmp(at, name, n))
			return true;
		at += n + (at[n] == ',');
	}
	return false;
}

/* As with libfuse, set-user-ID bits and device nodes count only if the options say so. */
static unsigned mount_attributes(const struct transport *transport)
{
	return (has_option(transport, "ro") ? MOUNT_ATTR_RDONLY : 0u) |
	       (has_option(transport, "suid") ? 0u : MOUNT_ATTR_NOSUID) |
	       (has_option(transport, "dev") ? 0u : MOUNT_ATTR_NODEV) |
	       (has_option(transport, "noexec") ? MOUNT_ATTR_NOEXEC : 0u) |
	       (has_option(transport, "noatime") ? MOUNT_ATTR_NOATIME : 0u);
}

static int set_flag(int fd, const char *name)
{
	return fs_config(fd, FSCONFIG_SET_FLAG, name, NULL);
}

static int set_number(int fd, const char *name, const char *format, unsigned number)
{
	char text[16];

	snprintf(text, sizeof(text), format, number);
	return fs_config(fd, FSCONFIG_SET_STRING, name, text);
}

/* 0, or -1 with errno, like the calls. */
static int set_options(const struct transport *transport, int fd)
{
	static const char *const same[] = { "ro", "sync", "dirsync", "allow_other" };

	if (fs_config(fd, FSCONFIG_SET_STRING, "source", transport->source) ||
	    fs_config(fd, FSCONFIG_SET_STRING, "subtype", SUBTYPE) ||
	    set_flag(fd, "default_permissions") ||
	    set_number(fd, "fd", "%u", (unsigned)transport->fd) ||
	    set_number(fd, "rootmode", "%o", S_IFDIR) ||
	    set_number(fd, "user_id", "%u", getuid()) ||
	    set_number(fd, "group_id", "%u", getgid()) ||
	    set_number(fd, "max_read", "%u", MESSAGE_MAX_WRITE))
		return -1;
	if (transport->config.blkdev &&
	    set_number(fd, "blksize", "%u", transport->config.blksize))
		return -1;
	for (size_t i = 0; i < ARRAY_SIZE(same); i++)
		if (has_option(transport, same[i]) && set_flag(fd, same[i]))
			return -1;
	return 0;
}

/* Makes the file system, and the mount of it. */
static int make(struct transport *transport, int fd, struct fdio_reason *reason)
{
	int err = 0;

	if (set_options(transport, fd) || fs_config(fd, FSCONFIG_CMD_CREATE, NULL, NULL))
		err = -errno;
	if (!err) {
		transport->mount_fd = fs_mount(fd, mount_attributes(transport));
		err = transport->mount_fd < 0 ? -errno : 0;
	}
	if (err == -EPERM)
		return -EOPNOTSUPP;
	if (err)
		fdio_reason_set(reason, "cannot mount %s on %s: %s", transport->source,
				transport->mountpoint, strerror(-err));
	return err;
}

int transport_detached_new(struct transport *transport, struct fdio_reason *reason)
{
	int fd, err;

	if (strlen(transport->source) >= VALUE_CAP)
		return -EOPNOTSUPP;
	fd = fs_open(transport->config.blkdev ? "fuseblk" : "fuse");
	if (fd < 0)
		return -EOPNOTSUPP;
	transport->fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (transport->fd < 0) {
		err = -errno;
		fdio_reason_set(reason, "cannot mount on %s: /dev/fuse: %s", transport->mountpoint,
				strerror(-err));
	} else {
		err = make(transport, fd, reason);
	}
	/* As long as it is open, the mount would be busy. */
	close(fd);
	if (err)
		transport_detached_close(transport);
	return err;
}

int transport_detached_attach(struct transport *transport, struct fdio_reason *reason)
{
	unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS | MOVE_MOUNT_T_AUTOMOUNTS;

	if (syscall(SYS_move_mount, transport->mount_fd, "", AT_FDCWD, transport->mountpoint,
		    flags)) {
		int err = -errno;

		fdio_reason_set(reason, "cannot mount on %s: %s", transport->mountpoint,
				strerror(-err));
		return err;
	}
	close(transport->mount_fd);
	transport->mount_fd = -1;
	return 0;
}

void transport_detached_close(struct transport *transport)
{
	/* First the connection: otherwise a fuseblk mount would wait for the answer to DESTROY. */
	if (transport->fd >= 0)
		close(transport->fd);
	transport->fd = -1;
	transport_detached_end(transport);
}

void transport_detached_end(struct transport *transport)
{
	if (transport->mount_fd >= 0)
		close(transport->mount_fd);
	transport->mount_fd = -1;
}
