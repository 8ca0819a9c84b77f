/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * OPEN, CREATE, TMPFILE, RELEASE, RELEASEDIR. Loop threads try them (OPS_TRY); O_TRUNC, and closing
 * a file with an append window, miss there, so workers do them. No lock is held here. An open file
 * holds one reference of its inode, and the engine's dio_file. Fails with EBADF, ENAMETOOLONG, what
 * ops_open_allowed and ops_file_add refuse, and with what src/ext4 says.
 */
#include "ops/types.h"

#include <fcntl.h>

static uint32_t fopen_flags(const struct ops *ops, uint32_t flags)
{
	uint32_t fopen = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH;

	if (ops->config.parallel_dio && (flags & O_DIRECT))
		fopen |= FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
	return fopen;
}

/*
 * Opens inode, with a reference of its own. flags: of open(2); open_flags: FUSE_OPEN_*. Workers,
 * OPS_TRY; misses only with O_TRUNC.
 */
static int open_inode(struct ops_req *req, struct ext4_inode *inode, uint32_t flags,
		      uint32_t open_flags, struct fuse_open_out *out)
{
	struct ops *ops = req->ops;
	struct ext4_attr none = { 0 };
	uint64_t size = ext4_inode_size(inode);
	struct dio_file *file;
	int err = ops_open_allowed(ops, inode, flags);

	if (!err && nowait_on() && (flags & O_TRUNC))
		err = nowait_miss();
	if (err)
		return err;
	err = dio_file_open(ops->dio, inode, &file);
	if (err)
		return err;
	if (flags & O_TRUNC)
		err = ops_set_size(ops, inode, 0);
	if (!err && (open_flags & FUSE_OPEN_KILL_SUIDGID) && (flags & O_TRUNC))
		err = ext4_setattr(inode, ops_kill_flags(req, inode), &none);
	if (flags & O_TRUNC)
		err = ops_inode_durable(ops, inode, err);
	if (err)
		goto close;
	err = ops_file_add(ops, ext4_inode_ref(inode), file, flags, &out->fh);
	if (err) {
		ext4_inode_put(inode);
		goto close;
	}
	if ((flags & O_ACCMODE) == O_RDWR)
		dio_file_may_map(file);
	out->open_flags = fopen_flags(ops, flags);
	return 0;
close:
	ops_size_failed(ops, inode, size);
	dio_file_close(file);
	return err;
}

void ops_open(struct ops_req *req)
{
	const struct fuse_open_in *in = ops_arg(req);
	struct fuse_open_out out = { 0 };
	struct ext4_inode *inode;
	int err = ops_inode_get(req->ops, req->fuse.in.header.nodeid, &inode);

	if (!err) {
		err = open_inode(req, inode, in->flags, in->open_flags, &out);
		ext4_inode_put(inode);
	}
	if (err)
		ops_reply_err(req, err);
	else
		ops_reply_data(req, &out, sizeof(out));
}

/*
 * Opens a file that was created, and answers with its entry and its handle. Takes over the
 * reference of inode (or NULL).
 */
static void reply_created(struct ops_req *req, int err, struct ext4_inode *inode,
			  const struct fuse_open_in *in)
{
	struct { struct fuse_entry_out entry; struct fuse_open_out open; } out = { 0 };

	err = nowait_err(err);
	if (!err)
		err = open_inode(req, inode, in->flags, in->open_flags, &out.open);
	if (err) {
		ext4_inode_put(inode);
		ops_reply_err(req, err);
		return;
	}
	ops_fill_entry(req->ops, inode, &out.entry);
	ops_reply_data(req, &out, sizeof(out));
}

void ops_create(struct ops_req *req)
{
	const struct fuse_create_in *in = ops_arg(req);
	const struct message_in *message = &req->fuse.in;
	struct fuse_open_in open = { .flags = in->flags, .open_flags = in->open_flags };
	struct ext4_inode *dir, *inode = NULL;
	struct ext4_credentials credentials;
	uint64_t since = ext4_evictions(req->ops->vol);
	int err = -ENAMETOOLONG;

	if (message->name_len <= EXT4_NAME_MAX)
		err = ops_inode_get(req->ops, message->header.nodeid, &dir);
	if (!err && (err = ops_credentials(req, in->umask, &credentials)))
		ext4_inode_put(dir);
	if (err) {
		ops_reply_err(req, err);
		return;
	}
	do {
		err = ops_miss_if_sync(req->ops, dir);
		if (err)
			break;
		err = ext4_create(dir, message->name, message->name_len,
				  (in->mode & 07777) | S_IFREG, 0, &credentials, &inode);
	} while (ops_space_again(req, err, &since, &credentials.root));
	if (!err)
		/* The new file is empty already, and it is not the file that O_EXCL forbids. */
		open.flags &= ~(uint32_t)(O_TRUNC | O_EXCL);
	else if (err == -EEXIST && !(in->flags & O_EXCL))
		err = ext4_lookup(dir, message->name, message->name_len, &inode);
	err = ops_dir_durable(req->ops, dir, err);
	if (err) {
		ext4_inode_put(inode);
		inode = NULL;
	}
	reply_created(req, err, inode, &open);
	ext4_inode_put(dir);
}

void ops_tmpfile(struct ops_req *req)
{
	const struct fuse_create_in *in = ops_arg(req);
	struct fuse_open_in open = { .flags = in->flags & ~(uint32_t)(O_TRUNC | O_EXCL) };
	struct ext4_inode *dir, *inode = NULL;
	struct ext4_credentials credentials;
	uint64_t since = ext4_evictions(req->ops->vol);
	int err = ops_inode_get(req->ops, req->fuse.in.header.nodeid, &dir);

	if (!err && (err = ops_credentials(req, in->umask, &credentials)))
		ext4_inode_put(dir);
	if (err) {
		ops_reply_err(req, err);
		return;
	}
	do {
		err = ext4_tmpfile(dir, (in->mode & 07777) | S_IFREG, &credentials, &inode);
	} while (ops_space_again(req, err, &since, &credentials.root));
	reply_created(req, err, err ? NULL : inode, &open);
	ext4_inode_put(dir);
}

/* RELEASE and RELEASEDIR. */
void ops_release(struct ops_req *req)
{
	const struct fuse_release_in *in = ops_arg(req);
	struct ops_file file, *open = ops_file_get(req->ops, in->fh);

	if (nowait_on() && open && open->file && dio_file_close_waits(open->file))
		nowait_miss();
	if (nowait_missed() || !ops_file_remove(req->ops, in->fh, &file)) {
		ops_reply_err(req, -EBADF);
		return;
	}
	if (file.file)
		dio_file_close(file.file);
	else
		ext4_open_count_add(file.inode, -1);
	ops_reply_err(req, 0);
	ext4_inode_put(file.inode);
}
