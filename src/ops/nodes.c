/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Node ids and the references that the kernel holds by them: looking an inode up (workers,
 * OPS_TRY), FORGET (loop threads, in the mode of nowait.h), deleting what loop threads left over (a
 * worker), and asking the kernel whether it still holds an inode (any thread; blocks for no page).
 * No lock is held here. A number that no node id can be is ESTALE.
 */
#include "ops/types.h"

static int nodeid_to_ino(uint64_t nodeid, uint32_t *ret)
{
	if (nodeid == FUSE_ROOT_ID)
		*ret = EXT4_ROOT_INO;
	else if (nodeid >= OPS_FIRST_INO && nodeid <= UINT32_MAX)
		*ret = (uint32_t)nodeid;
	else
		return -ESTALE;
	return 0;
}

int ops_iget(struct ops *ops, uint64_t nodeid, struct ext4_inode **ret)
{
	uint32_t ino;
	int err = nodeid_to_ino(nodeid, &ino);

	if (err)
		return err;
	err = ext4_inode_get(ops->vol, ino, NULL, ret);
	return err == -ENOENT ? -ESTALE : err;
}

void ops_unlookup(struct ops *ops, uint64_t nodeid, uint64_t nlookup)
{
	struct ext4_inode *inode;
	uint32_t ino;

	/* The root's reference is the volume's own; the kernel's lookups of it are not counted. */
	if (nodeid == FUSE_ROOT_ID || !nlookup || nodeid_to_ino(nodeid, &ino))
		return;
	inode = ext4_inode_get_cached(ops->vol, ino);
	if (!inode)
		return;
	/* Never more than the kernel was given; and the one just taken. */
	ext4_inode_put_many(inode, ext4_lookups_sub(inode, nlookup) + 1);
}

void ops_forget(void *arg, uint64_t nodeid, uint64_t nlookup)
{
	nowait_begin();
	ops_unlookup(arg, nodeid, nlookup);
	nowait_end();
}

/* ---- what ext4 asks of the rooms above ---- */

static void reap_on_worker(struct work *work)
{
	struct ops *ops = container_of(work, struct ops, reap_work);

	/* from here on it can be queued again */
	__atomic_store_n(&ops->reap_queued, false, __ATOMIC_SEQ_CST);
	ext4_vol_reap(ops->vol);
}

static void reap_due(void *arg)
{
	struct ops *ops = arg;

	if (!__atomic_exchange_n(&ops->reap_queued, true, __ATOMIC_SEQ_CST))
		work_queue_add(ops->config.workers, &ops->reap_work, reap_on_worker);
}

/*
 * Attributes alone are invalidated, which waits for no page. What cannot be found out counts as
 * held.
 */
static bool kernel_holds(void *arg, uint32_t ino)
{
	struct ops *ops = arg;

	fdio_count(COUNTER_ops_held_asked);
	return !ops->transport ||
	       transport_notify_inval_inode(ops->transport,
					    ino == EXT4_ROOT_INO ? FUSE_ROOT_ID : ino, -1,
					    0) != -ENOENT;
}

void ops_nodes_init(struct ops *ops)
{
	ext4_vol_set_reaper(ops->vol, reap_due, ops);
	ext4_vol_set_held(ops->vol, kernel_holds, ops);
}
