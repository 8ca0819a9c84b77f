/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FSYNC, FSYNCDIR, SYNCFS. The loop thread hands the request to the engine's sync queue, where
 * requests that wait at the same time share one commit and one flush; nothing here blocks or locks.
 * sync_done answers, on a syncer or, if there is nothing to do, on the loop thread. The open file's
 * reference keeps the inode. Fails with EBADF, and with what the sync queue says.
 */
#include "ops/types.h"

static void sync_done(struct dio_sync *sync, int err)
{
	struct ops_req *req = container_of(sync, struct ops_req, sync);

	transport_reply(&req->fuse, err, 0);
}

/* file NULL: the whole volume. */
static void start(struct ops_req *req, struct ops_file *file, bool datasync)
{
	req->sync.inode = file ? file->inode : NULL;
	req->sync.file = file ? file->file : NULL;
	req->sync.datasync = datasync;
	req->sync.done = sync_done;
	dio_fsync(req->ops->dio, &req->sync);
}

void ops_fsync(struct ops_req *req)
{
	const struct fuse_fsync_in *in = ops_arg(req);
	struct ops_file *file = ops_file_get(req->ops, in->fh);

	if (!file) {
		ops_reply_err(req, -EBADF);
		return;
	}
	start(req, file, in->fsync_flags & FUSE_FSYNC_FDATASYNC);
}

void ops_fsyncdir(struct ops_req *req) { ops_fsync(req); }

void ops_syncfs(struct ops_req *req) { start(req, NULL, false); }
