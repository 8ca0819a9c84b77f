/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the immutable and append-only flags forbid, as far as it is decided here: opening, changing
 * attributes. The kernel does not know these flags of a FUSE inode. WRITE looks at immutable itself
 * (read_write.c). Names, extended attributes and fallocate are checked by ext4, under the lock of
 * the inode. Any thread, no lock: a flag that is set meanwhile counts from the next request on.
 * Refuses with EPERM.
 */
#include "ops/types.h"

#include <fcntl.h>

int ops_open_allowed(struct ops *ops, struct ext4_inode *inode, uint32_t flags)
{
	uint32_t fl = ext4_inode_flags(inode);
	bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);

	if (S_ISDIR(ext4_inode_mode(inode)))
		return -EISDIR;
	if (!S_ISREG(ext4_inode_mode(inode)))
		return -ENXIO; /* the kernel opens devices, pipes and sockets itself */
	if (writes && ext4_vol_read_only(ops->vol))
		return -EROFS;
	if (writes && (fl & OPS_FL_IMMUTABLE))
		return -EPERM;
	if (writes && (fl & OPS_FL_APPEND) && (!(flags & O_APPEND) || (flags & O_TRUNC)))
		return -EPERM;
	return 0;
}

/* Immutable: nothing changes. Append-only: no truncation, no attributes but times to now. */
int ops_setattr_allowed(struct ext4_inode *inode, const struct fuse_setattr_in *in)
{
	uint32_t fl = ext4_inode_flags(inode);
	uint32_t v = in->valid &
		     (FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME);

	if (!v || !(fl & (OPS_FL_IMMUTABLE | OPS_FL_APPEND)))
		return 0;
	if (fl & OPS_FL_IMMUTABLE)
		return -EPERM;
	if (v & (FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE))
		return -EPERM;
	if (((v & FATTR_ATIME) && !(in->valid & FATTR_ATIME_NOW)) ||
	    ((v & FATTR_MTIME) && !(in->valid & FATTR_MTIME_NOW)))
		return -EPERM;
	return 0;
}

/* ext4 forbids it only where the rename takes a name away there. */
int ops_rename_into_allowed(struct ext4_inode *dir)
{
	return ext4_inode_flags(dir) & OPS_FL_APPEND ? -EPERM : 0;
}
