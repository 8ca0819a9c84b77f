/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of src/loop with real loops and rings: messages from many threads arrive once and in
 * order, no wake-up is lost, more operations than a ring has entries, fixed files and arenas, the
 * restrictions of a ring, lists of CPUs, start and stop.
 *
 * Functions with a struct loop_msg or loop_op run on a loop; the rest on the test's thread.
 */
#include "loop/types.h"
#include "kit/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SENDERS 4u
#define PER_SENDER 5000u

static struct loop_set *new_set(unsigned nr, unsigned entries, bool sqe128)
{
	struct loop_config config = {
		.nr_loops = nr, .entries = entries, .sqe128 = sqe128, .pin = true
	};
	struct loop_set *set = NULL;
	char err[256] = "";

	ck_assert_msg(loop_set_new(&config, &set, FDIO_REASON(err)) == 0, "%s", err);
	return set;
}

struct counted {
	struct loop_msg msg;
	unsigned sender, number;
};

static struct sender {
	pthread_t thread;
	struct loop *target;
	unsigned id;
	struct counted *msgs;
} senders[SENDERS];
static unsigned next_of[SENDERS]; /* loop thread only */
static unsigned nr_disordered;
static unsigned nr_received;      /* atomic */

static void count_message(struct loop_msg *msg)
{
	struct counted *c = container_of(msg, struct counted, msg);

	if (c->number != next_of[c->sender]++)
		nr_disordered++;
	__atomic_add_fetch(&nr_received, 1, __ATOMIC_RELEASE);
}

static void *send_all(void *arg)
{
	struct sender *s = arg;

	for (unsigned i = 0; i < PER_SENDER; i++) {
		s->msgs[i].sender = s->id;
		s->msgs[i].number = i;
		loop_post(s->target, &s->msgs[i].msg, count_message);
		/* Lets the loop fall asleep now and then: a lost wake-up would show. */
		if (i % 64 == 0)
			usleep(1);
	}
	return NULL;
}

START_TEST(messages_arrive_once_and_in_order)
{
	struct loop_set *set = new_set(1, 8, false);

	memset(next_of, 0, sizeof(next_of));
	nr_disordered = nr_received = 0;
	ck_assert_int_eq(loop_set_start(set), 0);
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){ .target = loop_set_get(set, 0),
					      .id = i,
					      .msgs = calloc(PER_SENDER, sizeof(struct counted)) };
		ck_assert_int_eq(pthread_create(&senders[i].thread, NULL, send_all, &senders[i]),
				 0);
	}
	for (unsigned i = 0; i < SENDERS; i++)
		pthread_join(senders[i].thread, NULL);
	/* Stop is a message too and comes after all of these. */
	loop_set_stop(set);
	ck_assert_uint_eq(__atomic_load_n(&nr_received, __ATOMIC_ACQUIRE), SENDERS * PER_SENDER);
	ck_assert_uint_eq(nr_disordered, 0);
	for (unsigned i = 0; i < SENDERS; i++)
		free(senders[i].msgs);
	loop_set_free(set);
}
END_TEST

/*
 * Two loops post one message to each other in turn. If a wake-up is lost, the test hangs until its
 * time limit.
 */
static struct { struct loop_msg msg; struct loop_set *set; unsigned left; } ball;
static unsigned ball_fell; /* atomic */

static void throw_back(struct loop_msg *msg)
{
	ck_assert_ptr_eq(msg, &ball.msg);
	if (ball.left-- == 0) {
		__atomic_store_n(&ball_fell, 1, __ATOMIC_RELEASE);
		return;
	}
	loop_post(loop_set_get(ball.set, 1 - loop_index(loop_self())), &ball.msg, throw_back);
}

START_TEST(no_wakeup_is_lost)
{
	ball.set = new_set(2, 8, true);
	ball.left = 20000;
	ball_fell = 0;
	ck_assert_int_eq(loop_set_start(ball.set), 0);
	loop_post(loop_set_get(ball.set, 0), &ball.msg, throw_back);
	while (!__atomic_load_n(&ball_fell, __ATOMIC_ACQUIRE))
		usleep(200);
	loop_set_stop(ball.set);
	loop_set_free(ball.set);
}
END_TEST

/*
 * One message submits far more operations than the ring has entries: loop_sqe never fails, and each
 * operation completes once.
 */
#define NR_NOPS 1000u
static struct nop { struct loop_op op; unsigned done; } nops[NR_NOPS];
static unsigned nops_done; /* atomic */
static struct loop_msg nop_msg;

