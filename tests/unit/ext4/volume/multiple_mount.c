/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Multiple mount protection (MMP) on the fake device: what is written to the MMP block while the
 * volume is mounted and at its end, which contents of the block refuse a mount, and what happens
 * when another host writes to the block all the same. The interval of updates is one second. To
 * wait for an owner that has died takes 11 s at least: tests/root/26-mmp.py does that.
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

/* A device with MMP; off: where its block is, in bytes; mmp: the block as last read or written. */
struct mmp_dev { struct fake_dev *fake; uint64_t off; struct mmp_struct mmp; bool csum; };

static void read_block(struct mmp_dev *dev)
{
	fake_peek(dev->fake, &dev->mmp, sizeof(dev->mmp), dev->off);
}

/* Writes dev->mmp with this sequence number, and its checksum. */
static void write_block(struct mmp_dev *dev, uint32_t seq)
{
	struct ext2_super_block sb;

	testvol_super(dev->fake, &sb);
	dev->mmp.mmp_seq = seq;
	if (dev->csum)
		dev->mmp.mmp_checksum = fdio_crc32c(fdio_crc32c(~0U, sb.s_uuid, 16), &dev->mmp,
						    offsetof(struct mmp_struct, mmp_checksum));
	fake_poke(dev->fake, &dev->mmp, sizeof(dev->mmp), dev->off);
}

/* Formats the device as kinds[n] says. */
static struct mmp_dev make_device(unsigned n)
{
	struct mmp_dev dev = { .fake = fake_mkfs(32 << 20, kinds[n]), .csum = n == 0 };
	struct ext2_super_block sb;

	ck_assert_ptr_nonnull(dev.fake);
	testvol_super(dev.fake, &sb);
	ck_assert(sb.s_feature_incompat & EXT4_FEATURE_INCOMPAT_MMP);
	dev.off = sb.s_mmp_block << (10 + sb.s_log_block_size);
	read_block(&dev);
	ck_assert_uint_eq(dev.mmp.mmp_seq, EXT4_MMP_SEQ_CLEAN);
	return dev;
}

/* While mounted, the number grows by one a second; a clean unmount writes "clean". */
START_TEST(kept_up)
{
	struct mmp_dev dev = make_device((unsigned)_i);
	struct ext4_vol *vol = testvol_mount(dev.fake);
	uint32_t first;

	read_block(&dev);
	first = dev.mmp.mmp_seq;
	ck_assert_uint_le(first, EXT4_MMP_SEQ_MAX);
	ck_assert_uint_ge(dev.mmp.mmp_check_interval, 5);
	usleep(2500000);
	read_block(&dev);
	ck_assert_uint_gt(dev.mmp.mmp_seq, first);
	ck_assert_uint_le(dev.mmp.mmp_seq, first + 3);
	testvol_unmount_check(vol, dev.fake);
	read_block(&dev);
	ck_assert_uint_eq(dev.mmp.mmp_seq, EXT4_MMP_SEQ_CLEAN);
	fake_free(dev.fake);
}
END_TEST

/* A mount fails with want and a reason that has says in it, and writes nothing. */
static void must_be_refused(struct mmp_dev *dev, int want, const char *says)
{
	struct ext4_options options = testvol_options();
	struct fake_stats before = fake_stats(dev->fake), after;
	const char *why = NULL;
	struct ext4_vol *vol;
	char msg[300];

	ck_assert_int_eq(ext4_vol_open(fake_dev(dev->fake), &options, &vol, &why, FDIO_REASON(msg)),
			 want);
	ck_assert_msg(strstr(msg, says), "%s", msg);
	after = fake_stats(dev->fake);
	ck_assert_uint_eq(after.writes, before.writes);
}

/* The mark of e2fsck, an invalid number or a wrong magic number refuses the mount. */
START_TEST(checked_by_fsck)
{
	struct mmp_dev dev = make_device((unsigned)_i);

	write_block(&dev, EXT4_MMP_SEQ_FSCK);
	must_be_refused(&dev, -EBUSY, "e2fsck is running on it, or was interrupted: run e2fsck");
	write_block(&dev, EXT4_MMP_SEQ_MAX + 5);
	must_be_refused(&dev, -EBUSY, "run e2fsck");
	dev.mmp.mmp_magic ^= 1;
	write_block(&dev, EXT4_MMP_SEQ_CLEAN);
	must_be_refused(&dev, -EUCLEAN, "multiple mount protection");
	fake_free(dev.fake);
}
END_TEST

/* A block with a wrong checksum is damage. */
START_TEST(damaged_checksum)
{
	struct mmp_dev dev = make_device(0);

	dev.mmp.mmp_checksum ^= 1;
	fake_poke(dev.fake, &dev.mmp, sizeof(dev.mmp), dev.off);
	must_be_refused(&dev, -EUCLEAN, "multiple mount protection");
	fake_free(dev.fake);
}
END_TEST

