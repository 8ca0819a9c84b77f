/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of the journal: open, start, stop, close; waiting for durability; abort. The volume
 * calls open, start, stop and close, on one thread that may block. Whoever syncs waits here, on
 * workers; any thread that meets a fatal error aborts.
 *
 * The state lock guards which transactions there are and what has been asked for; waiting is on
 * done_cv under it. Implements the jump of JOURNAL-9, JOURNAL-10 and JOURNAL-11.
 *
 * Failure: what opens says why in reason; waiting returns -EIO once the journal has aborted.
 */
#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"
#include "base/thread.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEFAULT_COMMIT_S = 5, LIMIT_MAX = 16384, BUFS_PER_CHUNK = 256, TXNS_PER_CHUNK = 64 };

/* ---- open and close ---- */

static int check_params(const struct jnl_params *params, struct fdio_reason *reason)
{
	const char *why = NULL;
	int err = -EINVAL;

	if (params->block_size < 1024 || params->block_size > 65536 || (params->block_size & (params->block_size - 1)))
		why = "block size is not a power of two from 1024 to 65536";
	else if (params->nr_blocks > INT64_MAX / params->block_size)
		why = "impossible number of blocks";
	else if (!params->nr_log && !params->read_only)
		why = "a file system without a journal can only be served read-only", err = -EROFS;
	else if (!params->read_only && params->block_size % params->dev->caps.sector_bytes)
		why = "the file system's blocks are smaller than the device's sectors; only a read-only mount is possible";
	if (!why)
		return 0;
	fdio_reason_set(reason, "%s", why);
	return err;
}

static void init_locks(struct jnl *journal)
{
	fdio_mutex_init(&journal->handle_lock, RANK_JNL_HANDLE);
	fdio_cond_init(&journal->handle_cv);
	fdio_mutex_init(&journal->state_lock, RANK_JNL_STATE);
	fdio_cond_init(&journal->commit_cv);
	fdio_cond_init(&journal->done_cv);
	fdio_cond_init(&journal->checkpoint_cv);
	fdio_cond_init(&journal->space_cv);
	fdio_mutex_init(&journal->log.superblock_lock, RANK_JNL_BUF);
	list_init(&journal->committed);
}

int jnl_open(const struct jnl_params *params, struct jnl **ret, struct fdio_reason *reason)
{
	struct jnl *journal;
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
		journal->params.commit_interval_s = DEFAULT_COMMIT_S;
	init_locks(journal);
	jslab_init(&journal->buffer_slab, sizeof(struct jbuf), 16, BUFS_PER_CHUNK);
	jslab_init(&journal->transaction_slab, sizeof(struct jtxn), alignof(struct jtxn), TXNS_PER_CHUNK);
	jslab_init(&journal->data_slab, journal->block_size, FDIO_MIN(journal->block_size, 4096u), FDIO_MAX((1u << 20) / journal->block_size, 16u));
	err = jcache_init(journal);
	if (err)
		fdio_reason_set(reason, "out of memory");
	else if (params->nr_log)
		err = jlog_open(journal, reason);
	journal->params.log = NULL; /* the caller's; copied */
	if (err) {
		jnl_close(journal);
		return err;
	}
	*ret = journal;
	return 0;
}

