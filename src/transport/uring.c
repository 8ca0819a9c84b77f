/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FUSE over io_uring: requests arrive as completions of commands that wait on the loops' own rings,
 * and a reply is a command that also asks for the next request. It is submitted together with the
 * device I/O of the same batch, so neither direction costs a system call of its own.
 *
 * The kernel keeps one queue for each possible CPU and puts a request into the queue of the CPU
 * that its client runs on; it serves nothing before every queue has an entry. So the channel can be
 * used only if there is one loop for each possible CPU; loop i is the home of queue i (URING-3 says
 * when another loop serves a request). A slot is one entry, registered once. The page before its
 * payload holds the kernel's request header and struct entry; the data of a WRITE begins at the
 * payload, as on the other channel.
 *
 * FORGET, INTERRUPT, requests sent before the queues were ready, and the end of the connection
 * still come over /dev/fuse: loop 0 keeps a few slots for these and runs the /dev/fuse channel with
 * them. The number of a slot says which way its request came, and its reply goes back the same way.
 *
 * Only the loop's thread may submit: other threads post their reply to it. No locks. A ring that
 * the kernel refuses is replaced by /dev/fuse (URING-1); a reply that fails is logged.
 *
 * URING-1 The command that registers an entry completes at once if it fails, else with the first
 *        request. A queue of which every entry failed means that the kernel's ring can never become
 *        ready. Then one command with an impossible queue number makes the kernel go on over
 *        /dev/fuse (it does so whenever registering fails), and all loops run the /dev/fuse channel
 *        with all their slots. No request can have come through the ring before. Entries that were
 *        registered stay behind until the mount ends, which does no harm: the entry completes
 *        through its own loop_op, so the slot's is free for /dev/fuse.
 * URING-2 At the end of the connection every waiting entry completes with ENOTCONN or the like, and
 *        replies get the same. The READ of /dev/fuse on loop 0 tells the control thread, because
 *        only it can tell an abort from an unmount.
 * URING-3 When a request comes, deal.c decides which loop serves it, before anything is done with
 *        it. It goes to another loop as a message, and its reply is sent on the ring of the
 *        loop that served it, where the entry then waits for the next request. Memory, number and
 *        queue stay the same. Elsewhere "the loop of a request" is the one that serves it.
 */
#include "transport/types.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>

#define OTHER_SLOTS 2u          /* of loop 0, for /dev/fuse */
#define IMPOSSIBLE_QUEUE 0xffffu

struct entry {
	/* the kernel writes requests into it and reads replies from it */
	struct fuse_uring_req_header h;
	struct iovec iov[2];            /* read by the kernel while it registers the entry */
	struct loop_op op;
	struct transport_req *req;
	uint32_t cmd;                   /* the last command */
	unsigned tries;                 /* of that command, for transport_retry */
};

_Static_assert(sizeof(struct entry) + MESSAGE_WRITE_HDR <= TRANSPORT_HDR_BYTES,
	       "the headers of both channels fit in a slot's first page");

static struct entry *entry_of(struct transport_req *req)
{
	return (struct entry *)(void *)(req->payload - TRANSPORT_HDR_BYTES);
}

static unsigned nr_ring(struct transport_queue *queue)
{
	return __atomic_load_n(&queue->nr_ring, __ATOMIC_RELAXED);
}

/* ---- commands ---- */

static struct io_uring_sqe *command_sqe(struct loop *loop, uint32_t cmd,
					const struct fuse_uring_cmd_req *req)
{
	struct io_uring_sqe *sqe = loop_sqe(loop);

	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = LOOP_FILE_FUSE;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->cmd_op = cmd;
	memcpy(sqe->cmd, req, sizeof(*req));
	return sqe;
}

/* On the loop that serves the entry, on whose ring it then waits for its next request. */
static void submit_entry(struct entry *entry)
{
	struct fuse_uring_cmd_req req = { .qid = (uint16_t)entry->req->queue };

	if (entry->cmd == FUSE_IO_URING_CMD_COMMIT_AND_FETCH)
		req.commit_id = entry->req->commit_id;
	struct io_uring_sqe *sqe = command_sqe(entry->req->loop, entry->cmd, &req);
	if (entry->cmd == FUSE_IO_URING_CMD_REGISTER) {
		sqe->addr = (uint64_t)(uintptr_t)entry->iov;
		sqe->len = 2;
	}
	io_uring_sqe_set_data(sqe, &entry->op);
}

/* ---- falling back (URING-1) ---- */

static void ignore_done(struct loop_op *op, int res, unsigned cqe_flags)
{
	(void)op;
	(void)res;
	(void)cqe_flags;
}

