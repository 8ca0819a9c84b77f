/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode, for the rooms of ext4: changing an inode in a handle, making one, and the orphan list.
 * raw, the disk inode in memory, is changed between ext4_inode_begin and ext4_inode_dirty of one
 * handle, and under inode->attr where other threads read the field (core/structs.h).
 *
 * Workers, loop threads in the mode of base/nowait.h, the ticker, and the thread that opens or
 * closes the volume. Errors: -EIO, -ENOMEM, -EROFS, -EUCLEAN; -EAGAIN after a miss.
 */
#ifndef FDIO_EXT4_INODE_INODE_CHANGE_H
#define FDIO_EXT4_INODE_INODE_CHANGE_H

#include "ext4/inode/inode.h"
#include "ext4/inode/inode_fields.h"
#include "ext4/inode/inode_times.h"

/* ---- table.c ---- */
/*
 * Opens inode for change in handle, and folds noted times into raw. If the handle is cancelled, raw
 * and its copies in memory are put back, and the extent map is dropped if ext4_inode_map_edited was
 * called meanwhile. Further calls in the same handle do nothing. -ENOMEM. Never blocks.
 */
int ext4_inode_begin(struct journal_handle *handle, struct ext4_inode *inode);
/*
 * Copies raw with its checksum into the block of the inode table, and has fsync wait for handle's
 * transaction; fdatasync too if data_needed (size or extents have changed). -errno of reading that
 * block.
 */
int ext4_inode_dirty(struct journal_handle *handle, struct ext4_inode *inode,
		     bool data_needed) FDIO_MAY_MISS;
#define EXT4_CREDITS_INODE 1 /* the block of the inode table */
/* The map was changed along with the extent tree: a cancelled handle has to drop the map. */
void ext4_inode_map_edited(struct ext4_inode *inode);

/* ---- inode_change.c: a handle of its own for the change of one inode ---- */
/*
 * begin opens the handle and the inode in it; after an error nothing is open. end calls
 * ext4_inode_dirty if err is 0, and then ext4_handle_end; it returns what became of the change.
 */
int ext4_inode_change_begin(struct ext4_inode *inode, unsigned credits,
			    struct journal_handle **ret) FDIO_MAY_MISS;
int ext4_inode_change_end(struct journal_handle *handle, struct ext4_inode *inode, int err,
			  bool data_needed) FDIO_MAY_MISS;

/* ---- new.c ---- */
/*
 * A new inode in handle, allocated near dir and in the cache with one reference, which the caller
 * drops. It has mode, owner (credentials and the setgid rules), one link, times, a generation and,
 * for regular files and directories, an extent root. For slow symlinks the caller adds
 * ext4_extent_init, for devices ext4_raw_set_rdev. No lock is needed: no other thread can reach it
 * yet. It is open for change but not written: the caller calls ext4_inode_dirty. If the handle is
 * cancelled, the number is free again and the inode bad; the caller drops its reference after that.
 * -ENOSPC, -ENOMEM, -EUCLEAN.
 */
int ext4_inode_new(struct journal_handle *handle, struct ext4_inode *dir, uint32_t mode,
		   const struct ext4_credentials *credentials,
		   struct ext4_inode **ret) FDIO_MAY_MISS;
#define EXT4_CREDITS_INODE_NEW 4 /* bitmap, descriptor (at seal), table block, superblock */
uint16_t ext4_extra_isize(const struct ext4_vol *vol); /* i_extra_isize of new inodes, bytes */

/* ---- orphan_list.c ---- */
/*
 * Puts inode on the orphan list in handle (its last name is gone, or a truncate begins), or takes
 * it off. Adding an inode that is on the list, and deleting one that is not, does nothing.
 */
int ext4_orphan_add(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
int ext4_orphan_del(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
#define EXT4_CREDITS_ORPHAN 3 /* the superblock, inode, and the inode before it on the list */
bool ext4_orphan_listed(const struct ext4_inode *inode);

#endif
