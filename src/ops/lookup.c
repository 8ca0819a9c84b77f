/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LOOKUP. Loop threads try it (OPS_TRY), workers do the rest; no lock is held here. Fails with
 * ENAMETOOLONG, ENOTDIR, ESTALE, and what reading the directory says. That a name does not exist is
 * no error: the answer is an entry without an inode, which the kernel caches.
 */
#include "ops/types.h"

static void reply_lookup(struct ops_req *req, int err, struct ext4_inode *inode)
{
	struct fuse_entry_out none = { .entry_valid = OPS_VALID_S };

	if (err == -ENOENT)
		ops_reply_data(req, &none, sizeof(none));
	else
		ops_reply_entry(req, err, inode);
}

static int lookup(struct ops_req *req, struct ext4_inode *dir, struct ext4_inode **ret)
{
	const struct message_in *message = &req->fuse.in;
	bool dots = ext4_name_is_dots(message->name, message->name_len);
	int err;

	/*
	 * The kernel looks up "." and ".." for file handles (open_by_handle_at, an NFS server), and
	 * "." for files that are no directories, too.
	 */
	if (dots && message->name_len == 1) {
		*ret = ext4_inode_ref(dir);
		return 0;
	}
	if (!S_ISDIR(ext4_inode_mode(dir)))
		return -ENOTDIR;
	err = dots ? ext4_lookup_parent(dir, ret)
		   : ext4_lookup(dir, message->name, message->name_len, ret);
	if (!err && (ext4_inode_flags(*ret) & OPS_FL_EA_INODE)) {
		ext4_inode_put(*ret);
		err = -ESTALE;
	}
	return err;
}

void ops_lookup(struct ops_req *req)
{
	const struct message_in *message = &req->fuse.in;
	struct ext4_inode *dir, *inode = NULL;
	bool parent = message->name_len == 2 && ext4_name_is_dots(message->name, 2);
	int err = -ENAMETOOLONG;

	if (message->name_len <= EXT4_NAME_MAX)
		err = ops_inode_get(req->ops, message->header.nodeid, &dir);
	if (err) {
		ops_reply_err(req, err);
		return;
	}
	err = lookup(req, dir, &inode);
	if (parent) /* a missing parent is an error, not a name to cache */
		ops_reply_entry(req, err, inode);
	else
		reply_lookup(req, err, inode);
	ext4_inode_put(dir);
}
