/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The end of an inode without a name: ext4_evict deletes its blocks, its attributes and its number.
 * A small inode takes one transaction. Another takes several, and stays on the orphan list until
 * the last one, so a crash in between is finished at the next mount. So is a deletion that fails.
 *
 * The room inode calls ext4_evict on the thread that dropped the last reference: a worker, a loop
 * thread in the mode of base/nowait.h (which does only what one transaction can do without waiting;
 * a worker does the rest), the ticker, or the thread that mounts or unmounts. No lock is held.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"
#include "ext4/life/life.h"

#include "base/log.h"
#include "base/nowait.h"

#include <errno.h>
#include <string.h>

/* Frees the number of an inode that owns nothing any more: size 0, and a time of deletion. */
static int release_number(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	bool is_dir = S_ISDIR(inode->raw->i_mode);
	int err = ext4_inode_begin(handle, inode);

	if (!err)
		err = ext4_orphan_del(handle, inode);
	if (!err)
		err = ext4_inode_number_free(handle, vol, inode->ino, is_dir);
	if (err)
		return err;
	fdio_mutex_lock(&inode->attr);
	ext4_raw_set_size(inode, 0);
	fdio_mutex_unlock(&inode->attr);
	inode->raw->i_dtime = (uint32_t)ext4_now(vol).tv_sec;
	return ext4_inode_dirty(handle, inode, false);
}

/* Frees the number and ends handle, or cancels it if err or a miss says so. */
static int finish_evict(struct journal_handle *handle, struct ext4_inode *inode, int err)
{
	if (!err)
		err = release_number(handle, inode);
	err = nowait_err(err);
	if (err) {
		journal_cancel(handle);
		return err;
	}
	/* Before the handle ends, because the next one may give the number to another inode. */
	ext4_inode_unhash(inode);
	journal_end(handle);
	return 0;
}

/* True if one transaction may do: a few runs of blocks and at most one attribute block. */
static bool is_small(struct ext4_inode *inode)
{
	const uint64_t most = S_ISDIR(inode->raw->i_mode) ? 8 : 2048;

	return !inode->vol->has_ea_inode &&
	       ext4_raw_blocks_512(inode) <= most << (inode->vol->block_bits - 9) &&
	       ext4_blocks_in_root(inode);
}

/* Deletes inode in one transaction. -ENOSPC: that is too much for one. */
static int evict_small(struct ext4_inode *inode)
{
	unsigned credits = ext4_free_root_credits(inode) + EXT4_CREDITS_INODE +
			   EXT4_CREDITS_ORPHAN + 2;
	struct journal_handle *handle;
	int err = fdio_mutex_enter(&inode->map_lock);

	if (err)
		return err;
	credits += ext4_raw_file_acl(inode) ? EXT4_CREDITS_XATTR : 0;
	err = ext4_inode_change_begin(inode, credits, &handle);
	if (!err) {
		err = ext4_free_root_blocks(handle, inode);
		if (!err)
			err = ext4_xattr_drop_block(handle, inode);
		err = finish_evict(handle, inode, err);
	}
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}

/* Deletes inode in as many transactions as it takes. */
static int evict_steps(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	struct journal_handle *handle;
	int err = ext4_free_all_blocks(inode);

	if (!err)
		err = ext4_xattr_free_all(inode);
	if (!err)
		err = journal_begin(vol->journal, EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN + 2,
				    &handle);
	return err ? err : finish_evict(handle, inode, 0);
}

/*
 * Deletes inode, to which no other thread has or gets a reference: the cache has marked it as
 * evicting. 0: it is deleted, and no longer in the hash.
 */
static int ext4_evict(struct ext4_inode *inode)
{
	int err = ext4_inode_enter_exclusive(inode);

	if (err)
		return err;
	err = is_small(inode) ? evict_small(inode) : -ENOSPC;
	if (err == -ENOSPC)
		err = nowait_on() ? nowait_miss() : evict_steps(inode);
	ext4_inode_unlock(inode);
	if (err && err != -EROFS && !nowait_missed())
		log_ratelimited(FDIO_LOG_WARN,
				"%s: inode %u could not be deleted (%s): the next mount will do it",
				inode->vol->dev->name, inode->ino, strerror(-err));
	return err;
}

void ext4_life_init(struct ext4_vol *vol) { ext4_inode_cache_set_evict(vol, ext4_evict); }
