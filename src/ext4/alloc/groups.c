/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block groups: the mirror of the descriptors, the two images of the block bitmap (alloc/groups.h)
 * and their way to disk. The allocators call in, on any worker; ext4_groups_seal is called by the
 * journal on the committing thread, once for each transaction, and is where checksums of bitmaps
 * and descriptors are computed, however often a group changed.
 *
 * Every change inside a handle has an undo record, which holds the descriptor as it was: records
 * run newest first, so a cancelled handle leaves the group as it found it.
 *
 * A bitmap whose checksum or count does not fit marks the group bad: nothing is allocated or freed
 * there any more, the rest of the file system goes on.
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
static void mark_if_inside(struct ext4_vol *vol, uint32_t group, uint8_t *map, uint64_t blk,
			   uint64_t n)
{
	uint64_t start = ext4_group_start(vol, group), end = start + vol->alloc.groups[group].nbits;

	for (; n; n--, blk++)
		if (blk >= start && blk < end)
			ext4_bits_fill(map, (uint32_t)(blk - start), 1, true);
}

void ext4_group_synthesize_blocks(struct ext4_vol *vol, uint32_t group, uint8_t *map)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct journal_extent base[3];
	unsigned nr = ext4_group_base_ranges(vol, group, base);

	memset(map, 0, vol->block_size);
	for (unsigned n = 0; n < nr; n++)
		mark_if_inside(vol, group, map, base[n].pblk, base[n].len);
	mark_if_inside(vol, group, map, grp->block_bitmap, 1);
	mark_if_inside(vol, group, map, grp->inode_bitmap, 1);
	mark_if_inside(vol, group, map, grp->itable, vol->itable_blocks);
	ext4_bits_fill(map, grp->nbits, vol->block_size * 8 - grp->nbits, true);
}

static struct ext4_group_desc *raw_desc(struct ext4_vol *vol, uint32_t group)
{
	return (struct ext4_group_desc *)(void *)ext2fs_group_desc(vol->fs, vol->fs->group_desc,
								   group);
}

/* Stored sum of a bitmap: 32 bits where the descriptor is large, else the low half. */
static bool bitmap_csum_ok(struct ext4_vol *vol, uint32_t sum, uint16_t lo, uint16_t hi)
{
	return vol->desc_size >= 64 ? sum == ((uint32_t)hi << 16 | lo) : (sum & 0xffff) == lo;
}

/*
 * desc and unsealed as they were before the bitmap was read: an inode may go to this group
 * meanwhile, and change its descriptor.
 */
static int check_block_bitmap(struct ext4_vol *vol, uint32_t group,
			      const struct ext4_descriptor *desc, bool unsealed, const uint8_t *map)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_group_desc *rd = raw_desc(vol, group);
	uint64_t start = ext4_group_start(vol, group);
	uint32_t n;

	/*
	 * unsealed: made by this mount (an inode went to an uninitialised group), so the checksum
	 * is to come.
	 */
	if (vol->has_csum && !(desc->flags & EXT2_BG_BLOCK_UNINIT) && !unsealed &&
	    !bitmap_csum_ok(vol, fdio_crc32c(vol->checksum_seed, map, vol->blocks_per_group / 8),
			    rd->bg_block_bitmap_csum_lo, rd->bg_block_bitmap_csum_hi))
		return EXT4_CORRUPT(vol, 0, grp->block_bitmap,
				    "group %u: wrong checksum of the block bitmap", group);
	if (!ext4_zones_marked(vol, start, grp->nbits, map))
		return EXT4_CORRUPT(vol, 0, grp->block_bitmap,
				    "group %u: blocks of the file system's own are marked free",
				    group);
	n = ext4_bits_clear_count(map, grp->nbits);
	if (n != desc->free_blocks)
		return EXT4_CORRUPT(vol, 0, grp->block_bitmap,
				    "group %u: %u free blocks in the bitmap, %u in the descriptor",
				    group, n, desc->free_blocks);
	return 0;
}

