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
 * (jnl_buf.verified); the header is looked at each time, because a damaged image can make two
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
bool x4_link_is_fast(const struct x4_inode *i)
{
	uint64_t acl = le32toh(i->raw->i_file_acl) |
		       (uint64_t)le16toh(i->raw->osd2.linux2.l_i_file_acl_high) << 32;
	uint64_t own = acl ? (i->vol->block_size / 512) * EXT2FS_CLUSTER_RATIO(i->vol->fs) : 0;

	if (!S_ISLNK(le16toh(i->raw->i_mode)) || x4_inode_inline(i))
		return false;
	return x4_raw_size(i) < sizeof(i->raw->i_block) &&
	       (i->vol->has_ea_inode || x4_raw_blocks_512(i) <= own);
}

enum x4_map_kind x4_map_kind(const struct x4_inode *i)
{
	uint32_t flags = le32toh(i->raw->i_flags), mode = le16toh(i->raw->i_mode);

	if (x4_inode_inline(i))
		return X4_MAPPED_NOT;
	if (!S_ISREG(mode) && !S_ISDIR(mode) && !S_ISLNK(mode))
		return X4_MAPPED_NOT;
	if (x4_link_is_fast(i))
		return X4_MAPPED_NOT;
	if (flags & EXT4_EXTENTS_FL)
		return X4_MAPPED_EXTENTS;
	return X4_MAPPED_INDIRECT;
}

void x4_ext_decode(const struct ext3_extent *e, struct x4_ext *ret)
{
	uint32_t len = le16toh(e->ee_len);

	ret->lblk = le32toh(e->ee_block);
	ret->state = len > X4_EXT_WRITTEN_MAX ? X4_EXT_UNWRITTEN : X4_EXT_WRITTEN;
	ret->len = len > X4_EXT_WRITTEN_MAX ? len - X4_EXT_WRITTEN_MAX : len;
	ret->pblk = le32toh(e->ee_start) | (uint64_t)le16toh(e->ee_start_hi) << 32;
}

void x4_ext_encode(struct ext3_extent *e, const struct x4_ext *x)
{
	FDIO_ASSERT(x->len && x->len <= x4_ext_limit(x->state));
	e->ee_block = htole32(x->lblk);
	e->ee_len = htole16(x->state == X4_EXT_UNWRITTEN ? x->len + X4_EXT_WRITTEN_MAX : x->len);
	e->ee_start = htole32((uint32_t)x->pblk);
	e->ee_start_hi = htole16(x->pblk >> 32);
}

/* The checksum stands right behind the last possible entry: in the block, whatever the header says.
 * */
static size_t csum_at(const struct x4_inode *i, const uint8_t *data)
{
	const struct ext3_extent_header *h = (const void *)data;

	return sizeof(*h) + FDIO_MIN(x4_eh_max(h), x4_ext_cap(i->vol)) * sizeof(struct ext3_extent);
}

static uint32_t node_csum(const struct x4_inode *i, const uint8_t *data)
{
	return fdio_crc32c(i->csum_seed, data, csum_at(i, data));
}

