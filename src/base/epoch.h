/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Epoch-based reclamation: how a loop thread reads an extent map while a worker replaces it,
 * without a lock and without a shared counter. A reader brackets its use of a published pointer
 * with epoch_enter()/epoch_exit() (a store to its own cache line and a fence each); a writer
 * publishes the new object, then retires the old one, which is freed once every reader that could
 * have seen it has left. A bracket must not wait for I/O or for another thread. Any thread; cannot
 * fail.
 */
#ifndef FDIO_BASE_EPOCH_H
#define FDIO_BASE_EPOCH_H

#include "base/util.h"

/* Embed in what is retired. The owner may not touch the object after epoch_retire. */
struct epoch_node {
	struct epoch_node *next;
	uint64_t epoch;
	void (*free_fn)(struct epoch_node *);
};

/*
 * Any thread; registers the thread on first use (one slot a thread, at most 1024 threads). Not
 * recursive.
 */
void epoch_enter(void);
void epoch_exit(void);
/* This thread is inside a bracket: for functions that may be called from either side. */
bool epoch_inside(void);
/* Any thread that is not inside a bracket. free_fn runs later on any retiring thread. */
void epoch_retire(struct epoch_node *node, void (*free_fn)(struct epoch_node *));
/* Free all that was retired; call when no reader is left (shutdown, end of a test). */
void epoch_drain(void);

#endif
