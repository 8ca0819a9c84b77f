/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening and closing volumes: every shape of file system, what the feature list decides, and what
 * is refused, with its reason. Runs on the test's thread.
 */
#include "opening.h"

#include "base/log.h"
#include "ext4/inode/inode_cache.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * Each shape of file system can be mounted and unmounted: needs_recovery is set meanwhile and the
 * mount is counted; the numbers of statfs fit the superblock; afterwards e2fsck finds nothing.
 */
START_TEST(every_shape_opens_and_closes_clean)
{
	struct fake_dev *fake = testvol_shape((unsigned)_i);
	struct ext2_super_block before, during, after;
	struct ext4_vol *vol;
	struct ext4_statfs stats;

	testvol_super(fake, &before);
	vol = testvol_mount(fake);
	testvol_super(fake, &during);
	ck_assert(during.s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER);
	ck_assert(during.s_state & EXT2_VALID_FS);
	ck_assert_uint_eq(during.s_mnt_count, before.s_mnt_count + 1);
	ext4_vol_statfs(vol, &stats);
	ck_assert_uint_eq(stats.bfree, before.s_free_blocks_count);
	ck_assert_uint_eq(stats.files, before.s_inodes_count);
	ck_assert_uint_eq(stats.ffree, before.s_free_inodes_count);
	ck_assert_uint_lt(stats.blocks, vol->nr_blocks);
	ck_assert_uint_ge(stats.blocks, stats.bfree);
	ck_assert_uint_eq(stats.bavail,
			  stats.bfree - before.s_r_blocks_count -
					  FDIO_MIN(vol->nr_blocks / 50, (uint64_t)4096));
	ck_assert_uint_eq(stats.bsize, vol->block_size);
	testvol_unmount_check(vol, fake);
	testvol_super(fake, &after);
	ck_assert(!(after.s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER));
	ck_assert(after.s_state & EXT2_VALID_FS);
	ck_assert_uint_eq(after.s_free_blocks_count, before.s_free_blocks_count);
	fake_free(fake);
}
END_TEST

/* A read-only mount refuses changes, and reads, sync and close write nothing to the device. */
START_TEST(read_only_writes_nothing)
{
	struct fake_dev *fake = testvol_shape(0);
	struct ext4_options options = testvol_options();
	const char *why;
	struct ext4_vol *vol;
	struct ext4_inode *root;
	struct fake_stats st;
	char msg[300];

	options.read_only = true;
	fake_stats_reset(fake);
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), 0);
	ck_assert(ext4_vol_read_only(vol));
	root = testvol_root(vol);
	ext4_touch_read(root);
	ext4_touch_write(root);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MTIME_NOW, &(struct ext4_attr){ 0 }), -EROFS);
	ext4_inode_put(root);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	st = fake_stats(fake);
	ck_assert_uint_eq(st.writes, 0);
	ck_assert_uint_eq(st.discards, 0);
	fake_free(fake);
}
END_TEST

static const struct verdict {
	const char *args;             /* of mke2fs */
	uint32_t incompat, ro_compat; /* features that mke2fs does not make; the test adds them */
	bool refused;                 /* otherwise served read-only */
	const char *says;             /* the reason has this in it */
} verdicts[] = {
	{ "-t ext4 -b 1024 -O ^has_journal", 0, 0, false, "no journal" },
	{ "-t ext3 -b 1024 -J size=4", 0, 0, false, "no extents" },
	{ "-t ext4 -b 1024 -J size=4 -O bigalloc -C 4096", 0, 0, false, "bigalloc" },
	{ "-t ext4 -b 1024 -J size=4 -O quota", 0, 0, false, "quota" },
	{ "-t ext4 -b 1024 -J size=4 -O inline_data", 0, 0, false, "inline_data" },
	{ "-t ext4 -b 1024 -J size=4 -O casefold", 0, 0, false, "casefold" },
	{ "-t ext4 -b 1024 -J size=4 -O encrypt", 0, 0, false, "encrypt" },
	{ "-t ext4 -b 1024 -J size=4 -O verity", 0, 0, false, "verity" },
	{ "-t ext4 -b 1024 -J size=4", 0, 0x40000000, false, "not known" },
	{ "-t ext4 -b 1024 -J size=4", 0x40000000, 0, true,
	  "unknown incompatible features 0x40000000" },
	{ "-t ext4 -b 1024 -J size=4", EXT4_FEATURE_INCOMPAT_DIRDATA, 0, true, "dirdata" },
	{ "-t ext4 -b 1024 -J size=4", EXT2_FEATURE_INCOMPAT_COMPRESSION, 0, true, "compressed" },
	{ "-O journal_dev -b 1024", 0, 0, true, "external journal" },
};

