/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block groups: the mirror of the descriptors, the two images of the block bitmap (alloc/groups.h) and their
 * way to disk. The allocators call in, on any worker; x4_groups_seal is called by the journal on the
 * committing thread, once for each transaction, and is where checksums of bitmaps and descriptors are
 * computed, however often a group changed.
 *
 * Every change inside a handle has an undo record, which holds the descriptor as it was: records run
 * newest first, so a cancelled handle leaves the group as it found it.
 *
 * A bitmap whose checksum or count does not fit marks the group bad: nothing is allocated or freed there
 * any more, the rest of the file system goes on.
 */
#include "ext4/alloc/groups.h"

#include "base/counters.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/nowait.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Images looked at, for one to give up, where one is loaded. */
#define TRIM_LOOK 4u

/* ------------------------------------------------------------------ loading */
static void mark_if_inside(struct x4_vol *v, uint32_t g, uint8_t *map, uint64_t blk, uint64_t n)
{
	uint64_t start = x4_group_start(v, g), end = start + v->alloc.groups[g].nbits;

	for (; n; n--, blk++)
		if (blk >= start && blk < end)
			x4_bits_fill(map, (uint32_t)(blk - start), 1, true);
}

void x4_group_synth_blocks(struct x4_vol *v, uint32_t g, uint8_t *map)
{
	struct x4_group *grp = &v->alloc.groups[g];
	struct jnl_extent base[3];
	unsigned nr = x4_group_base_ranges(v, g, base);

	memset(map, 0, v->block_size);
	for (unsigned n = 0; n < nr; n++)
		mark_if_inside(v, g, map, base[n].pblk, base[n].len);
	mark_if_inside(v, g, map, grp->bb, 1);
	mark_if_inside(v, g, map, grp->ib, 1);
	mark_if_inside(v, g, map, grp->itable, v->itable_blocks);
	x4_bits_fill(map, grp->nbits, v->block_size * 8 - grp->nbits, true);
}

static struct ext4_group_desc *raw_desc(struct x4_vol *v, uint32_t g)
{
	return (struct ext4_group_desc *)(void *)ext2fs_group_desc(v->fs, v->fs->group_desc, g);
}

/* Stored sum of a bitmap: 32 bits where the descriptor is large, else the low half. */
static bool bitmap_csum_ok(struct x4_vol *v, uint32_t sum, uint16_t lo, uint16_t hi)
{
	return v->desc_size >= 64 ? sum == ((uint32_t)hi << 16 | lo) : (sum & 0xffff) == lo;
}

/* d and unsealed as they were before the bitmap was read: an inode may go to this group meanwhile, and change its descriptor. */
static int check_block_bitmap(struct x4_vol *v, uint32_t g, const struct x4_gdesc *d, bool unsealed, const uint8_t *map)
{
	struct x4_group *grp = &v->alloc.groups[g];
	struct ext4_group_desc *rd = raw_desc(v, g);
	uint64_t start = x4_group_start(v, g);
	uint32_t n;

	/* unsealed: made by this mount (an inode went to an uninitialised group), so the checksum is to come. */
	if (v->has_csum && !(d->flags & EXT2_BG_BLOCK_UNINIT) && !unsealed &&
	    !bitmap_csum_ok(v, fdio_crc32c(v->csum_seed, map, v->blocks_per_group / 8), rd->bg_block_bitmap_csum_lo,
			    rd->bg_block_bitmap_csum_hi))
		return X4_CORRUPT(v, 0, grp->bb, "group %u: wrong checksum of the block bitmap", g);
	if (!x4_zones_marked(v, start, grp->nbits, map))
		return X4_CORRUPT(v, 0, grp->bb, "group %u: blocks of the file system's own are marked free", g);
	n = x4_bits_clear_count(map, grp->nbits);
	if (n != d->free_blocks)
		return X4_CORRUPT(v, 0, grp->bb, "group %u: %u free blocks in the bitmap, %u in the descriptor", g, n, d->free_blocks);
	return 0;
}

