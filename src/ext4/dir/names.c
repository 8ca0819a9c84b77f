/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Operations on one name: lookup, create, mkdir, mknod, link, unlink, rmdir, O_TMPFILE. Each locks the directory, then (for a
 * removal or a link) the inode behind the name, checks everything that can be checked, reserves blocks and log credits, and
 * makes its change in one handle; any failure inside it cancels the handle, which leaves nothing half done. Workers, and loop
 * threads in the mode of nowait.h. The last reference of an inode is never dropped inside a handle, because that may need one of
 * its own.
 *
 * Locks: directory first, then its child; two children in ascending inode number. Permissions are the kernel's
 * business (default_permissions); the immutable and append-only flags, which it does not see, are checked here.
 */
#include "ext4/dir/directory.h"

#include "base/nowait.h"

#include <errno.h>
#include <string.h>

/* ---- handles ---- */
int dir_op_begin(struct x4_vol *vol, unsigned credits, unsigned blocks, bool root, struct dir_op *op)
{
	int err;

	*op = (struct dir_op){ .vol = vol, .reserved = blocks };
	if (x4_vol_read_only(vol))
		return -EROFS;
	err = blocks ? x4_meta_reserve(vol, blocks, x4_asks(root)) : 0;
	if (err)
		return err;
	err = journal_begin(vol->journal, credits, &op->handle);
	if (err && blocks)
		x4_meta_unreserve(vol, blocks);
	return err;
}

int dir_op_end(struct dir_op *op, int r, struct x4_inode *a, struct x4_inode *b)
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
		x4_meta_unreserve(op->vol, op->reserved);
	return r;
}

/* ---- checks ---- */
int dir_check_name(const char *name, unsigned len)
{
	if (len > X4_NAME_MAX)
		return -ENAMETOOLONG;
	return len == 0 ? -ENOENT : 0;
}

int dir_check_search(struct x4_inode *dir)
{
	if (!S_ISDIR(x4_inode_mode(dir)))
		return -ENOTDIR;
	return ext2fs_le16_to_cpu(dir->raw->i_links_count) ? 0 : -ENOENT;
}

static uint32_t flags_of(const struct x4_inode *inode) { return ext2fs_le32_to_cpu(inode->raw->i_flags); }

int dir_check_change(struct x4_inode *dir)
{
	if (x4_vol_read_only(dir->vol))
		return -EROFS;
	return flags_of(dir) & EXT2_IMMUTABLE_FL ? -EPERM : 0;
}

int dir_check_remove(struct x4_inode *dir, struct x4_inode *child)
{
	if (flags_of(dir) & EXT2_APPEND_FL)
		return -EPERM;
	return flags_of(child) & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL) ? -EPERM : 0;
}

int dir_iget(struct x4_inode *dir, const struct dir_pos *pos, struct x4_inode **ret)
{
	struct x4_vol *vol = dir->vol;
	int err;

	if (pos->ino == dir->ino || pos->ino > vol->nr_inodes || (pos->ino < vol->first_ino && pos->ino != X4_ROOT_INO))
		return X4_CORRUPT(vol, dir->ino, 0, "an entry in block %u leads to inode %u", pos->lblk, pos->ino);
	err = x4_iget(vol, pos->ino, NULL, ret);
	if (err == -ENOENT || err == -ESTALE)
		return X4_CORRUPT(vol, dir->ino, 0, "an entry in block %u leads to inode %u, which is not in use", pos->lblk, pos->ino);
	return err;
}

/* ---- fields ---- */
void dir_touch(struct x4_inode *inode, unsigned what, struct timespec now)
{
	fdio_mutex_lock(&inode->attr);
	x4_raw_set_time(inode, what, now);
	fdio_mutex_unlock(&inode->attr);
}

static unsigned nlink_of(const struct x4_inode *inode) { return ext2fs_le16_to_cpu(inode->raw->i_links_count); }

/* With dir_nlink an indexed directory may have more subdirectories than can be counted: its count is then 1 for ever. */
bool dir_nlink_full(const struct x4_inode *dir)
{
	return nlink_of(dir) >= DIR_LINK_MAX && !(dir->vol->has_dir_nlink && dir_is_dx(dir));
}

void dir_nlink_inc(struct x4_inode *dir)
{
	unsigned n = nlink_of(dir);

	if (n != 1)
		x4_raw_set_nlink(dir, n >= DIR_LINK_MAX ? 1 : n + 1);
}

void dir_nlink_dec(struct x4_inode *dir)
{
	unsigned n = nlink_of(dir);

	if (n > 2)
		x4_raw_set_nlink(dir, n - 1);
}

