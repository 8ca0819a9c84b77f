/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rename in one transaction: plain, with replacement, RENAME_NOREPLACE, RENAME_EXCHANGE,
 * RENAME_WHITEOUT.
 *
 * Threads: ops workers; within one directory also loop threads in the mode of base/nowait.h.
 *
 * Locks: rename_lock if two directories are involved, so that the tree above them does not change;
 * then the two directories, an ancestor before its descendant, else by inode number; then the
 * inodes behind the names, directories first, by inode number. A directory cannot go below itself:
 * the ancestors of the new place are walked before any inode lock is taken, and rename_lock keeps
 * the result true.
 *
 * Any failure inside the handle cancels it: no name has changed then.
 */
#include "ext4/dir/directory.h"
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "base/nowait.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct rename_args {
	struct ext4_inode *odir, *ndir;
	const char *oname, *nname;
	unsigned olen, nlen, flags;
	const struct ext4_credentials *credentials;
	/* the inodes behind the names; new_inode NULL: the new name is free */
	struct ext4_inode *old_inode, *new_inode;
	/* the child of odir on the way down to ndir; 0: ndir is not below odir */
	uint32_t below_odir;
	uint32_t below_ndir;        /* the child of ndir on the way down to odir, or 0 */
	struct ext4_inode *locked[2];
	struct ext4_inode *white; /* the new whiteout, or NULL */
	struct timespec now;
	struct dir_add add;
};

static bool is_dir(const struct ext4_inode *inode) { return S_ISDIR(ext4_inode_mode(inode)); }

/*
 * Walks from low up to the root. *ret_child: the child of high on the way, 0 if high is not on it.
 * On a damaged image the way may be a circle, so the walk remembers one directory, a new one at
 * each power of two of steps. In a circle it meets that directory again.
 */
static int find_on_path(struct ext4_inode *low, const struct ext4_inode *high, uint32_t *ret_child)
{
	struct ext4_inode *cur = ext4_inode_ref(low), *up;
	uint64_t steps = 0, renew = 1;
	uint32_t mark = low->ino;
	int err = 0;

	*ret_child = 0;
	while (cur->ino != EXT4_ROOT_INO) {
		err = ext4_lookup_parent(cur, &up);
		if (err)
			break;
		if (up == high)
			*ret_child = cur->ino;
		ext4_inode_put(cur);
		cur = up;
		if (up == high)
			break;
		if (up->ino == mark) {
			err = EXT4_CORRUPT(low->vol, low->ino, 0, "directories form a loop");
			break;
		}
		if (++steps == renew) {
			mark = up->ino;
			renew *= 2;
		}
	}
	ext4_inode_put(cur);
	return err;
}

static int lock_dirs(struct rename_args *names)
{
	struct ext4_inode *first = names->odir, *second = names->ndir;
	int err;

	if (names->odir == names->ndir)
		return ext4_inode_enter_exclusive(names->odir);
	if (nowait_on()) /* the way up to the root may be long */
		return nowait_miss();
	fdio_mutex_lock(&names->odir->vol->dir.rename_lock);
	err = find_on_path(names->ndir, names->odir, &names->below_odir);
	if (err == 0 && !names->below_odir)
		err = find_on_path(names->odir, names->ndir, &names->below_ndir);
	if (err) {
		fdio_mutex_unlock(&names->odir->vol->dir.rename_lock);
		return err;
	}
	if (names->below_ndir || (!names->below_odir && names->ndir->ino < names->odir->ino)) {
		first = names->ndir;
		second = names->odir;
	}
	ext4_inode_lock_exclusive(first);
	ext4_inode_lock_exclusive(second);
	return 0;
}

static void unlock_dirs(struct rename_args *names)
{
	ext4_inode_unlock(names->odir);
	if (names->odir == names->ndir)
		return;
	ext4_inode_unlock(names->ndir);
	fdio_mutex_unlock(&names->odir->vol->dir.rename_lock);
}

