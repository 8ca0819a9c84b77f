/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How a write ends, and how a request fails. dio_write_finish gets a write whose data and size are
 * published, or that failed; it holds no lock, gate or range any more (DIO-3). Steps, each if
 * needed:
 *
 *   forget_gap   the kernel forgets the page of the old end of the file, if the write left a gap
 *                behind it
 *   inval_work   the kernel's pages of what was written are invalidated
 *   sync_or_end  the sync queue makes the write durable; then the request is answered
 *
 * dio_write_finish runs on loop threads (on_loop: a worker runs inval_work) and on workers;
 * inval_done and gap_done run on the thread that calls them back. Nothing here blocks. A write that
 * failed is answered after the invalidation too, because parts of it may be on the device.
 */
#include "base/log.h"
#include "dio/types.h"

#include <string.h>

/* How long a write waits at most for the page of the old end to be forgotten. */
#define GAP_WAIT_MS 2000u
/* Its limit if the write is to that page, which the kernel may keep locked until the answer. */
#define GAP_WAIT_SAME_PAGE_MS 1000u

static void sync_or_end(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);

	if (!own->error && (req->flags & (DIO_DSYNC | DIO_SYNC)) && !(own->bits & DIO_R_FUA))
		dio_sync_write(req);
	else
		dio_req_end(req);
}

/* ---- invalidation of the kernel's pages ---- */

static void inval_done(struct work *work)
{
	struct dio_req *req = dio_req_of_work(work);
	struct dio_own *own = dio_own(req);
	struct dio_inode *dinode = req->file->dinode;

	/*
	 * Pages that were read before the invalidation began are gone. If no request has raised
	 * cache_seq since then, the kernel holds none.
	 */
	if ((own->bits & DIO_R_INVAL_ALL) &&
	    __atomic_load_n(&dinode->cache_seq, __ATOMIC_SEQ_CST) == own->cache_seq)
		__atomic_store_n(&dinode->cache_clean, own->cache_seq, __ATOMIC_SEQ_CST);
	sync_or_end(req);
}

/*
 * True if the file has been written directly, and not used through the page cache, for a while:
 * then one invalidation of the whole file spares those of the writes that follow. Races may lose
 * counts, which does no harm.
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
	struct dio_own *own = dio_own(req);
	struct dio_inode *dinode = req->file->dinode;
	const struct dio_config *config = &own->dio->config;

	fdio_count(COUNTER_dio_inval);
	own->cache_seq = __atomic_load_n(&dinode->cache_seq, __ATOMIC_SEQ_CST);
	if (inval_all(dinode, own->cache_seq)) {
		own->bits |= DIO_R_INVAL_ALL;
		dio_cached_forget(dinode, 0, INT64_MAX);
		config->inval(config->inval_arg, req->file->inode, 0, INT64_MAX, &own->work,
			      inval_done);
	} else {
		dio_cached_forget(dinode, req->pos, req->pos + req->len);
		config->inval(config->inval_arg, req->file->inode, req->pos, req->len, &own->work,
			      inval_done);
	}
}

/* ---- a gap behind the old end of the file ---- */

static void gap_done(struct work *work, bool late)
{
	(void)late; /* if true, the page is forgotten a little later */
	dio_write_finish(dio_req_of_work(work), true);
}

/* True: gap_done goes on with req. Not inlined, because it is rare. */
static __attribute__((noinline)) bool forget_gap(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);
	const struct dio_config *config = &own->dio->config;
	struct ext4_inode *inode = req->file->inode;
	uint64_t gap = own->gap;
	struct dio_cached cached;
	bool same_page;

	own->gap = 0;
	if (own->error || !config->launder ||
	    !dio_cached_take(inode, DIO_CACHED_TAIL, gap, &cached))
		return false;
	same_page = !(req->flags & DIO_DIRECT) && req->pos + req->len <= cached.end;
	config->launder(config->inval_arg, inode, cached.off, cached.end - cached.off,
		     same_page ? GAP_WAIT_SAME_PAGE_MS : GAP_WAIT_MS, &own->work, gap_done);
	return true;
}

/* ---- the steps ---- */

void dio_write_finish(struct dio_req *req, bool on_loop)
{
	struct dio_own *own = dio_own(req);
	struct dio *dio = own->dio;
	struct dio_inode *dinode = req->file->dinode;
	bool inval;

	own->stage = DIO_AT_FINISH;
	if (unlikely(own->gap) && forget_gap(req))
		return;
	inval = dio->config.inval && (req->flags & DIO_DIRECT) &&
		__atomic_load_n(&dinode->cache_seq, __ATOMIC_SEQ_CST) !=
			__atomic_load_n(&dinode->cache_clean, __ATOMIC_SEQ_CST);
	if (!inval)
		sync_or_end(req);
	else if (on_loop)
		work_queue_add(dio->config.workers, &own->work, inval_work);
	else
		inval_work(&own->work);
}

/* ---- failing ---- */

static void fail_work(struct work *work)
{
	struct dio_req *req = dio_req_of_work(work);

	fdio_count(COUNTER_dio_io_error);
	log_ratelimited(FDIO_LOG_ERR, "inode %u: %s of %u bytes at %llu failed: %s",
			ext4_inode_ino(req->file->inode), req->flags & DIO_WRITE ? "write" : "read",
			req->len, (unsigned long long)req->pos, strerror(-dio_own(req)->error));
	/* Parts of a write may be on the device, so its pages are invalidated too. */
	if (req->flags & DIO_WRITE)
		dio_write_finish(req, false);
	else
		dio_req_end(req);
}

void dio_fail(struct dio_req *req, int err)
{
	dio_own(req)->error = err;
	dio_own(req)->stage = DIO_AT_FINISH;
	work_queue_add(dio_own(req)->dio->config.workers, &dio_own(req)->work, fail_work);
}
