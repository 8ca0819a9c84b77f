/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inodes, bitmaps and superblocks made with intent: orphans without number, attribute values that
 * have values, blocks that are in use but marked free, millions of groups. Each costs an error, or
 * bounded work and memory; the work is counted in metadata blocks looked at.
 */
#include "hostile_image.h"

#include "base/counters.h"
#include "ext4/data/map.h"
#include "ext4/volume/parts.h"

#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* The least and the most memory in use, in bytes, at the requests of a mount. */
static size_t least, peak;

static void sample(void *arg, enum fake_kind kind, uint64_t off, uint64_t len, unsigned flags,
		   bool after)
{
#ifdef __GLIBC__
	size_t now = mallinfo2().uordblks;
#else
	size_t now = 1; /* nothing tells */
#endif

	(void)arg, (void)kind, (void)off, (void)len, (void)flags, (void)after;
	least = least ? least : now;
	peak = FDIO_MAX(peak, now);
}

/*
 * 30000 orphans, almost all inodes of the volume: they are deleted a few at a time, so that the
 * mount needs little memory.
 */
START_TEST(orphans_without_number)
{
	enum { NR = 30000 };
	static uint8_t raw[128], map[1024];
	static uint64_t place[NR], bitmap[64];
	struct testvol volume = { 0 };
	uint32_t first, per_group, groups;

	testvol_make(&volume, 32u << 20, "-b 1024 -I 128 -N 32768 " PLAIN);
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	first = (uint32_t)name_ino(volume.root, "f") + 1;
	peek(&volume, raw, sizeof(raw), inode_place(volume.vol, first - 1));
	for (uint32_t k = 0; k < NR; k++)
		place[k] = inode_place(volume.vol, first + k);
	per_group = volume.vol->inodes_per_group;
	groups = volume.vol->nr_groups;
	for (uint32_t group = 0; group < groups; group++)
		bitmap[group] = (uint64_t)ext2fs_inode_bitmap_loc(volume.vol->fs, group) << 10;
	testvol_close(&volume);
	peek(&volume, raw, sizeof(raw), place[0] - sizeof(raw));
	memset(raw + INODE_FIELD(i_links_count), 0, 2);
	for (uint32_t k = 0; k < NR; k++) {
		uint32_t next = k + 1 < NR ? first + k + 1 : 0;

		memcpy(raw + INODE_FIELD(i_dtime), &next, 4);
		poke(&volume, raw, sizeof(raw), place[k]);
	}
	for (uint32_t group = 0; group < groups; group++) {
		memset(map, 0xff, sizeof(map));
		poke(&volume, map, per_group / 8, bitmap[group]);
		poke16(&volume, group_place(group) + GROUP_FIELD(bg_free_inodes_count), 0);
	}
	poke32(&volume, SUPERBLOCK_OFFSET + offsetof(struct ext2_super_block, s_last_orphan),
	       first);
	fake_set_hook(volume.fake, sample, NULL);
	testvol_open(&volume);
	fake_set_hook(volume.fake, NULL, NULL);
	must_eq(volume.vol->inode.nr_orphans, 0);
	ck_assert_uint_eq(ext4_inode_in_use(volume.vol, first + NR - 1), 0);
	ck_assert_uint_lt(peak - least, 16u << 20);
	end_damaged(&volume);
}
END_TEST

/*
 * An orphan file of 9000 blocks, more than any tool makes. As a mount reads all of it, and the file
 * might be a few blocks mapped again and again, it is refused as damage before it is read.
 */
START_TEST(orphan_file_too_large)
{
	enum { BLOCKS = 9000 };
	struct testvol volume = { 0 };
	struct ext2_super_block sb;
	uint64_t place, from, before;
	uint8_t block[1024] = { 0 }, raw[256];
	struct ext4_inode *file, *orphan_file;
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
	memcpy(block + 1016, (uint32_t[]){ 0x0b10ca04 }, 4); /* the magic number at its end */
	for (uint32_t l = 0; l < BLOCKS; l += extent.len) {
		must_eq(ext4_map_lookup(file, l, &extent), 0);
		for (uint32_t k = 0; k < extent.len; k++)
			poke(&volume, block, sizeof(block), (extent.pblk + k) << 10);
	}
	ext4_inode_unlock(file);
	must_eq(ext4_inode_get_special(volume.vol, volume.vol->fs->super->s_orphan_file_inum,
				       &orphan_file),
		0);
	place = inode_place(volume.vol, orphan_file->ino);
	ext4_inode_put(orphan_file);
	must_eq(ext4_vol_sync(volume.vol), 0);
	/* The inode of file replaces that of the orphan file. */
	from = inode_place(volume.vol, ext4_inode_ino(file));
	put_and_close(&volume, file);
	peek(&volume, raw, sizeof(raw), from);
	poke(&volume, raw, sizeof(raw), place);
	peek(&volume, &sb, sizeof(sb), SUPERBLOCK_OFFSET);
	sb.s_feature_ro_compat |= EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT;
	poke(&volume, &sb, sizeof(sb), SUPERBLOCK_OFFSET);
	before = blocks_looked_at();
	testvol_open(&volume);
	ck_assert_uint_lt(blocks_looked_at() - before, 2000);
	ck_assert_uint_gt(fdio_counter_read(COUNTER_ext4_corrupt), 0);
	end_damaged(&volume);
}
END_TEST