void jnl_close(struct jnl *journal)
{
	FDIO_ASSERT(!journal->started);
	fdio_magic_clear(journal, MAGIC_JOURNAL);
	jtxn_fini_kits(journal);
	jcheckpoint_fini(journal);
	jhandle_fini(journal);
	jlog_close(journal);
	jcache_fini(journal);
	/* Transactions, buffers and images, in use or not, live in the slabs. */
	jslab_fini(&journal->transaction_slab);
	jslab_fini(&journal->buffer_slab);
	jslab_fini(&journal->data_slab);
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

/* JOURNAL-9: no block left over from earlier can carry an id that this mount will use. Never 0, which callers use for "none". */
static uint32_t first_tid(uint32_t sequence, uint32_t maxlen)
{
	uint32_t tid = sequence + maxlen;

	if (tid < sequence || tid > UINT32_MAX - (1u << 28))
		tid = 1;
	return tid;
}

static void set_limits(struct jnl *journal)
{
	journal->image_limit = FDIO_MIN(journal->log.len / 4, (unsigned)LIMIT_MAX);
	/* On a large file system with a small log each bitmap may bring a block of descriptors with it. */
	journal->seal_reserve = FDIO_MIN((journal->image_limit + 1) / 2, journal->params.seal_blocks);
	journal->seal_reserve = FDIO_MAX(journal->seal_reserve, journal->image_limit / 4);
	journal->seal_reserve = FDIO_MAX(journal->seal_reserve, 8u);
	journal->credit_limit = journal->image_limit - journal->seal_reserve;
	journal->revoke_slack = FDIO_MAX(journal->image_limit / 8, 2u);
	FDIO_ASSERT(jlog_need(&journal->log, journal->image_limit, journal->revoke_slack) < journal->log.len / 2);
}

/* The log is empty: the features this writer uses, a fresh start position, the id jumped. */
static int reset_log(struct jnl *journal)
{
	struct jlog *log = &journal->log;
	uint32_t tid = first_tid(fdio_get_be32(log->superblock, JF_SB_SEQUENCE), log->end);
	int err;

	log->incompat = JF_INCOMPAT_REVOKE | (journal->params.has_64bit ? JF_INCOMPAT_64BIT : 0) |
		(journal->params.metadata_csum ? JF_INCOMPAT_CSUM_V3 : 0);
	jlog_set_format(journal);
	fdio_mutex_lock(&log->superblock_lock);
	fdio_put_be32(log->superblock, JF_SB_COMPAT, fdio_get_be32(log->superblock, JF_SB_COMPAT) & ~(uint32_t)JF_COMPAT_CHECKSUM);
	fdio_put_be32(log->superblock, JF_SB_INCOMPAT, log->incompat);
	fdio_put_be32(log->superblock, JF_SB_ERRNO, 0);
	log->superblock[JF_SB_CSUM_TYPE] = journal->params.metadata_csum ? JF_CSUM_CRC32C : 0;
	if (!journal->params.metadata_csum)
		fdio_put_be32(log->superblock, JF_SB_CSUM, 0);
	fdio_mutex_unlock(&log->superblock_lock);
	err = jlog_write_sb(journal, tid, 0, DEV_FUA);
	log->head = log->first;
	log->free = log->len - 1;
	log->active = false;
	journal->head_tid = tid;
	journal->durable_tid = journal->done_tid = tid - 1;
	return err;
}

static int start_threads(struct jnl *journal)
{
	int err;

	journal->stop_commit = journal->stop_checkpoint = false;
	err = thread_start(&journal->commit_thread, "jnl-commit", jcommit_thread, journal);
	if (err)
		return err;
	err = thread_start(&journal->checkpoint_thread, "jnl-checkpoint", jcheckpoint_thread, journal);
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

int jnl_start(struct jnl *journal)
{
	int err;

	FDIO_ASSERT(!journal->started);
	if (journal->params.read_only || !journal->log.superblock)
		return -EROFS;
	if (jnl_needs_replay(journal))
		return -EUCLEAN;
	/* The log is empty: what fast commits had is part of it from now on. */
	if (!jlog_set_end(journal))
		return -EUCLEAN;
	set_limits(journal);
	err = jcheckpoint_init(journal);
	if (err)
		return err;
	err = jcache_reserve(journal);
	if (!err)
		err = jtxn_init_kits(journal);
	if (!err)
		err = jhandle_init(journal);
	if (err)
		return err;
	err = reset_log(journal);
	if (!err)
		err = start_threads(journal);
	journal->started = !err;
	return err;
}

static void stop_thread(struct jnl *journal, bool *flag, pthread_cond_t *cv, pthread_t thread)
{
	fdio_mutex_lock(&journal->state_lock);
	*flag = true;
	pthread_cond_broadcast(cv);
	fdio_mutex_unlock(&journal->state_lock);
	pthread_join(thread, NULL);
}

void jabort_wait_told(struct jnl *journal)
{
	while (!journal->abort_told)
		fdio_cond_wait(&journal->done_cv, &journal->state_lock);
}

/* 0, or the error of the abort once the owner knows of it. */
int jabort_error(struct jnl *journal)
{
	if (likely(!jnl_err(journal)))
		return 0;
	if (nowait_on())
		return nowait_miss();
	fdio_mutex_lock(&journal->state_lock);
	jabort_wait_told(journal);
	fdio_mutex_unlock(&journal->state_lock);
	return jnl_err(journal);
}

int jnl_stop(struct jnl *journal)
{
	int err;

	if (!journal->started)
		return jabort_error(journal);
	/* The checkpoint thread may wait for a commit, so it ends first. */
	stop_thread(journal, &journal->stop_checkpoint, &journal->checkpoint_cv, journal->checkpoint_thread);
	stop_thread(journal, &journal->stop_commit, &journal->commit_cv, journal->commit_thread);
	journal->started = false;
	err = jabort_error(journal);
	if (err)
		return err;
	/* JOURNAL-11 */
	err = jcheckpoint_all(journal);
	if (!err)
		err = dev_flush(journal->dev);
	if (!err)
		err = jlog_write_sb(journal, journal->head_tid, 0, DEV_FUA);
	if (err)
		jnl_abort(journal, err);
	else
		journal->log.active = false;
	return err;
}

/* ---- durability ---- */

/* State lock held. */
static void request(struct jnl *journal, jnl_tid tid)
{
	if (jnl_tid_geq(tid, journal->head_tid))
		tid = journal->head_tid;
	if (!journal->commit_requested || jnl_tid_geq(tid, journal->commit_request))
		journal->commit_request = tid;
	journal->commit_requested = true;
	pthread_cond_signal(&journal->commit_cv);
}

int jnl_commit_wait(struct jnl *journal, jnl_tid tid, bool *ret_flushed)
{
	bool flushed = false;
	uint64_t round;
	int err = 0;

	if (ret_flushed)
		*ret_flushed = false;
	if (!journal->started)
		return jabort_error(journal) ? -EIO : 0;
	fdio_mutex_lock(&journal->state_lock);
	if (!jnl_tid_geq(journal->done_tid, tid) && !jnl_err(journal)) {
		if (jnl_tid_geq(tid, journal->head_tid))
			tid = journal->head_tid;
		round = journal->empty_started + 1;
		flushed = tid == journal->head_tid || (journal->committing && journal->committing->tid == tid && journal->committing->state == JT_WRITING);
		while (!jnl_tid_geq(journal->done_tid, tid) && journal->empty_done < round && !jnl_err(journal)) {
			if (tid == journal->head_tid && journal->commit_state == JC_IDLE)
				jcommit_now(journal);
			else
				fdio_cond_wait(&journal->done_cv, &journal->state_lock);
		}
	}
	if (jnl_err(journal)) {
		jabort_wait_told(journal);
		err = -EIO;
	}
	fdio_mutex_unlock(&journal->state_lock);
	if (ret_flushed)
		*ret_flushed = flushed && !err;
	return err;
}

void jnl_commit_turn(struct jnl *journal, jnl_tid tid)
{
	if (!journal->started)
		return;
	fdio_mutex_lock(&journal->state_lock);
	while (journal->commit_state != JC_IDLE && jnl_tid_geq(tid, journal->head_tid) && !jnl_err(journal))
		fdio_cond_wait(&journal->done_cv, &journal->state_lock);
	fdio_mutex_unlock(&journal->state_lock);
}

void jnl_commit_start(struct jnl *journal, jnl_tid tid)
{
	if (!journal->started)
		return;
	fdio_mutex_lock(&journal->state_lock);
	if (jnl_tid_geq(tid, journal->head_tid) && journal->running && __atomic_load_n(&journal->running->dirty_ns, __ATOMIC_RELAXED))
		request(journal, tid);
	fdio_mutex_unlock(&journal->state_lock);
}

int jnl_sync(struct jnl *journal)
{
	jnl_tid tid;

	if (!journal->started)
		return jabort_error(journal) ? -EIO : 0;
	fdio_mutex_lock(&journal->state_lock);
	tid = journal->head_tid;
	fdio_mutex_unlock(&journal->state_lock);
	return jnl_commit_wait(journal, tid, NULL);
}

bool jnl_tid_durable(struct jnl *journal, jnl_tid tid)
{
	return !journal->started || jnl_tid_geq(__atomic_load_n(&journal->durable_tid, __ATOMIC_ACQUIRE), tid);
}

/* ---- abort ---- */

int jnl_error(struct jnl *journal)
{
	return jnl_err(journal);
}

void jnl_abort(struct jnl *journal, int err)
{
	int none = 0;

	if (err >= 0)
		err = -EIO;
	if (!__atomic_compare_exchange_n(&journal->error, &none, err, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return;
	if (err != -ESHUTDOWN)
		log_err("the journal has aborted (error %d); the file system is read-only from now on", -err);
	/* JOURNAL-10: who is woken finds the owner read-only and its error noted. */
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
		jlog_write_errno(journal, err);
}
