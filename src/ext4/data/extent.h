/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extent trees on disk, inside the ext4 room: paths, node checks, edits of one leaf, and what the
 * files of the extents part share. Everything that changes a tree runs inside a handle with the
 * inode opened by ext4_inode_begin and with what guards the tree held (map_lock; rw exclusively for
 * directories and symlinks). After an error the caller cancels the handle.
 */
#ifndef FDIO_EXT4_DATA_EXTENT_H
#define FDIO_EXT4_DATA_EXTENT_H

#include "base/nowait.h"
#include "ext4/data/map.h"

#include <endian.h>
#include <ext2fs/ext3_extents.h>

#define EXT4_EXTENT_MAX_DEPTH 5
#define EXT4_EXTENT_ROOT_MAX 4
#define EXT4_EXTENT_WRITTEN_MAX 32768u
#define EXT4_EXTENT_UNWRITTEN_MAX 32767u
/* One behind the last logical block a file may have. */
#define EXT4_LBLK_END UINT32_MAX

/* From the root (level 0) to the leaf (level depth). */
struct ext4_path {
	unsigned depth;
	struct {
		struct journal_buffer *buffer;           /* NULL: the root, in the inode */
		struct ext3_extent_header *header;
		/* entry that covers the block; in the leaf -1 if the first starts behind it */
		int at;
	} level[EXT4_EXTENT_MAX_DEPTH + 1];
};

static inline struct ext3_extent *ext4_extent_node_extents(struct ext3_extent_header *header)
{
	return (struct ext3_extent *)(header + 1);
}
static inline struct ext3_extent_idx *ext4_extent_node_indexes(struct ext3_extent_header *header)
{
	return (struct ext3_extent_idx *)(header + 1);
}
static inline unsigned ext4_extent_node_entries(const struct ext3_extent_header *header)
{
	return le16toh(header->eh_entries);
}
static inline unsigned ext4_extent_node_max(const struct ext3_extent_header *header)
{
	return le16toh(header->eh_max);
}
static inline unsigned ext4_extent_node_depth(const struct ext3_extent_header *header)
{
	return le16toh(header->eh_depth);
}
static inline struct ext3_extent_header *ext4_extent_root(struct ext4_inode *inode)
{
	return (struct ext3_extent_header *)inode->raw->i_block;
}
/* Entries that fit in a tree block. */
static inline unsigned ext4_extent_cap(const struct ext4_vol *vol)
{
	return (vol->block_size - sizeof(struct ext3_extent_header)) / sizeof(struct ext3_extent);
}
static inline uint64_t ext4_extent_index_block(const struct ext3_extent_idx *idx)
{
	return le32toh(idx->ei_leaf) | (uint64_t)le16toh(idx->ei_leaf_hi) << 32;
}
static inline uint32_t ext4_extent_limit(enum ext4_extent_state s)
{
	return s == EXT4_EXTENT_UNWRITTEN ? EXT4_EXTENT_UNWRITTEN_MAX : EXT4_EXTENT_WRITTEN_MAX;
}
static inline uint64_t ext4_extent_end(const struct ext4_extent *extent)
{
	return (uint64_t)extent->lblk + extent->len;
}
void ext4_extent_decode(const struct ext3_extent *extent, struct ext4_extent *ret);
void ext4_extent_encode(struct ext3_extent *extent, const struct ext4_extent *x);

/* ---- nodes (data/extent_node.c) ---- */
/* -EUCLEAN (recorded) unless the root in the inode is sound. */
int ext4_extent_check_root(struct ext4_inode *inode) FDIO_MAY_MISS;
/* A tree block, verified: place, checksum, header of the expected depth, order of the entries. */
int ext4_extent_node_read(struct ext4_inode *inode, uint64_t blk, unsigned depth,
			  struct journal_buffer **ret) FDIO_MAY_MISS;
/* Sets the checksum of a node after a change; it counts as verified. */
void ext4_extent_node_checksum(struct ext4_inode *inode, struct journal_buffer *buffer);
/* Appends every run of the tree to builder. */
int ext4_extent_load(struct ext4_inode *inode, struct ext4_map_builder *builder) FDIO_MAY_MISS;

/* ---- paths and edits (data/extent_tree.c) ---- */
int ext4_path_find(struct ext4_inode *inode, uint32_t lblk, struct ext4_path *path) FDIO_MAY_MISS;
void ext4_path_release(struct ext4_path *path);
/* First logical block of the entry behind the leaf's entry at, EXT4_LBLK_END if there is none. */
uint32_t ext4_path_next(const struct ext4_path *path);
/*
 * Replaces ndel entries of the leaf from pos on by new[0..nnew), nnew <= 3, merging with the
 * neighbours in the leaf. Keys of parents follow; an empty leaf is freed. -EAGAIN: the leaf is
 * full, nothing was changed: ext4_tree_make_room, then again.
 */
int ext4_leaf_edit(struct journal_handle *handle, struct ext4_inode *inode, struct ext4_path *path,
		   int pos, unsigned ndel, const struct ext4_extent *new,
		   unsigned nnew) FDIO_MAY_MISS;
/*
 * One step towards room for need more entries in the leaf: one node split or one level more. The
 * path is stale afterwards.
 */
int ext4_tree_make_room(struct journal_handle *handle, struct ext4_inode *inode,
			struct ext4_path *path, unsigned need) FDIO_MAY_MISS;
