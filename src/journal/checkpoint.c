/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The checkpoint thread: writes committed images home and moves the tail of the log behind them, in
 * the background when half the log is used or half the cache is pinned, at once when a handle waits
 * for space. It is the only writer of home locations while the journal runs, so two home writes of
 * one block cannot overtake each other. jcheckpoint_all does the same at the end, when that thread
 * is gone.
 *
 * The state lock guards the checkpoint lists. It is held to choose blocks and to copy each of them,
 * and never across I/O; the items and the stage are the thread's own.
 *
 * A block on a list is the newest committed image of it. If it is also in the running or the
 * closing transaction, or forgotten by one, it must not be written (JOURNAL-6): its next commit
 * moves it to a younger list, or drops it. If nothing else is left in the oldest transaction, a
 * commit is forced.
 *
 * Implements JOURNAL-6, JOURNAL-7 and the first half of JOURNAL-11. Failure: a failed home write
 * aborts the journal; the log still holds the images, so the next mount replays them.
 */
#include "base/counters.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

enum { BATCH = 256, BATCH_SCAN = 4096 };

/* Committed transactions go home after this long even without pressure, to keep a replay short. */
#define AGE_NS (30ull * 1000000000ull)

struct jcp_item {
	struct jbuf *b;
	struct jtxn *t;
	uint64_t blk;
};

int jcheckpoint_init(struct jnl *j)
{
	j->cp_items = calloc(BATCH, sizeof(*j->cp_items));
	j->cp_stage = fdio_alloc_aligned(4096, (size_t)BATCH * j->bs);
	return j->cp_items && j->cp_stage ? 0 : -ENOMEM;
}

void jcheckpoint_fini(struct jnl *j)
{
	free(j->cp_items);
	free(j->cp_stage);
}

void jcheckpoint_add(struct jnl *j, struct jtxn *t, struct jbuf *b)
{
	FDIO_ASSERT(!b->cp);
	b->cp = t;
	list_add_tail(&t->cp, &b->cp_node);
	j->nr_cp++;
}

void jcheckpoint_drop(struct jnl *j, struct jbuf *b)
{
	if (!b->cp)
		return;
	b->cp = NULL;
	list_del(&b->cp_node);
	j->nr_cp--;
	jbuf_put(b);
}

bool jcheckpoint_due(const struct jnl *j)
{
	uint32_t avail = __atomic_load_n(&j->log.free, __ATOMIC_RELAXED);

	if (list_empty(&j->committed))
		return false;
	if (JNL_LAZY)
		return j->space_waiters;
	return j->space_waiters || avail < j->log.len / 2 || j->nr_cp > j->max_bufs / 2;
}

/* State lock held (JOURNAL-6). */
static bool may_go_home(const struct jbuf *b)
{
	return !b->txn && !b->committing && !b->forget_cnt;
}

static int by_block(const void *a, const void *b)
{
	uint64_t x = ((const struct jcp_item *)a)->blk, y = ((const struct jcp_item *)b)->blk;

	return x < y ? -1 : x > y;
}

/* State lock held: the oldest blocks that may be written, sorted. Each gets a reference. */
static unsigned gather(struct jnl *j)
{
	unsigned n = 0, scanned = 0;
	struct jtxn *t;
	struct jbuf *b;

	list_for_each(t, &j->committed, node) {
		list_for_each(b, &t->cp, cp_node) {
			if (n == BATCH || scanned++ == BATCH_SCAN)
				goto out;
			if (!may_go_home(b))
				continue;
			jbuf_ref(b);
			j->cp_items[n++] = (struct jcp_item){ .b = b, .t = t, .blk = b->pub.blk };
		}
	}
out:
	qsort(j->cp_items, n, sizeof(*j->cp_items), by_block);
	return n;
}

/* Copies what may still go home to the stage, a short hold of the state lock each; drops the rest. */
static unsigned copy_items(struct jnl *j, unsigned n)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < n; i++) {
		struct jcp_item *it = &j->cp_items[i];
		bool ok;

		fdio_mutex_lock(&j->state);
		ok = it->b->cp == it->t && may_go_home(it->b);
		if (ok) {
			memcpy(j->cp_stage + (size_t)kept * j->bs, it->b->pub.data, j->bs);
			it->b->cp_writing = true;
		}
		fdio_mutex_unlock(&j->state);
		if (ok)
			j->cp_items[kept++] = *it;
		else
			jbuf_put(it->b);
	}
	return kept;
}

static int write_items(struct jnl *j, unsigned n)
{
	uint32_t max_run = FDIO_MAX(j->dev->caps.max_io_bytes / j->bs, 1u);
	enum { MAX_VEC = 32 };
	struct dev_vec vec[MAX_VEC];
	unsigned i = 0;
	int r = 0;

	while (i < n && !r) {
		unsigned nr = 0;

		for (; i < n && nr < MAX_VEC; nr++) {
			unsigned run = 1;

			while (i + run < n && run < max_run && j->cp_items[i + run].blk == j->cp_items[i].blk + run)
				run++;
			vec[nr] = (struct dev_vec){ .off = j->cp_items[i].blk * j->bs, .buf = j->cp_stage + (size_t)i * j->bs,
				.len = run * j->bs };
			i += run;
		}
		r = dev_write_many(j->dev, vec, nr);
	}
	fdio_count_add(CTR_jnl_checkpoint, n);
	return r;
}

