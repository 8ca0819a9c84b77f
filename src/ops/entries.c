/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attributes and directory entries in the format of FUSE. An answer with an entry gives the kernel
 * a reference of the inode. Loop threads and workers; no lock is held here, nothing blocks or
 * fails.
 */
#include "ops/types.h"

void ops_fill_attr(struct ops *ops, struct ext4_inode *inode, struct fuse_attr *out)
{
	struct ext4_attr attr;

	ext4_getattr(inode, &attr);
	*out = (struct fuse_attr){
		.ino = attr.ino,
		.size = attr.size,
		.blocks = attr.blocks_512,
		.atime = (uint64_t)attr.atime.tv_sec,
		.mtime = (uint64_t)attr.mtime.tv_sec,
		.ctime = (uint64_t)attr.ctime.tv_sec,
		.atimensec = (uint32_t)attr.atime.tv_nsec,
		.mtimensec = (uint32_t)attr.mtime.tv_nsec,
		.ctimensec = (uint32_t)attr.ctime.tv_nsec,
		.mode = attr.mode,
		.nlink = attr.nlink,
		.uid = attr.uid,
		.gid = attr.gid,
		.rdev = attr.rdev,
		.blksize = 1u << ext4_vol_block_bits(ops->vol),
	};
}

/*
 * If pages over holes of the file may be mapped, programs can add blocks to it without the kernel
 * noticing: then the kernel must ask for the attributes each time.
 */
uint64_t ops_attr_valid(struct ext4_inode *inode)
{
	if (S_ISREG(ext4_inode_mode(inode)) &&
	    unlikely(dio_cached_maybe(inode, DIO_CACHED_HOLES, 0)))
		return 0;
	return OPS_VALID_S;
}

void ops_fill_entry(struct ops *ops, struct ext4_inode *inode, struct fuse_entry_out *out)
{
	*out = (struct fuse_entry_out){
		.nodeid = ops_nodeid(inode),
		.generation = ext4_inode_gen(inode),
		.entry_valid = OPS_VALID_S,
		.attr_valid = ops_attr_valid(inode),
	};
	ops_fill_attr(ops, inode, &out->attr);
	if (out->nodeid != FUSE_ROOT_ID)
		ext4_lookups_add(inode, 1); /* before the answer: FORGET may follow it at once */
}

void ops_reply_entry(struct ops_req *req, int err, struct ext4_inode *inode)
{
	struct fuse_entry_out entry;

	if (!err && nowait_missed()) {
		ext4_inode_put(inode);
		err = -EAGAIN;
	}
	if (err) {
		ops_reply_err(req, err);
		return;
	}
	ops_fill_entry(req->ops, inode, &entry);
	/* The kernel never forgets the root, so a lookup of it must not keep a reference. */
	if (entry.nodeid == FUSE_ROOT_ID)
		ext4_inode_put(inode);
	ops_reply_data(req, &entry, sizeof(entry));
}
