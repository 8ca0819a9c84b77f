/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the base room: crc32c against published values, lists, work queues, epochs under
 * load, counters, log levels and ranked locks (the rank check itself only in builds that have it).
 */
#include "base/bytes.h"
#include "base/counters.h"
#include "base/crc32c.h"
#include "base/epoch.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/magic.h"
#include "base/work.h"
#include "kit/runner.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* RFC 3720 appendix B.4 gives inverted sums; ext4 does not invert. */
static uint32_t rfc3720(const void *buf, size_t len) { return ~fdio_crc32c(~0u, buf, len); }

START_TEST(crc32c_known_answers)
{
	uint8_t b[32];

	memset(b, 0, sizeof(b));
	ck_assert_uint_eq(rfc3720(b, 32), 0x8A9136AAu);
	memset(b, 0xff, sizeof(b));
	ck_assert_uint_eq(rfc3720(b, 32), 0x62A8AB43u);
	for (int i = 0; i < 32; i++)
		b[i] = i;
	ck_assert_uint_eq(rfc3720(b, 32), 0x46DD794Eu);
	ck_assert_uint_eq(rfc3720("123456789", 9), 0xE3069283u);
}
END_TEST

START_TEST(crc32c_table_equals_instruction)
{
	uint8_t b[300];

	for (size_t i = 0; i < sizeof(b); i++)
		b[i] = (uint8_t)(i * 131 + 7);
	for (size_t off = 0; off < 9; off++)
		for (size_t len = 0; len < sizeof(b) - 9; len += 3)
			ck_assert_uint_eq(fdio_crc32c(off * 77, b + off, len),
					  fdio_crc32c_table(off * 77, b + off, len));
}
END_TEST

START_TEST(crc32c_is_incremental)
{
	const char *s = "the quick brown fox jumps over the lazy dog";
	uint32_t whole = fdio_crc32c(1, s, strlen(s));

	for (size_t cut = 0; cut <= strlen(s); cut++)
		ck_assert_uint_eq(fdio_crc32c(fdio_crc32c(1, s, cut), s + cut, strlen(s) - cut),
				  whole);
}
END_TEST

struct node { struct list l; int v; };

START_TEST(fields_have_their_byte_order)
{
	static const uint8_t want[] = {
		0, 2, 1, 4, 3, 2, 1, 8, 7, 6, 5, 4, 3, 2, 1,
		1, 2, 1, 2, 3, 4, 1, 2, 3, 4, 5, 6, 7, 8,
	};
	uint8_t got[sizeof(want)] = { 0 };

	fdio_put_le16(got, 1, 0x0102);
	fdio_put_le32(got, 3, 0x01020304);
	fdio_put_le64(got, 7, 0x0102030405060708);
	fdio_put_be16(got, 15, 0x0102);
	fdio_put_be32(got, 17, 0x01020304);
	fdio_put_be64(got, 21, 0x0102030405060708);
	ck_assert_mem_eq(got, want, sizeof(want));
	ck_assert_uint_eq(fdio_get_le16(got, 1), 0x0102);
	ck_assert_uint_eq(fdio_get_le32(got, 3), 0x01020304);
	ck_assert_uint_eq(fdio_get_le64(got, 7), 0x0102030405060708);
	ck_assert_uint_eq(fdio_get_be16(got, 15), 0x0102);
	ck_assert_uint_eq(fdio_get_be32(got, 17), 0x01020304);
	ck_assert_uint_eq(fdio_get_be64(got, 21), 0x0102030405060708);
}
END_TEST

