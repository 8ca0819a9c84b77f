/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Opening, recovering and closing volumes: every shape of file system, every verdict of the feature
 * list, the order of needs_recovery around the journal, what a crash leaves, errors and their
 * policy.
 */
#include "kit/volume.h"

#include "base/crc32c.h"
#include "base/log.h"
#include "ext4/inode/inode_cache.h"

#include <errno.h>
#include <ext2fs/ext3_extents.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int try_open(struct fake_dev *fake, struct ext4_options *options, struct ext4_vol **vol,
		    const char **why, char *msg, size_t len)
{
	*vol = NULL;
	*why = NULL;
	return ext4_vol_open(fake_dev(fake), options, vol, why, FDIO_REASON_AT(msg, len));
}

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
	const char *args;  /* mke2fs */
	uint32_t incompat, ro_compat; /* added by hand */
	bool refused;
	const char *says;
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
	sb.s_hash_seed[0] ^= 1; /* the checksum does not fit any more, and no backup has it */
	fake_poke(fake, &sb, sizeof(sb), SUPERBLOCK_OFFSET);
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), -EUCLEAN);
	ck_assert(strstr(msg, "e2fsck"));
	fake_free(fake);
}
END_TEST

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

/* needs_recovery, but nothing in the log: the crash came before the first commit. */
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
 * A device that cannot be written is served with norecovery only; ro on one that can replays, and
 * finishes deletions.
 */
START_TEST(recovery_of_what_is_read_only)
{
	struct fake_dev *fake = testvol_shape(0), *cut, *copy, *sick;
	struct ext2_super_block sb;
	uint64_t orphan_at;
	uint32_t off;
	unsigned mounted;
	bool fsck;
	struct ext4_options options = testvol_options();
	struct ext4_inode *inode;
	const char *why;
	struct ext4_vol *vol = testvol_mount(fake);
	char msg[300];

	inode = testvol_tmpfile(vol, S_IFREG | 0600);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	cut = fake_power_cut(fake, FAKE_CUT_DROP, 1);
	orphan_at = ext4_itable_place(vol, inode->ino, &off) << 10;
	ext4_inode_put(inode);
	testvol_unmount_check(vol, fake);
	fake_free(fake);

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

	/* The first step alone, as before a fuseblk mount, on a copy. */
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

	/* Where the orphan cannot be read, the rest can. */
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

	/* And before a read-only mount, which could not finish what was interrupted. */
	ck_assert_int_eq(ext4_vol_recover(fake_dev(copy), true, &fsck, FDIO_REASON(msg)), 0);
	ck_assert_int_eq(fake_e2fsck(copy), 0);
	testvol_super(copy, &sb);
	ck_assert_uint_eq(sb.s_last_orphan, 0);
	ck_assert_uint_eq(sb.s_mnt_count, mounted);
	fake_stats_reset(copy);
	ck_assert_int_eq(ext4_vol_recover(fake_dev(copy), true, &fsck, FDIO_REASON(msg)), 0);
	ck_assert_uint_eq(fake_stats(copy).writes, 0);
	fake_free(copy);

	/* A read-only mount replays as well, and leaves the log empty. */
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
 * The log is not empty although needs_recovery is clear: the kernel would throw it away, we do not
 * guess.
 */
START_TEST(log_without_its_bit_is_not_guessed_about)
{
	struct fake_dev *fake = testvol_shape(0), *cut;
	struct ext4_options options = testvol_options();
	struct ext2_super_block sb;
	struct ext4_inode *inode;
	const char *why;
	struct ext4_vol *vol = testvol_mount(fake);
	char msg[300];

	inode = testvol_tmpfile(vol, S_IFREG | 0600);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	cut = fake_power_cut(fake, FAKE_CUT_DROP, 1);
	ext4_inode_put(inode);
	testvol_unmount_check(vol, fake);
	fake_free(fake);
	testvol_super(cut, &sb);
	sb.s_feature_incompat &= ~(uint32_t)EXT3_FEATURE_INCOMPAT_RECOVER;
	testvol_poke_super(cut, &sb);
	ck_assert_int_eq(try_open(cut, &options, &vol, &why, msg, sizeof(msg)), -EUCLEAN);
	ck_assert_msg(strstr(msg, "e2fsck"), "%s", msg);
	fake_free(cut);
}
END_TEST

/*
 * The superblock torn between its sectors, at mount and at unmount, either half new: served, and
 * its content is one of the two. With a backup that does not fit, on a device that cannot be
 * written, or with norecovery, it is damage.
 */
START_TEST(torn_superblock_is_completed_from_a_backup)
{
	struct fake_dev *fake = testvol_shape(0);
	struct ext4_options options = testvol_options();
	static struct ext2_super_block s[3], torn, sb;
	unsigned old = (unsigned)_i / 2;
	struct fake_dev *cut[3];
	const char *why;
	struct ext4_vol *vol;
	char msg[300];
	uint64_t backup;

	testvol_super(fake, &s[0]);
	cut[0] = fake_clone(fake);
	vol = testvol_mount(fake);
	testvol_super(fake, &s[1]);
	cut[1] = fake_clone(fake);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	testvol_super(fake, &s[2]);
	fake_free(fake);
	/*
	 * What is torn is written last in both cases; the rest of the device is as it was before.
	 */
	memcpy(&torn, &s[old + _i % 2], 512);
	memcpy((char *)&torn + 512, (char *)&s[old + 1 - _i % 2] + 512, 512);
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
		backup = (s[0].s_first_data_block + (uint64_t)g * s[0].s_blocks_per_group)
			 << (10 + s[0].s_log_block_size);
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

/* Inode 8 says that the log has every block twice, or a hole, or that it is deleted. */
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

static const char *ro_said;
static void went_ro(void *arg, const char *why)
{
	/* Whoever is told of the error must find this done, however long it takes. */
	unit_pause_ms(20);
	ro_said = why;
	(void)arg;
}

START_TEST(errors_option_is_followed)
{
	struct fake_dev *fake = testvol_shape(0);
	struct ext4_options options = testvol_options();
	struct ext2_super_block sb;
	const char *why;
	struct ext4_vol *vol;
	char msg[300];
	bool ro = _i == 1;

	ro_said = NULL;
	options.errors = ro ? EXT4_ERRORS_RO : EXT4_ERRORS_CONTINUE;
	options.went_read_only = went_ro;
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), 0);
	ck_assert_int_eq(EXT4_CORRUPT(vol, 12, 34, "made up"), -EUCLEAN);
	ck_assert_int_eq(ext4_vol_read_only(vol), ro);
	ck_assert_int_eq(ro_said != NULL, ro);
	ck_assert_int_eq(ext4_vol_close(vol), ro ? -EIO : 0);
	testvol_super(fake, &sb);
	ck_assert(sb.s_state & EXT2_ERROR_FS);
	ck_assert_uint_eq(sb.s_error_count, 1);
	ck_assert_uint_eq(sb.s_first_error_ino, 12);
	ck_assert_uint_eq(sb.s_last_error_block, 34);
	ck_assert_uint_eq(sb.s_last_error_errcode, 5); /* corrupted */
	ck_assert(ext4_super_checksum_ok(&sb));
	/* With errors it is mounted all the same, as the kernel does. */
	vol = testvol_mount(fake);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	fake_free(fake);
}
END_TEST