/* Without alloc_lock; grp->loading keeps everyone else from loading or changing this group. */
static int read_image(struct x4_vol *v, uint32_t g, const struct x4_gdesc *d, bool unsealed, uint8_t **ret)
{
	struct x4_group *grp = &v->alloc.groups[g];
	uint8_t *map;
	struct jnl_buf *b;
	int err = 0;

	if (v->blocks_per_group > v->block_size * 8)
		return -EOPNOTSUPP; /* bigalloc: bits are of clusters */
	map = malloc(v->block_size);
	if (!map)
		return -ENOMEM;
	if (d->flags & EXT2_BG_BLOCK_UNINIT) {
		x4_group_synth_blocks(v, g, map);
	} else {
		err = X4_BREAD(v, 0, grp->bb, &b);
		if (!err) {
			memcpy(map, b->data, v->block_size);
			jnl_brelse(b);
		}
	}
	if (!err)
		err = check_block_bitmap(v, g, d, unsealed, map);
	if (err) {
		free(map);
		return err;
	}
	x4_bits_fill(map, grp->nbits, v->block_size * 8 - grp->nbits, true);
	*ret = map;
	return 0;
}

/* alloc_lock held: it says what the bitmap on disk says, and will until another change begins. */
static bool image_clean(const struct x4_group *grp)
{
	return grp->free_alloc == grp->d.free_blocks &&
	       !__atomic_load_n(&grp->pins, __ATOMIC_ACQUIRE);
}

/*
 * alloc_lock held. Each load gives up a few at most, so that there are no more and nobody waits
 * long.
 */
static void trim_images(struct x4_vol *v, const struct x4_group *keep)
{
	for (unsigned look = 0; v->alloc.nr_images > v->alloc.max_images && look < TRIM_LOOK; look++) {
		struct x4_group *grp = list_first(&v->alloc.images, struct x4_group, image_node);

		if (grp == keep || !image_clean(grp)) {
			list_move_tail(&v->alloc.images, &grp->image_node);
			continue;
		}
		list_del(&grp->image_node);
		v->alloc.nr_images--;
		free(grp->alloc);
		grp->alloc = NULL;
		fdio_count(CTR_x4_image_evicted);
	}
}

int x4_group_load(struct x4_vol *v, uint32_t g)
{
	struct x4_group *grp = &v->alloc.groups[g];
	uint8_t *map = NULL;
	int err;

	if (grp->loading && nowait_on())
		return nowait_miss();
	while (grp->loading)
		fdio_cond_wait(&v->alloc.cond, &v->alloc.lock);
	if (grp->alloc)
		return 0;
	if (grp->bad)
		return -EUCLEAN;
	grp->loading = true;
	struct x4_gdesc d = grp->d;
	bool unsealed = grp->bb_dirty;
	fdio_mutex_unlock(&v->alloc.lock);
	err = read_image(v, g, &d, unsealed, &map);
	fdio_mutex_lock(&v->alloc.lock);
	grp->loading = false;
	if (!err) {
		grp->alloc = map;
		grp->first_free = x4_bits_next(map, grp->nbits, 0, false);
		list_add_tail(&v->alloc.images, &grp->image_node);
		v->alloc.nr_images++;
		trim_images(v, grp);
	} else if (err == -EUCLEAN) {
		grp->bad = true;
		v->alloc.free_blocks -= grp->free_alloc;
		grp->free_alloc = 0;
	}
	pthread_cond_broadcast(&v->alloc.cond);
	return err;
}

void x4_group_distrust(struct x4_vol *v, uint32_t g)
{
	struct x4_group *grp = &v->alloc.groups[g];

	x4_bits_fill(grp->alloc, 0, grp->nbits, true);
	v->alloc.free_blocks -= grp->free_alloc;
	grp->free_alloc = 0;
	grp->first_free = grp->nbits;
}

void x4_image_take(struct x4_vol *v, uint32_t g, uint32_t bit, uint32_t n)
{
	struct x4_group *grp = &v->alloc.groups[g];

	x4_bits_fill(grp->alloc, bit, n, true);
	grp->free_alloc -= n;
	v->alloc.free_blocks -= n;
	if (bit <= grp->first_free && grp->first_free < bit + n)
		grp->first_free = bit + n;
}

void x4_image_give(struct x4_vol *v, uint32_t g, uint32_t bit, uint32_t n)
{
	struct x4_group *grp = &v->alloc.groups[g];

	x4_bits_fill(grp->alloc, bit, n, false);
	grp->free_alloc += n;
	v->alloc.free_blocks += n;
	grp->first_free = FDIO_MIN(grp->first_free, bit);
	grp->max_run = UINT32_MAX;
	x4_region_of(v, g)->longest = UINT32_MAX;
}

