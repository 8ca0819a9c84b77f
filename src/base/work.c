/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work queues, see work.h. Each queue has threads of its own, which run one item after another with
 * no lock held. Any thread queues items. The queue's lock guards all fields but nr_waking. Only
 * work_queue_new can fail.
 */
#include "base/work.h"

#include "base/lock.h"
#include "base/thread.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

struct work_queue {
	char name[16];
	struct fdio_mutex lock;    /* guards all below */
	pthread_cond_t more, idle; /* an item was queued; nothing is queued or running */
	struct list items;
	unsigned nr_items, nr_running, nr_sleeping;
	bool stopping;
	unsigned nr_threads;
	pthread_t *threads;
	/* Atomic, raised under lock: threads that have queued an item and will signal more. */
	unsigned nr_waking;
};

static struct work *take_locked(struct work_queue *queue)
{
	struct work *work = list_first(&queue->items, struct work, node);

	list_del(&work->node);
	queue->nr_items--;
	queue->nr_running++;
	return work;
}

static void done_locked(struct work_queue *queue)
{
	queue->nr_running--;
	if (!queue->nr_items && !queue->nr_running)
		pthread_cond_broadcast(&queue->idle);
}

static void *work_queue_thread(void *arg)
{
	struct work_queue *queue = arg;

	fdio_mutex_lock(&queue->lock);
	for (;;) {
		while (list_empty(&queue->items) && !queue->stopping) {
			queue->nr_sleeping++;
			fdio_cond_wait(&queue->more, &queue->lock);
			queue->nr_sleeping--;
		}
		if (list_empty(&queue->items))
			break;
		struct work *work = take_locked(queue);
		fdio_mutex_unlock(&queue->lock);
		work->fn(work); /* work may be gone afterwards */
		fdio_mutex_lock(&queue->lock);
		done_locked(queue);
	}
	fdio_mutex_unlock(&queue->lock);
	return NULL;
}

struct work_queue *work_queue_new(const char *name, unsigned nr_threads)
{
	struct work_queue *queue = calloc(1, sizeof(*queue));

	if (!queue)
		return NULL;
	snprintf(queue->name, sizeof(queue->name), "%s", name);
	fdio_mutex_init(&queue->lock, RANK_WORK);
	fdio_cond_init(&queue->more);
	fdio_cond_init(&queue->idle);
	list_init(&queue->items);
	queue->threads = calloc(nr_threads ? nr_threads : 1, sizeof(*queue->threads));
	if (!queue->threads) {
		work_queue_free(queue);
		errno = ENOMEM;
		return NULL;
	}
	for (; queue->nr_threads < nr_threads; queue->nr_threads++) {
		int err = thread_start(&queue->threads[queue->nr_threads], queue->name,
				       work_queue_thread, queue);

		if (err) {
			work_queue_free(queue);
			errno = -err;
			return NULL;
		}
	}
	return queue;
}

void work_queue_free(struct work_queue *queue)
{
	if (!queue)
		return;
	if (!queue->nr_threads)
		while (work_queue_run_one(queue))
			;
	fdio_mutex_lock(&queue->lock);
	queue->stopping = true;
	pthread_cond_broadcast(&queue->more);
	fdio_mutex_unlock(&queue->lock);
	for (unsigned i = 0; i < queue->nr_threads; i++)
		pthread_join(queue->threads[i], NULL);
	/* The last item may have run before the thread that queued it has signalled more. */
	while (__atomic_load_n(&queue->nr_waking, __ATOMIC_ACQUIRE))
		sched_yield();
	pthread_cond_destroy(&queue->more);
	pthread_cond_destroy(&queue->idle);
	fdio_mutex_fini(&queue->lock);
	free(queue->threads);
	free(queue);
}

void work_queue_add(struct work_queue *queue, struct work *work, void (*fn)(struct work *))
{
	work->fn = fn;
	fdio_mutex_lock(&queue->lock);
	list_add_tail(&queue->items, &work->node);
	queue->nr_items++;
	bool wake = queue->nr_sleeping;
	if (wake)
		__atomic_fetch_add(&queue->nr_waking, 1, __ATOMIC_RELAXED);
	fdio_mutex_unlock(&queue->lock);
	if (wake) {
		/* Without the lock, which the woken thread takes first. */
		pthread_cond_signal(&queue->more);
		/* From here on work_queue_free may free the queue. */
		__atomic_fetch_sub(&queue->nr_waking, 1, __ATOMIC_RELEASE);
	}
}

void work_queue_drain(struct work_queue *queue)
{
	if (!queue->nr_threads)
		while (work_queue_run_one(queue))
			;
	fdio_mutex_lock(&queue->lock);
	while (queue->nr_items || queue->nr_running)
		fdio_cond_wait(&queue->idle, &queue->lock);
	fdio_mutex_unlock(&queue->lock);
}

bool work_queue_run_one(struct work_queue *queue)
{
	FDIO_ASSERT(queue->nr_threads == 0);
	fdio_mutex_lock(&queue->lock);
	if (list_empty(&queue->items)) {
		fdio_mutex_unlock(&queue->lock);
		return false;
	}
	struct work *work = take_locked(queue);
	fdio_mutex_unlock(&queue->lock);
	work->fn(work);
	fdio_mutex_lock(&queue->lock);
	done_locked(queue);
	fdio_mutex_unlock(&queue->lock);
	return true;
}
