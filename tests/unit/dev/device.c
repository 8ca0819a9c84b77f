/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of src/dev. Two devices: one in memory whose flushes wait at a gate of the test, for
 * the wrappers (alignment, bounds, batches) and the flush sequencer (one flush serves all callers
 * that came before it began); and the io_uring device on a temporary image file, for synchronous
 * and asynchronous requests, rings that fail, and locking of the image.
 *
 * The test's thread, threads that only flush, and one loop.
 */
#include "base/counters.h"
#include "base/lock.h"
#include "base/log.h"
#include "dev/open.h"
#include "dev/flush.h"
#include "kit/runner.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- a device in memory whose flushes wait at a gate ---- */

#define MEM_SIZE (1u << 20)
static struct gated {
	struct dev dev;
	uint8_t mem[MEM_SIZE];
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned flushes_started, flushes_allowed;
	int flush_result[8]; /* of flush 0, 1, ... */
	unsigned misaligned; /* requests that should have gone through a bounce buffer */
} gated;

static void check_request(const void *buf, size_t len, uint64_t off)
{
	if ((off | len | (uintptr_t)buf) % 512 || off + len > MEM_SIZE)
		gated.misaligned++;
}

static int gated_read(struct dev *dev, void *buf, size_t len, uint64_t off)
{
	(void)dev;
	check_request(buf, len, off);
	memcpy(buf, gated.mem + off, len);
	return 0;
}

static int gated_write(struct dev *dev, const void *buf, size_t len, uint64_t off, unsigned flags)
{
	(void)dev;
	(void)flags;
	check_request(buf, len, off);
	memcpy(gated.mem + off, buf, len);
	return 0;
}

static int gated_flush(struct dev *dev)
{
	(void)dev;
	pthread_mutex_lock(&gated.lock);
	unsigned mine = gated.flushes_started++;
	pthread_cond_broadcast(&gated.cond);
	while (gated.flushes_allowed <= mine)
		pthread_cond_wait(&gated.cond, &gated.lock);
	pthread_mutex_unlock(&gated.lock);
	return mine < ARRAY_SIZE(gated.flush_result) ? gated.flush_result[mine] : 0;
}

static void gated_close(struct dev *dev) { dev_fini(dev); }

static const struct dev_ops gated_ops = { .name = "gated",
					  .read = gated_read,
					  .write = gated_write,
					  .flush = gated_flush,
					  .close = gated_close };

static void gated_open(void)
{
	memset(&gated, 0, sizeof(gated));
	pthread_mutex_init(&gated.lock, NULL);
	pthread_cond_init(&gated.cond, NULL);
	ck_assert_int_eq(dev_init(&gated.dev, &gated_ops, "gated"), 0);
	gated.dev.caps = (struct dev_caps){ .size_bytes = MEM_SIZE,
					.sector_bytes = 512,
					.physical_bytes = 512,
					.max_io_bytes = 65536,
					.mem_align = 512,
					.volatile_cache = true };
}

static void wait_flushes_started(unsigned n)
{
	pthread_mutex_lock(&gated.lock);
	while (gated.flushes_started < n)
		pthread_cond_wait(&gated.cond, &gated.lock);
	pthread_mutex_unlock(&gated.lock);
}

static void allow_flushes(unsigned n)
{
	pthread_mutex_lock(&gated.lock);
	gated.flushes_allowed = n;
	pthread_cond_broadcast(&gated.cond);
	pthread_mutex_unlock(&gated.lock);
}

/* ---- wrappers ---- */

