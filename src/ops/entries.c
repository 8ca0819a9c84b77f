/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attributes and entries as FUSE has them. Any thread, no lock, never blocks. An entry that is
 * answered gives the kernel a reference of its inode.
 */
#include "ops/types.h"

void ops_fill_attr(struct ops *o, struct x4_inode *i, struct fuse_attr *out)
{
	struct x4_attr a;

	x4_getattr(i, &a);
	*out = (struct fuse_attr){
		.ino = a.ino,
		.size = a.size,
		.blocks = a.blocks_512,
		.atime = (uint64_t)a.atime.tv_sec,
		.mtime = (uint64_t)a.mtime.tv_sec,
		.ctime = (uint64_t)a.ctime.tv_sec,
		.atimensec = (uint32_t)a.atime.tv_nsec,
		.mtimensec = (uint32_t)a.mtime.tv_nsec,
		.ctimensec = (uint32_t)a.ctime.tv_nsec,
		.mode = a.mode,
		.nlink = a.nlink,
		.uid = a.uid,
		.gid = a.gid,
		.rdev = a.rdev,
		.blksize = 1u << x4_vol_block_bits(o->vol),
	};
}

/*
 * Blocks come to a file whose holes may be mapped without our knowing: to be asked for each time.
 */
uint64_t ops_attr_valid(struct x4_inode *i)
{
	return S_ISREG(x4_inode_mode(i)) && unlikely(dio_cached_maybe(i, DIO_CACHED_HOLES, 0))
		       ? 0
		       : OPS_VALID_S;
}

void ops_fill_entry(struct ops *o, struct x4_inode *i, struct fuse_entry_out *out)
{
	*out = (struct fuse_entry_out){
		.nodeid = ops_nodeid(i),
		.generation = x4_inode_gen(i),
		.entry_valid = OPS_VALID_S,
		.attr_valid = ops_attr_valid(i),
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