int dir_drop_link(struct journal_handle *handle, struct x4_inode *inode, struct timespec now)
{
	unsigned n = nlink_of(inode);
	int err;

	if (n == 0)
		return X4_CORRUPT(inode->vol, inode->ino, 0, "a name leads to an inode without links");
	n = S_ISDIR(x4_inode_mode(inode)) ? 0 : n - 1;
	x4_raw_set_nlink(inode, n);
	dir_touch(inode, X4_SET_CTIME, now);
	if (n == 0) {
		err = x4_orphan_add(handle, inode);
		if (err)
			return err;
	}
	return x4_inode_dirty(handle, inode, false);
}

/* ---- lookup ---- */
static bool is_dot(const char *name, unsigned len) { return len == 1 && name[0] == '.'; }
static bool is_dotdot(const char *name, unsigned len) { return len == 2 && name[0] == '.' && name[1] == '.'; }

int x4_lookup(struct x4_inode *dir, const char *name, unsigned len, struct x4_inode **ret)
{
	struct dir_pos pos;
	int err = dir_check_name(name, len);

	if (err)
		return err;
	if (is_dotdot(name, len))
		return x4_lookup_parent(dir, ret);
	err = x4_inode_enter_shared(dir);
	if (err)
		return err;
	err = dir_check_search(dir);
	if (err == 0 && is_dot(name, len)) {
		*ret = x4_iref(dir);
		goto out;
	}
	if (err == 0)
		err = dir_find(dir, name, len, &pos);
	if (err == 0)
		err = dir_iget(dir, &pos, ret);
out:
	x4_inode_unlock(dir);
	return err;
}

int x4_lookup_parent(struct x4_inode *dir, struct x4_inode **ret)
{
	struct dir_pos pos;
	int err = x4_inode_enter_shared(dir);

	if (err)
		return err;
	err = dir_check_search(dir);
	if (err == 0)
		err = dir_find(dir, "..", 2, &pos);
	if (err == 0 && pos.ino == dir->ino) {
		/* Only the root is its own parent. */
		if (dir->ino == X4_ROOT_INO)
			*ret = x4_iref(dir);
		else
			err = X4_CORRUPT(dir->vol, dir->ino, 0, "the directory is its own parent");
	} else if (err == 0) {
		err = dir_iget(dir, &pos, ret);
	}
	x4_inode_unlock(dir);
	if (err == 0 && !S_ISDIR(x4_inode_mode(*ret))) {
		err = X4_CORRUPT(dir->vol, dir->ino, 0, "the parent %u is no directory", pos.ino);
		x4_iput(*ret);
	}
	return err;
}

/* ---- creation ---- */
/* Common to all that add a name: the directory may be changed and the name is free. */
static int check_add(struct x4_inode *dir, const char *name, unsigned len)
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

/* The new inode complete in handle but for its name: owner, mode by umask or default ACL, content by fill. */
static int new_inode(struct journal_handle *handle, struct x4_inode *dir, const struct dir_new *fresh, struct timespec now, struct x4_inode **ret)
{
	bool had_default = false;
	struct x4_inode *inode;
	uint32_t mode;
	int err = x4_inode_new(handle, dir, fresh->mode, fresh->credentials, ret);

	if (err) {
		*ret = NULL;
		return err;
	}
	inode = *ret;
	mode = x4_inode_mode(inode);
	if (!S_ISLNK(mode)) {
		err = x4_acl_inherit(handle, dir, inode, &mode, &had_default);
		if (err)
			return err;
		if (!had_default)
			mode &= ~(fresh->credentials->umask & 0777);
		fdio_mutex_lock(&inode->attr);
		x4_raw_set_mode(inode, mode);
		fdio_mutex_unlock(&inode->attr);
	}
	if (S_ISCHR(mode) || S_ISBLK(mode))
		x4_raw_set_rdev(inode, fresh->rdev);
	fdio_mutex_lock(&inode->attr);
	x4_raw_set_born(inode, now);
	fdio_mutex_unlock(&inode->attr);
	return fresh->fill ? fresh->fill(handle, inode, fresh->arg) : 0;
}

/* What new_inode needs but for its content. */
static unsigned new_credits(struct x4_inode *dir)
{
	return X4_CREDITS_INODE_NEW + 2 * X4_CREDITS_XATTR + x4_acl_inherit_credits(dir);
}