/* ------------------------------------------------------------------ undo and commit */
struct gop {
	struct jnl_callback undo, commit;
	struct x4_vol *v;
	struct x4_gdesc before;
	enum x4_gop_kind kind;
	uint32_t g, bit, n;
};

static void unpin(struct gop *op)
{
	if (op->kind != X4_GOP_DESC)
		__atomic_sub_fetch(&op->v->alloc.groups[op->g].pins, 1, __ATOMIC_RELEASE);
}

void x4_group_give_freed(struct x4_vol *v, uint32_t g, uint32_t bit, uint32_t n)
{
	fdio_mutex_lock(&v->alloc.lock);
	v->alloc.pending_free -= n;
	v->alloc.nr_given_back += n;
	x4_image_give(v, g, bit, n);
	pthread_cond_broadcast(&v->alloc.cond);
	fdio_mutex_unlock(&v->alloc.lock);
	__atomic_sub_fetch(&v->alloc.groups[g].pins, 1, __ATOMIC_RELEASE);
}

/* The transaction that freed the blocks is durable: now they may belong to someone else. */
static void gop_committed(struct jnl_callback *cb, int err)
{
	struct gop *op = container_of(cb, struct gop, commit);

	if (err)
		unpin(op);
	else if (!x4_discard_later(op->v, op->g, op->bit, op->n))
		x4_group_give_freed(op->v, op->g, op->bit, op->n);
}

static void gop_undo(struct jnl_callback *cb, int ended)
{
	struct gop *op = container_of(cb, struct gop, undo);
	struct x4_vol *v = op->v;

	if (ended) {
		if (op->kind != X4_GOP_FREE) /* which has its own end */
			unpin(op);
		return;
	}
	fdio_mutex_lock(&v->alloc.lock);
	x4_group_set_desc(v, op->g, &op->before);
	if (op->kind == X4_GOP_ALLOC)
		x4_image_give(v, op->g, op->bit, op->n);
	else if (op->kind == X4_GOP_FREE)
		v->alloc.pending_free -= op->n;
	fdio_mutex_unlock(&v->alloc.lock);
	unpin(op);
}

/* Keeps the image of the group that op is going to change; what is freed goes there later. */
static int pin(struct gop *op, jnl_tid tid)
{
	struct x4_vol *v = op->v;
	int err = 0;

	fdio_mutex_lock(&v->alloc.lock);
	if (op->kind == X4_GOP_FREE) {
		err = x4_group_load(v, op->g);
		if (!err) {
			v->alloc.pending_free += op->n;
			v->alloc.last_free_tid = tid;
		}
	}
	if (!err)
		__atomic_add_fetch(&v->alloc.groups[op->g].pins, 1, __ATOMIC_RELAXED);
	fdio_mutex_unlock(&v->alloc.lock);
	return err;
}

int x4_gop_begin(struct jnl_handle *h, struct x4_vol *v, uint32_t g, enum x4_gop_kind kind, uint32_t bit, uint32_t n)
{
	/* What is freed is given back once that is durable. Write-out frees too: nodes of a tree that has become smaller. */
	struct gop *op = kind == X4_GOP_FREE ? jnl_txn_mem(h, sizeof(*op)) : jnl_handle_mem(h, sizeof(*op));
	int err;

	if (!op)
		return -ENOMEM;
	*op = (struct gop){ .v = v, .before = v->alloc.groups[g].d, .kind = kind, .g = g, .bit = bit,
			    .n = n };
	op->undo.fn = gop_undo;
	op->commit.fn = gop_committed;
	err = kind == X4_GOP_DESC ? 0 : pin(op, jnl_handle_tid(h));
	if (err)
		return err;
	jnl_on_undo(h, &op->undo);
	if (kind == X4_GOP_FREE)
		jnl_on_commit(h, &op->commit);
	return 0;
}

