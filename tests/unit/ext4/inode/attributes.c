/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Attributes of inodes: times in all their encodings, and when lazy times are written; mode, owner
 * and flags after a remount; rollback by a cancelled handle; and what a new inode inherits. Runs on
 * the test's thread.
 */
#include "one_file.h"

#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* The last second that can be stored; it has no fraction, as in the kernel. */
#define LAST_SECOND ((int64_t)INT32_MAX + (3LL << 32))

/* sec and nsec are set, want is what is stored; narrow: INT32_MAX is in an inode of 128 bytes. */
static const struct { int64_t sec; long nsec; int64_t want; bool narrow; } times[] = {
	{ 0, 0, 0, false },
	{ 1, 999999999, 1, false },
	{ -1, 500, -1, false },
	{ INT32_MAX, 5, INT32_MAX, false },
	{ INT32_MIN, 0, INT32_MIN, false },
	{ (int64_t)INT32_MIN - 1, 7, INT32_MIN, false },
	{ (int64_t)INT32_MAX + 1, 123456789, (int64_t)INT32_MAX + 1, true },
	{ 4294967296LL, 1, 4294967296LL, true },
	{ 10000000000LL, 1, 10000000000LL, true },
	{ LAST_SECOND, 3, LAST_SECOND, true },
	{ 99999999999LL, 3, LAST_SECOND, true },
};

/* A time that is set is read back, after a remount too, or the nearest that can be stored is. */
START_TEST(times_in_all_encodings)
{
	const unsigned all_times = EXT4_SET_ATIME | EXT4_SET_MTIME | EXT4_SET_CTIME;
	bool narrow = _i == 1; /* inodes of 128 bytes hold seconds only, until 2038 */
	struct ext4_inode *inode;
	struct ext4_attr set, got;
	uint32_t ino;

	one_file_mount(narrow ? 6 : 0, &ino);
	for (unsigned n = 0; n < ARRAY_SIZE(times); n++) {
		int64_t want = narrow && times[n].narrow ? INT32_MAX : times[n].want;

		ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), 0);
		memset(&set, 0, sizeof(set));
		set.atime = (struct timespec){ times[n].sec, times[n].nsec };
		set.mtime = set.ctime = set.atime;
		ck_assert_int_eq(ext4_setattr(inode, all_times, &set), 0);
		ext4_getattr(inode, &got);
		ck_assert_int_eq(got.mtime.tv_sec, want);
		ext4_inode_put(inode);
		if (n % 4 == 0)
			one_file_remount();
		ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), 0);
		ext4_getattr(inode, &got);
		ck_assert_int_eq(got.atime.tv_sec, want);
		ck_assert_int_eq(got.mtime.tv_sec, want);
		ck_assert_int_eq(got.ctime.tv_sec, want);
		if (want == times[n].sec)
			ck_assert_int_eq(got.ctime.tv_nsec,
					 narrow || want == LAST_SECOND ? 0 : times[n].nsec);
		ext4_inode_put(inode);
	}
	one_file_end();
}
END_TEST

/*
 * Mode, owner and flags survive a remount; a flag that describes the layout cannot be set. Then the
 * setuid and setgid bits are cleared, as by the writes of users without privileges.
 */
START_TEST(attributes_survive_a_remount)
{
	struct ext4_attr set = { .mode = 04751, .uid = 70000, .gid = 80000 }, got;
	struct ext4_inode *inode;
	uint32_t ino;

	one_file_mount((unsigned)_i, &ino);
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), 0);
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_MODE | EXT4_SET_UID | EXT4_SET_GID, &set), 0);
	set.flags = ext4_inode_flags(inode) | EXT2_NODUMP_FL | EXT2_NOATIME_FL;
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_FLAGS, &set), 0);
	set.flags = ext4_inode_flags(inode) ^ EXT4_EXTENTS_FL;
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_FLAGS, &set), -EOPNOTSUPP);
	ext4_inode_put(inode);
	one_file_remount();
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), 0);
	ext4_getattr(inode, &got);
	ck_assert_uint_eq(got.mode, S_IFREG | 04751);
	ck_assert_uint_eq(got.uid, 70000);
	ck_assert_uint_eq(got.gid, 80000);
	ck_assert_uint_eq(got.size, 6);
	ck_assert_uint_eq(got.nlink, 1);
	ck_assert_uint_eq(got.blocks_512, vol->block_size / 512);
	ck_assert((got.flags & (EXT2_NODUMP_FL | EXT2_NOATIME_FL | EXT4_EXTENTS_FL)) ==
		  (EXT2_NODUMP_FL | EXT2_NOATIME_FL | EXT4_EXTENTS_FL));

	ck_assert(ext4_needs_killpriv(inode));
	ck_assert_int_eq(ext4_setattr(inode, EXT4_KILL_SUIDGID, &set), 0);
	ck_assert_uint_eq(ext4_inode_mode(inode), S_IFREG | 0751);
	ck_assert_int_eq(ext4_setattr(inode, EXT4_KILL_SUIDGID, &set), 0);
	ck_assert(!ext4_needs_killpriv(inode));
	set.mode = 02700; /* without group execution: mandatory locking, not a privilege */
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_MODE, &set), 0);
	ck_assert(ext4_needs_killpriv(inode));
	ck_assert_int_eq(ext4_setattr(inode, EXT4_KILL_SUIDGID, &set), 0);
	ck_assert_uint_eq(ext4_inode_mode(inode), S_IFREG | 02700);
	/*
	 * EXT4_KILL_SUIDGID, a member's write, keeps the bit. That must not be cached as "nothing
	 * to clear": EXT4_KILL_SGID, the write of a user outside the group, clears it.
	 */
	ck_assert(ext4_needs_killpriv(inode));
	ck_assert_int_eq(ext4_setattr(inode, EXT4_KILL_SUIDGID | EXT4_KILL_SGID, &set), 0);
	ck_assert_uint_eq(ext4_inode_mode(inode), S_IFREG | 0700);
	ext4_inode_put(inode);
	one_file_end();
}
END_TEST

