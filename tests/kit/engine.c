/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine layer of the kit: see kit/engine.h. The test's thread, but for the callbacks of
 * requests, which come from any thread.
 */
#include "kit/engine.h"

#include "base/log.h"
#include "kit/names.h"

#include <stdio.h>
#include <unistd.h>

/* The files exist before the volume is opened: engine_use_template makes them. */
struct ext4_inode *engine_file(struct engine *e, const char *name)
{
	struct ext4_inode *root = testvol_root(e->vol);
	struct ext4_inode *inode = name_lookup(root, name);

	ext4_inode_put(root);
	return inode;
}

void engine_truncate(struct engine *e, struct ext4_inode *inode, uint64_t size)
{
	ck_assert_int_eq(dio_gate_close(e->dio, inode, DIO_GATE_ALL), 0);
	ext4_inode_lock_exclusive(inode);
	ck_assert_int_eq(ext4_truncate(inode, size), 0);
	ext4_inode_unlock(inode);
	dio_gate_open(e->dio, inode, DIO_GATE_ALL);
}

void engine_fallocate(struct engine *e, int mode, uint64_t off, uint64_t len)
{
	ck_assert_int_eq(dio_gate_close(e->dio, e->inode, DIO_GATE_ALL), 0);
	ext4_inode_lock_exclusive(e->inode);
	ck_assert_int_eq(ext4_fallocate(e->inode, mode, off, len, true), 0);
	ext4_inode_unlock(e->inode);
	dio_gate_open(e->dio, e->inode, DIO_GATE_ALL);
}

struct engine *engine_on(struct fake_dev *fake, const struct engine_options *opt)
{
	static const struct engine_options none;
	struct engine *e = calloc(1, sizeof(*e));

	ck_assert_ptr_nonnull(fake);
	e->opt = opt ? *opt : none;
	e->fake = fake;
	/* As for an image file: for a block device the kernel's block layer emulates FUA. */
	if (e->opt.no_fua)
		fake_dev(fake)->caps.fua = fake_dev(fake)->caps.is_block = false;
	e->vol = testvol_mount(fake);
	e->workers = work_queue_new("worker", e->opt.threads);
	e->syncers = work_queue_new("syncer", e->opt.threads);
	struct dio_config config = {
		.dev = fake_dev(fake),
		.vol = e->vol,
		.nr_cpus = 1,
		.workers = e->workers,
		.syncers = e->syncers,
		.segs_per_loop = e->opt.segs ? e->opt.segs : 8,
		.page_size = e->opt.page_size ? e->opt.page_size : 4096,
		.strict = !e->opt.relaxed,
		.inval = e->opt.inval,
		.inval_arg = e->opt.inval_arg,
	};
	ck_assert_int_eq(dio_new(&config, &e->dio), 0);
	e->inode = engine_file(e, "f");
	ck_assert_int_eq(dio_file_open(e->dio, e->inode, &e->file), 0);
	return e;
}

/* Fills all free blocks with 0xa5, by a file that takes them and is truncated. */
static void make_stale(struct engine *e)
{
	struct ext4_inode *inode = engine_file(e, "stale");
	struct dio_file *file;
	uint32_t len = 256 * 1024;
	void *buf = buffer_new(len);
	struct test_request req;
	uint64_t pos = 0;

	memset(buf, 0xa5, len);
	ck_assert_int_eq(dio_file_open(e->dio, inode, &file), 0);
	while (len >= BLOCK) {
		engine_submit(e, file, &req, DIO_WRITE | DIO_ROOT, pos, buf, len);
		ssize_t n = engine_wait(e, &req);
		if (n == -ENOSPC) {
			len /= 2;
			continue;
		}
		ck_assert_int_eq(n, len);
		pos += len;
	}
	dio_file_close(file);
	engine_truncate(e, inode, 0);
	ext4_inode_put(inode);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	free(buf);
}

void engine_use_template(TCase *t)
{
	fdio_log_set_level(FDIO_LOG_ERR);
	testvol_use_template(t, ENGINE_IMAGE_SIZE, "-t ext4 -b 4096 -J size=4",
			     "for n in f g h stale; do debugfs -w -R \"write /dev/null $n\" "
			     "\"$IMG\"; done >/dev/null 2>&1");
}

struct engine *engine_new(const struct engine_options *opt)
{
	struct fake_dev *fake = testvol_copy();

