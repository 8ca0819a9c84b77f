/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile FUSE messages: everything above the channels, in one process, with a volume on a device
 * in memory. Messages are decoded from memory of exactly their size, dispatched as both channels do
 * it, and served by the product's operations, engine and file system with their threads; a channel
 * of our own takes the replies. Some are well-formed with absurd contents, some are cut, stretched
 * or overwritten, some have opcodes nobody knows. Now and then the image below is damaged as well.
 *
 * What is checked: each request that wants an answer gets exactly one, under its own number (the
 * transport asserts the rest), the length of an answer fits its slot, and closing works. Cases of
 * the corpus may spell out messages and the answers they must get. The kernel is trusted in one
 * thing: a handle is released after its other requests were answered.
 *
 * transport/uring.c is included so that the ring's entries can be completed without a kernel.
 */
#include "fuzz/fuzz.h"

#include "message/table.h"
#include "transport/uring.c"

#include "base/epoch.h"
#include "dio/engine.h"
#include "ops/ops.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>

enum { SLOTS = 6, MAX_KNOWN = 64, MESSAGES = 300 };

struct world {
	struct fuzz_dev *dev;
	struct ext4_vol *vol;
	struct dio *dio;
	struct ops *ops;
	struct work_queue *workers, *io, *syncers;
	struct loop_set *loops;
	struct transport transport;
	struct transport_queue queue;
	uint64_t handles[MAX_KNOWN], nodes[MAX_KNOWN];
	unsigned nr_handles, nr_nodes;
	unsigned sent;
	uint64_t work; /* at the beginning */
	struct fdio_mutex lock; /* guards what replies teach us, free slots, and: */
	unsigned answered, fine;
	bool busy[SLOTS];
	uint64_t unique[SLOTS]; /* of the message in the slot; 0: it had no header, so no answer */
	int last_err;
};

static struct world *world;

/* ---- the channel ---- */

static void learn(struct world *w, const struct transport_req *req)
{
	const struct fuse_entry_out *entry = (const void *)req->payload;
	const struct fuse_open_out *o = NULL;
	uint32_t op = req->in.header.opcode;

	if (req->reply_err)
		return;
	if (op == FUSE_LOOKUP || op == FUSE_MKDIR || op == FUSE_MKNOD || op == FUSE_CREATE ||
	    op == FUSE_LINK || op == FUSE_SYMLINK || op == FUSE_TMPFILE)
		w->nodes[w->nr_nodes++ % MAX_KNOWN] = entry->nodeid;
	if (op == FUSE_OPEN || op == FUSE_OPENDIR)
		o = (const void *)req->payload;
	else if (op == FUSE_CREATE || op == FUSE_TMPFILE)
		o = (const void *)(entry + 1);
	if (o)
		w->handles[w->nr_handles++ % MAX_KNOWN] = o->fh;
}

static void chan_reply(struct transport_req *req)
{
	struct world *w = world;

	MUST(req->reply_len <= req->payload_cap && req->reply_err <= 0 && req->reply_err > -512);
	fdio_mutex_lock(&w->lock);
	learn(w, req);
	MUST(w->busy[req->slot]);
	w->busy[req->slot] = false;
	w->last_err = req->reply_err;
	if (req->in.header.unique) {
		MUST(req->in.header.unique == w->unique[req->slot]);
		w->answered++;
		w->fine += !req->reply_err;
	}
	fdio_mutex_unlock(&w->lock);
}

static const struct transport_channel_ops chan = { .name = "fuzz", .reply = chan_reply };

static unsigned nr_busy(struct world *w)
{
	unsigned n = 0;

	fdio_mutex_lock(&w->lock);
	for (unsigned s = 0; s < SLOTS; s++)
		n += w->busy[s];
	fdio_mutex_unlock(&w->lock);
	return n;
}

static void wait_below(struct world *w, unsigned n)
{
	struct timespec nap = { .tv_nsec = 20000 };

	while (nr_busy(w) >= n) /* the watchdog ends it */
		nanosleep(&nap, NULL);
}

