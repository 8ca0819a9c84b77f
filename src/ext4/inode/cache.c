/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inode cache: one struct for each inode in use, found by number, with references. Any thread may look
 * up and reference; loading and deleting block and belong to workers.
 *
 * Life: loading (one thread reads, others wait) -> live, referenced -> live, unreferenced, on the LRU (the
 * oldest beyond ilru_max are freed) or, if it has no name any more, evicting (the thread that dropped
 * the last reference deletes it; lookups say -ENOENT) -> unhashed, freed. A struct that still stands on
 * the stack of lazily changed times when it should be freed becomes a zombie: whoever takes it from
 * there frees it.
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

static struct list *bucket(struct x4_vol *v, uint32_t ino)
{
	return &v->ihash[(ino * 2654435761U) >> (32 - v->ihash_bits)];
}

int x4_icache_init(struct x4_vol *v)
{
	v->ihash_bits = IHASH_BITS;
	v->ihash = calloc((size_t)1 << IHASH_BITS, sizeof(*v->ihash));
	if (!v->ihash)
		return -ENOMEM;
	for (size_t n = 0; n < (size_t)1 << IHASH_BITS; n++)
		list_init(&v->ihash[n]);
	list_init(&v->ilru);
	list_init(&v->windows);
	list_init(&v->reap);
	v->nr_inodes_cached = v->ilru_len = 0;
	v->ilru_max = (unsigned)FDIO_MIN(v->opt.cache_bytes / 4096 + 1024, (size_t)65536);
	return 0;
}

struct x4_inode *x4_inode_alloc(struct x4_vol *v, uint32_t ino)
{
	struct x4_inode *i = calloc(1, sizeof(*i));

	if (!i)
		return NULL;
	i->raw = calloc(1, FDIO_MAX(v->inode_size, 256U));
	if (!i->raw) {
		free(i);
		return NULL;
	}
	i->vol = v;
	i->ino = ino;
	i->refs = 1;
	list_init(&i->hash);
	list_init(&i->lru);
	list_init(&i->orphan);
	list_init(&i->win_link);
	fdio_rwlock_init(&i->rw, RANK_X4_INODE);
	fdio_mutex_init(&i->map_lock, RANK_X4_MAP);
	fdio_mutex_init(&i->attr, RANK_X4_ATTR);
	return i;
}

/* No lock held: the destructor of the rooms above may take theirs. */
void x4_inode_free(struct x4_inode *i)
{
	void *upper = __atomic_load_n(&i->upper, __ATOMIC_ACQUIRE);

	if (upper && i->upper_dtor)
		i->upper_dtor(upper);
	i->vol->forget_map(i);
	i->vol->forget_names(i);
	fdio_rwlock_fini(&i->rw);
	fdio_mutex_fini(&i->map_lock);
	fdio_mutex_fini(&i->attr);
	free(i->raw);
	free(i);
}

/* ------------------------------------------------------------------ hash; icache_lock held */
static struct x4_inode *find(struct x4_vol *v, uint32_t ino)
{
	struct x4_inode *i;

	list_for_each(i, bucket(v, ino), hash)
		if (i->ino == ino)
			return i;
	return NULL;
}

static void hash_add(struct x4_inode *i)
{
	list_add(bucket(i->vol, i->ino), &i->hash);
	i->vol->nr_inodes_cached++;
}

static void hash_del(struct x4_inode *i)
{
	if (list_empty(&i->hash))
		return;
	list_del(&i->hash);
	i->vol->nr_inodes_cached--;
	pthread_cond_broadcast(&i->vol->icache_cond);
}

static void ref_locked(struct x4_inode *i)
{
	if (i->refs++ == 0 && !list_empty(&i->lru)) {
		list_del(&i->lru);
		i->vol->ilru_len--;
	}
}

/* True if the caller frees it; false: the stack of lazy times still holds it. */
static bool may_free(struct x4_inode *i)
{
	hash_del(i);
	i->zombie = __atomic_load_n(&i->lazy_queued, __ATOMIC_SEQ_CST) != 0;
	return !i->zombie;
}

void x4_inode_unhash(struct x4_inode *i)
{
	fdio_mutex_lock(&i->vol->icache_lock);
	hash_del(i);
	fdio_mutex_unlock(&i->vol->icache_lock);
}

