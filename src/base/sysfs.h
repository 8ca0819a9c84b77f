/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small files of one line, as /sys has them. Any thread that may wait; nothing is allocated. */
#ifndef FDIO_BASE_SYSFS_H
#define FDIO_BASE_SYSFS_H

#include "base/util.h"

/*
 * The first line of the file that the format names, without its newline, cut to what fits in line.
 * False if it cannot be read or is empty; line is "" then.
 */
bool fdio_sysfs_line(char *line, size_t cap, const char *path_fmt, ...)
	__attribute__((format(printf, 3, 4)));

#endif
