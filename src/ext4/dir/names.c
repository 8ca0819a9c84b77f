/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations on one name: lookup, create, mkdir, mknod, link, unlink, rmdir, O_TMPFILE. Each locks
 * the directory, then (for a removal or a link) the inode behind the name, checks everything that
 * can be checked, reserves blocks and log credits, and makes its change in one handle; any failure
 * inside it cancels the handle, which leaves nothing half done. Workers, and loop threads in the
 * mode of nowait.h. The last reference of an inode is never dropped inside a handle, because that
 * may need one of its own.
 *
 * Locks: directory first, then its child; two children in ascending inode number. Permissions are
 * the kernel's business (default_permissions); the immutable and append-only flags, which it does
 * not see, are checked here.
 */
#include "ext4/dir/directory.h"

#include "base/nowait.h"

#include <errno.h>
#include <string.h>

/* ---- handles ---- */
int dir_op_begin(struct ext4_vol *vol, unsigned credits, unsigned blocks, bool root,
		 struct dir_op *op)
{
	int err;

	*op = (struct dir_op){ .vol = vol, .reserved = blocks };
	if (ext4_vol_read_only(vol))
		return -EROFS;
	err = blocks ? ext4_metadata_reserve(vol, blocks, ext4_requester(root)) : 0;
	if (err)
		return err;
	err = journal_begin(vol->journal, credits, &op->handle);
	if (err && blocks)
		ext4_metadata_unreserve(vol, blocks);
	return err;
}

int dir_op_end(struct dir_op *op, int r, struct ext4_inode *a, struct ext4_inode *b)
{
	r = nowait_err(r);
	if (r) {
		if (a)
			dir_cancelled(a);
		if (b)
			dir_cancelled(b);
		journal_cancel(op->handle);
	} else {
		journal_end(op->handle);
	}
	if (op->reserved)
		ext4_metadata_unreserve(op->vol, op->reserved);
	return r;
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
	return ext2fs_le16_to_cpu(dir->raw->i_links_count) ? 0 : -ENOENT;
}

static uint32_t flags_of(const struct ext4_inode *inode)
{
	return ext2fs_le32_to_cpu(inode->raw->i_flags);
}

int dir_check_change(struct ext4_inode *dir)
{
	if (ext4_vol_read_only(dir->vol))
		return -EROFS;
	return flags_of(dir) & EXT2_IMMUTABLE_FL ? -EPERM : 0;
}

int dir_check_remove(struct ext4_inode *dir, struct ext4_inode *child)
{
	if (flags_of(dir) & EXT2_APPEND_FL)
		return -EPERM;
	return flags_of(child) & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL) ? -EPERM : 0;
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

static unsigned nlink_of(const struct ext4_inode *inode)
{
	return ext2fs_le16_to_cpu(inode->raw->i_links_count);
}

/*
 * With dir_nlink an indexed directory may have more subdirectories than can be counted: its count
 * is then 1 for ever.
 */
bool dir_nlink_full(const struct ext4_inode *dir)
{
	return nlink_of(dir) >= DIR_LINK_MAX && !(dir->vol->has_dir_nlink && dir_is_dx(dir));
}

void dir_nlink_inc(struct ext4_inode *dir)
{
	unsigned n = nlink_of(dir);

	if (n != 1)
		ext4_raw_set_nlink(dir, n >= DIR_LINK_MAX ? 1 : n + 1);
}

void dir_nlink_dec(struct ext4_inode *dir)
{
	unsigned n = nlink_of(dir);

	if (n > 2)
		ext4_raw_set_nlink(dir, n - 1);
}

