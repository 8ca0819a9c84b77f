/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Puts the checksum of a structure right after it was damaged; otherwise no code behind the check
 * of the checksum would ever be tested. Written from the format and not with the program's own
 * code, which is what is being tested. Sizes come from the undamaged image; those that the damaged
 * one states are cut to the structure.
 */
#include "fuzz/fuzz.h"

#include "base/bytes.h"
#include "base/crc32c.h"
#include "journal/format.h"

static uint16_t get16(const uint8_t *p) { return fdio_get_le16(p, 0); }
static uint32_t get32(const uint8_t *p) { return fdio_get_le32(p, 0); }
static void put16(uint8_t *p, uint16_t v) { fdio_put_le16(p, 0, v); }
static void put32(uint8_t *p, uint32_t v) { fdio_put_le32(p, 0, v); }

/* The inode in its table, not a copy in the log. NULL if it is none of the base's. */
static const uint8_t *inode_bytes(struct base *base, const uint8_t *img, uint32_t ino)
{
	for (unsigned i = base->first[KIND_INODE]; i < base->first[KIND_INODE + 1]; i++)
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

static void fix_superblock(uint8_t *p) { put32(p + 0x3fc, fdio_crc32c(~0U, p, 0x3fc)); }

static void fix_group_desc(struct base *base, uint32_t group, uint8_t *p)
{
	uint8_t zero[2] = { 0, 0 };
	uint32_t s;

	if (base->metadata_csum) {
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
	uint32_t nr_bits = inodes ? base->inodes_per_group : base->clusters_per_group;
	uint32_t s = fdio_crc32c(base->seed, bits, nr_bits / 8);
	uint8_t *desc = img + base->group_desc_off[group];

	if (!base->metadata_csum)
		return;
	put16(desc + (inodes ? 0x1a : 0x18), (uint16_t)s);
	if (base->desc_size >= 64)
		put16(desc + (inodes ? 0x3a : 0x38), (uint16_t)(s >> 16));
	fix_group_desc(base, group, desc);
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

	if (at + 4 > base->block_size)
		at = base->block_size - 4;
	put32(p + at, fdio_crc32c(seed, p, at));
}

/* at: offset of the table of a hash tree's root or inner node. */
static void fix_index(struct base *base, uint32_t seed, uint8_t *p, uint32_t at)
{
	uint32_t limit = get16(p + at), count = get16(p + at + 2), tail = at + limit * 8;
	uint32_t zero = 0, s;

	if (tail + 8 > base->block_size)
		tail = base->block_size - 8;
	s = fdio_crc32c(seed, p, FDIO_MIN(at + count * 8, tail));
	s = fdio_crc32c(s, p + tail, 4);
	put32(p + tail + 4, fdio_crc32c(s, &zero, 4));
}

static void fix_xattr(struct base *base, uint64_t home, uint8_t *p)
{
	uint32_t zero = 0, s = fdio_crc32c(base->seed, &home, 8);

	s = fdio_crc32c(s, p, 0x10);
	s = fdio_crc32c(s, &zero, 4);
	put32(p + 0x10, fdio_crc32c(s, p + 0x14, base->block_size - 0x14));
}

static void fix_log_tail(struct base *base, uint8_t *p)
{
	put32(p + base->block_size - 4, 0);
	fdio_put_be32(p, base->block_size - 4, fdio_crc32c(base->log_seed, p, base->block_size));
}

void target_fix_checksum(struct base *base, const struct target *target, uint8_t *img)
{
	uint8_t *p = img + target->off;
	uint32_t size = base->block_size, seed = inode_seed(base, img, target->ino);

	switch (target->kind) {
	case KIND_LOG_SUPERBLOCK:
		fdio_put_be32(p, JOURNAL_SB_CHECKSUM, 0);
		fdio_put_be32(p, JOURNAL_SB_CHECKSUM, fdio_crc32c(~0U, p, JOURNAL_SB_BYTES));
		break;
	case KIND_LOG_DESCRIPTOR:
	case KIND_LOG_REVOKE: fix_log_tail(base, p); break;
	case KIND_LOG_COMMIT:
		fdio_put_be32(p, JOURNAL_COMMIT_CHECKSUM, 0);
		fdio_put_be32(p, JOURNAL_COMMIT_CHECKSUM, fdio_crc32c(base->log_seed, p, size));
		break;
	case KIND_GROUP_DESC:
		if (base->metadata_csum || base->gdt_csum)
			fix_group_desc(base, target->ino, p);
		break;
	case KIND_BLOCK_BITMAP: fix_bitmap(base, target->ino, img, p, false); break;
	case KIND_INODE_BITMAP: fix_bitmap(base, target->ino, img, p, true); break;
	default: break;
	}
	if (!base->metadata_csum)
		return;
	switch (target->kind) {
	case KIND_SUPERBLOCK: fix_superblock(p); break;
	case KIND_INODE: fix_inode(base, target->ino, p); break;
	case KIND_EXTENT_NODE: fix_extent(base, seed, p); break;
	case KIND_DIR_BLOCK: put32(p + size - 4, fdio_crc32c(seed, p, size - 12)); break;
	case KIND_INDEX_ROOT: fix_index(base, seed, p, 0x20); break;
	case KIND_INDEX_NODE: fix_index(base, seed, p, 8); break;
	case KIND_XATTR: fix_xattr(base, target->home, p); break;
	case KIND_ORPHAN:
		seed = fdio_crc32c(seed, &target->home, 8);
		put32(p + size - 4, fdio_crc32c(seed, p, size - 8));
		break;
	default: break;
	}
}

void tags_fix_checksums(struct base *base, const struct image_case *test, uint8_t *img)
{
	for (unsigned i = 0; i < test->nr; i++) {
		const struct target *target = &base->target[test->mut[i].target];
		const struct log_tag *tag = target->tag >= 0 ? &base->tags[target->tag] : NULL;
		uint8_t tid[4];
		uint32_t s;

		if (!tag || !base->metadata_csum)
			continue;
		/* The tag has the checksum of the copy; the descriptor's own covers the tag. */
		fdio_put_be32(tid, 0, tag->tid);
		s = fdio_crc32c(base->log_seed, tid, 4);
		s = fdio_crc32c(s, img + tag->image_off, base->block_size);
		fdio_put_be32(img + tag->desc_off, tag->tag_off + 12, s);
		fix_log_tail(base, img + tag->desc_off);
	}
}
