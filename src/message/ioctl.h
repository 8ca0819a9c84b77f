/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ioctls that fusedio defines for files of its mounts, in place of those that FUSE does not
 * pass. src/ops answers them; fusedioctl (src/tools) and other programs call them. The size of the
 * argument is part of the number, so a new field makes a new number.
 */
#ifndef FDIO_MESSAGE_IOCTL_H
#define FDIO_MESSAGE_IOCTL_H

#include <stdint.h>
#include <sys/ioctl.h>

#define FDIO_MAP_RUNS 100

/* fdio_map_run.flags: blocks that read as zeroes; the last run of the file */
enum { FDIO_MAP_UNWRITTEN = 1 << 0, FDIO_MAP_LAST = 1 << 1 };

/* A run of blocks: offset in the file, offset on the device and length, in bytes. */
struct fdio_map_run { uint64_t logical, physical, length; uint32_t flags, reserved; };

/*
 * Where the blocks of a file are; in place of FIEMAP, which FUSE does not pass on. The caller sets
 * start, the first byte of interest. nr runs come back; 0: there are no blocks from there on.
 */
struct fdio_map {
	uint64_t start;
	uint32_t nr, reserved;
	struct fdio_map_run run[FDIO_MAP_RUNS];
};

#define FDIO_IOC_MAP _IOWR('d', 0x40, struct fdio_map)

#endif
