/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The orphan list: inodes whose last name is gone or whose truncate is under way, so that a crash leaves
 * nothing behind. On disk it is a chain from s_last_orphan through i_dtime; in memory the same inodes
 * in the same order, but for the end of a chain that a crash left (orphan_rest). Both change only
 * inside handles, which are serial: no lock of its own.
 *
 * Also here: what happens to an inode at the end (x4_evict, on the worker that dropped the last
 * reference), and the processing of what a crash left on the list (at mount, before anyone else).
 */
#include "ext4/volume/volume.h"
#include "ext4/xattr/xattr.h"

#include "base/log.h"
#include "base/nowait.h"
#include "base/stop.h"

#include <errno.h>
#include <string.h>

/* So many that a crash left are in memory at a time: an image may have as many as inodes. */
#define COLLECT_MAX 1024u

struct orphan_undo {
	struct jnl_callback cb;
	struct x4_inode *i;
	struct list *after; /* for a deletion: where it stood */
};

static void set_on_orphans(struct x4_inode *i, bool on)
{
	if (i->on_orphans != on)
		__atomic_add_fetch(&i->vol->nr_orphans, on ? 1U : -1U, __ATOMIC_SEQ_CST);
	__atomic_store_n(&i->on_orphans, on, __ATOMIC_RELAXED);
}

static void orphan_undo(struct jnl_callback *cb, int ended)
{
	struct orphan_undo *u = container_of(cb, struct orphan_undo, cb);

	if (!ended) {
		/* Newest first: the list is as it was right after the change. */
		if (u->after)
			list_add(u->after, &u->i->orphan);
		else
			list_del(&u->i->orphan);
		set_on_orphans(u->i, u->after != NULL);
	}
}

static int remember(struct jnl_handle *h, struct x4_inode *i, struct list *after)
{
	struct orphan_undo *u = jnl_handle_mem(h, sizeof(*u));

	if (!u)
		return -ENOMEM;
	*u = (struct orphan_undo){ .cb = { .fn = orphan_undo }, .i = i, .after = after };
	jnl_on_undo(h, &u->cb);
	return 0;
}

int x4_orphan_add(struct jnl_handle *h, struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	struct ext2_super_block *sb;
	int err;

	if (i->on_orphans)
		return 0;
	err = x4_super_begin(v, h, &sb);
	if (!err)
		err = x4_inode_begin(h, i);
	if (!err)
		err = remember(h, i, NULL);
	if (err)
		return err;
	list_add(&v->orphans, &i->orphan);
	set_on_orphans(i, true);
	if (__atomic_load_n(&i->nr_open, __ATOMIC_RELAXED))
		__atomic_store_n(&i->left_ns, fdio_now_ns(), __ATOMIC_RELAXED);
	i->raw->i_dtime = sb->s_last_orphan;
	sb->s_last_orphan = i->ino;
	x4_super_end(v, h);
	return x4_inode_dirty(h, i, false);
}

/* The link that points at i: the superblock's, or that of the inode before it. */
static int relink(struct jnl_handle *h, struct x4_inode *i, uint32_t next)
{
	struct x4_vol *v = i->vol;
	struct ext2_super_block *sb;
	struct x4_inode *prev;
	int err;

	if (i->orphan.prev == &v->orphans) {
		err = x4_super_begin(v, h, &sb);
		if (err)
			return err;
		sb->s_last_orphan = next;
		x4_super_end(v, h);
		return 0;
	}
	prev = list_entry(i->orphan.prev, struct x4_inode, orphan);
	err = x4_inode_begin(h, prev);
	if (err)
		return err;
	prev->raw->i_dtime = next;
	return x4_inode_dirty(h, prev, false);
}

