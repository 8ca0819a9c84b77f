/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories, private to the names part. Layers, from the bottom:
 *   dir/block.c  one directory block: read, verify, search, insert, delete, checksum
 *   dir/linear.c  large linear directories: a name hash in memory
 *   dir/seen.c   the blocks that a walk through an index has been to
 *   dir/index.c      the hash index: search, split, growth, conversion
 *   dir/dir.c        one directory whatever its form: find, plan and do an insertion, remove,
 *   replace
 *   dir/listing.c   listing
 *   dir/names.c, dir/symlink.c, dir/rename.c   the operations of ext4.h
 *
 * Locks: everything here is called with dir->rw held; exclusively by what takes a handle. A
 * directory's blocks change only in a handle of the thread that holds rw exclusively, so readers
 * under rw see whole blocks.
 *
 * Blocks are verified once after they came from the device (journal_buffer.verified); every step
 * through one is bounds-checked all the same, because a hostile image can make two directories
 * share a block.
 */
#ifndef FDIO_EXT4_DIR_DIRECTORY_H
#define FDIO_EXT4_DIR_DIRECTORY_H

#include "base/nowait.h"
#include "ext4/core/structs.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"
#include "ext4/dir/dir.h"

#define DIR_ENT_HEAD 8u
#define DIR_ENT_MIN 12u /* rec_len of a one-letter name */
#define DIR_TAIL_LEN 12u
#define DIR_LINK_MAX 65000u
#define DIR_DX_MAX_LEVELS 3u
/*
 * What a loop thread looks through: blocks, and what is remembered about blocks of a linear
 * directory.
 */
#define DIR_NOWAIT_BLOCKS 4u
#define DIR_NOWAIT_SCAN 1024u

static inline unsigned dir_rec_len(unsigned name_len)
{
	return (name_len + DIR_ENT_HEAD + 3u) & ~3u;
}

/* ---- one block (dir/block.c) ---- */
/* An entry, decoded. ino 0: free space. */
struct dir_block_ent {
	unsigned off, rec_len;
	uint32_t ino;
	uint8_t name_len, file_type;
	const char *name;
};

enum dir_block_kind { DIR_BLOCK_LEAF, DIR_BLOCK_INDEX, DIR_BLOCK_ANY };

/* Bytes of a leaf that hold entries. */
unsigned dir_block_limit(const struct ext4_vol *vol);
/* Block lblk of dir, verified as kind; ANY finds out by content. -EUCLEAN, -EIO. */
int dir_block_read(struct ext4_inode *dir, uint32_t lblk, enum dir_block_kind kind,
		   struct journal_buffer **ret) FDIO_MAY_MISS;
/*
 * The result of looking at one block of a walk: damage is passed over (0) and counted in *bad, at
 * most DIR_BAD_MAX times in one walk, because a directory can be made of nothing else. What a walk
 * with *bad set does not find may have been there.
 */
#define DIR_BAD_MAX 256u
int dir_block_pass_over(int r, unsigned *bad);
/*
 * The block is an index block (root or node) by content; for what dir_block_read returned for ANY.
 */
bool dir_block_is_index(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data);
/*
 * The entry at off, bounds-checked against limit. False at the end or when it does not make sense.
 */
bool dir_block_get(const struct ext4_vol *vol, const uint8_t *data, unsigned limit, unsigned off,
		   struct dir_block_ent *ret);
/* True and its place if the name is in the leaf; *ret_prev: the entry before it, or UINT_MAX. */
bool dir_block_find(const struct ext4_vol *vol, const uint8_t *data, const char *name, unsigned len,
		    struct dir_block_ent *ret, unsigned *ret_prev);
/* Where an entry of need bytes can go, or UINT_MAX. */
unsigned dir_block_find_gap(const struct ext4_vol *vol, const uint8_t *data, unsigned need);
/* The largest rec_len that dir_block_find_gap would find. */
unsigned dir_block_max_gap(const struct ext4_vol *vol, const uint8_t *data);
/* The changes below are for blocks open in the caller's handle; dir_block_seal afterwards. */
void dir_block_init(const struct ext4_vol *vol, uint8_t *data);
void dir_block_put(const struct ext4_vol *vol, uint8_t *data, unsigned off, unsigned rec_len,
		   uint32_t ino, uint8_t ft, const char *name, unsigned len);
