/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GETATTR, STATX, SETATTR: OPS_TRY, but for a change of size, which misses on a loop thread and is
 * for workers: it closes the inode's gate first, so that direct I/O in flight ends before blocks
 * are freed, and then holds the inode's lock.
 */
#include "ops/types.h"

/*
 * The count of blocks to answer. If pages over holes were not written back in time, they count as
 * blocks: programs that archive files take one without blocks for one hole.
 */
static uint64_t blocks_512(const struct ops_req *req, uint64_t known, uint64_t size)
{
	uint64_t end = FDIO_MIN(req->cached.end, size);

	if (likely(!req->laundered || !req->cached_late || req->cached.off >= end))
		return known;
	return FDIO_MAX(known, (end - req->cached.off + 511) / 512);
}

static void reply_attr(struct ops_req *req, struct ext4_inode *inode)
{
	struct fuse_attr_out out = { .attr_valid = ops_attr_valid(inode) };

	ops_fill_attr(req->ops, inode, &out.attr);
	out.attr.blocks = blocks_512(req, out.attr.blocks, out.attr.size);
	ops_reply_data(req, &out, sizeof(out));
}

void ops_getattr(struct ops_req *req)
{
	struct ext4_inode *inode;
	int err = ops_iget(req->ops, req->tr.in.header.nodeid, &inode);

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	if (!ops_launder_first(req, inode, DIO_CACHED_HOLES))
		reply_attr(req, inode);
	ext4_inode_put(inode);
}

static struct fuse_sx_time sx_time(struct timespec t)
{
	return (struct fuse_sx_time){ .tv_sec = t.tv_sec, .tv_nsec = (uint32_t)t.tv_nsec };
}

static void fill_statx(struct ops *ops, struct ext4_inode *inode, struct fuse_statx *s)
{
	struct ext4_attr attr;

	ext4_getattr(inode, &attr);
	s->mask = STATX_BASIC_STATS | STATX_BTIME;
	s->blksize = 1u << ext4_vol_block_bits(ops->vol);
	s->attributes_mask = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP;
	s->attributes = (attr.flags & OPS_FL_IMMUTABLE ? STATX_ATTR_IMMUTABLE : 0) |
			(attr.flags & OPS_FL_APPEND ? STATX_ATTR_APPEND : 0) |
			(attr.flags & OPS_FL_NODUMP ? STATX_ATTR_NODUMP : 0);
	s->nlink = attr.nlink;
	s->uid = attr.uid;
	s->gid = attr.gid;
	s->mode = (uint16_t)attr.mode;
	s->ino = attr.ino;
	s->size = attr.size;
	s->blocks = attr.blocks_512;
	s->atime = sx_time(attr.atime);
	s->btime = sx_time(attr.btime);
	s->ctime = sx_time(attr.ctime);
	s->mtime = sx_time(attr.mtime);
	/* rdev is in the 32-bit encoding: 12 bits of major between 8 and 12 bits of minor */
	s->rdev_major = (attr.rdev >> 8) & 0xfff;
	s->rdev_minor = (attr.rdev & 0xff) | ((attr.rdev >> 12) & 0xfff00);
}

void ops_statx(struct ops_req *req)
{
	struct fuse_statx_out out = { 0 };
	struct ext4_inode *inode;
	int err = ops_iget(req->ops, req->tr.in.header.nodeid, &inode);

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	if (ops_launder_first(req, inode, DIO_CACHED_HOLES)) {
		ext4_inode_put(inode);
		return;
	}
	out.attr_valid = ops_attr_valid(inode);
	fill_statx(req->ops, inode, &out.stat);
	out.stat.blocks = blocks_512(req, out.stat.blocks, out.stat.size);
	ops_reply_data(req, &out, sizeof(out));
	ext4_inode_put(inode);
}

int ops_set_size(struct ops *ops, struct ext4_inode *inode, uint64_t size)
{
	uint64_t old;
	bool masked;
	int err;

	if (!S_ISREG(ext4_inode_mode(inode)))
		return S_ISDIR(ext4_inode_mode(inode)) ? -EISDIR : -EINVAL;
	if (size > INT64_MAX)
		return -EFBIG;
	if (nowait_on())
		return nowait_miss();
	err = dio_gate_close(ops->dio, inode, DIO_GATE_ALL);
	if (err)
		return err;
	ext4_inode_lock_exclusive(inode);
	old = ext4_inode_size(inode);
	masked = !ops_kernel_clears_tail(ops) && dio_mask_set(inode, old, size);
	err = ext4_truncate(inode, size);
	if (err && masked)
		dio_mask_undo(inode, old);
	ext4_inode_unlock(inode);
	dio_gate_open(ops->dio, inode, DIO_GATE_ALL);
	return err;
}

