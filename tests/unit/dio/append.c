/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Appends into the window: without a worker, in order, and none of what a window holds shows or is
 * lost. Everything runs on the test's thread but the last test.
 */
#include "kit/engine.h"
#include "base/nowait.h"
#include "ext4/data/map.h"
#include "ext4/ext4.h"

#include <pthread.h>
#include <unistd.h>

/* A file of n blocks (at least 2) with a window behind it. */
static struct engine *with_window(const struct engine_options *o, unsigned n)
{
	struct engine *e = engine_new(o);

	for (unsigned k = 0; k < n; k++)
		write_pattern(e, 0, k * BLOCK, 1, BLOCK);
	ck_assert_uint_gt(ext4_window_end(e->inode), ext4_inode_size(e->inode));
	return e;
}

static uint64_t blocks_512(struct engine *e)
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

static void *cutting_thread(void *arg)
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

START_TEST(one_device_request_and_no_handle)
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
	ck_assert_uint_eq(blocks_512(e), 10 * BLOCK / 512);
	expect_pattern(e, 0, 1, 10 * BLOCK);
	/* A lost map is built from the tree and the window. */
	ext4_map_drop(e->inode);
	expect_pattern(e, 0, 1, 10 * BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	ck_assert_uint_eq(counter(COUNTER_ext4_window_settled), settled + 1);
	ck_assert_uint_eq(ext4_window_unsettled(e->inode), 0);
	ck_assert_uint_eq(blocks_512(e), 10 * BLOCK / 512);
	engine_close(e);
}
END_TEST

/*
 * The last file is closed by a loop thread, which has looked and found no window, when there is one
 * by now: nothing waits, and nothing of what was appended is lost.
 */