int x4_inode_hash_new(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	struct x4_inode *old;

	fdio_mutex_lock(&v->icache_lock);
	/*
	 * Its predecessor is unhashed before the handle that frees the number ends; what may still be there is a
	 * reader that is about to find the number unused: a loop thread does not wait for it.
	 */
	while ((old = find(v, i->ino)) && old->loading && !nowait_on())
		fdio_cond_wait(&v->icache_cond, &v->icache_lock);
	if (!old)
		hash_add(i);
	fdio_mutex_unlock(&v->icache_lock);
	return old ? X4_CORRUPT(v, i->ino, 0, "the inode is in use, but free in the bitmap") : 0;
}

/*
 * An inode that leaves memory takes along what fsync has to wait for (x4_sync_tid): its transaction need not be durable. So
 * whatever is read again waits for the newest of these, fdatasync too: data that was not flushed is older than the times written
 * for it.
 */
static void tid_leaves(const struct x4_inode *i)
{
	struct x4_vol *v = i->vol;

	if (!i->has_sync_tid || (v->has_gone_tid && jnl_tid_geq(v->gone_tid, i->sync_tid)))
		return;
	v->gone_tid = i->sync_tid;
	v->has_gone_tid = true;
}

static void tid_inherits(struct x4_inode *i)
{
	i->sync_tid = i->datasync_tid = i->vol->gone_tid;
	i->has_sync_tid = i->has_datasync_tid = i->vol->has_gone_tid;
}

/* Frees the oldest unreferenced inodes beyond the bound. icache_lock held; collects them in dead. */
static void shrink(struct x4_vol *v, struct list *dead)
{
	unsigned look = v->ilru_len;

	while (v->ilru_len > v->ilru_max && look-- > 0) {
		struct x4_inode *i = list_first(&v->ilru, struct x4_inode, lru);

		/* Its times are not written yet, or the orphan list goes through it: later. */
		if (__atomic_load_n(&i->lazy_queued, __ATOMIC_SEQ_CST) || __atomic_load_n(&i->on_orphans, __ATOMIC_RELAXED)) {
			list_move_tail(&v->ilru, &i->lru);
			continue;
		}
		list_del(&i->lru);
		v->ilru_len--;
		tid_leaves(i);
		hash_del(i);
		list_add_tail(dead, &i->lru);
	}
}

static void free_list(struct list *dead)
{
	while (!list_empty(dead)) {
		struct x4_inode *i = list_first(dead, struct x4_inode, lru);

		list_del(&i->lru);
		x4_inode_free(i);
	}
}

/* ------------------------------------------------------------------ get */
/* icache_lock held, i found: a reference once it is loaded. Drops the lock. */
static int get_found(struct x4_vol *v, struct x4_inode *i, struct x4_inode **ret)
{
	bool bad;

	if (i->evicting) {
		fdio_mutex_unlock(&v->icache_lock);
		return -ENOENT;
	}
	if (i->loading && nowait_on()) {
		fdio_mutex_unlock(&v->icache_lock);
		return nowait_miss();
	}
	ref_locked(i);
	while (i->loading)
		fdio_cond_wait(&v->icache_cond, &v->icache_lock);
	bad = i->bad;
	fdio_mutex_unlock(&v->icache_lock);
	if (bad) {
		x4_iput(i);
		return -ENOENT;
	}
	*ret = i;
	return 0;
}

static int load(struct x4_vol *v, uint32_t ino, bool special, struct x4_inode **ret)
{
	struct x4_inode *i, *mine = x4_inode_alloc(v, ino);
	int err;

	if (!mine)
		return -ENOMEM;
	mine->loading = true;
	fdio_mutex_lock(&v->icache_lock);
	i = find(v, ino);
	if (i) {
		err = get_found(v, i, ret);
		x4_inode_free(mine);
		return err;
	}
	tid_inherits(mine);
	hash_add(mine);
	fdio_mutex_unlock(&v->icache_lock);
	err = x4_inode_read(mine, special);
	fdio_mutex_lock(&v->icache_lock);
	mine->loading = false;
	if (err) {
		mine->bad = true;
		hash_del(mine);
	}
	pthread_cond_broadcast(&v->icache_cond);
	fdio_mutex_unlock(&v->icache_lock);
	if (err)
		x4_iput(mine);
	else
		*ret = mine;
	return err;
}

