/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of what new blocks of a file contain: what a write leaves out of them is zero, extents
 * and size are published after their data (DIO-4), and no power cut shows what the blocks held
 * before (ENGINE-4).
 *
 * Free blocks of the volume hold stale data, which the tests look for. The fake device records
 * writes and cuts the power after each of them. All runs on the test's thread but in the case
 * "threads".
 */
#include "kit/engine.h"
#include "ext4/core/structs.h"
#include "ext4/ext4.h"

#include <pthread.h>

/* Calls check after a cut at each recorded event; every step-th volume is checked by e2fsck too. */
static void check_every_cut(struct engine *e, unsigned step, void (*check)(struct engine *rebooted))
{
	unsigned events = fake_record_events(e->fake);
	static const enum fake_cut modes[] = { FAKE_CUT_DROP, FAKE_CUT_KEEP, FAKE_CUT_RANDOM };

	ck_assert_uint_gt(events, 2);
	for (unsigned k = 0; k <= events; k++)
		for (unsigned m = 0; m < 3; m++) {
			struct engine_options o = e->opt;
			o.stale = false;
			struct engine *rebooted = engine_on(
					fake_record_cut(e->fake, k, modes[m], k * 7 + 1), &o);
			check(rebooted);
			if ((k * 3 + m) % step == 0)
				engine_close(rebooted);
			else
				engine_close_nocheck(rebooted);
		}
}

static void check_not_stale(struct engine *rebooted)
{
	uint64_t size = ext4_inode_size(rebooted->inode);
	uint8_t *buf = buffer_new(16 * BLOCK), *want = buffer_new(16 * BLOCK);

	ck_assert_uint_le(size, 16 * BLOCK);
	ck_assert_int_eq(engine_io(rebooted, 0, 0, buf, 16 * BLOCK), size);
	fill_pattern(want, 7, 0, 16 * BLOCK);
	uint64_t k = 0;
	while (k + 1 < size && (buf[k] == 0 || buf[k] == want[k]))
		k++;
	if (size)
		ck_assert_msg(buf[k] == 0 || buf[k] == want[k],
			      "byte %llu is %#x: neither zero nor new", (unsigned long long)k,
			      buf[k]);
	free(buf);
	free(want);
}

/*
 * What a write leaves out of a new block is zero, also behind the end of the file, and no cut shows
 * what the block held before.
 */
START_TEST(edges_of_new_blocks_are_zero)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint8_t *buf = buffer_new(16 * BLOCK);

	fake_record_start(e->fake);
	/* extends; leaves out the head and the tail of the block */
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 3 * BLOCK + 512, 7, 512);
	/* parts of two blocks inside the size */
	write_pattern(e, DIO_DIRECT, BLOCK + 1024, 7, BLOCK);
	/* leaves a gap in the block with the old end */
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 3 * BLOCK + 2048, 7, 512);
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 9 * BLOCK + 3584, 7, 512);
	check_every_cut(e, 16, check_not_stale);
	fake_record_stop(e->fake);
	ck_assert_int_eq(engine_io(e, 0, 0, buf, 16 * BLOCK), 10 * BLOCK);
	ck_assert(no_byte(buf, 0xa5, 10 * BLOCK));
	expect_pattern(e, 3 * BLOCK + 512, 7, 512);
	expect_pattern(e, BLOCK + 1024, 7, BLOCK);
	expect_pattern(e, 3 * BLOCK + 2048, 7, 512);
	ck_assert(all_bytes(buf, 0, BLOCK + 1024));
	ck_assert(all_bytes(buf + 3 * BLOCK + 1024, 0, 1024));
	/* One byte far behind makes the rest of the last block visible. */
	write_pattern(e, 0, 12 * BLOCK, 7, 1);
	ck_assert_int_eq(engine_io(e, 0, 3 * BLOCK, buf, 9 * BLOCK), 9 * BLOCK);
	ck_assert(no_byte(buf, 0xa5, 9 * BLOCK));
	free(buf);
	engine_close(e);
}
END_TEST

/* Buffered writes of any length: the gap between the old end and the new data reads as zeroes. */
START_TEST(gap_behind_the_end_reads_as_zeroes)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint8_t *buf = buffer_new(8 * BLOCK);

	/* Behind the end, the block holds stale data. */
	memset(buf, 0xa5, BLOCK);
	write_pattern(e, 0, 0, 7, 700);
	fake_poke(e->fake, buf, BLOCK - 700, device_offset(e, 0) + 700);
	write_pattern(e, 0, 1500, 7, 10);
	fake_poke(e->fake, buf, BLOCK - 1510, device_offset(e, 0) + 1510);
	write_pattern(e, 0, 3 * BLOCK + 5, 7, 20);
	ck_assert_int_eq(engine_io(e, 0, 0, buf, 8 * BLOCK), 3 * BLOCK + 25);
	ck_assert(all_bytes(buf + 700, 0, 800));
	ck_assert(all_bytes(buf + 1510, 0, 3 * BLOCK + 5 - 1510));
	expect_pattern(e, 0, 7, 700);
	expect_pattern(e, 1500, 7, 10);
	expect_pattern(e, 3 * BLOCK + 5, 7, 20);
	free(buf);
	engine_close(e);
}
END_TEST

