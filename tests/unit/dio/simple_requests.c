/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit test of what a simple request costs (ENGINE-1): it allocates nothing, takes no lock, and
 * writes nothing that another CPU reads. The linker puts the functions below in the place of malloc
 * and the locks; what the fake device does for itself is counted first, without the engine.
 *
 * "Shared" are the inode, the engine's part of it except the counts of each CPU, the open file, and
 * the engine. One thread.
 */
#include "kit/engine.h"
#include "dio/types.h"
#include "ext4/core/structs.h"
#include "ext4/ext4.h"

#include <pthread.h>

static bool counting;
static unsigned nr_allocs, nr_locks;

static void note(unsigned *n)
{
	if (__atomic_load_n(&counting, __ATOMIC_RELAXED))
		++*n;
}

void *__real_malloc(size_t len);
void *__wrap_malloc(size_t len);
void *__wrap_malloc(size_t len)
{
	note(&nr_allocs);
	return __real_malloc(len);
}

void *__real_calloc(size_t n, size_t len);
void *__wrap_calloc(size_t n, size_t len);
void *__wrap_calloc(size_t n, size_t len)
{
	note(&nr_allocs);
	return __real_calloc(n, len);
}

int __real_posix_memalign(void **p, size_t align, size_t len);
int __wrap_posix_memalign(void **p, size_t align, size_t len);
int __wrap_posix_memalign(void **p, size_t align, size_t len)
{
	note(&nr_allocs);
	return __real_posix_memalign(p, align, len);
}

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m)
{
	note(&nr_locks);
	return __real_pthread_mutex_lock(m);
}

int __real_pthread_rwlock_rdlock(pthread_rwlock_t *l);
int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *l);
int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *l)
{
	note(&nr_locks);
	return __real_pthread_rwlock_rdlock(l);
}

/* ---- shared memory ---- */

struct shared { const void *p; size_t len; uint8_t *was; const char *name; };
enum { NR_SHARED = 4 };

static void save_shared(struct engine *e, struct shared *shared)
{
	shared[0] = (struct shared){ e->inode, sizeof(*e->inode), NULL, "the inode" };
	shared[1] = (struct shared){ e->file->dinode, offsetof(struct dio_inode, counts), NULL,
				     "the engine's part of the inode" };
	shared[2] = (struct shared){ e->file, sizeof(*e->file), NULL, "the open file" };
	shared[3] = (struct shared){ e->dio, sizeof(*e->dio), NULL, "the engine" };
	for (unsigned k = 0; k < NR_SHARED; k++) {
		shared[k].was = malloc(shared[k].len);
		memcpy(shared[k].was, shared[k].p, shared[k].len);
	}
}

static void check_unchanged(const struct shared *shared, const char *when)
{
	for (unsigned k = 0; k < NR_SHARED; k++)
		ck_assert_msg(!memcmp(shared[k].was, shared[k].p, shared[k].len),
			      "%s was written to %s", shared[k].name, when);
}

static void free_shared(struct shared *shared)
{
	for (unsigned k = 0; k < NR_SHARED; k++)
		free(shared[k].was);
}

/* ---- requests ---- */

static void ignore(struct dev_io *io) { (void)io; }

/*
 * Counts what the device alone does for a request, with its clock, which each request reads once.
 */
static void measure_device(struct engine *e, void *buf, unsigned flags, unsigned *ret_allocs,
			   unsigned *ret_locks)
{
	struct dev_io io = {
		.kind = flags & DIO_WRITE ? DEV_WRITE : DEV_READ,
		.flags = flags & DIO_DSYNC ? DEV_FUA : 0,
		.off = device_offset(e, 0),
		.len = BLOCK,
		.buf = buf,
		.buf_index = -1,
		.done = ignore,
	};
	struct timespec now;

	nr_allocs = nr_locks = 0;
	counting = true;
	dev_submit(fake_dev(e->fake), &io);
	fake_complete(e->fake, 0);
	dev_now(fake_dev(e->fake), &now);
	counting = false;
	*ret_allocs = nr_allocs;
	*ret_locks = nr_locks;
}

