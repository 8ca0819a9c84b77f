/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trying without waiting. A loop thread may run an operation that could have to wait. Between
 * nowait_begin and nowait_end ("in this mode") such an operation does not wait: it misses, which
 * means that it fails with -EAGAIN, and a worker does it again.
 *
 * NOWAIT-1 Whatever would wait calls nowait_miss instead: for a block that is not in memory, for a
 *    lock that may be held across I/O (fdio_mutex_enter and its like in lock.h), for a condition,
 *    or for room in the log. The same holds for what would take long, and for damage
 *    (ext4_corrupt), which is reported once, by a worker, that may write it to the superblock.
 * NOWAIT-2 A miss sticks. Even if a caller mistakes -EAGAIN for another error and goes on, the
 *    operation fails: no handle ends well after a miss (nowait_err), and no reply is sent.
 * NOWAIT-3 An operation that has missed leaves nothing behind: its handle is cancelled, and its
 *    references are dropped.
 * NOWAIT-4 After its handle has ended well, an operation does not miss any more. If a remaining
 *    step would wait, the operation either skips it, because it is only an optimisation
 *    (nowait_save, nowait_restore), or leaves it to a worker.
 *
 * Code that waits in this mode fails an assertion: in fdio_cond_wait, in the device's synchronous
 * calls and, in builds that check ranks, where a lock is taken that may be held across I/O. The
 * mode is a state of the thread; there are no locks.
 *
 * Each prototype in a header says what its function does in this mode. `make check-waits` compares
 * that with the calls (build-aux/check-waits.py), `make check-waits ARGS=--fix` sets the marks:
 *
 *   no mark        It never waits, except for a lock that is held for moments; check-waits treats
 *                  fdio_mutex_lock by rank (LONG_RANKS). Any thread may call it, in this mode or
 *                  not.
 *   FDIO_MAY_MISS  In this mode it may miss, and returns -EAGAIN then. Otherwise it may wait.
 *   FDIO_MAY_WAIT  In this mode it does not wait, but its result does not say whether it has
 *                  missed: callers that need to know ask nowait_missed. Otherwise it may wait.
 *   FDIO_BLOCKS    It may wait whatever the mode, so it must not be called in this mode.
 */
#ifndef FDIO_BASE_NOWAIT_H
#define FDIO_BASE_NOWAIT_H

#include "base/util.h"

#include <errno.h>

#define FDIO_MAY_MISS __attribute__((warn_unused_result))
#define FDIO_MAY_WAIT
#define FDIO_BLOCKS

struct nowait {
	bool on, missed;
	bool done;        /* a handle has ended well since nowait_begin: NOWAIT-4 */
	unsigned fail_at; /* tests: the fail_at-th nowait_point returns true; 0: none does */
};
extern __thread struct nowait nowait_self;

static inline bool nowait_on(void) { return unlikely(nowait_self.on); }
static inline bool nowait_missed(void) { return nowait_on() && nowait_self.missed; }

void nowait_begin(void);
/* True if the operation has missed. */
bool nowait_end(void);
/* Notes that the operation misses, and returns -EAGAIN. In this mode only. */
int nowait_miss(void);
/*
 * Called where an operation might have to wait. Returns true if the operation must miss although it
 * need not wait; only tests make that happen (fail_at).
 */
static inline bool nowait_point(void)
{
	return nowait_on() && unlikely(nowait_self.fail_at) && --nowait_self.fail_at == 0;
}
/* The result of an operation that is about to become final: -EAGAIN after a miss (NOWAIT-2). */
static inline int nowait_err(int err) { return nowait_missed() ? -EAGAIN : err; }

/* For the result of a function that may miss, where neither a miss nor another error matters. */
static inline void nowait_ignore(int err) { (void)err; }

/* Around calls whose misses do no harm (NOWAIT-4): restore forgets them. */
static inline struct nowait nowait_save(void) { return nowait_self; }
static inline void nowait_restore(struct nowait saved)
{
	nowait_self.missed = saved.missed;
	nowait_self.done = saved.done;
}

#endif
