/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Private to the inode room: calls among its files. Any thread. "_locked": the caller holds
 * vol->inode.lock, the lock of the cache; the others take it themselves or need no lock.
 */
#ifndef FDIO_EXT4_INODE_DISK_INODE_H
#define FDIO_EXT4_INODE_DISK_INODE_H

#include "base/nowait.h"
#include "ext4/inode/inode_cache.h"
#include "ext4/inode/inode_change.h"

/* ---- cache.c ---- */
/* A struct with one reference, in no hash; NULL: no memory. */
struct ext4_inode *ext4_inode_alloc(struct ext4_vol *vol, uint32_t ino);
struct ext4_inode *ext4_inode_find_locked(struct ext4_vol *vol, uint32_t ino); /* no reference */
void ext4_inode_hash_locked(struct ext4_inode *inode);
void ext4_inode_unhash_locked(struct ext4_inode *inode); /* does nothing if it is in no hash */
void ext4_inode_use_locked(struct ext4_inode *inode);    /* one more reference, maybe the first */
/*
 * Puts a new inode with one reference into the hash; waits while another thread reads that number.
 * -EUCLEAN: the number is in use.
 */
int ext4_inode_hash_new(struct ext4_inode *inode) FDIO_MAY_MISS;

/* ---- put.c ---- */
/* No name leads to inode, and it is fit to be deleted. The caller holds vol->inode.lock. */
bool ext4_inode_nameless(const struct ext4_inode *inode);

/* ---- table.c ---- */
/*
 * Reads the disk inode of inode into raw and verifies it. special: reserved inodes and those
 * without a name are accepted, too. -ENOENT: not in use. -EUCLEAN, -EIO.
 */
int ext4_inode_read(struct ext4_inode *inode, bool special) FDIO_MAY_MISS;
/* Takes the generation from raw, and computes the seed of the checksums from it. */
void ext4_inode_set_seed(struct ext4_inode *inode);
/* Sets the atomic copies (size, mode, flags, links, times) from raw. */
void ext4_inode_sync_copies(struct ext4_inode *inode);

/* ---- times.c ---- */
/* For comparing only: a time that 64 bits of nanoseconds cannot hold is the latest one. */
static inline int64_t ext4_time_ns(struct timespec ts)
{
	if (ts.tv_sec >= INT64_MAX / 1000000000 - 1)
		return INT64_MAX;
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
/* Moves noted times into raw; true if there were any. The caller holds inode->attr. */
bool ext4_fold_lazy(struct ext4_inode *inode);
bool ext4_has_lazy(const struct ext4_inode *inode);
/* Puts inode on the stack of inodes with noted times, unless it is on it. */
void ext4_queue_lazy(struct ext4_inode *inode);

#endif
