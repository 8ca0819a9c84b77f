/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hash index grows: a name goes into its leaf, or the leaf is split, and a directory of one
 * block gets its index. index.c describes the index and searches it.
 *
 * A leaf without a gap for the new name is split into a new block at the end of the directory, at
 * the place where ext4 splits it; so is the first block when the directory gets its index. So a
 * directory grows block for block as it does with ext4. A full index node is split in halves; a
 * full root is moved into a new node below it.
 *
 * dir_index_plan_add finds out before the handle begins what the insertion needs; dir_index_do_add
 * inserts inside the handle; dir->rw is held exclusively from the one to the end of the other.
 * Threads: ops workers, and loop threads in the mode of base/nowait.h. An error inside the handle
 * means that the handle has to be cancelled: blocks may be half changed.
 */
#include "ext4/dir/index.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- plan ---- */
int dir_index_plan_add(struct ext4_inode *dir, struct dir_add *add)
{
	unsigned need = dir_rec_len(add->len), n, new_blocks = 0;
	struct dir_index_path path;
	struct journal_buffer *buffer = NULL;
	int err = dir_index_probe(dir, add->name, add->len, &add->hash, &path);

	if (err == 0)
		err = dir_block_read(dir, dir_index_leaf(&path), DIR_BLOCK_LEAF, &buffer);
	if (err)
		goto out;
	add->lblk = dir_index_leaf(&path);
	add->off = dir_block_find_gap(dir->vol, buffer->data, need);
	add->how = add->off != UINT_MAX ? DIR_ADD_SLOT : DIR_ADD_INDEX;
	if (add->how == DIR_ADD_INDEX) {
		new_blocks = 1;
		for (n = path.levels; n > 0 && path.frame[n - 1].count == path.frame[n - 1].limit;
		     n--)
			new_blocks++;
		/* All are full: the root moves down, which takes as many blocks as a split. */
		if (n == 0 && path.levels == dir_index_max_levels(dir->vol))
			err = -ENOSPC;
		/* The leaf, the nodes that are split, and the node that gets the new pair. */
		add->credits += 1 + path.levels;
	}
	add->credits += new_blocks * dir_append_credits(dir);
	add->blocks = new_blocks * dir_append_blocks(dir);
out:
	journal_buffer_release(buffer);
	dir_index_release(&path);
	return err;
}

/* ---- leaves ---- */
/* An entry of a leaf; size: bytes that it needs, rec_len: bytes that it takes. */
struct leaf_map { uint32_t hash; uint16_t off, size, rec_len; };

/* By hash; equal hashes by place, so that the result does not depend on the algorithm of qsort. */
static int map_cmp(const void *a, const void *b)
{
	const struct leaf_map *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (int)x->off - (int)y->off;
}

static int map_cmp_off(const void *a, const void *b)
{
	return (int)((const struct leaf_map *)a)->off - (int)((const struct leaf_map *)b)->off;
}

/* Fills map with the entries of a leaf, by hash. Returns their number. */
static unsigned map_leaf(const struct ext4_inode *dir, uint8_t version, const uint8_t *data,
			 struct leaf_map *map)
{
	unsigned n = 0, off = 0, limit = dir_block_limit(dir->vol);
	struct dir_block_ent entry;
	uint32_t minor;

	for (; dir_block_get(dir->vol, data, limit, off, &entry); off += entry.rec_len) {
		if (!entry.ino)
			continue;
		dir_index_hash(dir->vol, version, entry.name, entry.name_len, &map[n].hash, &minor);
		map[n].off = (uint16_t)off;
		map[n].rec_len = (uint16_t)entry.rec_len;
		map[n++].size = (uint16_t)dir_rec_len(entry.name_len);
	}
	qsort(map, n, sizeof *map, map_cmp);
	return n;
}

/* Writes the mapped entries of src one behind the other into dst (another buffer). */
static void pack(const struct ext4_vol *vol, uint8_t *dst, const uint8_t *src,
		 const struct leaf_map *map, unsigned n)
{
	unsigned off = 0, limit = dir_block_limit(vol);
	struct dir_block_ent entry;

	dir_block_init(vol, dst);
	for (unsigned k = 0; k < n; k++) {
		FDIO_MUST(dir_block_get(vol, src, limit, map[k].off, &entry));
		dir_block_put(vol, dst, off, k + 1 == n ? limit - off : map[k].size, entry.ino,
			      entry.file_type, entry.name, entry.name_len);
		off += map[k].size;
	}
}

