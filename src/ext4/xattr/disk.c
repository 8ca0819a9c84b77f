/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes on disk: reading an inode's whole set from its own space and its block, and
 * laying a changed set out again. Called on workers, by xattr/xattr.c and xattr/acl.c, with the
 * inode locked.
 *
 * Both places have the same shape: entries grow upwards from the start, values downwards from the
 * end, four zero bytes end the entries. Offsets of values count from the first entry in the inode,
 * from the start of the block in a block. In a block the entries are sorted (the kernel searches
 * them so) and hashed.
 *
 * XATTR-1 Nothing read from an image is used before its place has been checked: names end before
 * the area does, values lie
 *    between the end of the entries and the end of the area.
 * XATTR-2 A block with other owners (h_refcount > 1) is never changed but for its count. XATTR-3 A
 * value in an inode of its own (xattr/value.c) belongs to the block its entry is in, not to each
 * inode that has the block.
 */
#include "ext4/xattr/set.h"

#include "base/crc32c.h"

#include <errno.h>
#include <ext2fs/ext2_ext_attr.h>
#include <stdlib.h>
#include <string.h>

#define OLD_INODE 128u
#define ENTRY_BYTES ((uint32_t)sizeof(struct ext2_ext_attr_entry))
#define BLOCK_HDR ((uint32_t)sizeof(struct ext2_ext_attr_header))

static uint32_t round4(uint32_t n) { return (n + 3) & ~3u; }
static uint32_t entry_len(uint32_t name_len) { return round4(ENTRY_BYTES + name_len); }
static uint32_t value_len(const struct ext4_xattr *xattr)
{
	return xattr->inum || xattr->apart ? 0 : round4(xattr->size);
}

/* ------------------------------------------------------------------ places */

uint64_t ext4_raw_file_acl(const struct ext4_inode *inode)
{
	uint64_t blk = inode->raw->i_file_acl;

	if (inode->vol->has_64bit)
		blk |= (uint64_t)inode->raw->osd2.linux2.l_i_file_acl_high << 32;
	return blk;
}

static void raw_set_file_acl(struct ext4_inode *inode, uint64_t blk)
{
	inode->raw->i_file_acl = (uint32_t)blk;
	if (inode->vol->has_64bit)
		inode->raw->osd2.linux2.l_i_file_acl_high = (uint16_t)(blk >> 32);
}

/* The inode's own space for entries and values, after the magic; NULL if it has none. */
static uint8_t *ibody_area(const struct ext4_inode *inode, uint32_t *ret_len, uint32_t **ret_magic)
{
	uint32_t extra = inode->raw->i_extra_isize, start = OLD_INODE + extra;

	if (inode->vol->inode_size <= OLD_INODE || !extra || (extra & 3) ||
	    start + 4 + 4 > inode->vol->inode_size)
		return NULL;
	*ret_magic = (uint32_t *)((uint8_t *)inode->raw + start);
	*ret_len = inode->vol->inode_size - start - 4;
	return (uint8_t *)inode->raw + start + 4;
}

bool ext4_xattr_any(const struct ext4_inode *inode)
{
	uint32_t len, *magic;

	return ext4_raw_file_acl(inode) ||
	       (ibody_area(inode, &len, &magic) && *magic == EXT2_EXT_ATTR_MAGIC);
}

/* ------------------------------------------------------------------ reading */

static int add_entry(struct ext4_xattr_set *set, const struct ext2_ext_attr_entry *entry,
		     const uint8_t *value, bool in_block)
{
	if (set->nr + 2 > set->cap) { /* keeps one to spare */
		unsigned cap = set->cap ? set->cap * 2 : 16;
		struct ext4_xattr *xattr = realloc(set->xattr, cap * sizeof(*xattr));
		if (!xattr)
			return -ENOMEM;
		set->xattr = xattr;
		set->cap = cap;
	}
	set->xattr[set->nr++] = (struct ext4_xattr){
		.index = entry->e_name_index,
		.name_len = entry->e_name_len,
		.name = (const char *)entry + ENTRY_BYTES,
		.value = value,
		.size = entry->e_value_size,
		.inum = entry->e_value_inum,
		.hash = entry->e_hash,
		.in_block = in_block,
		.was_in_block = in_block,
	};
	return 0;
}

