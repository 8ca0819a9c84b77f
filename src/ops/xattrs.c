/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes, POSIX ACLs among them (system.posix_acl_*). Loop threads try to read them
 * (OPS_TRY), workers do the rest and all changes; no lock is held here. The kernel has checked that
 * the requester may use the namespace. Fails with ERANGE, and with what src/ext4 says: EOPNOTSUPP
 * with the mount options noacl and nouser_xattr, EPERM for immutable and append-only files.
 */
#include "ops/types.h"

#define NAME_CAP 256u

void ops_setxattr(struct ops_req *req)
{
	const struct fuse_setxattr_in *in = ops_arg(req);
	const struct message_in *message = &req->fuse.in;
	uint64_t since = ext4_evictions(req->ops->vol);
	bool root = ops_may_use_reserved(req);
	unsigned how = 0;
	struct ext4_inode *inode;
	int err = -ERANGE;

	if (message->name_len <= EXT4_NAME_MAX)
		err = ops_inode_get(req->ops, message->header.nodeid, &inode);
	if (in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID)
		how |= EXT4_XATTR_KILL_SGID;
	if (!err) {
		do {
			err = ext4_xattr_set(inode, message->name, message->data,
					     message->data_len, (int)in->flags,
					     how | (root ? EXT4_XATTR_ROOT : 0));
		} while (ops_space_again(req, err, &since, &root));
		err = ops_inode_durable(req->ops, inode, err);
		ext4_inode_put(inode);
	}
	ops_reply_err(req, err);
}

void ops_removexattr(struct ops_req *req)
{
	const struct message_in *message = &req->fuse.in;
	struct ext4_inode *inode;
	int err = -ERANGE;

	if (message->name_len <= EXT4_NAME_MAX)
		err = ops_inode_get(req->ops, message->header.nodeid, &inode);
	if (!err) {
		err = ext4_xattr_remove(inode, message->name);
		err = ops_inode_durable(req->ops, inode, err);
		ext4_inode_put(inode);
	}
	ops_reply_err(req, err);
}

/*
 * Answers with err; or, if room is 0, with the length len, which the requester asks for; or with
 * the value, len bytes in the payload.
 */
static void reply_value(struct ops_req *req, int err, uint32_t room, size_t len)
{
	struct fuse_getxattr_out out = { .size = (uint32_t)len };

	if (err)
		ops_reply_err(req, err);
	else if (!room)
		ops_reply_data(req, &out, sizeof(out));
	else
		ops_reply(req, 0, (uint32_t)len);
}

void ops_getxattr(struct ops_req *req)
{
	const struct fuse_getxattr_in *in = ops_arg(req);
	const struct message_in *message = &req->fuse.in;
	uint32_t size = FDIO_MIN(in->size, req->fuse.payload_cap);
	struct ext4_inode *inode;
	char name[NAME_CAP];
	size_t len = 0;
	int err;

	if (message->name_len >= sizeof(name)) {
		ops_reply_err(req, -ERANGE);
		return;
	}
	/* The name is in the payload, where the value goes. */
	memcpy(name, message->name, message->name_len);
	name[message->name_len] = '\0';
	err = ops_inode_get(req->ops, message->header.nodeid, &inode);
	if (!err) {
		err = ext4_xattr_get(inode, name, size ? req->fuse.payload : NULL, size, &len);
		ext4_inode_put(inode);
		/* After a miss a worker runs this handler again, and needs the name. */
		if (nowait_missed())
			memcpy((char *)(uintptr_t)message->name, name, message->name_len + 1);
	}
	reply_value(req, err, size, len);
}

/* Whether the list shows trusted attributes, which only root sees. Workers, OPS_TRY. */
static bool sees_trusted(const struct ops_req *req, struct ext4_inode *inode)
{
	size_t len = 0, with_trusted = 0;

	/* Most inodes have none, and to find out who the requester is may need a worker. */
	if (ext4_xattr_list(inode, true, NULL, 0, &with_trusted) ||
	    ext4_xattr_list(inode, false, NULL, 0, &len) || len == with_trusted)
		return false;
	return ops_is_root(req);
}

void ops_listxattr(struct ops_req *req)
{
	const struct fuse_getxattr_in *in = ops_arg(req);
	uint32_t size = FDIO_MIN(in->size, req->fuse.payload_cap);
	struct ext4_inode *inode;
	size_t len = 0;
	int err = ops_inode_get(req->ops, req->fuse.in.header.nodeid, &inode);

	if (!err) {
		err = ext4_xattr_list(inode, sees_trusted(req, inode),
				      size ? (char *)req->fuse.payload : NULL, size, &len);
		ext4_inode_put(inode);
	}
	reply_value(req, err, size, len);
}
