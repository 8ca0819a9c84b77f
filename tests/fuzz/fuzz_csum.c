/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checksums of every structure, put right after it was damaged: else nothing behind the first check would ever be tried.
 * Written from the format and not with the program's own code, which is what is being tested. Sizes come from the pristine
 * image; what the damaged one says of them is clamped to the structure.
 */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "journal/format.h"

static uint16_t get16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static void put16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static void put32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }

/* The newest bytes of an inode: its home, where a replay would put them too. */
static const uint8_t *inode_bytes(struct base *b, const uint8_t *img, uint32_t ino)
{
	for (unsigned i = b->first[K_INODE]; i < b->first[K_INODE + 1]; i++)
		if (b->t[i].ino == ino && b->t[i].tag < 0)
			return img + b->t[i].off;
	return NULL;
}

static uint32_t inode_seed(struct base *b, const uint8_t *img, uint32_t ino)
{
	const uint8_t *raw = inode_bytes(b, img, ino);
	uint32_t gen = raw ? get32(raw + 0x64) : 0, s = fdio_crc32c(b->seed, &ino, 4);

	return fdio_crc32c(s, &gen, 4);
}

/* CRC-16 with the polynomial 0x8005, reflected. */
static uint16_t crc16(uint16_t s, const void *buf, size_t len)
{
	const uint8_t *p = buf;

	while (len--) {
		s ^= *p++;
		for (unsigned k = 0; k < 8; k++)
			s = s & 1 ? (uint16_t)(s >> 1 ^ 0xa001) : s >> 1;
	}
	return s;
}

static void fix_sb(uint8_t *p) { put32(p + 0x3fc, fdio_crc32c(~0U, p, 0x3fc)); }

static void fix_gd(struct base *b, uint32_t group, uint8_t *p)
{
	uint8_t zero[2] = { 0, 0 };
	uint32_t s;

	if (b->csum) {
		s = fdio_crc32c(b->seed, &group, 4);
		s = fdio_crc32c(s, p, 0x1e);
		s = fdio_crc32c(s, zero, 2);
		if (b->desc_size > 0x20)
			s = fdio_crc32c(s, p + 0x20, b->desc_size - 0x20);
	} else {
		s = crc16(0xffff, b->uuid, 16);
		s = crc16((uint16_t)s, &group, 4);
		s = crc16((uint16_t)s, p, 0x1e);
		if (b->desc_size > 0x20)
			s = crc16((uint16_t)s, p + 0x20, b->desc_size - 0x20);
	}
	put16(p + 0x1e, (uint16_t)s);
}

static void fix_bitmap(struct base *b, uint32_t group, uint8_t *img, const uint8_t *bits, bool inodes)
{
	uint32_t s = fdio_crc32c(b->seed, bits, (inodes ? b->ipg : b->bpg) / 8);
	uint8_t *gd = img + b->gd_off[group];

	if (!b->csum)
		return;
	put16(gd + (inodes ? 0x1a : 0x18), (uint16_t)s);
	if (b->desc_size >= 64)
		put16(gd + (inodes ? 0x3a : 0x38), (uint16_t)(s >> 16));
	fix_gd(b, group, gd);
}

static void fix_inode(struct base *b, uint32_t ino, uint8_t *p)
{
	bool hi = b->inode_size > 128 && get16(p + 0x80) >= 4;
	uint32_t s = fdio_crc32c(b->seed, &ino, 4), gen = get32(p + 0x64);

	s = fdio_crc32c(s, &gen, 4);
	put16(p + 0x7c, 0);
	if (hi)
		put16(p + 0x82, 0);
	s = fdio_crc32c(s, p, b->inode_size);
	put16(p + 0x7c, (uint16_t)s);
	if (hi)
		put16(p + 0x82, (uint16_t)(s >> 16));
}

