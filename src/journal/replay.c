/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replay: writes home what a crashed writer (this daemon or a kernel) left in the log. Called once
 * at mount, before journal_start, on one thread; blocks on the device. No locks but the
 * superblock's.
 *
 * Three passes. The first walks the log (replay_log.c), verifies every checksum and finds where the
 * committed part ends; nothing has been written when it fails. The second lists the newest image of
 * each block. The third strikes out revoked images. The others are written home in block order.
 * Then comes a flush, and then the log is emptied (JOURNAL-12). Interrupted anywhere, it can simply
 * be run again.
 *
 * Memory: 24 bytes for each block that has an image in the log, twice that while the list grows.
 * Revocations need no memory: each only marks an image in the list.
 *
 * Fast commits are not replayed. If the log goes on in fast commits, the replay fails before it
 * writes anything. If their area holds only the remains of older transactions, as after each full
 * commit, the log is complete without it.
 *
 * Failure: -EUCLEAN for damage, -EOPNOTSUPP for a log of a kind that is not replayed, -EROFS,
 * -EINTR when the daemon is told to stop, -EIO, -ENOMEM; reason says in one line what happened.
 */
#include "journal/replay_types.h"

#include "base/stop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { WRITE_BATCH = 128 };

/* ---- pass 1: scan ---- */

static int scan_image(struct replay *replay, uint32_t tid, const struct tag *tag, uint32_t pos)
{
	const uint8_t *image = journal_replay_block(replay, pos);

	if (!image)
		return -EIO;
	if (!journal_replay_tag_checksum_ok(replay->journal, tag, tid, image))
		return -EBADMSG;
	return 0;
}

static int scan_revoke(struct replay *replay, uint32_t tid, const uint8_t *blk)
{
	return 0;
}

static int pass_scan(struct replay *replay)
{
	static const struct visitor visitor = { .image = scan_image, .revoke = scan_revoke };
	struct walk walk = { .pos = replay->start_pos, .tid = replay->start_tid };

	for (;;) {
		int ret = journal_replay_walk(replay, &walk, &visitor);

		if (ret)
			return ret;
		if (!walk.complete)
			return 0;
		replay->nr_transactions++;
		walk.complete = false;
		walk.tid++;
	}
}

/* ---- pass 2: images ---- */

static int by_image(const void *a, const void *b)
{
	const struct replay_image *x = a, *y = b;

	if (x->blk != y->blk)
		return x->blk < y->blk ? -1 : 1;
	return x->sequence < y->sequence ? -1 : 1;
}

/* Sorts the list by block and keeps only the newest image of each block. */
static void sort_images(struct replay *replay)
{
	size_t n = 0;

	if (replay->nr_images)
		qsort(replay->images, replay->nr_images, sizeof(*replay->images), by_image);
	for (size_t i = 0; i < replay->nr_images; i++) {
		if (n && replay->images[n - 1].blk == replay->images[i].blk)
			n--;
		replay->images[n++] = replay->images[i];
	}
	replay->nr_images = n;
}

/* The list is full: drops superseded images and, if it is still at least half full, doubles it. */
static int make_room(struct replay *replay)
{
	size_t cap = replay->cap_images ? replay->cap_images * 2 : 1024;
	struct replay_image *bigger;

	sort_images(replay);
	if (replay->nr_images < replay->cap_images / 2)
		return 0;
	bigger = realloc(replay->images, cap * sizeof(*bigger));
	if (!bigger)
		return -ENOMEM;
	replay->images = bigger;
	replay->cap_images = cap;
	return 0;
}

static int take_image(struct replay *replay, uint32_t tid, const struct tag *tag, uint32_t pos)
{
	if (tag->blk >= replay->journal->params.nr_blocks ||
	    journal_is_log_block(replay->journal, tag->blk))
		return journal_replay_damaged(replay, "block number outside the file system", tid);
	if (replay->nr_images == replay->cap_images) {
		int ret = make_room(replay);

		if (ret)
			return ret;
	}
	replay->images[replay->nr_images++] =
			(struct replay_image){ .blk = tag->blk,
					       .sequence = replay->sequence++,
					       .pos = pos,
					       .tid = tid,
					       .escaped = tag->flags & JOURNAL_TAG_ESCAPE };
	return 0;
}

static int ignore_revoke(struct replay *replay, uint32_t tid, const uint8_t *blk)
{
	return 0;
}

/* ---- pass 3: revocations ---- */

static int ignore_image(struct replay *replay, uint32_t tid, const struct tag *tag, uint32_t pos)
{
	return 0;
}

/*
 * A revocation kills the images of its own transaction and of earlier ones. Where the newest image
 * of a block is killed, so are all older ones, which are not in the list any more.
 */
