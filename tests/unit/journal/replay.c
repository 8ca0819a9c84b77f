/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the replay: against e2fsck as an independent reader of the same log, run twice,
 * interrupted, on damaged logs (JOURNAL-12), and on logs that it must leave to others.
 */
#include "kit/journal.h"

#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

/* A workload of commits, frees and rewrites whose record can be cut anywhere. */
static void workload(struct testlog *e, unsigned seed, unsigned rounds)
{
	for (unsigned round = 0; round < rounds; round++) {
		struct journal_handle *handle;

		for (unsigned k = 0; k <= (unsigned)rand_r(&seed) % 12; k++)
			testlog_write(e, e->base + rand_r(&seed) % 64, round * 100 + k);
		ck_assert_int_eq(journal_begin(e->journal, 4, &handle), 0);
		if (rand_r(&seed) % 3 == 0) {
			uint64_t blk = e->base + rand_r(&seed) % 64;

			ck_assert_int_eq(journal_forget(handle, blk, 1 + rand_r(&seed) % 2), 0);
			if (rand_r(&seed) % 2)
				testlog_fill(e, handle, blk, 50000 + round);
		}
		journal_end(handle);
		if (rand_r(&seed) % 4 == 0)
			ck_assert_int_eq(journal_sync(e->journal), 0);
	}
	ck_assert_int_eq(journal_sync(e->journal), 0);
}

static bool is_sb_or_log(struct testlog *e, uint64_t blk)
{
	if (blk * e->params.block_size < 2048)
		return true;
	for (unsigned i = 0; i < e->params.nr_log; i++)
		if (blk - e->log[i].pblk < e->log[i].len)
			return true;
	return false;
}

static unsigned differing(struct testlog *e, struct fake_dev *other)
{
	uint8_t *a = malloc(e->params.block_size), *b = malloc(e->params.block_size);
	unsigned n = 0;

	ck_assert(a && b);
	for (uint64_t blk = 0; blk < e->params.nr_blocks; blk++) {
		if (is_sb_or_log(e, blk))
			continue;
		fake_peek(e->fake, a, e->params.block_size, blk * e->params.block_size);
		fake_peek(other, b, e->params.block_size, blk * e->params.block_size);
		n += !!memcmp(a, b, e->params.block_size);
	}
	free(a);
	free(b);
	return n;
}

START_TEST(agrees_with_e2fsck)
{
	struct testlog e;
	struct fake_dev *other;
	static char out[4096];

	testlog_up_as(&e, &testlog_formats[_i % 4], 4);
	workload(&e, 99 + _i, 40);
	testlog_cut(&e, FAKE_CUT_DROP, 0);
	other = fake_clone(e.fake);
	ck_assert_int_le(fake_run(other, "e2fsck -fy -E journal_only $IMG 2>/dev/null", out,
				  sizeof(out), true),
			 1);
	testlog_replay(&e, NULL);
	ck_assert_uint_eq(differing(&e, other), 0);
	ck_assert_int_eq(fake_e2fsck_replay(e.fake), 0);
	fake_free(other);
	testlog_drop(&e);
}
END_TEST

START_TEST(twice_is_once)
{
	struct testlog e;
	struct fake_dev *again;
	struct journal_replay_stats stats;
	char err[256];

	testlog_up(&e);
	workload(&e, 5, 30);
	testlog_cut(&e, FAKE_CUT_DROP, 0);
	again = fake_clone(e.fake);
	/* The first attempt fails on its way home. */
	testlog_open(&e);
	fdio_log_set_level(0);
	fake_fault_add(e.fake, &(struct fake_fault){ .kinds = _i ? FAKE_FLUSH : FAKE_WRITE,
						     .skip = _i ? 0 : 7,
						     .action = FAKE_ERROR,
						     .err = -EIO });
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), -EIO);
	fake_fault_clear(e.fake);
	ck_assert(journal_needs_replay(e.journal));
	journal_close(e.journal);
	e.journal = NULL;
	testlog_cut(&e, FAKE_CUT_RANDOM, 17);
	testlog_replay(&e, &stats);
	ck_assert_uint_gt(stats.blocks, 0);
	/* The same as an undisturbed one. */
	struct testlog b = e;
	b.fake = again;
	b.journal = NULL;
	testlog_replay(&b, NULL);
	ck_assert_uint_eq(differing(&e, b.fake), 0);
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), 0);
	ck_assert_uint_eq(stats.transactions, 0);
	testlog_drop(&b);
	testlog_drop(&e);
}
END_TEST

