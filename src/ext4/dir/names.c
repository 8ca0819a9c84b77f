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
int dir_op_begin(struct x4_vol *v, unsigned credits, unsigned blocks, bool root, struct dir_op *op)
{
	int r;

	*op = (struct dir_op){ .v = v, .reserved = blocks };
	if (x4_vol_read_only(v))
		return -EROFS;
	r = blocks ? x4_meta_reserve(v, blocks, x4_asks(root)) : 0;
	if (r)
		return r;
	r = jnl_begin(v->jnl, credits, &op->h);
	if (r && blocks)
		x4_meta_unreserve(v, blocks);
	return r;
}

int dir_op_end(struct dir_op *op, int r, struct x4_inode *a, struct x4_inode *b)
{
	r = nowait_err(r);
	if (r) {
		if (a)
			dir_cancelled(a);
		if (b)
			dir_cancelled(b);
		jnl_cancel(op->h);
	} else {
		jnl_end(op->h);
	}
	if (op->reserved)
		x4_meta_unreserve(op->v, op->reserved);
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

static uint32_t flags_of(const struct x4_inode *i) { return ext2fs_le32_to_cpu(i->raw->i_flags); }

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
	struct x4_vol *v = dir->vol;
	int r;

	if (pos->ino == dir->ino || pos->ino > v->nr_inodes || (pos->ino < v->first_ino && pos->ino != X4_ROOT_INO))
		return X4_CORRUPT(v, dir->ino, 0, "an entry in block %u leads to inode %u", pos->lblk, pos->ino);
	r = x4_iget(v, pos->ino, NULL, ret);
	if (r == -ENOENT || r == -ESTALE)
		return X4_CORRUPT(v, dir->ino, 0, "an entry in block %u leads to inode %u, which is not in use", pos->lblk, pos->ino);
	return r;
}

/* ---- fields ---- */
void dir_touch(struct x4_inode *i, unsigned what, struct timespec now)
{
	fdio_mutex_lock(&i->attr);
	x4_raw_set_time(i, what, now);
	fdio_mutex_unlock(&i->attr);
}

static unsigned nlink_of(const struct x4_inode *i) { return ext2fs_le16_to_cpu(i->raw->i_links_count); }

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

int dir_drop_link(struct jnl_handle *h, struct x4_inode *i, struct timespec now)
{
	unsigned n = nlink_of(i);
	int r;

	if (n == 0)
		return X4_CORRUPT(i->vol, i->ino, 0, "a name leads to an inode without links");
	n = S_ISDIR(x4_inode_mode(i)) ? 0 : n - 1;
	x4_raw_set_nlink(i, n);
	dir_touch(i, X4_SET_CTIME, now);
	if (n == 0) {
		r = x4_orphan_add(h, i);
		if (r)
			return r;
	}
	return x4_inode_dirty(h, i, false);
}

/* ---- lookup ---- */
static bool is_dot(const char *name, unsigned len) { return len == 1 && name[0] == '.'; }
static bool is_dotdot(const char *name, unsigned len) { return len == 2 && name[0] == '.' && name[1] == '.'; }

int x4_lookup(struct x4_inode *dir, const char *name, unsigned len, struct x4_inode **ret)
{
	struct dir_pos pos;
	int r = dir_check_name(name, len);

	if (r)
		return r;
	if (is_dotdot(name, len))
		return x4_lookup_parent(dir, ret);
	r = x4_inode_enter_shared(dir);
	if (r)
		return r;
	r = dir_check_search(dir);
	if (r == 0 && is_dot(name, len)) {
		*ret = x4_iref(dir);
		goto out;
	}
	if (r == 0)
		r = dir_find(dir, name, len, &pos);
	if (r == 0)
		r = dir_iget(dir, &pos, ret);
out:
	x4_inode_unlock(dir);
	return r;
}

