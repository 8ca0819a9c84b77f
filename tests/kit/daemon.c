/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See kit/daemon.h. */
#include "kit/daemon.h"

#include "base/epoch.h"
#include "dio/dio.h"
#include "ops/ops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 128, WAIT_MS = 10000 };

/* One request of the test: the message on its way down, and the answer on its way up. */
struct ticket {
	struct loop_msg msg;
	struct fake_kernel *k;
	struct tr_req *slot;
	bool used, answered;    /* under lock */
	uint64_t unique;
	uint32_t len;
	_Alignas(8) uint8_t bytes[sizeof(struct fuse_in_header) + HEAD_MAX + FK_DATA];
	struct fk_answer answer;
};

struct fake_kernel {
	struct fake_dev *f;
	struct x4_vol *vol;
	struct wq *workers, *io, *syncers;
	struct loop_set *loops;
	struct ops *ops;
	struct dio *dio;
	struct tr *tr;
	uint32_t uid;
	int notify_fd;          /* our end of what the transport believes to be /dev/fuse */
	unsigned nr_inval;
	struct fuse_notify_inval_inode_out inval[FK_REQUESTS]; /* the last of them */
	bool breaks;            /* fk_options */
	unsigned nr_slots;      /* of the loop, if fk_set_slots has changed it */
	unsigned next;
	bool linger;            /* atomic */
	struct fdio_mutex lock; /* RANK_LEAF; guards the tickets' answers, the free slots, and: */
	unsigned order;
	bool destroying, ended;
	int close_result;
	struct ticket t[FK_REQUESTS];
};

/* The channel has no argument of its own. One mount at a time. */
static struct fake_kernel *the;

/* ---- the channel ---- */

static void chan_reply(struct tr_req *r)
{
	struct fake_kernel *k = the;
	struct ticket *t = r->chan_priv;

	fdio_mutex_lock(&k->lock);
	ck_assert(t->used && !t->answered && t->slot == r);
	if (r->in.h.unique) {
		ck_assert_uint_eq(r->in.h.unique, t->unique);
		ck_assert_uint_le(r->reply_len, FK_DATA);
		t->answer.err = r->reply_err;
		t->answer.len = r->reply_len;
		memcpy(t->answer.data, r->payload, r->reply_len);
		t->answer.order = ++k->order;
	}
	t->answered = true;
	list_add_tail(&tr_queue_of(r)->free, &r->link);
	fdio_mutex_unlock(&k->lock);
}

static int chan_open(struct tr *t)
{
	(void)t;
	return 0;
}

static void chan_close(struct tr *t) { (void)t; }
static void chan_arm(struct tr_queue *q) { (void)q; }

static const struct tr_chan_ops chan = { .name = "test", .open = chan_open, .arm = chan_arm, .reply = chan_reply, .close = chan_close };

/* In place of the transport's own. */
int tr_init_handshake(struct tr *t, struct fdio_reason *reason)
{
	(void)reason;
	t->chan = &chan;
	t->conn = (struct tr_conn){ .proto_minor = 40, .max_write = PRO_MAX_WRITE, .max_read = PRO_MAX_WRITE, .max_pages = PRO_MAX_PAGES };
	return 0;
}

/* On the loop's thread, as when a READ of /dev/fuse completes. */
static void dispatch(struct loop_msg *m)
{
	struct ticket *t = container_of(m, struct ticket, msg);
	struct tr_req *r = t->slot;
	uint8_t *at = r->payload - PRO_WRITE_HDR;

	memcpy(at, t->bytes, t->len);
	tr_dispatch(r, pro_decode(at, t->len, &r->in));
}

static bool wait_for(bool (*done)(const void *arg), const void *arg)
{
	const struct timespec nap = { .tv_nsec = 100000 };

	for (unsigned ms = 0; ms < 10 * WAIT_MS; ms++) {
		if (done(arg))
			return true;
		nanosleep(&nap, NULL);
	}
	return false;
}

static bool ticket_answered(const void *arg)
{
	const struct ticket *t = arg;

	fdio_mutex_lock(&t->k->lock);
	bool yes = t->answered;
	fdio_mutex_unlock(&t->k->lock);
	return yes;
}

/* One that is held may be passed by any number of others. */
static unsigned next_ticket(struct fake_kernel *k)
{
	for (unsigned tries = 1; tries < FK_REQUESTS; tries++, k->next++) {
		const struct ticket *t = &k->t[k->next % FK_REQUESTS];

		if (!t->used || ticket_answered(t))
			break;
	}
	return k->next++;
}

