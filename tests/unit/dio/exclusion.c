/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of requests of the direct-I/O engine beside each other and beside changes of the file:
 * writes of one block, new blocks, growth, truncation, invalidation of the page cache, and progress
 * while others wait. HACKING.md has the tags.
 *
 * The fake device holds requests, or records them and cuts the power after each event. Tests of the
 * case "threads" have workers; build them with ThreadSanitizer to find races.
 */
#include "kit/engine.h"
#include "dio/pagecache.h"
#include "ext4/core/structs.h"
#include "ext4/ext4.h"

#include <pthread.h>
#include <semaphore.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * Two writes of one sector are done one after the other, and both survive; writes of different
 * blocks run side by side.
 */
START_TEST(writers_of_one_block_serialise)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2, .relaxed = true });
	uint8_t *a = buffer_new(256), *buf = buffer_new(256), *read_back = buffer_new(BLOCK);
	struct test_request first, second;

	write_pattern(e, 0, 0, 1, 4 * BLOCK);
	memset(a, 'a', 256);
	memset(buf, 'b', 256);
	uint64_t waits = counter(COUNTER_dio_range_wait);
	fake_block(e->fake, FAKE_READ); /* both would read the old sector now */
	engine_submit(e, e->file, &first, DIO_DIRECT | DIO_WRITE, 0, a, 256);
	engine_submit(e, e->file, &second, DIO_DIRECT | DIO_WRITE, 256, buf, 256);
	wait_counter(COUNTER_dio_range_wait, waits + 1);
	fake_unblock(e->fake);
	ck_assert_int_eq(engine_wait(e, &first), 256);
	ck_assert_int_eq(engine_wait(e, &second), 256);
	ck_assert_int_eq(engine_io(e, 0, 0, read_back, BLOCK), BLOCK);
	ck_assert(all_bytes(read_back, 'a', 256));
	ck_assert(all_bytes(read_back + 256, 'b', 256));
	/* Different blocks: both are at the device at once. */
	fake_block(e->fake, FAKE_READ);
	engine_submit(e, e->file, &first, DIO_DIRECT | DIO_WRITE, BLOCK + 100, a, 256);
	engine_submit(e, e->file, &second, DIO_DIRECT | DIO_WRITE, 2 * BLOCK + 100, buf, 256);
	ck_assert(fake_wait_blocked(e->fake, 2));
	fake_unblock(e->fake);
	ck_assert_int_eq(engine_wait(e, &first), 256);
	ck_assert_int_eq(engine_wait(e, &second), 256);
	free(a);
	free(buf);
	free(read_back);
	engine_close(e);
}
END_TEST

/* A write of a part of a sector waits for a fast overwrite of it in flight; neither is lost. */
START_TEST(sub_sector_write_drains_fast_writes)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 1, .relaxed = true });
	uint8_t *a = buffer_new(512), *buf = buffer_new(100), *read_back = buffer_new(BLOCK);
	struct test_request first, second;

	write_pattern(e, 0, 0, 1, BLOCK);
	memset(a, 'a', 512);
	memset(buf, 'b', 100);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	engine_submit(e, e->file, &first, DIO_DIRECT | DIO_WRITE, 0, a, 512);
	engine_submit(e, e->file, &second, DIO_DIRECT | DIO_WRITE, 50, buf, 100);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert(!request_is_done(&second));
	fake_complete(e->fake, 0);
	ck_assert_int_eq(engine_wait(e, &first), 512);
	ck_assert_int_eq(engine_wait(e, &second), 100);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_int_eq(engine_io(e, 0, 0, read_back, 512), 512);
	ck_assert(all_bytes(read_back, 'a', 50) && all_bytes(read_back + 50, 'b', 100) &&
		  all_bytes(read_back + 150, 'a', 362));
	free(a);
	free(buf);
	free(read_back);
	engine_close(e);
}
END_TEST

/* Calls check after a cut at each recorded event; every step-th volume is checked by e2fsck too. */
static void check_every_cut(struct engine *e, unsigned step, void (*check)(struct engine *left))
{
	unsigned events = fake_record_events(e->fake);
	static const enum fake_cut modes[] = { FAKE_CUT_DROP, FAKE_CUT_KEEP, FAKE_CUT_RANDOM };

	ck_assert_uint_gt(events, 2);
	for (unsigned k = 0; k <= events; k++)
		for (unsigned m = 0; m < 3; m++) {
			struct engine_options o = e->opt;
			o.stale = false;
			struct engine *left = engine_on(
					fake_record_cut(e->fake, k, modes[m], k * 7 + 1), &o);
			check(left);
			if ((k * 3 + m) % step == 0)
				engine_close(left);
			else
				engine_close_nocheck(left);
		}
}

