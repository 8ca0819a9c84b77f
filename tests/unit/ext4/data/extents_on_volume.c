/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Extent trees of one file on a real volume: the journal, the allocator and the inode cache take
 * part. Proves what the miniature volume of extents.c cannot:
 *
 *   - the map shows new blocks only after the handle that mapped them has ended, and whoever finds
 *     them there also finds the transaction that must become durable;
 *   - what was synced survives a power cut, and e2fsck finds nothing wrong at any moment;
 *   - a truncate that a power cut interrupts is finished by the next mount, and one that an error
 *     interrupts never shows again what it cut off.
 */
#include "kit/file_model.h"

#include "base/log.h"
#include "ext4/inode/inode_change.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *const formats[] = {
	"-t ext4 -b 1024", "-t ext4 -b 4096", "-t ext4 -b 1024 -O ^metadata_csum,^64bit",
};

START_TEST(random_operations)
{
	struct onefile t;
	struct model model;

	onefile_open(&t, 64 << 20, formats[_i], NULL);
	model_init(&model, &t, _i == 1 ? 1200 : 4000, _i + 1);
	for (unsigned n = 1; n <= 1500; n++) {
		int err;

		ext4_inode_lock_exclusive(t.inode);
		err = model_random_op(&model);
		ext4_inode_unlock(t.inode);
		must_msg(err == 0, "operation %u: %d", n, err);
		if (n % 250 == 0)
			model_compare_reloaded(&model);
		if (n % 500 == 0)
			model_compare(&model);
		if (n % 750 == 0)
			onefile_recheck(&t);
	}
	model_compare(&model);
	ext4_inode_lock_exclusive(t.inode);
	must(model_truncate(&model, 0) == 0);
	ext4_inode_unlock(t.inode);
	model_fini(&model);
	onefile_close(&t);
}
END_TEST

/* Block 1 is written in the map, and the transaction that made it so is not durable yet. */
static bool write_must_wait(struct onefile *t)
{
	struct ext4_extent extent;
	journal_tid tid;

	must(ext4_map_lookup(t->inode, 1, &extent) == 0);
	return extent.state == EXT4_EXTENT_WRITTEN && ext4_sync_tid_noted(t->inode, true, &tid) &&
	       !journal_tid_durable(t->vol->journal, tid);
}

/* Maps (or converts from unwritten) blocks 0 to 3, and sets the size, in a handle left running. */
static struct journal_handle *map_four(struct onefile *t, bool convert)
{
	struct journal_handle *handle;
	uint32_t next, n;
	uint64_t blk;

	must(journal_begin(t->vol->journal, 60, &handle) == 0);
	must(ext4_inode_begin(handle, t->inode) == 0);
	if (convert) {
		must(ext4_extent_convert(handle, t->inode, 0, 4, EXT4_EXTENT_WRITTEN, &next) == 0);
	} else {
		must(ext4_blocks_alloc(handle, t->inode, 0, 4, &blk, &n) == 0 && n == 4);
		must(ext4_extent_insert(handle, t->inode, 0, 4, blk, false) == 0);
	}
	ext4_stamp(t->inode, 5 * 4096);
	must(ext4_inode_dirty(handle, t->inode, true) == 0);
	return handle;
}

/* A file whose first four blocks are unwritten or a hole; with the inode and the map locked. */
static void open_with_four(struct onefile *t, bool unwritten)
{
	onefile_open(t, 32 << 20, formats[1], NULL);
	ext4_inode_lock_exclusive(t->inode);
	if (unwritten)
		must(ext4_fallocate(t->inode, 0, 0, 4 * 4096, true) == 0);
	else
		must(ext4_truncate(t->inode, 4 * 4096) == 0);
	must(ext4_map_load(t->inode) == 0);
	must(ext4_vol_sync(t->vol) == 0);
	fdio_mutex_lock(&t->inode->map_lock);
}

/*
 * The map does not show what a handle maps before the handle has ended: a cancelled handle gives
 * the blocks back, and a loop thread that had found them might still be writing there. The size
 * changes together with the map.
 */
START_TEST(map_waits_for_the_handle)
{
	enum ext4_extent_state before = _i ? EXT4_EXTENT_UNWRITTEN : EXT4_EXTENT_HOLE;
	struct journal_handle *handle;
	struct onefile t;
	struct ext4_extent extent;

	open_with_four(&t, _i);
	handle = map_four(&t, _i);
	must(ext4_map_lookup(t.inode, 1, &extent) == 0 && extent.state == before);
	must(ext4_inode_size(t.inode) == 4 * 4096);
	journal_cancel(handle);
	must(ext4_map_lookup(t.inode, 1, &extent) == 0 && extent.state == before);
	must(ext4_inode_size(t.inode) == 4 * 4096);
	handle = map_four(&t, _i);
	journal_end(handle);
	must(ext4_map_lookup(t.inode, 1, &extent) == 0 && extent.state == EXT4_EXTENT_WRITTEN);
	must(ext4_inode_size(t.inode) == 5 * 4096);
	fdio_mutex_unlock(&t.inode->map_lock);
	ext4_inode_unlock(t.inode);
	onefile_close(&t);
}
END_TEST

