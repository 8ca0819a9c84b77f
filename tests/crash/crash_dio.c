/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Crash workload through the direct-I/O engine: overwrites, appends one by one and several at a
 * time (into windows), writes behind a gap and into holes, of whole and of parts of blocks; among
 * them truncate, punch and fallocate; O_DSYNC, O_SYNC, fsync, fdatasync and syncfs. Up to one
 * operation of each file is in flight, so the cuts come with some on their way; the device
 * completes them in any order.
 *
 * Promised after a cut: each sector that was synced holds what it held then, or what was asked for
 * since; others hold something that was asked for, or zeroes; none what another file wrote or what
 * was in the block before. The size is the one that was synced, or one on the way from there.
 *
 * The test's thread asks; workers, syncers, the device's thread and the journal's run beside it.
 */
#include "crash/crash_dio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

const struct x4_options crash_dio_options = {
	.acl = true, .user_xattr = true, .commit_interval_s = 3600,
};
static const struct x4_cred cred = { .cap_fsetid = true };

void crash_dio_fill(uint8_t *buf, unsigned file, uint32_t n, uint32_t gen)
{
	for (unsigned off = 0; off < DIO_UNIT; off += 16) {
		uint32_t w[4] = { file + 1, gen, n << 8 | off / 16, ~gen };

		memcpy(buf + off, w, 16);
	}
}

/* ---- the model ---- */

static void add(struct crash_run *r, struct dio_history *h, uint32_t value)
{
	if (h->nr == h->cap) {
		h->cap = h->cap ? h->cap * 2 : 8;
		h->v = realloc(h->v, h->cap * sizeof(*h->v));
		FDIO_ASSERT(h->v);
	}
	h->v[h->nr++] = (struct dio_version){ value, fake_rec_events(r->f), UINT32_MAX };
}

static unsigned note_ack(struct crash_run *r)
{
	unsigned now = fake_rec_events(r->f);

	if (r->nr_acks < DIO_ACKS)
		r->acks[r->nr_acks++] = now;
	return now;
}

static void promise(struct dio_version *v, unsigned event)
{
	v->durable = FDIO_MIN(v->durable, event);
}

static uint32_t size_of(const struct dio_rec_file *f)
{
	return f->size.nr ? f->size.v[f->size.nr - 1].value : 0;
}

static void grow(struct dio_rec_file *f, uint32_t end)
{
	if (end > size_of(f))
		add(f->r, &f->size, end);
}

/* Everything that was done to the file. lock held. */
static void promise_all(struct dio_rec_file *f)
{
	unsigned now = note_ack(f->r);

	for (unsigned n = 0; n < DIO_UNITS; n++)
		if (f->unit[n].nr)
			promise(&f->unit[n].v[f->unit[n].nr - 1], now);
	if (f->size.nr)
		promise(&f->size.v[f->size.nr - 1], now);
}

/* What a write wrote, and the size that is needed to read it back. lock held. */
static void promise_write(struct dio_rec_file *f, uint32_t first, uint32_t nr)
{
	unsigned now = note_ack(f->r), at = f->size.nr;

	for (uint32_t n = first; n < first + nr; n++)
		promise(&f->unit[n].v[f->unit[n].nr - 1], now);
	while (at > 0 && f->size.v[at - 1].value >= first + nr)
		at--;
	if (at < f->size.nr)
		promise(&f->size.v[at], now);
}

/* ---- requests ---- */

static void ended(struct dio_rec_file *f, int err)
{
	struct crash_run *r = f->r;

	if (err && !r->err)
		r->err = err;
	f->busy--;
	pthread_cond_signal(&r->cond);
}

static void write_done(struct dio_req *d, ssize_t res)
{
	struct dio_rec_req *q = container_of(d, struct dio_rec_req, r);
	struct crash_run *r = q->file->r;

	fdio_mutex_lock(&r->lock);
	if (res == (ssize_t)d->len && (d->flags & DIO_DSYNC))
		promise_write(q->file, q->first, q->nr);
	ended(q->file, res == (ssize_t)d->len ? 0 : res < 0 ? (int)res : -EIO);
	fdio_mutex_unlock(&r->lock);
}

