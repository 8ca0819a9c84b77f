/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Recovery before the mount. Main thread.
 */
#ifndef FDIO_COMMAND_RECOVER_H
#define FDIO_COMMAND_RECOVER_H

#include "base/nowait.h"
#include "base/reason.h"
#include "command/probe.h"

/*
 * Brings the journal of what probe describes to rest, if its superblock asks for that: by our own
 * replay, else by e2fsck -p. *ret_changed: then it is to be probed again. read_only: where writing
 * is not allowed, nothing is done. 0, or -errno with a line in reason.
 */
int recover_device(const struct probe *probe, bool read_only, bool *ret_changed,
		struct fdio_reason *reason) FDIO_BLOCKS;

#endif
