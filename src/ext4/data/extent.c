/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ranges of extent trees: insert, convert, remove, and what directories, symlinks and the log need
 * of them. Called by the allocation, truncate and fallocate files of this part (map_lock held) and
 * by the names part (rw held), on workers, inside a handle with the inode open.
 *
 * What an insert or a conversion maps in a file is shown to readers when the handle has ended well,
 * never before; what is removed leaves the published map at once, and if the handle is cancelled
 * then, ext4_inode_begin's undo drops the map. An error means that the handle has to be cancelled.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/*
 * Splits of every level, a new root and some merging: more rounds than that means a damaged tree.
 */
#define MAX_ROUNDS (2 * (EXT4_EXTENT_MAX_DEPTH + 2))

/* ---- what edits cost ---- */

static unsigned tree_depth(struct ext4_inode *inode)
{
	unsigned depth = ext4_map_kind(inode) == EXT4_MAPPED_EXTENTS
					 ? ext4_extent_node_depth(ext4_extent_root(inode))
					 : 3;

	return FDIO_MIN(depth, (unsigned)EXT4_EXTENT_MAX_DEPTH);
}

/*
 * Each level: the node, its new sibling, the bitmap of the sibling; one level more for a new root;
 * freed nodes and the neighbour of a join with their bitmaps; the inode.
 */
unsigned ext4_extent_credits(struct ext4_inode *inode)
{
	return 4 * (tree_depth(inode) + 1) + 4 + EXT4_CREDITS_INODE;
}

unsigned ext4_extent_metadata_blocks(struct ext4_inode *inode)
{
	return tree_depth(inode) + 1;
}

unsigned ext4_extent_metadata_for(struct ext4_inode *inode, unsigned n)
{
	return 3 * (n / ext4_extent_cap(inode->vol)) + 2 * (tree_depth(inode) + 2) + 1;
}

/*
 * Removing one extent at worst: the tree, and the bitmaps of all groups that an extent can lie in.
 */
static unsigned remove_credits(struct ext4_inode *inode)
{
	return ext4_extent_credits(inode) + EXT4_EXTENT_WRITTEN_MAX / inode->vol->blocks_per_group +
	       2;
}

unsigned ext4_extent_batch_credits(struct ext4_inode *inode)
{
	unsigned least = ext4_extent_credits(inode) + remove_credits(inode) + EXT4_CREDITS_ORPHAN +
			 8,
		 most = journal_max_credits(inode->vol->journal);

	unsigned share = FDIO_MIN(most / 4, 128u), credits = FDIO_MAX(least, share);

	return FDIO_MIN(credits, most);
}

/* ---- what readers of the map see, and when ---- */

/*
 * Loop threads write to a block as soon as the map has it. If the handle is cancelled after that,
 * the block is free or unwritten again: a write in flight would land in what another file has been
 * given, and one that was answered would be gone. So the map, and a size that grows with it, follow
 * in journal_end, which cannot fail.
 */
struct ext4_map_note {
	struct journal_callback callback;
	struct ext4_inode *inode;
	struct ext4_extent *extent, few[4];
	unsigned n, cap;
	bool sized;
};

static void note_done(struct journal_callback *callback, int ended)
{
	struct ext4_map_note *note = container_of(callback, struct ext4_map_note, callback);
	struct ext4_inode *inode = note->inode;

	inode->data.map_note = NULL;
	for (unsigned k = 0; k < note->n && ended; k++)
		ext4_map_apply(inode, &note->extent[k]);
	if (note->sized && ended) {
		fdio_mutex_lock(&inode->attr);
		ext4_size_store(inode, ext4_raw_size(inode));
		fdio_mutex_unlock(&inode->attr);
	}
}

static struct ext4_map_note *note_of(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct ext4_map_note *note = inode->data.map_note;

	if (note)
		return note;
	note = journal_handle_alloc(handle, sizeof(*note));
	if (!note)
		return NULL;
	*note = (struct ext4_map_note){ .callback = { .fn = note_done },
					.inode = inode,
					.cap = ARRAY_SIZE(note->few) };
	note->extent = note->few;
	inode->data.map_note = note;
	journal_on_undo(handle, &note->callback);
	return note;
}

