/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of what a request of the direct-I/O engine transfers: all or an error, short only at
 * the end of the file (ENGINE-8), each byte at most once (DIO-5), aligned as the device wants it.
 *
 * The fake device transfers less than asked, or asks to try again. All runs on the test's thread.
 */
#include "kit/engine.h"

/*
 * For many sizes, offsets and lengths: reads end at the size of the file, and holes read as zeroes
 * without device I/O.
 */
START_TEST(reads_end_at_the_size)
{
	static const unsigned sizes[] = { 0, 1, 511, 512, 513, 4095, 4096, 4097, 8192 + 100 };
	static const unsigned lens[] = { 1, 511, 512, 4096, 8192, 12288 };
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint8_t *buf = buffer_new(16384), *model = buffer_new(32768), *stale = buffer_new(BLOCK);

	memset(stale, 0xa5, BLOCK);
	for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++) {
		engine_truncate(e, e->inode, 0);
		memset(model, 0, 32768);
		if (sizes[s])
			write_pattern(e, 0, 0, 3, sizes[s]);
		fill_pattern(model, 3, 0, sizes[s]);
		if (sizes[s] % BLOCK) /* stale data behind the end */
			fake_poke(e->fake, stale, BLOCK - sizes[s] % BLOCK,
				  device_offset(e, sizes[s]));
		for (unsigned off = 0; off <= 8192 + 1024; off += 256)
			for (unsigned l = 0; l < ARRAY_SIZE(lens); l++) {
				unsigned want = off >= sizes[s] ? 0
								: FDIO_MIN(lens[l], sizes[s] - off);
				memset(buf, 0xee, 16384);
				ck_assert_int_eq(engine_io(e, 0, off, buf, lens[l]), want);
				ck_assert_mem_eq(buf, model + off, want);
				ck_assert(no_byte(buf + want, 0xa5, 16384 - want));
			}
	}
	/* A hole needs no device request. */
	write_pattern(e, 0, 64 * BLOCK, 3, BLOCK);
	fake_stats_reset(e->fake);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 32 * BLOCK, buf, 4 * BLOCK), 4 * BLOCK);
	ck_assert(all_bytes(buf, 0, 4 * BLOCK));
	ck_assert_uint_eq(fake_stats(e->fake).reads, 0);
	free(buf);
	free(model);
	free(stale);
	engine_close(e);
}
END_TEST

/* Short transfers of the device are continued: only a read at the end of the file is short. */
START_TEST(short_transfers_are_continued)
{
	struct engine *e = engine_new(NULL);
	uint8_t *buf = buffer_new(4 * BLOCK);

	make_extents(e, 3);
	for (unsigned cut = 512; cut < BLOCK; cut += 700)
		for (unsigned k = 0; k < 3; k++) {
			struct fake_fault fault = { .kinds = FAKE_READ | FAKE_WRITE,
						    .async_only = true,
						    .skip = k,
						    .repeat = 1,
						    .action = FAKE_SHORT,
						    .n = cut };
			uint64_t before = counter(COUNTER_dio_short_resubmit);
			fake_fault_add(e->fake, &fault);
			ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, buf, 4 * BLOCK), 3 * BLOCK);
			fake_fault_clear(e->fake);
			fake_fault_add(e->fake, &fault);
			fill_pattern(buf, 5, 0, 3 * BLOCK);
			ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 0, buf, 3 * BLOCK),
					 3 * BLOCK);
			fake_fault_clear(e->fake);
			ck_assert_uint_eq(counter(COUNTER_dio_short_resubmit) - before, 2);
			expect_pattern(e, 0, 5, 3 * BLOCK);
			/* A request of one piece. */
			fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_READ,
								      .repeat = 1,
								      .action = FAKE_SHORT,
								      .n = cut });
			expect_pattern(e, BLOCK, 5, BLOCK);
			fake_fault_clear(e->fake);
		}
	free(buf);
	engine_close(e);
}
END_TEST

