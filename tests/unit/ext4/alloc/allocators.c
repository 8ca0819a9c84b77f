/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The allocators: reservations, claims, frees, and what remains of them when the handle is
 * cancelled; reuse only after the commit (JOURNAL-8); space kept for root and for metadata;
 * placement; inodes. After each test the counts in memory are compared with the bitmaps, and e2fsck
 * must find nothing, unless the test has damaged the file system.
 */
#include "kit/volume.h"

#include "base/log.h"
#include "ext4/inode/inode_change.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct fake_dev *f;
static struct ext4_vol *v;

static void setup(unsigned n)
{
	f = testvol_shape(n);
	v = testvol_mount(f);
}

static void finish(void)
{
	testvol_check_groups(v);
	testvol_unmount_check(v, f);
	fake_free(f);
}

/* The bit of blk in the bitmap on disk, which may still be in the journal's cache. */
static bool on_disk(uint64_t blk)
{
	struct journal_buffer *buffer;
	bool set;

	ck_assert_int_eq(journal_read_block(v->journal,
					    v->alloc.groups[ext4_group_of(v, blk)].block_bitmap,
					    &buffer),
			 0);
	set = ext4_bit(buffer->data, ext4_group_bit(v, blk));
	journal_buffer_release(buffer);
	return set;
}

START_TEST(bits_are_found_and_counted)
{
	uint8_t map[64] = { 0 };

	ck_assert_uint_eq(ext4_bits_next(map, 512, 0, true), 512);
	ck_assert_uint_eq(ext4_bits_next(map, 500, 0, false), 0);
	ext4_bits_fill(map, 3, 130, true);
	ck_assert_uint_eq(ext4_bits_next(map, 512, 0, true), 3);
	ck_assert_uint_eq(ext4_bits_next(map, 512, 3, false), 133);
	ck_assert_uint_eq(ext4_bits_next(map, 100, 3, false), 100);
	ck_assert(ext4_bits_all(map, 3, 130, true));
	ck_assert(!ext4_bits_all(map, 2, 130, true));
	ck_assert(!ext4_bits_all(map, 4, 130, true));
	ext4_bits_fill(map, 63, 2, false);
	ck_assert_uint_eq(ext4_bits_next(map, 512, 10, false), 63);
	ck_assert_uint_eq(ext4_bits_next(map, 512, 63, true), 65);
	ck_assert_uint_eq(ext4_bits_clear_count(map, 512), 512 - 128);
	ck_assert_uint_eq(ext4_bits_clear_count(map, 70), 3 + 2);
	ck_assert(map[0] == 0xf8 && map[16] == 0x1f);
}
END_TEST

START_TEST(reserved_then_claimed_or_given_back)
{
	struct ext4_inode *inode;
	struct journal_handle *handle;
	uint64_t blk, free_blocks;
	uint32_t n;

	setup((unsigned)_i);
	inode = testvol_tmpfile(v, S_IFREG | 0600);
	free_blocks = v->alloc.free_blocks;
	ck_assert_int_eq(ext4_blocks_reserve(v, inode, 0, 100, false, &blk, &n), 0);
	ck_assert_uint_eq(n, 100); /* a new file system has such a run */
	ck_assert_uint_eq(v->alloc.free_blocks, free_blocks - 100);
	ck_assert(v->alloc.groups[ext4_group_of(v, blk)].desc.flags & EXT2_BG_BLOCK_UNINIT ||
		  !on_disk(blk));
	testvol_check_groups(v);

	/* After a cancelled claim the blocks are still reserved. */
	ck_assert_int_eq(journal_begin(v->journal, 4, &handle), 0);
	ck_assert_int_eq(ext4_blocks_claim(handle, inode, blk, 100), 0);
	ck_assert(on_disk(blk) && on_disk(blk + 99));
	journal_cancel(handle);
	ck_assert(v->alloc.groups[ext4_group_of(v, blk)].desc.flags & EXT2_BG_BLOCK_UNINIT ||
		  !on_disk(blk));
	ck_assert_uint_eq(v->alloc.free_blocks, free_blocks - 100);
	testvol_check_groups(v);

	ck_assert_int_eq(journal_begin(v->journal, 4, &handle), 0);
	ck_assert_int_eq(ext4_blocks_claim(handle, inode, blk, 60), 0);
	journal_end(handle);
	ext4_blocks_unreserve(v, blk + 60, 40);
	ck_assert_uint_eq(v->alloc.free_blocks, free_blocks - 60);
	ck_assert(on_disk(blk + 59) && !on_disk(blk + 60));
	testvol_check_groups(v);

	/*
	 * After a cancelled free the blocks are still allocated. A free that is not cancelled gives
	 * them back, but only after the commit.
	 */
	ck_assert_int_eq(journal_begin(v->journal, 4, &handle), 0);
	ck_assert_int_eq(ext4_blocks_free(handle, inode, blk, 60, false), 0);
	ck_assert_uint_eq(v->alloc.pending_free, 60);
	journal_cancel(handle);
	ck_assert_uint_eq(v->alloc.pending_free, 0);
	ck_assert(on_disk(blk));
	ck_assert_int_eq(journal_begin(v->journal, 4, &handle), 0);
	ck_assert_int_eq(ext4_blocks_free(handle, inode, blk, 60, false), 0);
	journal_end(handle);
	ck_assert(!on_disk(blk));
	ck_assert_uint_eq(v->alloc.free_blocks, free_blocks - 60);
	testvol_check_groups(v);
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	ext4_inode_put(inode);
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	finish();
}
END_TEST

