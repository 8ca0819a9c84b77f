/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories made with intent: blocks that each look sound, but together lead a walk in circles or
 * hold more names than an array of the right size. Each costs an error, and not more work than an
 * honest directory of that size; the work is counted in metadata blocks looked at.
 */
#include "hostile_image.h"

#include "ext4/dir/index.h"
#include "ext4/volume/parts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Where block lblk of inode is on the device, in bytes. */
static uint64_t block_place(struct ext4_inode *inode, uint32_t lblk)
{
	uint64_t blk;

	must_eq(ext4_bmap(inode, lblk, &blk), 0);
	return blk << inode->vol->block_bits;
}

/* Makes directory dir in the root, with numbered names of len characters. Returns a reference. */
static struct ext4_inode *fill_dir(struct testvol *volume, const char *dir, unsigned names,
				   unsigned len)
{
	struct ext4_inode *made;
	char name[256];

	must_eq(name_create(volume->root, dir, S_IFDIR | 0755), 0);
	made = name_lookup(volume->root, dir);
	for (unsigned k = 0; k < names; k++) {
		memset(name, 'n', len);
		snprintf(name + len - 5, 6, "%05u", k);
		must_eq(name_create(made, name, S_IFREG | 0644), 0);
	}
	return made;
}

/*
 * Fills the leaf of size bytes with entries of three letters that name inode ino, without a gap.
 * same: all entries have one name. Returns how many there are.
 */
static unsigned full_leaf(uint8_t *leaf, uint32_t size, uint32_t ino, bool same)
{
	unsigned n = 0, off = 0, rec_len;

	for (; off < size; off += rec_len, n++) {
		char name[9];

		rec_len = size - off < 24 ? size - off : 12;
		memset(leaf + off, 0, rec_len);
		memcpy(leaf + off, &ino, 4);
		leaf[off + 4] = (uint8_t)rec_len;
		leaf[off + 6] = 3;
		leaf[off + 7] = EXT2_FT_REG_FILE;
		snprintf(name, sizeof(name), "%03x", same ? 0xaaa : n);
		memcpy(leaf + off + 8, name, 3);
	}
	return n;
}

/*
 * Writes n entries into the index block whose entries are at off. The first entry has no hash, the
 * others have the given one; the blocks they name are first, first + step, first + 2 * step ...
 */
static void poke_index(struct testvol *volume, uint64_t off, unsigned n, uint32_t hash,
		       uint32_t first, uint32_t step)
{
	poke16(volume, off + 2, (uint16_t)n);
	for (unsigned k = 0; k < n; k++) {
		if (k)
			poke32(volume, off + 8 * k, hash);
		poke32(volume, off + 8 * k + 4, first + k * step);
	}
}

/* Entries seen by ext4_readdir: nr so far, of at most stop; next is where to go on. */
struct count { unsigned nr, stop; uint64_t next; };

static bool counted(void *arg, const struct ext4_dirent *entry)
{
	struct count *count = arg;

	count->next = entry->next_cookie;
	return ++count->nr < count->stop;
}

/* Lists dir to its end, as readdir(3) does, in as many calls as it takes. 0 or -errno. */
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

/*
 * An index that names one full leaf 120 times: a listing stops with an error before it has more
 * names than a directory of that size can have.
 */
START_TEST(index_names_a_leaf_again)
{
	struct testvol volume = { 0 };
	uint8_t leaf[1024];
	struct ext4_inode *dir;
	struct count count;
	uint64_t root, first;

	testvol_make(&volume, SMALL_SIZE, "-b 1024 " PLAIN);
	dir = fill_dir(&volume, "h", 120, 5);
	must(dir_is_indexed(dir) && dir_nr_blocks(dir) < 6);
	full_leaf(leaf, sizeof(leaf), ext4_inode_ino(dir), false);
	root = block_place(dir, 0);
	first = block_place(dir, 1);
	put_and_close(&volume, dir);
	poke(&volume, leaf, sizeof(leaf), first);
	poke_index(&volume, root + 32, 120, 1, 1, 0);
	testvol_open(&volume);
	dir = name_lookup(volume.root, "h");
	must_eq(list(dir, &count), -EUCLEAN);
	must_eq(count.nr, 2); /* "." and ".." */
	ext4_inode_put(dir);
	end_damaged(&volume);
}
END_TEST

