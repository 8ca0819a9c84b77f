/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * struct dio_inode, which the engine keeps for an inode: made when the inode is first opened or its
 * gate is first closed, freed by the ext4 room with the inode. Any thread, loop threads too;
 * nothing waits. inodes_lock guards the engine's list of them. Fails with ENOMEM.
 */
#include "dio/types.h"

#include <errno.h>
#include <stdlib.h>

static void inode_free(void *p)
{
	struct dio_inode *dinode = p;

	fdio_mutex_lock(&dinode->dio->inodes_lock);
	list_del(&dinode->link);
	fdio_mutex_unlock(&dinode->dio->inodes_lock);
	pthread_cond_destroy(&dinode->range_cond);
	fdio_mutex_fini(&dinode->range_lock);
	fdio_mutex_fini(&dinode->append_lock);
	free(dinode);
}

int dio_inode_attach(struct dio *dio, struct ext4_inode *inode, struct dio_inode **ret)
{
	struct dio_inode *dinode = ext4_inode_upper(inode), *winner;

	if (dinode) {
		*ret = dinode;
		return 0;
	}
	dinode = fdio_alloc_aligned(FDIO_CACHELINE,
				sizeof(*dinode) + dio->config.nr_cpus * sizeof(dinode->counts[0]));
	if (!dinode)
		return -ENOMEM;
	dinode->dio = dio;
	fdio_mutex_init(&dinode->range_lock, RANK_DIO_RANGE);
	fdio_cond_init(&dinode->range_cond);
	list_init(&dinode->ranges);
	fdio_mutex_init(&dinode->append_lock, RANK_LEAF);
	list_init(&dinode->appends);
	dinode->hole_lo = UINT64_MAX;
	fdio_mutex_lock(&dio->inodes_lock);
	list_add_tail(&dio->inodes, &dinode->link);
	fdio_mutex_unlock(&dio->inodes_lock);
	winner = ext4_inode_set_upper(inode, dinode, inode_free);
	if (winner != dinode)
		inode_free(dinode);
	*ret = winner;
	return 0;
}
