/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ticker: a thread of the volume that does what comes round again. Every commit interval it
 * writes lazily changed times and settles append windows; within a second it writes down errors
 * that were found where no superblock could be written; and it keeps the extent maps within their
 * memory (data/map_evict.c), which is all that it does on a read-only mount. Who syncs hears of what
 * fails here.
 */
#include "ext4/core/structs.h"
#include "ext4/volume/parts.h"

#include "base/nowait.h"
#include "base/thread.h"

#define SECOND_NS 1000000000ull

static void settle(struct x4_vol *v)
{
	if (!x4_vol_read_only(v))
		(void)x4_windows_settle(v); /* who syncs the file hears of an error */
	if (!v->opt.lazytime)
		nowait_ignore(x4_vol_write_times(v));
}

static void *ticker(void *arg)
{
	struct x4_vol *v = arg;
	uint64_t interval = (v->opt.commit_interval_s ? v->opt.commit_interval_s : 5) * SECOND_NS;
	uint64_t last = fdio_now_ns();

	fdio_magic_check(v, MAGIC_EXT4_VOLUME);
	fdio_mutex_lock(&v->volume.ticker_lock);
	while (!v->volume.ticker_stop) {
		if (!v->volume.map_wanted)
			fdio_cond_timedwait(&v->volume.ticker_cond, &v->volume.ticker_lock,
					    fdio_now_ns() + SECOND_NS);
		v->volume.map_wanted = false;
		fdio_mutex_unlock(&v->volume.ticker_lock);
		if (v->volume.ticker_writes && fdio_now_ns() - last >= interval) {
			last = fdio_now_ns();
			settle(v);
		}
		if (v->volume.ticker_writes) {
			x4_error_write(v);
			x4_ea_settle(v);
		}
		(void)x4_maps_shrink(v);
		fdio_mutex_lock(&v->volume.ticker_lock);
	}
	fdio_mutex_unlock(&v->volume.ticker_lock);
	return NULL;
}

/* Any thread: maps take too much. */
static void crowded(struct x4_vol *v)
{
	fdio_mutex_lock(&v->volume.ticker_lock);
	v->volume.map_wanted = true;
	pthread_cond_signal(&v->volume.ticker_cond);
	fdio_mutex_unlock(&v->volume.ticker_lock);
}

int x4_ticker_start(struct x4_vol *v)
{
	int err;

	v->volume.ticker_writes = !x4_vol_read_only(v);
	err = thread_start(&v->volume.ticker, "ext4-ticker", ticker, v);
	v->volume.ticker_on = !err;
	if (!err)
		x4_maps_set_crowded(v, crowded);
	return err;
}

void x4_ticker_end(struct x4_vol *v)
{
	if (!v->volume.ticker_on)
		return;
	fdio_mutex_lock(&v->volume.ticker_lock);
	v->volume.ticker_stop = true;
	pthread_cond_broadcast(&v->volume.ticker_cond);
	fdio_mutex_unlock(&v->volume.ticker_lock);
	pthread_join(v->volume.ticker, NULL);
	v->volume.ticker_on = false;
	x4_maps_set_crowded(v, NULL);
}