static void fix_extent(struct base *b, uint32_t seed, uint8_t *p)
{
	uint32_t at = 12 + 12 * (uint32_t)get16(p + 4);

	if (at + 4 > b->bs)
		at = b->bs - 4;
	put32(p + at, fdio_crc32c(seed, p, at));
}

static void fix_dx(struct base *b, uint32_t seed, uint8_t *p, uint32_t at)
{
	uint32_t limit = get16(p + at), count = get16(p + at + 2), tail = at + limit * 8, zero = 0, s;

	if (tail + 8 > b->bs)
		tail = b->bs - 8;
	s = fdio_crc32c(seed, p, FDIO_MIN(at + count * 8, tail));
	s = fdio_crc32c(s, p + tail, 4);
	put32(p + tail + 4, fdio_crc32c(s, &zero, 4));
}

static void fix_xattr(struct base *b, uint64_t home, uint8_t *p)
{
	uint32_t zero = 0, s = fdio_crc32c(b->seed, &home, 8);

	s = fdio_crc32c(s, p, 0x10);
	s = fdio_crc32c(s, &zero, 4);
	put32(p + 0x10, fdio_crc32c(s, p + 0x14, b->bs - 0x14));
}

static void fix_log_tail(struct base *b, uint8_t *p)
{
	put32(p + b->bs - 4, 0);
	fdio_put_be32(p, b->bs - 4, fdio_crc32c(b->jseed, p, b->bs));
}

void target_fix(struct base *b, const struct target *t, uint8_t *img)
{
	uint8_t *p = img + t->off;
	uint32_t seed = inode_seed(b, img, t->ino);

	switch (t->kind) {
	case K_JSB:
		fdio_put_be32(p, JF_SB_CSUM, 0);
		fdio_put_be32(p, JF_SB_CSUM, fdio_crc32c(~0U, p, JF_SB_BYTES));
		break;
	case K_JDESC:
	case K_JREVOKE: fix_log_tail(b, p); break;
	case K_JCOMMIT:
		fdio_put_be32(p, JF_C_CSUM, 0);
		fdio_put_be32(p, JF_C_CSUM, fdio_crc32c(b->jseed, p, b->bs));
		break;
	case K_GD:
		if (b->csum || b->gdt_csum)
			fix_gd(b, t->ino, p);
		break;
	case K_BBM: fix_bitmap(b, t->ino, img, p, false); break;
	case K_IBM: fix_bitmap(b, t->ino, img, p, true); break;
	default: break;
	}
	if (!b->csum)
		return;
	switch (t->kind) {
	case K_SB: fix_sb(p); break;
	case K_INODE: fix_inode(b, t->ino, p); break;
	case K_EXTENT: fix_extent(b, seed, p); break;
	case K_DIR: put32(p + b->bs - 4, fdio_crc32c(seed, p, b->bs - 12)); break;
	case K_DXROOT: fix_dx(b, seed, p, 0x20); break;
	case K_DXNODE: fix_dx(b, seed, p, 8); break;
	case K_XATTR: fix_xattr(b, t->home, p); break;
	case K_ORPHAN:
		seed = fdio_crc32c(seed, &t->home, 8);
		put32(p + b->bs - 4, fdio_crc32c(seed, p, b->bs - 8));
		break;
	default: break;
	}
}

/* The images in the log that the case changed: their tags, then the descriptors that hold those. */
void tags_fix(struct base *b, const struct image_case *c, uint8_t *img)
{
	for (unsigned i = 0; i < c->nr; i++) {
		const struct target *t = &b->t[c->m[i].target];
		const struct log_tag *g = t->tag >= 0 ? &b->tags[t->tag] : NULL;
		uint8_t tid[4];

		if (!g)
			continue;
		fdio_put_be32(tid, 0, g->tid);
		uint32_t s = fdio_crc32c(fdio_crc32c(b->jseed, tid, 4), img + g->image_off, b->bs);
		if (b->csum) {
			fdio_put_be32(img + g->desc_off, g->tag_off + 12, s);
			fix_log_tail(b, img + g->desc_off);
		}
	}
}
