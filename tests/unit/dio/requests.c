/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a request in the direct-I/O engine: when it is answered, and with what, whatever
 * fails or comes short; ends of files; alignment. The tags are those of HACKING.md.
 */
#include "kit/engine.h"
#include "dio/types.h"

#include <unistd.h>

/*
 * The submission holds a reference; whoever drops the last answers, once, also if all complete
 * inside submit.
 */
START_TEST(one_answer_when_all_complete_inside_submit)
{
	for (unsigned n = 1; n <= 16; n += n < 4 ? 1 : 4) {
		struct engine *e = engine_new(NULL);
		struct test_request req;
		void *b = buffer_new(16 * BLOCK);

		make_extents(e, n);
		uint64_t simple = counter(COUNTER_dio_read_simple),
			 multi = counter(COUNTER_dio_read_multi);
		engine_submit(e, e->file, &req, DIO_DIRECT, 0, b, n * BLOCK);
		ck_assert_uint_eq(req.done, 1); /* inside submit */
		ck_assert_int_eq(req.res, n * BLOCK);
		ck_assert_uint_eq(counter(COUNTER_dio_read_simple) - simple, n == 1);
		ck_assert_uint_eq(counter(COUNTER_dio_read_multi) - multi, n != 1);
		expect_pattern(e, 0, 1, n * BLOCK);
		fill_pattern(b, 2, 0, n * BLOCK);
		engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, 0, b, n * BLOCK);
		ck_assert_uint_eq(req.done, 1);
		ck_assert_int_eq(req.res, n * BLOCK);
		expect_pattern(e, 0, 2, n * BLOCK);
		engine_pump(e);
		ck_assert_uint_eq(req.done, 1);
		free(b);
		engine_close(e);
	}
}
END_TEST

/* Requests on the heap that poison themselves when answered, and must stay so. */
struct checked_request {
	struct dio_req req;
	unsigned *left; /* atomic */
	ssize_t want;
	unsigned *wrong; /* atomic */
};

static struct checked_request *grave[512];
static unsigned nr_grave; /* atomic */

/* Who reads one has followed pointers that lead nowhere; who writes to one is found here. */
static void grave_check(void)
{
	for (unsigned k = 0; k < nr_grave; k++) {
		ck_assert_msg(all_bytes(grave[k], 0xdd, sizeof(*grave[k])), "a request was written "
									    "to after its answer");
		free(grave[k]);
	}
	nr_grave = 0;
}

static void heap_done(struct dio_req *req, ssize_t res)
{
	struct checked_request *h = container_of(req, struct checked_request, req);
	unsigned *left = h->left, at = __atomic_fetch_add(&nr_grave, 1, __ATOMIC_RELAXED);

	if (res != h->want)
		__atomic_fetch_add(h->wrong, 1, __ATOMIC_RELAXED);
	free(h->req.buf);
	memset(h, 0xdd, sizeof(*h));
	ck_assert_uint_lt(at, ARRAY_SIZE(grave));
	grave[at] = h;
	__atomic_fetch_sub(left, 1, __ATOMIC_RELEASE);
}

static void heap_submit(struct engine *e, unsigned flags, uint64_t pos, uint32_t len,
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
				     .done = heap_done };
	fill_pattern(req->req.buf, 1, pos, len);
	__atomic_fetch_add(left, 1, __ATOMIC_RELAXED);
	dio_submit(e->dio, &req->req);
}

/* After dropping its reference nobody touches the request; completions come on another thread. */
START_TEST(nobody_touches_a_finished_request)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2, .segs = 4 });
	unsigned left = 0, wrong = 0;

	make_extents(e, 8);
	fake_set_mode(e->fake, FAKE_THREAD, 42);
	for (unsigned k = 0; k < 400; k++) {
		unsigned n = 1 + k % 8;
		heap_submit(e, DIO_DIRECT | (k % 3 ? 0 : DIO_WRITE), (k % (9 - n)) * BLOCK,
			    n * BLOCK, &left, &wrong);
		while (__atomic_load_n(&left, __ATOMIC_ACQUIRE) > 12)
			usleep(20);
	}
	while (__atomic_load_n(&left, __ATOMIC_ACQUIRE))
		usleep(50);
	ck_assert_uint_eq(wrong, 0);
	dio_drain(e->dio);
	grave_check();
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	expect_pattern(e, 0, 1, 8 * BLOCK);
	engine_close(e);
}
END_TEST

