/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The two places where an inode keeps attributes, private to the room (places.c): space of its own,
 * behind the fields of the disk inode, and one attribute block.
 *
 * Both have the same shape. Entries grow upwards from the start, values downwards from the end, and
 * four zero bytes end the entries. Value offsets count from the first entry in the inode, and from
 * the start of the block in a block. In a block the entries are sorted, because the kernel searches
 * them so, and each has a hash.
 */
#ifndef FDIO_EXT4_XATTR_PLACES_H
#define FDIO_EXT4_XATTR_PLACES_H

#include "base/nowait.h"
#include "ext4/core/structs.h"

#include <ext2fs/ext2_ext_attr.h>

/* Bytes of an entry before its name, and of a block before its first entry. */
#define EXT4_XATTR_ENTRY_HEAD ((uint32_t)sizeof(struct ext2_ext_attr_entry))
#define EXT4_XATTR_BLOCK_HEAD ((uint32_t)sizeof(struct ext2_ext_attr_header))
/* The zero bytes that end the entries. */
#define EXT4_XATTR_END 4u
/* Bytes of the disk inode before i_extra_isize, which says where the attribute space begins. */
#define EXT4_XATTR_OLD_INODE 128u

/* Bytes that a value of n bytes, or an entry, takes. */
static inline uint32_t ext4_xattr_round(uint32_t n) { return (n + 3) & ~3u; }
static inline uint32_t ext4_xattr_entry_len(uint32_t name_len)
{
	return ext4_xattr_round(EXT4_XATTR_ENTRY_HEAD + name_len);
}

/*
 * The inode's own space for entries and values, which follows the magic number; NULL if the inode
 * has none. The space holds attributes only if *ret_magic is EXT2_EXT_ATTR_MAGIC.
 */
uint8_t *ext4_xattr_inode_space(const struct ext4_inode *inode, uint32_t *ret_len,
				uint32_t **ret_magic);
/* The inode has an attribute block, or its own space holds attributes. Reads neither. */
bool ext4_xattr_present(const struct ext4_inode *inode);

/* Reads block blk of inode, its header and checksum verified. The caller releases the buffer. */
int ext4_xattr_block_read(struct ext4_inode *inode, uint64_t blk,
			  struct journal_buffer **ret) FDIO_MAY_MISS;
/*
 * Opens in handle the block that a set of inode may be written to: its own block, or a new one if
 * it has none or shares it. A shared block loses one owner. The caller releases the buffer.
 */
int ext4_xattr_block_begin(struct journal_handle *handle, struct ext4_inode *inode,
			   struct journal_buffer **ret) FDIO_MAY_MISS;
/* Writes the checksum after a change; from then on the block counts as verified. */
void ext4_xattr_block_seal(struct ext4_vol *vol, struct journal_buffer *buffer);

static inline struct ext2_ext_attr_header *ext4_xattr_header(struct journal_buffer *buffer)
{
	return (struct ext2_ext_attr_header *)(void *)buffer->data;
}

#endif
