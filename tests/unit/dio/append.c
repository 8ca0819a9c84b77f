/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the append window (ext4/data/append_window.c) as the engine uses it. Blocks are set
 * aside behind the end of a file that grows, so that an append needs no worker and no handle. The
 * tests show that appends are published in order, that nothing of a window is lost or shows what
 * its blocks held before, and when the window ends.
 *
 * The engine works over a volume on the fake device, which holds, fails and records writes. All
 * runs on the test's thread but where a test has threads = N.
 */
#include "kit/engine.h"
#include "base/nowait.h"
#include "ext4/data/map.h"
#include "ext4/ext4.h"

#include <pthread.h>
#include <unistd.h>

/* An engine whose file has so many blocks, at least 2, and a window behind them. */
static struct engine *with_window(const struct engine_options *o, unsigned n)
{
	struct engine *e = engine_new(o);

	for (unsigned k = 0; k < n; k++)
		write_pattern(e, 0, k * BLOCK, 1, BLOCK);
	ck_assert_uint_gt(ext4_window_end(e->inode), ext4_inode_size(e->inode));
	return e;
}

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
	struct engine *e = with_window(NULL, 2);
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
	/* A map that was dropped is built again from the tree and the window. */
	ext4_map_drop(e->inode);
	expect_pattern(e, 0, 1, 10 * BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	ck_assert_uint_eq(counter(COUNTER_ext4_window_settled), settled + 1);
	ck_assert_uint_eq(ext4_window_unsettled(e->inode), 0);
	ck_assert_uint_eq(allocated_sectors(e), 10 * BLOCK / 512);
	engine_close(e);
}
END_TEST

/*
 * A loop thread that may not wait closes the last open file: a worker settles the window, and what
 * was appended stays.
 */
START_TEST(close_by_a_loop_thread_loses_nothing)
{
	struct engine *e = with_window(NULL, 2);

	for (unsigned k = 2; k < 6; k++)
		write_pattern(e, DIO_DIRECT, k * BLOCK, 1, BLOCK);
	ck_assert_uint_eq(ext4_window_unsettled(e->inode), 4);
	nowait_begin();
	nowait_self.fail_at = 1; /* as if a lock were taken or the log full */
	dio_file_close(e->file);
	nowait_self.fail_at = 0;
	ck_assert(!nowait_end());
	ck_assert_uint_eq(ext4_inode_size(e->inode), 6 * BLOCK);
	engine_pump(e);
	ck_assert_uint_eq(ext4_window_end(e->inode), 0);
	ck_assert_int_eq(dio_file_open(e->dio, e->inode, &e->file), 0);
	expect_pattern(e, 0, 1, 6 * BLOCK);
	engine_close(e);
}
END_TEST

/*
 * The window must end but its blocks cannot be put into the tree: appends that were answered are
 * gone, and fsync says so once.
 */
#ifndef FDIO_DEBUG_LOCKS
START_TEST(fsync_tells_of_appends_given_up)
{
	struct engine *e = with_window(NULL, 2);

	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	for (unsigned k = 2; k < 6; k++)
		write_pattern(e, DIO_DIRECT, k * BLOCK, 1, BLOCK);
	ext4_inode_lock_exclusive(e->inode);
	nowait_begin();
	nowait_self.fail_at = 1; /* as if the journal would make us wait */
	ck_assert_int_eq(ext4_window_close(e->inode, NULL, NULL), -EAGAIN);
	nowait_end();
	ext4_inode_unlock(e->inode);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 2 * BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, true), -EIO);
	ck_assert_int_eq(engine_fsync(e, e->inode, true), 0);
	expect_pattern(e, 0, 1, 2 * BLOCK);
	engine_close(e);
}
END_TEST
#endif

/* The linker sends ext4_blocks_claim here, which then fails as it does without memory. */
int __real_ext4_blocks_claim(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
			     uint32_t n);
int __wrap_ext4_blocks_claim(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
			     uint32_t n);
