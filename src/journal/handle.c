/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of a handle: jnl_begin reserves, jnl_end gives the changes to the running transaction. What
 * a handle changes in between, and how jnl_cancel takes it back, is in undo.c.
 *
 * Threads: the rooms above call on any thread that may block, and on loop threads in the mode of
 * nowait.h, where jnl_begin fails with -EAGAIN instead of waiting, and so does whatever meets an abort.
 * Whoever commits opens one more handle of the closing transaction, for the seal callback.
 *
 * Locks: there is one handle at a time. It is j->handle, and its owner holds handle_lock from
 * jnl_begin to jnl_end or jnl_cancel. The memory for the records of callers belongs to the journal and
 * is there from its start, so a handle that is not exceptionally large allocates nothing.
 *
 * Failure: -EROFS after an abort or on a read-only journal, -ENOSPC for more credits than a
 * transaction may hold, -ENOMEM. A failed jnl_begin has changed nothing and holds nothing.
 */
#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"
#include "journal/journal_types.h"

#include <errno.h>

/* ---- begin and end ---- */

static int take_handle_lock(struct jnl *journal)
{
	int err = fdio_mutex_enter(&journal->handle_lock);

	if (err)
		return err;
	/* The committer goes first, or a stream of handles would keep it out. */
	while (unlikely(__atomic_load_n(&journal->close_pending, __ATOMIC_RELAXED))) {
		if (nowait_on()) {
			fdio_mutex_unlock(&journal->handle_lock);
			return nowait_miss();
		}
		fdio_cond_wait(&journal->handle_cv, &journal->handle_lock);
	}
	return 0;
}

void jhandle_open(struct jnl *journal, unsigned credits)
{
	struct jnl_handle *handle = &journal->handle;

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
	handle->arena_mark = jmem_mark(&handle->transaction->kit->arena);
}

/* Ends the running transaction early, waits until another can start. handle_lock not held. */
static void wait_closed(struct jnl *journal, jnl_tid tid)
{
	fdio_mutex_lock(&journal->state_lock);
	while (journal->head_tid == tid && !jnl_err(journal)) {
		journal->commit_requested = true;
		journal->commit_request = tid;
		pthread_cond_signal(&journal->commit_cv);
		fdio_cond_wait(&journal->done_cv, &journal->state_lock);
	}
	fdio_mutex_unlock(&journal->state_lock);
}

/* JOURNAL-3: waits until the checkpoint has made room. handle_lock not held. */
static void wait_space(struct jnl *journal, uint32_t need)
{
	fdio_count(CTR_jnl_space_wait);
	fdio_mutex_lock(&journal->state_lock);
	journal->space_waiters++;
	while (__atomic_load_n(&journal->log.free, __ATOMIC_RELAXED) < need && !jnl_err(journal)) {
		pthread_cond_signal(&journal->checkpoint_cv);
		fdio_cond_wait(&journal->space_cv, &journal->state_lock);
	}
	journal->space_waiters--;
	fdio_mutex_unlock(&journal->state_lock);
}

/* handle_lock held: the running transaction, made if there is none. */
static int get_running(struct jnl *journal)
{
	struct jtxn *transaction;

	if (likely(journal->running))
		return 0;
	fdio_mutex_lock(&journal->state_lock);
	transaction = jtxn_new(journal);
	if (transaction) {
		transaction->tid = journal->head_tid;
		jtxn_set_state(transaction, JT_RUNNING);
		journal->running = transaction;
	}
	fdio_mutex_unlock(&journal->state_lock);
	return transaction ? 0 : -ENOMEM;
}

/* There is no memory for more records: the next transaction begins with what is set aside. One that is empty has that already. */
static bool close_for_room(struct jtxn *transaction)
{
	if (jtxn_empty(transaction))
		return false;
	fdio_count(CTR_jnl_mem_closed);
	return true;
}

/* handle_lock held: 1 when the handle may start; else drops the lock, waits, and 0 (try again) or an error. May not wait: -EAGAIN. */
static int try_begin(struct jnl *journal, unsigned credits)
{
	struct jtxn *transaction;
	uint32_t need;
	int err;

	err = unlikely(jnl_err(journal)) ? -EROFS : get_running(journal);
	if (unlikely(err)) {
		fdio_mutex_unlock(&journal->handle_lock);
		return err;
	}
	transaction = journal->running;
	if (transaction->nr_buffers + credits > journal->credit_limit || jtxn_revoke_blocks(journal, transaction) > journal->revoke_slack / 2 ||
	    (!jtxn_has_room(transaction) && close_for_room(transaction))) {
		jnl_tid tid = transaction->tid;

		fdio_mutex_unlock(&journal->handle_lock);
		if (nowait_on())
			return nowait_miss();
		wait_closed(journal, tid);
		return 0;
	}
	need = jlog_need(&journal->log, transaction->nr_buffers + credits + journal->seal_reserve, journal->revoke_slack);
	if (__atomic_load_n(&journal->log.free, __ATOMIC_RELAXED) < need) {
		fdio_mutex_unlock(&journal->handle_lock);
		if (nowait_on())
			return nowait_miss();
		wait_space(journal, need);
		return 0;
	}
	return 1;
}

