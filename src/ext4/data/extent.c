/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ranges of extent trees: insert, convert, remove, and what directories, symlinks and the log need of them. Called by the
 * allocation, truncate and fallocate files of this part (map_lock held) and by the names part (rw held), on workers, inside
 * a handle with the inode open.
 *
 * What an insert or a conversion maps in a file is shown to readers when the handle has ended well, never before; what is
 * removed leaves the published map at once, and if the handle is cancelled then, x4_inode_begin's undo drops the map. An error
 * means that the handle has to be cancelled.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* Splits of every level, a new root and some merging: more rounds than that means a damaged tree. */
#define MAX_ROUNDS (2 * (X4_EXT_MAX_DEPTH + 2))

/* ---- what edits cost ---- */

static unsigned tree_depth(struct x4_inode *i)
{
	unsigned depth = x4_map_kind(i) == X4_MAPPED_EXTENTS ? x4_eh_depth(x4_ext_root(i)) : 3;

	return FDIO_MIN(depth, (unsigned)X4_EXT_MAX_DEPTH);
}

/*
 * Each level: the node, its new sibling, the bitmap of the sibling; one level more for a new root; freed nodes and the
 * neighbour of a join with their bitmaps; the inode.
 */
unsigned x4_extent_credits(struct x4_inode *i)
{
	return 4 * (tree_depth(i) + 1) + 4 + X4_CREDITS_INODE;
}

unsigned x4_extent_meta_blocks(struct x4_inode *i)
{
	return tree_depth(i) + 1;
}

unsigned x4_extent_meta_for(struct x4_inode *i, unsigned n)
{
	return 3 * (n / x4_ext_cap(i->vol)) + 2 * (tree_depth(i) + 2) + 1;
}

/* Removing one extent at worst: the tree, and the bitmaps of all groups that an extent can lie in. */
static unsigned remove_credits(struct x4_inode *i)
{
	return x4_extent_credits(i) + X4_EXT_WRITTEN_MAX / i->vol->blocks_per_group + 2;
}

unsigned x4_extent_batch_credits(struct x4_inode *i)
{
	unsigned least = x4_extent_credits(i) + remove_credits(i) + X4_CREDITS_ORPHAN + 8, most = jnl_max_credits(i->vol->jnl);

	unsigned share = FDIO_MIN(most / 4, 128u), credits = FDIO_MAX(least, share);

	return FDIO_MIN(credits, most);
}

/* ---- what readers of the map see, and when ---- */

/*
 * Loop threads write to a block as soon as the map has it. If the handle is cancelled after that, the block is free or unwritten again:
 * a write in flight would land in what another file has been given, and one that was answered would be gone. So the map, and
 * a size that grows with it, follow in jnl_end, which cannot fail.
 */
struct x4_map_note {
	struct jnl_callback cb;
	struct x4_inode *i;
	struct x4_ext *x, few[4];
	unsigned n, cap;
	bool sized;
};

static void note_done(struct jnl_callback *cb, int ended)
{
	struct x4_map_note *note = container_of(cb, struct x4_map_note, cb);
	struct x4_inode *i = note->i;

	i->data.map_note = NULL;
	for (unsigned k = 0; k < note->n && ended; k++)
		x4_map_apply(i, &note->x[k]);
	if (note->sized && ended) {
		fdio_mutex_lock(&i->attr);
		x4_size_store(i, x4_raw_size(i));
		fdio_mutex_unlock(&i->attr);
	}
}

static struct x4_map_note *note_of(struct jnl_handle *h, struct x4_inode *i)
{
	struct x4_map_note *note = i->data.map_note;

	if (note)
		return note;
	note = jnl_handle_mem(h, sizeof(*note));
	if (!note)
		return NULL;
	*note = (struct x4_map_note){ .cb = { .fn = note_done }, .i = i, .cap = ARRAY_SIZE(note->few) };
	note->x = note->few;
	i->data.map_note = note;
	jnl_on_undo(h, &note->cb);
	return note;
}

/* The room that has become too small goes with the handle. */
static int note_room(struct jnl_handle *h, struct x4_map_note *note)
{
	unsigned cap = note->cap * 2;
	struct x4_ext *x;

	if (note->n < note->cap)
		return 0;
	x = jnl_handle_mem(h, cap * sizeof(*x));
	if (!x)
		return -ENOMEM;
	memcpy(x, note->x, note->n * sizeof(*x));
	note->x = x;
	note->cap = cap;
	return 0;
}

/* Nobody but the holder of its lock reads a directory's map or an attribute value's, and the handle goes on with what it mapped. */
static bool read_by_loops(const struct x4_inode *i)
{
	return S_ISREG(le16toh(i->raw->i_mode)) && !(le32toh(i->raw->i_flags) & EXT4_EA_INODE_FL);
}

/*
 * A loop thread answers O_DSYNC once the write is on the device unless there is a transaction to wait for: so that is known before
 * the map has the block.
 */