/* Each feature is served read-only or refused, for the reason that is told; nothing is written. */
START_TEST(every_feature_has_its_verdict)
{
	const struct verdict *verdict = &verdicts[_i];
	struct fake_dev *fake = fake_mkfs(32 << 20, verdict->args);
	struct ext4_options options = testvol_options();
	struct ext2_super_block sb;
	const char *why;
	struct ext4_vol *vol;
	char msg[300];
	int err;

	ck_assert_ptr_nonnull(fake);
	testvol_super(fake, &sb);
	sb.s_feature_incompat |= verdict->incompat;
	sb.s_feature_ro_compat |= verdict->ro_compat;
	testvol_poke_super(fake, &sb);
	fake_stats_reset(fake);
	err = try_open(fake, &options, &vol, &why, msg, sizeof(msg));
	if (verdict->refused) {
		ck_assert_int_lt(err, 0);
		ck_assert_msg(strstr(msg, verdict->says), "%s", msg);
	} else {
		ck_assert_msg(!err, "%s", msg);
		ck_assert(ext4_vol_read_only(vol));
		ck_assert_ptr_nonnull(why);
		ck_assert_msg(strstr(why, verdict->says), "%s", why);
		ck_assert_int_eq(ext4_vol_close(vol), 0);
	}
	ck_assert_uint_eq(fake_stats(fake).writes, 0);
	fake_free(fake);
}
END_TEST

/* A wrong magic number is -EINVAL; a wrong checksum that no backup explains is damage. */
START_TEST(what_is_no_file_system_is_refused)
{
	struct fake_dev *fake = testvol_shape(0);
	struct ext4_options options = testvol_options();
	struct ext2_super_block sb;
	const char *why;
	struct ext4_vol *vol;
	char msg[300];

	testvol_super(fake, &sb);
	sb.s_magic = 0;
	fake_poke(fake, &sb, sizeof(sb), SUPERBLOCK_OFFSET);
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), -EINVAL);
	ck_assert(strstr(msg, "no ext4 file system"));
	sb.s_magic = EXT2_SUPER_MAGIC;
	sb.s_hash_seed[0] ^= 1; /* the checksum is wrong, and no backup has this content */
	fake_poke(fake, &sb, sizeof(sb), SUPERBLOCK_OFFSET);
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), -EUCLEAN);
	ck_assert(strstr(msg, "e2fsck"));
	fake_free(fake);
}
END_TEST

/* The superblock claims more blocks than the device has. */
START_TEST(file_system_larger_than_device_is_refused)
{
	struct fake_dev *fake = testvol_shape(0), *small = fake_new(16 << 20, 512);
	struct ext4_options options = testvol_options();
	uint8_t *buf = malloc(16 << 20);
	const char *why;
	struct ext4_vol *vol;
	char msg[300];

	fake_peek(fake, buf, 16 << 20, 0);
	fake_poke(small, buf, 16 << 20, 0);
	ck_assert_int_lt(try_open(small, &options, &vol, &why, msg, sizeof(msg)), 0);
	ck_assert_msg(strstr(msg, "larger than the device"), "%s", msg);
	free(buf);
	fake_free(fake);
	fake_free(small);
}
END_TEST

