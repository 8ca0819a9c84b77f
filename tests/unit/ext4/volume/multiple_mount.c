/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Multiple mount protection on the fake device: what is written while mounted and at the end, whom a mount gives way to, and what
 * happens when another host writes to the block all the same. Waiting for an owner that died takes 11 s at least
 * (tests/root/26-mmp.py does that); here the interval is one second.
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

struct set { struct fake_dev *f; uint64_t off; struct mmp_struct mmp; bool csum; };

static void look(struct set *s) { fake_peek(s->f, &s->mmp, sizeof(s->mmp), s->off); }

static void put(struct set *s, uint32_t seq)
{
	struct ext2_super_block sb;

	testvol_super(s->f, &sb);
	s->mmp.mmp_seq = seq;
	if (s->csum)
		s->mmp.mmp_checksum = fdio_crc32c(fdio_crc32c(~0U, sb.s_uuid, 16), &s->mmp, offsetof(struct mmp_struct, mmp_checksum));
	fake_poke(s->f, &s->mmp, sizeof(s->mmp), s->off);
}

static struct set make(unsigned n)
{
	struct set s = { .f = fake_mkfs(32 << 20, kinds[n]), .csum = n == 0 };
	struct ext2_super_block sb;

	ck_assert_ptr_nonnull(s.f);
	testvol_super(s.f, &sb);
	ck_assert(sb.s_feature_incompat & EXT4_FEATURE_INCOMPAT_MMP);
	s.off = sb.s_mmp_block << (10 + sb.s_log_block_size);
	look(&s);
	ck_assert_uint_eq(s.mmp.mmp_seq, EXT4_MMP_SEQ_CLEAN);
	return s;
}

START_TEST(kept_up)
{
	struct set s = make((unsigned)_i);
	struct x4_vol *v = testvol_mount(s.f);
	uint32_t first;

	look(&s);
	first = s.mmp.mmp_seq;
	ck_assert_uint_le(first, EXT4_MMP_SEQ_MAX);
	ck_assert_uint_ge(s.mmp.mmp_check_interval, 5);
	usleep(2500000);
	look(&s);
	ck_assert_uint_gt(s.mmp.mmp_seq, first);
	ck_assert_uint_le(s.mmp.mmp_seq, first + 3);
	testvol_unmount_check(v, s.f);
	look(&s);
	ck_assert_uint_eq(s.mmp.mmp_seq, EXT4_MMP_SEQ_CLEAN);
	fake_free(s.f);
}
END_TEST

static void refused(struct set *s, int want, const char *says)
{
	struct x4_options opt = testvol_options();
	struct fake_stats before = fake_stats(s->f), after;
	const char *why = NULL;
	struct x4_vol *v;
	char msg[300];

	ck_assert_int_eq(x4_vol_open(fake_dev(s->f), &opt, &v, &why, FDIO_REASON(msg)), want);
	ck_assert_msg(strstr(msg, says), "%s", msg);
	after = fake_stats(s->f);
	ck_assert_uint_eq(after.writes, before.writes);
}

START_TEST(checked_by_fsck)
{
	struct set s = make((unsigned)_i);

	put(&s, EXT4_MMP_SEQ_FSCK);
	refused(&s, -EBUSY, "e2fsck is running on it, or was interrupted: run e2fsck");
	put(&s, EXT4_MMP_SEQ_MAX + 5);
	refused(&s, -EBUSY, "run e2fsck");
	s.mmp.mmp_magic ^= 1;
	put(&s, EXT4_MMP_SEQ_CLEAN);
	refused(&s, -EUCLEAN, "multiple mount protection");
	fake_free(s.f);
}
END_TEST

START_TEST(damaged_checksum)
{
	struct set s = make(0);

	s.mmp.mmp_checksum ^= 1;
	fake_poke(s.f, &s.mmp, sizeof(s.mmp), s.off);
	refused(&s, -EUCLEAN, "multiple mount protection");
	fake_free(s.f);
}
END_TEST

/* Nobody who only reads takes the file system, or needs to. */
START_TEST(read_only)
{
	struct set s = make(0);
	struct x4_options opt = testvol_options();
	struct x4_vol *v;

	opt.read_only = true;
	put(&s, EXT4_MMP_SEQ_FSCK);
	v = testvol_mount_with(s.f, &opt);
	ck_assert_uint_eq(fake_stats(s.f).writes, 0);
	ck_assert_int_eq(x4_vol_close(v), 0);
	look(&s);
	ck_assert_uint_eq(s.mmp.mmp_seq, EXT4_MMP_SEQ_FSCK);
	fake_free(s.f);
}
END_TEST

static const char *said;
static void went_ro(void *arg, const char *why) { __atomic_store_n(&said, why, __ATOMIC_SEQ_CST); (void)arg; }

/* Another host takes it while it is mounted: read-only at once, and not a byte is written any more. */
START_TEST(taken_away)
{
	struct set s = make((unsigned)_i);
	struct x4_options opt = testvol_options();
	struct ext2_super_block sb, sb2;
	struct x4_vol *v;
	struct x4_inode *root;
	unsigned writes;

	said = NULL;
	opt.went_read_only = went_ro;
	v = testvol_mount_with(s.f, &opt);
	root = testvol_root(v);
	ck_assert_int_eq(x4_setattr(root, X4_SET_MTIME_NOW, &(struct x4_attr){ 0 }), 0);
	look(&s);
	memcpy(s.mmp.mmp_nodename, "other", 6);
	put(&s, s.mmp.mmp_seq ^ 0x40000);
	for (int n = 0; n < 500 && !__atomic_load_n(&said, __ATOMIC_SEQ_CST); n++)
		usleep(10000);
	ck_assert_str_eq(said, "another host has mounted it");
	ck_assert(x4_vol_read_only(v));
	writes = (unsigned)fake_stats(s.f).writes;
	testvol_super(s.f, &sb);
	ck_assert_int_eq(x4_setattr(root, X4_SET_MTIME_NOW, &(struct x4_attr){ 0 }), -EROFS);
	x4_iput(root);
	ck_assert_int_eq(x4_vol_close(v), -EIO);
	ck_assert_uint_eq(fake_stats(s.f).writes, writes);
	testvol_super(s.f, &sb2);
	ck_assert_int_eq(memcmp(&sb, &sb2, sizeof(sb)), 0);
	look(&s);
	ck_assert_str_eq((char *)s.mmp.mmp_nodename, "other");
	fake_free(s.f);
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
