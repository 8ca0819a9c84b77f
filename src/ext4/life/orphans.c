/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a crash left on the orphan list (inode/orphan_list.c): deletions and truncates that were interrupted
 * are finished while the volume opens, on its thread, before anyone else. Damage of the list is recorded and
 * cuts it off; what cannot be finished stays on it for the next mount.
 */
#include "ext4/core/structs.h"
#include "ext4/life/life.h"

#include "base/log.h"
#include "base/nowait.h"
#include "base/stop.h"

#include <errno.h>
#include <string.h>

/* A file that still has a name: its truncate is finished. */
static int finish_truncate(struct x4_inode *inode)
{
	struct journal_handle *handle;
	int err = 0;

	x4_inode_lock_excl(inode);
	if (S_ISREG(inode->raw->i_mode))
		err = x4_truncate(inode, x4_raw_size(inode));
	if (!err && x4_orphan_listed(inode)) {
		err = journal_begin(inode->vol->journal, X4_CREDITS_INODE + X4_CREDITS_ORPHAN, &handle);
		if (!err) {
			err = x4_orphan_del(handle, inode);
			if (err)
				journal_cancel(handle);
			else
				journal_end(handle);
		}
	}
	x4_inode_unlock(inode);
	return err;
}

void x4_orphan_finish(struct x4_vol *vol, struct x4_inode *inode)
{
	int err;

	if (inode->nlink) {
		x4_truncate_interrupted(inode);
		err = finish_truncate(inode);
		if (err)
			log_warn("%s: inode %u: the truncate that a crash interrupted could not be finished: %s", vol->dev->name, inode->ino,
				 strerror(-err));
	}
	x4_iput(inode); /* deletes it if it has no name */
}

/* Those in memory, each of which takes itself off the list. 1; 0 if one stays; -EINTR. */
static int finish_collected(struct x4_vol *vol, unsigned *done)
{
	struct x4_inode *inode;

	while ((inode = x4_orphans_first(vol)) != NULL) {
		if (fdio_stop_asked())
			return -EINTR; /* the next mount goes on */
		x4_orphan_finish(vol, inode);
		if (x4_orphans_first(vol) == inode) {
			log_warn("%s: inode %u stays on the orphan list", vol->dev->name, inode->ino);
			return 0;
		}
		++*done;
	}
	return 1;
}

int x4_orphans_process(struct x4_vol *vol)
{
	unsigned done = 0;
	bool cut_off;
	int err = 0;

	x4_orphans_begin(vol, vol->fs->super->s_last_orphan);
	while (!err && x4_orphans_left(vol)) {
		err = x4_orphans_collect(vol, &cut_off);
		if (!err && cut_off)
			err = x4_orphans_cut(vol);
		int r = err ? err : finish_collected(vol, &done);

		if (r < 0)
			err = r;
		/* With a part of the list not in memory a change of it would make a circle on the disk. */
		if (!r && x4_orphans_left(vol))
			err = -EIO;
		if (r <= 0)
			break;
	}
	if (done)
		log_info("%s: %u deletions and truncates that were interrupted have been finished", vol->dev->name, done);
	return err;
}
