/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loops (loop.h). Each loop's thread is the only one that touches its ring; other threads
 * reach it through a lock-free stack of messages and an eventfd that a READ on the ring waits for.
 * Making, starting and stopping the loops runs on the main thread and may fail; running them does
 * not. start_lock (RANK_LEAF) guards the count of threads that have started.
 *
 * LOOP-1 A message is pushed before notified is exchanged; the loop clears notified before it takes
 *        the stack. All four accesses are sequentially consistent. So a sender that finds the
 *        flag set knows that the loop has yet to take the stack, and one write to the eventfd
 *        serves all senders.
 * LOOP-2 SINGLE_ISSUER with DEFER_TASKRUN wants the ring enabled by the thread that submits. So
 *        rings are made disabled on the main thread, where failures are reported, and enabled by
 *        the loop's thread, with its limits (limits.c). All operations are on registered files.
 * LOOP-3 A loop's thread runs on its own CPU, beside the clients whose requests it gets (place.c).
 * LOOP-4 Polling, where it is configured or place.c finds that it helps, is bounded twice: by a
 *        time after the last completion, and by credit, which polls that find nothing use up. It
 *        gives way to every other thread of the CPU, so a client or a kernel thread there goes
 *        first.
 */
#include "loop/types.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static __thread struct loop *self;

struct loop *loop_self(void) { return self; }
unsigned loop_index(const struct loop *loop) { return loop->index; }
unsigned loop_set_count(const struct loop_set *set) { return set->nr; }
const struct loop_config *loop_set_config(const struct loop_set *set) { return &set->config; }

struct loop *loop_set_get(struct loop_set *set, unsigned i)
{
	FDIO_ASSERT(i < set->nr);
	return &set->loops[i];
}

/* ---- making ---- */

/* Ring options to try, the best first: an old kernel may lack the first ones. */
static const struct {
	unsigned flags;
	const char *text;
} setups[] = {
	{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
			  IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED,
	  "single issuer, deferred task run" },
	{ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
			  IORING_SETUP_R_DISABLED,
	  "cooperative task run" },
	{ IORING_SETUP_R_DISABLED, "no ring options" },
};

static int ring_new(struct loop *loop, unsigned flags)
{
	struct loop_set *set = loop->set;
	struct io_uring_params p = { .flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP,
				     .cq_entries = set->config.entries * 4 };

	if (set->config.sqe128)
		p.flags |= IORING_SETUP_SQE128;
	int err = io_uring_queue_init_params(set->config.entries, &loop->ring, &p);
	if (err)
		return err;
	loop->ring_on = true;
	err = io_uring_register_files_sparse(&loop->ring, set->config.nr_fixed_files);
	return err ? err : loop_register_file(loop, LOOP_FILE_WAKE, loop->efd);
}

static int first_ring(struct loop_set *set)
{
	int err = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(setups) && err; i++) {
		err = ring_new(&set->loops[0], setups[i].flags);
		if (!err) {
			set->setup_flags = setups[i].flags;
			log_debug("io_uring: %s", setups[i].text);
		} else if (set->loops[0].ring_on) {
			io_uring_queue_exit(&set->loops[0].ring);
			set->loops[0].ring_on = false;
		}
	}
	return err;
}

static int explain(int err, struct fdio_reason *reason)
{
	if (err == -EPERM)
		fdio_reason_set(reason, "io_uring is not permitted here: set the sysctl "
				"kernel.io_uring_disabled to 0 (or lift the seccomp filter)");
	else if (err == -ENOSYS)
		fdio_reason_set(reason, "the kernel has no io_uring: use Linux 6.1 or newer");
	else if (err == -ENOMEM)
		fdio_reason_set(reason, "no memory for io_uring: raise RLIMIT_MEMLOCK (ulimit -l) "
				"or lower queue_depth=");
	else
		fdio_reason_set(reason, "cannot set up io_uring: %s", strerror(-err));
	return err;
}

