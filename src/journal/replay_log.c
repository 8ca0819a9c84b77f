/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading the log for the replay: a window of log blocks, the tags of a descriptor, the checksums,
 * and the walk through one transaction that all passes share. Runs on the thread of journal_replay;
 * blocks on the device. No locks.
 *
 * Where the log ends: at the first block without the magic number or the expected id, which may be
 * inside a transaction whose commit block a crash kept from being written. A commit block with a
 * wrong checksum is damage (-EUCLEAN), and so is a wrong checksum in a transaction that has its
 * commit block. A log block that cannot be read is -EIO. Nothing from the log is trusted for a
 * position or length without a bound.
 */
#include "journal/replay_types.h"

#include "base/stop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int journal_replay_damaged(struct replay *replay, const char *what, uint32_t tid)
{
	fdio_reason_set(replay->reason, "journal: %s in transaction %u (run e2fsck)", what, tid);
	return -EUCLEAN;
}

const uint8_t *journal_replay_block(struct replay *replay, uint32_t pos)
{
	struct journal_log *log = &replay->journal->log;
	uint32_t dist = pos >= replay->window_pos ? pos - replay->window_pos
						  : pos + log->len - replay->window_pos;

	if (!replay->window_blocks || dist >= replay->window_blocks) {
		uint32_t n = FDIO_MIN((uint32_t)WINDOW_BLOCKS, log->len);

		replay->window_blocks = 0;
		if (journal_log_read(replay->journal, pos, n, replay->window)) {
			fdio_reason_set(replay->reason, "journal: log block %u cannot be read",
					pos);
			return NULL;
		}
		replay->window_pos = pos;
		replay->window_blocks = n;
		dist = 0;
	}
	return replay->window + (size_t)dist * replay->journal->block_size;
}

/* ---- tags ---- */

/*
 * Parses the tag at *off of a descriptor and moves *off behind it. False at the end of the block.
 */
static bool next_tag(const struct journal *journal, const uint8_t *desc, unsigned *off,
		     struct tag *tag)
{
	uint32_t inc = journal->log.incompat;
	unsigned end = journal->block_size -
		       (journal_format_has_checksums(inc) ? JOURNAL_TAIL_BYTES : 0);
	const uint8_t *p = desc + *off;

	if (*off + journal->log.tag_bytes > end)
		return false;
	tag->blk = fdio_get_be32(p, 0);
	if (inc & JOURNAL_INCOMPAT_CSUM_V3) {
		tag->flags = fdio_get_be32(p, 4);
		tag->checksum = fdio_get_be32(p, 12);
	} else {
		tag->checksum = fdio_get_be16(p, 4);
		tag->flags = fdio_get_be16(p, 6);
	}
	if (inc & JOURNAL_INCOMPAT_64BIT)
		tag->blk |= (uint64_t)fdio_get_be32(p, 8) << 32;
	*off += journal->log.tag_bytes +
		(tag->flags & JOURNAL_TAG_SAME_UUID ? 0 : JOURNAL_UUID_BYTES);
	return true;
}

bool journal_replay_tag_checksum_ok(const struct journal *journal, const struct tag *tag,
				    uint32_t tid, const uint8_t *image)
{
	uint32_t c;

	if (!journal_format_has_checksums(journal->log.incompat))
		return true;
	c = journal_log_tag_checksum(journal, tid, image);
	return tag->checksum ==
	       (journal->log.incompat & JOURNAL_INCOMPAT_CSUM_V3 ? c : (c & 0xffff));
}

static bool tail_checksum_ok(const struct journal *journal, const uint8_t *blk)
{
	return !journal_format_has_checksums(journal->log.incompat) ||
	       fdio_get_be32(blk, journal->block_size - JOURNAL_TAIL_BYTES) ==
			       journal_log_tail_checksum(journal, blk);
}

/*
 * A commit block torn after its first sector is valid: the bytes behind that sector mean nothing.
 */
