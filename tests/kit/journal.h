/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the tests of the journal share: a formatted device in memory with its journal opened. One
 * thread sets up.
 */
#ifndef FDIO_KIT_JOURNAL_H
#define FDIO_KIT_JOURNAL_H

#include "kit/device.h"
#include "kit/runner.h"
#include "journal/journal_types.h"

enum { TESTLOG_MAX_EXTENTS = 32 };

/*
 * A file system with a journal of jblocks blocks; its free blocks serve as metadata of no meaning.
 */
struct testlog {
	struct fake_dev *fake;
	struct journal *journal;
	struct journal_params params;
	struct journal_extent log[TESTLOG_MAX_EXTENTS];
	uint64_t base;       /* first of a run of free blocks */
	unsigned aborted;    /* calls of the aborted callback */
	int aborted_err;
	unsigned aborted_ms; /* how long that callback takes */
	void (*seal)(struct testlog *e, struct journal_handle *h);
	unsigned seals;
};

struct testlog_format { const char *name; unsigned bs; bool csum, wide; };
/*
 * 4 KiB with csum v3; 4 KiB with plain 32-bit tags; 1 KiB blocks; 4 KiB with 64-bit tags and no
 * checksums
 */
extern const struct testlog_format testlog_formats[4];

/* Formats, sets needs_recovery, opens; testlog_start starts. log_mib: size of the journal. */
void testlog_format(struct testlog *e, const struct testlog_format *fmt, unsigned log_mib);
void testlog_open(struct testlog *e);
void testlog_start(struct testlog *e);
/* All three; testlog_up with the first format and a journal of 4 MiB. */
void testlog_up_as(struct testlog *e, const struct testlog_format *fmt, unsigned log_mib);
void testlog_up(struct testlog *e);
void testlog_sync(struct testlog *e); /* everything so far is durable */
void testlog_down(struct testlog *e);  /* stop (expecting success), close, free */
/* close without writing, device freed; after an abort or a "crash" */
void testlog_drop(struct testlog *e);
/* Stops using e's device as a power cut would and puts e on what is left (not opened). */
void testlog_cut(struct testlog *e, enum fake_cut mode, uint64_t seed);
/* As testlog_cut(FAKE_CUT_DROP), then opens and replays. */
void testlog_crash(struct testlog *e, struct journal_replay_stats *stats);
void testlog_replay(struct testlog *e, struct journal_replay_stats *stats);

/* One handle that fills the block with a pattern of value. Returns its tid. */
journal_tid testlog_write(struct testlog *e, uint64_t blk, uint32_t value);
/* The same inside an open handle. */
void testlog_fill(struct testlog *e, struct journal_handle *handle, uint64_t blk, uint32_t value);
/*
 * The pattern value in the cache or, on a device not opened, at home; -1 if the block is not one
 * pattern.
 */
int64_t testlog_value(struct testlog *e, uint64_t blk);
int64_t testlog_home(struct testlog *e, uint64_t blk);
void testlog_pattern(uint8_t *buf, unsigned bs, uint64_t blk, uint32_t value);
int64_t testlog_parse(const uint8_t *buf, unsigned bs, uint64_t blk);

#endif
