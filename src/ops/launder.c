/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Laundering pages of files that may be mapped. Programs store into mapped pages without the daemon
 * being notified. Before an answer that would be wrong because of such stores (dio/pagecache.c has
 * the cases), the kernel is made to write the pages back and to forget them, by a notification.
 *
 * While the kernel serves the notification, it waits for pages that READs have locked and for the
 * WRITEs of dirty pages, which need slots and workers; in one case it waits for the very request
 * that waits for the notification. So threads that do nothing else (fdio-launder) send them, no
 * worker waits, and a request waits no longer than its time: then the clock's thread (fdio-clock)
 * lets it go on with cached_late set. The notification does no harm when it ends later. With
 * cached_late, LSEEK and the count of blocks take for data whatever the kernel may hold (space.c,
 * attributes.c), and a time that SETATTR sets may be changed by the pages.
 *
 * Workers start laundering and loop threads miss; nothing is locked by the callers. Records are
 * made at mount. If all are in use, a request is late at once. Nothing else fails.
 */
#include "ops/types.h"

#include "base/thread.h"

#include <stdlib.h>

#define NR_RECORDS 64u
#define NR_THREADS 4u
#define WAIT_MS 2000u /* how long a request waits */
/*
 * From this minor version of the protocol on, the kernel zeroes its pages behind the old end when a
 * file grows.
 */
#define MINOR_CLEARS_TAIL 46u

struct launder_record {
	/* on free or waiting; on neither while it is still being sent after the request went on */
	struct list node;
	struct work work;
	struct ops *ops;
	uint64_t nodeid, off, len;   /* bytes */
	uint64_t deadline;           /* of fdio_now_ns */
	struct work *done_work;
	void (*done)(struct work *, bool late); /* NULL: the request went on */
};

struct ops_launder {
	struct work_queue *threads;
	pthread_t clock;
	bool has_clock;
	pthread_cond_t cond;
	struct fdio_mutex lock;      /* guards all below */
	struct list free, waiting;
	bool ending;
	struct launder_record records[NR_RECORDS];
};

bool ops_kernel_clears_tail(const struct ops *ops)
{
	return transport_conn(ops->transport)->kernel_minor >= MINOR_CLEARS_TAIL;
}

static void send_one(struct work *work)
{
	struct launder_record *record = container_of(work, struct launder_record, work);
	struct ops_launder *launder = record->ops->launder;
	struct work *done_work;
	void (*done)(struct work *, bool late);
	int err = transport_notify_inval_inode(record->ops->transport, record->nodeid,
					       (int64_t)record->off, (int64_t)record->len);

	if (err && err != -ENOENT)
		log_ratelimited(FDIO_LOG_DEBUG, "pages of inode %llu were not forgotten: %s",
				(unsigned long long)record->nodeid, strerror(-err));
	fdio_mutex_lock(&launder->lock);
	done = record->done;
	done_work = record->done_work;
	if (done)
		list_del(&record->node);
	list_add(&launder->free, &record->node);
	fdio_mutex_unlock(&launder->lock);
	if (done)
		done(done_work, false);
}

/*
 * A record whose deadline has passed; else NULL, and the next deadline (UINT64_MAX: none).
 * launder->lock is held.
 */
static struct launder_record *first_late(struct ops_launder *launder, uint64_t *ret_next)
{
	struct launder_record *record;
	uint64_t now = fdio_now_ns();

	*ret_next = UINT64_MAX;
	list_for_each(record, &launder->waiting, node) {
		if (record->deadline <= now)
			return record;
		*ret_next = FDIO_MIN(*ret_next, record->deadline);
	}
	return NULL;
}

/* Lets the request of the record go on. launder->lock is held, and dropped for a moment. */
static void give_up(struct ops_launder *launder, struct launder_record *record)
{
	struct work *done_work = record->done_work;
	void (*done)(struct work *, bool late) = record->done;

	list_del(&record->node);
	record->done = NULL;
	fdio_mutex_unlock(&launder->lock);
	fdio_count(COUNTER_ops_launder_late);
	done(done_work, true);
	fdio_mutex_lock(&launder->lock);
}

static void *run_clock(void *arg)
{
	struct ops_launder *launder = arg;
	uint64_t next;

	fdio_mutex_lock(&launder->lock);
	while (!launder->ending) {
		struct launder_record *record = first_late(launder, &next);

		if (record)
			give_up(launder, record);
		else if (next == UINT64_MAX)
			fdio_cond_wait(&launder->cond, &launder->lock);
		else
			fdio_cond_timedwait(&launder->cond, &launder->lock, next);
	}
	fdio_mutex_unlock(&launder->lock);
	return NULL;
}

