/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Ranked locks, see lock.h. Any thread. Builds that check ranks keep a stack of the locks that each
 * thread holds.
 *
 * FDIO_MUST wraps the calls of pthread functions: on these locks they fail only when misused, and
 * glibc allocates nothing for them. No caller could go on without its lock.
 */
#ifdef HAVE_CONFIG_H
#include "config.h"
#endif
#include "base/lock.h"

#include "base/nowait.h"

#include <errno.h>
#include <time.h>

#ifdef FDIO_DEBUG_LOCKS
/*
 * No legal nesting is deeper than 64: there are fewer ranks, and at most four inodes are locked at
 * once.
 */
static __thread struct { const void *lock; enum fdio_lock_rank rank; } held[64];
static __thread unsigned nr_held;

static bool rank_may_repeat(enum fdio_lock_rank rank) { return rank == RANK_EXT4_INODE; }

static void rank_push(const void *lock, enum fdio_lock_rank rank, bool waiting)
{
	if (waiting)
		FDIO_ASSERT(!nowait_on() || rank == RANK_OPS_FILES || rank > RANK_JOURNAL_HANDLE);
	if (waiting)
		for (unsigned i = 0; i < nr_held; i++) {
			FDIO_ASSERT(held[i].lock != lock);
			FDIO_ASSERT(held[i].rank < rank ||
				    (held[i].rank == rank && rank_may_repeat(rank)));
		}
	FDIO_ASSERT(nr_held < ARRAY_SIZE(held));
	held[nr_held].lock = lock;
	held[nr_held++].rank = rank;
}

static void rank_pop(const void *lock)
{
	for (unsigned i = nr_held; i-- > 0;)
		if (held[i].lock == lock) {
			for (; i + 1 < nr_held; i++)
				held[i] = held[i + 1];
			nr_held--;
			return;
		}
	FDIO_ASSERT(!"unlock of a lock that this thread does not hold");
}
#else
static inline void rank_push(const void *lock, enum fdio_lock_rank rank, bool waiting)
{
	(void)lock;
	(void)rank;
	(void)waiting;
}
static inline void rank_pop(const void *lock) { (void)lock; }
#endif

void fdio_mutex_init(struct fdio_mutex *mutex, enum fdio_lock_rank rank)
{
	FDIO_MUST(pthread_mutex_init(&mutex->m, NULL) == 0);
	mutex->rank = rank;
}

void fdio_mutex_fini(struct fdio_mutex *mutex) { FDIO_MUST(pthread_mutex_destroy(&mutex->m) == 0); }

void fdio_mutex_lock(struct fdio_mutex *mutex)
{
	rank_push(mutex, mutex->rank, true);
	FDIO_MUST(pthread_mutex_lock(&mutex->m) == 0);
}

bool fdio_mutex_trylock(struct fdio_mutex *mutex)
{
	if (pthread_mutex_trylock(&mutex->m))
		return false;
	rank_push(mutex, mutex->rank, false);
	return true;
}

/*
 * A handle is usually held for a short time, by a thread that is running: trying a few hundred
 * times is cheaper than handing the operation to a worker.
 */
#define ENTER_SPINS 400

int fdio_mutex_enter(struct fdio_mutex *mutex)
{
	unsigned spins = mutex->rank == RANK_JOURNAL_HANDLE ? ENTER_SPINS : 1;

	if (!nowait_on()) {
		fdio_mutex_lock(mutex);
		return 0;
	}
	if (nowait_point())
		return nowait_miss();
	while (spins--) {
		if (fdio_mutex_trylock(mutex))
			return 0;
		fdio_cpu_relax();
	}
	return nowait_miss();
}

void fdio_mutex_unlock(struct fdio_mutex *mutex)
{
	rank_pop(mutex);
	FDIO_MUST(pthread_mutex_unlock(&mutex->m) == 0);
}

void fdio_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t a;

	FDIO_MUST(pthread_condattr_init(&a) == 0);
	FDIO_MUST(pthread_condattr_setclock(&a, CLOCK_MONOTONIC) == 0);
	FDIO_MUST(pthread_cond_init(cond, &a) == 0);
	pthread_condattr_destroy(&a);
}

void fdio_cond_wait(pthread_cond_t *cond, struct fdio_mutex *mutex)
{
	FDIO_ASSERT(!nowait_on());
	FDIO_MUST(pthread_cond_wait(cond, &mutex->m) == 0);
}

bool fdio_cond_timedwait(pthread_cond_t *cond, struct fdio_mutex *mutex, uint64_t deadline_ns)
{
	struct timespec ts = { .tv_sec = deadline_ns / 1000000000,
			       .tv_nsec = deadline_ns % 1000000000 };

	FDIO_ASSERT(!nowait_on());
	int err = pthread_cond_timedwait(cond, &mutex->m, &ts);

	FDIO_MUST(err == 0 || err == ETIMEDOUT);
	return err == 0;
}

/* Writers must not wait for ever behind readers; musl knows no such choice. */
static void prefer_writers(pthread_rwlockattr_t *a)
{
#ifdef __GLIBC__
	FDIO_MUST(pthread_rwlockattr_setkind_np(a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) ==
		  0);
#else
	(void)a;
#endif
}

void fdio_rwlock_init(struct fdio_rwlock *rwlock, enum fdio_lock_rank rank)
{
	pthread_rwlockattr_t a;

	FDIO_MUST(pthread_rwlockattr_init(&a) == 0);
	prefer_writers(&a);
	FDIO_MUST(pthread_rwlock_init(&rwlock->l, &a) == 0);
	pthread_rwlockattr_destroy(&a);
	rwlock->rank = rank;
}

void fdio_rwlock_fini(struct fdio_rwlock *rwlock)
{
	FDIO_MUST(pthread_rwlock_destroy(&rwlock->l) == 0);
}

void fdio_rwlock_rdlock(struct fdio_rwlock *rwlock)
{
	rank_push(rwlock, rwlock->rank, true);
	FDIO_MUST(pthread_rwlock_rdlock(&rwlock->l) == 0);
}

void fdio_rwlock_wrlock(struct fdio_rwlock *rwlock)
{
	rank_push(rwlock, rwlock->rank, true);
	FDIO_MUST(pthread_rwlock_wrlock(&rwlock->l) == 0);
}

bool fdio_rwlock_tryrdlock(struct fdio_rwlock *rwlock)
{
	if (pthread_rwlock_tryrdlock(&rwlock->l))
		return false;
	rank_push(rwlock, rwlock->rank, false);
	return true;
}

bool fdio_rwlock_trywrlock(struct fdio_rwlock *rwlock)
{
	if (pthread_rwlock_trywrlock(&rwlock->l))
		return false;
	rank_push(rwlock, rwlock->rank, false);
	return true;
}

int fdio_rwlock_rdenter(struct fdio_rwlock *rwlock)
{
	if (!nowait_on()) {
		fdio_rwlock_rdlock(rwlock);
		return 0;
	}
	return !nowait_point() && fdio_rwlock_tryrdlock(rwlock) ? 0 : nowait_miss();
}

int fdio_rwlock_wrenter(struct fdio_rwlock *rwlock)
{
	if (!nowait_on()) {
		fdio_rwlock_wrlock(rwlock);
		return 0;
	}
	return !nowait_point() && fdio_rwlock_trywrlock(rwlock) ? 0 : nowait_miss();
}

void fdio_rwlock_unlock(struct fdio_rwlock *rwlock)
{
	rank_pop(rwlock);
	FDIO_MUST(pthread_rwlock_unlock(&rwlock->l) == 0);
}

uint64_t fdio_now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
