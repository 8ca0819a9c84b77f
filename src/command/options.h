/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line, parsed. The table is options.def. Main thread, at start; the others only read
 * it.
 */
#ifndef FDIO_COMMAND_OPTIONS_H
#define FDIO_COMMAND_OPTIONS_H

#include "base/reason.h"
#include "base/util.h"

#include <stdio.h>

/* Exit status, as mount(8) documents it. */
enum { EXIT_USAGE = 1, EXIT_SYSTEM = 2, EXIT_MOUNT = 32 };

/*
 * What the fields of ENUM options hold: the position of the value in the table's list. atime is
 * set by flags. Where a room has an enum of its own for it, assemble.c and serve.c assert that the
 * numbers are the same.
 */
enum { OPT_DIO_STRICT = 0, OPT_DIO_RELAXED };
enum { OPT_ERRORS_DEFAULT = 0, OPT_ERRORS_CONTINUE, OPT_ERRORS_REMOUNT_RO, OPT_ERRORS_PANIC };
enum { OPT_SANDBOX_ON = 0, OPT_SANDBOX_OFF, OPT_SANDBOX_LOG };
enum { OPT_TRANSPORT_AUTO = 0, OPT_TRANSPORT_URING, OPT_TRANSPORT_DEVFUSE };
enum { OPT_LOG_ERR = 0, OPT_LOG_WARNING, OPT_LOG_INFO, OPT_LOG_DEBUG };
enum { OPT_ATIME_RELATIVE = 0, OPT_ATIME_NO, OPT_ATIME_STRICT };

struct options {
	const char *device, *mountpoint;
	bool foreground, debug, single_loop, help, version;
	/* as mount.fusedio */
	bool helper, fake, sloppy, verbose;
	const char *ns;

	int read_only, atime, nodiratime, lazytime, nosuid, nodev, noexec, sync, dirsync,
			allow_other;
	int dio, parallel_dio, commit, errors, norecovery, discard, mlock, queue_depth, poll,
			max_background, readahead, workers, transport;
	int log, acl, user_xattr, nofail, sandbox, drain_timeout;
	int grpid;              /* 0: follows the directory's bit */
	int resuid, resgid;     /* -1: not said */
	char *fsname;
	bool log_given;
	/* Bits of the int fields above, from read_only on: set by the command line; by
	 * options_take. */
	uint64_t given, asked;
};

/*
 * argv[0] decides: mount.* takes mount(8)'s helper arguments, anything else fusedio's own. 0, or
 * EXIT_USAGE with one line in reason.
 */
int options_parse(int argc, char **argv, struct options *options, struct fdio_reason *reason);
/* One comma list; sloppy: unknown options are skipped. 0 or -EINVAL. */
int options_parse_list(struct options *options, const char *list, bool sloppy,
		struct fdio_reason *reason);
void options_defaults(struct options *options, bool root);
void options_free(struct options *options);
void options_help(FILE *f);
/* The level of the log that options->log stands for, enum fdio_log_level. */
int options_log_level(const struct options *options);
/*
 * One option that somebody else than the command line, which goes first, asks for; what may not be
 * set so has no effect. TAKEN: set, noted in asked. LEFT: nothing is to be done. NOT: it cannot be
 * had; why, as it was written.
 */
enum options_took { OPTIONS_TAKEN, OPTIONS_LEFT, OPTIONS_NOT };
enum options_took options_take(struct options *options, const char *opt, bool may_set,
			       struct fdio_reason *reason);
/* What the kernel and libfuse get. */
void options_mount_list(const struct options *options, bool root, char *out, size_t cap);

#endif
