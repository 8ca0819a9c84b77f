/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where the log lies: the blocks of the journal's inode. Runs on the main thread while the volume
 * opens, with a block cache but without a journal. The inode's map is loaded with all the checks
 * that other files get, so the work is bounded by the real size of the tree. Damage is recorded
 * (EXT4_CORRUPT) and is -EUCLEAN; -ENOMEM.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <stdlib.h>

struct log_walk { struct journal_extent *extent; unsigned n, cap; };

static int log_add(struct log_walk *walk, const struct ext4_extent *extent)
{
	if (walk->n == walk->cap) {
		unsigned cap = walk->cap ? walk->cap * 2 : 16;
		struct journal_extent *bigger = realloc(walk->extent, cap * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		walk->extent = bigger;
		walk->cap = cap;
	}
	walk->extent[walk->n++] = (struct journal_extent) { extent->pblk, extent->len };
	return 0;
}

/* Collects the extents from block 0 to the first hole, behind which nothing may be mapped. */
static int log_collect(struct ext4_inode *inode, struct log_walk *walk)
{
	uint32_t lblk = 0;

	for (;;) {
		struct ext4_extent extent;
		int err = ext4_map_lookup(inode, lblk, &extent);

		if (!err && extent.state == EXT4_EXTENT_HOLE && lblk &&
		    ext4_extent_end(&extent) == UINT32_MAX)
			return 0;
		if (!err && extent.state != EXT4_EXTENT_WRITTEN)
			err = EXT4_CORRUPT(inode->vol, inode->ino, 0,
					   "block %u of the log is missing", lblk);
		if (!err)
			err = log_add(walk, &extent);
		if (err)
			return err;
		lblk += extent.len;
	}
}

int ext4_map_log_extents(struct ext4_vol *vol, uint32_t journal_ino, struct journal_extent **ret,
		       unsigned *ret_n)
{
	struct log_walk walk = { 0 };
	struct ext4_inode *inode;
	int err = ext4_inode_get_special(vol, journal_ino, &inode);

	if (err)
		return err;
	/*
	 * As in the kernel, a deleted inode is no journal. Marked bad, it is not deleted when the
	 * reference goes.
	 */
	if (!inode->raw->i_links_count)
		ext4_inode_set_bad(inode);
	err = ext4_is_regular(inode) && !ext4_inode_is_bad(inode)
			      ? ext4_map_load(inode)
			      : -EUCLEAN;
	if (!err)
		err = log_collect(inode, &walk);
	ext4_map_drop(inode);
	ext4_inode_put(inode);
	if (err) {
		free(walk.extent);
		return err;
	}
	*ret = walk.extent;
	*ret_n = walk.n;
	return 0;
}
