/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The channels when the kernel has no memory at the moment, or was interrupted: they try again,
 * with pauses and not for ever. The channels are the real ones. A socket is the kernel's end of
 * /dev/fuse; what they would put on the ring is only noted, and completed by the test with the
 * result it wants; write fails on demand and nanosleep returns at once. One thread, no kernel.
 */
#include "base/counters.h"
#include "loop/loop.h"
#include "transport/types.h"
#include "kit/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define FOR_EVER UINT32_MAX

static struct transport t;
static struct transport_queue *q;
static struct loop_set *loops;
static int kernel;               /* the kernel's end */
/* what writes to /dev/fuse fail with, the next fail_times of them */
static int fail_with;
static unsigned fail_times, writes, pauses, submitted;
static bool no_memory;           /* to read /dev/fuse into */
static unsigned reads;
static int served_with;          /* what handlers answer */
static struct io_uring_sqe sqe[2]; /* the last one; a command is twice as long */

/* Declared for the linker's --wrap, which gives the names. */
ssize_t __wrap_write(int fd, const void *buf, size_t len);
ssize_t __real_write(int fd, const void *buf, size_t len);
ssize_t __wrap_read(int fd, void *buf, size_t len);
ssize_t __real_read(int fd, void *buf, size_t len);
int __wrap_nanosleep(const struct timespec *req, struct timespec *rem);
struct io_uring_sqe *__wrap_loop_sqe(struct loop *loop);
struct loop *__wrap_loop_self(void);
int __wrap_loop_register_file(struct loop *loop, unsigned slot, int fd);

ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
	if (!q || fd != q->fd)
		return __real_write(fd, buf, len);
	writes++;
	if (fail_times) {
		fail_times -= fail_times != FOR_EVER;
		errno = -fail_with;
		return -1;
	}
	return __real_write(fd, buf, len);
}

ssize_t __wrap_read(int fd, void *buf, size_t len)
{
	if (!q || fd != q->fd)
		return __real_read(fd, buf, len);
	reads++;
	if (!no_memory)
		return __real_read(fd, buf, len);
	errno = ENOMEM;
	return -1;
}

int __wrap_nanosleep(const struct timespec *req, struct timespec *rem)
{
	(void)rem;
	ck_assert(req->tv_sec == 0 && req->tv_nsec > 0);
	pauses++;
	return 0;
}

struct io_uring_sqe *__wrap_loop_sqe(struct loop *loop)
{
	ck_assert_ptr_eq(loop, q->loop);
	submitted++;
	memset(sqe, 0, sizeof(sqe));
	return sqe;
}

struct loop *__wrap_loop_self(void) { return q ? q->loop : NULL; }

int __wrap_loop_register_file(struct loop *loop, unsigned slot, int fd)
{
	(void)loop, (void)fd;
	ck_assert_uint_eq(slot, LOOP_FILE_FUSE);
	return 0;
}

/* In place of transport.c, which has a name in common with the test library. */
void transport_end(struct transport *transport, enum transport_end why, struct transport_req *req)
{
	(void)req;
	if (transport->end == TRANSPORT_RUNNING)
		transport->end = why;
}

/* Beside the ring: nothing comes over it here. */
static int beside_open(struct transport *transport)
{
	(void)transport;
	return 0;
}
static void beside_arm(struct transport_queue *queue) { (void)queue; }
extern const struct transport_channel_ops __real_transport_channel_devfuse,
		__wrap_transport_channel_devfuse;
const struct transport_channel_ops __wrap_transport_channel_devfuse = { .name = "beside",
									.open = beside_open,
									.arm = beside_arm };

static unsigned left_out;
void __wrap_loop_no_wander(struct loop *loop);
void __wrap_loop_no_wander(struct loop *loop) { left_out += loop == q->loop; }

/* What was put on the ring last ends with res. */
static void complete(int res)
{
	struct loop_op *op = (struct loop_op *)(uintptr_t)sqe[0].user_data;

	op->complete(op, res, 0);
}

