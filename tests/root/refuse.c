/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pretends to one daemon that the kernel refuses FUSE over io_uring, or lacks fsopen(2). Root tests
 * preload this library into the daemon; the machine's settings do not change, so other tests may
 * use io_uring at the same time.
 *
 *   REFUSE_FSOPEN=1     The kernel has no fsopen(2), as before Linux 5.2.
 *   REFUSE_OFFER=1      FUSE's INIT does not offer io_uring.
 *   REFUSE_REGISTER=N   Registering an entry of the ring fails with error number N: at submission,
 *                       the command is replaced by one that does nothing and completes with that
 *                       result (Linux 6.10). The command that the daemon sends only to see how the
 *                       kernel refuses it (IMPOSSIBLE_QUEUE) is not replaced.
 *   REFUSE_QUEUE=Q      Only entries of queue Q are refused; those of other queues are registered.
 */
#include "message/fuse_compat.h"

#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NOP_INJECT_RESULT 1u
#define IMPOSSIBLE_QUEUE 0xffffu

static long (*next_syscall)(long number, ...);
static ssize_t (*next_read)(int fd, void *buf, size_t n);
static int (*next_submit)(struct io_uring *r);
static int (*next_submit_and_wait)(struct io_uring *r, unsigned n);
static int refuse_fsopen, refuse_offer, refuse_register, refuse_queue = -1;

static void *next_of(const char *name)
{
	void *p = dlsym(RTLD_NEXT, name);

	if (!p)
		abort();
	return p;
}

/* Code that runs earlier at start may call read before this constructor: then read calls it. */
static void __attribute__((constructor)) init(void)
{
	const char *offer = getenv("REFUSE_OFFER"), *reg = getenv("REFUSE_REGISTER"),
		   *queue = getenv("REFUSE_QUEUE"), *fsopen = getenv("REFUSE_FSOPEN");

	*(void **)&next_syscall = next_of("syscall");
	*(void **)&next_read = next_of("read");
	*(void **)&next_submit = next_of("io_uring_submit");
	*(void **)&next_submit_and_wait = next_of("io_uring_submit_and_wait");
	refuse_fsopen = fsopen ? atoi(fsopen) : 0;
	refuse_offer = offer ? atoi(offer) : 0;
	refuse_register = reg ? atoi(reg) : 0;
	refuse_queue = queue ? atoi(queue) : -1;
}

long syscall(long number, ...)
{
	long arg[6];
	va_list ap;

	va_start(ap, number);
	for (unsigned i = 0; i < 6; i++)
		arg[i] = va_arg(ap, long);
	va_end(ap);
	if (!next_syscall)
		init();
	if (refuse_fsopen && number == SYS_fsopen) {
		errno = ENOSYS;
		return -1;
	}
	return next_syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

ssize_t read(int fd, void *buf, size_t n)
{
	if (!next_read)
		init();
	ssize_t got = next_read(fd, buf, n);
	struct fuse_in_header header;
	struct fuse_init_in in;

	if (!refuse_offer || got < (ssize_t)(sizeof(header) + sizeof(in)))
		return got;
	memcpy(&header, buf, sizeof(header));
	memcpy(&in, (char *)buf + sizeof(header), sizeof(in));
	if (header.opcode == FUSE_INIT && header.len == got) {
		in.flags2 &= ~(uint32_t)(MESSAGE_OVER_IO_URING >> 32);
		memcpy((char *)buf + sizeof(header), &in, sizeof(in));
	}
	return got;
}

static void refuse(struct io_uring_sqe *sqe)
{
	struct fuse_uring_cmd_req req;

	memcpy(&req, sqe->cmd, sizeof(req));
	if (req.qid == IMPOSSIBLE_QUEUE || (refuse_queue >= 0 && req.qid != refuse_queue))
		return;
	uint64_t data = sqe->user_data;
	memset(sqe, 0, 128);
	sqe->opcode = IORING_OP_NOP;
	sqe->flags = IOSQE_FIXED_FILE; /* the ring's restrictions require it */
	sqe->rw_flags = NOP_INJECT_RESULT;
	sqe->len = (uint32_t)-refuse_register;
	sqe->user_data = data;
}

static void look_through(struct io_uring *ring)
{
	if (!refuse_register || !(ring->flags & IORING_SETUP_SQE128))
		return;
	for (unsigned i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
		struct io_uring_sqe *sqe = &ring->sq.sqes[(size_t)(i & *ring->sq.kring_mask) * 2];

		if (sqe->opcode == IORING_OP_URING_CMD && sqe->cmd_op == FUSE_IO_URING_CMD_REGISTER)
			refuse(sqe);
	}
}

int io_uring_submit(struct io_uring *ring)
{
	look_through(ring);
	return next_submit(ring);
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned n)
{
	look_through(ring);
	return next_submit_and_wait(ring, n);
}
