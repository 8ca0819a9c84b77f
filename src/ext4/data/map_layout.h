/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How an extent map lies in memory. Private to map.c, which builds and searches maps, and
 * map_edit.c, which changes them.
 *
 * A map has two levels. The top is an array of slots: a key and a pointer to a chunk. The chunk of
 * slot k holds the runs that lie in [slot[k].key, slot[k + 1].key), sorted, at most
 * EXT4_MAP_CHUNK_MAX of them. No run crosses a key. So two runs that continue each other may stay
 * apart at a key; a lookup then finds them one after the other.
 *
 * Readers run on any thread, inside an epoch and without a lock. The one writer holds the lock that
 * guards the inode's tree (map.h), and changes a published map only as map_edit.c describes.
 */
#ifndef FDIO_EXT4_DATA_MAP_LAYOUT_H
#define FDIO_EXT4_DATA_MAP_LAYOUT_H

#include "ext4/data/map.h"

#define EXT4_MAP_CHUNK_MAX 256
/* Runs in each chunk when many are laid out at once: room for inserts without a new top. */
#define EXT4_MAP_CHUNK_FILL 208
#define EXT4_MAP_CHUNK_MIN_CAP 8

struct ext4_map_chunk {
	struct epoch_node node;
	uint32_t n;     /* atomic */
	uint32_t cap;
	struct ext4_map_run run[];
};

struct ext4_map_slot {
	struct ext4_map_chunk *chunk; /* atomic */
	uint32_t key;
};

struct ext4_map {
	struct epoch_node node;
	uint32_t nr;    /* >= 1; slot[0].key is 0 */
	struct ext4_map_slot slot[];
};

static inline uint32_t ext4_map_run_len(const struct ext4_map_run *run)
{
	return __atomic_load_n(&run->len, __ATOMIC_ACQUIRE);
}
static inline uint64_t ext4_map_run_end(const struct ext4_map_run *run)
{
	return (uint64_t)run->lblk + ext4_map_run_len(run);
}
static inline uint32_t ext4_map_chunk_n(const struct ext4_map_chunk *chunk)
{
	return __atomic_load_n(&chunk->n, __ATOMIC_ACQUIRE);
}
static inline struct ext4_map_chunk *ext4_map_slot_chunk(const struct ext4_map *map, uint32_t k)
{
	return __atomic_load_n(&map->slot[k].chunk, __ATOMIC_ACQUIRE);
}

/* True: b continues a, in the file and on the device, in the same state. */
static inline bool ext4_map_runs_merge(const struct ext4_map_run *a, const struct ext4_map_run *b)
{
	return ext4_map_run_end(a) == b->lblk && a->where + ext4_map_run_len(a) == b->where;
}

static inline struct ext4_map_run ext4_map_run_of(const struct ext4_extent *extent)
{
	bool unwritten = extent->state == EXT4_EXTENT_UNWRITTEN;

	return (struct ext4_map_run){ .lblk = extent->lblk,
				      .len = extent->len,
				      .where = extent->pblk |
					       (unwritten ? EXT4_RUN_UNWRITTEN : 0) };
}

/* The slot whose range holds lblk. */
static inline uint32_t ext4_map_slot_find(const struct ext4_map *map, uint32_t lblk)
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

/* Capacity of a last chunk with n runs: it grows in place, so it gets room. */
static inline uint32_t ext4_map_last_cap(uint32_t n)
{
	uint32_t cap = FDIO_MAX(n * 2, (uint32_t)EXT4_MAP_CHUNK_MIN_CAP);

	return FDIO_MIN(cap, (uint32_t)EXT4_MAP_CHUNK_MAX);
}

/* A copy of run[0..n), and a top whose slots the caller fills. NULL: no memory. */
struct ext4_map_chunk *ext4_map_chunk_new(const struct ext4_map_run *run, uint32_t n, uint32_t cap);
struct ext4_map *ext4_map_top_new(uint32_t nr);

#endif
