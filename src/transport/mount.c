/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mounting: detached.c does it for a process that may mount. For all others libfuse3 does, which
 * knows fusermount3 and mtab. Its request loop is never run, because it knows neither INIT bits
 * above 31 nor the ring.
 *
 * transport_mount_make, transport_mount_attach and transport_mount_free run on the main thread, the
 * others on the thread that asks for the end. No locks. Mounting fails with -errno and a reason,
 * which includes what libfuse and fusermount3 write to stderr.
 */
#include "transport/mount.h"

#include "base/log.h"
#include "transport/types.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <fuse_log.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char last_fuse_line[512];

/* libfuse explains a failed mount on stderr. This keeps the text for the reason. */
static void catch_fuse_log(enum fuse_log_level level, const char *fmt, va_list ap)
{
	(void)level;
	vsnprintf(last_fuse_line, sizeof(last_fuse_line), fmt, ap);
	last_fuse_line[strcspn(last_fuse_line, "\n")] = '\0';
}

/* Mounts. Keeps for the reason what fusermount3, the helper for ordinary users, prints. */
static int mount_and_listen(struct transport *transport)
{
	int said = memfd_create("fusermount3", MFD_CLOEXEC), err = -1;
	int out = said < 0 ? -1 : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	char text[256];
	ssize_t n;

	if (out >= 0)
		dup2(said, STDERR_FILENO);
	err = fuse_session_mount(transport->se, transport->mountpoint);
	if (out >= 0) {
		dup2(out, STDERR_FILENO);
		n = pread(said, text, sizeof(text) - 1, 0);
		text[FDIO_MAX(n, 0)] = '\0';
		text[strcspn(text, "\n")] = '\0';
		if (err && text[0])
			snprintf(last_fuse_line, sizeof(last_fuse_line), "%s", text);
		close(out);
	}
	if (said >= 0)
		close(said);
	return err;
}

/* -ENODEV if this kernel has no FUSE. Opening the device loads the module. */
static int check_fuse(const struct transport *transport, struct fdio_reason *reason)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		close(fd);
	else if (errno == ENOENT || errno == ENODEV || errno == ENXIO) {
		fdio_reason_set(reason, "cannot mount on %s: /dev/fuse: %s: this system offers no "
				"FUSE (modprobe fuse)", transport->mountpoint, strerror(errno));
		return -ENODEV;
	}
	return 0;
}

/* Copies s for the value of fsname=, which a comma would end unless it is escaped. */
static void escape_into(char *out, size_t cap, const char *s)
{
	size_t n = 0;

	for (; *s && n + 2 < cap; s++) {
		if (*s == ',' || *s == '\\')
			out[n++] = '\\';
		out[n++] = *s;
	}
	out[n] = '\0';
}

static void build_options(const struct transport *transport, char *out, size_t cap)
{
	char fsname[1024];
	int n;

	escape_into(fsname, sizeof(fsname), transport->source);
	n = snprintf(out, cap, "fsname=%s,subtype=fusedio,default_permissions,max_read=%u", fsname,
		     MESSAGE_MAX_WRITE);
	if (transport->config.blkdev)
		n += snprintf(out + n, cap - n, ",blkdev,blksize=%u", transport->config.blksize);
	if (transport->mount_opts[0])
		snprintf(out + n, cap - n, ",%s", transport->mount_opts);
}

static void attached(struct transport *transport)
{
	transport->mounted = true;
	transport->config.mounted(transport->config.arg);
}

static int mount_with_libfuse(struct transport *transport, struct fdio_reason *reason)
{
	static const struct fuse_lowlevel_ops none;
	char opts[2048];
	char *argv[] = { (char *)"fusedio", (char *)"-o", opts, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);

	last_fuse_line[0] = '\0';
	fuse_set_log_func(catch_fuse_log);
	build_options(transport, opts, sizeof(opts));
	transport->se = fuse_session_new(&args, &none, sizeof(none), NULL);
	fuse_opt_free_args(&args);
	if (!transport->se) {
		fdio_reason_set(reason, "libfuse refused the mount options: %s", last_fuse_line[0]
				? last_fuse_line : opts);
		return -EINVAL;
	}
	if (mount_and_listen(transport)) {
		fdio_reason_set(reason, "cannot mount on %s: %s", transport->mountpoint,
				last_fuse_line[0] ? last_fuse_line
						  : "see the kernel log; is /dev/fuse there "
						    "(modprobe fuse)?");
		fuse_session_destroy(transport->se);
		transport->se = NULL;
		return -EIO;
	}
	transport->fd = fuse_session_fd(transport->se);
	attached(transport);
	return 0;
}

int transport_mount_make(struct transport *transport, struct fdio_reason *reason)
{
	int err;

	if (check_fuse(transport, reason))
		return -ENODEV;
	err = transport_detached_new(transport, reason);
	return err == -EOPNOTSUPP ? mount_with_libfuse(transport, reason) : err;
}

int transport_mount_attach(struct transport *transport, struct fdio_reason *reason)
{
	int err;

	if (transport->mounted)
		return 0;
	err = transport_detached_attach(transport, reason);
	if (!err)
		attached(transport);
	return err;
}

void transport_mount_free(struct transport *transport)
{
	/* Unmounts first: this process has given up the privileges that libfuse would need. */
	if (transport->mounted)
		transport_unmount_lazy(transport);
	transport->mounted = false;
	if (transport->se) {
		transport->fd = -1;
		fuse_session_destroy(transport->se);
		transport->se = NULL;
	}
	transport_detached_close(transport);
}

int transport_unmount_try(struct transport *transport)
{
	int err = transport->config.umount(transport->config.arg, false);

	if (!err)
		transport->mounted = false;
	return err;
}

void transport_unmount_lazy(struct transport *transport)
{
	int err = transport->config.umount(transport->config.arg, true);

	if (!err)
		transport->mounted = false;
	else if (err == -EEXIST)
		log_warn("%s is covered by another mount and stays there, dead: unmount it once "
			 "that one is gone",
			 transport->mountpoint);
	else if (err != -EINVAL)
		log_warn("cannot detach %s: %s", transport->mountpoint, strerror(-err));
}
