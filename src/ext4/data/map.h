/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The extent map in memory, private to the data room: map.c, map_edit.c, map_load.c, map_memory.c,
 * map_twice.c, map_evict.c. ext4_map_lookup runs on any thread. A function that changes a map needs
 * the lock that guards the inode's tree: map_lock (regular files), or rw held exclusively
 * (directories, symbolic links).
 */
#ifndef FDIO_EXT4_DATA_MAP_H
#define FDIO_EXT4_DATA_MAP_H

#include "base/nowait.h"
#include "ext4/core/structs.h"
#include "ext4/data/data.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"

#define EXT4_RUN_UNWRITTEN (1ULL << 63)

struct ext4_map_run {
	uint32_t lblk;
	uint32_t len;   /* atomic in a map: the last run grows in place */
	uint64_t where; /* physical block | EXT4_RUN_UNWRITTEN */
};

/* ---- building: map.c, map_twice.c ---- */
/* Runs in ascending order, and the blocks of the tree itself, while they are collected. */
struct ext4_map_builder {
	struct ext4_map_run *run;
	size_t n, cap;
	uint64_t *node;
	size_t nodes, node_cap;
};

/* Appends a mapped run that lies behind all earlier ones; merges where it can. -ENOMEM. */
int ext4_map_builder_add(struct ext4_map_builder *builder, const struct ext4_extent *extent);
/* Notes a block of the tree itself. -EUCLEAN: it was noted before. -ENOMEM. */
int ext4_map_builder_node(struct ext4_map_builder *builder, uint64_t blk);
/* -EUCLEAN if a block is there twice; *ret_blk is that block then. -ENOMEM. */
int ext4_map_builder_check(struct ext4_map_builder *builder, uint64_t *ret_blk);
/*
 * Publishes the collected runs as the inode's map, unless it has one. The builder is empty
 * afterwards, also on error. -ENOMEM.
 */
int ext4_map_builder_publish(struct ext4_map_builder *builder, struct ext4_inode *inode);
void ext4_map_builder_free(struct ext4_map_builder *builder);

/* ---- loading: map_load.c ---- */
/* ext4_map_load for a caller that holds the lock that guards the tree. */
int ext4_map_load_locked(struct ext4_inode *inode) FDIO_MAY_MISS;
/* ext4_map_lookup, and loads the map if it is missing; map_lock is taken only for that. */
int ext4_map_lookup_load(struct ext4_inode *inode, uint32_t lblk,
			 struct ext4_extent *ret) FDIO_MAY_MISS;

/* ---- reading and changing: map.c, map_edit.c ---- */
/* Counts mapped runs from lblk on, at most limit, and their blocks. -EAGAIN without a map. */
int ext4_map_count(struct ext4_inode *inode, uint32_t lblk, unsigned limit, unsigned *ret_runs,
		   uint64_t *ret_blocks);
/*
 * Follows an edit of the tree: extent's range is in extent's state now (HOLE: unmapped). Does
 * nothing without a map. Cannot fail: without memory it drops the map.
 */
void ext4_map_apply(struct ext4_inode *inode, const struct ext4_extent *extent);
/* Evicts the map: detach and retire. */
void ext4_map_drop(struct ext4_inode *inode);
/* Takes the map away from the inode, NULL if there is none; the caller retires it. */
struct epoch_node *ext4_map_detach(struct ext4_inode *inode);
/* Frees a detached map when no reader is left in it. */
void ext4_map_retire(struct epoch_node *map);

/* ---- memory: map_memory.c, map_evict.c ---- */
/* Bytes that all maps may take: eight million runs. */
#define EXT4_MAP_BUDGET ((size_t)128 << 20)

void *ext4_map_mem(size_t size);
void ext4_map_mem_free(void *p); /* NULL is allowed */
/* Bytes that maps and reservations have now. */
size_t ext4_map_mem_used(void);
/*
 * To be called after a load: requests ext4_maps_shrink (ext4_maps_set_crowded) if maps exceed the
 * budget, which takes a leaf lock.
 */
void ext4_map_mem_check(struct ext4_vol *vol);

#endif
