/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asking for a commit, and asking how far the commits are, without committing on this thread. Any
 * thread may ask for a commit and look at durable_tid; only journal_commit_wait_turn waits, on the
 * workers that sync.
 *
 * The state lock guards the request. The commit thread serves it: commit_cv wakes that thread, and
 * done_cv wakes journal_commit_wait_turn. After an abort no further transaction becomes durable:
 * waiting ends, and journal_commit_wait (sync.c) reports the error.
 */
#include "journal/journal_types.h"

/* State lock held. */
static void request(struct journal *journal, journal_tid tid)
{
	if (journal_tid_geq(tid, journal->head_tid))
		tid = journal->head_tid;
	if (!journal->commit_requested || journal_tid_geq(tid, journal->commit_request))
		journal->commit_request = tid;
	journal->commit_requested = true;
	pthread_cond_signal(&journal->commit_cv);
}

void journal_commit_start(struct journal *journal, journal_tid tid)
{
	if (!journal->started)
		return;
	fdio_mutex_lock(&journal->state_lock);
	if (journal_tid_geq(tid, journal->head_tid) && journal->running &&
	    __atomic_load_n(&journal->running->dirty_ns, __ATOMIC_RELAXED))
		request(journal, tid);
	fdio_mutex_unlock(&journal->state_lock);
}

void journal_commit_wait_turn(struct journal *journal, journal_tid tid)
{
	if (!journal->started)
		return;
	fdio_mutex_lock(&journal->state_lock);
	while (journal->commit_state != JOURNAL_COMMIT_IDLE &&
	       journal_tid_geq(tid, journal->head_tid) && !journal_abort_error(journal))
		fdio_cond_wait(&journal->done_cv, &journal->state_lock);
	fdio_mutex_unlock(&journal->state_lock);
}

bool journal_tid_durable(struct journal *journal, journal_tid tid)
{
	return !journal->started ||
	       journal_tid_geq(__atomic_load_n(&journal->durable_tid, __ATOMIC_ACQUIRE), tid);
}
