/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the life of a request in the direct-I/O engine: it is answered once, with the right
 * result, whatever fails, and nobody touches it after that. HACKING.md has the tags.
 *
 * The fake device completes requests inside submit, when the test says so, or on another thread,
 * and makes them fail. Case "threads" has workers.
 */
#include "kit/engine.h"
#include "dio/types.h"

#include <unistd.h>

/*
 * The submission holds a reference of its own, so a request is answered once, even if all its
 * pieces complete inside submit.
 */
START_TEST(one_answer_when_all_complete_inside_submit)
{
	for (unsigned n = 1; n <= 16; n += n < 4 ? 1 : 4) {
		struct engine *e = engine_new(NULL);
		struct test_request req;
		void *buf = buffer_new(16 * BLOCK);

		make_extents(e, n);
		uint64_t simple = counter(COUNTER_dio_read_simple),
			 multi = counter(COUNTER_dio_read_multi);
		engine_submit(e, e->file, &req, DIO_DIRECT, 0, buf, n * BLOCK);
		ck_assert_uint_eq(req.done, 1); /* inside submit */
		ck_assert_int_eq(req.res, n * BLOCK);
		ck_assert_uint_eq(counter(COUNTER_dio_read_simple) - simple, n == 1);
		ck_assert_uint_eq(counter(COUNTER_dio_read_multi) - multi, n != 1);
		expect_pattern(e, 0, 1, n * BLOCK);
		fill_pattern(buf, 2, 0, n * BLOCK);
		engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, 0, buf, n * BLOCK);
		ck_assert_uint_eq(req.done, 1);
		ck_assert_int_eq(req.res, n * BLOCK);
		expect_pattern(e, 0, 2, n * BLOCK);
		engine_pump(e);
		ck_assert_uint_eq(req.done, 1);
		free(buf);
		engine_close(e);
	}
}
END_TEST

/* A request on the heap. It is poisoned when it is answered, and must not change after that. */
struct checked_request {
	struct dio_req req;
	unsigned *left; /* atomic */
	ssize_t want;
	unsigned *wrong; /* atomic */
};

static struct checked_request *answered[512];
static unsigned nr_answered; /* atomic */

/* Finds writes to answered requests. A read follows a poisoned pointer, and crashes at once. */
static void check_answered(void)
{
	for (unsigned k = 0; k < nr_answered; k++) {
		ck_assert_msg(all_bytes(answered[k], 0xdd, sizeof(*answered[k])), "a request was "
										  "written "
										  "to after its "
										  "answer");
		free(answered[k]);
	}
	nr_answered = 0;
}

static void poison_answered(struct dio_req *req, ssize_t res)
{
	struct checked_request *checked = container_of(req, struct checked_request, req);
	unsigned *left = checked->left, at = __atomic_fetch_add(&nr_answered, 1, __ATOMIC_RELAXED);

	if (res != checked->want)
		__atomic_fetch_add(checked->wrong, 1, __ATOMIC_RELAXED);
	free(checked->req.buf);
	memset(checked, 0xdd, sizeof(*checked));
	ck_assert_uint_lt(at, ARRAY_SIZE(answered));
	answered[at] = checked;
	__atomic_fetch_sub(left, 1, __ATOMIC_RELEASE);
}

static void submit_checked(struct engine *e, unsigned flags, uint64_t pos, uint32_t len,
			   unsigned *left, unsigned *wrong)
{
	struct checked_request *req = malloc(sizeof(*req));

	*req = (struct checked_request){ .left = left, .wrong = wrong, .want = len };
	req->req = (struct dio_req){ .file = e->file,
				     .pos = pos,
				     .len = len,
				     .flags = flags,
				     .buf = buffer_new(len),
				     .buf_index = -1,
				     .done = poison_answered };
	fill_pattern(req->req.buf, 1, pos, len);
	__atomic_fetch_add(left, 1, __ATOMIC_RELAXED);
	dio_submit(e->dio, &req->req);
}

/* Nobody touches a request after its answer, with completions on another thread. */
START_TEST(nobody_touches_a_finished_request)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2, .segs = 4 });
	unsigned left = 0, wrong = 0;

	make_extents(e, 8);
	fake_set_mode(e->fake, FAKE_THREAD, 42);
	for (unsigned k = 0; k < 400; k++) {
		unsigned n = 1 + k % 8;
		submit_checked(e, DIO_DIRECT | (k % 3 ? 0 : DIO_WRITE), (k % (9 - n)) * BLOCK,
			       n * BLOCK, &left, &wrong);
		while (__atomic_load_n(&left, __ATOMIC_ACQUIRE) > 12)
			usleep(20);
	}
	while (__atomic_load_n(&left, __ATOMIC_ACQUIRE))
		usleep(50);
	ck_assert_uint_eq(wrong, 0);
	dio_drain(e->dio);
	check_answered();
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	expect_pattern(e, 0, 1, 8 * BLOCK);
	engine_close(e);
}
END_TEST

