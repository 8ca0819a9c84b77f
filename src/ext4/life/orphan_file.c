/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The orphan file, in which newer kernels note orphans instead of on the orphan list. fusedio uses
 * the list alone, which every kernel and e2fsck honour as well. But a file system that a kernel did
 * not unmount has ORPHAN_PRESENT set and may have entries in the file. They are finished here while
 * the volume opens, after replay, on its thread: each entry moves to the list in one transaction,
 * then it is finished like any other orphan.
 *
 * A block of the file is an array of inode numbers (0: a free slot) and a tail of magic and
 * checksum. The checksum covers the seed of the orphan file's inode, the block's number and the
 * array. Damage is noted (-EUCLEAN); an entry that names no inode is dropped.
 */
#include "ext4/core/structs.h"
#include "ext4/core/superblock.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"
#include "ext4/life/life.h"

#include "base/crc32c.h"
#include "base/log.h"

#include <errno.h>
#include <string.h>

#define TAIL_MAGIC 0x0b10ca04U
/*
 * The whole file is read at mount, so its size is limited, as in the kernel; no tool makes a larger
 * one. A file larger than both limits is damage.
 */
#define MAX_BLOCKS 512u
#define MAX_BYTES (8u << 20)

struct tail { uint32_t magic, checksum; };

static unsigned nr_slots(const struct ext4_vol *vol)
{
	return (vol->block_size - sizeof(struct tail)) / 4;
}

static uint32_t *slots_of(struct journal_buffer *buffer)
{
	return (uint32_t *)(void *)buffer->data;
}

static uint32_t block_checksum(const struct ext4_inode *file, const struct journal_buffer *buffer)
{
	uint64_t blk = buffer->blk;

	return fdio_crc32c(fdio_crc32c(file->checksum_seed, &blk, 8), buffer->data,
			   nr_slots(file->vol) * 4U);
}

static struct tail *tail_of(const struct ext4_vol *vol, struct journal_buffer *buffer)
{
	return (struct tail *)(void *)(buffer->data + vol->block_size - sizeof(struct tail));
}

static int check_block(struct ext4_inode *file, struct journal_buffer *buffer)
{
	struct tail *tail = tail_of(file->vol, buffer);

	if (tail->magic != TAIL_MAGIC)
		return EXT4_CORRUPT(file->vol, file->ino, buffer->blk, "orphan file: wrong magic");
	if (file->vol->has_csum && tail->checksum != block_checksum(file, buffer))
		return EXT4_CORRUPT(file->vol, file->ino, buffer->blk,
				    "orphan file: wrong checksum");
	return 0;
}

/* Empties a slot of the file; inode, unless it is NULL, goes to the orphan list instead. */
static int move_to_list(struct ext4_inode *file, struct journal_buffer *buffer, unsigned slot,
			struct ext4_inode *inode)
{
	struct ext4_vol *vol = file->vol;
	struct journal_handle *handle;
	int err = journal_begin(vol->journal, 1 + EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN,
				&handle);

	if (err)
		return err;
	err = journal_get_write(handle, buffer);
	if (!err) {
		slots_of(buffer)[slot] = 0;
		if (vol->has_csum)
			tail_of(vol, buffer)->checksum = block_checksum(file, buffer);
		err = inode ? ext4_orphan_add(handle, inode) : 0;
	}
	return ext4_handle_end(handle, err);
}

static int finish_slot(struct ext4_inode *file, struct journal_buffer *buffer, unsigned slot)
{
	struct ext4_vol *vol = file->vol;
	uint32_t ino = slots_of(buffer)[slot];
	struct ext4_inode *inode = NULL;
	int err = ino >= vol->first_ino && ino <= vol->nr_inodes ? ext4_inode_in_use(vol, ino) : 0;

	if (err < 0)
		return err; /* it is not known: the entry stays, else the inode would be lost */
	if (err)
		err = ext4_inode_get_special(vol, ino, &inode);
	else
		err = EXT4_CORRUPT(vol, ino, buffer->blk, "orphan file: impossible entry");
	if (err == -ENOMEM || err == -EIO)
		return err;
	err = move_to_list(file, buffer, slot, inode);
	if (inode && !err)
		ext4_orphan_finish(vol, inode);
	else if (inode)
		ext4_inode_put(inode);
	return err;
}

static int finish_block(struct ext4_inode *file, uint32_t lblk, unsigned *done)
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
	for (unsigned slot = 0; slot < nr_slots(vol) && !err; slot++)
		if (slots_of(buffer)[slot]) {
			err = finish_slot(file, buffer, slot);
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
	for (uint32_t lblk = 0; !err && lblk < fdio_blocks(size, vol->block_bits); lblk++)
		err = finish_block(file, lblk, &done);
	ext4_inode_put(file);
	if (done)
		log_info("%s: %u entries of the orphan file have been worked off", vol->dev->name,
			 done);
	return err ? err : clear_present(vol);
}
