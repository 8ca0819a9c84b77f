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

static int take_handle_lock(struct jnl *j)
{
	int r = fdio_mutex_enter(&j->handle_lock);

	if (r)
		return r;
	/* The committer goes first, or a stream of handles would keep it out. */
	while (unlikely(__atomic_load_n(&j->close_pending, __ATOMIC_RELAXED))) {
		if (nowait_on()) {
			fdio_mutex_unlock(&j->handle_lock);
			return nowait_miss();
		}
		fdio_cond_wait(&j->handle_cv, &j->handle_lock);
	}
	return 0;
}

void jhandle_open(struct jnl *j, unsigned credits)
{
	struct jnl_handle *h = &j->handle;

	fdio_magic_set(h, MAGIC_JOURNAL_HANDLE);
	h->j = j;
	h->txn = j->running;
	h->seq++;
	h->credits = credits;
	h->nr_undo = 0;
	h->nr_images = 0;
	h->cbs = NULL;
	h->cbs_tail = &h->cbs;
	h->undo_cbs = NULL;
	h->txn_mark = jmem_mark(&h->txn->kit->mem);
}

/* Ends the running transaction early, waits until another can start. handle_lock not held. */
static void wait_closed(struct jnl *j, jnl_tid tid)
{
	fdio_mutex_lock(&j->state);
	while (j->head_tid == tid && !jnl_err(j)) {
		j->commit_requested = true;
		j->commit_request = tid;
		pthread_cond_signal(&j->commit_cv);
		fdio_cond_wait(&j->done_cv, &j->state);
	}
	fdio_mutex_unlock(&j->state);
}

/* JOURNAL-3: waits until the checkpoint has made room. handle_lock not held. */
static void wait_space(struct jnl *j, uint32_t need)
{
	fdio_count(CTR_jnl_space_wait);
	fdio_mutex_lock(&j->state);
	j->space_waiters++;
	while (__atomic_load_n(&j->log.free, __ATOMIC_RELAXED) < need && !jnl_err(j)) {
		pthread_cond_signal(&j->cp_cv);
		fdio_cond_wait(&j->space_cv, &j->state);
	}
	j->space_waiters--;
	fdio_mutex_unlock(&j->state);
}

/* handle_lock held: the running transaction, made if there is none. */
static int get_running(struct jnl *j)
{
	struct jtxn *t;

	if (likely(j->running))
		return 0;
	fdio_mutex_lock(&j->state);
	t = jtxn_new(j);
	if (t) {
		t->tid = j->head_tid;
		jtxn_set_state(t, JT_RUNNING);
		j->running = t;
	}
	fdio_mutex_unlock(&j->state);
	return t ? 0 : -ENOMEM;
}

/* There is no memory for more records: the next transaction begins with what is set aside. One that is empty has that already. */
static bool close_for_room(struct jtxn *t)
{
	if (jtxn_empty(t))
		return false;
	fdio_count(CTR_jnl_mem_closed);
	return true;
}

/* handle_lock held: 1 when the handle may start; else drops the lock, waits, and 0 (try again) or an error. May not wait: -EAGAIN. */
static int try_begin(struct jnl *j, unsigned credits)
{
	struct jtxn *t;
	uint32_t need;
	int r;

	r = unlikely(jnl_err(j)) ? -EROFS : get_running(j);
	if (unlikely(r)) {
		fdio_mutex_unlock(&j->handle_lock);
		return r;
	}
	t = j->running;
	if (t->nr + credits > j->usable || jtxn_revoke_blocks(j, t) > j->revoke_slack / 2 ||
	    (!jtxn_has_room(t) && close_for_room(t))) {
		jnl_tid tid = t->tid;

		fdio_mutex_unlock(&j->handle_lock);
		if (nowait_on())
			return nowait_miss();
		wait_closed(j, tid);
		return 0;
	}
	need = jlog_need(&j->log, t->nr + credits + j->seal_reserve, j->revoke_slack);
	if (__atomic_load_n(&j->log.free, __ATOMIC_RELAXED) < need) {
		fdio_mutex_unlock(&j->handle_lock);
		if (nowait_on())
			return nowait_miss();
		wait_space(j, need);
		return 0;
	}
	return 1;
}