START_TEST(misaligned_requests_are_bounced)
{
	uint8_t *buf = fdio_alloc_aligned(4096, 8192);

	ck_assert_ptr_nonnull(buf);
	gated_open();
	for (unsigned i = 0; i < MEM_SIZE; i++)
		gated.mem[i] = (uint8_t)(i * 7 + i / 512);
	static const struct { size_t len; uint64_t off; unsigned shift;
	} odd[] = {
		{ 1, 0, 0 },       { 1, 511, 1 },          { 2, 511, 3 },
		{ 1024, 1024, 0 }, { 1024, 1024, 1 },      { 777, 100, 5 },
		{ 3000, 4095, 0 }, { 1, MEM_SIZE - 1, 0 }, { 512, MEM_SIZE - 512, 7 },
		{ 0, 5, 0 },
	};
	for (unsigned i = 0; i < ARRAY_SIZE(odd); i++) {
		memset(buf, 0xee, 8192);
		ck_assert_int_eq(dev_read(&gated.dev, buf + odd[i].shift, odd[i].len, odd[i].off),
				 0);
		ck_assert_mem_eq(buf + odd[i].shift, gated.mem + odd[i].off, odd[i].len);
		ck_assert_uint_eq(buf[odd[i].shift + odd[i].len], 0xee); /* no byte too many */
	}
	memset(buf, 0x5a, 8192);
	ck_assert_int_eq(dev_write(&gated.dev, buf + 1, 1024, 2048, 0), 0);
	ck_assert_mem_eq(gated.mem + 2048, buf, 1024);
	ck_assert_uint_eq(gated.mem[3072], (uint8_t)(3072 * 7 + 6));
	ck_assert_uint_eq(gated.misaligned, 0);
	gated.dev.ops->close(&gated.dev);
	free(buf);
}
END_TEST

START_TEST(requests_outside_the_device_are_refused)
{
	static uint8_t buf[4096] __attribute__((aligned(4096)));

	gated_open();
	ck_assert_int_eq(dev_read(&gated.dev, buf, 1, MEM_SIZE), -EIO);
	ck_assert_int_eq(dev_read(&gated.dev, buf, 4096, MEM_SIZE - 512), -EIO);
	ck_assert_int_eq(dev_read(&gated.dev, buf, 4096, UINT64_MAX - 100), -EIO);
	ck_assert_int_lt(dev_write(&gated.dev, buf, 512, MEM_SIZE, 0), 0);
	ck_assert_int_lt(dev_write(&gated.dev, buf, 512, UINT64_MAX - 511, 0), 0);
	ck_assert_int_lt(dev_write(&gated.dev, buf, 511, 0, 0), 0);
	ck_assert_int_lt(dev_write(&gated.dev, buf, 512, 1, 0), 0);
	gated.dev.caps.read_only = true;
	ck_assert_int_eq(dev_write(&gated.dev, buf, 512, 0, 0), -EROFS);
	ck_assert_uint_eq(gated.misaligned, 0);
	gated.dev.ops->close(&gated.dev);
}
END_TEST

START_TEST(bad_piece_of_a_batch_fails_alone)
{
	static uint8_t buf[4096 + 1] __attribute__((aligned(4096)));
	struct dev_vec vec[3] = { { .off = 0, .buf = buf, .len = 512 },
				  { .off = 8192, .buf = buf + 1, .len = 1024 },
				  { .off = MEM_SIZE, .buf = buf, .len = 512 } };

	gated_open();
	memset(gated.mem, 0xa5, MEM_SIZE);
	memset(buf, 0x11, sizeof(buf));
	/* The last piece is outside the device; the others are written all the same. */
	ck_assert_int_lt(dev_write_many(&gated.dev, vec, 3), 0);
	ck_assert_int_eq(vec[0].result, 0);
	ck_assert_int_eq(vec[1].result, 0);
	ck_assert_int_lt(vec[2].result, 0);
	ck_assert_uint_eq(gated.mem[0], 0x11);
	ck_assert_uint_eq(gated.mem[8192 + 1023], 0x11);
	ck_assert_int_eq(dev_write_many(&gated.dev, vec, 2), 0);
	ck_assert_uint_eq(gated.misaligned, 0);
	gated.dev.ops->close(&gated.dev);
}
END_TEST

/* ---- flush sequencer ---- */

static struct flusher { pthread_t thread; int result; unsigned done; } flushers[16];