static unsigned setattr_what(const struct fuse_setattr_in *in, struct ext4_attr *attr)
{
	static const struct {
		uint32_t fuse;
		unsigned x4;
	} map[] = {
		{ FATTR_MODE, EXT4_SET_MODE },
		{ FATTR_UID, EXT4_SET_UID },
		{ FATTR_GID, EXT4_SET_GID },
		{ FATTR_ATIME, EXT4_SET_ATIME },
		{ FATTR_MTIME, EXT4_SET_MTIME },
		{ FATTR_CTIME, EXT4_SET_CTIME },
		{ FATTR_KILL_SUIDGID, EXT4_KILL_SUIDGID },
	};
	unsigned what = 0;

	for (unsigned k = 0; k < ARRAY_SIZE(map); k++)
		if (in->valid & map[k].fuse)
			what |= map[k].x4;
	if ((in->valid & FATTR_ATIME_NOW) && (what & EXT4_SET_ATIME))
		what = (what & ~EXT4_SET_ATIME) | EXT4_SET_ATIME_NOW;
	if ((in->valid & FATTR_MTIME_NOW) && (what & EXT4_SET_MTIME))
		what = (what & ~EXT4_SET_MTIME) | EXT4_SET_MTIME_NOW;
	attr->mode = in->mode & 07777;
	attr->uid = in->uid;
	attr->gid = in->gid;
	attr->atime = (struct timespec){ .tv_sec = (time_t)in->atime, .tv_nsec = in->atimensec };
	attr->mtime = (struct timespec){ .tv_sec = (time_t)in->mtime, .tv_nsec = in->mtimensec };
	attr->ctime = (struct timespec){ .tv_sec = (time_t)in->ctime, .tv_nsec = in->ctimensec };
	return what;
}

static int setattr_inode(struct ops_req *req, struct ext4_inode *inode,
			 const struct fuse_setattr_in *in)
{
	struct ops *ops = req->ops;
	struct ext4_attr attr = { 0 };
	unsigned what = setattr_what(in, &attr);
	int err = ops_setattr_allowed(inode, in);

	if (!err)
		err = ops_may_change(ops, inode);
	if (err)
		return err;
	/*
	 * Nothing named: chown(-1, -1), which changes ctime; or the kernel has taken the
	 * capabilities away before a write and wants the other privileges to go as well, unless
	 * root writes.
	 */
	if (!what && !(in->valid & FATTR_SIZE))
		what = EXT4_TOUCH_CTIME | (req->tr.in.header.uid == 0 ? 0 : EXT4_KILL_SUIDGID);
	/*
	 * The kernel leaves it to us to take the privileges away when a file changes hands, whoever
	 * does it.
	 */
	if (what & (EXT4_SET_UID | EXT4_SET_GID))
		what |= EXT4_KILL_SUIDGID;
	if (S_ISDIR(ext4_inode_mode(inode)))
		what &= ~(unsigned)EXT4_KILL_SUIDGID;
	if (what & EXT4_KILL_SUIDGID)
		what |= ops_kill_what(req, inode);
	if (in->valid & FATTR_SIZE)
		err = ops_set_size(ops, inode, in->size);
	if (!err && what)
		err = ext4_setattr(inode, what | (ops_may_use_reserved(req) ? EXT4_BY_ROOT : 0),
				   &attr);
	return ops_inode_durable(ops, inode, err);
}

void ops_setattr(struct ops_req *req)
{
	const struct fuse_setattr_in *in = ops_arg(req);
	struct ext4_inode *inode;
	int err = ops_iget(req->ops, req->tr.in.header.nodeid, &inode);
	uint64_t size;

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	/* What was stored before would otherwise be written back later, and change the time. */
	if ((in->valid & (FATTR_MTIME | FATTR_MTIME_NOW | FATTR_SIZE)) == FATTR_MTIME &&
	    ops_launder_first(req, inode, DIO_CACHED_ALL)) {
		ext4_inode_put(inode);
		return;
	}
	size = ext4_inode_size(inode);
	err = setattr_inode(req, inode, in);
	if (err) {
		ops_size_failed(req->ops, inode, size);
		ops_reply_err(req, err);
	} else {
		reply_attr(req, inode);
	}
	ext4_inode_put(inode);
}