/* A write that finds no space fails before anything is written. */
START_TEST(enospc_changes_nothing)
{
	struct engine *e = engine_new(NULL);
	uint8_t *buf = buffer_new(64 * BLOCK);
	struct ext4_statfs before, after;
	unsigned at = 2;

	write_pattern(e, DIO_DIRECT, 0, 1, 2 * BLOCK);
	for (unsigned n = 64; n; ) {
		ssize_t r = engine_io(e, DIO_DIRECT | DIO_WRITE, at * BLOCK, buf, n * BLOCK);
		if (r == -ENOSPC) {
			n /= 2;
			continue;
		}
		ck_assert_int_eq(r, n * BLOCK);
		at += n;
		ext4_vol_statfs(e->vol, &before);
		if (before.bavail < 40)
			break;
	}
	uint64_t size = ext4_inode_size(e->inode);
	ext4_vol_statfs(e->vol, &before);
	fake_stats_reset(e->fake);
	fill_pattern(buf, 9, 0, 64 * BLOCK);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, size - BLOCK, buf, 64 * BLOCK),
			 -ENOSPC);
	ext4_vol_statfs(e->vol, &after);
	ck_assert_uint_eq(after.bfree, before.bfree);
	ck_assert_uint_eq(ext4_inode_size(e->inode), size);
	ck_assert_uint_eq(fake_stats(e->fake).writes, 0);
	expect_pattern(e, 0, 1, 2 * BLOCK);
	/* The mapped block before the hole can still be read. */
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, size - BLOCK, buf, BLOCK), BLOCK);
	free(buf);
	engine_close(e);
}
END_TEST

/*
 * EAGAIN and EINTR are retried with DEV_ASYNC, a limited number of times. A request that transfers
 * no bytes is an error.
 */
START_TEST(eagain_and_eintr_are_retried)
{
	static const int errs[] = { -EAGAIN, -EINTR };
	struct engine *e = engine_new(NULL);
	uint8_t *buf = buffer_new(4 * BLOCK);

	make_extents(e, 3);
	for (unsigned k = 0; k < 2; k++)
		for (unsigned n = 1; n <= 3; n += 2) {
			struct fake_fault fault = { .kinds = FAKE_ANY,
						    .async_only = true,
						    .repeat = 1,
						    .action = FAKE_ERROR,
						    .err = errs[k] };
			fake_stats_reset(e->fake);
			fake_fault_add(e->fake, &fault);
			ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, buf, n * BLOCK), n * BLOCK);
			ck_assert_uint_eq(fake_stats(e->fake).retried, 1);
			fake_fault_clear(e->fake);
			fault.repeat = 0;
			fake_fault_add(e->fake, &fault);
			ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, buf, n * BLOCK), -EIO);
			ck_assert_uint_lt(fake_stats(e->fake).async, 100);
			fake_fault_clear(e->fake);
		}
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_READ,
						      .async_only = true,
						      .action = FAKE_SHORT,
						      .n = BLOCK });
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, buf, BLOCK), -EIO);
	fake_fault_clear(e->fake);
	expect_pattern(e, 0, 1, 3 * BLOCK);
	free(buf);
	engine_close(e);
}
END_TEST

/* Only the two edge sectors of an unaligned write are read and written back. */
START_TEST(unaligned_write_touches_its_sectors_once)
{
	struct engine *e = engine_new(&(struct engine_options){ .relaxed = true });
	uint8_t *buf = buffer_new(4 * BLOCK), *want = buffer_new(4 * BLOCK);

	write_pattern(e, 0, 0, 1, 4 * BLOCK);
	fill_pattern(want, 1, 0, 4 * BLOCK);
	fake_stats_reset(e->fake);
	uint64_t rmw = counter(COUNTER_dio_write_rmw);
	fill_pattern(buf, 2, 0, 3 * BLOCK);
	memcpy(want + 100, buf, 3 * BLOCK);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 100, buf, 3 * BLOCK), 3 * BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_write_rmw) - rmw, 2);
	ck_assert_uint_eq(fake_stats(e->fake).bytes_written, fdio_round_up(100 + 3 * BLOCK, 512));
	ck_assert_uint_eq(fake_stats(e->fake).bytes_read, 1024);
	ck_assert_int_eq(engine_io(e, 0, 0, buf, 4 * BLOCK), 4 * BLOCK);
	ck_assert_mem_eq(buf, want, 4 * BLOCK);
	free(buf);
	free(want);
	engine_close(e);
}
END_TEST

static uint64_t watched_start, watched_end;
static unsigned watched_writes;
static void watch_range(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
			bool after)
{
	if (!after && kind == FAKE_WRITE && off < watched_end && off + len > watched_start)
		watched_writes++;
}