static bool claim_fails; /* atomic */

int __wrap_ext4_blocks_claim(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk,
			     uint32_t n)
{
	if (__atomic_load_n(&claim_fails, __ATOMIC_SEQ_CST))
		return -ENOMEM;
	return __real_ext4_blocks_claim(handle, inode, blk, n);
}

static void *reclaim_thread(void *arg)
{
	struct engine *e = arg;

	ck_assert(e->vol->data.reclaim(e->vol->data.reclaim_arg));
	return NULL;
}

/*
 * A window whose blocks cannot be claimed is given up, by a write (_i 0) or by a full volume (1).
 * While a read of its blocks is in flight, nobody else gets them.
 */
START_TEST(blocks_are_not_given_up_under_a_read)
{
	struct engine *e =
			with_window(&(struct engine_options){ .threads = 1, .relaxed = true }, 2);
	uint64_t held = e->vol->data.window_blocks, available = ext4_blocks_available(e->vol, true);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	uint8_t *buf = buffer_new(BLOCK), *want = buffer_new(BLOCK), *w = buffer_new(BLOCK);
	struct test_request req, writing;
	pthread_t thread;

	for (unsigned k = 2; k < 6; k++)
		write_pattern(e, 0, k * BLOCK, 1, BLOCK);
	fill_pattern(want, 1, 3 * BLOCK, BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, 0, 3 * BLOCK, buf, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	__atomic_store_n(&claim_fails, true, __ATOMIC_SEQ_CST);
	if (_i)
		ck_assert_int_eq(pthread_create(&thread, NULL, reclaim_thread, e), 0);
	else
		engine_submit(e, e->file, &writing, DIO_WRITE, 6 * BLOCK, w, 100);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert_uint_eq(e->vol->data.window_blocks, held);
	ck_assert_uint_eq(ext4_blocks_available(e->vol, true), available);
	fake_complete(e->fake, 0);
	if (_i)
		pthread_join(thread, NULL);
	else
		ck_assert_int_eq(engine_wait(e, &writing), -ENOMEM);
	__atomic_store_n(&claim_fails, false, __ATOMIC_SEQ_CST);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_int_eq(engine_wait(e, &req), BLOCK);
	ck_assert_mem_eq(buf, want, BLOCK);
	ck_assert_uint_eq(e->vol->data.window_blocks, 0);
	ck_assert_uint_gt(ext4_blocks_available(e->vol, true), available);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 2 * BLOCK);
	free(buf);
	free(want);
	free(w);
	engine_close(e);
}
END_TEST

