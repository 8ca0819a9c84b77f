/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The superblock: read and changed straight on the device while no journal runs (mount, unmount), through
 * a handle otherwise; the zones of blocks that no file may own; statfs numbers. Callers: volume/volume.c,
 * life/orphans.c, core/errors.c; x4_blk_valid is called by every reader of block numbers, on any thread (the
 * zones never change after the mount).
 *
 * The free counts in the superblock are brought up to date whenever it is written anyway, and at
 * unmount; in between the group descriptors are the truth, as for the kernel.
 */
#include "ext4/volume/volume.h"
#include "ext4/alloc/groups.h"

#include "base/crc32c.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct ext2_super_block) == 1024, "the superblock has 1024 bytes");
_Static_assert(X4_LABEL_MAX == EXT2_LABEL_LEN, "the label has its field's length");

struct x4_zone { uint64_t start, end; };

bool x4_super_csum_ok(const struct ext2_super_block *sb)
{
	if (!(sb->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_METADATA_CSUM))
		return true;
	return fdio_crc32c(~0U, sb, offsetof(struct ext2_super_block, s_checksum)) == sb->s_checksum;
}

void x4_super_csum_set(struct ext2_super_block *sb)
{
	if (sb->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_METADATA_CSUM)
		sb->s_checksum = fdio_crc32c(~0U, sb, offsetof(struct ext2_super_block, s_checksum));
}

int x4_super_read(struct dev *dev, struct ext2_super_block *ret, char *errbuf, size_t errlen)
{
	int err;

	if (dev->caps.size_bytes < 2 * SUPERBLOCK_OFFSET) {
		snprintf(errbuf, errlen, "%s: too small to hold a file system", dev->name);
		return -EINVAL;
	}
	err = dev_read(dev, ret, SUPERBLOCK_SIZE, SUPERBLOCK_OFFSET);
	if (err) {
		snprintf(errbuf, errlen, "%s: cannot read the superblock: %s", dev->name, strerror(-err));
		return err;
	}
	if (ret->s_magic != EXT2_SUPER_MAGIC) {
		snprintf(errbuf, errlen, "%s: no ext4 file system found: is it the right device (a partition, not the disk)?", dev->name);
		return -EINVAL;
	}
	if (!x4_super_csum_ok(ret)) {
		snprintf(errbuf, errlen, "%s: the superblock's checksum is wrong: run e2fsck %s", dev->name, dev->name);
		return -EUCLEAN;
	}
	return 0;
}

/*
 * The device writes whole sectors, so the neighbours of the superblock are read and written with it. torn: the content that is
 * expected there, whose checksum alone is wrong; NULL: it must be right.
 */
int x4_super_write_raw(struct dev *dev, const struct ext2_super_block *torn, void (*change)(struct ext2_super_block *sb, void *arg),
		       void *arg)
{
	uint64_t lbs = FDIO_MAX(dev->caps.lbs, 512U);
	uint64_t start = fdio_round_down(SUPERBLOCK_OFFSET, lbs);
	uint64_t len = fdio_round_up(SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE, lbs) - start;
	struct ext2_super_block *sb;
	uint8_t *buf = fdio_alloc_aligned(4096, fdio_round_up(len, 4096));
	int err;

	if (!buf)
		return -ENOMEM;
	err = dev_read(dev, buf, len, start);
	if (err)
		goto out;
	sb = (struct ext2_super_block *)(void *)(buf + (SUPERBLOCK_OFFSET - start));
	if (torn)
		err = memcmp(sb, torn, sizeof(*sb)) ? -EUCLEAN : 0;
	else
		err = sb->s_magic == EXT2_SUPER_MAGIC && x4_super_csum_ok(sb) ? 0 : -EUCLEAN;
	if (err)
		goto out;
	change(sb, arg);
	x4_super_csum_set(sb);
	err = dev_write(dev, buf, len, start, 0);
	if (!err)
		err = dev_flush(dev);
out:
	free(buf);
	return err;
}

int x4_super_update_raw(struct dev *dev, void (*change)(struct ext2_super_block *sb, void *arg), void *arg)
{
	return x4_super_write_raw(dev, NULL, change, arg);
}

int x4_super_begin(struct x4_vol *v, struct jnl_handle *h, struct ext2_super_block **ret)
{
	struct jnl_buf *b;
	int err = jnl_bread(v->jnl, v->sb_blk, &b);

	if (err)
		return err;
	err = jnl_get_write(h, b);
	if (!err)
		*ret = (struct ext2_super_block *)(void *)(b->data + v->sb_off);
	jnl_brelse(b); /* the handle keeps it */
	return err;
}

