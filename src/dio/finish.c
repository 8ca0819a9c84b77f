/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a write ends, and how a request fails. A write whose data and size are published, or that
 * failed, holds no lock, gate or range any more (DIO-3) and takes those of these steps that it
 * needs, in this order: have the page of the old end forgotten, behind which it left a gap;
 * invalidate the kernel's pages of what it wrote; make it durable; answer.
 *
 * dio_write_finish runs on loop threads (on_loop: a worker then calls the invalidation) and on
 * workers; inval_done and gap_done run on whatever thread the callback comes on. Nothing here
 * blocks. An error is told after the invalidation, because parts of the write may be on the device.
 */
#include "base/log.h"
#include "dio/types.h"

#include <string.h>

#define GAP_WAIT_MS 2000u
/* A page that is not in memory as a whole is locked by the write itself until that is answered. */
#define GAP_WAIT_SAME_PAGE_MS 1000u

static void make_durable(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);

	if (!o->error && (req->flags & (DIO_DSYNC | DIO_SYNC)) && !(o->bits & DIO_R_FUA))
		dio_sync_req(req);
	else
		dio_req_end(req);
}

/* ---- the kernel's pages of what was written ---- */

static void inval_done(struct work *work)
{
	struct dio_req *req = dio_req_of_work(work);
	struct dio_own *o = dio_own(req);
	struct dio_inode *dinode = req->file->dinode;

	/*
	 * Pages that were asked for before it began are gone; who asks from now on raises
	 * cache_seq.
	 */
	if ((o->bits & DIO_R_INVAL_ALL) &&
	    __atomic_load_n(&dinode->cache_seq, __ATOMIC_SEQ_CST) == o->cache_seq)
		__atomic_store_n(&dinode->cache_clean, o->cache_seq, __ATOMIC_SEQ_CST);
	make_durable(req);
}

/*
 * Nobody uses the page cache of this file any more, so it seems. The counts are hints: it does not
 * matter if one is lost.
 */
static bool inval_all(struct dio_inode *dinode, uint64_t seq)
{
	if (__atomic_load_n(&dinode->cache_run_seq, __ATOMIC_RELAXED) != seq) {
		__atomic_store_n(&dinode->cache_run_seq, seq, __ATOMIC_RELAXED);
		__atomic_store_n(&dinode->cache_run, 0, __ATOMIC_RELAXED);
	}
	return __atomic_add_fetch(&dinode->cache_run, 1, __ATOMIC_RELAXED) > DIO_INVAL_ALL_AFTER;
}

static void inval_work(struct work *work)
{
	struct dio_req *req = dio_req_of_work(work);
	struct dio_own *o = dio_own(req);
	struct dio_inode *dinode = req->file->dinode;
	const struct dio_config *config = &o->dio->config;

	fdio_count(COUNTER_dio_inval);
	o->cache_seq = __atomic_load_n(&dinode->cache_seq, __ATOMIC_SEQ_CST);
	if (inval_all(dinode, o->cache_seq)) {
		o->bits |= DIO_R_INVAL_ALL;
		dio_cached_forget(dinode, 0, INT64_MAX);
		config->inval(config->inval_arg, req->file->inode, 0, INT64_MAX, &o->work,
			      inval_done);
	} else {
		dio_cached_forget(dinode, req->pos, req->pos + req->len);
		config->inval(config->inval_arg, req->file->inode, req->pos, req->len, &o->work,
			      inval_done);
	}
}

/* ---- a gap behind the old end ---- */

static void gap_done(struct work *work, bool late)
{
	(void)late; /* then it is forgotten a little later */
	dio_write_finish(dio_req_of_work(work), true);
}

/* True if req goes on in gap_done. Rare, so not inlined. */
static __attribute__((noinline)) bool forget_gap(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);
	const struct dio_config *config = &o->dio->config;
	struct ext4_inode *inode = req->file->inode;
	uint64_t gap = o->gap;
	struct dio_cached cached;
	bool same_page;

	o->gap = 0;
	if (o->error || !config->launder || !dio_cached_take(inode, DIO_CACHED_TAIL, gap, &cached))
		return false;
	same_page = !(req->flags & DIO_DIRECT) && req->pos + req->len <= cached.end;
	config->launder(config->inval_arg, inode, cached.off, cached.end - cached.off,
		     same_page ? GAP_WAIT_SAME_PAGE_MS : GAP_WAIT_MS, &o->work, gap_done);
	return true;
}

/* ---- the steps ---- */

void dio_write_finish(struct dio_req *req, bool on_loop)
{
	struct dio_own *o = dio_own(req);
	struct dio *dio = o->dio;
	struct dio_inode *dinode = req->file->dinode;
	bool inval;

	o->stage = DIO_AT_FINISH;
	if (unlikely(o->gap) && forget_gap(req))
		return;
	inval = dio->config.inval && (req->flags & DIO_DIRECT) &&
		__atomic_load_n(&dinode->cache_seq, __ATOMIC_SEQ_CST) !=
			__atomic_load_n(&dinode->cache_clean, __ATOMIC_SEQ_CST);
	if (!inval)
		make_durable(req);
	else if (on_loop)
		work_queue_add(dio->config.workers, &o->work, inval_work);
	else
		inval_work(&o->work);
}

/* ---- failing ---- */

static void fail_work(struct work *work)
{
	struct dio_req *req = dio_req_of_work(work);

	fdio_count(COUNTER_dio_io_error);
	log_ratelimited(FDIO_LOG_ERR, "inode %u: %s of %u bytes at %llu failed: %s",
			ext4_inode_ino(req->file->inode), req->flags & DIO_WRITE ? "write" : "read",
			req->len, (unsigned long long)req->pos, strerror(-dio_own(req)->error));
	/* Parts of a write may be on the device: the page cache must not hide them. */
	if (req->flags & DIO_WRITE)
		dio_write_finish(req, false);
	else
		dio_req_end(req);
}

void dio_req_fail(struct dio_req *req, int err)
{
	dio_own(req)->error = err;
	dio_own(req)->stage = DIO_AT_FINISH;
	work_queue_add(dio_own(req)->dio->config.workers, &dio_own(req)->work, fail_work);
}
