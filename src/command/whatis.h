/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Explaining what is on a device that does not hold an ext4 file system. Main thread.
 */
#ifndef FDIO_COMMAND_WHATIS_H
#define FDIO_COMMAND_WHATIS_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"

/*
 * Sets reason to one line: what was found on path, and the way out. It never advises to make a file
 * system over data. fd: path, open for reading. type: what libblkid calls it, and pttype: its
 * partition table; "" if there is none that libblkid knows.
 */
void whatis_explain(int fd, const char *path, const char *type, const char *pttype,
		    struct fdio_reason *reason) FDIO_BLOCKS;

/* As whatis_explain, only for known formats of images and archives; false: it is none of them. */
bool whatis_explain_format(int fd, const char *path, struct fdio_reason *reason) FDIO_BLOCKS;

#endif