/* Entries of [first, end); value offsets count from base. XATTR-1. */
static int parse(struct ext4_inode *inode, struct ext4_xattr_set *set, const uint8_t *base,
		 const uint8_t *first, const uint8_t *end, uint64_t blk)
{
	const uint8_t *p = first, *stop;
	struct ext2_ext_attr_entry entry;

	/* Where the entries end, so that values can be told from them. */
	for (;;) {
		uint32_t word;
		if (end - p < 4)
			return EXT4_CORRUPT(inode->vol, inode->ino, blk,
					    "extended attributes without an end");
		memcpy(&word, p, 4);
		if (!word)
			break;
		if (end - p < (ptrdiff_t)ENTRY_BYTES)
			return EXT4_CORRUPT(inode->vol, inode->ino, blk,
					    "an extended attribute entry is cut off");
		memcpy(&entry, p, ENTRY_BYTES);
		if (end - p < (ptrdiff_t)entry_len(entry.e_name_len))
			return EXT4_CORRUPT(inode->vol, inode->ino, blk,
					    "an extended attribute name is cut off");
		p += entry_len(entry.e_name_len);
	}
	stop = p + 4;
	for (p = first; p + 4 < stop; p += entry_len(entry.e_name_len)) {
		const uint8_t *value = NULL;
		int err;

		memcpy(&entry, p, ENTRY_BYTES);
		if (!entry.e_value_inum && entry.e_value_size) {
			uint32_t avail = (uint32_t)(end - base);
			if (entry.e_value_offs > avail ||
			    entry.e_value_size > avail - entry.e_value_offs ||
			    base + entry.e_value_offs < stop)
				return EXT4_CORRUPT(inode->vol, inode->ino, blk,
						    "an extended attribute value lies outside");
			value = base + entry.e_value_offs;
		}
		if (entry.e_value_inum &&
		    (!inode->vol->has_ea_inode || entry.e_value_size > EXT4_XATTR_VALUE_MAX))
			return EXT4_CORRUPT(inode->vol, inode->ino, blk,
					    "an extended attribute value in inode %u",
					    entry.e_value_inum);
		err = add_entry(set, (const struct ext2_ext_attr_entry *)p, value, blk != 0);
		if (err)
			return err;
	}
	return 0;
}

static uint32_t block_csum(struct ext4_vol *vol, uint64_t blk, const uint8_t *data)
{
	static const uint8_t zero[4];
	size_t at = offsetof(struct ext2_ext_attr_header, h_checksum);
	uint32_t c = fdio_crc32c(vol->checksum_seed, &blk, 8);

	c = fdio_crc32c(c, data, at);
	c = fdio_crc32c(c, zero, 4);
	return fdio_crc32c(c, data + at + 4, vol->block_size - at - 4);
}

static int read_block(struct ext4_inode *inode, uint64_t blk, struct journal_buffer **ret)
{
	struct ext4_vol *vol = inode->vol;
	struct journal_buffer *buffer;
	int err;

	if (!ext4_blocks_valid(vol, blk, 1))
		return EXT4_CORRUPT(vol, inode->ino, blk, "impossible extended attribute block");
	err = journal_read_block(vol->journal, blk, &buffer);
	if (err)
		return err;
	if (!(__atomic_load_n(&buffer->verified, __ATOMIC_RELAXED) & EXT4_VERIFIED_XATTR)) {
		const struct ext2_ext_attr_header *header = (const void *)buffer->data;
		const char *wrong = NULL;

		if (header->h_magic != EXT2_EXT_ATTR_MAGIC || header->h_blocks != 1 ||
		    !header->h_refcount)
			wrong = "bad header of the extended attribute block";
		else if (vol->has_csum && header->h_checksum != block_csum(vol, blk, buffer->data))
			wrong = "wrong checksum of the extended attribute block";
		if (wrong) {
			journal_buffer_release(buffer);
			return EXT4_CORRUPT(vol, inode->ino, blk, "%s", wrong);
		}
		__atomic_fetch_or(&buffer->verified, EXT4_VERIFIED_XATTR, __ATOMIC_RELAXED);
	}
	*ret = buffer;
	return 0;
}

