/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of tr_readers.c: which loops read /dev/fuse, without a kernel. The last one has threads for loops, and a shared count of
 * requests for /dev/fuse: it hangs until check's timeout if all loops are parked while there is something to read.
 */
#include "transport/tr_readers.h"

#include <check.h>
#include <pthread.h>
#include <string.h>

#define LOOPS 4u
#define MANY 8u
#define BIG 64u

static struct tr_readers s;
static unsigned recruits[BIG]; /* not resumed yet */

static void on_recruit(void *arg, unsigned i)
{
	ck_assert_ptr_null(arg);
	ck_assert_uint_eq(recruits[i], 0); /* R2 */
	recruits[i]++;
}

static void begin(unsigned nr)
{
	memset(recruits, 0, sizeof(recruits));
	ck_assert_int_eq(tr_readers_init(&s, nr, on_recruit, NULL), 0);
}

/* Loop i is woken n times, each bringing so many. The last answer. */
static bool wake(unsigned i, unsigned n, unsigned taken)
{
	bool go = true;

	while (n-- && go)
		go = tr_readers_taken(&s, i, taken);
	ck_assert(go == tr_readers_may_arm(&s, i));
	return go;
}

static unsigned nr_recruits(void)
{
	unsigned n = 0;

	for (unsigned i = 0; i < BIG; i++)
		n += recruits[i];
	return n;
}

START_TEST(few_requests_leave_all_reading)
{
	begin(LOOPS);
	for (unsigned k = 0; k < 1000; k++)
		ck_assert(wake(k % LOOPS, 1, k % 6));
	ck_assert_uint_eq(nr_recruits(), 0);
	tr_readers_fini(&s);
}
END_TEST

START_TEST(many_requests_leave_it_to_one)
{
	begin(LOOPS);
	ck_assert(wake(1, MANY, 10));
	ck_assert(!wake(0, 1, 10));
	ck_assert(!wake(2, 1, 0));
	ck_assert(!wake(3, 1, 31));
	/* The leader goes on, and nobody is asked for help while it keeps up. */
	ck_assert(wake(1, 1000, 31));
	ck_assert_uint_eq(nr_recruits(), 0);
	tr_readers_fini(&s);
}
END_TEST

START_TEST(the_end_of_many_brings_all_back)
{
	begin(LOOPS);
	wake(1, MANY, 10);
	wake(0, 1, 1);
	wake(3, 1, 1);
	ck_assert(wake(1, 31, 1)); /* a pause is not the end */
	ck_assert_uint_eq(nr_recruits(), 0);
	ck_assert(wake(1, 1, 1));
	ck_assert_uint_eq(nr_recruits(), 2);
	ck_assert(!tr_readers_may_arm(&s, 0)); /* until it is resumed */
	for (unsigned i = 0; i < LOOPS; i += 3) {
		recruits[i] = 0;
		tr_readers_resume(&s, i);
		ck_assert(wake(i, 100, 5));
	}
	/* Another one may lead the next time. */
	ck_assert(wake(3, MANY, 10));
	ck_assert(!wake(1, 1, 10));
	tr_readers_fini(&s);
}
END_TEST

START_TEST(a_leader_with_full_batches_gets_help)
{
	begin(LOOPS);
	wake(0, MANY, 10);
	wake(1, 1, 1);
	wake(2, 1, 1);
	ck_assert(wake(0, MANY, TR_TAKE_BATCH));
	ck_assert_uint_eq(recruits[1], 1);
	ck_assert_uint_eq(nr_recruits(), 1);
	recruits[1] = 0;
	tr_readers_resume(&s, 1);
	ck_assert(wake(1, 100, TR_TAKE_BATCH)); /* of use */
	ck_assert(!wake(1, 1, TR_TAKE_BATCH - 1));
	tr_readers_fini(&s);
}
END_TEST

START_TEST(a_leader_without_slots_gets_help)
{
	begin(LOOPS);
	wake(0, MANY, 10);
	wake(1, 1, 1);
	wake(2, 1, 1);
	tr_readers_starve(&s, 0);
	ck_assert(tr_readers_starved(&s, 0));
	tr_readers_help(&s, 0);
	ck_assert_uint_eq(nr_recruits(), 1);
	/* Nobody leaves while that lasts. */
	recruits[1] = 0;
	tr_readers_resume(&s, 1);
	ck_assert(wake(1, 100, 0));
	ck_assert(wake(3, 100, 0));
	tr_readers_fed(&s, 0);
	ck_assert(!wake(3, 1, 0));
	ck_assert(!wake(1, 1, 0));
	tr_readers_fini(&s);
}
END_TEST

