/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The metadata block cache: 64 shards, each a hash table with a clock hand.
 *
 * Threads: any. journal_read_cached and journal_buffer_release never wait for I/O, so loop threads
 * call them; a release is one atomic subtraction. journal_read_block reads from the device, or, in
 * the mode of base/nowait.h, misses. Each shard has a lock, which guards its hash table and its
 * clock; a buffer's reference count and state are atomic.
 *
 * A block has at most one buffer in the hash table. A buffer with references is never evicted;
 * transactions and checkpoint lists hold references too. Eviction and lookup both hold the shard's
 * lock, so lookup takes its reference before the buffer can be evicted. A buffer that is taken out
 * of the table has JOURNAL_BUFFER_DEAD in its count, and its last reference frees it. A buffer's
 * content is defined once its state has left JOURNAL_BUFFER_READING. The limit of the cache is
 * soft: buffers with references may exceed it.
 *
 * Failure: -EIO for an unreadable block (it is not cached, so the next reader tries again),
 * -ENOMEM, -EUCLEAN for a block number outside the file system.
 */
#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

enum { CLOCK_SCAN = 32, READAHEAD_BLOCKS = 64, SHED_TRIES = 4 };

static struct journal_cache_shard *shard_of(struct journal *journal, uint64_t blk)
{
	return &journal->shards[(blk * 0x9e3779b97f4a7c15ULL) >> 58];
}

static struct journal_cache_buffer **bucket_of(struct journal_cache_shard *shard, uint64_t blk)
{
	return &shard->bucket[(unsigned)((blk * 0x9e3779b97f4a7c15ULL) >> 24) & shard->mask];
}

int journal_cache_init(struct journal *journal)
{
	size_t bytes = journal->params.cache_bytes ? journal->params.cache_bytes : 64u << 20;
	unsigned per_shard, nr_buckets = 16;

	bytes = FDIO_MIN(bytes / journal->block_size, (size_t)1 << 26);
	journal->max_buffers = (uint32_t)FDIO_MAX(bytes, (size_t)JOURNAL_CACHE_SHARDS * 4);
	per_shard = journal->max_buffers / JOURNAL_CACHE_SHARDS;
	while (nr_buckets < per_shard)
		nr_buckets *= 2;
	journal->shards = fdio_alloc_aligned(FDIO_CACHELINE,
					     sizeof(*journal->shards) * JOURNAL_CACHE_SHARDS);
	if (!journal->shards)
		return -ENOMEM;
	for (unsigned i = 0; i < JOURNAL_CACHE_SHARDS; i++) {
		struct journal_cache_shard *shard = &journal->shards[i];

		fdio_mutex_init(&shard->lock, RANK_JOURNAL_INNER);
		fdio_cond_init(&shard->read_done);
		list_init(&shard->clock);
		shard->mask = nr_buckets - 1;
	}
	for (unsigned i = 0; i < JOURNAL_CACHE_SHARDS; i++) {
		journal->shards[i].bucket =
				calloc(nr_buckets, sizeof(struct journal_cache_buffer *));
		if (!journal->shards[i].bucket)
			return -ENOMEM;
	}
	return 0;
}

void journal_cache_fini(struct journal *journal)
{
	if (!journal->shards)
		return;
	for (unsigned i = 0; i < JOURNAL_CACHE_SHARDS; i++) {
		free(journal->shards[i].bucket);
		pthread_cond_destroy(&journal->shards[i].read_done);
		fdio_mutex_fini(&journal->shards[i].lock);
	}
	free(journal->shards);
	journal->shards = NULL;
}

void journal_cache_ref(struct journal_cache_buffer *buffer)
{
	uint32_t old = __atomic_fetch_add(&buffer->refs, 1, __ATOMIC_RELAXED);

	FDIO_ASSERT((old & ~JOURNAL_BUFFER_DEAD) < 0x7ffffff0u);
}

static void buffer_free(struct journal_cache_buffer *buffer)
{
	struct journal *journal = buffer->journal;

	FDIO_ASSERT(!buffer->running && !buffer->committing && !buffer->checkpoint &&
		    !buffer->forget_count && !buffer->frozen);
	fdio_magic_clear(buffer, MAGIC_JOURNAL_BUFFER);
	journal_slab_free(&journal->data_slab, buffer->public.data);
	journal_slab_free(&journal->buffer_slab, buffer);
	__atomic_sub_fetch(&journal->nr_buffers, 1, __ATOMIC_RELAXED);
}

