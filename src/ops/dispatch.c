/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Dispatch: calls the handler of a request. ops_handle runs on the loop thread that received the
 * request and never blocks. It calls the handler itself (OPS_LOOP), tries it in the mode of
 * base/nowait.h and hands it to a worker if it missed (OPS_TRY), or hands it to a worker at once.
 * No lock is held while a handler runs.
 *
 * Refused here: opcodes without a handler with ENOSYS, upon which the kernel stops sending them;
 * changes of a read-only volume with EROFS; and with EIO what ext4 refuses after a shutdown.
 */
#include "ops/types.h"

static const struct ops_handler handlers[] = {
	[FUSE_LOOKUP] = { ops_lookup, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_GETATTR] = { ops_getattr, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_SETATTR] = { ops_setattr, OPS_TRY | OPS_CHANGE },
	[FUSE_READLINK] = { ops_readlink, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_SYMLINK] = { ops_symlink, OPS_TRY | OPS_CHANGE | OPS_CREATES },
	[FUSE_MKNOD] = { ops_mknod, OPS_TRY | OPS_CHANGE | OPS_CREATES },
	[FUSE_MKDIR] = { ops_mkdir, OPS_TRY | OPS_CHANGE | OPS_CREATES },
	[FUSE_UNLINK] = { ops_unlink, OPS_TRY | OPS_CHANGE },
	[FUSE_RMDIR] = { ops_rmdir, OPS_TRY | OPS_CHANGE },
	[FUSE_RENAME] = { ops_rename, OPS_TRY | OPS_CHANGE },
	[FUSE_RENAME2] = { ops_rename2, OPS_TRY | OPS_CHANGE | OPS_CREATES },
	[FUSE_LINK] = { ops_link, OPS_TRY | OPS_CHANGE },
	[FUSE_OPEN] = { ops_open, OPS_TRY },
	[FUSE_CREATE] = { ops_create, OPS_TRY | OPS_CHANGE | OPS_CREATES },
	[FUSE_TMPFILE] = { ops_tmpfile, OPS_TRY | OPS_CHANGE | OPS_CREATES },
	[FUSE_RELEASE] = { ops_release, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_READ] = { ops_read, OPS_LOOP },
	[FUSE_WRITE] = { ops_write, OPS_LOOP | OPS_CHANGE },
	[FUSE_LSEEK] = { ops_lseek, OPS_AFTER_SHUTDOWN },
	[FUSE_FALLOCATE] = { ops_fallocate, OPS_CHANGE },
	[FUSE_OPENDIR] = { ops_opendir, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_READDIR] = { ops_readdir, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_READDIRPLUS] = { ops_readdirplus, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_RELEASEDIR] = { ops_release, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_FSYNC] = { ops_fsync, OPS_LOOP },
	[FUSE_FSYNCDIR] = { ops_fsyncdir, OPS_LOOP },
	[FUSE_SYNCFS] = { ops_syncfs, OPS_LOOP },
	[FUSE_SETXATTR] = { ops_setxattr, OPS_CHANGE },
	[FUSE_GETXATTR] = { ops_getxattr, OPS_TRY },
	[FUSE_LISTXATTR] = { ops_listxattr, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_REMOVEXATTR] = { ops_removexattr, OPS_CHANGE },
	[FUSE_STATFS] = { ops_statfs, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_STATX] = { ops_statx, OPS_TRY | OPS_AFTER_SHUTDOWN },
	[FUSE_IOCTL] = { ops_ioctl, OPS_AFTER_SHUTDOWN },
};

size_t ops_req_size(void) { return sizeof(struct ops_req); }

static void run_on_worker(struct work *work)
{
	struct ops_req *req = container_of(work, struct ops_req, work);

	req->handler->fn(req);
}

/* When the handler has answered, the slot of req may serve the next request already. */
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

void ops_handle(struct transport_req *fuse, void *arg)
{
	struct ops_req *req = ops_of(fuse);
	struct ops *ops = arg;
	uint32_t opcode = fuse->in.header.opcode;
	const struct ops_handler *handler =
		opcode < ARRAY_SIZE(handlers) ? &handlers[opcode] : NULL;

	req->ops = ops;
	req->handler = handler;
	req->inode = NULL;
	req->laundered = false;
	if (!handler || !handler->fn) {
		ops_reply_err(req, -ENOSYS);
		return;
	}
	if (unlikely(ext4_vol_is_shut_down(ops->vol)) && !(handler->flags & OPS_AFTER_SHUTDOWN)) {
		ops_reply_err(req, -EIO);
		return;
	}
	if ((handler->flags & OPS_CHANGE) && ext4_vol_read_only(ops->vol)) {
		ops_reply_err(req, -EROFS);
		return;
	}
	if (handler->flags & OPS_LOOP)
		handler->fn(req);
	else if (handler->flags & OPS_TRY)
		try_on_loop(req);
	else
		work_queue_add(ops->config.workers, &req->work, run_on_worker);
}