static void check_not_stale(struct engine *left)
{
	uint64_t size = ext4_inode_size(left->inode);
	uint8_t *buf = buffer_new(16 * BLOCK), *want = buffer_new(16 * BLOCK);

	ck_assert_uint_le(size, 16 * BLOCK);
	ck_assert_int_eq(engine_io(left, 0, 0, buf, 16 * BLOCK), size);
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

struct truncation { struct engine *e; uint64_t size; unsigned done; };
static void *truncate_thread(void *arg)
{
	struct truncation *truncation = arg;

	engine_truncate(truncation->e, truncation->e->inode, truncation->size);
	__atomic_store_n(&truncation->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* A truncate waits for requests in flight; those that come meanwhile go to workers. */
START_TEST(truncate_waits_for_requests_in_flight)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2 });
	void *buf = buffer_new(4 * BLOCK), *c = buffer_new(BLOCK);
	struct truncation truncation = { .e = e };
	struct test_request w, read_back, late;
	pthread_t thread;

	make_extents(e, 4);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	fill_pattern(buf, 2, 0, 4 * BLOCK);
	engine_submit(e, e->file, &w, DIO_DIRECT | DIO_WRITE, 0, buf, 4 * BLOCK);
	engine_submit(e, e->file, &read_back, DIO_DIRECT, 0, c, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 5);
	uint64_t waits = counter(COUNTER_dio_gate_wait),
		 diverted = counter(COUNTER_dio_gate_diverted);
	pthread_create(&thread, NULL, truncate_thread, &truncation);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert(!__atomic_load_n(&truncation.done, __ATOMIC_ACQUIRE));
	void *lb = buffer_new(BLOCK);
	engine_submit(e, e->file, &late, DIO_DIRECT, 0, lb, BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_gate_diverted) - diverted, 1);
	ck_assert_int_eq(engine_wait(e, &late),
			 BLOCK); /* by a worker, before the truncate */
	for (unsigned k = 0; k < 4; k++) {
		ck_assert(!__atomic_load_n(&truncation.done, __ATOMIC_ACQUIRE));
		fake_complete(e->fake, 1); /* never the first one */
	}
	usleep(2000);
	ck_assert(!__atomic_load_n(&truncation.done, __ATOMIC_ACQUIRE));
	fake_complete(e->fake, 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(engine_wait(e, &w), 4 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &read_back), BLOCK);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(buf);
	free(c);
	free(lb);
	engine_close(e);
}
END_TEST

/* A truncate waits for a read alone too: nobody gets its blocks meanwhile. */
START_TEST(truncate_waits_for_a_read)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 1 });
	struct truncation truncation = { .e = e };
	uint8_t *buf = buffer_new(BLOCK), *want = buffer_new(BLOCK);
	struct test_request req;
	pthread_t thread;

	make_extents(e, 4);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, DIO_DIRECT, 2 * BLOCK, buf, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	pthread_create(&thread, NULL, truncate_thread, &truncation);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 4 * BLOCK);
	fake_complete(e->fake, 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(engine_wait(e, &req), BLOCK);
	fill_pattern(want, 1, 2 * BLOCK, BLOCK);
	ck_assert_mem_eq(buf, want, BLOCK);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(buf);
	free(want);
	engine_close(e);
}
END_TEST

/* A gate that is closed for writes sends them to workers, and lets reads pass. */
START_TEST(gate_closed_for_writes_lets_reads_pass)
{
	struct engine *e = engine_new(NULL);
	uint8_t *buf = buffer_new(BLOCK), *c = buffer_new(BLOCK);
	struct test_request w, read_back;

	make_extents(e, 2);
	ck_assert_int_eq(dio_gate_close(e->dio, e->inode, DIO_GATE_WRITES), 0);
	uint64_t diverted = counter(COUNTER_dio_gate_diverted);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &w, DIO_DIRECT | DIO_WRITE, 0, buf, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 0);
	ck_assert_uint_eq(counter(COUNTER_dio_gate_diverted) - diverted, 1);
	engine_submit(e, e->file, &read_back, DIO_DIRECT, BLOCK, c, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	fake_complete(e->fake, 0);
	ck_assert(request_is_done(&read_back) && !request_is_done(&w));
	dio_gate_open(e->dio, e->inode, DIO_GATE_WRITES);
	ck_assert_int_eq(engine_wait(e, &w), BLOCK);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(buf);
	free(c);
	engine_close(e);
}
END_TEST

