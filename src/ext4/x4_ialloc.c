/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inode allocator. Always inside a handle, and handles are serial, so the bitmap on disk is all there
 * is: no image, no reservation; an inode freed and taken again in one transaction is safe.
 *
 * Directories at the top level spread over the groups, so that each tree has room; deeper ones stay near
 * their parent unless it is crowded; files go into their directory's group. A table block above the
 * high-water mark (bg_itable_unused) was never written: the caller starts it with zeroes instead of
 * reading it.
 */
#include "ext4/x4_group.h"

#include "base/crc32c.h"
#include "base/nowait.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

static uint32_t first_ino_of(const struct x4_vol *v, uint32_t g) { return g * v->inodes_per_group + 1; }

/* Once damage has been told, nothing in the group is touched any more; a loop thread leaves both to a worker. Returns err. */
static int ib_damaged(struct x4_group *grp, int err)
{
	if (err == -EUCLEAN)
		__atomic_store_n(&grp->ib_bad, true, __ATOMIC_RELAXED);
	return err;
}

/* The inode bitmap of g for reading; verified once. */
static int read_bitmap(struct x4_vol *v, uint32_t g, struct jnl_buf **ret)
{
	struct x4_group *grp = &v->groups[g];
	struct ext4_group_desc *rd = (struct ext4_group_desc *)(void *)ext2fs_group_desc(v->fs, v->fs->group_desc, g);
	uint32_t sum;
	int err;

	if (__atomic_load_n(&grp->ib_bad, __ATOMIC_RELAXED))
		return -EUCLEAN;
	err = X4_BREAD(v, 0, grp->ib, ret);
	if (err || __atomic_load_n(&grp->ib_checked, __ATOMIC_RELAXED))
		return err;
	sum = v->has_csum ? fdio_crc32c(v->csum_seed, (*ret)->data, v->inodes_per_group / 8) : 0;
	if (v->has_csum && ((uint16_t)sum != rd->bg_inode_bitmap_csum_lo ||
			    (v->desc_size >= 64 && (uint16_t)(sum >> 16) != rd->bg_inode_bitmap_csum_hi))) {
		jnl_brelse(*ret);
		return ib_damaged(grp, X4_CORRUPT(v, 0, grp->ib, "group %u: wrong checksum of the inode bitmap", g));
	}
	__atomic_store_n(&grp->ib_checked, true, __ATOMIC_RELAXED);
	return 0;
}

/* For reading and changing in h; an uninitialised one is made. */
static int write_bitmap(struct jnl_handle *h, struct x4_vol *v, uint32_t g, struct jnl_buf **ret)
{
	struct x4_group *grp = &v->groups[g];
	struct x4_gdesc d = grp->d;
	int err;

	if (!(d.flags & EXT2_BG_INODE_UNINIT)) {
		err = read_bitmap(v, g, ret);
		if (err)
			return err;
		err = jnl_get_write(h, *ret);
		if (err)
			jnl_brelse(*ret);
		return err;
	}
	err = jnl_bnew(h, grp->ib, ret);
	if (err)
		return err;
	memset((*ret)->data, 0, v->block_size);
	x4_bits_fill((*ret)->data, v->inodes_per_group, v->block_size * 8 - v->inodes_per_group, true);
	d.flags &= (uint16_t)~EXT2_BG_INODE_UNINIT;
	fdio_mutex_lock(&v->alloc_lock);
	x4_group_set_desc(v, g, &d);
	fdio_mutex_unlock(&v->alloc_lock);
	__atomic_store_n(&grp->ib_checked, true, __ATOMIC_RELAXED);
	return 0;
}

int x4_inode_in_use(struct x4_vol *v, uint32_t ino)
{
	uint32_t g = (ino - 1) / v->inodes_per_group;
	struct jnl_buf *b;
	int err;

	if (ino == 0 || ino > v->nr_inodes)
		return 0;
	if (v->groups[g].d.flags & EXT2_BG_INODE_UNINIT)
		return 0;
	err = read_bitmap(v, g, &b);
	if (err)
		return err;
	err = x4_bit(b->data, (ino - 1) % v->inodes_per_group);
	jnl_brelse(b);
	return err;
}

