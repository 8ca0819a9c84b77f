/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What stat shows of an inode: the disk inode, times that are not written yet, and the blocks of an
 * append window that are not in the tree yet. Any thread; takes only the attr mutex. Cannot fail.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_change.h"
#include "ext4/life/life.h"

void ext4_getattr(struct ext4_inode *inode, struct ext4_attr *ret)
{
	const struct ext2_inode_large *raw = inode->raw;
	uint64_t w, a;

	fdio_mutex_lock(&inode->attr);
	ret->ino = inode->ino;
	ret->gen = inode->gen;
	ret->mode = raw->i_mode;
	ret->nlink = raw->i_links_count;
	ret->uid = raw->i_uid | (uint32_t)raw->osd2.linux2.l_i_uid_high << 16;
	ret->gid = raw->i_gid | (uint32_t)raw->osd2.linux2.l_i_gid_high << 16;
	ret->rdev = ext4_raw_rdev(inode);
	ret->size = ext4_inode_size(inode);
	ret->blocks_512 = ext4_raw_blocks_512(inode) +
			  ((uint64_t)ext4_window_unsettled(inode) << (inode->vol->block_bits - 9));
	/* As the kernel: it has no blocks, but programs take a file without any for one hole. */
	if (S_ISREG(ret->mode) && ext4_inode_inline(inode))
		ret->blocks_512 += fdio_div_up(ret->size, 512);
	ret->atime = ext4_raw_get_time(inode, EXT4_SET_ATIME);
	ret->mtime = ext4_raw_get_time(inode, EXT4_SET_MTIME);
	ret->ctime = ext4_raw_get_time(inode, EXT4_SET_CTIME);
	ret->btime = ext4_raw_get_time(inode, 0);
	ret->flags = raw->i_flags;
	ext4_lazy_times(inode, &w, &a);
	fdio_mutex_unlock(&inode->attr);
	if (w)
		ret->mtime = ret->ctime = ext4_time_from_ns(w);
	if (a)
		ret->atime = ext4_time_from_ns(a);
}
