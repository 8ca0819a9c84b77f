/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory of extent maps and of reservations: ordinary memory, and a small reserve for when there is
 * none. Without the reserve, a write in such a moment would lose the map of its file, and a map
 * that was dropped could not be loaded again. One piece of the reserve holds one chunk of a map. A
 * larger allocation, such as for loading the map of a file with more than 256 extents, fails with
 * NULL.
 *
 * There is one reserve for all volumes; the first volume that opens makes it, and it stays. Any
 * thread; the reserve has a leaf lock. Pieces of a map come back through the epochs.
 *
 * The allocated bytes are counted, so that maps can be evicted when they take too much
 * (map_evict.c).
 */
#include "ext4/data/map.h"

#include "base/counters.h"
#include "base/lock.h"
#include "base/poison.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

/*
 * PIECE, in bytes, is enough for 256 extents of a reservation. A write takes a few pieces, and
 * those that it replaces come back later, when no reader is left in them: hence so many PIECES.
 */
enum { PIECES = 96, PIECE = 6272 };

struct piece { struct piece *next; uint8_t rest[PIECE - sizeof(struct piece *)]; };

static struct fdio_mutex lock;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static struct piece *pieces;          /* all of them; constant once made */
static struct piece *unused;          /* a list; lock */
static size_t used;                   /* atomic: bytes of ordinary memory */

static void make_reserve(void)
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
	return pthread_once(&once, make_reserve) || !pieces ? -ENOMEM : 0;
}

static bool is_piece(const void *p)
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

	if (likely(!is_piece(p))) {
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
	void (*crowded)(struct ext4_vol *vol);

	crowded = __atomic_load_n(&vol->data.crowded, __ATOMIC_ACQUIRE);
	if (likely(now <= vol->data.map_budget) || !crowded)
		return;
	/* ext4_maps_shrink has just found all maps in use: wait, unless it is getting worse. */
	if (now / 2 <= vol->data.map_budget &&
	    fdio_now_ns() < __atomic_load_n(&vol->data.map_rest_ns, __ATOMIC_RELAXED))
		return;
	crowded(vol);
}

void ext4_maps_set_crowded(struct ext4_vol *vol, void (*fn)(struct ext4_vol *vol))
{
	__atomic_store_n(&vol->data.crowded, fn, __ATOMIC_RELEASE);
}
