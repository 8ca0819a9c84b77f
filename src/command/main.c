/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command: reads the command line, becomes a daemon, and runs one session (session.h): start,
 * serve, end. A failure before the mount serves ends the process with one line on stderr and an
 * exit status of mount(8).
 *
 * Threads of src/command: the main thread, which runs this file and then waits for the end of the
 * mount; the signal thread (signals.c), once the mount serves; and the watchdog (watchdog.c), from
 * before recovery on. SIGTERM and SIGINT end the start between two steps, and also within the steps
 * that can take long.
 */
#include "base/log.h"
#include "command/daemon.h"
#include "command/session.h"
#include "command/signals.h"
#include "message/fuse_compat.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Prints session->reason as one line: a newline in a file name is escaped. */
static void print_reason(struct session *session)
{
	static char line[sizeof(session->reason_text)];

	fdio_escape(line, sizeof(line), session->reason_text);
	fprintf(stderr, "fusedio: %s\n", line);
}

static int check_mountpoint(struct session *session)
{
	const char *given = *session->options.mountpoint ? session->options.mountpoint : "''";
	struct stat st;

	if (!realpath(session->options.mountpoint, session->mountpoint))
		return session_failed(session, EXIT_MOUNT, "mount point %.200s: %s", given,
				      strerror(errno));
	if (stat(session->mountpoint, &st))
		return session_failed(session, EXIT_MOUNT, "mount point %s: %s",
				      session->mountpoint, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return session_failed(session, EXIT_MOUNT, "mount point %s is not a directory",
				      session->mountpoint);
	return 0;
}

/*
 * Closes the descriptors that the shell or a service manager left open: the daemon would hold those
 * files as long as the mount lives. A device that is named by such a descriptor (/dev/fd/9, or a
 * link to that) is replaced by the name of its file first.
 */
static void close_inherited(struct session *session)
{
	if (strchr(session->options.device, '/') &&
	    realpath(session->options.device, session->device))
		session->options.device = session->device;
	daemon_close_inherited();
}

/*
 * Opens /dev/null for each standard stream that is closed: otherwise the device or a socket would
 * get its number, and messages would be written there.
 */
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
	printf("fusedio %s\nlibfuse %s, FUSE protocol 7.%u\n", PACKAGE_VERSION, fuse_pkgversion(),
	       MESSAGE_PROTOCOL_MINOR);
}

/* -h and -V. False if neither was given. */
static bool print_help_or_version(const struct options *options)
{
	if (options->help)
		options_help(stdout);
	else if (options->version)
		print_version();
	return options->help || options->version;
}

/* Enters the mount namespace first, because the mount point is a path in that namespace. */
static int check_arguments(struct session *session)
{
	if (session->options.ns && daemon_setns(session->options.ns, &session->reason))
		return EXIT_SYSTEM;
	return check_mountpoint(session);
}

/* -f of mount(8): checks the device, and mounts nothing. */
static int fake_mount(struct session *session)
{
	int err = probe_device(session->options.device, true, &session->probe, &session->reason);

	if (err)
		print_reason(session);
	return err ? EXIT_MOUNT : 0;
}

/*
 * Forks; the child returns 0 and goes on. It logs to syslog. Until the mount serves, warnings and
 * errors (with -v, all lines) go to the user's terminal, too.
 */
static int go_to_background(struct session *session)
{
	int err = daemon_fork();

	if (err) {
		fprintf(stderr, "fusedio: cannot fork: %s\n", strerror(-err));
		return EXIT_SYSTEM;
	}
	fdio_log_open_syslog("fusedio", session->options.verbose ? FDIO_LOG_DEBUG : FDIO_LOG_WARN);
	return 0;
}

/* The session, from its start to its end; returns the exit status. */
static int run(struct session *session)
{
	int status;

	daemon_open_notify();
	status = session_start(session);
	if (!status)
		status = session_drop_privileges(session);
	if (!status)
		session_wait(session);
	else
		print_reason(session);
	session_free(session);
	return status ? status : session->result ? EXIT_SYSTEM : 0;
}

int main(int argc, char **argv)
{
	static struct session session = { .reason = { .text = session.reason_text,
						      .cap = sizeof(session.reason_text) } };
	int status = options_parse(argc, argv, &session.options, &session.reason);

	fdio_magic_set(&session, MAGIC_SESSION);
	open_standard_files();
	if (print_help_or_version(&session.options))
		return 0;
	session.root = geteuid() == 0;
	if (!status)
		status = check_arguments(&session);
	if (status) {
		print_reason(&session);
		return status;
	}
	if (session.options.nofail && probe_is_missing(session.options.device))
		return 0;
	close_inherited(&session);
	fdio_log_set_level(session.options.verbose ? FDIO_LOG_DEBUG
						   : options_log_level(&session.options));
	if (session.options.fake)
		return fake_mount(&session);
	if (!session.options.foreground)
		status = go_to_background(&session);
	if (status)
		return status;
	signals_block();
	status = run(&session);
	options_free(&session.options);
	if (session.stopped)
		signals_die();
	return status;
}
