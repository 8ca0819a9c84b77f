/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Slabs of equal objects: buffers, block images, transactions. Every path takes its objects from them,
 * so that after a warm-up no handle and no commit calls malloc. Any thread; each slab has a lock of its
 * own, under which nothing is taken. Failure is NULL or -ENOMEM and changes nothing.
 */
#include "base/poison.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdlib.h>

/* With AddressSanitizer every object is a piece of memory of its own, and out of bounds while it is free. */
#define LONE_OBJECTS FDIO_ASAN

void jslab_init(struct jslab *s, size_t size, size_t align, unsigned per_chunk)
{
	memset(s, 0, sizeof(*s));
	fdio_mutex_init(&s->lock, RANK_LEAF);
	s->size = fdio_round_up(FDIO_MAX(size, sizeof(void *)), align);
	s->align = align;
	s->per_chunk = LONE_OBJECTS ? 1 : per_chunk;
}

/* All but the link of the free list. */
static void hide(struct jslab *s, void *obj) { fdio_poison((uint8_t *)obj + sizeof(void *), s->size - sizeof(void *)); }
static void show(struct jslab *s, void *obj) { fdio_unpoison(obj, s->size); }

void jslab_fini(struct jslab *s)
{
	for (unsigned i = 0; i < s->nr_chunks; i++)
		free(s->chunks[i]);
	free(s->chunks);
	fdio_mutex_fini(&s->lock);
}

static bool slab_grow(struct jslab *s)
{
	uint8_t *chunk;

	if (s->nr_chunks == s->cap_chunks) {
		unsigned cap = s->cap_chunks ? s->cap_chunks * 2 : 16;
		void **bigger = realloc(s->chunks, cap * sizeof(*bigger));

		if (!bigger)
			return false;
		s->chunks = bigger;
		s->cap_chunks = cap;
	}
	chunk = fdio_alloc_aligned(FDIO_MAX(s->align, sizeof(void *)), s->size * s->per_chunk);
	if (!chunk)
		return false;
	s->chunks[s->nr_chunks++] = chunk;
	for (unsigned i = s->per_chunk; i-- > 0;) {
		void *obj = chunk + i * s->size;

		*(void **)obj = s->free;
		s->free = obj;
		hide(s, obj);
	}
	return true;
}

void *jslab_alloc(struct jslab *s)
{
	void *obj = NULL;

	fdio_mutex_lock(&s->lock);
	if (s->free || slab_grow(s)) {
		obj = s->free;
		s->free = *(void **)obj;
		show(s, obj);
	}
	fdio_mutex_unlock(&s->lock);
	return obj;
}

int jslab_reserve(struct jslab *s, unsigned n)
{
	bool ok = true;

	fdio_mutex_lock(&s->lock);
	while (ok && s->nr_chunks * s->per_chunk < n)
		ok = slab_grow(s);
	fdio_mutex_unlock(&s->lock);
	return ok ? 0 : -ENOMEM;
}

void jslab_free(struct jslab *s, void *p)
{
	if (!p)
		return;
	fdio_mutex_lock(&s->lock);
	*(void **)p = s->free;
	s->free = p;
	hide(s, p);
	fdio_mutex_unlock(&s->lock);
}
