/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Arenas: memory for small records that end together, those of a handle (journal_handle_alloc) and
 * those of a transaction (journal_transaction_alloc). The first chunk is allocated when the journal
 * starts and holds the records of any usual handle or transaction, so no handle of the write-out
 * path asks the system for memory. Further chunks are freed together with the records in them.
 *
 * Runs on every thread that has a handle, loop threads included, and on the committing thread. The
 * arena's owner guards it: the thread that holds the handle lock, or, for a closed transaction, the
 * committing thread, which alone knows it. Failure: NULL or -ENOMEM, and nothing has changed.
 */
#include "base/counters.h"
#include "base/poison.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>

/* GAP: poisoned bytes between two records, so that AddressSanitizer sees an overrun. */
enum { ALIGN = alignof(max_align_t), GAP = FDIO_ASAN ? ALIGN : 0 };

struct journal_arena_chunk {
	struct journal_arena_chunk *older;
	size_t size, used;
	alignas(max_align_t) uint8_t mem[];
};

static struct journal_arena_chunk *chunk_new(size_t size)
{
	struct journal_arena_chunk *chunk = malloc(sizeof(*chunk) + size);

	if (!chunk)
		return NULL;
	*chunk = (struct journal_arena_chunk){ .size = size };
	fdio_poison(chunk->mem, size);
	return chunk;
}

static void chunk_free(struct journal_arena_chunk *chunk)
{
	fdio_unpoison(chunk->mem, chunk->size);
	free(chunk);
}

int journal_arena_init(struct journal_arena *arena, size_t size)
{
	arena->more = size;
	arena->top = chunk_new(size);
	return arena->top ? 0 : -ENOMEM;
}

void journal_arena_fini(struct journal_arena *arena)
{
	struct journal_arena_chunk *chunk, *older;

	for (chunk = arena->top; chunk; chunk = older) {
		older = chunk->older;
		chunk_free(chunk);
	}
	arena->top = NULL;
}

int journal_arena_ensure(struct journal_arena *arena, size_t size)
{
	struct journal_arena_chunk *chunk = arena->top;

	if (likely(chunk->size - chunk->used >= size))
		return 0;
	chunk = chunk_new(FDIO_MAX(size, arena->more));
	if (!chunk)
		return -ENOMEM;
	chunk->older = arena->top;
	arena->top = chunk;
	fdio_count(COUNTER_journal_mem_more);
	return 0;
}

void *journal_arena_alloc(struct journal_arena *arena, size_t size)
{
	struct journal_arena_chunk *chunk;
	void *p;

	if (size > SIZE_MAX / 2)
		return NULL;
	size = fdio_round_up(size, ALIGN) + GAP;
	if (journal_arena_ensure(arena, size))
		return NULL;
	chunk = arena->top;
	p = chunk->mem + chunk->used;
	chunk->used += size;
	fdio_unpoison(p, size - GAP);
	return p;
}

struct journal_arena_mark journal_arena_mark(const struct journal_arena *arena)
{
	return (struct journal_arena_mark){ arena->top, arena->top->used };
}

void journal_arena_cut(struct journal_arena *arena, struct journal_arena_mark to)
{
	while (arena->top != to.chunk) {
		struct journal_arena_chunk *chunk = arena->top;

		arena->top = chunk->older;
		chunk_free(chunk);
	}
	fdio_poison(arena->top->mem + to.used, arena->top->used - to.used);
	arena->top->used = to.used;
}

void journal_arena_clear(struct journal_arena *arena)
{
	struct journal_arena_chunk *chunk = arena->top;

	while (chunk->older)
		chunk = chunk->older;
	journal_arena_cut(arena, (struct journal_arena_mark){ chunk, 0 });
}
