/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A set of block numbers, as a hash table with open addressing: the blocks that a transaction has
 * revoked. The table is never more than half full, so a search always ends at an empty slot.
 *
 * Any thread, loop threads included; never waits. The owner guards it: handle lock and state lock
 * for the running transaction. Failure is -ENOMEM and changes nothing; looking and removing cannot
 * fail.
 */
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

static unsigned set_home(const struct journal_block_set *set, uint64_t key)
{
	return (unsigned)((key * 0x9e3779b97f4a7c15ULL) >> 32) & (set->cap - 1);
}

static unsigned set_find(const struct journal_block_set *set, uint64_t key)
{
	unsigned i = set_home(set, key);

	while (set->slot[i] && set->slot[i] != key)
		i = (i + 1) & (set->cap - 1);
	return i;
}

static int set_resize(struct journal_block_set *set, unsigned cap)
{
	struct journal_block_set bigger = { .cap = cap };

	bigger.slot = calloc(bigger.cap, sizeof(*bigger.slot));
	if (!bigger.slot)
		return -ENOMEM;
	for (unsigned i = 0; i < set->cap; i++)
		if (set->slot[i])
			bigger.slot[set_find(&bigger, set->slot[i])] = set->slot[i];
	bigger.nr = set->nr;
	free(set->slot);
	*set = bigger;
	return 0;
}

int journal_block_set_reserve(struct journal_block_set *set, unsigned n)
{
	unsigned cap = FDIO_MAX(set->cap, 64u);

	while ((set->nr + n) * 2 > cap)
		cap *= 2;
	return cap == set->cap ? 0 : set_resize(set, cap);
}

int journal_block_set_add(struct journal_block_set *set, uint64_t blk)
{
	unsigned i;
	int err;

	if (journal_block_set_has(set, blk))
		return 0;
	err = journal_block_set_reserve(set, 1);
	if (err)
		return err;
	i = set_find(set, blk + 1);
	set->slot[i] = blk + 1;
	set->nr++;
	return 1;
}

bool journal_block_set_has(const struct journal_block_set *set, uint64_t blk)
{
	return set->nr && set->slot[set_find(set, blk + 1)];
}

bool journal_block_set_remove(struct journal_block_set *set, uint64_t blk)
{
	unsigned hole, i;

	if (!set->nr)
		return false;
	hole = set_find(set, blk + 1);
	if (!set->slot[hole])
		return false;
	/*
	 * Close the gap: of the keys that follow without an empty slot between, move into the hole
	 * each whose search would pass the hole (its home slot is not behind the hole).
	 */
	for (i = (hole + 1) & (set->cap - 1); set->slot[i]; i = (i + 1) & (set->cap - 1)) {
		unsigned home = set_home(set, set->slot[i]);

		if (((i - home) & (set->cap - 1)) >= ((i - hole) & (set->cap - 1))) {
			set->slot[hole] = set->slot[i];
			hole = i;
		}
	}
	set->slot[hole] = 0;
	set->nr--;
	return true;
}

void journal_block_set_clear(struct journal_block_set *set)
{
	if (set->nr)
		memset(set->slot, 0, set->cap * sizeof(*set->slot));
	set->nr = 0;
}

void journal_block_set_fini(struct journal_block_set *set)
{
	free(set->slot);
	memset(set, 0, sizeof(*set));
}
