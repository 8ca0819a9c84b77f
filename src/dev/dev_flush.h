/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The flush sequencer's life, for dev.c; everyone else calls dev_flush. */
#ifndef FDIO_DEV_DEV_FLUSH_H
#define FDIO_DEV_DEV_FLUSH_H

struct dev_flusher;

/* NULL when there is no memory. */
struct dev_flusher *dev_flusher_new(void);
/* No caller may be inside dev_flush. NULL is allowed. */
void dev_flusher_free(struct dev_flusher *f);
/* Callers that wait for a flush not yet issued. For tests: the number may be old at once. */
unsigned dev_flusher_waiting(struct dev_flusher *f);

#endif
