/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The tables of mounts in /proc: of this process, and of all others, which may live in mount
 * namespaces of their own. Nothing is allocated, because the unmounter process may not. What cannot
 * be read is left out.
 */
#ifndef FDIO_COMMAND_MOUNTS_H
#define FDIO_COMMAND_MOUNTS_H

#include "base/util.h"

/*
 * path: as the kernel writes it, with blanks and the like as octal numbers, up to a blank. source:
 * the type of the file system and what is mounted, in the same way, up to the second blank; "" if
 * the line has none.
 */
struct mount_line { unsigned id, parent, dev[2]; const char *path, *source; };

/* A file of /proc as a string in text; false: it cannot be read. What does not fit is cut off. */
bool mounts_read(const char *name, char *text, size_t cap);
/* Parses the first line of rest that makes sense; returns what follows it, NULL at the end. */
const char *mounts_next(const char *rest, struct mount_line *ret);
/* Whether line->path is this one. */
bool mounts_is_path(const struct mount_line *line, const char *path);
/* line->path in clear; false: it does not fit. */
bool mounts_path(const struct mount_line *line, char *out, size_t cap);
/* Whether both lines name the same type and source. */
bool mounts_same_source(const char *a, const char *b);
/*
 * Who has the file system with this device number mounted, in words, on one line: where in this
 * namespace, otherwise processes whose namespace has it, a few by number and name. text: scratch
 * memory for tables. False: nobody that can be seen.
 */
bool mounts_holders(const unsigned dev[2], char *text, size_t textcap, char *out, size_t cap);

#endif
