/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How far the kernel reads ahead in files of the mount. Main thread.
 */
#ifndef FDIO_COMMAND_READAHEAD_H
#define FDIO_COMMAND_READAHEAD_H

/* A good readahead for a device or image, in KiB: that of the device itself, 1024 to 16384. */
unsigned readahead_default(const char *path);
/*
 * Sets the readahead of the mount, in KiB. Needs root and /sys; if it cannot be set, the kernel's
 * default stays, which is logged at level debug.
 */
void readahead_set(const char *mountpoint, unsigned kib);

#endif
