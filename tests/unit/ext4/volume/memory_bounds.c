/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bounds of memory. Extent maps beyond their budget are evicted, those that no open file needs
 * first, while readers of a map still get the right blocks. The images of block bitmaps have a
 * bound of their own. Most tests stop the ticker and evict on their own thread, at a known moment.
 */
#include "kit/volume.h"

#include "base/counters.h"
#include "base/thread.h"
#include "ext4/data/map.h"
#include "ext4/volume/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

/* MAP_LEAST: the least that the map of one file takes, in bytes. */
enum { FILES = 30, RUNS = 150, MAP_LEAST = RUNS * sizeof(struct ext4_map_run) };

/* Makes n files of RUNS extents each, of one block at every second place. */
static void make_files(struct ext4_vol *vol, struct ext4_inode **inode, unsigned n)
{
	for (unsigned k = 0; k < n; k++) {
		inode[k] = testvol_tmpfile(vol, S_IFREG | 0644);
		for (uint32_t l = 0; l < RUNS; l++)
			ck_assert_int_eq(testvol_fill(inode[k], 2 * l, 1), 0);
	}
}

/* Loads all maps, as if none had been used since. */
static void load_all(struct ext4_inode **inode, unsigned n)
{
	for (unsigned k = 0; k < n; k++) {
		ext4_map_drop(inode[k]);
		ck_assert_int_eq(ext4_map_load(inode[k]), 0);
		__atomic_store_n(&inode[k]->data.map_used, false, __ATOMIC_RELAXED);
	}
	epoch_drain();
	ck_assert_uint_ge(ext4_map_mem_used(), n * MAP_LEAST);
}

/* Stops the ticker, so that only the test evicts maps. */
static void stop_ticker(struct ext4_vol *vol)
{
	fdio_mutex_lock(&vol->volume.ticker_lock);
	vol->volume.ticker_stop = true;
	pthread_cond_broadcast(&vol->volume.ticker_cond);
	fdio_mutex_unlock(&vol->volume.ticker_lock);
	pthread_join(vol->volume.ticker, NULL);
	vol->volume.ticker_on = false;
}

/* How many of n inodes have their map in memory. */
static unsigned with_map(struct ext4_inode **inode, unsigned n)
{
	unsigned have = 0;

	for (unsigned k = 0; k < n; k++)
		have += __atomic_load_n(&inode[k]->data.map, __ATOMIC_RELAXED) != NULL;
	return have;
}

static void put_files(struct ext4_vol *vol, struct fake_dev *fake, struct ext4_inode **inode)
{
	for (unsigned k = 0; k < FILES; k++)
		ext4_inode_put(inode[k]);
	testvol_unmount_check(vol, fake);
	fake_free(fake);
}

/*
 * Maps of closed files are evicted before those of open ones, and unused maps before those that
 * were used lately. Within the budget none is evicted.
 */
START_TEST(idle_maps_go_first)
{
	struct fake_dev *fake = testvol_shape(2);
	struct ext4_vol *vol = testvol_mount(fake);
	struct ext4_inode *inode[FILES];
	struct ext4_extent extent;

	stop_ticker(vol);
	make_files(vol, inode, FILES);
	for (unsigned k = 0; k < FILES / 2; k++)
		ext4_open_count_add(inode[k], 1);
	load_all(inode, FILES);
	vol->data.map_budget = ext4_map_mem_used();
	ck_assert(ext4_maps_shrink(vol));
	ck_assert_uint_eq(with_map(inode, FILES), FILES);
	/* Eviction stops at three quarters of the budget: the half that open files need stays. */
	vol->data.map_budget -= vol->data.map_budget / 3;
	ck_assert(ext4_maps_shrink(vol));
	ck_assert_uint_le(ext4_map_mem_used(), vol->data.map_budget);
	ck_assert_uint_eq(with_map(inode, FILES / 2), FILES / 2);
	ck_assert_uint_lt(with_map(inode + FILES / 2, FILES / 2), FILES / 2);
	/* Of the maps of open files, those that were used lately stay. */
	load_all(inode, FILES);
	vol->data.map_budget = ext4_map_mem_used() / 3;
	ck_assert_int_eq(ext4_map_lookup(inode[3], 0, &extent), 0);
	ck_assert_int_eq(ext4_map_lookup(inode[4], 0, &extent), 0);
	ck_assert(ext4_maps_shrink(vol));
	ck_assert_uint_eq(with_map(inode + FILES / 2, FILES / 2), 0);
	ck_assert_ptr_nonnull(inode[3]->data.map);
	ck_assert_ptr_nonnull(inode[4]->data.map);
	ck_assert_int_eq(ext4_map_lookup_load(inode[0], 2, &extent), 0);
	ck_assert_uint_eq(extent.state, EXT4_EXTENT_WRITTEN);
	for (unsigned k = 0; k < FILES / 2; k++)
		ext4_open_count_add(inode[k], -1);
	put_files(vol, fake, inode);
}
END_TEST

