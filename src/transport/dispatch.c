/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a decoded request to its handler, and from a reply to the channel. transport_dispatch runs
 * on the loop that serves the slot; replies come from any thread. No locks. A message that cannot
 * be decoded is answered with its error here. What the transport handles itself (FORGET, INTERRUPT,
 * DESTROY, INIT) does not reach transport_server.handle.
 *
 * DISPATCH-1 A slot is free, armed, or busy; a busy one gets exactly one reply (asserted by state).
 * DISPATCH-2 busy is raised before stopping is read, and stopping is set before busy is summed:
 *        either the handler is not called or the end waits for it.
 * DISPATCH-3 The kernel releases a file, and forgets an inode, only after every request that named
 *        it was answered. So a handler's use of them happened before. The kernel makes that
 *        order, which ThreadSanitizer cannot see; order_answer and order_release show it.
 * DISPATCH-4 A handler may go on after its reply, when its slot is no longer busy. So a loop says
 *        when it is inside a handler: handling is raised before the reply lowers busy, and lowered
 *        after the handler's last access. The end reads busy first and handling afterwards.
 *        (Workers and dio are drained by their owners.)
 */
#include "transport/types.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

enum { SLOT_IDLE = 0, SLOT_BUSY = 1 };

/* DISPATCH-3 */
#ifdef __SANITIZE_THREAD__
static unsigned answered;
static void order_answer(void) { __atomic_fetch_add(&answered, 1, __ATOMIC_RELEASE); }
static void order_release(uint32_t opcode)
{
	if (opcode == FUSE_RELEASE || opcode == FUSE_RELEASEDIR || opcode == FUSE_FORGET ||
	    opcode == FUSE_BATCH_FORGET)
		__atomic_load_n(&answered, __ATOMIC_ACQUIRE);
}
#else
static inline void order_answer(void) { }
static inline void order_release(uint32_t opcode) { (void)opcode; }
#endif

static void slot_busy(struct transport_req *req)
{
	FDIO_ASSERT(req->state == SLOT_IDLE);
	req->state = SLOT_BUSY;
	__atomic_add_fetch(&transport_queue_of(req)->busy, 1, __ATOMIC_SEQ_CST);
}

void transport_reply(struct transport_req *req, int err, uint32_t len)
{
	struct transport_queue *queue = transport_queue_of(req);

	fdio_magic_check(req, MAGIC_TRANSPORT_REQ);
	FDIO_ASSERT(req->state == SLOT_BUSY); /* DISPATCH-1 */
	FDIO_ASSERT(err <= 0 && len <= req->payload_cap);
	req->state = SLOT_IDLE;
	fdio_count(COUNTER_transport_replies);
	/* The kernel drops a reply with an errno that FUSE does not know: its client would hang. */
	req->reply_err = err < -511 ? -EIO : err;
	req->reply_len = err ? 0 : len;
	order_answer(); /* DISPATCH-3 */
	req->transport->chan->reply(req);
	/* req may serve the next request already. */
	__atomic_sub_fetch(&queue->busy, 1, __ATOMIC_SEQ_CST);
}

void transport_reply_data(struct transport_req *req, const void *data, uint32_t len)
{
	FDIO_ASSERT(len <= req->payload_cap);
	memcpy(req->payload, data, len);
	transport_reply(req, 0, len);
}

static void forget_batch(struct transport_req *req)
{
	const struct fuse_batch_forget_in *b = req->in.arg;
	uint32_t fits = req->in.data_len / sizeof(struct fuse_forget_one);
	uint32_t n = FDIO_MIN(b->count, fits);

	for (uint32_t i = 0; i < n; i++) {
		struct fuse_forget_one one;

		memcpy(&one, req->in.data + i * sizeof(one), sizeof(one));
		req->transport->server.forget(req->transport->server.arg, one.nodeid, one.nlookup);
	}
}

static bool is_unanswered(uint32_t opcode)
{
	/*
	 * INTERRUPT needs no answer, and nothing is done for it: every request ends by itself, and
	 * a device request cannot be taken back.
	 */
	return opcode == FUSE_FORGET || opcode == FUSE_BATCH_FORGET || opcode == FUSE_INTERRUPT ||
	       opcode == FUSE_NOTIFY_REPLY;
}

/* FORGET and BATCH_FORGET go to the server, the others are dropped. */
static void take_unanswered(struct transport_req *req)
{
	struct transport *transport = req->transport;

	if (req->in.header.opcode == FUSE_FORGET)
		transport->server.forget(transport->server.arg, req->in.header.nodeid,
					 ((const struct fuse_forget_in *)req->in.arg)->nlookup);
	else if (req->in.header.opcode == FUSE_BATCH_FORGET)
		forget_batch(req);
}

void transport_dispatch(struct transport_req *req, int err)
{
	struct transport *transport = req->transport;

	fdio_count(COUNTER_transport_requests);
	order_release(req->in.header.opcode);
	slot_busy(req);
	/* DISPATCH-2 */
	if (__atomic_load_n(&transport->stopping, __ATOMIC_SEQ_CST) &&
	    req->in.header.opcode != FUSE_DESTROY) {
		if (is_unanswered(req->in.header.opcode))
			req->in.header.unique = 0;
		transport_reply(req, -ENOTCONN, 0);
		return;
	}
	if (err != -EBADMSG && is_unanswered(req->in.header.opcode)) {
		if (!err)
			take_unanswered(req);
		req->in.header.unique = 0; /* the channel sends nothing for it */
		transport_reply(req, 0, 0);
		return;
	}
	if (err) {
		/* After one ENOSYS the kernel does not send this opcode again. */
		if (err == -ENOSYS) {
			log_debug("FUSE %s (%u) is not served",
				  message_opcode_name(req->in.header.opcode),
				  req->in.header.opcode);
		} else {
			fdio_count(COUNTER_transport_bad_message);
			log_ratelimited(FDIO_LOG_WARN,
					"refused a malformed FUSE %s message of %u bytes",
					message_opcode_name(req->in.header.opcode),
					req->in.header.len);
		}
		transport_reply(req, err == -EBADMSG ? -EINVAL : err, 0);
		return;
	}
	if (req->in.header.opcode == FUSE_DESTROY) {
		transport_end(transport, TRANSPORT_DESTROY, req);
		return;
	}
	if (req->in.header.opcode == FUSE_INIT) {
		transport_reply(req, -EINVAL, 0);
		return;
	}
	/* req may serve another request when handle returns. */
	struct transport_queue *queue = transport_queue_of(req);
	__atomic_store_n(&queue->handling, true, __ATOMIC_RELAXED); /* DISPATCH-4 */
	transport->server.handle(req, transport->server.arg);
	__atomic_store_n(&queue->handling, false, __ATOMIC_RELEASE);
}