/* Without alloc_lock; grp->loading keeps everyone else from loading or changing this group. */
static int read_image(struct ext4_vol *vol, uint32_t group, const struct ext4_descriptor *desc,
		      bool unsealed, uint8_t **ret)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	uint8_t *map;
	struct journal_buffer *buffer;
	int err = 0;

	if (vol->blocks_per_group > vol->block_size * 8)
		return -EOPNOTSUPP; /* bigalloc: bits are of clusters */
	map = malloc(vol->block_size);
	if (!map)
		return -ENOMEM;
	if (desc->flags & EXT2_BG_BLOCK_UNINIT) {
		ext4_group_synthesize_blocks(vol, group, map);
	} else {
		err = EXT4_READ_BLOCK(vol, 0, grp->block_bitmap, &buffer);
		if (!err) {
			memcpy(map, buffer->data, vol->block_size);
			journal_buffer_release(buffer);
		}
	}
	if (!err)
		err = check_block_bitmap(vol, group, desc, unsealed, map);
	if (err) {
		free(map);
		return err;
	}
	ext4_bits_fill(map, grp->nbits, vol->block_size * 8 - grp->nbits, true);
	*ret = map;
	return 0;
}

/* alloc_lock held: it says what the bitmap on disk says, and will until another change begins. */
static bool image_clean(const struct ext4_group *grp)
{
	return grp->free_alloc == grp->desc.free_blocks &&
	       !__atomic_load_n(&grp->pins, __ATOMIC_ACQUIRE);
}

/*
 * alloc_lock held. Each load gives up a few at most, so that there are no more and nobody waits
 * long.
 */
static void trim_images(struct ext4_vol *vol, const struct ext4_group *keep)
{
	for (unsigned look = 0; vol->alloc.nr_images > vol->alloc.max_images && look < TRIM_LOOK;
	     look++) {
		struct ext4_group *grp =
				list_first(&vol->alloc.images, struct ext4_group, image_node);

		if (grp == keep || !image_clean(grp)) {
			list_move_tail(&vol->alloc.images, &grp->image_node);
			continue;
		}
		list_del(&grp->image_node);
		vol->alloc.nr_images--;
		free(grp->alloc);
		grp->alloc = NULL;
		fdio_count(COUNTER_ext4_image_evicted);
	}
}

int ext4_group_load(struct ext4_vol *vol, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	uint8_t *map = NULL;
	int err;

	if (grp->loading && nowait_on())
		return nowait_miss();
	while (grp->loading)
		fdio_cond_wait(&vol->alloc.cond, &vol->alloc.lock);
	if (grp->alloc)
		return 0;
	if (grp->bad)
		return -EUCLEAN;
	grp->loading = true;
	struct ext4_descriptor desc = grp->desc;
	bool unsealed = grp->bb_dirty;
	fdio_mutex_unlock(&vol->alloc.lock);
	err = read_image(vol, group, &desc, unsealed, &map);
	fdio_mutex_lock(&vol->alloc.lock);
	grp->loading = false;
	if (!err) {
		grp->alloc = map;
		grp->first_free = ext4_bits_next(map, grp->nbits, 0, false);
		list_add_tail(&vol->alloc.images, &grp->image_node);
		vol->alloc.nr_images++;
		trim_images(vol, grp);
	} else if (err == -EUCLEAN) {
		grp->bad = true;
		vol->alloc.free_blocks -= grp->free_alloc;
		grp->free_alloc = 0;
	}
	pthread_cond_broadcast(&vol->alloc.cond);
	return err;
}

void ext4_group_distrust(struct ext4_vol *vol, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];

	ext4_bits_fill(grp->alloc, 0, grp->nbits, true);
	vol->alloc.free_blocks -= grp->free_alloc;
	grp->free_alloc = 0;
	grp->first_free = grp->nbits;
}

void ext4_image_take(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n)
{
	struct ext4_group *grp = &vol->alloc.groups[group];

	ext4_bits_fill(grp->alloc, bit, n, true);
	grp->free_alloc -= n;
	vol->alloc.free_blocks -= n;
	if (bit <= grp->first_free && grp->first_free < bit + n)
		grp->first_free = bit + n;
}

void ext4_image_give(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n)
{
	struct ext4_group *grp = &vol->alloc.groups[group];

	ext4_bits_fill(grp->alloc, bit, n, false);
	grp->free_alloc += n;
	vol->alloc.free_blocks += n;
	grp->first_free = FDIO_MIN(grp->first_free, bit);
	grp->max_run = UINT32_MAX;
	ext4_region_of(vol, group)->longest = UINT32_MAX;
}

/* ------------------------------------------------------------------ undo and commit */
struct gop {
	struct journal_callback undo, commit;
	struct ext4_vol *vol;
	struct ext4_descriptor before;
	enum ext4_group_op_kind kind;
	uint32_t group, bit, n;
};

