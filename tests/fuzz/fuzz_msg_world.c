/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The world of the message fuzzer: everything of the program above the channels, over a volume on
 * a device in memory: operations, direct-I/O engine and file system with their threads. Messages
 * are decoded from memory of exactly their size and dispatched as both channels do it; a channel
 * of the fuzzer's own takes the answers.
 *
 * Checks that each message with a header gets exactly one answer, under its own number (the
 * transport asserts the rest), that an answer fits its slot, and that closing works.
 *
 * transport/uring.c is included so that its entries can be completed without a kernel.
 */
#include "fuzz/fuzz_msg.h"

#include "transport/uring.c"

#include "base/epoch.h"
#include "dio/engine.h"
#include "message/table.h"
#include "ops/ops.h"

#include <stdlib.h>

static struct world *the_world; /* for the channel, which has no argument */

/* ---- the channel ---- */
/* Nodes and handles that a successful answer contains; later messages use them. Lock held. */
static void learn(struct world *w, const struct transport_req *req)
{
	const struct fuse_entry_out *entry = (const void *)req->payload;
	const struct fuse_open_out *opened = NULL;
	uint32_t op = req->in.header.opcode;

	if (req->reply_err)
		return;
	if (op == FUSE_LOOKUP || op == FUSE_MKDIR || op == FUSE_MKNOD || op == FUSE_CREATE ||
	    op == FUSE_LINK || op == FUSE_SYMLINK || op == FUSE_TMPFILE)
		w->nodes[w->nr_nodes++ % WORLD_KNOWN] = entry->nodeid;
	if (op == FUSE_OPEN || op == FUSE_OPENDIR)
		opened = (const void *)req->payload;
	else if (op == FUSE_CREATE || op == FUSE_TMPFILE)
		opened = (const void *)(entry + 1);
	if (opened)
		w->handles[w->nr_handles++ % WORLD_KNOWN] = opened->fh;
}

static void take_answer(struct transport_req *req)
{
	struct world *w = the_world;

	MUST(req->reply_len <= req->payload_cap && req->reply_err <= 0 && req->reply_err > -512);
	fdio_mutex_lock(&w->lock);
	learn(w, req);
	MUST(w->busy[req->slot]);
	w->busy[req->slot] = false;
	w->last_err = req->reply_err;
	if (req->in.header.unique) {
		MUST(req->in.header.unique == w->unique[req->slot]);
		w->answered++;
		w->succeeded += !req->reply_err;
	}
	fdio_mutex_unlock(&w->lock);
}

static const struct transport_channel_ops channel = { .name = "fuzz", .reply = take_answer };

static unsigned nr_busy(struct world *w)
{
	unsigned n = 0;

	fdio_mutex_lock(&w->lock);
	for (unsigned s = 0; s < WORLD_SLOTS; s++)
		n += w->busy[s];
	fdio_mutex_unlock(&w->lock);
	return n;
}

void world_wait_below(struct world *w, unsigned n)
{
	struct timespec nap = { .tv_nsec = 20000 };

	while (nr_busy(w) >= n)
		nanosleep(&nap, NULL);
}

/* ---- sending ---- */
/* Decodes a copy of exactly the message's size, so that a sanitizer sees any byte too many. */
static void check_decoding(const struct message *message)
{
	struct message_in *in = malloc(sizeof(*in));
	uint8_t *copy = malloc(message->len ? message->len : 1);

	MUST(in && copy);
	memcpy(copy, message->bytes, message->len);
	if (!message_decode(copy, message->len, in)) {
		const uint8_t *end = copy + message->len;
		MUST(!in->name || (in->name_len && in->name[in->name_len] == 0 &&
				   (const uint8_t *)in->name + in->name_len < end));
		MUST(!in->name2 || (in->name2_len && in->name2[in->name2_len] == 0 &&
				    (const uint8_t *)in->name2 + in->name2_len < end));
		MUST(!in->data || in->data + in->data_len <= end);
		MUST(in->nr_groups <= ARRAY_SIZE(in->groups));
	}
	free(copy);
	free(in);
}

