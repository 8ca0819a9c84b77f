/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commits: which transaction is written, when, and by whom. How it is written is in commit_write.c.
 *
 * Threads: the commit thread commits every few seconds, and for those who do not wait. A thread that
 * waits for a transaction which nobody commits yet does it itself (jnl_commit_wait), which saves two
 * changes of thread an fsync. One transaction is written at a time, and all who ask meanwhile share the
 * next (group commit). What the one who commits is at (enum jcommit_state), changed by set_commit_state
 * under the state lock:
 *
 *   state       event                                     next        function
 *   IDLE        somebody asks, or the interval is over    CLOSING     jcommit_now
 *   CLOSING     the running transaction has changes       WRITING     make_committing
 *   CLOSING     nothing has changed                       ONLY_FLUSH  empty_round
 *   CLOSING     the journal has aborted                   IDLE        jcommit_now, end_commit
 *   WRITING     the commit block is durable               CALLBACKS   finish
 *   WRITING     the journal aborts                        IDLE        jcommit_now, end_commit
 *   ONLY_FLUSH  the flush has ended, well or not          IDLE        empty_round, end_commit
 *   CALLBACKS   all callbacks have run                    IDLE        finish, end_commit
 *
 * Locks: closing takes handle_lock, so no handle is open; the seal callback runs inside a last handle.
 * From then on handles run again beside the writing (JOURNAL-2 makes that safe). The state lock is held
 * for moments, never across I/O or a callback.
 *
 * Implements JOURNAL-8 and JOURNAL-9. Failure: any failed write or flush aborts the journal; the
 * transaction stays in memory, its callbacks and waiters get -EIO.
 */
#include "base/counters.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

#ifdef FDIO_JNL_MUTATE
enum jnl_mutation jnl_mutation;
bool jnl_test_lazy;

void jnl_test_pause(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}
#endif

/* ---- states ---- */

/* State lock held. */
static void set_commit_state(struct jnl *j, enum jcommit_state next)
{
	static const uint8_t allowed[] = {
		[JC_IDLE] = 1 << JC_CLOSING,
		[JC_CLOSING] = 1 << JC_WRITING | 1 << JC_ONLY_FLUSH | 1 << JC_IDLE,
		[JC_WRITING] = 1 << JC_CALLBACKS | 1 << JC_IDLE,
		[JC_ONLY_FLUSH] = 1 << JC_IDLE,
		[JC_CALLBACKS] = 1 << JC_IDLE,
	};

	FDIO_ASSERT(allowed[j->commit_state] & 1 << next);
	j->commit_state = next;
}

/* State lock held: the next commit may begin. */
static void end_commit(struct jnl *j)
{
	set_commit_state(j, JC_IDLE);
	pthread_cond_broadcast(&j->done_cv);
	if (j->commit_requested || j->stop_commit || jnl_err(j))
		pthread_cond_signal(&j->commit_cv);
}

/* ---- closing ---- */

/* What the seal callback may still change: limited by the log space that was reserved and the image list. */
static unsigned seal_credits(struct jnl *j, struct jtxn *t)
{
	uint32_t avail = __atomic_load_n(&j->log.free, __ATOMIC_RELAXED);
	uint32_t fixed = j->revoke_slack + 2;

	avail = avail > fixed ? avail - fixed : 0;
	avail -= avail / (j->log.tags_per_desc + 1) + 1;
	FDIO_ASSERT(avail >= t->nr); /* JOURNAL-3 */
	return FDIO_MIN(avail, j->limit) - t->nr;
}

static void seal(struct jnl *j, struct jtxn *t)
{
	jhandle_open(j, seal_credits(j, t));
	j->p.seal(j->p.arg, &j->handle);
	jhandle_close(j);
	jnl_run_callbacks(j->handle.undo_cbs, 1);
	jhandle_done(j);
}

