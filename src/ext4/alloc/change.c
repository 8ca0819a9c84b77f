/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A change that may allocate metadata: the blocks it may need are set aside before its handle
 * opens, so that it cannot run out of them half-way. After the handle has ended, all of them are
 * given back, however many it took.
 *
 * Workers, and loop threads in the mode of base/nowait.h. A struct ext4_change belongs to its
 * caller and to one thread. A begin that fails leaves nothing behind.
 */
#include "ext4/alloc/alloc.h"

#include <errno.h>

int ext4_change_begin(struct ext4_vol *vol, unsigned credits, unsigned blocks,
		      enum ext4_requester who, struct ext4_change *ret)
{
	int err;

	*ret = (struct ext4_change){ .vol = vol, .reserved = blocks };
	if (ext4_vol_read_only(vol))
		return -EROFS;
	err = blocks ? ext4_metadata_reserve(vol, blocks, who) : 0;
	if (err)
		return err;
	err = journal_begin(ext4_vol_journal(vol), credits, &ret->handle);
	if (err && blocks)
		ext4_metadata_unreserve(vol, blocks);
	return err;
}

int ext4_change_end(struct ext4_change *change, int err)
{
	err = ext4_handle_end(change->handle, err);
	if (change->reserved)
		ext4_metadata_unreserve(change->vol, change->reserved);
	return err;
}
