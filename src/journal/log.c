/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log as blocks: where its blocks lie on the device, its superblock, its checksums. The thread
 * that opens, whoever commits, the checkpoint thread and the replay call it; it blocks on the
 * device.
 *
 * jsb_lock guards the superblock's image and is held while it is written, so two writers cannot
 * overtake each other. Everything read from the image is bounded here once; afterwards positions
 * are trusted.
 *
 * Failure: the error of the device; opening says in reason what is wrong with the log. Writing the
 * superblock after an abort is -EIO and writes nothing (JOURNAL-10).
 */
#include "base/crc32c.h"
#include "base/log.h"
#include "journal/journal_types.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Log blocks that are gathered before they are written. */
enum { STAGE_BLOCKS_MIN = 256, STAGE_BYTES = 1 << 20 };

static int fail(struct fdio_reason *reason, int r, const char *text)
{
	fdio_reason_set(reason, "journal: %s", text);
	return r;
}

static int by_place(const void *a, const void *b)
{
	const struct jnl_extent *x = a, *y = b;

	return x->pblk < y->pblk ? -1 : x->pblk > y->pblk;
}

/* The extents by their place. A block that is there twice would make a short log look long. */
static int sort_places(struct jnl *j)
{
	struct jlog *l = &j->log;

	memcpy(l->places, j->p.log, j->p.nr_log * sizeof(*l->places));
	qsort(l->places, j->p.nr_log, sizeof(*l->places), by_place);
	for (unsigned i = 1; i < j->p.nr_log; i++)
		if (l->places[i - 1].pblk + l->places[i - 1].len > l->places[i].pblk)
			return -EUCLEAN;
	return 0;
}

static int copy_extents(struct jnl *j, uint64_t *ret_blocks)
{
	struct jlog *l = &j->log;
	uint64_t lblk = 0;

	l->ext = calloc(j->p.nr_log, sizeof(*l->ext));
	l->places = calloc(j->p.nr_log, sizeof(*l->places));
	if (!l->ext || !l->places)
		return -ENOMEM;
	for (unsigned i = 0; i < j->p.nr_log; i++) {
		const struct jnl_extent *e = &j->p.log[i];

		if (!e->len || e->pblk >= j->p.nr_blocks || e->len > j->p.nr_blocks - e->pblk || lblk + e->len > UINT32_MAX / 2)
			return -EUCLEAN;
		l->ext[i] = (struct jlog_extent){ .lblk = (uint32_t)lblk, .len = e->len, .pblk = e->pblk };
		lblk += e->len;
	}
	l->nr_ext = j->p.nr_log;
	*ret_blocks = lblk;
	return sort_places(j);
}

bool jlog_set_end(struct jnl *j)
{
	enum { MIN_LOG_BLOCKS = 64 };
	struct jlog *l = &j->log;

	l->fc_blocks = 0;
	if ((l->incompat & JF_INCOMPAT_FAST_COMMIT) && fdio_get_be32(l->sb, JF_SB_START)) {
		l->fc_blocks = fdio_get_be32(l->sb, JF_SB_NUM_FC);
		if (!l->fc_blocks)
			l->fc_blocks = JF_FC_BLOCKS_DEFAULT;
	}
	l->maxlen = fdio_get_be32(l->sb, JF_SB_MAXLEN);
	if (l->fc_blocks >= l->maxlen || l->first < 1 || l->maxlen - l->fc_blocks < l->first + (uint64_t)MIN_LOG_BLOCKS)
		return false;
	l->maxlen -= l->fc_blocks;
	l->len = l->maxlen - l->first;
	return true;
}

static int check_sb(struct jnl *j, uint64_t blocks, struct fdio_reason *reason)
{
	struct jlog *l = &j->log;
	const uint8_t *sb = l->sb;
	uint32_t start = fdio_get_be32(sb, JF_SB_START);

	if (fdio_get_be32(sb, JF_H_MAGIC) != JF_MAGIC)
		return fail(reason, -EUCLEAN, "no superblock in the journal (run e2fsck)");
	if (fdio_get_be32(sb, JF_H_TYPE) != JF_SB_V2)
		return fail(reason, -EOPNOTSUPP, "superblock version is not 2");
	l->incompat = fdio_get_be32(sb, JF_SB_INCOMPAT);
	if (l->incompat & ~(uint32_t)JF_INCOMPAT_KNOWN || fdio_get_be32(sb, JF_SB_ROCOMPAT))
		return fail(reason, -EOPNOTSUPP, "unknown features");
	if (!jlog_sb_csum_ok(sb))
		return fail(reason, -EUCLEAN, "superblock checksum is wrong (run e2fsck)");
	l->first = fdio_get_be32(sb, JF_SB_FIRST);
	if (fdio_get_be32(sb, JF_SB_BLOCKSIZE) != j->bs || fdio_get_be32(sb, JF_SB_MAXLEN) > blocks || !jlog_set_end(j))
		return fail(reason, -EUCLEAN, "impossible geometry (run e2fsck)");
	if (start && (start < l->first || start >= l->maxlen))
		return fail(reason, -EUCLEAN, "start lies outside the log (run e2fsck)");
	l->csum_seed = fdio_crc32c(~0u, sb + JF_SB_UUID, JF_UUID_BYTES);
	return 0;
}

