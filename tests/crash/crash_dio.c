/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crash workload through the direct-I/O engine: overwrites, appends one by one and several at a
 * time (into windows), writes behind a gap and into holes, of whole blocks and of parts; between
 * them truncate, punch and fallocate; O_DSYNC, O_SYNC, fsync, fdatasync and syncfs. Each file has
 * up to one operation in flight, so a cut meets several; the device completes them in any order.
 *
 * Promised after a cut: each sector that was synced holds what it held then, or what was written
 * since. Other sectors hold something that was written to them, or zeroes. None holds what another
 * file wrote, or what was in the block before. The size is the one that was synced, or one that it
 * had on the way from there.
 *
 * The test's thread submits; workers, syncers, the device's thread and the journal's run beside it.
 */
#include "crash/crash_dio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

const struct ext4_options crash_dio_options = {
	.acl = true, .user_xattr = true, .commit_interval_s = 3600,
};
static const struct ext4_credentials cred = { .cap_fsetid = true };

void crash_dio_fill(uint8_t *buf, unsigned file, uint32_t n, uint32_t gen)
{
	for (unsigned off = 0; off < DIO_UNIT; off += 16) {
		uint32_t w[4] = { file + 1, gen, n << 8 | off / 16, ~gen };

		memcpy(buf + off, w, 16);
	}
}

/* ---- the model ---- */

/* The value is asked for now, so a cut from here on may find it. Lock held. */
static void add(struct crash_run *run, struct dio_history *history, uint32_t value)
{
	if (history->nr == history->cap) {
		history->cap = history->cap ? history->cap * 2 : 8;
		history->version =
				realloc(history->version, history->cap * sizeof(*history->version));
		FDIO_ASSERT(history->version);
	}
	history->version[history->nr++] =
			(struct dio_version){ value, fake_record_events(run->fake), UINT32_MAX };
}

/* Notes that something is promised now; returns the number of events so far. Lock held. */
static unsigned add_ack(struct crash_run *run)
{
	unsigned now = fake_record_events(run->fake);

	if (run->nr_acks < DIO_ACKS)
		run->acks[run->nr_acks++] = now;
	return now;
}

/* The version is durable after so many events. */
static void promise(struct dio_version *version, unsigned event)
{
	version->durable = FDIO_MIN(version->durable, event);
}

/* In units. */
static uint32_t size_of(const struct recorded_file *f)
{
	return f->size.nr ? f->size.version[f->size.nr - 1].value : 0;
}

/* Something is asked for that makes the file at least end units large. Lock held. */
static void grow(struct recorded_file *f, uint32_t end)
{
	if (end > size_of(f))
		add(f->run, &f->size, end);
}

/* Promises all that was done to the file. Lock held. */
static void promise_all(struct recorded_file *f)
{
	unsigned now = add_ack(f->run);

	for (unsigned n = 0; n < DIO_UNITS; n++)
		if (f->unit[n].nr)
			promise(&f->unit[n].version[f->unit[n].nr - 1], now);
	if (f->size.nr)
		promise(&f->size.version[f->size.nr - 1], now);
}

/* Promises the units of a write, and the first size with which they can be read. Lock held. */
static void promise_write(struct recorded_file *f, uint32_t first, uint32_t nr)
{
	unsigned now = add_ack(f->run), at = f->size.nr;

	for (uint32_t n = first; n < first + nr; n++)
		promise(&f->unit[n].version[f->unit[n].nr - 1], now);
	while (at > 0 && f->size.version[at - 1].value >= first + nr)
		at--;
	if (at < f->size.nr)
		promise(&f->size.version[at], now);
}

/* ---- requests ---- */

/* A request of the file has ended. Lock held. */
static void ended(struct recorded_file *f, int err)
{
	struct crash_run *run = f->run;

	if (err && !run->err)
		run->err = err;
	f->busy--;
	pthread_cond_signal(&run->cond);
}

static void write_done(struct dio_req *req, ssize_t res)
{
	struct recorded_write *write = container_of(req, struct recorded_write, req);
	struct crash_run *run = write->file->run;

	fdio_mutex_lock(&run->lock);
	if (res == (ssize_t)req->len && (req->flags & DIO_DSYNC))
		promise_write(write->file, write->first, write->nr);
	ended(write->file, res == (ssize_t)req->len ? 0 : res < 0 ? (int)res : -EIO);
	fdio_mutex_unlock(&run->lock);
}