static void nop_complete(struct loop_op *op, int res, unsigned flags)
{
	(void)flags;
	container_of(op, struct nop, op)->done += res == 0;
	__atomic_add_fetch(&nops_done, 1, __ATOMIC_RELEASE);
}

static void submit_nops(struct loop_msg *msg)
{
	(void)msg;
	for (unsigned i = 0; i < NR_NOPS; i++) {
		struct io_uring_sqe *sqe = loop_sqe(loop_self());

		ck_assert_ptr_nonnull(sqe);
		io_uring_prep_nop(sqe);
		sqe->flags |= IOSQE_FIXED_FILE;
		nops[i].op.complete = nop_complete;
		nops[i].done = 0;
		io_uring_sqe_set_data(sqe, &nops[i].op);
	}
}

START_TEST(more_operations_than_entries)
{
	struct loop_set *set = new_set(1, 8, true);

	nops_done = 0;
	ck_assert_int_eq(loop_set_start(set), 0);
	loop_post(loop_set_get(set, 0), &nop_msg, submit_nops);
	while (__atomic_load_n(&nops_done, __ATOMIC_ACQUIRE) < NR_NOPS)
		usleep(200);
	loop_set_stop(set);
	for (unsigned i = 0; i < NR_NOPS; i++)
		ck_assert_uint_eq(nops[i].done, 1);
	loop_set_free(set);
}
END_TEST

/* A READ of a pipe that is a fixed file, into a registered arena. */
static struct {
	struct loop_msg msg;
	struct loop_op op;
	int pipe[2], err, res;
	char *arena;
	unsigned done; /* atomic */
} pipe_read;

static void pipe_read_complete(struct loop_op *op, int res, unsigned flags)
{
	(void)op;
	(void)flags;
	pipe_read.res = res;
	__atomic_store_n(&pipe_read.done, 1, __ATOMIC_RELEASE);
}

