/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The hash index of a directory. Block 0 is the root: "." and "..", then pairs (hash, block) in ascending order; a pair covers the
 * hashes from its own to the next one's. Below are up to two more levels of index nodes, then leaves, which are ordinary
 * directory blocks whose names are in no order. The lowest bit of a hash is 0; in an index pair it is 1 when names with this
 * very hash begin in the leaf before, so a search that did not find its name goes on there.
 *
 * A leaf without a gap for the new name is split into a new block at the end, at the place where ext4 splits it, and so is the first
 * block when the directory gets its index: a directory grows as it does there, block for block. A full index node is split in
 * halves, a full root moved into a new node below it. What will be needed is found out before the handle begins (dx_plan_add)
 * and done inside it (dx_do_add), under one hold of dir->rw.
 */
#include "ext4/dir/directory.h"

#include "base/crc32c.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define DX_ROOT_OFS 32u
#define DX_NODE_OFS 8u
#define DX_ROOT_VERSION 28u /* byte offsets in the root block */
#define DX_ROOT_LEVELS 30u
#define DX_HASH_EOF 0xfffffffeu /* stands for "behind everything" in listing positions, so no name may have it */

uint8_t dx_default_version(const struct x4_vol *v)
{
	uint8_t def = v->fs->super->s_def_hash_version;

	return def <= EXT2_HASH_TEA ? def : EXT2_HASH_HALF_MD4;
}

unsigned dx_max_levels(const struct x4_vol *v) { return v->has_large_dir ? DIR_DX_MAX_LEVELS : DIR_DX_MAX_LEVELS - 1; }

void dx_hash(const struct x4_vol *v, uint8_t version, const char *name, unsigned len, uint32_t *ret_hash, uint32_t *ret_minor)
{
	int how = version + (v->fs->super->s_flags & EXT2_FLAGS_UNSIGNED_HASH ? 3 : 0);
	ext2_dirhash_t hash = 0, minor = 0;

	/* Fails only for versions that verify_root has refused. */
	ext2fs_dirhash2(how, name, (int)len, NULL, 0, v->fs->super->s_hash_seed, &hash, &minor);
	hash &= ~1u;
	*ret_hash = hash == DX_HASH_EOF ? DX_HASH_EOF - 2 : hash;
	/* The legacy hash has no second half, so listing takes another hash of the name to tell its many equals apart. */
	*ret_minor = version == EXT2_HASH_LEGACY ? fdio_crc32c(~0u, name, len) : minor;
}

/* ---- search ---- */
void dx_release(struct dx_path *p)
{
	for (unsigned n = 0; n < DIR_DX_MAX_LEVELS; n++)
		jnl_brelse(p->f[n].b);
	memset(p->f, 0, sizeof p->f);
	dir_seen_clear(&p->seen);
}

uint32_t dx_leaf(const struct dx_path *p)
{
	const struct dx_frame *f = &p->f[p->levels - 1];

	return dxb_block(f->b->data, f->ofs, f->at);
}

static int frame_load(struct x4_inode *dir, uint32_t lblk, struct dx_frame *f)
{
	struct x4_vol *v = dir->vol;
	int r = dirb_read(dir, lblk, DIRB_INDEX, &f->b);

	if (r) {
		f->b = NULL;
		return r;
	}
	f->ofs = dxb_offset(v, f->b->data);
	f->at = 0;
	f->limit = f->ofs ? dxb_limit(v, f->ofs) : 0;
	f->count = f->ofs ? dxb_count(f->b->data, f->ofs) : 0;
	if (f->count < 1 || f->count > f->limit || (f->ofs == DX_ROOT_OFS) != (lblk == 0))
		return X4_CORRUPT(v, dir->ino, f->b->blk, "block %u is not a sound index block", lblk);
	return 0;
}