static void fall_back_queue(struct loop_msg *msg)
{
	struct transport_queue *queue = container_of(msg, struct transport_queue, fallback_msg);
	unsigned n = nr_ring(queue);

	fdio_magic_check(queue, MAGIC_TRANSPORT_QUEUE);
	__atomic_store_n(&queue->nr_ring, 0, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < n; i++)
		list_add_tail(&queue->free, &transport_slot(queue, i)->link);
	transport_channel_devfuse.arm(queue);
}

static void fall_back(struct transport_queue *queue, int err)
{
	static struct loop_op ignored = { ignore_done };
	struct fuse_uring_cmd_req req = { .qid = IMPOSSIBLE_QUEUE };
	struct transport *transport = queue->transport;

	if (__atomic_exchange_n(&transport->fell_back, true, __ATOMIC_SEQ_CST))
		return;
	log_warn("the kernel refused the request ring (%s): going on over %s", strerror(-err),
		 transport_channel_devfuse.name);
	__atomic_store_n(&transport->conn.channel, transport_channel_devfuse.name,
			 __ATOMIC_RELAXED);
	struct io_uring_sqe *sqe = command_sqe(queue->loop, FUSE_IO_URING_CMD_REGISTER, &req);
	sqe->addr = (uint64_t)(uintptr_t)entry_of(transport_slot(queue, 0))->iov;
	sqe->len = 2;
	io_uring_sqe_set_data(sqe, &ignored);
	for (unsigned i = 0; i < transport->nr_queues; i++)
		loop_post(transport->queues[i].loop, &transport->queues[i].fallback_msg,
			  fall_back_queue);
}

/* ---- completions ---- */

static void add_to(unsigned *counter, unsigned n)
{
	__atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}
/* The counter of requests served that req belongs to. */
static unsigned *serving(struct transport_req *req)
{
	struct transport_queue *queue = transport_queue_of(req);

	return req->loop == transport_home_of(req)->loop ? &queue->serving_own
							 : &queue->serving_helping;
}

static void serve(struct transport_req *req, int err)
{
	add_to(serving(req), 1);
	transport_dispatch(req, err);
}

static void moved_msg(struct loop_msg *msg)
{
	serve(container_of(msg, struct transport_req, msg), 0);
}

/* Requests of queue that are being served, on either loop. */
static unsigned depth(struct transport_queue *queue)
{
	return __atomic_load_n(&queue->serving_own, __ATOMIC_RELAXED) +
	       __atomic_load_n(&queue->helper->serving_helping, __ATOMIC_RELAXED);
}

/* The loop that is to serve req (URING-3). */
static struct loop *loop_for(struct transport_req *req)
{
	struct transport_queue *home = transport_home_of(req), *help = home->helper;
	bool at_home = req->loop == home->loop;

	if (!help)
		return home->loop;
	struct transport_deal *seen = at_home ? &home->seen_own : &help->seen_helping;
	bool dealt = __atomic_load_n(&home->dealt, __ATOMIC_RELAXED);
	if (unlikely(transport_deal_due(seen))) {
		bool now = transport_deal_sample(seen, dealt, depth(home), depth(help));

		if (now != dealt && (at_home || dealt)) {
			fdio_count(COUNTER_transport_dealt);
			dealt = now;
			__atomic_store_n(&home->dealt, now, __ATOMIC_RELAXED);
		}
	}
	if (unlikely(transport_deal_is_readahead(&req->in)) && !depth(help)) {
		fdio_count(COUNTER_transport_readahead);
		return help->loop;
	}
	return dealt && transport_deal_slot(req->slot) ? help->loop : home->loop;
}

static void got_request(struct entry *entry)
{
	struct transport_req *req = entry->req;
	struct fuse_in_header header;
	uint32_t n = entry->h.ring_ent_in_out.payload_sz;

	memcpy(&header, entry->h.in_out, sizeof(header));
	req->commit_id = entry->h.ring_ent_in_out.commit_id;
	int err = message_decode_parts(&header, entry->h.op_in, req->payload,
				       FDIO_MIN(n, TRANSPORT_PAYLOAD_BYTES), &req->in);
	struct loop *loop = err ? req->loop : loop_for(req);
	if (likely(loop == req->loop)) {
		serve(req, err);
	} else {
		req->loop = loop;
		loop_post(loop, &req->msg, moved_msg);
	}
}

static bool connection_over(int err)
{
	return err == -ENOTCONN || err == -ECONNABORTED || err == -ECANCELED || err == -ENODEV;
}

static void entry_failed(struct transport_queue *queue, struct entry *entry, int err)
{
	if (entry->cmd == FUSE_IO_URING_CMD_REGISTER) {
		if (++queue->nr_refused == nr_ring(queue))
			fall_back(queue, err);
		return;
	}
	fdio_count(COUNTER_transport_reply_gone);
	if (!queue->ring_over)
		log_ratelimited(FDIO_LOG_ERR, "reply to %s (%d, %u bytes) was refused: %s",
				message_opcode_name(entry->req->in.header.opcode),
				entry->req->reply_err, entry->req->reply_len, strerror(-err));
}

