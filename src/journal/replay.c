/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Replay: brings home what a crashed writer (this one, or a kernel) left in the log. Called once at
 * mount, before jnl_start, on one thread; blocks on the device. No locks but the superblock's.
 *
 * Three passes. The first walks the log (replay_log.c), verifies every checksum and finds where the
 * committed part ends; nothing has been written when it fails. The second lists the newest image of
 * each block. The third strikes out what is revoked. What is left goes home in block order. Then flush,
 * then the log is emptied (JOURNAL-12). Interrupted anywhere, it can simply be run again.
 *
 * Memory: 24 bytes for each block that has an image in the log, twice that while the list grows.
 * A revocation takes none, because only one of a listed block matters.
 *
 * Fast commits are not replayed. Where the log goes on in them the replay ends before it writes
 * anything; where the area holds only what older transactions left, as after each full commit, the log
 * is complete without it.
 *
 * Failure: -EUCLEAN for damage, -EOPNOTSUPP for a log of a kind that is not replayed, -EROFS, -EINTR
 * when told to end, -EIO, -ENOMEM; reason says it in a line.
 */
#include "journal/replay_types.h"

#include "base/stop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { WRITE_BATCH = 128 };

/* ---- pass 1: scan ---- */

static int scan_image(struct replay *r, uint32_t tid, const struct tag *tag, uint32_t pos)
{
	const uint8_t *image = jreplay_block(r, pos);

	if (!image)
		return -EIO;
	if (!jreplay_tag_csum_ok(r->j, tag, tid, image))
		return -EBADMSG;
	return 0;
}

static int scan_revoke(struct replay *r, uint32_t tid, const uint8_t *blk)
{
	return 0;
}

static int pass_scan(struct replay *r)
{
	static const struct visitor v = { .image = scan_image, .revoke = scan_revoke };
	struct walk w = { .pos = r->start_pos, .tid = r->start_tid };

	for (;;) {
		int ret = jreplay_walk(r, &w, &v);

		if (ret)
			return ret;
		if (!w.complete)
			return 0;
		r->nr_txns++;
		w.complete = false;
		w.tid++;
	}
}

/* ---- pass 2: images ---- */

static int by_image(const void *a, const void *b)
{
	const struct rimage *x = a, *y = b;

	if (x->blk != y->blk)
		return x->blk < y->blk ? -1 : 1;
	return x->seq < y->seq ? -1 : 1;
}

/* Sorted by block, the newest image of each kept. */
static void sort_images(struct replay *r)
{
	size_t n = 0;

	if (r->nr_images)
		qsort(r->images, r->nr_images, sizeof(*r->images), by_image);
	for (size_t i = 0; i < r->nr_images; i++) {
		if (n && r->images[n - 1].blk == r->images[i].blk)
			n--;
		r->images[n++] = r->images[i];
	}
	r->nr_images = n;
}

/* The list is full: old images of a block go, and if that is not much, the list becomes larger. */
static int make_room(struct replay *r)
{
	size_t cap = r->cap_images ? r->cap_images * 2 : 1024;
	struct rimage *bigger;

	sort_images(r);
	if (r->nr_images < r->cap_images / 2)
		return 0;
	bigger = realloc(r->images, cap * sizeof(*bigger));
	if (!bigger)
		return -ENOMEM;
	r->images = bigger;
	r->cap_images = cap;
	return 0;
}

static int take_image(struct replay *r, uint32_t tid, const struct tag *tag, uint32_t pos)
{
	if (tag->blk >= r->j->p.nr_blocks || jnl_is_log_block(r->j, tag->blk))
		return jreplay_damaged(r, "block number outside the file system", tid);
	if (r->nr_images == r->cap_images) {
		int ret = make_room(r);

		if (ret)
			return ret;
	}
	r->images[r->nr_images++] = (struct rimage){ .blk = tag->blk, .seq = r->seq++, .pos = pos,
		.tid = tid, .escaped = tag->flags & JF_TAG_ESCAPE };
	return 0;
}

static int ignore_revoke(struct replay *r, uint32_t tid, const uint8_t *blk)
{
	return 0;
}

/* ---- pass 3: revocations ---- */

static int ignore_image(struct replay *r, uint32_t tid, const struct tag *tag, uint32_t pos)
{
	return 0;
}

/*
 * A revocation kills the images of its own transaction and of earlier ones. Where the newest image
 * of a block is killed, so are all older ones, which are not in the list any more.
 */
