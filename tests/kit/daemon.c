/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The channel that stands in for /dev/fuse, and the daemon below it: requests in, answers and
 * notifications out, start and end of the mount. See kit/daemon.h; the usual requests are in
 * daemon_requests.c.
 *
 * The test's thread sends and waits. The loop's thread dispatches; any thread answers. kernel->lock
 * guards what both sides touch.
 */
#include "kit/daemon.h"

#include "base/epoch.h"
#include "dio/engine.h"
#include "ops/ops.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_MAX = 128, WAIT_MS = 10000 };

/* One request of the test: the message on its way down, and the answer on its way up. */
struct ticket {
	struct loop_msg msg;
	struct fake_kernel *kernel;
	struct transport_req *slot; /* the transport's request that carries the message */
	bool used, answered;    /* under lock */
	uint64_t unique;
	uint32_t len;
	_Alignas(8) uint8_t bytes[sizeof(struct fuse_in_header) + HEAD_MAX + KERNEL_MAX_DATA];
	struct kernel_answer answer;
};

struct fake_kernel {
	struct fake_dev *fake;
	struct ext4_vol *vol;
	struct work_queue *workers, *io, *syncers;
	struct loop_set *loops;
	struct ops *ops;
	struct dio *dio;
	struct transport *transport;
	uint32_t uid;
	uint32_t requester; /* atomic */
	int notify_fd;          /* the other end of the transport's fd: notifications come out */
	unsigned nr_inval;
	struct fuse_notify_inval_inode_out inval[KERNEL_MAX_REQUESTS]; /* the last ones, in turn */
	bool breaks;            /* see kernel_options */
	unsigned nr_slots;      /* the loop's true number if kernel_set_slots has changed it */
	unsigned next;          /* number of the next ticket */
	bool linger;            /* atomic */
	struct fdio_mutex lock; /* RANK_LEAF; guards the tickets' answers, the free slots, and: */
	unsigned order;         /* answers so far */
	bool destroying, ended;
	int close_result;
	struct ticket ticket[KERNEL_MAX_REQUESTS];
};

/* The channel's calls carry no argument, so there is one mount at a time. */
static struct fake_kernel *mounted;

/* ---- the channel ---- */

static void chan_reply(struct transport_req *req)
{
	struct fake_kernel *kernel = mounted;
	struct ticket *ticket = req->chan_priv;

	fdio_mutex_lock(&kernel->lock);
	ck_assert(ticket->used && !ticket->answered && ticket->slot == req);
	if (req->in.header.unique) {
		ck_assert_uint_eq(req->in.header.unique, ticket->unique);
		ck_assert_uint_le(req->reply_len, KERNEL_MAX_DATA);
		ticket->answer.err = req->reply_err;
		ticket->answer.len = req->reply_len;
		memcpy(ticket->answer.data, req->payload, req->reply_len);
		ticket->answer.order = ++kernel->order;
	}
	ticket->answered = true;
	list_add_tail(&transport_queue_of(req)->free, &req->link);
	fdio_mutex_unlock(&kernel->lock);
}

static int chan_open(struct transport *transport)
{
	(void)transport;
	return 0;
}

static void chan_close(struct transport *transport) { (void)transport; }
static void chan_arm(struct transport_queue *queue) { (void)queue; }

static const struct transport_channel_ops chan = {
	.name = "test", .open = chan_open, .arm = chan_arm, .reply = chan_reply, .close = chan_close
};

/* Replaces the transport's own, which needs the file descriptor of a mount. */
int transport_init_handshake(struct transport *transport, struct fdio_reason *reason)
{
	(void)reason;
	transport->chan = &chan;
	transport->conn = (struct transport_conn){ .proto_minor = 40,
						   .max_write = MESSAGE_MAX_WRITE,
						   .max_read = MESSAGE_MAX_WRITE,
						   .max_pages = MESSAGE_MAX_WRITE / 4096 };
	return 0;
}

/* On the loop's thread, as when a READ of /dev/fuse completes. */
static void dispatch(struct loop_msg *msg)
{
	struct ticket *ticket = container_of(msg, struct ticket, msg);
	struct transport_req *req = ticket->slot;
	uint8_t *at = req->payload - MESSAGE_WRITE_HDR;

	memcpy(at, ticket->bytes, ticket->len);
	transport_dispatch(req, message_decode(at, ticket->len, &req->in));
}

/* Looks every 0.1 ms for up to WAIT_MS; false: it did not become true. */
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
	const struct ticket *ticket = arg;

	fdio_mutex_lock(&ticket->kernel->lock);
	bool yes = ticket->answered;
	fdio_mutex_unlock(&ticket->kernel->lock);
	return yes;
}