/*
 * The ring works without one of its entries, and without all of them /dev/fuse does (URING-1), so
 * registering is not worth a pause. A reply is.
 */
static bool try_again(struct entry *entry, int err)
{
	if (entry->cmd == FUSE_IO_URING_CMD_REGISTER &&
	    (err == -ENOMEM || entry->tries == TRANSPORT_RETRY_AT_ONCE))
		return false;
	return transport_retry(err, &entry->tries);
}

static void entry_done(struct loop_op *op, int res, unsigned cqe_flags)
{
	struct entry *entry = container_of(op, struct entry, op);
	struct transport_queue *queue = transport_queue_of(entry->req);

	(void)cqe_flags;
	fdio_magic_check(entry->req, MAGIC_TRANSPORT_REQ);
	if (likely(res == 0)) {
		got_request(entry);
	} else if (try_again(entry, res)) {
		submit_entry(entry);
	} else if (connection_over(res)) {
		queue->ring_over = true; /* URING-2 */
	} else {
		entry_failed(queue, entry, res);
	}
}

/* ---- replies ---- */

static void send_reply(struct transport_req *req)
{
	struct entry *entry = entry_of(req);
	struct fuse_out_header header = {
		.len = (uint32_t)sizeof(header) + req->reply_len,
		.error = req->reply_err,
		.unique = req->in.header.unique,
	};

	add_to(serving(req), -1u);
	memcpy(entry->h.in_out, &header, sizeof(header));
	entry->h.ring_ent_in_out.payload_sz = req->reply_len;
	entry->cmd = FUSE_IO_URING_CMD_COMMIT_AND_FETCH;
	entry->tries = 0;
	submit_entry(entry);
}

static void send_reply_msg(struct loop_msg *msg)
{
	send_reply(container_of(msg, struct transport_req, msg));
}

static void uring_reply(struct transport_req *req)
{
	if (unlikely(req->slot >= nr_ring(transport_home_of(req))))
		transport_channel_devfuse.reply(req);
	else if (loop_self() == req->loop)
		send_reply(req);
	else
		loop_post(req->loop, &req->msg, send_reply_msg);
}

/* ---- starting ---- */

static void queue_prepare(struct transport_queue *queue)
{
	unsigned others = 0;

	if (loop_index(queue->loop) == 0)
		others = queue->nr_slots > 2 * OTHER_SLOTS ? OTHER_SLOTS : 1;
	queue->nr_ring = queue->nr_slots - others;
	for (unsigned i = 0; i < queue->nr_ring; i++) {
		struct transport_req *req = transport_slot(queue, i);
		struct entry *entry = entry_of(req);

		list_del(&req->link);
		memset(entry, 0, sizeof(*entry));
		entry->req = req;
		entry->op.complete = entry_done;
		entry->iov[0].iov_base = &entry->h;
		entry->iov[0].iov_len = sizeof(entry->h);
		entry->iov[1].iov_base = req->payload;
		entry->iov[1].iov_len = TRANSPORT_PAYLOAD_BYTES;
		entry->cmd = FUSE_IO_URING_CMD_REGISTER;
	}
}

static int uring_open(struct transport *transport)
{
	int err = transport_channel_devfuse.open(transport);

	for (unsigned i = 0; i < transport->nr_queues && !err; i++)
		queue_prepare(&transport->queues[i]);
	return err;
}

static void uring_arm(struct transport_queue *queue)
{
	if (__atomic_load_n(&queue->transport->fell_back, __ATOMIC_SEQ_CST))
		return;
	int err = loop_register_file(queue->loop, LOOP_FILE_FUSE, queue->fd);
	if (err) {
		fall_back(queue, err);
		return;
	}
	for (unsigned i = 0; i < nr_ring(queue); i++)
		submit_entry(entry_of(transport_slot(queue, i)));
	if (loop_index(queue->loop) == 0)
		transport_channel_devfuse.arm(queue);
}

static void uring_close(struct transport *transport) { transport_channel_devfuse.close(transport); }

bool transport_uring_usable(struct transport *transport, struct fdio_reason *reason)
{
	const struct loop_config *config = loop_set_config(transport->config.loops);
	unsigned cpus = loop_possible_cpus();

	if (!config->sqe128)
		fdio_reason_set(reason, "the loops' rings were made without room for its commands");
	else if (cpus != transport->nr_queues)
		fdio_reason_set(reason, "it needs a loop for each of the %u possible CPUs, there "
				"are %u (run without -s)", cpus, transport->nr_queues);
	else
		return true;
	return false;
}

const struct transport_channel_ops transport_channel_uring = {
	.name = "io_uring",
	.open = uring_open,
	.arm = uring_arm,
	.reply = uring_reply,
	.close = uring_close,
};
