/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log as blocks: where its blocks lie on the device, its superblock, its checksums. Called by
 * the main thread (open, replay), the committing thread, the checkpoint thread and any thread that
 * aborts; blocks on the device.
 *
 * superblock_lock guards the superblock's image and is held while it is written, so two writers
 * cannot overtake each other. journal_log_open checks every position that the image names; from
 * then on positions are trusted, and asserted.
 *
 * Failure: the error of the device; journal_log_open says in reason what is wrong with the log.
 * After an abort journal_log_write_superblock writes nothing and returns -EIO (JOURNAL-10).
 */
#include "base/crc32c.h"
#include "base/log.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * The stage, where log blocks are gathered for one write, has at least this many blocks and bytes.
 */
enum { STAGE_BLOCKS_MIN = 256, STAGE_BYTES = 1 << 20 };

static int fail(struct fdio_reason *reason, int err, const char *text)
{
	return fdio_reason_fail(reason, err, "journal: %s", text);
}

static int by_place(const void *a, const void *b)
{
	const struct journal_extent *x = a, *y = b;

	return x->pblk < y->pblk ? -1 : x->pblk > y->pblk;
}

/*
 * Sorts the extents by their place on the device. -EUCLEAN if a block is in two of them: such a log
 * would have fewer blocks than it says.
 */
static int sort_places(struct journal *journal)
{
	struct journal_log *log = &journal->log;

	memcpy(log->places, journal->params.log, journal->params.nr_log * sizeof(*log->places));
	qsort(log->places, journal->params.nr_log, sizeof(*log->places), by_place);
	for (unsigned i = 1; i < journal->params.nr_log; i++)
		if (log->places[i - 1].pblk + log->places[i - 1].len > log->places[i].pblk)
			return -EUCLEAN;
	return 0;
}

static int copy_extents(struct journal *journal, uint64_t *ret_blocks)
{
	struct journal_log *log = &journal->log;
	uint64_t lblk = 0;

	log->extents = calloc(journal->params.nr_log, sizeof(*log->extents));
	log->places = calloc(journal->params.nr_log, sizeof(*log->places));
	if (!log->extents || !log->places)
		return -ENOMEM;
	for (unsigned i = 0; i < journal->params.nr_log; i++) {
		const struct journal_extent *extent = &journal->params.log[i];

		if (!extent->len || extent->pblk >= journal->params.nr_blocks ||
		    extent->len > journal->params.nr_blocks - extent->pblk ||
		    lblk + extent->len > UINT32_MAX / 2)
			return -EUCLEAN;
		log->extents[i] = (struct journal_log_extent){ .lblk = (uint32_t)lblk,
							       .len = extent->len,
							       .pblk = extent->pblk };
		lblk += extent->len;
	}
	log->nr_extents = journal->params.nr_log;
	*ret_blocks = lblk;
	return sort_places(journal);
}

bool journal_log_set_end(struct journal *journal)
{
	enum { MIN_LOG_BLOCKS = 64 };
	struct journal_log *log = &journal->log;

	log->fast_commit_blocks = 0;
	if ((log->incompat & JOURNAL_INCOMPAT_FAST_COMMIT) &&
	    fdio_get_be32(log->superblock, JOURNAL_SB_START)) {
		log->fast_commit_blocks =
				fdio_get_be32(log->superblock, JOURNAL_SB_FAST_COMMIT_BLOCKS);
		if (!log->fast_commit_blocks)
			log->fast_commit_blocks = JOURNAL_FAST_COMMIT_BLOCKS_DEFAULT;
	}
	log->end = fdio_get_be32(log->superblock, JOURNAL_SB_MAXLEN);
	if (log->fast_commit_blocks >= log->end || log->first < 1 ||
	    log->end - log->fast_commit_blocks < log->first + (uint64_t)MIN_LOG_BLOCKS)
		return false;
	log->end -= log->fast_commit_blocks;
	log->len = log->end - log->first;
	return true;
}

