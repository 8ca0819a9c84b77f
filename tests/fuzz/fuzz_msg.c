/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Hostile FUSE messages: everything above the channels, in one process, with a volume on a device in memory. Messages are decoded
 * from memory of exactly their size, dispatched as both channels do it, and served by the product's operations, engine and
 * file system with their threads; a channel of our own takes the replies. Some are well-formed with absurd contents, some are cut,
 * stretched or overwritten, some have opcodes nobody knows. Now and then the image below is damaged as well.
 *
 * What is checked: each request that wants an answer gets exactly one, under its own number (the transport asserts the rest), the
 * length of an answer fits its slot, and closing works. Cases of the corpus may spell out messages and the answers they must get. The
 * kernel is trusted in one thing: a handle is released after its other requests were answered.
 *
 * transport/uring.c is included so that the ring's entries can be completed without a kernel.
 */
#include "fuzz/fuzz.h"

#include "message/table.h"
#include "transport/uring.c"

#include "base/epoch.h"
#include "dio/dio.h"
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
	struct x4_vol *vol;
	struct dio *dio;
	struct ops *ops;
	struct wq *workers, *io, *syncers;
	struct loop_set *loops;
	struct tr tr;
	struct tr_queue queue;
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

static void learn(struct world *w, const struct tr_req *r)
{
	const struct fuse_entry_out *e = (const void *)r->payload;
	const struct fuse_open_out *o = NULL;
	uint32_t op = r->in.h.opcode;

	if (r->reply_err)
		return;
	if (op == FUSE_LOOKUP || op == FUSE_MKDIR || op == FUSE_MKNOD || op == FUSE_CREATE || op == FUSE_LINK || op == FUSE_SYMLINK ||
	    op == FUSE_TMPFILE)
		w->nodes[w->nr_nodes++ % MAX_KNOWN] = e->nodeid;
	if (op == FUSE_OPEN || op == FUSE_OPENDIR)
		o = (const void *)r->payload;
	else if (op == FUSE_CREATE || op == FUSE_TMPFILE)
		o = (const void *)(e + 1);
	if (o)
		w->handles[w->nr_handles++ % MAX_KNOWN] = o->fh;
}

static void chan_reply(struct tr_req *r)
{
	struct world *w = world;

	MUST(r->reply_len <= r->payload_cap && r->reply_err <= 0 && r->reply_err > -512);
	fdio_mutex_lock(&w->lock);
	learn(w, r);
	MUST(w->busy[r->slot]);
	w->busy[r->slot] = false;
	w->last_err = r->reply_err;
	if (r->in.h.unique) {
		MUST(r->in.h.unique == w->unique[r->slot]);
		w->answered++;
		w->fine += !r->reply_err;
	}
	fdio_mutex_unlock(&w->lock);
}

static const struct tr_chan_ops chan = { .name = "fuzz", .reply = chan_reply };

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
struct message { uint32_t len; bool ring; uint8_t bytes[PRO_WRITE_HDR + 70000]; };

static uint64_t number(struct rnd *r)
{
	static const uint64_t some[] = { 0, 1, 2, 511, 512, 4095, 4096, 65535, 65536, 1 << 20, (1 << 20) - 4096, INT32_MAX, UINT32_MAX,
		1ULL << 32, 1ULL << 44, INT64_MAX, 1ULL << 63, UINT64_MAX };

	switch (rnd_n(r, 4)) {
	case 0: return rnd_u64(r);
	case 1: return rnd_n(r, 70000);
	default: return some[rnd_n(r, ARRAY_SIZE(some))];
	}
}

static uint64_t node(struct world *w, struct rnd *r)
{
	unsigned n = FDIO_MIN(w->nr_nodes, (unsigned)MAX_KNOWN);

	if (n && rnd_n(r, 3))
		return w->nodes[rnd_n(r, n)];
	return rnd_n(r, 4) ? FUSE_ROOT_ID : rnd_n(r, 2) ? rnd_n(r, 60) : number(r);
}

static uint64_t handle(struct world *w, struct rnd *r)
{
	unsigned n = FDIO_MIN(w->nr_handles, (unsigned)MAX_KNOWN);

	if (n && rnd_n(r, 8))
		return w->handles[rnd_n(r, n)];
	return rnd_n(r, 2) ? number(r) : (uint64_t)(1 + 2 * rnd_n(r, 3)) << 32 | rnd_n(r, 20);
}

