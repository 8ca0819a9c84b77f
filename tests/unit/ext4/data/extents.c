/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extent trees and block maps of one file, on the miniature volume of kit/one_file.h, where each
 * call of the journal and of the allocator can be made to fail. Proves:
 *
 *   - random operations leave the bytes and the map as a byte-exact model has them;
 *   - a failed operation leaves a sound tree, and a truncate that failed half-way never lets a
 *     larger file show what it cut off;
 *   - trees grow deep and shrink again, and extents split and join at their longest;
 *   - damaged trees, and blocks that are mapped twice, are refused;
 *   - files with block maps can be read and cut, and become extents where that is possible.
 *
 * After each test, e2fsck must find nothing wrong with the image.
 */
#define ONEFILE_MINIATURE
#include "base/bytes.h"
#include "kit/file_model.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const formats[] = {
	"-t ext4 -b 1024",
	"-t ext4 -b 4096",
	"-t ext4 -b 1024 -O ^metadata_csum,^64bit",
	"-t ext4 -b 2048 -O ^huge_file",
};

/* i_blocks of the inode: data and nodes of the tree, in units of 512 bytes. */
static uint32_t sectors(const struct onefile *t)
{
	return fdio_get_le32(&t->inode->raw->i_blocks, 0);
}

/* The buffer of the first node below the root; the miniature counts no references. */
static struct journal_buffer *first_node(struct onefile *t)
{
	struct ext3_extent_idx *index = ext4_extent_node_indexes(ext4_extent_root(t->inode));
	struct journal_buffer *buffer;

	must(journal_read_block(t->vol->journal, ext4_extent_index_block(index), &buffer) == 0);
	return buffer;
}

START_TEST(random_operations)
{
	struct onefile t;
	struct model model;

	onefile_open(&t, 24 << 20, formats[_i], NULL);
	mini_fragment = 5;
	model_init(&model, &t, _i == 1 ? 1200 : 4000, _i + 1);
	for (unsigned n = 1; n <= 2400; n++) {
		int err = model_random_op(&model);

		must_msg(err == 0, "operation %u: %d", n, err);
		if (n % 200 == 0)
			model_compare_reloaded(&model);
		if (n % 400 == 0)
			model_compare(&model);
		if (n % 800 == 0)
			onefile_recheck(&t);
	}
	model_compare(&model);
	uint64_t before = mini_free_blocks();
	must(model_truncate(&model, 0) == 0);
	must(mini_free_blocks() > before);
	must(sectors(&t) == 0);
	onefile_recheck(&t);
	model_fini(&model);
	onefile_close(&t);
}
END_TEST

/*
 * After a failed call the operation is undone or done in part. The content is unknown then, but the
 * tree must be sound and agree with the map.
 */
START_TEST(every_call_fails)
{
	struct onefile t;
	unsigned hits = 0;

	onefile_open(&t, 24 << 20, formats[_i], NULL);
	mini_fragment = 3;
	for (unsigned n = 0; n < 300; n++) {
		struct model model;
		int err;

		model_init(&model, &t, 3000, n + 7);
		model.size = ext4_inode_size(t.inode);
		mini_fail_in = 1 + model_random(&model, 40);
		err = model_random_op(&model);
		hits += err != 0;
		mini_fail_in = 0;
		model_compare_reloaded(&model);
		if (n % 60 == 59)
			onefile_recheck(&t);
		model_fini(&model);
	}
	must(hits > 20);
	onefile_close(&t);
}
END_TEST

static int insert_at(struct onefile *t, uint32_t lblk, bool unwritten)
{
	struct ext4_reservation reservation;
	int err = ext4_reserve_range(t->inode, lblk, 1, false,
				     unwritten ? EXT4_EXTENT_UNWRITTEN : EXT4_EXTENT_WRITTEN,
				     &reservation);

	if (!err)
		err = ext4_insert(t->inode, &reservation, 0, 0,
				  ((uint64_t)lblk + 1) << t->vol->block_bits);
	ext4_reservation_free(&reservation);
	return err;
}

