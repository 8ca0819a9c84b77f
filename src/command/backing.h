/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Whether another process has locked the image file behind a loop device. Main thread, before any
 * other thread exists; the functions leave nothing open or locked.
 */
#ifndef FDIO_COMMAND_BACKING_H
#define FDIO_COMMAND_BACKING_H

#include "base/nowait.h"
#include "base/util.h"

#include <sys/types.h>

/*
 * True if rdev is a loop device whose image file is locked, as fusedio locks an image that it
 * serves; a shared lock counts only if we want to write (!read_only). Writes the path of the image
 * to what. A lock that is released within three seconds does not count: its owner was exiting.
 * False also if the image or its lock cannot be examined.
 */
bool backing_locked(dev_t rdev, bool read_only, char *what, size_t cap) FDIO_BLOCKS;

#endif
