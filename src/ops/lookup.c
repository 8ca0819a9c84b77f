/* SPDX-License-Identifier: GPL-2.0-or-later */
/* LOOKUP: OPS_TRY. A name that does not exist is an answer, which the kernel keeps. */
#include "ops/types.h"

static void reply_lookup(struct ops_req *req, int err, struct ext4_inode *inode)
{
	struct fuse_entry_out none = { .entry_valid = OPS_VALID_S };

	if (err == -ENOENT)
		/* the kernel remembers that there is no such name */
		ops_reply_data(req, &none, sizeof(none));
	else
		ops_reply_entry(req, err, inode);
}

static int lookup(struct ops_req *req, struct ext4_inode *dir, struct ext4_inode **ret)
{
	const struct message_in *in = &req->tr.in;
	bool dots = ext4_name_is_dots(in->name, in->name_len);
	int err;

	/*
	 * "." and ".." come from open_by_handle_at and name_to_handle_at users such as an NFS
	 * server; "." of any file.
	 */
	if (dots && in->name_len == 1) {
		*ret = ext4_inode_ref(dir);
		return 0;
	}
	if (!S_ISDIR(ext4_inode_mode(dir)))
		return -ENOTDIR;
	err = dots ? ext4_lookup_parent(dir, ret)
		   : ext4_lookup(dir, in->name, in->name_len, ret);
	if (!err && (ext4_inode_flags(*ret) & OPS_FL_EA_INODE)) {
		ext4_inode_put(*ret);
		err = -ESTALE;
	}
	return err;
}

void ops_lookup(struct ops_req *req)
{
	const struct message_in *in = &req->tr.in;
	struct ext4_inode *dir, *inode = NULL;
	bool parent = in->name_len == 2 && ext4_name_is_dots(in->name, 2);
	int err = in->name_len > EXT4_NAME_MAX ? -ENAMETOOLONG
					       : ops_iget(req->ops, in->header.nodeid, &dir);

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	err = lookup(req, dir, &inode);
	if (parent)
		ops_reply_entry(req, err, inode);
	else
		reply_lookup(req, err, inode);
	ext4_inode_put(dir);
}
