/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Multiple mount protection on the fake device: what is written while mounted and at the end, whom
 * a mount gives way to, and what happens when another host writes to the block all the same.
 * Waiting for an owner that died takes 11 s at least (tests/root/26-mmp.py does that); here the
 * interval is one second.
 */
#include "kit/volume.h"

#include "base/crc32c.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const kinds[] = {
	"-t ext4 -b 1024 -J size=4 -O mmp,metadata_csum -E mmp_update_interval=1",
	"-t ext4 -b 4096 -J size=4 -O mmp,^metadata_csum -E mmp_update_interval=1",
};

struct set { struct fake_dev *fake; uint64_t off; struct mmp_struct mmp; bool csum; };

static void look(struct set *set) { fake_peek(set->fake, &set->mmp, sizeof(set->mmp), set->off); }

static void put(struct set *set, uint32_t seq)
{
	struct ext2_super_block sb;

	testvol_super(set->fake, &sb);
	set->mmp.mmp_seq = seq;
	if (set->csum)
		set->mmp.mmp_checksum = fdio_crc32c(fdio_crc32c(~0U, sb.s_uuid, 16), &set->mmp,
						    offsetof(struct mmp_struct, mmp_checksum));
	fake_poke(set->fake, &set->mmp, sizeof(set->mmp), set->off);
}

static struct set make(unsigned n)
{
	struct set set = { .fake = fake_mkfs(32 << 20, kinds[n]), .csum = n == 0 };
	struct ext2_super_block sb;

	ck_assert_ptr_nonnull(set.fake);
	testvol_super(set.fake, &sb);
	ck_assert(sb.s_feature_incompat & EXT4_FEATURE_INCOMPAT_MMP);
	set.off = sb.s_mmp_block << (10 + sb.s_log_block_size);
	look(&set);
	ck_assert_uint_eq(set.mmp.mmp_seq, EXT4_MMP_SEQ_CLEAN);
	return set;
}

START_TEST(kept_up)
{
	struct set set = make((unsigned)_i);
	struct ext4_vol *vol = testvol_mount(set.fake);
	uint32_t first;

	look(&set);
	first = set.mmp.mmp_seq;
	ck_assert_uint_le(first, EXT4_MMP_SEQ_MAX);
	ck_assert_uint_ge(set.mmp.mmp_check_interval, 5);
	usleep(2500000);
	look(&set);
	ck_assert_uint_gt(set.mmp.mmp_seq, first);
	ck_assert_uint_le(set.mmp.mmp_seq, first + 3);
	testvol_unmount_check(vol, set.fake);
	look(&set);
	ck_assert_uint_eq(set.mmp.mmp_seq, EXT4_MMP_SEQ_CLEAN);
	fake_free(set.fake);
}
END_TEST

static void refused(struct set *set, int want, const char *says)
{
	struct ext4_options options = testvol_options();
	struct fake_stats before = fake_stats(set->fake), after;
	const char *why = NULL;
	struct ext4_vol *vol;
	char msg[300];

	ck_assert_int_eq(ext4_vol_open(fake_dev(set->fake), &options, &vol, &why, FDIO_REASON(msg)),
			 want);
	ck_assert_msg(strstr(msg, says), "%s", msg);
	after = fake_stats(set->fake);
	ck_assert_uint_eq(after.writes, before.writes);
}

START_TEST(checked_by_fsck)
{
	struct set set = make((unsigned)_i);

	put(&set, EXT4_MMP_SEQ_FSCK);
	refused(&set, -EBUSY, "e2fsck is running on it, or was interrupted: run e2fsck");
	put(&set, EXT4_MMP_SEQ_MAX + 5);
	refused(&set, -EBUSY, "run e2fsck");
	set.mmp.mmp_magic ^= 1;
	put(&set, EXT4_MMP_SEQ_CLEAN);
	refused(&set, -EUCLEAN, "multiple mount protection");
	fake_free(set.fake);
}
END_TEST

START_TEST(damaged_checksum)
{
	struct set set = make(0);

	set.mmp.mmp_checksum ^= 1;
	fake_poke(set.fake, &set.mmp, sizeof(set.mmp), set.off);
	refused(&set, -EUCLEAN, "multiple mount protection");
	fake_free(set.fake);
}
END_TEST

/* Nobody who only reads takes the file system, or needs to. */
START_TEST(read_only)
{
	struct set set = make(0);
	struct ext4_options options = testvol_options();
	struct ext4_vol *vol;

	options.read_only = true;
	put(&set, EXT4_MMP_SEQ_FSCK);
	vol = testvol_mount_with(set.fake, &options);
	ck_assert_uint_eq(fake_stats(set.fake).writes, 0);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	look(&set);
	ck_assert_uint_eq(set.mmp.mmp_seq, EXT4_MMP_SEQ_FSCK);
	fake_free(set.fake);
}
END_TEST

static const char *said;
static void went_ro(void *arg, const char *why)
{
	__atomic_store_n(&said, why, __ATOMIC_SEQ_CST);
	(void)arg;
}

/*
 * Another host takes it while it is mounted: read-only at once, and not a byte is written any more.
 */
START_TEST(taken_away)
{
	struct set set = make((unsigned)_i);
	struct ext4_options options = testvol_options();
	struct ext2_super_block sb, sb2;
	struct ext4_vol *vol;
	struct ext4_inode *root;
	unsigned writes;

	said = NULL;
	options.went_read_only = went_ro;
	vol = testvol_mount_with(set.fake, &options);
	root = testvol_root(vol);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MTIME_NOW, &(struct ext4_attr){ 0 }), 0);
	look(&set);
	memcpy(set.mmp.mmp_nodename, "other", 6);
	put(&set, set.mmp.mmp_seq ^ 0x40000);
	for (int n = 0; n < 500 && !__atomic_load_n(&said, __ATOMIC_SEQ_CST); n++)
		usleep(10000);
	ck_assert_str_eq(said, "another host has mounted it");
	ck_assert(ext4_vol_read_only(vol));
	writes = (unsigned)fake_stats(set.fake).writes;
	testvol_super(set.fake, &sb);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MTIME_NOW, &(struct ext4_attr){ 0 }), -EROFS);
	ext4_inode_put(root);
	ck_assert_int_eq(ext4_vol_close(vol), -EIO);
	ck_assert_uint_eq(fake_stats(set.fake).writes, writes);
	testvol_super(set.fake, &sb2);
	ck_assert_int_eq(memcmp(&sb, &sb2, sizeof(sb)), 0);
	look(&set);
	ck_assert_str_eq((char *)set.mmp.mmp_nodename, "other");
	fake_free(set.fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: multiple mount");
	TCase *t = unit_case(s, "mmp", 60);

	unit_loop(t, kept_up, 0, (int)ARRAY_SIZE(kinds), PROVES("MMP-4"));
	unit_loop(t, checked_by_fsck, 0, (int)ARRAY_SIZE(kinds), PROVES("MMP-1"));
	unit_test(t, damaged_checksum);
	unit_test(t, read_only);
	unit_loop(t, taken_away, 0, (int)ARRAY_SIZE(kinds), PROVES("MMP-3"));
	return s;
}
