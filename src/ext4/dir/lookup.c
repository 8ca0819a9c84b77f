/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lookup of one name, and of the parent of a directory.
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h: a lookup misses where it
 * would have to read a block or wait for a lock. The directory is locked shared while its blocks
 * are searched; the caller holds a reference. Fails with -ENOENT, -ENOTDIR, -ENAMETOOLONG, the
 * errors of reading, and -EUCLEAN for an entry that leads to no inode.
 */
#include "ext4/dir/directory.h"

#include <errno.h>

int ext4_lookup(struct ext4_inode *dir, const char *name, unsigned len, struct ext4_inode **ret)
{
	struct dir_pos pos;
	int err = dir_check_name(name, len);

	if (err)
		return err;
	if (ext4_name_is_dots(name, len) && len == 2)
		return ext4_lookup_parent(dir, ret);
	err = ext4_inode_enter_shared(dir);
	if (err)
		return err;
	err = dir_check_search(dir);
	if (err == 0 && ext4_name_is_dots(name, len)) {
		*ret = ext4_inode_ref(dir);
		goto out;
	}
	if (err == 0)
		err = dir_find(dir, name, len, &pos);
	if (err == 0)
		err = dir_iget(dir, &pos, ret);
out:
	ext4_inode_unlock(dir);
	return err;
}

int ext4_lookup_parent(struct ext4_inode *dir, struct ext4_inode **ret)
{
	struct dir_pos pos;
	int err = ext4_inode_enter_shared(dir);

	if (err)
		return err;
	err = dir_check_search(dir);
	if (err == 0)
		err = dir_find(dir, "..", 2, &pos);
	if (err == 0 && pos.ino == dir->ino) {
		/* Only the root is its own parent. */
		if (dir->ino == EXT4_ROOT_INO)
			*ret = ext4_inode_ref(dir);
		else
			err = EXT4_CORRUPT(dir->vol, dir->ino, 0,
					   "the directory is its own parent");
	} else if (err == 0) {
		err = dir_iget(dir, &pos, ret);
	}
	ext4_inode_unlock(dir);
	if (err == 0 && !S_ISDIR(ext4_inode_mode(*ret))) {
		err = EXT4_CORRUPT(dir->vol, dir->ino, 0, "the parent %u is no directory", pos.ino);
		ext4_inode_put(*ret);
	}
	return err;
}
