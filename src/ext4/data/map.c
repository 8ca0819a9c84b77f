/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extent map snapshots: what x4_map_lookup searches on loop threads without a lock.
 *
 * Two levels. The top is an array of keys and chunk pointers; chunk k holds the runs that lie in [key[k], key[k + 1]), at most
 * CHUNK_MAX of them, sorted. A run never crosses a key, so contiguous runs may stay apart at a key: readers do not care.
 *
 * Readers are inside an epoch bracket. Writers hold what guards the inode's tree (map_lock, or rw exclusively) and change
 * the map in one of these ways, each of which a reader sees entirely or not at all:
 *  - the last run of the last chunk grows (atomic store of its length);
 *  - a run is appended to the last chunk (filled in first, then the count is stored with release);
 *  - one chunk is replaced by an edited copy (pointer stored with release), the old one retired;
 *  - otherwise a new top is built that shares the untouched chunks; the old top and the replaced chunks are retired.
 * So an insert costs one copy of at most 4 KiB, and a copy of the top only when the number of chunks changes.
 *
 * Fails with -ENOMEM only while loading; an edit that finds no memory, not even in the reserve (data/map_memory.c), drops the map instead
 * (x4_map_apply).
 */
#include "ext4/data/map.h"

#include <errno.h>
#include <string.h>

#define CHUNK_MAX 256
#define CHUNK_FILL 208  /* runs a chunk gets when many are laid out anew: room for inserts without a new top */
#define CHUNK_MIN_CAP 8

struct chunk {
	struct epoch_node node;
	uint32_t n;     /* atomic */
	uint32_t cap;
	struct x4_map_run run[];
};

struct slot {
	struct chunk *c; /* atomic */
	uint32_t key;
};

struct x4_map {
	struct epoch_node node;
	uint32_t nr;    /* >= 1; slot[0].key is 0 */
	struct slot slot[];
};

static uint32_t run_len(const struct x4_map_run *r) { return __atomic_load_n(&r->len, __ATOMIC_ACQUIRE); }
static uint64_t run_end(const struct x4_map_run *r) { return (uint64_t)r->lblk + run_len(r); }
static uint32_t chunk_n(const struct chunk *c) { return __atomic_load_n(&c->n, __ATOMIC_ACQUIRE); }

static struct chunk *slot_chunk(const struct x4_map *m, uint32_t k)
{
	return __atomic_load_n(&m->slot[k].c, __ATOMIC_ACQUIRE);
}

static bool runs_merge(const struct x4_map_run *a, const struct x4_map_run *b)
{
	return run_end(a) == b->lblk && a->where + run_len(a) == b->where;
}

static struct x4_map_run run_of(const struct x4_ext *x)
{
	return (struct x4_map_run) {
		.lblk = x->lblk, .len = x->len,
		.where = x->pblk | (x->state == X4_EXT_UNWRITTEN ? X4_RUN_UNWRITTEN : 0),
	};
}

/* ---- memory ---- */

static struct chunk *chunk_new(const struct x4_map_run *run, uint32_t n, uint32_t cap)
{
	struct chunk *c = x4_map_mem(sizeof(*c) + (size_t)cap * sizeof(c->run[0]));

	if (!c)
		return NULL;
	c->n = n;
	c->cap = cap;
	if (n)
		memcpy(c->run, run, n * sizeof(*run));
	return c;
}

/* What the last chunk, which grows in place, is made to hold. */
static uint32_t tail_cap(uint32_t n)
{
	uint32_t cap = FDIO_MAX(n * 2, (uint32_t)CHUNK_MIN_CAP);

	return FDIO_MIN(cap, (uint32_t)CHUNK_MAX);
}

static struct x4_map *top_new(uint32_t nr)
{
	struct x4_map *m = x4_map_mem(sizeof(*m) + (size_t)nr * sizeof(m->slot[0]));

	if (m)
		m->nr = nr;
	return m;
}

static void chunk_free_cb(struct epoch_node *n) { x4_map_mem_free(container_of(n, struct chunk, node)); }
static void top_free_cb(struct epoch_node *n) { x4_map_mem_free(container_of(n, struct x4_map, node)); }

/* The top and every chunk that it still points at. */
static void map_free_cb(struct epoch_node *n)
{
	struct x4_map *m = container_of(n, struct x4_map, node);

	for (uint32_t k = 0; k < m->nr; k++)
		x4_map_mem_free(m->slot[k].c);
	x4_map_mem_free(m);
}

