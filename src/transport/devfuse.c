/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The /dev/fuse channel: every loop reads requests from its own clone of the connection and answers
 * on the same clone (the kernel finds a request only in the clone that delivered it).
 *
 * A message is read to 80 bytes before the payload, so that the data of a WRITE lands page-aligned
 * in the registered buffer and goes to the device from there. The reply header is put 16 bytes
 * before the payload, so that a reply is one contiguous write. Nothing is copied in user space in
 * either direction.
 *
 * One READ a loop waits on the ring: a request wakes every waiting READ, so more would only
 * multiply the wake-ups. Once awake, the loop takes what else is queued with plain non-blocking
 * reads before it arms the next READ. Replies are written at once from whatever thread has them.
 *
 * Errors that pass are tried again (tr_retry). A read that fails for good ends the mount; a reply
 * that fails is logged, and its client waits until the mount ends.
 *
 * DEVFUSE-1 A thread that is not the loop's gives a slot back by pushing it on q->returned, then
 *    looks at q->starved. The loop, when it has no slot to arm, sets q->starved, then looks at
 *    q->returned once more. All four are sequentially consistent: at least one side sees the other,
 *    so the loop is woken when it must be and only then.
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

/* At most so many requests are taken at one waking, before completions get their turn. */
#define TAKE_BATCH 32u

static void take_requests(struct tr_queue *q);

static void *message_of(struct tr_req *r) { return r->payload - PRO_WRITE_HDR; }
#define MESSAGE_CAP (PRO_WRITE_HDR + PRO_MAX_WRITE)

/* Slots that other threads have answered; DEVFUSE-1. */
static void take_returned(struct tr_queue *q)
{
	struct tr_req *r = __atomic_exchange_n(&q->returned, NULL, __ATOMIC_SEQ_CST);

	while (r) {
		struct tr_req *next = r->chan_priv;
		list_add(&q->free, &r->link);
		r = next;
	}
}

static struct tr_req *slot_pop(struct tr_queue *q)
{
	if (list_empty(&q->free))
		take_returned(q);
	if (list_empty(&q->free))
		return NULL;
	struct tr_req *r = list_first(&q->free, struct tr_req, link);
	list_del(&r->link);
	return r;
}

/* Newest first: its memory is still in the cache. */
static void slot_push(struct tr_queue *q, struct tr_req *r) { list_add(&q->free, &r->link); }

static void channel_gone(struct tr_queue *q, int err)
{
	if (q->ended)
		return;
	q->ended = true;
	if (err != -ENODEV && err != -ECONNABORTED)
		log_err("/dev/fuse failed: %s; ending the mount", strerror(-err));
	tr_end(q->tr, err == -ECONNABORTED ? TR_ABORTED : TR_GONE, NULL);
}

static bool is_transient(int err)
{
	/* ENOENT: the request was interrupted between queueing and reading. ENOMEM: read_done tries again, with pauses. */
	return err == -EAGAIN || err == -EINTR || err == -ENOENT || err == -ENOMEM;
}

static void got_message(struct tr_req *r, size_t len)
{
	tr_dispatch(r, pro_decode(message_of(r), len, &r->in));
}

static void read_done(struct loop_op *op, int res, unsigned cqe_flags)
{
	struct tr_req *r = container_of(op, struct tr_req, op);
	struct tr_queue *q = tr_queue_of(r);

	(void)cqe_flags;
	fdio_magic_check(r, MAGIC_TRANSPORT_REQ);
	q->armed = false;
	if (res >= 0) {
		q->read_tries = 0;
		q->taking = true; /* take_requests arms, not a reply given at once */
		got_message(r, (size_t)res);
		q->taking = false;
	} else {
		slot_push(q, r);
		if (!is_transient(res) || (res == -ENOMEM && !tr_retry(res, &q->read_tries))) {
			if (res != -ECANCELED)
				channel_gone(q, res);
			return;
		}
	}
	take_requests(q);
}

