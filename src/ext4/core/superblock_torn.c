/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A superblock that a power cut has torn. It is the one block that is written in place without a
 * log: two sectors of 512 bytes, the checksum at the end of the second. What changes while a file
 * system is in use lies in the first, so a torn superblock is one of two valid states with the
 * checksum of the other. Runs on the thread that opens the volume, before anything else is read
 * (volume/load.c).
 *
 * A backup superblock tells a torn one from damage: the backup must be valid, and equal in every
 * field that mounting, changing and unmounting leave alone. The other fields need no such proof:
 * counts come from the descriptors, the orphan list is verified link by link, and the feature that
 * says whether the log holds something changes only while the log is empty. If a backup confirms
 * it, the checksum is computed anew and written; a power cut meanwhile leaves the same first
 * sector, so the next mount tries again. Without a backup (a file system of one group) the repair
 * is left to e2fsck: -EUCLEAN.
 */
#include "ext4/core/core.h"
#include "ext4/core/structs.h"
#include "ext4/core/superblock.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Features that a mount sets and clears in the primary superblock alone. */
#define LIVE_COMPAT EXT2_FEATURE_COMPAT_EXT_ATTR
#define LIVE_INCOMPAT EXT3_FEATURE_INCOMPAT_RECOVER
#define LIVE_RO_COMPAT (EXT2_FEATURE_RO_COMPAT_LARGE_FILE | EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT)

static bool same_features(const struct ext2_super_block *a, const struct ext2_super_block *b)
{
	return !((a->s_feature_compat ^ b->s_feature_compat) & ~(uint32_t)LIVE_COMPAT) &&
	       !((a->s_feature_incompat ^ b->s_feature_incompat) & ~(uint32_t)LIVE_INCOMPAT) &&
	       !((a->s_feature_ro_compat ^ b->s_feature_ro_compat) & ~(uint32_t)LIVE_RO_COMPAT);
}

static bool same_file_system(const struct ext2_super_block *a, const struct ext2_super_block *b)
{
	return a->s_magic == b->s_magic && a->s_rev_level == b->s_rev_level &&
	       !memcmp(a->s_uuid, b->s_uuid, sizeof(a->s_uuid)) &&
	       a->s_blocks_count == b->s_blocks_count &&
	       a->s_blocks_count_hi == b->s_blocks_count_hi &&
	       a->s_inodes_count == b->s_inodes_count &&
	       a->s_first_data_block == b->s_first_data_block &&
	       a->s_log_block_size == b->s_log_block_size &&
	       a->s_log_cluster_size == b->s_log_cluster_size &&
	       a->s_blocks_per_group == b->s_blocks_per_group &&
	       a->s_clusters_per_group == b->s_clusters_per_group &&
	       a->s_inodes_per_group == b->s_inodes_per_group && a->s_first_ino == b->s_first_ino &&
	       a->s_inode_size == b->s_inode_size && a->s_desc_size == b->s_desc_size &&
	       a->s_journal_inum == b->s_journal_inum &&
	       a->s_reserved_gdt_blocks == b->s_reserved_gdt_blocks &&
	       a->s_first_meta_bg == b->s_first_meta_bg &&
	       a->s_log_groups_per_flex == b->s_log_groups_per_flex &&
	       a->s_checksum_type == b->s_checksum_type &&
	       a->s_checksum_seed == b->s_checksum_seed &&
	       a->s_def_hash_version == b->s_def_hash_version &&
	       !memcmp(a->s_hash_seed, b->s_hash_seed, sizeof(a->s_hash_seed)) &&
	       same_features(a, b);
}

/* Whether group holds a valid backup of sb, which is read into backup. */
static bool backup_fits(struct dev *dev, const struct ext2_super_block *sb, uint32_t group,
			struct ext2_super_block *backup)
{
	uint64_t blk = sb->s_first_data_block + (uint64_t)group * sb->s_blocks_per_group;
	uint64_t off = blk << (10 + sb->s_log_block_size);

	if (!group || off < 2 * SUPERBLOCK_OFFSET || off > dev->caps.size_bytes - SUPERBLOCK_SIZE ||
	    off % dev->caps.sector_bytes)
		return false;
	if (dev_read(dev, backup, SUPERBLOCK_SIZE, off))
		return false;
	return backup->s_block_group_nr == (uint16_t)group && ext4_super_checksum_ok(backup) &&
	       same_file_system(sb, backup);
}

/* An ext4_super_change that changes nothing: the caller then sets the checksum. */
static void keep(struct ext2_super_block *sb, void *arg)
{
	(void)sb;
	(void)arg;
}

int ext4_super_complete_torn(struct dev *dev, const struct ext2_super_block *sb)
{
	const uint32_t groups[] = { 1, sb->s_backup_bgs[0], 3, 5, 7, 9 };
	struct ext2_super_block *backup;
	int err = -EUCLEAN;

	/*
	 * Where one sector holds the whole superblock, it cannot be torn. With the feature mmp
	 * another host may be writing it at this very moment.
	 */
	if (dev->caps.sector_bytes >= SUPERBLOCK_SIZE * 2 ||
	    (sb->s_feature_incompat & EXT4_FEATURE_INCOMPAT_MMP) || dev->caps.read_only ||
	    sb->s_log_block_size > 6)
		return err;
	backup = fdio_alloc_aligned(4096, 4096);
	if (!backup)
		return -ENOMEM;
	for (unsigned n = 0; n < ARRAY_SIZE(groups) && err; n++) {
		if (!backup_fits(dev, sb, groups[n], backup))
			continue;
		log_warn("%s: the superblock was torn when the power went; its backup in group %u "
			 "confirms it", dev->name, groups[n]);
		err = ext4_super_write_raw(dev, sb, keep, NULL);
	}
	free(backup);
	return err;
}
