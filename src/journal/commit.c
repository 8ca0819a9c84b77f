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
static void set_commit_state(struct jnl *journal, enum jcommit_state next)
{
	static const uint8_t allowed[] = {
		[JC_IDLE] = 1 << JC_CLOSING,
		[JC_CLOSING] = 1 << JC_WRITING | 1 << JC_ONLY_FLUSH | 1 << JC_IDLE,
		[JC_WRITING] = 1 << JC_CALLBACKS | 1 << JC_IDLE,
		[JC_ONLY_FLUSH] = 1 << JC_IDLE,
		[JC_CALLBACKS] = 1 << JC_IDLE,
	};

	FDIO_ASSERT(allowed[journal->commit_state] & 1 << next);
	journal->commit_state = next;
}

/* State lock held: the next commit may begin. */
static void end_commit(struct jnl *journal)
{
	set_commit_state(journal, JC_IDLE);
	pthread_cond_broadcast(&journal->done_cv);
	if (journal->commit_requested || journal->stop_commit || jnl_err(journal))
		pthread_cond_signal(&journal->commit_cv);
}

/* ---- closing ---- */

/* What the seal callback may still change: limited by the log space that was reserved and the image list. */
static unsigned seal_credits(struct jnl *journal, struct jtxn *transaction)
{
	uint32_t avail = __atomic_load_n(&journal->log.free, __ATOMIC_RELAXED);
	uint32_t fixed = journal->revoke_slack + 2;

	avail = avail > fixed ? avail - fixed : 0;
	avail -= avail / (journal->log.tags_per_descriptor + 1) + 1;
	FDIO_ASSERT(avail >= transaction->nr_buffers); /* JOURNAL-3 */
	return FDIO_MIN(avail, journal->image_limit) - transaction->nr_buffers;
}

static void seal(struct jnl *journal, struct jtxn *transaction)
{
	jhandle_open(journal, seal_credits(journal, transaction));
	journal->params.seal(journal->params.arg, &journal->handle);
	jhandle_close(journal);
	jnl_run_callbacks(journal->handle.undo_callbacks, 1);
	jhandle_done(journal);
}

/* State lock held, no handle open: the transaction gets its place in the log (JOURNAL-3, JOURNAL-9). */
static void make_committing(struct jnl *journal, struct jtxn *transaction)
{
	struct jlog *log = &journal->log;

	FDIO_ASSERT(!journal->committing && transaction->tid == journal->head_tid);
	transaction->log_start = log->head;
	transaction->log_len = jlog_need(log, transaction->nr_buffers, jtxn_revoke_blocks(journal, transaction));
	FDIO_ASSERT(transaction->log_len <= log->free); /* JOURNAL-3 */
	__atomic_sub_fetch(&log->free, transaction->log_len, __ATOMIC_RELAXED);
	log->head = jlog_wrap(log, (uint64_t)log->head + transaction->log_len);
	for (unsigned i = 0; i < transaction->nr_buffers; i++) {
		struct jbuf *buffer = transaction->kit->buffers[i];

		FDIO_ASSERT(buffer->running == transaction && !buffer->committing && !buffer->frozen);
		buffer->running = NULL;
		buffer->committing = transaction;
		buffer->copied = false;
	}
	jtxn_set_state(transaction, JT_WRITING);
	set_commit_state(journal, JC_WRITING);
	journal->running = NULL;
	journal->committing = transaction;
	journal->head_tid++;
	pthread_cond_broadcast(&journal->done_cv);
}

/* The closed transaction, or NULL when there is nothing to commit. */
static struct jtxn *close_running(struct jnl *journal)
{
	struct jtxn *transaction;

