/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images that somebody made with intent: structures that each look sound and together lead a walk
 * round in circles, fill an array beyond its end, or give away what is in use. Each must cost an
 * error, and not more work than an honest image of that size; the work is counted in metadata
 * blocks looked at.
 */
#include "base/counters.h"
#include "kit/names.h"
#include "ext4/data/map.h"
#include "ext4/dir/index.h"
#include "ext4/volume/parts.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SMALL (16u << 20)
#define PLAIN "-O ^metadata_csum,^64bit,^uninit_bg "

static void peek(struct testvol *volume, void *buf, size_t len, uint64_t off)
{
	fake_peek(volume->fake, buf, len, off);
}

static void poke(struct testvol *volume, const void *buf, size_t len, uint64_t off)
{
	fake_poke(volume->fake, buf, len, off);
}

static void poke16(struct testvol *volume, uint64_t off, uint16_t v) { poke(volume, &v, 2, off); }
static void poke32(struct testvol *volume, uint64_t off, uint32_t v) { poke(volume, &v, 4, off); }

static uint64_t blocks_read(void)
{
	return fdio_counter_read(COUNTER_journal_cache_hit) +
	       fdio_counter_read(COUNTER_journal_cache_miss);
}

/* Where block lblk of inode is on the device, in bytes. */
static uint64_t at(struct ext4_inode *inode, uint32_t lblk)
{
	uint64_t blk;

	must_eq(ext4_bmap(inode, lblk, &blk), 0);
	return blk << inode->vol->block_bits;
}

static uint64_t inode_at(struct ext4_vol *vol, uint32_t ino)
{
	uint32_t off;
	uint64_t blk = ext4_itable_place(vol, ino, &off);

	return (blk << vol->block_bits) + off;
}

/* Damage is found by now: not testvol_close. */
static void end(struct testvol *volume)
{
	ext4_inode_put(volume->root);
	(void)ext4_vol_close(volume->vol);
	fake_free(volume->fake);
}

static struct ext4_inode *fill_dir(struct testvol *volume, const char *dir, unsigned names,
				   unsigned len)
{
	struct ext4_inode *d;
	char name[256];

	must_eq(name_create(volume->root, dir, S_IFDIR | 0755), 0);
	d = name_lookup(volume->root, dir);
	for (unsigned k = 0; k < names; k++) {
		memset(name, 'n', len);
		snprintf(name + len - 5, 6, "%05u", k);
		must_eq(name_create(d, name, S_IFREG | 0644), 0);
	}
	return d;
}

/* A leaf without a gap, of names of three letters: all different, or all the same. How many. */
static unsigned full_leaf(uint8_t *b, uint32_t bs, uint32_t ino, bool same)
{
	unsigned n = 0, off = 0, rec;

	for (; off < bs; off += rec, n++) {
		char name[9];

		rec = bs - off < 24 ? bs - off : 12;
		memset(b + off, 0, rec);
		memcpy(b + off, &ino, 4);
		b[off + 4] = (uint8_t)rec;
		b[off + 6] = 3;
		b[off + 7] = EXT2_FT_REG_FILE;
		snprintf(name, sizeof name, "%03x", same ? 0xaaa : n);
		memcpy(b + off + 8, name, 3);
	}
	return n;
}

/* The pairs of the index block at off: n of them, of hash and the block that next says. */
static void pairs(struct testvol *volume, uint64_t off, unsigned n, uint32_t hash, uint32_t first,
		  uint32_t step)
{
	poke16(volume, off + 2, (uint16_t)n);
	for (unsigned k = 0; k < n; k++) {
		if (k)
			poke32(volume, off + 8 * k, hash);
		poke32(volume, off + 8 * k + 4, first + k * step);
	}
}

struct count { unsigned nr, stop; uint64_t next; };

static bool counted(void *arg, const struct ext4_dirent *entry)
{
	struct count *count = arg;

	count->next = entry->next_cookie;
	return ++count->nr < count->stop;
}

/* As readdir(3) does: to the end or an error. */
static int list(struct ext4_inode *dir, struct count *count)
{
	unsigned before;
	int err;

	*count = (struct count){ .stop = 100000 };
	do {
		before = count->nr;
		err = ext4_readdir(dir, count->next, counted, count);
	} while (!err && count->nr > before && count->nr < count->stop);
	return err;
}

/* ---- directories ---- */

