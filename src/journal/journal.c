/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of the journal: open, start, stop, close. The volume calls these on one thread that may
 * block: the main thread opens, starts and closes, the control thread stops.
 *
 * While one of them runs, no handle is open and no thread waits, so most fields need no lock; the
 * state lock is taken for the fields that the commit thread and the checkpoint thread read.
 * Implements the jump of JOURNAL-9, and JOURNAL-11.
 *
 * Failure: journal_open says why in reason and leaves nothing behind. After a failed journal_start
 * the journal serves reads until journal_close. A failure in journal_stop aborts the journal.
 */
#include "base/thread.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>

enum {
	DEFAULT_COMMIT_SECONDS = 5,
	LIMIT_MAX = 16384,
	BUFFERS_PER_CHUNK = 256,
	TRANSACTIONS_PER_CHUNK = 64
};

/* ---- open and close ---- */

static int check_params(const struct journal_params *params, struct fdio_reason *reason)
{
	const char *why = NULL;
	int err = -EINVAL;

	if (params->block_size < 1024 || params->block_size > 65536 ||
	    (params->block_size & (params->block_size - 1)))
		why = "block size is not a power of two from 1024 to 65536";
	else if (params->nr_blocks > INT64_MAX / params->block_size)
		why = "impossible number of blocks";
	else if (!params->nr_log && !params->read_only)
		why = "a file system without a journal can only be served read-only", err = -EROFS;
	else if (!params->read_only && params->block_size % params->dev->caps.sector_bytes)
		why = "the file system's blocks are smaller than the device's sectors; only a "
		      "read-only mount is possible";
	if (!why)
		return 0;
	fdio_reason_set(reason, "%s", why);
	return err;
}

static void init_locks(struct journal *journal)
{
	fdio_mutex_init(&journal->handle_lock, RANK_JOURNAL_HANDLE);
	fdio_cond_init(&journal->handle_cv);
	fdio_mutex_init(&journal->state_lock, RANK_JOURNAL_STATE);
	fdio_cond_init(&journal->commit_cv);
	fdio_cond_init(&journal->done_cv);
	fdio_cond_init(&journal->checkpoint_cv);
	fdio_cond_init(&journal->space_cv);
	fdio_mutex_init(&journal->log.superblock_lock, RANK_JOURNAL_INNER);
	list_init(&journal->committed);
}

int journal_open(const struct journal_params *params, struct journal **ret,
		 struct fdio_reason *reason)
{
	struct journal *journal;
	int err;

	*ret = NULL;
	err = check_params(params, reason);
	if (err)
		return err;
	journal = fdio_alloc_aligned(FDIO_CACHELINE, sizeof(*journal));
	if (!journal) {
		fdio_reason_set(reason, "out of memory");
		return -ENOMEM;
	}
	fdio_magic_set(journal, MAGIC_JOURNAL);
	journal->params = *params;
	journal->dev = params->dev;
	journal->block_size = params->block_size;
	if (!journal->params.commit_interval_s)
		journal->params.commit_interval_s = DEFAULT_COMMIT_SECONDS;
	init_locks(journal);
	journal_slab_init(&journal->buffer_slab, sizeof(struct journal_cache_buffer), 16,
			  BUFFERS_PER_CHUNK);
	journal_slab_init(&journal->transaction_slab, sizeof(struct journal_transaction),
			  alignof(struct journal_transaction), TRANSACTIONS_PER_CHUNK);
	journal_slab_init(&journal->data_slab, journal->block_size,
			  FDIO_MIN(journal->block_size, 4096u),
			  FDIO_MAX((1u << 20) / journal->block_size, 16u));
	err = journal_cache_init(journal);
	if (err)
		fdio_reason_set(reason, "out of memory");
	else if (params->nr_log)
		err = journal_log_open(journal, reason);
	journal->params.log = NULL; /* the caller's array, which is copied by now */
	if (err) {
		journal_close(journal);
		return err;
	}
	*ret = journal;
	return 0;
}

void journal_close(struct journal *journal)
{
	FDIO_ASSERT(!journal->started);
	fdio_magic_clear(journal, MAGIC_JOURNAL);
	journal_transaction_fini_kits(journal);
	journal_checkpoint_fini(journal);
	journal_undo_fini(journal);
	journal_log_close(journal);
	journal_cache_fini(journal);
	/* Transactions, buffers and images, in use or not, live in the slabs. */
	journal_slab_fini(&journal->transaction_slab);
	journal_slab_fini(&journal->buffer_slab);
	journal_slab_fini(&journal->data_slab);
	pthread_cond_destroy(&journal->handle_cv);
	pthread_cond_destroy(&journal->commit_cv);
	pthread_cond_destroy(&journal->done_cv);
	pthread_cond_destroy(&journal->checkpoint_cv);
	pthread_cond_destroy(&journal->space_cv);
	fdio_mutex_fini(&journal->handle_lock);
	fdio_mutex_fini(&journal->state_lock);
	free(journal);
}

/* ---- start and stop ---- */

/*
 * JOURNAL-9: no block left over from earlier can carry an id that this mount will use. Never 0,
 * which callers use for "none".
 */
static uint32_t first_tid(uint32_t sequence, uint32_t maxlen)
{
	uint32_t tid = sequence + maxlen;

	if (tid < sequence || tid > UINT32_MAX - (1u << 28))
		tid = 1;
	return tid;
}