/*
 * An error before the first piece is answered at once, an error after it by the last completion;
 * always one answer.
 */
START_TEST(one_answer_wherever_it_fails)
{
	struct engine *e = engine_new(NULL);
	void *b = buffer_new(6 * BLOCK);
	struct test_request req;

	make_extents(e, 6);
	for (unsigned w = 0; w < 2; w++)
		for (unsigned k = 0; k <= 6; k++) {
			fill_pattern(b, 1, 0, 6 * BLOCK);
			fake_fault_add(e->fake,
				       &(struct fake_fault){ .kinds = w ? FAKE_WRITE : FAKE_READ,
							     .skip = k,
							     .repeat = 1,
							     .async_only = true,
							     .action = FAKE_ERROR,
							     .err = -EIO });
			engine_submit(e, e->file, &req, DIO_DIRECT | (w ? DIO_WRITE : 0), 0, b,
				      6 * BLOCK);
			ck_assert_int_eq(engine_wait(e, &req), k < 6 ? -EIO : (ssize_t)(6 * BLOCK));
			engine_pump(e);
			ck_assert_uint_eq(req.done, 1);
			fake_fault_clear(e->fake);
		}
	fake_stats_reset(e->fake);
	engine_submit(e, e->file, &req, DIO_DIRECT, 100, b, 512);
	ck_assert_uint_eq(req.done, 1);
	ck_assert_int_eq(req.res, -EINVAL);
	ck_assert_uint_eq(fake_stats(e->fake).async, 0);
	expect_pattern(e, 0, 1, 6 * BLOCK);
	free(b);
	engine_close(e);
}
END_TEST

static struct test_request *watched;
static unsigned watched_min;

static void watch_refs(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
		       bool after)
{
	uint32_t refs = __atomic_load_n(&dio_own(&watched->req)->refs, __ATOMIC_ACQUIRE);

	if (!after && refs < watched_min)
		watched_min = refs;
}

/* One piece needs no count; the count is there before the first piece of several can complete. */
START_TEST(counted_only_from_the_second_piece_on)
{
	struct engine *e = engine_new(NULL);
	void *b = buffer_new(4 * BLOCK);
	struct test_request req;

	make_extents(e, 4);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, DIO_DIRECT, 0, b, BLOCK);
	ck_assert_uint_eq(dio_own(&req.req)->refs, 0);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	ck_assert_ptr_eq(fake_held_io(e->fake, 0), &dio_own(&req.req)->io); /* the embedded one */
	fake_complete(e->fake, 0);
	ck_assert_int_eq(req.res, BLOCK);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	watched = &req;
	watched_min = 99;
	fake_set_hook(e->fake, watch_refs, NULL);
	engine_submit(e, e->file, &req, DIO_DIRECT, 0, b, 4 * BLOCK);
	fake_set_hook(e->fake, NULL, NULL);
	ck_assert_int_eq(req.res, 4 * BLOCK);
	/*
	 * Each piece completed inside its submit while the splitter still held its own reference.
	 */
	ck_assert_uint_eq(watched_min, 2);
	free(b);
	engine_close(e);
}
END_TEST

/* Submitting is the last touch: the request is gone inside submit. */
START_TEST(submit_is_the_last_touch)
{
	struct engine *e = engine_new(NULL);
	unsigned left = 0, wrong = 0;

	make_extents(e, 4);
	for (unsigned k = 0; k < 4; k++) {
		heap_submit(e, DIO_DIRECT, k * BLOCK, BLOCK, &left, &wrong);
		heap_submit(e, DIO_DIRECT | DIO_WRITE, k * BLOCK, BLOCK, &left, &wrong);
		ck_assert_uint_eq(left, 0);
	}
	heap_submit(e, DIO_DIRECT, 0, 4 * BLOCK, &left, &wrong);
	ck_assert_uint_eq(left, 0);
	ck_assert_uint_eq(wrong, 0);
	grave_check();
	engine_close(e);
}
END_TEST

