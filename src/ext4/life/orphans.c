/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a crash left on the orphan list (inode/orphan_list.c): interrupted deletions and truncates
 * are finished while the volume opens, on its thread, before any request. A damaged list is noted
 * and ends before the damage. What cannot be finished stays on the list for the next mount.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"
#include "ext4/life/life.h"

#include "base/log.h"
#include "base/nowait.h"
#include "base/stop.h"

#include <errno.h>
#include <string.h>

/* Finishes the truncate of a file that still has a name. */
static int finish_truncate(struct ext4_inode *inode)
{
	struct journal_handle *handle;
	int err = 0;

	ext4_inode_lock_exclusive(inode);
	if (S_ISREG(inode->raw->i_mode))
		err = ext4_truncate(inode, ext4_raw_size(inode));
	if (!err && ext4_orphan_listed(inode)) {
		err = journal_begin(inode->vol->journal, EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN,
				    &handle);
		if (!err) {
			err = ext4_orphan_del(handle, inode);
			err = ext4_handle_end(handle, err);
		}
	}
	ext4_inode_unlock(inode);
	return err;
}

void ext4_orphan_finish(struct ext4_vol *vol, struct ext4_inode *inode)
{
	int err;

	if (inode->nlink) {
		ext4_truncate_interrupted(inode);
		err = finish_truncate(inode);
		if (err)
			log_warn("%s: inode %u: the truncate that a crash interrupted could not be "
				 "finished: %s",
				 vol->dev->name, inode->ino, strerror(-err));
	}
	ext4_inode_put(inode); /* the last reference: without a name it is deleted */
}

/*
 * Finishes the orphans in memory, which takes each off the list. 1: none is left. 0: one could not
 * be taken off. -EINTR: the mount is to stop, and the next one goes on.
 */
static int finish_collected(struct ext4_vol *vol, unsigned *done)
{
	struct ext4_inode *inode;

	while ((inode = ext4_orphans_first(vol)) != NULL) {
		if (fdio_stop_asked())
			return -EINTR;
		ext4_orphan_finish(vol, inode);
		if (ext4_orphans_first(vol) == inode) {
			log_warn("%s: inode %u stays on the orphan list", vol->dev->name,
				 inode->ino);
			return 0;
		}
		++*done;
	}
	return 1;
}

int ext4_orphans_process(struct ext4_vol *vol)
{
	unsigned done = 0;
	bool cut_off;
	int err = 0;

	ext4_orphans_begin(vol, vol->fs->super->s_last_orphan);
	while (!err && ext4_orphans_left(vol)) {
		int r;

		err = ext4_orphans_collect(vol, &cut_off);
		if (!err && cut_off)
			err = ext4_orphans_cut(vol);
		r = err ? err : finish_collected(vol, &done);
		if (r < 0)
			err = r;
		/*
		 * One orphan stays while the rest of the list is only on disk: the next change of
		 * the list would make it circular, so the volume is refused.
		 */
		if (!r && ext4_orphans_left(vol))
			err = -EIO;
		if (r <= 0)
			break;
	}
	if (done)
		log_info("%s: %u deletions and truncates that were interrupted have been finished",
			 vol->dev->name, done);
	return err;
}