/* The last pair with a hash not above the wanted one. */
static unsigned frame_search(const struct dx_frame *f, uint32_t hash)
{
	unsigned lo = 1, hi = f->count;

	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;

		if (dxb_hash(f->b->data, f->ofs, mid) > hash)
			hi = mid;
		else
			lo = mid + 1;
	}
	return lo - 1;
}

static int verify_root(struct x4_inode *dir, struct dx_path *p)
{
	const uint8_t *data = p->f[0].b->data;

	p->version = data[DX_ROOT_VERSION];
	p->levels = data[DX_ROOT_LEVELS] + 1u;
	if (p->version > EXT2_HASH_TEA)
		return X4_CORRUPT(dir->vol, dir->ino, p->f[0].b->blk, "unknown directory hash %u", p->version);
	if (p->levels > dx_max_levels(dir->vol))
		return X4_CORRUPT(dir->vol, dir->ino, p->f[0].b->blk, "directory index is %u levels deep", p->levels);
	return 0;
}

int dx_probe(struct x4_inode *dir, const char *name, unsigned len, uint32_t *hash, struct dx_path *p)
{
	uint32_t lblk = 0, minor;
	int r;

	memset(p, 0, sizeof *p);
	r = frame_load(dir, 0, &p->f[0]);
	if (r == 0)
		r = verify_root(dir, p);
	if (r)
		return r;
	if (name)
		dx_hash(dir->vol, p->version, name, len, hash, &minor);
	for (unsigned n = 0; n < p->levels; n++) {
		struct dx_frame *f = &p->f[n];

		if (n && (r = frame_load(dir, lblk, f)))
			return r;
		f->at = frame_search(f, *hash);
		lblk = dxb_block(f->b->data, f->ofs, f->at);
		if (lblk == 0)
			return X4_CORRUPT(dir->vol, dir->ino, f->b->blk, "directory index points at its root");
	}
	return 0;
}

/* The leaf that the path stands on is done with. An index that comes back to one would never end.
 * */
static int leave_leaf(struct x4_inode *dir, struct dx_path *p)
{
	int r = dir_seen_add(&p->seen, dx_leaf(p));

	if (r < 0)
		return r;
	return r ? 0 : X4_CORRUPT(dir->vol, dir->ino, 0, "directory index leads to block %u twice",
				  dx_leaf(p));
}

int dx_next(struct x4_inode *dir, struct dx_path *p, uint32_t *ret_hash)
{
	unsigned n = p->levels;
	int r = leave_leaf(dir, p);

	if (r)
		return r;
	while (n > 0 && p->f[n - 1].at + 1 >= p->f[n - 1].count)
		n--;
	if (n == 0)
		return 0;
	p->f[n - 1].at++;
	*ret_hash = dxb_hash(p->f[n - 1].b->data, p->f[n - 1].ofs, p->f[n - 1].at);
	for (; n < p->levels; n++) {
		uint32_t lblk = dxb_block(p->f[n - 1].b->data, p->f[n - 1].ofs, p->f[n - 1].at);

		jnl_brelse(p->f[n].b);
		p->f[n].b = NULL;
		r = frame_load(dir, lblk, &p->f[n]);
		if (r)
			return r;
	}
	return 1;
}

int dx_find(struct x4_inode *dir, const char *name, unsigned len, struct dir_pos *ret)
{
	uint32_t hash, next;
	struct dx_path p;
	struct dirb_ent e;
	struct jnl_buf *b;
	unsigned prev;
	int r = dx_probe(dir, name, len, &hash, &p);

	for (bool hit = false; r == 0 && !hit;) {
		uint32_t lblk = dx_leaf(&p);

		r = dirb_read(dir, lblk, DIRB_LEAF, &b);
		if (r)
			break;
		hit = dirb_find(dir->vol, b->data, name, len, &e, &prev);
		if (hit)
			*ret = (struct dir_pos){ lblk, e.off, e.ino, e.ft };
		jnl_brelse(b);
		if (hit)
			break;
		r = dx_next(dir, &p, &next);
		if (r == 0 || (r == 1 && next != (hash | 1)))
			r = -ENOENT;
		else if (r == 1)
			r = 0;
	}
	dx_release(&p);
	return r;
}

