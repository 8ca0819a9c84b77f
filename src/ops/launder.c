/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pages of files that may be mapped: before an answer that would be wrong because of a store that
 * nobody has told us of, the kernel is made to write the pages back and to forget them
 * (dio/pagecache.c says when).
 *
 * The notification waits for pages that READs have locked and for the WRITEs of what is dirty,
 * which need slots and workers, and in one case for the very request that waits for it. So each is
 * sent by threads that do nothing else, no worker waits for it, and it is waited for only so long:
 * then the clock's thread lets the request go on as if there had been none, and the notification,
 * which harms nobody when it comes late, ends when it ends.
 *
 * Records are preallocated. When all are in use a request goes on without.
 */
#include "ops/types.h"

#include "base/thread.h"

#include <stdlib.h>

#define NR_RECS 64u
#define NR_THREADS 4u
#define WAIT_MS 2000u
/* From this minor version on the kernel clears what pages hold behind the end when a file grows. */
#define MINOR_CLEARS_TAIL 46u

struct launder_rec {
	struct list node;            /* on free or waiting; on none: given up, still being sent */
	struct work work;
	struct ops *ops;
	uint64_t nodeid, off, len;
	uint64_t deadline;
	struct work *done_work;
	void (*done)(struct work *, bool late); /* NULL: given up */
};

struct ops_launder {
	struct wq *threads;
	pthread_t clock;
	bool has_clock;
	pthread_cond_t cond;
	struct fdio_mutex lock;      /* guards all below */
	struct list free, waiting;
	bool ending;
	struct launder_rec recs[NR_RECS];
};

bool ops_kernel_clears_tail(const struct ops *o)
{
	return tr_conn(o->tr)->kernel_minor >= MINOR_CLEARS_TAIL;
}

static void send_one(struct work *w)
{
	struct launder_rec *r = container_of(w, struct launder_rec, work);
	struct ops_launder *l = r->ops->launder;
	struct work *done_work;
	void (*done)(struct work *, bool late);
	int err = tr_notify_inval_inode(r->ops->tr, r->nodeid, (int64_t)r->off, (int64_t)r->len);

	if (err && err != -ENOENT)
		log_ratelimited(FDIO_LOG_DEBUG, "pages of inode %llu were not forgotten: %s",
				(unsigned long long)r->nodeid, strerror(-err));
	fdio_mutex_lock(&l->lock);
	done = r->done;
	done_work = r->done_work;
	if (done)
		list_del(&r->node);
	list_add(&l->free, &r->node);
	fdio_mutex_unlock(&l->lock);
	if (done)
		done(done_work, false);
}

/* The first whose time is over, given up; else NULL and when to look again. l->lock held. */
static struct launder_rec *first_late(struct ops_launder *l, uint64_t *ret_next)
{
	struct launder_rec *r;
	uint64_t now = fdio_now_ns();

	*ret_next = UINT64_MAX;
	list_for_each(r, &l->waiting, node) {
		if (r->deadline <= now)
			return r;
		*ret_next = FDIO_MIN(*ret_next, r->deadline);
	}
	return NULL;
}

static void *run_clock(void *arg)
{
	struct ops_launder *l = arg;
	uint64_t next;

	fdio_mutex_lock(&l->lock);
	while (!l->ending) {
		struct launder_rec *r = first_late(l, &next);

		if (!r) {
			if (next == UINT64_MAX)
				fdio_cond_wait(&l->cond, &l->lock);
			else
				fdio_cond_timedwait(&l->cond, &l->lock, next);
			continue;
		}
		struct work *done_work = r->done_work;
		void (*done)(struct work *, bool late) = r->done;

		list_del(&r->node);
		r->done = NULL;
		fdio_mutex_unlock(&l->lock);
		fdio_count(CTR_ops_launder_late);
		done(done_work, true);
		fdio_mutex_lock(&l->lock);
	}
	fdio_mutex_unlock(&l->lock);
	return NULL;
}

static void launder(struct ops *o, struct x4_inode *i, uint64_t off, uint64_t len, unsigned ms,
		    struct work *w, void (*done)(struct work *, bool late))
{
	struct ops_launder *l = o->launder;
	struct launder_rec *r = NULL;

