/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing one closed transaction to the log: revocations, descriptors with their images, the flush
 * and the commit block. Called by commit.c on the committing thread, with no lock held; blocks on
 * the device.
 *
 * The committing thread owns the head of the log, last_commit, and the stage in which log blocks
 * are gathered for large writes. Handles run meanwhile, so each image is copied under the state
 * lock, or is the copy ("frozen") that a handle made before it changed the block.
 *
 * Implements JOURNAL-2, JOURNAL-4, JOURNAL-5 and the order of times in JOURNAL-9. Failure: the
 * error of a write or flush. The log then holds no complete transaction, and the caller aborts.
 */
#include "journal/journal_types.h"

#include <errno.h>

/* Log blocks gathered for one write. */
struct stage {
	struct journal *journal;
	uint32_t pos; /* log block that the first of them is written to */
	unsigned nr_blocks;
};

static int stage_flush(struct stage *stage)
{
	struct journal_log *log = &stage->journal->log;
	int err = 0;

	if (stage->nr_blocks)
		err = journal_log_write(stage->journal, stage->pos, stage->nr_blocks, log->stage);
	stage->pos = journal_log_wrap(log, (uint64_t)stage->pos + stage->nr_blocks);
	stage->nr_blocks = 0;
	return err;
}

/* Makes room for n blocks that must be in the stage together until all are filled. */
static int stage_room(struct stage *stage, unsigned n)
{
	return stage->nr_blocks + n > stage->journal->log.stage_blocks ? stage_flush(stage) : 0;
}

static uint8_t *stage_next(struct stage *stage)
{
	FDIO_ASSERT(stage->nr_blocks < stage->journal->log.stage_blocks);
	return stage->journal->log.stage + (size_t)stage->nr_blocks++ * stage->journal->block_size;
}

static void set_tail_checksum(struct journal *journal, uint8_t *blk)
{
	if (journal_format_has_checksums(journal->log.incompat))
		fdio_put_be32(blk, journal->block_size - JOURNAL_TAIL_BYTES,
			      journal_log_tail_checksum(journal, blk));
}

static int write_revokes(struct stage *stage, struct journal_transaction *transaction)
{
	struct journal *journal = stage->journal;
	unsigned rec = journal->log.incompat & JOURNAL_INCOMPAT_64BIT ? 8 : 4,
		 left = transaction->kit->revokes.nr, used = 0;
	uint8_t *blk = NULL;

	for (unsigned i = 0; i < transaction->kit->revokes.cap && left; i++) {
		if (!transaction->kit->revokes.slot[i])
			continue;
		if (!blk) {
			int err = stage_room(stage, 1);

			if (err)
				return err;
			blk = stage_next(stage);
			memset(blk, 0, journal->block_size);
			journal_format_put_header(blk, JOURNAL_BLOCK_REVOKE, transaction->tid);
			used = JOURNAL_REVOKE_HEADER_BYTES;
		}
		if (rec == 8)
			fdio_put_be64(blk, used, transaction->kit->revokes.slot[i] - 1);
		else
			fdio_put_be32(blk, used, (uint32_t)(transaction->kit->revokes.slot[i] - 1));
		used += rec;
		left--;
		if (!left ||
		    used == JOURNAL_REVOKE_HEADER_BYTES + journal->log.revokes_per_block * rec) {
			fdio_put_be32(blk, JOURNAL_REVOKE_COUNT, used);
			set_tail_checksum(journal, blk);
			blk = NULL;
		}
	}
	return 0;
}

/* JOURNAL-2: the block as it was when the transaction closed. */
static void copy_image(struct journal *journal, struct journal_cache_buffer *buffer, uint8_t *dst)
{
	uint8_t *frozen;

	fdio_mutex_lock(&journal->state_lock);
	frozen = buffer->frozen;
	buffer->frozen = NULL;
	if (!frozen)
		memcpy(dst, buffer->public.data, journal->block_size);
	buffer->copied = true;
	fdio_mutex_unlock(&journal->state_lock);
	if (frozen) {
		memcpy(dst, frozen, journal->block_size);
		journal_slab_free(&journal->data_slab, frozen);
	}
}

static void put_tag(struct journal *journal, uint8_t *tag, struct journal_transaction *transaction,
		    uint64_t blk, uint32_t flags, const uint8_t *image)
{
	fdio_put_be32(tag, 0, (uint32_t)blk);
	if (journal->log.incompat & JOURNAL_INCOMPAT_CSUM_V3) {
		fdio_put_be32(tag, 4, flags);
		fdio_put_be32(tag, 8, (uint32_t)(blk >> 32));
		fdio_put_be32(tag, 12, journal_log_tag_checksum(journal, transaction->tid, image));
		return;
	}
	fdio_put_be16(tag, 4, 0);
	fdio_put_be16(tag, 6, (uint16_t)flags);
	if (journal->log.incompat & JOURNAL_INCOMPAT_64BIT)
		fdio_put_be32(tag, 8, (uint32_t)(blk >> 32));
}

/*
 * Replay would take an image that begins with the log's magic number for a log block: such an image
 * is written with zeroes in that place, and its tag gets JOURNAL_TAG_ESCAPE. True: the image was
 * changed.
 */
static bool escape(uint8_t *image)
{
	if (fdio_get_be32(image, 0) != JOURNAL_MAGIC || JOURNAL_MUTATED(JOURNAL_MUTATION_NO_ESCAPE))
		return false;
	fdio_put_be32(image, 0, 0);
	return true;
}

