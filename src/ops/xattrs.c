/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes, POSIX ACLs among them (system.posix_acl_*): reading is OPS_TRY, changes are
 * for workers. Permission to use a namespace was checked by the kernel; what the volume does not
 * offer (noacl, nouser_xattr) is ext4's EOPNOTSUPP, and what immutable and append-only files refuse
 * its EPERM.
 */
#include "ops/types.h"

#define NAME_CAP 256u

void ops_setxattr(struct ops_req *q)
{
	const struct fuse_setxattr_in *in = ops_arg(q);
	const struct pro_in *p = &q->tr.in;
	uint64_t since = x4_evictions(q->ops->vol);
	unsigned how = ops_may_use_reserved(q) ? X4_XATTR_ROOT : 0;
	struct x4_inode *i;
	int err = p->name_len > X4_NAME_MAX ? -ERANGE : ops_iget(q->ops, p->h.nodeid, &i);

	if (in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID)
		how |= X4_XATTR_KILL_SGID;
	if (!err) {
		do {
			err = x4_xattr_set(i, p->name, p->data, p->data_len, (int)in->flags, how);
		} while (err == -ENOSPC && x4_eviction_since(q->ops->vol, &since));
		err = ops_inode_durable(q->ops, i, err);
		x4_iput(i);
	}
	ops_reply_err(q, err);
}

void ops_removexattr(struct ops_req *q)
{
	const struct pro_in *p = &q->tr.in;
	struct x4_inode *i;
	int err = p->name_len > X4_NAME_MAX ? -ERANGE : ops_iget(q->ops, p->h.nodeid, &i);

	if (!err) {
		err = x4_xattr_remove(i, p->name);
		err = ops_inode_durable(q->ops, i, err);
		x4_iput(i);
	}
	ops_reply_err(q, err);
}

/* size 0 asks for the length; otherwise the value is in the payload. */
static void reply_value(struct ops_req *q, int err, uint32_t asked, size_t len)
{
	struct fuse_getxattr_out out = { .size = (uint32_t)len };

	if (err)
		ops_reply_err(q, err);
	else if (!asked)
		ops_reply_data(q, &out, sizeof(out));
	else
		ops_reply(q, 0, (uint32_t)len);
}

void ops_getxattr(struct ops_req *q)
{
	const struct fuse_getxattr_in *in = ops_arg(q);
	const struct pro_in *p = &q->tr.in;
	uint32_t size = FDIO_MIN(in->size, q->tr.payload_cap);
	struct x4_inode *i;
	char name[NAME_CAP];
	size_t len = 0;
	int err;

	if (p->name_len >= sizeof(name)) {
		ops_reply_err(q, -ERANGE);
		return;
	}
	memcpy(name, p->name, p->name_len); /* the value goes where the name is */
	name[p->name_len] = '\0';
	err = ops_iget(q->ops, p->h.nodeid, &i);
	if (!err) {
		err = x4_xattr_get(i, name, size ? q->tr.payload : NULL, size, &len);
		x4_iput(i);
		if (nowait_missed()) /* the worker that does it again finds its name where it was */
			memcpy((char *)(uintptr_t)p->name, name, p->name_len + 1);
	}
	reply_value(q, err, size, len);
}

void ops_listxattr(struct ops_req *q)
{
	const struct fuse_getxattr_in *in = ops_arg(q);
	uint32_t size = FDIO_MIN(in->size, q->tr.payload_cap);
	struct x4_inode *i;
	size_t len = 0;
	int err = ops_iget(q->ops, q->tr.in.h.nodeid, &i);

	if (!err) {
		err = x4_xattr_list(i, q->tr.in.h.uid == 0, size ? (char *)q->tr.payload : NULL,
				    size, &len);
		x4_iput(i);
	}
	reply_value(q, err, size, len);
}
