/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rename in one transaction: plain, with replacement, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT. Workers, and
 * within one directory loop threads in the mode of nowait.h.
 *
 * Locks: rename_lock if two directories are involved, so that the tree above them stands still; then the two
 * directories, an ancestor before its descendant, else by inode number; then the inodes behind the names, directories first,
 * by inode number. A directory cannot go below itself: the ancestors of the new place are walked before any inode lock is
 * held, which rename_lock keeps true.
 */
#include "ext4/dir/directory.h"
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "base/nowait.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct ren {
	struct x4_inode *odir, *ndir;
	const char *oname, *nname;
	unsigned olen, nlen, flags;
	const struct x4_cred *cred;
	struct x4_inode *oi, *ni;   /* behind the names; ni NULL: the new name is free */
	uint32_t below_odir;        /* child of odir on the way to ndir; 0: ndir is not below odir */
	uint32_t below_ndir;        /* the same, the other way round */
	struct x4_inode *locked[2];
	struct x4_inode *white;
	struct timespec now;
	struct dir_add add;
};

static bool is_dir(const struct x4_inode *i) { return S_ISDIR(x4_inode_mode(i)); }

/*
 * Walks from low up to the root. *ret_child: the child of high on the way, 0 if high is not on it.
 * An image may have the way run in a circle: one place on it is remembered, at each power of two of
 * steps anew, and met again after as many steps as the circle has.
 */
static int find_on_path(struct x4_inode *low, const struct x4_inode *high, uint32_t *ret_child)
{
	struct x4_inode *cur = x4_iref(low), *up;
	uint64_t steps = 0, renew = 1;
	uint32_t mark = low->ino;
	int r = 0;

	*ret_child = 0;
	while (cur->ino != X4_ROOT_INO) {
		r = x4_lookup_parent(cur, &up);
		if (r)
			break;
		if (up == high)
			*ret_child = cur->ino;
		x4_iput(cur);
		cur = up;
		if (up == high)
			break;
		if (up->ino == mark) {
			r = X4_CORRUPT(low->vol, low->ino, 0, "directories form a loop");
			break;
		}
		if (++steps == renew) {
			mark = up->ino;
			renew *= 2;
		}
	}
	x4_iput(cur);
	return r;
}

static int lock_dirs(struct ren *n)
{
	struct x4_inode *first = n->odir, *second = n->ndir;
	int r;

	if (n->odir == n->ndir)
		return x4_inode_enter_excl(n->odir);
	if (nowait_on()) /* the ways up may be long */
		return nowait_miss();
	fdio_mutex_lock(&n->odir->vol->dir.rename_lock);
	r = find_on_path(n->ndir, n->odir, &n->below_odir);
	if (r == 0 && !n->below_odir)
		r = find_on_path(n->odir, n->ndir, &n->below_ndir);
	if (r) {
		fdio_mutex_unlock(&n->odir->vol->dir.rename_lock);
		return r;
	}
	if (n->below_ndir || (!n->below_odir && n->ndir->ino < n->odir->ino)) {
		first = n->ndir;
		second = n->odir;
	}
	x4_inode_lock_excl(first);
	x4_inode_lock_excl(second);
	return 0;
}

static void unlock_dirs(struct ren *n)
{
	x4_inode_unlock(n->odir);
	if (n->odir == n->ndir)
		return;
	x4_inode_unlock(n->ndir);
	fdio_mutex_unlock(&n->odir->vol->dir.rename_lock);
}

static int find_inodes(struct ren *n)
{
	struct dir_pos pos;
	int r = dir_find(n->odir, n->oname, n->olen, &pos);

	if (r == 0)
		r = dir_iget(n->odir, &pos, &n->oi);
	if (r) {
		n->oi = NULL;
		return r;
	}
	r = dir_find(n->ndir, n->nname, n->nlen, &pos);
	if (r == -ENOENT)
		return n->flags & RENAME_EXCHANGE ? r : 0;
	if (r == 0 && (n->flags & RENAME_NOREPLACE))
		return -EEXIST;
	if (r == 0)
		r = dir_iget(n->ndir, &pos, &n->ni);
	if (r)
		n->ni = NULL;
	return r;
}

/* What must hold before the inodes are locked, because the locks depend on it. */
static int check_loops(const struct ren *n)
{
	if (is_dir(n->oi) && (n->oi == n->ndir || n->oi->ino == n->below_odir))
		return -EINVAL;
	if (!n->ni || !is_dir(n->ni) || !(n->ni == n->odir || n->ni->ino == n->below_ndir))
		return 0;
	return n->flags & RENAME_EXCHANGE ? -EINVAL : -ENOTEMPTY;
}