/*
 * All maps are in use. Up to twice the budget they stay; beyond that they are evicted, except the
 * one that was loaded last.
 */
START_TEST(used_maps_have_a_limit)
{
	struct fake_dev *fake = testvol_shape(2);
	struct ext4_vol *vol = testvol_mount(fake);
	struct ext4_inode *inode[FILES];
	struct ext4_extent extent;

	stop_ticker(vol);
	make_files(vol, inode, FILES);
	for (unsigned k = 0; k < FILES; k++)
		ext4_open_count_add(inode[k], 1);
	load_all(inode, FILES);
	for (unsigned k = 0; k < FILES; k++)
		ck_assert_int_eq(ext4_map_lookup(inode[k], 0, &extent), 0);
	vol->data.map_budget = ext4_map_mem_used() / 3 * 2;
	ck_assert(!ext4_maps_shrink(vol));
	ck_assert_uint_eq(with_map(inode, FILES), FILES);
	for (unsigned k = 0; k < FILES; k++)
		ck_assert_int_eq(ext4_map_lookup(inode[k], 0, &extent), 0);
	vol->data.map_budget = 64;
	ck_assert(!ext4_maps_shrink(vol));
	ck_assert_uint_eq(with_map(inode, FILES), 1);
	ck_assert_ptr_nonnull(inode[FILES - 1]->data.map);
	ck_assert_uint_lt(ext4_map_mem_used(), 2 * (MAP_LEAST + 1024));
	for (unsigned k = 0; k < FILES; k++)
		ext4_open_count_add(inode[k], -1);
	put_files(vol, fake, inode);
}
END_TEST

/*
 * A handle may change an inode that it has begun, and its map, without the inode's locks. Therefore
 * that map stays until the handle ends, while all others are evicted.
 */
START_TEST(map_of_a_begun_inode_stays)
{
	struct fake_dev *fake = testvol_shape(2);
	struct ext4_vol *vol = testvol_mount(fake);
	struct ext4_inode *inode[FILES];
	struct journal_handle *handle;

	stop_ticker(vol);
	make_files(vol, inode, FILES);
	load_all(inode, FILES);
	/* The map that was loaded last stays anyway. */
	ck_assert_uint_ne(vol->data.map_newest, inode[0]->ino);
	vol->data.map_budget = 64;
	ck_assert_int_eq(journal_begin(vol->journal, EXT4_CREDITS_INODE, &handle), 0);
	ck_assert_int_eq(ext4_inode_begin(handle, inode[0]), 0);
	(void)ext4_maps_shrink(vol);
	ck_assert_ptr_nonnull(inode[0]->data.map);
	ck_assert_uint_eq(with_map(inode + 1, FILES - 1), 0);
	journal_end(handle);
	(void)ext4_maps_shrink(vol);
	ck_assert_ptr_null(inode[0]->data.map);
	put_files(vol, fake, inode);
}
END_TEST

/* Takes inode off the orphan list, so that the next mount does not delete it; it has no name. */
static void keep_file(struct ext4_inode *inode)
{
	struct journal_handle *handle;

	ck_assert_int_eq(journal_begin(inode->vol->journal,
				       EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN, &handle),
			 0);
	ck_assert_int_eq(ext4_inode_begin(handle, inode), 0);
	ext4_raw_set_nlink(inode, 1);
	ck_assert_int_eq(ext4_orphan_del(handle, inode), 0);
	ck_assert_int_eq(ext4_inode_dirty(handle, inode, true), 0);
	journal_end(handle);
}

