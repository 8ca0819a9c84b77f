/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Xattr: extended attributes, ACLs, and content that is kept like an attribute (inline data). From
 * the bottom:
 *
 *   places.c       an inode's own space for attributes, and its attribute block; private: places.h
 *   set_read.c, set_layout.c, set_write.c   all attributes of an inode; private: set.h
 *   value.c        values in inodes of their own; private: value.h
 *   set_change.c, set_free.c   one attribute in a handle; all of them, of a deleted inode
 *   acl_form.c, acl.c   the forms of an ACL; ACLs and the mode; private: acl.h
 *   xattr.c        get, list, set, remove; capabilities
 *   inline.c       files, directories and links whose content lies in the inode
 *
 * Workers, and loop threads in the mode of base/nowait.h. Unless a comment says otherwise, the
 * caller has the inode locked, in any mode to read it, exclusively (or the inode is new) to change
 * it inside a handle. Errors are -errno; damage is recorded (EXT4_CORRUPT) and -EUCLEAN. State:
 * xattr_state.h.
 */
#ifndef FDIO_EXT4_XATTR_XATTR_H
#define FDIO_EXT4_XATTR_XATTR_H

#include "base/nowait.h"
#include "ext4/data/data.h"

/*
 * The four system calls; they take the inode's lock, and names are whole ("user.foo"). size 0: only
 * the length. *ret_len is set on success. -ENODATA, -ERANGE, -EOPNOTSUPP.
 */
int ext4_xattr_get(struct ext4_inode *inode, const char *name, void *buf, size_t size,
		   size_t *ret_len) FDIO_MAY_MISS;
/* Names, each with a NUL. trusted: also those that only a privileged process may see. */
int ext4_xattr_list(struct ext4_inode *inode, bool trusted, char *buf, size_t size, size_t *ret_len)
	FDIO_MAY_MISS;
enum {
	EXT4_XATTR_KILL_SGID = 1 << 0, /* as FUSE_SETXATTR_ACL_KILL_SGID */
	EXT4_XATTR_ROOT = 1 << 1,      /* may use the reserved blocks */
};
/*
 * flags: XATTR_CREATE, XATTR_REPLACE. how: EXT4_XATTR_*. value may be NULL if len is 0. Beside the
 * above -EEXIST, -E2BIG, -ENOSPC, -EPERM (immutable, append-only), -EROFS.
 */
int ext4_xattr_set(struct ext4_inode *inode, const char *name, const void *value, size_t len,
		   int flags, unsigned how) FDIO_BLOCKS;
int ext4_xattr_remove(struct ext4_inode *inode, const char *name) FDIO_BLOCKS;
/* Content of a file with inline data. Returns the number of bytes; short only at the end. */
ssize_t ext4_inline_read(struct ext4_inode *inode, uint64_t off, void *buf,
			 size_t len) FDIO_MAY_MISS;

/* ------------------------------------------------------------------ inside ext4 */
/* ---- inside a handle ---- */
/* create: gives inode the default ACL of dir, adjusts *mode. *ret_had_default: no umask applies. */
int ext4_acl_inherit(struct journal_handle *handle, struct ext4_inode *dir,
		     struct ext4_inode *inode, uint32_t *mode, bool *ret_had_default) FDIO_MAY_MISS;
/* chmod: the access ACL follows the mode. */
int ext4_acl_chmod(struct journal_handle *handle, struct ext4_inode *inode,
		   uint32_t mode) FDIO_MAY_MISS;
/* Removes security.capability if there is one. */
int ext4_xattr_kill_caps(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
/* Detaches the attribute block, which loses an owner or is freed. The caller dirties inode. */
int ext4_xattr_drop_block(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;

/* ---- before a handle: what these may need, at most ---- */
/*
 * Blocks that setting or removing one attribute changes (the inode, its own and a shared block,
 * bitmaps): the credits for each call of ext4_acl_chmod and ext4_xattr_kill_caps.
 */
#define EXT4_CREDITS_XATTR 8
/* Credits beside, where values lie in inodes of their own (ea_inode). */
unsigned ext4_acl_chmod_credits(struct ext4_inode *inode) FDIO_MAY_WAIT;
unsigned ext4_acl_inherit_credits(struct ext4_inode *dir) FDIO_MAY_WAIT;
/* Blocks to set aside. Removing an attribute takes one where a shared block has to be copied. */
unsigned ext4_acl_chmod_blocks(struct ext4_inode *inode) FDIO_MAY_WAIT;
unsigned ext4_acl_inherit_blocks(struct ext4_inode *dir, uint32_t mode) FDIO_MAY_WAIT;
unsigned ext4_xattr_remove_blocks(struct ext4_inode *inode) FDIO_MAY_WAIT;
/* The inode may have security.capability: true also if its attributes cannot be read. */
bool ext4_xattr_has_caps(struct ext4_inode *inode) FDIO_MAY_WAIT;

/* ---- deleted inodes ---- */
/* The attribute block; 0: none. */
uint64_t ext4_raw_file_acl(const struct ext4_inode *inode);
/* Gives up all attributes, in transactions of its own: the block, and values in other inodes. */
int ext4_xattr_free_all(struct ext4_inode *inode) FDIO_MAY_MISS;
/*
 * Drops the references to inodes of values that ended handles have kept, which may delete them.
 * Outside handles, with no lock that a deletion takes; on a thread that may block.
 */
void ext4_ea_settle(struct ext4_vol *vol) FDIO_MAY_WAIT;
void ext4_ea_init(struct ext4_vol *vol);
void ext4_ea_fini(struct ext4_vol *vol); /* at the end, nobody else uses vol: forgets them */

/* ---- inline data (inline.c) ---- */
/* The content as it is stored, which the caller frees; what is in it is not checked. */
int ext4_inline_load(struct ext4_inode *inode, uint8_t **ret, uint32_t *ret_len) FDIO_MAY_MISS;
/* The target of a symbolic link, size bytes. */
int ext4_inline_link(struct ext4_inode *inode, char *buf, uint64_t size) FDIO_MAY_MISS;

#endif
