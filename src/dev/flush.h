/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between dev.c and flush.c: the life of the flush sequencer, and the list of the synchronous
 * requests that the device has. Everyone else calls dev_flush. Threads that may block.
 */
#ifndef FDIO_DEV_FLUSH_H
#define FDIO_DEV_FLUSH_H

#include "base/counters.h"
#include "base/list.h"

struct dev;
struct dev_flusher;

/* A synchronous request that the device has: on its caller's stack, in a list of the device. */
struct dev_call {
	struct list node;
	enum fdio_counter kind;
	unsigned n;            /* pieces */
	uint64_t off, len, since_ns;
};
/* Both count. */
void dev_call_begin(struct dev *dev, struct dev_call *call, enum fdio_counter kind, unsigned n,
		    uint64_t off, uint64_t len);
void dev_call_end(struct dev *dev, struct dev_call *call);

/* NULL when there is no memory. */
struct dev_flusher *dev_flusher_new(void);
/* No caller may be inside dev_flush. NULL is allowed. */
void dev_flusher_free(struct dev_flusher *flusher);
/* Callers that wait for a flush not yet issued. For tests: the number may be old at once. */
unsigned dev_flusher_waiting(struct dev_flusher *flusher);

#endif
