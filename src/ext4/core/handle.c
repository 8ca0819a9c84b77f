/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a handle ends. A change is made as a whole or not at all: after an error the handle is
 * cancelled, and the journal puts every block back. A miss also counts as an error, even if a
 * function on the way took it for something else (NOWAIT-2). ext4_change_end (alloc) and
 * ext4_inode_change_end (inode) build on this one.
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
