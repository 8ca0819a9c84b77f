/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inode cache: one struct for each inode in use, found by number, with references. Any thread
 * may look up and reference; loading and deleting block and belong to workers.
 *
 * Life: loading (one thread reads, others wait) -> live, referenced -> live, unreferenced, on the
 * LRU (the oldest beyond ilru_max are freed) or, if it has no name any more, evicting (the thread
 * that dropped the last reference deletes it; lookups say -ENOENT) -> unhashed, freed. A struct
 * that still stands on the stack of lazily changed times when it should be freed becomes a zombie:
 * whoever takes it from there frees it.
 *
 * icache_lock guards hash, LRU, refs and the state bits. Nothing blocks under it.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/disk_inode.h"

#include "base/counters.h"
#include "base/nowait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define IHASH_BITS 14
/* Inodes and buckets looked at in one hold of the lock. */
#define WALK_LOOK 2048u
/* What a loop thread deletes at most in so long. */
#define NOWAIT_EVICTIONS 8u
#define NOWAIT_EVICT_NS 200000u

static struct list *bucket(struct ext4_vol *vol, uint32_t ino)
{
	return &vol->inode.hash[(ino * 2654435761U) >> (32 - vol->inode.hash_bits)];
}

int ext4_inode_cache_init(struct ext4_vol *vol)
{
	vol->inode.hash_bits = IHASH_BITS;
	vol->inode.hash = calloc((size_t)1 << IHASH_BITS, sizeof(*vol->inode.hash));
	if (!vol->inode.hash)
		return -ENOMEM;
	for (size_t n = 0; n < (size_t)1 << IHASH_BITS; n++)
		list_init(&vol->inode.hash[n]);
	list_init(&vol->inode.lru);
	list_init(&vol->inode.reap);
	vol->inode.nr_cached = vol->inode.lru_len = 0;
	vol->inode.lru_max =
			(unsigned)FDIO_MIN(vol->options.cache_bytes / 4096 + 1024, (size_t)65536);
	return 0;
}

struct ext4_inode *ext4_inode_alloc(struct ext4_vol *vol, uint32_t ino)
{
	struct ext4_inode *inode = calloc(1, sizeof(*inode));

	if (!inode)
		return NULL;
	inode->raw = calloc(1, FDIO_MAX(vol->inode_size, 256U));
	if (!inode->raw) {
		free(inode);
		return NULL;
	}
	fdio_magic_set(inode, MAGIC_EXT4_INODE);
	inode->vol = vol;
	inode->ino = ino;
	inode->inode.refs = 1;
	list_init(&inode->inode.hash);
	list_init(&inode->inode.lru);
	list_init(&inode->inode.orphan);
	fdio_rwlock_init(&inode->rw, RANK_EXT4_INODE);
	fdio_mutex_init(&inode->map_lock, RANK_EXT4_MAP);
	fdio_mutex_init(&inode->attr, RANK_EXT4_ATTR);
	return inode;
}

/* No lock held: the destructor of the rooms above may take theirs. */
void ext4_inode_free(struct ext4_inode *inode)
{
	void *upper = __atomic_load_n(&inode->inode.upper, __ATOMIC_ACQUIRE);

	fdio_magic_clear(inode, MAGIC_EXT4_INODE);
	if (upper && inode->inode.upper_dtor)
		inode->inode.upper_dtor(upper);
	inode->vol->inode.forget_map(inode);
	inode->vol->inode.forget_names(inode);
	fdio_rwlock_fini(&inode->rw);
	fdio_mutex_fini(&inode->map_lock);
	fdio_mutex_fini(&inode->attr);
	free(inode->raw);
	free(inode);
}

/* ------------------------------------------------------------------ hash; icache_lock held */
static struct ext4_inode *find(struct ext4_vol *vol, uint32_t ino)
{
	struct ext4_inode *inode;

	list_for_each(inode, bucket(vol, ino), inode.hash)
		if (inode->ino == ino)
			return inode;
	return NULL;
}

static void hash_add(struct ext4_inode *inode)
{
	list_add(bucket(inode->vol, inode->ino), &inode->inode.hash);
	inode->vol->inode.nr_cached++;
}