static void *copy_of(const void *p, size_t len)
{
	void *c = malloc(len);

	if (c)
		memcpy(c, p, len);
	return c;
}

static int load_ibody(struct ext4_inode *inode, struct ext4_xattr_set *set)
{
	uint32_t len, *magic;
	uint8_t *area = ibody_area(inode, &len, &magic);

	if (!area || *magic != EXT2_EXT_ATTR_MAGIC)
		return 0;
	set->ibody_copy = copy_of(area, len);
	if (!set->ibody_copy)
		return -ENOMEM;
	return parse(inode, set, set->ibody_copy, set->ibody_copy, set->ibody_copy + len, 0);
}

int ext4_xattr_inline(struct ext4_inode *inode, uint8_t *buf, uint32_t cap, uint32_t *ret_len)
{
	struct ext4_xattr_set set = { .cap = 8 };
	struct ext4_xattr *xattr;
	int err;

	set.xattr = calloc(set.cap, sizeof(*set.xattr));
	if (!set.xattr)
		return -ENOMEM;
	err = load_ibody(inode, &set);
	if (err)
		goto out;
	xattr = ext4_xattr_find(&set, EXT4_XATTR_INDEX_SYSTEM, "data", 4);
	if (!xattr || xattr->inum || xattr->size > cap) {
		err = EXT4_CORRUPT(inode->vol, inode->ino, 0,
				 "inline data without the attribute that holds the rest");
		goto out;
	}
	if (xattr->size)
		memcpy(buf, xattr->value, xattr->size);
	*ret_len = xattr->size;
out:
	ext4_xattr_set_fini(&set);
	return err;
}

static int load_block(struct ext4_inode *inode, struct ext4_xattr_set *set, uint64_t blk)
{
	struct journal_buffer *buffer;
	int err = read_block(inode, blk, &buffer);

	if (err)
		return err;
	set->block_copy = copy_of(buffer->data, inode->vol->block_size);
	set->block_shared = ((struct ext2_ext_attr_header *)buffer->data)->h_refcount > 1;
	journal_buffer_release(buffer);
	if (!set->block_copy)
		return -ENOMEM;
	return parse(inode, set, set->block_copy, set->block_copy + BLOCK_HDR,
		     set->block_copy + inode->vol->block_size, blk);
}

int ext4_xattr_load(struct ext4_inode *inode, struct ext4_xattr_set *ret)
{
	struct ext4_xattr_set set = { .cap = 8 };
	uint64_t blk = ext4_raw_file_acl(inode);
	int err;

	set.xattr = calloc(set.cap, sizeof(*set.xattr));
	if (!set.xattr)
		return -ENOMEM;
	err = load_ibody(inode, &set);
	if (!err && blk)
		err = load_block(inode, &set, blk);
	if (err)
		ext4_xattr_set_fini(&set);
	else
		*ret = set;
	return err;
}

void ext4_xattr_set_fini(struct ext4_xattr_set *set)
{
	free(set->xattr);
	free(set->ibody_copy);
	free(set->block_copy);
}

struct ext4_xattr *ext4_xattr_find(struct ext4_xattr_set *set, uint8_t index, const char *name,
				   unsigned name_len)
{
	for (unsigned k = 0; k < set->nr; k++)
		if (set->xattr[k].index == index && set->xattr[k].name_len == name_len &&
		    !memcmp(set->xattr[k].name, name, name_len))
			return &set->xattr[k];
	return NULL;
}

/* ------------------------------------------------------------------ writing */