int jlog_open(struct jnl *j, struct fdio_reason *reason)
{
	struct jlog *l = &j->log;
	uint64_t blocks;
	int r;

	r = copy_extents(j, &blocks);
	if (r)
		return fail(reason, r, r == -ENOMEM ? "out of memory" :
			    "its blocks lie outside the file system, or twice in it (run e2fsck)");
	l->sb = fdio_alloc_aligned(4096, FDIO_MAX(j->bs, 4096u));
	l->stage_blocks = FDIO_MAX((unsigned)STAGE_BLOCKS_MIN, (unsigned)STAGE_BYTES / j->bs);
	l->stage = fdio_alloc_aligned(4096, (size_t)l->stage_blocks * j->bs);
	if (!l->sb || !l->stage)
		return fail(reason, -ENOMEM, "out of memory");
	r = jlog_read(j, 0, 1, l->sb);
	if (r)
		return fail(reason, r, "its superblock cannot be read");
	r = check_sb(j, blocks, reason);
	if (r)
		return r;
	if (fdio_get_be32(l->sb, JF_SB_ERRNO))
		log_warn("the journal was aborted with error %d the last time", -(int32_t)fdio_get_be32(l->sb, JF_SB_ERRNO));
	jlog_set_format(j);
	l->head = l->first;
	return 0;
}

void jlog_close(struct jnl *j)
{
	free(j->log.ext);
	free(j->log.places);
	free(j->log.sb);
	free(j->log.stage);
	fdio_mutex_fini(&j->log.jsb_lock);
}

void jlog_set_format(struct jnl *j)
{
	struct jlog *l = &j->log;
	unsigned tail = jf_has_csum(l->incompat) ? JF_TAIL_BYTES : 0;

	l->tag_bytes = jf_tag_bytes(l->incompat);
	l->tags_per_desc = (j->bs - JF_H_BYTES - JF_UUID_BYTES - tail) / l->tag_bytes;
	/* A descriptor and its images are staged together. */
	l->tags_per_desc = FDIO_MIN(l->tags_per_desc, l->stage_blocks - 1);
	l->revokes_per_block = (j->bs - JF_REVOKE_HEADER - tail) / (l->incompat & JF_INCOMPAT_64BIT ? 8 : 4);
}

uint64_t jlog_map(const struct jnl *j, uint32_t lblk, uint32_t *ret_run)
{
	const struct jlog *l = &j->log;
	unsigned lo = 0, hi = l->nr_ext - 1;

	while (lo < hi) {
		unsigned mid = (lo + hi + 1) / 2;

		if (l->ext[mid].lblk <= lblk)
			lo = mid;
		else
			hi = mid - 1;
	}
	FDIO_ASSERT(lblk - l->ext[lo].lblk < l->ext[lo].len);
	if (ret_run)
		*ret_run = l->ext[lo].len - (lblk - l->ext[lo].lblk);
	return (l->ext[lo].pblk + (lblk - l->ext[lo].lblk)) * j->bs;
}

bool jnl_is_log_block(struct jnl *j, uint64_t blk)
{
	const struct jnl_extent *e = j->log.places;
	unsigned lo = 0, hi = j->log.nr_ext;

	/* The first that begins behind blk: it can only be in the one before. */
	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (e[mid].pblk <= blk)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo && blk - e[lo - 1].pblk < e[lo - 1].len;
}

/* ---- reading and writing ---- */

static uint32_t until_wrap(const struct jlog *l, uint32_t lblk)
{
	return lblk < l->first ? 1 : l->maxlen - lblk;
}

int jlog_read(struct jnl *j, uint32_t lblk, unsigned n, uint8_t *buf)
{
	while (n > 0) {
		uint32_t run;
		uint64_t off = jlog_map(j, lblk, &run);
		int r;

		if (lblk)
			run = FDIO_MIN(run, until_wrap(&j->log, lblk));
		run = FDIO_MIN(run, n);
		r = dev_read(j->dev, buf, (size_t)run * j->bs, off);
		if (r)
			return r;
		buf += (size_t)run * j->bs;
		n -= run;
		lblk += run;
		if (n)
			lblk = jlog_wrap(&j->log, lblk);
	}
	return 0;
}

