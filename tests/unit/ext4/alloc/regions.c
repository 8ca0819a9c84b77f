/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file system of very many groups: places for directories and blocks are found without looking at
 * each group, as the counters show; and if all bitmaps are damaged, one call meets only some of
 * them.
 */
#include "kit/volume.h"

#include "base/counters.h"
#include "base/log.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"

#include <errno.h>
#include <sys/stat.h>

static struct fake_dev *f;
static struct ext4_vol *v;

static void open_many(void)
{
	f = fake_mkfs(200 << 20, "-t ext4 -b 1024 -g 256 -N 8192 -J size=4 -O ^resize_inode");
	ck_assert_ptr_nonnull(f);
	v = testvol_mount(f);
	ck_assert_uint_ge(v->alloc.nr_regions, 6);
}

/* Takes an inode number for a child of dir_ino and stores its group; makes no inode. */
static int place(uint32_t dir_ino, uint32_t mode, uint32_t *ret_g)
{
	struct ext4_inode *dir;
	struct journal_handle *handle;
	uint32_t ino = 0;
	bool fresh;
	int err;

	ck_assert_int_eq(ext4_inode_get_special(v, dir_ino, &dir), 0);
	ck_assert_int_eq(journal_begin(v->journal, EXT4_CREDITS_INODE_NEW + 4, &handle), 0);
	err = ext4_inode_number_alloc(handle, dir, mode, &ino, &fresh);
	*ret_g = (ino - 1) / v->inodes_per_group;
	journal_end(handle);
	ext4_inode_put(dir);
	return err;
}

/* Directories at the top: each gets a group of its own, and few groups are looked at for it. */
START_TEST(directories_at_the_top)
{
	enum { DIRS = 60 };
	uint64_t before = fdio_counter_read(COUNTER_ext4_place_look);
	uint32_t g[DIRS], in[64] = { 0 }, regions = 0;

	open_many();
	for (unsigned k = 0; k < DIRS; k++) {
		ck_assert_int_eq(place(EXT4_ROOT_INO, S_IFDIR | 0755, &g[k]), 0);
		for (unsigned n = 0; n < k; n++)
			ck_assert_uint_ne(g[n], g[k]);
		in[g[k] >> EXT4_REGION_BITS]++;
	}
	/* Regions with less room, because they hold more of the metadata, may get none. */
	for (uint32_t r = 0; r < v->alloc.nr_regions; r++)
		regions += in[r] >= DIRS / v->alloc.nr_regions / 2;
	ck_assert_uint_ge(regions, v->alloc.nr_regions / 2);
	ck_assert_uint_le(fdio_counter_read(COUNTER_ext4_place_look) - before,
			  DIRS * (v->alloc.nr_regions + EXT4_REGION_GROUPS));
	testvol_check_groups(v);
	ext4_vol_abandon(v);
	fake_free(f);
}
END_TEST

/* Deeper ones: near the parent, even if no region is good enough, without looking at all groups. */
START_TEST(directories_further_down)
{
	uint64_t before = fdio_counter_read(COUNTER_ext4_place_look);
	struct ext2_inode_large raw = { .i_mode = S_IFDIR | 0755 };
	struct ext4_inode dir = { .raw = &raw };
	uint32_t parent, ino;
	struct journal_handle *handle;
	bool fresh;

	open_many();
	parent = 3 * EXT4_REGION_GROUPS + 5;
	for (uint32_t k = 0; k < v->nr_groups; k++) { /* as if all groups were crowded */
		struct ext4_descriptor desc = v->alloc.groups[k].desc;

		desc.used_dirs = 1000;
		ext4_group_set_desc(v, k, &desc);
	}
	v->alloc.nr_dirs = 0;
	dir.vol = v;
	dir.ino = parent * v->inodes_per_group + 1;
	ck_assert_int_eq(journal_begin(v->journal, EXT4_CREDITS_INODE_NEW + 4, &handle), 0);
	ck_assert_int_eq(ext4_inode_number_alloc(handle, &dir, S_IFDIR | 0755, &ino, &fresh), 0);
	journal_end(handle);
	ck_assert_uint_ge((ino - 1) / v->inodes_per_group, parent);
	ck_assert_uint_lt((ino - 1) / v->inodes_per_group, ext4_region_end(v, parent));
	ck_assert_uint_le(fdio_counter_read(COUNTER_ext4_place_look) - before,
			  10 * EXT4_REGION_GROUPS);
	ext4_vol_abandon(v);
	fake_free(f);
}
END_TEST