void x4_group_set_desc(struct x4_vol *v, uint32_t g, const struct x4_gdesc *d)
{
	struct x4_group *grp = &v->alloc.groups[g];
	struct x4_region *r = x4_region_of(v, g);

	x4_free_inodes_set(v, x4_free_inodes(v) + d->free_inodes - grp->d.free_inodes);
	v->alloc.nr_dirs = v->alloc.nr_dirs + d->used_dirs - grp->d.used_dirs;
	r->free_inodes = r->free_inodes + d->free_inodes - grp->d.free_inodes;
	r->free_blocks = r->free_blocks + d->free_blocks - grp->d.free_blocks;
	r->used_dirs = r->used_dirs + d->used_dirs - grp->d.used_dirs;
	grp->d = *d;
	if (!grp->dirty) {
		grp->dirty = true;
		list_add_tail(&v->alloc.dirty_groups, &grp->dirty_node);
	}
}

/* ------------------------------------------------------------------ disk image */
int x4_group_init_disk(struct jnl_handle *h, struct x4_vol *v, uint32_t g)
{
	struct x4_group *grp = &v->alloc.groups[g];
	struct x4_gdesc d = grp->d;
	struct jnl_buf *b;
	int err;

	if (!(d.flags & EXT2_BG_BLOCK_UNINIT))
		return 0;
	err = jnl_bnew(h, grp->bb, &b);
	if (err)
		return err;
	/* Not a copy of the image, which may hold reservations. */
	x4_group_synth_blocks(v, g, b->data);
	jnl_brelse(b);
	d.flags &= (uint16_t)~EXT2_BG_BLOCK_UNINIT;
	fdio_mutex_lock(&v->alloc.lock);
	x4_group_set_desc(v, g, &d);
	grp->bb_dirty = true;
	fdio_mutex_unlock(&v->alloc.lock);
	return 0;
}

int x4_group_disk_bits(struct jnl_handle *h, struct x4_vol *v, uint32_t g, uint32_t bit, uint32_t n, bool set)
{
	struct x4_group *grp = &v->alloc.groups[g];
	struct x4_gdesc d;
	struct jnl_buf *b;
	int err = x4_group_init_disk(h, v, g);

	if (err)
		return err;
	err = X4_BREAD(v, 0, grp->bb, &b);
	if (err)
		return err;
	err = jnl_get_write(h, b);
	if (err)
		goto out;
	if (!x4_bits_all(b->data, bit, n, !set)) {
		err = X4_CORRUPT(v, 0, x4_group_start(v, g) + bit, "%u blocks are %s already", n, set ? "in use" : "free");
		goto out;
	}
	x4_bits_fill(b->data, bit, n, set);
	fdio_mutex_lock(&v->alloc.lock);
	d = grp->d;
	d.free_blocks = set ? d.free_blocks - n : d.free_blocks + n;
	x4_group_set_desc(v, g, &d);
	grp->bb_dirty = true;
	fdio_mutex_unlock(&v->alloc.lock);
out:
	jnl_brelse(b);
	return err;
}

/* ------------------------------------------------------------------ seal */
static int seal_bitmap(struct x4_vol *v, uint64_t blk, uint32_t bytes, uint16_t *lo, uint16_t *hi)
{
	struct jnl_buf *b;
	uint32_t sum;
	int err = X4_BREAD(v, 0, blk, &b);

	if (err)
		return err;
	sum = fdio_crc32c(v->csum_seed, b->data, bytes);
	jnl_brelse(b);
	*lo = (uint16_t)sum;
	if (v->desc_size >= 64)
		*hi = (uint16_t)(sum >> 16);
	return 0;
}

/* The descriptor as libext2fs keeps it in memory is the image of the one on disk. */
static int seal_desc(struct x4_vol *v, struct jnl_handle *h, uint32_t g)
{
	uint32_t per_block = v->block_size / v->desc_size;
	uint64_t blk = ext2fs_descriptor_block_loc2(v->fs, v->first_data_block, g / per_block);
	size_t at = (size_t)(g % per_block) * v->desc_size;
	struct jnl_buf *b;
	int err = X4_BREAD(v, 0, blk, &b);

	if (err)
		return err;
	if (memcmp(b->data + at, raw_desc(v, g), v->desc_size)) {
		err = jnl_get_write(h, b);
		if (!err)
			memcpy(b->data + at, raw_desc(v, g), v->desc_size);
	}
	jnl_brelse(b);
	return err;
}

