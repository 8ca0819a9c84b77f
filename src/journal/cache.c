/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The metadata block cache: 64 shards, each a hash table with a clock hand.
 *
 * Threads: any. jnl_bread_cached, jnl_bref and jnl_brelse are for loop threads, too: they never
 * block on I/O, and a release is one atomic subtraction. jnl_bread reads from the device, or misses
 * in the mode of nowait.h. Each shard has a lock, which guards its table and its clock; a buffer's
 * count and state are atomic.
 *
 * A block number has at most one buffer in the hash. A buffer with references, or in a transaction
 * or on a checkpoint list (each holds a reference), is never evicted. A buffer's content is defined
 * once its state has left JB_READING. Eviction and look-up both hold the shard lock, so a buffer
 * found is a buffer referenced. Taken out of the hash, it carries JB_DEAD in its count, and the
 * last reference frees it. The limit is soft: what is pinned may exceed it.
 *
 * Failure: -EIO for an unreadable block (it is not cached, so the next reader tries again),
 * -ENOMEM, -EUCLEAN for a number outside the file system.
 */
#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

enum { CLOCK_SCAN = 32, READAHEAD_BLOCKS = 64, SHED_TRIES = 4 };

static struct jshard *shard_of(struct jnl *j, uint64_t blk)
{
	return &j->shards[(blk * 0x9e3779b97f4a7c15ULL) >> 58];
}

static struct jbuf **bucket_of(struct jshard *s, uint64_t blk)
{
	return &s->bucket[(unsigned)((blk * 0x9e3779b97f4a7c15ULL) >> 24) & s->mask];
}

int jcache_init(struct jnl *j)
{
	size_t bytes = j->p.cache_bytes ? j->p.cache_bytes : 64u << 20;
	unsigned per_shard, nr_buckets = 16;

	bytes = FDIO_MIN(bytes / j->bs, (size_t)1 << 26);
	j->max_bufs = (uint32_t)FDIO_MAX(bytes, (size_t)JNL_SHARDS * 4);
	per_shard = j->max_bufs / JNL_SHARDS;
	while (nr_buckets < per_shard)
		nr_buckets *= 2;
	j->shards = fdio_alloc_aligned(FDIO_CACHELINE, sizeof(*j->shards) * JNL_SHARDS);
	if (!j->shards)
		return -ENOMEM;
	for (unsigned i = 0; i < JNL_SHARDS; i++) {
		struct jshard *s = &j->shards[i];

		fdio_mutex_init(&s->lock, RANK_JNL_BUF);
		fdio_cond_init(&s->read_done);
		list_init(&s->clock);
		s->mask = nr_buckets - 1;
	}
	for (unsigned i = 0; i < JNL_SHARDS; i++) {
		j->shards[i].bucket = calloc(nr_buckets, sizeof(struct jbuf *));
		if (!j->shards[i].bucket)
			return -ENOMEM;
	}
	return 0;
}

void jcache_fini(struct jnl *j)
{
	if (!j->shards)
		return;
	for (unsigned i = 0; i < JNL_SHARDS; i++) {
		free(j->shards[i].bucket);
		pthread_cond_destroy(&j->shards[i].read_done);
		fdio_mutex_fini(&j->shards[i].lock);
	}
	free(j->shards);
	j->shards = NULL;
}

void jbuf_ref(struct jbuf *b)
{
	uint32_t old = __atomic_fetch_add(&b->refs, 1, __ATOMIC_RELAXED);

	FDIO_ASSERT((old & ~JB_DEAD) < 0x7ffffff0u);
}

static void buf_free(struct jbuf *b)
{
	struct jnl *j = b->j;

	FDIO_ASSERT(!b->txn && !b->committing && !b->cp && !b->forget_cnt && !b->frozen);
	fdio_magic_clear(b, MAGIC_JOURNAL_BUFFER);
	jslab_free(&j->data_slab, b->pub.data);
	jslab_free(&j->buf_slab, b);
	__atomic_sub_fetch(&j->nr_bufs, 1, __ATOMIC_RELAXED);
}

