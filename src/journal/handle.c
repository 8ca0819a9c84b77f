/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a handle: journal_begin reserves log space, journal_end leaves the changes to the
 * running transaction, journal_cancel undoes them. undo.c has what a handle does in between.
 *
 * Threads: workers, and loop threads in the mode of base/nowait.h; there journal_begin misses with
 * -EAGAIN instead of waiting, and any call that meets an abort misses. The committing thread opens
 * one more handle of the closing transaction, for the seal callback.
 *
 * Locks: there is one handle at a time, journal->handle. Its thread holds handle_lock from
 * journal_begin to journal_end or journal_cancel. Its memory belongs to the journal and is set
 * aside at the start, so a handle that is not exceptionally large allocates nothing.
 *
 * Failure: -EROFS after an abort or on a read-only journal, -ENOSPC for more credits than a
 * transaction may hold, -ENOMEM. After a failed journal_begin no lock is held.
 */
#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"
#include "journal/journal_types.h"

#include <errno.h>

/* ---- begin and end ---- */

static int take_handle_lock(struct journal *journal)
{
	int err = fdio_mutex_enter(&journal->handle_lock);

	if (err)
		return err;
	/* A stream of handles would keep the committing thread out, so it goes first. */
	while (unlikely(__atomic_load_n(&journal->close_pending, __ATOMIC_RELAXED))) {
		if (nowait_on()) {
			fdio_mutex_unlock(&journal->handle_lock);
			return nowait_miss();
		}
		fdio_cond_wait(&journal->handle_cv, &journal->handle_lock);
	}
	return 0;
}

void journal_handle_open(struct journal *journal, unsigned credits)
{
	struct journal_handle *handle = &journal->handle;

	fdio_magic_set(handle, MAGIC_JOURNAL_HANDLE);
	handle->journal = journal;
	handle->transaction = journal->running;
	handle->sequence++;
	handle->credits = credits;
	handle->nr_undo = 0;
	handle->nr_images = 0;
	handle->callbacks = NULL;
	handle->callbacks_tail = &handle->callbacks;
	handle->undo_callbacks = NULL;
	handle->arena_mark = journal_arena_mark(&handle->transaction->kit->arena);
}

/*
 * Requests a commit of the running transaction tid and waits until it is closed. handle_lock not
 * held.
 */
static void wait_closed(struct journal *journal, journal_tid tid)
{
	fdio_mutex_lock(&journal->state_lock);
	while (journal->head_tid == tid && !journal_abort_error(journal)) {
		journal->commit_requested = true;
		journal->commit_request = tid;
		pthread_cond_signal(&journal->commit_cv);
		fdio_cond_wait(&journal->done_cv, &journal->state_lock);
	}
	fdio_mutex_unlock(&journal->state_lock);
}

/* JOURNAL-3: waits until the checkpoint thread has freed log space. handle_lock not held. */
static void wait_space(struct journal *journal, uint32_t need)
{
	fdio_count(COUNTER_journal_space_wait);
	fdio_mutex_lock(&journal->state_lock);
	journal->space_waiters++;
	while (__atomic_load_n(&journal->log.free, __ATOMIC_RELAXED) < need &&
	       !journal_abort_error(journal)) {
		pthread_cond_signal(&journal->checkpoint_cv);
		fdio_cond_wait(&journal->space_cv, &journal->state_lock);
	}
	journal->space_waiters--;
	fdio_mutex_unlock(&journal->state_lock);
}

/* handle_lock held: makes a running transaction if there is none. */
static int get_running(struct journal *journal)
{
	struct journal_transaction *transaction;

	if (likely(journal->running))
		return 0;
	fdio_mutex_lock(&journal->state_lock);
	transaction = journal_transaction_new(journal);
	if (transaction) {
		transaction->tid = journal->head_tid;
		journal_transaction_set_state(transaction, JOURNAL_TRANSACTION_RUNNING);
		journal->running = transaction;
	}
	fdio_mutex_unlock(&journal->state_lock);
	return transaction ? 0 : -ENOMEM;
}

/*
 * There is no memory for more records in this transaction. True: close it, because the next begins
 * with the memory that is set aside. Closing an empty transaction would gain nothing: it has only
 * just begun with that memory.
 */
static bool close_for_room(struct journal_transaction *transaction)
{
	if (journal_transaction_is_empty(transaction))
		return false;
	fdio_count(COUNTER_journal_mem_closed);
	return true;
}

/*
 * True: the transaction has no room for credits more blocks, for more revocations, or for records.
 */
static bool is_full(struct journal *journal, struct journal_transaction *transaction,
		    unsigned credits)
{
	unsigned revoke_blocks = journal_transaction_revoke_blocks(journal, transaction);

	return transaction->nr_buffers + credits > journal->credit_limit ||
	       revoke_blocks > journal->revoke_slack / 2 ||
	       (!journal_transaction_has_room(transaction) && close_for_room(transaction));
}

/*
 * handle_lock held. 1: the handle may start. Otherwise the lock is dropped, and the result is an
 * error, or, after a wait, 0: try again.
 */
