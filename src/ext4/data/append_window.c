/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Append windows: a file that grows by whole blocks at its end is given one run of blocks ahead, so that an append neither
 * allocates nor opens a handle. The run is reserved (x4_balloc_reserve: in memory only, a crash forgets it) and stands in
 * the extent map as written blocks behind the end of the file, where no reader looks. An append writes its data there like an
 * overwrite; when that has completed, x4_window_publish moves the size, and the answer goes out. The extent tree and the size
 * on disk follow in x4_window_settle: before the file is synced, when the window is used up or closed, and with every commit
 * interval. So an append that was not synced is as durable as on a kernel file system, and on disk the size and the extents
 * change in one transaction, after the data is on the device.
 *
 *   blocks in the tree | published, not settled | ahead
 *                      win_lblk                 size      win_end
 *
 * Rules. WINDOW-1: a window begins at the end of the file, whose last block is whole, and nothing is mapped behind it. WINDOW-2: it is
 * opened and closed with the inode lock held exclusively and no append in flight (the rooms above see to it); whatever else
 * moves the size or maps blocks behind it closes it first. WINDOW-3: the tree and win_lblk, win_len, win_pblk change under map_lock;
 * x4_map_load adds the window to what it finds in the tree. WINDOW-4: win_pub only grows while there is a window, and i->size is
 * never below it, whatever a cancelled handle puts back (x4_size_store).
 *
 * x4_window_end and x4_window_publish run on loop threads and never block; the rest is for workers. An error of settling
 * leaves the window as it was, except on closing: then what was not settled is lost, as after a crash; that is logged, and the
 * next fsync fails. Its blocks had been published, so they are given back only when nobody reads
 * them any more (drain).
 */
#include "ext4/data/extent.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define MIN_BLOCKS 4u
/* Of the blocks that are free one window, and all windows together, may hold so small a part. */
#define SHARE 32u
#define SHARE_ALL 8u

uint64_t x4_window_end(const struct x4_inode *inode) { return __atomic_load_n(&inode->data.win_end, __ATOMIC_ACQUIRE); }

