/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The requester: the credentials of a request, and what they permit. For groups and
 * capabilities, which FUSE does not pass, it calls ops_config.in_group and .capable, which may
 * block for a moment: on workers only; a loop thread misses. What cannot be found out counts as not
 * permitted. No locks.
 */
#include "ops/types.h"

/* Supplementary groups do not count, because FUSE does not pass them. */
bool ops_may_use_reserved(const struct ops_req *req)
{
	const struct ops_config *config = &req->ops->config;
	const struct fuse_in_header *header = &req->fuse.in.header;

	return header->uid == 0 || header->uid == config->resuid ||
	       (config->resgid && header->gid == config->resgid);
}

void ops_credentials(struct ops_req *req, uint32_t umask, struct ext4_credentials *credentials)
{
	const struct message_in *in = &req->fuse.in;

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
 * True if the requester is a member of the group gid. FUSE passes supplementary groups only with
 * requests that create, so this asks config->in_group. That is rarely necessary: only for files
 * with the setgid bit but without group execute permission. If membership cannot be proved, the
 * file loses the bit.
 */
static bool in_group(const struct ops_req *req, uint32_t gid)
{
	const struct ops_config *config = &req->ops->config;
	const struct fuse_in_header *header = &req->fuse.in.header;

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
	const struct fuse_in_header *header = &req->fuse.in.header;

	return config->capable && config->capable(config->arg, header->pid, header->uid, cap);
}

unsigned ops_kill_flags(const struct ops_req *req, struct ext4_inode *inode)
{
	struct ext4_attr attr;

	ext4_getattr(inode, &attr);
	if (!(attr.mode & S_ISGID) || (attr.mode & S_IXGRP) || in_group(req, attr.gid))
		return EXT4_KILL_SUIDGID;
	return EXT4_KILL_SUIDGID | EXT4_KILL_SGID;
}

unsigned ops_kill_sgid(const struct dio_req *req)
{
	return ops_kill_flags(container_of(req, struct ops_req, dio), dio_file_inode(req->file)) &
	       EXT4_KILL_SGID;
}