void x4_ext_node_csum(struct x4_inode *i, struct jnl_buf *b)
{
	uint32_t c;

	/* As a node and as nothing else: what it was read as before may have been another owner's
	 * directory. */
	__atomic_store_n(&b->verified, X4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	if (!i->vol->has_csum)
		return;
	c = htole32(node_csum(i, b->data));
	memcpy(b->data + csum_at(i, b->data), &c, sizeof(c));
}

static bool node_csum_ok(const struct x4_inode *i, uint8_t *data)
{
	uint32_t c;

	if (!i->vol->has_csum)
		return true;
	memcpy(&c, data + csum_at(i, data), sizeof(c));
	return le32toh(c) == node_csum(i, data);
}

/* What must hold before any entry is looked at. */
static bool header_ok(const struct ext3_extent_header *h, unsigned depth, unsigned max, bool root)
{
	return le16toh(h->eh_magic) == EXT3_EXT_MAGIC && x4_eh_depth(h) == depth && x4_eh_max(h) <= max &&
	       x4_eh_max(h) >= X4_EXT_ROOT_MAX && x4_eh_entries(h) <= x4_eh_max(h) &&
	       (x4_eh_entries(h) || (root && !depth));
}

static bool leaf_ok(struct x4_vol *v, struct ext3_extent_header *h)
{
	uint64_t end = 0;

	for (unsigned k = 0; k < x4_eh_entries(h); k++) {
		struct x4_ext x;

		x4_ext_decode(&x4_eh_ext(h)[k], &x);
		if (!x.len || x.lblk < end || x4_ext_end(&x) > X4_LBLK_END || !x4_blk_valid(v, x.pblk, x.len))
			return false;
		end = x4_ext_end(&x);
	}
	return true;
}

static bool index_ok(struct x4_vol *v, struct ext3_extent_header *h)
{
	for (unsigned k = 0; k < x4_eh_entries(h); k++) {
		const struct ext3_extent_idx *x = &x4_eh_idx(h)[k];

		if (!x4_blk_valid(v, x4_idx_blk(x), 1))
			return false;
		if (k && le32toh(x[0].ei_block) <= le32toh(x[-1].ei_block))
			return false;
	}
	return true;
}

static bool entries_ok(struct x4_vol *v, struct ext3_extent_header *h)
{
	return x4_eh_depth(h) ? index_ok(v, h) : leaf_ok(v, h);
}

int x4_ext_check_root(struct x4_inode *i)
{
	struct ext3_extent_header *h = x4_ext_root(i);

	if (x4_eh_depth(h) > X4_EXT_MAX_DEPTH || !header_ok(h, x4_eh_depth(h), X4_EXT_ROOT_MAX, true) || !entries_ok(i->vol, h))
		return X4_CORRUPT(i->vol, i->ino, 0, "bad extent tree root (magic %#x, depth %u, %u of %u entries)",
				  le16toh(h->eh_magic), x4_eh_depth(h), x4_eh_entries(h), x4_eh_max(h));
	return 0;
}

int x4_ext_node_read(struct x4_inode *i, uint64_t blk, unsigned depth, struct jnl_buf **ret)
{
	struct x4_vol *v = i->vol;
	struct ext3_extent_header *h;
	struct jnl_buf *b;
	int r;

	if (!x4_blk_valid(v, blk, 1))
		return X4_CORRUPT(v, i->ino, blk, "extent tree block outside the file system's data area");
	r = jnl_bread(v->jnl, blk, &b);
	if (r)
		return r;
	h = (struct ext3_extent_header *)b->data;
	if (!header_ok(h, depth, x4_ext_cap(v), false)) {
		r = X4_CORRUPT(v, i->ino, blk, "bad extent tree node (magic %#x, depth %u instead of %u, %u of %u entries)",
			       le16toh(h->eh_magic), x4_eh_depth(h), depth, x4_eh_entries(h), x4_eh_max(h));
		goto fail;
	}
	if (!(__atomic_load_n(&b->verified, __ATOMIC_RELAXED) & X4_VERIFIED_EXTENT)) {
		if (!node_csum_ok(i, b->data)) {
			r = X4_CORRUPT(v, i->ino, blk, "extent tree node has a wrong checksum");
			goto fail;
		}
		if (!entries_ok(v, h)) {
			r = X4_CORRUPT(v, i->ino, blk, "extent tree node has entries out of order or out of range");
			goto fail;
		}
		__atomic_fetch_or(&b->verified, X4_VERIFIED_EXTENT, __ATOMIC_RELAXED);
	}
	*ret = b;
	return 0;
fail:
	jnl_brelse(b);
	return r;
}

/* ---- loading ---- */

/* Children that lie next to each other on the device are read in one go. */
static void readahead_children(struct x4_inode *i, struct ext3_extent_header *h, unsigned from)
{
	uint64_t first = x4_idx_blk(&x4_eh_idx(h)[from]);
	unsigned n = 1;

	if (from && x4_idx_blk(&x4_eh_idx(h)[from - 1]) + 1 == first)
		return; /* read with the run that it belongs to */
	while (from + n < x4_eh_entries(h) && x4_idx_blk(&x4_eh_idx(h)[from + n]) == first + n)
		n++;
	if (x4_blk_valid(i->vol, first, n))
		jnl_readahead(i->vol->jnl, first, n);
}

/* The runs of a leaf, all of which lie in [lo, hi). */
static int load_leaf(struct x4_inode *i, struct ext3_extent_header *h, uint64_t lo, uint64_t hi, struct x4_map_builder *b)
{
	for (unsigned k = 0; k < x4_eh_entries(h); k++) {
		struct x4_ext x;
		int r;

		x4_ext_decode(&x4_eh_ext(h)[k], &x);
		if (x.lblk < lo || x4_ext_end(&x) > hi || !x.len)
			return X4_CORRUPT(i->vol, i->ino, x.pblk, "extent at block %u lies outside its parent's range", x.lblk);
		lo = x4_ext_end(&x);
		r = x4_map_builder_add(b, &x);
		if (r)
			return r;
	}
	return 0;
}

/* Bounded by the depth in the root, which each level checks. */
static int load_node(struct x4_inode *i, struct ext3_extent_header *h, uint64_t lo, uint64_t hi, struct x4_map_builder *b)
{
	unsigned n = x4_eh_entries(h), depth = x4_eh_depth(h);

	if (!depth)
		return load_leaf(i, h, lo, hi, b);
	for (unsigned k = 0; k < n; k++) {
		struct ext3_extent_idx *x = &x4_eh_idx(h)[k];
		uint64_t key = le32toh(x->ei_block), next = k + 1 < n ? le32toh(x[1].ei_block) : hi;
		struct jnl_buf *child;
		int r;

		if (key < lo || next > hi || key >= next)
			return X4_CORRUPT(i->vol, i->ino, x4_idx_blk(x), "extent index key %u out of order", (unsigned)key);
		readahead_children(i, h, k);
		r = x4_ext_node_read(i, x4_idx_blk(x), depth - 1, &child);
		if (r)
			return r;
		r = x4_map_builder_node(b, x4_idx_blk(x));
		if (!r)
			r = load_node(i, (struct ext3_extent_header *)child->data, key, next, b);
		jnl_brelse(child);
		if (r)
			return r;
	}
	return 0;
}

int x4_ext_load(struct x4_inode *i, struct x4_map_builder *b)
{
	int r = x4_ext_check_root(i);

	return r ? r : load_node(i, x4_ext_root(i), 0, X4_LBLK_END, b);
}

/* On a file system with shared_blocks, which is only read, files may have a block twice. */
static int check_twice(struct x4_inode *i, struct x4_map_builder *b)
{
	bool shared = ext2fs_has_feature_shared_blocks(i->vol->fs->super);
	uint64_t blk = 0;
	int r = shared && S_ISREG(le16toh(i->raw->i_mode)) ? 0 : x4_map_builder_check(b, &blk);

	return r == -EUCLEAN ? X4_CORRUPT(i->vol, i->ino, blk, "it has the block twice") : r;
}

int x4_map_load_locked(struct x4_inode *i)
{
	struct x4_map_builder b = { 0 };
	int r = -EINVAL;

	if (__atomic_load_n(&i->data.map, __ATOMIC_ACQUIRE))
		return 0;
	/* Small enough for a loop thread is what lies in the inode. */
	if (nowait_on() && (x4_map_kind(i) != X4_MAPPED_EXTENTS || x4_eh_depth(x4_ext_root(i))))
		return nowait_miss();
	switch (x4_map_kind(i)) {
	case X4_MAPPED_EXTENTS:
		r = x4_ext_load(i, &b);
		break;
	case X4_MAPPED_INDIRECT:
		r = x4_ind_load(i, &b);
		break;
	case X4_MAPPED_NOT:
		r = -EINVAL;
		if (x4_inode_inline(i) && ext2fs_has_feature_inline_data(i->vol->fs->super))
			r = -EOPNOTSUPP; /* x4_inline_read */
		else if (x4_inode_inline(i))
			r = X4_CORRUPT(i->vol, i->ino, 0,
				       "inline data, which the file system does not have");
		break;
	}
	if (!r)
		r = check_twice(i, &b);
	if (!r && i->data.win_len) /* behind everything else: WINDOW-1, WINDOW-3 */
		r = x4_map_builder_add(&b, &(struct x4_ext){ i->data.win_lblk, i->data.win_len, i->data.win_pblk, X4_EXT_WRITTEN });
	if (r) {
		x4_map_builder_free(&b);
		return r;
	}
	r = x4_map_builder_publish(&b, i);
	__atomic_store_n(&i->vol->data.map_newest, i->ino, __ATOMIC_RELAXED);
	x4_map_mem_check(i->vol);
	return r;
}

int x4_map_load(struct x4_inode *i)
{
	int r = fdio_mutex_enter(&i->map_lock);

	if (r)
		return r;
	r = x4_map_load_locked(i);
	fdio_mutex_unlock(&i->map_lock);
	return r;
}
