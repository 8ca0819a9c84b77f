/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Slabs of equal objects: buffers, images of blocks, transactions. Freed objects are kept for the
 * next allocation, so after a warm-up no handle and no commit calls malloc.
 *
 * Any thread, loop threads included. Each slab has a lock of its own; no other lock is taken under
 * it. Failure is NULL or -ENOMEM and changes nothing.
 */
#include "base/poison.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

/* With AddressSanitizer every object is a chunk of its own, and poisoned while it is free. */
#define LONE_OBJECTS FDIO_ASAN

void journal_slab_init(struct journal_slab *slab, size_t size, size_t align, unsigned per_chunk)
{
	memset(slab, 0, sizeof(*slab));
	fdio_mutex_init(&slab->lock, RANK_LEAF);
	slab->size = fdio_round_up(FDIO_MAX(size, sizeof(void *)), align);
	slab->align = align;
	slab->per_chunk = LONE_OBJECTS ? 1 : per_chunk;
}

/* Poisons a free object, except the link of the free list. */
static void hide(struct journal_slab *slab, void *obj)
{
	fdio_poison((uint8_t *)obj + sizeof(void *), slab->size - sizeof(void *));
}
static void show(struct journal_slab *slab, void *obj) { fdio_unpoison(obj, slab->size); }

void journal_slab_fini(struct journal_slab *slab)
{
	for (unsigned i = 0; i < slab->nr_chunks; i++)
		free(slab->chunks[i]);
	free(slab->chunks);
	fdio_mutex_fini(&slab->lock);
}

static bool slab_grow(struct journal_slab *slab)
{
	uint8_t *chunk;

	if (slab->nr_chunks == slab->cap_chunks) {
		unsigned cap = slab->cap_chunks ? slab->cap_chunks * 2 : 16;
		void **bigger = realloc(slab->chunks, cap * sizeof(*bigger));

		if (!bigger)
			return false;
		slab->chunks = bigger;
		slab->cap_chunks = cap;
	}
	chunk = fdio_alloc_aligned(FDIO_MAX(slab->align, sizeof(void *)),
				   slab->size * slab->per_chunk);
	if (!chunk)
		return false;
	slab->chunks[slab->nr_chunks++] = chunk;
	for (unsigned i = slab->per_chunk; i-- > 0;) {
		void *obj = chunk + i * slab->size;

		*(void **)obj = slab->free;
		slab->free = obj;
		hide(slab, obj);
	}
	return true;
}

void *journal_slab_alloc(struct journal_slab *slab)
{
	void *obj = NULL;

	fdio_mutex_lock(&slab->lock);
	if (slab->free || slab_grow(slab)) {
		obj = slab->free;
		slab->free = *(void **)obj;
		show(slab, obj);
	}
	fdio_mutex_unlock(&slab->lock);
	return obj;
}

int journal_slab_reserve(struct journal_slab *slab, unsigned n)
{
	bool ok = true;

	fdio_mutex_lock(&slab->lock);
	while (ok && slab->nr_chunks * slab->per_chunk < n)
		ok = slab_grow(slab);
	fdio_mutex_unlock(&slab->lock);
	return ok ? 0 : -ENOMEM;
}

void journal_slab_free(struct journal_slab *slab, void *p)
{
	if (!p)
		return;
	fdio_mutex_lock(&slab->lock);
	*(void **)p = slab->free;
	slab->free = p;
	hide(slab, p);
	fdio_mutex_unlock(&slab->lock);
}
