/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who asks: the credentials of a request, and what they permit. Workers and OPS_TRY; ops_capable
 * workers only, because finding out a capability may block for a moment. What cannot be found out
 * counts as not permitted.
 */
#include "ops/types.h"

/* FUSE does not tell who is a supplementary member of the group. */
bool ops_may_use_reserved(const struct ops_req *q)
{
	const struct ops_config *c = &q->ops->cfg;
	const struct fuse_in_header *h = &q->tr.in.h;

	return h->uid == 0 || h->uid == c->resuid || (c->resgid && h->gid == c->resgid);
}

void ops_cred(struct ops_req *q, uint32_t umask, struct x4_cred *c)
{
	const struct pro_in *in = &q->tr.in;

	*c = (struct x4_cred){
		.uid = in->h.uid,
		.gid = in->h.gid,
		.umask = umask & 07777,
		.cap_fsetid = in->h.uid == 0,
		.root = ops_may_use_reserved(q),
		.groups = in->groups,
		.nr_groups = in->nr_groups,
	};
}

/*
 * The supplementary groups are told only with requests that create. Otherwise somebody asks the
 * kernel: rarely, for files with the setgid bit and no group execution. What cannot be found out
 * counts as not a member, which takes the bit away.
 */
static bool in_group(const struct ops_req *q, uint32_t gid)
{
	const struct ops_config *c = &q->ops->cfg;
	const struct fuse_in_header *h = &q->tr.in.h;

	if (h->uid == 0 || h->gid == gid)
		return true;
	if (nowait_on()) {
		nowait_miss();
		return false;
	}
	return c->in_group && h->pid && c->in_group(c->arg, h->pid, gid);
}

bool ops_capable(const struct ops_req *q, unsigned cap)
{
	const struct ops_config *c = &q->ops->cfg;
	const struct fuse_in_header *h = &q->tr.in.h;

	return c->capable && c->capable(c->arg, h->pid, h->uid, cap);
}

unsigned ops_kill_what(const struct ops_req *q, struct x4_inode *i)
{
	struct x4_attr a;

	x4_getattr(i, &a);
	if (!(a.mode & S_ISGID) || (a.mode & S_IXGRP) || in_group(q, a.gid))
		return X4_KILL_SUIDGID;
	return X4_KILL_SUIDGID | X4_KILL_SGID;
}

unsigned ops_kill_sgid(const struct dio_req *r)
{
	return ops_kill_what(container_of(r, struct ops_req, dio), dio_file_inode(r->file)) &
	       X4_KILL_SGID;
}