void journal_cache_put(struct journal_cache_buffer *buffer)
{
	uint32_t old = __atomic_fetch_sub(&buffer->refs, 1, __ATOMIC_ACQ_REL);

	FDIO_ASSERT(old & ~JOURNAL_BUFFER_DEAD);
	/*
	 * From here on the buffer may be evicted and freed by another thread, unless it is out of
	 * the hash table: then this was its last reference, and this thread frees it.
	 */
	if (old == (JOURNAL_BUFFER_DEAD | 1))
		buffer_free(buffer);
}

/* Shard lock held. */
static struct journal_cache_buffer *shard_find(struct journal_cache_shard *shard, uint64_t blk)
{
	struct journal_cache_buffer *buffer = *bucket_of(shard, blk);

	while (buffer && buffer->public.blk != blk)
		buffer = buffer->hash_next;
	if (buffer) {
		journal_cache_ref(buffer);
		__atomic_store_n(&buffer->recent, 1, __ATOMIC_RELAXED);
	}
	return buffer;
}

/* Shard lock held. */
static void shard_unlink(struct journal_cache_shard *shard, struct journal_cache_buffer *buffer)
{
	struct journal_cache_buffer **link = bucket_of(shard, buffer->public.blk);

	while (*link != buffer)
		link = &(*link)->hash_next;
	*link = buffer->hash_next;
	buffer->hash_next = NULL;
	list_del(&buffer->clock);
	shard->nr_buffers--;
}

/* Shard lock held: looks at scan buffers, frees at most max that are unused. Returns how many. */
static unsigned shard_drop(struct journal_cache_shard *shard, unsigned scan, unsigned max)
{
	unsigned freed = 0;

	while (scan-- > 0 && freed < max) {
		struct journal_cache_buffer *buffer =
				list_first(&shard->clock, struct journal_cache_buffer, clock);

		if (__atomic_load_n(&buffer->refs, __ATOMIC_ACQUIRE) ||
		    __atomic_exchange_n(&buffer->recent, 0, __ATOMIC_RELAXED)) {
			list_move_tail(&shard->clock, &buffer->clock);
			continue;
		}
		shard_unlink(shard, buffer);
		buffer_free(buffer);
		freed++;
	}
	return freed;
}

/* Shard lock held: frees up to two buffers if the cache is over its limit. */
static void shard_evict(struct journal *journal, struct journal_cache_shard *shard)
{
	if (__atomic_load_n(&journal->nr_buffers, __ATOMIC_RELAXED) >= journal->max_buffers)
		shard_drop(shard, FDIO_MIN(shard->nr_buffers, (unsigned)CLOCK_SCAN), 2);
}

int journal_cache_reserve(struct journal *journal)
{
	unsigned n = journal->max_buffers / 16;

	int err = journal_slab_reserve(&journal->buffer_slab, n);

	return err ? err : journal_slab_reserve(&journal->data_slab, n);
}

bool journal_cache_shed(struct journal *journal)
{
	for (unsigned i = 0; i < JOURNAL_CACHE_SHARDS; i++) {
		uint32_t at = __atomic_fetch_add(&journal->shed_at, 1, __ATOMIC_RELAXED);
		struct journal_cache_shard *shard = &journal->shards[at % JOURNAL_CACHE_SHARDS];
		unsigned freed;

		fdio_mutex_lock(&shard->lock);
		/* Two rounds: the first may only clear the recent marks of all buffers. */
		freed = shard_drop(shard, shard->nr_buffers * 2, 1);
		fdio_mutex_unlock(&shard->lock);
		if (freed) {
			fdio_count(COUNTER_journal_cache_shed);
			return true;
		}
	}
	return false;
}

struct journal_cache_buffer *journal_cache_peek(struct journal *journal, uint64_t blk)
{
	struct journal_cache_shard *shard = shard_of(journal, blk);
	struct journal_cache_buffer *buffer;

	fdio_mutex_lock(&shard->lock);
	buffer = shard_find(shard, blk);
	fdio_mutex_unlock(&shard->lock);
	return buffer;
}

bool journal_any_verified(struct journal *journal, uint64_t blk, uint64_t n)
{
	bool any = false;

	for (; n-- > 0 && !any; blk++) {
		struct journal_cache_buffer *buffer = journal_cache_peek(journal, blk);

		if (!buffer)
			continue;
		any = __atomic_load_n(&buffer->public.verified, __ATOMIC_RELAXED);
		journal_cache_put(buffer);
	}
	return any;
}

