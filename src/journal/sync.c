/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Waiting until changes are durable. Workers that sync, the checkpoint thread (a forced commit) and
 * the thread that ends the volume wait here; if no thread is committing a waiter's transaction yet,
 * the waiter commits it itself, which saves an fsync two switches of threads.
 *
 * Waiting is on done_cv under the state lock. Failure: -EIO once the journal has aborted and the
 * aborted callback has returned.
 */
#include "journal/journal_types.h"

#include <errno.h>

int journal_commit_wait(struct journal *journal, journal_tid tid, bool *ret_flushed)
{
	bool flushed = false;
	uint64_t round;
	int err = 0;

	if (ret_flushed)
		*ret_flushed = false;
	if (!journal->started)
		return journal_abort_error_told(journal) ? -EIO : 0;
	fdio_mutex_lock(&journal->state_lock);
	if (!journal_tid_geq(journal->done_tid, tid) && !journal_abort_error(journal)) {
		if (journal_tid_geq(tid, journal->head_tid))
			tid = journal->head_tid;
		round = journal->empty_started + 1;
		flushed = tid == journal->head_tid ||
			  (journal->committing && journal->committing->tid == tid &&
			   journal->committing->state == JOURNAL_TRANSACTION_WRITING);
		while (!journal_tid_geq(journal->done_tid, tid) && journal->empty_done < round &&
		       !journal_abort_error(journal)) {
			if (tid == journal->head_tid &&
			    journal->commit_state == JOURNAL_COMMIT_IDLE)
				journal_commit_now(journal);
			else
				fdio_cond_wait(&journal->done_cv, &journal->state_lock);
		}
	}
	if (journal_abort_error(journal)) {
		journal_abort_wait_told(journal);
		err = -EIO;
	}
	fdio_mutex_unlock(&journal->state_lock);
	if (ret_flushed)
		*ret_flushed = flushed && !err;
	return err;
}

int journal_sync(struct journal *journal)
{
	journal_tid tid;

	if (!journal->started)
		return journal_abort_error_told(journal) ? -EIO : 0;
	fdio_mutex_lock(&journal->state_lock);
	tid = journal->head_tid;
	fdio_mutex_unlock(&journal->state_lock);
	return journal_commit_wait(journal, tid, NULL);
}
