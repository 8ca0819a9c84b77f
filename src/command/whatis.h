/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Explains what a device holds instead of an ext4 file system. Main thread.
 */
#ifndef FDIO_COMMAND_WHATIS_H
#define FDIO_COMMAND_WHATIS_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"

/*
 * Sets reason to one line: what was found on path, and the way out. The line never advises running
 * mke2fs over data. fd: path, open for reading. type, pttype: the type of the content and of the
 * partition table as libblkid names them; "" if libblkid knows none.
 */
void whatis_explain(int fd, const char *path, const char *type, const char *pttype,
		    struct fdio_reason *reason) FDIO_BLOCKS;

/* As whatis_explain, but only for known image and archive formats; false if it is none of them. */
bool whatis_explain_format(int fd, const char *path, struct fdio_reason *reason) FDIO_BLOCKS;

#endif
