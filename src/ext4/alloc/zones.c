/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The zones of blocks that no file may own: superblocks, descriptors, bitmaps, inode tables and the log.
 * They are built while the volume opens, on its thread, and never change afterwards: x4_blk_valid, which
 * every reader of block numbers calls, runs on any thread without a lock. Building fails with -ENOMEM.
 */
#include "ext4/alloc/groups.h"

#include <errno.h>
#include <stdlib.h>

struct x4_zone { uint64_t start, end; };

static int zone_cmp(const void *a, const void *b)
{
	const struct x4_zone *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

unsigned x4_group_base_ranges(struct x4_vol *v, uint32_t g, struct jnl_extent ret[3])
{
	blk64_t super = 0, old_desc = 0, new_desc = 0;
	uint32_t old_blocks = v->fs->desc_blocks;
	unsigned nr = 0;

	if (ext2fs_has_feature_meta_bg(v->fs->super))
		old_blocks = FDIO_MIN(v->fs->super->s_first_meta_bg, v->fs->desc_blocks);
	old_blocks += v->fs->super->s_reserved_gdt_blocks;
	ext2fs_super_and_bgd_loc2(v->fs, g, &super, &old_desc, &new_desc, NULL);
	if (super || g == 0)
		ret[nr++] = (struct jnl_extent){ super, 1 };
	if (old_desc && old_blocks)
		ret[nr++] = (struct jnl_extent){ old_desc, old_blocks };
	if (new_desc)
		ret[nr++] = (struct jnl_extent){ new_desc, 1 };
	return nr;
}

static void zones_merge(struct x4_vol *v)
{
	unsigned out = 0;

	qsort(v->alloc.zones, v->alloc.nr_zones, sizeof(*v->alloc.zones), zone_cmp);
	for (unsigned n = 1; n < v->alloc.nr_zones; n++)
		if (v->alloc.zones[n].start <= v->alloc.zones[out].end)
			v->alloc.zones[out].end = FDIO_MAX(v->alloc.zones[out].end, v->alloc.zones[n].end);
		else
			v->alloc.zones[++out] = v->alloc.zones[n];
	v->alloc.nr_zones = out + 1;
}

/*
 * The places of one kind of metadata follow each other in the order of groups, and with flex_bg
 * lie side by side: so each kind is a list of its own while it is collected, and few places are
 * left to be sorted.
 */
enum zone_kind { ZONE_SUPER, ZONE_DESC, ZONE_NEW_DESC, ZONE_BB, ZONE_IB, ZONE_ITABLE, ZONE_KINDS };

struct zone_build {
	struct x4_zone *zone;
	unsigned nr, cap;
	struct x4_zone last[ZONE_KINDS]; /* not in zone yet; start == end: none */
};

static int zone_put(struct zone_build *b, struct x4_zone z)
{
	if (z.start == z.end)
		return 0;
	if (b->nr == b->cap) {
		unsigned cap = b->cap ? b->cap * 2 : 256;
		struct x4_zone *bigger = realloc(b->zone, cap * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		b->zone = bigger;
		b->cap = cap;
	}
	b->zone[b->nr++] = z;
	return 0;
}

static int zone_add(struct zone_build *b, enum zone_kind kind, uint64_t start, uint64_t n)
{
	struct x4_zone *last = &b->last[kind], full = *last;

	if (start == last->end) {
		last->end += n;
		return 0;
	}
	*last = (struct x4_zone){ start, start + n };
	return zone_put(b, full);
}

static int zones_of_group(struct x4_vol *v, struct zone_build *b, uint32_t g)
{
	const struct x4_group *grp = &v->alloc.groups[g];
	struct jnl_extent base[3];
	unsigned nr = x4_group_base_ranges(v, g, base);
	int err = 0;

	for (unsigned n = 0; n < nr && !err; n++)
		err = zone_add(b, ZONE_SUPER + n, base[n].pblk, base[n].len);
	for (unsigned n = 0; n < nr; n++)
		v->alloc.static_blocks += base[n].len;
	v->alloc.static_blocks += 2 + v->itable_blocks;
	/* 0, where a damaged descriptor says nothing, is no place of a file either. */
	if (!err)
		err = zone_add(b, ZONE_BB, grp->bb, 1);
	if (!err)
		err = zone_add(b, ZONE_IB, grp->ib, 1);
	if (!err)
		err = zone_add(b, ZONE_ITABLE, grp->itable, grp->itable ? v->itable_blocks : 1);
	return err;
}

/* The list becomes the volume's, whatever the result. */
static int zones_take(struct x4_vol *v, struct zone_build *b, int err)
{
	v->alloc.zones = b->zone;
	v->alloc.nr_zones = b->nr;
	if (!err && b->nr)
		zones_merge(v);
	return err;
}

int x4_zones_init(struct x4_vol *v)
{
	struct zone_build b = { 0 };
	int err = 0;

	free(v->alloc.zones);
	v->alloc.static_blocks = v->first_data_block;
	for (uint32_t g = 0; g < v->nr_groups && !err; g++)
		err = zones_of_group(v, &b, g);
	for (unsigned k = 0; k < ZONE_KINDS && !err; k++)
		err = zone_put(&b, b.last[k]);
	return zones_take(v, &b, err);
}

int x4_zones_add_log(struct x4_vol *v, const struct jnl_extent *log, unsigned nr_log)
{
	struct zone_build b = { .zone = v->alloc.zones, .nr = v->alloc.nr_zones, .cap = v->alloc.nr_zones };
	int err = 0;

	for (unsigned n = 0; n < nr_log && !err; n++)
		err = zone_put(&b, (struct x4_zone){ log[n].pblk, log[n].pblk + log[n].len });
	return zones_take(v, &b, err);
}

/* The first zone that ends behind blk; nr_zones: none. */
static unsigned zone_find(const struct x4_vol *v, uint64_t blk)
{
	unsigned lo = 0, hi = v->alloc.nr_zones;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (v->alloc.zones[mid].end > blk)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

bool x4_blk_valid(struct x4_vol *v, uint64_t blk, uint64_t n)
{
	unsigned k;

	if (blk < v->first_data_block || blk >= v->nr_blocks || n == 0 || n > v->nr_blocks - blk)
		return false;
	/* It must begin at or after the end of the range. */
	k = zone_find(v, blk);
	return k == v->alloc.nr_zones || v->alloc.zones[k].start >= blk + n;
}

bool x4_zones_marked(struct x4_vol *v, uint64_t start, uint32_t nbits, const uint8_t *map)
{
	for (unsigned n = zone_find(v, start);
	     n < v->alloc.nr_zones && v->alloc.zones[n].start < start + nbits; n++) {
		uint64_t lo = FDIO_MAX(v->alloc.zones[n].start, start), hi = FDIO_MIN(v->alloc.zones[n].end, start + nbits);

		if (lo < hi && !x4_bits_all(map, (uint32_t)(lo - start), (uint32_t)(hi - lo), true))
			return false;
	}
	return true;
}
