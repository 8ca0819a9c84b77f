/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The requester: the credentials of a request, and what they permit. What FUSE does not pass is
 * asked for with the callbacks ids, in_group and capable of ops_config, which may block for a
 * moment: on workers only; a loop thread misses. What cannot be found out counts as not permitted.
 * No locks.
 *
 * FUSE never passes capabilities, and supplementary groups only with requests that create. If the
 * mount may be idmapped, it does not pass user and group either: a request that creates has the IDs
 * that the new inode gets, which the idmap of the mount may have changed, so 0 does not mean root;
 * all others have MESSAGE_UNKNOWN_ID.
 */
#include "ops/types.h"

static bool may_be_idmapped(const struct ops *ops)
{
	return ops->transport && (transport_conn(ops->transport)->flags & MESSAGE_ALLOW_IDMAP);
}

/* Whether user and group in the header are the requester's. */
static bool are_known(const struct ops_req *req)
{
	return req->fuse.in.header.uid != MESSAGE_UNKNOWN_ID &&
	       !((req->handler->flags & OPS_CREATES) && may_be_idmapped(req->ops));
}

/*
 * Workers, OPS_TRY: there it misses. False: the requester's IDs, which the request does not say,
 * cannot be found out.
 */
static bool find_ids(const struct ops_req *req, uint32_t *uid, uint32_t *gid)
{
	const struct ops_config *config = &req->ops->config;
	uint32_t pid = req->fuse.in.header.pid;

	if (nowait_on()) {
		nowait_miss();
		return false;
	}
	return config->ids && pid && config->ids(config->arg, pid, uid, gid);
}

bool ops_is_root(const struct ops_req *req)
{
	uint32_t uid, gid;

	if (are_known(req))
		return req->fuse.in.header.uid == 0;
	return find_ids(req, &uid, &gid) && uid == 0;
}

/* Supplementary groups do not count, because FUSE does not pass them. */
static bool reserved_for(const struct ops_config *config, uint32_t uid, uint32_t gid)
{
	return uid == 0 || uid == config->resuid || (config->resgid && gid == config->resgid);
}

bool ops_may_use_reserved(const struct ops_req *req)
{
	const struct fuse_in_header *header = &req->fuse.in.header;

	return are_known(req) && reserved_for(&req->ops->config, header->uid, header->gid);
}

static bool unknown_may_use_reserved(const struct ops_req *req)
{
	uint32_t uid, gid;

	return !are_known(req) && find_ids(req, &uid, &gid) &&
	       reserved_for(&req->ops->config, uid, gid);
}

bool ops_space_again(const struct ops_req *req, int err, uint64_t *since, bool *root)
{
	if (err == -ENOSPC && !*root && unknown_may_use_reserved(req)) {
		*root = true;
		return true;
	}
	return ext4_space_has_come(req->ops->vol, err, since);
}

bool ops_writer_may_use_reserved(const struct dio_req *req)
{
	return unknown_may_use_reserved(container_of(req, struct ops_req, dio));
}

int ops_credentials(struct ops_req *req, uint32_t umask, struct ext4_credentials *credentials)
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
	return in->header.uid == MESSAGE_UNKNOWN_ID || in->header.gid == MESSAGE_UNKNOWN_ID
		       ? -EOVERFLOW : 0;
}

/*
 * True if the requester is a member of the group gid, or root. That is rarely necessary: only for
 * files with the setgid bit but without group execute permission. If membership cannot be proved,
 * the file loses the bit. If the mount is idmapped, gid is compared as it is on the disk.
 */
static bool in_group(const struct ops_req *req, uint32_t gid)
{
	const struct ops_config *config = &req->ops->config;
	const struct fuse_in_header *header = &req->fuse.in.header;
	uint32_t own_uid, own_gid;

	if (are_known(req) && (header->uid == 0 || header->gid == gid))
		return true;
	if (nowait_on()) {
		nowait_miss();
		return false;
	}
	if (!are_known(req) && find_ids(req, &own_uid, &own_gid) &&
	    (own_uid == 0 || own_gid == gid))
		return true;
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
