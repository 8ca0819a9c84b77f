/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of appends through the append window (dio/append_window.c): blocks are set aside
 * behind the end of a file that grows, so that an append is one write to the device, without a
 * worker and without a handle. The tests show that appends become visible in the order of the
 * file, what survives a power cut, and that nobody reads what the blocks held before.
 * append_window.c has the tests of when a window begins and ends.
 *
 * The engine works over a volume on the fake device, which holds, fails and records writes. All
 * runs on the test's thread unless a test sets threads.
 */
#include "kit/engine.h"
#include "base/nowait.h"
#include "ext4/data/map.h"
#include "ext4/ext4.h"

#include <pthread.h>
#include <unistd.h>

static uint64_t allocated_sectors(struct engine *e)
{
	struct ext4_attr attr;

	ext4_getattr(e->inode, &attr);
	return attr.blocks_512;
}

static void *truncate_thread(void *arg)
{
	struct engine *e = arg;

	engine_truncate(e, e->inode, BLOCK);
	return NULL;
}

struct load {
	struct engine *e;
	bool stop; /* atomic */
};

static bool stopped(struct load *load) { return __atomic_load_n(&load->stop, __ATOMIC_ACQUIRE); }

static void *syncing_thread(void *arg)
{
	struct load *load = arg;
	struct ext4_attr attr;

	while (!stopped(load)) {
		ck_assert_int_eq(engine_fsync(load->e, load->e->inode, true), 0);
		ck_assert_int_eq(ext4_windows_settle(load->e->vol), 0);
		ext4_getattr(load->e->inode, &attr);
		usleep(500);
	}
	return NULL;
}

static void *truncating_thread(void *arg)
{
	struct load *load = arg;

	while (!stopped(load)) {
		engine_truncate(load->e, load->e->inode, ext4_inode_size(load->e->inode) / 2);
		nowait_ignore(ext4_setattr(load->e->inode, EXT4_SET_MTIME_NOW,
					   &(struct ext4_attr){ 0 }));
		usleep(3000);
	}
	return NULL;
}

START_TEST(append_is_one_device_request_and_no_handle)
{
	struct engine *e = engine_with_window(NULL, 2);
	uint64_t slow = counter(COUNTER_dio_write_slow),
		 settled = counter(COUNTER_ext4_window_settled);
	uint64_t writes = fake_stats(e->fake).writes;

	for (unsigned k = 2; k < 10; k++)
		write_pattern(e, DIO_DIRECT, k * BLOCK, 1, BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_write_slow), slow);
	ck_assert_uint_eq(fake_stats(e->fake).writes - writes, 8);
	ck_assert_uint_eq(counter(COUNTER_ext4_window_settled), settled);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 10 * BLOCK);
	ck_assert_uint_eq(allocated_sectors(e), 10 * BLOCK / 512);
	expect_pattern(e, 0, 1, 10 * BLOCK);
	/* An extent map that was dropped is built again from the extent tree and the window. */
	ext4_map_drop(e->inode);
	expect_pattern(e, 0, 1, 10 * BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	ck_assert_uint_eq(counter(COUNTER_ext4_window_settled), settled + 1);
	ck_assert_uint_eq(ext4_window_unsettled(e->inode), 0);
	ck_assert_uint_eq(allocated_sectors(e), 10 * BLOCK / 512);
	engine_close(e);
}
END_TEST

/* Of two appends the second is on the device first: it stays invisible until the first is too. */
START_TEST(appends_are_published_in_order)
{
	struct engine *e = engine_with_window(NULL, 2);
	uint8_t *buf = buffer_new(4 * BLOCK), *read_back = buffer_new(BLOCK);
	struct test_request first, second;

	fill_pattern(buf, 1, 2 * BLOCK, 4 * BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &first, DIO_WRITE, 2 * BLOCK, buf, 3 * BLOCK);
	engine_submit(e, e->file, &second, DIO_WRITE, 5 * BLOCK, buf + 3 * BLOCK, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 2);
	fake_complete(e->fake, 1);
	ck_assert(!request_is_done(&second));
	ck_assert_uint_eq(ext4_inode_size(e->inode), 2 * BLOCK);
	ck_assert_int_eq(engine_io(e, 0, 2 * BLOCK, read_back, BLOCK), 0);
	fake_complete(e->fake, 0);
	ck_assert(request_is_done(&first) && request_is_done(&second));
	ck_assert_uint_eq(ext4_inode_size(e->inode), 6 * BLOCK);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	expect_pattern(e, 0, 1, 6 * BLOCK);
	free(buf);
	free(read_back);
	engine_close(e);
}
END_TEST

