/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory of the journal room: slabs of equal objects (buffers, block images, transactions) and a set of block numbers.
 * Slabs are used on every path, so that after a warm-up no handle and no commit calls malloc. A slab may
 * be used on any thread; a set is guarded by its owner. Failure is NULL or -ENOMEM and changes nothing.
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

static unsigned set_home(const struct jset *s, uint64_t key)
{
	return (unsigned)((key * 0x9e3779b97f4a7c15ULL) >> 32) & (s->cap - 1);
}

static unsigned set_find(const struct jset *s, uint64_t key)
{
	unsigned i = set_home(s, key);

	while (s->slot[i] && s->slot[i] != key)
		i = (i + 1) & (s->cap - 1);
	return i;
}

static int set_resize(struct jset *s, unsigned cap)
{
	struct jset bigger = { .cap = cap };

	bigger.slot = calloc(bigger.cap, sizeof(*bigger.slot));
	if (!bigger.slot)
		return -ENOMEM;
	for (unsigned i = 0; i < s->cap; i++)
		if (s->slot[i])
			bigger.slot[set_find(&bigger, s->slot[i])] = s->slot[i];
	bigger.nr = s->nr;
	free(s->slot);
	*s = bigger;
	return 0;
}

int jset_reserve(struct jset *s, unsigned n)
{
	unsigned cap = FDIO_MAX(s->cap, 64u);

	while ((s->nr + n) * 2 > cap)
		cap *= 2;
	return cap == s->cap ? 0 : set_resize(s, cap);
}

int jset_add(struct jset *s, uint64_t blk)
{
	unsigned i;
	int r;

	if (jset_has(s, blk))
		return 0;
	r = jset_reserve(s, 1);
	if (r)
		return r;
	i = set_find(s, blk + 1);
	s->slot[i] = blk + 1;
	s->nr++;
	return 1;
}

bool jset_has(const struct jset *s, uint64_t blk)
{
	return s->nr && s->slot[set_find(s, blk + 1)];
}

bool jset_del(struct jset *s, uint64_t blk)
{
	unsigned hole, i;

	if (!s->nr)
		return false;
	hole = set_find(s, blk + 1);
	if (!s->slot[hole])
		return false;
	/* Close the gap: move back every later key of the run whose home is not between the hole and itself. */
	for (i = (hole + 1) & (s->cap - 1); s->slot[i]; i = (i + 1) & (s->cap - 1)) {
		unsigned home = set_home(s, s->slot[i]);

		if (((i - home) & (s->cap - 1)) >= ((i - hole) & (s->cap - 1))) {
			s->slot[hole] = s->slot[i];
			hole = i;
		}
	}
	s->slot[hole] = 0;
	s->nr--;
	return true;
}

void jset_clear(struct jset *s)
{
	if (s->nr)
		memset(s->slot, 0, s->cap * sizeof(*s->slot));
	s->nr = 0;
}

void jset_fini(struct jset *s)
{
	free(s->slot);
	memset(s, 0, sizeof(*s));
}