unsigned fk_send(struct fake_kernel *k, uint32_t opcode, uint64_t nodeid, const void *head, size_t head_len, const void *tail, size_t tail_len)
{
	unsigned n = next_ticket(k);
	struct ticket *t = &k->t[n % FK_REQUESTS];
	struct fuse_in_header h = {
		.len = (uint32_t)(sizeof(h) + head_len + tail_len), .opcode = opcode, .unique = 2 * (n + 1ull), .nodeid = nodeid,
		.uid = k->uid, .gid = k->uid, .pid = (uint32_t)getpid(),
	};
	struct tr_queue *q = &k->tr->queues[0];

	ck_assert_msg(!t->used || ticket_answered(t), "more than %d requests without an answer", FK_REQUESTS);
	ck_assert(head_len <= HEAD_MAX && tail_len <= FK_DATA);
	fdio_mutex_lock(&k->lock);
	ck_assert(!list_empty(&q->free));
	struct tr_req *r = list_first(&q->free, struct tr_req, link);
	list_del(&r->link);
	*t = (struct ticket){ .k = k, .slot = r, .used = true, .unique = h.unique, .len = h.len };
	fdio_mutex_unlock(&k->lock);
	r->chan_priv = t;
	memcpy(t->bytes, &h, sizeof(h));
	if (head_len)
		memcpy(t->bytes + sizeof(h), head, head_len);
	if (tail_len)
		memcpy(t->bytes + sizeof(h) + head_len, tail, tail_len);
	loop_post(r->loop, &t->msg, dispatch);
	return n;
}

bool fk_answered(struct fake_kernel *k, unsigned ticket) { return ticket_answered(&k->t[ticket % FK_REQUESTS]); }

const struct fk_answer *fk_wait(struct fake_kernel *k, unsigned ticket)
{
	struct ticket *t = &k->t[ticket % FK_REQUESTS];

	ck_assert_uint_eq(t->unique, 2 * (ticket + 1ull));
	ck_assert_msg(wait_for(ticket_answered, t), "%s was not answered within %d ms",
		      pro_opcode_name(((const struct fuse_in_header *)t->bytes)->opcode), WAIT_MS);
	return &t->answer;
}

int fk_call(struct fake_kernel *k, uint32_t opcode, uint64_t nodeid, const void *head, size_t head_len, const void *tail, size_t tail_len,
	    const struct fk_answer **ret)
{
	const struct fk_answer *a = fk_wait(k, fk_send(k, opcode, nodeid, head, head_len, tail, tail_len));

	if (ret)
		*ret = a;
	return a->err;
}

/* ---- the usual requests ---- */

static int want_data(const struct fk_answer *a, void *to, size_t len)
{
	if (a->err)
		return a->err;
	ck_assert_uint_ge(a->len, len);
	memcpy(to, a->data, len);
	return 0;
}

int fk_lookup(struct fake_kernel *k, uint64_t dir, const char *name, struct fuse_entry_out *e)
{
	const struct fk_answer *a;

	fk_call(k, FUSE_LOOKUP, dir, NULL, 0, name, strlen(name) + 1, &a);
	int err = want_data(a, e, sizeof(*e));
	return !err && !e->nodeid ? -ENOENT : err; /* an entry that says so may be cached */
}

int fk_create(struct fake_kernel *k, uint64_t dir, const char *name, uint32_t flags, uint32_t mode, struct fuse_entry_out *e, uint64_t *fh)
{
	struct fuse_create_in in = { .flags = flags | O_CREAT, .mode = S_IFREG | mode, .umask = 022 };
	const struct fk_answer *a;

	if (fk_call(k, FUSE_CREATE, dir, &in, sizeof(in), name, strlen(name) + 1, &a))
		return a->err;
	ck_assert_uint_eq(a->len, sizeof(*e) + sizeof(struct fuse_open_out));
	memcpy(e, a->data, sizeof(*e));
	*fh = ((const struct fuse_open_out *)(a->data + sizeof(*e)))->fh;
	return 0;
}

int fk_mkdir(struct fake_kernel *k, uint64_t dir, const char *name, uint32_t mode, struct fuse_entry_out *e)
{
	struct fuse_mkdir_in in = { .mode = mode, .umask = 022 };
	const struct fk_answer *a;

	fk_call(k, FUSE_MKDIR, dir, &in, sizeof(in), name, strlen(name) + 1, &a);
	return want_data(a, e, sizeof(*e));
}