void jbuf_put(struct jbuf *b)
{
	uint32_t old = __atomic_fetch_sub(&b->refs, 1, __ATOMIC_ACQ_REL);

	FDIO_ASSERT(old & ~JB_DEAD);
	/* A live buffer may be evicted from here on: b must not be touched unless it is dead, hence ours. */
	if (old == (JB_DEAD | 1))
		buf_free(b);
}

/* Shard lock held. */
static struct jbuf *shard_find(struct jshard *s, uint64_t blk)
{
	struct jbuf *b = *bucket_of(s, blk);

	while (b && b->pub.blk != blk)
		b = b->hnext;
	if (b) {
		jbuf_ref(b);
		__atomic_store_n(&b->recent, 1, __ATOMIC_RELAXED);
	}
	return b;
}

/* Shard lock held. */
static void shard_unlink(struct jshard *s, struct jbuf *b)
{
	struct jbuf **pp = bucket_of(s, b->pub.blk);

	while (*pp != b)
		pp = &(*pp)->hnext;
	*pp = b->hnext;
	b->hnext = NULL;
	list_del(&b->clock);
	s->nr--;
}

/* Shard lock held: looks at so many buffers, gives up to max back that nobody uses. */
static unsigned shard_drop(struct jshard *s, unsigned scan, unsigned max)
{
	unsigned freed = 0;

	while (scan-- > 0 && freed < max) {
		struct jbuf *b = list_first(&s->clock, struct jbuf, clock);

		if (__atomic_load_n(&b->refs, __ATOMIC_ACQUIRE) || __atomic_exchange_n(&b->recent, 0, __ATOMIC_RELAXED)) {
			list_move_tail(&s->clock, &b->clock);
			continue;
		}
		shard_unlink(s, b);
		buf_free(b);
		freed++;
	}
	return freed;
}

/* Shard lock held: if the cache is over its limit. */
static void shard_evict(struct jnl *j, struct jshard *s)
{
	if (__atomic_load_n(&j->nr_bufs, __ATOMIC_RELAXED) >= j->max_bufs)
		shard_drop(s, FDIO_MIN(s->nr, (unsigned)CLOCK_SCAN), 2);
}

int jcache_reserve(struct jnl *j)
{
	unsigned n = j->max_bufs / 16;

	return jslab_reserve(&j->buf_slab, n) || jslab_reserve(&j->data_slab, n) ? -ENOMEM : 0;
}

bool jcache_shed(struct jnl *j)
{
	/* Two rounds of each: the first may only find that all were used a short time ago. */
	for (unsigned i = 0; i < JNL_SHARDS; i++) {
		struct jshard *s = &j->shards[__atomic_fetch_add(&j->shed_at, 1, __ATOMIC_RELAXED) % JNL_SHARDS];
		unsigned freed;

		fdio_mutex_lock(&s->lock);
		freed = shard_drop(s, s->nr * 2, 1);
		fdio_mutex_unlock(&s->lock);
		if (freed) {
			fdio_count(CTR_jnl_cache_shed);
			return true;
		}
	}
	return false;
}

struct jbuf *jcache_peek(struct jnl *j, uint64_t blk)
{
	struct jshard *s = shard_of(j, blk);
	struct jbuf *b;

	fdio_mutex_lock(&s->lock);
	b = shard_find(s, blk);
	fdio_mutex_unlock(&s->lock);
	return b;
}

bool jnl_verified(struct jnl *j, uint64_t blk, uint64_t n)
{
	bool any = false;

	for (; n-- > 0 && !any; blk++) {
		struct jbuf *b = jcache_peek(j, blk);

		if (!b)
			continue;
		any = __atomic_load_n(&b->pub.verified, __ATOMIC_RELAXED);
		jbuf_put(b);
	}
	return any;
}