/* ---- messages ---- */
struct message { uint32_t len; bool ring; uint8_t bytes[MESSAGE_WRITE_HDR + 70000]; };

static uint64_t number(struct rnd *rng)
{
	static const uint64_t some[] = { 0,
					 1,
					 2,
					 511,
					 512,
					 4095,
					 4096,
					 65535,
					 65536,
					 1 << 20,
					 (1 << 20) - 4096,
					 INT32_MAX,
					 UINT32_MAX,
					 1ULL << 32,
					 1ULL << 44,
					 INT64_MAX,
					 1ULL << 63,
					 UINT64_MAX };

	switch (rnd_n(rng, 4)) {
	case 0: return rnd_u64(rng);
	case 1: return rnd_n(rng, 70000);
	default: return some[rnd_n(rng, ARRAY_SIZE(some))];
	}
}

static uint64_t node(struct world *w, struct rnd *rng)
{
	unsigned n = FDIO_MIN(w->nr_nodes, (unsigned)MAX_KNOWN);

	if (n && rnd_n(rng, 3))
		return w->nodes[rnd_n(rng, n)];
	return rnd_n(rng, 4) ? FUSE_ROOT_ID : rnd_n(rng, 2) ? rnd_n(rng, 60) : number(rng);
}

static uint64_t handle(struct world *w, struct rnd *rng)
{
	unsigned n = FDIO_MIN(w->nr_handles, (unsigned)MAX_KNOWN);

	if (n && rnd_n(rng, 8))
		return w->handles[rnd_n(rng, n)];
	return rnd_n(rng, 2) ? number(rng)
			     : (uint64_t)(1 + 2 * rnd_n(rng, 3)) << 32 | rnd_n(rng, 20);
}

static uint32_t name(struct rnd *rng, uint8_t *p)
{
	static const char *const known[] = { "htree",
					     "frag",
					     "plain",
					     "attrs",
					     "acldir",
					     "deep0",
					     "fast",
					     "slow",
					     "sparse",
					     "unwritten",
					     ".",
					     "..",
					     "new",
					     "linked",
					     "user.one",
					     "user.block",
					     "system.posix_acl_access",
					     "security.capability" };
	uint32_t n;

	if (rnd_n(rng, 3)) {
		const char *s = known[rnd_n(rng, ARRAY_SIZE(known))];
		strcpy((char *)p, s);
		return (uint32_t)strlen(s) + 1;
	}
	n = rnd_n(rng, rnd_n(rng, 4) ? 30 : 5000);
	memset(p, 'a' + (int)rnd_n(rng, 4), n);
	if (!rnd_n(rng, 8) && n)
		p[rnd_n(rng, n)] = (uint8_t)rnd_n(rng, 256);
	p[n] = 0;
	return n + 1;
}

static uint32_t some_opcode(struct rnd *rng)
{
	static const uint8_t often[] = {
		FUSE_LOOKUP,       FUSE_OPEN,      FUSE_READ,     FUSE_WRITE,       FUSE_CREATE,
		FUSE_SETATTR,      FUSE_FALLOCATE, FUSE_READDIR,  FUSE_READDIRPLUS, FUSE_OPENDIR,
		FUSE_RENAME2,      FUSE_UNLINK,    FUSE_SETXATTR, FUSE_GETXATTR,    FUSE_FORGET,
		FUSE_BATCH_FORGET, FUSE_IOCTL,     FUSE_RELEASE,  FUSE_MKDIR,       FUSE_LSEEK
	};

	if (rnd_n(rng, 2))
		return often[rnd_n(rng, ARRAY_SIZE(often))];
	return rnd_n(rng, 12) ? rnd_n(rng, 60) : (uint32_t)number(rng);
}