int x4_orphan_del(struct jnl_handle *h, struct x4_inode *i)
{
	uint32_t next;
	int err;

	if (!i->on_orphans)
		return 0;
	next = i->orphan.next == &i->vol->orphans ? i->vol->orphan_rest :
		list_entry(i->orphan.next, struct x4_inode, orphan)->ino;
	err = relink(h, i, next);
	if (!err)
		err = x4_inode_begin(h, i);
	if (!err)
		err = remember(h, i, i->orphan.prev);
	if (err)
		return err;
	list_del(&i->orphan);
	set_on_orphans(i, false);
	i->raw->i_dtime = 0;
	return x4_inode_dirty(h, i, false);
}

/* ------------------------------------------------------------------ eviction */
/* Everything it owned is free: the number too, and a date instead of a link. */
static int release_number(struct jnl_handle *h, struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	bool is_dir = S_ISDIR(i->raw->i_mode);
	int err = x4_inode_begin(h, i);

	if (!err)
		err = x4_orphan_del(h, i);
	if (!err)
		err = x4_ifree(h, v, i->ino, is_dir);
	if (err)
		return err;
	fdio_mutex_lock(&i->attr);
	x4_raw_set_size(i, 0);
	fdio_mutex_unlock(&i->attr);
	i->raw->i_dtime = (uint32_t)x4_now(v).tv_sec;
	return x4_inode_dirty(h, i, false);
}

static int finish_evict(struct jnl_handle *h, struct x4_inode *i, int err)
{
	if (!err)
		err = release_number(h, i);
	err = nowait_err(err);
	if (err) {
		jnl_cancel(h);
		return err;
	}
	/* Before the handle ends: the number may be taken again by the next one. */
	x4_inode_unhash(i);
	jnl_end(h);
	return 0;
}

/* What it owns is few runs of blocks and at most a block of attributes. */
static bool is_small(struct x4_inode *i)
{
	const uint64_t most = S_ISDIR(i->raw->i_mode) ? 8 : 2048;

	return !i->vol->has_ea_inode && x4_raw_blocks_512(i) <= most << (i->vol->block_bits - 9) && x4_blocks_in_root(i);
}

/* In one transaction. */
static int evict_small(struct x4_inode *i)
{
	unsigned credits = x4_free_root_credits(i) + X4_CREDITS_INODE + X4_CREDITS_ORPHAN + 2;
	struct jnl_handle *h;
	int err = fdio_mutex_enter(&i->map_lock);

	if (err)
		return err;
	credits += x4_raw_file_acl(i) ? X4_CREDITS_XATTR : 0;
	err = jnl_begin(i->vol->jnl, credits, &h);
	if (!err) {
		err = x4_inode_begin(h, i);
		if (!err)
			err = x4_free_root_blocks(h, i);
		if (!err)
			err = x4_xattr_drop_block(h, i);
		err = finish_evict(h, i, err);
	}
	fdio_mutex_unlock(&i->map_lock);
	return err;
}

static int evict_steps(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	struct jnl_handle *h;
	int err = x4_free_all_blocks(i);

	if (!err)
		err = x4_xattr_free_all(i);
	if (!err)
		err = jnl_begin(v->jnl, X4_CREDITS_INODE + X4_CREDITS_ORPHAN + 2, &h);
	return err ? err : finish_evict(h, i, 0);
}

int x4_evict(struct x4_inode *i)
{
	int err = x4_inode_enter_excl(i);

	if (err)
		return err;
	err = is_small(i) ? evict_small(i) : -ENOSPC;
	if (err == -ENOSPC) /* too much for one transaction */
		err = nowait_on() ? nowait_miss() : evict_steps(i);
	x4_inode_unlock(i);
	if (err && err != -EROFS && !nowait_missed())
		log_ratelimited(FDIO_LOG_WARN, "%s: inode %u could not be deleted (%s): the next mount will do it", i->vol->dev->name,
				i->ino, strerror(-err));
	return err;
}

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
		list_add_tail(&v->orphans, &i->orphan);
		set_on_orphans(i, true);
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
