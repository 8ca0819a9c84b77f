/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The orphan list: inodes whose last name is gone or whose truncate is under way, which the next
 * mount finishes after a crash. On disk it is a chain from s_last_orphan of the superblock through
 * i_dtime of the inodes. In memory it is the same inodes in the same order, up to orphan_rest: the
 * inode where a long chain that a crash left goes on.
 *
 * Both lists change only inside handles, which are serial, so they need no lock; a cancelled handle
 * puts both back. Workers, loop threads in the mode of base/nowait.h, and at mount the thread that
 * opens the volume. Damage is recorded and -EUCLEAN.
 */
#include "ext4/core/structs.h"
#include "ext4/core/superblock.h"
#include "ext4/inode/disk_inode.h"

#include <errno.h>

/* Inodes of a chain that are in memory at a time: an image may list every inode it has. */
#define COLLECT_MAX 1024u

struct orphan_undo {
	struct journal_callback callback;
	struct ext4_inode *inode;
	struct list *after; /* inode was taken off the list behind this; NULL: it was added */
};

static void set_on_orphans(struct ext4_inode *inode, bool on)
{
	if (inode->inode.on_orphans != on)
		__atomic_add_fetch(&inode->vol->inode.nr_orphans, on ? 1U : -1U, __ATOMIC_SEQ_CST);
	__atomic_store_n(&inode->inode.on_orphans, on, __ATOMIC_RELAXED);
}

static void orphan_undo(struct journal_callback *callback, int ended)
{
	struct orphan_undo *undo = container_of(callback, struct orphan_undo, callback);

	if (!ended) {
		/* Undo functions run newest first: the list is as it was right after the change. */
		if (undo->after)
			list_add(undo->after, &undo->inode->inode.orphan);
		else
			list_del(&undo->inode->inode.orphan);
		set_on_orphans(undo->inode, undo->after != NULL);
	}
}

static int remember(struct journal_handle *handle, struct ext4_inode *inode, struct list *after)
{
	struct orphan_undo *undo = journal_handle_alloc(handle, sizeof(*undo));

	if (!undo)
		return -ENOMEM;
	*undo = (struct orphan_undo){ .callback = { .fn = orphan_undo },
				      .inode = inode,
				      .after = after };
	journal_on_undo(handle, &undo->callback);
	return 0;
}

int ext4_orphan_add(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	struct ext2_super_block *sb;
	int err;

	if (inode->inode.on_orphans)
		return 0;
	err = ext4_super_begin(vol, handle, &sb);
	if (!err)
		err = ext4_inode_begin(handle, inode);
	if (!err)
		err = remember(handle, inode, NULL);
	if (err)
		return err;
	list_add(&vol->inode.orphans, &inode->inode.orphan);
	set_on_orphans(inode, true);
	if (__atomic_load_n(&inode->inode.nr_open, __ATOMIC_RELAXED))
		__atomic_store_n(&inode->inode.left_ns, fdio_now_ns(), __ATOMIC_RELAXED);
	inode->raw->i_dtime = sb->s_last_orphan;
	sb->s_last_orphan = inode->ino;
	ext4_super_end(vol, handle);
	return ext4_inode_dirty(handle, inode, false);
}

/* Sets the link that points at inode, in the superblock or in the inode before it, to next. */
static int relink(struct journal_handle *handle, struct ext4_inode *inode, uint32_t next)
{
	struct ext4_vol *vol = inode->vol;
	struct ext2_super_block *sb;
	struct ext4_inode *prev;
	int err;

	if (inode->inode.orphan.prev == &vol->inode.orphans) {
		err = ext4_super_begin(vol, handle, &sb);
		if (err)
			return err;
		sb->s_last_orphan = next;
		ext4_super_end(vol, handle);
		return 0;
	}
	prev = list_entry(inode->inode.orphan.prev, struct ext4_inode, inode.orphan);
	err = ext4_inode_begin(handle, prev);
	if (err)
		return err;
	prev->raw->i_dtime = next;
	return ext4_inode_dirty(handle, prev, false);
}

/* The inode that follows inode in the chain on disk; 0: inode is the last. */
static uint32_t next_ino(const struct ext4_inode *inode)
{
	const struct list *next = inode->inode.orphan.next;

	if (next == &inode->vol->inode.orphans)
		return inode->vol->inode.orphan_rest;
	return list_entry(next, const struct ext4_inode, inode.orphan)->ino;
}

