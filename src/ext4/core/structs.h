/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The volume and the inode. Each room has a part of them, which its own code alone touches (make
 * check-rooms looks); the header of a part holds types only, so this one may include those of rooms
 * above. What stands here itself all rooms of ext4 read. Included only inside src/ext4 and by its
 * unit tests.
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
	/* opened read-only through io.c; for super, group_desc, geometry, dirhash */
	ext2_filsys fs;
	struct ext4_options options;

	/* Geometry and features: set while the volume opens, constant then. */
	unsigned block_bits;        /* log2 of the block size */
	uint32_t block_size, inode_size;
	uint64_t nr_blocks;
	uint32_t nr_inodes, nr_groups, first_data_block, blocks_per_group, inodes_per_group,
			first_ino;
	uint32_t desc_size, inodes_per_block, itable_blocks;
	bool has_csum;              /* metadata_csum */
	bool has_gdt_csum;          /* uninit_bg: crc16 of descriptors only */
	bool has_64bit, has_filetype, has_dir_index, has_large_dir, has_dir_nlink, has_extents,
			has_ea_inode;
	/* attributes are there, says the superblock; changed and read inside handles only */
	bool has_ext_attr;
	uint32_t checksum_seed;
	/* the block that holds the primary superblock, and where in it */
	uint64_t sb_blk;
	uint32_t sb_off;

	/* ext4_vol_open runs: ext4_inode_get serves the journal and other reserved inodes too */
	bool mounting;
	bool read_only;             /* atomic; set once by errors or abort */
	/* atomic: another host has the file system, nothing may be written any more */
	bool mmp_lost;
	bool shut_down;             /* atomic; set once by ext4_vol_shutdown */
	uint16_t mount_state;       /* s_state as found; error bits are added */

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
	struct fdio_mutex map_lock; /* RANK_EXT4_MAP: changes of the extent tree and of map */
	/* RANK_EXT4_ATTR: raw for reading by ext4_getattr while it is changed; never across I/O */
	struct fdio_mutex attr;

	/*
	 * The disk inode, inode_size bytes (at least 256 allocated, zero beyond), little-endian as
	 * on disk. Changed only inside a handle, between ext4_inode_begin and ext4_inode_dirty,
	 * with rw held exclusively or map_lock held (extent root, i_blocks) or rw held and attr
	 * taken for the store (size, times).
	 */
	struct ext2_inode_large *raw;
	uint64_t size;              /* atomic copy of i_size: readers on loop threads */
	/* atomic: size that an append window has published, which size is never below */
	uint64_t window_published;
	uint32_t mode;              /* atomic copy of i_mode */
	uint32_t live_flags;        /* atomic copy of EXT4_LIVE_FLAGS of i_flags */
	uint32_t nlink;             /* atomic copy of i_links_count (ext4_raw_set_nlink) */

	struct ext4_alloc_inode alloc;
	struct ext4_inode_own inode;
	struct ext4_data_inode data;
	struct ext4_dir_inode dir;
};

/* Bits of journal_buffer.verified: which kind of block its content has been checked as. */
enum {
	EXT4_VERIFIED_EXTENT = 1 << 0,
	EXT4_VERIFIED_DIR = 1 << 1,
	EXT4_VERIFIED_HTREE = 1 << 2,
	EXT4_VERIFIED_XATTR = 1 << 3,
	EXT4_VERIFIED_BITMAP = 1 << 4,
	EXT4_VERIFIED_ITABLE = 1 << 5,
};

#endif
