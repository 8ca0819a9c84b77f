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
static int start(struct ops_req *q, struct x4_inode **ret_dir)
{
	const struct pro_in *in = &q->tr.in;
	int err;

	if (in->name_len > X4_NAME_MAX)
		return -ENAMETOOLONG;
	err = ops_iget(q->ops, in->h.nodeid, ret_dir);
	if (err)
		return err;
	if (!S_ISDIR(x4_inode_mode(*ret_dir)))
		err = -ENOTDIR;
	else
		err = ops_may_change(q->ops, *ret_dir);
	if (err)
		x4_iput(*ret_dir);
	return err;
}

/*
 * The end of all that make a new inode: durable where need be, then the entry. Drops dir, takes
 * over i.
 */
static void reply_new(struct ops_req *q, struct x4_inode *dir, int err, struct x4_inode *i)
{
	if (!err) {
		err = ops_dir_durable(q->ops, dir, 0);
		if (err)
			x4_iput(i);
	}
	ops_reply_entry(q, err, i);
	x4_iput(dir);
}

static void create_node(struct ops_req *q, uint32_t mode, uint32_t rdev, uint32_t umask)
{
	const struct pro_in *in = &q->tr.in;
	struct x4_inode *dir, *i = NULL;
	struct x4_cred c;
	uint64_t since = x4_evictions(q->ops->vol);
	int err = start(q, &dir);

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	ops_cred(q, umask, &c);
	do {
		err = x4_create(dir, in->name, in->name_len, mode, rdev, &c, &i);
	} while (err == -ENOSPC && x4_eviction_since(q->ops->vol, &since));
	reply_new(q, dir, err, i);
}

void ops_mknod(struct ops_req *q)
{
	const struct fuse_mknod_in *in = ops_arg(q);
	uint32_t type = in->mode & S_IFMT;

	if (type && type != S_IFREG && type != S_IFCHR && type != S_IFBLK && type != S_IFIFO &&
	    type != S_IFSOCK)
		ops_reply_err(q, -EINVAL);
	else
		create_node(q, (in->mode & 07777) | (type ? type : S_IFREG), in->rdev, in->umask);
}

void ops_mkdir(struct ops_req *q)
{
	const struct fuse_mkdir_in *in = ops_arg(q);

	create_node(q, (in->mode & 07777) | S_IFDIR, 0, in->umask);
}

void ops_symlink(struct ops_req *q)
{
	const struct pro_in *in = &q->tr.in;
	struct x4_inode *dir, *i = NULL;
	struct x4_cred c;
	uint64_t since = x4_evictions(q->ops->vol);
	int err = start(q, &dir);

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	ops_cred(q, 0, &c);
	do {
		err = x4_symlink(dir, in->name, in->name_len, in->name2, in->name2_len, &c, &i);
	} while (err == -ENOSPC && x4_eviction_since(q->ops->vol, &since));
	reply_new(q, dir, err, i);
}

void ops_link(struct ops_req *q)
{
	const struct fuse_link_in *l = ops_arg(q);
	const struct pro_in *in = &q->tr.in;
	struct x4_inode *dir, *i;
	uint64_t since = x4_evictions(q->ops->vol);
	int err = start(q, &dir);

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	err = ops_iget(q->ops, l->oldnodeid, &i);
	if (err)
		goto out;
	do {
		err = x4_link(dir, in->name, in->name_len, i, ops_may_use_reserved(q));
	} while (err == -ENOSPC && x4_eviction_since(q->ops->vol, &since));
	err = ops_dir_durable(q->ops, dir, err);
	if (err)
		x4_iput(i);
	ops_reply_entry(q, err, i); /* the reference becomes the kernel's */
	x4_iput(dir);
	return;
out:
	ops_reply_err(q, err);
	x4_iput(dir);
}

static void remove_name(struct ops_req *q,
			int (*fn)(struct x4_inode *dir, const char *name, unsigned len))
{
	const struct pro_in *in = &q->tr.in;
	struct x4_inode *dir;
	int err = start(q, &dir);

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	err = fn(dir, in->name, in->name_len);
	err = ops_dir_durable(q->ops, dir, err);
	ops_reply_err(q, err);
	x4_iput(dir);
}

void ops_unlink(struct ops_req *q) { remove_name(q, x4_unlink); }
void ops_rmdir(struct ops_req *q) { remove_name(q, x4_rmdir); }

static void rename_common(struct ops_req *q, uint64_t newdir, uint32_t flags)
{
	const struct pro_in *in = &q->tr.in;
	struct x4_inode *odir, *ndir;
	uint64_t since = x4_evictions(q->ops->vol);
	struct x4_cred c;
	int err;

	if (flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) {
		ops_reply_err(q, -EINVAL);
		return;
	}
	err = in->name2_len > X4_NAME_MAX ? -ENAMETOOLONG : start(q, &odir);
	if (err) {
		ops_reply_err(q, err);
		return;
	}
	err = ops_iget(q->ops, newdir, &ndir);
	if (err)
		goto out;
	ops_cred(q, 0, &c);
	err = S_ISDIR(x4_inode_mode(ndir)) ? ops_rename_into_allowed(ndir) : -ENOTDIR;
	if (!err)
		err = ops_may_change(q->ops, ndir);
	if (!err) {
		do {
			err = x4_rename(odir, in->name, in->name_len, ndir, in->name2,
					in->name2_len, flags, &c);
		} while (err == -ENOSPC && x4_eviction_since(q->ops->vol, &since));
	}
	err = ops_dir_durable(q->ops, odir, err);
	err = ops_dir_durable(q->ops, ndir, err);
	x4_iput(ndir);
out:
	ops_reply_err(q, err);
	x4_iput(odir);
}

void ops_rename(struct ops_req *q)
{
	const struct fuse_rename_in *in = ops_arg(q);

	rename_common(q, in->newdir, 0);
}

void ops_rename2(struct ops_req *q)
{
	const struct fuse_rename2_in *in = ops_arg(q);

	rename_common(q, in->newdir, in->flags);
}

void ops_readlink(struct ops_req *q)
{
	struct x4_inode *i;
	unsigned len = 0;
	int err = ops_iget(q->ops, q->tr.in.h.nodeid, &i);

	if (!err) {
		err = S_ISLNK(x4_inode_mode(i))
			      ? x4_readlink(i, (char *)q->tr.payload, q->tr.payload_cap, &len)
			      : -EINVAL;
		if (!err)
			x4_touch_read(i);
		x4_iput(i);
	}
	ops_reply(q, err, err ? 0 : len);
}