/*
 * Fast requests complete on another thread while the gate is closed 200 times: no wake-up is lost.
 */
START_TEST(gate_closes_under_a_stream_of_requests)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2 });
	struct test_request req[8];
	void *buf = buffer_new(BLOCK);
	struct truncation truncation;
	pthread_t thread;

	make_extents(e, 1);
	fake_set_mode(e->fake, FAKE_THREAD, 5);
	for (unsigned k = 0; k < 200; k++) {
		truncation = (struct truncation){ .e = e, .size = BLOCK };
		pthread_create(&thread, NULL, truncate_thread, &truncation);
		for (unsigned left = 0; left < 8; left++)
			engine_submit(e, e->file, &req[left], DIO_DIRECT, 0, buf, BLOCK);
		for (unsigned left = 0; left < 8; left++)
			ck_assert_int_eq(engine_wait(e, &req[left]), BLOCK);
		pthread_join(thread, NULL);
	}
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(buf);
	engine_close(e);
}
END_TEST

static sem_t worker_holds, worker_released;
static void hold_worker(struct work *work)
{
	sem_post(&worker_holds);
	sem_wait(&worker_released);
}

/* While all workers are stuck, the fast path goes on. */
START_TEST(fast_path_goes_on_without_workers)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 1 });
	struct work hold;
	struct test_request slow;
	void *buf = buffer_new(BLOCK);

	make_extents(e, 2);
	sem_init(&worker_holds, 0, 0);
	sem_init(&worker_released, 0, 0);
	work_queue_add(e->workers, &hold, hold_worker);
	sem_wait(&worker_holds);
	fill_pattern(buf, 1, 8 * BLOCK, BLOCK);
	engine_submit(e, e->file, &slow, DIO_DIRECT | DIO_WRITE, 8 * BLOCK, buf, BLOCK);
	for (unsigned k = 0; k < 20; k++) {
		struct test_request req;
		void *c = buffer_new(2 * BLOCK);
		fill_pattern(c, 1, 0, 2 * BLOCK);
		engine_submit(e, e->file, &req, DIO_DIRECT | (k & 1 ? DIO_WRITE : 0), 0, c,
			      2 * BLOCK);
		ck_assert_uint_eq(req.done, 1);
		ck_assert_int_eq(req.res, 2 * BLOCK);
		free(c);
	}
	ck_assert(!request_is_done(&slow));
	sem_post(&worker_released);
	ck_assert_int_eq(engine_wait(e, &slow), BLOCK);
	free(buf);
	engine_close(e);
}
END_TEST

static struct {
	struct engine *e;
	struct test_request *req;
	unsigned calls;
	uint64_t size, off, len;
	uint8_t byte;
	struct work *work;
	void (*done)(struct work *);
} invalidation;

static void check_order_of_invalidation(void *arg, struct ext4_inode *inode, uint64_t off,
					uint64_t len, struct work *work,
					void (*done)(struct work *))
{
	uint8_t buf[512];

	invalidation.calls++;
	invalidation.off = off;
	invalidation.len = len;
	ck_assert(!request_is_done(invalidation.req)); /* before the answer */
	ck_assert_uint_eq(ext4_inode_size(inode), invalidation.size); /* after the size */
	fake_peek(invalidation.e->fake, buf, 512, device_offset(invalidation.e, off));
	ck_assert(all_bytes(buf, invalidation.byte, 512));              /* after the data */
	/* The request is no longer counted as in flight, and no lock is held. */
	ck_assert_int_eq(dio_gate_close(invalidation.e->dio, inode, DIO_GATE_ALL), 0);
	ext4_inode_lock_exclusive(inode);
	ext4_inode_unlock(inode);
	dio_gate_open(invalidation.e->dio, inode, DIO_GATE_ALL);
	done(work);
}

static void write_and_count_invalidations(struct engine *e, uint64_t pos, uint8_t byte,
					  uint64_t size_after, unsigned calls)
{
	struct test_request req;
	void *buf = buffer_new(2 * BLOCK);

	memset(buf, byte, 2 * BLOCK);
	invalidation.calls = 0;
	invalidation.e = e;
	invalidation.req = &req;
	invalidation.size = size_after;
	invalidation.byte = byte;
	engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, pos, buf, 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), 2 * BLOCK);
	ck_assert_uint_eq(invalidation.calls, calls);
	if (calls) {
		ck_assert_uint_eq(invalidation.off, pos);
		ck_assert_uint_eq(invalidation.len, 2 * BLOCK);
	}
	free(buf);
}