/* Of two appends the second is written first; it is not visible before the first one is. */
START_TEST(appends_are_published_in_order)
{
	struct engine *e = with_window(NULL, 2);
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

/* Of three appends the first fails: the others keep their positions, with a hole before them. */
START_TEST(failed_append_leaves_a_hole)
{
	struct engine *e = with_window(NULL, 2);
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

/* By fsync, fdatasync, O_DSYNC and O_SYNC, one after the other. */
START_TEST(synced_appends_survive_a_power_cut)
{
	for (unsigned how = 0; how < 4; how++) {
		struct engine *e = with_window(NULL, 2);

		write_pattern(e,
			      how == 2   ? DIO_DSYNC
			      : how == 3 ? DIO_SYNC | DIO_DSYNC
					 : 0,
			      2 * BLOCK, 1, 2 * BLOCK);
		if (how < 2)
			ck_assert_int_eq(engine_fsync(e, e->inode, how == 1), 0);
		/* An overwrite of a block that may not be in the tree yet. */
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
 * After any cut the file has a prefix of what was written, never what the blocks held before, and
 * the tree maps nothing behind the size.
 */
START_TEST(no_cut_shows_stale_data)
{
	struct engine *e = with_window(&(struct engine_options){ .stale = true }, 2);

	fake_record_start(e->fake);
	for (unsigned k = 2; k < 6; k++)
		write_pattern(e, 0, k * BLOCK, 1, BLOCK);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	write_pattern(e, 0, 6 * BLOCK, 1, BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, true), 0);
	unsigned events = fake_record_events(e->fake);
	for (unsigned k = 0; k <= events; k++) {
		struct engine *rebooted = engine_on(
				fake_record_cut(e->fake, k, k % 2 ? FAKE_CUT_RANDOM : FAKE_CUT_DROP,
						k),
				NULL);
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

/* Any other change of the size or of the map ends the window first and leaves nothing of it. */
START_TEST(other_changes_end_the_window)
{
	for (unsigned how = 0; how < 7; how++) {
		struct engine *e = with_window(
				&(struct engine_options){ .relaxed = true, .stale = true }, 3);
		uint8_t *read_back = buffer_new(16 * BLOCK);

		write_pattern(e, 0, 3 * BLOCK, 1, BLOCK);
		switch (how) {
		case 0: engine_truncate(e, e->inode, 2 * BLOCK + 100); break;
		case 1: engine_truncate(e, e->inode, 8 * BLOCK + 100); break;
		case 2: engine_fallocate(e, 0, 2 * BLOCK, 6 * BLOCK); break;
		case 3:
			engine_fallocate(e, EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE,
					 3 * BLOCK, BLOCK);
			break;
		case 4: write_pattern(e, 0, 4 * BLOCK, 1, 100); break;
		case 5: write_pattern(e, 0, 7 * BLOCK + 5, 1, 100); break;
		/* whole blocks, in the window, but not at the end */
		case 6:
			write_pattern(e, 0, 7 * BLOCK, 1, BLOCK);
			break;
		}
		ck_assert_uint_eq(ext4_window_end(e->inode), 0);
		uint64_t size = ext4_inode_size(e->inode), same = how == 0   ? size
								  : how == 3 ? 3 * BLOCK
									     : 4 * BLOCK;
		expect_pattern(e, 0, 1, same);
		ck_assert_int_eq(engine_io(e, 0, 0, read_back, 16 * BLOCK), size);
		if (how == 4)
			expect_pattern(e, 4 * BLOCK, 1, 100);
		else if (how == 5)
			ck_assert(all_bytes(read_back + 4 * BLOCK, 0, 3 * BLOCK + 5));
		else if (how == 6)
			ck_assert(all_bytes(read_back + 4 * BLOCK, 0, 3 * BLOCK));
		else
			ck_assert(all_bytes(read_back + same, 0, size - same));
		engine_truncate(e, e->inode, 12 * BLOCK);
		ck_assert_int_eq(engine_io(e, 0, 0, read_back, 16 * BLOCK), 12 * BLOCK);
		ck_assert(all_bytes(read_back + size, 0, 12 * BLOCK - size));
		free(read_back);
		engine_close(e);
	}
}
END_TEST

/*
 * While an append is in flight, a write that begins behind its end is no append: the blocks between
 * were never written.
 */
START_TEST(write_behind_an_append_is_no_append)
{
	struct engine *e = with_window(&(struct engine_options){ .stale = true }, 2);
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

/*
 * If blocks are preallocated behind the end, by this mount (_i 0) or an earlier one (1), there is
 * no window over them: appends go into those blocks.
 */
START_TEST(no_window_over_preallocated_blocks)
{
	struct engine *old = engine_new(&(struct engine_options){ .stale = true }), *e = old;

	write_pattern(e, 0, 0, 1, BLOCK);
	engine_fallocate(e, EXT4_FALLOC_KEEP_SIZE, 6 * BLOCK, 4 * BLOCK);
	if (_i) {
		ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
		e = engine_cut(old, FAKE_CUT_KEEP, 0);
	}
	for (unsigned k = 1; k < 12; k++) {
		write_pattern(e, 0, k * BLOCK, 1, BLOCK);
		if (k < 9)
			ck_assert_uint_eq(ext4_window_end(e->inode), 0);
		if (k == 4)
			ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	}
	ck_assert_uint_gt(ext4_window_end(e->inode), 0); /* behind them a window opens again */
	expect_pattern(e, 0, 1, 12 * BLOCK);
	ext4_map_drop(e->inode);
	expect_pattern(e, 0, 1, 12 * BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	struct engine *rebooted = engine_cut(e, FAKE_CUT_DROP, 0);
	expect_pattern(rebooted, 0, 1, 12 * BLOCK);
	engine_close(rebooted);
	engine_close(e);
	if (_i)
		engine_close(old);
}
END_TEST

/* A truncate waits for an append in flight before it frees blocks. */
START_TEST(truncate_waits_for_an_append)
{
	struct engine *e = with_window(&(struct engine_options){ .threads = 1 }, 2);
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

/* A write that finds the volume full gets the blocks set aside for another file. */
START_TEST(full_volume_takes_windows_back)
{
	struct engine *e = with_window(NULL, 2);
	struct ext4_inode *inode = engine_file(e, "g");
	struct dio_file *other_file;
	uint8_t *buf = buffer_new(BLOCK);
	struct test_request req;
	struct ext4_statfs stats;
	uint64_t pos = 0;

	ck_assert_int_eq(dio_file_open(e->dio, inode, &other_file), 0);
	memset(buf, 'g', BLOCK);
	for (;;) { /* every other block, so that this file gets no window */
		engine_submit(e, other_file, &req, DIO_WRITE | DIO_ROOT, pos, buf, BLOCK);
		if (engine_wait(e, &req) != BLOCK)
			break;
		pos += 2 * BLOCK;
	}
	ck_assert_int_eq(req.res, -ENOSPC);
	ck_assert_uint_eq(ext4_window_end(e->inode), 0);
	ext4_vol_statfs(e->vol, &stats);
	ck_assert_uint_lt(stats.bfree, 128); /* blocks kept for extent trees */
	expect_pattern(e, 0, 1, 2 * BLOCK);
	dio_file_close(other_file);
	ext4_inode_put(inode);
	free(buf);
	engine_close(e);
}
END_TEST

/*
 * However many files grow, their windows hold at most an eighth of the free blocks; a full volume
 * gives these to the creation of names too.
 */
START_TEST(many_windows_hold_little)
{
	enum { FILES = 60 };
	struct engine *e = engine_new(NULL);
	const struct ext4_credentials credentials = { .cap_fsetid = true };
	struct ext4_inode *root, *inode[FILES], *dir;
	struct dio_file *file[FILES];
	uint8_t *buf = buffer_new(BLOCK);
	uint64_t since = ext4_evictions(e->vol), available = ext4_blocks_available(e->vol, true);
	unsigned windows = 0;
	struct test_request req;
	char name[16];
	int err = 0;

	ck_assert_int_eq(ext4_inode_get(e->vol, EXT4_ROOT_INO, NULL, &root), 0);
	memset(buf, 'w', BLOCK);
	for (unsigned k = 0; k < FILES; k++) {
		snprintf(name, sizeof(name), "w%u", k);
		ck_assert_int_eq(ext4_create(root, name, (unsigned)strlen(name), 0100644, 0,
					     &credentials, &inode[k]),
				 0);
		ck_assert_int_eq(dio_file_open(e->dio, inode[k], &file[k]), 0);
		for (unsigned n = 0; n < 3; n++) {
			engine_submit(e, file[k], &req, DIO_WRITE | DIO_ROOT, n * BLOCK, buf,
				      BLOCK);
			ck_assert_int_eq(engine_wait(e, &req), BLOCK);
		}
		windows += ext4_window_end(inode[k]) != 0;
	}
	ck_assert_uint_gt(windows, 4);
	ck_assert_uint_lt(windows, FILES);
	ck_assert_uint_le(e->vol->data.window_blocks, available / 8);
	for (unsigned n = 0; !err; n++) {
		snprintf(name, sizeof(name), "d%u", n);
		err = ext4_create(root, name, (unsigned)strlen(name), 040755, 0, &credentials,
				  &dir);
		if (!err)
			ext4_inode_put(dir);
	}
	ck_assert_int_eq(err, -ENOSPC);
	ck_assert_uint_gt(e->vol->data.window_blocks, 0);
	ck_assert(ext4_space_has_come(e->vol, -ENOSPC, &since));
	ck_assert_uint_eq(e->vol->data.window_blocks, 0);
	ck_assert_int_eq(ext4_create(root, name, (unsigned)strlen(name), 040755, 0, &credentials,
				     &dir),
			 0);
	ext4_inode_put(dir);
	ck_assert(!ext4_space_has_come(e->vol, -ENOSPC, &since)); /* there are no more */
	for (unsigned k = 0; k < FILES; k++) {
		ck_assert_uint_eq(ext4_inode_size(inode[k]), 3 * BLOCK);
		dio_file_close(file[k]);
		ext4_inode_put(inode[k]);
	}
	ext4_inode_put(root);
	free(buf);
	engine_close(e);
}
END_TEST

/* Files that grow side by side do not interleave. */
START_TEST(parallel_files_stay_whole)
{
	struct engine *e = engine_new(NULL);
	static const char *const names[] = { "f", "g", "h" };
	struct ext4_inode *inode[3];
	struct dio_file *file[3];
	uint8_t *buf = buffer_new(4 * BLOCK);
	struct test_request req;

	for (unsigned k = 0; k < 3; k++) {
		inode[k] = engine_file(e, names[k]);
		ck_assert_int_eq(dio_file_open(e->dio, inode[k], &file[k]), 0);
	}
	for (unsigned n = 0; n < 100; n++)
		for (unsigned k = 0; k < 3; k++) {
			engine_submit(e, file[k], &req, DIO_WRITE, n * 4 * BLOCK, buf,
				      4 * BLOCK);
			ck_assert_int_eq(engine_wait(e, &req), 4 * BLOCK);
		}
	for (unsigned k = 0; k < 3; k++) {
		struct ext4_extent extent;
		unsigned runs = 0;

		for (uint32_t l = 0; l < 400; l += extent.len, runs++)
			ck_assert(!ext4_map_lookup(inode[k], l, &extent) &&
				  extent.state == EXT4_EXTENT_WRITTEN);
		ck_assert_uint_le(runs, 8);
		dio_file_close(file[k]);
		if (k) /* e->file keeps the first inode open */
			ck_assert_uint_eq(ext4_window_end(inode[k]), 0);
		ext4_inode_put(inode[k]);
	}
	free(buf);
	engine_close(e);
}
END_TEST

/* Appends, syncs, reads and truncates at once, with completions in any order. */
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
	unit_test(t, close_by_a_loop_thread_loses_nothing);
/* The debug build asserts that no window is closed in the mode of loop threads. */
#ifndef FDIO_DEBUG_LOCKS
	unit_test(t, fsync_tells_of_appends_given_up);
#endif
	unit_loop(t, blocks_are_not_given_up_under_a_read, 0, 2);
	unit_test(t, appends_are_published_in_order, PROVES("WINDOW-4"));
	unit_test(t, failed_append_leaves_a_hole);
	unit_test(t, synced_appends_survive_a_power_cut);
	unit_test(t, no_cut_shows_stale_data, PROVES("ENGINE-4"));
	unit_test(t, other_changes_end_the_window, PROVES("WINDOW-2"));
	unit_test(t, write_behind_an_append_is_no_append);
	unit_loop(t, no_window_over_preallocated_blocks, 0, 2, PROVES("WINDOW-1"));
	unit_test(t, truncate_waits_for_an_append, PROVES("ENGINE-6"));
	unit_test(t, full_volume_takes_windows_back);
	unit_test(t, many_windows_hold_little);
	unit_test(t, parallel_files_stay_whole);
	unit_test(threads, appends_syncs_and_truncates_together);
	return s;
}
