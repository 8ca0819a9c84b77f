/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Commits: closing the running transaction and writing it to the log. The commit thread does it every few seconds and for those
 * who do not wait; who waits for a transaction that nobody commits yet does it itself (jnl_commit_wait), which saves two changes
 * of thread an fsync. One transaction is written at a time, and all who ask meanwhile share the next
 * (group commit). What the one who commits is at (enum jcommit_state), changed by set_commit_state
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
 * Closing takes handle_lock, so no handle is open; the seal callback runs inside a last handle. From
 * then on handles run again beside the writing (JOURNAL-2 makes that safe).
 *
 * Implements JOURNAL-2, JOURNAL-4, JOURNAL-5, JOURNAL-8 and JOURNAL-9. Any failed write or flush aborts the journal: the transaction stays
 * in memory, its callbacks and waiters get -EIO.
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
static void set_commit_state(struct jnl *j, enum jcommit_state next)
{
	static const uint8_t allowed[] = {
		[JC_IDLE] = 1 << JC_CLOSING,
		[JC_CLOSING] = 1 << JC_WRITING | 1 << JC_ONLY_FLUSH | 1 << JC_IDLE,
		[JC_WRITING] = 1 << JC_CALLBACKS | 1 << JC_IDLE,
		[JC_ONLY_FLUSH] = 1 << JC_IDLE,
		[JC_CALLBACKS] = 1 << JC_IDLE,
	};

	FDIO_ASSERT(allowed[j->commit_state] & 1 << next);
	j->commit_state = next;
}

/* State lock held: the next commit may begin. */
static void end_commit(struct jnl *j)
{
	set_commit_state(j, JC_IDLE);
	pthread_cond_broadcast(&j->done_cv);
	if (j->commit_requested || j->stop_commit || jnl_err(j))
		pthread_cond_signal(&j->commit_cv);
}

/* ---- closing ---- */

/* What the seal callback may still change: limited by the log space that was reserved and the image list. */
static unsigned seal_credits(struct jnl *j, struct jtxn *t)
{
	uint32_t avail = __atomic_load_n(&j->log.free, __ATOMIC_RELAXED);
	uint32_t fixed = j->revoke_slack + 2;

	avail = avail > fixed ? avail - fixed : 0;
	avail -= avail / (j->log.tags_per_desc + 1) + 1;
	FDIO_ASSERT(avail >= t->nr); /* JOURNAL-3 */
	return FDIO_MIN(avail, j->limit) - t->nr;
}

static void seal(struct jnl *j, struct jtxn *t)
{
	struct jnl_callback *cb, *next;

	jhandle_open(j, seal_credits(j, t));
	j->p.seal(j->p.arg, &j->handle);
	jhandle_close(j);
	for (cb = j->handle.undo_cbs; cb; cb = next) {
		next = cb->next;
		cb->fn(cb, 1);
	}
	jhandle_done(j);
}

/* State lock held, no handle open: the transaction gets its place in the log (JOURNAL-3, JOURNAL-9). */
static void make_committing(struct jnl *j, struct jtxn *t)
{
	struct jlog *l = &j->log;

	FDIO_ASSERT(!j->committing && t->tid == j->head_tid);
	t->log_start = l->head;
	t->log_len = jlog_need(l, t->nr, jtxn_revoke_blocks(j, t));
	FDIO_ASSERT(t->log_len <= l->free); /* JOURNAL-3 */
	__atomic_sub_fetch(&l->free, t->log_len, __ATOMIC_RELAXED);
	l->head = jlog_wrap(l, (uint64_t)l->head + t->log_len);
	for (unsigned i = 0; i < t->nr; i++) {
		struct jbuf *b = t->kit->bufs[i];

		FDIO_ASSERT(b->txn == t && !b->committing && !b->frozen);
		b->txn = NULL;
		b->committing = t;
		b->copied = false;
	}
	jtxn_set_state(t, JT_WRITING);
	set_commit_state(j, JC_WRITING);
	j->running = NULL;
	j->committing = t;
	j->head_tid++;
	pthread_cond_broadcast(&j->done_cv);
}