static void arm_read(struct tr_queue *q)
{
	struct tr_req *r;

	if (q->armed || q->ended)
		return;
	r = slot_pop(q);
	if (!r) {
		__atomic_store_n(&q->starved, true, __ATOMIC_SEQ_CST); /* DEVFUSE-1 */
		r = slot_pop(q);
		if (!r)
			return; /* a returning slot arms */
	}
	/* The common case writes nothing: another thread that gives a slot back reads this line. */
	if (__atomic_load_n(&q->starved, __ATOMIC_RELAXED))
		__atomic_store_n(&q->starved, false, __ATOMIC_RELAXED);
	struct io_uring_sqe *sqe = loop_sqe(q->loop);
	io_uring_prep_read(sqe, LOOP_FILE_FUSE, message_of(r), MESSAGE_CAP, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	r->op.complete = read_done;
	io_uring_sqe_set_data(sqe, &r->op);
	q->armed = true;
}

/* Reads until there is nothing; false if the connection has ended. */
static bool take_queued(struct tr_queue *q)
{
	for (unsigned i = 0; i < TAKE_BATCH && !q->ended; i++) {
		struct tr_req *r = slot_pop(q);

		if (!r)
			break;
		ssize_t n = read(q->fd, message_of(r), MESSAGE_CAP);
		if (n >= 0) {
			q->read_tries = 0;
			got_message(r, (size_t)n);
			continue;
		}
		int err = -errno;
		slot_push(q, r);
		if (err == -EAGAIN || err == -ENOMEM)
			break;
		if (!is_transient(err)) {
			channel_gone(q, err);
			return false;
		}
	}
	return true;
}

static void take_requests(struct tr_queue *q)
{
	q->taking = true;
	bool more = take_queued(q);
	q->taking = false;
	if (more)
		arm_read(q);
}

static void send_reply(struct tr_req *r, int fd)
{
	struct fuse_out_header oh = {
		.len = (uint32_t)sizeof(oh) + r->reply_len,
		.error = r->reply_err,
		.unique = r->in.h.unique,
	};
	uint8_t *start = r->payload - sizeof(oh);
	unsigned tries = 0;
	ssize_t n;

	memcpy(start, &oh, sizeof(oh));
	do
		n = write(fd, start, oh.len);
	while (n < 0 && tr_retry(-errno, &tries));
	/* ENOENT at a second try: the first one got as far as ending the request, with an error. */
	if (n == (ssize_t)oh.len)
		return;
	fdio_count(CTR_tr_reply_gone);
	/* ENOENT: the client died and the kernel gave the request up. ENODEV: the mount is gone. */
	if (n < 0 && errno != ENOENT && errno != ENODEV)
		log_ratelimited(FDIO_LOG_ERR, "reply to %s (%d, %u bytes) was refused: %s", pro_opcode_name(r->in.h.opcode), r->reply_err,
				r->reply_len, strerror(errno));
}

/* On the loop's thread. */
static void slot_return(struct tr_req *r)
{
	struct tr_queue *q = tr_queue_of(r);

	slot_push(q, r);
	/* Nothing is armed when the slots had run out, or while take_requests is at work, which arms at its end. */
	if (!q->taking)
		arm_read(q);
}

static void starved_msg(struct loop_msg *m)
{
	struct tr_queue *q = container_of(m, struct tr_queue, wake_msg);

	fdio_magic_check(q, MAGIC_TRANSPORT_QUEUE);
	__atomic_store_n(&q->wake_posted, false, __ATOMIC_SEQ_CST); /* before arm_read takes what was returned */
	arm_read(q);
}

/* On any other thread: no message and no wake-up unless the loop has run out of slots (DEVFUSE-1). */
static void slot_return_remote(struct tr_req *r)
{
	struct tr_queue *q = tr_queue_of(r);
	struct tr_req *head = __atomic_load_n(&q->returned, __ATOMIC_RELAXED);

	do
		r->chan_priv = head;
	while (!__atomic_compare_exchange_n(&q->returned, &head, r, true, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
	if (__atomic_load_n(&q->starved, __ATOMIC_SEQ_CST) && !__atomic_exchange_n(&q->wake_posted, true, __ATOMIC_SEQ_CST))
		loop_post(q->loop, &q->wake_msg, starved_msg);
}

static void devfuse_reply(struct tr_req *r)
{
	struct tr_queue *q = tr_queue_of(r);

	if (r->in.h.unique)
		send_reply(r, q->fd);
	if (loop_self() == r->loop)
		slot_return(r);
	else
		slot_return_remote(r);
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

static void devfuse_close(struct tr *t)
{
	for (unsigned i = 0; i < t->nr_queues; i++)
		if (t->queues[i].fd >= 0) {
			close(t->queues[i].fd);
			t->queues[i].fd = -1;
		}
}

static int devfuse_open(struct tr *t)
{
	for (unsigned i = 0; i < t->nr_queues; i++) {
		int fd = clone_fd(t->fd);

		if (fd < 0) {
			devfuse_close(t);
			return fd;
		}
		t->queues[i].fd = fd;
	}
	return 0;
}

static void devfuse_arm(struct tr_queue *q)
{
	int err = loop_register_file(q->loop, LOOP_FILE_FUSE, q->fd);

	if (err) {
		channel_gone(q, err);
		return;
	}
	/* Beside the ring, loop 0 reads here too. Without it a request wakes the loops of all CPUs, and polling only takes time from them. */
	if (q->tr->chan == &tr_chan_devfuse || __atomic_load_n(&q->tr->fell_back, __ATOMIC_SEQ_CST))
		loop_no_wander(q->loop);
	take_requests(q);
}

const struct tr_chan_ops tr_chan_devfuse = {
	.name = "/dev/fuse",
	.open = devfuse_open,
	.arm = devfuse_arm,
	.reply = devfuse_reply,
	.close = devfuse_close,
};
