/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fields of the disk inode whose halves lie apart or that have a copy in memory, and the empty root
 * of an extent tree. Called inside handles by whoever has the inode open (ext4_inode_begin);
 * reading on any thread that may look at raw. Damage is -EUCLEAN.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_change.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include <ext2fs/ext3_extents.h>

void ext4_size_store(struct ext4_inode *inode, uint64_t size)
{
	uint64_t want;

	/*
	 * A publisher stores win_pub first: either that is seen here, or its store to size comes
	 * after ours (WINDOW-4).
	 */
	do {
		want = FDIO_MAX(size, __atomic_load_n(&inode->window_published, __ATOMIC_SEQ_CST));
		__atomic_store_n(&inode->size, want, __ATOMIC_SEQ_CST);
	} while (__atomic_load_n(&inode->window_published, __ATOMIC_SEQ_CST) > want);
}

uint64_t ext4_raw_size(const struct ext4_inode *inode)
{
	uint64_t hi = S_ISREG(inode->raw->i_mode) || (S_ISDIR(inode->raw->i_mode) &&
						      inode->vol->has_large_dir)
				      ? inode->raw->i_size_high
				      : 0;

	return hi << 32 | inode->raw->i_size;
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

/* Small numbers in the 16-bit form that old kernels read, others in the 32-bit one. */
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
	/* The old form is the new one for numbers below 256. */
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
	bool huge = ext2fs_has_feature_huge_file(inode->vol->fs->super),
	     in_blocks = huge && (inode->raw->i_flags & EXT4_HUGE_FILE_FL);
	uint64_t n = ext4_raw_blocks_512(inode),
		 delta = (uint64_t)(fs_blocks < 0 ? -fs_blocks : fs_blocks)
			 << (inode->vol->block_bits - 9);
	int err = 0;

	if (fs_blocks < 0 && delta > n)
		return EXT4_CORRUPT(inode->vol, inode->ino, 0,
				    "it owns more blocks than i_blocks says");
	n = fs_blocks < 0 ? n - delta : n + delta;
	if (in_blocks)
		n >>= inode->vol->block_bits - 9;
	if (n >> (huge ? 48 : 32))
		return -EFBIG;
	fdio_mutex_lock(&inode->attr);
	inode->raw->i_blocks = (uint32_t)n;
	if (huge)
		inode->raw->osd2.linux2.l_i_blocks_hi = (uint16_t)(n >> 32);
	fdio_mutex_unlock(&inode->attr);
	return err;
}

bool ext4_inode_inline(const struct ext4_inode *inode)
{
	return le32toh(inode->raw->i_flags) & EXT4_INLINE_DATA_FL;
}

void ext4_extent_init(struct ext4_inode *inode)
{
	struct ext3_extent_header *header = (struct ext3_extent_header *)inode->raw->i_block;
	const size_t room = sizeof(inode->raw->i_block) - sizeof(*header);

	memset(inode->raw->i_block, 0, sizeof(inode->raw->i_block));
	header->eh_magic = htole16(EXT3_EXT_MAGIC);
	header->eh_max = htole16(room / sizeof(struct ext3_extent));
	inode->raw->i_flags = htole32(le32toh(inode->raw->i_flags) | EXT4_EXTENTS_FL);
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