/* The model first: from here on any of it may reach the media. */
static void write_units(struct crash_run *r, unsigned n, unsigned slot, uint32_t first, uint32_t nr)
{
	struct dio_rec_file *f = &r->file[n];
	struct dio_rec_req *q = &r->req[n][slot];
	unsigned flags = DIO_WRITE | DIO_DIRECT | DIO_ROOT, sync = crash_pick(&r->seed, 10);
	uint32_t gen = ++r->gen;

	fdio_mutex_lock(&r->lock);
	for (uint32_t u = 0; u < nr; u++) {
		crash_dio_fill(q->buf + u * DIO_UNIT, n, first + u, gen);
		add(r, &f->unit[first + u], gen);
	}
	grow(f, first + nr);
	f->busy++;
	fdio_mutex_unlock(&r->lock);
	q->file = f;
	q->first = first;
	q->nr = nr;
	q->r = (struct dio_req){
		.file = f->f, .pos = (uint64_t)first * DIO_UNIT, .len = nr * DIO_UNIT,
		.buf = q->buf, .flags = flags | (sync < 3 ? DIO_DSYNC : 0) | (sync == 0 ? DIO_SYNC : 0),
		.buf_index = -1, .buf_cap = DIO_BUF, .done = write_done,
	};
	dio_submit(r->d, &q->r);
}

static void fsync_done(struct dio_sync *s, int err)
{
	struct dio_rec_file *f = container_of(s, struct dio_rec_file, sync);
	struct crash_run *r = f->r;

	fdio_mutex_lock(&r->lock);
	if (!err)
		promise_all(f);
	ended(f, err);
	fdio_mutex_unlock(&r->lock);
}

static void syncfs_done(struct dio_sync *s, int err)
{
	struct crash_run *r = container_of(s, struct crash_run, sync);

	fdio_mutex_lock(&r->lock);
	for (unsigned n = 0; n < DIO_FILES; n++) {
		if (!err)
			promise_all(&r->file[n]);
		ended(&r->file[n], err);
	}
	fdio_mutex_unlock(&r->lock);
}

static void wait_idle(struct crash_run *r, unsigned n)
{
	fdio_mutex_lock(&r->lock);
	while (r->file[n].busy)
		fdio_cond_wait(&r->cond, &r->lock);
	fdio_mutex_unlock(&r->lock);
}

static void wait_all(struct crash_run *r)
{
	for (unsigned n = 0; n < DIO_FILES; n++)
		wait_idle(r, n);
}

static void set_busy(struct crash_run *r, unsigned first, unsigned end)
{
	fdio_mutex_lock(&r->lock);
	for (unsigned n = first; n < end; n++)
		r->file[n].busy++;
	fdio_mutex_unlock(&r->lock);
}

/* ---- operations on file n, which is idle ---- */

/* Of units, or half of the time of whole blocks. */
static uint32_t pick_units(struct crash_run *r, uint32_t max)
{
	uint32_t n = 1 + crash_pick(&r->seed, max), per = r->bs / DIO_UNIT;

	return crash_pick(&r->seed, 2) ? n : (uint32_t)fdio_round_up(n, per);
}

static void op_overwrite(struct crash_run *r, unsigned n)
{
	uint32_t size = size_of(&r->file[n]), first, nr;

	if (!size)
		return;
	first = crash_pick(&r->seed, size);
	if (crash_pick(&r->seed, 2))
		first = (uint32_t)fdio_round_down(first, r->bs / DIO_UNIT);
	nr = FDIO_MIN(pick_units(r, 24), size - first);
	write_units(r, n, 0, first, nr);
}

/* One, or several at once, each where the one before ends; or one behind a gap. */
static void op_append(struct crash_run *r, unsigned n)
{
	uint32_t first = size_of(&r->file[n]), per = r->bs / DIO_UNIT;
	unsigned count = first % per || crash_pick(&r->seed, 2) ? 1 : DIO_REQS;

	if (count == 1 && crash_pick(&r->seed, 4) == 0)
		first += pick_units(r, 20);
	for (unsigned k = 0; k < count; k++) {
		uint32_t nr = count > 1 ? per * (1 + crash_pick(&r->seed, 2)) : pick_units(r, 24);

		if (first + nr > DIO_UNITS)
			return;
		write_units(r, n, k, first, nr);
		first += nr;
	}
}

static int change(struct crash_run *r, unsigned n, int mode, uint64_t off, uint64_t len)
{
	struct x4_inode *i = r->file[n].i;
	int err = dio_gate_close(r->d, i, DIO_GATE_ALL);

	if (err)
		return err;
	x4_inode_lock_excl(i);
	err = mode < 0 ? x4_truncate(i, off) : x4_fallocate(i, mode, off, len, true);
	x4_inode_unlock(i);
	dio_gate_open(r->d, i, DIO_GATE_ALL);
	return err;
}

