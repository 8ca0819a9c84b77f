/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work queues: where what may block goes. A work item is embedded in the object it works on, so
 * that queueing never allocates and cannot fail. FIFO; an item may queue itself again from its
 * function, which runs on one of the queue's threads with no lock held.
 *
 * A queue with 0 threads is manual: nothing runs until the owner calls work_queue_run_one. The
 * deterministic tests use it to decide what runs when.
 */
#ifndef FDIO_BASE_WORK_H
#define FDIO_BASE_WORK_H

#include "base/list.h"
#include "base/nowait.h"

struct work {
	struct list node;
	void (*fn)(struct work *);
};

struct work_queue;

/*
 * name is copied, at most 15 bytes, and is the thread name. NULL with errno set when threads cannot
 * be made.
 */
struct work_queue *work_queue_new(const char *name, unsigned nr_threads) FDIO_BLOCKS;
/*
 * Waits until the queue is empty and all items have returned, then ends the threads. NULL is
 * allowed.
 */
void work_queue_free(struct work_queue *queue) FDIO_BLOCKS;
/* Any thread. The item must not be queued already. */
void work_queue_add(struct work_queue *queue, struct work *work, void (*fn)(struct work *));
/* Waits until nothing is queued or running (items queued meanwhile included). */
void work_queue_drain(struct work_queue *queue) FDIO_BLOCKS;
/* Manual queues: run the oldest item on this thread; false if there is none. */
bool work_queue_run_one(struct work_queue *queue);

#endif
