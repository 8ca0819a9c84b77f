/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Mutexes and read-write locks that know their rank. A thread may take a lock only of a rank higher
 * than any it holds; equal ranks only for inode locks, in the order that src/ext4 documents. Builds
 * with --enable-debug or a sanitizer check it at each lock, and stop the program where it is
 * broken.
 *
 * The order, outermost first, is the order of the enum. Any thread; taking a lock cannot fail,
 * except for what tries (fdio_mutex_trylock, fdio_mutex_enter and their like).
 */
#ifndef FDIO_BASE_LOCK_H
#define FDIO_BASE_LOCK_H

#include "base/nowait.h"
#include "base/util.h"

#include <pthread.h>

enum fdio_lock_rank {
	RANK_NONE = 0,
	RANK_OPS_FILES,     /* ops: table of open files */
	RANK_EXT4_RENAME,     /* ext4: one rename across directories at a time */
	/* ext4: ext4_inode.rw; several at once in ascending inode number, ancestors first */
	RANK_EXT4_INODE,
	/* dio: range locks (the list's mutex; never held while waiting for I/O) */
	RANK_DIO_RANGE,
	RANK_EXT4_MAP,        /* ext4: ext4_inode.map_lock, changes of the extent map */
	RANK_JOURNAL_HANDLE,    /* journal: the one running handle */
	RANK_EXT4_ALLOC,      /* ext4: allocator bitmaps and counters */
	RANK_EXT4_ICACHE,     /* ext4: inode hash and its LRU */
	RANK_EXT4_ATTR,       /* ext4: ext4_inode.attr, never held across I/O */
	RANK_JOURNAL_STATE,     /* journal: transactions, cache lists */
	RANK_JOURNAL_BUF,       /* journal: content of one cached block */
	RANK_DEV,           /* dev: flush sequencer, sync rings */
	RANK_OPS_NOTIFY,    /* ops: records of page-cache invalidations */
	RANK_WORK,          /* base: work queues */
	RANK_LEAF,          /* held for a few instructions, nothing is taken under it */
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
/* Like pthread_cond_wait; the rank stays held across the wait. */
void fdio_cond_wait(pthread_cond_t *c, struct fdio_mutex *mutex) FDIO_BLOCKS;
/*
 * Waits at most until the absolute CLOCK_MONOTONIC time; the condition must come from
 * fdio_cond_init. False on timeout.
 */
bool fdio_cond_timedwait(pthread_cond_t *c, struct fdio_mutex *mutex,
			 uint64_t deadline_ns) FDIO_BLOCKS;
void fdio_cond_init(pthread_cond_t *c);

/*
 * For what may run in the mode of nowait.h: takes the lock and returns 0; in that mode -EAGAIN if
 * somebody has it. Locks that may be held across I/O, which are those up to RANK_JOURNAL_HANDLE but
 * for RANK_OPS_FILES, are taken with these there.
 */
int fdio_mutex_enter(struct fdio_mutex *mutex) FDIO_MAY_MISS;

/* Writers are preferred: a stream of readers cannot starve one. Not recursive. */
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
