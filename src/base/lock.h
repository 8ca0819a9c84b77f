/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mutexes and read-write locks that know their rank. The ranks, outermost first, are in the order
 * of the enum: a thread may take a lock only if its rank is higher than those of all locks that it
 * holds. Inode locks alone may follow each other, in the order that ext4/dir/names.c and rename.c
 * give. Builds with --enable-debug or a sanitizer check this at each lock, and abort where it is
 * broken.
 *
 * Any thread. Taking a lock cannot fail, except by the functions that try (fdio_mutex_trylock,
 * fdio_mutex_enter and their like).
 */
#ifndef FDIO_BASE_LOCK_H
#define FDIO_BASE_LOCK_H

#include "base/nowait.h"
#include "base/util.h"

#include <pthread.h>

enum fdio_lock_rank {
	RANK_NONE = 0,
	RANK_OPS_FILES,      /* ops: the table of open files */
	RANK_EXT4_RENAME,    /* ext4: one rename across directories at a time */
	RANK_EXT4_INODE,     /* ext4: ext4_inode.rw; several by number, ancestors first */
	RANK_DIO_RANGE,      /* dio: the list of range locks; not held while waiting for I/O */
	RANK_EXT4_MAP,       /* ext4: ext4_inode.map_lock, changes of the extent map */
	RANK_JOURNAL_HANDLE, /* journal: the one running handle */
	RANK_EXT4_ALLOC,     /* ext4: the allocator's bitmaps and counters */
	RANK_EXT4_ICACHE,    /* ext4: the inode cache: hash and LRU list */
	RANK_EXT4_ATTR,      /* ext4: ext4_inode.attr, never held across I/O */
	RANK_JOURNAL_STATE,  /* journal: transactions, lists of the block cache */
	RANK_JOURNAL_INNER,  /* journal: a shard of the block cache; log.superblock_lock */
	RANK_DEV,            /* dev: the flush sequencer, the rings of synchronous calls */
	RANK_OPS_NOTIFY,     /* ops: records of page-cache notifications */
	RANK_WORK,           /* base: work queues */
	RANK_LEAF,           /* held for a few instructions; no lock is taken under it */
};

struct fdio_mutex {
	pthread_mutex_t m;
	enum fdio_lock_rank rank;
};

struct fdio_rwlock {
	pthread_rwlock_t l;
	enum fdio_lock_rank rank;
};

void fdio_mutex_init(struct fdio_mutex *mutex, enum fdio_lock_rank rank);
void fdio_mutex_fini(struct fdio_mutex *mutex);
void fdio_mutex_lock(struct fdio_mutex *mutex);
bool fdio_mutex_trylock(struct fdio_mutex *mutex);
void fdio_mutex_unlock(struct fdio_mutex *mutex);
/* As pthread_cond_wait. The rank counts as held while the thread waits. */
void fdio_cond_wait(pthread_cond_t *cond, struct fdio_mutex *mutex) FDIO_BLOCKS;
/*
 * As fdio_cond_wait, but returns false once deadline_ns (a time of fdio_now_ns) has passed. cond
 * must have been initialised by fdio_cond_init.
 */
bool fdio_cond_timedwait(pthread_cond_t *cond, struct fdio_mutex *mutex,
			 uint64_t deadline_ns) FDIO_BLOCKS;
void fdio_cond_init(pthread_cond_t *cond);

/*
 * Takes the lock and returns 0; in the mode of nowait.h it misses (-EAGAIN) if another thread has
 * the lock. In that mode, locks that may be held across I/O must be taken with this function and
 * its like: all locks up to RANK_JOURNAL_HANDLE, except RANK_OPS_FILES.
 */
int fdio_mutex_enter(struct fdio_mutex *mutex) FDIO_MAY_MISS;

/* Writers are preferred, so a stream of readers cannot starve a writer. Not recursive. */
void fdio_rwlock_init(struct fdio_rwlock *rwlock, enum fdio_lock_rank rank);
void fdio_rwlock_fini(struct fdio_rwlock *rwlock);
void fdio_rwlock_rdlock(struct fdio_rwlock *rwlock) FDIO_BLOCKS;
void fdio_rwlock_wrlock(struct fdio_rwlock *rwlock) FDIO_BLOCKS;
bool fdio_rwlock_tryrdlock(struct fdio_rwlock *rwlock);
bool fdio_rwlock_trywrlock(struct fdio_rwlock *rwlock);
void fdio_rwlock_unlock(struct fdio_rwlock *rwlock);
int fdio_rwlock_rdenter(struct fdio_rwlock *rwlock) FDIO_MAY_MISS; /* as fdio_mutex_enter */
int fdio_rwlock_wrenter(struct fdio_rwlock *rwlock) FDIO_MAY_MISS;

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t fdio_now_ns(void);

#endif
