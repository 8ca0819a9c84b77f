/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The flush sequencer: one device flush for all callers that wait for one. Called on threads that
 * may block (syncers, the journal's threads, workers), never on a loop thread.
 *
 * A flush covers what completed before it was issued. So a caller that arrives while a flush runs
 * is not covered by it and waits for the next. Each caller stands in the list `waiting`
 * until a leader takes the whole list: the leader is the caller that finds no flush running. Every
 * caller it took gets the result of exactly that flush, so none misses an error, and no other
 * caller sees it. Files that may have lost data without a waiting caller are told through
 * dev_on_flush_failure.
 *
 * dev_flusher.lock (RANK_DEV) guards everything here and is not held while the device flushes.
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
	struct list waiting; /* flush_waiter.node: not covered by a flush issued so far */
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
	struct dev_flusher *flusher = calloc(1, sizeof(*flusher));

	if (!flusher)
		return NULL;
	fdio_mutex_init(&flusher->lock, RANK_DEV);
	fdio_cond_init(&flusher->changed);
	list_init(&flusher->waiting);
	return flusher;
}

void dev_flusher_free(struct dev_flusher *flusher)
{
	if (!flusher)
		return;
	FDIO_ASSERT(list_empty(&flusher->waiting) && !flusher->running);
	pthread_cond_destroy(&flusher->changed);
	fdio_mutex_fini(&flusher->lock);
	free(flusher);
}

unsigned dev_flusher_waiting(struct dev_flusher *flusher)
{
	struct flush_waiter *waiter;
	unsigned n = 0;

	fdio_mutex_lock(&flusher->lock);
	list_for_each(waiter, &flusher->waiting, node)
		n++;
	fdio_mutex_unlock(&flusher->lock);
	return n;
}

void dev_on_flush_failure(struct dev *dev, void (*fn)(void *arg), void *arg)
{
	struct dev_flusher *flusher = dev->flusher;

	fdio_mutex_lock(&flusher->lock);
	while (!fn && flusher->running) /* the flush may be about to call the old one */
		fdio_cond_wait(&flusher->changed, &flusher->lock);
	flusher->failed = fn;
	flusher->failed_arg = arg;
	fdio_mutex_unlock(&flusher->lock);
}

/* Flushes for all callers in waiting. The lock is held, and dropped during the flush. */
static void lead_one_flush(struct dev *dev, struct dev_flusher *flusher)
{
	struct list covered;
	struct flush_waiter *waiter, *tmp;
	void (*failed)(void *arg) = flusher->failed;
	void *failed_arg = flusher->failed_arg;
	struct dev_call call;
	int err;

	list_init(&covered);
	list_splice_tail(&covered, &flusher->waiting);
	flusher->running = true;
	fdio_mutex_unlock(&flusher->lock);

	dev_call_begin(dev, &call, COUNTER_dev_flush, 1, 0, 0);
	err = dev->ops->flush(dev);
	dev_call_end(dev, &call);
	if (err < 0) {
		log_ratelimited(FDIO_LOG_ERR, "%s: device flush failed: %s", dev->name,
				strerror(-err));
		if (failed)
			failed(failed_arg);
		err = -EIO;
	} else {
		err = 0;
	}

	fdio_mutex_lock(&flusher->lock);
	flusher->running = false;
	list_for_each_safe(waiter, tmp, &covered, node) {
		list_del(&waiter->node);
		waiter->err = err;
		waiter->done = true;
	}
	pthread_cond_broadcast(&flusher->changed);
}

int dev_flush(struct dev *dev)
{
	struct dev_flusher *flusher = dev->flusher;
	struct flush_waiter waiter = { .done = false };

	if (!dev->caps.volatile_cache) {
		fdio_count(COUNTER_dev_flush);
		fdio_count(COUNTER_dev_done);
		return 0;
	}
	fdio_mutex_lock(&flusher->lock);
	list_add_tail(&flusher->waiting, &waiter.node);
	while (!waiter.done) {
		if (flusher->running)
			fdio_cond_wait(&flusher->changed, &flusher->lock);
		else
			lead_one_flush(dev, flusher);
	}
	fdio_mutex_unlock(&flusher->lock);
	return waiter.err;
}