/* A cancelled handle undoes its allocations of blocks and of an inode, again and again. */
START_TEST(cancelled_handle_gives_blocks_back)
{
	uint64_t blk[40], free_blocks, free_inodes;
	struct ext4_inode *inode, *root, *made;
	struct journal_handle *handle;
	uint32_t n, dirs;

	setup((unsigned)_i);
	inode = testvol_tmpfile(v, S_IFREG | 0600);
	root = testvol_root(v);
	free_blocks = v->alloc.free_blocks;
	free_inodes = v->core.free_inodes;
	dirs = v->alloc.nr_dirs;
	for (unsigned round = 0; round < 3; round++) {
		struct ext4_credentials credentials = { 0 };

		ck_assert_int_eq(journal_begin(v->journal, 60, &handle), 0);
		for (unsigned k = 0; k < 40; k++)
			ck_assert_int_eq(ext4_blocks_alloc(handle, inode,
							   k % 3 ? 0 : v->nr_blocks / 2, 1, &blk[k],
							   &n),
					 0);
		ck_assert_int_eq(ext4_inode_new(handle, root, S_IFDIR | 0755, &credentials, &made),
				 0);
		ck_assert_uint_eq(v->alloc.free_blocks, free_blocks - 40);
		ck_assert_uint_eq(v->core.free_inodes, free_inodes - 1);
		ck_assert_uint_eq(v->alloc.nr_dirs, dirs + 1);
		journal_cancel(handle);
		ext4_inode_put(made);
		ck_assert_uint_eq(v->alloc.free_blocks, free_blocks);
		ck_assert_uint_eq(v->core.free_inodes, free_inodes);
		ck_assert_uint_eq(v->alloc.nr_dirs, dirs);
		testvol_check_groups(v);
	}
	ext4_inode_put(root);
	ext4_inode_put(inode);
	finish();
}
END_TEST

START_TEST(freed_blocks_wait_for_the_commit)
{
	struct ext4_inode *inode;
	struct journal_handle *handle;
	uint64_t blk, again;
	uint32_t n;

	setup(0);
	inode = testvol_tmpfile(v, S_IFREG | 0600);
	ck_assert_int_eq(journal_begin(v->journal, 4, &handle), 0);
	ck_assert_int_eq(ext4_blocks_alloc(handle, inode, 0, 1, &blk, &n), 0);
	journal_end(handle);
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	ck_assert_int_eq(journal_begin(v->journal, 4, &handle), 0);
	ck_assert_int_eq(ext4_blocks_free(handle, inode, blk, 1, false), 0);
	journal_end(handle);
	ck_assert_int_eq(ext4_blocks_reserve(v, inode, blk, 1, false, &again, &n), 0);
	ck_assert_uint_ne(again, blk);
	ext4_blocks_unreserve(v, again, 1);
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	while (v->alloc.pending_free) /* given back a moment after the commit is announced */
		;
	ck_assert_int_eq(ext4_blocks_reserve(v, inode, blk, 1, false, &again, &n), 0);
	ck_assert_uint_eq(again, blk);
	ext4_blocks_unreserve(v, again, 1);
	ext4_inode_put(inode);
	finish();
}
END_TEST

/*
 * A user gets all blocks but those kept for root and for metadata. Freed blocks come back when the
 * allocator needs them, by a commit that it forces.
 */
