/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FUSE over io_uring: requests arrive as completions of commands that wait on the loops' own rings,
 * and a reply is a command that also asks for the next request. It is submitted together with the
 * device I/O of the same batch, so neither direction costs a system call of its own.
 *
 * The kernel keeps one queue for each possible CPU and puts a request into the queue of the CPU its
 * client runs on; nothing is served before every queue has an entry. So the channel can be used
 * only if there is one loop for each possible CPU; loop i serves queue i. A slot is one entry,
 * registered once. Its memory: the kernel's request header and our struct entry in the page before
 * the payload, and the payload, where the data of a WRITE begins at offset 0 as on the other
 * channel.
 *
 * FORGET, INTERRUPT, what was sent before the queues were ready, and the end of the connection
 * still come over /dev/fuse: loop 0 keeps a few slots for it and runs the /dev/fuse channel with
 * them. Which way a request came is decided by its slot's number, and its reply goes back the same
 * way.
 *
 * Only the loop's thread may submit: other threads post their reply to it. No locks. A ring that
 * the kernel refuses is replaced by /dev/fuse (URING-1); a reply that fails is logged.
 *
 * URING-1 Registration that works says nothing until a request comes; one that fails completes at
 *    once. A queue of which every entry failed means that the kernel's ring can never become ready:
 *    then one command with an impossible queue number makes the kernel go on over /dev/fuse (it
 *    does so whenever registering fails), and all loops run the /dev/fuse channel with all their
 *    slots. No request can have come through the ring before, and an entry's loop_op is not its
 *    slot's, so entries that had been registered stay harmlessly behind until the mount ends.
 * URING-2 At the end of the connection every waiting entry completes with ENOTCONN or the like, and
 *    replies get the same. The READ of /dev/fuse on loop 0 is what tells the control thread,
 *    because it can tell an abort from an unmount.
 * URING-3 Which loop serves an entry is decided when a request comes (deal.c), before anything is
 *    done with it: it goes over as a message, and the reply is committed on the ring of the loop
 *    that served it, where the entry then waits for the next. Memory, number and queue stay the
 *    same; everything else that speaks of a request's loop means the one that serves it.
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
	struct fuse_uring_req_header h; /* the kernel writes requests into it and reads replies from it */
	struct iovec iov[2];            /* read by the kernel while it registers the entry */
	struct loop_op op;
	struct tr_req *r;
	uint32_t cmd;                   /* the last command */
	unsigned tries;                 /* of it, after failures: tr_retry */
};

_Static_assert(sizeof(struct entry) + PRO_WRITE_HDR <= TR_HDR_BYTES, "both channels' headers fit in a slot's first page");

static struct entry *entry_of(struct tr_req *r) { return (struct entry *)(void *)(r->payload - TR_HDR_BYTES); }

static unsigned nr_ring(struct tr_queue *q) { return __atomic_load_n(&q->nr_ring, __ATOMIC_RELAXED); }

/* ---- commands ---- */

static struct io_uring_sqe *command_sqe(struct loop *l, uint32_t cmd, const struct fuse_uring_cmd_req *req)
{
	struct io_uring_sqe *sqe = loop_sqe(l);

	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = LOOP_FILE_FUSE;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->cmd_op = cmd;
	memcpy(sqe->cmd, req, sizeof(*req));
	return sqe;
}

/* On the loop that serves it: the entry waits on that one's ring for its next request. */
static void submit_entry(struct entry *e)
{
	struct fuse_uring_cmd_req req = { .qid = (uint16_t)e->r->queue };

	if (e->cmd == FUSE_IO_URING_CMD_COMMIT_AND_FETCH)
		req.commit_id = e->r->commit_id;
	struct io_uring_sqe *sqe = command_sqe(e->r->loop, e->cmd, &req);
	if (e->cmd == FUSE_IO_URING_CMD_REGISTER) {
		sqe->addr = (uint64_t)(uintptr_t)e->iov;
		sqe->len = 2;
	}
	io_uring_sqe_set_data(sqe, &e->op);
}

/* ---- falling back (URING-1) ---- */

static void ignore_done(struct loop_op *op, int res, unsigned cqe_flags)
{
	(void)op;
	(void)res;
	(void)cqe_flags;
}

static void fall_back_queue(struct loop_msg *m)
{
	struct tr_queue *q = container_of(m, struct tr_queue, fallback_msg);
	unsigned n = nr_ring(q);

	fdio_magic_check(q, MAGIC_TRANSPORT_QUEUE);
	__atomic_store_n(&q->nr_ring, 0, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < n; i++)
		list_add_tail(&q->free, &tr_slot(q, i)->link);
	tr_chan_devfuse.arm(q);
}

