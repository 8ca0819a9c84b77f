/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block range locks of an inode, for writes on workers: two that share a block follow each other in
 * order of arrival, others do not meet. The mutex guards the list only and is never held across
 * I/O. A worker takes at most one range, after the inode lock.
 */
#include "dio/types.h"

static bool must_wait(struct dio_inode *di, struct dio_range *g)
{
	struct dio_range *o;

	list_for_each(o, &di->ranges, link) {
		if (o == g)
			return false;
		if (o->first <= g->last && g->first <= o->last)
			return true;
	}
	return false;
}

void dio_range_lock(struct dio_inode *di, struct dio_range *g, uint64_t first, uint64_t last)
{
	g->first = first;
	g->last = last;
	fdio_mutex_lock(&di->range_lock);
	list_add_tail(&di->ranges, &g->link);
	if (must_wait(di, g))
		fdio_count(CTR_dio_range_wait);
	while (must_wait(di, g))
		fdio_cond_wait(&di->range_cond, &di->range_lock);
	fdio_mutex_unlock(&di->range_lock);
}

void dio_range_unlock(struct dio_inode *di, struct dio_range *g)
{
	fdio_mutex_lock(&di->range_lock);
	list_del(&g->link);
	pthread_cond_broadcast(&di->range_cond);
	fdio_mutex_unlock(&di->range_lock);
}