static void unpin(struct gop *op)
{
	if (op->kind != EXT4_GROUP_OP_DESC)
		__atomic_sub_fetch(&op->vol->alloc.groups[op->group].pins, 1, __ATOMIC_RELEASE);
}

void ext4_group_give_freed(struct ext4_vol *vol, uint32_t group, uint32_t bit, uint32_t n)
{
	fdio_mutex_lock(&vol->alloc.lock);
	vol->alloc.pending_free -= n;
	vol->alloc.nr_given_back += n;
	ext4_image_give(vol, group, bit, n);
	pthread_cond_broadcast(&vol->alloc.cond);
	fdio_mutex_unlock(&vol->alloc.lock);
	__atomic_sub_fetch(&vol->alloc.groups[group].pins, 1, __ATOMIC_RELEASE);
}

/* The transaction that freed the blocks is durable: now they may belong to someone else. */
static void gop_committed(struct journal_callback *callback, int err)
{
	struct gop *op = container_of(callback, struct gop, commit);

	if (err)
		unpin(op);
	else if (!ext4_discard_later(op->vol, op->group, op->bit, op->n))
		ext4_group_give_freed(op->vol, op->group, op->bit, op->n);
}

static void gop_undo(struct journal_callback *callback, int ended)
{
	struct gop *op = container_of(callback, struct gop, undo);
	struct ext4_vol *vol = op->vol;

	if (ended) {
		if (op->kind != EXT4_GROUP_OP_FREE) /* which has its own end */
			unpin(op);
		return;
	}
	fdio_mutex_lock(&vol->alloc.lock);
	ext4_group_set_desc(vol, op->group, &op->before);
	if (op->kind == EXT4_GROUP_OP_ALLOC)
		ext4_image_give(vol, op->group, op->bit, op->n);
	else if (op->kind == EXT4_GROUP_OP_FREE)
		vol->alloc.pending_free -= op->n;
	fdio_mutex_unlock(&vol->alloc.lock);
	unpin(op);
}

/* Keeps the image of the group that op is going to change; what is freed goes there later. */
static int pin(struct gop *op, journal_tid tid)
{
	struct ext4_vol *vol = op->vol;
	int err = 0;

	fdio_mutex_lock(&vol->alloc.lock);
	if (op->kind == EXT4_GROUP_OP_FREE) {
		err = ext4_group_load(vol, op->group);
		if (!err) {
			vol->alloc.pending_free += op->n;
			vol->alloc.last_free_tid = tid;
		}
	}
	if (!err)
		__atomic_add_fetch(&vol->alloc.groups[op->group].pins, 1, __ATOMIC_RELAXED);
	fdio_mutex_unlock(&vol->alloc.lock);
	return err;
}

int ext4_group_op_begin(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group,
			enum ext4_group_op_kind kind, uint32_t bit, uint32_t n)
{
	/*
	 * What is freed is given back once that is durable. Write-out frees too: nodes of a tree
	 * that has become smaller.
	 */
	struct gop *op = kind == EXT4_GROUP_OP_FREE ? journal_transaction_alloc(handle, sizeof(*op))
						    : journal_handle_alloc(handle, sizeof(*op));
	int err;

	if (!op)
		return -ENOMEM;
	*op = (struct gop){ .vol = vol,
			    .before = vol->alloc.groups[group].desc,
			    .kind = kind,
			    .group = group,
			    .bit = bit,
			    .n = n };
	op->undo.fn = gop_undo;
	op->commit.fn = gop_committed;
	err = kind == EXT4_GROUP_OP_DESC ? 0 : pin(op, journal_handle_tid(handle));
	if (err)
		return err;
	journal_on_undo(handle, &op->undo);
	if (kind == EXT4_GROUP_OP_FREE)
		journal_on_commit(handle, &op->commit);
	return 0;
}

void ext4_group_set_desc(struct ext4_vol *vol, uint32_t group, const struct ext4_descriptor *desc)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_region *region = ext4_region_of(vol, group);

	ext4_free_inodes_set(vol,
			     ext4_free_inodes(vol) + desc->free_inodes - grp->desc.free_inodes);
	vol->alloc.nr_dirs = vol->alloc.nr_dirs + desc->used_dirs - grp->desc.used_dirs;
	region->free_inodes = region->free_inodes + desc->free_inodes - grp->desc.free_inodes;
	region->free_blocks = region->free_blocks + desc->free_blocks - grp->desc.free_blocks;
	region->used_dirs = region->used_dirs + desc->used_dirs - grp->desc.used_dirs;
	grp->desc = *desc;
	if (!grp->dirty) {
		grp->dirty = true;
		list_add_tail(&vol->alloc.dirty_groups, &grp->dirty_node);
	}
}

