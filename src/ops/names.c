/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names: MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME, RENAME2, READLINK: OPS_TRY. The kernel
 * has checked permissions and holds the directories; ext4 checks the immutable and append-only
 * flags under its lock. Where names are synchronous (durable.c) the answer waits until the change
 * is durable.
 */
#include "ops/types.h"

#include <linux/fs.h>
#include <stdlib.h>

/* The directory of the request and its name, checked. */
static int start(struct ops_req *req, struct ext4_inode **ret_dir)
{
	const struct message_in *in = &req->tr.in;
	int err;

	if (in->name_len > EXT4_NAME_MAX)
		return -ENAMETOOLONG;
	err = ops_iget(req->ops, in->header.nodeid, ret_dir);
	if (err)
		return err;
	if (!S_ISDIR(ext4_inode_mode(*ret_dir)))
		err = -ENOTDIR;
	else
		err = ops_may_change(req->ops, *ret_dir);
	if (err)
		ext4_inode_put(*ret_dir);
	return err;
}

/*
 * The end of all operations that add a name: waits until the change is durable where names are
 * synchronous, and answers with the entry. Drops the reference of dir; that of inode (NULL if there
 * is none) goes to the kernel, or is dropped after an error.
 */
static void reply_added(struct ops_req *req, struct ext4_inode *dir, int err,
		      struct ext4_inode *inode)
{
	err = ops_dir_durable(req->ops, dir, err);
	if (err)
		ext4_inode_put(inode);
	ops_reply_entry(req, err, inode);
	ext4_inode_put(dir);
}

static void create_node(struct ops_req *req, uint32_t mode, uint32_t rdev, uint32_t umask)
{
	const struct message_in *in = &req->tr.in;
	struct ext4_inode *dir, *inode = NULL;
	struct ext4_credentials credentials;
	uint64_t since = ext4_evictions(req->ops->vol);
	int err = start(req, &dir);

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	ops_cred(req, umask, &credentials);
	do {
		err = ext4_create(dir, in->name, in->name_len, mode, rdev, &credentials, &inode);
	} while (ext4_space_has_come(req->ops->vol, err, &since));
	reply_added(req, dir, err, inode);
}

void ops_mknod(struct ops_req *req)
{
	const struct fuse_mknod_in *in = ops_arg(req);
	uint32_t type = in->mode & S_IFMT;

	if (type && type != S_IFREG && type != S_IFCHR && type != S_IFBLK && type != S_IFIFO &&
	    type != S_IFSOCK)
		ops_reply_err(req, -EINVAL);
	else
		create_node(req, (in->mode & 07777) | (type ? type : S_IFREG), in->rdev, in->umask);
}

void ops_mkdir(struct ops_req *req)
{
	const struct fuse_mkdir_in *in = ops_arg(req);

	create_node(req, (in->mode & 07777) | S_IFDIR, 0, in->umask);
}

void ops_symlink(struct ops_req *req)
{
	const struct message_in *in = &req->tr.in;
	struct ext4_inode *dir, *inode = NULL;
	struct ext4_credentials credentials;
	uint64_t since = ext4_evictions(req->ops->vol);
	int err = start(req, &dir);

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	ops_cred(req, 0, &credentials);
	do {
		err = ext4_symlink(dir, in->name, in->name_len, in->name2, in->name2_len,
				   &credentials, &inode);
	} while (ext4_space_has_come(req->ops->vol, err, &since));
	reply_added(req, dir, err, inode);
}

void ops_link(struct ops_req *req)
{
	const struct fuse_link_in *l = ops_arg(req);
	const struct message_in *in = &req->tr.in;
	struct ext4_inode *dir, *inode;
	uint64_t since = ext4_evictions(req->ops->vol);
	int err = start(req, &dir);

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	err = ops_iget(req->ops, l->oldnodeid, &inode);
	if (err) {
		ops_reply_err(req, err);
		ext4_inode_put(dir);
		return;
	}
	do {
		err = ext4_link(dir, in->name, in->name_len, inode, ops_may_use_reserved(req));
	} while (ext4_space_has_come(req->ops->vol, err, &since));
	reply_added(req, dir, err, inode);
}

static void remove_name(struct ops_req *req,
			int (*fn)(struct ext4_inode *dir, const char *name, unsigned len))
{
	const struct message_in *in = &req->tr.in;
	struct ext4_inode *dir;
	int err = start(req, &dir);

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	err = fn(dir, in->name, in->name_len);
	err = ops_dir_durable(req->ops, dir, err);
	ops_reply_err(req, err);
	ext4_inode_put(dir);
}

void ops_unlink(struct ops_req *req) { remove_name(req, ext4_unlink); }
void ops_rmdir(struct ops_req *req) { remove_name(req, ext4_rmdir); }

static void rename_common(struct ops_req *req, uint64_t newdir, uint32_t flags)
{
	const struct message_in *in = &req->tr.in;
	struct ext4_inode *odir, *ndir;
	uint64_t since = ext4_evictions(req->ops->vol);
	struct ext4_credentials credentials;
	int err;

	if (flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) {
		ops_reply_err(req, -EINVAL);
		return;
	}
	err = in->name2_len > EXT4_NAME_MAX ? -ENAMETOOLONG : start(req, &odir);
	if (err) {
		ops_reply_err(req, err);
		return;
	}
	err = ops_iget(req->ops, newdir, &ndir);
	if (err)
		goto out;
	ops_cred(req, 0, &credentials);
	err = S_ISDIR(ext4_inode_mode(ndir)) ? ops_rename_into_allowed(ndir) : -ENOTDIR;
	if (!err)
		err = ops_may_change(req->ops, ndir);
	if (!err) {
		do {
			err = ext4_rename(odir, in->name, in->name_len, ndir, in->name2,
					in->name2_len, flags, &credentials);
		} while (ext4_space_has_come(req->ops->vol, err, &since));
	}
	err = ops_dir_durable(req->ops, odir, err);
	err = ops_dir_durable(req->ops, ndir, err);
	ext4_inode_put(ndir);
out:
	ops_reply_err(req, err);
	ext4_inode_put(odir);
}

void ops_rename(struct ops_req *req)
{
	const struct fuse_rename_in *in = ops_arg(req);

	rename_common(req, in->newdir, 0);
}

void ops_rename2(struct ops_req *req)
{
	const struct fuse_rename2_in *in = ops_arg(req);

	rename_common(req, in->newdir, in->flags);
}

void ops_readlink(struct ops_req *req)
{
	struct ext4_inode *inode;
	unsigned len = 0;
	int err = ops_iget(req->ops, req->tr.in.header.nodeid, &inode);

	if (!err) {
		err = S_ISLNK(ext4_inode_mode(inode))
				      ? ext4_readlink(inode, (char *)req->tr.payload,
						      req->tr.payload_cap, &len)
				      : -EINVAL;
		if (!err)
			ext4_touch_read(inode);
		ext4_inode_put(inode);
	}
	ops_reply(req, err, err ? 0 : len);
}
