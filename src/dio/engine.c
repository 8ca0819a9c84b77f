/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The engine's life: made at mount, drained and freed at unmount, on the thread of the mount.
 * Everything that requests need is made here, so that no request allocates. Fails with EINVAL (the
 * configuration, or blocks smaller than the device's) and ENOMEM.
 */
#include "dio/types.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int dio_new(const struct dio_config *cfg, struct dio **ret)
{
	struct dio *d;
	int r;

	if (!cfg->dev || !cfg->vol || !cfg->workers || !cfg->syncers || !cfg->nr_cpus)
		return -EINVAL;
	/* A block smaller than a sector could not be written alone. */
	if ((1u << x4_vol_block_bits(cfg->vol)) < cfg->dev->caps.lbs)
		return -EINVAL;
	d = fdio_alloc_aligned(FDIO_CACHELINE, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->cfg = *cfg;
	d->block_bits = x4_vol_block_bits(cfg->vol);
	d->block_size = 1u << d->block_bits;
	d->lbs = cfg->dev->caps.lbs;
	d->max_io = cfg->dev->caps.max_io_bytes;
	d->page_size = (uint64_t)sysconf(_SC_PAGESIZE);
	d->mem_align = FDIO_MAX(cfg->dev->caps.mem_align, 1u);
	/*
	 * Without FUA in the device the block layer writes and flushes, and joins flushes as well
	 * as the sync queue does.
	 */
	d->fua_ok = cfg->dev->caps.fua || !cfg->dev->caps.volatile_cache ||
		    (cfg->dev->caps.is_block && !cfg->dev->caps.fua_ignored);
	d->fua_multi = cfg->dev->caps.fua || !cfg->dev->caps.volatile_cache;
	fdio_mutex_init(&d->gate_lock, RANK_LEAF);
	fdio_cond_init(&d->gate_cond);
	dio_sync_init(d);
	r = dio_pool_init(d);
	if (r) {
		dio_free(d);
		return r;
	}
	x4_windows_set_reclaim(cfg->vol, dio_reclaim, d);
	dev_on_flush_failure(cfg->dev, dio_sync_flush_failed, d);
	*ret = d;
	return 0;
}

/*
 * Polling, because whoever ends the last request must not touch the engine afterwards; only unmount
 * waits here.
 */
void dio_drain(struct dio *d)
{
	const struct timespec nap = { .tv_nsec = 200000 };

	for (unsigned c = 0; c < d->cfg.nr_cpus; c++)
		while (__atomic_load_n(&d->cpus[c].inflight, __ATOMIC_ACQUIRE))
			nanosleep(&nap, NULL);
	/* Batches that answered their last waiter may still be returning. */
	wq_drain(d->cfg.syncers);
	wq_drain(d->cfg.workers);
}

void dio_free(struct dio *d)
{
	if (!d)
		return;
	dev_on_flush_failure(d->cfg.dev, NULL, NULL);
	dio_pool_fini(d);
	fdio_mutex_fini(&d->inodes_lock);
	pthread_cond_destroy(&d->gate_cond);
	fdio_mutex_fini(&d->gate_lock);
	fdio_mutex_fini(&d->sync_lock);
	free(d);
}
