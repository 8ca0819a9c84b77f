/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Edits of extent trees: finding the path to a block, replacing entries of a leaf, splitting nodes, adding a level, freeing
 * nodes that became empty, pulling an only child into the root. Called by data/extent.c, inside a handle, with the inode open
 * (x4_inode_begin) and what guards the tree held.
 *
 * Invariants kept: an index entry's key is the first logical block of what it points at; no node but the root is empty; the
 * checksum of every changed block is right when the call returns; i_blocks counts the nodes.
 *
 * A step that fails may leave the tree half changed: the caller cancels the handle, which puts every block and the inode back.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <string.h>

#define ENTRY_SIZE sizeof(struct ext3_extent)

/* ---- paths ---- */

void x4_path_release(struct x4_path *path)
{
	for (unsigned l = 0; l <= path->depth; l++) {
		journal_buffer_release(path->level[l].buffer);
		path->level[l].buffer = NULL;
	}
}

/* Last entry of a node that starts at or before lblk, -1 if none does. Index and leaf entries begin with their block alike. */
static int entry_find(struct ext3_extent_header *header, uint32_t lblk)
{
	int lo = 0, hi = x4_eh_entries(header);

	while (lo < hi) {
		int mid = lo + (hi - lo) / 2;

		if (le32toh(x4_eh_ext(header)[mid].ee_block) <= lblk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo - 1;
}

int x4_path_find(struct x4_inode *inode, uint32_t lblk, struct x4_path *path)
{
	int err;

	memset(path, 0, sizeof(*path));
	err = x4_ext_check_root(inode);
	if (err)
		return err;
	path->level[0].header = x4_ext_root(inode);
	for (unsigned depth = x4_eh_depth(path->level[0].header); depth; depth--) {
		unsigned l = path->depth;
		int at = FDIO_MAX(entry_find(path->level[l].header, lblk), 0); /* before the first key: the first child takes it */

		path->level[l].at = at;
		err = x4_ext_node_read(inode, x4_idx_blk(&x4_eh_idx(path->level[l].header)[at]), depth - 1, &path->level[l + 1].buffer);
		if (err) {
			x4_path_release(path);
			return err;
		}
		path->level[l + 1].header = (struct ext3_extent_header *)path->level[l + 1].buffer->data;
		path->depth++;
	}
	path->level[path->depth].at = entry_find(path->level[path->depth].header, lblk);
	return 0;
}

uint32_t x4_path_next(const struct x4_path *path)
{
	for (unsigned l = path->depth + 1; l-- > 0;) {
		int next = path->level[l].at + 1;

		if (next < (int)x4_eh_entries(path->level[l].header))
			return le32toh(x4_eh_ext(path->level[l].header)[next].ee_block);
	}
	return X4_LBLK_END;
}

/* ---- single nodes ---- */

static int node_write(struct journal_handle *handle, struct x4_path *path, unsigned l)
{
	return path->level[l].buffer ? journal_get_write(handle, path->level[l].buffer) : 0;
}

static void node_changed(struct x4_inode *inode, struct x4_path *path, unsigned l)
{
	if (path->level[l].buffer)
		x4_ext_node_csum(inode, path->level[l].buffer);
}

static void set_entries(struct ext3_extent_header *header, unsigned n) { header->eh_entries = htole16(n); }

/* Makes n entries of del at pos, moving what follows; the header's count follows too. */
static void entries_resize(struct ext3_extent_header *header, unsigned pos, unsigned del, unsigned n)
{
	struct ext3_extent *extent = x4_eh_ext(header);
	unsigned all = x4_eh_entries(header);

	FDIO_ASSERT(pos + del <= all && all - del + n <= x4_eh_max(header));
	memmove(&extent[pos + n], &extent[pos + del], (all - pos - del) * ENTRY_SIZE);
	if (n < del)
		memset(&extent[all - del + n], 0, (del - n) * ENTRY_SIZE);
	set_entries(header, all - del + n);
}

static void idx_set(struct ext3_extent_idx *idx, uint32_t key, uint64_t blk)
{
	idx->ei_block = htole32(key);
	idx->ei_leaf = htole32((uint32_t)blk);
	idx->ei_leaf_hi = htole16(blk >> 32);
	idx->ei_unused = 0;
}

/* The first block of level l's node changed: so do the keys that lead to it. */
static int keys_fix(struct journal_handle *handle, struct x4_inode *inode, struct x4_path *path, unsigned l)
{
	uint32_t key = x4_eh_ext(path->level[l].header)[0].ee_block; /* little-endian, copied as it is */

	while (l-- > 0) {
		struct ext3_extent_idx *idx = &x4_eh_idx(path->level[l].header)[path->level[l].at];
		int err;

		if (idx->ei_block == key)
			break;
		err = node_write(handle, path, l);
		if (err)
			return err;
		idx->ei_block = key;
		node_changed(inode, path, l);
		if (path->level[l].at)
			break;
	}
	return 0;
}

/* A fresh tree block near the node given, counted in i_blocks. */
static int node_new(struct journal_handle *handle, struct x4_inode *inode, uint64_t near, struct journal_buffer **ret)
{
	uint64_t blk;
	uint32_t n;
	int err = x4_balloc(handle, inode, near, 1, &blk, &n);

	if (err)
		return err;
	err = x4_raw_add_blocks(inode, 1);
	if (err)
		return err;
	err = journal_new_block(handle, blk, ret);
	if (err)
		return err;
	__atomic_store_n(&(*ret)->verified, X4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	return 0;
}

static int node_free(struct journal_handle *handle, struct x4_inode *inode, uint64_t blk)
{
	int err = x4_bfree(handle, inode, blk, 1, true);

	return err ? err : x4_raw_add_blocks(inode, -1);
}

static void node_init(struct x4_inode *inode, struct journal_buffer *buffer, unsigned depth, const struct ext3_extent *from, unsigned n)
{
	struct ext3_extent_header *header = (struct ext3_extent_header *)buffer->data;

	header->eh_magic = htole16(EXT3_EXT_MAGIC);
	header->eh_max = htole16(x4_ext_cap(inode->vol));
	header->eh_depth = htole16(depth);
	header->eh_generation = 0;
	set_entries(header, n);
	memcpy(x4_eh_ext(header), from, n * ENTRY_SIZE);
	x4_ext_node_csum(inode, buffer);
}

/* ---- growing ---- */

static int tree_grow(struct journal_handle *handle, struct x4_inode *inode)
{
	struct ext3_extent_header *root = x4_ext_root(inode);
	unsigned depth = x4_eh_depth(root), n = x4_eh_entries(root);
	uint32_t key = le32toh(x4_eh_ext(root)[0].ee_block);
	struct journal_buffer *buffer;
	int err;

	if (depth == X4_EXT_MAX_DEPTH)
		return X4_CORRUPT(inode->vol, inode->ino, 0, "extent tree is full at its greatest depth");
	err = node_new(handle, inode, 0, &buffer);
	if (err)
		return err;
	node_init(inode, buffer, depth, x4_eh_ext(root), n);
	memset(x4_eh_ext(root), 0, X4_EXT_ROOT_MAX * ENTRY_SIZE);
	idx_set(&x4_eh_idx(root)[0], key, buffer->blk);
	set_entries(root, 1);
	root->eh_max = htole16(X4_EXT_ROOT_MAX);
	root->eh_depth = htole16(depth + 1);
	journal_buffer_release(buffer);
	return 0;
}

/* Splits the node of level l >= 1; its parent has room. */
static int node_split(struct journal_handle *handle, struct x4_inode *inode, struct x4_path *path, unsigned l)
{
	struct ext3_extent_header *old = path->level[l].header, *parent = path->level[l - 1].header;
	unsigned n = x4_eh_entries(old);
	/* Growing at its end, a file leaves full nodes behind; elsewhere both halves get room. */
	unsigned moved = path->level[l].at + 1 >= (int)n ? 1 : n / 2;
	struct ext3_extent *from = &x4_eh_ext(old)[n - moved];
	uint32_t key = le32toh(from->ee_block);
	struct journal_buffer *buffer;
	int err;

	err = node_write(handle, path, l);
	if (!err)
		err = node_write(handle, path, l - 1);
	if (!err)
		err = node_new(handle, inode, path->level[l].buffer->blk + 1, &buffer);
	if (err)
		return err;
	node_init(inode, buffer, x4_eh_depth(old), from, moved);
	memset(from, 0, moved * ENTRY_SIZE);
	set_entries(old, n - moved);
	node_changed(inode, path, l);
	entries_resize(parent, path->level[l - 1].at + 1, 0, 1);
	idx_set(&x4_eh_idx(parent)[path->level[l - 1].at + 1], key, buffer->blk);
	node_changed(inode, path, l - 1);
	journal_buffer_release(buffer);
	return 0;
}

int x4_tree_make_room(struct journal_handle *handle, struct x4_inode *inode, struct x4_path *path, unsigned need)
{
	unsigned l = path->depth;
	int err;

	/* The leaf is full: the lowest ancestor with room takes a second half of the child on the path. */
	if (x4_eh_entries(path->level[l].header) + need <= x4_eh_max(path->level[l].header)) {
		x4_path_release(path);
		return 0;
	}
	while (l > 0 && x4_eh_entries(path->level[l - 1].header) >= x4_eh_max(path->level[l - 1].header))
		l--;
	err = l ? node_split(handle, inode, path, l) : tree_grow(handle, inode);
	x4_path_release(path);
	return err;
}

/* ---- shrinking ---- */

/* The leaf of the path has lost its last entry: it and every ancestor that becomes empty are freed. */
static int tree_prune(struct journal_handle *handle, struct x4_inode *inode, struct x4_path *path)
{
	for (unsigned l = path->depth; l > 0; l--) {
		struct ext3_extent_header *parent = path->level[l - 1].header;
		int err = node_free(handle, inode, path->level[l].buffer->blk);

		if (err)
			return err;
		if (x4_eh_entries(parent) == 1 && l > 1)
			continue; /* the parent goes as a whole */
		err = node_write(handle, path, l - 1);
		if (err)
			return err;
		entries_resize(parent, path->level[l - 1].at, 1, 0);
		if (!x4_eh_entries(parent)) {
			parent->eh_depth = 0; /* the empty root */
			return 0;
		}
		node_changed(inode, path, l - 1);
		return path->level[l - 1].at == 0 ? keys_fix(handle, inode, path, l - 1) : 0;
	}
	return 0;
}

int x4_tree_collapse(struct journal_handle *handle, struct x4_inode *inode)
{
	struct ext3_extent_header *root = x4_ext_root(inode);

	while (x4_eh_depth(root) && x4_eh_entries(root) == 1) {
		struct ext3_extent_header *child;
		struct journal_buffer *buffer;
		uint64_t blk = x4_idx_blk(x4_eh_idx(root));
		unsigned n;
		int err = x4_ext_node_read(inode, blk, x4_eh_depth(root) - 1, &buffer);

		if (err)
			return err;
		child = (struct ext3_extent_header *)buffer->data;
		n = x4_eh_entries(child);
		if (n > X4_EXT_ROOT_MAX) {
			journal_buffer_release(buffer);
			return 0;
		}
		memset(x4_eh_ext(root), 0, X4_EXT_ROOT_MAX * ENTRY_SIZE);
		memcpy(x4_eh_ext(root), x4_eh_ext(child), n * ENTRY_SIZE);
		set_entries(root, n);
		root->eh_depth = child->eh_depth;
		journal_buffer_release(buffer);
		err = node_free(handle, inode, blk);
		if (err)
			return err;
	}
	return 0;
}

/*
 * A leaf that has become sparse joins its neighbour under the same parent when both together fill no more than half a node, so
 * that a file punched full of holes does not keep a block for every extent that is left.
 */
static int leaf_join(struct journal_handle *handle, struct x4_inode *inode, struct x4_path *path)
{
	unsigned l = path->depth, n = x4_eh_entries(path->level[l].header), at;
	struct ext3_extent_header *parent, *left, *right;
	struct journal_buffer *other;
	bool with_next;
	int err;

	if (!l || n > x4_eh_max(path->level[l].header) / 4)
		return 0;
	parent = path->level[l - 1].header;
	at = path->level[l - 1].at;
	with_next = at + 1 < x4_eh_entries(parent);
	if (!with_next && !at)
		return 0;
	err = x4_ext_node_read(inode, x4_idx_blk(&x4_eh_idx(parent)[with_next ? at + 1 : at - 1]), 0, &other);
	if (err)
		return err;
	left = with_next ? path->level[l].header : (struct ext3_extent_header *)other->data;
	right = with_next ? (struct ext3_extent_header *)other->data : path->level[l].header;
	if (x4_eh_entries(left) + x4_eh_entries(right) > x4_eh_max(left) / 2)
		goto out;
	err = journal_get_write(handle, with_next ? path->level[l].buffer : other);
	if (!err)
		err = node_write(handle, path, l - 1);
	if (err)
		goto out;
	n = x4_eh_entries(left);
	memcpy(&x4_eh_ext(left)[n], x4_eh_ext(right), x4_eh_entries(right) * ENTRY_SIZE);
	set_entries(left, n + x4_eh_entries(right));
	x4_ext_node_csum(inode, with_next ? path->level[l].buffer : other);
	entries_resize(parent, with_next ? at + 1 : at, 1, 0);
	node_changed(inode, path, l - 1);
	err = node_free(handle, inode, with_next ? other->blk : path->level[l].buffer->blk);
out:
	journal_buffer_release(other);
	return err;
}

/* ---- leaves ---- */

static bool ext_merge(const struct x4_ext *a, const struct x4_ext *b)
{
	return a->state == b->state && x4_ext_end(a) == b->lblk && a->pblk + a->len == b->pblk &&
	       (uint64_t)a->len + b->len <= x4_ext_limit(a->state);
}

/* The replacement after merging inside itself and with the neighbours in the leaf. */
struct replacement {
	struct x4_ext extent[5];
	unsigned n, pos, del;
};

static void replacement_add(struct replacement *replacement, const struct x4_ext *extent)
{
	if (replacement->n && ext_merge(&replacement->extent[replacement->n - 1], extent))
		replacement->extent[replacement->n - 1].len += extent->len;
	else
		replacement->extent[replacement->n++] = *extent;
}

static void replacement_make(struct replacement *replacement, struct ext3_extent_header *leaf, unsigned pos, unsigned ndel,
			     const struct x4_ext *new, unsigned nnew)
{
	struct x4_ext side;

	*replacement = (struct replacement) { .pos = pos, .del = ndel };
	if (pos && nnew) {
		x4_ext_decode(&x4_eh_ext(leaf)[pos - 1], &side);
		if (ext_merge(&side, &new[0])) {
			replacement->pos--;
			replacement->del++;
			replacement_add(replacement, &side);
		}
	}
	for (unsigned k = 0; k < nnew; k++)
		replacement_add(replacement, &new[k]);
	if (nnew && pos + ndel < x4_eh_entries(leaf)) {
		x4_ext_decode(&x4_eh_ext(leaf)[pos + ndel], &side);
		if (ext_merge(&replacement->extent[replacement->n - 1], &side)) {
			replacement->del++;
			replacement_add(replacement, &side);
		}
	}
}

int x4_leaf_edit(struct journal_handle *handle, struct x4_inode *inode, struct x4_path *path, int pos, unsigned ndel, const struct x4_ext *new,
		 unsigned nnew)
{
	unsigned l = path->depth;
	struct ext3_extent_header *leaf = path->level[l].header;
	struct replacement replacement;
	int err;

	FDIO_ASSERT(nnew <= 3 && pos >= 0);
	replacement_make(&replacement, leaf, pos, ndel, new, nnew);
	if (x4_eh_entries(leaf) - replacement.del + replacement.n > x4_eh_max(leaf))
		return -EAGAIN;
	if (l && x4_eh_entries(leaf) - replacement.del + replacement.n == 0)
		return tree_prune(handle, inode, path);
	err = node_write(handle, path, l);
	if (err)
		return err;
	entries_resize(leaf, replacement.pos, replacement.del, replacement.n);
	for (unsigned k = 0; k < replacement.n; k++)
		x4_ext_encode(&x4_eh_ext(leaf)[replacement.pos + k], &replacement.extent[k]);
	node_changed(inode, path, l);
	if (replacement.pos == 0) {
		err = keys_fix(handle, inode, path, l);
		if (err)
			return err;
	}
	return replacement.n < replacement.del ? leaf_join(handle, inode, path) : 0;
}
