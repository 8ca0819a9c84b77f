/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log as blocks (log.c): where it lies on the device, its superblock, its checksums. Log blocks
 * are numbered from 0, the journal superblock; positions from first to end - 1 are used as a ring.
 */
#ifndef FDIO_JOURNAL_LOG_H
#define FDIO_JOURNAL_LOG_H

#include "base/lock.h"
#include "base/nowait.h"
#include "base/reason.h"
#include "journal/format.h"
#include "journal/journal.h"

struct journal_log_extent { uint32_t lblk, len; uint64_t pblk; };

struct journal_log {
	/* set by journal_log_open */
	struct journal_log_extent *extents; /* in logical order, without holes */
	struct journal_extent *places;      /* the same extents sorted by pblk; disjoint */
	unsigned nr_extents;
	uint32_t first, end, len;           /* len: end - first */
	uint32_t fast_commit_blocks; /* size of the area behind end; 0: none, or the log is empty */
	uint32_t checksum_seed;
	/* changed by journal_start, before there are other threads */
	uint32_t incompat;
	unsigned tags_per_descriptor, tag_bytes, revokes_per_block;

	struct fdio_mutex superblock_lock;
	uint8_t *superblock;                /* one block; superblock_lock */

	/* the committing thread */
	uint32_t head;                      /* next log block to write */
	uint8_t *stage;                     /* log blocks gathered for one write */
	unsigned stage_blocks;
	bool active;                        /* s_start is set: there is something to replay */

	uint32_t free;                      /* atomic; shrinks when a transaction closes */
};

/* Reads and checks the superblock. After a failure journal_log_close is still to be called. */
int journal_log_open(struct journal *journal, struct fdio_reason *reason) FDIO_BLOCKS;
void journal_log_close(struct journal *journal);
/*
 * The device address (bytes) of a log block; *ret_run (NULL allowed): log blocks from it on that
 * are contiguous on the device.
 */
uint64_t journal_log_map(const struct journal *journal, uint32_t lblk, uint32_t *ret_run);
static inline uint32_t journal_log_wrap(const struct journal_log *log, uint64_t pos)
{
	return pos >= log->end ? (uint32_t)(pos - log->len) : (uint32_t)pos;
}
/*
 * True: blk (a file system block) belongs to the log. A hostile log may name such a block in a tag.
 */
bool journal_is_log_block(struct journal *journal, uint64_t blk);
/*
 * Sets end, len and fast_commit_blocks from the superblock. While there is a log to replay, the log
 * ends before the area of fast commits. False: the superblock's values are impossible.
 */
bool journal_log_set_end(struct journal *journal);
/* Sets the geometry of tags and revocations for the features in incompat. */
void journal_log_set_format(struct journal *journal);
bool journal_log_superblock_checksum_ok(const uint8_t *sb);
/* Writes the superblock with these values; flags: of dev_write. -EIO after an abort. */
int journal_log_write_superblock(struct journal *journal, uint32_t sequence, uint32_t start,
				 unsigned flags) FDIO_BLOCKS;
/* Records the error of an abort, best effort. */
void journal_log_write_error(struct journal *journal, int err) FDIO_BLOCKS;
/* Read and write n log blocks from lblk on, wrapping at the end of the ring. */
int journal_log_read(struct journal *journal, uint32_t lblk, unsigned n, uint8_t *buf) FDIO_BLOCKS;
int journal_log_write(struct journal *journal, uint32_t lblk, unsigned n, uint8_t *buf) FDIO_BLOCKS;
/* crc32c of a log block, with its last four bytes counted as zero. */
uint32_t journal_log_tail_checksum(const struct journal *journal, const uint8_t *blk);
/* crc32c of a commit block, with its checksum and all bytes from meaningful on counted as zero. */
uint32_t journal_log_commit_checksum(const struct journal *journal, const uint8_t *blk,
				     size_t meaningful);
uint32_t journal_log_tag_checksum(const struct journal *journal, uint32_t tid,
				  const uint8_t *image);
/* Log blocks of a transaction: images, their descriptors, revocations, the commit block. */
static inline uint32_t journal_log_blocks_needed(const struct journal_log *log, uint32_t images,
						 uint32_t revoke_blocks)
{
	return images + (uint32_t)fdio_div_up(images, log->tags_per_descriptor) + revoke_blocks + 1;
}

#endif
