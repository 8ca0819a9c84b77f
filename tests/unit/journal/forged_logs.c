/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replay of logs that no writer makes, put together block by block: revocations and images in every
 * order, more of them than a log of its size should hold, places of the log that make no sense.
 * Without checksums, so that they are easy to forge.
 */
#include "kit/journal.h"

#include "base/log.h"
#include "base/poison.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

/* Where the next block of the log goes. */
struct hand { struct testlog *e; uint32_t pos, tid; };

enum { FIRST_TID = 100 };

static void hand_begin(struct hand *hand, struct testlog *e, unsigned log_mib)
{
	testlog_format(e, &testlog_formats[1], log_mib);
	testlog_open(e);
	*hand = (struct hand){ .e = e, .pos = e->journal->log.first, .tid = FIRST_TID };
	fdio_log_set_level(0);
}

static void hand_put(struct hand *hand, const void *blk)
{
	ck_assert_uint_lt(hand->pos, hand->e->journal->log.end);
	fake_poke(hand->e->fake, blk, 4096, journal_log_map(hand->e->journal, hand->pos++, NULL));
}

/* A descriptor and the image of one block. */
static void hand_image(struct hand *hand, uint64_t blk, uint32_t value)
{
	static uint8_t buf[4096];

	memset(buf, 0, sizeof(buf));
	journal_format_put_header(buf, JOURNAL_BLOCK_DESCRIPTOR, hand->tid);
	fdio_put_be32(buf, JOURNAL_HEADER_BYTES, (uint32_t)blk);
	fdio_put_be16(buf, JOURNAL_HEADER_BYTES + 6, JOURNAL_TAG_LAST);
	hand_put(hand, buf);
	testlog_pattern(buf, 4096, blk, value);
	hand_put(hand, buf);
}

/* Revocations of n blocks from blk on. */
static void hand_revoke(struct hand *hand, uint64_t blk, unsigned n)
{
	static uint8_t buf[4096];

	memset(buf, 0, sizeof(buf));
	journal_format_put_header(buf, JOURNAL_BLOCK_REVOKE, hand->tid);
	fdio_put_be32(buf, JOURNAL_REVOKE_COUNT, JOURNAL_REVOKE_HEADER_BYTES + 4 * n);
	for (unsigned k = 0; k < n; k++)
		fdio_put_be32(buf, JOURNAL_REVOKE_HEADER_BYTES + 4 * k, (uint32_t)blk + k);
	hand_put(hand, buf);
}

static void hand_commit(struct hand *hand)
{
	static uint8_t buf[4096];

	memset(buf, 0, sizeof(buf));
	journal_format_put_header(buf, JOURNAL_BLOCK_COMMIT, hand->tid++);
	hand_put(hand, buf);
}

static void hand_replay(struct hand *hand, struct journal_replay_stats *stats)
{
	struct journal *journal = hand->e->journal;
	char err[256] = "";
	int r;

	ck_assert_int_eq(journal_log_write_superblock(journal, FIRST_TID, journal->log.first,
						      DEV_FUA),
			 0);
	r = journal_replay(journal, stats, FDIO_REASON(err));
	ck_assert_msg(r == 0, "journal_replay: %d %s", r, err);
	ck_assert_uint_eq(stats->transactions, hand->tid - FIRST_TID);
}

/* A revocation kills images of its own transaction, wherever in it they stand. */
START_TEST(revoked_in_its_own_transaction)
{
	struct journal_replay_stats stats;
	struct hand hand;
	struct testlog e;

	hand_begin(&hand, &e, 4);
	if (_i)
		hand_revoke(&hand, e.base, 1);
	hand_image(&hand, e.base, 1);
	hand_image(&hand, e.base + 1, 2);
	if (!_i)
		hand_revoke(&hand, e.base, 1);
	hand_commit(&hand);
	hand_replay(&hand, &stats);
	ck_assert_uint_eq(stats.revoked, 1);
	ck_assert_uint_eq(stats.blocks, 1);
	ck_assert_int_ne(testlog_home(&e, e.base), 1);
	ck_assert_int_eq(testlog_home(&e, e.base + 1), 2);
	testlog_drop(&e);
}
END_TEST

