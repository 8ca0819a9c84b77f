/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files, directories and symbolic links whose content lies in the inode (feature inline_data): the
 * first 60 bytes where others have their block map, the rest in the attribute system.data, which is
 * always in the inode's own space. A volume with such inodes is only read, and the disk inode is in
 * memory, so nothing here waits or needs a lock: any thread.
 *
 * A file may be longer than what is stored; the rest of it reads as zeroes. dir/inline_dir.c knows
 * the entries of an inline directory.
 *
 * Damage is -EUCLEAN: the inode's flag without the feature or without the attribute, a value
 * elsewhere, a link longer than what is stored.
 */
#include "ext4/xattr/set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of content in i_block. */
#define FIRST_PART ((uint32_t)sizeof(((struct ext2_inode_large *)0)->i_block))

int ext4_inline_load(struct ext4_inode *inode, uint8_t **ret, uint32_t *ret_len)
{
	struct ext4_vol *vol = inode->vol;
	uint32_t more = 0;
	uint8_t *data;
	int err;

	if (!ext2fs_has_feature_inline_data(vol->fs->super))
		return EXT4_CORRUPT(vol, inode->ino, 0,
				    "inline data, which the file system does not have");
	data = malloc(FIRST_PART + vol->inode_size);
	if (!data)
		return -ENOMEM;
	memcpy(data, inode->raw->i_block, FIRST_PART);
	err = ext4_xattr_system_data(inode, data + FIRST_PART, vol->inode_size, &more);
	if (err) {
		free(data);
		return err;
	}
	*ret = data;
	*ret_len = FIRST_PART + more;
	return 0;
}

ssize_t ext4_inline_read(struct ext4_inode *inode, uint64_t off, void *buf, size_t len)
{
	uint64_t size = ext4_inode_size(inode), have;
	uint32_t stored;
	uint8_t *data;
	int err;

	if (off >= size)
		return 0;
	len = (size_t)FDIO_MIN((uint64_t)len, size - off);
	err = ext4_inline_load(inode, &data, &stored);
	if (err)
		return err;
	have = off < stored ? FDIO_MIN((uint64_t)len, stored - off) : 0;
	if (have)
		memcpy(buf, data + off, have);
	memset((uint8_t *)buf + have, 0, len - have);
	free(data);
	return (ssize_t)len;
}

int ext4_inline_link(struct ext4_inode *inode, char *buf, uint64_t size)
{
	uint32_t stored;
	uint8_t *data;
	int err = ext4_inline_load(inode, &data, &stored);

	if (err)
		return err;
	if (size > stored)
		err = EXT4_CORRUPT(inode->vol, inode->ino, 0,
				   "symbolic link of %llu bytes, %u of them stored",
				   (unsigned long long)size, stored);
	else
		memcpy(buf, data, size);
	free(data);
	return err;
}
