/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes of the orphan list: inodes whose last name is gone or whose truncate is under way, so that a
 * crash leaves nothing behind. On disk it is a chain from s_last_orphan through i_dtime; in memory the same inodes
 * in the same order, but for the end of a chain that a crash left (orphan_rest). Both change only
 * inside handles, which are serial: no lock of its own. A cancelled handle puts both back.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode.h"

#include <errno.h>

/* So many that a crash left are in memory at a time: an image may have as many as inodes. */
#define COLLECT_MAX 1024u

struct orphan_undo {
	struct jnl_callback cb;
	struct x4_inode *i;
	struct list *after; /* for a deletion: where it stood */
};

static void set_on_orphans(struct x4_inode *i, bool on)
{
	if (i->inode.on_orphans != on)
		__atomic_add_fetch(&i->vol->inode.nr_orphans, on ? 1U : -1U, __ATOMIC_SEQ_CST);
	__atomic_store_n(&i->inode.on_orphans, on, __ATOMIC_RELAXED);
}

static void orphan_undo(struct jnl_callback *cb, int ended)
{
	struct orphan_undo *u = container_of(cb, struct orphan_undo, cb);

	if (!ended) {
		/* Newest first: the list is as it was right after the change. */
		if (u->after)
			list_add(u->after, &u->i->inode.orphan);
		else
			list_del(&u->i->inode.orphan);
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

	if (i->inode.on_orphans)
		return 0;
	err = x4_super_begin(v, h, &sb);
	if (!err)
		err = x4_inode_begin(h, i);
	if (!err)
		err = remember(h, i, NULL);
	if (err)
		return err;
	list_add(&v->inode.orphans, &i->inode.orphan);
	set_on_orphans(i, true);
	if (__atomic_load_n(&i->inode.nr_open, __ATOMIC_RELAXED))
		__atomic_store_n(&i->inode.left_ns, fdio_now_ns(), __ATOMIC_RELAXED);
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

	if (i->inode.orphan.prev == &v->inode.orphans) {
		err = x4_super_begin(v, h, &sb);
		if (err)
			return err;
		sb->s_last_orphan = next;
		x4_super_end(v, h);
		return 0;
	}
	prev = list_entry(i->inode.orphan.prev, struct x4_inode, inode.orphan);
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

	if (!i->inode.on_orphans)
		return 0;
	next = i->inode.orphan.next == &i->vol->inode.orphans ? i->vol->inode.orphan_rest :
		list_entry(i->inode.orphan.next, struct x4_inode, inode.orphan)->ino;
	err = relink(h, i, next);
	if (!err)
		err = x4_inode_begin(h, i);
	if (!err)
		err = remember(h, i, i->inode.orphan.prev);
	if (err)
		return err;
	list_del(&i->inode.orphan);
	set_on_orphans(i, false);
	i->raw->i_dtime = 0;
	return x4_inode_dirty(h, i, false);
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
int x4_orphans_collect(struct x4_vol *v, bool *ret_cut)
{
	uint32_t ino = v->inode.orphan_rest;
	int err;

	*ret_cut = false;
	for (unsigned n = 0; ino && n < COLLECT_MAX; n++) {
		struct x4_inode *i;

		err = check_orphan(v, ino);
		if (!err)
			err = x4_iget_special(v, ino, &i);
		if (!err && i->inode.on_orphans) {
			x4_iput(i);
			err = X4_CORRUPT(v, ino, 0, "the orphan list runs in a circle");
		}
		if (err == -ENOMEM || err == -EIO)
			return err;
		if (err) {
			*ret_cut = true;
			v->inode.orphan_rest = 0;
			return 0;
		}
		list_add_tail(&v->inode.orphans, &i->inode.orphan);
		set_on_orphans(i, true);
		ino = i->raw->i_dtime;
	}
	v->inode.orphan_rest = ino;
	return 0;
}

/* Ends the chain on disk where it ends in memory. */
int x4_orphans_cut(struct x4_vol *v)
{
	struct ext2_super_block *sb;
	struct jnl_handle *h;
	int err = jnl_begin(v->jnl, X4_CREDITS_ORPHAN, &h);

	if (err)
		return err;
	if (list_empty(&v->inode.orphans)) {
		err = x4_super_begin(v, h, &sb);
		if (!err) {
			sb->s_last_orphan = 0;
			x4_super_end(v, h);
		}
	} else {
		struct x4_inode *last = list_last(&v->inode.orphans, struct x4_inode, inode.orphan);

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

void x4_orphans_begin(struct x4_vol *v, uint32_t head) { v->inode.orphan_rest = head; }
bool x4_orphans_left(const struct x4_vol *v) { return v->inode.orphan_rest != 0; }

struct x4_inode *x4_orphans_first(struct x4_vol *v)
{
	return list_empty(&v->inode.orphans) ? NULL : list_first(&v->inode.orphans, struct x4_inode, inode.orphan);
}

void x4_orphans_each(struct x4_vol *v, void (*fn)(struct x4_inode *i, void *arg), void *arg)
{
	struct x4_inode *i;

	list_for_each(i, &v->inode.orphans, inode.orphan)
		fn(i, arg);
}

bool x4_orphan_listed(const struct x4_inode *i) { return i->inode.on_orphans; }
uint32_t x4_orphans_count(const struct x4_vol *v) { return __atomic_load_n(&v->inode.nr_orphans, __ATOMIC_SEQ_CST); }
