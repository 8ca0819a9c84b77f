/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work queues, see work.h. Each queue has threads of its own, which run one item after another
 * without any lock held. The queue's lock guards everything in it but nr_waking. Failure: only
 * wq_new can fail.
 */
#include "base/work.h"

#include "base/lock.h"
#include "base/thread.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

struct wq {
	char name[16];
	struct fdio_mutex lock;    /* guards all below */
	pthread_cond_t more, idle; /* items came; nothing left */
	struct list items;
	unsigned nr_items, nr_running, nr_sleeping;
	bool stopping;
	unsigned nr_threads;
	pthread_t *threads;
	unsigned nr_waking;        /* atomic; raised under lock: those who have queued and are about to signal */
};

static struct work *take_locked(struct wq *q)
{
	struct work *w = list_first(&q->items, struct work, node);

	list_del(&w->node);
	q->nr_items--;
	q->nr_running++;
	return w;
}

static void done_locked(struct wq *q)
{
	q->nr_running--;
	if (!q->nr_items && !q->nr_running)
		pthread_cond_broadcast(&q->idle);
}

static void *wq_thread(void *arg)
{
	struct wq *q = arg;

	fdio_mutex_lock(&q->lock);
	for (;;) {
		while (list_empty(&q->items) && !q->stopping) {
			q->nr_sleeping++;
			fdio_cond_wait(&q->more, &q->lock);
			q->nr_sleeping--;
		}
		if (list_empty(&q->items))
			break;
		struct work *w = take_locked(q);
		fdio_mutex_unlock(&q->lock);
		w->fn(w); /* w may be gone afterwards */
		fdio_mutex_lock(&q->lock);
		done_locked(q);
	}
	fdio_mutex_unlock(&q->lock);
	return NULL;
}

struct wq *wq_new(const char *name, unsigned nr_threads)
{
	struct wq *q = calloc(1, sizeof(*q));

	if (!q)
		return NULL;
	snprintf(q->name, sizeof(q->name), "%s", name);
	fdio_mutex_init(&q->lock, RANK_WORK);
	fdio_cond_init(&q->more);
	fdio_cond_init(&q->idle);
	list_init(&q->items);
	q->threads = calloc(nr_threads ? nr_threads : 1, sizeof(*q->threads));
	if (!q->threads) {
		wq_free(q);
		errno = ENOMEM;
		return NULL;
	}
	for (; q->nr_threads < nr_threads; q->nr_threads++) {
		int err = thread_start(&q->threads[q->nr_threads], q->name, wq_thread, q);

		if (err) {
			wq_free(q);
			errno = -err;
			return NULL;
		}
	}
	return q;
}

void wq_free(struct wq *q)
{
	if (!q)
		return;
	if (!q->nr_threads)
		while (wq_run_one(q))
			;
	fdio_mutex_lock(&q->lock);
	q->stopping = true;
	pthread_cond_broadcast(&q->more);
	fdio_mutex_unlock(&q->lock);
	for (unsigned i = 0; i < q->nr_threads; i++)
		pthread_join(q->threads[i], NULL);
	/* Its work may be done while the thread that queued it has not yet come back from waking us. */
	while (__atomic_load_n(&q->nr_waking, __ATOMIC_ACQUIRE))
		sched_yield();
	pthread_cond_destroy(&q->more);
	pthread_cond_destroy(&q->idle);
	fdio_mutex_fini(&q->lock);
	free(q->threads);
	free(q);
}

void wq_queue(struct wq *q, struct work *w, void (*fn)(struct work *))
{
	w->fn = fn;
	fdio_mutex_lock(&q->lock);
	list_add_tail(&q->items, &w->node);
	q->nr_items++;
	bool wake = q->nr_sleeping;
	if (wake)
		__atomic_fetch_add(&q->nr_waking, 1, __ATOMIC_RELAXED);
	fdio_mutex_unlock(&q->lock);
	if (wake) {
		pthread_cond_signal(&q->more); /* not under the lock that the thread wants first */
		__atomic_fetch_sub(&q->nr_waking, 1, __ATOMIC_RELEASE); /* q may be gone afterwards */
	}
}

void wq_drain(struct wq *q)
{
	if (!q->nr_threads)
		while (wq_run_one(q))
			;
	fdio_mutex_lock(&q->lock);
	while (q->nr_items || q->nr_running)
		fdio_cond_wait(&q->idle, &q->lock);
	fdio_mutex_unlock(&q->lock);
}

bool wq_run_one(struct wq *q)
{
	FDIO_ASSERT(q->nr_threads == 0);
	fdio_mutex_lock(&q->lock);
	if (list_empty(&q->items)) {
		fdio_mutex_unlock(&q->lock);
		return false;
	}
	struct work *w = take_locked(q);
	fdio_mutex_unlock(&q->lock);
	w->fn(w);
	fdio_mutex_lock(&q->lock);
	done_locked(q);
	fdio_mutex_unlock(&q->lock);
	return true;
}
