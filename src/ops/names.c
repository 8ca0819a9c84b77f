/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names: MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME, RENAME2, READLINK. Loop threads try
 * them (OPS_TRY), workers do the rest; no lock is held here. The kernel has checked permissions and
 * has locked the directories; src/ext4 checks the immutable and append-only flags under its own
 * lock. Where changes of names are synchronous (durable.c), they are durable before the answer.
 * Fails with ENAMETOOLONG, ENOTDIR, EINVAL, and with what src/ext4 says.
 */
#include "ops/types.h"

#include <linux/fs.h>
#include <stdlib.h>

/*
 * Finds the directory of the request, in which a name will change; the caller gets a reference. The
 * length of the name is checked. Misses on a loop thread if the change is synchronous.
 */
static int get_directory(struct ops_req *req, struct ext4_inode **ret_dir)
{
	const struct message_in *message = &req->fuse.in;
	int err;

	if (message->name_len > EXT4_NAME_MAX)
		return -ENAMETOOLONG;
	err = ops_inode_get(req->ops, message->header.nodeid, ret_dir);
	if (err)
		return err;
	if (S_ISDIR(ext4_inode_mode(*ret_dir)))
		err = ops_miss_if_sync(req->ops, *ret_dir);
	else
		err = -ENOTDIR;
	if (err)
		ext4_inode_put(*ret_dir);
	return err;
}

/*
 * The end of all operations that add a name: waits until the change is durable if it is
 * synchronous, and answers with err or the entry. Drops the reference of dir. That of inode (or
 * NULL) becomes the kernel's, or is dropped after an error.
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
	const struct message_in *message = &req->fuse.in;
	struct ext4_inode *dir, *inode = NULL;
	struct ext4_credentials credentials;
	uint64_t since = ext4_evictions(req->ops->vol);
	int err = get_directory(req, &dir);

	if (!err && (err = ops_credentials(req, umask, &credentials)))
		ext4_inode_put(dir);
	if (err) {
		ops_reply_err(req, err);
		return;
	}
	do {
		err = ext4_create(dir, message->name, message->name_len, mode, rdev, &credentials,
				  &inode);
	} while (ops_space_again(req, err, &since, &credentials.root));
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
	const struct message_in *message = &req->fuse.in;
	struct ext4_inode *dir, *inode = NULL;
	struct ext4_credentials credentials;
	uint64_t since = ext4_evictions(req->ops->vol);
	int err = get_directory(req, &dir);

	if (!err && (err = ops_credentials(req, 0, &credentials)))
		ext4_inode_put(dir);
	if (err) {
		ops_reply_err(req, err);
		return;
	}
	do {
		err = ext4_symlink(dir, message->name, message->name_len, message->name2,
				   message->name2_len, &credentials, &inode);
	} while (ops_space_again(req, err, &since, &credentials.root));
	reply_added(req, dir, err, inode);
}

void ops_link(struct ops_req *req)
{
	const struct fuse_link_in *in = ops_arg(req);
	const struct message_in *message = &req->fuse.in;
	struct ext4_inode *dir, *inode;
	uint64_t since = ext4_evictions(req->ops->vol);
	bool root = ops_may_use_reserved(req);
	int err = get_directory(req, &dir);

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	err = ops_inode_get(req->ops, in->oldnodeid, &inode);
	if (err) {
		ops_reply_err(req, err);
		ext4_inode_put(dir);
		return;
	}
	do {
		err = ext4_link(dir, message->name, message->name_len, inode,
				root);
	} while (ops_space_again(req, err, &since, &root));
	reply_added(req, dir, err, inode);
}

static void remove_name(struct ops_req *req,
			int (*remove)(struct ext4_inode *dir, const char *name, unsigned len))
{
	const struct message_in *message = &req->fuse.in;
	struct ext4_inode *dir;
	int err = get_directory(req, &dir);

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	err = remove(dir, message->name, message->name_len);
	err = ops_dir_durable(req->ops, dir, err);
	ops_reply_err(req, err);
	ext4_inode_put(dir);
}

void ops_unlink(struct ops_req *req) { remove_name(req, ext4_unlink); }
void ops_rmdir(struct ops_req *req) { remove_name(req, ext4_rmdir); }

/* The change itself; the caller makes it durable if it is synchronous. */
static int rename_entry(struct ops_req *req, struct ext4_inode *old_dir,
			 struct ext4_inode *new_dir, uint32_t flags)
{
	const struct message_in *message = &req->fuse.in;
	uint64_t since = ext4_evictions(req->ops->vol);
	struct ext4_credentials credentials;
	int err;

	err = ops_credentials(req, 0, &credentials);
	if (err && (flags & RENAME_WHITEOUT))
		return err;
	err = S_ISDIR(ext4_inode_mode(new_dir)) ? ops_rename_into_allowed(new_dir) : -ENOTDIR;
	if (!err)
		err = ops_miss_if_sync(req->ops, new_dir);
	if (err)
		return err;
	do {
		err = ext4_rename(old_dir, message->name, message->name_len, new_dir,
				  message->name2, message->name2_len, flags, &credentials);
	} while (ops_space_again(req, err, &since, &credentials.root));
	return err;
}

static void rename_common(struct ops_req *req, uint64_t new_nodeid, uint32_t flags)
{
	struct ext4_inode *old_dir, *new_dir;
	int err;

	if (flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) {
		ops_reply_err(req, -EINVAL);
		return;
	}
	err = req->fuse.in.name2_len > EXT4_NAME_MAX ? -ENAMETOOLONG
						     : get_directory(req, &old_dir);
	if (err) {
		ops_reply_err(req, err);
		return;
	}
	err = ops_inode_get(req->ops, new_nodeid, &new_dir);
	if (err)
		goto out;
	err = rename_entry(req, old_dir, new_dir, flags);
	err = ops_dir_durable(req->ops, old_dir, err);
	err = ops_dir_durable(req->ops, new_dir, err);
	ext4_inode_put(new_dir);
out:
	ops_reply_err(req, err);
	ext4_inode_put(old_dir);
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
	int err = ops_inode_get(req->ops, req->fuse.in.header.nodeid, &inode);

	if (!err) {
		if (S_ISLNK(ext4_inode_mode(inode)))
			err = ext4_readlink(inode, (char *)req->fuse.payload,
					    req->fuse.payload_cap, &len);
		else
			err = -EINVAL;
		if (!err)
			ext4_touch_read(inode);
		ext4_inode_put(inode);
	}
	ops_reply(req, err, err ? 0 : len);
}
