/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Append windows. A file that grows by whole blocks at its end gets one run of blocks ahead, so
 * that an append neither allocates nor opens a handle. The run is reserved (ext4_blocks_reserve: in
 * memory only, a crash forgets it) and stands in the extent map as written blocks behind the end of
 * the file, where no reader looks. An append writes its data there like an overwrite. When the data
 * is on the device, ext4_window_publish moves the size, and the append is answered. The extent tree
 * and the size on disk follow in ext4_window_settle: before the file is synced, when the window is
 * full or closed, and at every commit interval. So an append that was not synced is as durable as
 * on a kernel file system; and on disk the size and the extents change in one transaction, after
 * the data.
 *
 *   blocks in the tree | published, not settled | ahead
 *                      lblk                     size      end
 *
 *   state       event                            next state   function
 *   no window   a file grows at its end          open         ext4_window_open
 *   open        an append has completed          unsettled    ext4_window_publish
 *   unsettled   an append has completed          unsettled    ext4_window_publish
 *   unsettled   the transaction is made          open         ext4_window_settle
 *   unsettled   the transaction fails            unsettled    ext4_window_settle; tried again later
 *   open        window full, size moves, close   no window    ext4_window_close
 *   unsettled   the same, settling succeeds      no window    ext4_window_close
 *   unsettled   the same, settling fails         no window    ext4_window_close; data lost
 *
 * In the last case appended data is lost as in a crash: the loss is logged, and the next fsync
 * fails (ext4_window_lost). Readers may be reading the lost blocks, so they are given back only
 * after drain.
 *
 * WINDOW-1 A window begins at the end of the file, whose last block is whole, and nothing is mapped
 *   behind it.
 * WINDOW-2 It is opened and closed with the inode lock held exclusively and no append in flight
 *   (the rooms above see to it); any other operation that moves the size or maps blocks behind it
 *   closes the window first.
 * WINDOW-3 The tree and window.lblk, len and pblk change under map_lock; map_load.c adds the window
 *   to the extents that it finds in the tree.
 * WINDOW-4 window_published only grows while there is a window, and inode->size is never below it,
 *   whatever a cancelled handle restores (ext4_size_store).
 *
 * ext4_window_end, _publish, _unsettled and _lost run on any thread and never block; the rest runs
 * on workers, the ticker and, at unmount, the main thread.
 */
#include "ext4/data/extent.h"

#include "base/counters.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define MIN_BLOCKS 4u
/* One window may hold 1/32 of the free blocks, all windows together 1/8. */
#define SHARE 32u
#define SHARE_ALL 8u

uint64_t ext4_window_end(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->data.window.end, __ATOMIC_ACQUIRE);
}