static int lock_inodes(struct ren *n)
{
	struct x4_inode *a = n->oi, *b = n->ni == n->oi ? NULL : n->ni;
	int r;

	if (b && (is_dir(b) != is_dir(a) ? is_dir(b) : b->ino < a->ino)) {
		a = n->ni;
		b = n->oi;
	}
	r = x4_inode_enter_excl(a);
	if (r)
		return r;
	n->locked[0] = a;
	r = b ? x4_inode_enter_excl(b) : 0;
	if (r == 0)
		n->locked[1] = b;
	return r;
}

static void unlock_inodes(struct ren *n)
{
	for (unsigned k = 0; k < 2; k++)
		if (n->locked[k])
			x4_inode_unlock(n->locked[k]);
}

static int check_replace(struct ren *n)
{
	int r;

	if (is_dir(n->ni) && !is_dir(n->oi))
		return -EISDIR;
	if (!is_dir(n->ni) && is_dir(n->oi))
		return -ENOTDIR;
	if (!is_dir(n->ni))
		return 0;
	r = dir_is_empty(n->ni);
	return r < 0 ? r : r ? 0 : -ENOTEMPTY;
}

static int check_locked(struct ren *n)
{
	bool cross = n->odir != n->ndir;
	int r = dir_check_remove(n->odir, n->oi);

	if (r == 0 && n->ni)
		r = dir_check_remove(n->ndir, n->ni);
	if (r)
		return r;
	if (n->oi->ino == X4_ROOT_INO || (n->ni && n->ni->ino == X4_ROOT_INO))
		return X4_CORRUPT(n->odir->vol, n->odir->ino, 0, "an entry leads to the root directory");
	if (n->flags & RENAME_EXCHANGE) {
		if (cross && is_dir(n->oi) && !is_dir(n->ni) && dir_nlink_full(n->ndir))
			return -EMLINK;
		return cross && is_dir(n->ni) && !is_dir(n->oi) && dir_nlink_full(n->odir) ? -EMLINK : 0;
	}
	if (n->ni)
		return check_replace(n);
	return cross && is_dir(n->oi) && dir_nlink_full(n->ndir) ? -EMLINK : 0;
}

/* ---- in the handle ---- */
/* i is now in dir: its ".." and its ctime. */
static int moved(struct jnl_handle *h, struct ren *n, struct x4_inode *i, struct x4_inode *from, struct x4_inode *to)
{
	int r = 0;

	if (is_dir(i) && from != to) {
		r = dir_do_set(h, i, "..", 2, to->ino, EXT2_FT_DIR);
		__atomic_store_n(&i->dir.moved, true, __ATOMIC_RELEASE); /* if the handle is cancelled, needlessly */
		if (r)
			return r;
		/* One directory for another: a count that is at its limit must not even go there and back. */
		if (!(n->flags & RENAME_EXCHANGE) || !is_dir(n->oi) || !is_dir(n->ni)) {
			dir_nlink_dec(from);
			dir_nlink_inc(to);
		}
	}
	dir_touch(i, X4_SET_CTIME, n->now);
	return x4_inode_dirty(h, i, is_dir(i));
}

static int do_exchange(struct jnl_handle *h, struct ren *n)
{
	int r = dir_do_set(h, n->odir, n->oname, n->olen, n->ni->ino, dir_ft_of_mode(x4_inode_mode(n->ni)));

	if (r == 0)
		r = dir_do_set(h, n->ndir, n->nname, n->nlen, n->oi->ino, dir_ft_of_mode(x4_inode_mode(n->oi)));
	if (r == 0)
		r = moved(h, n, n->oi, n->odir, n->ndir);
	return r ? r : moved(h, n, n->ni, n->ndir, n->odir);
}

static int make_whiteout(struct jnl_handle *h, struct ren *n)
{
	int r = x4_inode_new(h, n->odir, S_IFCHR, n->cred, &n->white);
	uint32_t mode = S_IFCHR;
	bool had_default;

	if (r) {
		n->white = NULL;
		return r;
	}
	/* A new file of its directory like any other. */
	r = x4_acl_inherit(h, n->odir, n->white, &mode, &had_default);
	if (r)
		return r;
	fdio_mutex_lock(&n->white->attr);
	x4_raw_set_born(n->white, n->now);
	fdio_mutex_unlock(&n->white->attr);
	x4_raw_set_rdev(n->white, 0);
	return x4_inode_dirty(h, n->white, true);
}