/* True if xattr fits into what is left of the inode's space; then it is taken. */
static bool take_ibody(const struct ext4_xattr *xattr, uint32_t len, uint32_t *used)
{
	uint32_t need = entry_len(xattr->name_len) + value_len(xattr);

	if (*used + need > len)
		return false;
	*used += need;
	return true;
}

/* Room taken in the block: by entries and their header, and by values. */
struct taken { uint32_t entries, values; bool any; };

static void take_block(const struct ext4_xattr *xattr, struct taken *taken)
{
	taken->entries += entry_len(xattr->name_len);
	taken->values += value_len(xattr);
	taken->any = true;
}

/*
 * True if xattr may go to the block. Where values can lie in inodes, one that would leave little of
 * the block to the names of others does not go there.
 */
static bool fits_block(const struct ext4_vol *vol, const struct ext4_xattr *xattr,
		       const struct taken *taken)
{
	uint32_t values = taken->values + value_len(xattr),
		 reserve = FDIO_MIN(vol->block_size / 8, 1024u);

	if (taken->entries + entry_len(xattr->name_len) + values > vol->block_size)
		return false;
	return !vol->has_ea_inode || !value_len(xattr) || vol->block_size - values >= reserve;
}

/*
 * Where ext4 would put it: in the inode, else in the block; and if there is no room, or no block
 * could ever hold it, only its name.
 */
static int place_fresh(const struct ext4_vol *vol, struct ext4_xattr *xattr, uint32_t len,
		       uint32_t *used, struct taken *taken)
{
	bool may = vol->has_ea_inode && xattr->size;

	for (xattr->apart = may &&
			    round4(xattr->size) > vol->block_size - BLOCK_HDR - 4 - entry_len(3);
	     ; xattr->apart = true) {
		xattr->in_block = !take_ibody(xattr, len, used);
		if (!xattr->in_block)
			return 0;
		if (fits_block(vol, xattr, taken)) {
			take_block(xattr, taken);
			return 0;
		}
		if (xattr->apart || !may)
			return -ENOSPC;
	}
}

/* What is in one place stays there, as with the kernel; only a fresh one may move. */
static int assign_places(struct ext4_inode *inode, struct ext4_xattr_set *set, bool *ret_block)
{
	uint32_t len = 0, used = 4, *magic;
	struct taken taken = { BLOCK_HDR + 4, 0, false };
	int err = 0;

	if (!ibody_area(inode, &len, &magic))
		len = 0;
	for (unsigned k = 0; k < set->nr; k++) {
		if (!set->xattr[k].in_block && !set->xattr[k].fresh)
			set->xattr[k].in_block = !take_ibody(&set->xattr[k], len, &used);
		if (set->xattr[k].in_block && !set->xattr[k].fresh)
			take_block(&set->xattr[k], &taken);
	}
	for (unsigned k = 0; k < set->nr && !err; k++)
		if (set->xattr[k].fresh)
			err = place_fresh(inode->vol, &set->xattr[k], len, &used, &taken);
	if (!err && taken.any && taken.entries + taken.values > inode->vol->block_size)
		err = -ENOSPC;
	*ret_block = taken.any;
	return err;
}

static void put_entry(uint8_t *at, const struct ext4_xattr *xattr, uint32_t value_off,
		      uint32_t hash)
{
	struct ext2_ext_attr_entry entry = {
		.e_name_len = xattr->name_len,
		.e_name_index = xattr->index,
		.e_value_offs = (uint16_t)value_off,
		.e_value_inum = xattr->inum,
		.e_value_size = xattr->size,
		.e_hash = hash,
	};

	memcpy(at, &entry, ENTRY_BYTES);
	memcpy(at + ENTRY_BYTES, xattr->name, xattr->name_len);
}

/* Copies the value to the downward-growing end; its offset from base, 0 if it has none here. */
static uint32_t put_value(uint8_t *base, uint8_t **end, const struct ext4_xattr *xattr)
{
	if (xattr->inum || !xattr->size)
		return 0;
	*end -= round4(xattr->size);
	memcpy(*end, xattr->value, xattr->size);
	return (uint32_t)(*end - base);
}