int dir_create(struct x4_inode *dir, const char *name, unsigned len, const struct dir_new *fresh, struct x4_inode **ret)
{
	struct timespec now = x4_now(dir->vol);
	struct x4_inode *inode = NULL;
	struct dir_add add;
	struct dir_op op;
	int err = dir_check_name(name, len);

	if (err == 0)
		err = x4_inode_enter_excl(dir);
	if (err)
		return err;
	err = check_add(dir, name, len);
	if (err == 0 && S_ISDIR(fresh->mode) && dir_nlink_full(dir))
		err = -EMLINK;
	if (err == 0)
		err = dir_plan_add(dir, name, len, &add);
	if (err == 0)
		err = dir_op_begin(dir->vol, new_credits(dir) + 2 * X4_CREDITS_INODE + fresh->credits + add.credits,
				 x4_acl_inherit_blocks(dir, fresh->mode) + fresh->blocks + add.blocks, fresh->credentials->root, &op);
	if (err)
		goto out;
	err = x4_inode_begin(op.handle, dir);
	if (err == 0)
		err = new_inode(op.handle, dir, fresh, now, &inode);
	if (err == 0)
		err = dir_do_add(op.handle, dir, &add, inode->ino, dir_ft_of_mode(fresh->mode));
	if (err == 0 && S_ISDIR(fresh->mode))
		dir_nlink_inc(dir);
	if (err == 0) {
		dir_touch(dir, X4_SET_MTIME | X4_SET_CTIME, now);
		err = x4_inode_dirty(op.handle, inode, true);
	}
	if (err == 0)
		err = x4_inode_dirty(op.handle, dir, true);
	err = dir_op_end(&op, err, dir, NULL);
out:
	x4_inode_unlock(dir);
	if (err)
		x4_iput(inode);
	else
		*ret = inode;
	return err;
}

static int fill_dir(struct journal_handle *handle, struct x4_inode *inode, void *arg)
{
	int err = dir_do_init(handle, inode, *(uint32_t *)arg);

	if (err == 0)
		x4_raw_set_nlink(inode, 2);
	return err;
}

int x4_create(struct x4_inode *dir, const char *name, unsigned len, uint32_t mode, uint32_t rdev, const struct x4_cred *credentials,
	      struct x4_inode **ret)
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

int x4_tmpfile(struct x4_inode *dir, uint32_t mode, const struct x4_cred *credentials, struct x4_inode **ret)
{
	struct dir_new fresh = { .mode = S_IFREG | (mode & 07777), .credentials = credentials };
	struct timespec now = x4_now(dir->vol);
	struct x4_inode *inode = NULL;
	struct dir_op op;
	int err = x4_inode_enter_shared(dir);

	if (err)
		return err;
	err = dir_check_search(dir);
	if (err == 0)
		err = dir_check_change(dir);
	if (err == 0)
		err = dir_op_begin(dir->vol, new_credits(dir) + X4_CREDITS_ORPHAN, x4_acl_inherit_blocks(dir, fresh.mode), credentials->root, &op);
	if (err)
		goto out;
	err = new_inode(op.handle, dir, &fresh, now, &inode);
	if (err == 0) {
		x4_raw_set_nlink(inode, 0);
		inode->dir.linkable = true;
		err = x4_orphan_add(op.handle, inode);
	}
	if (err == 0)
		err = x4_inode_dirty(op.handle, inode, true);
	err = dir_op_end(&op, err, NULL, NULL);
out:
	x4_inode_unlock(dir);
	if (err)
		x4_iput(inode);
	else
		*ret = inode;
	return err;
}

static int check_link(struct x4_inode *dir, struct x4_inode *target)
{
	unsigned n = nlink_of(target);

	if (flags_of(target) & (EXT2_IMMUTABLE_FL | EXT2_APPEND_FL))
		return -EPERM;
	if (n == 0 && !target->dir.linkable)
		return -EPERM;
	return n >= DIR_LINK_MAX ? -EMLINK : 0;
}

static int link_in(struct journal_handle *handle, struct x4_inode *dir, struct x4_inode *target, const struct dir_add *add)
{
	struct timespec now = x4_now(dir->vol);
	unsigned n = nlink_of(target);
	int err = x4_inode_begin(handle, dir);

	if (err == 0)
		err = x4_inode_begin(handle, target);
	if (err == 0)
		err = dir_do_add(handle, dir, add, target->ino, dir_ft_of_mode(x4_inode_mode(target)));
	if (err)
		return err;
	x4_raw_set_nlink(target, n + 1);
	/* With a truncate to be finished it stays on the list for that. */
	if (n == 0 && !x4_truncate_pending(target))
		err = x4_orphan_del(handle, target);
	if (err)
		return err;
	dir_touch(target, X4_SET_CTIME, now);
	dir_touch(dir, X4_SET_MTIME | X4_SET_CTIME, now);
	err = x4_inode_dirty(handle, target, n == 0);
	return err ? err : x4_inode_dirty(handle, dir, true);
}

