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

uint64_t x4_window_end(const struct x4_inode *i) { return __atomic_load_n(&i->data.win_end, __ATOMIC_ACQUIRE); }

void x4_window_publish(struct x4_inode *i, uint64_t size)
{
	uint64_t old = __atomic_load_n(&i->size, __ATOMIC_RELAXED);

	FDIO_ASSERT(size <= x4_window_end(i));
	__atomic_store_n(&i->win_pub, size, __ATOMIC_SEQ_CST);
	while (old < size && !__atomic_compare_exchange_n(&i->size, &old, size, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
}

/* Blocks published but not in the tree. */
static uint32_t unsettled(const struct x4_inode *i)
{
	uint64_t end = x4_inode_size(i) >> i->vol->block_bits;
	uint32_t first = __atomic_load_n(&i->data.win_lblk, __ATOMIC_ACQUIRE); /* and then the transaction to wait for */

	return end > first ? (uint32_t)(end - first) : 0;
}

uint32_t x4_window_unsettled(const struct x4_inode *i) { return x4_window_end(i) ? unsettled(i) : 0; }

/* ---- the list of inodes with a window: under icache_lock, which also guards references ---- */

static void list_window(struct x4_inode *i)
{
	x4_icache_lock(i->vol);
	list_add_tail(&i->vol->data.windows, &i->data.win_link);
	x4_icache_unlock(i->vol);
}

static void unlist_window(struct x4_inode *i)
{
	x4_icache_lock(i->vol);
	list_del(&i->data.win_link);
	x4_icache_unlock(i->vol);
}

unsigned x4_windows_count(struct x4_vol *v)
{
	struct x4_inode *i;
	unsigned n = 0;

	x4_icache_lock(v);
	list_for_each(i, &v->data.windows, data.win_link)
		n++;
	x4_icache_unlock(v);
	return n;
}

struct x4_inode *x4_windows_next(struct x4_vol *v)
{
	struct x4_inode *i = NULL;

	x4_icache_lock(v);
	if (!list_empty(&v->data.windows)) {
		i = list_first(&v->data.windows, struct x4_inode, data.win_link);
		list_move_tail(&v->data.windows, &i->data.win_link);
		x4_iref_locked(i); /* an open file holds one already */
	}
	x4_icache_unlock(v);
	return i;
}

void x4_windows_set_reclaim(struct x4_vol *v, bool (*fn)(void *arg), void *arg)
{
	v->data.reclaim_arg = arg;
	v->data.reclaim = fn;
}

bool x4_windows_reclaim(struct x4_vol *v) { return v->data.reclaim && v->data.reclaim(v->data.reclaim_arg); }

/* ---- opening ---- */

/* Windows that are opened at the same moment may go beyond it by what they are. */
static uint64_t fair_share(struct x4_vol *v, bool root)
{
	uint64_t available = x4_balloc_available(v, root), held = __atomic_load_n(&v->data.win_blocks, __ATOMIC_RELAXED);
	uint64_t all = (available + held) / SHARE_ALL;

	return FDIO_MIN(available / SHARE, all > held ? all - held : 0);
}

/* WINDOW-1 */
static bool may_open(struct x4_inode *i, uint64_t size)
{
	struct x4_vol *v = i->vol;
	struct x4_ext x;

	if (i->data.untrimmed || x4_map_kind(i) != X4_MAPPED_EXTENTS || size & (v->block_size - 1) || x4_raw_size(i) != size)
		return false;
	if (x4_map_lookup(i, (uint32_t)(size >> v->block_bits), &x))
		return false;
	return x.state == X4_EXT_HOLE && x4_ext_end(&x) == UINT32_MAX;
}

static int reserve(struct x4_inode *i, uint64_t size, uint32_t want, bool root, struct x4_ext *ret)
{
	struct x4_vol *v = i->vol;
	uint64_t goal = 0, lblk = size >> v->block_bits;
	struct x4_ext prev;
	int r;

	if (lblk && !x4_map_lookup(i, (uint32_t)lblk - 1, &prev) && prev.state != X4_EXT_HOLE)
		goal = prev.pblk + 1;
	*ret = (struct x4_ext){ .lblk = (uint32_t)lblk, .state = X4_EXT_WRITTEN };
	r = x4_balloc_reserve(v, i, goal, want, root, &ret->pblk, &ret->len);
	if (!r && ret->len < MIN_BLOCKS) {
		x4_balloc_unreserve(v, ret->pblk, ret->len);
		r = -ENOSPC;
	}
	return r;
}

int x4_window_open(struct x4_inode *i, uint64_t bytes, bool root)
{
	struct x4_vol *v = i->vol;
	uint64_t size = x4_inode_size(i), want = bytes >> v->block_bits, room = (x4_max_size(i) - size) >> v->block_bits;
	unsigned meta;
	struct x4_ext x;
	int r;

	FDIO_ASSERT(!x4_window_end(i));
	want = FDIO_MIN(want, room);
	want = FDIO_MIN(want, fair_share(v, root));
	want = FDIO_MIN(want, (uint64_t)X4_EXT_WRITTEN_MAX);
	if (want < MIN_BLOCKS || !may_open(i, size))
		return -ENOSPC;
	i->data.trimmed = true; /* from here on the window's own blocks lie there */
	fdio_mutex_lock(&i->map_lock);
	meta = x4_extent_meta_for(i, 1);
	fdio_mutex_unlock(&i->map_lock);
	r = x4_meta_reserve(v, meta, root ? X4_ASKS_SYSTEM : X4_ASKS_USER);
	if (r)
		return r;
	r = reserve(i, size, (uint32_t)want, root, &x);
	if (r) {
		x4_meta_unreserve(v, meta);
		return r;
	}
	fdio_mutex_lock(&i->map_lock);
	__atomic_store_n(&i->data.win_lblk, x.lblk, __ATOMIC_RELEASE); /* unsettled() may be asked by somebody who saw the last window */
	i->data.win_len = x.len;
	i->data.win_pblk = x.pblk;
	i->data.win_meta = meta;
	x4_map_apply(i, &x);
	__atomic_store_n(&i->win_pub, size, __ATOMIC_SEQ_CST);
	__atomic_store_n(&i->data.win_end, (uint64_t)(x.lblk + x.len) << v->block_bits, __ATOMIC_RELEASE);
	fdio_mutex_unlock(&i->map_lock);
	__atomic_add_fetch(&v->data.win_blocks, x.len, __ATOMIC_RELAXED);
	list_window(i);
	return 0;
}

/* ---- settling ---- */

/* The tree may have become deeper: the next insert may need more. Best effort: what is set aside already stays. */
static void refresh_meta(struct x4_inode *i)
{
	unsigned meta = x4_extent_meta_for(i, 1);

	if (meta > i->data.win_meta && !x4_meta_reserve(i->vol, meta - i->data.win_meta, X4_ASKS_SYSTEM))
		i->data.win_meta = meta;
}

static int settle_locked(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	struct x4_ext x = { i->data.win_lblk, x4_window_unsettled(i), i->data.win_pblk, X4_EXT_WRITTEN };
	struct jnl_handle *h;
	int r;

	if (!x.len)
		return 0;
	FDIO_ASSERT(x.len <= i->data.win_len);
	refresh_meta(i);
	r = jnl_begin(v->jnl, x4_insert_credits(i, &x), &h);
	if (r)
		return r;
	r = x4_inode_begin(h, i);
	if (!r)
		r = x4_balloc_claim(h, i, x.pblk, x.len);
	if (!r)
		r = x4_extent_insert(h, i, x.lblk, x.len, x.pblk, false);
	if (!r) {
		/* The times are those of the writes: noted then, folded in by x4_inode_begin. */
		fdio_mutex_lock(&i->attr);
		x4_raw_set_size(i, x4_ext_end(&x) << v->block_bits);
		fdio_mutex_unlock(&i->attr);
		r = x4_inode_dirty(h, i, true);
	}
	if (r) {
		jnl_cancel(h);
		return r;
	}
	__atomic_store_n(&i->data.win_lblk, x.lblk + x.len, __ATOMIC_RELEASE);
	i->data.win_len -= x.len;
	i->data.win_pblk += x.len;
	jnl_end(h);
	__atomic_sub_fetch(&v->data.win_blocks, x.len, __ATOMIC_RELAXED);
	fdio_count(CTR_x4_window_settled);
	return 0;
}

int x4_window_settle(struct x4_inode *i)
{
	int r;

	if (!x4_window_unsettled(i))
		return 0;
	fdio_mutex_lock(&i->map_lock);
	r = settle_locked(i);
	fdio_mutex_unlock(&i->map_lock);
	return r;
}

int x4_windows_settle(struct x4_vol *v)
{
	unsigned n = x4_windows_count(v);
	int err = 0;

	while (n--) {
		struct x4_inode *i = x4_windows_next(v);
		int r;

		if (!i)
			break;
		r = x4_window_settle(i);
		err = err ? err : r;
		x4_iput(i);
	}
	return err;
}

/* ---- closing ---- */

int x4_window_lost(struct x4_inode *i, bool clear)
{
	int err = __atomic_load_n(&i->data.win_lost, __ATOMIC_ACQUIRE);

	return err && clear ? __atomic_exchange_n(&i->data.win_lost, 0, __ATOMIC_ACQ_REL) : err;
}

int x4_window_close(struct x4_inode *i, void (*drain)(void *arg), void *arg)
{
	struct x4_vol *v = i->vol;
	uint64_t left_blk;
	uint32_t left;
	unsigned meta;
	int r;

	if (!x4_window_end(i))
		return 0;
	fdio_mutex_lock(&i->map_lock);
	r = settle_locked(i);
	left = i->data.win_len;
	left_blk = i->data.win_pblk;
	meta = i->data.win_meta;
	__atomic_store_n(&i->data.win_end, 0, __ATOMIC_RELEASE);
	__atomic_store_n(&i->win_pub, 0, __ATOMIC_SEQ_CST);
	i->data.win_len = 0;
	i->data.win_meta = 0;
	if (r) {
		log_err("inode %u: %llu bytes that were appended are lost: %s", i->ino,
			(unsigned long long)(x4_inode_size(i) - x4_raw_size(i)), strerror(-r));
		fdio_mutex_lock(&i->attr);
		x4_size_store(i, x4_raw_size(i));
		fdio_mutex_unlock(&i->attr);
		__atomic_store_n(&i->data.win_lost, r == -EROFS ? r : -EIO, __ATOMIC_RELEASE);
	}
	if (left)
		x4_map_apply(i, &(struct x4_ext){ .lblk = i->data.win_lblk, .len = left, .state = X4_EXT_HOLE });
	fdio_mutex_unlock(&i->map_lock);
	unlist_window(i);
	if (r && drain)
		drain(arg);
	__atomic_sub_fetch(&v->data.win_blocks, left, __ATOMIC_RELAXED);
	if (left) {
		x4_balloc_unreserve(v, left_blk, left);
		x4_balloc_next(i, left_blk);
	}
	x4_meta_unreserve(v, meta);
	return r;
}
