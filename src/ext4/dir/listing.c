/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listing a directory. Positions ("cookies") have to survive that names come and go between two calls, so:
 *
 * - With dir_index, an indexed directory and one of a single block (which becomes indexed when it grows) are listed in hash order:
 *   a position is 31 bits of hash, 20 bits of a second hash and 12 bits that number names equal in both. Splitting a leaf
 *   moves names to other blocks but not to other positions.
 * - Other directories are listed in the order of their blocks: entries of a linear directory never move. A position is
 *   the entry's byte offset plus one.
 *
 * "." and ".." come first, at positions that no name can have. In hash order the names of one leaf (of several, where
 * equal hashes span them) are sorted in a buffer of fixed size; when they are more than it holds, the lowest are given
 * out and the leaves are read again for the rest. Holds dir->rw shared throughout; workers only.
 *
 * A damaged block is told in the log and passed over (dirb_pass_over), as the kernel does: what the rest of the directory names can
 * be saved. If the first block cannot be read, an index is not looked for either: the directory is listed in the order of its blocks.
 */
#include "ext4/dir/directory.h"

#include "base/nowait.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define ORD_BITS 12
#define MINOR_BITS 20
#define ORD_MASK ((1ull << ORD_BITS) - 1)
#define COOKIE_DOTDOT 1ull  /* "." has been given out */
#define COOKIE_NAMES 2ull   /* ".." too */
#define COOKIE_BASE 3ull    /* added to positions, so that none is one of the above */
#define POS_END INT64_MAX
#define BATCH 8192u

/* A name found in a leaf: where it comes in the order, and where it is. */
struct item { uint64_t pos; uint32_t lblk, off; };

struct listing {
	struct x4_inode *dir;
	bool (*emit)(void *arg, const struct x4_dirent *e);
	void *arg;
	bool stopped, given; /* asked to stop; something was given out */
	unsigned bad;        /* damaged blocks that were passed over */
	uint8_t version;
	struct item *item;
	unsigned nr, cap;  /* 2 * BATCH, or what a small directory can hold */
	struct dir_seen seen; /* leaves that were collected, since the last cut */
	bool cut;          /* more names than fit: those from cut_pos on were left out */
	uint64_t cut_pos;
};

static uint8_t dt_of_ft(uint8_t ft)
{
	static const uint8_t dt[] = { DT_UNKNOWN, DT_REG, DT_DIR, DT_CHR, DT_BLK, DT_FIFO, DT_SOCK, DT_LNK };

	return ft < ARRAY_SIZE(dt) ? dt[ft] : DT_UNKNOWN;
}

/* Without the feature, or where an old tool left the type out, the inode knows. */
static uint8_t type_of(struct listing *l, uint32_t ino, uint8_t ft)
{
	struct dir_pos pos = { .ino = ino };
	struct x4_inode *i;
	uint8_t dt = dt_of_ft(ft);

	if (dt != DT_UNKNOWN || dir_iget(l->dir, &pos, &i))
		return dt;
	dt = dt_of_ft(dir_ft_of_mode(x4_inode_mode(i)));
	x4_iput(i);
	return dt;
}

static bool give(struct listing *l, const char *name, unsigned len, uint32_t ino, uint8_t type, uint64_t next)
{
	struct x4_dirent d = { .ino = ino, .type = type, .name_len = (uint8_t)len, .name = name, .next_cookie = next };

	l->stopped = !l->emit(l->arg, &d);
	l->given |= !l->stopped;
	return !l->stopped;
}

static int give_dots(struct listing *l, uint64_t cookie)
{
	struct dir_pos pos;
	int r;

	if (cookie == 0 && !give(l, ".", 1, l->dir->ino, DT_DIR, COOKIE_DOTDOT))
		return 0;
	if (cookie >= COOKIE_NAMES)
		return 0;
	r = dir_find(l->dir, "..", 2, &pos);
	if (r == 0)
		give(l, "..", 2, pos.ino, DT_DIR, COOKIE_NAMES);
	return dirb_pass_over(r, &l->bad);
}

static bool is_dots(const struct dirb_ent *e)
{
	return e->name[0] == '.' && (e->name_len == 1 || (e->name_len == 2 && e->name[1] == '.'));
}

/* ---- in the order of blocks ---- */
static int list_linear_block(struct listing *l, uint32_t lblk, uint64_t from)
{
	struct x4_vol *v = l->dir->vol;
	uint64_t base = (uint64_t)lblk << v->block_bits;
	unsigned off = 0, limit = dirb_limit(v);
	struct dirb_ent e;
	struct jnl_buf *b;
	int r = dirb_read(l->dir, lblk, DIRB_ANY, &b);

	if (r)
		return r;
	if (dirb_is_index(l->dir, lblk, b->data))
		limit = 0;
	for (; !l->stopped && dirb_get(v, b->data, limit, off, &e); off += e.rec_len)
		if (e.ino && base + off >= from && !(lblk == 0 && is_dots(&e)))
			give(l, e.name, e.name_len, e.ino, type_of(l, e.ino, e.ft), base + off + 1 + COOKIE_BASE);
	jnl_brelse(b);
	return 0;
}

