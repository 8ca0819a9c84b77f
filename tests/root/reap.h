/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Waiting for completions, for the programs of the root tests. If the process is stopped, frozen or
 * traced meanwhile, the kernel ends the wait with EINTR and does not restart it; no completion is
 * lost. These functions restart it.
 */
#ifndef TESTS_ROOT_REAP_H
#define TESTS_ROOT_REAP_H

#include <errno.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

/* As io_getevents(2) without a time limit. */
static inline int aio_reap(aio_context_t ctx, long min, long max, struct io_event *ev)
{
	int n;

	do
		n = (int)syscall(SYS_io_getevents, ctx, min, max, ev, NULL);
	while (n < 0 && errno == EINTR);
	return n;
}

#ifdef LIB_URING_H
/* As io_uring_wait_cqe(3), but returns -1 and sets errno on an error. */
static inline int ring_reap(struct io_uring *ring, struct io_uring_cqe **ret)
{
	int err;

	do
		err = io_uring_wait_cqe(ring, ret);
	while (err == -EINTR);
	errno = -err;
	return err ? -1 : 0;
}
#endif

#endif
