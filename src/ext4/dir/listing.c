/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Listing a directory. A position ("cookie") has to survive that names come and go between two
 * calls, so:
 *
 * - With dir_index, an indexed directory is listed in hash order, and so is a directory of one
 *   block, which gets an index when it grows. A position has 31 bits of hash, 20 bits of a second
 *   hash, and 12 bits that number the names equal in both. Splitting a leaf moves names to other
 *   blocks but not to other positions.
 * - Other directories are listed in the order of their blocks: entries of a linear directory never
 *   move. A position is the entry's byte offset plus one.
 *
 * "." and ".." come first, at positions that no name can have. In hash order, the names of one leaf
 * (of several, where equal hashes span them) are sorted in a buffer of fixed size. When there are
 * more names than it holds, the lowest are given out and the leaves are read again for the rest.
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h, where a directory of more
 * than DIR_NOWAIT_BLOCKS blocks misses. Holds dir->rw shared throughout.
 *
 * A damaged block is reported to the volume and passed over (dir_block_pass_over), as the kernel
 * does: the names in the other blocks stay reachable. If the first block of an index cannot be
 * read, the directory is listed in the order of its blocks.
 */
#include "ext4/dir/index.h"

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
#define BATCH 8192u     /* names that are given out at a time in hash order */

/* A name found in a leaf: where it comes in the order, and where it is. */
struct item { uint64_t pos; uint32_t lblk, off; };

struct listing {
	struct ext4_inode *dir;
	bool (*emit)(void *arg, const struct ext4_dirent *e);
	void *arg;
	bool stopped, given; /* emit has asked to stop; an entry was given out */
	unsigned bad;        /* damaged blocks that were passed over */
	uint8_t version;
	struct item *item;
	unsigned nr, cap;  /* 2 * BATCH, or what a small directory can hold */
	struct dir_seen seen; /* leaves that were collected, since the last cut */
	bool cut;          /* more names than fit: names from cut_pos on were left out */
	uint64_t cut_pos;
};

static uint8_t dt_of_ft(uint8_t file_type)
{
	static const uint8_t dt[] = { DT_UNKNOWN, DT_REG,  DT_DIR,  DT_CHR,
				      DT_BLK,     DT_FIFO, DT_SOCK, DT_LNK };

	return file_type < ARRAY_SIZE(dt) ? dt[file_type] : DT_UNKNOWN;
}

/* DT_*: of the entry or, if it has no type (no filetype feature, or an old tool), of the inode. */
static uint8_t type_of(struct listing *listing, uint32_t ino, uint8_t file_type)
{
	struct dir_pos pos = { .ino = ino };
	struct ext4_inode *inode;
	uint8_t dt = dt_of_ft(file_type);

	if (dt != DT_UNKNOWN || dir_iget(listing->dir, &pos, &inode))
		return dt;
	dt = dt_of_ft(dir_file_type(ext4_inode_mode(inode)));
	ext4_inode_put(inode);
	return dt;
}

static bool give(struct listing *listing, const char *name, unsigned len, uint32_t ino,
		 uint8_t type, uint64_t next)
{
	struct ext4_dirent entry = { .ino = ino,
				     .type = type,
				     .name_len = (uint8_t)len,
				     .name = name,
				     .next_cookie = next };

	listing->stopped = !listing->emit(listing->arg, &entry);
	listing->given |= !listing->stopped;
	return !listing->stopped;
}

static int give_dots(struct listing *listing, uint64_t cookie)
{
	struct dir_pos pos;
	int err;

	if (cookie == 0 && !give(listing, ".", 1, listing->dir->ino, DT_DIR, COOKIE_DOTDOT))
		return 0;
	if (cookie >= COOKIE_NAMES)
		return 0;
	err = dir_find(listing->dir, "..", 2, &pos);
	if (err == 0)
		give(listing, "..", 2, pos.ino, DT_DIR, COOKIE_NAMES);
	return dir_block_pass_over(err, &listing->bad);
}

/* True: the entry is "." or "..", which give_dots passes to emit. */
static bool is_dots(uint32_t lblk, const struct dir_block_ent *entry)
{
	return lblk == 0 && ext4_name_is_dots(entry->name, entry->name_len);
}

/* ---- in the order of blocks ---- */
static int list_linear_block(struct listing *listing, uint32_t lblk, uint64_t from)
{
	struct ext4_vol *vol = listing->dir->vol;
	uint64_t base = (uint64_t)lblk << vol->block_bits;
	unsigned off = 0, limit = dir_block_limit(vol);
	struct dir_block_ent entry;
	struct journal_buffer *buffer;
	int err = dir_block_read(listing->dir, lblk, DIR_BLOCK_ANY, &buffer);

	if (err)
		return err;
	if (dir_block_is_index(listing->dir, lblk, buffer->data))
		limit = 0;
	for (; !listing->stopped && dir_block_get(vol, buffer->data, limit, off, &entry);
	     off += entry.rec_len)
		if (entry.ino && base + off >= from && !is_dots(lblk, &entry))
			give(listing, entry.name, entry.name_len, entry.ino,
			     type_of(listing, entry.ino, entry.file_type),
			     base + off + 1 + COOKIE_BASE);
	journal_buffer_release(buffer);
	return 0;
}