/*
 * An inode table or a bitmap that cannot be read is noted as damage is, with the code of an I/O
 * error; one file's own block is not.
 */
START_TEST(read_errors_of_metadata_are_noted)
{
	static const struct {
		bool noted, ro;
	} want[3] = { { true, false }, { true, true }, { false, false } };
	struct fake_dev *fake = testvol_shape(0);
	struct ext4_options options = testvol_options();
	struct ext2_super_block sb;
	struct ext4_inode *root, *inode;
	uint64_t blk, at;
	uint32_t off, ino;
	const char *why;
	struct ext4_vol *vol;
	char msg[300], name[16];

	vol = testvol_mount(fake);
	root = testvol_root(vol);
	/* the last does not share a block of the table with the root */
	for (unsigned n = 0; n < 40; n++) {
		snprintf(name, sizeof(name), "f%u", n);
		ck_assert_int_eq(ext4_create(root, name, (unsigned)strlen(name), 0100644, 0,
					     &(struct ext4_credentials){ 0 }, &inode),
				 0);
		ino = ext4_inode_ino(inode);
		ext4_inode_put(inode);
	}
	blk = ext4_itable_place(vol, ino, &off);
	ck_assert_int_eq(ext4_bmap(root, 0, &at), 0);
	ext4_inode_put(root);
	ck_assert_int_eq(ext4_vol_close(vol), 0);

	options.errors = want[_i].ro ? EXT4_ERRORS_RO : EXT4_ERRORS_CONTINUE;
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), 0);
	root = testvol_root(vol);
	fake_fault_add(fake, &(struct fake_fault){ .kinds = FAKE_READ,
						   .off = (_i == 2 ? at : blk) * vol->block_size,
						   .len = vol->block_size,
						   .action = FAKE_ERROR,
						   .err = -EIO });
	if (_i == 2)
		ck_assert_int_eq(ext4_lookup(root, "f1", 2, &inode), -EIO);
	else
		ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), -EIO);
	ck_assert_uint_gt(fake_fault_hits(fake), 0);
	fake_fault_clear(fake);
	ck_assert_int_eq(ext4_vol_read_only(vol), want[_i].ro);
	ext4_inode_put(root);
	ck_assert_int_eq(ext4_vol_close(vol), want[_i].ro ? -EIO : 0);
	testvol_super(fake, &sb);
	ck_assert_int_eq(!!(sb.s_state & EXT2_ERROR_FS), want[_i].noted);
	ck_assert_uint_eq(sb.s_error_count, want[_i].noted);
	if (want[_i].noted) {
		ck_assert_uint_eq(sb.s_first_error_ino, ino);
		ck_assert_uint_eq(sb.s_last_error_block, blk);
		ck_assert_uint_eq(sb.s_last_error_errcode, 2); /* an I/O error */
	}
	fake_free(fake);
}
END_TEST

