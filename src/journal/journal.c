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

static int check_params(const struct jnl_params *p, struct fdio_reason *reason)
{
	const char *why = NULL;
	int r = -EINVAL;

	if (p->block_size < 1024 || p->block_size > 65536 || (p->block_size & (p->block_size - 1)))
		why = "block size is not a power of two from 1024 to 65536";
	else if (p->nr_blocks > INT64_MAX / p->block_size)
		why = "impossible number of blocks";
	else if (!p->nr_log && !p->read_only)
		why = "a file system without a journal can only be served read-only", r = -EROFS;
	else if (!p->read_only && p->block_size % p->dev->caps.lbs)
		why = "the file system's blocks are smaller than the device's sectors; only a read-only mount is possible";
	if (!why)
		return 0;
	fdio_reason_set(reason, "%s", why);
	return r;
}

static void init_locks(struct jnl *j)
{
	fdio_mutex_init(&j->handle_lock, RANK_JNL_HANDLE);
	fdio_cond_init(&j->handle_cv);
	fdio_mutex_init(&j->state, RANK_JNL_STATE);
	fdio_cond_init(&j->commit_cv);
	fdio_cond_init(&j->done_cv);
	fdio_cond_init(&j->cp_cv);
	fdio_cond_init(&j->space_cv);
	fdio_mutex_init(&j->log.jsb_lock, RANK_JNL_BUF);
	list_init(&j->committed);
}

int jnl_open(const struct jnl_params *p, struct jnl **ret, struct fdio_reason *reason)
{
	struct jnl *j;
	int r;

	*ret = NULL;
	r = check_params(p, reason);
	if (r)
		return r;
	j = fdio_alloc_aligned(FDIO_CACHELINE, sizeof(*j));
	if (!j) {
		fdio_reason_set(reason, "out of memory");
		return -ENOMEM;
	}
	fdio_magic_set(j, MAGIC_JOURNAL);
	j->p = *p;
	j->dev = p->dev;
	j->bs = p->block_size;
	if (!j->p.commit_interval_s)
		j->p.commit_interval_s = DEFAULT_COMMIT_S;
	init_locks(j);
	jslab_init(&j->buf_slab, sizeof(struct jbuf), 16, BUFS_PER_CHUNK);
	jslab_init(&j->txn_slab, sizeof(struct jtxn), alignof(struct jtxn), TXNS_PER_CHUNK);
	jslab_init(&j->data_slab, j->bs, FDIO_MIN(j->bs, 4096u), FDIO_MAX((1u << 20) / j->bs, 16u));
	r = jcache_init(j);
	if (r)
		fdio_reason_set(reason, "out of memory");
	else if (p->nr_log)
		r = jlog_open(j, reason);
	j->p.log = NULL; /* the caller's; copied */
	if (r) {
		jnl_close(j);
		return r;
	}
	*ret = j;
	return 0;
}