/* The closed transaction, or NULL when there is nothing to commit. */
static struct jtxn *close_running(struct jnl *j)
{
	struct jtxn *t;

	__atomic_store_n(&j->close_pending, 1, __ATOMIC_RELAXED);
	fdio_mutex_lock(&j->handle_lock);
	t = j->running;
	if (t && jtxn_empty(t))
		__atomic_store_n(&t->dirty_ns, 0, __ATOMIC_RELAXED);
	if (t && (jtxn_empty(t) || jnl_err(j)))
		t = NULL;
	if (t) {
		if (j->p.seal)
			seal(j, t);
		fdio_mutex_lock(&j->state);
		make_committing(j, t);
		fdio_mutex_unlock(&j->state);
	}
	__atomic_store_n(&j->close_pending, 0, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&j->handle_cv);
	fdio_mutex_unlock(&j->handle_lock);
	return t;
}

/* ---- writing ---- */

/* Log blocks gathered for one big write. */
struct stage {
	struct jnl *j;
	uint32_t pos; /* log block of the first */
	unsigned n;
};

static int stage_flush(struct stage *s)
{
	int r = s->n ? jlog_write(s->j, s->pos, s->n, s->j->log.stage) : 0;

	s->pos = jlog_wrap(&s->j->log, (uint64_t)s->pos + s->n);
	s->n = 0;
	return r;
}

/* Makes room for n blocks that must stay together until they are complete. */
static int stage_room(struct stage *s, unsigned n)
{
	return s->n + n > s->j->log.stage_blocks ? stage_flush(s) : 0;
}

static uint8_t *stage_next(struct stage *s)
{
	FDIO_ASSERT(s->n < s->j->log.stage_blocks);
	return s->j->log.stage + (size_t)s->n++ * s->j->bs;
}

static void set_tail_csum(struct jnl *j, uint8_t *blk)
{
	if (jf_has_csum(j->log.incompat))
		fdio_put_be32(blk, j->bs - JF_TAIL_BYTES, jlog_tail_csum(j, blk));
}

static int write_revokes(struct stage *s, struct jtxn *t)
{
	struct jnl *j = s->j;
	unsigned rec = j->log.incompat & JF_INCOMPAT_64BIT ? 8 : 4, left = t->kit->revokes.nr, used = 0;
	uint8_t *blk = NULL;

	for (unsigned i = 0; i < t->kit->revokes.cap && left; i++) {
		if (!t->kit->revokes.slot[i])
			continue;
		if (!blk) {
			int r = stage_room(s, 1);

			if (r)
				return r;
			blk = stage_next(s);
			memset(blk, 0, j->bs);
			jf_put_header(blk, JF_REVOKE, t->tid);
			used = JF_REVOKE_HEADER;
		}
		if (rec == 8)
			fdio_put_be64(blk, used, t->kit->revokes.slot[i] - 1);
		else
			fdio_put_be32(blk, used, (uint32_t)(t->kit->revokes.slot[i] - 1));
		used += rec;
		left--;
		if (!left || used == JF_REVOKE_HEADER + j->log.revokes_per_block * rec) {
			fdio_put_be32(blk, JF_REVOKE_COUNT, used);
			set_tail_csum(j, blk);
			blk = NULL;
		}
	}
	return 0;
}

/* JOURNAL-2: the block as it was when the transaction closed. */
static void copy_image(struct jnl *j, struct jbuf *b, uint8_t *dst)
{
	uint8_t *frozen;

	fdio_mutex_lock(&j->state);
	frozen = b->frozen;
	b->frozen = NULL;
	if (!frozen)
		memcpy(dst, b->pub.data, j->bs);
	b->copied = true;
	fdio_mutex_unlock(&j->state);
	if (frozen) {
		memcpy(dst, frozen, j->bs);
		jslab_free(&j->data_slab, frozen);
	}
}