static void note_edit(struct x4_inode *i) { x4_inode_map_edited(i); }

struct epoch_node *x4_map_detach(struct x4_inode *i)
{
	note_edit(i);
	struct x4_map *m = __atomic_exchange_n(&i->data.map, NULL, __ATOMIC_ACQ_REL);

	return m ? &m->node : NULL;
}

void x4_map_retire(struct epoch_node *map) { epoch_retire(map, map_free_cb); }

void x4_map_drop(struct x4_inode *i)
{
	struct epoch_node *map = x4_map_detach(i);

	if (map)
		x4_map_retire(map);
}

/* ---- lookup ---- */

/* The slot whose range holds lblk. */
static uint32_t slot_find(const struct x4_map *m, uint32_t lblk)
{
	uint32_t lo = 0, hi = m->nr;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (m->slot[mid].key <= lblk)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* Number of runs that start at or before lblk. */
static uint32_t run_upper(const struct chunk *c, uint32_t n, uint32_t lblk)
{
	uint32_t lo = 0, hi = n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (c->run[mid].lblk <= lblk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void map_search(const struct x4_map *m, uint32_t lblk, struct x4_ext *ret)
{
	uint32_t k = slot_find(m, lblk);
	const struct chunk *c = slot_chunk(m, k);
	uint32_t n = chunk_n(c), up = run_upper(c, n, lblk), next = UINT32_MAX;

	if (up) {
		const struct x4_map_run *r = &c->run[up - 1];
		uint32_t len = run_len(r), skip = lblk - r->lblk;

		if (skip < len) {
			ret->lblk = lblk;
			ret->len = len - skip;
			ret->pblk = (r->where & ~X4_RUN_UNWRITTEN) + skip;
			ret->state = r->where & X4_RUN_UNWRITTEN ? X4_EXT_UNWRITTEN :
						   X4_EXT_WRITTEN;
			return;
		}
	}
	if (up < n) {
		next = c->run[up].lblk;
	} else {
		while (++k < m->nr) {
			c = slot_chunk(m, k);
			if (!chunk_n(c))
				continue;
			next = c->run[0].lblk;
			break;
		}
	}
	*ret = (struct x4_ext) { .lblk = lblk, .len = next > lblk ? next - lblk : 1, .state = X4_EXT_HOLE };
}

int x4_map_lookup(struct x4_inode *i, uint32_t lblk, struct x4_ext *ret)
{
	bool inside = epoch_inside();
	const struct x4_map *m;

	/*
	 * Stored only after data/map_evict.c has looked, so that readers do not fight for the line.
	 */
	if (unlikely(!__atomic_load_n(&i->data.map_used, __ATOMIC_RELAXED)))
		__atomic_store_n(&i->data.map_used, true, __ATOMIC_RELAXED);
	if (!inside)
		epoch_enter();
	m = __atomic_load_n(&i->data.map, __ATOMIC_ACQUIRE);
	if (m)
		map_search(m, lblk, ret);
	if (!inside)
		epoch_exit();
	return m ? 0 : -EAGAIN;
}

int x4_map_lookup_load(struct x4_inode *i, uint32_t lblk, struct x4_ext *ret)
{
	int r;

	while ((r = x4_map_lookup(i, lblk, ret)) == -EAGAIN) {
		r = x4_map_load(i);
		if (r)
			break;
	}
	return r;
}

int x4_map_count(struct x4_inode *i, uint32_t lblk, unsigned limit, unsigned *ret_runs, uint64_t *ret_blocks)
{
	struct x4_ext x;

	*ret_runs = 0;
	*ret_blocks = 0;
	while (*ret_runs < limit && lblk < UINT32_MAX) {
		int r = x4_map_lookup(i, lblk, &x);

		if (r)
			return r;
		if (x.state != X4_EXT_HOLE) {
			++*ret_runs;
			*ret_blocks += x.len;
		}
		lblk += x.len;
	}
	return 0;
}

/* ---- building ---- */

static struct x4_map *map_layout(const struct x4_map_run *run, size_t n)
{
	uint32_t nr = n ? fdio_div_up(n, CHUNK_FILL) : 1;
	struct x4_map *m = top_new(nr);

	if (!m)
		return NULL;
	for (uint32_t k = 0; k < nr; k++) {
		size_t from = (size_t)k * CHUNK_FILL, cnt = FDIO_MIN(n - from, (size_t)CHUNK_FILL);
		/* The last chunk is where appends go. */
		uint32_t cap = k + 1 == nr ? tail_cap(cnt) : cnt;

		m->slot[k].c = chunk_new(n ? run + from : NULL, cnt, cap);
		if (!m->slot[k].c) {
			m->nr = k;
			map_free_cb(&m->node);
			return NULL;
		}
		m->slot[k].key = k ? run[from].lblk : 0;
	}
	return m;
}

int x4_map_builder_add(struct x4_map_builder *b, const struct x4_ext *x)
{
	struct x4_map_run r = run_of(x);

	if (b->n && runs_merge(&b->e[b->n - 1], &r)) {
		b->e[b->n - 1].len += r.len;
		return 0;
	}
	if (b->n == b->cap) {
		size_t cap = b->cap ? b->cap * 2 : 64;
		struct x4_map_run *e = x4_map_mem(cap * sizeof(*e));

		if (!e)
			return -ENOMEM;
		if (b->n)
			memcpy(e, b->e, b->n * sizeof(*e));
		x4_map_mem_free(b->e);
		b->e = e;
		b->cap = cap;
	}
	b->e[b->n++] = r;
	return 0;
}

void x4_map_builder_free(struct x4_map_builder *b)
{
	x4_map_mem_free(b->e);
	x4_map_mem_free(b->node);
	*b = (struct x4_map_builder) { 0 };
}

int x4_map_builder_publish(struct x4_map_builder *b, struct x4_inode *i)
{
	struct x4_map *m = map_layout(b->e, b->n), *none = NULL;

	x4_map_builder_free(b);
	if (!m)
		return -ENOMEM;
	/* Two readers of a directory may load it at once: they read the same tree, either map will do. */
	if (!__atomic_compare_exchange_n(&i->data.map, &none, m, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		map_free_cb(&m->node);
	return 0;
}

/* ---- edits ---- */

/* An edit in progress: slots [first, last] of m are rewritten as run[0..n). */
struct edit {
	struct x4_map *m;
	uint32_t first, last;
	struct x4_map_run *run;
	uint32_t n;
	bool append; /* the new run became the very last of the map */
};

static void edit_emit(struct edit *e, struct x4_map_run r)
{
	if (!r.len)
		return;
	if (e->n && runs_merge(&e->run[e->n - 1], &r))
		e->run[e->n - 1].len += r.len;
	else
		e->run[e->n++] = r;
}

/* Everything of r in front of end (clipped), then what is behind start. */
static struct x4_map_run run_before(const struct x4_map_run *r, uint64_t end)
{
	struct x4_map_run out = { r->lblk, run_len(r), r->where };

	if (out.lblk >= end)
		out.len = 0;
	else if (out.lblk + (uint64_t)out.len > end)
		out.len = end - out.lblk;
	return out;
}

static struct x4_map_run run_behind(const struct x4_map_run *r, uint64_t start)
{
	struct x4_map_run out = { r->lblk, run_len(r), r->where };
	uint64_t end = run_end(r);

	if (end <= start) {
		out.len = 0;
	} else if (out.lblk < start) {
		out.where += start - out.lblk;
		out.len = end - start;
		out.lblk = start;
	}
	return out;
}

static void edit_merge(struct edit *e, const struct x4_ext *x)
{
	uint64_t end = (uint64_t)x->lblk + x->len;
	bool placed = x->state == X4_EXT_HOLE;

	for (uint32_t k = e->first; k <= e->last; k++) {
		const struct chunk *c = slot_chunk(e->m, k);

		for (uint32_t j = 0; j < c->n; j++) {
			edit_emit(e, run_before(&c->run[j], x->lblk));
			if (!placed && run_end(&c->run[j]) > x->lblk) {
				edit_emit(e, run_of(x));
				placed = true;
			}
			edit_emit(e, run_behind(&c->run[j], end));
		}
	}
	if (!placed) {
		edit_emit(e, run_of(x));
		e->append = e->last + 1 == e->m->nr;
	}
}

/* The chunk in slot k is replaced by the edited runs. */
static int edit_one_chunk(struct edit *e)
{
	struct chunk *old = slot_chunk(e->m, e->first), *c;
	uint32_t cap = e->first + 1 == e->m->nr ? tail_cap(e->n) : FDIO_MAX(e->n, 1u);

	c = chunk_new(e->run, e->n, cap);
	if (!c)
		return -ENOMEM;
	__atomic_store_n(&e->m->slot[e->first].c, c, __ATOMIC_RELEASE);
	epoch_retire(&old->node, chunk_free_cb);
	return 0;
}

/* Lays the edited runs out as chunks into t from slot k on; number of chunks, 0 when out of memory (those made are freed). */
static uint32_t edit_layout(struct edit *e, struct x4_map *t, uint32_t k, uint32_t pieces, uint32_t per)
{
	for (uint32_t p = 0; p < pieces; p++) {
		uint32_t from = p * per, cnt = FDIO_MIN(per, e->n - from);
		bool last = k + p + 1 == t->nr;
		struct chunk *c = chunk_new(e->run + from, cnt, last ? CHUNK_MAX : FDIO_MAX(cnt, 1u));

		if (!c) {
			while (p)
				x4_map_mem_free(t->slot[k + --p].c);
			return 0;
		}
		t->slot[k + p] = (struct slot) { c, p ? e->run[from].lblk : e->m->slot[e->first].key };
	}
	return pieces;
}

static int edit_new_top(struct edit *e, struct x4_inode *i)
{
	struct x4_map *m = e->m, *t;
	uint32_t gone = e->last - e->first + 1, per, pieces, behind = m->nr - e->last - 1;

	if (e->n)
		pieces = fdio_div_up(e->n, e->append ? CHUNK_MAX : e->n <= CHUNK_MAX ? CHUNK_MAX : CHUNK_FILL);
	else
		pieces = gone == m->nr ? 1 : 0;
	per = e->append ? CHUNK_MAX : pieces ? fdio_div_up(e->n, pieces) : 0;
	if (e->n)
		pieces = fdio_div_up(e->n, per);
	t = top_new(m->nr - gone + pieces);
	if (!t)
		return -ENOMEM;
	if (pieces && !edit_layout(e, t, e->first, pieces, per)) {
		x4_map_mem_free(t);
		return -ENOMEM;
	}
	memcpy(t->slot, m->slot, e->first * sizeof(t->slot[0]));
	memcpy(t->slot + e->first + pieces, m->slot + e->last + 1, behind * sizeof(t->slot[0]));
	t->slot[0].key = 0;
	__atomic_store_n(&i->data.map, t, __ATOMIC_RELEASE);
	for (uint32_t k = e->first; k <= e->last; k++)
		epoch_retire(&m->slot[k].c->node, chunk_free_cb);
	epoch_retire(&m->node, top_free_cb);
	return 0;
}

/* The cheap cases of a file that grows at its end. */
static bool append_in_place(struct x4_map *m, const struct x4_ext *x)
{
	struct chunk *c = slot_chunk(m, m->nr - 1);
	struct x4_map_run r = run_of(x), *last = c->n ? &c->run[c->n - 1] : NULL;

	if (x->state == X4_EXT_HOLE || x->lblk < m->slot[m->nr - 1].key || (last && run_end(last) > x->lblk))
		return false;
	if (last && runs_merge(last, &r)) {
		__atomic_store_n(&last->len, last->len + r.len, __ATOMIC_RELEASE);
		return true;
	}
	if (c->n == c->cap)
		return false;
	c->run[c->n] = r;
	__atomic_store_n(&c->n, c->n + 1, __ATOMIC_RELEASE);
	return true;
}

static int map_edit(struct x4_inode *i, struct x4_map *m, const struct x4_ext *x)
{
	struct edit e = { .m = m };
	size_t max = 2;
	int r;

	e.first = slot_find(m, x->lblk);
	e.last = slot_find(m, (uint32_t)(x->lblk + (uint64_t)x->len - 1));
	for (uint32_t k = e.first; k <= e.last; k++)
		max += slot_chunk(m, k)->n;
	e.run = x4_map_mem(max * sizeof(*e.run));
	if (!e.run)
		return -ENOMEM;
	edit_merge(&e, x);
	if (e.first == e.last && e.n <= CHUNK_MAX && (e.n || m->nr == 1))
		r = edit_one_chunk(&e);
	else
		r = edit_new_top(&e, i);
	x4_map_mem_free(e.run);
	return r;
}

void x4_map_apply(struct x4_inode *i, const struct x4_ext *x)
{
	struct x4_map *m = __atomic_load_n(&i->data.map, __ATOMIC_ACQUIRE);

	note_edit(i);
	if (!m || !x->len || append_in_place(m, x))
		return;
	if (map_edit(i, m, x))
		x4_map_drop(i);
}
