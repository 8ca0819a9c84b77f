/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes of new blocks on the loop thread (dio/append_small.c): no worker, nothing of what the
 * blocks held before, and everything given back where it cannot be done without waiting. Everything
 * runs on the test's thread but where it says so.
 */
#include "base/nowait.h"
#include "kit/engine.h"
#include "ext4/data/map.h"
#include "ext4/ext4.h"

#include <pthread.h>

static void submit(struct engine *e, struct test_request *req, unsigned flags, uint64_t pos,
		   uint8_t *b, uint32_t len)
{
	memset(req, 0, sizeof(*req));
	engine_submit(e, e->file, req, DIO_NOATIME, 0, b,
		      0); /* the callback is the environment's */
	void (*done)(struct dio_req *, ssize_t) = req->req.done;
	memset(req, 0, sizeof(*req));
	req->req = (struct dio_req){ .file = e->file,
				     .pos = pos,
				     .len = len,
				     .flags = flags | DIO_WRITE,
				     .buf = b,
				     .buf_index = -1,
				     .buf_cap = fdio_round_up(len, BLOCK) + BLOCK,
				     .done = done };
	dio_submit(e->dio, &req->req);
}

static uint8_t *data(uint64_t pos, uint32_t len)
{
	uint8_t *b = buffer_new(fdio_round_up(len, BLOCK) + BLOCK);

	fill_pattern(b, 1, pos, len);
	return b;
}

static void grow(struct engine *e, unsigned flags, uint64_t pos, uint32_t len)
{
	uint8_t *b = data(pos, len);
	struct test_request req;

	submit(e, &req, flags, pos, b, len);
	ck_assert_int_eq(engine_wait(e, &req), len);
	free(b);
}

static uint64_t free_blocks(struct engine *e)
{
	struct ext4_statfs stats;

	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	ext4_vol_statfs(e->vol, &stats);
	return stats.bfree;
}

/* Sizes as tar writes them: from one multiple of 512 to the next. */
START_TEST(no_worker)
{
	static const uint32_t len[] = { 3584, 512, 8704, 10240, 700 };
	struct engine *e = engine_new(&(struct engine_options){ .stale = true, .relaxed = true });
	uint64_t slow = counter(COUNTER_dio_write_slow), grown = counter(COUNTER_dio_grow), pos = 0,
		 writes = fake_stats(e->fake).writes;
	uint8_t *r = buffer_new(16 * BLOCK);

	for (unsigned k = 0; k < ARRAY_SIZE(len); pos += len[k++])
		grow(e, DIO_KILLCAPS, pos, len[k]);
	ck_assert_uint_eq(counter(COUNTER_dio_write_slow), slow);
	ck_assert_uint_eq(counter(COUNTER_dio_grow), grown + ARRAY_SIZE(len));
	/* one request each, where the blocks follow each other */
	ck_assert_uint_eq(fake_stats(e->fake).writes - writes, ARRAY_SIZE(len));
	ck_assert_uint_eq(ext4_inode_size(e->inode), pos);
	expect_pattern(e, 0, 1, pos);
	ext4_map_drop(e->inode);
	expect_pattern(e, 0, 1, pos);
	/* The end is in mid-sector: not without reading. */
	grow(e, 0, pos, 100);
	ck_assert_uint_eq(counter(COUNTER_dio_write_slow), slow + 1);
	expect_pattern(e, 0, 1, pos + 100);
	engine_truncate(e, e->inode, 10 * BLOCK);
	ck_assert_int_eq(engine_io(e, 0, pos + 100, r, 16 * BLOCK), 10 * BLOCK - pos - 100);
	ck_assert(all_bytes(r, 0, 10 * BLOCK - pos - 100));
	free(r);
	engine_close(e);
}
END_TEST

/*
 * The buffer may not be changed behind the data, the write does not begin at the end, something is
 * mapped there: all is left to the slow path.
 */