/* Passes over tickets without an answer, so that one held request does not stop the others. */
static unsigned next_ticket(struct fake_kernel *kernel)
{
	for (unsigned tries = 1; tries < KERNEL_MAX_REQUESTS; tries++, kernel->next++) {
		const struct ticket *ticket = &kernel->ticket[kernel->next % KERNEL_MAX_REQUESTS];

		if (!ticket->used || ticket_answered(ticket))
			break;
	}
	return kernel->next++;
}

unsigned kernel_send(struct fake_kernel *kernel, uint32_t opcode, uint64_t nodeid, const void *head,
		     size_t head_len, const void *tail, size_t tail_len)
{
	unsigned n = next_ticket(kernel);
	struct ticket *ticket = &kernel->ticket[n % KERNEL_MAX_REQUESTS];
	struct fuse_in_header header = {
		.len = (uint32_t)(sizeof(header) + head_len + tail_len),
		.opcode = opcode,
		.unique = 2 * (n + 1ull),
		.nodeid = nodeid,
		.uid = kernel->uid,
		.gid = kernel->uid,
		.pid = (uint32_t)getpid(),
	};
	struct transport_queue *queue = &kernel->transport->queues[0];

	ck_assert_msg(!ticket->used || ticket_answered(ticket),
		      "more than %d requests without an answer", KERNEL_MAX_REQUESTS);
	ck_assert(head_len <= HEAD_MAX && tail_len <= KERNEL_MAX_DATA);
	fdio_mutex_lock(&kernel->lock);
	ck_assert(!list_empty(&queue->free));
	struct transport_req *req = list_first(&queue->free, struct transport_req, link);
	list_del(&req->link);
	*ticket = (struct ticket){ .kernel = kernel,
				   .slot = req,
				   .used = true,
				   .unique = header.unique,
				   .len = header.len };
	fdio_mutex_unlock(&kernel->lock);
	req->chan_priv = ticket;
	memcpy(ticket->bytes, &header, sizeof(header));
	if (head_len)
		memcpy(ticket->bytes + sizeof(header), head, head_len);
	if (tail_len)
		memcpy(ticket->bytes + sizeof(header) + head_len, tail, tail_len);
	loop_post(req->loop, &ticket->msg, dispatch);
	return n;
}

bool kernel_answered(struct fake_kernel *kernel, unsigned ticket)
{
	return ticket_answered(&kernel->ticket[ticket % KERNEL_MAX_REQUESTS]);
}

const struct kernel_answer *kernel_wait(struct fake_kernel *kernel, unsigned ticket)
{
	struct ticket *t = &kernel->ticket[ticket % KERNEL_MAX_REQUESTS];

	ck_assert_uint_eq(t->unique, 2 * (ticket + 1ull));
	ck_assert_msg(wait_for(ticket_answered, t), "%s was not answered within %d ms",
		      message_opcode_name(((const struct fuse_in_header *)t->bytes)->opcode),
		      WAIT_MS);
	return &t->answer;
}

int kernel_call(struct fake_kernel *kernel, uint32_t opcode, uint64_t nodeid, const void *head,
		size_t head_len, const void *tail, size_t tail_len,
		const struct kernel_answer **ret)
{
	const struct kernel_answer *answer =
			kernel_wait(kernel, kernel_send(kernel, opcode, nodeid, head, head_len,
							tail, tail_len));

	if (ret)
		*ret = answer;
	return answer->err;
}

/* ---- notifications ---- */

unsigned kernel_invalidations(struct fake_kernel *kernel)
{
	struct { struct fuse_out_header header; struct fuse_notify_inval_inode_out o; } m;

	while (recv(kernel->notify_fd, &m, sizeof(m), MSG_DONTWAIT) > 0)
		if (m.header.error == FUSE_NOTIFY_INVAL_INODE)
			kernel->inval[kernel->nr_inval++ % ARRAY_SIZE(kernel->inval)] = m.o;
	return kernel->nr_inval;
}

bool kernel_invalidated(struct fake_kernel *kernel, uint64_t nodeid, int64_t off, int64_t len)
{
	unsigned nr = kernel_invalidations(kernel);

	for (unsigned n = 0; n < FDIO_MIN(nr, (unsigned)ARRAY_SIZE(kernel->inval)); n++) {
		const struct fuse_notify_inval_inode_out *o = &kernel->inval[n];

		if (o->ino == nodeid && o->off >= 0 && o->off <= off &&
		    off + len <= o->off + o->len)
			return true;
	}
	return false;
}