/* ---- plan ---- */
int dx_plan_add(struct x4_inode *dir, struct dir_add *p)
{
	unsigned need = dir_rec_len(p->len), n, new_blocks = 0;
	struct dx_path path;
	struct jnl_buf *b = NULL;
	int r = dx_probe(dir, p->name, p->len, &p->hash, &path);

	if (r == 0)
		r = dirb_read(dir, dx_leaf(&path), DIRB_LEAF, &b);
	if (r)
		goto out;
	p->lblk = dx_leaf(&path);
	p->off = dirb_find_gap(dir->vol, b->data, need);
	p->how = p->off != UINT_MAX ? DIR_ADD_SLOT : DIR_ADD_DX;
	if (p->how == DIR_ADD_DX) {
		new_blocks = 1;
		for (n = path.levels; n > 0 && path.f[n - 1].count == path.f[n - 1].limit; n--)
			new_blocks++;
		/* All full: the root is not split but moved down, which takes as many blocks. */
		if (n == 0 && path.levels == dx_max_levels(dir->vol))
			r = -ENOSPC;
		/* The leaf, the nodes that get a sibling, and the node that gets the pair. */
		p->credits += 1 + path.levels;
	}
	p->credits += new_blocks * dir_append_credits(dir);
	p->blocks = new_blocks * dir_append_blocks(dir);
out:
	jnl_brelse(b);
	dx_release(&path);
	return r;
}

/* ---- leaves ---- */
struct leaf_map { uint32_t hash; uint16_t off, size, rec_len; };

/* By hash, and equal ones by place, so that what happens does not depend on the sort. */
static int map_cmp(const void *a, const void *b)
{
	const struct leaf_map *x = a, *y = b;

	if (x->hash != y->hash)
		return x->hash < y->hash ? -1 : 1;
	return (int)x->off - (int)y->off;
}

static int map_cmp_off(const void *a, const void *b) { return (int)((const struct leaf_map *)a)->off - (int)((const struct leaf_map *)b)->off; }

static unsigned map_leaf(const struct x4_inode *dir, uint8_t version, const uint8_t *data, struct leaf_map *map)
{
	unsigned n = 0, off = 0, limit = dirb_limit(dir->vol);
	struct dirb_ent e;
	uint32_t minor;

	for (; dirb_get(dir->vol, data, limit, off, &e); off += e.rec_len) {
		if (!e.ino)
			continue;
		dx_hash(dir->vol, version, e.name, e.name_len, &map[n].hash, &minor);
		map[n].off = (uint16_t)off;
		map[n].rec_len = (uint16_t)e.rec_len;
		map[n++].size = (uint16_t)dir_rec_len(e.name_len);
	}
	qsort(map, n, sizeof *map, map_cmp);
	return n;
}

/* Writes the mapped entries of src one behind the other into dst (another buffer). */
static void pack(const struct x4_vol *v, uint8_t *dst, const uint8_t *src, const struct leaf_map *map, unsigned n)
{
	unsigned off = 0, limit = dirb_limit(v);
	struct dirb_ent e;

	dirb_init(v, dst);
	for (unsigned k = 0; k < n; k++) {
		FDIO_MUST(dirb_get(v, src, limit, map[k].off, &e));
		dirb_put(v, dst, off, k + 1 == n ? limit - off : map[k].size, e.ino, e.ft, e.name, e.name_len);
		off += map[k].size;
	}
}

/*
 * How many entries stay, by ext4's rule: from the highest hash down, entries move as long as half of the next one, with what is
 * unused behind it, still fits the first half of a block; if all would, half of their number stays. Either side then has room for
 * one more of any length: what moves, and what stays, is less than half a block and half an entry.
 */
