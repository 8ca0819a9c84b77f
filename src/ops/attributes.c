/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GETATTR, STATX, SETATTR: OPS_TRY, but for a change of size, which misses on a loop thread and is
 * for workers: it closes the inode's gate first, so that direct I/O in flight ends before blocks
 * are freed, and then holds the inode's lock.
 */
#include "ops/types.h"

static void reply_attr(struct ops_req *q, struct x4_inode *i)
{
	struct fuse_attr_out out = { .attr_valid = ops_attr_valid(i) };

	ops_fill_attr(q->ops, i, &out.attr);
	ops_reply_data(q, &out, sizeof(out));
}

void ops_getattr(struct ops_req *q)
{
	struct x4_inode *i;
	int err = ops_iget(q->ops, q->tr.in.h.nodeid, &i);

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	if (!ops_launder_first(q, i, DIO_CACHED_HOLES))
		reply_attr(q, i);
	x4_iput(i);
}

static struct fuse_sx_time sx_time(struct timespec t)
{
	return (struct fuse_sx_time){ .tv_sec = t.tv_sec, .tv_nsec = (uint32_t)t.tv_nsec };
}

static void fill_statx(struct ops *o, struct x4_inode *i, struct fuse_statx *s)
{
	struct x4_attr a;

	x4_getattr(i, &a);
	s->mask = STATX_BASIC_STATS | STATX_BTIME;
	s->blksize = 1u << x4_vol_block_bits(o->vol);
	s->attributes_mask = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP;
	s->attributes = (a.flags & OPS_FL_IMMUTABLE ? STATX_ATTR_IMMUTABLE : 0) |
			(a.flags & OPS_FL_APPEND ? STATX_ATTR_APPEND : 0) |
			(a.flags & OPS_FL_NODUMP ? STATX_ATTR_NODUMP : 0);
	s->nlink = a.nlink;
	s->uid = a.uid;
	s->gid = a.gid;
	s->mode = (uint16_t)a.mode;
	s->ino = a.ino;
	s->size = a.size;
	s->blocks = a.blocks_512;
	s->atime = sx_time(a.atime);
	s->btime = sx_time(a.btime);
	s->ctime = sx_time(a.ctime);
	s->mtime = sx_time(a.mtime);
	/* rdev is in the 32-bit encoding: 12 bits of major between 8 and 12 bits of minor */
	s->rdev_major = (a.rdev >> 8) & 0xfff;
	s->rdev_minor = (a.rdev & 0xff) | ((a.rdev >> 12) & 0xfff00);
}

void ops_statx(struct ops_req *q)
{
	struct fuse_statx_out out = { 0 };
	struct x4_inode *i;
	int err = ops_iget(q->ops, q->tr.in.h.nodeid, &i);

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	if (ops_launder_first(q, i, DIO_CACHED_HOLES)) {
		x4_iput(i);
		return;
	}
	out.attr_valid = ops_attr_valid(i);
	fill_statx(q->ops, i, &out.stat);
	ops_reply_data(q, &out, sizeof(out));
	x4_iput(i);
}

int ops_set_size(struct ops *o, struct x4_inode *i, uint64_t size)
{
	uint64_t old;
	bool masked;
	int err;

	if (!S_ISREG(x4_inode_mode(i)))
		return S_ISDIR(x4_inode_mode(i)) ? -EISDIR : -EINVAL;
	if (size > INT64_MAX)
		return -EFBIG;
	if (nowait_on())
		return nowait_miss();
	err = dio_gate_close(o->dio, i, DIO_GATE_ALL);
	if (err)
		return err;
	x4_inode_lock_excl(i);
	old = x4_inode_size(i);
	masked = !ops_kernel_clears_tail(o) && dio_mask_set(i, old, size);
	err = x4_truncate(i, size);
	if (err && masked)
		dio_mask_undo(i, old);
	x4_inode_unlock(i);
	dio_gate_open(o->dio, i, DIO_GATE_ALL);
	return err;
}