int fk_unlink(struct fake_kernel *k, uint64_t dir, const char *name)
{
	return fk_call(k, FUSE_UNLINK, dir, NULL, 0, name, strlen(name) + 1, NULL);
}

int fk_rmdir(struct fake_kernel *k, uint64_t dir, const char *name)
{
	return fk_call(k, FUSE_RMDIR, dir, NULL, 0, name, strlen(name) + 1, NULL);
}

int fk_rename(struct fake_kernel *k, uint64_t dir, const char *from, uint64_t dir2, const char *to, uint32_t flags)
{
	struct fuse_rename2_in in = { .newdir = dir2, .flags = flags };
	char names[600];
	size_t n = strlen(from) + 1, m = strlen(to) + 1;

	ck_assert_uint_le(n + m, sizeof(names));
	memcpy(names, from, n);
	memcpy(names + n, to, m);
	return fk_call(k, FUSE_RENAME2, dir, &in, sizeof(in), names, n + m, NULL);
}

int fk_getattr(struct fake_kernel *k, uint64_t nodeid, struct fuse_attr *at)
{
	struct fuse_getattr_in in = { 0 };
	struct fuse_attr_out out;
	const struct fk_answer *a;

	fk_call(k, FUSE_GETATTR, nodeid, &in, sizeof(in), NULL, 0, &a);
	int err = want_data(a, &out, sizeof(out));
	if (!err)
		*at = out.attr;
	return err;
}

int fk_setattr(struct fake_kernel *k, uint64_t nodeid, struct fuse_setattr_in *in, struct fuse_attr *at)
{
	struct fuse_attr_out out;
	const struct fk_answer *a;

	fk_call(k, FUSE_SETATTR, nodeid, in, sizeof(*in), NULL, 0, &a);
	int err = want_data(a, &out, sizeof(out));
	if (!err && at)
		*at = out.attr;
	return err;
}

int fk_open(struct fake_kernel *k, uint64_t nodeid, uint32_t flags, struct fuse_open_out *o)
{
	struct fuse_open_in in = { .flags = flags };
	const struct fk_answer *a;

	fk_call(k, FUSE_OPEN, nodeid, &in, sizeof(in), NULL, 0, &a);
	return want_data(a, o, sizeof(*o));
}

int fk_release(struct fake_kernel *k, uint64_t nodeid, uint64_t fh)
{
	struct fuse_release_in in = { .fh = fh };

	return fk_call(k, FUSE_RELEASE, nodeid, &in, sizeof(in), NULL, 0, NULL);
}

void fk_forget(struct fake_kernel *k, uint64_t nodeid, uint64_t n)
{
	struct fuse_forget_in in = { .nlookup = n };

	fk_wait(k, fk_send(k, FUSE_FORGET, nodeid, &in, sizeof(in), NULL, 0));
}

int fk_fsync(struct fake_kernel *k, uint64_t nodeid, uint64_t fh, bool datasync)
{
	struct fuse_fsync_in in = { .fh = fh, .fsync_flags = datasync ? FUSE_FSYNC_FDATASYNC : 0 };

	return fk_call(k, FUSE_FSYNC, nodeid, &in, sizeof(in), NULL, 0, NULL);
}

unsigned fk_send_write(struct fake_kernel *k, uint64_t nodeid, uint64_t fh, uint64_t pos, const void *buf, uint32_t len, uint32_t open_flags,
		       uint32_t write_flags)
{
	/* Whoever reads and writes the application's memory names the lock owner; the page cache does not. */
	if (open_flags & O_DIRECT)
		write_flags |= FUSE_WRITE_LOCKOWNER;
	struct fuse_write_in in = { .fh = fh, .offset = pos, .size = len, .flags = open_flags, .write_flags = write_flags };

	return fk_send(k, FUSE_WRITE, nodeid, &in, sizeof(in), buf, len);
}

unsigned fk_send_read(struct fake_kernel *k, uint64_t nodeid, uint64_t fh, uint64_t pos, uint32_t len, uint32_t open_flags)
{
	struct fuse_read_in in = { .fh = fh, .offset = pos, .size = len, .flags = open_flags };

	in.read_flags = open_flags & O_DIRECT ? FUSE_READ_LOCKOWNER : 0;
	return fk_send(k, FUSE_READ, nodeid, &in, sizeof(in), NULL, 0);
}

