/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory of the extent maps and of reservations: ordinary memory, and a reserve for when there is
 * none, so that writing into a file at such a time does not lose its map, and a map that was
 * dropped can be loaded. A piece of the reserve holds one chunk of a map. Where that is not enough,
 * as for the map of a file of more than 256 extents that is to be loaded, there is no memory.
 *
 * One reserve for all volumes; it is made when the first one opens and stays. Any thread. Pieces
 * come back through the epochs.
 *
 * What is allocated is counted, so that maps can be given up when they are too many
 * (data/map_evict.c).
 */
#include "ext4/data/map.h"

#include "base/counters.h"
#include "base/lock.h"
#include "base/poison.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

/*
 * PIECE: 256 extents of a reservation. PIECES: a write takes a few, and what it replaces comes back
 * some retirements later.
 */
enum { PIECES = 96, PIECE = 6272 };

struct piece { struct piece *next; uint8_t rest[PIECE - sizeof(struct piece *)]; };

static struct fdio_mutex lock;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct piece *pieces, *unused; /* unused: lock */
static size_t used;                   /* atomic: bytes of ordinary memory */

static void make(void)
{
	fdio_mutex_init(&lock, RANK_LEAF);
	pieces = fdio_alloc_aligned(FDIO_CACHELINE, PIECES * sizeof(*pieces));
	for (unsigned k = 0; pieces && k < PIECES; k++) {
		pieces[k].next = unused;
		unused = &pieces[k];
		fdio_poison(pieces[k].rest, sizeof(pieces[k].rest));
	}
}

int ext4_map_mem_init(void)
{
	return pthread_once(&once, make) || !pieces ? -ENOMEM : 0;
}

static bool of_reserve(const void *p)
{
	return pieces && (uintptr_t)p >= (uintptr_t)pieces &&
	       (uintptr_t)p < (uintptr_t)(pieces + PIECES);
}

void *ext4_map_mem(size_t size)
{
	void *p = malloc(size);
	struct piece *piece;

	if (likely(p))
		__atomic_add_fetch(&used, malloc_usable_size(p), __ATOMIC_RELAXED);
	if (likely(p) || size > PIECE || !pieces)
		return p;
	fdio_mutex_lock(&lock);
	piece = unused;
	if (piece)
		unused = piece->next;
	fdio_mutex_unlock(&lock);
	if (piece) {
		fdio_unpoison(piece, size);
		fdio_count(COUNTER_ext4_map_reserve);
	}
	return piece;
}

void ext4_map_mem_free(void *p)
{
	struct piece *piece = p;

	if (likely(!of_reserve(p))) {
		if (p)
			__atomic_sub_fetch(&used, malloc_usable_size(p), __ATOMIC_RELAXED);
		free(p);
		return;
	}
	fdio_mutex_lock(&lock);
	fdio_unpoison(piece, PIECE);
	piece->next = unused;
	unused = piece;
	fdio_poison(piece->rest, sizeof(piece->rest));
	fdio_mutex_unlock(&lock);
}

size_t ext4_map_mem_used(void) { return __atomic_load_n(&used, __ATOMIC_RELAXED); }

void ext4_map_mem_check(struct ext4_vol *vol)
{
	size_t now = ext4_map_mem_used();

	void (*crowded)(struct ext4_vol * vol) =
			__atomic_load_n(&vol->data.crowded, __ATOMIC_ACQUIRE);

	if (likely(now <= vol->data.map_budget) || !crowded)
		return;
	/* It has just found them all in use. */
	if (now / 2 <= vol->data.map_budget &&
	    fdio_now_ns() < __atomic_load_n(&vol->data.map_rest_ns, __ATOMIC_RELAXED))
		return;
	crowded(vol);
}

void ext4_maps_set_crowded(struct ext4_vol *vol, void (*fn)(struct ext4_vol *vol))
{
	__atomic_store_n(&vol->data.crowded, fn, __ATOMIC_RELEASE);
}
