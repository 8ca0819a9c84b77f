/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The volume room's own part of a volume: its threads.
 */
#ifndef FDIO_EXT4_VOLUME_STATE_H
#define FDIO_EXT4_VOLUME_STATE_H

#include "base/lock.h"

#include <pthread.h>

struct ext4_volume_state {
	/* mmp.c's, NULL without the feature or when nothing is written */
	struct ext4_mmp *mmp;

	/* ticker.c: lazy times, errors, maps */
	pthread_t ticker;
	bool ticker_on, ticker_stop;
	bool ticker_writes;         /* mounted read-write */
	bool map_wanted;            /* extent maps take too much; ticker_lock */
	struct fdio_mutex ticker_lock;
	pthread_cond_t ticker_cond;
};

#endif