/* One descriptor and its n images. */
static int write_group(struct stage *stage, struct journal_transaction *transaction,
		       struct journal_cache_buffer **buffers, unsigned n)
{
	struct journal *journal = stage->journal;
	uint8_t *desc, *tag;
	int err = stage_room(stage, n + 1);

	if (err)
		return err;
	desc = stage_next(stage);
	memset(desc, 0, journal->block_size);
	journal_format_put_header(desc, JOURNAL_BLOCK_DESCRIPTOR, transaction->tid);
	tag = desc + JOURNAL_HEADER_BYTES;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *image = stage_next(stage);
		uint32_t flags = (i ? JOURNAL_TAG_SAME_UUID : 0) |
				 (i == n - 1 ? JOURNAL_TAG_LAST : 0);

		copy_image(journal, buffers[i], image);
		if (escape(image))
			flags |= JOURNAL_TAG_ESCAPE;
		put_tag(journal, tag, transaction, buffers[i]->public.blk, flags, image);
		tag += journal->log.tag_bytes;
		if (!i) {
			memcpy(tag, journal->log.superblock + JOURNAL_SB_UUID, JOURNAL_UUID_BYTES);
			tag += JOURNAL_UUID_BYTES;
		}
	}
	set_tail_checksum(journal, desc);
	return 0;
}

/* Writes everything but the commit block; *ret_pos: the commit block's place in the log. */
static int write_body(struct journal *journal, struct journal_transaction *transaction,
		      uint32_t *ret_pos)
{
	struct stage stage = { .journal = journal, .pos = transaction->log_start };
	unsigned most = journal->log.tags_per_descriptor;
	int err = 0;

	if (!JOURNAL_MUTATED(JOURNAL_MUTATION_NO_REVOKE))
		err = write_revokes(&stage, transaction);
	for (unsigned i = 0; i < transaction->nr_buffers && !err; i += most)
		err = write_group(&stage, transaction, transaction->kit->buffers + i,
				  FDIO_MIN(transaction->nr_buffers - i, most));
	if (!err)
		err = stage_flush(&stage);
	*ret_pos = stage.pos;
	return err;
}

static int write_commit_block(struct journal *journal, struct journal_transaction *transaction,
			      uint32_t pos)
{
	uint8_t *blk = journal->log.stage;
	struct timespec now;

	dev_now(journal->dev, &now);
	/* JOURNAL-9: even if the clock was set back, no commit is older than the one before. */
	if (now.tv_sec < journal->last_commit.tv_sec ||
	    (now.tv_sec == journal->last_commit.tv_sec &&
	     now.tv_nsec < journal->last_commit.tv_nsec))
		now = journal->last_commit;
	journal->last_commit = now;
	memset(blk, 0, journal->block_size);
	journal_format_put_header(blk, JOURNAL_BLOCK_COMMIT, transaction->tid);
	fdio_put_be64(blk, JOURNAL_COMMIT_SECONDS, (uint64_t)now.tv_sec);
	fdio_put_be32(blk, JOURNAL_COMMIT_NANOSECONDS, (uint32_t)now.tv_nsec);
	if (journal_format_has_checksums(journal->log.incompat))
		fdio_put_be32(blk, JOURNAL_COMMIT_CHECKSUM,
			      journal_log_commit_checksum(journal, blk, journal->block_size));
	return dev_write(journal->dev, blk, journal->block_size,
			 journal_log_map(journal, pos, NULL),
			 JOURNAL_MUTATED(JOURNAL_MUTATION_NO_FUA) ? 0 : DEV_FUA);
}

/* JOURNAL-5: before the first transaction is durable, the superblock says where the log begins. */
static int start_log(struct journal *journal, struct journal_transaction *transaction)
{
	int err = 0;

	if (!journal->log.active)
		err = journal_log_write_superblock(journal, transaction->tid,
						   transaction->log_start, 0);
	journal->log.active = !err;
	return err;
}

static void set_flushing(struct journal *journal, struct journal_transaction *transaction)
{
	fdio_mutex_lock(&journal->state_lock);
	journal_transaction_set_state(transaction, JOURNAL_TRANSACTION_FLUSHING);
	fdio_mutex_unlock(&journal->state_lock);
}

/* True: body and commit block fill exactly the log blocks that the transaction has reserved. */
static bool ends_in_place(struct journal *journal, struct journal_transaction *transaction,
			  uint32_t pos)
{
	uint64_t end = (uint64_t)transaction->log_start + transaction->log_len;

	return journal_log_wrap(&journal->log, (uint64_t)pos + 1) ==
	       journal_log_wrap(&journal->log, end);
}

/* JOURNAL-4, JOURNAL-5 */
int journal_commit_write(struct journal *journal, struct journal_transaction *transaction)
{
	uint32_t pos;
	int err;

	err = write_body(journal, transaction, &pos);
	if (err)
		return err;
	err = JOURNAL_MUTATED(JOURNAL_MUTATION_LATE_START) ? 0 : start_log(journal, transaction);
	if (err)
		return err;
	FDIO_ASSERT(JOURNAL_MUTATED(JOURNAL_MUTATION_NO_REVOKE) ||
		    ends_in_place(journal, transaction, pos));
	set_flushing(journal, transaction);
	err = JOURNAL_MUTATED(JOURNAL_MUTATION_NO_PREFLUSH) ? 0 : dev_flush(journal->dev);
	if (err)
		return err;
	if (journal_abort_error(journal))
		return -EIO; /* JOURNAL-10 */
	err = write_commit_block(journal, transaction, pos);
	if (JOURNAL_MUTATED(JOURNAL_MUTATION_LATE_START) && !err)
		err = start_log(journal, transaction);
	return err;
}