/*
 * A thread that finds a written block in the map also finds the transaction that made it so, as
 * long as that is not durable: a loop thread must not answer a write with O_DSYNC before. And the
 * block is not found before the handle has ended.
 */
START_TEST(map_is_not_ahead_of_the_transaction)
{
	struct journal_handle *handle;
	struct onefile t;

	open_with_four(&t, _i);
	handle = map_four(&t, _i);
	must(!write_must_wait(&t));
	journal_end(handle);
	fdio_mutex_unlock(&t.inode->map_lock);
	must(write_must_wait(&t));
	must(ext4_vol_sync(t.vol) == 0);
	must(!write_must_wait(&t));
	ext4_inode_unlock(t.inode);
	onefile_close(&t);
}
END_TEST

/*
 * After a power cut, the file is as it was synced when nothing was done to it since (even rounds),
 * and e2fsck finds nothing wrong in any case (odd rounds change the file after the sync).
 */
START_TEST(power_cuts)
{
	struct onefile t;

	onefile_open(&t, 64 << 20, formats[_i % 2], NULL);
	for (unsigned round = 0; round < 6; round++) {
		struct model model;

		model_init(&model, &t, 2000, 31 * _i + round + 1);
		ext4_inode_lock_exclusive(t.inode);
		must(ext4_truncate(t.inode, 0) == 0);
		for (unsigned n = 0; n < 60; n++)
			must(model_random_op(&model) == 0);
		must(ext4_vol_sync(t.vol) == 0);
		if (round % 2)
			for (unsigned n = 0; n < 40; n++) {
				struct model other;

				/* model itself stays as it was at the sync */
				model_init(&other, &t, 2000, 1000 + n);
				other.size = ext4_inode_size(t.inode);
				must(model_random_op(&other) == 0);
				model_fini(&other);
			}
		ext4_inode_unlock(t.inode);
		onefile_power_cut(&t, round + 1);
		if (round % 2 == 0)
			model_compare(&model);
		else
			must(ext4_map_load(t.inode) == 0);
		model_fini(&model);
	}
	onefile_close(&t);
}
END_TEST

/* Log lines that tell of an interrupted truncate; the log goes nowhere else. */
static unsigned interrupted_seen;

static void log_sink(int level, const char *line)
{
	(void)level;
	interrupted_seen += strstr(line, "interrupted") != NULL;
}

/*
 * Makes 2 * runs extents of so many blocks each: allocated unwritten, then every other one is
 * converted to written, in steps of step so that the order can be a scattered one.
 */
static void alternate(struct onefile *t, uint32_t runs, uint32_t step, uint32_t blocks)
{
	must(ext4_fallocate(t->inode, 0, 0, (uint64_t)runs * 2 * blocks << t->vol->block_bits,
			    false) == 0);
	for (uint32_t k = 0; k < runs; k++)
		must(ext4_insert(t->inode, NULL, (uint32_t)((uint64_t)k * step % runs * 2 * blocks),
				 blocks, 0) == 0);
}

/* The first steps of a long truncate, each a transaction as ext4_truncate makes it and durable. */
static void truncate_begin(struct onefile *t, uint64_t size, unsigned steps)
{
	uint32_t to = EXT4_LBLK_END;

	for (unsigned k = 0; k < steps; k++) {
		struct journal_handle *handle;
		journal_tid tid;

		fdio_mutex_lock(&t->inode->map_lock);
		must(journal_begin(t->vol->journal, 2 * ext4_extent_credits(t->inode) + 4,
				   &handle) == 0);
		must(ext4_inode_begin(handle, t->inode) == 0);
		ext4_stamp(t->inode, size);
		must(ext4_remove_step(handle, t->inode, fdio_blocks(size, t->vol->block_bits), &to,
				      false) == 0);
		must(ext4_orphan_add(handle, t->inode) == 0);
		must(ext4_inode_dirty(handle, t->inode, true) == 0);
		tid = journal_end(handle);
		fdio_mutex_unlock(&t->inode->map_lock);
		must(journal_commit_wait(t->vol->journal, tid, NULL) == 0);
	}
}

