/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file with a block map that has to get a block becomes a file with extents first, where all of
 * it fits into the inode: at most X4_EXT_ROOT_MAX runs and X4_IND_MOST indirect blocks, so one
 * handle does it. An inode without any blocks always fits. The map in memory stays as it is, and
 * readers notice nothing. What does not fit is refused with -EOPNOTSUPP, before anything has
 * changed, and the log names the way out.
 *
 * Called with what guards the inode's tree held: for directories inside the handle that makes them
 * grow, for files by x4_ind_convert_file, which opens one. On workers; for directories also in the
 * mode of nowait.h. Indirect blocks that lead outside the data area are damage (-EUCLEAN).
 */
#include "ext4/data/extent.h"

#include "base/counters.h"
#include "base/log.h"
#include "base/nowait.h"

#include <errno.h>
#include <string.h>

#define LEVELS 3

struct convert {
	struct x4_inode *i;
	struct x4_ext run[X4_EXT_ROOT_MAX];
	unsigned nr_runs;
	uint32_t ind[X4_IND_MOST]; /* indirect blocks, to be freed */
	unsigned nr_ind;
};

static bool has_extents(const struct x4_vol *v) { return ext2fs_has_feature_extents(v->fs->super); }

static int add_run(struct convert *c, const struct x4_ext *x)
{
	for (uint32_t done = 0; done < x->len;) {
		uint32_t n = FDIO_MIN(x->len - done, X4_EXT_WRITTEN_MAX);

		if (c->nr_runs == X4_EXT_ROOT_MAX)
			return -EOPNOTSUPP;
		c->run[c->nr_runs++] =
			(struct x4_ext){ x->lblk + done, n, x->pblk + done, x->state };
		done += n;
	}
	return 0;
}

static int collect_runs(struct convert *c)
{
	uint64_t at = 0;
	struct x4_ext x;
	int r = x4_map_load_locked(c->i);

	while (!r && at < X4_LBLK_END) {
		r = x4_map_lookup(c->i, (uint32_t)at, &x);
		if (!r && x.state != X4_EXT_HOLE)
			r = add_run(c, &x);
		at = x4_ext_end(&x);
	}
	return r;
}

/* The block and those below it that are no data. At most LEVELS deep, and X4_IND_MOST of them. */
static int collect_ind(struct convert *c, uint32_t blk, unsigned level)
{
	struct x4_vol *v = c->i->vol;
	struct jnl_buf *b;
	int r = 0;

	if (!blk)
		return 0;
	if (!x4_blk_valid(v, blk, 1))
		return X4_CORRUPT(v, c->i->ino, blk, "indirect block outside the data area");
	if (c->nr_ind == ARRAY_SIZE(c->ind))
		return -EOPNOTSUPP;
	c->ind[c->nr_ind++] = blk;
	if (level == 1)
		return 0;
	r = jnl_bread(v->jnl, blk, &b);
	if (r)
		return r;
	for (uint32_t k = 0; k < v->block_size / 4 && !r; k++)
		r = collect_ind(c, le32toh(((const uint32_t *)b->data)[k]), level - 1);
	jnl_brelse(b);
	return r;
}

static int collect(struct convert *c)
{
	int r = has_extents(c->i->vol) ? collect_runs(c) : -EOPNOTSUPP;

	for (unsigned level = 1; level <= LEVELS && !r; level++)
		r = collect_ind(c, le32toh(c->i->raw->i_block[EXT2_IND_BLOCK + level - 1]), level);
	return r;
}

/* In the handle: the indirect blocks go, the runs stand in the inode. */
static int apply(struct jnl_handle *h, struct convert *c)
{
	struct ext3_extent_header *root;
	int r = 0;

	for (unsigned k = 0; k < c->nr_ind && !r; k++)
		r = x4_bfree(h, c->i, c->ind[k], 1, true);
	if (!r && c->nr_ind)
		r = x4_raw_add_blocks(c->i, -(int64_t)c->nr_ind);
	if (r)
		return r;
	x4_extent_init(c->i);
	root = x4_ext_root(c->i);
	root->eh_entries = htole16(c->nr_runs);
	for (unsigned k = 0; k < c->nr_runs; k++)
		x4_ext_encode(&x4_eh_ext(root)[k], &c->run[k]);
	fdio_count(CTR_x4_ind_convert);
	return 0;
}

int x4_ind_convert(struct jnl_handle *h, struct x4_inode *i)
{
	struct convert c = { .i = i };
	int r;

	if (x4_map_kind(i) != X4_MAPPED_INDIRECT)
		return x4_map_kind(i) == X4_MAPPED_EXTENTS ? 0 : -EOPNOTSUPP;
	r = collect(&c);
	if (!r)
		return apply(h, &c);
	if (r == -EOPNOTSUPP && !nowait_on())
		log_ratelimited(FDIO_LOG_WARN,
				"inode %u has a block map and cannot get new blocks: unmount, then "
				"run e2fsck -f -E bmap2extent %s", i->ino, i->vol->dev->name);
	return r;
}

int x4_ind_convert_file(struct x4_inode *i)
{
	struct jnl_handle *h;
	int r;

	if (x4_map_kind(i) != X4_MAPPED_INDIRECT)
		return 0;
	if (nowait_on())
		return nowait_miss();
	fdio_mutex_lock(&i->map_lock);
	r = jnl_begin(i->vol->jnl, X4_IND_CREDITS + X4_CREDITS_INODE, &h);
	if (!r) {
		r = x4_inode_begin(h, i);
		if (!r)
			r = x4_ind_convert(h, i);
		if (!r)
			r = x4_inode_dirty(h, i, true);
		if (r)
			jnl_cancel(h);
		else
			jnl_end(h);
	}
	fdio_mutex_unlock(&i->map_lock);
	return r;
}

void x4_ind_emptied(struct x4_inode *i)
{
	if (x4_map_kind(i) != X4_MAPPED_INDIRECT || !has_extents(i->vol))
		return;
	for (unsigned k = 0; k < EXT2_N_BLOCKS; k++)
		if (i->raw->i_block[k])
			return;
	x4_extent_init(i);
}
