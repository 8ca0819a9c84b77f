/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of the direct-I/O engine beside each other and beside changes of the file: new blocks,
 * the end of the file, truncation, the page cache, and who goes on while others wait. Case
 * "threads" has workers of its own; what it runs is worth a build with ThreadSanitizer.
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
 * Two writers inside one sector follow each other, both survive; writers of different blocks run
 * side by side.
 */
START_TEST(writers_of_one_block_serialise)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2, .relaxed = true });
	uint8_t *a = buffer_new(256), *b = buffer_new(256), *r = buffer_new(BLOCK);
	struct test_request ta, tb;

	write_pattern(e, 0, 0, 1, 4 * BLOCK);
	memset(a, 'a', 256);
	memset(b, 'b', 256);
	uint64_t waits = counter(COUNTER_dio_range_wait);
	fake_block(e->fake, FAKE_READ); /* both would read the old sector now */
	engine_submit(e, e->file, &ta, DIO_DIRECT | DIO_WRITE, 0, a, 256);
	engine_submit(e, e->file, &tb, DIO_DIRECT | DIO_WRITE, 256, b, 256);
	wait_counter(COUNTER_dio_range_wait, waits + 1);
	fake_unblock(e->fake);
	ck_assert_int_eq(engine_wait(e, &ta), 256);
	ck_assert_int_eq(engine_wait(e, &tb), 256);
	ck_assert_int_eq(engine_io(e, 0, 0, r, BLOCK), BLOCK);
	ck_assert(all_bytes(r, 'a', 256));
	ck_assert(all_bytes(r + 256, 'b', 256));
	/* Different blocks: both are at the device at once. */
	fake_block(e->fake, FAKE_READ);
	engine_submit(e, e->file, &ta, DIO_DIRECT | DIO_WRITE, BLOCK + 100, a, 256);
	engine_submit(e, e->file, &tb, DIO_DIRECT | DIO_WRITE, 2 * BLOCK + 100, b, 256);
	ck_assert(fake_wait_blocked(e->fake, 2));
	fake_unblock(e->fake);
	ck_assert_int_eq(engine_wait(e, &ta), 256);
	ck_assert_int_eq(engine_wait(e, &tb), 256);
	free(a);
	free(b);
	free(r);
	engine_close(e);
}
END_TEST

/* A fast overwrite in flight and a write of a part of the same sector: neither is lost. */
START_TEST(sub_sector_write_drains_fast_writes)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 1, .relaxed = true });
	uint8_t *a = buffer_new(512), *b = buffer_new(100), *r = buffer_new(BLOCK);
	struct test_request ta, tb;

	write_pattern(e, 0, 0, 1, BLOCK);
	memset(a, 'a', 512);
	memset(b, 'b', 100);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	engine_submit(e, e->file, &ta, DIO_DIRECT | DIO_WRITE, 0, a, 512);
	engine_submit(e, e->file, &tb, DIO_DIRECT | DIO_WRITE, 50, b, 100);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert(!request_is_done(&tb));
	fake_complete(e->fake, 0);
	ck_assert_int_eq(engine_wait(e, &ta), 512);
	ck_assert_int_eq(engine_wait(e, &tb), 100);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	ck_assert_int_eq(engine_io(e, 0, 0, r, 512), 512);
	ck_assert(all_bytes(r, 'a', 50) && all_bytes(r + 50, 'b', 100) &&
		  all_bytes(r + 150, 'a', 362));
	free(a);
	free(b);
	free(r);
	engine_close(e);
}
END_TEST

/* After a cut at any recorded event: only what check allows is visible, and the volume is clean. */
static void cut_everywhere(struct engine *e, unsigned step, void (*check)(struct engine *n))
{
	unsigned events = fake_record_events(e->fake);
	static const enum fake_cut modes[] = { FAKE_CUT_DROP, FAKE_CUT_KEEP, FAKE_CUT_RANDOM };

	ck_assert_uint_gt(events, 2);
	for (unsigned k = 0; k <= events; k++)
		for (unsigned m = 0; m < 3; m++) {
			struct engine_options o = e->opt;
			o.stale = false;
			struct engine *n = engine_on(
					fake_record_cut(e->fake, k, modes[m], k * 7 + 1), &o);
			check(n);
			if ((k * 3 + m) % step == 0)
				engine_close(n);
			else
				engine_close_nocheck(n);
		}
}