static void store_ibody(struct ext4_inode *inode, const struct ext4_xattr_set *set)
{
	uint32_t len, *magic;
	uint8_t *area = ibody_area(inode, &len, &magic), *at, *end;
	bool any = false;

	if (!area)
		return;
	memset(area, 0, len);
	at = area;
	end = area + len;
	for (unsigned k = 0; k < set->nr; k++) {
		if (set->xattr[k].in_block)
			continue;
		uint32_t off = put_value(area, &end, &set->xattr[k]);
		/* Only a value in an inode of its own has its hash checked here. */
		put_entry(at, &set->xattr[k], off, set->xattr[k].inum ? set->xattr[k].hash : 0);
		at += entry_len(set->xattr[k].name_len);
		any = true;
	}
	*magic = any ? EXT2_EXT_ATTR_MAGIC : 0;
}

static int by_kernel_order(const void *pa, const void *pb)
{
	const struct ext4_xattr *a = pa, *b = pb;

	if (a->index != b->index)
		return a->index - b->index;
	if (a->name_len != b->name_len)
		return a->name_len - b->name_len;
	return memcmp(a->name, b->name, a->name_len);
}

static void fill_block(struct ext4_vol *vol, uint64_t blk, uint8_t *data,
		       const struct ext4_xattr_set *set)
{
	struct ext2_ext_attr_header *header = (void *)data;
	uint8_t *at = data + BLOCK_HDR, *end = data + vol->block_size;

	memset(data, 0, vol->block_size);
	header->h_magic = EXT2_EXT_ATTR_MAGIC;
	header->h_refcount = 1;
	header->h_blocks = 1;
	for (unsigned k = 0; k < set->nr; k++) {
		if (!set->xattr[k].in_block)
			continue;
		uint32_t off = put_value(data, &end, &set->xattr[k]);
		put_entry(at, &set->xattr[k], off, set->xattr[k].hash);
		if (!set->xattr[k].inum) {
			struct ext2_ext_attr_entry *entry = (void *)at;
			entry->e_hash = ext2fs_ext_attr_hash_entry(entry, data + off);
		}
		at += entry_len(set->xattr[k].name_len);
	}
	ext2fs_ext_attr_block_rehash(header, (struct ext2_ext_attr_entry *)at);
	if (vol->has_csum)
		header->h_checksum = block_csum(vol, blk, data);
}

int ext4_xattr_drop_block(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct ext4_vol *vol = inode->vol;
	uint64_t blk = ext4_raw_file_acl(inode);
	struct journal_buffer *buffer;
	int err;

	if (!blk)
		return 0;
	err = read_block(inode, blk, &buffer);
	if (err)
		return err;
	struct ext2_ext_attr_header *header = (void *)buffer->data;
	if (header->h_refcount > 1) { /* XATTR-2 */
		err = journal_get_write(handle, buffer);
		if (!err) {
			header->h_refcount--;
			if (vol->has_csum)
				header->h_checksum = block_csum(vol, blk, buffer->data);
		}
		journal_buffer_release(buffer);
	} else {
		journal_buffer_release(buffer);
		err = ext4_blocks_free(handle, inode, blk, 1, true);
	}
	if (err)
		return err;
	raw_set_file_acl(inode, 0);
	return ext4_raw_add_blocks(inode, -1);
}

/* The block that the set may be written to, open for writing: the inode's own, or a new one. */
static int own_block(struct journal_handle *handle, struct ext4_inode *inode,
		     struct journal_buffer **ret)
{
	uint64_t blk = ext4_raw_file_acl(inode);
	uint32_t n;
	int err;