void jnl_close(struct jnl *j)
{
	FDIO_ASSERT(!j->started);
	fdio_magic_clear(j, MAGIC_JOURNAL);
	jtxn_fini_kits(j);
	jcheckpoint_fini(j);
	jhandle_fini(j);
	jlog_close(j);
	jcache_fini(j);
	/* Transactions, buffers and images, in use or not, live in the slabs. */
	jslab_fini(&j->txn_slab);
	jslab_fini(&j->buf_slab);
	jslab_fini(&j->data_slab);
	pthread_cond_destroy(&j->handle_cv);
	pthread_cond_destroy(&j->commit_cv);
	pthread_cond_destroy(&j->done_cv);
	pthread_cond_destroy(&j->cp_cv);
	pthread_cond_destroy(&j->space_cv);
	fdio_mutex_fini(&j->handle_lock);
	fdio_mutex_fini(&j->state);
	free(j);
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

static void set_limits(struct jnl *j)
{
	j->limit = FDIO_MIN(j->log.len / 4, (unsigned)LIMIT_MAX);
	/* On a large file system with a small log each bitmap may bring a block of descriptors with it. */
	j->seal_reserve = FDIO_MIN((j->limit + 1) / 2, j->p.seal_blocks);
	j->seal_reserve = FDIO_MAX(j->seal_reserve, j->limit / 4);
	j->seal_reserve = FDIO_MAX(j->seal_reserve, 8u);
	j->usable = j->limit - j->seal_reserve;
	j->revoke_slack = FDIO_MAX(j->limit / 8, 2u);
	FDIO_ASSERT(jlog_need(&j->log, j->limit, j->revoke_slack) < j->log.len / 2);
}

/* The log is empty: the features this writer uses, a fresh start position, the id jumped. */
static int reset_log(struct jnl *j)
{
	struct jlog *l = &j->log;
	uint32_t tid = first_tid(fdio_get_be32(l->sb, JF_SB_SEQUENCE), l->maxlen);
	int r;

	l->incompat = JF_INCOMPAT_REVOKE | (j->p.has_64bit ? JF_INCOMPAT_64BIT : 0) |
		(j->p.metadata_csum ? JF_INCOMPAT_CSUM_V3 : 0);
	jlog_set_format(j);
	fdio_mutex_lock(&l->jsb_lock);
	fdio_put_be32(l->sb, JF_SB_COMPAT, fdio_get_be32(l->sb, JF_SB_COMPAT) & ~(uint32_t)JF_COMPAT_CHECKSUM);
	fdio_put_be32(l->sb, JF_SB_INCOMPAT, l->incompat);
	fdio_put_be32(l->sb, JF_SB_ERRNO, 0);
	l->sb[JF_SB_CSUM_TYPE] = j->p.metadata_csum ? JF_CSUM_CRC32C : 0;
	if (!j->p.metadata_csum)
		fdio_put_be32(l->sb, JF_SB_CSUM, 0);
	fdio_mutex_unlock(&l->jsb_lock);
	r = jlog_write_sb(j, tid, 0, DEV_FUA);
	l->head = l->first;
	l->free = l->len - 1;
	l->active = false;
	j->head_tid = tid;
	j->durable_tid = j->done_tid = tid - 1;
	return r;
}

static int start_threads(struct jnl *j)
{
	int r;

	j->stop_commit = j->stop_cp = false;
	r = thread_start(&j->commit_thread, "jnl-commit", jcommit_thread, j);
	if (r)
		return r;
	r = thread_start(&j->cp_thread, "jnl-checkpoint", jcheckpoint_thread, j);
	if (r) {
		fdio_mutex_lock(&j->state);
		j->stop_commit = true;
		pthread_cond_signal(&j->commit_cv);
		fdio_mutex_unlock(&j->state);
		pthread_join(j->commit_thread, NULL);
		return r;
	}
	return 0;
}

int jnl_start(struct jnl *j)
{
	int r;

	FDIO_ASSERT(!j->started);
	if (j->p.read_only || !j->log.sb)
		return -EROFS;
	if (jnl_needs_replay(j))
		return -EUCLEAN;
	/* The log is empty: what fast commits had is part of it from now on. */
	if (!jlog_set_end(j))
		return -EUCLEAN;
	set_limits(j);
	r = jcheckpoint_init(j);
	if (r)
		return r;
	r = jcache_reserve(j);
	if (!r)
		r = jtxn_init_kits(j);
	if (!r)
		r = jhandle_init(j);
	if (r)
		return r;
	r = reset_log(j);
	if (!r)
		r = start_threads(j);
	j->started = !r;
	return r;
}

static void stop_thread(struct jnl *j, bool *flag, pthread_cond_t *cv, pthread_t thread)
{
	fdio_mutex_lock(&j->state);
	*flag = true;
	pthread_cond_broadcast(cv);
	fdio_mutex_unlock(&j->state);
	pthread_join(thread, NULL);
}

void jabort_wait_told(struct jnl *j)
{
	while (!j->abort_told)
		fdio_cond_wait(&j->done_cv, &j->state);
}

/* 0, or the error of the abort once the owner knows of it. */
int jabort_error(struct jnl *j)
{
	if (likely(!jnl_err(j)))
		return 0;
	if (nowait_on())
		return nowait_miss();
	fdio_mutex_lock(&j->state);
	jabort_wait_told(j);
	fdio_mutex_unlock(&j->state);
	return jnl_err(j);
}

int jnl_stop(struct jnl *j)
{
	int r;

	if (!j->started)
		return jabort_error(j);
	/* The checkpoint thread may wait for a commit, so it ends first. */
	stop_thread(j, &j->stop_cp, &j->cp_cv, j->cp_thread);
	stop_thread(j, &j->stop_commit, &j->commit_cv, j->commit_thread);
	j->started = false;
	r = jabort_error(j);
	if (r)
		return r;
	/* JOURNAL-11 */
	r = jcheckpoint_all(j);
	if (!r)
		r = dev_flush(j->dev);
	if (!r)
		r = jlog_write_sb(j, j->head_tid, 0, DEV_FUA);
	if (r)
		jnl_abort(j, r);
	else
		j->log.active = false;
	return r;
}

/* ---- durability ---- */

/* State lock held. */
static void request(struct jnl *j, jnl_tid tid)
{
	if (jnl_tid_geq(tid, j->head_tid))
		tid = j->head_tid;
	if (!j->commit_requested || jnl_tid_geq(tid, j->commit_request))
		j->commit_request = tid;
	j->commit_requested = true;
	pthread_cond_signal(&j->commit_cv);
}

int jnl_commit_wait(struct jnl *j, jnl_tid tid, bool *ret_flushed)
{
	bool flushed = false;
	uint64_t round;
	int r = 0;

	if (ret_flushed)
		*ret_flushed = false;
	if (!j->started)
		return jabort_error(j) ? -EIO : 0;
	fdio_mutex_lock(&j->state);
	if (!jnl_tid_geq(j->done_tid, tid) && !jnl_err(j)) {
		if (jnl_tid_geq(tid, j->head_tid))
			tid = j->head_tid;
		round = j->empty_started + 1;
		flushed = tid == j->head_tid || (j->committing && j->committing->tid == tid && j->committing->state == JT_WRITING);
		while (!jnl_tid_geq(j->done_tid, tid) && j->empty_done < round && !jnl_err(j)) {
			if (tid == j->head_tid && j->commit_state == JC_IDLE)
				jcommit_now(j);
			else
				fdio_cond_wait(&j->done_cv, &j->state);
		}
	}
	if (jnl_err(j)) {
		jabort_wait_told(j);
		r = -EIO;
	}
	fdio_mutex_unlock(&j->state);
	if (ret_flushed)
		*ret_flushed = flushed && !r;
	return r;
}

void jnl_commit_turn(struct jnl *j, jnl_tid tid)
{
	if (!j->started)
		return;
	fdio_mutex_lock(&j->state);
	while (j->commit_state != JC_IDLE && jnl_tid_geq(tid, j->head_tid) && !jnl_err(j))
		fdio_cond_wait(&j->done_cv, &j->state);
	fdio_mutex_unlock(&j->state);
}

void jnl_commit_start(struct jnl *j, jnl_tid tid)
{
	if (!j->started)
		return;
	fdio_mutex_lock(&j->state);
	if (jnl_tid_geq(tid, j->head_tid) && j->running && __atomic_load_n(&j->running->dirty_ns, __ATOMIC_RELAXED))
		request(j, tid);
	fdio_mutex_unlock(&j->state);
}

int jnl_sync(struct jnl *j)
{
	jnl_tid tid;

	if (!j->started)
		return jabort_error(j) ? -EIO : 0;
	fdio_mutex_lock(&j->state);
	tid = j->head_tid;
	fdio_mutex_unlock(&j->state);
	return jnl_commit_wait(j, tid, NULL);
}

bool jnl_tid_durable(struct jnl *j, jnl_tid tid)
{
	return !j->started || jnl_tid_geq(__atomic_load_n(&j->durable_tid, __ATOMIC_ACQUIRE), tid);
}

/* ---- abort ---- */

int jnl_error(struct jnl *j)
{
	return jnl_err(j);
}

void jnl_abort(struct jnl *j, int err)
{
	int none = 0;

	if (err >= 0)
		err = -EIO;
	if (!__atomic_compare_exchange_n(&j->err, &none, err, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return;
	if (err != -ESHUTDOWN)
		log_err("the journal has aborted (error %d); the file system is read-only from now on", -err);
	/* JOURNAL-10: who is woken finds the owner read-only and its error noted. */
	if (j->p.aborted)
		j->p.aborted(j->p.arg, err);
	fdio_mutex_lock(&j->state);
	j->abort_told = true;
	pthread_cond_broadcast(&j->commit_cv);
	pthread_cond_broadcast(&j->done_cv);
	pthread_cond_broadcast(&j->cp_cv);
	pthread_cond_broadcast(&j->space_cv);
	fdio_mutex_unlock(&j->state);
	if (err != -ESHUTDOWN)
		jlog_write_errno(j, err);
}
