/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One directory, whatever its form: find a name, plan and do an insertion, remove, replace the inode behind a name. A
 * directory with INDEX_FL on a volume with dir_index is searched through its hash index (dir/index.c); one of few blocks is
 * scanned; a larger one without index has a table in memory (dir/linear.c). Block 0 always begins with "." and "..".
 *
 * Called by the operations with dir->rw held; exclusively, and inside a handle, by dir_do_*.
 */
#include "ext4/dir/directory.h"

#include "base/nowait.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

bool dir_is_dx(const struct x4_inode *dir)
{
	return dir->vol->has_dir_index && (ext2fs_le32_to_cpu(dir->raw->i_flags) & EXT2_INDEX_FL);
}

uint8_t dir_ft_of_mode(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG: return EXT2_FT_REG_FILE;
	case S_IFDIR: return EXT2_FT_DIR;
	case S_IFCHR: return EXT2_FT_CHRDEV;
	case S_IFBLK: return EXT2_FT_BLKDEV;
	case S_IFIFO: return EXT2_FT_FIFO;
	case S_IFSOCK: return EXT2_FT_SOCK;
	case S_IFLNK: return EXT2_FT_SYMLINK;
	}
	return EXT2_FT_UNKNOWN;
}

static bool is_dots(const char *name, unsigned len)
{
	return name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'));
}

/* "." or ".." in block 0, which is the index root if there is an index. */
static int find_dots(struct x4_inode *dir, unsigned len, struct dir_pos *ret)
{
	unsigned limit = dir->vol->block_size, off = 0;
	struct dirb_ent e;
	struct jnl_buf *b;
	int r = dirb_read(dir, 0, dir_is_dx(dir) ? DIRB_INDEX : DIRB_ANY, &b);

	if (r)
		return r;
	for (unsigned n = 1; n <= len; n++, off += e.rec_len) {
		if (!dirb_get(dir->vol, b->data, limit, off, &e) || !e.ino || e.ino > dir->vol->nr_inodes || e.name_len != n ||
		    memcmp(e.name, "..", n)) {
			r = X4_CORRUPT(dir->vol, dir->ino, b->blk, "the directory does not begin with \".\" and \"..\"");
			break;
		}
		*ret = (struct dir_pos){ 0, off, e.ino, e.ft };
	}
	jnl_brelse(b);
	return r;
}

bool dir_index_lost(struct x4_inode *dir)
{
	struct jnl_buf *b;
	int r = dirb_read(dir, 0, DIRB_INDEX, &b);

	if (!r)
		jnl_brelse(b);
	return r == -EUCLEAN;
}

