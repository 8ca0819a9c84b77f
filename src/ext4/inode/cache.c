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
	return &v->inode.hash[(ino * 2654435761U) >> (32 - v->inode.hash_bits)];
}

int x4_icache_init(struct x4_vol *v)
{
	v->inode.hash_bits = IHASH_BITS;
	v->inode.hash = calloc((size_t)1 << IHASH_BITS, sizeof(*v->inode.hash));
	if (!v->inode.hash)
		return -ENOMEM;
	for (size_t n = 0; n < (size_t)1 << IHASH_BITS; n++)
		list_init(&v->inode.hash[n]);
	list_init(&v->inode.lru);
	list_init(&v->inode.reap);
	v->inode.nr_cached = v->inode.lru_len = 0;
	v->inode.lru_max = (unsigned)FDIO_MIN(v->opt.cache_bytes / 4096 + 1024, (size_t)65536);
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
	fdio_magic_set(i, MAGIC_EXT4_INODE);
	i->vol = v;
	i->ino = ino;
	i->inode.refs = 1;
	list_init(&i->inode.hash);
	list_init(&i->inode.lru);
	list_init(&i->inode.orphan);
	fdio_rwlock_init(&i->rw, RANK_X4_INODE);
	fdio_mutex_init(&i->map_lock, RANK_X4_MAP);
	fdio_mutex_init(&i->attr, RANK_X4_ATTR);
	return i;
}

/* No lock held: the destructor of the rooms above may take theirs. */
void x4_inode_free(struct x4_inode *i)
{
	void *upper = __atomic_load_n(&i->inode.upper, __ATOMIC_ACQUIRE);

	fdio_magic_clear(i, MAGIC_EXT4_INODE);
	if (upper && i->inode.upper_dtor)
		i->inode.upper_dtor(upper);
	i->vol->inode.forget_map(i);
	i->vol->inode.forget_names(i);
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

	list_for_each(i, bucket(v, ino), inode.hash)
		if (i->ino == ino)
			return i;
	return NULL;
}

static void hash_add(struct x4_inode *i)
{
	list_add(bucket(i->vol, i->ino), &i->inode.hash);
	i->vol->inode.nr_cached++;
}

static void hash_del(struct x4_inode *i)
{
	if (list_empty(&i->inode.hash))
		return;
	list_del(&i->inode.hash);
	i->vol->inode.nr_cached--;
	pthread_cond_broadcast(&i->vol->inode.cond);
}

static void ref_locked(struct x4_inode *i)
{
	if (i->inode.refs++ == 0 && !list_empty(&i->inode.lru)) {
		list_del(&i->inode.lru);
		i->vol->inode.lru_len--;
	}
}

/* True if the caller frees it; false: the stack of lazy times still holds it. */
static bool may_free(struct x4_inode *i)
{
	hash_del(i);
	i->inode.zombie = __atomic_load_n(&i->inode.lazy_queued, __ATOMIC_SEQ_CST) != 0;
	return !i->inode.zombie;
}

void x4_inode_unhash(struct x4_inode *i)
{
	fdio_mutex_lock(&i->vol->inode.lock);
	hash_del(i);
	fdio_mutex_unlock(&i->vol->inode.lock);
}

int x4_inode_hash_new(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	struct x4_inode *old;

	fdio_mutex_lock(&v->inode.lock);
	/*
	 * Its predecessor is unhashed before the handle that frees the number ends; what may still be there is a
	 * reader that is about to find the number unused: a loop thread does not wait for it.
	 */
	while ((old = find(v, i->ino)) && old->inode.loading && !nowait_on())
		fdio_cond_wait(&v->inode.cond, &v->inode.lock);
	if (!old)
		hash_add(i);
	fdio_mutex_unlock(&v->inode.lock);
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

	if (!i->inode.has_sync_tid || (v->inode.has_gone_tid && jnl_tid_geq(v->inode.gone_tid, i->inode.sync_tid)))
		return;
	v->inode.gone_tid = i->inode.sync_tid;
	v->inode.has_gone_tid = true;
}

static void tid_inherits(struct x4_inode *i)
{
	i->inode.sync_tid = i->inode.datasync_tid = i->vol->inode.gone_tid;
	i->inode.has_sync_tid = i->inode.has_datasync_tid = i->vol->inode.has_gone_tid;
}