static void hash_del(struct ext4_inode *inode)
{
	if (list_empty(&inode->inode.hash))
		return;
	list_del(&inode->inode.hash);
	inode->vol->inode.nr_cached--;
	pthread_cond_broadcast(&inode->vol->inode.cond);
}

static void ref_locked(struct ext4_inode *inode)
{
	if (inode->inode.refs++ == 0 && !list_empty(&inode->inode.lru)) {
		list_del(&inode->inode.lru);
		inode->vol->inode.lru_len--;
	}
}

/* True if the caller frees it; false: the stack of lazy times still holds it. */
static bool may_free(struct ext4_inode *inode)
{
	hash_del(inode);
	inode->inode.zombie = __atomic_load_n(&inode->inode.lazy_queued, __ATOMIC_SEQ_CST) != 0;
	return !inode->inode.zombie;
}

void ext4_inode_unhash(struct ext4_inode *inode)
{
	fdio_mutex_lock(&inode->vol->inode.lock);
	hash_del(inode);
	fdio_mutex_unlock(&inode->vol->inode.lock);
}

int ext4_inode_hash_new(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	struct ext4_inode *old;

	fdio_mutex_lock(&vol->inode.lock);
	/*
	 * Its predecessor is unhashed before the handle that frees the number ends; what may still
	 * be there is a reader that is about to find the number unused: a loop thread does not wait
	 * for it.
	 */
	while ((old = find(vol, inode->ino)) && old->inode.loading && !nowait_on())
		fdio_cond_wait(&vol->inode.cond, &vol->inode.lock);
	if (!old)
		hash_add(inode);
	fdio_mutex_unlock(&vol->inode.lock);
	return old ? EXT4_CORRUPT(vol, inode->ino, 0, "the inode is in use, but free in the bitmap")
		   : 0;
}

/*
 * An inode that leaves memory takes along what fsync has to wait for (ext4_sync_tid): its
 * transaction need not be durable. So whatever is read again waits for the newest of these,
 * fdatasync too: data that was not flushed is older than the times written for it.
 */
static void tid_leaves(const struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;

	if (!inode->inode.has_sync_tid ||
	    (vol->inode.has_gone_tid &&
	     journal_tid_geq(vol->inode.gone_tid, inode->inode.sync_tid)))
		return;
	vol->inode.gone_tid = inode->inode.sync_tid;
	vol->inode.has_gone_tid = true;
}

static void tid_inherits(struct ext4_inode *inode)
{
	inode->inode.sync_tid = inode->inode.datasync_tid = inode->vol->inode.gone_tid;
	inode->inode.has_sync_tid = inode->inode.has_datasync_tid = inode->vol->inode.has_gone_tid;
}

/*
 * Frees the oldest unreferenced inodes beyond the bound. icache_lock held; collects them in dead.
 */
static void shrink(struct ext4_vol *vol, struct list *dead)
{
	unsigned look = vol->inode.lru_len;

	while (vol->inode.lru_len > vol->inode.lru_max && look-- > 0) {
		struct ext4_inode *inode =
				list_first(&vol->inode.lru, struct ext4_inode, inode.lru);

		/* Its times are not written yet, or the orphan list goes through it: later. */
		if (__atomic_load_n(&inode->inode.lazy_queued, __ATOMIC_SEQ_CST) ||
		    __atomic_load_n(&inode->inode.on_orphans, __ATOMIC_RELAXED)) {
			list_move_tail(&vol->inode.lru, &inode->inode.lru);
			continue;
		}
		list_del(&inode->inode.lru);
		vol->inode.lru_len--;
		tid_leaves(inode);
		hash_del(inode);
		list_add_tail(dead, &inode->inode.lru);
	}
}

static void free_list(struct list *dead)
{
	while (!list_empty(dead)) {
		struct ext4_inode *inode = list_first(dead, struct ext4_inode, inode.lru);

		list_del(&inode->inode.lru);
		ext4_inode_free(inode);
	}
}

