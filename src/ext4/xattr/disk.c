/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extended attributes on disk: reading an inode's whole set from its own space and its block, and laying a changed
 * set out again. Called on workers, by xattr/xattr.c and xattr/acl.c, with the inode locked.
 *
 * Both places have the same shape: entries grow upwards from the start, values downwards from the end, four zero bytes end
 * the entries. Offsets of values count from the first entry in the inode, from the start of the block in a block. In a
 * block the entries are sorted (the kernel searches them so) and hashed.
 *
 * XATTR-1 Nothing read from an image is used before its place has been checked: names end before the area does, values lie
 *    between the end of the entries and the end of the area.
 * XATTR-2 A block with other owners (h_refcount > 1) is never changed but for its count.
 * XATTR-3 A value in an inode of its own (xattr/value.c) belongs to the block its entry is in, not to each inode that has the block.
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
static uint32_t value_len(const struct x4_xattr *x) { return x->inum || x->apart ? 0 : round4(x->size); }

/* ------------------------------------------------------------------ places */

uint64_t x4_raw_file_acl(const struct x4_inode *i)
{
	uint64_t blk = i->raw->i_file_acl;

	if (i->vol->has_64bit)
		blk |= (uint64_t)i->raw->osd2.linux2.l_i_file_acl_high << 32;
	return blk;
}

static void raw_set_file_acl(struct x4_inode *i, uint64_t blk)
{
	i->raw->i_file_acl = (uint32_t)blk;
	if (i->vol->has_64bit)
		i->raw->osd2.linux2.l_i_file_acl_high = (uint16_t)(blk >> 32);
}

/* The inode's own space for entries and values, after the magic; NULL if it has none. */
static uint8_t *ibody_area(const struct x4_inode *i, uint32_t *ret_len, uint32_t **ret_magic)
{
	uint32_t extra = i->raw->i_extra_isize, start = OLD_INODE + extra;

	if (i->vol->inode_size <= OLD_INODE || !extra || (extra & 3) || start + 4 + 4 > i->vol->inode_size)
		return NULL;
	*ret_magic = (uint32_t *)((uint8_t *)i->raw + start);
	*ret_len = i->vol->inode_size - start - 4;
	return (uint8_t *)i->raw + start + 4;
}

bool x4_xattr_any(const struct x4_inode *i)
{
	uint32_t len, *magic;

	return x4_raw_file_acl(i) || (ibody_area(i, &len, &magic) && *magic == EXT2_EXT_ATTR_MAGIC);
}

/* ------------------------------------------------------------------ reading */

static int add_entry(struct x4_xattr_set *s, const struct ext2_ext_attr_entry *e, const uint8_t *value, bool in_block)
{
	if (s->nr + 2 > s->cap) { /* keeps one to spare */
		unsigned cap = s->cap ? s->cap * 2 : 16;
		struct x4_xattr *n = realloc(s->e, cap * sizeof(*n));
		if (!n)
			return -ENOMEM;
		s->e = n;
		s->cap = cap;
	}
	s->e[s->nr++] = (struct x4_xattr){
		.index = e->e_name_index,
		.name_len = e->e_name_len,
		.name = (const char *)e + ENTRY_BYTES,
		.value = value,
		.size = e->e_value_size,
		.inum = e->e_value_inum,
		.hash = e->e_hash,
		.in_block = in_block,
		.was_in_block = in_block,
	};
	return 0;
}

