/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private to the inode room: calls among its files. */
#ifndef FDIO_EXT4_INODE_DISK_INODE_H
#define FDIO_EXT4_INODE_DISK_INODE_H

#include "base/nowait.h"
#include "ext4/inode/inode.h"

struct ext2_inode_large;

/*
 * inode/table.c: reads the disk inode of inode into raw, verified. special: reserved inodes and
 * nlink 0 too.
 */
int ext4_inode_read(struct ext4_inode *inode, bool special) FDIO_MAY_MISS;
void ext4_inode_set_seed(struct ext4_inode *inode);
void ext4_inode_sync_copies(struct ext4_inode *inode); /* the atomic copies from raw */
struct ext4_inode *ext4_inode_alloc(struct ext4_vol *vol, uint32_t ino);
/*
 * Puts a fresh inode into the hash with one reference; waits for a reader of that number to leave.
 * -EUCLEAN: it is in use.
 */
int ext4_inode_hash_new(struct ext4_inode *inode) FDIO_MAY_MISS;
/*
 * Checksum of a disk inode (seed of ext4_inode.csum_seed): verify, and store in raw. True without
 * metadata_csum.
 */
bool ext4_inode_checksum_ok(struct ext4_vol *vol, uint32_t seed,
			    const struct ext2_inode_large *raw);
void ext4_inode_checksum_set(struct ext4_vol *vol, uint32_t seed, struct ext2_inode_large *raw);
/* For comparing only: what 64 bits of nanoseconds cannot hold is the end of the scale. */
static inline int64_t ext4_time_ns(struct timespec ts)
{
	if (ts.tv_sec >= INT64_MAX / 1000000000 - 1)
		return INT64_MAX;
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}
/* Moves lazily noted times into raw; true if there were any. attr held. */
bool ext4_fold_lazy(struct ext4_inode *inode);
bool ext4_has_lazy(const struct ext4_inode *inode);

#endif