static void *flush_thread(void *arg)
{
	struct flusher *f = arg;

	f->result = dev_flush(&gated.dev);
	__atomic_store_n(&f->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void start_flusher(unsigned i)
{
	flushers[i].result = 1;
	flushers[i].done = 0;
	ck_assert_int_eq(pthread_create(&flushers[i].thread, NULL, flush_thread, &flushers[i]), 0);
}

static void no_log(int level, const char *line) { (void)level; (void)line; }

/*
 * One caller starts flush 0. Fifteen come while it runs: none of them may return with it, and flush
 * 1 serves them all. Flush 1 fails: those fifteen get the error, and nobody else does.
 */

START_TEST(one_flush_serves_all_who_wait)
{
	gated_open();
	fdio_log_set_sink(no_log);
	gated.flush_result[1] = -EREMOTEIO;
	start_flusher(0);
	wait_flushes_started(1);
	for (unsigned i = 1; i < 16; i++)
		start_flusher(i);
	while (dev_flusher_waiting(gated.dev.flusher) < 15)
		usleep(200);
	for (unsigned i = 0; i < 16; i++)
		ck_assert_uint_eq(__atomic_load_n(&flushers[i].done, __ATOMIC_ACQUIRE), 0);
	allow_flushes(1);
	pthread_join(flushers[0].thread, NULL);
	ck_assert_int_eq(flushers[0].result, 0);
	wait_flushes_started(2);
	for (unsigned i = 1; i < 16; i++)
		ck_assert_uint_eq(__atomic_load_n(&flushers[i].done, __ATOMIC_ACQUIRE), 0);
	allow_flushes(3);
	for (unsigned i = 1; i < 16; i++) {
		pthread_join(flushers[i].thread, NULL);
		ck_assert_int_eq(flushers[i].result, -EIO);
	}
	ck_assert_uint_eq(gated.flushes_started, 2);
	ck_assert_int_eq(dev_flush(&gated.dev), 0);
	ck_assert_uint_eq(gated.flushes_started, 3);
	fdio_log_set_sink(NULL);
	gated.dev.ops->close(&gated.dev);
}
END_TEST

START_TEST(flush_without_cache_sends_nothing)
{
	gated_open();
	gated.dev.caps.volatile_cache = false;
	uint64_t before = fdio_counter_read(COUNTER_dev_flush);
	ck_assert_int_eq(dev_flush(&gated.dev), 0);
	ck_assert_uint_eq(gated.flushes_started, 0);
	ck_assert_uint_eq(fdio_counter_read(COUNTER_dev_flush), before + 1);
	gated.dev.ops->close(&gated.dev);
}
END_TEST

/* ---- the io_uring device on an image file ---- */

static char image[64];

static struct dev *image_open(unsigned flags)
{
	struct dev *dev = NULL;
	char err[256] = "";

	ck_assert_msg(dev_uring_open(image, flags, &dev, FDIO_REASON(err)) == 0, "%s", err);
	return dev;
}

static void image_make(off_t size)
{
	const char *dir = getenv("TMPDIR");

	snprintf(image, sizeof(image), "%s/check_dev.XXXXXX",
		 dir && strlen(dir) < 40 ? dir : "/tmp");
	int fd = mkstemp(image);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, size), 0);
	close(fd);
}

START_TEST(synchronous_requests_on_an_image)
{
	enum { N = 150 };
	struct dev_vec vec[N];
	uint8_t *data = fdio_alloc_aligned(4096, N * 4096),
		*back = fdio_alloc_aligned(4096, N * 4096 + 4096);

	image_make(8 << 20);
	struct dev *dev = image_open(DEV_OPEN_EXCL);
	ck_assert_uint_eq(dev->caps.size_bytes, 8 << 20);
	ck_assert(!dev->caps.is_block && !dev->caps.read_only && dev->caps.sector_bytes >= 512);
	for (unsigned i = 0; i < N * 4096; i++)
		data[i] = (uint8_t)(i * 13 + i / 4096);
	for (unsigned i = 0; i < N; i++)
		vec[i] = (struct dev_vec){ .off = (uint64_t)(N - 1 - i) * 8192,
					   .buf = data + i * 4096,
					   .len = 4096,
					   .result = 1 };
	ck_assert_int_eq(dev_write_many(dev, vec, N), 0);
	for (unsigned i = 0; i < N; i++) {
		ck_assert_int_eq(vec[i].result, 0);
		ck_assert_int_eq(dev_read(dev, back + 1, 4096, vec[i].off), 0);
		ck_assert_mem_eq(back + 1, data + i * 4096, 4096);
	}
	ck_assert_int_eq(dev_write(dev, data, N * 4096, 4 << 20, DEV_FUA), 0);
	ck_assert_int_eq(dev_read(dev, back, N * 4096, 4 << 20), 0);
	ck_assert_mem_eq(back, data, N * 4096);
	ck_assert_int_eq(dev_flush(dev), 0);
	int err = dev_discard(dev, 0, 4096);
	ck_assert(err == 0 || err == -EOPNOTSUPP);
	dev_close(dev);
	unlink(image);
	free(data);
	free(back);
}
END_TEST

