/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to the volume room: calls among its files. */
#ifndef FDIO_EXT4_VOLUME_PARTS_H
#define FDIO_EXT4_VOLUME_PARTS_H

#include "base/nowait.h"
#include "base/reason.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"
#include "ext4/volume/volume.h"

/* volume/features.c */
enum ext4_verdict { EXT4_SERVE_RW, EXT4_SERVE_RO, EXT4_REFUSE };
/*
 * What the features of sb (disk order) allow. *ret_why: static string for RO, else NULL; reason for
 * a refusal.
 */
enum ext4_verdict ext4_features_check(const struct ext2_super_block *sb, const char *devname,
				      const char **ret_why, struct fdio_reason *reason);
/*
 * Takes the file system for this host, which can take seconds; afterwards a thread renews the mark.
 * No-op without the feature, or if it runs already. 0 or -errno (-EBUSY: another host has it) with
 * one line in reason. Main thread, before anything is written.
 */
int ext4_mmp_start(struct ext4_vol *vol, struct fdio_reason *reason) FDIO_BLOCKS;
/* Gives it back, when everything is on the device. No-op if not started. */
void ext4_mmp_stop(struct ext4_vol *vol) FDIO_BLOCKS;
/* Another host has it: stops writing at once. */
void ext4_mmp_lost(struct ext4_vol *vol) FDIO_BLOCKS;
/* volume/ticker.c: once everything is open. 0 or -errno. */
int ext4_ticker_start(struct ext4_vol *vol) FDIO_BLOCKS;
void ext4_ticker_end(struct ext4_vol *vol) FDIO_BLOCKS; /* nothing to do if it does not run */
static inline uint64_t ext4_super_reserved_blocks(const struct ext2_super_block *sb)
{
	return sb->s_r_blocks_count | ((sb->s_feature_incompat & EXT4_FEATURE_INCOMPAT_64BIT) ?
				       (uint64_t)sb->s_r_blocks_count_hi << 32 : 0);
}

#endif