/* A write from mapped blocks into a hole writes the mapped part once; only the rest allocates. */
START_TEST(only_the_rest_of_a_write_allocates)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint8_t *buf = buffer_new(8 * BLOCK);
	struct test_request req;

	write_pattern(e, DIO_DIRECT, 0, 1, 4 * BLOCK);
	write_pattern(e, DIO_DIRECT, 8 * BLOCK, 1, BLOCK);
	watched_start = device_offset(e, 0);
	watched_end = watched_start + 4 * BLOCK;
	watched_writes = 0;
	fake_set_hook(e->fake, watch_range, NULL);
	uint64_t rem = counter(COUNTER_dio_write_remainder);
	fill_pattern(buf, 2, 0, 8 * BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, 0, buf, 8 * BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	ck_assert_uint_eq(fake_held_io(e->fake, 0)->len, 4 * BLOCK);
	ck_assert(!work_queue_run_one(e->workers)); /* the rest waits for that write */
	fake_complete(e->fake, 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert(work_queue_run_one(e->workers));
	ck_assert_int_eq(engine_wait(e, &req), 8 * BLOCK);
	fake_set_hook(e->fake, NULL, NULL);
	ck_assert_uint_eq(watched_writes, 1);
	ck_assert_uint_eq(counter(COUNTER_dio_write_remainder) - rem, 1);
	expect_pattern(e, 0, 2, 8 * BLOCK);
	free(buf);
	engine_close(e);
}
END_TEST

/*
 * The kernel splits large requests of unaligned memory. A strict engine takes pieces that are
 * multiples of sectors, a relaxed one takes any.
 */
START_TEST(requests_as_the_kernel_splits_them)
{
	static const uint32_t aligned[] = { 1048064, 512, 1044480, 4096 },
			      odd[] = { 1048575, 1, 777, 1047799 };
	for (unsigned relaxed = 0; relaxed < 2; relaxed++) {
		struct engine *e = engine_new(&(struct engine_options){ .relaxed = relaxed });
		const uint32_t *l = relaxed ? odd : aligned;
		uint64_t pos = 0;
		for (unsigned k = 0; k < 4; pos += l[k++])
			write_pattern(e, DIO_DIRECT, pos, 4, l[k]);
		expect_pattern(e, 0, 4, 1048576);
		expect_pattern(e, 1048576, 4, pos - 1048576);
		ck_assert_uint_eq(ext4_inode_size(e->inode), pos);
		pos = 0;
		for (unsigned k = 0; k < 4; pos += l[k++])
			write_pattern(e, DIO_DIRECT, pos, 5, l[k]);
		expect_pattern(e, 0, 5, 1048576);
		engine_close(e);
	}
	struct engine *e = engine_new(NULL);
	void *buf = buffer_new(BLOCK);
	/*
	 * 1 MiB at offset 512 from unaligned memory comes in two pieces: the first ends at any
	 * byte, the last is aligned at its end.
	 */
	write_pattern(e, DIO_DIRECT, 512, 4, 1048576 - 77);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 512 + 1048576 - 77, buf, 77 + 512),
			 77 + 512);
	expect_pattern(e, 512, 4, 1048576 - 77);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 512 + 1048576 - 77, buf, 76),
			 -EINVAL);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 0, buf, 777), -EINVAL);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 100, buf, 512), -EINVAL);
	ck_assert_int_eq(engine_io(e, DIO_WRITE, 100, buf, 777), 777);
	free(buf);
	engine_close(e);
}
END_TEST

/*
 * As above, with pages of 64 KiB: the first piece may be nearly a page shorter than 1 MiB, and no
 * shorter.
 */
START_TEST(requests_as_large_pages_split_them)
{
	struct engine *e = engine_new(&(struct engine_options){ .page_size = 65536 });
	const uint32_t least = 1048576 - 65536;
	void *buf = buffer_new(1048576);

	write_pattern(e, DIO_DIRECT, 512, 4, least + 1);
	expect_pattern(e, 512, 4, least + 1);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 512 + least + 1, buf, 511), 511);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 512, buf, least - 1), -EINVAL);
	free(buf);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: transfers");
	TCase *t = unit_case(s, "alone", 60);

	engine_use_template(t);
	unit_test(t, reads_end_at_the_size, PROVES("ENGINE-8"));
	unit_test(t, short_transfers_are_continued, PROVES("ENGINE-8"));
	unit_test(t, enospc_changes_nothing, PROVES("ENGINE-4"));
	unit_test(t, eagain_and_eintr_are_retried, PROVES("ENGINE-8"));
	unit_test(t, unaligned_write_touches_its_sectors_once, PROVES("DIO-5"));
	unit_test(t, only_the_rest_of_a_write_allocates, PROVES("ENGINE-3 DIO-5"));
	unit_test(t, requests_as_the_kernel_splits_them);
	unit_test(t, requests_as_large_pages_split_them);
	return s;
}