START_TEST(not_this_way)
{
	struct engine *e = engine_new(&(struct engine_options){ .relaxed = true });
	uint64_t grown = counter(COUNTER_dio_grow);

	write_pattern(e, 0, 0, 1, 1000);
	grow(e, 0, BLOCK, 1000);
	engine_fallocate(e, EXT4_FALLOC_KEEP_SIZE, 0, 8 * BLOCK);
	engine_truncate(e, e->inode, 2 * BLOCK);
	engine_fallocate(e, EXT4_FALLOC_KEEP_SIZE, 0, 8 * BLOCK);
	grow(e, 0, 2 * BLOCK, 1000);
	ck_assert_uint_eq(counter(COUNTER_dio_grow), grown);
	expect_pattern(e, 2 * BLOCK, 1, 1000);
	/* A hole, but with blocks set aside behind it. */
	engine_truncate(e, e->inode, 2 * BLOCK);
	engine_fallocate(e, EXT4_FALLOC_KEEP_SIZE, 4 * BLOCK, 4 * BLOCK);
	grow(e, 0, 2 * BLOCK, 1000);
	ck_assert_uint_eq(counter(COUNTER_dio_grow), grown);
	expect_pattern(e, 2 * BLOCK, 1, 1000);
	engine_close(e);
}
END_TEST

/* Streams of whole blocks get their window as before. */
START_TEST(a_stream_gets_a_window)
{
	struct engine *e = engine_new(NULL);

	grow(e, 0, 0, BLOCK);
	grow(e, 0, BLOCK, BLOCK);
	grow(e, 0, 2 * BLOCK, BLOCK);
	ck_assert_uint_gt(ext4_window_end(e->inode), ext4_inode_size(e->inode));
	expect_pattern(e, 0, 1, 3 * BLOCK);
	engine_close(e);
}
END_TEST

/* A miss at each place that might wait, before the data is written and after. */
START_TEST(miss_at_each_place)
{
	unsigned early = 0, late = 0;

	for (unsigned n = 1;; n++) {
		struct engine *e = engine_new(
				&(struct engine_options){ .stale = true, .relaxed = true });
		uint64_t before = counter(COUNTER_dio_grow_again),
			 slow = counter(COUNTER_dio_write_slow), was = free_blocks(e);

		grow(e, 0, 0, 3584);
		slow = counter(COUNTER_dio_write_slow);
		nowait_self.fail_at = n;
		grow(e, 0, 3584, 8704);
		bool reached = !nowait_self.fail_at;
		nowait_self.fail_at = 0;
		if (counter(COUNTER_dio_grow_again) > before)
			late++;
		else if (counter(COUNTER_dio_write_slow) > slow)
			early++;
		ck_assert_uint_eq(counter(COUNTER_dio_write_slow) > slow, reached);
		expect_pattern(e, 0, 1, 3584 + 8704);
		ck_assert_uint_eq(was - free_blocks(e), 3);
		engine_close(e);
		if (!reached)
			break;
		ck_assert_uint_lt(n, 100);
	}
	ck_assert_uint_gt(early, 1);
	ck_assert_uint_gt(late, 1);
}
END_TEST

START_TEST(error_of_the_device)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true, .relaxed = true });
	uint64_t was;
	uint8_t *b = data(BLOCK, 2 * BLOCK);
	struct test_request req;

	grow(e, 0, 0, BLOCK - 512);
	was = free_blocks(e);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .action = FAKE_ERROR,
						      .err = -EIO,
						      .off = device_offset(e, 0) + BLOCK - 512,
						      .len = BLOCK,
						      .repeat = 1 });
	fill_pattern(b, 1, BLOCK - 512, 2 * BLOCK);
	submit(e, &req, 0, BLOCK - 512, b, 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), -EIO);
	ck_assert_uint_eq(ext4_inode_size(e->inode), BLOCK - 512);
	ck_assert_uint_eq(free_blocks(e), was);
	submit(e, &req, 0, BLOCK - 512, b, 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), 2 * BLOCK);
	expect_pattern(e, 0, 1, 3 * BLOCK - 512);
	free(b);
	engine_close(e);
}
END_TEST

/* A short write is continued. */
START_TEST(short_write)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint64_t grown = counter(COUNTER_dio_grow);

	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .action = FAKE_SHORT,
						      .n = 1024,
						      .repeat = 1 });
	grow(e, 0, 0, 2 * BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_grow), grown + 1);
	expect_pattern(e, 0, 1, 2 * BLOCK);
	engine_close(e);
}
END_TEST

static void *truncate_thread(void *arg)
{
	struct engine *e = arg;

	engine_truncate(e, e->inode, BLOCK);
	return NULL;
}