/* ------------------------------------------------------------------ get */
/* icache_lock held, inode found: a reference once it is loaded. Drops the lock. */
static int get_found(struct ext4_vol *vol, struct ext4_inode *inode, struct ext4_inode **ret)
{
	bool bad;

	if (inode->inode.evicting) {
		fdio_mutex_unlock(&vol->inode.lock);
		return -ENOENT;
	}
	if (inode->inode.loading && nowait_on()) {
		fdio_mutex_unlock(&vol->inode.lock);
		return nowait_miss();
	}
	ref_locked(inode);
	while (inode->inode.loading)
		fdio_cond_wait(&vol->inode.cond, &vol->inode.lock);
	bad = inode->inode.bad;
	fdio_mutex_unlock(&vol->inode.lock);
	if (bad) {
		ext4_inode_put(inode);
		return -ENOENT;
	}
	*ret = inode;
	return 0;
}

static int load(struct ext4_vol *vol, uint32_t ino, bool special, struct ext4_inode **ret)
{
	struct ext4_inode *inode, *mine = ext4_inode_alloc(vol, ino);
	int err;

	if (!mine)
		return -ENOMEM;
	mine->inode.loading = true;
	fdio_mutex_lock(&vol->inode.lock);
	inode = find(vol, ino);
	if (inode) {
		err = get_found(vol, inode, ret);
		ext4_inode_free(mine);
		return err;
	}
	tid_inherits(mine);
	hash_add(mine);
	fdio_mutex_unlock(&vol->inode.lock);
	err = ext4_inode_read(mine, special);
	fdio_mutex_lock(&vol->inode.lock);
	mine->inode.loading = false;
	if (err) {
		mine->inode.bad = true;
		hash_del(mine);
	}
	pthread_cond_broadcast(&vol->inode.cond);
	fdio_mutex_unlock(&vol->inode.lock);
	if (err)
		ext4_inode_put(mine);
	else
		*ret = mine;
	return err;
}

static int get(struct ext4_vol *vol, uint32_t ino, bool special, struct ext4_inode **ret)
{
	struct journal_buffer *pin = NULL;
	struct ext4_inode *inode;
	uint32_t off;
	int err;

	fdio_mutex_lock(&vol->inode.lock);
	inode = find(vol, ino);
	if (inode)
		return get_found(vol, inode, ret);
	fdio_mutex_unlock(&vol->inode.lock);
	/*
	 * Who waits for a number that is being loaded takes a failure for damage: so before that it
	 * is made sure that nothing misses.
	 */
	if (nowait_on())
		err = ext4_above_mark(vol, ino)
				      ? nowait_miss()
				      : journal_read_block(vol->journal,
							   ext4_itable_place(vol, ino, &off), &pin);
	else
		err = 0;
	if (!err)
		err = load(vol, ino, special, ret);
	journal_buffer_release(pin);
	return err;
}

/* Of an extended attribute: no file that anybody may reach. */
static bool holds_value(struct ext4_inode *inode)
{
	return inode->vol->has_ea_inode && (ext4_inode_flags(inode) & EXT4_EA_INODE_FL);
}

int ext4_inode_get(struct ext4_vol *vol, uint32_t ino, const uint32_t *gen, struct ext4_inode **ret)
{
	int err;

	if (ino == 0 || ino > vol->nr_inodes ||
	    (ino < vol->first_ino && ino != EXT4_ROOT_INO && !vol->mounting))
		return -ENOENT;
	err = get(vol, ino, vol->mounting, ret);
	if (!err && ((gen && (*ret)->gen != *gen) || holds_value(*ret))) {
		ext4_inode_put(*ret);
		return -ESTALE;
	}
	return err;
}

int ext4_inode_get_special(struct ext4_vol *vol, uint32_t ino, struct ext4_inode **ret)
{
	return ino == 0 || ino > vol->nr_inodes ? -ENOENT : get(vol, ino, true, ret);
}

static bool nameless(const struct ext4_inode *inode)
{
	return !inode->inode.bad && !inode->inode.loading &&
	       __atomic_load_n(&inode->nlink, __ATOMIC_RELAXED) == 0;
}

int ext4_inode_get_value(struct ext4_vol *vol, uint32_t ino, struct ext4_inode **ret)
{
	struct ext4_inode *inode;
	bool gone;

	if (ino < vol->first_ino || ino > vol->nr_inodes)
		return -ENOENT;
	fdio_mutex_lock(&vol->inode.lock);
	inode = find(vol, ino);
	gone = inode && nameless(inode);
	fdio_mutex_unlock(&vol->inode.lock);
	return gone ? -ENOENT : get(vol, ino, false, ret);
}

