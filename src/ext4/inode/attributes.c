/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attributes: times on disk and in memory, getattr, setattr, and what fsync has to wait for.
 *
 * Data I/O changes times without a handle: x4_touch_write/x4_touch_read store the time in the inode
 * (atomics, any thread, never blocking) and put the inode on a lock-free stack once; x4_vol_write_times
 * takes the stack whole and writes each inode in a handle. Whoever opens the inode for change meanwhile
 * folds them in (x4_inode_begin). getattr shows the lazy value while there is one.
 */
#include "ext4/volume/volume.h"

#include "base/nowait.h"

#include <errno.h>
#include <string.h>

#define NS_PER_S 1000000000LL
/* A time is stored again only after this: threads that overwrite one file do not fight for the line. */
#define LAZY_STEP_NS 1000000LL
#define TIME_BATCH 32U

/* Where the parts of a time are; extra is NULL where i_extra_isize does not reach. */
struct time_place { uint32_t *sec, *extra; };

static struct time_place place(const struct x4_inode *i, unsigned which)
{
	struct ext2_inode_large *raw = i->raw;
	struct time_place p = { &raw->i_crtime, &raw->i_crtime_extra };

	if (which == X4_SET_ATIME)
		p = (struct time_place){ &raw->i_atime, &raw->i_atime_extra };
	else if (which == X4_SET_MTIME)
		p = (struct time_place){ &raw->i_mtime, &raw->i_mtime_extra };
	else if (which == X4_SET_CTIME)
		p = (struct time_place){ &raw->i_ctime, &raw->i_ctime_extra };
	if (i->vol->inode_size <= 128 || (size_t)((uint8_t *)(p.extra + 1) - (uint8_t *)raw) > 128U + raw->i_extra_isize)
		p.extra = NULL;
	if ((size_t)((uint8_t *)(p.sec + 1) - (uint8_t *)raw) > (i->vol->inode_size <= 128 ? 128U : 128U + raw->i_extra_isize))
		p.sec = NULL;
	return p;
}

/* which 0: the creation time. */
struct timespec x4_raw_get_time(const struct x4_inode *i, unsigned which)
{
	struct time_place p = place(i, which);
	struct timespec ts = { 0, 0 };

	if (!p.sec)
		return ts;
	ts.tv_sec = (int32_t)*p.sec;
	if (p.extra) {
		ts.tv_sec += (int64_t)(*p.extra & 3) << 32;
		ts.tv_nsec = *p.extra >> 2;
		if (ts.tv_nsec >= NS_PER_S)
			ts.tv_nsec = 0;
	}
	return ts;
}

static void encode_time(const struct x4_inode *i, unsigned which, struct timespec ts)
{
	struct time_place p = place(i, which);
	int64_t max = p.extra ? (int64_t)INT32_MAX + (3LL << 32) : INT32_MAX;

	if (!p.sec)
		return;
	/* At the ends of what can be stored there are no fractions: as the kernel has it. */
	if (ts.tv_sec <= INT32_MIN)
		ts = (struct timespec){ INT32_MIN, 0 };
	if (ts.tv_sec >= max)
		ts = (struct timespec){ (time_t)max, 0 };
	*p.sec = (uint32_t)(int32_t)ts.tv_sec;
	if (p.extra)
		*p.extra = (uint32_t)(((ts.tv_sec - (int32_t)ts.tv_sec) >> 32) & 3) | (uint32_t)ts.tv_nsec << 2;
}

static int64_t *copy_of(struct x4_inode *i, unsigned which)
{
	return which == X4_SET_ATIME ? &i->atime_ns : which == X4_SET_MTIME ? &i->mtime_ns : &i->ctime_ns;
}

/* attr held */
static void store_time(struct x4_inode *i, unsigned which, struct timespec ts)
{
	encode_time(i, which, ts);
	if (which) {
		ts = x4_raw_get_time(i, which); /* clamped */
		__atomic_store_n(copy_of(i, which), x4_time_ns(ts), __ATOMIC_RELAXED);
	}
}