static int loop_init(struct loop_set *set, unsigned i)
{
	struct loop *loop = &set->loops[i];

	fdio_magic_set(loop, MAGIC_LOOP);
	loop->set = set;
	loop->index = loop->cpu = i;
	loop->poll_ns = set->config.poll_ns;
	loop->efd = eventfd(0, EFD_CLOEXEC);
	if (loop->efd < 0)
		return -errno;
	return i ? ring_new(loop, set->setup_flags) : first_ring(set);
}

int loop_set_new(const struct loop_config *config, struct loop_set **ret,
		 struct fdio_reason *reason)
{
	struct loop_set *set = fdio_alloc_aligned(FDIO_CACHELINE, sizeof(*set));
	int err = 0;

	if (!set)
		return explain(-ENOMEM, reason);
	fdio_magic_set(set, MAGIC_LOOP_SET);
	fdio_mutex_init(&set->start_lock, RANK_LEAF);
	fdio_cond_init(&set->start_cond);
	set->config = *config;
	set->nr = config->nr_loops ? config->nr_loops : loop_possible_cpus();
	set->config.nr_fixed_files = FDIO_MAX(config->nr_fixed_files, (unsigned)LOOP_NR_FILES);
	set->loops = fdio_alloc_aligned(FDIO_CACHELINE, set->nr * sizeof(*set->loops));
	if (!set->loops) {
		pthread_cond_destroy(&set->start_cond);
		fdio_mutex_fini(&set->start_lock);
		free(set);
		return explain(-ENOMEM, reason);
	}
	for (unsigned i = 0; i < set->nr; i++)
		set->loops[i].efd = -1;
	for (unsigned i = 0; i < set->nr && !err; i++)
		err = loop_init(set, i);
	if (err) {
		loop_set_free(set);
		return explain(err, reason);
	}
	*ret = set;
	return 0;
}

void loop_set_free(struct loop_set *set)
{
	if (!set)
		return;
	fdio_magic_clear(set, MAGIC_LOOP_SET);
	for (unsigned i = 0; i < set->nr; i++) {
		struct loop *loop = &set->loops[i];

		FDIO_ASSERT(!loop->thread_on);
		if (loop->ring_on)
			io_uring_queue_exit(&loop->ring);
		if (loop->efd >= 0)
			close(loop->efd);
	}
	pthread_cond_destroy(&set->start_cond);
	fdio_mutex_fini(&set->start_lock);
	free(set->loops);
	free(set);
}

int loop_register_file(struct loop *loop, unsigned slot, int fd)
{
	int err = io_uring_register_files_update(&loop->ring, slot, &fd, 1);

	return err < 0 ? err : 0;
}

int loop_register_arenas(struct loop *loop, const struct iovec *arenas, unsigned n)
{
	return io_uring_register_buffers(&loop->ring, arenas, n);
}

void loop_unregister_arenas(struct loop *loop) { io_uring_unregister_buffers(&loop->ring); }

/* ---- messages ---- */

void loop_post(struct loop *loop, struct loop_msg *msg, void (*fn)(struct loop_msg *msg))
{
	struct loop_msg *head = __atomic_load_n(&loop->msgs, __ATOMIC_RELAXED);

	fdio_magic_check(loop, MAGIC_LOOP);
	msg->fn = fn;
	do
		msg->next = head;
	while (!__atomic_compare_exchange_n(&loop->msgs, &head, msg, true, __ATOMIC_SEQ_CST,
					    __ATOMIC_RELAXED));
	if (!__atomic_exchange_n(&loop->notified, true, __ATOMIC_SEQ_CST)) { /* LOOP-1 */
		uint64_t one = 1;
		ssize_t n = write(loop->efd, &one, sizeof(one));

		/* The counter is at most 1 for each sender, so the write has room. */
		FDIO_MUST(n == sizeof(one));
	}
}

/* Runs all messages that were posted, oldest first. */
static void run_messages(struct loop *loop)
{
	struct loop_msg *msg = __atomic_exchange_n(&loop->msgs, NULL, __ATOMIC_SEQ_CST),
			*ordered = NULL;

	while (msg) {
		struct loop_msg *next = msg->next;
		msg->next = ordered;
		ordered = msg;
		msg = next;
	}
	while (ordered) {
		struct loop_msg *next = ordered->next;
		ordered->fn(ordered); /* may post the message again */
		ordered = next;
	}
}