static int scan(struct x4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
{
	uint32_t nr = dir_nr_blocks(dir);
	unsigned bad = 0;
	struct dirb_ent e;
	struct jnl_buf *b;
	unsigned prev;
	bool hit;
	int r;

	for (uint32_t lblk = 0; lblk < nr; lblk++) {
		r = dirb_read(dir, lblk, DIRB_ANY, &b);
		if (r && !dirb_pass_over(r, &bad))
			continue;
		if (r)
			return r;
		hit = !dirb_is_index(dir, lblk, b->data) && dirb_find(dir->vol, b->data, name, len, &e, &prev);
		if (hit)
			*ret = (struct dir_pos){ lblk, e.off, e.ino, e.ft };
		jnl_brelse(b);
		if (hit)
			return 0;
	}
	return bad ? -EUCLEAN : -ENOENT;
}

/* INDEX_FL on a volume without dir_index: the index blocks look empty to a scan, but no table is kept of such a mix. */
static bool may_have_state(struct x4_inode *dir)
{
	return !(ext2fs_le32_to_cpu(dir->raw->i_flags) & EXT2_INDEX_FL);
}

int dir_find(struct x4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
{
	struct x4_dirstate *ds = NULL;
	int r = 0;

	if (x4_inode_inline(dir))
		return dir_inline_find(dir, name, len, ret);
	if (is_dots(name, len))
		return find_dots(dir, len, ret);
	if (dir_is_dx(dir)) {
		r = dx_find(dir, name, len, ret);
		return r == -EUCLEAN && dir_index_lost(dir) ? scan(dir, name, len, ret) : r;
	}
	if (may_have_state(dir))
		ds = dirstate_get(dir, &r);
	if (r)
		return r;
	return ds ? dirstate_find(dir, ds, name, len, ret) : scan(dir, name, len, ret);
}

static bool block_is_empty(struct x4_inode *dir, uint32_t lblk, const struct jnl_buf *b)
{
	unsigned off = 0, limit = dirb_limit(dir->vol);
	struct dirb_ent e;

	if (dirb_is_index(dir, lblk, b->data))
		return true;
	for (; dirb_get(dir->vol, b->data, limit, off, &e); off += e.rec_len)
		if (e.ino && !(lblk == 0 && is_dots(e.name, e.name_len)))
			return false;
	return true;
}

int dir_is_empty(struct x4_inode *dir)
{
	uint32_t nr = dir_nr_blocks(dir);
	struct jnl_buf *b;
	int r = 1;

	if (nowait_on() && nr > DIR_NOWAIT_BLOCKS)
		return nowait_miss();

	for (uint32_t lblk = 0; r == 1 && lblk < nr; lblk++) {
		r = dirb_read(dir, lblk, DIRB_ANY, &b);
		if (r)
			return r;
		r = block_is_empty(dir, lblk, b);
		jnl_brelse(b);
	}
	return r;
}

/* ---- insertion ---- */

/* Block with room for need bytes: 1 and its place, 0 if there is none. */
static int find_room(struct x4_inode *dir, unsigned need, uint32_t *ret_lblk, uint32_t *ret_off)
{
	uint32_t nr = dir_nr_blocks(dir), lblk = 0;
	struct x4_dirstate *ds = NULL;
	struct jnl_buf *b;
	unsigned off;
	int r = 0;

	if (may_have_state(dir))
		ds = dirstate_get(dir, &r);
	if (r)
		return r;
	if (nowait_on() && nr > DIR_NOWAIT_SCAN)
		return nowait_miss();
	if (ds) {
		lblk = dirstate_find_gap(ds, need);
		nr = lblk == UINT32_MAX ? 0 : lblk + 1;
	}
	for (; lblk < nr; lblk++) {
		r = dirb_read(dir, lblk, DIRB_ANY, &b);
		if (r)
			return r;
		off = dirb_is_index(dir, lblk, b->data) ? UINT_MAX : dirb_find_gap(dir->vol, b->data, need);
		jnl_brelse(b);
		if (off == UINT_MAX)
			continue;
		*ret_lblk = lblk;
		*ret_off = off;
		return 1;
	}
	return 0;
}

int dir_plan_add(struct x4_inode *dir, const char *name, unsigned len, struct dir_add *p)
{
	unsigned grow = 1;
	int r;

	*p = (struct dir_add){ .name = name, .len = len, .credits = DIR_CREDITS_CHANGE };
	if (dir_is_dx(dir))
		return dx_plan_add(dir, p);
	r = find_room(dir, dir_rec_len(len), &p->lblk, &p->off);
	if (r < 0)
		return r;
	if (r) {
		p->how = DIR_ADD_SLOT;
		return 0;
	}
	p->how = DIR_ADD_APPEND;
	if (dir->vol->has_dir_index && dir_nr_blocks(dir) == 1) {
		p->how = DIR_ADD_CONVERT;
		grow = 2; /* the leaf that takes the entries, and its other half */
	}
	if (!dir_can_grow(dir, grow))
		return -ENOSPC;
	p->credits += grow * dir_append_credits(dir);
	p->blocks = grow * dir_append_blocks(dir);
	return 0;
}

static int put_at(struct jnl_handle *h, struct x4_inode *dir, struct jnl_buf *b, const struct dir_add *p, uint32_t lblk, uint32_t ino,
		  uint8_t ft)
{
	unsigned off, gap = dirb_find_gap(dir->vol, b->data, dir_rec_len(p->len));
	int r;

	/* The plan found it: only a block that another directory owns too can have lost it since. */
	if (gap == UINT_MAX)
		return X4_CORRUPT(dir->vol, dir->ino, b->blk, "directory block %u changes by itself", lblk);
	r = jnl_get_write(h, b);
	if (r)
		return r;
	off = dirb_insert(dir->vol, b->data, gap, ino, ft, p->name, p->len);
	dirb_seal(dir, b);
	dirstate_added(dir, lblk, b->data, off, p->name, p->len);
	return 0;
}

static int add_slot(struct jnl_handle *h, struct x4_inode *dir, const struct dir_add *p, uint32_t ino, uint8_t ft)
{
	struct jnl_buf *b;
	int r = dirb_read(dir, p->lblk, DIRB_LEAF, &b);

	if (r)
		return r;
	r = put_at(h, dir, b, p, p->lblk, ino, ft);
	jnl_brelse(b);
	return r;
}

static int add_append(struct jnl_handle *h, struct x4_inode *dir, const struct dir_add *p, uint32_t ino, uint8_t ft)
{
	struct jnl_buf *b;
	uint32_t lblk;
	int r = dir_append(h, dir, &lblk, &b);

	if (r)
		return r;
	dirb_init(dir->vol, b->data);
	r = put_at(h, dir, b, p, lblk, ino, ft);
	jnl_brelse(b);
	return r;
}

/* A volume without dir_index: an index that somebody left would not know the new name. With checksums its blocks could
 * not be read as leaves, so there the flag stays for e2fsck to repair. */
static void forget_index(struct x4_inode *dir)
{
	uint32_t flags = ext2fs_le32_to_cpu(dir->raw->i_flags);

	if (dir->vol->has_dir_index || dir->vol->has_csum || !(flags & EXT2_INDEX_FL))
		return;
	fdio_mutex_lock(&dir->attr);
	dir->raw->i_flags = ext2fs_cpu_to_le32(flags & ~EXT2_INDEX_FL);
	fdio_mutex_unlock(&dir->attr);
}

int dir_do_add(struct jnl_handle *h, struct x4_inode *dir, const struct dir_add *p, uint32_t ino, uint8_t ft)
{
	int r;

	switch (p->how) {
	case DIR_ADD_SLOT:
		r = add_slot(h, dir, p, ino, ft);
		break;
	case DIR_ADD_APPEND:
		r = add_append(h, dir, p, ino, ft);
		break;
	case DIR_ADD_CONVERT:
		r = dx_do_convert(h, dir);
		if (r)
			return r;
		return dx_do_add(h, dir, p, ino, ft);
	case DIR_ADD_DX:
		return dx_do_add(h, dir, p, ino, ft);
	default:
		return -EINVAL;
	}
	if (r == 0)
		forget_index(dir);
	return r;
}

/* ---- the other changes ---- */
int dir_do_remove(struct jnl_handle *h, struct x4_inode *dir, const char *name, unsigned len)
{
	struct dir_pos pos;
	struct dirb_ent e;
	struct jnl_buf *b;
	unsigned prev;
	int r = dir_find(dir, name, len, &pos);

	if (r == 0)
		r = dirb_read(dir, pos.lblk, DIRB_LEAF, &b);
	if (r)
		return r;
	if (!dirb_find(dir->vol, b->data, name, len, &e, &prev) || e.off != pos.off)
		r = X4_CORRUPT(dir->vol, dir->ino, b->blk, "directory block %u has a name twice", pos.lblk);
	if (r == 0)
		r = jnl_get_write(h, b);
	if (r == 0) {
		dirb_delete(dir->vol, b->data, e.off, prev);
		dirb_seal(dir, b);
		dirstate_removed(dir, pos.lblk, b->data, e.off, name, len);
		forget_index(dir);
	}
	jnl_brelse(b);
	return r;
}

int dir_do_set(struct jnl_handle *h, struct x4_inode *dir, const char *name, unsigned len, uint32_t ino, uint8_t ft)
{
	struct dir_pos pos;
	struct jnl_buf *b;
	int r = dir_find(dir, name, len, &pos);

	if (r == 0)
		r = dirb_read(dir, pos.lblk, DIRB_ANY, &b);
	if (r)
		return r;
	r = jnl_get_write(h, b);
	if (r == 0) {
		dirb_set(dir->vol, b->data, pos.off, ino, ft);
		if (dirb_is_index(dir, pos.lblk, b->data))
			dxb_seal(dir, b);
		else
			dirb_seal(dir, b);
	}
	jnl_brelse(b);
	return r;
}

int dir_do_init(struct jnl_handle *h, struct x4_inode *dir, uint32_t parent)
{
	struct x4_vol *v = dir->vol;
	struct jnl_buf *b;
	uint32_t lblk;
	int r = dir_append(h, dir, &lblk, &b);

	if (r)
		return r;
	dirb_init(v, b->data);
	dirb_put(v, b->data, 0, DIR_ENT_MIN, dir->ino, EXT2_FT_DIR, ".", 1);
	dirb_put(v, b->data, DIR_ENT_MIN, dirb_limit(v) - DIR_ENT_MIN, parent, EXT2_FT_DIR, "..", 2);
	dirb_seal(dir, b);
	jnl_brelse(b);
	return 0;
}

void dir_cancelled(struct x4_inode *dir) { dirstate_drop(dir); }
