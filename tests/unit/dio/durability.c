/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of what the direct-I/O engine promises about durability: answered O_DSYNC and O_SYNC
 * writes survive a power cut, a durable overwrite costs one FUA write or one flush, and flushes are
 * shared. Failed flushes are in failed_flushes.c. HACKING.md has the tags.
 *
 * The fake device loses its cache and holds writes. All runs on the test's thread.
 */
#include "kit/engine.h"
#include "ext4/data/map.h"
#include "ext4/ext4.h"

/* O_DSYNC and O_SYNC writes that were answered survive a power cut that loses the cache. */
START_TEST(synchronous_writes_survive)
{
	for (unsigned m = 0; m < 8; m++) {
		struct engine *e = engine_new(
				&(struct engine_options){ .no_fua = m & 1, .stale = true });
		unsigned sync = m & 2 ? DIO_SYNC : DIO_DSYNC;
		if (m & 4) { /* overwrite of extents that are not committed yet */
			write_pattern(e, DIO_DIRECT, 0, 1, 4 * BLOCK);
			write_pattern(e, DIO_DIRECT | sync, 0, 7, 4 * BLOCK);
		} else {
			/* allocate and extend; then overwrite */
			write_pattern(e, DIO_DIRECT | sync, 0, 7, 2 * BLOCK);
			write_pattern(e, DIO_DIRECT | sync, 2 * BLOCK, 7, 2 * BLOCK);
			write_pattern(e, DIO_DIRECT | sync, BLOCK, 7, BLOCK);
		}
		struct engine *rebooted = engine_cut(e, FAKE_CUT_DROP, 0);
		ck_assert_uint_eq(ext4_inode_size(rebooted->inode), 4 * BLOCK);
		expect_pattern(rebooted, 0, 7, 4 * BLOCK);
		engine_close(rebooted);
		engine_close(e);
	}
}
END_TEST

START_TEST(o_sync_makes_mtime_durable)
{
	struct engine *e = engine_new(NULL);
	struct ext4_attr a, buf;

	make_extents(e, 1);
	struct timespec later = { .tv_sec = 2000000000 };
	fake_set_clock(e->fake, &later);
	write_pattern(e, DIO_DIRECT | DIO_SYNC, 0, 7, BLOCK);
	ext4_getattr(e->inode, &a);
	struct engine *rebooted = engine_cut(e, FAKE_CUT_DROP, 0);
	ext4_getattr(rebooted->inode, &buf);
	ck_assert_int_eq(a.mtime.tv_sec, buf.mtime.tv_sec);
	engine_close(rebooted);
	engine_close(e);
}
END_TEST

/*
 * A durable overwrite is FUA writes alone; on a device without FUA, or with metadata to commit, it
 * is plain writes and a flush.
 */
START_TEST(durable_overwrite_is_fua_or_one_flush)
{
	struct engine *e = engine_new(NULL);
	struct fake_stats stats;

	make_extents(e, 5);
	fake_stats_reset(e->fake);
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 0, 2, 5 * BLOCK);
	stats = fake_stats(e->fake);
	ck_assert_uint_eq(stats.fua, 5);
	ck_assert_uint_eq(stats.writes, 5);
	ck_assert_uint_eq(stats.flushes, 0);
	uint64_t fua = counter(COUNTER_dio_fua);
	fake_stats_reset(e->fake);
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 8 * BLOCK, 2, BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_fua), fua);
	ck_assert_uint_ge(fake_stats(e->fake).flushes, 1);
	engine_close(e);

	e = engine_new(&(struct engine_options){ .no_fua = true });
	make_extents(e, 5);
	fake_stats_reset(e->fake);
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 0, 2, 5 * BLOCK);
	stats = fake_stats(e->fake);
	ck_assert_uint_eq(stats.fua, 0);
	ck_assert_uint_eq(stats.writes, 5);
	ck_assert_uint_eq(stats.flushes, 1);
	engine_close(e);
}
END_TEST

