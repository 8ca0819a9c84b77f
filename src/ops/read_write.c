/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * READ and WRITE: classify and hand to the direct-I/O engine, on the loop thread. Nothing here
 * allocates, locks or writes a line that another CPU reads. The engine answers through rw_done,
 * once, on any thread.
 *
 * What the kernel tells about a request: LOCKOWNER set means that the application's buffer is read
 * or written directly; WRITE_CACHE means write-back of mapped pages; neither means buffered I/O.
 * O_DIRECT among the flags alone proves nothing (a mapping of an O_DIRECT file carries it too).
 * O_DSYNC and O_SYNC are the call's: no FSYNC follows for asynchronous I/O.
 */
#include "ops/types.h"

#include <fcntl.h>

static void rw_done(struct dio_req *req, ssize_t result)
{
	struct ops_req *q = container_of(req, struct ops_req, dio);
	struct fuse_write_out out;

	if (result < 0) {
		ops_reply_err(q, (int)result);
	} else if (req->flags & DIO_WRITE) {
		out = (struct fuse_write_out){ .size = (uint32_t)result };
		transport_reply_data(&q->tr, &out, sizeof(out));
	} else {
		transport_reply(&q->tr, 0, (uint32_t)result);
	}
}

static void submit(struct ops_req *req, struct ops_file *file, uint64_t pos, uint32_t len,
		   unsigned flags)
{
	req->dio.file = file->file;
	req->dio.pos = pos;
	req->dio.len = len;
	req->dio.flags = flags;
	req->dio.buf = req->tr.payload;
	req->dio.buf_index = req->tr.buf_index;
	req->dio.buf_cap = req->tr.payload_cap;
	req->dio.done = rw_done;
	dio_submit(req->ops->dio, &req->dio);
}

/* What lies in the inode is in memory. The kernel serves O_DIRECT so too, of any alignment. */
static void read_inline(struct ops_req *req, struct ops_file *file, const struct fuse_read_in *in)
{
	ssize_t n = ext4_inline_read(file->inode, in->offset, req->tr.payload, in->size);

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
	if (unlikely(in->size > req->tr.payload_cap || in->offset > INT64_MAX)) {
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

/* live: the inode's flags of now, whatever they were when it was opened. */
static unsigned write_flags(const struct ops_req *req, uint32_t live,
			    const struct fuse_write_in *in)
{
	unsigned flags = DIO_WRITE;

	if (unlikely(req->ops->config.sync || (live & EXT4_LIVE_SYNC)))
		flags |= DIO_DSYNC | DIO_SYNC;
	if (in->write_flags & FUSE_WRITE_CACHE)
		/* accepted long ago: refusing it now would lose it */
		return flags | DIO_ROOT | DIO_WRITEBACK;
	if ((in->write_flags & FUSE_WRITE_LOCKOWNER) && (in->flags & O_DIRECT))
		flags |= DIO_DIRECT;
	if (in->flags & O_DSYNC)
		flags |= DIO_DSYNC;
	if ((in->flags & O_SYNC) == O_SYNC)
		flags |= DIO_SYNC | DIO_DSYNC;
	/*
	 * Capabilities go whoever writes; for a descriptor without page cache the kernel leaves
	 * that to us.
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
	uint32_t live;

	if (unlikely(!file || !file->file)) {
		ops_reply_err(req, -EBADF);
		return;
	}
	if (unlikely(in->size > req->tr.in.data_len || req->tr.in.data != req->tr.payload ||
		     in->offset > INT64_MAX || in->size > INT64_MAX - in->offset)) {
		ops_reply_err(req, -EINVAL);
		return;
	}
	/*
	 * Also through a descriptor from before the flag; but not what the page cache took on
	 * before.
	 */
	live = ext4_inode_live_flags(file->inode);
	if (unlikely((live & EXT4_LIVE_IMMUTABLE) && !(in->write_flags & FUSE_WRITE_CACHE))) {
		ops_reply_err(req, -EPERM);
		return;
	}
	submit(req, file, in->offset, in->size, write_flags(req, live, in));
}
