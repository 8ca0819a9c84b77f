/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What every room asks of a volume: whether it can be written, its device, its journal, the time. Any
 * thread, never blocks.
 */
#include "ext4/core/core.h"
#include "ext4/core/structs.h"

bool x4_vol_read_only(const struct x4_vol *vol) { return __atomic_load_n(&vol->read_only, __ATOMIC_ACQUIRE); }

bool x4_vol_is_shut_down(const struct x4_vol *vol) { return __atomic_load_n(&vol->shut_down, __ATOMIC_ACQUIRE); }

struct dev *x4_vol_dev(struct x4_vol *vol) { return vol->dev; }

struct journal *x4_vol_jnl(struct x4_vol *vol) { return vol->journal; }

unsigned x4_vol_block_bits(const struct x4_vol *vol) { return vol->block_bits; }

bool x4_vol_has_inline(const struct x4_vol *vol)
{
	return ext2fs_has_feature_inline_data(vol->fs->super);
}

struct timespec x4_now(struct x4_vol *vol)
{
	struct timespec ts;

	dev_now(vol->dev, &ts);
	return ts;
}

uint32_t x4_free_inodes(const struct x4_vol *vol)
{
	return __atomic_load_n(&vol->core.free_inodes, __ATOMIC_RELAXED);
}

void x4_free_inodes_set(struct x4_vol *vol, uint32_t n)
{
	__atomic_store_n(&vol->core.free_inodes, n, __ATOMIC_RELAXED);
}
