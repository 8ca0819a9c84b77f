/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of small appends that allocate blocks on the loop thread (dio/append_small.c): they
 * need no worker, show nothing of what the blocks held before, and give everything back where they
 * would have to wait.
 *
 * base/nowait.h makes each place that might wait fail in turn; the fake device fails, holds and
 * records writes. All runs on the test's thread but in the test with threads = 2.
 */
#include "base/nowait.h"
#include "kit/engine.h"
#include "ext4/data/map.h"
#include "ext4/ext4.h"

#include <pthread.h>

/* A write from a buffer with a block of room behind the data, as pattern_buffer makes them. */
static void submit_write(struct engine *e, struct test_request *req, unsigned flags, uint64_t pos,
			 uint8_t *buf, uint32_t len)
{
	engine_submit_with_room(e, e->file, req, flags | DIO_WRITE, pos, buf, len,
				fdio_round_up(len, BLOCK) + BLOCK);
}

static uint8_t *pattern_buffer(uint64_t pos, uint32_t len)
{
	uint8_t *buf = buffer_new(fdio_round_up(len, BLOCK) + BLOCK);

	fill_pattern(buf, 1, pos, len);
	return buf;
}

static void append(struct engine *e, unsigned flags, uint64_t pos, uint32_t len)
{
	uint8_t *buf = pattern_buffer(pos, len);
	struct test_request req;

	submit_write(e, &req, flags, pos, buf, len);
	ck_assert_int_eq(engine_wait(e, &req), len);
	free(buf);
}

static uint64_t free_blocks(struct engine *e)
{
	struct ext4_statfs stats;

	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	ext4_vol_statfs(e->vol, &stats);
	return stats.bfree;
}

/* Sizes as tar writes them, multiples of 512 but for the last. */
START_TEST(small_appends_need_no_worker)
{
	static const uint32_t len[] = { 3584, 512, 8704, 10240, 700 };
	struct engine *e = engine_new(&(struct engine_options){ .stale = true, .relaxed = true });
	uint64_t slow = counter(COUNTER_dio_write_slow), grown = counter(COUNTER_dio_grow), pos = 0,
		 writes = fake_stats(e->fake).writes;
	uint8_t *read_back = buffer_new(16 * BLOCK);

	for (unsigned k = 0; k < ARRAY_SIZE(len); pos += len[k++])
		append(e, DIO_KILLCAPS, pos, len[k]);
	ck_assert_uint_eq(counter(COUNTER_dio_write_slow), slow);
	ck_assert_uint_eq(counter(COUNTER_dio_grow), grown + ARRAY_SIZE(len));
	/* One device request each, as the blocks follow each other. */
	ck_assert_uint_eq(fake_stats(e->fake).writes - writes, ARRAY_SIZE(len));
	ck_assert_uint_eq(ext4_inode_size(e->inode), pos);
	expect_pattern(e, 0, 1, pos);
	ext4_map_drop(e->inode);
	expect_pattern(e, 0, 1, pos);
	/* The end is inside a sector, so the next append must read it first. */
	append(e, 0, pos, 100);
	ck_assert_uint_eq(counter(COUNTER_dio_write_slow), slow + 1);
	expect_pattern(e, 0, 1, pos + 100);
	engine_truncate(e, e->inode, 10 * BLOCK);
	ck_assert_int_eq(engine_io(e, 0, pos + 100, read_back, 16 * BLOCK), 10 * BLOCK - pos - 100);
	ck_assert(all_bytes(read_back, 0, 10 * BLOCK - pos - 100));
	free(read_back);
	engine_close(e);
}
END_TEST

/* A write that does not begin at the end, or where blocks are mapped, takes the slow path. */
START_TEST(other_writes_take_the_slow_path)
{
	struct engine *e = engine_new(&(struct engine_options){ .relaxed = true });
	uint64_t grown = counter(COUNTER_dio_grow);

	write_pattern(e, 0, 0, 1, 1000);
	append(e, 0, BLOCK, 1000);
	engine_fallocate(e, EXT4_FALLOC_KEEP_SIZE, 0, 8 * BLOCK);
	engine_truncate(e, e->inode, 2 * BLOCK);
	engine_fallocate(e, EXT4_FALLOC_KEEP_SIZE, 0, 8 * BLOCK);
	append(e, 0, 2 * BLOCK, 1000);
	ck_assert_uint_eq(counter(COUNTER_dio_grow), grown);
	expect_pattern(e, 2 * BLOCK, 1, 1000);
	/* A hole with preallocated blocks behind it. */
	engine_truncate(e, e->inode, 2 * BLOCK);
	engine_fallocate(e, EXT4_FALLOC_KEEP_SIZE, 4 * BLOCK, 4 * BLOCK);
	append(e, 0, 2 * BLOCK, 1000);
	ck_assert_uint_eq(counter(COUNTER_dio_grow), grown);
	expect_pattern(e, 2 * BLOCK, 1, 1000);
	engine_close(e);
}
END_TEST

/* A stream of whole blocks gets an append window. */
START_TEST(stream_of_blocks_gets_a_window)
{
	struct engine *e = engine_new(NULL);

	append(e, 0, 0, BLOCK);
	append(e, 0, BLOCK, BLOCK);
	append(e, 0, 2 * BLOCK, BLOCK);
	ck_assert_uint_gt(ext4_window_end(e->inode), ext4_inode_size(e->inode));
	expect_pattern(e, 0, 1, 3 * BLOCK);
	engine_close(e);
}
END_TEST