/*
 * A write goes to the device, changes extents and size, unlocks, invalidates pages, and answers, in
 * this order. It invalidates only if pages may be cached.
 */
START_TEST(order_of_invalidation)
{
	struct engine *e = engine_new(
			&(struct engine_options){ .inval = check_order_of_invalidation });
	void *buf = buffer_new(BLOCK);

	write_and_count_invalidations(e, 0, 1, 2 * BLOCK, 0);         /* nothing was ever cached */
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, buf, BLOCK), BLOCK);
	write_and_count_invalidations(e, 0, 2, 2 * BLOCK, 0);
	ck_assert_int_eq(engine_io(e, 0, 0, buf, BLOCK), BLOCK); /* a page cache read */
	write_and_count_invalidations(e, 0, 3, 2 * BLOCK, 1);         /* fast overwrite */
	write_and_count_invalidations(e, 2 * BLOCK, 4, 4 * BLOCK, 1);    /* extends */
	write_and_count_invalidations(e, 8 * BLOCK, 5, 10 * BLOCK, 1);
	write_and_count_invalidations(e, 6 * BLOCK, 6, 10 * BLOCK, 1);   /* hole inside */
	free(buf);
	engine_close(e);
}
END_TEST

struct invalidations {
	struct engine *e;
	unsigned calls, all;
	bool late, read_between;
};

static void count_invalidations(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
			 struct work *work, void (*done)(struct work *))
{
	struct invalidations *invalidations = arg;
	uint8_t *buf = buffer_new(BLOCK);

	(void)inode;
	invalidations->calls++;
	if (!off && len == INT64_MAX) {
		invalidations->all++;
		if (invalidations->read_between)
			ck_assert_int_eq(engine_io(invalidations->e, 0, 0, buf, BLOCK), BLOCK);
		if (invalidations->late)
			dio_inval_late(work);
	}
	free(buf);
	done(work);
}

/*
 * After a while without use of the page cache one invalidation covers the whole file, and later
 * writes need none (how 0). That does not hold if the answer went before the invalidation (1), or
 * if somebody read through the page cache meanwhile (2).
 */
START_TEST(unused_page_cache_is_forgotten_once)
{
	for (unsigned how = 0; how < 3; how++) {
		struct invalidations invalidations = { .late = how == 1, .read_between = how == 2 };
		struct engine *e = engine_new(&(struct engine_options){
				.inval = count_invalidations, .inval_arg = &invalidations });

		invalidations.e = e;
		write_pattern(e, 0, 0, 1, BLOCK);
		for (unsigned k = 0; k < 40; k++)
			write_pattern(e, DIO_DIRECT, 0, k, BLOCK);
		ck_assert_uint_eq(invalidations.calls, how ? 40 : 33);
		ck_assert_uint_eq(invalidations.all, how == 0 ? 1 : how == 1 ? 8 : 1);
		write_pattern(e, 0, 0, 1, BLOCK); /* back in the page cache */
		write_pattern(e, DIO_DIRECT, 0, 2, BLOCK);
		ck_assert_uint_eq(invalidations.calls, how ? 41 : 34);
		engine_close(e);
	}
}
END_TEST

static void late_read_done(struct dio_req *req, ssize_t res)
{
	struct test_request *t = container_of(req, struct test_request, req);

	t->res = res;
	__atomic_fetch_add(&t->done, 1, __ATOMIC_RELEASE);
	invalidation.done(invalidation.work);
}

static struct test_request read_of_the_kernel;
static void invalidate_and_read(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
			struct work *work, void (*done)(struct work *))
{
	/*
	 * The kernel locks a page to read the same range, and the notification waits for that page.
	 */
	invalidation.calls++;
	invalidation.work = work;
	invalidation.done = done;
	memset(&read_of_the_kernel, 0, sizeof(read_of_the_kernel));
	read_of_the_kernel.req = (struct dio_req){ .file = invalidation.e->file,
					    .pos = off + 1,
					    .len = 100,
					    .buf = arg,
					    .buf_index = -1,
					    .done = late_read_done };
	dio_submit(invalidation.e->dio, &read_of_the_kernel.req);
}