int fk_write(struct fake_kernel *k, uint64_t nodeid, uint64_t fh, uint64_t pos, const void *buf, uint32_t len, uint32_t open_flags)
{
	const struct fk_answer *a = fk_wait(k, fk_send_write(k, nodeid, fh, pos, buf, len, open_flags, 0));

	return a->err ? a->err : (int)((const struct fuse_write_out *)a->data)->size;
}

int fk_read(struct fake_kernel *k, uint64_t nodeid, uint64_t fh, uint64_t pos, void *buf, uint32_t len, uint32_t open_flags)
{
	const struct fk_answer *a = fk_wait(k, fk_send_read(k, nodeid, fh, pos, len, open_flags));

	if (a->err)
		return a->err;
	ck_assert_uint_le(a->len, len);
	memcpy(buf, a->data, a->len);
	return (int)a->len;
}

/* ---- notifications ---- */

unsigned fk_invalidations(struct fake_kernel *k)
{
	struct { struct fuse_out_header h; struct fuse_notify_inval_inode_out o; } m;

	while (recv(k->notify_fd, &m, sizeof(m), MSG_DONTWAIT) > 0)
		if (m.h.error == FUSE_NOTIFY_INVAL_INODE)
			k->inval[k->nr_inval++ % ARRAY_SIZE(k->inval)] = m.o;
	return k->nr_inval;
}

bool fk_invalidated(struct fake_kernel *k, uint64_t nodeid, int64_t off, int64_t len)
{
	unsigned nr = fk_invalidations(k);

	for (unsigned n = 0; n < FDIO_MIN(nr, (unsigned)ARRAY_SIZE(k->inval)); n++) {
		const struct fuse_notify_inval_inode_out *o = &k->inval[n];

		if (o->ino == nodeid && o->off >= 0 && o->off <= off && off + len <= o->off + o->len)
			return true;
	}
	return false;
}