static void put_tag(struct jnl *j, uint8_t *tag, struct jtxn *t, uint64_t blk, uint32_t flags, const uint8_t *image)
{
	fdio_put_be32(tag, 0, (uint32_t)blk);
	if (j->log.incompat & JF_INCOMPAT_CSUM_V3) {
		fdio_put_be32(tag, 4, flags);
		fdio_put_be32(tag, 8, (uint32_t)(blk >> 32));
		fdio_put_be32(tag, 12, jlog_tag_csum(j, t->tid, image));
		return;
	}
	fdio_put_be16(tag, 4, 0);
	fdio_put_be16(tag, 6, (uint16_t)flags);
	if (j->log.incompat & JF_INCOMPAT_64BIT)
		fdio_put_be32(tag, 8, (uint32_t)(blk >> 32));
}

/* An image that begins with the log's magic number would be taken for a log block. */
static bool escape(uint8_t *image)
{
	if (fdio_get_be32(image, 0) != JF_MAGIC || JNL_MUTATED(JM_NO_ESCAPE))
		return false;
	fdio_put_be32(image, 0, 0);
	return true;
}

/* One descriptor and its n images. */
static int write_group(struct stage *s, struct jtxn *t, struct jbuf **bufs, unsigned n)
{
	struct jnl *j = s->j;
	uint8_t *desc, *tag;
	int r = stage_room(s, n + 1);

	if (r)
		return r;
	desc = stage_next(s);
	memset(desc, 0, j->bs);
	jf_put_header(desc, JF_DESCRIPTOR, t->tid);
	tag = desc + JF_H_BYTES;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *image = stage_next(s);
		uint32_t flags = (i ? JF_TAG_SAME_UUID : 0) | (i == n - 1 ? JF_TAG_LAST : 0);

		copy_image(j, bufs[i], image);
		if (escape(image))
			flags |= JF_TAG_ESCAPE;
		put_tag(j, tag, t, bufs[i]->pub.blk, flags, image);
		tag += j->log.tag_bytes;
		if (!i) {
			memcpy(tag, j->log.sb + JF_SB_UUID, JF_UUID_BYTES);
			tag += JF_UUID_BYTES;
		}
	}
	set_tail_csum(j, desc);
	return 0;
}

/* Everything but the commit block. Returns its log position. */
static int write_body(struct jnl *j, struct jtxn *t, uint32_t *ret_pos)
{
	struct stage s = { .j = j, .pos = t->log_start };
	int r = JNL_MUTATED(JM_NO_REVOKE) ? 0 : write_revokes(&s, t);

	for (unsigned i = 0; i < t->nr && !r; i += j->log.tags_per_desc)
		r = write_group(&s, t, t->kit->bufs + i, FDIO_MIN(t->nr - i, j->log.tags_per_desc));
	if (!r)
		r = stage_flush(&s);
	*ret_pos = s.pos;
	return r;
}

static int write_commit_block(struct jnl *j, struct jtxn *t, uint32_t pos)
{
	uint8_t *blk = j->log.stage;
	struct timespec now;

	dev_now(j->dev, &now);
	/* JOURNAL-9: a clock that was set back must not make this commit look older than the one before. */
	if (now.tv_sec < j->last_commit.tv_sec ||
	    (now.tv_sec == j->last_commit.tv_sec && now.tv_nsec < j->last_commit.tv_nsec))
		now = j->last_commit;
	j->last_commit = now;
	memset(blk, 0, j->bs);
	jf_put_header(blk, JF_COMMIT, t->tid);
	fdio_put_be64(blk, JF_C_SEC, (uint64_t)now.tv_sec);
	fdio_put_be32(blk, JF_C_NSEC, (uint32_t)now.tv_nsec);
	if (jf_has_csum(j->log.incompat))
		fdio_put_be32(blk, JF_C_CSUM, jlog_commit_csum(j, blk, j->bs));
	return dev_write(j->dev, blk, j->bs, jlog_map(j, pos, NULL), JNL_MUTATED(JM_NO_FUA) ? 0 : DEV_FUA);
}

/* JOURNAL-5 */
static int start_log(struct jnl *j, struct jtxn *t)
{
	int r = j->log.active ? 0 : jlog_write_sb(j, t->tid, t->log_start, 0);

	j->log.active = !r;
	return r;
}