/* Entries of [first, end); value offsets count from base. XATTR-1. */
static int parse(struct x4_inode *i, struct x4_xattr_set *s, const uint8_t *base, const uint8_t *first, const uint8_t *end, uint64_t blk)
{
	const uint8_t *p = first, *stop;
	struct ext2_ext_attr_entry e;

	/* Where the entries end, so that values can be told from them. */
	for (;;) {
		uint32_t word;
		if (end - p < 4)
			return X4_CORRUPT(i->vol, i->ino, blk, "extended attributes without an end");
		memcpy(&word, p, 4);
		if (!word)
			break;
		if (end - p < (ptrdiff_t)ENTRY_BYTES)
			return X4_CORRUPT(i->vol, i->ino, blk, "an extended attribute entry is cut off");
		memcpy(&e, p, ENTRY_BYTES);
		if (end - p < (ptrdiff_t)entry_len(e.e_name_len))
			return X4_CORRUPT(i->vol, i->ino, blk, "an extended attribute name is cut off");
		p += entry_len(e.e_name_len);
	}
	stop = p + 4;
	for (p = first; p + 4 < stop; p += entry_len(e.e_name_len)) {
		const uint8_t *value = NULL;
		int err;

		memcpy(&e, p, ENTRY_BYTES);
		if (!e.e_value_inum && e.e_value_size) {
			uint32_t avail = (uint32_t)(end - base);
			if (e.e_value_offs > avail || e.e_value_size > avail - e.e_value_offs || base + e.e_value_offs < stop)
				return X4_CORRUPT(i->vol, i->ino, blk, "an extended attribute value lies outside");
			value = base + e.e_value_offs;
		}
		if (e.e_value_inum && (!i->vol->has_ea_inode || e.e_value_size > X4_XATTR_VALUE_MAX))
			return X4_CORRUPT(i->vol, i->ino, blk, "an extended attribute value in inode %u", e.e_value_inum);
		err = add_entry(s, (const struct ext2_ext_attr_entry *)p, value, blk != 0);
		if (err)
			return err;
	}
	return 0;
}

static uint32_t block_csum(struct x4_vol *v, uint64_t blk, const uint8_t *data)
{
	static const uint8_t zero[4];
	size_t at = offsetof(struct ext2_ext_attr_header, h_checksum);
	uint32_t c = fdio_crc32c(v->csum_seed, &blk, 8);

	c = fdio_crc32c(c, data, at);
	c = fdio_crc32c(c, zero, 4);
	return fdio_crc32c(c, data + at + 4, v->block_size - at - 4);
}

static int read_block(struct x4_inode *i, uint64_t blk, struct jnl_buf **ret)
{
	struct x4_vol *v = i->vol;
	struct jnl_buf *b;
	int err;

	if (!x4_blk_valid(v, blk, 1))
		return X4_CORRUPT(v, i->ino, blk, "impossible extended attribute block");
	err = jnl_bread(v->jnl, blk, &b);
	if (err)
		return err;
	if (!(__atomic_load_n(&b->verified, __ATOMIC_RELAXED) & X4_VERIFIED_XATTR)) {
		const struct ext2_ext_attr_header *hd = (const void *)b->data;
		const char *wrong = NULL;

		if (hd->h_magic != EXT2_EXT_ATTR_MAGIC || hd->h_blocks != 1 || !hd->h_refcount)
			wrong = "bad header of the extended attribute block";
		else if (v->has_csum && hd->h_checksum != block_csum(v, blk, b->data))
			wrong = "wrong checksum of the extended attribute block";
		if (wrong) {
			jnl_brelse(b);
			return X4_CORRUPT(v, i->ino, blk, "%s", wrong);
		}
		__atomic_fetch_or(&b->verified, X4_VERIFIED_XATTR, __ATOMIC_RELAXED);
	}
	*ret = b;
	return 0;
}

static void *copy_of(const void *p, size_t len)
{
	void *c = malloc(len);

	if (c)
		memcpy(c, p, len);
	return c;
}

static int load_ibody(struct x4_inode *i, struct x4_xattr_set *s)
{
	uint32_t len, *magic;
	uint8_t *area = ibody_area(i, &len, &magic);

	if (!area || *magic != EXT2_EXT_ATTR_MAGIC)
		return 0;
	s->ibody_copy = copy_of(area, len);
	if (!s->ibody_copy)
		return -ENOMEM;
	return parse(i, s, s->ibody_copy, s->ibody_copy, s->ibody_copy + len, 0);
}

int x4_xattr_inline(struct x4_inode *i, uint8_t *buf, uint32_t cap, uint32_t *ret_len)
{
	struct x4_xattr_set s = { .cap = 8 };
	struct x4_xattr *x;
	int err;

	s.e = calloc(s.cap, sizeof(*s.e));
	if (!s.e)
		return -ENOMEM;
	err = load_ibody(i, &s);
	if (err)
		goto out;
	x = x4_xattr_find(&s, X4_XI_SYSTEM, "data", 4);
	if (!x || x->inum || x->size > cap) {
		err = X4_CORRUPT(i->vol, i->ino, 0,
				 "inline data without the attribute that holds the rest");
		goto out;
	}
	if (x->size)
		memcpy(buf, x->value, x->size);
	*ret_len = x->size;
out:
	x4_xattr_set_fini(&s);
	return err;
}

