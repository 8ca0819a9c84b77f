/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The extent map in memory: lookup, building, publishing and giving up. map_layout.h says how a map
 * lies in memory, map_edit.c changes it, map_load.c fills it from the tree and draws its states.
 *
 * ext4_map_lookup and ext4_map_count run on any thread, never block and take no lock: they run
 * inside an epoch, and a replaced map or chunk is freed only when no reader is left in it. A lookup
 * fails with -EAGAIN when the map is not in memory. Building runs where a map is loaded: on
 * workers, and for small maps on loop threads in the mode of base/nowait.h. It fails with -ENOMEM.
 */
#include "ext4/data/map_layout.h"

#include <errno.h>
#include <string.h>

/* ---- memory ---- */

struct ext4_map_chunk *ext4_map_chunk_new(const struct ext4_map_run *run, uint32_t n, uint32_t cap)
{
	struct ext4_map_chunk *chunk =
			ext4_map_mem(sizeof(*chunk) + (size_t)cap * sizeof(chunk->run[0]));

	if (!chunk)
		return NULL;
	chunk->n = n;
	chunk->cap = cap;
	if (n)
		memcpy(chunk->run, run, n * sizeof(*run));
	return chunk;
}

struct ext4_map *ext4_map_top_new(uint32_t nr)
{
	struct ext4_map *map = ext4_map_mem(sizeof(*map) + (size_t)nr * sizeof(map->slot[0]));

	if (map)
		map->nr = nr;
	return map;
}

/* Frees the top and every chunk that it still points at. */
static void map_free(struct epoch_node *node)
{
	struct ext4_map *map = container_of(node, struct ext4_map, node);

	for (uint32_t k = 0; k < map->nr; k++)
		ext4_map_mem_free(map->slot[k].chunk);
	ext4_map_mem_free(map);
}

struct epoch_node *ext4_map_detach(struct ext4_inode *inode)
{
	struct ext4_map *map;

	ext4_inode_map_edited(inode);
	map = __atomic_exchange_n(&inode->data.map, NULL, __ATOMIC_ACQ_REL);
	return map ? &map->node : NULL;
}

void ext4_map_retire(struct epoch_node *map) { epoch_retire(map, map_free); }

void ext4_map_drop(struct ext4_inode *inode)
{
	struct epoch_node *map = ext4_map_detach(inode);

	if (map)
		ext4_map_retire(map);
}

/* ---- lookup ---- */

/* Number of runs that start at or before lblk. */
static uint32_t runs_upto(const struct ext4_map_chunk *chunk, uint32_t n, uint32_t lblk)
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

/* First block of the first run behind slot k, UINT32_MAX if there is none. */
static uint32_t next_run(const struct ext4_map *map, uint32_t k)
{
	while (++k < map->nr) {
		const struct ext4_map_chunk *chunk = ext4_map_slot_chunk(map, k);

		if (ext4_map_chunk_n(chunk))
			return chunk->run[0].lblk;
	}
	return UINT32_MAX;
}

static void map_search(const struct ext4_map *map, uint32_t lblk, struct ext4_extent *ret)
{
	uint32_t k = ext4_map_slot_find(map, lblk);
	const struct ext4_map_chunk *chunk = ext4_map_slot_chunk(map, k);
	uint32_t n = ext4_map_chunk_n(chunk), up = runs_upto(chunk, n, lblk), next;

	if (up) {
		const struct ext4_map_run *run = &chunk->run[up - 1];
		uint32_t len = ext4_map_run_len(run), skip = lblk - run->lblk;

		if (skip < len) {
			ret->lblk = lblk;
			ret->len = len - skip;
			ret->pblk = (run->where & ~EXT4_RUN_UNWRITTEN) + skip;
			ret->state = run->where & EXT4_RUN_UNWRITTEN ? EXT4_EXTENT_UNWRITTEN
								     : EXT4_EXTENT_WRITTEN;
			return;
		}
	}
	next = up < n ? chunk->run[up].lblk : next_run(map, k);
	*ret = (struct ext4_extent){ .lblk = lblk,
				     .len = next > lblk ? next - lblk : 1,
				     .state = EXT4_EXTENT_HOLE };
}

int ext4_map_lookup(struct ext4_inode *inode, uint32_t lblk, struct ext4_extent *ret)
{
	bool inside = epoch_inside();
	const struct ext4_map *map;

	/* Stored only when map_evict.c has cleared it: threads do not fight for the cache line. */
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
	const size_t fill = EXT4_MAP_CHUNK_FILL;
	uint32_t nr = n ? fdio_div_up(n, fill) : 1;
	struct ext4_map *map = ext4_map_top_new(nr);

	if (!map)
		return NULL;
	for (uint32_t k = 0; k < nr; k++) {
		size_t from = k * fill, count = FDIO_MIN(n - from, fill);
		/* Appends go to the last chunk. */
		uint32_t cap = k + 1 == nr ? ext4_map_last_cap(count) : count;

		map->slot[k].chunk = ext4_map_chunk_new(n ? run + from : NULL, count, cap);
		if (!map->slot[k].chunk) {
			map->nr = k;
			map_free(&map->node);
			return NULL;
		}
		map->slot[k].key = k ? run[from].lblk : 0;
	}
	return map;
}

int ext4_map_builder_add(struct ext4_map_builder *builder, const struct ext4_extent *extent)
{
	struct ext4_map_run run = ext4_map_run_of(extent);

	if (builder->n && ext4_map_runs_merge(&builder->run[builder->n - 1], &run)) {
		builder->run[builder->n - 1].len += run.len;
		return 0;
	}
	if (builder->n == builder->cap) {
		size_t cap = builder->cap ? builder->cap * 2 : 64;
		struct ext4_map_run *bigger = ext4_map_mem(cap * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		if (builder->n)
			memcpy(bigger, builder->run, builder->n * sizeof(*bigger));
		ext4_map_mem_free(builder->run);
		builder->run = bigger;
		builder->cap = cap;
	}
	builder->run[builder->n++] = run;
	return 0;
}

void ext4_map_builder_free(struct ext4_map_builder *builder)
{
	ext4_map_mem_free(builder->run);
	ext4_map_mem_free(builder->node);
	*builder = (struct ext4_map_builder){ 0 };
}

int ext4_map_builder_publish(struct ext4_map_builder *builder, struct ext4_inode *inode)
{
	struct ext4_map *map = map_layout(builder->run, builder->n), *none = NULL;

	ext4_map_builder_free(builder);
	if (!map)
		return -ENOMEM;
	/*
	 * Two readers of a directory may load its map at once. Both have read the same tree, so the
	 * first map stays and the second is freed.
	 */
	if (!__atomic_compare_exchange_n(&inode->data.map, &none, map, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		map_free(&map->node);
	return 0;
}
