/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a connection: slots, mount, INIT, running channel, end.
 *
 *   transport_new -> transport_mount -> transport_start -> transport_attach -> (requests)
 *       -> transport_end -> handlers drained -> destroy callback -> DESTROY answered
 *
 * transport_start, on the main thread, answers INIT, opens the channel, starts the control thread,
 * and then has the loops arm their slots. Only then transport_attach shows the mount to others.
 *
 * The control thread exists for the end: it waits for transport_end (umount, DESTROY, abort,
 * transport_unmount), stops new handlers, waits for those that run, and calls
 * transport_config.destroy, which writes everything. Only then does it answer DESTROY: umount of a
 * fuseblk mount returns with the file system clean on the device.
 *
 * transport.lock (RANK_LEAF) guards end, destroy_req and finished. A step of the start that fails
 * returns -errno with a reason, and transport_free undoes the others. Files call each other
 * downwards: transport.c, init.c, uring.c, devfuse.c, dispatch.c, channel.c, end.c; slots.c,
 * mount.c (which calls detached.c) and deal.c call none of them.
 */
#include "transport/types.h"

#include "base/log.h"
#include "base/thread.h"
#include "transport/mount.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define DRAIN_POLL_NS 500000
#define DRAIN_WARN_NS 5000000000ull
#define LOG_BUSY_MAX 20u

int transport_new(const struct transport_config *config, struct transport **ret,
		  struct fdio_reason *reason)
{
	struct transport *transport = calloc(1, sizeof(*transport));
	char why[128];
	int err = -ENOMEM;

	if (!transport)
		goto nomem;
	fdio_magic_set(transport, MAGIC_TRANSPORT);
	transport->config = *config;
	transport->fd = transport->mount_fd = -1;
	fdio_mutex_init(&transport->lock, RANK_LEAF);
	fdio_cond_init(&transport->changed);
	transport->source = strdup(config->source);
	transport->mountpoint = strdup(config->mountpoint);
	transport->mount_opts = strdup(config->mount_opts ? config->mount_opts : "");
	if (!transport->source || !transport->mountpoint || !transport->mount_opts)
		goto nomem;
	transport->chan = &transport_channel_devfuse;
	err = transport_slots_new(transport, reason);
	if (!err && config->transport == TRANSPORT_KIND_URING &&
	    !transport_uring_usable(transport, FDIO_REASON(why))) {
		fdio_reason_set(reason, "transport=uring cannot be used: %s", why);
		err = -EINVAL;
	}
	if (err) {
		transport_free(transport);
		return err;
	}
	*ret = transport;
	return 0;
nomem:
	fdio_reason_set(reason, "out of memory while preparing the mount");
	transport_free(transport);
	return err;
}

int transport_mount(struct transport *transport, struct fdio_reason *reason)
{
	return transport_mount_make(transport, reason);
}

int transport_attach(struct transport *transport, struct fdio_reason *reason)
{
	return transport_mount_attach(transport, reason);
}

void transport_set_server(struct transport *transport, const struct transport_server *server)
{
	transport->server = *server;
}

const struct transport_conn *transport_conn(const struct transport *transport)
{
	return &transport->conn;
}

unsigned transport_loop_slots(const struct transport *transport, unsigned loop)
{
	return transport->queues[loop].nr_slots;
}

static unsigned busy_slots(struct transport *transport)
{
	unsigned n = 0;

	for (unsigned i = 0; i < transport->nr_queues; i++)
		n += __atomic_load_n(&transport->queues[i].busy, __ATOMIC_SEQ_CST);
	return n;
}

/* Called after busy_slots (DISPATCH-4 in dispatch.c). */
static bool any_handling(struct transport *transport)
{
	for (unsigned i = 0; i < transport->nr_queues; i++)
		if (__atomic_load_n(&transport->queues[i].handling, __ATOMIC_ACQUIRE))
			return true;
	return false;
}

/*
 * log_one and transport_log_busy read slots that other threads use, for the log only, and may see
 * old or torn values. in.arg always points into the slot.
 */
#define LOOKS_ONLY __attribute__((no_sanitize("thread"), noinline))
static void log_one(const struct transport_req *req) LOOKS_ONLY;
static void log_one(const struct transport_req *req)
{
	const struct fuse_write_in *io = req->in.arg; /* fuse_read_in begins like it */
	uint32_t op = req->in.header.opcode;
	char where[64] = "";

	if ((op == FUSE_READ || op == FUSE_WRITE) && io)
		snprintf(where, sizeof(where), ", %u bytes at %llu", io->size,
			 (unsigned long long)io->offset);
	log_warn("no answer yet to %s of inode %llu%s (request %llu, process %u)",
		 message_opcode_name(op), (unsigned long long)req->in.header.nodeid, where,
		 (unsigned long long)req->in.header.unique, req->in.header.pid);
}

