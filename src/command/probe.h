/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Finding out what DEVICE is, before it is opened for good. Main thread; nothing stays open. Errors
 * are -errno, with a reason that names the cause and the way out.
 */
#ifndef FDIO_COMMAND_PROBE_H
#define FDIO_COMMAND_PROBE_H

#include "base/nowait.h"
#include "base/reason.h"
#include "base/util.h"
#include "command/superblock.h"

#include <limits.h>

struct probe {
	char path[PATH_MAX];       /* absolute; UUID= and the like resolved */
	bool is_block;             /* a block device; false: an image file */
	bool read_only_dev;        /* the device or file cannot be written */
	uint32_t sector_bytes;     /* logical block size of a block device, 512 for files */
	uint32_t fs_block_size;    /* bytes */
	uint8_t super[SUPER_SIZE]; /* as read (superblock.h); probe_recheck compares it */
};

/*
 * spec: a path, or UUID=, LABEL=, PARTUUID= or PARTLABEL=. Fails if the device
 * does not hold an ext4 file system or is in use. read_only: do not require write access.
 */
int probe_device(const char *spec, bool read_only, struct probe *ret, struct fdio_reason *reason)
	FDIO_BLOCKS;
/* True if spec names nothing, or a device without a medium. For the option nofail. */
bool probe_is_missing(const char *spec);
/*
 * fd: the device, which has been claimed since the probe. -EBUSY if its superblock differs from
 * probe->super, because another program has changed it in between.
 */
int probe_recheck(const struct probe *probe, int fd, struct fdio_reason *reason) FDIO_BLOCKS;

#endif
