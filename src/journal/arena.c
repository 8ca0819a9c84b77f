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
	struct jmem_chunk *c = malloc(sizeof(*c) + size);

	if (!c)
		return NULL;
	*c = (struct jmem_chunk){ .size = size };
	fdio_poison(c->mem, size);
	return c;
}

static void chunk_free(struct jmem_chunk *c)
{
	fdio_unpoison(c->mem, c->size);
	free(c);
}

int jmem_init(struct jmem *m, size_t size)
{
	m->more = size;
	m->top = chunk_new(size);
	return m->top ? 0 : -ENOMEM;
}

void jmem_fini(struct jmem *m)
{
	struct jmem_chunk *c, *older;

	for (c = m->top; c; c = older) {
		older = c->older;
		chunk_free(c);
	}
	m->top = NULL;
}

int jmem_ensure(struct jmem *m, size_t size)
{
	struct jmem_chunk *c = m->top;

	if (likely(c->size - c->used >= size))
		return 0;
	c = chunk_new(FDIO_MAX(size, m->more));
	if (!c)
		return -ENOMEM;
	c->older = m->top;
	m->top = c;
	fdio_count(CTR_jnl_mem_more);
	return 0;
}

void *jmem_alloc(struct jmem *m, size_t size)
{
	struct jmem_chunk *c;
	void *p;

	if (size > SIZE_MAX / 2)
		return NULL;
	size = fdio_round_up(size, ALIGN) + GAP;
	if (jmem_ensure(m, size))
		return NULL;
	c = m->top;
	p = c->mem + c->used;
	c->used += size;
	fdio_unpoison(p, size - GAP);
	return p;
}

struct jmem_mark jmem_mark(const struct jmem *m)
{
	return (struct jmem_mark){ m->top, m->top->used };
}

void jmem_cut(struct jmem *m, struct jmem_mark to)
{
	while (m->top != to.chunk) {
		struct jmem_chunk *c = m->top;

		m->top = c->older;
		chunk_free(c);
	}
	fdio_poison(m->top->mem + to.used, m->top->used - to.used);
	m->top->used = to.used;
}

void jmem_clear(struct jmem *m)
{
	struct jmem_chunk *c = m->top;

	while (c->older)
		c = c->older;
	jmem_cut(m, (struct jmem_mark){ c, 0 });
}