/* A truncate that a power cut interrupts is finished when the volume is opened again. */
START_TEST(interrupted_truncate)
{
	/* two levels: e2fsck 1.47 cannot finish a truncate of a deeper tree */
	enum { RUNS = 2500 };
	struct onefile t;
	unsigned n;

	onefile_open(&t, 64 << 20, "-t ext4 -b 1024", NULL);
	ext4_inode_lock_exclusive(t.inode);
	alternate(&t, RUNS, 1, 1);
	must(ext4_vol_sync(t.vol) == 0);
	truncate_begin(&t, 100 << 10, 1 + _i);
	free(model_runs(t.inode, &n));
	must(n > 100 && n < 2 * RUNS);
	ext4_inode_unlock(t.inode);
	onefile_power_cut(&t, 1);
	free(model_runs(t.inode, &n));
	must(n == 100);
	must(ext4_inode_size(t.inode) == 100 << 10);
	must(interrupted_seen > 0);
	onefile_close(&t);
}
END_TEST

/* Extends a file whose truncate has failed half-way, in one of three ways. */
static int extend(struct onefile *t, unsigned how, uint64_t size)
{
	int err;

	switch (how) {
	case 0:
		return ext4_truncate(t->inode, size);
	case 1:
		return ext4_fallocate(t->inode, 0, size - 1, 1, false);
	default:
		err = ext4_truncate_finish(t->inode);
		return err ? err : ext4_publish_size(t->inode, size);
	}
}

/* Between block kept and byte end, no block may be in state written. event: for the message. */
static void nothing_old(struct onefile *t, unsigned event, uint32_t kept, uint64_t end)
{
	struct ext4_extent extent;

	for (uint64_t at = kept; at < end >> t->vol->block_bits; at = ext4_extent_end(&extent)) {
		must(ext4_map_lookup_load(t->inode, (uint32_t)at, &extent) == 0);
		must_msg(extent.state != EXT4_EXTENT_WRITTEN,
			 "cut at %u: block %u shows what was cut off", event, (unsigned)at);
	}
}

/*
 * Cuts the power at each recorded event and opens what is left: the file is whole as before the
 * truncate, or shows nothing of what was cut off, then or when it is extended. Returns how often
 * the file was not as before. No write is torn (FAKE_CUT_MASK): e2fsck takes half a commit block
 * for damage, and then does not process the orphans.
 */
static unsigned cut_everywhere(struct onefile *t, unsigned how, uint32_t kept, uint64_t before,
			       uint64_t after)
{
	unsigned events = fake_record_events(t->fake), halves = 0;

	for (unsigned k = 0; k <= events; k++) {
		struct onefile o = { .ino = t->ino,
				     .fake = fake_record_cut(t->fake, k, FAKE_CUT_MASK,
							     k * 0x9e3779b97f4a7c15u) };
		uint64_t size;

		must(fake_e2fsck_replay(o.fake) == 0);
		onefile_attach(&o);
		size = ext4_inode_size(o.inode);
		must_msg(size == before || size == (uint64_t)kept << o.vol->block_bits ||
					 size == after,
			 "cut at %u: size %llu", k, (unsigned long long)size);
		halves += size < before;
		ext4_inode_lock_exclusive(o.inode);
		must(extend(&o, how, after) == 0);
		ext4_inode_unlock(o.inode);
		if (size != before)
			nothing_old(&o, k, kept, after);
		onefile_close(&o);
	}
	return halves;
}

/*
 * A truncate fails half-way because a bitmap cannot be read, and extending the file fails for the
 * same reason until the bitmap can be read again. Then the power is cut at each moment of that.
 */
START_TEST(failed_truncate_and_cuts)
{
	enum { RUNS = 2500, WIDE = 4, KEPT = 100 }; /* so wide that several groups are used */
	struct onefile t;
	uint64_t before, after, bitmap;
	struct ext4_extent extent;

	onefile_open(&t, 64 << 20, "-t ext4 -b 1024 -J size=1", NULL);
	before = (uint64_t)RUNS * 2 * WIDE << t.vol->block_bits;
	after = before + 1024;
	ext4_inode_lock_exclusive(t.inode);
	alternate(&t, RUNS, 1, WIDE);
	ext4_inode_unlock(t.inode);
	onefile_recheck(&t);
	ext4_inode_lock_exclusive(t.inode);
	must(ext4_map_lookup_load(t.inode, KEPT, &extent) == 0 && extent.state != EXT4_EXTENT_HOLE);
	bitmap = ext2fs_block_bitmap_loc(t.vol->fs, (extent.pblk - 1) / 8192) << 10;
	fake_record_start(t.fake);
	fake_fault_add(t.fake, &(struct fake_fault){ .kinds = FAKE_READ,
						     .off = bitmap,
						     .len = 1024,
						     .action = FAKE_ERROR,
						     .err = -EIO });
	must(ext4_truncate(t.inode, KEPT << 10) == -EIO);
	must(ext4_inode_size(t.inode) == KEPT << 10);
	must(ext4_vol_sync(t.vol) == 0);
	must(extend(&t, _i, after) == -EIO);
	must(ext4_inode_size(t.inode) == KEPT << 10);
	must(ext4_vol_sync(t.vol) == 0);
	fake_fault_clear(t.fake);
	must(extend(&t, _i, after) == 0);
	must(ext4_vol_sync(t.vol) == 0);
	ext4_inode_unlock(t.inode);
	must(cut_everywhere(&t, _i, KEPT, before, after) > 3);
	nothing_old(&t, 0, KEPT, after);
	fake_record_stop(t.fake);
	onefile_close(&t);
}
END_TEST

