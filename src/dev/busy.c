/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The synchronous requests in flight: a list, so that dev_log_busy can say which requests a stalled
 * device has not completed. dev_call_begin and dev_call_end run on the threads that make such
 * requests, which may block; dev_log_busy on any thread. dev_busy.lock (RANK_LEAF) guards the list.
 * Only making it can fail, for want of memory.
 */
#include "dev/dev.h"

#include "base/counters.h"
#include "base/lock.h"
#include "base/log.h"
#include "dev/flush.h"

#include <inttypes.h>
#include <stdlib.h>

struct dev_busy {
	struct fdio_mutex lock; /* RANK_LEAF */
	struct list now;        /* dev_call.node, on the stacks of their callers */
};

struct dev_busy *dev_busy_new(void)
{
	struct dev_busy *busy = calloc(1, sizeof(*busy));

	if (!busy)
		return NULL;
	fdio_mutex_init(&busy->lock, RANK_LEAF);
	list_init(&busy->now);
	return busy;
}

void dev_busy_free(struct dev_busy *busy)
{
	if (!busy)
		return;
	fdio_mutex_fini(&busy->lock);
	free(busy);
}

void dev_call_begin(struct dev *dev, struct dev_call *call, enum fdio_counter kind, unsigned n,
		    uint64_t off, uint64_t len)
{
	*call = (struct dev_call){
		.kind = kind, .n = n, .off = off, .len = len, .since_ns = fdio_now_ns()
	};
	fdio_count_add(kind, n);
	fdio_mutex_lock(&dev->busy->lock);
	list_add_tail(&dev->busy->now, &call->node);
	fdio_mutex_unlock(&dev->busy->lock);
}

void dev_call_end(struct dev *dev, struct dev_call *call)
{
	fdio_mutex_lock(&dev->busy->lock);
	list_del(&call->node);
	fdio_mutex_unlock(&dev->busy->lock);
	fdio_count_add(COUNTER_dev_done, call->n);
}

unsigned dev_log_busy(struct dev *dev)
{
	uint64_t now = fdio_now_ns();
	struct dev_call *call;
	unsigned n = 0;

	fdio_mutex_lock(&dev->busy->lock);
	list_for_each(call, &dev->busy->now, node) {
		n++;
		log_warn("%s: no answer for %" PRIu64 " s to %s of %" PRIu64 " bytes at %" PRIu64,
			 dev->name, (now - call->since_ns) / 1000000000,
			 fdio_counter_name(call->kind), call->len, call->off);
	}
	fdio_mutex_unlock(&dev->busy->lock);
	return n;
}