/* Frees the oldest unreferenced inodes beyond the bound. icache_lock held; collects them in dead. */
static void shrink(struct x4_vol *v, struct list *dead)
{
	unsigned look = v->inode.lru_len;

	while (v->inode.lru_len > v->inode.lru_max && look-- > 0) {
		struct x4_inode *i = list_first(&v->inode.lru, struct x4_inode, inode.lru);

		/* Its times are not written yet, or the orphan list goes through it: later. */
		if (__atomic_load_n(&i->inode.lazy_queued, __ATOMIC_SEQ_CST) || __atomic_load_n(&i->inode.on_orphans, __ATOMIC_RELAXED)) {
			list_move_tail(&v->inode.lru, &i->inode.lru);
			continue;
		}
		list_del(&i->inode.lru);
		v->inode.lru_len--;
		tid_leaves(i);
		hash_del(i);
		list_add_tail(dead, &i->inode.lru);
	}
}

static void free_list(struct list *dead)
{
	while (!list_empty(dead)) {
		struct x4_inode *i = list_first(dead, struct x4_inode, inode.lru);

		list_del(&i->inode.lru);
		x4_inode_free(i);
	}
}

/* ------------------------------------------------------------------ get */
/* icache_lock held, i found: a reference once it is loaded. Drops the lock. */
static int get_found(struct x4_vol *v, struct x4_inode *i, struct x4_inode **ret)
{
	bool bad;

	if (i->inode.evicting) {
		fdio_mutex_unlock(&v->inode.lock);
		return -ENOENT;
	}
	if (i->inode.loading && nowait_on()) {
		fdio_mutex_unlock(&v->inode.lock);
		return nowait_miss();
	}
	ref_locked(i);
	while (i->inode.loading)
		fdio_cond_wait(&v->inode.cond, &v->inode.lock);
	bad = i->inode.bad;
	fdio_mutex_unlock(&v->inode.lock);
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
	mine->inode.loading = true;
	fdio_mutex_lock(&v->inode.lock);
	i = find(v, ino);
	if (i) {
		err = get_found(v, i, ret);
		x4_inode_free(mine);
		return err;
	}
	tid_inherits(mine);
	hash_add(mine);
	fdio_mutex_unlock(&v->inode.lock);
	err = x4_inode_read(mine, special);
	fdio_mutex_lock(&v->inode.lock);
	mine->inode.loading = false;
	if (err) {
		mine->inode.bad = true;
		hash_del(mine);
	}
	pthread_cond_broadcast(&v->inode.cond);
	fdio_mutex_unlock(&v->inode.lock);
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

	fdio_mutex_lock(&v->inode.lock);
	i = find(v, ino);
	if (i)
		return get_found(v, i, ret);
	fdio_mutex_unlock(&v->inode.lock);
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
	return !i->inode.bad && !i->inode.loading && __atomic_load_n(&i->nlink, __ATOMIC_RELAXED) == 0;
}

int x4_iget_value(struct x4_vol *v, uint32_t ino, struct x4_inode **ret)
{
	struct x4_inode *i;
	bool gone;

	if (ino < v->first_ino || ino > v->nr_inodes)
		return -ENOENT;
	fdio_mutex_lock(&v->inode.lock);
	i = find(v, ino);
	gone = i && nameless(i);
	fdio_mutex_unlock(&v->inode.lock);
	return gone ? -ENOENT : get(v, ino, false, ret);
}

struct x4_inode *x4_iget_cached(struct x4_vol *v, uint32_t ino)
{
	struct x4_inode *i;

	fdio_mutex_lock(&v->inode.lock);
	i = find(v, ino);
	if (i && (i->inode.loading || i->inode.evicting || i->inode.bad))
		i = NULL;
	if (i)
		ref_locked(i);
	fdio_mutex_unlock(&v->inode.lock);
	return i;
}

struct x4_inode *x4_iref(struct x4_inode *i)
{
	fdio_mutex_lock(&i->vol->inode.lock);
	FDIO_ASSERT(i->inode.refs > 0);
	i->inode.refs++;
	fdio_mutex_unlock(&i->vol->inode.lock);
	return i;
}

void x4_lookups_add(struct x4_inode *i, uint64_t n) { __atomic_add_fetch(&i->inode.lookups, n, __ATOMIC_RELAXED); }