void kernel_hold_notifications(struct fake_kernel *kernel)
{
	uint8_t junk[1024] = { 0 };

	while (send(kernel->transport->fd, junk, sizeof(junk), MSG_DONTWAIT) > 0)
		;
	/* A short one might still fit. */
	while (send(kernel->transport->fd, junk, 1, MSG_DONTWAIT) > 0)
		;
	ck_assert_int_eq(errno, EAGAIN);
}

void kernel_release_notifications(struct fake_kernel *kernel) { kernel_invalidations(kernel); }

void kernel_set_minor(struct fake_kernel *kernel, unsigned minor)
{
	kernel->transport->conn.kernel_minor = minor;
}

void kernel_set_slots(struct fake_kernel *kernel, unsigned nr)
{
	if (!kernel->nr_slots)
		kernel->nr_slots = kernel->transport->queues[0].nr_slots;
	kernel->transport->queues[0].nr_slots = nr;
}

/* ---- life ---- */

static void on_request(struct transport_req *req, void *arg)
{
	struct fake_kernel *kernel = arg;
	struct timespec nap = { .tv_nsec = 1000000 };
	/*
	 * Read before the request is handled: a request that came before kernel_linger may be
	 * answered only now, and must not keep the loop from the next one.
	 */
	bool lingers = __atomic_load_n(&kernel->linger, __ATOMIC_SEQ_CST);

	ops_handle(req, kernel->ops);
	while (lingers && __atomic_load_n(&kernel->linger, __ATOMIC_SEQ_CST))
		nanosleep(&nap, NULL);
}

static void on_forget(void *arg, uint64_t nodeid, uint64_t nlookup)
{
	ops_forget(((struct fake_kernel *)arg)->ops, nodeid, nlookup);
}

/* In the order in which the command ends a mount. */
static void on_destroy(void *arg)
{
	struct fake_kernel *kernel = arg;

	fdio_mutex_lock(&kernel->lock);
	kernel->destroying = true;
	fdio_mutex_unlock(&kernel->lock);
	dio_drain(kernel->dio);
	ops_shutdown(kernel->ops);
	dio_drain(kernel->dio);
	work_queue_drain(kernel->io);
	work_queue_drain(kernel->syncers);
	kernel->close_result = ext4_vol_close(kernel->vol);
	fdio_mutex_lock(&kernel->lock);
	kernel->vol = NULL;
	kernel->ended = true;
	fdio_mutex_unlock(&kernel->lock);
}

static int no_umount(void *arg, bool lazy)
{
	(void)arg;
	(void)lazy;
	return 0;
}

static bool ids_of(void *arg, uint32_t pid, uint32_t *uid, uint32_t *gid)
{
	struct fake_kernel *kernel = arg;

	ck_assert_uint_ne(pid, 0);
	*uid = *gid = __atomic_load_n(&kernel->requester, __ATOMIC_SEQ_CST);
	return *uid != MESSAGE_UNKNOWN_ID;
}

static void open_engine(struct fake_kernel *kernel, const struct kernel_options *options)
{
	struct ops_config config = { .vol = kernel->vol,
				     .workers = kernel->workers,
				     .nr_requests = KERNEL_MAX_REQUESTS,
				     .parallel_dio = options->parallel_dio,
				     .sync = options->sync,
				     .ids = ids_of,
				     .arg = kernel,
				     .dirsync = options->dirsync };

	ck_assert_int_eq(ops_new(&config, &kernel->ops), 0);
	struct dio_config dio_config = {
		.dev = fake_dev(kernel->fake),
		.vol = kernel->vol,
		.loops = kernel->loops,
		.nr_cpus = 1,
		.workers = kernel->io,
		.syncers = kernel->syncers,
		.segs_per_loop = 8,
		.page_size = options->page_size ? options->page_size : 4096,
		.strict = true,
		.inval = ops_invalidate_pages,
		.inval_arg = kernel->ops,
		.launder = ops_launder_pages,
		.kill_sgid = ops_kill_sgid,
		.may_use_reserved = ops_writer_may_use_reserved,
	};
	ck_assert_int_eq(dio_new(&dio_config, &kernel->dio), 0);
	ops_set_dio(kernel->ops, kernel->dio);
}