START_TEST(closed_by_a_loop_thread)
{
	struct engine *e = with_window(NULL, 2);

	for (unsigned k = 2; k < 6; k++)
		write_pattern(e, DIO_DIRECT, k * BLOCK, 1, BLOCK);
	ck_assert_uint_eq(ext4_window_unsettled(e->inode), 4);
	nowait_begin();
	nowait_self.fail_at = 1; /* a lock that is taken, or room in the log */
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
 * A window whose blocks cannot be put into the tree when it must end: what was answered and is gone
 * now is told by fsync.
 */
#ifndef FDIO_DEBUG_LOCKS
START_TEST(what_is_given_up_is_told)
{
	struct engine *e = with_window(NULL, 2);

	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	for (unsigned k = 2; k < 6; k++)
		write_pattern(e, DIO_DIRECT, k * BLOCK, 1, BLOCK);
	ext4_inode_lock_exclusive(e->inode);
	nowait_begin();
	nowait_self.fail_at = 1; /* the journal would have to be waited for */
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

/* As without memory (the linker sends ext4_blocks_claim here). */
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
 * Blocks that are given up have been read: they belong to nobody else while a read is in flight.
 * Given up by a write, by a full volume.
 */
START_TEST(what_is_given_up_is_not_read)
{
	struct engine *e =
			with_window(&(struct engine_options){ .threads = 1, .relaxed = true }, 2);
	uint64_t held = e->vol->data.window_blocks, available = ext4_blocks_available(e->vol, true);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	uint8_t *b = buffer_new(BLOCK), *want = buffer_new(BLOCK), *w = buffer_new(BLOCK);
	struct test_request req, tw;
	pthread_t th;

	for (unsigned k = 2; k < 6; k++)
		write_pattern(e, 0, k * BLOCK, 1, BLOCK);
	fill_pattern(want, 1, 3 * BLOCK, BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, 0, 3 * BLOCK, b, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	__atomic_store_n(&claim_fails, true, __ATOMIC_SEQ_CST);
	if (_i)
		ck_assert_int_eq(pthread_create(&th, NULL, reclaim_thread, e), 0);
	else
		engine_submit(e, e->file, &tw, DIO_WRITE, 6 * BLOCK, w, 100);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert_uint_eq(e->vol->data.window_blocks, held);
	ck_assert_uint_eq(ext4_blocks_available(e->vol, true), available);
	fake_complete(e->fake, 0);
	if (_i)
		pthread_join(th, NULL);
	else
		ck_assert_int_eq(engine_wait(e, &tw), -ENOMEM);
	__atomic_store_n(&claim_fails, false, __ATOMIC_SEQ_CST);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_int_eq(engine_wait(e, &req), BLOCK);
	ck_assert_mem_eq(b, want, BLOCK);
	ck_assert_uint_eq(e->vol->data.window_blocks, 0);
	ck_assert_uint_gt(ext4_blocks_available(e->vol, true), available);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 2 * BLOCK);
	free(b);
	free(want);
	free(w);
	engine_close(e);
}
END_TEST

/*
 * Two halves of one call: the second one's data is there first, but nobody sees it before the first
 * one's.
 */
START_TEST(published_in_order)
{
	struct engine *e = with_window(NULL, 2);
	uint8_t *b = buffer_new(4 * BLOCK), *r = buffer_new(BLOCK);
	struct test_request t1, t2;

	fill_pattern(b, 1, 2 * BLOCK, 4 * BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &t1, DIO_WRITE, 2 * BLOCK, b, 3 * BLOCK);
	engine_submit(e, e->file, &t2, DIO_WRITE, 5 * BLOCK, b + 3 * BLOCK, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 2);
	fake_complete(e->fake, 1);
	ck_assert(!request_is_done(&t2));
	ck_assert_uint_eq(ext4_inode_size(e->inode), 2 * BLOCK);
	ck_assert_int_eq(engine_io(e, 0, 2 * BLOCK, r, BLOCK), 0);
	fake_complete(e->fake, 0);
	ck_assert(request_is_done(&t1) && request_is_done(&t2));
	ck_assert_uint_eq(ext4_inode_size(e->inode), 6 * BLOCK);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	expect_pattern(e, 0, 1, 6 * BLOCK);
	free(b);
	free(r);
	engine_close(e);
}
END_TEST

/*
 * The first of three fails: the others are written again where they belong, with a hole in front of
 * them.
 */
START_TEST(failure_in_the_middle)
{
	struct engine *e = with_window(NULL, 2);
	uint8_t *b = buffer_new(3 * BLOCK), *r = buffer_new(BLOCK);
	struct test_request req[3];

	fill_pattern(b, 1, 2 * BLOCK, 3 * BLOCK);
	uint64_t addr = device_offset(e, 2 * BLOCK);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .action = FAKE_ERROR,
						      .err = -EIO,
						      .off = addr,
						      .len = BLOCK,
						      .repeat = 1 });
	fake_set_mode(e->fake, FAKE_HELD, 0);
	for (unsigned k = 0; k < 3; k++)
		engine_submit(e, e->file, &req[k], DIO_WRITE, (2 + k) * BLOCK, b + k * BLOCK,
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
	ck_assert_int_eq(engine_io(e, 0, 2 * BLOCK, r, BLOCK), BLOCK);
	ck_assert(all_bytes(r, 0, BLOCK));
	expect_pattern(e, 3 * BLOCK, 1, 2 * BLOCK);
	expect_pattern(e, 0, 1, 2 * BLOCK);
	free(b);
	free(r);
	engine_close(e);
}
END_TEST

/* What a power cut leaves after what kind of sync. */
START_TEST(durable_when_synced)
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
		/* An overwrite of what may not be in the tree yet. */
		write_pattern(e, 0, 4 * BLOCK, 1, BLOCK);
		write_pattern(e, DIO_DSYNC, 4 * BLOCK, 2, BLOCK);
		write_pattern(e, 0, 5 * BLOCK, 3, BLOCK);
		struct engine *n = engine_cut(e, FAKE_CUT_DROP, how);
		ck_assert_uint_eq(ext4_inode_size(n->inode), 5 * BLOCK);
		expect_pattern(n, 0, 1, 4 * BLOCK);
		expect_pattern(n, 4 * BLOCK, 2, BLOCK);
		engine_close(n);
		engine_close(e);
	}
}
END_TEST

