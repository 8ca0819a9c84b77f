/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extent map snapshots: what ext4_map_lookup searches on loop threads without a lock.
 *
 * Two levels. The top is an array of keys and chunk pointers; chunk k holds the runs that lie in
 * [key[k], key[k + 1]), at most CHUNK_MAX of them, sorted. A run never crosses a key, so contiguous
 * runs may stay apart at a key: readers do not care.
 *
 * Readers are inside an epoch bracket. Writers hold what guards the inode's tree (map_lock, or rw
 * exclusively) and change the map in one of these ways, each of which a reader sees entirely or not
 * at all:
 *  - the last run of the last chunk grows (atomic store of its length);
 *  - a run is appended to the last chunk (filled in first, then the count is stored with release);
 *  - one chunk is replaced by an edited copy (pointer stored with release), the old one retired;
 *  - otherwise a new top is built that shares the untouched chunks; the old top and the replaced
 *    chunks are retired.
 * So an insert costs one copy of at most 4 KiB, and a copy of the top only when the number of
 * chunks changes.
 *
 * Fails with -ENOMEM only while loading; an edit that finds no memory, not even in the reserve
 * (data/map_memory.c), drops the map instead (ext4_map_apply).
 */
#include "ext4/data/map.h"

#include <errno.h>
#include <string.h>

#define CHUNK_MAX 256
/* runs a chunk gets when many are laid out anew: room for inserts without a new top */
#define CHUNK_FILL 208
#define CHUNK_MIN_CAP 8

struct chunk {
	struct epoch_node node;
	uint32_t n;     /* atomic */
	uint32_t cap;
	struct ext4_map_run run[];
};

struct slot {
	struct chunk *chunk; /* atomic */
	uint32_t key;
};

struct ext4_map {
	struct epoch_node node;
	uint32_t nr;    /* >= 1; slot[0].key is 0 */
	struct slot slot[];
};

static uint32_t run_len(const struct ext4_map_run *run)
{
	return __atomic_load_n(&run->len, __ATOMIC_ACQUIRE);
}
static uint64_t run_end(const struct ext4_map_run *run)
{
	return (uint64_t)run->lblk + run_len(run);
}
static uint32_t chunk_n(const struct chunk *chunk)
{
	return __atomic_load_n(&chunk->n, __ATOMIC_ACQUIRE);
}

static struct chunk *slot_chunk(const struct ext4_map *map, uint32_t k)
{
	return __atomic_load_n(&map->slot[k].chunk, __ATOMIC_ACQUIRE);
}

static bool runs_merge(const struct ext4_map_run *a, const struct ext4_map_run *b)
{
	return run_end(a) == b->lblk && a->where + run_len(a) == b->where;
}

static struct ext4_map_run run_of(const struct ext4_extent *extent)
{
	return (struct ext4_map_run){
		.lblk = extent->lblk,
		.len = extent->len,
		.where = extent->pblk |
			 (extent->state == EXT4_EXTENT_UNWRITTEN ? EXT4_RUN_UNWRITTEN : 0),
	};
}

/* ---- memory ---- */

static struct chunk *chunk_new(const struct ext4_map_run *run, uint32_t n, uint32_t cap)
{
	struct chunk *chunk = ext4_map_mem(sizeof(*chunk) + (size_t)cap * sizeof(chunk->run[0]));

	if (!chunk)
		return NULL;
	chunk->n = n;
	chunk->cap = cap;
	if (n)
		memcpy(chunk->run, run, n * sizeof(*run));
	return chunk;
}

/* What the last chunk, which grows in place, is made to hold. */
static uint32_t tail_cap(uint32_t n)
{
	uint32_t cap = FDIO_MAX(n * 2, (uint32_t)CHUNK_MIN_CAP);

	return FDIO_MIN(cap, (uint32_t)CHUNK_MAX);
}

static struct ext4_map *top_new(uint32_t nr)
{
	struct ext4_map *map = ext4_map_mem(sizeof(*map) + (size_t)nr * sizeof(map->slot[0]));

	if (map)
		map->nr = nr;
	return map;
}

static void chunk_free_cb(struct epoch_node *node)
{
	ext4_map_mem_free(container_of(node, struct chunk, node));
}
static void top_free_cb(struct epoch_node *node)
{
	ext4_map_mem_free(container_of(node, struct ext4_map, node));
}

/* The top and every chunk that it still points at. */
static void map_free_cb(struct epoch_node *node)
{
	struct ext4_map *map = container_of(node, struct ext4_map, node);

	for (uint32_t k = 0; k < map->nr; k++)
		ext4_map_mem_free(map->slot[k].chunk);
	ext4_map_mem_free(map);
}

static void note_edit(struct ext4_inode *inode) { ext4_inode_map_edited(inode); }