/* The fixed argument: mostly numbers of the kinds that stand there. */
static void fill_arg(struct world *w, struct rnd *rng, uint32_t op, uint8_t *p, uint32_t size)
{
	for (uint32_t at = 0; at + 4 <= size; at += 4) {
		uint32_t v = (uint32_t)(rnd_n(rng, 3) ? rnd_n(rng, 4) ? 0 : rnd_n(rng, 1024)
						      : number(rng));
		memcpy(p + at, &v, 4);
	}
	switch (op) {
	case FUSE_READ:
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
	case FUSE_WRITE:
	case FUSE_RELEASE:
	case FUSE_RELEASEDIR:
	case FUSE_FLUSH:
	case FUSE_FSYNC:
	case FUSE_FSYNCDIR:
	case FUSE_LSEEK:
	case FUSE_FALLOCATE:
	case FUSE_IOCTL: {
		uint64_t fh = handle(w, rng);
		memcpy(p, &fh, 8);
		break;
	}
	default: break;
	}
	if (op == FUSE_READ || op == FUSE_READDIR || op == FUSE_READDIRPLUS) {
		uint32_t n = rnd_n(rng, 4) ? rnd_n(rng, 40000) : (uint32_t)number(rng);
		memcpy(p + 16, &n, 4);
	}
	if (op == FUSE_IOCTL) {
		static const uint32_t cmds[] = { FS_IOC_GETFLAGS,
						 FS_IOC_SETFLAGS,
						 FS_IOC_FSGETXATTR,
						 FS_IOC_FSSETXATTR,
						 FITRIM,
						 FS_IOC_GETVERSION,
						 FS_IOC_GETFSLABEL,
						 FS_IOC_SETFSLABEL,
						 _IOR('X', 125, uint32_t),
						 _IOW('X', 125, uint32_t) };
		uint32_t cmd = cmds[rnd_n(rng, ARRAY_SIZE(cmds) - (rnd_n(rng, 20) ? 2 : 0))];
		if (rnd_n(rng, 5))
			memcpy(p + 12, &cmd, 4);
		if (rnd_n(rng, 3))
			memset(p + 8, 0, 4); /* flags: of a program with 64 bits */
	}
}

static uint32_t fill_rest(struct rnd *rng, uint32_t op, uint8_t *arg, uint8_t *p)
{
	uint32_t n = 0, size;

	switch (op) {
	case FUSE_LOOKUP:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_MKDIR:
	case FUSE_MKNOD:
	case FUSE_CREATE:
	case FUSE_LINK:
	case FUSE_GETXATTR: case FUSE_REMOVEXATTR: case FUSE_TMPFILE: return name(rng, p);
	case FUSE_RENAME: case FUSE_RENAME2: case FUSE_SYMLINK:
		n = name(rng, p);
		return n + name(rng, p + n);
	case FUSE_WRITE:
		size = rnd_n(rng, rnd_n(rng, 4) ? 5000 : 65536);
		if (rnd_n(rng, 8))
			memcpy(arg + 16, &size, 4);
		memset(p, 'w', size);
		return size;
	case FUSE_IOCTL:
		size = rnd_n(rng, 300);
		if (rnd_n(rng, 8)) {
			uint32_t out = rnd_n(rng, 5000);

			memcpy(arg + 24, &size, 4);
			memcpy(arg + 28, &out, 4);
		}
		for (uint32_t k = 0; k < size; k++)
			p[k] = (uint8_t)(rnd_n(rng, 3) ? 0 : rnd_n(rng, 256));
		return size;
	case FUSE_SETXATTR:
		n = name(rng, p);
		size = rnd_n(rng, 3000);
		if (rnd_n(rng, 8))
			memcpy(arg, &size, 4);
		for (uint32_t k = 0; k < size; k++)
			p[n + k] = (uint8_t)(rnd_n(rng, 3) ? 0 : rnd_n(rng, 256));
		return n + size;
	case FUSE_BATCH_FORGET:
		size = rnd_n(rng, 40) * 16;
		for (uint32_t k = 0; k < size; k += 8) {
			uint64_t v = k & 8 ? rnd_n(rng, 4) : rnd_n(rng, 60);
			memcpy(p + k, &v, 8);
		}
		return size;
	default:
		size = rnd_n(rng, 100);
		for (uint32_t k = 0; k < size; k++)
			p[k] = (uint8_t)rnd_n(rng, 256);
		return size;
	}
}

