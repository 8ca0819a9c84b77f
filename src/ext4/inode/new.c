/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Making inodes: x4_inode_new, inside the handle of whoever creates a file. The names part calls it with
 * the directory locked. On cancel the number is free again (the bitmap goes back with its block) and the
 * struct is bad and out of the hash; its reference is still the caller's to drop.
 */
#include "ext4/core/structs.h"
#include "ext4/inode/disk_inode.h"

#include <errno.h>
#include <string.h>
#include <sys/random.h>

#ifndef FS_DAX_FL
#define FS_DAX_FL 0x02000000
#endif
/* What a directory hands down, also where it has no effect here: the kernel's list. Regular files take all but REG_NOT. */
#define INHERITED_FLAGS                                                                                    \
	(EXT2_SECRM_FL | EXT2_UNRM_FL | EXT2_COMPR_FL | EXT2_NOCOMPR_FL | EXT2_SYNC_FL | EXT2_NODUMP_FL | \
	 EXT2_NOATIME_FL | EXT2_NOTAIL_FL | EXT2_DIRSYNC_FL | EXT3_JOURNAL_DATA_FL | EXT4_PROJINHERIT_FL | FS_DAX_FL)
#define REG_NOT (EXT2_DIRSYNC_FL | EXT4_PROJINHERIT_FL)

struct new_undo {
	struct jnl_callback cb;
	struct x4_inode *i;
	bool lone; /* making it failed: nobody else has it */
};

static void new_undo(struct jnl_callback *cb, int ended)
{
	struct new_undo *u = container_of(cb, struct new_undo, cb);
	struct x4_vol *v = u->i->vol;

	if (u->lone) {
		x4_inode_free(u->i);
	} else if (!ended) {
		fdio_mutex_lock(&v->inode.lock);
		u->i->inode.bad = true;
		fdio_mutex_unlock(&v->inode.lock);
		x4_inode_unhash(u->i);
	}
}

static bool in_group(const struct x4_cred *c, uint32_t gid)
{
	if (c->gid == gid)
		return true;
	for (unsigned n = 0; n < c->nr_groups; n++)
		if (c->groups[n] == gid)
			return true;
	return false;
}

/* A directory with the setgid bit hands its group down, and to directories the bit as well. */
static void set_owner(struct x4_inode *i, struct x4_inode *dir, uint32_t mode, const struct x4_cred *c)
{
	const struct ext2_inode_large *d = dir->raw;
	uint32_t gid = c->gid;

	if ((d->i_mode & S_ISGID) || i->vol->opt.grpid)
		gid = d->i_gid | (uint32_t)d->osd2.linux2.l_i_gid_high << 16;
	if ((d->i_mode & S_ISGID) && S_ISDIR(mode))
		mode |= S_ISGID;
	else if (!S_ISDIR(mode) && (mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && !in_group(c, gid) && !c->cap_fsetid)
		mode &= ~(uint32_t)S_ISGID;
	i->raw->i_mode = (uint16_t)mode;
	i->raw->i_uid = (uint16_t)c->uid;
	i->raw->osd2.linux2.l_i_uid_high = (uint16_t)(c->uid >> 16);
	i->raw->i_gid = (uint16_t)gid;
	i->raw->osd2.linux2.l_i_gid_high = (uint16_t)(gid >> 16);
}

static uint32_t inherited(const struct x4_inode *dir, uint32_t mode)
{
	uint32_t f = dir->raw->i_flags & INHERITED_FLAGS;

	if (S_ISDIR(mode))
		return f;
	return S_ISREG(mode) ? f & ~(uint32_t)REG_NOT : f & (EXT2_NODUMP_FL | EXT2_NOATIME_FL);
}

uint16_t x4_extra_isize(const struct x4_vol *v)
{
	uint32_t want = sizeof(struct ext2_inode_large) - 128;

	if (v->inode_size <= 128)
		return 0;
	want = FDIO_MAX(want, (uint32_t)v->fs->super->s_want_extra_isize);
	want = FDIO_MAX(want, (uint32_t)v->fs->super->s_min_extra_isize);
	return (uint16_t)((want & 3) || want > v->inode_size - 128 ? sizeof(struct ext2_inode_large) - 128 : want);
}

static void init_raw(struct x4_inode *i, struct x4_inode *dir, uint32_t mode, const struct x4_cred *c)
{
	struct timespec now = x4_now(i->vol);

	memset(i->raw, 0, FDIO_MAX(i->vol->inode_size, 256U));
	if (getrandom(&i->raw->i_generation, sizeof(i->raw->i_generation), GRND_NONBLOCK) < 0)
		i->raw->i_generation = (uint32_t)now.tv_nsec ^ i->ino;
	set_owner(i, dir, mode, c);
	i->raw->i_links_count = 1;
	i->raw->i_flags = inherited(dir, mode);
	if (i->vol->inode_size > 128)
		i->raw->i_extra_isize = x4_extra_isize(i->vol);
	x4_inode_set_seed(i);
	x4_raw_set_born(i, now);
	if (S_ISREG(mode) || S_ISDIR(mode))
		x4_extent_init(i);
	x4_inode_sync_copies(i);
}

/* The table block of a fresh inode was never written: it begins as zeroes. */
static int start_table_block(struct jnl_handle *h, struct x4_inode *i)
{
	struct jnl_buf *b;
	uint32_t off;
	int err = jnl_bnew(h, x4_itable_place(i->vol, i->ino, &off), &b);

	if (!err)
		jnl_brelse(b);
	return err;
}

int x4_inode_new(struct jnl_handle *h, struct x4_inode *dir, uint32_t mode, const struct x4_cred *c, struct x4_inode **ret)
{
	struct x4_vol *v = dir->vol;
	struct new_undo *u = NULL;
	struct x4_inode *i = NULL;
	uint32_t ino;
	bool fresh;
	int err = x4_ialloc(h, dir, mode, &ino, &fresh);

	if (err)
		return err;
	i = x4_inode_alloc(v, ino);
	u = jnl_handle_mem(h, sizeof(*u));
	if (!i || !u) {
		err = -ENOMEM;
		goto fail;
	}
	err = fresh ? start_table_block(h, i) : 0;
	if (err)
		goto fail;
	u->i = i;
	u->lone = true;
	u->cb.fn = new_undo;
	jnl_on_undo(h, &u->cb); /* before x4_inode_begin, whose own undo comes first then and still finds i */
	err = x4_inode_begin(h, i);
	if (err)
		return err;
	init_raw(i, dir, mode, c);
	err = x4_inode_hash_new(i);
	if (err) {
		if (err == -EUCLEAN)
			x4_ialloc_distrust(v, ino);
		return err;
	}
	u->lone = false;
	*ret = i;
	return 0;
fail:
	if (i)
		x4_inode_free(i);
	return err;
}
