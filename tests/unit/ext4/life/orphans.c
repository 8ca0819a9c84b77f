/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a crash leaves on the orphan list and in the orphan file, and what opening the volume does
 * about it: deletions are finished, damage is cut off and noted, and a volume is refused if an
 * orphan cannot be deleted while a part of the list is on disk alone. On the real volume
 * (kit/volume.h). A failure means that a crash loses space or leaves a list that is a circle.
 */
#include "kit/volume.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "ext4/inode/inode_cache.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

/* A crash while an open file has no name: the log is replayed, and the file deleted. */
START_TEST(crash_is_replayed_and_orphans_deleted)
{
	struct fake_dev *fake = testvol_shape((unsigned)_i), *cut;
	struct ext4_statfs before, after;
	struct ext2_super_block sb;
	struct ext4_inode *inode;
	struct ext4_vol *vol = testvol_mount(fake);
	uint32_t ino;

	ext4_vol_statfs(vol, &before);
	inode = testvol_tmpfile(vol, S_IFREG | 0600);
	ino = inode->ino;
	ck_assert_int_eq(testvol_fill(inode, 0, 300), 0);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	cut = fake_power_cut(fake, FAKE_CUT_DROP, 1);
	ext4_vol_abandon(vol);
	epoch_drain();
	fake_free(fake);
	ck_assert_int_eq(fake_e2fsck_replay(cut), 0);

	vol = testvol_mount(cut);
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), -ENOENT);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	ext4_vol_statfs(vol, &after);
	ck_assert_uint_eq(after.bfree, before.bfree);
	ck_assert_uint_eq(after.ffree, before.ffree);
	testvol_check_groups(vol);
	testvol_unmount_check(vol, cut);
	testvol_super(cut, &sb);
	ck_assert_uint_eq(sb.s_last_orphan, 0);
	fake_free(cut);
}
END_TEST

/*
 * A volume with an entry in the orphan file, as a kernel leaves it that has not unmounted: *ret_ino
 * is the inode, *ret_bitmap the place of its bitmap in bytes.
 */
static struct fake_dev *crash_with_orphan_file(uint32_t *ret_ino, uint64_t *ret_bitmap)
{
	struct fake_dev *fake = fake_mkfs(32 << 20, "-t ext4 -b 1024 -J size=4 -O "
						    "orphan_file,metadata_csum");
	struct ext4_inode *orphan_file;
	struct ext2_super_block sb;
	uint32_t block[256], ino, seed;
	char out[1024];
	uint64_t blk;
	struct ext4_vol *vol;

	ck_assert_ptr_nonnull(fake);
	ck_assert_int_eq(fake_run(fake,
				  "head -c 50000 $IMG > $IMG.src && "
				  "debugfs -w -R \"write $IMG.src lost\" $IMG >/dev/null 2>&1 && "
				  "rm $IMG.src && debugfs -R 'stat lost' $IMG 2>/dev/null",
				  out, sizeof(out), true),
			 0);
	ck_assert_int_eq(sscanf(out, "Inode: %u", &ino), 1);
	/* unlink of debugfs leaves the inode a link, a crash does not. */
	ck_assert_int_eq(fake_run(fake,
				  "debugfs -w -R 'set_inode_field lost links_count 0' $IMG && "
				  "debugfs -w -R 'unlink lost' $IMG",
				  NULL, 0, true),
			 0);
	testvol_super(fake, &sb);
	vol = testvol_mount(fake);
	ck_assert_int_eq(ext4_inode_get_special(vol, sb.s_orphan_file_inum, &orphan_file), 0);
	ck_assert_int_eq(ext4_bmap(orphan_file, 0, &blk), 0);
	seed = orphan_file->checksum_seed;
	*ret_bitmap = ext2fs_inode_bitmap_loc(vol->fs, 0) << 10;
	ext4_inode_put(orphan_file);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	epoch_drain();

	fake_peek(fake, block, sizeof(block), blk << 10);
	ck_assert_uint_eq(block[254], 0x0b10ca04);
	block[5] = ino;
	block[255] = fdio_crc32c(fdio_crc32c(seed, &blk, 8), block, 254 * 4);
	fake_poke(fake, block, sizeof(block), blk << 10);
	testvol_super(fake, &sb);
	sb.s_feature_ro_compat |= EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT;
	testvol_poke_super(fake, &sb);
	*ret_ino = ino;
	return fake;
}

START_TEST(orphan_file_of_a_kernel_is_emptied)
{
	uint64_t bitmap;
	uint32_t ino;
	struct fake_dev *fake = crash_with_orphan_file(&ino, &bitmap);
	struct ext2_super_block sb;
	struct ext4_inode *inode;
	struct ext4_vol *vol;

	vol = testvol_mount(fake);
	ck_assert_int_eq(ext4_inode_get_special(vol, ino, &inode), 0);
	ck_assert_uint_ne(inode->raw->i_dtime, 0);
	inode->inode.bad = true; /* it is deleted: the last reference must not delete it again */
	ext4_inode_put(inode);
	testvol_unmount_check(vol, fake);
	testvol_super(fake, &sb);
	ck_assert(!(sb.s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT));
	fake_free(fake);
}
END_TEST

/*
 * The bitmap that says whether the inode of the entry is in use cannot be read: the volume is
 * refused and the entry stays. Once the bitmap can be read, the inode is deleted.
 */
