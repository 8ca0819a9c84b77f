/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * OPEN, CREATE, TMPFILE, RELEASE: OPS_TRY; O_TRUNC, and closing a file with an append window, are
 * for workers. An open file holds one inode reference and the engine's dio_file.
 */
#include "ops/types.h"

#include <fcntl.h>

static uint32_t fopen_flags(const struct ops *o, uint32_t flags)
{
	uint32_t f = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH;

	if (o->cfg.parallel_dio && (flags & O_DIRECT))
		f |= FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
	return f;
}

/*
 * Opens i for the flags: takes its own reference. Workers, OPS_TRY; without O_TRUNC it does not
 * miss.
 */
static int open_inode(struct ops_req *q, struct x4_inode *i, uint32_t flags, uint32_t open_flags,
		      struct fuse_open_out *out)
{
	struct ops *o = q->ops;
	struct x4_attr none = { 0 };
	uint64_t size = x4_inode_size(i);
	struct dio_file *df;
	int err = ops_open_allowed(o, i, flags);

	if (!err && nowait_on() && (flags & O_TRUNC))
		err = nowait_miss();
	if (err)
		return err;
	err = dio_file_open(o->dio, i, &df);
	if (err)
		return err;
	if (flags & O_TRUNC)
		err = ops_set_size(o, i, 0);
	if (!err && (open_flags & FUSE_OPEN_KILL_SUIDGID) && (flags & O_TRUNC))
		err = x4_setattr(i, ops_kill_what(q, i), &none);
	if (flags & O_TRUNC)
		err = ops_inode_durable(o, i, err);
	if (err)
		goto close;
	err = ops_file_add(o, x4_iref(i), df, flags, &out->fh);
	if (err) {
		x4_iput(i);
		goto close;
	}
	if ((flags & O_ACCMODE) == O_RDWR)
		dio_file_may_map(df);
	out->open_flags = fopen_flags(o, flags);
	return 0;
close:
	ops_size_failed(o, i, size);
	dio_file_close(df);
	return err;
}

void ops_open(struct ops_req *q)
{
	const struct fuse_open_in *in = ops_arg(q);
	struct fuse_open_out out = { 0 };
	struct x4_inode *i;
	int err = ops_iget(q->ops, q->tr.in.h.nodeid, &i);

	if (!err) {
		err = open_inode(q, i, in->flags, in->open_flags, &out);
		x4_iput(i);
	}
	if (err)
		ops_reply_err(q, err);
	else
		ops_reply_data(q, &out, sizeof(out));
}

/* Both replies of a creating open in one. Takes over the reference of i. */
static void reply_created(struct ops_req *q, int err, struct x4_inode *i,
			  const struct fuse_open_in *open)
{
	struct { struct fuse_entry_out e; struct fuse_open_out o; } out = { 0 };

	err = nowait_err(err);
	if (!err)
		err = open_inode(q, i, open->flags, open->open_flags, &out.o);
	if (err) {
		x4_iput(i);
		ops_reply_err(q, err);
		return;
	}
	ops_fill_entry(q->ops, i, &out.e);
	ops_reply_data(q, &out, sizeof(out));
}

void ops_create(struct ops_req *q)
{
	const struct fuse_create_in *in = ops_arg(q);
	const struct pro_in *p = &q->tr.in;
	struct fuse_open_in open = { .flags = in->flags, .open_flags = in->open_flags };
	struct x4_inode *dir, *i = NULL;
	struct x4_cred c;
	uint64_t since = x4_evictions(q->ops->vol);
	int err = p->name_len > X4_NAME_MAX ? -ENAMETOOLONG : ops_iget(q->ops, p->h.nodeid, &dir);

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	ops_cred(q, in->umask, &c);
	do {
		err = ops_may_change(q->ops, dir);
		if (err)
			break;
		err = x4_create(dir, p->name, p->name_len, (in->mode & 07777) | S_IFREG, 0, &c, &i);
	} while (err == -ENOSPC && x4_eviction_since(q->ops->vol, &since));
	if (!err)
		/* a new file is empty, and its mode does not bind who made it */
		open.flags &= ~(uint32_t)(O_TRUNC | O_EXCL);
	else if (err == -EEXIST && !(in->flags & O_EXCL))
		err = x4_lookup(dir, p->name, p->name_len, &i);
	err = ops_dir_durable(q->ops, dir, err);
	if (err) {
		x4_iput(i);
		i = NULL;
	}
	reply_created(q, err, i, &open);
	x4_iput(dir);
}

void ops_tmpfile(struct ops_req *q)
{
	const struct fuse_create_in *in = ops_arg(q);
	struct fuse_open_in open = { .flags = in->flags & ~(uint32_t)(O_TRUNC | O_EXCL) };
	struct x4_inode *dir, *i = NULL;
	struct x4_cred c;
	uint64_t since = x4_evictions(q->ops->vol);
	int err = ops_iget(q->ops, q->tr.in.h.nodeid, &dir);

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	ops_cred(q, in->umask, &c);
	do {
		err = x4_tmpfile(dir, (in->mode & 07777) | S_IFREG, &c, &i);
	} while (err == -ENOSPC && x4_eviction_since(q->ops->vol, &since));
	reply_created(q, err, err ? NULL : i, &open);
	x4_iput(dir);
}

/* Files and directories. */
void ops_release(struct ops_req *q)
{
	const struct fuse_release_in *in = ops_arg(q);
	struct ops_file f, *open = ops_file_get(q->ops, in->fh);

	if (nowait_on() && open && open->df && dio_file_close_waits(open->df))
		nowait_miss();
	if (nowait_missed() || !ops_file_remove(q->ops, in->fh, &f)) {
		ops_reply_err(q, -EBADF);
		return;
	}
	if (f.df)
		dio_file_close(f.df);
	else
		x4_opened(f.inode, -1);
	ops_reply_err(q, 0);
	x4_iput(f.inode);
}
