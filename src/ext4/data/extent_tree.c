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

void x4_path_release(struct x4_path *p)
{
	for (unsigned l = 0; l <= p->depth; l++) {
		jnl_brelse(p->lv[l].b);
		p->lv[l].b = NULL;
	}
}

/* Last entry of a node that starts at or before lblk, -1 if none does. Index and leaf entries begin with their block alike. */
static int entry_find(struct ext3_extent_header *h, uint32_t lblk)
{
	int lo = 0, hi = x4_eh_entries(h);

	while (lo < hi) {
		int mid = lo + (hi - lo) / 2;

		if (le32toh(x4_eh_ext(h)[mid].ee_block) <= lblk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo - 1;
}

int x4_path_find(struct x4_inode *i, uint32_t lblk, struct x4_path *p)
{
	int r;

	memset(p, 0, sizeof(*p));
	r = x4_ext_check_root(i);
	if (r)
		return r;
	p->lv[0].h = x4_ext_root(i);
	for (unsigned depth = x4_eh_depth(p->lv[0].h); depth; depth--) {
		unsigned l = p->depth;
		int at = FDIO_MAX(entry_find(p->lv[l].h, lblk), 0); /* before the first key: the first child takes it */

		p->lv[l].at = at;
		r = x4_ext_node_read(i, x4_idx_blk(&x4_eh_idx(p->lv[l].h)[at]), depth - 1, &p->lv[l + 1].b);
		if (r) {
			x4_path_release(p);
			return r;
		}
		p->lv[l + 1].h = (struct ext3_extent_header *)p->lv[l + 1].b->data;
		p->depth++;
	}
	p->lv[p->depth].at = entry_find(p->lv[p->depth].h, lblk);
	return 0;
}

uint32_t x4_path_next(const struct x4_path *p)
{
	for (unsigned l = p->depth + 1; l-- > 0;) {
		int next = p->lv[l].at + 1;

		if (next < (int)x4_eh_entries(p->lv[l].h))
			return le32toh(x4_eh_ext(p->lv[l].h)[next].ee_block);
	}
	return X4_LBLK_END;
}

/* ---- single nodes ---- */

static int node_write(struct jnl_handle *h, struct x4_path *p, unsigned l)
{
	return p->lv[l].b ? jnl_get_write(h, p->lv[l].b) : 0;
}

static void node_changed(struct x4_inode *i, struct x4_path *p, unsigned l)
{
	if (p->lv[l].b)
		x4_ext_node_csum(i, p->lv[l].b);
}

static void set_entries(struct ext3_extent_header *h, unsigned n) { h->eh_entries = htole16(n); }

/* Makes n entries of del at pos, moving what follows; the header's count follows too. */
static void entries_resize(struct ext3_extent_header *h, unsigned pos, unsigned del, unsigned n)
{
	struct ext3_extent *e = x4_eh_ext(h);
	unsigned all = x4_eh_entries(h);

	FDIO_ASSERT(pos + del <= all && all - del + n <= x4_eh_max(h));
	memmove(&e[pos + n], &e[pos + del], (all - pos - del) * ENTRY_SIZE);
	if (n < del)
		memset(&e[all - del + n], 0, (del - n) * ENTRY_SIZE);
	set_entries(h, all - del + n);
}

static void idx_set(struct ext3_extent_idx *x, uint32_t key, uint64_t blk)
{
	x->ei_block = htole32(key);
	x->ei_leaf = htole32((uint32_t)blk);
	x->ei_leaf_hi = htole16(blk >> 32);
	x->ei_unused = 0;
}

/* The first block of level l's node changed: so do the keys that lead to it. */
static int keys_fix(struct jnl_handle *h, struct x4_inode *i, struct x4_path *p, unsigned l)
{
	uint32_t key = x4_eh_ext(p->lv[l].h)[0].ee_block; /* little-endian, copied as it is */

	while (l-- > 0) {
		struct ext3_extent_idx *x = &x4_eh_idx(p->lv[l].h)[p->lv[l].at];
		int r;

		if (x->ei_block == key)
			break;
		r = node_write(h, p, l);
		if (r)
			return r;
		x->ei_block = key;
		node_changed(i, p, l);
		if (p->lv[l].at)
			break;
	}
	return 0;
}

/* A fresh tree block near the node given, counted in i_blocks. */
static int node_new(struct jnl_handle *h, struct x4_inode *i, uint64_t near, struct jnl_buf **ret)
{
	uint64_t blk;
	uint32_t n;
	int r = x4_balloc(h, i, near, 1, &blk, &n);

	if (r)
		return r;
	r = x4_raw_add_blocks(i, 1);
	if (r)
		return r;
	r = jnl_bnew(h, blk, ret);
	if (r)
		return r;
	__atomic_store_n(&(*ret)->verified, X4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	return 0;
}

static int node_free(struct jnl_handle *h, struct x4_inode *i, uint64_t blk)
{
	int r = x4_bfree(h, i, blk, 1, true);

	return r ? r : x4_raw_add_blocks(i, -1);
}

static void node_init(struct x4_inode *i, struct jnl_buf *b, unsigned depth, const struct ext3_extent *from, unsigned n)
{
	struct ext3_extent_header *h = (struct ext3_extent_header *)b->data;

	h->eh_magic = htole16(EXT3_EXT_MAGIC);
	h->eh_max = htole16(x4_ext_cap(i->vol));
	h->eh_depth = htole16(depth);
	h->eh_generation = 0;
	set_entries(h, n);
	memcpy(x4_eh_ext(h), from, n * ENTRY_SIZE);
	x4_ext_node_csum(i, b);
}

/* ---- growing ---- */

static int tree_grow(struct jnl_handle *h, struct x4_inode *i)
{
	struct ext3_extent_header *root = x4_ext_root(i);
	unsigned depth = x4_eh_depth(root), n = x4_eh_entries(root);
	uint32_t key = le32toh(x4_eh_ext(root)[0].ee_block);
	struct jnl_buf *b;
	int r;

	if (depth == X4_EXT_MAX_DEPTH)
		return X4_CORRUPT(i->vol, i->ino, 0, "extent tree is full at its greatest depth");
	r = node_new(h, i, 0, &b);
	if (r)
		return r;
	node_init(i, b, depth, x4_eh_ext(root), n);
	memset(x4_eh_ext(root), 0, X4_EXT_ROOT_MAX * ENTRY_SIZE);
	idx_set(&x4_eh_idx(root)[0], key, b->blk);
	set_entries(root, 1);
	root->eh_max = htole16(X4_EXT_ROOT_MAX);
	root->eh_depth = htole16(depth + 1);
	jnl_brelse(b);
	return 0;
}

/* Splits the node of level l >= 1; its parent has room. */
static int node_split(struct jnl_handle *h, struct x4_inode *i, struct x4_path *p, unsigned l)
{
	struct ext3_extent_header *old = p->lv[l].h, *parent = p->lv[l - 1].h;
	unsigned n = x4_eh_entries(old);
	/* Growing at its end, a file leaves full nodes behind; elsewhere both halves get room. */
	unsigned moved = p->lv[l].at + 1 >= (int)n ? 1 : n / 2;
	struct ext3_extent *from = &x4_eh_ext(old)[n - moved];
	uint32_t key = le32toh(from->ee_block);
	struct jnl_buf *b;
	int r;

	r = node_write(h, p, l);
	if (!r)
		r = node_write(h, p, l - 1);
	if (!r)
		r = node_new(h, i, p->lv[l].b->blk + 1, &b);
	if (r)
		return r;
	node_init(i, b, x4_eh_depth(old), from, moved);
	memset(from, 0, moved * ENTRY_SIZE);
	set_entries(old, n - moved);
	node_changed(i, p, l);
	entries_resize(parent, p->lv[l - 1].at + 1, 0, 1);
	idx_set(&x4_eh_idx(parent)[p->lv[l - 1].at + 1], key, b->blk);
	node_changed(i, p, l - 1);
	jnl_brelse(b);
	return 0;
}

int x4_tree_make_room(struct jnl_handle *h, struct x4_inode *i, struct x4_path *p, unsigned need)
{
	unsigned l = p->depth;
	int r;

	/* The leaf is full: the lowest ancestor with room takes a second half of the child on the path. */
	if (x4_eh_entries(p->lv[l].h) + need <= x4_eh_max(p->lv[l].h)) {
		x4_path_release(p);
		return 0;
	}
	while (l > 0 && x4_eh_entries(p->lv[l - 1].h) >= x4_eh_max(p->lv[l - 1].h))
		l--;
	r = l ? node_split(h, i, p, l) : tree_grow(h, i);
	x4_path_release(p);
	return r;
}

/* ---- shrinking ---- */

/* The leaf of the path has lost its last entry: it and every ancestor that becomes empty are freed. */
static int tree_prune(struct jnl_handle *h, struct x4_inode *i, struct x4_path *p)
{
	for (unsigned l = p->depth; l > 0; l--) {
		struct ext3_extent_header *parent = p->lv[l - 1].h;
		int r = node_free(h, i, p->lv[l].b->blk);

		if (r)
			return r;
		if (x4_eh_entries(parent) == 1 && l > 1)
			continue; /* the parent goes as a whole */
		r = node_write(h, p, l - 1);
		if (r)
			return r;
		entries_resize(parent, p->lv[l - 1].at, 1, 0);
		if (!x4_eh_entries(parent)) {
			parent->eh_depth = 0; /* the empty root */
			return 0;
		}
		node_changed(i, p, l - 1);
		return p->lv[l - 1].at == 0 ? keys_fix(h, i, p, l - 1) : 0;
	}
	return 0;
}

int x4_tree_collapse(struct jnl_handle *h, struct x4_inode *i)
{
	struct ext3_extent_header *root = x4_ext_root(i);

	while (x4_eh_depth(root) && x4_eh_entries(root) == 1) {
		struct ext3_extent_header *child;
		struct jnl_buf *b;
		uint64_t blk = x4_idx_blk(x4_eh_idx(root));
		unsigned n;
		int r = x4_ext_node_read(i, blk, x4_eh_depth(root) - 1, &b);

		if (r)
			return r;
		child = (struct ext3_extent_header *)b->data;
		n = x4_eh_entries(child);
		if (n > X4_EXT_ROOT_MAX) {
			jnl_brelse(b);
			return 0;
		}
		memset(x4_eh_ext(root), 0, X4_EXT_ROOT_MAX * ENTRY_SIZE);
		memcpy(x4_eh_ext(root), x4_eh_ext(child), n * ENTRY_SIZE);
		set_entries(root, n);
		root->eh_depth = child->eh_depth;
		jnl_brelse(b);
		r = node_free(h, i, blk);
		if (r)
			return r;
	}
	return 0;
}

/*
 * A leaf that has become sparse joins its neighbour under the same parent when both together fill no more than half a node, so
 * that a file punched full of holes does not keep a block for every extent that is left.
 */
static int leaf_join(struct jnl_handle *h, struct x4_inode *i, struct x4_path *p)
{
	unsigned l = p->depth, n = x4_eh_entries(p->lv[l].h), at;
	struct ext3_extent_header *parent, *left, *right;
	struct jnl_buf *other;
	bool with_next;
	int r;

	if (!l || n > x4_eh_max(p->lv[l].h) / 4)
		return 0;
	parent = p->lv[l - 1].h;
	at = p->lv[l - 1].at;
	with_next = at + 1 < x4_eh_entries(parent);
	if (!with_next && !at)
		return 0;
	r = x4_ext_node_read(i, x4_idx_blk(&x4_eh_idx(parent)[with_next ? at + 1 : at - 1]), 0, &other);
	if (r)
		return r;
	left = with_next ? p->lv[l].h : (struct ext3_extent_header *)other->data;
	right = with_next ? (struct ext3_extent_header *)other->data : p->lv[l].h;
	if (x4_eh_entries(left) + x4_eh_entries(right) > x4_eh_max(left) / 2)
		goto out;
	r = jnl_get_write(h, with_next ? p->lv[l].b : other);
	if (!r)
		r = node_write(h, p, l - 1);
	if (r)
		goto out;
	n = x4_eh_entries(left);
	memcpy(&x4_eh_ext(left)[n], x4_eh_ext(right), x4_eh_entries(right) * ENTRY_SIZE);
	set_entries(left, n + x4_eh_entries(right));
	x4_ext_node_csum(i, with_next ? p->lv[l].b : other);
	entries_resize(parent, with_next ? at + 1 : at, 1, 0);
	node_changed(i, p, l - 1);
	r = node_free(h, i, with_next ? other->blk : p->lv[l].b->blk);
out:
	jnl_brelse(other);
	return r;
}

/* ---- leaves ---- */

static bool ext_merge(const struct x4_ext *a, const struct x4_ext *b)
{
	return a->state == b->state && x4_ext_end(a) == b->lblk && a->pblk + a->len == b->pblk &&
	       (uint64_t)a->len + b->len <= x4_ext_limit(a->state);
}

/* The replacement after merging inside itself and with the neighbours in the leaf. */
struct replacement {
	struct x4_ext x[5];
	unsigned n, pos, del;
};

static void replacement_add(struct replacement *rp, const struct x4_ext *x)
{
	if (rp->n && ext_merge(&rp->x[rp->n - 1], x))
		rp->x[rp->n - 1].len += x->len;
	else
		rp->x[rp->n++] = *x;
}

static void replacement_make(struct replacement *rp, struct ext3_extent_header *leaf, unsigned pos, unsigned ndel,
			     const struct x4_ext *new, unsigned nnew)
{
	struct x4_ext side;

	*rp = (struct replacement) { .pos = pos, .del = ndel };
	if (pos && nnew) {
		x4_ext_decode(&x4_eh_ext(leaf)[pos - 1], &side);
		if (ext_merge(&side, &new[0])) {
			rp->pos--;
			rp->del++;
			replacement_add(rp, &side);
		}
	}
	for (unsigned k = 0; k < nnew; k++)
		replacement_add(rp, &new[k]);
	if (nnew && pos + ndel < x4_eh_entries(leaf)) {
		x4_ext_decode(&x4_eh_ext(leaf)[pos + ndel], &side);
		if (ext_merge(&rp->x[rp->n - 1], &side)) {
			rp->del++;
			replacement_add(rp, &side);
		}
	}
}

int x4_leaf_edit(struct jnl_handle *h, struct x4_inode *i, struct x4_path *p, int pos, unsigned ndel, const struct x4_ext *new,
		 unsigned nnew)
{
	unsigned l = p->depth;
	struct ext3_extent_header *leaf = p->lv[l].h;
	struct replacement rp;
	int r;

	FDIO_ASSERT(nnew <= 3 && pos >= 0);
	replacement_make(&rp, leaf, pos, ndel, new, nnew);
	if (x4_eh_entries(leaf) - rp.del + rp.n > x4_eh_max(leaf))
		return -EAGAIN;
	if (l && x4_eh_entries(leaf) - rp.del + rp.n == 0)
		return tree_prune(h, i, p);
	r = node_write(h, p, l);
	if (r)
		return r;
	entries_resize(leaf, rp.pos, rp.del, rp.n);
	for (unsigned k = 0; k < rp.n; k++)
		x4_ext_encode(&x4_eh_ext(leaf)[rp.pos + k], &rp.x[k]);
	node_changed(i, p, l);
	if (rp.pos == 0) {
		r = keys_fix(h, i, p, l);
		if (r)
			return r;
	}
	return rp.n < rp.del ? leaf_join(h, i, p) : 0;
}