static void setup(void)
{
	struct loop_config config = { .nr_loops = 1, .entries = 8, .sqe128 = true };
	char err[256];
	int fds[2];

	memset(&t, 0, sizeof(t));
	ck_assert_msg(!loop_set_new(&config, &loops, FDIO_REASON(err)), "%s", err);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
	t.config = (struct transport_config){ .loops = loops,
					      .queue_depth = 2,
					      .slot_size = sizeof(struct transport_req),
					      .transport = TRANSPORT_KIND_DEVFUSE };
	t.chan = &__real_transport_channel_devfuse;
	ck_assert_msg(!transport_slots_new(&t, FDIO_REASON(err)), "%s", err);
	q = &t.queues[0];
	q->fd = fds[0];
	kernel = fds[1];
	fail_times = writes = pauses = submitted = left_out = reads = 0;
	no_memory = false;
	served_with = -ENOENT;
}

static void teardown(void)
{
	close(q->fd);
	close(kernel);
	q = NULL;
	transport_slots_free(&t);
	loop_set_free(loops);
}

/* A handler's answer to a request with this number. */
static void answer(uint64_t unique)
{
	struct transport_req *req = list_first(&q->free, struct transport_req, link);

	list_del(&req->link);
	req->in.header.unique = unique;
	req->reply_err = -ENOENT;
	req->reply_len = 0;
	__real_transport_channel_devfuse.reply(req);
}

static const int passing[] = { ENOMEM, EAGAIN, EINTR };

START_TEST(reply_is_written_again)
{
	struct fuse_out_header header;
	uint64_t before = fdio_counter_read(COUNTER_transport_retry);

	fail_with = -passing[_i];
	fail_times = 20;
	answer(7);
	ck_assert_int_eq(recv(kernel, &header, sizeof(header), 0), sizeof(header));
	ck_assert_uint_eq(header.unique, 7);
	ck_assert_int_eq(header.error, -ENOENT);
	ck_assert_uint_eq(writes, 21);
	ck_assert_uint_gt(pauses, 10);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_transport_retry) - before, 20);
}
END_TEST

/* Not for ever; and the slot comes back. */
START_TEST(reply_is_given_up)
{
	struct fuse_out_header header;
	uint64_t before = fdio_counter_read(COUNTER_transport_reply_gone);

	fail_with = -passing[_i];
	fail_times = FOR_EVER;
	answer(7);
	ck_assert_uint_eq(writes, TRANSPORT_RETRY_MAX + 1);
	ck_assert_uint_gt(pauses, TRANSPORT_RETRY_MAX - 20);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_transport_reply_gone) - before, 1);
	fail_times = 0;
	for (unsigned n = 1; n <= 2 * q->nr_slots; n++) {
		answer(n);
		ck_assert_int_eq(recv(kernel, &header, sizeof(header), 0), sizeof(header));
		ck_assert_uint_eq(header.unique, n);
	}
}
END_TEST

/* The client was killed: nobody waits for it, so nothing is tried again. */
START_TEST(reply_that_nobody_wants)
{
	fail_with = -ENOENT;
	fail_times = FOR_EVER;
	answer(7);
	ck_assert_uint_eq(writes, 1);
	ck_assert_uint_eq(pauses, 0);
}
END_TEST

START_TEST(request_is_read_again)
{
	__real_transport_channel_devfuse.arm(q);
	for (unsigned round = 0; round < 3; round++) { /* what worked begins the count anew */
		for (unsigned n = 1; n < TRANSPORT_RETRY_MAX; n++) {
			submitted = 0;
			complete(-ENOMEM);
			ck_assert(!q->ended);
			ck_assert_uint_eq(submitted, 1);
		}
		ck_assert_uint_eq(pauses, (round + 1) * (TRANSPORT_RETRY_MAX - 1));
		complete(0); /* not a message: refused, and the next is read */
	}
	ck_assert_int_eq(t.end, TRANSPORT_RUNNING);
}
END_TEST