/* How many of the file's blocks are mapped; they must be the first ones. */
static unsigned mapped_from_the_start(struct onefile *t)
{
	unsigned nr_runs, blocks = 0;
	struct ext4_extent *runs = model_runs(t->inode, &nr_runs);

	for (unsigned k = 0; k < nr_runs; k++) {
		must(runs[k].lblk == blocks);
		blocks += runs[k].len;
	}
	free(runs);
	return blocks;
}

/*
 * Maps blocks 0 to n - 1, each in an extent of its own. The fail_in-th call fails; *ret_failed is
 * false if there were fewer.
 */
static int insert_many(struct onefile *t, uint32_t n, unsigned fail_in, bool *ret_failed)
{
	struct ext4_reservation reservation;
	int err;

	must(ext4_reserve_holes(t->inode, 0, n, false, &reservation) == 0);
	mini_fail_in = fail_in;
	err = ext4_insert(t->inode, &reservation, 0, 0, (uint64_t)n << t->vol->block_bits);
	*ret_failed = mini_fail_in == 0;
	mini_fail_in = 0;
	ext4_reservation_free(&reservation);
	return err;
}

/*
 * A reservation of many extents is inserted in several batches, each a handle of its own. If a
 * batch fails, even before its handle has begun, its blocks are given back with the rest of the
 * reservation: no block is lost, and none is given back that the file has.
 */
START_TEST(failed_batch_gives_its_blocks_back)
{
	enum { BLOCKS = 3000 /* a batch takes about a thousand */, STEP = 97 };
	unsigned partly = 0, fail_in = 0;
	struct onefile t;
	uint64_t free_at_first;
	bool failed;

	onefile_open(&t, 24 << 20, formats[0], NULL);
	mini_fragment = 1;
	free_at_first = mini_free_blocks();
	do {
		int err = insert_many(&t, BLOCKS, fail_in += STEP, &failed);
		unsigned mapped = mapped_from_the_start(&t);

		must(err || mapped == BLOCKS);
		partly += mapped > 0 && mapped < BLOCKS;
		must_eq(ext4_truncate(t.inode, 0), 0);
		must_msg(mini_free_blocks() == free_at_first,
			 "call %u failed after %u blocks, and blocks were lost", fail_in, mapped);
	} while (failed);
	must(partly > 10);
	onefile_recheck(&t);
	onefile_close(&t);
}
END_TEST

/* Of the first n blocks, only the first kept may be in state written. */
static void nothing_old(struct onefile *t, uint32_t kept, uint32_t n)
{
	for (uint32_t at = kept; at < n;) {
		struct ext4_extent extent;

		must(ext4_map_lookup_load(t->inode, at, &extent) == 0);
		must_msg(extent.state != EXT4_EXTENT_WRITTEN, "block %u shows what was cut off",
			 at);
		at += FDIO_MIN(extent.len, n - at);
	}
}

/* Makes the file n blocks large, in one of four ways. */
static int extend(struct onefile *t, unsigned how, uint32_t n)
{
	uint64_t end = (uint64_t)n << t->vol->block_bits;
	int err;

	switch (how) {
	case 0:
		return ext4_truncate(t->inode, end);
	case 1:
		return ext4_fallocate(t->inode, 0, end - 1, 1, false);
	case 2:
		return ext4_fallocate(t->inode, EXT4_FALLOC_ZERO_RANGE, end - 1, 1, false);
	default: /* as a write that allocates nothing: refused until the truncate is finished */
		err = ext4_publish_size(t->inode, end);
		if (err == -EIO && !mini_fail_in) {
			must(ext4_inode_size(t->inode) < end);
			err = ext4_truncate_finish(t->inode);
		}
		return err ? err : ext4_publish_size(t->inode, end);
	}
}

/*
 * Truncates a file of runs extents to size while the k-th call that can fail does fail.
 * *ret_calls: how many such calls there were.
 */
