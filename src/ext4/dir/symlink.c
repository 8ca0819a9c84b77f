/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Symbolic links. A target of less than 60 bytes lives in the inode, where other inodes have their
 * extents. A longer one lives in a block, which is journalled like metadata, so that after a crash
 * a link never shows bytes of another file.
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h. Reading locks the inode
 * shared.
 */
#include "ext4/dir/directory.h"

#include <errno.h>
#include <string.h>

#define FAST_MAX (EXT2_N_BLOCKS * 4u) /* the NUL included, which old readers need */
#define TARGET_MAX 4095u

struct target { const char *path; unsigned len; };

static int fill_symlink(struct journal_handle *handle, struct ext4_inode *inode, void *arg)
{
	const struct target *target = arg;
	struct journal_buffer *buffer;
	int err;

	if (target->len < FAST_MAX) {
		fdio_mutex_lock(&inode->attr);
		fdio_put_le32(&inode->raw->i_flags, 0,
			      dir_inode_flags(inode) & ~(uint32_t)EXT4_EXTENTS_FL);
		memset(inode->raw->i_block, 0, sizeof inode->raw->i_block);
		memcpy(inode->raw->i_block, target->path, target->len);
		ext4_raw_set_size(inode, target->len);
		fdio_mutex_unlock(&inode->attr);
		return 0;
	}
	ext4_extent_init(inode);
	/* The size is set first: a link of 0 bytes without blocks counts as one in the inode. */
	fdio_mutex_lock(&inode->attr);
	ext4_raw_set_size(inode, target->len);
	fdio_mutex_unlock(&inode->attr);
	err = ext4_append_metadata_block(handle, inode, 0, &buffer);
	if (err)
		return err;
	memcpy(buffer->data, target->path, target->len);
	journal_buffer_release(buffer);
	return 0;
}

int ext4_symlink(struct ext4_inode *dir, const char *name, unsigned len, const char *target,
		 unsigned target_len, const struct ext4_credentials *credentials,
		 struct ext4_inode **ret)
{
	struct target t = { target, target_len };
	struct dir_new fresh = {
		.mode = S_IFLNK | 0777, .credentials = credentials, .fill = fill_symlink, .arg = &t
	};

	if (target_len == 0)
		return -ENOENT;
	if (target_len > TARGET_MAX || target_len >= dir->vol->block_size)
		return -ENAMETOOLONG;
	if (target_len >= FAST_MAX) {
		fresh.credits = dir_append_credits(dir);
		fresh.blocks = 1;
	}
	return dir_create(dir, name, len, &fresh, ret);
}

static int read_slow(struct ext4_inode *inode, char *buf, uint64_t size)
{
	struct journal_buffer *buffer;
	uint64_t blk;
	int err = ext4_bmap(inode, 0, &blk);

	if (err == 0)
		err = journal_read_block(inode->vol->journal, blk, &buffer);
	if (err)
		return err;
	memcpy(buf, buffer->data, size);
	journal_buffer_release(buffer);
	return 0;
}

int ext4_readlink(struct ext4_inode *inode, char *buf, size_t cap, unsigned *ret_len)
{
	uint64_t size;
	int err = 0;

	if (!S_ISLNK(ext4_inode_mode(inode)))
		return -EINVAL;
	err = ext4_inode_enter_shared(inode);
	if (err)
		return err;
	size = ext4_raw_size(inode);
	if (size == 0 || size > TARGET_MAX || size >= cap || size > inode->vol->block_size)
		err = size && size <= TARGET_MAX && size <= inode->vol->block_size
				      ? -ERANGE
				      : EXT4_CORRUPT(inode->vol, inode->ino, 0,
						     "symbolic link of %llu bytes",
						     (unsigned long long)size);
	else if (ext4_link_is_fast(inode))
		memcpy(buf, inode->raw->i_block, size);
	else if (ext4_inode_inline(inode))
		err = ext4_inline_link(inode, buf, size);
	else
		err = read_slow(inode, buf, size);
	ext4_inode_unlock(inode);
	if (err)
		return err;
	/* A path ends at its first NUL. */
	buf[size] = 0;
	*ret_len = (unsigned)strlen(buf);
	return 0;
}
