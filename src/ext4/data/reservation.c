/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Allocating writes: blocks are reserved in memory before any data moves, so that a full file system is found with nothing
 * changed; after the data is on the device the extents are inserted, unwritten ones converted, and the size published. Called
 * by the direct-I/O room and data/fallocate.c, on workers (for one run of blocks also on loop threads, in the mode of nowait.h), with the
 * inode lock held in either mode (exclusively when the size moves), never inside a handle.
 *
 * Inserting takes bounded transactions, each of which leaves a file system that checks clean: written blocks never lie
 * beyond i_size on disk, so where the range is new at the end of the file, i_size follows the inserted blocks (their data is
 * complete) and reaches new_size with the last transaction. Blocks for tree nodes are set aside before each begins.
 *
 * An error leaves what was inserted so far in the tree and the rest in the reservation, for x4_resv_free.
 */
#include "ext4/data/extent.h"

#include "base/nowait.h"

#include <errno.h>
#include <string.h>

uint64_t x4_max_size(const struct x4_inode *i)
{
	const struct x4_vol *v = i->vol;
	uint64_t per = v->block_size / 4, blocks = X4_LBLK_END, max;

	if (x4_map_kind(i) == X4_MAPPED_INDIRECT)
		blocks = FDIO_MIN(blocks, EXT2_NDIR_BLOCKS + per + per * per + per * per * per);
	max = blocks << v->block_bits;
	if (!ext2fs_has_feature_large_file(v->fs->super))
		max = FDIO_MIN(max, (uint64_t)INT32_MAX);
	return max;
}

void x4_stamp(struct x4_inode *i, uint64_t size)
{
	struct timespec now = x4_now(i->vol);

	fdio_mutex_lock(&i->attr);
	if (size != X4_SIZE_KEEP) {
		if (x4_size_waits(i))
			x4_raw_put_size(i, size);
		else
			x4_raw_set_size(i, size);
	}
	x4_raw_set_time(i, X4_SET_MTIME, now);
	x4_raw_set_time(i, X4_SET_CTIME, now);
	fdio_mutex_unlock(&i->attr);
}

/* The size only grows here. */
static void stamp_grown(struct x4_inode *i, uint64_t size)
{
	x4_stamp(i, size > x4_raw_size(i) ? size : X4_SIZE_KEEP);
}

/* The size must not move over what a failed truncate has left. */
static bool over_untrimmed(const struct x4_inode *i, uint64_t new_size)
{
	return new_size && i->data.untrimmed && new_size > x4_raw_size(i);
}

int x4_publish_size(struct x4_inode *i, uint64_t new_size)
{
	struct jnl_handle *h;
	int r;

	if (new_size > x4_max_size(i))
		return -EFBIG;
	if (over_untrimmed(i, new_size))
		return -EIO;
	r = jnl_begin(i->vol->jnl, X4_CREDITS_INODE, &h);
	if (r)
		return r;
	r = x4_inode_begin(h, i);
	if (!r) {
		stamp_grown(i, new_size);
		r = x4_inode_dirty(h, i, true);
	}
	r = nowait_err(r);
	if (r)
		jnl_cancel(h);
	else
		jnl_end(h);
	return r;
}

/* Sets blocks aside for the nodes that n inserts may need; *ret_n is how many, to be given back. */
static int meta_reserve(struct x4_inode *i, unsigned n, bool root, unsigned *ret_n)
{
	unsigned meta;
	int r;

	*ret_n = 0;
	r = fdio_mutex_enter(&i->map_lock); /* other writers may be growing the tree */
	if (r)
		return r;
	meta = x4_extent_meta_for(i, n);
	fdio_mutex_unlock(&i->map_lock);
	r = x4_meta_reserve(i->vol, meta, root ? X4_ASKS_SYSTEM : X4_ASKS_USER);
	*ret_n = r ? 0 : meta;
	return r;
}

/* ---- reserving ---- */

static int resv_room(struct x4_resv *r)
{
	unsigned cap = r->cap * 2;
	struct x4_ext *e;

	if (r->nr < r->cap)
		return 0;
	e = x4_map_mem(cap * sizeof(*e));
	if (!e)
		return -ENOMEM;
	memcpy(e, r->ext, r->nr * sizeof(*e));
	if (r->ext != r->inline_ext)
		x4_map_mem_free(r->ext);
	r->ext = e;
	r->cap = cap;
	return 0;
}

