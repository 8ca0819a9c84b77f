/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is damaged and how: a structure is chosen, a field of it, and a value that is wrong in an interesting way (limits, off by
 * one, another structure's number). A case can be written as text, which names structures by kind, inode and order, so
 * that it means the same when images are laid out a little differently:
 *
 *   image csum1k-dirty
 *   opt walk=12345 nofix abandon errors=2
 *   mut extent /frag 3 set 2 2 0xffff      kind, inode (number or path), which of that kind and inode, operation, offset,
 *                                          width, value; copy takes kind, inode, which and offset of its source instead
 *   mut dxroot /h 0 rows 40 4 0x1 8 99 0   a table: with distance, number, step
 */
#include "fuzz/fuzz.h"

#include "journal/format.h"

#include <stdlib.h>

uint64_t rnd_u64(struct rnd *r)
{
	uint64_t z = 0;

	if (r->data) {
		/* One byte where that is enough for most decisions; the escape value takes eight. */
		if (!r->left)
			return 0;
		z = *r->data++;
		r->left--;
		if (z == 0xff && r->left >= 8) {
			memcpy(&z, r->data, 8);
			r->data += 8;
			r->left -= 8;
		}
		return z;
	}
	z = r->state += 0x9e3779b97f4a7c15ULL; /* splitmix64 */
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

/* ---- fields ---- */
struct field { uint16_t off; uint8_t width; };

static const struct field sb_fields[] = {
	{ 0, 4 }, { 4, 4 }, { 8, 4 }, { 0xc, 4 }, { 0x10, 4 }, { 0x14, 4 }, { 0x18, 4 }, { 0x1c, 4 }, { 0x20, 4 }, { 0x24, 4 }, { 0x28, 4 },
	{ 0x34, 2 }, { 0x36, 2 }, { 0x38, 2 }, { 0x3a, 2 }, { 0x3c, 2 }, { 0x3e, 2 }, { 0x48, 4 }, { 0x4c, 4 }, { 0x54, 4 }, { 0x58, 2 },
	{ 0x5c, 4 }, { 0x60, 4 }, { 0x64, 4 }, { 0xcc, 1 }, { 0xce, 2 }, { 0xe0, 4 }, { 0xe4, 4 }, { 0xe8, 4 }, { 0xe8, 4 }, { 0xfc, 1 },
	{ 0xfd, 1 }, { 0xfe, 2 }, { 0x100, 4 }, { 0x104, 4 }, { 0x10c, 4 }, { 0x14c, 4 }, { 0x150, 4 }, { 0x154, 4 }, { 0x158, 4 },
	{ 0x15c, 2 }, { 0x15e, 2 }, { 0x160, 4 }, { 0x174, 1 }, { 0x175, 1 }, { 0x194, 4 }, { 0x24c, 4 }, { 0x254, 1 }, { 0x270, 4 },
	{ 0x280, 4 },
};
static const struct field gd_fields[] = {
	{ 0, 4 }, { 4, 4 }, { 8, 4 }, { 0xc, 2 }, { 0xe, 2 }, { 0x10, 2 }, { 0x12, 2 }, { 0x1c, 2 }, { 0x20, 4 }, { 0x24, 4 }, { 0x28, 4 },
	{ 0x2c, 2 }, { 0x2e, 2 }, { 0x30, 2 }, { 0x32, 2 },
};
static const struct field inode_fields[] = {
	{ 0, 2 }, { 0, 2 }, { 4, 4 }, { 4, 4 }, { 0x6c, 4 }, { 0x6c, 4 }, { 0x14, 4 }, { 0x1a, 2 }, { 0x1c, 4 }, { 0x20, 4 }, { 0x20, 4 },
	{ 0x20, 4 }, { 0x28, 2 }, { 0x2a, 2 }, { 0x2c, 2 }, { 0x2e, 2 }, { 0x30, 4 }, { 0x34, 4 }, { 0x38, 2 }, { 0x3a, 2 }, { 0x3c, 4 },
	{ 0x40, 4 }, { 0x44, 2 }, { 0x46, 2 }, { 0x48, 4 }, { 0x54, 4 }, { 0x58, 4 }, { 0x5c, 4 }, { 0x60, 4 }, { 0x64, 4 }, { 0x68, 4 },
	{ 0x68, 4 }, { 0x74, 2 }, { 0x76, 2 }, { 0x80, 2 }, { 0x84, 4 }, { 0x8c, 4 }, { 0x98, 4 }, { 0x9c, 4 },
};
static const struct field jsb_fields[] = {
	{ 0, 4 }, { 4, 4 }, { 0xc, 4 }, { 0x10, 4 }, { 0x14, 4 }, { 0x18, 4 }, { 0x1c, 4 }, { 0x1c, 4 }, { 0x20, 4 }, { 0x24, 4 }, { 0x28, 4 },
	{ 0x2c, 4 }, { 0x30, 8 }, { 0x40, 4 }, { 0x44, 4 }, { 0x50, 1 }, { 0x54, 4 }, { 0x58, 4 },
};

#define PICK(mut, rng, table)                                                          \
	do {                                                                           \
		const struct field *f_ = &(table)[rnd_n((rng), ARRAY_SIZE(table))];    \
		(mut)->off = f_->off;                                                  \
		(mut)->width = f_->width;                                              \
	} while (0)

static void pick_extent(struct rnd *r, struct mut *m, const uint8_t *p, uint32_t len)
{
	static const struct field head[] = { { 0, 2 }, { 2, 2 }, { 4, 2 }, { 6, 2 } };
	static const struct field entry[] = { { 0, 4 }, { 4, 2 }, { 4, 4 }, { 6, 2 }, { 8, 4 }, { 8, 2 } };
	unsigned n = p[2] | p[3] << 8, room = (len - 12) / 12;

	if (!rnd_n(r, 4)) {
		PICK(m, r, head);
		return;
	}
	PICK(m, r, entry);
	m->off += 12 + 12 * rnd_n(r, FDIO_MIN(n + 1, room));
}

/* The k-th entry of a directory block that is sane: this is asked of the pristine image. */
static void pick_dirent(struct rnd *r, struct mut *m, const uint8_t *p, uint32_t len)
{
	static const struct field entry[] = { { 0, 4 }, { 0, 4 }, { 4, 2 }, { 4, 2 }, { 6, 1 }, { 7, 1 }, { 8, 1 }, { 8, 4 } };
	uint32_t at = 0, k = rnd_n(r, 8);

	while (k--) {
		uint32_t rec = p[at + 4] | p[at + 5] << 8;
		if (rec < 8 || at + rec + 12 > len)
			break;
		at += rec;
	}
	PICK(m, r, entry);
	m->off += at;
}

static void pick_dx(struct rnd *r, struct mut *m, const uint8_t *p, uint32_t at)
{
	static const struct field root[] = { { 0x18, 4 }, { 0x1c, 1 }, { 0x1d, 1 }, { 0x1e, 1 }, { 0x1e, 1 }, { 0x1f, 1 } };
	unsigned count = p[at + 2] | p[at + 3] << 8;

	switch (rnd_n(r, 5)) {
	case 0:
		if (at == 0x20)
			PICK(m, r, root);
		else
			pick_dirent(r, m, p, 64);
		return;
	case 1:
		m->off = at + 2 * rnd_n(r, 2);
		m->width = 2;
		return;
	default:
		m->off = at + 4 * rnd_n(r, 2 * count + 2);
		m->width = 4;
	}
}

static void pick_xattrs(struct rnd *r, struct mut *m, uint32_t head, uint32_t len)
{
	static const struct field entry[] = { { 0, 1 }, { 1, 1 }, { 2, 2 }, { 4, 4 }, { 8, 4 }, { 8, 4 }, { 12, 4 }, { 16, 4 }, { 16, 1 } };

	if (!rnd_n(r, 4)) {
		m->off = 4 * rnd_n(r, head / 4);
		m->width = 4;
	} else if (rnd_n(r, 3)) {
		PICK(m, r, entry);
		m->off += head + 4 * rnd_n(r, 24);
	} else {
		m->off = head + rnd_n(r, len - head - 8);
		m->width = 1U << rnd_n(r, 3);
	}
}

static void pick_log(struct rnd *r, struct mut *m, enum kind kind, const struct base *b)
{
	static const struct field head[] = { { 0, 4 }, { 4, 4 }, { 8, 4 }, { 12, 4 }, { 0x10, 4 }, { 0x30, 4 }, { 0x34, 4 } };
	unsigned step = b->csum ? 16 : 8;

	if (!rnd_n(r, 4)) {
		PICK(m, r, head);
	} else if (kind == K_JDESC) {
		m->off = 12 + (rnd_n(r, 4) ? 16 : 0) + step * rnd_n(r, 12) + 4 * rnd_n(r, step / 4);
		m->width = 4;
	} else {
		m->off = 12 + 4 * rnd_n(r, 24);
		m->width = 4;
	}
}

static void pick_field(struct rnd *r, struct mut *m, struct base *b, const struct target *t)
{
	const uint8_t *p = b->img + t->off;

	if (!rnd_n(r, 8)) {
		m->width = 1U << rnd_n(r, 4);
		m->off = rnd_n(r, t->len - m->width + 1);
		return;
	}
	switch (t->kind) {
	case K_SB: PICK(m, r, sb_fields); break;
	case K_GD: PICK(m, r, gd_fields); break;
	case K_INODE:
		if (t->len > 160 && !rnd_n(r, 4)) {
			pick_xattrs(r, m, 4, t->len - 160);
			m->off += 160;
		} else if (!rnd_n(r, 3)) {
			pick_extent(r, m, p + 0x28, 60);
			m->off += 0x28;
		} else {
			PICK(m, r, inode_fields);
		}
		break;
	case K_EXTENT: pick_extent(r, m, p, t->len - 4); break;
	case K_DIR: pick_dirent(r, m, p, t->len); break;
	case K_DXROOT: pick_dx(r, m, p, 0x20); break;
	case K_DXNODE: pick_dx(r, m, p, 8); break;
	case K_XATTR: pick_xattrs(r, m, 32, t->len); break;
	case K_JSB: PICK(m, r, jsb_fields); break;
	case K_JDESC:
	case K_JREVOKE:
	case K_JCOMMIT: pick_log(r, m, t->kind, b); break;
	case K_ORPHAN:
		m->off = rnd_n(r, 3) ? 4 * rnd_n(r, 8) : t->len - 8;
		m->width = 4;
		break;
	default:
		m->width = 1U << rnd_n(r, 4);
		m->off = m->width * rnd_n(r, t->len / m->width / (rnd_n(r, 2) ? 1 : 8));
		break;
	}
	if (m->off + m->width > t->len)
		m->off = t->len - m->width;
}

/* ---- values ---- */
static bool big_endian(enum kind k) { return k >= K_JSB; }

static uint64_t swapped(uint64_t v, unsigned width) { return width == 1 ? v : __builtin_bswap64(v) >> (64 - 8 * width); }

static uint64_t some_number(struct rnd *r, struct base *b, const struct target *t)
{
	const struct target *o = &b->t[rnd_n(r, b->nr)];
	static const uint32_t inos[] = { 1, 2, 3, 5, 7, 8, 9, 11, 12 };

	switch (rnd_n(r, 14)) {
	case 0: return b->nr_blocks;
	case 1: return b->nr_blocks - 1;
	case 2: return b->nr_blocks + rnd_n(r, 100);
	case 3: return b->nr_inodes;
	case 4: return b->nr_inodes + 1;
	case 5: return t->home;
	case 6: return t->off / b->bs;
	case 7: return o->home;
	case 8: return o->off / b->bs;
	case 9: return t->ino;
	case 10: return o->ino;
	case 11: return inos[rnd_n(r, ARRAY_SIZE(inos))];
	case 12: return b->bs - rnd_n(r, 20);
	default: return rnd_n(r, (unsigned)b->nr_blocks);
	}
}

static uint64_t pick_value(struct rnd *r, struct base *b, const struct target *t, unsigned width)
{
	uint64_t all = width == 8 ? UINT64_MAX : (1ULL << (8 * width)) - 1;
	enum kind k = (enum kind)rnd_n(r, K_NR);

	/* Blocks with two owners, one of whom takes it for something else. */
	if (width == 4 && !rnd_n(r, 4) && b->first[k + 1] > b->first[k])
		return b->t[b->first[k] + rnd_n(r, b->first[k + 1] - b->first[k])].home;

	switch (rnd_n(r, 10)) {
	case 0: return 0;
	case 1: return 1;
	case 2: return all;
	case 3: return all >> 1;
	case 4: return 1ULL << rnd_n(r, 8 * width);
	case 5: return ((1ULL << rnd_n(r, 8 * width)) - 1) & all;
	case 6: return rnd_n(r, 256) & all;
	case 7: return rnd_u64(r) & all;
	default: return some_number(r, b, t) & all;
	}
}

static enum kind pick_kind(struct rnd *r, struct base *b)
{
	static const uint8_t weight[K_NR] = {
		[K_SB] = 3, [K_GD] = 3, [K_BBM] = 2, [K_IBM] = 2, [K_INODE] = 9, [K_EXTENT] = 6, [K_INDIRECT] = 4, [K_DIR] = 7,
		[K_DXROOT] = 4, [K_DXNODE] = 4, [K_XATTR] = 5, [K_SYMLINK] = 1, [K_ORPHAN] = 2, [K_JSB] = 3, [K_JDESC] = 4, [K_JREVOKE] = 4,
		[K_JCOMMIT] = 2,
	};
	unsigned total = 0, at;

	for (unsigned k = 0; k < K_NR; k++)
		total += b->first[k + 1] > b->first[k] ? weight[k] : 0;
	at = rnd_n(r, total);
	for (unsigned k = 0; k < K_NR; k++) {
		unsigned w = b->first[k + 1] > b->first[k] ? weight[k] : 0;
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
static void make_rows(struct rnd *r, const struct target *t, struct mut *m)
{
	m->stride = row_of(t->kind);
	m->count = 1 + (t->len - m->off - m->width) / m->stride;
	if (rnd_n(r, 2))
		m->count = 1 + rnd_n(r, m->count);
	m->step = rnd_n(r, 4) ? 0 : rnd_n(r, 3);
	m->op = M_ROWS;
}

static void make_mut(struct rnd *r, struct base *b, struct mut *m, const struct mut *before)
{
	enum kind k = pick_kind(r, b);
	const struct target *t;

	/* Often the same structure again: one wrong field is soon refused, two that agree with each other may not be. */
	if (before && rnd_n(r, 3) == 0)
		m->target = before->target;
	else
		m->target = b->first[k] + rnd_n(r, b->first[k + 1] - b->first[k]);
	t = &b->t[m->target];
	pick_field(r, m, b, t);
	m->op = rnd_n(r, 8) ? M_SET : (enum mut_op)rnd_n(r, 5);
	switch (m->op) {
	case M_ADD: m->value = (uint64_t)((int64_t)rnd_n(r, 17) - 8); break;
	case M_XOR: m->value = 1ULL << rnd_n(r, 8 * m->width); break;
	case M_FILL:
		m->width = 1 + rnd_n(r, FDIO_MIN(t->len - m->off, 64U));
		m->value = rnd_n(r, 3) ? (rnd_n(r, 2) ? 0xff : 0) : rnd_n(r, 256);
		break;
	case M_COPY: {
		const struct target *o = &b->t[b->first[t->kind] + rnd_n(r, b->first[t->kind + 1] - b->first[t->kind])];
		uint32_t from = rnd_n(r, 2) ? m->off : rnd_n(r, o->len);
		from = FDIO_MIN(from, o->len - 1);
		m->width = 1 + rnd_n(r, FDIO_MIN(t->len - m->off, o->len - from));
		m->value = o->off + from;
		break;
	}
	case M_SET:
	default: m->value = pick_value(r, b, t, m->width); break;
	}
	if (m->op == M_SET && row_of(t->kind) && !rnd_n(r, 6))
		make_rows(r, t, m);
}

void case_make(struct rnd *r, struct image_case *c)
{
	unsigned most;

	memset(c, 0, sizeof(*c));
	c->b = bases_get(rnd_n(r, bases_count()));
	c->walk = rnd_u64(r);
	c->fix = rnd_n(r, 16) != 0;
	c->read_only = rnd_n(r, 12) == 0;
	c->norecovery = rnd_n(r, 16) == 0;
	c->abandon = rnd_n(r, 4) == 0;
	c->errors = rnd_n(r, 5) ? 1 : (int)rnd_n(r, 2) * 2; /* continue: goes deepest; remount-ro; the superblock's (made not to panic) */
	most = rnd_n(r, 4) ? 1 + rnd_n(r, 4) : 1 + rnd_n(r, MAX_MUTS);
	for (unsigned i = 0; i < most && !(i && rnd_over(r)); i++)
		make_mut(r, c->b, &c->m[c->nr++], i ? &c->m[i - 1] : NULL);
}

/* ---- doing it ---- */
static void apply(const struct mut *m, struct base *b, uint8_t *img)
{
	const struct target *t = &b->t[m->target];
	uint8_t *p = img + t->off + m->off;
	uint64_t v = 0;

	if (m->op == M_FILL) {
		memset(p, (int)m->value, m->width);
		return;
	}
	if (m->op == M_COPY) {
		memmove(p, img + m->value, m->width);
		return;
	}
	if (m->op == M_ROWS) {
		for (uint32_t n = 0; n < m->count; n++) {
			v = m->value + (uint64_t)n * m->step;
			memcpy(p + (size_t)n * m->stride, &v, m->width);
		}
		return;
	}
	memcpy(&v, p, m->width);
	if (big_endian(t->kind))
		v = swapped(v, m->width);
	v = m->op == M_SET ? m->value : m->op == M_ADD ? v + m->value : v ^ m->value;
	if (big_endian(t->kind))
		v = swapped(v, m->width);
	memcpy(p, &v, m->width);
}

/* Inodes first: their generation is part of the checksums of their blocks; then bitmaps, descriptors, the superblock. */
static const enum kind fix_order[] = {
	K_INODE, K_EXTENT, K_DIR, K_DXROOT, K_DXNODE, K_XATTR, K_ORPHAN, K_BBM, K_IBM, K_GD, K_SB, K_JSB, K_JDESC, K_JREVOKE, K_JCOMMIT,
};

void case_apply(const struct image_case *c, struct fuzz_dev *d)
{
	struct base *b = c->b;

	for (unsigned i = 0; i < c->nr; i++) {
		const struct target *t = &b->t[c->m[i].target];

		fuzz_dev_touch(d, t->off, t->len);
		apply(&c->m[i], b, d->img);
	}
	for (unsigned k = 0; c->fix && k < ARRAY_SIZE(fix_order); k++)
		for (unsigned i = 0; i < c->nr; i++) {
			const struct target *t = &b->t[c->m[i].target];
			if (t->kind != fix_order[k])
				continue;
			if (t->kind == K_BBM || t->kind == K_IBM)
				fuzz_dev_touch(d, b->gd_off[t->ino], b->desc_size);
			target_fix(b, t, d->img);
			if (t->tag >= 0)
				fuzz_dev_touch(d, b->tags[t->tag].desc_off, b->bs);
		}
	if (c->fix)
		tags_fix(b, c, d->img);
}

/* ---- as text ---- */
static const char *const op_names[] = { "set", "add", "xor", "fill", "copy", "rows" };

static unsigned order_of(const struct base *b, unsigned target)
{
	const struct target *t = &b->t[target];
	unsigned n = 0;

	for (unsigned i = b->first[t->kind]; i < target; i++)
		n += b->t[i].ino == t->ino;
	return n;
}

static void print_name(const struct base *b, unsigned target, FILE *f)
{
	fprintf(f, "%s %u %u", kind_names[b->t[target].kind], b->t[target].ino, order_of(b, target));
}

static unsigned target_at(const struct base *b, enum kind kind, uint64_t off)
{
	for (unsigned i = b->first[kind]; i < b->first[kind + 1]; i++)
		if (off >= b->t[i].off && off < b->t[i].off + b->t[i].len)
			return i;
	return b->first[kind];
}

void case_print(const struct image_case *c, FILE *f)
{
	fprintf(f, "image %s\nopt walk=%llu%s%s%s%s errors=%d\n", c->b->name, (unsigned long long)c->walk, c->fix ? "" : " nofix",
		c->read_only ? " ro" : "", c->norecovery ? " norecovery" : "", c->abandon ? " abandon" : "", c->errors);
	for (unsigned i = 0; i < c->nr; i++) {
		const struct mut *m = &c->m[i];

		fprintf(f, "mut ");
		print_name(c->b, m->target, f);
		fprintf(f, " %s %u %u ", op_names[m->op], m->off, m->width);
		if (m->op == M_COPY) {
			unsigned from = target_at(c->b, c->b->t[m->target].kind, m->value);
			print_name(c->b, from, f);
			fprintf(f, " %llu\n", (unsigned long long)(m->value - c->b->t[from].off));
		} else if (m->op == M_ROWS) {
			fprintf(f, "0x%llx %u %u %u\n", (unsigned long long)m->value, m->stride,
				m->count, m->step);
		} else {
			fprintf(f, "0x%llx\n", (unsigned long long)m->value);
		}
	}
}

static bool bad(const char *line)
{
	fprintf(stderr, "not a case: %s\n", line);
	return false;
}

/* VALUE DISTANCE NUMBER STEP; all of it inside the structure. */
static bool parse_rows(const char *rest, const struct target *t, struct mut *m)
{
	char *end;

	m->value = strtoull(rest, &end, 0);
	if (sscanf(end, "%u %u %u", &m->stride, &m->count, &m->step) != 3)
		return false;
	return m->stride && m->count && m->width <= 8 && m->off + m->width <= t->len &&
	       m->count - 1 <= (t->len - m->off - m->width) / m->stride;
}

/* The n-th (modulo how many there are) of a kind that belongs to an inode or group. */
static bool find_target(struct base *b, const char *kind, const char *who, unsigned n, unsigned *ret)
{
	uint32_t ino = who[0] == '/' ? base_path_ino(b, who) : (uint32_t)strtoul(who, NULL, 0);
	unsigned found = 0;

	for (unsigned k = 0; k < K_NR; k++) {
		if (strcmp(kind, kind_names[k]))
			continue;
		for (unsigned pass = 0; pass < 2; pass++) {
			unsigned seen = 0;
			for (unsigned i = b->first[k]; i < b->first[k + 1]; i++) {
				if (b->t[i].ino != ino)
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

static bool parse_mut(const char *line, struct image_case *c)
{
	char kind[16], who[200], op[8], rest[300];
	struct mut *m = &c->m[c->nr];
	unsigned n, k;

	if (c->nr == MAX_MUTS || sscanf(line, "mut %15s %199s %u %7s %u %u %299[^\n]", kind, who, &n, op, &m->off, &m->width, rest) != 7 ||
	    !find_target(c->b, kind, who, n, &m->target))
		return false;
	for (k = 0; k < ARRAY_SIZE(op_names) && strcmp(op, op_names[k]); k++)
		;
	if (k == ARRAY_SIZE(op_names))
		return false;
	m->op = (enum mut_op)k;
	if (m->op == M_COPY) {
		unsigned from, at;
		if (sscanf(rest, "%15s %199s %u %u", kind, who, &n, &at) != 4 || !find_target(c->b, kind, who, n, &from) ||
		    at + m->width > c->b->t[from].len)
			return false;
		m->value = c->b->t[from].off + at;
	} else if (m->op == M_ROWS) {
		if (!parse_rows(rest, &c->b->t[m->target], m))
			return false;
	} else {
		m->value = strtoull(rest, NULL, 0);
		if (m->op != M_FILL && m->width != 1 && m->width != 2 && m->width != 4 && m->width != 8)
			return false;
	}
	c->nr++;
	return m->off <= c->b->t[m->target].len && m->width <= c->b->t[m->target].len - m->off;
}

static void parse_opt(const char *line, struct image_case *c)
{
	const char *w = strstr(line, "walk="), *e = strstr(line, "errors=");

	c->walk = w ? strtoull(w + 5, NULL, 0) : 0;
	c->errors = e ? (int)strtoul(e + 7, NULL, 0) : 1;
	c->fix = !strstr(line, " nofix");
	c->read_only = strstr(line, " ro");
	c->norecovery = strstr(line, " norecovery");
	c->abandon = strstr(line, " abandon");
}

bool case_parse(const char *text, struct image_case *c)
{
	char line[600], name[64];

	memset(c, 0, sizeof(*c));
	c->fix = true;
	c->errors = 1;
	while (*text) {
		size_t n = strcspn(text, "\n");

		snprintf(line, sizeof(line), "%.*s", (int)FDIO_MIN(n, sizeof(line) - 1), text);
		text += n + (text[n] == '\n');
		if (!line[0] || line[0] == '#')
			continue;
		if (sscanf(line, "image %63s", name) == 1)
			c->b = bases_find(name);
		else if (!strncmp(line, "opt ", 4))
			parse_opt(line, c);
		else if (!c->b || !parse_mut(line, c))
			return bad(line);
	}
	return c->b ? true : bad("no image of that name");
}