/*
 * How many entries stay in a leaf that is split, by ext4's rule. From the highest hash down,
 * entries move (with the unused bytes behind their names) while the bytes moved, and half of the
 * next entry, fit into half a block. If that would move all of them, half of their number stays.
 * Each side then has less than half a block and half an entry, so it has room for one more entry of
 * any length.
 */
static unsigned choose_split(const struct leaf_map *map, unsigned n, unsigned block_size)
{
	unsigned size = 0, k = n;

	while (k > 0 && size + map[k - 1].rec_len / 2 <= block_size / 2)
		size += map[--k].rec_len;
	return k ? k : n / 2;
}

/* Inserts a pair behind the pair at frame->at; the node has room. */
static void index_insert(struct ext4_inode *dir, struct dir_index_frame *frame, uint32_t hash,
			 uint32_t lblk)
{
	uint8_t *base = frame->buffer->data + frame->ofs;
	unsigned at = frame->at + 1;

	FDIO_ASSERT(frame->count < frame->limit);
	memmove(base + 8 * (at + 1), base + 8 * at, 8 * (frame->count - at));
	dir_index_block_set(frame->buffer->data, frame->ofs, at, hash, lblk);
	dir_index_block_set_count(dir->vol, frame->buffer->data, frame->ofs, ++frame->count);
	dir_index_block_seal(dir, frame->buffer);
}

/* ---- index nodes ---- */
static void node_init(const struct ext4_vol *vol, uint8_t *data)
{
	struct ext4_vol no_csum = { .block_size = vol->block_size };

	dir_block_init(&no_csum, data); /* an empty entry over the whole block */
}

/* The pairs of a full root go to a new node; the root keeps one pair, which covers all hashes. */
static int grow_root(struct journal_handle *handle, struct ext4_inode *dir,
		     struct dir_index_path *path)
{
	struct dir_index_frame *root = &path->frame[0], *node = &path->frame[1];
	struct journal_buffer *buffer;
	uint32_t lblk;
	int err = dir_append(handle, dir, &lblk, &buffer);

	if (err)
		return err;
	err = journal_get_write(handle, root->buffer);
	if (err) {
		journal_buffer_release(buffer);
		return err;
	}
	memmove(&path->frame[2], &path->frame[1],
		(DIR_INDEX_MAX_LEVELS - 2) * sizeof path->frame[0]);
	*node = (struct dir_index_frame){ buffer, DIR_INDEX_NODE_OFS, root->at, root->count,
					  dir_index_block_limit(dir->vol, DIR_INDEX_NODE_OFS) };
	node_init(dir->vol, buffer->data);
	memcpy(buffer->data + node->ofs, root->buffer->data + root->ofs, 8 * root->count);
	dir_index_block_set_count(dir->vol, buffer->data, node->ofs, node->count);
	dir_index_block_seal(dir, buffer);
	path->levels++;
	root->at = 0;
	root->count = 1;
	root->buffer->data[DIR_INDEX_ROOT_LEVELS] = (uint8_t)(path->levels - 1);
	memset(root->buffer->data + root->ofs + 8, 0, 8 * (root->limit - 1));
	dir_index_block_set(root->buffer->data, root->ofs, 0, 0, lblk);
	dir_index_block_set_count(dir->vol, root->buffer->data, root->ofs, 1);
	dir_index_block_seal(dir, root->buffer);
	return 0;
}

/*
 * Moves the upper half of a full node to a new node. The parent has room for one pair. The path
 * goes on following the same pair as before, into the new node if need be.
 */
static int split_node(struct journal_handle *handle, struct ext4_inode *dir,
		      struct dir_index_frame *parent, struct dir_index_frame *frame)
{
	unsigned keep = frame->count / 2, moved = frame->count - keep;
	struct journal_buffer *buffer;
	uint32_t lblk, hash = dir_index_block_hash(frame->buffer->data, frame->ofs, keep);
	int err = journal_get_write(handle, frame->buffer);