/*
 * Not synced: old or new, never what the blocks held before; and the tree never says more than the
 * size.
 */
START_TEST(cut_anywhere)
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
		struct engine *n = engine_on(
				fake_record_cut(e->fake, k, k % 2 ? FAKE_CUT_RANDOM : FAKE_CUT_DROP,
						k),
				NULL);
		uint64_t size = ext4_inode_size(n->inode);
		ck_assert(size % BLOCK == 0 && size <= 7 * BLOCK);
		if (size)
			expect_pattern(n, 0, 1, size);
		if (k == events)
			ck_assert_uint_eq(size, 7 * BLOCK);
		engine_close(n);
	}
	fake_record_stop(e->fake);
	engine_close(e);
}
END_TEST

/* Whatever else moves the size or maps blocks ends the window first; nothing of it stays. */
START_TEST(ended_by_other_changes)
{
	for (unsigned how = 0; how < 7; how++) {
		struct engine *e = with_window(
				&(struct engine_options){ .relaxed = true, .stale = true }, 3);
		uint8_t *r = buffer_new(16 * BLOCK);

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
		ck_assert_int_eq(engine_io(e, 0, 0, r, 16 * BLOCK), size);
		if (how == 4)
			expect_pattern(e, 4 * BLOCK, 1, 100);
		else if (how == 5)
			ck_assert(all_bytes(r + 4 * BLOCK, 0, 3 * BLOCK + 5));
		else if (how == 6)
			ck_assert(all_bytes(r + 4 * BLOCK, 0, 3 * BLOCK));
		else
			ck_assert(all_bytes(r + same, 0, size - same));
		engine_truncate(e, e->inode, 12 * BLOCK);
		ck_assert_int_eq(engine_io(e, 0, 0, r, 16 * BLOCK), 12 * BLOCK);
		ck_assert(all_bytes(r + size, 0, 12 * BLOCK - size));
		free(r);
		engine_close(e);
	}
}
END_TEST

/*
 * With an append in flight, the next one begins where that ends, and not behind it: what lies
 * between was never written.
 */
START_TEST(a_gap_behind_an_append)
{
	struct engine *e = with_window(&(struct engine_options){ .stale = true }, 2);
	uint64_t slow = counter(COUNTER_dio_write_slow);
	uint8_t *b = buffer_new(2 * BLOCK), *r = buffer_new(BLOCK);
	struct test_request req[2];

	fill_pattern(b, 1, 2 * BLOCK, BLOCK);
	fill_pattern(b + BLOCK, 1, 5 * BLOCK, BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req[0], DIO_WRITE, 2 * BLOCK, b, BLOCK);
	engine_submit(e, e->file, &req[1], DIO_WRITE, 5 * BLOCK, b + BLOCK, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	fake_complete(e->fake, 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_int_eq(engine_wait(e, &req[0]), BLOCK);
	ck_assert_int_eq(engine_wait(e, &req[1]), BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_write_slow), slow + 1);
	for (unsigned k = 3; k < 5; k++) {
		ck_assert_int_eq(engine_io(e, 0, k * BLOCK, r, BLOCK), BLOCK);
		ck_assert(all_bytes(r, 0, BLOCK));
	}
	expect_pattern(e, 0, 1, 3 * BLOCK);
	expect_pattern(e, 5 * BLOCK, 1, BLOCK);
	free(b);
	free(r);
	engine_close(e);
}
END_TEST

/*
 * No window over blocks that are set aside behind the end, by this mount or one before: what is
 * appended goes into those.
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
	ck_assert_uint_gt(ext4_window_end(e->inode), 0); /* behind them there is one again */
	expect_pattern(e, 0, 1, 12 * BLOCK);
	ext4_map_drop(e->inode);
	expect_pattern(e, 0, 1, 12 * BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	struct engine *n = engine_cut(e, FAKE_CUT_DROP, 0);
	expect_pattern(n, 0, 1, 12 * BLOCK);
	engine_close(n);
	engine_close(e);
	if (_i)
		engine_close(old);
}
END_TEST

/* A truncate waits for an append in flight, and its blocks are not given away before. */
START_TEST(truncate_waits)
{
	struct engine *e = with_window(&(struct engine_options){ .threads = 1 }, 2);
	uint8_t *b = buffer_new(BLOCK);
	struct test_request req;
	pthread_t th;

	fill_pattern(b, 1, 2 * BLOCK, BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, DIO_WRITE, 2 * BLOCK, b, BLOCK);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	ck_assert_int_eq(pthread_create(&th, NULL, truncate_thread, e), 0);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 2 * BLOCK);
	fake_complete(e->fake, 0);
	pthread_join(th, NULL);
	ck_assert_int_eq(engine_wait(e, &req), BLOCK);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_uint_eq(ext4_inode_size(e->inode), BLOCK);
	expect_pattern(e, 0, 1, BLOCK);
	free(b);
	engine_close(e);
}
END_TEST