void x4_raw_set_time(struct x4_inode *i, unsigned which, struct timespec ts)
{
	for (unsigned bit = X4_SET_ATIME; bit <= X4_SET_CTIME; bit <<= 1)
		if (which & bit)
			store_time(i, bit, ts);
	/* What was noted lazily before is older than this. */
	if (which & X4_SET_MTIME)
		__atomic_store_n(&i->lazy_wtime_ns, 0, __ATOMIC_RELAXED);
	if (which & X4_SET_ATIME)
		__atomic_store_n(&i->lazy_atime_ns, 0, __ATOMIC_RELAXED);
	if (which == 0)
		store_time(i, 0, ts);
}

void x4_raw_set_born(struct x4_inode *i, struct timespec ts)
{
	x4_raw_set_time(i, X4_SET_ATIME | X4_SET_MTIME | X4_SET_CTIME, ts);
	x4_raw_set_time(i, 0, ts);
}

struct timespec x4_now(struct x4_vol *v)
{
	struct timespec ts;

	dev_now(v->dev, &ts);
	return ts;
}

/* ------------------------------------------------------------------ lazy times */
static struct timespec from_ns(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
}

bool x4_has_lazy(const struct x4_inode *i)
{
	return __atomic_load_n(&i->lazy_wtime_ns, __ATOMIC_RELAXED) || __atomic_load_n(&i->lazy_atime_ns, __ATOMIC_RELAXED);
}

bool x4_fold_lazy(struct x4_inode *i)
{
	uint64_t w = __atomic_exchange_n(&i->lazy_wtime_ns, 0, __ATOMIC_RELAXED);
	uint64_t a = __atomic_exchange_n(&i->lazy_atime_ns, 0, __ATOMIC_RELAXED);

	if (w) {
		store_time(i, X4_SET_MTIME, from_ns(w));
		store_time(i, X4_SET_CTIME, from_ns(w));
	}
	if (a)
		store_time(i, X4_SET_ATIME, from_ns(a));
	return w || a;
}

