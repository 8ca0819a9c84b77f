/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The state of a volume that every room reads: whether it is writable, its device, its journal, the
 * time, how many inodes are free. Any thread, no lock, never blocks, cannot fail.
 */
#include "ext4/core/core.h"
#include "ext4/core/structs.h"

bool ext4_vol_read_only(const struct ext4_vol *vol)
{
	return __atomic_load_n(&vol->read_only, __ATOMIC_ACQUIRE);
}

bool ext4_vol_is_shut_down(const struct ext4_vol *vol)
{
	return __atomic_load_n(&vol->shut_down, __ATOMIC_ACQUIRE);
}

struct dev *ext4_vol_dev(struct ext4_vol *vol) { return vol->dev; }

struct journal *ext4_vol_journal(struct ext4_vol *vol) { return vol->journal; }

unsigned ext4_vol_block_bits(const struct ext4_vol *vol) { return vol->block_bits; }

bool ext4_vol_has_inline(const struct ext4_vol *vol)
{
	return ext2fs_has_feature_inline_data(vol->fs->super);
}

struct timespec ext4_now(struct ext4_vol *vol)
{
	struct timespec ts;

	dev_now(vol->dev, &ts);
	return ts;
}

uint32_t ext4_free_inodes(const struct ext4_vol *vol)
{
	return __atomic_load_n(&vol->core.free_inodes, __ATOMIC_RELAXED);
}

void ext4_free_inodes_set(struct ext4_vol *vol, uint32_t n)
{
	__atomic_store_n(&vol->core.free_inodes, n, __ATOMIC_RELAXED);
}
