/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine's life, files and the two ends of every request: dio_submit, which validates and chooses the
 * path, and dio_req_end, which answers. dio_submit runs on a loop thread and neither blocks nor allocates;
 * opening and closing run on workers. Everything a request needs is made here, at mount and open.
 */
#include "base/log.h"
#include "base/nowait.h"
#include "dio/types.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int dio_new(const struct dio_config *cfg, struct dio **ret)
{
	struct dio *d;
	int r;

	if (!cfg->dev || !cfg->vol || !cfg->workers || !cfg->syncers || !cfg->nr_cpus)
		return -EINVAL;
	/* A block smaller than a sector could not be written alone. */
	if ((1u << x4_vol_block_bits(cfg->vol)) < cfg->dev->caps.lbs)
		return -EINVAL;
	d = fdio_alloc_aligned(FDIO_CACHELINE, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->cfg = *cfg;
	d->block_bits = x4_vol_block_bits(cfg->vol);
	d->block_size = 1u << d->block_bits;
	d->lbs = cfg->dev->caps.lbs;
	d->max_io = cfg->dev->caps.max_io_bytes;
	d->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	d->mem_align = FDIO_MAX(cfg->dev->caps.mem_align, 1u);
	/* Without FUA in the device the block layer writes and flushes, and joins flushes as well as the sync queue does. */
	d->fua_ok = cfg->dev->caps.fua || !cfg->dev->caps.volatile_cache || (cfg->dev->caps.is_block && !cfg->dev->caps.fua_ignored);
	d->fua_multi = cfg->dev->caps.fua || !cfg->dev->caps.volatile_cache;
	fdio_mutex_init(&d->gate_lock, RANK_LEAF);
	fdio_cond_init(&d->gate_cond);
	dio_sync_init(d);
	r = dio_pool_init(d);
	if (r) {
		dio_free(d);
		return r;
	}
	x4_windows_set_reclaim(cfg->vol, dio_reclaim, d);
	dev_on_flush_failure(cfg->dev, dio_sync_flush_failed, d);
	*ret = d;
	return 0;
}

/* Polling, because whoever ends the last request must not touch the engine afterwards; only unmount waits here. */
void dio_drain(struct dio *d)
{
	const struct timespec nap = { .tv_nsec = 200000 };

	for (unsigned c = 0; c < d->cfg.nr_cpus; c++)
		while (__atomic_load_n(&d->cpus[c].inflight, __ATOMIC_ACQUIRE))
			nanosleep(&nap, NULL);
	/* Batches that answered their last waiter may still be returning. */
	wq_drain(d->cfg.syncers);
	wq_drain(d->cfg.workers);
}

void dio_free(struct dio *d)
{
	if (!d)
		return;
	dev_on_flush_failure(d->cfg.dev, NULL, NULL);
	dio_pool_fini(d);
	fdio_mutex_fini(&d->inodes_lock);
	pthread_cond_destroy(&d->gate_cond);
	fdio_mutex_fini(&d->gate_lock);
	fdio_mutex_fini(&d->sync_lock);
	free(d);
}

static void inode_free(void *p)
{
	struct dio_inode *di = p;

	fdio_mutex_lock(&di->d->inodes_lock);
	list_del(&di->link);
	fdio_mutex_unlock(&di->d->inodes_lock);
	pthread_cond_destroy(&di->range_cond);
	fdio_mutex_fini(&di->range_lock);
	fdio_mutex_fini(&di->app_lock);
	free(di);
}

int dio_inode_attach(struct dio *d, struct x4_inode *i, struct dio_inode **ret)
{
	struct dio_inode *di = x4_inode_upper(i), *winner;

	if (di) {
		*ret = di;
		return 0;
	}
	di = fdio_alloc_aligned(FDIO_CACHELINE, sizeof(*di) + d->cfg.nr_cpus * sizeof(di->counts[0]));
	if (!di)
		return -ENOMEM;
	di->d = d;
	fdio_mutex_init(&di->range_lock, RANK_DIO_RANGE);
	fdio_cond_init(&di->range_cond);
	list_init(&di->ranges);
	fdio_mutex_init(&di->app_lock, RANK_LEAF);
	list_init(&di->app_reqs);
	di->hole_lo = UINT64_MAX;
	fdio_mutex_lock(&d->inodes_lock);
	list_add_tail(&d->inodes, &di->link);
	fdio_mutex_unlock(&d->inodes_lock);
	winner = x4_inode_set_upper(i, di, inode_free);
	if (winner != di)
		inode_free(di);
	*ret = winner;
	return 0;
}

int dio_file_open(struct dio *d, struct x4_inode *i, struct dio_file **ret)
{
	struct dio_file *f = calloc(1, sizeof(*f));
	struct nowait saved;
	int r;

	if (!f)
		return -ENOMEM;
	r = dio_inode_attach(d, i, &f->di);
	if (r) {
		free(f);
		return r;
	}
	f->d = d;
	f->errs_seen = dio_sync_errs_at_open(f->di);
	__atomic_fetch_add(&f->di->nr_files, 1, __ATOMIC_RELAXED);
	f->inode = x4_iref(i);
	x4_opened(i, 1);
	f->reserve.is_reserve = true;
	f->reserve.file = f;
	list_init(&f->reserve.link);
	/* So that the first requests find it; what is wrong with the map is told to those who need it. */
	saved = nowait_save();
	if (x4_map_load(i))
		log_debug("inode %u: map not loaded at open", x4_inode_ino(i));
	nowait_restore(saved);
	*ret = f;
	return 0;
}

bool dio_file_close_waits(const struct dio_file *f) { return x4_window_end(f->inode); }

void dio_file_close(struct dio_file *f)
{
	if (!f)
		return;
	FDIO_ASSERT(!__atomic_load_n(&f->reserve_busy, __ATOMIC_ACQUIRE));
	if (f->may_map)
		__atomic_fetch_sub(&f->di->nr_mappers, 1, __ATOMIC_ACQ_REL);
	/* Somebody who only reads may close meanwhile: the window stays with those who have the file open. */
	if (__atomic_sub_fetch(&f->di->nr_files, 1, __ATOMIC_ACQ_REL) == 0) {
		if (nowait_on()) /* a window that was opened since the caller asked whether closing waits */
			dio_append_stop_later(f->di, f->inode);
		else
			dio_append_stop(f->di, f->inode);
	}
	x4_opened(f->inode, -1);
	x4_iput(f->inode);
	free(f);
}

struct x4_inode *dio_file_inode(struct dio_file *f) { return f->inode; }

void dio_req_end(struct dio_req *r)
{
	struct dio *d = r->dio;
	uint32_t cpu = r->cpu;
	ssize_t result = r->error ? r->error : (ssize_t)r->want;

	r->done(r, result); /* r may be gone */
	__atomic_fetch_sub(&d->cpus[cpu].inflight, 1, __ATOMIC_RELEASE); /* d may be gone */
}

void dio_req_slow(struct dio_req *r) { wq_queue(r->dio->cfg.workers, &r->work, dio_slow_work); }

static void fail_work(struct work *w)
{
	struct dio_req *r = container_of(w, struct dio_req, work);

	fdio_count(CTR_dio_io_error);
	log_ratelimited(FDIO_LOG_ERR, "inode %u: %s of %u bytes at %llu failed: %s", x4_inode_ino(r->file->inode),
			r->flags & DIO_WRITE ? "write" : "read", r->len, (unsigned long long)r->pos, strerror(-r->error));
	if (r->flags & DIO_WRITE)
		dio_write_finish(r, false); /* parts of it may be on the device: the page cache must not hide them */
	else
		dio_req_end(r);
}

void dio_req_fail(struct dio_req *r, int err)
{
	r->error = err;
	wq_queue(r->dio->cfg.workers, &r->work, fail_work);
}

/* Read-mostly: the store happens once per batch of the sync queue and inode. */
void dio_mark_dirty(struct dio *d, struct dio_inode *di)
{
	uint64_t e = __atomic_load_n(&d->epoch, __ATOMIC_SEQ_CST), cur = __atomic_load_n(&di->dirty_epoch, __ATOMIC_ACQUIRE);

	while (cur < e && !__atomic_compare_exchange_n(&di->dirty_epoch, &cur, e, false, __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
		;
}

static void write_durable(struct dio_req *r)
{
	if (!r->error && (r->flags & (DIO_DSYNC | DIO_SYNC)) && !(r->state & DIO_R_FUA))
		dio_sync_req(r);
	else
		dio_req_end(r);
}

static void inval_done(struct work *w)
{
	struct dio_req *r = container_of(w, struct dio_req, work);
	struct dio_inode *di = r->file->di;

	/* Pages that were asked for before it began are gone; who asks from now on raises cache_seq. */
	if ((r->state & DIO_R_INVAL_ALL) && __atomic_load_n(&di->cache_seq, __ATOMIC_SEQ_CST) == r->cache_seq)
		__atomic_store_n(&di->cache_clean, r->cache_seq, __ATOMIC_SEQ_CST);
	write_durable(r);
}

void dio_inval_late(struct work *w) { container_of(w, struct dio_req, work)->state &= ~DIO_R_INVAL_ALL; }

/* Nobody uses the page cache of this file any more, so it seems. The counts are hints: it does not matter if one is lost. */
static bool inval_all(struct dio_inode *di, uint64_t seq)
{
	if (__atomic_load_n(&di->cache_run_seq, __ATOMIC_RELAXED) != seq) {
		__atomic_store_n(&di->cache_run_seq, seq, __ATOMIC_RELAXED);
		__atomic_store_n(&di->cache_run, 0, __ATOMIC_RELAXED);
	}
	return __atomic_add_fetch(&di->cache_run, 1, __ATOMIC_RELAXED) > DIO_INVAL_ALL_AFTER;
}

static void inval_work(struct work *w)
{
	struct dio_req *r = container_of(w, struct dio_req, work);
	struct dio *d = r->dio;

	fdio_count(CTR_dio_inval);
	r->cache_seq = __atomic_load_n(&r->file->di->cache_seq, __ATOMIC_SEQ_CST);
	if (inval_all(r->file->di, r->cache_seq)) {
		r->state |= DIO_R_INVAL_ALL;
		dio_cached_forget(r->file->di, 0, INT64_MAX);
		d->cfg.inval(d->cfg.inval_arg, r->file->inode, 0, INT64_MAX, &r->work, inval_done);
	} else {
		dio_cached_forget(r->file->di, r->pos, r->pos + r->len);
		d->cfg.inval(d->cfg.inval_arg, r->file->inode, r->pos, r->len, &r->work, inval_done);
	}
}

void dio_write_finish(struct dio_req *r, bool on_loop)
{
	struct dio *d = r->dio;
	struct dio_inode *di = r->file->di;

	if (unlikely(r->gap) && dio_gap_finish(r))
		return;
	bool inval = d->cfg.inval && (r->flags & DIO_DIRECT) &&
		     __atomic_load_n(&di->cache_seq, __ATOMIC_SEQ_CST) != __atomic_load_n(&di->cache_clean, __ATOMIC_SEQ_CST);

	if (!inval)
		write_durable(r);
	else if (on_loop)
		wq_queue(d->cfg.workers, &r->work, inval_work);
	else
		inval_work(&r->work);
}

/*
 * Unaligned as no kernel file system would take it. The kernel splits a long request where the pages of the application's
 * memory end, at any byte: of its pieces all but the last are nearly as long as a request may be, and the last one ends
 * aligned. These are no fault of the application's.
 */
static bool is_misaligned(const struct dio *d, const struct dio_req *r)
{
	uint64_t mask = d->lbs - 1, end = r->pos + r->len;

	if (likely(!((r->pos | r->len) & mask)))
		return false;
	/* A read may stop anywhere behind the end of the file, and begin there. */
	if (!(r->flags & DIO_WRITE)) {
		uint64_t size = x4_inode_size(r->file->inode);

		if (r->pos >= size || (!(r->pos & mask) && end >= fdio_round_up(size, d->lbs)))
			return false;
	}
	return r->len < DIO_SPLIT_MIN && (!(r->pos & mask) || (end & mask));
}

/* 1: go on; else the result of the request. */
static int validate(struct dio *d, struct dio_req *r)
{
	uint64_t size, most = (uint64_t)UINT32_MAX << d->block_bits;

	if ((r->flags & DIO_DIRECT) && d->cfg.strict && is_misaligned(d, r)) {
		fdio_count(CTR_dio_einval_align);
		return -EINVAL;
	}
	if (!r->len)
		return 0;
	if (r->pos > (uint64_t)INT64_MAX - r->len)
		return r->flags & DIO_WRITE ? -EFBIG : -EINVAL;
	r->want = r->len;
	if (r->flags & DIO_WRITE) {
		if (x4_vol_read_only(d->cfg.vol))
			return -EROFS;
		/* As write(2) does it: what fits is written. (FUSE makes EIO of a short direct write, so that one fails whole.) */
		if (!(r->flags & DIO_DIRECT) && r->pos < most && r->len > most - r->pos)
			r->want = r->len = (uint32_t)(most - r->pos);
	} else {
		size = x4_inode_size(r->file->inode);
		if (r->pos >= size)
			return 0;
		r->want = FDIO_MIN((uint64_t)r->len, size - r->pos);
	}
	if (r->pos + r->want > most)
		return -EFBIG;
	return 1;
}

void dio_submit(struct dio *d, struct dio_req *r)
{
	struct loop *l = d->cfg.loops ? loop_self() : NULL;
	struct dio_inode *di = r->file->di;
	int v;

	r->dio = d;
	r->loop = l;
	r->cpu = l ? loop_index(l) : 0;
	r->state = r->refs = r->nr_done = r->direct_len = r->want = r->span = r->retries = 0;
	r->error = 0;
	r->gap = 0;
	FDIO_ASSERT(r->cpu < d->cfg.nr_cpus);
	__atomic_fetch_add(&d->cpus[r->cpu].inflight, 1, __ATOMIC_RELAXED);
	/* Before the data is looked at: a direct write that completes from here on sees it. */
	if (!(r->flags & DIO_DIRECT))
		__atomic_fetch_add(&di->cache_seq, 1, __ATOMIC_SEQ_CST);
	if (unlikely(__atomic_load_n(&di->mask_to, __ATOMIC_RELAXED)))
		dio_mask_req(r);
	if (!(r->flags & DIO_DIRECT))
		dio_cached_note(r);
	v = validate(d, r);
	if (v == 1) {
		dio_fast_start(r);
		return;
	}
	r->error = v; /* 0: nothing to transfer */
	r->want = 0;
	dio_req_end(r);
}