int jnl_begin(struct jnl *j, unsigned credits, struct jnl_handle **ret)
{
	int r;

	*ret = NULL;
	fdio_magic_check(j, MAGIC_JOURNAL);
	if (!j->started || jabort_error(j))
		return -EROFS;
	if (credits > j->usable)
		return -ENOSPC;
	do {
		r = take_handle_lock(j);
		if (!r)
			r = try_begin(j, credits);
	} while (!r);
	if (r < 0)
		return jabort_error(j) ? -EROFS : r;
	jhandle_open(j, credits);
	*ret = &j->handle;
	return 0;
}

unsigned jnl_max_credits(struct jnl *j)
{
	return j->usable;
}

unsigned jnl_credits_left(struct jnl_handle *h)
{
	return h->credits;
}

jnl_tid jnl_handle_tid(struct jnl_handle *h)
{
	return h->txn->tid;
}

jnl_tid jhandle_close(struct jnl *j)
{
	struct jnl_handle *h = &j->handle;
	struct jtxn *t = h->txn;

	fdio_magic_clear(h, MAGIC_JOURNAL_HANDLE);
	jundo_end(h);
	if (h->cbs) {
		*t->cbs_tail = h->cbs;
		t->cbs_tail = h->cbs_tail;
	}
	if (!t->dirty_ns && !jtxn_empty(t))
		__atomic_store_n(&t->dirty_ns, fdio_now_ns(), __ATOMIC_RELAXED); /* the commit thread looks often enough */
	h->seq++;
	/* An empty transaction is never written, and its number serves the next change. */
	return jtxn_empty(t) ? t->tid - 1 : t->tid;
}

void jhandle_done(struct jnl *j) { jmem_clear(&j->handle.mem); }

void *jnl_handle_mem(struct jnl_handle *h, size_t size)
{
	return jmem_alloc(&h->mem, size);
}

void *jnl_txn_mem(struct jnl_handle *h, size_t size)
{
	return jmem_alloc(&h->txn->kit->mem, size);
}

void jnl_run_callbacks(struct jnl_callback *cb, int err)
{
	struct jnl_callback *next;

	for (; cb; cb = next) {
		next = cb->next;
		cb->fn(cb, err);
	}
}

/* A deliberate mistake, see JNL_MUTATED: freed blocks are let go before their freeing is durable. */
static struct jnl_callback *take_early(struct jnl_handle *h)
{
	struct jnl_callback *cbs = NULL;

	if (JNL_MUTATED(JM_EARLY_REUSE)) {
		cbs = h->cbs;
		h->cbs = NULL;
		h->cbs_tail = &h->cbs;
	}
	return cbs;
}

jnl_tid jnl_end(struct jnl_handle *h)
{
	struct jnl *j = h->j;
	struct jnl_callback *early = take_early(h);
	jnl_tid tid = jhandle_close(j);
	bool full = j->running->nr > j->usable / 4 * 3;

	FDIO_ASSERT(!nowait_missed()); /* NOWAIT-2 */
	nowait_self.done = true;
	jnl_run_callbacks(h->undo_cbs, 1);
	jhandle_done(j);
	fdio_mutex_unlock(&j->handle_lock);
	jnl_run_callbacks(early, 0);
	if (unlikely(full))
		jnl_commit_start(j, tid);
	return tid;
}

void jnl_on_commit(struct jnl_handle *h, struct jnl_callback *cb)
{
	cb->next = NULL;
	*h->cbs_tail = cb;
	h->cbs_tail = &cb->next;
}

void jnl_on_undo(struct jnl_handle *h, struct jnl_callback *cb)
{
	cb->next = h->undo_cbs;
	h->undo_cbs = cb;
}
