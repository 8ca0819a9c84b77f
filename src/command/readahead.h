/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How far ahead the kernel reads on the mount. Main thread.
 */
#ifndef FDIO_COMMAND_READAHEAD_H
#define FDIO_COMMAND_READAHEAD_H

/*
 * KiB that suit a device or image: what the kernel itself reads ahead of the device, but no less
 * than pays here.
 */
unsigned readahead_default(const char *path);
/*
 * Sets it for what is mounted there. Needs root, and the files in /sys; without them the kernel's
 * default stays (logged at level debug).
 */
void readahead_set(const char *mountpoint, unsigned kib);

#endif
