/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The superblock, read and changed in two ways. Straight on the device while no journal runs, on
 * the thread that opens or closes the volume; errors.c does so, too, on the ticker once the journal
 * has aborted. Otherwise in a handle: workers, loop threads in the mode of base/nowait.h, the
 * ticker. The label lives here as well; core.lock guards its copy in memory.
 *
 * The superblock's count of free inodes is updated whenever the superblock is written, that of free
 * blocks only at unmount; meanwhile the group descriptors' counts are valid, as for the kernel. A
 * superblock with a wrong checksum is -EUCLEAN, one that cannot be read an error of the device.
 */
#include "ext4/core/core.h"
#include "ext4/core/structs.h"
#include "ext4/core/superblock.h"

#include "base/crc32c.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(sizeof(struct ext2_super_block) == 1024, "the superblock has 1024 bytes");
_Static_assert(EXT4_LABEL_MAX == EXT2_LABEL_LEN, "the label has its field's length");

bool ext4_super_checksum_ok(const struct ext2_super_block *sb)
{
	if (!(sb->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_METADATA_CSUM))
		return true;
	return fdio_crc32c(~0U, sb, offsetof(struct ext2_super_block, s_checksum)) ==
	       sb->s_checksum;
}

void ext4_super_checksum_set(struct ext2_super_block *sb)
{
	if (!(sb->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_METADATA_CSUM))
		return;
	sb->s_checksum = fdio_crc32c(~0U, sb, offsetof(struct ext2_super_block, s_checksum));
}

int ext4_super_read(struct dev *dev, struct ext2_super_block *ret, struct fdio_reason *reason)
{
	int err;

	if (dev->caps.size_bytes < 2 * SUPERBLOCK_OFFSET) {
		fdio_reason_set(reason, "%s: too small to hold a file system", dev->name);
		return -EINVAL;
	}
	err = dev_read(dev, ret, SUPERBLOCK_SIZE, SUPERBLOCK_OFFSET);
	if (err) {
		fdio_reason_set(reason, "%s: cannot read the superblock: %s", dev->name,
				strerror(-err));
		return err;
	}
	if (ret->s_magic != EXT2_SUPER_MAGIC) {
		fdio_reason_set(reason,
				"%s: no ext4 file system found: is it the right device (a "
				"partition, not the disk)?",
				dev->name);
		return -EINVAL;
	}
	if (!ext4_super_checksum_ok(ret)) {
		fdio_reason_set(reason, "%s: the superblock's checksum is wrong: run e2fsck %s",
				dev->name, dev->name);
		return -EUCLEAN;
	}
	return 0;
}

/*
 * The device writes whole sectors, so the rest of the superblock's sectors is read and written with
 * it.
 */
int ext4_super_write_raw(struct dev *dev, const struct ext2_super_block *torn,
			 ext4_super_change *change, void *arg)
{
	uint64_t sector = FDIO_MAX(dev->caps.sector_bytes, 512U);
	uint64_t start = fdio_round_down(SUPERBLOCK_OFFSET, sector);
	uint64_t len = fdio_round_up(SUPERBLOCK_OFFSET + SUPERBLOCK_SIZE, sector) - start;
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
		err = sb->s_magic == EXT2_SUPER_MAGIC && ext4_super_checksum_ok(sb) ? 0 : -EUCLEAN;
	if (err)
		goto out;
	change(sb, arg);
	ext4_super_checksum_set(sb);
	err = dev_write(dev, buf, len, start, 0);
	if (!err)
		err = dev_flush(dev);
out:
	free(buf);
	return err;
}

int ext4_super_update_raw(struct dev *dev, ext4_super_change *change, void *arg)
{
	return ext4_super_write_raw(dev, NULL, change, arg);
}

int ext4_super_begin(struct ext4_vol *vol, struct journal_handle *handle,
		     struct ext2_super_block **ret)
{
	struct journal_buffer *buffer;
	int err = journal_read_block(vol->journal, vol->sb_blk, &buffer);

	*ret = NULL;
	if (err)
		return err;
	err = journal_get_write(handle, buffer);
	if (!err)
		*ret = (struct ext2_super_block *)(void *)(buffer->data + vol->sb_off);
	journal_buffer_release(buffer); /* the handle keeps it */
	return err;
}

void ext4_super_end(struct ext4_vol *vol, struct journal_handle *handle)
{
	struct ext2_super_block *sb;
	struct journal_buffer *buffer;

	/* ext4_super_begin has put the block into the transaction, which keeps it in memory. */
	if (journal_read_cached(vol->journal, vol->sb_blk, &buffer)) {
		journal_abort(vol->journal, -EIO);
		return;
	}
	sb = (struct ext2_super_block *)(void *)(buffer->data + vol->sb_off);
	sb->s_free_inodes_count = ext4_free_inodes(vol);
	sb->s_wtime = (uint32_t)ext4_now(vol).tv_sec;
	ext4_super_checksum_set(sb);
	journal_buffer_release(buffer);
}

int ext4_super_change_begin(struct ext4_vol *vol, struct journal_handle **ret_handle,
			    struct ext2_super_block **ret_sb)
{
	int err = journal_begin(vol->journal, 1, ret_handle);

	*ret_sb = NULL;
	if (err)
		return err;
	err = ext4_super_begin(vol, *ret_handle, ret_sb);
	if (err)
		journal_cancel(*ret_handle);
	return err;
}

/* ------------------------------------------------------------------ label */
void ext4_label_init(struct ext4_vol *vol)
{
	memcpy(vol->core.label, vol->fs->super->s_volume_name, sizeof(vol->core.label));
}

void ext4_vol_label(struct ext4_vol *vol, char ret[EXT4_LABEL_MAX])
{
	fdio_mutex_lock(&vol->core.lock);
	memcpy(ret, vol->core.label, EXT4_LABEL_MAX);
	fdio_mutex_unlock(&vol->core.lock);
}

/* The backup superblocks keep the old label, as they keep old times and counts. */
int ext4_vol_set_label(struct ext4_vol *vol, const char label[EXT4_LABEL_MAX])
{
	struct ext2_super_block *sb;
	struct journal_handle *handle;
	int err = ext4_vol_read_only(vol) ? -EROFS : ext4_super_change_begin(vol, &handle, &sb);

	if (err)
		return err;
	fdio_mutex_lock(&vol->core.lock);
	memset(vol->core.label, 0, sizeof(vol->core.label));
	memcpy(vol->core.label, label, strnlen(label, sizeof(vol->core.label)));
	memcpy(sb->s_volume_name, vol->core.label, sizeof(sb->s_volume_name));
	fdio_mutex_unlock(&vol->core.lock);
	ext4_super_end(vol, handle);
	return journal_commit_wait(vol->journal, journal_end(handle), NULL);
}
