/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The inode allocator. Always inside a handle, and handles are serial, so the bitmap on disk is all there
 * is: no image, no reservation; an inode freed and taken again in one transaction is safe.
 *
 * Directories at the top level spread over regions and groups, so that each tree has room; deeper
 * ones stay near their parent unless it is crowded; files go into their directory's group. A table
 * block above the high-water mark (bg_itable_unused) was never written: the caller starts it with
 * zeroes instead of reading it.
 */
#include "ext4/alloc/groups.h"

#include "base/counters.h"
#include "base/crc32c.h"
#include "base/nowait.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#define NEAR_REGIONS 4u
#define MAX_TRIES 64u

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
	struct x4_group *grp = &v->alloc.groups[g];
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
	struct x4_group *grp = &v->alloc.groups[g];
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
	fdio_mutex_lock(&v->alloc.lock);
	x4_group_set_desc(v, g, &d);
	fdio_mutex_unlock(&v->alloc.lock);
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
	if (v->alloc.groups[g].d.flags & EXT2_BG_INODE_UNINIT)
		return 0;
	err = read_bitmap(v, g, &b);
	if (err)
		return err;
	err = x4_bit(b->data, (ino - 1) % v->inodes_per_group);
	jnl_brelse(b);
	return err;
}

/* ------------------------------------------------------------------ placement */
/* What all groups have on average. */
struct average { uint32_t inodes, blocks, dirs; };

static struct average average(const struct x4_vol *v)
{
	return (struct average){
		.inodes = x4_free_inodes(v) / v->nr_groups,
		.blocks = (uint32_t)((v->alloc.free_blocks + v->alloc.pending_free) / v->nr_groups),
		.dirs = v->alloc.nr_dirs / v->nr_groups,
	};
}

/* The groups of r have so much on average. */
static bool region_has(const struct x4_vol *v, uint32_t r, uint64_t inodes, uint64_t blocks)
{
	const struct x4_region *reg = &v->alloc.regions[r];
	uint32_t n = x4_region_end(v, r << X4_REGION_BITS) - (r << X4_REGION_BITS);

	fdio_count(CTR_x4_place_look);
	return reg->free_inodes >= inodes * n && reg->free_blocks >= blocks * n;
}

/*
 * The region with the fewest directories of those above average, any of them first; UINT32_MAX:
 * none.
 */
static uint32_t spread_region(struct x4_vol *v, const struct average *avg, uint32_t start)
{
	uint32_t best = UINT32_MAX, best_dirs = UINT32_MAX;

	for (uint32_t k = 0; k < v->alloc.nr_regions && best_dirs; k++) {
		uint32_t r = (uint32_t)(((uint64_t)start + k) % v->alloc.nr_regions);

		if (v->alloc.regions[r].used_dirs >= best_dirs ||
		    !region_has(v, r, avg->inodes, avg->blocks))
			continue;
		best = r;
		best_dirs = v->alloc.regions[r].used_dirs;
	}
	return best;
}

/* A directory of the top level: the emptiest group of those above average in such a region. */
static uint32_t spread(struct x4_vol *v)
{
	uint32_t start = 0, best = UINT32_MAX, best_dirs = UINT32_MAX, first, n, r;
	struct average avg = average(v);

	if (getrandom(&start, sizeof(start), GRND_NONBLOCK) != sizeof(start))
		start = v->alloc.nr_dirs;
	r = spread_region(v, &avg, start % v->alloc.nr_regions);
	if (r == UINT32_MAX)
		return UINT32_MAX;
	first = r << X4_REGION_BITS;
	n = x4_region_end(v, first) - first;
	for (uint32_t k = 0; k < n; k++) {
		uint32_t g = first + (uint32_t)(((uint64_t)start + k) % n);
		const struct x4_gdesc *d = &v->alloc.groups[g].d;

		fdio_count(CTR_x4_place_look);
		if (!d->free_inodes || v->alloc.groups[g].ib_bad || d->used_dirs >= best_dirs ||
		    d->free_inodes < avg.inodes || d->free_blocks < avg.blocks)
			continue;
		best = g;
		best_dirs = d->used_dirs;
	}
	return best;
}

/* In the groups from g to the end of its region; UINT32_MAX. */
static uint32_t nearby_in(struct x4_vol *v, uint32_t g, uint32_t max_dirs, uint32_t min_i,
			  uint32_t min_b)
{
	for (uint32_t end = x4_region_end(v, g); g < end; g++) {
		const struct x4_gdesc *d = &v->alloc.groups[g].d;

		fdio_count(CTR_x4_place_look);
		if (!v->alloc.groups[g].ib_bad && d->used_dirs < max_dirs && d->free_inodes >= min_i && d->free_blocks >= min_b)
			return g;
	}
	return UINT32_MAX;
}