static int cut_down(struct onefile *t, uint32_t runs, uint64_t size, unsigned k,
		    unsigned *ret_calls)
{
	int err;

	must(ext4_truncate(t->inode, 0) == 0);
	for (uint32_t at = 0; at < runs; at++)
		must(insert_at(t, at * 2, false) == 0);
	mini_fail_in = k;
	err = ext4_truncate(t->inode, size);
	*ret_calls = k - mini_fail_in;
	mini_fail_in = 0;
	return err;
}

/*
 * A truncate fails half-way; then extending the file fails too at first. The blocks that the
 * truncate did not reach must never become visible again.
 */
START_TEST(truncate_fails_half_way)
{
	enum { RUNS = 3000, KEPT = 2 };
	struct onefile t;
	uint64_t size;
	unsigned calls, halves = 0;

	onefile_open(&t, 24 << 20, formats[0], NULL);
	size = (uint64_t)KEPT << t.vol->block_bits;
	must(cut_down(&t, RUNS, size, 1000000, &calls) == 0);
	for (unsigned n = 4; n < 8; n++) {
		unsigned k = calls * n / 8, unused;
		int err;

		must(cut_down(&t, RUNS, size, k, &unused) == -EIO);
		if (ext4_inode_size(t.inode) != size)
			continue;
		halves++;
		mini_fail_in = 5 + 20 * n;
		err = extend(&t, _i, RUNS * 2);
		mini_fail_in = 0;
		if (err && ext4_inode_size(t.inode) > size)
			nothing_old(&t, KEPT, ext4_inode_size(t.inode) >> t.vol->block_bits);
		must(extend(&t, _i, RUNS * 2) == 0);
		nothing_old(&t, KEPT, RUNS * 2);
	}
	must(halves > 0);
	onefile_recheck(&t);
	onefile_close(&t);
}
END_TEST

/*
 * Inserts every other block: in ascending order, in descending order, or in an order that splits
 * leaves everywhere. Then removes every other run, then cuts the file down, then frees everything.
 */
START_TEST(deep_tree)
{
	enum { RUNS = 21000 };
	struct onefile t;
	struct model model;
	unsigned n;

	onefile_open(&t, 64 << 20, formats[0], NULL);
	model_init(&model, &t, 16, 1);
	for (uint32_t k = 0; k < RUNS; k++) {
		uint32_t slot = _i == 0   ? k
				: _i == 1 ? RUNS - 1 - k
					  : (uint32_t)((uint64_t)k * 7919 % RUNS);

		must(insert_at(&t, 2 * slot, true) == 0);
	}
	if (_i)
		must(ext4_extent_node_depth(ext4_extent_root(t.inode)) >= 3);
	else
		must(ext4_extent_node_depth(ext4_extent_root(t.inode)) >= 2);
	free(model_runs(t.inode, &n));
	must(n == RUNS);
	model_compare_reloaded(&model);
	onefile_recheck(&t);
	for (uint32_t k = 0; k < RUNS; k += 2)
		must(ext4_remove_range(t.inode, 2 * k, 2 * k + 1, false, false) == 0);
	model_compare_reloaded(&model);
	onefile_recheck(&t);
	free(model_runs(t.inode, &n));
	must(n == RUNS / 2);
	must(ext4_truncate(t.inode, 20 << t.vol->block_bits) == 0);
	free(model_runs(t.inode, &n));
	must(n == 5);
	must(ext4_extent_node_depth(ext4_extent_root(t.inode)) <= 1);
	onefile_recheck(&t);
	must(ext4_free_all_blocks(t.inode) == 0);
	must(ext4_extent_node_depth(ext4_extent_root(t.inode)) == 0);
	must(sectors(&t) == 0);
	model_fini(&model);
	onefile_close(&t);
}
END_TEST

