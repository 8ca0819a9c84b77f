/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a handle ends. A change is made as a whole or not at all: after an error, or after a miss
 * that somebody on the way took for something else (NOWAIT-2), the handle is cancelled, and the
 * journal puts every block back. The same for a change that needs blocks set aside is
 * ext4_change_end (alloc), for the change of one inode ext4_inode_change_end (inode).
 *
 * Any thread that has a handle: workers, loop threads in the mode of base/nowait.h, the ticker, and
 * the thread that opens or closes the volume. No state.
 */
#include "ext4/core/core.h"

int ext4_handle_end(struct journal_handle *handle, int err)
{
	err = nowait_err(err);
	if (err)
		journal_cancel(handle);
	else
		journal_end(handle);
	return err;
}