static int load_block(struct x4_inode *i, struct x4_xattr_set *s, uint64_t blk)
{
	struct jnl_buf *b;
	int err = read_block(i, blk, &b);

	if (err)
		return err;
	s->block_copy = copy_of(b->data, i->vol->block_size);
	s->block_shared = ((struct ext2_ext_attr_header *)b->data)->h_refcount > 1;
	jnl_brelse(b);
	if (!s->block_copy)
		return -ENOMEM;
	return parse(i, s, s->block_copy, s->block_copy + BLOCK_HDR, s->block_copy + i->vol->block_size, blk);
}

int x4_xattr_load(struct x4_inode *i, struct x4_xattr_set *ret)
{
	struct x4_xattr_set s = { .cap = 8 };
	uint64_t blk = x4_raw_file_acl(i);
	int err;

	s.e = calloc(s.cap, sizeof(*s.e));
	if (!s.e)
		return -ENOMEM;
	err = load_ibody(i, &s);
	if (!err && blk)
		err = load_block(i, &s, blk);
	if (err)
		x4_xattr_set_fini(&s);
	else
		*ret = s;
	return err;
}

void x4_xattr_set_fini(struct x4_xattr_set *s)
{
	free(s->e);
	free(s->ibody_copy);
	free(s->block_copy);
}

struct x4_xattr *x4_xattr_find(struct x4_xattr_set *s, uint8_t index, const char *name, unsigned name_len)
{
	for (unsigned k = 0; k < s->nr; k++)
		if (s->e[k].index == index && s->e[k].name_len == name_len && !memcmp(s->e[k].name, name, name_len))
			return &s->e[k];
	return NULL;
}

/* ------------------------------------------------------------------ writing */

/* True if x fits into what is left of the inode's space; then it is taken. */
static bool take_ibody(const struct x4_xattr *x, uint32_t len, uint32_t *used)
{
	uint32_t need = entry_len(x->name_len) + value_len(x);

	if (*used + need > len)
		return false;
	*used += need;
	return true;
}

/* Room taken in the block: by entries and their header, and by values. */
struct taken { uint32_t entries, values; bool any; };

static void take_block(const struct x4_xattr *x, struct taken *t)
{
	t->entries += entry_len(x->name_len);
	t->values += value_len(x);
	t->any = true;
}

/*
 * True if x may go to the block. Where values can lie in inodes, one that would leave little of the block to the names of others
 * does not go there.
 */
static bool fits_block(const struct x4_vol *v, const struct x4_xattr *x, const struct taken *t)
{
	uint32_t values = t->values + value_len(x), reserve = FDIO_MIN(v->block_size / 8, 1024u);

	if (t->entries + entry_len(x->name_len) + values > v->block_size)
		return false;
	return !v->has_ea_inode || !value_len(x) || v->block_size - values >= reserve;
}

/* Where ext4 would put it: in the inode, else in the block; and if there is no room, or no block could ever hold it, only its name. */
static int place_fresh(const struct x4_vol *v, struct x4_xattr *x, uint32_t len, uint32_t *used, struct taken *t)
{
	bool may = v->has_ea_inode && x->size;

	for (x->apart = may && round4(x->size) > v->block_size - BLOCK_HDR - 4 - entry_len(3);; x->apart = true) {
		x->in_block = !take_ibody(x, len, used);
		if (!x->in_block)
			return 0;
		if (fits_block(v, x, t)) {
			take_block(x, t);
			return 0;
		}
		if (x->apart || !may)
			return -ENOSPC;
	}
}

/* What is in one place stays there, as with the kernel; only a fresh one may move. */
static int assign_places(struct x4_inode *i, struct x4_xattr_set *s, bool *ret_block)
{
	uint32_t len = 0, used = 4, *magic;
	struct taken t = { BLOCK_HDR + 4, 0, false };
	int err = 0;

	if (!ibody_area(i, &len, &magic))
		len = 0;
	for (unsigned k = 0; k < s->nr; k++) {
		if (!s->e[k].in_block && !s->e[k].fresh)
			s->e[k].in_block = !take_ibody(&s->e[k], len, &used);
		if (s->e[k].in_block && !s->e[k].fresh)
			take_block(&s->e[k], &t);
	}
	for (unsigned k = 0; k < s->nr && !err; k++)
		if (s->e[k].fresh)
			err = place_fresh(i->vol, &s->e[k], len, &used, &t);
	if (!err && t.any && t.entries + t.values > i->vol->block_size)
		err = -ENOSPC;
	*ret_block = t.any;
	return err;
}