/*
 * One failing piece of four, in all orders of completion: the same error; of several the first; a
 * failed extension changes no size.
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
	void *b = buffer_new(4 * BLOCK);
	struct test_request req;

	make_extents(e, 4);
	fill_pattern(b, 1, 0, 4 * BLOCK);
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
				      b, 4 * BLOCK);
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
			fill_pattern(b, 1, 0, 4 * BLOCK);
		}
	/* Two fail, each in its own way. */
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
		engine_submit(e, e->file, &req, DIO_DIRECT, 0, b, 4 * BLOCK);
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
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 4 * BLOCK, b, 4 * BLOCK), -EIO);
	fake_fault_clear(e->fake);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 4 * BLOCK);
	expect_pattern(e, 0, 1, 4 * BLOCK);
	free(b);
	engine_close(e);
}
END_TEST

/* After an error no further piece is sent; blocks touched by a failed write show nothing stale. */
START_TEST(stops_after_an_error)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint8_t *b = buffer_new(16 * BLOCK);

	make_extents(e, 6);
	fake_stats_reset(e->fake);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .repeat = 1,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 0, b, 6 * BLOCK), -EIO);
	ck_assert_uint_eq(fake_stats(e->fake).writes, 1);
	fake_fault_clear(e->fake);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_WRITE,
						      .sync_only = true,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 8 * BLOCK, b, 2 * BLOCK), -EIO);
	fake_fault_clear(e->fake);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 6 * BLOCK);
	write_pattern(e, DIO_DIRECT, 12 * BLOCK, 1, BLOCK);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 6 * BLOCK, b, 6 * BLOCK), 6 * BLOCK);
	ck_assert(all_bytes(b, 0, 6 * BLOCK));
	free(b);
	engine_close(e);
}
END_TEST

/*
 * Reads end at the size as it was when they came; what was never written reads as zeroes, without
 * device I/O.
 */
START_TEST(end_of_file_matrix)
{
	static const unsigned sizes[] = { 0, 1, 511, 512, 513, 4095, 4096, 4097, 8192 + 100 };
	static const unsigned lens[] = { 1, 511, 512, 4096, 8192, 12288 };
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint8_t *b = buffer_new(16384), *model = buffer_new(32768), *stale = buffer_new(BLOCK);

	memset(stale, 0xa5, BLOCK);
	for (unsigned s = 0; s < ARRAY_SIZE(sizes); s++) {
		engine_truncate(e, e->inode, 0);
		memset(model, 0, 32768);
		if (sizes[s])
			write_pattern(e, 0, 0, 3, sizes[s]);
		fill_pattern(model, 3, 0, sizes[s]);
		if (sizes[s] % BLOCK) /* what others may have left behind the end */
			fake_poke(e->fake, stale, BLOCK - sizes[s] % BLOCK,
				  device_offset(e, sizes[s]));
		for (unsigned off = 0; off <= 8192 + 1024; off += 256)
			for (unsigned l = 0; l < ARRAY_SIZE(lens); l++) {
				unsigned want = off >= sizes[s] ? 0
								: FDIO_MIN(lens[l], sizes[s] - off);
				memset(b, 0xee, 16384);
				ck_assert_int_eq(engine_io(e, 0, off, b, lens[l]), want);
				ck_assert_mem_eq(b, model + off, want);
				ck_assert(no_byte(b + want, 0xa5, 16384 - want));
			}
	}
	/* A hole: no device request. */
	write_pattern(e, 0, 64 * BLOCK, 3, BLOCK);
	fake_stats_reset(e->fake);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 32 * BLOCK, b, 4 * BLOCK), 4 * BLOCK);
	ck_assert(all_bytes(b, 0, 4 * BLOCK));
	ck_assert_uint_eq(fake_stats(e->fake).reads, 0);
	free(b);
	free(model);
	free(stale);
	engine_close(e);
}
END_TEST

/*
 * Writes are all or an error, reads are short only at the end of the file, whatever the device
 * does.
 */