int dir_drop_link(struct journal_handle *handle, struct ext4_inode *inode, struct timespec now)
{
	unsigned n = nlink_of(inode);
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

/* ---- lookup ---- */
static bool is_dot(const char *name, unsigned len) { return len == 1 && name[0] == '.'; }
static bool is_dotdot(const char *name, unsigned len)
{
	return len == 2 && name[0] == '.' && name[1] == '.';
}

int ext4_lookup(struct ext4_inode *dir, const char *name, unsigned len, struct ext4_inode **ret)
{
	struct dir_pos pos;
	int err = dir_check_name(name, len);

	if (err)
		return err;
	if (is_dotdot(name, len))
		return ext4_lookup_parent(dir, ret);
	err = ext4_inode_enter_shared(dir);
	if (err)
		return err;
	err = dir_check_search(dir);
	if (err == 0 && is_dot(name, len)) {
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

/* ---- creation ---- */
/* Common to all that add a name: the directory may be changed and the name is free. */
static int check_add(struct ext4_inode *dir, const char *name, unsigned len)
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

/*
 * The new inode complete in handle but for its name: owner, mode by umask or default ACL, content
 * by fill.
 */
static int new_inode(struct journal_handle *handle, struct ext4_inode *dir,
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

/* What new_inode needs but for its content. */
static unsigned new_credits(struct ext4_inode *dir)
{
	return EXT4_CREDITS_INODE_NEW + 2 * EXT4_CREDITS_XATTR + ext4_acl_inherit_credits(dir);
}

int dir_create(struct ext4_inode *dir, const char *name, unsigned len, const struct dir_new *fresh,
	       struct ext4_inode **ret)
{
	struct timespec now = ext4_now(dir->vol);
	struct ext4_inode *inode = NULL;
	struct dir_add add;
	struct dir_op op;
	int err = dir_check_name(name, len);

	if (err == 0)
		err = ext4_inode_enter_exclusive(dir);
	if (err)
		return err;
	err = check_add(dir, name, len);
	if (err == 0 && S_ISDIR(fresh->mode) && dir_nlink_full(dir))
		err = -EMLINK;
	if (err == 0)
		err = dir_plan_add(dir, name, len, &add);
	if (err == 0)
		err = dir_op_begin(dir->vol,
				   new_credits(dir) + 2 * EXT4_CREDITS_INODE + fresh->credits +
						   add.credits,
				   ext4_acl_inherit_blocks(dir, fresh->mode) + fresh->blocks +
						   add.blocks,
				   fresh->credentials->root, &op);
	if (err)
		goto out;
	err = ext4_inode_begin(op.handle, dir);
	if (err == 0)
		err = new_inode(op.handle, dir, fresh, now, &inode);
	if (err == 0)
		err = dir_do_add(op.handle, dir, &add, inode->ino, dir_ft_of_mode(fresh->mode));
	if (err == 0 && S_ISDIR(fresh->mode))
		dir_nlink_inc(dir);
	if (err == 0) {
		dir_touch(dir, EXT4_SET_MTIME | EXT4_SET_CTIME, now);
		err = ext4_inode_dirty(op.handle, inode, true);
	}
	if (err == 0)
		err = ext4_inode_dirty(op.handle, dir, true);
	err = dir_op_end(&op, err, dir, NULL);
out:
	ext4_inode_unlock(dir);
	if (err)
		ext4_inode_put(inode);
	else
		*ret = inode;
	return err;
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

	if (S_ISLNK(mode) || dir_ft_of_mode(mode) == EXT2_FT_UNKNOWN)
		return -EINVAL;
	if (S_ISDIR(mode)) {
		fresh.fill = fill_dir;
		fresh.arg = &dir->ino;
		/* An empty tree needs less than any other, so the parent's estimate is enough. */
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
	struct dir_op op;
	int err = ext4_inode_enter_shared(dir);

	if (err)
		return err;
	err = dir_check_search(dir);
	if (err == 0)
		err = dir_check_change(dir);
	if (err == 0)
		err = dir_op_begin(dir->vol, new_credits(dir) + EXT4_CREDITS_ORPHAN,
				   ext4_acl_inherit_blocks(dir, fresh.mode), credentials->root,
				   &op);
	if (err)
		goto out;
	err = new_inode(op.handle, dir, &fresh, now, &inode);
	if (err == 0) {
		ext4_raw_set_nlink(inode, 0);
		inode->dir.linkable = true;
		err = ext4_orphan_add(op.handle, inode);
	}
	if (err == 0)
		err = ext4_inode_dirty(op.handle, inode, true);
	err = dir_op_end(&op, err, NULL, NULL);
out:
	ext4_inode_unlock(dir);
	if (err)
		ext4_inode_put(inode);
	else
		*ret = inode;
	return err;
}

static int check_link(struct ext4_inode *dir, struct ext4_inode *target)
{
	unsigned n = nlink_of(target);

	if (flags_of(target) & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL))
		return -EPERM;
	if (n == 0 && !target->dir.linkable)
		return -EPERM;
	return n >= DIR_LINK_MAX ? -EMLINK : 0;
}

static int link_in(struct journal_handle *handle, struct ext4_inode *dir, struct ext4_inode *target,
		   const struct dir_add *add)
{
	struct timespec now = ext4_now(dir->vol);
	unsigned n = nlink_of(target);
	int err = ext4_inode_begin(handle, dir);

	if (err == 0)
		err = ext4_inode_begin(handle, target);
	if (err == 0)
		err = dir_do_add(handle, dir, add, target->ino,
				 dir_ft_of_mode(ext4_inode_mode(target)));
	if (err)
		return err;
	ext4_raw_set_nlink(target, n + 1);
	/* With a truncate to be finished it stays on the list for that. */
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
	struct dir_op op;
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
	err = check_add(dir, name, len);
	if (err == 0)
		err = check_link(dir, target);
	if (err == 0)
		err = dir_plan_add(dir, name, len, &add);
	if (err == 0)
		err = dir_op_begin(dir->vol,
				   2 * EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN + add.credits,
				   add.blocks, root, &op);
	if (err == 0) {
		err = dir_op_end(&op, link_in(op.handle, dir, target, &add), dir, NULL);
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
		 * Whoever still has it open sees that nothing is left; the blocks go with the
		 * inode.
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
	struct dir_op op;
	int err = check_child(dir, child, want_dir);

	if (err == 0)
		err = dir_op_begin(dir->vol,
				   DIR_CREDITS_CHANGE + 2 * EXT4_CREDITS_INODE +
						   EXT4_CREDITS_ORPHAN,
				   0, false, &op);
	if (err)
		return err;
	return dir_op_end(&op, remove_in(op.handle, dir, name, len, child), dir, NULL);
}

static int remove_name(struct ext4_inode *dir, const char *name, unsigned len, bool want_dir)
{
	struct ext4_inode *child = NULL;
	struct dir_pos pos;
	int err = dir_check_name(name, len);

	if (err)
		return err;
	if (is_dot(name, len))
		return want_dir ? -EINVAL : -EISDIR;
	if (is_dotdot(name, len))
		return want_dir ? -ENOTEMPTY : -EISDIR;
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