static struct transport_req *free_slot(struct world *w)
{
	struct transport_req *req = NULL;

	world_wait_below(w, WORLD_SLOTS);
	fdio_mutex_lock(&w->lock);
	for (unsigned s = 0; s < WORLD_SLOTS && !req; s++)
		if (!w->busy[s]) {
			w->busy[s] = true;
			req = transport_slot(&w->queue, s);
		}
	fdio_mutex_unlock(&w->lock);
	MUST(req);
	return req;
}

/* As the transport reads from /dev/fuse: the whole message in front of the payload. */
static void send_dev(struct transport_req *req, const struct message *message)
{
	uint8_t *at = req->payload - MESSAGE_WRITE_HDR;

	memcpy(at, message->bytes, message->len);
	transport_dispatch(req, message_decode(at, message->len, &req->in));
}

/* As the kernel fills an entry of the ring: header, argument and payload apart. */
static void send_ring(struct transport_req *req, const struct message *message)
{
	struct entry *entry = entry_of(req);
	uint32_t op, arg, rest;

	memset(&entry->h, 0, sizeof(entry->h));
	memcpy(entry->h.in_out, message->bytes,
	       FDIO_MIN(message->len, (uint32_t)sizeof(struct fuse_in_header)));
	memcpy(&op, message->bytes + 4, 4);
	arg = message_op_lookup(op) ? message_op_lookup(op)->arg_size : 0;
	rest = (uint32_t)sizeof(struct fuse_in_header) + arg;
	if (message->len > rest) {
		memcpy(req->payload, message->bytes + rest, message->len - rest);
		entry->h.ring_ent_in_out.payload_sz = message->len - rest;
	}
	memcpy(entry->h.op_in, message->bytes + sizeof(struct fuse_in_header),
	       FDIO_MIN(arg, (uint32_t)sizeof(entry->h.op_in)));
	if (message->len % 16 == 7) /* a size that is impossible */
		entry->h.ring_ent_in_out.payload_sz = UINT32_MAX - message->len;
	entry->req = req;
	entry_done(&entry->op, 0, 0);
}

void world_send(struct world *w, const struct message *message)
{
	struct fuse_in_header header = { 0 };
	struct transport_req *req;

	check_decoding(message);
	memcpy(&header, message->bytes, FDIO_MIN(message->len, (uint32_t)sizeof(header)));
	/* DESTROY is for the control thread, which does not exist here. */
	if (header.opcode == FUSE_DESTROY)
		return;
	if (header.opcode == FUSE_RELEASE || header.opcode == FUSE_RELEASEDIR)
		world_wait_below(w, 1);
	req = free_slot(w);
	w->unique[req->slot] = message->ring || message->len >= sizeof(header) ? header.unique : 0;
	if (message->ring)
		send_ring(req, message);
	else
		send_dev(req, message);
	if (header.opcode == FUSE_RELEASE || header.opcode == FUSE_RELEASEDIR)
		world_wait_below(w, 1);
}