static int map_becomes(struct jnl_handle *h, struct x4_inode *i, const struct x4_ext *x)
{
	struct x4_map_note *note;
	int r;

	x4_inode_note_tid(h, i, true);
	if (!read_by_loops(i)) {
		x4_map_apply(i, x);
		return 0;
	}
	note = note_of(h, i);
	r = note ? note_room(h, note) : -ENOMEM;
	if (!r)
		note->x[note->n++] = *x;
	return r;
}

bool x4_size_waits(struct x4_inode *i)
{
	if (i->data.map_note)
		i->data.map_note->sized = true;
	return i->data.map_note;
}

/* ---- insert ---- */

static int insert_one(struct jnl_handle *h, struct x4_inode *i, const struct x4_ext *x)
{
	for (unsigned round = 0; round < MAX_ROUNDS; round++) {
		struct x4_path p;
		struct x4_ext prev;
		int r = x4_path_find(i, x->lblk, &p), at;

		if (r)
			return r;
		at = p.lv[p.depth].at;
		if (at >= 0)
			x4_ext_decode(&x4_eh_ext(p.lv[p.depth].h)[at], &prev);
		if ((at >= 0 && x4_ext_end(&prev) > x->lblk) || x4_path_next(&p) < x4_ext_end(x)) {
			x4_path_release(&p);
			return -EEXIST;
		}
		r = x4_leaf_edit(h, i, &p, at + 1, 0, x, 1);
		if (r != -EAGAIN) {
			x4_path_release(&p);
			return r;
		}
		r = x4_tree_make_room(h, i, &p, 1);
		if (r)
			return r;
	}
	return X4_CORRUPT(i->vol, i->ino, 0, "extent tree does not get room for block %u", x->lblk);
}

int x4_extent_insert(struct jnl_handle *h, struct x4_inode *i, uint32_t lblk, uint32_t len, uint64_t pblk, bool unwritten)
{
	struct x4_ext all = { lblk, len, pblk, unwritten ? X4_EXT_UNWRITTEN : X4_EXT_WRITTEN };
	int r;

	if (x4_map_kind(i) != X4_MAPPED_EXTENTS)
		return -EOPNOTSUPP;
	if (!len || x4_ext_end(&all) > X4_LBLK_END)
		return -EFBIG;
	for (uint32_t done = 0; done < len;) {
		struct x4_ext x = { lblk + done, FDIO_MIN(len - done, x4_ext_limit(all.state)), pblk + done, all.state };

		r = insert_one(h, i, &x);
		if (r)
			return r;
		done += x.len;
	}
	r = x4_raw_add_blocks(i, len);
	if (r)
		return r;
	r = map_becomes(h, i, &all);
	if (r)
		return r;
	/* Extents that were filled in out of order have merged: a tree that fits the inode again goes back there. */
	return x4_tree_collapse(h, i);
}

/* ---- convert ---- */

/* Converts the part of the extent at the path's place that lies in [lblk, end). *ret_next: behind it. */
static int convert_here(struct jnl_handle *h, struct x4_inode *i, struct x4_path *p, uint32_t lblk, uint32_t end,
			enum x4_ext_state to, uint32_t *ret_next)
{
	int at = p->lv[p->depth].at, r;
	struct x4_ext x, part[3], mid;
	uint64_t stop;
	unsigned n = 0;

	*ret_next = FDIO_MIN(x4_path_next(p), end);
	if (at < 0)
		return 0;
	x4_ext_decode(&x4_eh_ext(p->lv[p->depth].h)[at], &x);
	if (x4_ext_end(&x) <= lblk)
		return 0;
	mid.lblk = FDIO_MAX(lblk, x.lblk);
	stop = FDIO_MIN(x4_ext_end(&x), (uint64_t)end);
	mid.len = FDIO_MIN(stop - mid.lblk, (uint64_t)x4_ext_limit(to));
	mid.pblk = x.pblk + (mid.lblk - x.lblk);
	mid.state = to;
	*ret_next = x4_ext_end(&mid);
	if (x.state == to) {
		*ret_next = stop;
		return 0;
	}
	if (mid.lblk > x.lblk)
		part[n++] = (struct x4_ext) { x.lblk, mid.lblk - x.lblk, x.pblk, x.state };
	part[n++] = mid;
	if (x4_ext_end(&mid) < x4_ext_end(&x))
		part[n++] = (struct x4_ext) { x4_ext_end(&mid), x4_ext_end(&x) - x4_ext_end(&mid), mid.pblk + mid.len, x.state };
	r = x4_leaf_edit(h, i, p, at, 1, part, n);
	return r ? r : map_becomes(h, i, &mid);
}

int x4_extent_convert(struct jnl_handle *h, struct x4_inode *i, uint32_t lblk, uint32_t end, enum x4_ext_state to,
		      uint32_t *ret_next)
{
	unsigned need = x4_extent_credits(i), rounds = 0;

	if (x4_map_kind(i) != X4_MAPPED_EXTENTS)
		return -EOPNOTSUPP;
	while (lblk < end && jnl_credits_left(h) >= need) {
		struct x4_path p;
		int r = x4_path_find(i, lblk, &p);

		if (r)
			return r;
		r = convert_here(h, i, &p, lblk, end, to, ret_next);
		if (r == -EAGAIN && ++rounds < MAX_ROUNDS) {
			r = x4_tree_make_room(h, i, &p, 2);
			if (r)
				return r;
			continue;
		}
		x4_path_release(&p);
		if (r)
			return r == -EAGAIN ? X4_CORRUPT(i->vol, i->ino, 0, "extent tree does not get room at %u", lblk) : r;
		lblk = *ret_next;
		rounds = 0;
	}
	*ret_next = lblk;
	return x4_tree_collapse(h, i);
}

