/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attribute values in inodes of their own, private to the room (value.c). ext4 calls the feature
 * and such an inode ea_inode.
 */
#ifndef FDIO_EXT4_XATTR_VALUE_H
#define FDIO_EXT4_XATTR_VALUE_H

#include "ext4/inode/inode_change.h"
#include "ext4/xattr/set.h"

/*
 * What a new value of len bytes may take, in blocks to set aside and in credits of the handle; 0
 * without the feature.
 */
unsigned ext4_ea_blocks(const struct ext4_vol *vol, size_t len);
unsigned ext4_ea_credits_new(const struct ext4_vol *vol, size_t len);
/*
 * Moves the value of xattr to a new inode in handle, and sets xattr->value_ino. The blocks of the
 * value go on the account of inode, which the caller has begun in handle.
 */
int ext4_ea_new(struct journal_handle *handle, struct ext4_inode *inode,
		struct ext4_xattr *xattr) FDIO_MAY_MISS;
/*
 * The value of xattr, an attribute of inode, gets one owner more (ref) or less (unref). When the
 * last owner is gone the inode of the value is on the orphan list, and is deleted later.
 */
int ext4_ea_ref(struct journal_handle *handle, struct ext4_inode *inode,
		const struct ext4_xattr *xattr) FDIO_MAY_MISS;
int ext4_ea_unref(struct journal_handle *handle, struct ext4_inode *inode,
		  const struct ext4_xattr *xattr) FDIO_MAY_MISS;
#define EXT4_CREDITS_EA_UNREF (EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN)
/*
 * Reads the whole value of xattr, an attribute of inode, and checks it; inside handles too. read:
 * into buf of xattr->size bytes. copy: into memory that the caller frees.
 */
int ext4_ea_read(struct ext4_inode *inode, const struct ext4_xattr *xattr,
		 uint8_t *buf) FDIO_MAY_MISS;
int ext4_ea_copy(struct ext4_inode *inode, const struct ext4_xattr *xattr,
		 uint8_t **ret) FDIO_MAY_MISS;

#endif