/* The model changes first: as soon as the write is submitted, any part of it may be durable. */
static void write_units(struct crash_run *run, unsigned n, unsigned slot, uint32_t first,
			uint32_t nr)
{
	struct recorded_file *f = &run->file[n];
	struct recorded_write *write = &run->req[n][slot];
	unsigned flags = DIO_WRITE | DIO_DIRECT | DIO_ROOT, sync = crash_pick(&run->seed, 10);
	uint32_t gen = ++run->gen;

	fdio_mutex_lock(&run->lock);
	for (uint32_t u = 0; u < nr; u++) {
		crash_dio_fill(write->buf + u * DIO_UNIT, n, first + u, gen);
		add(run, &f->unit[first + u], gen);
	}
	grow(f, first + nr);
	f->busy++;
	fdio_mutex_unlock(&run->lock);
	write->file = f;
	write->first = first;
	write->nr = nr;
	write->req = (struct dio_req){
		.file = f->file,
		.pos = (uint64_t)first * DIO_UNIT,
		.len = nr * DIO_UNIT,
		.buf = write->buf,
		.flags = flags | (sync < 3 ? DIO_DSYNC : 0) | (sync == 0 ? DIO_SYNC : 0),
		.buf_index = -1,
		.buf_cap = DIO_BUF,
		.done = write_done,
	};
	dio_submit(run->dio, &write->req);
}

static void fsync_done(struct dio_sync *sync, int err)
{
	struct recorded_file *f = container_of(sync, struct recorded_file, sync);
	struct crash_run *run = f->run;

	fdio_mutex_lock(&run->lock);
	if (!err)
		promise_all(f);
	ended(f, err);
	fdio_mutex_unlock(&run->lock);
}

static void syncfs_done(struct dio_sync *sync, int err)
{
	struct crash_run *run = container_of(sync, struct crash_run, sync);

	fdio_mutex_lock(&run->lock);
	for (unsigned n = 0; n < DIO_FILES; n++) {
		if (!err)
			promise_all(&run->file[n]);
		ended(&run->file[n], err);
	}
	fdio_mutex_unlock(&run->lock);
}

static void wait_idle(struct crash_run *run, unsigned n)
{
	fdio_mutex_lock(&run->lock);
	while (run->file[n].busy)
		fdio_cond_wait(&run->cond, &run->lock);
	fdio_mutex_unlock(&run->lock);
}

static void wait_all(struct crash_run *run)
{
	for (unsigned n = 0; n < DIO_FILES; n++)
		wait_idle(run, n);
}

static void set_busy(struct crash_run *run, unsigned first, unsigned end)
{
	fdio_mutex_lock(&run->lock);
	for (unsigned n = first; n < end; n++)
		run->file[n].busy++;
	fdio_mutex_unlock(&run->lock);
}

/* ---- operations on file n, which is idle ---- */

/* A number of units; half of the time, of whole blocks. */
static uint32_t pick_units(struct crash_run *run, uint32_t max)
{
	uint32_t n = 1 + crash_pick(&run->seed, max), per = run->block_size / DIO_UNIT;

	return crash_pick(&run->seed, 2) ? n : (uint32_t)fdio_round_up(n, per);
}

static void op_overwrite(struct crash_run *run, unsigned n)
{
	uint32_t size = size_of(&run->file[n]), first, nr;

	if (!size)
		return;
	first = crash_pick(&run->seed, size);
	if (crash_pick(&run->seed, 2))
		first = (uint32_t)fdio_round_down(first, run->block_size / DIO_UNIT);
	nr = FDIO_MIN(pick_units(run, 24), size - first);
	write_units(run, n, 0, first, nr);
}

/* One write at the end or behind a gap, or several at once, each where the one before ends. */
static void op_append(struct crash_run *run, unsigned n)
{
	uint32_t first = size_of(&run->file[n]), per = run->block_size / DIO_UNIT;
	unsigned count = first % per || crash_pick(&run->seed, 2) ? 1 : DIO_REQS;

	if (count == 1 && crash_pick(&run->seed, 4) == 0)
		first += pick_units(run, 20);
	for (unsigned k = 0; k < count; k++) {
		uint32_t nr = count > 1 ? per * (1 + crash_pick(&run->seed, 2))
					: pick_units(run, 24);

		if (first + nr > DIO_UNITS)
			return;
		write_units(run, n, k, first, nr);
		first += nr;
	}
}

/* With the gate closed: fallocate, or truncate to off if mode is negative. */
static int change(struct crash_run *run, unsigned n, int mode, uint64_t off, uint64_t len)
{
	struct ext4_inode *inode = run->file[n].inode;
	int err = dio_gate_close(run->dio, inode, DIO_GATE_ALL);

	if (err)
		return err;
	ext4_inode_lock_exclusive(inode);
	err = mode < 0 ? ext4_truncate(inode, off) : ext4_fallocate(inode, mode, off, len, true);
	ext4_inode_unlock(inode);
	dio_gate_open(run->dio, inode, DIO_GATE_ALL);
	return err;
}

