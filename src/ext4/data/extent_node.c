/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Nodes of extent trees: reading them with every check that keeps a damaged or hostile image from leading anywhere, their
 * checksums, and the walk that loads a whole tree into a map. Called by the other files of the extents part, on workers,
 * with what guards the tree held.
 *
 * A node is accepted only if its header has the magic, the depth that its parent promised (so the
 * walk is at most X4_EXT_MAX_DEPTH deep and cannot loop), an entry count between 1 and its
 * capacity, and ascending entries; the load further requires every entry to lie between its
 * parent's key and the next one, so that no node can be visited twice, and no block to be there
 * twice (data/map_twice.c). The checks of a block's content are done once per read from the device
 * (journal_buffer.verified); the header is looked at each time, because a damaged image can make two
 * structures share a block.
 *
 * Damage is recorded (X4_CORRUPT) and is -EUCLEAN.
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
bool x4_link_is_fast(const struct x4_inode *inode)
{
	uint64_t acl = le32toh(inode->raw->i_file_acl) |
		       (uint64_t)le16toh(inode->raw->osd2.linux2.l_i_file_acl_high) << 32;
	uint64_t own = acl ? (inode->vol->block_size / 512) * EXT2FS_CLUSTER_RATIO(inode->vol->fs) : 0;

	if (!S_ISLNK(le16toh(inode->raw->i_mode)) || x4_inode_inline(inode))
		return false;
	return x4_raw_size(inode) < sizeof(inode->raw->i_block) &&
	       (inode->vol->has_ea_inode || x4_raw_blocks_512(inode) <= own);
}

enum x4_map_kind x4_map_kind(const struct x4_inode *inode)
{
	uint32_t flags = le32toh(inode->raw->i_flags), mode = le16toh(inode->raw->i_mode);

	if (x4_inode_inline(inode))
		return X4_MAPPED_NOT;
	if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode))
		return X4_MAPPED_NOT;
	if (x4_link_is_fast(inode))
		return X4_MAPPED_NOT;
	if (flags & EXT4_EXTENTS_FL)
		return X4_MAPPED_EXTENTS;
	return X4_MAPPED_INDIRECT;
}

void x4_ext_decode(const struct ext3_extent *extent, struct x4_ext *ret)
{
	uint32_t len = le16toh(extent->ee_len);

	ret->lblk = le32toh(extent->ee_block);
	ret->state = len > X4_EXT_WRITTEN_MAX ? X4_EXT_UNWRITTEN : X4_EXT_WRITTEN;
	ret->len = len > X4_EXT_WRITTEN_MAX ? len - X4_EXT_WRITTEN_MAX : len;
	ret->pblk = le32toh(extent->ee_start) | (uint64_t)le16toh(extent->ee_start_hi) << 32;
}

void x4_ext_encode(struct ext3_extent *extent, const struct x4_ext *x)
{
	FDIO_ASSERT(x->len && x->len <= x4_ext_limit(x->state));
	extent->ee_block = htole32(x->lblk);
	extent->ee_len = htole16(x->state == X4_EXT_UNWRITTEN ? x->len + X4_EXT_WRITTEN_MAX : x->len);
	extent->ee_start = htole32((uint32_t)x->pblk);
	extent->ee_start_hi = htole16(x->pblk >> 32);
}

/* The checksum stands right behind the last possible entry: in the block, whatever the header says.
 * */
static size_t csum_at(const struct x4_inode *inode, const uint8_t *data)
{
	const struct ext3_extent_header *header = (const void *)data;

	return sizeof(*header) + FDIO_MIN(x4_eh_max(header), x4_ext_cap(inode->vol)) * sizeof(struct ext3_extent);
}

static uint32_t node_csum(const struct x4_inode *inode, const uint8_t *data)
{
	return fdio_crc32c(inode->checksum_seed, data, csum_at(inode, data));
}