static int try_begin(struct journal *journal, unsigned credits)
{
	struct journal_transaction *transaction;
	uint32_t need;
	int err;

	err = unlikely(journal_abort_error(journal)) ? -EROFS : get_running(journal);
	if (unlikely(err)) {
		fdio_mutex_unlock(&journal->handle_lock);
		return err;
	}
	transaction = journal->running;
	if (is_full(journal, transaction, credits)) {
		journal_tid tid = transaction->tid;

		fdio_mutex_unlock(&journal->handle_lock);
		if (nowait_on())
			return nowait_miss();
		wait_closed(journal, tid);
		return 0;
	}
	need = journal_log_blocks_needed(&journal->log,
					 transaction->nr_buffers + credits + journal->seal_reserve,
					 journal->revoke_slack);
	if (__atomic_load_n(&journal->log.free, __ATOMIC_RELAXED) < need) {
		fdio_mutex_unlock(&journal->handle_lock);
		if (nowait_on())
			return nowait_miss();
		wait_space(journal, need);
		return 0;
	}
	return 1;
}

int journal_begin(struct journal *journal, unsigned credits, struct journal_handle **ret)
{
	int err;

	*ret = NULL;
	fdio_magic_check(journal, MAGIC_JOURNAL);
	if (!journal->started || journal_abort_error_told(journal))
		return -EROFS;
	if (credits > journal->credit_limit)
		return -ENOSPC;
	do {
		err = take_handle_lock(journal);
		if (!err)
			err = try_begin(journal, credits);
	} while (!err);
	if (err < 0)
		return journal_abort_error_told(journal) ? -EROFS : err;
	journal_handle_open(journal, credits);
	*ret = &journal->handle;
	return 0;
}

unsigned journal_max_credits(struct journal *journal)
{
	return journal->credit_limit;
}

unsigned journal_credits_left(struct journal_handle *handle)
{
	return handle->credits;
}

journal_tid journal_handle_tid(struct journal_handle *handle)
{
	return handle->transaction->tid;
}

journal_tid journal_handle_close(struct journal *journal)
{
	struct journal_handle *handle = &journal->handle;
	struct journal_transaction *transaction = handle->transaction;

	fdio_magic_clear(handle, MAGIC_JOURNAL_HANDLE);
	journal_undo_end(handle);
	if (handle->callbacks) {
		*transaction->callbacks_tail = handle->callbacks;
		transaction->callbacks_tail = handle->callbacks_tail;
	}
	if (!transaction->dirty_ns && !journal_transaction_is_empty(transaction))
		/* No need to wake the commit thread: it looks once in each interval. */
		__atomic_store_n(&transaction->dirty_ns, fdio_now_ns(), __ATOMIC_RELAXED);
	handle->sequence++;
	/* An empty transaction is never written, and its number serves the next change. */
	return journal_transaction_is_empty(transaction) ? transaction->tid - 1 : transaction->tid;
}

void journal_handle_done(struct journal *journal) { journal_arena_clear(&journal->handle.arena); }

void *journal_handle_alloc(struct journal_handle *handle, size_t size)
{
	return journal_arena_alloc(&handle->arena, size);
}

void *journal_transaction_alloc(struct journal_handle *handle, size_t size)
{
	return journal_arena_alloc(&handle->transaction->kit->arena, size);
}

void journal_run_callbacks(struct journal_callback *callback, int err)
{
	struct journal_callback *next;

	for (; callback; callback = next) {
		next = callback->next;
		callback->fn(callback, err);
	}
}

/*
 * For the deliberate mistake EARLY_REUSE (mutation.h): the commit callbacks, which let freed blocks
 * be used again, run before the transaction is durable.
 */
static struct journal_callback *take_early(struct journal_handle *handle)
{
	struct journal_callback *callbacks = NULL;

	if (JOURNAL_MUTATED(JOURNAL_MUTATION_EARLY_REUSE)) {
		callbacks = handle->callbacks;
		handle->callbacks = NULL;
		handle->callbacks_tail = &handle->callbacks;
	}
	return callbacks;
}

journal_tid journal_end(struct journal_handle *handle)
{
	struct journal *journal = handle->journal;
	struct journal_callback *early = take_early(handle);
	journal_tid tid = journal_handle_close(journal);
	bool full = journal->running->nr_buffers > journal->credit_limit / 4 * 3;

	FDIO_ASSERT(!nowait_missed()); /* NOWAIT-2 */
	nowait_self.done = true;
	journal_run_callbacks(handle->undo_callbacks, 1);
	journal_handle_done(journal);
	fdio_mutex_unlock(&journal->handle_lock);
	journal_run_callbacks(early, 0);
	if (unlikely(full))
		journal_commit_start(journal, tid);
	return tid;
}

void journal_cancel(struct journal_handle *handle)
{
	struct journal *journal = handle->journal;

	fdio_magic_check(handle, MAGIC_JOURNAL_HANDLE);
	fdio_count(COUNTER_journal_rollback);
	journal_undo_all(handle);
	journal_run_callbacks(handle->undo_callbacks, 0);
	handle->callbacks = NULL;
	journal_arena_cut(&handle->transaction->kit->arena, handle->arena_mark);
	journal_handle_close(journal);
	journal_handle_done(journal);
	fdio_mutex_unlock(&journal->handle_lock);
	/*
	 * JOURNAL-10: the handle may be cancelled because journal_get_write met an abort that is
	 * still going on. Wait until the aborted callback has returned.
	 */
	if (!nowait_on())
		nowait_ignore(journal_abort_error_told(journal));
}

void journal_on_commit(struct journal_handle *handle, struct journal_callback *callback)
{
	callback->next = NULL;
	*handle->callbacks_tail = callback;
	handle->callbacks_tail = &callback->next;
}

void journal_on_undo(struct journal_handle *handle, struct journal_callback *callback)
{
	callback->next = handle->undo_callbacks;
	handle->undo_callbacks = callback;
}
