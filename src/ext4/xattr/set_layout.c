/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the attributes of a changed set go: to the inode's own space, to the attribute block, or
 * with their value to an inode of its own (feature ea_inode). As with the kernel, an attribute
 * stays where it is; only the one that is set now may move. It goes to the inode if it fits, else
 * to the block, else its name goes to one of them and its value to an inode.
 *
 * Only arithmetic on the set: any thread, nothing is read or changed but the set. -ENOSPC if there
 * is no room.
 */
#include "ext4/inode/inode_change.h"
#include "ext4/xattr/places.h"
#include "ext4/xattr/set.h"

#include <errno.h>

/* Bytes taken so far, while places are given out. */
struct layout {
	uint32_t inode_len, inode_used;       /* the inode's own space */
	uint32_t block_entries, block_values; /* in the block: header and entries; values */
	bool block;                           /* the block holds an attribute */
};

/* Bytes that the value takes beside the entry. */
static uint32_t value_len(const struct ext4_xattr *xattr)
{
	return xattr->value_ino || xattr->needs_inode ? 0 : ext4_xattr_round(xattr->size);
}

/* If xattr fits into what is left of the inode's space, takes that, and is true. */
static bool take_in_inode(const struct ext4_xattr *xattr, struct layout *layout)
{
	uint32_t need = ext4_xattr_entry_len(xattr->name_len) + value_len(xattr);

	if (layout->inode_used + need > layout->inode_len)
		return false;
	layout->inode_used += need;
	return true;
}

static void take_in_block(const struct ext4_xattr *xattr, struct layout *layout)
{
	layout->block_entries += ext4_xattr_entry_len(xattr->name_len);
	layout->block_values += value_len(xattr);
	layout->block = true;
}

/*
 * A fresh xattr may go to the block. Where values can lie in inodes, a value that would leave
 * little of the block to the names of other attributes may not.
 */
static bool fits_block(const struct ext4_vol *vol, const struct ext4_xattr *xattr,
		       const struct layout *layout)
{
	uint32_t values = layout->block_values + value_len(xattr),
		 reserve = FDIO_MIN(vol->block_size / 8, 1024u);

	if (layout->block_entries + ext4_xattr_entry_len(xattr->name_len) + values >
	    vol->block_size)
		return false;
	return !vol->has_ea_inode || !value_len(xattr) || vol->block_size - values >= reserve;
}

/* False: there is no room for it. */
static bool place_one(const struct ext4_vol *vol, struct ext4_xattr *xattr, struct layout *layout)
{
	xattr->in_block = !take_in_inode(xattr, layout);
	if (!xattr->in_block)
		return true;
	if (!fits_block(vol, xattr, layout))
		return false;
	take_in_block(xattr, layout);
	return true;
}

/* The value would not fit into a block of its own, even with a short name. */
static bool too_large_for_block(const struct ext4_vol *vol, const struct ext4_xattr *xattr)
{
	return ext4_xattr_round(xattr->size) > vol->block_size - EXT4_XATTR_BLOCK_HEAD -
						       EXT4_XATTR_END - ext4_xattr_entry_len(3);
}

static int place_fresh(const struct ext4_vol *vol, struct ext4_xattr *xattr, struct layout *layout)
{
	bool may_need_inode = vol->has_ea_inode && xattr->size;

	xattr->needs_inode = may_need_inode && too_large_for_block(vol, xattr);
	if (place_one(vol, xattr, layout))
		return 0;
	if (xattr->needs_inode || !may_need_inode)
		return -ENOSPC;
	xattr->needs_inode = true;
	return place_one(vol, xattr, layout) ? 0 : -ENOSPC;
}

int ext4_xattr_layout(struct ext4_inode *inode, struct ext4_xattr_set *set, bool *ret_block)
{
	struct layout layout = { .inode_used = EXT4_XATTR_END,
				 .block_entries = EXT4_XATTR_BLOCK_HEAD + EXT4_XATTR_END };
	uint32_t len, *magic;
	int err = 0;

	if (ext4_xattr_inode_space(inode, &len, &magic))
		layout.inode_len = len;
	for (unsigned k = 0; k < set->nr; k++) {
		struct ext4_xattr *xattr = &set->xattr[k];

		if (xattr->fresh)
			continue;
		if (!xattr->in_block)
			xattr->in_block = !take_in_inode(xattr, &layout);
		if (xattr->in_block)
			take_in_block(xattr, &layout);
	}
	for (unsigned k = 0; k < set->nr && !err; k++)
		if (set->xattr[k].fresh)
			err = place_fresh(inode->vol, &set->xattr[k], &layout);
	if (!err && layout.block &&
	    layout.block_entries + layout.block_values > inode->vol->block_size)
		err = -ENOSPC;
	*ret_block = layout.block;
	return err;
}

bool ext4_xattr_fits(struct ext4_inode *inode, struct ext4_xattr_set *set)
{
	bool block;

	if (ext4_xattr_layout(inode, set, &block))
		return false;
	for (unsigned k = 0; k < set->nr; k++)
		if (set->xattr[k].needs_inode)
			return false;
	return !block || (ext4_raw_file_acl(inode) && !set->block_shared);
}

bool ext4_xattr_fresh_fits(const struct ext4_vol *vol, uint32_t nr, uint32_t size)
{
	uint32_t extra = ext4_extra_isize(vol), start = EXT4_XATTR_OLD_INODE + extra,
		 magic_and_end = 4 + EXT4_XATTR_END,
		 each = ext4_xattr_entry_len(0) + ext4_xattr_round(size);

	return extra && start + magic_and_end + nr * each <= vol->inode_size;
}