struct ext4_inode *ext4_inode_get_cached(struct ext4_vol *vol, uint32_t ino)
{
	struct ext4_inode *inode;

	fdio_mutex_lock(&vol->inode.lock);
	inode = find(vol, ino);
	if (inode && (inode->inode.loading || inode->inode.evicting || inode->inode.bad))
		inode = NULL;
	if (inode)
		ref_locked(inode);
	fdio_mutex_unlock(&vol->inode.lock);
	return inode;
}

struct ext4_inode *ext4_inode_ref(struct ext4_inode *inode)
{
	fdio_mutex_lock(&inode->vol->inode.lock);
	FDIO_ASSERT(inode->inode.refs > 0);
	inode->inode.refs++;
	fdio_mutex_unlock(&inode->vol->inode.lock);
	return inode;
}

void ext4_lookups_add(struct ext4_inode *inode, uint64_t n)
{
	__atomic_add_fetch(&inode->inode.lookups, n, __ATOMIC_RELAXED);
}

uint64_t ext4_lookups_sub(struct ext4_inode *inode, uint64_t n)
{
	uint64_t have = __atomic_load_n(&inode->inode.lookups, __ATOMIC_RELAXED);

	while (!__atomic_compare_exchange_n(&inode->inode.lookups, &have, have - FDIO_MIN(have, n),
					    true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	return FDIO_MIN(have, n);
}

/* ------------------------------------------------------------------ put */
/* The deletion is over (or had to be left to the next mount): the struct goes. */
static void after_evict(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	bool mine;

	fdio_mutex_lock(&vol->inode.lock);
	mine = may_free(inode);
	fdio_mutex_unlock(&vol->inode.lock);
	if (mine)
		ext4_inode_free(inode);
}

static void evict_over(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;

	__atomic_add_fetch(&vol->inode.nr_evicted, 1, __ATOMIC_SEQ_CST);
	__atomic_sub_fetch(&vol->inode.nr_evicting, 1, __ATOMIC_SEQ_CST);
	/* On failure it stays on the orphan list on disk, where the next mount finds it. */
	if (!__atomic_load_n(&inode->inode.on_orphans, __ATOMIC_RELAXED))
		after_evict(inode);
}

/* Life has said how. */
static int evict(struct ext4_inode *inode) { return inode->vol->inode.evict(inode); }

static void evict_now(struct ext4_inode *inode)
{
	nowait_ignore(evict(inode));
	evict_over(inode);
}

/*
 * A loop thread deletes what is small and in memory, a few in a while; a worker the others. Whether
 * or not is nothing to its caller (NOWAIT-4).
 */
static bool evict_tried(struct ext4_inode *inode)
{
	static __thread uint64_t since;
	static __thread unsigned nr;
	struct nowait saved = nowait_save();
	uint64_t now = fdio_now_ns();
	int err;

	if (now - since > NOWAIT_EVICT_NS) {
		since = now;
		nr = 0;
	}
	if (nr++ >= NOWAIT_EVICTIONS)
		return false;
	nowait_self.missed = false;
	err = evict(inode);
	err = nowait_err(err);
	nowait_restore(saved);
	if (err == -EAGAIN)
		return false;
	evict_over(inode);
	return true;
}

static void evict_soon(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	bool wake;

	if (evict_tried(inode))
		return;
	fdio_count(COUNTER_ext4_reaped);
	fdio_mutex_lock(&vol->inode.lock);
	wake = list_empty(&vol->inode.reap);
	list_add_tail(&vol->inode.reap, &inode->inode.lru);
	__atomic_add_fetch(&vol->inode.nr_reap, 1, __ATOMIC_SEQ_CST);
	fdio_mutex_unlock(&vol->inode.lock);
	if (wake && vol->inode.reaper)
		vol->inode.reaper(vol->inode.reaper_arg);
}

void ext4_inode_put_many(struct ext4_inode *inode, uint64_t n)
{
	struct ext4_vol *vol = inode->vol;
	struct list dead;
	bool evict = false, drop = false;

	list_init(&dead);
	fdio_mutex_lock(&vol->inode.lock);
	FDIO_ASSERT(inode->inode.refs >= n);
	inode->inode.refs -= n;
	if (inode->inode.refs == 0) {
		if (inode->inode.bad) {
			drop = may_free(inode);
		} else if (nameless(inode) && !ext4_vol_read_only(vol)) {
			evict = inode->inode.evicting = true;
			__atomic_add_fetch(&vol->inode.nr_evicting, 1, __ATOMIC_SEQ_CST);
		} else {
			list_add_tail(&vol->inode.lru, &inode->inode.lru);
			vol->inode.lru_len++;
			shrink(vol, &dead);
		}
	}
	fdio_mutex_unlock(&vol->inode.lock);
	free_list(&dead);
	if (drop)
		ext4_inode_free(inode);
	if (evict && !nowait_on())
		evict_now(inode);
	else if (evict)
		evict_soon(inode);
}

void ext4_vol_set_reaper(struct ext4_vol *vol, void (*fn)(void *arg), void *arg)
{
	vol->inode.reaper_arg = arg;
	vol->inode.reaper = fn;
}

void ext4_vol_reap(struct ext4_vol *vol)
{
	for (;;) {
		struct ext4_inode *inode = NULL;
		bool more;

		if (!__atomic_load_n(&vol->inode.nr_reap, __ATOMIC_SEQ_CST))
			return;
		fdio_mutex_lock(&vol->inode.lock);
		if (!list_empty(&vol->inode.reap)) {
			inode = list_first(&vol->inode.reap, struct ext4_inode, inode.lru);
			list_del(&inode->inode.lru);
			__atomic_sub_fetch(&vol->inode.nr_reap, 1, __ATOMIC_SEQ_CST);
		}
		more = !list_empty(&vol->inode.reap);
		fdio_mutex_unlock(&vol->inode.lock);
		if (more && vol->inode.reaper) /* this one may be large */
			vol->inode.reaper(vol->inode.reaper_arg);
		if (inode)
			evict_now(inode);
	}
}

/* ------------------------------------------------------------------ a walk */
/* icache_lock held. */
static bool walks_to(struct ext4_inode *inode)
{
	if (inode->inode.loading || inode->inode.evicting || inode->inode.bad)
		return false;
	/* A new inode is changed without its locks: nobody else knows it, but for this list. */
	return !__atomic_load_n(&inode->inode.begun, __ATOMIC_ACQUIRE);
}

unsigned ext4_inode_cache_walk(struct ext4_vol *vol, const struct ext4_walk *w, uint32_t *left,
			struct ext4_inode **ret, unsigned max)
{
	unsigned n = 0, looked = 0;
	struct ext4_inode *inode;

	fdio_mutex_lock(&vol->inode.lock);
	for (; *left && n < max && looked++ < WALK_LOOK; --*left) {
		list_for_each(inode, &vol->inode.hash[vol->inode.walk_hand], inode.hash) {
			looked++;
			if (n == max || !walks_to(inode) ||
			    !w->wanted(inode, inode->inode.refs > 0, w->arg))
				continue;
			if (inode->inode.refs) {
				ref_locked(inode);
				ret[n++] = inode;
				continue;
			}
			/* Nobody can come to it but through here. */
			w->unreferenced(inode, w->arg);
		}
		vol->inode.walk_hand =
				(vol->inode.walk_hand + 1) & ((1U << vol->inode.hash_bits) - 1);
	}
	fdio_mutex_unlock(&vol->inode.lock);
	return n;
}

uint32_t ext4_inode_cache_walk_length(const struct ext4_vol *vol)
{
	return 1U << vol->inode.hash_bits;
}

/* ------------------------------------------------------------------ end of the volume */
/* The next inode that nobody has deleted yet although it has no name; marked as being evicted. */
static struct ext4_inode *next_nameless(struct ext4_vol *vol)
{
	struct ext4_inode *inode, *found = NULL;

	fdio_mutex_lock(&vol->inode.lock);
	for (size_t n = 0; n < (size_t)1 << vol->inode.hash_bits && !found; n++)
		list_for_each(inode, &vol->inode.hash[n], inode.hash)
			if (nameless(inode) && !inode->inode.evicting) {
				inode->inode.evicting = true;
				found = inode;
				break;
			}
	fdio_mutex_unlock(&vol->inode.lock);
	return found;
}

void ext4_inode_cache_evict_unlinked(struct ext4_vol *vol)
{
	struct ext4_inode *inode;

	while (!ext4_vol_read_only(vol) && (inode = next_nameless(vol)) != NULL) {
		if (!list_empty(&inode->inode.lru)) {
			list_del(&inode->inode.lru);
			vol->inode.lru_len--;
		}
		nowait_ignore(evict(inode));
		if (!__atomic_load_n(&inode->inode.on_orphans, __ATOMIC_RELAXED))
			after_evict(inode);
	}
}

/* Single-threaded: everyone else has gone. */
void ext4_inode_cache_fini(struct ext4_vol *vol)
{
	struct ext4_inode *inode, *next;

	if (!vol->inode.hash)
		return;
	/* Zombies are in no hash: the stack is the only way to them. */
	for (inode = __atomic_exchange_n(&vol->inode.lazy_head, NULL, __ATOMIC_ACQUIRE); inode;
	     inode = next) {
		next = inode->inode.lazy_next;
		inode->inode.lazy_queued = 0;
		if (inode->inode.zombie)
			ext4_inode_free(inode);
	}
	for (size_t n = 0; n < (size_t)1 << vol->inode.hash_bits; n++)
		list_for_each_safe(inode, next, &vol->inode.hash[n], inode.hash) {
			list_del(&inode->inode.hash);
			list_del(&inode->inode.lru);
			ext4_inode_free(inode);
		}
	free(vol->inode.hash);
	vol->inode.hash = NULL;
}

/* ------------------------------------------------------------------ plain access */
uint32_t ext4_inode_ino(const struct ext4_inode *inode) { return inode->ino; }
uint32_t ext4_inode_gen(const struct ext4_inode *inode) { return inode->gen; }
uint32_t ext4_inode_mode(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->mode, __ATOMIC_RELAXED);
}
uint64_t ext4_inode_size(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->size, __ATOMIC_ACQUIRE);
}
struct ext4_vol *ext4_inode_vol(struct ext4_inode *inode) { return inode->vol; }

