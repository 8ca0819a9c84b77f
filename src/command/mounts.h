/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading the tables of mounts in /proc (PID/mountinfo): of this process, and of all others, which
 * may live in other mount namespaces. Nothing is allocated, because the unmounter process must not.
 * A table that cannot be read is left out.
 */
#ifndef FDIO_COMMAND_MOUNTS_H
#define FDIO_COMMAND_MOUNTS_H

#include "base/util.h"

/*
 * One line of a table. The strings point into the text of the table, as the kernel writes them: a
 * blank and some other characters are a backslash and three octal digits.
 */
struct mount_line {
	unsigned id, parent;
	unsigned dev[2];    /* device number of the file system: major, minor */
	const char *path;   /* the mount point; ends before the first blank */
	const char *source; /* type and source; ends before the second blank; "": not in the line */
};

/* Reads a file of /proc into text, as a string of at most cap - 1 bytes. False: open failed. */
bool mounts_read(const char *name, char *text, size_t cap);
/*
 * Parses the first valid line of rest. Returns the text behind it, for the next call, or NULL if
 * there is no such line.
 */
const char *mounts_next(const char *rest, struct mount_line *ret);
/* True if line->path, decoded, equals path. */
bool mounts_is_path(const struct mount_line *line, const char *path);
/* Writes line->path to out, decoded; false: it does not fit. */
bool mounts_path(const struct mount_line *line, char *out, size_t cap);
/* True if both (mount_line.source) are the same type and source. */
bool mounts_same_source(const char *a, const char *b);
/*
 * Writes to out, in words, where the file system with this device number is mounted: the mount
 * point in this mount namespace, or else the IDs and names of a few processes whose mount namespace
 * contains the mount. text: memory for one table. False: no mount was found.
 */
bool mounts_holders(const unsigned dev[2], char *text, size_t textcap, char *out, size_t cap);

#endif
