/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The zones of blocks that no file may own: superblocks, descriptors, bitmaps, inode tables and the
 * log. They are built on the thread that opens the volume and never change afterwards, so
 * ext4_blocks_valid, which every reader of block numbers calls, runs on any thread without a lock.
 * Building fails with -ENOMEM.
 */
#include "ext4/alloc/groups.h"

#include <errno.h>
#include <stdlib.h>

struct ext4_zone { uint64_t start, end; };

static int zone_cmp(const void *a, const void *b)
{
	const struct ext4_zone *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

unsigned ext4_group_base_ranges(struct ext4_vol *vol, uint32_t group, struct journal_extent ret[3])
{
	blk64_t super = 0, old_desc = 0, new_desc = 0;
	uint32_t old_blocks = vol->fs->desc_blocks;
	unsigned nr = 0;

	if (ext2fs_has_feature_meta_bg(vol->fs->super))
		old_blocks = FDIO_MIN(vol->fs->super->s_first_meta_bg, vol->fs->desc_blocks);
	old_blocks += vol->fs->super->s_reserved_gdt_blocks;
	ext2fs_super_and_bgd_loc2(vol->fs, group, &super, &old_desc, &new_desc, NULL);
	if (super || group == 0)
		ret[nr++] = (struct journal_extent){ super, 1 };
	if (old_desc && old_blocks)
		ret[nr++] = (struct journal_extent){ old_desc, old_blocks };
	if (new_desc)
		ret[nr++] = (struct journal_extent){ new_desc, 1 };
	return nr;
}

/* Sorts the zones and joins those that touch or overlap. */
static void zones_merge(struct ext4_vol *vol)
{
	unsigned out = 0;

	qsort(vol->alloc.zones, vol->alloc.nr_zones, sizeof(*vol->alloc.zones), zone_cmp);
	for (unsigned n = 1; n < vol->alloc.nr_zones; n++)
		if (vol->alloc.zones[n].start <= vol->alloc.zones[out].end)
			vol->alloc.zones[out].end = FDIO_MAX(vol->alloc.zones[out].end,
							     vol->alloc.zones[n].end);
		else
			vol->alloc.zones[++out] = vol->alloc.zones[n];
	vol->alloc.nr_zones = out + 1;
}

/*
 * From group to group, the blocks of one kind of metadata come in ascending order, and with flex_bg
 * they touch. So each kind collects its last zone for itself, and few zones are left to be sorted.
 */
enum zone_kind {
	ZONE_SUPER,
	ZONE_DESC,
	ZONE_NEW_DESC,
	ZONE_BLOCK_BITMAP,
	ZONE_INODE_BITMAP,
	ZONE_ITABLE,
	ZONE_KINDS
};

struct zone_build {
	struct ext4_zone *zone;
	unsigned nr, cap;
	struct ext4_zone last[ZONE_KINDS]; /* may still grow, and is not in zone; empty: none */
};

/* Appends a zone, unless it is empty. */
static int zone_put(struct zone_build *build, struct ext4_zone zone)
{
	if (zone.start == zone.end)
		return 0;
	if (build->nr == build->cap) {
		unsigned cap = build->cap ? build->cap * 2 : 256;
		struct ext4_zone *bigger = realloc(build->zone, cap * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		build->zone = bigger;
		build->cap = cap;
	}
	build->zone[build->nr++] = zone;
	return 0;
}

/* Extends the last zone of this kind if the blocks touch it, else begins a new one. */
static int zone_add(struct zone_build *build, enum zone_kind kind, uint64_t start, uint64_t n)
{
	struct ext4_zone *last = &build->last[kind], full = *last;

	if (start == last->end) {
		last->end += n;
		return 0;
	}
	*last = (struct ext4_zone){ start, start + n };
	return zone_put(build, full);
}

static int zones_of_group(struct ext4_vol *vol, struct zone_build *build, uint32_t group)
{
	const struct ext4_group *grp = &vol->alloc.groups[group];
	struct journal_extent base[3];
	unsigned nr = ext4_group_base_ranges(vol, group, base);
	int err = 0;

	for (unsigned n = 0; n < nr && !err; n++)
		err = zone_add(build, ZONE_SUPER + n, base[n].pblk, base[n].len);
	for (unsigned n = 0; n < nr; n++)
		vol->alloc.static_blocks += base[n].len;
	vol->alloc.static_blocks += 2 + vol->itable_blocks;
	/* A place of 0 comes from a damaged descriptor; no file owns block 0 either. */
	if (!err)
		err = zone_add(build, ZONE_BLOCK_BITMAP, grp->block_bitmap, 1);
	if (!err)
		err = zone_add(build, ZONE_INODE_BITMAP, grp->inode_bitmap, 1);
	if (!err)
		err = zone_add(build, ZONE_ITABLE, grp->itable,
			       grp->itable ? vol->itable_blocks : 1);
	return err;
}

/* The volume owns the zones from now on, also after an error. Returns err. */
static int zones_take(struct ext4_vol *vol, struct zone_build *build, int err)
{
	vol->alloc.zones = build->zone;
	vol->alloc.nr_zones = build->nr;
	if (!err && build->nr)
		zones_merge(vol);
	return err;
}

int ext4_zones_init(struct ext4_vol *vol)
{
	struct zone_build build = { 0 };
	int err = 0;

	free(vol->alloc.zones);
	vol->alloc.static_blocks = vol->first_data_block;
	for (uint32_t group = 0; group < vol->nr_groups && !err; group++)
		err = zones_of_group(vol, &build, group);
	for (unsigned k = 0; k < ZONE_KINDS && !err; k++)
		err = zone_put(&build, build.last[k]);
	return zones_take(vol, &build, err);
}

int ext4_zones_add_log(struct ext4_vol *vol, const struct journal_extent *log, unsigned nr_log)
{
	struct zone_build build = { .zone = vol->alloc.zones,
				    .nr = vol->alloc.nr_zones,
				    .cap = vol->alloc.nr_zones };
	int err = 0;

	for (unsigned n = 0; n < nr_log && !err; n++)
		err = zone_put(&build, (struct ext4_zone){ log[n].pblk, log[n].pblk + log[n].len });
	return zones_take(vol, &build, err);
}

/* The index of the first zone that ends behind blk; nr_zones: none. */
static unsigned zone_find(const struct ext4_vol *vol, uint64_t blk)
{
	unsigned lo = 0, hi = vol->alloc.nr_zones;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (vol->alloc.zones[mid].end > blk)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

bool ext4_blocks_valid(struct ext4_vol *vol, uint64_t blk, uint64_t n)
{
	unsigned k;

	if (blk < vol->first_data_block || blk >= vol->nr_blocks || n == 0 ||
	    n > vol->nr_blocks - blk)
		return false;
	/* All zones before this one end at or before blk; it must begin behind the range. */
	k = zone_find(vol, blk);
	return k == vol->alloc.nr_zones || vol->alloc.zones[k].start >= blk + n;
}

bool ext4_zones_marked(struct ext4_vol *vol, uint64_t start, uint32_t nr_blocks,
		       const uint8_t *map)
{
	for (unsigned n = zone_find(vol, start);
	     n < vol->alloc.nr_zones && vol->alloc.zones[n].start < start + nr_blocks; n++) {
		uint64_t lo = FDIO_MAX(vol->alloc.zones[n].start, start),
			 hi = FDIO_MIN(vol->alloc.zones[n].end, start + nr_blocks);

		if (lo < hi &&
		    !ext4_bits_all(map, (uint32_t)(lo - start), (uint32_t)(hi - lo), true))
			return false;
	}
	return true;
}
