/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replay of forged logs, put together block by block as no writer makes them: revocations and
 * images in every order, more of them than a log of its size should hold, and logs at impossible
 * places. The logs have no checksums. One thread.
 */
#include "kit/journal.h"

#include "base/log.h"
#include "base/poison.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

/* Where the next block of the forged log goes. */
struct forger { struct testlog *e; uint32_t pos, tid; };

enum { FIRST_TID = 100 };

static void forge_begin(struct forger *forger, struct testlog *e, unsigned log_mib)
{
	testlog_format(e, &testlog_formats[1], log_mib);
	testlog_open(e);
	*forger = (struct forger){ .e = e, .pos = e->journal->log.first, .tid = FIRST_TID };
	fdio_log_set_level(0);
}

static void forge_block(struct forger *forger, const void *blk)
{
	ck_assert_uint_lt(forger->pos, forger->e->journal->log.end);
	fake_poke(forger->e->fake, blk, 4096,
		  journal_log_map(forger->e->journal, forger->pos++, NULL));
}

/* A descriptor and the image of one block. */
static void forge_image(struct forger *forger, uint64_t blk, uint32_t value)
{
	static uint8_t buf[4096];

	memset(buf, 0, sizeof(buf));
	journal_format_put_header(buf, JOURNAL_BLOCK_DESCRIPTOR, forger->tid);
	fdio_put_be32(buf, JOURNAL_HEADER_BYTES, (uint32_t)blk);
	fdio_put_be16(buf, JOURNAL_HEADER_BYTES + 6, JOURNAL_TAG_LAST);
	forge_block(forger, buf);
	testlog_pattern(buf, 4096, blk, value);
	forge_block(forger, buf);
}

/* Revocations of n blocks from blk on. */
static void forge_revocations(struct forger *forger, uint64_t blk, unsigned n)
{
	static uint8_t buf[4096];

	memset(buf, 0, sizeof(buf));
	journal_format_put_header(buf, JOURNAL_BLOCK_REVOKE, forger->tid);
	fdio_put_be32(buf, JOURNAL_REVOKE_COUNT, JOURNAL_REVOKE_HEADER_BYTES + 4 * n);
	for (unsigned k = 0; k < n; k++)
		fdio_put_be32(buf, JOURNAL_REVOKE_HEADER_BYTES + 4 * k, (uint32_t)blk + k);
	forge_block(forger, buf);
}

static void forge_commit(struct forger *forger)
{
	static uint8_t buf[4096];

	memset(buf, 0, sizeof(buf));
	journal_format_put_header(buf, JOURNAL_BLOCK_COMMIT, forger->tid++);
	forge_block(forger, buf);
}

static void forge_replay(struct forger *forger, struct journal_replay_stats *stats)
{
	struct journal *journal = forger->e->journal;
	char err[256] = "";
	int err_open;

	ck_assert_int_eq(journal_log_write_superblock(journal, FIRST_TID, journal->log.first,
						      DEV_FUA),
			 0);
	err_open = journal_replay(journal, stats, FDIO_REASON(err));
	ck_assert_msg(err_open == 0, "journal_replay: %d %s", err_open, err);
	ck_assert_uint_eq(stats->transactions, forger->tid - FIRST_TID);
}

/* A revocation stops images of its own transaction, before it (_i 0) and after it (_i 1). */
START_TEST(revoked_in_its_own_transaction)
{
	struct journal_replay_stats stats;
	struct forger forger;
	struct testlog e;

	forge_begin(&forger, &e, 4);
	if (_i)
		forge_revocations(&forger, e.base, 1);
	forge_image(&forger, e.base, 1);
	forge_image(&forger, e.base + 1, 2);
	if (!_i)
		forge_revocations(&forger, e.base, 1);
	forge_commit(&forger);
	forge_replay(&forger, &stats);
	ck_assert_uint_eq(stats.revoked, 1);
	ck_assert_uint_eq(stats.blocks, 1);
	ck_assert_int_ne(testlog_home(&e, e.base), 1);
	ck_assert_int_eq(testlog_home(&e, e.base + 1), 2);
	testlog_drop(&e);
}
END_TEST

/* A revocation stops images of earlier transactions, and none of later ones. */
START_TEST(revoked_before_and_after)
{
	struct journal_replay_stats stats;
	struct forger forger;
	struct testlog e;

	forge_begin(&forger, &e, 4);
	for (unsigned k = 0; k < 3; k++) {
		forge_image(&forger, e.base, 10 + k); /* of these, the newest is written */
		if (k < 2)
			forge_image(&forger, e.base + 1,
				    20 + k); /* not written: revoked by the third */
		if (k < 1)
			forge_image(&forger, e.base + 2,
				    30); /* not written: revoked by the second */
		if (k == 1)
			forge_revocations(&forger, e.base + 2, 1);
		if (k == 2)
			forge_revocations(&forger, e.base + 1, 1);
		if (k == 1)
			forge_revocations(&forger, e.base,
					  1); /* without effect: the third has an image again */
		forge_commit(&forger);
	}
	forge_replay(&forger, &stats);
	ck_assert_uint_eq(stats.revoked, 2);
	ck_assert_uint_eq(stats.blocks, 1);
	ck_assert_int_eq(testlog_home(&e, e.base), 12);
	ck_assert_int_lt(testlog_home(&e, e.base + 1), 20);
	ck_assert_int_lt(testlog_home(&e, e.base + 2), 30);
	testlog_drop(&e);
}
END_TEST

