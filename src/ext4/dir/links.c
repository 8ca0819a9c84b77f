/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of inodes that exist: link, unlink, rmdir.
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h. Locks: the directory, then
 * the inode behind the name, both exclusively. Everything that can be checked is checked before the
 * handle begins; any failure inside it cancels it, which leaves nothing half done. The last
 * reference of the removed inode is dropped after both locks, because that may delete the inode.
 */
#include "ext4/dir/directory.h"

#include <errno.h>

static int check_link(struct ext4_inode *dir, struct ext4_inode *target)
{
	unsigned n = dir_nlink(target);

	if (dir_inode_flags(target) & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL))
		return -EPERM;
	if (n == 0 && !target->dir.linkable)
		return -EPERM;
	return n >= DIR_LINK_MAX ? -EMLINK : 0;
}

static int link_in(struct journal_handle *handle, struct ext4_inode *dir, struct ext4_inode *target,
		   const struct dir_add *add)
{
	struct timespec now = ext4_now(dir->vol);
	unsigned n = dir_nlink(target);
	int err = ext4_inode_begin(handle, dir);

	if (err == 0)
		err = ext4_inode_begin(handle, target);
	if (err == 0)
		err = dir_do_add(handle, dir, add, target->ino,
				 dir_file_type(ext4_inode_mode(target)));
	if (err)
		return err;
	ext4_raw_set_nlink(target, n + 1);
	/* A file with an unfinished truncate stays on the orphan list. */
	if (n == 0 && !ext4_truncate_pending(target))
		err = ext4_orphan_del(handle, target);
	if (err)
		return err;
	dir_touch(target, EXT4_SET_CTIME, now);
	dir_touch(dir, EXT4_SET_MTIME | EXT4_SET_CTIME, now);
	err = ext4_inode_dirty(handle, target, n == 0);
	return err ? err : ext4_inode_dirty(handle, dir, true);
}

int ext4_link(struct ext4_inode *dir, const char *name, unsigned len, struct ext4_inode *target,
	      bool root)
{
	struct dir_add add;
	struct ext4_change op;
	int err = dir_check_name(name, len);

	if (err)
		return err;
	if (S_ISDIR(ext4_inode_mode(target)) || target == dir)
		return -EPERM;
	if (target->vol != dir->vol)
		return -EXDEV;
	err = ext4_inode_enter_exclusive(dir);
	if (err)
		return err;
	err = ext4_inode_enter_exclusive(target);
	if (err) {
		ext4_inode_unlock(dir);
		return err;
	}
	err = dir_check_add(dir, name, len);
	if (err == 0)
		err = check_link(dir, target);
	if (err == 0)
		err = dir_plan_add(dir, name, len, &add);
	if (err == 0)
		err = ext4_change_begin(dir->vol,
					2 * EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN + add.credits,
					add.blocks, ext4_requester(root), &op);
	if (err == 0) {
		err = dir_change_end(&op, link_in(op.handle, dir, target, &add), dir, NULL);
		if (err == 0)
			target->dir.linkable = false;
	}
	ext4_inode_unlock(target);
	ext4_inode_unlock(dir);
	return err;
}

/* ---- removal ---- */
static int remove_in(struct journal_handle *handle, struct ext4_inode *dir, const char *name,
		     unsigned len, struct ext4_inode *child)
{
	struct timespec now = ext4_now(dir->vol);
	int err = ext4_inode_begin(handle, dir);

	if (err == 0)
		err = ext4_inode_begin(handle, child);
	if (err == 0)
		err = dir_do_remove(handle, dir, name, len);
	if (err == 0)
		err = dir_drop_link(handle, child, now);
	if (err)
		return err;
	if (S_ISDIR(ext4_inode_mode(child))) {
		dir_nlink_dec(dir);
		/*
		 * A process that still has the directory open finds it empty. Its blocks are freed
		 * with the inode.
		 */
		fdio_mutex_lock(&child->attr);
		ext4_raw_set_size(child, 0);
		fdio_mutex_unlock(&child->attr);
		err = ext4_inode_dirty(handle, child, true);
		if (err)
			return err;
	}
	dir_touch(dir, EXT4_SET_MTIME | EXT4_SET_CTIME, now);
	return ext4_inode_dirty(handle, dir, true);
}

static int check_child(struct ext4_inode *dir, struct ext4_inode *child, bool want_dir)
{
	int err = dir_check_remove(dir, child);

	if (err)
		return err;
	if (!want_dir)
		return S_ISDIR(ext4_inode_mode(child)) ? -EISDIR : 0;
	if (!S_ISDIR(ext4_inode_mode(child)))
		return -ENOTDIR;
	if (child->ino == EXT4_ROOT_INO)
		return EXT4_CORRUPT(dir->vol, dir->ino, 0, "an entry leads to the root directory");
	err = dir_is_empty(child);
	return err < 0 ? err : err ? 0 : -ENOTEMPTY;
}

static int remove_locked(struct ext4_inode *dir, const char *name, unsigned len,
			 struct ext4_inode *child, bool want_dir)
{
	struct ext4_change op;
	int err = check_child(dir, child, want_dir);

	if (err == 0)
		err = ext4_change_begin(dir->vol,
					DIR_CREDITS_CHANGE + 2 * EXT4_CREDITS_INODE +
							EXT4_CREDITS_ORPHAN,
					0, EXT4_REQUESTER_USER, &op);
	if (err)
		return err;
	return dir_change_end(&op, remove_in(op.handle, dir, name, len, child), dir, NULL);
}

static int remove_name(struct ext4_inode *dir, const char *name, unsigned len, bool want_dir)
{
	struct ext4_inode *child = NULL;
	struct dir_pos pos;
	int err = dir_check_name(name, len);

	if (err)
		return err;
	if (ext4_name_is_dots(name, len))
		return !want_dir ? -EISDIR : len == 1 ? -EINVAL : -ENOTEMPTY;
	err = ext4_inode_enter_exclusive(dir);
	if (err)
		return err;
	err = dir_check_search(dir);
	if (err == 0)
		err = dir_check_change(dir);
	if (err == 0)
		err = dir_find(dir, name, len, &pos);
	if (err == 0)
		err = dir_iget(dir, &pos, &child);
	if (err) {
		child = NULL;
	} else {
		err = ext4_inode_enter_exclusive(child);
		if (err == 0) {
			err = remove_locked(dir, name, len, child, want_dir);
			ext4_inode_unlock(child);
		}
	}
	ext4_inode_unlock(dir);
	ext4_inode_put(child);
	return err;
}

int ext4_unlink(struct ext4_inode *dir, const char *name, unsigned len)
{
	return remove_name(dir, name, len, false);
}
int ext4_rmdir(struct ext4_inode *dir, const char *name, unsigned len)
{
	return remove_name(dir, name, len, true);
}
