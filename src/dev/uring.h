/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The product's device, shared by uring.c (I/O) and open.c (opening and its checks). Threads that
 * may block take rings for batches and give them back; batch_lock (RANK_DEV) guards the list of
 * them.
 */
#ifndef FDIO_DEV_URING_H
#define FDIO_DEV_URING_H

#include "base/list.h"
#include "base/lock.h"
#include "dev/open.h"

#define BATCH_RINGS 4u
#define BATCH_DEPTH 64u

struct batch_ring {
	struct list link;
	struct io_uring ring;
	bool broken;           /* set by its holder: it contains requests that the kernel refused */
};

struct dev_uring {
	struct dev dev;
	int fd;                      /* all I/O */
	bool cut;                    /* atomic: the image file became shorter */
	int claim_fd;                /* block devices: held with O_EXCL if asked for, else -1 */
	struct fdio_mutex batch_lock; /* RANK_DEV; guards batch_free */
	pthread_cond_t batch_cond;
	struct list batch_free;
	unsigned nr_batch, nr_broken; /* nr_broken: batch_lock */
	struct batch_ring batch[BATCH_RINGS];
};

extern const struct dev_ops dev_uring_ops;
/* Makes the rings for batches. -errno; dev_ops.close frees them. */
int dev_uring_rings_new(struct dev_uring *uring);

#endif