	if (blk) {
		err = read_block(inode, blk, ret);
		if (err)
			return err;
		if (((struct ext2_ext_attr_header *)(*ret)->data)->h_refcount == 1) {
			err = journal_get_write(handle, *ret);
			if (err)
				journal_buffer_release(*ret);
			return err;
		}
		journal_buffer_release(*ret);
		err = ext4_xattr_drop_block(handle, inode);
		if (err)
			return err;
	}
	err = ext4_blocks_alloc(handle, inode, 0, 1, &blk, &n);
	if (!err)
		err = journal_new_block(handle, blk, ret);
	if (err)
		return err;
	raw_set_file_acl(inode, blk);
	err = ext4_raw_add_blocks(inode, 1);
	if (err)
		journal_buffer_release(*ret);
	return err;
}

bool ext4_xattr_fits(struct ext4_inode *inode, struct ext4_xattr_set *set)
{
	bool block;

	if (assign_places(inode, set, &block))
		return false;
	for (unsigned k = 0; k < set->nr; k++)
		if (set->xattr[k].apart)
			return false;
	return !block || (ext4_raw_file_acl(inode) && !set->block_shared);
}

bool ext4_xattr_fresh_fits(const struct ext4_vol *vol, uint32_t nr, uint32_t size)
{
	uint32_t extra = ext4_extra_isize(vol);

	return extra &&
	       OLD_INODE + extra + 8 + nr * (entry_len(0) + round4(size)) <= vol->inode_size;
}

/*
 * Values that go to inodes of their own; and a copy of a shared block owns those of the entries
 * that it keeps.
 */
static int place_values(struct journal_handle *handle, struct ext4_inode *inode,
			struct ext4_xattr_set *set)
{
	int err = 0;

	for (unsigned k = 0; k < set->nr && !err; k++) {
		struct ext4_xattr *xattr = &set->xattr[k];

		if (xattr->apart)
			err = ext4_ea_new(handle, inode, xattr);
		else if (set->block_shared && xattr->was_in_block && xattr->inum)
			err = ext4_ea_ref(handle, inode, xattr);
		xattr->apart = false;
	}
	return err;
}

struct feature_undo { struct journal_callback callback; struct ext4_vol *vol; };

static void feature_undo(struct journal_callback *callback, int ended)
{
	if (!ended)
		container_of(callback, struct feature_undo, callback)->vol->has_ext_attr = false;
}

/* The first attribute of a file system says so in the superblock, as with the kernel. */
static int set_feature(struct journal_handle *handle, struct ext4_vol *vol)
{
	struct feature_undo *undo;
	struct ext2_super_block *sb;
	int err;

	if (vol->has_ext_attr)
		return 0;
	err = ext4_super_begin(vol, handle, &sb);
	if (err)
		return err;
	undo = journal_handle_alloc(handle, sizeof(*undo));
	if (!undo)
		return -ENOMEM;
	*undo = (struct feature_undo){ .callback = { .fn = feature_undo }, .vol = vol };
	journal_on_undo(handle, &undo->callback);
	ext2fs_set_feature_xattr(sb);
	ext4_super_end(vol, handle);
	vol->has_ext_attr = true;
	return 0;
}

int ext4_xattr_store(struct journal_handle *handle, struct ext4_inode *inode,
		     struct ext4_xattr_set *set)
{
	struct journal_buffer *buffer;
	bool block;
	int err = assign_places(inode, set, &block);

	if (!err)
		err = ext4_inode_begin(handle, inode);
	if (!err && set->nr)
		err = set_feature(handle, inode->vol);
	if (!err && inode->vol->has_ea_inode)
		err = place_values(handle, inode, set);
	if (err)
		return err;
	if (block) {
		qsort(set->xattr, set->nr, sizeof(*set->xattr), by_kernel_order);
		err = own_block(handle, inode, &buffer);
		if (err)
			return err;
		fill_block(inode->vol, buffer->blk, buffer->data, set);
		__atomic_store_n(&buffer->verified, EXT4_VERIFIED_XATTR, __ATOMIC_RELAXED);
		journal_buffer_release(buffer);
	} else {
		err = ext4_xattr_drop_block(handle, inode);
		if (err)
			return err;
	}
	store_ibody(inode, set);
	return ext4_inode_dirty(handle, inode, false);
}
