/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * STATFS. Never blocks, so the loop thread that received the request always serves it. Takes no
 * lock and does not fail.
 */
#include "ops/types.h"

void ops_statfs(struct ops_req *req)
{
	struct fuse_statfs_out out = { 0 };
	struct ext4_statfs stats;

	ext4_vol_statfs(req->ops->vol, &stats);
	out.st = (struct fuse_kstatfs){
		.blocks = stats.blocks,
		.bfree = stats.bfree,
		.bavail = stats.bavail,
		.files = stats.files,
		.ffree = stats.ffree,
		.bsize = stats.bsize,
		.frsize = stats.bsize,
		.namelen = stats.namelen,
	};
	ops_reply_data(req, &out, sizeof(out));
}
