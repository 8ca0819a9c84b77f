/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bounds of memory: extent maps beyond their budget are given up, those first that nobody needs;
 * who reads them meanwhile sees nothing of it. The same for images of block bitmaps.
 */
#include "kit/volume.h"

#include "base/counters.h"
#include "base/thread.h"
#include "ext4/data/map.h"
#include "ext4/volume/parts.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { FILES = 30, RUNS = 150, MAP_LEAST = RUNS * sizeof(struct x4_map_run) };

/* Files of RUNS runs each, of one block at every second place. */
static void make_files(struct x4_vol *v, struct x4_inode **i, unsigned n)
{
	for (unsigned k = 0; k < n; k++) {
		i[k] = testvol_tmpfile(v, S_IFREG | 0644);
		for (uint32_t l = 0; l < RUNS; l++)
			ck_assert_int_eq(testvol_fill(i[k], 2 * l, 1), 0);
	}
}

static void load_all(struct x4_inode **i, unsigned n)
{
	for (unsigned k = 0; k < n; k++) {
		x4_map_drop(i[k]);
		ck_assert_int_eq(x4_map_load(i[k]), 0);
		__atomic_store_n(&i[k]->data.map_used, false, __ATOMIC_RELAXED);
	}
	epoch_drain();
	ck_assert_uint_ge(x4_map_mem_used(), n * MAP_LEAST);
}

/* So that nobody but the test gives up maps. */
static void stop_ticker(struct x4_vol *v)
{
	fdio_mutex_lock(&v->volume.ticker_lock);
	v->volume.ticker_stop = true;
	pthread_cond_broadcast(&v->volume.ticker_cond);
	fdio_mutex_unlock(&v->volume.ticker_lock);
	pthread_join(v->volume.ticker, NULL);
	v->volume.ticker_on = false;
}

static unsigned with_map(struct x4_inode **i, unsigned n)
{
	unsigned have = 0;

	for (unsigned k = 0; k < n; k++)
		have += __atomic_load_n(&i[k]->data.map, __ATOMIC_RELAXED) != NULL;
	return have;
}

static void put_files(struct x4_vol *v, struct fake_dev *f, struct x4_inode **i)
{
	for (unsigned k = 0; k < FILES; k++)
		x4_iput(i[k]);
	testvol_unmount_check(v, f);
	fake_free(f);
}

/*
 * Closed files go before open ones, what was not looked at before the rest, and no more than is
 * too much.
 */
START_TEST(idle_maps_go_first)
{
	struct fake_dev *f = testvol_shape(2);
	struct x4_vol *v = testvol_mount(f);
	struct x4_inode *i[FILES];
	struct x4_ext x;

	stop_ticker(v);
	make_files(v, i, FILES);
	for (unsigned k = 0; k < FILES / 2; k++)
		x4_opened(i[k], 1);
	load_all(i, FILES);
	v->data.map_budget = x4_map_mem_used();
	ck_assert(x4_maps_shrink(v));
	ck_assert_uint_eq(with_map(i, FILES), FILES);
	/* Three quarters of two thirds are the open ones: no open one has to go. */
	v->data.map_budget -= v->data.map_budget / 3;
	ck_assert(x4_maps_shrink(v));
	ck_assert_uint_le(x4_map_mem_used(), v->data.map_budget);
	ck_assert_uint_eq(with_map(i, FILES / 2), FILES / 2);
	ck_assert_uint_lt(with_map(i + FILES / 2, FILES / 2), FILES / 2);
	/* Of open ones those that somebody reads stay. */
	load_all(i, FILES);
	v->data.map_budget = x4_map_mem_used() / 3;
	ck_assert_int_eq(x4_map_lookup(i[3], 0, &x), 0);
	ck_assert_int_eq(x4_map_lookup(i[4], 0, &x), 0);
	ck_assert(x4_maps_shrink(v));
	ck_assert_uint_eq(with_map(i + FILES / 2, FILES / 2), 0);
	ck_assert_ptr_nonnull(i[3]->data.map);
	ck_assert_ptr_nonnull(i[4]->data.map);
	ck_assert_int_eq(x4_map_lookup_load(i[0], 2, &x), 0);
	ck_assert_uint_eq(x.state, X4_EXT_WRITTEN);
	for (unsigned k = 0; k < FILES / 2; k++)
		x4_opened(i[k], -1);
	put_files(v, f, i);
}
END_TEST