static void put_entry(uint8_t *at, const struct x4_xattr *x, uint32_t value_off, uint32_t hash)
{
	struct ext2_ext_attr_entry e = {
		.e_name_len = x->name_len,
		.e_name_index = x->index,
		.e_value_offs = (uint16_t)value_off,
		.e_value_inum = x->inum,
		.e_value_size = x->size,
		.e_hash = hash,
	};

	memcpy(at, &e, ENTRY_BYTES);
	memcpy(at + ENTRY_BYTES, x->name, x->name_len);
}

/* Copies the value to the downward-growing end; its offset from base, 0 if it has none here. */
static uint32_t put_value(uint8_t *base, uint8_t **end, const struct x4_xattr *x)
{
	if (x->inum || !x->size)
		return 0;
	*end -= round4(x->size);
	memcpy(*end, x->value, x->size);
	return (uint32_t)(*end - base);
}

static void store_ibody(struct x4_inode *i, const struct x4_xattr_set *s)
{
	uint32_t len, *magic;
	uint8_t *area = ibody_area(i, &len, &magic), *at, *end;
	bool any = false;

	if (!area)
		return;
	memset(area, 0, len);
	at = area;
	end = area + len;
	for (unsigned k = 0; k < s->nr; k++) {
		if (s->e[k].in_block)
			continue;
		uint32_t off = put_value(area, &end, &s->e[k]);
		/* Only a value in an inode of its own has its hash checked here. */
		put_entry(at, &s->e[k], off, s->e[k].inum ? s->e[k].hash : 0);
		at += entry_len(s->e[k].name_len);
		any = true;
	}
	*magic = any ? EXT2_EXT_ATTR_MAGIC : 0;
}

static int by_kernel_order(const void *pa, const void *pb)
{
	const struct x4_xattr *a = pa, *b = pb;

	if (a->index != b->index)
		return a->index - b->index;
	if (a->name_len != b->name_len)
		return a->name_len - b->name_len;
	return memcmp(a->name, b->name, a->name_len);
}

static void fill_block(struct x4_vol *v, uint64_t blk, uint8_t *data, const struct x4_xattr_set *s)
{
	struct ext2_ext_attr_header *hd = (void *)data;
	uint8_t *at = data + BLOCK_HDR, *end = data + v->block_size;

	memset(data, 0, v->block_size);
	hd->h_magic = EXT2_EXT_ATTR_MAGIC;
	hd->h_refcount = 1;
	hd->h_blocks = 1;
	for (unsigned k = 0; k < s->nr; k++) {
		if (!s->e[k].in_block)
			continue;
		uint32_t off = put_value(data, &end, &s->e[k]);
		put_entry(at, &s->e[k], off, s->e[k].hash);
		if (!s->e[k].inum) {
			struct ext2_ext_attr_entry *e = (void *)at;
			e->e_hash = ext2fs_ext_attr_hash_entry(e, data + off);
		}
		at += entry_len(s->e[k].name_len);
	}
	ext2fs_ext_attr_block_rehash(hd, (struct ext2_ext_attr_entry *)at);
	if (v->has_csum)
		hd->h_checksum = block_csum(v, blk, data);
}

int x4_xattr_drop_block(struct jnl_handle *h, struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	uint64_t blk = x4_raw_file_acl(i);
	struct jnl_buf *b;
	int err;

	if (!blk)
		return 0;
	err = read_block(i, blk, &b);
	if (err)
		return err;
	struct ext2_ext_attr_header *hd = (void *)b->data;
	if (hd->h_refcount > 1) { /* XATTR-2 */
		err = jnl_get_write(h, b);
		if (!err) {
			hd->h_refcount--;
			if (v->has_csum)
				hd->h_checksum = block_csum(v, blk, b->data);
		}
		jnl_brelse(b);
	} else {
		jnl_brelse(b);
		err = x4_bfree(h, i, blk, 1, true);
	}
	if (err)
		return err;
	raw_set_file_acl(i, 0);
	return x4_raw_add_blocks(i, -1);
}