/* One run of blocks for the hole at lblk, at most len; *goal moves behind it. */
static int resv_some(struct x4_resv *r, uint32_t lblk, uint32_t len, enum x4_ext_state state, uint64_t *goal, uint32_t *ret_n)
{
	struct x4_ext *last;
	uint64_t blk;
	uint32_t n;
	int err = resv_room(r);

	if (err)
		return err;
	err = x4_balloc_reserve(r->inode->vol, r->inode, *goal, FDIO_MIN(len, x4_ext_limit(state)), r->root, &blk, &n);
	if (err)
		return err;
	last = r->nr ? &r->ext[r->nr - 1] : NULL;
	if (last && x4_ext_end(last) == lblk && last->pblk + last->len == blk && last->len + n <= x4_ext_limit(state))
		last->len += n;
	else
		r->ext[r->nr++] = (struct x4_ext) { lblk, n, blk, state };
	*goal = blk + n;
	*ret_n = n;
	return 0;
}

static int resv_fill(struct x4_resv *r, uint32_t lblk, uint32_t len, enum x4_ext_state state)
{
	uint64_t end = (uint64_t)lblk + len, goal = 0;
	struct x4_ext x;
	int err;

	if (lblk && !x4_map_lookup(r->inode, lblk - 1, &x) && x.state != X4_EXT_HOLE)
		goal = x.pblk + 1;
	while (lblk < end) {
		uint32_t n;

		err = x4_map_lookup_load(r->inode, lblk, &x);
		if (err)
			return err;
		n = FDIO_MIN((uint64_t)x.len, end - lblk);
		if (x.state != X4_EXT_HOLE) {
			goal = x.pblk + x.len;
		} else {
			err = x4_ind_convert_file(r->inode);
			if (!err)
				err = resv_some(r, lblk, n, state, &goal, &n);
			if (err)
				return err;
		}
		lblk += n;
	}
	return 0;
}

int x4_resv_range(struct x4_inode *i, uint32_t lblk, uint32_t len, bool root, enum x4_ext_state state, struct x4_resv *r)
{
	int err;

	memset(r, 0, sizeof(*r));
	r->inode = i;
	r->root = root;
	r->ext = r->inline_ext;
	r->cap = ARRAY_SIZE(r->inline_ext);
	if (x4_vol_read_only(i->vol))
		return -EROFS;
	if ((uint64_t)lblk + len > X4_LBLK_END)
		return -EFBIG;
	err = resv_fill(r, lblk, len, state);
	if (!err && r->nr)
		err = meta_reserve(i, r->nr, root, &r->meta);
	if (err)
		x4_resv_free(r);
	return err;
}

int x4_resv_holes(struct x4_inode *i, uint32_t lblk, uint32_t len, bool root, struct x4_resv *r)
{
	return x4_resv_range(i, lblk, len, root, X4_EXT_WRITTEN, r);
}

void x4_resv_free(struct x4_resv *r)
{
	if (!r->inode)
		return;
	for (unsigned k = 0; k < r->nr; k++)
		x4_balloc_unreserve(r->inode->vol, r->ext[k].pblk, r->ext[k].len);
	if (r->meta)
		x4_meta_unreserve(r->inode->vol, r->meta);
	if (r->ext != r->inline_ext)
		x4_map_mem_free(r->ext);
	memset(r, 0, sizeof(*r));
}

/* ---- inserting ---- */

/* Ends a handle well or not. */
static int finish(struct jnl_handle *h, struct x4_inode *i, int err)
{
	if (!err)
		err = x4_inode_dirty(h, i, true);
	err = nowait_err(err);
	if (err)
		jnl_cancel(h);
	else
		jnl_end(h);
	return err;
}

/* How far the size may go with everything in front of end in place. */
static uint64_t size_upto(struct x4_inode *i, uint64_t new_size, uint64_t end)
{
	return FDIO_MIN(new_size, end << i->vol->block_bits);
}

unsigned x4_insert_credits(struct x4_inode *i, const struct x4_ext *x)
{
	return x4_extent_credits(i) + x->len / i->vol->blocks_per_group + 2 + X4_CREDITS_INODE;
}

