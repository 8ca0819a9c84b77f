/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changing attributes other than the size: mode with the ACL that follows it, owner, times, flags, and what a
 * write or a change of owner takes away (set-ID bits, capabilities). One transaction. Workers, and loop threads
 * in the mode of nowait.h. An error leaves everything as it was.
 */
#include "ext4/core/structs.h"
#include "ext4/life/life.h"

#include "base/nowait.h"

#include <errno.h>
#include <string.h>

#ifndef FS_NOCOW_FL
#define FS_NOCOW_FL 0x00800000
#endif
#ifndef FS_DAX_FL
#define FS_DAX_FL 0x02000000
#endif

/* What may be changed; flags without an effect here are kept for who knows them, as the kernel does. */
#define SETTABLE_FLAGS                                                                                                         \
	(EXT2_SECRM_FL | EXT2_UNRM_FL | EXT2_COMPR_FL | EXT2_SYNC_FL | EXT2_IMMUTABLE_FL | EXT2_APPEND_FL | EXT2_NODUMP_FL |       \
	 EXT2_NOATIME_FL | EXT2_DIRSYNC_FL | EXT2_TOPDIR_FL | EXT2_NOTAIL_FL | EXT4_PROJINHERIT_FL | FS_DAX_FL)

/* What the kernel could change and this room cannot: data in the journal, block maps, names without case. */
#define REFUSED_FLAGS (EXT3_JOURNAL_DATA_FL | EXT4_EXTENTS_FL | EXT4_CASEFOLD_FL)

/* What may be named at all, as chattr does with what it has read. */
#define VISIBLE_FLAGS 0x725bdfffU

/* -EPERM: an immutable file stays as it is, but for that flag. The inode is locked. */
static int check_flags(struct x4_inode *i, uint32_t flags)
{
	uint32_t old = i->raw->i_flags, mode = x4_inode_mode(i), allowed = UINT32_MAX;

	if (!S_ISDIR(mode))
		allowed = S_ISREG(mode) ? ~(uint32_t)(EXT2_DIRSYNC_FL | EXT2_TOPDIR_FL | EXT4_CASEFOLD_FL | EXT4_PROJINHERIT_FL) :
			EXT2_NODUMP_FL | EXT2_NOATIME_FL;
	if (flags & ~(VISIBLE_FLAGS & allowed))
		return -EOPNOTSUPP;
	if ((old & flags & EXT2_IMMUTABLE_FL) && (old & VISIBLE_FLAGS) != flags)
		return -EPERM;
	return (old ^ flags) & REFUSED_FLAGS ? -EOPNOTSUPP : 0;
}

static int set_flags(struct x4_inode *i, uint32_t flags)
{
	int err = check_flags(i, flags);

	if (err)
		return err;
	fdio_mutex_lock(&i->attr);
	i->raw->i_flags = (i->raw->i_flags & ~SETTABLE_FLAGS) | (flags & SETTABLE_FLAGS);
	__atomic_store_n(&i->live_flags, flags & X4_LIVE_FLAGS, __ATOMIC_RELAXED);
	fdio_mutex_unlock(&i->attr);
	return 0;
}

static void set_owner(struct x4_inode *i, unsigned what, const struct x4_attr *a)
{
	fdio_mutex_lock(&i->attr);
	if (what & X4_SET_UID) {
		i->raw->i_uid = (uint16_t)a->uid;
		i->raw->osd2.linux2.l_i_uid_high = (uint16_t)(a->uid >> 16);
	}
	if (what & X4_SET_GID) {
		i->raw->i_gid = (uint16_t)a->gid;
		i->raw->osd2.linux2.l_i_gid_high = (uint16_t)(a->gid >> 16);
	}
	fdio_mutex_unlock(&i->attr);
}

static uint32_t killed_mode(uint32_t mode, bool sgid)
{
	/* A change of owner strips devices and FIFOs as well; only directories keep theirs. Writes reach regular files alone. */
	if (S_ISDIR(mode))
		return mode;
	return mode & ~(S_ISUID | (sgid || (mode & S_IXGRP) ? (uint32_t)S_ISGID : 0U));
}

static int kill_privs(struct jnl_handle *h, struct x4_inode *i, bool sgid)
{
	uint32_t mode = x4_inode_mode(i);

	fdio_mutex_lock(&i->attr);
	if (killed_mode(mode, sgid) != mode)
		x4_raw_set_mode(i, killed_mode(mode, sgid));
	fdio_mutex_unlock(&i->attr);
	return x4_xattr_kill_caps(h, i);
}

