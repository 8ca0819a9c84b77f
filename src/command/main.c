/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command: reads the command line, becomes a daemon, and runs one session (session.h): start,
 * serve, end. Until the mount answers, whatever fails ends the process with one line on stderr and
 * an exit status of mount(8).
 *
 * Threads: this one waits for the end of the mount; one waits for signals, once the mount serves;
 * the watchdog is there from before recovery; the rest belong to the rooms. SIGTERM and SIGINT end
 * the start between two steps, and within those that can take long.
 */
#include "base/log.h"
#include "command/daemon.h"
#include "command/session.h"
#include "command/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int session_failed(struct session *s, int status, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fdio_reason_vset(&s->reason, fmt, ap);
	va_end(ap);
	return status;
}

/* One line, whatever names it repeats. */
static void say(struct session *s)
{
	static char line[sizeof(s->err)];

	fdio_escape(line, sizeof(line), s->err);
	fprintf(stderr, "fusedio: %s\n", line);
}

static int check_mountpoint(struct session *s)
{
	const char *given = *s->opt.mountpoint ? s->opt.mountpoint : "''";
	struct stat st;

	if (!realpath(s->opt.mountpoint, s->mountpoint))
		return session_failed(s, EXIT_MOUNT, "mount point %.200s: %s", given, strerror(errno));
	if (stat(s->mountpoint, &st))
		return session_failed(s, EXIT_MOUNT, "mount point %s: %s", s->mountpoint, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return session_failed(s, EXIT_MOUNT, "mount point %s is not a directory", s->mountpoint);
	return 0;
}

/*
 * Only the daemon's own files stay open: what the shell or a service manager had open would be held
 * as long as the mount lives. A device that is named by a descriptor (/dev/fd/9, or a link to that)
 * gets the name of its file before.
 */
static void close_inherited(struct session *s)
{
	if (strchr(s->opt.device, '/') && realpath(s->opt.device, s->device))
		s->opt.device = s->device;
	daemon_close_inherited();
}

/* Whoever starts us without one of them must not find the device or a socket in its place. */
static void open_standard_files(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

static void print_version(void)
{
	printf("fusedio %s\nlibfuse %s, FUSE headers 7.%u\n", PACKAGE_VERSION, fuse_pkgversion(),
	       FUSE_KERNEL_MINOR_VERSION);
}

/* -h and -V: prints what was asked for. */
static bool only_tells(const struct options *o)
{
	if (o->help)
		options_help(stdout);
	else if (o->version)
		print_version();
	return o->help || o->version;
}

/* The namespace first: the mount point is meant in there. */
static int check_arguments(struct session *s)
{
	if (s->opt.ns && daemon_setns(s->opt.ns, &s->reason))
		return EXIT_SYSTEM;
	return check_mountpoint(s);
}

/* -f of mount(8): everything but the mount. */
static int fake_mount(struct session *s)
{
	int err = probe_device(s->opt.device, true, &s->probe, &s->reason);

	if (err)
		say(s);
	return err ? EXIT_MOUNT : 0;
}

/*
 * The child returns 0 and goes on. Until the mount answers, the terminal is the user's: only what
 * he has to know goes there.
 */
static int go_to_background(struct session *s)
{
	int err = daemon_fork();

	if (err) {
		fprintf(stderr, "fusedio: cannot fork: %s\n", strerror(-err));
		return EXIT_SYSTEM;
	}
	fdio_log_open_syslog("fusedio", s->opt.verbose ? FDIO_LOG_DEBUG : FDIO_LOG_WARN);
	return 0;
}

static int run(struct session *s)
{
	int status;

	daemon_open_notify();
	status = session_start(s);
	if (!status)
		status = session_settle(s);
	if (!status)
		session_wait(s);
	else
		say(s);
	session_free(s);
	return status ? status : s->result ? EXIT_SYSTEM : 0;
}

int main(int argc, char **argv)
{
	static struct session s = { .reason = { .text = s.err, .cap = sizeof(s.err) } };
	int status = options_parse(argc, argv, &s.opt, &s.reason);

	fdio_magic_set(&s, MAGIC_SESSION);
	open_standard_files();
	if (only_tells(&s.opt))
		return 0;
	s.root = geteuid() == 0;
	if (!status)
		status = check_arguments(&s);
	if (status) {
		say(&s);
		return status;
	}
	if (s.opt.nofail && probe_is_missing(s.opt.device))
		return 0;
	close_inherited(&s);
	fdio_log_set_level(s.opt.verbose ? FDIO_LOG_DEBUG : options_log_level(&s.opt));
	if (s.opt.fake)
		return fake_mount(&s);
	if (!s.opt.foreground)
		status = go_to_background(&s);
	if (status)
		return status;
	signals_block();
	status = run(&s);
	options_free(&s.opt);
	if (s.stopped)
		signals_die();
	return status;
}
