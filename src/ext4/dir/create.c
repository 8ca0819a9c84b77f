/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Creation: create, mkdir, mknod, and O_TMPFILE; symlink.c brings its own content.
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h. The directory is locked
 * exclusively (O_TMPFILE: shared, because no name is added) and everything that can be checked is
 * checked; then blocks and log credits are reserved, and one handle makes the inode and its name.
 * Any failure inside the handle cancels it, which leaves nothing half done. The reference of the
 * new inode is dropped after the handle has ended, because dropping the last one may need a handle.
 */
#include "ext4/dir/directory.h"

#include <errno.h>

int dir_new_inode(struct journal_handle *handle, struct ext4_inode *dir,
		  const struct dir_new *fresh, struct timespec now, struct ext4_inode **ret)
{
	bool had_default = false;
	struct ext4_inode *inode;
	uint32_t mode;
	int err = ext4_inode_new(handle, dir, fresh->mode, fresh->credentials, ret);

	if (err) {
		*ret = NULL;
		return err;
	}
	inode = *ret;
	mode = ext4_inode_mode(inode);
	if (!S_ISLNK(mode)) {
		err = ext4_acl_inherit(handle, dir, inode, &mode, &had_default);
		if (err)
			return err;
		if (!had_default)
			mode &= ~(fresh->credentials->umask & 0777);
		fdio_mutex_lock(&inode->attr);
		ext4_raw_set_mode(inode, mode);
		fdio_mutex_unlock(&inode->attr);
	}
	if (S_ISCHR(mode) || S_ISBLK(mode))
		ext4_raw_set_rdev(inode, fresh->rdev);
	fdio_mutex_lock(&inode->attr);
	ext4_raw_set_born(inode, now);
	fdio_mutex_unlock(&inode->attr);
	return fresh->fill ? fresh->fill(handle, inode, fresh->arg) : 0;
}

/* Log credits of dir_new_inode, without those of fill. */
static unsigned new_credits(struct ext4_inode *dir)
{
	return EXT4_CREDITS_INODE_NEW + 2 * EXT4_CREDITS_XATTR + ext4_acl_inherit_credits(dir);
}

/* Unlocks dir; the reference of the new inode goes to the caller, or is dropped after an error. */
static int end_creation(struct ext4_inode *dir, int err, struct ext4_inode *inode,
			struct ext4_inode **ret)
{
	ext4_inode_unlock(dir);
	if (err)
		ext4_inode_put(inode);
	else
		*ret = inode;
	return err;
}

int dir_create(struct ext4_inode *dir, const char *name, unsigned len, const struct dir_new *fresh,
	       struct ext4_inode **ret)
{
	struct timespec now = ext4_now(dir->vol);
	struct ext4_inode *inode = NULL;
	struct dir_add add;
	struct ext4_change op;
	int err = dir_check_name(name, len);

	if (err == 0)
		err = ext4_inode_enter_exclusive(dir);
	if (err)
		return err;
	err = dir_check_add(dir, name, len);
	if (err == 0 && S_ISDIR(fresh->mode) && dir_nlink_full(dir))
		err = -EMLINK;
	if (err == 0)
		err = dir_plan_add(dir, name, len, &add);
	if (err == 0)
		err = ext4_change_begin(dir->vol,
					new_credits(dir) + 2 * EXT4_CREDITS_INODE + fresh->credits +
							add.credits,
					ext4_acl_inherit_blocks(dir, fresh->mode) + fresh->blocks +
							add.blocks,
					ext4_requester(fresh->credentials->root), &op);
	if (err)
		goto out;
	err = ext4_inode_begin(op.handle, dir);
	if (err == 0)
		err = dir_new_inode(op.handle, dir, fresh, now, &inode);
	if (err == 0)
		err = dir_do_add(op.handle, dir, &add, inode->ino, dir_file_type(fresh->mode));
	if (err == 0 && S_ISDIR(fresh->mode))
		dir_nlink_inc(dir);
	if (err == 0) {
		dir_touch(dir, EXT4_SET_MTIME | EXT4_SET_CTIME, now);
		err = ext4_inode_dirty(op.handle, inode, true);
	}
	if (err == 0)
		err = ext4_inode_dirty(op.handle, dir, true);
	err = dir_change_end(&op, err, dir, NULL);
out:
	return end_creation(dir, err, inode, ret);
}

static int fill_dir(struct journal_handle *handle, struct ext4_inode *inode, void *arg)
{
	int err = dir_do_init(handle, inode, *(uint32_t *)arg);

	if (err == 0)
		ext4_raw_set_nlink(inode, 2);
	return err;
}

int ext4_create(struct ext4_inode *dir, const char *name, unsigned len, uint32_t mode,
		uint32_t rdev, const struct ext4_credentials *credentials, struct ext4_inode **ret)
{
	struct dir_new fresh = { .mode = mode, .rdev = rdev, .credentials = credentials };

	if (S_ISLNK(mode) || dir_file_type(mode) == EXT2_FT_UNKNOWN)
		return -EINVAL;
	if (S_ISDIR(mode)) {
		fresh.fill = fill_dir;
		fresh.arg = &dir->ino;
		/* An empty tree needs less than any other: the parent's estimate is enough. */
		fresh.credits = dir_append_credits(dir);
		fresh.blocks = 1;
	}
	return dir_create(dir, name, len, &fresh, ret);
}

int ext4_tmpfile(struct ext4_inode *dir, uint32_t mode, const struct ext4_credentials *credentials,
		 struct ext4_inode **ret)
{
	struct dir_new fresh = { .mode = S_IFREG | (mode & 07777), .credentials = credentials };
	struct timespec now = ext4_now(dir->vol);
	struct ext4_inode *inode = NULL;
	struct ext4_change op;
	int err = ext4_inode_enter_shared(dir);

	if (err)
		return err;
	err = dir_check_search(dir);
	if (err == 0)
		err = dir_check_change(dir);
	if (err == 0)
		err = ext4_change_begin(dir->vol, new_credits(dir) + EXT4_CREDITS_ORPHAN,
					ext4_acl_inherit_blocks(dir, fresh.mode),
					ext4_requester(credentials->root), &op);
	if (err)
		goto out;
	err = dir_new_inode(op.handle, dir, &fresh, now, &inode);
	if (err == 0) {
		ext4_raw_set_nlink(inode, 0);
		inode->dir.linkable = true;
		err = ext4_orphan_add(op.handle, inode);
	}
	if (err == 0)
		err = ext4_inode_dirty(op.handle, inode, true);
	err = dir_change_end(&op, err, NULL, NULL);
out:
	return end_creation(dir, err, inode, ret);
}