/* Of three appends the first fails: the others keep their positions, behind a hole. */
START_TEST(failed_append_leaves_a_hole)
{
	struct engine *e = engine_with_window(NULL, 2);
	uint8_t *buf = buffer_new(3 * BLOCK), *read_back = buffer_new(BLOCK);
	struct test_request req[3];

	fill_pattern(buf, 1, 2 * BLOCK, 3 * BLOCK);
	uint64_t addr = device_offset(e, 2 * BLOCK);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .action = FAKE_ERROR,
						      .err = -EIO,
						      .off = addr,
						      .len = BLOCK,
						      .repeat = 1 });
	fake_set_mode(e->fake, FAKE_HELD, 0);
	for (unsigned k = 0; k < 3; k++)
		engine_submit(e, e->file, &req[k], DIO_WRITE, (2 + k) * BLOCK, buf + k * BLOCK,
			      BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 3);
	fake_complete(e->fake, 2);
	fake_complete(e->fake, 0);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 2 * BLOCK);
	fake_complete(e->fake, 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_int_eq(engine_wait(e, &req[0]), -EIO);
	ck_assert_int_eq(engine_wait(e, &req[1]), BLOCK);
	ck_assert_int_eq(engine_wait(e, &req[2]), BLOCK);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 5 * BLOCK);
	ck_assert_int_eq(engine_io(e, 0, 2 * BLOCK, read_back, BLOCK), BLOCK);
	ck_assert(all_bytes(read_back, 0, BLOCK));
	expect_pattern(e, 3 * BLOCK, 1, 2 * BLOCK);
	expect_pattern(e, 0, 1, 2 * BLOCK);
	free(buf);
	free(read_back);
	engine_close(e);
}
END_TEST

/* how: 0 fsync, 1 fdatasync, 2 O_DSYNC, 3 O_SYNC. */
START_TEST(synced_appends_survive_a_power_cut)
{
	static const unsigned flags[] = { 0, 0, DIO_DSYNC, DIO_SYNC | DIO_DSYNC };

	for (unsigned how = 0; how < 4; how++) {
		struct engine *e = engine_with_window(NULL, 2);

		write_pattern(e, flags[how], 2 * BLOCK, 1, 2 * BLOCK);
		if (how < 2)
			ck_assert_int_eq(engine_fsync(e, e->inode, how == 1), 0);
		/* An overwrite of a block that may not be in the extent tree yet. */
		write_pattern(e, 0, 4 * BLOCK, 1, BLOCK);
		write_pattern(e, DIO_DSYNC, 4 * BLOCK, 2, BLOCK);
		write_pattern(e, 0, 5 * BLOCK, 3, BLOCK);
		struct engine *rebooted = engine_cut(e, FAKE_CUT_DROP, how);
		ck_assert_uint_eq(ext4_inode_size(rebooted->inode), 5 * BLOCK);
		expect_pattern(rebooted, 0, 1, 4 * BLOCK);
		expect_pattern(rebooted, 4 * BLOCK, 2, BLOCK);
		engine_close(rebooted);
		engine_close(e);
	}
}
END_TEST

/*
 * After a power cut at any moment the file holds a prefix of what was written, never what the
 * blocks held before, and the extent tree maps nothing behind the size.
 */
START_TEST(no_cut_shows_stale_data)
{
	struct engine *e = engine_with_window(&(struct engine_options){ .stale = true }, 2);

	fake_record_start(e->fake);
	for (unsigned k = 2; k < 6; k++)
		write_pattern(e, 0, k * BLOCK, 1, BLOCK);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	write_pattern(e, 0, 6 * BLOCK, 1, BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, true), 0);
	unsigned events = fake_record_events(e->fake);
	for (unsigned k = 0; k <= events; k++) {
		enum fake_cut mode = k % 2 ? FAKE_CUT_RANDOM : FAKE_CUT_DROP;
		struct engine *rebooted = engine_on(fake_record_cut(e->fake, k, mode, k), NULL);
		uint64_t size = ext4_inode_size(rebooted->inode);
		ck_assert(size % BLOCK == 0 && size <= 7 * BLOCK);
		if (size)
			expect_pattern(rebooted, 0, 1, size);
		if (k == events)
			ck_assert_uint_eq(size, 7 * BLOCK);
		engine_close(rebooted);
	}
	fake_record_stop(e->fake);
	engine_close(e);
}
END_TEST

/*
 * While an append is in flight, a write that begins behind its end is no append: nobody has written
 * the blocks between them.
 */
