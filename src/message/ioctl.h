/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Our own ioctls on files of a fusedio mount, for what FUSE does not pass on. src/ops answers them,
 * src/tools and others call them. Their sizes are part of their numbers, so a new field needs a new
 * number.
 */
#ifndef FDIO_PROTOCOL_PRO_IOCTL_H
#define FDIO_PROTOCOL_PRO_IOCTL_H

#include <stdint.h>
#include <sys/ioctl.h>

#define FDIO_MAP_RUNS 100

enum { FDIO_MAP_UNWRITTEN = 1 << 0, FDIO_MAP_LAST = 1 << 1 };

struct fdio_map_run { uint64_t logical, physical, length; uint32_t flags, reserved; };

/*
 * In place of FIEMAP. start: first byte asked for. nr runs come back, in bytes; none: nothing is
 * mapped from there on.
 */
struct fdio_map {
	uint64_t start;
	uint32_t nr, reserved;
	struct fdio_map_run run[FDIO_MAP_RUNS];
};

#define FDIO_IOC_MAP _IOWR('d', 0x40, struct fdio_map)

#endif