/*
 * A write to the log or a flush fails: read-only, the waiter is told, the superblock says so, reads
 * go on.
 */
START_TEST(failed_log_write_makes_read_only)
{
	struct fake_dev *fake = testvol_shape(0);
	struct ext4_options options = testvol_options();
	struct fake_fault fault = { .kinds = _i ? FAKE_FLUSH : FAKE_WRITE,
				    .repeat = 1,
				    .action = FAKE_ERROR,
				    .err = -EIO };
	struct ext2_super_block sb;
	struct ext4_inode *root, *inode;
	struct ext4_vol *vol;
	const char *why;
	char msg[300];

	ro_said = NULL;
	options.went_read_only = went_ro;
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), 0);
	root = testvol_root(vol);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MTIME_NOW, &(struct ext4_attr){ 0 }), 0);
	fake_fault_add(fake, &fault);
	ck_assert_int_eq(ext4_vol_sync(vol), -EIO);
	ck_assert_uint_eq(fake_fault_hits(fake), 1);
	ck_assert(ext4_vol_read_only(vol));
	ck_assert_ptr_nonnull(ro_said);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MTIME_NOW, &(struct ext4_attr){ 0 }), -EROFS);
	ck_assert_int_eq(ext4_lookup(root, "lost+found", 10, &inode), 0);
	ext4_inode_put(inode);
	ext4_inode_put(root);
	ck_assert_int_eq(ext4_vol_close(vol), -EIO);
	testvol_super(fake, &sb);
	ck_assert(sb.s_state & EXT2_ERROR_FS);
	ck_assert(sb.s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER);
	ck_assert_uint_eq(sb.s_error_count, 1);
	ck_assert_uint_eq(sb.s_first_error_errcode, 2); /* an I/O error */
	ck_assert(ext4_super_checksum_ok(&sb));
	/* e2fsck has nothing to do but replay, and clear the mark. */
	ck_assert_int_le(fake_run(fake, "e2fsck -p $IMG >/dev/null 2>&1", NULL, 0, true), 1);
	ck_assert_int_eq(fake_e2fsck(fake), 0);
	testvol_mounts_clean(fake);
}
END_TEST

/*
 * An error is noted, and the journal aborts before the note is durable: both are in the superblock
 * all the same.
 */
START_TEST(note_of_an_error_survives_the_abort)
{
	struct fake_dev *fake = testvol_shape(0);
	struct ext4_options options = testvol_options();
	struct fake_fault fault = {
		.kinds = FAKE_WRITE, .repeat = 1, .action = FAKE_ERROR, .err = -EIO
	};
	struct ext2_super_block sb;
	const char *why;
	struct ext4_vol *vol;
	char msg[300];

	options.errors = EXT4_ERRORS_CONTINUE;
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), 0);
	fake_fault_add(fake, &fault);
	ck_assert_int_eq(EXT4_CORRUPT(vol, 12, 34, "made up"), -EUCLEAN);
	if (_i) /* the ticker finds it */
		for (int n = 0; n < 1000 && !ext4_vol_read_only(vol); n++)
			unit_pause_ms(10);
	ck_assert_int_eq(ext4_vol_close(vol), -EIO);
	ck_assert_uint_eq(fake_fault_hits(fake), 1);
	testvol_super(fake, &sb);
	ck_assert(sb.s_state & EXT2_ERROR_FS);
	ck_assert_uint_eq(sb.s_error_count, 2);
	ck_assert_uint_eq(sb.s_first_error_ino, 12);
	ck_assert_uint_eq(sb.s_first_error_errcode, 5);
	ck_assert_uint_eq(sb.s_last_error_errcode, 2);
	fake_free(fake);
}
END_TEST