int x4_link(struct x4_inode *dir, const char *name, unsigned len, struct x4_inode *target, bool root)
{
	struct dir_add add;
	struct dir_op op;
	int err = dir_check_name(name, len);

	if (err)
		return err;
	if (S_ISDIR(x4_inode_mode(target)) || target == dir)
		return -EPERM;
	if (target->vol != dir->vol)
		return -EXDEV;
	err = x4_inode_enter_excl(dir);
	if (err)
		return err;
	err = x4_inode_enter_excl(target);
	if (err) {
		x4_inode_unlock(dir);
		return err;
	}
	err = check_add(dir, name, len);
	if (err == 0)
		err = check_link(dir, target);
	if (err == 0)
		err = dir_plan_add(dir, name, len, &add);
	if (err == 0)
		err = dir_op_begin(dir->vol, 2 * X4_CREDITS_INODE + X4_CREDITS_ORPHAN + add.credits, add.blocks, root, &op);
	if (err == 0) {
		err = dir_op_end(&op, link_in(op.handle, dir, target, &add), dir, NULL);
		if (err == 0)
			target->dir.linkable = false;
	}
	x4_inode_unlock(target);
	x4_inode_unlock(dir);
	return err;
}

/* ---- removal ---- */
static int remove_in(struct journal_handle *handle, struct x4_inode *dir, const char *name, unsigned len, struct x4_inode *child)
{
	struct timespec now = x4_now(dir->vol);
	int err = x4_inode_begin(handle, dir);

	if (err == 0)
		err = x4_inode_begin(handle, child);
	if (err == 0)
		err = dir_do_remove(handle, dir, name, len);
	if (err == 0)
		err = dir_drop_link(handle, child, now);
	if (err)
		return err;
	if (S_ISDIR(x4_inode_mode(child))) {
		dir_nlink_dec(dir);
		/* Whoever still has it open sees that nothing is left; the blocks go with the inode. */
		fdio_mutex_lock(&child->attr);
		x4_raw_set_size(child, 0);
		fdio_mutex_unlock(&child->attr);
		err = x4_inode_dirty(handle, child, true);
		if (err)
			return err;
	}
	dir_touch(dir, X4_SET_MTIME | X4_SET_CTIME, now);
	return x4_inode_dirty(handle, dir, true);
}

static int check_child(struct x4_inode *dir, struct x4_inode *child, bool want_dir)
{
	int err = dir_check_remove(dir, child);

	if (err)
		return err;
	if (!want_dir)
		return S_ISDIR(x4_inode_mode(child)) ? -EISDIR : 0;
	if (!S_ISDIR(x4_inode_mode(child)))
		return -ENOTDIR;
	if (child->ino == X4_ROOT_INO)
		return X4_CORRUPT(dir->vol, dir->ino, 0, "an entry leads to the root directory");
	err = dir_is_empty(child);
	return err < 0 ? err : err ? 0 : -ENOTEMPTY;
}

static int remove_locked(struct x4_inode *dir, const char *name, unsigned len, struct x4_inode *child, bool want_dir)
{
	struct dir_op op;
	int err = check_child(dir, child, want_dir);

	if (err == 0)
		err = dir_op_begin(dir->vol, DIR_CREDITS_CHANGE + 2 * X4_CREDITS_INODE + X4_CREDITS_ORPHAN, 0, false, &op);
	if (err)
		return err;
	return dir_op_end(&op, remove_in(op.handle, dir, name, len, child), dir, NULL);
}

static int remove_name(struct x4_inode *dir, const char *name, unsigned len, bool want_dir)
{
	struct x4_inode *child = NULL;
	struct dir_pos pos;
	int err = dir_check_name(name, len);

	if (err)
		return err;
	if (is_dot(name, len))
		return want_dir ? -EINVAL : -EISDIR;
	if (is_dotdot(name, len))
		return want_dir ? -ENOTEMPTY : -EISDIR;
	err = x4_inode_enter_excl(dir);
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
		err = x4_inode_enter_excl(child);
		if (err == 0) {
			err = remove_locked(dir, name, len, child, want_dir);
			x4_inode_unlock(child);
		}
	}
	x4_inode_unlock(dir);
	x4_iput(child);
	return err;
}

int x4_unlink(struct x4_inode *dir, const char *name, unsigned len) { return remove_name(dir, name, len, false); }
int x4_rmdir(struct x4_inode *dir, const char *name, unsigned len) { return remove_name(dir, name, len, true); }
