/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The event loops, see loop.h. Each loop's thread is the only one that touches its ring; other
 * threads reach it through a lock-free stack of messages and an eventfd that a READ on the ring
 * waits for. start_lock (RANK_LEAF) guards the count of threads that have started.
 *
 * LOOP-1 A message is pushed before `notified` is exchanged; the loop clears `notified` before it
 *    takes the stack. So a sender that finds the flag set knows that the loop has yet to take the
 *    stack, and one write to the eventfd serves all senders.
 * LOOP-2 SINGLE_ISSUER with DEFER_TASKRUN wants the ring enabled by the thread that submits: rings
 *    are made disabled on the main thread (so that failures are reported there) and enabled by the
 *    loop's thread, with its limits (limits.c). All operations are on registered files.
 * LOOP-3 A loop's thread runs on its own CPU, beside the clients whose requests it gets (place.c).
 * LOOP-4 Polling, where it is configured or place.c finds that it helps, is bounded twice: by a
 *    time after the last completion, and by credit, which polls that find nothing use up. It gives
 *    way to whatever else wants the CPU, so a client or a kernel thread on the same CPU goes first.
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
unsigned loop_index(const struct loop *l) { return l->index; }
unsigned loop_set_count(const struct loop_set *s) { return s->nr; }
const struct loop_config *loop_set_config(const struct loop_set *s) { return &s->cfg; }

struct loop *loop_set_get(struct loop_set *s, unsigned i)
{
	FDIO_ASSERT(i < s->nr);
	return &s->loops[i];
}

/* ---- making ---- */

static const struct { unsigned flags; const char *text; } setups[] = {
	{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL |
	  IORING_SETUP_R_DISABLED, "single issuer, deferred task run" },
	{ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_R_DISABLED, "cooperative task run" },
	{ IORING_SETUP_R_DISABLED, "no ring options" },
};

static int ring_new(struct loop *l, unsigned flags)
{
	struct loop_set *s = l->set;
	struct io_uring_params p = { .flags = flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP, .cq_entries = s->cfg.entries * 4 };

	if (s->cfg.sqe128)
		p.flags |= IORING_SETUP_SQE128;
	int err = io_uring_queue_init_params(s->cfg.entries, &l->ring, &p);
	if (err)
		return err;
	l->ring_on = true;
	err = io_uring_register_files_sparse(&l->ring, s->cfg.nr_fixed_files);
	return err ? err : loop_register_file(l, LOOP_FILE_WAKE, l->efd);
}

