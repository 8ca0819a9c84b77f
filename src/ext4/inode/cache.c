/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inode cache: one struct for each inode in use, found by its number in a hash. get.c gives
 * references out, put.c takes them back; their common operations on the hash and the LRU list stand
 * here. The states of a struct:
 *
 *   loading --> referenced <--> unreferenced (LRU list) --> freed, the oldest beyond lru_max
 *      |            |
 *      v            +--> evicting: its last name and reference are gone (put.c) --> freed
 *     bad --> freed
 *
 * loading: one thread reads the disk inode, others wait. bad: reading it failed, or the handle that
 * made it was cancelled. If a struct is still on the stack of noted times (times.c) when it should
 * be freed, it becomes a zombie: the thread that takes it from that stack frees it.
 *
 * Any thread. vol->inode.lock guards the hash, the LRU list, references and the states of all
 * inodes; nothing blocks while it is held. Allocation fails with NULL or -ENOMEM, and
 * ext4_inode_hash_new with -EUCLEAN.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/disk_inode.h"

#include "base/nowait.h"

#include <errno.h>
#include <stdlib.h>

#define HASH_BITS 14 /* 2^14 buckets */
/* A walk looks at no more inodes and buckets than these before it gives up the lock. */
#define WALK_LOOK 2048u

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

int ext4_inode_cache_init(struct ext4_vol *vol)
{
	vol->inode.hash_bits = HASH_BITS;
	vol->inode.hash = calloc((size_t)1 << HASH_BITS, sizeof(*vol->inode.hash));
	if (!vol->inode.hash)
		return -ENOMEM;
	for (size_t n = 0; n < (size_t)1 << HASH_BITS; n++)
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

/* The caller holds no lock, because the destructor of a room above may take its own. */
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

/* ------------------------------------------------------------------ hash and LRU list */
static struct list *bucket(struct ext4_vol *vol, uint32_t ino)
{
	return &vol->inode.hash[(ino * 2654435761U) >> (32 - vol->inode.hash_bits)];
}

struct ext4_inode *ext4_inode_find_locked(struct ext4_vol *vol, uint32_t ino)
{
	struct ext4_inode *inode;

	list_for_each(inode, bucket(vol, ino), inode.hash)
		if (inode->ino == ino)
			return inode;
	return NULL;
}

void ext4_inode_hash_locked(struct ext4_inode *inode)
{
	list_add(bucket(inode->vol, inode->ino), &inode->inode.hash);
	inode->vol->inode.nr_cached++;
}

void ext4_inode_unhash_locked(struct ext4_inode *inode)
{
	if (list_empty(&inode->inode.hash))
		return;
	list_del(&inode->inode.hash);
	inode->vol->inode.nr_cached--;
	pthread_cond_broadcast(&inode->vol->inode.cond);
}

void ext4_inode_use_locked(struct ext4_inode *inode)
{
	if (inode->inode.refs++ == 0 && !list_empty(&inode->inode.lru)) {
		list_del(&inode->inode.lru);
		inode->vol->inode.lru_len--;
	}
}

void ext4_inode_unhash(struct ext4_inode *inode)
{
	fdio_mutex_lock(&inode->vol->inode.lock);
	ext4_inode_unhash_locked(inode);
	fdio_mutex_unlock(&inode->vol->inode.lock);
}

int ext4_inode_hash_new(struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	struct ext4_inode *old;

	fdio_mutex_lock(&vol->inode.lock);
	/*
	 * The struct that had this number before left the hash before the handle that freed the
	 * number ended. But another thread may be reading the number just now; it will find the
	 * number unused and take its struct out. A worker waits for that. A loop thread does not:
	 * EXT4_CORRUPT misses on it, and a worker tries again.
	 */
	while ((old = ext4_inode_find_locked(vol, inode->ino)) && old->inode.loading &&
	       !nowait_on())
		fdio_cond_wait(&vol->inode.cond, &vol->inode.lock);
	if (!old)
		ext4_inode_hash_locked(inode);
	fdio_mutex_unlock(&vol->inode.lock);
	return old ? EXT4_CORRUPT(vol, inode->ino, 0, "the inode is in use, but free in the bitmap")
		   : 0;
}

struct ext4_inode *ext4_inode_ref(struct ext4_inode *inode)
{
	fdio_mutex_lock(&inode->vol->inode.lock);
	FDIO_ASSERT(inode->inode.refs > 0);
	inode->inode.refs++;
	fdio_mutex_unlock(&inode->vol->inode.lock);
	return inode;
}

/* ------------------------------------------------------------------ a walk */
/* Whether the walk may look at inode. vol->inode.lock held. */
static bool walks_to(struct ext4_inode *inode)
{
	if (inode->inode.loading || inode->inode.evicting || inode->inode.bad)
		return false;
	/*
	 * An inode that a handle has open may be changed without its locks: a new one, to which
	 * only this hash leads other threads.
	 */
	return !__atomic_load_n(&inode->inode.begun, __ATOMIC_ACQUIRE);
}

unsigned ext4_inode_cache_walk(struct ext4_vol *vol, const struct ext4_walk *walk, uint32_t *left,
			struct ext4_inode **ret, unsigned max)
{
	unsigned n = 0, looked = 0;
	struct ext4_inode *inode;

	fdio_mutex_lock(&vol->inode.lock);
	for (; *left && n < max && looked++ < WALK_LOOK; --*left) {
		list_for_each(inode, &vol->inode.hash[vol->inode.walk_hand], inode.hash) {
			looked++;
			if (n == max || !walks_to(inode) ||
			    !walk->wanted(inode, inode->inode.refs > 0, walk->arg))
				continue;
			if (inode->inode.refs) {
				ext4_inode_use_locked(inode);
				ret[n++] = inode;
				continue;
			}
			/* The held lock keeps other threads from taking a reference. */
			walk->unreferenced(inode, walk->arg);
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
void ext4_inode_cache_fini(struct ext4_vol *vol)
{
	struct ext4_inode *inode, *next;

	if (!vol->inode.hash)
		return;
	/* Zombies are in no hash: only the stack of noted times leads to them. */
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