/*
 * A notification may wait for a read of the same range: that is no deadlock, even with a single
 * worker, for an overwrite and for an extension.
 */
START_TEST(notification_may_wait_for_a_read)
{
	uint8_t page[128];
	struct engine *e = engine_new(&(struct engine_options){
			.threads = 1, .inval = invalidate_and_read, .inval_arg = page });
	struct test_request req;
	void *buf = buffer_new(2 * BLOCK);

	invalidation.e = e;
	write_pattern(e, 0, 0, 1, 2 * BLOCK);
	for (unsigned k = 0; k < 2; k++) {
		memset(buf, 'n' + k, 2 * BLOCK);
		invalidation.calls = 0;
		/* overwrite; then extension */
		engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, k * 4 * BLOCK, buf,
			      2 * BLOCK);
		ck_assert_int_eq(engine_wait(e, &req), 2 * BLOCK);
		ck_assert_uint_eq(invalidation.calls, 1);
		ck_assert_int_eq(read_of_the_kernel.res, 100);
		ck_assert(all_bytes(page, 'n' + k, 100)); /* the newest data */
	}
	free(buf);
	engine_close(e);
}
END_TEST

/* With an empty pool of segments a request takes the reserve of its file, or waits; none fails. */
START_TEST(requests_wait_for_segments)
{
	struct engine *e = engine_new(&(struct engine_options){ .segs = 1 });
	struct test_request req[6];
	uint8_t *buf = buffer_new(6 * 8 * BLOCK);

	make_extents(e, 8);
	uint64_t reserve = counter(COUNTER_dio_reserve_used), wait = counter(COUNTER_dio_pool_wait);
	for (unsigned seed = 1; seed <= 20; seed++) {
		fake_set_mode(e->fake, FAKE_HELD, seed);
		for (unsigned k = 0; k < 6; k++)
			engine_submit(e, e->file, &req[k], DIO_DIRECT, 0, buf + k * 8 * BLOCK,
				      8 * BLOCK);
		fake_complete_random(e->fake);
		for (unsigned k = 0; k < 6; k++) {
			ck_assert_int_eq(engine_wait(e, &req[k]), 8 * BLOCK);
			ck_assert_mem_eq(buf + k * 8 * BLOCK, buf, 8 * BLOCK);
		}
	}
	ck_assert_uint_gt(counter(COUNTER_dio_reserve_used), reserve);
	ck_assert_uint_gt(counter(COUNTER_dio_pool_wait), wait);
	/* One request fails while others wait for segments. */
	fake_set_mode(e->fake, FAKE_HELD, 3);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_READ,
						      .off = device_offset(e, 2 * BLOCK),
						      .len = 1,
						      .repeat = 2,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	for (unsigned k = 0; k < 6; k++)
		engine_submit(e, e->file, &req[k], DIO_DIRECT, 0, buf + k * 8 * BLOCK, 8 * BLOCK);
	fake_complete_random(e->fake);
	unsigned bad = 0;
	for (unsigned k = 0; k < 6; k++)
		bad += engine_wait(e, &req[k]) == -EIO;
	ck_assert_uint_eq(bad, 2);
	fake_fault_clear(e->fake);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	expect_pattern(e, 0, 1, 8 * BLOCK);
	free(buf);
	engine_close(e);
}
END_TEST

/* A write with DIO_KILLPRIV clears set-user-ID, although the data could go out on the fast path. */
START_TEST(write_kills_privileges)
{
	struct engine *e = engine_new(NULL);
	struct ext4_attr attr = { .mode = S_IFREG | 04755 };

	make_extents(e, 1);
	ck_assert_int_eq(ext4_setattr(e->inode, EXT4_SET_MODE, &attr), 0);
	write_pattern(e, DIO_DIRECT, 0, 2, BLOCK);
	ck_assert_uint_eq(ext4_inode_mode(e->inode) & 07777, 04755);
	write_pattern(e, DIO_DIRECT | DIO_KILLPRIV, 0, 3, BLOCK);
	ck_assert_uint_eq(ext4_inode_mode(e->inode) & 07777, 0755);
	engine_close(e);
}
END_TEST

static uint64_t next_random(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return *seed >> 33;
}

