/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode flags as chattr and lsattr see them, and as the extended flags of FS_IOC_FSGETXATTR and
 * FS_IOC_FSSETXATTR, without projects. On workers, without locks: a change may wait until it is
 * durable, and the kernel is notified of it. Fails with EPERM, EOPNOTSUPP (a project), and with
 * what ext4_setattr and the sync queue say.
 */
#include "ops/types.h"

#include <linux/capability.h>
#include <linux/fs.h>

int ops_set_inode_flags(struct ops_req *req, struct ext4_inode *inode, uint32_t want)
{
	struct ext4_attr attr = { .flags = want };
	bool sync = ops_is_sync(req->ops, inode);
	int err;

	if (((want ^ ext4_inode_flags(inode)) & FS_JOURNAL_DATA_FL) &&
	    !ops_capable(req, CAP_SYS_RESOURCE))
		return -EPERM;
	err = ext4_setattr(inode, EXT4_SET_FLAGS, &attr);
	/* The kernel does not expect an ioctl to change ctime, and would show the cached one. */
	if (!err && req->ops->transport)
		transport_notify_inval_inode(req->ops->transport, ops_nodeid(inode), -1, 0);
	/* The changes that set and clear the sync flag are synchronous too. */
	if (err || !(sync || ops_is_sync(req->ops, inode)))
		return err;
	return ops_wait_durable(req->ops, inode, false);
}

static const struct {
	uint32_t xflag, flag;
} xflag_map[] = {
	{ FS_XFLAG_SYNC, OPS_FL_SYNC },
	{ FS_XFLAG_IMMUTABLE, OPS_FL_IMMUTABLE },
	{ FS_XFLAG_APPEND, OPS_FL_APPEND },
	{ FS_XFLAG_NODUMP, OPS_FL_NODUMP },
	{ FS_XFLAG_NOATIME, OPS_FL_NOATIME },
	{ FS_XFLAG_DAX, FS_DAX_FL },
	{ FS_XFLAG_PROJINHERIT, FS_PROJINHERIT_FL },
};

/* Extended flags that are not in xflag_map are ignored, as ext4 does. */
int ops_set_xflags(struct ops_req *req, struct ext4_inode *inode, const struct fsxattr *xattr)
{
	uint32_t want = ext4_inode_flags(inode) & OPS_FL_VISIBLE;
	int err;

	for (unsigned k = 0; k < ARRAY_SIZE(xflag_map); k++)
		if (xattr->fsx_xflags & xflag_map[k].xflag)
			want |= xflag_map[k].flag;
		else
			want &= ~xflag_map[k].flag;
	err = ops_set_inode_flags(req, inode, want);
	return !err && xattr->fsx_projid ? -EOPNOTSUPP : err;
}

void ops_get_xflags(struct ext4_inode *inode, struct fsxattr *xattr)
{
	uint32_t flags = ext4_inode_flags(inode);

	*xattr = (struct fsxattr){ 0 };
	for (unsigned k = 0; k < ARRAY_SIZE(xflag_map); k++)
		if (flags & xflag_map[k].flag)
			xattr->fsx_xflags |= xflag_map[k].xflag;
}