static void check_not_stale(struct engine *n)
{
	uint64_t size = ext4_inode_size(n->inode);
	uint8_t *b = buffer_new(16 * BLOCK), *want = buffer_new(16 * BLOCK);

	ck_assert_uint_le(size, 16 * BLOCK);
	ck_assert_int_eq(engine_io(n, 0, 0, b, 16 * BLOCK), size);
	fill_pattern(want, 7, 0, 16 * BLOCK);
	uint64_t k = 0;
	while (k + 1 < size && (b[k] == 0 || b[k] == want[k]))
		k++;
	if (size)
		ck_assert_msg(b[k] == 0 || b[k] == want[k],
			      "byte %llu is %#x: neither zero nor new", (unsigned long long)k,
			      b[k]);
	free(b);
	free(want);
}

/*
 * The edges of a new block are zero, also behind the end of the file, and no cut shows what was
 * there before.
 */
START_TEST(edges_of_new_blocks_are_zero)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint8_t *b = buffer_new(16 * BLOCK);

	fake_record_start(e->fake);
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 3 * BLOCK + 512, 7,
		      512); /* extends, head and tail */
	/* two blocks inside the size */
	write_pattern(e, DIO_DIRECT, BLOCK + 1024, 7, BLOCK);
	/* gap in the block that held the end */
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 3 * BLOCK + 2048, 7, 512);
	write_pattern(e, DIO_DIRECT | DIO_DSYNC, 9 * BLOCK + 3584, 7, 512);
	cut_everywhere(e, 16, check_not_stale);
	fake_record_stop(e->fake);
	ck_assert_int_eq(engine_io(e, 0, 0, b, 16 * BLOCK), 10 * BLOCK);
	ck_assert(no_byte(b, 0xa5, 10 * BLOCK));
	expect_pattern(e, 3 * BLOCK + 512, 7, 512);
	expect_pattern(e, BLOCK + 1024, 7, BLOCK);
	expect_pattern(e, 3 * BLOCK + 2048, 7, 512);
	ck_assert(all_bytes(b, 0, BLOCK + 1024));
	ck_assert(all_bytes(b + 3 * BLOCK + 1024, 0, 1024));
	/* On the device, behind the end of the file: extend by one byte far away and look. */
	write_pattern(e, 0, 12 * BLOCK, 7, 1);
	ck_assert_int_eq(engine_io(e, 0, 3 * BLOCK, b, 9 * BLOCK), 9 * BLOCK);
	ck_assert(no_byte(b, 0xa5, 9 * BLOCK));
	free(b);
	engine_close(e);
}
END_TEST

/* Buffered writes of any length: what lies between the old end and the new data reads as zeroes. */
START_TEST(gap_after_a_short_block)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });
	uint8_t *b = buffer_new(8 * BLOCK);

	/* Behind the end the block holds what others left there. */
	memset(b, 0xa5, BLOCK);
	write_pattern(e, 0, 0, 7, 700);
	fake_poke(e->fake, b, BLOCK - 700, device_offset(e, 0) + 700);
	write_pattern(e, 0, 1500, 7, 10);
	fake_poke(e->fake, b, BLOCK - 1510, device_offset(e, 0) + 1510);
	write_pattern(e, 0, 3 * BLOCK + 5, 7, 20);
	ck_assert_int_eq(engine_io(e, 0, 0, b, 8 * BLOCK), 3 * BLOCK + 25);
	ck_assert(all_bytes(b + 700, 0, 800));
	ck_assert(all_bytes(b + 1510, 0, 3 * BLOCK + 5 - 1510));
	expect_pattern(e, 0, 7, 700);
	expect_pattern(e, 1500, 7, 10);
	expect_pattern(e, 3 * BLOCK + 5, 7, 20);
	free(b);
	engine_close(e);
}
END_TEST

