/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The abort: the journal's answer to an error after which nothing more may be written. Any thread
 * that meets such an error aborts, except loop threads in the mode of base/nowait.h, which miss and
 * leave it to a worker.
 *
 * journal->error is set once, by an atomic exchange. abort_told, under the state lock, says that
 * the aborted callback has returned: a thread that finds the error waits for that before it returns
 * the error, so its caller finds the volume read-only (JOURNAL-10). Cannot fail; an error that
 * cannot be recorded in the log is logged.
 */
#include "base/log.h"
#include "journal/journal_types.h"

#include <errno.h>

void journal_abort_wait_told(struct journal *journal)
{
	while (!journal->abort_told)
		fdio_cond_wait(&journal->done_cv, &journal->state_lock);
}

int journal_abort_error_told(struct journal *journal)
{
	if (likely(!journal_abort_error(journal)))
		return 0;
	if (nowait_on())
		return nowait_miss();
	fdio_mutex_lock(&journal->state_lock);
	journal_abort_wait_told(journal);
	fdio_mutex_unlock(&journal->state_lock);
	return journal_abort_error(journal);
}

int journal_error(struct journal *journal)
{
	return journal_abort_error(journal);
}

void journal_abort(struct journal *journal, int err)
{
	int none = 0;

	if (err >= 0)
		err = -EIO;
	if (!__atomic_compare_exchange_n(&journal->error, &none, err, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		return;
	if (err != -ESHUTDOWN)
		log_err("the journal has aborted (error %d); the file system is read-only from now "
			"on",
			-err);
	/* JOURNAL-10: before any waiter is woken. */
	if (journal->params.aborted)
		journal->params.aborted(journal->params.arg, err);
	fdio_mutex_lock(&journal->state_lock);
	journal->abort_told = true;
	pthread_cond_broadcast(&journal->commit_cv);
	pthread_cond_broadcast(&journal->done_cv);
	pthread_cond_broadcast(&journal->checkpoint_cv);
	pthread_cond_broadcast(&journal->space_cv);
	fdio_mutex_unlock(&journal->state_lock);
	if (err != -ESHUTDOWN)
		journal_log_write_error(journal, err);
}
