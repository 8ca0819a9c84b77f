/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The ticker: a thread of the volume that does what has to be done regularly. In each commit
 * interval it writes noted times (unless lazytime) and settles append windows. Every second it
 * writes noted errors into the superblock (ext4_error_write), drops kept references to inodes of
 * attribute values (ext4_ea_settle), and keeps the extent maps within their memory
 * (data/map_evict.c). On a read-only mount it does only the last.
 *
 * The thread that opens or closes the volume starts and ends it; ticker_lock guards the flags that
 * wake it, and is not held while it works. Errors are ignored here: fsync or sync reports them.
 */
#include "ext4/core/structs.h"
#include "ext4/core/superblock.h"
#include "ext4/volume/parts.h"

#include "base/nowait.h"
#include "base/thread.h"

#define SECOND_NS 1000000000ull

static void settle(struct ext4_vol *vol)
{
	if (!ext4_vol_read_only(vol))
		(void)ext4_windows_settle(vol);
	if (!vol->options.lazytime)
		nowait_ignore(ext4_vol_write_times(vol));
}

static void *ticker(void *arg)
{
	struct ext4_vol *vol = arg;
	unsigned interval_s = vol->options.commit_interval_s ? vol->options.commit_interval_s : 5;
	uint64_t last = fdio_now_ns();

	fdio_magic_check(vol, MAGIC_EXT4_VOLUME);
	fdio_mutex_lock(&vol->volume.ticker_lock);
	while (!vol->volume.ticker_stop) {
		if (!vol->volume.maps_crowded)
			fdio_cond_timedwait(&vol->volume.ticker_cond, &vol->volume.ticker_lock,
					    fdio_now_ns() + SECOND_NS);
		vol->volume.maps_crowded = false;
		fdio_mutex_unlock(&vol->volume.ticker_lock);
		if (vol->volume.ticker_writes && fdio_now_ns() - last >= interval_s * SECOND_NS) {
			last = fdio_now_ns();
			settle(vol);
		}
		if (vol->volume.ticker_writes) {
			ext4_error_write(vol);
			ext4_ea_settle(vol);
		}
		(void)ext4_maps_shrink(vol);
		fdio_mutex_lock(&vol->volume.ticker_lock);
	}
	fdio_mutex_unlock(&vol->volume.ticker_lock);
	return NULL;
}

/* Data calls this on any thread when extent maps take too much memory: wakes the ticker. */
static void crowded(struct ext4_vol *vol)
{
	fdio_mutex_lock(&vol->volume.ticker_lock);
	vol->volume.maps_crowded = true;
	pthread_cond_signal(&vol->volume.ticker_cond);
	fdio_mutex_unlock(&vol->volume.ticker_lock);
}

int ext4_ticker_start(struct ext4_vol *vol)
{
	int err;

	vol->volume.ticker_writes = !ext4_vol_read_only(vol);
	err = thread_start(&vol->volume.ticker, "ext4-ticker", ticker, vol);
	vol->volume.ticker_on = !err;
	if (!err)
		ext4_maps_set_crowded(vol, crowded);
	return err;
}

void ext4_ticker_end(struct ext4_vol *vol)
{
	if (!vol->volume.ticker_on)
		return;
	fdio_mutex_lock(&vol->volume.ticker_lock);
	vol->volume.ticker_stop = true;
	pthread_cond_broadcast(&vol->volume.ticker_cond);
	fdio_mutex_unlock(&vol->volume.ticker_lock);
	pthread_join(vol->volume.ticker, NULL);
	vol->volume.ticker_on = false;
	ext4_maps_set_crowded(vol, NULL);
}