static void open_transport(struct fake_kernel *kernel, const struct kernel_options *options)
{
	struct transport_config config = {
		.source = "fake",
		.mountpoint = "/",
		.loops = kernel->loops,
		.queue_depth = KERNEL_MAX_REQUESTS,
		.transport = TRANSPORT_KIND_DEVFUSE,
		.slot_size = ops_req_size(),
		.posix_acl = true,
		.parallel_dio = options->parallel_dio,
		.umount = no_umount,
		.destroy = on_destroy,
		.arg = kernel,
	};
	char err[256] = "";
	int fds[2];

	ck_assert_msg(!transport_new(&config, &kernel->transport, FDIO_REASON(err)), "%s", err);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
	kernel->transport->fd = fds[0];
	kernel->notify_fd = fds[1];
	ops_set_transport(kernel->ops, kernel->transport);
	transport_set_server(kernel->transport, &(struct transport_server){ .handle = on_request,
									    .forget = on_forget,
									    .arg = kernel });
	ck_assert_int_eq(loop_set_start(kernel->loops), 0);
	ck_assert_msg(!transport_start(kernel->transport, FDIO_REASON(err)), "%s", err);
	if (options->idmap)
		kernel->transport->conn.flags |= MESSAGE_ALLOW_IDMAP;
}

struct fake_kernel *kernel_new(struct fake_dev *fake, const struct kernel_options *opt)
{
	static const struct kernel_options none;
	struct loop_config config = { .nr_loops = 1,
				      .entries = 64,
				      .nr_fixed_files = LOOP_NR_FILES };
	struct fake_kernel *kernel = calloc(1, sizeof(*kernel));
	char err[256] = "";

	ck_assert(fake && kernel && !mounted);
	mounted = kernel;
	kernel->fake = fake;
	opt = opt ? opt : &none;
	kernel->uid = opt->uid;
	kernel->breaks = opt->breaks;
	fdio_mutex_init(&kernel->lock, RANK_LEAF);
	kernel->vol = testvol_mount(kernel->fake);
	ck_assert_msg(!loop_set_new(&config, &kernel->loops, FDIO_REASON(err)), "%s", err);
	kernel->workers = work_queue_new("ops", 2);
	kernel->io = work_queue_new("io", 2);
	kernel->syncers = work_queue_new("sync", 1);
	ck_assert(kernel->workers && kernel->io && kernel->syncers);
	open_engine(kernel, opt);
	open_transport(kernel, opt);
	return kernel;
}

struct fake_dev *kernel_dev(struct fake_kernel *kernel) { return kernel->fake; }

void kernel_set_uid(struct fake_kernel *kernel, uint32_t uid) { kernel->uid = uid; }

void kernel_set_requester(struct fake_kernel *kernel, uint32_t id)
{
	__atomic_store_n(&kernel->requester, id, __ATOMIC_SEQ_CST);
}

void kernel_abort(struct fake_kernel *kernel)
{
	transport_end(kernel->transport, TRANSPORT_ABORTED, NULL);
}

void kernel_linger(struct fake_kernel *kernel, bool on)
{
	__atomic_store_n(&kernel->linger, on, __ATOMIC_SEQ_CST);
}

static bool ended(const void *arg)
{
	struct fake_kernel *kernel = (struct fake_kernel *)arg;

	fdio_mutex_lock(&kernel->lock);
	bool yes = kernel->ended;
	fdio_mutex_unlock(&kernel->lock);
	return yes;
}

bool kernel_destroying(struct fake_kernel *kernel)
{
	fdio_mutex_lock(&kernel->lock);
	bool yes = kernel->destroying;
	fdio_mutex_unlock(&kernel->lock);
	return yes;
}

bool kernel_ended(struct fake_kernel *kernel) { return ended(kernel); }

bool kernel_wait_ended(struct fake_kernel *kernel) { return wait_for(ended, kernel); }

void kernel_close(struct fake_kernel *kernel)
{
	if (!kernel_ended(kernel))
		kernel_call(kernel, FUSE_DESTROY, 0, NULL, 0, NULL, 0, NULL);
	transport_wait(kernel->transport);
	ck_assert(kernel->breaks || !kernel->close_result);
	loop_set_stop(kernel->loops);
	close(kernel->transport->fd);
	close(kernel->notify_fd);
	if (kernel->nr_slots)
		kernel_set_slots(kernel, kernel->nr_slots); /* transport_free frees these */
	transport_free(kernel->transport);
	work_queue_free(kernel->workers);
	work_queue_free(kernel->io);
	work_queue_free(kernel->syncers);
	dio_free(kernel->dio);
	ops_free(kernel->ops);
	loop_set_free(kernel->loops);
	epoch_drain();
	ck_assert_uint_eq(fake_stats(kernel->fake).violations, 0);
	ck_assert(kernel->breaks || !fake_e2fsck(kernel->fake));
	fake_free(kernel->fake);
	fdio_mutex_fini(&kernel->lock);
	free(kernel);
	mounted = NULL;
}