/*
 * A directory further down: near its parent, in a group that is not crowded. The nearest regions
 * are looked through, further ones if they have as much on average, and not too many of these.
 */
static uint32_t nearby_dir(struct x4_vol *v, uint32_t parent)
{
	struct average avg = average(v);
	uint32_t max_dirs = avg.dirs + v->inodes_per_group / 16 + 1, through = 0, g = parent;
	uint32_t few_i = v->inodes_per_group / 4, few_b = v->blocks_per_group / 4;
	uint32_t min_i = avg.inodes > few_i ? avg.inodes - few_i : 1;
	uint32_t min_b = avg.blocks > few_b ? avg.blocks - few_b : 0;

	for (uint32_t k = 0; k <= v->alloc.nr_regions && through < 2 * NEAR_REGIONS; k++) {
		if (k < NEAR_REGIONS || region_has(v, g >> X4_REGION_BITS, min_i, min_b)) {
			uint32_t found = nearby_in(v, g, max_dirs, min_i, min_b);

			if (found != UINT32_MAX)
				return found;
			through++;
		}
		g = x4_region_end(v, g) % v->nr_groups;
	}
	return UINT32_MAX;
}

/*
 * Anything with a free inode, the parent's group first; want_blocks: and a free block, if that is
 * not far.
 */
static uint32_t first_with_room(struct x4_vol *v, uint32_t parent, bool want_blocks)
{
	uint32_t looked = 0;

	for (uint32_t k = 0; k < v->nr_groups && !(want_blocks && looked > X4_NOWAIT_GROUPS);) {
		uint32_t g = (uint32_t)(((uint64_t)parent + k) % v->nr_groups);
		const struct x4_region *r = x4_region_of(v, g);

		fdio_count(CTR_x4_place_look);
		if (!r->free_inodes || (want_blocks && !r->free_blocks)) {
			k += x4_region_end(v, g) - g;
			continue;
		}
		if (!v->alloc.groups[g].ib_bad && v->alloc.groups[g].d.free_inodes && (!want_blocks || v->alloc.groups[g].d.free_blocks))
			return g;
		looked++;
		k++;
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
	struct x4_group *grp = &v->alloc.groups[g];
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
	fdio_mutex_lock(&v->alloc.lock);
	x4_group_set_desc(v, g, &d);
	grp->ib_dirty = true;
	fdio_mutex_unlock(&v->alloc.lock);
	*ret_bit = bit;
	return 0;
}

void x4_ialloc_distrust(struct x4_vol *v, uint32_t ino)
{
	__atomic_store_n(&v->alloc.groups[(ino - 1) / v->inodes_per_group].ib_bad, true, __ATOMIC_RELAXED);
}

int x4_ialloc(struct jnl_handle *h, struct x4_inode *dir, uint32_t mode, uint32_t *ret_ino, bool *ret_fresh)
{
	struct x4_vol *v = dir->vol;
	bool is_dir = S_ISDIR(mode);
	uint32_t g, bit = 0;
	int err = -ENOSPC;

	/*
	 * Each round either succeeds or takes a damaged group out of the game; not all at once,
	 * where all are.
	 */
	for (uint32_t tries = 0; tries < MAX_TRIES; tries++) {
		fdio_mutex_lock(&v->alloc.lock);
		g = pick_group(v, dir, is_dir);
		fdio_mutex_unlock(&v->alloc.lock);
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
	return err;
}

int x4_ifree(struct jnl_handle *h, struct x4_vol *v, uint32_t ino, bool is_dir)
{
	uint32_t g = (ino - 1) / v->inodes_per_group, bit = (ino - 1) % v->inodes_per_group;
	struct x4_group *grp = &v->alloc.groups[g];
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
	fdio_mutex_lock(&v->alloc.lock);
	x4_group_set_desc(v, g, &d);
	grp->ib_dirty = true;
	fdio_mutex_unlock(&v->alloc.lock);
	return 0;
}

uint64_t x4_itable_place(struct x4_vol *v, uint32_t ino, uint32_t *ret_off)
{
	uint32_t g = (ino - 1) / v->inodes_per_group, n = (ino - 1) % v->inodes_per_group;

	*ret_off = n % v->inodes_per_block * v->inode_size;
	return v->alloc.groups[g].itable ? v->alloc.groups[g].itable + n / v->inodes_per_block : 0;
}

bool x4_above_mark(struct x4_vol *v, uint32_t ino)
{
	uint32_t g = (ino - 1) / v->inodes_per_group, n = (ino - 1) % v->inodes_per_group;
	bool above;

	fdio_mutex_lock(&v->alloc.lock);
	above = n >= v->inodes_per_group - v->alloc.groups[g].d.itable_unused;
	fdio_mutex_unlock(&v->alloc.lock);
	return above;
}
