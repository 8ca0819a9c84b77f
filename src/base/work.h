/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Work queues run functions that may block, on threads of their own. A work item is embedded in the
 * object that it works on, so queueing allocates nothing and cannot fail. Items run in the order in
 * which they were queued, without a lock; an item may queue itself again from its function.
 *
 * A queue with 0 threads is manual: nothing runs until its owner calls work_queue_run_one. Tests
 * use that to decide what runs when.
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
 * name, of which 15 bytes are kept, becomes the name of the threads. NULL with errno set if threads
 * cannot be made.
 */
struct work_queue *work_queue_new(const char *name, unsigned nr_threads) FDIO_BLOCKS;
/*
 * Waits until the queue is empty and all functions have returned, then ends the threads. queue may
 * be NULL.
 */
void work_queue_free(struct work_queue *queue) FDIO_BLOCKS;
/* Any thread. The item must not be queued already. */
void work_queue_add(struct work_queue *queue, struct work *work, void (*fn)(struct work *));
/* Waits until nothing is queued or running, items that are queued meanwhile included. */
void work_queue_drain(struct work_queue *queue) FDIO_BLOCKS;
/* For manual queues: runs the oldest item on this thread. False if there is none. */
bool work_queue_run_one(struct work_queue *queue);

#endif