static void strike_out(struct replay *replay, uint64_t blk, uint32_t tid)
{
	size_t lo = 0, hi = replay->nr_images;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (replay->images[mid].blk < blk)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < replay->nr_images && replay->images[lo].blk == blk &&
	    journal_tid_geq(tid, replay->images[lo].tid))
		replay->images[lo].revoked = true;
}

static int take_revoke(struct replay *replay, uint32_t tid, const uint8_t *blk)
{
	struct journal *journal = replay->journal;
	unsigned rec = journal->log.incompat & JOURNAL_INCOMPAT_64BIT ? 8 : 4;
	unsigned end = journal->block_size - (journal_format_has_checksums(journal->log.incompat)
							      ? JOURNAL_TAIL_BYTES
							      : 0);
	uint32_t used = fdio_get_be32(blk, JOURNAL_REVOKE_COUNT);

	if (used < JOURNAL_REVOKE_HEADER_BYTES || used > end)
		return journal_replay_damaged(replay, "impossible revoke block", tid);
	for (unsigned off = JOURNAL_REVOKE_HEADER_BYTES; off + rec <= used; off += rec)
		strike_out(replay, rec == 8 ? fdio_get_be64(blk, off) : fdio_get_be32(blk, off),
			   tid);
	return 0;
}

static void drop_revoked(struct replay *replay)
{
	size_t n = 0;

	for (size_t i = 0; i < replay->nr_images; i++)
		if (!replay->images[i].revoked)
			replay->images[n++] = replay->images[i];
	replay->stats.revoked = (uint32_t)(replay->nr_images - n);
	replay->nr_images = n;
}

/* ---- what is left goes home ---- */

/* Walks the committed transactions again for one of the later passes. */
static int pass(struct replay *replay, const struct visitor *visitor)
{
	struct walk walk = { .pos = replay->start_pos, .tid = replay->start_tid };

	replay->walked = 0;
	for (uint32_t i = 0; i < replay->nr_transactions; i++) {
		int ret = journal_replay_walk(replay, &walk, visitor);

		if (ret)
			return ret;
		if (!walk.complete)
			return journal_replay_damaged(replay, "log changed while it was read",
						      walk.tid);
		walk.complete = false;
		walk.tid++;
	}
	return 0;
}

static int write_batch(struct replay *replay, size_t first, unsigned n, uint8_t *buf)
{
	struct journal *journal = replay->journal;
	struct dev_vec *vec = calloc(n, sizeof(*vec));
	int ret = 0;

	if (!vec)
		return -ENOMEM;
	for (unsigned i = 0; i < n && !ret; i++) {
		struct replay_image *image = &replay->images[first + i];
		uint8_t *dst = buf + (size_t)i * journal->block_size;

		ret = journal_log_read(journal, image->pos, 1, dst);
		if (image->escaped)
			fdio_put_be32(dst, 0, JOURNAL_MAGIC);
		vec[i] = (struct dev_vec){ .off = image->blk * journal->block_size,
					   .buf = dst,
					   .len = journal->block_size };
	}
	if (!ret)
		ret = dev_write_many(journal->dev, vec, n);
	free(vec);
	return ret;
}

static int write_home(struct replay *replay)
{
	uint8_t *buf = fdio_alloc_aligned(4096, (size_t)WRITE_BATCH * replay->journal->block_size);
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	for (size_t i = 0; i < replay->nr_images && !ret; i += WRITE_BATCH)
		ret = fdio_stop_asked() ? -EINTR
					: write_batch(replay, i,
						      (unsigned)FDIO_MIN(replay->nr_images - i,
									 (size_t)WRITE_BATCH),
						      buf);
	if (ret && !journal_replay_stopped(replay))
		fdio_reason_set(replay->reason,
				"journal: replay could not write a block home (error %d)", -ret);
	else
		replay->stats.blocks = (uint32_t)replay->nr_images;
	free(buf);
	return ret;
}

/* ---- entry ---- */

bool journal_needs_replay(struct journal *journal)
{
	return journal->log.superblock &&
	       fdio_get_be32(journal->log.superblock, JOURNAL_SB_START) != 0;
}

int journal_past_error(struct journal *journal)
{
	return journal->log.superblock
			       ? (int32_t)fdio_get_be32(journal->log.superblock, JOURNAL_SB_ERRNO)
			       : 0;
}

bool journal_may_have_fast_commits(struct journal *journal)
{
	return journal_needs_replay(journal) &&
	       (journal->log.incompat & JOURNAL_INCOMPAT_FAST_COMMIT);
}

const char *journal_replay_obstacle(struct journal *journal)
{
	if (!journal_needs_replay(journal))
		return NULL;
	if (journal->log.incompat & JOURNAL_INCOMPAT_ASYNC)
		return "the journal was written with async commit";
	if (fdio_get_be32(journal->log.superblock, JOURNAL_SB_COMPAT) & JOURNAL_COMPAT_CHECKSUM)
		return "the journal has version 1 checksums";
	return NULL;
}