/*
 * The linker sends io_uring_submit_and_wait here: the next submits_pass calls go to the kernel,
 * then submits_fail calls fail.
 */
int __real_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait);
int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait);
static unsigned submits_pass, submits_fail;

int __wrap_io_uring_submit_and_wait(struct io_uring *ring, unsigned wait)
{
	if (submits_pass) {
		submits_pass--;
	} else if (submits_fail) {
		submits_fail--;
		return -EFAULT;
	}
	return __real_io_uring_submit_and_wait(ring, wait);
}

/*
 * A ring that fails is given up. The data is written all the same, by the next of the four rings
 * and at last without a ring; no write is repeated later.
 */
START_TEST(rings_that_are_given_up)
{
	enum { N = 100 };
	struct dev_vec vec[N];
	uint8_t *data = fdio_alloc_aligned(4096, N * 4096);
	uint8_t *back = fdio_alloc_aligned(4096, N * 4096);
	int err;

	fdio_log_set_sink(no_log);
	image_make(8 << 20);
	struct dev *dev = image_open(DEV_OPEN_EXCL);
	dev->caps.volatile_cache = true; /* otherwise FUA has no effect */
	for (unsigned round = 0; round < 6; round++) {
		memset(data, (int)round + 1, N * 4096);
		for (unsigned i = 0; i < N; i++)
			vec[i] = (struct dev_vec){ .off = i * 4096,
						   .buf = data + i * 4096,
						   .len = 4096 };
		submits_pass = round == 1;
		submits_fail = 1;
		if (round == 3)
			err = dev_write(dev, data, N * 4096, 0, DEV_FUA);
		else
			err = dev_write_many(dev, vec, N);
		ck_assert_int_eq(err, 0);
		ck_assert_uint_eq(submits_fail, round < 4 ? 0 : 1);
		ck_assert_int_eq(dev_read(dev, back, N * 4096, 0), 0);
		ck_assert_mem_eq(back, data, N * 4096);
	}
	submits_fail = 0;
	dev_close(dev);
	unlink(image);
	free(data);
	free(back);
}
END_TEST

START_TEST(image_is_opened_once_for_writing)
{
	struct dev *second = NULL;
	char err[256] = "";

	image_make(1 << 20);
	struct dev *dev = image_open(DEV_OPEN_EXCL);
	ck_assert_int_eq(dev_uring_open(image, DEV_OPEN_EXCL, &second, FDIO_REASON(err)), -EBUSY);
	ck_assert_ptr_nonnull(strstr(err, image));
	ck_assert_ptr_nonnull(strstr(err, "in use"));
	ck_assert_ptr_null(strchr(err, '\n'));
	dev_close(dev);
	dev = image_open(DEV_OPEN_RDONLY | DEV_OPEN_EXCL);
	ck_assert(dev->caps.read_only);
	second = image_open(DEV_OPEN_RDONLY | DEV_OPEN_EXCL); /* two readers share it */
	dev_close(second);
	dev_close(dev);
	unlink(image);
	ck_assert_int_eq(dev_uring_open(image, DEV_OPEN_EXCL, &second, FDIO_REASON(err)), -ENOENT);
	ck_assert_int_eq(dev_uring_open("/", DEV_OPEN_EXCL, &second, FDIO_REASON(err)), -ENOTBLK);
	ck_assert_ptr_nonnull(strstr(err, "directory"));
}
END_TEST

static struct async {
	struct loop_msg msg;
	struct dev *dev;
	struct dev_io io[64];
	unsigned nr, completed; /* completed: atomic */
} async;