uint64_t x4_lookups_sub(struct x4_inode *i, uint64_t n)
{
	uint64_t have = __atomic_load_n(&i->inode.lookups, __ATOMIC_RELAXED);

	while (!__atomic_compare_exchange_n(&i->inode.lookups, &have, have - FDIO_MIN(have, n), true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
	return FDIO_MIN(have, n);
}

/* ------------------------------------------------------------------ put */
/* The deletion is over (or had to be left to the next mount): the struct goes. */
static void after_evict(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	bool mine;

	fdio_mutex_lock(&v->inode.lock);
	mine = may_free(i);
	fdio_mutex_unlock(&v->inode.lock);
	if (mine)
		x4_inode_free(i);
}

static void evict_over(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;

	__atomic_add_fetch(&v->inode.nr_evicted, 1, __ATOMIC_SEQ_CST);
	__atomic_sub_fetch(&v->inode.nr_evicting, 1, __ATOMIC_SEQ_CST);
	/* On failure it stays on the orphan list on disk, where the next mount finds it. */
	if (!__atomic_load_n(&i->inode.on_orphans, __ATOMIC_RELAXED))
		after_evict(i);
}

/* Life has said how. */
static int evict(struct x4_inode *i) { return i->vol->inode.evict(i); }

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
	fdio_mutex_lock(&v->inode.lock);
	wake = list_empty(&v->inode.reap);
	list_add_tail(&v->inode.reap, &i->inode.lru);
	__atomic_add_fetch(&v->inode.nr_reap, 1, __ATOMIC_SEQ_CST);
	fdio_mutex_unlock(&v->inode.lock);
	if (wake && v->inode.reaper)
		v->inode.reaper(v->inode.reaper_arg);
}

void x4_iput_n(struct x4_inode *i, uint64_t n)
{
	struct x4_vol *v = i->vol;
	struct list dead;
	bool evict = false, drop = false;

	list_init(&dead);
	fdio_mutex_lock(&v->inode.lock);
	FDIO_ASSERT(i->inode.refs >= n);
	i->inode.refs -= n;
	if (i->inode.refs == 0) {
		if (i->inode.bad) {
			drop = may_free(i);
		} else if (nameless(i) && !x4_vol_read_only(v)) {
			evict = i->inode.evicting = true;
			__atomic_add_fetch(&v->inode.nr_evicting, 1, __ATOMIC_SEQ_CST);
		} else {
			list_add_tail(&v->inode.lru, &i->inode.lru);
			v->inode.lru_len++;
			shrink(v, &dead);
		}
	}
	fdio_mutex_unlock(&v->inode.lock);
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
	v->inode.reaper_arg = arg;
	v->inode.reaper = fn;
}

void x4_vol_reap(struct x4_vol *v)
{
	for (;;) {
		struct x4_inode *i = NULL;
		bool more;

		if (!__atomic_load_n(&v->inode.nr_reap, __ATOMIC_SEQ_CST))
			return;
		fdio_mutex_lock(&v->inode.lock);
		if (!list_empty(&v->inode.reap)) {
			i = list_first(&v->inode.reap, struct x4_inode, inode.lru);
			list_del(&i->inode.lru);
			__atomic_sub_fetch(&v->inode.nr_reap, 1, __ATOMIC_SEQ_CST);
		}
		more = !list_empty(&v->inode.reap);
		fdio_mutex_unlock(&v->inode.lock);
		if (more && v->inode.reaper) /* this one may be large */
			v->inode.reaper(v->inode.reaper_arg);
		if (i)
			evict_now(i);
	}
}

/* ------------------------------------------------------------------ a walk */
/* icache_lock held. */
static bool walks_to(struct x4_inode *i)
{
	if (i->inode.loading || i->inode.evicting || i->inode.bad)
		return false;
	/* A new inode is changed without its locks: nobody else knows it, but for this list. */
	return !__atomic_load_n(&i->inode.begun, __ATOMIC_ACQUIRE);
}

unsigned x4_icache_walk(struct x4_vol *v, const struct x4_walk *w, uint32_t *left,
			struct x4_inode **ret, unsigned max)
{
	unsigned n = 0, looked = 0;
	struct x4_inode *i;

	fdio_mutex_lock(&v->inode.lock);
	for (; *left && n < max && looked++ < WALK_LOOK; --*left) {
		list_for_each(i, &v->inode.hash[v->inode.walk_hand], inode.hash) {
			looked++;
			if (n == max || !walks_to(i) || !w->wanted(i, i->inode.refs > 0, w->arg))
				continue;
			if (i->inode.refs) {
				ref_locked(i);
				ret[n++] = i;
				continue;
			}
			/* Nobody can come to it but through here. */
			w->unreferenced(i, w->arg);
		}
		v->inode.walk_hand = (v->inode.walk_hand + 1) & ((1U << v->inode.hash_bits) - 1);
	}
	fdio_mutex_unlock(&v->inode.lock);
	return n;
}

uint32_t x4_icache_walk_length(const struct x4_vol *v) { return 1U << v->inode.hash_bits; }

/* ------------------------------------------------------------------ end of the volume */
/* The next inode that nobody has deleted yet although it has no name; marked as being evicted. */
static struct x4_inode *next_nameless(struct x4_vol *v)
{
	struct x4_inode *i, *found = NULL;

	fdio_mutex_lock(&v->inode.lock);
	for (size_t n = 0; n < (size_t)1 << v->inode.hash_bits && !found; n++)
		list_for_each(i, &v->inode.hash[n], inode.hash)
			if (nameless(i) && !i->inode.evicting) {
				i->inode.evicting = true;
				found = i;
				break;
			}
	fdio_mutex_unlock(&v->inode.lock);
	return found;
}

void x4_icache_evict_unlinked(struct x4_vol *v)
{
	struct x4_inode *i;

	while (!x4_vol_read_only(v) && (i = next_nameless(v)) != NULL) {
		if (!list_empty(&i->inode.lru)) {
			list_del(&i->inode.lru);
			v->inode.lru_len--;
		}
		nowait_ignore(evict(i));
		if (!__atomic_load_n(&i->inode.on_orphans, __ATOMIC_RELAXED))
			after_evict(i);
	}
}

/* Single-threaded: everyone else has gone. */
void x4_icache_fini(struct x4_vol *v)
{
	struct x4_inode *i, *next;

	if (!v->inode.hash)
		return;
	/* Zombies are in no hash: the stack is the only way to them. */
	for (i = __atomic_exchange_n(&v->inode.lazy_head, NULL, __ATOMIC_ACQUIRE); i; i = next) {
		next = i->inode.lazy_next;
		i->inode.lazy_queued = 0;
		if (i->inode.zombie)
			x4_inode_free(i);
	}
	for (size_t n = 0; n < (size_t)1 << v->inode.hash_bits; n++)
		list_for_each_safe(i, next, &v->inode.hash[n], inode.hash) {
			list_del(&i->inode.hash);
			list_del(&i->inode.lru);
			x4_inode_free(i);
		}
	free(v->inode.hash);
	v->inode.hash = NULL;
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

void *x4_inode_upper(struct x4_inode *i) { return __atomic_load_n(&i->inode.upper, __ATOMIC_ACQUIRE); }

void *x4_inode_set_upper(struct x4_inode *i, void *p, void (*dtor)(void *))
{
	void *winner;

	fdio_mutex_lock(&i->attr);
	winner = __atomic_load_n(&i->inode.upper, __ATOMIC_RELAXED);
	if (!winner) {
		i->inode.upper_dtor = dtor;
		__atomic_store_n(&i->inode.upper, p, __ATOMIC_RELEASE);
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

/* ------------------------------------------------------------------ the room */
void x4_inodes_init(struct x4_vol *v)
{
	fdio_mutex_init(&v->inode.lock, RANK_X4_ICACHE);
	fdio_cond_init(&v->inode.cond);
	list_init(&v->inode.orphans);
}

void x4_inodes_fini(struct x4_vol *v)
{
	fdio_mutex_fini(&v->inode.lock);
	pthread_cond_destroy(&v->inode.cond);
}

void x4_opened(struct x4_inode *i, int n)
{
	if (n < 0)
		__atomic_store_n(&i->inode.left_ns, fdio_now_ns(), __ATOMIC_RELAXED);
	__atomic_add_fetch(&i->inode.nr_open, (uint32_t)n, __ATOMIC_RELAXED);
}
