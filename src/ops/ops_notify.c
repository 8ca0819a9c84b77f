/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Page cache invalidation after direct writes. The kernel may write back dirty pages and wait for reads while it
 * serves a notification, so notifications are sent by a thread of their own, which holds no lock and on which no
 * request ever waits to be received. Records are preallocated, one for each request slot, because a request can
 * wait for at most one invalidation. Order for the engine: device write, publish, unlock, ops_inval, reply.
 */
#include "ops/ops_types.h"

#include <stdlib.h>

struct notify_rec {
	struct work work;
	struct ops *ops;
	uint64_t nodeid, off, len;
	struct work *done_work;
	void (*done)(struct work *);
	struct notify_rec *next_free;
};

struct ops_notify {
	struct wq *thread;
	struct fdio_mutex lock;     /* guards: free */
	struct notify_rec *free;
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

	err = tr_notify_inval_inode(o->tr, r->nodeid, (int64_t)r->off, (int64_t)r->len);
	if (err && err != -ENOENT)
		log_ratelimited(FDIO_LOG_DEBUG, "page cache of inode %llu was not invalidated: %s", (unsigned long long)r->nodeid,
				strerror(-err));
	fdio_mutex_lock(&n->lock);
	r->next_free = n->free;
	n->free = r;
	fdio_mutex_unlock(&n->lock);
	done(done_work); /* queues or replies: it does not block */
}

void ops_inval(void *arg, struct x4_inode *i, uint64_t off, uint64_t len, struct work *w, void (*done)(struct work *))
{
	struct ops *o = arg;
	struct ops_notify *n = o->notify;
	struct notify_rec *r;

	fdio_mutex_lock(&n->lock);
	r = n->free;
	FDIO_ASSERT(r);
	n->free = r->next_free;
	fdio_mutex_unlock(&n->lock);
	r->nodeid = ops_nodeid(i);
	r->off = off;
	r->len = len;
	r->done_work = w;
	r->done = done;
	wq_queue(n->thread, &r->work, send_one);
}

int ops_notify_new(struct ops *o)
{
	struct ops_notify *n = calloc(1, sizeof(*n));
	unsigned nr = o->cfg.nr_requests ? o->cfg.nr_requests : 1;

	if (!n)
		return -ENOMEM;
	o->notify = n;
	fdio_mutex_init(&n->lock, RANK_LEAF);
	n->recs = calloc(nr, sizeof(*n->recs));
	n->thread = n->recs ? wq_new("fdio-notify", 1) : NULL;
	if (!n->thread) {
		ops_notify_free(o);
		return -ENOMEM;
	}
	for (unsigned k = 0; k < nr; k++) {
		n->recs[k].ops = o;
		n->recs[k].next_free = n->free;
		n->free = &n->recs[k];
	}
	return 0;
}

void ops_notify_free(struct ops *o)
{
	struct ops_notify *n = o->notify;

	if (!n)
		return;
	wq_free(n->thread);
	fdio_mutex_fini(&n->lock);
	free(n->recs);
	free(n);
	o->notify = NULL;
}