/* A read-only mount ignores the block, here with the mark of e2fsck, and writes nothing. */
START_TEST(read_only)
{
	struct mmp_dev dev = make_device(0);
	struct ext4_options options = testvol_options();
	struct ext4_vol *vol;

	options.read_only = true;
	write_block(&dev, EXT4_MMP_SEQ_FSCK);
	vol = testvol_mount_with(dev.fake, &options);
	ck_assert_uint_eq(fake_stats(dev.fake).writes, 0);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	read_block(&dev);
	ck_assert_uint_eq(dev.mmp.mmp_seq, EXT4_MMP_SEQ_FSCK);
	fake_free(dev.fake);
}
END_TEST

/*
 * An update fails: the block cannot be read (_i is 0), or not written (1), or the write is reported
 * as failed although the number has reached the device (2). The mount goes on, and so do the
 * numbers.
 */
START_TEST(failed_update_is_tried_again)
{
	struct mmp_dev dev = make_device(0);
	struct ext4_vol *vol = testvol_mount(dev.fake);
	uint32_t before;

	fake_fault_add(dev.fake, &(struct fake_fault){ .kinds = _i ? FAKE_WRITE : FAKE_READ,
						       .off = dev.off,
						       .len = 1024,
						       .repeat = 1,
						       .action = FAKE_ERROR,
						       .err = -EIO });
	while (!fake_fault_hits(dev.fake))
		unit_pause_ms(10);
	fake_fault_clear(dev.fake);
	read_block(&dev);
	before = dev.mmp.mmp_seq;
	if (_i == 2)
		write_block(&dev, ++before);
	do {
		unit_pause_ms(10);
		read_block(&dev);
	} while (dev.mmp.mmp_seq == before && !ext4_vol_read_only(vol));
	ck_assert(!ext4_vol_read_only(vol));
	ck_assert_uint_gt(dev.mmp.mmp_seq, before);
	testvol_unmount_check(vol, dev.fake);
	fake_free(dev.fake);
}
END_TEST

static const char *said; /* the reason that went_read_only was called with */

static void went_read_only(void *arg, const char *why)
{
	__atomic_store_n(&said, why, __ATOMIC_SEQ_CST);
	(void)arg;
}

/*
 * Another host writes its number while the volume is mounted: the volume becomes read-only, and not
 * a byte is written any more, not even by the close.
 */
START_TEST(taken_away)
{
	struct mmp_dev dev = make_device((unsigned)_i);
	struct ext4_options options = testvol_options();
	struct ext2_super_block before, after;
	struct ext4_vol *vol;
	struct ext4_inode *root;
	unsigned writes;

	said = NULL;
	options.went_read_only = went_read_only;
	vol = testvol_mount_with(dev.fake, &options);
	root = testvol_root(vol);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MTIME_NOW, &(struct ext4_attr){ 0 }), 0);
	read_block(&dev);
	memcpy(dev.mmp.mmp_nodename, "other", 6);
	write_block(&dev, dev.mmp.mmp_seq ^ 0x40000);
	for (int n = 0; n < 500 && !__atomic_load_n(&said, __ATOMIC_SEQ_CST); n++)
		usleep(10000);
	ck_assert_str_eq(said, "another host has mounted it");
	ck_assert(ext4_vol_read_only(vol));
	writes = (unsigned)fake_stats(dev.fake).writes;
	testvol_super(dev.fake, &before);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MTIME_NOW, &(struct ext4_attr){ 0 }), -EROFS);
	ext4_inode_put(root);
	ck_assert_int_eq(ext4_vol_close(vol), -EIO);
	ck_assert_uint_eq(fake_stats(dev.fake).writes, writes);
	testvol_super(dev.fake, &after);
	ck_assert_int_eq(memcmp(&before, &after, sizeof(before)), 0);
	read_block(&dev);
	ck_assert_str_eq((char *)dev.mmp.mmp_nodename, "other");
	fake_free(dev.fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("ext4: multiple mount");
	TCase *tests = unit_case(suite, "mmp", 60);

	unit_loop(tests, kept_up, 0, (int)ARRAY_SIZE(kinds), PROVES("MMP-4"));
	unit_loop(tests, checked_by_fsck, 0, (int)ARRAY_SIZE(kinds), PROVES("MMP-1"));
	unit_test(tests, damaged_checksum);
	unit_test(tests, read_only);
	unit_loop(tests, failed_update_is_tried_again, 0, 3);
	unit_loop(tests, taken_away, 0, (int)ARRAY_SIZE(kinds), PROVES("MMP-3"));
	return suite;
}