/*
 * All are in use: up to twice the budget that is how it is, beyond it they go, but for the newest.
 */
START_TEST(used_maps_have_a_limit)
{
	struct fake_dev *f = testvol_shape(2);
	struct x4_vol *v = testvol_mount(f);
	struct x4_inode *i[FILES];
	struct x4_ext x;

	stop_ticker(v);
	make_files(v, i, FILES);
	for (unsigned k = 0; k < FILES; k++)
		x4_opened(i[k], 1);
	load_all(i, FILES);
	for (unsigned k = 0; k < FILES; k++)
		ck_assert_int_eq(x4_map_lookup(i[k], 0, &x), 0);
	v->data.map_budget = x4_map_mem_used() / 3 * 2;
	ck_assert(!x4_maps_shrink(v));
	ck_assert_uint_eq(with_map(i, FILES), FILES);
	for (unsigned k = 0; k < FILES; k++)
		ck_assert_int_eq(x4_map_lookup(i[k], 0, &x), 0);
	v->data.map_budget = 64;
	ck_assert(!x4_maps_shrink(v));
	ck_assert_uint_eq(with_map(i, FILES), 1);
	ck_assert_ptr_nonnull(i[FILES - 1]->data.map);
	ck_assert_uint_lt(x4_map_mem_used(), 2 * (MAP_LEAST + 1024));
	for (unsigned k = 0; k < FILES; k++)
		x4_opened(i[k], -1);
	put_files(v, f, i);
}
END_TEST

/* With a link, so that a mount leaves it alone; no directory has it. */
static void keep_file(struct x4_inode *i)
{
	struct jnl_handle *h;

	ck_assert_int_eq(jnl_begin(i->vol->jnl, X4_CREDITS_INODE + X4_CREDITS_ORPHAN, &h), 0);
	ck_assert_int_eq(x4_inode_begin(h, i), 0);
	x4_raw_set_nlink(i, 1);
	ck_assert_int_eq(x4_orphan_del(h, i), 0);
	ck_assert_int_eq(x4_inode_dirty(h, i, true), 0);
	jnl_end(h);
}

/* Loading beyond the budget is enough: the ticker comes, on a read-only mount too. */
START_TEST(ticker_gives_up_maps)
{
	struct fake_dev *f = testvol_shape(2);
	struct x4_options opt = testvol_options();
	struct x4_vol *v = testvol_mount(f);
	uint32_t ino[FILES];
	struct x4_inode *i[FILES];

	make_files(v, i, FILES);
	for (unsigned k = 0; k < FILES; k++) {
		ino[k] = i[k]->ino;
		keep_file(i[k]);
	}
	if (_i) {
		ck_assert_int_eq(x4_vol_sync(v), 0);
		x4_vol_abandon(v);
		opt.read_only = true;
		v = testvol_mount_with(f, &opt);
		for (unsigned k = 0; k < FILES; k++)
			ck_assert_int_eq(x4_iget_special(v, ino[k], &i[k]), 0);
	}
	stop_ticker(v);
	v->data.map_budget = 10 * MAP_LEAST;
	v->volume.ticker_stop = false;
	ck_assert_int_eq(x4_ticker_start(v), 0);
	for (unsigned k = 0; k < FILES; k++)
		ck_assert_int_eq(x4_map_load(i[k]), 0);
	for (unsigned n = 0; x4_map_mem_used() > v->data.map_budget; n++) {
		ck_assert_uint_lt(n, 3000);
		unit_pause_ms(10);
	}
	ck_assert_uint_lt(with_map(i, FILES), FILES);
	x4_vol_abandon(v);
	epoch_drain();
	fake_free(f);
}
END_TEST

