/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the engine keeps for an inode: made when the inode is first opened or its gate is first
 * closed, freed with the inode. Any thread; inodes_lock guards the engine's list of them. Fails
 * with ENOMEM.
 */
#include "dio/types.h"

#include <errno.h>
#include <stdlib.h>

static void inode_free(void *p)
{
	struct dio_inode *di = p;

	fdio_mutex_lock(&di->d->inodes_lock);
	list_del(&di->link);
	fdio_mutex_unlock(&di->d->inodes_lock);
	pthread_cond_destroy(&di->range_cond);
	fdio_mutex_fini(&di->range_lock);
	fdio_mutex_fini(&di->app_lock);
	free(di);
}

int dio_inode_attach(struct dio *d, struct x4_inode *i, struct dio_inode **ret)
{
	struct dio_inode *di = x4_inode_upper(i), *winner;

	if (di) {
		*ret = di;
		return 0;
	}
	di = fdio_alloc_aligned(FDIO_CACHELINE,
				sizeof(*di) + d->cfg.nr_cpus * sizeof(di->counts[0]));
	if (!di)
		return -ENOMEM;
	di->d = d;
	fdio_mutex_init(&di->range_lock, RANK_DIO_RANGE);
	fdio_cond_init(&di->range_cond);
	list_init(&di->ranges);
	fdio_mutex_init(&di->app_lock, RANK_LEAF);
	list_init(&di->app_reqs);
	di->hole_lo = UINT64_MAX;
	fdio_mutex_lock(&d->inodes_lock);
	list_add_tail(&d->inodes, &di->link);
	fdio_mutex_unlock(&d->inodes_lock);
	winner = x4_inode_set_upper(i, di, inode_free);
	if (winner != di)
		inode_free(di);
	*ret = winner;
	return 0;
}
