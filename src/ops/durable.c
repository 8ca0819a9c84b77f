/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Synchronous changes, which are answered only when they are durable: with the mount options sync
 * and dirsync, and with chattr +S and +D. Workers wait for the engine's sync queue, and get its
 * error. Loop threads must not wait: handlers call ops_miss_if_sync before they change anything,
 * which misses (base/nowait.h) if the change is synchronous.
 */
#include "ops/types.h"

struct durable_wait {
	struct dio_sync sync;
	struct fdio_mutex lock;
	pthread_cond_t cond;
	bool done;
	int err;
};

static void durable_done(struct dio_sync *sync, int err)
{
	struct durable_wait *wait = container_of(sync, struct durable_wait, sync);

	fdio_mutex_lock(&wait->lock);
	wait->err = err;
	wait->done = true;
	pthread_cond_signal(&wait->cond);
	fdio_mutex_unlock(&wait->lock);
}

int ops_wait_durable(struct ops *ops, struct ext4_inode *inode, bool datasync)
{
	struct durable_wait wait = {
		.sync = { .inode = inode, .datasync = datasync, .done = durable_done }
	};

	fdio_mutex_init(&wait.lock, RANK_LEAF);
	fdio_cond_init(&wait.cond);
	dio_fsync(ops->dio, &wait.sync);
	fdio_mutex_lock(&wait.lock);
	while (!wait.done)
		fdio_cond_wait(&wait.cond, &wait.lock);
	fdio_mutex_unlock(&wait.lock);
	pthread_cond_destroy(&wait.cond);
	fdio_mutex_fini(&wait.lock);
	return wait.err;
}

bool ops_is_sync(struct ops *ops, struct ext4_inode *inode)
{
	return ops->config.sync || (ext4_inode_live_flags(inode) & EXT4_LIVE_SYNC);
}

static bool names_are_sync(struct ops *ops, struct ext4_inode *dir)
{
	return ops_is_sync(ops, dir) || ops->config.dirsync ||
	       (ext4_inode_flags(dir) & OPS_FL_DIRSYNC);
}

int ops_miss_if_sync(struct ops *ops, struct ext4_inode *inode)
{
	bool sync = S_ISDIR(ext4_inode_mode(inode)) ? names_are_sync(ops, inode)
						    : ops_is_sync(ops, inode);

	return nowait_on() && sync ? nowait_miss() : 0;
}

/*
 * A loop thread does not wait: ops_miss_if_sync has found that the change is not synchronous. If
 * the sync flag has been set since then, the change counts as made before.
 */
int ops_inode_durable(struct ops *ops, struct ext4_inode *inode, int err)
{
	if (err || nowait_on() || !ops_is_sync(ops, inode))
		return err;
	return ops_wait_durable(ops, inode, false);
}

int ops_dir_durable(struct ops *ops, struct ext4_inode *dir, int err)
{
	if (err || nowait_on() || !names_are_sync(ops, dir))
		return err;
	return ops_wait_durable(ops, dir, false);
}