/* Extents near the greatest length that the format allows are cut, converted and joined again. */
START_TEST(long_extents)
{
	struct onefile t;
	struct ext4_extent extent;
	unsigned n;

	/* Without backups of the superblock in the way, extents can be as long as possible. */
	onefile_open(&t, 100 << 20,
		     "-t ext4 -b 1024 -O ^resize_inode,^has_journal,sparse_super2 -E "
		     "num_backup_sb=0",
		     NULL);
	must(ext4_fallocate(t.inode, EXT4_FALLOC_KEEP_SIZE, 0, 70000 << 10, false) == 0);
	free(model_runs(t.inode, &n));
	must(n <= 3);
	must(ext4_insert(t.inode, NULL, 100, 60000, 70000 << 10) == 0);
	must(ext4_map_lookup(t.inode, 99, &extent) == 0);
	must(extent.state == EXT4_EXTENT_UNWRITTEN);
	must(ext4_map_lookup(t.inode, 60099, &extent) == 0);
	must(extent.state == EXT4_EXTENT_WRITTEN);
	must(extent.len == 1);
	onefile_recheck(&t);
	must(ext4_fallocate(t.inode, EXT4_FALLOC_ZERO_RANGE, 0, 70000 << 10, false) == 0);
	must(ext4_map_lookup_load(t.inode, 100, &extent) == 0);
	must(extent.state == EXT4_EXTENT_UNWRITTEN);
	onefile_recheck(&t);
	must(ext4_fallocate(t.inode, EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE, 1 << 10,
			    69998 << 10, false) == 0);
	must(sectors(&t) == 4);
	onefile_recheck(&t);
	onefile_close(&t);
}
END_TEST

/* An operation that fails with ENOSPC changes neither the file nor the number of free blocks. */
START_TEST(full_file_system)
{
	struct onefile t;
	struct model model;
	uint64_t free_before;
	unsigned full = 0;

	onefile_open(&t, 24 << 20, formats[0], NULL);
	model_init(&model, &t, 8000, 5);
	mini_fragment = 2;
	mini_limit_free = 1500;
	for (unsigned n = 0; n < 1500; n++) {
		int err;

		free_before = mini_free_blocks();
		err = model_random_op(&model);
		must(err == 0 || err == -ENOSPC);
		if (err) {
			full++;
			must(mini_free_blocks() == free_before);
		}
	}
	must(full > 10);
	model_compare(&model);
	onefile_recheck(&t);
	model_fini(&model);
	onefile_close(&t);
}
END_TEST

/* A file that grows shows zeroes behind its old end, whatever the last block holds there. */
START_TEST(zero_behind_the_end)
{
	struct onefile t;
	struct model model;

	onefile_open(&t, 24 << 20, formats[1], NULL);
	model_init(&model, &t, 64, 5);
	must(model_write(&model, 0, 40000) == 0);
	must(model_truncate(&model, 10001) == 0);
	must(model_truncate(&model, 60000) == 0);
	model_compare(&model);
	/* The same when another implementation has left garbage behind the end. */
	must(model_truncate(&model, 10001) == 0);
	struct ext4_extent extent;
	static uint8_t dirt[4096];
	must(ext4_map_lookup(t.inode, 2, &extent) == 0);
	must(dev_read(t.dev, dirt, 4096, extent.pblk * 4096) == 0);
	memset(dirt + 10001 - 8192, 0xee, 4096 - (10001 - 8192));
	must(dev_write(t.dev, dirt, 4096, extent.pblk * 4096, 0) == 0);
	must(model_truncate(&model, 12000) == 0);
	model_compare(&model);
	must(ext4_truncate(t.inode, 1ull << 44) == -EFBIG);
	must(ext4_truncate(t.inode, (1ull << 44) - 4096) == 0);
	onefile_recheck(&t);
	t.vol->read_only = true;
	must(ext4_truncate(t.inode, 1) == -EROFS);
	must(ext4_fallocate(t.inode, 0, 0, 1, false) == -EROFS);
	model_fini(&model);
	onefile_close(&t);
}
END_TEST

