/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who asks: the credentials of a request, and what they permit. Workers and OPS_TRY; ops_capable
 * workers only, because finding out a capability may block for a moment. What cannot be found out
 * counts as not permitted.
 */
#include "ops/types.h"

/* FUSE does not tell who is a supplementary member of the group. */
bool ops_may_use_reserved(const struct ops_req *req)
{
	const struct ops_config *config = &req->ops->config;
	const struct fuse_in_header *header = &req->tr.in.header;

	return header->uid == 0 || header->uid == config->resuid ||
	       (config->resgid && header->gid == config->resgid);
}

void ops_cred(struct ops_req *req, uint32_t umask, struct ext4_credentials *credentials)
{
	const struct message_in *in = &req->tr.in;

	*credentials = (struct ext4_credentials){
		.uid = in->header.uid,
		.gid = in->header.gid,
		.umask = umask & 07777,
		.cap_fsetid = in->header.uid == 0,
		.root = ops_may_use_reserved(req),
		.groups = in->groups,
		.nr_groups = in->nr_groups,
	};
}

/*
 * The supplementary groups are told only with requests that create. Otherwise somebody asks the
 * kernel: rarely, for files with the setgid bit and no group execution. What cannot be found out
 * counts as not a member, which takes the bit away.
 */
static bool in_group(const struct ops_req *req, uint32_t gid)
{
	const struct ops_config *config = &req->ops->config;
	const struct fuse_in_header *header = &req->tr.in.header;

	if (header->uid == 0 || header->gid == gid)
		return true;
	if (nowait_on()) {
		nowait_miss();
		return false;
	}
	return config->in_group && header->pid && config->in_group(config->arg, header->pid, gid);
}

bool ops_capable(const struct ops_req *req, unsigned cap)
{
	const struct ops_config *config = &req->ops->config;
	const struct fuse_in_header *header = &req->tr.in.header;

	return config->capable && config->capable(config->arg, header->pid, header->uid, cap);
}

unsigned ops_kill_what(const struct ops_req *req, struct ext4_inode *inode)
{
	struct ext4_attr attr;

	ext4_getattr(inode, &attr);
	if (!(attr.mode & S_ISGID) || (attr.mode & S_IXGRP) || in_group(req, attr.gid))
		return EXT4_KILL_SUIDGID;
	return EXT4_KILL_SUIDGID | EXT4_KILL_SGID;
}

unsigned ops_kill_sgid(const struct dio_req *req)
{
	return ops_kill_what(container_of(req, struct ops_req, dio), dio_file_inode(req->file)) &
	       EXT4_KILL_SGID;
}