static struct jbuf *buf_new(struct jnl *j, uint64_t blk)
{
	struct jbuf *b = jslab_alloc(&j->buf_slab);

	if (!b)
		return NULL;
	memset(b, 0, sizeof(*b));
	b->pub.data = jslab_alloc(&j->data_slab);
	if (!b->pub.data) {
		jslab_free(&j->buf_slab, b);
		return NULL;
	}
	fdio_magic_set(b, MAGIC_JOURNAL_BUFFER);
	b->pub.blk = blk;
	b->j = j;
	b->refs = 1;
	b->state = JB_READING;
	list_init(&b->clock);
	list_init(&b->cp_node);
	__atomic_add_fetch(&j->nr_bufs, 1, __ATOMIC_RELAXED);
	return b;
}

/* Shard lock held. */
static struct jbuf *shard_add(struct jnl *j, struct jshard *s, uint64_t blk)
{
	struct jbuf **head = bucket_of(s, blk), *b;

	shard_evict(j, s);
	b = buf_new(j, blk);
	if (!b)
		return NULL;
	b->hnext = *head;
	*head = b;
	list_add_tail(&s->clock, &b->clock);
	s->nr++;
	return b;
}

int jcache_get(struct jnl *j, uint64_t blk, struct jbuf **ret, bool *ret_created)
{
	struct jshard *s = shard_of(j, blk);
	struct jbuf *b;

	*ret_created = false;
	if (blk >= j->p.nr_blocks)
		return -EUCLEAN;
	/* Others may take what was shed. */
	for (unsigned tries = 0; tries < SHED_TRIES; tries++) {
		fdio_mutex_lock(&s->lock);
		b = shard_find(s, blk);
		if (!b) {
			b = shard_add(j, s, blk);
			*ret_created = b;
		}
		fdio_mutex_unlock(&s->lock);
		if (likely(b) || !jcache_shed(j))
			break;
	}
	*ret = b;
	return b ? 0 : -ENOMEM;
}

void jcache_unhash(struct jbuf *b)
{
	struct jshard *s = shard_of(b->j, b->pub.blk);

	fdio_mutex_lock(&s->lock);
	if (!(__atomic_load_n(&b->refs, __ATOMIC_RELAXED) & JB_DEAD)) {
		shard_unlink(s, b);
		__atomic_or_fetch(&b->refs, JB_DEAD, __ATOMIC_ACQ_REL);
	}
	fdio_mutex_unlock(&s->lock);
}

void jcache_set_state(struct jbuf *b, int state)
{
	struct jshard *s = shard_of(b->j, b->pub.blk);

	if (state == JB_ERROR)
		jcache_unhash(b);
	fdio_mutex_lock(&s->lock);
	__atomic_store_n(&b->state, (uint8_t)state, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&s->read_done);
	fdio_mutex_unlock(&s->lock);
}

int jcache_wait(struct jbuf *b)
{
	uint8_t state = __atomic_load_n(&b->state, __ATOMIC_ACQUIRE);

	if (unlikely(state == JB_READING)) {
		struct jshard *s = shard_of(b->j, b->pub.blk);

		if (nowait_on())
			return nowait_miss();

		fdio_mutex_lock(&s->lock);
		while ((state = __atomic_load_n(&b->state, __ATOMIC_ACQUIRE)) == JB_READING)
			fdio_cond_wait(&s->read_done, &s->lock);
		fdio_mutex_unlock(&s->lock);
	}
	return state == JB_VALID ? 0 : -EIO;
}

