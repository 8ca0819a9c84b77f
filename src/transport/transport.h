/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The transport: mounting, INIT, and the channel that brings FUSE requests to loop threads and
 * takes replies back. A channel is a small table of functions (transport_channel_ops in types.h):
 * reads of /dev/fuse on the ring, or FUSE-over-io_uring commands. Both fill the same transport_req.
 *
 * Threads: the main thread makes, mounts, starts and frees; each loop's thread takes requests; the
 * control thread runs the end. Failures while starting are -errno with a reason; afterwards a
 * connection that fails ends the mount (transport_config.destroy), and a reply that cannot be sent
 * is logged.
 */
#ifndef FDIO_TRANSPORT_H
#define FDIO_TRANSPORT_H

#include "base/magic.h"
#include "base/nowait.h"
#include "base/reason.h"
#include "loop/loop.h"
#include "message/message.h"

struct transport;
struct transport_queue;

/*
 * One request slot. Preallocated, a fixed number a loop; owned by its loop except between the
 * handler's call and the reply. The handler runs on the loop thread and must not block; it or
 * whoever it hands the slot to calls exactly one transport_reply*. payload: page-aligned,
 * payload_cap bytes, in registered buffer buf_index (or -1). Incoming variable data (names, xattr
 * values, WRITE data) starts at in.rest, inside payload for WRITE at payload itself. Replies are
 * built in payload too: copy out names first.
 */
struct transport_req {
	FDIO_MAGIC_FIELD;
	struct transport *transport;
	struct loop *loop;         /* that serves it */
	struct message_in in;          /* decoded and validated header and fixed argument */
	uint8_t *payload;
	uint32_t payload_cap;
	int buf_index;
	uint32_t queue;            /* whose slot it is: that of the loop with this number */
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

enum transport_kind { TRANSPORT_KIND_AUTO = 0, TRANSPORT_KIND_URING, TRANSPORT_KIND_DEVFUSE };

/*
 * Who serves the requests. handle: one request, on its loop's thread; must not block; whoever it
 * leaves the request to calls exactly one transport_reply*. forget: FORGET, which is never answered
 * and may come in thousands; on the control or a loop thread; must not block.
 */
struct transport_server {
	void (*handle)(struct transport_req *r, void *arg);
	void (*forget)(void *arg, uint64_t nodeid, uint64_t nlookup);
	void *arg;
};

struct transport_config {
	const char *source;        /* shown in /proc/mounts, as the user gave it */
	const char *mountpoint;
	bool blkdev;               /* fuseblk */
	uint32_t blksize;          /* for fuseblk */
	/* comma list for the kernel and mount(8): ro,nosuid,allow_other,... */
	const char *mount_opts;
	struct loop_set *loops;
	unsigned queue_depth;      /* slots a loop */
	enum transport_kind transport;
	unsigned max_background;   /* 0: 4096 */
	size_t slot_size;          /* bytes of the struct that embeds transport_req first */
	bool posix_acl, parallel_dio, export_handles;
	/*
	 * Unmounts what was mounted on mountpoint, which needs a privilege that the daemon gives
	 * up: 0 or -errno, -EPERM if only lazy is possible, -EINVAL if it is not mounted any more,
	 * -EEXIST if another mount covers it. Not on the control thread; one call at a time.
	 */
	int (*umount)(void *arg, bool lazy);
	/*
	 * No request is taken any more; those that handlers have are waited for next (control
	 * thread). May be NULL.
	 */
	void (*ending)(void *arg);
	/*
	 * DESTROY (fuseblk umount) or the channel ended (umount, abort): called once, on the
	 * control thread; returns when everything is written.
	 */
	void (*destroy)(void *arg, bool aborted);
	void *arg;
};

/*
 * Allocates slots and buffers, registers arenas with the loops. Before loop_set_start. reason: one
 * line.
 */
int transport_new(const struct transport_config *config, struct transport **ret,
		  struct fdio_reason *reason);
/*
 * mount(2) or fusermount3; -ENODEV: the kernel has no FUSE. The kernel's INIT is not answered
 * before transport_start.
 */
int transport_mount(struct transport *transport, struct fdio_reason *reason) FDIO_BLOCKS;
/* Before transport_start. The server outlives the connection. */
void transport_set_server(struct transport *transport, const struct transport_server *server);
/*
 * Answers INIT, opens the channel's clones of the connection, starts the control thread, and has
 * the running loops arm their slots. Main thread; waits at most ten seconds for INIT. -errno.
 */
int transport_start(struct transport *transport, struct fdio_reason *reason) FDIO_BLOCKS;
/* Asks for an end as umount would (SIGTERM): unmounts lazily if busy. Any thread. */
void transport_unmount(struct transport *transport);
/*
 * Ends the connection although the kernel keeps it: the mount is gone from here, and somebody has
 * it elsewhere. Any thread.
 */
void transport_let_go(struct transport *transport);
/* Logs the requests that are not answered yet (at most 20), and how many there are. Any thread. */
void transport_log_busy(struct transport *transport);
/* Waits until the channel has ended and destroy has returned. */
void transport_wait(struct transport *transport) FDIO_BLOCKS;
void transport_free(struct transport *transport);

/*
 * Replies: once a request, from any thread. len bytes of req->payload are the body; err < 0: no
 * body.
 */
void transport_reply(struct transport_req *req, int err, uint32_t len);
/* Body copied from elsewhere (small structs). */
void transport_reply_data(struct transport_req *req, const void *data, uint32_t len);

/*
 * Notifications to the kernel: block; never on a loop thread and with no lock that a FUSE request
 * can wait for. -errno; -ENOENT is normal.
 */
int transport_notify_inval_inode(struct transport *transport, uint64_t nodeid, int64_t off,
				 int64_t len);

/*
 * Slots of the loop with this index: fewer where the CPU was not in use at the mount. Any thread.
 */
unsigned transport_loop_slots(const struct transport *transport, unsigned loop);

/* Negotiated with the kernel, valid after transport_start. */
/* kernel_minor: what the kernel knows, also beyond what we do. */
struct transport_conn {
	uint32_t proto_minor, kernel_minor, max_write, max_read, max_pages;
	uint64_t flags;
	const char *channel;
};
const struct transport_conn *transport_conn(const struct transport *transport);

#endif
