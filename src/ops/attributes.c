/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * GETATTR, STATX, SETATTR. Loop threads try them (OPS_TRY), workers do the rest, and every change
 * of size: ops_set_size closes the inode's gate first, so that direct I/O in flight ends before
 * blocks are freed, and then holds the inode's lock. Fails with what the flags of the inode forbid
 * (immutable.c), and with what src/ext4 says.
 */
#include "ops/types.h"

/*
 * The count of blocks for the answer, in units of 512 bytes; known is the count in the inode. Pages
 * over holes that were not written back in time count as blocks, because programs that archive
 * files take a file without blocks for a single hole.
 */
static uint64_t blocks_512(const struct ops_req *req, uint64_t known, uint64_t size)
{
	uint64_t end = FDIO_MIN(req->cached.end, size);

	if (!ops_holes_unknown(req) || req->cached.off >= end)
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
	int err = ops_inode_get(req->ops, req->fuse.in.header.nodeid, &inode);

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	if (!ops_launder_first(req, inode, DIO_CACHED_HOLES))
		reply_attr(req, inode);
	ext4_inode_put(inode);
}

static struct fuse_sx_time fuse_time(struct timespec time)
{
	return (struct fuse_sx_time){ .tv_sec = time.tv_sec, .tv_nsec = (uint32_t)time.tv_nsec };
}

/* Sets attributes and their mask. The kernel (7.3) does not pass them on yet. */
static void fill_statx_attributes(uint32_t flags, struct fuse_statx *out)
{
	static const struct {
		uint32_t flag;
		uint64_t attribute;
	} map[] = {
		{ OPS_FL_COMPRESSED, STATX_ATTR_COMPRESSED },
		{ OPS_FL_IMMUTABLE, STATX_ATTR_IMMUTABLE },
		{ OPS_FL_APPEND, STATX_ATTR_APPEND },
		{ OPS_FL_NODUMP, STATX_ATTR_NODUMP },
		{ OPS_FL_ENCRYPTED, STATX_ATTR_ENCRYPTED },
		{ OPS_FL_VERITY, STATX_ATTR_VERITY },
	};

	for (unsigned k = 0; k < ARRAY_SIZE(map); k++) {
		out->attributes_mask |= map[k].attribute;
		if (flags & map[k].flag)
			out->attributes |= map[k].attribute;
	}
}

static void fill_statx(struct ops *ops, struct ext4_inode *inode, struct fuse_statx *out)
{
	struct ext4_attr attr;

	ext4_getattr(inode, &attr);
	out->mask = STATX_BASIC_STATS | STATX_BTIME;
	out->blksize = 1u << ext4_vol_block_bits(ops->vol);
	fill_statx_attributes(attr.flags, out);
	out->nlink = attr.nlink;
	out->uid = attr.uid;
	out->gid = attr.gid;
	out->mode = (uint16_t)attr.mode;
	out->ino = attr.ino;
	out->size = attr.size;
	out->blocks = attr.blocks_512;
	out->atime = fuse_time(attr.atime);
	out->btime = fuse_time(attr.btime);
	out->ctime = fuse_time(attr.ctime);
	out->mtime = fuse_time(attr.mtime);
	/* 32 bits: the lower 8 bits of minor, 12 bits of major, the upper 12 bits of minor */
	out->rdev_major = (attr.rdev >> 8) & 0xfff;
	out->rdev_minor = (attr.rdev & 0xff) | ((attr.rdev >> 12) & 0xfff00);
}

void ops_statx(struct ops_req *req)
{
	struct fuse_statx_out out = { 0 };
	struct ext4_inode *inode;
	int err = ops_inode_get(req->ops, req->fuse.in.header.nodeid, &inode);

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
	/* Pages may hold bytes that were stored behind the old end (dio/pagecache.h). */
	masked = !ops_kernel_clears_tail(ops) && dio_mask_set(inode, old, size);
	err = ext4_truncate(inode, size);
	if (err && masked)
		dio_mask_undo(inode, old);
	ext4_inode_unlock(inode);
	dio_gate_open(ops->dio, inode, DIO_GATE_ALL);
	return err;
}

/* The attributes that the request names, as EXT4_SET_* and the like; fills in their values. */
static unsigned named_attributes(const struct fuse_setattr_in *in, struct ext4_attr *attr)
{
	static const struct {
		uint32_t fuse_valid;
		unsigned what;
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
		if (in->valid & map[k].fuse_valid)
			what |= map[k].what;
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

/* What the request changes, apart from the size (EXT4_SET_* and the like). Workers, OPS_TRY. */
static unsigned what_to_change(struct ops_req *req, struct ext4_inode *inode,
			       const struct fuse_setattr_in *in, struct ext4_attr *attr)
{
	unsigned what = named_attributes(in, attr);

	/*
	 * A request that names no attribute has one of two causes: chown(-1, -1), which changes
	 * ctime; or a write, before which the kernel has removed the capabilities and wants the
	 * set-ID bits removed, too, unless root writes.
	 */
	if (!what && !(in->valid & FATTR_SIZE))
		what = EXT4_TOUCH_CTIME | (ops_is_root(req) ? 0 : EXT4_KILL_SUIDGID);
	/*
	 * A file whose owner or group changes loses its privileges, even if root changes it: the
	 * kernel leaves this to the daemon.
	 */
	if (what & (EXT4_SET_UID | EXT4_SET_GID))
		what |= EXT4_KILL_SUIDGID;
	if (S_ISDIR(ext4_inode_mode(inode)))
		what &= ~(unsigned)EXT4_KILL_SUIDGID;
	if (what & EXT4_KILL_SUIDGID)
		what |= ops_kill_flags(req, inode);
	return what;
}

static int setattr_inode(struct ops_req *req, struct ext4_inode *inode,
			 const struct fuse_setattr_in *in)
{
	struct ops *ops = req->ops;
	struct ext4_attr attr = { 0 };
	uint64_t since = ext4_evictions(ops->vol);
	bool root = ops_may_use_reserved(req);
	unsigned what;
	int err = ops_setattr_allowed(inode, in);

	if (!err)
		err = ops_miss_if_sync(ops, inode);
	if (err)
		return err;
	what = what_to_change(req, inode, in, &attr);
	if (in->valid & FATTR_SIZE)
		err = ops_set_size(ops, inode, in->size);
	while (!err && what) {
		err = ext4_setattr(inode, what | (root ? EXT4_BY_ROOT : 0), &attr);
		if (!ops_space_again(req, err, &since, &root))
			break;
		err = 0;
	}
	return ops_inode_durable(ops, inode, err);
}

void ops_setattr(struct ops_req *req)
{
	const struct fuse_setattr_in *in = ops_arg(req);
	struct ext4_inode *inode;
	int err = ops_inode_get(req->ops, req->fuse.in.header.nodeid, &inode);
	uint64_t size;

	if (err) {
		ops_reply_err(req, err);
		return;
	}
	/*
	 * Pages that programs have stored into before would be written back later, and change the
	 * mtime that this request sets.
	 */
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