/* ---- remove ---- */

/* What freeing one run may revoke beside it: nodes of the tree that become empty, are joined or pulled into the root. */
#define REVOKES_KEPT 32u

uint64_t x4_meta_frees_left(struct jnl_handle *h)
{
	uint64_t left = jnl_forgets_left(h);

	return left > REVOKES_KEPT ? left - REVOKES_KEPT : 0;
}

/* Removes the part of the last extent before *to that lies in [from, *to); of metadata as much as the transaction can revoke. */
static int remove_here(struct jnl_handle *h, struct x4_inode *i, struct x4_path *p, uint32_t from, bool metadata, uint32_t *to)
{
	int at = p->lv[p->depth].at, r;
	struct x4_ext x, part[2];
	uint64_t start, end;
	unsigned n = 0;

	if (at < 0) {
		*to = from;
		return 0;
	}
	x4_ext_decode(&x4_eh_ext(p->lv[p->depth].h)[at], &x);
	start = FDIO_MAX(from, x.lblk);
	end = FDIO_MIN((uint64_t)*to, x4_ext_end(&x));
	if (start >= end) {
		*to = from;
		return 0;
	}
	if (metadata && end - start > x4_meta_frees_left(h))
		start = end - x4_meta_frees_left(h);
	if (start > x.lblk)
		part[n++] = (struct x4_ext) { x.lblk, start - x.lblk, x.pblk, x.state };
	if (end < x4_ext_end(&x))
		part[n++] = (struct x4_ext) { end, x4_ext_end(&x) - end, x.pblk + (end - x.lblk), x.state };
	r = x4_leaf_edit(h, i, p, at, 1, part, n);
	if (r)
		return r;
	r = x4_bfree(h, i, x.pblk + (start - x.lblk), end - start, metadata);
	if (!r)
		r = x4_raw_add_blocks(i, -(int64_t)(end - start));
	if (!r)
		*to = start;
	return r;
}

int x4_extent_remove(struct jnl_handle *h, struct x4_inode *i, uint32_t from, uint32_t to, bool metadata, uint32_t *ret_to)
{
	/* The caller puts the inode and perhaps the orphan list into the same handle. */
	unsigned need = remove_credits(i) + X4_CREDITS_ORPHAN + X4_CREDITS_INODE, rounds = 0;
	uint32_t was = to;
	int r = 0;

	while (to > from && jnl_credits_left(h) >= need && x4_meta_frees_left(h)) {
		struct x4_path p;

		r = x4_path_find(i, to - 1, &p);
		if (r)
			return r;
		r = remove_here(h, i, &p, from, metadata, &to);
		if (r == -EAGAIN && ++rounds < MAX_ROUNDS) {
			r = x4_tree_make_room(h, i, &p, 1);
			if (r)
				return r;
			continue;
		}
		x4_path_release(&p);
		if (r)
			return r == -EAGAIN ? X4_CORRUPT(i->vol, i->ino, 0, "extent tree does not get room at %u", to) : r;
	}
	if (to < was) {
		x4_map_apply(i, &(struct x4_ext) { .lblk = to, .len = was - to, .state = X4_EXT_HOLE });
		r = x4_tree_collapse(h, i);
	}
	*ret_to = to;
	return r;
}

/* ---- directories, symlinks ---- */

int x4_bmap(struct x4_inode *i, uint32_t lblk, uint64_t *ret_blk)
{
	struct x4_ext x;
	int r = x4_map_lookup(i, lblk, &x);

	/* It may be given up again at any time, but not for ever. */
	for (unsigned tries = 0; r == -EAGAIN && tries < 8; tries++) {
		r = x4_map_load_locked(i);
		if (!r)
			r = x4_map_lookup(i, lblk, &x);
	}
	if (r)
		return r;
	if (x.state != X4_EXT_WRITTEN)
		return X4_CORRUPT(i->vol, i->ino, 0, "block %u is not mapped", lblk);
	*ret_blk = x.pblk;
	return 0;
}

int x4_append_meta_block(struct jnl_handle *h, struct x4_inode *i, uint32_t lblk, struct jnl_buf **ret)
{
	uint64_t goal = 0, blk;
	struct x4_ext x;
	uint32_t n;
	int r;

	r = x4_ind_convert(h, i);
	if (!r)
		r = x4_map_load_locked(i);
	if (r)
		return r;
	if (lblk && !x4_map_lookup(i, lblk - 1, &x) && x.state != X4_EXT_HOLE)
		goal = x.pblk + 1;
	r = x4_balloc(h, i, goal, 1, &blk, &n);
	if (r)
		return r;
	r = x4_extent_insert(h, i, lblk, 1, blk, false);
	return r ? r : jnl_bnew(h, blk, ret);
}