static int check_superblock(struct journal *journal, uint64_t blocks, struct fdio_reason *reason)
{
	struct journal_log *log = &journal->log;
	const uint8_t *sb = log->superblock;
	uint32_t start = fdio_get_be32(sb, JOURNAL_SB_START);

	if (fdio_get_be32(sb, JOURNAL_HEADER_MAGIC) != JOURNAL_MAGIC)
		return fail(reason, -EUCLEAN, "no superblock in the journal (run e2fsck)");
	if (fdio_get_be32(sb, JOURNAL_HEADER_TYPE) != JOURNAL_BLOCK_SUPERBLOCK_V2)
		return fail(reason, -EOPNOTSUPP, "superblock version is not 2");
	log->incompat = fdio_get_be32(sb, JOURNAL_SB_INCOMPAT);
	if (log->incompat & ~(uint32_t)JOURNAL_INCOMPAT_KNOWN ||
	    fdio_get_be32(sb, JOURNAL_SB_ROCOMPAT))
		return fail(reason, -EOPNOTSUPP, "unknown features");
	if (!journal_log_superblock_checksum_ok(sb))
		return fail(reason, -EUCLEAN, "superblock checksum is wrong (run e2fsck)");
	log->first = fdio_get_be32(sb, JOURNAL_SB_FIRST);
	if (fdio_get_be32(sb, JOURNAL_SB_BLOCKSIZE) != journal->block_size ||
	    fdio_get_be32(sb, JOURNAL_SB_MAXLEN) > blocks || !journal_log_set_end(journal))
		return fail(reason, -EUCLEAN, "impossible geometry (run e2fsck)");
	if (start && (start < log->first || start >= log->end))
		return fail(reason, -EUCLEAN, "start lies outside the log (run e2fsck)");
	log->checksum_seed = fdio_crc32c(~0u, sb + JOURNAL_SB_UUID, JOURNAL_UUID_BYTES);
	return 0;
}

int journal_log_open(struct journal *journal, struct fdio_reason *reason)
{
	struct journal_log *log = &journal->log;
	uint64_t blocks;
	int err;

	err = copy_extents(journal, &blocks);
	if (err)
		return fail(reason, err, err == -ENOMEM ? "out of memory" :
			    "its blocks lie outside the file system, or twice in it (run e2fsck)");
	log->superblock = fdio_alloc_aligned(4096, FDIO_MAX(journal->block_size, 4096u));
	log->stage_blocks = FDIO_MAX((unsigned)STAGE_BLOCKS_MIN,
				     (unsigned)STAGE_BYTES / journal->block_size);
	log->stage = fdio_alloc_aligned(4096, (size_t)log->stage_blocks * journal->block_size);
	if (!log->superblock || !log->stage)
		return fail(reason, -ENOMEM, "out of memory");
	err = journal_log_read(journal, 0, 1, log->superblock);
	if (err)
		return fail(reason, err, "its superblock cannot be read");
	err = check_superblock(journal, blocks, reason);
	if (err)
		return err;
	if (fdio_get_be32(log->superblock, JOURNAL_SB_ERRNO))
		log_warn("the journal was aborted with error %d the last time",
			 -(int32_t)fdio_get_be32(log->superblock, JOURNAL_SB_ERRNO));
	journal_log_set_format(journal);
	log->head = log->first;
	return 0;
}

void journal_log_close(struct journal *journal)
{
	free(journal->log.extents);
	free(journal->log.places);
	free(journal->log.superblock);
	free(journal->log.stage);
	fdio_mutex_fini(&journal->log.superblock_lock);
}

void journal_log_set_format(struct journal *journal)
{
	struct journal_log *log = &journal->log;
	unsigned tail = journal_format_has_checksums(log->incompat) ? JOURNAL_TAIL_BYTES : 0;

	log->tag_bytes = journal_format_tag_bytes(log->incompat);
	log->tags_per_descriptor =
			(journal->block_size - JOURNAL_HEADER_BYTES - JOURNAL_UUID_BYTES - tail) /
			log->tag_bytes;
	/* A descriptor and its images are staged together. */
	log->tags_per_descriptor = FDIO_MIN(log->tags_per_descriptor, log->stage_blocks - 1);
	log->revokes_per_block = (journal->block_size - JOURNAL_REVOKE_HEADER_BYTES - tail) /
				 (log->incompat & JOURNAL_INCOMPAT_64BIT ? 8 : 4);
}