static void strike_out(struct replay *r, uint64_t blk, uint32_t tid)
{
	size_t lo = 0, hi = r->nr_images;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (r->images[mid].blk < blk)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo < r->nr_images && r->images[lo].blk == blk && jnl_tid_geq(tid, r->images[lo].tid))
		r->images[lo].revoked = true;
}

static int take_revoke(struct replay *r, uint32_t tid, const uint8_t *blk)
{
	struct jnl *j = r->j;
	unsigned rec = j->log.incompat & JF_INCOMPAT_64BIT ? 8 : 4;
	unsigned end = j->bs - (jf_has_csum(j->log.incompat) ? JF_TAIL_BYTES : 0);
	uint32_t used = fdio_get_be32(blk, JF_REVOKE_COUNT);

	if (used < JF_REVOKE_HEADER || used > end)
		return jreplay_damaged(r, "impossible revoke block", tid);
	for (unsigned off = JF_REVOKE_HEADER; off + rec <= used; off += rec)
		strike_out(r, rec == 8 ? fdio_get_be64(blk, off) : fdio_get_be32(blk, off), tid);
	return 0;
}

static void drop_revoked(struct replay *r)
{
	size_t n = 0;

	for (size_t i = 0; i < r->nr_images; i++)
		if (!r->images[i].revoked)
			r->images[n++] = r->images[i];
	r->stats.revoked = (uint32_t)(r->nr_images - n);
	r->nr_images = n;
}

/* ---- what is left goes home ---- */

/* Walks the committed transactions again for one of the later passes. */
static int pass(struct replay *r, const struct visitor *v)
{
	struct walk w = { .pos = r->start_pos, .tid = r->start_tid };

	r->walked = 0;
	for (uint32_t i = 0; i < r->nr_txns; i++) {
		int ret = jreplay_walk(r, &w, v);

		if (ret)
			return ret;
		if (!w.complete)
			return jreplay_damaged(r, "log changed while it was read", w.tid);
		w.complete = false;
		w.tid++;
	}
	return 0;
}

static int write_batch(struct replay *r, size_t first, unsigned n, uint8_t *buf)
{
	struct jnl *j = r->j;
	struct dev_vec *vec = calloc(n, sizeof(*vec));
	int ret = 0;

	if (!vec)
		return -ENOMEM;
	for (unsigned i = 0; i < n && !ret; i++) {
		struct rimage *im = &r->images[first + i];
		uint8_t *dst = buf + (size_t)i * j->bs;

		ret = jlog_read(j, im->pos, 1, dst);
		if (im->escaped)
			fdio_put_be32(dst, 0, JF_MAGIC);
		vec[i] = (struct dev_vec){ .off = im->blk * j->bs, .buf = dst, .len = j->bs };
	}
	if (!ret)
		ret = dev_write_many(j->dev, vec, n);
	free(vec);
	return ret;
}

static int write_home(struct replay *r)
{
	uint8_t *buf = fdio_alloc_aligned(4096, (size_t)WRITE_BATCH * r->j->bs);
	int ret = 0;

	if (!buf)
		return -ENOMEM;
	for (size_t i = 0; i < r->nr_images && !ret; i += WRITE_BATCH)
		ret = fdio_stop_asked() ? -EINTR : write_batch(r, i, (unsigned)FDIO_MIN(r->nr_images - i, (size_t)WRITE_BATCH), buf);
	if (ret && !jreplay_stopped(r))
		fdio_reason_set(r->reason, "journal: replay could not write a block home (error %d)", -ret);
	else
		r->stats.blocks = (uint32_t)r->nr_images;
	free(buf);
	return ret;
}

/* ---- entry ---- */

bool jnl_needs_replay(struct jnl *j)
{
	return j->log.sb && fdio_get_be32(j->log.sb, JF_SB_START) != 0;
}

int jnl_past_error(struct jnl *j)
{
	return j->log.sb ? (int32_t)fdio_get_be32(j->log.sb, JF_SB_ERRNO) : 0;
}

bool jnl_may_have_fast_commits(struct jnl *j)
{
	return jnl_needs_replay(j) && (j->log.incompat & JF_INCOMPAT_FAST_COMMIT);
}

const char *jnl_replay_obstacle(struct jnl *j)
{
	if (!jnl_needs_replay(j))
		return NULL;
	if (j->log.incompat & JF_INCOMPAT_ASYNC)
		return "the journal was written with async commit";
	if (fdio_get_be32(j->log.sb, JF_SB_COMPAT) & JF_COMPAT_CHECKSUM)
		return "the journal has version 1 checksums";
	return NULL;
}