static uint32_t name(struct rnd *r, uint8_t *p)
{
	static const char *const known[] = { "htree", "frag", "plain", "attrs", "acldir", "deep0", "fast", "slow", "sparse", "unwritten", ".", "..",
		"new", "linked", "user.one", "user.block", "system.posix_acl_access", "security.capability" };
	uint32_t n;

	if (rnd_n(r, 3)) {
		const char *s = known[rnd_n(r, ARRAY_SIZE(known))];
		strcpy((char *)p, s);
		return (uint32_t)strlen(s) + 1;
	}
	n = rnd_n(r, rnd_n(r, 4) ? 30 : 5000);
	memset(p, 'a' + (int)rnd_n(r, 4), n);
	if (!rnd_n(r, 8) && n)
		p[rnd_n(r, n)] = (uint8_t)rnd_n(r, 256);
	p[n] = 0;
	return n + 1;
}

static uint32_t some_opcode(struct rnd *r)
{
	static const uint8_t often[] = { FUSE_LOOKUP, FUSE_OPEN, FUSE_READ, FUSE_WRITE, FUSE_CREATE, FUSE_SETATTR, FUSE_FALLOCATE,
		FUSE_READDIR, FUSE_READDIRPLUS, FUSE_OPENDIR, FUSE_RENAME2, FUSE_UNLINK, FUSE_SETXATTR, FUSE_GETXATTR, FUSE_FORGET,
		FUSE_BATCH_FORGET, FUSE_IOCTL, FUSE_RELEASE, FUSE_MKDIR, FUSE_LSEEK };

	if (rnd_n(r, 2))
		return often[rnd_n(r, ARRAY_SIZE(often))];
	return rnd_n(r, 12) ? rnd_n(r, 60) : (uint32_t)number(r);
}

/* The fixed argument: mostly numbers of the kinds that stand there. */
static void fill_arg(struct world *w, struct rnd *r, uint32_t op, uint8_t *p, uint32_t size)
{
	for (uint32_t at = 0; at + 4 <= size; at += 4) {
		uint32_t v = (uint32_t)(rnd_n(r, 3) ? rnd_n(r, 4) ? 0 : rnd_n(r, 1024) : number(r));
		memcpy(p + at, &v, 4);
	}
	switch (op) {
	case FUSE_READ: case FUSE_READDIR: case FUSE_READDIRPLUS: case FUSE_WRITE: case FUSE_RELEASE: case FUSE_RELEASEDIR: case FUSE_FLUSH:
	case FUSE_FSYNC: case FUSE_FSYNCDIR: case FUSE_LSEEK: case FUSE_FALLOCATE: case FUSE_IOCTL: {
		uint64_t fh = handle(w, r);
		memcpy(p, &fh, 8);
		break;
	}
	default: break;
	}
	if (op == FUSE_READ || op == FUSE_READDIR || op == FUSE_READDIRPLUS) {
		uint32_t n = rnd_n(r, 4) ? rnd_n(r, 40000) : (uint32_t)number(r);
		memcpy(p + 16, &n, 4);
	}
	if (op == FUSE_IOCTL) {
		static const uint32_t cmds[] = { FS_IOC_GETFLAGS, FS_IOC_SETFLAGS, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FITRIM,
			FS_IOC_GETVERSION, FS_IOC_GETFSLABEL, FS_IOC_SETFSLABEL, _IOR('X', 125, uint32_t), _IOW('X', 125, uint32_t) };
		uint32_t cmd = cmds[rnd_n(r, ARRAY_SIZE(cmds) - (rnd_n(r, 20) ? 2 : 0))];
		if (rnd_n(r, 5))
			memcpy(p + 12, &cmd, 4);
		if (rnd_n(r, 3))
			memset(p + 8, 0, 4); /* flags: of a program with 64 bits */
	}
}