void x4_super_end(struct x4_vol *v, struct jnl_handle *h)
{
	struct ext2_super_block *sb;
	struct jnl_buf *b;

	/* It is in the transaction, so it is in memory. */
	if (jnl_bread_cached(v->jnl, v->sb_blk, &b)) {
		/* It is in the running transaction, hence in memory. */
		jnl_abort(v->jnl, -EIO);
		return;
	}
	sb = (struct ext2_super_block *)(void *)(b->data + v->sb_off);
	fdio_mutex_lock(&v->alloc_lock);
	sb->s_free_inodes_count = v->free_inodes;
	fdio_mutex_unlock(&v->alloc_lock);
	sb->s_wtime = (uint32_t)x4_now(v).tv_sec;
	x4_super_csum_set(sb);
	jnl_brelse(b);
}

/* ------------------------------------------------------------------ label */
void x4_vol_label(struct x4_vol *v, char ret[X4_LABEL_MAX])
{
	fdio_mutex_lock(&v->alloc_lock);
	memcpy(ret, v->label, X4_LABEL_MAX);
	fdio_mutex_unlock(&v->alloc_lock);
}

/* Only in the first superblock, as the times and counts are. */
int x4_vol_set_label(struct x4_vol *v, const char label[X4_LABEL_MAX])
{
	struct ext2_super_block *sb;
	struct jnl_handle *h;
	int err = x4_vol_read_only(v) ? -EROFS : jnl_begin(v->jnl, 1, &h);

	if (err)
		return err;
	err = x4_super_begin(v, h, &sb);
	if (err) {
		jnl_cancel(h);
		return err;
	}
	fdio_mutex_lock(&v->alloc_lock);
	memset(v->label, 0, sizeof(v->label));
	memcpy(v->label, label, strnlen(label, sizeof(v->label)));
	memcpy(sb->s_volume_name, v->label, sizeof(sb->s_volume_name));
	fdio_mutex_unlock(&v->alloc_lock);
	x4_super_end(v, h);
	return jnl_commit_wait(v->jnl, jnl_end(h), NULL);
}

/* ------------------------------------------------------------------ zones */
static int zone_cmp(const void *a, const void *b)
{
	const struct x4_zone *x = a, *y = b;

	return x->start < y->start ? -1 : x->start > y->start;
}

unsigned x4_group_base_ranges(struct x4_vol *v, uint32_t g, struct jnl_extent ret[3])
{
	blk64_t super = 0, old_desc = 0, new_desc = 0;
	uint32_t old_blocks = v->fs->desc_blocks;
	unsigned nr = 0;

	if (ext2fs_has_feature_meta_bg(v->fs->super))
		old_blocks = FDIO_MIN(v->fs->super->s_first_meta_bg, v->fs->desc_blocks);
	old_blocks += v->fs->super->s_reserved_gdt_blocks;
	ext2fs_super_and_bgd_loc2(v->fs, g, &super, &old_desc, &new_desc, NULL);
	if (super || g == 0)
		ret[nr++] = (struct jnl_extent){ super, 1 };
	if (old_desc && old_blocks)
		ret[nr++] = (struct jnl_extent){ old_desc, old_blocks };
	if (new_desc)
		ret[nr++] = (struct jnl_extent){ new_desc, 1 };
	return nr;
}

static void zones_merge(struct x4_vol *v)
{
	unsigned out = 0;

	qsort(v->zones, v->nr_zones, sizeof(*v->zones), zone_cmp);
	for (unsigned n = 1; n < v->nr_zones; n++)
		if (v->zones[n].start <= v->zones[out].end)
			v->zones[out].end = FDIO_MAX(v->zones[out].end, v->zones[n].end);
		else
			v->zones[++out] = v->zones[n];
	v->nr_zones = out + 1;
}

/*
 * The places of one kind of metadata follow each other in the order of groups, and with flex_bg
 * lie side by side: so each kind is a list of its own while it is collected, and few places are
 * left to be sorted.
 */
enum zone_kind { ZONE_SUPER, ZONE_DESC, ZONE_NEW_DESC, ZONE_BB, ZONE_IB, ZONE_ITABLE, ZONE_KINDS };

struct zone_build {
	struct x4_zone *zone;
	unsigned nr, cap;
	struct x4_zone last[ZONE_KINDS]; /* not in zone yet; start == end: none */
};

static int zone_put(struct zone_build *b, struct x4_zone z)
{
	if (z.start == z.end)
		return 0;
	if (b->nr == b->cap) {
		unsigned cap = b->cap ? b->cap * 2 : 256;
		struct x4_zone *bigger = realloc(b->zone, cap * sizeof(*bigger));

		if (!bigger)
			return -ENOMEM;
		b->zone = bigger;
		b->cap = cap;
	}
	b->zone[b->nr++] = z;
	return 0;
}

static int zone_add(struct zone_build *b, enum zone_kind kind, uint64_t start, uint64_t n)
{
	struct x4_zone *last = &b->last[kind], full = *last;

	if (start == last->end) {
		last->end += n;
		return 0;
	}
	*last = (struct x4_zone){ start, start + n };
	return zone_put(b, full);
}

