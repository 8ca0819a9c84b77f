/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extent trees on disk, and what the files of the data room share; private to the room. A function
 * that changes a tree runs inside a handle, with the inode opened by ext4_inode_begin and with the
 * lock that guards the tree held (map_lock; rw exclusively for directories and symbolic links).
 * After an error the caller cancels the handle.
 */
#ifndef FDIO_EXT4_DATA_EXTENT_H
#define FDIO_EXT4_DATA_EXTENT_H

#include "base/bytes.h"
#include "base/nowait.h"
#include "ext4/data/map.h"

#include <ext2fs/ext3_extents.h>
#include <sys/stat.h>

#define EXT4_EXTENT_MAX_DEPTH 5
#define EXT4_EXTENT_ROOT_MAX 4
#define EXT4_EXTENT_WRITTEN_MAX 32768u
#define EXT4_EXTENT_UNWRITTEN_MAX 32767u
/* One more than the last logical block that a file may have. */
#define EXT4_LBLK_END UINT32_MAX

/* The way through a tree, from the root (level 0) to the leaf (level depth). */
struct ext4_path {
	unsigned depth;
	struct {
		struct journal_buffer *buffer; /* NULL: the root, in the inode */
		struct ext3_extent_header *header;
		/* entry that covers the block; -1 in a leaf whose entries all start behind it */
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
	return fdio_get_le16(&header->eh_entries, 0);
}
static inline unsigned ext4_extent_node_max(const struct ext3_extent_header *header)
{
	return fdio_get_le16(&header->eh_max, 0);
}
static inline unsigned ext4_extent_node_depth(const struct ext3_extent_header *header)
{
	return fdio_get_le16(&header->eh_depth, 0);
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
/* First logical block of an entry: extents and index entries begin with it alike. */
static inline uint32_t ext4_extent_key(const void *entry)
{
	return fdio_get_le32(entry, offsetof(struct ext3_extent, ee_block));
}
static inline uint64_t ext4_extent_index_block(const struct ext3_extent_idx *index)
{
	return fdio_get_le32(&index->ei_leaf, 0) |
	       (uint64_t)fdio_get_le16(&index->ei_leaf_hi, 0) << 32;
}
static inline bool ext4_is_regular(const struct ext4_inode *inode)
{
	return S_ISREG(inode->raw->i_mode);
}
/* Blocks that one extent in this state can have. */
static inline uint32_t ext4_extent_limit(enum ext4_extent_state state)
{
	return state == EXT4_EXTENT_UNWRITTEN ? EXT4_EXTENT_UNWRITTEN_MAX : EXT4_EXTENT_WRITTEN_MAX;
}
static inline uint64_t ext4_extent_end(const struct ext4_extent *extent)
{
	return (uint64_t)extent->lblk + extent->len;
}
void ext4_extent_decode(const struct ext3_extent *extent, struct ext4_extent *ret);
void ext4_extent_encode(struct ext3_extent *extent, const struct ext4_extent *from);

/* ---- nodes (extent_node.c) ---- */
/* -EUCLEAN (recorded) unless the root in the inode is sound. */
int ext4_extent_check_root(struct ext4_inode *inode) FDIO_MAY_MISS;
/* A tree block, verified: place, header with this depth, checksum, order of the entries. */
int ext4_extent_node_read(struct ext4_inode *inode, uint64_t blk, unsigned depth,
			  struct journal_buffer **ret) FDIO_MAY_MISS;
/* Sets the checksum of a node after a change; the node counts as verified. */
void ext4_extent_node_checksum(struct ext4_inode *inode, struct journal_buffer *buffer);
/* Appends every run of the tree to builder. */
int ext4_extent_load(struct ext4_inode *inode, struct ext4_map_builder *builder) FDIO_MAY_MISS;

/* ---- paths and edits (extent_tree.c) ---- */
int ext4_path_find(struct ext4_inode *inode, uint32_t lblk, struct ext4_path *path) FDIO_MAY_MISS;
void ext4_path_release(struct ext4_path *path);
/* First logical block of the extent behind the one at the path's end; EXT4_LBLK_END: none. */
uint32_t ext4_path_next(const struct ext4_path *path);
/*
 * Replaces ndel entries of the leaf from pos on by new[0..nnew), nnew <= 3, and merges them with
 * their neighbours in the leaf. Updates the keys in the parents; frees the leaf if it becomes
 * empty. -EXFULL: the leaf is full and nothing was changed; call ext4_tree_make_room, and find the
 * path again. -EAGAIN: a miss; cancel the handle.
 */
int ext4_leaf_edit(struct journal_handle *handle, struct ext4_inode *inode, struct ext4_path *path,
		   int pos, unsigned ndel, const struct ext4_extent *new,
		   unsigned nnew) FDIO_MAY_MISS;
/*
 * One step towards room for need more entries in the leaf: splits one node or adds one level.
 * Releases the path, which is no longer valid.
 */
int ext4_tree_make_room(struct journal_handle *handle, struct ext4_inode *inode,
			struct ext4_path *path, unsigned need) FDIO_MAY_MISS;
/* While the root has one child and the child's entries fit into the root: moves them there. */
int ext4_tree_collapse(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;

/* ---- ranges (extent.c) ---- */
/*
 * Inserts one mapped run and merges it with its neighbours, inside handle with map_lock held;
 * allocates tree nodes, updates i_blocks and the map. The caller has called ext4_inode_begin and
 * calls ext4_inode_dirty. -EEXIST: something is mapped there.
 */
int ext4_extent_insert(struct journal_handle *handle, struct ext4_inode *inode, uint32_t lblk,
		       uint32_t len, uint64_t pblk, bool unwritten) FDIO_MAY_MISS;
/*
 * Converts the blocks that are mapped in [lblk, end) to the state to, as far as the credits of
 * handle reach; *ret_next is the block where it stopped.
 */
int ext4_extent_convert(struct journal_handle *handle, struct ext4_inode *inode, uint32_t lblk,
			uint32_t end, enum ext4_extent_state to, uint32_t *ret_next) FDIO_MAY_MISS;
/*
 * Unmaps and frees [from, to) from its end downwards, as far as handle's credits reach; *ret_to is
 * the new end, which equals from when all is freed.
 */
int ext4_extent_remove(struct journal_handle *handle, struct ext4_inode *inode, uint32_t from,
		       uint32_t to, bool metadata, uint32_t *ret_to) FDIO_MAY_MISS;
/* Tree nodes that freeing one run may revoke too: emptied, joined, or moved into the root. */
#define EXT4_REVOKES_KEPT 32u
/* Metadata blocks that handle may still free: each is revoked, and a transaction is limited. */
static inline uint64_t ext4_metadata_frees_left(struct journal_handle *handle)
{
	uint64_t left = journal_forgets_left(handle);

	return left > EXT4_REVOKES_KEPT ? left - EXT4_REVOKES_KEPT : 0;
}
/* Credits for a handle of a long removal or conversion. */
unsigned ext4_extent_batch_credits(struct ext4_inode *inode);
/* Tree blocks that n inserts of neighbouring runs may need at worst. */
unsigned ext4_extent_metadata_for(struct ext4_inode *inode, unsigned n);

/* ---- indirect blocks (block_map.c) ---- */
int ext4_indirect_load(struct ext4_inode *inode, struct ext4_map_builder *builder) FDIO_MAY_MISS;
/* As ext4_extent_remove, from the end downwards, but reports only whether blocks are left. */
int ext4_indirect_remove(struct journal_handle *handle, struct ext4_inode *inode, uint32_t from,
			 uint32_t to, bool metadata, bool *ret_more) FDIO_MAY_MISS;
/*
 * block_map_convert.c: an inode that needs a block gets extents instead of its block map.
 * -EOPNOTSUPP, logged: they do not fit into the inode. In a handle with EXT4_INDIRECT_CREDITS for
 * it, the inode open. Does nothing for an inode that has extents.
 */
int ext4_indirect_convert(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
/* ext4_indirect_convert for a file, in a handle of its own; takes map_lock. */
int ext4_indirect_convert_file(struct ext4_inode *inode) FDIO_MAY_MISS;
/* In a handle: an inode that has lost its last block uses extents from now on. */
void ext4_indirect_emptied(struct ext4_inode *inode);

/* ---- size.c, map_note.c ---- */
/* The largest size in bytes that the inode may have. */
uint64_t ext4_max_size(const struct ext4_inode *inode);
/* In a handle: stores mtime and ctime now, and i_size unless it is EXT4_SIZE_KEEP. */
#define EXT4_SIZE_KEEP UINT64_MAX
void ext4_stamp(struct ext4_inode *inode, uint64_t size);
/* ext4_stamp; the size only grows: a smaller one leaves i_size as it is. */
void ext4_stamp_grown(struct ext4_inode *inode, uint64_t size);
/*
 * True: new_size would expose stale data that a failed truncate has left. new_size 0: no new size.
 */
bool ext4_size_over_stale(const struct ext4_inode *inode, uint64_t new_size);
/* In handle: readers see extent, which handle has mapped, when handle has ended well. -ENOMEM. */
int ext4_map_note_extent(struct journal_handle *handle, struct ext4_inode *inode,
			 const struct ext4_extent *extent);
/*
 * In a handle that has noted extents: returns true; the caller stores the size in raw only, and
 * readers see it when the handle has ended well. Otherwise returns false.
 */
bool ext4_map_note_size(struct ext4_inode *inode);

/* ---- truncate.c ---- */
/* Unmaps and frees [from, to) in bounded transactions; takes map_lock. stamp: mtime, ctime too. */
int ext4_remove_range(struct ext4_inode *inode, uint32_t from, uint32_t to, bool metadata,
		      bool stamp) FDIO_BLOCKS;
/*
 * The part of ext4_remove_range that one handle can do, the inode open in it, map_lock held. Lowers
 * *to, which equals from when all is done.
 */
int ext4_remove_step(struct journal_handle *handle, struct ext4_inode *inode, uint32_t from,
		     uint32_t *to, bool metadata) FDIO_MAY_MISS;
/* Zeroes bytes [from, to), within one block, on the device if that block is written. */
int ext4_zero_in_block(struct ext4_inode *inode, uint64_t from, uint64_t to) FDIO_BLOCKS;
/* Zeroes from byte pos to the end of its block; nothing when pos begins a block. */
int ext4_zero_tail(struct ext4_inode *inode, uint64_t pos) FDIO_BLOCKS;

/* ---- reservation.c ---- */
/* ext4_reserve_holes for either state. */
int ext4_reserve_range(struct ext4_inode *inode, uint32_t lblk, uint32_t len, bool root,
		       enum ext4_extent_state state,
		       struct ext4_reservation *reservation) FDIO_MAY_MISS;
/*
 * Claims and inserts all of reservation in bounded transactions, map_lock held. i_size follows the
 * inserted blocks up to new_size (0: it stays), and becomes new_size at the end if last.
 */
int ext4_reservation_insert(struct ext4_inode *inode, struct ext4_reservation *reservation,
			    uint64_t new_size, bool last) FDIO_MAY_MISS;
/* Credits of one handle that claims and inserts extent. */
unsigned ext4_insert_credits(struct ext4_inode *inode, const struct ext4_extent *extent);
/*
 * Converts [lblk, end) to the state to in bounded transactions, map_lock held; the caller has set
 * blocks aside for tree nodes. i_size follows as in ext4_reservation_insert with last.
 */
int ext4_convert_range(struct ext4_inode *inode, uint32_t lblk, uint32_t end,
		       enum ext4_extent_state to, uint64_t new_size) FDIO_MAY_MISS;

#endif
