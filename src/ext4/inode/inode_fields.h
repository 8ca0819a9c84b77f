/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode, for the rooms of ext4: fields of raw, the disk inode in memory, high halves included. The
 * set functions run inside a handle that has the inode open (ext4_inode_begin). "attr": the caller
 * holds inode->attr. Any thread; nothing here blocks.
 */
#ifndef FDIO_EXT4_INODE_INODE_FIELDS_H
#define FDIO_EXT4_INODE_INODE_FIELDS_H

#include "ext4/inode/inode.h"

uint64_t ext4_raw_size(const struct ext4_inode *inode);                  /* bytes */
void ext4_raw_set_size(struct ext4_inode *inode, uint64_t size);         /* and the copy; attr */
void ext4_raw_put_size(struct ext4_inode *inode, uint64_t size);         /* not the copy; attr */
/* The copy in memory alone, which an append window may keep above size (WINDOW-4). attr */
void ext4_size_store(struct ext4_inode *inode, uint64_t size);
void ext4_raw_set_mode(struct ext4_inode *inode, uint32_t mode);         /* attr */
/* i_blocks in units of 512 bytes, whatever unit the disk inode uses. */
uint64_t ext4_raw_blocks_512(const struct ext4_inode *inode);
/* Adds to i_blocks, in blocks of the file system; takes attr. -EUCLEAN below zero, -EFBIG. */
int ext4_raw_add_blocks(struct ext4_inode *inode, int64_t fs_blocks) FDIO_MAY_MISS;
void ext4_raw_set_nlink(struct ext4_inode *inode, uint32_t nlink); /* as on disk; takes attr */
/* A device number in Linux's 32-bit encoding; set takes attr. 0: the inode is not a device. */
void ext4_raw_set_rdev(struct ext4_inode *inode, uint32_t rdev);
uint32_t ext4_raw_rdev(const struct ext4_inode *inode);
void ext4_extent_init(struct ext4_inode *inode); /* an empty extent root, and EXTENTS_FL */
/*
 * fsync has to wait for handle's transaction; fdatasync too if data_needed. ext4_inode_dirty calls
 * this. A cancelled handle does not take it back: fsync waits needlessly then.
 */
void ext4_inode_note_tid(struct journal_handle *handle, struct ext4_inode *inode, bool data_needed);
/*
 * Whether a write would have set-ID bits or capabilities to take away: none is true if it is known
 * that there is nothing. set_none notes that, forget makes it unknown again.
 */
bool ext4_killpriv_none(const struct ext4_inode *inode);
void ext4_killpriv_set_none(struct ext4_inode *inode);
void ext4_killpriv_forget(struct ext4_inode *inode);

#endif
