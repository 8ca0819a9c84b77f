/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The command line, parsed into struct options. The table of the -o options is options.def. The
 * main thread fills it at start; afterwards any thread may read it. Errors are one line in reason.
 */
#ifndef FDIO_COMMAND_OPTIONS_H
#define FDIO_COMMAND_OPTIONS_H

#include "base/reason.h"
#include "base/util.h"

#include <stdio.h>

/* Exit status, as mount(8) documents it. */
enum { EXIT_USAGE = 1, EXIT_SYSTEM = 2, EXIT_MOUNT = 32 };

/*
 * An ENUM option of options.def stores the position of its value in the table's list; these are the
 * names of the positions. (atime is set by FLAG options.) Where a room has its own enum for the
 * same values, assemble.c and serve.c assert that the numbers agree.
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
	/* Only as mount.fusedio (helper); mount(8) documents the others: -f, -s, -v, -N. */
	bool helper, fake, sloppy, verbose;
	const char *ns;

	/* The -o options of options.def. From read_only to fsname only ints: see given. */
	int read_only, atime, nodiratime, lazytime;
	int nosuid, nodev, noexec, sync, dirsync, allow_other;
	int dio, parallel_dio, commit, errors, norecovery, discard, mlock;
	int queue_depth, poll, max_background, readahead, workers, transport;
	int log, acl, user_xattr, nofail, sandbox, drain_timeout;
	int grpid;          /* 1: new files get the directory's group; 0: only with set-group-ID */
	int resuid, resgid; /* -1: not given */

	char *fsname;       /* allocated, or NULL */
	bool log_given;
	/*
	 * Bit n stands for the n-th int field from read_only on. given: the command line has set
	 * the field; suggested: options_suggest has set it.
	 */
	uint64_t given, suggested;
};

/*
 * Parses the whole command line. If the program is called as mount.*, it takes the arguments that
 * mount(8) gives to a helper, otherwise its own. 0, or EXIT_USAGE. device, mountpoint and ns point
 * into argv; options_free frees the rest.
 */
int options_parse(int argc, char **argv, struct options *options, struct fdio_reason *reason);
/* Parses a list separated by commas; sloppy: skips unknown options. 0 or -EINVAL. */
int options_parse_list(struct options *options, const char *list, bool sloppy,
		       struct fdio_reason *reason);
void options_defaults(struct options *options, bool root);
void options_free(struct options *options);
void options_help(FILE *f);
/* The enum fdio_log_level that options->log stands for. */
int options_log_level(const struct options *options);

/*
 * Sets an option that the superblock suggests, unless the command line has given it: the command
 * line takes precedence. may_set: whether a file system may set this option. Returns
 *   SUGGESTION_TAKEN       the option is set now, and noted in options->suggested
 *   SUGGESTION_NOT_NEEDED  the command line has given it, or it changes nothing
 *   SUGGESTION_REFUSED     the option cannot be honoured; reason says why
 */
enum options_suggestion { SUGGESTION_TAKEN, SUGGESTION_NOT_NEEDED, SUGGESTION_REFUSED };
enum options_suggestion options_suggest(struct options *options, const char *opt, bool may_set,
					struct fdio_reason *reason);

/* Writes the mount options for the kernel and libfuse, separated by commas, to out. */
void options_mount_list(const struct options *options, bool root, char *out, size_t cap);

#endif