/* The room that has become too small goes with the handle. */
static int note_room(struct journal_handle *handle, struct ext4_map_note *note)
{
	unsigned cap = note->cap * 2;
	struct ext4_extent *extent;

	if (note->n < note->cap)
		return 0;
	extent = journal_handle_alloc(handle, cap * sizeof(*extent));
	if (!extent)
		return -ENOMEM;
	memcpy(extent, note->extent, note->n * sizeof(*extent));
	note->extent = extent;
	note->cap = cap;
	return 0;
}

/*
 * Nobody but the holder of its lock reads a directory's map or an attribute value's, and the handle
 * goes on with what it mapped.
 */
static bool read_by_loops(const struct ext4_inode *inode)
{
	return S_ISREG(le16toh(inode->raw->i_mode)) &&
	       !(le32toh(inode->raw->i_flags) & EXT4_EA_INODE_FL);
}

/*
 * A loop thread answers O_DSYNC once the write is on the device unless there is a transaction to
 * wait for: so that is known before the map has the block.
 */
static int map_becomes(struct journal_handle *handle, struct ext4_inode *inode,
		       const struct ext4_extent *extent)
{
	struct ext4_map_note *note;
	int err;

	ext4_inode_note_tid(handle, inode, true);
	if (!read_by_loops(inode)) {
		ext4_map_apply(inode, extent);
		return 0;
	}
	note = note_of(handle, inode);
	err = note ? note_room(handle, note) : -ENOMEM;
	if (!err)
		note->extent[note->n++] = *extent;
	return err;
}

bool ext4_size_waits(struct ext4_inode *inode)
{
	if (inode->data.map_note)
		inode->data.map_note->sized = true;
	return inode->data.map_note;
}

/* ---- insert ---- */

static int insert_one(struct journal_handle *handle, struct ext4_inode *inode,
		      const struct ext4_extent *extent)
{
	for (unsigned round = 0; round < MAX_ROUNDS; round++) {
		struct ext4_path path;
		struct ext4_extent prev;
		int err = ext4_path_find(inode, extent->lblk, &path), at;

		if (err)
			return err;
		at = path.level[path.depth].at;
		if (at >= 0)
			ext4_extent_decode(&ext4_extent_node_extents(
							   path.level[path.depth].header)[at],
					   &prev);
		if ((at >= 0 && ext4_extent_end(&prev) > extent->lblk) ||
		    ext4_path_next(&path) < ext4_extent_end(extent)) {
			ext4_path_release(&path);
			return -EEXIST;
		}
		err = ext4_leaf_edit(handle, inode, &path, at + 1, 0, extent, 1);
		if (err != -EAGAIN) {
			ext4_path_release(&path);
			return err;
		}
		err = ext4_tree_make_room(handle, inode, &path, 1);
		if (err)
			return err;
	}
	return EXT4_CORRUPT(inode->vol, inode->ino, 0, "extent tree does not get room for block %u",
			    extent->lblk);
}

int ext4_extent_insert(struct journal_handle *handle, struct ext4_inode *inode, uint32_t lblk,
		       uint32_t len, uint64_t pblk, bool unwritten)
{
	struct ext4_extent all = { lblk, len, pblk,
				   unwritten ? EXT4_EXTENT_UNWRITTEN : EXT4_EXTENT_WRITTEN };
	int err;

	if (ext4_map_kind(inode) != EXT4_MAPPED_EXTENTS)
		return -EOPNOTSUPP;
	if (!len || ext4_extent_end(&all) > EXT4_LBLK_END)
		return -EFBIG;
	for (uint32_t done = 0; done < len;) {
		struct ext4_extent extent = { lblk + done,
					      FDIO_MIN(len - done, ext4_extent_limit(all.state)),
					      pblk + done, all.state };

		err = insert_one(handle, inode, &extent);
		if (err)
			return err;
		done += extent.len;
	}
	err = ext4_raw_add_blocks(inode, len);
	if (err)
		return err;
	err = map_becomes(handle, inode, &all);
	if (err)
		return err;
	/*
	 * Extents that were filled in out of order have merged: a tree that fits the inode again
	 * goes back there.
	 */
	return ext4_tree_collapse(handle, inode);
}