/* Takes every free block of the groups from first to end. */
static void fill_groups(uint32_t first, uint32_t end)
{
	fdio_mutex_lock(&v->alloc.lock);
	for (uint32_t group = first; group < end; group++) {
		struct ext4_group *grp = &v->alloc.groups[group];

		ck_assert_int_eq(ext4_group_load(v, group), 0);
		while (grp->free_in_image) {
			uint32_t from = ext4_bits_next(grp->image, grp->nr_blocks, 0, false);
			uint32_t to = ext4_bits_next(grp->image, grp->nr_blocks, from, true);

			ext4_image_take(v, group, from, to - from);
		}
	}
	fdio_mutex_unlock(&v->alloc.lock);
}

/* The search for blocks looks through full regions once, not each time. */
START_TEST(full_regions_are_passed_over)
{
	uint64_t before, goal, blk;
	uint32_t far, n, group;

	open_many();
	far = ext4_region_first(v->nr_groups - EXT4_REGION_GROUPS);
	fill_groups(0, far);
	goal = ext4_group_start(v, 1) + 200;
	before = fdio_counter_read(COUNTER_ext4_region_scan);
	for (unsigned k = 0; k < 200; k++) {
		ck_assert_int_eq(ext4_blocks_reserve(v, NULL, goal, 8, true, &blk, &n), 0);
		ck_assert_uint_ge(ext4_group_of(v, blk), far);
		ext4_blocks_unreserve(v, blk, n);
	}
	/* One scan for each full region, and each time one of the region that has room. */
	ck_assert_uint_le(fdio_counter_read(COUNTER_ext4_region_scan) - before,
			  v->alloc.nr_regions + 200);
	/* Blocks that are given back in a full region are found. */
	for (group = 2 * EXT4_REGION_GROUPS;
	     v->alloc.groups[group].desc.free_blocks < v->alloc.groups[group].nr_blocks;)
		group++;
	ext4_blocks_unreserve(v, ext4_group_start(v, group) + 100, 140);
	ck_assert_int_eq(ext4_blocks_reserve(v, NULL, goal, 40, true, &blk, &n), 0);
	ck_assert_uint_eq(ext4_group_of(v, blk), group);
	testvol_check_groups(v);
	ext4_vol_abandon(v);
	fake_free(f);
}
END_TEST

/* Every inode bitmap is damaged: one attempt meets at most 64 of them and fails. */
START_TEST(all_inode_bitmaps_damaged)
{
	static uint8_t bad[1024];
	uint64_t before;
	uint32_t group;

	open_many();
	memset(bad, 0x5a, sizeof(bad));
	for (uint32_t k = 0; k < v->nr_groups; k++) {
		struct ext4_descriptor desc = v->alloc.groups[k].desc;

		desc.flags &= (uint16_t)~EXT2_BG_INODE_UNINIT;
		ext4_group_set_desc(v, k, &desc);
		fake_poke(f, bad, sizeof(bad), v->alloc.groups[k].inode_bitmap << v->block_bits);
	}
	fdio_log_set_level(0);
	before = fdio_counter_read(COUNTER_ext4_corrupt);
	ck_assert_int_eq(place(EXT4_ROOT_INO, S_IFDIR | 0755, &group), -EUCLEAN);
	ck_assert_uint_ge(fdio_counter_read(COUNTER_ext4_corrupt) - before, 2);
	ck_assert_uint_le(fdio_counter_read(COUNTER_ext4_corrupt) - before, 64);
	ext4_vol_abandon(v);
	fake_free(f);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: regions");
	TCase *t = unit_case(s, "regions", 120);

	unit_test(t, directories_at_the_top);
	unit_test(t, directories_further_down);
	unit_test(t, full_regions_are_passed_over);
	unit_test(t, all_inode_bitmaps_damaged);
	return s;
}
