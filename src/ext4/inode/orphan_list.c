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

void x4_orphan_found(struct x4_inode *i)
{
	list_add_tail(&i->vol->orphans, &i->orphan);
	set_on_orphans(i, true);
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