/* Supplementary groups and what else may hang behind. */
static uint32_t fill_ext(struct rnd *rng, uint8_t *p)
{
	uint32_t v[12], n = 2 + rnd_n(rng, 10);

	for (uint32_t k = 0; k < n; k++)
		v[k] = rnd_n(rng, 3) ? rnd_n(rng, 40) : (uint32_t)number(rng);
	if (rnd_n(rng, 2)) {
		v[0] = n * 4;
		v[1] = MESSAGE_EXTENT_GROUPS;
	}
	memcpy(p, v, n * 4);
	return n * 4;
}

static void spoil(struct rnd *rng, struct message *message)
{
	switch (rnd_n(rng, 5)) {
	case 0: message->len = rnd_n(rng, message->len + 1); break;
	case 1:
		message->bytes[rnd_n(rng, FDIO_MIN(message->len, 140U))] = (uint8_t)rnd_n(rng, 256);
		break;
	case 2: {
		uint32_t v = (uint32_t)number(rng);
		memcpy(message->bytes + 4 * rnd_n(rng, FDIO_MIN(message->len, 160U) / 4), &v, 4);
		break;
	}
	case 3:
		message->len = FDIO_MIN(message->len + rnd_n(rng, 200),
					(uint32_t)sizeof(message->bytes));
		break;
	default: {
		uint32_t v = message->len + (rnd_n(rng, 2) ? 1 : -1);
		memcpy(message->bytes, &v, 4);
		break;
	}
	}
}

static void make_message(struct world *w, struct rnd *rng, struct message *message)
{
	struct fuse_in_header header = { .opcode = some_opcode(rng),
					 .unique = 2 * ++w->sent,
					 .nodeid = node(w, rng) };
	const struct message_op *known = message_op_lookup(header.opcode);
	uint32_t arg = known ? known->arg_size : rnd_n(rng, 100);
	uint8_t *p = message->bytes + sizeof(header);

	memset(message->bytes, 0, 256);
	header.uid = rnd_n(rng, 3) ? 0 : 1000;
	fill_arg(w, rng, header.opcode, p, arg);
	message->len = (uint32_t)sizeof(header) + arg;
	message->len += fill_rest(rng, header.opcode, p, p + arg);
	if (!rnd_n(rng, 6)) {
		message->len = (uint32_t)fdio_round_up(message->len, 8);
		uint32_t n = fill_ext(rng, message->bytes + message->len);
		message->len += n;
		header.total_extlen = (uint16_t)(rnd_n(rng, 4) ? n / 8 : number(rng));
	}
	header.len = message->len;
	memcpy(message->bytes, &header, sizeof(header));
	message->ring = rnd_n(rng, 2);
	if (!rnd_n(rng, 4))
		spoil(rng, message);
}

/* ---- decoding alone, where any byte too many is noticed ---- */
static void decode(const struct message *message)
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

/* ---- sending ---- */
static struct transport_req *free_slot(struct world *w)
{
	struct transport_req *req = NULL;

	wait_below(w, SLOTS);
	fdio_mutex_lock(&w->lock);
	for (unsigned s = 0; s < SLOTS && !req; s++)
		if (!w->busy[s]) {
			w->busy[s] = true;
			req = transport_slot(&w->queue, s);
		}
	fdio_mutex_unlock(&w->lock);
	MUST(req);
	return req;
}

static void send_dev(struct transport_req *req, const struct message *message)
{
	uint8_t *at = req->payload - MESSAGE_WRITE_HDR;

	memcpy(at, message->bytes, message->len);
	transport_dispatch(req, message_decode(at, message->len, &req->in));
}

/* As the kernel fills an entry: header, argument and payload apart. */
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
	if (message->len % 16 == 7) /* a size that cannot be */
		entry->h.ring_ent_in_out.payload_sz = UINT32_MAX - message->len;
	entry->req = req;
	entry_done(&entry->op, 0, 0);
}

