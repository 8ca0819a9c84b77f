/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the invalidation of the kernel's page cache by direct writes: it comes after the
 * data and the size and before the answer, with nothing held (ENGINE-7, DIO-3), only if pages may
 * be cached, and may wait for a read of the same range.
 *
 * The test plays the kernel in the engine's callback. All runs on its thread but in the case
 * "threads", which has a worker.
 */
#include "kit/engine.h"
#include "dio/pagecache.h"
#include "ext4/core/structs.h"
#include "ext4/ext4.h"

static struct {
	struct engine *e;
	struct test_request *req;
	unsigned calls;
	uint64_t size, off, len;
	uint8_t byte;
	struct work *work;
	void (*done)(struct work *);
} invalidation;

static void check_order_of_invalidation(void *arg, struct ext4_inode *inode, uint64_t off,
					uint64_t len, struct work *work,
					void (*done)(struct work *))
{
	uint8_t buf[512];

	invalidation.calls++;
	invalidation.off = off;
	invalidation.len = len;
	ck_assert(!request_is_done(invalidation.req)); /* before the answer */
	ck_assert_uint_eq(ext4_inode_size(inode), invalidation.size); /* after the size */
	fake_peek(invalidation.e->fake, buf, 512, device_offset(invalidation.e, off));
	ck_assert(all_bytes(buf, invalidation.byte, 512));              /* after the data */
	/* The request is no longer counted as in flight, and no lock is held. */
	ck_assert_int_eq(dio_gate_close(invalidation.e->dio, inode, DIO_GATE_ALL), 0);
	ext4_inode_lock_exclusive(inode);
	ext4_inode_unlock(inode);
	dio_gate_open(invalidation.e->dio, inode, DIO_GATE_ALL);
	done(work);
}

static void write_and_count_invalidations(struct engine *e, uint64_t pos, uint8_t byte,
					  uint64_t size_after, unsigned calls)
{
	struct test_request req;
	void *buf = buffer_new(2 * BLOCK);

	memset(buf, byte, 2 * BLOCK);
	invalidation.calls = 0;
	invalidation.e = e;
	invalidation.req = &req;
	invalidation.size = size_after;
	invalidation.byte = byte;
	engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, pos, buf, 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), 2 * BLOCK);
	ck_assert_uint_eq(invalidation.calls, calls);
	if (calls) {
		ck_assert_uint_eq(invalidation.off, pos);
		ck_assert_uint_eq(invalidation.len, 2 * BLOCK);
	}
	free(buf);
}

/*
 * A write goes to the device, changes extents and size, unlocks, invalidates pages, and answers, in
 * this order. It invalidates only if pages may be cached.
 */
START_TEST(order_of_invalidation)
{
	struct engine *e = engine_new(
			&(struct engine_options){ .inval = check_order_of_invalidation });
	void *buf = buffer_new(BLOCK);

	write_and_count_invalidations(e, 0, 1, 2 * BLOCK, 0);         /* nothing was ever cached */
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, buf, BLOCK), BLOCK);
	write_and_count_invalidations(e, 0, 2, 2 * BLOCK, 0);
	ck_assert_int_eq(engine_io(e, 0, 0, buf, BLOCK), BLOCK); /* a page cache read */
	write_and_count_invalidations(e, 0, 3, 2 * BLOCK, 1);         /* fast overwrite */
	write_and_count_invalidations(e, 2 * BLOCK, 4, 4 * BLOCK, 1);    /* extends */
	write_and_count_invalidations(e, 8 * BLOCK, 5, 10 * BLOCK, 1);
	write_and_count_invalidations(e, 6 * BLOCK, 6, 10 * BLOCK, 1);   /* hole inside */
	free(buf);
	engine_close(e);
}
END_TEST

struct invalidations {
	struct engine *e;
	unsigned calls, all;
	bool late, read_between;
};

static void count_invalidations(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
				struct work *work, void (*done)(struct work *))
{
	struct invalidations *invalidations = arg;
	uint8_t *buf = buffer_new(BLOCK);