/* The block that the set may be written to, open for writing: the inode's own, or a new one. */
static int own_block(struct jnl_handle *h, struct x4_inode *i, struct jnl_buf **ret)
{
	uint64_t blk = x4_raw_file_acl(i);
	uint32_t n;
	int err;

	if (blk) {
		err = read_block(i, blk, ret);
		if (err)
			return err;
		if (((struct ext2_ext_attr_header *)(*ret)->data)->h_refcount == 1) {
			err = jnl_get_write(h, *ret);
			if (err)
				jnl_brelse(*ret);
			return err;
		}
		jnl_brelse(*ret);
		err = x4_xattr_drop_block(h, i);
		if (err)
			return err;
	}
	err = x4_balloc(h, i, 0, 1, &blk, &n);
	if (!err)
		err = jnl_bnew(h, blk, ret);
	if (err)
		return err;
	raw_set_file_acl(i, blk);
	err = x4_raw_add_blocks(i, 1);
	if (err)
		jnl_brelse(*ret);
	return err;
}

bool x4_xattr_fits(struct x4_inode *i, struct x4_xattr_set *s)
{
	bool block;

	if (assign_places(i, s, &block))
		return false;
	for (unsigned k = 0; k < s->nr; k++)
		if (s->e[k].apart)
			return false;
	return !block || (x4_raw_file_acl(i) && !s->block_shared);
}

bool x4_xattr_fresh_fits(const struct x4_vol *v, uint32_t nr, uint32_t size)
{
	uint32_t extra = x4_extra_isize(v);

	return extra && OLD_INODE + extra + 8 + nr * (entry_len(0) + round4(size)) <= v->inode_size;
}

/* Values that go to inodes of their own; and a copy of a shared block owns those of the entries that it keeps. */
static int place_values(struct jnl_handle *h, struct x4_inode *i, struct x4_xattr_set *s)
{
	int err = 0;

	for (unsigned k = 0; k < s->nr && !err; k++) {
		struct x4_xattr *x = &s->e[k];

		if (x->apart)
			err = x4_ea_new(h, i, x);
		else if (s->block_shared && x->was_in_block && x->inum)
			err = x4_ea_ref(h, i, x);
		x->apart = false;
	}
	return err;
}

struct feature_undo { struct jnl_callback cb; struct x4_vol *v; };

static void feature_undo(struct jnl_callback *cb, int ended)
{
	if (!ended)
		container_of(cb, struct feature_undo, cb)->v->has_ext_attr = false;
}

/* The first attribute of a file system says so in the superblock, as with the kernel. */
static int set_feature(struct jnl_handle *h, struct x4_vol *v)
{
	struct feature_undo *u;
	struct ext2_super_block *sb;
	int err;

	if (v->has_ext_attr)
		return 0;
	err = x4_super_begin(v, h, &sb);
	if (err)
		return err;
	u = jnl_handle_mem(h, sizeof(*u));
	if (!u)
		return -ENOMEM;
	*u = (struct feature_undo){ .cb = { .fn = feature_undo }, .v = v };
	jnl_on_undo(h, &u->cb);
	ext2fs_set_feature_xattr(sb);
	x4_super_end(v, h);
	v->has_ext_attr = true;
	return 0;
}

int x4_xattr_store(struct jnl_handle *h, struct x4_inode *i, struct x4_xattr_set *s)
{
	struct jnl_buf *b;
	bool block;
	int err = assign_places(i, s, &block);

	if (!err)
		err = x4_inode_begin(h, i);
	if (!err && s->nr)
		err = set_feature(h, i->vol);
	if (!err && i->vol->has_ea_inode)
		err = place_values(h, i, s);
	if (err)
		return err;
	if (block) {
		qsort(s->e, s->nr, sizeof(*s->e), by_kernel_order);
		err = own_block(h, i, &b);
		if (err)
			return err;
		fill_block(i->vol, b->blk, b->data, s);
		__atomic_store_n(&b->verified, X4_VERIFIED_XATTR, __ATOMIC_RELAXED);
		jnl_brelse(b);
	} else {
		err = x4_xattr_drop_block(h, i);
		if (err)
			return err;
	}
	store_ibody(i, s);
	return x4_inode_dirty(h, i, false);
}