/* When maps beyond the budget are loaded, the ticker evicts some, on a read-only mount too. */
START_TEST(ticker_gives_up_maps)
{
	struct fake_dev *fake = testvol_shape(2);
	struct ext4_options options = testvol_options();
	struct ext4_vol *vol = testvol_mount(fake);
	uint32_t ino[FILES];
	struct ext4_inode *inode[FILES];

	make_files(vol, inode, FILES);
	for (unsigned k = 0; k < FILES; k++) {
		ino[k] = inode[k]->ino;
		keep_file(inode[k]);
	}
	if (_i) {
		ck_assert_int_eq(ext4_vol_sync(vol), 0);
		ext4_vol_abandon(vol);
		options.read_only = true;
		vol = testvol_mount_with(fake, &options);
		for (unsigned k = 0; k < FILES; k++)
			ck_assert_int_eq(ext4_inode_get_special(vol, ino[k], &inode[k]), 0);
	}
	stop_ticker(vol);
	vol->data.map_budget = 10 * MAP_LEAST;
	vol->volume.ticker_stop = false;
	ck_assert_int_eq(ext4_ticker_start(vol), 0);
	for (unsigned k = 0; k < FILES; k++)
		ck_assert_int_eq(ext4_map_load(inode[k]), 0);
	for (unsigned n = 0; ext4_map_mem_used() > vol->data.map_budget; n++) {
		ck_assert_uint_lt(n, 3000);
		unit_pause_ms(10);
	}
	ck_assert_uint_lt(with_map(inode, FILES), FILES);
	ext4_vol_abandon(vol);
	epoch_drain();
	fake_free(fake);
}
END_TEST

struct readers { struct ext4_inode **inode; bool stop; unsigned lookups; };