void x4_ext_node_csum(struct x4_inode *inode, struct journal_buffer *buffer)
{
	uint32_t c;

	/* As a node and as nothing else: what it was read as before may have been another owner's
	 * directory. */
	__atomic_store_n(&buffer->verified, X4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	if (!inode->vol->has_csum)
		return;
	c = htole32(node_csum(inode, buffer->data));
	memcpy(buffer->data + csum_at(inode, buffer->data), &c, sizeof(c));
}

static bool node_csum_ok(const struct x4_inode *inode, uint8_t *data)
{
	uint32_t c;

	if (!inode->vol->has_csum)
		return true;
	memcpy(&c, data + csum_at(inode, data), sizeof(c));
	return le32toh(c) == node_csum(inode, data);
}

/* What must hold before any entry is looked at. */
static bool header_ok(const struct ext3_extent_header *header, unsigned depth, unsigned max, bool root)
{
	return le16toh(header->eh_magic) == EXT3_EXT_MAGIC && x4_eh_depth(header) == depth && x4_eh_max(header) <= max &&
	       x4_eh_max(header) >= X4_EXT_ROOT_MAX && x4_eh_entries(header) <= x4_eh_max(header) &&
	       (x4_eh_entries(header) || (root && !depth));
}

static bool leaf_ok(struct x4_vol *vol, struct ext3_extent_header *header)
{
	uint64_t end = 0;

	for (unsigned k = 0; k < x4_eh_entries(header); k++) {
		struct x4_ext extent;

		x4_ext_decode(&x4_eh_ext(header)[k], &extent);
		if (!extent.len || extent.lblk < end || x4_ext_end(&extent) > X4_LBLK_END || !x4_blk_valid(vol, extent.pblk, extent.len))
			return false;
		end = x4_ext_end(&extent);
	}
	return true;
}

static bool index_ok(struct x4_vol *vol, struct ext3_extent_header *header)
{
	for (unsigned k = 0; k < x4_eh_entries(header); k++) {
		const struct ext3_extent_idx *idx = &x4_eh_idx(header)[k];

		if (!x4_blk_valid(vol, x4_idx_blk(idx), 1))
			return false;
		if (k && le32toh(idx[0].ei_block) <= le32toh(idx[-1].ei_block))
			return false;
	}
	return true;
}

static bool entries_ok(struct x4_vol *vol, struct ext3_extent_header *header)
{
	return x4_eh_depth(header) ? index_ok(vol, header) : leaf_ok(vol, header);
}

int x4_ext_check_root(struct x4_inode *inode)
{
	struct ext3_extent_header *header = x4_ext_root(inode);

	if (x4_eh_depth(header) > X4_EXT_MAX_DEPTH || !header_ok(header, x4_eh_depth(header), X4_EXT_ROOT_MAX, true) || !entries_ok(inode->vol, header))
		return X4_CORRUPT(inode->vol, inode->ino, 0, "bad extent tree root (magic %#x, depth %u, %u of %u entries)",
				  le16toh(header->eh_magic), x4_eh_depth(header), x4_eh_entries(header), x4_eh_max(header));
	return 0;
}

int x4_ext_node_read(struct x4_inode *inode, uint64_t blk, unsigned depth, struct journal_buffer **ret)
{
	struct x4_vol *vol = inode->vol;
	struct ext3_extent_header *header;
	struct journal_buffer *buffer;
	int err;

	if (!x4_blk_valid(vol, blk, 1))
		return X4_CORRUPT(vol, inode->ino, blk, "extent tree block outside the file system's data area");
	err = journal_read_block(vol->journal, blk, &buffer);
	if (err)
		return err;
	header = (struct ext3_extent_header *)buffer->data;
	if (!header_ok(header, depth, x4_ext_cap(vol), false)) {
		err = X4_CORRUPT(vol, inode->ino, blk, "bad extent tree node (magic %#x, depth %u instead of %u, %u of %u entries)",
			       le16toh(header->eh_magic), x4_eh_depth(header), depth, x4_eh_entries(header), x4_eh_max(header));
		goto fail;
	}
	if (!(__atomic_load_n(&buffer->verified, __ATOMIC_RELAXED) & X4_VERIFIED_EXTENT)) {
		if (!node_csum_ok(inode, buffer->data)) {
			err = X4_CORRUPT(vol, inode->ino, blk, "extent tree node has a wrong checksum");
			goto fail;
		}
		if (!entries_ok(vol, header)) {
			err = X4_CORRUPT(vol, inode->ino, blk, "extent tree node has entries out of order or out of range");
			goto fail;
		}
		__atomic_fetch_or(&buffer->verified, X4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	}
	*ret = buffer;
	return 0;
fail:
	journal_buffer_release(buffer);
	return err;
}

/* ---- loading ---- */

/* Children that lie next to each other on the device are read in one go. */
static void readahead_children(struct x4_inode *inode, struct ext3_extent_header *header, unsigned from)
{
	uint64_t first = x4_idx_blk(&x4_eh_idx(header)[from]);
	unsigned n = 1;

	if (from && x4_idx_blk(&x4_eh_idx(header)[from - 1]) + 1 == first)
		return; /* read with the run that it belongs to */
	while (from + n < x4_eh_entries(header) && x4_idx_blk(&x4_eh_idx(header)[from + n]) == first + n)
		n++;
	if (x4_blk_valid(inode->vol, first, n))
		journal_readahead(inode->vol->journal, first, n);
}

/* The runs of a leaf, all of which lie in [lo, hi). */
static int load_leaf(struct x4_inode *inode, struct ext3_extent_header *header, uint64_t lo, uint64_t hi, struct x4_map_builder *builder)
{
	for (unsigned k = 0; k < x4_eh_entries(header); k++) {
		struct x4_ext extent;
		int err;

		x4_ext_decode(&x4_eh_ext(header)[k], &extent);
		if (extent.lblk < lo || x4_ext_end(&extent) > hi || !extent.len)
			return X4_CORRUPT(inode->vol, inode->ino, extent.pblk, "extent at block %u lies outside its parent's range", extent.lblk);
		lo = x4_ext_end(&extent);
		err = x4_map_builder_add(builder, &extent);
		if (err)
			return err;
	}
	return 0;
}

/* Bounded by the depth in the root, which each level checks. */
static int load_node(struct x4_inode *inode, struct ext3_extent_header *header, uint64_t lo, uint64_t hi, struct x4_map_builder *builder)
{
	unsigned n = x4_eh_entries(header), depth = x4_eh_depth(header);

	if (!depth)
		return load_leaf(inode, header, lo, hi, builder);
	for (unsigned k = 0; k < n; k++) {
		struct ext3_extent_idx *idx = &x4_eh_idx(header)[k];
		uint64_t key = le32toh(idx->ei_block), next = k + 1 < n ? le32toh(idx[1].ei_block) : hi;
		struct journal_buffer *child;
		int err;

		if (key < lo || next > hi || key >= next)
			return X4_CORRUPT(inode->vol, inode->ino, x4_idx_blk(idx), "extent index key %u out of order", (unsigned)key);
		readahead_children(inode, header, k);
		err = x4_ext_node_read(inode, x4_idx_blk(idx), depth - 1, &child);
		if (err)
			return err;
		err = x4_map_builder_node(builder, x4_idx_blk(idx));
		if (!err)
			err = load_node(inode, (struct ext3_extent_header *)child->data, key, next, builder);
		journal_buffer_release(child);
		if (err)
			return err;
	}
	return 0;
}

int x4_ext_load(struct x4_inode *inode, struct x4_map_builder *builder)
{
	int err = x4_ext_check_root(inode);

	return err ? err : load_node(inode, x4_ext_root(inode), 0, X4_LBLK_END, builder);
}

/* On a file system with shared_blocks, which is only read, files may have a block twice. */
static int check_twice(struct x4_inode *inode, struct x4_map_builder *builder)
{
	bool shared = ext2fs_has_feature_shared_blocks(inode->vol->fs->super);
	uint64_t blk = 0;
	int err = shared && S_ISREG(le16toh(inode->raw->i_mode)) ? 0 : x4_map_builder_check(builder, &blk);

	return err == -EUCLEAN ? X4_CORRUPT(inode->vol, inode->ino, blk, "it has the block twice") : err;
}

int x4_map_load_locked(struct x4_inode *inode)
{
	struct x4_map_builder builder = { 0 };
	int err = -EINVAL;

	if (__atomic_load_n(&inode->data.map, __ATOMIC_ACQUIRE))
		return 0;
	/* Small enough for a loop thread is what lies in the inode. */
	if (nowait_on() && (x4_map_kind(inode) != X4_MAPPED_EXTENTS || x4_eh_depth(x4_ext_root(inode))))
		return nowait_miss();
	switch (x4_map_kind(inode)) {
	case X4_MAPPED_EXTENTS:
		err = x4_ext_load(inode, &builder);
		break;
	case X4_MAPPED_INDIRECT:
		err = x4_ind_load(inode, &builder);
		break;
	case X4_MAPPED_NOT:
		err = -EINVAL;
		if (x4_inode_inline(inode) && ext2fs_has_feature_inline_data(inode->vol->fs->super))
			err = -EOPNOTSUPP; /* x4_inline_read */
		else if (x4_inode_inline(inode))
			err = X4_CORRUPT(inode->vol, inode->ino, 0,
				       "inline data, which the file system does not have");
		break;
	}
	if (!err)
		err = check_twice(inode, &builder);
	if (!err && inode->data.win_len) /* behind everything else: WINDOW-1, WINDOW-3 */
		err = x4_map_builder_add(&builder, &(struct x4_ext){ inode->data.win_lblk, inode->data.win_len, inode->data.win_pblk, X4_EXT_WRITTEN });
	if (err) {
		x4_map_builder_free(&builder);
		return err;
	}
	err = x4_map_builder_publish(&builder, inode);
	__atomic_store_n(&inode->vol->data.map_newest, inode->ino, __ATOMIC_RELAXED);
	x4_map_mem_check(inode->vol);
	return err;
}

int x4_map_load(struct x4_inode *inode)
{
	int err = fdio_mutex_enter(&inode->map_lock);

	if (err)
		return err;
	err = x4_map_load_locked(inode);
	fdio_mutex_unlock(&inode->map_lock);
	return err;
}
