/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing to the kernel, for the channels and the rooms above: retries after transient errors, and
 * notifications.
 *
 * transport_retry: a reply that is not sent leaves its client waiting until the mount ends, and a
 * failed read of /dev/fuse ends the mount, so a short sleep is better than giving up. The
 * calling thread may be a loop thread: this is the only place where a loop thread sleeps outside
 * its ring. (A timer on the ring would need memory, too.) Any thread; no locks.
 *
 * transport_notify_inval_inode writes to the session's fd. The kernel may make it wait for a page
 * that a READ has locked, so it runs on a thread that no READ waits for, with no lock held. It
 * fails with -ENOENT when the kernel does not know the inode, which is normal.
 */
#include "transport/types.h"

#include "base/counters.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

bool transport_retry(int err, unsigned *tries)
{
	static const struct timespec pause = { .tv_nsec = 1000 * 1000 };

	if ((err != -EAGAIN && err != -EINTR && err != -ENOMEM) || *tries >= TRANSPORT_RETRY_MAX)
		return false;
	fdio_count(COUNTER_transport_retry);
	if (++*tries > TRANSPORT_RETRY_AT_ONCE || err == -ENOMEM)
		nanosleep(&pause, NULL);
	return true;
}

static int notify(struct transport *transport, int32_t code, struct iovec *iov, int n)
{
	struct fuse_out_header header = { .len = sizeof(header), .error = code, .unique = 0 };

	iov[0].iov_base = &header;
	iov[0].iov_len = sizeof(header);
	for (int i = 1; i < n; i++)
		header.len += (uint32_t)iov[i].iov_len;
	return writev(transport->fd, iov, n) < 0 ? -errno : 0;
}

int transport_notify_inval_inode(struct transport *transport, uint64_t nodeid, int64_t off,
				 int64_t len)
{
	struct fuse_notify_inval_inode_out out = { .ino = nodeid, .off = off, .len = len };
	struct iovec iov[2] = { { 0 }, { &out, sizeof(out) } };

	return notify(transport, FUSE_NOTIFY_INVAL_INODE, iov, 2);
}
