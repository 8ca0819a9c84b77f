/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replaying the journal before the mount. Main thread.
 */
#ifndef FDIO_COMMAND_RECOVER_H
#define FDIO_COMMAND_RECOVER_H

#include "base/nowait.h"
#include "base/reason.h"
#include "command/probe.h"

/*
 * Replays the journal of a probed device if its superblock says that the journal needs recovery.
 * Runs e2fsck -p for a journal that our own replay does not support. Before a read-only mount it
 * also finishes deletions that a crash interrupted. A device that cannot be written is left alone.
 *
 * *ret_changed: the device may have changed, and must be probed again. 0, or -errno with a reason;
 * SIGTERM and SIGINT end it early.
 */
int recover_device(const struct probe *probe, bool read_only, bool *ret_changed,
		   struct fdio_reason *reason) FDIO_BLOCKS;

#endif