/* Closes, and what the device holds then is known. */
static void settle(struct testvol *volume, struct ext4_inode *inode)
{
	ext4_inode_put(inode);
	testvol_close(volume);
}

/* The names of all visits to one leaf were written behind the end of an array made for the
 * directory's size. */
START_TEST(index_names_a_leaf_again)
{
	struct testvol volume = { 0 };
	uint8_t leaf[1024];
	struct ext4_inode *dir;
	struct count count;
	uint64_t root, first;

	testvol_make(&volume, SMALL, "-b 1024 " PLAIN);
	dir = fill_dir(&volume, "h", 120, 5);
	must(dir_is_indexed(dir) && dir_nr_blocks(dir) < 6);
	full_leaf(leaf, sizeof leaf, ext4_inode_ino(dir), false);
	root = at(dir, 0);
	first = at(dir, 1);
	settle(&volume, dir);
	poke(&volume, leaf, sizeof leaf, first);
	pairs(&volume, root + 32, 120, 1, 1, 0);
	testvol_open(&volume);
	dir = name_lookup(volume.root, "h");
	must_eq(list(dir, &count), -EUCLEAN);
	must_eq(count.nr, 2); /* "." and ".." */
	ext4_inode_put(dir);
	end(&volume);
}
END_TEST

/* An index of three levels, each node of which is full and names one child throughout, and a leaf 2
 * million times. */
START_TEST(index_leads_round_in_circles)
{
	uint32_t hash, minor;
	struct testvol volume = { 0 };
	uint8_t leaf[1024], node[1024] = { 0 };
	struct ext4_inode *dir, *file;
	uint64_t place[4], inode, before;
	struct count count;

	testvol_make(&volume, SMALL, "-b 1024 " PLAIN "-O large_dir");
	dir = fill_dir(&volume, "h", 300, 5);
	must(dir_is_indexed(dir) && dir_nr_blocks(dir) > 4);
	for (unsigned k = 0; k < 4; k++)
		place[k] = at(dir, k);
	inode = inode_at(volume.vol, ext4_inode_ino(dir));
	full_leaf(leaf, sizeof leaf, ext4_inode_ino(dir), false);
	dir_index_hash(volume.vol, dir_index_default_version(volume.vol), "zzz", 3, &hash, &minor);
	settle(&volume, dir);
	memcpy(node + 4, (uint16_t[]){ 1024 }, 2);
	memcpy(node + 8, (uint16_t[]){ 127 }, 2);
	poke(&volume, node, sizeof node, place[1]);
	poke(&volume, node, sizeof node, place[2]);
	poke(&volume, leaf, sizeof leaf, place[3]);
	poke(&volume, (uint8_t[]){ 2 }, 1, place[0] + 30);
	pairs(&volume, place[0] + 32, 124, hash | 1, 1, 0);
	pairs(&volume, place[1] + 8, 127, hash | 1, 2, 0);
	pairs(&volume, place[2] + 8, 127, hash | 1, 3, 0);
	poke32(&volume, inode + 4, 0xfffffc00); /* a size that allows it */
	poke32(&volume, inode + 0x6c, 0x3f);
	testvol_open(&volume);
	dir = name_lookup(volume.root, "h");
	before = blocks_read();
	must_eq(ext4_lookup(dir, "zzz", 3, &file), -EUCLEAN);
	must_eq(list(dir, &count), -EUCLEAN);
	ck_assert_uint_lt(blocks_read() - before, 1000);
	ext4_inode_put(dir);
	end(&volume);
}
END_TEST

/* The same name in every place of a hundred leaves: no position tells them apart, and a listing
 * began with the first again and again. */
START_TEST(listing_of_equal_names_ends)
{
	uint32_t hash, minor;
	struct testvol volume = { 0 };
	uint8_t leaf[2048];
	struct ext4_inode *dir;
	struct count count;
	uint64_t place[121];

	testvol_make(&volume, SMALL, "-b 2048 " PLAIN);
	dir = fill_dir(&volume, "h", 1000, 250);
	must(dir_is_indexed(dir) && dir_nr_blocks(dir) > ARRAY_SIZE(place));
	for (unsigned k = 0; k < ARRAY_SIZE(place); k++)
		place[k] = at(dir, k);
	dir_index_hash(volume.vol, dir_index_default_version(volume.vol), "aaa", 3, &hash, &minor);
	full_leaf(leaf, sizeof leaf, ext4_inode_ino(dir), true);
	settle(&volume, dir);
	for (unsigned k = 1; k < ARRAY_SIZE(place); k++)
		poke(&volume, leaf, sizeof leaf, place[k]);
	pairs(&volume, place[0] + 32, ARRAY_SIZE(place) - 1, hash | 1, 1, 1);
	testvol_open(&volume);
	dir = name_lookup(volume.root, "h");
	must_eq(list(dir, &count), 0);
	ck_assert_uint_lt(count.nr, count.stop);
	ext4_inode_put(dir);
	end(&volume);
}
END_TEST

