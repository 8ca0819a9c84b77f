/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changing attributes other than the size: the mode with the ACL that follows it, owner, times,
 * flags; and removing privileges: a write or a change of owner clears set-ID bits and capabilities.
 * Each change is one transaction; an error leaves everything as it was.
 *
 * Workers, and loop threads in the mode of base/nowait.h. ext4_setattr takes the inode's lock
 * exclusively. ext4_needs_killpriv: any thread, no lock.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/inode_change.h"
#include "ext4/life/life.h"

#include "base/nowait.h"

#include <errno.h>
#include <string.h>

#ifndef FS_DAX_FL
#define FS_DAX_FL 0x02000000
#endif

/*
 * The flags that may be changed. Some have no effect here; they are kept for other readers of the
 * file system, as the kernel does.
 */
#define SETTABLE_FLAGS                                                                          \
	(EXT2_SECRM_FL | EXT2_UNRM_FL | EXT2_COMPR_FL | EXT2_SYNC_FL | EXT2_IMMUTABLE_FL |      \
	 EXT2_APPEND_FL | EXT2_NODUMP_FL | EXT2_NOATIME_FL | EXT2_DIRSYNC_FL | EXT2_TOPDIR_FL | \
	 EXT2_NOTAIL_FL | EXT4_PROJINHERIT_FL | FS_DAX_FL)

/* The kernel can change these, fusedio cannot: data journalling, block maps, casefolded names. */
#define REFUSED_FLAGS (EXT3_JOURNAL_DATA_FL | EXT4_EXTENTS_FL | EXT4_CASEFOLD_FL)

/* The flags that a request may name: chattr sends back all that it has read. */
#define VISIBLE_FLAGS 0x725bdfffU

/*
 * -EOPNOTSUPP: these flags cannot be set. -EPERM: the inode is immutable and stays so, so no other
 * flag may change. The inode is locked.
 */
static int check_flags(struct ext4_inode *inode, uint32_t flags)
{
	uint32_t old = inode->raw->i_flags, mode = ext4_inode_mode(inode), allowed = UINT32_MAX;

	if (!S_ISDIR(mode))
		allowed = S_ISREG(mode) ? ~(uint32_t)(EXT2_DIRSYNC_FL | EXT2_TOPDIR_FL |
						      EXT4_CASEFOLD_FL | EXT4_PROJINHERIT_FL)
					: EXT2_NODUMP_FL | EXT2_NOATIME_FL;
	if (flags & ~(VISIBLE_FLAGS & allowed))
		return -EOPNOTSUPP;
	if ((old & flags & EXT2_IMMUTABLE_FL) && (old & VISIBLE_FLAGS) != flags)
		return -EPERM;
	return (old ^ flags) & REFUSED_FLAGS ? -EOPNOTSUPP : 0;
}

static int set_flags(struct ext4_inode *inode, uint32_t flags)
{
	int err = check_flags(inode, flags);

	if (err)
		return err;
	fdio_mutex_lock(&inode->attr);
	inode->raw->i_flags = (inode->raw->i_flags & ~SETTABLE_FLAGS) | (flags & SETTABLE_FLAGS);
	__atomic_store_n(&inode->live_flags, flags & EXT4_LIVE_FLAGS, __ATOMIC_RELAXED);
	fdio_mutex_unlock(&inode->attr);
	return 0;
}

static void set_owner(struct ext4_inode *inode, unsigned what, const struct ext4_attr *attr)
{
	fdio_mutex_lock(&inode->attr);
	if (what & EXT4_SET_UID) {
		inode->raw->i_uid = (uint16_t)attr->uid;
		inode->raw->osd2.linux2.l_i_uid_high = (uint16_t)(attr->uid >> 16);
	}
	if (what & EXT4_SET_GID) {
		inode->raw->i_gid = (uint16_t)attr->gid;
		inode->raw->osd2.linux2.l_i_gid_high = (uint16_t)(attr->gid >> 16);
	}
	fdio_mutex_unlock(&inode->attr);
}

/*
 * The mode without set-ID bits. The setgid bit of a file that its group cannot execute stays,
 * unless sgid is true. Directories keep both bits; devices and FIFOs lose them to a change of owner
 * (writes do not come here).
 */
static uint32_t killed_mode(uint32_t mode, bool sgid)
{
	if (S_ISDIR(mode))
		return mode;
	return mode & ~(S_ISUID | (sgid || (mode & S_IXGRP) ? (uint32_t)S_ISGID : 0U));
}

static int kill_privs(struct journal_handle *handle, struct ext4_inode *inode, bool sgid)
{
	uint32_t mode = ext4_inode_mode(inode);

	fdio_mutex_lock(&inode->attr);
	if (killed_mode(mode, sgid) != mode)
		ext4_raw_set_mode(inode, killed_mode(mode, sgid));
	fdio_mutex_unlock(&inode->attr);
	return ext4_xattr_kill_caps(handle, inode);
}

