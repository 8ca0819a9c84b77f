/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A table of the names of a large linear directory (one without a hash index: made without
 * dir_index, or by a tool that never builds an index). It says where each name is and how much room
 * each block has, so that a lookup or an insertion reads one block instead of all. It is built at
 * first use by reading the directory once. It is thrown away when the inode leaves the cache, when
 * memory is short, and when a handle that changed the directory is cancelled.
 *
 * All tables of a volume together have at most dir.budget places: 20 bytes each, and as much again
 * while a table grows. A directory beyond the budget is searched block by block.
 *
 * Entries of a linear directory never move, so a place stays valid until its name is deleted. The
 * table is read with dir->rw held shared and changed with it held exclusively. Two readers may
 * build it at once: the first to set the pointer wins, the other frees its copy.
 *
 * Threads: ops workers, and loop threads in the mode of base/nowait.h, which do not build tables;
 * any thread that drops an inode frees its table. A table that cannot be had for lack of memory is
 * no error.
 */
#include "ext4/dir/directory.h"

#include "base/crc32c.h"
#include "base/nowait.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_MIN_BLOCKS 3u      /* smaller directories are scanned */
#define NONE UINT32_MAX

/* Where a name is. next: the next place of the same chain, which begins with the newest. */
struct place { uint32_t hash, lblk, off, next; };

/*
 * A hash table with chains: adding a name takes the same time whatever names are there already,
 * even if an image holds the same name a million times.
 */
struct ext4_dir_table {
	uint32_t nr_blocks, cap_blocks;
	unsigned bad;            /* damaged blocks, whose names are missing here */
	uint16_t *gap;           /* largest free space of each block, at most 65535 */
	uint32_t cap;            /* places, a power of two, and as many chains */
	uint32_t nr, unused; /* places [0, nr) have been used; unused: the first free one of them */
	struct place *place;
	uint32_t *chain;         /* first place of each chain */
	struct ext4_vol *vol; /* from whose budget the places are taken */
};

static void dir_table_free(struct ext4_dir_table *table)
{
	if (!table)
		return;
	__atomic_sub_fetch(&table->vol->dir.places, table->cap, __ATOMIC_RELAXED);
	free(table->gap);
	free(table->place);
	free(table->chain);
	free(table);
}

void dir_table_drop(struct ext4_inode *dir)
{
	dir_table_free(__atomic_exchange_n(&dir->dir.table, NULL, __ATOMIC_ACQ_REL));
}

static uint32_t name_hash(const char *name, unsigned len) { return fdio_crc32c(~0u, name, len); }

static void chain_in(struct ext4_dir_table *table, uint32_t n)
{
	uint32_t *first = &table->chain[table->place[n].hash & (table->cap - 1)];

	table->place[n].next = *first;
	*first = n;
}

/* Takes n more places from the budget of vol; false if fewer are left. */
static bool places_take(struct ext4_vol *vol, uint32_t n)
{
	if (__atomic_add_fetch(&vol->dir.places, n, __ATOMIC_RELAXED) <= vol->dir.budget)
		return true;
	__atomic_sub_fetch(&vol->dir.places, n, __ATOMIC_RELAXED);
	return false;
}

/* More places; called when every place is in use. */
static bool places_grow(struct ext4_dir_table *table)
{
	uint32_t cap = table->cap ? table->cap * 2 : 1024, more = cap - table->cap, *chain;
	struct place *place;

	if (!places_take(table->vol, more))
		return false;
	chain = malloc(cap * sizeof *chain);
	place = chain ? realloc(table->place, cap * sizeof *place) : NULL;
	if (!place) {
		free(chain);
		__atomic_sub_fetch(&table->vol->dir.places, more, __ATOMIC_RELAXED);
		return false;
	}
	free(table->chain);
	table->place = place;
	table->chain = chain;
	table->cap = cap;
	memset(chain, 0xff, cap * sizeof *chain);
	for (uint32_t n = 0; n < table->nr; n++)
		chain_in(table, n);
	return true;
}

static bool place_add(struct ext4_dir_table *table, const char *name, unsigned len, uint32_t lblk,
		      uint32_t off)
{
	uint32_t n = table->unused;

	if (n == NONE && table->nr == table->cap && !places_grow(table))
		return false;
	if (n == NONE)
		n = table->nr++;
	else
		table->unused = table->place[n].next;
	table->place[n] = (struct place){ .hash = name_hash(name, len), .lblk = lblk, .off = off };
	chain_in(table, n);
	return true;
}

static bool gap_set(const struct ext4_vol *vol, struct ext4_dir_table *table, uint32_t lblk,
		    const uint8_t *data)
{
	if (lblk >= table->cap_blocks) {
		size_t cap = FDIO_MAX((size_t)64, (size_t)lblk + lblk / 2 + 1);
		uint16_t *g = cap <= UINT32_MAX ? realloc(table->gap, cap * sizeof *g) : NULL;

		if (!g)
			return false;
		memset(g + table->cap_blocks, 0, (cap - table->cap_blocks) * sizeof *g);
		table->gap = g;
		table->cap_blocks = (uint32_t)cap;
	}
	table->nr_blocks = FDIO_MAX(table->nr_blocks, lblk + 1);
	table->gap[lblk] = (uint16_t)FDIO_MIN(dir_block_max_gap(vol, data), 65535u);
	return true;
}

