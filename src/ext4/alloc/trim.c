/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * FITRIM: discards free runs on the device. Runs on workers, outside handles. A run is marked in
 * use in the allocation image during its discard, so that none of its blocks is allocated
 * meanwhile; blocks whose free is not durable yet are marked in use there anyway. alloc.lock guards
 * the image and is dropped for each discard. Stops at the first error.
 */
#include "ext4/alloc/groups.h"

#include <errno.h>

/*
 * alloc.lock held, the group loaded. Takes the next run of at least min blocks in [*from, end) and
 * moves *from behind it. False: there is none.
 */
static bool take_next(struct ext4_vol *vol, uint32_t group, uint32_t *from, uint32_t end,
		      uint32_t min, uint32_t *ret_bit, uint32_t *ret_n)
{
	struct ext4_group *grp = &vol->alloc.groups[group];

	while (*from < end) {
		uint32_t bit = ext4_bits_next(grp->image, end, *from, false), n;

		if (bit >= end)
			return false;
		*from = ext4_bits_next(grp->image, end, bit, true);
		n = *from - bit;
		if (n < min)
			continue;
		ext4_image_take(vol, group, bit, n);
		*ret_bit = bit;
		*ret_n = n;
		return true;
	}
	return false;
}

/* Discards the free runs of at least min blocks in [from, end) of group. */
static int trim_group(struct ext4_vol *vol, uint32_t group, uint32_t from, uint32_t end,
		      uint32_t min, uint64_t *trimmed)
{
	uint32_t bit, n;
	int err;

	fdio_mutex_lock(&vol->alloc.lock);
	if (vol->alloc.groups[group].free_in_image < min) {
		fdio_mutex_unlock(&vol->alloc.lock);
		return 0;
	}
	err = ext4_group_load(vol, group);
	if (err) {
		/* A group with a damaged bitmap is skipped. */
		fdio_mutex_unlock(&vol->alloc.lock);
		return err == -EUCLEAN ? 0 : err;
	}
	while (!err && take_next(vol, group, &from, end, min, &bit, &n)) {
		fdio_mutex_unlock(&vol->alloc.lock);
		err = dev_discard(vol->dev, (ext4_group_start(vol, group) + bit) << vol->block_bits,
				  (uint64_t)n << vol->block_bits);
		fdio_mutex_lock(&vol->alloc.lock);
		ext4_image_give(vol, group, bit, n);
		pthread_cond_broadcast(&vol->alloc.cond);
		if (!err)
			*trimmed += (uint64_t)n << vol->block_bits;
	}
	fdio_mutex_unlock(&vol->alloc.lock);
	return err;
}

int ext4_vol_trim(struct ext4_vol *vol, uint64_t off, uint64_t len, uint64_t minlen,
		  uint64_t *ret_trimmed)
{
	uint64_t min = FDIO_MAX(fdio_blocks(minlen, vol->block_bits), (uint64_t)1);
	uint64_t first = off >> vol->block_bits, last;
	int err = 0;

	*ret_trimmed = 0;
	if (!vol->dev->caps.discard)
		return -EOPNOTSUPP;
	if (ext4_vol_read_only(vol))
		return -EROFS;
	if (first >= vol->nr_blocks || len < vol->block_size ||
	    minlen > (uint64_t)vol->blocks_per_group << vol->block_bits)
		return -EINVAL;
	last = len >> vol->block_bits > vol->nr_blocks - first ? vol->nr_blocks
							       : first + (len >> vol->block_bits);
	first = FDIO_MAX(first, (uint64_t)vol->first_data_block);
	/* Makes recent frees durable, so that their blocks are discarded, too. */
	err = journal_sync(vol->journal);
	while (first < last && !err) {
		uint32_t group = ext4_group_of(vol, first), from = ext4_group_bit(vol, first);
		uint32_t end = (uint32_t)FDIO_MIN((uint64_t)vol->alloc.groups[group].nr_blocks,
						  last - ext4_group_start(vol, group));

		err = trim_group(vol, group, from, end, (uint32_t)min, ret_trimmed);
		first = ext4_group_start(vol, group) + vol->alloc.groups[group].nr_blocks;
	}
	return err;
}