/* Of earlier ones too, and none of later ones. */
START_TEST(revoked_before_and_after)
{
	struct journal_replay_stats stats;
	struct hand hand;
	struct testlog e;

	hand_begin(&hand, &e, 4);
	for (unsigned k = 0; k < 3; k++) {
		hand_image(&hand, e.base, 10 + k); /* of all three the newest */
		if (k < 2)
			hand_image(&hand, e.base + 1, 20 + k); /* none: revoked by the third */
		if (k < 1)
			hand_image(&hand, e.base + 2, 30); /* none: revoked by the second */
		if (k == 1)
			hand_revoke(&hand, e.base + 2, 1);
		if (k == 2)
			hand_revoke(&hand, e.base + 1, 1);
		if (k == 1)
			hand_revoke(&hand, e.base, 1); /* does not matter: the third has it again */
		hand_commit(&hand);
	}
	hand_replay(&hand, &stats);
	ck_assert_uint_eq(stats.revoked, 2);
	ck_assert_uint_eq(stats.blocks, 1);
	ck_assert_int_eq(testlog_home(&e, e.base), 12);
	ck_assert_int_lt(testlog_home(&e, e.base + 1), 20);
	ck_assert_int_lt(testlog_home(&e, e.base + 2), 30);
	testlog_drop(&e);
}
END_TEST

/* More of the same images than the list takes at first: it is made shorter, and the newest stay. */
START_TEST(images_again_and_again)
{
	struct journal_replay_stats stats;
	struct hand hand;
	struct testlog e;

	hand_begin(&hand, &e, 32);
	for (unsigned k = 0; k < 2500; k++) {
		hand_image(&hand, e.base + k % 7, 1000 + k);
		if (k % 100 == 99)
			hand_commit(&hand);
	}
	hand_replay(&hand, &stats);
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

/* Two million revocations, of which none matters, all of them twice: they take no memory. */
START_TEST(revocations_take_no_memory)
{
	enum { BLOCKS = 2000, EACH = 1000 };
	struct journal_replay_stats stats;
	struct rlimit lim;
	struct hand hand;
	struct testlog e;

	hand_begin(&hand, &e, 16);
	hand_image(&hand, e.base, 1);
	for (unsigned k = 0; k < BLOCKS; k++)
		hand_revoke(&hand, 1000000 + (uint64_t)(k % (BLOCKS / 2)) * EACH, EACH);
	hand_commit(&hand);
	ck_assert_int_eq(getrlimit(RLIMIT_DATA, &lim), 0);
	lim.rlim_cur = data_bytes() + (4 << 20);
	if (!FDIO_ASAN)
		ck_assert_int_eq(setrlimit(RLIMIT_DATA, &lim), 0);
	hand_replay(&hand, &stats);
	ck_assert_uint_eq(stats.blocks, 1);
	ck_assert_uint_eq(stats.revoked, 0);
	testlog_drop(&e);
}
END_TEST

/* ---- places ---- */

/* A log is as long as the blocks that it has, each once. */
START_TEST(block_twice_in_the_log)
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

/* In a log of very many pieces a block is found by halving: else this would take an hour. */
START_TEST(log_in_many_pieces)
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

/* It may begin with its first block and with its last, not with the one behind that. */
START_TEST(start_of_the_log)
{
	uint32_t start;
	char err[256];
	bool good = _i < 2;
	struct testlog e;
	int r;

	testlog_format(&e, &testlog_formats[1], 4);
	testlog_open(&e);
	start = _i ? e.journal->log.end - 2 + (uint32_t)_i : e.journal->log.first;
	fdio_put_be32(e.journal->log.superblock, JOURNAL_SB_START, start);
	fake_poke(e.fake, e.journal->log.superblock, 4096, journal_log_map(e.journal, 0, NULL));
	journal_close(e.journal);
	e.journal = NULL;
	r = journal_open(&e.params, &e.journal, FDIO_REASON(err));
	ck_assert_int_eq(r, good ? 0 : -EUCLEAN);
	if (r)
		ck_assert_ptr_nonnull(strstr(err, "start lies outside"));
	testlog_drop(&e);
}
END_TEST

Suite *unit_suite(void)
{
	Suite *s = suite_create("journal: forged logs");
	TCase *tc = unit_case(s, "hand", 60);

	unit_loop(tc, revoked_in_its_own_transaction, 0, 2);
	unit_test(tc, revoked_before_and_after);
	unit_test(tc, images_again_and_again);
	unit_test(tc, revocations_take_no_memory);
	unit_loop(tc, block_twice_in_the_log, 0, 2);
	unit_test(tc, log_in_many_pieces);
	unit_loop(tc, start_of_the_log, 0, 4);
	return s;
}
