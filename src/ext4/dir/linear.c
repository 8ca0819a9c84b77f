/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is remembered about a large linear directory (one without a hash index: made without dir_index, or by a tool that
 * never builds one): where each name is and how much room each block has, so that a lookup or an insertion reads one
 * block and not all of them. Built at first use by reading the directory once; thrown away when the inode leaves the
 * cache, when memory is short and when a handle that changed the directory is cancelled.
 *
 * All such tables of a volume have so many places together (dir_budget: 20 bytes each, and as much
 * again while one grows): a directory beyond that is searched block by block.
 *
 * Entries of a linear directory never move, so a place stays valid until its name is deleted. The table is read with dir->rw
 * held shared and changed with it held exclusively; two readers that build it at once race for the pointer and the
 * loser frees its copy.
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
struct x4_dirstate {
	uint32_t nr_blocks, cap_blocks;
	unsigned bad;            /* blocks that could not be read: their names are missing here */
	uint16_t *gap;           /* largest free space of each block, at most 65535 */
	uint32_t cap;            /* places, a power of two, and as many chains */
	uint32_t nr, unused;     /* [0, nr) have been in use; first of those that no longer are */
	struct place *place;
	uint32_t *chain;         /* the first place of each */
	struct x4_vol *vol;      /* whose budget the places are on */
};

static void dirstate_free(struct x4_dirstate *ds)
{
	if (!ds)
		return;
	__atomic_sub_fetch(&ds->vol->dir.places, ds->cap, __ATOMIC_RELAXED);
	free(ds->gap);
	free(ds->place);
	free(ds->chain);
	free(ds);
}

void dirstate_drop(struct x4_inode *dir)
{
	dirstate_free(__atomic_exchange_n(&dir->dir.dirstate, NULL, __ATOMIC_ACQ_REL));
}

static uint32_t name_hash(const char *name, unsigned len) { return fdio_crc32c(~0u, name, len); }

static void chain_in(struct x4_dirstate *ds, uint32_t n)
{
	uint32_t *first = &ds->chain[ds->place[n].hash & (ds->cap - 1)];

	ds->place[n].next = *first;
	*first = n;
}

/* n more for a directory of v, if its budget allows that. */
static bool places_take(struct x4_vol *v, uint32_t n)
{
	if (__atomic_add_fetch(&v->dir.places, n, __ATOMIC_RELAXED) <= v->dir.budget)
		return true;
	__atomic_sub_fetch(&v->dir.places, n, __ATOMIC_RELAXED);
	return false;
}

/* Only when every place is in use. */
static bool places_grow(struct x4_dirstate *ds)
{
	uint32_t cap = ds->cap ? ds->cap * 2 : 1024, more = cap - ds->cap, *chain;
	struct place *place;

	if (!places_take(ds->vol, more))
		return false;
	chain = malloc(cap * sizeof *chain);
	place = chain ? realloc(ds->place, cap * sizeof *place) : NULL;
	if (!place) {
		free(chain);
		__atomic_sub_fetch(&ds->vol->dir.places, more, __ATOMIC_RELAXED);
		return false;
	}
	free(ds->chain);
	ds->place = place;
	ds->chain = chain;
	ds->cap = cap;
	memset(chain, 0xff, cap * sizeof *chain);
	for (uint32_t n = 0; n < ds->nr; n++)
		chain_in(ds, n);
	return true;
}

static bool place_add(struct x4_dirstate *ds, const char *name, unsigned len, uint32_t lblk,
		      uint32_t off)
{
	uint32_t n = ds->unused;

	if (n == NONE && ds->nr == ds->cap && !places_grow(ds))
		return false;
	if (n == NONE)
		n = ds->nr++;
	else
		ds->unused = ds->place[n].next;
	ds->place[n] = (struct place){ .hash = name_hash(name, len), .lblk = lblk, .off = off };
	chain_in(ds, n);
	return true;
}

static bool gap_set(const struct x4_vol *v, struct x4_dirstate *ds, uint32_t lblk, const uint8_t *data)
{
	if (lblk >= ds->cap_blocks) {
		size_t cap = FDIO_MAX((size_t)64, (size_t)lblk + lblk / 2 + 1);
		uint16_t *g = cap <= UINT32_MAX ? realloc(ds->gap, cap * sizeof *g) : NULL;

		if (!g)
			return false;
		memset(g + ds->cap_blocks, 0, (cap - ds->cap_blocks) * sizeof *g);
		ds->gap = g;
		ds->cap_blocks = (uint32_t)cap;
	}
	ds->nr_blocks = FDIO_MAX(ds->nr_blocks, lblk + 1);
	ds->gap[lblk] = (uint16_t)FDIO_MIN(dirb_max_gap(v, data), 65535u);
	return true;
}

