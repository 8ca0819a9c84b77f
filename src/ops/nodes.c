/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Node ids, and the references that the kernel holds by them. Workers and loop threads (OPS_TRY)
 * find inodes by node id, which fails with ESTALE if there is none. FORGET drops references, on
 * loop threads in the mode of base/nowait.h; a worker deletes the inodes that they leave over. A
 * worker may ask the kernel whether it still has an inode. No lock is held here.
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

int ops_inode_get(struct ops *ops, uint64_t nodeid, struct ext4_inode **ret)
{
	uint32_t ino;
	int err = nodeid_to_ino(nodeid, &ino);

	if (err)
		return err;
	err = ext4_inode_get(ops->vol, ino, NULL, ret);
	return err == -ENOENT ? -ESTALE : err;
}

void ops_forget_lookups(struct ops *ops, uint64_t nodeid, uint64_t nlookup)
{
	struct ext4_inode *inode;
	uint32_t ino;

	/* The volume holds the reference of the root; lookups of the root are not counted. */
	if (nodeid == FUSE_ROOT_ID || !nlookup || nodeid_to_ino(nodeid, &ino))
		return;
	inode = ext4_inode_get_cached(ops->vol, ino);
	if (!inode)
		return;
	/* At most as many as the kernel has, plus the one that ext4_inode_get_cached took. */
	ext4_inode_put_many(inode, ext4_lookups_sub(inode, nlookup) + 1);
}

void ops_forget(void *arg, uint64_t nodeid, uint64_t nlookup)
{
	nowait_begin();
	ops_forget_lookups(arg, nodeid, nlookup);
	nowait_end();
}

/* ---- callbacks of ext4 ---- */

static void reap_on_worker(struct work *work)
{
	struct ops *ops = container_of(work, struct ops, reap_work);

	/* Before the reaping: an inode that is left over from now on needs another run. */
	__atomic_store_n(&ops->reap_queued, false, __ATOMIC_SEQ_CST);
	ext4_vol_reap(ops->vol);
}

/* For ext4_vol_set_reaper. Any thread. */
static void reap_due(void *arg)
{
	struct ops *ops = arg;

	if (!__atomic_exchange_n(&ops->reap_queued, true, __ATOMIC_SEQ_CST))
		work_queue_add(ops->config.workers, &ops->reap_work, reap_on_worker);
}

/*
 * For ext4_vol_set_held: false only if the kernel says that it does not have the inode. The
 * notification names no pages, so it waits for none.
 */
static bool kernel_holds(void *arg, uint32_t ino)
{
	struct ops *ops = arg;
	uint64_t nodeid = ino == EXT4_ROOT_INO ? FUSE_ROOT_ID : ino;

	fdio_count(COUNTER_ops_held_asked);
	return !ops->transport ||
	       transport_notify_inval_inode(ops->transport, nodeid, -1, 0) != -ENOENT;
}

void ops_nodes_init(struct ops *ops)
{
	ext4_vol_set_reaper(ops->vol, reap_due, ops);
	ext4_vol_set_held(ops->vol, kernel_holds, ops);
}
