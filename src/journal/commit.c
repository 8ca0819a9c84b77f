/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commits: which transaction is written, when, and by whom. How it is written is in commit_write.c.
 *
 * Threads: the commit thread commits every few seconds, and when a commit is requested. A thread
 * that waits for a transaction commits it itself if no thread is committing it yet
 * (journal_commit_wait). Whichever it is, comments call it the committing thread. It writes one
 * transaction; requests that come meanwhile share the next one (group commit). Its state (enum
 * journal_commit_state) is changed by set_commit_state under the state lock:
 *
 *   state       event                                   next        function
 *   IDLE        a commit is requested, or it is time    CLOSING     journal_commit_now
 *   CLOSING     the running transaction has changes     WRITING     make_committing
 *   CLOSING     nothing has changed                     ONLY_FLUSH  empty_round
 *   CLOSING     the journal has aborted                 IDLE        end_commit
 *   WRITING     the commit block is durable             CALLBACKS   finish_commit
 *   WRITING     the journal aborts                      IDLE        end_commit
 *   ONLY_FLUSH  the flush has ended, well or not        IDLE        end_commit
 *   CALLBACKS   all callbacks have run                  IDLE        end_commit
 *
 * Locks: closing takes handle_lock, so no handle is open; the seal callback runs inside a last
 * handle. After that, handles run again while the transaction is written (JOURNAL-2 makes that
 * safe). The state lock is held for moments, never across I/O or a callback.
 *
 * Implements JOURNAL-8 and the ids of JOURNAL-9, and asserts JOURNAL-3. Failure: any failed write
 * or flush aborts the journal. The transaction stays in memory; its callbacks and waiters get -EIO.
 */
#include "base/counters.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

#ifdef FDIO_JOURNAL_MUTATE
enum journal_mutation journal_mutation;
bool journal_test_lazy;

void journal_test_pause(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
}
#endif

/* ---- states ---- */

/* State lock held. */
static void set_commit_state(struct journal *journal, enum journal_commit_state next)
{
	static const uint8_t allowed[] = {
		[JOURNAL_COMMIT_IDLE] = 1 << JOURNAL_COMMIT_CLOSING,
		[JOURNAL_COMMIT_CLOSING] = 1 << JOURNAL_COMMIT_WRITING |
					   1 << JOURNAL_COMMIT_ONLY_FLUSH |
					   1 << JOURNAL_COMMIT_IDLE,
		[JOURNAL_COMMIT_WRITING] = 1 << JOURNAL_COMMIT_CALLBACKS | 1 << JOURNAL_COMMIT_IDLE,
		[JOURNAL_COMMIT_ONLY_FLUSH] = 1 << JOURNAL_COMMIT_IDLE,
		[JOURNAL_COMMIT_CALLBACKS] = 1 << JOURNAL_COMMIT_IDLE,
	};

	FDIO_ASSERT(allowed[journal->commit_state] & 1 << next);
	journal->commit_state = next;
}

/* State lock held: the next commit may begin. */
static void end_commit(struct journal *journal)
{
	set_commit_state(journal, JOURNAL_COMMIT_IDLE);
	pthread_cond_broadcast(&journal->done_cv);
	if (journal->commit_requested || journal->stop_commit || journal_abort_error(journal))
		pthread_cond_signal(&journal->commit_cv);
}

/* ---- closing ---- */

/*
 * Blocks that the seal callback may change: as many as the free log space and the transaction's
 * table have room for.
 */
static unsigned seal_credits(struct journal *journal, struct journal_transaction *transaction)
{
	uint32_t avail = __atomic_load_n(&journal->log.free, __ATOMIC_RELAXED);
	uint32_t fixed = journal->revoke_slack + 2;

	avail = avail > fixed ? avail - fixed : 0;
	avail -= FDIO_MIN(avail, avail / (journal->log.tags_per_descriptor + 1) + 1);
	FDIO_ASSERT(avail >= transaction->nr_buffers); /* JOURNAL-3 */
	return FDIO_MIN(avail, journal->image_limit) - transaction->nr_buffers;
}

static void seal(struct journal *journal, struct journal_transaction *transaction)
{
	journal_handle_open(journal, seal_credits(journal, transaction));
	journal->params.seal(journal->params.arg, &journal->handle);
	journal_handle_close(journal);
	journal_run_callbacks(journal->handle.undo_callbacks, 1);
	journal_handle_done(journal);
}

