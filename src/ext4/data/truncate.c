/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Truncate, and freeing all blocks of a deleted file. Called by the rooms above with the inode lock held exclusively and the
 * inode's I/O drained, by orphan processing at mount, and by eviction; on workers, outside handles.
 *
 * The order in x4_truncate: the bytes behind the new end are zeroed on the device first, so that they never show when the
 * file grows again; the new size and the first frees share a transaction; if that does not free everything, the inode is on
 * the orphan list until the last one, and a crash in between is finished at the next mount. When one in between fails, the
 * inode stays there and is marked as untrimmed, and whatever extends the file finishes the truncate first, or fails. Blocks go
 * from the end of the file downwards, so each transaction leaves a tree that checks clean.
 */
#include "ext4/data/extent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- zeroing on the device ---- */

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

int x4_zero_in_block(struct x4_inode *i, uint64_t from, uint64_t to)
{
	struct x4_vol *v = i->vol;
	uint64_t base = fdio_round_down(from, v->block_size);
	struct x4_ext x;
	uint8_t *buf;
	int r;

	if (from >= to)
		return 0;
	FDIO_ASSERT(to - base <= v->block_size);
	r = x4_map_lookup_load(i, base >> v->block_bits, &x);
	if (r || x.state != X4_EXT_WRITTEN)
		return r;
	buf = fdio_alloc_aligned(FDIO_MAX(v->dev->caps.mem_align, 4096u), v->block_size);
	if (!buf)
		return -ENOMEM;
	r = dev_read(v->dev, buf, v->block_size, x.pblk << v->block_bits);
	if (!r && !all_zero(buf + (from - base), to - from)) {
		memset(buf + (from - base), 0, to - from);
		r = dev_write(v->dev, buf, v->block_size, x.pblk << v->block_bits, 0);
	}
	free(buf);
	return r;
}

int x4_zero_tail(struct x4_inode *i, uint64_t pos)
{
	return x4_zero_in_block(i, pos, fdio_round_up(pos, i->vol->block_size));
}

/* ---- freeing ---- */

int x4_remove_step(struct jnl_handle *h, struct x4_inode *i, uint32_t from, uint32_t *to, bool metadata)
{
	uint32_t was = *to;
	bool more = false;
	int r;

	switch (x4_map_kind(i)) {
	case X4_MAPPED_EXTENTS:
		r = x4_extent_remove(h, i, from, *to, metadata, to);
		if (!r && *to == was && was > from)
			r = -ENOSPC; /* the log is too small for this tree */
		return r;
	case X4_MAPPED_INDIRECT:
		r = x4_ind_remove(h, i, from, *to, metadata, &more);
		if (r)
			return r;
		if (more)
			x4_map_drop(i); /* not known here how far it came */
		else
			x4_map_apply(i, &(struct x4_ext) { .lblk = from, .len = was - from, .state = X4_EXT_HOLE });
		if (!more)
			*to = from;
		return 0;
	case X4_MAPPED_NOT:
		break;
	}
	*to = from;
	return 0;
}

static int finish(struct jnl_handle *h, struct x4_inode *i, int err)
{
	if (!err)
		err = x4_inode_dirty(h, i, true);
	if (err)
		jnl_cancel(h);
	else
		jnl_end(h);
	return err;
}

int x4_remove_range(struct x4_inode *i, uint32_t from, uint32_t to, bool metadata, bool stamp)
{
	int r = 0;

	fdio_mutex_lock(&i->map_lock);
	while (to > from && !r) {
		struct jnl_handle *h;

		r = jnl_begin(i->vol->jnl, x4_extent_batch_credits(i), &h);
		if (r)
			break;
		r = x4_inode_begin(h, i);
		if (!r)
			r = x4_remove_step(h, i, from, &to, metadata);
		if (!r && stamp)
			x4_stamp(i, X4_SIZE_KEEP);
		r = finish(h, i, r);
	}
	fdio_mutex_unlock(&i->map_lock);
	return r;
}

static bool nothing_mapped(struct x4_inode *i)
{
	switch (x4_map_kind(i)) {
	case X4_MAPPED_NOT:
		return true;
	case X4_MAPPED_EXTENTS:
		return !x4_eh_depth(x4_ext_root(i)) && !x4_eh_entries(x4_ext_root(i));
	case X4_MAPPED_INDIRECT:
		break;
	}
	for (unsigned k = 0; k < EXT2_N_BLOCKS; k++)
		if (i->raw->i_block[k])
			return false;
	return true;
}

bool x4_blocks_in_root(struct x4_inode *i)
{
	return nothing_mapped(i) || (x4_map_kind(i) == X4_MAPPED_EXTENTS && !x4_eh_depth(x4_ext_root(i)));
}

unsigned x4_free_root_credits(struct x4_inode *i) { return nothing_mapped(i) ? 0 : x4_extent_batch_credits(i); }