START_TEST(full_for_users_not_for_root_and_metadata)
{
	struct ext4_inode *inode;
	uint64_t blk, kept;
	uint32_t n, step = 3000, at = 0;
	int err;

	setup((unsigned)_i);
	inode = testvol_tmpfile(v, S_IFREG | 0600);
	for (;;) {
		err = testvol_fill(inode, at, step);
		if (!err)
			at += step;
		else if (err == -ENOSPC && step > 1)
			step = (step + 1) / 2;
		else
			break;
	}
	ck_assert_int_eq(err, -ENOSPC);
	kept = v->alloc.kept_for_root + v->alloc.kept_for_metadata;
	ck_assert_uint_ge(v->alloc.free_blocks, kept);
	ck_assert_uint_le(v->alloc.free_blocks, kept + 8);
	ck_assert_int_eq(ext4_blocks_reserve(v, inode, 0, 1, true, &blk, &n), 0);
	ext4_blocks_unreserve(v, blk, n);
	ck_assert_int_eq(ext4_metadata_reserve(v, 10, EXT4_REQUESTER_USER), -ENOSPC);
	ck_assert_int_eq(ext4_metadata_reserve(v, 10, EXT4_REQUESTER_ROOT), 0);
	ext4_metadata_unreserve(v, 10);
	testvol_check_groups(v);

	ext4_inode_lock_exclusive(inode);
	ck_assert_int_eq(ext4_truncate(inode, 0), 0);
	ext4_inode_unlock(inode);
	ck_assert_uint_gt(v->alloc.pending_free, 1000);
	/* The test commits nothing: the allocator has to. */
	ck_assert_int_eq(testvol_fill(inode, 0, 1000), 0);
	testvol_check_groups(v);
	ext4_inode_put(inode);
	finish();
}
END_TEST

/* Two files that grow side by side do not interleave. */
START_TEST(two_growing_files_stay_in_long_pieces)
{
	struct ext4_inode *a, *b;
	struct ext4_extent extent;
	unsigned pieces = 0;

	setup(2);
	a = testvol_tmpfile(v, S_IFREG | 0600);
	b = testvol_tmpfile(v, S_IFREG | 0600);
	for (uint32_t n = 0; n < 400; n += 4) {
		ck_assert_int_eq(testvol_fill(a, n, 4), 0);
		ck_assert_int_eq(testvol_fill(b, n, 4), 0);
	}
	ck_assert_int_eq(ext4_map_load(a), 0);
	for (uint32_t n = 0; n < 400; n += extent.len, pieces++) {
		epoch_enter();
		ck_assert_int_eq(ext4_map_lookup(a, n, &extent), 0);
		epoch_exit();
		ck_assert_int_eq(extent.state, EXT4_EXTENT_WRITTEN);
	}
	ck_assert_uint_le(pieces, 4);
	ext4_inode_put(a);
	ext4_inode_put(b);
	finish();
}
END_TEST

/* Files grow, shrink and go at random, with a fixed seed; at the end all space is free again. */
START_TEST(random_files_leave_nothing_missing)
{
	struct ext4_inode *file[12] = { NULL };
	uint32_t at[12] = { 0 };
	struct ext4_statfs before, after;
	unsigned rnd = 12345 + (unsigned)_i;

	setup((unsigned)_i);
	ext4_vol_statfs(v, &before);
	for (unsigned n = 0; n < 400; n++) {
		unsigned k = (unsigned)rand_r(&rnd) % 12, what = (unsigned)rand_r(&rnd) % 8;

		if (!file[k]) {
			file[k] = testvol_tmpfile(v, S_IFREG | 0600);
			at[k] = 0;
		}
		if (what < 5) {
			uint32_t len = 1 + (unsigned)rand_r(&rnd) % 60;
			int err = testvol_fill(file[k], at[k], len);

			ck_assert(!err || err == -ENOSPC);
			at[k] += err ? 0 : len + (unsigned)rand_r(&rnd) % 2;
		} else if (what == 5) {
			at[k] /= 2;
			ext4_inode_lock_exclusive(file[k]);
			ck_assert_int_eq(ext4_truncate(file[k], (uint64_t)at[k] << v->block_bits),
					 0);
			ext4_inode_unlock(file[k]);
		} else if (what == 6) {
			ext4_inode_put(file[k]);
			file[k] = NULL;
		} else if (n % 10 == 0) {
			ck_assert_int_eq(ext4_vol_sync(v), 0);
		}
	}
	testvol_check_groups(v);
	for (unsigned k = 0; k < 12; k++)
		ext4_inode_put(file[k]);
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	ext4_vol_statfs(v, &after);
	ck_assert_uint_eq(after.bfree, before.bfree);
	ck_assert_uint_eq(after.ffree, before.ffree);
	finish();
}
END_TEST