/* Each place that might wait misses once, before and after the data is written. */
START_TEST(miss_at_each_place_gives_all_back)
{
	unsigned early = 0, late = 0;

	for (unsigned n = 1;; n++) {
		struct engine *e = engine_new(
				&(struct engine_options){ .stale = true, .relaxed = true });
		uint64_t before = counter(COUNTER_dio_grow_again),
			 slow = counter(COUNTER_dio_write_slow), was = free_blocks(e);

		append(e, 0, 0, 3584);
		slow = counter(COUNTER_dio_write_slow);
		nowait_self.fail_at = n;
		append(e, 0, 3584, 8704);
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

START_TEST(device_error_gives_blocks_back)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true, .relaxed = true });
	uint64_t was;
	uint8_t *buf = pattern_buffer(BLOCK, 2 * BLOCK);
	struct test_request req;

	append(e, 0, 0, BLOCK - 512);
	was = free_blocks(e);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .action = FAKE_ERROR,
						      .err = -EIO,
						      .off = device_offset(e, 0) + BLOCK - 512,
						      .len = BLOCK,
						      .repeat = 1 });
	fill_pattern(buf, 1, BLOCK - 512, 2 * BLOCK);
	submit_write(e, &req, 0, BLOCK - 512, buf, 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), -EIO);
	ck_assert_uint_eq(ext4_inode_size(e->inode), BLOCK - 512);
	ck_assert_uint_eq(free_blocks(e), was);
	submit_write(e, &req, 0, BLOCK - 512, buf, 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), 2 * BLOCK);
	expect_pattern(e, 0, 1, 3 * BLOCK - 512);
	free(buf);
	engine_close(e);
}
END_TEST

START_TEST(short_write_is_continued)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint64_t grown = counter(COUNTER_dio_grow);

	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .action = FAKE_SHORT,
						      .n = 1024,
						      .repeat = 1 });
	append(e, 0, 0, 2 * BLOCK);
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
 * While the append is in flight, a truncate and a second write wait, and a read does not see its
 * data.
 */
START_TEST(truncate_and_second_write_wait)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2, .stale = true });
	uint8_t *buf = pattern_buffer(0, 3 * BLOCK), *read_back = buffer_new(BLOCK);
	struct test_request req, second;
	pthread_t thread;

	fake_set_mode(e->fake, FAKE_HELD, 0);
	submit_write(e, &req, 0, 0, buf, 2 * BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	submit_write(e, &second, 0, 0, buf, 3 * BLOCK);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert_int_eq(pthread_create(&thread, NULL, truncate_thread, e), 0);
	wait_counter(COUNTER_dio_gate_wait, waits + 2);
	ck_assert_int_eq(engine_io(e, 0, 0, read_back, BLOCK), 0);
	fake_complete(e->fake, 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_int_eq(engine_wait(e, &req), 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &second), 3 * BLOCK);
	pthread_join(thread, NULL);
	expect_pattern(e, 0, 1, BLOCK);
	free(buf);
	free(read_back);
	engine_close(e);
}
END_TEST

START_TEST(full_volume_fails_the_write)
{
	struct engine *e = engine_new(NULL);
	struct ext4_inode *inode = engine_file(e, "g");
	struct dio_file *other_file;
	uint8_t *buf = pattern_buffer(0, 2 * BLOCK);
	struct test_request req;
	uint64_t pos = 0;

	ck_assert_int_eq(dio_file_open(e->dio, inode, &other_file), 0);
	do {
		engine_submit(e, other_file, &req, DIO_WRITE | DIO_ROOT, pos, buf, BLOCK);
		pos += 2 * BLOCK;
	} while (engine_wait(e, &req) == BLOCK);
	ck_assert_int_eq(req.res, -ENOSPC);
	submit_write(e, &req, DIO_ROOT, 0, buf, 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), -ENOSPC);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 0);
	dio_file_close(other_file);
	ext4_inode_put(inode);
	free(buf);
	engine_close(e);
}
END_TEST

/*
 * After any cut the file has the size after one of the writes, and its data. With O_DSYNC (_i 1) it
 * has all writes that were answered.
 */
START_TEST(any_cut_shows_whole_writes)
{
	static const uint32_t len[] = { 3584, 8704, 10240, 700 };
	unsigned flags = _i ? DIO_DSYNC : 0, done_at[ARRAY_SIZE(len)];
	struct engine *e = engine_new(&(struct engine_options){ .stale = true, .relaxed = true });
	uint64_t pos = 0, grown = counter(COUNTER_dio_grow);

	fake_record_start(e->fake);
	for (unsigned k = 0; k < ARRAY_SIZE(len); pos += len[k++]) {
		append(e, flags, pos, len[k]);
		done_at[k] = fake_record_events(e->fake);
	}
	ck_assert_uint_eq(counter(COUNTER_dio_grow), grown + ARRAY_SIZE(len));
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	unsigned events = fake_record_events(e->fake);
	for (unsigned k = 0; k <= events; k++) {
		struct engine *rebooted = engine_on(
				fake_record_cut(e->fake, k, k % 2 ? FAKE_CUT_RANDOM : FAKE_CUT_DROP,
						k),
				NULL);
		uint64_t size = ext4_inode_size(rebooted->inode), sum = 0, least = 0;
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
			expect_pattern(rebooted, 0, 1, size);
		engine_close(rebooted);
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
	unit_test(t, small_appends_need_no_worker);
	unit_test(t, other_writes_take_the_slow_path);
	unit_test(t, stream_of_blocks_gets_a_window);
	unit_test(t, miss_at_each_place_gives_all_back, PROVES("GROW-2 NOWAIT-1"));
	unit_test(t, device_error_gives_blocks_back);
	unit_test(t, short_write_is_continued);
	unit_test(t, truncate_and_second_write_wait, PROVES("GROW-1"));
	unit_test(t, full_volume_fails_the_write);
	unit_loop(t, any_cut_shows_whole_writes, 0, 2, PROVES("ENGINE-4"));
	return s;
}