/*
 * There is one answer: at once if the error comes before the first piece, otherwise with the last
 * completion.
 */
START_TEST(one_answer_wherever_it_fails)
{
	struct engine *e = engine_new(NULL);
	void *buf = buffer_new(6 * BLOCK);
	struct test_request req;

	make_extents(e, 6);
	for (unsigned w = 0; w < 2; w++)
		for (unsigned k = 0; k <= 6; k++) {
			fill_pattern(buf, 1, 0, 6 * BLOCK);
			fake_fault_add(e->fake,
				       &(struct fake_fault){ .kinds = w ? FAKE_WRITE : FAKE_READ,
							     .skip = k,
							     .repeat = 1,
							     .async_only = true,
							     .action = FAKE_ERROR,
							     .err = -EIO });
			engine_submit(e, e->file, &req, DIO_DIRECT | (w ? DIO_WRITE : 0), 0, buf,
				      6 * BLOCK);
			ck_assert_int_eq(engine_wait(e, &req), k < 6 ? -EIO : (ssize_t)(6 * BLOCK));
			engine_pump(e);
			ck_assert_uint_eq(req.done, 1);
			fake_fault_clear(e->fake);
		}
	fake_stats_reset(e->fake);
	engine_submit(e, e->file, &req, DIO_DIRECT, 100, buf, 512);
	ck_assert_uint_eq(req.done, 1);
	ck_assert_int_eq(req.res, -EINVAL);
	ck_assert_uint_eq(fake_stats(e->fake).async, 0);
	expect_pattern(e, 0, 1, 6 * BLOCK);
	free(buf);
	engine_close(e);
}
END_TEST

static struct test_request *watched;
static unsigned least_refs;

static void watch_refs(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
		       bool after)
{
	uint32_t refs = __atomic_load_n(&dio_own(&watched->req)->refs, __ATOMIC_ACQUIRE);

	if (!after && refs < least_refs)
		least_refs = refs;
}

/* A single piece is not counted; of several, the count is there before the first one completes. */
START_TEST(counted_only_from_the_second_piece_on)
{
	struct engine *e = engine_new(NULL);
	void *buf = buffer_new(4 * BLOCK);
	struct test_request req;

	make_extents(e, 4);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, DIO_DIRECT, 0, buf, BLOCK);
	ck_assert_uint_eq(dio_own(&req.req)->refs, 0);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	ck_assert_ptr_eq(fake_held_io(e->fake, 0), &dio_own(&req.req)->io); /* the embedded one */
	fake_complete(e->fake, 0);
	ck_assert_int_eq(req.res, BLOCK);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	watched = &req;
	least_refs = 99;
	fake_set_hook(e->fake, watch_refs, NULL);
	engine_submit(e, e->file, &req, DIO_DIRECT, 0, buf, 4 * BLOCK);
	fake_set_hook(e->fake, NULL, NULL);
	ck_assert_int_eq(req.res, 4 * BLOCK);
	/* Each piece completed inside its submit, while the submission held its own reference. */
	ck_assert_uint_eq(least_refs, 2);
	free(buf);
	engine_close(e);
}
END_TEST

/* The engine does not touch a request after it has submitted it to the device. */
START_TEST(submit_is_the_last_touch)
{
	struct engine *e = engine_new(NULL);
	unsigned left = 0, wrong = 0;

	make_extents(e, 4);
	for (unsigned k = 0; k < 4; k++) {
		submit_checked(e, DIO_DIRECT, k * BLOCK, BLOCK, &left, &wrong);
		submit_checked(e, DIO_DIRECT | DIO_WRITE, k * BLOCK, BLOCK, &left, &wrong);
		ck_assert_uint_eq(left, 0);
	}
	submit_checked(e, DIO_DIRECT, 0, 4 * BLOCK, &left, &wrong);
	ck_assert_uint_eq(left, 0);
	ck_assert_uint_eq(wrong, 0);
	check_answered();
	engine_close(e);
}
END_TEST

/*
 * One of four pieces fails: the result is its error in every order of completion. If several fail,
 * it is the first error. A failed extension does not change the size.
 */