static void queue_lazy(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	struct x4_inode *head;

	if (__atomic_load_n(&i->lazy_queued, __ATOMIC_SEQ_CST) || __atomic_exchange_n(&i->lazy_queued, 1, __ATOMIC_SEQ_CST))
		return;
	head = __atomic_load_n(&v->lazy_head, __ATOMIC_RELAXED);
	do
		i->lazy_next = head;
	while (!__atomic_compare_exchange_n(&v->lazy_head, &head, i, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
}

void x4_touch_write(struct x4_inode *i)
{
	struct timespec now;
	int64_t ns, old;

	if (x4_vol_read_only(i->vol))
		return;
	now = x4_now(i->vol);
	ns = x4_time_ns(now);
	old = (int64_t)__atomic_load_n(&i->lazy_wtime_ns, __ATOMIC_SEQ_CST);
	if (old && ns >= old && ns - old < LAZY_STEP_NS)
		return;
	__atomic_store_n(&i->lazy_wtime_ns, (uint64_t)ns, __ATOMIC_SEQ_CST);
	queue_lazy(i);
}

/* relatime: only if it would be older than the last change, or a day old. */
static bool atime_wanted(struct x4_inode *i, int64_t ns)
{
	int64_t a = __atomic_load_n(&i->atime_ns, __ATOMIC_RELAXED), w = (int64_t)__atomic_load_n(&i->lazy_wtime_ns, __ATOMIC_RELAXED);
	int64_t lazy = (int64_t)__atomic_load_n(&i->lazy_atime_ns, __ATOMIC_RELAXED);

	if (lazy)
		a = lazy;
	if (i->vol->opt.atime == X4_ATIME_STRICT)
		return a <= ns - LAZY_STEP_NS || ns < a;
	return a <= __atomic_load_n(&i->mtime_ns, __ATOMIC_RELAXED) || a <= __atomic_load_n(&i->ctime_ns, __ATOMIC_RELAXED) ||
	       (w && a <= w) || a <= ns - 86400 * NS_PER_S;
}

void x4_touch_read(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	struct timespec now;
	int64_t ns;

	if (v->opt.atime == X4_ATIME_NOATIME || x4_vol_read_only(v) || (v->opt.nodiratime && S_ISDIR(x4_inode_mode(i))))
		return;
	now = x4_now(v);
	ns = x4_time_ns(now);
	if (!atime_wanted(i, ns) || (x4_inode_flags(i) & (EXT2_NOATIME_FL | EXT2_IMMUTABLE_FL)))
		return;
	__atomic_store_n(&i->lazy_atime_ns, (uint64_t)ns, __ATOMIC_SEQ_CST);
	queue_lazy(i);
}

/*
 * Takes the stack. What comes back is referenced and chained by lazy_next; zombies are freed. lazy_queued is
 * cleared last: from then on the inode may be queued again, so the chain is kept in an array by the caller.
 */
static unsigned take_batch(struct x4_vol *v, struct x4_inode **rest, struct x4_inode *batch[TIME_BATCH])
{
	unsigned n = 0;

	while (*rest && n < TIME_BATCH) {
		struct x4_inode *i = *rest;
		bool zombie, mine;

		*rest = i->lazy_next;
		fdio_mutex_lock(&v->icache_lock);
		zombie = i->zombie;
		/* One that is being deleted needs no times, and whoever deletes it frees it. */
		mine = !zombie && !i->evicting && !i->bad;
		if (mine && i->refs++ == 0 && !list_empty(&i->lru)) {
			list_del(&i->lru);
			v->ilru_len--;
		}
		__atomic_store_n(&i->lazy_queued, 0, __ATOMIC_SEQ_CST);
		fdio_mutex_unlock(&v->icache_lock);
		if (zombie)
			x4_inode_free(i);
		else if (mine)
			batch[n++] = i;
	}
	return n;
}

/* One handle for the batch. An inode that is being deleted needs no times. */
static int write_batch(struct x4_vol *v, struct x4_inode **batch, unsigned n)
{
	struct jnl_handle *h;
	int err = jnl_begin(v->jnl, n * X4_CREDITS_INODE, &h);

	if (err)
		return err;
	for (unsigned k = 0; k < n && !err; k++) {
		if (!x4_has_lazy(batch[k]) || !__atomic_load_n(&batch[k]->nlink, __ATOMIC_RELAXED))
			continue;
		err = x4_inode_begin(h, batch[k]);
		if (!err)
			err = x4_inode_dirty(h, batch[k], false);
	}
	if (err)
		jnl_cancel(h);
	else
		jnl_end(h);
	return err;
}

int x4_vol_write_times(struct x4_vol *v)
{
	struct x4_inode *rest, *batch[TIME_BATCH];
	int err = 0;

	if (x4_vol_read_only(v))
		return 0;
	rest = __atomic_exchange_n(&v->lazy_head, NULL, __ATOMIC_ACQUIRE);
	while (rest) {
		unsigned n = take_batch(v, &rest, batch);
		int e = n ? write_batch(v, batch, n) : 0;

		err = err ? err : e;
		for (unsigned k = 0; k < n; k++) {
			if (e && x4_has_lazy(batch[k]))
				queue_lazy(batch[k]); /* for the next round, if there is one */
			x4_iput(batch[k]);
		}
	}
	return err;
}

/* ------------------------------------------------------------------ getattr */
void x4_getattr(struct x4_inode *i, struct x4_attr *ret)
{
	const struct ext2_inode_large *raw = i->raw;
	uint64_t w, a;

	fdio_mutex_lock(&i->attr);
	ret->ino = i->ino;
	ret->gen = i->gen;
	ret->mode = raw->i_mode;
	ret->nlink = raw->i_links_count;
	ret->uid = raw->i_uid | (uint32_t)raw->osd2.linux2.l_i_uid_high << 16;
	ret->gid = raw->i_gid | (uint32_t)raw->osd2.linux2.l_i_gid_high << 16;
	ret->rdev = x4_raw_rdev(i);
	ret->size = x4_inode_size(i);
	ret->blocks_512 = x4_raw_blocks_512(i) + ((uint64_t)x4_window_unsettled(i) << (i->vol->block_bits - 9));
	/* As the kernel: it has no blocks, but programs take a file without any for one hole. */
	if (S_ISREG(ret->mode) && x4_inode_inline(i))
		ret->blocks_512 += fdio_div_up(ret->size, 512);
	ret->atime = x4_raw_get_time(i, X4_SET_ATIME);
	ret->mtime = x4_raw_get_time(i, X4_SET_MTIME);
	ret->ctime = x4_raw_get_time(i, X4_SET_CTIME);
	ret->btime = x4_raw_get_time(i, 0);
	ret->flags = raw->i_flags;
	w = __atomic_load_n(&i->lazy_wtime_ns, __ATOMIC_RELAXED);
	a = __atomic_load_n(&i->lazy_atime_ns, __ATOMIC_RELAXED);
	fdio_mutex_unlock(&i->attr);
	if (w)
		ret->mtime = ret->ctime = from_ns(w);
	if (a)
		ret->atime = from_ns(a);
}

/* ------------------------------------------------------------------ setattr */
#ifndef FS_NOCOW_FL
#define FS_NOCOW_FL 0x00800000
#endif
#ifndef FS_DAX_FL
#define FS_DAX_FL 0x02000000
#endif
/* What may be changed; flags without an effect here are kept for who knows them, as the kernel does. */
#define SETTABLE_FLAGS                                                                                                         \
	(EXT2_SECRM_FL | EXT2_UNRM_FL | EXT2_COMPR_FL | EXT2_SYNC_FL | EXT2_IMMUTABLE_FL | EXT2_APPEND_FL | EXT2_NODUMP_FL |       \
	 EXT2_NOATIME_FL | EXT2_DIRSYNC_FL | EXT2_TOPDIR_FL | EXT2_NOTAIL_FL | EXT4_PROJINHERIT_FL | FS_DAX_FL)
/* What the kernel could change and this room cannot: data in the journal, block maps, names without case. */
#define REFUSED_FLAGS (EXT3_JOURNAL_DATA_FL | EXT4_EXTENTS_FL | EXT4_CASEFOLD_FL)
/* What may be named at all, as chattr does with what it has read. */
#define VISIBLE_FLAGS 0x725bdfffU

/* -EPERM: an immutable file stays as it is, but for that flag. The inode is locked. */
static int check_flags(struct x4_inode *i, uint32_t flags)
{
	uint32_t old = i->raw->i_flags, mode = x4_inode_mode(i), allowed = UINT32_MAX;

	if (!S_ISDIR(mode))
		allowed = S_ISREG(mode) ? ~(uint32_t)(EXT2_DIRSYNC_FL | EXT2_TOPDIR_FL | EXT4_CASEFOLD_FL | EXT4_PROJINHERIT_FL) :
			EXT2_NODUMP_FL | EXT2_NOATIME_FL;
	if (flags & ~(VISIBLE_FLAGS & allowed))
		return -EOPNOTSUPP;
	if ((old & flags & EXT2_IMMUTABLE_FL) && (old & VISIBLE_FLAGS) != flags)
		return -EPERM;
	return (old ^ flags) & REFUSED_FLAGS ? -EOPNOTSUPP : 0;
}

static int set_flags(struct x4_inode *i, uint32_t flags)
{
	int err = check_flags(i, flags);

	if (err)
		return err;
	fdio_mutex_lock(&i->attr);
	i->raw->i_flags = (i->raw->i_flags & ~SETTABLE_FLAGS) | (flags & SETTABLE_FLAGS);
	__atomic_store_n(&i->live_flags, flags & X4_LIVE_FLAGS, __ATOMIC_RELAXED);
	fdio_mutex_unlock(&i->attr);
	return 0;
}

static void set_owner(struct x4_inode *i, unsigned what, const struct x4_attr *a)
{
	fdio_mutex_lock(&i->attr);
	if (what & X4_SET_UID) {
		i->raw->i_uid = (uint16_t)a->uid;
		i->raw->osd2.linux2.l_i_uid_high = (uint16_t)(a->uid >> 16);
	}
	if (what & X4_SET_GID) {
		i->raw->i_gid = (uint16_t)a->gid;
		i->raw->osd2.linux2.l_i_gid_high = (uint16_t)(a->gid >> 16);
	}
	fdio_mutex_unlock(&i->attr);
}

static uint32_t killed_mode(uint32_t mode, bool sgid)
{
	/* A change of owner strips devices and FIFOs as well; only directories keep theirs. Writes reach regular files alone. */
	if (S_ISDIR(mode))
		return mode;
	return mode & ~(S_ISUID | (sgid || (mode & S_IXGRP) ? (uint32_t)S_ISGID : 0U));
}

static int kill_privs(struct jnl_handle *h, struct x4_inode *i, bool sgid)
{
	uint32_t mode = x4_inode_mode(i);

	fdio_mutex_lock(&i->attr);
	if (killed_mode(mode, sgid) != mode)
		x4_raw_set_mode(i, killed_mode(mode, sgid));
	fdio_mutex_unlock(&i->attr);
	return x4_xattr_kill_caps(h, i);
}

static void set_times(struct x4_inode *i, unsigned what, const struct x4_attr *a)
{
	struct timespec now = x4_now(i->vol);

	fdio_mutex_lock(&i->attr);
	if (what & X4_SET_ATIME)
		x4_raw_set_time(i, X4_SET_ATIME, a->atime);
	if (what & X4_SET_ATIME_NOW)
		x4_raw_set_time(i, X4_SET_ATIME, now);
	if (what & X4_SET_MTIME)
		x4_raw_set_time(i, X4_SET_MTIME, a->mtime);
	if (what & X4_SET_MTIME_NOW)
		x4_raw_set_time(i, X4_SET_MTIME, now);
	x4_raw_set_time(i, X4_SET_CTIME, (what & X4_SET_CTIME) ? a->ctime : now);
	fdio_mutex_unlock(&i->attr);
}

static int apply(struct jnl_handle *h, struct x4_inode *i, unsigned what, const struct x4_attr *a)
{
	int err = x4_inode_begin(h, i);

	if (!err && (what & X4_SET_FLAGS))
		err = set_flags(i, a->flags);
	if (!err && (what & X4_KILL_SUIDGID))
		err = kill_privs(h, i, what & X4_KILL_SGID);
	else if (!err && (what & X4_KILL_CAPS))
		err = x4_xattr_kill_caps(h, i);
	if (!err && (what & X4_SET_MODE)) {
		uint32_t mode = (x4_inode_mode(i) & S_IFMT) | (a->mode & 07777);

		fdio_mutex_lock(&i->attr);
		x4_raw_set_mode(i, mode);
		fdio_mutex_unlock(&i->attr);
		if (i->vol->opt.acl && !S_ISLNK(mode))
			err = x4_acl_chmod(h, i, mode);
	}
	if (err)
		return err;
	set_owner(i, what, a);
	set_times(i, what, a);
	return x4_inode_dirty(h, i, false);
}

/* True if KILL_SUIDGID has nothing to do; remembers it, if that holds whoever asks. The inode is locked. */
static bool nothing_to_kill(struct x4_inode *i, bool sgid)
{
	uint32_t mode = x4_inode_mode(i);
	bool none;

	if (__atomic_load_n(&i->killpriv_cache, __ATOMIC_ACQUIRE) == 1)
		return true;
	none = killed_mode(mode, sgid) == mode && !x4_xattr_has_caps(i);
	if (none && killed_mode(mode, true) == mode)
		__atomic_store_n(&i->killpriv_cache, 1, __ATOMIC_RELEASE);
	return none;
}

bool x4_nothing_to_kill(struct x4_inode *i) { return nothing_to_kill(i, true); }

/* Blocks that it may need: for an ACL that moves out of a block of several inodes, or what is left there. */
static int setattr_reserve(struct x4_inode *i, unsigned what, unsigned *ret_blocks)
{
	enum x4_asks who = what & X4_SET_MODE ? x4_asks(what & X4_BY_ROOT) : X4_ASKS_SYSTEM;
	int err;

	*ret_blocks = what & X4_SET_MODE ? x4_acl_chmod_blocks(i) : 0;
	if (what & (X4_KILL_SUIDGID | X4_KILL_CAPS))
		*ret_blocks += x4_xattr_remove_blocks(i);
	err = *ret_blocks ? x4_meta_reserve(i->vol, *ret_blocks, who) : 0;
	if (err)
		*ret_blocks = 0;
	return err;
}

static int setattr_locked(struct x4_inode *i, unsigned what, const struct x4_attr *a)
{
	struct jnl_handle *h;
	unsigned blocks;
	int err = setattr_reserve(i, what, &blocks);

	if (!err)
		err = jnl_begin(i->vol->jnl, X4_CREDITS_INODE + 2 * X4_CREDITS_XATTR + x4_acl_chmod_credits(i), &h);
	if (!err) {
		err = nowait_err(apply(h, i, what, a));
		if (err)
			jnl_cancel(h);
		else
			jnl_end(h);
	}
	if (blocks)
		x4_meta_unreserve(i->vol, blocks);
	return err;
}

int x4_setattr(struct x4_inode *i, unsigned what, const struct x4_attr *a)
{
	int err = 0;

	if (x4_vol_read_only(i->vol))
		return -EROFS;
	err = x4_inode_enter_excl(i);
	if (err)
		return err;
	if ((what & X4_KILL_SUIDGID) && nothing_to_kill(i, what & X4_KILL_SGID))
		what &= ~(unsigned)X4_KILL_SUIDGID;
	if ((what & X4_KILL_CAPS) && (nothing_to_kill(i, true) || !x4_xattr_has_caps(i)))
		what &= ~(unsigned)X4_KILL_CAPS;
	if (what & ~(unsigned)(X4_KILL_SGID | X4_BY_ROOT))
		err = setattr_locked(i, what, a);
	x4_inode_unlock(i);
	return err;
}

bool x4_needs_killpriv(struct x4_inode *i) { return __atomic_load_n(&i->killpriv_cache, __ATOMIC_ACQUIRE) != 1; }

/* ------------------------------------------------------------------ what fsync waits for */
bool x4_sync_tid_noted(struct x4_inode *i, bool datasync, jnl_tid *ret)
{
	if (!__atomic_load_n(datasync ? &i->has_datasync_tid : &i->has_sync_tid, __ATOMIC_ACQUIRE))
		return false;
	*ret = __atomic_load_n(datasync ? &i->datasync_tid : &i->sync_tid, __ATOMIC_RELAXED);
	return true;
}

bool x4_times_pending(struct x4_inode *i)
{
	return x4_has_lazy(i) && __atomic_load_n(&i->nlink, __ATOMIC_RELAXED) && !x4_vol_read_only(i->vol);
}

bool x4_sync_tid(struct x4_inode *i, bool datasync, jnl_tid *ret)
{
	struct jnl_handle *h;

	if (!datasync && x4_times_pending(i) && !jnl_begin(i->vol->jnl, X4_CREDITS_INODE, &h)) {
		if (x4_inode_begin(h, i) || x4_inode_dirty(h, i, false))
			jnl_cancel(h);
		else
			jnl_end(h);
	}
	return x4_sync_tid_noted(i, datasync, ret);
}
