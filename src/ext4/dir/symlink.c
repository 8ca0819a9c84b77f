/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Symbolic links. A target of less than 60 bytes lives in the inode, where other inodes have their extents; a longer one in one
 * block, which is journalled like metadata, so that a link never appears with another's bytes. Workers only.
 */
#include "ext4/dir/directory.h"

#include <errno.h>
#include <string.h>

#define FAST_MAX (EXT2_N_BLOCKS * 4u) /* with the NUL that old readers want */
#define TARGET_MAX 4095u

struct target { const char *path; unsigned len; };

static int fill_symlink(struct jnl_handle *h, struct x4_inode *i, void *arg)
{
	const struct target *t = arg;
	struct jnl_buf *b;
	int r;

	if (t->len < FAST_MAX) {
		fdio_mutex_lock(&i->attr);
		i->raw->i_flags &= ~ext2fs_cpu_to_le32(EXT4_EXTENTS_FL);
		memset(i->raw->i_block, 0, sizeof i->raw->i_block);
		memcpy(i->raw->i_block, t->path, t->len);
		x4_raw_set_size(i, t->len);
		fdio_mutex_unlock(&i->attr);
		return 0;
	}
	x4_extent_init(i);
	/* First: an empty link without blocks would be a fast one. */
	fdio_mutex_lock(&i->attr);
	x4_raw_set_size(i, t->len);
	fdio_mutex_unlock(&i->attr);
	r = x4_append_meta_block(h, i, 0, &b);
	if (r)
		return r;
	memcpy(b->data, t->path, t->len);
	jnl_brelse(b);
	return 0;
}

int x4_symlink(struct x4_inode *dir, const char *name, unsigned len, const char *target, unsigned target_len,
	       const struct x4_cred *c, struct x4_inode **ret)
{
	struct target t = { target, target_len };
	struct dir_new n = { .mode = S_IFLNK | 0777, .cred = c, .fill = fill_symlink, .arg = &t };

	if (target_len == 0)
		return -ENOENT;
	if (target_len > TARGET_MAX || target_len >= dir->vol->block_size)
		return -ENAMETOOLONG;
	if (target_len >= FAST_MAX) {
		n.credits = dir_append_credits(dir);
		n.blocks = 1;
	}
	return dir_create(dir, name, len, &n, ret);
}

static int read_slow(struct x4_inode *i, char *buf, uint64_t size)
{
	struct jnl_buf *b;
	uint64_t blk;
	int r = x4_bmap(i, 0, &blk);

	if (r == 0)
		r = jnl_bread(i->vol->jnl, blk, &b);
	if (r)
		return r;
	memcpy(buf, b->data, size);
	jnl_brelse(b);
	return 0;
}

int x4_readlink(struct x4_inode *i, char *buf, size_t cap, unsigned *ret_len)
{
	uint64_t size;
	int r = 0;

	if (!S_ISLNK(x4_inode_mode(i)))
		return -EINVAL;
	r = x4_inode_enter_shared(i);
	if (r)
		return r;
	size = x4_raw_size(i);
	if (size == 0 || size > TARGET_MAX || size >= cap || size > i->vol->block_size)
		r = size && size <= TARGET_MAX && size <= i->vol->block_size ? -ERANGE :
			X4_CORRUPT(i->vol, i->ino, 0, "symbolic link of %llu bytes", (unsigned long long)size);
	else if (x4_link_is_fast(i))
		memcpy(buf, i->raw->i_block, size);
	else if (x4_inode_inline(i))
		r = x4_inline_link(i, buf, size);
	else
		r = read_slow(i, buf, size);
	x4_inode_unlock(i);
	if (r)
		return r;
	/* What is behind a NUL is no path. */
	buf[size] = 0;
	*ret_len = (unsigned)strlen(buf);
	return 0;
}
