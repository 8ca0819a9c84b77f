/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sync queue: fsync, fdatasync, syncfs and the end of O_SYNC/O_DSYNC writes. A batch is the
 * whole list as it stands when a syncer takes it: one commit for the newest transaction that any of
 * its waiters needs, or one flush if none needs a commit, then everybody is answered. Waiters that
 * come meanwhile form the next batch. Up to DIO_NR_SYNC batches are at work at once (the device's
 * flush sequencer joins their flushes).
 *
 * What needs a flush. d->epoch counts batches. A write that completed raises its inode's
 * dirty_epoch to the current epoch before it is answered. A batch takes its epoch (and moves it on)
 * before it flushes: every write noted up to that epoch completed before the flush was sent. So an
 * inode with dirty_epoch <= durable_epoch needs none.
 *
 * A flush that fails, the queue's or the journal's, is told to every waiter of the batch that
 * needed it, and to whoever else may have lost by it: a later flush that succeeds says nothing
 * about what was written before. Each inode counts such failures: those at which it had unflushed
 * writes, or writes in flight (on_flush_failure, on the thread that flushed, before anybody hears
 * of the failure, and so before durable_epoch moves on). Each open file, each inode for callers
 * without one, and the volume for syncfs, remembers up to where it was told: everybody hears of
 * each failure once, and who opens the file later, too, if nobody has been told until then. What an
 * append window had to give up (ext4_window_lost) is counted in the same way.
 *
 * dio_mark_dirty, dio_sync_req and dio_fsync run on loop threads too and do not block; batches are
 * worked on by syncers. Locks: sync_lock for the lists and the states of the syncers, inodes_lock
 * for the list of inodes; nothing is called under them.
 */
#include "dio/types.h"

#include <errno.h>

struct batch {
	struct dio *dio;
	struct list reqs, calls;
	uint64_t epoch;
	bool need_commit, need_flush;
	journal_tid tid;
	int commit_err, flush_err;
	bool vol_asked; /* for syncfs, once a batch: */
	int vol_err;
	unsigned nr;
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
 * Something was added. One syncer waiting to run is enough; it takes whatever is there by then.
 * sync_lock held.
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

static void add(struct dio *dio, struct list *list, struct list *link)
{
	fdio_mutex_lock(&dio->sync_lock);
	list_add_tail(list, link);
	struct dio_syncer *syncer = syncer_to_queue(dio);
	fdio_mutex_unlock(&dio->sync_lock);
	if (syncer)
		work_queue_add(dio->config.syncers, &syncer->work, syncer_work);
}

void dio_sync_req(struct dio_req *req)
{
	struct dio_own *o = dio_own(req);

	add(o->dio, &o->dio->sync_reqs, &o->link);
}

/* Read-mostly: the store happens once per batch of the sync queue and inode. */
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

/* False: *p was there already. Only grows (counts may wrap). */
static bool grow_to(uint32_t *p, uint32_t n)
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
		/*
		 * In this order: a write counts as dirty before it no longer counts as in flight.
		 */
		if (is_writing(dio, dinode) || is_dirty(dio, dinode))
			__atomic_add_fetch(&dinode->errors, 1, __ATOMIC_SEQ_CST);
	fdio_mutex_unlock(&dio->inodes_lock);
	__atomic_add_fetch(&dio->errors, 1, __ATOMIC_SEQ_CST);
}

uint32_t dio_sync_errs_at_open(const struct dio_inode *dinode)
{
	uint32_t n = __atomic_load_n(&dinode->errors, __ATOMIC_SEQ_CST);

	return __atomic_load_n(&dinode->errs_told, __ATOMIC_SEQ_CST) == n ? n : n - 1;
}

/*
 * -EIO if there are errors of dinode that file, or who has no file, was not told of: once. Any
 * thread, no lock.
 */
static int untold_error(struct dio_inode *dinode, struct dio_file *file)
{
	uint32_t n;

	if (!dinode)
		return 0;
	n = __atomic_load_n(&dinode->errors, __ATOMIC_SEQ_CST);
	if (likely(!grow_to(file ? &file->errs_seen : &dinode->errs_seen, n)))
		return 0;
	grow_to(&dinode->errs_told, n);
	return -EIO;
}

/*
 * What a file hears that lost nothing itself, where nothing can become durable any more: as the
 * kernel's ext4.
 */
static int clean_error(struct dio *dio, struct ext4_inode *inode, struct dio_file *file)
{
	int err = untold_error(ext4_inode_upper(inode), file);

	return err ? err : journal_error(ext4_vol_journal(dio->config.vol)) ? -EROFS : 0;
}

/*
 * Nothing to write, commit or flush: answered at once, on the loop. O_DSYNC writes of synchronous
 * callers are followed by such.
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
	struct dio_sync_own *o = dio_sync_own(sync);

	if (sync->inode && is_clean(dio, sync->inode, sync->datasync)) {
		fdio_count(COUNTER_dio_sync_clean);
		sync->done(sync, clean_error(dio, sync->inode, sync->file));
		return;
	}
	*o = (struct dio_sync_own){ .err = 0 };
	/* Counted like a request, so that dio_drain waits for it. */
	__atomic_fetch_add(&dio->cpus[0].inflight, 1, __ATOMIC_RELAXED);
	add(dio, &dio->sync_calls, &o->link);
}

