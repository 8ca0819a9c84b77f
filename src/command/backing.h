/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a loop device is made from. Main thread, before any other exists; nothing stays open or
 * locked.
 */
#ifndef FDIO_COMMAND_BACKING_H
#define FDIO_COMMAND_BACKING_H

#include "base/nowait.h"
#include "base/util.h"

#include <sys/types.h>

/*
 * Whether rdev is a loop device over an image that somebody has locked, as fusedio locks an image
 * that it serves: for writing, or at all if we want to write. Then what is the image's name. A lock
 * that goes within three seconds does not count: its owner was about to end. False as well when
 * nothing can be found out.
 */
bool backing_locked(dev_t rdev, bool read_only, char *what, size_t cap) FDIO_BLOCKS;

#endif