/* ------------------------------------------------------------------ disk image */
int ext4_group_init_disk(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_descriptor desc = grp->desc;
	struct journal_buffer *buffer;
	int err;

	if (!(desc.flags & EXT2_BG_BLOCK_UNINIT))
		return 0;
	err = journal_new_block(handle, grp->block_bitmap, &buffer);
	if (err)
		return err;
	/* Not a copy of the image, which may hold reservations. */
	ext4_group_synthesize_blocks(vol, group, buffer->data);
	journal_buffer_release(buffer);
	desc.flags &= (uint16_t)~EXT2_BG_BLOCK_UNINIT;
	fdio_mutex_lock(&vol->alloc.lock);
	ext4_group_set_desc(vol, group, &desc);
	grp->bb_dirty = true;
	fdio_mutex_unlock(&vol->alloc.lock);
	return 0;
}

int ext4_group_disk_bits(struct journal_handle *handle, struct ext4_vol *vol, uint32_t group,
			 uint32_t bit, uint32_t n, bool set)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_descriptor desc;
	struct journal_buffer *buffer;
	int err = ext4_group_init_disk(handle, vol, group);

	if (err)
		return err;
	err = EXT4_READ_BLOCK(vol, 0, grp->block_bitmap, &buffer);
	if (err)
		return err;
	err = journal_get_write(handle, buffer);
	if (err)
		goto out;
	if (!ext4_bits_all(buffer->data, bit, n, !set)) {
		err = EXT4_CORRUPT(vol, 0, ext4_group_start(vol, group) + bit,
				   "%u blocks are %s already", n, set ? "in use" : "free");
		goto out;
	}
	ext4_bits_fill(buffer->data, bit, n, set);
	fdio_mutex_lock(&vol->alloc.lock);
	desc = grp->desc;
	desc.free_blocks = set ? desc.free_blocks - n : desc.free_blocks + n;
	ext4_group_set_desc(vol, group, &desc);
	grp->bb_dirty = true;
	fdio_mutex_unlock(&vol->alloc.lock);
out:
	journal_buffer_release(buffer);
	return err;
}

/* ------------------------------------------------------------------ seal */
static int seal_bitmap(struct ext4_vol *vol, uint64_t blk, uint32_t bytes, uint16_t *lo,
		       uint16_t *hi)
{
	struct journal_buffer *buffer;
	uint32_t sum;
	int err = EXT4_READ_BLOCK(vol, 0, blk, &buffer);

	if (err)
		return err;
	sum = fdio_crc32c(vol->checksum_seed, buffer->data, bytes);
	journal_buffer_release(buffer);
	*lo = (uint16_t)sum;
	if (vol->desc_size >= 64)
		*hi = (uint16_t)(sum >> 16);
	return 0;
}

/* The descriptor as libext2fs keeps it in memory is the image of the one on disk. */
static int seal_desc(struct ext4_vol *vol, struct journal_handle *handle, uint32_t group)
{
	uint32_t per_block = vol->block_size / vol->desc_size;
	uint64_t blk = ext2fs_descriptor_block_loc2(vol->fs, vol->first_data_block,
						    group / per_block);
	size_t at = (size_t)(group % per_block) * vol->desc_size;
	struct journal_buffer *buffer;
	int err = EXT4_READ_BLOCK(vol, 0, blk, &buffer);

	if (err)
		return err;
	if (memcmp(buffer->data + at, raw_desc(vol, group), vol->desc_size)) {
		err = journal_get_write(handle, buffer);
		if (!err)
			memcpy(buffer->data + at, raw_desc(vol, group), vol->desc_size);
	}
	journal_buffer_release(buffer);
	return err;
}