void fk_hold_notifications(struct fake_kernel *k)
{
	uint8_t junk[1024] = { 0 };

	while (send(k->tr->fd, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	/* Small ones might still fit. */
	while (send(k->tr->fd, junk, 1, MSG_DONTWAIT) > 0)
		;
	ck_assert_int_eq(errno, EAGAIN);
}

void fk_release_notifications(struct fake_kernel *k) { fk_invalidations(k); }

void fk_set_minor(struct fake_kernel *k, unsigned minor) { k->tr->conn.kernel_minor = minor; }

void fk_set_slots(struct fake_kernel *k, unsigned nr)
{
	if (!k->nr_slots)
		k->nr_slots = k->tr->queues[0].nr_slots;
	k->tr->queues[0].nr_slots = nr;
}

/* ---- life ---- */

static void on_request(struct tr_req *r, void *arg)
{
	struct fake_kernel *k = arg;
	struct timespec nap = { .tv_nsec = 1000000 };
	/* Not a request from before, which may have been answered and not be through either: it would keep the loop from this one. */
	bool lingers = __atomic_load_n(&k->linger, __ATOMIC_SEQ_CST);

	ops_handle(r, k->ops);
	while (lingers && __atomic_load_n(&k->linger, __ATOMIC_SEQ_CST))
		nanosleep(&nap, NULL);
}

static void on_forget(void *arg, uint64_t nodeid, uint64_t nlookup) { ops_forget(((struct fake_kernel *)arg)->ops, nodeid, nlookup); }

/* As the command does it. */
static void on_destroy(void *arg, bool aborted)
{
	struct fake_kernel *k = arg;

	(void)aborted;
	fdio_mutex_lock(&k->lock);
	k->destroying = true;
	fdio_mutex_unlock(&k->lock);
	dio_drain(k->dio);
	ops_shutdown(k->ops);
	dio_drain(k->dio);
	wq_drain(k->io);
	wq_drain(k->syncers);
	k->close_result = x4_vol_close(k->vol);
	fdio_mutex_lock(&k->lock);
	k->vol = NULL;
	k->ended = true;
	fdio_mutex_unlock(&k->lock);
}

static int no_umount(void *arg, bool lazy)
{
	(void)arg;
	(void)lazy;
	return 0;
}

static void open_engine(struct fake_kernel *k, const struct fk_options *o)
{
	struct ops_config oc = { .vol = k->vol, .workers = k->workers, .nr_requests = FK_REQUESTS, .parallel_dio = o->parallel_dio,
				 .sync = o->sync, .dirsync = o->dirsync };

	ck_assert_int_eq(ops_new(&oc, &k->ops), 0);
	struct dio_config dc = {
		.dev = fake_dev(k->f), .vol = k->vol, .loops = k->loops, .nr_cpus = 1, .workers = k->io, .syncers = k->syncers,
		.segs_per_loop = 8, .strict = true, .inval = ops_inval, .inval_arg = k->ops,
		.launder = ops_launder_pages, .kill_sgid = ops_kill_sgid,
	};
	ck_assert_int_eq(dio_new(&dc, &k->dio), 0);
	ops_set_dio(k->ops, k->dio);
}

static void open_transport(struct fake_kernel *k, const struct fk_options *o)
{
	struct tr_config tc = {
		.source = "fake", .mountpoint = "/", .loops = k->loops, .queue_depth = FK_REQUESTS, .transport = TR_TRANSPORT_DEVFUSE,
		.slot_size = ops_req_size(), .posix_acl = true, .parallel_dio = o->parallel_dio, .umount = no_umount,
		.destroy = on_destroy, .arg = k,
	};
	char err[256] = "";
	int fds[2];

	ck_assert_msg(!tr_new(&tc, &k->tr, FDIO_REASON(err)), "%s", err);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	k->tr->fd = fds[0];
	k->notify_fd = fds[1];
	ops_set_tr(k->ops, k->tr);
	tr_set_server(k->tr, &(struct tr_server){ .handle = on_request, .forget = on_forget, .arg = k });
	ck_assert_int_eq(loop_set_start(k->loops), 0);
	ck_assert_msg(!tr_start(k->tr, FDIO_REASON(err)), "%s", err);
}

struct fake_kernel *fk_new(struct fake_dev *f, const struct fk_options *opt)
{
	static const struct fk_options none;
	struct loop_config lc = { .nr_loops = 1, .entries = 64, .nr_fixed_files = LOOP_NR_FILES };
	struct fake_kernel *k = calloc(1, sizeof(*k));
	char err[256] = "";

	ck_assert(f && k && !the);
	the = k;
	k->f = f;
	opt = opt ? opt : &none;
	k->uid = opt->uid;
	k->breaks = opt->breaks;
	fdio_mutex_init(&k->lock, RANK_LEAF);
	k->vol = testvol_mount(k->f);
	ck_assert_msg(!loop_set_new(&lc, &k->loops, FDIO_REASON(err)), "%s", err);
	k->workers = wq_new("ops", 2);
	k->io = wq_new("io", 2);
	k->syncers = wq_new("sync", 1);
	ck_assert(k->workers && k->io && k->syncers);
	open_engine(k, opt);
	open_transport(k, opt);
	return k;
}

struct fake_dev *fk_dev(struct fake_kernel *k) { return k->f; }

void fk_set_uid(struct fake_kernel *k, uint32_t uid) { k->uid = uid; }

void fk_abort(struct fake_kernel *k) { tr_end(k->tr, TR_ABORTED, NULL); }

void fk_linger(struct fake_kernel *k, bool on) { __atomic_store_n(&k->linger, on, __ATOMIC_SEQ_CST); }

static bool ended(const void *arg)
{
	struct fake_kernel *k = (struct fake_kernel *)arg;

	fdio_mutex_lock(&k->lock);
	bool yes = k->ended;
	fdio_mutex_unlock(&k->lock);
	return yes;
}

bool fk_destroying(struct fake_kernel *k)
{
	fdio_mutex_lock(&k->lock);
	bool yes = k->destroying;
	fdio_mutex_unlock(&k->lock);
	return yes;
}

bool fk_ended(struct fake_kernel *k) { return ended(k); }

bool fk_wait_ended(struct fake_kernel *k) { return wait_for(ended, k); }

void fk_close(struct fake_kernel *k)
{
	if (!fk_ended(k))
		fk_call(k, FUSE_DESTROY, 0, NULL, 0, NULL, 0, NULL);
	tr_wait(k->tr);
	ck_assert(k->breaks || !k->close_result);
	loop_set_stop(k->loops);
	close(k->tr->fd);
	close(k->notify_fd);
	if (k->nr_slots)
		fk_set_slots(k, k->nr_slots); /* what is to be freed */
	tr_free(k->tr);
	wq_free(k->workers);
	wq_free(k->io);
	wq_free(k->syncers);
	dio_free(k->dio);
	ops_free(k->ops);
	loop_set_free(k->loops);
	epoch_drain();
	ck_assert_uint_eq(fake_stats(k->f).violations, 0);
	ck_assert(k->breaks || !fake_e2fsck(k->f));
	fake_free(k->f);
	fdio_mutex_fini(&k->lock);
	free(k);
	the = NULL;
}
