/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unit tests of the replay: it agrees with e2fsck as an independent reader of the log, can be
 * interrupted and repeated, refuses damaged logs and writes nothing then (JOURNAL-12), and leaves
 * logs with features that it does not know to others. One thread; the fake device cuts the power.
 */
#include "kit/journal.h"

#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

/* Commits, frees and rewrites at random; all synced at the end. */
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

static bool is_superblock_or_log(struct testlog *e, uint64_t blk)
{
	if (blk * e->params.block_size < 2048)
		return true;
	for (unsigned i = 0; i < e->params.nr_log; i++)
		if (blk - e->log[i].pblk < e->log[i].len)
			return true;
	return false;
}

static unsigned nr_differing(struct testlog *e, struct fake_dev *other)
{
	uint8_t *a = malloc(e->params.block_size), *second = malloc(e->params.block_size);
	unsigned n = 0;

	ck_assert(a && second);
	for (uint64_t blk = 0; blk < e->params.nr_blocks; blk++) {
		if (is_superblock_or_log(e, blk))
			continue;
		fake_peek(e->fake, a, e->params.block_size, blk * e->params.block_size);
		fake_peek(other, second, e->params.block_size, blk * e->params.block_size);
		n += !!memcmp(a, second, e->params.block_size);
	}
	free(a);
	free(second);
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
	ck_assert_uint_eq(nr_differing(&e, other), 0);
	ck_assert_int_eq(fake_e2fsck_replay(e.fake), 0);
	fake_free(other);
	testlog_drop(&e);
}
END_TEST

START_TEST(interrupted_replay_is_repeated)
{
	struct testlog e;
	struct fake_dev *again;
	struct journal_replay_stats stats;
	char err[256];

	testlog_up(&e);
	workload(&e, 5, 30);
	testlog_cut(&e, FAKE_CUT_DROP, 0);
	again = fake_clone(e.fake);
	/* The first attempt fails at a home write (_i 0) or the flush after them (_i 1). */
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
	/* An undisturbed replay gives the same. */
	struct testlog second = e;
	second.fake = again;
	second.journal = NULL;
	testlog_replay(&second, NULL);
	ck_assert_uint_eq(nr_differing(&e, second.fake), 0);
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), 0);
	ck_assert_uint_eq(stats.transactions, 0);
	testlog_drop(&second);
	testlog_drop(&e);
}
END_TEST

/* The offset on the device of the k-th log block, from 1. */
static uint64_t log_offset(struct testlog *e, uint32_t k)
{
	return journal_log_map(e->journal, k, NULL);
}

/*
 * A log with two transactions of one block, after a power cut, opened. Log blocks 1 to 3 and 4 to 6
 * are descriptor, image and commit block.
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

/* A pending SIGTERM, blocked as while the daemon starts, ends a replay; the next does all of it. */
START_TEST(sigterm_ends_a_replay)
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

START_TEST(damaged_log_is_refused_and_nothing_written)
{
	struct testlog e;
	struct journal_replay_stats stats;
	char err[256] = "";
	uint8_t byte;

	two_transactions(&e);
	fake_peek(e.fake, &byte, 1, log_offset(&e, 1 + _i) + 70);
	byte ^= 0x10;
	fake_poke(e.fake, &byte, 1, log_offset(&e, 1 + _i) + 70);
	fake_stats_reset(e.fake);
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(err, "checksum"));
	ck_assert_uint_eq(fake_stats(e.fake).writes, 0);
	ck_assert(journal_needs_replay(e.journal));
	testlog_drop(&e);
}
END_TEST

/* A last transaction that a crash left incomplete is no damage: the log ends before it. */
START_TEST(unfinished_transaction_is_ignored)
{
	struct testlog e;
	struct journal_replay_stats stats;
	static const uint8_t zero[4096];
	char err[256];

	two_transactions(&e);
	fake_poke(e.fake, zero, 4096, log_offset(&e, 6)); /* no commit block */
	if (_i)
		fake_poke(e.fake, zero, _i == 1 ? 4096 : 512,
			  log_offset(&e, _i == 1 ? 5 : 4) + (_i == 2 ? 512 : 0));
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), 0);
	ck_assert_uint_eq(stats.transactions, 1);
	ck_assert_int_eq(testlog_value(&e, e.base), 1);
	testlog_drop(&e);
}
END_TEST