START_TEST(every_inode_can_be_had_once)
{
	struct ext4_credentials credentials = { 0 };
	struct ext4_inode **all, *root;
	struct journal_handle *handle;
	uint32_t nr, free_inodes;
	int err;

	f = fake_mkfs(32 << 20, "-t ext4 -b 1024 -J size=4 -N 512 -E lazy_itable_init=1");
	ck_assert_ptr_nonnull(f);
	v = testvol_mount(f);
	free_inodes = v->core.free_inodes;
	all = calloc(free_inodes + 1, sizeof(*all));
	for (nr = 0; nr < free_inodes; nr++)
		all[nr] = testvol_tmpfile(v, S_IFREG | 0600);
	ck_assert_uint_eq(v->core.free_inodes, 0);
	root = testvol_root(v);
	ck_assert_int_eq(journal_begin(v->journal, EXT4_CREDITS_INODE_NEW, &handle), 0);
	err = ext4_inode_new(handle, root, S_IFREG | 0600, &credentials, &all[nr]);
	journal_cancel(handle);
	ck_assert_int_eq(err, -ENOSPC);
	ext4_inode_put(root);
	for (nr = 0; nr < free_inodes; nr++)
		ext4_inode_put(all[nr]);
	ck_assert_uint_eq(v->core.free_inodes, free_inodes);
	free(all);
	finish();
}
END_TEST

/* A damaged block bitmap takes its group out of use, and no other group. */
START_TEST(damaged_bitmap_takes_its_group_only)
{
	struct ext4_inode *inode;
	uint64_t blk, free_blocks;
	uint32_t n;
	uint8_t byte;

	setup(2);
	ck_assert_int_eq(ext4_vol_close(v), 0);
	v = testvol_mount(f);
	fake_peek(f, &byte, 1, (v->alloc.groups[0].block_bitmap << v->block_bits) + 200);
	byte ^= 0x10;
	fake_poke(f, &byte, 1, (v->alloc.groups[0].block_bitmap << v->block_bits) + 200);
	free_blocks = v->alloc.free_blocks;
	inode = testvol_tmpfile(v, S_IFREG | 0600);
	ck_assert_int_eq(ext4_blocks_reserve(v, inode,
					     v->alloc.groups[0].itable + v->itable_blocks + 10, 4,
					     false, &blk, &n),
			 0);
	ck_assert_uint_ne(ext4_group_of(v, blk), 0);
	ck_assert(v->alloc.groups[0].bad);
	ck_assert_uint_lt(v->alloc.free_blocks, free_blocks);
	ext4_blocks_unreserve(v, blk, n);
	ext4_inode_put(inode);
	ck_assert_int_eq(ext4_vol_close(v), 0);
	ck_assert_int_eq(fake_run(f, "e2fsck -fy $IMG >/dev/null 2>&1", NULL, 0, true), 1);
	ck_assert_int_eq(fake_e2fsck(f), 0);
	fake_free(f);
}
END_TEST

/* Freeing metadata, blocks outside, or free blocks is refused, and nothing changes. */
START_TEST(free_of_what_is_not_the_files_is_refused)
{
	struct ext4_inode *inode;
	struct journal_handle *handle;
	uint64_t blk;
	uint32_t n;

	setup(0);
	inode = testvol_tmpfile(v, S_IFREG | 0600);
	ck_assert_int_eq(ext4_blocks_reserve(v, inode, 0, 1, false, &blk, &n), 0);
	ext4_blocks_unreserve(v, blk, 1);
	ck_assert_int_eq(journal_begin(v->journal, 8, &handle), 0);
	ck_assert_int_eq(ext4_blocks_free(handle, inode, v->alloc.groups[0].itable, 1, false),
			 -EUCLEAN);
	ck_assert_int_eq(ext4_blocks_free(handle, inode, 1, 1, false), -EUCLEAN);
	ck_assert_int_eq(ext4_blocks_free(handle, inode, v->nr_blocks, 1, false), -EUCLEAN);
	/* free already */
	ck_assert_int_eq(ext4_blocks_free(handle, inode, blk, 1, false), -EUCLEAN);
	journal_cancel(handle);
	testvol_check_groups(v);
	ext4_inode_put(inode);
	ck_assert_int_eq(ext4_vol_close(v), 0);
	fake_free(f);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: allocators");
	TCase *t = unit_case(s, "alloc", 30);
	int n = (int)nr_testvol_shapes;

	fdio_log_set_level(0);
	unit_test(t, bits_are_found_and_counted);
	unit_loop(t, reserved_then_claimed_or_given_back, 0, n);
	unit_loop(t, cancelled_handle_gives_blocks_back, 0, n);
	unit_test(t, freed_blocks_wait_for_the_commit);
	unit_loop(t, full_for_users_not_for_root_and_metadata, 0, n);
	unit_test(t, two_growing_files_stay_in_long_pieces);
	unit_loop(t, random_files_leave_nothing_missing, 0, n);
	unit_test(t, every_inode_can_be_had_once);
	unit_test(t, damaged_bitmap_takes_its_group_only);
	unit_test(t, free_of_what_is_not_the_files_is_refused);
	return s;
}
