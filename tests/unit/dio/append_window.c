/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the append window itself (ext4/data/append_window.c), as the engine uses it: when a
 * window begins, what ends it, and that its blocks are neither lost nor given to another file too
 * early. append.c has the tests of the appends.
 *
 * The engine works over a volume on the fake device, which holds and fails writes. All runs on the
 * test's thread unless a test sets threads.
 */
#include "kit/engine.h"
#include "base/nowait.h"
#include "ext4/data/map.h"
#include "ext4/ext4.h"

#include <pthread.h>

/*
 * A loop thread closes the last open file and would have to wait to end the window: a worker ends
 * it instead, and nothing of what was appended is lost.
 */
START_TEST(close_by_a_loop_thread_loses_nothing)
{
	struct engine *e = engine_with_window(NULL, 2);

	for (unsigned k = 2; k < 6; k++)
		write_pattern(e, DIO_DIRECT, k * BLOCK, 1, BLOCK);
	ck_assert_uint_eq(ext4_window_unsettled(e->inode), 4);
	nowait_begin();
	nowait_self.fail_at = 1; /* as if a lock were held or the log full */
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
 * The window must end but its blocks cannot be put into the extent tree. Appends that were answered
 * are lost, and the next fsync, but not the one after it, returns -EIO. Not in the debug build,
 * which asserts that no window is closed in the mode of loop threads.
 */
#ifndef FDIO_DEBUG_LOCKS
START_TEST(fsync_tells_of_appends_given_up)
{
	struct engine *e = engine_with_window(NULL, 2);

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

/* --wrap: ext4_blocks_claim fails on command, as it does without memory. */
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
 * A window is given up because its blocks cannot be claimed: by a write that is no append (_i 0),
 * or because the volume is full (_i 1). Its blocks do not become free while a read of them is in
 * flight.
 */
START_TEST(blocks_are_not_given_up_under_a_read)
{
	const struct engine_options options = { .threads = 1, .relaxed = true };
	struct engine *e = engine_with_window(&options, 2);
	uint64_t held = e->vol->data.window_blocks, available = ext4_blocks_available(e->vol, true);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	uint8_t *buf = buffer_new(BLOCK), *want = buffer_new(BLOCK), *data = buffer_new(BLOCK);
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
		engine_submit(e, e->file, &writing, DIO_WRITE, 6 * BLOCK, data, 100);
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
	free(data);
	engine_close(e);
}
END_TEST

/*
 * Any other change of the size or of the extent map ends the window first: no block of the window
 * stays allocated behind the end of the file, and nothing shows what the blocks held before.
 */
START_TEST(other_changes_end_the_window)
{
	for (unsigned how = 0; how < 7; how++) {
		const struct engine_options options = { .relaxed = true, .stale = true };
		struct engine *e = engine_with_window(&options, 3);
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
		/* whole blocks inside the window, but not at the end of the file */
		case 6: write_pattern(e, 0, 7 * BLOCK, 1, BLOCK); break;
		}
		ck_assert_uint_eq(ext4_window_end(e->inode), 0);
		uint64_t size = ext4_inode_size(e->inode), same = 4 * BLOCK;
		if (how == 0)
			same = size;
		else if (how == 3)
			same = 3 * BLOCK;
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
 * If blocks are preallocated behind the end, by this mount (_i 0) or an earlier one (_i 1), no
 * window is opened over them: appends are written into those blocks.
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
	ck_assert_uint_gt(ext4_window_end(e->inode), 0); /* a window behind them */
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

/* A write that finds the volume full gets the blocks set aside in the window of another file. */
START_TEST(full_volume_takes_windows_back)
{
	struct engine *e = engine_with_window(NULL, 2);
	struct ext4_inode *inode = engine_file(e, "g");
	struct dio_file *other_file;
	uint8_t *buf = buffer_new(BLOCK);
	struct test_request req;
	struct ext4_statfs stats;
	uint64_t pos = 0;

	ck_assert_int_eq(dio_file_open(e->dio, inode, &other_file), 0);
	memset(buf, 'g', BLOCK);
	for (;;) { /* every other block, so that g gets no window */
		engine_submit(e, other_file, &req, DIO_WRITE | DIO_ROOT, pos, buf, BLOCK);
		if (engine_wait(e, &req) != BLOCK)
			break;
		pos += 2 * BLOCK;
	}
	ck_assert_int_eq(req.res, -ENOSPC);
	ck_assert_uint_eq(ext4_window_end(e->inode), 0);
	ext4_vol_statfs(e->vol, &stats);
	ck_assert_uint_lt(stats.bfree, 128); /* the rest is kept for extent trees */
	expect_pattern(e, 0, 1, 2 * BLOCK);
	dio_file_close(other_file);
	ext4_inode_put(inode);
	free(buf);
	engine_close(e);
}
END_TEST

/*
 * However many files grow, their windows hold at most an eighth of the free blocks. When the volume
 * is full, creating a name gets these blocks too.
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
	ck_assert(!ext4_space_has_come(e->vol, -ENOSPC, &since)); /* no window is left */
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

/* Files that grow at the same time get few extents each: their blocks do not alternate. */
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

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: append window");
	TCase *t = unit_case(s, "append window", 60);

	engine_use_template(t);
	unit_test(t, close_by_a_loop_thread_loses_nothing);
#ifndef FDIO_DEBUG_LOCKS
	unit_test(t, fsync_tells_of_appends_given_up);
#endif
	unit_loop(t, blocks_are_not_given_up_under_a_read, 0, 2);
	unit_test(t, other_changes_end_the_window, PROVES("WINDOW-2"));
	unit_loop(t, no_window_over_preallocated_blocks, 0, 2, PROVES("WINDOW-1"));
	unit_test(t, full_volume_takes_windows_back);
	unit_test(t, many_windows_hold_little);
	unit_test(t, parallel_files_stay_whole);
	return s;
}
