/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes, POSIX ACLs among them (system.posix_acl_*): reading is OPS_TRY, changes are
 * for workers. Permission to use a namespace was checked by the kernel; what the volume does not
 * offer (noacl, nouser_xattr) is ext4's EOPNOTSUPP, and what immutable and append-only files refuse
 * its EPERM.
 */
#include "ops/types.h"

#define NAME_CAP 256u

void ops_setxattr(struct ops_req *req)
{
	const struct fuse_setxattr_in *in = ops_arg(req);
	const struct message_in *p = &req->tr.in;
	uint64_t since = ext4_evictions(req->ops->vol);
	unsigned how = ops_may_use_reserved(req) ? EXT4_XATTR_ROOT : 0;
	struct ext4_inode *inode;
	int err = p->name_len > EXT4_NAME_MAX ? -ERANGE
					      : ops_iget(req->ops, p->header.nodeid, &inode);

	if (in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID)
		how |= EXT4_XATTR_KILL_SGID;
	if (!err) {
		do {
			err = ext4_xattr_set(inode, p->name, p->data, p->data_len, (int)in->flags,
					     how);
		} while (ext4_space_has_come(req->ops->vol, err, &since));
		err = ops_inode_durable(req->ops, inode, err);
		ext4_inode_put(inode);
	}
	ops_reply_err(req, err);
}

void ops_removexattr(struct ops_req *req)
{
	const struct message_in *in = &req->tr.in;
	struct ext4_inode *inode;
	int err = in->name_len > EXT4_NAME_MAX ? -ERANGE
					       : ops_iget(req->ops, in->header.nodeid, &inode);

	if (!err) {
		err = ext4_xattr_remove(inode, in->name);
		err = ops_inode_durable(req->ops, inode, err);
		ext4_inode_put(inode);
	}
	ops_reply_err(req, err);
}

/* size 0 asks for the length; otherwise the value is in the payload. */
static void reply_value(struct ops_req *req, int err, uint32_t asked, size_t len)
{
	struct fuse_getxattr_out out = { .size = (uint32_t)len };

	if (err)
		ops_reply_err(req, err);
	else if (!asked)
		ops_reply_data(req, &out, sizeof(out));
	else
		ops_reply(req, 0, (uint32_t)len);
}

void ops_getxattr(struct ops_req *req)
{
	const struct fuse_getxattr_in *in = ops_arg(req);
	const struct message_in *p = &req->tr.in;
	uint32_t size = FDIO_MIN(in->size, req->tr.payload_cap);
	struct ext4_inode *inode;
	char name[NAME_CAP];
	size_t len = 0;
	int err;

	if (p->name_len >= sizeof(name)) {
		ops_reply_err(req, -ERANGE);
		return;
	}
	memcpy(name, p->name, p->name_len); /* the value goes where the name is */
	name[p->name_len] = '\0';
	err = ops_iget(req->ops, p->header.nodeid, &inode);
	if (!err) {
		err = ext4_xattr_get(inode, name, size ? req->tr.payload : NULL, size, &len);
		ext4_inode_put(inode);
		if (nowait_missed()) /* the worker that does it again finds its name where it was */
			memcpy((char *)(uintptr_t)p->name, name, p->name_len + 1);
	}
	reply_value(req, err, size, len);
}

void ops_listxattr(struct ops_req *req)
{
	const struct fuse_getxattr_in *in = ops_arg(req);
	uint32_t size = FDIO_MIN(in->size, req->tr.payload_cap);
	struct ext4_inode *inode;
	size_t len = 0;
	int err = ops_iget(req->ops, req->tr.in.header.nodeid, &inode);

	if (!err) {
		err = ext4_xattr_list(inode, req->tr.in.header.uid == 0,
				      size ? (char *)req->tr.payload : NULL, size, &len);
		ext4_inode_put(inode);
	}
	reply_value(req, err, size, len);
}
