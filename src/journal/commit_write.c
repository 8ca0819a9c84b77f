/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing one closed transaction to the log: revocations, descriptors with their images, the flush and
 * the commit block. Called by commit.c on the thread that commits, with no lock held; blocks on the
 * device.
 *
 * Whoever commits owns the head of the log, the stage in which log blocks are gathered for large
 * writes, and last_commit. Handles run meanwhile, so each image is copied under the state lock, or is
 * the copy that a handle has made before it changed the block.
 *
 * Implements JOURNAL-2, JOURNAL-4, JOURNAL-5 and the order of times in JOURNAL-9. Failure: the error of
 * a write or flush; what is in the log is then no complete transaction, and the caller aborts.
 */
#include "journal/journal_types.h"

#include <errno.h>

/* Log blocks gathered for one big write. */
struct stage {
	struct jnl *j;
	uint32_t pos; /* log block of the first */
	unsigned n;
};

static int stage_flush(struct stage *s)
{
	int r = s->n ? jlog_write(s->j, s->pos, s->n, s->j->log.stage) : 0;

	s->pos = jlog_wrap(&s->j->log, (uint64_t)s->pos + s->n);
	s->n = 0;
	return r;
}

/* Makes room for n blocks that must stay together until they are complete. */
static int stage_room(struct stage *s, unsigned n)
{
	return s->n + n > s->j->log.stage_blocks ? stage_flush(s) : 0;
}

static uint8_t *stage_next(struct stage *s)
{
	FDIO_ASSERT(s->n < s->j->log.stage_blocks);
	return s->j->log.stage + (size_t)s->n++ * s->j->bs;
}

static void set_tail_csum(struct jnl *j, uint8_t *blk)
{
	if (jf_has_csum(j->log.incompat))
		fdio_put_be32(blk, j->bs - JF_TAIL_BYTES, jlog_tail_csum(j, blk));
}

static int write_revokes(struct stage *s, struct jtxn *t)
{
	struct jnl *j = s->j;
	unsigned rec = j->log.incompat & JF_INCOMPAT_64BIT ? 8 : 4, left = t->kit->revokes.nr, used = 0;
	uint8_t *blk = NULL;

	for (unsigned i = 0; i < t->kit->revokes.cap && left; i++) {
		if (!t->kit->revokes.slot[i])
			continue;
		if (!blk) {
			int r = stage_room(s, 1);

			if (r)
				return r;
			blk = stage_next(s);
			memset(blk, 0, j->bs);
			jf_put_header(blk, JF_REVOKE, t->tid);
			used = JF_REVOKE_HEADER;
		}
		if (rec == 8)
			fdio_put_be64(blk, used, t->kit->revokes.slot[i] - 1);
		else
			fdio_put_be32(blk, used, (uint32_t)(t->kit->revokes.slot[i] - 1));
		used += rec;
		left--;
		if (!left || used == JF_REVOKE_HEADER + j->log.revokes_per_block * rec) {
			fdio_put_be32(blk, JF_REVOKE_COUNT, used);
			set_tail_csum(j, blk);
			blk = NULL;
		}
	}
	return 0;
}

/* JOURNAL-2: the block as it was when the transaction closed. */
static void copy_image(struct jnl *j, struct jbuf *b, uint8_t *dst)
{
	uint8_t *frozen;

	fdio_mutex_lock(&j->state);
	frozen = b->frozen;
	b->frozen = NULL;
	if (!frozen)
		memcpy(dst, b->pub.data, j->bs);
	b->copied = true;
	fdio_mutex_unlock(&j->state);
	if (frozen) {
		memcpy(dst, frozen, j->bs);
		jslab_free(&j->data_slab, frozen);
	}
}

static void put_tag(struct jnl *j, uint8_t *tag, struct jtxn *t, uint64_t blk, uint32_t flags, const uint8_t *image)
{
	fdio_put_be32(tag, 0, (uint32_t)blk);
	if (j->log.incompat & JF_INCOMPAT_CSUM_V3) {
		fdio_put_be32(tag, 4, flags);
		fdio_put_be32(tag, 8, (uint32_t)(blk >> 32));
		fdio_put_be32(tag, 12, jlog_tag_csum(j, t->tid, image));
		return;
	}
	fdio_put_be16(tag, 4, 0);
	fdio_put_be16(tag, 6, (uint16_t)flags);
	if (j->log.incompat & JF_INCOMPAT_64BIT)
		fdio_put_be32(tag, 8, (uint32_t)(blk >> 32));
}