/*
 * An index of three levels whose full nodes each name a single child, so that there are two million
 * ways to one leaf. Lookup and listing end with an error, and do not take all the ways.
 */
START_TEST(index_leads_round_in_circles)
{
	uint32_t hash, minor;
	struct testvol volume = { 0 };
	uint8_t leaf[1024], node[1024] = { 0 };
	struct ext4_inode *dir, *file;
	uint64_t place[4], inode, before;
	struct count count;

	testvol_make(&volume, SMALL_SIZE, "-b 1024 " PLAIN "-O large_dir");
	dir = fill_dir(&volume, "h", 300, 5);
	must(dir_is_indexed(dir) && dir_nr_blocks(dir) > 4);
	for (unsigned k = 0; k < 4; k++)
		place[k] = block_place(dir, k);
	inode = inode_place(volume.vol, ext4_inode_ino(dir));
	full_leaf(leaf, sizeof(leaf), ext4_inode_ino(dir), false);
	dir_index_hash(volume.vol, dir_index_default_version(volume.vol), "zzz", 3, &hash, &minor);
	put_and_close(&volume, dir);
	memcpy(node + 4, (uint16_t[]){ 1024 }, 2);
	memcpy(node + 8, (uint16_t[]){ 127 }, 2);
	poke(&volume, node, sizeof(node), place[1]);
	poke(&volume, node, sizeof(node), place[2]);
	poke(&volume, leaf, sizeof(leaf), place[3]);
	poke(&volume, (uint8_t[]){ 2 }, 1, place[0] + 30);
	poke_index(&volume, place[0] + 32, 124, hash | 1, 1, 0);
	poke_index(&volume, place[1] + 8, 127, hash | 1, 2, 0);
	poke_index(&volume, place[2] + 8, 127, hash | 1, 3, 0);
	/* A size that allows as many blocks. */
	poke32(&volume, inode + INODE_FIELD(i_size), 0xfffffc00);
	poke32(&volume, inode + INODE_FIELD(i_size_high), 0x3f);
	testvol_open(&volume);
	dir = name_lookup(volume.root, "h");
	before = blocks_looked_at();
	must_eq(ext4_lookup(dir, "zzz", 3, &file), -EUCLEAN);
	must_eq(list(dir, &count), -EUCLEAN);
	ck_assert_uint_lt(blocks_looked_at() - before, 1000);
	ext4_inode_put(dir);
	end_damaged(&volume);
}
END_TEST

/*
 * One name in every entry of a hundred leaves: all have the same hash, so that no cookie tells them
 * apart. A listing ends all the same.
 */
START_TEST(listing_of_equal_names_ends)
{
	uint32_t hash, minor;
	struct testvol volume = { 0 };
	uint8_t leaf[2048];
	struct ext4_inode *dir;
	struct count count;
	uint64_t place[121];

	testvol_make(&volume, SMALL_SIZE, "-b 2048 " PLAIN);
	dir = fill_dir(&volume, "h", 1000, 250);
	must(dir_is_indexed(dir) && dir_nr_blocks(dir) > ARRAY_SIZE(place));
	for (unsigned k = 0; k < ARRAY_SIZE(place); k++)
		place[k] = block_place(dir, k);
	dir_index_hash(volume.vol, dir_index_default_version(volume.vol), "aaa", 3, &hash, &minor);
	full_leaf(leaf, sizeof(leaf), ext4_inode_ino(dir), true);
	put_and_close(&volume, dir);
	for (unsigned k = 1; k < ARRAY_SIZE(place); k++)
		poke(&volume, leaf, sizeof(leaf), place[k]);
	poke_index(&volume, place[0] + 32, ARRAY_SIZE(place) - 1, hash | 1, 1, 1);
	testvol_open(&volume);
	dir = name_lookup(volume.root, "h");
	must_eq(list(dir, &count), 0);
	ck_assert_uint_lt(count.nr, count.stop);
	ext4_inode_put(dir);
	end_damaged(&volume);
}
END_TEST

