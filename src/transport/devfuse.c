/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The /dev/fuse channel: every loop reads requests from its own clone of the connection and answers
 * on the same clone (the kernel finds a request only in the clone that delivered it).
 *
 * A message is read to 80 bytes before the payload, so that the data of a WRITE lands aligned
 * in the registered buffer and goes to the device from there. The reply header is put 16 bytes
 * before the payload, so that a reply is one contiguous write. Nothing is copied in user space in
 * either direction.
 *
 * One READ for each loop waits on its ring: a request wakes every waiting READ, so more would only
 * multiply the wake-ups. Once awake, the loop reads all other queued requests with plain
 * non-blocking reads before it arms the next READ. The thread that replies writes the reply at
 * once. No locks.
 *
 * Transient errors are retried (transport_retry). A read that fails for good ends the mount; a
 * reply that fails is logged, and its client waits until the mount ends.
 *
 * DEVFUSE-1 Another thread than the loop's gives a slot back by pushing it on `returned`, then
 *        reads `starved`. The loop, when it has no slot to arm, sets `starved`, then looks at
 *        `returned` once more. All four accesses are sequentially consistent, so at least one side
 *        sees the other's store: the loop is woken when it must be, and only then.
 */
#include "transport/types.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Requests read at one wake-up before the loop handles completions. */
#define TAKE_BATCH 32u

static void take_requests(struct transport_queue *queue);

static void *message_of(struct transport_req *req) { return req->payload - MESSAGE_WRITE_HDR; }
#define MESSAGE_CAP (MESSAGE_WRITE_HDR + MESSAGE_MAX_WRITE)

/* Moves the slots that other threads have returned to the free list (DEVFUSE-1). */
static void take_returned(struct transport_queue *queue)
{
	struct transport_req *req = __atomic_exchange_n(&queue->returned, NULL, __ATOMIC_SEQ_CST);

	while (req) {
		struct transport_req *next = req->chan_priv;
		list_add(&queue->free, &req->link);
		req = next;
	}
}

static struct transport_req *slot_pop(struct transport_queue *queue)
{
	if (list_empty(&queue->free))
		take_returned(queue);
	if (list_empty(&queue->free))
		return NULL;
	struct transport_req *req = list_first(&queue->free, struct transport_req, link);
	list_del(&req->link);
	return req;
}

/* The newest is taken first, because its memory is still in the CPU's cache. */
static void slot_push(struct transport_queue *queue, struct transport_req *req)
{
	list_add(&queue->free, &req->link);
}

static void channel_gone(struct transport_queue *queue, int err)
{
	if (queue->ended)
		return;
	queue->ended = true;
	if (err != -ENODEV && err != -ECONNABORTED)
		log_err("/dev/fuse failed: %s; ending the mount", strerror(-err));
	transport_end(queue->transport, err == -ECONNABORTED ? TRANSPORT_ABORTED : TRANSPORT_GONE,
		      NULL);
}

static bool is_transient(int err)
{
	/*
	 * ENOENT: the request was interrupted before it was read. ENOMEM: read_done tries again,
	 * with pauses.
	 */
	return err == -EAGAIN || err == -EINTR || err == -ENOENT || err == -ENOMEM;
}

static void got_message(struct transport_req *req, size_t len)
{
	transport_dispatch(req, message_decode(message_of(req), len, &req->in));
}

static void read_done(struct loop_op *op, int res, unsigned cqe_flags)
{
	struct transport_req *req = container_of(op, struct transport_req, op);
	struct transport_queue *queue = transport_queue_of(req);

	(void)cqe_flags;
	fdio_magic_check(req, MAGIC_TRANSPORT_REQ);
	queue->armed = false;
	if (res >= 0) {
		queue->read_tries = 0;
		queue->taking = true; /* a reply inside must not arm: take_requests does */
		got_message(req, (size_t)res);
		queue->taking = false;
	} else {
		slot_push(queue, req);
		if (!is_transient(res) ||
		    (res == -ENOMEM && !transport_retry(res, &queue->read_tries))) {
			if (res != -ECANCELED)
				channel_gone(queue, res);
			return;
		}
	}
	take_requests(queue);
}

