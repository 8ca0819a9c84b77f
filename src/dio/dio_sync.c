/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The sync queue: fsync, fdatasync, syncfs and the end of O_SYNC/O_DSYNC writes. A batch is the whole list as
 * it stands when a syncer takes it: one commit for the newest transaction that any of its waiters needs, or
 * one flush if none needs a commit, then everybody is answered. Waiters that come meanwhile form the next
 * batch. Up to DIO_NR_SYNC batches are at work at once (the device's flush sequencer joins their flushes).
 *
 * What needs a flush. d->epoch counts batches. A write that completed raises its inode's dirty_epoch to the
 * current epoch before it is answered. A batch takes its epoch (and moves it on) before it flushes: every
 * write noted up to that epoch completed before the flush was sent. So an inode with dirty_epoch <=
 * durable_epoch needs none.
 *
 * A flush that fails, the queue's or the journal's, is told to every waiter of the batch that needed it, and once to any
 * other inode that had unflushed writes at that time, when it is next synced: a later flush that succeeds says nothing about
 * them. Failures are noticed before durable_epoch moves on, and looked for once more after a batch's own flush.
 *
 * Lock: sync_lock for the lists and the states of the syncers; nothing is called under it.
 */
#include "dio/dio_types.h"

#include <errno.h>

struct batch {
	struct dio *d;
	struct list reqs, calls;
	uint64_t epoch;
	bool need_commit, need_flush;
	jnl_tid tid;
	int commit_err, flush_err;
	unsigned nr;
};

static void syncer_work(struct work *w);

void dio_sync_init(struct dio *d)
{
	fdio_mutex_init(&d->sync_lock, RANK_LEAF);
	list_init(&d->sync_reqs);
	list_init(&d->sync_calls);
	d->epoch = 1;
	for (unsigned k = 0; k < DIO_NR_SYNC; k++)
		d->syncer[k].d = d;
}

/* Something was added. One syncer waiting to run is enough; it takes whatever is there by then. sync_lock held. */
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

void dio_sync_req(struct dio_req *r) { add(r->dio, &r->dio->sync_reqs, &r->link); }

static bool is_dirty(struct dio *d, struct dio_inode *di)
{
	return di && __atomic_load_n(&di->dirty_epoch, __ATOMIC_SEQ_CST) > __atomic_load_n(&d->durable_epoch, __ATOMIC_SEQ_CST);
}

/* sync_lock held. */
static void notice_failures(struct dio *d)
{
	uint32_t n = dev_flush_failures(d->cfg.dev);

	if (n != d->flush_err_seq && !d->flush_err_seq)
		d->flush_err_durable = d->durable_epoch;
	d->flush_err_seq = n;
}

/* A flush failed while di had unflushed writes, and nobody has told it yet. */
static int missed_error(struct dio *d, struct dio_inode *di)
{
	int err = 0;

	if (!di)
		return 0;
	fdio_mutex_lock(&d->sync_lock);
	notice_failures(d);
	if (di->err_seq != d->flush_err_seq) {
		di->err_seq = d->flush_err_seq;
		if (__atomic_load_n(&di->dirty_epoch, __ATOMIC_SEQ_CST) > d->flush_err_durable)
			err = -EIO;
	}
	fdio_mutex_unlock(&d->sync_lock);
	return err;
}

/* What a file hears that lost nothing itself, where nothing can become durable any more: as the kernel's ext4. */
static int clean_error(struct dio *d, struct x4_inode *i)
{
	int err = missed_error(d, x4_inode_upper(i));

	return err ? err : jnl_error(x4_vol_jnl(d->cfg.vol)) ? -EROFS : 0;
}

/*
 * Nothing to write, commit or flush: answered at once, on the loop. O_DSYNC writes of synchronous callers are followed by
 * such.
 */
static bool is_clean(struct dio *d, struct x4_inode *i, bool datasync)
{
	jnl_tid tid;

	if (x4_window_unsettled(i) || x4_window_lost(i, false) || (!datasync && x4_times_pending(i)) ||
	    is_dirty(d, x4_inode_upper(i)))
		return false;
	return !x4_sync_tid_noted(i, datasync, &tid) || jnl_tid_durable(x4_vol_jnl(d->cfg.vol), tid);
}

void dio_fsync(struct dio *d, struct dio_sync *s)
{
	if (s->inode && is_clean(d, s->inode, s->datasync)) {
		fdio_count(CTR_dio_sync_clean);
		s->done(s, clean_error(d, s->inode));
		return;
	}
	s->need_commit = s->need_flush = false;
	s->err = 0;
	/* Counted like a request, so that dio_drain waits for it. */
	__atomic_fetch_add(&d->cpus[0].inflight, 1, __ATOMIC_RELAXED);
	add(d, &d->sync_calls, &s->link);
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

static void survey(struct batch *b)
{
	struct dio *d = b->d;
	struct dio_req *r;
	struct dio_sync *s;

	list_for_each(r, &b->reqs, link) {
		r->error = x4_window_settle(r->file->inode);
		if (needs_commit(b, r->file->inode, !(r->flags & DIO_SYNC)))
			r->state |= DIO_R_NEED_COMMIT;
		if (is_dirty(d, r->file->di))
			r->state |= DIO_R_NEED_FLUSH;
		b->need_flush |= !!(r->state & DIO_R_NEED_FLUSH);
		b->nr++;
	}
	list_for_each(s, &b->calls, link) {
		b->nr++;
		if (!s->inode)
			continue;
		struct dio_inode *di = x4_inode_upper(s->inode);
		s->err = x4_window_settle(s->inode);
		if (!s->err)
			s->err = x4_window_lost(s->inode, true);
		s->need_commit = needs_commit(b, s->inode, s->datasync);
		s->need_flush = is_dirty(d, di);
		b->need_flush |= s->need_flush;
		if (!s->need_commit && !s->need_flush) {
			fdio_count(CTR_dio_sync_clean);
			if (!s->err)
				s->err = clean_error(d, s->inode);
		}
	}
}

static void note_durable(struct batch *b)
{
	struct dio *d = b->d;

	fdio_mutex_lock(&d->sync_lock);
	notice_failures(d);
	if (d->durable_epoch < b->epoch)
		__atomic_store_n(&d->durable_epoch, b->epoch, __ATOMIC_SEQ_CST);
	fdio_mutex_unlock(&d->sync_lock);
}

/* The waiters in the batch learn of the error now; the others when they ask. */
static void note_flush_error(struct batch *b)
{
	struct dio *d = b->d;
	struct dio_req *r;
	struct dio_sync *s;

	fdio_mutex_lock(&d->sync_lock);
	notice_failures(d);
	list_for_each(r, &b->reqs, link)
		if (r->state & DIO_R_NEED_FLUSH)
			r->file->di->err_seq = d->flush_err_seq;
	list_for_each(s, &b->calls, link)
		if (s->inode && s->need_flush)
			((struct dio_inode *)x4_inode_upper(s->inode))->err_seq = d->flush_err_seq;
	fdio_mutex_unlock(&d->sync_lock);
}

static void make_durable(struct batch *b)
{
	struct dio *d = b->d;
	bool flushed = false;

	if (b->need_commit)
		b->commit_err = jnl_commit_wait(x4_vol_jnl(d->cfg.vol), b->tid, &flushed);
	if (b->commit_err)
		flushed = false;
	if (!b->need_flush)
		return;
	if (!flushed)
		b->flush_err = dev_flush(d->cfg.dev);
	if (b->flush_err)
		note_flush_error(b);
	else
		note_durable(b);
}

static int outcome(const struct batch *b, struct dio_inode *di, bool commit, bool flush, int err)
{
	if (!err && commit)
		err = b->commit_err;
	if (!err && flush)
		err = b->flush_err;
	return err ? err : missed_error(b->d, di);
}

static void answer(struct batch *b)
{
	struct dio *d = b->d;
	struct dio_req *r, *rt;
	struct dio_sync *s, *st;
	int vol_err = 1; /* not asked yet */

	list_for_each_safe(r, rt, &b->reqs, link) {
		list_del(&r->link);
		r->error = outcome(b, r->file->di, r->state & DIO_R_NEED_COMMIT, r->state & DIO_R_NEED_FLUSH, r->error);
		dio_req_end(r);
	}
	list_for_each_safe(s, st, &b->calls, link) {
		list_del(&s->link);
		if (!s->inode && vol_err == 1)
			vol_err = x4_vol_sync(d->cfg.vol);
		s->done(s, s->inode ? outcome(b, x4_inode_upper(s->inode), s->need_commit, s->need_flush, s->err) : vol_err);
		__atomic_fetch_sub(&d->cpus[0].inflight, 1, __ATOMIC_RELEASE);
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

/* Who asked while another transaction was being committed shares the commit that follows, which cannot have begun before. */
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
