/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What DEVICE is, before anything is opened for good. Main thread.
 */
#ifndef FDIO_COMMAND_PROBE_H
#define FDIO_COMMAND_PROBE_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"

#include <limits.h>

struct probe {
	char path[PATH_MAX];     /* absolute, tags resolved */
	bool is_block;
	bool read_only_dev;      /* the device or file cannot be written */
	uint32_t sector_bytes;            /* logical block size of a block device, 512 for files */
	uint32_t fs_block_size;
	uint8_t super[1024];     /* as read; to find out whether somebody changed it since */
};

/* 0, or -errno with one line in reason: cause and way out. */
int probe_device(const char *spec, bool read_only, struct probe *ret, struct fdio_reason *reason)
	FDIO_BLOCKS;
/*
 * Whether nothing has this name, or it has no medium, as opposed to what cannot be served. For
 * nofail.
 */
bool probe_is_missing(const char *spec);
/* After the device was claimed: -EBUSY if the superblock is not the one seen before. */
int probe_recheck(const struct probe *probe, int fd, struct fdio_reason *reason) FDIO_BLOCKS;

#endif