/* Maps n new blocks at lblk as a write does; size as for ext4_insert. */
static void map_new(struct onefile *t, uint32_t lblk, uint32_t n, uint64_t size)
{
	struct ext4_reservation reservation;

	must(ext4_reserve_holes(t->inode, lblk, n, false, &reservation) == 0);
	must(ext4_insert(t->inode, &reservation, 0, 0, size) == 0);
	ext4_reservation_free(&reservation);
}

/* Makes the file size bytes large: 0 by truncate, 1 and 2 by fallocate, 3 as a write does. */
static int grow(struct onefile *t, unsigned how, uint64_t size)
{
	if (how == 0 || how == 3)
		return extend(t, how ? 2 : 0, size);
	return ext4_fallocate(t->inode, how == 1 ? 0 : EXT4_FALLOC_ZERO_RANGE, size - 10, 10,
			      false);
}

/*
 * When a file grows, neither the rest of its last block nor whole blocks that a crash has left
 * behind its end (the first four cases) become visible.
 */
START_TEST(growing_shows_nothing_old)
{
	uint8_t block[1024], zero[1024] = { 0 };
	struct onefile t;
	struct ext4_extent extent;

	onefile_open(&t, 32 << 20, formats[0], NULL);
	ext4_inode_lock_exclusive(t.inode);
	map_new(&t, 0, 1, 100);
	if (_i < 4)
		map_new(&t, 1, 4, 0);
	must(ext4_inode_size(t.inode) == 100);
	must(ext4_map_lookup_load(t.inode, 0, &extent) == 0 && extent.state == EXT4_EXTENT_WRITTEN);
	memset(block, 0xee, sizeof(block));
	for (unsigned k = 0; k < 5; k++)
		fake_poke(t.fake, block, sizeof(block), (extent.pblk + k) << 10);
	must(grow(&t, _i % 4, 8 << 10) == 0);
	must(ext4_inode_size(t.inode) == 8 << 10);
	fake_peek(t.fake, block, sizeof(block), extent.pblk << 10);
	must(block[0] == 0xee && block[99] == 0xee &&
	     !memcmp(block + 100, zero, sizeof(block) - 100));
	nothing_old(&t, 0, 1, 8 << 10);
	ext4_inode_unlock(t.inode);
	onefile_close(&t);
}
END_TEST

/* 40,000 extents through a journal of 4 MiB; when the gaps are filled, the extents join again. */
START_TEST(many_fragments)
{
	struct onefile t;
	struct model model;
	unsigned n;

	onefile_open(&t, 64 << 20, "-t ext4 -b 1024 -J size=4", NULL);
	model_init(&model, &t, 16, 1);
	ext4_inode_lock_exclusive(t.inode);
	alternate(&t, 20000, 7919, 1);
	free(model_runs(t.inode, &n));
	must(n >= 40000);
	model_compare_reloaded(&model);
	for (uint32_t k = 0; k < 20000; k++)
		must(ext4_insert(t.inode, NULL, 2 * k + 1, 1, 0) == 0);
	free(model_runs(t.inode, &n));
	must(n < 30);
	ext4_inode_unlock(t.inode);
	model_fini(&model);
	onefile_close(&t);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("ext4: extents on volume");
	TCase *tc = unit_case(s, "volume", 120);

	fdio_log_set_sink(log_sink);
	unit_loop(tc, random_operations, 0, ARRAY_SIZE(formats));
	unit_loop(tc, map_waits_for_the_handle, 0, 2);
	unit_loop(tc, map_is_not_ahead_of_the_transaction, 0, 2);
	unit_loop(tc, power_cuts, 0, 2);
	unit_loop(tc, interrupted_truncate, 0, 3);
	unit_loop(tc, failed_truncate_and_cuts, 0, 3);
	unit_test(tc, many_fragments);
	unit_loop(tc, growing_shows_nothing_old, 0, 7);
	return s;
}
