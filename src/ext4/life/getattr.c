/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What stat(2) shows of an inode: its disk inode, with times that are noted but not written and
 * blocks of an append window that are not in the tree yet. Any thread, cannot fail; takes only the
 * inode's attr mutex, so the fields fit each other.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_change.h"
#include "ext4/life/life.h"

void ext4_getattr(struct ext4_inode *inode, struct ext4_attr *ret)
{
	const struct ext2_inode_large *raw = inode->raw;
	uint64_t write_ns, access_ns; /* noted times */

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
	/*
	 * An inline file has no blocks. Programs take a file without blocks for one hole, so it
	 * shows some, as with the kernel.
	 */
	if (S_ISREG(ret->mode) && ext4_inode_inline(inode))
		ret->blocks_512 += fdio_div_up(ret->size, 512);
	ret->atime = ext4_raw_get_time(inode, EXT4_SET_ATIME);
	ret->mtime = ext4_raw_get_time(inode, EXT4_SET_MTIME);
	ret->ctime = ext4_raw_get_time(inode, EXT4_SET_CTIME);
	ret->btime = ext4_raw_get_time(inode, 0);
	ret->flags = raw->i_flags;
	ext4_lazy_times(inode, &write_ns, &access_ns);
	fdio_mutex_unlock(&inode->attr);
	if (write_ns)
		ret->mtime = ret->ctime = ext4_time_from_ns(write_ns);
	if (access_ns)
		ret->atime = ext4_time_from_ns(access_ns);
}