	(void)inode;
	invalidations->calls++;
	if (!off && len == INT64_MAX) {
		invalidations->all++;
		if (invalidations->read_between)
			ck_assert_int_eq(engine_io(invalidations->e, 0, 0, buf, BLOCK), BLOCK);
		if (invalidations->late)
			dio_inval_late(work);
	}
	free(buf);
	done(work);
}

/*
 * After a while without use of the page cache one invalidation covers the whole file, and later
 * writes need none (how 0). That does not hold if the answer went before the invalidation (1), or
 * if somebody read through the page cache meanwhile (2).
 */
START_TEST(unused_page_cache_is_forgotten_once)
{
	for (unsigned how = 0; how < 3; how++) {
		struct invalidations invalidations = { .late = how == 1, .read_between = how == 2 };
		struct engine *e = engine_new(&(struct engine_options){
				.inval = count_invalidations, .inval_arg = &invalidations });

		invalidations.e = e;
		write_pattern(e, 0, 0, 1, BLOCK);
		for (unsigned k = 0; k < 40; k++)
			write_pattern(e, DIO_DIRECT, 0, k, BLOCK);
		ck_assert_uint_eq(invalidations.calls, how ? 40 : 33);
		ck_assert_uint_eq(invalidations.all, how == 0 ? 1 : how == 1 ? 8 : 1);
		write_pattern(e, 0, 0, 1, BLOCK); /* back in the page cache */
		write_pattern(e, DIO_DIRECT, 0, 2, BLOCK);
		ck_assert_uint_eq(invalidations.calls, how ? 41 : 34);
		engine_close(e);
	}
}
END_TEST

static void late_read_done(struct dio_req *req, ssize_t res)
{
	struct test_request *t = container_of(req, struct test_request, req);

	t->res = res;
	__atomic_fetch_add(&t->done, 1, __ATOMIC_RELEASE);
	invalidation.done(invalidation.work);
}

static struct test_request read_of_the_kernel;
static void invalidate_and_read(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
				struct work *work, void (*done)(struct work *))
{
	/*
	 * The kernel locks a page to read the same range, and the notification waits for that page.
	 */
	invalidation.calls++;
	invalidation.work = work;
	invalidation.done = done;
	memset(&read_of_the_kernel, 0, sizeof(read_of_the_kernel));
	read_of_the_kernel.req = (struct dio_req){ .file = invalidation.e->file,
					    .pos = off + 1,
					    .len = 100,
					    .buf = arg,
					    .buf_index = -1,
					    .done = late_read_done };
	dio_submit(invalidation.e->dio, &read_of_the_kernel.req);
}

/*
 * A notification may wait for a read of the same range: that is no deadlock, even with a single
 * worker, for an overwrite and for an extension.
 */
START_TEST(notification_may_wait_for_a_read)
{
	uint8_t page[128];
	struct engine *e = engine_new(&(struct engine_options){
			.threads = 1, .inval = invalidate_and_read, .inval_arg = page });
	struct test_request req;
	void *buf = buffer_new(2 * BLOCK);

	invalidation.e = e;
	write_pattern(e, 0, 0, 1, 2 * BLOCK);
	for (unsigned k = 0; k < 2; k++) {
		memset(buf, 'n' + k, 2 * BLOCK);
		invalidation.calls = 0;
		/* overwrite; then extension */
		engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, k * 4 * BLOCK, buf,
			      2 * BLOCK);
		ck_assert_int_eq(engine_wait(e, &req), 2 * BLOCK);
		ck_assert_uint_eq(invalidation.calls, 1);
		ck_assert_int_eq(read_of_the_kernel.res, 100);
		ck_assert(all_bytes(page, 'n' + k, 100)); /* the newest data */
	}
	free(buf);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: page cache");
	TCase *t = unit_case(s, "alone", 60);
	TCase *threads = unit_case(s, "threads", 60);

	engine_use_template(t);
	engine_use_template(threads);
	unit_test(t, order_of_invalidation, PROVES("ENGINE-7 DIO-3"));
	unit_test(t, unused_page_cache_is_forgotten_once);
	unit_test(threads, notification_may_wait_for_a_read, PROVES("ENGINE-7 DIO-3"));
	return s;
}
