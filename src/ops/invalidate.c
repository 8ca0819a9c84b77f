/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Page cache invalidation after direct writes. The kernel may write back dirty pages and wait for
 * reads while it serves a notification, so notifications are sent by a thread of their own, which
 * holds no lock and on which no request ever waits to be received. Order for the engine: device
 * write, publish, unlock, ops_inval, reply.
 *
 * NOTIFY-1 A notification can wait for a page that a READ has locked, and that READ needs a slot of
 *    its loop to be served. So at most half of a loop's slots wait for notifications; beyond that a
 *    write is answered first and its notification follows. A cached read may then see the old bytes
 *    for a moment after the write was answered, which is what kernels do that know no invalidation
 *    here at all; waiting could be for ever.
 *
 * Records are preallocated: one for each request slot that may wait, and as many for what was
 * answered early. Those of one inode that have not been sent yet are joined.
 */
#include "ops/types.h"

#include "base/counters.h"

#include <stdlib.h>

struct notify_rec {
	struct list node;           /* on free, or on queued until it is sent */
	struct work work;
	struct ops *ops;
	uint64_t nodeid, off, end;
	unsigned loop;              /* whose slot waits */
	struct work *done_work;
	void (*done)(struct work *); /* NULL: nobody waits */
};

struct ops_notify {
	struct wq *thread;
	struct fdio_mutex lock;     /* guards all below */
	struct list free, queued;
	unsigned *waiting;          /* by loop */
	unsigned nr_early, max_early;
	struct notify_rec *recs;
};

static void send_one(struct work *w)
{
	struct notify_rec *r = container_of(w, struct notify_rec, work);
	struct ops *o = r->ops;
	struct ops_notify *n = o->notify;
	struct work *done_work = r->done_work;
	void (*done)(struct work *) = r->done;
	int err;

	fdio_mutex_lock(&n->lock);
	list_del(&r->node); /* nothing joins it any more */
	fdio_mutex_unlock(&n->lock);
	err = tr_notify_inval_inode(o->tr, r->nodeid, (int64_t)r->off, (int64_t)(r->end - r->off));
	if (err && err != -ENOENT)
		log_ratelimited(FDIO_LOG_DEBUG, "page cache of inode %llu was not invalidated: %s",
				(unsigned long long)r->nodeid, strerror(-err));
	fdio_mutex_lock(&n->lock);
	if (done)
		n->waiting[r->loop]--;
	else
		n->nr_early--;
	list_add(&n->free, &r->node);
	fdio_mutex_unlock(&n->lock);
	if (done)
		done(done_work); /* queues or replies: it does not block */
}

/* One of the same inode that is yet to be sent; n->lock held. */
static struct notify_rec *find_queued(struct ops_notify *n, uint64_t nodeid)
{
	struct notify_rec *r;

	list_for_each(r, &n->queued, node)
		if (r->nodeid == nodeid)
			return r;
	return NULL;
}

void ops_inval(void *arg, struct x4_inode *i, uint64_t off, uint64_t len, struct work *w,
	       void (*done)(struct work *))
{
	struct ops *o = arg;
	struct ops_notify *n = o->notify;
	/* The engine's work item is that of the request in the slot. */
	struct ops_req *q = container_of(dio_inval_req(w), struct ops_req, dio);
	/* whoever serves it: the slot is that one's */
	unsigned loop = q->tr.queue, slots = tr_loop_slots(o->tr, loop);
	/* NOTIFY-1; the ring channel gives two slots of loop 0 to /dev/fuse */
	unsigned limit = slots > 4 ? (slots - 2) / 2 : 0;
	struct notify_rec *r = NULL;
	bool wait;

	fdio_mutex_lock(&n->lock);
	/*
	 * Only if there is no record left for those who do not wait must one wait beyond the limit:
	 * that many inodes at once.
	 */
	wait = n->waiting[loop] < limit || n->nr_early == n->max_early;
	if (!wait)
		r = find_queued(n, ops_nodeid(i));
	if (r) {
		r->off = FDIO_MIN(r->off, off);
		r->end = FDIO_MAX(r->end, off + len);
	} else {
		FDIO_ASSERT(!list_empty(&n->free));
		r = list_first(&n->free, struct notify_rec, node);
		*r = (struct notify_rec){ .node = r->node,
					  .ops = o,
					  .nodeid = ops_nodeid(i),
					  .off = off,
					  .end = off + len,
					  .loop = loop,
					  .done_work = wait ? w : NULL,
					  .done = wait ? done : NULL };
		list_move_tail(&n->queued, &r->node);
		if (wait)
			n->waiting[loop]++;
		else
			n->nr_early++;
		wq_queue(n->thread, &r->work, send_one);
	}
	fdio_mutex_unlock(&n->lock);
	if (!wait) {
		fdio_count(CTR_ops_inval_late);
		dio_inval_late(w);
		done(w);
	}
}

/* No pages are named, so this waits for none and needs no other thread. */
void ops_size_failed(struct ops *o, struct x4_inode *i, uint64_t before)
{
	int err;

	if (likely(nowait_on() || x4_inode_size(i) == before))
		return;
	fdio_count(CTR_ops_inval_attr);
	err = tr_notify_inval_inode(o->tr, ops_nodeid(i), -1, 0);
	if (err && err != -ENOENT)
		log_ratelimited(FDIO_LOG_WARN,
				"inode %u: the kernel was not told of its new size: %s",
				x4_inode_ino(i), strerror(-err));
}

int ops_notify_new(struct ops *o)
{
	struct ops_notify *n = calloc(1, sizeof(*n));
	unsigned nr = o->cfg.nr_requests ? o->cfg.nr_requests : 1;

	if (!n)
		return -ENOMEM;
	o->notify = n;
	fdio_mutex_init(&n->lock, RANK_OPS_NOTIFY);
	list_init(&n->free);
	list_init(&n->queued);
	n->max_early = nr;
	n->waiting = calloc(nr, sizeof(*n->waiting)); /* a loop has a slot at least */
	n->recs = calloc(2 * (size_t)nr, sizeof(*n->recs));
	n->thread = n->recs && n->waiting ? wq_new("fdio-notify", 1) : NULL;
	if (!n->thread) {
		ops_notify_free(o);
		return -ENOMEM;
	}
	for (unsigned k = 0; k < 2 * nr; k++)
		list_add(&n->free, &n->recs[k].node);
	return 0;
}

void ops_notify_drain(struct ops *o)
{
	if (o->notify)
		wq_drain(o->notify->thread);
}

void ops_notify_free(struct ops *o)
{
	struct ops_notify *n = o->notify;

	if (!n)
		return;
	wq_free(n->thread);
	fdio_mutex_fini(&n->lock);
	free(n->recs);
	free(n->waiting);
	free(n);
	o->notify = NULL;
}
