/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The channels while the kernel has no memory, or was interrupted: they try again, with pauses, and
 * give up after a while. The tests use the real channels, and one thread plays the rest. A socket
 * stands for /dev/fuse. What a channel puts on the ring is only kept, and the test completes it
 * with the result it wants. The linker's --wrap makes write and read fail on demand and nanosleep
 * return at once.
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

static struct transport transport;
static struct transport_queue *queue;
static struct loop_set *loops;
static int kernel;               /* the kernel's end of the socket */
static int fail_with;            /* the error of the next fail_times writes to /dev/fuse */
static unsigned fail_times, writes, pauses, submitted;
static bool no_memory;           /* reads of /dev/fuse fail with ENOMEM */
static unsigned reads;
static int served_with;          /* the error in the handler's answer */
static struct io_uring_sqe sqe[2]; /* what was put on the ring last; a command takes both */

/* The linker's --wrap makes these names. */
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
	if (!queue || fd != queue->fd)
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
	if (!queue || fd != queue->fd)
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
	ck_assert_ptr_eq(loop, queue->loop);
	submitted++;
	memset(sqe, 0, sizeof(sqe));
	return sqe;
}

struct loop *__wrap_loop_self(void) { return queue ? queue->loop : NULL; }

int __wrap_loop_register_file(struct loop *loop, unsigned slot, int fd)
{
	(void)loop, (void)fd;
	ck_assert_uint_eq(slot, LOOP_FILE_FUSE);
	return 0;
}

/* Replaces the function of transport.c: only notes the reason of the end. */
void transport_end(struct transport *ended, enum transport_end why, struct transport_req *req)
{
	(void)req;
	if (ended->end == TRANSPORT_RUNNING)
		ended->end = why;
}

/* Replaces /dev/fuse where the ring's channel opens it beside the ring: nothing comes over it. */
static int beside_open(struct transport *of)
{
	(void)of;
	return 0;
}
static void beside_arm(struct transport_queue *of) { (void)of; }
extern const struct transport_channel_ops __real_transport_channel_devfuse,
		__wrap_transport_channel_devfuse;
const struct transport_channel_ops __wrap_transport_channel_devfuse = { .name = "beside",
									.open = beside_open,
									.arm = beside_arm };

static unsigned left_out; /* calls of loop_no_wander */
void __wrap_loop_no_wander(struct loop *loop);
void __wrap_loop_no_wander(struct loop *loop) { left_out += loop == queue->loop; }

/* Completes what was put on the ring last with res. */
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

	memset(&transport, 0, sizeof(transport));
	ck_assert_msg(!loop_set_new(&config, &loops, FDIO_REASON(err)), "%s", err);
	ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds),
			 0);
	transport.config = (struct transport_config){ .loops = loops,
					      .queue_depth = 2,
					      .slot_size = sizeof(struct transport_req),
					      .transport = TRANSPORT_KIND_DEVFUSE };
	transport.chan = &__real_transport_channel_devfuse;
	ck_assert_msg(!transport_slots_new(&transport, FDIO_REASON(err)), "%s", err);
	queue = &transport.queues[0];
	queue->fd = fds[0];
	kernel = fds[1];
	fail_times = writes = pauses = submitted = left_out = reads = 0;
	no_memory = false;
	served_with = -ENOENT;
}

static void teardown(void)
{
	close(queue->fd);
	close(kernel);
	queue = NULL;
	transport_slots_free(&transport);
	loop_set_free(loops);
}

/* Sends a handler's answer to a request with this number. */
static void answer(uint64_t unique)
{
	struct transport_req *req = list_first(&queue->free, struct transport_req, link);

	list_del(&req->link);
	req->in.header.unique = unique;
	req->reply_err = -ENOENT;
	req->reply_len = 0;
	__real_transport_channel_devfuse.reply(req);
}

static const int transient[] = { ENOMEM, EAGAIN, EINTR };

START_TEST(reply_is_written_again)
{
	struct fuse_out_header header;
	uint64_t before = fdio_counter_read(COUNTER_transport_retry);

	fail_with = -transient[_i];
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

/* After TRANSPORT_RETRY_MAX tries the reply is dropped, and its slot is free again. */
START_TEST(reply_is_given_up)
{
	struct fuse_out_header header;
	uint64_t before = fdio_counter_read(COUNTER_transport_reply_gone);

	fail_with = -transient[_i];
	fail_times = FOR_EVER;
	answer(7);
	ck_assert_uint_eq(writes, TRANSPORT_RETRY_MAX + 1);
	ck_assert_uint_gt(pauses, TRANSPORT_RETRY_MAX - 20);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_transport_reply_gone) - before, 1);
	fail_times = 0;
	for (unsigned n = 1; n <= 2 * queue->nr_slots; n++) {
		answer(n);
		ck_assert_int_eq(recv(kernel, &header, sizeof(header), 0), sizeof(header));
		ck_assert_uint_eq(header.unique, n);
	}
}
END_TEST

/* ENOENT: the client was killed and nobody waits for the reply, so it is not tried again. */
START_TEST(reply_to_a_killed_client_is_not_tried_again)
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
	__real_transport_channel_devfuse.arm(queue);
	for (unsigned round = 0; round < 3; round++) { /* a success begins the count anew */
		for (unsigned n = 1; n < TRANSPORT_RETRY_MAX; n++) {
			submitted = 0;
			complete(-ENOMEM);
			ck_assert(!queue->ended);
			ck_assert_uint_eq(submitted, 1);
		}
		ck_assert_uint_eq(pauses, (round + 1) * (TRANSPORT_RETRY_MAX - 1));
		complete(0); /* no message: it is refused, and the next is read */
	}
	ck_assert_int_eq(transport.end, TRANSPORT_RUNNING);
}
END_TEST