/* ---- life ---- */
static void slots_new(struct world *w, size_t slot_size)
{
	struct transport *transport = &w->transport;

	transport->config.slot_size = slot_size;
	transport_set_server(transport, &(struct transport_server){ .handle = ops_handle,
								    .forget = ops_forget,
								    .arg = w->ops });
	transport->fd = -1;
	transport->chan = &channel;
	transport->nr_queues = 1;
	transport->queues = &w->queue;
	fdio_mutex_init(&transport->lock, RANK_LEAF);
	fdio_cond_init(&transport->changed);
	fdio_magic_set(transport, MAGIC_TRANSPORT);
	fdio_magic_set(&w->queue, MAGIC_TRANSPORT_QUEUE);
	w->queue.transport = transport;
	w->queue.loop = loop_set_get(w->loops, 0);
	w->queue.fd = -1;
	list_init(&w->queue.free);
	w->queue.nr_slots = w->queue.nr_ring = WORLD_SLOTS;
	w->queue.slots = fdio_alloc_aligned(FDIO_CACHELINE, WORLD_SLOTS * slot_size);
	MUST(w->queue.slots);
	for (unsigned s = 0; s < WORLD_SLOTS; s++) {
		struct transport_req *req = transport_slot(&w->queue, s);
		fdio_magic_set(req, MAGIC_TRANSPORT_REQ);
		req->transport = transport;
		req->loop = w->queue.loop;
		req->slot = s;
		req->payload = (uint8_t *)fdio_alloc_aligned(4096, TRANSPORT_SLOT_BYTES) +
			       TRANSPORT_HDR_BYTES;
		req->payload_cap = MESSAGE_MAX_WRITE;
		req->buf_index = -1;
	}
}

/* Whether the user of a request has a capability: root only, so that both cases are tried. */
static bool root_is_capable(void *arg, uint32_t pid, uint32_t uid, unsigned cap)
{
	(void)arg;
	(void)pid;
	(void)cap;
	return uid == 0;
}

bool world_new(struct world *w, const struct image_case *test)
{
	struct ext4_options options = { .acl = true,
					.user_xattr = true,
					.commit_interval_s = 3600,
					.errors = (enum ext4_errors_policy)test->errors };
	struct loop_config config = { .nr_loops = 1,
				      .entries = 64,
				      .nr_fixed_files = LOOP_NR_FILES };
	char err[512];

	fdio_mutex_init(&w->lock, RANK_LEAF);
	the_world = w;
	w->work_before = work_so_far();
	if (ext4_vol_open(&w->dev->dev, &options, &w->vol, NULL, FDIO_REASON(err)))
		return false;
	MUST(!loop_set_new(&config, &w->loops, FDIO_REASON(err)));
	w->workers = work_queue_new("worker", 2);
	w->io = work_queue_new("io", 1);
	w->syncers = work_queue_new("syncer", 1);
	struct ops_config ops_config = { .vol = w->vol,
				 .workers = w->workers,
				 .nr_requests = WORLD_SLOTS,
				 .parallel_dio = true,
				 .capable = root_is_capable };
	MUST(w->workers && w->io && w->syncers && !ops_new(&ops_config, &w->ops));
	struct dio_config dio_config = { .dev = &w->dev->dev,
				 .vol = w->vol,
				 .nr_cpus = 1,
				 .workers = w->io,
				 .syncers = w->syncers,
				 .segs_per_loop = 4,
				 .strict = true,
				 .inval = ops_invalidate_pages,
				 .inval_arg = w->ops };
	MUST(!dio_new(&dio_config, &w->dio));
	ops_set_dio(w->ops, w->dio);
	ops_set_transport(w->ops, &w->transport);
	slots_new(w, ops_req_size());
	return true;
}

void world_end(struct world *w)
{
	world_wait_below(w, 1);
	MUST(w->answered <= w->sent);
	dio_drain(w->dio);
	ops_shutdown(w->ops);
	dio_drain(w->dio);
	work_queue_drain(w->io);
	work_queue_drain(w->syncers);
	(void)ext4_vol_close(w->vol);
	/* Each message is one operation, and so are mounting and unmounting. */
	MUST(work_so_far() - w->work_before <= (w->sent + 2) * work_allowed(w->dev->size));
	work_queue_free(w->workers);
	work_queue_free(w->io);
	work_queue_free(w->syncers);
	dio_free(w->dio);
	ops_free(w->ops);
	loop_set_free(w->loops);
	for (unsigned s = 0; s < WORLD_SLOTS; s++)
		free(transport_slot(&w->queue, s)->payload - TRANSPORT_HDR_BYTES);
	free(w->queue.slots);
	epoch_drain();
}

