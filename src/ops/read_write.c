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

static void rw_done(struct dio_req *d, ssize_t result)
{
	struct ops_req *q = container_of(d, struct ops_req, dio);
	struct fuse_write_out out;

	if (result < 0) {
		ops_reply_err(q, (int)result);
	} else if (d->flags & DIO_WRITE) {
		out = (struct fuse_write_out){ .size = (uint32_t)result };
		tr_reply_data(&q->tr, &out, sizeof(out));
	} else {
		tr_reply(&q->tr, 0, (uint32_t)result);
	}
}

static void submit(struct ops_req *q, struct ops_file *f, uint64_t pos, uint32_t len,
		   unsigned flags)
{
	q->dio.file = f->df;
	q->dio.pos = pos;
	q->dio.len = len;
	q->dio.flags = flags;
	q->dio.buf = q->tr.payload;
	q->dio.buf_index = q->tr.buf_index;
	q->dio.buf_cap = q->tr.payload_cap;
	q->dio.done = rw_done;
	dio_submit(q->ops->dio, &q->dio);
}

/* What lies in the inode is in memory. The kernel serves O_DIRECT so too, of any alignment. */
static void read_inline(struct ops_req *q, struct ops_file *f, const struct fuse_read_in *in)
{
	ssize_t n = x4_inline_read(f->inode, in->offset, q->tr.payload, in->size);

	ops_reply(q, n < 0 ? (int)n : 0, n < 0 ? 0 : (uint32_t)n);
}

void ops_read(struct ops_req *q)
{
	const struct fuse_read_in *in = ops_arg(q);
	struct ops_file *f = ops_file_get(q->ops, in->fh);
	unsigned flags = 0;

	if (unlikely(!f || !f->df)) {
		ops_reply_err(q, -EBADF);
		return;
	}
	if (unlikely(in->size > q->tr.payload_cap || in->offset > INT64_MAX)) {
		ops_reply_err(q, -EINVAL);
		return;
	}
	if (unlikely(q->ops->has_inline) && x4_inode_inline(f->inode)) {
		read_inline(q, f, in);
		return;
	}
	if ((in->read_flags & FUSE_READ_LOCKOWNER) && (in->flags & O_DIRECT))
		flags |= DIO_DIRECT;
	if (in->flags & O_NOATIME)
		flags |= DIO_NOATIME;
	submit(q, f, in->offset, in->size, flags);
}

/* live: the inode's flags of now, whatever they were when it was opened. */
static unsigned write_flags(const struct ops_req *q, uint32_t live, const struct fuse_write_in *in)
{
	unsigned flags = DIO_WRITE;

	if (unlikely(q->ops->cfg.sync || (live & X4_LIVE_SYNC)))
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
	if (ops_may_use_reserved(q))
		flags |= DIO_ROOT;
	return flags;
}

void ops_write(struct ops_req *q)
{
	const struct fuse_write_in *in = ops_arg(q);
	struct ops_file *f = ops_file_get(q->ops, in->fh);
	uint32_t live;

	if (unlikely(!f || !f->df)) {
		ops_reply_err(q, -EBADF);
		return;
	}
	if (unlikely(in->size > q->tr.in.data_len || q->tr.in.data != q->tr.payload ||
		     in->offset > INT64_MAX || in->size > INT64_MAX - in->offset)) {
		ops_reply_err(q, -EINVAL);
		return;
	}
	/*
	 * Also through a descriptor from before the flag; but not what the page cache took on
	 * before.
	 */
	live = x4_inode_live_flags(f->inode);
	if (unlikely((live & X4_LIVE_IMMUTABLE) && !(in->write_flags & FUSE_WRITE_CACHE))) {
		ops_reply_err(q, -EPERM);
		return;
	}
	submit(q, f, in->offset, in->size, write_flags(q, live, in));
}