/* ext4_seek for data (true) and holes (false); unwritten blocks count as a hole. */
START_TEST(seeking)
{
	struct onefile t;
	struct model model;
	uint64_t at;

	onefile_open(&t, 24 << 20, formats[0], NULL);
	model_init(&model, &t, 64, 5);
	must(ext4_seek(t.inode, 0, true, &at) == -ENXIO);
	must(model_write(&model, 4096, 2048) == 0);
	must(model_fallocate(&model, 0, 8192, 4096) == 0);
	must(ext4_seek(t.inode, 0, true, &at) == 0);
	must(at == 4096);
	must(ext4_seek(t.inode, 4500, true, &at) == 0);
	must(at == 4500);
	must(ext4_seek(t.inode, 4500, false, &at) == 0);
	must(at == 6144);
	must(ext4_seek(t.inode, 6144, true, &at) == -ENXIO);
	must(ext4_seek(t.inode, 0, false, &at) == 0);
	must(at == 0);
	must(ext4_seek(t.inode, 12288, false, &at) == -ENXIO);
	must(model_write(&model, 12288, 100) == 0);
	must(ext4_seek(t.inode, 12288, false, &at) == 0);
	must(at == 12388);
	model_fini(&model);
	onefile_close(&t);
}
END_TEST

/* One bit of the root or of a node is flipped: the map is refused, or it loads and is sound. */
START_TEST(damaged_trees)
{
	struct onefile t;
	struct ext4_extent extent;
	unsigned refused = 0;

	onefile_open(&t, 24 << 20, formats[_i ? 2 : 0], NULL);
	mini_fragment = 1;
	for (uint32_t k = 0; k < 600; k++)
		must(insert_at(&t, 2 * k, k % 2) == 0);
	must(ext4_extent_node_depth(ext4_extent_root(t.inode)) >= 1);
	for (unsigned n = 0; n < 4000; n++) {
		struct journal_buffer *buffer;
		uint8_t *p, old;
		int err;

		buffer = first_node(&t);
		p = n % 4 ? buffer->data + (n * 31) % 200
			  : (uint8_t *)t.inode->raw->i_block + (n * 7) % 60;
		old = *p;
		*p ^= 1 << n % 8;
		buffer->verified = 0;
		ext4_map_drop(t.inode);
		err = ext4_map_load(t.inode);
		must(err == 0 || err == -EUCLEAN);
		refused += err != 0;
		if (!err)
			must(ext4_map_lookup(t.inode, n, &extent) == 0);
		*p = old;
		buffer->verified = 0;
		if (n % 200 == 0)
			epoch_drain();
	}
	must(refused > 1000);
	ext4_map_drop(t.inode);
	must(ext4_map_load(t.inode) == 0);
	onefile_close(&t);
}
END_TEST

static int reload(struct onefile *t)
{
	ext4_map_drop(t->inode);
	return ext4_map_load(t->inode);
}

/* A block that the file maps twice, or that is both data and a node of the tree, is damage. */
START_TEST(extent_twice)
{
	struct ext3_extent *extent;
	struct onefile t;
	struct journal_buffer *buffer;
	uint32_t old;

	onefile_open(&t, 24 << 20, formats[2], NULL);
	mini_fragment = 1;
	for (uint32_t k = 0; k < 150; k++)
		must(insert_at(&t, 2 * k, k % 2) == 0);
	buffer = first_node(&t);
	must(ext4_extent_node_depth((void *)buffer->data) == 0);
	must(reload(&t) == 0);
	extent = ext4_extent_node_extents((void *)buffer->data);
	old = extent[3].ee_start;
	if (_i)
		fdio_put_le32(&extent[3].ee_start, 0, (uint32_t)buffer->blk);
	else
		extent[3].ee_start = extent[40].ee_start;
	must(reload(&t) == -EUCLEAN);
	/* With the feature shared_blocks, a file may map a block twice. */
	ext2fs_set_feature_shared_blocks(t.vol->fs->super);
	must(reload(&t) == 0);
	ext2fs_clear_feature_shared_blocks(t.vol->fs->super);
	extent[3].ee_start = old;
	must(reload(&t) == 0);
	onefile_close(&t);
}
END_TEST

static const char *indirect_setup = "yes 0123456789abcdef | head -c 900000 > big.$$ && debugfs -w "
				    "-R \"write big.$$ f\" $IMG; rm -f big.$$";