/* JOURNAL-4, JOURNAL-5 */
static int write_transaction(struct jnl *j, struct jtxn *t)
{
	uint32_t pos;
	int r;

	r = write_body(j, t, &pos);
	if (r)
		return r;
	r = JNL_MUTATED(JM_LATE_START) ? 0 : start_log(j, t);
	if (r)
		return r;
	if (!JNL_MUTATED(JM_NO_REVOKE))
		FDIO_ASSERT(jlog_wrap(&j->log, (uint64_t)pos + 1) == jlog_wrap(&j->log, (uint64_t)t->log_start + t->log_len));
	fdio_mutex_lock(&j->state);
	jtxn_set_state(t, JT_FLUSHING);
	fdio_mutex_unlock(&j->state);
	r = JNL_MUTATED(JM_NO_PREFLUSH) ? 0 : dev_flush(j->dev);
	if (r)
		return r;
	if (jnl_err(j))
		return -EIO; /* JOURNAL-10 */
	r = write_commit_block(j, t, pos);
	return JNL_MUTATED(JM_LATE_START) && !r ? start_log(j, t) : r;
}

/* ---- afterwards ---- */

/* State lock held. JOURNAL-8: no home write of a block that this transaction frees may still be in flight. */
static void drop_forgotten(struct jnl *j, struct jtxn *t)
{
	for (unsigned i = 0; i < t->nr_forgets; i++)
		while (t->kit->forgets[i]->cp_writing)
			fdio_cond_wait(&j->done_cv, &j->state);
	for (unsigned i = 0; i < t->nr_forgets; i++) {
		struct jbuf *b = t->kit->forgets[i];

		b->forget_cnt--;
		if (b->forget_txn == t)
			b->forget_txn = NULL;
		jcheckpoint_drop(j, b);
		/* Its next life starts from the device or from zeroes, never from here. */
		if (!b->txn && !b->forget_cnt)
			jcache_unhash(b);
		jbuf_put(b);
	}
	t->nr_forgets = 0;
}

/* State lock held: the images now wait to be written home. */
static void to_checkpoint(struct jnl *j, struct jtxn *t)
{
	for (unsigned i = 0; i < t->nr; i++) {
		struct jbuf *b = t->kit->bufs[i];

		FDIO_ASSERT(b->committing == t && b->copied && !b->frozen);
		b->committing = NULL;
		b->copied = false;
		jcheckpoint_drop(j, b);
		jcheckpoint_add(j, t, b);
	}
	fdio_count_add(CTR_jnl_blocks_logged, t->nr);
	t->nr = 0;
}

static void run_callbacks(struct jnl_callback *cb, int err)
{
	struct jnl_callback *next;

	for (; cb; cb = next) {
		next = cb->next;
		cb->fn(cb, err);
	}
}

static void finish(struct jnl *j, struct jtxn *t)
{
	struct jnl_callback *cbs = t->cbs;
	struct jkit *kit = t->kit;

	fdio_count(CTR_jnl_commit);
	fdio_mutex_lock(&j->state);
	drop_forgotten(j, t);
	to_checkpoint(j, t);
	t->cbs = NULL;
	t->commit_ns = fdio_now_ns();
	jtxn_set_state(t, JT_COMMITTED);
	set_commit_state(j, JC_CALLBACKS);
	list_add_tail(&j->committed, &t->node);
	j->committing = NULL;
	t->kit = NULL;
	__atomic_store_n(&j->durable_tid, t->tid, __ATOMIC_RELEASE);
	fdio_mutex_unlock(&j->state);

	/* t may be gone from here on: the checkpoint thread owns it. */
	run_callbacks(cbs, 0);
	jtxn_clear_kit(kit); /* only now: the callbacks lie in its memory */
	fdio_mutex_lock(&j->state);
	jtxn_return_kit(j, kit);
	j->done_tid = j->durable_tid;
	end_commit(j);
	if (jcheckpoint_due(j))
		pthread_cond_signal(&j->cp_cv);
	fdio_mutex_unlock(&j->state);
}

