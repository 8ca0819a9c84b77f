/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the two files of the replay share: replay.c (the passes) and replay_log.c (walking the log).
 * All of it lives for one call of journal_replay, on one thread, without locks.
 */
#ifndef FDIO_JOURNAL_REPLAY_TYPES_H
#define FDIO_JOURNAL_REPLAY_TYPES_H

#include "base/nowait.h"
#include "base/reason.h"
#include "journal/journal_types.h"

/* An image in the log; sequence counts images in the order of the log. */
struct replay_image { uint64_t blk; uint32_t sequence, pos, tid; bool escaped, revoked; };

struct replay {
	struct journal *journal;
	uint8_t *window;     /* window_blocks log blocks from window_pos on, wrapping */
	uint32_t window_pos, window_blocks;
	uint32_t start_pos, start_tid;
	uint32_t nr_transactions;    /* committed, in a row from start_tid */
	uint32_t walked; /* log blocks walked so far: the walk ends after one turn of the ring */
	struct replay_image *images; /* after the second pass sorted by block */
	size_t nr_images, cap_images;
	uint32_t sequence;
	struct journal_replay_stats stats;
	struct fdio_reason *reason;
};

/* One tag of a descriptor: an image and the block it belongs to. */
struct tag { uint64_t blk; uint32_t flags, checksum; };

/* What a pass does with a transaction's parts. */
struct visitor {
	int (*image)(struct replay *r, uint32_t tid, const struct tag *tag, uint32_t pos);
	int (*revoke)(struct replay *r, uint32_t tid, const uint8_t *blk);
};

/* State of the walk through one transaction. */
struct walk {
	uint32_t pos, tid;
	bool bad;      /* a checksum failed: damage, if a commit block follows */
	bool complete; /* the commit block was found */
};

enum { WINDOW_BLOCKS = 128 };

/* Describes the damage in reason and returns -EUCLEAN. */
int journal_replay_damaged(struct replay *replay, const char *what, uint32_t tid);
/* The log block at pos, valid until the next call. NULL when it cannot be read. */
const uint8_t *journal_replay_block(struct replay *replay, uint32_t pos) FDIO_BLOCKS;
bool journal_replay_tag_checksum_ok(const struct journal *journal, const struct tag *tag,
				    uint32_t tid, const uint8_t *image);
/*
 * True: the daemon has been told to stop, and reason says so. The next replay begins anew, whatever
 * this one has written home.
 */
bool journal_replay_stopped(struct replay *replay);
/*
 * Walks one transaction from walk->pos on. If walk->complete is false afterwards, the log ends
 * there. Returns 0, or an error of its own or of the visitor.
 */
int journal_replay_walk(struct replay *replay, struct walk *walk,
			const struct visitor *visitor) FDIO_BLOCKS;

#endif