/*
 * Times of reads and writes change in memory at once and are written later: by fsync, when the
 * inode leaves the cache, by ext4_vol_write_times. Reads follow relatime.
 */
START_TEST(lazy_times_are_written_in_the_end)
{
	struct timespec now = { 2000000000, 5 };
	struct ext4_inode *inode;
	struct ext4_attr attr;
	journal_tid tid;
	uint32_t ino;

	one_file_mount((unsigned)_i, &ino);
	fake_set_clock(fake, &now);
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), 0);
	ck_assert(!ext4_sync_tid(inode, false, &tid));
	ext4_touch_write(inode);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.mtime.tv_sec, now.tv_sec);
	ck_assert_int_eq(attr.ctime.tv_sec, now.tv_sec);
	ck_assert_uint_ne(inode->raw->i_mtime, (uint32_t)now.tv_sec);
	ck_assert(!ext4_sync_tid(inode, true, &tid)); /* not by fdatasync */
	ck_assert(ext4_sync_tid(inode, false, &tid)); /* by fsync */
	ck_assert_uint_eq(inode->raw->i_mtime, (uint32_t)now.tv_sec);

	/* Times that are not written yet when the last reference is dropped are not lost. */
	now.tv_sec += 10;
	fake_set_clock(fake, &now);
	ext4_touch_write(inode);
	ext4_touch_read(inode);
	ext4_inode_put(inode);
	one_file_remount();
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), 0);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.mtime.tv_sec, now.tv_sec);
	ck_assert_int_eq(attr.atime.tv_sec, now.tv_sec);

	/* relatime: atime changes if it is not newer than ctime or mtime, or is a day old. */
	now.tv_sec += 100;
	fake_set_clock(fake, &now);
	nowait_ignore(ext4_setattr(inode, EXT4_SET_ATIME_NOW, &attr));
	now.tv_sec += 100;
	fake_set_clock(fake, &now);
	ext4_touch_read(inode);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.atime.tv_sec, now.tv_sec); /* ctime was as new as atime */
	now.tv_sec += 100;
	fake_set_clock(fake, &now);
	ext4_touch_read(inode);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.atime.tv_sec, now.tv_sec - 100);
	now.tv_sec += 86400;
	fake_set_clock(fake, &now);
	ext4_touch_read(inode);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.atime.tv_sec, now.tv_sec);

	/* A time that is set replaces a lazy one; a write after that replaces both. */
	ext4_touch_write(inode);
	attr.mtime = (struct timespec){ 3000000000LL, 0 };
	ck_assert_int_eq(ext4_setattr(inode, EXT4_SET_MTIME, &attr), 0);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.mtime.tv_sec, vol->inode_size > 128 ? 3000000000LL : INT32_MAX);
	now.tv_sec += 5;
	fake_set_clock(fake, &now);
	ext4_touch_write(inode);
	ck_assert_int_eq(ext4_vol_write_times(vol), 0);
	ext4_getattr(inode, &attr);
	ck_assert_int_eq(attr.mtime.tv_sec, now.tv_sec);
	ext4_inode_put(inode);
	fake_set_clock(fake, NULL);
	one_file_end();
}
END_TEST

