/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Loads the parts of the superblock and the group descriptors that a volume keeps in memory.
 * Refuses the volume with a reason if the device is too small or the numbers are impossible. A
 * replay of the journal changes the device, and the volume is loaded again: so volume_unload frees
 * everything, also what a failed load has left.
 *
 * Only the thread that opens or closes the volume; no locks.
 */
#include "ext4/volume/opening.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

int opening_refuse(struct opening *opening, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fdio_reason_vset(opening->reason, fmt, ap);
	va_end(ap);
	return err;
}

static void set_features(struct ext4_vol *vol)
{
	struct ext2_super_block *sb = vol->fs->super;

	vol->has_csum = ext2fs_has_feature_metadata_csum(sb);
	vol->has_gdt_csum = !vol->has_csum && ext2fs_has_feature_gdt_csum(sb);
	vol->has_64bit = ext2fs_has_feature_64bit(sb);
	vol->has_filetype = ext2fs_has_feature_filetype(sb);
	vol->has_dir_index = ext2fs_has_feature_dir_index(sb);
	vol->has_large_dir = ext2fs_has_feature_largedir(sb);
	vol->has_dir_nlink = ext2fs_has_feature_dir_nlink(sb);
	vol->has_extents = ext2fs_has_feature_extents(sb);
	vol->has_ext_attr = ext2fs_has_feature_xattr(sb);
	vol->has_ea_inode = ext2fs_has_feature_ea_inode(sb);
	vol->checksum_seed = vol->fs->csum_seed;
	vol->mount_state = sb->s_state;
	ext4_label_init(vol);
}

static int set_geometry(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	struct ext2_super_block *sb = vol->fs->super;

	vol->block_size = vol->fs->blocksize;
	vol->block_bits = (unsigned)__builtin_ctz(vol->block_size);
	vol->inode_size = EXT2_INODE_SIZE(sb);
	vol->nr_blocks = ext2fs_blocks_count(sb);
	vol->nr_inodes = sb->s_inodes_count;
	vol->nr_groups = vol->fs->group_desc_count;
	vol->first_data_block = sb->s_first_data_block;
	vol->blocks_per_group = sb->s_blocks_per_group;
	vol->inodes_per_group = sb->s_inodes_per_group;
	vol->first_ino = EXT2_FIRST_INO(sb);
	vol->desc_size = EXT2_DESC_SIZE(sb);
	vol->itable_blocks = vol->fs->inode_blocks_per_group;
	vol->inodes_per_block = vol->block_size / vol->inode_size;
	vol->sb_blk = SUPERBLOCK_OFFSET / vol->block_size;
	vol->sb_off = SUPERBLOCK_OFFSET % vol->block_size;
	if (vol->nr_blocks > vol->dev->caps.size_bytes >> vol->block_bits)
		return opening_refuse(opening, -EINVAL,
				      "%s: the file system (%llu blocks of %u bytes) is larger "
				      "than the device: it was cut off, or resize2fs is needed",
				      dev_name(opening), (unsigned long long)vol->nr_blocks,
				      vol->block_size);
	if (vol->block_size < vol->dev->caps.sector_bytes)
		return opening_refuse(opening, -EINVAL,
				      "%s: blocks of %u bytes cannot be written to sectors of %u "
				      "bytes",
				      dev_name(opening), vol->block_size,
				      vol->dev->caps.sector_bytes);
	if ((vol->inodes_per_group & 7) || vol->inodes_per_group > vol->block_size * 8 ||
	    (vol->blocks_per_group > vol->block_size * 8 && !ext2fs_has_feature_bigalloc(sb)) ||
	    (vol->blocks_per_group & 7) || vol->inode_size > vol->block_size ||
	    vol->desc_size < 32 || vol->first_ino < 11 ||
	    (uint64_t)vol->nr_groups * vol->inodes_per_group != vol->nr_inodes)
		return opening_refuse(opening, -EUCLEAN,
				      "%s: the superblock makes no sense: run e2fsck %s",
				      dev_name(opening), dev_name(opening));
	set_features(vol);
	return 0;
}

void volume_unload(struct ext4_vol *vol)
{
	ext4_ea_fini(vol);
	ext4_inode_cache_fini(vol);
	ext4_groups_fini(vol);
	if (vol->fs)
		ext2fs_free(vol->fs);
	vol->fs = NULL;
}

int volume_load(struct opening *opening)
{
	struct ext4_vol *vol = opening->vol;
	long lib_err; /* of libext2fs */
	int err = ext4_super_read(vol->dev, &opening->sb, opening->reason);
	const char *why;

	if (err == -EUCLEAN && !vol->options.norecovery &&
	    !ext4_super_complete_torn(vol->dev, &opening->sb))
		err = ext4_super_read(vol->dev, &opening->sb, opening->reason);
	if (err)
		return err;
	fdio_reason_clear(opening->reason);
	switch (ext4_features_check(&opening->sb, dev_name(opening), &why, opening->reason)) {
	case EXT4_REFUSE: return -EOPNOTSUPP;
	case EXT4_SERVE_RO: opening->ro_why = why; break;
	case EXT4_SERVE_RW: break;
	}
	lib_err = ext4_io_open_fs(vol->dev, &vol->fs);
	if (lib_err)
		return opening_refuse(opening, ext4_error_from_ext2(lib_err),
				      "%s: cannot read the file system: %s: run e2fsck %s",
				      dev_name(opening), error_message(lib_err), dev_name(opening));
	err = set_geometry(opening);
	if (err)
		return err;
	err = ext4_groups_init(vol);
	if (!err)
		err = ext4_zones_init(vol);
	if (!err)
		err = ext4_inode_cache_init(vol);
	if (ext4_bad_groups(vol, NULL))
		vol->mount_state |= EXT2_ERROR_FS;
	return err ? opening_refuse(opening, err, "%s: %s", dev_name(opening), strerror(-err)) : 0;
}