/* Only the first sector of the commit block was written: the transaction is complete. */
START_TEST(torn_commit_block_counts)
{
	struct testlog e;
	struct journal_replay_stats stats;
	static uint8_t old[3584];
	char err[256];

	two_transactions(&e);
	memset(old, 0x77, sizeof(old));
	fake_poke(e.fake, old, sizeof(old), log_offset(&e, 6) + 512);
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), 0);
	ck_assert_uint_eq(stats.transactions, 2);
	ck_assert_int_eq(testlog_value(&e, e.base), 2);
	testlog_drop(&e);
}
END_TEST

static void rewrite_superblock(struct testlog *e, unsigned off, uint32_t bits)
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

START_TEST(unknown_features_are_refused)
{
	static const struct {
		unsigned off;
		uint32_t bits;
	} obstacle[2] = { { JOURNAL_SB_INCOMPAT, JOURNAL_INCOMPAT_ASYNC },
		   { JOURNAL_SB_COMPAT, JOURNAL_COMPAT_CHECKSUM } };
	struct testlog e;
	struct journal_replay_stats stats;
	char err[256];

	two_transactions(&e);
	ck_assert_ptr_null(journal_replay_obstacle(e.journal));
	rewrite_superblock(&e, obstacle[_i].off, obstacle[_i].bits);
	ck_assert_ptr_nonnull(journal_replay_obstacle(e.journal));
	ck_assert_int_eq(journal_replay(e.journal, &stats, FDIO_REASON(err)), -EOPNOTSUPP);
	ck_assert_int_eq(journal_start(e.journal), -EUCLEAN);
	/* On an empty log the same features do not matter, and journal_start removes them. */
	ck_assert_int_eq(journal_log_write_superblock(e.journal, 1, 0, DEV_FUA), 0);
	ck_assert_ptr_null(journal_replay_obstacle(e.journal));
	testlog_start(&e);
	ck_assert_uint_eq(fdio_get_be32(e.journal->log.superblock, obstacle[_i].off) &
					  obstacle[_i].bits,
			  0);
	testlog_down(&e);
}
END_TEST

/*
 * A log with an area for fast commits. If the area is empty (_i 0) or has one of an older
 * transaction (1), the log is complete. If it has one of the next transaction (2, 3), the replay is
 * refused and nothing is written.
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
	rewrite_superblock(&e, JOURNAL_SB_INCOMPAT, JOURNAL_INCOMPAT_FAST_COMMIT);
	ck_assert_uint_eq(e.journal->log.fast_commit_blocks, _i == 3 ? 256 : 64);
	tid = _i == 1 ? last : last + 1;
	memcpy(head, (uint32_t[]){ htole32(9 | 8 << 16), 0, htole32(tid), 0 }, sizeof(head));
	if (_i)
		fake_poke(e.fake, head, sizeof(head),
			  log_offset(&e, e.journal->log.end + (_i != 3)));
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
	fake_peek(e.fake, desc, 4096, log_offset(&e, 1));
	fdio_put_be32(desc, JOURNAL_HEADER_BYTES, _i ? (uint32_t)e.log[0].pblk : 0xfffffff0u);
	fake_poke(e.fake, desc, 4096, log_offset(&e, 1));
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

		for (unsigned second = 0; second < 4; second++)
			v[second] = (uint8_t)(rand_r(&seed) % 3 ? rand_r(&seed) : 0);
		fake_poke(e.fake, v, 4,
			  log_offset(&e, blk) + (rand_r(&seed) % 2 ? 12 + rand_r(&seed) % 64
								: rand_r(&seed) % 1000));
	}
	journal_replay(e.journal, &stats, FDIO_REASON(err)); /* any result will do */
	testlog_drop(&e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: replay");
	TCase *tc = unit_case(s, "replay", 60);

	unit_seeds(tc, agrees_with_e2fsck, 8);
	unit_loop(tc, interrupted_replay_is_repeated, 0, 2, PROVES("JOURNAL-12"));
	unit_test(tc, sigterm_ends_a_replay);
	unit_loop(tc, damaged_log_is_refused_and_nothing_written, 0, 3, PROVES("JOURNAL-12"));
	unit_loop(tc, unfinished_transaction_is_ignored, 0, 3);
	unit_test(tc, torn_commit_block_counts);
	unit_loop(tc, unknown_features_are_refused, 0, 2);
	unit_loop(tc, fast_commits_are_not_skipped, 0, 4);
	unit_loop(tc, tag_outside_the_file_system_is_refused, 0, 2);
	unit_test(tc, stale_transactions_are_not_taken_for_new_ones, PROVES("JOURNAL-9"));
	unit_seeds(tc, random_garbage_never_crashes, 12);
	return s;
}