static void fall_back(struct tr_queue *q, int err)
{
	static struct loop_op ignored = { ignore_done };
	struct fuse_uring_cmd_req req = { .qid = IMPOSSIBLE_QUEUE };
	struct tr *t = q->tr;

	if (__atomic_exchange_n(&t->fell_back, true, __ATOMIC_SEQ_CST))
		return;
	log_warn("the kernel refused the request ring (%s): going on over %s", strerror(-err), tr_chan_devfuse.name);
	__atomic_store_n(&t->conn.channel, tr_chan_devfuse.name, __ATOMIC_RELAXED);
	struct io_uring_sqe *sqe = command_sqe(q->loop, FUSE_IO_URING_CMD_REGISTER, &req);
	sqe->addr = (uint64_t)(uintptr_t)entry_of(tr_slot(q, 0))->iov;
	sqe->len = 2;
	io_uring_sqe_set_data(sqe, &ignored);
	for (unsigned i = 0; i < t->nr_queues; i++)
		loop_post(t->queues[i].loop, &t->queues[i].fallback_msg, fall_back_queue);
}

/* ---- completions ---- */

static void add(unsigned *counter, unsigned n) { __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED); }
static unsigned *serving(struct tr_req *r)
{
	struct tr_queue *q = tr_queue_of(r);

	return r->loop == tr_home_of(r)->loop ? &q->serving_own : &q->serving_helping;
}

static void serve(struct tr_req *r, int err)
{
	add(serving(r), 1);
	tr_dispatch(r, err);
}

static void moved_msg(struct loop_msg *m) { serve(container_of(m, struct tr_req, msg), 0); }

/* Requests of q's ring that are being served, wherever. */
static unsigned depth(struct tr_queue *q)
{
	return __atomic_load_n(&q->serving_own, __ATOMIC_RELAXED) + __atomic_load_n(&q->helper->serving_helping, __ATOMIC_RELAXED);
}

/* URING-3 */
static struct loop *who_serves(struct tr_req *r)
{
	struct tr_queue *home = tr_home_of(r), *help = home->helper;
	bool at_home = r->loop == home->loop;

	if (!help)
		return home->loop;
	struct tr_deal *seen = at_home ? &home->seen_own : &help->seen_helping;
	bool dealt = __atomic_load_n(&home->dealt, __ATOMIC_RELAXED);
	if (unlikely(tr_deal_due(seen))) {
		bool now = tr_deal_sample(seen, dealt, depth(home), depth(help));

		if (now != dealt && (at_home || dealt)) {
			fdio_count(CTR_tr_dealt);
			dealt = now;
			__atomic_store_n(&home->dealt, now, __ATOMIC_RELAXED);
		}
	}
	if (unlikely(tr_deal_is_readahead(&r->in)) && !depth(help)) {
		fdio_count(CTR_tr_readahead);
		return help->loop;
	}
	return dealt && tr_deal_slot(r->slot) ? help->loop : home->loop;
}

static void got_request(struct entry *e)
{
	struct tr_req *r = e->r;
	struct fuse_in_header ih;
	uint32_t n = e->h.ring_ent_in_out.payload_sz;

	memcpy(&ih, e->h.in_out, sizeof(ih));
	r->commit_id = e->h.ring_ent_in_out.commit_id;
	int err = pro_decode_parts(&ih, e->h.op_in, r->payload, FDIO_MIN(n, TR_PAYLOAD_BYTES), &r->in);
	struct loop *l = err ? r->loop : who_serves(r);
	if (likely(l == r->loop)) {
		serve(r, err);
	} else {
		r->loop = l;
		loop_post(l, &r->msg, moved_msg);
	}
}

static bool connection_over(int err)
{
	return err == -ENOTCONN || err == -ECONNABORTED || err == -ECANCELED || err == -ENODEV;
}

static void entry_failed(struct tr_queue *q, struct entry *e, int err)
{
	if (e->cmd == FUSE_IO_URING_CMD_REGISTER) {
		if (++q->nr_refused == nr_ring(q))
			fall_back(q, err);
		return;
	}
	fdio_count(CTR_tr_reply_gone);
	if (!q->ring_over)
		log_ratelimited(FDIO_LOG_ERR, "reply to %s (%d, %u bytes) was refused: %s", pro_opcode_name(e->r->in.h.opcode),
				e->r->reply_err, e->r->reply_len, strerror(-err));
}

