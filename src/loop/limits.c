/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a ring may be used for. A seccomp filter does not see the operations of a ring, so each ring
 * is restricted to those that this program needs; others complete with EACCES from then on. Runs on
 * the thread that is to submit, before the first operation; no locks. If the kernel cannot restrict
 * a ring, this is logged and the ring is used unrestricted. Fails with the error of enabling the
 * ring.
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

int loop_ring_enable(struct io_uring *ring, const struct loop_limits *limits)
{
	struct io_uring_restriction restrictions[MAX_LIMITS];
	unsigned n = 0;

	FDIO_ASSERT(limits->nr_ops + limits->nr_regs + 2 <= MAX_LIMITS);
	memset(restrictions, 0, sizeof(restrictions));
	for (unsigned i = 0; i < limits->nr_ops; i++, n++) {
		restrictions[n].opcode = IORING_RESTRICTION_SQE_OP;
		restrictions[n].sqe_op = limits->ops[i];
	}
	for (unsigned i = 0; i < limits->nr_regs; i++, n++) {
		restrictions[n].opcode = IORING_RESTRICTION_REGISTER_OP;
		restrictions[n].register_op = limits->regs[i];
	}
	restrictions[n].opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED;
	restrictions[n++].sqe_flags = limits->flags_allowed;
	restrictions[n].opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED;
	restrictions[n++].sqe_flags = limits->flags_required;
	int err = ring_register(ring, IORING_REGISTER_RESTRICTIONS, restrictions, n);
	if (err) /* the ring works without restrictions, too */
		log_warn("io_uring is not restricted to what is needed: %s", strerror(-err));
	return ring_register(ring, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
}