	if (err == 0)
		err = journal_get_write(handle, parent->buffer);
	if (err == 0)
		err = dir_append(handle, dir, &lblk, &buffer);
	if (err)
		return err;
	node_init(dir->vol, buffer->data);
	memcpy(buffer->data + DIR_INDEX_NODE_OFS, frame->buffer->data + frame->ofs + 8 * keep,
	       8 * moved);
	dir_index_block_set_count(dir->vol, buffer->data, DIR_INDEX_NODE_OFS, moved);
	dir_index_block_seal(dir, buffer);
	memset(frame->buffer->data + frame->ofs + 8 * keep, 0, 8 * moved);
	dir_index_block_set_count(dir->vol, frame->buffer->data, frame->ofs, keep);
	dir_index_block_seal(dir, frame->buffer);
	index_insert(dir, parent, hash, lblk);
	frame->count = keep;
	if (frame->at < keep) {
		journal_buffer_release(buffer);
		return 0;
	}
	journal_buffer_release(frame->buffer);
	parent->at++;
	*frame = (struct dir_index_frame){ buffer, DIR_INDEX_NODE_OFS, frame->at - keep, moved,
					   frame->limit };
	return 0;
}

/* Makes room for one pair in the node above the leaf, and opens that node in handle. */
static int make_index_room(struct journal_handle *handle, struct ext4_inode *dir,
			   struct dir_index_path *path)
{
	unsigned n = path->levels;
	int err;

	while (n > 0 && path->frame[n - 1].count == path->frame[n - 1].limit)
		n--;
	if (n == 0) {
		if (path->levels == dir_index_max_levels(dir->vol))
			return -ENOSPC;
		err = grow_root(handle, dir, path);
		if (err)
			return err;
		n = 2; /* a node holds more pairs than a root: the new node is not full */
	}
	for (; n < path->levels; n++) {
		err = split_node(handle, dir, &path->frame[n - 1], &path->frame[n]);
		if (err)
			return err;
	}
	return journal_get_write(handle, path->frame[path->levels - 1].buffer);
}

/* ---- insertion ---- */
/*
 * Splits leaf; copy is a copy of its content, and map lists its n entries by hash. The upper part
 * goes to a new block, *ret, whose lowest hash is *ret_hash.
 */
static int split_leaf(struct journal_handle *handle, struct ext4_inode *dir,
		      struct dir_index_path *path, struct journal_buffer *leaf,
		      struct leaf_map *map, unsigned n, const uint8_t *copy, uint32_t *ret_hash,
		      struct journal_buffer **ret)
{
	unsigned keep = choose_split(map, n, dir->vol->block_size);
	uint32_t lblk, hash = map[keep].hash, below = map[keep - 1].hash;
	struct journal_buffer *buffer;
	int err = make_index_room(handle, dir, path);

	if (err == 0)
		err = dir_append(handle, dir, &lblk, &buffer);
	if (err)
		return err;
	pack(dir->vol, buffer->data, copy, map + keep, n - keep);
	dir_block_seal(dir, buffer);
	/*
	 * Entries that move are laid out by hash, entries that stay keep their order, as in ext4:
	 * later gaps are then in the same places.
	 */
	qsort(map, keep, sizeof *map, map_cmp_off);
	pack(dir->vol, leaf->data, copy, map, keep);
	dir_block_seal(dir, leaf);
	index_insert(dir, &path->frame[path->levels - 1], hash | (below == hash), lblk);
	*ret_hash = hash;
	*ret = buffer;
	return 0;
}

static int put_in(struct ext4_inode *dir, struct journal_buffer *buffer, const struct dir_add *add,
		  uint32_t ino, uint8_t file_type)
{
	unsigned off = dir_block_find_gap(dir->vol, buffer->data, dir_rec_len(add->len));

	/*
	 * After a split both blocks have room. Only a block that a second inode owns too can be
	 * full here.
	 */
	if (off == UINT_MAX)
		return EXT4_CORRUPT(dir->vol, dir->ino, buffer->blk,
				    "a half-empty directory block is full");
	dir_block_insert(dir->vol, buffer->data, off, ino, file_type, add->name, add->len);
	dir_block_seal(dir, buffer);
	return 0;
}

static int make_room_and_put(struct journal_handle *handle, struct ext4_inode *dir,
			     struct dir_index_path *path, struct journal_buffer *leaf,
			     const struct dir_add *add, uint32_t hash, uint32_t ino,
			     uint8_t file_type)
{
	struct ext4_vol *vol = dir->vol;
	unsigned n;
	uint32_t split_hash;
	struct leaf_map *map = malloc((vol->block_size / DIR_ENT_MIN + 1) * sizeof *map);
	uint8_t *copy = malloc(vol->block_size);
	struct journal_buffer *other = NULL;
	int err = -ENOMEM;

	if (!map || !copy)
		goto out;
	memcpy(copy, leaf->data, vol->block_size);
	n = map_leaf(dir, path->version, copy, map);
	err = 0;
	if (n < 2) { /* nothing to split: one entry, with gaps that another driver has left */
		pack(vol, leaf->data, copy, map, n);
		err = put_in(dir, leaf, add, ino, file_type);
		goto out;
	}
	err = split_leaf(handle, dir, path, leaf, map, n, copy, &split_hash, &other);
	if (err == 0)
		err = put_in(dir, hash >= split_hash ? other : leaf, add, ino, file_type);
out:
	journal_buffer_release(other);
	free(map);
	free(copy);
	return err;
}

