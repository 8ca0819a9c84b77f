/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Struct bodies of the transport, and the table that a channel fills. Included only inside
 * src/transport and its tests.
 *
 * A queue belongs to one loop: its free list and its READ are touched on that loop's thread alone.
 * busy counts the slots that a handler has. It is the queue's own atomic (its loop adds, whoever
 * replies subtracts), so that the end can wait for handlers without any counter that loops share.
 */
#ifndef FDIO_TRANSPORT_TYPES_H
#define FDIO_TRANSPORT_TYPES_H

#include "base/lock.h"
#include "base/nowait.h"
#include "base/reason.h"
#include "transport/transport.h"

#include <fcntl.h>
#include <pthread.h>

struct fuse_session;

/*
 * A way for requests to come in and replies to go out.
 *  open   control thread's side, before arm: file descriptors, registrations. -errno falls back to
 *         the next channel.
 *  arm    on the loop's thread: start taking requests.
 *  reply  any thread: send the reply that r describes (reply_err, reply_len, payload) and give the
 *         slot back.
 *  close  after the loops have stopped taking requests.
 */
struct transport_channel_ops {
	const char *name;
	int (*open)(struct transport *t);
	void (*arm)(struct transport_queue *q);
	void (*reply)(struct transport_req *r);
	void (*close)(struct transport *t);
};

/* What one loop has seen of one queue. Zero to begin with; deal.c's own. */
struct transport_deal {
	unsigned arrivals, samples;
	unsigned mine, other;
};

struct transport_queue {
	FDIO_MAGIC_FIELD;
	struct transport *transport;
	struct loop *loop;
	int fd;                    /* this loop's clone of the connection, -1 before open */
	struct loop_msg start_msg;
	unsigned nr_slots;
	uint8_t *slots;            /* nr_slots of cfg.slot_size bytes */
	/* nr_slots of TRANSPORT_SLOT_BYTES: one header page, then the payload */
	uint8_t *arena;
	struct list free;          /* transport_req.link; loop thread only */
	bool armed;                /* a READ waits on the ring; loop thread only */
	bool taking;               /* take_requests is on the stack; loop thread only */
	bool ended;                /* the connection is gone; loop thread only */
	unsigned read_tries;       /* transport_retry; loop thread only */
	/* atomic: the loop is inside a handler, DISPATCH-4 in dispatch.c */
	bool handling;
	bool wake_posted;          /* atomic: wake_msg is on its way */
	struct loop_msg wake_msg;
	/* atomic: the first so many slots are entries of the kernel's ring; uring.c */
	unsigned nr_ring;
	unsigned nr_refused;       /* of them; loop thread only */
	bool ring_over;            /* the kernel has taken an entry down; loop thread only */
	struct loop_msg fallback_msg;
	/*
	 * whose loop may serve a part of the entries (deal.c), or NULL; so this one is its helper
	 */
	struct transport_queue *helper;
	bool dealt;                /* atomic: it does; written by both loops */
	/* of this queue, of the one it helps; loop thread only */
	struct transport_deal seen_own, seen_helping;
	/* atomic stack, linked by chan_priv: answered on other threads */
	struct transport_req *returned fdio_cacheline_aligned;
	unsigned busy;             /* atomic: slots that handlers hold */
	bool starved;              /* atomic: no slot to arm (DEVFUSE-1 in devfuse.c) */
	/*
	 * atomic: requests of this queue's ring, and of the helper's, that the loop serves; it
	 * writes, the helper's reads now and then
	 */
	unsigned serving_own fdio_cacheline_aligned, serving_helping;
};

enum transport_end { TRANSPORT_RUNNING = 0, TRANSPORT_DESTROY, TRANSPORT_GONE, TRANSPORT_ABORTED };

struct transport {
	FDIO_MAGIC_FIELD;
	struct transport_config config;
	struct transport_server server;
	char *source, *mountpoint, *mount_opts;
	struct fuse_session *se;
	int fd;                    /* the session's /dev/fuse, -1 when not mounted */
	bool mounted;
	struct transport_conn conn;
	const struct transport_channel_ops *chan;
	/* queues; those of them whose buffers could not be registered */
	unsigned nr_queues, unregistered;
	struct transport_queue *queues;   /* by loop index */
	bool stopping;             /* atomic: no more handlers are called */
	bool fell_back;            /* atomic: from the ring to /dev/fuse, URING-1 in uring.c */

