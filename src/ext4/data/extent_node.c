/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes of extent trees: how an inode is mapped, reading nodes with every check that keeps a
 * damaged or hostile image from leading anywhere, their checksums, and the walk that collects a
 * whole tree.
 *
 * A node is accepted only if its header has the magic, the depth that its parent promised (so a
 * walk is at most EXT4_EXTENT_MAX_DEPTH deep and cannot loop), between one entry and its capacity,
 * and ascending entries. The walk also requires every entry to lie between its parent's key and the
 * next key, so that no node is visited twice, and no block to be there twice (map_twice.c).
 * Checksum and entries are checked once for each read from the device (journal_buffer.verified);
 * the header is checked at each use, because in a damaged image two structures may share a block.
 *
 * Workers; loop threads in the mode of base/nowait.h. Callers hold the lock that guards the tree.
 * Damage is recorded (EXT4_CORRUPT) and is -EUCLEAN; a read error is -EIO.
 */
#include "ext4/data/extent.h"

#include "base/crc32c.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/*
 * A fast link has no block of its own, except one (with bigalloc: a cluster) for attributes; its
 * flags do not matter. With ea_inode, i_blocks counts the blocks of attribute values too, so there
 * the size alone decides. All this is as in the kernel.
 */
bool ext4_link_is_fast(const struct ext4_inode *inode)
{
	uint64_t acl = inode->raw->i_file_acl |
		       (uint64_t)inode->raw->osd2.linux2.l_i_file_acl_high << 32;
	uint64_t own = acl ? (inode->vol->block_size / 512) * EXT2FS_CLUSTER_RATIO(inode->vol->fs)
			   : 0;

	if (!S_ISLNK(inode->raw->i_mode) || ext4_inode_inline(inode))
		return false;
	return ext4_raw_size(inode) < sizeof(inode->raw->i_block) &&
	       (inode->vol->has_ea_inode || ext4_raw_blocks_512(inode) <= own);
}

enum ext4_map_kind ext4_map_kind(const struct ext4_inode *inode)
{
	uint32_t flags = inode->raw->i_flags, mode = inode->raw->i_mode;

	if (ext4_inode_inline(inode))
		return EXT4_MAPPED_NOT;
	if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode))
		return EXT4_MAPPED_NOT;
	if (ext4_link_is_fast(inode))
		return EXT4_MAPPED_NOT;
	if (flags & EXT4_EXTENTS_FL)
		return EXT4_MAPPED_EXTENTS;
	return EXT4_MAPPED_INDIRECT;
}

void ext4_extent_decode(const struct ext3_extent *extent, struct ext4_extent *ret)
{
	uint32_t len = fdio_get_le16(&extent->ee_len, 0);

	ret->lblk = ext4_extent_key(extent);
	ret->state = len > EXT4_EXTENT_WRITTEN_MAX ? EXT4_EXTENT_UNWRITTEN : EXT4_EXTENT_WRITTEN;
	ret->len = len > EXT4_EXTENT_WRITTEN_MAX ? len - EXT4_EXTENT_WRITTEN_MAX : len;
	ret->pblk = fdio_get_le32(&extent->ee_start, 0) |
		    (uint64_t)fdio_get_le16(&extent->ee_start_hi, 0) << 32;
}

void ext4_extent_encode(struct ext3_extent *extent, const struct ext4_extent *from)
{
	bool unwritten = from->state == EXT4_EXTENT_UNWRITTEN;

	FDIO_ASSERT(from->len && from->len <= ext4_extent_limit(from->state));
	fdio_put_le32(&extent->ee_block, 0, from->lblk);
	fdio_put_le16(&extent->ee_len, 0, from->len + (unwritten ? EXT4_EXTENT_WRITTEN_MAX : 0));
	fdio_put_le32(&extent->ee_start, 0, (uint32_t)from->pblk);
	fdio_put_le16(&extent->ee_start_hi, 0, from->pblk >> 32);
}

/*
 * Where the checksum of a node is: right behind the last possible entry, and inside the block
 * whatever the header says.
 */
static size_t checksum_offset(const struct ext4_inode *inode, const uint8_t *data)
{
	const struct ext3_extent_header *header = (const void *)data;
	unsigned max = FDIO_MIN(ext4_extent_node_max(header), ext4_extent_cap(inode->vol));

	return sizeof(*header) + max * sizeof(struct ext3_extent);
}