START_TEST(orphan_file_is_kept_if_the_bitmap_cannot_be_read)
{
	uint64_t bitmap;
	uint32_t ino;
	struct fake_dev *fake = crash_with_orphan_file(&ino, &bitmap);
	struct ext4_options options = testvol_options();
	struct ext4_vol *vol = NULL;
	struct ext2_super_block sb;
	const char *why = NULL;
	char reason[300] = "";

	fake_fault_add(fake, &(struct fake_fault){ .kinds = FAKE_READ,
						   .off = bitmap,
						   .len = 1024,
						   .action = FAKE_ERROR,
						   .err = -EIO });
	ck_assert_int_eq(ext4_vol_open(fake_dev(fake), &options, &vol, &why, FDIO_REASON(reason)),
			 -EIO);
	ck_assert_uint_gt(fake_fault_hits(fake), 0);
	ck_assert_msg(strstr(reason, "interrupted deletions"), "%s", reason);
	epoch_drain();
	testvol_super(fake, &sb);
	ck_assert(sb.s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT);
	ck_assert(!(sb.s_state & EXT2_ERROR_FS));
	fake_fault_clear(fake);
	vol = testvol_mount(fake);
	testvol_unmount_check(vol, fake);
	testvol_super(fake, &sb);
	ck_assert(!(sb.s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT));
	fake_free(fake);
}
END_TEST

/* A list that begins with an impossible or an unused inode is cut; the volume is served. */
START_TEST(damaged_orphan_list_is_cut)
{
	struct fake_dev *fake = testvol_shape(0);
	struct ext2_super_block sb;
	struct ext4_vol *vol;

	testvol_super(fake, &sb);
	sb.s_last_orphan = _i == 0 ? 0x7fffffff : _i == 1 ? 500 : 8;
	testvol_poke_super(fake, &sb);
	vol = testvol_mount(fake);
	ck_assert(!ext4_vol_read_only(vol));
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	testvol_super(fake, &sb);
	ck_assert_uint_eq(sb.s_last_orphan, 0);
	ck_assert(sb.s_state & EXT2_ERROR_FS);
	ck_assert_uint_gt(sb.s_error_count, 0);
	fake_free(fake);
}
END_TEST

/* How many of the list ext4_orphans_collect takes into memory at a time. */
enum { COLLECTED_AT_ONCE = 1024 };

/*
 * Makes nr files without a name on a new volume, so that all of them are on the orphan list, and
 * cuts the power. The first of the list, which is the one made last, has a block of attributes:
 * *block is its place on the device.
 */
static struct fake_dev *crash_with_orphans(unsigned nr, uint64_t *block)
{
	struct fake_dev *fake = fake_mkfs(32 << 20, "-t ext4 -b 1024 -I 128 -N 4096 -J size=4");
	static const char value[300] = "too long for an inode";
	struct fake_dev *cut;
	struct ext4_inode *inode = NULL;
	struct ext4_vol *vol;

	ck_assert_ptr_nonnull(fake);
	vol = testvol_mount(fake);
	for (unsigned k = 0; k < nr; k++)
		inode = testvol_tmpfile(vol, S_IFREG | 0600);
	ck_assert_int_eq(ext4_xattr_set(inode, "user.a", value, sizeof value, 0, EXT4_XATTR_ROOT),
			 0);
	*block = ext4_raw_file_acl(inode) << vol->block_bits;
	ck_assert_uint_ne(*block, 0);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	cut = fake_power_cut(fake, FAKE_CUT_DROP, 1);
	ext4_vol_abandon(vol);
	epoch_drain();
	fake_free(fake);
	return cut;
}

/*
 * One orphan cannot be deleted because its block of attributes cannot be read. If the whole list
 * is in memory (_i is 0) that orphan stays on it and the volume is served. If the end of the list
 * is only on the disk (_i is 1), the next change of the list would make a circle of it: the volume
 * is refused with -EIO. Once the block can be read, all are deleted.
 */
START_TEST(list_that_is_partly_on_disk_is_refused)
{
	const unsigned nr = COLLECTED_AT_ONCE + (_i ? 100 : -100);
	struct ext4_options options = testvol_options();
	struct ext4_vol *vol = NULL;
	struct ext2_super_block sb;
	const char *why = NULL;
	char reason[300] = "";
	struct fake_dev *fake;
	uint64_t block;
	int err;

	fake = crash_with_orphans(nr, &block);
	fake_fault_add(fake, &(struct fake_fault){ .kinds = FAKE_READ,
						   .off = block,
						   .len = 1024,
						   .action = FAKE_ERROR,
						   .err = -EIO });
	err = ext4_vol_open(fake_dev(fake), &options, &vol, &why, FDIO_REASON(reason));
	ck_assert_uint_gt(fake_fault_hits(fake), 0);
	ck_assert_int_eq(err, _i ? -EIO : 0);
	if (_i) {
		ck_assert_msg(strstr(reason, "interrupted deletions"), "%s", reason);
	} else {
		ck_assert(!ext4_vol_read_only(vol));
		ck_assert_int_eq(ext4_vol_close(vol), 0);
	}
	epoch_drain();
	testvol_super(fake, &sb);
	ck_assert_uint_ne(sb.s_last_orphan, 0);
	fake_fault_clear(fake);
	vol = testvol_mount(fake);
	ck_assert_uint_eq(ext4_orphans_count(vol), 0);
	testvol_unmount_check(vol, fake);
	fake_free(fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: orphans");
	TCase *t = unit_case(s, "orphans", 60);

	fdio_log_set_level(0); /* much of this is expected to complain */
	unit_loop(t, crash_is_replayed_and_orphans_deleted, 0, (int)nr_testvol_shapes);
	unit_test(t, orphan_file_of_a_kernel_is_emptied);
	unit_test(t, orphan_file_is_kept_if_the_bitmap_cannot_be_read);
	unit_loop(t, damaged_orphan_list_is_cut, 0, 3);
	unit_loop(t, list_that_is_partly_on_disk_is_refused, 0, 2);
	return s;
}