/* State lock held, no handle open: the transaction gets its place in the log (JOURNAL-3, JOURNAL-9). */
static void make_committing(struct jnl *j, struct jtxn *t)
{
	struct jlog *l = &j->log;

	FDIO_ASSERT(!j->committing && t->tid == j->head_tid);
	t->log_start = l->head;
	t->log_len = jlog_need(l, t->nr, jtxn_revoke_blocks(j, t));
	FDIO_ASSERT(t->log_len <= l->free); /* JOURNAL-3 */
	__atomic_sub_fetch(&l->free, t->log_len, __ATOMIC_RELAXED);
	l->head = jlog_wrap(l, (uint64_t)l->head + t->log_len);
	for (unsigned i = 0; i < t->nr; i++) {
		struct jbuf *b = t->kit->bufs[i];

		FDIO_ASSERT(b->txn == t && !b->committing && !b->frozen);
		b->txn = NULL;
		b->committing = t;
		b->copied = false;
	}
	jtxn_set_state(t, JT_WRITING);
	set_commit_state(j, JC_WRITING);
	j->running = NULL;
	j->committing = t;
	j->head_tid++;
	pthread_cond_broadcast(&j->done_cv);
}

/* The closed transaction, or NULL when there is nothing to commit. */
static struct jtxn *close_running(struct jnl *j)
{
	struct jtxn *t;

	__atomic_store_n(&j->close_pending, 1, __ATOMIC_RELAXED);
	fdio_mutex_lock(&j->handle_lock);
	t = j->running;
	if (t && jtxn_empty(t))
		__atomic_store_n(&t->dirty_ns, 0, __ATOMIC_RELAXED);
	if (t && (jtxn_empty(t) || jnl_err(j)))
		t = NULL;
	if (t) {
		if (j->p.seal)
			seal(j, t);
		fdio_mutex_lock(&j->state);
		make_committing(j, t);
		fdio_mutex_unlock(&j->state);
	}
	__atomic_store_n(&j->close_pending, 0, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&j->handle_cv);
	fdio_mutex_unlock(&j->handle_lock);
	return t;
}

/* ---- afterwards ---- */

/* State lock held. JOURNAL-8: no home write of a block that this transaction frees may still be in flight. */
static void drop_forgotten(struct jnl *j, struct jtxn *t)
{
	for (unsigned i = 0; i < t->nr_forgets; i++)
		while (t->kit->forgets[i]->cp_writing)
			fdio_cond_wait(&j->done_cv, &j->state);
	for (unsigned i = 0; i < t->nr_forgets; i++) {
		struct jbuf *b = t->kit->forgets[i];

		b->forget_cnt--;
		if (b->forget_txn == t)
			b->forget_txn = NULL;
		jcheckpoint_drop(j, b);
		/* Its next life starts from the device or from zeroes, never from here. */
		if (!b->txn && !b->forget_cnt)
			jcache_unhash(b);
		jbuf_put(b);
	}
	t->nr_forgets = 0;
}

/* State lock held: the images now wait to be written home. */
static void to_checkpoint(struct jnl *j, struct jtxn *t)
{
	for (unsigned i = 0; i < t->nr; i++) {
		struct jbuf *b = t->kit->bufs[i];

		FDIO_ASSERT(b->committing == t && b->copied && !b->frozen);
		b->committing = NULL;
		b->copied = false;
		jcheckpoint_drop(j, b);
		jcheckpoint_add(j, t, b);
	}
	fdio_count_add(CTR_jnl_blocks_logged, t->nr);
	t->nr = 0;
}

static void finish(struct jnl *j, struct jtxn *t)
{
	struct jnl_callback *cbs = t->cbs;
	struct jkit *kit = t->kit;

	fdio_count(CTR_jnl_commit);
	fdio_mutex_lock(&j->state);
	drop_forgotten(j, t);
	to_checkpoint(j, t);
	t->cbs = NULL;
	t->commit_ns = fdio_now_ns();
	jtxn_set_state(t, JT_COMMITTED);
	set_commit_state(j, JC_CALLBACKS);
	list_add_tail(&j->committed, &t->node);
	j->committing = NULL;
	t->kit = NULL;
	__atomic_store_n(&j->durable_tid, t->tid, __ATOMIC_RELEASE);
	fdio_mutex_unlock(&j->state);

	/* t may be gone from here on: the checkpoint thread owns it. */
	jnl_run_callbacks(cbs, 0);
	jtxn_clear_kit(kit); /* only now: the callbacks lie in its memory */
	fdio_mutex_lock(&j->state);
	jtxn_return_kit(j, kit);
	j->done_tid = j->durable_tid;
	end_commit(j);
	if (jcheckpoint_due(j))
		pthread_cond_signal(&j->cp_cv);
	fdio_mutex_unlock(&j->state);
}