static uint32_t node_checksum(const struct ext4_inode *inode, const uint8_t *data)
{
	return fdio_crc32c(inode->checksum_seed, data, checksum_offset(inode, data));
}

void ext4_extent_node_checksum(struct ext4_inode *inode, struct journal_buffer *buffer)
{
	/*
	 * Sets this bit and clears all others: the buffer may have been verified before as another
	 * owner's directory block.
	 */
	__atomic_store_n(&buffer->verified, EXT4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	if (inode->vol->has_csum)
		fdio_put_le32(buffer->data, checksum_offset(inode, buffer->data),
			      node_checksum(inode, buffer->data));
}

static bool node_checksum_ok(const struct ext4_inode *inode, const uint8_t *data)
{
	return !inode->vol->has_csum ||
	       fdio_get_le32(data, checksum_offset(inode, data)) == node_checksum(inode, data);
}

static unsigned node_magic(const struct ext3_extent_header *header)
{
	return fdio_get_le16(&header->eh_magic, 0);
}

/* Checks the header before any entry is read. Only the root of an empty tree has no entry. */
static bool header_ok(const struct ext3_extent_header *header, unsigned depth, unsigned most,
		      bool root)
{
	unsigned entries = ext4_extent_node_entries(header), max = ext4_extent_node_max(header);

	return node_magic(header) == EXT3_EXT_MAGIC && ext4_extent_node_depth(header) == depth &&
	       max >= EXT4_EXTENT_ROOT_MAX && max <= most && entries <= max &&
	       (entries || (root && !depth));
}

static bool leaf_ok(struct ext4_vol *vol, struct ext3_extent_header *header)
{
	uint64_t end = 0;

	for (unsigned k = 0; k < ext4_extent_node_entries(header); k++) {
		struct ext4_extent extent;

		ext4_extent_decode(&ext4_extent_node_extents(header)[k], &extent);
		if (!extent.len || extent.lblk < end || ext4_extent_end(&extent) > EXT4_LBLK_END ||
		    !ext4_blocks_valid(vol, extent.pblk, extent.len))
			return false;
		end = ext4_extent_end(&extent);
	}
	return true;
}

static bool index_ok(struct ext4_vol *vol, struct ext3_extent_header *header)
{
	for (unsigned k = 0; k < ext4_extent_node_entries(header); k++) {
		const struct ext3_extent_idx *index = &ext4_extent_node_indexes(header)[k];

		if (!ext4_blocks_valid(vol, ext4_extent_index_block(index), 1))
			return false;
		if (k && ext4_extent_key(&index[0]) <= ext4_extent_key(&index[-1]))
			return false;
	}
	return true;
}

static bool entries_ok(struct ext4_vol *vol, struct ext3_extent_header *header)
{
	return ext4_extent_node_depth(header) ? index_ok(vol, header) : leaf_ok(vol, header);
}

int ext4_extent_check_root(struct ext4_inode *inode)
{
	struct ext3_extent_header *header = ext4_extent_root(inode);

	if (ext4_extent_node_depth(header) > EXT4_EXTENT_MAX_DEPTH ||
	    !header_ok(header, ext4_extent_node_depth(header), EXT4_EXTENT_ROOT_MAX, true) ||
	    !entries_ok(inode->vol, header))
		return EXT4_CORRUPT(inode->vol, inode->ino, 0,
				    "bad extent tree root (magic %#x, depth %u, %u of %u entries)",
				    node_magic(header), ext4_extent_node_depth(header),
				    ext4_extent_node_entries(header), ext4_extent_node_max(header));
	return 0;
}

/* The checks that are made once for each read from the device. */
static int content_check(struct ext4_inode *inode, struct journal_buffer *buffer)
{
	if (__atomic_load_n(&buffer->verified, __ATOMIC_RELAXED) & EXT4_VERIFIED_EXTENT)
		return 0;
	if (!node_checksum_ok(inode, buffer->data))
		return EXT4_CORRUPT(inode->vol, inode->ino, buffer->blk,
				    "extent tree node has a wrong checksum");
	if (!entries_ok(inode->vol, (struct ext3_extent_header *)buffer->data))
		return EXT4_CORRUPT(inode->vol, inode->ino, buffer->blk,
				    "extent tree node has entries out of order or out of range");
	__atomic_fetch_or(&buffer->verified, EXT4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	return 0;
}

int ext4_extent_node_read(struct ext4_inode *inode, uint64_t blk, unsigned depth,
			  struct journal_buffer **ret)
{
	struct ext4_vol *vol = inode->vol;
	struct ext3_extent_header *header;
	struct journal_buffer *buffer;
	int err;

	if (!ext4_blocks_valid(vol, blk, 1))
		return EXT4_CORRUPT(vol, inode->ino, blk,
				    "extent tree block outside the file system's data area");
	err = journal_read_block(vol->journal, blk, &buffer);
	if (err)
		return err;
	header = (struct ext3_extent_header *)buffer->data;
	if (header_ok(header, depth, ext4_extent_cap(vol), false))
		err = content_check(inode, buffer);
	else
		err = EXT4_CORRUPT(vol, inode->ino, blk,
				   "bad extent tree node (magic %#x, depth %u instead of %u, %u of "
				   "%u entries)",
				   node_magic(header), ext4_extent_node_depth(header), depth,
				   ext4_extent_node_entries(header), ext4_extent_node_max(header));
	if (err)
		journal_buffer_release(buffer);
	else
		*ret = buffer;
	return err;
}

/* ---- loading ---- */

/* Child nodes that lie next to each other on the device are read in one go. */
static void readahead_children(struct ext4_inode *inode, struct ext3_extent_header *header,
			       unsigned from)
{
	const struct ext3_extent_idx *index = ext4_extent_node_indexes(header);
	uint64_t first = ext4_extent_index_block(&index[from]);
	unsigned n = 1;

	if (from && ext4_extent_index_block(&index[from - 1]) + 1 == first)
		return; /* read already, with the child before it */
	while (from + n < ext4_extent_node_entries(header) &&
	       ext4_extent_index_block(&index[from + n]) == first + n)
		n++;
	if (ext4_blocks_valid(inode->vol, first, n))
		journal_readahead(inode->vol->journal, first, n);
}

/* Collects the runs of a leaf, all of which must lie in [lo, hi). */
static int load_leaf(struct ext4_inode *inode, struct ext3_extent_header *header, uint64_t lo,
		     uint64_t hi, struct ext4_map_builder *builder)
{
	for (unsigned k = 0; k < ext4_extent_node_entries(header); k++) {
		struct ext4_extent extent;
		int err;

		ext4_extent_decode(&ext4_extent_node_extents(header)[k], &extent);
		if (extent.lblk < lo || ext4_extent_end(&extent) > hi || !extent.len)
			return EXT4_CORRUPT(inode->vol, inode->ino, extent.pblk,
					    "extent at block %u lies outside its parent's range",
					    extent.lblk);
		lo = ext4_extent_end(&extent);
		err = ext4_map_builder_add(builder, &extent);
		if (err)
			return err;
	}
	return 0;
}

/* Recursion ends after the depth that the root names: each node has one less than its parent. */
static int load_node(struct ext4_inode *inode, struct ext3_extent_header *header, uint64_t lo,
		     uint64_t hi, struct ext4_map_builder *builder)
{
	unsigned n = ext4_extent_node_entries(header), depth = ext4_extent_node_depth(header);

	if (!depth)
		return load_leaf(inode, header, lo, hi, builder);
	for (unsigned k = 0; k < n; k++) {
		struct ext3_extent_idx *index = &ext4_extent_node_indexes(header)[k];
		uint64_t key = ext4_extent_key(index), blk = ext4_extent_index_block(index),
			 next = k + 1 < n ? ext4_extent_key(&index[1]) : hi;
		struct journal_buffer *child;
		int err;

		if (key < lo || next > hi || key >= next)
			return EXT4_CORRUPT(inode->vol, inode->ino, blk,
					    "extent index key %u out of order", (unsigned)key);
		readahead_children(inode, header, k);
		err = ext4_extent_node_read(inode, blk, depth - 1, &child);
		if (err)
			return err;
		err = ext4_map_builder_node(builder, blk);
		if (!err)
			err = load_node(inode, (struct ext3_extent_header *)child->data, key, next,
					builder);
		journal_buffer_release(child);
		if (err)
			return err;
	}
	return 0;
}

int ext4_extent_load(struct ext4_inode *inode, struct ext4_map_builder *builder)
{
	int err = ext4_extent_check_root(inode);

	return err ? err : load_node(inode, ext4_extent_root(inode), 0, EXT4_LBLK_END, builder);
}