/*
 * At the gap found at off. Returns where the entry begins: behind the one that gave the space, if
 * there was one.
 */
unsigned dir_block_insert(const struct ext4_vol *vol, uint8_t *data, unsigned off, uint32_t ino,
			  uint8_t ft, const char *name, unsigned len);
/* Only the length of the entry at off. */
void dir_block_stretch(const struct ext4_vol *vol, uint8_t *data, unsigned off, unsigned rec_len);
void dir_block_delete(const struct ext4_vol *vol, uint8_t *data, unsigned off, unsigned prev);
void dir_block_set(const struct ext4_vol *vol, uint8_t *data, unsigned off, uint32_t ino,
		   uint8_t ft);
/* Checksum; the content counts as verified, as a leaf and as nothing else. */
void dir_block_seal(struct ext4_inode *dir, struct journal_buffer *buffer);

/* Index blocks: where {limit, count} stands (0: not an index block), and the entries behind it. */
unsigned dir_index_block_offset(const struct ext4_vol *vol, const uint8_t *data);
unsigned dir_index_block_limit(const struct ext4_vol *vol, unsigned ofs);
unsigned dir_index_block_count(const uint8_t *data, unsigned ofs);
void dir_index_block_set_count(const struct ext4_vol *vol, uint8_t *data, unsigned ofs,
			       unsigned count);
uint32_t dir_index_block_hash(const uint8_t *data, unsigned ofs, unsigned n);
uint32_t dir_index_block_block(const uint8_t *data, unsigned ofs, unsigned n);
void dir_index_block_set(uint8_t *data, unsigned ofs, unsigned n, uint32_t hash, uint32_t block);
void dir_index_block_seal(struct ext4_inode *dir, struct journal_buffer *buffer);

/* The entries of [from, to) fill it and make sense; lblk and blk: what the message says. */
int dir_block_check_entries(struct ext4_inode *dir, uint32_t lblk, uint64_t blk,
			    const uint8_t *data, unsigned from, unsigned to) FDIO_MAY_MISS;

/* ---- a directory inside its inode (dir/inline_dir.c) ---- */
/* Its content, malloc'd, with entries that have been checked. */
int dir_inline_load(struct ext4_inode *dir, uint8_t **ret, uint32_t *ret_len) FDIO_MAY_MISS;
/* The entry at *off (0: the first), which moves on; false at the end. */
bool dir_inline_next(const struct ext4_vol *vol, const uint8_t *data, uint32_t len, uint32_t *off,
		     struct dir_block_ent *ret);
