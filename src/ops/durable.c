/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes that are answered only when they are durable: with the mount options sync and dirsync,
 * and with chattr +S and +D. Asking whether a change is such runs on any thread. Waiting is for
 * workers: a loop thread asks ops_may_change before it changes anything, which misses (nowait.h) if
 * it would have to wait, and then does not wait. The wait fails with what the sync queue says.
 */
#include "ops/types.h"

struct durable_wait {
	struct dio_sync sync;
	struct fdio_mutex lock;
	pthread_cond_t cond;
	bool done;
	int err;
};

static void durable_done(struct dio_sync *s, int err)
{
	struct durable_wait *d = container_of(s, struct durable_wait, sync);

	fdio_mutex_lock(&d->lock);
	d->err = err;
	d->done = true;
	pthread_cond_signal(&d->cond);
	fdio_mutex_unlock(&d->lock);
}

int ops_wait_durable(struct ops *o, struct x4_inode *i, bool datasync)
{
	struct durable_wait d = {
		.sync = { .inode = i, .datasync = datasync, .done = durable_done }
	};

	fdio_mutex_init(&d.lock, RANK_LEAF);
	fdio_cond_init(&d.cond);
	dio_fsync(o->dio, &d.sync);
	fdio_mutex_lock(&d.lock);
	while (!d.done)
		fdio_cond_wait(&d.cond, &d.lock);
	fdio_mutex_unlock(&d.lock);
	pthread_cond_destroy(&d.cond);
	fdio_mutex_fini(&d.lock);
	return d.err;
}

bool ops_is_sync(struct ops *o, struct x4_inode *i)
{
	return o->cfg.sync || (x4_inode_live_flags(i) & X4_LIVE_SYNC);
}

static bool names_are_sync(struct ops *o, struct x4_inode *dir)
{
	return ops_is_sync(o, dir) || o->cfg.dirsync || (x4_inode_flags(dir) & OPS_FL_DIRSYNC);
}

int ops_may_change(struct ops *o, struct x4_inode *i)
{
	bool sync = S_ISDIR(x4_inode_mode(i)) ? names_are_sync(o, i) : ops_is_sync(o, i);

	return nowait_on() && sync ? nowait_miss() : 0;
}

/*
 * A loop thread has asked before; somebody may have set the flag since, and then this change came
 * first.
 */
int ops_inode_durable(struct ops *o, struct x4_inode *i, int err)
{
	return err || nowait_on() || !ops_is_sync(o, i) ? err : ops_wait_durable(o, i, false);
}

int ops_dir_durable(struct ops *o, struct x4_inode *dir, int err)
{
	return err || nowait_on() || !names_are_sync(o, dir) ? err
							     : ops_wait_durable(o, dir, false);
}
