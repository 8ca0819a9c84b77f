/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * POSIX ACLs and the mode bits of an inode: setting an ACL, chmod, inheritance. The kernel checks
 * access; this file keeps the two views of the same permissions equal. And what these changes cost,
 * which is asked before a handle opens.
 *
 * Workers, and loop threads in the mode of base/nowait.h. Changes run in the caller's handle with
 * the inode locked exclusively, or new; after an error the caller cancels the handle.
 */
#include "ext4/xattr/acl.h"

#include "ext4/inode/inode_change.h"
#include "ext4/xattr/set.h"
#include "ext4/xattr/value.h"

#include <errno.h>
#include <stdlib.h>

/* ---- mode bits ---- */

static struct ext4_acl_entry *find(struct ext4_acl *acl, uint16_t tag)
{
	for (unsigned k = 0; k < acl->nr; k++)
		if (acl->entry[k].tag == tag)
			return &acl->entry[k];
	return NULL;
}

/* The entry that the group bits of the mode stand for; a valid ACL has one. */
static struct ext4_acl_entry *group_class(struct ext4_acl *acl)
{
	struct ext4_acl_entry *entry = find(acl, EXT4_ACL_MASK);

	return entry ? entry : find(acl, EXT4_ACL_GROUP_OBJ);
}

static uint32_t mode_of(struct ext4_acl *acl)
{
	return (uint32_t)find(acl, EXT4_ACL_USER_OBJ)->perm << 6 |
	       (uint32_t)group_class(acl)->perm << 3 | find(acl, EXT4_ACL_OTHER)->perm;
}

static void set_mode(struct ext4_acl *acl, uint32_t mode)
{
	find(acl, EXT4_ACL_USER_OBJ)->perm = mode >> 6 & 7;
	group_class(acl)->perm = mode >> 3 & 7;
	find(acl, EXT4_ACL_OTHER)->perm = mode & 7;
}

/* Owner, group and others alone: the mode bits express the whole ACL. */
static bool is_plain(const struct ext4_acl *acl) { return acl->nr == 3; }

/* ---- reading and writing the attribute ---- */

/* *ret is NULL if there is none; else the caller frees it. */
static int read_acl(struct ext4_inode *inode, uint8_t index, struct ext4_acl **ret)
{
	struct ext4_xattr_set set;
	struct ext4_xattr *xattr;
	uint8_t *copy = NULL;
	int err = ext4_xattr_load(inode, &set);

	*ret = NULL;
	if (err)
		return err;
	xattr = ext4_xattr_find(&set, index, "", 0);
	if (xattr && xattr->value_ino)
		err = ext4_ea_copy(inode, xattr, &copy);
	if (!err && xattr)
		err = ext4_acl_from_disk(inode, copy ? copy : xattr->value, xattr->size, ret);
	free(copy);
	ext4_xattr_set_fini(&set);
	return err;
}

/* acl NULL: removes the ACL. EXT4_XATTR_SAME: nothing had to change. */
static int write_acl(struct journal_handle *handle, struct ext4_inode *inode, uint8_t index,
		     const struct ext4_acl *acl)
{
	uint8_t *disk = NULL;
	size_t len = 0;
	int err = 0;

	if (acl)
		err = ext4_acl_to_disk(acl, &disk, &len);
	if (err)
		return err;
	err = ext4_xattr_change(handle, inode, index, "", 0, disk, len);
	free(disk);
	return err == -ENODATA && !acl ? EXT4_XATTR_SAME : err;
}

/* ---- the changes ---- */

/* The mode becomes what an access ACL says. */
static uint32_t follow_acl(struct ext4_inode *inode, struct ext4_acl *acl, bool kill_sgid)
{
	uint32_t mode = (inode->raw->i_mode & ~0777u) | mode_of(acl);

	if (kill_sgid)
		mode &= ~(uint32_t)S_ISGID;
	fdio_mutex_lock(&inode->attr);
	ext4_raw_set_mode(inode, mode);
	fdio_mutex_unlock(&inode->attr);
	return mode;
}

int ext4_acl_store(struct journal_handle *handle, struct ext4_inode *inode, uint8_t index,
		   const void *value, size_t len, bool kill_sgid)
{
	const bool access = index == EXT4_XATTR_INDEX_ACL_ACCESS;
	uint32_t mode = inode->raw->i_mode, old = mode;
	struct ext4_acl *acl = NULL;
	int err;

	if (S_ISLNK(mode))
		return -EOPNOTSUPP;
	err = value ? ext4_acl_from_user(value, len, &acl) : 0;
	if (err)
		return err;
	if (index == EXT4_XATTR_INDEX_ACL_DEFAULT && !S_ISDIR(mode)) {
		bool any = acl;

		free(acl);
		return any ? -EACCES : EXT4_XATTR_SAME;
	}
	if (acl && access)
		mode = follow_acl(inode, acl, kill_sgid);
	/* An access ACL that the mode expresses is not stored. */
	err = write_acl(handle, inode, index, acl && access && is_plain(acl) ? NULL : acl);
	free(acl);
	return err == EXT4_XATTR_SAME && mode != old ? 0 : err;
}

