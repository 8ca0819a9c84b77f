/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which loops read /dev/fuse, see tr_readers.c. One for each loop; each function is called on that loop's thread with its number.
 * Used by tr_devfuse.c, and by the unit tests without a kernel.
 */
#ifndef FDIO_TRANSPORT_TR_READERS_H
#define FDIO_TRANSPORT_TR_READERS_H

#include "base/util.h"

/* At most so many requests are taken at one waking, before completions get their turn. */
#define TR_TAKE_BATCH 32u

struct tr_reader {
	bool parking;              /* it arms no READ; loop thread only */
	unsigned many, few;        /* wakings in a row; loop thread only */
	bool parked;               /* atomic: may be recruited */
	bool starved;              /* atomic: it has no slot to arm, T1 in tr_devfuse.c */
} fdio_cacheline_aligned;

struct tr_readers {
	unsigned nr;
	struct tr_reader *r;       /* by loop index */
	bool deep, changing;       /* atomic */
	unsigned leader;           /* atomic */
	/* Has tr_readers_resume called on loop i's thread, then a READ armed. Once a call, which is not repeated before that. */
	void (*recruit)(void *arg, unsigned i);
	void *arg;
};

int tr_readers_init(struct tr_readers *s, unsigned nr, void (*recruit)(void *arg, unsigned i), void *arg);
void tr_readers_fini(struct tr_readers *s);

/* Loop i has woken, taken so many requests, and has no READ armed: false if it is to leave the reading to others. */
bool tr_readers_taken(struct tr_readers *s, unsigned i, unsigned taken);
static inline bool tr_readers_may_arm(const struct tr_readers *s, unsigned i) { return !s->r[i].parking; }
void tr_readers_resume(struct tr_readers *s, unsigned i);

/* Loop i has no slot left, and calls ..._help when that is so after another look; it has one again. */
void tr_readers_starve(struct tr_readers *s, unsigned i);
void tr_readers_help(struct tr_readers *s, unsigned i);
void tr_readers_fed(struct tr_readers *s, unsigned i);
/* Any thread. */
bool tr_readers_starved(struct tr_readers *s, unsigned i);

#endif
