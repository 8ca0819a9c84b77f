/* SPDX-License-Identifier: GPL-2.0-or-later */
/* STATFS: OPS_TRY. */
#include "ops/types.h"

void ops_statfs(struct ops_req *q)
{
	struct fuse_statfs_out out = { 0 };
	struct x4_statfs s;

	x4_vol_statfs(q->ops->vol, &s);
	out.st = (struct fuse_kstatfs){
		.blocks = s.blocks,
		.bfree = s.bfree,
		.bavail = s.bavail,
		.files = s.files,
		.ffree = s.ffree,
		.bsize = s.bsize,
		.frsize = s.bsize,
		.namelen = s.namelen,
	};
	ops_reply_data(q, &out, sizeof(out));
}