	if (opt && opt->sector_bytes)
		fake_dev(fake)->caps.sector_bytes = fake_dev(fake)->caps.physical_bytes =
				opt->sector_bytes;
	struct engine *e = engine_on(fake, opt);
	if (e->opt.stale)
		make_stale(e);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	return e;
}

struct engine *engine_with_window(const struct engine_options *opt, unsigned n)
{
	struct engine *e = engine_new(opt);

	for (unsigned k = 0; k < n; k++)
		write_pattern(e, 0, k * BLOCK, 1, BLOCK);
	ck_assert_uint_gt(ext4_window_end(e->inode), ext4_inode_size(e->inode));
	return e;
}

struct engine *engine_cut(struct engine *e, enum fake_cut mode, uint64_t seed)
{
	struct engine_options o = e->opt;

	o.stale = false;
	return engine_on(fake_power_cut(e->fake, mode, seed), &o);
}

static void close_all(struct engine *e, bool check)
{
	engine_pump(e);
	dio_drain(e->dio);
	if (e->file)
		dio_file_close(e->file);
	ext4_inode_put(e->inode);
	engine_pump(e);
	int aborted = journal_error(ext4_vol_journal(e->vol));
	ck_assert_int_eq(ext4_vol_close(e->vol), aborted ? -EIO : 0);
	dio_free(e->dio);
	work_queue_free(e->workers);
	work_queue_free(e->syncers);
	if (check) {
		ck_assert_uint_eq(fake_stats(e->fake).violations, 0);
		ck_assert_int_eq(fake_e2fsck(e->fake), 0);
	}
	fake_free(e->fake);
	epoch_drain();
	free(e);
}

void engine_close(struct engine *e) { close_all(e, true); }
void engine_close_nocheck(struct engine *e) { close_all(e, false); }

void *buffer_new(size_t len)
{
	void *p = aligned_alloc(4096, fdio_round_up(len, 4096));

	ck_assert_ptr_nonnull(p);
	memset(p, 0xee, len);
	return p;
}

void fill_pattern(void *buf, unsigned seed, uint64_t pos, size_t len)
{
	for (size_t k = 0; k < len; k++)
		((uint8_t *)buf)[k] =
				1 + (((pos + k) * 7 + ((pos + k) >> 9) * 13 + seed * 31) % 0xa0);
}

bool all_bytes(const void *buf, int byte, size_t len)
{
	for (size_t k = 0; k < len; k++)
		if (((const uint8_t *)buf)[k] != byte)
			return false;
	return true;
}

bool no_byte(const void *buf, int byte, size_t len) { return !memchr(buf, byte, len); }

static void req_done(struct dio_req *req, ssize_t res)
{
	struct test_request *t = container_of(req, struct test_request, req);

	t->res = res;
	__atomic_fetch_add(&t->done, 1, __ATOMIC_RELEASE);
}

bool request_is_done(struct test_request *req)
{
	return __atomic_load_n(&req->done, __ATOMIC_ACQUIRE);
}

void engine_submit_with_room(struct engine *e, struct dio_file *file, struct test_request *req,
			     unsigned flags, uint64_t pos, void *buf, uint32_t len,
			     uint32_t buf_cap)
{
	memset(req, 0, sizeof(*req));
	req->req = (struct dio_req){ .file = file,
				     .pos = pos,
				     .len = len,
				     .flags = flags,
				     .buf = buf,
				     .buf_index = -1,
				     .buf_cap = buf_cap,
				     .done = req_done };
	dio_submit(e->dio, &req->req);
}

void engine_submit(struct engine *e, struct dio_file *file, struct test_request *req,
		   unsigned flags, uint64_t pos, void *buf, uint32_t len)
{
	engine_submit_with_room(e, file, req, flags, pos, buf, len, 0);
}

bool engine_pump(struct engine *e)
{
	bool any = false;

	if (e->opt.threads)
		return false;
	while (work_queue_run_one(e->workers) || work_queue_run_one(e->syncers))
		any = true;
	return any;
}

ssize_t engine_wait(struct engine *e, struct test_request *req)
{
	for (unsigned k = 0; !request_is_done(req); k++) {
		if (!e->opt.threads) {
			ck_assert_msg(engine_pump(e), "the request is not done and nothing is left "
						      "to run");
			continue;
		}
		ck_assert_msg(k < 100000, "the request is not done after 10 s");
		usleep(100);
	}
	ck_assert_uint_eq(__atomic_load_n(&req->done, __ATOMIC_ACQUIRE), 1);
	return req->res;
}