/* A full volume takes back what was set aside for another file. */
START_TEST(reclaimed_when_full)
{
	struct engine *e = with_window(NULL, 2);
	struct ext4_inode *inode = engine_file(e, "g");
	struct dio_file *gf;
	uint8_t *b = buffer_new(BLOCK);
	struct test_request req;
	struct ext4_statfs stats;
	uint64_t pos = 0;

	ck_assert_int_eq(dio_file_open(e->dio, inode, &gf), 0);
	memset(b, 'g', BLOCK);
	for (;;) { /* every other block: no stream, no window */
		engine_submit(e, gf, &req, DIO_WRITE | DIO_ROOT, pos, b, BLOCK);
		if (engine_wait(e, &req) != BLOCK)
			break;
		pos += 2 * BLOCK;
	}
	ck_assert_int_eq(req.res, -ENOSPC);
	ck_assert_uint_eq(ext4_window_end(e->inode), 0);
	ext4_vol_statfs(e->vol, &stats);
	ck_assert_uint_lt(stats.bfree, 128); /* what is kept for the tree */
	expect_pattern(e, 0, 1, 2 * BLOCK);
	dio_file_close(gf);
	ext4_inode_put(inode);
	free(b);
	engine_close(e);
}
END_TEST

/*
 * However many files grow, their windows hold a small part of what is free; and who makes names in
 * a full volume gets that too.
 */
