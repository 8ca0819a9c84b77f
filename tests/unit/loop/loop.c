/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of src/loop: messages from many threads, their order, ring operations, what a ring may
 * be used for, a clean stop.
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

static void count_msg(struct loop_msg *msg)
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
		loop_post(s->target, &s->msgs[i].msg, count_msg);
		/* Let the loop fall asleep now and then: the wake-up is what could be lost. */
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
 * Two loops throw one message to and fro: each wake-up must happen or the test hangs until check's
 * timeout.
 */
static struct { struct loop_msg msg; struct loop_set *set; unsigned left; } ball;
static unsigned ball_down; /* atomic */

static void ball_fn(struct loop_msg *msg)
{
	ck_assert_ptr_eq(msg, &ball.msg);
	if (ball.left-- == 0) {
		__atomic_store_n(&ball_down, 1, __ATOMIC_RELEASE);
		return;
	}
	loop_post(loop_set_get(ball.set, 1 - loop_index(loop_self())), &ball.msg, ball_fn);
}

START_TEST(no_wakeup_is_lost)
{
	ball.set = new_set(2, 8, true);
	ball.left = 20000;
	ball_down = 0;
	ck_assert_int_eq(loop_set_start(ball.set), 0);
	loop_post(loop_set_get(ball.set, 0), &ball.msg, ball_fn);
	while (!__atomic_load_n(&ball_down, __ATOMIC_ACQUIRE))
		usleep(200);
	loop_set_stop(ball.set);
	loop_set_free(ball.set);
}
END_TEST

/*
 * Far more operations than SQ entries, submitted at once: loop_sqe must never fail and every one
 * completes once.
 */
#define NOPS 1000u
static struct nop { struct loop_op op; unsigned done; } nops[NOPS];
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
	for (unsigned i = 0; i < NOPS; i++) {
		struct io_uring_sqe *sqe = loop_sqe(loop_self());

		ck_assert_ptr_nonnull(sqe);
		io_uring_prep_nop(sqe);
		sqe->flags |= IOSQE_FIXED_FILE;
		nops[i].op.complete = nop_complete;
		nops[i].done = 0;
		io_uring_sqe_set_data(sqe, &nops[i].op);
	}
}

START_TEST(ring_overflow_is_nobodys_business)
{
	struct loop_set *set = new_set(1, 8, true);

	nops_done = 0;
	ck_assert_int_eq(loop_set_start(set), 0);
	loop_post(loop_set_get(set, 0), &nop_msg, submit_nops);
	while (__atomic_load_n(&nops_done, __ATOMIC_ACQUIRE) < NOPS)
		usleep(200);
	loop_set_stop(set);
	for (unsigned i = 0; i < NOPS; i++)
		ck_assert_uint_eq(nops[i].done, 1);
	loop_set_free(set);
}
END_TEST

/*
 * A fixed file and the registered arena: read from a pipe on the ring of the thread that registered
 * it.
 */
static struct {
	struct loop_msg msg;
	struct loop_op op;
	int pipe[2], err, res;
	char *arena;
	unsigned done; /* atomic */
} rd;

static void rd_complete(struct loop_op *op, int res, unsigned flags)
{
	(void)op;
	(void)flags;
	rd.res = res;
	__atomic_store_n(&rd.done, 1, __ATOMIC_RELEASE);
}

