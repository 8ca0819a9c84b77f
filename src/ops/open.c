/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * OPEN, CREATE, TMPFILE, RELEASE: OPS_TRY; LSEEK, FALLOCATE: on workers. An open file holds one inode reference and the
 * engine's dio_file. Immutable and append-only files are enforced here, because the kernel does not know the flags
 * of a FUSE inode.
 */
#include "ops/types.h"

#include <fcntl.h>
#include <linux/falloc.h>

static uint32_t fopen_flags(const struct ops *o, uint32_t flags)
{
	uint32_t f = FOPEN_KEEP_CACHE | FOPEN_NOFLUSH;

	if (o->cfg.parallel_dio && (flags & O_DIRECT))
		f |= FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
	return f;
}

static int open_allowed(struct ops *o, struct x4_inode *i, uint32_t flags)
{
	uint32_t fl = x4_inode_flags(i);
	bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);

	if (S_ISDIR(x4_inode_mode(i)))
		return -EISDIR;
	if (!S_ISREG(x4_inode_mode(i)))
		return -ENXIO; /* the kernel opens devices, pipes and sockets itself */
	if (writes && x4_vol_read_only(o->vol))
		return -EROFS;
	if (writes && (fl & OPS_FL_IMMUTABLE))
		return -EPERM;
	if (writes && (fl & OPS_FL_APPEND) && (!(flags & O_APPEND) || (flags & O_TRUNC)))
		return -EPERM;
	return 0;
}

int ops_open_inode(struct ops_req *q, struct x4_inode *i, uint32_t flags, uint32_t open_flags, struct fuse_open_out *out)
{
	struct ops *o = q->ops;
	struct x4_attr none = { 0 };
	uint64_t size = x4_inode_size(i);
	struct dio_file *df;
	int err = open_allowed(o, i, flags);

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
		err = ops_open_inode(q, i, in->flags, in->open_flags, &out);
		x4_iput(i);
	}
	if (err)
		ops_reply_err(q, err);
	else
		ops_reply_data(q, &out, sizeof(out));
}

/* Both replies of a creating open in one. Takes over the reference of i. */
static void reply_created(struct ops_req *q, int err, struct x4_inode *i, const struct fuse_open_in *open)
{
	struct { struct fuse_entry_out e; struct fuse_open_out o; } out = { 0 };

	err = nowait_err(err);
	if (!err)
		err = ops_open_inode(q, i, open->flags, open->open_flags, &out.o);
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
		err = x4_inode_flags(dir) & OPS_FL_IMMUTABLE ? -EPERM
			: x4_create(dir, p->name, p->name_len, (in->mode & 07777) | S_IFREG, 0, &c, &i);
	} while (err == -ENOSPC && x4_eviction_since(q->ops->vol, &since));
	if (!err)
		open.flags &= ~(uint32_t)(O_TRUNC | O_EXCL); /* a new file is empty, and its mode does not bind who made it */
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
		err = x4_inode_flags(dir) & OPS_FL_IMMUTABLE ? -EPERM : x4_tmpfile(dir, (in->mode & 07777) | S_IFREG, &c, &i);
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

void ops_lseek(struct ops_req *q)
{
	const struct fuse_lseek_in *in = ops_arg(q);
	struct fuse_lseek_out out = { 0 };
	struct ops_file *f = ops_file_get(q->ops, in->fh);
	int err;

	if (!f || !f->df)
		err = -EBADF;
	else if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		err = -EINVAL;
	else if (ops_launder_first(q, f->inode, DIO_CACHED_HOLES))
		return;
	else {
		x4_inode_lock_shared(f->inode);
		err = x4_seek(f->inode, in->offset, in->whence == SEEK_DATA, &out.offset);
		x4_inode_unlock(f->inode);
	}
	if (err)
		ops_reply_err(q, err);
	else
		ops_reply_data(q, &out, sizeof(out));
}

static int falloc_mode(uint32_t mode, int *ret)
{
	switch (mode) {
	case 0:
		*ret = 0;
		return 0;
	case FALLOC_FL_KEEP_SIZE:
		*ret = X4_FALLOC_KEEP_SIZE;
		return 0;
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
		*ret = X4_FALLOC_PUNCH_HOLE | X4_FALLOC_KEEP_SIZE;
		return 0;
	case FALLOC_FL_ZERO_RANGE:
		*ret = X4_FALLOC_ZERO_RANGE;
		return 0;
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		*ret = X4_FALLOC_ZERO_RANGE | X4_FALLOC_KEEP_SIZE;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static int falloc_allowed(struct x4_inode *i, int mode)
{
	uint32_t fl = x4_inode_flags(i);

	if (fl & OPS_FL_IMMUTABLE)
		return -EPERM;
	return (fl & OPS_FL_APPEND) && (mode & ~X4_FALLOC_KEEP_SIZE) ? -EPERM : 0;
}

static int fallocate_gated(struct ops *o, struct x4_inode *i, int mode, const struct fuse_fallocate_in *in, bool root)
{
	int err = dio_gate_close(o->dio, i, DIO_GATE_ALL);

	if (err)
		return err;
	x4_inode_lock_excl(i);
	err = x4_fallocate(i, mode, in->offset, in->length, root);
	x4_inode_unlock(i);
	dio_gate_open(o->dio, i, DIO_GATE_ALL);
	return err;
}

void ops_fallocate(struct ops_req *q)
{
	const struct fuse_fallocate_in *in = ops_arg(q);
	struct ops *o = q->ops;
	struct ops_file *f = ops_file_get(o, in->fh);
	struct x4_attr none = { 0 };
	uint64_t since = x4_evictions(o->vol), size;
	int mode = 0, err = falloc_mode(in->mode, &mode);

	if (!err && (!f || !f->df))
		err = -EBADF;
	if (!err && (!in->length || in->offset > INT64_MAX || in->length > INT64_MAX - in->offset))
		err = in->length && in->offset <= INT64_MAX ? -EFBIG : -EINVAL;
	if (!err)
		err = falloc_allowed(f->inode, mode);
	if (err)
		goto out;
	size = x4_inode_size(f->inode);
	err = fallocate_gated(o, f->inode, mode, in, ops_may_use_reserved(q));
	while (err == -ENOSPC && x4_eviction_since(o->vol, &since))
		err = fallocate_gated(o, f->inode, mode, in, ops_may_use_reserved(q));
	/* As a write by the same process would. */
	if (!err && q->tr.in.h.uid != 0 && x4_needs_killpriv(f->inode))
		err = x4_setattr(f->inode, ops_kill_what(q, f->inode), &none);
	if (!err && (ops_is_sync(o, f->inode) || (f->open_flags & (O_DSYNC | O_SYNC))))
		err = ops_wait_durable(o, f->inode, false);
	if (err)
		ops_size_failed(o, f->inode, size);
	else if (x4_inode_size(f->inode) > size && ops_launder_tail(q, f->inode, size))
		return;
out:
	ops_reply_err(q, err);
}
