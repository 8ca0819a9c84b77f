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
static int finish_truncate(struct x4_inode *i)
{
	struct jnl_handle *h;
	int err = 0;

	x4_inode_lock_excl(i);
	if (S_ISREG(i->raw->i_mode))
		err = x4_truncate(i, x4_raw_size(i));
	if (!err && x4_orphan_listed(i)) {
		err = jnl_begin(i->vol->jnl, X4_CREDITS_INODE + X4_CREDITS_ORPHAN, &h);
		if (!err) {
			err = x4_orphan_del(h, i);
			if (err)
				jnl_cancel(h);
			else
				jnl_end(h);
		}
	}
	x4_inode_unlock(i);
	return err;
}

void x4_orphan_finish(struct x4_vol *v, struct x4_inode *i)
{
	int err;

	if (i->nlink) {
		x4_truncate_interrupted(i);
		err = finish_truncate(i);
		if (err)
			log_warn("%s: inode %u: the truncate that a crash interrupted could not be finished: %s", v->dev->name, i->ino,
				 strerror(-err));
	}
	x4_iput(i); /* deletes it if it has no name */
}

/* Those in memory, each of which takes itself off the list. 1; 0 if one stays; -EINTR. */
static int finish_collected(struct x4_vol *v, unsigned *done)
{
	struct x4_inode *i;

	while ((i = x4_orphans_first(v)) != NULL) {
		if (fdio_stop_asked())
			return -EINTR; /* the next mount goes on */
		x4_orphan_finish(v, i);
		if (x4_orphans_first(v) == i) {
			log_warn("%s: inode %u stays on the orphan list", v->dev->name, i->ino);
			return 0;
		}
		++*done;
	}
	return 1;
}

int x4_orphans_process(struct x4_vol *v)
{
	unsigned done = 0;
	bool cut_off;
	int err = 0;

	x4_orphans_begin(v, v->fs->super->s_last_orphan);
	while (!err && x4_orphans_left(v)) {
		err = x4_orphans_collect(v, &cut_off);
		if (!err && cut_off)
			err = x4_orphans_cut(v);
		int r = err ? err : finish_collected(v, &done);

		if (r < 0)
			err = r;
		/* With a part of the list not in memory a change of it would make a circle on the disk. */
		if (!r && x4_orphans_left(v))
			err = -EIO;
		if (r <= 0)
			break;
	}
	if (done)
		log_info("%s: %u deletions and truncates that were interrupted have been finished", v->dev->name, done);
	return err;
}