	fdio_mutex_lock(&l->lock);
	if (!list_empty(&l->free)) {
		r = list_first(&l->free, struct launder_rec, node);
		*r = (struct launder_rec){
			.node = r->node, .ops = o, .nodeid = ops_nodeid(i), .off = off, .len = len,
			.deadline = fdio_now_ns() + ms * 1000000ULL, .done_work = w, .done = done,
		};
		list_move_tail(&l->waiting, &r->node);
		pthread_cond_signal(&l->cond);
		wq_queue(l->threads, &r->work, send_one); /* the last touch */
	}
	fdio_mutex_unlock(&l->lock);
	fdio_count(r ? CTR_ops_launder : CTR_ops_launder_late);
	if (!r)
		done(w, true);
}

void ops_launder_pages(void *arg, struct x4_inode *i, uint64_t off, uint64_t len, unsigned ms,
		       struct work *w, void (*done)(struct work *, bool late))
{
	struct ops *o = arg;

	if (ops_kernel_clears_tail(o))
		done(w, false);
	else
		launder(o, i, off, len, ms, w, done);
}

/* ---- requests that have it done before they are served ---- */

static void again_on_worker(struct work *w)
{
	struct ops_req *q = container_of(w, struct ops_req, work);

	dio_cached_done(q->inode, &q->cached, q->cached_late);
	x4_iput(q->inode);
	q->inode = NULL;
	q->handler->fn(q);
}

static void go_on(struct work *w, bool late)
{
	struct ops_req *q = container_of(w, struct ops_req, work);

	q->cached_late = late;
	wq_queue(q->ops->cfg.workers, &q->work, again_on_worker);
}

bool ops_launder_first(struct ops_req *q, struct x4_inode *i, enum dio_cached_what what)
{
	if (likely(q->laundered || !S_ISREG(x4_inode_mode(i)) || !dio_cached_maybe(i, what, 0)))
		return false;
	if (nowait_on()) {
		nowait_miss();
		return false; /* there will be no answer */
	}
	if (!dio_cached_take(i, what, 0, &q->cached))
		return false;
	q->laundered = true;
	q->inode = x4_iref(i);
	launder(q->ops, i, q->cached.off, q->cached.end - q->cached.off, WAIT_MS, &q->work, go_on);
	return true;
}

static void tail_gone(struct work *w, bool late)
{
	struct ops_req *q = container_of(w, struct ops_req, work);

	(void)late;
	ops_reply_err(q, 0);
}

bool ops_launder_tail(struct ops_req *q, struct x4_inode *i, uint64_t old_size)
{
	struct dio_cached *c = &q->cached;

	if (likely(!dio_cached_maybe(i, DIO_CACHED_TAIL, old_size)))
		return false;
	if (ops_kernel_clears_tail(q->ops) || !dio_cached_take(i, DIO_CACHED_TAIL, old_size, c))
		return false;
	launder(q->ops, i, c->off, c->end - c->off, WAIT_MS, &q->work, tail_gone);
	return true;
}

/* ---- life ---- */

int ops_launder_new(struct ops *o)
{
	struct ops_launder *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	o->launder = l;
	fdio_mutex_init(&l->lock, RANK_OPS_NOTIFY);
	fdio_cond_init(&l->cond);
	list_init(&l->free);
	list_init(&l->waiting);
	for (unsigned k = 0; k < NR_RECS; k++)
		list_add(&l->free, &l->recs[k].node);
	l->threads = wq_new("fdio-launder", NR_THREADS);
	l->has_clock = l->threads && !thread_start(&l->clock, "fdio-clock", run_clock, l);
	if (l->has_clock)
		return 0;
	ops_launder_free(o);
	return -ENOMEM;
}

/* Each request has its answer; what was given up may still be under way. */
void ops_launder_drain(struct ops *o)
{
	if (o->launder)
		wq_drain(o->launder->threads);
}

void ops_launder_free(struct ops *o)
{
	struct ops_launder *l = o->launder;

	if (!l)
		return;
	wq_free(l->threads);
	fdio_mutex_lock(&l->lock);
	l->ending = true;
	pthread_cond_signal(&l->cond);
	fdio_mutex_unlock(&l->lock);
	if (l->has_clock)
		pthread_join(l->clock, NULL);
	pthread_cond_destroy(&l->cond);
	fdio_mutex_fini(&l->lock);
	free(l);
	o->launder = NULL;
}
