/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files, directories and links whose content lies in the inode (inline_data): its first 60 bytes
 * where others have their block map, what is more in the attribute system.data, which is always in
 * the inode's own space. Such volumes are only read, and the disk inode is in memory: nothing here
 * waits, and no lock is needed. Any thread.
 *
 * A directory's content begins with the number of its parent; "." and ".." have no entries. Its two
 * parts are tiled with entries each for itself. A file's size may go beyond what is stored, which
 * reads as zeroes.
 *
 * Damage is -EUCLEAN: the flag without the feature or without the attribute, a value elsewhere,
 * entries that do not fit.
 */
#include "ext4/dir/dir.h"
#include "ext4/xattr/xattr.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_PART ((uint32_t)sizeof(((struct ext2_inode_large *)0)->i_block))
#define PARENT_LEN 4u

int x4_inline_load(struct x4_inode *i, uint8_t **ret, uint32_t *ret_len)
{
	struct x4_vol *v = i->vol;
	uint32_t more = 0;
	uint8_t *data;
	int err;

	if (!ext2fs_has_feature_inline_data(v->fs->super))
		return X4_CORRUPT(v, i->ino, 0, "inline data, which the file system does not have");
	data = malloc(FIRST_PART + v->inode_size);
	if (!data)
		return -ENOMEM;
	memcpy(data, i->raw->i_block, FIRST_PART);
	err = x4_xattr_inline(i, data + FIRST_PART, v->inode_size, &more);
	if (err) {
		free(data);
		return err;
	}
	*ret = data;
	*ret_len = FIRST_PART + more;
	return 0;
}

ssize_t x4_inline_read(struct x4_inode *i, uint64_t off, void *buf, size_t len)
{
	uint64_t size = x4_inode_size(i), have;
	uint32_t stored;
	uint8_t *data;
	int err;

	if (off >= size)
		return 0;
	len = (size_t)FDIO_MIN((uint64_t)len, size - off);
	err = x4_inline_load(i, &data, &stored);
	if (err)
		return err;
	have = off < stored ? FDIO_MIN((uint64_t)len, stored - off) : 0;
	if (have)
		memcpy(buf, data + off, have);
	memset((uint8_t *)buf + have, 0, len - have);
	free(data);
	return (ssize_t)len;
}

int x4_inline_link(struct x4_inode *i, char *buf, uint64_t size)
{
	uint32_t stored;
	uint8_t *data;
	int err = x4_inline_load(i, &data, &stored);

	if (err)
		return err;
	if (size > stored)
		err = X4_CORRUPT(i->vol, i->ino, 0,
				 "symbolic link of %llu bytes, %u of them stored",
				 (unsigned long long)size, stored);
	else
		memcpy(buf, data, size);
	free(data);
	return err;
}

/* ---- directories ---- */
int dir_inline_load(struct x4_inode *dir, uint8_t **ret, uint32_t *ret_len)
{
	int err = x4_inline_load(dir, ret, ret_len);

	if (err)
		return err;
	err = dirb_check_entries(dir, 0, 0, *ret, PARENT_LEN, FIRST_PART);
	if (!err && *ret_len > FIRST_PART)
		err = dirb_check_entries(dir, 0, 0, *ret, FIRST_PART, *ret_len);
	if (err)
		free(*ret);
	return err;
}

bool dir_inline_next(const struct x4_vol *v, const uint8_t *data, uint32_t len, uint32_t *off,
		     struct dirb_ent *ret)
{
	uint32_t at = FDIO_MAX(*off, PARENT_LEN);

	if (!dirb_get(v, data, len, at, ret))
		return false;
	*off = at + ret->rec_len;
	return true;
}

static int find_dots(struct x4_inode *dir, const uint8_t *data, unsigned len, struct dir_pos *ret)
{
	uint32_t parent;

	memcpy(&parent, data, sizeof(parent));
	parent = le32toh(parent);
	if (!parent || parent > dir->vol->nr_inodes)
		return X4_CORRUPT(dir->vol, dir->ino, 0, "the parent of the directory is inode %u",
				  parent);
	*ret = (struct dir_pos){ .ino = len == 1 ? dir->ino : parent, .ft = EXT2_FT_DIR };
	return 0;
}

int dir_inline_find(struct x4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
{
	uint32_t end, off = 0;
	struct dirb_ent e;
	uint8_t *data;
	int err = dir_inline_load(dir, &data, &end);

	if (err)
		return err;
	if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'))) {
		err = find_dots(dir, data, len, ret);
		goto out;
	}
	err = -ENOENT;
	while (err && dir_inline_next(dir->vol, data, end, &off, &e))
		if (e.ino && e.name_len == len && !memcmp(e.name, name, len)) {
			*ret = (struct dir_pos){ 0, e.off, e.ino, e.ft };
			err = 0;
		}
out:
	free(data);
	return err;
}
