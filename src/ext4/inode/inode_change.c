/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The change of one inode in a handle of its own, for callers that change nothing else (sizes,
 * times, extents of one file). If begin fails, nothing is open; after end the inode has changed as
 * a whole or not at all.
 *
 * Workers, loop threads in the mode of base/nowait.h, the ticker, and the thread that opens or
 * closes the volume. The caller holds the locks that guard the fields it changes (core/structs.h).
 */
#include "ext4/inode/inode_change.h"
#include "ext4/core/structs.h"

int ext4_inode_change_begin(struct ext4_inode *inode, unsigned credits,
			    struct journal_handle **ret)
{
	int err = journal_begin(inode->vol->journal, credits, ret);

	if (err)
		return err;
	err = ext4_inode_begin(*ret, inode);
	if (err)
		journal_cancel(*ret);
	return err;
}

int ext4_inode_change_end(struct journal_handle *handle, struct ext4_inode *inode, int err,
			  bool data_needed)
{
	if (!err)
		err = ext4_inode_dirty(handle, inode, data_needed);
	return ext4_handle_end(handle, err);
}
