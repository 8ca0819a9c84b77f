/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Checksums of every structure, put right after it was damaged: else nothing behind the first check
 * would ever be tried. Written from the format and not with the program's own code, which is what
 * is being tested. Sizes come from the pristine image; what the damaged one says of them is clamped
 * to the structure.
 */
#include "fuzz/fuzz.h"

#include "base/crc32c.h"
#include "journal/format.h"

static uint16_t get16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return v; }
static uint32_t get32(const uint8_t *p) { uint32_t v; memcpy(&v, p, 4); return v; }
static void put16(uint8_t *p, uint16_t v) { memcpy(p, &v, 2); }
static void put32(uint8_t *p, uint32_t v) { memcpy(p, &v, 4); }

/* The newest bytes of an inode: its home, where a replay would put them too. */
static const uint8_t *inode_bytes(struct base *base, const uint8_t *img, uint32_t ino)
{
	for (unsigned i = base->first[K_INODE]; i < base->first[K_INODE + 1]; i++)
		if (base->target[i].ino == ino && base->target[i].tag < 0)
			return img + base->target[i].off;
	return NULL;
}

static uint32_t inode_seed(struct base *base, const uint8_t *img, uint32_t ino)
{
	const uint8_t *raw = inode_bytes(base, img, ino);
	uint32_t gen = raw ? get32(raw + 0x64) : 0, s = fdio_crc32c(base->seed, &ino, 4);

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

static void fix_gd(struct base *base, uint32_t group, uint8_t *p)
{
	uint8_t zero[2] = { 0, 0 };
	uint32_t s;

	if (base->csum) {
		s = fdio_crc32c(base->seed, &group, 4);
		s = fdio_crc32c(s, p, 0x1e);
		s = fdio_crc32c(s, zero, 2);
		if (base->desc_size > 0x20)
			s = fdio_crc32c(s, p + 0x20, base->desc_size - 0x20);
	} else {
		s = crc16(0xffff, base->uuid, 16);
		s = crc16((uint16_t)s, &group, 4);
		s = crc16((uint16_t)s, p, 0x1e);
		if (base->desc_size > 0x20)
			s = crc16((uint16_t)s, p + 0x20, base->desc_size - 0x20);
	}
	put16(p + 0x1e, (uint16_t)s);
}

static void fix_bitmap(struct base *base, uint32_t group, uint8_t *img, const uint8_t *bits,
		       bool inodes)
{
	uint32_t s = fdio_crc32c(base->seed, bits, (inodes ? base->ipg : base->bpg) / 8);
	uint8_t *gd = img + base->gd_off[group];

	if (!base->csum)
		return;
	put16(gd + (inodes ? 0x1a : 0x18), (uint16_t)s);
	if (base->desc_size >= 64)
		put16(gd + (inodes ? 0x3a : 0x38), (uint16_t)(s >> 16));
	fix_gd(base, group, gd);
}

static void fix_inode(struct base *base, uint32_t ino, uint8_t *p)
{
	bool hi = base->inode_size > 128 && get16(p + 0x80) >= 4;
	uint32_t s = fdio_crc32c(base->seed, &ino, 4), gen = get32(p + 0x64);

	s = fdio_crc32c(s, &gen, 4);
	put16(p + 0x7c, 0);
	if (hi)
		put16(p + 0x82, 0);
	s = fdio_crc32c(s, p, base->inode_size);
	put16(p + 0x7c, (uint16_t)s);
	if (hi)
		put16(p + 0x82, (uint16_t)(s >> 16));
}

static void fix_extent(struct base *base, uint32_t seed, uint8_t *p)
{
	uint32_t at = 12 + 12 * (uint32_t)get16(p + 4);

	if (at + 4 > base->bs)
		at = base->bs - 4;
	put32(p + at, fdio_crc32c(seed, p, at));
}

static void fix_dx(struct base *base, uint32_t seed, uint8_t *p, uint32_t at)
{
	uint32_t limit = get16(p + at), count = get16(p + at + 2), tail = at + limit * 8, zero = 0,
		 s;

	if (tail + 8 > base->bs)
		tail = base->bs - 8;
	s = fdio_crc32c(seed, p, FDIO_MIN(at + count * 8, tail));
	s = fdio_crc32c(s, p + tail, 4);
	put32(p + tail + 4, fdio_crc32c(s, &zero, 4));
}

static void fix_xattr(struct base *base, uint64_t home, uint8_t *p)
{
	uint32_t zero = 0, s = fdio_crc32c(base->seed, &home, 8);

	s = fdio_crc32c(s, p, 0x10);
	s = fdio_crc32c(s, &zero, 4);
	put32(p + 0x10, fdio_crc32c(s, p + 0x14, base->bs - 0x14));
}

static void fix_log_tail(struct base *base, uint8_t *p)
{
	put32(p + base->bs - 4, 0);
	fdio_put_be32(p, base->bs - 4, fdio_crc32c(base->jseed, p, base->bs));
}

void target_fix(struct base *base, const struct target *target, uint8_t *img)
{
	uint8_t *p = img + target->off;
	uint32_t seed = inode_seed(base, img, target->ino);

	switch (target->kind) {
	case K_JSB:
		fdio_put_be32(p, JOURNAL_SB_CHECKSUM, 0);
		fdio_put_be32(p, JOURNAL_SB_CHECKSUM, fdio_crc32c(~0U, p, JOURNAL_SB_BYTES));
		break;
	case K_JDESC:
	case K_JREVOKE: fix_log_tail(base, p); break;
	case K_JCOMMIT:
		fdio_put_be32(p, JOURNAL_COMMIT_CHECKSUM, 0);
		fdio_put_be32(p, JOURNAL_COMMIT_CHECKSUM, fdio_crc32c(base->jseed, p, base->bs));
		break;
	case K_GD:
		if (base->csum || base->gdt_csum)
			fix_gd(base, target->ino, p);
		break;
	case K_BBM: fix_bitmap(base, target->ino, img, p, false); break;
	case K_IBM: fix_bitmap(base, target->ino, img, p, true); break;
	default: break;
	}
	if (!base->csum)
		return;
	switch (target->kind) {
	case K_SB: fix_sb(p); break;
	case K_INODE: fix_inode(base, target->ino, p); break;
	case K_EXTENT: fix_extent(base, seed, p); break;
	case K_DIR: put32(p + base->bs - 4, fdio_crc32c(seed, p, base->bs - 12)); break;
	case K_DXROOT: fix_dx(base, seed, p, 0x20); break;
	case K_DXNODE: fix_dx(base, seed, p, 8); break;
	case K_XATTR: fix_xattr(base, target->home, p); break;
	case K_ORPHAN:
		seed = fdio_crc32c(seed, &target->home, 8);
		put32(p + base->bs - 4, fdio_crc32c(seed, p, base->bs - 8));
		break;
	default: break;
	}
}

/* The images in the log that the case changed: their tags, then the descriptors that hold those. */
void tags_fix(struct base *base, const struct image_case *test, uint8_t *img)
{
	for (unsigned i = 0; i < test->nr; i++) {
		const struct target *target = &base->target[test->mut[i].target];
		const struct log_tag *g = target->tag >= 0 ? &base->tags[target->tag] : NULL;
		uint8_t tid[4];

		if (!g)
			continue;
		fdio_put_be32(tid, 0, g->tid);
		uint32_t s = fdio_crc32c(fdio_crc32c(base->jseed, tid, 4), img + g->image_off,
					 base->bs);
		if (base->csum) {
			fdio_put_be32(img + g->desc_off, g->tag_off + 12, s);
			fix_log_tail(base, img + g->desc_off);
		}
	}
}