START_TEST(list_keeps_order)
{
	struct list a = LIST_INIT(a), b = LIST_INIT(b);
	struct node n[6], *p, *tmp;
	int want = 0;

	for (int i = 0; i < 6; i++) {
		n[i].v = i;
		list_add_tail(i < 3 ? &a : &b, &n[i].l);
	}
	list_splice_tail(&a, &b);
	ck_assert(list_empty(&b));
	list_for_each_safe(p, tmp, &a, l) {
		ck_assert_int_eq(p->v, want++);
		if (p->v % 2)
			list_del(&p->l);
	}
	ck_assert_int_eq(want, 6);
	want = 0;
	list_for_each(p, &a, l) {
		ck_assert_int_eq(p->v, want);
		want += 2;
	}
	list_del(&n[1].l); /* a second unlink is harmless */
	list_move_tail(&a, &n[0].l);
	ck_assert_int_eq(list_first(&a, struct node, l)->v, 2);
	ck_assert_int_eq(list_last(&a, struct node, l)->v, 0);
}
END_TEST

struct job { struct work work; struct work_queue *queue; unsigned *sum; int again; };

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
	/* i % 3 requeues each: 0 + 1 + 2 for every three jobs, 0 for the last */
	ck_assert_uint_eq(sum, N + 333 * 3);
	work_queue_free(queue);
}
END_TEST