/*
 * Whoever changes the size waits; so does a second write, on its worker; nobody sees the data
 * before it is all there.
 */
START_TEST(others_wait)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2, .stale = true });
	uint8_t *b = data(0, 3 * BLOCK), *r = buffer_new(BLOCK);
	struct test_request req, t2;
	pthread_t th;

	fake_set_mode(e->fake, FAKE_HELD, 0);
	submit(e, &req, 0, 0, b, 2 * BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	submit(e, &t2, 0, 0, b, 3 * BLOCK);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert_int_eq(pthread_create(&th, NULL, truncate_thread, e), 0);
	wait_counter(COUNTER_dio_gate_wait, waits + 2);
	ck_assert_int_eq(engine_io(e, 0, 0, r, BLOCK), 0);
	fake_complete(e->fake, 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_int_eq(engine_wait(e, &req), 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &t2), 3 * BLOCK);
	pthread_join(th, NULL);
	expect_pattern(e, 0, 1, BLOCK);
	free(b);
	free(r);
	engine_close(e);
}
END_TEST

START_TEST(no_space)
{
	struct engine *e = engine_new(NULL);
	struct ext4_inode *inode = engine_file(e, "g");
	struct dio_file *gf;
	uint8_t *b = data(0, 2 * BLOCK);
	struct test_request req;
	uint64_t pos = 0;

	ck_assert_int_eq(dio_file_open(e->dio, inode, &gf), 0);
	do {
		engine_submit(e, gf, &req, DIO_WRITE | DIO_ROOT, pos, b, BLOCK);
		pos += 2 * BLOCK;
	} while (engine_wait(e, &req) == BLOCK);
	ck_assert_int_eq(req.res, -ENOSPC);
	submit(e, &req, DIO_ROOT, 0, b, 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), -ENOSPC);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 0);
	dio_file_close(gf);
	ext4_inode_put(inode);
	free(b);
	engine_close(e);
}
END_TEST

/*
 * A cut at any moment: a size of one of the writes, its data, and nothing else; with O_DSYNC what
 * was answered is there.
 */
START_TEST(cut_anywhere)
{
	static const uint32_t len[] = { 3584, 8704, 10240, 700 };
	unsigned flags = _i ? DIO_DSYNC : 0, done_at[ARRAY_SIZE(len)];
	struct engine *e = engine_new(&(struct engine_options){ .stale = true, .relaxed = true });
	uint64_t pos = 0, grown = counter(COUNTER_dio_grow);

	fake_record_start(e->fake);
	for (unsigned k = 0; k < ARRAY_SIZE(len); pos += len[k++]) {
		grow(e, flags, pos, len[k]);
		done_at[k] = fake_record_events(e->fake);
	}
	ck_assert_uint_eq(counter(COUNTER_dio_grow), grown + ARRAY_SIZE(len));
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	unsigned events = fake_record_events(e->fake);
	for (unsigned k = 0; k <= events; k++) {
		struct engine *n = engine_on(
				fake_record_cut(e->fake, k, k % 2 ? FAKE_CUT_RANDOM : FAKE_CUT_DROP,
						k),
				NULL);
		uint64_t size = ext4_inode_size(n->inode), sum = 0, least = 0;
		bool found = size == 0;

		for (unsigned w = 0; w < ARRAY_SIZE(len); w++) {
			sum += len[w];
			found = found || size == sum;
			if (flags && k >= done_at[w])
				least = sum;
		}
		ck_assert_msg(found, "event %u: size %llu", k, (unsigned long long)size);
		ck_assert_uint_ge(size, k == events ? pos : least);
		if (size)
			expect_pattern(n, 0, 1, size);
		engine_close(n);
	}
	fake_record_stop(e->fake);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: new blocks on the loop");
	TCase *t = unit_case(s, "grow", 60);

	engine_use_template(t);
	unit_test(t, no_worker);
	unit_test(t, not_this_way);
	unit_test(t, a_stream_gets_a_window);
	unit_test(t, miss_at_each_place, PROVES("GROW-2 NOWAIT-1"));
	unit_test(t, error_of_the_device);
	unit_test(t, short_write);
	unit_test(t, others_wait, PROVES("GROW-1"));
	unit_test(t, no_space);
	unit_loop(t, cut_anywhere, 0, 2, PROVES("ENGINE-4"));
	return s;
}