START_TEST(write_behind_an_append_is_no_append)
{
	struct engine *e = engine_with_window(&(struct engine_options){ .stale = true }, 2);
	uint64_t slow = counter(COUNTER_dio_write_slow);
	uint8_t *buf = buffer_new(2 * BLOCK), *read_back = buffer_new(BLOCK);
	struct test_request req[2];

	fill_pattern(buf, 1, 2 * BLOCK, BLOCK);
	fill_pattern(buf + BLOCK, 1, 5 * BLOCK, BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req[0], DIO_WRITE, 2 * BLOCK, buf, BLOCK);
	engine_submit(e, e->file, &req[1], DIO_WRITE, 5 * BLOCK, buf + BLOCK, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	fake_complete(e->fake, 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_int_eq(engine_wait(e, &req[0]), BLOCK);
	ck_assert_int_eq(engine_wait(e, &req[1]), BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_write_slow), slow + 1);
	for (unsigned k = 3; k < 5; k++) {
		ck_assert_int_eq(engine_io(e, 0, k * BLOCK, read_back, BLOCK), BLOCK);
		ck_assert(all_bytes(read_back, 0, BLOCK));
	}
	expect_pattern(e, 0, 1, 3 * BLOCK);
	expect_pattern(e, 5 * BLOCK, 1, BLOCK);
	free(buf);
	free(read_back);
	engine_close(e);
}
END_TEST

/* A truncate waits for an append in flight before it frees blocks. */
START_TEST(truncate_waits_for_an_append)
{
	struct engine *e = engine_with_window(&(struct engine_options){ .threads = 1 }, 2);
	uint8_t *buf = buffer_new(BLOCK);
	struct test_request req;
	pthread_t thread;

	fill_pattern(buf, 1, 2 * BLOCK, BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, DIO_WRITE, 2 * BLOCK, buf, BLOCK);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	ck_assert_int_eq(pthread_create(&thread, NULL, truncate_thread, e), 0);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 2 * BLOCK);
	fake_complete(e->fake, 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(engine_wait(e, &req), BLOCK);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_uint_eq(ext4_inode_size(e->inode), BLOCK);
	expect_pattern(e, 0, 1, BLOCK);
	free(buf);
	engine_close(e);
}
END_TEST

/*
 * Appends, syncs and truncates at once, with completions in any order. Each byte of the file is
 * then what was written to its position, or zero.
 */
START_TEST(appends_syncs_and_truncates_together)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2 });
	struct load load = { .e = e };
	pthread_t thread[2];

	fake_set_mode(e->fake, FAKE_THREAD, 5);
	ck_assert_int_eq(pthread_create(&thread[0], NULL, syncing_thread, &load), 0);
	ck_assert_int_eq(pthread_create(&thread[1], NULL, truncating_thread, &load), 0);
	uint8_t *buf = buffer_new(8 * BLOCK);
	struct test_request req[2];
	for (unsigned n = 0; n < 300; n++) {
		uint64_t pos = fdio_round_up(ext4_inode_size(e->inode), BLOCK);
		if (pos > 1024 * BLOCK)
			pos = 0;
		fill_pattern(buf, 1, pos, 8 * BLOCK);
		engine_submit(e, e->file, &req[0], DIO_WRITE, pos, buf, 5 * BLOCK);
		engine_submit(e, e->file, &req[1], DIO_WRITE, pos + 5 * BLOCK, buf + 5 * BLOCK,
			      3 * BLOCK);
		ck_assert_int_eq(engine_wait(e, &req[0]), 5 * BLOCK);
		ck_assert_int_eq(engine_wait(e, &req[1]), 3 * BLOCK);
	}
	__atomic_store_n(&load.stop, true, __ATOMIC_RELEASE);
	pthread_join(thread[0], NULL);
	pthread_join(thread[1], NULL);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	uint64_t size = ext4_inode_size(e->inode);
	uint8_t *read_back = buffer_new(size + 1), *want = buffer_new(size + 1);
	ck_assert_int_eq(engine_io(e, 0, 0, read_back, size), size);
	fill_pattern(want, 1, 0, size);
	uint64_t k = 0;
	while (k < size && (read_back[k] == want[k] || !read_back[k]))
		k++;
	ck_assert_uint_eq(k, size);
	free(buf);
	free(read_back);
	free(want);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: append");
	TCase *t = unit_case(s, "append", 60), *threads = unit_case(s, "threads", 60);

	engine_use_template(t);
	engine_use_template(threads);
	unit_test(t, append_is_one_device_request_and_no_handle);
	unit_test(t, appends_are_published_in_order, PROVES("WINDOW-4"));
	unit_test(t, failed_append_leaves_a_hole);
	unit_test(t, synced_appends_survive_a_power_cut);
	unit_test(t, no_cut_shows_stale_data, PROVES("ENGINE-4"));
	unit_test(t, write_behind_an_append_is_no_append);
	unit_test(t, truncate_waits_for_an_append, PROVES("ENGINE-6"));
	unit_test(threads, appends_syncs_and_truncates_together);
	return s;
}