int jnl_bread(struct jnl *j, uint64_t blk, struct jnl_buf **ret)
{
	struct jbuf *b;
	bool created;
	int r;

	*ret = NULL;
	if (nowait_on()) {
		r = nowait_point() ? -EAGAIN : jnl_bread_cached(j, blk, ret);
		return r == -EAGAIN ? nowait_miss() : r;
	}
	r = jcache_get(j, blk, &b, &created);
	if (r)
		return r;
	if (created) {
		fdio_count(CTR_jnl_cache_miss);
		r = dev_read(j->dev, b->pub.data, j->bs, blk * j->bs);
		if (r)
			log_ratelimited(FDIO_LOG_ERR, "cannot read metadata block %llu: error %d", (unsigned long long)blk, -r);
		jcache_set_state(b, r ? JB_ERROR : JB_VALID);
		r = r ? -EIO : 0;
	} else {
		fdio_count(CTR_jnl_cache_hit);
		r = jcache_wait(b);
	}
	if (r) {
		jbuf_put(b);
		return r;
	}
	*ret = &b->pub;
	return 0;
}

int jnl_bread_cached(struct jnl *j, uint64_t blk, struct jnl_buf **ret)
{
	struct jbuf *b;

	*ret = NULL;
	if (blk >= j->p.nr_blocks)
		return -EUCLEAN;
	b = jcache_peek(j, blk);
	if (!b)
		return -EAGAIN;
	if (__atomic_load_n(&b->state, __ATOMIC_ACQUIRE) != JB_VALID) {
		jbuf_put(b);
		return -EAGAIN;
	}
	fdio_count(CTR_jnl_cache_hit);
	*ret = &b->pub;
	return 0;
}

/* Reads the run of n buffers, all in JB_READING and ours, with one device request. */
static void readahead_run(struct jnl *j, struct jbuf **b, unsigned n)
{
	uint8_t *tmp = n > 1 ? fdio_alloc_aligned(4096, (size_t)n * j->bs) : NULL;
	bool whole = tmp && !dev_read(j->dev, tmp, (size_t)n * j->bs, b[0]->pub.blk * j->bs);

	for (unsigned i = 0; i < n; i++) {
		int r = 0;

		/* Without memory, or with a bad block in the run, each is read for itself. */
		if (whole)
			memcpy(b[i]->pub.data, tmp + (size_t)i * j->bs, j->bs);
		else
			r = dev_read(j->dev, b[i]->pub.data, j->bs, b[i]->pub.blk * j->bs);
		jcache_set_state(b[i], r ? JB_ERROR : JB_VALID);
		jbuf_put(b[i]);
	}
	free(tmp);
}

void jnl_readahead(struct jnl *j, uint64_t blk, unsigned n)
{
	struct jbuf *run[READAHEAD_BLOCKS];
	unsigned nr = 0;

	if (nowait_on())
		return;
	/* Reading ahead must not push out what is in use. */
	n = FDIO_MIN(n, j->max_bufs / 8);
	for (; n > 0 && blk < j->p.nr_blocks; n--, blk++) {
		bool created;

		if (jcache_get(j, blk, &run[nr], &created))
			break;
		if (created) {
			fdio_count(CTR_jnl_cache_miss);
			nr++;
		} else {
			jbuf_put(run[nr]);
		}
		if (nr && (!created || nr == READAHEAD_BLOCKS)) {
			readahead_run(j, run, nr);
			nr = 0;
		}
	}
	if (nr)
		readahead_run(j, run, nr);
}

void jnl_brelse(struct jnl_buf *b)
{
	if (b)
		jbuf_put(to_jbuf(b));
}

struct jnl_buf *jnl_bref(struct jnl_buf *b)
{
	jbuf_ref(to_jbuf(b));
	return b;
}

void jcache_drop_all(struct jnl *j)
{
	for (unsigned i = 0; i < JNL_SHARDS; i++) {
		struct jshard *s = &j->shards[i];
		struct jbuf *b, *tmp;

		fdio_mutex_lock(&s->lock);
		list_for_each_safe(b, tmp, &s->clock, clock) {
			if (__atomic_load_n(&b->refs, __ATOMIC_ACQUIRE))
				continue;
			shard_unlink(s, b);
			buf_free(b);
		}
		fdio_mutex_unlock(&s->lock);
	}
}
