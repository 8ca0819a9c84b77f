/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories whose content lies in the inode (inline_data; xattr/inline.c reads the content). The
 * content begins with the inode number of the parent; "." and ".." have no entries. It has two
 * parts, i_block and an extended attribute, and entries fill each part. Volumes with such
 * directories are only read, so no lock is needed.
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h. Damage is -EUCLEAN.
 */
#include "ext4/dir/directory.h"

#include "base/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of the first part; of the parent's number. */
#define FIRST_PART ((uint32_t)sizeof(((struct ext2_inode_large *)0)->i_block))
#define PARENT_LEN 4u

int dir_inline_load(struct ext4_inode *dir, uint8_t **ret, uint32_t *ret_len)
{
	int err = ext4_inline_load(dir, ret, ret_len);

	if (err)
		return err;
	err = dir_block_check_entries(dir, 0, 0, *ret, PARENT_LEN, FIRST_PART);
	if (!err && *ret_len > FIRST_PART)
		err = dir_block_check_entries(dir, 0, 0, *ret, FIRST_PART, *ret_len);
	if (err)
		free(*ret);
	return err;
}

bool dir_inline_next(const struct ext4_vol *vol, const uint8_t *data, uint32_t len, uint32_t *off,
		     struct dir_block_ent *ret)
{
	uint32_t at = FDIO_MAX(*off, PARENT_LEN);

	if (!dir_block_get(vol, data, len, at, ret))
		return false;
	*off = at + ret->rec_len;
	return true;
}

static int find_dots(struct ext4_inode *dir, const uint8_t *data, unsigned len, struct dir_pos *ret)
{
	uint32_t parent = fdio_get_le32(data, 0);

	if (!parent || parent > dir->vol->nr_inodes)
		return EXT4_CORRUPT(dir->vol, dir->ino, 0,
				    "the parent of the directory is inode %u", parent);
	*ret = (struct dir_pos){ .ino = len == 1 ? dir->ino : parent, .file_type = EXT2_FT_DIR };
	return 0;
}

int dir_inline_find(struct ext4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
{
	uint32_t end, off = 0;
	struct dir_block_ent entry;
	uint8_t *data;
	int err = dir_inline_load(dir, &data, &end);

	if (err)
		return err;
	if (ext4_name_is_dots(name, len)) {
		err = find_dots(dir, data, len, ret);
		goto out;
	}
	err = -ENOENT;
	while (err && dir_inline_next(dir->vol, data, end, &off, &entry))
		if (entry.ino && entry.name_len == len && !memcmp(entry.name, name, len)) {
			*ret = (struct dir_pos){ 0, entry.off, entry.ino, entry.file_type };
			err = 0;
		}
out:
	free(data);
	return err;
}
