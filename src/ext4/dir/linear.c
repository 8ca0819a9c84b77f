/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is remembered about a large linear directory (one without a hash index: made without
 * dir_index, or by a tool that never builds one): where each name is and how much room each block
 * has, so that a lookup or an insertion reads one block and not all of them. Built at first use by
 * reading the directory once; thrown away when the inode leaves the cache, when memory is short and
 * when a handle that changed the directory is cancelled.
 *
 * All such tables of a volume have so many places together (dir_budget: 20 bytes each, and as much
 * again while one grows): a directory beyond that is searched block by block.
 *
 * Entries of a linear directory never move, so a place stays valid until its name is deleted. The
 * table is read with dir->rw held shared and changed with it held exclusively; two readers that
 * build it at once race for the pointer and the loser frees its copy.
 */
#include "ext4/dir/directory.h"

#include "base/crc32c.h"
#include "base/nowait.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define STATE_MIN_BLOCKS 3u      /* below, reading the blocks is as good */
#define NONE UINT32_MAX

/* Where a name is. Those that share a chain follow each other by next, the newest first. */
struct place { uint32_t hash, lblk, off, next; };

/*
 * A hash table with chains: entering a name takes as long whatever names are there already, also
 * where an image holds the same one a million times over.
 */
struct ext4_dir_table {
	uint32_t nr_blocks, cap_blocks;
	unsigned bad;            /* blocks that could not be read: their names are missing here */
	uint16_t *gap;           /* largest free space of each block, at most 65535 */
	uint32_t cap;            /* places, a power of two, and as many chains */
	uint32_t nr, unused;     /* [0, nr) have been in use; first of those that no longer are */
	struct place *place;
	uint32_t *chain;         /* the first place of each */
	struct ext4_vol *vol;      /* whose budget the places are on */
};

static void dir_table_free(struct ext4_dir_table *state)
{
	if (!state)
		return;
	__atomic_sub_fetch(&state->vol->dir.places, state->cap, __ATOMIC_RELAXED);
	free(state->gap);
	free(state->place);
	free(state->chain);
	free(state);
}

void dir_table_drop(struct ext4_inode *dir)
{
	dir_table_free(__atomic_exchange_n(&dir->dir.dirstate, NULL, __ATOMIC_ACQ_REL));
}

static uint32_t name_hash(const char *name, unsigned len) { return fdio_crc32c(~0u, name, len); }

static void chain_in(struct ext4_dir_table *state, uint32_t n)
{
	uint32_t *first = &state->chain[state->place[n].hash & (state->cap - 1)];

	state->place[n].next = *first;
	*first = n;
}

/* n more for a directory of vol, if its budget allows that. */
static bool places_take(struct ext4_vol *vol, uint32_t n)
{
	if (__atomic_add_fetch(&vol->dir.places, n, __ATOMIC_RELAXED) <= vol->dir.budget)
		return true;
	__atomic_sub_fetch(&vol->dir.places, n, __ATOMIC_RELAXED);
	return false;
}

/* Only when every place is in use. */
static bool places_grow(struct ext4_dir_table *state)
{
	uint32_t cap = state->cap ? state->cap * 2 : 1024, more = cap - state->cap, *chain;
	struct place *place;

	if (!places_take(state->vol, more))
		return false;
	chain = malloc(cap * sizeof *chain);
	place = chain ? realloc(state->place, cap * sizeof *place) : NULL;
	if (!place) {
		free(chain);
		__atomic_sub_fetch(&state->vol->dir.places, more, __ATOMIC_RELAXED);
		return false;
	}
	free(state->chain);
	state->place = place;
	state->chain = chain;
	state->cap = cap;
	memset(chain, 0xff, cap * sizeof *chain);
	for (uint32_t n = 0; n < state->nr; n++)
		chain_in(state, n);
	return true;
}

static bool place_add(struct ext4_dir_table *state, const char *name, unsigned len, uint32_t lblk,
		      uint32_t off)
{
	uint32_t n = state->unused;

	if (n == NONE && state->nr == state->cap && !places_grow(state))
		return false;
	if (n == NONE)
		n = state->nr++;
	else
		state->unused = state->place[n].next;
	state->place[n] = (struct place){ .hash = name_hash(name, len), .lblk = lblk, .off = off };
	chain_in(state, n);
	return true;
}

static bool gap_set(const struct ext4_vol *vol, struct ext4_dir_table *state, uint32_t lblk,
		    const uint8_t *data)
{
	if (lblk >= state->cap_blocks) {
		size_t cap = FDIO_MAX((size_t)64, (size_t)lblk + lblk / 2 + 1);
		uint16_t *g = cap <= UINT32_MAX ? realloc(state->gap, cap * sizeof *g) : NULL;

		if (!g)
			return false;
		memset(g + state->cap_blocks, 0, (cap - state->cap_blocks) * sizeof *g);
		state->gap = g;
		state->cap_blocks = (uint32_t)cap;
	}
	state->nr_blocks = FDIO_MAX(state->nr_blocks, lblk + 1);
	state->gap[lblk] = (uint16_t)FDIO_MIN(dir_block_max_gap(vol, data), 65535u);
	return true;
}

