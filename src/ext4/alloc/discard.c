/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The mount option discard. When the freeing of blocks is durable, the thread that commits queues
 * them here and goes on; the discard thread sends the discards and only then gives the blocks back
 * to the allocator. So no fsync waits for a device that is slow to discard. ext4_discard_hurry is
 * called by threads that wait for blocks, start and stop by the one that opens or closes the
 * volume. discard.lock guards the queue.
 *
 * Discarding is a hint and cannot fail. If there is no memory for a record, or QUEUE_MAX of them
 * wait already, the blocks are given back without it; after an abort of the journal nothing is
 * discarded any more. The end of the mount waits until the queue is empty, as in the kernel's ext4.
 */
#include "ext4/alloc/groups.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/thread.h"

#include <errno.h>
#include <stdlib.h>

#define QUEUE_MAX 65536u

struct ext4_discard {
	pthread_t thread;
	struct fdio_mutex lock; /* RANK_LEAF: guards the rest but for hurry */
	pthread_cond_t cond;
	struct list runs;       /* oldest first */
	unsigned nr;            /* of runs */
	bool stop;
	bool hurry;             /* atomic: a thread waits for blocks; cleared when runs is empty */
};

/* n blocks of a group, on discard.runs. */
struct freed_run {
	struct list node;
	uint32_t group, bit, n;
};

static void discard_run(struct ext4_vol *vol, const struct freed_run *run)
{
	uint64_t off = (ext4_group_start(vol, run->group) + run->bit) << vol->block_bits;

	if (!__atomic_load_n(&vol->alloc.discard->hurry, __ATOMIC_RELAXED) &&
	    !ext4_vol_read_only(vol) &&
	    dev_discard(vol->dev, off, (uint64_t)run->n << vol->block_bits))
		log_ratelimited(FDIO_LOG_WARN, "%s: discard of freed blocks failed",
				vol->dev->name);
	ext4_group_give_freed(vol, run->group, run->bit, run->n);
}

static void *discard_main(void *arg)
{
	struct ext4_vol *vol = arg;
	struct ext4_discard *discard = vol->alloc.discard;

	fdio_magic_check(vol, MAGIC_EXT4_VOLUME);
	fdio_mutex_lock(&discard->lock);
	for (;;) {
		struct freed_run *run;

		if (list_empty(&discard->runs))
			__atomic_store_n(&discard->hurry, false, __ATOMIC_RELAXED);
		while (list_empty(&discard->runs) && !discard->stop)
			fdio_cond_wait(&discard->cond, &discard->lock);
		if (list_empty(&discard->runs))
			break;
		run = list_first(&discard->runs, struct freed_run, node);
		list_del(&run->node);
		discard->nr--;
		fdio_mutex_unlock(&discard->lock);
		discard_run(vol, run);
		free(run);
		fdio_mutex_lock(&discard->lock);
	}
	fdio_mutex_unlock(&discard->lock);
	return NULL;
}

bool ext4_discard_later(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n)
{
	struct ext4_discard *discard = vol->alloc.discard;
	struct freed_run *run = discard ? malloc(sizeof(*run)) : NULL;
	bool room;

	if (!run)
		return false;
	*run = (struct freed_run){ .group = group, .bit = bit, .n = n };
	fdio_mutex_lock(&discard->lock);
	room = discard->nr < QUEUE_MAX;
	if (room) {
		list_add_tail(&discard->runs, &run->node);
		discard->nr++;
		pthread_cond_signal(&discard->cond);
	}
	fdio_mutex_unlock(&discard->lock);
	if (!room) {
		fdio_count(COUNTER_ext4_discard_skipped);
		free(run);
	}
	return room;
}

void ext4_discard_hurry(struct ext4_vol *vol)
{
	if (vol->alloc.discard)
		__atomic_store_n(&vol->alloc.discard->hurry, true, __ATOMIC_RELAXED);
}

static void discard_free(struct ext4_vol *vol)
{
	struct ext4_discard *discard = vol->alloc.discard;

	vol->alloc.discard = NULL;
	pthread_cond_destroy(&discard->cond);
	fdio_mutex_fini(&discard->lock);
	free(discard);
}

int ext4_discard_start(struct ext4_vol *vol)
{
	struct ext4_discard *discard;
	int err;

	if (!vol->options.discard || !vol->dev->caps.discard)
		return 0;
	discard = calloc(1, sizeof(*discard));
	if (!discard)
		return -ENOMEM;
	fdio_mutex_init(&discard->lock, RANK_LEAF);
	fdio_cond_init(&discard->cond);
	list_init(&discard->runs);
	vol->alloc.discard = discard;
	err = thread_start(&discard->thread, "fdio-discard", discard_main, vol);
	if (err)
		discard_free(vol);
	return err;
}

void ext4_discard_stop(struct ext4_vol *vol)
{
	struct ext4_discard *discard = vol->alloc.discard;

	if (!discard)
		return;
	fdio_mutex_lock(&discard->lock);
	discard->stop = true;
	pthread_cond_signal(&discard->cond);
	fdio_mutex_unlock(&discard->lock);
	pthread_join(discard->thread, NULL);
	discard_free(vol);
}
