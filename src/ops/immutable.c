/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the immutable and append-only flags of inodes forbid: here, opening and changing attributes.
 * The kernel does not know these flags of a FUSE inode. WRITE looks at the immutable flag itself
 * (read_write.c); src/ext4 checks names, extended attributes and fallocate, under the lock of the
 * inode. Loop threads and workers, without a lock: a flag that is set meanwhile counts from the
 * next request on. Refuses with EPERM.
 */
#include "ops/types.h"

#include <fcntl.h>

int ops_open_allowed(struct ops *ops, struct ext4_inode *inode, uint32_t flags)
{
	uint32_t inode_flags = ext4_inode_flags(inode);
	bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);

	if (S_ISDIR(ext4_inode_mode(inode)))
		return -EISDIR;
	if (!S_ISREG(ext4_inode_mode(inode)))
		return -ENXIO; /* the kernel opens devices, pipes and sockets itself */
	if (writes && ext4_vol_read_only(ops->vol))
		return -EROFS;
	if (writes && (inode_flags & OPS_FL_IMMUTABLE))
		return -EPERM;
	if (writes && (inode_flags & OPS_FL_APPEND) &&
	    (!(flags & O_APPEND) || (flags & O_TRUNC)))
		return -EPERM;
	return 0;
}

/*
 * Of an immutable inode nothing may be changed; of an append-only inode only the times, and only to
 * now.
 */
int ops_setattr_allowed(struct ext4_inode *inode, const struct fuse_setattr_in *in)
{
	uint32_t inode_flags = ext4_inode_flags(inode);
	uint32_t changes = in->valid & (FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE |
					FATTR_ATIME | FATTR_MTIME);

	if (!changes || !(inode_flags & (OPS_FL_IMMUTABLE | OPS_FL_APPEND)))
		return 0;
	if (inode_flags & OPS_FL_IMMUTABLE)
		return -EPERM;
	if (changes & (FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE))
		return -EPERM;
	if (((changes & FATTR_ATIME) && !(in->valid & FATTR_ATIME_NOW)) ||
	    ((changes & FATTR_MTIME) && !(in->valid & FATTR_MTIME_NOW)))
		return -EPERM;
	return 0;
}

/* src/ext4 refuses a rename into dir only if it also removes a name from dir. */
int ops_rename_into_allowed(struct ext4_inode *dir)
{
	return ext4_inode_flags(dir) & OPS_FL_APPEND ? -EPERM : 0;
}
