/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reading the log for the replay: a window of log blocks, the tags of a descriptor, the checksums, and
 * the walk through one transaction that all passes share. On the thread of jnl_replay; blocks on the
 * device. No locks.
 *
 * Where the log ends: at the first block that has not the expected id, or inside a transaction that has
 * no valid commit block, which is how a crash looks. A bad checksum inside a transaction that does have
 * a valid commit block is damage: -EUCLEAN. A log block that cannot be read is -EIO. Nothing from the
 * log is trusted for a position or length without a bound.
 */
#include "journal/replay_types.h"

#include "base/stop.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int jreplay_damaged(struct replay *r, const char *what, uint32_t tid)
{
	fdio_reason_set(r->reason, "journal: %s in transaction %u (run e2fsck)", what, tid);
	return -EUCLEAN;
}

const uint8_t *jreplay_block(struct replay *r, uint32_t pos)
{
	struct jlog *l = &r->j->log;
	uint32_t dist = pos >= r->win_pos ? pos - r->win_pos : pos + l->len - r->win_pos;

	if (!r->win_n || dist >= r->win_n) {
		uint32_t n = FDIO_MIN((uint32_t)WINDOW_BLOCKS, l->len);

		r->win_n = 0;
		if (jlog_read(r->j, pos, n, r->window)) {
			fdio_reason_set(r->reason, "journal: log block %u cannot be read", pos);
			return NULL;
		}
		r->win_pos = pos;
		r->win_n = n;
		dist = 0;
	}
	return r->window + (size_t)dist * r->j->bs;
}

/* ---- tags ---- */

/* Parses the tag at *off of a descriptor and moves *off behind it. False at the end of the block. */
static bool next_tag(const struct jnl *j, const uint8_t *desc, unsigned *off, struct tag *tag)
{
	uint32_t inc = j->log.incompat;
	unsigned end = j->bs - (jf_has_csum(inc) ? JF_TAIL_BYTES : 0);
	const uint8_t *p = desc + *off;

	if (*off + j->log.tag_bytes > end)
		return false;
	tag->blk = fdio_get_be32(p, 0);
	if (inc & JF_INCOMPAT_CSUM_V3) {
		tag->flags = fdio_get_be32(p, 4);
		tag->csum = fdio_get_be32(p, 12);
	} else {
		tag->csum = fdio_get_be16(p, 4);
		tag->flags = fdio_get_be16(p, 6);
	}
	if (inc & JF_INCOMPAT_64BIT)
		tag->blk |= (uint64_t)fdio_get_be32(p, 8) << 32;
	*off += j->log.tag_bytes + (tag->flags & JF_TAG_SAME_UUID ? 0 : JF_UUID_BYTES);
	return true;
}

bool jreplay_tag_csum_ok(const struct jnl *j, const struct tag *tag, uint32_t tid, const uint8_t *image)
{
	uint32_t c;

	if (!jf_has_csum(j->log.incompat))
		return true;
	c = jlog_tag_csum(j, tid, image);
	return tag->csum == (j->log.incompat & JF_INCOMPAT_CSUM_V3 ? c : (c & 0xffff));
}

static bool tail_csum_ok(const struct jnl *j, const uint8_t *blk)
{
	return !jf_has_csum(j->log.incompat) || fdio_get_be32(blk, j->bs - JF_TAIL_BYTES) == jlog_tail_csum(j, blk);
}

/* A commit block torn after its first sector is as good as whole: what follows means nothing. */
static bool commit_csum_ok(const struct jnl *j, const uint8_t *blk)
{
	if (!jf_has_csum(j->log.incompat))
		return true;
	return fdio_get_be32(blk, JF_C_CSUM) == jlog_commit_csum(j, blk, j->bs) ||
		fdio_get_be32(blk, JF_C_CSUM) == jlog_commit_csum(j, blk, 512);
}

/* ---- the walk that all passes share ---- */

static uint32_t step(struct replay *r, uint32_t pos)
{
	r->walked++;
	return jlog_wrap(&r->j->log, (uint64_t)pos + 1);
}

static int walk_descriptor(struct replay *r, struct walk *w, const struct visitor *v, uint8_t *desc)
{
	struct jnl *j = r->j;
	unsigned off = JF_H_BYTES;
	struct tag tag;
	int ret = 0;

	if (!tail_csum_ok(j, desc))
		w->bad = true;
	w->pos = step(r, w->pos);
	while (!ret && r->walked <= j->log.len && next_tag(j, desc, &off, &tag)) {
		ret = v->image(r, w->tid, &tag, w->pos);
		if (ret == -EBADMSG) {
			w->bad = true;
			ret = 0;
		}
		w->pos = step(r, w->pos);
		if (tag.flags & JF_TAG_LAST)
			break;
	}
	return ret;
}

static int walk_commit(struct replay *r, struct walk *w, const uint8_t *blk)
{
	if (!commit_csum_ok(r->j, blk))
		return jreplay_damaged(r, "commit block with a wrong checksum", w->tid);
	w->pos = step(r, w->pos);
	w->complete = true;
	return w->bad ? jreplay_damaged(r, "block with a wrong checksum", w->tid) : 0;
}

bool jreplay_stopped(struct replay *r)
{
	if (fdio_stop_asked())
		fdio_reason_set(r->reason, "journal: told to end during replay");
	return fdio_stop_asked();
}

int jreplay_walk(struct replay *r, struct walk *w, const struct visitor *v)
{
	struct jnl *j = r->j;
	uint8_t *copy = malloc(j->bs);
	int ret = 0;

	if (!copy)
		return -ENOMEM;
	while (!ret && !w->complete && r->walked <= j->log.len) {
		const uint8_t *blk = fdio_stop_asked() ? NULL : jreplay_block(r, w->pos);
		uint32_t type;

		if (!blk) {
			ret = jreplay_stopped(r) ? -EINTR : -EIO;
			break;
		}
		if (fdio_get_be32(blk, JF_H_MAGIC) != JF_MAGIC || fdio_get_be32(blk, JF_H_TID) != w->tid)
			break;
		type = fdio_get_be32(blk, JF_H_TYPE);
		if (type == JF_DESCRIPTOR) {
			memcpy(copy, blk, j->bs); /* the images' blocks move the window */
			ret = walk_descriptor(r, w, v, copy);
		} else if (type == JF_COMMIT) {
			ret = walk_commit(r, w, blk);
		} else if (type == JF_REVOKE) {
			if (!tail_csum_ok(j, blk))
				w->bad = true;
			ret = v->revoke(r, w->tid, blk);
			w->pos = step(r, w->pos);
		} else {
			break;
		}
	}
	free(copy);
	return ret;
}
