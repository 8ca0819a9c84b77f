/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Epoch-based reclamation: loop threads read an extent map while a worker replaces it, without a
 * lock and without a shared counter. A reader puts its use of a published pointer between
 * epoch_enter and epoch_exit, a bracket, which costs a store to its own cache line and a fence
 * each. A writer publishes the new object, then retires the old one, which is freed when every
 * reader that could have seen it has left its bracket. Inside a bracket nothing waits for I/O or
 * for another thread. Any thread; nothing fails.
 */
#ifndef FDIO_BASE_EPOCH_H
#define FDIO_BASE_EPOCH_H

#include "base/util.h"

/* Embedded in objects that are retired. After epoch_retire the owner must not touch the object. */
struct epoch_node {
	struct epoch_node *next;
	uint64_t epoch;
	void (*free_fn)(struct epoch_node *);
};

/*
 * Enters and leaves a bracket. Brackets do not nest. At its first bracket a thread takes one of
 * 1024 slots; if all are taken, the program aborts.
 */
void epoch_enter(void);
void epoch_exit(void);
/* True inside a bracket: for functions that are called inside and outside. */
bool epoch_inside(void);
/* Outside a bracket. free_fn runs later, on any thread that retires something. */
void epoch_retire(struct epoch_node *node, void (*free_fn)(struct epoch_node *));
/*
 * Frees all retired objects. Call it when no thread is inside a bracket: at shutdown, or at the end
 * of a test.
 */
void epoch_drain(void);

#endif