static uint32_t fill_rest(struct rnd *r, uint32_t op, uint8_t *arg, uint8_t *p)
{
	uint32_t n = 0, size;

	switch (op) {
	case FUSE_LOOKUP: case FUSE_UNLINK: case FUSE_RMDIR: case FUSE_MKDIR: case FUSE_MKNOD: case FUSE_CREATE: case FUSE_LINK:
	case FUSE_GETXATTR: case FUSE_REMOVEXATTR: case FUSE_TMPFILE: return name(r, p);
	case FUSE_RENAME: case FUSE_RENAME2: case FUSE_SYMLINK:
		n = name(r, p);
		return n + name(r, p + n);
	case FUSE_WRITE:
		size = rnd_n(r, rnd_n(r, 4) ? 5000 : 65536);
		if (rnd_n(r, 8))
			memcpy(arg + 16, &size, 4);
		memset(p, 'w', size);
		return size;
	case FUSE_IOCTL:
		size = rnd_n(r, 300);
		if (rnd_n(r, 8)) {
			uint32_t out = rnd_n(r, 5000);

			memcpy(arg + 24, &size, 4);
			memcpy(arg + 28, &out, 4);
		}
		for (uint32_t k = 0; k < size; k++)
			p[k] = (uint8_t)(rnd_n(r, 3) ? 0 : rnd_n(r, 256));
		return size;
	case FUSE_SETXATTR:
		n = name(r, p);
		size = rnd_n(r, 3000);
		if (rnd_n(r, 8))
			memcpy(arg, &size, 4);
		for (uint32_t k = 0; k < size; k++)
			p[n + k] = (uint8_t)(rnd_n(r, 3) ? 0 : rnd_n(r, 256));
		return n + size;
	case FUSE_BATCH_FORGET:
		size = rnd_n(r, 40) * 16;
		for (uint32_t k = 0; k < size; k += 8) {
			uint64_t v = k & 8 ? rnd_n(r, 4) : rnd_n(r, 60);
			memcpy(p + k, &v, 8);
		}
		return size;
	default:
		size = rnd_n(r, 100);
		for (uint32_t k = 0; k < size; k++)
			p[k] = (uint8_t)rnd_n(r, 256);
		return size;
	}
}

/* Supplementary groups and what else may hang behind. */
static uint32_t fill_ext(struct rnd *r, uint8_t *p)
{
	uint32_t v[12], n = 2 + rnd_n(r, 10);

	for (uint32_t k = 0; k < n; k++)
		v[k] = rnd_n(r, 3) ? rnd_n(r, 40) : (uint32_t)number(r);
	if (rnd_n(r, 2)) {
		v[0] = n * 4;
		v[1] = PRO_EXT_GROUPS;
	}
	memcpy(p, v, n * 4);
	return n * 4;
}

static void spoil(struct rnd *r, struct message *m)
{
	switch (rnd_n(r, 5)) {
	case 0: m->len = rnd_n(r, m->len + 1); break;
	case 1: m->bytes[rnd_n(r, FDIO_MIN(m->len, 140U))] = (uint8_t)rnd_n(r, 256); break;
	case 2: {
		uint32_t v = (uint32_t)number(r);
		memcpy(m->bytes + 4 * rnd_n(r, FDIO_MIN(m->len, 160U) / 4), &v, 4);
		break;
	}
	case 3: m->len = FDIO_MIN(m->len + rnd_n(r, 200), (uint32_t)sizeof(m->bytes)); break;
	default: {
		uint32_t v = m->len + (rnd_n(r, 2) ? 1 : -1);
		memcpy(m->bytes, &v, 4);
		break;
	}
	}
}

static void make_message(struct world *w, struct rnd *r, struct message *m)
{
	struct fuse_in_header h = { .opcode = some_opcode(r), .unique = 2 * ++w->sent, .nodeid = node(w, r) };
	const struct pro_op *known = pro_op_lookup(h.opcode);
	uint32_t arg = known ? known->arg_size : rnd_n(r, 100);
	uint8_t *p = m->bytes + sizeof(h);

	memset(m->bytes, 0, 256);
	h.uid = rnd_n(r, 3) ? 0 : 1000;
	fill_arg(w, r, h.opcode, p, arg);
	m->len = (uint32_t)sizeof(h) + arg;
	m->len += fill_rest(r, h.opcode, p, p + arg);
	if (!rnd_n(r, 6)) {
		m->len = (uint32_t)fdio_round_up(m->len, 8);
		uint32_t n = fill_ext(r, m->bytes + m->len);
		m->len += n;
		h.total_extlen = (uint16_t)(rnd_n(r, 4) ? n / 8 : number(r));
	}
	h.len = m->len;
	memcpy(m->bytes, &h, sizeof(h));
	m->ring = rnd_n(r, 2);
	if (!rnd_n(r, 4))
		spoil(r, m);
}

/* ---- decoding alone, where any byte too many is noticed ---- */
static void decode(const struct message *m)
{
	struct pro_in *in = malloc(sizeof(*in));
	uint8_t *copy = malloc(m->len ? m->len : 1);

	MUST(in && copy);
	memcpy(copy, m->bytes, m->len);
	if (!pro_decode(copy, m->len, in)) {
		const uint8_t *end = copy + m->len;
		MUST(!in->name || (in->name_len && in->name[in->name_len] == 0 && (const uint8_t *)in->name + in->name_len < end));
		MUST(!in->name2 || (in->name2_len && in->name2[in->name2_len] == 0 && (const uint8_t *)in->name2 + in->name2_len < end));
		MUST(!in->data || in->data + in->data_len <= end);
		MUST(in->nr_groups <= ARRAY_SIZE(in->groups));
	}
	free(copy);
	free(in);
}

