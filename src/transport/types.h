/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Structures of the transport, and the table that a channel fills. Included only inside
 * src/transport and its tests.
 *
 * A queue belongs to one loop: only that loop's thread touches its free list and its READ. busy
 * counts the slots that handlers have, for the end, which waits for them. It is an atomic of each
 * queue (its loop adds, the thread that replies subtracts), so that loops share no counter.
 */
#ifndef FDIO_TRANSPORT_TYPES_H
#define FDIO_TRANSPORT_TYPES_H

#include "base/lock.h"
#include "base/nowait.h"
#include "base/reason.h"
#include "transport/connection.h"

#include <fcntl.h>
#include <pthread.h>

struct fuse_session;

/*
 * A way for requests to come in and replies to go out.
 *  open   main thread, before arm: file descriptors, registrations. -errno fails the start.
 *  arm    on the loop's thread: begins to take requests.
 *  reply  any thread: sends the reply that req describes (reply_err, reply_len, payload) and gives
 *         the slot back.
 *  close  main thread, after the loops have stopped taking requests.
 */
struct transport_channel_ops {
	const char *name;
	int (*open)(struct transport *transport);
	void (*arm)(struct transport_queue *queue);
	void (*reply)(struct transport_req *req);
	void (*close)(struct transport *transport);
};

/* One loop's samples of one queue (deal.c). All zero at first. */
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
	uint8_t *slots;            /* nr_slots of transport_config.slot_size bytes */
	/* nr_slots of TRANSPORT_SLOT_BYTES: 4 KiB for headers, then the payload */
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
	/* Atomic: slots below this number are entries of the kernel's ring (uring.c). */
	unsigned nr_ring;
	unsigned nr_refused;       /* entries that the kernel refused; loop thread only */
	bool ring_over;            /* the kernel has taken an entry down; loop thread only */
	struct loop_msg fallback_msg;
	/* Its loop may serve a part of this queue's entries (deal.c), and vice versa; or NULL. */
	struct transport_queue *helper;
	bool dealt;                /* atomic: the helper serves a part; both loops write it */
	/* Samples of this queue, and of the one it helps; loop thread only. */
	struct transport_deal seen_own, seen_helping;
	/* Atomic stack of slots answered on other threads, linked by chan_priv. */
	struct transport_req *returned fdio_cacheline_aligned;
	unsigned busy;             /* atomic: slots that handlers hold */
	bool starved;              /* atomic: no slot to arm (DEVFUSE-1 in devfuse.c) */
	/*
	 * Atomic: how many requests of this queue, and of the helper's queue, this queue's loop is
	 * serving. This loop writes them; the helper's loop reads them now and then.
	 */
	unsigned serving_own fdio_cacheline_aligned, serving_helping;
};

enum transport_end { TRANSPORT_RUNNING = 0, TRANSPORT_DESTROY, TRANSPORT_GONE, TRANSPORT_ABORTED };

struct transport {
	FDIO_MAGIC_FIELD;
	struct transport_config config;
	struct transport_server server;
	char *source, *mountpoint, *mount_opts;
	struct fuse_session *se;   /* only if libfuse has mounted */
	int fd;                    /* the connection's /dev/fuse, -1 when not mounted */
	int mount_fd;              /* the mount before it is attached (detached.c), or -1 */
	bool mounted;              /* attached to its directory */
	struct transport_conn conn;
	const struct transport_channel_ops *chan;
	unsigned nr_queues;
	unsigned unregistered;            /* queues whose buffers could not be registered */
	struct transport_queue *queues;   /* by loop index */
	bool stopping;             /* atomic: no more handlers are called */
	bool fell_back;            /* atomic: from the ring to /dev/fuse, URING-1 in uring.c */

	pthread_t control;
	bool control_on;
	struct fdio_mutex lock;    /* RANK_LEAF; guards the three below */
	pthread_cond_t changed;
	enum transport_end end;    /* why the control thread is to end */
	struct transport_req *destroy_req; /* DESTROY, answered after destroy */
	bool finished;             /* destroy has returned */
};

/*
 * The memory of one slot. The 4 KiB before the payload hold the header of the message, and later
 * that of the reply. So payloads are aligned to 4 KiB, as much as any device wants, also where the
 * pages of the machine are larger.
 */
#define TRANSPORT_HDR_BYTES 4096u
#define TRANSPORT_PAYLOAD_BYTES MESSAGE_MAX_WRITE
#define TRANSPORT_SLOT_BYTES (TRANSPORT_HDR_BYTES + TRANSPORT_PAYLOAD_BYTES)
/* Pinned memory of all loops together: on machines with many CPUs queues become shallower. */
#define TRANSPORT_ARENA_MAX (1024ull << 20)
#define TRANSPORT_DEPTH_MIN 8u

extern const struct transport_channel_ops transport_channel_devfuse;
extern const struct transport_channel_ops transport_channel_uring;

/* The queue of the loop that serves req, and the queue that owns its slot. */
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
 * uring.c: false if this process cannot use the ring, whatever the kernel offers; reason says why.
 */
bool transport_uring_usable(struct transport *transport, struct fdio_reason *reason);

/*
 * deal.c: whether the requests of a queue are dealt out to two loops. Pure arithmetic over samples
 * of what is being served; for uring.c on the loops' threads, and its test.
 */
/* Shorter reads are served in the time that a message between loops takes. */
#define TRANSPORT_DEAL_READAHEAD (128u << 10)
/* For each request that comes: true if this one is to be sampled. */
static inline bool transport_deal_due(struct transport_deal *deal)
{
	return ++deal->arrivals % 8 == 0;
}
/*
 * Adds a sample. mine, other: how many requests of the queue, and of the helper's own queue, are
 * being served. on: whether the queue is dealt out now. Returns whether it should be from now on.
 */
bool transport_deal_sample(struct transport_deal *deal, bool on, unsigned mine, unsigned other);

/*
 * True for the slots that the helper serves while the queue is dealt out: three of eight, because
 * the client itself runs on the first loop's CPU.
 */
static inline bool transport_deal_slot(uint32_t slot) { return slot % 8 % 3 == 1; }

/* True for a large read for a page cache. in is decoded. */
static inline bool transport_deal_is_readahead(const struct message_in *in)
{
	const struct fuse_read_in *read = in->arg;

	return in->header.opcode == FUSE_READ && read->size >= TRANSPORT_DEAL_READAHEAD &&
	       !(read->flags & O_DIRECT);
}

/*
 * dispatch.c: hands a request to the server, or handles it if it is for the transport itself. err:
 * the result of decoding the request. On the thread of the loop that serves it.
 */
void transport_dispatch(struct transport_req *req, int err);

/*
 * channel.c: true if the caller should try again, because err is transient and *tries (zero at
 * first) is below the limit. Counts the try, and sleeps for a millisecond if memory is short or the
 * first few tries have failed. Any thread.
 */
#define TRANSPORT_RETRY_MAX 1000u
#define TRANSPORT_RETRY_AT_ONCE 8u
bool transport_retry(int err, unsigned *tries);

/*
 * end.c: the connection has ended, or DESTROY came as req (else NULL). Wakes the control
 * thread; the first reason counts. Any thread.
 */
void transport_end(struct transport *transport, enum transport_end why, struct transport_req *req);

#endif