/* Only where there is no ring, or not any more, is the loop told that its clients do not wander. */
START_TEST(clients_wander_on_the_ring)
{
	__real_transport_channel_devfuse.arm(q);
	ck_assert_uint_eq(left_out, 1);
	t.chan = &transport_channel_uring;
	__real_transport_channel_devfuse.arm(q);
	ck_assert_uint_eq(left_out, 1);
	t.fell_back = true;
	__real_transport_channel_devfuse.arm(q);
	ck_assert_uint_eq(left_out, 2);
}
END_TEST

START_TEST(reading_is_given_up)
{
	__real_transport_channel_devfuse.arm(q);
	for (unsigned n = 0; n < TRANSPORT_RETRY_MAX; n++)
		complete(-ENOMEM);
	ck_assert(!q->ended);
	submitted = 0;
	complete(-ENOMEM);
	ck_assert(q->ended);
	ck_assert_uint_eq(submitted, 0);
	ck_assert_int_eq(t.end, TRANSPORT_GONE);
}
END_TEST

/*
 * What is queued is read without the ring, but not while there is no memory: the ring's READ waits
 * then.
 */
START_TEST(what_is_queued_is_left_to_the_ring)
{
	no_memory = true;
	__real_transport_channel_devfuse.arm(q);
	ck_assert_uint_eq(reads, 1);
	ck_assert_uint_eq(submitted, 1);
	ck_assert_uint_eq(pauses, 0);
}
END_TEST

static void serve(struct transport_req *req, void *arg)
{
	(void)arg;
	transport_reply(req, served_with, 0);
}

static void from_kernel(uint32_t opcode, const void *body, size_t len)
{
	struct fuse_in_header header = {
		.len = sizeof(header) + len, .opcode = opcode, .unique = 7, .nodeid = 1
	};
	struct iovec iov[2] = { { &header, sizeof(header) }, { (void *)(uintptr_t)body, len } };

	ck_assert_int_eq(writev(kernel, iov, 2), header.len);
	__real_transport_channel_devfuse.arm(q);
	complete(-EAGAIN); /* whoever waits on the ring did not get it: it is read at once */
}

/* A number that the kernel takes for none would leave the client waiting. */
START_TEST(errors_that_the_protocol_does_not_know)
{
	static const int given[] = { -ENOENT, -511, -512, -600, -4095 };
	static const int sent[] = { -ENOENT, -511, -EIO, -EIO, -EIO };
	struct fuse_out_header header;

	t.server.handle = serve;
	for (unsigned k = 0; k < ARRAY_SIZE(given); k++) {
		served_with = given[k];
		from_kernel(FUSE_STATFS, NULL, 0);
		ck_assert_int_eq(read(kernel, &header, sizeof(header)), sizeof(header));
		ck_assert_int_eq(header.error, sent[k]);
	}
}
END_TEST

static uint64_t forgotten[8];
static unsigned nr_forgotten;

static void forget(void *arg, uint64_t nodeid, uint64_t nlookup)
{
	(void)arg;
	ck_assert_uint_lt(nr_forgotten, ARRAY_SIZE(forgotten));
	forgotten[nr_forgotten++] = nodeid * 100 + nlookup;
}

START_TEST(each_of_a_batch_is_forgotten)
{
	struct { struct fuse_batch_forget_in in; struct fuse_forget_one one[3];
	} m = {
		.one = { { .nodeid = 11, .nlookup = 1 },
			 { .nodeid = 12, .nlookup = 5 },
			 { .nodeid = 13, .nlookup = 2 } },
	};

	t.server.forget = forget;
	for (unsigned n = 1; n <= 3; n++) {
		nr_forgotten = 0;
		m.in.count = n;
		from_kernel(FUSE_BATCH_FORGET, &m, sizeof(m.in) + n * sizeof(m.one[0]));
		ck_assert_uint_eq(nr_forgotten, n);
		for (unsigned k = 0; k < n; k++)
			ck_assert_uint_eq(forgotten[k], m.one[k].nodeid * 100 + m.one[k].nlookup);
	}
	ck_assert_uint_eq(writes, 0);
}
END_TEST