static int list_linear(struct listing *l, uint64_t from)
{
	uint32_t nr = dir_nr_blocks(l->dir);
	int r = 0;

	for (uint64_t lblk = from >> l->dir->vol->block_bits; r == 0 && !l->stopped && lblk < nr; lblk++) {
		dir_readahead(l->dir, (uint32_t)lblk, nr);
		r = dirb_pass_over(list_linear_block(l, (uint32_t)lblk, from), &l->bad);
	}
	return r;
}

/* What lies in the inode: a position is a place there. */
static int list_inline(struct listing *l, uint64_t from)
{
	struct x4_vol *v = l->dir->vol;
	uint32_t len, off = 0;
	struct dirb_ent e;
	uint8_t *data;
	int r = dir_inline_load(l->dir, &data, &len);

	if (r)
		return r;
	while (!l->stopped && dir_inline_next(v, data, len, &off, &e))
		if (e.ino && e.off >= from)
			give(l, e.name, e.name_len, e.ino, type_of(l, e.ino, e.ft),
			     e.off + 1 + COOKIE_BASE);
	free(data);
	return 0;
}

/* ---- in hash order ---- */
static uint64_t pos_of_hash(uint32_t hash) { return (uint64_t)(hash >> 1) << (MINOR_BITS + ORD_BITS); }
static uint32_t hash_of_pos(uint64_t pos) { return (uint32_t)(pos >> (MINOR_BITS + ORD_BITS)) << 1; }

static int item_cmp(const void *a, const void *b)
{
	const struct item *x = a, *y = b;

	if (x->pos != y->pos)
		return x->pos < y->pos ? -1 : 1;
	/* Equal in both hashes: any order that two calls agree on. */
	if (x->lblk != y->lblk)
		return x->lblk < y->lblk ? -1 : 1;
	return x->off < y->off ? -1 : x->off > y->off;
}

/* Keeps the lowest BATCH, but never a part of a group of equals. */
static void cut_items(struct listing *l)
{
	unsigned n = BATCH;

	qsort(l->item, l->nr, sizeof *l->item, item_cmp);
	while (n > 0 && l->item[n - 1].pos == l->item[n].pos)
		n--;
	if (n == 0) /* a group larger than the buffer: no position could tell its members apart anyway */
		n = BATCH;
	l->cut = true;
	l->cut_pos = l->item[n].pos;
	l->nr = n;
}

static int collect_block(struct listing *l, uint32_t lblk, const uint8_t *data, uint64_t from)
{
	struct x4_vol *v = l->dir->vol;
	unsigned off = 0, limit = dirb_limit(v);
	uint32_t hash, minor;
	struct dirb_ent e;
	uint64_t pos;

	for (; dirb_get(v, data, limit, off, &e); off += e.rec_len) {
		if (!e.ino || (lblk == 0 && is_dots(&e)))
			continue;
		dx_hash(v, l->version, e.name, e.name_len, &hash, &minor);
		pos = pos_of_hash(hash) | (uint64_t)(minor >> (32 - MINOR_BITS)) << ORD_BITS;
		if (pos < (from & ~ORD_MASK) || (l->cut && pos >= l->cut_pos))
			continue;
		if (l->nr == l->cap)
			return X4_CORRUPT(v, l->dir->ino, 0, "more names than there is room for");
		l->item[l->nr++] = (struct item){ pos, lblk, off };
		if (l->nr == 2 * BATCH)
			cut_items(l);
	}
	return 0;
}

static int collect_leaf(struct listing *l, uint32_t lblk, uint64_t from)
{
	struct jnl_buf *b;
	int r = dir_seen_add(&l->seen, lblk);

	if (r == 0)
		return X4_CORRUPT(l->dir->vol, l->dir->ino, 0,
				  "directory index leads to block %u twice", lblk);
	r = r < 0 ? r : dirb_read(l->dir, lblk, DIRB_LEAF, &b);
	if (r)
		return r;
	r = collect_block(l, lblk, b->data, from);
	jnl_brelse(b);
	return r;
}