static void send_message(struct world *w, const struct message *message)
{
	struct fuse_in_header header = { 0 };
	struct transport_req *req;

	memcpy(&header, message->bytes, FDIO_MIN(message->len, (uint32_t)sizeof(header)));
	/* DESTROY ends the mount; the control thread is not here. */
	if (header.opcode == FUSE_DESTROY)
		return;
	if (header.opcode == FUSE_RELEASE || header.opcode == FUSE_RELEASEDIR)
		wait_below(w, 1);
	req = free_slot(w);
	w->unique[req->slot] = message->ring || message->len >= sizeof(header) ? header.unique : 0;
	if (message->ring)
		send_ring(req, message);
	else
		send_dev(req, message);
	if (header.opcode == FUSE_RELEASE || header.opcode == FUSE_RELEASEDIR)
		wait_below(w, 1);
}

/* ---- the world ---- */
static void slots_new(struct world *w, size_t slot_size)
{
	struct transport *transport = &w->transport;

	transport->config.slot_size = slot_size;
	transport_set_server(transport, &(struct transport_server){ .handle = ops_handle,
								    .forget = ops_forget,
								    .arg = w->ops });
	transport->fd = -1;
	transport->chan = &chan;
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
	w->queue.nr_slots = w->queue.nr_ring = SLOTS;
	w->queue.slots = fdio_alloc_aligned(FDIO_CACHELINE, SLOTS * slot_size);
	MUST(w->queue.slots);
	for (unsigned s = 0; s < SLOTS; s++) {
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

/* So that both ways are tried. */
static bool some_are(void *arg, uint32_t pid, uint32_t uid, unsigned cap)
{
	(void)arg;
	(void)pid;
	(void)cap;
	return uid == 0;
}

static bool world_new(struct world *w, const struct image_case *test)
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
	w->work = work_so_far();
	if (ext4_vol_open(&w->dev->dev, &options, &w->vol, NULL, FDIO_REASON(err)))
		return false;
	MUST(!loop_set_new(&config, &w->loops, FDIO_REASON(err)));
	w->workers = work_queue_new("worker", 2);
	w->io = work_queue_new("io", 1);
	w->syncers = work_queue_new("syncer", 1);
	struct ops_config oc = { .vol = w->vol,
				 .workers = w->workers,
				 .nr_requests = SLOTS,
				 .parallel_dio = true,
				 .capable = some_are };
	MUST(w->workers && w->io && w->syncers && !ops_new(&oc, &w->ops));
	struct dio_config dc = { .dev = &w->dev->dev,
				 .vol = w->vol,
				 .nr_cpus = 1,
				 .workers = w->io,
				 .syncers = w->syncers,
				 .segs_per_loop = 4,
				 .strict = true,
				 .inval = ops_inval,
				 .inval_arg = w->ops };
	MUST(!dio_new(&dc, &w->dio));
	ops_set_dio(w->ops, w->dio);
	ops_set_tr(w->ops, &w->transport);
	slots_new(w, ops_req_size());
	return true;
}

static void world_end(struct world *w)
{
	wait_below(w, 1);
	MUST(w->answered <= w->sent);
	dio_drain(w->dio);
	ops_shutdown(w->ops);
	dio_drain(w->dio);
	work_queue_drain(w->io);
	work_queue_drain(w->syncers);
	(void)ext4_vol_close(w->vol);
	/* A message is one operation, and so are mounting and unmounting. */
	MUST(work_so_far() - w->work <= (w->sent + 2) * work_allowed(w->dev->size));
	work_queue_free(w->workers);
	work_queue_free(w->io);
	work_queue_free(w->syncers);
	dio_free(w->dio);
	ops_free(w->ops);
	loop_set_free(w->loops);
	for (unsigned s = 0; s < SLOTS; s++)
		free(transport_slot(&w->queue, s)->payload - TRANSPORT_HDR_BYTES);
	free(w->queue.slots);
	epoch_drain();
}

/* Something to talk about: names looked up, files and the root opened. */
static void begin(struct world *w, struct message *message)
{
	static const char *const names[] = { "frag",   "plain", "attrs",  "unwritten",
					     "sparse", "htree", "acldir", "deep0" };

	for (unsigned k = 0; k < 2 * ARRAY_SIZE(names) + 1; k++) {
		struct fuse_in_header header = { .opcode = k < ARRAY_SIZE(names) ? FUSE_LOOKUP
										 : FUSE_OPEN,
						 .unique = 2 * ++w->sent,
						 .nodeid = FUSE_ROOT_ID };
		struct fuse_open_in o = { .flags = O_RDWR | (k & 1 ? O_DIRECT : 0) };

		message->ring = k & 1;
		message->len = sizeof(header) + sizeof(o);
		memset(message->bytes, 0, 512);
		memcpy(message->bytes + sizeof(header), &o, sizeof(o));
		if (k < ARRAY_SIZE(names)) {
			strcpy((char *)message->bytes + sizeof(header), names[k]);
			message->len = (uint32_t)(sizeof(header) + strlen(names[k]) + 1);
		} else if (k == 2 * ARRAY_SIZE(names)) {
			header.opcode = FUSE_OPENDIR;
		} else if (k - ARRAY_SIZE(names) < w->nr_nodes) {
			header.nodeid = w->nodes[k - ARRAY_SIZE(names)];
		}
		header.len = message->len;
		memcpy(message->bytes, &header, sizeof(header));
		send_message(w, message);
		wait_below(w, 1);
	}
}

/* ---- messages spelled out ---- */
static uint32_t hex(const char *s, size_t len, uint8_t *to)
{
	for (size_t k = 0; k + 1 < len; k += 2) {
		char two[3] = { s[k], s[k + 1], 0 }, *end;
		to[k / 2] = (uint8_t)strtoul(two, &end, 16);
		MUST(!*end);
	}
	MUST(len % 2 == 0);
	return (uint32_t)len / 2;
}

/*
 * One word behind the opcode and node: "text with its NUL; hK the K-th handle; NxHH so many bytes
 * HH; else bytes in hex.
 */
static uint32_t spelled(struct world *w, const char *word, uint8_t *to)
{
	unsigned long n = strtoul(word, NULL, 10);
	const char *x = strchr(word, 'x');

	if (*word == '"') {
		strcpy((char *)to, word + 1);
		return (uint32_t)strlen(word);
	}
	if (*word == 'h') {
		n = strtoul(word + 1, NULL, 10);
		MUST(n < w->nr_handles && n < MAX_KNOWN);
		memcpy(to, &w->handles[n], 8);
		return 8;
	}
	if (x) {
		MUST(n <= 65536 && hex(x + 1, strlen(x + 1), to) == 1);
		memset(to, to[0], n);
		return (uint32_t)n;
	}
	return hex(word, strlen(word), to);
}

/*
 * "send dev|ring OPCODE[+EXT] root|nK WORD... [= ERROR]": a header, with EXT extensions of 8 bytes
 * announced, and what the words say, about the root or the K-th node that was looked up; "raw
 * dev|ring WORD... [= ERROR]": the words alone.
 */
static void send_line(struct world *w, char *line, struct message *message)
{
	char *save, *kind = strtok_r(line, " ", &save), *way = strtok_r(NULL, " ", &save), *word;
	struct fuse_in_header header = { .nodeid = FUSE_ROOT_ID, .unique = 2 * ++w->sent };
	bool raw = !strcmp(kind, "raw");

	MUST(way && (raw || !strcmp(kind, "send")));
	message->ring = !strcmp(way, "ring");
	message->len = 0;
	if (!raw) {
		char *op = strtok_r(NULL, " ", &save), *node = strtok_r(NULL, " ", &save);

		MUST(op && node);
		header.opcode = (uint32_t)strtoul(op, &op, 10);
		header.total_extlen = (uint16_t)(*op == '+' ? strtoul(op + 1, NULL, 10) : 0);
		if (*node == 'n')
			header.nodeid = w->nodes[strtoul(node + 1, NULL, 10) % MAX_KNOWN];
		message->len = sizeof(header);
	}
	while ((word = strtok_r(NULL, " ", &save)) && *word != '=') {
		MUST(message->len < 2000 || *word != '"');
		message->len += spelled(w, word, message->bytes + message->len);
		MUST(message->len <= sizeof(message->bytes) - 4096);
	}
	header.len = message->len;
	if (!raw)
		memcpy(message->bytes, &header, sizeof(header));
	decode(message);
	send_message(w, message);
	wait_below(w, 1);
	if (word) {
		int want = atoi(strtok_r(NULL, " ", &save));
		if (w->last_err != want)
			fprintf(stderr, "answered with %d, not with %d\n", w->last_err, want);
		MUST(w->last_err == want);
	}
}

static void send_script(struct world *w, const char *text, struct message *message)
{
	char *copy = strdup(text), *save, *line;

	MUST(copy);
	for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!strncmp(line, "send ", 5) || !strncmp(line, "raw ", 4))
			send_line(w, line, message);
	free(copy);
}

