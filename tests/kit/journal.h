/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The journal layer of the kit: a formatted fake device with its journal opened. Blocks get
 * patterns that name the block and a value, so that a lost, torn, stale or misplaced block is seen.
 * One thread of the test calls these functions; all fail the test on errors.
 */
#ifndef FDIO_KIT_JOURNAL_H
#define FDIO_KIT_JOURNAL_H

#include "kit/device.h"
#include "kit/runner.h"
#include "journal/journal_types.h"

enum { TESTLOG_MAX_EXTENTS = 32 };

/* A file system with a journal. Tests use its free blocks, from base on, as metadata. */
struct testlog {
	struct fake_dev *fake;
	struct journal *journal;
	struct journal_params params;
	struct journal_extent log[TESTLOG_MAX_EXTENTS];
	uint64_t base;       /* first of a run of free blocks */
	unsigned aborted;    /* calls of the aborted callback */
	int aborted_err;
	unsigned aborted_ms; /* how long that callback is to take */
	void (*seal)(struct testlog *e, struct journal_handle *h);
	unsigned seals;
};

struct testlog_format { const char *name; unsigned bs; bool csum, wide; };
/*
 * Blocks of 4 KiB with checksums v3; 4 KiB with plain 32-bit tags; 1 KiB with checksums; 4 KiB with
 * 64-bit tags and no checksums.
 */
extern const struct testlog_format testlog_formats[4];

/* Formats, with a journal of log_mib MiB, and sets needs_recovery. */
void testlog_format(struct testlog *e, const struct testlog_format *fmt, unsigned log_mib);
void testlog_open(struct testlog *e);
void testlog_start(struct testlog *e);
/* All three; testlog_up does it with the first format and a journal of 4 MiB. */
void testlog_up_as(struct testlog *e, const struct testlog_format *fmt, unsigned log_mib);
void testlog_up(struct testlog *e);
void testlog_sync(struct testlog *e); /* everything so far is durable */
void testlog_down(struct testlog *e);  /* stop (expecting success), close, free */
/* Closes, whatever stopping says, and frees the device: after an abort or a crash. */
void testlog_drop(struct testlog *e);
/* Replaces the device by what a power cut leaves; the journal is not opened there. */
void testlog_cut(struct testlog *e, enum fake_cut mode, uint64_t seed);
/* testlog_cut with FAKE_CUT_DROP, then testlog_replay, which opens and replays. */
void testlog_crash(struct testlog *e, struct journal_replay_stats *stats);
void testlog_replay(struct testlog *e, struct journal_replay_stats *stats);

/* Fills the block with the pattern of value in a handle of its own. Returns its transaction. */
journal_tid testlog_write(struct testlog *e, uint64_t blk, uint32_t value);
/* As testlog_write, inside an open handle. */
void testlog_fill(struct testlog *e, struct journal_handle *handle, uint64_t blk, uint32_t value);
/*
 * The value whose pattern the block holds, as the journal reads it, and at home on the device; -1
 * if it holds no pattern.
 */
int64_t testlog_value(struct testlog *e, uint64_t blk);
int64_t testlog_home(struct testlog *e, uint64_t blk);
void testlog_pattern(uint8_t *buf, unsigned bs, uint64_t blk, uint32_t value);
int64_t testlog_parse(const uint8_t *buf, unsigned bs, uint64_t blk);

#endif