int x4_free_root_blocks(struct jnl_handle *h, struct x4_inode *i)
{
	uint32_t to = X4_LBLK_END;
	int r;

	if (nothing_mapped(i))
		return 0;
	x4_map_drop(i);
	r = x4_remove_step(h, i, 0, &to, !S_ISREG(le16toh(i->raw->i_mode)));
	return !r && to ? -ENOSPC : r;
}

int x4_free_all_blocks(struct x4_inode *i)
{
	if (nothing_mapped(i))
		return 0;
	/* Nobody reads this file any more: edits need not keep the map up. */
	x4_map_drop(i);
	return x4_remove_range(i, 0, X4_LBLK_END, !S_ISREG(le16toh(i->raw->i_mode)) || (le32toh(i->raw->i_flags) & EXT4_EA_INODE_FL), false);
}

/* ---- truncate ---- */

/* One transaction of a truncate: the size with the first, the orphan list where it takes more than one. */
static int trunc_step(struct x4_inode *i, uint64_t size, bool first, uint32_t from, uint32_t *to)
{
	struct jnl_handle *h;
	bool unlinked = !i->raw->i_links_count;
	uint32_t end = *to;
	int r = jnl_begin(i->vol->jnl, end > from ? x4_extent_batch_credits(i) : X4_CREDITS_INODE + X4_CREDITS_ORPHAN, &h);

	if (r)
		return r;
	r = x4_inode_begin(h, i);
	if (!r && first)
		x4_stamp(i, size);
	if (!r && end > from)
		r = x4_remove_step(h, i, from, &end, false);
	if (!r && end == from)
		x4_ind_emptied(i);
	/* An unlinked file is on the list anyway and stays there. */
	if (!r && !unlinked)
		r = end > from ? x4_orphan_add(h, i) : x4_orphan_del(h, i);
	r = finish(h, i, r);
	if (!r)
		*to = end;
	return r;
}

/* The size, and the blocks behind keep freed. */
static int trunc_blocks(struct x4_inode *i, uint64_t size, uint64_t keep)
{
	uint32_t from = FDIO_MIN(fdio_blocks(keep, i->vol->block_bits), (uint64_t)X4_LBLK_END), to = X4_LBLK_END;
	bool first = true;
	uint64_t blocks;
	unsigned runs;
	int r;

	fdio_mutex_lock(&i->map_lock);
	r = x4_map_load_locked(i);
	if (!r)
		r = x4_map_count(i, from, 1, &runs, &blocks);
	if (!r && !runs)
		to = from;
	while (!r && (first || to > from)) {
		r = trunc_step(i, size, first, from, &to);
		first = false;
		if (!r)
			i->data.untrimmed = to > from;
	}
	fdio_mutex_unlock(&i->map_lock);
	return r;
}

/* Data beyond the end, which only a crash or another writer leaves there. What is preallocated is none. */
static int data_beyond(struct x4_inode *i, uint64_t size, bool *ret)
{
	uint64_t at = fdio_blocks(size, i->vol->block_bits);
	struct x4_ext x;

	*ret = false;
	while (at < X4_LBLK_END && !*ret) {
		int r = x4_map_lookup_load(i, (uint32_t)at, &x);

		if (r)
			return r;
		*ret = x.state == X4_EXT_WRITTEN;
		at = x4_ext_end(&x);
	}
	return 0;
}

int x4_truncate_finish(struct x4_inode *i)
{
	bool stale = i->data.untrimmed;
	uint64_t size;
	int r = 0;

	if (likely(i->data.trimmed && !stale))
		return 0;
	if (x4_vol_read_only(i->vol))
		return -EROFS;
	size = x4_raw_size(i); /* there is no window, which others may settle */
	if (!stale)
		r = data_beyond(i, size, &stale);
	if (!r && stale)
		r = x4_zero_tail(i, size);
	if (!r && stale)
		r = trunc_blocks(i, size, size);
	i->data.trimmed = !r;
	return r;
}

int x4_truncate(struct x4_inode *i, uint64_t size)
{
	uint64_t old;
	int r;

	if (!S_ISREG(le16toh(i->raw->i_mode)))
		return -EINVAL;
	if (x4_vol_read_only(i->vol))
		return -EROFS; /* before the device is written */
	if (size > x4_max_size(i))
		return -EFBIG;
	r = x4_window_close(i, NULL, NULL);
	if (r)
		return r;
	old = x4_raw_size(i); /* with what the window held */
	/* What a crash or another writer left behind the old end must not become part of the file, nor what is cut off now. */
	r = x4_zero_tail(i, FDIO_MIN(size, old));
	if (r || size <= old)
		return r ? r : trunc_blocks(i, size, size);
	/* In full before the size grows: on the way, or after a crash, the old contents would show. */
	r = x4_truncate_finish(i);
	/* A file that grows keeps what was preallocated for it. */
	return r ? r : trunc_blocks(i, size, UINT64_MAX - i->vol->block_size);
}

bool x4_truncate_pending(const struct x4_inode *i) { return i->data.untrimmed; }
void x4_truncate_interrupted(struct x4_inode *i) { i->data.untrimmed = S_ISREG(i->raw->i_mode); }