/* As many of ext[0..n) as one handle takes, at least one. */
static int insert_batch(struct x4_inode *i, const struct x4_ext *ext, unsigned n, uint64_t new_size, bool last,
			unsigned *ret_done)
{
	unsigned credits = FDIO_MAX(x4_extent_batch_credits(i), x4_insert_credits(i, &ext[0])), done = 0;
	struct jnl_handle *h;
	int r;

	/* One extent, the usual case, does not ask for a large share of the log. */
	if (n == 1)
		credits = x4_insert_credits(i, &ext[0]);
	r = jnl_begin(i->vol->jnl, credits, &h);
	if (r)
		return r;
	r = x4_inode_begin(h, i);
	while (!r && done < n && (!done || jnl_credits_left(h) >= x4_insert_credits(i, &ext[done]))) {
		const struct x4_ext *x = &ext[done++];

		r = x4_balloc_claim(h, i, x->pblk, x->len);
		if (!r)
			r = x4_extent_insert(h, i, x->lblk, x->len, x->pblk, x->state == X4_EXT_UNWRITTEN);
	}
	if (!r)
		stamp_grown(i, last && done == n ? new_size : size_upto(i, new_size, x4_ext_end(&ext[done - 1])));
	r = finish(h, i, r);
	*ret_done = r ? 0 : done;
	return r;
}

int x4_resv_insert(struct x4_inode *i, struct x4_resv *r, uint64_t new_size, bool last)
{
	unsigned at = 0, done = 0;
	int err = 0;

	while (at < r->nr && !err) {
		err = insert_batch(i, r->ext + at, r->nr - at, new_size, last, &done);
		at += done;
	}
	/* What is in the tree no longer belongs to the reservation. */
	memmove(r->ext, r->ext + at, (r->nr - at) * sizeof(*r->ext));
	r->nr -= at;
	return err;
}

int x4_convert_range(struct x4_inode *i, uint32_t lblk, uint32_t end, enum x4_ext_state to, uint64_t new_size)
{
	while (lblk < end) {
		struct jnl_handle *h;
		uint32_t next = lblk;
		int r = jnl_begin(i->vol->jnl, x4_extent_batch_credits(i), &h);

		if (r)
			return r;
		r = x4_inode_begin(h, i);
		if (!r)
			r = x4_extent_convert(h, i, lblk, end, to, &next);
		if (!r && next == lblk)
			r = -ENOSPC; /* the log is too small for this tree */
		if (!r)
			stamp_grown(i, next == end ? new_size : size_upto(i, new_size, next));
		r = finish(h, i, r);
		if (r)
			return r;
		lblk = next;
	}
	return 0;
}

/* Narrows [*lblk, *end) to where unwritten blocks lie; false if there are none. */
static int find_unwritten(struct x4_inode *i, uint32_t *lblk, uint32_t *end, bool *ret_any)
{
	uint32_t first = *end, last = *lblk;

	*ret_any = false;
	for (uint32_t at = *lblk; at < *end;) {
		struct x4_ext x;
		int r = x4_map_lookup(i, at, &x);

		if (r == -EAGAIN) {
			r = x4_map_load_locked(i);
			if (r)
				return r;
			continue;
		}
		if (x.state == X4_EXT_UNWRITTEN) {
			first = FDIO_MIN(first, at);
			last = FDIO_MIN(x4_ext_end(&x), (uint64_t)*end);
			*ret_any = true;
		}
		at = FDIO_MIN(x4_ext_end(&x), (uint64_t)*end);
	}
	if (*ret_any) {
		*lblk = first;
		*end = last;
	}
	return 0;
}

static int insert_locked(struct x4_inode *i, struct x4_resv *r, uint32_t lblk, uint32_t end, uint64_t new_size, bool *ret_sized)
{
	bool inserts = r && r->nr, converts = false;
	int err = 0;

	if (lblk < end)
		err = find_unwritten(i, &lblk, &end, &converts);
	if (!err && inserts)
		err = x4_resv_insert(i, r, new_size, !converts);
	if (!err && converts)
		err = x4_convert_range(i, lblk, end, X4_EXT_WRITTEN, new_size);
	*ret_sized = inserts || converts;
	return err;
}

int x4_insert(struct x4_inode *i, struct x4_resv *r, uint32_t conv_lblk, uint32_t conv_len, uint64_t new_size)
{
	unsigned meta = 0;
	bool sized;
	int err;

	if (new_size > x4_max_size(i) || (uint64_t)conv_lblk + conv_len > X4_LBLK_END)
		return -EFBIG;
	if (over_untrimmed(i, new_size))
		return -EIO;
	if (conv_len) {
		err = meta_reserve(i, 2, true, &meta);
		if (err)
			return err;
	}
	err = fdio_mutex_enter(&i->map_lock);
	if (err) {
		if (meta)
			x4_meta_unreserve(i->vol, meta);
		return err;
	}
	err = insert_locked(i, r, conv_lblk, conv_lblk + conv_len, new_size, &sized);
	fdio_mutex_unlock(&i->map_lock);
	if (meta)
		x4_meta_unreserve(i->vol, meta);
	err = nowait_err(err);
	if (!err && !sized && new_size)
		err = x4_publish_size(i, new_size);
	return err;
}