/* The leaves whose names have to be sorted together, from the one that from lies in. *ret_end: everything below is in. */
static int collect_dx(struct listing *l, uint64_t from, uint64_t *ret_end)
{
	uint32_t hash = hash_of_pos(from), next;
	struct dx_path p;
	int r = dx_probe(l->dir, NULL, 0, &hash, &p);

	*ret_end = POS_END;
	if (r == 0)
		l->version = p.version;
	for (r = r ? r : 1; r == 1;) {
		r = dirb_pass_over(collect_leaf(l, dx_leaf(&p), from), &l->bad);
		if (r)
			break;
		r = dx_next(l->dir, &p, &next);
		if (r != 1)
			break;
		if (!(next & 1) && next > hash) {
			*ret_end = pos_of_hash(next);
			r = 0;
		} else if (!(next & 1)) {
			r = X4_CORRUPT(l->dir->vol, l->dir->ino, 0, "directory index is out of order");
		}
	}
	dx_release(&p);
	return r;
}

/* Gives out what was collected. */
static int give_items(struct listing *l, uint64_t from)
{
	struct x4_vol *v = l->dir->vol;
	uint64_t ord = 0, last = UINT64_MAX, pos;
	struct dirb_ent e;
	struct jnl_buf *b;
	int r;

	qsort(l->item, l->nr, sizeof *l->item, item_cmp);
	for (unsigned n = 0; n < l->nr && !l->stopped; n++) {
		ord = l->item[n].pos == last ? FDIO_MIN(ord + 1, ORD_MASK) : 0;
		last = l->item[n].pos;
		pos = last | ord;
		if (pos < from)
			continue;
		r = dirb_read(l->dir, l->item[n].lblk, DIRB_LEAF, &b);
		if (r)
			return r;
		if (dirb_get(v, b->data, dirb_limit(v), l->item[n].off, &e) && e.ino)
			give(l, e.name, e.name_len, e.ino, type_of(l, e.ino, e.ft), pos + 1 + COOKIE_BASE);
		jnl_brelse(b);
	}
	return 0;
}

/* Where the listing goes on: behind from in any case, also where more names are equal in both
 * hashes than the buffer holds. */
static uint64_t next_from(struct listing *l, uint64_t from, uint64_t end)
{
	if (!l->cut)
		return end;
	dir_seen_clear(&l->seen); /* the leaves are read again for the rest */
	return l->cut_pos > from ? l->cut_pos : (from | ORD_MASK) + 1;
}

static int list_hashed(struct listing *l, uint64_t from)
{
	bool dx = dir_is_dx(l->dir);
	uint64_t end = POS_END, room;
	int r = 0;

	l->version = dx_default_version(l->dir->vol);
	/* A small directory has not so many names. */
	room = ((uint64_t)dir_nr_blocks(l->dir) << l->dir->vol->block_bits) / DIR_ENT_MIN + 1;
	l->cap = (unsigned)FDIO_MIN(room, (uint64_t)2 * BATCH);
	l->item = malloc(l->cap * sizeof *l->item);
	if (!l->item)
		return -ENOMEM;
	while (r == 0 && !l->stopped && from < POS_END - COOKIE_BASE) {
		l->nr = 0;
		l->cut = false;
		r = dx ? collect_dx(l, from, &end) : dirb_pass_over(collect_leaf(l, 0, from), &l->bad);
		if (r == 0)
			r = give_items(l, from);
		from = next_from(l, from, end);
	}
	dir_seen_clear(&l->seen);
	free(l->item);
	return r;
}

/* Positions in hash order for this directory; false also if its index has no beginning. */
static bool by_hash(struct x4_inode *dir)
{
	if (!dir_is_dx(dir))
		return dir->vol->has_dir_index && dir_nr_blocks(dir) == 1;
	return !dir_index_lost(dir);
}

int x4_readdir(struct x4_inode *dir, uint64_t cookie, bool (*emit)(void *arg, const struct x4_dirent *e), void *arg)
{
	struct listing l = { .dir = dir, .emit = emit, .arg = arg };
	uint64_t from = cookie > COOKIE_BASE ? cookie - COOKIE_BASE : 0;
	int r;

	r = x4_inode_enter_shared(dir);
	if (r)
		return r;
	r = dir_check_search(dir);
	if (r == 0 && nowait_on() && dir_nr_blocks(dir) > DIR_NOWAIT_BLOCKS)
		r = nowait_miss();
	if (r == 0 && cookie < COOKIE_NAMES)
		r = give_dots(&l, cookie);
	if (r == 0 && !l.stopped) {
		if (x4_inode_inline(dir))
			r = list_inline(&l, from);
		else if (by_hash(dir))
			r = list_hashed(&l, from);
		else
			r = list_linear(&l, from);
	}
	x4_inode_unlock(dir);
	/* What was found before it is delivered; whoever goes on meets it again. */
	if (r == -EUCLEAN && l.given)
		return 0;
	/* A deleted directory is empty for whoever still has it open. */
	return r == -ENOENT ? 0 : r;
}

bool x4_dir_moved(struct x4_inode *dir) { return __atomic_exchange_n(&dir->dir.moved, false, __ATOMIC_ACQ_REL); }