static void zero_units(struct dio_rec_file *f, uint32_t first, uint32_t end)
{
	for (uint32_t u = first; u < end; u++)
		if (f->unit[u].nr)
			add(f->r, &f->unit[u], 0);
}

static int op_truncate(struct crash_run *r, unsigned n)
{
	struct dio_rec_file *f = &r->file[n];
	uint32_t size = crash_pick(&r->seed, size_of(f) + 12), old = size_of(f);

	size = FDIO_MIN(size, (uint32_t)DIO_UNITS);
	fdio_mutex_lock(&r->lock);
	zero_units(f, size, FDIO_MAX(old, size));
	add(r, &f->size, size);
	fdio_mutex_unlock(&r->lock);
	return change(r, n, -1, (uint64_t)size * DIO_UNIT, 0);
}

static int op_allocate(struct crash_run *r, unsigned n)
{
	struct dio_rec_file *f = &r->file[n];
	uint32_t first = crash_pick(&r->seed, DIO_UNITS - 40), end = first + pick_units(r, 30);
	static const int modes[] = { X4_FALLOC_PUNCH_HOLE | X4_FALLOC_KEEP_SIZE, X4_FALLOC_KEEP_SIZE, 0 };
	int mode = modes[crash_pick(&r->seed, 3)];

	fdio_mutex_lock(&r->lock);
	if (mode & X4_FALLOC_PUNCH_HOLE)
		zero_units(f, first, end);
	else if (!mode)
		grow(f, end);
	fdio_mutex_unlock(&r->lock);
	return change(r, n, mode, (uint64_t)first * DIO_UNIT, (uint64_t)(end - first) * DIO_UNIT);
}

static void op_fsync(struct crash_run *r, unsigned n, bool datasync)
{
	struct dio_rec_file *f = &r->file[n];

	set_busy(r, n, n + 1);
	f->sync = (struct dio_sync){
		.inode = f->i, .file = f->f, .datasync = datasync, .done = fsync_done,
	};
	dio_fsync(r->d, &f->sync);
}

/* The second time there is nothing to commit: what is written is flushed, and that is all. */
static void op_overwrite_synced(struct crash_run *r, unsigned n)
{
	for (unsigned k = 0; k < 2; k++) {
		op_overwrite(r, n);
		wait_idle(r, n);
		op_fsync(r, n, true);
		wait_idle(r, n);
	}
}

static void op_syncfs(struct crash_run *r)
{
	wait_all(r);
	set_busy(r, 0, DIO_FILES);
	r->sync = (struct dio_sync){ .done = syncfs_done };
	dio_fsync(r->d, &r->sync);
}

static int one_op(struct crash_run *r)
{
	unsigned n = crash_pick(&r->seed, DIO_FILES), what = crash_pick(&r->seed, 24);
	jnl_tid tid;

	wait_idle(r, n);
	if (what < 8)
		op_append(r, n);
	else if (what < 12)
		op_overwrite(r, n);
	else if (what < 14)
		op_overwrite_synced(r, n);
	else if (what < 16)
		return op_truncate(r, n);
	else if (what < 18)
		return op_allocate(r, n);
	else if (what < 21)
		op_fsync(r, n, crash_pick(&r->seed, 2));
	else if (what < 22)
		op_syncfs(r);
	else if (what < 23)
		return x4_windows_settle(r->v);
	else if (x4_sync_tid(r->file[n].i, true, &tid))
		jnl_commit_start(x4_vol_jnl(r->v), tid);
	return 0;
}

/* ---- life ---- */

static void close_files(struct crash_run *r)
{
	for (unsigned n = 0; n < DIO_FILES; n++) {
		dio_file_close(r->file[n].f);
		r->file[n].f = NULL;
		x4_iput(r->file[n].i);
		r->file[n].i = NULL;
	}
	if (r->d)
		dio_drain(r->d);
}

static void free_run(struct crash_run *r)
{
	close_files(r);
	if (r->v)
		x4_vol_abandon(r->v);
	dio_free(r->d);
	wq_free(r->workers);
	wq_free(r->syncers);
	if (r->f) {
		fake_set_mode(r->f, FAKE_INLINE, 0);
		fake_free(r->f);
	}
	for (unsigned n = 0; n < DIO_FILES; n++) {
		for (unsigned u = 0; u < DIO_UNITS; u++)
			free(r->file[n].unit[u].v);
		free(r->file[n].size.v);
		for (unsigned k = 0; k < DIO_REQS; k++)
			free(r->req[n][k].buf);
	}
	free(r);
}