static int seal_group(struct ext4_vol *vol, struct journal_handle *handle, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_group_desc *rd = raw_desc(vol, group);
	int err = 0;

	ext2fs_bg_free_blocks_count_set(vol->fs, group, grp->desc.free_blocks);
	ext2fs_bg_free_inodes_count_set(vol->fs, group, grp->desc.free_inodes);
	ext2fs_bg_used_dirs_count_set(vol->fs, group, grp->desc.used_dirs);
	ext2fs_bg_itable_unused_set(vol->fs, group, grp->desc.itable_unused);
	rd->bg_flags = grp->desc.flags;
	if (vol->has_csum && grp->bb_dirty && !(grp->desc.flags & EXT2_BG_BLOCK_UNINIT))
		err = seal_bitmap(vol, grp->block_bitmap, vol->blocks_per_group / 8,
				  &rd->bg_block_bitmap_csum_lo, &rd->bg_block_bitmap_csum_hi);
	if (!err && vol->has_csum && grp->ib_dirty && !(grp->desc.flags & EXT2_BG_INODE_UNINIT))
		err = seal_bitmap(vol, grp->inode_bitmap, vol->inodes_per_group / 8,
				  &rd->bg_inode_bitmap_csum_lo, &rd->bg_inode_bitmap_csum_hi);
	if (err)
		return err;
	/* Who loads the bitmap looks at the checksum once it is not dirty any more. */
	fdio_mutex_lock(&vol->alloc.lock);
	grp->bb_dirty = grp->ib_dirty = false;
	fdio_mutex_unlock(&vol->alloc.lock);
	ext2fs_group_desc_csum_set(vol->fs, group);
	return seal_desc(vol, handle, group);
}

void ext4_groups_seal(void *vol, struct journal_handle *handle)
{
	struct ext4_vol *v = vol;

	while (!list_empty(&v->alloc.dirty_groups)) {
		struct ext4_group *grp =
				list_first(&v->alloc.dirty_groups, struct ext4_group, dirty_node);
		int err = seal_group(v, handle, (uint32_t)(grp - v->alloc.groups));

		if (err) {
			/* The transaction would be inconsistent: it must not become durable. */
			log_err("%s: cannot write group descriptors: %s", v->dev->name,
				strerror(-err));
			journal_abort(v->journal, err);
			return;
		}
		list_del(&grp->dirty_node);
		grp->dirty = false;
	}
}

/* ------------------------------------------------------------------ life */
static bool loc_ok(struct ext4_vol *vol, uint64_t blk, uint64_t n)
{
	return blk >= vol->first_data_block && blk < vol->nr_blocks && n <= vol->nr_blocks - blk;
}

/* What is wrong with the descriptor of group; NULL: nothing. */
static const char *desc_fault(struct ext4_vol *vol, uint32_t group)
{
	const struct ext4_group *grp = &vol->alloc.groups[group];

	if (!ext2fs_group_desc_csum_verify(vol->fs, group))
		return "wrong checksum of the descriptor";
	if (!loc_ok(vol, grp->block_bitmap, 1) || !loc_ok(vol, grp->inode_bitmap, 1) ||
	    !loc_ok(vol, grp->itable, vol->itable_blocks))
		return "a bitmap or the inode table lies outside the file system";
	if (grp->desc.free_blocks > grp->nbits || grp->desc.free_inodes > vol->inodes_per_group ||
	    grp->desc.itable_unused > vol->inodes_per_group)
		return "impossible free counts";
	return NULL;
}

/* Such a volume is only read: of the descriptor the places are believed as far as they can be,
 * and the inodes have checksums of their own. */
static void distrust(struct ext4_vol *vol, uint32_t group, const char *why)
{
	struct ext4_group *grp = &vol->alloc.groups[group];

	log_ratelimited(FDIO_LOG_INFO, "%s: group %u: %s", vol->dev->name, group, why);
	if (!vol->alloc.nr_bad_groups++)
		vol->alloc.first_bad_group = group;
	grp->block_bitmap = loc_ok(vol, grp->block_bitmap, 1) ? grp->block_bitmap : 0;
	grp->inode_bitmap = loc_ok(vol, grp->inode_bitmap, 1) ? grp->inode_bitmap : 0;
	grp->itable = loc_ok(vol, grp->itable, vol->itable_blocks) ? grp->itable : 0;
	grp->bad = grp->ib_bad = true;
	grp->desc = (struct ext4_descriptor){ 0 };
}