/* ---- convert ---- */

/*
 * Converts the part of the extent at the path's place that lies in [lblk, end). *ret_next: behind
 * it.
 */
static int convert_here(struct journal_handle *handle, struct ext4_inode *inode,
			struct ext4_path *path, uint32_t lblk, uint32_t end,
			enum ext4_extent_state to, uint32_t *ret_next)
{
	int at = path->level[path->depth].at, err;
	struct ext4_extent extent, part[3], mid;
	uint64_t stop;
	unsigned n = 0;

	*ret_next = FDIO_MIN(ext4_path_next(path), end);
	if (at < 0)
		return 0;
	ext4_extent_decode(&ext4_extent_node_extents(path->level[path->depth].header)[at], &extent);
	if (ext4_extent_end(&extent) <= lblk)
		return 0;
	mid.lblk = FDIO_MAX(lblk, extent.lblk);
	stop = FDIO_MIN(ext4_extent_end(&extent), (uint64_t)end);
	mid.len = FDIO_MIN(stop - mid.lblk, (uint64_t)ext4_extent_limit(to));
	mid.pblk = extent.pblk + (mid.lblk - extent.lblk);
	mid.state = to;
	*ret_next = ext4_extent_end(&mid);
	if (extent.state == to) {
		*ret_next = stop;
		return 0;
	}
	if (mid.lblk > extent.lblk)
		part[n++] = (struct ext4_extent){ extent.lblk, mid.lblk - extent.lblk, extent.pblk,
						  extent.state };
	part[n++] = mid;
	if (ext4_extent_end(&mid) < ext4_extent_end(&extent))
		part[n++] = (struct ext4_extent){ ext4_extent_end(&mid),
						  ext4_extent_end(&extent) - ext4_extent_end(&mid),
						  mid.pblk + mid.len, extent.state };
	err = ext4_leaf_edit(handle, inode, path, at, 1, part, n);
	return err ? err : map_becomes(handle, inode, &mid);
}

int ext4_extent_convert(struct journal_handle *handle, struct ext4_inode *inode, uint32_t lblk,
			uint32_t end, enum ext4_extent_state to, uint32_t *ret_next)
{
	unsigned need = ext4_extent_credits(inode), rounds = 0;

	if (ext4_map_kind(inode) != EXT4_MAPPED_EXTENTS)
		return -EOPNOTSUPP;
	while (lblk < end && journal_credits_left(handle) >= need) {
		struct ext4_path path;
		int err = ext4_path_find(inode, lblk, &path);

		if (err)
			return err;
		err = convert_here(handle, inode, &path, lblk, end, to, ret_next);
		if (err == -EAGAIN && ++rounds < MAX_ROUNDS) {
			err = ext4_tree_make_room(handle, inode, &path, 2);
			if (err)
				return err;
			continue;
		}
		ext4_path_release(&path);
		if (err)
			return err == -EAGAIN ? EXT4_CORRUPT(inode->vol, inode->ino, 0,
							     "extent tree does not get room at %u",
							     lblk)
					      : err;
		lblk = *ret_next;
		rounds = 0;
	}
	*ret_next = lblk;
	return ext4_tree_collapse(handle, inode);
}

/* ---- remove ---- */

/*
 * What freeing one run may revoke beside it: nodes of the tree that become empty, are joined or
 * pulled into the root.
 */
#define REVOKES_KEPT 32u

uint64_t ext4_metadata_frees_left(struct journal_handle *handle)
{
	uint64_t left = journal_forgets_left(handle);

	return left > REVOKES_KEPT ? left - REVOKES_KEPT : 0;
}

/*
 * Removes the part of the last extent before *to that lies in [from, *to); of metadata as much as
 * the transaction can revoke.
 */
static int remove_here(struct journal_handle *handle, struct ext4_inode *inode,
		       struct ext4_path *path, uint32_t from, bool metadata, uint32_t *to)
{
	int at = path->level[path->depth].at, err;
	struct ext4_extent extent, part[2];
	uint64_t start, end;
	unsigned n = 0;

