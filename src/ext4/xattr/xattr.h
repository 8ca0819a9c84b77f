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
 * Workers, and loop threads in the mode of nowait.h. Reading with the inode locked in any mode, changing with it
 * locked exclusively, inside a handle. State: xattr_state.h.
 */
#ifndef FDIO_EXT4_XATTR_XATTR_H
#define FDIO_EXT4_XATTR_XATTR_H

#include "base/nowait.h"
#include "ext4/data/data.h"

/* Full names ("user.foo"). size 0: only the length. *ret_len always set on success. -ENODATA, -ERANGE, -EOPNOTSUPP. */
int x4_xattr_get(struct x4_inode *inode, const char *name, void *buf, size_t size, size_t *ret_len)
	FDIO_MAY_MISS;
/* NUL-separated names; trusted: with those that only a privileged process may know of. */
int x4_xattr_list(struct x4_inode *inode, bool trusted, char *buf, size_t size, size_t *ret_len)
	FDIO_MAY_MISS;
enum {
	X4_XATTR_KILL_SGID = 1 << 0, /* as FUSE_SETXATTR_ACL_KILL_SGID */
	X4_XATTR_ROOT = 1 << 1,      /* may use the reserved blocks */
};
/* flags: XATTR_CREATE, XATTR_REPLACE. value NULL with len 0 is an empty value. how: X4_XATTR_*. */
int x4_xattr_set(struct x4_inode *inode, const char *name, const void *value, size_t len, int flags, unsigned how)
	FDIO_BLOCKS;
int x4_xattr_remove(struct x4_inode *inode, const char *name) FDIO_BLOCKS;
ssize_t x4_inline_read(struct x4_inode *inode, uint64_t off, void *buf, size_t len) FDIO_MAY_MISS;

/* ------------------------------------------------------------------ inside ext4 */
/* Most blocks that setting or removing one attribute changes (the inode, its own and a shared block, bitmaps): what a
 * handle needs for each call of x4_acl_chmod and x4_xattr_kill_caps. */
#define X4_CREDITS_XATTR 8
/* What such a call, and x4_acl_inherit from dir, may need besides where values lie in inodes of their own (ea_inode). Before the
 * handle; the inode is locked. */
unsigned x4_acl_chmod_credits(struct x4_inode *inode) FDIO_MAY_WAIT;
unsigned x4_acl_inherit_credits(struct x4_inode *dir) FDIO_MAY_WAIT;
/* Blocks that they may need, to be set aside; and those of removing an attribute, which copies a shared block. */
unsigned x4_acl_chmod_blocks(struct x4_inode *inode) FDIO_MAY_WAIT;
unsigned x4_acl_inherit_blocks(struct x4_inode *dir, uint32_t mode) FDIO_MAY_WAIT;
unsigned x4_xattr_remove_blocks(struct x4_inode *inode) FDIO_MAY_WAIT;
/* Drops what handles have kept of such inodes, which may delete them. Outside handles, on a thread that may block. */
void x4_ea_settle(struct x4_vol *vol) FDIO_MAY_WAIT;
void x4_ea_init(struct x4_vol *vol);
void x4_ea_fini(struct x4_vol *vol); /* at the end, alone: forgets them */
/* Eviction: drops the xattr block (refcount) and ea_inodes, in transactions of its own. */
int x4_xattr_free_all(struct x4_inode *inode) FDIO_MAY_MISS;
/* Takes the block away: one owner less, or freed. inode is begun, and dirtied by the caller. */
int x4_xattr_drop_block(struct journal_handle *handle, struct x4_inode *inode) FDIO_MAY_MISS;
uint64_t x4_raw_file_acl(const struct x4_inode *inode);
/* create: default ACL of dir to the new inode in handle; *mode is adjusted. *ret_had_default: umask does not apply. */
int x4_acl_inherit(struct journal_handle *handle, struct x4_inode *dir, struct x4_inode *inode, uint32_t *mode, bool *ret_had_default)
	FDIO_MAY_MISS;
/* chmod: the access ACL follows the mode, inside handle. */
int x4_acl_chmod(struct journal_handle *handle, struct x4_inode *inode, uint32_t mode) FDIO_MAY_MISS;
/* KILL_SUIDGID: removes security.capability in handle if there is one. */
int x4_xattr_kill_caps(struct journal_handle *handle, struct x4_inode *inode) FDIO_MAY_MISS;
/* Blocks; the caller holds rw in any mode. */
bool x4_xattr_has_caps(struct x4_inode *inode) FDIO_MAY_WAIT;
/* Content of an inode with inline data: malloc'd, checked as far as its place goes. And a link's
 * target of size bytes. */
int x4_inline_load(struct x4_inode *inode, uint8_t **ret, uint32_t *ret_len) FDIO_MAY_MISS;
int x4_inline_link(struct x4_inode *inode, char *buf, uint64_t size) FDIO_MAY_MISS;

#endif