/* The transaction that must be durable for this waiter, if any is not yet. */
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
 * What was appended is put into the tree; what had to be given up before is an error for all who
 * have the file open.
 */
static int settle(struct ext4_inode *inode)
{
	struct dio_inode *dinode = ext4_inode_upper(inode);
	int err = ext4_window_settle(inode), lost = ext4_window_lost(inode, false);

	/* Counted before it is forgotten: who asks meanwhile finds the one or the other. */
	if (lost) {
		__atomic_add_fetch(&dinode->errors, 1, __ATOMIC_SEQ_CST);
		(void)ext4_window_lost(inode, true);
	}
	return err ? err : lost;
}

static void survey_write(struct batch *batch, struct dio_req *req)
{
	struct dio_own *o = dio_own(req);

	o->error = settle(req->file->inode);
	if (needs_commit(batch, req->file->inode, !(req->flags & DIO_SYNC)))
		o->bits |= DIO_R_NEED_COMMIT;
	if (is_dirty(batch->dio, req->file->dinode))
		o->bits |= DIO_R_NEED_FLUSH;
	batch->need_flush |= !!(o->bits & DIO_R_NEED_FLUSH);
}

static void survey_call(struct batch *batch, struct dio_sync *sync)
{
	struct dio_sync_own *o = dio_sync_own(sync);

	if (!sync->inode)
		return;
	o->err = settle(sync->inode);
	o->need_commit = needs_commit(batch, sync->inode, sync->datasync);
	o->need_flush = is_dirty(batch->dio, ext4_inode_upper(sync->inode));
	batch->need_flush |= o->need_flush;
	if (!o->need_commit && !o->need_flush) {
		fdio_count(COUNTER_dio_sync_clean);
		if (!o->err)
			o->err = clean_error(batch->dio, sync->inode, sync->file);
	}
}

static void survey(struct batch *batch)
{
	struct dio_own *o;
	struct dio_sync_own *c;

	list_for_each(o, &batch->reqs, link) {
		survey_write(batch, dio_req_of(o));
		batch->nr++;
	}
	list_for_each(c, &batch->calls, link) {
		survey_call(batch, dio_sync_of(c));
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

static void make_durable(struct batch *batch)
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

static int outcome(const struct batch *batch, struct ext4_inode *inode, struct dio_file *file,
		   bool commit, bool flush, int err)
{
	/* Asked for in any case: who hears of an error now does not hear of it again. */
	int untold = untold_error(ext4_inode_upper(inode), file);

	if (!err && commit)
		err = batch->commit_err;
	if (!err && flush)
		err = batch->flush_err;
	return err ? err : untold;
}

/* syncfs hears of each failure, whoever lost by it. */
static int sync_volume(struct dio *dio)
{
	int err = ext4_vol_sync(dio->config.vol);
	bool untold = grow_to(&dio->errs_seen, __atomic_load_n(&dio->errors, __ATOMIC_SEQ_CST));

	return !err && untold ? -EIO : err;
}

static void answer_write(struct batch *batch, struct dio_req *req)
{
	struct dio_own *o = dio_own(req);

	o->error = outcome(batch, req->file->inode, req->file, o->bits & DIO_R_NEED_COMMIT,
			   o->bits & DIO_R_NEED_FLUSH, o->error);
	dio_req_end(req);
}

static void answer_call(struct batch *batch, struct dio_sync *sync)
{
	struct dio *dio = batch->dio;
	struct dio_sync_own *o = dio_sync_own(sync);
	int err;

	if (sync->inode) {
		err = outcome(batch, sync->inode, sync->file, o->need_commit, o->need_flush,
			      o->err);
	} else {
		if (!batch->vol_asked)
			batch->vol_err = sync_volume(dio);
		batch->vol_asked = true;
		err = batch->vol_err;
	}
	sync->done(sync, err); /* sync may be gone */
	__atomic_fetch_sub(&dio->cpus[0].inflight, 1, __ATOMIC_RELEASE);
}

static void answer(struct batch *batch)
{
	struct dio_own *o, *ot;
	struct dio_sync_own *c, *ct;

	list_for_each_safe(o, ot, &batch->reqs, link) {
		list_del(&o->link);
		answer_write(batch, dio_req_of(o));
	}
	list_for_each_safe(c, ct, &batch->calls, link) {
		list_del(&c->link);
		answer_call(batch, dio_sync_of(c));
	}
}

/* Takes what is there; false: nothing. syncer (may be NULL) is then idle again. */
static bool take(struct dio *dio, struct dio_syncer *syncer, struct batch *batch)
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
		survey(batch);
	}
	return any;
}

/*
 * Who asked while another transaction was being committed shares the commit that follows, which
 * cannot have begun before.
 */
static void join(struct batch *batch)
{
	struct batch more;

	if (!batch->need_commit)
		return;
	journal_commit_wait_turn(ext4_vol_journal(batch->dio->config.vol), batch->tid);
	if (!take(batch->dio, NULL, &more))
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

	while (take(syncer->dio, syncer, &batch)) {
		join(&batch);
		fdio_count(COUNTER_dio_sync_batch);
		fdio_count_add(COUNTER_dio_sync_waiters, batch.nr);
		make_durable(&batch);
		answer(&batch);
	}
}
