/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of requests of the direct-I/O engine beside each other and beside changes of the file:
 * writes of one block, truncation and the gate, and progress while others wait. HACKING.md has the
 * tags.
 *
 * The fake device holds or blocks requests. Tests of the case "threads" have workers; build them
 * with ThreadSanitizer to find races.
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
	void *buf = buffer_new(4 * BLOCK), *read_buf = buffer_new(BLOCK);
	struct truncation truncation = { .e = e };
	struct test_request writing, reading, late;
	pthread_t thread;

	make_extents(e, 4);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	fill_pattern(buf, 2, 0, 4 * BLOCK);
	engine_submit(e, e->file, &writing, DIO_DIRECT | DIO_WRITE, 0, buf, 4 * BLOCK);
	engine_submit(e, e->file, &reading, DIO_DIRECT, 0, read_buf, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 5);
	uint64_t waits = counter(COUNTER_dio_gate_wait),
		 diverted = counter(COUNTER_dio_gate_diverted);
	pthread_create(&thread, NULL, truncate_thread, &truncation);
	wait_counter(COUNTER_dio_gate_wait, waits + 1);
	ck_assert(!__atomic_load_n(&truncation.done, __ATOMIC_ACQUIRE));
	void *late_buf = buffer_new(BLOCK);
	engine_submit(e, e->file, &late, DIO_DIRECT, 0, late_buf, BLOCK);
	ck_assert_uint_eq(counter(COUNTER_dio_gate_diverted) - diverted, 1);
	/* A worker does it, before the truncate. */
	ck_assert_int_eq(engine_wait(e, &late), BLOCK);
	for (unsigned k = 0; k < 4; k++) {
		ck_assert(!__atomic_load_n(&truncation.done, __ATOMIC_ACQUIRE));
		fake_complete(e->fake, 1); /* never the first one */
	}
	usleep(2000);
	ck_assert(!__atomic_load_n(&truncation.done, __ATOMIC_ACQUIRE));
	fake_complete(e->fake, 0);
	pthread_join(thread, NULL);
	ck_assert_int_eq(engine_wait(e, &writing), 4 * BLOCK);
	ck_assert_int_eq(engine_wait(e, &reading), BLOCK);
	ck_assert_uint_eq(ext4_inode_size(e->inode), 0);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(buf);
	free(read_buf);
	free(late_buf);
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
	uint8_t *buf = buffer_new(BLOCK), *read_buf = buffer_new(BLOCK);
	struct test_request writing, reading;

	make_extents(e, 2);
	ck_assert_int_eq(dio_gate_close(e->dio, e->inode, DIO_GATE_WRITES), 0);
	uint64_t diverted = counter(COUNTER_dio_gate_diverted);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	engine_submit(e, e->file, &writing, DIO_DIRECT | DIO_WRITE, 0, buf, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 0);
	ck_assert_uint_eq(counter(COUNTER_dio_gate_diverted) - diverted, 1);
	engine_submit(e, e->file, &reading, DIO_DIRECT, BLOCK, read_buf, BLOCK);
	ck_assert_uint_eq(fake_held(e->fake), 1);
	fake_complete(e->fake, 0);
	ck_assert(request_is_done(&reading) && !request_is_done(&writing));
	dio_gate_open(e->dio, e->inode, DIO_GATE_WRITES);
	ck_assert_int_eq(engine_wait(e, &writing), BLOCK);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	free(buf);
	free(read_buf);
	engine_close(e);
}
END_TEST

/*
 * Fast requests complete on another thread while the gate is closed 200 times: no wake-up is lost.
 */
START_TEST(gate_closes_under_a_stream_of_requests)
{
	struct engine *e = engine_new(&(struct engine_options){ .threads = 2 });
	static struct test_request req[8];
	void *buf = buffer_new(BLOCK);
	struct truncation truncation;
	pthread_t thread;

	make_extents(e, 1);
	fake_set_mode(e->fake, FAKE_THREAD, 5);
	for (unsigned k = 0; k < 200; k++) {
		truncation = (struct truncation){ .e = e, .size = BLOCK };
		pthread_create(&thread, NULL, truncate_thread, &truncation);
		for (unsigned n = 0; n < 8; n++)
			engine_submit(e, e->file, &req[n], DIO_DIRECT, 0, buf, BLOCK);
		for (unsigned n = 0; n < 8; n++)
			ck_assert_int_eq(engine_wait(e, &req[n]), BLOCK);
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
	uint32_t sector_bytes = _i % 3 == 2 ? 4096 : 512;
	struct engine *e = engine_new(&(struct engine_options){ .relaxed = true,
								.stale = true,
								.sector_bytes = sector_bytes,
								.segs = 2 });
	uint8_t *model = calloc(1, 64 * BLOCK), *buf = buffer_new(64 * BLOCK);
	uint64_t size = 0, seed = _i + 1;

	for (unsigned k = 0; k < 300; k++) {
		model_step(e, model, &size, buf, &seed);
		ck_assert_uint_eq(ext4_inode_size(e->inode), size);
	}
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	struct engine *rebooted = engine_cut(e, FAKE_CUT_DROP, 0);
	ck_assert_uint_eq(ext4_inode_size(rebooted->inode), size);
	if (size) {
		ck_assert_int_eq(engine_io(rebooted, 0, 0, buf, size), size);
		ck_assert_mem_eq(buf, model, size);
	}
	engine_close(rebooted);
	free(model);
	free(buf);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: exclusion");
	TCase *t = unit_case(s, "alone", 60);
	TCase *threads = unit_case(s, "threads", 60);

	engine_use_template(t);
	engine_use_template(threads);
	unit_test(threads, writers_of_one_block_serialise);
	unit_test(threads, sub_sector_write_drains_fast_writes);
	unit_test(threads, truncate_waits_for_requests_in_flight, PROVES("ENGINE-6"));
	unit_test(threads, truncate_waits_for_a_read, PROVES("ENGINE-6"));
	unit_test(t, gate_closed_for_writes_lets_reads_pass, PROVES("ENGINE-6"));
	unit_test(threads, gate_closes_under_a_stream_of_requests, PROVES("ENGINE-6"));
	unit_test(threads, fast_path_goes_on_without_workers, PROVES("ENGINE-9"));
	unit_test(t, requests_wait_for_segments, PROVES("ENGINE-9"));
	unit_test(t, write_kills_privileges);
	unit_seeds(t, random_requests_match_the_model, 6);
	return s;
}