START_TEST(one_loop_always_reads)
{
	begin(1);
	ck_assert(wake(0, 100, TR_TAKE_BATCH));
	ck_assert(wake(0, 100, 0));
	tr_readers_help(&s, 0);
	ck_assert_uint_eq(nr_recruits(), 0);
	tr_readers_fini(&s);
}
END_TEST

START_TEST(sixty_four_loops)
{
	begin(64);
	wake(63, MANY, 10);
	for (unsigned i = 0; i < 63; i++)
		ck_assert(!wake(i, 1, 3));
	ck_assert(wake(63, 10 * MANY, TR_TAKE_BATCH));
	ck_assert_uint_eq(nr_recruits(), 10);
	ck_assert(wake(63, 32, 0));
	ck_assert_uint_eq(nr_recruits(), 63);
	tr_readers_fini(&s);
}
END_TEST

/* ---- with threads ---- */

#define ROUNDS 60000

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int queued;                /* requests that wait in "/dev/fuse" */
	bool resume[LOOPS];
	bool over;
} dev;

static void post_recruit(void *arg, unsigned i)
{
	(void)arg;
	pthread_mutex_lock(&dev.lock);
	ck_assert(!dev.resume[i]); /* R2 */
	dev.resume[i] = true;
	pthread_cond_broadcast(&dev.changed);
	pthread_mutex_unlock(&dev.lock);
}

static unsigned take_some(void)
{
	unsigned n = 0;

	while (dev.queued && n < TR_TAKE_BATCH) {
		dev.queued--;
		n++;
	}
	pthread_cond_broadcast(&dev.changed);
	return n;
}

/* As a loop does: waits for a message or, if it reads, for requests. Now and then its slots run out. */
static void *loop_thread(void *arg)
{
	unsigned i = (unsigned)(uintptr_t)arg, wakings = 0;
	bool reads = true;

	for (;;) {
		unsigned taken;

		pthread_mutex_lock(&dev.lock);
		while (!dev.over && !dev.resume[i] && !(reads && dev.queued))
			pthread_cond_wait(&dev.changed, &dev.lock);
		bool resume = dev.resume[i], over = dev.over;
		dev.resume[i] = false;
		pthread_mutex_unlock(&dev.lock);
		if (over)
			return NULL;
		if (resume)
			tr_readers_resume(&s, i);
		else if (!reads)
			continue;
		pthread_mutex_lock(&dev.lock);
		taken = take_some();
		pthread_mutex_unlock(&dev.lock);
		reads = tr_readers_taken(&s, i, taken);
		if (reads && ++wakings % 13 == 0) {
			tr_readers_starve(&s, i);
			tr_readers_help(&s, i);
			tr_readers_fed(&s, i);
		}
	}
}

START_TEST(no_request_is_left)
{
	pthread_t threads[LOOPS];

	memset(&dev, 0, sizeof(dev));
	pthread_mutex_init(&dev.lock, NULL);
	pthread_cond_init(&dev.changed, NULL);
	ck_assert_int_eq(tr_readers_init(&s, LOOPS, post_recruit, NULL), 0);
	for (uintptr_t i = 0; i < LOOPS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, loop_thread, (void *)i), 0);
	/* Single requests and bursts in turns, each waited for: modes change all the time. */
	for (unsigned k = 0; k < ROUNDS; k += 20) {
		pthread_mutex_lock(&dev.lock);
		dev.queued += k / 2000 % 2 ? 1 : 40;
		pthread_cond_broadcast(&dev.changed);
		while (dev.queued)
			pthread_cond_wait(&dev.changed, &dev.lock);
		pthread_mutex_unlock(&dev.lock);
	}
	pthread_mutex_lock(&dev.lock);
	dev.over = true;
	pthread_cond_broadcast(&dev.changed);
	pthread_mutex_unlock(&dev.lock);
	for (unsigned i = 0; i < LOOPS; i++)
		pthread_join(threads[i], NULL);
	tr_readers_fini(&s);
}
END_TEST

int main(void)
{
	Suite *su = suite_create("tr_readers");
	TCase *tc = tcase_create("tr_readers");

	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, few_requests_leave_all_reading);
	tcase_add_test(tc, many_requests_leave_it_to_one);
	tcase_add_test(tc, the_end_of_many_brings_all_back);
	tcase_add_test(tc, a_leader_with_full_batches_gets_help);
	tcase_add_test(tc, a_leader_without_slots_gets_help);
	tcase_add_test(tc, one_loop_always_reads);
	tcase_add_test(tc, sixty_four_loops);
	tcase_add_test(tc, no_request_is_left);
	suite_add_tcase(su, tc);
	SRunner *r = srunner_create(su);
	srunner_run_all(r, CK_NORMAL);
	int failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed != 0;
}