static int get(struct x4_vol *v, uint32_t ino, bool special, struct x4_inode **ret)
{
	struct jnl_buf *pin = NULL;
	struct x4_inode *i;
	uint32_t off;
	int err;

	fdio_mutex_lock(&v->icache_lock);
	i = find(v, ino);
	if (i)
		return get_found(v, i, ret);
	fdio_mutex_unlock(&v->icache_lock);
	/* Who waits for a number that is being loaded takes a failure for damage: so before that it is made sure that nothing misses. */
	if (nowait_on())
		err = x4_above_mark(v, ino) ? nowait_miss() : jnl_bread(v->jnl, x4_itable_place(v, ino, &off), &pin);
	else
		err = 0;
	if (!err)
		err = load(v, ino, special, ret);
	jnl_brelse(pin);
	return err;
}

/* Of an extended attribute: no file that anybody may reach. */
static bool holds_value(struct x4_inode *i) { return i->vol->has_ea_inode && (x4_inode_flags(i) & EXT4_EA_INODE_FL); }

int x4_iget(struct x4_vol *v, uint32_t ino, const uint32_t *gen, struct x4_inode **ret)
{
	int err;

	if (ino == 0 || ino > v->nr_inodes || (ino < v->first_ino && ino != X4_ROOT_INO && !v->mounting))
		return -ENOENT;
	err = get(v, ino, v->mounting, ret);
	if (!err && ((gen && (*ret)->gen != *gen) || holds_value(*ret))) {
		x4_iput(*ret);
		return -ESTALE;
	}
	return err;
}

int x4_iget_special(struct x4_vol *v, uint32_t ino, struct x4_inode **ret)
{
	return ino == 0 || ino > v->nr_inodes ? -ENOENT : get(v, ino, true, ret);
}

static bool nameless(const struct x4_inode *i)
{
	return !i->bad && !i->loading && __atomic_load_n(&i->nlink, __ATOMIC_RELAXED) == 0;
}

int x4_iget_value(struct x4_vol *v, uint32_t ino, struct x4_inode **ret)
{
	struct x4_inode *i;
	bool gone;

	if (ino < v->first_ino || ino > v->nr_inodes)
		return -ENOENT;
	fdio_mutex_lock(&v->icache_lock);
	i = find(v, ino);
	gone = i && nameless(i);
	fdio_mutex_unlock(&v->icache_lock);
	return gone ? -ENOENT : get(v, ino, false, ret);
}

struct x4_inode *x4_iget_cached(struct x4_vol *v, uint32_t ino)
{
	struct x4_inode *i;

	fdio_mutex_lock(&v->icache_lock);
	i = find(v, ino);
	if (i && (i->loading || i->evicting || i->bad))
		i = NULL;
	if (i)
		ref_locked(i);
	fdio_mutex_unlock(&v->icache_lock);
	return i;
}

struct x4_inode *x4_iref(struct x4_inode *i)
{
	fdio_mutex_lock(&i->vol->icache_lock);
	FDIO_ASSERT(i->refs > 0);
	i->refs++;
	fdio_mutex_unlock(&i->vol->icache_lock);
	return i;
}

void x4_lookups_add(struct x4_inode *i, uint64_t n) { __atomic_add_fetch(&i->lookups, n, __ATOMIC_RELAXED); }

