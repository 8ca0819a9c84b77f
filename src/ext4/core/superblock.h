/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Core, for the rooms of ext4: the superblock, in a handle and straight on the device; errors that
 * wait to be written into it; and what opening and closing a volume calls. A caller that
 * changes the superblock straight on the device makes sure that no journal runs.
 */
#ifndef FDIO_EXT4_CORE_SUPERBLOCK_H
#define FDIO_EXT4_CORE_SUPERBLOCK_H

#include "ext4/core/core.h"

struct ext2_super_block;

/* ---- in a handle: superblock.c. Costs one credit ---- */
/*
 * Opens the superblock for change in handle. *ret points into the cached block and is valid until
 * the handle ends. Call ext4_super_end after the change and before the handle ends.
 */
int ext4_super_begin(struct ext4_vol *vol, struct journal_handle *handle,
		     struct ext2_super_block **ret) FDIO_MAY_MISS;
/* Brings the free inodes, the write time and the checksum up to date. */
void ext4_super_end(struct ext4_vol *vol, struct journal_handle *handle);
/*
 * Opens a handle that changes the superblock alone. The caller calls ext4_super_end and then ends
 * the handle. After an error there is no handle.
 */
int ext4_super_change_begin(struct ext4_vol *vol, struct journal_handle **ret_handle,
			    struct ext2_super_block **ret_sb) FDIO_MAY_MISS;

/* ---- straight on the device: superblock.c, superblock_torn.c ---- */
/* Changes sb, whose checksum is set afterwards. */
typedef void ext4_super_change(struct ext2_super_block *sb, void *arg);
/*
 * Reads the primary superblock, 1024 bytes. -EINVAL: no ext4 file system; -EUCLEAN: its checksum is
 * wrong, *ret is filled all the same; or an error of the device. reason gets a line for the user.
 */
int ext4_super_read(struct dev *dev, struct ext2_super_block *ret, struct fdio_reason *reason)
	FDIO_BLOCKS;
/* Reads the superblock, applies change, writes it and flushes. -EUCLEAN if it was not valid. */
int ext4_super_update_raw(struct dev *dev, ext4_super_change *change, void *arg) FDIO_BLOCKS;
/*
 * sb: the superblock that ext4_super_read returned with -EUCLEAN. If a power cut has torn it,
 * writes the right checksum to the device and returns 0, else -EUCLEAN.
 */
int ext4_super_complete_torn(struct dev *dev, const struct ext2_super_block *sb) FDIO_BLOCKS;

/* ---- errors that are noted for the superblock: errors.c ---- */
/*
 * Writes the noted errors into the superblock: through a handle while the journal works, else
 * straight to the device. Does nothing if no note is new. With errors=panic it ends the process
 * afterwards.
 */
void ext4_error_write(struct ext4_vol *vol) FDIO_BLOCKS;
/* At unmount: as ext4_error_write, but also retries notes that could not be written before. */
void ext4_error_write_last(struct ext4_vol *vol) FDIO_BLOCKS;
/*
 * Called when the journal has aborted with err: notes the error and makes the volume read-only. Any
 * thread; the caller may hold any locks except one of RANK_LEAF.
 */
void ext4_error_aborted(struct ext4_vol *vol, int err);

/* ---- opening and closing a volume, on its thread ---- */
void ext4_error_init(struct ext4_vol *vol);
void ext4_error_fini(struct ext4_vol *vol);
void ext4_label_init(struct ext4_vol *vol); /* the label from vol->fs */
/* Opens dev with libext2fs, read-only (io.c). Returns a code of libext2fs, 0 if all is well. */
long ext4_io_open_fs(struct dev *dev, struct struct_ext2_filsys **ret);

/* ---- private to core, and for unit tests ---- */
void ext4_super_checksum_set(struct ext2_super_block *sb);
bool ext4_super_checksum_ok(const struct ext2_super_block *sb); /* true if there is none */
/*
 * As ext4_super_update_raw. If torn is not NULL, the superblock on the device must equal torn, and
 * need not have a right checksum.
 */
int ext4_super_write_raw(struct dev *dev, const struct ext2_super_block *torn,
			 ext4_super_change *change, void *arg) FDIO_BLOCKS;

#endif