static struct fuse_uring_cmd_req command(void)
{
	struct fuse_uring_cmd_req req;

	memcpy(&req, sqe[0].cmd, sizeof(req));
	return req;
}

/*
 * The one entry is registered and gets a request, which is answered at once: what is on the ring
 * now is the reply.
 */
static void reply_on_the_ring(uint64_t commit_id)
{
	struct fuse_uring_req_header *h =
			(void *)(transport_slot(q, 0)->payload - TRANSPORT_HDR_BYTES);
	struct fuse_in_header header = {
		.len = sizeof(header), .opcode = FUSE_STATFS, .unique = 7, .nodeid = 1
	};

	memcpy(h->in_out, &header, sizeof(header));
	h->ring_ent_in_out.payload_sz = 0;
	h->ring_ent_in_out.commit_id = commit_id;
	complete(0);
	ck_assert_uint_eq(sqe[0].cmd_op, FUSE_IO_URING_CMD_COMMIT_AND_FETCH);
	ck_assert_uint_eq(command().commit_id, commit_id);
}

static void start_ring(void)
{
	t.chan = &transport_channel_uring;
	t.server.handle = serve;
	ck_assert_int_eq(transport_channel_uring.open(&t), 0);
	ck_assert_uint_eq(q->nr_ring, 1);
	transport_channel_uring.arm(q);
	ck_assert_uint_eq(sqe[0].cmd_op, FUSE_IO_URING_CMD_REGISTER);
}

START_TEST(command_is_submitted_again)
{
	struct io_uring_sqe was[2];

	start_ring();
	for (unsigned round = 1; round <= 3; round++) { /* each reply has a count of its own */
		reply_on_the_ring(round);
		memcpy(was, sqe, sizeof(was));
		for (unsigned n = 1; n < TRANSPORT_RETRY_MAX; n++) {
			submitted = 0;
			complete(-passing[_i]);
			ck_assert_uint_eq(submitted, 1);
			ck_assert_mem_eq(was, sqe, sizeof(was));
		}
	}
	ck_assert_uint_gt(pauses, 3 * (TRANSPORT_RETRY_MAX - 20));
}
END_TEST

START_TEST(command_is_given_up)
{
	uint64_t before = fdio_counter_read(COUNTER_transport_reply_gone);

	start_ring();
	reply_on_the_ring(1);
	for (unsigned n = 0; n < TRANSPORT_RETRY_MAX; n++)
		complete(-passing[_i]);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_transport_reply_gone), before);
	submitted = 0;
	complete(-passing[_i]);
	ck_assert_uint_eq(submitted, 0);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_transport_reply_gone) - before, 1);
}
END_TEST

/* Registering is tried again only where that needs no pause; then all goes on over /dev/fuse. */
START_TEST(registering_takes_no_time)
{
	start_ring();
	for (unsigned n = 0; n < TRANSPORT_RETRY_AT_ONCE && passing[_i] != ENOMEM; n++) {
		submitted = 0;
		complete(-passing[_i]);
		ck_assert_uint_eq(submitted, 1);
		ck_assert(!t.fell_back);
	}
	complete(-passing[_i]);
	ck_assert(t.fell_back);
	ck_assert_uint_eq(pauses, 0);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("transport: retry");
	TCase *c = unit_case(s, "all", 60);

	tcase_add_checked_fixture(c, setup, teardown);
	unit_loop(c, reply_is_written_again, 0, 3);
	unit_loop(c, reply_is_given_up, 0, 3);
	unit_test(c, reply_that_nobody_wants);
	unit_test(c, request_is_read_again);
	unit_test(c, reading_is_given_up);
	unit_test(c, clients_wander_on_the_ring);
	unit_test(c, what_is_queued_is_left_to_the_ring);
	unit_test(c, errors_that_the_protocol_does_not_know);
	unit_test(c, each_of_a_batch_is_forgotten);
	unit_loop(c, command_is_submitted_again, 0, 3);
	unit_loop(c, command_is_given_up, 0, 3);
	unit_loop(c, registering_takes_no_time, 0, 3);
	return s;
}
