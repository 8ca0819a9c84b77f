/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal's own memory: slabs of equal objects (slab.c), sets of block numbers (block_set.c)
 * and arenas for records that end together (arena.c). All of it is set aside when the journal
 * starts, so a handle or a commit of usual size takes nothing from the system.
 *
 * Any thread; none of these waits. A slab has a lock of its own; the owner guards sets and arenas.
 * Failure: NULL or -ENOMEM, and nothing has changed.
 */
#ifndef FDIO_JOURNAL_MEMORY_H
#define FDIO_JOURNAL_MEMORY_H

#include "base/lock.h"
#include "base/util.h"

/* Objects of one size, cut out of large chunks. Freed objects are reused; chunks stay. */
struct journal_slab {
	struct fdio_mutex lock; /* guards all below but the sizes */
	size_t size, align;
	unsigned per_chunk;
	void *free;             /* linked through the first word of each object */
	void **chunks;
	unsigned nr_chunks, cap_chunks;
};

void journal_slab_init(struct journal_slab *slab, size_t size, size_t align, unsigned per_chunk);
void journal_slab_fini(struct journal_slab *slab); /* frees all objects, in use or not */
void *journal_slab_alloc(struct journal_slab *slab); /* content undefined */
void journal_slab_free(struct journal_slab *slab, void *p); /* NULL is allowed */
/* Makes chunks until they hold n objects, in use or not. */
int journal_slab_reserve(struct journal_slab *slab, unsigned n);

/* A hash table of block numbers with open addressing. It never shrinks. */
struct journal_block_set {
	uint64_t *slot; /* block number + 1; 0 is empty */
	unsigned cap, nr;
};

/* 1: added, 0: was there. Cannot fail for a number that only takes the place of a removed one. */
int journal_block_set_add(struct journal_block_set *set, uint64_t blk);
/* The next n additions cannot fail. */
int journal_block_set_reserve(struct journal_block_set *set, unsigned n);
bool journal_block_set_remove(struct journal_block_set *set, uint64_t blk); /* false: not there */
bool journal_block_set_has(const struct journal_block_set *set, uint64_t blk);
void journal_block_set_clear(struct journal_block_set *set);
void journal_block_set_fini(struct journal_block_set *set);

/*
 * Records lie in a first chunk, which is kept, and once it is full in further chunks of at least
 * more bytes each.
 */
struct journal_arena { struct journal_arena_chunk *top; size_t more; };
struct journal_arena_mark { struct journal_arena_chunk *chunk; size_t used; };

int journal_arena_init(struct journal_arena *arena, size_t size); /* size: of the first chunk */
void journal_arena_fini(struct journal_arena *arena); /* an arena of zeroes is allowed */
/* Aligned for anything, content undefined. */
void *journal_arena_alloc(struct journal_arena *arena, size_t size);
/*
 * Makes room for size bytes, so that allocating them cannot fail. Each record counts with its size
 * rounded up to the alignment.
 */
int journal_arena_ensure(struct journal_arena *arena, size_t size);
struct journal_arena_mark journal_arena_mark(const struct journal_arena *arena);
/* Frees what was allocated after the mark. */
void journal_arena_cut(struct journal_arena *arena, struct journal_arena_mark to);
void journal_arena_clear(struct journal_arena *arena); /* frees everything */

#endif
