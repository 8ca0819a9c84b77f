/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Invalidation of the kernel's page cache after direct writes. The order is: device write, publish,
 * unlock, ops_invalidate_pages, answer. While the kernel serves the notification it may write back
 * dirty pages and wait for reads. So a thread of its own (fdio-notify) sends the notifications,
 * with no lock held, and no request needs that thread to be received. ops_invalidate_pages queues
 * the notification and returns; done is called when it has been sent.
 *
 * NOTIFY-1 A notification can wait for a page that a READ has locked, and the READ needs a slot of
 *    its loop to be served. So at most half of a loop's slots wait for notifications. Beyond that a
 *    write is answered first, and its notification follows: for a moment after the answer a cached
 *    read may see the old bytes. Kernels that do not know the notification always behave like that,
 *    and waiting could last for ever.
 *
 * Records are made at mount: one for each request slot that may wait, and as many for notifications
 * that follow their answer. The latter join a record of the same inode that is yet to be sent. A
 * notification that fails is logged.
 */
#include "ops/types.h"

#include "base/counters.h"

#include <stdlib.h>

struct notify_record {
	struct list node;            /* on free, or on queued until it is being sent */
	struct work work;
	struct ops *ops;
	uint64_t nodeid, off, end;   /* bytes [off, end) */
	unsigned loop;               /* index of the loop whose slot waits */
	struct work *done_work;
	void (*done)(struct work *); /* NULL: no slot waits */
};

struct ops_notify {
	struct work_queue *thread;
	struct fdio_mutex lock;      /* guards all below */
	struct list free, queued;
	unsigned *waiting;           /* slots that wait, for each loop */
	unsigned nr_early, max_early; /* records in use that no slot waits for */
	struct notify_record *records;
};

static void send_one(struct work *work)
{
	struct notify_record *record = container_of(work, struct notify_record, work);
	struct ops *ops = record->ops;
	struct ops_notify *notify = ops->notify;
	struct work *done_work = record->done_work;
	void (*done)(struct work *) = record->done;
	int err;

	fdio_mutex_lock(&notify->lock);
	list_del(&record->node); /* from now on find_queued does not find it */
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
		done(done_work); /* queues work or sends the answer; does not block */
}

/* A record of the inode that is yet to be sent, or NULL. notify->lock is held. */
static struct notify_record *find_queued(struct ops_notify *notify, uint64_t nodeid)
{
	struct notify_record *record;

	list_for_each(record, &notify->queued, node)
		if (record->nodeid == nodeid)
			return record;
	return NULL;
}

/* Queues a notification; wait: the slot waits for it. notify->lock is held. */
static void queue_one(struct ops_notify *notify, const struct notify_record *what, bool wait)
{
	struct notify_record *record;
	struct list node;

	FDIO_ASSERT(!list_empty(&notify->free));
	record = list_first(&notify->free, struct notify_record, node);
	node = record->node;
	*record = *what;
	record->node = node;
	list_move_tail(&notify->queued, &record->node);
	if (wait)
		notify->waiting[record->loop]++;
	else
		notify->nr_early++;
	work_queue_add(notify->thread, &record->work, send_one);
}

/* How many slots of a loop may wait (NOTIFY-1). The ring gives two of loop 0 to /dev/fuse. */
static unsigned max_waiting(struct ops *ops, unsigned loop)
{
	unsigned slots = transport_loop_slots(ops->transport, loop);

	return slots > 4 ? (slots - 2) / 2 : 0;
}

void ops_invalidate_pages(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len,
			  struct work *work, void (*done)(struct work *))
{
	struct ops *ops = arg;
	struct ops_notify *notify = ops->notify;
	struct ops_req *req = container_of(dio_inval_req(work), struct ops_req, dio);
	unsigned loop = req->fuse.queue; /* owns the slot, whichever loop serves the request */
	unsigned limit = max_waiting(ops, loop);
	struct notify_record *record = NULL;
	bool wait;

	fdio_mutex_lock(&notify->lock);
	/* Beyond the limit a slot waits only if max_early other inodes have taken all records. */
	wait = notify->waiting[loop] < limit || notify->nr_early == notify->max_early;
	if (!wait)
		record = find_queued(notify, ops_nodeid(inode));
	if (record) {
		record->off = FDIO_MIN(record->off, off);
		record->end = FDIO_MAX(record->end, off + len);
	} else {
		const struct notify_record what = { .ops = ops,
						    .nodeid = ops_nodeid(inode),
						    .off = off,
						    .end = off + len,
						    .loop = loop,
						    .done_work = wait ? work : NULL,
						    .done = wait ? done : NULL };

		queue_one(notify, &what, wait);
	}
	fdio_mutex_unlock(&notify->lock);
	if (!wait) {
		fdio_count(COUNTER_ops_inval_late);
		dio_inval_late(work);
		done(work);
	}
}

/* This notification covers no pages, so the kernel does not wait: any thread may send it. */
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
	/* Each loop has a slot at least, so there are no more than nr loops. */
	notify->waiting = calloc(nr, sizeof(*notify->waiting));
	notify->records = calloc(2 * (size_t)nr, sizeof(*notify->records));
	if (notify->records && notify->waiting)
		notify->thread = work_queue_new("fdio-notify", 1);
	if (!notify->thread) {
		ops_notify_free(ops);
		return -ENOMEM;
	}
	for (unsigned k = 0; k < 2 * nr; k++)
		list_add(&notify->free, &notify->records[k].node);
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
	free(notify->records);
	free(notify->waiting);
	free(notify);
	ops->notify = NULL;
}