static void rd_submit(struct loop_msg *msg)
{
	(void)msg;
	rd.err = loop_register_file(loop_self(), LOOP_FILE_FUSE, rd.pipe[0]);
	struct io_uring_sqe *sqe = loop_sqe(loop_self());
	io_uring_prep_read(sqe, LOOP_FILE_FUSE, rd.arena, 16, 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	rd.op.complete = rd_complete;
	io_uring_sqe_set_data(sqe, &rd.op);
}

START_TEST(fixed_file_and_arena)
{
	struct loop_set *set = new_set(1, 8, true);

	rd.done = 0;
	rd.arena = fdio_alloc_aligned(4096, 65536);
	ck_assert_ptr_nonnull(rd.arena);
	ck_assert_int_eq(pipe(rd.pipe), 0);
	struct iovec whole = { rd.arena, 65536 };
	int err = loop_register_arenas(loop_set_get(set, 0), &whole, 1);
	ck_assert(err == 0 || err == -ENOMEM); /* RLIMIT_MEMLOCK */
	ck_assert_int_eq(loop_register_file(loop_set_get(set, 0), LOOP_FILE_DEV, rd.pipe[0]), 0);
	ck_assert_int_eq(loop_set_start(set), 0);
	loop_post(loop_set_get(set, 0), &rd.msg, rd_submit);
	ck_assert_int_eq(write(rd.pipe[1], "sixteen", 7), 7);
	while (!__atomic_load_n(&rd.done, __ATOMIC_ACQUIRE))
		usleep(200);
	ck_assert_int_eq(rd.err, 0);
	ck_assert_int_eq(rd.res, 7);
	ck_assert_mem_eq(rd.arena, "sixteen", 7);
	loop_set_stop(set);
	loop_set_free(set);
	close(rd.pipe[0]);
	close(rd.pipe[1]);
	free(rd.arena);
}
END_TEST

/* A ring does what the daemon needs and nothing else. */
enum { FORBIDDEN = 5 };
static struct {
	struct loop_msg msg;
	struct nop op[FORBIDDEN];
	int res[FORBIDDEN], reg_err;
	unsigned done; /* atomic */
} no;

static void no_complete(struct loop_op *op, int res, unsigned flags)
{
	struct nop *n = container_of(op, struct nop, op);

	(void)flags;
	no.res[n - no.op] = res;
	__atomic_add_fetch(&no.done, 1, __ATOMIC_RELEASE);
}

static void no_submit(struct loop_msg *msg)
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
		no.op[i].op.complete = no_complete;
		io_uring_sqe_set_data(sqe, &no.op[i].op);
	}
	no.reg_err = io_uring_register_eventfd(&loop_self()->ring, 0);
}

START_TEST(rings_are_limited)
{
	struct loop_set *set = new_set(1, 8, true);

	ck_assert_int_eq(loop_set_start(set), 0);
	loop_post(loop_set_get(set, 0), &no.msg, no_submit);
	while (__atomic_load_n(&no.done, __ATOMIC_ACQUIRE) < FORBIDDEN)
		usleep(200);
	for (unsigned i = 0; i < FORBIDDEN; i++)
		ck_assert_int_eq(no.res[i], -EACCES);
	ck_assert_int_eq(no.reg_err, -EACCES);
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

/*
 * A READ that never completes must not keep the threads from stopping or the rings from being
 * freed.
 */
START_TEST(start_and_stop)
{
	for (unsigned i = 0; i < 20; i++) {
		struct loop_set *set = new_set(3, 8, i & 1);

		ck_assert_ptr_null(loop_self());
		ck_assert_int_eq(loop_set_start(set), 0);
		if (i & 2) {
			rd.arena = malloc(16);
			ck_assert_int_eq(pipe(rd.pipe), 0);
			loop_post(loop_set_get(set, 1), &rd.msg, rd_submit);
		}
		loop_set_stop(set);
		loop_set_stop(set); /* harmless */
		loop_set_free(set);
		if (i & 2) {
			close(rd.pipe[0]);
			close(rd.pipe[1]);
			free(rd.arena);
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

	unit_test(t, messages_arrive_once_and_in_order);
	unit_test(t, no_wakeup_is_lost, PROVES("LOOP-1"));
	unit_test(t, ring_overflow_is_nobodys_business);
	unit_test(t, fixed_file_and_arena);
	unit_test(t, rings_are_limited);
	unit_test(t, lists_of_cpus);
	unit_test(t, start_and_stop);
	unit_test(t, free_without_start);
	return s;
}