/* Of this thread. */
static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t cost_of_lookup(struct testvol *volume, const char *dir)
{
	struct ext4_inode *d = name_lookup(volume->root, dir);
	uint64_t begun = cpu_ns();

	must_eq(name_ino(d, "zzz"), -ENOENT);
	begun = cpu_ns() - begun;
	ext4_inode_put(d);
	return begun;
}

/* A directory without an index, of 1500 blocks that all hold the same names: the table of where
 * they are took quadratic time. */
START_TEST(equal_blocks_without_index)
{
	enum { BLOCKS = 1500 };
	static uint64_t place[2][BLOCKS];
	static const char *const name[2] = { "equal", "different" };
	struct testvol volume = { 0 };
	uint8_t leaf[1024];
	uint64_t cost[2];
	uint32_t ino = 0;

	testvol_make(&volume, 64u << 20, "-b 1024 -N 12000 " PLAIN "-O ^dir_index");
	for (unsigned n = 0; n < 2; n++) {
		struct ext4_inode *dir = fill_dir(&volume, name[n], 3 * BLOCKS + 2, 250);

		must(dir_nr_blocks(dir) > BLOCKS);
		for (unsigned k = 0; k < BLOCKS; k++)
			place[n][k] = at(dir, k);
		ino = ext4_inode_ino(dir);
		ext4_inode_put(dir);
	}
	testvol_close(&volume);
	for (unsigned n = 0; n < 2; n++)
		for (unsigned k = 1; k < BLOCKS; k++) {
			unsigned names = full_leaf(leaf, sizeof leaf, ino, false);

			/* The same number of names, all of their own. */
			for (unsigned e = 0; n && e < names; e++) {
				char own[9];

				snprintf(own, sizeof own, "%04x", k * names + e);
				memcpy(leaf + 12 * e + 8, own, 4);
				leaf[12 * e + 6] = 4;
			}
			poke(&volume, leaf, sizeof leaf, place[n][k]);
		}
	testvol_open(&volume);
	for (unsigned n = 0; n < 2; n++)
		cost[n] = cost_of_lookup(&volume, name[n]);
	ck_assert_msg(cost[0] < 4 * cost[1], "%llu us for equal names, %llu for others",
		      (unsigned long long)cost[0] / 1000, (unsigned long long)cost[1] / 1000);
	end(&volume);
}
END_TEST

/* Tables of where names are have a budget together; a directory that gets none is searched. */
START_TEST(tables_of_names_are_bounded)
{
	static const char *const name[2] = { "first", "second" };
	struct testvol volume = { 0 };
	struct ext4_inode *dir[2];

	testvol_make(&volume, SMALL, "-b 1024 -N 4000 " PLAIN "-O ^dir_index");
	volume.vol->dir.budget = 3000;
	for (unsigned n = 0; n < 2; n++) {
		dir[n] = fill_dir(&volume, name[n], 1500, 5);
		must(name_ino(dir[n], "00000") > 0);
		must(name_ino(dir[n], "01499") > 0);
		must_eq(name_ino(dir[n], "01500"), -ENOENT);
	}
	must_eq(volume.vol->dir.places, 2048);
	must(dir[0]->dir.table && !dir[1]->dir.table);
	must_eq(name_unlink(dir[1], "01000"), 0);
	must_eq(name_ino(dir[1], "01000"), -ENOENT);
	ext4_inode_put(dir[0]);
	ext4_inode_put(dir[1]);
	testvol_done(&volume);
}
END_TEST

/* ".." of a and b leads to c, of c to dir, of dir to c: as many steps as there are inodes, with the
 * lock for renames held. */