START_TEST(short_transfers_are_continued)
{
	struct engine *e = engine_new(NULL);
	uint8_t *b = buffer_new(4 * BLOCK);

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
			ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, b, 4 * BLOCK), 3 * BLOCK);
			fake_fault_clear(e->fake);
			fake_fault_add(e->fake, &fault);
			fill_pattern(b, 5, 0, 3 * BLOCK);
			ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 0, b, 3 * BLOCK),
					 3 * BLOCK);
			fake_fault_clear(e->fake);
			ck_assert_uint_eq(counter(COUNTER_dio_short_resubmit) - before, 2);
			expect_pattern(e, 0, 5, 3 * BLOCK);
			/* One piece. */
			fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_READ,
								      .repeat = 1,
								      .action = FAKE_SHORT,
								      .n = cut });
			expect_pattern(e, BLOCK, 5, BLOCK);
			fake_fault_clear(e->fake);
		}
	free(b);
	engine_close(e);
}
END_TEST

/* No space is found before anything is written. */
START_TEST(enospc_changes_nothing)
{
	struct engine *e = engine_new(NULL);
	uint8_t *b = buffer_new(64 * BLOCK);
	struct ext4_statfs sf, sf2;
	unsigned at = 2;

	write_pattern(e, DIO_DIRECT, 0, 1, 2 * BLOCK);
	for (unsigned n = 64; n; ) {
		ssize_t r = engine_io(e, DIO_DIRECT | DIO_WRITE, at * BLOCK, b, n * BLOCK);
		if (r == -ENOSPC) {
			n /= 2;
			continue;
		}
		ck_assert_int_eq(r, n * BLOCK);
		at += n;
		ext4_vol_statfs(e->vol, &sf);
		if (sf.bavail < 40)
			break;
	}
	uint64_t size = ext4_inode_size(e->inode);
	ext4_vol_statfs(e->vol, &sf);
	fake_stats_reset(e->fake);
	fill_pattern(b, 9, 0, 64 * BLOCK);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, size - BLOCK, b, 64 * BLOCK),
			 -ENOSPC);
	ext4_vol_statfs(e->vol, &sf2);
	ck_assert_uint_eq(sf2.bfree, sf.bfree);
	ck_assert_uint_eq(ext4_inode_size(e->inode), size);
	ck_assert_uint_eq(fake_stats(e->fake).writes, 0);
	expect_pattern(e, 0, 1, 2 * BLOCK);
	/* The mapped block before the hole was not touched either. */
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, size - BLOCK, b, BLOCK), BLOCK);
	free(b);
	engine_close(e);
}
END_TEST

/* EAGAIN and EINTR are retried in a blocking way, not for ever; nothing transferred is an error. */
START_TEST(again_is_retried)
{
	static const int errs[] = { -EAGAIN, -EINTR };
	struct engine *e = engine_new(NULL);
	uint8_t *b = buffer_new(4 * BLOCK);

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
			ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, b, n * BLOCK), n * BLOCK);
			ck_assert_uint_eq(fake_stats(e->fake).retried, 1);
			fake_fault_clear(e->fake);
			fault.repeat = 0;
			fake_fault_add(e->fake, &fault);
			ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, b, n * BLOCK), -EIO);
			ck_assert_uint_lt(fake_stats(e->fake).async, 100);
			fake_fault_clear(e->fake);
		}
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_READ,
						      .async_only = true,
						      .action = FAKE_SHORT,
						      .n = BLOCK });
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, b, BLOCK), -EIO);
	fake_fault_clear(e->fake);
	expect_pattern(e, 0, 1, 3 * BLOCK);
	free(b);
	engine_close(e);
}
END_TEST

/*
 * Of an unaligned write the middle goes out as it is, only the two edge sectors are read and
 * written back.
 */
START_TEST(unaligned_write_touches_its_sectors_once)
{
	struct engine *e = engine_new(&(struct engine_options){ .relaxed = true });
	uint8_t *b = buffer_new(4 * BLOCK), *want = buffer_new(4 * BLOCK);

	write_pattern(e, 0, 0, 1, 4 * BLOCK);
	fill_pattern(want, 1, 0, 4 * BLOCK);
	fake_stats_reset(e->fake);
	uint64_t rmw = counter(COUNTER_dio_write_rmw);
	fill_pattern(b, 2, 0, 3 * BLOCK);
	memcpy(want + 100, b, 3 * BLOCK);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 100, b, 3 * BLOCK), 3 * BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_write_rmw) - rmw, 2);
	ck_assert_uint_eq(fake_stats(e->fake).bytes_written, fdio_round_up(100 + 3 * BLOCK, 512));
	ck_assert_uint_eq(fake_stats(e->fake).bytes_read, 1024);
	ck_assert_int_eq(engine_io(e, 0, 0, b, 4 * BLOCK), 4 * BLOCK);
	ck_assert_mem_eq(b, want, 4 * BLOCK);
	free(b);
	free(want);
	engine_close(e);
}
END_TEST

