/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * References to inodes by number: ext4_inode_get and its relatives find an inode in the cache, or
 * load it from the inode table.
 *
 * Workers, and loop threads in the mode of base/nowait.h, which miss where loading would read the
 * disk; also the thread that opens the volume. ext4_inode_get_cached: any thread. vol->inode.lock
 * guards the cache (cache.c) and is not held while the disk is read.
 *
 * -ENOENT: the number is out of range or not in use, or the inode is being deleted. -EUCLEAN: the
 * disk inode is damaged.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/disk_inode.h"

#include "base/nowait.h"

#include <errno.h>

/*
 * An inode notes the transaction that fsync has to wait for (ext4_sync_tid). If its struct is freed
 * before that transaction is durable, the note is lost. So fsync of an inode that is read again
 * waits for the newest transaction noted in any freed struct (gone_tid). fdatasync waits for it
 * too: data that was not flushed is older than the times written for it.
 */
static void inherit_sync_tid(struct ext4_inode *inode)
{
	inode->inode.sync_tid = inode->inode.datasync_tid = inode->vol->inode.gone_tid;
	inode->inode.has_sync_tid = inode->inode.has_datasync_tid = inode->vol->inode.has_gone_tid;
}

/*
 * inode was found in the hash: waits until it is loaded and takes a reference. The caller holds
 * vol->inode.lock, which is unlocked here.
 */
static int get_found(struct ext4_vol *vol, struct ext4_inode *inode, struct ext4_inode **ret)
{
	bool bad;

	if (inode->inode.evicting) {
		fdio_mutex_unlock(&vol->inode.lock);
		return -ENOENT;
	}
	if (inode->inode.loading && nowait_on()) {
		fdio_mutex_unlock(&vol->inode.lock);
		return nowait_miss();
	}
	ext4_inode_use_locked(inode);
	while (inode->inode.loading)
		fdio_cond_wait(&vol->inode.cond, &vol->inode.lock);
	bad = inode->inode.bad;
	fdio_mutex_unlock(&vol->inode.lock);
	if (bad) {
		ext4_inode_put(inode);
		return -ENOENT;
	}
	*ret = inode;
	return 0;
}

/*
 * Reads the inode ino into a new struct. The struct is in the hash meanwhile, so that other threads
 * wait for it instead of reading the inode too.
 */
static int load(struct ext4_vol *vol, uint32_t ino, bool special, struct ext4_inode **ret)
{
	struct ext4_inode *inode, *mine = ext4_inode_alloc(vol, ino);
	int err;

	if (!mine)
		return -ENOMEM;
	mine->inode.loading = true;
	fdio_mutex_lock(&vol->inode.lock);
	inode = ext4_inode_find_locked(vol, ino);
	if (inode) {
		err = get_found(vol, inode, ret);
		ext4_inode_free(mine);
		return err;
	}
	inherit_sync_tid(mine);
	ext4_inode_hash_locked(mine);
	fdio_mutex_unlock(&vol->inode.lock);
	err = ext4_inode_read(mine, special);
	fdio_mutex_lock(&vol->inode.lock);
	mine->inode.loading = false;
	if (err) {
		mine->inode.bad = true;
		ext4_inode_unhash_locked(mine);
	}
	pthread_cond_broadcast(&vol->inode.cond);
	fdio_mutex_unlock(&vol->inode.lock);
	if (err)
		ext4_inode_put(mine);
	else
		*ret = mine;
	return err;
}

static int get(struct ext4_vol *vol, uint32_t ino, bool special, struct ext4_inode **ret)
{
	struct journal_buffer *pin = NULL;
	struct ext4_inode *inode;
	uint32_t off;
	int err = 0;

	fdio_mutex_lock(&vol->inode.lock);
	inode = ext4_inode_find_locked(vol, ino);
	if (inode)
		return get_found(vol, inode, ret);
	fdio_mutex_unlock(&vol->inode.lock);
	/*
	 * Threads that wait for this inode get -ENOENT if loading it fails. So a loop thread makes
	 * sure before it begins that nothing will miss: the block is in memory, and pin keeps it
	 * there.
	 */
	if (nowait_on() && ext4_itable_never_used(vol, ino))
		err = nowait_miss();
	else if (nowait_on())
		err = journal_read_block(vol->journal, ext4_itable_place(vol, ino, &off), &pin);
	if (!err)
		err = load(vol, ino, special, ret);
	journal_buffer_release(pin);
	return err;
}

/* Whether inode holds the value of an extended attribute: only the xattr room may reach it. */
static bool holds_value(struct ext4_inode *inode)
{
	return inode->vol->has_ea_inode && (ext4_inode_flags(inode) & EXT4_EA_INODE_FL);
}

int ext4_inode_get(struct ext4_vol *vol, uint32_t ino, const uint32_t *gen, struct ext4_inode **ret)
{
	int err;

	if (ino == 0 || ino > vol->nr_inodes ||
	    (ino < vol->first_ino && ino != EXT4_ROOT_INO && !vol->mounting))
		return -ENOENT;
	err = get(vol, ino, vol->mounting, ret);
	if (!err && ((gen && (*ret)->gen != *gen) || holds_value(*ret))) {
		ext4_inode_put(*ret);
		return -ESTALE;
	}
	return err;
}

int ext4_inode_get_special(struct ext4_vol *vol, uint32_t ino, struct ext4_inode **ret)
{
	return ino == 0 || ino > vol->nr_inodes ? -ENOENT : get(vol, ino, true, ret);
}

int ext4_inode_get_value(struct ext4_vol *vol, uint32_t ino, struct ext4_inode **ret)
{
	struct ext4_inode *inode;
	bool nameless;

	if (ino < vol->first_ino || ino > vol->nr_inodes)
		return -ENOENT;
	fdio_mutex_lock(&vol->inode.lock);
	inode = ext4_inode_find_locked(vol, ino);
	nameless = inode && ext4_inode_nameless(inode);
	fdio_mutex_unlock(&vol->inode.lock);
	return nameless ? -ENOENT : get(vol, ino, false, ret);
}

struct ext4_inode *ext4_inode_get_cached(struct ext4_vol *vol, uint32_t ino)
{
	struct ext4_inode *inode;

	fdio_mutex_lock(&vol->inode.lock);
	inode = ext4_inode_find_locked(vol, ino);
	if (inode && (inode->inode.loading || inode->inode.evicting || inode->inode.bad))
		inode = NULL;
	if (inode)
		ext4_inode_use_locked(inode);
	fdio_mutex_unlock(&vol->inode.lock);
	return inode;
}