START_TEST(parents_in_a_circle)
{
	static const char names[] = "abcd", up[] = "ccdc";
	struct testvol volume = { 0 };
	struct ext4_inode *dir[4];
	uint64_t place[4], before;
	uint32_t ino[4];

	testvol_make(&volume, 32u << 20, "-b 1024 -I 128 -N 40000 " PLAIN);
	for (unsigned k = 0; k < 4; k++) {
		dir[k] = fill_dir(&volume, (char[]){ names[k], 0 }, 1, 5);
		place[k] = at(dir[k], 0);
		ino[k] = ext4_inode_ino(dir[k]);
		ext4_inode_put(dir[k]);
	}
	testvol_close(&volume);
	for (unsigned k = 0; k < 4; k++)
		poke32(&volume, place[k] + 12, ino[up[k] - 'a']);
	testvol_open(&volume);
	dir[0] = name_lookup(volume.root, "a");
	dir[1] = name_lookup(volume.root, "b");
	before = blocks_read();
	must_eq(name_rename(dir[0], "00000", dir[1], "f", 0), -EUCLEAN);
	ck_assert_uint_lt(blocks_read() - before, 100);
	ext4_inode_put(dir[0]);
	ext4_inode_put(dir[1]);
	end(&volume);
}
END_TEST

/* A way up of some thousand steps is no circle. */
START_TEST(parents_a_long_way_up)
{
	struct testvol volume = { 0 };
	struct ext4_inode *dir, *next;

	testvol_make(&volume, SMALL, "-b 1024 -I 128 -N 4000 " PLAIN);
	dir = ext4_inode_ref(volume.root);
	for (unsigned k = 0; k < 3000; k++) {
		must_eq(name_create(dir, "d", S_IFDIR | 0755), 0);
		next = name_lookup(dir, "d");
		ext4_inode_put(dir);
		dir = next;
	}
	must_eq(name_create(dir, "f", S_IFREG | 0644), 0);
	must_eq(name_rename(dir, "f", volume.root, "f", 0), 0);
	ext4_inode_put(dir);
	testvol_done(&volume);
}
END_TEST

/* ---- orphans ---- */

static size_t least, peak;

static void sample(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
		   bool after)
{
	size_t now = mallinfo2().uordblks;

	(void)arg, (void)kind, (void)off, (void)len, (void)flags, (void)after;
	least = least ? least : now;
	peak = FDIO_MAX(peak, now);
}

/* As many orphans as there are inodes: all of them were in memory before the first was deleted. */
START_TEST(orphans_without_number)
{
	enum { NR = 30000 };
	static uint8_t raw[128], map[1024];
	static uint64_t place[NR], bitmap[64];
	struct testvol volume = { 0 };
	uint32_t first, ipg, groups;

	testvol_make(&volume, 32u << 20, "-b 1024 -I 128 -N 32768 " PLAIN);
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	first = (uint32_t)name_ino(volume.root, "f") + 1;
	peek(&volume, raw, sizeof raw, inode_at(volume.vol, first - 1));
	for (uint32_t k = 0; k < NR; k++)
		place[k] = inode_at(volume.vol, first + k);
	ipg = volume.vol->inodes_per_group;
	groups = volume.vol->nr_groups;
	for (uint32_t group = 0; group < groups; group++)
		bitmap[group] = (uint64_t)ext2fs_inode_bitmap_loc(volume.vol->fs, group) << 10;
	testvol_close(&volume);
	peek(&volume, raw, sizeof raw, place[0] - sizeof raw);
	raw[0x1a] = raw[0x1b] = 0;
	for (uint32_t k = 0; k < NR; k++) {
		uint32_t next = k + 1 < NR ? first + k + 1 : 0;

		memcpy(raw + 0x14, &next, 4);
		poke(&volume, raw, sizeof raw, place[k]);
	}
	for (uint32_t group = 0; group < groups; group++) {
		memset(map, 0xff, sizeof map);
		poke(&volume, map, ipg / 8, bitmap[group]);
		poke16(&volume, 2048 + 32 * group + 0xe, 0);
	}
	poke32(&volume, 1024 + 0xe8, first);
	fake_set_hook(volume.fake, sample, NULL);
	testvol_open(&volume);
	fake_set_hook(volume.fake, NULL, NULL);
	must_eq(volume.vol->inode.nr_orphans, 0);
	ck_assert_uint_eq(ext4_inode_in_use(volume.vol, first + NR - 1), 0);
	ck_assert_uint_lt(peak - least, 16u << 20);
	end(&volume);
}
END_TEST

/* ---- the orphan file ---- */

/* One of more blocks than any tool makes, which may be few blocks again and again: all of it is
 * looked at before the mount is there. */