/*
 * An unwritten extent becomes readable only after its data is on the device: any cut shows zeroes
 * or the new data.
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
	cut_everywhere(e, 16, check_not_stale);
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

static struct engine *watch_env;
static uint64_t watch_size_max;
static unsigned watch_calls;
static void watch_size(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
		       bool after)
{
	uint64_t s = ext4_inode_size(watch_env->inode);

	watch_size_max = FDIO_MAX(watch_size_max, s);
	watch_calls++;
}

static pthread_barrier_t extend_barrier;
struct extender { struct engine *e; uint64_t pos; uint32_t len; };
static void *extend(void *arg)
{
	struct extender *extender = arg;
	void *b = buffer_new(extender->len);
	struct test_request req;

	fill_pattern(b, 1, extender->pos, extender->len);
	pthread_barrier_wait(&extend_barrier);
	engine_submit(extender->e, extender->e->file, &req, DIO_DIRECT | DIO_WRITE, extender->pos,
		      b, extender->len);
	ck_assert_int_eq(engine_wait(extender->e, &req), extender->len);
	free(b);
	return NULL;
}

/* The size grows after the data is there; of two extenders the larger wins. */
START_TEST(size_follows_the_data)
{
	struct engine *e = engine_new(&(struct engine_options){ .stale = true });

	write_pattern(e, DIO_DIRECT, 0, 1, BLOCK);
	watch_env = e;
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
		struct extender a = { e, base, 2 * BLOCK }, b = { e, base + 2 * BLOCK, 6 * BLOCK };
		pthread_t t;
		pthread_barrier_init(&extend_barrier, NULL, 2);
		pthread_create(&t, NULL, extend, &a);
		extend(&b);
		pthread_join(t, NULL);
		pthread_barrier_destroy(&extend_barrier);
		ck_assert_uint_eq(ext4_inode_size(e->inode), base + 8 * BLOCK);
		expect_pattern(e, base, 1, 8 * BLOCK);
	}
	engine_close(e);
}
END_TEST

struct truncer { struct engine *e; uint64_t size; unsigned done; };
static void *truncate_thread(void *arg)
{
	struct truncer *truncer = arg;

	engine_truncate(truncer->e, truncer->e->inode, truncer->size);
	__atomic_store_n(&truncer->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Truncate waits for I/O in flight, and what comes meanwhile does not slip in. */
START_TEST(truncate_drains)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2 });
	void *b = buffer_new(4 * BLOCK), *c = buffer_new(BLOCK);
	struct truncer tr = { .e = e };
	struct test_request w, r, late;
	pthread_t th;

	make_extents(e, 4);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	fill_pattern(b, 2, 0, 4 * BLOCK);
	engine_submit(e, e->file, &w, DIO_DIRECT | DIO_WRITE, 0, b, 4 * BLOCK);
	engine_submit(e, e->file, &r, DIO_DIRECT, 0, c, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 5);
	uint64_t waits = counter(COUNTER_dio_gate_wait),
		 diverted = counter(COUNTER_dio_gate_diverted);
	pthread_create(&th, NULL, truncate_thread, &tr);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert(!__atomic_load_n(&tr.done, __ATOMIC_ACQUIRE));
	void *lb = buffer_new(BLOCK);
	engine_submit(e, e->file, &late, DIO_DIRECT, 0, lb, BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_gate_diverted) - diverted, 1);
	ck_assert_int_eq(engine_wait(e, &late),
			 BLOCK); /* by a worker: the truncate is not there yet */
	for (unsigned k = 0; k < 4; k++) {
		ck_assert(!__atomic_load_n(&tr.done, __ATOMIC_ACQUIRE));
		fake_complete(e->fake, 1); /* all but the first */
	}
	usleep(2000);
	ck_assert(!__atomic_load_n(&tr.done, __ATOMIC_ACQUIRE));
	fake_complete(e->fake, 0);
	pthread_join(th, NULL);
	ck_assert_int_eq(engine_wait(e, &w), 4 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &r), BLOCK);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(b);
	free(c);
	free(lb);
	engine_close(e);
}
END_TEST