uint64_t journal_log_map(const struct journal *journal, uint32_t lblk, uint32_t *ret_run)
{
	const struct journal_log *log = &journal->log;
	unsigned lo = 0, hi = log->nr_extents - 1;

	while (lo < hi) {
		unsigned mid = (lo + hi + 1) / 2;

		if (log->extents[mid].lblk <= lblk)
			lo = mid;
		else
			hi = mid - 1;
	}
	FDIO_ASSERT(lblk - log->extents[lo].lblk < log->extents[lo].len);
	if (ret_run)
		*ret_run = log->extents[lo].len - (lblk - log->extents[lo].lblk);
	return (log->extents[lo].pblk + (lblk - log->extents[lo].lblk)) * journal->block_size;
}

bool journal_is_log_block(struct journal *journal, uint64_t blk)
{
	const struct journal_extent *extent = journal->log.places;
	unsigned lo = 0, hi = journal->log.nr_extents;

	/* Find the first extent that begins behind blk: only the one before it can hold blk. */
	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (extent[mid].pblk <= blk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && blk - extent[lo - 1].pblk < extent[lo - 1].len;
}

/* ---- reading and writing ---- */

/*
 * Number of log blocks from lblk to the end of the ring; 1 for the superblock, which lies before
 * it.
 */
static uint32_t until_wrap(const struct journal_log *log, uint32_t lblk)
{
	return lblk < log->first ? 1 : log->end - lblk;
}

int journal_log_read(struct journal *journal, uint32_t lblk, unsigned n, uint8_t *buf)
{
	while (n > 0) {
		uint32_t run;
		uint64_t off = journal_log_map(journal, lblk, &run);
		int err;

		if (lblk)
			run = FDIO_MIN(run, until_wrap(&journal->log, lblk));
		run = FDIO_MIN(run, n);
		err = dev_read(journal->dev, buf, (size_t)run * journal->block_size, off);
		if (err)
			return err;
		buf += (size_t)run * journal->block_size;
		n -= run;
		lblk += run;
		if (n)
			lblk = journal_log_wrap(&journal->log, lblk);
	}
	return 0;
}

int journal_log_write(struct journal *journal, uint32_t lblk, unsigned n, uint8_t *buf)
{
	enum { MAX_VEC = 64 };
	struct dev_vec vec[MAX_VEC];
	uint32_t max_run = FDIO_MAX(journal->dev->caps.max_io_bytes / journal->block_size, 1u);
	int err = 0;

	while (n > 0 && !err) {
		unsigned nr = 0;

		for (; n > 0 && nr < MAX_VEC; nr++) {
			uint32_t run;
			uint64_t off;

			FDIO_ASSERT(lblk >= journal->log.first && lblk < journal->log.end);
			off = journal_log_map(journal, lblk, &run);
			run = FDIO_MIN(run, until_wrap(&journal->log, lblk));
			run = FDIO_MIN(run, max_run);
			run = FDIO_MIN(run, n);
			vec[nr] = (struct dev_vec){ .off = off,
						    .buf = buf,
						    .len = run * journal->block_size };
			buf += (size_t)run * journal->block_size;
			n -= run;
			lblk = journal_log_wrap(&journal->log, lblk + run);
		}
		err = nr == 1 ? dev_write(journal->dev, vec[0].buf, vec[0].len, vec[0].off, 0)
			      : dev_write_many(journal->dev, vec, nr);
	}
	return err;
}

/* ---- superblock ---- */

static uint32_t superblock_checksum(const uint8_t *sb)
{
	static const uint8_t zero[4];
	uint32_t c = fdio_crc32c(~0u, sb, JOURNAL_SB_CHECKSUM);

	c = fdio_crc32c(c, zero, sizeof(zero));
	return fdio_crc32c(c, sb + JOURNAL_SB_CHECKSUM + 4,
			   JOURNAL_SB_BYTES - JOURNAL_SB_CHECKSUM - 4);
}

bool journal_log_superblock_checksum_ok(const uint8_t *sb)
{
	if (!journal_format_has_checksums(fdio_get_be32(sb, JOURNAL_SB_INCOMPAT)))
		return true;
	return sb[JOURNAL_SB_CHECKSUM_TYPE] == JOURNAL_CHECKSUM_CRC32C &&
	       fdio_get_be32(sb, JOURNAL_SB_CHECKSUM) == superblock_checksum(sb);
}

/* superblock_lock held. */
static int write_superblock_locked(struct journal *journal, unsigned flags)
{
	struct journal_log *log = &journal->log;

	if (journal_format_has_checksums(fdio_get_be32(log->superblock, JOURNAL_SB_INCOMPAT)))
		fdio_put_be32(log->superblock, JOURNAL_SB_CHECKSUM,
			      superblock_checksum(log->superblock));
	return dev_write(journal->dev, log->superblock, journal->block_size,
			 journal_log_map(journal, 0, NULL), flags);
}

int journal_log_write_superblock(struct journal *journal, uint32_t sequence, uint32_t start,
				 unsigned flags)
{
	struct journal_log *log = &journal->log;
	int err;

	FDIO_ASSERT(!start || (start >= log->first && start < log->end));
	fdio_mutex_lock(&log->superblock_lock);
	fdio_put_be32(log->superblock, JOURNAL_SB_SEQUENCE, sequence);
	fdio_put_be32(log->superblock, JOURNAL_SB_START, start);
	/* JOURNAL-10: after an abort only the error is written. */
	err = journal_abort_error(journal) ? -EIO : write_superblock_locked(journal, flags);
	fdio_mutex_unlock(&log->superblock_lock);
	return err;
}

void journal_log_write_error(struct journal *journal, int err)
{
	struct journal_log *log = &journal->log;
	uint8_t *disk;

	if (!log->superblock || journal->params.read_only)
		return;
	disk = fdio_alloc_aligned(4096, FDIO_MAX(journal->block_size, 4096u));
	if (!disk)
		return;
	fdio_mutex_lock(&log->superblock_lock);
	/*
	 * Read the superblock back and change only its error: positions in the image in memory that
	 * were not written before the abort must not reach the device.
	 */
	if (!journal_log_read(journal, 0, 1, disk) &&
	    fdio_get_be32(disk, JOURNAL_HEADER_MAGIC) == JOURNAL_MAGIC) {
		memcpy(log->superblock, disk, journal->block_size);
		fdio_put_be32(log->superblock, JOURNAL_SB_ERRNO, (uint32_t)err);
		if (write_superblock_locked(journal, DEV_FUA))
			log_err("the journal's error could not be recorded on the device");
	}
	fdio_mutex_unlock(&log->superblock_lock);
	free(disk);
}

/* ---- checksums ---- */

uint32_t journal_log_tail_checksum(const struct journal *journal, const uint8_t *blk)
{
	static const uint8_t zero[JOURNAL_TAIL_BYTES];
	uint32_t c = fdio_crc32c(journal->log.checksum_seed, blk,
				 journal->block_size - JOURNAL_TAIL_BYTES);

	return fdio_crc32c(c, zero, sizeof(zero));
}

uint32_t journal_log_commit_checksum(const struct journal *journal, const uint8_t *blk,
				     size_t meaningful)
{
	static const uint8_t zero[512];
	uint32_t c = fdio_crc32c(journal->log.checksum_seed, blk, JOURNAL_COMMIT_CHECKSUM);

	c = fdio_crc32c(c, zero, 4);
	c = fdio_crc32c(c, blk + JOURNAL_COMMIT_CHECKSUM + 4,
			meaningful - JOURNAL_COMMIT_CHECKSUM - 4);
	for (size_t done = meaningful; done < journal->block_size;
	     done += FDIO_MIN(sizeof(zero), journal->block_size - done))
		c = fdio_crc32c(c, zero, FDIO_MIN(sizeof(zero), journal->block_size - done));
	return c;
}

uint32_t journal_log_tag_checksum(const struct journal *journal, uint32_t tid, const uint8_t *image)
{
	uint8_t be[4];

	fdio_put_be32(be, 0, tid);
	return fdio_crc32c(fdio_crc32c(journal->log.checksum_seed, be, sizeof(be)), image,
			   journal->block_size);
}
