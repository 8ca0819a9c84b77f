/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What happens to an inode at the end: x4_evict deletes it, its blocks, its attributes and its number, on the
 * thread that dropped the last reference of an inode without a name. A small one takes one transaction,
 * another several, through which the orphan list leads; on failure it stays there, and the next mount
 * deletes it.
 */
#include "ext4/core/structs.h"
#include "ext4/life/life.h"

#include "base/log.h"
#include "base/nowait.h"

#include <errno.h>
#include <string.h>

/* Everything it owned is free: the number too, and a date instead of a link. */
static int release_number(struct jnl_handle *h, struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	bool is_dir = S_ISDIR(i->raw->i_mode);
	int err = x4_inode_begin(h, i);

	if (!err)
		err = x4_orphan_del(h, i);
	if (!err)
		err = x4_ifree(h, v, i->ino, is_dir);
	if (err)
		return err;
	fdio_mutex_lock(&i->attr);
	x4_raw_set_size(i, 0);
	fdio_mutex_unlock(&i->attr);
	i->raw->i_dtime = (uint32_t)x4_now(v).tv_sec;
	return x4_inode_dirty(h, i, false);
}

static int finish_evict(struct jnl_handle *h, struct x4_inode *i, int err)
{
	if (!err)
		err = release_number(h, i);
	err = nowait_err(err);
	if (err) {
		jnl_cancel(h);
		return err;
	}
	/* Before the handle ends: the number may be taken again by the next one. */
	x4_inode_unhash(i);
	jnl_end(h);
	return 0;
}

/* What it owns is few runs of blocks and at most a block of attributes. */
static bool is_small(struct x4_inode *i)
{
	const uint64_t most = S_ISDIR(i->raw->i_mode) ? 8 : 2048;

	return !i->vol->has_ea_inode && x4_raw_blocks_512(i) <= most << (i->vol->block_bits - 9) && x4_blocks_in_root(i);
}

/* In one transaction. */
static int evict_small(struct x4_inode *i)
{
	unsigned credits = x4_free_root_credits(i) + X4_CREDITS_INODE + X4_CREDITS_ORPHAN + 2;
	struct jnl_handle *h;
	int err = fdio_mutex_enter(&i->map_lock);

	if (err)
		return err;
	credits += x4_raw_file_acl(i) ? X4_CREDITS_XATTR : 0;
	err = jnl_begin(i->vol->jnl, credits, &h);
	if (!err) {
		err = x4_inode_begin(h, i);
		if (!err)
			err = x4_free_root_blocks(h, i);
		if (!err)
			err = x4_xattr_drop_block(h, i);
		err = finish_evict(h, i, err);
	}
	fdio_mutex_unlock(&i->map_lock);
	return err;
}

static int evict_steps(struct x4_inode *i)
{
	struct x4_vol *v = i->vol;
	struct jnl_handle *h;
	int err = x4_free_all_blocks(i);

	if (!err)
		err = x4_xattr_free_all(i);
	if (!err)
		err = jnl_begin(v->jnl, X4_CREDITS_INODE + X4_CREDITS_ORPHAN + 2, &h);
	return err ? err : finish_evict(h, i, 0);
}

/* Deletes i: blocks, attributes, number. i->evicting is set, nobody else has it. 0 if it is unhashed now. */
static int x4_evict(struct x4_inode *i)
{
	int err = x4_inode_enter_excl(i);

	if (err)
		return err;
	err = is_small(i) ? evict_small(i) : -ENOSPC;
	if (err == -ENOSPC) /* too much for one transaction */
		err = nowait_on() ? nowait_miss() : evict_steps(i);
	x4_inode_unlock(i);
	if (err && err != -EROFS && !nowait_missed())
		log_ratelimited(FDIO_LOG_WARN, "%s: inode %u could not be deleted (%s): the next mount will do it", i->vol->dev->name,
				i->ino, strerror(-err));
	return err;
}

void x4_life_init(struct x4_vol *v) { x4_icache_set_evict(v, x4_evict); }
