/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the operations on names have in common: the handle with blocks set aside, the checks of
 * directories, names and flags, and the fields of an inode that a name changes.
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h. Called with the inodes
 * locked: directory first, then its child; two children in ascending inode number (rename.c has its
 * own order for two directories). The kernel checks permissions (default_permissions); the
 * immutable and append-only flags, which it does not see, are checked here.
 */
#include "ext4/dir/directory.h"

#include "base/nowait.h"

#include <errno.h>
#include <string.h>

/* ---- handles ---- */
int dir_change_end(struct ext4_change *change, int err, struct ext4_inode *a,
		   struct ext4_inode *b)
{
	err = nowait_err(err);
	if (err && a)
		dir_cancelled(a);
	if (err && b)
		dir_cancelled(b);
	return ext4_change_end(change, err);
}

/* ---- checks ---- */
int dir_check_name(const char *name, unsigned len)
{
	if (len > EXT4_NAME_MAX)
		return -ENAMETOOLONG;
	return len == 0 ? -ENOENT : 0;
}

int dir_check_search(struct ext4_inode *dir)
{
	if (!S_ISDIR(ext4_inode_mode(dir)))
		return -ENOTDIR;
	return dir_nlink(dir) ? 0 : -ENOENT;
}

int dir_check_change(struct ext4_inode *dir)
{
	if (ext4_vol_read_only(dir->vol))
		return -EROFS;
	return dir_inode_flags(dir) & EXT2_IMMUTABLE_FL ? -EPERM : 0;
}

int dir_check_remove(struct ext4_inode *dir, struct ext4_inode *child)
{
	if (dir_inode_flags(dir) & EXT2_APPEND_FL)
		return -EPERM;
	return dir_inode_flags(child) & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL) ? -EPERM : 0;
}

int dir_check_add(struct ext4_inode *dir, const char *name, unsigned len)
{
	struct dir_pos pos;
	int err = dir_check_search(dir);

	if (err == 0)
		err = dir_check_change(dir);
	if (err)
		return err;
	err = dir_find(dir, name, len, &pos);
	return err == 0 ? -EEXIST : err == -ENOENT ? 0 : err;
}

int dir_iget(struct ext4_inode *dir, const struct dir_pos *pos, struct ext4_inode **ret)
{
	struct ext4_vol *vol = dir->vol;
	int err;

	if (pos->ino == dir->ino || pos->ino > vol->nr_inodes ||
	    (pos->ino < vol->first_ino && pos->ino != EXT4_ROOT_INO))
		return EXT4_CORRUPT(vol, dir->ino, 0, "an entry in block %u leads to inode %u",
				    pos->lblk, pos->ino);
	err = ext4_inode_get(vol, pos->ino, NULL, ret);
	if (err == -ENOENT || err == -ESTALE)
		return EXT4_CORRUPT(vol, dir->ino, 0,
				    "an entry in block %u leads to inode %u, which is not in use",
				    pos->lblk, pos->ino);
	return err;
}

/* ---- fields ---- */
void dir_touch(struct ext4_inode *inode, unsigned what, struct timespec now)
{
	fdio_mutex_lock(&inode->attr);
	ext4_raw_set_time(inode, what, now);
	fdio_mutex_unlock(&inode->attr);
}

/*
 * With dir_nlink, an indexed directory may have more subdirectories than a link count can say; its
 * count is then 1 for ever.
 */
bool dir_nlink_full(const struct ext4_inode *dir)
{
	return dir_nlink(dir) >= DIR_LINK_MAX && !(dir->vol->has_dir_nlink && dir_is_indexed(dir));
}

void dir_nlink_inc(struct ext4_inode *dir)
{
	unsigned n = dir_nlink(dir);

	if (n != 1)
		ext4_raw_set_nlink(dir, n >= DIR_LINK_MAX ? 1 : n + 1);
}

void dir_nlink_dec(struct ext4_inode *dir)
{
	unsigned n = dir_nlink(dir);

	if (n > 2)
		ext4_raw_set_nlink(dir, n - 1);
}

int dir_drop_link(struct journal_handle *handle, struct ext4_inode *inode, struct timespec now)
{
	unsigned n = dir_nlink(inode);
	int err;

	if (n == 0)
		return EXT4_CORRUPT(inode->vol, inode->ino, 0,
				    "a name leads to an inode without links");
	n = S_ISDIR(ext4_inode_mode(inode)) ? 0 : n - 1;
	ext4_raw_set_nlink(inode, n);
	dir_touch(inode, EXT4_SET_CTIME, now);
	if (n == 0) {
		err = ext4_orphan_add(handle, inode);
		if (err)
			return err;
	}
	return ext4_inode_dirty(handle, inode, false);
}