/* A loop without a ring, or that has given its ring up, is told that its clients do not wander. */
START_TEST(clients_wander_only_on_the_ring)
{
	__real_transport_channel_devfuse.arm(queue);
	ck_assert_uint_eq(left_out, 1);
	transport.chan = &transport_channel_uring;
	__real_transport_channel_devfuse.arm(queue);
	ck_assert_uint_eq(left_out, 1);
	transport.fell_back = true;
	__real_transport_channel_devfuse.arm(queue);
	ck_assert_uint_eq(left_out, 2);
}
END_TEST

START_TEST(reading_is_given_up)
{
	__real_transport_channel_devfuse.arm(queue);
	for (unsigned n = 0; n < TRANSPORT_RETRY_MAX; n++)
		complete(-ENOMEM);
	ck_assert(!queue->ended);
	submitted = 0;
	complete(-ENOMEM);
	ck_assert(queue->ended);
	ck_assert_uint_eq(submitted, 0);
	ck_assert_int_eq(transport.end, TRANSPORT_GONE);
}
END_TEST

/*
 * A queued request is read without the ring. If there is no memory for that, no pause is made: a
 * READ on the ring waits instead.
 */
START_TEST(without_memory_the_ring_reads)
{
	no_memory = true;
	__real_transport_channel_devfuse.arm(queue);
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
	__real_transport_channel_devfuse.arm(queue);
	complete(-EAGAIN); /* the READ on the ring did not get it, so it is read at once */
}

/* The kernel drops a reply with an errno beyond 511, and the client would wait for ever: EIO. */
START_TEST(unknown_errors_become_eio)
{
	static const int given[] = { -ENOENT, -511, -512, -600, -4095 };
	static const int sent[] = { -ENOENT, -511, -EIO, -EIO, -EIO };
	struct fuse_out_header header;

	transport.server.handle = serve;
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

START_TEST(batch_forget_forgets_each)
{
	struct { struct fuse_batch_forget_in in; struct fuse_forget_one one[3];
	} m = {
		.one = { { .nodeid = 11, .nlookup = 1 },
			 { .nodeid = 12, .nlookup = 5 },
			 { .nodeid = 13, .nlookup = 2 } },
	};

	transport.server.forget = forget;
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
 * The registered entry gets a request, which the handler answers at once: what is on the ring now
 * is the reply.
 */
static void reply_on_the_ring(uint64_t commit_id)
{
	struct fuse_uring_req_header *h =
			(void *)(transport_slot(queue, 0)->payload - TRANSPORT_HDR_BYTES);
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
	transport.chan = &transport_channel_uring;
	transport.server.handle = serve;
	ck_assert_int_eq(transport_channel_uring.open(&transport), 0);
	ck_assert_uint_eq(queue->nr_ring, 1);
	transport_channel_uring.arm(queue);
	ck_assert_uint_eq(sqe[0].cmd_op, FUSE_IO_URING_CMD_REGISTER);
}

START_TEST(command_is_submitted_again)
{
	struct io_uring_sqe was[2];

	start_ring();
	for (unsigned round = 1; round <= 3; round++) { /* each reply counts anew */
		reply_on_the_ring(round);
		memcpy(was, sqe, sizeof(was));
		for (unsigned n = 1; n < TRANSPORT_RETRY_MAX; n++) {
			submitted = 0;
			complete(-transient[_i]);
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
		complete(-transient[_i]);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_transport_reply_gone), before);
	submitted = 0;
	complete(-transient[_i]);
	ck_assert_uint_eq(submitted, 0);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_transport_reply_gone) - before, 1);
}
END_TEST

/*
 * Registering is tried again only as often as needs no pause. After that the connection goes on
 * over /dev/fuse.
 */
START_TEST(registering_never_pauses)
{
	start_ring();
	for (unsigned n = 0; n < TRANSPORT_RETRY_AT_ONCE && transient[_i] != ENOMEM; n++) {
		submitted = 0;
		complete(-transient[_i]);
		ck_assert_uint_eq(submitted, 1);
		ck_assert(!transport.fell_back);
	}
	complete(-transient[_i]);
	ck_assert(transport.fell_back);
	ck_assert_uint_eq(pauses, 0);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("transport: retry");
	TCase *c = unit_case(s, "all", 60);

	unit_needs_io_uring();
	tcase_add_checked_fixture(c, setup, teardown);
	unit_loop(c, reply_is_written_again, 0, 3);
	unit_loop(c, reply_is_given_up, 0, 3);
	unit_test(c, reply_to_a_killed_client_is_not_tried_again);
	unit_test(c, request_is_read_again);
	unit_test(c, reading_is_given_up);
	unit_test(c, clients_wander_only_on_the_ring);
	unit_test(c, without_memory_the_ring_reads);
	unit_test(c, unknown_errors_become_eio);
	unit_test(c, batch_forget_forgets_each);
	unit_loop(c, command_is_submitted_again, 0, 3);
	unit_loop(c, command_is_given_up, 0, 3);
	unit_loop(c, registering_never_pauses, 0, 3);
	return s;
}