int jlog_write(struct jnl *j, uint32_t lblk, unsigned n, uint8_t *buf)
{
	enum { MAX_VEC = 64 };
	struct dev_vec vec[MAX_VEC];
	uint32_t max_run = FDIO_MAX(j->dev->caps.max_io_bytes / j->bs, 1u);
	int r = 0;

	while (n > 0 && !r) {
		unsigned nr = 0;

		for (; n > 0 && nr < MAX_VEC; nr++) {
			uint32_t run;
			uint64_t off;

			FDIO_ASSERT(lblk >= j->log.first && lblk < j->log.maxlen);
			off = jlog_map(j, lblk, &run);
			run = FDIO_MIN(run, until_wrap(&j->log, lblk));
			run = FDIO_MIN(run, max_run);
			run = FDIO_MIN(run, n);
			vec[nr] = (struct dev_vec){ .off = off, .buf = buf, .len = run * j->bs };
			buf += (size_t)run * j->bs;
			n -= run;
			lblk = jlog_wrap(&j->log, lblk + run);
		}
		r = nr == 1 ? dev_write(j->dev, vec[0].buf, vec[0].len, vec[0].off, 0) : dev_write_many(j->dev, vec, nr);
	}
	return r;
}

/* ---- superblock ---- */

static uint32_t sb_csum(const uint8_t *sb)
{
	static const uint8_t zero[4];
	uint32_t c = fdio_crc32c(~0u, sb, JF_SB_CSUM);

	c = fdio_crc32c(c, zero, sizeof(zero));
	return fdio_crc32c(c, sb + JF_SB_CSUM + 4, JF_SB_BYTES - JF_SB_CSUM - 4);
}

bool jlog_sb_csum_ok(const uint8_t *sb)
{
	if (!jf_has_csum(fdio_get_be32(sb, JF_SB_INCOMPAT)))
		return true;
	return sb[JF_SB_CSUM_TYPE] == JF_CSUM_CRC32C && fdio_get_be32(sb, JF_SB_CSUM) == sb_csum(sb);
}

/* jsb_lock held */
static int write_sb_locked(struct jnl *j, unsigned flags)
{
	struct jlog *l = &j->log;

	if (jf_has_csum(fdio_get_be32(l->sb, JF_SB_INCOMPAT)))
		fdio_put_be32(l->sb, JF_SB_CSUM, sb_csum(l->sb));
	return dev_write(j->dev, l->sb, j->bs, jlog_map(j, 0, NULL), flags);
}

int jlog_write_sb(struct jnl *j, uint32_t sequence, uint32_t start, unsigned flags)
{
	struct jlog *l = &j->log;
	int r;

	FDIO_ASSERT(!start || (start >= l->first && start < l->maxlen));
	fdio_mutex_lock(&l->jsb_lock);
	fdio_put_be32(l->sb, JF_SB_SEQUENCE, sequence);
	fdio_put_be32(l->sb, JF_SB_START, start);
	/* JOURNAL-10: after an abort only the error is written. */
	r = jnl_err(j) ? -EIO : write_sb_locked(j, flags);
	fdio_mutex_unlock(&l->jsb_lock);
	return r;
}

void jlog_write_errno(struct jnl *j, int err)
{
	struct jlog *l = &j->log;
	uint8_t *disk;

	if (!l->sb || j->p.read_only)
		return;
	disk = fdio_alloc_aligned(4096, FDIO_MAX(j->bs, 4096u));
	if (!disk)
		return;
	fdio_mutex_lock(&l->jsb_lock);
	/* Only the error changes: positions that were not written before the abort stay unwritten. */
	if (!jlog_read(j, 0, 1, disk) && fdio_get_be32(disk, JF_H_MAGIC) == JF_MAGIC) {
		memcpy(l->sb, disk, j->bs);
		fdio_put_be32(l->sb, JF_SB_ERRNO, (uint32_t)err);
		if (write_sb_locked(j, DEV_FUA))
			log_err("the journal's error could not be recorded on the device");
	}
	fdio_mutex_unlock(&l->jsb_lock);
	free(disk);
}

/* ---- checksums ---- */

uint32_t jlog_tail_csum(const struct jnl *j, const uint8_t *blk)
{
	static const uint8_t zero[JF_TAIL_BYTES];
	uint32_t c = fdio_crc32c(j->log.csum_seed, blk, j->bs - JF_TAIL_BYTES);

	return fdio_crc32c(c, zero, sizeof(zero));
}

uint32_t jlog_commit_csum(const struct jnl *j, const uint8_t *blk, size_t meaningful)
{
	static const uint8_t zero[512];
	uint32_t c = fdio_crc32c(j->log.csum_seed, blk, JF_C_CSUM);

	c = fdio_crc32c(c, zero, 4);
	c = fdio_crc32c(c, blk + JF_C_CSUM + 4, meaningful - JF_C_CSUM - 4);
	for (size_t done = meaningful; done < j->bs; done += FDIO_MIN(sizeof(zero), j->bs - done))
		c = fdio_crc32c(c, zero, FDIO_MIN(sizeof(zero), j->bs - done));
	return c;
}

uint32_t jlog_tag_csum(const struct jnl *j, uint32_t tid, const uint8_t *image)
{
	uint8_t be[4];

	fdio_put_be32(be, 0, tid);
	return fdio_crc32c(fdio_crc32c(j->log.csum_seed, be, sizeof(be)), image, j->bs);
}
