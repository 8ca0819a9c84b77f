/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Trying without waiting. A loop thread may run an operation that could have to wait: between
 * nowait_begin and nowait_end whatever would wait fails with -EAGAIN instead, and the operation is
 * done again by a worker.
 *
 * NOWAIT-1 What would wait calls nowait_miss: a block that is not in memory, a lock that may be
 * held across I/O and is taken
 *    (fdio_mutex_enter and its like in lock.h), a condition, room in the log. So does what would
 *    take long, and damage
 *    (ext4_corrupt), so that it is told once and by a thread that may write it down.
 * NOWAIT-2 A miss sticks. Whoever takes an error for something else on the way changes nothing: a
 * handle does not end well after a
 *    miss (nowait_err), and no answer is given.
 * NOWAIT-3 An operation that has missed leaves nothing behind: its handle is cancelled, its
 * references are dropped. NOWAIT-4 After its handle has ended well an operation does not miss any
 * more. What is only an advantage afterwards (nowait_save,
 *    nowait_restore) or can be left to somebody else is done so.
 *
 * Waiting all the same is an assertion in fdio_cond_wait and in the device's synchronous calls,
 * and, where ranks are checked, in taking a lock that may be held across I/O. Per thread; no locks.
 *
 * Each prototype in a header tells what its function does about this. `make check-waits` compares
 * that with the calls (build-aux/check-waits.py), `make check-waits ARGS=--fix` sets the marks:
 *
 *   no mark        It never waits. Any thread may call it, in this mode or not.
 *   FDIO_MAY_MISS  In this mode it may miss, and returns -EAGAIN then. Otherwise it may wait.
 *   FDIO_MAY_WAIT  Otherwise it may wait. In this mode it does not, and its result does not tell
 *                  whether it has missed: nowait_missed does, or nobody needs to know.
 *   FDIO_BLOCKS    It may wait in this mode too, which is an assertion: never on a loop thread.
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
	unsigned fail_at; /* tests: the so many-th place from now that might wait does; 0: none */
};
extern __thread struct nowait nowait_self;

static inline bool nowait_on(void) { return unlikely(nowait_self.on); }
static inline bool nowait_missed(void) { return nowait_on() && nowait_self.missed; }

void nowait_begin(void);
/* True if something would have waited. */
bool nowait_end(void);
/* Here it would have to wait: -EAGAIN. Only in this mode. */
int nowait_miss(void);
/*
 * Called at each place that might wait: true if it must be taken for one that would. Only tests
 * make it so.
 */
static inline bool nowait_point(void)
{
	return nowait_on() && unlikely(nowait_self.fail_at) && --nowait_self.fail_at == 0;
}
/* The result of an operation that is about to become final: -EAGAIN after a miss (NOWAIT-2). */
static inline int nowait_err(int err) { return nowait_missed() ? -EAGAIN : err; }

/* For the result of a function that may miss, where neither a miss nor another error matters. */
static inline void nowait_ignore(int err) { (void)err; }

/* Around what may miss without harm (NOWAIT-4). */
static inline struct nowait nowait_save(void) { return nowait_self; }
static inline void nowait_restore(struct nowait saved)
{
	nowait_self.missed = saved.missed;
	nowait_self.done = saved.done;
}

#endif