static unsigned setattr_what(const struct fuse_setattr_in *in, struct x4_attr *a)
{
	static const struct {
		uint32_t fuse;
		unsigned x4;
	} map[] = {
		{ FATTR_MODE, X4_SET_MODE },
		{ FATTR_UID, X4_SET_UID },
		{ FATTR_GID, X4_SET_GID },
		{ FATTR_ATIME, X4_SET_ATIME },
		{ FATTR_MTIME, X4_SET_MTIME },
		{ FATTR_CTIME, X4_SET_CTIME },
		{ FATTR_KILL_SUIDGID, X4_KILL_SUIDGID },
	};
	unsigned what = 0;

	for (unsigned k = 0; k < ARRAY_SIZE(map); k++)
		if (in->valid & map[k].fuse)
			what |= map[k].x4;
	if ((in->valid & FATTR_ATIME_NOW) && (what & X4_SET_ATIME))
		what = (what & ~X4_SET_ATIME) | X4_SET_ATIME_NOW;
	if ((in->valid & FATTR_MTIME_NOW) && (what & X4_SET_MTIME))
		what = (what & ~X4_SET_MTIME) | X4_SET_MTIME_NOW;
	a->mode = in->mode & 07777;
	a->uid = in->uid;
	a->gid = in->gid;
	a->atime = (struct timespec){ .tv_sec = (time_t)in->atime, .tv_nsec = in->atimensec };
	a->mtime = (struct timespec){ .tv_sec = (time_t)in->mtime, .tv_nsec = in->mtimensec };
	a->ctime = (struct timespec){ .tv_sec = (time_t)in->ctime, .tv_nsec = in->ctimensec };
	return what;
}

static int setattr_inode(struct ops_req *q, struct x4_inode *i, const struct fuse_setattr_in *in)
{
	struct ops *o = q->ops;
	struct x4_attr a = { 0 };
	unsigned what = setattr_what(in, &a);
	int err = ops_setattr_allowed(i, in);

	if (!err)
		err = ops_may_change(o, i);
	if (err)
		return err;
	/*
	 * Nothing named: chown(-1, -1), which changes ctime; or the kernel has taken the
	 * capabilities away before a write and wants the other privileges to go as well, unless
	 * root writes.
	 */
	if (!what && !(in->valid & FATTR_SIZE))
		what = X4_TOUCH_CTIME | (q->tr.in.h.uid == 0 ? 0 : X4_KILL_SUIDGID);
	/*
	 * The kernel leaves it to us to take the privileges away when a file changes hands, whoever
	 * does it.
	 */
	if (what & (X4_SET_UID | X4_SET_GID))
		what |= X4_KILL_SUIDGID;
	if (S_ISDIR(x4_inode_mode(i)))
		what &= ~(unsigned)X4_KILL_SUIDGID;
	if (what & X4_KILL_SUIDGID)
		what |= ops_kill_what(q, i);
	if (in->valid & FATTR_SIZE)
		err = ops_set_size(o, i, in->size);
	if (!err && what)
		err = x4_setattr(i, what | (ops_may_use_reserved(q) ? X4_BY_ROOT : 0), &a);
	return ops_inode_durable(o, i, err);
}

void ops_setattr(struct ops_req *q)
{
	const struct fuse_setattr_in *in = ops_arg(q);
	struct x4_inode *i;
	int err = ops_iget(q->ops, q->tr.in.h.nodeid, &i);
	uint64_t size;

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	/* What was stored before would otherwise be written back later, and change the time. */
	if ((in->valid & (FATTR_MTIME | FATTR_MTIME_NOW | FATTR_SIZE)) == FATTR_MTIME &&
	    ops_launder_first(q, i, DIO_CACHED_ALL)) {
		x4_iput(i);
		return;
	}
	size = x4_inode_size(i);
	err = setattr_inode(q, i, in);
	if (err) {
		ops_size_failed(q->ops, i, size);
		ops_reply_err(q, err);
	} else {
		reply_attr(q, i);
	}
	x4_iput(i);
}