static unsigned choose_split(const struct leaf_map *map, unsigned n, unsigned block_size)
{
	unsigned size = 0, k = n;

	while (k > 0 && size + map[k - 1].rec_len / 2 <= block_size / 2)
		size += map[--k].rec_len;
	return k ? k : n / 2;
}

static void index_insert(struct x4_inode *dir, struct dx_frame *f, uint32_t hash, uint32_t lblk)
{
	uint8_t *base = f->b->data + f->ofs;
	unsigned at = f->at + 1;

	FDIO_ASSERT(f->count < f->limit);
	memmove(base + 8 * (at + 1), base + 8 * at, 8 * (f->count - at));
	dxb_set(f->b->data, f->ofs, at, hash, lblk);
	dxb_set_count(dir->vol, f->b->data, f->ofs, ++f->count);
	dxb_seal(dir, f->b);
}

/* ---- index nodes ---- */
static void node_init(const struct x4_vol *v, uint8_t *data)
{
	struct x4_vol no_csum = { .block_size = v->block_size };

	dirb_init(&no_csum, data); /* an empty entry over the whole block */
}

/* The full root's pairs go to a new node, the root keeps one pair that covers everything. */
static int grow_root(struct jnl_handle *h, struct x4_inode *dir, struct dx_path *p)
{
	struct dx_frame *root = &p->f[0], *node = &p->f[1];
	struct jnl_buf *b;
	uint32_t lblk;
	int r = dir_append(h, dir, &lblk, &b);

	if (r)
		return r;
	r = jnl_get_write(h, root->b);
	if (r) {
		jnl_brelse(b);
		return r;
	}
	memmove(&p->f[2], &p->f[1], (DIR_DX_MAX_LEVELS - 2) * sizeof p->f[0]);
	*node = (struct dx_frame){ b, DX_NODE_OFS, root->at, root->count, dxb_limit(dir->vol, DX_NODE_OFS) };
	node_init(dir->vol, b->data);
	memcpy(b->data + node->ofs, root->b->data + root->ofs, 8 * root->count);
	dxb_set_count(dir->vol, b->data, node->ofs, node->count);
	dxb_seal(dir, b);
	p->levels++;
	root->at = 0;
	root->count = 1;
	root->b->data[DX_ROOT_LEVELS] = (uint8_t)(p->levels - 1);
	memset(root->b->data + root->ofs + 8, 0, 8 * (root->limit - 1));
	dxb_set(root->b->data, root->ofs, 0, 0, lblk);
	dxb_set_count(dir->vol, root->b->data, root->ofs, 1);
	dxb_seal(dir, root->b);
	return 0;
}

/* The upper half of a full node goes to a new one; its parent has room. The path follows the pair it stands on. */
static int split_node(struct jnl_handle *h, struct x4_inode *dir, struct dx_frame *parent, struct dx_frame *f)
{
	unsigned keep = f->count / 2, moved = f->count - keep;
	struct jnl_buf *b;
	uint32_t lblk, hash = dxb_hash(f->b->data, f->ofs, keep);
	int r = jnl_get_write(h, f->b);

	if (r == 0)
		r = jnl_get_write(h, parent->b);
	if (r == 0)
		r = dir_append(h, dir, &lblk, &b);
	if (r)
		return r;
	node_init(dir->vol, b->data);
	memcpy(b->data + DX_NODE_OFS, f->b->data + f->ofs + 8 * keep, 8 * moved);
	dxb_set_count(dir->vol, b->data, DX_NODE_OFS, moved);
	dxb_seal(dir, b);
	memset(f->b->data + f->ofs + 8 * keep, 0, 8 * moved);
	dxb_set_count(dir->vol, f->b->data, f->ofs, keep);
	dxb_seal(dir, f->b);
	index_insert(dir, parent, hash, lblk);
	f->count = keep;
	if (f->at < keep) {
		jnl_brelse(b);
		return 0;
	}
	jnl_brelse(f->b);
	parent->at++;
	*f = (struct dx_frame){ b, DX_NODE_OFS, f->at - keep, moved, f->limit };
	return 0;
}

