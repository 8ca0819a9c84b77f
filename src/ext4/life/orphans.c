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

/* So many that a crash left are in memory at a time: an image may have as many as inodes. */
#define COLLECT_MAX 1024u

/* ------------------------------------------------------------------ at mount */
/* May stand on the list: a file's number, in use. */
static int check_orphan(struct x4_vol *v, uint32_t ino)
{
	int r;

	if (ino < v->first_ino || ino > v->nr_inodes)
		return X4_CORRUPT(v, ino, 0, "impossible inode number on the orphan list");
	r = x4_inode_in_use(v, ino);
	if (r == 0)
		return X4_CORRUPT(v, ino, 0, "unused inode on the orphan list");
	return r < 0 ? r : 0;
}

/*
 * Reads the chain from where it goes on into memory, as far as that may be. What cannot be followed
 * is cut off: *ret_cut. Each inode is referenced.
 */
static int collect(struct x4_vol *v, bool *ret_cut)
{
	uint32_t ino = v->orphan_rest;
	int err;

	*ret_cut = false;
	for (unsigned n = 0; ino && n < COLLECT_MAX; n++) {
		struct x4_inode *i;

		err = check_orphan(v, ino);
		if (!err)
			err = x4_iget_special(v, ino, &i);
		if (!err && i->on_orphans) {
			x4_iput(i);
			err = X4_CORRUPT(v, ino, 0, "the orphan list runs in a circle");
		}
		if (err == -ENOMEM || err == -EIO)
			return err;
		if (err) {
			*ret_cut = true;
			v->orphan_rest = 0;
			return 0;
		}
		x4_orphan_found(i);
		i->untrimmed = S_ISREG(i->raw->i_mode) && i->nlink;
		ino = i->raw->i_dtime;
	}
	v->orphan_rest = ino;
	return 0;
}

/* Ends the chain on disk where it ends in memory. */
static int cut(struct x4_vol *v)
{
	struct ext2_super_block *sb;
	struct jnl_handle *h;
	int err = jnl_begin(v->jnl, X4_CREDITS_ORPHAN, &h);

	if (err)
		return err;
	if (list_empty(&v->orphans)) {
		err = x4_super_begin(v, h, &sb);
		if (!err) {
			sb->s_last_orphan = 0;
			x4_super_end(v, h);
		}
	} else {
		struct x4_inode *last = list_last(&v->orphans, struct x4_inode, orphan);

		err = x4_inode_begin(h, last);
		if (!err) {
			last->raw->i_dtime = 0;
			err = x4_inode_dirty(h, last, false);
		}
	}
	if (err)
		jnl_cancel(h);
	else
		jnl_end(h);
	return err;
}

/* A file that still has a name: its truncate is finished. */
static int finish_truncate(struct x4_inode *i)
{
	struct jnl_handle *h;
	int err = 0;

	x4_inode_lock_excl(i);
	if (S_ISREG(i->raw->i_mode))
		err = x4_truncate(i, x4_raw_size(i));
	if (!err && i->on_orphans) {
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
		i->untrimmed = S_ISREG(i->raw->i_mode);
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
	while (!list_empty(&v->orphans)) {
		struct x4_inode *i = list_first(&v->orphans, struct x4_inode, orphan);

		if (fdio_stop_asked())
			return -EINTR; /* the next mount goes on */
		x4_orphan_finish(v, i);
		if (!list_empty(&v->orphans) && list_first(&v->orphans, struct x4_inode, orphan) == i) {
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

	v->orphan_rest = v->fs->super->s_last_orphan;
	while (!err && v->orphan_rest) {
		err = collect(v, &cut_off);
		if (!err && cut_off)
			err = cut(v);
		int r = err ? err : finish_collected(v, &done);

		if (r < 0)
			err = r;
		/* With a part of the list not in memory a change of it would make a circle on the disk. */
		if (!r && v->orphan_rest)
			err = -EIO;
		if (r <= 0)
			break;
	}
	if (done)
		log_info("%s: %u deletions and truncates that were interrupted have been finished", v->dev->name, done);
	return err;
}
