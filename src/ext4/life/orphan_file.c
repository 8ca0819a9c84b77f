/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The orphan file: where newer kernels note orphans instead of the list. fusedio keeps to the list,
 * which every kernel and e2fsck honour as well, but a file system that a kernel left without
 * unmounting has ORPHAN_PRESENT set and may have entries: they are worked off here, at mount, after
 * the journal.
 *
 * A block is an array of inode numbers (0: none) with a tail of magic and checksum; the checksum is
 * seeded with the orphan file's inode and the block's own number.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"
#include "ext4/life/life.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define OB_MAGIC 0x0b10ca04U
/* No tool makes a larger one, and kernels refuse it: all of it is read at mount. */
#define MAX_BLOCKS 512u
#define MAX_BYTES (8u << 20)

struct ob_tail { uint32_t magic, checksum; };

static unsigned nr_slots(const struct ext4_vol *vol)
{
	return (vol->block_size - sizeof(struct ob_tail)) / 4;
}

static uint32_t ob_csum(const struct ext4_inode *file, const struct journal_buffer *buffer)
{
	uint64_t blk = buffer->blk;

	return fdio_crc32c(fdio_crc32c(file->checksum_seed, &blk, 8), buffer->data,
			   nr_slots(file->vol) * 4U);
}

static struct ob_tail *tail_of(const struct ext4_vol *vol, struct journal_buffer *buffer)
{
	return (struct ob_tail *)(void *)(buffer->data + vol->block_size - sizeof(struct ob_tail));
}

static int check_block(struct ext4_inode *file, struct journal_buffer *buffer)
{
	struct ob_tail *t = tail_of(file->vol, buffer);

	if (t->magic != OB_MAGIC)
		return EXT4_CORRUPT(file->vol, file->ino, buffer->blk, "orphan file: wrong magic");
	if (file->vol->has_csum && t->checksum != ob_csum(file, buffer))
		return EXT4_CORRUPT(file->vol, file->ino, buffer->blk,
				    "orphan file: wrong checksum");
	return 0;
}

/* The entry moves from the file to the list in one transaction, then is finished like any other. */
static int work_off(struct ext4_inode *file, struct journal_buffer *buffer, unsigned slot)
{
	struct ext4_vol *vol = file->vol;
	uint32_t *e = (uint32_t *)(void *)buffer->data + slot, ino = *e;
	struct ext4_inode *inode = NULL;
	struct journal_handle *handle;
	int err;

	if (ino >= vol->first_ino && ino <= vol->nr_inodes && ext4_inode_in_use(vol, ino) == 1)
		err = ext4_inode_get_special(vol, ino, &inode);
	else
		err = EXT4_CORRUPT(vol, ino, buffer->blk, "orphan file: impossible entry");
	if (err == -ENOMEM || err == -EIO)
		return err;
	err = journal_begin(vol->journal, 1 + EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN, &handle);
	if (err)
		goto out;
	err = journal_get_write(handle, buffer);
	if (!err) {
		*e = 0;
		tail_of(vol, buffer)->checksum = vol->has_csum ? ob_csum(file, buffer)
							       : tail_of(vol, buffer)->checksum;
		err = inode ? ext4_orphan_add(handle, inode) : 0;
	}
	err = ext4_handle_end(handle, err);
out:
	if (inode && !err)
		ext4_orphan_finish(vol, inode);
	else if (inode)
		ext4_inode_put(inode);
	return err;
}

static int work_off_block(struct ext4_inode *file, uint32_t lblk, unsigned *done)
{
	struct ext4_vol *vol = file->vol;
	struct journal_buffer *buffer;
	uint64_t blk;
	int err = ext4_bmap(file, lblk, &blk);

	if (!err)
		err = journal_read_block(vol->journal, blk, &buffer);
	if (err)
		return err;
	err = check_block(file, buffer);
	for (unsigned s = 0; s < nr_slots(vol) && !err; s++)
		if (((uint32_t *)(void *)buffer->data)[s]) {
			err = work_off(file, buffer, s);
			++*done;
		}
	journal_buffer_release(buffer);
	return err;
}

static int clear_present(struct ext4_vol *vol)
{
	struct ext2_super_block *sb;
	struct journal_handle *handle;
	int err = ext4_super_change_begin(vol, &handle, &sb);

	if (err)
		return err;
	sb->s_feature_ro_compat &= ~(uint32_t)EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT;
	ext4_super_end(vol, handle);
	journal_end(handle);
	return 0;
}

int ext4_orphan_file_process(struct ext4_vol *vol)
{
	struct ext4_inode *file;
	unsigned done = 0;
	uint64_t size;
	int err;

	if (!(vol->fs->super->s_feature_ro_compat & EXT4_FEATURE_RO_COMPAT_ORPHAN_PRESENT))
		return 0;
	if (!ext2fs_has_feature_orphan_file(vol->fs->super) || !vol->fs->super->s_orphan_file_inum)
		return clear_present(vol);
	err = ext4_inode_get_special(vol, vol->fs->super->s_orphan_file_inum, &file);
	if (err)
		return err;
	size = ext4_raw_size(file);
	if (size > MAX_BYTES && size > (uint64_t)MAX_BLOCKS << vol->block_bits)
		err = EXT4_CORRUPT(vol, file->ino, 0, "an orphan file of %llu bytes",
				 (unsigned long long)size);
	for (uint32_t l = 0; !err && l < fdio_blocks(size, vol->block_bits); l++)
		err = work_off_block(file, l, &done);
	ext4_inode_put(file);
	if (done)
		log_info("%s: %u entries of the orphan file have been worked off", vol->dev->name,
			 done);
	return err ? err : clear_present(vol);
}
