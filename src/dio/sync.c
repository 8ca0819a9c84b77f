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
 * append window had to give up (x4_window_lost) is counted in the same way.
 *
 * dio_mark_dirty, dio_sync_req and dio_fsync run on loop threads too and do not block; batches are
 * worked on by syncers. Locks: sync_lock for the lists and the states of the syncers, inodes_lock
 * for the list of inodes; nothing is called under them.
 */
#include "dio/types.h"

#include <errno.h>

struct batch {
	struct dio *d;
	struct list reqs, calls;
	uint64_t epoch;
	bool need_commit, need_flush;
	jnl_tid tid;
	int commit_err, flush_err;
	bool vol_asked; /* for syncfs, once a batch: */
	int vol_err;
	unsigned nr;
};

static void syncer_work(struct work *w);

void dio_sync_init(struct dio *d)
{
	fdio_mutex_init(&d->sync_lock, RANK_LEAF);
	list_init(&d->sync_reqs);
	list_init(&d->sync_calls);
	fdio_mutex_init(&d->inodes_lock, RANK_LEAF);
	list_init(&d->inodes);
	d->epoch = 1;
	for (unsigned k = 0; k < DIO_NR_SYNC; k++)
		d->syncer[k].d = d;
}

/*
 * Something was added. One syncer waiting to run is enough; it takes whatever is there by then.
 * sync_lock held.
 */
static struct dio_syncer *syncer_to_queue(struct dio *d)
{
	struct dio_syncer *idle = NULL;

	for (unsigned k = 0; k < DIO_NR_SYNC; k++) {
		if (d->syncer[k].state == DIO_SYNC_QUEUED)
			return NULL;
		if (d->syncer[k].state == DIO_SYNC_IDLE)
			idle = &d->syncer[k];
	}
	if (idle)
		idle->state = DIO_SYNC_QUEUED;
	return idle;
}

static void add(struct dio *d, struct list *list, struct list *link)
{
	fdio_mutex_lock(&d->sync_lock);
	list_add_tail(list, link);
	struct dio_syncer *s = syncer_to_queue(d);
	fdio_mutex_unlock(&d->sync_lock);
	if (s)
		wq_queue(d->cfg.syncers, &s->work, syncer_work);
}

void dio_sync_req(struct dio_req *r)
{
	struct dio_own *o = dio_own(r);

	add(o->dio, &o->dio->sync_reqs, &o->link);
}

/* Read-mostly: the store happens once per batch of the sync queue and inode. */
void dio_mark_dirty(struct dio *d, struct dio_inode *di)
{
	uint64_t e = __atomic_load_n(&d->epoch, __ATOMIC_SEQ_CST);
	uint64_t cur = __atomic_load_n(&di->dirty_epoch, __ATOMIC_ACQUIRE);

	while (cur < e && !__atomic_compare_exchange_n(&di->dirty_epoch, &cur, e, false,
						       __ATOMIC_SEQ_CST, __ATOMIC_ACQUIRE))
		;
}

