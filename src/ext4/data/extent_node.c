/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes of extent trees: reading them with every check that keeps a damaged or hostile image from
 * leading anywhere, their checksums, and the walk that loads a whole tree into a map. Called by the
 * other files of the extents part, on workers, with what guards the tree held.
 *
 * A node is accepted only if its header has the magic, the depth that its parent promised (so the
 * walk is at most EXT4_EXTENT_MAX_DEPTH deep and cannot loop), an entry count between 1 and its
 * capacity, and ascending entries; the load further requires every entry to lie between its
 * parent's key and the next one, so that no node can be visited twice, and no block to be there
 * twice (data/map_twice.c). The checks of a block's content are done once per read from the device
 * (journal_buffer.verified); the header is looked at each time, because a damaged image can make
 * two structures share a block.
 *
 * Damage is recorded (EXT4_CORRUPT) and is -EUCLEAN.
 */
#include "ext4/data/extent.h"

#include "base/crc32c.h"
#include "base/nowait.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/*
 * No block of its own besides one (with bigalloc a cluster) for attributes; what the flags say does
 * not count. Where values can lie in inodes their blocks are counted too, so that the size alone
 * decides. As in the kernel.
 */
bool ext4_link_is_fast(const struct ext4_inode *inode)
{
	uint64_t acl = le32toh(inode->raw->i_file_acl) |
		       (uint64_t)le16toh(inode->raw->osd2.linux2.l_i_file_acl_high) << 32;
	uint64_t own = acl ? (inode->vol->block_size / 512) * EXT2FS_CLUSTER_RATIO(inode->vol->fs)
			   : 0;

	if (!S_ISLNK(le16toh(inode->raw->i_mode)) || ext4_inode_inline(inode))
		return false;
	return ext4_raw_size(inode) < sizeof(inode->raw->i_block) &&
	       (inode->vol->has_ea_inode || ext4_raw_blocks_512(inode) <= own);
}

enum ext4_map_kind ext4_map_kind(const struct ext4_inode *inode)
{
	uint32_t flags = le32toh(inode->raw->i_flags), mode = le16toh(inode->raw->i_mode);

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
	uint32_t len = le16toh(extent->ee_len);

	ret->lblk = le32toh(extent->ee_block);
	ret->state = len > EXT4_EXTENT_WRITTEN_MAX ? EXT4_EXTENT_UNWRITTEN : EXT4_EXTENT_WRITTEN;
	ret->len = len > EXT4_EXTENT_WRITTEN_MAX ? len - EXT4_EXTENT_WRITTEN_MAX : len;
	ret->pblk = le32toh(extent->ee_start) | (uint64_t)le16toh(extent->ee_start_hi) << 32;
}

void ext4_extent_encode(struct ext3_extent *extent, const struct ext4_extent *x)
{
	FDIO_ASSERT(x->len && x->len <= ext4_extent_limit(x->state));
	extent->ee_block = htole32(x->lblk);
	extent->ee_len =
			htole16(x->state == EXT4_EXTENT_UNWRITTEN ? x->len + EXT4_EXTENT_WRITTEN_MAX
								  : x->len);
	extent->ee_start = htole32((uint32_t)x->pblk);
	extent->ee_start_hi = htole16(x->pblk >> 32);
}

/* The checksum stands right behind the last possible entry: in the block, whatever the header says.
 * */
static size_t csum_at(const struct ext4_inode *inode, const uint8_t *data)
{
	const struct ext3_extent_header *header = (const void *)data;

	return sizeof(*header) +
	       FDIO_MIN(ext4_extent_node_max(header), ext4_extent_cap(inode->vol)) *
			       sizeof(struct ext3_extent);
}

static uint32_t node_csum(const struct ext4_inode *inode, const uint8_t *data)
{
	return fdio_crc32c(inode->checksum_seed, data, csum_at(inode, data));
}

