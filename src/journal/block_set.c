/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A set of block numbers, as a hash table with open addressing: what a transaction has revoked. The
 * owner guards it (handle and state lock for the running transaction); any thread. Failure is -ENOMEM
 * and changes nothing; looking and deleting cannot fail.
 */
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

static unsigned set_home(const struct jset *s, uint64_t key)
{
	return (unsigned)((key * 0x9e3779b97f4a7c15ULL) >> 32) & (s->cap - 1);
}

static unsigned set_find(const struct jset *s, uint64_t key)
{
	unsigned i = set_home(s, key);

	while (s->slot[i] && s->slot[i] != key)
		i = (i + 1) & (s->cap - 1);
	return i;
}

static int set_resize(struct jset *s, unsigned cap)
{
	struct jset bigger = { .cap = cap };

	bigger.slot = calloc(bigger.cap, sizeof(*bigger.slot));
	if (!bigger.slot)
		return -ENOMEM;
	for (unsigned i = 0; i < s->cap; i++)
		if (s->slot[i])
			bigger.slot[set_find(&bigger, s->slot[i])] = s->slot[i];
	bigger.nr = s->nr;
	free(s->slot);
	*s = bigger;
	return 0;
}

int jset_reserve(struct jset *s, unsigned n)
{
	unsigned cap = FDIO_MAX(s->cap, 64u);

	while ((s->nr + n) * 2 > cap)
		cap *= 2;
	return cap == s->cap ? 0 : set_resize(s, cap);
}

int jset_add(struct jset *s, uint64_t blk)
{
	unsigned i;
	int r;

	if (jset_has(s, blk))
		return 0;
	r = jset_reserve(s, 1);
	if (r)
		return r;
	i = set_find(s, blk + 1);
	s->slot[i] = blk + 1;
	s->nr++;
	return 1;
}

bool jset_has(const struct jset *s, uint64_t blk)
{
	return s->nr && s->slot[set_find(s, blk + 1)];
}

bool jset_del(struct jset *s, uint64_t blk)
{
	unsigned hole, i;

	if (!s->nr)
		return false;
	hole = set_find(s, blk + 1);
	if (!s->slot[hole])
		return false;
	/* Close the gap: move back every later key of the run whose home is not between the hole and itself. */
	for (i = (hole + 1) & (s->cap - 1); s->slot[i]; i = (i + 1) & (s->cap - 1)) {
		unsigned home = set_home(s, s->slot[i]);

		if (((i - home) & (s->cap - 1)) >= ((i - hole) & (s->cap - 1))) {
			s->slot[hole] = s->slot[i];
			hole = i;
		}
	}
	s->slot[hole] = 0;
	s->nr--;
	return true;
}

void jset_clear(struct jset *s)
{
	if (s->nr)
		memset(s->slot, 0, s->cap * sizeof(*s->slot));
	s->nr = 0;
}

void jset_fini(struct jset *s)
{
	free(s->slot);
	memset(s, 0, sizeof(*s));
}