/* Handle and state lock held: the transaction gets its place in the log (JOURNAL-3, JOURNAL-9). */
static void make_committing(struct journal *journal, struct journal_transaction *transaction)
{
	struct journal_log *log = &journal->log;

	FDIO_ASSERT(!journal->committing && transaction->tid == journal->head_tid);
	transaction->log_start = log->head;
	transaction->log_len = journal_log_blocks_needed(
			log, transaction->nr_buffers,
			journal_transaction_revoke_blocks(journal, transaction));
	FDIO_ASSERT(transaction->log_len <= log->free); /* JOURNAL-3 */
	__atomic_sub_fetch(&log->free, transaction->log_len, __ATOMIC_RELAXED);
	log->head = journal_log_wrap(log, (uint64_t)log->head + transaction->log_len);
	for (unsigned i = 0; i < transaction->nr_buffers; i++) {
		struct journal_cache_buffer *buffer = transaction->kit->buffers[i];

		FDIO_ASSERT(buffer->running == transaction && !buffer->committing &&
			    !buffer->frozen);
		buffer->running = NULL;
		buffer->committing = transaction;
		buffer->copied = false;
	}
	journal_transaction_set_state(transaction, JOURNAL_TRANSACTION_WRITING);
	set_commit_state(journal, JOURNAL_COMMIT_WRITING);
	journal->running = NULL;
	journal->committing = transaction;
	journal->head_tid++;
	pthread_cond_broadcast(&journal->done_cv);
}

/* Closes the running transaction and returns it; NULL: nothing has changed, or an abort. */
static struct journal_transaction *close_running(struct journal *journal)
{
	struct journal_transaction *transaction;

