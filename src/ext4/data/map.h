/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The extent map in memory, inside the ext4 room. Built by data/extent_node.c and data/block_map.c,
 * kept up by the tree edits, read by ext4_map_lookup on any thread. Changing calls need what guards
 * the inode's tree: map_lock (regular files) or rw held exclusively (directories, symlinks).
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

/* Runs collected in ascending order, before they become a map, and the nodes of the tree. */
struct ext4_map_builder {
	struct ext4_map_run *run;
	size_t n, cap;
	uint64_t *node;
	size_t nodes, node_cap;
};

/* Appends a mapped run that lies behind all earlier ones; merges where it can. -ENOMEM. */
int ext4_map_builder_add(struct ext4_map_builder *builder, const struct ext4_extent *extent);
/* data/map_twice.c: notes a block of the tree itself. -EUCLEAN: it was noted before. -ENOMEM. */
int ext4_map_builder_node(struct ext4_map_builder *builder, uint64_t blk);
/* data/map_twice.c: -EUCLEAN if a block is there twice, which is *ret_blk then. -ENOMEM. */
int ext4_map_builder_check(struct ext4_map_builder *builder, uint64_t *ret_blk);
/*
 * Publishes the map of what was collected if the inode has none; the builder is empty afterwards,
 * also on error.
 */
int ext4_map_builder_publish(struct ext4_map_builder *builder, struct ext4_inode *inode);
void ext4_map_builder_free(struct ext4_map_builder *builder);

/*
 * Brings the published map in line with an edit of the tree: [lblk, lblk + len) is in the run's
 * state now (HOLE: removed). Nothing to do without a map. Cannot fail: when memory runs out the map
 * is dropped and the next user loads it again.
 */
void ext4_map_apply(struct ext4_inode *inode, const struct ext4_extent *extent);

void *ext4_map_mem(size_t size);
void ext4_map_mem_free(void *p); /* NULL is allowed */
/* Bytes that maps and reservations have now. */
size_t ext4_map_mem_used(void);
/*
 * A map was loaded: if they are too many now, the ticker gives some up soon. Takes a leaf lock
 * then.
 */
void ext4_map_mem_check(struct ext4_vol *vol);

/* Eight million runs. */
#define EXT4_MAP_BUDGET ((size_t)128 << 20)
/* For it: takes the map away from its inode, NULL if there is none; and what becomes of it. */
struct epoch_node *ext4_map_detach(struct ext4_inode *inode);
void ext4_map_retire(struct epoch_node *map);

/* ext4_map_load for a caller that holds what guards the tree. */
int ext4_map_load_locked(struct ext4_inode *inode) FDIO_MAY_MISS;
/* ext4_map_lookup that loads the map when it is missing; takes map_lock only then. */
int ext4_map_lookup_load(struct ext4_inode *inode, uint32_t lblk,
			 struct ext4_extent *ret) FDIO_MAY_MISS;
/* Mapped runs from lblk on, counted up to limit. -EAGAIN without a map. */
int ext4_map_count(struct ext4_inode *inode, uint32_t lblk, unsigned limit, unsigned *ret_runs,
		   uint64_t *ret_blocks);

void ext4_map_drop(struct ext4_inode *inode); /* forgets the snapshot (retired) */

#endif
