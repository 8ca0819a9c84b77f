/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One directory, whatever its form: find a name, plan an insertion and do it, remove a name,
 * replace the inode behind a name. A directory with INDEX_FL on a volume with dir_index is searched
 * through its hash index (index.c); one of few blocks is scanned; a larger one without an index has
 * a table in memory (linear.c). Block 0 always begins with "." and "..".
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h; a large directory misses
 * there. Called with dir->rw held; exclusively, and inside a handle, by the functions dir_do_*. An
 * error of theirs means that the handle has to be cancelled. Damage is -EUCLEAN.
 */
#include "ext4/dir/index.h"

#include "base/nowait.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

bool dir_is_indexed(const struct ext4_inode *dir)
{
	return dir->vol->has_dir_index && (dir_inode_flags(dir) & EXT2_INDEX_FL);
}

uint8_t dir_file_type(uint32_t mode)
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

/* "." or ".." in block 0, which is the index root if there is an index. */
static int find_dots(struct ext4_inode *dir, unsigned len, struct dir_pos *ret)
{
	unsigned limit = dir->vol->block_size, off = 0;
	struct dir_block_ent entry;
	enum dir_block_kind kind = dir_is_indexed(dir) ? DIR_BLOCK_INDEX : DIR_BLOCK_ANY;
	struct journal_buffer *buffer;
	int err = dir_block_read(dir, 0, kind, &buffer);

	if (err)
		return err;
	for (unsigned n = 1; n <= len; n++, off += entry.rec_len) {
		if (!dir_block_get(dir->vol, buffer->data, limit, off, &entry) || !entry.ino ||
		    entry.ino > dir->vol->nr_inodes || entry.name_len != n ||
		    memcmp(entry.name, "..", n)) {
			err = EXT4_CORRUPT(dir->vol, dir->ino, buffer->blk,
					   "the directory does not begin with \".\" and \"..\"");
			break;
		}
		*ret = (struct dir_pos){ 0, off, entry.ino, entry.file_type };
	}
	journal_buffer_release(buffer);
	return err;
}

bool dir_index_lost(struct ext4_inode *dir)
{
	struct journal_buffer *buffer;
	int err = dir_block_read(dir, 0, DIR_BLOCK_INDEX, &buffer);

	if (!err)
		journal_buffer_release(buffer);
	return err == -EUCLEAN;
}