static void zero_units(struct recorded_file *f, uint32_t first, uint32_t end)
{
	for (uint32_t u = first; u < end; u++)
		if (f->unit[u].nr)
			add(f->run, &f->unit[u], 0);
}

static int op_truncate(struct crash_run *run, unsigned n)
{
	struct recorded_file *f = &run->file[n];
	uint32_t size = crash_pick(&run->seed, size_of(f) + 12), old = size_of(f);

	size = FDIO_MIN(size, (uint32_t)DIO_UNITS);
	fdio_mutex_lock(&run->lock);
	zero_units(f, size, FDIO_MAX(old, size));
	add(run, &f->size, size);
	fdio_mutex_unlock(&run->lock);
	return change(run, n, -1, (uint64_t)size * DIO_UNIT, 0);
}

static int op_allocate(struct crash_run *run, unsigned n)
{
	struct recorded_file *f = &run->file[n];
	uint32_t first = crash_pick(&run->seed, DIO_UNITS - 40), end = first + pick_units(run, 30);
	static const int modes[] = { EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE,
				     EXT4_FALLOC_KEEP_SIZE, 0 };
	int mode = modes[crash_pick(&run->seed, 3)];

	fdio_mutex_lock(&run->lock);
	if (mode & EXT4_FALLOC_PUNCH_HOLE)
		zero_units(f, first, end);
	else if (!mode)
		grow(f, end);
	fdio_mutex_unlock(&run->lock);
	return change(run, n, mode, (uint64_t)first * DIO_UNIT, (uint64_t)(end - first) * DIO_UNIT);
}

static void op_fsync(struct crash_run *run, unsigned n, bool datasync)
{
	struct recorded_file *f = &run->file[n];

	set_busy(run, n, n + 1);
	f->sync = (struct dio_sync){
		.inode = f->inode, .file = f->file, .datasync = datasync, .done = fsync_done,
	};
	dio_fsync(run->dio, &f->sync);
}

/* The second fdatasync has nothing to commit: it only flushes the device. */
static void op_overwrite_synced(struct crash_run *run, unsigned n)
{
	for (unsigned k = 0; k < 2; k++) {
		op_overwrite(run, n);
		wait_idle(run, n);
		op_fsync(run, n, true);
		wait_idle(run, n);
	}
}

static void op_syncfs(struct crash_run *run)
{
	wait_all(run);
	set_busy(run, 0, DIO_FILES);
	run->sync = (struct dio_sync){ .done = syncfs_done };
	dio_fsync(run->dio, &run->sync);
}

static int one_op(struct crash_run *run)
{
	unsigned n = crash_pick(&run->seed, DIO_FILES), what = crash_pick(&run->seed, 24);
	journal_tid tid;

	wait_idle(run, n);
	if (what < 8)
		op_append(run, n);
	else if (what < 12)
		op_overwrite(run, n);
	else if (what < 14)
		op_overwrite_synced(run, n);
	else if (what < 16)
		return op_truncate(run, n);
	else if (what < 18)
		return op_allocate(run, n);
	else if (what < 21)
		op_fsync(run, n, crash_pick(&run->seed, 2));
	else if (what < 22)
		op_syncfs(run);
	else if (what < 23)
		return ext4_windows_settle(run->vol);
	else if (ext4_sync_tid(run->file[n].inode, true, &tid))
		journal_commit_start(ext4_vol_journal(run->vol), tid);
	return 0;
}

/* ---- life ---- */

static void close_files(struct crash_run *run)
{
	for (unsigned n = 0; n < DIO_FILES; n++) {
		dio_file_close(run->file[n].file);
		run->file[n].file = NULL;
		ext4_inode_put(run->file[n].inode);
		run->file[n].inode = NULL;
	}
	if (run->dio)
		dio_drain(run->dio);
}

static void free_run(struct crash_run *run)
{
	close_files(run);
	if (run->vol)
		ext4_vol_abandon(run->vol);
	dio_free(run->dio);
	work_queue_free(run->workers);
	work_queue_free(run->syncers);
	if (run->fake) {
		fake_set_mode(run->fake, FAKE_INLINE, 0);
		fake_free(run->fake);
	}
	for (unsigned n = 0; n < DIO_FILES; n++) {
		for (unsigned u = 0; u < DIO_UNITS; u++)
			free(run->file[n].unit[u].version);
		free(run->file[n].size.version);
		for (unsigned k = 0; k < DIO_REQS; k++)
			free(run->req[n][k].buf);
	}
	free(run);
}

