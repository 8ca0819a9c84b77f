/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening the product's device: a block device or an image file, through io_uring. Main thread.
 */
#ifndef FDIO_DEV_OPEN_H
#define FDIO_DEV_OPEN_H

#include "base/nowait.h"
#include "base/reason.h"
#include "dev/dev.h"

enum {
	DEV_OPEN_RDONLY = 1 << 0,
	DEV_OPEN_EXCL = 1 << 1,     /* claims a block device with O_EXCL */
	DEV_OPEN_NODIRECT = 1 << 2, /* tests only: through the page cache */
};
/*
 * Opens path with O_DIRECT, or through the page cache, with a warning, where the file system of an
 * image file has no O_DIRECT. Image files are always locked. -errno, -EBUSY when in use; reason
 * gets one line that names the cause and the way out.
 */
int dev_uring_open(const char *path, unsigned flags, struct dev **ret, struct fdio_reason *reason)
	FDIO_BLOCKS;
/* Registers the device with every loop of the set, as LOOP_FILE_DEV. Before loop_set_start. */
int dev_uring_attach(struct dev *dev, struct loop_set *set);
int dev_uring_fd(struct dev *dev);

#endif