int x4_lookup_parent(struct x4_inode *dir, struct x4_inode **ret)
{
	struct dir_pos pos;
	int r = x4_inode_enter_shared(dir);

	if (r)
		return r;
	r = dir_check_search(dir);
	if (r == 0)
		r = dir_find(dir, "..", 2, &pos);
	if (r == 0 && pos.ino == dir->ino) {
		/* Only the root is its own parent. */
		if (dir->ino == X4_ROOT_INO)
			*ret = x4_iref(dir);
		else
			r = X4_CORRUPT(dir->vol, dir->ino, 0, "the directory is its own parent");
	} else if (r == 0) {
		r = dir_iget(dir, &pos, ret);
	}
	x4_inode_unlock(dir);
	if (r == 0 && !S_ISDIR(x4_inode_mode(*ret))) {
		r = X4_CORRUPT(dir->vol, dir->ino, 0, "the parent %u is no directory", pos.ino);
		x4_iput(*ret);
	}
	return r;
}

/* ---- creation ---- */
/* Common to all that add a name: the directory may be changed and the name is free. */
static int check_add(struct x4_inode *dir, const char *name, unsigned len)
{
	struct dir_pos pos;
	int r = dir_check_search(dir);

	if (r == 0)
		r = dir_check_change(dir);
	if (r)
		return r;
	r = dir_find(dir, name, len, &pos);
	return r == 0 ? -EEXIST : r == -ENOENT ? 0 : r;
}

/* The new inode complete in h but for its name: owner, mode by umask or default ACL, content by fill. */
static int new_inode(struct jnl_handle *h, struct x4_inode *dir, const struct dir_new *n, struct timespec now, struct x4_inode **ret)
{
	bool had_default = false;
	struct x4_inode *i;
	uint32_t mode;
	int r = x4_inode_new(h, dir, n->mode, n->cred, ret);

	if (r) {
		*ret = NULL;
		return r;
	}
	i = *ret;
	mode = x4_inode_mode(i);
	if (!S_ISLNK(mode)) {
		r = x4_acl_inherit(h, dir, i, &mode, &had_default);
		if (r)
			return r;
		if (!had_default)
			mode &= ~(n->cred->umask & 0777);
		fdio_mutex_lock(&i->attr);
		x4_raw_set_mode(i, mode);
		fdio_mutex_unlock(&i->attr);
	}
	if (S_ISCHR(mode) || S_ISBLK(mode))
		x4_raw_set_rdev(i, n->rdev);
	fdio_mutex_lock(&i->attr);
	x4_raw_set_born(i, now);
	fdio_mutex_unlock(&i->attr);
	return n->fill ? n->fill(h, i, n->arg) : 0;
}

/* What new_inode needs but for its content. */
static unsigned new_credits(struct x4_inode *dir)
{
	return X4_CREDITS_INODE_NEW + 2 * X4_CREDITS_XATTR + x4_acl_inherit_credits(dir);
}

int dir_create(struct x4_inode *dir, const char *name, unsigned len, const struct dir_new *n, struct x4_inode **ret)
{
	struct timespec now = x4_now(dir->vol);
	struct x4_inode *i = NULL;
	struct dir_add add;
	struct dir_op op;
	int r = dir_check_name(name, len);

	if (r == 0)
		r = x4_inode_enter_excl(dir);
	if (r)
		return r;
	r = check_add(dir, name, len);
	if (r == 0 && S_ISDIR(n->mode) && dir_nlink_full(dir))
		r = -EMLINK;
	if (r == 0)
		r = dir_plan_add(dir, name, len, &add);
	if (r == 0)
		r = dir_op_begin(dir->vol, new_credits(dir) + 2 * X4_CREDITS_INODE + n->credits + add.credits,
				 x4_acl_inherit_blocks(dir, n->mode) + n->blocks + add.blocks, n->cred->root, &op);
	if (r)
		goto out;
	r = x4_inode_begin(op.h, dir);
	if (r == 0)
		r = new_inode(op.h, dir, n, now, &i);
	if (r == 0)
		r = dir_do_add(op.h, dir, &add, i->ino, dir_ft_of_mode(n->mode));
	if (r == 0 && S_ISDIR(n->mode))
		dir_nlink_inc(dir);
	if (r == 0) {
		dir_touch(dir, X4_SET_MTIME | X4_SET_CTIME, now);
		r = x4_inode_dirty(op.h, i, true);
	}
	if (r == 0)
		r = x4_inode_dirty(op.h, dir, true);
	r = dir_op_end(&op, r, dir, NULL);
out:
	x4_inode_unlock(dir);
	if (r)
		x4_iput(i);
	else
		*ret = i;
	return r;
}