static void pipe_read_submit(struct loop_msg *msg)
{
	(void)msg;
	pipe_read.err = loop_register_file(loop_self(), LOOP_FILE_FUSE, pipe_read.pipe[0]);
	struct io_uring_sqe *sqe = loop_sqe(loop_self());
	io_uring_prep_read(sqe, LOOP_FILE_FUSE, pipe_read.arena, 16, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	pipe_read.op.complete = pipe_read_complete;
	io_uring_sqe_set_data(sqe, &pipe_read.op);
}

START_TEST(reads_a_fixed_file_into_an_arena)
{
	struct loop_set *set = new_set(1, 8, true);

	pipe_read.done = 0;
	pipe_read.arena = fdio_alloc_aligned(4096, 65536);
	ck_assert_ptr_nonnull(pipe_read.arena);
	ck_assert_int_eq(pipe(pipe_read.pipe), 0);
	struct iovec whole = { pipe_read.arena, 65536 };
	int err = loop_register_arenas(loop_set_get(set, 0), &whole, 1);
	ck_assert(err == 0 || err == -ENOMEM); /* RLIMIT_MEMLOCK */
	ck_assert_int_eq(loop_register_file(loop_set_get(set, 0), LOOP_FILE_DEV, pipe_read.pipe[0]),
			 0);
	ck_assert_int_eq(loop_set_start(set), 0);
	loop_post(loop_set_get(set, 0), &pipe_read.msg, pipe_read_submit);
	ck_assert_int_eq(write(pipe_read.pipe[1], "sixteen", 7), 7);
	while (!__atomic_load_n(&pipe_read.done, __ATOMIC_ACQUIRE))
		usleep(200);
	ck_assert_int_eq(pipe_read.err, 0);
	ck_assert_int_eq(pipe_read.res, 7);
	ck_assert_mem_eq(pipe_read.arena, "sixteen", 7);
	loop_set_stop(set);
	loop_set_free(set);
	close(pipe_read.pipe[0]);
	close(pipe_read.pipe[1]);
	free(pipe_read.arena);
}
END_TEST

/* A ring refuses operations that the daemon does not need. */
enum { FORBIDDEN = 5 };
static struct {
	struct loop_msg msg;
	struct nop op[FORBIDDEN];
	int res[FORBIDDEN], reg_err;
	unsigned done; /* atomic */
} forbidden;

static void forbidden_complete(struct loop_op *op, int res, unsigned flags)
{
	struct nop *n = container_of(op, struct nop, op);

	(void)flags;
	forbidden.res[n - forbidden.op] = res;
	__atomic_add_fetch(&forbidden.done, 1, __ATOMIC_RELEASE);
}

static void forbidden_submit(struct loop_msg *msg)
{
	static char buf[16];

	(void)msg;
	for (unsigned i = 0; i < FORBIDDEN; i++) {
		struct io_uring_sqe *sqe = loop_sqe(loop_self());

		switch (i) {
		case 0: io_uring_prep_openat(sqe, AT_FDCWD, "/dev/null", O_RDONLY, 0); break;
		case 1: io_uring_prep_socket(sqe, 1, 1, 0, 0); break;
		case 2: io_uring_prep_unlinkat(sqe, AT_FDCWD, "/nonexistent", 0); break;
		/* a file that is not registered */
		case 3: io_uring_prep_read(sqe, 0, buf, sizeof(buf), 0); break;
		default: io_uring_prep_nop(sqe); sqe->flags |= IOSQE_IO_DRAIN;
		}
		if (i != 3)
			sqe->flags |= IOSQE_FIXED_FILE;
		forbidden.op[i].op.complete = forbidden_complete;
		io_uring_sqe_set_data(sqe, &forbidden.op[i].op);
	}
	forbidden.reg_err = io_uring_register_eventfd(&loop_self()->ring, 0);
}

START_TEST(ring_refuses_other_operations)
{
	struct loop_set *set = new_set(1, 8, true);

	ck_assert_int_eq(loop_set_start(set), 0);
	loop_post(loop_set_get(set, 0), &forbidden.msg, forbidden_submit);
	while (__atomic_load_n(&forbidden.done, __ATOMIC_ACQUIRE) < FORBIDDEN)
		usleep(200);
	for (unsigned i = 0; i < FORBIDDEN; i++)
		ck_assert_int_eq(forbidden.res[i], -EACCES);
	ck_assert_int_eq(forbidden.reg_err, -EACCES);
	loop_set_stop(set);
	loop_set_free(set);
}
END_TEST

START_TEST(lists_of_cpus)
{
	unsigned last;

	ck_assert(loop_cpu_in_list("0\n", 0, &last) && last == 0);
	ck_assert(loop_cpu_in_list("0-63\n", 63, &last) && last == 63);
	ck_assert(!loop_cpu_in_list("0-63\n", 64, &last));
	ck_assert(loop_cpu_in_list("0-1,4,8-11\n", 9, &last) && last == 11);
	ck_assert(!loop_cpu_in_list("0-1,4,8-11\n", 5, &last));
	ck_assert(!loop_cpu_in_list("", 0, &last) && last == 0);
	ck_assert(!loop_cpu_in_list("3-1\n", 2, &last));
	ck_assert(!loop_cpu_in_list("0-99999999\n", 2, &last));
	ck_assert(loop_cpu_in_list("0,x", 0, &last));
	ck_assert_uint_gt(loop_possible_cpus(), 0);
	ck_assert(loop_cpu_online(0));
}
END_TEST

/* A READ that never completes keeps neither a loop from stopping nor its ring from being freed. */
START_TEST(stops_with_a_read_in_flight)
{
	for (unsigned i = 0; i < 20; i++) {
		struct loop_set *set = new_set(3, 8, i & 1);

		ck_assert_ptr_null(loop_self());
		ck_assert_int_eq(loop_set_start(set), 0);
		if (i & 2) {
			pipe_read.arena = malloc(16);
			ck_assert_int_eq(pipe(pipe_read.pipe), 0);
			loop_post(loop_set_get(set, 1), &pipe_read.msg, pipe_read_submit);
		}
		loop_set_stop(set);
		loop_set_stop(set); /* harmless */
		loop_set_free(set);
		if (i & 2) {
			close(pipe_read.pipe[0]);
			close(pipe_read.pipe[1]);
			free(pipe_read.arena);
		}
	}
}
END_TEST

START_TEST(free_without_start)
{
	struct loop_set *set = new_set(2, 8, false);

	ck_assert_uint_eq(loop_set_count(set), 2);
	ck_assert_uint_eq(loop_index(loop_set_get(set, 1)), 1);
	loop_set_free(set);
	loop_set_free(NULL);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("loop");
	TCase *t = unit_case(s, "loop", 60);

	unit_needs_io_uring();
	unit_test(t, messages_arrive_once_and_in_order);
	unit_test(t, no_wakeup_is_lost, PROVES("LOOP-1"));
	unit_test(t, more_operations_than_entries);
	unit_test(t, reads_a_fixed_file_into_an_arena);
	unit_test(t, ring_refuses_other_operations);
	unit_test(t, lists_of_cpus);
	unit_test(t, stops_with_a_read_in_flight);
	unit_test(t, free_without_start);
	return s;
}