int ext4_orphan_del(struct journal_handle *handle, struct ext4_inode *inode)
{
	int err;

	if (!inode->inode.on_orphans)
		return 0;
	err = relink(handle, inode, next_ino(inode));
	if (!err)
		err = ext4_inode_begin(handle, inode);
	if (!err)
		err = remember(handle, inode, inode->inode.orphan.prev);
	if (err)
		return err;
	list_del(&inode->inode.orphan);
	set_on_orphans(inode, false);
	inode->raw->i_dtime = 0;
	return ext4_inode_dirty(handle, inode, false);
}

/* ------------------------------------------------------------------ at mount */
/* The inode ino may stand on the list: it is not reserved, and in use. */
static int check_orphan(struct ext4_vol *vol, uint32_t ino)
{
	int err;

	if (ino < vol->first_ino || ino > vol->nr_inodes)
		return EXT4_CORRUPT(vol, ino, 0, "impossible inode number on the orphan list");
	err = ext4_inode_in_use(vol, ino);
	if (err == 0)
		return EXT4_CORRUPT(vol, ino, 0, "unused inode on the orphan list");
	return err < 0 ? err : 0;
}

/*
 * Goes on at orphan_rest, for at most COLLECT_MAX inodes. A damaged link ends the list in memory;
 * *ret_cut tells the caller to end the list on disk there, too.
 */
int ext4_orphans_collect(struct ext4_vol *vol, bool *ret_cut)
{
	uint32_t ino = vol->inode.orphan_rest;
	int err;

	*ret_cut = false;
	for (unsigned n = 0; ino && n < COLLECT_MAX; n++) {
		struct ext4_inode *inode;

		err = check_orphan(vol, ino);
		if (!err)
			err = ext4_inode_get_special(vol, ino, &inode);
		if (!err && inode->inode.on_orphans) {
			ext4_inode_put(inode);
			err = EXT4_CORRUPT(vol, ino, 0, "the orphan list runs in a circle");
		}
		if (err == -ENOMEM || err == -EIO)
			return err;
		if (err) {
			*ret_cut = true;
			vol->inode.orphan_rest = 0;
			return 0;
		}
		list_add_tail(&vol->inode.orphans, &inode->inode.orphan);
		set_on_orphans(inode, true);
		ino = inode->raw->i_dtime;
	}
	vol->inode.orphan_rest = ino;
	return 0;
}

/* Ends the chain on disk where it ends in memory. */
int ext4_orphans_cut(struct ext4_vol *vol)
{
	struct ext2_super_block *sb;
	struct journal_handle *handle;
	int err = journal_begin(vol->journal, EXT4_CREDITS_ORPHAN, &handle);

	if (err)
		return err;
	if (list_empty(&vol->inode.orphans)) {
		err = ext4_super_begin(vol, handle, &sb);
		if (!err) {
			sb->s_last_orphan = 0;
			ext4_super_end(vol, handle);
		}
	} else {
		struct ext4_inode *last;

		last = list_last(&vol->inode.orphans, struct ext4_inode, inode.orphan);
		err = ext4_inode_begin(handle, last);
		if (!err) {
			last->raw->i_dtime = 0;
			err = ext4_inode_dirty(handle, last, false);
		}
	}
	return ext4_handle_end(handle, err);
}

void ext4_orphans_begin(struct ext4_vol *vol, uint32_t head) { vol->inode.orphan_rest = head; }
bool ext4_orphans_left(const struct ext4_vol *vol) { return vol->inode.orphan_rest != 0; }

struct ext4_inode *ext4_orphans_first(struct ext4_vol *vol)
{
	if (list_empty(&vol->inode.orphans))
		return NULL;
	return list_first(&vol->inode.orphans, struct ext4_inode, inode.orphan);
}

void ext4_orphans_each(struct ext4_vol *vol, void (*fn)(struct ext4_inode *inode, void *arg),
		       void *arg)
{
	struct ext4_inode *inode;

	list_for_each(inode, &vol->inode.orphans, inode.orphan)
		fn(inode, arg);
}

bool ext4_orphan_listed(const struct ext4_inode *inode) { return inode->inode.on_orphans; }

uint32_t ext4_orphans_count(const struct ext4_vol *vol)
{
	return __atomic_load_n(&vol->inode.nr_orphans, __ATOMIC_SEQ_CST);
}
