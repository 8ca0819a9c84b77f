/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block range locks of an inode, for writes on workers: two writes that share a block run in order
 * of arrival; others do not wait for each other. range_lock guards the list and is never held
 * across I/O. A worker takes at most one range, after the inode lock. Nothing fails.
 */
#include "dio/types.h"

/* True if an earlier range in the list shares a block with range. */
static bool must_wait(struct dio_inode *dinode, struct dio_range *range)
{
	struct dio_range *other;

	list_for_each(other, &dinode->ranges, link) {
		if (other == range)
			return false;
		if (other->first <= range->last && range->first <= other->last)
			return true;
	}
	return false;
}

void dio_range_lock(struct dio_inode *dinode, struct dio_range *range, uint64_t first,
		    uint64_t last)
{
	range->first = first;
	range->last = last;
	fdio_mutex_lock(&dinode->range_lock);
	list_add_tail(&dinode->ranges, &range->link);
	if (must_wait(dinode, range))
		fdio_count(COUNTER_dio_range_wait);
	while (must_wait(dinode, range))
		fdio_cond_wait(&dinode->range_cond, &dinode->range_lock);
	fdio_mutex_unlock(&dinode->range_lock);
}

void dio_range_unlock(struct dio_inode *dinode, struct dio_range *range)
{
	fdio_mutex_lock(&dinode->range_lock);
	list_del(&range->link);
	pthread_cond_broadcast(&dinode->range_cond);
	fdio_mutex_unlock(&dinode->range_lock);
}