/* A read alone is waited for as well: its blocks are not given away under it. */
START_TEST(truncate_waits_for_a_read)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 1 });
	struct truncer tr = { .e = e };
	uint8_t *b = buffer_new(BLOCK), *want = buffer_new(BLOCK);
	struct test_request req;
	pthread_t th;

	make_extents(e, 4);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &req, DIO_DIRECT, 2 * BLOCK, b, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	uint64_t waits = counter(COUNTER_dio_gate_wait);
	pthread_create(&th, NULL, truncate_thread, &tr);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 4 * BLOCK);
	fake_complete(e->fake, 0);
	pthread_join(th, NULL);
	ck_assert_int_eq(engine_wait(e, &req), BLOCK);
	fill_pattern(want, 1, 2 * BLOCK, BLOCK);
	ck_assert_mem_eq(b, want, BLOCK);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(b);
	free(want);
	engine_close(e);
}
END_TEST

/* A gate that is closed for writes sends them to workers, and lets reads pass. */
START_TEST(closed_for_writes)
{
	struct engine *e = engine_new(NULL);
	uint8_t *b = buffer_new(BLOCK), *c = buffer_new(BLOCK);
	struct test_request w, r;

	make_extents(e, 2);
	ck_assert_int_eq(dio_gate_close(e->dio, e->inode, DIO_GATE_WRITES), 0);
	uint64_t diverted = counter(COUNTER_dio_gate_diverted);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &w, DIO_DIRECT | DIO_WRITE, 0, b, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 0);
	ck_assert_uint_eq(counter(COUNTER_dio_gate_diverted) - diverted, 1);
	engine_submit(e, e->file, &r, DIO_DIRECT, BLOCK, c, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	fake_complete(e->fake, 0);
	ck_assert(request_is_done(&r) && !request_is_done(&w));
	dio_gate_open(e->dio, e->inode, DIO_GATE_WRITES);
	ck_assert_int_eq(engine_wait(e, &w), BLOCK);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(b);
	free(c);
	engine_close(e);
}
END_TEST

/*
 * 18b: many rounds of closing against a stream of fast requests that complete elsewhere: no wake-up
 * is lost.
 */
START_TEST(gate_storm)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2 });
	struct test_request req[8];
	void *b = buffer_new(BLOCK);
	struct truncer tr;
	pthread_t th;

	make_extents(e, 1);
	fake_set_mode(e->fake, FAKE_THREAD, 5);
	for (unsigned k = 0; k < 200; k++) {
		tr = (struct truncer){ .e = e, .size = BLOCK };
		pthread_create(&th, NULL, truncate_thread, &tr);
		for (unsigned n = 0; n < 8; n++)
			engine_submit(e, e->file, &req[n], DIO_DIRECT, 0, b, BLOCK);
		for (unsigned n = 0; n < 8; n++)
			ck_assert_int_eq(engine_wait(e, &req[n]), BLOCK);
		pthread_join(th, NULL);
	}
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(b);
	engine_close(e);
}
END_TEST

static sem_t hold_in, hold_out;
static void hold_worker(struct work *work)
{
	sem_post(&hold_in);
	sem_wait(&hold_out);
}

/* Slow things run on workers; with all of them stuck, the fast path goes on. */
START_TEST(the_loop_never_waits)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 1 });
	struct work hold;
	struct test_request slow;
	void *b = buffer_new(BLOCK);

	make_extents(e, 2);
	sem_init(&hold_in, 0, 0);
	sem_init(&hold_out, 0, 0);
	work_queue_add(e->workers, &hold, hold_worker);
	sem_wait(&hold_in);
	fill_pattern(b, 1, 8 * BLOCK, BLOCK);
	engine_submit(e, e->file, &slow, DIO_DIRECT | DIO_WRITE, 8 * BLOCK, b, BLOCK);
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
	sem_post(&hold_out);
	ck_assert_int_eq(engine_wait(e, &slow), BLOCK);
	free(b);
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
} inv;

static void inval_check(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
			struct work *work, void (*done)(struct work *))
{
	uint8_t b[512];

	inv.calls++;
	inv.off = off;
	inv.len = len;
	ck_assert(!request_is_done(inv.req));                      /* before the answer */
	ck_assert_uint_eq(ext4_inode_size(inode), inv.size);       /* after the size */
	fake_peek(inv.e->fake, b, 512, device_offset(inv.e, off));
	ck_assert(all_bytes(b, inv.byte, 512));              /* after the data */
	/* nothing in flight is counted */
	ck_assert_int_eq(dio_gate_close(inv.e->dio, inode, DIO_GATE_ALL), 0);
	ext4_inode_lock_exclusive(inode);                               /* and no lock is held */
	ext4_inode_unlock(inode);
	dio_gate_open(inv.e->dio, inode, DIO_GATE_ALL);
	done(work);
}