static struct journal_cache_buffer *buffer_new(struct journal *journal, uint64_t blk)
{
	struct journal_cache_buffer *buffer = journal_slab_alloc(&journal->buffer_slab);

	if (!buffer)
		return NULL;
	memset(buffer, 0, sizeof(*buffer));
	buffer->public.data = journal_slab_alloc(&journal->data_slab);
	if (!buffer->public.data) {
		journal_slab_free(&journal->buffer_slab, buffer);
		return NULL;
	}
	fdio_magic_set(buffer, MAGIC_JOURNAL_BUFFER);
	buffer->public.blk = blk;
	buffer->journal = journal;
	buffer->refs = 1;
	buffer->state = JOURNAL_BUFFER_READING;
	list_init(&buffer->clock);
	list_init(&buffer->checkpoint_node);
	__atomic_add_fetch(&journal->nr_buffers, 1, __ATOMIC_RELAXED);
	return buffer;
}

/* Shard lock held. */
static struct journal_cache_buffer *shard_add(struct journal *journal,
					      struct journal_cache_shard *shard, uint64_t blk)
{
	struct journal_cache_buffer **head = bucket_of(shard, blk), *buffer;

	shard_evict(journal, shard);
	buffer = buffer_new(journal, blk);
	if (!buffer)
		return NULL;
	buffer->hash_next = *head;
	*head = buffer;
	list_add_tail(&shard->clock, &buffer->clock);
	shard->nr_buffers++;
	return buffer;
}

int journal_cache_get(struct journal *journal, uint64_t blk, struct journal_cache_buffer **ret,
		      bool *ret_created)
{
	struct journal_cache_shard *shard = shard_of(journal, blk);
	struct journal_cache_buffer *buffer;

	*ret_created = false;
	if (blk >= journal->params.nr_blocks)
		return -EUCLEAN;
	/* Another thread may take the memory that journal_cache_shed has freed: try again. */
	for (unsigned tries = 0; tries < SHED_TRIES; tries++) {
		fdio_mutex_lock(&shard->lock);
		buffer = shard_find(shard, blk);
		if (!buffer) {
			buffer = shard_add(journal, shard, blk);
			*ret_created = buffer;
		}
		fdio_mutex_unlock(&shard->lock);
		if (likely(buffer) || !journal_cache_shed(journal))
			break;
	}
	*ret = buffer;
	return buffer ? 0 : -ENOMEM;
}

void journal_cache_unhash(struct journal_cache_buffer *buffer)
{
	struct journal_cache_shard *shard = shard_of(buffer->journal, buffer->public.blk);

	fdio_mutex_lock(&shard->lock);
	if (!(__atomic_load_n(&buffer->refs, __ATOMIC_RELAXED) & JOURNAL_BUFFER_DEAD)) {
		shard_unlink(shard, buffer);
		__atomic_or_fetch(&buffer->refs, JOURNAL_BUFFER_DEAD, __ATOMIC_ACQ_REL);
	}
	fdio_mutex_unlock(&shard->lock);
}

void journal_cache_set_state(struct journal_cache_buffer *buffer, int state)
{
	struct journal_cache_shard *shard = shard_of(buffer->journal, buffer->public.blk);

	if (state == JOURNAL_BUFFER_ERROR)
		journal_cache_unhash(buffer);
	fdio_mutex_lock(&shard->lock);
	__atomic_store_n(&buffer->state, (uint8_t)state, __ATOMIC_RELEASE);
	pthread_cond_broadcast(&shard->read_done);
	fdio_mutex_unlock(&shard->lock);
}

int journal_cache_wait(struct journal_cache_buffer *buffer)
{
	uint8_t state = __atomic_load_n(&buffer->state, __ATOMIC_ACQUIRE);

	if (unlikely(state == JOURNAL_BUFFER_READING)) {
		struct journal_cache_shard *shard = shard_of(buffer->journal, buffer->public.blk);

		if (nowait_on())
			return nowait_miss();
		fdio_mutex_lock(&shard->lock);
		while ((state = __atomic_load_n(&buffer->state, __ATOMIC_ACQUIRE)) ==
		       JOURNAL_BUFFER_READING)
			fdio_cond_wait(&shard->read_done, &shard->lock);
		fdio_mutex_unlock(&shard->lock);
	}
	return state == JOURNAL_BUFFER_VALID ? 0 : -EIO;
}