/*
 * ---- cases: "seed N M" as text: seed and number of messages, those before may matter; "image
 * NAME": that one, undamaged; and what send_script takes ----
 */
static void run_messages(struct rnd *rng, const struct image_case *test, unsigned n,
			 const char *text)
{
	static struct world w;
	struct base *base = test->base;
	struct message *message = malloc(sizeof(*message));
	uint8_t *img = mmap(NULL, base->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, base->fd, 0);

	MUST(message && img != MAP_FAILED);
	memset(&w, 0, sizeof(w));
	world = &w;
	w.dev = fuzz_dev_new(img, base->img, base->size);
	case_apply(test, w.dev);
	if (world_new(&w, test)) {
		begin(&w, message);
		for (unsigned k = 0; k < n && !rnd_over(rng); k++) {
			make_message(&w, rng, message);
			decode(message);
			send_message(&w, message);
		}
		if (text)
			send_script(&w, text, message);
		if (getenv("FUZZ_STATS"))
			printf("%s: %u messages, %u answered, %u with success, %u nodes, %u "
			       "handles\n",
			       base->name, w.sent, w.answered, w.fine, w.nr_nodes, w.nr_handles);
		world_end(&w);
	} else {
		MUST(!text || !strstr(text, "\nimage "));
	}
	fuzz_dev_free(w.dev);
	free(message);
}

