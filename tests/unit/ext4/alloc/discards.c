/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Discards: the mount option discard, which must neither run before a free is durable nor delay a
 * commit; and FITRIM. After each test the counts in memory are compared with the bitmaps, and
 * e2fsck must find nothing.
 */
#include "kit/volume.h"

#include "base/log.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static struct fake_dev *f;
static struct ext4_vol *v;

static void setup(unsigned shape, bool discard)
{
	struct ext4_options options = testvol_options();

	f = testvol_shape(shape);
	options.discard = discard;
	v = testvol_mount_with(f, &options);
}

static void finish(void)
{
	testvol_check_groups(v);
	testvol_unmount_check(v, f);
	fake_free(f);
}

/* Waits until all freed blocks are given back. */
static void wait_given_back(void)
{
	uint64_t pending = 1;

	for (unsigned n = 0; pending; n++) {
		ck_assert_uint_lt(n, 10000);
		fdio_mutex_lock(&v->alloc.lock);
		pending = v->alloc.pending_free;
		fdio_mutex_unlock(&v->alloc.lock);
		usleep(1000);
	}
}

/* With the option discard, freed blocks are discarded once their freeing is durable. */
START_TEST(discards_come_after_the_commit)
{
	struct ext4_inode *inode;
	struct ext4_extent extent;
	uint64_t room;
	uint8_t want[512], got[512];

	setup((unsigned)_i, true);
	inode = testvol_tmpfile(v, S_IFREG | 0600);
	ck_assert_int_eq(testvol_fill(inode, 0, 64), 0);
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	ck_assert_int_eq(ext4_map_lookup(inode, 0, &extent), 0);
	fake_peek(f, want, sizeof(want), extent.pblk << v->block_bits);
	fake_stats_reset(f);
	ext4_inode_lock_exclusive(inode);
	ck_assert_int_eq(ext4_truncate(inode, 0), 0);
	ext4_inode_unlock(inode);
	ck_assert_uint_eq(fake_stats(f).discards, 0);
	room = v->alloc.free_blocks;
	fake_peek(f, got, sizeof(got), extent.pblk << v->block_bits);
	ck_assert_mem_eq(got, want, sizeof(got)); /* a power cut now would bring the file back */
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	wait_given_back();
	ck_assert_uint_gt(fake_stats(f).discards, 0);
	ck_assert_uint_ge(v->alloc.free_blocks, room + 64);
	ext4_inode_put(inode);
	finish();
}
END_TEST

/*
 * A discard that takes long does not delay a commit. Until it has ended, the blocks are not given
 * back.
 */
START_TEST(slow_discard_delays_no_commit)
{
	struct ext4_inode *inode;
	uint64_t room;

	setup((unsigned)_i, true);
	inode = testvol_tmpfile(v, S_IFREG | 0600);
	ck_assert_int_eq(testvol_fill(inode, 0, 64), 0);
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	fake_fault_add(f, &(struct fake_fault){ .kinds = FAKE_DISCARD, .action = FAKE_STUCK });
	fake_stats_reset(f);
	ext4_inode_lock_exclusive(inode);
	ck_assert_int_eq(ext4_truncate(inode, 0), 0);
	ext4_inode_unlock(inode);
	room = v->alloc.free_blocks;
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	ck_assert_int_eq(testvol_fill(inode, 0, 4), 0);
	ck_assert_int_eq(ext4_vol_sync(v), 0);
	ck_assert_uint_lt(v->alloc.free_blocks, room);
	for (unsigned n = 0; fake_stats(f).discards < 1; n++) {
		ck_assert_uint_lt(n, 10000);
		usleep(1000);
	}
	fake_fault_clear(f);
	fake_unstick(f);
	wait_given_back();
	ck_assert_uint_ge(v->alloc.free_blocks, room + 60);
	ext4_inode_put(inode);
	finish();
}
END_TEST

START_TEST(trim_discards_what_is_free)
{
	uint64_t trimmed, half;

	setup((unsigned)_i, false);
	fake_stats_reset(f);
	ck_assert_int_eq(ext4_vol_trim(v, 0, UINT64_MAX, 0, &trimmed), 0);
	ck_assert_uint_eq(trimmed, v->alloc.free_blocks << v->block_bits);
	ck_assert_uint_gt(fake_stats(f).discards, 0);
	testvol_check_groups(v);
	ck_assert_int_eq(ext4_vol_trim(v, 0, 16 << 20, 0, &half), 0);
	ck_assert_uint_lt(half, trimmed);
	ck_assert_int_eq(ext4_vol_trim(v, 0, UINT64_MAX,
				       (uint64_t)v->blocks_per_group << v->block_bits, &half),
			 0);
	ck_assert_uint_lt(half, trimmed);
	ck_assert_int_eq(ext4_vol_trim(v, UINT64_MAX - 4096, 4096, 0, &half), -EINVAL);
	ck_assert_int_eq(ext4_vol_trim(v, 0, 1, 0, &half), -EINVAL);
	finish();
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: discards");
	TCase *t = unit_case(s, "discards", 30);
	int n = (int)nr_testvol_shapes;

	fdio_log_set_level(0);
	unit_loop(t, discards_come_after_the_commit, 0, n);
	unit_loop(t, slow_discard_delays_no_commit, 0, n);
	unit_loop(t, trim_discards_what_is_free, 0, n);
	return s;
}
