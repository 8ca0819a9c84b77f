/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The set of directory blocks that a walk through an index has been to. The index of an honest file
 * system names each block once; an index that names blocks again could make a walk endless. The
 * first few blocks are kept in the set itself, which is enough for most walks.
 *
 * Threads: the set belongs to the thread of its walk (index.c, listing.c). Fails with -ENOMEM.
 */
#include "ext4/dir/directory.h"

#include <errno.h>
#include <stdlib.h>

/* A hash table of lblk + 1 with open addressing, at most half full; 0 is an empty slot. */
static bool put(uint32_t *slot, unsigned cap, uint32_t lblk)
{
	unsigned n = (unsigned)(lblk * 2654435761u) & (cap - 1);

	for (; slot[n]; n = (n + 1) & (cap - 1))
		if (slot[n] == lblk + 1)
			return false;
	slot[n] = lblk + 1;
	return true;
}

static int grow(struct dir_seen *seen)
{
	unsigned cap = seen->cap ? seen->cap * 2 : 4 * DIR_SEEN_FEW;
	uint32_t *slot = calloc(cap, sizeof *slot);

	if (!slot)
		return -ENOMEM;
	for (unsigned n = 0; n < seen->cap; n++)
		if (seen->slot[n])
			put(slot, cap, seen->slot[n] - 1);
	for (unsigned n = 0; !seen->cap && n < seen->nr; n++)
		put(slot, cap, seen->few[n]);
	free(seen->slot);
	seen->slot = slot;
	seen->cap = cap;
	return 0;
}

int dir_seen_add(struct dir_seen *seen, uint32_t lblk)
{
	if (!seen->cap) {
		for (unsigned n = 0; n < seen->nr; n++)
			if (seen->few[n] == lblk)
				return 0;
		if (seen->nr < DIR_SEEN_FEW) {
			seen->few[seen->nr++] = lblk;
			return 1;
		}
	}
	if (seen->nr >= seen->cap / 2 && grow(seen))
		return -ENOMEM;
	if (!put(seen->slot, seen->cap, lblk))
		return 0;
	seen->nr++;
	return 1;
}

void dir_seen_clear(struct dir_seen *seen)
{
	free(seen->slot);
	seen->slot = NULL;
	seen->cap = seen->nr = 0;
}