static void arm_eventfd(struct loop *loop)
{
	struct io_uring_sqe *sqe = loop_sqe(loop);

	io_uring_prep_read(sqe, LOOP_FILE_WAKE, &loop->efd_value, sizeof(loop->efd_value), 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, &loop->efd_op);
}

static void eventfd_done(struct loop_op *op, int res, unsigned cqe_flags)
{
	struct loop *loop = container_of(op, struct loop, efd_op);

	(void)cqe_flags;
	fdio_magic_check(loop, MAGIC_LOOP);
	if (res == -ECANCELED)
		return;
	/* LOOP-1: before run_messages takes the stack */
	__atomic_store_n(&loop->notified, false, __ATOMIC_SEQ_CST);
	run_messages(loop);
	arm_eventfd(loop);
}

/* ---- running ---- */

struct io_uring_sqe *loop_sqe(struct loop *loop)
{
	struct io_uring_sqe *sqe;

	FDIO_ASSERT(self == loop);
	while (!(sqe = io_uring_get_sqe(&loop->ring))) {
		int err = io_uring_submit(&loop->ring);
		/*
		 * EBUSY, EAGAIN: the completion queue is full; the kernel keeps what overflows, so
		 * trying again helps. After any other error the loop can neither serve nor answer.
		 */
		FDIO_MUST(err >= 0 || err == -EAGAIN || err == -EBUSY || err == -EINTR);
	}
	/* liburing does not clear what the last user left in it. */
	memset(sqe, 0, loop->set->config.sqe128 ? 128 : 64);
	return sqe;
}

/* Handles the completions in the queue; returns how many. */
static unsigned reap(struct loop *loop)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0, all = 0;

	io_uring_for_each_cqe(&loop->ring, head, cqe) {
		struct loop_op *op = io_uring_cqe_get_data(cqe);
		int res = cqe->res;
		unsigned flags = cqe->flags;

		n++;
		all++;
		/*
		 * Frees entries in small steps: complete may submit, and a full completion queue
		 * must not wait for the whole batch.
		 */
		if (n == 16) {
			io_uring_cq_advance(&loop->ring, n);
			n = 0;
		}
		op->complete(op, res, flags);
	}
	io_uring_cq_advance(&loop->ring, n);
	return all;
}

/* ---- waiting ---- */

#define POLL_CREDIT_MAX 32u
#define POLL_RETRY 64u          /* without credit, the loop polls before 1 in 64 waits */

