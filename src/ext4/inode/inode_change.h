/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode, for the rooms of ext4: changing an inode in a handle, the fields of its disk inode, and
 * making one. raw, the disk inode in memory, is changed between ext4_inode_begin and
 * ext4_inode_dirty of one handle, and under inode->attr where other threads read the field.
 */
#ifndef FDIO_EXT4_INODE_INODE_CHANGE_H
#define FDIO_EXT4_INODE_INODE_CHANGE_H

#include "ext4/inode/inode.h"

/* ---- table.c ---- */
/*
 * Opens inode for change in handle, and writes noted times into raw. If the handle is cancelled,
 * raw and its copies in memory are put back, and the extent map is dropped if ext4_inode_map_edited
 * was called meanwhile. More calls in the same handle do nothing. -ENOMEM. Never blocks.
 */
int ext4_inode_begin(struct journal_handle *handle, struct ext4_inode *inode);
/*
 * Copies raw with its checksum into the block of the inode table, and has fsync wait for handle's
 * transaction; fdatasync too if data_needed (size or extents have changed). -errno of reading that
 * block.
 */
int ext4_inode_dirty(struct journal_handle *handle, struct ext4_inode *inode,
		     bool data_needed) FDIO_MAY_MISS;
#define EXT4_CREDITS_INODE 1
/*
 * inode_change.c: a handle that changes one inode. begin opens the handle and the inode in it. end
 * calls ext4_inode_dirty if err is 0, then ext4_handle_end; returns what became of the change.
 */
int ext4_inode_change_begin(struct ext4_inode *inode, unsigned credits,
			    struct journal_handle **ret) FDIO_MAY_MISS;
int ext4_inode_change_end(struct journal_handle *handle, struct ext4_inode *inode, int err,
			  bool data_needed) FDIO_MAY_MISS;
/*
 * The second half of ext4_inode_dirty alone. A cancelled handle leaves it: that waits needlessly.
 */
void ext4_inode_note_tid(struct journal_handle *handle, struct ext4_inode *inode, bool data_needed);
/* The extent tree was changed and the map with it: a cancelled handle has to drop the map. */
void ext4_inode_map_edited(struct ext4_inode *inode);

/* ---- fields.c: fields of raw, high halves included. "attr": the caller holds inode->attr ---- */
uint64_t ext4_raw_size(const struct ext4_inode *inode);                  /* bytes */
void ext4_raw_set_size(struct ext4_inode *inode, uint64_t size);         /* and the copy; attr */
void ext4_raw_put_size(struct ext4_inode *inode, uint64_t size);         /* not the copy; attr */
/* The copy in memory alone, which an append window may keep above size (WINDOW-4). attr */
void ext4_size_store(struct ext4_inode *inode, uint64_t size);
void ext4_raw_set_mode(struct ext4_inode *inode, uint32_t mode);         /* attr */
uint64_t ext4_raw_blocks_512(const struct ext4_inode *inode);            /* i_blocks in sectors */
/* Adds to i_blocks, in blocks of the file system; takes attr. -EUCLEAN below zero, -EFBIG. */
int ext4_raw_add_blocks(struct ext4_inode *inode, int64_t fs_blocks) FDIO_MAY_MISS;
/* Both take attr. The caller applies the rule of dir_nlink. rdev: Linux's 32-bit encoding. */
void ext4_raw_set_nlink(struct ext4_inode *inode, uint32_t nlink);
void ext4_raw_set_rdev(struct ext4_inode *inode, uint32_t rdev);
uint32_t ext4_raw_rdev(const struct ext4_inode *inode); /* 0: not a device */
void ext4_extent_init(struct ext4_inode *inode); /* an empty extent root, EXTENTS_FL */
/*
 * Whether a write has set-ID bits or capabilities to take away: none says that it is known to have
 * nothing. set_none notes so; forget makes it unknown again.
 */
bool ext4_killpriv_none(const struct ext4_inode *inode);
void ext4_killpriv_set_none(struct ext4_inode *inode);
void ext4_killpriv_forget(struct ext4_inode *inode);

/* ---- times.c ---- */
/* A time of raw; which: one of EXT4_SET_ATIME, _MTIME, _CTIME, or 0 for the creation time. */
struct timespec ext4_raw_get_time(const struct ext4_inode *inode, unsigned which);
/*
 * Sets those times to ts, as near as they can be stored; which 0: the creation time. born: all
 * four, as one operation has one time. attr
 */
void ext4_raw_set_time(struct ext4_inode *inode, unsigned which, struct timespec ts);
void ext4_raw_set_born(struct ext4_inode *inode, struct timespec ts);
/* Times that are noted but not written, in ns since 1970; 0: none. */
void ext4_lazy_times(const struct ext4_inode *inode, uint64_t *ret_write, uint64_t *ret_access);
static inline struct timespec ext4_time_from_ns(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
}

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
uint16_t ext4_extra_isize(const struct ext4_vol *vol); /* i_extra_isize of new inodes */

/* ---- orphan_list.c ---- */
/*
 * Puts inode on the orphan list in handle (its last name is gone, or a truncate begins), or takes
 * it off. Calls that change nothing are allowed.
 */
int ext4_orphan_add(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
int ext4_orphan_del(struct journal_handle *handle, struct ext4_inode *inode) FDIO_MAY_MISS;
#define EXT4_CREDITS_ORPHAN 3
bool ext4_orphan_listed(const struct ext4_inode *inode);

#endif