/* ---- sending ---- */
static struct tr_req *free_slot(struct world *w)
{
	struct tr_req *r = NULL;

	wait_below(w, SLOTS);
	fdio_mutex_lock(&w->lock);
	for (unsigned s = 0; s < SLOTS && !r; s++)
		if (!w->busy[s]) {
			w->busy[s] = true;
			r = tr_slot(&w->queue, s);
		}
	fdio_mutex_unlock(&w->lock);
	MUST(r);
	return r;
}

static void send_dev(struct tr_req *r, const struct message *m)
{
	uint8_t *at = r->payload - PRO_WRITE_HDR;

	memcpy(at, m->bytes, m->len);
	tr_dispatch(r, pro_decode(at, m->len, &r->in));
}

/* As the kernel fills an entry: header, argument and payload apart. */
static void send_ring(struct tr_req *r, const struct message *m)
{
	struct entry *e = entry_of(r);
	uint32_t op, arg, rest;

	memset(&e->h, 0, sizeof(e->h));
	memcpy(e->h.in_out, m->bytes, FDIO_MIN(m->len, (uint32_t)sizeof(struct fuse_in_header)));
	memcpy(&op, m->bytes + 4, 4);
	arg = pro_op_lookup(op) ? pro_op_lookup(op)->arg_size : 0;
	rest = (uint32_t)sizeof(struct fuse_in_header) + arg;
	if (m->len > rest) {
		memcpy(r->payload, m->bytes + rest, m->len - rest);
		e->h.ring_ent_in_out.payload_sz = m->len - rest;
	}
	memcpy(e->h.op_in, m->bytes + sizeof(struct fuse_in_header), FDIO_MIN(arg, (uint32_t)sizeof(e->h.op_in)));
	if (m->len % 16 == 7) /* a size that cannot be */
		e->h.ring_ent_in_out.payload_sz = UINT32_MAX - m->len;
	e->r = r;
	entry_done(&e->op, 0, 0);
}

static void send_message(struct world *w, const struct message *m)
{
	struct fuse_in_header h = { 0 };
	struct tr_req *r;

	memcpy(&h, m->bytes, FDIO_MIN(m->len, (uint32_t)sizeof(h)));
	/* DESTROY ends the mount; the control thread is not here. */
	if (h.opcode == FUSE_DESTROY)
		return;
	if (h.opcode == FUSE_RELEASE || h.opcode == FUSE_RELEASEDIR)
		wait_below(w, 1);
	r = free_slot(w);
	w->unique[r->slot] = m->ring || m->len >= sizeof(h) ? h.unique : 0;
	if (m->ring)
		send_ring(r, m);
	else
		send_dev(r, m);
	if (h.opcode == FUSE_RELEASE || h.opcode == FUSE_RELEASEDIR)
		wait_below(w, 1);
}

