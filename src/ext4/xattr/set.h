/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes inside the ext4 room: the set of an inode in memory, and the calls between
 * its parser and writer (xattr/disk.c), the operations (xattr/xattr.c) and the ACLs (xattr/acl.c).
 */
#ifndef FDIO_EXT4_XATTR_SET_H
#define FDIO_EXT4_XATTR_SET_H

#include "base/nowait.h"
#include "ext4/core/structs.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"
#include "ext4/xattr/xattr.h"

/* e_name_index on disk: which prefix the name goes with. */
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
	const char *name;      /* without the prefix; not terminated */
	const uint8_t *value;  /* NULL when inum is set */
	uint32_t size;
	uint32_t inum;         /* the value lies in this inode (ea_inode) */
	uint32_t hash;         /* as found; kept for values in inodes */
	bool in_block, was_in_block;
	bool fresh;            /* set just now: goes to the inode if it fits, wherever it was */
	/* set just now, and too large for both places: goes to an inode of its own */
	bool apart;
};

/*
 * Everything an inode has. Names and values point into copies that the set owns, or into what the
 * caller put there.
 */
struct ext4_xattr_set {
	struct ext4_xattr *xattr;
	unsigned nr, cap;
	bool block_shared;     /* other inodes have the block too */
	uint8_t *ibody_copy, *block_copy;
};

/*
 * Reads and checks all. The caller holds rw in any mode, or is inside a handle that has inode to
 * itself. One spare entry is left.
 */
int ext4_xattr_load(struct ext4_inode *inode, struct ext4_xattr_set *ret) FDIO_MAY_MISS;
void ext4_xattr_set_fini(struct ext4_xattr_set *set);
/* The value of system.data, from the inode's own space, at most cap bytes; -EUCLEAN without. */
int ext4_xattr_inline(struct ext4_inode *inode, uint8_t *buf, uint32_t cap, uint32_t *ret_len)
	FDIO_MAY_MISS;
struct ext4_xattr *ext4_xattr_find(struct ext4_xattr_set *set, uint8_t index, const char *name,
				   unsigned name_len);
/*
 * Writes the set back in handle: each attribute stays where it is; a fresh one goes to the inode if
 * it fits, else to the block of its own (a shared one is left to its other owners), or its value to
 * an inode of its own, as ext4 places them. -ENOSPC when there is no room. Ends with
 * ext4_inode_dirty. Credits: EXT4_CREDITS_XATTR, and ext4_xattr_credits for values in inodes.
 */
int ext4_xattr_store(struct journal_handle *handle, struct ext4_inode *inode,
		     struct ext4_xattr_set *set) FDIO_MAY_MISS;
/* Whether ext4_xattr_store would take no new block. set is for nothing else afterwards. */
bool ext4_xattr_fits(struct ext4_inode *inode, struct ext4_xattr_set *set);
/* Whether nr attributes without a name, each of size bytes, fit into a new inode itself. */
bool ext4_xattr_fresh_fits(const struct ext4_vol *vol, uint32_t nr, uint32_t size);
/* Says whether inode has room with attributes in it, without a look at these. */
bool ext4_xattr_any(const struct ext4_inode *inode);
/*
 * Sets (value NULL: removes) one attribute inside h. -ENODATA when removing what is not there;
 * EXT4_XATTR_SAME, with nothing changed, when it has this value already.
 */
#define EXT4_XATTR_SAME 1
int ext4_xattr_change(struct journal_handle *handle, struct ext4_inode *inode, uint8_t index,
		      const char *name, unsigned name_len, const void *value,
		      size_t len) FDIO_MAY_MISS;

/*
 * Credits beside EXT4_CREDITS_XATTR for setting an attribute of len bytes or removing one; 0
 * without ea_inode. inode is locked.
 */
unsigned ext4_xattr_credits(struct ext4_inode *inode, size_t len) FDIO_MAY_WAIT;

/*
 * xattr/value.c: values in inodes of their own. New: what it takes in blocks and credits for len
 * bytes; 0 without the feature.
 */
unsigned ext4_ea_blocks(const struct ext4_vol *vol, size_t len);
unsigned ext4_ea_credits_new(const struct ext4_vol *vol, size_t len);
/*
 * The value of xattr goes to an inode of its own, which is put into xattr; inode, which has been
 * begun in handle, gets its blocks on its account.
 */
int ext4_ea_new(struct journal_handle *handle, struct ext4_inode *inode,
		struct ext4_xattr *xattr) FDIO_MAY_MISS;
/*
 * One owner more or less of the value of xattr, an attribute of inode. The last one gone, it is
 * deleted later.
 */
int ext4_ea_ref(struct journal_handle *handle, struct ext4_inode *inode,
		const struct ext4_xattr *xattr) FDIO_MAY_MISS;
int ext4_ea_unref(struct journal_handle *handle, struct ext4_inode *inode,
		  const struct ext4_xattr *xattr) FDIO_MAY_MISS;
#define EXT4_CREDITS_EA_UNREF (EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN)
/* Reads the whole value of xattr, checked; also inside handles. copy: malloc'd. */
int ext4_ea_read(struct ext4_inode *inode, const struct ext4_xattr *xattr,
		 uint8_t *buf) FDIO_MAY_MISS;
int ext4_ea_copy(struct ext4_inode *inode, const struct ext4_xattr *xattr,
		 uint8_t **ret) FDIO_MAY_MISS;

/*
 * xattr/acl.c: the whole set or remove of an ACL attribute, with what it does to the mode, inside
 * handle. EXT4_XATTR_SAME: all was so.
 */
int ext4_acl_store(struct journal_handle *handle, struct ext4_inode *inode, uint8_t index,
		   const void *value, size_t len, bool kill_sgid) FDIO_MAY_MISS;
/*
 * Disk form to the xattr form that user space knows; -ERANGE if cap is too small (0: only the
 * length).
 */
int ext4_acl_to_user(struct ext4_inode *inode, const uint8_t *disk, size_t len, void *buf,
		     size_t cap, size_t *ret_len) FDIO_MAY_MISS;

#endif
