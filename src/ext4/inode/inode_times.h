/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inode, for the rooms of ext4: the times in raw, and times that are noted but not written yet. Any
 * thread; nothing here blocks or fails. The set functions run inside a handle that has the inode
 * open (ext4_inode_begin), with inode->attr held.
 */
#ifndef FDIO_EXT4_INODE_INODE_TIMES_H
#define FDIO_EXT4_INODE_INODE_TIMES_H

#include "ext4/inode/inode.h"

/* which: one of EXT4_SET_ATIME, _MTIME, _CTIME, or 0 for the creation time. */
struct timespec ext4_raw_get_time(const struct ext4_inode *inode, unsigned which);
/*
 * Sets the times of which, any of those bits or 0, to ts, as near as the disk inode can store it.
 * born sets all four, because one operation has one time.
 */
void ext4_raw_set_time(struct ext4_inode *inode, unsigned which, struct timespec ts);
void ext4_raw_set_born(struct ext4_inode *inode, struct timespec ts);
/* Times of data I/O that are noted but not written, in ns since 1970; 0: none. */
void ext4_lazy_times(const struct ext4_inode *inode, uint64_t *ret_write, uint64_t *ret_access);
static inline struct timespec ext4_time_from_ns(uint64_t ns)
{
	return (struct timespec){ (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
}

#endif