/* A completion is in the queue, or the kernel will post one at the next io_uring_enter. */
static bool has_events(struct loop *loop)
{
	return io_uring_cq_ready(&loop->ring) || (IO_URING_READ_ONCE(*loop->ring.sq.kflags) &
						  (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

static bool poll_wanted(struct loop *loop)
{
	return loop->poll_ns && (loop->poll_credit || ++loop->poll_skipped % POLL_RETRY == 0);
}

/* Polls until a completion is there or the time is up (LOOP-4). */
static void poll_events(struct loop *loop)
{
	uint64_t until = fdio_now_ns() + loop->poll_ns;

	do {
		if (has_events(loop)) {
			loop->poll_credit = FDIO_MIN(loop->poll_credit + 2, POLL_CREDIT_MAX);
			fdio_count(COUNTER_loop_poll_hit);
			return;
		}
		sched_yield();
	} while (fdio_now_ns() < until);
	loop->poll_credit -= loop->poll_credit ? 1 : 0;
	fdio_count(COUNTER_loop_poll_miss);
}

/* Submits the prepared SQEs and waits for a completion; may return without one. */
static void submit_and_wait(struct loop *loop)
{
	int err = 0;

	if (poll_wanted(loop)) {
		err = io_uring_submit_and_get_events(&loop->ring);
		if (err >= 0 && !io_uring_cq_ready(&loop->ring))
			poll_events(loop);
	}
	if (err >= 0 && !io_uring_cq_ready(&loop->ring))
		err = io_uring_submit_and_wait(&loop->ring, 1);
	/* After any other error the loop can neither serve nor answer. */
	FDIO_MUST(err >= 0 || err == -EINTR || err == -EAGAIN || err == -EBUSY);
}

static void note_started(struct loop_set *set)
{
	fdio_mutex_lock(&set->start_lock);
	set->nr_started++;
	pthread_cond_signal(&set->start_cond);
	fdio_mutex_unlock(&set->start_lock);
}

/*
 * Empties the file table. The kernel frees a ring and its table in the background, after the
 * commands that still wait on it: without this, the device would stay in use, and locked, for a
 * moment after the process has ended.
 */
static void forget_files(struct loop *loop)
{
	for (unsigned i = 0; i < loop->set->config.nr_fixed_files; i++)
		loop_register_file(loop, i, -1);
}

/* What loops need (LOOP-2). Only tests use NOP: of the wake-up, and of refused registrations. */
static const uint8_t ops_needed[] = { IORING_OP_READ,       IORING_OP_WRITE,
				      IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED,
				      IORING_OP_URING_CMD,  IORING_OP_NOP };
static const uint8_t regs_needed[] = { IORING_REGISTER_FILES_UPDATE, IORING_REGISTER_RING_FDS,
				       IORING_UNREGISTER_RING_FDS };
static const struct loop_limits limits = {
	.ops = ops_needed,
	.nr_ops = ARRAY_SIZE(ops_needed),
	.regs = regs_needed,
	.nr_regs = ARRAY_SIZE(regs_needed),
	.flags_allowed = IOSQE_FIXED_FILE | IOSQE_ASYNC,
	.flags_required = IOSQE_FIXED_FILE,
};

static void *loop_main(void *arg)
{
	struct loop *loop = arg;
	fdio_magic_check(loop, MAGIC_LOOP);
	self = loop;
	loop_place_start(loop);
	int err = loop_ring_enable(&loop->ring, &limits); /* LOOP-2 */
	FDIO_MUST(err == 0); /* a kernel that makes the ring can enable it */
	/* Spares the kernel the look-up of the ring's file at each entry; optional. */
	if (io_uring_register_ring_fd(&loop->ring) < 0)
		log_debug("loop %u: the ring's descriptor is not registered", loop->index);
	loop->efd_op.complete = eventfd_done;
	arm_eventfd(loop);
	note_started(loop->set);
	while (!loop->stop) {
		submit_and_wait(loop);
		loop_place_note(loop, reap(loop));
	}
	io_uring_submit(&loop->ring); /* the last reply may be among the prepared SQEs */
	forget_files(loop);
	io_uring_unregister_ring_fd(&loop->ring);
	self = NULL;
	return NULL;
}

int loop_set_start(struct loop_set *set)
{
	unsigned made = 0;
	int err = 0;

	set->nr_started = 0;
	for (; made < set->nr && !err; made += !err) {
		char name[16];

		snprintf(name, sizeof(name), "fusedio-%u", set->loops[made].index);
		set->loops[made].stop = false;
		err = thread_start(&set->loops[made].thread, name, loop_main, &set->loops[made]);
		set->loops[made].thread_on = !err;
	}
	fdio_mutex_lock(&set->start_lock);
	while (set->nr_started < made)
		fdio_cond_wait(&set->start_cond, &set->start_lock);
	fdio_mutex_unlock(&set->start_lock);
	if (err)
		loop_set_stop(set);
	return err;
}

static void stop_fn(struct loop_msg *msg) { container_of(msg, struct loop, stop_msg)->stop = true; }

void loop_set_stop(struct loop_set *set)
{
	for (unsigned i = 0; i < set->nr; i++)
		if (set->loops[i].thread_on)
			loop_post(&set->loops[i], &set->loops[i].stop_msg, stop_fn);
	for (unsigned i = 0; i < set->nr; i++)
		if (set->loops[i].thread_on) {
			pthread_join(set->loops[i].thread, NULL);
			set->loops[i].thread_on = false;
		}
}