static int load_block(struct ext4_inode *dir, struct ext4_dir_table *state, uint32_t lblk)
{
	unsigned limit = dir_block_limit(dir->vol), off = 0;
	struct dir_block_ent entry;
	struct journal_buffer *buffer;
	int err = dir_block_read(dir, lblk, DIR_BLOCK_LEAF, &buffer);

	if (err)
		return err;
	if (!gap_set(dir->vol, state, lblk, buffer->data))
		err = -ENOMEM;
	for (; err == 0 && dir_block_get(dir->vol, buffer->data, limit, off, &entry);
	     off += entry.rec_len)
		if (entry.ino && !place_add(state, entry.name, entry.name_len, lblk, off))
			err = -ENOMEM;
	journal_buffer_release(buffer);
	return err;
}

static int build(struct ext4_inode *dir, struct ext4_dir_table **ret)
{
	uint32_t nr = dir_nr_blocks(dir);
	struct ext4_dir_table *state = calloc(1, sizeof *state);
	int err = 0;

	if (!state)
		return -ENOMEM;
	state->unused = NONE;
	state->vol = dir->vol;
	for (uint32_t lblk = 0; err == 0 && lblk < nr; lblk++) {
		dir_readahead(dir, lblk, nr);
		err = dir_block_pass_over(load_block(dir, state, lblk), &state->bad);
	}
	if (err) {
		dir_table_free(state);
		return err;
	}
	*ret = state;
	return 0;
}

struct ext4_dir_table *dir_table_get(struct ext4_inode *dir, int *ret_err)
{
	struct ext4_dir_table *state = __atomic_load_n(&dir->dir.dirstate, __ATOMIC_ACQUIRE),
			      *winner = NULL;
	int err;

	*ret_err = 0;
	if (state || dir_nr_blocks(dir) < STATE_MIN_BLOCKS)
		return state;
	if (nowait_on()) { /* reading the whole directory is for a worker */
		*ret_err = nowait_miss();
		return NULL;
	}
	err = build(dir, &state);
	if (err) {
		*ret_err = err == -ENOMEM ? 0 : err;
		return NULL;
	}
	if (__atomic_compare_exchange_n(&dir->dir.dirstate, &winner, state, false, __ATOMIC_ACQ_REL,
					__ATOMIC_ACQUIRE))
		return state;
	dir_table_free(state);
	return winner;
}

int dir_table_find(struct ext4_inode *dir, struct ext4_dir_table *state, const char *name,
		   unsigned len, struct dir_pos *ret)
{
	uint32_t hash = name_hash(name, len),
		 n = state->cap ? state->chain[hash & (state->cap - 1)] : NONE;
	struct dir_block_ent entry;
	struct journal_buffer *buffer;
	bool hit;
	int err;

	for (; n != NONE; n = state->place[n].next) {
		const struct place *place = &state->place[n];

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
	return state->bad ? -EUCLEAN : -ENOENT;
}

uint32_t dir_table_find_gap(const struct ext4_dir_table *state, unsigned need)
{
	for (uint32_t n = 0; n < state->nr_blocks; n++)
		if (state->gap[n] >= need)
			return n;
	return UINT32_MAX;
}

void dir_table_added(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data, uint32_t off,
		     const char *name, unsigned len)
{
	struct ext4_dir_table *state = dir->dir.dirstate;

	if (state &&
	    (!gap_set(dir->vol, state, lblk, data) || !place_add(state, name, len, lblk, off)))
		dir_table_drop(dir);
}

void dir_table_removed(struct ext4_inode *dir, uint32_t lblk, const uint8_t *data, uint32_t off,
		       const char *name, unsigned len)
{
	struct ext4_dir_table *state = dir->dir.dirstate;
	uint32_t *link, n;

	if (!state)
		return;
	link = state->cap ? &state->chain[name_hash(name, len) & (state->cap - 1)] : &state->unused;
	while (*link != NONE &&
	       (state->place[*link].lblk != lblk || state->place[*link].off != off))
		link = &state->place[*link].next;
	n = *link;
	if (n == NONE || !gap_set(dir->vol, state, lblk, data)) {
		dir_table_drop(dir);
		return;
	}
	*link = state->place[n].next;
	state->place[n].next = state->unused;
	state->unused = n;
}

static void forget_names(struct ext4_inode *inode) { dir_table_free(inode->dir.dirstate); }

void ext4_dir_init(struct ext4_vol *vol)
{
	vol->dir.budget = EXT4_DIR_BUDGET;
	fdio_mutex_init(&vol->dir.rename_lock, RANK_EXT4_RENAME);
	ext4_inode_cache_set_forget_names(vol, forget_names);
}

void ext4_dir_fini(struct ext4_vol *vol) { fdio_mutex_fini(&vol->dir.rename_lock); }
