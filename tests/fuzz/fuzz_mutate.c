/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is damaged and how: a structure is chosen, a field of it, and a value that is wrong in an
 * interesting way (limits, off by one, another structure's number). A case can be written as text,
 * which names structures by kind, inode and order, so that it means the same when images are laid
 * out a little differently:
 *
 *   image csum1k-dirty
 *   opt walk=12345 nofix abandon errors=2
 *   mut extent /frag 3 set 2 2 0xffff      kind, inode (number or path), which of that kind and
 *   inode, operation, offset,
 *                                          width, value; copy takes kind, inode, which and offset
 *                                          of its source instead
 *   mut dxroot /h 0 rows 40 4 0x1 8 99 0   a table: with distance, number, step
 */
#include "fuzz/fuzz.h"

#include "journal/format.h"

#include <stdlib.h>

uint64_t rnd_u64(struct rnd *rng)
{
	uint64_t z = 0;

	if (rng->data) {
		/*
		 * One byte where that is enough for most decisions; the escape value takes eight.
		 */
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

/* ---- fields ---- */
struct field { uint16_t off; uint8_t width; };

static const struct field sb_fields[] = {
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
static const struct field gd_fields[] = {
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
static const struct field jsb_fields[] = {
	{ 0, 4 },    { 4, 4 },    { 0xc, 4 },  { 0x10, 4 }, { 0x14, 4 }, { 0x18, 4 },
	{ 0x1c, 4 }, { 0x1c, 4 }, { 0x20, 4 }, { 0x24, 4 }, { 0x28, 4 }, { 0x2c, 4 },
	{ 0x30, 8 }, { 0x40, 4 }, { 0x44, 4 }, { 0x50, 1 }, { 0x54, 4 }, { 0x58, 4 },
};

#define PICK(mut, rng, table)                                                          \
	do {                                                                           \
		const struct field *f_ = &(table)[rnd_n((rng), ARRAY_SIZE(table))];    \
		(mut)->off = f_->off;                                                  \
		(mut)->width = f_->width;                                              \
	} while (0)

static void pick_extent(struct rnd *rng, struct mut *mut, const uint8_t *p, uint32_t len)
{
	static const struct field head[] = { { 0, 2 }, { 2, 2 }, { 4, 2 }, { 6, 2 } };
	static const struct field entry[] = { { 0, 4 }, { 4, 2 }, { 4, 4 },
					      { 6, 2 }, { 8, 4 }, { 8, 2 } };
	unsigned n = p[2] | p[3] << 8, room = (len - 12) / 12;

	if (!rnd_n(rng, 4)) {
		PICK(mut, rng, head);
		return;
	}
	PICK(mut, rng, entry);
	mut->off += 12 + 12 * rnd_n(rng, FDIO_MIN(n + 1, room));
}

/* The k-th entry of a directory block that is sane: this is asked of the pristine image. */
static void pick_dirent(struct rnd *rng, struct mut *mut, const uint8_t *p, uint32_t len)
{
	static const struct field entry[] = { { 0, 4 }, { 0, 4 }, { 4, 2 }, { 4, 2 },
					      { 6, 1 }, { 7, 1 }, { 8, 1 }, { 8, 4 } };
	uint32_t at = 0, k = rnd_n(rng, 8);

	while (k--) {
		uint32_t rec = p[at + 4] | p[at + 5] << 8;
		if (rec < 8 || at + rec + 12 > len)
			break;
		at += rec;
	}
	PICK(mut, rng, entry);
	mut->off += at;
}

static void pick_dx(struct rnd *rng, struct mut *mut, const uint8_t *p, uint32_t at)
{
	static const struct field root[] = { { 0x18, 4 }, { 0x1c, 1 }, { 0x1d, 1 },
					     { 0x1e, 1 }, { 0x1e, 1 }, { 0x1f, 1 } };
	unsigned count = p[at + 2] | p[at + 3] << 8;

	switch (rnd_n(rng, 5)) {
	case 0:
		if (at == 0x20)
			PICK(mut, rng, root);
		else
			pick_dirent(rng, mut, p, 64);
		return;
	case 1:
		mut->off = at + 2 * rnd_n(rng, 2);
		mut->width = 2;
		return;
	default:
		mut->off = at + 4 * rnd_n(rng, 2 * count + 2);
		mut->width = 4;
	}
}

static void pick_xattrs(struct rnd *rng, struct mut *mut, uint32_t head, uint32_t len)
{
	static const struct field entry[] = { { 0, 1 }, { 1, 1 },  { 2, 2 },  { 4, 4 }, { 8, 4 },
					      { 8, 4 }, { 12, 4 }, { 16, 4 }, { 16, 1 } };

	if (!rnd_n(rng, 4)) {
		mut->off = 4 * rnd_n(rng, head / 4);
		mut->width = 4;
	} else if (rnd_n(rng, 3)) {
		PICK(mut, rng, entry);
		mut->off += head + 4 * rnd_n(rng, 24);
	} else {
		mut->off = head + rnd_n(rng, len - head - 8);
		mut->width = 1U << rnd_n(rng, 3);
	}
}

static void pick_log(struct rnd *rng, struct mut *mut, enum kind kind, const struct base *base)
{
	static const struct field head[] = { { 0, 4 },    { 4, 4 },    { 8, 4 },   { 12, 4 },
					     { 0x10, 4 }, { 0x30, 4 }, { 0x34, 4 } };
	unsigned step = base->csum ? 16 : 8;

	if (!rnd_n(rng, 4)) {
		PICK(mut, rng, head);
	} else if (kind == K_JDESC) {
		mut->off = 12 + (rnd_n(rng, 4) ? 16 : 0) + step * rnd_n(rng, 12) +
			   4 * rnd_n(rng, step / 4);
		mut->width = 4;
	} else {
		mut->off = 12 + 4 * rnd_n(rng, 24);
		mut->width = 4;
	}
}

static void pick_field(struct rnd *rng, struct mut *mut, struct base *base,
		       const struct target *target)
{
	const uint8_t *p = base->img + target->off;

	if (!rnd_n(rng, 8)) {
		mut->width = 1U << rnd_n(rng, 4);
		mut->off = rnd_n(rng, target->len - mut->width + 1);
		return;
	}
	switch (target->kind) {
	case K_SB: PICK(mut, rng, sb_fields); break;
	case K_GD: PICK(mut, rng, gd_fields); break;
	case K_INODE:
		if (target->len > 160 && !rnd_n(rng, 4)) {
			pick_xattrs(rng, mut, 4, target->len - 160);
			mut->off += 160;
		} else if (!rnd_n(rng, 3)) {
			pick_extent(rng, mut, p + 0x28, 60);
			mut->off += 0x28;
		} else {
			PICK(mut, rng, inode_fields);
		}
		break;
	case K_EXTENT: pick_extent(rng, mut, p, target->len - 4); break;
	case K_DIR: pick_dirent(rng, mut, p, target->len); break;
	case K_DXROOT: pick_dx(rng, mut, p, 0x20); break;
	case K_DXNODE: pick_dx(rng, mut, p, 8); break;
	case K_XATTR: pick_xattrs(rng, mut, 32, target->len); break;
	case K_JSB: PICK(mut, rng, jsb_fields); break;
	case K_JDESC:
	case K_JREVOKE:
	case K_JCOMMIT: pick_log(rng, mut, target->kind, base); break;
	case K_ORPHAN:
		mut->off = rnd_n(rng, 3) ? 4 * rnd_n(rng, 8) : target->len - 8;
		mut->width = 4;
		break;
	default:
		mut->width = 1U << rnd_n(rng, 4);
		mut->off = mut->width *
			   rnd_n(rng, target->len / mut->width / (rnd_n(rng, 2) ? 1 : 8));
		break;
	}
	if (mut->off + mut->width > target->len)
		mut->off = target->len - mut->width;
}

/* ---- values ---- */
static bool big_endian(enum kind k) { return k >= K_JSB; }

static uint64_t swapped(uint64_t v, unsigned width)
{
	return width == 1 ? v : __builtin_bswap64(v) >> (64 - 8 * width);
}

static uint64_t some_number(struct rnd *rng, struct base *base, const struct target *t)
{
	const struct target *o = &base->target[rnd_n(rng, base->nr)];
	static const uint32_t inos[] = { 1, 2, 3, 5, 7, 8, 9, 11, 12 };

	switch (rnd_n(rng, 14)) {
	case 0: return base->nr_blocks;
	case 1: return base->nr_blocks - 1;
	case 2: return base->nr_blocks + rnd_n(rng, 100);
	case 3: return base->nr_inodes;
	case 4: return base->nr_inodes + 1;
	case 5: return t->home;
	case 6: return t->off / base->bs;
	case 7: return o->home;
	case 8: return o->off / base->bs;
	case 9: return t->ino;
	case 10: return o->ino;
	case 11: return inos[rnd_n(rng, ARRAY_SIZE(inos))];
	case 12: return base->bs - rnd_n(rng, 20);
	default: return rnd_n(rng, (unsigned)base->nr_blocks);
	}
}

static uint64_t pick_value(struct rnd *rng, struct base *base, const struct target *target,
			   unsigned width)
{
	uint64_t all = width == 8 ? UINT64_MAX : (1ULL << (8 * width)) - 1;
	enum kind k = (enum kind)rnd_n(rng, K_NR);

	/* Blocks with two owners, one of whom takes it for something else. */
	if (width == 4 && !rnd_n(rng, 4) && base->first[k + 1] > base->first[k])
		return base->target[base->first[k] +
				    rnd_n(rng, base->first[k + 1] - base->first[k])]
				.home;

	switch (rnd_n(rng, 10)) {
	case 0: return 0;
	case 1: return 1;
	case 2: return all;
	case 3: return all >> 1;
	case 4: return 1ULL << rnd_n(rng, 8 * width);
	case 5: return ((1ULL << rnd_n(rng, 8 * width)) - 1) & all;
	case 6: return rnd_n(rng, 256) & all;
	case 7: return rnd_u64(rng) & all;
	default: return some_number(rng, base, target) & all;
	}
}

static enum kind pick_kind(struct rnd *rng, struct base *base)
{
	static const uint8_t weight[K_NR] = {
		[K_SB] = 3,      [K_GD] = 3,       [K_BBM] = 2,    [K_IBM] = 2,    [K_INODE] = 9,
		[K_EXTENT] = 6,  [K_INDIRECT] = 4, [K_DIR] = 7,    [K_DXROOT] = 4, [K_DXNODE] = 4,
		[K_XATTR] = 5,   [K_SYMLINK] = 1,  [K_ORPHAN] = 2, [K_JSB] = 3,    [K_JDESC] = 4,
		[K_JREVOKE] = 4, [K_JCOMMIT] = 2,
	};
	unsigned total = 0, at;

	for (unsigned k = 0; k < K_NR; k++)
		total += base->first[k + 1] > base->first[k] ? weight[k] : 0;
	at = rnd_n(rng, total);
	for (unsigned k = 0; k < K_NR; k++) {
		unsigned w = base->first[k + 1] > base->first[k] ? weight[k] : 0;
		if (at < w)
			return (enum kind)k;
		at -= w;
	}
	return K_INODE;
}

/* Distance of the entries in structures that are tables; 0: they have no fixed length. */
static uint32_t row_of(enum kind k)
{
	switch (k) {
	case K_DXROOT:
	case K_DXNODE: return 8;
	case K_EXTENT: return 12;
	case K_INDIRECT:
	case K_ORPHAN: return 4;
	default: return 0;
	}
}

/* The field that was picked, in the entries behind it too. */
static void make_rows(struct rnd *rng, const struct target *target, struct mut *mut)
{
	mut->stride = row_of(target->kind);
	mut->count = 1 + (target->len - mut->off - mut->width) / mut->stride;
	if (rnd_n(rng, 2))
		mut->count = 1 + rnd_n(rng, mut->count);
	mut->step = rnd_n(rng, 4) ? 0 : rnd_n(rng, 3);
	mut->op = M_ROWS;
}

static void make_mut(struct rnd *rng, struct base *base, struct mut *mut, const struct mut *before)
{
	enum kind k = pick_kind(rng, base);
	const struct target *t;

	/*
	 * Often the same structure again: one wrong field is soon refused, two that agree with each
	 * other may not be.
	 */
	if (before && rnd_n(rng, 3) == 0)
		mut->target = before->target;
	else
		mut->target = base->first[k] + rnd_n(rng, base->first[k + 1] - base->first[k]);
	t = &base->target[mut->target];
	pick_field(rng, mut, base, t);
	mut->op = rnd_n(rng, 8) ? M_SET : (enum mut_op)rnd_n(rng, 5);
	switch (mut->op) {
	case M_ADD: mut->value = (uint64_t)((int64_t)rnd_n(rng, 17) - 8); break;
	case M_XOR: mut->value = 1ULL << rnd_n(rng, 8 * mut->width); break;
	case M_FILL:
		mut->width = 1 + rnd_n(rng, FDIO_MIN(t->len - mut->off, 64U));
		mut->value = rnd_n(rng, 3) ? (rnd_n(rng, 2) ? 0xff : 0) : rnd_n(rng, 256);
		break;
	case M_COPY: {
		const struct target *o =
				&base->target[base->first[t->kind] +
					      rnd_n(rng, base->first[t->kind + 1] -
									 base->first[t->kind])];
		uint32_t from = rnd_n(rng, 2) ? mut->off : rnd_n(rng, o->len);
		from = FDIO_MIN(from, o->len - 1);
		mut->width = 1 + rnd_n(rng, FDIO_MIN(t->len - mut->off, o->len - from));
		mut->value = o->off + from;
		break;
	}
	case M_SET:
	default: mut->value = pick_value(rng, base, t, mut->width); break;
	}
	if (mut->op == M_SET && row_of(t->kind) && !rnd_n(rng, 6))
		make_rows(rng, t, mut);
}

void case_make(struct rnd *rng, struct image_case *test)
{
	unsigned most;

	memset(test, 0, sizeof(*test));
	test->base = bases_get(rnd_n(rng, bases_count()));
	test->walk = rnd_u64(rng);
	test->fix = rnd_n(rng, 16) != 0;
	test->read_only = rnd_n(rng, 12) == 0;
	test->norecovery = rnd_n(rng, 16) == 0;
	test->abandon = rnd_n(rng, 4) == 0;
	/* continue: goes deepest; remount-ro; the superblock's (made not to panic) */
	test->errors = rnd_n(rng, 5) ? 1 : (int)rnd_n(rng, 2) * 2;
	most = rnd_n(rng, 4) ? 1 + rnd_n(rng, 4) : 1 + rnd_n(rng, MAX_MUTS);
	for (unsigned i = 0; i < most && !(i && rnd_over(rng)); i++)
		make_mut(rng, test->base, &test->mut[test->nr++], i ? &test->mut[i - 1] : NULL);
}

/* ---- doing it ---- */
static void apply(const struct mut *mut, struct base *base, uint8_t *img)
{
	const struct target *target = &base->target[mut->target];
	uint8_t *p = img + target->off + mut->off;
	uint64_t v = 0;

	if (mut->op == M_FILL) {
		memset(p, (int)mut->value, mut->width);
		return;
	}
	if (mut->op == M_COPY) {
		memmove(p, img + mut->value, mut->width);
		return;
	}
	if (mut->op == M_ROWS) {
		for (uint32_t n = 0; n < mut->count; n++) {
			v = mut->value + (uint64_t)n * mut->step;
			memcpy(p + (size_t)n * mut->stride, &v, mut->width);
		}
		return;
	}
	memcpy(&v, p, mut->width);
	if (big_endian(target->kind))
		v = swapped(v, mut->width);
	v = mut->op == M_SET ? mut->value : mut->op == M_ADD ? v + mut->value : v ^ mut->value;
	if (big_endian(target->kind))
		v = swapped(v, mut->width);
	memcpy(p, &v, mut->width);
}

/*
 * Inodes first: their generation is part of the checksums of their blocks; then bitmaps,
 * descriptors, the superblock.
 */
static const enum kind fix_order[] = {
	K_INODE, K_EXTENT, K_DIR, K_DXROOT, K_DXNODE, K_XATTR,   K_ORPHAN,  K_BBM,
	K_IBM,   K_GD,     K_SB,  K_JSB,    K_JDESC,  K_JREVOKE, K_JCOMMIT,
};

void case_apply(const struct image_case *test, struct fuzz_dev *dev)
{
	struct base *base = test->base;

	for (unsigned i = 0; i < test->nr; i++) {
		const struct target *target = &base->target[test->mut[i].target];

		fuzz_dev_touch(dev, target->off, target->len);
		apply(&test->mut[i], base, dev->img);
	}
	for (unsigned k = 0; test->fix && k < ARRAY_SIZE(fix_order); k++)
		for (unsigned i = 0; i < test->nr; i++) {
			const struct target *target = &base->target[test->mut[i].target];
			if (target->kind != fix_order[k])
				continue;
			if (target->kind == K_BBM || target->kind == K_IBM)
				fuzz_dev_touch(dev, base->gd_off[target->ino], base->desc_size);
			target_fix(base, target, dev->img);
			if (target->tag >= 0)
				fuzz_dev_touch(dev, base->tags[target->tag].desc_off, base->bs);
		}
	if (test->fix)
		tags_fix(base, test, dev->img);
}

/* ---- as text ---- */
static const char *const op_names[] = { "set", "add", "xor", "fill", "copy", "rows" };

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
		(unsigned long long)test->walk, test->fix ? "" : " nofix",
		test->read_only ? " ro" : "", test->norecovery ? " norecovery" : "",
		test->abandon ? " abandon" : "", test->errors);
	for (unsigned i = 0; i < test->nr; i++) {
		const struct mut *mut = &test->mut[i];

		fprintf(f, "mut ");
		print_name(test->base, mut->target, f);
		fprintf(f, " %s %u %u ", op_names[mut->op], mut->off, mut->width);
		if (mut->op == M_COPY) {
			unsigned from = target_at(test->base, test->base->target[mut->target].kind,
						  mut->value);
			print_name(test->base, from, f);
			fprintf(f, " %llu\n",
				(unsigned long long)(mut->value - test->base->target[from].off));
		} else if (mut->op == M_ROWS) {
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

/* VALUE DISTANCE NUMBER STEP; all of it inside the structure. */
static bool parse_rows(const char *rest, const struct target *target, struct mut *mut)
{
	char *end;

	mut->value = strtoull(rest, &end, 0);
	if (sscanf(end, "%u %u %u", &mut->stride, &mut->count, &mut->step) != 3)
		return false;
	return mut->stride && mut->count && mut->width <= 8 &&
	       mut->off + mut->width <= target->len &&
	       mut->count - 1 <= (target->len - mut->off - mut->width) / mut->stride;
}

/* The n-th (modulo how many there are) of a kind that belongs to an inode or group. */
static bool find_target(struct base *base, const char *kind, const char *who, unsigned n,
			unsigned *ret)
{
	uint32_t ino = who[0] == '/' ? base_path_ino(base, who) : (uint32_t)strtoul(who, NULL, 0);
	unsigned found = 0;

	for (unsigned k = 0; k < K_NR; k++) {
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

static bool parse_mut(const char *line, struct image_case *test)
{
	char kind[16], who[200], op[8], rest[300];
	struct mut *mut = &test->mut[test->nr];
	unsigned n, k;

	if (test->nr == MAX_MUTS ||
	    sscanf(line, "mut %15s %199s %u %7s %u %u %299[^\n]", kind, who, &n, op, &mut->off,
		   &mut->width, rest) != 7 ||
	    !find_target(test->base, kind, who, n, &mut->target))
		return false;
	for (k = 0; k < ARRAY_SIZE(op_names) && strcmp(op, op_names[k]); k++)
		;
	if (k == ARRAY_SIZE(op_names))
		return false;
	mut->op = (enum mut_op)k;
	if (mut->op == M_COPY) {
		unsigned from, at;
		if (sscanf(rest, "%15s %199s %u %u", kind, who, &n, &at) != 4 ||
		    !find_target(test->base, kind, who, n, &from) ||
		    at + mut->width > test->base->target[from].len)
			return false;
		mut->value = test->base->target[from].off + at;
	} else if (mut->op == M_ROWS) {
		if (!parse_rows(rest, &test->base->target[mut->target], mut))
			return false;
	} else {
		mut->value = strtoull(rest, NULL, 0);
		if (mut->op != M_FILL && mut->width != 1 && mut->width != 2 && mut->width != 4 &&
		    mut->width != 8)
			return false;
	}
	test->nr++;
	return mut->off <= test->base->target[mut->target].len &&
	       mut->width <= test->base->target[mut->target].len - mut->off;
}

static void parse_opt(const char *line, struct image_case *test)
{
	const char *w = strstr(line, "walk="), *e = strstr(line, "errors=");

	test->walk = w ? strtoull(w + 5, NULL, 0) : 0;
	test->errors = e ? (int)strtoul(e + 7, NULL, 0) : 1;
	test->fix = !strstr(line, " nofix");
	test->read_only = strstr(line, " ro");
	test->norecovery = strstr(line, " norecovery");
	test->abandon = strstr(line, " abandon");
}

bool case_parse(const char *text, struct image_case *test)
{
	char line[600], name[64];

	memset(test, 0, sizeof(*test));
	test->fix = true;
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
		else if (!test->base || !parse_mut(line, test))
			return bad(line);
	}
	return test->base ? true : bad("no image of that name");
}