/* The k-th log block (from 1) on the device. */
static uint64_t log_off(struct testlog *e, uint32_t k)
{
	return journal_log_map(e->journal, k, NULL);
}

/*
 * Two transactions of one block; blocks 1..3 and 4..6 are descriptor, image, commit. The device
 * after a cut, opened.
 */
static void two_transactions(struct testlog *e)
{
	testlog_up(e);
	testlog_write(e, e->base, 1);
	ck_assert_int_eq(journal_sync(e->journal), 0);
	testlog_write(e, e->base, 2);
	ck_assert_int_eq(journal_sync(e->journal), 0);
	testlog_cut(e, FAKE_CUT_DROP, 0);
	testlog_open(e);
	fdio_log_set_level(0);
}

/* SIGTERM, blocked as while the daemon starts, ends a replay; the next one does all of it. */
START_TEST(told_to_end)
{
	struct testlog e;
	struct journal_replay_stats stats;
	char err[256];
	sigset_t set;
	int sig;

	testlog_up(&e);
	workload(&e, 5, 30);
	testlog_cut(&e, FAKE_CUT_DROP, 0);
	testlog_open(&e);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	raise(SIGTERM);
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), -EINTR);
	ck_assert_msg(strstr(err, "told to end"), "%s", err);
	ck_assert(journal_needs_replay(e.journal));
	ck_assert_int_eq(sigwait(&set, &sig), 0);
	journal_close(e.journal);
	e.journal = NULL;
	testlog_replay(&e, &stats);
	ck_assert_uint_gt(stats.blocks, 0);
	testlog_drop(&e);
}
END_TEST

START_TEST(damage_is_refused_and_nothing_is_written)
{
	struct testlog e;
	struct journal_replay_stats stats;
	char err[256] = "";
	uint8_t byte;

	two_transactions(&e);
	fake_peek(e.fake, &byte, 1, log_off(&e, 1 + _i) + 70);
	byte ^= 0x10;
	fake_poke(e.fake, &byte, 1, log_off(&e, 1 + _i) + 70);
	fake_stats_reset(e.fake);
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(err, "checksum"));
	ck_assert_uint_eq(fake_stats(e.fake).writes, 0);
	ck_assert(journal_needs_replay(e.journal));
	testlog_drop(&e);
}
END_TEST

/* What a crash leaves of the last transaction is not damage: the log just ends earlier. */
START_TEST(unfinished_transaction_is_ignored)
{
	struct testlog e;
	struct journal_replay_stats stats;
	static const uint8_t zero[4096];
	char err[256];

	two_transactions(&e);
	fake_poke(e.fake, zero, 4096, log_off(&e, 6)); /* no commit block */
	if (_i)
		fake_poke(e.fake, zero, _i == 1 ? 4096 : 512,
			  log_off(&e, _i == 1 ? 5 : 4) + (_i == 2 ? 512 : 0));
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), 0);
	ck_assert_uint_eq(stats.transactions, 1);
	ck_assert_int_eq(testlog_value(&e, e.base), 1);
	testlog_drop(&e);
}
END_TEST

/*
 * The commit block's first sector arrived, the rest is what was there before: the transaction is
 * complete.
 */
START_TEST(torn_commit_block_counts)
{
	struct testlog e;
	struct journal_replay_stats stats;
	static uint8_t old[3584];
	char err[256];

	two_transactions(&e);
	memset(old, 0x77, sizeof(old));
	fake_poke(e.fake, old, sizeof(old), log_off(&e, 6) + 512);
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), 0);
	ck_assert_uint_eq(stats.transactions, 2);
	ck_assert_int_eq(testlog_value(&e, e.base), 2);
	testlog_drop(&e);
}
END_TEST