static int fill_dir(struct jnl_handle *h, struct x4_inode *i, void *arg)
{
	int r = dir_do_init(h, i, *(uint32_t *)arg);

	if (r == 0)
		x4_raw_set_nlink(i, 2);
	return r;
}

int x4_create(struct x4_inode *dir, const char *name, unsigned len, uint32_t mode, uint32_t rdev, const struct x4_cred *c,
	      struct x4_inode **ret)
{
	struct dir_new n = { .mode = mode, .rdev = rdev, .cred = c };

	if (S_ISLNK(mode) || dir_ft_of_mode(mode) == EXT2_FT_UNKNOWN)
		return -EINVAL;
	if (S_ISDIR(mode)) {
		n.fill = fill_dir;
		n.arg = &dir->ino;
		/* An empty tree needs less than any other, so the parent's estimate is enough. */
		n.credits = dir_append_credits(dir);
		n.blocks = 1;
	}
	return dir_create(dir, name, len, &n, ret);
}

int x4_tmpfile(struct x4_inode *dir, uint32_t mode, const struct x4_cred *c, struct x4_inode **ret)
{
	struct dir_new n = { .mode = S_IFREG | (mode & 07777), .cred = c };
	struct timespec now = x4_now(dir->vol);
	struct x4_inode *i = NULL;
	struct dir_op op;
	int r = x4_inode_enter_shared(dir);

	if (r)
		return r;
	r = dir_check_search(dir);
	if (r == 0)
		r = dir_check_change(dir);
	if (r == 0)
		r = dir_op_begin(dir->vol, new_credits(dir) + X4_CREDITS_ORPHAN, x4_acl_inherit_blocks(dir, n.mode), c->root, &op);
	if (r)
		goto out;
	r = new_inode(op.h, dir, &n, now, &i);
	if (r == 0) {
		x4_raw_set_nlink(i, 0);
		i->dir.linkable = true;
		r = x4_orphan_add(op.h, i);
	}
	if (r == 0)
		r = x4_inode_dirty(op.h, i, true);
	r = dir_op_end(&op, r, NULL, NULL);
out:
	x4_inode_unlock(dir);
	if (r)
		x4_iput(i);
	else
		*ret = i;
	return r;
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

static int link_in(struct jnl_handle *h, struct x4_inode *dir, struct x4_inode *target, const struct dir_add *add)
{
	struct timespec now = x4_now(dir->vol);
	unsigned n = nlink_of(target);
	int r = x4_inode_begin(h, dir);

	if (r == 0)
		r = x4_inode_begin(h, target);
	if (r == 0)
		r = dir_do_add(h, dir, add, target->ino, dir_ft_of_mode(x4_inode_mode(target)));
	if (r)
		return r;
	x4_raw_set_nlink(target, n + 1);
	/* With a truncate to be finished it stays on the list for that. */
	if (n == 0 && !x4_truncate_pending(target))
		r = x4_orphan_del(h, target);
	if (r)
		return r;
	dir_touch(target, X4_SET_CTIME, now);
	dir_touch(dir, X4_SET_MTIME | X4_SET_CTIME, now);
	r = x4_inode_dirty(h, target, n == 0);
	return r ? r : x4_inode_dirty(h, dir, true);
}

int x4_link(struct x4_inode *dir, const char *name, unsigned len, struct x4_inode *target, bool root)
{
	struct dir_add add;
	struct dir_op op;
	int r = dir_check_name(name, len);

	if (r)
		return r;
	if (S_ISDIR(x4_inode_mode(target)) || target == dir)
		return -EPERM;
	if (target->vol != dir->vol)
		return -EXDEV;
	r = x4_inode_enter_excl(dir);
	if (r)
		return r;
	r = x4_inode_enter_excl(target);
	if (r) {
		x4_inode_unlock(dir);
		return r;
	}
	r = check_add(dir, name, len);
	if (r == 0)
		r = check_link(dir, target);
	if (r == 0)
		r = dir_plan_add(dir, name, len, &add);
	if (r == 0)
		r = dir_op_begin(dir->vol, 2 * X4_CREDITS_INODE + X4_CREDITS_ORPHAN + add.credits, add.blocks, root, &op);
	if (r == 0) {
		r = dir_op_end(&op, link_in(op.h, dir, target, &add), dir, NULL);
		if (r == 0)
			target->dir.linkable = false;
	}
	x4_inode_unlock(target);
	x4_inode_unlock(dir);
	return r;
}

/* ---- removal ---- */
static int remove_in(struct jnl_handle *h, struct x4_inode *dir, const char *name, unsigned len, struct x4_inode *child)
{
	struct timespec now = x4_now(dir->vol);
	int r = x4_inode_begin(h, dir);

	if (r == 0)
		r = x4_inode_begin(h, child);
	if (r == 0)
		r = dir_do_remove(h, dir, name, len);
	if (r == 0)
		r = dir_drop_link(h, child, now);
	if (r)
		return r;
	if (S_ISDIR(x4_inode_mode(child))) {
		dir_nlink_dec(dir);
		/* Whoever still has it open sees that nothing is left; the blocks go with the inode. */
		fdio_mutex_lock(&child->attr);
		x4_raw_set_size(child, 0);
		fdio_mutex_unlock(&child->attr);
		r = x4_inode_dirty(h, child, true);
		if (r)
			return r;
	}
	dir_touch(dir, X4_SET_MTIME | X4_SET_CTIME, now);
	return x4_inode_dirty(h, dir, true);
}

static int check_child(struct x4_inode *dir, struct x4_inode *child, bool want_dir)
{
	int r = dir_check_remove(dir, child);

	if (r)
		return r;
	if (!want_dir)
		return S_ISDIR(x4_inode_mode(child)) ? -EISDIR : 0;
	if (!S_ISDIR(x4_inode_mode(child)))
		return -ENOTDIR;
	if (child->ino == X4_ROOT_INO)
		return X4_CORRUPT(dir->vol, dir->ino, 0, "an entry leads to the root directory");
	r = dir_is_empty(child);
	return r < 0 ? r : r ? 0 : -ENOTEMPTY;
}

static int remove_locked(struct x4_inode *dir, const char *name, unsigned len, struct x4_inode *child, bool want_dir)
{
	struct dir_op op;
	int r = check_child(dir, child, want_dir);

	if (r == 0)
		r = dir_op_begin(dir->vol, DIR_CREDITS_CHANGE + 2 * X4_CREDITS_INODE + X4_CREDITS_ORPHAN, 0, false, &op);
	if (r)
		return r;
	return dir_op_end(&op, remove_in(op.h, dir, name, len, child), dir, NULL);
}

static int remove_name(struct x4_inode *dir, const char *name, unsigned len, bool want_dir)
{
	struct x4_inode *child = NULL;
	struct dir_pos pos;
	int r = dir_check_name(name, len);

	if (r)
		return r;
	if (is_dot(name, len))
		return want_dir ? -EINVAL : -EISDIR;
	if (is_dotdot(name, len))
		return want_dir ? -ENOTEMPTY : -EISDIR;
	r = x4_inode_enter_excl(dir);
	if (r)
		return r;
	r = dir_check_search(dir);
	if (r == 0)
		r = dir_check_change(dir);
	if (r == 0)
		r = dir_find(dir, name, len, &pos);
	if (r == 0)
		r = dir_iget(dir, &pos, &child);
	if (r) {
		child = NULL;
	} else {
		r = x4_inode_enter_excl(child);
		if (r == 0) {
			r = remove_locked(dir, name, len, child, want_dir);
			x4_inode_unlock(child);
		}
	}
	x4_inode_unlock(dir);
	x4_iput(child);
	return r;
}

int x4_unlink(struct x4_inode *dir, const char *name, unsigned len) { return remove_name(dir, name, len, false); }
int x4_rmdir(struct x4_inode *dir, const char *name, unsigned len) { return remove_name(dir, name, len, true); }