/* Without an entry the ring works as well, and without any /dev/fuse does (URING-1): registering is not worth a pause. A reply is. */
static bool try_again(struct entry *e, int err)
{
	if (e->cmd == FUSE_IO_URING_CMD_REGISTER && (err == -ENOMEM || e->tries == TR_RETRY_AT_ONCE))
		return false;
	return tr_retry(err, &e->tries);
}

static void entry_done(struct loop_op *op, int res, unsigned cqe_flags)
{
	struct entry *e = container_of(op, struct entry, op);
	struct tr_queue *q = tr_queue_of(e->r);

	(void)cqe_flags;
	fdio_magic_check(e->r, MAGIC_TRANSPORT_REQ);
	if (likely(res == 0)) {
		got_request(e);
	} else if (try_again(e, res)) {
		submit_entry(e);
	} else if (connection_over(res)) {
		q->ring_over = true; /* URING-2 */
	} else {
		entry_failed(q, e, res);
	}
}

/* ---- replies ---- */

static void commit(struct tr_req *r)
{
	struct entry *e = entry_of(r);
	struct fuse_out_header oh = {
		.len = (uint32_t)sizeof(oh) + r->reply_len,
		.error = r->reply_err,
		.unique = r->in.h.unique,
	};

	add(serving(r), -1u);
	memcpy(e->h.in_out, &oh, sizeof(oh));
	e->h.ring_ent_in_out.payload_sz = r->reply_len;
	e->cmd = FUSE_IO_URING_CMD_COMMIT_AND_FETCH;
	e->tries = 0;
	submit_entry(e);
}

static void commit_msg(struct loop_msg *m) { commit(container_of(m, struct tr_req, msg)); }

static void uring_reply(struct tr_req *r)
{
	if (unlikely(r->slot >= nr_ring(tr_home_of(r))))
		tr_chan_devfuse.reply(r);
	else if (loop_self() == r->loop)
		commit(r);
	else
		loop_post(r->loop, &r->msg, commit_msg);
}

/* ---- starting ---- */

static void queue_prepare(struct tr_queue *q)
{
	unsigned others = 0;

	if (loop_index(q->loop) == 0)
		others = q->nr_slots > 2 * OTHER_SLOTS ? OTHER_SLOTS : 1;
	q->nr_ring = q->nr_slots - others;
	for (unsigned i = 0; i < q->nr_ring; i++) {
		struct tr_req *r = tr_slot(q, i);
		struct entry *e = entry_of(r);

		list_del(&r->link);
		memset(e, 0, sizeof(*e));
		e->r = r;
		e->op.complete = entry_done;
		e->iov[0].iov_base = &e->h;
		e->iov[0].iov_len = sizeof(e->h);
		e->iov[1].iov_base = r->payload;
		e->iov[1].iov_len = TR_PAYLOAD_BYTES;
		e->cmd = FUSE_IO_URING_CMD_REGISTER;
	}
}

static int uring_open(struct tr *t)
{
	int err = tr_chan_devfuse.open(t);

	for (unsigned i = 0; i < t->nr_queues && !err; i++)
		queue_prepare(&t->queues[i]);
	return err;
}

static void uring_arm(struct tr_queue *q)
{
	if (__atomic_load_n(&q->tr->fell_back, __ATOMIC_SEQ_CST))
		return;
	int err = loop_register_file(q->loop, LOOP_FILE_FUSE, q->fd);
	if (err) {
		fall_back(q, err);
		return;
	}
	for (unsigned i = 0; i < nr_ring(q); i++)
		submit_entry(entry_of(tr_slot(q, i)));
	if (loop_index(q->loop) == 0)
		tr_chan_devfuse.arm(q);
}

static void uring_close(struct tr *t) { tr_chan_devfuse.close(t); }

bool tr_uring_usable(struct tr *t, struct fdio_reason *reason)
{
	const struct loop_config *lc = loop_set_config(t->cfg.loops);
	unsigned cpus = loop_possible_cpus();

	if (!lc->sqe128)
		fdio_reason_set(reason, "the loops' rings were made without room for its commands");
	else if (cpus != t->nr_queues)
		fdio_reason_set(reason, "it needs a loop for each of the %u possible CPUs, there "
				"are %u (run without -s)", cpus, t->nr_queues);
	else
		return true;
	return false;
}

const struct tr_chan_ops tr_chan_uring = {
	.name = "io_uring",
	.open = uring_open,
	.arm = uring_arm,
	.reply = uring_reply,
	.close = uring_close,
};