static int seal_group(struct x4_vol *v, struct jnl_handle *h, uint32_t g)
{
	struct x4_group *grp = &v->alloc.groups[g];
	struct ext4_group_desc *rd = raw_desc(v, g);
	int err = 0;

	ext2fs_bg_free_blocks_count_set(v->fs, g, grp->d.free_blocks);
	ext2fs_bg_free_inodes_count_set(v->fs, g, grp->d.free_inodes);
	ext2fs_bg_used_dirs_count_set(v->fs, g, grp->d.used_dirs);
	ext2fs_bg_itable_unused_set(v->fs, g, grp->d.itable_unused);
	rd->bg_flags = grp->d.flags;
	if (v->has_csum && grp->bb_dirty && !(grp->d.flags & EXT2_BG_BLOCK_UNINIT))
		err = seal_bitmap(v, grp->bb, v->blocks_per_group / 8, &rd->bg_block_bitmap_csum_lo, &rd->bg_block_bitmap_csum_hi);
	if (!err && v->has_csum && grp->ib_dirty && !(grp->d.flags & EXT2_BG_INODE_UNINIT))
		err = seal_bitmap(v, grp->ib, v->inodes_per_group / 8, &rd->bg_inode_bitmap_csum_lo, &rd->bg_inode_bitmap_csum_hi);
	if (err)
		return err;
	/* Who loads the bitmap looks at the checksum once it is not dirty any more. */
	fdio_mutex_lock(&v->alloc.lock);
	grp->bb_dirty = grp->ib_dirty = false;
	fdio_mutex_unlock(&v->alloc.lock);
	ext2fs_group_desc_csum_set(v->fs, g);
	return seal_desc(v, h, g);
}

void x4_groups_seal(void *vol, struct jnl_handle *h)
{
	struct x4_vol *v = vol;

	while (!list_empty(&v->alloc.dirty_groups)) {
		struct x4_group *grp = list_first(&v->alloc.dirty_groups, struct x4_group, dirty_node);
		int err = seal_group(v, h, (uint32_t)(grp - v->alloc.groups));

		if (err) {
			/* The transaction would be inconsistent: it must not become durable. */
			log_err("%s: cannot write group descriptors: %s", v->dev->name, strerror(-err));
			jnl_abort(v->jnl, err);
			return;
		}
		list_del(&grp->dirty_node);
		grp->dirty = false;
	}
}

/* ------------------------------------------------------------------ life */
static bool loc_ok(struct x4_vol *v, uint64_t blk, uint64_t n)
{
	return blk >= v->first_data_block && blk < v->nr_blocks && n <= v->nr_blocks - blk;
}

/* What is wrong with the descriptor of g; NULL: nothing. */
static const char *desc_fault(struct x4_vol *v, uint32_t g)
{
	const struct x4_group *grp = &v->alloc.groups[g];

	if (!ext2fs_group_desc_csum_verify(v->fs, g))
		return "wrong checksum of the descriptor";
	if (!loc_ok(v, grp->bb, 1) || !loc_ok(v, grp->ib, 1) ||
	    !loc_ok(v, grp->itable, v->itable_blocks))
		return "a bitmap or the inode table lies outside the file system";
	if (grp->d.free_blocks > grp->nbits || grp->d.free_inodes > v->inodes_per_group ||
	    grp->d.itable_unused > v->inodes_per_group)
		return "impossible free counts";
	return NULL;
}

/* Such a volume is only read: of the descriptor the places are believed as far as they can be,
 * and the inodes have checksums of their own. */
static void distrust(struct x4_vol *v, uint32_t g, const char *why)
{
	struct x4_group *grp = &v->alloc.groups[g];

	log_ratelimited(FDIO_LOG_INFO, "%s: group %u: %s", v->dev->name, g, why);
	if (!v->alloc.nr_bad_groups++)
		v->alloc.first_bad_group = g;
	grp->bb = loc_ok(v, grp->bb, 1) ? grp->bb : 0;
	grp->ib = loc_ok(v, grp->ib, 1) ? grp->ib : 0;
	grp->itable = loc_ok(v, grp->itable, v->itable_blocks) ? grp->itable : 0;
	grp->bad = grp->ib_bad = true;
	grp->d = (struct x4_gdesc){ 0 };
}