/* The processor time of this thread. */
static uint64_t cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Nanoseconds of a lookup of a name that is not in dir. */
static uint64_t cost_of_lookup(struct testvol *volume, const char *dir)
{
	struct ext4_inode *inode = name_lookup(volume->root, dir);
	uint64_t begun = cpu_ns();

	must_eq(name_ino(inode, "zzz"), -ENOENT);
	begun = cpu_ns() - begun;
	ext4_inode_put(inode);
	return begun;
}

/*
 * A directory without an index, of 1500 blocks that all hold the same names. The first lookup makes
 * the table of names; that costs about as much as for different names, so it is not quadratic.
 */
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
			place[n][k] = block_place(dir, k);
		ino = ext4_inode_ino(dir);
		ext4_inode_put(dir);
	}
	testvol_close(&volume);
	for (unsigned n = 0; n < 2; n++)
		for (unsigned k = 1; k < BLOCKS; k++) {
			unsigned names = full_leaf(leaf, sizeof(leaf), ino, false);

			/* In the second directory: as many names, all different. */
			for (unsigned e = 0; n && e < names; e++) {
				char own[9];

				snprintf(own, sizeof(own), "%04x", k * names + e);
				memcpy(leaf + 12 * e + 8, own, 4);
				leaf[12 * e + 6] = 4;
			}
			poke(&volume, leaf, sizeof(leaf), place[n][k]);
		}
	testvol_open(&volume);
	for (unsigned n = 0; n < 2; n++)
		cost[n] = cost_of_lookup(&volume, name[n]);
	ck_assert_msg(cost[0] < 4 * cost[1], "%llu us for equal names, %llu for others",
		      (unsigned long long)cost[0] / 1000, (unsigned long long)cost[1] / 1000);
	end_damaged(&volume);
}
END_TEST

/*
 * The tables of names of all directories share one budget. A directory that gets none is searched
 * block by block, with the same results.
 */
START_TEST(tables_of_names_are_bounded)
{
	static const char *const name[2] = { "first", "second" };
	struct testvol volume = { 0 };
	struct ext4_inode *dir[2];

	testvol_make(&volume, SMALL_SIZE, "-b 1024 -N 4000 " PLAIN "-O ^dir_index");
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

/*
 * ".." of a, b and d leads to c, and that of c to d. A rename from a to b, which walks up while it
 * holds the lock of renames, finds the circle after a few steps and fails.
 */
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
		place[k] = block_place(dir[k], 0);
		ino[k] = ext4_inode_ino(dir[k]);
		ext4_inode_put(dir[k]);
	}
	testvol_close(&volume);
	for (unsigned k = 0; k < 4; k++)
		poke32(&volume, place[k] + 12, ino[up[k] - 'a']);
	testvol_open(&volume);
	dir[0] = name_lookup(volume.root, "a");
	dir[1] = name_lookup(volume.root, "b");
	before = blocks_looked_at();
	must_eq(name_rename(dir[0], "00000", dir[1], "f", 0), -EUCLEAN);
	ck_assert_uint_lt(blocks_looked_at() - before, 100);
	ext4_inode_put(dir[0]);
	ext4_inode_put(dir[1]);
	end_damaged(&volume);
}
END_TEST

/* Directories nested 3000 deep are no circle: the rename from there to the root succeeds. */
START_TEST(parents_a_long_way_up)
{
	struct testvol volume = { 0 };
	struct ext4_inode *dir, *next;

	testvol_make(&volume, SMALL_SIZE, "-b 1024 -I 128 -N 4000 " PLAIN);
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

Suite *unit_suite(void)
{
	Suite *suite = suite_create("ext4: hostile directories");
	TCase *tests = unit_case(suite, "images", 120);

	unit_test(tests, index_names_a_leaf_again);
	unit_test(tests, index_leads_round_in_circles);
	unit_test(tests, listing_of_equal_names_ends);
	unit_test(tests, equal_blocks_without_index);
	unit_test(tests, tables_of_names_are_bounded);
	unit_test(tests, parents_in_a_circle);
	unit_test(tests, parents_a_long_way_up);
	return suite;
}