static void set_times(struct x4_inode *i, unsigned what, const struct x4_attr *a)
{
	struct timespec now = x4_now(i->vol);

	fdio_mutex_lock(&i->attr);
	if (what & X4_SET_ATIME)
		x4_raw_set_time(i, X4_SET_ATIME, a->atime);
	if (what & X4_SET_ATIME_NOW)
		x4_raw_set_time(i, X4_SET_ATIME, now);
	if (what & X4_SET_MTIME)
		x4_raw_set_time(i, X4_SET_MTIME, a->mtime);
	if (what & X4_SET_MTIME_NOW)
		x4_raw_set_time(i, X4_SET_MTIME, now);
	x4_raw_set_time(i, X4_SET_CTIME, (what & X4_SET_CTIME) ? a->ctime : now);
	fdio_mutex_unlock(&i->attr);
}

static int apply(struct jnl_handle *h, struct x4_inode *i, unsigned what, const struct x4_attr *a)
{
	int err = x4_inode_begin(h, i);

	if (!err && (what & X4_SET_FLAGS))
		err = set_flags(i, a->flags);
	if (!err && (what & X4_KILL_SUIDGID))
		err = kill_privs(h, i, what & X4_KILL_SGID);
	else if (!err && (what & X4_KILL_CAPS))
		err = x4_xattr_kill_caps(h, i);
	if (!err && (what & X4_SET_MODE)) {
		uint32_t mode = (x4_inode_mode(i) & S_IFMT) | (a->mode & 07777);

		fdio_mutex_lock(&i->attr);
		x4_raw_set_mode(i, mode);
		fdio_mutex_unlock(&i->attr);
		if (i->vol->opt.acl && !S_ISLNK(mode))
			err = x4_acl_chmod(h, i, mode);
	}
	if (err)
		return err;
	set_owner(i, what, a);
	set_times(i, what, a);
	return x4_inode_dirty(h, i, false);
}

/* True if KILL_SUIDGID has nothing to do; remembers it, if that holds whoever asks. The inode is locked. */
static bool nothing_to_kill(struct x4_inode *i, bool sgid)
{
	uint32_t mode = x4_inode_mode(i);
	bool none;

	if (x4_killpriv_none(i))
		return true;
	none = killed_mode(mode, sgid) == mode && !x4_xattr_has_caps(i);
	if (none && killed_mode(mode, true) == mode)
		x4_killpriv_set_none(i);
	return none;
}

bool x4_nothing_to_kill(struct x4_inode *i) { return nothing_to_kill(i, true); }

/* Blocks that it may need: for an ACL that moves out of a block of several inodes, or what is left there. */
static int setattr_reserve(struct x4_inode *i, unsigned what, unsigned *ret_blocks)
{
	enum x4_asks who = what & X4_SET_MODE ? x4_asks(what & X4_BY_ROOT) : X4_ASKS_SYSTEM;
	int err;

	*ret_blocks = what & X4_SET_MODE ? x4_acl_chmod_blocks(i) : 0;
	if (what & (X4_KILL_SUIDGID | X4_KILL_CAPS))
		*ret_blocks += x4_xattr_remove_blocks(i);
	err = *ret_blocks ? x4_meta_reserve(i->vol, *ret_blocks, who) : 0;
	if (err)
		*ret_blocks = 0;
	return err;
}

static int setattr_locked(struct x4_inode *i, unsigned what, const struct x4_attr *a)
{
	struct jnl_handle *h;
	unsigned blocks;
	int err = setattr_reserve(i, what, &blocks);

	if (!err)
		err = jnl_begin(i->vol->jnl, X4_CREDITS_INODE + 2 * X4_CREDITS_XATTR + x4_acl_chmod_credits(i), &h);
	if (!err) {
		err = nowait_err(apply(h, i, what, a));
		if (err)
			jnl_cancel(h);
		else
			jnl_end(h);
	}
	if (blocks)
		x4_meta_unreserve(i->vol, blocks);
	return err;
}

int x4_setattr(struct x4_inode *i, unsigned what, const struct x4_attr *a)
{
	int err = 0;

	if (x4_vol_read_only(i->vol))
		return -EROFS;
	err = x4_inode_enter_excl(i);
	if (err)
		return err;
	if ((what & X4_KILL_SUIDGID) && nothing_to_kill(i, what & X4_KILL_SGID))
		what &= ~(unsigned)X4_KILL_SUIDGID;
	if ((what & X4_KILL_CAPS) && (nothing_to_kill(i, true) || !x4_xattr_has_caps(i)))
		what &= ~(unsigned)X4_KILL_CAPS;
	if (what & ~(unsigned)(X4_KILL_SGID | X4_BY_ROOT))
		err = setattr_locked(i, what, a);
	x4_inode_unlock(i);
	return err;
}

bool x4_needs_killpriv(struct x4_inode *i) { return !x4_killpriv_none(i); }