/* Has len bytes at off laundered, then calls done: after ms milliseconds at the latest. */
static void launder(struct ops *ops, struct ext4_inode *inode, uint64_t off, uint64_t len,
		    unsigned ms, struct work *work, void (*done)(struct work *, bool late))
{
	struct ops_launder *launder = ops->launder;
	struct launder_record *record = NULL;

	fdio_mutex_lock(&launder->lock);
	if (!list_empty(&launder->free)) {
		record = list_first(&launder->free, struct launder_record, node);
		*record = (struct launder_record){
			.node = record->node,
			.ops = ops,
			.nodeid = ops_nodeid(inode),
			.off = off,
			.len = len,
			.deadline = fdio_now_ns() + ms * 1000000ULL,
			.done_work = work,
			.done = done,
		};
		list_move_tail(&launder->waiting, &record->node);
		pthread_cond_signal(&launder->cond);
		work_queue_add(launder->threads, &record->work, send_one);
	}
	fdio_mutex_unlock(&launder->lock);
	fdio_count(record ? COUNTER_ops_launder : COUNTER_ops_launder_late);
	if (!record)
		done(work, true);
}

void ops_launder_pages(void *arg, struct ext4_inode *inode, uint64_t off, uint64_t len, unsigned ms,
		       struct work *work, void (*done)(struct work *, bool late))
{
	struct ops *ops = arg;

	if (ops_kernel_clears_tail(ops))
		done(work, false);
	else
		launder(ops, inode, off, len, ms, work, done);
}

/* ---- requests that wait for laundering before they are served ---- */

static void serve_on_worker(struct work *work)
{
	struct ops_req *req = container_of(work, struct ops_req, work);

	dio_cached_done(req->inode, &req->cached, req->cached_late);
	ext4_inode_put(req->inode);
	req->inode = NULL;
	req->handler->fn(req);
}

/* The callback of ops_launder_first. */
static void serve(struct work *work, bool late)
{
	struct ops_req *req = container_of(work, struct ops_req, work);

	req->cached_late = late;
	work_queue_add(req->ops->config.workers, &req->work, serve_on_worker);
}

bool ops_launder_first(struct ops_req *req, struct ext4_inode *inode, enum dio_cached_what what)
{
	if (likely(req->laundered || !S_ISREG(ext4_inode_mode(inode)) ||
		   !dio_cached_maybe(inode, what, 0)))
		return false;
	if (nowait_on()) {
		nowait_miss();
		return false; /* the answer of the handler will be withheld */
	}
	if (!dio_cached_take(inode, what, 0, &req->cached))
		return false;
	req->laundered = true;
	req->inode = ext4_inode_ref(inode);
	launder(req->ops, inode, req->cached.off, req->cached.end - req->cached.off, WAIT_MS,
		&req->work, serve);
	return true;
}

/* The callback of ops_launder_tail: answers with success even if late, as the file has grown. */
static void tail_gone(struct work *work, bool late)
{
	struct ops_req *req = container_of(work, struct ops_req, work);

	(void)late;
	ops_reply_err(req, 0);
}

bool ops_launder_tail(struct ops_req *req, struct ext4_inode *inode, uint64_t old_size)
{
	struct dio_cached *cached = &req->cached;

	if (likely(!dio_cached_maybe(inode, DIO_CACHED_TAIL, old_size)))
		return false;
	if (ops_kernel_clears_tail(req->ops) ||
	    !dio_cached_take(inode, DIO_CACHED_TAIL, old_size, cached))
		return false;
	launder(req->ops, inode, cached->off, cached->end - cached->off, WAIT_MS, &req->work,
		tail_gone);
	return true;
}

/* ---- life ---- */

int ops_launder_new(struct ops *ops)
{
	struct ops_launder *launder = calloc(1, sizeof(*launder));

	if (!launder)
		return -ENOMEM;
	ops->launder = launder;
	fdio_mutex_init(&launder->lock, RANK_OPS_NOTIFY);
	fdio_cond_init(&launder->cond);
	list_init(&launder->free);
	list_init(&launder->waiting);
	for (unsigned k = 0; k < NR_RECORDS; k++)
		list_add(&launder->free, &launder->records[k].node);
	launder->threads = work_queue_new("fdio-launder", NR_THREADS);
	launder->has_clock = launder->threads &&
			     !thread_start(&launder->clock, "fdio-clock", run_clock, launder);
	if (launder->has_clock)
		return 0;
	ops_launder_free(ops);
	return -ENOMEM;
}

/* All requests are answered, but notifications of late ones may still be under way. */
void ops_launder_drain(struct ops *ops)
{
	if (ops->launder)
		work_queue_drain(ops->launder->threads);
}

void ops_launder_free(struct ops *ops)
{
	struct ops_launder *launder = ops->launder;

	if (!launder)
		return;
	work_queue_free(launder->threads);
	fdio_mutex_lock(&launder->lock);
	launder->ending = true;
	pthread_cond_signal(&launder->cond);
	fdio_mutex_unlock(&launder->lock);
	if (launder->has_clock)
		pthread_join(launder->clock, NULL);
	pthread_cond_destroy(&launder->cond);
	fdio_mutex_fini(&launder->lock);
	free(launder);
	ops->launder = NULL;
}