/* Whether fast commits of the transaction tid begin in this log block: 1, 0 or -errno. */
static int fast_commit_head(struct replay *r, uint32_t lblk, uint32_t tid)
{
	struct jnl *j = r->j;
	int ret = dev_read(j->dev, r->window, j->bs, jlog_map(j, lblk, NULL));

	r->win_n = 0;
	if (ret) {
		fdio_reason_set(r->reason, "journal: the area of fast commits cannot be read");
		return ret;
	}
	return fdio_get_le16(r->window, 0) == JF_FC_TAG_HEAD &&
		fdio_get_le32(r->window, JF_FC_TID) == tid;
}

/*
 * Whether the log goes on in fast commits: their first block names the transaction that would come next. Any other id, or no
 * head at all, is left over from an older series, and the transactions are all there is. The kernel leaves one block
 * between the log and that area; both are looked at.
 */
static int look_for_fast_commits(struct replay *r)
{
	for (uint32_t i = 0; i < FDIO_MIN(r->j->log.fc_blocks, 2u); i++) {
		int ret = fast_commit_head(r, r->j->log.maxlen + i, r->start_tid + r->nr_txns);

		if (ret < 0)
			return ret;
		if (ret) {
			r->stats.fast_commits = true;
			fdio_reason_set(r->reason, "the journal holds fast commits");
			return -EOPNOTSUPP;
		}
	}
	return 0;
}

static int run_passes(struct replay *r)
{
	static const struct visitor images = { .image = take_image, .revoke = ignore_revoke };
	static const struct visitor revokes = { .image = ignore_image, .revoke = take_revoke };
	int ret = pass_scan(r);

	if (!ret)
		ret = look_for_fast_commits(r);
	if (!ret)
		ret = pass(r, &images);
	if (ret)
		return ret;
	sort_images(r);
	ret = pass(r, &revokes);
	if (ret)
		return ret;
	drop_revoked(r);
	return write_home(r);
}

/* JOURNAL-12: only after everything is home and flushed. */
static int empty_log(struct replay *r)
{
	struct jlog *l = &r->j->log;
	int ret = JNL_MUTATED(JM_NO_REPLAY_FLUSH) ? 0 : dev_flush(r->j->dev);

	/* As the kernel: an empty log has no fast commits. */
	fdio_mutex_lock(&l->jsb_lock);
	fdio_put_be32(l->sb, JF_SB_INCOMPAT, fdio_get_be32(l->sb, JF_SB_INCOMPAT) & ~(uint32_t)JF_INCOMPAT_FAST_COMMIT);
	fdio_mutex_unlock(&l->jsb_lock);
	if (!ret)
		ret = jlog_write_sb(r->j, r->start_tid + r->nr_txns, 0, DEV_FUA);
	if (ret)
		fdio_reason_set(r->reason, "journal: replay could not empty the log (error %d)",
				-ret);
	return ret;
}

int jnl_replay(struct jnl *j, struct jnl_replay_stats *ret_stats, struct fdio_reason *reason)
{
	const char *obstacle = jnl_replay_obstacle(j);
	struct replay r = { .j = j, .reason = reason };
	int ret;

	FDIO_ASSERT(!j->started);
	memset(ret_stats, 0, sizeof(*ret_stats));
	if (!jnl_needs_replay(j))
		return 0;
	fdio_reason_set(reason, "journal: replay failed");
	if (obstacle) {
		fdio_reason_set(reason, "%s: run e2fsck", obstacle);
		return -EOPNOTSUPP;
	}
	if (j->dev->caps.read_only || j->bs % j->dev->caps.lbs) {
		fdio_reason_set(reason, "the journal needs replay, and the device cannot be "
				"written");
		return -EROFS;
	}
	r.start_pos = fdio_get_be32(j->log.sb, JF_SB_START);
	r.start_tid = fdio_get_be32(j->log.sb, JF_SB_SEQUENCE);
	r.window = fdio_alloc_aligned(4096, (size_t)WINDOW_BLOCKS * j->bs);
	ret = r.window ? run_passes(&r) : -ENOMEM;
	if (!ret)
		ret = empty_log(&r);
	/* What was cached before is not what is on the device now. */
	jcache_drop_all(j);
	r.stats.transactions = r.nr_txns;
	*ret_stats = r.stats;
	free(r.window);
	free(r.images);
	return ret;
}