int ext4_acl_chmod(struct journal_handle *handle, struct ext4_inode *inode, uint32_t mode)
{
	struct ext4_acl *acl;
	int err = read_acl(inode, EXT4_XATTR_INDEX_ACL_ACCESS, &acl);

	if (err || !acl)
		return err;
	set_mode(acl, mode);
	err = write_acl(handle, inode, EXT4_XATTR_INDEX_ACL_ACCESS, acl);
	free(acl);
	return err == EXT4_XATTR_SAME ? 0 : err;
}

int ext4_acl_inherit(struct journal_handle *handle, struct ext4_inode *dir,
		     struct ext4_inode *inode, uint32_t *mode, bool *ret_had_default)
{
	struct ext4_acl *acl = NULL;
	int err = 0;

	*ret_had_default = false;
	if (!inode->vol->options.acl || S_ISLNK(*mode))
		return 0;
	err = read_acl(dir, EXT4_XATTR_INDEX_ACL_DEFAULT, &acl);
	if (err || !acl)
		return err;
	*ret_had_default = true;
	if (S_ISDIR(*mode))
		err = write_acl(handle, inode, EXT4_XATTR_INDEX_ACL_DEFAULT, acl);
	if (!err) {
		/* The new file gets what the ACL and the mode of the request both allow. */
		uint32_t both = mode_of(acl) & *mode & 0777;

		set_mode(acl, both);
		*mode = (*mode & ~0777u) | both;
		if (!is_plain(acl))
			err = write_acl(handle, inode, EXT4_XATTR_INDEX_ACL_ACCESS, acl);
	}
	free(acl);
	return err;
}

/* ---- what they cost ---- */

/* Bytes of the ACL on disk; 0 if there is none. */
static uint32_t acl_size(struct ext4_inode *inode, uint8_t index)
{
	struct ext4_xattr_set set;
	struct ext4_xattr *xattr;
	uint32_t size;

	if (!inode->vol->options.acl || ext4_xattr_load(inode, &set))
		return 0;
	xattr = ext4_xattr_find(&set, index, "", 0);
	size = xattr ? xattr->size : 0;
	ext4_xattr_set_fini(&set);
	return size;
}

unsigned ext4_acl_chmod_credits(struct ext4_inode *inode)
{
	uint32_t size;

	if (!inode->vol->has_ea_inode)
		return 0;
	size = acl_size(inode, EXT4_XATTR_INDEX_ACL_ACCESS);
	return ext4_xattr_credits(inode, size) + EXT4_CREDITS_EA_UNREF;
}

unsigned ext4_acl_inherit_credits(struct ext4_inode *dir)
{
	uint32_t size;

	if (!dir->vol->has_ea_inode)
		return 0;
	size = acl_size(dir, EXT4_XATTR_INDEX_ACL_DEFAULT);
	return 2 * ext4_ea_credits_new(dir->vol, size);
}

unsigned ext4_acl_chmod_blocks(struct ext4_inode *inode)
{
	struct ext4_xattr_set set;
	struct ext4_xattr *xattr;
	unsigned n = 0;

	/* In the inode's own space it stays. If the set cannot be read, the change will say so. */
	if (!inode->vol->options.acl || (!ext4_raw_file_acl(inode) && !inode->vol->has_ea_inode) ||
	    ext4_xattr_load(inode, &set))
		return 0;
	xattr = ext4_xattr_find(&set, EXT4_XATTR_INDEX_ACL_ACCESS, "", 0);
	if (xattr) {
		n = 1 + ext4_ea_blocks(inode->vol, xattr->size);
		xattr->value_ino = 0;
		xattr->fresh = true;
		if (ext4_xattr_fits(inode, &set))
			n = 0;
	}
	ext4_xattr_set_fini(&set);
	return n;
}

unsigned ext4_acl_inherit_blocks(struct ext4_inode *dir, uint32_t mode)
{
	uint32_t size = S_ISLNK(mode) ? 0 : acl_size(dir, EXT4_XATTR_INDEX_ACL_DEFAULT),
		 nr = S_ISDIR(mode) ? 2 : 1;

	if (!size || ext4_xattr_fresh_fits(dir->vol, nr, size))
		return 0;
	return 1 + nr * ext4_ea_blocks(dir->vol, size);
}