static int find_inodes(struct rename_args *names)
{
	struct dir_pos pos;
	int err = dir_find(names->odir, names->oname, names->olen, &pos);

	if (err == 0)
		err = dir_iget(names->odir, &pos, &names->old_inode);
	if (err) {
		names->old_inode = NULL;
		return err;
	}
	err = dir_find(names->ndir, names->nname, names->nlen, &pos);
	if (err == -ENOENT)
		return names->flags & RENAME_EXCHANGE ? err : 0;
	if (err == 0 && (names->flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (err == 0)
		err = dir_iget(names->ndir, &pos, &names->new_inode);
	if (err)
		names->new_inode = NULL;
	return err;
}

/*
 * No directory goes below itself. Checked before the inodes are locked, because otherwise a lock
 * would be taken twice.
 */
static int check_loops(const struct rename_args *names)
{
	if (is_dir(names->old_inode) &&
	    (names->old_inode == names->ndir || names->old_inode->ino == names->below_odir))
		return -EINVAL;
	if (!names->new_inode || !is_dir(names->new_inode) ||
	    !(names->new_inode == names->odir || names->new_inode->ino == names->below_ndir))
		return 0;
	return names->flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
}

static int lock_inodes(struct rename_args *names)
{
	struct ext4_inode *a = names->old_inode,
			  *b = names->new_inode == names->old_inode ? NULL : names->new_inode;
	int err;

	if (b && (is_dir(b) != is_dir(a) ? is_dir(b) : b->ino < a->ino)) {
		a = names->new_inode;
		b = names->old_inode;
	}
	err = ext4_inode_enter_exclusive(a);
	if (err)
		return err;
	names->locked[0] = a;
	err = b ? ext4_inode_enter_exclusive(b) : 0;
	if (err == 0)
		names->locked[1] = b;
	return err;
}

static void unlock_inodes(struct rename_args *names)
{
	for (unsigned k = 0; k < 2; k++)
		if (names->locked[k])
			ext4_inode_unlock(names->locked[k]);
}

static int check_replace(struct rename_args *names)
{
	int err;

	if (is_dir(names->new_inode) && !is_dir(names->old_inode))
		return -EISDIR;
	if (!is_dir(names->new_inode) && is_dir(names->old_inode))
		return -ENOTDIR;
	if (!is_dir(names->new_inode))
		return 0;
	err = dir_is_empty(names->new_inode);
	return err < 0 ? err : err ? 0 : -ENOTEMPTY;
}

static int check_locked(struct rename_args *names)
{
	bool cross = names->odir != names->ndir;
	int err = dir_check_remove(names->odir, names->old_inode);

	if (err == 0 && names->new_inode)
		err = dir_check_remove(names->ndir, names->new_inode);
	if (err)
		return err;
	if (names->old_inode->ino == EXT4_ROOT_INO ||
	    (names->new_inode && names->new_inode->ino == EXT4_ROOT_INO))
		return EXT4_CORRUPT(names->odir->vol, names->odir->ino, 0,
				    "an entry leads to the root directory");
	if (names->flags & RENAME_EXCHANGE) {
		if (cross && is_dir(names->old_inode) && !is_dir(names->new_inode) &&
		    dir_nlink_full(names->ndir))
			return -EMLINK;
		return cross && is_dir(names->new_inode) && !is_dir(names->old_inode) &&
						       dir_nlink_full(names->odir)
				       ? -EMLINK
				       : 0;
	}
	if (names->new_inode)
		return check_replace(names);
	return cross && is_dir(names->old_inode) && dir_nlink_full(names->ndir) ? -EMLINK : 0;
}

/* ---- in the handle ---- */
/* inode has moved from one directory to another: its "..", its ctime, and their link counts. */
static int moved(struct journal_handle *handle, struct rename_args *names, struct ext4_inode *inode,
		 struct ext4_inode *from, struct ext4_inode *to)
{
	int err = 0;

	if (is_dir(inode) && from != to) {
		err = dir_do_set(handle, inode, "..", 2, to->ino, EXT2_FT_DIR);
		/* If the handle is cancelled, a listing is read again for nothing. */
		__atomic_store_n(&inode->dir.moved, true, __ATOMIC_RELEASE);
		if (err)
			return err;
		/*
		 * When two directories are exchanged the counts stay as they are. Changing them
		 * back and forth would turn a count at its limit into 1.
		 */
		if (!(names->flags & RENAME_EXCHANGE) || !is_dir(names->old_inode) ||
		    !is_dir(names->new_inode)) {
			dir_nlink_dec(from);
			dir_nlink_inc(to);
		}
	}
	dir_touch(inode, EXT4_SET_CTIME, names->now);
	return ext4_inode_dirty(handle, inode, is_dir(inode));
}

static int do_exchange(struct journal_handle *handle, struct rename_args *names)
{
	int err = dir_do_set(handle, names->odir, names->oname, names->olen, names->new_inode->ino,
			     dir_file_type(ext4_inode_mode(names->new_inode)));

	if (err == 0)
		err = dir_do_set(handle, names->ndir, names->nname, names->nlen,
				 names->old_inode->ino,
				 dir_file_type(ext4_inode_mode(names->old_inode)));
	if (err == 0)
		err = moved(handle, names, names->old_inode, names->odir, names->ndir);
	return err ? err : moved(handle, names, names->new_inode, names->ndir, names->odir);
}

static int make_whiteout(struct journal_handle *handle, struct rename_args *names)
{
	struct dir_new fresh = { .mode = S_IFCHR, .credentials = names->credentials };
	int err = dir_new_inode(handle, names->odir, &fresh, names->now, &names->white);

	return err ? err : ext4_inode_dirty(handle, names->white, true);
}

static int do_move(struct journal_handle *handle, struct rename_args *names)
{
	uint32_t ino = names->old_inode->ino;
	uint8_t file_type = dir_file_type(ext4_inode_mode(names->old_inode));
	int err;

	if (names->new_inode)
		err = dir_do_set(handle, names->ndir, names->nname, names->nlen, ino, file_type);
	else
		err = dir_do_add(handle, names->ndir, &names->add, ino, file_type);
	if (err == 0 && (names->flags & RENAME_WHITEOUT)) {
		err = make_whiteout(handle, names);
		if (err == 0)
			err = dir_do_set(handle, names->odir, names->oname, names->olen,
					 names->white->ino, EXT2_FT_CHRDEV);
	} else if (err == 0) {
		err = dir_do_remove(handle, names->odir, names->oname, names->olen);
	}
	if (err == 0 && names->new_inode) {
		if (is_dir(names->new_inode))
			dir_nlink_dec(names->ndir);
		err = dir_drop_link(handle, names->new_inode, names->now);
	}
	return err ? err : moved(handle, names, names->old_inode, names->odir, names->ndir);
}

static int change(struct journal_handle *handle, struct rename_args *names)
{
	struct ext4_inode *all[] = { names->odir, names->ndir, names->old_inode, names->new_inode };
	int err = 0;

	for (unsigned k = 0; err == 0 && k < ARRAY_SIZE(all); k++)
		if (all[k])
			err = ext4_inode_begin(handle, all[k]);
	if (err == 0)
		err = names->flags & RENAME_EXCHANGE ? do_exchange(handle, names)
						     : do_move(handle, names);
	if (err)
		return err;
	dir_touch(names->odir, EXT4_SET_MTIME | EXT4_SET_CTIME, names->now);
	dir_touch(names->ndir, EXT4_SET_MTIME | EXT4_SET_CTIME, names->now);
	err = ext4_inode_dirty(handle, names->odir, true);
	return err || names->odir == names->ndir ? err
						 : ext4_inode_dirty(handle, names->ndir, true);
}

static int transact(struct rename_args *names)
{
	/* Two entries, two "..", four inodes, the orphan list. */
	unsigned credits = 4 * DIR_CREDITS_CHANGE + 4 * EXT4_CREDITS_INODE + EXT4_CREDITS_ORPHAN,
		 blocks = 0;
	struct ext4_change op;
	int err;

	if (!names->new_inode) {
		err = dir_plan_add(names->ndir, names->nname, names->nlen, &names->add);
		if (err)
			return err;
		credits += names->add.credits;
		blocks = names->add.blocks;
	}
	if (names->flags & RENAME_WHITEOUT) {
		credits += EXT4_CREDITS_INODE_NEW + EXT4_CREDITS_XATTR +
			   ext4_acl_inherit_credits(names->odir);
		blocks += ext4_acl_inherit_blocks(names->odir, S_IFCHR);
	}
	err = ext4_change_begin(names->odir->vol, credits, blocks,
				ext4_requester(names->credentials->root), &op);
	if (err)
		return err;
	return dir_change_end(&op, change(op.handle, names), names->odir, names->ndir);
}

static int with_dirs_locked(struct rename_args *names)
{
	int err = dir_check_search(names->odir);

	if (err == 0)
		err = dir_check_search(names->ndir);
	if (err == 0)
		err = dir_check_change(names->odir);
	if (err == 0)
		err = dir_check_change(names->ndir);
	if (err == 0)
		err = find_inodes(names);
	if (err == 0)
		err = check_loops(names);
	/* Both names lead to the same inode: POSIX says that nothing is done. */
	if (err || names->old_inode == names->new_inode)
		return err;
	err = lock_inodes(names);
	if (err == 0)
		err = check_locked(names);
	if (err == 0)
		err = transact(names);
	unlock_inodes(names);
	return err;
}

static int check_args(const struct rename_args *names)
{
	const unsigned known = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
	int err = dir_check_name(names->oname, names->olen);

	if (err == 0)
		err = dir_check_name(names->nname, names->nlen);
	if (err)
		return err;
	if ((names->flags & ~known) ||
	    ((names->flags & RENAME_EXCHANGE) && names->flags != RENAME_EXCHANGE))
		return -EINVAL;
	if (ext4_name_is_dots(names->oname, names->olen) ||
	    ext4_name_is_dots(names->nname, names->nlen))
		return -EBUSY;
	return 0;
}

int ext4_rename(struct ext4_inode *odir, const char *oname, unsigned olen, struct ext4_inode *ndir,
		const char *nname, unsigned nlen, unsigned flags,
		const struct ext4_credentials *credentials)
{
	struct rename_args names = { .odir = odir,
			     .ndir = ndir,
			     .oname = oname,
			     .olen = olen,
			     .nname = nname,
			     .nlen = nlen,
			     .flags = flags,
			     .credentials = credentials,
			     .now = ext4_now(odir->vol) };
	int err;

	if (odir->vol != ndir->vol)
		return -EXDEV;
	err = check_args(&names);
	if (err == 0)
		err = lock_dirs(&names);
	if (err)
		return err;
	err = with_dirs_locked(&names);
	unlock_dirs(&names);
	ext4_inode_put(names.white);
	ext4_inode_put(names.old_inode);
	ext4_inode_put(names.new_inode);
	return err;
}