enum { CHAIN = 2000, STACK = 512 << 10 };

/* Run by a thread whose stack has STACK bytes. */
static void *unlink_and_close(void *arg)
{
	struct testvol *volume = arg;

	must_eq(name_unlink(volume->root, "f"), 0);
	end_damaged(volume);
	return NULL;
}

/* Writes a block of attributes at off: user.a, whose value is in inode inum. */
static void poke_attribute(struct testvol *volume, uint64_t off, uint32_t inum)
{
	uint8_t block[1024] = { 0 };

	memcpy(block, (uint32_t[]){ 0xea020000, 1, 1 }, 12); /* magic, references, blocks */
	block[32] = block[33] = 1; /* the length of the name; the prefix "user." */
	memcpy(block + 36, &inum, 4);
	block[48] = 'a';
	poke(volume, block, sizeof(block), off);
}

/*
 * A chain of 2000 inodes, each of which is the value of an attribute of the one before. Deleting
 * the file at its head does not recurse along the chain: a small stack is enough.
 */
START_TEST(values_that_have_values)
{
	struct testvol volume = { 0 };
	static uint64_t inode[CHAIN], block[CHAIN + 1];
	static uint32_t ino[CHAIN];
	uint64_t holder;
	struct ext4_inode *file, *donor;
	pthread_attr_t attr;
	struct ext4_reservation reservation;
	struct ext4_extent extent;
	pthread_t thread;
	char name[16];

	testvol_make(&volume, 32u << 20, "-b 1024 -I 256 -N 4000 " PLAIN "-O ea_inode");
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "blocks", S_IFREG | 0644), 0);
	file = name_lookup(volume.root, "f");
	holder = inode_place(volume.vol, ext4_inode_ino(file));
	ext4_inode_put(file);
	donor = name_lookup(volume.root, "blocks");
	ext4_inode_lock_exclusive(donor);
	must_eq(ext4_map_load(donor), 0);
	must_eq(ext4_reserve_holes(donor, 0, CHAIN + 1, true, &reservation), 0);
	must_eq(ext4_insert(donor, &reservation, 0, 0, (CHAIN + 1) << 10), 0);
	ext4_reservation_free(&reservation);
	for (uint32_t k = 0; k <= CHAIN; k++) {
		must_eq(ext4_map_lookup(donor, k, &extent), 0);
		block[k] = extent.pblk;
	}
	ext4_inode_unlock(donor);
	for (unsigned k = 0; k < CHAIN; k++) {
		snprintf(name, sizeof(name), "v%u", k);
		must_eq(name_create(volume.root, name, S_IFREG | 0600), 0);
		ino[k] = (uint32_t)name_ino(volume.root, name);
		inode[k] = inode_place(volume.vol, ino[k]);
	}
	put_and_close(&volume, donor);
	for (unsigned k = 0; k < CHAIN; k++) {
		poke32(&volume, inode[k] + INODE_FIELD(i_flags),
		       EXT4_EXTENTS_FL | EXT4_EA_INODE_FL);
		/* The number of references of a value's inode: its low and its high half. */
		poke32(&volume, inode[k] + INODE_FIELD(osd1.linux1.l_i_version), 1);
		poke32(&volume, inode[k] + INODE_FIELD(i_ctime), 0);
		if (k + 1 < CHAIN) {
			poke32(&volume, inode[k] + INODE_FIELD(i_blocks), 2);
			poke32(&volume, inode[k] + INODE_FIELD(i_file_acl), (uint32_t)block[k]);
			poke_attribute(&volume, block[k] << 10, ino[k + 1]);
		}
	}
	poke_attribute(&volume, block[CHAIN] << 10, ino[0]);
	poke32(&volume, holder + INODE_FIELD(i_blocks), 2);
	poke32(&volume, holder + INODE_FIELD(i_file_acl), (uint32_t)block[CHAIN]);
	testvol_open(&volume);
	must_eq(pthread_attr_init(&attr), 0);
	must_eq(pthread_attr_setstacksize(&attr, STACK), 0);
	must_eq(pthread_create(&thread, &attr, unlink_and_close, &volume), 0);
	must_eq(pthread_join(thread, NULL), 0);
	ck_assert_uint_gt(fdio_counter_read(COUNTER_ext4_corrupt), 0);
	pthread_attr_destroy(&attr);
}
END_TEST