START_TEST(orphan_file_too_large)
{
	enum { BLOCKS = 9000 };
	struct testvol volume = { 0 };
	struct ext2_super_block sb;
	uint64_t inode, before;
	uint8_t block[1024] = { 0 };
	struct ext4_inode *file, *o;
	struct ext4_extent extent;
	struct ext4_reservation reservation;

	testvol_make(&volume, 32u << 20, "-b 1024 " PLAIN "-O orphan_file");
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	file = name_lookup(volume.root, "f");
	ext4_inode_lock_exclusive(file);
	must_eq(ext4_map_load(file), 0);
	must_eq(ext4_reserve_holes(file, 0, BLOCKS, true, &reservation), 0);
	must_eq(ext4_insert(file, &reservation, 0, 0, (uint64_t)BLOCKS << 10), 0);
	ext4_reservation_free(&reservation);
	memcpy(block + 1016, (uint32_t[]){ 0x0b10ca04 }, 4);
	for (uint32_t l = 0; l < BLOCKS; l += extent.len) {
		must_eq(ext4_map_lookup(file, l, &extent), 0);
		for (uint32_t k = 0; k < extent.len; k++)
			poke(&volume, block, sizeof block, (extent.pblk + k) << 10);
	}
	ext4_inode_unlock(file);
	must_eq(ext4_inode_get_special(volume.vol, volume.vol->fs->super->s_orphan_file_inum, &o),
		0);
	inode = inode_at(volume.vol, o->ino);
	ext4_inode_put(o);
	/* The inode of file in place of the orphan file's. */
	must_eq(ext4_vol_sync(volume.vol), 0);
	{
		uint8_t raw[256];
		uint64_t from = inode_at(volume.vol, ext4_inode_ino(file));

		settle(&volume, file);
		peek(&volume, raw, sizeof raw, from);
		poke(&volume, raw, sizeof raw, inode);
	}
	peek(&volume, &sb, sizeof sb, 1024);
	sb.s_feature_ro_compat |= EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT;
	poke(&volume, &sb, sizeof sb, 1024);
	before = blocks_read();
	testvol_open(&volume);
	ck_assert_uint_lt(blocks_read() - before, 2000);
	ck_assert_uint_gt(fdio_counter_read(COUNTER_ext4_corrupt), 0);
	end(&volume);
}
END_TEST

/* ---- attributes ---- */

enum { CHAIN = 2000, STACK = 512 << 10 };

static void *unlink_and_close(void *arg)
{
	struct testvol *volume = arg;

	must_eq(name_unlink(volume->root, "f"), 0);
	end(volume);
	return NULL;
}

static void attr_block(struct testvol *volume, uint64_t off, uint32_t inum)
{
	uint8_t b[1024] = { 0 };

	memcpy(b, (uint32_t[]){ 0xea020000, 1, 1 }, 12);
	b[32] = b[33] = 1;
	memcpy(b + 36, &inum, 4);
	b[48] = 'a';
	poke(volume, b, sizeof b, off);
}

/* Values in inodes that have values in inodes of their own: each deletion began the next, and the
 * stack was not enough. */