static void inval_write(struct engine *e, uint64_t pos, uint8_t byte, uint64_t size_after,
			unsigned calls)
{
	struct test_request req;
	void *b = buffer_new(2 * BLOCK);

	memset(b, byte, 2 * BLOCK);
	inv.calls = 0;
	inv.e = e;
	inv.req = &req;
	inv.size = size_after;
	inv.byte = byte;
	engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, pos, b, 2 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), 2 * BLOCK);
	ck_assert_uint_eq(inv.calls, calls);
	if (calls) {
		ck_assert_uint_eq(inv.off, pos);
		ck_assert_uint_eq(inv.len, 2 * BLOCK);
	}
	free(b);
}

/*
 * Device, extents and size, unlock, invalidate, answer: in this order; and only where pages may be
 * cached.
 */
START_TEST(order_of_invalidation)
{
	struct engine *e = engine_new(&(struct engine_options){ .inval = inval_check });
	void *b = buffer_new(BLOCK);

	inval_write(e, 0, 1, 2 * BLOCK, 0);         /* nothing was ever cached */
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, b, BLOCK), BLOCK);
	inval_write(e, 0, 2, 2 * BLOCK, 0);
	ck_assert_int_eq(engine_io(e, 0, 0, b, BLOCK), BLOCK); /* a page cache read */
	inval_write(e, 0, 3, 2 * BLOCK, 1);         /* fast overwrite */
	inval_write(e, 2 * BLOCK, 4, 4 * BLOCK, 1);    /* extends */
	inval_write(e, 8 * BLOCK, 5, 10 * BLOCK, 1);
	inval_write(e, 6 * BLOCK, 6, 10 * BLOCK, 1);   /* hole inside */
	free(b);
	engine_close(e);
}
END_TEST

struct forget {
	struct engine *e;
	unsigned calls, all;
	bool late, read_between;
};

static void inval_forget(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
			 struct work *work, void (*done)(struct work *))
{
	struct forget *forget = arg;
	uint8_t *b = buffer_new(BLOCK);

	(void)inode;
	forget->calls++;
	if (!off && len == INT64_MAX) {
		forget->all++;
		if (forget->read_between)
			ck_assert_int_eq(engine_io(forget->e, 0, 0, b, BLOCK), BLOCK);
		if (forget->late)
			dio_inval_late(work);
	}
	free(b);
	done(work);
}

/*
 * Nobody has used the page cache for a while: all pages are forgotten once, and later writes need
 * not ask. Not if somebody read meanwhile, and not if the answer goes before the pages do.
 */
START_TEST(files_that_left_the_page_cache)
{
	for (unsigned how = 0; how < 3; how++) {
		struct forget forget = { .late = how == 1, .read_between = how == 2 };
		struct engine *e = engine_new(&(struct engine_options){ .inval = inval_forget,
									.inval_arg = &forget });

		forget.e = e;
		write_pattern(e, 0, 0, 1, BLOCK);
		for (unsigned k = 0; k < 40; k++)
			write_pattern(e, DIO_DIRECT, 0, k, BLOCK);
		ck_assert_uint_eq(forget.calls, how ? 40 : 33);
		ck_assert_uint_eq(forget.all, how == 0 ? 1 : how == 1 ? 8 : 1);
		write_pattern(e, 0, 0, 1, BLOCK); /* back in the page cache */
		write_pattern(e, DIO_DIRECT, 0, 2, BLOCK);
		ck_assert_uint_eq(forget.calls, how ? 41 : 34);
		engine_close(e);
	}
}
END_TEST

static void late_read_done(struct dio_req *req, ssize_t res)
{
	struct test_request *t = container_of(req, struct test_request, req);

	t->res = res;
	__atomic_fetch_add(&t->done, 1, __ATOMIC_RELEASE);
	inv.done(inv.work);
}