struct epoch_node *ext4_map_detach(struct ext4_inode *inode)
{
	note_edit(inode);
	struct ext4_map *map = __atomic_exchange_n(&inode->data.map, NULL, __ATOMIC_ACQ_REL);

	return map ? &map->node : NULL;
}

void ext4_map_retire(struct epoch_node *map) { epoch_retire(map, map_free_cb); }

void ext4_map_drop(struct ext4_inode *inode)
{
	struct epoch_node *map = ext4_map_detach(inode);

	if (map)
		ext4_map_retire(map);
}

/* ---- lookup ---- */

/* The slot whose range holds lblk. */
static uint32_t slot_find(const struct ext4_map *map, uint32_t lblk)
{
	uint32_t lo = 0, hi = map->nr;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (map->slot[mid].key <= lblk)
			lo = mid;
		else
			hi = mid;
	}
	return lo;
}

/* Number of runs that start at or before lblk. */
static uint32_t run_upper(const struct chunk *chunk, uint32_t n, uint32_t lblk)
{
	uint32_t lo = 0, hi = n;

	while (lo < hi) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (chunk->run[mid].lblk <= lblk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static void map_search(const struct ext4_map *map, uint32_t lblk, struct ext4_extent *ret)
{
	uint32_t k = slot_find(map, lblk);
	const struct chunk *chunk = slot_chunk(map, k);
	uint32_t n = chunk_n(chunk), up = run_upper(chunk, n, lblk), next = UINT32_MAX;

	if (up) {
		const struct ext4_map_run *run = &chunk->run[up - 1];
		uint32_t len = run_len(run), skip = lblk - run->lblk;

		if (skip < len) {
			ret->lblk = lblk;
			ret->len = len - skip;
			ret->pblk = (run->where & ~EXT4_RUN_UNWRITTEN) + skip;
			ret->state = run->where & EXT4_RUN_UNWRITTEN ? EXT4_EXTENT_UNWRITTEN :
						   EXT4_EXTENT_WRITTEN;
			return;
		}
	}
	if (up < n) {
		next = chunk->run[up].lblk;
	} else {
		while (++k < map->nr) {
			chunk = slot_chunk(map, k);
			if (!chunk_n(chunk))
				continue;
			next = chunk->run[0].lblk;
			break;
		}
	}
	*ret = (struct ext4_extent){ .lblk = lblk,
				     .len = next > lblk ? next - lblk : 1,
				     .state = EXT4_EXTENT_HOLE };
}

int ext4_map_lookup(struct ext4_inode *inode, uint32_t lblk, struct ext4_extent *ret)
{
	bool inside = epoch_inside();
	const struct ext4_map *map;

	/*
	 * Stored only after data/map_evict.c has looked, so that readers do not fight for the line.
	 */
	if (unlikely(!__atomic_load_n(&inode->data.map_used, __ATOMIC_RELAXED)))
		__atomic_store_n(&inode->data.map_used, true, __ATOMIC_RELAXED);
	if (!inside)
		epoch_enter();
	map = __atomic_load_n(&inode->data.map, __ATOMIC_ACQUIRE);
	if (map)
		map_search(map, lblk, ret);
	if (!inside)
		epoch_exit();
	return map ? 0 : -EAGAIN;
}

int ext4_map_lookup_load(struct ext4_inode *inode, uint32_t lblk, struct ext4_extent *ret)
{
	int err;

	while ((err = ext4_map_lookup(inode, lblk, ret)) == -EAGAIN) {
		err = ext4_map_load(inode);
		if (err)
			break;
	}
	return err;
}

int ext4_map_count(struct ext4_inode *inode, uint32_t lblk, unsigned limit, unsigned *ret_runs,
		   uint64_t *ret_blocks)
{
	struct ext4_extent extent;

	*ret_runs = 0;
	*ret_blocks = 0;
	while (*ret_runs < limit && lblk < UINT32_MAX) {
		int err = ext4_map_lookup(inode, lblk, &extent);

		if (err)
			return err;
		if (extent.state != EXT4_EXTENT_HOLE) {
			++*ret_runs;
			*ret_blocks += extent.len;
		}
		lblk += extent.len;
	}
	return 0;
}

/* ---- building ---- */

static struct ext4_map *map_layout(const struct ext4_map_run *run, size_t n)
{
	uint32_t nr = n ? fdio_div_up(n, CHUNK_FILL) : 1;
	struct ext4_map *map = top_new(nr);

	if (!map)
		return NULL;
	for (uint32_t k = 0; k < nr; k++) {
		size_t from = (size_t)k * CHUNK_FILL, cnt = FDIO_MIN(n - from, (size_t)CHUNK_FILL);
		/* The last chunk is where appends go. */
		uint32_t cap = k + 1 == nr ? tail_cap(cnt) : cnt;

		map->slot[k].chunk = chunk_new(n ? run + from : NULL, cnt, cap);
		if (!map->slot[k].chunk) {
			map->nr = k;
			map_free_cb(&map->node);
			return NULL;
		}
		map->slot[k].key = k ? run[from].lblk : 0;
	}
	return map;
}

int ext4_map_builder_add(struct ext4_map_builder *builder, const struct ext4_extent *extent)
{
	struct ext4_map_run r = run_of(extent);

	if (builder->n && runs_merge(&builder->run[builder->n - 1], &r)) {
		builder->run[builder->n - 1].len += r.len;
		return 0;
	}
	if (builder->n == builder->cap) {
		size_t cap = builder->cap ? builder->cap * 2 : 64;
		struct ext4_map_run *e = ext4_map_mem(cap * sizeof(*e));

		if (!e)
			return -ENOMEM;
		if (builder->n)
			memcpy(e, builder->run, builder->n * sizeof(*e));
		ext4_map_mem_free(builder->run);
		builder->run = e;
		builder->cap = cap;
	}
	builder->run[builder->n++] = r;
	return 0;
}

void ext4_map_builder_free(struct ext4_map_builder *builder)
{
	ext4_map_mem_free(builder->run);
	ext4_map_mem_free(builder->node);
	*builder = (struct ext4_map_builder) { 0 };
}

int ext4_map_builder_publish(struct ext4_map_builder *builder, struct ext4_inode *inode)
{
	struct ext4_map *map = map_layout(builder->run, builder->n), *none = NULL;

	ext4_map_builder_free(builder);
	if (!map)
		return -ENOMEM;
	/*
	 * Two readers of a directory may load it at once: they read the same tree, either map will
	 * do.
	 */
	if (!__atomic_compare_exchange_n(&inode->data.map, &none, map, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		map_free_cb(&map->node);
	return 0;
}

/* ---- edits ---- */

/* An edit in progress: slots [first, last] of m are rewritten as run[0..n). */
struct edit {
	struct ext4_map *map;
	uint32_t first, last;
	struct ext4_map_run *run;
	uint32_t n;
	bool append; /* the new run became the very last of the map */
};

static void edit_emit(struct edit *edit, struct ext4_map_run run)
{
	if (!run.len)
		return;
	if (edit->n && runs_merge(&edit->run[edit->n - 1], &run))
		edit->run[edit->n - 1].len += run.len;
	else
		edit->run[edit->n++] = run;
}

/* Everything of run in front of end (clipped), then what is behind start. */
static struct ext4_map_run run_before(const struct ext4_map_run *run, uint64_t end)
{
	struct ext4_map_run out = { run->lblk, run_len(run), run->where };

	if (out.lblk >= end)
		out.len = 0;
	else if (out.lblk + (uint64_t)out.len > end)
		out.len = end - out.lblk;
	return out;
}

static struct ext4_map_run run_behind(const struct ext4_map_run *run, uint64_t start)
{
	struct ext4_map_run out = { run->lblk, run_len(run), run->where };
	uint64_t end = run_end(run);

	if (end <= start) {
		out.len = 0;
	} else if (out.lblk < start) {
		out.where += start - out.lblk;
		out.len = end - start;
		out.lblk = start;
	}
	return out;
}

static void edit_merge(struct edit *edit, const struct ext4_extent *extent)
{
	uint64_t end = (uint64_t)extent->lblk + extent->len;
	bool placed = extent->state == EXT4_EXTENT_HOLE;

	for (uint32_t k = edit->first; k <= edit->last; k++) {
		const struct chunk *chunk = slot_chunk(edit->map, k);

		for (uint32_t j = 0; j < chunk->n; j++) {
			edit_emit(edit, run_before(&chunk->run[j], extent->lblk));
			if (!placed && run_end(&chunk->run[j]) > extent->lblk) {
				edit_emit(edit, run_of(extent));
				placed = true;
			}
			edit_emit(edit, run_behind(&chunk->run[j], end));
		}
	}
	if (!placed) {
		edit_emit(edit, run_of(extent));
		edit->append = edit->last + 1 == edit->map->nr;
	}
}

/* The chunk in slot k is replaced by the edited runs. */
static int edit_one_chunk(struct edit *edit)
{
	struct chunk *old = slot_chunk(edit->map, edit->first), *chunk;
	uint32_t cap = edit->first + 1 == edit->map->nr ? tail_cap(edit->n) : FDIO_MAX(edit->n, 1u);

	chunk = chunk_new(edit->run, edit->n, cap);
	if (!chunk)
		return -ENOMEM;
	__atomic_store_n(&edit->map->slot[edit->first].chunk, chunk, __ATOMIC_RELEASE);
	epoch_retire(&old->node, chunk_free_cb);
	return 0;
}

/*
 * Lays the edited runs out as chunks into map from slot k on; number of chunks, 0 when out of
 * memory (those made are freed).
 */
static uint32_t edit_layout(struct edit *edit, struct ext4_map *map, uint32_t k, uint32_t pieces,
			    uint32_t per)
{
	for (uint32_t p = 0; p < pieces; p++) {
		uint32_t from = p * per, cnt = FDIO_MIN(per, edit->n - from);
		bool last = k + p + 1 == map->nr;
		struct chunk *chunk = chunk_new(edit->run + from, cnt,
						last ? CHUNK_MAX : FDIO_MAX(cnt, 1u));

		if (!chunk) {
			while (p)
				ext4_map_mem_free(map->slot[k + --p].chunk);
			return 0;
		}
		map->slot[k + p] = (struct slot){ chunk, p ? edit->run[from].lblk
							   : edit->map->slot[edit->first].key };
	}
	return pieces;
}

static int edit_new_top(struct edit *edit, struct ext4_inode *inode)
{
	struct ext4_map *m = edit->map, *t;
	uint32_t gone = edit->last - edit->first + 1, per, pieces, behind = m->nr - edit->last - 1;

	if (edit->n)
		pieces = fdio_div_up(edit->n, edit->append           ? CHUNK_MAX
					      : edit->n <= CHUNK_MAX ? CHUNK_MAX
								     : CHUNK_FILL);
	else
		pieces = gone == m->nr ? 1 : 0;
	per = edit->append ? CHUNK_MAX : pieces ? fdio_div_up(edit->n, pieces) : 0;
	if (edit->n)
		pieces = fdio_div_up(edit->n, per);
	t = top_new(m->nr - gone + pieces);
	if (!t)
		return -ENOMEM;
	if (pieces && !edit_layout(edit, t, edit->first, pieces, per)) {
		ext4_map_mem_free(t);
		return -ENOMEM;
	}
	memcpy(t->slot, m->slot, edit->first * sizeof(t->slot[0]));
	memcpy(t->slot + edit->first + pieces, m->slot + edit->last + 1,
	       behind * sizeof(t->slot[0]));
	t->slot[0].key = 0;
	__atomic_store_n(&inode->data.map, t, __ATOMIC_RELEASE);
	for (uint32_t k = edit->first; k <= edit->last; k++)
		epoch_retire(&m->slot[k].chunk->node, chunk_free_cb);
	epoch_retire(&m->node, top_free_cb);
	return 0;
}

/* The cheap cases of a file that grows at its end. */
static bool append_in_place(struct ext4_map *map, const struct ext4_extent *extent)
{
	struct chunk *chunk = slot_chunk(map, map->nr - 1);
	struct ext4_map_run run = run_of(extent),
			    *last = chunk->n ? &chunk->run[chunk->n - 1] : NULL;

	if (extent->state == EXT4_EXTENT_HOLE || extent->lblk < map->slot[map->nr - 1].key ||
	    (last && run_end(last) > extent->lblk))
		return false;
	if (last && runs_merge(last, &run)) {
		__atomic_store_n(&last->len, last->len + run.len, __ATOMIC_RELEASE);
		return true;
	}
	if (chunk->n == chunk->cap)
		return false;
	chunk->run[chunk->n] = run;
	__atomic_store_n(&chunk->n, chunk->n + 1, __ATOMIC_RELEASE);
	return true;
}

static int map_edit(struct ext4_inode *inode, struct ext4_map *map,
		    const struct ext4_extent *extent)
{
	struct edit edit = { .map = map };
	size_t max = 2;
	int err;

	edit.first = slot_find(map, extent->lblk);
	edit.last = slot_find(map, (uint32_t)(extent->lblk + (uint64_t)extent->len - 1));
	for (uint32_t k = edit.first; k <= edit.last; k++)
		max += slot_chunk(map, k)->n;
	edit.run = ext4_map_mem(max * sizeof(*edit.run));
	if (!edit.run)
		return -ENOMEM;
	edit_merge(&edit, extent);
	if (edit.first == edit.last && edit.n <= CHUNK_MAX && (edit.n || map->nr == 1))
		err = edit_one_chunk(&edit);
	else
		err = edit_new_top(&edit, inode);
	ext4_map_mem_free(edit.run);
	return err;
}

void ext4_map_apply(struct ext4_inode *inode, const struct ext4_extent *extent)
{
	struct ext4_map *map = __atomic_load_n(&inode->data.map, __ATOMIC_ACQUIRE);

	note_edit(inode);
	if (!map || !extent->len || append_in_place(map, extent))
		return;
	if (map_edit(inode, map, extent))
		ext4_map_drop(inode);
}
