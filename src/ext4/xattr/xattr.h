/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Xattr: extended attributes, ACLs, and content that is kept like an attribute (inline data).
 *
 *   set.h      private: all attributes of one inode, in memory
 *   xattr.c    get, list, set, remove; capabilities; eviction
 *   acl.c      ACLs and the mode
 *   disk.c     the inode's own space and its attribute block
 *   value.c    values in inodes of their own
 *   inline.c   files, directories and links whose content lies in the inode
 *
 * Workers, and loop threads in the mode of nowait.h. Reading with the inode locked in any mode,
 * changing with it locked exclusively, inside a handle. State: xattr_state.h.
 */
#ifndef FDIO_EXT4_XATTR_XATTR_H
#define FDIO_EXT4_XATTR_XATTR_H

#include "base/nowait.h"
#include "ext4/data/data.h"

/*
 * Full names ("user.foo"). size 0: only the length. *ret_len always set on success. -ENODATA,
 * -ERANGE, -EOPNOTSUPP.
 */
int ext4_xattr_get(struct ext4_inode *inode, const char *name, void *buf, size_t size,
		   size_t *ret_len) FDIO_MAY_MISS;
/* NUL-separated names; trusted: with those that only a privileged process may know of. */
int ext4_xattr_list(struct ext4_inode *inode, bool trusted, char *buf, size_t size, size_t *ret_len)
	FDIO_MAY_MISS;
enum {
	EXT4_XATTR_KILL_SGID = 1 << 0, /* as FUSE_SETXATTR_ACL_KILL_SGID */
	EXT4_XATTR_ROOT = 1 << 1,      /* may use the reserved blocks */
};
/*
 * flags: XATTR_CREATE, XATTR_REPLACE. value NULL with len 0 is an empty value. how: EXT4_XATTR_*.
 */
int ext4_xattr_set(struct ext4_inode *inode, const char *name, const void *value, size_t len,
		   int flags, unsigned how) FDIO_BLOCKS;
int ext4_xattr_remove(struct ext4_inode *inode, const char *name) FDIO_BLOCKS;
ssize_t ext4_inline_read(struct ext4_inode *inode, uint64_t off, void *buf,
			 size_t len) FDIO_MAY_MISS;

/* ------------------------------------------------------------------ inside ext4 */
/*
 * Most blocks that setting or removing one attribute changes (the inode, its own and a shared
 * block, bitmaps): what a handle needs for each call of ext4_acl_chmod and ext4_xattr_kill_caps.
 */
#define EXT4_CREDITS_XATTR 8
/*
 * What such a call, and ext4_acl_inherit from dir, may need besides where values lie in inodes of
 * their own (ea_inode). Before the handle; the inode is locked.
 */
unsigned ext4_acl_chmod_credits(struct ext4_inode *inode) FDIO_MAY_WAIT;
unsigned ext4_acl_inherit_credits(struct ext4_inode *dir) FDIO_MAY_WAIT;
/*
 * Blocks that they may need, to be set aside; and those of removing an attribute, which copies a
 * shared block.
 */
unsigned ext4_acl_chmod_blocks(struct ext4_inode *inode) FDIO_MAY_WAIT;
unsigned ext4_acl_inherit_blocks(struct ext4_inode *dir, uint32_t mode) FDIO_MAY_WAIT;
unsigned ext4_xattr_remove_blocks(struct ext4_inode *inode) FDIO_MAY_WAIT;
/*
 * Drops what handles have kept of such inodes, which may delete them. Outside handles, on a thread
 * that may block.
 */
void ext4_ea_settle(struct ext4_vol *vol) FDIO_MAY_WAIT;
void ext4_ea_init(struct ext4_vol *vol);
void ext4_ea_fini(struct ext4_vol *vol); /* at the end, alone: forgets them */
/* Eviction: drops the xattr block (refcount) and ea_inodes, in transactions of its own. */
int ext4_xattr_free_all(struct ext4_inode *inode) FDIO_MAY_MISS;
/* Takes the block away: one owner less, or freed. inode is begun, and dirtied by the caller. */
int ext4_xattr_drop_block(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
uint64_t ext4_raw_file_acl(const struct ext4_inode *inode);
/*
 * create: default ACL of dir to the new inode in handle; *mode is adjusted. *ret_had_default: umask
 * does not apply.
 */
int ext4_acl_inherit(struct journal_handle *handle, struct ext4_inode *dir,
		     struct ext4_inode *inode, uint32_t *mode, bool *ret_had_default) FDIO_MAY_MISS;
/* chmod: the access ACL follows the mode, inside handle. */
int ext4_acl_chmod(struct journal_handle *handle, struct ext4_inode *inode,
		   uint32_t mode) FDIO_MAY_MISS;
/* KILL_SUIDGID: removes security.capability in handle if there is one. */
int ext4_xattr_kill_caps(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
/* Blocks; the caller holds rw in any mode. */
bool ext4_xattr_has_caps(struct ext4_inode *inode) FDIO_MAY_WAIT;
/* Content of an inode with inline data: malloc'd, checked as far as its place goes. And a link's
 * target of size bytes. */
int ext4_inline_load(struct ext4_inode *inode, uint8_t **ret, uint32_t *ret_len) FDIO_MAY_MISS;
int ext4_inline_link(struct ext4_inode *inode, char *buf, uint64_t size) FDIO_MAY_MISS;

#endif
