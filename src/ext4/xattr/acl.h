/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * POSIX ACLs inside the room: an ACL in memory with its two outside forms (acl_form.c), and storing
 * one that user space has handed in (acl.c).
 */
#ifndef FDIO_EXT4_XATTR_ACL_H
#define FDIO_EXT4_XATTR_ACL_H

#include "base/nowait.h"
#include "ext4/core/structs.h"

/* Tags, the same on disk and in user space. */
enum ext4_acl_tag {
	EXT4_ACL_USER_OBJ = 1,
	EXT4_ACL_USER = 2,
	EXT4_ACL_GROUP_OBJ = 4,
	EXT4_ACL_GROUP = 8,
	EXT4_ACL_MASK = 0x10,
	EXT4_ACL_OTHER = 0x20
};

struct ext4_acl_entry { uint16_t tag, perm; uint32_t id; };
struct ext4_acl { unsigned nr; struct ext4_acl_entry entry[]; };

/* ---- acl_form.c: the caller frees *ret; every ACL returned is valid ---- */
/* From the form on disk. inode is blamed for damage: -EUCLEAN. -ENOMEM. */
int ext4_acl_from_disk(struct ext4_inode *inode, const uint8_t *disk, size_t len,
		       struct ext4_acl **ret) FDIO_MAY_MISS;
int ext4_acl_to_disk(const struct ext4_acl *acl, uint8_t **ret, size_t *ret_len);
/*
 * From the form that setxattr(2) brings. *ret is NULL for one without entries, which means removal.
 * -EINVAL, -EOPNOTSUPP (another version), -ENOMEM.
 */
int ext4_acl_from_user(const uint8_t *user, size_t len, struct ext4_acl **ret);
/*
 * From the form on disk to that of getxattr(2). cap 0: only the length; -ERANGE if cap is too
 * small, -EUCLEAN, -ENOMEM.
 */
int ext4_acl_to_user(struct ext4_inode *inode, const uint8_t *disk, size_t len, void *buf,
		     size_t cap, size_t *ret_len) FDIO_MAY_MISS;

/* ---- acl.c ---- */
/*
 * setxattr(2) of an ACL, or removexattr(2) (value NULL), in handle, with what it does to the mode.
 * The inode is locked exclusively and begun. kill_sgid: clears the setgid bit as well.
 * EXT4_XATTR_SAME: nothing had to change. -EACCES: a default ACL for a file that is no directory.
 */
int ext4_acl_store(struct journal_handle *handle, struct ext4_inode *inode, uint8_t index,
		   const void *value, size_t len, bool kill_sgid) FDIO_MAY_MISS;

#endif
