/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changes of the orphan list: inodes whose last name is gone or whose truncate is under way, so
 * that a crash leaves nothing behind. On disk it is a chain from s_last_orphan through i_dtime; in
 * memory the same inodes in the same order, but for the end of a chain that a crash left
 * (orphan_rest). Both change only inside handles, which are serial: no lock of its own. A cancelled
 * handle puts both back.
 */
#include "ext4/core/structs.h"
#include "ext4/core/superblock.h"
#include "ext4/inode/disk_inode.h"

#include <errno.h>

/* So many that a crash left are in memory at a time: an image may have as many as inodes. */
#define COLLECT_MAX 1024u

struct orphan_undo {
	struct journal_callback callback;
	struct ext4_inode *inode;
	struct list *after; /* for a deletion: where it stood */
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
		/* Newest first: the list is as it was right after the change. */
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

/* The link that points at inode: the superblock's, or that of the inode before it. */
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

int ext4_orphan_del(struct journal_handle *handle, struct ext4_inode *inode)
{
	uint32_t next;
	int err;

	if (!inode->inode.on_orphans)
		return 0;
	next = inode->inode.orphan.next == &inode->vol->inode.orphans
			       ? inode->vol->inode.orphan_rest
			       : list_entry(inode->inode.orphan.next, struct ext4_inode,
					    inode.orphan)
						 ->ino;
	err = relink(handle, inode, next);
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
/* May stand on the list: a file's number, in use. */
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
 * Reads the chain from where it goes on into memory, as far as that may be. What cannot be followed
 * is cut off: *ret_cut. Each inode is referenced.
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
		struct ext4_inode *last =
				list_last(&vol->inode.orphans, struct ext4_inode, inode.orphan);

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
	return list_empty(&vol->inode.orphans)
			       ? NULL
			       : list_first(&vol->inode.orphans, struct ext4_inode, inode.orphan);
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