LOOKS_ONLY void transport_log_busy(struct transport *transport)
{
	unsigned n = 0;

	for (unsigned i = 0; i < transport->nr_queues; i++)
		for (unsigned s = 0; s < transport->queues[i].nr_slots; s++) {
			const struct transport_req *req = transport_slot(&transport->queues[i], s);
			if (__atomic_load_n(&req->state, __ATOMIC_RELAXED) && n++ < LOG_BUSY_MAX)
				log_one(req);
		}
	log_warn("%u requests have no answer yet", n);
}

/* Waits until no handler runs. The slot of DESTROY stays busy: it is answered last. */
static void drain_handlers(struct transport *transport)
{
	uint64_t warn_at = fdio_now_ns() + DRAIN_WARN_NS;
	struct timespec nap = { .tv_nsec = DRAIN_POLL_NS };

	for (;;) {
		fdio_mutex_lock(&transport->lock);
		unsigned keep = transport->destroy_req ? 1 : 0;
		fdio_mutex_unlock(&transport->lock);
		if (busy_slots(transport) <= keep && !any_handling(transport))
			return;
		if (fdio_now_ns() > warn_at) {
			transport_log_busy(transport);
			warn_at = UINT64_MAX;
		}
		nanosleep(&nap, NULL);
	}
}

static void *control_main(void *arg)
{
	struct transport *transport = arg;

	fdio_magic_check(transport, MAGIC_TRANSPORT);
	fdio_mutex_lock(&transport->lock);
	while (transport->end == TRANSPORT_RUNNING)
		fdio_cond_wait(&transport->changed, &transport->lock);
	enum transport_end why = transport->end;
	fdio_mutex_unlock(&transport->lock);

	/* DISPATCH-2 in dispatch.c */
	__atomic_store_n(&transport->stopping, true, __ATOMIC_SEQ_CST);
	if (transport->config.ending)
		transport->config.ending(transport->config.arg, why == TRANSPORT_ABORTED);
	drain_handlers(transport);
	transport->config.destroy(transport->config.arg);

	fdio_mutex_lock(&transport->lock);
	struct transport_req *req = transport->destroy_req;
	transport->destroy_req = NULL;
	transport->finished = true;
	pthread_cond_broadcast(&transport->changed);
	fdio_mutex_unlock(&transport->lock);
	if (req)
		transport_reply(req, 0, 0);
	return NULL;
}

static void start_queue(struct loop_msg *msg)
{
	struct transport_queue *queue = container_of(msg, struct transport_queue, start_msg);

	fdio_magic_check(queue, MAGIC_TRANSPORT_QUEUE);
	queue->transport->chan->arm(queue);
}

static int start_control(struct transport *transport)
{
	int err = thread_start(&transport->control, "fusedio-ctl", control_main, transport);

	transport->control_on = !err;
	return err;
}

int transport_start(struct transport *transport, struct fdio_reason *reason)
{
	int err = transport_init_handshake(transport, reason);

	if (err)
		return err;
	err = transport->chan->open(transport);
	if (err) {
		fdio_reason_set(reason, "cannot open the %s channel: %s", transport->chan->name,
				strerror(-err));
		return err;
	}
	__atomic_store_n(&transport->conn.channel, transport->chan->name, __ATOMIC_RELAXED);
	err = start_control(transport);
	if (err) {
		fdio_reason_set(reason, "cannot start the control thread: %s", strerror(-err));
		return err;
	}
	log_info("FUSE 7.%u over %s, %u loops with %u slots each", transport->conn.proto_minor,
		 transport->chan->name, transport->nr_queues, transport->queues[0].nr_slots);
	for (unsigned i = 0; i < transport->nr_queues; i++)
		loop_post(transport->queues[i].loop, &transport->queues[i].start_msg, start_queue);
	return 0;
}

void transport_unmount(struct transport *transport)
{
	int err;

	transport_detached_end(transport);
	if (!transport->mounted)
		return;
	err = transport_unmount_try(transport);
	if (!err || err == -EINVAL || err == -EEXIST) {
		/*
		 * After an unmount the channel ends by itself. If the mount was gone already or is
		 * covered by another mount, the connection is ended here: programs that still use
		 * it get errors.
		 */
		if (err)
			transport_end(transport, TRANSPORT_GONE, NULL);
		return;
	}
	log_info("%s is busy (%s): detaching it; open files get errors from now on",
		 transport->mountpoint, strerror(-err));
	transport_unmount_lazy(transport);
	transport_end(transport, TRANSPORT_GONE, NULL);
}

void transport_let_go(struct transport *transport)
{
	transport_end(transport, TRANSPORT_GONE, NULL);
}

void transport_wait(struct transport *transport)
{
	if (!transport->control_on)
		return;
	pthread_join(transport->control, NULL);
	transport->control_on = false;
}

void transport_free(struct transport *transport)
{
	if (!transport)
		return;
	FDIO_ASSERT(!transport->control_on);
	if (transport->chan && transport->queues)
		transport->chan->close(transport);
	transport_mount_free(transport);
	transport_slots_free(transport);
	free(transport->source);
	free(transport->mountpoint);
	free(transport->mount_opts);
	pthread_cond_destroy(&transport->changed);
	fdio_mutex_fini(&transport->lock);
	fdio_magic_clear(transport, MAGIC_TRANSPORT);
	free(transport);
}
