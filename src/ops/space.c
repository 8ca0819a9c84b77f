/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a file has data, and making room in it: LSEEK and FALLOCATE, on workers. Seeking takes the
 * inode's lock shared; fallocate closes the gate and takes it exclusively.
 */
#include "ops/types.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

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

static int fallocate_gated(struct ops *o, struct x4_inode *i, int mode,
			   const struct fuse_fallocate_in *in, bool root)
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