	__atomic_store_n(&journal->close_pending, 1, __ATOMIC_RELAXED);
	fdio_mutex_lock(&journal->handle_lock);
	transaction = journal->running;
	if (transaction && jtxn_empty(transaction))
		__atomic_store_n(&transaction->dirty_ns, 0, __ATOMIC_RELAXED);
	if (transaction && (jtxn_empty(transaction) || jnl_err(journal)))
		transaction = NULL;
	if (transaction) {
		if (journal->params.seal)
			seal(journal, transaction);
		fdio_mutex_lock(&journal->state_lock);
		make_committing(journal, transaction);
		fdio_mutex_unlock(&journal->state_lock);
	}
	__atomic_store_n(&journal->close_pending, 0, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&journal->handle_cv);
	fdio_mutex_unlock(&journal->handle_lock);
	return transaction;
}

/* ---- afterwards ---- */

/* State lock held. JOURNAL-8: no home write of a block that this transaction frees may still be in flight. */
static void drop_forgotten(struct jnl *journal, struct jtxn *transaction)
{
	for (unsigned i = 0; i < transaction->nr_forgets; i++)
		while (transaction->kit->forgets[i]->home_write_in_flight)
			fdio_cond_wait(&journal->done_cv, &journal->state_lock);
	for (unsigned i = 0; i < transaction->nr_forgets; i++) {
		struct jbuf *buffer = transaction->kit->forgets[i];

		buffer->forget_count--;
		if (buffer->forgotten_by == transaction)
			buffer->forgotten_by = NULL;
		jcheckpoint_drop(journal, buffer);
		/* Its next life starts from the device or from zeroes, never from here. */
		if (!buffer->running && !buffer->forget_count)
			jcache_unhash(buffer);
		jbuf_put(buffer);
	}
	transaction->nr_forgets = 0;
}

/* State lock held: the images now wait to be written home. */
static void to_checkpoint(struct jnl *journal, struct jtxn *transaction)
{
	for (unsigned i = 0; i < transaction->nr_buffers; i++) {
		struct jbuf *buffer = transaction->kit->buffers[i];

		FDIO_ASSERT(buffer->committing == transaction && buffer->copied && !buffer->frozen);
		buffer->committing = NULL;
		buffer->copied = false;
		jcheckpoint_drop(journal, buffer);
		jcheckpoint_add(journal, transaction, buffer);
	}
	fdio_count_add(CTR_jnl_blocks_logged, transaction->nr_buffers);
	transaction->nr_buffers = 0;
}

static void finish(struct jnl *journal, struct jtxn *transaction)
{
	struct jnl_callback *callbacks = transaction->callbacks;
	struct jkit *kit = transaction->kit;

	fdio_count(CTR_jnl_commit);
	fdio_mutex_lock(&journal->state_lock);
	drop_forgotten(journal, transaction);
	to_checkpoint(journal, transaction);
	transaction->callbacks = NULL;
	transaction->commit_ns = fdio_now_ns();
	jtxn_set_state(transaction, JT_COMMITTED);
	set_commit_state(journal, JC_CALLBACKS);
	list_add_tail(&journal->committed, &transaction->node);
	journal->committing = NULL;
	transaction->kit = NULL;
	__atomic_store_n(&journal->durable_tid, transaction->tid, __ATOMIC_RELEASE);
	fdio_mutex_unlock(&journal->state_lock);

	/* transaction may be gone from here on: the checkpoint thread owns it. */
	jnl_run_callbacks(callbacks, 0);
	jtxn_clear_kit(kit); /* only now: the callbacks lie in its memory */
	fdio_mutex_lock(&journal->state_lock);
	jtxn_return_kit(journal, kit);
	journal->done_tid = journal->durable_tid;
	end_commit(journal);
	if (jcheckpoint_due(journal))
		pthread_cond_signal(&journal->checkpoint_cv);
	fdio_mutex_unlock(&journal->state_lock);
}

/* ---- the thread ---- */

/* Someone asked for a commit of nothing: what they are owed is the flush. */
static void empty_round(struct jnl *journal)
{
	uint64_t round;
	int err;

	fdio_count(CTR_jnl_flush_only);
	fdio_mutex_lock(&journal->state_lock);
	set_commit_state(journal, JC_ONLY_FLUSH);
	round = ++journal->empty_started;
	fdio_mutex_unlock(&journal->state_lock);
	err = dev_flush(journal->dev);
	if (err)
		jnl_abort(journal, err);
	fdio_mutex_lock(&journal->state_lock);
	journal->empty_done = round;
	end_commit(journal);
	fdio_mutex_unlock(&journal->state_lock);
}