static void async_done(struct dev_io *io)
{
	(void)io;
	__atomic_add_fetch(&async.completed, 1, __ATOMIC_RELEASE);
}

static void submit_all(struct loop_msg *msg)
{
	(void)msg;
	for (unsigned i = 0; i < async.nr; i++) {
		async.io[i].done = async_done;
		dev_submit(async.dev, &async.io[i]);
	}
}

static void run_requests(struct loop_set *set, unsigned nr)
{
	async.nr = nr;
	async.completed = 0;
	loop_post(loop_set_get(set, 0), &async.msg, submit_all);
	while (__atomic_load_n(&async.completed, __ATOMIC_ACQUIRE) < nr)
		usleep(200);
}

START_TEST(asynchronous_requests_on_an_image)
{
	struct loop_config config = { .nr_loops = 1, .entries = 16, .sqe128 = true };
	struct loop_set *set = NULL;
	char err[256] = "";
	uint8_t *arena = fdio_alloc_aligned(4096, 64 * 4096);

	image_make(1 << 20);
	async.dev = image_open(DEV_OPEN_EXCL);
	ck_assert_msg(loop_set_new(&config, &set, FDIO_REASON(err)) == 0, "%s", err);
	struct iovec whole = { arena, 64 * 4096 };
	int index = loop_register_arenas(loop_set_get(set, 0), &whole, 1) ? -1 : 0;
	ck_assert_int_eq(dev_uring_attach(async.dev, set), 0);
	ck_assert_int_eq(loop_set_start(set), 0);
	for (unsigned i = 0; i < 64; i++) {
		memset(arena + i * 4096, (int)i + 1, 4096);
		async.io[i] = (struct dev_io){ .kind = DEV_WRITE,
					    .off = i * 4096,
					    .len = 4096,
					    .buf = arena + i * 4096,
					    .buf_index = i & 1 ? index : -1,
					    .flags = (i & 2 ? DEV_FUA : 0) |
						     (i & 4 ? DEV_ASYNC : 0) };
	}
	run_requests(set, 64);
	for (unsigned i = 0; i < 64; i++)
		ck_assert_int_eq(async.io[i].result, 4096);
	memset(arena, 0, 64 * 4096);
	for (unsigned i = 0; i < 64; i++)
		async.io[i] = (struct dev_io){ .kind = DEV_READ,
					    .off = i * 4096,
					    .len = 4096,
					    .buf = arena + i * 4096,
					    .buf_index = i & 1 ? -1 : index };
	run_requests(set, 64);
	for (unsigned i = 0; i < 64; i++) {
		ck_assert_int_eq(async.io[i].result, 4096);
		ck_assert(arena[i * 4096] == i + 1 && arena[i * 4096 + 4095] == i + 1);
	}
	/* A read across the end gets fewer bytes; one behind it an error, never 0. */
	async.io[0] = (struct dev_io){ .kind = DEV_READ,
				    .off = (1 << 20) - 4096,
				    .len = 8192,
				    .buf = arena,
				    .buf_index = -1 };
	async.io[1] = (struct dev_io){
		.kind = DEV_READ, .off = 2 << 20, .len = 4096, .buf = arena + 8192, .buf_index = -1
	};
	run_requests(set, 2);
	ck_assert_int_eq(async.io[0].result, 4096);
	ck_assert_int_eq(async.io[1].result, -EIO);
	loop_set_stop(set);
	loop_set_free(set);
	dev_close(async.dev);
	unlink(image);
	free(arena);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dev: device");
	TCase *t = unit_case(s, "dev", 60);

	unit_needs_io_uring();
	unit_test(t, misaligned_requests_are_bounced);
	unit_test(t, requests_outside_the_device_are_refused);
	unit_test(t, bad_piece_of_a_batch_fails_alone);
	unit_test(t, one_flush_serves_all_who_wait);
	unit_test(t, flush_without_cache_sends_nothing);
	unit_test(t, synchronous_requests_on_an_image);
	unit_test(t, rings_that_are_given_up);
	unit_test(t, image_is_opened_once_for_writing);
	unit_test(t, asynchronous_requests_on_an_image);
	return s;
}