struct dir_pos;
int dir_inline_find(struct ext4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
	FDIO_MAY_MISS;

/* ---- a directory (dir/dir.c) ---- */
struct dir_pos { uint32_t lblk, off, ino; uint8_t file_type; };

/*
 * Every 32nd block of a walk in order: one device read for the neighbours that are contiguous on
 * disk.
 */
void dir_readahead(struct ext4_inode *dir, uint32_t lblk, uint32_t nr) FDIO_MAY_WAIT;
bool dir_is_dx(const struct ext4_inode *dir);
/* dir_is_dx, but the block where the index begins is damaged. */
bool dir_index_lost(struct ext4_inode *dir) FDIO_MAY_WAIT;
uint32_t dir_nr_blocks(const struct ext4_inode *dir);
uint8_t dir_ft_of_mode(uint32_t mode);
/* -ENOENT; -EUCLEAN also for an inode number that no name may have. "." and ".." are found too. */
int dir_find(struct ext4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
	FDIO_MAY_MISS;
/* 1 if nothing but "." and ".." is in it. */
int dir_is_empty(struct ext4_inode *dir) FDIO_MAY_MISS;

/*
 * An insertion is planned before the handle begins (dir->rw held exclusively from here to its end),
 * so that the handle can be given what it needs. -ENOSPC when the directory is full.
 */
struct dir_add {
	enum { DIR_ADD_SLOT, DIR_ADD_APPEND, DIR_ADD_CONVERT, DIR_ADD_DX } how;
	const char *name;
	unsigned len;
	uint32_t lblk, off;     /* SLOT */
	uint32_t hash;          /* DX, CONVERT */
	unsigned credits;       /* without the directory's inode */
	unsigned blocks;        /* for ext4_metadata_reserve */
};
int dir_plan_add(struct ext4_inode *dir, const char *name, unsigned len, struct dir_add *add)
	FDIO_MAY_MISS;
/* In handle, ext4_inode_begin(dir) done, ext4_inode_dirty(dir) to follow. */
int dir_do_add(struct journal_handle *handle, struct ext4_inode *dir, const struct dir_add *add,
	       uint32_t ino, uint8_t ft) FDIO_MAY_MISS;
#define DIR_CREDITS_CHANGE 1
int dir_do_remove(struct journal_handle *handle, struct ext4_inode *dir, const char *name,
		  unsigned len) FDIO_MAY_MISS;
/* Another inode behind the same name ("." and ".." too). */
int dir_do_set(struct journal_handle *handle, struct ext4_inode *dir, const char *name,
	       unsigned len, uint32_t ino, uint8_t ft) FDIO_MAY_MISS;
/* First block of a new directory: "." and "..". Credits and blocks as for one append. */
int dir_do_init(struct journal_handle *handle, struct ext4_inode *dir,
		uint32_t parent) FDIO_MAY_MISS;
/* ---- one more block at the end (dir/growth.c) ---- */
/* It may have so many blocks more. */
bool dir_can_grow(const struct ext4_inode *dir, unsigned blocks);
/* What one more block costs. */
unsigned dir_append_credits(struct ext4_inode *dir);
unsigned dir_append_blocks(struct ext4_inode *dir);
/* One more block at the end; size grows. Not initialised. */
int dir_append(struct journal_handle *handle, struct ext4_inode *dir, uint32_t *ret_lblk,
	       struct journal_buffer **ret) FDIO_MAY_MISS;
/* A handle that changed dir was cancelled: forgets what is remembered about it. */
void dir_cancelled(struct ext4_inode *dir);

/* ---- the blocks that a walk has been to (dir/seen.c) ---- */
#define DIR_SEEN_FEW 16u
struct dir_seen { /* all zeroes: none */
	uint32_t *slot;
	unsigned cap, nr;
	uint32_t few[DIR_SEEN_FEW];
};
/* 1: it is new; 0: the walk has been there; -ENOMEM. */
int dir_seen_add(struct dir_seen *seen, uint32_t lblk);
void dir_seen_clear(struct dir_seen *seen);

/* ---- in-memory hash of a linear directory (dir/linear.c) ---- */
/* NULL: none (small directory, no memory, or *ret_err). */
struct ext4_dir_table *dir_table_get(struct ext4_inode *dir, int *ret_err) FDIO_MAY_WAIT;
int dir_table_find(struct ext4_inode *dir, struct ext4_dir_table *state, const char *name,
		   unsigned len, struct dir_pos *ret) FDIO_MAY_MISS;
/* Block with a gap of need bytes, or UINT32_MAX. */
uint32_t dir_table_find_gap(const struct ext4_dir_table *state, unsigned need);
/*
 * The three below are told what happened; they drop the state when there is no memory. data: of
 * block lblk after the change.
 */
void dir_table_added(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data, uint32_t off,
		     const char *name, unsigned len);
void dir_table_removed(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data, uint32_t off,
		       const char *name, unsigned len);
void dir_table_drop(struct ext4_inode *dir);

/* ---- hash index (dir/index.c) ---- */
struct dir_index_frame {
	struct journal_buffer *buffer;
	unsigned ofs, at, count, limit;
};
struct dir_index_path {
	unsigned levels;
	uint8_t version;
	struct dir_index_frame frame[DIR_DX_MAX_LEVELS];
	struct dir_seen seen; /* leaves that dir_index_next has left */
};
/* Hash of a name; minor decides among equal hashes where listing needs an order. */
void dir_index_hash(const struct ext4_vol *vol, uint8_t version, const char *name, unsigned len,
		    uint32_t *ret_hash, uint32_t *ret_minor);
/* The version that a new index of this volume gets. */
uint8_t dir_index_default_version(const struct ext4_vol *vol);
unsigned dir_index_max_levels(const struct ext4_vol *vol);
/*
 * Path to the first leaf that may hold hash; dir_index_release it also after an error. name NULL:
 * hash is given in *hash.
 */
int dir_index_probe(struct ext4_inode *dir, const char *name, unsigned len, uint32_t *hash,
		    struct dir_index_path *path) FDIO_MAY_MISS;
uint32_t dir_index_leaf(const struct dir_index_path *path);
/* Moves to the next leaf: 1 and its hash with the continuation bit, 0 if there is none. -EUCLEAN
 * where an index names a leaf twice. */
int dir_index_next(struct ext4_inode *dir, struct dir_index_path *path,
		   uint32_t *ret_hash) FDIO_MAY_MISS;
void dir_index_release(struct dir_index_path *path);
int dir_index_find(struct ext4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
	FDIO_MAY_MISS;
int dir_index_plan_add(struct ext4_inode *dir, struct dir_add *add) FDIO_MAY_MISS;
int dir_index_do_add(struct journal_handle *handle, struct ext4_inode *dir,
		     const struct dir_add *add, uint32_t ino, uint8_t ft) FDIO_MAY_MISS;
int dir_index_do_convert(struct journal_handle *handle, struct ext4_inode *dir) FDIO_MAY_MISS;

/* ---- operations (dir/names.c) ---- */
/* A handle with set-aside blocks. */
struct dir_op {
	struct ext4_vol *vol;
	struct journal_handle *handle;
	unsigned reserved;
};
int dir_op_begin(struct ext4_vol *vol, unsigned credits, unsigned blocks, bool root,
		 struct dir_op *op) FDIO_MAY_MISS;
/*
 * r 0: well, unless something missed on the way (nowait.h). Else undoes everything; a and b (may be
 * NULL) are the directories that were being changed. What became of it.
 */
int dir_op_end(struct dir_op *op, int r, struct ext4_inode *a, struct ext4_inode *b) FDIO_MAY_WAIT;
/* A name that can be created or removed. */
int dir_check_name(const char *name, unsigned len);
/*
 * dir can be searched or changed at all: a directory, not deleted, for changes writable and not
 * immutable.
 */
int dir_check_search(struct ext4_inode *dir);
int dir_check_change(struct ext4_inode *dir);
/* Its entry may be removed or replaced: neither inode is protected by flags. */
int dir_check_remove(struct ext4_inode *dir, struct ext4_inode *child);
/* The inode behind an entry; what cannot be is the image's fault. */
int dir_iget(struct ext4_inode *dir, const struct dir_pos *pos,
	     struct ext4_inode **ret) FDIO_MAY_MISS;
void dir_touch(struct ext4_inode *inode, unsigned what, struct timespec now);
/* dir gains or loses a subdirectory, by the dir_nlink rule. */
bool dir_nlink_full(const struct ext4_inode *dir);
void dir_nlink_inc(struct ext4_inode *dir);
void dir_nlink_dec(struct ext4_inode *dir);
/*
 * A name of inode is gone: link count, ctime, orphan list at 0. Inside handle after
 * ext4_inode_begin(inode); dirties inode.
 */
int dir_drop_link(struct journal_handle *handle, struct ext4_inode *inode,
		  struct timespec now) FDIO_MAY_MISS;
/*
 * Common body of create, mkdir and symlink: dir locked exclusively inside. fill (may be NULL)
 * finishes the inode in h.
 */
struct dir_new {
	uint32_t mode, rdev;
	const struct ext4_credentials *credentials;
	unsigned credits, blocks; /* for fill */
	int (*fill)(struct journal_handle *h, struct ext4_inode *i, void *arg);
	void *arg;
};
int dir_create(struct ext4_inode *dir, const char *name, unsigned len, const struct dir_new *fresh,
	       struct ext4_inode **ret) FDIO_MAY_MISS;

#endif
