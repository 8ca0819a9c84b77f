/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Giving up all attributes of an inode that is being deleted. Each value in an inode of its own
 * takes a transaction, then the attribute block takes one; the set on disk is whole after each of
 * them, so a crash in between loses nothing. On failure the rest stays with the inode, which stays
 * on the orphan list.
 *
 * Outside handles, on the thread that dropped the inode's last reference and may block: a worker,
 * the ticker, or the thread that mounts or unmounts. The inode is locked exclusively.
 */
#include "ext4/inode/inode_change.h"
#include "ext4/xattr/set.h"
#include "ext4/xattr/value.h"

/*
 * The first attribute of set whose value the inode has to give up itself. It does not own those of
 * a shared block (XATTR-3).
 */
static struct ext4_xattr *next_value(struct ext4_xattr_set *set)
{
	for (unsigned k = 0; k < set->nr; k++)
		if (set->xattr[k].value_ino && !(set->xattr[k].was_in_block && set->block_shared))
			return &set->xattr[k];
	return NULL;
}

static void forget_block(struct ext4_xattr_set *set)
{
	unsigned n = 0;

	for (unsigned k = 0; k < set->nr; k++)
		if (!set->xattr[k].was_in_block)
			set->xattr[n++] = set->xattr[k];
	set->nr = n;
	set->block_shared = false;
}

/*
 * An inode that holds a value has no attributes itself (VALUE-3). If an image says otherwise, they
 * are not followed.
 */
static bool may_own_values(struct ext4_inode *inode)
{
	return inode->vol->has_ea_inode && !(ext4_inode_flags(inode) & EXT4_EA_INODE_FL);
}

static int free_value(struct journal_handle *handle, struct ext4_inode *inode,
		      struct ext4_xattr_set *set, struct ext4_xattr *xattr)
{
	int err = ext4_xattr_leave_value(handle, inode, set, xattr);

	*xattr = set->xattr[--set->nr];
	/* A shared block is not copied for the rest of the set, but left to its other owners. */
	if (!err && set->block_shared)
		err = ext4_xattr_drop_block(handle, inode);
	if (set->block_shared)
		forget_block(set);
	return err ? err : ext4_xattr_store(handle, inode, set);
}

/* Frees one value; if none is left, the block. *ret_more: it was a value. */
static int free_step(struct journal_handle *handle, struct ext4_inode *inode, bool *ret_more)
{
	struct ext4_xattr_set set = { 0 };
	struct ext4_xattr *xattr = NULL;
	int err = ext4_inode_begin(handle, inode);

	if (!err && may_own_values(inode))
		err = ext4_xattr_load(inode, &set);
	if (err)
		return err;
	xattr = next_value(&set);
	*ret_more = xattr;
	err = xattr ? free_value(handle, inode, &set, xattr)
		    : ext4_xattr_drop_block(handle, inode);
	ext4_xattr_set_fini(&set);
	return err ? err : ext4_inode_dirty(handle, inode, false);
}

int ext4_xattr_free_all(struct ext4_inode *inode)
{
	bool values = may_own_values(inode), more = true;
	struct journal_handle *handle;
	int err = 0;

	if (!ext4_raw_file_acl(inode) && !values)
		return 0;
	while (more && !err) {
		more = false;
		err = journal_begin(inode->vol->journal,
				    EXT4_CREDITS_XATTR + (values ? EXT4_CREDITS_EA_UNREF : 0),
				    &handle);
		if (err)
			break;
		err = ext4_handle_end(handle, free_step(handle, inode, &more));
	}
	/* Deletes inodes of values, which comes here again for each, but no deeper (VALUE-3). */
	if (values)
		ext4_ea_settle(inode->vol);
	return err;
}
