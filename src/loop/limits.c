/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a ring may be used for. Operations of a ring do not pass a seccomp filter, so the kernel is
 * told which ones this program needs: everything else completes with EACCES from then on, whoever
 * asks. Runs on the thread that is to submit, before the first operation. A kernel that cannot
 * restrict a ring leaves it as it is, which is logged.
 */
#include "loop/loop.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_LIMITS 32u

/* liburing 2.3 declares functions for both, but Debian's library does not export them. */
static int ring_register(struct io_uring *ring, unsigned opcode, void *arg, unsigned n)
{
	return syscall(__NR_io_uring_register, ring->ring_fd, opcode, arg, n) < 0 ? -errno : 0;
}

int loop_ring_enable(struct io_uring *ring, const struct loop_limits *lim)
{
	struct io_uring_restriction a[MAX_LIMITS];
	unsigned n = 0;

	FDIO_ASSERT(lim->nr_ops + lim->nr_regs + 2 <= MAX_LIMITS);
	memset(a, 0, sizeof(a));
	for (unsigned i = 0; i < lim->nr_ops; i++, n++) {
		a[n].opcode = IORING_RESTRICTION_SQE_OP;
		a[n].sqe_op = lim->ops[i];
	}
	for (unsigned i = 0; i < lim->nr_regs; i++, n++) {
		a[n].opcode = IORING_RESTRICTION_REGISTER_OP;
		a[n].register_op = lim->regs[i];
	}
	a[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	a[n++].sqe_flags = lim->flags_allowed;
	a[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	a[n++].sqe_flags = lim->flags_required;
	int err = ring_register(ring, IORING_REGISTER_RESTRICTIONS, a, n);
	if (err) /* it works as well without */
		log_warn("io_uring is not restricted to what is needed: %s", strerror(-err));
	return ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}