static struct test_request kernel_read;
static void inval_reads(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
			struct work *work, void (*done)(struct work *))
{
	/*
	 * The kernel holds a page locked by a read of the same range, and the notification waits
	 * for it.
	 */
	inv.calls++;
	inv.work = work;
	inv.done = done;
	memset(&kernel_read, 0, sizeof(kernel_read));
	kernel_read.req = (struct dio_req){ .file = inv.e->file,
					    .pos = off + 1,
					    .len = 100,
					    .buf = arg,
					    .buf_index = -1,
					    .done = late_read_done };
	dio_submit(inv.e->dio, &kernel_read.req);
}

/*
 * The notification may wait for a read of the same range: no deadlock, with a single worker, on
 * either path.
 */
START_TEST(notify_waits_for_a_read)
{
	uint8_t page[128];
	struct engine *e = engine_new(&(struct engine_options){
			.threads = 1, .inval = inval_reads, .inval_arg = page });
	struct test_request req;
	void *b = buffer_new(2 * BLOCK);

	inv.e = e;
	write_pattern(e, 0, 0, 1, 2 * BLOCK);
	for (unsigned k = 0; k < 2; k++) {
		memset(b, 'n' + k, 2 * BLOCK);
		inv.calls = 0;
		/* overwrite; then extension */
		engine_submit(e, e->file, &req, DIO_DIRECT | DIO_WRITE, k * 4 * BLOCK, b,
			      2 * BLOCK);
		ck_assert_int_eq(engine_wait(e, &req), 2 * BLOCK);
		ck_assert_uint_eq(inv.calls, 1);
		ck_assert_int_eq(kernel_read.res, 100);
		ck_assert(all_bytes(page, 'n' + k, 100)); /* the newest data */
	}
	free(b);
	engine_close(e);
}
END_TEST

/* With the pool empty a request takes the reserve of its file, else it waits; it never fails. */
START_TEST(progress_without_segments)
{
	struct engine *e = engine_new(&(struct engine_options){ .segs = 1 });
	struct test_request req[6];
	uint8_t *b = buffer_new(6 * 8 * BLOCK);

	make_extents(e, 8);
	uint64_t reserve = counter(COUNTER_dio_reserve_used), wait = counter(COUNTER_dio_pool_wait);
	for (unsigned seed = 1; seed <= 20; seed++) {
		fake_set_mode(e->fake, FAKE_HELD, seed);
		for (unsigned k = 0; k < 6; k++)
			engine_submit(e, e->file, &req[k], DIO_DIRECT, 0, b + k * 8 * BLOCK,
				      8 * BLOCK);
		fake_complete_random(e->fake);
		for (unsigned k = 0; k < 6; k++) {
			ck_assert_int_eq(engine_wait(e, &req[k]), 8 * BLOCK);
			ck_assert_mem_eq(b + k * 8 * BLOCK, b, 8 * BLOCK);
		}
	}
	ck_assert_uint_gt(counter(COUNTER_dio_reserve_used), reserve);
	ck_assert_uint_gt(counter(COUNTER_dio_pool_wait), wait);
	/* An error while others wait. */
	fake_set_mode(e->fake, FAKE_HELD, 3);
	fake_fault_add(e->fake, &(struct fake_fault){ .kinds = FAKE_READ,
						      .off = device_offset(e, 2 * BLOCK),
						      .len = 1,
						      .repeat = 2,
						      .action = FAKE_ERROR,
						      .err = -EIO });
	for (unsigned k = 0; k < 6; k++)
		engine_submit(e, e->file, &req[k], DIO_DIRECT, 0, b + k * 8 * BLOCK, 8 * BLOCK);
	fake_complete_random(e->fake);
	unsigned bad = 0;
	for (unsigned k = 0; k < 6; k++)
		bad += engine_wait(e, &req[k]) == -EIO;
	ck_assert_uint_eq(bad, 2);
	fake_fault_clear(e->fake);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	expect_pattern(e, 0, 1, 8 * BLOCK);
	free(b);
	engine_close(e);
}
END_TEST

/* A write that must kill privileges does, also where the data could have gone out directly. */
START_TEST(killpriv)
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

static uint64_t rnd(uint64_t *s)
{
	*s = *s * 6364136223846793005ULL + 1442695040888963407ULL;
	return *s >> 33;
}