/* An attribute whose value is in a deleted inode: it is damage, and not deleted a second time. */
START_TEST(value_in_a_deleted_inode)
{
	struct testvol volume = { 0 };
	struct ext4_inode *file;
	uint64_t holder;
	uint32_t gone, block;

	testvol_make(&volume, SMALL_SIZE, "-b 1024 -I 128 " PLAIN "-O ea_inode");
	must_eq(name_create(volume.root, "f", S_IFREG | 0644), 0);
	must_eq(name_create(volume.root, "gone", S_IFREG | 0644), 0);
	gone = (uint32_t)name_ino(volume.root, "gone");
	file = name_lookup(volume.root, "f");
	must_eq(ext4_xattr_set(file, "user.b", "value", 5, 0, 0), 0);
	must_eq(name_unlink(volume.root, "gone"), 0);
	holder = inode_place(volume.vol, ext4_inode_ino(file));
	put_and_close(&volume, file);
	peek(&volume, &block, 4, holder + INODE_FIELD(i_file_acl));
	poke_attribute(&volume, (uint64_t)block << 10, gone);
	testvol_open(&volume);
	file = name_lookup(volume.root, "f");
	must_eq(ext4_xattr_remove(file, "user.a"), -EUCLEAN);
	ext4_inode_put(file);
	end_damaged(&volume);
}
END_TEST

enum { RUNS = 200, RUN = 3 };

/* Maps RUNS extents of RUN blocks with holes of the same length between them. */
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

/*
 * The block of a leaf of the extent tree that has the next leaf in the block right behind it.
 * *ret_run is the first extent in that leaf.
 */
static uint64_t node_before_next(const struct ext4_inode *inode, uint32_t *ret_run)
{
	const uint8_t *root = (const uint8_t *)inode->raw->i_block;
	uint32_t idx[2][3];

	must_eq(root[6], 1);
	for (unsigned k = 1; k < root[2]; k++) {
		memcpy(idx, root + 12 * k, sizeof(idx));
		if (idx[0][1] + 1 == idx[1][1]) {
			*ret_run = (idx[0][0] + 2 * RUN - 1) / (2 * RUN);
			return idx[0][1];
		}
	}
	ck_abort_msg("no two leaves side by side");
	return 0;
}

/*
 * Bitmaps that lie: in the first group only blk is free; in the second, at most every other block
 * is, so that no two are together.
 */
static void poke_bitmaps(struct testvol *volume, uint64_t blk)
{
	uint8_t map[2][1024];
	uint16_t nr_free = 0;
	uint32_t bitmap[2];

	for (unsigned g = 0; g < 2; g++) {
		peek(volume, &bitmap[g], 4, group_place(g) + GROUP_FIELD(bg_block_bitmap));
		peek(volume, map[g], sizeof(map[g]), (uint64_t)bitmap[g] << 10);
	}
	memset(map[0], 0xff, sizeof(map[0]));
	map[0][(blk - 1) / 8] &= (uint8_t)~(1u << ((blk - 1) % 8));
	for (uint32_t n = 0; n < 1023; n++) {
		map[1][n] |= 0x55;
		nr_free += (uint16_t)(8 - __builtin_popcount(map[1][n]));
	}
	map[1][1023] = 0xff;
	for (unsigned g = 0; g < 2; g++) {
		poke(volume, map[g], sizeof(map[g]), (uint64_t)bitmap[g] << 10);
		poke16(volume, group_place(g) + GROUP_FIELD(bg_free_blocks_count),
		       g ? nr_free : 1);
	}
}

/*
 * A leaf of the extent tree is free in the bitmap, and its sibling must be split: the allocator
 * gives out the leaf's block. That is found as damage, and no extent is lost.
 */
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
	put_and_close(&volume, file);
	poke_bitmaps(&volume, node + 1);
	testvol_open(&volume);
	file = name_lookup(volume.root, "f");
	ext4_inode_lock_exclusive(file);
	must_eq(ext4_map_load(file), 0);
	/* Each hole divides an extent: soon the leaf is full and must be split. */
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
	end_damaged(&volume);
}
END_TEST

/*
 * A superblock that claims four million groups of eight blocks, as a sparse image could: it is
 * refused before memory is allocated for the groups.
 */
START_TEST(groups_without_number)
{
	struct testvol volume = { 0 };
	struct ext2_super_block sb;
	const char *why;
	char msg[200];

	testvol_make(&volume, SMALL_SIZE, PLAIN "-b 1024");
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
	Suite *suite = suite_create("ext4: hostile inodes");
	TCase *tests = unit_case(suite, "images", 120);

	unit_test(tests, orphans_without_number);
	unit_test(tests, orphan_file_too_large);
	unit_test(tests, values_that_have_values);
	unit_test(tests, value_in_a_deleted_inode);
	unit_test(tests, tree_node_marked_free);
	unit_test(tests, groups_without_number);
	return suite;
}