/* An error code of libext2fs becomes a sentence, not "Unknown code". */
START_TEST(errors_of_the_library_have_words)
{
	struct ext4_options options = testvol_options();
	struct fake_dev *fake = testvol_shape(2);
	struct ext2_super_block sb;
	struct ext4_vol *vol;
	const char *why;
	char msg[300];

	testvol_super(fake, &sb);
	sb.s_first_data_block = 0x7fffffff;
	testvol_poke_super(fake, &sb);
	ck_assert_int_lt(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), 0);
	ck_assert_msg(!strstr(msg, "nknown code") && strstr(msg, "superblock"), "%s", msg);
	fake_free(fake);
}
END_TEST

/* A file system with blocks larger than a page is served read-only, and the reason says so. */
START_TEST(blocks_larger_than_a_page_are_read_only)
{
	struct ext4_options options = testvol_options();
	struct fake_dev *fake =
			fake_mkfs(64 << 20, _i ? "-t ext4 -b 16384 -J size=16" : "-t ext4 -b 8192");
	struct ext4_vol *vol;
	const char *why;
	char msg[300];

	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), 0);
	ck_assert(ext4_vol_read_only(vol));
	ck_assert_msg(why && strstr(why, "larger than 4096 bytes"), "%s", why);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	fake_free(fake);
}
END_TEST

/*
 * No file may have blocks outside the volume, bitmaps or inode tables (ext4_blocks_valid); it may
 * have all that the allocator gives out.
 */
START_TEST(metadata_blocks_are_nobodys_data)
{
	struct fake_dev *fake = testvol_shape((unsigned)_i);
	struct ext4_vol *vol = testvol_mount(fake);
	uint64_t free_blk, n;
	uint32_t got;

	ck_assert(!ext4_blocks_valid(vol, 0, 1));
	ck_assert(!ext4_blocks_valid(vol, vol->nr_blocks, 1));
	ck_assert(!ext4_blocks_valid(vol, vol->nr_blocks - 1, 2));
	ck_assert(!ext4_blocks_valid(vol, UINT64_MAX, 1));
	ck_assert(!ext4_blocks_valid(vol, vol->nr_blocks - 1, UINT64_MAX));
	for (uint32_t group = 0; group < vol->nr_groups; group++) {
		ck_assert(!ext4_blocks_valid(vol, vol->alloc.groups[group].block_bitmap, 1));
		ck_assert(!ext4_blocks_valid(vol, vol->alloc.groups[group].inode_bitmap, 1));
		ck_assert(!ext4_blocks_valid(vol, vol->alloc.groups[group].itable, 1));
		ck_assert(!ext4_blocks_valid(
				vol, vol->alloc.groups[group].itable + vol->itable_blocks - 1, 1));
	}
	for (n = 0; n < 200; n++) {
		ck_assert_int_eq(ext4_blocks_reserve(vol, NULL, 0, 7, false, &free_blk, &got), 0);
		ck_assert(ext4_blocks_valid(vol, free_blk, got));
		ext4_blocks_unreserve(vol, free_blk, got);
	}
	testvol_unmount_check(vol, fake);
	fake_free(fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("ext4: open and close");
	TCase *tests = unit_case(suite, "volume", 60);
	int nr = (int)nr_testvol_shapes;

	fdio_log_set_level(0); /* what these tests provoke would be logged */
	unit_loop(tests, every_shape_opens_and_closes_clean, 0, nr);
	unit_test(tests, read_only_writes_nothing);
	unit_loop(tests, every_feature_has_its_verdict, 0, (int)ARRAY_SIZE(verdicts));
	unit_test(tests, what_is_no_file_system_is_refused);
	unit_test(tests, file_system_larger_than_device_is_refused);
	unit_test(tests, errors_of_the_library_have_words);
	unit_loop(tests, blocks_larger_than_a_page_are_read_only, 0, 2);
	unit_loop(tests, metadata_blocks_are_nobodys_data, 0, nr);
	return suite;
}
