/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flush sequencer: one device flush for all callers that wait for one. Called by the sync
 * workers, the journal and the metadata workers, never by a loop thread.
 *
 * Rule: a flush covers what completed before it was issued, so a caller that arrives while a flush
 * runs is not covered by it and waits for the next. Every caller stands in the list `waiting` until
 * some leader takes the whole list with it; the leader is whichever caller finds no flush running.
 * The leader gives each of those it took the result of exactly that flush: nobody else sees its
 * error, and nobody misses it. Others who may have lost by it hear of it through
 * dev_on_flush_failure's callback.
 *
 * Lock: `lock`, rank RANK_DEV, guards everything here; it is not held while the device flushes.
 * Waiters live on their callers' stacks, so nothing is allocated and only the flush itself can
 * fail.
 */
#include "dev/flush.h"

#include "base/counters.h"
#include "base/list.h"
#include "base/lock.h"
#include "base/log.h"
#include "dev/dev.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct dev_flusher {
	struct fdio_mutex lock;
	pthread_cond_t changed;
	struct list waiting; /* flush_waiter.node: not covered by a flush that was issued */
	bool running;
	void (*failed)(void *arg); /* dev_on_flush_failure */
	void *failed_arg;
};

struct flush_waiter {
	struct list node;
	bool done;
	int err;
};

struct dev_flusher *dev_flusher_new(void)
{
	struct dev_flusher *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	fdio_mutex_init(&f->lock, RANK_DEV);
	fdio_cond_init(&f->changed);
	list_init(&f->waiting);
	return f;
}

void dev_flusher_free(struct dev_flusher *f)
{
	if (!f)
		return;
	FDIO_ASSERT(list_empty(&f->waiting) && !f->running);
	pthread_cond_destroy(&f->changed);
	fdio_mutex_fini(&f->lock);
	free(f);
}

unsigned dev_flusher_waiting(struct dev_flusher *f)
{
	struct flush_waiter *w;
	unsigned n = 0;

	fdio_mutex_lock(&f->lock);
	list_for_each(w, &f->waiting, node)
		n++;
	fdio_mutex_unlock(&f->lock);
	return n;
}

void dev_on_flush_failure(struct dev *d, void (*fn)(void *arg), void *arg)
{
	struct dev_flusher *f = d->flusher;

	fdio_mutex_lock(&f->lock);
	while (!fn && f->running) /* it may be about to call */
		fdio_cond_wait(&f->changed, &f->lock);
	f->failed = fn;
	f->failed_arg = arg;
	fdio_mutex_unlock(&f->lock);
}

/* With the lock held, dropped over the flush itself. */
static void lead_one_flush(struct dev *d, struct dev_flusher *f)
{
	struct list covered;
	struct flush_waiter *w, *tmp;
	void (*failed)(void *arg) = f->failed;
	void *failed_arg = f->failed_arg;
	struct dev_call c;
	int err;

	list_init(&covered);
	list_splice_tail(&covered, &f->waiting);
	f->running = true;
	fdio_mutex_unlock(&f->lock);

	dev_call_begin(d, &c, CTR_dev_flush, 1, 0, 0);
	err = d->ops->flush(d);
	dev_call_end(d, &c);
	if (err < 0) {
		log_ratelimited(FDIO_LOG_ERR, "%s: device flush failed: %s", d->name, strerror(-err));
		if (failed)
			failed(failed_arg);
		err = -EIO;
	} else {
		err = 0;
	}

	fdio_mutex_lock(&f->lock);
	f->running = false;
	list_for_each_safe(w, tmp, &covered, node) {
		list_del(&w->node);
		w->err = err;
		w->done = true;
	}
	pthread_cond_broadcast(&f->changed);
}

int dev_flush(struct dev *d)
{
	struct dev_flusher *f = d->flusher;
	struct flush_waiter w = { .done = false };

	if (!d->caps.volatile_cache) {
		fdio_count(CTR_dev_flush);
		fdio_count(CTR_dev_done);
		return 0;
	}
	fdio_mutex_lock(&f->lock);
	list_add_tail(&f->waiting, &w.node);
	while (!w.done) {
		if (f->running)
			fdio_cond_wait(&f->changed, &f->lock);
		else
			lead_one_flush(d, f);
	}
	fdio_mutex_unlock(&f->lock);
	return w.err;
}