START_TEST(first_error_in_every_order)
{
	static const uint8_t orders[24][4] = {
		{ 0, 1, 2, 3 }, { 0, 1, 3, 2 }, { 0, 2, 1, 3 }, { 0, 2, 3, 1 }, { 0, 3, 1, 2 },
		{ 0, 3, 2, 1 }, { 1, 0, 2, 3 }, { 1, 0, 3, 2 }, { 1, 2, 0, 3 }, { 1, 2, 3, 0 },
		{ 1, 3, 0, 2 }, { 1, 3, 2, 0 }, { 2, 0, 1, 3 }, { 2, 0, 3, 1 }, { 2, 1, 0, 3 },
		{ 2, 1, 3, 0 }, { 2, 3, 0, 1 }, { 2, 3, 1, 0 }, { 3, 0, 1, 2 }, { 3, 0, 2, 1 },
		{ 3, 1, 0, 2 }, { 3, 1, 2, 0 }, { 3, 2, 0, 1 }, { 3, 2, 1, 0 },
	};
	struct engine *e = engine_new(NULL);
	void *buf = buffer_new(4 * BLOCK);
	struct test_request req;

	make_extents(e, 4);
	fill_pattern(buf, 1, 0, 4 * BLOCK);
	for (unsigned bad = 0; bad < 4; bad++)
		for (unsigned o = 0; o < 48; o++) {
			struct dev_io *p[4];
			fake_set_mode(e->fake, FAKE_HELD, 0);
			fake_fault_add(e->fake,
				       &(struct fake_fault){ .kinds = FAKE_READ | FAKE_WRITE,
							     .off = device_offset(e, bad * BLOCK),
							     .len = 1,
							     .action = FAKE_ERROR,
							     .err = -EIO });
			engine_submit(e, e->file, &req, DIO_DIRECT | (o >= 24 ? DIO_WRITE : 0), 0,
				      buf, 4 * BLOCK);
			ck_assert_uint_eq(fake_held(e->fake), 4);
			for (unsigned k = 0; k < 4; k++)
				p[k] = fake_held_io(e->fake, k);
			for (unsigned k = 0; k < 4; k++) {
				unsigned at = 0;
				ck_assert(!request_is_done(&req));
				while (fake_held_io(e->fake, at) != p[orders[o % 24][k]])
					at++;
				fake_complete(e->fake, at);
			}
			ck_assert_int_eq(engine_wait(e, &req), -EIO);
			fake_fault_clear(e->fake);
			fill_pattern(buf, 1, 0, 4 * BLOCK);
		}
	/* Two pieces fail with different errors. */
	for (unsigned o = 0; o < 2; o++) {
		static const int errs[] = { -EIO, -ENOMEM };
		fake_set_mode(e->fake, FAKE_HELD, 0);
		for (unsigned k = 0; k < 2; k++)
			fake_fault_add(e->fake,
				       &(struct fake_fault){
						       .kinds = FAKE_READ,
						       .off = device_offset(e, (1 + k) * BLOCK),
						       .len = 1,
						       .action = FAKE_ERROR,
						       .err = errs[k] });
		engine_submit(e, e->file, &req, DIO_DIRECT, 0, buf, 4 * BLOCK);
		fake_complete(e->fake, 1 + o);
		fake_complete(e->fake, 1);
		fake_complete_all(e->fake);
		ck_assert_int_eq(engine_wait(e, &req), errs[o]);
		fake_fault_clear(e->fake);
	}
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .sync_only = true,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 4 * BLOCK, buf, 4 * BLOCK), -EIO);
	fake_fault_clear(e->fake);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 4 * BLOCK);
	expect_pattern(e, 0, 1, 4 * BLOCK);
	free(buf);
	engine_close(e);
}
END_TEST

/* After an error no further piece is submitted; blocks of a failed write show no stale data. */
START_TEST(nothing_is_sent_after_an_error)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint8_t *buf = buffer_new(16 * BLOCK);

	make_extents(e, 6);
	fake_stats_reset(e->fake);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .repeat = 1,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 0, buf, 6 * BLOCK), -EIO);
	ck_assert_uint_eq(fake_stats(e->fake).writes, 1);
	fake_fault_clear(e->fake);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .sync_only = true,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 8 * BLOCK, buf, 2 * BLOCK), -EIO);
	fake_fault_clear(e->fake);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 6 * BLOCK);
	write_pattern(e, DIO_DIRECT, 12 * BLOCK, 1, BLOCK);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 6 * BLOCK, buf, 6 * BLOCK), 6 * BLOCK);
	ck_assert(all_bytes(buf, 0, 6 * BLOCK));
	free(buf);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: requests");
	TCase *t = unit_case(s, "alone", 60);
	TCase *threads = unit_case(s, "threads", 60);

	engine_use_template(t);
	engine_use_template(threads);
	unit_test(t, one_answer_when_all_complete_inside_submit, PROVES("ENGINE-2 DIO-1"));
	unit_test(threads, nobody_touches_a_finished_request, PROVES("DIO-1"));
	unit_test(t, one_answer_wherever_it_fails, PROVES("ENGINE-2 DIO-1"));
	unit_test(t, counted_only_from_the_second_piece_on, PROVES("ENGINE-2 DIO-2"));
	unit_test(t, submit_is_the_last_touch, PROVES("ENGINE-1"));
	unit_test(t, first_error_in_every_order, PROVES("ENGINE-2"));
	unit_test(t, nothing_is_sent_after_an_error, PROVES("ENGINE-4"));
	return s;
}
