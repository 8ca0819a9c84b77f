/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between the files of dev: the life of the flush sequencer (flush.c), and the list of the
 * synchronous requests that the device has (busy.c). Others call dev_flush and dev_log_busy.
 * Threads that may block.
 */
#ifndef FDIO_DEV_FLUSH_H
#define FDIO_DEV_FLUSH_H

#include "base/counters.h"
#include "base/list.h"

struct dev;
struct dev_flusher;

/* A synchronous request in flight: on its caller's stack, linked into dev_busy. */
struct dev_call {
	struct list node;
	enum fdio_counter kind;
	unsigned n;                 /* requests of a batch, else 1 */
	uint64_t off, len, since_ns; /* bytes; the clock at the beginning */
};
/* Called before and after each synchronous request; they count requests and completions. */
void dev_call_begin(struct dev *dev, struct dev_call *call, enum fdio_counter kind, unsigned n,
		    uint64_t off, uint64_t len);
void dev_call_end(struct dev *dev, struct dev_call *call);

struct dev_busy;
/* NULL when there is no memory. */
struct dev_busy *dev_busy_new(void);
/* The list must be empty. NULL is allowed. */
void dev_busy_free(struct dev_busy *busy);

/* NULL when there is no memory. */
struct dev_flusher *dev_flusher_new(void);
/* No caller may be inside dev_flush. NULL is allowed. */
void dev_flusher_free(struct dev_flusher *flusher);
/* For tests: how many callers wait for a flush that has not been issued yet. */
unsigned dev_flusher_waiting(struct dev_flusher *flusher);

#endif