void ext4_window_publish(struct ext4_inode *inode, uint64_t size)
{
	uint64_t old = __atomic_load_n(&inode->size, __ATOMIC_RELAXED);

	FDIO_ASSERT(size <= ext4_window_end(inode));
	__atomic_store_n(&inode->window_published, size, __ATOMIC_SEQ_CST);
	while (old < size && !__atomic_compare_exchange_n(&inode->size, &old, size, false,
							  __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
}

/* Blocks published but not in the tree. */
static uint32_t unsettled(const struct ext4_inode *inode)
{
	uint64_t end = ext4_inode_size(inode) >> inode->vol->block_bits;
	/* Acquire: a caller that sees this lblk also sees the transaction that settled it. */
	uint32_t first = __atomic_load_n(&inode->data.window.lblk, __ATOMIC_ACQUIRE);

	return end > first ? (uint32_t)(end - first) : 0;
}

uint32_t ext4_window_unsettled(const struct ext4_inode *inode)
{
	return ext4_window_end(inode) ? unsettled(inode) : 0;
}

/* ---- the list of inodes with a window: under the cache's lock, as are references ---- */

static void list_window(struct ext4_inode *inode)
{
	ext4_inode_cache_lock(inode->vol);
	list_add_tail(&inode->vol->data.windows, &inode->data.window.link);
	ext4_inode_cache_unlock(inode->vol);
}

static void unlist_window(struct ext4_inode *inode)
{
	ext4_inode_cache_lock(inode->vol);
	list_del(&inode->data.window.link);
	ext4_inode_cache_unlock(inode->vol);
}

unsigned ext4_windows_count(struct ext4_vol *vol)
{
	struct ext4_inode *inode;
	unsigned n = 0;

	ext4_inode_cache_lock(vol);
	list_for_each(inode, &vol->data.windows, data.window.link)
		n++;
	ext4_inode_cache_unlock(vol);
	return n;
}

struct ext4_inode *ext4_windows_next(struct ext4_vol *vol)
{
	struct ext4_inode *inode = NULL;

	ext4_inode_cache_lock(vol);
	if (!list_empty(&vol->data.windows)) {
		inode = list_first(&vol->data.windows, struct ext4_inode, data.window.link);
		list_move_tail(&vol->data.windows, &inode->data.window.link);
		ext4_inode_ref_locked(inode); /* an open file holds one already */
	}
	ext4_inode_cache_unlock(vol);
	return inode;
}

void ext4_windows_set_reclaim(struct ext4_vol *vol, bool (*fn)(void *arg), void *arg)
{
	vol->data.reclaim_arg = arg;
	vol->data.reclaim = fn;
}

bool ext4_windows_reclaim(struct ext4_vol *vol)
{
	return vol->data.reclaim && vol->data.reclaim(vol->data.reclaim_arg);
}

/* ---- opening ---- */

/*
 * Blocks for one more window. Windows that are opened at the same moment may together exceed the
 * share.
 */
static uint64_t fair_share(struct ext4_vol *vol, bool root)
{
	uint64_t available = ext4_blocks_available(vol, root),
		 held = __atomic_load_n(&vol->data.window_blocks, __ATOMIC_RELAXED);
	uint64_t all = (available + held) / SHARE_ALL;

	return FDIO_MIN(available / SHARE, all > held ? all - held : 0);
}

/* WINDOW-1 holds for a window that begins at size. */
static bool may_open(struct ext4_inode *inode, uint64_t size)
{
	struct ext4_vol *vol = inode->vol;
	struct ext4_extent extent;

	if (inode->data.beyond_stale || ext4_map_kind(inode) != EXT4_MAPPED_EXTENTS ||
	    size & (vol->block_size - 1) || ext4_raw_size(inode) != size)
		return false;
	if (ext4_map_lookup(inode, (uint32_t)(size >> vol->block_bits), &extent))
		return false;
	return extent.state == EXT4_EXTENT_HOLE && ext4_extent_end(&extent) == UINT32_MAX;
}

static int reserve(struct ext4_inode *inode, uint64_t size, uint32_t want, bool root,
		   struct ext4_extent *ret)
{
	struct ext4_vol *vol = inode->vol;
	uint64_t goal = 0, lblk = size >> vol->block_bits;
	struct ext4_extent prev;
	int err;

	if (lblk && !ext4_map_lookup(inode, (uint32_t)lblk - 1, &prev) &&
	    prev.state != EXT4_EXTENT_HOLE)
		goal = prev.pblk + 1;
	*ret = (struct ext4_extent){ .lblk = (uint32_t)lblk, .state = EXT4_EXTENT_WRITTEN };
	err = ext4_blocks_reserve(vol, inode, goal, want, root, &ret->pblk, &ret->len);
	if (!err && ret->len < MIN_BLOCKS) {
		ext4_blocks_unreserve(vol, ret->pblk, ret->len);
		err = -ENOSPC;
	}
	return err;
}

int ext4_window_open(struct ext4_inode *inode, uint64_t bytes, bool root)
{
	struct ext4_vol *vol = inode->vol;
	uint64_t size = ext4_inode_size(inode), want = bytes >> vol->block_bits,
		 room = (ext4_max_size(inode) - size) >> vol->block_bits;
	unsigned meta;
	struct ext4_extent extent;
	int err;

	FDIO_ASSERT(!ext4_window_end(inode));
	want = FDIO_MIN(want, room);
	want = FDIO_MIN(want, fair_share(vol, root));
	want = FDIO_MIN(want, (uint64_t)EXT4_EXTENT_WRITTEN_MAX);
	if (want < MIN_BLOCKS || !may_open(inode, size))
		return -ENOSPC;
	inode->data.beyond_checked = true; /* from now on the window's own blocks lie there */
	fdio_mutex_lock(&inode->map_lock);
	meta = ext4_extent_metadata_for(inode, 1);
	fdio_mutex_unlock(&inode->map_lock);
	err = ext4_metadata_reserve(vol, meta, root ? EXT4_REQUESTER_SYSTEM : EXT4_REQUESTER_USER);
	if (err)
		return err;
	err = reserve(inode, size, (uint32_t)want, root, &extent);
	if (err) {
		ext4_metadata_unreserve(vol, meta);
		return err;
	}
	fdio_mutex_lock(&inode->map_lock);
	/* Atomic: a thread that saw the end of an earlier window may be in unsettled(). */
	__atomic_store_n(&inode->data.window.lblk, extent.lblk, __ATOMIC_RELEASE);
	inode->data.window.len = extent.len;
	inode->data.window.pblk = extent.pblk;
	inode->data.window.meta = meta;
	ext4_map_apply(inode, &extent);
	__atomic_store_n(&inode->window_published, size, __ATOMIC_SEQ_CST);
	__atomic_store_n(&inode->data.window.end,
			 (uint64_t)(extent.lblk + extent.len) << vol->block_bits, __ATOMIC_RELEASE);
	fdio_mutex_unlock(&inode->map_lock);
	__atomic_add_fetch(&vol->data.window_blocks, extent.len, __ATOMIC_RELAXED);
	list_window(inode);
	return 0;
}

/* ---- settling ---- */

/*
 * Sets more blocks aside for the next insert if the tree has become deeper. Without them the insert
 * may still succeed; blocks that are set aside already stay.
 */
static void refresh_meta(struct ext4_inode *inode)
{
	struct ext4_window *window = &inode->data.window;
	unsigned meta = ext4_extent_metadata_for(inode, 1);

	if (meta > window->meta &&
	    !ext4_metadata_reserve(inode->vol, meta - window->meta, EXT4_REQUESTER_SYSTEM))
		window->meta = meta;
}

/* map_lock held. */
static int settle_locked(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	struct ext4_extent extent = { inode->data.window.lblk, ext4_window_unsettled(inode),
				      inode->data.window.pblk, EXT4_EXTENT_WRITTEN };
	struct journal_handle *handle;
	int err;

	if (!extent.len)
		return 0;
	FDIO_ASSERT(extent.len <= inode->data.window.len);
	refresh_meta(inode);
	err = ext4_inode_change_begin(inode, ext4_insert_credits(inode, &extent), &handle);
	if (err)
		return err;
	err = ext4_blocks_claim(handle, inode, extent.pblk, extent.len);
	if (!err)
		err = ext4_extent_insert(handle, inode, extent.lblk, extent.len, extent.pblk,
					 false);
	if (!err) {
		/* No new times: the appends noted theirs, and ext4_inode_begin stored them. */
		fdio_mutex_lock(&inode->attr);
		ext4_raw_set_size(inode, ext4_extent_end(&extent) << vol->block_bits);
		fdio_mutex_unlock(&inode->attr);
		err = ext4_inode_dirty(handle, inode, true);
	}
	if (err) {
		journal_cancel(handle);
		return err;
	}
	__atomic_store_n(&inode->data.window.lblk, extent.lblk + extent.len, __ATOMIC_RELEASE);
	inode->data.window.len -= extent.len;
	inode->data.window.pblk += extent.len;
	journal_end(handle);
	__atomic_sub_fetch(&vol->data.window_blocks, extent.len, __ATOMIC_RELAXED);
	fdio_count(COUNTER_ext4_window_settled);
	return 0;
}

int ext4_window_settle(struct ext4_inode *inode)
{
	int err;

	if (!ext4_window_unsettled(inode))
		return 0;
	fdio_mutex_lock(&inode->map_lock);
	err = settle_locked(inode);
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}

int ext4_windows_settle(struct ext4_vol *vol)
{
	unsigned n = ext4_windows_count(vol);
	int err = 0;

	while (n--) {
		struct ext4_inode *inode = ext4_windows_next(vol);
		int r;

		if (!inode)
			break;
		r = ext4_window_settle(inode);
		err = err ? err : r;
		ext4_inode_put(inode);
	}
	return err;
}

/* ---- closing ---- */

int ext4_window_lost(struct ext4_inode *inode, bool clear)
{
	int *lost = &inode->data.window.lost;
	int err = __atomic_load_n(lost, __ATOMIC_ACQUIRE);

	return err && clear ? __atomic_exchange_n(lost, 0, __ATOMIC_ACQ_REL) : err;
}

/* Settling has failed with err: resets the size to the size on disk. map_lock held. */
static void lose_unsettled(struct ext4_inode *inode, int err)
{
	log_err("inode %u: %llu bytes that were appended are lost: %s", inode->ino,
		(unsigned long long)(ext4_inode_size(inode) - ext4_raw_size(inode)),
		strerror(-err));
	fdio_mutex_lock(&inode->attr);
	ext4_size_store(inode, ext4_raw_size(inode));
	fdio_mutex_unlock(&inode->attr);
	__atomic_store_n(&inode->data.window.lost, err == -EROFS ? err : -EIO, __ATOMIC_RELEASE);
}

int ext4_window_close(struct ext4_inode *inode, void (*drain)(void *arg), void *arg)
{
	struct ext4_window *window = &inode->data.window;
	struct ext4_vol *vol = inode->vol;
	struct ext4_extent rest = { .state = EXT4_EXTENT_HOLE };
	uint64_t rest_blk;
	unsigned meta;
	int err;

	if (!ext4_window_end(inode))
		return 0;
	fdio_mutex_lock(&inode->map_lock);
	err = settle_locked(inode);
	rest.lblk = window->lblk;
	rest.len = window->len;
	rest_blk = window->pblk;
	meta = window->meta;
	__atomic_store_n(&window->end, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&inode->window_published, 0, __ATOMIC_SEQ_CST);
	window->len = 0;
	window->meta = 0;
	if (err)
		lose_unsettled(inode, err);
	if (rest.len)
		ext4_map_apply(inode, &rest);
	fdio_mutex_unlock(&inode->map_lock);
	unlist_window(inode);
	if (err && drain)
		drain(arg);
	__atomic_sub_fetch(&vol->data.window_blocks, rest.len, __ATOMIC_RELAXED);
	if (rest.len) {
		ext4_blocks_unreserve(vol, rest_blk, rest.len);
		ext4_blocks_next(inode, rest_blk);
	}
	ext4_metadata_unreserve(vol, meta);
	return err;
}
