/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of the journal share: a formatted device in memory with its journal opened. One thread sets up. */
#ifndef FDIO_CHECK_JOURNAL_H
#define FDIO_CHECK_JOURNAL_H

#include "kit/device.h"
#include "kit/runner.h"
#include "journal/journal_types.h"

enum { ENV_MAX_EXTENTS = 32 };

/* A file system with a journal of jblocks blocks; its free blocks serve as metadata of no meaning. */
struct env {
	struct fake_dev *f;
	struct jnl *j;
	struct jnl_params p;
	struct jnl_extent log[ENV_MAX_EXTENTS];
	uint64_t base;       /* first of a run of free blocks */
	unsigned aborted;    /* calls of the aborted callback */
	int aborted_err;
	unsigned aborted_ms; /* how long that callback takes */
	void (*seal)(struct env *e, struct jnl_handle *h);
	unsigned seals;
};

struct env_format { const char *name; unsigned bs; bool csum, wide; };
/* 4 KiB with csum v3; 4 KiB with plain 32-bit tags; 1 KiB blocks; 4 KiB with 64-bit tags and no checksums */
extern const struct env_format env_formats[4];

/* Formats, sets needs_recovery, opens; env_start starts. log_mib: size of the journal. */
void env_format(struct env *e, const struct env_format *fmt, unsigned log_mib);
void env_open(struct env *e);
void env_start(struct env *e);
/* Both, with the first format and a journal of 4 MiB. */
void env_up(struct env *e);
void env_down(struct env *e);  /* stop (expecting success), close, free */
void env_drop(struct env *e);  /* close without writing, device freed; after an abort or a "crash" */
/* Stops using e's device as a power cut would and puts e on what is left (not opened). */
void env_cut(struct env *e, enum fake_cut mode, uint64_t seed);
/* As env_cut(FAKE_CUT_DROP), then opens and replays. */
void env_crash(struct env *e, struct jnl_replay_stats *st);
void env_replay(struct env *e, struct jnl_replay_stats *st);

/* One handle that fills the block with a pattern of value. Returns its tid. */
jnl_tid env_write(struct env *e, uint64_t blk, uint32_t value);
/* The same inside an open handle. */
void env_fill(struct env *e, struct jnl_handle *h, uint64_t blk, uint32_t value);
/* The pattern value in the cache or, on a device not opened, at home; -1 if the block is not one pattern. */
int64_t env_value(struct env *e, uint64_t blk);
int64_t env_home(struct env *e, uint64_t blk);
void env_pattern(uint8_t *buf, unsigned bs, uint64_t blk, uint32_t value);
int64_t env_parse(const uint8_t *buf, unsigned bs, uint64_t blk);

#endif