int dir_index_do_add(struct journal_handle *handle, struct ext4_inode *dir,
		     const struct dir_add *add, uint32_t ino, uint8_t file_type)
{
	struct dir_index_path path;
	struct journal_buffer *leaf = NULL;
	uint32_t hash;
	int err = dir_index_probe(dir, add->name, add->len, &hash, &path);

	if (err == 0)
		err = dir_block_read(dir, dir_index_leaf(&path), DIR_BLOCK_LEAF, &leaf);
	if (err == 0)
		err = journal_get_write(handle, leaf);
	if (err)
		goto out;
	if (add->how != DIR_ADD_CONVERT &&
	    dir_block_find_gap(dir->vol, leaf->data, dir_rec_len(add->len)) != UINT_MAX)
		err = put_in(dir, leaf, add, ino, file_type);
	else
		err = make_room_and_put(handle, dir, &path, leaf, add, hash, ino, file_type);
out:
	journal_buffer_release(leaf);
	dir_index_release(&path);
	return err;
}

/* ---- conversion ---- */
static void root_init(struct ext4_inode *dir, uint8_t *data, uint32_t parent, uint32_t leaf)
{
	struct ext4_vol *vol = dir->vol;

	memset(data, 0, vol->block_size);
	dir_block_put(vol, data, 0, DIR_ENT_MIN, dir->ino, EXT2_FT_DIR, ".", 1);
	dir_block_put(vol, data, DIR_ENT_MIN, vol->block_size - DIR_ENT_MIN, parent, EXT2_FT_DIR,
		      "..", 2);
	data[DIR_INDEX_ROOT_VERSION] = dir_index_default_version(vol);
	data[DIR_INDEX_ROOT_INFO] = 8;
	dir_index_block_set(data, DIR_INDEX_ROOT_OFS, 0, 0, leaf);
	dir_index_block_set_count(vol, data, DIR_INDEX_ROOT_OFS, 1);
}

/*
 * Copies the entries that follow "." and ".." in the block from to the leaf to, without rearranging
 * them. *ret_parent is the inode of "..".
 */
static int move_entries(struct ext4_inode *dir, const uint8_t *from, uint8_t *to,
			uint32_t *ret_parent)
{
	unsigned off = 0, first, last = UINT_MAX, limit = dir_block_limit(dir->vol);
	struct dir_block_ent entry;

	for (unsigned n = 0; n < 2; n++, off += entry.rec_len)
		if (!dir_block_get(dir->vol, from, limit, off, &entry) || !entry.ino ||
		    entry.name_len != n + 1 || memcmp(entry.name, "..", n + 1))
			return -EUCLEAN;
	*ret_parent = entry.ino;
	first = off;
	dir_block_init(dir->vol, to);
	if (first == limit)
		return 0;
	memcpy(to, from + first, limit - first);
	for (; dir_block_get(dir->vol, from, limit, off, &entry); off += entry.rec_len)
		last = off - first;
	if (last == UINT_MAX)
		return -EUCLEAN;
	dir_block_stretch(dir->vol, to, last, limit - last);
	return 0;
}

int dir_index_do_convert(struct journal_handle *handle, struct ext4_inode *dir)
{
	struct journal_buffer *root, *leaf = NULL;
	uint32_t lblk, parent = 0;
	int err = dir_block_read(dir, 0, DIR_BLOCK_LEAF, &root);

	if (err)
		return err;
	err = journal_get_write(handle, root);
	if (err == 0)
		err = dir_append(handle, dir, &lblk, &leaf);
	if (err)
		goto out;
	if (move_entries(dir, root->data, leaf->data, &parent)) {
		err = EXT4_CORRUPT(dir->vol, dir->ino, root->blk,
				   "the directory does not begin with \".\" and \"..\"");
		goto out;
	}
	dir_block_seal(dir, leaf);
	root_init(dir, root->data, parent, lblk);
	dir_index_block_seal(dir, root);
	dir_set_indexed(dir, true);
	dir_table_drop(dir);
out:
	journal_buffer_release(leaf);
	journal_buffer_release(root);
	return err;
}