uint64_t x4_lookups_sub(struct x4_inode *i, uint64_t n)
{
	uint64_t have = __atomic_load_n(&i->lookups, __ATOMIC_RELAXED);

	while (!__atomic_compare_exchange_n(&i->lookups, &have, have - FDIO_MIN(have, n), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	return FDIO_MIN(have, n);
}

/* ------------------------------------------------------------------ put */
/* The deletion is over (or had to be left to the next mount): the struct goes. */
static void after_evict(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	bool mine;

	fdio_mutex_lock(&v->icache_lock);
	mine = may_free(i);
	fdio_mutex_unlock(&v->icache_lock);
	if (mine)
		x4_inode_free(i);
}

static void evict_over(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;

	__atomic_add_fetch(&v->nr_evicted, 1, __ATOMIC_SEQ_CST);
	__atomic_sub_fetch(&v->nr_evicting, 1, __ATOMIC_SEQ_CST);
	/* On failure it stays on the orphan list on disk, where the next mount finds it. */
	if (!__atomic_load_n(&i->on_orphans, __ATOMIC_RELAXED))
		after_evict(i);
}

/* Life has said how. */
static int evict(struct x4_inode *i) { return i->vol->evict(i); }

static void evict_now(struct x4_inode *i)
{
	nowait_ignore(evict(i));
	evict_over(i);
}

/* A loop thread deletes what is small and in memory, a few in a while; a worker the others. Whether or not is nothing to its caller (NOWAIT-4). */
static bool evict_tried(struct x4_inode *i)
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
	err = evict(i);
	err = nowait_err(err);
	nowait_restore(saved);
	if (err == -EAGAIN)
		return false;
	evict_over(i);
	return true;
}

static void evict_soon(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	bool wake;

	if (evict_tried(i))
		return;
	fdio_count(CTR_x4_reaped);
	fdio_mutex_lock(&v->icache_lock);
	wake = list_empty(&v->reap);
	list_add_tail(&v->reap, &i->lru);
	__atomic_add_fetch(&v->nr_reap, 1, __ATOMIC_SEQ_CST);
	fdio_mutex_unlock(&v->icache_lock);
	if (wake && v->reaper)
		v->reaper(v->reaper_arg);
}

void x4_iput_n(struct x4_inode *i, uint64_t n)
{
	struct x4_vol *v = i->vol;
	struct list dead;
	bool evict = false, drop = false;

	list_init(&dead);
	fdio_mutex_lock(&v->icache_lock);
	FDIO_ASSERT(i->refs >= n);
	i->refs -= n;
	if (i->refs == 0) {
		if (i->bad) {
			drop = may_free(i);
		} else if (nameless(i) && !x4_vol_read_only(v)) {
			evict = i->evicting = true;
			__atomic_add_fetch(&v->nr_evicting, 1, __ATOMIC_SEQ_CST);
		} else {
			list_add_tail(&v->ilru, &i->lru);
			v->ilru_len++;
			shrink(v, &dead);
		}
	}
	fdio_mutex_unlock(&v->icache_lock);
	free_list(&dead);
	if (drop)
		x4_inode_free(i);
	if (evict && !nowait_on())
		evict_now(i);
	else if (evict)
		evict_soon(i);
}

void x4_vol_set_reaper(struct x4_vol *v, void (*fn)(void *arg), void *arg)
{
	v->reaper_arg = arg;
	v->reaper = fn;
}

void x4_vol_reap(struct x4_vol *v)
{
	for (;;) {
		struct x4_inode *i = NULL;
		bool more;

		if (!__atomic_load_n(&v->nr_reap, __ATOMIC_SEQ_CST))
			return;
		fdio_mutex_lock(&v->icache_lock);
		if (!list_empty(&v->reap)) {
			i = list_first(&v->reap, struct x4_inode, lru);
			list_del(&i->lru);
			__atomic_sub_fetch(&v->nr_reap, 1, __ATOMIC_SEQ_CST);
		}
		more = !list_empty(&v->reap);
		fdio_mutex_unlock(&v->icache_lock);
		if (more && v->reaper) /* this one may be large */
			v->reaper(v->reaper_arg);
		if (i)
			evict_now(i);
	}
}

/* ------------------------------------------------------------------ a walk */
/* icache_lock held. */
static bool walks_to(struct x4_inode *i)
{
	if (i->loading || i->evicting || i->bad)
		return false;
	/* A new inode is changed without its locks: nobody else knows it, but for this list. */
	return !__atomic_load_n(&i->begun, __ATOMIC_ACQUIRE);
}

unsigned x4_icache_walk(struct x4_vol *v, const struct x4_walk *w, uint32_t *left,
			struct x4_inode **ret, unsigned max)
{
	unsigned n = 0, looked = 0;
	struct x4_inode *i;

	fdio_mutex_lock(&v->icache_lock);
	for (; *left && n < max && looked++ < WALK_LOOK; --*left) {
		list_for_each(i, &v->ihash[v->walk_hand], hash) {
			looked++;
			if (n == max || !walks_to(i) || !w->wanted(i, i->refs > 0, w->arg))
				continue;
			if (i->refs) {
				ref_locked(i);
				ret[n++] = i;
				continue;
			}
			/* Nobody can come to it but through here. */
			w->unreferenced(i, w->arg);
		}
		v->walk_hand = (v->walk_hand + 1) & ((1U << v->ihash_bits) - 1);
	}
	fdio_mutex_unlock(&v->icache_lock);
	return n;
}

uint32_t x4_icache_walk_length(const struct x4_vol *v) { return 1U << v->ihash_bits; }

/* ------------------------------------------------------------------ end of the volume */
/* The next inode that nobody has deleted yet although it has no name; marked as being evicted. */
static struct x4_inode *next_nameless(struct x4_vol *v)
{
	struct x4_inode *i, *found = NULL;

	fdio_mutex_lock(&v->icache_lock);
	for (size_t n = 0; n < (size_t)1 << v->ihash_bits && !found; n++)
		list_for_each(i, &v->ihash[n], hash)
			if (nameless(i) && !i->evicting) {
				i->evicting = true;
				found = i;
				break;
			}
	fdio_mutex_unlock(&v->icache_lock);
	return found;
}

void x4_icache_evict_unlinked(struct x4_vol *v)
{
	struct x4_inode *i;

	while (!x4_vol_read_only(v) && (i = next_nameless(v)) != NULL) {
		if (!list_empty(&i->lru)) {
			list_del(&i->lru);
			v->ilru_len--;
		}
		nowait_ignore(evict(i));
		if (!__atomic_load_n(&i->on_orphans, __ATOMIC_RELAXED))
			after_evict(i);
	}
}

/* Single-threaded: everyone else has gone. */
void x4_icache_fini(struct x4_vol *v)
{
	struct x4_inode *i, *next;

	if (!v->ihash)
		return;
	/* Zombies are in no hash: the stack is the only way to them. */
	for (i = __atomic_exchange_n(&v->lazy_head, NULL, __ATOMIC_ACQUIRE); i; i = next) {
		next = i->lazy_next;
		i->lazy_queued = 0;
		if (i->zombie)
			x4_inode_free(i);
	}
	for (size_t n = 0; n < (size_t)1 << v->ihash_bits; n++)
		list_for_each_safe(i, next, &v->ihash[n], hash) {
			list_del(&i->hash);
			list_del(&i->lru);
			x4_inode_free(i);
		}
	free(v->ihash);
	v->ihash = NULL;
}

/* ------------------------------------------------------------------ plain access */
uint32_t x4_inode_ino(const struct x4_inode *i) { return i->ino; }
uint32_t x4_inode_gen(const struct x4_inode *i) { return i->gen; }
uint32_t x4_inode_mode(const struct x4_inode *i) { return __atomic_load_n(&i->mode, __ATOMIC_RELAXED); }
uint64_t x4_inode_size(const struct x4_inode *i) { return __atomic_load_n(&i->size, __ATOMIC_ACQUIRE); }
struct x4_vol *x4_inode_vol(struct x4_inode *i) { return i->vol; }

uint32_t x4_inode_live_flags(const struct x4_inode *i) { return __atomic_load_n(&i->live_flags, __ATOMIC_RELAXED); }

uint32_t x4_inode_flags(struct x4_inode *i)
{
	uint32_t f;

	fdio_mutex_lock(&i->attr);
	f = i->raw->i_flags;
	fdio_mutex_unlock(&i->attr);
	return f;
}

void *x4_inode_upper(struct x4_inode *i) { return __atomic_load_n(&i->upper, __ATOMIC_ACQUIRE); }

void *x4_inode_set_upper(struct x4_inode *i, void *p, void (*dtor)(void *))
{
	void *winner;

	fdio_mutex_lock(&i->attr);
	winner = __atomic_load_n(&i->upper, __ATOMIC_RELAXED);
	if (!winner) {
		i->upper_dtor = dtor;
		__atomic_store_n(&i->upper, p, __ATOMIC_RELEASE);
		winner = p;
	}
	fdio_mutex_unlock(&i->attr);
	return winner;
}

void x4_inode_lock_shared(struct x4_inode *i) { fdio_rwlock_rdlock(&i->rw); }
void x4_inode_lock_excl(struct x4_inode *i) { fdio_rwlock_wrlock(&i->rw); }
int x4_inode_enter_shared(struct x4_inode *i) { return fdio_rwlock_rdenter(&i->rw); }
int x4_inode_enter_excl(struct x4_inode *i) { return fdio_rwlock_wrenter(&i->rw); }
void x4_inode_unlock(struct x4_inode *i) { fdio_rwlock_unlock(&i->rw); }
