/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reads files of one line, as there are below /sys. Any thread that may wait; no locks, nothing is
 * allocated.
 */
#ifndef FDIO_BASE_SYSFS_H
#define FDIO_BASE_SYSFS_H

#include "base/util.h"

/*
 * Reads the first line of the file whose path the format makes, without its newline; it is cut to
 * what fits in line. False if the file cannot be read or its first line is empty; then line is "".
 */
bool fdio_sysfs_line(char *line, size_t cap, const char *path_fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