static void rewrite_sb(struct testlog *e, unsigned off, uint32_t bits)
{
	uint8_t *sb = e->journal->log.superblock;

	fdio_put_be32(sb, off, fdio_get_be32(sb, off) | bits);
	ck_assert_int_eq(journal_log_write_superblock(e->journal,
						      fdio_get_be32(sb, JOURNAL_SB_SEQUENCE),
						      fdio_get_be32(sb, JOURNAL_SB_START), DEV_FUA),
			 0);
	journal_close(e->journal);
	e->journal = NULL;
	testlog_open(e);
}

START_TEST(obstacles_are_named)
{
	static const struct {
		unsigned off;
		uint32_t bits;
	} t[2] = { { JOURNAL_SB_INCOMPAT, JOURNAL_INCOMPAT_ASYNC },
		   { JOURNAL_SB_COMPAT, JOURNAL_COMPAT_CHECKSUM } };
	struct testlog e;
	struct journal_replay_stats stats;
	char err[256];

	two_transactions(&e);
	ck_assert_ptr_null(journal_replay_obstacle(e.journal));
	rewrite_sb(&e, t[_i].off, t[_i].bits);
	ck_assert_ptr_nonnull(journal_replay_obstacle(e.journal));
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), -EOPNOTSUPP);
	ck_assert_int_eq(journal_start(e.journal), -EUCLEAN);
	/* On an empty log the same features are no obstacle, and the start removes them. */
	ck_assert_int_eq(journal_log_write_superblock(e.journal, 1, 0, DEV_FUA), 0);
	ck_assert_ptr_null(journal_replay_obstacle(e.journal));
	testlog_start(&e);
	ck_assert_uint_eq(fdio_get_be32(e.journal->log.superblock, t[_i].off) & t[_i].bits, 0);
	testlog_down(&e);
}
END_TEST

/*
 * A log with room for fast commits behind it: complete where that room holds nothing, or what an
 * older transaction left; refused, and nothing written, where the next transaction has begun in it.
 */
START_TEST(fast_commits_are_not_skipped)
{
	struct testlog e;
	struct journal_replay_stats stats;
	uint32_t tid, last, head[4];
	char err[256];

	two_transactions(&e);
	last = fdio_get_be32(e.journal->log.superblock, JOURNAL_SB_SEQUENCE) + 1;
	fdio_put_be32(e.journal->log.superblock, JOURNAL_SB_FAST_COMMIT_BLOCKS, _i == 3 ? 0 : 64);
	rewrite_sb(&e, JOURNAL_SB_INCOMPAT, JOURNAL_INCOMPAT_FAST_COMMIT);
	ck_assert_uint_eq(e.journal->log.fast_commit_blocks, _i == 3 ? 256 : 64);
	tid = _i == 1 ? last : last + 1;
	memcpy(head, (uint32_t[]){ htole32(9 | 8 << 16), 0, htole32(tid), 0 }, sizeof(head));
	if (_i)
		fake_poke(e.fake, head, sizeof(head), log_off(&e, e.journal->log.end + (_i != 3)));
	fake_stats_reset(e.fake);
	if (_i < 2) {
		ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), 0);
		ck_assert(!stats.fast_commits);
		ck_assert_uint_eq(stats.transactions, 2);
		ck_assert_int_eq(testlog_value(&e, e.base), 2);
		ck_assert_uint_eq(fdio_get_be32(e.journal->log.superblock, JOURNAL_SB_INCOMPAT) &
						  JOURNAL_INCOMPAT_FAST_COMMIT,
				  0);
		testlog_start(&e);
		ck_assert_uint_eq(e.journal->log.end,
				  fdio_get_be32(e.journal->log.superblock, JOURNAL_SB_MAXLEN));
		testlog_down(&e);
		return;
	}
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), -EOPNOTSUPP);
	ck_assert(stats.fast_commits);
	ck_assert_uint_eq(fake_stats(e.fake).writes, 0);
	ck_assert(journal_needs_replay(e.journal));
	testlog_drop(&e);
}
END_TEST