static int list_linear(struct listing *listing, uint64_t from)
{
	uint32_t nr = dir_nr_blocks(listing->dir);
	int err = 0;

	for (uint64_t lblk = from >> listing->dir->vol->block_bits;
	     err == 0 && !listing->stopped && lblk < nr; lblk++) {
		dir_readahead(listing->dir, (uint32_t)lblk, nr);
		err = dir_block_pass_over(list_linear_block(listing, (uint32_t)lblk, from),
					  &listing->bad);
	}
	return err;
}

/* A directory inside its inode: a position is the byte offset of the entry plus one. */
static int list_inline(struct listing *listing, uint64_t from)
{
	struct ext4_vol *vol = listing->dir->vol;
	uint32_t len, off = 0;
	struct dir_block_ent entry;
	uint8_t *data;
	int err = dir_inline_load(listing->dir, &data, &len);

	if (err)
		return err;
	while (!listing->stopped && dir_inline_next(vol, data, len, &off, &entry))
		if (entry.ino && entry.off >= from)
			give(listing, entry.name, entry.name_len, entry.ino,
			     type_of(listing, entry.ino, entry.file_type),
			     entry.off + 1 + COOKIE_BASE);
	free(data);
	return 0;
}

/* ---- in hash order ---- */
static uint64_t pos_of_hash(uint32_t hash)
{
	return (uint64_t)(hash >> 1) << (MINOR_BITS + ORD_BITS);
}
static uint32_t hash_of_pos(uint64_t pos)
{
	return (uint32_t)(pos >> (MINOR_BITS + ORD_BITS)) << 1;
}

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

/* Keeps the lowest BATCH names, but never a part of a group with equal positions. */
static void cut_items(struct listing *listing)
{
	unsigned n = BATCH;

	qsort(listing->item, listing->nr, sizeof *listing->item, item_cmp);
	while (n > 0 && listing->item[n - 1].pos == listing->item[n].pos)
		n--;
	/* The group is larger than the buffer: no position could tell its members apart anyway. */
	if (n == 0)
		n = BATCH;
	listing->cut = true;
	listing->cut_pos = listing->item[n].pos;
	listing->nr = n;
}

static int collect_block(struct listing *listing, uint32_t lblk, const uint8_t *data, uint64_t from)
{
	struct ext4_vol *vol = listing->dir->vol;
	unsigned off = 0, limit = dir_block_limit(vol);
	uint32_t hash, minor;
	struct dir_block_ent entry;
	uint64_t pos;

	for (; dir_block_get(vol, data, limit, off, &entry); off += entry.rec_len) {
		if (!entry.ino || is_dots(lblk, &entry))
			continue;
		dir_index_hash(vol, listing->version, entry.name, entry.name_len, &hash, &minor);
		pos = pos_of_hash(hash) | (uint64_t)(minor >> (32 - MINOR_BITS)) << ORD_BITS;
		if (pos < (from & ~ORD_MASK) || (listing->cut && pos >= listing->cut_pos))
			continue;
		if (listing->nr == listing->cap)
			return EXT4_CORRUPT(vol, listing->dir->ino, 0,
					    "more names than there is room for");
		listing->item[listing->nr++] = (struct item){ pos, lblk, off };
		if (listing->nr == 2 * BATCH)
			cut_items(listing);
	}
	return 0;
}

static int collect_leaf(struct listing *listing, uint32_t lblk, uint64_t from)
{
	struct journal_buffer *buffer;
	int err = dir_seen_add(&listing->seen, lblk);

	if (err == 0)
		return EXT4_CORRUPT(listing->dir->vol, listing->dir->ino, 0,
				  "directory index leads to block %u twice", lblk);
	err = err < 0 ? err : dir_block_read(listing->dir, lblk, DIR_BLOCK_LEAF, &buffer);
	if (err)
		return err;
	err = collect_block(listing, lblk, buffer->data, from);
	journal_buffer_release(buffer);
	return err;
}

/*
 * Collects the leaves whose names have to be sorted together, beginning with the leaf of position
 * from. *ret_end: all names below it are collected.
 */
static int collect_indexed(struct listing *listing, uint64_t from, uint64_t *ret_end)
{
	uint32_t hash = hash_of_pos(from), next;
	struct dir_index_path path;
	int err = dir_index_probe(listing->dir, NULL, 0, &hash, &path);

	*ret_end = POS_END;
	if (err == 0)
		listing->version = path.version;
	for (err = err ? err : 1; err == 1;) {
		err = dir_block_pass_over(collect_leaf(listing, dir_index_leaf(&path), from),
					  &listing->bad);
		if (err)
			break;
		err = dir_index_next(listing->dir, &path, &next);
		if (err != 1)
			break;
		if (!(next & 1) && next > hash) {
			*ret_end = pos_of_hash(next);
			err = 0;
		} else if (!(next & 1)) {
			err = EXT4_CORRUPT(listing->dir->vol, listing->dir->ino, 0,
					   "directory index is out of order");
		}
	}
	dir_index_release(&path);
	return err;
}