START_TEST(values_that_have_values)
{
	struct testvol volume = { 0 };
	static uint64_t inode[CHAIN], block[CHAIN + 1];
	static uint32_t ino[CHAIN];
	uint64_t holder;
	struct ext4_inode *file, *p;
	pthread_attr_t attr;
	struct ext4_reservation reservation;
	struct ext4_extent extent;
	pthread_t th;
	char name[16];

	testvol_make(&volume, 32u << 20, "-b 1024 -I 256 -N 4000 " PLAIN "-O ea_inode");
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "blocks", S_IFREG | 0644), 0);
	file = name_lookup(volume.root, "f");
	holder = inode_at(volume.vol, ext4_inode_ino(file));
	ext4_inode_put(file);
	p = name_lookup(volume.root, "blocks");
	ext4_inode_lock_exclusive(p);
	must_eq(ext4_map_load(p), 0);
	must_eq(ext4_reserve_holes(p, 0, CHAIN + 1, true, &reservation), 0);
	must_eq(ext4_insert(p, &reservation, 0, 0, (CHAIN + 1) << 10), 0);
	ext4_reservation_free(&reservation);
	for (uint32_t k = 0; k <= CHAIN; k++) {
		must_eq(ext4_map_lookup(p, k, &extent), 0);
		block[k] = extent.pblk;
	}
	ext4_inode_unlock(p);
	for (unsigned k = 0; k < CHAIN; k++) {
		snprintf(name, sizeof name, "v%u", k);
		must_eq(name_create(volume.root, name, S_IFREG | 0600), 0);
		ino[k] = (uint32_t)name_ino(volume.root, name);
		inode[k] = inode_at(volume.vol, ino[k]);
	}
	settle(&volume, p);
	for (unsigned k = 0; k < CHAIN; k++) {
		poke32(&volume, inode[k] + 0x20, EXT4_EXTENTS_FL | EXT4_EA_INODE_FL);
		poke32(&volume, inode[k] + 0x24, 1);
		poke32(&volume, inode[k] + 0xc, 0);
		if (k + 1 < CHAIN) {
			poke32(&volume, inode[k] + 0x1c, 2);
			poke32(&volume, inode[k] + 0x68, (uint32_t)block[k]);
			attr_block(&volume, block[k] << 10, ino[k + 1]);
		}
	}
	attr_block(&volume, block[CHAIN] << 10, ino[0]);
	poke32(&volume, holder + 0x1c, 2);
	poke32(&volume, holder + 0x68, (uint32_t)block[CHAIN]);
	testvol_open(&volume);
	must_eq(pthread_attr_init(&attr), 0);
	must_eq(pthread_attr_setstacksize(&attr, STACK), 0);
	must_eq(pthread_create(&th, &attr, unlink_and_close, &volume), 0);
	must_eq(pthread_join(th, NULL), 0);
	ck_assert_uint_gt(fdio_counter_read(COUNTER_ext4_corrupt), 0);
	pthread_attr_destroy(&attr);
}
END_TEST

/* A value in an inode that was deleted: letting it go deleted it again, in a handle in a handle. */
START_TEST(value_in_a_deleted_inode)
{
	struct testvol volume = { 0 };
	struct ext4_inode *file;
	uint64_t holder;
	uint32_t gone, block;

	testvol_make(&volume, SMALL, "-b 1024 -I 128 " PLAIN "-O ea_inode");
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "gone", S_IFREG | 0644), 0);
	gone = (uint32_t)name_ino(volume.root, "gone");
	file = name_lookup(volume.root, "f");
	must_eq(ext4_xattr_set(file, "user.b", "value", 5, 0, 0), 0);
	must_eq(name_unlink(volume.root, "gone"), 0);
	holder = inode_at(volume.vol, ext4_inode_ino(file));
	settle(&volume, file);
	peek(&volume, &block, 4, holder + 0x68);
	attr_block(&volume, (uint64_t)block << 10, gone);
	testvol_open(&volume);
	file = name_lookup(volume.root, "f");
	must_eq(ext4_xattr_remove(file, "user.a"), -EUCLEAN);
	ext4_inode_put(file);
	end(&volume);
}
END_TEST

/* ---- allocation ---- */

enum { RUNS = 200, RUN = 3 };

static void map_runs(struct ext4_inode *inode)
{
	struct ext4_reservation reservation;

	ext4_inode_lock_exclusive(inode);
	must_eq(ext4_map_load(inode), 0);
	for (uint32_t k = 0; k < RUNS; k++) {
		must_eq(ext4_reserve_holes(inode, 2 * k * RUN, RUN, true, &reservation), 0);
		must_eq(ext4_insert(inode, &reservation, 0, 0, (uint64_t)(2 * k + 1) * RUN << 10),
			0);
		ext4_reservation_free(&reservation);
	}
	ext4_inode_unlock(inode);
}

/* A leaf of the extent tree that the next one lies right behind: its block, and the first run in
 * it. */
static uint64_t node_before_next(const struct ext4_inode *inode, uint32_t *ret_run)
{
	const uint8_t *root = (const uint8_t *)inode->raw->i_block;
	uint32_t idx[2][3];

	must_eq(root[6], 1);
	for (unsigned k = 1; k < root[2]; k++) {
		memcpy(idx, root + 12 * k, sizeof idx);
		if (idx[0][1] + 1 == idx[1][1]) {
			*ret_run = (idx[0][0] + 2 * RUN - 1) / (2 * RUN);
			return idx[0][1];
		}
	}
	ck_abort_msg("no two leaves side by side");
	return 0;
}

/* In the first group everything is in use but blk; in the second every other block that was free
 * is, so that no two lie together. */