static int load_block(struct ext4_inode *dir, struct ext4_dir_table *table, uint32_t lblk)
{
	unsigned limit = dir_block_limit(dir->vol), off = 0;
	struct dir_block_ent entry;
	struct journal_buffer *buffer;
	int err = dir_block_read(dir, lblk, DIR_BLOCK_LEAF, &buffer);

	if (err)
		return err;
	if (!gap_set(dir->vol, table, lblk, buffer->data))
		err = -ENOMEM;
	for (; err == 0 && dir_block_get(dir->vol, buffer->data, limit, off, &entry);
	     off += entry.rec_len)
		if (entry.ino && !place_add(table, entry.name, entry.name_len, lblk, off))
			err = -ENOMEM;
	journal_buffer_release(buffer);
	return err;
}

static int build(struct ext4_inode *dir, struct ext4_dir_table **ret)
{
	uint32_t nr = dir_nr_blocks(dir);
	struct ext4_dir_table *table = calloc(1, sizeof *table);
	int err = 0;

	if (!table)
		return -ENOMEM;
	table->unused = NONE;
	table->vol = dir->vol;
	for (uint32_t lblk = 0; err == 0 && lblk < nr; lblk++) {
		dir_readahead(dir, lblk, nr);
		err = dir_block_pass_over(load_block(dir, table, lblk), &table->bad);
	}
	if (err) {
		dir_table_free(table);
		return err;
	}
	*ret = table;
	return 0;
}

struct ext4_dir_table *dir_table_get(struct ext4_inode *dir, int *ret_err)
{
	struct ext4_dir_table *table = __atomic_load_n(&dir->dir.table, __ATOMIC_ACQUIRE),
			      *winner = NULL;
	int err;

	*ret_err = 0;
	if (table || dir_nr_blocks(dir) < TABLE_MIN_BLOCKS)
		return table;
	if (nowait_on()) { /* reading the whole directory is for a worker */
		*ret_err = nowait_miss();
		return NULL;
	}
	err = build(dir, &table);
	if (err) {
		*ret_err = err == -ENOMEM ? 0 : err;
		return NULL;
	}
	if (__atomic_compare_exchange_n(&dir->dir.table, &winner, table, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return table;
	dir_table_free(table);
	return winner;
}

int dir_table_find(struct ext4_inode *dir, struct ext4_dir_table *table, const char *name,
		   unsigned len, struct dir_pos *ret)
{
	uint32_t hash = name_hash(name, len),
		 n = table->cap ? table->chain[hash & (table->cap - 1)] : NONE;
	struct dir_block_ent entry;
	struct journal_buffer *buffer;
	bool hit;
	int err;

	for (; n != NONE; n = table->place[n].next) {
		const struct place *place = &table->place[n];

		if (place->hash != hash)
			continue;
		err = dir_block_read(dir, place->lblk, DIR_BLOCK_LEAF, &buffer);
		if (err)
			return err;
		hit = dir_block_get(dir->vol, buffer->data, dir_block_limit(dir->vol), place->off,
				    &entry) &&
		      entry.ino && entry.name_len == len && memcmp(entry.name, name, len) == 0;
		if (hit)
			*ret = (struct dir_pos){ place->lblk, entry.off, entry.ino,
						 entry.file_type };
		journal_buffer_release(buffer);
		if (hit)
			return 0;
	}
	return table->bad ? -EUCLEAN : -ENOENT;
}

uint32_t dir_table_find_gap(const struct ext4_dir_table *table, unsigned need)
{
	for (uint32_t n = 0; n < table->nr_blocks; n++)
		if (table->gap[n] >= need)
			return n;
	return UINT32_MAX;
}

void dir_table_added(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data, uint32_t off,
		     const char *name, unsigned len)
{
	struct ext4_dir_table *table = dir->dir.table;

	if (table &&
	    (!gap_set(dir->vol, table, lblk, data) || !place_add(table, name, len, lblk, off)))
		dir_table_drop(dir);
}

void dir_table_removed(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data, uint32_t off,
		       const char *name, unsigned len)
{
	struct ext4_dir_table *table = dir->dir.table;
	uint32_t *link, n;

	if (!table)
		return;
	link = table->cap ? &table->chain[name_hash(name, len) & (table->cap - 1)] : &table->unused;
	while (*link != NONE &&
	       (table->place[*link].lblk != lblk || table->place[*link].off != off))
		link = &table->place[*link].next;
	n = *link;
	if (n == NONE || !gap_set(dir->vol, table, lblk, data)) {
		dir_table_drop(dir);
		return;
	}
	*link = table->place[n].next;
	table->place[n].next = table->unused;
	table->unused = n;
}

static void forget_names(struct ext4_inode *inode) { dir_table_free(inode->dir.table); }

void ext4_dir_init(struct ext4_vol *vol)
{
	vol->dir.budget = EXT4_DIR_BUDGET;
	fdio_mutex_init(&vol->dir.rename_lock, RANK_EXT4_RENAME);
	ext4_inode_cache_set_forget_names(vol, forget_names);
}

void ext4_dir_fini(struct ext4_vol *vol) { fdio_mutex_fini(&vol->dir.rename_lock); }