/* ------------------------------------------------------------------ placement */
/* A directory of the top level: the emptiest group of those above average, starting anywhere. */
static uint32_t spread(struct x4_vol *v)
{
	uint64_t avg_i = v->free_inodes / v->nr_groups, avg_b = (v->free_blocks + v->pending_free) / v->nr_groups;
	uint32_t start = 0, best = UINT32_MAX, best_dirs = UINT32_MAX;

	if (getrandom(&start, sizeof(start), GRND_NONBLOCK) != sizeof(start))
		start = v->nr_dirs;
	for (uint32_t k = 0; k < v->nr_groups; k++) {
		uint32_t g = (uint32_t)(((uint64_t)start + k) % v->nr_groups);
		const struct x4_gdesc *d = &v->groups[g].d;

		if (!d->free_inodes || v->groups[g].ib_bad || d->used_dirs >= best_dirs || d->free_inodes < avg_i ||
		    d->free_blocks < avg_b)
			continue;
		best = g;
		best_dirs = d->used_dirs;
	}
	return best;
}

/* A directory further down: near its parent, in a group that is not crowded. */
static uint32_t nearby_dir(struct x4_vol *v, uint32_t parent)
{
	uint32_t avg_i = v->free_inodes / v->nr_groups;
	uint32_t avg_b = (uint32_t)((v->free_blocks + v->pending_free) / v->nr_groups);
	uint32_t max_dirs = v->nr_dirs / v->nr_groups + v->inodes_per_group / 16 + 1;
	uint32_t min_i = avg_i > v->inodes_per_group / 4 ? avg_i - v->inodes_per_group / 4 : 1;
	uint32_t min_b = avg_b > v->blocks_per_group / 4 ? avg_b - v->blocks_per_group / 4 : 0;

	for (uint32_t k = 0; k < v->nr_groups; k++) {
		uint32_t g = (parent + k) % v->nr_groups;
		const struct x4_gdesc *d = &v->groups[g].d;

		if (!v->groups[g].ib_bad && d->used_dirs < max_dirs && d->free_inodes >= min_i && d->free_blocks >= min_b)
			return g;
	}
	return UINT32_MAX;
}

/* Anything with a free inode, the parent's group first; want_blocks: and a free block. */
static uint32_t first_with_room(struct x4_vol *v, uint32_t parent, bool want_blocks)
{
	for (uint32_t k = 0; k < v->nr_groups; k++) {
		uint32_t g = (parent + k) % v->nr_groups;

		if (!v->groups[g].ib_bad && v->groups[g].d.free_inodes && (!want_blocks || v->groups[g].d.free_blocks))
			return g;
	}
	return UINT32_MAX;
}

static uint32_t pick_group(struct x4_vol *v, struct x4_inode *dir, bool is_dir)
{
	uint32_t parent = (dir->ino - 1) / v->inodes_per_group, g = UINT32_MAX;

	if (is_dir)
		g = dir->ino == X4_ROOT_INO || (dir->raw->i_flags & EXT2_TOPDIR_FL) ? spread(v) : nearby_dir(v, parent);
	if (g == UINT32_MAX)
		g = first_with_room(v, parent, true);
	return g == UINT32_MAX ? first_with_room(v, parent, false) : g;
}