/* Gives out the collected names from position from on. */
static int give_items(struct listing *listing, uint64_t from)
{
	struct ext4_vol *vol = listing->dir->vol;
	uint64_t ord = 0, last = UINT64_MAX, pos;
	struct dir_block_ent entry;
	struct journal_buffer *buffer;
	int err;

	qsort(listing->item, listing->nr, sizeof *listing->item, item_cmp);
	for (unsigned n = 0; n < listing->nr && !listing->stopped; n++) {
		ord = listing->item[n].pos == last ? FDIO_MIN(ord + 1, ORD_MASK) : 0;
		last = listing->item[n].pos;
		pos = last | ord;
		if (pos < from)
			continue;
		err = dir_block_read(listing->dir, listing->item[n].lblk, DIR_BLOCK_LEAF, &buffer);
		if (err)
			return err;
		if (dir_block_get(vol, buffer->data, dir_block_limit(vol), listing->item[n].off,
				  &entry) &&
		    entry.ino)
			give(listing, entry.name, entry.name_len, entry.ino,
			     type_of(listing, entry.ino, entry.file_type), pos + 1 + COOKIE_BASE);
		journal_buffer_release(buffer);
	}
	return 0;
}

/*
 * The position where the listing goes on. It is always behind from, even if more names are equal in
 * both hashes than the buffer holds.
 */
static uint64_t next_from(struct listing *listing, uint64_t from, uint64_t end)
{
	if (!listing->cut)
		return end;
	dir_seen_clear(&listing->seen); /* the leaves are read again for the rest */
	return listing->cut_pos > from ? listing->cut_pos : (from | ORD_MASK) + 1;
}

static int list_hashed(struct listing *listing, uint64_t from)
{
	bool dx = dir_is_indexed(listing->dir);
	uint64_t end = POS_END, room;
	int err = 0;

	listing->version = dir_index_default_version(listing->dir->vol);
	/* The most names that the directory can have; a small directory needs no large buffer. */
	room = ((uint64_t)dir_nr_blocks(listing->dir) << listing->dir->vol->block_bits) /
			       DIR_ENT_MIN +
	       1;
	listing->cap = (unsigned)FDIO_MIN(room, (uint64_t)2 * BATCH);
	listing->item = malloc(listing->cap * sizeof *listing->item);
	if (!listing->item)
		return -ENOMEM;
	while (err == 0 && !listing->stopped && from < POS_END - COOKIE_BASE) {
		listing->nr = 0;
		listing->cut = false;
		err = dx ? collect_indexed(listing, from, &end)
			 : dir_block_pass_over(collect_leaf(listing, 0, from), &listing->bad);
		if (err == 0)
			err = give_items(listing, from);
		from = next_from(listing, from, end);
	}
	dir_seen_clear(&listing->seen);
	free(listing->item);
	return err;
}

/* True: the directory is listed in hash order. False also if its index is lost. */
static bool by_hash(struct ext4_inode *dir)
{
	if (!dir_is_indexed(dir))
		return dir->vol->has_dir_index && dir_nr_blocks(dir) == 1;
	return !dir_index_lost(dir);
}

int ext4_readdir(struct ext4_inode *dir, uint64_t cookie,
		 bool (*emit)(void *arg, const struct ext4_dirent *entry), void *arg)
{
	struct listing listing = { .dir = dir, .emit = emit, .arg = arg };
	uint64_t from = cookie > COOKIE_BASE ? cookie - COOKIE_BASE : 0;
	int err;

	err = ext4_inode_enter_shared(dir);
	if (err)
		return err;
	err = dir_check_search(dir);
	if (err == 0 && nowait_on() && dir_nr_blocks(dir) > DIR_NOWAIT_BLOCKS)
		err = nowait_miss();
	if (err == 0 && cookie < COOKIE_NAMES)
		err = give_dots(&listing, cookie);
	if (err == 0 && !listing.stopped) {
		if (ext4_inode_inline(dir))
			err = list_inline(&listing, from);
		else if (by_hash(dir))
			err = list_hashed(&listing, from);
		else
			err = list_linear(&listing, from);
	}
	ext4_inode_unlock(dir);
	/* Entries before the damage are the answer; the next call meets the damage again. */
	if (err == -EUCLEAN && listing.given)
		return 0;
	/* A deleted directory that is still open is empty. */
	return err == -ENOENT ? 0 : err;
}

bool ext4_dir_moved(struct ext4_inode *dir)
{
	return __atomic_exchange_n(&dir->dir.moved, false, __ATOMIC_ACQ_REL);
}
