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

int x4_zero_in_block(struct x4_inode *inode, uint64_t from, uint64_t to)
{
	struct x4_vol *vol = inode->vol;
	uint64_t base = fdio_round_down(from, vol->block_size);
	struct x4_ext extent;
	uint8_t *buf;
	int err;

	if (from >= to)
		return 0;
	FDIO_ASSERT(to - base <= vol->block_size);
	err = x4_map_lookup_load(inode, base >> vol->block_bits, &extent);
	if (err || extent.state != X4_EXT_WRITTEN)
		return err;
	buf = fdio_alloc_aligned(FDIO_MAX(vol->dev->caps.mem_align, 4096u), vol->block_size);
	if (!buf)
		return -ENOMEM;
	err = dev_read(vol->dev, buf, vol->block_size, extent.pblk << vol->block_bits);
	if (!err && !all_zero(buf + (from - base), to - from)) {
		memset(buf + (from - base), 0, to - from);
		err = dev_write(vol->dev, buf, vol->block_size, extent.pblk << vol->block_bits, 0);
	}
	free(buf);
	return err;
}

int x4_zero_tail(struct x4_inode *inode, uint64_t pos)
{
	return x4_zero_in_block(inode, pos, fdio_round_up(pos, inode->vol->block_size));
}

/* ---- freeing ---- */

int x4_remove_step(struct journal_handle *handle, struct x4_inode *inode, uint32_t from, uint32_t *to, bool metadata)
{
	uint32_t was = *to;
	bool more = false;
	int err;

	switch (x4_map_kind(inode)) {
	case X4_MAPPED_EXTENTS:
		err = x4_extent_remove(handle, inode, from, *to, metadata, to);
		if (!err && *to == was && was > from)
			err = -ENOSPC; /* the log is too small for this tree */
		return err;
	case X4_MAPPED_INDIRECT:
		err = x4_ind_remove(handle, inode, from, *to, metadata, &more);
		if (err)
			return err;
		if (more)
			x4_map_drop(inode); /* not known here how far it came */
		else
			x4_map_apply(inode, &(struct x4_ext) { .lblk = from, .len = was - from, .state = X4_EXT_HOLE });
		if (!more)
			*to = from;
		return 0;
	case X4_MAPPED_NOT:
		break;
	}
	*to = from;
	return 0;
}

static int finish(struct journal_handle *handle, struct x4_inode *inode, int err)
{
	if (!err)
		err = x4_inode_dirty(handle, inode, true);
	if (err)
		journal_cancel(handle);
	else
		journal_end(handle);
	return err;
}

int x4_remove_range(struct x4_inode *inode, uint32_t from, uint32_t to, bool metadata, bool stamp)
{
	int err = 0;

	fdio_mutex_lock(&inode->map_lock);
	while (to > from && !err) {
		struct journal_handle *handle;

		err = journal_begin(inode->vol->journal, x4_extent_batch_credits(inode), &handle);
		if (err)
			break;
		err = x4_inode_begin(handle, inode);
		if (!err)
			err = x4_remove_step(handle, inode, from, &to, metadata);
		if (!err && stamp)
			x4_stamp(inode, X4_SIZE_KEEP);
		err = finish(handle, inode, err);
	}
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}

static bool nothing_mapped(struct x4_inode *inode)
{
	switch (x4_map_kind(inode)) {
	case X4_MAPPED_NOT:
		return true;
	case X4_MAPPED_EXTENTS:
		return !x4_eh_depth(x4_ext_root(inode)) && !x4_eh_entries(x4_ext_root(inode));
	case X4_MAPPED_INDIRECT:
		break;
	}
	for (unsigned k = 0; k < EXT2_N_BLOCKS; k++)
		if (inode->raw->i_block[k])
			return false;
	return true;
}

bool x4_blocks_in_root(struct x4_inode *inode)
{
	return nothing_mapped(inode) || (x4_map_kind(inode) == X4_MAPPED_EXTENTS && !x4_eh_depth(x4_ext_root(inode)));
}

unsigned x4_free_root_credits(struct x4_inode *inode) { return nothing_mapped(inode) ? 0 : x4_extent_batch_credits(inode); }

int x4_free_root_blocks(struct journal_handle *handle, struct x4_inode *inode)
{
	uint32_t to = X4_LBLK_END;
	int err;

	if (nothing_mapped(inode))
		return 0;
	x4_map_drop(inode);
	err = x4_remove_step(handle, inode, 0, &to, !S_ISREG(le16toh(inode->raw->i_mode)));
	return !err && to ? -ENOSPC : err;
}

