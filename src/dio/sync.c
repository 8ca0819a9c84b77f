/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sync queue: fsync, fdatasync, syncfs and the end of O_SYNC and O_DSYNC writes.
 *
 *   dio_fsync, dio_sync_write   add a waiter: on any thread, never blocking
 *   syncer_work, on a syncer    take_batch takes all waiters and finds what each needs;
 *                               commit_or_flush commits the newest transaction that any of them
 *                               needs, flushes the device if any of them needs that, or both;
 *                               answer_batch gives each its result (result_of), which answer_call
 *                               hands to dio_sync.done and answer_write to dio_req_end
 *
 * Waiters that come meanwhile form the next batch. Up to DIO_NR_SYNC batches are at work at once;
 * dev_flush joins their flushes.
 *
 * Which inodes need a flush: dio.epoch counts batches. A write that completed raises its inode's
 * dirty_epoch to the current epoch before it is answered (dio_mark_dirty). A batch takes its epoch,
 * and moves dio.epoch on, before it flushes: every write noted up to that epoch completed before
 * the flush was sent. So an inode with dirty_epoch <= durable_epoch needs none.
 *
 * Errors: a failed flush, the queue's or the journal's, is reported to every waiter of the batch
 * that needed it, and to every other file that may have lost data, because a later flush that
 * succeeds says nothing about what was written before. dio_inode.errors counts the failures at
 * which the inode had unflushed writes, or writes in flight (dio_sync_flush_failed, on the thread
 * that flushed, before any waiter hears of the failure and before durable_epoch moves on).
 * errors_seen of each open file, of each inode for callers without a file, and of the engine for
 * syncfs, says how many failures were reported to it: each gets each failure once. A file that is
 * opened later gets the newest failure too, if no caller has got it until then. Data that an append
 * window had to give up (ext4_window_lost) counts as a failure as well.
 *
 * Locks: sync_lock for the lists and the states of the syncers, inodes_lock for the list of inodes;
 * nothing is called under them.
 */
#include "dio/types.h"

#include <errno.h>

struct batch {
	struct dio *dio;
	struct list reqs, calls;      /* dio_own.link of writes, dio_sync_own.link of fsyncs */
	uint64_t epoch;
	bool need_commit, need_flush; /* any of the waiters needs it */
	journal_tid tid;              /* need_commit: the newest that any of them needs */
	int commit_err, flush_err;
	bool volume_synced;           /* a syncfs of this batch was done, with volume_err */
	int volume_err;
	unsigned nr;                  /* waiters */
};

static void syncer_work(struct work *work);

void dio_sync_init(struct dio *dio)
{
	fdio_mutex_init(&dio->sync_lock, RANK_LEAF);
	list_init(&dio->sync_reqs);
	list_init(&dio->sync_calls);
	fdio_mutex_init(&dio->inodes_lock, RANK_LEAF);
	list_init(&dio->inodes);
	dio->epoch = 1;
	for (unsigned k = 0; k < DIO_NR_SYNC; k++)
		dio->syncer[k].dio = dio;
}

/*
 * The syncer to queue after a waiter was added; NULL if one is queued already, which will take all
 * waiters, or none is idle. sync_lock held.
 */
static struct dio_syncer *syncer_to_queue(struct dio *dio)
{
	struct dio_syncer *idle = NULL;

	for (unsigned k = 0; k < DIO_NR_SYNC; k++) {
		if (dio->syncer[k].state == DIO_SYNC_QUEUED)
			return NULL;
		if (dio->syncer[k].state == DIO_SYNC_IDLE)
			idle = &dio->syncer[k];
	}
	if (idle)
		idle->state = DIO_SYNC_QUEUED;
	return idle;
}

static void add_waiter(struct dio *dio, struct list *list, struct list *link)
{
	fdio_mutex_lock(&dio->sync_lock);
	list_add_tail(list, link);
	struct dio_syncer *syncer = syncer_to_queue(dio);
	fdio_mutex_unlock(&dio->sync_lock);
	if (syncer)
		work_queue_add(dio->config.syncers, &syncer->work, syncer_work);
}

void dio_sync_write(struct dio_req *req)
{
	struct dio_own *own = dio_own(req);

	add_waiter(own->dio, &own->dio->sync_reqs, &own->link);
}

