/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The times of an inode, on disk and in memory, and the transaction that fsync has to wait for.
 *
 * Data I/O changes times without a handle: ext4_touch_write and ext4_touch_read store the time in
 * lazy_wtime_ns or lazy_atime_ns of the inode, which are atomic, and put the inode on the lock-free
 * stack lazy_head, once. ext4_vol_write_times (lazy_times.c) takes the stack whole and writes each
 * inode in a handle. If another handle opens the inode first, ext4_inode_begin folds the noted
 * times into raw.
 *
 * Any thread; nothing here blocks or fails. inode->attr guards the times in raw.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/disk_inode.h"

#include "base/nowait.h"

#include <errno.h>
#include <string.h>

#define NS_PER_S 1000000000LL
/*
 * A noted time is stored again only after this, so that threads that overwrite one file do not
 * fight for its cache line.
 */
#define LAZY_STEP_NS 1000000LL

/*
 * Where the parts of a time lie in raw: seconds, and nanoseconds with two more bits of seconds. A
 * part that i_extra_isize does not reach is NULL.
 */
struct time_place {
	uint32_t *sec, *extra;
};

static struct time_place time_place(const struct ext4_inode *inode, unsigned which)
{
	struct ext2_inode_large *raw = inode->raw;
	struct time_place when = { &raw->i_crtime, &raw->i_crtime_extra };
	bool old = inode->vol->inode_size <= 128; /* without the large part */
	size_t end = old ? 128 : 128U + raw->i_extra_isize;

	if (which == EXT4_SET_ATIME)
		when = (struct time_place){ &raw->i_atime, &raw->i_atime_extra };
	else if (which == EXT4_SET_MTIME)
		when = (struct time_place){ &raw->i_mtime, &raw->i_mtime_extra };
	else if (which == EXT4_SET_CTIME)
		when = (struct time_place){ &raw->i_ctime, &raw->i_ctime_extra };
	if (old || (size_t)((uint8_t *)(when.extra + 1) - (uint8_t *)raw) > end)
		when.extra = NULL;
	if ((size_t)((uint8_t *)(when.sec + 1) - (uint8_t *)raw) > end)
		when.sec = NULL;
	return when;
}

struct timespec ext4_raw_get_time(const struct ext4_inode *inode, unsigned which)
{
	struct time_place when = time_place(inode, which);
	struct timespec ts = { 0, 0 };

	if (!when.sec)
		return ts;
	ts.tv_sec = (int32_t)*when.sec;
	if (when.extra) {
		ts.tv_sec += (int64_t)(*when.extra & 3) << 32;
		ts.tv_nsec = *when.extra >> 2;
		if (ts.tv_nsec >= NS_PER_S)
			ts.tv_nsec = 0;
	}
	return ts;
}

static void encode_time(const struct ext4_inode *inode, unsigned which, struct timespec ts)
{
	struct time_place when = time_place(inode, which);
	int64_t max = when.extra ? (int64_t)INT32_MAX + (3LL << 32) : INT32_MAX;

	if (!when.sec)
		return;
	/* A time beyond the range becomes its end, without a fraction, as the kernel does it. */
	if (ts.tv_sec <= INT32_MIN)
		ts = (struct timespec){ INT32_MIN, 0 };
	if (ts.tv_sec >= max)
		ts = (struct timespec){ (time_t)max, 0 };
	*when.sec = (uint32_t)(int32_t)ts.tv_sec;
	if (when.extra)
		*when.extra = (uint32_t)(((ts.tv_sec - (int32_t)ts.tv_sec) >> 32) & 3) |
			      (uint32_t)ts.tv_nsec << 2;
}

/* The atomic copy of a time of raw; the creation time has none. */
static int64_t *copy_of(struct ext4_inode *inode, unsigned which)
{
	if (which == EXT4_SET_ATIME)
		return &inode->inode.atime_ns;
	return which == EXT4_SET_MTIME ? &inode->inode.mtime_ns : &inode->inode.ctime_ns;
}

/* Stores one time and its copy. inode->attr held. */
static void store_time(struct ext4_inode *inode, unsigned which, struct timespec ts)
{
	encode_time(inode, which, ts);
	if (which) {
		ts = ext4_raw_get_time(inode, which); /* as stored: the range may have cut it */
		__atomic_store_n(copy_of(inode, which), ext4_time_ns(ts), __ATOMIC_RELAXED);
	}
}

void ext4_raw_set_time(struct ext4_inode *inode, unsigned which, struct timespec ts)
{
	for (unsigned bit = EXT4_SET_ATIME; bit <= EXT4_SET_CTIME; bit <<= 1)
		if (which & bit)
			store_time(inode, bit, ts);
	/* A time that data I/O has noted is older than ts. */
	if (which & EXT4_SET_MTIME)
		__atomic_store_n(&inode->inode.lazy_wtime_ns, 0, __ATOMIC_RELAXED);
	if (which & EXT4_SET_ATIME)
		__atomic_store_n(&inode->inode.lazy_atime_ns, 0, __ATOMIC_RELAXED);
	if (which == 0)
		store_time(inode, 0, ts);
}

void ext4_raw_set_born(struct ext4_inode *inode, struct timespec ts)
{
	ext4_raw_set_time(inode, EXT4_SET_ATIME | EXT4_SET_MTIME | EXT4_SET_CTIME, ts);
	ext4_raw_set_time(inode, 0, ts);
}