static int zones_of_group(struct x4_vol *v, struct zone_build *b, uint32_t g)
{
	const struct x4_group *grp = &v->groups[g];
	struct jnl_extent base[3];
	unsigned nr = x4_group_base_ranges(v, g, base);
	int err = 0;

	for (unsigned n = 0; n < nr && !err; n++)
		err = zone_add(b, ZONE_SUPER + n, base[n].pblk, base[n].len);
	for (unsigned n = 0; n < nr; n++)
		v->static_blocks += base[n].len;
	v->static_blocks += 2 + v->itable_blocks;
	/* 0, where a damaged descriptor says nothing, is no place of a file either. */
	if (!err)
		err = zone_add(b, ZONE_BB, grp->bb, 1);
	if (!err)
		err = zone_add(b, ZONE_IB, grp->ib, 1);
	if (!err)
		err = zone_add(b, ZONE_ITABLE, grp->itable, grp->itable ? v->itable_blocks : 1);
	return err;
}

/* The list becomes the volume's, whatever the result. */
static int zones_take(struct x4_vol *v, struct zone_build *b, int err)
{
	v->zones = b->zone;
	v->nr_zones = b->nr;
	if (!err && b->nr)
		zones_merge(v);
	return err;
}

int x4_zones_init(struct x4_vol *v)
{
	struct zone_build b = { 0 };
	int err = 0;

	free(v->zones);
	v->static_blocks = v->first_data_block;
	for (uint32_t g = 0; g < v->nr_groups && !err; g++)
		err = zones_of_group(v, &b, g);
	for (unsigned k = 0; k < ZONE_KINDS && !err; k++)
		err = zone_put(&b, b.last[k]);
	return zones_take(v, &b, err);
}

int x4_zones_add_log(struct x4_vol *v, const struct jnl_extent *log, unsigned nr_log)
{
	struct zone_build b = { .zone = v->zones, .nr = v->nr_zones, .cap = v->nr_zones };
	int err = 0;

	for (unsigned n = 0; n < nr_log && !err; n++)
		err = zone_put(&b, (struct x4_zone){ log[n].pblk, log[n].pblk + log[n].len });
	return zones_take(v, &b, err);
}

/* The first zone that ends behind blk; nr_zones: none. */
static unsigned zone_find(const struct x4_vol *v, uint64_t blk)
{
	unsigned lo = 0, hi = v->nr_zones;

	while (lo < hi) {
		unsigned mid = lo + (hi - lo) / 2;

		if (v->zones[mid].end > blk)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo;
}

bool x4_blk_valid(struct x4_vol *v, uint64_t blk, uint64_t n)
{
	unsigned k;

	if (blk < v->first_data_block || blk >= v->nr_blocks || n == 0 || n > v->nr_blocks - blk)
		return false;
	/* It must begin at or after the end of the range. */
	k = zone_find(v, blk);
	return k == v->nr_zones || v->zones[k].start >= blk + n;
}

bool x4_zones_marked(struct x4_vol *v, uint64_t start, uint32_t nbits, const uint8_t *map)
{
	for (unsigned n = zone_find(v, start);
	     n < v->nr_zones && v->zones[n].start < start + nbits; n++) {
		uint64_t lo = FDIO_MAX(v->zones[n].start, start), hi = FDIO_MIN(v->zones[n].end, start + nbits);

		if (lo < hi && !x4_bits_all(map, (uint32_t)(lo - start), (uint32_t)(hi - lo), true))
			return false;
	}
	return true;
}

/* ------------------------------------------------------------------ statfs */
/* The log's size without looking for its blocks, which norecovery does not. */
static uint64_t log_blocks(struct x4_vol *v)
{
	struct ext2_super_block *sb = v->fs->super;
	struct ext2_inode i;

	if (!ext2fs_has_feature_journal(sb) || !sb->s_journal_inum || ext2fs_read_inode(v->fs, sb->s_journal_inum, &i))
		return 0;
	return EXT2_I_SIZE(&i) >> v->block_bits;
}

/*
 * As the kernel: what mke2fs has noted is believed only where blocks go by clusters, of which several structures may share one.
 * tune2fs -I leaves the old number behind.
 */
uint64_t x4_overhead(struct x4_vol *v)
{
	uint64_t noted = (uint64_t)v->fs->super->s_overhead_clusters << v->fs->cluster_ratio_bits;

	if (v->fs->cluster_ratio_bits && noted && noted <= v->nr_blocks)
		return noted;
	return FDIO_MIN(v->static_blocks + log_blocks(v), v->nr_blocks);
}

void x4_vol_statfs(struct x4_vol *v, struct x4_statfs *ret)
{
	uint64_t keep;

	fdio_mutex_lock(&v->alloc_lock);
	ret->bfree = v->free_blocks + v->pending_free;
	ret->ffree = v->free_inodes;
	keep = v->root_blocks + v->resv_blocks;
	fdio_mutex_unlock(&v->alloc_lock);
	ret->blocks = v->nr_blocks - v->overhead;
	ret->bavail = ret->bfree > keep ? ret->bfree - keep : 0;
	ret->files = v->nr_inodes;
	ret->bsize = v->block_size;
	ret->namelen = X4_NAME_MAX;
}