void x4_window_publish(struct x4_inode *inode, uint64_t size)
{
	uint64_t old = __atomic_load_n(&inode->size, __ATOMIC_RELAXED);

	FDIO_ASSERT(size <= x4_window_end(inode));
	__atomic_store_n(&inode->window_published, size, __ATOMIC_SEQ_CST);
	while (old < size && !__atomic_compare_exchange_n(&inode->size, &old, size, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
}

/* Blocks published but not in the tree. */
static uint32_t unsettled(const struct x4_inode *inode)
{
	uint64_t end = x4_inode_size(inode) >> inode->vol->block_bits;
	uint32_t first = __atomic_load_n(&inode->data.win_lblk, __ATOMIC_ACQUIRE); /* and then the transaction to wait for */

	return end > first ? (uint32_t)(end - first) : 0;
}

uint32_t x4_window_unsettled(const struct x4_inode *inode) { return x4_window_end(inode) ? unsettled(inode) : 0; }

/* ---- the list of inodes with a window: under icache_lock, which also guards references ---- */

static void list_window(struct x4_inode *inode)
{
	x4_icache_lock(inode->vol);
	list_add_tail(&inode->vol->data.windows, &inode->data.win_link);
	x4_icache_unlock(inode->vol);
}

static void unlist_window(struct x4_inode *inode)
{
	x4_icache_lock(inode->vol);
	list_del(&inode->data.win_link);
	x4_icache_unlock(inode->vol);
}

unsigned x4_windows_count(struct x4_vol *vol)
{
	struct x4_inode *inode;
	unsigned n = 0;

	x4_icache_lock(vol);
	list_for_each(inode, &vol->data.windows, data.win_link)
		n++;
	x4_icache_unlock(vol);
	return n;
}

struct x4_inode *x4_windows_next(struct x4_vol *vol)
{
	struct x4_inode *inode = NULL;

	x4_icache_lock(vol);
	if (!list_empty(&vol->data.windows)) {
		inode = list_first(&vol->data.windows, struct x4_inode, data.win_link);
		list_move_tail(&vol->data.windows, &inode->data.win_link);
		x4_iref_locked(inode); /* an open file holds one already */
	}
	x4_icache_unlock(vol);
	return inode;
}

void x4_windows_set_reclaim(struct x4_vol *vol, bool (*fn)(void *arg), void *arg)
{
	vol->data.reclaim_arg = arg;
	vol->data.reclaim = fn;
}

bool x4_windows_reclaim(struct x4_vol *vol) { return vol->data.reclaim && vol->data.reclaim(vol->data.reclaim_arg); }

/* ---- opening ---- */

/* Windows that are opened at the same moment may go beyond it by what they are. */
static uint64_t fair_share(struct x4_vol *vol, bool root)
{
	uint64_t available = x4_balloc_available(vol, root), held = __atomic_load_n(&vol->data.win_blocks, __ATOMIC_RELAXED);
	uint64_t all = (available + held) / SHARE_ALL;

	return FDIO_MIN(available / SHARE, all > held ? all - held : 0);
}

/* WINDOW-1 */
static bool may_open(struct x4_inode *inode, uint64_t size)
{
	struct x4_vol *vol = inode->vol;
	struct x4_ext extent;

	if (inode->data.untrimmed || x4_map_kind(inode) != X4_MAPPED_EXTENTS || size & (vol->block_size - 1) || x4_raw_size(inode) != size)
		return false;
	if (x4_map_lookup(inode, (uint32_t)(size >> vol->block_bits), &extent))
		return false;
	return extent.state == X4_EXT_HOLE && x4_ext_end(&extent) == UINT32_MAX;
}

static int reserve(struct x4_inode *inode, uint64_t size, uint32_t want, bool root, struct x4_ext *ret)
{
	struct x4_vol *vol = inode->vol;
	uint64_t goal = 0, lblk = size >> vol->block_bits;
	struct x4_ext prev;
	int err;

	if (lblk && !x4_map_lookup(inode, (uint32_t)lblk - 1, &prev) && prev.state != X4_EXT_HOLE)
		goal = prev.pblk + 1;
	*ret = (struct x4_ext){ .lblk = (uint32_t)lblk, .state = X4_EXT_WRITTEN };
	err = x4_balloc_reserve(vol, inode, goal, want, root, &ret->pblk, &ret->len);
	if (!err && ret->len < MIN_BLOCKS) {
		x4_balloc_unreserve(vol, ret->pblk, ret->len);
		err = -ENOSPC;
	}
	return err;
}

int x4_window_open(struct x4_inode *inode, uint64_t bytes, bool root)
{
	struct x4_vol *vol = inode->vol;
	uint64_t size = x4_inode_size(inode), want = bytes >> vol->block_bits, room = (x4_max_size(inode) - size) >> vol->block_bits;
	unsigned meta;
	struct x4_ext extent;
	int err;

	FDIO_ASSERT(!x4_window_end(inode));
	want = FDIO_MIN(want, room);
	want = FDIO_MIN(want, fair_share(vol, root));
	want = FDIO_MIN(want, (uint64_t)X4_EXT_WRITTEN_MAX);
	if (want < MIN_BLOCKS || !may_open(inode, size))
		return -ENOSPC;
	inode->data.trimmed = true; /* from here on the window's own blocks lie there */
	fdio_mutex_lock(&inode->map_lock);
	meta = x4_extent_meta_for(inode, 1);
	fdio_mutex_unlock(&inode->map_lock);
	err = x4_meta_reserve(vol, meta, root ? X4_ASKS_SYSTEM : X4_ASKS_USER);
	if (err)
		return err;
	err = reserve(inode, size, (uint32_t)want, root, &extent);
	if (err) {
		x4_meta_unreserve(vol, meta);
		return err;
	}
	fdio_mutex_lock(&inode->map_lock);
	__atomic_store_n(&inode->data.win_lblk, extent.lblk, __ATOMIC_RELEASE); /* unsettled() may be asked by somebody who saw the last window */
	inode->data.win_len = extent.len;
	inode->data.win_pblk = extent.pblk;
	inode->data.win_meta = meta;
	x4_map_apply(inode, &extent);
	__atomic_store_n(&inode->window_published, size, __ATOMIC_SEQ_CST);
	__atomic_store_n(&inode->data.win_end, (uint64_t)(extent.lblk + extent.len) << vol->block_bits, __ATOMIC_RELEASE);
	fdio_mutex_unlock(&inode->map_lock);
	__atomic_add_fetch(&vol->data.win_blocks, extent.len, __ATOMIC_RELAXED);
	list_window(inode);
	return 0;
}

/* ---- settling ---- */

/* The tree may have become deeper: the next insert may need more. Best effort: what is set aside already stays. */
static void refresh_meta(struct x4_inode *inode)
{
	unsigned meta = x4_extent_meta_for(inode, 1);

	if (meta > inode->data.win_meta && !x4_meta_reserve(inode->vol, meta - inode->data.win_meta, X4_ASKS_SYSTEM))
		inode->data.win_meta = meta;
}

static int settle_locked(struct x4_inode *inode)
{
	struct x4_vol *vol = inode->vol;
	struct x4_ext extent = { inode->data.win_lblk, x4_window_unsettled(inode), inode->data.win_pblk, X4_EXT_WRITTEN };
	struct journal_handle *handle;
	int err;

	if (!extent.len)
		return 0;
	FDIO_ASSERT(extent.len <= inode->data.win_len);
	refresh_meta(inode);
	err = journal_begin(vol->journal, x4_insert_credits(inode, &extent), &handle);
	if (err)
		return err;
	err = x4_inode_begin(handle, inode);
	if (!err)
		err = x4_balloc_claim(handle, inode, extent.pblk, extent.len);
	if (!err)
		err = x4_extent_insert(handle, inode, extent.lblk, extent.len, extent.pblk, false);
	if (!err) {
		/* The times are those of the writes: noted then, folded in by x4_inode_begin. */
		fdio_mutex_lock(&inode->attr);
		x4_raw_set_size(inode, x4_ext_end(&extent) << vol->block_bits);
		fdio_mutex_unlock(&inode->attr);
		err = x4_inode_dirty(handle, inode, true);
	}
	if (err) {
		journal_cancel(handle);
		return err;
	}
	__atomic_store_n(&inode->data.win_lblk, extent.lblk + extent.len, __ATOMIC_RELEASE);
	inode->data.win_len -= extent.len;
	inode->data.win_pblk += extent.len;
	journal_end(handle);
	__atomic_sub_fetch(&vol->data.win_blocks, extent.len, __ATOMIC_RELAXED);
	fdio_count(CTR_x4_window_settled);
	return 0;
}

int x4_window_settle(struct x4_inode *inode)
{
	int err;

	if (!x4_window_unsettled(inode))
		return 0;
	fdio_mutex_lock(&inode->map_lock);
	err = settle_locked(inode);
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}

int x4_windows_settle(struct x4_vol *vol)
{
	unsigned n = x4_windows_count(vol);
	int err = 0;

	while (n--) {
		struct x4_inode *inode = x4_windows_next(vol);
		int r;

		if (!inode)
			break;
		r = x4_window_settle(inode);
		err = err ? err : r;
		x4_iput(inode);
	}
	return err;
}

/* ---- closing ---- */

int x4_window_lost(struct x4_inode *inode, bool clear)
{
	int err = __atomic_load_n(&inode->data.win_lost, __ATOMIC_ACQUIRE);

	return err && clear ? __atomic_exchange_n(&inode->data.win_lost, 0, __ATOMIC_ACQ_REL) : err;
}

int x4_window_close(struct x4_inode *inode, void (*drain)(void *arg), void *arg)
{
	struct x4_vol *vol = inode->vol;
	uint64_t left_blk;
	uint32_t left;
	unsigned meta;
	int err;

	if (!x4_window_end(inode))
		return 0;
	fdio_mutex_lock(&inode->map_lock);
	err = settle_locked(inode);
	left = inode->data.win_len;
	left_blk = inode->data.win_pblk;
	meta = inode->data.win_meta;
	__atomic_store_n(&inode->data.win_end, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&inode->window_published, 0, __ATOMIC_SEQ_CST);
	inode->data.win_len = 0;
	inode->data.win_meta = 0;
	if (err) {
		log_err("inode %u: %llu bytes that were appended are lost: %s", inode->ino,
			(unsigned long long)(x4_inode_size(inode) - x4_raw_size(inode)), strerror(-err));
		fdio_mutex_lock(&inode->attr);
		x4_size_store(inode, x4_raw_size(inode));
		fdio_mutex_unlock(&inode->attr);
		__atomic_store_n(&inode->data.win_lost, err == -EROFS ? err : -EIO, __ATOMIC_RELEASE);
	}
	if (left)
		x4_map_apply(inode, &(struct x4_ext){ .lblk = inode->data.win_lblk, .len = left, .state = X4_EXT_HOLE });
	fdio_mutex_unlock(&inode->map_lock);
	unlist_window(inode);
	if (err && drain)
		drain(arg);
	__atomic_sub_fetch(&vol->data.win_blocks, left, __ATOMIC_RELAXED);
	if (left) {
		x4_balloc_unreserve(vol, left_blk, left);
		x4_balloc_next(inode, left_blk);
	}
	x4_meta_unreserve(vol, meta);
	return err;
}
