/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Notifications to the kernel, written on the session's fd. They may wait for a page that a READ has locked, so
 * they run on a thread that no READ waits for, with no lock held.
 */
#include "transport/types.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

static int notify(struct tr *t, int32_t code, struct iovec *iov, int n)
{
	struct fuse_out_header oh = { .len = sizeof(oh), .error = code, .unique = 0 };

	iov[0].iov_base = &oh;
	iov[0].iov_len = sizeof(oh);
	for (int i = 1; i < n; i++)
		oh.len += (uint32_t)iov[i].iov_len;
	return writev(t->fd, iov, n) < 0 ? -errno : 0;
}

int tr_notify_inval_inode(struct tr *t, uint64_t nodeid, int64_t off, int64_t len)
{
	struct fuse_notify_inval_inode_out out = { .ino = nodeid, .off = off, .len = len };
	struct iovec iov[2] = { { 0 }, { &out, sizeof(out) } };

	return notify(t, FUSE_NOTIFY_INVAL_INODE, iov, 2);
}
