/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making inodes: ext4_inode_new, inside the handle of the operation that creates a file. Workers,
 * and loop threads in the mode of base/nowait.h; the directory is locked exclusively, and no other
 * thread can reach the new inode yet.
 *
 * If the handle is cancelled, the number is free again (the block of the bitmap is put back), and
 * the struct is bad and out of the hash; the caller still drops its reference. If ext4_inode_new
 * itself fails, nothing is left of it after the caller has cancelled the handle.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/disk_inode.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#ifndef FS_DAX_FL
#define FS_DAX_FL 0x02000000
#endif
/*
 * The flags that a new inode inherits from its directory: the kernel's list, with flags that have
 * no effect here. Regular files inherit all but NOT_FOR_FILES.
 */
#define INHERITED_FLAGS                                                                  \
	(EXT2_SECRM_FL | EXT2_UNRM_FL | EXT2_COMPR_FL | EXT2_NOCOMPR_FL | EXT2_SYNC_FL | \
	 EXT2_NODUMP_FL | EXT2_NOATIME_FL | EXT2_NOTAIL_FL | EXT2_DIRSYNC_FL |           \
	 EXT3_JOURNAL_DATA_FL | EXT4_PROJINHERIT_FL | FS_DAX_FL)
#define NOT_FOR_FILES (EXT2_DIRSYNC_FL | EXT4_PROJINHERIT_FL)

struct new_undo {
	struct journal_callback callback;
	struct ext4_inode *inode;
	bool lone; /* only this undo has the struct: ext4_inode_new has not returned it yet */
};

static void new_undo(struct journal_callback *callback, int ended)
{
	struct new_undo *undo = container_of(callback, struct new_undo, callback);
	struct ext4_vol *vol = undo->inode->vol;

	if (undo->lone) {
		ext4_inode_free(undo->inode);
	} else if (!ended) {
		fdio_mutex_lock(&vol->inode.lock);
		undo->inode->inode.bad = true;
		fdio_mutex_unlock(&vol->inode.lock);
		ext4_inode_unhash(undo->inode);
	}
}

static bool in_group(const struct ext4_credentials *credentials, uint32_t gid)
{
	if (credentials->gid == gid)
		return true;
	for (unsigned n = 0; n < credentials->nr_groups; n++)
		if (credentials->groups[n] == gid)
			return true;
	return false;
}

/*
 * A directory with the setgid bit gives its group to what is created in it, and to directories the
 * bit as well. Without CAP_FSETID, a process that is not in that group cannot create an executable
 * file with setgid.
 */
static void set_owner(struct ext4_inode *inode, struct ext4_inode *dir, uint32_t mode,
		      const struct ext4_credentials *credentials)
{
	bool dir_setgid = dir->raw->i_mode & S_ISGID;
	uint32_t gid = credentials->gid;

	if (dir_setgid || inode->vol->options.grpid)
		gid = dir->raw->i_gid | (uint32_t)dir->raw->osd2.linux2.l_i_gid_high << 16;
	if (dir_setgid && S_ISDIR(mode))
		mode |= S_ISGID;
	else if (!S_ISDIR(mode) && (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) &&
		 !in_group(credentials, gid) && !credentials->cap_fsetid)
		mode &= ~(uint32_t)S_ISGID;
	inode->raw->i_mode = (uint16_t)mode;
	inode->raw->i_uid = (uint16_t)credentials->uid;
	inode->raw->osd2.linux2.l_i_uid_high = (uint16_t)(credentials->uid >> 16);
	inode->raw->i_gid = (uint16_t)gid;
	inode->raw->osd2.linux2.l_i_gid_high = (uint16_t)(gid >> 16);
}

static uint32_t inherited_flags(const struct ext4_inode *dir, uint32_t mode)
{
	uint32_t flags = dir->raw->i_flags & INHERITED_FLAGS;

	if (S_ISDIR(mode))
		return flags;
	if (S_ISREG(mode))
		return flags & ~(uint32_t)NOT_FOR_FILES;
	return flags & (EXT2_NODUMP_FL | EXT2_NOATIME_FL);
}

uint16_t ext4_extra_isize(const struct ext4_vol *vol)
{
	const uint32_t known = sizeof(struct ext2_inode_large) - 128; /* the fields in use here */
	uint32_t want;

	if (vol->inode_size <= 128)
		return 0;
	want = FDIO_MAX(known, (uint32_t)vol->fs->super->s_want_extra_isize);
	want = FDIO_MAX(want, (uint32_t)vol->fs->super->s_min_extra_isize);
	return (uint16_t)((want & 3) || want > vol->inode_size - 128 ? known : want);
}

static void init_raw(struct ext4_inode *inode, struct ext4_inode *dir, uint32_t mode,
		     const struct ext4_credentials *credentials)
{
	struct timespec now = ext4_now(inode->vol);
	uint32_t *gen = &inode->raw->i_generation;

	memset(inode->raw, 0, FDIO_MAX(inode->vol->inode_size, 256U));
	if (getrandom(gen, sizeof(*gen), GRND_NONBLOCK) < 0)
		*gen = (uint32_t)now.tv_nsec ^ inode->ino;
	set_owner(inode, dir, mode, credentials);
	inode->raw->i_links_count = 1;
	inode->raw->i_flags = inherited_flags(dir, mode);
	if (inode->vol->inode_size > 128)
		inode->raw->i_extra_isize = ext4_extra_isize(inode->vol);
	ext4_inode_set_seed(inode);
	ext4_raw_set_born(inode, now);
	if (S_ISREG(mode) || S_ISDIR(mode))
		ext4_extent_init(inode);
	ext4_inode_sync_copies(inode);
}

/* inode is the first in its block of the inode table, which was never written: zeroes it. */
static int start_table_block(struct journal_handle *handle, struct ext4_inode *inode)
{
	struct journal_buffer *buffer;
	uint32_t off;
	int err = journal_new_block(handle, ext4_itable_place(inode->vol, inode->ino, &off),
				    &buffer);

	if (!err)
		journal_buffer_release(buffer);
	return err;
}

int ext4_inode_new(struct journal_handle *handle, struct ext4_inode *dir, uint32_t mode,
		   const struct ext4_credentials *credentials, struct ext4_inode **ret)
{
	struct ext4_vol *vol = dir->vol;
	struct new_undo *undo = NULL;
	struct ext4_inode *inode = NULL;
	uint32_t ino;
	bool fresh;
	int err = ext4_inode_number_alloc(handle, dir, mode, &ino, &fresh);

	if (err)
		return err;
	inode = ext4_inode_alloc(vol, ino);
	undo = journal_handle_alloc(handle, sizeof(*undo));
	if (!inode || !undo) {
		err = -ENOMEM;
		goto fail;
	}
	err = fresh ? start_table_block(handle, inode) : 0;
	if (err)
		goto fail;
	undo->inode = inode;
	undo->lone = true;
	undo->callback.fn = new_undo;
	/*
	 * Before ext4_inode_begin: undo functions run newest first, so that of ext4_inode_begin
	 * runs before this one frees inode.
	 */
	journal_on_undo(handle, &undo->callback);
	err = ext4_inode_begin(handle, inode);
	if (err)
		return err;
	init_raw(inode, dir, mode, credentials);
	err = ext4_inode_hash_new(inode);
	if (err) {
		if (err == -EUCLEAN)
			ext4_inode_number_distrust(vol, ino);
		return err;
	}
	undo->lone = false;
	*ret = inode;
	return 0;
fail:
	if (inode)
		ext4_inode_free(inode);
	return err;
}