static void group_init(struct x4_vol *v, uint32_t g)
{
	struct x4_group *grp = &v->alloc.groups[g];
	struct x4_region *r = x4_region_of(v, g);
	const char *why;

	list_init(&grp->dirty_node);
	list_init(&grp->image_node);
	grp->bb = ext2fs_block_bitmap_loc(v->fs, g);
	grp->ib = ext2fs_inode_bitmap_loc(v->fs, g);
	grp->itable = ext2fs_inode_table_loc(v->fs, g);
	grp->nbits = (uint32_t)FDIO_MIN((uint64_t)v->blocks_per_group, v->nr_blocks - x4_group_start(v, g));
	grp->d.free_blocks = ext2fs_bg_free_blocks_count(v->fs, g);
	grp->d.free_inodes = ext2fs_bg_free_inodes_count(v->fs, g);
	grp->d.used_dirs = ext2fs_bg_used_dirs_count(v->fs, g);
	grp->d.flags = ext2fs_bg_flags(v->fs, g);
	if (ext2fs_has_group_desc_csum(v->fs))
		grp->d.itable_unused = ext2fs_bg_itable_unused(v->fs, g);
	else
		grp->d.flags &= (uint16_t)~(EXT2_BG_BLOCK_UNINIT | EXT2_BG_INODE_UNINIT);
	why = desc_fault(v, g);
	if (why)
		distrust(v, g, why);
	grp->free_alloc = grp->d.free_blocks;
	grp->max_run = UINT32_MAX;
	v->alloc.free_blocks += grp->d.free_blocks;
	x4_free_inodes_set(v, x4_free_inodes(v) + grp->d.free_inodes);
	v->alloc.nr_dirs += grp->d.used_dirs;
	r->free_blocks += grp->d.free_blocks;
	r->free_inodes += grp->d.free_inodes;
	r->used_dirs += grp->d.used_dirs;
	r->longest = UINT32_MAX;
}

int x4_groups_init(struct x4_vol *v)
{
	v->alloc.free_blocks = v->alloc.meta_held = v->alloc.pending_free = 0;
	x4_free_inodes_set(v, 0);
	v->alloc.nr_dirs = v->alloc.nr_bad_groups = v->alloc.nr_images = 0;
	v->alloc.max_images = (uint32_t)FDIO_MAX(v->opt.cache_bytes / 2 / v->block_size, (size_t)64);
	list_init(&v->alloc.images);
	v->alloc.groups = calloc(v->nr_groups, sizeof(*v->alloc.groups));
	v->alloc.nr_regions = (v->nr_groups - 1) / X4_REGION_GROUPS + 1;
	v->alloc.regions = calloc(v->alloc.nr_regions, sizeof(*v->alloc.regions));
	if (!v->alloc.groups || !v->alloc.regions)
		return -ENOMEM;
	for (uint32_t g = 0; g < v->nr_groups; g++)
		group_init(v, g);
	/* Where the counts are of clusters (such a file system is only read), for statfs. */
	v->alloc.free_blocks *= EXT2FS_CLUSTER_RATIO(v->fs);
	return 0;
}

uint64_t x4_groups_free_on_disk(struct x4_vol *v)
{
	uint64_t sum = 0;

	for (uint32_t g = 0; g < v->nr_groups; g++)
		sum += v->alloc.groups[g].d.free_blocks;
	return sum;
}

void x4_groups_fini(struct x4_vol *v)
{
	free(v->alloc.zones);
	v->alloc.zones = NULL;
	v->alloc.nr_zones = 0;
	free(v->alloc.regions);
	v->alloc.regions = NULL;
	if (!v->alloc.groups)
		return;
	for (uint32_t g = 0; g < v->nr_groups; g++)
		free(v->alloc.groups[g].alloc);
	free(v->alloc.groups);
	v->alloc.groups = NULL;
	list_init(&v->alloc.dirty_groups);
}

void x4_alloc_init(struct x4_vol *v)
{
	fdio_mutex_init(&v->alloc.lock, RANK_X4_ALLOC);
	fdio_cond_init(&v->alloc.cond);
	list_init(&v->alloc.dirty_groups);
}

void x4_alloc_fini(struct x4_vol *v)
{
	fdio_mutex_fini(&v->alloc.lock);
	pthread_cond_destroy(&v->alloc.cond);
}

uint32_t x4_bad_groups(const struct x4_vol *v, uint32_t *ret_first)
{
	if (ret_first)
		*ret_first = v->alloc.first_bad_group;
	return v->alloc.nr_bad_groups;
}