static void model_step(struct engine *e, uint8_t *model, uint64_t *size, uint8_t *buf,
		       uint64_t *seed)
{
	unsigned kind = next_random(seed) % 10, cap = 64 * BLOCK;
	uint32_t unit = next_random(seed) % 3 ? 512 : 1;
	uint64_t pos = next_random(seed) % (cap - 1) / unit * unit;
	uint32_t len = 1 + next_random(seed) % (next_random(seed) % 4 ? 3 * BLOCK : 20 * BLOCK);

	len = FDIO_MIN((uint64_t)fdio_round_up(len, unit), cap - pos);
	if (kind < 5) {
		fill_pattern(buf, next_random(seed) % 200, pos, len);
		unsigned flags = DIO_WRITE | (next_random(seed) % 2 ? DIO_DIRECT : 0) |
				 (next_random(seed) % 8 ? 0 : DIO_DSYNC);
		ck_assert_int_eq(engine_io(e, flags, pos, buf, len), len);
		memcpy(model + pos, buf, len);
		*size = FDIO_MAX(*size, pos + len);
	} else if (kind < 8) {
		uint64_t want = pos >= *size ? 0 : FDIO_MIN((uint64_t)len, *size - pos);
		ck_assert_int_eq(engine_io(e, next_random(seed) % 2 ? DIO_DIRECT : 0, pos, buf,
					   len),
				 want);
		ck_assert_mem_eq(buf, model + pos, want);
	} else {
		struct truncation truncation = { .e = e, .size = pos };
		if (next_random(seed) % 2) {
			truncate_thread(&truncation);
			if (pos < *size)
				memset(model + pos, 0, *size - pos);
			*size = pos;
			return;
		}
		int mode = next_random(seed) % 3 ? 0
						 : EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE;
		engine_fallocate(e, mode, pos, len);
		if (mode)
			memset(model + pos, 0,
			       pos + len <= *size ? len
			       : pos < *size      ? *size - pos
						  : 0);
		else
			*size = FDIO_MAX(*size, pos + len);
	}
}

/* Random requests and changes against a model in memory; _i is the seed. */
START_TEST(random_requests_match_the_model)
{
	struct engine *e = engine_new(&(struct engine_options){ .relaxed = true,
								.stale = true,
								.lbs = _i % 3 == 2 ? 4096 : 512,
								.segs = 2 });
	uint8_t *model = calloc(1, 64 * BLOCK), *buf = buffer_new(64 * BLOCK);
	uint64_t size = 0, seed = _i + 1;

	for (unsigned k = 0; k < 300; k++) {
		model_step(e, model, &size, buf, &seed);
		ck_assert_uint_eq(ext4_inode_size(e->inode), size);
	}
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	struct engine *left = engine_cut(e, FAKE_CUT_DROP, 0);
	ck_assert_uint_eq(ext4_inode_size(left->inode), size);
	if (size) {
		ck_assert_int_eq(engine_io(left, 0, 0, buf, size), size);
		ck_assert_mem_eq(buf, model, size);
	}
	engine_close(left);
	free(model);
	free(buf);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: exclusion");
	TCase *t = unit_case(s, "alone", 60);
	TCase *thread = unit_case(s, "threads", 60);

	engine_use_template(t);
	engine_use_template(thread);
	unit_test(thread, writers_of_one_block_serialise);
	unit_test(thread, sub_sector_write_drains_fast_writes);
	unit_test(t, edges_of_new_blocks_are_zero, PROVES("ENGINE-3 ENGINE-4"));
	unit_test(t, gap_behind_the_end_reads_as_zeroes);
	unit_test(t, conversion_follows_the_data, PROVES("ENGINE-4 DIO-4"));
	unit_test(thread, size_follows_the_data, PROVES("ENGINE-4 DIO-4"));
	unit_test(thread, truncate_waits_for_requests_in_flight, PROVES("ENGINE-6"));
	unit_test(thread, truncate_waits_for_a_read, PROVES("ENGINE-6"));
	unit_test(t, gate_closed_for_writes_lets_reads_pass, PROVES("ENGINE-6"));
	unit_test(thread, gate_closes_under_a_stream_of_requests, PROVES("ENGINE-6"));
	unit_test(thread, fast_path_goes_on_without_workers, PROVES("ENGINE-9"));
	unit_test(t, order_of_invalidation, PROVES("ENGINE-7 DIO-3"));
	unit_test(t, unused_page_cache_is_forgotten_once);
	unit_test(thread, notification_may_wait_for_a_read, PROVES("ENGINE-7 DIO-3"));
	unit_test(t, requests_wait_for_segments, PROVES("ENGINE-9"));
	unit_test(t, write_kills_privileges);
	unit_seeds(t, random_requests_match_the_model, 6);
	return s;
}
