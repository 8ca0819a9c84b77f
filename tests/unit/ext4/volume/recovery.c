/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening what a crash has left: replay in all its modes, a needs_recovery that contradicts the
 * log, a torn superblock, a damaged journal inode. A crash is a power cut of the fake device; the
 * state at that moment is opened as a device of its own.
 */
#include "opening.h"

#include "base/log.h"
#include "ext4/inode/inode_cache.h"

#include <errno.h>
#include <ext2fs/ext3_extents.h>
#include <string.h>
#include <sys/stat.h>

/* A crash before the first commit: needs_recovery is set, but the log is empty. It is mounted. */
START_TEST(crash_before_the_first_commit)
{
	struct fake_dev *fake = testvol_shape(2), *cut;
	struct ext4_vol *vol = testvol_mount(fake);

	cut = fake_power_cut(fake, FAKE_CUT_DROP, 1);
	ext4_vol_abandon(vol);
	fake_free(fake);
	testvol_mounts_clean(cut);
}
END_TEST

/*
 * A volume after a power cut, with one deleted file on its orphan list; *ret_place is where that
 * file's inode lies on the device, in bytes.
 */
static struct fake_dev *cut_with_orphan(uint64_t *ret_place)
{
	struct fake_dev *fake = testvol_shape(0), *cut;
	struct ext4_vol *vol = testvol_mount(fake);
	struct ext4_inode *inode = testvol_tmpfile(vol, S_IFREG | 0600);
	uint32_t off;

	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	cut = fake_power_cut(fake, FAKE_CUT_DROP, 1);
	*ret_place = ext4_itable_place(vol, inode->ino, &off) << 10;
	ext4_inode_put(inode);
	testvol_unmount_check(vol, fake);
	fake_free(fake);
	return cut;
}

/*
 * A read-only device that needs recovery is served with norecovery only. On a writable device
 * ext4_vol_recover and a read-only mount replay the log and finish deletions; a second
 * ext4_vol_recover writes nothing.
 */
START_TEST(recovery_of_what_is_read_only)
{
	uint64_t orphan_at;
	struct fake_dev *cut = cut_with_orphan(&orphan_at), *copy, *sick;
	struct ext2_super_block sb;
	unsigned mounted;
	bool fsck;
	struct ext4_options options = testvol_options();
	const char *why;
	struct ext4_vol *vol;
	char msg[300];

	fake_dev(cut)->caps.read_only = true;
	fake_stats_reset(cut);
	ck_assert_int_eq(try_open(cut, &options, &vol, &why, msg, sizeof(msg)), -EROFS);
	ck_assert_msg(strstr(msg, "norecovery"), "%s", msg);
	options.norecovery = true;
	ck_assert_int_eq(try_open(cut, &options, &vol, &why, msg, sizeof(msg)), 0);
	ck_assert(ext4_vol_read_only(vol));
	ck_assert_msg(strstr(why, "not replayed"), "%s", why);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	ck_assert_uint_eq(fake_stats(cut).writes, 0);
	fake_dev(cut)->caps.read_only = false;

	/* On a copy, the replay alone, without deletions, as before a fuseblk mount. */
	copy = fake_clone(cut);
	ck_assert_int_eq(ext4_vol_recover(fake_dev(copy), false, &fsck, FDIO_REASON(msg)), 0);
	ck_assert(!fsck);
	testvol_super(copy, &sb);
	ck_assert(!(sb.s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER) || sb.s_last_orphan);
	fake_stats_reset(copy);
	ck_assert_int_eq(ext4_vol_recover(fake_dev(copy), false, &fsck, FDIO_REASON(msg)), 0);
	ck_assert_uint_eq(fake_stats(copy).writes, 0);
	ck_assert_uint_ne(sb.s_last_orphan, 0);
	mounted = sb.s_mnt_count;

	/* If the orphan cannot be read, recovery succeeds all the same, and the rest is served. */
	sick = fake_clone(copy);
	fake_fault_add(sick, &(struct fake_fault){ .kinds = FAKE_READ,
						   .off = orphan_at,
						   .len = 1024,
						   .action = FAKE_ERROR,
						   .err = -EIO });
	ck_assert_int_eq(ext4_vol_recover(fake_dev(sick), true, &fsck, FDIO_REASON(msg)), 0);
	ck_assert_uint_gt(fake_fault_hits(sick), 0);
	options = testvol_options();
	options.read_only = true;
	ck_assert_int_eq(try_open(sick, &options, &vol, &why, msg, sizeof(msg)), 0);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	fake_free(sick);

	/* Now with deletions, as a read-only mount does first. */
	ck_assert_int_eq(ext4_vol_recover(fake_dev(copy), true, &fsck, FDIO_REASON(msg)), 0);
	ck_assert_int_eq(fake_e2fsck(copy), 0);
	testvol_super(copy, &sb);
	ck_assert_uint_eq(sb.s_last_orphan, 0);
	ck_assert_uint_eq(sb.s_mnt_count, mounted);
	fake_stats_reset(copy);
	ck_assert_int_eq(ext4_vol_recover(fake_dev(copy), true, &fsck, FDIO_REASON(msg)), 0);
	ck_assert_uint_eq(fake_stats(copy).writes, 0);
	fake_free(copy);

	/* A read-only mount replays too, and leaves the log empty. */
	options.norecovery = false;
	options.read_only = true;
	ck_assert_int_eq(try_open(cut, &options, &vol, &why, msg, sizeof(msg)), 0);
	ck_assert(ext4_vol_read_only(vol));
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	ck_assert_int_eq(fake_e2fsck(cut), 0);
	testvol_mounts_clean(cut);
}
END_TEST