static void lie(struct testvol *volume, uint64_t blk)
{
	uint8_t map[2][1024];
	uint16_t nr_free = 0;
	uint32_t bb[2];

	for (unsigned g = 0; g < 2; g++) {
		peek(volume, &bb[g], 4, 2048 + 32 * g);
		peek(volume, map[g], sizeof map[g], (uint64_t)bb[g] << 10);
	}
	memset(map[0], 0xff, sizeof map[0]);
	map[0][(blk - 1) / 8] &= (uint8_t)~(1u << ((blk - 1) % 8));
	for (uint32_t n = 0; n < 1023; n++) {
		map[1][n] |= 0x55;
		nr_free += (uint16_t)(8 - __builtin_popcount(map[1][n]));
	}
	map[1][1023] = 0xff;
	for (unsigned g = 0; g < 2; g++) {
		poke(volume, map[g], sizeof map[g], (uint64_t)bb[g] << 10);
		poke16(volume, 2048 + 32 * g + 0xc, g ? nr_free : 1);
	}
}

/* A leaf was split, and its sibling, free in the bitmap, was allocated and overwritten. */
START_TEST(tree_node_marked_free)
{
	struct testvol volume = { 0 };
	struct ext4_inode *file;
	uint32_t run, first;
	struct ext4_extent extent;
	uint64_t node;
	int err = 0;

	testvol_make(&volume, (16u << 20) + 1024, "-b 1024 -N 64 -J size=1 " PLAIN);
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	file = name_lookup(volume.root, "f");
	map_runs(file);
	node = node_before_next(file, &first);
	settle(&volume, file);
	lie(&volume, node + 1);
	testvol_open(&volume);
	file = name_lookup(volume.root, "f");
	ext4_inode_lock_exclusive(file);
	must_eq(ext4_map_load(file), 0);
	/* A hole in the middle of each run, until the leaf is full and must be split. */
	for (run = first; run < first + 4 && !err; run++)
		err = ext4_fallocate(file, EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE,
				 (uint64_t)(2 * run * RUN + 1) << 10, 1024, true);
	must(err == 0 || err == -EUCLEAN);
	ck_assert_uint_gt(fdio_counter_read(COUNTER_ext4_corrupt), 0);
	ext4_map_drop(file);
	must_eq(ext4_map_load(file), 0);
	for (uint32_t k = 0; k < RUNS * RUN; k++) {
		if (k / RUN >= first && k / RUN < run)
			continue;
		must_eq(ext4_map_lookup(file, k / RUN * 2 * RUN + k % RUN, &extent), 0);
		must_eq(extent.state, EXT4_EXTENT_WRITTEN);
	}
	ext4_inode_unlock(file);
	ext4_inode_put(file);
	end(&volume);
}
END_TEST

/*
 * A sparse file of 32 GiB that claims a group for each 8 KiB: refused before memory is taken for
 * them.
 */
START_TEST(groups_without_number)
{
	struct testvol volume = { 0 };
	struct ext2_super_block sb;
	const char *why;
	char msg[200];

	testvol_make(&volume, SMALL, PLAIN "-b 1024");
	testvol_close(&volume);
	peek(&volume, &sb, sizeof(sb), SUPERBLOCK_OFFSET);
	must_eq(ext4_features_check(&sb, "image", &why, FDIO_REASON(msg)), EXT4_SERVE_RW);
	sb.s_blocks_per_group = 8;
	sb.s_blocks_count = 32 << 20;
	must_eq(ext4_features_check(&sb, "image", &why, FDIO_REASON(msg)), EXT4_REFUSE);
	must(strstr(msg, "block groups"));
	testvol_open(&volume);
	testvol_done(&volume);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: hostile");
	TCase *tc = unit_case(s, "images", 120);

	unit_test(tc, index_names_a_leaf_again);
	unit_test(tc, index_leads_round_in_circles);
	unit_test(tc, listing_of_equal_names_ends);
	unit_test(tc, equal_blocks_without_index);
	unit_test(tc, tables_of_names_are_bounded);
	unit_test(tc, parents_in_a_circle);
	unit_test(tc, parents_a_long_way_up);
	unit_test(tc, orphans_without_number);
	unit_test(tc, orphan_file_too_large);
	unit_test(tc, values_that_have_values);
	unit_test(tc, value_in_a_deleted_inode);
	unit_test(tc, tree_node_marked_free);
	unit_test(tc, groups_without_number);
	return s;
}
