/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FSYNC, FSYNCDIR, SYNCFS: handed to the engine's sync queue from the loop thread; whole batches
 * share one commit and one flush. The answer comes from sync_done on a syncer thread. The file's
 * own reference keeps the inode.
 */
#include "ops/types.h"

static void sync_done(struct dio_sync *s, int err)
{
	struct ops_req *q = container_of(s, struct ops_req, sync);

	tr_reply(&q->tr, err, 0);
}

/* f NULL: the volume. */
static void start(struct ops_req *q, struct ops_file *f, bool datasync)
{
	q->sync.inode = f ? f->inode : NULL;
	q->sync.file = f ? f->df : NULL;
	q->sync.datasync = datasync;
	q->sync.done = sync_done;
	dio_fsync(q->ops->dio, &q->sync);
}

void ops_fsync(struct ops_req *q)
{
	const struct fuse_fsync_in *in = ops_arg(q);
	struct ops_file *f = ops_file_get(q->ops, in->fh);

	if (!f) {
		ops_reply_err(q, -EBADF);
		return;
	}
	start(q, f, in->fsync_flags & FUSE_FSYNC_FDATASYNC);
}

void ops_fsyncdir(struct ops_req *q) { ops_fsync(q); }

void ops_syncfs(struct ops_req *q) { start(q, NULL, false); }