static int scan(struct ext4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
{
	uint32_t nr = dir_nr_blocks(dir);
	unsigned bad = 0;
	struct dir_block_ent entry;
	struct journal_buffer *buffer;
	unsigned prev;
	bool hit;
	int err;

	for (uint32_t lblk = 0; lblk < nr; lblk++) {
		err = dir_block_read(dir, lblk, DIR_BLOCK_ANY, &buffer);
		if (err && !dir_block_pass_over(err, &bad))
			continue;
		if (err)
			return err;
		hit = !dir_block_is_index(dir, lblk, buffer->data) &&
		      dir_block_find(dir->vol, buffer->data, name, len, &entry, &prev);
		if (hit)
			*ret = (struct dir_pos){ lblk, entry.off, entry.ino, entry.file_type };
		journal_buffer_release(buffer);
		if (hit)
			return 0;
	}
	return bad ? -EUCLEAN : -ENOENT;
}

/*
 * A directory with INDEX_FL on a volume without dir_index gets no table: a scan takes its index
 * blocks as empty leaves, which the table does not know.
 */
static bool may_have_table(struct ext4_inode *dir)
{
	return !(dir_inode_flags(dir) & EXT2_INDEX_FL);
}

int dir_find(struct ext4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
{
	struct ext4_dir_table *table = NULL;
	int err = 0;

	if (ext4_inode_inline(dir))
		return dir_inline_find(dir, name, len, ret);
	if (ext4_name_is_dots(name, len))
		return find_dots(dir, len, ret);
	if (dir_is_indexed(dir)) {
		err = dir_index_find(dir, name, len, ret);
		return err == -EUCLEAN && dir_index_lost(dir) ? scan(dir, name, len, ret) : err;
	}
	if (may_have_table(dir))
		table = dir_table_get(dir, &err);
	if (err)
		return err;
	return table ? dir_table_find(dir, table, name, len, ret) : scan(dir, name, len, ret);
}

static bool block_is_empty(struct ext4_inode *dir, uint32_t lblk,
			   const struct journal_buffer *buffer)
{
	unsigned off = 0, limit = dir_block_limit(dir->vol);
	struct dir_block_ent entry;

	if (dir_block_is_index(dir, lblk, buffer->data))
		return true;
	for (; dir_block_get(dir->vol, buffer->data, limit, off, &entry); off += entry.rec_len)
		if (entry.ino && !(lblk == 0 && ext4_name_is_dots(entry.name, entry.name_len)))
			return false;
	return true;
}

int dir_is_empty(struct ext4_inode *dir)
{
	uint32_t nr = dir_nr_blocks(dir);
	struct journal_buffer *buffer;
	int err = 1;

	if (nowait_on() && nr > DIR_NOWAIT_BLOCKS)
		return nowait_miss();

	for (uint32_t lblk = 0; err == 1 && lblk < nr; lblk++) {
		err = dir_block_read(dir, lblk, DIR_BLOCK_ANY, &buffer);
		if (err)
			return err;
		err = block_is_empty(dir, lblk, buffer);
		journal_buffer_release(buffer);
	}
	return err;
}

/* ---- insertion ---- */

/* Finds a block with room for need bytes: 1 and its place, 0 if there is none. */
static int find_room(struct ext4_inode *dir, unsigned need, uint32_t *ret_lblk, uint32_t *ret_off)
{
	uint32_t nr = dir_nr_blocks(dir), lblk = 0;
	struct ext4_dir_table *table = NULL;
	struct journal_buffer *buffer;
	unsigned off;
	int err = 0;

	if (may_have_table(dir))
		table = dir_table_get(dir, &err);
	if (err)
		return err;
	if (nowait_on() && nr > DIR_NOWAIT_SCAN)
		return nowait_miss();
	if (table) {
		lblk = dir_table_find_gap(table, need);
		nr = lblk == UINT32_MAX ? 0 : lblk + 1;
	}
	for (; lblk < nr; lblk++) {
		err = dir_block_read(dir, lblk, DIR_BLOCK_ANY, &buffer);
		if (err)
			return err;
		off = dir_block_is_index(dir, lblk, buffer->data)
				      ? UINT_MAX
				      : dir_block_find_gap(dir->vol, buffer->data, need);
		journal_buffer_release(buffer);
		if (off == UINT_MAX)
			continue;
		*ret_lblk = lblk;
		*ret_off = off;
		return 1;
	}
	return 0;
}

int dir_plan_add(struct ext4_inode *dir, const char *name, unsigned len, struct dir_add *add)
{
	unsigned grow = 1;
	int err;

	*add = (struct dir_add){ .name = name, .len = len, .credits = DIR_CREDITS_CHANGE };
	if (dir_is_indexed(dir))
		return dir_index_plan_add(dir, add);
	err = find_room(dir, dir_rec_len(len), &add->lblk, &add->off);
	if (err < 0)
		return err;
	if (err) {
		add->how = DIR_ADD_SLOT;
		return 0;
	}
	add->how = DIR_ADD_APPEND;
	if (dir->vol->has_dir_index && dir_nr_blocks(dir) == 1) {
		add->how = DIR_ADD_CONVERT;
		grow = 2; /* the leaf that takes the entries, and its other half */
	}
	if (!dir_can_grow(dir, grow))
		return -ENOSPC;
	add->credits += grow * dir_append_credits(dir);
	add->blocks = grow * dir_append_blocks(dir);
	return 0;
}

static int put_at(struct journal_handle *handle, struct ext4_inode *dir,
		  struct journal_buffer *buffer, const struct dir_add *add, uint32_t lblk,
		  uint32_t ino, uint8_t file_type)
{
	unsigned off, gap = dir_block_find_gap(dir->vol, buffer->data, dir_rec_len(add->len));
	int err;

	/*
	 * The plan has found the gap. Only a block that a second directory owns too can have lost
	 * it since.
	 */
	if (gap == UINT_MAX)
		return EXT4_CORRUPT(dir->vol, dir->ino, buffer->blk,
				    "directory block %u changes by itself", lblk);
	err = journal_get_write(handle, buffer);
	if (err)
		return err;
	off = dir_block_insert(dir->vol, buffer->data, gap, ino, file_type, add->name, add->len);
	dir_block_seal(dir, buffer);
	dir_table_added(dir, lblk, buffer->data, off, add->name, add->len);
	return 0;
}

static int add_slot(struct journal_handle *handle, struct ext4_inode *dir,
		    const struct dir_add *add, uint32_t ino, uint8_t file_type)
{
	struct journal_buffer *buffer;
	int err = dir_block_read(dir, add->lblk, DIR_BLOCK_LEAF, &buffer);

	if (err)
		return err;
	err = put_at(handle, dir, buffer, add, add->lblk, ino, file_type);
	journal_buffer_release(buffer);
	return err;
}

static int add_append(struct journal_handle *handle, struct ext4_inode *dir,
		      const struct dir_add *add, uint32_t ino, uint8_t file_type)
{
	struct journal_buffer *buffer;
	uint32_t lblk;
	int err = dir_append(handle, dir, &lblk, &buffer);

	if (err)
		return err;
	dir_block_init(dir->vol, buffer->data);
	err = put_at(handle, dir, buffer, add, lblk, ino, file_type);
	journal_buffer_release(buffer);
	return err;
}

/*
 * On a volume without dir_index, a directory may still have an index from the time when the feature
 * was on. A change makes that index wrong, so INDEX_FL is cleared. On a volume with checksums the
 * index blocks cannot be read as leaves, so there the flag stays, for e2fsck to repair.
 */
static void forget_index(struct ext4_inode *dir)
{
	if (!dir->vol->has_dir_index && !dir->vol->has_csum &&
	    (dir_inode_flags(dir) & EXT2_INDEX_FL))
		dir_set_indexed(dir, false);
}

int dir_do_add(struct journal_handle *handle, struct ext4_inode *dir, const struct dir_add *add,
	       uint32_t ino, uint8_t file_type)
{
	int err;

	switch (add->how) {
	case DIR_ADD_SLOT:
		err = add_slot(handle, dir, add, ino, file_type);
		break;
	case DIR_ADD_APPEND:
		err = add_append(handle, dir, add, ino, file_type);
		break;
	case DIR_ADD_CONVERT:
		err = dir_index_do_convert(handle, dir);
		if (err)
			return err;
		return dir_index_do_add(handle, dir, add, ino, file_type);
	case DIR_ADD_INDEX:
		return dir_index_do_add(handle, dir, add, ino, file_type);
	default:
		return -EINVAL;
	}
	if (err == 0)
		forget_index(dir);
	return err;
}

/* ---- removal and replacement ---- */
int dir_do_remove(struct journal_handle *handle, struct ext4_inode *dir, const char *name,
		  unsigned len)
{
	struct dir_pos pos;
	struct dir_block_ent entry;
	struct journal_buffer *buffer;
	unsigned prev;
	int err = dir_find(dir, name, len, &pos);

	if (err == 0)
		err = dir_block_read(dir, pos.lblk, DIR_BLOCK_LEAF, &buffer);
	if (err)
		return err;
	if (!dir_block_find(dir->vol, buffer->data, name, len, &entry, &prev) ||
	    entry.off != pos.off)
		err = EXT4_CORRUPT(dir->vol, dir->ino, buffer->blk,
				   "directory block %u has a name twice", pos.lblk);
	if (err == 0)
		err = journal_get_write(handle, buffer);
	if (err == 0) {
		dir_block_delete(dir->vol, buffer->data, entry.off, prev);
		dir_block_seal(dir, buffer);
		dir_table_removed(dir, pos.lblk, buffer->data, entry.off, name, len);
		forget_index(dir);
	}
	journal_buffer_release(buffer);
	return err;
}

int dir_do_set(struct journal_handle *handle, struct ext4_inode *dir, const char *name,
	       unsigned len, uint32_t ino, uint8_t file_type)
{
	struct dir_pos pos;
	struct journal_buffer *buffer;
	int err = dir_find(dir, name, len, &pos);

	if (err == 0)
		err = dir_block_read(dir, pos.lblk, DIR_BLOCK_ANY, &buffer);
	if (err)
		return err;
	err = journal_get_write(handle, buffer);
	if (err == 0) {
		dir_block_set(dir->vol, buffer->data, pos.off, ino, file_type);
		if (dir_block_is_index(dir, pos.lblk, buffer->data))
			dir_index_block_seal(dir, buffer);
		else
			dir_block_seal(dir, buffer);
	}
	journal_buffer_release(buffer);
	return err;
}

int dir_do_init(struct journal_handle *handle, struct ext4_inode *dir, uint32_t parent)
{
	struct ext4_vol *vol = dir->vol;
	struct journal_buffer *buffer;
	uint32_t lblk;
	int err = dir_append(handle, dir, &lblk, &buffer);

	if (err)
		return err;
	dir_block_init(vol, buffer->data);
	dir_block_put(vol, buffer->data, 0, DIR_ENT_MIN, dir->ino, EXT2_FT_DIR, ".", 1);
	dir_block_put(vol, buffer->data, DIR_ENT_MIN, dir_block_limit(vol) - DIR_ENT_MIN, parent,
		      EXT2_FT_DIR, "..", 2);
	dir_block_seal(dir, buffer);
	journal_buffer_release(buffer);
	return 0;
}

void dir_cancelled(struct ext4_inode *dir) { dir_table_drop(dir); }