static const struct {
	const char *name;
	unsigned flags;
	uint64_t pos;
	uint32_t len;
	ssize_t want;
} simple[] = {
	{ "read", DIO_DIRECT, 0, BLOCK, BLOCK },
	{ "read of one sector", DIO_DIRECT, 512, 512, 512 },
	{ "read across the end of the file", DIO_DIRECT, BLOCK, BLOCK, 1000 },
	{ "overwrite", DIO_DIRECT | DIO_WRITE, 0, BLOCK, BLOCK },
	{ "durable overwrite", DIO_DIRECT | DIO_WRITE | DIO_DSYNC, 0, BLOCK, BLOCK },
};

START_TEST(simple_request_allocates_and_shares_nothing)
{
	struct engine *e = engine_new(NULL);
	struct timespec now = { .tv_sec = 4000000000 };
	unsigned allocs, locks;
	uint8_t *buf = buffer_new(BLOCK);
	struct shared shared[NR_SHARED];
	struct test_request req;

	write_pattern(e, DIO_DIRECT, 0, 1, BLOCK + 1000 / 512 * 512);
	write_pattern(e, 0, BLOCK, 1, 1000);
	ck_assert_int_eq(engine_fsync(e, e->inode, false), 0);
	/*
	 * All happens within one step of the clock. The first requests store the times, and
	 * register this thread.
	 */
	fake_set_clock(e->fake, &now);
	fill_pattern(buf, 1, 0, BLOCK);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT | DIO_WRITE, 0, buf, BLOCK), BLOCK);
	now.tv_nsec = 10000;
	fake_set_clock(e->fake, &now);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, buf, BLOCK), BLOCK);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	measure_device(e, buf, simple[_i].flags, &allocs, &locks);
	save_shared(e, shared);
	nr_allocs = nr_locks = 0;
	memset(&req, 0, sizeof(req));
	counting = true;
	engine_submit(e, e->file, &req, simple[_i].flags, simple[_i].pos, buf, simple[_i].len);
	counting = false;
	check_unchanged(shared, "when it was submitted");
	ck_assert_uint_eq(fake_held(e->fake), 1);
	counting = true;
	fake_complete(e->fake, 0);
	counting = false;
	ck_assert_int_eq(req.done, 1);
	ck_assert_int_eq(req.res, simple[_i].want);
	check_unchanged(shared, "when it was completed");
	ck_assert_msg(nr_allocs == allocs, "%s: %u allocations", simple[_i].name,
		      nr_allocs - allocs);
	ck_assert_msg(nr_locks == locks, "%s: %u locks were taken", simple[_i].name,
		      nr_locks - locks);
	free_shared(shared);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	fake_set_clock(e->fake, NULL);
	free(buf);
	engine_close(e);
}
END_TEST

/* Neither does a read that stores a new access time take a lock. */
START_TEST(read_that_stores_its_time_takes_no_lock)
{
	struct engine *e = engine_new(NULL);
	struct timespec now = { .tv_sec = 4000000000 };
	unsigned allocs, locks;
	uint8_t *buf = buffer_new(BLOCK);
	struct test_request req;
	struct ext4_attr attr;

	write_pattern(e, DIO_DIRECT, 0, 1, BLOCK);
	fake_set_clock(e->fake, &now);
	ck_assert_int_eq(engine_io(e, DIO_DIRECT, 0, buf, BLOCK), BLOCK);
	now.tv_sec += 2 * 86400;
	fake_set_clock(e->fake, &now);
	fake_set_mode(e->fake, FAKE_HELD, 0);
	measure_device(e, buf, DIO_DIRECT, &allocs, &locks);
	memset(&req, 0, sizeof(req));
	nr_allocs = nr_locks = 0;
	counting = true;
	engine_submit(e, e->file, &req, DIO_DIRECT, 0, buf, BLOCK);
	fake_complete(e->fake, 0);
	counting = false;
	ck_assert_int_eq(req.res, BLOCK);
	ck_assert_uint_eq(nr_allocs, allocs);
	ck_assert_uint_eq(nr_locks, locks);
	ext4_getattr(e->inode, &attr);
	ck_assert_int_eq(attr.atime.tv_sec, now.tv_sec);
	fake_set_mode(e->fake, FAKE_INLINE, 0);
	fake_set_clock(e->fake, NULL);
	free(buf);
	engine_close(e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("dio: simple requests");
	TCase *t = unit_case(s, "simple", 60);

	engine_use_template(t);
	unit_loop(t, simple_request_allocates_and_shares_nothing, 0, ARRAY_SIZE(simple),
		  PROVES("ENGINE-1"));
	unit_test(t, read_that_stores_its_time_takes_no_lock, PROVES("ENGINE-1"));
	return s;
}