static bool commit_checksum_ok(const struct journal *journal, const uint8_t *blk)
{
	if (!journal_format_has_checksums(journal->log.incompat))
		return true;
	return fdio_get_be32(blk, JOURNAL_COMMIT_CHECKSUM) ==
			       journal_log_commit_checksum(journal, blk, journal->block_size) ||
	       fdio_get_be32(blk, JOURNAL_COMMIT_CHECKSUM) ==
			       journal_log_commit_checksum(journal, blk, 512);
}

/* ---- the walk that all passes share ---- */

static uint32_t step(struct replay *replay, uint32_t pos)
{
	replay->walked++;
	return journal_log_wrap(&replay->journal->log, (uint64_t)pos + 1);
}

static int walk_descriptor(struct replay *replay, struct walk *walk, const struct visitor *visitor,
			   uint8_t *desc)
{
	struct journal *journal = replay->journal;
	unsigned off = JOURNAL_HEADER_BYTES;
	struct tag tag;
	int ret = 0;

	if (!tail_checksum_ok(journal, desc))
		walk->bad = true;
	walk->pos = step(replay, walk->pos);
	while (!ret && replay->walked <= journal->log.len && next_tag(journal, desc, &off, &tag)) {
		ret = visitor->image(replay, walk->tid, &tag, walk->pos);
		if (ret == -EBADMSG) {
			walk->bad = true;
			ret = 0;
		}
		walk->pos = step(replay, walk->pos);
		if (tag.flags & JOURNAL_TAG_LAST)
			break;
	}
	return ret;
}

static int walk_commit(struct replay *replay, struct walk *walk, const uint8_t *blk)
{
	if (!commit_checksum_ok(replay->journal, blk))
		return journal_replay_damaged(replay, "commit block with a wrong checksum",
					      walk->tid);
	walk->pos = step(replay, walk->pos);
	walk->complete = true;
	return walk->bad ? journal_replay_damaged(replay, "block with a wrong checksum", walk->tid)
			 : 0;
}

bool journal_replay_stopped(struct replay *replay)
{
	if (fdio_stop_asked())
		fdio_reason_set(replay->reason, "journal: told to end during replay");
	return fdio_stop_asked();
}

int journal_replay_walk(struct replay *replay, struct walk *walk, const struct visitor *visitor)
{
	struct journal *journal = replay->journal;
	uint8_t *copy = malloc(journal->block_size);
	int ret = 0;

	if (!copy)
		return -ENOMEM;
	while (!ret && !walk->complete && replay->walked <= journal->log.len) {
		const uint8_t *blk =
				fdio_stop_asked() ? NULL : journal_replay_block(replay, walk->pos);
		uint32_t type;

		if (!blk) {
			ret = journal_replay_stopped(replay) ? -EINTR : -EIO;
			break;
		}
		if (fdio_get_be32(blk, JOURNAL_HEADER_MAGIC) != JOURNAL_MAGIC ||
		    fdio_get_be32(blk, JOURNAL_HEADER_TID) != walk->tid)
			break;
		type = fdio_get_be32(blk, JOURNAL_HEADER_TYPE);
		if (type == JOURNAL_BLOCK_DESCRIPTOR) {
			/* reading the images moves the window, so walk a copy of the descriptor */
			memcpy(copy, blk, journal->block_size);
			ret = walk_descriptor(replay, walk, visitor, copy);
		} else if (type == JOURNAL_BLOCK_COMMIT) {
			ret = walk_commit(replay, walk, blk);
		} else if (type == JOURNAL_BLOCK_REVOKE) {
			if (!tail_checksum_ok(journal, blk))
				walk->bad = true;
			ret = visitor->revoke(replay, walk->tid, blk);
			walk->pos = step(replay, walk->pos);
		} else {
			break;
		}
	}
	free(copy);
	return ret;
}
