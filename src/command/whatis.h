/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What something is that does not begin as an ext4 file system does. Main thread.
 */
#ifndef FDIO_COMMAND_WHATIS_H
#define FDIO_COMMAND_WHATIS_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"

/*
 * One line: what was found at path, open for reading as fd, and the way out. type: what libblkid
 * calls it, "" if it does not know; pttype: its partition table, "" without one. Never an advice to
 * make a file system over something. Main thread.
 */
void whatis_say(int fd, const char *path, const char *type, const char *pttype,
		struct fdio_reason *reason) FDIO_BLOCKS;

/* The same for an image of another format; false: it is none that is known. */
bool whatis_format(int fd, const char *path, struct fdio_reason *reason) FDIO_BLOCKS;

#endif