/* More images of the same blocks than the list takes at first: it drops all but the newest. */
START_TEST(newest_of_many_images_is_written)
{
	struct journal_replay_stats stats;
	struct forger forger;
	struct testlog e;

	forge_begin(&forger, &e, 32);
	for (unsigned k = 0; k < 2500; k++) {
		forge_image(&forger, e.base + k % 7, 1000 + k);
		if (k % 100 == 99)
			forge_commit(&forger);
	}
	forge_replay(&forger, &stats);
	ck_assert_uint_eq(stats.blocks, 7);
	for (unsigned k = 2493; k < 2500; k++)
		ck_assert_int_eq(testlog_home(&e, e.base + k % 7), 1000 + k);
	testlog_drop(&e);
}
END_TEST

static size_t data_bytes(void)
{
	FILE *f = fopen("/proc/self/status", "r");
	size_t kib = 0;
	char line[256];

	ck_assert_ptr_nonnull(f);
	while (fgets(line, sizeof(line), f) && sscanf(line, "VmData: %zu", &kib) != 1)
		;
	fclose(f);
	ck_assert_uint_gt(kib, 0);
	return kib << 10;
}

/* A million useless revocations, each twice, take less than 4 MiB of memory. */
START_TEST(revocations_take_no_memory)
{
	enum { BLOCKS = 2000, EACH = 1000 };
	struct journal_replay_stats stats;
	struct rlimit lim;
	struct forger forger;
	struct testlog e;

	forge_begin(&forger, &e, 16);
	forge_image(&forger, e.base, 1);
	for (unsigned k = 0; k < BLOCKS; k++)
		forge_revocations(&forger, 1000000 + (uint64_t)(k % (BLOCKS / 2)) * EACH, EACH);
	forge_commit(&forger);
	ck_assert_int_eq(getrlimit(RLIMIT_DATA, &lim), 0);
	lim.rlim_cur = data_bytes() + (4 << 20);
	if (!FDIO_ASAN)
		ck_assert_int_eq(setrlimit(RLIMIT_DATA, &lim), 0);
	forge_replay(&forger, &stats);
	ck_assert_uint_eq(stats.blocks, 1);
	ck_assert_uint_eq(stats.revoked, 0);
	testlog_drop(&e);
}
END_TEST

/* ---- places ---- */

/* A block may be in the log only once. */
START_TEST(block_twice_in_the_log_is_refused)
{
	struct journal_extent *more;
	char err[256];
	struct testlog e;

	testlog_format(&e, &testlog_formats[1], 4);
	more = &e.log[e.params.nr_log];
	more[0] = (struct journal_extent){ .pblk = e.base, .len = 10 };
	more[1] = (struct journal_extent){ .pblk = e.base + 9, .len = 10 };
	if (_i)
		more[1].pblk = e.log[0].pblk + e.log[0].len - 1;
	e.params.nr_log += 2;
	fdio_log_set_level(0);
	ck_assert_int_eq(journal_open(&e.params, &e.journal, FDIO_REASON(err)), -EUCLEAN);
	ck_assert_ptr_nonnull(strstr(err, "twice"));
	more[1].pblk = e.base + 10;
	testlog_open(&e);
	testlog_drop(&e);
}
END_TEST

/* A block of a log in 200,000 pieces is found by bisection; a linear search would take an hour. */
START_TEST(blocks_of_a_log_in_many_pieces_are_found)
{
	enum { PIECES = 200000, FIRST = 1 << 20 };
	struct journal_extent *log = calloc(PIECES, sizeof(*log));
	unsigned found = 0, real;
	struct testlog e;

	ck_assert_ptr_nonnull(log);
	testlog_format(&e, &testlog_formats[1], 4);
	real = e.params.nr_log;
	memcpy(log, e.log, e.params.nr_log * sizeof(*log));
	for (unsigned k = e.params.nr_log; k < PIECES; k++)
		log[k] = (struct journal_extent){ .pblk = FIRST + 3ul * (PIECES - k), .len = 2 };
	e.params.log = log;
	e.params.nr_log = PIECES;
	e.params.nr_blocks = FIRST + 4 * PIECES;
	testlog_open(&e);
	for (uint64_t blk = FIRST; blk < FIRST + 3 * PIECES; blk++)
		found += journal_is_log_block(e.journal, blk);
	ck_assert_uint_eq(found, 2 * (PIECES - real));
	testlog_drop(&e);
	free(log);
}
END_TEST

/* The log may start at its first block or at its last, not behind that. */
START_TEST(start_outside_the_log_is_refused)
{
	uint32_t start;
	char err[256];
	bool good = _i < 2;
	struct testlog e;
	int err_open;

	testlog_format(&e, &testlog_formats[1], 4);
	testlog_open(&e);
	start = _i ? e.journal->log.end - 2 + (uint32_t)_i : e.journal->log.first;
	fdio_put_be32(e.journal->log.superblock, JOURNAL_SB_START, start);
	fake_poke(e.fake, e.journal->log.superblock, 4096, journal_log_map(e.journal, 0, NULL));
	journal_close(e.journal);
	e.journal = NULL;
	err_open = journal_open(&e.params, &e.journal, FDIO_REASON(err));
	ck_assert_int_eq(err_open, good ? 0 : -EUCLEAN);
	if (err_open)
		ck_assert_ptr_nonnull(strstr(err, "start lies outside"));
	testlog_drop(&e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: forged logs");
	TCase *tc = unit_case(s, "forged", 60);

	unit_loop(tc, revoked_in_its_own_transaction, 0, 2);
	unit_test(tc, revoked_before_and_after);
	unit_test(tc, newest_of_many_images_is_written);
	unit_test(tc, revocations_take_no_memory);
	unit_loop(tc, block_twice_in_the_log_is_refused, 0, 2);
	unit_test(tc, blocks_of_a_log_in_many_pieces_are_found);
	unit_loop(tc, start_outside_the_log_is_refused, 0, 4);
	return s;
}