/*
 * The log is not empty although needs_recovery is clear. The kernel would discard such a log;
 * fusedio refuses the mount and names e2fsck.
 */
START_TEST(log_without_its_bit_is_not_guessed_about)
{
	uint64_t place;
	struct fake_dev *cut = cut_with_orphan(&place);
	struct ext4_options options = testvol_options();
	struct ext2_super_block sb;
	const char *why;
	struct ext4_vol *vol;
	char msg[300];

	testvol_super(cut, &sb);
	sb.s_feature_incompat &= ~(uint32_t)EXT3_FEATURE_INCOMPAT_RECOVER;
	testvol_poke_super(cut, &sb);
	ck_assert_int_eq(try_open(cut, &options, &vol, &why, msg, sizeof(msg)), -EUCLEAN);
	ck_assert_msg(strstr(msg, "e2fsck"), "%s", msg);
	fake_free(cut);
}
END_TEST

/*
 * A power cut tears the superblock between its two sectors, at mount or at unmount, with either
 * half new. It is completed from a backup, and the volume is served. If no backup fits, if the
 * device is read-only, or with norecovery, it is damage.
 */
START_TEST(torn_superblock_is_completed_from_a_backup)
{
	struct fake_dev *fake = testvol_shape(0);
	struct ext4_options options = testvol_options();
	static struct ext2_super_block state[3], torn, sb;
	unsigned old = (unsigned)_i / 2;
	struct fake_dev *cut[3];
	const char *why;
	struct ext4_vol *vol;
	char msg[300];
	uint64_t backup;

	/* The three states: before the mount, mounted, closed. state[old + 1] is cut short. */
	testvol_super(fake, &state[0]);
	cut[0] = fake_clone(fake);
	vol = testvol_mount(fake);
	testvol_super(fake, &state[1]);
	cut[1] = fake_clone(fake);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	testvol_super(fake, &state[2]);
	fake_free(fake);
	/* Mount and unmount write the superblock last: the rest of the device is the old one. */
	memcpy(&torn, &state[old + _i % 2], 512);
	memcpy((char *)&torn + 512, (char *)&state[old + 1 - _i % 2] + 512, 512);
	ck_assert(!ext4_super_checksum_ok(&torn));
	fake_poke(cut[old], &torn, sizeof(torn), SUPERBLOCK_OFFSET);

	fake_dev(cut[old])->caps.read_only = true;
	ck_assert_int_eq(try_open(cut[old], &options, &vol, &why, msg, sizeof(msg)), -EUCLEAN);
	fake_dev(cut[old])->caps.read_only = false;
	options.norecovery = true;
	ck_assert_int_eq(try_open(cut[old], &options, &vol, &why, msg, sizeof(msg)), -EUCLEAN);
	options.norecovery = false;
	cut[2] = fake_clone(cut[old]);
	for (unsigned g = 1; g < 10; g += 2) {
		backup = state[0].s_first_data_block + (uint64_t)g * state[0].s_blocks_per_group;
		backup <<= 10 + state[0].s_log_block_size;
		if (backup < 32 << 20)
			fake_poke(cut[2], "\1\2\3\4", 4,
				  backup + offsetof(struct ext2_super_block, s_uuid));
	}
	ck_assert_int_eq(try_open(cut[2], &options, &vol, &why, msg, sizeof(msg)), -EUCLEAN);
	ck_assert_msg(strstr(msg, "e2fsck"), "%s", msg);
	fake_free(cut[2]);

	vol = testvol_mount(cut[old]);
	testvol_super(cut[old], &sb);
	ck_assert(ext4_super_checksum_ok(&sb));
	testvol_unmount_check(vol, cut[old]);
	fake_free(cut[0]);
	fake_free(cut[1]);
}
END_TEST

/* The journal's inode is refused if it maps a block twice, has a hole, or is deleted. */
START_TEST(damaged_log_inode_is_refused)
{
	struct fake_dev *fake = fake_mkfs(32 << 20, "-t ext4 -b 4096 -J size=8 "
						 "-O ^metadata_csum,^64bit,^uninit_bg");
	struct ext4_options options = testvol_options();
	struct ext2_inode_large raw;
	struct ext3_extent_header *header = (void *)raw.i_block;
	struct ext3_extent *extent = (void *)(header + 1);
	uint64_t at, before;
	struct ext4_vol *vol;
	const char *why;
	char msg[300];

	ck_assert_ptr_nonnull(fake);
	vol = testvol_mount(fake);
	at = (vol->alloc.groups[0].itable << vol->block_bits) + 7 * vol->inode_size;
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	fake_peek(fake, &raw, sizeof(raw), at);
	ck_assert_uint_eq(header->eh_depth, 0);
	before = header->eh_entries++;
	ck_assert_uint_lt(before, 4);
	extent[before] = extent[before - 1];
	extent[before].ee_block += extent[before].ee_len + (_i == 1);
	if (_i == 1)
		extent[before].ee_start = 20;
	raw.i_links_count = _i != 2;
	fake_poke(fake, &raw, sizeof(raw), at);
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), -EUCLEAN);
	ck_assert(strstr(msg, "the journal's inode is damaged"));
	fake_free(fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("ext4: recovery");
	TCase *tests = unit_case(suite, "volume", 60);

	fdio_log_set_level(0); /* what these tests provoke would be logged */
	unit_test(tests, crash_before_the_first_commit);
	unit_test(tests, recovery_of_what_is_read_only);
	unit_test(tests, log_without_its_bit_is_not_guessed_about);
	unit_loop(tests, torn_superblock_is_completed_from_a_backup, 0, 4);
	unit_loop(tests, damaged_log_inode_is_refused, 0, 3);
	return suite;
}
