/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Deletion of inodes: the orphan list in every order, files that are still open at the unmount, and
 * threads that create and delete at once. After each test e2fsck must find nothing.
 */
#include "one_file.h"

#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>

/*
 * Ten orphans leave the list in random order, and it stays whole: one removal in three is cancelled
 * first, and now and then e2fsck replays a copy.
 */
START_TEST(orphan_list_in_any_order)
{
	struct ext4_inode *orphan[10];
	unsigned seed = 99 + (unsigned)_i, left = 10;
	struct ext2_super_block *sb;
	struct journal_handle *handle;
	uint32_t ino;

	one_file_mount(0, &ino);
	for (unsigned n = 0; n < 10; n++)
		orphan[n] = testvol_tmpfile(vol, S_IFREG | 0600);
	while (left) {
		unsigned pick = (unsigned)rand_r(&seed) % left;
		struct ext4_inode *inode = orphan[pick];

		if (rand_r(&seed) % 3 == 0) {
			ck_assert_int_eq(journal_begin(vol->journal, 8, &handle), 0);
			ck_assert_int_eq(ext4_orphan_del(handle, inode), 0);
			ck_assert(!inode->inode.on_orphans);
			journal_cancel(handle);
			ck_assert(inode->inode.on_orphans);
		}
		ext4_inode_put(inode);
		orphan[pick] = orphan[--left];
		if (rand_r(&seed) % 4 == 0) {
			ck_assert_int_eq(ext4_vol_sync(vol), 0);
			ck_assert_int_eq(fake_e2fsck_replay(fake), 0);
		}
	}
	ck_assert_int_eq(journal_begin(vol->journal, 1, &handle), 0);
	ck_assert_int_eq(ext4_super_begin(vol, handle, &sb), 0);
	ck_assert_uint_eq(sb->s_last_orphan, 0);
	journal_cancel(handle);
	one_file_end();
}
END_TEST

/* An unlinked file that is referenced when the volume is closed is deleted by closing. */
START_TEST(unmount_deletes_what_is_still_open)
{
	struct ext4_statfs before, after;
	struct ext4_inode *inode;
	uint32_t ino;

	one_file_mount((unsigned)_i, &ino);
	ext4_vol_statfs(vol, &before);
	inode = testvol_tmpfile(vol, S_IFREG | 0600);
	ck_assert_int_eq(testvol_fill(inode, 0, 50), 0);
	ext4_inode_ref(inode);
	one_file_remount();
	ext4_vol_statfs(vol, &after);
	ck_assert_uint_eq(after.bfree, before.bfree);
	ck_assert_uint_eq(after.ffree, before.ffree);
	one_file_end();
}
END_TEST

/* A thread: makes, fills, changes and drops files without a name. arg: the seed. */
static void *churn(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	struct ext4_attr attr;

	for (unsigned n = 0; n < 60; n++) {
		struct ext4_inode *inode = testvol_tmpfile(vol, S_IFREG | 0600),
				  *root = testvol_root(vol);

		ck_assert_int_eq(testvol_fill(inode, 0, 1 + (unsigned)rand_r(&seed) % 40), 0);
		ext4_touch_write(inode);
		ext4_touch_read(root);
		ext4_getattr(inode, &attr);
		attr.mode = 0640;
		ck_assert_int_eq(ext4_setattr(rand_r(&seed) % 2 ? inode : root,
					      EXT4_SET_MODE | EXT4_SET_MTIME_NOW, &attr),
				 0);
		ext4_inode_put(root);
		if (rand_r(&seed) % 2)
			ext4_touch_write(inode);
		ext4_inode_put(inode);
	}
	return NULL;
}

/* While four threads churn, a fifth writes lazy times and commits; no block or inode is lost. */
START_TEST(threads_create_and_delete)
{
	struct ext4_statfs before, after;
	pthread_t threads[4];
	uint32_t ino;

	one_file_mount((unsigned)_i, &ino);
	ext4_vol_statfs(vol, &before);
	for (unsigned n = 0; n < 4; n++)
		ck_assert_int_eq(pthread_create(&threads[n], NULL, churn,
						(void *)(uintptr_t)(n + 1)),
				 0);
	for (unsigned n = 0; n < 50; n++) {
		ck_assert_int_eq(ext4_vol_write_times(vol), 0);
		if (n % 10 == 0)
			ck_assert_int_eq(ext4_vol_sync(vol), 0);
	}
	for (unsigned n = 0; n < 4; n++)
		pthread_join(threads[n], NULL);
	ck_assert_int_eq(ext4_vol_sync(vol), 0);
	ext4_vol_statfs(vol, &after);
	ck_assert_uint_eq(after.bfree, before.bfree);
	ck_assert_uint_eq(after.ffree, before.ffree);
	one_file_end();
}
END_TEST

Suite *unit_suite(void)
{
	Suite *suite = suite_create("ext4: deletion of inodes");
	TCase *tests = unit_case(suite, "inode", 60);
	int nr = (int)nr_testvol_shapes;

	unit_loop(tests, orphan_list_in_any_order, 0, 5);
	unit_loop(tests, unmount_deletes_what_is_still_open, 0, nr);
	unit_loop(tests, threads_create_and_delete, 0, 3);
	return suite;
}
