/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes inside the ext4 room: the set of an inode in memory, and the calls between its parser and
 * writer (xattr/disk.c), the operations (xattr/xattr.c) and the ACLs (xattr/acl.c).
 */
#ifndef FDIO_EXT4_XATTR_SET_H
#define FDIO_EXT4_XATTR_SET_H

#include "base/nowait.h"
#include "ext4/core/structs.h"
#include "ext4/xattr/xattr.h"

/* e_name_index on disk: which prefix the name goes with. */
enum x4_xattr_index {
	X4_XI_USER = 1,
	X4_XI_ACL_ACCESS = 2,
	X4_XI_ACL_DEFAULT = 3,
	X4_XI_TRUSTED = 4,
	X4_XI_SECURITY = 6,
	X4_XI_SYSTEM = 7, /* system.data of inline files: never shown */
};

#define X4_XATTR_VALUE_MAX 65536u /* XATTR_SIZE_MAX of the VFS */

struct x4_xattr {
	uint8_t index, name_len;
	const char *name;      /* without the prefix; not terminated */
	const uint8_t *value;  /* NULL when inum is set */
	uint32_t size;
	uint32_t inum;         /* the value lies in this inode (ea_inode) */
	uint32_t hash;         /* as found; kept for values in inodes */
	bool in_block, was_in_block;
	bool fresh;            /* set just now: goes to the inode if it fits, wherever it was */
	bool apart;            /* set just now, and too large for both places: goes to an inode of its own */
};

/* Everything an inode has. Names and values point into copies that the set owns, or into what the caller put there. */
struct x4_xattr_set {
	struct x4_xattr *xattr;
	unsigned nr, cap;
	bool block_shared;     /* other inodes have the block too */
	uint8_t *ibody_copy, *block_copy;
};

/* Reads and checks all. The caller holds rw in any mode, or is inside a handle that has inode to itself. One spare entry is left. */
int x4_xattr_load(struct x4_inode *inode, struct x4_xattr_set *ret) FDIO_MAY_MISS;
void x4_xattr_set_fini(struct x4_xattr_set *set);
/* The value of system.data, from the inode's own space, at most cap bytes; -EUCLEAN without. */
int x4_xattr_inline(struct x4_inode *inode, uint8_t *buf, uint32_t cap, uint32_t *ret_len)
	FDIO_MAY_MISS;
struct x4_xattr *x4_xattr_find(struct x4_xattr_set *set, uint8_t index, const char *name, unsigned name_len);
/* Writes the set back in handle: each attribute stays where it is; a fresh one goes to the inode if it fits, else to
 * the block of its own (a shared one is left to its other owners), or its value to an inode of its own, as ext4 places them.
 * -ENOSPC when there is no room. Ends with x4_inode_dirty. Credits: X4_CREDITS_XATTR, and x4_xattr_credits for values in inodes. */
int x4_xattr_store(struct journal_handle *handle, struct x4_inode *inode, struct x4_xattr_set *set) FDIO_MAY_MISS;
/* Whether x4_xattr_store would take no new block. set is for nothing else afterwards. */
bool x4_xattr_fits(struct x4_inode *inode, struct x4_xattr_set *set);
/* Whether nr attributes without a name, each of size bytes, fit into a new inode itself. */
bool x4_xattr_fresh_fits(const struct x4_vol *vol, uint32_t nr, uint32_t size);
/* Says whether inode has room with attributes in it, without a look at these. */
bool x4_xattr_any(const struct x4_inode *inode);
/* Sets (value NULL: removes) one attribute inside h. -ENODATA when removing what is not there; X4_XATTR_SAME, with nothing
 * changed, when it has this value already. */
#define X4_XATTR_SAME 1
int x4_xattr_change(struct journal_handle *handle, struct x4_inode *inode, uint8_t index, const char *name, unsigned name_len, const void *value,
		    size_t len) FDIO_MAY_MISS;

/* Credits beside X4_CREDITS_XATTR for setting an attribute of len bytes or removing one; 0 without ea_inode. inode is locked. */
unsigned x4_xattr_credits(struct x4_inode *inode, size_t len) FDIO_MAY_WAIT;

/* xattr/value.c: values in inodes of their own. New: what it takes in blocks and credits for len bytes; 0 without the feature. */
unsigned x4_ea_blocks(const struct x4_vol *vol, size_t len);
unsigned x4_ea_credits_new(const struct x4_vol *vol, size_t len);
/* The value of xattr goes to an inode of its own, which is put into xattr; inode, which has been begun in handle, gets its blocks on its account. */
int x4_ea_new(struct journal_handle *handle, struct x4_inode *inode, struct x4_xattr *xattr) FDIO_MAY_MISS;
/* One owner more or less of the value of xattr, an attribute of inode. The last one gone, it is deleted later. */
int x4_ea_ref(struct journal_handle *handle, struct x4_inode *inode, const struct x4_xattr *xattr) FDIO_MAY_MISS;
int x4_ea_unref(struct journal_handle *handle, struct x4_inode *inode, const struct x4_xattr *xattr) FDIO_MAY_MISS;
#define X4_CREDITS_EA_UNREF (X4_CREDITS_INODE + X4_CREDITS_ORPHAN)
/* Reads the whole value of xattr, checked; also inside handles. copy: malloc'd. */
int x4_ea_read(struct x4_inode *inode, const struct x4_xattr *xattr, uint8_t *buf) FDIO_MAY_MISS;
int x4_ea_copy(struct x4_inode *inode, const struct x4_xattr *xattr, uint8_t **ret) FDIO_MAY_MISS;

/* xattr/acl.c: the whole set or remove of an ACL attribute, with what it does to the mode, inside handle. X4_XATTR_SAME: all was so. */
int x4_acl_store(struct journal_handle *handle, struct x4_inode *inode, uint8_t index, const void *value, size_t len, bool kill_sgid)
	FDIO_MAY_MISS;
/* Disk form to the xattr form that user space knows; -ERANGE if cap is too small (0: only the length). */
int x4_acl_to_user(struct x4_inode *inode, const uint8_t *disk, size_t len, void *buf, size_t cap, size_t *ret_len)
	FDIO_MAY_MISS;

#endif