int journal_read_block(struct journal *journal, uint64_t blk, struct journal_buffer **ret)
{
	struct journal_cache_buffer *buffer;
	bool created;
	int err;

	*ret = NULL;
	if (nowait_on()) {
		err = nowait_point() ? -EAGAIN : journal_read_cached(journal, blk, ret);
		return err == -EAGAIN ? nowait_miss() : err;
	}
	err = journal_cache_get(journal, blk, &buffer, &created);
	if (err)
		return err;
	if (created) {
		fdio_count(COUNTER_journal_cache_miss);
		err = dev_read(journal->dev, buffer->public.data, journal->block_size,
			       blk * journal->block_size);
		if (err)
			log_ratelimited(FDIO_LOG_ERR, "cannot read metadata block %llu: error %d",
					(unsigned long long)blk, -err);
		journal_cache_set_state(buffer, err ? JOURNAL_BUFFER_ERROR : JOURNAL_BUFFER_VALID);
		err = err ? -EIO : 0;
	} else {
		fdio_count(COUNTER_journal_cache_hit);
		err = journal_cache_wait(buffer);
	}
	if (err) {
		journal_cache_put(buffer);
		return err;
	}
	*ret = &buffer->public;
	return 0;
}

int journal_read_cached(struct journal *journal, uint64_t blk, struct journal_buffer **ret)
{
	struct journal_cache_buffer *buffer;

	*ret = NULL;
	if (blk >= journal->params.nr_blocks)
		return -EUCLEAN;
	buffer = journal_cache_peek(journal, blk);
	if (!buffer)
		return -EAGAIN;
	if (__atomic_load_n(&buffer->state, __ATOMIC_ACQUIRE) != JOURNAL_BUFFER_VALID) {
		journal_cache_put(buffer);
		return -EAGAIN;
	}
	fdio_count(COUNTER_journal_cache_hit);
	*ret = &buffer->public;
	return 0;
}

/* Reads n neighbouring buffers, all made by this thread, with one device request. */
static void readahead_run(struct journal *journal, struct journal_cache_buffer **buffer, unsigned n)
{
	uint8_t *tmp = n > 1 ? fdio_alloc_aligned(4096, (size_t)n * journal->block_size) : NULL;
	bool whole = tmp && !dev_read(journal->dev, tmp, (size_t)n * journal->block_size,
				      buffer[0]->public.blk * journal->block_size);

	for (unsigned i = 0; i < n; i++) {
		int err = 0;

		/* No memory, or a bad block in the run: read each block by itself. */
		if (whole)
			memcpy(buffer[i]->public.data, tmp + (size_t)i * journal->block_size,
			       journal->block_size);
		else
			err = dev_read(journal->dev, buffer[i]->public.data, journal->block_size,
				       buffer[i]->public.blk * journal->block_size);
		journal_cache_set_state(buffer[i],
					err ? JOURNAL_BUFFER_ERROR : JOURNAL_BUFFER_VALID);
		journal_cache_put(buffer[i]);
	}
	free(tmp);
}

void journal_readahead(struct journal *journal, uint64_t blk, unsigned n)
{
	struct journal_cache_buffer *run[READAHEAD_BLOCKS];
	unsigned nr = 0;

	if (nowait_on())
		return;
	/* Readahead must not evict the blocks that are in use. */
	n = FDIO_MIN(n, journal->max_buffers / 8);
	for (; n > 0 && blk < journal->params.nr_blocks; n--, blk++) {
		bool created;

		if (journal_cache_get(journal, blk, &run[nr], &created))
			break;
		if (created) {
			fdio_count(COUNTER_journal_cache_miss);
			nr++;
		} else {
			journal_cache_put(run[nr]);
		}
		if (nr && (!created || nr == READAHEAD_BLOCKS)) {
			readahead_run(journal, run, nr);
			nr = 0;
		}
	}
	if (nr)
		readahead_run(journal, run, nr);
}

void journal_buffer_release(struct journal_buffer *buffer)
{
	if (buffer)
		journal_cache_put(to_cache_buffer(buffer));
}

void journal_cache_drop_all(struct journal *journal)
{
	for (unsigned i = 0; i < JOURNAL_CACHE_SHARDS; i++) {
		struct journal_cache_shard *shard = &journal->shards[i];
		struct journal_cache_buffer *buffer, *tmp;

		fdio_mutex_lock(&shard->lock);
		list_for_each_safe(buffer, tmp, &shard->clock, clock) {
			if (__atomic_load_n(&buffer->refs, __ATOMIC_ACQUIRE))
				continue;
			shard_unlink(shard, buffer);
			buffer_free(buffer);
		}
		fdio_mutex_unlock(&shard->lock);
	}
}