uint32_t ext4_inode_live_flags(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->live_flags, __ATOMIC_RELAXED);
}

uint32_t ext4_inode_flags(struct ext4_inode *inode)
{
	uint32_t f;

	fdio_mutex_lock(&inode->attr);
	f = inode->raw->i_flags;
	fdio_mutex_unlock(&inode->attr);
	return f;
}

void *ext4_inode_upper(struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->inode.upper, __ATOMIC_ACQUIRE);
}

void *ext4_inode_set_upper(struct ext4_inode *inode, void *p, void (*dtor)(void *))
{
	void *winner;

	fdio_mutex_lock(&inode->attr);
	winner = __atomic_load_n(&inode->inode.upper, __ATOMIC_RELAXED);
	if (!winner) {
		inode->inode.upper_dtor = dtor;
		__atomic_store_n(&inode->inode.upper, p, __ATOMIC_RELEASE);
		winner = p;
	}
	fdio_mutex_unlock(&inode->attr);
	return winner;
}

void ext4_inode_lock_shared(struct ext4_inode *inode) { fdio_rwlock_rdlock(&inode->rw); }
void ext4_inode_lock_exclusive(struct ext4_inode *inode) { fdio_rwlock_wrlock(&inode->rw); }
int ext4_inode_enter_shared(struct ext4_inode *inode) { return fdio_rwlock_rdenter(&inode->rw); }
int ext4_inode_enter_exclusive(struct ext4_inode *inode) { return fdio_rwlock_wrenter(&inode->rw); }
void ext4_inode_unlock(struct ext4_inode *inode) { fdio_rwlock_unlock(&inode->rw); }

/* ------------------------------------------------------------------ the room */
void ext4_inodes_init(struct ext4_vol *vol)
{
	fdio_mutex_init(&vol->inode.lock, RANK_EXT4_ICACHE);
	fdio_cond_init(&vol->inode.cond);
	list_init(&vol->inode.orphans);
}

void ext4_inodes_fini(struct ext4_vol *vol)
{
	fdio_mutex_fini(&vol->inode.lock);
	pthread_cond_destroy(&vol->inode.cond);
}

void ext4_opened(struct ext4_inode *inode, int n)
{
	if (n < 0)
		__atomic_store_n(&inode->inode.left_ns, fdio_now_ns(), __ATOMIC_RELAXED);
	__atomic_add_fetch(&inode->inode.nr_open, (uint32_t)n, __ATOMIC_RELAXED);
}