/* Pulls an only child that fits into the root, as often as that goes. */
int ext4_tree_collapse(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;

/* ---- ranges (data/extent.c) ---- */
/*
 * Converts what is mapped in [lblk, end) to the state, as far as handle's credits reach; *ret_next
 * is where it stopped.
 */
int ext4_extent_convert(struct journal_handle *handle, struct ext4_inode *inode, uint32_t lblk,
			uint32_t end, enum ext4_extent_state to, uint32_t *ret_next) FDIO_MAY_MISS;
/*
 * Unmaps and frees [from, to) from its end downwards, as far as handle's credits reach; *ret_to is
 * the new end, from when done.
 */
int ext4_extent_remove(struct journal_handle *handle, struct ext4_inode *inode, uint32_t from,
		       uint32_t to, bool metadata, uint32_t *ret_to) FDIO_MAY_MISS;
/*
 * Metadata blocks that one handle may still free here: each is revoked, and a transaction takes
 * only so many.
 */
uint64_t ext4_metadata_frees_left(struct journal_handle *handle);
/* Credits for a handle of a long removal or conversion. */
unsigned ext4_extent_batch_credits(struct ext4_inode *inode);
/* Tree blocks that n inserts of neighbouring runs may need at worst. */
unsigned ext4_extent_metadata_for(struct ext4_inode *inode, unsigned n);

/* ---- indirect blocks (data/block_map.c) ---- */
int ext4_indirect_load(struct ext4_inode *inode, struct ext4_map_builder *builder) FDIO_MAY_MISS;
/* As ext4_extent_remove, but only says whether there is more. */
int ext4_indirect_remove(struct journal_handle *handle, struct ext4_inode *inode, uint32_t from,
			 uint32_t to, bool metadata, bool *ret_more) FDIO_MAY_MISS;
/*
 * inode, which needs a block, gets extents instead of its block map if that fits into the inode
 * (data/block_map_convert.c): -EOPNOTSUPP if not, logged. In a handle with EXT4_INDIRECT_CREDITS
 * for it, the inode open; what has extents stays as it is.
 */
int ext4_indirect_convert(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
/* The same for a file, in a handle of its own; takes map_lock. */
int ext4_indirect_convert_file(struct ext4_inode *inode) FDIO_MAY_MISS;
/* In a handle: an inode whose last block has gone gets extents from now on. */
void ext4_indirect_emptied(struct ext4_inode *inode);

/* ---- shared by truncate, fallocate, insert ---- */
uint64_t ext4_max_size(const struct ext4_inode *inode);
/* Unmaps [from, to) in bounded transactions; takes map_lock. stamp: mtime and ctime too. */
int ext4_remove_range(struct ext4_inode *inode, uint32_t from, uint32_t to, bool metadata,
		      bool stamp) FDIO_BLOCKS;
/*
 * What one handle of it can do; the inode is open in handle, map_lock held. *to comes down, to from
 * when all is done.
 */
int ext4_remove_step(struct journal_handle *handle, struct ext4_inode *inode, uint32_t from,
		     uint32_t *to, bool metadata) FDIO_MAY_MISS;
/* Zeroes bytes [from, to), within one block, on the device if that block is written. */
int ext4_zero_in_block(struct ext4_inode *inode, uint64_t from, uint64_t to) FDIO_BLOCKS;
/* From byte pos to the end of its block; nothing when pos begins a block. */
int ext4_zero_tail(struct ext4_inode *inode, uint64_t pos) FDIO_BLOCKS;
/* In a handle: i_size (EXT4_SIZE_KEEP: as it is), mtime and ctime. */
#define EXT4_SIZE_KEEP UINT64_MAX
void ext4_stamp(struct ext4_inode *inode, uint64_t size);
/*
 * In a handle: true if it has mapped blocks that readers see when it ends, and then the new size,
 * which is stored in raw only.
 */
bool ext4_size_waits(struct ext4_inode *inode);
/* ext4_reserve_holes for either state. */
int ext4_reserve_range(struct ext4_inode *inode, uint32_t lblk, uint32_t len, bool root,
		       enum ext4_extent_state state,
		       struct ext4_reservation *reservation) FDIO_MAY_MISS;
/*
 * Claims and inserts all of reservation in bounded transactions; i_size follows up to new_size (0:
 * none), to new_size itself if last. map_lock held.
 */
int ext4_reservation_insert(struct ext4_inode *inode, struct ext4_reservation *reservation,
			    uint64_t new_size, bool last) FDIO_MAY_MISS;
/* What one handle that claims and inserts extent needs. */
unsigned ext4_insert_credits(struct ext4_inode *inode, const struct ext4_extent *extent);
/*
 * Converts [lblk, end) in bounded transactions; size as above. map_lock held, node blocks set aside
 * by the caller.
 */
int ext4_convert_range(struct ext4_inode *inode, uint32_t lblk, uint32_t end,
		       enum ext4_extent_state to, uint64_t new_size) FDIO_MAY_MISS;

/*
 * Inside handle, map_lock held: inserts one mapped run, merging with neighbours; allocates tree
 * nodes with ext4_blocks_alloc; updates i_blocks, raw and the map snapshot. The caller has called
 * ext4_inode_begin and calls ext4_inode_dirty.
 */
int ext4_extent_insert(struct journal_handle *handle, struct ext4_inode *inode, uint32_t lblk,
		       uint32_t len, uint64_t pblk, bool unwritten) FDIO_MAY_MISS;

#endif