START_TEST(tag_outside_the_file_system_is_refused)
{
	struct testlog e;
	struct journal_replay_stats stats;
	static uint8_t desc[4096];
	char err[256];

	testlog_up_as(&e, &testlog_formats[1], 4); /* no checksums: a tag can be forged */
	testlog_write(&e, e.base, 1);
	testlog_sync(&e);
	testlog_cut(&e, FAKE_CUT_DROP, 0);
	testlog_open(&e);
	fake_peek(e.fake, desc, 4096, log_off(&e, 1));
	fdio_put_be32(desc, JOURNAL_HEADER_BYTES, _i ? (uint32_t)e.log[0].pblk : 0xfffffff0u);
	fake_poke(e.fake, desc, 4096, log_off(&e, 1));
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), -EUCLEAN);
	testlog_drop(&e);
}
END_TEST

START_TEST(stale_transactions_are_not_taken_for_new_ones)
{
	struct testlog e;
	struct journal_replay_stats stats;

	testlog_up(&e);
	for (unsigned i = 0; i < 20; i++) {
		testlog_write(&e, e.base + i, 1);
		testlog_sync(&e);
	}
	ck_assert_int_eq(journal_stop(e.journal), 0);
	testlog_cut(&e, FAKE_CUT_DROP, 0);
	testlog_open(&e);
	testlog_start(&e);
	testlog_write(&e, e.base, 2);
	testlog_sync(&e);
	testlog_crash(&e, &stats);
	ck_assert_uint_eq(stats.transactions, 1);
	ck_assert_int_eq(testlog_value(&e, e.base), 2);
	testlog_drop(&e);
}
END_TEST

START_TEST(random_garbage_never_crashes)
{
	struct testlog e;
	struct journal_replay_stats stats;
	unsigned seed = 1 + _i;
	char err[256];

	testlog_up_as(&e, &testlog_formats[_i % 4], 4);
	workload(&e, seed, 8);
	testlog_cut(&e, FAKE_CUT_DROP, 0);
	testlog_open(&e);
	fdio_log_set_level(0);
	for (unsigned k = 0; k < 200; k++) {
		uint32_t blk = 1 + rand_r(&seed) % 100;
		uint8_t v[4];

		for (unsigned b = 0; b < 4; b++)
			v[b] = (uint8_t)(rand_r(&seed) % 3 ? rand_r(&seed) : 0);
		fake_poke(e.fake, v, 4,
			  log_off(&e, blk) + (rand_r(&seed) % 2 ? 12 + rand_r(&seed) % 64
								: rand_r(&seed) % 1000));
	}
	journal_replay(e.journal, &stats, FDIO_REASON(err)); /* any answer */
	testlog_drop(&e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: replay");
	TCase *tc = unit_case(s, "replay", 60);

	unit_seeds(tc, agrees_with_e2fsck, 8);
	unit_loop(tc, twice_is_once, 0, 2, PROVES("JOURNAL-12"));
	unit_test(tc, told_to_end);
	unit_loop(tc, damage_is_refused_and_nothing_is_written, 0, 3, PROVES("JOURNAL-12"));
	unit_loop(tc, unfinished_transaction_is_ignored, 0, 3);
	unit_test(tc, torn_commit_block_counts);
	unit_loop(tc, obstacles_are_named, 0, 2);
	unit_loop(tc, fast_commits_are_not_skipped, 0, 4);
	unit_loop(tc, tag_outside_the_file_system_is_refused, 0, 2);
	unit_test(tc, stale_transactions_are_not_taken_for_new_ones, PROVES("JOURNAL-9"));
	unit_seeds(tc, random_garbage_never_crashes, 12);
	return s;
}