static bool open_files(struct crash_run *r)
{
	struct x4_inode *root;
	bool ok = !x4_iget(r->v, X4_ROOT_INO, NULL, &root);

	for (unsigned n = 0; n < DIO_FILES && ok; n++) {
		struct dio_rec_file *f = &r->file[n];
		char name[8];
		unsigned len = (unsigned)snprintf(name, sizeof(name), "f%u", n);

		f->r = r;
		ok = !x4_create(root, name, len, 0100644, 0, &cred, &f->i) &&
		     !dio_file_open(r->d, f->i, &f->f);
		for (unsigned k = 0; k < DIO_REQS && ok; k++) {
			r->req[n][k].buf = fdio_alloc_aligned(4096, DIO_BUF);
			ok = r->req[n][k].buf;
		}
	}
	if (root)
		x4_iput(root);
	return ok && !x4_vol_sync(r->v);
}

static bool setup(struct crash_run *r)
{
	bool small = crash_pick(&r->seed, 3) != 0, csum = crash_pick(&r->seed, 4) != 0;
	bool fua = crash_pick(&r->seed, 2);
	struct dio_config dc = { .nr_cpus = 1, .segs_per_loop = 4, .strict = true };
	char args[200], err[256] = "";

	r->bs = small ? 1024 : 4096;
	snprintf(args, sizeof(args), "-t ext4 -b %u -O %smetadata_csum,64bit,^resize_inode -N 64 -g 2048 "
		 "-E nodiscard,lazy_itable_init=0 -J size=%u", r->bs, csum ? "" : "^", small ? 1 : 4);
	r->f = fake_mkfs((uint64_t)(small ? 6 : 20) << 20, args);
	if (!r->f)
		return false;
	if (!fua)
		fake_dev(r->f)->caps.fua = fake_dev(r->f)->caps.is_block = false;
	if (x4_vol_open(fake_dev(r->f), &crash_dio_options, &r->v, NULL, FDIO_REASON(err))) {
		fprintf(stderr, "x4_vol_open: %s\n", err);
		return false;
	}
	dc.dev = fake_dev(r->f);
	dc.vol = r->v;
	dc.workers = r->workers = wq_new("worker", 2);
	dc.syncers = r->syncers = wq_new("syncer", 2);
	return r->workers && r->syncers && !dio_new(&dc, &r->d) && open_files(r);
}

static struct crash_run *dio_run(uint64_t seed)
{
	struct crash_run *r = calloc(1, sizeof(*r));

	FDIO_ASSERT(r);
	r->seed = seed;
	fdio_mutex_init(&r->lock, RANK_OPS_FILES);
	fdio_cond_init(&r->cond);
	if (!setup(r)) {
		free_run(r);
		return NULL;
	}
	fake_rec_start(r->f);
	fake_set_mode(r->f, FAKE_THREAD, seed);
	for (unsigned round = 0; round < DIO_ROUNDS && !r->err; round++) {
		int err = one_op(r);

		r->err = r->err ? r->err : err;
	}
	wait_all(r);
	if (r->err) {
		fprintf(stderr, "dio workload: an operation failed with %d\n", r->err);
		free_run(r);
		return NULL;
	}
	if (seed % 3 == 0) {
		close_files(r);
		if (x4_vol_close(r->v))
			fprintf(stderr, "dio workload: close failed\n");
		r->v = NULL;
		for (unsigned n = 0; n < DIO_FILES; n++)
			promise_all(&r->file[n]);
	}
	return r;
}

/*
 * Half of the cuts come at the moment of a promise, when what it is about may still be in the
 * cache.
 */
static unsigned dio_moment(struct crash_run *r, uint64_t *rnd)
{
	if (r->nr_acks && crash_pick(rnd, 2))
		return r->acks[crash_pick(rnd, r->nr_acks)];
	return crash_pick(rnd, fake_rec_events(r->f) + 1);
}

static struct fake_dev *dio_device(struct crash_run *r) { return r->f; }

static int dio_recover(struct crash_run *r, struct fake_dev *c, char *why, size_t len)
{
	(void)r;
	return crash_recover_volume(&crash_dio_options, c, why, len);
}

const struct crash_workload crash_dio = {
	.name = "dio", .run = dio_run, .device = dio_device, .recover = dio_recover,
	.check = crash_dio_check, .digest = crash_dio_digest, .free = free_run,
	.moment = dio_moment,
};