	__atomic_store_n(&journal->close_pending, 1, __ATOMIC_RELAXED);
	fdio_mutex_lock(&journal->handle_lock);
	transaction = journal->running;
	if (transaction && journal_transaction_is_empty(transaction))
		__atomic_store_n(&transaction->dirty_ns, 0, __ATOMIC_RELAXED);
	if (transaction &&
	    (journal_transaction_is_empty(transaction) || journal_abort_error(journal)))
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

/*
 * State lock held. JOURNAL-8: waits for home writes of the blocks that this transaction frees, and
 * takes these blocks off their checkpoint lists and out of the cache.
 */
static void drop_forgotten(struct journal *journal, struct journal_transaction *transaction)
{
	for (unsigned i = 0; i < transaction->nr_forgets; i++)
		while (transaction->kit->forgets[i]->home_write_in_flight)
			fdio_cond_wait(&journal->done_cv, &journal->state_lock);
	for (unsigned i = 0; i < transaction->nr_forgets; i++) {
		struct journal_cache_buffer *buffer = transaction->kit->forgets[i];

		buffer->forget_count--;
		if (buffer->forgotten_by == transaction)
			buffer->forgotten_by = NULL;
		journal_checkpoint_drop(journal, buffer);
		/* The block's next user reads it from the device or makes it new. */
		if (!buffer->running && !buffer->forget_count)
			journal_cache_unhash(buffer);
		journal_cache_put(buffer);
	}
	transaction->nr_forgets = 0;
}

/* State lock held: the transaction's blocks go to its checkpoint list. */
static void to_checkpoint(struct journal *journal, struct journal_transaction *transaction)
{
	for (unsigned i = 0; i < transaction->nr_buffers; i++) {
		struct journal_cache_buffer *buffer = transaction->kit->buffers[i];

		FDIO_ASSERT(buffer->committing == transaction && buffer->copied && !buffer->frozen);
		buffer->committing = NULL;
		buffer->copied = false;
		journal_checkpoint_drop(journal, buffer);
		journal_checkpoint_add(journal, transaction, buffer);
	}
	fdio_count_add(COUNTER_journal_blocks_logged, transaction->nr_buffers);
	transaction->nr_buffers = 0;
}

static void finish_commit(struct journal *journal, struct journal_transaction *transaction)
{
	struct journal_callback *callbacks = transaction->callbacks;
	struct journal_kit *kit = transaction->kit;

	fdio_count(COUNTER_journal_commit);
	fdio_mutex_lock(&journal->state_lock);
	drop_forgotten(journal, transaction);
	to_checkpoint(journal, transaction);
	transaction->callbacks = NULL;
	transaction->commit_ns = fdio_now_ns();
	journal_transaction_set_state(transaction, JOURNAL_TRANSACTION_COMMITTED);
	set_commit_state(journal, JOURNAL_COMMIT_CALLBACKS);
	list_add_tail(&journal->committed, &transaction->node);
	journal->committing = NULL;
	transaction->kit = NULL;
	__atomic_store_n(&journal->durable_tid, transaction->tid, __ATOMIC_RELEASE);
	fdio_mutex_unlock(&journal->state_lock);

	/* From here on the checkpoint thread owns transaction and may free it. */
	journal_run_callbacks(callbacks, 0);
	journal_transaction_clear_kit(kit); /* only now: its arena holds the callbacks */
	fdio_mutex_lock(&journal->state_lock);
	journal_transaction_return_kit(journal, kit);
	journal->done_tid = journal->durable_tid;
	end_commit(journal);
	if (journal_checkpoint_due(journal))
		pthread_cond_signal(&journal->checkpoint_cv);
	fdio_mutex_unlock(&journal->state_lock);
}

/* ---- the thread ---- */

/* A commit was requested and nothing has changed: its waiters still rely on a flush. */
static void empty_round(struct journal *journal)
{
	uint64_t round;
	int err;

	fdio_count(COUNTER_journal_flush_only);
	fdio_mutex_lock(&journal->state_lock);
	set_commit_state(journal, JOURNAL_COMMIT_ONLY_FLUSH);
	round = ++journal->empty_started;
	fdio_mutex_unlock(&journal->state_lock);
	err = dev_flush(journal->dev);
	if (err)
		journal_abort(journal, err);
	fdio_mutex_lock(&journal->state_lock);
	journal->empty_done = round;
	end_commit(journal);
	fdio_mutex_unlock(&journal->state_lock);
}

/* One commit. False: the journal has aborted, and the caller must call end_commit. */
static bool commit_closed(struct journal *journal)
{
	struct journal_transaction *transaction = close_running(journal);
	int err;

	if (journal_abort_error(journal))
		return false;
	if (!transaction) {
		empty_round(journal);
		return true;
	}
	journal_test_pause();
	err = journal_commit_write(journal, transaction);
	if (err) {
		journal_abort(journal, err);
		return false;
	}
	finish_commit(journal, transaction);
	return true;
}

void journal_commit_now(struct journal *journal)
{
	set_commit_state(journal, JOURNAL_COMMIT_CLOSING);
	fdio_mutex_unlock(&journal->state_lock);
	bool ended = commit_closed(journal);
	fdio_mutex_lock(&journal->state_lock);
	if (!ended)
		end_commit(journal);
}

/*
 * After an abort: the callbacks of transactions that are not durable hear of the error. Taking
 * handle_lock waits for the last open handle.
 */
static void fail_callbacks(struct journal *journal)
{
	struct journal_callback *callbacks[2] = { NULL, NULL };

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
	journal_run_callbacks(callbacks[0], -EIO);
	journal_run_callbacks(callbacks[1], -EIO);
}

/*
 * State lock held. True: commit now. False: sleep until *ret_deadline at most. A transaction that
 * begins while the thread sleeps does not wake it, so the sleep is one interval, and no such
 * transaction is due before it ends.
 */
static bool commit_due(struct journal *journal, uint64_t *ret_deadline)
{
	uint64_t interval = (uint64_t)journal->params.commit_interval_s * 1000000000ull;
	uint64_t dirty = 0, now = fdio_now_ns();

	if (journal->running)
		dirty = __atomic_load_n(&journal->running->dirty_ns, __ATOMIC_RELAXED);
	*ret_deadline = now + interval;
	if (journal->commit_state != JOURNAL_COMMIT_IDLE)
		return false;
	if (journal->commit_requested &&
	    !journal_tid_geq(journal->done_tid, journal->commit_request)) {
		journal->commit_requested = false;
		return true;
	}
	journal->commit_requested = false;
	if (!dirty)
		return false;
	*ret_deadline = dirty + interval;
	return journal->stop_commit || now >= *ret_deadline;
}

void *journal_commit_thread(void *arg)
{
	struct journal *journal = arg;
	uint64_t deadline;
	bool aborted;

	fdio_magic_check(journal, MAGIC_JOURNAL);
	fdio_mutex_lock(&journal->state_lock);
	while (!journal_abort_error(journal)) {
		if (commit_due(journal, &deadline))
			journal_commit_now(journal);
		else if (journal->stop_commit && journal->commit_state == JOURNAL_COMMIT_IDLE)
			break;
		else
			fdio_cond_timedwait(&journal->commit_cv, &journal->state_lock, deadline);
	}
	aborted = journal_abort_error(journal);
	if (aborted)
		journal_abort_wait_told(journal);
	while (journal->commit_state != JOURNAL_COMMIT_IDLE)
		fdio_cond_wait(&journal->done_cv, &journal->state_lock);
	fdio_mutex_unlock(&journal->state_lock);
	if (aborted)
		fail_callbacks(journal);
	return NULL;
}