	pthread_t control;
	bool control_on;
	struct fdio_mutex lock;    /* RANK_LEAF; guards the three below */
	pthread_cond_t changed;
	enum transport_end end;           /* why the control thread is to finish */
	struct transport_req *destroy_req; /* to be answered after destroy */
	bool finished;             /* destroy has returned */
};

/*
 * One slot's memory: the page before the payload holds the message header and later the reply
 * header.
 */
#define TRANSPORT_HDR_BYTES 4096u
#define TRANSPORT_PAYLOAD_BYTES (MESSAGE_MAX_PAGES * 4096u)
#define TRANSPORT_SLOT_BYTES (TRANSPORT_HDR_BYTES + TRANSPORT_PAYLOAD_BYTES)
/* Pinned memory for all loops together: queue depth is lowered on wide machines to stay below. */
#define TRANSPORT_ARENA_MAX (1024ull << 20)
#define TRANSPORT_DEPTH_MIN 8u

extern const struct transport_channel_ops transport_channel_devfuse;
extern const struct transport_channel_ops transport_channel_uring;

/* Of the loop that serves it, and whose slot it is. */
static inline struct transport_queue *transport_queue_of(struct transport_req *req)
{
	return &req->transport->queues[loop_index(req->loop)];
}
static inline struct transport_queue *transport_home_of(struct transport_req *req)
{
	return &req->transport->queues[req->queue];
}

/* slots.c */
int transport_slots_new(struct transport *transport, struct fdio_reason *reason);
void transport_slots_free(struct transport *transport);
static inline struct transport_req *transport_slot(struct transport_queue *queue, unsigned i)
{
	return (struct transport_req *)(queue->slots +
					(size_t)i * queue->transport->config.slot_size);
}

/* init.c: reads INIT from the session's fd and answers it. */
int transport_init_handshake(struct transport *transport, struct fdio_reason *reason) FDIO_BLOCKS;

/*
 * uring.c: false if this process cannot use the ring, whatever the kernel offers; one line in why.
 */
bool transport_uring_usable(struct transport *transport, struct fdio_reason *reason);

/*
 * deal.c: whether the requests of a queue are dealt out to two loops. Pure arithmetic over samples
 * of what is being served; for uring.c on the loops' threads, and its test.
 */
/* what is smaller is served in the time that a message takes */
#define TRANSPORT_DEAL_READAHEAD (128u << 10)
/* A request has come: true if it is one of those that are to be sampled. */
static inline bool transport_deal_due(struct transport_deal *deal)
{
	return ++deal->arrivals % 8 == 0;
}
/*
 * mine: requests of the queue that are being served, other: those of the helper's own queue. on:
 * are they dealt out now? Should they be, from now on?
 */
bool transport_deal_sample(struct transport_deal *deal, bool on, unsigned mine, unsigned other);

/*
 * Is this slot's entry one of those that go to the helper? Three of eight: the client itself is on
 * the first loop's CPU.
 */
static inline bool transport_deal_slot(uint32_t slot) { return slot % 8 % 3 == 1; }

/* A large read for a page cache. in: decoded, so its argument is whole. */
static inline bool transport_deal_is_readahead(const struct message_in *in)
{
	const struct fuse_read_in *read = in->arg;

	return in->header.opcode == FUSE_READ && read->size >= TRANSPORT_DEAL_READAHEAD &&
	       !(read->flags & O_DIRECT);
}

/*
 * dispatch.c: a decoded request (err from decoding) on its loop's thread. Handles what the
 * transport answers itself.
 */
void transport_dispatch(struct transport_req *req, int err);

/*
 * channel.c: err may pass, and *tries, zero at first, has not come to the limit: counts one more,
 * sleeps for a millisecond unless it is one of the first and was only interrupted, and true. Any
 * thread.
 */
#define TRANSPORT_RETRY_MAX 1000u
#define TRANSPORT_RETRY_AT_ONCE 8u
bool transport_retry(int err, unsigned *tries);

/*
 * transport.c: the connection has ended or DESTROY came (req, else NULL). Any thread; the first
 * reason counts.
 */
void transport_end(struct transport *transport, enum transport_end why, struct transport_req *req);

#endif