/* Stores only once for each inode and batch, because every CPU that writes reads this line. */
void dio_mark_dirty(struct dio *dio, struct dio_inode *dinode)
{
	uint64_t e = __atomic_load_n(&dio->epoch, __ATOMIC_SEQ_CST);
	uint64_t cur = __atomic_load_n(&dinode->dirty_epoch, __ATOMIC_ACQUIRE);

	while (cur < e && !__atomic_compare_exchange_n(&dinode->dirty_epoch, &cur, e, false,
						       __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
		;
}

static bool is_dirty(struct dio *dio, struct dio_inode *dinode)
{
	return dinode && __atomic_load_n(&dinode->dirty_epoch, __ATOMIC_SEQ_CST) >
			     __atomic_load_n(&dio->durable_epoch, __ATOMIC_SEQ_CST);
}

/* Raises *p to n, unless it is there already: then false. Counts may wrap. */
static bool raise_to(uint32_t *p, uint32_t n)
{
	uint32_t old = __atomic_load_n(p, __ATOMIC_SEQ_CST);

	while ((int32_t)(n - old) > 0)
		if (__atomic_compare_exchange_n(p, &old, n, false, __ATOMIC_SEQ_CST,
						__ATOMIC_SEQ_CST))
			return true;
	return false;
}

static bool is_writing(const struct dio *dio, const struct dio_inode *dinode)
{
	if (__atomic_load_n(&dinode->slow_writes, __ATOMIC_SEQ_CST))
		return true;
	for (unsigned c = 0; c < dio->config.nr_cpus; c++)
		if (__atomic_load_n(&dinode->counts[c].n[DIO_COUNT_WRITE], __ATOMIC_SEQ_CST))
			return true;
	return false;
}

void dio_sync_flush_failed(void *arg)
{
	struct dio *dio = arg;
	struct dio_inode *dinode;

	fdio_mutex_lock(&dio->inodes_lock);
	list_for_each(dinode, &dio->inodes, link)
		/* In this order: a write is marked dirty before it stops being in flight. */
		if (is_writing(dio, dinode) || is_dirty(dio, dinode))
			__atomic_add_fetch(&dinode->errors, 1, __ATOMIC_SEQ_CST);
	fdio_mutex_unlock(&dio->inodes_lock);
	__atomic_add_fetch(&dio->errors, 1, __ATOMIC_SEQ_CST);
}

uint32_t dio_sync_errors_at_open(const struct dio_inode *dinode)
{
	uint32_t n = __atomic_load_n(&dinode->errors, __ATOMIC_SEQ_CST);

	return __atomic_load_n(&dinode->errors_told, __ATOMIC_SEQ_CST) == n ? n : n - 1;
}

/*
 * -EIO if dinode has errors that were not yet reported to file (NULL: to callers without a file);
 * then they are. Any thread, no lock.
 */
static int untold_error(struct dio_inode *dinode, struct dio_file *file)
{
	uint32_t n;

	if (!dinode)
		return 0;
	n = __atomic_load_n(&dinode->errors, __ATOMIC_SEQ_CST);
	if (likely(!raise_to(file ? &file->errors_seen : &dinode->errors_seen, n)))
		return 0;
	raise_to(&dinode->errors_told, n);
	return -EIO;
}

/*
 * The result for a file that has nothing to make durable. After the journal has failed that is an
 * error too, as in the kernel's ext4.
 */
static int clean_error(struct dio *dio, struct ext4_inode *inode, struct dio_file *file)
{
	int err = untold_error(ext4_inode_upper(inode), file);

	return err ? err : journal_error(ext4_vol_journal(dio->config.vol)) ? -EROFS : 0;
}

/*
 * True if there is nothing to write, commit or flush: dio_fsync then answers at once. Programs that
 * call fsync after O_DSYNC writes do that.
 */
static bool is_clean(struct dio *dio, struct ext4_inode *inode, bool datasync)
{
	journal_tid tid;

	if (ext4_window_unsettled(inode) || ext4_window_lost(inode, false) ||
	    (!datasync && ext4_times_pending(inode)) || is_dirty(dio, ext4_inode_upper(inode)))
		return false;
	return !ext4_sync_tid_noted(inode, datasync, &tid) ||
	       journal_tid_durable(ext4_vol_journal(dio->config.vol), tid);
}

void dio_fsync(struct dio *dio, struct dio_sync *sync)
{
	struct dio_sync_own *own = dio_sync_own(sync);

	if (sync->inode && is_clean(dio, sync->inode, sync->datasync)) {
		fdio_count(COUNTER_dio_sync_clean);
		sync->done(sync, clean_error(dio, sync->inode, sync->file));
		return;
	}
	*own = (struct dio_sync_own){ .err = 0 };
	/* Counted as a request of loop 0, so that dio_drain waits for it. */
	__atomic_fetch_add(&dio->cpus[0].inflight, 1, __ATOMIC_RELAXED);
	add_waiter(dio, &dio->sync_calls, &own->link);
}

/* True if the waiter needs a transaction that is not durable yet; the batch then commits it. */
static bool needs_commit(struct batch *batch, struct ext4_inode *inode, bool datasync)
{
	journal_tid tid;

	if (!ext4_sync_tid(inode, datasync, &tid) ||
	    journal_tid_durable(ext4_vol_journal(batch->dio->config.vol), tid))
		return false;
	if (!batch->need_commit || !journal_tid_geq(batch->tid, tid))
		batch->tid = tid;
	batch->need_commit = true;
	return true;
}

/*
 * Records the extents of the append window in the tree. Data that the window had to give up earlier
 * is an error for all files of the inode.
 */
static int settle(struct ext4_inode *inode)
{
	struct dio_inode *dinode = ext4_inode_upper(inode);
	int err = ext4_window_settle(inode), lost = ext4_window_lost(inode, false);

	/* Count the loss before clearing it, so that other callers find the one or the other. */
	if (lost) {
		__atomic_add_fetch(&dinode->errors, 1, __ATOMIC_SEQ_CST);
		(void)ext4_window_lost(inode, true);
	}
	return err ? err : lost;
}

static void find_needs_of_write(struct batch *batch, struct dio_req *req)
{
	struct dio_own *own = dio_own(req);

	own->error = settle(req->file->inode);
	if (needs_commit(batch, req->file->inode, !(req->flags & DIO_SYNC)))
		own->bits |= DIO_R_NEED_COMMIT;
	if (is_dirty(batch->dio, req->file->dinode))
		own->bits |= DIO_R_NEED_FLUSH;
	batch->need_flush |= !!(own->bits & DIO_R_NEED_FLUSH);
}

static void find_needs_of_call(struct batch *batch, struct dio_sync *sync)
{
	struct dio_sync_own *own = dio_sync_own(sync);

	if (!sync->inode)
		return;
	own->err = settle(sync->inode);
	own->need_commit = needs_commit(batch, sync->inode, sync->datasync);
	own->need_flush = is_dirty(batch->dio, ext4_inode_upper(sync->inode));
	batch->need_flush |= own->need_flush;
	if (!own->need_commit && !own->need_flush) {
		fdio_count(COUNTER_dio_sync_clean);
		if (!own->err)
			own->err = clean_error(batch->dio, sync->inode, sync->file);
	}
}

static void find_needs(struct batch *batch)
{
	struct dio_own *write;
	struct dio_sync_own *call;

	list_for_each(write, &batch->reqs, link) {
		find_needs_of_write(batch, dio_req_of(write));
		batch->nr++;
	}
	list_for_each(call, &batch->calls, link) {
		find_needs_of_call(batch, dio_sync_of(call));
		batch->nr++;
	}
}

static void note_durable(struct batch *batch)
{
	struct dio *dio = batch->dio;

	fdio_mutex_lock(&dio->sync_lock);
	if (dio->durable_epoch < batch->epoch)
		__atomic_store_n(&dio->durable_epoch, batch->epoch, __ATOMIC_SEQ_CST);
	fdio_mutex_unlock(&dio->sync_lock);
}

/*
 * Makes the changes of the waiters durable. commit_err and flush_err are the result; result_of
 * picks the one that concerns a waiter.
 */
static void commit_or_flush(struct batch *batch)
{
	struct dio *dio = batch->dio;
	bool flushed = false;

	if (batch->need_commit)
		batch->commit_err = journal_commit_wait(ext4_vol_journal(dio->config.vol),
							batch->tid, &flushed);
	if (!batch->need_flush)
		return;
	if (!flushed)
		batch->flush_err = dev_flush(dio->config.dev);
	if (!batch->flush_err)
		note_durable(batch);
}

/* The result of one waiter. err: its own error, if it has one already. */
static int result_of(const struct batch *batch, struct ext4_inode *inode, struct dio_file *file,
		   bool commit, bool flush, int err)
{
	/* Called in any case: an error that is reported now must not be reported again. */
	int untold = untold_error(ext4_inode_upper(inode), file);

	if (!err && commit)
		err = batch->commit_err;
	if (!err && flush)
		err = batch->flush_err;
	return err ? err : untold;
}

/* syncfs reports each flush that failed, whichever inode lost data. */
static int sync_volume(struct dio *dio)
{
	int err = ext4_vol_sync(dio->config.vol);
	bool untold = raise_to(&dio->errors_seen, __atomic_load_n(&dio->errors, __ATOMIC_SEQ_CST));

	return !err && untold ? -EIO : err;
}

static void answer_write(struct batch *batch, struct dio_req *req)
{
	struct dio_own *own = dio_own(req);

	own->error = result_of(batch, req->file->inode, req->file, own->bits & DIO_R_NEED_COMMIT,
			   own->bits & DIO_R_NEED_FLUSH, own->error);
	dio_req_end(req);
}

static void answer_call(struct batch *batch, struct dio_sync *sync)
{
	struct dio *dio = batch->dio;
	struct dio_sync_own *own = dio_sync_own(sync);
	int err;

	if (sync->inode) {
		err = result_of(batch, sync->inode, sync->file, own->need_commit, own->need_flush,
			      own->err);
	} else {
		if (!batch->volume_synced)
			batch->volume_err = sync_volume(dio);
		batch->volume_synced = true;
		err = batch->volume_err;
	}
	sync->done(sync, err); /* sync may be gone */
	__atomic_fetch_sub(&dio->cpus[0].inflight, 1, __ATOMIC_RELEASE);
}

static void answer_batch(struct batch *batch)
{
	struct dio_own *write, *next_write;
	struct dio_sync_own *call, *next_call;

	list_for_each_safe(write, next_write, &batch->reqs, link) {
		list_del(&write->link);
		answer_write(batch, dio_req_of(write));
	}
	list_for_each_safe(call, next_call, &batch->calls, link) {
		list_del(&call->link);
		answer_call(batch, dio_sync_of(call));
	}
}

/*
 * Takes all waiters, and finds what they need. False: there are none, and syncer (may be NULL) is
 * idle again.
 */
static bool take_batch(struct dio *dio, struct dio_syncer *syncer, struct batch *batch)
{
	bool any;

	*batch = (struct batch){ .dio = dio };
	list_init(&batch->reqs);
	list_init(&batch->calls);
	fdio_mutex_lock(&dio->sync_lock);
	list_splice_tail(&batch->reqs, &dio->sync_reqs);
	list_splice_tail(&batch->calls, &dio->sync_calls);
	any = !list_empty(&batch->reqs) || !list_empty(&batch->calls);
	if (syncer)
		syncer->state = any ? DIO_SYNC_RUNNING : DIO_SYNC_IDLE;
	fdio_mutex_unlock(&dio->sync_lock);
	if (any) {
		batch->epoch = __atomic_fetch_add(&dio->epoch, 1, __ATOMIC_SEQ_CST);
		find_needs(batch);
	}
	return any;
}

/*
 * While another transaction is being committed, the commit of this batch cannot begin. Waits for
 * its turn, and takes the waiters that came meanwhile into the batch.
 */
static void take_latecomers(struct batch *batch)
{
	struct batch more;

	if (!batch->need_commit)
		return;
	journal_commit_wait_turn(ext4_vol_journal(batch->dio->config.vol), batch->tid);
	if (!take_batch(batch->dio, NULL, &more))
		return;
	list_splice_tail(&batch->reqs, &more.reqs);
	list_splice_tail(&batch->calls, &more.calls);
	if (more.need_commit && !journal_tid_geq(batch->tid, more.tid))
		batch->tid = more.tid;
	batch->need_flush |= more.need_flush;
	batch->epoch = more.epoch;
	batch->nr += more.nr;
}

static void syncer_work(struct work *work)
{
	struct dio_syncer *syncer = container_of(work, struct dio_syncer, work);
	struct batch batch;

	while (take_batch(syncer->dio, syncer, &batch)) {
		take_latecomers(&batch);
		fdio_count(COUNTER_dio_sync_batch);
		fdio_count_add(COUNTER_dio_sync_waiters, batch.nr);
		commit_or_flush(&batch);
		answer_batch(&batch);
	}
}
