/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of what threads share in the base room: work queues, epochs under load, counters, and
 * mutexes with a rank. The check of the ranks is in the debug build only.
 */
#include "base/counters.h"
#include "base/epoch.h"
#include "base/lock.h"
#include "base/work.h"
#include "kit/runner.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

struct job {
	struct work work;
	struct work_queue *queue;
	unsigned *sum; /* atomic: how often jobs have run */
	int again;     /* queues itself so often once more */
};

static void job_fn(struct work *work)
{
	struct job *job = container_of(work, struct job, work);

	__atomic_add_fetch(job->sum, 1, __ATOMIC_RELAXED);
	if (job->again-- > 0)
		work_queue_add(job->queue, &job->work, job_fn);
}

START_TEST(wq_runs_everything_once)
{
	enum { N = 1000 };
	static struct job jobs[N];
	unsigned sum = 0;
	struct work_queue *queue = work_queue_new("test", 3);

	ck_assert_ptr_nonnull(queue);
	for (int i = 0; i < N; i++) {
		jobs[i] = (struct job){ .queue = queue, .sum = &sum, .again = i % 3 };
		work_queue_add(queue, &jobs[i].work, job_fn);
	}
	work_queue_drain(queue);
	/* Job i queues itself i % 3 more times: 3 for every three jobs, 0 for the last one. */
	ck_assert_uint_eq(sum, N + 333 * 3);
	work_queue_free(queue);
}
END_TEST

/*
 * Replaces the function of the C library. If slow_signal is set, the caller stays in it for 50 ms
 * after it has woken a thread.
 */
static unsigned slow_signal, signal_returned;

int pthread_cond_signal(pthread_cond_t *c)
{
	int err = pthread_cond_broadcast(c);

	if (__atomic_load_n(&slow_signal, __ATOMIC_SEQ_CST)) {
		nanosleep(&(struct timespec){ .tv_nsec = 50 * 1000 * 1000 }, NULL);
		__atomic_store_n(&signal_returned, 1, __ATOMIC_SEQ_CST);
	}
	return err;
}

struct late {
	struct work work;
	struct work_queue *queue;
	unsigned done; /* atomic */
};

static void late_fn(struct work *work)
{
	__atomic_store_n(&container_of(work, struct late, work)->done, 1, __ATOMIC_SEQ_CST);
}

static void *late_queue(void *arg)
{
	struct late *late = arg;

	work_queue_add(late->queue, &late->work, late_fn);
	return NULL;
}

/*
 * An item has run, but the thread that queued it is still inside work_queue_add: work_queue_free
 * waits until that thread has left the queue.
 */
START_TEST(wq_free_waits_for_the_waking_thread)
{
	struct late late = { .queue = work_queue_new("late", 1) };
	pthread_t t;

	/* The worker falls asleep meanwhile, so that work_queue_add has to wake it. */
	nanosleep(&(struct timespec){ .tv_nsec = 20 * 1000 * 1000 }, NULL);
	__atomic_store_n(&slow_signal, 1, __ATOMIC_SEQ_CST);
	ck_assert_int_eq(pthread_create(&t, NULL, late_queue, &late), 0);
	while (!__atomic_load_n(&late.done, __ATOMIC_SEQ_CST))
		sched_yield();
	work_queue_free(late.queue);
	ck_assert_uint_eq(__atomic_load_n(&signal_returned, __ATOMIC_SEQ_CST), 1);
	pthread_join(t, NULL);
}
END_TEST

START_TEST(wq_manual_runs_in_order_and_only_when_told)
{
	unsigned sum = 0;
	struct work_queue *queue = work_queue_new("manual", 0);
	struct job a = { .queue = queue, .sum = &sum }, b = { .queue = queue, .sum = &sum };

	work_queue_add(queue, &a.work, job_fn);
	work_queue_add(queue, &b.work, job_fn);
	ck_assert_uint_eq(sum, 0);
	ck_assert(work_queue_run_one(queue));
	ck_assert_uint_eq(sum, 1);
	ck_assert(work_queue_run_one(queue));
	ck_assert(!work_queue_run_one(queue));
	ck_assert_uint_eq(sum, 2);
	work_queue_free(queue);
}
END_TEST

/*
 * Epochs: readers dereference an object that a writer replaces again and again. Freeing an object
 * changes its magic, so that a reader notices a use after that.
 */
#define LIVE 0x600DF00Du
struct thing {
	struct epoch_node node;
	uint32_t magic;
};
static struct thing *published;
static bool readers_stop;
static unsigned nr_freed;

static void thing_free(struct epoch_node *node)
{
	struct thing *thing = container_of(node, struct thing, node);

	__atomic_store_n(&thing->magic, 0xDEADu, __ATOMIC_RELAXED);
	__atomic_add_fetch(&nr_freed, 1, __ATOMIC_RELAXED);
	free(thing);
}