static void *reader(void *arg)
{
	struct readers *readers = arg;
	unsigned seed = 1;

	while (!__atomic_load_n(&readers->stop, __ATOMIC_ACQUIRE)) {
		unsigned k = (unsigned)rand_r(&seed) % FILES;
		unsigned lblk = (unsigned)rand_r(&seed) % (2 * RUNS);
		struct ext4_extent extent;

		if (ext4_map_lookup_load(readers->inode[k], lblk, &extent) ||
		    (extent.state == EXT4_EXTENT_HOLE) != lblk % 2)
			abort();
		__atomic_add_fetch(&readers->lookups, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/* Two threads look up extents while maps are evicted all the time: they get the right ones. */
START_TEST(readers_see_nothing_of_it)
{
	struct fake_dev *fake = testvol_shape(2);
	struct ext4_vol *vol = testvol_mount(fake);
	uint64_t before = fdio_counter_read(COUNTER_ext4_map_evicted);
	struct ext4_inode *inode[FILES];
	struct readers readers = { .inode = inode };
	pthread_t threads[2];

	make_files(vol, inode, FILES);
	stop_ticker(vol);
	vol->data.map_budget = 64;
	for (unsigned k = 0; k < 2; k++)
		ck_assert_int_eq(thread_start(&threads[k], "reader", reader, &readers), 0);
	while (__atomic_load_n(&readers.lookups, __ATOMIC_RELAXED) < 20000 ||
	       fdio_counter_read(COUNTER_ext4_map_evicted) < before + 200)
		(void)ext4_maps_shrink(vol);
	__atomic_store_n(&readers.stop, true, __ATOMIC_RELEASE);
	for (unsigned k = 0; k < 2; k++)
		pthread_join(threads[k], NULL);
	put_files(vol, fake, inode);
}
END_TEST

/* ---- bitmaps ---- */

/* A device with more than 150 groups, each of which has a bitmap. */
static struct fake_dev *many_groups(void)
{
	struct fake_dev *fake = fake_mkfs(48 << 20, "-t ext4 -b 1024 -g 256 -J size=4 "
						 "-O ^resize_inode");

	ck_assert_ptr_nonnull(fake);
	return fake;
}

/* At most so many bitmaps are in memory; nr_images and all free counts are right. */
static void check_images(struct ext4_vol *vol, unsigned most)
{
	unsigned n = 0;

	for (uint32_t group = 0; group < vol->nr_groups; group++)
		n += vol->alloc.groups[group].image != NULL;
	ck_assert_uint_eq(n, vol->alloc.nr_images);
	ck_assert_uint_le(n, most);
	testvol_check_groups(vol);
}

/* A trim reads all bitmaps, and leaves no more in memory than the bound. */
START_TEST(trim_leaves_few_bitmaps)
{
	struct fake_dev *fake = many_groups();
	struct ext4_vol *vol = testvol_mount(fake);
	uint64_t trimmed;

	ck_assert_uint_gt(vol->nr_groups, 150);
	vol->alloc.max_images = 10;
	ck_assert_int_eq(ext4_vol_trim(vol, 0, UINT64_MAX, 0, &trimmed), 0);
	ck_assert_uint_ge(trimmed, (vol->alloc.free_blocks - vol->nr_groups) << vol->block_bits);
	check_images(vol, 10);
	testvol_unmount_check(vol, fake);
	fake_free(fake);
}
END_TEST

/*
 * Blocks are reserved, allocated and freed all over the volume, while few bitmaps fit into memory:
 * reservations and frees survive the eviction of their bitmap, and no block is given out twice.
 */
START_TEST(bitmaps_come_and_go)
{
	struct fake_dev *fake = many_groups();
	struct ext4_vol *vol = testvol_mount(fake);
	uint64_t blk[40], evicted = fdio_counter_read(COUNTER_ext4_image_evicted);
	struct ext4_inode *inode = testvol_tmpfile(vol, S_IFREG | 0644);
	unsigned seed = 7, held = 0;
	uint32_t n, lblk = 0;

	vol->alloc.max_images = 3;
	for (unsigned round = 0; round < 1500; round++) {
		uint64_t goal = 1 + (unsigned)rand_r(&seed) % (vol->nr_blocks - 2);

		switch (rand_r(&seed) % 4) {
		case 0:
			if (held < ARRAY_SIZE(blk))
				ck_assert_int_eq(ext4_blocks_reserve(vol, inode, goal, 1, true,
								   &blk[held++], &n), 0);
			break;
		case 1:
			if (held)
				ext4_blocks_unreserve(vol, blk[--held], 1);
			break;
		case 2:
			ext4_blocks_next(inode, goal);
			ck_assert_int_eq(testvol_fill(inode, lblk++, 1), 0);
			break;
		case 3:
			if (lblk > 40) {
				ext4_inode_lock_exclusive(inode);
				ck_assert_int_eq(ext4_truncate(inode,
							       (lblk -= 30) << vol->block_bits),
						 0);
				ext4_inode_unlock(inode);
			}
			break;
		}
		if (round % 100 == 0)
			check_images(vol, vol->nr_groups);
	}
	ck_assert_uint_gt(fdio_counter_read(COUNTER_ext4_image_evicted), evicted + 100);
	while (held)
		ext4_blocks_unreserve(vol, blk[--held], 1);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	ck_assert_int_eq(ext4_vol_trim(vol, 0, UINT64_MAX, 0, &(uint64_t){ 0 }), 0);
	check_images(vol, 3);
	ext4_inode_put(inode);
	testvol_unmount_check(vol, fake);
	fake_free(fake);
}
END_TEST

/*
 * A handle allocates or frees, then the bitmaps of all groups are loaded, more than the bound, then
 * the handle is cancelled or ends: bitmaps and counts are right in each case.
 */
START_TEST(cancelled_with_other_bitmaps)
{
	struct fake_dev *fake = many_groups();
	struct ext4_vol *vol = testvol_mount(fake);
	struct ext4_inode *inode = testvol_tmpfile(vol, S_IFREG | 0644);
	struct journal_handle *handle;
	uint64_t blk, old;
	uint32_t n, group;

	ck_assert_int_eq(journal_begin(vol->journal, 20, &handle), 0);
	ck_assert_int_eq(ext4_blocks_alloc(handle, inode, 0, 1, &old, &n), 0);
	journal_end(handle);
	ck_assert_int_eq(journal_sync(vol->journal), 0);
	vol->alloc.max_images = 2;
	ck_assert_int_eq(journal_begin(vol->journal, 20, &handle), 0);
	if (_i == 0)
		ck_assert_int_eq(ext4_blocks_alloc(handle, inode, vol->nr_blocks / 2, 1, &blk, &n),
				 0);
	else
		ck_assert_int_eq(ext4_blocks_free(handle, inode, old, 1, false), 0);
	fdio_mutex_lock(&vol->alloc.lock);
	for (group = 0; group < vol->nr_groups; group++)
		ck_assert_int_eq(ext4_group_load(vol, group), 0);
	fdio_mutex_unlock(&vol->alloc.lock);
	if (_i < 2)
		journal_cancel(handle);
	else
		journal_end(handle);
	testvol_check_groups(vol);
	ck_assert_int_eq(journal_sync(vol->journal), 0);
	testvol_check_groups(vol);
	if (_i < 2) {
		ck_assert_int_eq(journal_begin(vol->journal, 20, &handle), 0);
		ck_assert_int_eq(ext4_blocks_free(handle, inode, old, 1, false), 0);
		journal_end(handle);
	}
	ext4_inode_put(inode);
	testvol_unmount_check(vol, fake);
	fake_free(fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("ext4: memory bounds");
	TCase *tests = unit_case(suite, "memory", 120);

	unit_test(tests, idle_maps_go_first);
	unit_test(tests, used_maps_have_a_limit);
	unit_test(tests, map_of_a_begun_inode_stays);
	unit_loop(tests, ticker_gives_up_maps, 0, 2);
	unit_test(tests, readers_see_nothing_of_it);
	unit_test(tests, trim_leaves_few_bitmaps);
	unit_test(tests, bitmaps_come_and_go);
	unit_loop(tests, cancelled_with_other_bitmaps, 0, 3);
	return suite;
}