int jnl_begin(struct jnl *journal, unsigned credits, struct jnl_handle **ret)
{
	int err;

	*ret = NULL;
	fdio_magic_check(journal, MAGIC_JOURNAL);
	if (!journal->started || jabort_error(journal))
		return -EROFS;
	if (credits > journal->credit_limit)
		return -ENOSPC;
	do {
		err = take_handle_lock(journal);
		if (!err)
			err = try_begin(journal, credits);
	} while (!err);
	if (err < 0)
		return jabort_error(journal) ? -EROFS : err;
	jhandle_open(journal, credits);
	*ret = &journal->handle;
	return 0;
}

unsigned jnl_max_credits(struct jnl *journal)
{
	return journal->credit_limit;
}

unsigned jnl_credits_left(struct jnl_handle *handle)
{
	return handle->credits;
}

jnl_tid jnl_handle_tid(struct jnl_handle *handle)
{
	return handle->transaction->tid;
}

jnl_tid jhandle_close(struct jnl *journal)
{
	struct jnl_handle *handle = &journal->handle;
	struct jtxn *transaction = handle->transaction;

	fdio_magic_clear(handle, MAGIC_JOURNAL_HANDLE);
	jundo_end(handle);
	if (handle->callbacks) {
		*transaction->callbacks_tail = handle->callbacks;
		transaction->callbacks_tail = handle->callbacks_tail;
	}
	if (!transaction->dirty_ns && !jtxn_empty(transaction))
		__atomic_store_n(&transaction->dirty_ns, fdio_now_ns(), __ATOMIC_RELAXED); /* the commit thread looks often enough */
	handle->sequence++;
	/* An empty transaction is never written, and its number serves the next change. */
	return jtxn_empty(transaction) ? transaction->tid - 1 : transaction->tid;
}

void jhandle_done(struct jnl *journal) { jmem_clear(&journal->handle.arena); }

void *jnl_handle_mem(struct jnl_handle *handle, size_t size)
{
	return jmem_alloc(&handle->arena, size);
}

void *jnl_txn_mem(struct jnl_handle *handle, size_t size)
{
	return jmem_alloc(&handle->transaction->kit->arena, size);
}

void jnl_run_callbacks(struct jnl_callback *callback, int err)
{
	struct jnl_callback *next;

	for (; callback; callback = next) {
		next = callback->next;
		callback->fn(callback, err);
	}
}

/* A deliberate mistake, see JNL_MUTATED: freed blocks are let go before their freeing is durable. */
static struct jnl_callback *take_early(struct jnl_handle *handle)
{
	struct jnl_callback *callbacks = NULL;

	if (JNL_MUTATED(JM_EARLY_REUSE)) {
		callbacks = handle->callbacks;
		handle->callbacks = NULL;
		handle->callbacks_tail = &handle->callbacks;
	}
	return callbacks;
}

jnl_tid jnl_end(struct jnl_handle *handle)
{
	struct jnl *journal = handle->journal;
	struct jnl_callback *early = take_early(handle);
	jnl_tid tid = jhandle_close(journal);
	bool full = journal->running->nr_buffers > journal->credit_limit / 4 * 3;

	FDIO_ASSERT(!nowait_missed()); /* NOWAIT-2 */
	nowait_self.done = true;
	jnl_run_callbacks(handle->undo_callbacks, 1);
	jhandle_done(journal);
	fdio_mutex_unlock(&journal->handle_lock);
	jnl_run_callbacks(early, 0);
	if (unlikely(full))
		jnl_commit_start(journal, tid);
	return tid;
}

void jnl_on_commit(struct jnl_handle *handle, struct jnl_callback *callback)
{
	callback->next = NULL;
	*handle->callbacks_tail = callback;
	handle->callbacks_tail = &callback->next;
}

void jnl_on_undo(struct jnl_handle *handle, struct jnl_callback *callback)
{
	callback->next = handle->undo_callbacks;
	handle->undo_callbacks = callback;
}