/* ------------------------------------------------------------------ lazy times */
/*
 * Whoever notes a time stores it and then looks at lazy_queued; lazy_times.c clears lazy_queued and
 * then takes the time. All four accesses are sequentially consistent, so the time is taken, or the
 * inode is queued again.
 */
bool ext4_has_lazy(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->inode.lazy_wtime_ns, __ATOMIC_SEQ_CST) ||
	       __atomic_load_n(&inode->inode.lazy_atime_ns, __ATOMIC_SEQ_CST);
}

bool ext4_fold_lazy(struct ext4_inode *inode)
{
	uint64_t w = __atomic_exchange_n(&inode->inode.lazy_wtime_ns, 0, __ATOMIC_SEQ_CST);
	uint64_t a = __atomic_exchange_n(&inode->inode.lazy_atime_ns, 0, __ATOMIC_SEQ_CST);

	if (w) {
		store_time(inode, EXT4_SET_MTIME, ext4_time_from_ns(w));
		store_time(inode, EXT4_SET_CTIME, ext4_time_from_ns(w));
	}
	if (a)
		store_time(inode, EXT4_SET_ATIME, ext4_time_from_ns(a));
	return w || a;
}

void ext4_queue_lazy(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	struct ext4_inode *head;

	if (__atomic_load_n(&inode->inode.lazy_queued, __ATOMIC_SEQ_CST) ||
	    __atomic_exchange_n(&inode->inode.lazy_queued, 1, __ATOMIC_SEQ_CST))
		return;
	head = __atomic_load_n(&vol->inode.lazy_head, __ATOMIC_RELAXED);
	do
		inode->inode.lazy_next = head;
	while (!__atomic_compare_exchange_n(&vol->inode.lazy_head, &head, inode, true,
					    __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

void ext4_touch_write(struct ext4_inode *inode)
{
	struct timespec now;
	int64_t ns, old;

	if (ext4_vol_read_only(inode->vol))
		return;
	now = ext4_now(inode->vol);
	ns = ext4_time_ns(now);
	old = (int64_t)__atomic_load_n(&inode->inode.lazy_wtime_ns, __ATOMIC_SEQ_CST);
	if (old && ns >= old && ns - old < LAZY_STEP_NS)
		return;
	__atomic_store_n(&inode->inode.lazy_wtime_ns, (uint64_t)ns, __ATOMIC_SEQ_CST);
	ext4_queue_lazy(inode);
}

/*
 * Whether a read at ns changes atime. relatime: only if atime is not newer than the last change of
 * the file, or is a day old.
 */
static bool atime_wanted(struct ext4_inode *inode, int64_t ns)
{
	int64_t a = __atomic_load_n(&inode->inode.atime_ns, __ATOMIC_RELAXED);
	int64_t w = (int64_t)__atomic_load_n(&inode->inode.lazy_wtime_ns, __ATOMIC_RELAXED);
	int64_t lazy = (int64_t)__atomic_load_n(&inode->inode.lazy_atime_ns, __ATOMIC_RELAXED);

	if (lazy)
		a = lazy;
	if (inode->vol->options.atime == EXT4_ATIME_STRICT)
		return a <= ns - LAZY_STEP_NS || ns < a;
	return a <= __atomic_load_n(&inode->inode.mtime_ns, __ATOMIC_RELAXED) ||
	       a <= __atomic_load_n(&inode->inode.ctime_ns, __ATOMIC_RELAXED) || (w && a <= w) ||
	       a <= ns - 86400 * NS_PER_S;
}

void ext4_touch_read(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	struct timespec now;
	int64_t ns;

	if (vol->options.atime == EXT4_ATIME_NOATIME || ext4_vol_read_only(vol) ||
	    (vol->options.nodiratime && S_ISDIR(ext4_inode_mode(inode))))
		return;
	now = ext4_now(vol);
	ns = ext4_time_ns(now);
	if (!atime_wanted(inode, ns) ||
	    (ext4_inode_live_flags(inode) & (EXT4_LIVE_NOATIME | EXT4_LIVE_IMMUTABLE)))
		return;
	__atomic_store_n(&inode->inode.lazy_atime_ns, (uint64_t)ns, __ATOMIC_SEQ_CST);
	ext4_queue_lazy(inode);
}

void ext4_lazy_times(const struct ext4_inode *inode, uint64_t *ret_write, uint64_t *ret_access)
{
	*ret_write = __atomic_load_n(&inode->inode.lazy_wtime_ns, __ATOMIC_RELAXED);
	*ret_access = __atomic_load_n(&inode->inode.lazy_atime_ns, __ATOMIC_RELAXED);
}

bool ext4_times_pending(struct ext4_inode *inode)
{
	return ext4_has_lazy(inode) && __atomic_load_n(&inode->nlink, __ATOMIC_RELAXED) &&
	       !ext4_vol_read_only(inode->vol);
}

/* ------------------------------------------------------------------ what fsync waits for */
bool ext4_sync_tid_noted(struct ext4_inode *inode, bool datasync, journal_tid *ret)
{
	if (!__atomic_load_n(datasync ? &inode->inode.has_datasync_tid : &inode->inode.has_sync_tid,
			     __ATOMIC_ACQUIRE))
		return false;
	*ret = __atomic_load_n(datasync ? &inode->inode.datasync_tid : &inode->inode.sync_tid,
			       __ATOMIC_RELAXED);
	return true;
}