/* A file with a block map is read, punched and cut, and refuses new blocks where it must. */
START_TEST(indirect_file)
{
	struct onefile t;
	struct ext4_extent extent;
	struct ext4_reservation reservation;
	unsigned n;
	char buf[1024];

	onefile_open(&t, 24 << 20, "-t ext3 -b 1024", indirect_setup);
	must(ext4_map_kind(t.inode) == EXT4_MAPPED_INDIRECT);
	for (uint32_t l = 0; l < 878; l += 97) {
		must(ext4_map_lookup_load(t.inode, l, &extent) == 0);
		must(extent.state == EXT4_EXTENT_WRITTEN);
		must(dev_read(t.dev, buf, 1024, extent.pblk * 1024) == 0);
		for (unsigned k = 0; k < 1024; k++)
			must(buf[k] == "0123456789abcdef\n"[(l * 1024 + k) % 17]);
	}
	must(ext4_reserve_holes(t.inode, 2000, 1, false, &reservation) == -EOPNOTSUPP);
	must(ext4_fallocate(t.inode, 0, 0, 4096, false) == -EOPNOTSUPP);
	must(ext4_fallocate(t.inode, EXT4_FALLOC_PUNCH_HOLE | EXT4_FALLOC_KEEP_SIZE, 100 << 10,
			    300 << 10, false) == 0);
	must(ext4_map_lookup_load(t.inode, 100, &extent) == 0);
	must(extent.state == EXT4_EXTENT_HOLE);
	must(extent.len == 300);
	onefile_recheck(&t);
	must(ext4_truncate(t.inode, 5000) == 0);
	free(model_runs(t.inode, &n));
	must(n >= 1);
	must(sectors(&t) == 10);
	onefile_recheck(&t);
	must(ext4_free_all_blocks(t.inode) == 0);
	must(sectors(&t) == 0);
	onefile_close(&t);
}
END_TEST

/*
 * "tune2fs -O extents" leaves the files that exist with their block maps. map_small is one run of
 * blocks; in map_holes every other block is a hole, so that its runs do not fit into the inode.
 */
#define TO_EXTENTS "&& tune2fs -O extents $IMG; rm -f big.$$"
static const char *map_small = "yes 0123456789abcdef | head -c 400000 > big.$$ && debugfs -w -R "
			       "\"write big.$$ f\" $IMG" TO_EXTENTS;
static const char *map_holes = "for k in 0 2 4 6 8 10; do printf x | dd of=big.$$ bs=1024 seek=$k "
			       "conv=notrunc; done; "
			       "debugfs -w -R \"write big.$$ f\" $IMG" TO_EXTENTS;

static void reserve_one(struct onefile *t, uint32_t lblk)
{
	struct ext4_reservation reservation;

	must(ext4_reserve_holes(t->inode, lblk, 1, false, &reservation) == 0);
	must(ext4_insert(t->inode, &reservation, 0, 0, (lblk + 1) * 1024ull) == 0);
	ext4_reservation_free(&reservation);
}

START_TEST(block_map_becomes_extents)
{
	struct ext4_extent before, extent;
	struct onefile t;
	unsigned n;

	onefile_open(&t, 24 << 20, "-t ext3 -b 1024", map_small);
	must(ext4_map_kind(t.inode) == EXT4_MAPPED_INDIRECT);
	must(ext4_map_lookup_load(t.inode, 300, &before) == 0);
	/* 391 blocks of data, an indirect block, and a doubly indirect one with one below it */
	must(sectors(&t) == 2 * (391 + 3));
	reserve_one(&t, 391);
	must(ext4_map_kind(t.inode) == EXT4_MAPPED_EXTENTS);
	must(sectors(&t) == 2 * 392);
	onefile_recheck(&t);
	must(ext4_map_lookup_load(t.inode, 300, &extent) == 0);
	must(extent.pblk == before.pblk && extent.state == EXT4_EXTENT_WRITTEN);
	free(model_runs(t.inode, &n));
	must(n >= 1);
	onefile_close(&t);
}
END_TEST