static void model_step(struct engine *e, uint8_t *model, uint64_t *size, uint8_t *b, uint64_t *s)
{
	unsigned kind = rnd(s) % 10, cap = 64 * BLOCK;
	uint32_t unit = rnd(s) % 3 ? 512 : 1;
	uint64_t pos = rnd(s) % (cap - 1) / unit * unit;
	uint32_t len = 1 + rnd(s) % (rnd(s) % 4 ? 3 * BLOCK : 20 * BLOCK);

	len = FDIO_MIN((uint64_t)fdio_round_up(len, unit), cap - pos);
	if (kind < 5) {
		fill_pattern(b, rnd(s) % 200, pos, len);
		unsigned flags = DIO_WRITE | (rnd(s) % 2 ? DIO_DIRECT : 0) |
				 (rnd(s) % 8 ? 0 : DIO_DSYNC);
		ck_assert_int_eq(engine_io(e, flags, pos, b, len), len);
		memcpy(model + pos, b, len);
		*size = FDIO_MAX(*size, pos + len);
	} else if (kind < 8) {
		uint64_t want = pos >= *size ? 0 : FDIO_MIN((uint64_t)len, *size - pos);
		ck_assert_int_eq(engine_io(e, rnd(s) % 2 ? DIO_DIRECT : 0, pos, b, len), want);
		ck_assert_mem_eq(b, model + pos, want);
	} else {
		struct truncer truncer = { .e = e, .size = pos };
		if (rnd(s) % 2) {
			truncate_thread(&truncer);
			if (pos < *size)
				memset(model + pos, 0, *size - pos);
			*size = pos;
			return;
		}
		int mode = rnd(s) % 3 ? 0 : EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE;
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

/* Everything at random against a model; loop test: one seed each. */
START_TEST(random_requests_match_the_model)
{
	struct engine *e = engine_new(&(struct engine_options){ .relaxed = true,
								.stale = true,
								.lbs = _i % 3 == 2 ? 4096 : 512,
								.segs = 2 });
	uint8_t *model = calloc(1, 64 * BLOCK), *b = buffer_new(64 * BLOCK);
	uint64_t size = 0, seed = _i + 1;

	for (unsigned k = 0; k < 300; k++) {
		model_step(e, model, &size, b, &seed);
		ck_assert_uint_eq(ext4_inode_size(e->inode), size);
	}
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	struct engine *n = engine_cut(e, FAKE_CUT_DROP, 0);
	ck_assert_uint_eq(ext4_inode_size(n->inode), size);
	if (size) {
		ck_assert_int_eq(engine_io(n, 0, 0, b, size), size);
		ck_assert_mem_eq(b, model, size);
	}
	engine_close(n);
	free(model);
	free(b);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: exclusion");
	TCase *t = unit_case(s, "alone", 60);
	TCase *th = unit_case(s, "threads", 60);

	engine_use_template(t);
	engine_use_template(th);
	unit_test(th, writers_of_one_block_serialise);
	unit_test(th, sub_sector_write_drains_fast_writes);
	unit_test(t, edges_of_new_blocks_are_zero, PROVES("ENGINE-3 ENGINE-4"));
	unit_test(t, gap_after_a_short_block);
	unit_test(t, conversion_follows_the_data, PROVES("ENGINE-4 DIO-4"));
	unit_test(th, size_follows_the_data, PROVES("ENGINE-4 DIO-4"));
	unit_test(th, truncate_drains, PROVES("ENGINE-6"));
	unit_test(th, truncate_waits_for_a_read, PROVES("ENGINE-6"));
	unit_test(t, closed_for_writes, PROVES("ENGINE-6"));
	unit_test(th, gate_storm, PROVES("ENGINE-6"));
	unit_test(th, the_loop_never_waits, PROVES("ENGINE-9"));
	unit_test(t, order_of_invalidation, PROVES("ENGINE-7 DIO-3"));
	unit_test(t, files_that_left_the_page_cache);
	unit_test(th, notify_waits_for_a_read, PROVES("ENGINE-7 DIO-3"));
	unit_test(t, progress_without_segments, PROVES("ENGINE-9"));
	unit_test(t, killpriv);
	unit_seeds(t, random_requests_match_the_model, 6);
	return s;
}