void ext4_extent_node_checksum(struct ext4_inode *inode, struct journal_buffer *buffer)
{
	uint32_t c;

	/* As a node and as nothing else: what it was read as before may have been another owner's
	 * directory. */
	__atomic_store_n(&buffer->verified, EXT4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	if (!inode->vol->has_csum)
		return;
	c = htole32(node_csum(inode, buffer->data));
	memcpy(buffer->data + csum_at(inode, buffer->data), &c, sizeof(c));
}

static bool node_csum_ok(const struct ext4_inode *inode, uint8_t *data)
{
	uint32_t c;

	if (!inode->vol->has_csum)
		return true;
	memcpy(&c, data + csum_at(inode, data), sizeof(c));
	return le32toh(c) == node_csum(inode, data);
}

/* What must hold before any entry is looked at. */
static bool header_ok(const struct ext3_extent_header *header, unsigned depth, unsigned max,
		      bool root)
{
	return le16toh(header->eh_magic) == EXT3_EXT_MAGIC &&
	       ext4_extent_node_depth(header) == depth && ext4_extent_node_max(header) <= max &&
	       ext4_extent_node_max(header) >= EXT4_EXTENT_ROOT_MAX &&
	       ext4_extent_node_entries(header) <= ext4_extent_node_max(header) &&
	       (ext4_extent_node_entries(header) || (root && !depth));
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
		const struct ext3_extent_idx *idx = &ext4_extent_node_indexes(header)[k];

		if (!ext4_blocks_valid(vol, ext4_extent_index_block(idx), 1))
			return false;
		if (k && le32toh(idx[0].ei_block) <= le32toh(idx[-1].ei_block))
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
				    le16toh(header->eh_magic), ext4_extent_node_depth(header),
				    ext4_extent_node_entries(header), ext4_extent_node_max(header));
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
	if (!header_ok(header, depth, ext4_extent_cap(vol), false)) {
		err = EXT4_CORRUPT(vol, inode->ino, blk,
				   "bad extent tree node (magic %#x, depth %u instead of %u, %u of "
				   "%u entries)",
				   le16toh(header->eh_magic), ext4_extent_node_depth(header), depth,
				   ext4_extent_node_entries(header), ext4_extent_node_max(header));
		goto fail;
	}
	if (!(__atomic_load_n(&buffer->verified, __ATOMIC_RELAXED) & EXT4_VERIFIED_EXTENT)) {
		if (!node_csum_ok(inode, buffer->data)) {
			err = EXT4_CORRUPT(vol, inode->ino, blk,
					   "extent tree node has a wrong checksum");
			goto fail;
		}
		if (!entries_ok(vol, header)) {
			err = EXT4_CORRUPT(vol, inode->ino, blk,
					   "extent tree node has entries out of order or out of "
					   "range");
			goto fail;
		}
		__atomic_fetch_or(&buffer->verified, EXT4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	}
	*ret = buffer;
	return 0;
fail:
	journal_buffer_release(buffer);
	return err;
}

/* ---- loading ---- */

/* Children that lie next to each other on the device are read in one go. */
static void readahead_children(struct ext4_inode *inode, struct ext3_extent_header *header,
			       unsigned from)
{
	uint64_t first = ext4_extent_index_block(&ext4_extent_node_indexes(header)[from]);
	unsigned n = 1;

	if (from &&
	    ext4_extent_index_block(&ext4_extent_node_indexes(header)[from - 1]) + 1 == first)
		return; /* read with the run that it belongs to */
	while (from + n < ext4_extent_node_entries(header) &&
	       ext4_extent_index_block(&ext4_extent_node_indexes(header)[from + n]) == first + n)
		n++;
	if (ext4_blocks_valid(inode->vol, first, n))
		journal_readahead(inode->vol->journal, first, n);
}

/* The runs of a leaf, all of which lie in [lo, hi). */
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

/* Bounded by the depth in the root, which each level checks. */
static int load_node(struct ext4_inode *inode, struct ext3_extent_header *header, uint64_t lo,
		     uint64_t hi, struct ext4_map_builder *builder)
{
	unsigned n = ext4_extent_node_entries(header), depth = ext4_extent_node_depth(header);

	if (!depth)
		return load_leaf(inode, header, lo, hi, builder);
	for (unsigned k = 0; k < n; k++) {
		struct ext3_extent_idx *idx = &ext4_extent_node_indexes(header)[k];
		uint64_t key = le32toh(idx->ei_block),
			 next = k + 1 < n ? le32toh(idx[1].ei_block) : hi;
		struct journal_buffer *child;
		int err;

		if (key < lo || next > hi || key >= next)
			return EXT4_CORRUPT(inode->vol, inode->ino, ext4_extent_index_block(idx),
					    "extent index key %u out of order", (unsigned)key);
		readahead_children(inode, header, k);
		err = ext4_extent_node_read(inode, ext4_extent_index_block(idx), depth - 1, &child);
		if (err)
			return err;
		err = ext4_map_builder_node(builder, ext4_extent_index_block(idx));
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

/* On a file system with shared_blocks, which is only read, files may have a block twice. */
static int check_twice(struct ext4_inode *inode, struct ext4_map_builder *builder)
{
	bool shared = ext2fs_has_feature_shared_blocks(inode->vol->fs->super);
	uint64_t blk = 0;
	int err = shared && S_ISREG(le16toh(inode->raw->i_mode))
				  ? 0
				  : ext4_map_builder_check(builder, &blk);

	return err == -EUCLEAN ? EXT4_CORRUPT(inode->vol, inode->ino, blk, "it has the block twice")
			       : err;
}

int ext4_map_load_locked(struct ext4_inode *inode)
{
	struct ext4_map_builder builder = { 0 };
	int err = -EINVAL;

	if (__atomic_load_n(&inode->data.map, __ATOMIC_ACQUIRE))
		return 0;
	/* Small enough for a loop thread is what lies in the inode. */
	if (nowait_on() && (ext4_map_kind(inode) != EXT4_MAPPED_EXTENTS ||
			    ext4_extent_node_depth(ext4_extent_root(inode))))
		return nowait_miss();
	switch (ext4_map_kind(inode)) {
	case EXT4_MAPPED_EXTENTS:
		err = ext4_extent_load(inode, &builder);
		break;
	case EXT4_MAPPED_INDIRECT:
		err = ext4_indirect_load(inode, &builder);
		break;
	case EXT4_MAPPED_NOT:
		err = -EINVAL;
		if (ext4_inode_inline(inode) &&
		    ext2fs_has_feature_inline_data(inode->vol->fs->super))
			err = -EOPNOTSUPP; /* ext4_inline_read */
		else if (ext4_inode_inline(inode))
			err = EXT4_CORRUPT(inode->vol, inode->ino, 0,
				       "inline data, which the file system does not have");
		break;
	}
	if (!err)
		err = check_twice(inode, &builder);
	if (!err && inode->data.win_len) /* behind everything else: WINDOW-1, WINDOW-3 */
		err = ext4_map_builder_add(&builder, &(struct ext4_extent){ inode->data.win_lblk,
									    inode->data.win_len,
									    inode->data.win_pblk,
									    EXT4_EXTENT_WRITTEN });
	if (err) {
		ext4_map_builder_free(&builder);
		return err;
	}
	err = ext4_map_builder_publish(&builder, inode);
	__atomic_store_n(&inode->vol->data.map_newest, inode->ino, __ATOMIC_RELAXED);
	ext4_map_mem_check(inode->vol);
	return err;
}

int ext4_map_load(struct ext4_inode *inode)
{
	int err = fdio_mutex_enter(&inode->map_lock);

	if (err)
		return err;
	err = ext4_map_load_locked(inode);
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}