START_TEST(block_map_that_does_not_fit)
{
	struct onefile t;
	struct ext4_reservation reservation;

	onefile_open(&t, 24 << 20, "-t ext3 -b 1024", map_holes);
	must(ext4_map_kind(t.inode) == EXT4_MAPPED_INDIRECT);
	must(ext4_reserve_holes(t.inode, 1, 1, false, &reservation) == -EOPNOTSUPP);
	must(ext4_fallocate(t.inode, 0, 0, 4096, false) == -EOPNOTSUPP);
	must(ext4_inode_size(t.inode) == 10 * 1024 + 1);
	onefile_recheck(&t);
	/* Once the file has no blocks, nothing keeps it from having extents. */
	must(ext4_truncate(t.inode, 0) == 0);
	must(ext4_map_kind(t.inode) == EXT4_MAPPED_EXTENTS);
	onefile_recheck(&t);
	reserve_one(&t, 7);
	onefile_close(&t);
}
END_TEST

/*
 * In a block map too, a block that is mapped twice is damage (cases 0 and 1), and so is an indirect
 * block that leads to itself (case 2), which must not be walked for ever.
 */
START_TEST(indirect_twice)
{
	struct onefile t;
	struct journal_buffer *buffer;
	uint32_t *pointers, *slot, old[256];

	onefile_open(&t, 24 << 20, "-t ext3 -b 1024", indirect_setup);
	must(reload(&t) == 0);
	must(journal_read_block(t.vol->journal,
				fdio_get_le32(t.inode->raw->i_block, 4 * EXT2_DIND_BLOCK),
				&buffer) == 0);
	pointers = (uint32_t *)buffer->data;
	slot = &t.inode->raw->i_block[_i == 0 ? 5 : EXT2_TIND_BLOCK];
	old[0] = *slot;
	*slot = _i == 0 ? t.inode->raw->i_block[9] : t.inode->raw->i_block[EXT2_DIND_BLOCK];
	must(reload(&t) == -EUCLEAN);
	*slot = old[0];
	memcpy(old, pointers, sizeof(old));
	for (unsigned k = 0; k < 256; k++) {
		if (_i == 2)
			fdio_put_le32(pointers, 4 * k, (uint32_t)buffer->blk);
		else
			pointers[k] = pointers[0];
	}
	must(reload(&t) == -EUCLEAN);
	memcpy(pointers, old, sizeof(old));
	must(reload(&t) == 0);
	onefile_close(&t);
}
END_TEST

/*
 * The map builder compares nodes while it collects them, so a tree of 100 nodes that are listed
 * again and again is refused after at most 257, before the list takes much memory.
 */
START_TEST(nodes_are_compared_early)
{
	struct ext4_map_builder builder = { 0 };
	unsigned n = 0;
	int err = 0;

	while (!err && n < 1000)
		err = ext4_map_builder_node(&builder, 1000 - n++ % 100);
	must(err == -EUCLEAN);
	must(n <= 2 * 128 + 1);
	ext4_map_builder_free(&builder);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: extents");
	TCase *tc = unit_case(s, "extent", 120);

	unit_loop(tc, random_operations, 0, ARRAY_SIZE(formats));
	unit_loop(tc, every_call_fails, 0, 2);
	unit_test(tc, failed_batch_gives_its_blocks_back);
	unit_loop(tc, truncate_fails_half_way, 0, 4);
	unit_loop(tc, deep_tree, 0, 3);
	unit_test(tc, long_extents);
	unit_test(tc, full_file_system);
	unit_test(tc, zero_behind_the_end);
	unit_test(tc, seeking);
	unit_loop(tc, damaged_trees, 0, 2);
	unit_loop(tc, extent_twice, 0, 2);
	unit_test(tc, indirect_file);
	unit_test(tc, block_map_becomes_extents);
	unit_test(tc, block_map_that_does_not_fit);
	unit_loop(tc, indirect_twice, 0, 3);
	unit_test(tc, nodes_are_compared_early);
	return s;
}
