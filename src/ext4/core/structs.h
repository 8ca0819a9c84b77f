/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The volume and the inode. Each room has a part in both, which only its own code touches (make
 * check-rooms verifies that): struct ext4_NAME_state is the volume's part of the room NAME, struct
 * ext4_NAME_inode the inode's. The header of a part holds types only, so this one may include those
 * of the rooms above. Fields that stand here directly are read by all rooms of ext4. Included only
 * inside src/ext4 and by its tests. "Atomic" fields are read and written with __atomic_* on any
 * thread.
 */
#ifndef FDIO_EXT4_CORE_STRUCTS_H
#define FDIO_EXT4_CORE_STRUCTS_H

#include "base/magic.h"
#include "base/lock.h"
#include "ext4/core/core.h"
#include "ext4/core/core_state.h"
#include "ext4/alloc/alloc_state.h"
#include "ext4/inode/inode_state.h"
#include "ext4/data/data_state.h"
#include "ext4/xattr/xattr_state.h"
#include "ext4/life/life_state.h"
#include "ext4/dir/dir_state.h"
#include "ext4/volume/volume_state.h"

#include <ext2fs/ext2_fs.h>
#include <ext2fs/ext2fs.h>

struct ext4_vol {
	FDIO_MAGIC_FIELD;
	struct dev *dev;
	struct journal *journal;
	ext2_filsys fs;             /* read through io.c: superblock, descriptors, geometry */
	struct ext4_options options;

	/* Geometry and features: set while the volume opens, constant then. */
	unsigned block_bits;        /* log2 of the block size */
	uint32_t block_size, inode_size;
	uint64_t nr_blocks;
	uint32_t nr_inodes, nr_groups, first_data_block, first_ino;
	uint32_t blocks_per_group, inodes_per_group;
	uint32_t desc_size;         /* bytes */
	uint32_t inodes_per_block, itable_blocks; /* itable_blocks: in each group */
	bool has_csum;              /* metadata_csum */
	bool has_gdt_csum;          /* uninit_bg: crc16 of descriptors only */
	bool has_64bit, has_filetype, has_dir_index, has_large_dir, has_dir_nlink, has_extents;
	bool has_ea_inode;
	bool has_ext_attr;          /* not constant: changed and read inside handles only */
	uint32_t checksum_seed;     /* metadata_csum: where every crc32c of metadata starts */
	uint64_t sb_blk;            /* the block that holds the primary superblock, ... */
	uint32_t sb_off;            /* ... and at which byte */

	bool mounting;              /* ext4_vol_open runs: reserved inodes can be got, too */
	bool read_only;             /* atomic; once set it stays */
	bool mmp_lost;              /* atomic: another host has mounted it: write nothing */
	bool shut_down;             /* atomic; set by ext4_vol_shutdown, and stays */
	uint16_t mount_state;       /* s_state as found when opening; error bits are added */

	struct ext4_core_state core;
	struct ext4_alloc_state alloc;
	struct ext4_inode_state inode;
	struct ext4_data_state data;
	struct ext4_xattr_state xattr;
	struct ext4_life_state life;
	struct ext4_dir_state dir;
	struct ext4_volume_state volume;
};

struct ext4_inode {
	FDIO_MAGIC_FIELD;
	struct ext4_vol *vol;
	uint32_t ino;
	uint32_t gen;
	/* crc32c(crc32c(fs seed, ino), gen): inode, extent block and dir block checksums */
	uint32_t checksum_seed;

	struct fdio_rwlock rw;      /* RANK_EXT4_INODE, see ext4_inode_lock_* */
	struct fdio_mutex map_lock; /* RANK_EXT4_MAP: the extent tree and the map in memory */
	struct fdio_mutex attr;     /* RANK_EXT4_ATTR: fields of raw that ext4_getattr reads */

	/*
	 * The disk inode, little-endian as on disk: inode_size bytes, at least 256 allocated, zero
	 * beyond. It changes only inside a handle, between ext4_inode_begin and ext4_inode_dirty,
	 * and under a lock: rw held exclusively; or map_lock for the extent root and i_blocks; or
	 * rw in either mode with attr for the size and the times.
	 */
	struct ext2_inode_large *raw;
	uint64_t size;              /* atomic copy of i_size, in bytes */
	uint64_t window_published;  /* atomic: bytes an append window has published; <= size */
	uint32_t mode;              /* atomic copy of i_mode */
	uint32_t live_flags;        /* atomic copy of EXT4_LIVE_FLAGS of i_flags */
	uint32_t nlink;             /* atomic copy of i_links_count (ext4_raw_set_nlink) */

	struct ext4_alloc_inode alloc;
	struct ext4_inode_inode inode;
	struct ext4_data_inode data;
	struct ext4_dir_inode dir;
};

/* Bits of journal_buffer.verified: the kind of block that its content was verified as. */
enum {
	EXT4_VERIFIED_EXTENT = 1 << 0,
	EXT4_VERIFIED_DIR = 1 << 1,
	EXT4_VERIFIED_HTREE = 1 << 2,
	EXT4_VERIFIED_XATTR = 1 << 3,
	EXT4_VERIFIED_BITMAP = 1 << 4,
	EXT4_VERIFIED_ITABLE = 1 << 5,
};

#endif