static int first_ring(struct loop_set *s)
{
	int err = -EINVAL;

	for (size_t i = 0; i < ARRAY_SIZE(setups) && err; i++) {
		err = ring_new(&s->loops[0], setups[i].flags);
		if (!err) {
			s->setup_flags = setups[i].flags;
			log_debug("io_uring: %s", setups[i].text);
		} else if (s->loops[0].ring_on) {
			io_uring_queue_exit(&s->loops[0].ring);
			s->loops[0].ring_on = false;
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

static int loop_init(struct loop_set *s, unsigned i)
{
	struct loop *l = &s->loops[i];

	fdio_magic_set(l, MAGIC_LOOP);
	l->set = s;
	l->index = l->cpu = i;
	l->poll_ns = s->cfg.poll_ns;
	l->efd = eventfd(0, EFD_CLOEXEC);
	if (l->efd < 0)
		return -errno;
	return i ? ring_new(l, s->setup_flags) : first_ring(s);
}

int loop_set_new(const struct loop_config *cfg, struct loop_set **ret, struct fdio_reason *reason)
{
	struct loop_set *s = fdio_alloc_aligned(FDIO_CACHELINE, sizeof(*s));
	int err = 0;

	if (!s)
		return explain(-ENOMEM, reason);
	fdio_magic_set(s, MAGIC_LOOP_SET);
	fdio_mutex_init(&s->start_lock, RANK_LEAF);
	fdio_cond_init(&s->start_cond);
	s->cfg = *cfg;
	s->nr = cfg->nr_loops ? cfg->nr_loops : loop_possible_cpus();
	s->cfg.nr_fixed_files = FDIO_MAX(cfg->nr_fixed_files, (unsigned)LOOP_NR_FILES);
	s->loops = fdio_alloc_aligned(FDIO_CACHELINE, s->nr * sizeof(*s->loops));
	if (!s->loops) {
		pthread_cond_destroy(&s->start_cond);
		fdio_mutex_fini(&s->start_lock);
		free(s);
		return explain(-ENOMEM, reason);
	}
	for (unsigned i = 0; i < s->nr; i++)
		s->loops[i].efd = -1;
	for (unsigned i = 0; i < s->nr && !err; i++)
		err = loop_init(s, i);
	if (err) {
		loop_set_free(s);
		return explain(err, reason);
	}
	*ret = s;
	return 0;
}

void loop_set_free(struct loop_set *s)
{
	if (!s)
		return;
	fdio_magic_clear(s, MAGIC_LOOP_SET);
	for (unsigned i = 0; i < s->nr; i++) {
		struct loop *l = &s->loops[i];

		FDIO_ASSERT(!l->thread_on);
		if (l->ring_on)
			io_uring_queue_exit(&l->ring);
		if (l->efd >= 0)
			close(l->efd);
	}
	pthread_cond_destroy(&s->start_cond);
	fdio_mutex_fini(&s->start_lock);
	free(s->loops);
	free(s);
}

int loop_register_file(struct loop *l, unsigned slot, int fd)
{
	int r = io_uring_register_files_update(&l->ring, slot, &fd, 1);

	return r < 0 ? r : 0;
}

int loop_register_arenas(struct loop *l, const struct iovec *arenas, unsigned n)
{
	return io_uring_register_buffers(&l->ring, arenas, n);
}

void loop_unregister_arenas(struct loop *l) { io_uring_unregister_buffers(&l->ring); }

/* ---- messages ---- */

void loop_post(struct loop *l, struct loop_msg *m, void (*fn)(struct loop_msg *m))
{
	struct loop_msg *head = __atomic_load_n(&l->msgs, __ATOMIC_RELAXED);

	fdio_magic_check(l, MAGIC_LOOP);
	m->fn = fn;
	do
		m->next = head;
	while (!__atomic_compare_exchange_n(&l->msgs, &head, m, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
	if (!__atomic_exchange_n(&l->notified, true, __ATOMIC_SEQ_CST)) { /* LOOP-1 */
		uint64_t one = 1;
		ssize_t n = write(l->efd, &one, sizeof(one));

		/* The counter holds at most one for each sender, so there is always room for this. */
		FDIO_MUST(n == sizeof(one));
	}
}

/* Runs what was posted, oldest first. */
static void run_messages(struct loop *l)
{
	struct loop_msg *m = __atomic_exchange_n(&l->msgs, NULL, __ATOMIC_ACQUIRE), *ordered = NULL;

	while (m) {
		struct loop_msg *next = m->next;
		m->next = ordered;
		ordered = m;
		m = next;
	}
	while (ordered) {
		struct loop_msg *next = ordered->next;
		ordered->fn(ordered); /* may be posted again from inside */
		ordered = next;
	}
}

static void arm_eventfd(struct loop *l)
{
	struct io_uring_sqe *sqe = loop_sqe(l);

	io_uring_prep_read(sqe, LOOP_FILE_WAKE, &l->efd_value, sizeof(l->efd_value), 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data(sqe, &l->efd_op);
}

static void eventfd_done(struct loop_op *op, int res, unsigned cqe_flags)
{
	struct loop *l = container_of(op, struct loop, efd_op);

	(void)cqe_flags;
	fdio_magic_check(l, MAGIC_LOOP);
	if (res == -ECANCELED)
		return;
	__atomic_store_n(&l->notified, false, __ATOMIC_SEQ_CST); /* LOOP-1: before the stack is taken */
	run_messages(l);
	arm_eventfd(l);
}

/* ---- running ---- */

struct io_uring_sqe *loop_sqe(struct loop *l)
{
	struct io_uring_sqe *sqe;

	FDIO_ASSERT(self == l);
	while (!(sqe = io_uring_get_sqe(&l->ring))) {
		int r = io_uring_submit(&l->ring);
		/* EBUSY, EAGAIN: the completion queue is full; the kernel keeps what overflows, so trying again helps. */
		/* Anything else: a loop without its ring can neither serve nor answer. */
		FDIO_MUST(r >= 0 || r == -EAGAIN || r == -EBUSY || r == -EINTR);
	}
	/* liburing hands out what the last user left in it. */
	memset(sqe, 0, l->set->cfg.sqe128 ? 128 : 64);
	return sqe;
}

/* Returns how many there were. */
static unsigned reap(struct loop *l)
{
	struct io_uring_cqe *cqe;
	unsigned head, n = 0, all = 0;

	io_uring_for_each_cqe(&l->ring, head, cqe) {
		struct loop_op *op = io_uring_cqe_get_data(cqe);
		int res = cqe->res;
		unsigned flags = cqe->flags;

		n++;
		all++;
		/* Advance in small steps: completions may submit, and a full queue must not wait for the whole batch. */
		if (n == 16) {
			io_uring_cq_advance(&l->ring, n);
			n = 0;
		}
		op->complete(op, res, flags);
	}
	io_uring_cq_advance(&l->ring, n);
	return all;
}

/* ---- waiting ---- */

#define POLL_CREDIT_MAX 32u
#define POLL_RETRY 64u          /* without credit, one wait in so many polls all the same */

/* Something has completed, or would be if the kernel were entered. */
static bool has_events(struct loop *l)
{
	return io_uring_cq_ready(&l->ring) || (IO_URING_READ_ONCE(*l->ring.sq.kflags) & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW));
}

static bool poll_wanted(struct loop *l)
{
	return l->poll_ns && (l->poll_credit || ++l->poll_skipped % POLL_RETRY == 0);
}

/* LOOP-4 */
static void poll_events(struct loop *l)
{
	uint64_t until = fdio_now_ns() + l->poll_ns;

	do {
		if (has_events(l)) {
			l->poll_credit = FDIO_MIN(l->poll_credit + 2, POLL_CREDIT_MAX);
			fdio_count(CTR_loop_poll_hit);
			return;
		}
		sched_yield();
	} while (fdio_now_ns() < until);
	l->poll_credit -= l->poll_credit ? 1 : 0;
	fdio_count(CTR_loop_poll_miss);
}

/* Submits what was prepared and comes back with completions, usually. */
static void submit_and_wait(struct loop *l)
{
	int r = 0;

	if (poll_wanted(l)) {
		r = io_uring_submit_and_get_events(&l->ring);
		if (r >= 0 && !io_uring_cq_ready(&l->ring))
			poll_events(l);
	}
	if (r >= 0 && !io_uring_cq_ready(&l->ring))
		r = io_uring_submit_and_wait(&l->ring, 1);
	/* Anything else: a loop without its ring can neither serve nor answer. */
	FDIO_MUST(r >= 0 || r == -EINTR || r == -EAGAIN || r == -EBUSY);
}

static void note_started(struct loop_set *s)
{
	fdio_mutex_lock(&s->start_lock);
	s->nr_started++;
	pthread_cond_signal(&s->start_cond);
	fdio_mutex_unlock(&s->start_lock);
}

/*
 * The kernel ends a ring in the background, after commands that still wait on it, and its file table with it: the device
 * would be in use, and locked, for a moment after the process has ended.
 */
static void forget_files(struct loop *l)
{
	for (unsigned i = 0; i < l->set->cfg.nr_fixed_files; i++)
		loop_register_file(l, i, -1);
}

/* LOOP-2. NOP does nothing: tests of the wake-up and of refused registrations use it. */
static const uint8_t ops_needed[] = { IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READ_FIXED, IORING_OP_WRITE_FIXED, IORING_OP_URING_CMD,
				      IORING_OP_NOP };
static const uint8_t regs_needed[] = { IORING_REGISTER_FILES_UPDATE, IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS };
static const struct loop_limits limits = {
	.ops = ops_needed, .nr_ops = ARRAY_SIZE(ops_needed), .regs = regs_needed, .nr_regs = ARRAY_SIZE(regs_needed),
	.flags_allowed = IOSQE_FIXED_FILE | IOSQE_ASYNC, .flags_required = IOSQE_FIXED_FILE,
};

static void *loop_main(void *arg)
{
	struct loop *l = arg;
	fdio_magic_check(l, MAGIC_LOOP);
	self = l;
	loop_place_start(l);
	int err = loop_ring_enable(&l->ring, &limits); /* LOOP-2 */
	FDIO_MUST(err == 0); /* the ring was made, so its limits are known to the kernel */
	/* Spares each entry the look-up of the ring's file; without it all works the same. */
	if (io_uring_register_ring_fd(&l->ring) < 0)
		log_debug("loop %u: the ring's descriptor is not registered", l->index);
	l->efd_op.complete = eventfd_done;
	arm_eventfd(l);
	note_started(l->set);
	while (!l->stop) {
		submit_and_wait(l);
		loop_place_note(l, reap(l));
	}
	io_uring_submit(&l->ring); /* the last reply may be among it */
	forget_files(l);
	io_uring_unregister_ring_fd(&l->ring);
	self = NULL;
	return NULL;
}

int loop_set_start(struct loop_set *s)
{
	unsigned made = 0;
	int err = 0;

	s->nr_started = 0;
	for (; made < s->nr && !err; made += !err) {
		char name[16];

		snprintf(name, sizeof(name), "fusedio-%u", s->loops[made].index);
		s->loops[made].stop = false;
		err = thread_start(&s->loops[made].thread, name, loop_main, &s->loops[made]);
		s->loops[made].thread_on = !err;
	}
	fdio_mutex_lock(&s->start_lock);
	while (s->nr_started < made)
		fdio_cond_wait(&s->start_cond, &s->start_lock);
	fdio_mutex_unlock(&s->start_lock);
	if (err)
		loop_set_stop(s);
	return err;
}

static void stop_fn(struct loop_msg *m) { container_of(m, struct loop, stop_msg)->stop = true; }

void loop_set_stop(struct loop_set *s)
{
	for (unsigned i = 0; i < s->nr; i++)
		if (s->loops[i].thread_on)
			loop_post(&s->loops[i], &s->loops[i].stop_msg, stop_fn);
	for (unsigned i = 0; i < s->nr; i++)
		if (s->loops[i].thread_on) {
			pthread_join(s->loops[i].thread, NULL);
			s->loops[i].thread_on = false;
		}
}
