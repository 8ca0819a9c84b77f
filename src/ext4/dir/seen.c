/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which blocks of a directory a walk through its index has been to. An index of an honest file
 * system names each block once; one that names a block again could make a walk as long as it likes.
 * Called by the walks of dir/index.c and dir/listing.c, on the thread of each, which owns the set.
 * The first few blocks are in the set itself: most walks end there. Fails with -ENOMEM.
 */
#include "ext4/dir/directory.h"

#include <errno.h>
#include <stdlib.h>

/* An open hash table of lblk + 1; 0 is empty. At most half full. */
static bool put(uint32_t *slot, unsigned cap, uint32_t lblk)
{
	unsigned n = (unsigned)(lblk * 2654435761u) & (cap - 1);

	for (; slot[n]; n = (n + 1) & (cap - 1))
		if (slot[n] == lblk + 1)
			return false;
	slot[n] = lblk + 1;
	return true;
}

static int grow(struct dir_seen *s)
{
	unsigned cap = s->cap ? s->cap * 2 : 4 * DIR_SEEN_FEW;
	uint32_t *slot = calloc(cap, sizeof *slot);

	if (!slot)
		return -ENOMEM;
	for (unsigned n = 0; n < s->cap; n++)
		if (s->slot[n])
			put(slot, cap, s->slot[n] - 1);
	for (unsigned n = 0; !s->cap && n < s->nr; n++)
		put(slot, cap, s->few[n]);
	free(s->slot);
	s->slot = slot;
	s->cap = cap;
	return 0;
}

int dir_seen_add(struct dir_seen *s, uint32_t lblk)
{
	if (!s->cap) {
		for (unsigned n = 0; n < s->nr; n++)
			if (s->few[n] == lblk)
				return 0;
		if (s->nr < DIR_SEEN_FEW) {
			s->few[s->nr++] = lblk;
			return 1;
		}
	}
	if (s->nr >= s->cap / 2 && grow(s))
		return -ENOMEM;
	if (!put(s->slot, s->cap, lblk))
		return 0;
	s->nr++;
	return 1;
}

void dir_seen_clear(struct dir_seen *s)
{
	free(s->slot);
	s->slot = NULL;
	s->cap = s->nr = 0;
}