START_TEST(many_windows_hold_little)
{
	enum { FILES = 60 };
	struct engine *e = engine_new(NULL);
	const struct ext4_credentials credentials = { .cap_fsetid = true };
	struct ext4_inode *root, *inode[FILES], *dir;
	struct dio_file *file[FILES];
	uint8_t *b = buffer_new(BLOCK);
	uint64_t since = ext4_evictions(e->vol), available = ext4_blocks_available(e->vol, true);
	unsigned windows = 0;
	struct test_request req;
	char name[16];
	int err = 0;

	ck_assert_int_eq(ext4_inode_get(e->vol, EXT4_ROOT_INO, NULL, &root), 0);
	memset(b, 'w', BLOCK);
	for (unsigned k = 0; k < FILES; k++) {
		snprintf(name, sizeof(name), "w%u", k);
		ck_assert_int_eq(ext4_create(root, name, (unsigned)strlen(name), 0100644, 0,
					     &credentials, &inode[k]),
				 0);
		ck_assert_int_eq(dio_file_open(e->dio, inode[k], &file[k]), 0);
		for (unsigned n = 0; n < 3; n++) {
			engine_submit(e, file[k], &req, DIO_WRITE | DIO_ROOT, n * BLOCK, b, BLOCK);
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
	ck_assert(!ext4_space_has_come(e->vol, -ENOSPC, &since)); /* asked once */
	for (unsigned k = 0; k < FILES; k++) {
		ck_assert_uint_eq(ext4_inode_size(inode[k]), 3 * BLOCK);
		dio_file_close(file[k]);
		ext4_inode_put(inode[k]);
	}
	ext4_inode_put(root);
	free(b);
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
	uint8_t *b = buffer_new(4 * BLOCK);
	struct test_request req;

	for (unsigned k = 0; k < 3; k++) {
		inode[k] = engine_file(e, names[k]);
		ck_assert_int_eq(dio_file_open(e->dio, inode[k], &file[k]), 0);
	}
	for (unsigned n = 0; n < 100; n++)
		for (unsigned k = 0; k < 3; k++) {
			engine_submit(e, file[k], &req, DIO_WRITE, n * 4 * BLOCK, b, 4 * BLOCK);
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
		if (k) /* "file" is open once more */
			ck_assert_uint_eq(ext4_window_end(inode[k]), 0);
		ext4_inode_put(inode[k]);
	}
	free(b);
	engine_close(e);
}
END_TEST

/* Appends, syncs, reads and truncates at once, with completions in any order. */
START_TEST(threads_together)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2 });
	struct load load = { .e = e };
	pthread_t th[2];

	fake_set_mode(e->fake, FAKE_THREAD, 5);
	ck_assert_int_eq(pthread_create(&th[0], NULL, syncing_thread, &load), 0);
	ck_assert_int_eq(pthread_create(&th[1], NULL, cutting_thread, &load), 0);
	uint8_t *b = buffer_new(8 * BLOCK);
	struct test_request req[2];
	for (unsigned n = 0; n < 300; n++) {
		uint64_t pos = fdio_round_up(ext4_inode_size(e->inode), BLOCK);
		if (pos > 1024 * BLOCK)
			pos = 0;
		fill_pattern(b, 1, pos, 8 * BLOCK);
		engine_submit(e, e->file, &req[0], DIO_WRITE, pos, b, 5 * BLOCK);
		engine_submit(e, e->file, &req[1], DIO_WRITE, pos + 5 * BLOCK, b + 5 * BLOCK,
			      3 * BLOCK);
		ck_assert_int_eq(engine_wait(e, &req[0]), 5 * BLOCK);
		ck_assert_int_eq(engine_wait(e, &req[1]), 3 * BLOCK);
	}
	__atomic_store_n(&load.stop, true, __ATOMIC_RELEASE);
	pthread_join(th[0], NULL);
	pthread_join(th[1], NULL);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	uint64_t size = ext4_inode_size(e->inode);
	uint8_t *r = buffer_new(size + 1), *want = buffer_new(size + 1);
	ck_assert_int_eq(engine_io(e, 0, 0, r, size), size);
	fill_pattern(want, 1, 0, size);
	uint64_t k = 0;
	while (k < size && (r[k] == want[k] || !r[k]))
		k++;
	ck_assert_uint_eq(k, size);
	free(b);
	free(r);
	free(want);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: append");
	TCase *t = unit_case(s, "append", 60), *th = unit_case(s, "threads", 60);

	engine_use_template(t);
	engine_use_template(th);
	unit_test(t, one_device_request_and_no_handle);
	unit_test(t, closed_by_a_loop_thread);
/* the error is made by the mode of loop threads, in which a window is not closed: asserted there */
#ifndef FDIO_DEBUG_LOCKS
	unit_test(t, what_is_given_up_is_told);
#endif
	unit_loop(t, what_is_given_up_is_not_read, 0, 2);
	unit_test(t, published_in_order, PROVES("WINDOW-4"));
	unit_test(t, failure_in_the_middle);
	unit_test(t, durable_when_synced);
	unit_test(t, cut_anywhere, PROVES("ENGINE-4"));
	unit_test(t, ended_by_other_changes, PROVES("WINDOW-2"));
	unit_test(t, a_gap_behind_an_append);
	unit_loop(t, no_window_over_preallocated_blocks, 0, 2, PROVES("WINDOW-1"));
	unit_test(t, truncate_waits, PROVES("ENGINE-6"));
	unit_test(t, reclaimed_when_full);
	unit_test(t, many_windows_hold_little);
	unit_test(t, parallel_files_stay_whole);
	unit_test(th, threads_together);
	return s;
}
