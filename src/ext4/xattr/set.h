/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * All attributes of one inode in memory, private to the room: read from both places (set_read.c),
 * given places again after a change (set_layout.c), written (set_write.c); and the change of one
 * attribute inside a handle, which is all of this (set_change.c).
 *
 * XATTR-1 Nothing read from an image is used before its place has been checked: names end before
 *         the area does, values lie between the end of the entries and the end of the area.
 * XATTR-2 A block with other owners (h_refcount > 1) is never changed but for its count.
 * XATTR-3 A value in an inode of its own (value.h) belongs to the block its entry is in, not to
 *         each inode that owns the block.
 */
#ifndef FDIO_EXT4_XATTR_SET_H
#define FDIO_EXT4_XATTR_SET_H

#include "base/nowait.h"
#include "ext4/core/structs.h"
#include "ext4/xattr/xattr.h"

/* e_name_index on disk: the prefix that is left out of the stored name. */
enum ext4_xattr_index {
	EXT4_XATTR_INDEX_USER = 1,
	EXT4_XATTR_INDEX_ACL_ACCESS = 2,
	EXT4_XATTR_INDEX_ACL_DEFAULT = 3,
	EXT4_XATTR_INDEX_TRUSTED = 4,
	EXT4_XATTR_INDEX_SECURITY = 6,
	EXT4_XATTR_INDEX_SYSTEM = 7, /* system.data of inline files: never shown */
};

#define EXT4_XATTR_VALUE_MAX 65536u /* XATTR_SIZE_MAX of the VFS */

struct ext4_xattr {
	uint8_t index, name_len;
	const char *name;     /* without the prefix; not terminated */
	const uint8_t *value; /* NULL if value_ino is set */
	uint32_t size;        /* bytes of the value */
	uint32_t value_ino;   /* the value lies in this inode (value.h); 0: it does not */
	uint32_t hash;        /* e_hash as read; kept for values in inodes of their own */
	bool in_block, was_in_block;
	bool fresh;           /* set just now: goes to the inode if it fits, wherever it was */
	bool needs_inode;     /* set_layout.c: the value has to go to an inode of its own */
};

/*
 * Names and values point into the copies, which the set owns, or to what the caller put there. In
 * the array one element is always free.
 */
struct ext4_xattr_set {
	struct ext4_xattr *xattr;
	unsigned nr, cap;
	bool block_shared; /* other inodes own the block too */
	uint8_t *inode_copy, *block_copy;
};

/* ---- set_read.c ---- */
/*
 * Reads and checks the whole set. The caller holds rw in any mode, or has the inode alone inside a
 * handle. It frees the set with ext4_xattr_set_fini. -EUCLEAN, -EIO, -ENOMEM.
 */
int ext4_xattr_load(struct ext4_inode *inode, struct ext4_xattr_set *ret) FDIO_MAY_MISS;
void ext4_xattr_set_fini(struct ext4_xattr_set *set);
/* Returns NULL if the set does not have the attribute. */
struct ext4_xattr *ext4_xattr_find(struct ext4_xattr_set *set, uint8_t index, const char *name,
				   unsigned name_len);
/*
 * Copies the value of system.data from the inode's own space; it has at most cap bytes. -EUCLEAN if
 * it is not there, or longer.
 */
int ext4_xattr_system_data(struct ext4_inode *inode, uint8_t *buf, uint32_t cap,
			   uint32_t *ret_len) FDIO_MAY_MISS;

/* ---- set_layout.c: any thread, reads nothing ---- */
/*
 * Decides for each attribute of set whether it goes to the inode, to the block, or with its value
 * to an inode of its own; *ret_block: the block will hold something. -ENOSPC.
 */
int ext4_xattr_layout(struct ext4_inode *inode, struct ext4_xattr_set *set, bool *ret_block);
/*
 * True if ext4_xattr_store would allocate no block. Afterwards the set may only be passed to
 * ext4_xattr_set_fini.
 */
bool ext4_xattr_fits(struct ext4_inode *inode, struct ext4_xattr_set *set);
/* nr attributes without a name, each of size bytes, fit into a new inode's own space. */
bool ext4_xattr_fresh_fits(const struct ext4_vol *vol, uint32_t nr, uint32_t size);

/* ---- set_write.c ---- */
/*
 * Writes the set back in handle and calls ext4_inode_dirty. An attribute stays in its place, unless
 * it is fresh. A shared block is left to its other owners, and the inode gets one of its own.
 * -ENOSPC when there is no room. Credits: EXT4_CREDITS_XATTR and ext4_xattr_credits.
 */
int ext4_xattr_store(struct journal_handle *handle, struct ext4_inode *inode,
		     struct ext4_xattr_set *set) FDIO_MAY_MISS;

/* ---- set_change.c ---- */
/*
 * Sets one attribute in handle, or removes it if value is NULL. -ENODATA when what is to be removed
 * is not there. EXT4_XATTR_SAME: it has this value already, and nothing was changed.
 */
#define EXT4_XATTR_SAME 1
int ext4_xattr_change(struct journal_handle *handle, struct ext4_inode *inode, uint8_t index,
		      const char *name, unsigned name_len, const void *value,
		      size_t len) FDIO_MAY_MISS;
/*
 * Credits that such a change of an attribute of len bytes (0: a removal) needs beside
 * EXT4_CREDITS_XATTR, for values in inodes of their own. The inode is locked.
 */
unsigned ext4_xattr_credits(struct ext4_inode *inode, size_t len) FDIO_MAY_WAIT;
/*
 * Gives up the value of xattr, which set has, if it lies in an inode of its own: that inode loses
 * an owner, and inode, which is begun in handle, the blocks on its account.
 */
int ext4_xattr_leave_value(struct journal_handle *handle, struct ext4_inode *inode,
			   const struct ext4_xattr_set *set,
			   const struct ext4_xattr *xattr) FDIO_MAY_MISS;

#endif
