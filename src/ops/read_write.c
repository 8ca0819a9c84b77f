/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * READ and WRITE, on the loop thread: finds out what kind of I/O the request is, and hands it to
 * the direct-I/O engine, which calls rw_done once, on any thread, to answer. Nothing here blocks,
 * allocates, locks or writes to a cache line that another CPU reads. Fails with EBADF, EINVAL,
 * EPERM, and with what the engine says.
 *
 * The kernel tells the kind of I/O by flags. FUSE_READ_LOCKOWNER or FUSE_WRITE_LOCKOWNER with
 * O_DIRECT: direct I/O, from or to the program's own buffer. FUSE_WRITE_CACHE: write-back of mapped
 * pages. Else: buffered I/O. O_DIRECT alone proves nothing, because requests for pages of an
 * O_DIRECT file that is mapped carry it too. O_DSYNC and O_SYNC are honoured here, because for
 * asynchronous I/O the kernel sends no FSYNC after the write.
 */
#include "ops/types.h"

#include <fcntl.h>

static void rw_done(struct dio_req *io, ssize_t result)
{
	struct ops_req *req = container_of(io, struct ops_req, dio);
	struct fuse_write_out out;

	if (result < 0) {
		ops_reply_err(req, (int)result);
	} else if (io->flags & DIO_WRITE) {
		out = (struct fuse_write_out){ .size = (uint32_t)result };
		transport_reply_data(&req->fuse, &out, sizeof(out));
	} else {
		transport_reply(&req->fuse, 0, (uint32_t)result);
	}
}

static void submit(struct ops_req *req, struct ops_file *file, uint64_t pos, uint32_t len,
		   unsigned flags)
{
	req->dio.file = file->file;
	req->dio.pos = pos;
	req->dio.len = len;
	req->dio.flags = flags;
	req->dio.buf = req->fuse.payload;
	req->dio.buf_index = req->fuse.buf_index;
	req->dio.buf_cap = req->fuse.payload_cap;
	req->dio.done = rw_done;
	dio_submit(req->ops->dio, &req->dio);
}

/*
 * Reads data that is in the inode, and so in memory. O_DIRECT is served the same way, with any
 * alignment, as the kernel's ext4 does.
 */
static void read_inline(struct ops_req *req, struct ops_file *file, const struct fuse_read_in *in)
{
	ssize_t n = ext4_inline_read(file->inode, in->offset, req->fuse.payload, in->size);

	ops_reply(req, n < 0 ? (int)n : 0, n < 0 ? 0 : (uint32_t)n);
}

void ops_read(struct ops_req *req)
{
	const struct fuse_read_in *in = ops_arg(req);
	struct ops_file *file = ops_file_get(req->ops, in->fh);
	unsigned flags = 0;

	if (unlikely(!file || !file->file)) {
		ops_reply_err(req, -EBADF);
		return;
	}
	if (unlikely(in->size > req->fuse.payload_cap || in->offset > INT64_MAX)) {
		ops_reply_err(req, -EINVAL);
		return;
	}
	if (unlikely(req->ops->has_inline) && ext4_inode_inline(file->inode)) {
		read_inline(req, file, in);
		return;
	}
	if ((in->read_flags & FUSE_READ_LOCKOWNER) && (in->flags & O_DIRECT))
		flags |= DIO_DIRECT;
	if (in->flags & O_NOATIME)
		flags |= DIO_NOATIME;
	submit(req, file, in->offset, in->size, flags);
}

/* inode_flags: EXT4_LIVE_* as they are now, which may not be what they were at open. */
static unsigned write_flags(const struct ops_req *req, uint32_t inode_flags,
			    const struct fuse_write_in *in)
{
	unsigned flags = DIO_WRITE;

	if (unlikely(req->ops->config.sync || (inode_flags & EXT4_LIVE_SYNC)))
		flags |= DIO_DSYNC | DIO_SYNC;
	if (in->write_flags & FUSE_WRITE_CACHE)
		/* The program's stores have succeeded already: a refusal now would lose them. */
		return flags | DIO_ROOT | DIO_WRITEBACK;
	if ((in->write_flags & FUSE_WRITE_LOCKOWNER) && (in->flags & O_DIRECT))
		flags |= DIO_DIRECT;
	if (in->flags & O_DSYNC)
		flags |= DIO_DSYNC;
	if ((in->flags & O_SYNC) == O_SYNC)
		flags |= DIO_SYNC | DIO_DSYNC;
	/*
	 * Every write removes the file's capabilities, even one by root. For a descriptor that
	 * bypasses the page cache the kernel leaves that to the daemon.
	 */
	flags |= in->write_flags & FUSE_WRITE_KILL_SUIDGID ? DIO_KILLPRIV : DIO_KILLCAPS;
	if (ops_may_use_reserved(req))
		flags |= DIO_ROOT;
	return flags;
}

void ops_write(struct ops_req *req)
{
	const struct fuse_write_in *in = ops_arg(req);
	struct ops_file *file = ops_file_get(req->ops, in->fh);
	uint32_t inode_flags;

	if (unlikely(!file || !file->file)) {
		ops_reply_err(req, -EBADF);
		return;
	}
	if (unlikely(in->size > req->fuse.in.data_len || req->fuse.in.data != req->fuse.payload ||
		     in->offset > INT64_MAX || in->size > INT64_MAX - in->offset)) {
		ops_reply_err(req, -EINVAL);
		return;
	}
	/*
	 * A write through a descriptor that was opened before the file became immutable is refused;
	 * write-back is not, because the stores came before that.
	 */
	inode_flags = ext4_inode_live_flags(file->inode);
	if (unlikely((inode_flags & EXT4_LIVE_IMMUTABLE) &&
		     !(in->write_flags & FUSE_WRITE_CACHE))) {
		ops_reply_err(req, -EPERM);
		return;
	}
	submit(req, file, in->offset, in->size, write_flags(req, inode_flags, in));
}