int x4_free_all_blocks(struct x4_inode *inode)
{
	if (nothing_mapped(inode))
		return 0;
	/* Nobody reads this file any more: edits need not keep the map up. */
	x4_map_drop(inode);
	return x4_remove_range(inode, 0, X4_LBLK_END, !S_ISREG(le16toh(inode->raw->i_mode)) || (le32toh(inode->raw->i_flags) & EXT4_EA_INODE_FL), false);
}

/* ---- truncate ---- */

/* One transaction of a truncate: the size with the first, the orphan list where it takes more than one. */
static int trunc_step(struct x4_inode *inode, uint64_t size, bool first, uint32_t from, uint32_t *to)
{
	struct journal_handle *handle;
	bool unlinked = !inode->raw->i_links_count;
	uint32_t end = *to;
	int err = journal_begin(inode->vol->journal, end > from ? x4_extent_batch_credits(inode) : X4_CREDITS_INODE + X4_CREDITS_ORPHAN, &handle);

	if (err)
		return err;
	err = x4_inode_begin(handle, inode);
	if (!err && first)
		x4_stamp(inode, size);
	if (!err && end > from)
		err = x4_remove_step(handle, inode, from, &end, false);
	if (!err && end == from)
		x4_ind_emptied(inode);
	/* An unlinked file is on the list anyway and stays there. */
	if (!err && !unlinked)
		err = end > from ? x4_orphan_add(handle, inode) : x4_orphan_del(handle, inode);
	err = finish(handle, inode, err);
	if (!err)
		*to = end;
	return err;
}

/* The size, and the blocks behind keep freed. */
static int trunc_blocks(struct x4_inode *inode, uint64_t size, uint64_t keep)
{
	uint32_t from = FDIO_MIN(fdio_blocks(keep, inode->vol->block_bits), (uint64_t)X4_LBLK_END), to = X4_LBLK_END;
	bool first = true;
	uint64_t blocks;
	unsigned runs;
	int err;

	fdio_mutex_lock(&inode->map_lock);
	err = x4_map_load_locked(inode);
	if (!err)
		err = x4_map_count(inode, from, 1, &runs, &blocks);
	if (!err && !runs)
		to = from;
	while (!err && (first || to > from)) {
		err = trunc_step(inode, size, first, from, &to);
		first = false;
		if (!err)
			inode->data.untrimmed = to > from;
	}
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}

/* Data beyond the end, which only a crash or another writer leaves there. What is preallocated is none. */
static int data_beyond(struct x4_inode *inode, uint64_t size, bool *ret)
{
	uint64_t at = fdio_blocks(size, inode->vol->block_bits);
	struct x4_ext extent;

	*ret = false;
	while (at < X4_LBLK_END && !*ret) {
		int err = x4_map_lookup_load(inode, (uint32_t)at, &extent);

		if (err)
			return err;
		*ret = extent.state == X4_EXT_WRITTEN;
		at = x4_ext_end(&extent);
	}
	return 0;
}

int x4_truncate_finish(struct x4_inode *inode)
{
	bool stale = inode->data.untrimmed;
	uint64_t size;
	int err = 0;

	if (likely(inode->data.trimmed && !stale))
		return 0;
	if (x4_vol_read_only(inode->vol))
		return -EROFS;
	size = x4_raw_size(inode); /* there is no window, which others may settle */
	if (!stale)
		err = data_beyond(inode, size, &stale);
	if (!err && stale)
		err = x4_zero_tail(inode, size);
	if (!err && stale)
		err = trunc_blocks(inode, size, size);
	inode->data.trimmed = !err;
	return err;
}

int x4_truncate(struct x4_inode *inode, uint64_t size)
{
	uint64_t old;
	int err;

	if (!S_ISREG(le16toh(inode->raw->i_mode)))
		return -EINVAL;
	if (x4_vol_read_only(inode->vol))
		return -EROFS; /* before the device is written */
	if (size > x4_max_size(inode))
		return -EFBIG;
	err = x4_window_close(inode, NULL, NULL);
	if (err)
		return err;
	old = x4_raw_size(inode); /* with what the window held */
	/* What a crash or another writer left behind the old end must not become part of the file, nor what is cut off now. */
	err = x4_zero_tail(inode, FDIO_MIN(size, old));
	if (err || size <= old)
		return err ? err : trunc_blocks(inode, size, size);
	/* In full before the size grows: on the way, or after a crash, the old contents would show. */
	err = x4_truncate_finish(inode);
	/* A file that grows keeps what was preallocated for it. */
	return err ? err : trunc_blocks(inode, size, UINT64_MAX - inode->vol->block_size);
}

bool x4_truncate_pending(const struct x4_inode *inode) { return inode->data.untrimmed; }
void x4_truncate_interrupted(struct x4_inode *inode) { inode->data.untrimmed = S_ISREG(inode->raw->i_mode); }