static void group_init(struct ext4_vol *vol, uint32_t group)
{
	struct ext4_group *grp = &vol->alloc.groups[group];
	struct ext4_region *region = ext4_region_of(vol, group);
	const char *why;

	list_init(&grp->dirty_node);
	list_init(&grp->image_node);
	grp->block_bitmap = ext2fs_block_bitmap_loc(vol->fs, group);
	grp->inode_bitmap = ext2fs_inode_bitmap_loc(vol->fs, group);
	grp->itable = ext2fs_inode_table_loc(vol->fs, group);
	grp->nbits = (uint32_t)FDIO_MIN((uint64_t)vol->blocks_per_group,
					vol->nr_blocks - ext4_group_start(vol, group));
	grp->desc.free_blocks = ext2fs_bg_free_blocks_count(vol->fs, group);
	grp->desc.free_inodes = ext2fs_bg_free_inodes_count(vol->fs, group);
	grp->desc.used_dirs = ext2fs_bg_used_dirs_count(vol->fs, group);
	grp->desc.flags = ext2fs_bg_flags(vol->fs, group);
	if (ext2fs_has_group_desc_csum(vol->fs))
		grp->desc.itable_unused = ext2fs_bg_itable_unused(vol->fs, group);
	else
		grp->desc.flags &= (uint16_t)~(EXT2_BG_BLOCK_UNINIT | EXT2_BG_INODE_UNINIT);
	why = desc_fault(vol, group);
	if (why)
		distrust(vol, group, why);
	grp->free_alloc = grp->desc.free_blocks;
	grp->max_run = UINT32_MAX;
	vol->alloc.free_blocks += grp->desc.free_blocks;
	ext4_free_inodes_set(vol, ext4_free_inodes(vol) + grp->desc.free_inodes);
	vol->alloc.nr_dirs += grp->desc.used_dirs;
	region->free_blocks += grp->desc.free_blocks;
	region->free_inodes += grp->desc.free_inodes;
	region->used_dirs += grp->desc.used_dirs;
	region->longest = UINT32_MAX;
}

int ext4_groups_init(struct ext4_vol *vol)
{
	vol->alloc.free_blocks = vol->alloc.meta_held = vol->alloc.pending_free = 0;
	ext4_free_inodes_set(vol, 0);
	vol->alloc.nr_dirs = vol->alloc.nr_bad_groups = vol->alloc.nr_images = 0;
	vol->alloc.max_images = (uint32_t)FDIO_MAX(vol->options.cache_bytes / 2 / vol->block_size,
						   (size_t)64);
	list_init(&vol->alloc.images);
	vol->alloc.groups = calloc(vol->nr_groups, sizeof(*vol->alloc.groups));
	vol->alloc.nr_regions = (vol->nr_groups - 1) / EXT4_REGION_GROUPS + 1;
	vol->alloc.regions = calloc(vol->alloc.nr_regions, sizeof(*vol->alloc.regions));
	if (!vol->alloc.groups || !vol->alloc.regions)
		return -ENOMEM;
	for (uint32_t group = 0; group < vol->nr_groups; group++)
		group_init(vol, group);
	/* Where the counts are of clusters (such a file system is only read), for statfs. */
	vol->alloc.free_blocks *= EXT2FS_CLUSTER_RATIO(vol->fs);
	return 0;
}

uint64_t ext4_groups_free_on_disk(struct ext4_vol *vol)
{
	uint64_t sum = 0;

	for (uint32_t group = 0; group < vol->nr_groups; group++)
		sum += vol->alloc.groups[group].desc.free_blocks;
	return sum;
}

void ext4_groups_fini(struct ext4_vol *vol)
{
	free(vol->alloc.zones);
	vol->alloc.zones = NULL;
	vol->alloc.nr_zones = 0;
	free(vol->alloc.regions);
	vol->alloc.regions = NULL;
	if (!vol->alloc.groups)
		return;
	for (uint32_t group = 0; group < vol->nr_groups; group++)
		free(vol->alloc.groups[group].alloc);
	free(vol->alloc.groups);
	vol->alloc.groups = NULL;
	list_init(&vol->alloc.dirty_groups);
}

void ext4_alloc_init(struct ext4_vol *vol)
{
	fdio_mutex_init(&vol->alloc.lock, RANK_EXT4_ALLOC);
	fdio_cond_init(&vol->alloc.cond);
	list_init(&vol->alloc.dirty_groups);
}

void ext4_alloc_fini(struct ext4_vol *vol)
{
	fdio_mutex_fini(&vol->alloc.lock);
	pthread_cond_destroy(&vol->alloc.cond);
}

uint32_t ext4_bad_groups(const struct ext4_vol *vol, uint32_t *ret_first)
{
	if (ret_first)
		*ret_first = vol->alloc.first_bad_group;
	return vol->alloc.nr_bad_groups;
}
