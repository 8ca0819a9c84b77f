/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The volume room's own part of a volume: its threads. Types only. */
#ifndef FDIO_EXT4_VOLUME_STATE_H
#define FDIO_EXT4_VOLUME_STATE_H

#include "base/lock.h"

#include <pthread.h>

struct ext4_volume_state {
	/* mmp.c: NULL without the feature, or when nothing is written. */
	struct ext4_mmp *mmp;

	/* ticker.c */
	pthread_t ticker;
	bool ticker_on;             /* the thread runs */
	bool ticker_writes;         /* mounted read-write */
	struct fdio_mutex ticker_lock; /* RANK_LEAF; guards the two that follow */
	bool ticker_stop;           /* the thread is to end */
	bool maps_crowded;          /* extent maps take too much memory */
	pthread_cond_t ticker_cond; /* ticker_stop or maps_crowded was set */
};

#endif