/*
 * An unwritten extent is converted only after its data is on the device: any cut shows zeroes or
 * the new data.
 */
START_TEST(conversion_follows_the_data)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	struct ext4_extent extent;

	engine_fallocate(e, 0, 0, 8 * BLOCK);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	ck_assert_int_eq(ext4_map_lookup(e->inode, 2, &extent), 0);
	ck_assert_int_eq(extent.state, EXT4_EXTENT_UNWRITTEN);
	fake_record_start(e->fake);
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 2 * BLOCK, 7, 2 * BLOCK);
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 5 * BLOCK + 512, 7, 1024);
	check_every_cut(e, 16, check_not_stale);
	fake_record_stop(e->fake);
	expect_pattern(e, 2 * BLOCK, 7, 2 * BLOCK);
	expect_pattern(e, 5 * BLOCK + 512, 7, 1024);
	ck_assert_int_eq(ext4_map_lookup(e->inode, 2, &extent), 0);
	ck_assert_int_eq(extent.state, EXT4_EXTENT_WRITTEN);
	ck_assert_int_eq(ext4_map_lookup(e->inode, 6, &extent), 0);
	ck_assert_int_eq(extent.state, EXT4_EXTENT_UNWRITTEN);
	engine_close(e);
}
END_TEST

/* For size_follows_the_data: the largest size seen while its write was at the device. */
static struct engine *watched_engine;
static uint64_t watch_size_max;
static unsigned watch_calls;
static void watch_size(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
		       bool after)
{
	uint64_t seed = ext4_inode_size(watched_engine->inode);

	watch_size_max = FDIO_MAX(watch_size_max, seed);
	watch_calls++;
}

static pthread_barrier_t extend_barrier;
struct extension { struct engine *e; uint64_t pos; uint32_t len; };
static void *extend(void *arg)
{
	struct extension *extension = arg;
	void *buf = buffer_new(extension->len);
	struct test_request req;

	fill_pattern(buf, 1, extension->pos, extension->len);
	pthread_barrier_wait(&extend_barrier);
	engine_submit(extension->e, extension->e->file, &req, DIO_DIRECT | DIO_WRITE,
		      extension->pos, buf, extension->len);
	ck_assert_int_eq(engine_wait(extension->e, &req), extension->len);
	free(buf);
	return NULL;
}

/* The size grows after the data is written; of two extensions the larger wins. */
START_TEST(size_follows_the_data)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });

	write_pattern(e, DIO_DIRECT, 0, 1, BLOCK);
	watched_engine = e;
	watch_size_max = watch_calls = 0;
	fake_set_hook(e->fake, watch_size, NULL); /* before and after each data write */
	write_pattern(e, DIO_DIRECT, BLOCK, 1, 8 * BLOCK);
	fake_set_hook(e->fake, NULL, NULL);
	ck_assert_uint_gt(watch_calls, 1);
	ck_assert_uint_eq(watch_size_max, BLOCK);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 9 * BLOCK);
	engine_close(e);

	e = engine_new(&(struct engine_options){ .threads = 2 });
	for (unsigned k = 0; k < 20; k++) {
		uint64_t base = ext4_inode_size(e->inode);
		struct extension a = { e, base, 2 * BLOCK },
				 buf = { e, base + 2 * BLOCK, 6 * BLOCK };
		pthread_t t;
		pthread_barrier_init(&extend_barrier, NULL, 2);
		pthread_create(&t, NULL, extend, &a);
		extend(&buf);
		pthread_join(t, NULL);
		pthread_barrier_destroy(&extend_barrier);
		ck_assert_uint_eq(ext4_inode_size(e->inode), base + 8 * BLOCK);
		expect_pattern(e, base, 1, 8 * BLOCK);
	}
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: contents of new blocks");
	TCase *t = unit_case(s, "alone", 60);
	TCase *threads = unit_case(s, "threads", 60);

	engine_use_template(t);
	engine_use_template(threads);
	unit_test(t, edges_of_new_blocks_are_zero, PROVES("ENGINE-3 ENGINE-4"));
	unit_test(t, gap_behind_the_end_reads_as_zeroes);
	unit_test(t, conversion_follows_the_data, PROVES("ENGINE-4 DIO-4"));
	unit_test(threads, size_follows_the_data, PROVES("ENGINE-4 DIO-4"));
	return s;
}