static int load_block(struct x4_inode *dir, struct x4_dirstate *ds, uint32_t lblk)
{
	unsigned limit = dirb_limit(dir->vol), off = 0;
	struct dirb_ent e;
	struct jnl_buf *b;
	int r = dirb_read(dir, lblk, DIRB_LEAF, &b);

	if (r)
		return r;
	if (!gap_set(dir->vol, ds, lblk, b->data))
		r = -ENOMEM;
	for (; r == 0 && dirb_get(dir->vol, b->data, limit, off, &e); off += e.rec_len)
		if (e.ino && !place_add(ds, e.name, e.name_len, lblk, off))
			r = -ENOMEM;
	jnl_brelse(b);
	return r;
}

static int build(struct x4_inode *dir, struct x4_dirstate **ret)
{
	uint32_t nr = dir_nr_blocks(dir);
	struct x4_dirstate *ds = calloc(1, sizeof *ds);
	int r = 0;

	if (!ds)
		return -ENOMEM;
	ds->unused = NONE;
	ds->vol = dir->vol;
	for (uint32_t lblk = 0; r == 0 && lblk < nr; lblk++) {
		dir_readahead(dir, lblk, nr);
		r = dirb_pass_over(load_block(dir, ds, lblk), &ds->bad);
	}
	if (r) {
		dirstate_free(ds);
		return r;
	}
	*ret = ds;
	return 0;
}

struct x4_dirstate *dirstate_get(struct x4_inode *dir, int *ret_err)
{
	struct x4_dirstate *ds = __atomic_load_n(&dir->dir.dirstate, __ATOMIC_ACQUIRE), *winner = NULL;
	int r;

	*ret_err = 0;
	if (ds || dir_nr_blocks(dir) < STATE_MIN_BLOCKS)
		return ds;
	if (nowait_on()) { /* reading the whole directory is for a worker */
		*ret_err = nowait_miss();
		return NULL;
	}
	r = build(dir, &ds);
	if (r) {
		*ret_err = r == -ENOMEM ? 0 : r;
		return NULL;
	}
	if (__atomic_compare_exchange_n(&dir->dir.dirstate, &winner, ds, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return ds;
	dirstate_free(ds);
	return winner;
}

int dirstate_find(struct x4_inode *dir, struct x4_dirstate *ds, const char *name, unsigned len, struct dir_pos *ret)
{
	uint32_t hash = name_hash(name, len), n = ds->cap ? ds->chain[hash & (ds->cap - 1)] : NONE;
	struct dirb_ent e;
	struct jnl_buf *b;
	bool hit;
	int r;

	for (; n != NONE; n = ds->place[n].next) {
		const struct place *p = &ds->place[n];

		if (p->hash != hash)
			continue;
		r = dirb_read(dir, p->lblk, DIRB_LEAF, &b);
		if (r)
			return r;
		hit = dirb_get(dir->vol, b->data, dirb_limit(dir->vol), p->off, &e) && e.ino &&
		      e.name_len == len && memcmp(e.name, name, len) == 0;
		if (hit)
			*ret = (struct dir_pos){ p->lblk, e.off, e.ino, e.ft };
		jnl_brelse(b);
		if (hit)
			return 0;
	}
	return ds->bad ? -EUCLEAN : -ENOENT;
}

uint32_t dirstate_find_gap(const struct x4_dirstate *ds, unsigned need)
{
	for (uint32_t n = 0; n < ds->nr_blocks; n++)
		if (ds->gap[n] >= need)
			return n;
	return UINT32_MAX;
}

void dirstate_added(struct x4_inode *dir, uint32_t lblk, const uint8_t *data, uint32_t off, const char *name, unsigned len)
{
	struct x4_dirstate *ds = dir->dir.dirstate;

	if (ds && (!gap_set(dir->vol, ds, lblk, data) || !place_add(ds, name, len, lblk, off)))
		dirstate_drop(dir);
}

void dirstate_removed(struct x4_inode *dir, uint32_t lblk, const uint8_t *data, uint32_t off, const char *name, unsigned len)
{
	struct x4_dirstate *ds = dir->dir.dirstate;
	uint32_t *link, n;

	if (!ds)
		return;
	link = ds->cap ? &ds->chain[name_hash(name, len) & (ds->cap - 1)] : &ds->unused;
	while (*link != NONE && (ds->place[*link].lblk != lblk || ds->place[*link].off != off))
		link = &ds->place[*link].next;
	n = *link;
	if (n == NONE || !gap_set(dir->vol, ds, lblk, data)) {
		dirstate_drop(dir);
		return;
	}
	*link = ds->place[n].next;
	ds->place[n].next = ds->unused;
	ds->unused = n;
}

static void forget_names(struct x4_inode *i) { dirstate_free(i->dir.dirstate); }

void x4_dir_init(struct x4_vol *v)
{
	v->dir.budget = X4_DIR_BUDGET;
	fdio_mutex_init(&v->dir.rename_lock, RANK_X4_RENAME);
	x4_icache_set_forget_names(v, forget_names);
}

void x4_dir_fini(struct x4_vol *v) { fdio_mutex_fini(&v->dir.rename_lock); }
