/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is damaged and how: a mutation chooses a structure, a field of it, and a value that is wrong
 * in an interesting way (a limit, off by one, the number of another structure).
 *
 * A case can be written as text. That names structures by kind, inode and order, so that a case
 * means the same when images are laid out a little differently:
 *
 *   image csum1k-dirty
 *   opt walk=12345 nofix abandon errors=2
 *   mut extent /frag 3 set 2 2 0xffff
 *   mut dxroot /h 0 rows 40 4 0x1 8 99 0
 *
 * The words of "mut": kind; inode (number or path) or group; which structure of that kind and
 * inode; operation; offset; width; value. "copy" has, instead of a value, the kind, inode, order
 * and offset of its source. "rows" writes a table and has stride, count and step behind the value.
 */
#include "fuzz/fuzz.h"

#include "journal/format.h"

#include <stdlib.h>

uint64_t rnd_u64(struct rnd *rng)
{
	uint64_t z = 0;

	if (rng->data) {
		/* One byte is enough for most decisions; behind the byte 0xff come eight more. */
		if (!rng->left)
			return 0;
		z = *rng->data++;
		rng->left--;
		if (z == 0xff && rng->left >= 8) {
			memcpy(&z, rng->data, 8);
			rng->data += 8;
			rng->left -= 8;
		}
		return z;
	}
	z = rng->state += 0x9e3779b97f4a7c15ULL; /* splitmix64 */
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* ---- fields: offset and width; those that are listed twice are chosen more often ---- */
struct field { uint16_t off; uint8_t width; };

static const struct field superblock_fields[] = {
	{ 0, 4 },     { 4, 4 },     { 8, 4 },     { 0xc, 4 },   { 0x10, 4 },  { 0x14, 4 },
	{ 0x18, 4 },  { 0x1c, 4 },  { 0x20, 4 },  { 0x24, 4 },  { 0x28, 4 },  { 0x34, 2 },
	{ 0x36, 2 },  { 0x38, 2 },  { 0x3a, 2 },  { 0x3c, 2 },  { 0x3e, 2 },  { 0x48, 4 },
	{ 0x4c, 4 },  { 0x54, 4 },  { 0x58, 2 },  { 0x5c, 4 },  { 0x60, 4 },  { 0x64, 4 },
	{ 0xcc, 1 },  { 0xce, 2 },  { 0xe0, 4 },  { 0xe4, 4 },  { 0xe8, 4 },  { 0xe8, 4 },
	{ 0xfc, 1 },  { 0xfd, 1 },  { 0xfe, 2 },  { 0x100, 4 }, { 0x104, 4 }, { 0x10c, 4 },
	{ 0x14c, 4 }, { 0x150, 4 }, { 0x154, 4 }, { 0x158, 4 }, { 0x15c, 2 }, { 0x15e, 2 },
	{ 0x160, 4 }, { 0x174, 1 }, { 0x175, 1 }, { 0x194, 4 }, { 0x24c, 4 }, { 0x254, 1 },
	{ 0x270, 4 }, { 0x280, 4 },
};
static const struct field group_desc_fields[] = {
	{ 0, 4 },    { 4, 4 },    { 8, 4 },    { 0xc, 2 },  { 0xe, 2 },
	{ 0x10, 2 }, { 0x12, 2 }, { 0x1c, 2 }, { 0x20, 4 }, { 0x24, 4 },
	{ 0x28, 4 }, { 0x2c, 2 }, { 0x2e, 2 }, { 0x30, 2 }, { 0x32, 2 },
};
static const struct field inode_fields[] = {
	{ 0, 2 },    { 0, 2 },    { 4, 4 },    { 4, 4 },    { 0x6c, 4 }, { 0x6c, 4 }, { 0x14, 4 },
	{ 0x1a, 2 }, { 0x1c, 4 }, { 0x20, 4 }, { 0x20, 4 }, { 0x20, 4 }, { 0x28, 2 }, { 0x2a, 2 },
	{ 0x2c, 2 }, { 0x2e, 2 }, { 0x30, 4 }, { 0x34, 4 }, { 0x38, 2 }, { 0x3a, 2 }, { 0x3c, 4 },
	{ 0x40, 4 }, { 0x44, 2 }, { 0x46, 2 }, { 0x48, 4 }, { 0x54, 4 }, { 0x58, 4 }, { 0x5c, 4 },
	{ 0x60, 4 }, { 0x64, 4 }, { 0x68, 4 }, { 0x68, 4 }, { 0x74, 2 }, { 0x76, 2 }, { 0x80, 2 },
	{ 0x84, 4 }, { 0x8c, 4 }, { 0x98, 4 }, { 0x9c, 4 },
};
static const struct field log_superblock_fields[] = {
	{ 0, 4 },    { 4, 4 },    { 0xc, 4 },  { 0x10, 4 }, { 0x14, 4 }, { 0x18, 4 },
	{ 0x1c, 4 }, { 0x1c, 4 }, { 0x20, 4 }, { 0x24, 4 }, { 0x28, 4 }, { 0x2c, 4 },
	{ 0x30, 8 }, { 0x40, 4 }, { 0x44, 4 }, { 0x50, 1 }, { 0x54, 4 }, { 0x58, 4 },
};

/* Sets the offset and width of a mutation to those of a random field of the table. */
#define PICK(mut, rng, table)                                                          \
	do {                                                                           \
		const struct field *f_ = &(table)[rnd_below((rng), ARRAY_SIZE(table))];    \
		(mut)->off = f_->off;                                                  \
		(mut)->width = f_->width;                                              \
	} while (0)

static void pick_extent(struct rnd *rng, struct mutation *mut, const uint8_t *p, uint32_t len)
{
	static const struct field head[] = { { 0, 2 }, { 2, 2 }, { 4, 2 }, { 6, 2 } };
	static const struct field entry[] = { { 0, 4 }, { 4, 2 }, { 4, 4 },
					      { 6, 2 }, { 8, 4 }, { 8, 2 } };
	unsigned n = p[2] | p[3] << 8, room = (len - 12) / 12;

	if (!rnd_below(rng, 4)) {
		PICK(mut, rng, head);
		return;
	}
	PICK(mut, rng, entry);
	mut->off += 12 + 12 * rnd_below(rng, FDIO_MIN(n + 1, room));
}

/* A field of one of the first entries of a directory block; p is undamaged. */
static void pick_dirent(struct rnd *rng, struct mutation *mut, const uint8_t *p, uint32_t len)
{
	static const struct field entry[] = { { 0, 4 }, { 0, 4 }, { 4, 2 }, { 4, 2 },
					      { 6, 1 }, { 7, 1 }, { 8, 1 }, { 8, 4 } };
	uint32_t at = 0, k = rnd_below(rng, 8);

	while (k--) {
		uint32_t rec = p[at + 4] | p[at + 5] << 8;
		if (rec < 8 || at + rec + 12 > len)
			break;
		at += rec;
	}
	PICK(mut, rng, entry);
	mut->off += at;
}

/* A field of a hash tree's root or inner node; at: offset of its table. */
static void pick_index(struct rnd *rng, struct mutation *mut, const uint8_t *p, uint32_t at)
{
	static const struct field root[] = { { 0x18, 4 }, { 0x1c, 1 }, { 0x1d, 1 },
					     { 0x1e, 1 }, { 0x1e, 1 }, { 0x1f, 1 } };
	unsigned count = p[at + 2] | p[at + 3] << 8;

	switch (rnd_below(rng, 5)) {
	case 0:
		if (at == 0x20)
			PICK(mut, rng, root);
		else
			pick_dirent(rng, mut, p, 64);
		return;
	case 1:
		mut->off = at + 2 * rnd_below(rng, 2);
		mut->width = 2;
		return;
	default:
		mut->off = at + 4 * rnd_below(rng, 2 * count + 2);
		mut->width = 4;
	}
}

/* A field of attributes that begin with a header of head bytes. */
static void pick_xattrs(struct rnd *rng, struct mutation *mut, uint32_t head, uint32_t len)
{
	static const struct field entry[] = { { 0, 1 }, { 1, 1 },  { 2, 2 },  { 4, 4 }, { 8, 4 },
					      { 8, 4 }, { 12, 4 }, { 16, 4 }, { 16, 1 } };

	if (!rnd_below(rng, 4)) {
		mut->off = 4 * rnd_below(rng, head / 4);
		mut->width = 4;
	} else if (rnd_below(rng, 3)) {
		PICK(mut, rng, entry);
		mut->off += head + 4 * rnd_below(rng, 24);
	} else {
		mut->off = head + rnd_below(rng, len - head - 8);
		mut->width = 1U << rnd_below(rng, 3);
	}
}

static void pick_log(struct rnd *rng, struct mutation *mut, enum kind kind, const struct base *base)
{
	static const struct field head[] = { { 0, 4 },    { 4, 4 },    { 8, 4 },   { 12, 4 },
					     { 0x10, 4 }, { 0x30, 4 }, { 0x34, 4 } };
	unsigned step = base->metadata_csum ? 16 : 8;

	if (!rnd_below(rng, 4)) {
		PICK(mut, rng, head);
	} else if (kind == KIND_LOG_DESCRIPTOR) {
		mut->off = 12 + (rnd_below(rng, 4) ? 16 : 0) + step * rnd_below(rng, 12) +
			   4 * rnd_below(rng, step / 4);
		mut->width = 4;
	} else {
		mut->off = 12 + 4 * rnd_below(rng, 24);
		mut->width = 4;
	}
}

static void pick_field(struct rnd *rng, struct mutation *mut, struct base *base,
		       const struct target *target)
{
	const uint8_t *p = base->img + target->off;

	if (!rnd_below(rng, 8)) {
		mut->width = 1U << rnd_below(rng, 4);
		mut->off = rnd_below(rng, target->len - mut->width + 1);
		return;
	}
	switch (target->kind) {
	case KIND_SUPERBLOCK: PICK(mut, rng, superblock_fields); break;
	case KIND_GROUP_DESC: PICK(mut, rng, group_desc_fields); break;
	case KIND_INODE:
		if (target->len > 160 && !rnd_below(rng, 4)) {
			pick_xattrs(rng, mut, 4, target->len - 160);
			mut->off += 160;
		} else if (!rnd_below(rng, 3)) {
			pick_extent(rng, mut, p + 0x28, 60);
			mut->off += 0x28;
		} else {
			PICK(mut, rng, inode_fields);
		}
		break;
	case KIND_EXTENT_NODE: pick_extent(rng, mut, p, target->len - 4); break;
	case KIND_DIR_BLOCK: pick_dirent(rng, mut, p, target->len); break;
	case KIND_INDEX_ROOT: pick_index(rng, mut, p, 0x20); break;
	case KIND_INDEX_NODE: pick_index(rng, mut, p, 8); break;
	case KIND_XATTR: pick_xattrs(rng, mut, 32, target->len); break;
	case KIND_LOG_SUPERBLOCK: PICK(mut, rng, log_superblock_fields); break;
	case KIND_LOG_DESCRIPTOR:
	case KIND_LOG_REVOKE:
	case KIND_LOG_COMMIT: pick_log(rng, mut, target->kind, base); break;
	case KIND_ORPHAN:
		mut->off = rnd_below(rng, 3) ? 4 * rnd_below(rng, 8) : target->len - 8;
		mut->width = 4;
		break;
	default:
		mut->width = 1U << rnd_below(rng, 4);
		mut->off = mut->width *
			   rnd_below(rng, target->len / mut->width / (rnd_below(rng, 2) ? 1 : 8));
		break;
	}
	if (mut->off + mut->width > target->len)
		mut->off = target->len - mut->width;
}

/* ---- values ---- */
static bool big_endian(enum kind k) { return k >= KIND_LOG_SUPERBLOCK; }

static uint64_t swapped(uint64_t v, unsigned width)
{
	return width == 1 ? v : __builtin_bswap64(v) >> (64 - 8 * width);
}

/* A number that means something in this image: of a block, an inode, a size. */
static uint64_t some_number(struct rnd *rng, struct base *base, const struct target *target)
{
	const struct target *other = &base->target[rnd_below(rng, base->nr)];
	static const uint32_t inos[] = { 1, 2, 3, 5, 7, 8, 9, 11, 12 };

	switch (rnd_below(rng, 14)) {
	case 0: return base->nr_blocks;
	case 1: return base->nr_blocks - 1;
	case 2: return base->nr_blocks + rnd_below(rng, 100);
	case 3: return base->nr_inodes;
	case 4: return base->nr_inodes + 1;
	case 5: return target->home;
	case 6: return target->off / base->block_size;
	case 7: return other->home;
	case 8: return other->off / base->block_size;
	case 9: return target->ino;
	case 10: return other->ino;
	case 11: return inos[rnd_below(rng, ARRAY_SIZE(inos))];
	case 12: return base->block_size - rnd_below(rng, 20);
	default: return rnd_below(rng, (unsigned)base->nr_blocks);
	}
}

static uint64_t pick_value(struct rnd *rng, struct base *base, const struct target *target,
			   unsigned width)
{
	uint64_t all = width == 8 ? UINT64_MAX : (1ULL << (8 * width)) - 1;
	enum kind k = (enum kind)rnd_below(rng, NR_KINDS);
	unsigned first = base->first[k], nr = base->first[k + 1] - first;

	/* The block of a structure, so that it has two owners that take it for different things. */
	if (width == 4 && !rnd_below(rng, 4) && nr)
		return base->target[first + rnd_below(rng, nr)].home;

	switch (rnd_below(rng, 10)) {
	case 0: return 0;
	case 1: return 1;
	case 2: return all;
	case 3: return all >> 1;
	case 4: return 1ULL << rnd_below(rng, 8 * width);
	case 5: return ((1ULL << rnd_below(rng, 8 * width)) - 1) & all;
	case 6: return rnd_below(rng, 256) & all;
	case 7: return rnd_u64(rng) & all;
	default: return some_number(rng, base, target) & all;
	}
}

/* A kind that the image has; those whose code is largest more often. */
static enum kind pick_kind(struct rnd *rng, struct base *base)
{
	static const uint8_t weight[NR_KINDS] = {
		[KIND_SUPERBLOCK] = 3,   [KIND_GROUP_DESC] = 3,     [KIND_BLOCK_BITMAP] = 2,
		[KIND_INODE_BITMAP] = 2, [KIND_INODE] = 9,          [KIND_EXTENT_NODE] = 6,
		[KIND_INDIRECT] = 4,     [KIND_DIR_BLOCK] = 7,      [KIND_INDEX_ROOT] = 4,
		[KIND_INDEX_NODE] = 4,   [KIND_XATTR] = 5,          [KIND_SYMLINK] = 1,
		[KIND_ORPHAN] = 2,       [KIND_LOG_SUPERBLOCK] = 3, [KIND_LOG_DESCRIPTOR] = 4,
		[KIND_LOG_REVOKE] = 4,   [KIND_LOG_COMMIT] = 2,
	};
	unsigned total = 0, at;

	for (unsigned k = 0; k < NR_KINDS; k++)
		total += base->first[k + 1] > base->first[k] ? weight[k] : 0;
	at = rnd_below(rng, total);
	for (unsigned k = 0; k < NR_KINDS; k++) {
		unsigned w = base->first[k + 1] > base->first[k] ? weight[k] : 0;
		if (at < w)
			return (enum kind)k;
		at -= w;
	}
	return KIND_INODE;
}

/* Length of the entries of structures that are tables; 0: not a table of equal entries. */
static uint32_t row_bytes(enum kind k)
{
	switch (k) {
	case KIND_INDEX_ROOT:
	case KIND_INDEX_NODE: return 8;
	case KIND_EXTENT_NODE: return 12;
	case KIND_INDIRECT:
	case KIND_ORPHAN: return 4;
	default: return 0;
	}
}

/* Turns a SET of one field into a SET of that field in the entries behind it too. */
static void make_rows(struct rnd *rng, const struct target *target, struct mutation *mut)
{
	mut->stride = row_bytes(target->kind);
	mut->count = 1 + (target->len - mut->off - mut->width) / mut->stride;
	if (rnd_below(rng, 2))
		mut->count = 1 + rnd_below(rng, mut->count);
	mut->step = rnd_below(rng, 4) ? 0 : rnd_below(rng, 3);
	mut->op = MUTATE_ROWS;
}

/* A random target of a kind. */
static unsigned pick_target(struct rnd *rng, struct base *base, enum kind k)
{
	return base->first[k] + rnd_below(rng, base->first[k + 1] - base->first[k]);
}

static void make_mutation(struct rnd *rng, struct base *base, struct mutation *mut,
			  const struct mutation *before)
{
	enum kind k = pick_kind(rng, base);
	const struct target *t, *source;
	uint32_t from;

	/*
	 * Often the same structure again: a single wrong field is soon refused, while two that
	 * agree with each other may not be.
	 */
	if (before && rnd_below(rng, 3) == 0)
		mut->target = before->target;
	else
		mut->target = pick_target(rng, base, k);
	t = &base->target[mut->target];
	pick_field(rng, mut, base, t);
	mut->op = rnd_below(rng, 8) ? MUTATE_SET : (enum mutation_op)rnd_below(rng, 5);
	switch (mut->op) {
	case MUTATE_ADD: mut->value = (uint64_t)((int64_t)rnd_below(rng, 17) - 8); break;
	case MUTATE_XOR: mut->value = 1ULL << rnd_below(rng, 8 * mut->width); break;
	case MUTATE_FILL:
		mut->width = 1 + rnd_below(rng, FDIO_MIN(t->len - mut->off, 64U));
		if (rnd_below(rng, 3))
			mut->value = rnd_below(rng, 2) ? 0xff : 0;
		else
			mut->value = rnd_below(rng, 256);
		break;
	case MUTATE_COPY: /* from another structure of the same kind */
		source = &base->target[pick_target(rng, base, t->kind)];
		from = rnd_below(rng, 2) ? mut->off : rnd_below(rng, source->len);
		from = FDIO_MIN(from, source->len - 1);
		mut->width = 1 + rnd_below(rng, FDIO_MIN(t->len - mut->off, source->len - from));
		mut->value = source->off + from;
		break;
	case MUTATE_SET:
	default: mut->value = pick_value(rng, base, t, mut->width); break;
	}
	if (mut->op == MUTATE_SET && row_bytes(t->kind) && !rnd_below(rng, 6))
		make_rows(rng, t, mut);
}

void case_make(struct rnd *rng, struct image_case *test)
{
	unsigned most;

	memset(test, 0, sizeof(*test));
	test->base = bases_get(rnd_below(rng, bases_count()));
	test->walk = rnd_u64(rng);
	test->fix_checksums = rnd_below(rng, 16) != 0;
	test->read_only = rnd_below(rng, 12) == 0;
	test->norecovery = rnd_below(rng, 16) == 0;
	test->abandon = rnd_below(rng, 4) == 0;
	/* mostly "continue", which goes deepest; else "remount-ro" or what the superblock says */
	test->errors = rnd_below(rng, 5) ? 1 : (int)rnd_below(rng, 2) * 2;
	most = rnd_below(rng, 4) ? 1 + rnd_below(rng, 4) : 1 + rnd_below(rng, MAX_MUTATIONS);
	for (unsigned i = 0; i < most && !(i && rnd_over(rng)); i++)
		make_mutation(rng, test->base, &test->mut[test->nr++],
			      i ? &test->mut[i - 1] : NULL);
}

/* ---- damaging an image ---- */
static void apply(const struct mutation *mut, struct base *base, uint8_t *img)
{
	const struct target *target = &base->target[mut->target];
	uint8_t *p = img + target->off + mut->off;
	uint64_t v = 0;

	if (mut->op == MUTATE_FILL) {
		memset(p, (int)mut->value, mut->width);
		return;
	}
	if (mut->op == MUTATE_COPY) {
		memmove(p, img + mut->value, mut->width);
		return;
	}
	if (mut->op == MUTATE_ROWS) {
		for (uint32_t n = 0; n < mut->count; n++) {
			v = mut->value + (uint64_t)n * mut->step;
			memcpy(p + (size_t)n * mut->stride, &v, mut->width);
		}
		return;
	}
	memcpy(&v, p, mut->width);
	if (big_endian(target->kind))
		v = swapped(v, mut->width);
	if (mut->op == MUTATE_SET)
		v = mut->value;
	else
		v = mut->op == MUTATE_ADD ? v + mut->value : v ^ mut->value;
	if (big_endian(target->kind))
		v = swapped(v, mut->width);
	memcpy(p, &v, mut->width);
}

/*
 * Checksums are put right in this order: an inode's generation is part of the checksums of its
 * blocks, and the descriptors hold the checksums of bitmaps.
 */
static const enum kind fix_order[] = {
	KIND_INODE,        KIND_EXTENT_NODE,  KIND_DIR_BLOCK,      KIND_INDEX_ROOT,
	KIND_INDEX_NODE,   KIND_XATTR,        KIND_ORPHAN,         KIND_BLOCK_BITMAP,
	KIND_INODE_BITMAP, KIND_GROUP_DESC,   KIND_SUPERBLOCK,     KIND_LOG_SUPERBLOCK,
	KIND_LOG_DESCRIPTOR, KIND_LOG_REVOKE, KIND_LOG_COMMIT,
};

/* Puts the checksum of a structure right, and marks what that changes as touched. */
static void fix_target(struct base *base, const struct target *target, struct fuzz_dev *dev)
{
	if (target->kind == KIND_BLOCK_BITMAP || target->kind == KIND_INODE_BITMAP)
		fuzz_dev_touch(dev, base->group_desc_off[target->ino], base->desc_size);
	target_fix_checksum(base, target, dev->img);
	if (target->tag >= 0)
		fuzz_dev_touch(dev, base->tags[target->tag].desc_off, base->block_size);
}

void case_apply(const struct image_case *test, struct fuzz_dev *dev)
{
	struct base *base = test->base;

	for (unsigned i = 0; i < test->nr; i++) {
		const struct target *target = &base->target[test->mut[i].target];

		fuzz_dev_touch(dev, target->off, target->len);
		apply(&test->mut[i], base, dev->img);
	}
	for (unsigned k = 0; test->fix_checksums && k < ARRAY_SIZE(fix_order); k++)
		for (unsigned i = 0; i < test->nr; i++) {
			const struct target *target = &base->target[test->mut[i].target];

			if (target->kind == fix_order[k])
				fix_target(base, target, dev);
		}
	if (test->fix_checksums)
		tags_fix_checksums(base, test, dev->img);
}

/* ---- as text ---- */
static const char *const op_names[] = { "set", "add", "xor", "fill", "copy", "rows" };

/* Which of the structures of its kind and inode a target is. */
static unsigned order_of(const struct base *base, unsigned target)
{
	const struct target *t = &base->target[target];
	unsigned n = 0;

	for (unsigned i = base->first[t->kind]; i < target; i++)
		n += base->target[i].ino == t->ino;
	return n;
}

static void print_name(const struct base *base, unsigned target, FILE *f)
{
	fprintf(f, "%s %u %u", kind_names[base->target[target].kind], base->target[target].ino,
		order_of(base, target));
}

/* The target of a kind that covers the byte at off; else the first of that kind. */
static unsigned target_at(const struct base *base, enum kind kind, uint64_t off)
{
	for (unsigned i = base->first[kind]; i < base->first[kind + 1]; i++)
		if (off >= base->target[i].off && off < base->target[i].off + base->target[i].len)
			return i;
	return base->first[kind];
}

void case_print(const struct image_case *test, FILE *f)
{
	fprintf(f, "image %s\nopt walk=%llu%s%s%s%s errors=%d\n", test->base->name,
		(unsigned long long)test->walk, test->fix_checksums ? "" : " nofix",
		test->read_only ? " ro" : "", test->norecovery ? " norecovery" : "",
		test->abandon ? " abandon" : "", test->errors);
	for (unsigned i = 0; i < test->nr; i++) {
		const struct mutation *mut = &test->mut[i];

		fprintf(f, "mut ");
		print_name(test->base, mut->target, f);
		fprintf(f, " %s %u %u ", op_names[mut->op], mut->off, mut->width);
		if (mut->op == MUTATE_COPY) {
			unsigned from = target_at(test->base, test->base->target[mut->target].kind,
						  mut->value);
			print_name(test->base, from, f);
			fprintf(f, " %llu\n",
				(unsigned long long)(mut->value - test->base->target[from].off));
		} else if (mut->op == MUTATE_ROWS) {
			fprintf(f, "0x%llx %u %u %u\n", (unsigned long long)mut->value, mut->stride,
				mut->count, mut->step);
		} else {
			fprintf(f, "0x%llx\n", (unsigned long long)mut->value);
		}
	}
}

static bool bad(const char *line)
{
	fprintf(stderr, "not a case: %s\n", line);
	return false;
}

/* VALUE STRIDE COUNT STEP; false if a row lies outside of the structure. */
static bool parse_rows(const char *rest, const struct target *target, struct mutation *mut)
{
	char *end;

	mut->value = strtoull(rest, &end, 0);
	if (sscanf(end, "%u %u %u", &mut->stride, &mut->count, &mut->step) != 3)
		return false;
	return mut->stride && mut->count && mut->width <= 8 &&
	       mut->off + mut->width <= target->len &&
	       mut->count - 1 <= (target->len - mut->off - mut->width) / mut->stride;
}

/*
 * The n-th (modulo how many there are) structure of a kind that belongs to owner, an inode by
 * number or path, or a group.
 */
static bool find_target(struct base *base, const char *kind, const char *owner, unsigned n,
			unsigned *ret)
{
	uint32_t ino = owner[0] == '/' ? base_path_ino(base, owner)
				       : (uint32_t)strtoul(owner, NULL, 0);
	unsigned found = 0;

	for (unsigned k = 0; k < NR_KINDS; k++) {
		if (strcmp(kind, kind_names[k]))
			continue;
		for (unsigned pass = 0; pass < 2; pass++) {
			unsigned seen = 0;
			for (unsigned i = base->first[k]; i < base->first[k + 1]; i++) {
				if (base->target[i].ino != ino)
					continue;
				if (pass && seen == n % found) {
					*ret = i;
					return true;
				}
				seen++;
			}
			found = seen;
			if (!found)
				break;
		}
	}
	return false;
}

static bool parse_mutation(const char *line, struct image_case *test)
{
	char kind[16], owner[200], op[8], rest[300];
	struct mutation *mut = &test->mut[test->nr];
	unsigned n, k;

	if (test->nr == MAX_MUTATIONS ||
	    sscanf(line, "mut %15s %199s %u %7s %u %u %299[^\n]", kind, owner, &n, op, &mut->off,
		   &mut->width, rest) != 7 ||
	    !find_target(test->base, kind, owner, n, &mut->target))
		return false;
	for (k = 0; k < ARRAY_SIZE(op_names) && strcmp(op, op_names[k]); k++)
		;
	if (k == ARRAY_SIZE(op_names))
		return false;
	mut->op = (enum mutation_op)k;
	if (mut->op == MUTATE_COPY) {
		unsigned from, at;
		if (sscanf(rest, "%15s %199s %u %u", kind, owner, &n, &at) != 4 ||
		    !find_target(test->base, kind, owner, n, &from) ||
		    at + mut->width > test->base->target[from].len)
			return false;
		mut->value = test->base->target[from].off + at;
	} else if (mut->op == MUTATE_ROWS) {
		if (!parse_rows(rest, &test->base->target[mut->target], mut))
			return false;
	} else {
		mut->value = strtoull(rest, NULL, 0);
		if (mut->op != MUTATE_FILL && mut->width != 1 && mut->width != 2 &&
		    mut->width != 4 && mut->width != 8)
			return false;
	}
	test->nr++;
	return mut->off <= test->base->target[mut->target].len &&
	       mut->width <= test->base->target[mut->target].len - mut->off;
}

static void parse_opt(const char *line, struct image_case *test)
{
	const char *walk = strstr(line, "walk="), *errors = strstr(line, "errors=");

	test->walk = walk ? strtoull(walk + 5, NULL, 0) : 0;
	test->errors = errors ? (int)strtoul(errors + 7, NULL, 0) : 1;
	test->fix_checksums = !strstr(line, " nofix");
	test->read_only = strstr(line, " ro");
	test->norecovery = strstr(line, " norecovery");
	test->abandon = strstr(line, " abandon");
}

bool case_parse(const char *text, struct image_case *test)
{
	char line[600], name[64];

	memset(test, 0, sizeof(*test));
	test->fix_checksums = true;
	test->errors = 1;
	while (*text) {
		size_t n = strcspn(text, "\n");

		snprintf(line, sizeof(line), "%.*s", (int)FDIO_MIN(n, sizeof(line) - 1), text);
		text += n + (text[n] == '\n');
		if (!line[0] || line[0] == '#')
			continue;
		if (sscanf(line, "image %63s", name) == 1)
			test->base = bases_find(name);
		else if (!strncmp(line, "opt ", 4))
			parse_opt(line, test);
		else if (!test->base || !parse_mutation(line, test))
			return bad(line);
	}
	return test->base ? true : bad("no image of that name");
}
