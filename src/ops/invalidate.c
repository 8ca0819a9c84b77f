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
	struct work_queue *thread;
	struct fdio_mutex lock;     /* guards all below */
	struct list free, queued;
	unsigned *waiting;          /* by loop */
	unsigned nr_early, max_early;
	struct notify_rec *recs;
};

static void send_one(struct work *work)
{
	struct notify_rec *record = container_of(work, struct notify_rec, work);
	struct ops *ops = record->ops;
	struct ops_notify *notify = ops->notify;
	struct work *done_work = record->done_work;
	void (*done)(struct work *) = record->done;
	int err;

	fdio_mutex_lock(&notify->lock);
	list_del(&record->node); /* nothing joins it any more */
	fdio_mutex_unlock(&notify->lock);
	err = transport_notify_inval_inode(ops->transport, record->nodeid, (int64_t)record->off,
					   (int64_t)(record->end - record->off));
	if (err && err != -ENOENT)
		log_ratelimited(FDIO_LOG_DEBUG, "page cache of inode %llu was not invalidated: %s",
				(unsigned long long)record->nodeid, strerror(-err));
	fdio_mutex_lock(&notify->lock);
	if (done)
		notify->waiting[record->loop]--;
	else
		notify->nr_early--;
	list_add(&notify->free, &record->node);
	fdio_mutex_unlock(&notify->lock);
	if (done)
		done(done_work); /* queues or replies: it does not block */
}

/* One of the same inode that is yet to be sent; notify->lock held. */
static struct notify_rec *find_queued(struct ops_notify *notify, uint64_t nodeid)
{
	struct notify_rec *record;

	list_for_each(record, &notify->queued, node)
		if (record->nodeid == nodeid)
			return record;
	return NULL;
}

void ops_inval(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len, struct work *work,
	       void (*done)(struct work *))
{
	struct ops *ops = arg;
	struct ops_notify *notify = ops->notify;
	/* The engine's work item is that of the request in the slot. */
	struct ops_req *req = container_of(dio_inval_req(work), struct ops_req, dio);
	/* whoever serves it: the slot is that one's */
	unsigned loop = req->tr.queue, slots = transport_loop_slots(ops->transport, loop);
	/* NOTIFY-1; the ring channel gives two slots of loop 0 to /dev/fuse */
	unsigned limit = slots > 4 ? (slots - 2) / 2 : 0;
	struct notify_rec *record = NULL;
	bool wait;

	fdio_mutex_lock(&notify->lock);
	/*
	 * Only if there is no record left for those who do not wait must one wait beyond the limit:
	 * that many inodes at once.
	 */
	wait = notify->waiting[loop] < limit || notify->nr_early == notify->max_early;
	if (!wait)
		record = find_queued(notify, ops_nodeid(inode));
	if (record) {
		record->off = FDIO_MIN(record->off, off);
		record->end = FDIO_MAX(record->end, off + len);
	} else {
		FDIO_ASSERT(!list_empty(&notify->free));
		record = list_first(&notify->free, struct notify_rec, node);
		*record = (struct notify_rec){ .node = record->node,
					  .ops = ops,
					  .nodeid = ops_nodeid(inode),
					  .off = off,
					  .end = off + len,
					  .loop = loop,
					  .done_work = wait ? work : NULL,
					  .done = wait ? done : NULL };
		list_move_tail(&notify->queued, &record->node);
		if (wait)
			notify->waiting[loop]++;
		else
			notify->nr_early++;
		work_queue_add(notify->thread, &record->work, send_one);
	}
	fdio_mutex_unlock(&notify->lock);
	if (!wait) {
		fdio_count(COUNTER_ops_inval_late);
		dio_inval_late(work);
		done(work);
	}
}

/* No pages are named, so this waits for none and needs no other thread. */
void ops_size_failed(struct ops *ops, struct ext4_inode *inode, uint64_t before)
{
	int err;

	if (likely(nowait_on() || ext4_inode_size(inode) == before))
		return;
	fdio_count(COUNTER_ops_inval_attr);
	err = transport_notify_inval_inode(ops->transport, ops_nodeid(inode), -1, 0);
	if (err && err != -ENOENT)
		log_ratelimited(FDIO_LOG_WARN,
				"inode %u: the kernel was not told of its new size: %s",
				ext4_inode_ino(inode), strerror(-err));
}

int ops_notify_new(struct ops *ops)
{
	struct ops_notify *notify = calloc(1, sizeof(*notify));
	unsigned nr = ops->config.nr_requests ? ops->config.nr_requests : 1;

	if (!notify)
		return -ENOMEM;
	ops->notify = notify;
	fdio_mutex_init(&notify->lock, RANK_OPS_NOTIFY);
	list_init(&notify->free);
	list_init(&notify->queued);
	notify->max_early = nr;
	notify->waiting = calloc(nr, sizeof(*notify->waiting)); /* a loop has a slot at least */
	notify->recs = calloc(2 * (size_t)nr, sizeof(*notify->recs));
	notify->thread = notify->recs && notify->waiting ? work_queue_new("fdio-notify", 1) : NULL;
	if (!notify->thread) {
		ops_notify_free(ops);
		return -ENOMEM;
	}
	for (unsigned k = 0; k < 2 * nr; k++)
		list_add(&notify->free, &notify->recs[k].node);
	return 0;
}

void ops_notify_drain(struct ops *ops)
{
	if (ops->notify)
		work_queue_drain(ops->notify->thread);
}

void ops_notify_free(struct ops *ops)
{
	struct ops_notify *notify = ops->notify;

	if (!notify)
		return;
	work_queue_free(notify->thread);
	fdio_mutex_fini(&notify->lock);
	free(notify->recs);
	free(notify->waiting);
	free(notify);
	ops->notify = NULL;
}