/* ---- the world ---- */
static void slots_new(struct world *w, size_t slot_size)
{
	struct tr *t = &w->tr;

	t->cfg.slot_size = slot_size;
	tr_set_server(t, &(struct tr_server){ .handle = ops_handle, .forget = ops_forget, .arg = w->ops });
	t->fd = -1;
	t->chan = &chan;
	t->nr_queues = 1;
	t->queues = &w->queue;
	fdio_mutex_init(&t->lock, RANK_LEAF);
	fdio_cond_init(&t->changed);
	fdio_magic_set(t, MAGIC_TRANSPORT);
	fdio_magic_set(&w->queue, MAGIC_TRANSPORT_QUEUE);
	w->queue.tr = t;
	w->queue.loop = loop_set_get(w->loops, 0);
	w->queue.fd = -1;
	list_init(&w->queue.free);
	w->queue.nr_slots = w->queue.nr_ring = SLOTS;
	w->queue.slots = fdio_alloc_aligned(FDIO_CACHELINE, SLOTS * slot_size);
	MUST(w->queue.slots);
	for (unsigned s = 0; s < SLOTS; s++) {
		struct tr_req *r = tr_slot(&w->queue, s);
		fdio_magic_set(r, MAGIC_TRANSPORT_REQ);
		r->tr = t;
		r->loop = w->queue.loop;
		r->slot = s;
		r->payload = (uint8_t *)fdio_alloc_aligned(4096, TR_SLOT_BYTES) + TR_HDR_BYTES;
		r->payload_cap = PRO_MAX_WRITE;
		r->buf_index = -1;
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

static bool world_new(struct world *w, const struct image_case *c)
{
	struct x4_options xo = { .acl = true, .user_xattr = true, .commit_interval_s = 3600, .errors = (enum x4_errors_policy)c->errors };
	struct loop_config lc = { .nr_loops = 1, .entries = 64, .nr_fixed_files = LOOP_NR_FILES };
	char err[512];

	fdio_mutex_init(&w->lock, RANK_LEAF);
	w->work = work_so_far();
	if (x4_vol_open(&w->dev->dev, &xo, &w->vol, NULL, FDIO_REASON(err)))
		return false;
	MUST(!loop_set_new(&lc, &w->loops, FDIO_REASON(err)));
	w->workers = wq_new("worker", 2);
	w->io = wq_new("io", 1);
	w->syncers = wq_new("syncer", 1);
	struct ops_config oc = { .vol = w->vol, .workers = w->workers, .nr_requests = SLOTS, .parallel_dio = true,
		.capable = some_are };
	MUST(w->workers && w->io && w->syncers && !ops_new(&oc, &w->ops));
	struct dio_config dc = { .dev = &w->dev->dev, .vol = w->vol, .nr_cpus = 1, .workers = w->io, .syncers = w->syncers, .segs_per_loop = 4,
		.strict = true, .inval = ops_inval, .inval_arg = w->ops };
	MUST(!dio_new(&dc, &w->dio));
	ops_set_dio(w->ops, w->dio);
	ops_set_tr(w->ops, &w->tr);
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
	wq_drain(w->io);
	wq_drain(w->syncers);
	(void)x4_vol_close(w->vol);
	/* A message is one operation, and so are mounting and unmounting. */
	MUST(work_so_far() - w->work <= (w->sent + 2) * work_allowed(w->dev->size));
	wq_free(w->workers);
	wq_free(w->io);
	wq_free(w->syncers);
	dio_free(w->dio);
	ops_free(w->ops);
	loop_set_free(w->loops);
	for (unsigned s = 0; s < SLOTS; s++)
		free(tr_slot(&w->queue, s)->payload - TR_HDR_BYTES);
	free(w->queue.slots);
	epoch_drain();
}

/* Something to talk about: names looked up, files and the root opened. */
static void begin(struct world *w, struct message *m)
{
	static const char *const names[] = { "frag", "plain", "attrs", "unwritten", "sparse", "htree", "acldir", "deep0" };

	for (unsigned k = 0; k < 2 * ARRAY_SIZE(names) + 1; k++) {
		struct fuse_in_header h = { .opcode = k < ARRAY_SIZE(names) ? FUSE_LOOKUP : FUSE_OPEN, .unique = 2 * ++w->sent, .nodeid = FUSE_ROOT_ID };
		struct fuse_open_in o = { .flags = O_RDWR | (k & 1 ? O_DIRECT : 0) };

		m->ring = k & 1;
		m->len = sizeof(h) + sizeof(o);
		memset(m->bytes, 0, 512);
		memcpy(m->bytes + sizeof(h), &o, sizeof(o));
		if (k < ARRAY_SIZE(names)) {
			strcpy((char *)m->bytes + sizeof(h), names[k]);
			m->len = (uint32_t)(sizeof(h) + strlen(names[k]) + 1);
		} else if (k == 2 * ARRAY_SIZE(names)) {
			h.opcode = FUSE_OPENDIR;
		} else if (k - ARRAY_SIZE(names) < w->nr_nodes) {
			h.nodeid = w->nodes[k - ARRAY_SIZE(names)];
		}
		h.len = m->len;
		memcpy(m->bytes, &h, sizeof(h));
		send_message(w, m);
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

/* One word behind the opcode and node: "text with its NUL; hK the K-th handle; NxHH so many bytes HH; else bytes in hex. */
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
 * "send dev|ring OPCODE[+EXT] root|nK WORD... [= ERROR]": a header, with EXT extensions of 8 bytes announced, and what the words say,
 * about the root or the K-th node that was looked up; "raw dev|ring WORD... [= ERROR]": the words alone.
 */
static void send_line(struct world *w, char *line, struct message *m)
{
	char *save, *kind = strtok_r(line, " ", &save), *way = strtok_r(NULL, " ", &save), *word;
	struct fuse_in_header h = { .nodeid = FUSE_ROOT_ID, .unique = 2 * ++w->sent };
	bool raw = !strcmp(kind, "raw");

	MUST(way && (raw || !strcmp(kind, "send")));
	m->ring = !strcmp(way, "ring");
	m->len = 0;
	if (!raw) {
		char *op = strtok_r(NULL, " ", &save), *node = strtok_r(NULL, " ", &save);

		MUST(op && node);
		h.opcode = (uint32_t)strtoul(op, &op, 10);
		h.total_extlen = (uint16_t)(*op == '+' ? strtoul(op + 1, NULL, 10) : 0);
		if (*node == 'n')
			h.nodeid = w->nodes[strtoul(node + 1, NULL, 10) % MAX_KNOWN];
		m->len = sizeof(h);
	}
	while ((word = strtok_r(NULL, " ", &save)) && *word != '=') {
		MUST(m->len < 2000 || *word != '"');
		m->len += spelled(w, word, m->bytes + m->len);
		MUST(m->len <= sizeof(m->bytes) - 4096);
	}
	h.len = m->len;
	if (!raw)
		memcpy(m->bytes, &h, sizeof(h));
	decode(m);
	send_message(w, m);
	wait_below(w, 1);
	if (word) {
		int want = atoi(strtok_r(NULL, " ", &save));
		if (w->last_err != want)
			fprintf(stderr, "answered with %d, not with %d\n", w->last_err, want);
		MUST(w->last_err == want);
	}
}

static void send_script(struct world *w, const char *text, struct message *m)
{
	char *copy = strdup(text), *save, *line;

	MUST(copy);
	for (line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!strncmp(line, "send ", 5) || !strncmp(line, "raw ", 4))
			send_line(w, line, m);
	free(copy);
}

/*
 * ---- cases: "seed N M" as text: seed and number of messages, those before may matter; "image NAME": that one, undamaged;
 * and what send_script takes ----
 */
static void run_messages(struct rnd *r, const struct image_case *c, unsigned n, const char *text)
{
	static struct world w;
	struct base *b = c->b;
	struct message *m = malloc(sizeof(*m));
	uint8_t *img = mmap(NULL, b->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, b->fd, 0);

	MUST(m && img != MAP_FAILED);
	memset(&w, 0, sizeof(w));
	world = &w;
	w.dev = fuzz_dev_new(img, b->img, b->size);
	case_apply(c, w.dev);
	if (world_new(&w, c)) {
		begin(&w, m);
		for (unsigned k = 0; k < n && !rnd_over(r); k++) {
			make_message(&w, r, m);
			decode(m);
			send_message(&w, m);
		}
		if (text)
			send_script(&w, text, m);
		if (getenv("FUZZ_STATS"))
			printf("%s: %u messages, %u answered, %u with success, %u nodes, %u handles\n", b->name, w.sent, w.answered, w.fine,
			       w.nr_nodes, w.nr_handles);
		world_end(&w);
	} else {
		MUST(!text || !strstr(text, "\nimage "));
	}
	fuzz_dev_free(w.dev);
	free(m);
}

static void make_case(struct rnd *r, struct image_case *c)
{
	bool damaged = !rnd_n(r, 4);

	case_make(r, c);
	if (!damaged)
		c->nr = 0;
	if (!c->errors)
		c->errors = 1;
	c->fix = true;
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

static void run(struct rnd *r, const char *text, bool show)
{
	struct image_case c;
	unsigned long long seed;
	unsigned n = MESSAGES;

	if (text) {
		const char *at = strstr(text, "\nseed ");
		if (!at || sscanf(at, " seed %llu %u", &seed, &n) < 1)
			exit(2);
		*r = rnd_seed(seed);
	}
	make_case(r, &c);
	if (text && strstr(text, "\nimage ")) {
		char name[32];
		MUST(sscanf(strstr(text, "\nimage "), " image %31s", name) == 1);
		c = (struct image_case) { .b = bases_find(name), .errors = 1 };
		MUST(c.b);
	}
	if (show) {
		case_print(&c, stdout);
		return;
	}
	run_messages(r, &c, n, text);
}

int main(int argc, char **argv)
{
	static const struct fuzz_target t = {
		.name = "fuzz_msg", .setup = setup, .run = run, .suffix = ".case", .cpu_s = 10, .rss_kib = 700 << 10,
	};
	return fuzz_main(&t, argc, argv);
}

#endif