struct readers { struct x4_inode **i; bool stop; unsigned lookups; };

static void *reader(void *arg)
{
	struct readers *r = arg;
	unsigned seed = 1;

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		unsigned k = (unsigned)rand_r(&seed) % FILES;
		unsigned lblk = (unsigned)rand_r(&seed) % (2 * RUNS);
		struct x4_ext x;

		if (x4_map_lookup_load(r->i[k], lblk, &x) || (x.state == X4_EXT_HOLE) != lblk % 2)
			abort();
		__atomic_add_fetch(&r->lookups, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

START_TEST(readers_see_nothing_of_it)
{
	struct fake_dev *f = testvol_shape(2);
	struct x4_vol *v = testvol_mount(f);
	uint64_t before = fdio_counter_read(CTR_x4_map_evicted);
	struct x4_inode *i[FILES];
	struct readers r = { .i = i };
	pthread_t t[2];

	make_files(v, i, FILES);
	stop_ticker(v);
	v->data.map_budget = 64;
	for (unsigned k = 0; k < 2; k++)
		ck_assert_int_eq(thread_start(&t[k], "reader", reader, &r), 0);
	while (__atomic_load_n(&r.lookups, __ATOMIC_RELAXED) < 20000 ||
	       fdio_counter_read(CTR_x4_map_evicted) < before + 200)
		(void)x4_maps_shrink(v);
	__atomic_store_n(&r.stop, true, __ATOMIC_RELEASE);
	for (unsigned k = 0; k < 2; k++)
		pthread_join(t[k], NULL);
	put_files(v, f, i);
}
END_TEST

/* ---- bitmaps ---- */

static struct fake_dev *many_groups(void)
{
	struct fake_dev *f = fake_mkfs(48 << 20, "-t ext4 -b 1024 -g 256 -J size=4 "
						 "-O ^resize_inode");

	ck_assert_ptr_nonnull(f);
	return f;
}

/* As v->images, and as the counts say. */
static void check_images(struct x4_vol *v, unsigned most)
{
	unsigned n = 0;

	for (uint32_t g = 0; g < v->nr_groups; g++)
		n += v->alloc.groups[g].alloc != NULL;
	ck_assert_uint_eq(n, v->alloc.nr_images);
	ck_assert_uint_le(n, most);
	testvol_check_groups(v);
}

START_TEST(trim_leaves_few_bitmaps)
{
	struct fake_dev *f = many_groups();
	struct x4_vol *v = testvol_mount(f);
	uint64_t trimmed;

	ck_assert_uint_gt(v->nr_groups, 150);
	v->alloc.max_images = 10;
	ck_assert_int_eq(x4_vol_trim(v, 0, UINT64_MAX, 0, &trimmed), 0);
	ck_assert_uint_ge(trimmed, (v->alloc.free_blocks - v->nr_groups) << v->block_bits);
	check_images(v, 10);
	testvol_unmount_check(v, f);
	fake_free(f);
}
END_TEST

/*
 * What is reserved, freed or may be taken back stays, wherever others are loaded meanwhile;
 * nothing is given out twice.
 */
START_TEST(bitmaps_come_and_go)
{
	struct fake_dev *f = many_groups();
	struct x4_vol *v = testvol_mount(f);
	uint64_t blk[40], evicted = fdio_counter_read(CTR_x4_image_evicted);
	struct x4_inode *i = testvol_tmpfile(v, S_IFREG | 0644);
	unsigned seed = 7, held = 0;
	uint32_t n, lblk = 0;

	v->alloc.max_images = 3;
	for (unsigned round = 0; round < 1500; round++) {
		uint64_t goal = 1 + (unsigned)rand_r(&seed) % (v->nr_blocks - 2);

		switch (rand_r(&seed) % 4) {
		case 0:
			if (held < ARRAY_SIZE(blk))
				ck_assert_int_eq(x4_balloc_reserve(v, i, goal, 1, true,
								   &blk[held++], &n), 0);
			break;
		case 1:
			if (held)
				x4_balloc_unreserve(v, blk[--held], 1);
			break;
		case 2:
			x4_balloc_next(i, goal);
			ck_assert_int_eq(testvol_fill(i, lblk++, 1), 0);
			break;
		case 3:
			if (lblk > 40) {
				x4_inode_lock_excl(i);
				ck_assert_int_eq(x4_truncate(i, (lblk -= 30) << v->block_bits), 0);
				x4_inode_unlock(i);
			}
			break;
		}
		if (round % 100 == 0)
			check_images(v, v->nr_groups);
	}
	ck_assert_uint_gt(fdio_counter_read(CTR_x4_image_evicted), evicted + 100);
	while (held)
		x4_balloc_unreserve(v, blk[--held], 1);
	ck_assert_int_eq(x4_vol_sync(v), 0);
	ck_assert_int_eq(x4_vol_trim(v, 0, UINT64_MAX, 0, &(uint64_t){ 0 }), 0);
	check_images(v, 3);
	x4_iput(i);
	testvol_unmount_check(v, f);
	fake_free(f);
}
END_TEST

/* Allocated or freed in a handle that is cancelled after other bitmaps have come. */
START_TEST(cancelled_with_other_bitmaps)
{
	struct fake_dev *f = many_groups();
	struct x4_vol *v = testvol_mount(f);
	struct x4_inode *i = testvol_tmpfile(v, S_IFREG | 0644);
	struct jnl_handle *h;
	uint64_t blk, old;
	uint32_t n, g;

	ck_assert_int_eq(jnl_begin(v->jnl, 20, &h), 0);
	ck_assert_int_eq(x4_balloc(h, i, 0, 1, &old, &n), 0);
	jnl_end(h);
	ck_assert_int_eq(jnl_sync(v->jnl), 0);
	v->alloc.max_images = 2;
	ck_assert_int_eq(jnl_begin(v->jnl, 20, &h), 0);
	if (_i == 0)
		ck_assert_int_eq(x4_balloc(h, i, v->nr_blocks / 2, 1, &blk, &n), 0);
	else
		ck_assert_int_eq(x4_bfree(h, i, old, 1, false), 0);
	fdio_mutex_lock(&v->alloc.lock);
	for (g = 0; g < v->nr_groups; g++)
		ck_assert_int_eq(x4_group_load(v, g), 0);
	fdio_mutex_unlock(&v->alloc.lock);
	if (_i < 2)
		jnl_cancel(h);
	else
		jnl_end(h);
	testvol_check_groups(v);
	ck_assert_int_eq(jnl_sync(v->jnl), 0);
	testvol_check_groups(v);
	if (_i < 2) {
		ck_assert_int_eq(jnl_begin(v->jnl, 20, &h), 0);
		ck_assert_int_eq(x4_bfree(h, i, old, 1, false), 0);
		jnl_end(h);
	}
	x4_iput(i);
	testvol_unmount_check(v, f);
	fake_free(f);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: memory bounds");
	TCase *t = unit_case(s, "memory", 120);

	unit_test(t, idle_maps_go_first);
	unit_test(t, used_maps_have_a_limit);
	unit_loop(t, ticker_gives_up_maps, 0, 2);
	unit_test(t, readers_see_nothing_of_it);
	unit_test(t, trim_leaves_few_bitmaps);
	unit_test(t, bitmaps_come_and_go);
	unit_loop(t, cancelled_with_other_bitmaps, 0, 3);
	return s;
}