static bool open_files(struct crash_run *run)
{
	struct ext4_inode *root;
	bool ok = !ext4_inode_get(run->vol, EXT4_ROOT_INO, NULL, &root);

	for (unsigned n = 0; n < DIO_FILES && ok; n++) {
		struct recorded_file *f = &run->file[n];
		char name[8];
		unsigned len = (unsigned)snprintf(name, sizeof(name), "f%u", n);

		f->run = run;
		ok = !ext4_create(root, name, len, 0100644, 0, &cred, &f->inode) &&
		     !dio_file_open(run->dio, f->inode, &f->file);
		for (unsigned k = 0; k < DIO_REQS && ok; k++) {
			run->req[n][k].buf = fdio_alloc_aligned(4096, DIO_BUF);
			ok = run->req[n][k].buf;
		}
	}
	if (root)
		ext4_inode_put(root);
	return ok && !ext4_vol_sync(run->vol);
}

static bool setup(struct crash_run *run)
{
	bool small = crash_pick(&run->seed, 3) != 0, csum = crash_pick(&run->seed, 4) != 0;
	bool fua = crash_pick(&run->seed, 2);
	struct dio_config config = { .nr_cpus = 1, .segs_per_loop = 4, .strict = true };
	char args[200], err[256] = "";

	run->block_size = small ? 1024 : 4096;
	snprintf(args, sizeof(args),
		 "-t ext4 -b %u -O %smetadata_csum,64bit,^resize_inode -N 64 -g 2048 "
		 "-E nodiscard,lazy_itable_init=0 -J size=%u",
		 run->block_size, csum ? "" : "^", small ? 1 : 4);
	run->fake = fake_mkfs((uint64_t)(small ? 6 : 20) << 20, args);
	if (!run->fake)
		return false;
	if (!fua)
		fake_dev(run->fake)->caps.fua = fake_dev(run->fake)->caps.is_block = false;
	if (ext4_vol_open(fake_dev(run->fake), &crash_dio_options, &run->vol, NULL,
			  FDIO_REASON(err))) {
		fprintf(stderr, "ext4_vol_open: %s\n", err);
		return false;
	}
	config.dev = fake_dev(run->fake);
	config.vol = run->vol;
	config.workers = run->workers = work_queue_new("worker", 2);
	config.syncers = run->syncers = work_queue_new("syncer", 2);
	return run->workers && run->syncers && !dio_new(&config, &run->dio) && open_files(run);
}

static struct crash_run *dio_run(uint64_t seed)
{
	struct crash_run *run = calloc(1, sizeof(*run));

	FDIO_ASSERT(run);
	run->seed = seed;
	fdio_mutex_init(&run->lock, RANK_OPS_FILES);
	fdio_cond_init(&run->cond);
	if (!setup(run)) {
		free_run(run);
		return NULL;
	}
	fake_record_start(run->fake);
	fake_set_mode(run->fake, FAKE_THREAD, seed);
	for (unsigned round = 0; round < DIO_ROUNDS && !run->err; round++) {
		int err = one_op(run);

		run->err = run->err ? run->err : err;
	}
	wait_all(run);
	if (run->err) {
		fprintf(stderr, "dio workload: an operation failed with %d\n", run->err);
		free_run(run);
		return NULL;
	}
	if (seed % 3 == 0) {
		close_files(run);
		if (ext4_vol_close(run->vol))
			fprintf(stderr, "dio workload: close failed\n");
		run->vol = NULL;
		for (unsigned n = 0; n < DIO_FILES; n++)
			promise_all(&run->file[n]);
	}
	return run;
}

/* Half of the cuts come just at a promise: its data may still be in the device's cache then. */
static unsigned dio_moment(struct crash_run *run, uint64_t *rnd)
{
	if (run->nr_acks && crash_pick(rnd, 2))
		return run->acks[crash_pick(rnd, run->nr_acks)];
	return crash_pick(rnd, fake_record_events(run->fake) + 1);
}

static struct fake_dev *dio_device(struct crash_run *run) { return run->fake; }

static int dio_recover(struct crash_run *run, struct fake_dev *fake, char *why, size_t len)
{
	(void)run;
	return crash_recover_volume(&crash_dio_options, fake, why, len);
}

const struct crash_workload crash_dio = {
	.name = "dio", .run = dio_run, .device = dio_device, .recover = dio_recover,
	.check = crash_dio_check, .digest = crash_dio_digest, .free = free_run,
	.moment = dio_moment,
};
