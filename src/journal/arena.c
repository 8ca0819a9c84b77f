/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory for small records that end together: those of a handle (jnl_handle_mem) and of a
 * transaction (jnl_txn_mem). A chunk that is there from the start serves all that is usual; more is
 * allocated, and freed again with what it was for. So no handle of the write-out path asks the
 * system for memory.
 *
 * The owner guards it: whoever holds the handle lock, or for a closed transaction the thread that
 * commits, which alone knows it. Failure: NULL or -ENOMEM, and nothing has changed.
 */
#include "base/counters.h"
#include "base/poison.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdalign.h>
#include <stdlib.h>

enum { ALIGN = alignof(max_align_t), GAP = FDIO_ASAN ? ALIGN : 0 };

struct jmem_chunk {
	struct jmem_chunk *older;
	size_t size, used;
	alignas(max_align_t) uint8_t mem[];
};

static struct jmem_chunk *chunk_new(size_t size)
{
	struct jmem_chunk *chunk = malloc(sizeof(*chunk) + size);

	if (!chunk)
		return NULL;
	*chunk = (struct jmem_chunk){ .size = size };
	fdio_poison(chunk->mem, size);
	return chunk;
}

static void chunk_free(struct jmem_chunk *chunk)
{
	fdio_unpoison(chunk->mem, chunk->size);
	free(chunk);
}

int jmem_init(struct jmem *arena, size_t size)
{
	arena->more = size;
	arena->top = chunk_new(size);
	return arena->top ? 0 : -ENOMEM;
}

void jmem_fini(struct jmem *arena)
{
	struct jmem_chunk *chunk, *older;

	for (chunk = arena->top; chunk; chunk = older) {
		older = chunk->older;
		chunk_free(chunk);
	}
	arena->top = NULL;
}

int jmem_ensure(struct jmem *arena, size_t size)
{
	struct jmem_chunk *chunk = arena->top;

	if (likely(chunk->size - chunk->used >= size))
		return 0;
	chunk = chunk_new(FDIO_MAX(size, arena->more));
	if (!chunk)
		return -ENOMEM;
	chunk->older = arena->top;
	arena->top = chunk;
	fdio_count(CTR_jnl_mem_more);
	return 0;
}

void *jmem_alloc(struct jmem *arena, size_t size)
{
	struct jmem_chunk *chunk;
	void *p;

	if (size > SIZE_MAX / 2)
		return NULL;
	size = fdio_round_up(size, ALIGN) + GAP;
	if (jmem_ensure(arena, size))
		return NULL;
	chunk = arena->top;
	p = chunk->mem + chunk->used;
	chunk->used += size;
	fdio_unpoison(p, size - GAP);
	return p;
}

struct jmem_mark jmem_mark(const struct jmem *arena)
{
	return (struct jmem_mark){ arena->top, arena->top->used };
}

void jmem_cut(struct jmem *arena, struct jmem_mark to)
{
	while (arena->top != to.chunk) {
		struct jmem_chunk *chunk = arena->top;

		arena->top = chunk->older;
		chunk_free(chunk);
	}
	fdio_poison(arena->top->mem + to.used, arena->top->used - to.used);
	arena->top->used = to.used;
}

void jmem_clear(struct jmem *arena)
{
	struct jmem_chunk *chunk = arena->top;

	while (chunk->older)
		chunk = chunk->older;
	jmem_cut(arena, (struct jmem_mark){ chunk, 0 });
}