/* Whether fast commits of the transaction tid begin in this log block: 1, 0 or -errno. */
static int fast_commit_head(struct replay *replay, uint32_t lblk, uint32_t tid)
{
	struct journal *journal = replay->journal;
	int ret = dev_read(journal->dev, replay->window, journal->block_size,
			   journal_log_map(journal, lblk, NULL));

	replay->window_blocks = 0;
	if (ret) {
		fdio_reason_set(replay->reason, "journal: the area of fast commits cannot be read");
		return ret;
	}
	return fdio_get_le16(replay->window, 0) == JOURNAL_FAST_COMMIT_TAG_HEAD &&
		fdio_get_le32(replay->window, JOURNAL_FAST_COMMIT_TID) == tid;
}

/*
 * Whether the log goes on in fast commits: their first block names the transaction that would come
 * next. Any other id, or no head at all, is left over from an older series, and the transactions
 * are all there is. The kernel leaves one block between the log and that area; both are looked at.
 */
static int look_for_fast_commits(struct replay *replay)
{
	for (uint32_t i = 0; i < FDIO_MIN(replay->journal->log.fast_commit_blocks, 2u); i++) {
		int ret = fast_commit_head(replay, replay->journal->log.end + i,
					   replay->start_tid + replay->nr_transactions);

		if (ret < 0)
			return ret;
		if (ret) {
			replay->stats.fast_commits = true;
			fdio_reason_set(replay->reason, "the journal holds fast commits");
			return -EOPNOTSUPP;
		}
	}
	return 0;
}

static int run_passes(struct replay *replay)
{
	static const struct visitor images = { .image = take_image, .revoke = ignore_revoke };
	static const struct visitor revokes = { .image = ignore_image, .revoke = take_revoke };
	int ret = pass_scan(replay);

	if (!ret)
		ret = look_for_fast_commits(replay);
	if (!ret)
		ret = pass(replay, &images);
	if (ret)
		return ret;
	sort_images(replay);
	ret = pass(replay, &revokes);
	if (ret)
		return ret;
	drop_revoked(replay);
	return write_home(replay);
}

/* JOURNAL-12: only after everything is home and flushed. */
static int empty_log(struct replay *replay)
{
	struct journal_log *log = &replay->journal->log;
	int ret = JOURNAL_MUTATED(JOURNAL_MUTATION_NO_REPLAY_FLUSH)
				  ? 0
				  : dev_flush(replay->journal->dev);

	/* As the kernel does, clear the feature: an empty log has no fast commits. */
	fdio_mutex_lock(&log->superblock_lock);
	fdio_put_be32(log->superblock, JOURNAL_SB_INCOMPAT,
		      fdio_get_be32(log->superblock, JOURNAL_SB_INCOMPAT) &
				      ~(uint32_t)JOURNAL_INCOMPAT_FAST_COMMIT);
	fdio_mutex_unlock(&log->superblock_lock);
	if (!ret)
		ret = journal_log_write_superblock(replay->journal,
						   replay->start_tid + replay->nr_transactions, 0,
						   DEV_FUA);
	if (ret)
		fdio_reason_set(replay->reason,
				"journal: replay could not empty the log (error %d)", -ret);
	return ret;
}

int journal_replay(struct journal *journal, struct journal_replay_stats *ret_stats,
		   struct fdio_reason *reason)
{
	const char *obstacle = journal_replay_obstacle(journal);
	struct replay replay = { .journal = journal, .reason = reason };
	int ret;

	FDIO_ASSERT(!journal->started);
	memset(ret_stats, 0, sizeof(*ret_stats));
	if (!journal_needs_replay(journal))
		return 0;
	fdio_reason_set(reason, "journal: replay failed");
	if (obstacle) {
		fdio_reason_set(reason, "%s: run e2fsck", obstacle);
		return -EOPNOTSUPP;
	}
	if (journal->dev->caps.read_only || journal->block_size % journal->dev->caps.sector_bytes) {
		fdio_reason_set(reason, "the journal needs replay, and the device cannot be "
				"written");
		return -EROFS;
	}
	replay.start_pos = fdio_get_be32(journal->log.superblock, JOURNAL_SB_START);
	replay.start_tid = fdio_get_be32(journal->log.superblock, JOURNAL_SB_SEQUENCE);
	replay.window = fdio_alloc_aligned(4096, (size_t)WINDOW_BLOCKS * journal->block_size);
	ret = replay.window ? run_passes(&replay) : -ENOMEM;
	if (!ret)
		ret = empty_log(&replay);
	/* Blocks that were cached before the replay may differ from the device now. */
	journal_cache_drop_all(journal);
	replay.stats.transactions = replay.nr_transactions;
	*ret_stats = replay.stats;
	free(replay.window);
	free(replay.images);
	return ret;
}
