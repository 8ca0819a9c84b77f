/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FUSE requests and replies, as handlers see them. connection.h has what mounts and ends a
 * connection; the ways that requests come in (channels) are tables of functions behind both
 * (transport_channel_ops in types.h): reads of /dev/fuse on the ring, or FUSE-over-io_uring
 * commands.
 *
 * Each loop's thread takes requests; replies come from any thread. A reply that cannot be sent is
 * logged; a connection that fails ends the mount.
 */
#ifndef FDIO_TRANSPORT_H
#define FDIO_TRANSPORT_H

#include "base/magic.h"
#include "base/nowait.h"
#include "loop/loop.h"
#include "message/message.h"

struct transport;
struct transport_queue;

/*
 * One request slot, made at mount, a fixed number for each loop. The loop in .loop owns it, except
 * between the call of the handler and the reply; .queue is the queue that it was made for. payload:
 * payload_cap bytes, aligned to 4 KiB, in registered buffer buf_index (or -1). Data of the request
 * (names, values of xattrs) begins at in.data, that of a WRITE at payload. The reply is built in
 * payload too, so names are copied out first.
 */
struct transport_req {
	FDIO_MAGIC_FIELD;
	struct transport *transport;
	struct loop *loop;         /* serves the request */
	struct message_in in;      /* header and fixed argument, decoded and validated */
	uint8_t *payload;
	uint32_t payload_cap;
	int buf_index;
	uint32_t queue;            /* index of the queue, and of the loop that is its home */
	uint32_t slot;             /* number within the queue */
	struct loop_op op;         /* transport's */
	struct loop_msg msg;       /* transport's */
	struct list link;          /* transport's */
	uint32_t reply_len;        /* transport's */
	int reply_err;             /* transport's */
	uint32_t state;            /* transport's */
	uint64_t commit_id;        /* transport's */
	void *chan_priv;           /* transport's */
};

/*
 * Replies to a request, once, on any thread. err < 0: without a body; else the body is len bytes of
 * req->payload, or in transport_reply_data a copy of len bytes of data.
 */
void transport_reply(struct transport_req *req, int err, uint32_t len);
void transport_reply_data(struct transport_req *req, const void *data, uint32_t len);

/*
 * Has the kernel invalidate its pages of len bytes at off. Blocks: never on a loop thread, nor with
 * a lock that a FUSE request may wait for. -errno; -ENOENT is normal.
 */
int transport_notify_inval_inode(struct transport *transport, uint64_t nodeid, int64_t off,
				 int64_t len) FDIO_BLOCKS;

/*
 * Number of slots of the loop with this index: 1 if its CPU was not in use at mount. Any thread.
 */
unsigned transport_loop_slots(const struct transport *transport, unsigned loop);

/*
 * Negotiated with the kernel, valid after transport_start. kernel_minor may be beyond ours.
 * request_timeout: the kernel ends the connection if a request takes longer, in seconds; 0: never.
 */
struct transport_conn {
	uint32_t proto_minor, kernel_minor, max_write, max_read, max_pages, request_timeout;
	uint64_t flags;
	const char *channel;
};
const struct transport_conn *transport_conn(const struct transport *transport);

#endif
