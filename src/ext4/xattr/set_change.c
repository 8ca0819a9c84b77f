/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Setting or removing one attribute inside a handle: the set is read, changed and written back. And
 * what such a change costs, which is asked before the handle opens.
 *
 * Workers, and loop threads in the mode of base/nowait.h. The inode is locked exclusively, or new
 * and alone in the handle; for the cost any mode of the lock will do. After an error the caller
 * cancels the handle.
 */
#include "ext4/inode/inode_change.h"
#include "ext4/xattr/set.h"
#include "ext4/xattr/value.h"

#include <errno.h>
#include <string.h>

int ext4_xattr_leave_value(struct journal_handle *handle, struct ext4_inode *inode,
			   const struct ext4_xattr_set *set, const struct ext4_xattr *xattr)
{
	int64_t blocks = (int64_t)fdio_blocks(xattr->size, inode->vol->block_bits);
	int err = 0;

	if (!xattr->value_ino)
		return 0;
	if (!(xattr->was_in_block && set->block_shared)) /* XATTR-3 */
		err = ext4_ea_unref(handle, inode, xattr);
	return err ? err : ext4_raw_add_blocks(inode, -blocks);
}

/* The value is known without a read of its inode: large values are always written again. */
static bool same_value(const struct ext4_xattr *xattr, const struct ext4_xattr *fresh)
{
	return !xattr->value_ino && xattr->size == fresh->size &&
	       (!xattr->size || !memcmp(xattr->value, fresh->value, xattr->size));
}

static int change_set(struct journal_handle *handle, struct ext4_inode *inode,
		      struct ext4_xattr_set *set, const struct ext4_xattr *fresh, bool remove)
{
	struct ext4_xattr *xattr = ext4_xattr_find(set, fresh->index, fresh->name, fresh->name_len);
	int err = 0;

	if (remove && !xattr)
		return -ENODATA;
	if (!remove && xattr && same_value(xattr, fresh))
		return EXT4_XATTR_SAME;
	if (xattr)
		err = ext4_xattr_leave_value(handle, inode, set, xattr);
	if (err)
		return err;
	if (remove) {
		*xattr = set->xattr[--set->nr];
	} else {
		if (!xattr)
			xattr = &set->xattr[set->nr++];
		*xattr = *fresh;
	}
	return ext4_xattr_store(handle, inode, set);
}

int ext4_xattr_change(struct journal_handle *handle, struct ext4_inode *inode, uint8_t index,
		      const char *name, unsigned name_len, const void *value, size_t len)
{
	struct ext4_xattr fresh = { .index = index,
				    .name_len = (uint8_t)name_len,
				    .name = name,
				    .value = value,
				    .size = (uint32_t)len,
				    .fresh = true };
	struct ext4_xattr_set set;
	int err = ext4_xattr_load(inode, &set);

	if (err)
		return err;
	err = ext4_inode_begin(handle, inode);
	if (!err)
		err = change_set(handle, inode, &set, &fresh, !value);
	ext4_xattr_set_fini(&set);
	ext4_killpriv_forget(inode);
	return err;
}

/* ---- what it costs ---- */

/* The number of values of which a copy of the shared block would become an owner. */
static unsigned shared_values(const struct ext4_xattr_set *set)
{
	unsigned n = 0;

	for (unsigned k = 0; k < set->nr; k++)
		n += set->block_shared && set->xattr[k].was_in_block && set->xattr[k].value_ino;
	return n;
}

unsigned ext4_xattr_credits(struct ext4_inode *inode, size_t len)
{
	struct ext4_xattr_set set;
	unsigned n;

	/* If the set cannot be read, the change will meet the error. */
	if (!inode->vol->has_ea_inode || ext4_xattr_load(inode, &set))
		return 0;
	n = ext4_ea_credits_new(inode->vol, len) + EXT4_CREDITS_EA_UNREF +
	    shared_values(&set) * EXT4_CREDITS_INODE;
	ext4_xattr_set_fini(&set);
	return n;
}

unsigned ext4_xattr_remove_blocks(struct ext4_inode *inode)
{
	struct ext4_xattr_set set;
	unsigned n;

	if (!ext4_raw_file_acl(inode) || ext4_xattr_load(inode, &set))
		return 0;
	n = set.block_shared;
	ext4_xattr_set_fini(&set);
	return n;
}