static void *reader(void *arg)
{
	unsigned long bad = 0;

	(void)arg;
	while (!__atomic_load_n(&readers_stop, __ATOMIC_RELAXED)) {
		epoch_enter();
		struct thing *thing = __atomic_load_n(&published, __ATOMIC_ACQUIRE);
		for (int i = 0; i < 20; i++)
			bad += __atomic_load_n(&thing->magic, __ATOMIC_RELAXED) != LIVE;
		epoch_exit();
	}
	return (void *)bad;
}

static struct thing *thing_new(void)
{
	struct thing *thing = calloc(1, sizeof(*thing));

	ck_assert_ptr_nonnull(thing);
	thing->magic = LIVE;
	return thing;
}

START_TEST(epoch_never_frees_under_a_reader)
{
	enum { ROUNDS = 20000 };
	pthread_t th[3];
	void *bad;

	readers_stop = false;
	nr_freed = 0;
	published = thing_new();
	for (int i = 0; i < 3; i++)
		ck_assert_int_eq(pthread_create(&th[i], NULL, reader, NULL), 0);
	for (int i = 0; i < ROUNDS; i++) {
		struct thing *old = __atomic_exchange_n(&published, thing_new(), __ATOMIC_SEQ_CST);
		epoch_retire(&old->node, thing_free);
	}
	__atomic_store_n(&readers_stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 3; i++) {
		pthread_join(th[i], &bad);
		ck_assert_uint_eq((unsigned long)bad, 0);
	}
	epoch_drain();
	ck_assert_uint_eq(nr_freed, ROUNDS);
	free(published);
}
END_TEST

static pthread_barrier_t entered, may_leave;

static void *hold_bracket(void *arg)
{
	(void)arg;
	epoch_enter();
	pthread_barrier_wait(&entered);
	pthread_barrier_wait(&may_leave);
	epoch_exit();
	return NULL;
}

START_TEST(epoch_waits_for_an_open_bracket)
{
	struct thing *thing = thing_new();
	pthread_t th;

	nr_freed = 0;
	pthread_barrier_init(&entered, NULL, 2);
	pthread_barrier_init(&may_leave, NULL, 2);
	ck_assert_int_eq(pthread_create(&th, NULL, hold_bracket, NULL), 0);
	pthread_barrier_wait(&entered);
	epoch_retire(&thing->node, thing_free);
	epoch_drain();
	ck_assert_uint_eq(nr_freed, 0); /* the other thread is still inside epoch_enter */
	pthread_barrier_wait(&may_leave);
	pthread_join(th, NULL);
	epoch_drain();
	ck_assert_uint_eq(nr_freed, 1);
}
END_TEST

static void *count_thread(void *arg)
{
	(void)arg;
	for (int i = 0; i < 1000; i++)
		fdio_count(COUNTER_dio_fua);
	return NULL;
}

START_TEST(counters_survive_their_threads)
{
	pthread_t th[4];
	uint64_t before = fdio_counter_read(COUNTER_dio_fua);

	for (int i = 0; i < 4; i++)
		ck_assert_int_eq(pthread_create(&th[i], NULL, count_thread, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(th[i], NULL);
	fdio_count_add(COUNTER_dio_fua, 5);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_dio_fua) - before, 4005);
	ck_assert_str_eq(fdio_counter_name(COUNTER_dio_fua), "dio_fua");
}
END_TEST

START_TEST(cond_times_out)
{
	struct fdio_mutex mutex;
	pthread_cond_t c;

	fdio_mutex_init(&mutex, RANK_LEAF);
	fdio_cond_init(&c);
	fdio_mutex_lock(&mutex);
	ck_assert(!fdio_cond_timedwait(&c, &mutex, fdio_now_ns() + 1000000));
	fdio_mutex_unlock(&mutex);
	ck_assert(fdio_mutex_trylock(&mutex));
	fdio_mutex_unlock(&mutex);
	pthread_cond_destroy(&c);
	fdio_mutex_fini(&mutex);
}
END_TEST

#ifdef FDIO_DEBUG_LOCKS
START_TEST(lock_order_is_enforced)
{
	struct fdio_mutex outer, inner;

	fdio_mutex_init(&outer, RANK_EXT4_ALLOC);
	fdio_mutex_init(&inner, RANK_LEAF);
	fdio_mutex_lock(&inner);
	fdio_mutex_lock(&outer); /* upwards: aborts */
}
END_TEST
#endif

Suite *unit_suite(void)
{
	Suite *s = suite_create("base: threads");
	TCase *t = unit_case(s, "threads", 60);

	unit_test(t, wq_runs_everything_once);
	unit_test(t, wq_free_waits_for_the_waking_thread);
	unit_test(t, wq_manual_runs_in_order_and_only_when_told);
	unit_test(t, epoch_never_frees_under_a_reader);
	unit_test(t, epoch_waits_for_an_open_bracket);
	unit_test(t, counters_survive_their_threads);
	unit_test(t, cond_times_out);
#ifdef FDIO_DEBUG_LOCKS
	tcase_add_test_raise_signal(t, lock_order_is_enforced, SIGABRT);
#endif
	return s;
}
