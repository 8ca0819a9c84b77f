/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * LOOKUP, GETATTR, STATX, SETATTR and the encoding of attributes and entries: OPS_TRY, but for a change of size, which is for
 * workers. It closes the inode's gate first: direct I/O in flight ends before blocks are freed.
 */
#include "ops/types.h"

static uint64_t blksize(struct ops *o) { return 1ULL << x4_vol_block_bits(o->vol); }

void ops_fill_attr(struct ops *o, struct x4_inode *i, struct fuse_attr *out)
{
	struct x4_attr a;

	x4_getattr(i, &a);
	*out = (struct fuse_attr){
		.ino = a.ino, .size = a.size, .blocks = a.blocks_512,
		.atime = (uint64_t)a.atime.tv_sec, .mtime = (uint64_t)a.mtime.tv_sec, .ctime = (uint64_t)a.ctime.tv_sec,
		.atimensec = (uint32_t)a.atime.tv_nsec, .mtimensec = (uint32_t)a.mtime.tv_nsec, .ctimensec = (uint32_t)a.ctime.tv_nsec,
		.mode = a.mode, .nlink = a.nlink, .uid = a.uid, .gid = a.gid, .rdev = a.rdev, .blksize = (uint32_t)blksize(o),
	};
}

/* Blocks come to a file whose holes may be mapped without our knowing: to be asked for each time. */
static uint64_t attr_valid(struct x4_inode *i)
{
	return S_ISREG(x4_inode_mode(i)) && unlikely(dio_cached_maybe(i, DIO_CACHED_HOLES, 0)) ? 0 : OPS_VALID_S;
}

void ops_fill_entry(struct ops *o, struct x4_inode *i, struct fuse_entry_out *out)
{
	*out = (struct fuse_entry_out){
		.nodeid = ops_nodeid(i), .generation = x4_inode_gen(i), .entry_valid = OPS_VALID_S, .attr_valid = attr_valid(i),
	};
	ops_fill_attr(o, i, &out->attr);
	if (out->nodeid != FUSE_ROOT_ID)
		x4_lookups_add(i, 1); /* before anybody can forget it */
}

void ops_reply_entry(struct ops_req *q, int err, struct x4_inode *i)
{
	struct fuse_entry_out e;

	if (!err && nowait_missed()) {
		x4_iput(i);
		err = -EAGAIN;
	}
	if (err) {
		ops_reply_err(q, err);
		return;
	}
	ops_fill_entry(q->ops, i, &e);
	/* The kernel does not count lookups of its root, so they must not keep references. */
	if (e.nodeid == FUSE_ROOT_ID)
		x4_iput(i);
	ops_reply_data(q, &e, sizeof(e));
}

static bool name_is(const struct pro_in *in, const char *s)
{
	return in->name_len == strlen(s) && !memcmp(in->name, s, in->name_len);
}

static void reply_lookup(struct ops_req *q, int err, struct x4_inode *i)
{
	struct fuse_entry_out none = { .entry_valid = OPS_VALID_S };

	if (err == -ENOENT)
		ops_reply_data(q, &none, sizeof(none)); /* the kernel remembers that there is no such name */
	else
		ops_reply_entry(q, err, i);
}

static int lookup(struct ops_req *q, struct x4_inode *dir, struct x4_inode **ret)
{
	const struct pro_in *in = &q->tr.in;
	int err;

	/* "." and ".." come from open_by_handle_at and name_to_handle_at users such as an NFS server; "." of any file. */
	if (name_is(in, ".")) {
		*ret = x4_iref(dir);
		return 0;
	}
	if (!S_ISDIR(x4_inode_mode(dir)))
		return -ENOTDIR;
	err = name_is(in, "..") ? x4_lookup_parent(dir, ret) : x4_lookup(dir, in->name, in->name_len, ret);
	if (!err && (x4_inode_flags(*ret) & OPS_FL_EA_INODE)) {
		x4_iput(*ret);
		err = -ESTALE;
	}
	return err;
}

void ops_lookup(struct ops_req *q)
{
	const struct pro_in *in = &q->tr.in;
	struct x4_inode *dir, *i = NULL;
	bool parent = name_is(in, "..");
	int err = in->name_len > X4_NAME_MAX ? -ENAMETOOLONG : ops_iget(q->ops, in->h.nodeid, &dir);

	if (err) {
		ops_reply_err(q, err);
		return;
	}
	err = lookup(q, dir, &i);
	if (parent)
		ops_reply_entry(q, err, i);
	else
		reply_lookup(q, err, i);
	x4_iput(dir);
}

static void reply_attr(struct ops_req *q, struct x4_inode *i)
{
	struct fuse_attr_out out = { .attr_valid = attr_valid(i) };

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
	s->blksize = (uint32_t)blksize(o);
	s->attributes_mask = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP;
	s->attributes = (a.flags & OPS_FL_IMMUTABLE ? STATX_ATTR_IMMUTABLE : 0) | (a.flags & OPS_FL_APPEND ? STATX_ATTR_APPEND : 0) |
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
	out.attr_valid = attr_valid(i);
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
	static const struct { uint32_t fuse; unsigned x4; } map[] = {
		{ FATTR_MODE, X4_SET_MODE }, { FATTR_UID, X4_SET_UID }, { FATTR_GID, X4_SET_GID }, { FATTR_ATIME, X4_SET_ATIME },
		{ FATTR_MTIME, X4_SET_MTIME }, { FATTR_CTIME, X4_SET_CTIME }, { FATTR_KILL_SUIDGID, X4_KILL_SUIDGID },
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

/* Immutable: nothing changes. Append-only: no truncation, no attributes but times to now. */
static int setattr_allowed(struct x4_inode *i, const struct fuse_setattr_in *in)
{
	uint32_t fl = x4_inode_flags(i);
	uint32_t v = in->valid & (FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE | FATTR_ATIME | FATTR_MTIME);

	if (!v || !(fl & (OPS_FL_IMMUTABLE | OPS_FL_APPEND)))
		return 0;
	if (fl & OPS_FL_IMMUTABLE)
		return -EPERM;
	if (v & (FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_SIZE))
		return -EPERM;
	if (((v & FATTR_ATIME) && !(in->valid & FATTR_ATIME_NOW)) || ((v & FATTR_MTIME) && !(in->valid & FATTR_MTIME_NOW)))
		return -EPERM;
	return 0;
}

static int setattr_inode(struct ops_req *q, struct x4_inode *i, const struct fuse_setattr_in *in)
{
	struct ops *o = q->ops;
	struct x4_attr a = { 0 };
	unsigned what = setattr_what(in, &a);
	int err = setattr_allowed(i, in);

	if (!err)
		err = ops_may_change(o, i);
	if (err)
		return err;
	/*
	 * Nothing named: chown(-1, -1), which changes ctime; or the kernel has taken the capabilities away before a write and
	 * wants the other privileges to go as well, unless root writes.
	 */
	if (!what && !(in->valid & FATTR_SIZE))
		what = X4_TOUCH_CTIME | (q->tr.in.h.uid == 0 ? 0 : X4_KILL_SUIDGID);
	/* The kernel leaves it to us to take the privileges away when a file changes hands, whoever does it. */
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