/* ------------------------------------------------------------------ take and give back */
static int take_bit(struct jnl_handle *h, struct x4_vol *v, uint32_t g, bool is_dir, uint32_t *ret_bit, bool *ret_fresh)
{
	struct x4_group *grp = &v->groups[g];
	uint32_t from = g == 0 ? v->first_ino - 1 : 0, bit, used;
	struct x4_gdesc d;
	struct jnl_buf *b;
	int err = write_bitmap(h, v, g, &b);

	if (err)
		return err;
	bit = x4_bits_next(b->data, v->inodes_per_group, from, false);
	if (bit >= v->inodes_per_group) {
		jnl_brelse(b);
		return ib_damaged(grp, X4_CORRUPT(v, 0, grp->ib, "group %u: no free inode in the bitmap, %u in the descriptor", g,
						  grp->d.free_inodes));
	}
	x4_bits_fill(b->data, bit, 1, true);
	jnl_brelse(b);
	d = grp->d;
	used = v->inodes_per_group - d.itable_unused;
	/* The whole table block is above the mark: nothing in it was ever used. */
	*ret_fresh = bit / v->inodes_per_block * v->inodes_per_block >= used;
	if (bit >= used)
		d.itable_unused = v->inodes_per_group - bit - 1;
	d.free_inodes--;
	d.used_dirs += is_dir;
	fdio_mutex_lock(&v->alloc_lock);
	x4_group_set_desc(v, g, &d);
	grp->ib_dirty = true;
	fdio_mutex_unlock(&v->alloc_lock);
	*ret_bit = bit;
	return 0;
}

void x4_ialloc_distrust(struct x4_vol *v, uint32_t ino)
{
	__atomic_store_n(&v->groups[(ino - 1) / v->inodes_per_group].ib_bad, true, __ATOMIC_RELAXED);
}

int x4_ialloc(struct jnl_handle *h, struct x4_inode *dir, uint32_t mode, uint32_t *ret_ino, bool *ret_fresh)
{
	struct x4_vol *v = dir->vol;
	bool is_dir = S_ISDIR(mode);
	uint32_t g, bit = 0;
	int err;

	if (nowait_on() && is_dir && v->nr_groups > X4_NOWAIT_GROUPS)
		return nowait_miss();
	/* Each round either succeeds or takes a damaged group out of the game. */
	for (uint32_t tries = 0; tries <= v->nr_groups; tries++) {
		fdio_mutex_lock(&v->alloc_lock);
		g = pick_group(v, dir, is_dir);
		fdio_mutex_unlock(&v->alloc_lock);
		if (g == UINT32_MAX)
			return -ENOSPC;
		err = x4_gop_begin(h, v, g, X4_GOP_DESC, 0, 0);
		if (!err)
			err = take_bit(h, v, g, is_dir, &bit, ret_fresh);
		if (err == -EUCLEAN && !x4_vol_read_only(v))
			continue;
		/* The format wants the block bitmap initialised before inodes are in use. */
		if (!err)
			err = x4_group_init_disk(h, v, g);
		if (!err)
			*ret_ino = first_ino_of(v, g) + bit;
		return err;
	}
	return -ENOSPC;
}

int x4_ifree(struct jnl_handle *h, struct x4_vol *v, uint32_t ino, bool is_dir)
{
	uint32_t g = (ino - 1) / v->inodes_per_group, bit = (ino - 1) % v->inodes_per_group;
	struct x4_group *grp = &v->groups[g];
	struct x4_gdesc d;
	struct jnl_buf *b;
	int err = x4_gop_begin(h, v, g, X4_GOP_DESC, 0, 0);

	if (!err)
		err = write_bitmap(h, v, g, &b);
	if (err)
		return err;
	if (!x4_bit(b->data, bit)) {
		jnl_brelse(b);
		return X4_CORRUPT(v, ino, grp->ib, "freed, but not in use according to the bitmap");
	}
	x4_bits_fill(b->data, bit, 1, false);
	jnl_brelse(b);
	d = grp->d;
	d.free_inodes++;
	if (is_dir && d.used_dirs)
		d.used_dirs--;
	fdio_mutex_lock(&v->alloc_lock);
	x4_group_set_desc(v, g, &d);
	grp->ib_dirty = true;
	fdio_mutex_unlock(&v->alloc_lock);
	return 0;
}