/* ---- the thread ---- */

/* Someone asked for a commit of nothing: what they are owed is the flush. */
static void empty_round(struct jnl *j)
{
	uint64_t round;
	int r;

	fdio_count(CTR_jnl_flush_only);
	fdio_mutex_lock(&j->state);
	set_commit_state(j, JC_ONLY_FLUSH);
	round = ++j->empty_started;
	fdio_mutex_unlock(&j->state);
	r = dev_flush(j->dev);
	if (r)
		jnl_abort(j, r);
	fdio_mutex_lock(&j->state);
	j->empty_done = round;
	end_commit(j);
	fdio_mutex_unlock(&j->state);
}

/* False: the journal has aborted, and the commit is still to be ended. */
static bool commit_closed(struct jnl *j)
{
	struct jtxn *t = close_running(j);
	int r;

	if (jnl_err(j))
		return false;
	if (!t) {
		empty_round(j);
		return true;
	}
	jnl_test_pause();
	r = jcommit_write(j, t);
	if (r) {
		jnl_abort(j, r);
		return false;
	}
	finish(j, t);
	return true;
}

void jcommit_now(struct jnl *j)
{
	set_commit_state(j, JC_CLOSING);
	fdio_mutex_unlock(&j->state);
	bool ended = commit_closed(j);
	fdio_mutex_lock(&j->state);
	if (!ended)
		end_commit(j);
}

/* After an abort: nothing that was not durable will become so. Taking handle_lock waits for the last open handle. */
static void fail_callbacks(struct jnl *j)
{
	struct jnl_callback *cbs[2] = { NULL, NULL };

	__atomic_store_n(&j->close_pending, 1, __ATOMIC_RELAXED);
	fdio_mutex_lock(&j->handle_lock);
	if (j->committing) {
		cbs[0] = j->committing->cbs;
		j->committing->cbs = NULL;
	}
	if (j->running) {
		cbs[1] = j->running->cbs;
		j->running->cbs = NULL;
		j->running->cbs_tail = &j->running->cbs;
	}
	__atomic_store_n(&j->close_pending, 0, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&j->handle_cv);
	fdio_mutex_unlock(&j->handle_lock);
	jnl_run_callbacks(cbs[0], -EIO);
	jnl_run_callbacks(cbs[1], -EIO);
}

/*
 * State lock held: whether to commit now; else *ret_deadline says when to look again. Nobody wakes the thread for a transaction
 * that has just begun: one whole interval from now none of these is due yet.
 */
static bool commit_due(struct jnl *j, uint64_t *ret_deadline)
{
	uint64_t dirty = j->running ? __atomic_load_n(&j->running->dirty_ns, __ATOMIC_RELAXED) : 0, now = fdio_now_ns();
	uint64_t interval = (uint64_t)j->p.commit_interval_s * 1000000000ull;

	*ret_deadline = now + interval;
	if (j->commit_state != JC_IDLE)
		return false;
	if (j->commit_requested && !jnl_tid_geq(j->done_tid, j->commit_request)) {
		j->commit_requested = false;
		return true;
	}
	j->commit_requested = false;
	if (!dirty)
		return false;
	*ret_deadline = dirty + interval;
	return j->stop_commit || now >= *ret_deadline;
}

void *jcommit_thread(void *arg)
{
	struct jnl *j = arg;
	uint64_t deadline;
	bool aborted;

	fdio_magic_check(j, MAGIC_JOURNAL);
	fdio_mutex_lock(&j->state);
	while (!jnl_err(j)) {
		if (commit_due(j, &deadline))
			jcommit_now(j);
		else if (j->stop_commit && j->commit_state == JC_IDLE)
			break;
		else
			fdio_cond_timedwait(&j->commit_cv, &j->state, deadline);
	}
	aborted = jnl_err(j);
	if (aborted)
		jabort_wait_told(j);
	while (j->commit_state != JC_IDLE)
		fdio_cond_wait(&j->done_cv, &j->state);
	fdio_mutex_unlock(&j->state);
	if (aborted)
		fail_callbacks(j);
	return NULL;
}