/* ---- the thread ---- */

/* Someone asked for a commit of nothing: what they are owed is the flush. */
static void empty_round(struct jnl *j)
{
	uint64_t round;
	int r;

	fdio_count(CTR_jnl_flush_only);
	fdio_mutex_lock(&j->state);
	set_commit_state(j, JC_ONLY_FLUSH);
	round = ++j->empty_started;
	fdio_mutex_unlock(&j->state);
	r = dev_flush(j->dev);
	if (r)
		jnl_abort(j, r);
	fdio_mutex_lock(&j->state);
	j->empty_done = round;
	end_commit(j);
	fdio_mutex_unlock(&j->state);
}

/* False: the journal has aborted, and the commit is still to be ended. */
static bool commit_closed(struct jnl *j)
{
	struct jtxn *t = close_running(j);
	int r;

	if (jnl_err(j))
		return false;
	if (!t) {
		empty_round(j);
		return true;
	}
	jnl_test_pause();
	r = write_transaction(j, t);
	if (r) {
		jnl_abort(j, r);
		return false;
	}
	finish(j, t);
	return true;
}

void jcommit_now(struct jnl *j)
{
	set_commit_state(j, JC_CLOSING);
	fdio_mutex_unlock(&j->state);
	bool ended = commit_closed(j);
	fdio_mutex_lock(&j->state);
	if (!ended)
		end_commit(j);
}

/* After an abort: nothing that was not durable will become so. Taking handle_lock waits for the last open handle. */
static void fail_callbacks(struct jnl *j)
{
	struct jnl_callback *cbs[2] = { NULL, NULL };

	__atomic_store_n(&j->close_pending, 1, __ATOMIC_RELAXED);
	fdio_mutex_lock(&j->handle_lock);
	if (j->committing) {
		cbs[0] = j->committing->cbs;
		j->committing->cbs = NULL;
	}
	if (j->running) {
		cbs[1] = j->running->cbs;
		j->running->cbs = NULL;
		j->running->cbs_tail = &j->running->cbs;
	}
	__atomic_store_n(&j->close_pending, 0, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&j->handle_cv);
	fdio_mutex_unlock(&j->handle_lock);
	run_callbacks(cbs[0], -EIO);
	run_callbacks(cbs[1], -EIO);
}

/*
 * State lock held: whether to commit now; else *ret_deadline says when to look again. Nobody wakes the thread for a transaction
 * that has just begun: one whole interval from now none of these is due yet.
 */
static bool commit_due(struct jnl *j, uint64_t *ret_deadline)
{
	uint64_t dirty = j->running ? __atomic_load_n(&j->running->dirty_ns, __ATOMIC_RELAXED) : 0, now = fdio_now_ns();
	uint64_t interval = (uint64_t)j->p.commit_interval_s * 1000000000ull;

	*ret_deadline = now + interval;
	if (j->commit_state != JC_IDLE)
		return false;
	if (j->commit_requested && !jnl_tid_geq(j->done_tid, j->commit_request)) {
		j->commit_requested = false;
		return true;
	}
	j->commit_requested = false;
	if (!dirty)
		return false;
	*ret_deadline = dirty + interval;
	return j->stop_commit || now >= *ret_deadline;
}

void *jcommit_thread(void *arg)
{
	struct jnl *j = arg;
	uint64_t deadline;
	bool aborted;

	fdio_mutex_lock(&j->state);
	while (!jnl_err(j)) {
		if (commit_due(j, &deadline))
			jcommit_now(j);
		else if (j->stop_commit && j->commit_state == JC_IDLE)
			break;
		else
			fdio_cond_timedwait(&j->commit_cv, &j->state, deadline);
	}
	aborted = jnl_err(j);
	if (aborted)
		jabort_wait_told(j);
	while (j->commit_state != JC_IDLE)
		fdio_cond_wait(&j->done_cv, &j->state);
	fdio_mutex_unlock(&j->state);
	if (aborted)
		fail_callbacks(j);
	return NULL;
}