/* As if a handle on the inode were cancelled, after the first piece was submitted with FUA. */
static void drop_map(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
		     bool after)
{
	struct engine *e = arg;

	(void)off;
	(void)len;
	if (kind != FAKE_WRITE || after)
		return;
	fake_set_hook(e->fake, NULL, NULL);
	ck_assert(flags & DEV_FUA);
	ext4_map_drop(e->inode);
}

/* The map is dropped after the first piece: the rest of the write is durable all the same. */
START_TEST(remainder_of_a_fua_write_is_flushed)
{
	struct engine *e = engine_new(NULL);
	static uint8_t media[BLOCK], want[BLOCK];

	make_extents(e, 3);
	uint64_t slow = counter(COUNTER_dio_write_slow);
	fake_set_hook(e->fake, drop_map, e);
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 0, 2, 3 * BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_write_slow) - slow, 1);
	for (unsigned k = 0; k < 3; k++) {
		fill_pattern(want, 2, k * BLOCK, BLOCK);
		fake_peek_media(e->fake, media, BLOCK, device_offset(e, k * BLOCK));
		ck_assert_mem_eq(media, want, BLOCK);
	}
	engine_close(e);
}
END_TEST

/*
 * If only times of a file have changed, in memory or in the running transaction, fdatasync and
 * O_DSYNC need no commit; fsync makes one.
 */
START_TEST(times_force_no_commit)
{
	struct engine *e = engine_new(NULL);

	make_extents(e, 2);
	uint64_t commits = counter(COUNTER_journal_commit), flushes = fake_stats(e->fake).flushes;
	write_pattern(e, DIO_DIRECT, 0, 2, BLOCK); /* the new mtime is in memory only */
	ck_assert_int_eq(engine_fsync(e, e->inode, true), 0);
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 0, 3, BLOCK);
	/* fdatasync flushes; O_DSYNC writes with FUA. */
	ck_assert_uint_eq(fake_stats(e->fake).flushes - flushes, 1);
	/* Now the mtime is in the running transaction. */
	ck_assert_int_eq(ext4_setattr(e->inode, EXT4_SET_MTIME_NOW, &(struct ext4_attr){ 0 }), 0);
	write_pattern(e, DIO_DIRECT, BLOCK, 4, BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, true), 0);
	flushes = fake_stats(e->fake).flushes;
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, BLOCK, 5, BLOCK);
	ck_assert_uint_eq(fake_stats(e->fake).flushes, flushes);
	ck_assert_uint_eq(counter(COUNTER_journal_commit), commits);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	ck_assert_uint_eq(counter(COUNTER_journal_commit), commits + 1);
	engine_close(e);
}
END_TEST

/* fdatasync flushes the data and leaves the new mtime in memory; fsync makes it durable. */
START_TEST(fsync_writes_times_alone)
{
	struct engine *e = engine_new(NULL);
	struct timespec later = { .tv_sec = 2000000000 };
	struct ext4_attr attr;

	make_extents(e, 1);
	fake_set_clock(e->fake, &later);
	write_pattern(e, DIO_DIRECT, 0, 2, BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, true), 0);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	struct engine *rebooted = engine_cut(e, FAKE_CUT_DROP, 0);
	ext4_getattr(rebooted->inode, &attr);
	ck_assert_int_eq(attr.mtime.tv_sec, later.tv_sec);
	engine_close(rebooted);
	engine_close(e);
}
END_TEST

/*
 * ---- joining a batch of fsyncs ----
 *
 * The linker sends journal_commit_wait_turn here. So a test can act after a batch has begun and
 * before it commits.
 */

void __real_journal_commit_wait_turn(struct journal *journal, journal_tid tid);
void __wrap_journal_commit_wait_turn(struct journal *journal, journal_tid tid);

static void (*at_turn)(void);
static struct joining {
	struct engine *e;
	struct ext4_inode *inode;
	struct dio_file *file;
	struct test_sync sync;
} joiner;

void __wrap_journal_commit_wait_turn(struct journal *journal, journal_tid tid)
{
	void (*fn)(void) = at_turn;

	at_turn = NULL;
	if (fn) {
		ck_assert_int_eq(journal_commit_wait(journal, tid, NULL), 0); /* not by the batch */
		fn();
	}
	__real_journal_commit_wait_turn(journal, tid);
}