static void make_case(struct rnd *rng, struct image_case *test)
{
	bool damaged = !rnd_n(rng, 4);

	case_make(rng, test);
	if (!damaged)
		test->nr = 0;
	if (!test->errors)
		test->errors = 1;
	test->fix = true;
}

#ifdef FUZZ_LIBFUZZER

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct rnd r = { .data = data, .left = size };
	struct image_case c;

	if (size < 16)
		return 0;
	make_case(&r, &c);
	run_messages(&r, &c, MESSAGES, NULL);
	return 0;
}

#else

static bool setup(void) { return bases_make(getenv("FUZZ_IMAGE")); }

static void run(struct rnd *rng, const char *text, bool show)
{
	struct image_case test;
	unsigned long long seed;
	unsigned n = MESSAGES;

	if (text) {
		const char *at = strstr(text, "\nseed ");
		if (!at || sscanf(at, " seed %llu %u", &seed, &n) < 1)
			exit(2);
		*rng = rnd_seed(seed);
	}
	make_case(rng, &test);
	if (text && strstr(text, "\nimage ")) {
		char name[32];
		MUST(sscanf(strstr(text, "\nimage "), " image %31s", name) == 1);
		test = (struct image_case) { .base = bases_find(name), .errors = 1 };
		MUST(test.base);
	}
	if (show) {
		case_print(&test, stdout);
		return;
	}
	run_messages(rng, &test, n, text);
}

int main(int argc, char **argv)
{
	static const struct fuzz_target target = {
		.name = "fuzz_msg",
		.setup = setup,
		.run = run,
		.suffix = ".case",
		.cpu_s = 10,
		.rss_kib = 700 << 10,
	};
	return fuzz_main(&target, argc, argv);
}

#endif