/* An image that begins with the log's magic number would be taken for a log block. */
static bool escape(uint8_t *image)
{
	if (fdio_get_be32(image, 0) != JF_MAGIC || JNL_MUTATED(JM_NO_ESCAPE))
		return false;
	fdio_put_be32(image, 0, 0);
	return true;
}

/* One descriptor and its n images. */
static int write_group(struct stage *s, struct jtxn *t, struct jbuf **bufs, unsigned n)
{
	struct jnl *j = s->j;
	uint8_t *desc, *tag;
	int r = stage_room(s, n + 1);

	if (r)
		return r;
	desc = stage_next(s);
	memset(desc, 0, j->bs);
	jf_put_header(desc, JF_DESCRIPTOR, t->tid);
	tag = desc + JF_H_BYTES;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *image = stage_next(s);
		uint32_t flags = (i ? JF_TAG_SAME_UUID : 0) | (i == n - 1 ? JF_TAG_LAST : 0);

		copy_image(j, bufs[i], image);
		if (escape(image))
			flags |= JF_TAG_ESCAPE;
		put_tag(j, tag, t, bufs[i]->pub.blk, flags, image);
		tag += j->log.tag_bytes;
		if (!i) {
			memcpy(tag, j->log.sb + JF_SB_UUID, JF_UUID_BYTES);
			tag += JF_UUID_BYTES;
		}
	}
	set_tail_csum(j, desc);
	return 0;
}

/* Everything but the commit block. Returns its log position. */
static int write_body(struct jnl *j, struct jtxn *t, uint32_t *ret_pos)
{
	struct stage s = { .j = j, .pos = t->log_start };
	int r = JNL_MUTATED(JM_NO_REVOKE) ? 0 : write_revokes(&s, t);

	for (unsigned i = 0; i < t->nr && !r; i += j->log.tags_per_desc)
		r = write_group(&s, t, t->kit->bufs + i, FDIO_MIN(t->nr - i, j->log.tags_per_desc));
	if (!r)
		r = stage_flush(&s);
	*ret_pos = s.pos;
	return r;
}

static int write_commit_block(struct jnl *j, struct jtxn *t, uint32_t pos)
{
	uint8_t *blk = j->log.stage;
	struct timespec now;

	dev_now(j->dev, &now);
	/* JOURNAL-9: a clock that was set back must not make this commit look older than the one before. */
	if (now.tv_sec < j->last_commit.tv_sec ||
	    (now.tv_sec == j->last_commit.tv_sec && now.tv_nsec < j->last_commit.tv_nsec))
		now = j->last_commit;
	j->last_commit = now;
	memset(blk, 0, j->bs);
	jf_put_header(blk, JF_COMMIT, t->tid);
	fdio_put_be64(blk, JF_C_SEC, (uint64_t)now.tv_sec);
	fdio_put_be32(blk, JF_C_NSEC, (uint32_t)now.tv_nsec);
	if (jf_has_csum(j->log.incompat))
		fdio_put_be32(blk, JF_C_CSUM, jlog_commit_csum(j, blk, j->bs));
	return dev_write(j->dev, blk, j->bs, jlog_map(j, pos, NULL), JNL_MUTATED(JM_NO_FUA) ? 0 : DEV_FUA);
}

/* JOURNAL-5 */
static int start_log(struct jnl *j, struct jtxn *t)
{
	int r = j->log.active ? 0 : jlog_write_sb(j, t->tid, t->log_start, 0);

	j->log.active = !r;
	return r;
}

/* JOURNAL-4, JOURNAL-5 */
int jcommit_write(struct jnl *j, struct jtxn *t)
{
	uint32_t pos;
	int r;

	r = write_body(j, t, &pos);
	if (r)
		return r;
	r = JNL_MUTATED(JM_LATE_START) ? 0 : start_log(j, t);
	if (r)
		return r;
	if (!JNL_MUTATED(JM_NO_REVOKE))
		FDIO_ASSERT(jlog_wrap(&j->log, (uint64_t)pos + 1) == jlog_wrap(&j->log, (uint64_t)t->log_start + t->log_len));
	fdio_mutex_lock(&j->state);
	jtxn_set_state(t, JT_FLUSHING);
	fdio_mutex_unlock(&j->state);
	r = JNL_MUTATED(JM_NO_PREFLUSH) ? 0 : dev_flush(j->dev);
	if (r)
		return r;
	if (jnl_err(j))
		return -EIO; /* JOURNAL-10 */
	r = write_commit_block(j, t, pos);
	return JNL_MUTATED(JM_LATE_START) && !r ? start_log(j, t) : r;
}