/* The log holds a superblock from before the abort: replaying it does not take the error back. */
START_TEST(replay_takes_no_error_back)
{
	struct fake_dev *fake = testvol_shape(0);
	struct fake_fault fault = {
		.kinds = FAKE_WRITE, .repeat = 1, .action = FAKE_ERROR, .err = -EIO
	};
	struct ext2_super_block sb;
	struct ext4_inode *root, *inode;
	struct ext4_vol *vol = testvol_mount(fake);
	char msg[300];
	bool fsck;

	/* the list of orphans begins in the superblock */
	inode = testvol_tmpfile(vol, S_IFREG | 0600);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	root = testvol_root(vol);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MTIME_NOW, &(struct ext4_attr){ 0 }), 0);
	ext4_inode_put(root);
	fake_fault_add(fake, &fault);
	ck_assert_int_eq(ext4_vol_sync(vol), -EIO);
	ext4_inode_put(inode);
	ck_assert_int_eq(ext4_vol_close(vol), -EIO);
	if (_i) { /* even if the note was lost, the journal says so */
		testvol_super(fake, &sb);
		sb.s_state &= (uint16_t)~EXT2_ERROR_FS;
		sb.s_error_count = 0;
		testvol_poke_super(fake, &sb);
	}
	ck_assert_int_eq(ext4_vol_recover(fake_dev(fake), false, &fsck, FDIO_REASON(msg)), 0);
	testvol_super(fake, &sb);
	ck_assert(!(sb.s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER) || sb.s_last_orphan);
	ck_assert(sb.s_state & EXT2_ERROR_FS);
	ck_assert_uint_eq(sb.s_error_count, _i ? 0 : 1);
	if (!_i)
		ck_assert_uint_eq(sb.s_first_error_errcode, 2);
	ck_assert(ext4_super_checksum_ok(&sb));
	fake_free(fake);
}
END_TEST

/* What the library says has words. */
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

/* Blocks larger than a page are read, and it is said. */
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

/* Every block number that matters is refused, and none that belongs to files. */
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

/*
 * An I/O error at every read and write of mount, work and unmount: an error, never a crash, and
 * e2fsck can repair.
 */
START_TEST(io_error_anywhere_is_an_error)
{
	struct ext4_options options = testvol_options();
	unsigned skip = (unsigned)_i * 3;

	struct fake_dev *fake = testvol_shape(0);
	struct fake_fault fault = { .kinds = FAKE_READ | FAKE_WRITE | FAKE_FLUSH,
				    .skip = skip,
				    .repeat = 1,
				    .action = FAKE_ERROR,
				    .err = -EIO };
	struct ext4_vol *vol;
	const char *why;
	char msg[300];

	fake_fault_add(fake, &fault);
	if (!try_open(fake, &options, &vol, &why, msg, sizeof(msg))) {
		struct ext4_inode *root;

		if (!ext4_inode_get(vol, EXT4_ROOT_INO, NULL, &root)) {
			nowait_ignore(ext4_setattr(root, EXT4_SET_MTIME_NOW,
						   &(struct ext4_attr){ 0 }));
			ext4_inode_put(root);
		}
		(void)ext4_vol_sync(vol);
		(void)ext4_vol_close(vol);
		epoch_drain();
	} else {
		ck_assert_uint_gt(strlen(msg), 0);
	}
	fake_fault_clear(fake);
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), 0);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	ck_assert_int_le(fake_run(fake, "e2fsck -fy $IMG >/dev/null 2>&1", NULL, 0, true), 1);
	ck_assert_int_eq(fake_e2fsck(fake), 0);
	fake_free(fake);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: open and close");
	TCase *t = unit_case(s, "volume", 60);
	int n = (int)nr_testvol_shapes;

	fdio_log_set_level(0); /* much of this is expected to complain */
	unit_loop(t, every_shape_opens_and_closes_clean, 0, n);
	unit_test(t, read_only_writes_nothing);
	unit_loop(t, every_feature_has_its_verdict, 0, (int)ARRAY_SIZE(verdicts));
	unit_test(t, what_is_no_file_system_is_refused);
	unit_test(t, file_system_larger_than_device_is_refused);
	unit_test(t, crash_before_the_first_commit);
	unit_test(t, recovery_of_what_is_read_only);
	unit_test(t, log_without_its_bit_is_not_guessed_about);
	unit_loop(t, torn_superblock_is_completed_from_a_backup, 0, 4);
	unit_loop(t, damaged_log_inode_is_refused, 0, 3);
	unit_loop(t, errors_option_is_followed, 0, 2);
	unit_loop(t, read_errors_of_metadata_are_noted, 0, 3);
	unit_loop(t, failed_log_write_makes_read_only, 0, 2);
	unit_loop(t, note_of_an_error_survives_the_abort, 0, 2);
	unit_loop(t, replay_takes_no_error_back, 0, 2);
	unit_test(t, errors_of_the_library_have_words);
	unit_loop(t, blocks_larger_than_a_page_are_read_only, 0, 2);
	unit_loop(t, metadata_blocks_are_nobodys_data, 0, n);
	unit_loop(t, io_error_anywhere_is_an_error, 0, 16);
	return s;
}