/* Afterwards the node above the leaf has room for one pair. */
static int make_index_room(struct jnl_handle *h, struct x4_inode *dir, struct dx_path *p)
{
	unsigned n = p->levels;
	int r;

	while (n > 0 && p->f[n - 1].count == p->f[n - 1].limit)
		n--;
	if (n == 0) {
		if (p->levels == dx_max_levels(dir->vol))
			return -ENOSPC;
		r = grow_root(h, dir, p);
		if (r)
			return r;
		n = 2; /* a node holds more than a root: the new one is not full */
	}
	for (; n < p->levels; n++) {
		r = split_node(h, dir, &p->f[n - 1], &p->f[n]);
		if (r)
			return r;
	}
	return jnl_get_write(h, p->f[p->levels - 1].b);
}

/* ---- insertion ---- */
struct split_work { struct leaf_map *map; uint8_t *copy; };

static int split_leaf(struct jnl_handle *h, struct x4_inode *dir, struct dx_path *p, struct jnl_buf *leaf, struct leaf_map *map, unsigned n,
		      const uint8_t *copy, uint32_t *ret_hash, struct jnl_buf **ret)
{
	unsigned keep = choose_split(map, n, dir->vol->block_size);
	uint32_t lblk, hash = map[keep].hash, below = map[keep - 1].hash;
	struct jnl_buf *b;
	int r = make_index_room(h, dir, p);

	if (r == 0)
		r = dir_append(h, dir, &lblk, &b);
	if (r)
		return r;
	pack(dir->vol, b->data, copy, map + keep, n - keep);
	dirb_seal(dir, b);
	/* What moves is laid out by hash, what stays keeps its order: later gaps are then where ext4 has them. */
	qsort(map, keep, sizeof *map, map_cmp_off);
	pack(dir->vol, leaf->data, copy, map, keep);
	dirb_seal(dir, leaf);
	index_insert(dir, &p->f[p->levels - 1], hash | (below == hash), lblk);
	*ret_hash = hash;
	*ret = b;
	return 0;
}

static int put_in(struct x4_inode *dir, struct jnl_buf *b, const struct dir_add *a, uint32_t ino, uint8_t ft)
{
	unsigned off = dirb_find_gap(dir->vol, b->data, dir_rec_len(a->len));

	/* Halves of a block of sane entries always have room; this is for a block another inode shares. */
	if (off == UINT_MAX)
		return X4_CORRUPT(dir->vol, dir->ino, b->blk, "a half-empty directory block is full");
	dirb_insert(dir->vol, b->data, off, ino, ft, a->name, a->len);
	dirb_seal(dir, b);
	return 0;
}

static int make_room_and_put(struct jnl_handle *h, struct x4_inode *dir, struct dx_path *p, struct jnl_buf *leaf, const struct dir_add *a,
			     uint32_t hash, uint32_t ino, uint8_t ft)
{
	struct x4_vol *v = dir->vol;
	unsigned n;
	uint32_t split_hash;
	struct leaf_map *map = malloc((v->block_size / DIR_ENT_MIN + 1) * sizeof *map);
	uint8_t *copy = malloc(v->block_size);
	struct jnl_buf *other = NULL;
	int r = -ENOMEM;

	if (!map || !copy)
		goto out;
	memcpy(copy, leaf->data, v->block_size);
	n = map_leaf(dir, p->version, copy, map);
	r = 0;
	if (n < 2) { /* nothing to split; only another file system leaves a block like that */
		pack(v, leaf->data, copy, map, n);
		r = put_in(dir, leaf, a, ino, ft);
		goto out;
	}
	r = split_leaf(h, dir, p, leaf, map, n, copy, &split_hash, &other);
	if (r == 0)
		r = put_in(dir, hash >= split_hash ? other : leaf, a, ino, ft);
out:
	jnl_brelse(other);
	free(map);
	free(copy);
	return r;
}

