/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a file has data, and changing that: LSEEK (SEEK_DATA, SEEK_HOLE) and FALLOCATE, on workers.
 * LSEEK takes the inode's lock shared. FALLOCATE first closes the gate of the inode (dio/dio.h), so
 * that no direct I/O is in flight, and then takes the lock exclusively. Fails with EBADF, EINVAL,
 * EFBIG, EOPNOTSUPP for modes that are not served, and with what src/ext4 says.
 */
#include "ops/types.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

/*
 * As ext4_seek, for a file with a range of mapped pages, unknown->off to unknown->end, that
 * programs may have stored into while the extent map still shows holes there. The whole range
 * counts as data: a program that copies it reads the page cache, which has zeroes where nothing was
 * stored.
 */
static int seek_past_unknown(struct ext4_inode *inode, const struct dio_cached *unknown,
			     uint64_t off, bool want_data, uint64_t *ret)
{
	uint64_t size = ext4_inode_size(inode), end = FDIO_MIN(unknown->end, size);
	int err;

	if (want_data && off < end && off >= unknown->off) {
		*ret = off;
		return 0;
	}
	err = ext4_seek(inode, off, want_data, ret);
	if (want_data) {
		if (off < unknown->off && unknown->off < size &&
		    (err == -ENXIO || (!err && *ret > unknown->off))) {
			*ret = unknown->off;
			err = 0;
		}
		return err;
	}
	if (err || *ret < unknown->off || *ret >= end)
		return err;
	if (end < size)
		return ext4_seek(inode, end, false, ret);
	*ret = size;
	return 0;
}

void ops_lseek(struct ops_req *req)
{
	const struct fuse_lseek_in *in = ops_arg(req);
	struct fuse_lseek_out out = { 0 };
	struct ops_file *file = ops_file_get(req->ops, in->fh);
	bool want_data = in->whence == SEEK_DATA;
	int err;

	if (!file || !file->file)
		err = -EBADF;
	else if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		err = -EINVAL;
	else if (ops_launder_first(req, file->inode, DIO_CACHED_HOLES))
		return;
	else {
		ext4_inode_lock_shared(file->inode);
		if (ops_holes_unknown(req))
			err = seek_past_unknown(file->inode, &req->cached, in->offset, want_data,
						&out.offset);
		else
			err = ext4_seek(file->inode, in->offset, want_data, &out.offset);
		ext4_inode_unlock(file->inode);
	}
	if (err)
		ops_reply_err(req, err);
	else
		ops_reply_data(req, &out, sizeof(out));
}

/* From FALLOC_FL_* to EXT4_FALLOC_*. */
static int fallocate_mode(uint32_t mode, int *ret)
{
	switch (mode) {
	case 0:
		*ret = 0;
		return 0;
	case FALLOC_FL_KEEP_SIZE:
		*ret = EXT4_FALLOC_KEEP_SIZE;
		return 0;
	case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
		*ret = EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE;
		return 0;
	case FALLOC_FL_ZERO_RANGE:
		*ret = EXT4_FALLOC_ZERO_RANGE;
		return 0;
	case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
		*ret = EXT4_FALLOC_ZERO_RANGE | EXT4_FALLOC_KEEP_SIZE;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static int fallocate_gated(struct ops *ops, struct ext4_inode *inode, int mode,
			   const struct fuse_fallocate_in *in, bool root)
{
	int err = dio_gate_close(ops->dio, inode, DIO_GATE_ALL);

	if (err)
		return err;
	ext4_inode_lock_exclusive(inode);
	err = ext4_fallocate(inode, mode, in->offset, in->length, root);
	ext4_inode_unlock(inode);
	dio_gate_open(ops->dio, inode, DIO_GATE_ALL);
	return err;
}

void ops_fallocate(struct ops_req *req)
{
	const struct fuse_fallocate_in *in = ops_arg(req);
	struct ops *ops = req->ops;
	struct ops_file *file = ops_file_get(ops, in->fh);
	struct ext4_attr none = { 0 };
	uint64_t since = ext4_evictions(ops->vol), size;
	bool root = ops_may_use_reserved(req);
	int mode = 0, err = fallocate_mode(in->mode, &mode);

	if (!err && (!file || !file->file))
		err = -EBADF;
	if (!err && (!in->length || in->offset > INT64_MAX || in->length > INT64_MAX - in->offset))
		err = in->length && in->offset <= INT64_MAX ? -EFBIG : -EINVAL;
	if (err)
		goto out;
	size = ext4_inode_size(file->inode);
	do {
		err = fallocate_gated(ops, file->inode, mode, in, root);
	} while (ops_space_again(req, err, &since, &root));
	/* As after a write by the process, the file loses its set-ID bits and capabilities. */
	if (!err && ext4_needs_killpriv(file->inode) && !ops_is_root(req))
		err = ext4_setattr(file->inode, ops_kill_flags(req, file->inode), &none);
	if (!err && (ops_is_sync(ops, file->inode) || (file->open_flags & (O_DSYNC | O_SYNC))))
		err = ops_wait_durable(ops, file->inode, false);
	if (err)
		ops_size_failed(ops, file->inode, size);
	else if (ext4_inode_size(file->inode) > size && ops_launder_tail(req, file->inode, size))
		return;
out:
	ops_reply_err(req, err);
}
