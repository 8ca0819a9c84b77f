/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hash index of a directory, private to the room: index.c searches, index_add.c grows, block.c
 * reads and writes index blocks, listing.c walks. As for directory.h, dir->rw is held, exclusively
 * where a handle is passed.
 */
#ifndef FDIO_EXT4_DIR_INDEX_H
#define FDIO_EXT4_DIR_INDEX_H

#include "ext4/dir/directory.h"

#define DIR_INDEX_MAX_LEVELS 3u

/* Byte offsets in an index block. */
#define DIR_INDEX_ROOT_OFS 32u     /* pairs of the root */
#define DIR_INDEX_NODE_OFS 8u      /* pairs of a node */
#define DIR_INDEX_ROOT_VERSION 28u /* hash version */
#define DIR_INDEX_ROOT_INFO 29u    /* length of the root's own information: 8 */
#define DIR_INDEX_ROOT_LEVELS 30u  /* levels of nodes below the root */

/* ---- one index block (block.c) ---- */
/* Where the pairs (hash, block) of an index block begin; 0: this is not an index block. */
unsigned dir_index_block_offset(const struct ext4_vol *vol, const uint8_t *data);
/* How many pairs fit; how many there are. ofs: the result of dir_index_block_offset. */
unsigned dir_index_block_limit(const struct ext4_vol *vol, unsigned ofs);
unsigned dir_index_block_count(const uint8_t *data, unsigned ofs);
void dir_index_block_set_count(const struct ext4_vol *vol, uint8_t *data, unsigned ofs,
			       unsigned count);
/* Pair n. */
uint32_t dir_index_block_hash(const uint8_t *data, unsigned ofs, unsigned n);
uint32_t dir_index_block_block(const uint8_t *data, unsigned ofs, unsigned n);
void dir_index_block_set(uint8_t *data, unsigned ofs, unsigned n, uint32_t hash, uint32_t block);
/* Writes the checksum; from then on the block counts as verified, as an index block only. */
void dir_index_block_seal(struct ext4_inode *dir, struct journal_buffer *buffer);

/* ---- searching (index.c) ---- */
/* One level of a path: an index block, and the pair in it that the path follows. */
struct dir_index_frame {
	struct journal_buffer *buffer;
	unsigned ofs, at, count, limit;
};
/* The way from the root to a leaf. */
struct dir_index_path {
	unsigned levels; /* of index blocks, the root included */
	uint8_t version; /* of the hash */
	struct dir_index_frame frame[DIR_INDEX_MAX_LEVELS];
	struct dir_seen seen; /* leaves that dir_index_next has left */
};
/* Hash of a name; the minor hash decides among equal hashes where listing needs an order. */
void dir_index_hash(const struct ext4_vol *vol, uint8_t version, const char *name, unsigned len,
		    uint32_t *ret_hash, uint32_t *ret_minor);
/* Sets the inode flag that dir_is_indexed looks at. In a handle; takes dir->attr. */
void dir_set_indexed(struct ext4_inode *dir, bool indexed);
/* The hash version that a new index of this volume gets. */
uint8_t dir_index_default_version(const struct ext4_vol *vol);
unsigned dir_index_max_levels(const struct ext4_vol *vol);
/*
 * Path to the first leaf that may hold the name, whose hash goes to *hash. With name NULL: path to
 * the first leaf that may hold *hash. The caller calls dir_index_release, after an error too.
 */
int dir_index_probe(struct ext4_inode *dir, const char *name, unsigned len, uint32_t *hash,
		    struct dir_index_path *path) FDIO_MAY_MISS;
/* The block of the leaf where the path ends. */
uint32_t dir_index_leaf(const struct dir_index_path *path);
/*
 * Moves the path to the next leaf: 1 and its hash with the continuation bit (the lowest), 0 if
 * there is none. -EUCLEAN if the index names a leaf twice.
 */
int dir_index_next(struct ext4_inode *dir, struct dir_index_path *path,
		   uint32_t *ret_hash) FDIO_MAY_MISS;
void dir_index_release(struct dir_index_path *path);
int dir_index_find(struct ext4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
	FDIO_MAY_MISS;

/* ---- adding (index_add.c): as dir_plan_add and dir_do_add ---- */
int dir_index_plan_add(struct ext4_inode *dir, struct dir_add *add) FDIO_MAY_MISS;
int dir_index_do_add(struct journal_handle *handle, struct ext4_inode *dir,
		     const struct dir_add *add, uint32_t ino, uint8_t file_type) FDIO_MAY_MISS;
/* A directory of one block gets an index: its entries move to a first leaf. */
int dir_index_do_convert(struct journal_handle *handle, struct ext4_inode *dir) FDIO_MAY_MISS;

#endif