/* False: the journal has aborted, and the commit is still to be ended. */
static bool commit_closed(struct jnl *journal)
{
	struct jtxn *transaction = close_running(journal);
	int err;

	if (jnl_err(journal))
		return false;
	if (!transaction) {
		empty_round(journal);
		return true;
	}
	jnl_test_pause();
	err = jcommit_write(journal, transaction);
	if (err) {
		jnl_abort(journal, err);
		return false;
	}
	finish(journal, transaction);
	return true;
}

void jcommit_now(struct jnl *journal)
{
	set_commit_state(journal, JC_CLOSING);
	fdio_mutex_unlock(&journal->state_lock);
	bool ended = commit_closed(journal);
	fdio_mutex_lock(&journal->state_lock);
	if (!ended)
		end_commit(journal);
}

/* After an abort: nothing that was not durable will become so. Taking handle_lock waits for the last open handle. */
static void fail_callbacks(struct jnl *journal)
{
	struct jnl_callback *callbacks[2] = { NULL, NULL };

	__atomic_store_n(&journal->close_pending, 1, __ATOMIC_RELAXED);
	fdio_mutex_lock(&journal->handle_lock);
	if (journal->committing) {
		callbacks[0] = journal->committing->callbacks;
		journal->committing->callbacks = NULL;
	}
	if (journal->running) {
		callbacks[1] = journal->running->callbacks;
		journal->running->callbacks = NULL;
		journal->running->callbacks_tail = &journal->running->callbacks;
	}
	__atomic_store_n(&journal->close_pending, 0, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&journal->handle_cv);
	fdio_mutex_unlock(&journal->handle_lock);
	jnl_run_callbacks(callbacks[0], -EIO);
	jnl_run_callbacks(callbacks[1], -EIO);
}

/*
 * State lock held: whether to commit now; else *ret_deadline says when to look again. Nobody wakes the thread for a transaction
 * that has just begun: one whole interval from now none of these is due yet.
 */
static bool commit_due(struct jnl *journal, uint64_t *ret_deadline)
{
	uint64_t dirty = journal->running ? __atomic_load_n(&journal->running->dirty_ns, __ATOMIC_RELAXED) : 0, now = fdio_now_ns();
	uint64_t interval = (uint64_t)journal->params.commit_interval_s * 1000000000ull;

	*ret_deadline = now + interval;
	if (journal->commit_state != JC_IDLE)
		return false;
	if (journal->commit_requested && !jnl_tid_geq(journal->done_tid, journal->commit_request)) {
		journal->commit_requested = false;
		return true;
	}
	journal->commit_requested = false;
	if (!dirty)
		return false;
	*ret_deadline = dirty + interval;
	return journal->stop_commit || now >= *ret_deadline;
}

void *jcommit_thread(void *arg)
{
	struct jnl *journal = arg;
	uint64_t deadline;
	bool aborted;

	fdio_magic_check(journal, MAGIC_JOURNAL);
	fdio_mutex_lock(&journal->state_lock);
	while (!jnl_err(journal)) {
		if (commit_due(journal, &deadline))
			jcommit_now(journal);
		else if (journal->stop_commit && journal->commit_state == JC_IDLE)
			break;
		else
			fdio_cond_timedwait(&journal->commit_cv, &journal->state_lock, deadline);
	}
	aborted = jnl_err(journal);
	if (aborted)
		jabort_wait_told(journal);
	while (journal->commit_state != JC_IDLE)
		fdio_cond_wait(&journal->done_cv, &journal->state_lock);
	fdio_mutex_unlock(&journal->state_lock);
	if (aborted)
		fail_callbacks(journal);
	return NULL;
}
