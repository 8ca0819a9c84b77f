/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ranges of extent trees: insert, convert, remove, and their credits. Called inside a handle with
 * the inode open and the lock that guards the tree held. Workers; loop threads in the mode of
 * base/nowait.h.
 *
 * Blocks that an insert or a conversion maps in a file are shown to readers when the handle has
 * ended well (map_note.c). Removed blocks leave the map at once; if the handle is then cancelled,
 * ext4_inode_begin's undo drops the map. After an error the caller cancels the handle.
 */
#include "ext4/data/extent.h"

#include <errno.h>

/*
 * One edit splits every level at most and adds a root, and may do so again after merging. A tree
 * that needs more rounds is damaged.
 */
#define MAX_ROUNDS (2 * (EXT4_EXTENT_MAX_DEPTH + 2))

/* ---- what edits cost ---- */

/* An inode without extents may get a tree: counted with depth 3. */
static unsigned tree_depth(struct ext4_inode *inode)
{
	unsigned depth = 3;

	if (ext4_map_kind(inode) == EXT4_MAPPED_EXTENTS)
		depth = ext4_extent_node_depth(ext4_extent_root(inode));
	return FDIO_MIN(depth, (unsigned)EXT4_EXTENT_MAX_DEPTH);
}

/*
 * For each level the node, its new sibling and the bitmap of that; one level more for a new root;
 * freed nodes, and the neighbour that a leaf is joined with, with their bitmaps; the inode.
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

/* To remove one extent, at worst: the tree, and bitmaps of all groups that one extent spans. */
static unsigned remove_credits(struct ext4_inode *inode)
{
	return ext4_extent_credits(inode) + EXT4_EXTENT_WRITTEN_MAX / inode->vol->blocks_per_group +
	       2;
}

unsigned ext4_extent_batch_credits(struct ext4_inode *inode)
{
	unsigned least = ext4_extent_credits(inode) + remove_credits(inode) + EXT4_CREDITS_ORPHAN +
			 8,
		 most = journal_max_credits(inode->vol->journal),
		 share = FDIO_MIN(most / 4, 128u), credits = FDIO_MAX(least, share);

	return FDIO_MIN(credits, most);
}

/* ---- insert ---- */

static void decode_at(const struct ext4_path *path, int at, struct ext4_extent *ret)
{
	ext4_extent_decode(&ext4_extent_node_extents(path->level[path->depth].header)[at], ret);
}

/* True: extent overlaps neither the entry at, which it would follow, nor the extent behind that. */
static bool is_free(const struct ext4_path *path, int at, const struct ext4_extent *extent)
{
	struct ext4_extent prev;

	if (at >= 0) {
		decode_at(path, at, &prev);
		if (ext4_extent_end(&prev) > extent->lblk)
			return false;
	}
	return ext4_path_next(path) >= ext4_extent_end(extent);
}

/* Inserts an extent that is short enough for one entry. */
static int insert_one(struct journal_handle *handle, struct ext4_inode *inode,
		      const struct ext4_extent *extent)
{
	for (unsigned round = 0; round < MAX_ROUNDS; round++) {
		struct ext4_path path;
		int err = ext4_path_find(inode, extent->lblk, &path), at;

		if (err)
			return err;
		at = path.level[path.depth].at;
		if (!is_free(&path, at, extent)) {
			ext4_path_release(&path);
			return -EEXIST;
		}
		err = ext4_leaf_edit(handle, inode, &path, at + 1, 0, extent, 1);
		if (err != -EXFULL) {
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
	err = ext4_map_note_extent(handle, inode, &all);
	if (err)
		return err;
	/*
	 * Extents that were written out of order may have merged: a tree that fits into the inode
	 * again moves there.
	 */
	return ext4_tree_collapse(handle, inode);
}

/* ---- convert ---- */

/*
 * Converts the part of the path's extent that lies in [lblk, end). *ret_next: the block behind the
 * converted part, or where the next extent may begin.
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
	decode_at(path, at, &extent);
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
	return err ? err : ext4_map_note_extent(handle, inode, &mid);
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
		if (err == -EXFULL && ++rounds < MAX_ROUNDS) {
			err = ext4_tree_make_room(handle, inode, &path, 2);
			if (err)
				return err;
			continue;
		}
		ext4_path_release(&path);
		if (err)
			return err == -EXFULL ? EXT4_CORRUPT(inode->vol, inode->ino, 0,
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
 * Removes the part of the path's extent, the last before *to, that lies in [from, *to), and lowers
 * *to. Of metadata it removes no more than the transaction can revoke.
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
	decode_at(path, at, &extent);
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
	/* Credits that the caller needs in the same handle: the inode, perhaps the orphan list. */
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
		if (err == -EXFULL && ++rounds < MAX_ROUNDS) {
			err = ext4_tree_make_room(handle, inode, &path, 1);
			if (err)
				return err;
			continue;
		}
		ext4_path_release(&path);
		if (err)
			return err == -EXFULL ? EXT4_CORRUPT(inode->vol, inode->ino, 0,
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