static void set_limits(struct journal *journal)
{
	journal->image_limit = FDIO_MIN(journal->log.len / 4, (unsigned)LIMIT_MAX);
	/*
	 * With a large file system and a small log, each bitmap that a handle changes may make seal
	 * change one more block, of group descriptors: up to half of the images.
	 */
	journal->seal_reserve =
			FDIO_MIN((journal->image_limit + 1) / 2, journal->params.seal_blocks);
	journal->seal_reserve = FDIO_MAX(journal->seal_reserve, journal->image_limit / 4);
	journal->seal_reserve = FDIO_MAX(journal->seal_reserve, 8u);
	journal->credit_limit = journal->image_limit - journal->seal_reserve;
	journal->revoke_slack = FDIO_MAX(journal->image_limit / 8, 2u);
	FDIO_ASSERT(journal_log_blocks_needed(&journal->log, journal->image_limit,
					      journal->revoke_slack) < journal->log.len / 2);
}

/*
 * Prepares the empty log for this writer: sets the features, starts at the first block, jumps the
 * id.
 */
static int reset_log(struct journal *journal)
{
	struct journal_log *log = &journal->log;
	uint32_t tid = first_tid(fdio_get_be32(log->superblock, JOURNAL_SB_SEQUENCE), log->end);
	int err;

	log->incompat = JOURNAL_INCOMPAT_REVOKE |
			(journal->params.has_64bit ? JOURNAL_INCOMPAT_64BIT : 0) |
			(journal->params.metadata_csum ? JOURNAL_INCOMPAT_CSUM_V3 : 0);
	journal_log_set_format(journal);
	fdio_mutex_lock(&log->superblock_lock);
	fdio_put_be32(log->superblock, JOURNAL_SB_COMPAT,
		      fdio_get_be32(log->superblock, JOURNAL_SB_COMPAT) &
				      ~(uint32_t)JOURNAL_COMPAT_CHECKSUM);
	fdio_put_be32(log->superblock, JOURNAL_SB_INCOMPAT, log->incompat);
	fdio_put_be32(log->superblock, JOURNAL_SB_ERRNO, 0);
	log->superblock[JOURNAL_SB_CHECKSUM_TYPE] =
			journal->params.metadata_csum ? JOURNAL_CHECKSUM_CRC32C : 0;
	if (!journal->params.metadata_csum)
		fdio_put_be32(log->superblock, JOURNAL_SB_CHECKSUM, 0);
	fdio_mutex_unlock(&log->superblock_lock);
	err = journal_log_write_superblock(journal, tid, 0, DEV_FUA);
	log->head = log->first;
	log->free = log->len - 1;
	log->active = false;
	journal->head_tid = tid;
	journal->durable_tid = journal->done_tid = tid - 1;
	return err;
}

static int start_threads(struct journal *journal)
{
	int err;

	journal->stop_commit = journal->stop_checkpoint = false;
	err = thread_start(&journal->commit_thread, "journal-commit", journal_commit_thread,
			   journal);
	if (err)
		return err;
	err = thread_start(&journal->checkpoint_thread, "checkpoint", journal_checkpoint_thread,
			   journal);
	if (err) {
		fdio_mutex_lock(&journal->state_lock);
		journal->stop_commit = true;
		pthread_cond_signal(&journal->commit_cv);
		fdio_mutex_unlock(&journal->state_lock);
		pthread_join(journal->commit_thread, NULL);
		return err;
	}
	return 0;
}

int journal_start(struct journal *journal)
{
	int err;

	FDIO_ASSERT(!journal->started);
	if (journal->params.read_only || !journal->log.superblock)
		return -EROFS;
	if (journal_needs_replay(journal))
		return -EUCLEAN;
	/* The log is empty, so the area of fast commits becomes part of it. */
	if (!journal_log_set_end(journal))
		return -EUCLEAN;
	set_limits(journal);
	err = journal_checkpoint_init(journal);
	if (err)
		return err;
	err = journal_cache_reserve(journal);
	if (!err)
		err = journal_transaction_init_kits(journal);
	if (!err)
		err = journal_undo_init(journal);
	if (err)
		return err;
	err = reset_log(journal);
	if (!err)
		err = start_threads(journal);
	journal->started = !err;
	return err;
}

static void stop_thread(struct journal *journal, bool *flag, pthread_cond_t *cv, pthread_t thread)
{
	fdio_mutex_lock(&journal->state_lock);
	*flag = true;
	pthread_cond_broadcast(cv);
	fdio_mutex_unlock(&journal->state_lock);
	pthread_join(thread, NULL);
}

int journal_stop(struct journal *journal)
{
	int err;

	if (!journal->started)
		return journal_abort_error_told(journal);
	/* The checkpoint thread may wait for a commit, so it ends first. */
	stop_thread(journal, &journal->stop_checkpoint, &journal->checkpoint_cv,
		    journal->checkpoint_thread);
	stop_thread(journal, &journal->stop_commit, &journal->commit_cv, journal->commit_thread);
	journal->started = false;
	err = journal_abort_error_told(journal);
	if (err)
		return err;
	/* JOURNAL-11 */
	err = journal_checkpoint_all(journal);
	if (!err)
		err = dev_flush(journal->dev);
	if (!err)
		err = journal_log_write_superblock(journal, journal->head_tid, 0, DEV_FUA);
	if (err)
		journal_abort(journal, err);
	else
		journal->log.active = false;
	return err;
}
