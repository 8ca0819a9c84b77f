/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Damage and I/O errors of a mounted volume: what the errors option decides, what the superblock
 * records and keeps over an abort and a replay, and that an I/O error anywhere is survived. Errors
 * are made by the fake device.
 */
#include "opening.h"

#include "base/log.h"
#include "ext4/inode/inode_cache.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const char *ro_said; /* the reason that went_read_only was called with */

static void went_read_only(void *arg, const char *why)
{
	/* The error must not be answered before this has returned, however long it takes. */
	unit_pause_ms(20);
	ro_said = why;
	(void)arg;
}

/*
 * Damage makes the volume read-only with EXT4_ERRORS_RO and not with EXT4_ERRORS_CONTINUE; in both
 * cases the superblock records it. The volume can be mounted again, as in the kernel.
 */
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
	options.went_read_only = went_read_only;
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
	vol = testvol_mount(fake);
	ck_assert_int_eq(ext4_vol_close(vol), 0);
	fake_free(fake);
}
END_TEST

/*
 * A block of the inode table that cannot be read is recorded in the superblock as damage is, with
 * the code of an I/O error, and the errors option applies. A directory's block is not recorded.
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
	/* The last file does not share a block of the inode table with the root directory. */
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
 * A write to the log or a flush fails: the waiting sync gets the error, the volume becomes
 * read-only, the superblock records it, and reads go on.
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
	options.went_read_only = went_read_only;
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
	/* All that e2fsck has to do is to replay the log and to clear the error state. */
	ck_assert_int_le(fake_run(fake, "e2fsck -p $IMG >/dev/null 2>&1", NULL, 0, true), 1);
	ck_assert_int_eq(fake_e2fsck(fake), 0);
	testvol_mounts_clean(fake);
}
END_TEST

/*
 * Damage is recorded in the superblock, and the journal aborts before that is durable: after the
 * close both errors are in the superblock. The abort happens at the close, or in the ticker.
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
	bool in_ticker = _i == 1;

	options.errors = EXT4_ERRORS_CONTINUE;
	ck_assert_int_eq(try_open(fake, &options, &vol, &why, msg, sizeof(msg)), 0);
	fake_fault_add(fake, &fault);
	ck_assert_int_eq(EXT4_CORRUPT(vol, 12, 34, "made up"), -EUCLEAN);
	if (in_ticker)
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

/*
 * The log holds a copy of the superblock from before the abort. Replaying it does not remove the
 * error state, not even if the superblock has lost it: the journal's superblock has it too.
 */
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
	bool fsck, lost = _i == 1;

	/* A new orphan puts a copy of the superblock into the log: the list begins there. */
	inode = testvol_tmpfile(vol, S_IFREG | 0600);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	root = testvol_root(vol);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MTIME_NOW, &(struct ext4_attr){ 0 }), 0);
	ext4_inode_put(root);
	fake_fault_add(fake, &fault);
	ck_assert_int_eq(ext4_vol_sync(vol), -EIO);
	ext4_inode_put(inode);
	ck_assert_int_eq(ext4_vol_close(vol), -EIO);
	if (lost) {
		testvol_super(fake, &sb);
		sb.s_state &= (uint16_t)~EXT2_ERROR_FS;
		sb.s_error_count = 0;
		testvol_poke_super(fake, &sb);
	}
	ck_assert_int_eq(ext4_vol_recover(fake_dev(fake), false, &fsck, FDIO_REASON(msg)), 0);
	testvol_super(fake, &sb);
	ck_assert(!(sb.s_feature_incompat & EXT3_FEATURE_INCOMPAT_RECOVER) || sb.s_last_orphan);
	ck_assert(sb.s_state & EXT2_ERROR_FS);
	ck_assert_uint_eq(sb.s_error_count, lost ? 0 : 1);
	if (!lost)
		ck_assert_uint_eq(sb.s_first_error_errcode, 2);
	ck_assert(ext4_super_checksum_ok(&sb));
	fake_free(fake);
}
END_TEST

/*
 * One I/O error at the Nth read, write or flush of mount, change and unmount never crashes, and
 * leaves what can be mounted again and e2fsck can repair.
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
	Suite *suite = suite_create("ext4: errors");
	TCase *tests = unit_case(suite, "volume", 60);

	fdio_log_set_level(0); /* what these tests provoke would be logged */
	unit_loop(tests, errors_option_is_followed, 0, 2);
	unit_loop(tests, read_errors_of_metadata_are_noted, 0, 3);
	unit_loop(tests, failed_log_write_makes_read_only, 0, 2);
	unit_loop(tests, note_of_an_error_survives_the_abort, 0, 2);
	unit_loop(tests, replay_takes_no_error_back, 0, 2);
	unit_loop(tests, io_error_anywhere_is_an_error, 0, 16);
	return suite;
}