static void join_batch(void)
{
	struct joining *joining = &joiner;
	uint8_t *buf = buffer_new(BLOCK);
	struct test_request req;

	fill_pattern(buf, 9, 0, BLOCK);
	engine_submit(joining->e, joining->file, &req, DIO_DIRECT | DIO_WRITE, 0, buf, BLOCK);
	while (!request_is_done(&req))
		ck_assert(work_queue_run_one(joining->e->workers));
	ck_assert_int_eq(req.res, BLOCK);
	sync_start(joining->e, &joining->sync, joining->inode, joining->file, true);
	free(buf);
}

static void expect_joined_write(struct engine *e)
{
	struct ext4_inode *inode = engine_file(e, "g");
	uint8_t *buf = buffer_new(BLOCK), *want = buffer_new(BLOCK);
	struct dio_file *file;
	struct test_request req;

	ck_assert_int_eq(dio_file_open(e->dio, inode, &file), 0);
	engine_submit(e, file, &req, 0, 0, buf, BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), BLOCK);
	fill_pattern(want, 9, 0, BLOCK);
	ck_assert_mem_eq(buf, want, BLOCK);
	dio_file_close(file);
	ext4_inode_put(inode);
	free(buf);
	free(want);
}

/*
 * Somebody else commits the transaction of a batch; then another fsync joins the batch. Its
 * overwrite (_i 0) is flushed, or its new block (1) committed, all the same.
 */
START_TEST(joiner_of_a_batch_is_served)
{
	struct engine *e = engine_new(&(struct engine_options){ .no_fua = true });

	joiner = (struct joining){ .e = e, .inode = engine_file(e, "g") };
	ck_assert_int_eq(dio_file_open(e->dio, joiner.inode, &joiner.file), 0);
	if (_i == 0)
		engine_write_block(e, joiner.file, 0);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	ck_assert_int_eq(engine_fsync_file(e, joiner.file), 0);
	/* The batch itself has nothing to flush. */
	ck_assert_int_eq(ext4_setattr(e->inode, EXT4_SET_MODE, &(struct ext4_attr){ .mode = 0600 }),
			 0);
	at_turn = join_batch;
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	ck_assert(joiner.sync.done);
	ck_assert_int_eq(joiner.sync.err, 0);
	struct engine *rebooted = engine_cut(e, FAKE_CUT_DROP, 0);
	expect_joined_write(rebooted);
	engine_close(rebooted);
	dio_file_close(joiner.file);
	ext4_inode_put(joiner.inode);
	engine_close(e);
}
END_TEST

/*
 * A commit fails before its flush. Those of its batch that need a flush only get one of their own,
 * and succeed.
 */
START_TEST(failed_commit_flushes_for_the_others)
{
	struct engine *e = engine_new(&(struct engine_options){ .no_fua = true });
	struct joining *joining = &joiner;
	struct test_sync test_sync;

	*joining = (struct joining){ .e = e, .inode = engine_file(e, "g") };
	ck_assert_int_eq(dio_file_open(e->dio, joining->inode, &joining->file), 0);
	engine_write_block(e, joining->file, 0);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	write_pattern(e, DIO_DIRECT, 0, 1, BLOCK);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .sync_only = true,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	sync_start(e, &test_sync, e->inode, e->file, true);
	join_batch();
	engine_pump(e);
	ck_assert(test_sync.done && joining->sync.done);
	ck_assert_int_eq(test_sync.err, -EIO);
	ck_assert_int_eq(joining->sync.err, 0);
	fake_fault_clear(e->fake);
	struct engine *rebooted = engine_cut(e, FAKE_CUT_DROP, 0);
	expect_joined_write(rebooted);
	engine_close(rebooted);
	dio_file_close(joining->file);
	ext4_inode_put(joining->inode);
	engine_close_nocheck(e);
}
END_TEST

