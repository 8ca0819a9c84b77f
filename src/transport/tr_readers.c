/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which loops have a READ of /dev/fuse waiting. A request wakes all of them, and one gets it. A client that waits for each request
 * is served best by the loop on its own CPU, so all loops read, though all but one wake for nothing. When requests queue up, these
 * wake-ups cost more than sharing the work brings: then one loop, the leader, reads alone ("deep"), and others help only when it
 * cannot keep up.
 *
 * Deep begins with a loop that has found many requests at each of its last wakings: it is the leader, and every other loop parks at
 * its next waking. The leader recruits one when its batches are full or its slots used up, and all, which ends deep, when it has found
 * few requests for a while. How many read settles by itself: a recruit goes on while it gets full batches.
 *
 * R1 No loop is forgotten: one that parks sets `parked`, then looks at `deep` and the leader's `starved` again; whoever changes these
 *    looks at each `parked` afterwards. All are sequentially consistent: at least one side sees the other.
 * R2 No loop is recruited twice at a time: whoever exchanges `parked` from true recruits it, or is the loop itself, which then has
 *    not parked; and the loop does not park again before it has been resumed.
 * R3 `leader` changes only while deep is not on, and only the leader ends deep.
 */
#include "transport/tr_readers.h"

#include "base/counters.h"

#include <errno.h>
#include <stdlib.h>

#define TAKEN_MANY 6u           /* requests at one waking */
#define TAKEN_FEW 2u
#define MANY_TIMES 8u           /* wakings in a row that count */
#define FEW_TIMES 32u

static bool is_deep(struct tr_readers *s) { return __atomic_load_n(&s->deep, __ATOMIC_SEQ_CST); }
static unsigned leader_of(struct tr_readers *s) { return __atomic_load_n(&s->leader, __ATOMIC_RELAXED); }

bool tr_readers_starved(struct tr_readers *s, unsigned i) { return __atomic_load_n(&s->r[i].starved, __ATOMIC_SEQ_CST); }
void tr_readers_starve(struct tr_readers *s, unsigned i) { __atomic_store_n(&s->r[i].starved, true, __ATOMIC_SEQ_CST); }

void tr_readers_fed(struct tr_readers *s, unsigned i)
{
	/* The common case writes nothing: another thread that gives a slot back reads this line. */
	if (__atomic_load_n(&s->r[i].starved, __ATOMIC_RELAXED))
		__atomic_store_n(&s->r[i].starved, false, __ATOMIC_RELAXED);
}

int tr_readers_init(struct tr_readers *s, unsigned nr, void (*recruit)(void *arg, unsigned i), void *arg)
{
	*s = (struct tr_readers){ .nr = nr, .recruit = recruit, .arg = arg };
	s->r = fdio_alloc_aligned(FDIO_CACHELINE, nr * sizeof(*s->r));
	return s->r ? 0 : -ENOMEM;
}

void tr_readers_fini(struct tr_readers *s)
{
	free(s->r);
	s->r = NULL;
}

static bool take_parked(struct tr_reader *r)
{
	return __atomic_load_n(&r->parked, __ATOMIC_SEQ_CST) && __atomic_exchange_n(&r->parked, false, __ATOMIC_SEQ_CST);
}

static void recruit(struct tr_readers *s, unsigned i, unsigned n)
{
	for (unsigned k = 1; k < s->nr && n; k++) {
		unsigned other = (i + k) % s->nr;

		if (take_parked(&s->r[other])) {
			s->recruit(s->arg, other);
			n--;
		}
	}
}

void tr_readers_help(struct tr_readers *s, unsigned i) { recruit(s, i, 1); }

void tr_readers_resume(struct tr_readers *s, unsigned i)
{
	s->r[i].parking = false;
	s->r[i].many = s->r[i].few = 0;
}

/* The leader reads, or soon will. */
static bool may_park(struct tr_readers *s) { return is_deep(s) && !tr_readers_starved(s, leader_of(s)); }

static void park(struct tr_readers *s, unsigned i)
{
	struct tr_reader *r = &s->r[i];

	r->parking = true;
	__atomic_store_n(&r->parked, true, __ATOMIC_SEQ_CST); /* R1 */
	if (!may_park(s) && take_parked(r))
		tr_readers_resume(s, i);
}

static void begin_deep(struct tr_readers *s, unsigned i)
{
	/* Of two loops at the same moment one is the leader, and the other parks at its next waking. */
	if (__atomic_exchange_n(&s->changing, true, __ATOMIC_ACQUIRE))
		return;
	if (!is_deep(s)) { /* R3 */
		fdio_count(CTR_tr_deep);
		__atomic_store_n(&s->leader, i, __ATOMIC_RELAXED);
		__atomic_store_n(&s->deep, true, __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&s->changing, false, __ATOMIC_RELEASE);
}

static void lead(struct tr_readers *s, unsigned i)
{
	struct tr_reader *r = &s->r[i];

	if (r->few >= FEW_TIMES) {
		r->few = 0;
		__atomic_store_n(&s->deep, false, __ATOMIC_SEQ_CST);
		recruit(s, i, s->nr);
	} else if (r->many >= MANY_TIMES) {
		r->many = 0;
		recruit(s, i, 1);
	}
}

bool tr_readers_taken(struct tr_readers *s, unsigned i, unsigned taken)
{
	struct tr_reader *r = &s->r[i];
	bool deep = is_deep(s);

	if (r->parking)
		return false; /* R2 */
	r->many = taken >= (deep ? TR_TAKE_BATCH : TAKEN_MANY) ? r->many + 1 : 0;
	r->few = taken <= TAKEN_FEW ? r->few + 1 : 0;
	if (s->nr < 2)
		return true;
	if (!deep) {
		if (r->many >= MANY_TIMES) {
			r->many = r->few = 0;
			begin_deep(s, i);
		}
	} else if (leader_of(s) == i) {
		lead(s, i);
	} else if (!r->many && may_park(s)) {
		park(s, i);
	}
	return !r->parking;
}
