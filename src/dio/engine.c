/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The life of the engine: made at mount, on the main thread; drained at the end of the mount, on
 * the control thread; freed on the main thread. Memory that requests need is allocated here and at
 * open, so that no request allocates. Fails with EINVAL (the configuration, or blocks smaller than
 * the device's sectors) and ENOMEM.
 */
#include "dio/types.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int dio_new(const struct dio_config *config, struct dio **ret)
{
	struct dio *dio;
	int err;

	if (!config->dev || !config->vol || !config->workers || !config->syncers ||
	    !config->nr_cpus)
		return -EINVAL;
	/* The device could not write a block that is smaller than its sector. */
	if ((1u << ext4_vol_block_bits(config->vol)) < config->dev->caps.sector_bytes)
		return -EINVAL;
	dio = fdio_alloc_aligned(FDIO_CACHELINE, sizeof(*dio));
	if (!dio)
		return -ENOMEM;
	dio->config = *config;
	dio->block_bits = ext4_vol_block_bits(config->vol);
	dio->block_size = 1u << dio->block_bits;
	dio->sector_bytes = config->dev->caps.sector_bytes;
	dio->max_io = config->dev->caps.max_io_bytes;
	dio->page_size = config->page_size ? config->page_size : (uint64_t)sysconf(_SC_PAGESIZE);
	dio->mem_align = FDIO_MAX(config->dev->caps.mem_align, 1u);
	/*
	 * For a device without FUA the kernel's block layer makes a write and a flush of a FUA
	 * write, and joins flushes of several writers as the sync queue does.
	 */
	dio->fua_ok = config->dev->caps.fua || !config->dev->caps.volatile_cache ||
		    (config->dev->caps.is_block && !config->dev->caps.fua_ignored);
	dio->fua_multi = config->dev->caps.fua || !config->dev->caps.volatile_cache;
	fdio_mutex_init(&dio->gate_lock, RANK_LEAF);
	fdio_cond_init(&dio->gate_cond);
	dio_sync_init(dio);
	err = dio_pool_init(dio);
	if (err) {
		dio_free(dio);
		return err;
	}
	ext4_windows_set_reclaim(config->vol, dio_reclaim, dio);
	dev_on_flush_failure(config->dev, dio_sync_flush_failed, dio);
	*ret = dio;
	return 0;
}

/*
 * Polls, because the thread that ends the last request must not touch the engine afterwards, so it
 * cannot wake this one. Only unmount waits here.
 */
void dio_drain(struct dio *dio)
{
	const struct timespec nap = { .tv_nsec = 200000 };

	for (unsigned c = 0; c < dio->config.nr_cpus; c++)
		while (__atomic_load_n(&dio->cpus[c].inflight, __ATOMIC_ACQUIRE))
			nanosleep(&nap, NULL);
	/* A syncer that has answered its last waiter may not have returned yet. */
	work_queue_drain(dio->config.syncers);
	work_queue_drain(dio->config.workers);
}

void dio_free(struct dio *dio)
{
	if (!dio)
		return;
	dev_on_flush_failure(dio->config.dev, NULL, NULL);
	dio_pool_fini(dio);
	fdio_mutex_fini(&dio->inodes_lock);
	pthread_cond_destroy(&dio->gate_cond);
	fdio_mutex_fini(&dio->gate_lock);
	fdio_mutex_fini(&dio->sync_lock);
	free(dio);
}