static int do_move(struct jnl_handle *h, struct ren *n)
{
	uint8_t ft = dir_ft_of_mode(x4_inode_mode(n->oi));
	int r;

	if (n->ni)
		r = dir_do_set(h, n->ndir, n->nname, n->nlen, n->oi->ino, ft);
	else
		r = dir_do_add(h, n->ndir, &n->add, n->oi->ino, ft);
	if (r == 0 && (n->flags & RENAME_WHITEOUT)) {
		r = make_whiteout(h, n);
		if (r == 0)
			r = dir_do_set(h, n->odir, n->oname, n->olen, n->white->ino, EXT2_FT_CHRDEV);
	} else if (r == 0) {
		r = dir_do_remove(h, n->odir, n->oname, n->olen);
	}
	if (r == 0 && n->ni) {
		if (is_dir(n->ni))
			dir_nlink_dec(n->ndir);
		r = dir_drop_link(h, n->ni, n->now);
	}
	return r ? r : moved(h, n, n->oi, n->odir, n->ndir);
}

static int change(struct jnl_handle *h, struct ren *n)
{
	struct x4_inode *all[] = { n->odir, n->ndir, n->oi, n->ni };
	int r = 0;

	for (unsigned k = 0; r == 0 && k < ARRAY_SIZE(all); k++)
		if (all[k])
			r = x4_inode_begin(h, all[k]);
	if (r == 0)
		r = n->flags & RENAME_EXCHANGE ? do_exchange(h, n) : do_move(h, n);
	if (r)
		return r;
	dir_touch(n->odir, X4_SET_MTIME | X4_SET_CTIME, n->now);
	dir_touch(n->ndir, X4_SET_MTIME | X4_SET_CTIME, n->now);
	r = x4_inode_dirty(h, n->odir, true);
	return r || n->odir == n->ndir ? r : x4_inode_dirty(h, n->ndir, true);
}

static int transact(struct ren *n)
{
	/* Two entries, two "..", four inodes, the orphan list. */
	unsigned credits = 4 * DIR_CREDITS_CHANGE + 4 * X4_CREDITS_INODE + X4_CREDITS_ORPHAN, blocks = 0;
	struct dir_op op;
	int r;

	if (!n->ni) {
		r = dir_plan_add(n->ndir, n->nname, n->nlen, &n->add);
		if (r)
			return r;
		credits += n->add.credits;
		blocks = n->add.blocks;
	}
	if (n->flags & RENAME_WHITEOUT) {
		credits += X4_CREDITS_INODE_NEW + X4_CREDITS_XATTR + x4_acl_inherit_credits(n->odir);
		blocks += x4_acl_inherit_blocks(n->odir, S_IFCHR);
	}
	r = dir_op_begin(n->odir->vol, credits, blocks, n->cred->root, &op);
	if (r)
		return r;
	return dir_op_end(&op, change(op.h, n), n->odir, n->ndir);
}

static int with_dirs_locked(struct ren *n)
{
	int r = dir_check_search(n->odir);

	if (r == 0)
		r = dir_check_search(n->ndir);
	if (r == 0)
		r = dir_check_change(n->odir);
	if (r == 0)
		r = dir_check_change(n->ndir);
	if (r == 0)
		r = find_inodes(n);
	if (r == 0)
		r = check_loops(n);
	/* Two names of one inode: there is nothing to do, says POSIX. */
	if (r || n->oi == n->ni)
		return r;
	r = lock_inodes(n);
	if (r == 0)
		r = check_locked(n);
	if (r == 0)
		r = transact(n);
	unlock_inodes(n);
	return r;
}

static int check_args(const struct ren *n)
{
	const unsigned known = RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT;
	int r = dir_check_name(n->oname, n->olen);

	if (r == 0)
		r = dir_check_name(n->nname, n->nlen);
	if (r)
		return r;
	if ((n->flags & ~known) || ((n->flags & RENAME_EXCHANGE) && n->flags != RENAME_EXCHANGE))
		return -EINVAL;
	if ((n->olen <= 2 && !memcmp(n->oname, "..", n->olen)) || (n->nlen <= 2 && !memcmp(n->nname, "..", n->nlen)))
		return -EBUSY;
	return 0;
}

int x4_rename(struct x4_inode *odir, const char *oname, unsigned olen, struct x4_inode *ndir, const char *nname, unsigned nlen,
	      unsigned flags, const struct x4_cred *c)
{
	struct ren n = { .odir = odir, .ndir = ndir, .oname = oname, .olen = olen, .nname = nname, .nlen = nlen, .flags = flags,
			 .cred = c, .now = x4_now(odir->vol) };
	int r;

	if (odir->vol != ndir->vol)
		return -EXDEV;
	r = check_args(&n);
	if (r == 0)
		r = lock_dirs(&n);
	if (r)
		return r;
	r = with_dirs_locked(&n);
	unlock_dirs(&n);
	x4_iput(n.white);
	x4_iput(n.oi);
	x4_iput(n.ni);
	return r;
}