	if (at < 0) {
		*to = from;
		return 0;
	}
	ext4_extent_decode(&ext4_extent_node_extents(path->level[path->depth].header)[at], &extent);
	start = FDIO_MAX(from, extent.lblk);
	end = FDIO_MIN((uint64_t)*to, ext4_extent_end(&extent));
	if (start >= end) {
		*to = from;
		return 0;
	}
	if (metadata && end - start > ext4_metadata_frees_left(handle))
		start = end - ext4_metadata_frees_left(handle);
	if (start > extent.lblk)
		part[n++] = (struct ext4_extent){ extent.lblk, start - extent.lblk, extent.pblk,
						  extent.state };
	if (end < ext4_extent_end(&extent))
		part[n++] = (struct ext4_extent){ end, ext4_extent_end(&extent) - end,
						  extent.pblk + (end - extent.lblk), extent.state };
	err = ext4_leaf_edit(handle, inode, path, at, 1, part, n);
	if (err)
		return err;
	err = ext4_blocks_free(handle, inode, extent.pblk + (start - extent.lblk), end - start,
			       metadata);
	if (!err)
		err = ext4_raw_add_blocks(inode, -(int64_t)(end - start));
	if (!err)
		*to = start;
	return err;
}

int ext4_extent_remove(struct journal_handle *handle, struct ext4_inode *inode, uint32_t from,
		       uint32_t to, bool metadata, uint32_t *ret_to)
{
	/* The caller puts the inode and perhaps the orphan list into the same handle. */
	unsigned need = remove_credits(inode) + EXT4_CREDITS_ORPHAN + EXT4_CREDITS_INODE,
		 rounds = 0;
	uint32_t was = to;
	int err = 0;

	while (to > from && journal_credits_left(handle) >= need &&
	       ext4_metadata_frees_left(handle)) {
		struct ext4_path path;

		err = ext4_path_find(inode, to - 1, &path);
		if (err)
			return err;
		err = remove_here(handle, inode, &path, from, metadata, &to);
		if (err == -EAGAIN && ++rounds < MAX_ROUNDS) {
			err = ext4_tree_make_room(handle, inode, &path, 1);
			if (err)
				return err;
			continue;
		}
		ext4_path_release(&path);
		if (err)
			return err == -EAGAIN ? EXT4_CORRUPT(inode->vol, inode->ino, 0,
							     "extent tree does not get room at %u",
							     to)
					      : err;
	}
	if (to < was) {
		ext4_map_apply(inode, &(struct ext4_extent){ .lblk = to,
							     .len = was - to,
							     .state = EXT4_EXTENT_HOLE });
		err = ext4_tree_collapse(handle, inode);
	}
	*ret_to = to;
	return err;
}

/* ---- directories, symlinks ---- */

int ext4_bmap(struct ext4_inode *inode, uint32_t lblk, uint64_t *ret_blk)
{
	struct ext4_extent extent;
	int err = ext4_map_lookup(inode, lblk, &extent);

	/* It may be given up again at any time, but not for ever. */
	for (unsigned tries = 0; err == -EAGAIN && tries < 8; tries++) {
		err = ext4_map_load_locked(inode);
		if (!err)
			err = ext4_map_lookup(inode, lblk, &extent);
	}
	if (err)
		return err;
	if (extent.state != EXT4_EXTENT_WRITTEN)
		return EXT4_CORRUPT(inode->vol, inode->ino, 0, "block %u is not mapped", lblk);
	*ret_blk = extent.pblk;
	return 0;
}

int ext4_append_metadata_block(struct journal_handle *handle, struct ext4_inode *inode,
			       uint32_t lblk, struct journal_buffer **ret)
{
	uint64_t goal = 0, blk;
	struct ext4_extent extent;
	uint32_t n;
	int err;

	err = ext4_indirect_convert(handle, inode);
	if (!err)
		err = ext4_map_load_locked(inode);
	if (err)
		return err;
	if (lblk && !ext4_map_lookup(inode, lblk - 1, &extent) && extent.state != EXT4_EXTENT_HOLE)
		goal = extent.pblk + 1;
	err = ext4_blocks_alloc(handle, inode, goal, 1, &blk, &n);
	if (err)
		return err;
	err = ext4_extent_insert(handle, inode, lblk, 1, blk, false);
	return err ? err : journal_new_block(handle, blk, ret);
}
