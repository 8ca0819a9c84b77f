/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode flags as chattr and lsattr see them, and the extended flags of FS_IOC_FS[GS]ETXATTR,
 * without projects. On workers: a change may wait until it is durable, and the kernel is told of
 * it.
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
	/* The kernel does not expect an ioctl to change ctime and would show the old one. */
	if (!err && req->ops->transport)
		transport_notify_inval_inode(req->ops->transport, ops_nodeid(inode), -1, 0);
	/*
	 * With the flag before, as any other change; and when it is this that sets it, which is the
	 * first one under it.
	 */
	return err || !(sync || ops_is_sync(req->ops, inode))
			       ? err
			       : ops_wait_durable(req->ops, inode, false);
}

static const struct {
	uint32_t x, fl;
} xflag_map[] = {
	{ FS_XFLAG_SYNC, OPS_FL_SYNC },
	{ FS_XFLAG_IMMUTABLE, OPS_FL_IMMUTABLE },
	{ FS_XFLAG_APPEND, OPS_FL_APPEND },
	{ FS_XFLAG_NODUMP, OPS_FL_NODUMP },
	{ FS_XFLAG_NOATIME, OPS_FL_NOATIME },
	{ FS_XFLAG_DAX, FS_DAX_FL },
	{ FS_XFLAG_PROJINHERIT, FS_PROJINHERIT_FL },
};

/* What has no flag here is ignored, as ext4 does; projects are another feature. */
int ops_set_xflags(struct ops_req *req, struct ext4_inode *inode, const struct fsxattr *x)
{
	uint32_t want = ext4_inode_flags(inode) & OPS_FL_VISIBLE;
	int err;

	for (unsigned k = 0; k < ARRAY_SIZE(xflag_map); k++)
		want = x->fsx_xflags & xflag_map[k].x ? want | xflag_map[k].fl
						      : want & ~xflag_map[k].fl;
	err = ops_set_inode_flags(req, inode, want);
	return !err && x->fsx_projid ? -EOPNOTSUPP : err;
}

void ops_get_xflags(struct ext4_inode *inode, struct fsxattr *x)
{
	uint32_t fl = ext4_inode_flags(inode);

	*x = (struct fsxattr){ 0 };
	for (unsigned k = 0; k < ARRAY_SIZE(xflag_map); k++)
		if (fl & xflag_map[k].fl)
			x->fsx_xflags |= xflag_map[k].x;
}
