/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fields of the disk inode whose halves lie apart or that have a copy in memory, the empty root of
 * an extent tree, and what is noted of an inode when a handle changes it.
 *
 * A field is changed inside a handle that has the inode open (ext4_inode_begin): on workers, loop
 * threads in the mode of base/nowait.h, the ticker, and the thread that opens the volume. Any
 * thread that may look at raw reads them (core/structs.h). inode->attr guards each store against
 * ext4_getattr. Nothing blocks; only ext4_raw_add_blocks fails: -EUCLEAN for damage, -EFBIG.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_change.h"

#include "base/bytes.h"

#include <errno.h>
#include <string.h>

#include <ext2fs/ext3_extents.h>

void ext4_size_store(struct ext4_inode *inode, uint64_t size)
{
	uint64_t want;

	/*
	 * ext4_window_publish stores window_published before size: either that is seen here, or its
	 * store to size comes after this one (WINDOW-4).
	 */
	do {
		want = FDIO_MAX(size, __atomic_load_n(&inode->window_published, __ATOMIC_SEQ_CST));
		__atomic_store_n(&inode->size, want, __ATOMIC_SEQ_CST);
	} while (__atomic_load_n(&inode->window_published, __ATOMIC_SEQ_CST) > want);
}

uint64_t ext4_raw_size(const struct ext4_inode *inode)
{
	const struct ext2_inode_large *raw = inode->raw;
	bool has_high = S_ISREG(raw->i_mode) || (S_ISDIR(raw->i_mode) && inode->vol->has_large_dir);

	return (has_high ? (uint64_t)raw->i_size_high << 32 : 0) | raw->i_size;
}

void ext4_raw_put_size(struct ext4_inode *inode, uint64_t size)
{
	inode->raw->i_size = (uint32_t)size;
	inode->raw->i_size_high = (uint32_t)(size >> 32);
}

void ext4_raw_set_size(struct ext4_inode *inode, uint64_t size)
{
	ext4_raw_put_size(inode, size);
	ext4_size_store(inode, size);
}

void ext4_raw_set_mode(struct ext4_inode *inode, uint32_t mode)
{
	inode->raw->i_mode = (uint16_t)mode;
	__atomic_store_n(&inode->mode, inode->raw->i_mode, __ATOMIC_RELAXED);
	__atomic_store_n(&inode->inode.killpriv_cache, 0, __ATOMIC_RELAXED);
}

void ext4_raw_set_nlink(struct ext4_inode *inode, uint32_t nlink)
{
	fdio_mutex_lock(&inode->attr);
	inode->raw->i_links_count = (uint16_t)nlink;
	__atomic_store_n(&inode->nlink, nlink, __ATOMIC_RELAXED);
	fdio_mutex_unlock(&inode->attr);
}

/* Stores the 16-bit form, which old kernels read, if major and minor are below 256. */
void ext4_raw_set_rdev(struct ext4_inode *inode, uint32_t rdev)
{
	uint32_t major = rdev >> 8 & 0xfff, minor = (rdev & 0xff) | (rdev >> 12 & 0xfff00);

	fdio_mutex_lock(&inode->attr);
	if (major < 256 && minor < 256) {
		inode->raw->i_block[0] = major << 8 | minor;
		inode->raw->i_block[1] = 0;
	} else {
		inode->raw->i_block[0] = 0;
		inode->raw->i_block[1] = rdev;
		inode->raw->i_block[2] = 0;
	}
	fdio_mutex_unlock(&inode->attr);
}

uint32_t ext4_raw_rdev(const struct ext4_inode *inode)
{
	if (!S_ISCHR(inode->raw->i_mode) && !S_ISBLK(inode->raw->i_mode))
		return 0;
	/* Numbers below 256 look the same in both forms. */
	return inode->raw->i_block[0] ? inode->raw->i_block[0] & 0xffff : inode->raw->i_block[1];
}

uint64_t ext4_raw_blocks_512(const struct ext4_inode *inode)
{
	uint64_t n = inode->raw->i_blocks;

	if (!ext2fs_has_feature_huge_file(inode->vol->fs->super))
		return n;
	n |= (uint64_t)inode->raw->osd2.linux2.l_i_blocks_hi << 32;
	return inode->raw->i_flags & EXT4_HUGE_FILE_FL ? n << (inode->vol->block_bits - 9) : n;
}

int ext4_raw_add_blocks(struct ext4_inode *inode, int64_t fs_blocks)
{
	bool huge = ext2fs_has_feature_huge_file(inode->vol->fs->super);
	bool in_blocks = huge && (inode->raw->i_flags & EXT4_HUGE_FILE_FL);
	unsigned shift = inode->vol->block_bits - 9; /* between blocks and sectors */
	uint64_t n = ext4_raw_blocks_512(inode);
	uint64_t delta = (uint64_t)(fs_blocks < 0 ? -fs_blocks : fs_blocks) << shift;

	if (fs_blocks < 0 && delta > n)
		return EXT4_CORRUPT(inode->vol, inode->ino, 0,
				    "it owns more blocks than i_blocks says");
	n = fs_blocks < 0 ? n - delta : n + delta;
	if (in_blocks)
		n >>= shift;
	if (n >> (huge ? 48 : 32))
		return -EFBIG;
	fdio_mutex_lock(&inode->attr);
	inode->raw->i_blocks = (uint32_t)n;
	if (huge)
		inode->raw->osd2.linux2.l_i_blocks_hi = (uint16_t)(n >> 32);
	fdio_mutex_unlock(&inode->attr);
	return 0;
}

void ext4_extent_init(struct ext4_inode *inode)
{
	struct ext3_extent_header *header = (struct ext3_extent_header *)inode->raw->i_block;
	const size_t room = sizeof(inode->raw->i_block) - sizeof(*header);

	memset(inode->raw->i_block, 0, sizeof(inode->raw->i_block));
	fdio_put_le16(&header->eh_magic, 0, EXT3_EXT_MAGIC);
	fdio_put_le16(&header->eh_max, 0, room / sizeof(struct ext3_extent));
	inode->raw->i_flags |= EXT4_EXTENTS_FL;
}

void ext4_inode_note_tid(struct journal_handle *handle, struct ext4_inode *inode, bool data_needed)
{
	journal_tid tid = journal_handle_tid(handle);

	__atomic_store_n(&inode->inode.sync_tid, tid, __ATOMIC_RELAXED);
	__atomic_store_n(&inode->inode.has_sync_tid, true, __ATOMIC_RELEASE);
	if (data_needed) {
		__atomic_store_n(&inode->inode.datasync_tid, tid, __ATOMIC_RELAXED);
		__atomic_store_n(&inode->inode.has_datasync_tid, true, __ATOMIC_RELEASE);
	}
}

bool ext4_killpriv_none(const struct ext4_inode *inode)
{
	return __atomic_load_n(&inode->inode.killpriv_cache, __ATOMIC_ACQUIRE) == 1;
}

void ext4_killpriv_set_none(struct ext4_inode *inode)
{
	__atomic_store_n(&inode->inode.killpriv_cache, 1, __ATOMIC_RELEASE);
}

void ext4_killpriv_forget(struct ext4_inode *inode)
{
	__atomic_store_n(&inode->inode.killpriv_cache, 0, __ATOMIC_RELEASE);
}