int dx_do_add(struct jnl_handle *h, struct x4_inode *dir, const struct dir_add *a, uint32_t ino, uint8_t ft)
{
	struct dx_path p;
	struct jnl_buf *leaf = NULL;
	uint32_t hash;
	int r = dx_probe(dir, a->name, a->len, &hash, &p);

	if (r == 0)
		r = dirb_read(dir, dx_leaf(&p), DIRB_LEAF, &leaf);
	if (r == 0)
		r = jnl_get_write(h, leaf);
	if (r)
		goto out;
	if (a->how != DIR_ADD_CONVERT && dirb_find_gap(dir->vol, leaf->data, dir_rec_len(a->len)) != UINT_MAX)
		r = put_in(dir, leaf, a, ino, ft);
	else
		r = make_room_and_put(h, dir, &p, leaf, a, hash, ino, ft);
out:
	jnl_brelse(leaf);
	dx_release(&p);
	return r;
}

/* ---- conversion ---- */
static void root_init(struct x4_inode *dir, uint8_t *data, uint32_t parent, uint32_t leaf)
{
	struct x4_vol *v = dir->vol;

	memset(data, 0, v->block_size);
	dirb_put(v, data, 0, 12, dir->ino, EXT2_FT_DIR, ".", 1);
	dirb_put(v, data, 12, v->block_size - 12, parent, EXT2_FT_DIR, "..", 2);
	data[DX_ROOT_VERSION] = dx_default_version(v);
	data[29] = 8; /* length of the root's own information */
	dxb_set(data, DX_ROOT_OFS, 0, 0, leaf);
	dxb_set_count(v, data, DX_ROOT_OFS, 1);
}

/* Moves what follows "." and ".." in from to the leaf to, as it lies; *ret_parent is what ".." says. */
static int move_entries(struct x4_inode *dir, const uint8_t *from, uint8_t *to, uint32_t *ret_parent)
{
	unsigned off = 0, first, last = UINT_MAX, limit = dirb_limit(dir->vol);
	struct dirb_ent e;

	for (unsigned n = 0; n < 2; n++, off += e.rec_len)
		if (!dirb_get(dir->vol, from, limit, off, &e) || !e.ino || e.name_len != n + 1 || memcmp(e.name, "..", n + 1))
			return -EUCLEAN;
	*ret_parent = e.ino;
	first = off;
	dirb_init(dir->vol, to);
	if (first == limit)
		return 0;
	memcpy(to, from + first, limit - first);
	for (; dirb_get(dir->vol, from, limit, off, &e); off += e.rec_len)
		last = off - first;
	if (last == UINT_MAX)
		return -EUCLEAN;
	dirb_stretch(dir->vol, to, last, limit - last);
	return 0;
}

int dx_do_convert(struct jnl_handle *h, struct x4_inode *dir)
{
	struct jnl_buf *root, *leaf = NULL;
	uint32_t lblk, parent = 0;
	int r = dirb_read(dir, 0, DIRB_LEAF, &root);

	if (r)
		return r;
	r = jnl_get_write(h, root);
	if (r == 0)
		r = dir_append(h, dir, &lblk, &leaf);
	if (r)
		goto out;
	if (move_entries(dir, root->data, leaf->data, &parent)) {
		r = X4_CORRUPT(dir->vol, dir->ino, root->blk, "the directory does not begin with \".\" and \"..\"");
		goto out;
	}
	dirb_seal(dir, leaf);
	root_init(dir, root->data, parent, lblk);
	dxb_seal(dir, root);
	fdio_mutex_lock(&dir->attr);
	dir->raw->i_flags |= ext2fs_cpu_to_le32(EXT2_INDEX_FL);
	fdio_mutex_unlock(&dir->attr);
	dirstate_drop(dir);
out:
	jnl_brelse(leaf);
	jnl_brelse(root);
	return r;
}
