/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dispatch: opcode to handler, on the loop thread or on a worker. ops_handle runs on the loop
 * thread that received the request and never blocks: what might is tried in the mode of nowait.h,
 * and done again on a worker if it would have waited. No lock is held while a handler runs. An
 * opcode without a handler gets ENOSYS: the kernel then stops sending it.
 */
#include "ops/types.h"

static const struct ops_handler handlers[] = {
	[FUSE_LOOKUP] = { ops_lookup, OPS_TRY | OPS_SHUT },
	[FUSE_GETATTR] = { ops_getattr, OPS_TRY | OPS_SHUT },
	[FUSE_SETATTR] = { ops_setattr, OPS_TRY | OPS_CHANGE },
	[FUSE_READLINK] = { ops_readlink, OPS_TRY | OPS_SHUT },
	[FUSE_SYMLINK] = { ops_symlink, OPS_TRY | OPS_CHANGE },
	[FUSE_MKNOD] = { ops_mknod, OPS_TRY | OPS_CHANGE },
	[FUSE_MKDIR] = { ops_mkdir, OPS_TRY | OPS_CHANGE },
	[FUSE_UNLINK] = { ops_unlink, OPS_TRY | OPS_CHANGE },
	[FUSE_RMDIR] = { ops_rmdir, OPS_TRY | OPS_CHANGE },
	[FUSE_RENAME] = { ops_rename, OPS_TRY | OPS_CHANGE },
	[FUSE_RENAME2] = { ops_rename2, OPS_TRY | OPS_CHANGE },
	[FUSE_LINK] = { ops_link, OPS_TRY | OPS_CHANGE },
	[FUSE_OPEN] = { ops_open, OPS_TRY },
	[FUSE_CREATE] = { ops_create, OPS_TRY | OPS_CHANGE },
	[FUSE_TMPFILE] = { ops_tmpfile, OPS_TRY | OPS_CHANGE },
	[FUSE_RELEASE] = { ops_release, OPS_TRY | OPS_SHUT },
	[FUSE_READ] = { ops_read, OPS_LOOP },
	[FUSE_WRITE] = { ops_write, OPS_LOOP | OPS_CHANGE },
	[FUSE_LSEEK] = { ops_lseek, OPS_SHUT },
	[FUSE_FALLOCATE] = { ops_fallocate, OPS_CHANGE },
	[FUSE_OPENDIR] = { ops_opendir, OPS_TRY | OPS_SHUT },
	[FUSE_READDIR] = { ops_readdir, OPS_TRY | OPS_SHUT },
	[FUSE_READDIRPLUS] = { ops_readdirplus, OPS_TRY | OPS_SHUT },
	[FUSE_RELEASEDIR] = { ops_release, OPS_TRY | OPS_SHUT },
	[FUSE_FSYNC] = { ops_fsync, OPS_LOOP },
	[FUSE_FSYNCDIR] = { ops_fsyncdir, OPS_LOOP },
	[FUSE_SYNCFS] = { ops_syncfs, OPS_LOOP },
	[FUSE_SETXATTR] = { ops_setxattr, OPS_CHANGE },
	[FUSE_GETXATTR] = { ops_getxattr, OPS_TRY },
	[FUSE_LISTXATTR] = { ops_listxattr, OPS_TRY | OPS_SHUT },
	[FUSE_REMOVEXATTR] = { ops_removexattr, OPS_CHANGE },
	[FUSE_STATFS] = { ops_statfs, OPS_TRY | OPS_SHUT },
	[FUSE_STATX] = { ops_statx, OPS_TRY | OPS_SHUT },
	[FUSE_IOCTL] = { ops_ioctl, OPS_SHUT },
};

size_t ops_req_size(void) { return sizeof(struct ops_req); }

static void run_on_worker(struct work *work)
{
	struct ops_req *req = container_of(work, struct ops_req, work);

	req->handler->fn(req);
}

/* req may be gone when it returns. */
static void try_on_loop(struct ops_req *req)
{
	struct work_queue *workers = req->ops->config.workers;

	ops_try_begin();
	req->handler->fn(req);
	if (ops_try_answered()) {
		fdio_count(COUNTER_ops_loop);
		return;
	}
	fdio_count(COUNTER_ops_again);
	work_queue_add(workers, &req->work, run_on_worker);
}

void ops_handle(struct transport_req *req, void *arg)
{
	struct ops_req *q = ops_of(req);
	struct ops *ops = arg;
	uint32_t op = req->in.header.opcode;
	const struct ops_handler *handler = op < ARRAY_SIZE(handlers) ? &handlers[op] : NULL;

	q->ops = ops;
	q->handler = handler;
	q->inode = NULL;
	q->laundered = false;
	if (!handler || !handler->fn) {
		ops_reply_err(q, -ENOSYS);
		return;
	}
	if (unlikely(ext4_vol_is_shut_down(ops->vol)) && !(handler->flags & OPS_SHUT)) {
		ops_reply_err(q, -EIO);
		return;
	}
	if ((handler->flags & OPS_CHANGE) && ext4_vol_read_only(ops->vol)) {
		ops_reply_err(q, -EROFS);
		return;
	}
	if (handler->flags & OPS_LOOP)
		handler->fn(q);
	else if (handler->flags & OPS_TRY)
		try_on_loop(q);
	else
		work_queue_add(ops->config.workers, &q->work, run_on_worker);
}