static bool is_dirty(struct dio *d, struct dio_inode *di)
{
	return di && __atomic_load_n(&di->dirty_epoch, __ATOMIC_SEQ_CST) >
			     __atomic_load_n(&d->durable_epoch, __ATOMIC_SEQ_CST);
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

static bool is_writing(const struct dio *d, const struct dio_inode *di)
{
	if (__atomic_load_n(&di->slow_writes, __ATOMIC_SEQ_CST))
		return true;
	for (unsigned c = 0; c < d->cfg.nr_cpus; c++)
		if (__atomic_load_n(&di->counts[c].n[DIO_COUNT_WRITE], __ATOMIC_SEQ_CST))
			return true;
	return false;
}

void dio_sync_flush_failed(void *arg)
{
	struct dio *d = arg;
	struct dio_inode *di;

	fdio_mutex_lock(&d->inodes_lock);
	list_for_each(di, &d->inodes, link)
		/*
		 * In this order: a write counts as dirty before it no longer counts as in flight.
		 */
		if (is_writing(d, di) || is_dirty(d, di))
			__atomic_add_fetch(&di->errs, 1, __ATOMIC_SEQ_CST);
	fdio_mutex_unlock(&d->inodes_lock);
	__atomic_add_fetch(&d->errs, 1, __ATOMIC_SEQ_CST);
}

uint32_t dio_sync_errs_at_open(const struct dio_inode *di)
{
	uint32_t n = __atomic_load_n(&di->errs, __ATOMIC_SEQ_CST);

	return __atomic_load_n(&di->errs_told, __ATOMIC_SEQ_CST) == n ? n : n - 1;
}

/*
 * -EIO if there are errors of di that f, or who has no file, was not told of: once. Any thread, no
 * lock.
 */
static int untold_error(struct dio_inode *di, struct dio_file *f)
{
	uint32_t n;

	if (!di)
		return 0;
	n = __atomic_load_n(&di->errs, __ATOMIC_SEQ_CST);
	if (likely(!grow_to(f ? &f->errs_seen : &di->errs_seen, n)))
		return 0;
	grow_to(&di->errs_told, n);
	return -EIO;
}

/*
 * What a file hears that lost nothing itself, where nothing can become durable any more: as the
 * kernel's ext4.
 */
static int clean_error(struct dio *d, struct x4_inode *i, struct dio_file *f)
{
	int err = untold_error(x4_inode_upper(i), f);

	return err ? err : jnl_error(x4_vol_jnl(d->cfg.vol)) ? -EROFS : 0;
}

/*
 * Nothing to write, commit or flush: answered at once, on the loop. O_DSYNC writes of synchronous
 * callers are followed by such.
 */
static bool is_clean(struct dio *d, struct x4_inode *i, bool datasync)
{
	jnl_tid tid;

	if (x4_window_unsettled(i) || x4_window_lost(i, false) ||
	    (!datasync && x4_times_pending(i)) || is_dirty(d, x4_inode_upper(i)))
		return false;
	return !x4_sync_tid_noted(i, datasync, &tid) ||
	       jnl_tid_durable(x4_vol_jnl(d->cfg.vol), tid);
}

void dio_fsync(struct dio *d, struct dio_sync *s)
{
	struct dio_sync_own *o = dio_sync_own(s);

	if (s->inode && is_clean(d, s->inode, s->datasync)) {
		fdio_count(CTR_dio_sync_clean);
		s->done(s, clean_error(d, s->inode, s->file));
		return;
	}
	*o = (struct dio_sync_own){ .err = 0 };
	/* Counted like a request, so that dio_drain waits for it. */
	__atomic_fetch_add(&d->cpus[0].inflight, 1, __ATOMIC_RELAXED);
	add(d, &d->sync_calls, &o->link);
}

/* The transaction that must be durable for this waiter, if any is not yet. */
static bool needs_commit(struct batch *b, struct x4_inode *i, bool datasync)
{
	jnl_tid tid;

	if (!x4_sync_tid(i, datasync, &tid) || jnl_tid_durable(x4_vol_jnl(b->d->cfg.vol), tid))
		return false;
	if (!b->need_commit || !jnl_tid_geq(b->tid, tid))
		b->tid = tid;
	b->need_commit = true;
	return true;
}

/*
 * What was appended is put into the tree; what had to be given up before is an error for all who
 * have the file open.
 */
static int settle(struct x4_inode *i)
{
	struct dio_inode *di = x4_inode_upper(i);
	int err = x4_window_settle(i), lost = x4_window_lost(i, false);

	/* Counted before it is forgotten: who asks meanwhile finds the one or the other. */
	if (lost) {
		__atomic_add_fetch(&di->errs, 1, __ATOMIC_SEQ_CST);
		(void)x4_window_lost(i, true);
	}
	return err ? err : lost;
}

static void survey_write(struct batch *b, struct dio_req *r)
{
	struct dio_own *o = dio_own(r);

	o->error = settle(r->file->inode);
	if (needs_commit(b, r->file->inode, !(r->flags & DIO_SYNC)))
		o->bits |= DIO_R_NEED_COMMIT;
	if (is_dirty(b->d, r->file->di))
		o->bits |= DIO_R_NEED_FLUSH;
	b->need_flush |= !!(o->bits & DIO_R_NEED_FLUSH);
}

static void survey_call(struct batch *b, struct dio_sync *s)
{
	struct dio_sync_own *o = dio_sync_own(s);

	if (!s->inode)
		return;
	o->err = settle(s->inode);
	o->need_commit = needs_commit(b, s->inode, s->datasync);
	o->need_flush = is_dirty(b->d, x4_inode_upper(s->inode));
	b->need_flush |= o->need_flush;
	if (!o->need_commit && !o->need_flush) {
		fdio_count(CTR_dio_sync_clean);
		if (!o->err)
			o->err = clean_error(b->d, s->inode, s->file);
	}
}

static void survey(struct batch *b)
{
	struct dio_own *o;
	struct dio_sync_own *c;

	list_for_each(o, &b->reqs, link) {
		survey_write(b, dio_req_of(o));
		b->nr++;
	}
	list_for_each(c, &b->calls, link) {
		survey_call(b, dio_sync_of(c));
		b->nr++;
	}
}

static void note_durable(struct batch *b)
{
	struct dio *d = b->d;

	fdio_mutex_lock(&d->sync_lock);
	if (d->durable_epoch < b->epoch)
		__atomic_store_n(&d->durable_epoch, b->epoch, __ATOMIC_SEQ_CST);
	fdio_mutex_unlock(&d->sync_lock);
}

static void make_durable(struct batch *b)
{
	struct dio *d = b->d;
	bool flushed = false;

	if (b->need_commit)
		b->commit_err = jnl_commit_wait(x4_vol_jnl(d->cfg.vol), b->tid, &flushed);
	if (!b->need_flush)
		return;
	if (!flushed)
		b->flush_err = dev_flush(d->cfg.dev);
	if (!b->flush_err)
		note_durable(b);
}

static int outcome(const struct batch *b, struct x4_inode *i, struct dio_file *f, bool commit,
		   bool flush, int err)
{
	/* Asked for in any case: who hears of an error now does not hear of it again. */
	int untold = untold_error(x4_inode_upper(i), f);

	if (!err && commit)
		err = b->commit_err;
	if (!err && flush)
		err = b->flush_err;
	return err ? err : untold;
}

/* syncfs hears of each failure, whoever lost by it. */
static int sync_volume(struct dio *d)
{
	int err = x4_vol_sync(d->cfg.vol);
	bool untold = grow_to(&d->errs_seen, __atomic_load_n(&d->errs, __ATOMIC_SEQ_CST));

	return !err && untold ? -EIO : err;
}

static void answer_write(struct batch *b, struct dio_req *r)
{
	struct dio_own *o = dio_own(r);

	o->error = outcome(b, r->file->inode, r->file, o->bits & DIO_R_NEED_COMMIT,
			   o->bits & DIO_R_NEED_FLUSH, o->error);
	dio_req_end(r);
}

static void answer_call(struct batch *b, struct dio_sync *s)
{
	struct dio *d = b->d;
	struct dio_sync_own *o = dio_sync_own(s);
	int err;

	if (s->inode) {
		err = outcome(b, s->inode, s->file, o->need_commit, o->need_flush, o->err);
	} else {
		if (!b->vol_asked)
			b->vol_err = sync_volume(d);
		b->vol_asked = true;
		err = b->vol_err;
	}
	s->done(s, err); /* s may be gone */
	__atomic_fetch_sub(&d->cpus[0].inflight, 1, __ATOMIC_RELEASE);
}

static void answer(struct batch *b)
{
	struct dio_own *o, *ot;
	struct dio_sync_own *c, *ct;

	list_for_each_safe(o, ot, &b->reqs, link) {
		list_del(&o->link);
		answer_write(b, dio_req_of(o));
	}
	list_for_each_safe(c, ct, &b->calls, link) {
		list_del(&c->link);
		answer_call(b, dio_sync_of(c));
	}
}

/* Takes what is there; false: nothing. y (may be NULL) is then idle again. */
static bool take(struct dio *d, struct dio_syncer *y, struct batch *b)
{
	bool any;

	*b = (struct batch){ .d = d };
	list_init(&b->reqs);
	list_init(&b->calls);
	fdio_mutex_lock(&d->sync_lock);
	list_splice_tail(&b->reqs, &d->sync_reqs);
	list_splice_tail(&b->calls, &d->sync_calls);
	any = !list_empty(&b->reqs) || !list_empty(&b->calls);
	if (y)
		y->state = any ? DIO_SYNC_RUNNING : DIO_SYNC_IDLE;
	fdio_mutex_unlock(&d->sync_lock);
	if (any) {
		b->epoch = __atomic_fetch_add(&d->epoch, 1, __ATOMIC_SEQ_CST);
		survey(b);
	}
	return any;
}

/*
 * Who asked while another transaction was being committed shares the commit that follows, which
 * cannot have begun before.
 */
static void join(struct batch *b)
{
	struct batch more;

	if (!b->need_commit)
		return;
	jnl_commit_turn(x4_vol_jnl(b->d->cfg.vol), b->tid);
	if (!take(b->d, NULL, &more))
		return;
	list_splice_tail(&b->reqs, &more.reqs);
	list_splice_tail(&b->calls, &more.calls);
	if (more.need_commit && !jnl_tid_geq(b->tid, more.tid))
		b->tid = more.tid;
	b->need_flush |= more.need_flush;
	b->epoch = more.epoch;
	b->nr += more.nr;
}

static void syncer_work(struct work *w)
{
	struct dio_syncer *y = container_of(w, struct dio_syncer, work);
	struct batch b;

	while (take(y->d, y, &b)) {
		join(&b);
		fdio_count(CTR_dio_sync_batch);
		fdio_count_add(CTR_dio_sync_waiters, b.nr);
		make_durable(&b);
		answer(&b);
	}
}