static void set_times(struct ext4_inode *inode, unsigned what, const struct ext4_attr *attr)
{
	struct timespec now = ext4_now(inode->vol);

	fdio_mutex_lock(&inode->attr);
	if (what & EXT4_SET_ATIME)
		ext4_raw_set_time(inode, EXT4_SET_ATIME, attr->atime);
	if (what & EXT4_SET_ATIME_NOW)
		ext4_raw_set_time(inode, EXT4_SET_ATIME, now);
	if (what & EXT4_SET_MTIME)
		ext4_raw_set_time(inode, EXT4_SET_MTIME, attr->mtime);
	if (what & EXT4_SET_MTIME_NOW)
		ext4_raw_set_time(inode, EXT4_SET_MTIME, now);
	ext4_raw_set_time(inode, EXT4_SET_CTIME, (what & EXT4_SET_CTIME) ? attr->ctime : now);
	fdio_mutex_unlock(&inode->attr);
}

/* new_mode has no file type. The access ACL follows the mode. */
static int change_mode(struct journal_handle *handle, struct ext4_inode *inode, uint32_t new_mode)
{
	uint32_t mode = (ext4_inode_mode(inode) & S_IFMT) | new_mode;

	fdio_mutex_lock(&inode->attr);
	ext4_raw_set_mode(inode, mode);
	fdio_mutex_unlock(&inode->attr);
	return inode->vol->options.acl && !S_ISLNK(mode) ? ext4_acl_chmod(handle, inode, mode) : 0;
}

static int apply(struct journal_handle *handle, struct ext4_inode *inode, unsigned what,
		 const struct ext4_attr *attr)
{
	int err = ext4_inode_begin(handle, inode);

	if (!err && (what & EXT4_SET_FLAGS))
		err = set_flags(inode, attr->flags);
	if (!err && (what & EXT4_KILL_SUIDGID))
		err = kill_privs(handle, inode, what & EXT4_KILL_SGID);
	else if (!err && (what & EXT4_KILL_CAPS))
		err = ext4_xattr_kill_caps(handle, inode);
	if (!err && (what & EXT4_SET_MODE))
		err = change_mode(handle, inode, attr->mode & 07777);
	if (err)
		return err;
	set_owner(inode, what, attr);
	set_times(inode, what, attr);
	return ext4_inode_dirty(handle, inode, false);
}

/*
 * True if EXT4_KILL_SUIDGID would change nothing. If no writer has anything to remove, notes that
 * for ext4_needs_killpriv. The inode is locked.
 */
static bool nothing_to_kill(struct ext4_inode *inode, bool sgid)
{
	uint32_t mode = ext4_inode_mode(inode);
	bool none;

	if (ext4_killpriv_none(inode))
		return true;
	none = killed_mode(mode, sgid) == mode && !ext4_xattr_has_caps(inode);
	if (none && killed_mode(mode, true) == mode)
		ext4_killpriv_set_none(inode);
	return none;
}

bool ext4_nothing_to_kill(struct ext4_inode *inode) { return nothing_to_kill(inode, true); }

/* Blocks that the change may need, at most: it may have to copy a shared attribute block. */
static unsigned setattr_blocks(struct ext4_inode *inode, unsigned what)
{
	unsigned blocks = what & EXT4_SET_MODE ? ext4_acl_chmod_blocks(inode) : 0;

	if (what & (EXT4_KILL_SUIDGID | EXT4_KILL_CAPS))
		blocks += ext4_xattr_remove_blocks(inode);
	return blocks;
}

static int setattr_locked(struct ext4_inode *inode, unsigned what, const struct ext4_attr *attr)
{
	enum ext4_requester who = EXT4_REQUESTER_SYSTEM;
	unsigned credits = EXT4_CREDITS_INODE + 2 * EXT4_CREDITS_XATTR +
			   ext4_acl_chmod_credits(inode);
	struct ext4_change change;
	int err;

	if (what & EXT4_SET_MODE)
		who = ext4_requester(what & EXT4_BY_ROOT);
	err = ext4_change_begin(inode->vol, credits, setattr_blocks(inode, what), who, &change);
	return err ? err : ext4_change_end(&change, apply(change.handle, inode, what, attr));
}

int ext4_setattr(struct ext4_inode *inode, unsigned what, const struct ext4_attr *attr)
{
	int err = 0;

	if (ext4_vol_read_only(inode->vol))
		return -EROFS;
	err = ext4_inode_enter_exclusive(inode);
	if (err)
		return err;
	if ((what & EXT4_KILL_SUIDGID) && nothing_to_kill(inode, what & EXT4_KILL_SGID))
		what &= ~(unsigned)EXT4_KILL_SUIDGID;
	if ((what & EXT4_KILL_CAPS) &&
	    (nothing_to_kill(inode, true) || !ext4_xattr_has_caps(inode)))
		what &= ~(unsigned)EXT4_KILL_CAPS;
	if (what & ~(unsigned)(EXT4_KILL_SGID | EXT4_BY_ROOT))
		err = setattr_locked(inode, what, attr);
	ext4_inode_unlock(inode);
	return err;
}

bool ext4_needs_killpriv(struct ext4_inode *inode) { return !ext4_killpriv_none(inode); }