ssize_t engine_io(struct engine *e, unsigned flags, uint64_t pos, void *buf, uint32_t len)
{
	struct test_request req;

	engine_submit(e, e->file, &req, flags, pos, buf, len);
	return engine_wait(e, &req);
}

void write_pattern(struct engine *e, unsigned flags, uint64_t pos, unsigned seed, uint32_t len)
{
	void *b = buffer_new(len);

	fill_pattern(b, seed, pos, len);
	ck_assert_int_eq(engine_io(e, flags | DIO_WRITE, pos, b, len), len);
	free(b);
}

void expect_pattern(struct engine *e, uint64_t pos, unsigned seed, uint32_t len)
{
	uint8_t *b = buffer_new(len), *want = buffer_new(len);

	fill_pattern(want, seed, pos, len);
	ck_assert_int_eq(engine_io(e, 0, pos, b, len), len);
	/* One assertion for all bytes: each costs a system call. */
	uint32_t k = 0;
	while (k + 1 < len && b[k] == want[k])
		k++;
	if (len)
		ck_assert_msg(b[k] == want[k], "byte %llu is %#x, not %#x",
			      (unsigned long long)(pos + k), b[k], want[k]);
	free(b);
	free(want);
}

static void sync_done(struct dio_sync *sync, int err)
{
	struct test_sync *test_sync = container_of(sync, struct test_sync, sync);

	test_sync->err = err;
	__atomic_fetch_add(&test_sync->done, 1, __ATOMIC_RELEASE);
}

void sync_start(struct engine *e, struct test_sync *test_sync, struct ext4_inode *inode,
		struct dio_file *file, bool datasync)
{
	*test_sync = (struct test_sync){
		.sync = { .inode = inode, .file = file, .datasync = datasync, .done = sync_done }
	};
	dio_fsync(e->dio, &test_sync->sync);
}

static int fsync_as(struct engine *e, struct ext4_inode *inode, struct dio_file *file,
		    bool datasync)
{
	struct test_sync test_sync;

	sync_start(e, &test_sync, inode, file, datasync);
	while (!__atomic_load_n(&test_sync.done, __ATOMIC_ACQUIRE))
		if (!engine_pump(e))
			usleep(100);
	return test_sync.err;
}

int engine_fsync(struct engine *e, struct ext4_inode *inode, bool datasync)
{
	return fsync_as(e, inode, NULL, datasync);
}

int engine_fsync_file(struct engine *e, struct dio_file *file)
{
	return fsync_as(e, dio_file_inode(file), file, true);
}

void make_extents(struct engine *e, unsigned n)
{
	struct ext4_extent extent;

	/* Backwards, so that the allocator does not make one extent of them. */
	for (unsigned k = n; k-- > 0;)
		write_pattern(e, DIO_DIRECT, (uint64_t)k * BLOCK, 1, BLOCK);
	ck_assert_int_eq(ext4_vol_sync(e->vol), 0);
	for (unsigned k = 0; k < n; k++) {
		ck_assert_int_eq(ext4_map_lookup(e->inode, k, &extent), 0);
		ck_assert_int_eq(extent.state, EXT4_EXTENT_WRITTEN);
		ck_assert_uint_eq(extent.len, 1);
	}
}

uint64_t device_offset(struct engine *e, uint64_t pos)
{
	struct ext4_extent extent;

	ck_assert_int_eq(ext4_map_lookup(e->inode, pos / BLOCK, &extent), 0);
	ck_assert_int_ne(extent.state, EXT4_EXTENT_HOLE);
	return extent.pblk * BLOCK + pos % BLOCK;
}

uint64_t counter(enum fdio_counter c) { return fdio_counter_read(c); }

void wait_counter(enum fdio_counter c, uint64_t at_least)
{
	for (unsigned k = 0; counter(c) < at_least; k++) {
		ck_assert_msg(k < 100000, "counter %s stays below %llu", fdio_counter_name(c),
			      (unsigned long long)at_least);
		usleep(100);
	}
}

void engine_write_block(struct engine *e, struct dio_file *file, uint64_t pos)
{
	uint8_t *buf = buffer_new(BLOCK);
	struct test_request req;

	engine_submit(e, file, &req, DIO_DIRECT | DIO_WRITE, pos, buf, BLOCK);
	ck_assert_int_eq(engine_wait(e, &req), BLOCK);
	free(buf);
}