/* Nothing is flushed if nothing was written, or the write failed. */
START_TEST(no_flush_without_data)
{
	struct engine *e = engine_new(&(struct engine_options){ .no_fua = true });
	void *buf = buffer_new(BLOCK);

	make_extents(e, 1);
	fake_stats_reset(e->fake);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE | DIO_DSYNC, 0, buf, BLOCK), -EIO);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE | DIO_DSYNC, 0, buf, 0), 0);
	fake_fault_clear(e->fake);
	ck_assert_uint_eq(fake_stats(e->fake).flushes, 0);
	free(buf);
	engine_close(e);

	/* fsync of a file without unflushed data */
	e = engine_new(NULL);
	make_extents(e, 1);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	fake_stats_reset(e->fake);
	uint64_t clean = counter(COUNTER_dio_sync_clean);
	ck_assert_int_eq(engine_fsync(e, e->inode, true), 0);
	ck_assert_uint_eq(fake_stats(e->fake).flushes, 0);
	ck_assert_uint_eq(counter(COUNTER_dio_sync_clean) - clean, 1);
	write_pattern(e, DIO_DIRECT, 0, 2, BLOCK);
	ck_assert_int_eq(engine_fsync(e, e->inode, true), 0);
	ck_assert_uint_eq(fake_stats(e->fake).flushes, 1);
	engine_close(e);
}
END_TEST

/* One flush serves many writes that completed before it was submitted. */
#define MANY 100
static struct engine *many_engine;
static uint64_t many_addr[MANY];
static unsigned many_done;
static struct test_request many[MANY];
static void many_finished(struct dio_req *req, ssize_t res)
{
	unsigned k = container_of(req, struct test_request, req) - many;
	uint8_t media[512];

	ck_assert_int_eq(res, BLOCK);
	fake_peek_media(many_engine->fake, media, 512, many_addr[k]);
	ck_assert_mem_eq(media, req->buf, 512); /* durable when answered */
	many_done++;
}

START_TEST(flushes_are_shared)
{
	struct engine *e = engine_new(&(struct engine_options){ .no_fua = true });
	uint8_t *buf = buffer_new(MANY * BLOCK);

	write_pattern(e, DIO_DIRECT, 0, 1, MANY * BLOCK);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	many_engine = e;
	many_done = 0;
	fill_pattern(buf, 2, 0, MANY * BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 77);
	for (unsigned k = 0; k < MANY; k++) {
		many_addr[k] = device_offset(e, k * BLOCK);
		many[k].req = (struct dio_req){ .file = e->file,
						.pos = k * BLOCK,
						.len = BLOCK,
						.flags = DIO_DIRECT | DIO_WRITE | DIO_DSYNC,
						.buf = buf + k * BLOCK,
						.buf_index = -1,
						.done = many_finished };
		dio_submit(e->dio, &many[k].req);
	}
	ck_assert_uint_eq(fake_held(e->fake), MANY);
	fake_stats_reset(e->fake);
	for (unsigned k = 0; k < MANY; k++) {
		fake_complete(e->fake, (k * 37) % fake_held(e->fake));
		if (k % 25 == 20)
			engine_pump(e); /* a batch starts while others are still in flight */
	}
	engine_pump(e);
	ck_assert_uint_eq(many_done, MANY);
	ck_assert_uint_le(fake_stats(e->fake).flushes, 5);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(buf);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: durability");
	TCase *t = unit_case(s, "alone", 60);

	engine_use_template(t);
	unit_test(t, synchronous_writes_survive, PROVES("ENGINE-5 SYNC-1"));
	unit_test(t, o_sync_makes_mtime_durable);
	unit_test(t, durable_overwrite_is_fua_or_one_flush, PROVES("ENGINE-5 SYNC-2"));
	unit_test(t, remainder_of_a_fua_write_is_flushed, PROVES("SYNC-2"));
	unit_test(t, times_force_no_commit);
	unit_test(t, fsync_writes_times_alone);
	unit_test(t, no_flush_without_data, PROVES("SYNC-3"));
	unit_test(t, flushes_are_shared, PROVES("ENGINE-5 SYNC-4"));
	unit_loop(t, joiner_of_a_batch_is_served, 0, 2, PROVES("SYNC-4"));
	unit_test(t, failed_commit_flushes_for_the_others, PROVES("SYNC-4"));
	return s;
}