static void items_done(struct jnl *j, unsigned n, bool written)
{
	fdio_mutex_lock(&j->state);
	for (unsigned i = 0; i < n; i++) {
		struct jcp_item *it = &j->cp_items[i];

		it->b->cp_writing = false;
		/* A younger commit may have moved it meanwhile: then its newer image is still due. */
		if (written && it->b->cp == it->t)
			jcheckpoint_drop(j, it->b);
		jbuf_put(it->b);
	}
	pthread_cond_broadcast(&j->done_cv);
	fdio_mutex_unlock(&j->state);
}

/* JOURNAL-7. Frees the log space of the oldest transactions that are completely home. Returns -errno, or how many. */
static int move_tail(struct jnl *j)
{
	struct jtxn *t, *tmp, *last = NULL;
	struct list gone = LIST_INIT(gone);
	uint32_t freed = 0;
	int r, n = 0;

	fdio_mutex_lock(&j->state);
	list_for_each_safe(t, tmp, &j->committed, node) {
		if (!list_empty(&t->cp))
			break;
		jtxn_set_state(t, JT_HOME);
		list_move_tail(&gone, &t->node);
		freed += t->log_len;
		last = t;
		n++;
	}
	fdio_mutex_unlock(&j->state);
	if (!last)
		return 0;
	r = JNL_MUTATED(JM_NO_TAIL_FLUSH) ? 0 : dev_flush(j->dev);
	if (!r)
		r = jlog_write_sb(j, last->tid + 1, jlog_wrap(&j->log, (uint64_t)last->log_start + last->log_len),
				  JNL_MUTATED(JM_NO_TAIL_FUA) ? 0 : DEV_FUA);
	fdio_mutex_lock(&j->state);
	if (!r) {
		__atomic_add_fetch(&j->log.free, freed, __ATOMIC_RELAXED);
		pthread_cond_broadcast(&j->space_cv);
	}
	list_for_each_safe(t, tmp, &gone, node) {
		list_del(&t->node);
		jtxn_free(j, t);
	}
	fdio_mutex_unlock(&j->state);
	fdio_count(CTR_jnl_tail);
	return r ? r : n;
}

/* The oldest transaction has only blocks that are in use: their next commit sets it free. */
static void force_commit(struct jnl *j)
{
	jnl_tid tid;

	fdio_count(CTR_jnl_cp_forced);
	fdio_mutex_lock(&j->state);
	tid = j->head_tid;
	fdio_mutex_unlock(&j->state);
	jnl_commit_wait(j, tid, NULL);
}

/* One batch home. Returns -errno, or the number of blocks written. */
static int one_batch(struct jnl *j)
{
	unsigned n;
	int r;

	fdio_mutex_lock(&j->state);
	n = gather(j);
	fdio_mutex_unlock(&j->state);
	n = copy_items(j, n);
	if (!n)
		return 0;
	r = jnl_err(j) ? -EIO : write_items(j, n);
	items_done(j, n, !r);
	return r ? r : (int)n;
}

int jcheckpoint_all(struct jnl *j)
{
	int r;

	do {
		r = one_batch(j);
	} while (r > 0);
	if (!r)
		r = move_tail(j);
	if (r < 0) {
		jnl_abort(j, r);
		return r;
	}
	FDIO_ASSERT(list_empty(&j->committed));
	return 0;
}

/* Batches until enough of the log is free again, the tail following each. */
static void relieve(struct jnl *j)
{
	bool more = true;

	while (more && !jnl_err(j)) {
		int written = one_batch(j), moved = written < 0 ? 0 : move_tail(j);
		bool stuck;

		if (written < 0 || moved < 0) {
			jnl_abort(j, written < 0 ? written : moved);
			return;
		}
		fdio_mutex_lock(&j->state);
		stuck = !written && !moved && !list_empty(&j->committed);
		more = !j->stop_cp && !list_empty(&j->committed) &&
			(j->space_waiters || (!JNL_LAZY && (j->log.free < j->log.len / 4 * 3 || j->nr_cp > j->max_bufs / 4)));
		fdio_mutex_unlock(&j->state);
		if (stuck && more)
			force_commit(j);
	}
}

/* State lock held. */
static bool aged(struct jnl *j)
{
	if (list_empty(&j->committed))
		return false;
	return fdio_now_ns() - list_first(&j->committed, struct jtxn, node)->commit_ns > AGE_NS;
}

static void write_aged(struct jnl *j)
{
	int r = one_batch(j);

	while (r > 0)
		r = one_batch(j);
	if (!r)
		r = move_tail(j);
	if (r < 0)
		jnl_abort(j, r);
}

void *jcheckpoint_thread(void *arg)
{
	struct jnl *j = arg;

	fdio_magic_check(j, MAGIC_JOURNAL);
	fdio_mutex_lock(&j->state);
	while (!j->stop_cp && !jnl_err(j)) {
		void (*work)(struct jnl *) = jcheckpoint_due(j) ? relieve : aged(j) ? write_aged : NULL;

		if (!work) {
			fdio_cond_timedwait(&j->cp_cv, &j->state, fdio_now_ns() + AGE_NS / 3);
			continue;
		}
		fdio_mutex_unlock(&j->state);
		work(j);
		fdio_mutex_lock(&j->state);
	}
	fdio_mutex_unlock(&j->state);
	return NULL;
}