/* After journal_cancel all attributes are as they were before ext4_inode_begin, lazy times too. */
START_TEST(cancelled_handle_restores_the_inode)
{
	struct ext4_attr before, after;
	struct journal_handle *handle;
	struct ext4_inode *inode;
	uint32_t ino;

	memset(&before, 0, sizeof(before)); /* memcmp below compares the padding too */
	memset(&after, 0, sizeof(after));
	one_file_mount((unsigned)_i, &ino);
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), 0);
	ext4_touch_write(inode);
	ext4_getattr(inode, &before);
	ck_assert_int_eq(journal_begin(vol->journal, 4, &handle), 0);
	ck_assert_int_eq(ext4_inode_begin(handle, inode), 0);
	ck_assert_int_eq(ext4_inode_begin(handle, inode), 0);
	fdio_mutex_lock(&inode->attr);
	ext4_raw_set_size(inode, 1ULL << 40);
	ext4_raw_set_mode(inode, S_IFREG | 07777);
	ext4_raw_set_time(inode, EXT4_SET_MTIME, (struct timespec){ 1, 1 });
	fdio_mutex_unlock(&inode->attr);
	ext4_raw_set_nlink(inode, 77);
	ck_assert_int_eq(ext4_raw_add_blocks(inode, 1000), 0);
	ck_assert_int_eq(ext4_inode_dirty(handle, inode, true), 0);
	ck_assert_uint_eq(ext4_inode_size(inode), 1ULL << 40);
	journal_cancel(handle);
	ext4_getattr(inode, &after);
	ck_assert_int_eq(memcmp(&before, &after, sizeof(before)), 0);
	ck_assert_uint_eq(ext4_inode_size(inode), before.size);
	ext4_inode_put(inode);
	one_file_end();
}
END_TEST

/*
 * A new inode in a setgid directory inherits the group, and a directory the bit as well. If the
 * handle is cancelled, the number is free again. A device number that fits has the old encoding.
 */
START_TEST(new_inodes_inherit_and_are_placed)
{
	uint32_t groups[] = { 5, 80000 };
	struct ext4_credentials credentials = {
		.uid = 65536, .gid = 7, .groups = groups, .nr_groups = 2
	};
	struct ext4_inode *root, *inode;
	struct journal_handle *handle;
	struct ext4_attr attr = { .mode = 02777, .gid = 90000 };
	uint32_t ino;

	one_file_mount((unsigned)_i, &ino);
	root = testvol_root(vol);
	ck_assert_int_eq(ext4_setattr(root, EXT4_SET_MODE | EXT4_SET_GID, &attr), 0);
	ck_assert_int_eq(journal_begin(vol->journal, 30, &handle), 0);
	ck_assert_int_eq(ext4_inode_new(handle, root, S_IFREG | 02775, &credentials, &inode), 0);
	ext4_getattr(inode, &attr);
	ck_assert_uint_eq(attr.uid, 65536);
	ck_assert_uint_eq(attr.gid, 90000);
	/* The creator is not in that group: no setgid executable. */
	ck_assert_uint_eq(attr.mode, S_IFREG | 0775);
	ck_assert_uint_eq(attr.nlink, 1);
	ck_assert(attr.flags & EXT4_EXTENTS_FL);
	if (vol->inode_size > 128)
		ck_assert_int_ne(attr.btime.tv_sec, 0);
	ino = inode->ino;
	journal_cancel(handle);
	ext4_inode_put(inode);
	ck_assert_int_eq(ext4_inode_get(vol, ino, NULL, &inode), -ENOENT);

	ck_assert_int_eq(journal_begin(vol->journal, 30, &handle), 0);
	ck_assert_int_eq(ext4_inode_new(handle, root, S_IFDIR | 0700, &credentials, &inode), 0);
	ck_assert_uint_eq(ext4_inode_mode(inode), S_IFDIR | 02700);
	journal_cancel(handle);
	ext4_inode_put(inode);
	ck_assert_int_eq(journal_begin(vol->journal, 30, &handle), 0);
	ck_assert_int_eq(ext4_inode_new(handle, root, S_IFCHR | 0600, &credentials, &inode), 0);
	ext4_raw_set_rdev(inode, 0x0103);
	ck_assert_uint_eq(ext4_raw_rdev(inode), 0x0103);
	ck_assert_uint_eq(inode->raw->i_block[0], 0x0103);
	ext4_raw_set_rdev(inode, 0x12345678);
	ck_assert_uint_eq(ext4_raw_rdev(inode), 0x12345678);
	ck_assert_uint_eq(inode->raw->i_block[0], 0);
	journal_cancel(handle);
	ext4_inode_put(inode);
	ext4_inode_put(root);
	one_file_end();
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("ext4: attributes of inodes");
	TCase *tests = unit_case(suite, "inode", 60);
	int nr = (int)nr_testvol_shapes;

	unit_loop(tests, times_in_all_encodings, 0, 2);
	unit_loop(tests, attributes_survive_a_remount, 0, nr);
	unit_loop(tests, lazy_times_are_written_in_the_end, 0, nr);
	unit_loop(tests, cancelled_handle_restores_the_inode, 0, nr);
	unit_loop(tests, new_inodes_inherit_and_are_placed, 0, nr);
	return suite;
}