static void arm_read(struct transport_queue *queue)
{
	struct transport_req *req;

	if (queue->armed || queue->ended)
		return;
	req = slot_pop(queue);
	if (!req) {
		__atomic_store_n(&queue->starved, true, __ATOMIC_SEQ_CST); /* DEVFUSE-1 */
		req = slot_pop(queue);
		if (!req)
			return; /* the next slot that is returned arms */
	}
	/* Stores only if necessary, because threads that return slots read this cache line. */
	if (__atomic_load_n(&queue->starved, __ATOMIC_RELAXED))
		__atomic_store_n(&queue->starved, false, __ATOMIC_RELAXED);
	struct io_uring_sqe *sqe = loop_sqe(queue->loop);
	io_uring_prep_read(sqe, LOOP_FILE_FUSE, message_of(req), MESSAGE_CAP, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	req->op.complete = read_done;
	io_uring_sqe_set_data(sqe, &req->op);
	queue->armed = true;
}

/* Reads requests until there are none; false: the connection has ended. */
static bool take_queued(struct transport_queue *queue)
{
	for (unsigned i = 0; i < TAKE_BATCH && !queue->ended; i++) {
		struct transport_req *req = slot_pop(queue);

		if (!req)
			break;
		ssize_t n = read(queue->fd, message_of(req), MESSAGE_CAP);
		if (n >= 0) {
			queue->read_tries = 0;
			got_message(req, (size_t)n);
			continue;
		}
		int err = -errno;
		slot_push(queue, req);
		if (err == -EAGAIN || err == -ENOMEM)
			break;
		if (!is_transient(err)) {
			channel_gone(queue, err);
			return false;
		}
	}
	return true;
}

static void take_requests(struct transport_queue *queue)
{
	queue->taking = true;
	bool more = take_queued(queue);
	queue->taking = false;
	if (more)
		arm_read(queue);
}

static void send_reply(struct transport_req *req, int fd)
{
	struct fuse_out_header header = {
		.len = (uint32_t)sizeof(header) + req->reply_len,
		.error = req->reply_err,
		.unique = req->in.header.unique,
	};
	uint8_t *start = req->payload - sizeof(header);
	unsigned tries = 0;
	ssize_t n;

	memcpy(start, &header, sizeof(header));
	do
		n = write(fd, start, header.len);
	while (n < 0 && transport_retry(-errno, &tries));
	/* ENOENT after a retry: the first write has ended the request, with an error. */
	if (n == (ssize_t)header.len)
		return;
	fdio_count(COUNTER_transport_reply_gone);
	/* ENOENT: the client died, the kernel dropped the request. ENODEV: the mount is gone. */
	if (n < 0 && errno != ENOENT && errno != ENODEV)
		log_ratelimited(FDIO_LOG_ERR, "reply to %s (%d, %u bytes) was refused: %s",
				message_opcode_name(req->in.header.opcode), req->reply_err,
				req->reply_len, strerror(errno));
}

/* Gives a slot back, on the loop's thread. */
static void slot_return(struct transport_req *req)
{
	struct transport_queue *queue = transport_queue_of(req);

	slot_push(queue, req);
	/* If the slots had run out, no READ is armed. take_requests arms one at its end. */
	if (!queue->taking)
		arm_read(queue);
}

static void starved_msg(struct loop_msg *msg)
{
	struct transport_queue *queue = container_of(msg, struct transport_queue, wake_msg);

	fdio_magic_check(queue, MAGIC_TRANSPORT_QUEUE);
	/* Before arm_read takes the returned slots. */
	__atomic_store_n(&queue->wake_posted, false, __ATOMIC_SEQ_CST);
	arm_read(queue);
}

/*
 * Gives a slot back, on any other thread. Wakes the loop only if that has run out of slots
 * (DEVFUSE-1).
 */
static void slot_return_remote(struct transport_req *req)
{
	struct transport_queue *queue = transport_queue_of(req);
	struct transport_req *head = __atomic_load_n(&queue->returned, __ATOMIC_RELAXED);

	do
		req->chan_priv = head;
	while (!__atomic_compare_exchange_n(&queue->returned, &head, req, true, __ATOMIC_SEQ_CST,
					    __ATOMIC_RELAXED));
	if (__atomic_load_n(&queue->starved, __ATOMIC_SEQ_CST) &&
	    !__atomic_exchange_n(&queue->wake_posted, true, __ATOMIC_SEQ_CST))
		loop_post(queue->loop, &queue->wake_msg, starved_msg);
}

static void devfuse_reply(struct transport_req *req)
{
	struct transport_queue *queue = transport_queue_of(req);

	if (req->in.header.unique)
		send_reply(req, queue->fd);
	if (loop_self() == req->loop)
		slot_return(req);
	else
		slot_return_remote(req);
}

static int clone_fd(int session_fd)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	uint32_t src = (uint32_t)session_fd;

	if (fd < 0)
		return -errno;
	if (ioctl(fd, FUSE_DEV_IOC_CLONE, &src) < 0) {
		int err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

static void devfuse_close(struct transport *transport)
{
	for (unsigned i = 0; i < transport->nr_queues; i++)
		if (transport->queues[i].fd >= 0) {
			close(transport->queues[i].fd);
			transport->queues[i].fd = -1;
		}
}

static int devfuse_open(struct transport *transport)
{
	for (unsigned i = 0; i < transport->nr_queues; i++) {
		int fd = clone_fd(transport->fd);

		if (fd < 0) {
			devfuse_close(transport);
			return fd;
		}
		transport->queues[i].fd = fd;
	}
	return 0;
}

static void devfuse_arm(struct transport_queue *queue)
{
	int err = loop_register_file(queue->loop, LOOP_FILE_FUSE, queue->fd);

	if (err) {
		channel_gone(queue, err);
		return;
	}
	/*
	 * If all loops use this channel (and not only loop 0, beside the ring), a request wakes the
	 * loops of all CPUs, and polling only takes CPU time from them.
	 */
	if (queue->transport->chan == &transport_channel_devfuse ||
	    __atomic_load_n(&queue->transport->fell_back, __ATOMIC_SEQ_CST))
		loop_no_wander(queue->loop);
	take_requests(queue);
}

const struct transport_channel_ops transport_channel_devfuse = {
	.name = "/dev/fuse",
	.open = devfuse_open,
	.arm = devfuse_arm,
	.reply = devfuse_reply,
	.close = devfuse_close,
};