/*
 * 12b: a direct write that runs from mapped blocks into a hole: the mapped part is written once,
 * only the rest allocates.
 */
static uint64_t seen_lo, seen_hi;
static unsigned seen_writes;
static void watch_range(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
			bool after)
{
	if (!after && kind == FAKE_WRITE && off < seen_hi && off + len > seen_lo)
		seen_writes++;
}

START_TEST(remainder_only)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint8_t *b = buffer_new(8 * BLOCK);
	struct test_request req;

	write_pattern(e, DIO_DIRECT, 0, 1, 4 * BLOCK);
	write_pattern(e, DIO_DIRECT, 8 * BLOCK, 1, BLOCK);
	seen_lo = device_offset(e, 0);
	seen_hi = seen_lo + 4 * BLOCK;
	seen_writes = 0;
	fake_set_hook(e->fake, watch_range, NULL);
	uint64_t rem = counter(COUNTER_dio_write_remainder);
	fill_pattern(b, 2, 0, 8 * BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, 0, b, 8 * BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	ck_assert_uint_eq(fake_held_io(e->fake, 0)->len, 4 * BLOCK);
	ck_assert(!work_queue_run_one(e->workers)); /* the rest waits for exactly that */
	fake_complete(e->fake, 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert(work_queue_run_one(e->workers));
	ck_assert_int_eq(engine_wait(e, &req), 8 * BLOCK);
	fake_set_hook(e->fake, NULL, NULL);
	ck_assert_uint_eq(seen_writes, 1);
	ck_assert_uint_eq(counter(COUNTER_dio_write_remainder) - rem, 1);
	expect_pattern(e, 0, 2, 8 * BLOCK);
	free(b);
	engine_close(e);
}
END_TEST

/*
 * How the kernel splits large requests of unaligned memory: multiples of sectors pass strict,
 * anything passes relaxed.
 */
START_TEST(the_kernels_splits)
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
	void *b = buffer_new(BLOCK);
	/*
	 * 1 MiB at 512 from memory that is not aligned comes in two: the first ends at any byte,
	 * the last ends aligned.
	 */
	write_pattern(e, DIO_DIRECT, 512, 4, 1048576 - 77);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 512 + 1048576 - 77, b, 77 + 512),
			 77 + 512);
	expect_pattern(e, 512, 4, 1048576 - 77);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 512 + 1048576 - 77, b, 76), -EINVAL);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 0, b, 777), -EINVAL);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 100, b, 512), -EINVAL);
	ck_assert_int_eq(engine_io(e, DIO_WRITE, 100, b, 777), 777);
	free(b);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: requests");
	TCase *t = unit_case(s, "alone", 60);
	TCase *th = unit_case(s, "threads", 60);

	engine_use_template(t);
	engine_use_template(th);
	unit_test(t, one_answer_when_all_complete_inside_submit, PROVES("ENGINE-2 DIO-1"));
	unit_test(th, nobody_touches_a_finished_request, PROVES("DIO-1"));
	unit_test(t, one_answer_wherever_it_fails, PROVES("ENGINE-2 DIO-1"));
	unit_test(t, counted_only_from_the_second_piece_on, PROVES("ENGINE-2 DIO-2"));
	unit_test(t, submit_is_the_last_touch, PROVES("ENGINE-1"));
	unit_test(t, first_error_in_every_order, PROVES("ENGINE-2"));
	unit_test(t, stops_after_an_error, PROVES("ENGINE-4"));
	unit_test(t, end_of_file_matrix, PROVES("ENGINE-8"));
	unit_test(t, short_transfers_are_continued, PROVES("ENGINE-8"));
	unit_test(t, enospc_changes_nothing, PROVES("ENGINE-4"));
	unit_test(t, again_is_retried, PROVES("ENGINE-8"));
	unit_test(t, unaligned_write_touches_its_sectors_once, PROVES("DIO-5"));
	unit_test(t, remainder_only, PROVES("ENGINE-3 DIO-5"));
	unit_test(t, the_kernels_splits);
	return s;
}
