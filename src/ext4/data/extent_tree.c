/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Edits of extent trees: finding the path to a block, replacing entries of a leaf, splitting nodes,
 * adding a level, freeing nodes that became empty, moving an only child into the root. Called by
 * extent.c, inside a handle, with the inode open (ext4_inode_begin) and the lock that guards the
 * tree held. Workers; loop threads in the mode of base/nowait.h.
 *
 * Invariants: the key of an index entry is the first logical block of what it points at; no node
 * but the root is empty; when a call returns, the checksum of every changed block is right and
 * i_blocks counts the nodes.
 *
 * A call that fails may leave the tree half changed: the caller cancels the handle, which restores
 * every block and the inode.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <string.h>

#define ENTRY_SIZE sizeof(struct ext3_extent)

/* ---- paths ---- */

void ext4_path_release(struct ext4_path *path)
{
	for (unsigned l = 0; l <= path->depth; l++) {
		journal_buffer_release(path->level[l].buffer);
		path->level[l].buffer = NULL;
	}
}

/* The last entry of a node that starts at or before lblk, -1 if none does. */
static int entry_find(struct ext3_extent_header *header, uint32_t lblk)
{
	int lo = 0, hi = ext4_extent_node_entries(header);

	while (lo < hi) {
		int mid = lo + (hi - lo) / 2;

		if (ext4_extent_key(&ext4_extent_node_extents(header)[mid]) <= lblk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo - 1;
}

static uint64_t child_block(struct ext3_extent_header *header, unsigned at)
{
	return ext4_extent_index_block(&ext4_extent_node_indexes(header)[at]);
}

int ext4_path_find(struct ext4_inode *inode, uint32_t lblk, struct ext4_path *path)
{
	int err;

	memset(path, 0, sizeof(*path));
	err = ext4_extent_check_root(inode);
	if (err)
		return err;
	path->level[0].header = ext4_extent_root(inode);
	for (unsigned depth = ext4_extent_node_depth(path->level[0].header); depth; depth--) {
		unsigned l = path->depth;
		/* A block before the first key belongs to the first child. */
		int at = FDIO_MAX(entry_find(path->level[l].header, lblk), 0);

		path->level[l].at = at;
		err = ext4_extent_node_read(inode, child_block(path->level[l].header, at),
					    depth - 1, &path->level[l + 1].buffer);
		if (err) {
			ext4_path_release(path);
			return err;
		}
		path->level[l + 1].header =
				(struct ext3_extent_header *)path->level[l + 1].buffer->data;
		path->depth++;
	}
	path->level[path->depth].at = entry_find(path->level[path->depth].header, lblk);
	return 0;
}

uint32_t ext4_path_next(const struct ext4_path *path)
{
	for (unsigned l = path->depth + 1; l-- > 0;) {
		int next = path->level[l].at + 1;

		if (next < (int)ext4_extent_node_entries(path->level[l].header))
			return ext4_extent_key(
					&ext4_extent_node_extents(path->level[l].header)[next]);
	}
	return EXT4_LBLK_END;
}

/* ---- single nodes ---- */

/* Declares to the journal that the node of level l changes. */
static int node_declare(struct journal_handle *handle, struct ext4_path *path, unsigned l)
{
	return path->level[l].buffer ? journal_get_write(handle, path->level[l].buffer) : 0;
}

/* To be called after the node of level l has changed. */
static void node_changed(struct ext4_inode *inode, struct ext4_path *path, unsigned l)
{
	if (path->level[l].buffer)
		ext4_extent_node_checksum(inode, path->level[l].buffer);
}

static void set_entries(struct ext3_extent_header *header, unsigned n)
{
	fdio_put_le16(&header->eh_entries, 0, n);
}

/* Replaces del entries at pos by room for n; moves the entries that follow and sets the count. */
static void entries_resize(struct ext3_extent_header *header, unsigned pos, unsigned del,
			   unsigned n)
{
	struct ext3_extent *extent = ext4_extent_node_extents(header);
	unsigned all = ext4_extent_node_entries(header);

	FDIO_ASSERT(pos + del <= all && all - del + n <= ext4_extent_node_max(header));
	memmove(&extent[pos + n], &extent[pos + del], (all - pos - del) * ENTRY_SIZE);
	if (n < del)
		memset(&extent[all - del + n], 0, (del - n) * ENTRY_SIZE);
	set_entries(header, all - del + n);
}

static void index_set(struct ext3_extent_idx *index, uint32_t key, uint64_t blk)
{
	fdio_put_le32(&index->ei_block, 0, key);
	fdio_put_le32(&index->ei_leaf, 0, (uint32_t)blk);
	fdio_put_le16(&index->ei_leaf_hi, 0, blk >> 32);
	index->ei_unused = 0;
}

/* The first key of level l's node has changed: so do the keys of the index entries above it. */
static int keys_fix(struct journal_handle *handle, struct ext4_inode *inode, struct ext4_path *path,
		    unsigned l)
{
	/* little-endian: copied, not converted */
	uint32_t key = ext4_extent_node_extents(path->level[l].header)[0].ee_block;

	while (l-- > 0) {
		struct ext3_extent_idx *index =
				&ext4_extent_node_indexes(path->level[l].header)[path->level[l].at];
		int err;

		if (index->ei_block == key)
			break;
		err = node_declare(handle, path, l);
		if (err)
			return err;
		index->ei_block = key;
		node_changed(inode, path, l);
		if (path->level[l].at)
			break;
	}
	return 0;
}

/* Allocates a tree block, at near if possible, and counts it in i_blocks. */
static int node_new(struct journal_handle *handle, struct ext4_inode *inode, uint64_t near,
		    struct journal_buffer **ret)
{
	uint64_t blk;
	uint32_t n;
	int err = ext4_blocks_alloc(handle, inode, near, 1, &blk, &n);

	if (err)
		return err;
	err = ext4_raw_add_blocks(inode, 1);
	if (err)
		return err;
	err = journal_new_block(handle, blk, ret);
	if (err)
		return err;
	__atomic_store_n(&(*ret)->verified, EXT4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	return 0;
}

static int node_free(struct journal_handle *handle, struct ext4_inode *inode, uint64_t blk)
{
	int err = ext4_blocks_free(handle, inode, blk, 1, true);

	return err ? err : ext4_raw_add_blocks(inode, -1);
}

static void node_init(struct ext4_inode *inode, struct journal_buffer *buffer, unsigned depth,
		      const struct ext3_extent *from, unsigned n)
{
	struct ext3_extent_header *header = (struct ext3_extent_header *)buffer->data;

	fdio_put_le16(&header->eh_magic, 0, EXT3_EXT_MAGIC);
	fdio_put_le16(&header->eh_max, 0, ext4_extent_cap(inode->vol));
	fdio_put_le16(&header->eh_depth, 0, depth);
	header->eh_generation = 0;
	set_entries(header, n);
	memcpy(ext4_extent_node_extents(header), from, n * ENTRY_SIZE);
	ext4_extent_node_checksum(inode, buffer);
}

/* ---- growing ---- */

/* One level more: the entries of the root move to a new node, its only child. */
static int tree_grow(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct ext3_extent_header *root = ext4_extent_root(inode);
	unsigned depth = ext4_extent_node_depth(root), n = ext4_extent_node_entries(root);
	uint32_t key = ext4_extent_key(&ext4_extent_node_extents(root)[0]);
	struct journal_buffer *buffer;
	int err;

	if (depth == EXT4_EXTENT_MAX_DEPTH)
		return EXT4_CORRUPT(inode->vol, inode->ino, 0,
				    "extent tree is full at its greatest depth");
	err = node_new(handle, inode, 0, &buffer);
	if (err)
		return err;
	node_init(inode, buffer, depth, ext4_extent_node_extents(root), n);
	memset(ext4_extent_node_extents(root), 0, EXT4_EXTENT_ROOT_MAX * ENTRY_SIZE);
	index_set(&ext4_extent_node_indexes(root)[0], key, buffer->blk);
	set_entries(root, 1);
	fdio_put_le16(&root->eh_max, 0, EXT4_EXTENT_ROOT_MAX);
	fdio_put_le16(&root->eh_depth, 0, depth + 1);
	journal_buffer_release(buffer);
	return 0;
}

/* Splits the node of level l >= 1, whose parent has room. */
static int node_split(struct journal_handle *handle, struct ext4_inode *inode,
		      struct ext4_path *path, unsigned l)
{
	struct ext3_extent_header *old = path->level[l].header, *parent = path->level[l - 1].header;
	unsigned n = ext4_extent_node_entries(old);
	/* A file that grows at its end leaves full nodes behind; else both halves get room. */
	unsigned moved = path->level[l].at + 1 >= (int)n ? 1 : n / 2;
	struct ext3_extent *from = &ext4_extent_node_extents(old)[n - moved];
	uint32_t key = ext4_extent_key(from);
	struct journal_buffer *buffer;
	int err;

	err = node_declare(handle, path, l);
	if (!err)
		err = node_declare(handle, path, l - 1);
	if (!err)
		err = node_new(handle, inode, path->level[l].buffer->blk + 1, &buffer);
	if (err)
		return err;
	node_init(inode, buffer, ext4_extent_node_depth(old), from, moved);
	memset(from, 0, moved * ENTRY_SIZE);
	set_entries(old, n - moved);
	node_changed(inode, path, l);
	entries_resize(parent, path->level[l - 1].at + 1, 0, 1);
	index_set(&ext4_extent_node_indexes(parent)[path->level[l - 1].at + 1], key, buffer->blk);
	node_changed(inode, path, l - 1);
	journal_buffer_release(buffer);
	return 0;
}

int ext4_tree_make_room(struct journal_handle *handle, struct ext4_inode *inode,
			struct ext4_path *path, unsigned need)
{
	unsigned l = path->depth;
	int err;

	if (ext4_extent_node_entries(path->level[l].header) + need <=
	    ext4_extent_node_max(path->level[l].header)) {
		ext4_path_release(path);
		return 0;
	}
	/* Splits the child of the lowest ancestor that has room; without one the tree grows. */
	while (l > 0 && ext4_extent_node_entries(path->level[l - 1].header) >=
					ext4_extent_node_max(path->level[l - 1].header))
		l--;
	err = l ? node_split(handle, inode, path, l) : tree_grow(handle, inode);
	ext4_path_release(path);
	return err;
}

/* ---- shrinking ---- */

/* Frees the leaf of the path, which loses its last entry, and each ancestor that becomes empty. */
static int tree_prune(struct journal_handle *handle, struct ext4_inode *inode,
		      struct ext4_path *path)
{
	for (unsigned l = path->depth; l > 0; l--) {
		struct ext3_extent_header *parent = path->level[l - 1].header;
		int err = node_free(handle, inode, path->level[l].buffer->blk);

		if (err)
			return err;
		if (ext4_extent_node_entries(parent) == 1 && l > 1)
			continue; /* the next round frees the parent too */
		err = node_declare(handle, path, l - 1);
		if (err)
			return err;
		entries_resize(parent, path->level[l - 1].at, 1, 0);
		if (!ext4_extent_node_entries(parent)) {
			parent->eh_depth = 0; /* only the root can be empty */
			return 0;
		}
		node_changed(inode, path, l - 1);
		return path->level[l - 1].at == 0 ? keys_fix(handle, inode, path, l - 1) : 0;
	}
	return 0;
}

int ext4_tree_collapse(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct ext3_extent_header *root = ext4_extent_root(inode);

	while (ext4_extent_node_depth(root) && ext4_extent_node_entries(root) == 1) {
		struct ext3_extent_header *child;
		struct journal_buffer *buffer;
		uint64_t blk = ext4_extent_index_block(ext4_extent_node_indexes(root));
		unsigned n;
		int err = ext4_extent_node_read(inode, blk, ext4_extent_node_depth(root) - 1,
						&buffer);

		if (err)
			return err;
		child = (struct ext3_extent_header *)buffer->data;
		n = ext4_extent_node_entries(child);
		if (n > EXT4_EXTENT_ROOT_MAX) {
			journal_buffer_release(buffer);
			return 0;
		}
		memset(ext4_extent_node_extents(root), 0, EXT4_EXTENT_ROOT_MAX * ENTRY_SIZE);
		memcpy(ext4_extent_node_extents(root), ext4_extent_node_extents(child),
		       n * ENTRY_SIZE);
		set_entries(root, n);
		root->eh_depth = child->eh_depth;
		journal_buffer_release(buffer);
		err = node_free(handle, inode, blk);
		if (err)
			return err;
	}
	return 0;
}

/* Moves all entries of right to the end of left. */
static void entries_append(struct ext3_extent_header *left, struct ext3_extent_header *right)
{
	unsigned n = ext4_extent_node_entries(left), more = ext4_extent_node_entries(right);

	memcpy(&ext4_extent_node_extents(left)[n], ext4_extent_node_extents(right),
	       more * ENTRY_SIZE);
	set_entries(left, n + more);
}

/*
 * Joins the leaf of the path, if it is sparse, with its neighbour under the same parent when both
 * together fill no more than half a node. Otherwise a file punched full of holes would keep a block
 * for every extent that is left.
 */
static int leaf_join(struct journal_handle *handle, struct ext4_inode *inode,
		     struct ext4_path *path)
{
	unsigned l = path->depth, n = ext4_extent_node_entries(path->level[l].header), at;
	struct ext3_extent_header *parent, *left, *right;
	struct journal_buffer *other;
	bool with_next;
	int err;

	if (!l || n > ext4_extent_node_max(path->level[l].header) / 4)
		return 0;
	parent = path->level[l - 1].header;
	at = path->level[l - 1].at;
	with_next = at + 1 < ext4_extent_node_entries(parent);
	if (!with_next && !at)
		return 0;
	err = ext4_extent_node_read(inode, child_block(parent, with_next ? at + 1 : at - 1), 0,
				    &other);
	if (err)
		return err;
	left = with_next ? path->level[l].header : (struct ext3_extent_header *)other->data;
	right = with_next ? (struct ext3_extent_header *)other->data : path->level[l].header;
	if (ext4_extent_node_entries(left) + ext4_extent_node_entries(right) >
	    ext4_extent_node_max(left) / 2)
		goto out;
	err = journal_get_write(handle, with_next ? path->level[l].buffer : other);
	if (!err)
		err = node_declare(handle, path, l - 1);
	if (err)
		goto out;
	entries_append(left, right);
	ext4_extent_node_checksum(inode, with_next ? path->level[l].buffer : other);
	entries_resize(parent, with_next ? at + 1 : at, 1, 0);
	node_changed(inode, path, l - 1);
	err = node_free(handle, inode, with_next ? other->blk : path->level[l].buffer->blk);
out:
	journal_buffer_release(other);
	return err;
}

/* ---- leaves ---- */

static bool extents_merge(const struct ext4_extent *a, const struct ext4_extent *b)
{
	return a->state == b->state && ext4_extent_end(a) == b->lblk &&
	       a->pblk + a->len == b->pblk &&
	       (uint64_t)a->len + b->len <= ext4_extent_limit(a->state);
}

/*
 * What ext4_leaf_edit writes: at most 3 new extents and a merged neighbour on either side replace
 * del entries from pos on.
 */
struct replacement {
	struct ext4_extent extent[5];
	unsigned n, pos, del;
};

static void replacement_add(struct replacement *replacement, const struct ext4_extent *extent)
{
	if (replacement->n && extents_merge(&replacement->extent[replacement->n - 1], extent))
		replacement->extent[replacement->n - 1].len += extent->len;
	else
		replacement->extent[replacement->n++] = *extent;
}

static void replacement_make(struct replacement *replacement, struct ext3_extent_header *leaf,
			     unsigned pos, unsigned ndel, const struct ext4_extent *new,
			     unsigned nnew)
{
	struct ext4_extent side;

	*replacement = (struct replacement) { .pos = pos, .del = ndel };
	if (pos && nnew) {
		ext4_extent_decode(&ext4_extent_node_extents(leaf)[pos - 1], &side);
		if (extents_merge(&side, &new[0])) {
			replacement->pos--;
			replacement->del++;
			replacement_add(replacement, &side);
		}
	}
	for (unsigned k = 0; k < nnew; k++)
		replacement_add(replacement, &new[k]);
	if (nnew && pos + ndel < ext4_extent_node_entries(leaf)) {
		ext4_extent_decode(&ext4_extent_node_extents(leaf)[pos + ndel], &side);
		if (extents_merge(&replacement->extent[replacement->n - 1], &side)) {
			replacement->del++;
			replacement_add(replacement, &side);
		}
	}
}

int ext4_leaf_edit(struct journal_handle *handle, struct ext4_inode *inode, struct ext4_path *path,
		   int pos, unsigned ndel, const struct ext4_extent *new, unsigned nnew)
{
	unsigned l = path->depth;
	struct ext3_extent_header *leaf = path->level[l].header;
	struct replacement replacement;
	unsigned entries;
	int err;

	FDIO_ASSERT(nnew <= 3 && pos >= 0);
	replacement_make(&replacement, leaf, pos, ndel, new, nnew);
	entries = ext4_extent_node_entries(leaf) - replacement.del + replacement.n;
	if (entries > ext4_extent_node_max(leaf))
		return -EXFULL;
	if (l && !entries)
		return tree_prune(handle, inode, path);
	err = node_declare(handle, path, l);
	if (err)
		return err;
	entries_resize(leaf, replacement.pos, replacement.del, replacement.n);
	for (unsigned k = 0; k < replacement.n; k++)
		ext4_extent_encode(&ext4_extent_node_extents(leaf)[replacement.pos + k],
				   &replacement.extent[k]);
	node_changed(inode, path, l);
	if (replacement.pos == 0) {
		err = keys_fix(handle, inode, path, l);
		if (err)
			return err;
	}
	return replacement.n < replacement.del ? leaf_join(handle, inode, path) : 0;
}