/*
 * Replaces the function of the C library: when slow_signal is set, the caller stays in it for a
 * while after it has woken a thread.
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

struct late { struct work work; struct work_queue *queue; unsigned done; };

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

/* The item has run, but the thread that queued it has not returned: the queue stays until then. */
START_TEST(wq_free_waits_for_the_waking_thread)
{
	struct late late = { .queue = work_queue_new("late", 1) };
	pthread_t t;

	/* Time for the worker to fall asleep, so that it has to be woken. */
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
 * Epochs: readers dereference an object that a writer replaces again and again. Objects are
 * poisoned when they are freed, so that a use after that is noticed.
 */
#define LIVE 0x600DF00Du
struct thing { struct epoch_node node; uint32_t magic; };
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
	ck_assert_uint_eq(nr_freed, 0); /* the other thread may still look at it */
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

static char last_line[2048];
static int last_level;
static void sink(int level, const char *line)
{
	last_level = level;
	snprintf(last_line, sizeof(last_line), "%s", line);
}

START_TEST(log_levels)
{
	fdio_log_set_sink(sink);
	fdio_log_set_level(FDIO_LOG_WARN);
	last_line[0] = 0;
	log_info("not this");
	ck_assert_str_eq(last_line, "");
	log_warn("n=%d", 7);
	ck_assert_str_eq(last_line, "n=7");
	ck_assert_int_eq(last_level, FDIO_LOG_WARN);
	fdio_log_set_sink(NULL);
	fdio_log_set_level(FDIO_LOG_INFO);
}
END_TEST

/* What names and labels may contain, and how it is shown. */
static const struct { const char *raw, *shown;
} escapes[] = {
	{ "", "" },
	{ "plain, with blanks: 100% \\ \"x\"", "plain, with blanks: 100% \\ \"x\"" },
	{ "two\nlines\r", "two\\x0alines\\x0d" },
	{ "\033[2Jtab\t\177", "\\x1b[2Jtab\\x09\\x7f" },
	{ "na\303\257ve \346\227\245\346\234\254 \360\237\230\200", "na\303\257ve "
								    "\346\227\245\346\234\254 "
								    "\360\237\230\200" },
	{ "\302\233"
	  "31m",
	  "\\xc2\\x9b31m" }, /* CSI, as one character */
	{ "\233"
	  "31m",
	  "\\x9b31m" }, /* as one byte */
	{ "a\342\200\256b", "a\\xe2\\x80\\xaeb" }, /* from right to left */
	{ "a\342\200\250b", "a\\xe2\\x80\\xa8b" }, /* another end of a line */
	{ "\300\212", "\\xc0\\x8a" }, /* a line feed, written too long */
	{ "\355\240\200", "\\xed\\xa0\\x80" }, /* half of a pair */
	{ "\364\220\200\200", "\\xf4\\x90\\x80\\x80" }, /* beyond the last character */
	{ "cut \346\227", "cut \\xe6\\x97" },
};

START_TEST(log_escapes)
{
	char small[8];

	fdio_log_set_sink(sink);
	for (size_t i = 0; i < ARRAY_SIZE(escapes); i++) {
		log_warn("%s", escapes[i].raw);
		ck_assert_str_eq(last_line, escapes[i].shown);
	}
	fdio_log_set_sink(NULL);
	/* Neither a character nor an escape is cut in the middle. */
	ck_assert_uint_eq(fdio_escape(small, sizeof(small), "abcdef\303\257"), 6);
	ck_assert_str_eq(small, "abcdef");
	ck_assert_uint_eq(fdio_escape(small, sizeof(small), "abcd\n"), 4);
	ck_assert_uint_eq(fdio_escape(small, sizeof(small), "abc\n"), 7);
	ck_assert_str_eq(small, "abc\\x0a");
}
END_TEST

/* A long line is cut to its limit even if all of it is escaped. */
START_TEST(log_line_is_bounded)
{
	char big[4000];

	memset(big, '\n', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	fdio_log_set_sink(sink);
	log_warn("%s", big);
	fdio_log_set_sink(NULL);
	ck_assert_str_eq(last_line + strlen(last_line) - 3, "x0a");
	ck_assert_ptr_eq(strchr(last_line, '\n'), NULL);
}
END_TEST

START_TEST(ratelimit_lets_ten_through)
{
	struct fdio_ratelimit limit = { 0, 0 };
	int ok = 0;

	for (int i = 0; i < 50; i++)
		ok += fdio_ratelimit_ok(&limit);
	/* 20 if a new window began in the middle of the loop */
	ck_assert(ok == 10 || ok == 20);
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

struct marked {
	int before;
	FDIO_MAGIC_FIELD;
	int after;
};

START_TEST(magic_knows_its_own)
{
	struct marked m = { .before = 1, .after = 2 };

	fdio_magic_set(&m, MAGIC_LOOP);
	fdio_magic_check(&m, MAGIC_LOOP);
	fdio_magic_clear(&m, MAGIC_LOOP);
	ck_assert_int_eq(m.before + m.after, 3);
}
END_TEST

#ifdef FDIO_DEBUG_LOCKS
START_TEST(magic_stops_at_what_has_ended)
{
	struct marked m = { .before = 1 };

	fdio_magic_set(&m, MAGIC_LOOP);
	fdio_magic_clear(&m, MAGIC_LOOP);
	fdio_magic_check(&m, MAGIC_LOOP); /* aborts */
}
END_TEST
#endif

Suite *unit_suite(void)
{
	Suite *s = suite_create("base");
	TCase *t = unit_case(s, "base", 60);

	unit_test(t, crc32c_known_answers);
	unit_test(t, crc32c_table_equals_instruction);
	unit_test(t, crc32c_is_incremental);
	unit_test(t, fields_have_their_byte_order);
	unit_test(t, list_keeps_order);
	unit_test(t, wq_runs_everything_once);
	unit_test(t, wq_free_waits_for_the_waking_thread);
	unit_test(t, wq_manual_runs_in_order_and_only_when_told);
	unit_test(t, epoch_never_frees_under_a_reader);
	unit_test(t, epoch_waits_for_an_open_bracket);
	unit_test(t, counters_survive_their_threads);
	unit_test(t, log_levels);
	unit_test(t, log_escapes);
	unit_test(t, log_line_is_bounded);
	unit_test(t, ratelimit_lets_ten_through);
	unit_test(t, cond_times_out);
	unit_test(t, magic_knows_its_own);
#ifdef FDIO_DEBUG_LOCKS
	tcase_add_test_raise_signal(t, lock_order_is_enforced, 6);
	tcase_add_test_raise_signal(t, magic_stops_at_what_has_ended, 6);
#endif
	return s;
}
