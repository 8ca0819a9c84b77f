/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Files mapped by indirect blocks, as older file systems have them: their map is loaded into the same snapshot as that of an
 * extent tree, and their blocks can be freed. They are never allocated to: what needs a block gets extents first
 * (data/block_map_convert.c). Called by x4_map_load and x4_remove_step, with what guards the inode's tree held.
 *
 * A pointer that leads outside the data area is damage (-EUCLEAN). Indirect blocks carry no
 * checksum and no sign of what they are, so an image can make them refer to each other; the walk
 * is at most three levels deep, and gives up when it has seen more blocks than the file system
 * has, or has collected one indirect block twice (data/map_twice.c).
 *
 * Freeing goes from the end downwards, like the removal of extents. Every freed pointer is zeroed in the same transaction, so
 * a removal that runs out of credits continues with the next handle. Indirect blocks are freed as metadata: revoked.
 */
#include "ext4/data/extent.h"

#include <errno.h>

#define LEVELS 3

/* First logical block and reach of one i_block slot. */
static uint64_t slot_start(uint64_t per, unsigned slot)
{
	if (slot <= EXT2_IND_BLOCK)
		return slot;
	return EXT2_NDIR_BLOCKS + per + (slot > EXT2_DIND_BLOCK ? per * per : 0);
}

/* Blocks that one pointer of this level reaches: 0 a data block, 1..3 an indirect block of that height. */
static uint64_t level_span(uint64_t per, unsigned level)
{
	uint64_t n = 1;

	while (level--)
		n *= per;
	return n;
}

static unsigned slot_level(unsigned slot) { return slot < EXT2_NDIR_BLOCKS ? 0 : slot - EXT2_NDIR_BLOCKS + 1; }

/* ---- loading ---- */

struct load {
	struct x4_inode *i;
	struct x4_map_builder *b;
	uint64_t per, seen;
};

static int load_data(struct load *ld, uint32_t blk, uint64_t lblk)
{
	struct x4_ext x = { lblk, 1, blk, X4_EXT_WRITTEN };

	return x4_map_builder_add(ld->b, &x);
}

static int load_check(struct load *ld, uint32_t blk, uint64_t lblk)
{
	struct x4_vol *v = ld->i->vol;

	if (lblk >= X4_LBLK_END || !x4_blk_valid(v, blk, 1))
		return X4_CORRUPT(v, ld->i->ino, blk, "block pointer of block %llu outside the data area", (unsigned long long)lblk);
	if (++ld->seen > v->nr_blocks)
		return X4_CORRUPT(v, ld->i->ino, blk, "indirect blocks map more than the file system holds");
	return 0;
}

/* At most LEVELS deep. */
static int load_pointer(struct load *ld, uint32_t blk, unsigned level, uint64_t lblk)
{
	uint64_t span = level_span(ld->per, level ? level - 1 : 0);
	struct jnl_buf *b;
	const uint32_t *p;
	int r;

	if (!blk)
		return 0;
	r = load_check(ld, blk, lblk);
	if (r || !level)
		return r ? r : load_data(ld, blk, lblk);
	r = x4_map_builder_node(ld->b, blk);
	if (r == -EUCLEAN)
		r = X4_CORRUPT(ld->i->vol, ld->i->ino, blk, "an indirect block is there twice");
	if (!r)
		r = jnl_bread(ld->i->vol->jnl, blk, &b);
	if (r)
		return r;
	p = (const uint32_t *)b->data;
	for (uint64_t k = 0; k < ld->per && !r; k++)
		r = load_pointer(ld, le32toh(p[k]), level - 1, lblk + k * span);
	jnl_brelse(b);
	return r;
}

int x4_ind_load(struct x4_inode *i, struct x4_map_builder *b)
{
	struct load ld = { .i = i, .b = b, .per = i->vol->block_size / 4 };
	int r = 0;

	for (unsigned s = 0; s < EXT2_N_BLOCKS && !r; s++)
		r = load_pointer(&ld, le32toh(i->raw->i_block[s]), slot_level(s), slot_start(ld.per, s));
	return r;
}

/* ---- freeing ---- */

struct unmap {
	struct jnl_handle *h;
	struct x4_inode *i;
	uint64_t per, from, to;
	uint64_t run;    /* data blocks [run, run + n) wait to be freed in one go */
	uint32_t n;
	bool metadata, more;
};

/* A step may touch one bitmap for the waiting run, one for an indirect block, an indirect block per level, inode, orphans. */
static bool credits_low(struct unmap *u)
{
	return jnl_credits_left(u->h) < 4 + LEVELS + X4_CREDITS_INODE + X4_CREDITS_ORPHAN ||
	       x4_meta_frees_left(u->h) <= (u->metadata ? u->n : 0);
}

static int run_free(struct unmap *u)
{
	uint32_t n = u->n;

	u->n = 0;
	if (!n)
		return 0;
	int r = x4_bfree(u->h, u->i, u->run, n, u->metadata);
	return r ? r : x4_raw_add_blocks(u->i, -(int64_t)n);
}

static int data_free(struct unmap *u, uint32_t blk)
{
	int r = 0;

	if (!x4_blk_valid(u->i->vol, blk, 1))
		return X4_CORRUPT(u->i->vol, u->i->ino, blk, "block pointer outside the data area");
	if (u->n && (uint64_t)blk + 1 == u->run && blk % u->i->vol->blocks_per_group) {
		u->run--;
		u->n++;
		return 0;
	}
	r = run_free(u);
	u->run = blk;
	u->n = 1;
	return r;
}

static int pointer_free(struct unmap *u, uint32_t *slot, unsigned level, uint64_t lblk, struct jnl_buf *holder);

/* The pointers of one indirect block, last first. */
static int children_free(struct unmap *u, uint32_t blk, unsigned level, uint64_t lblk)
{
	uint64_t span = level_span(u->per, level - 1);
	struct jnl_buf *b;
	int r;

	if (!x4_blk_valid(u->i->vol, blk, 1))
		return X4_CORRUPT(u->i->vol, u->i->ino, blk, "indirect block outside the data area");
	r = jnl_bread(u->i->vol->jnl, blk, &b);
	if (r)
		return r;
	for (uint64_t k = u->per; k-- > 0 && !r && !u->more;) {
		uint64_t at = lblk + k * span;

		if (at >= u->to)
			continue;
		if (at + span <= u->from)
			break;
		r = pointer_free(u, (uint32_t *)b->data + k, level - 1, at, b);
	}
	jnl_brelse(b);
	return r;
}

/* What the pointer reaches in [from, to), and itself when all of that is gone. At most LEVELS deep. */
static int pointer_free(struct unmap *u, uint32_t *slot, unsigned level, uint64_t lblk, struct jnl_buf *holder)
{
	uint32_t blk = le32toh(*slot);
	int r = 0;

	if (!blk)
		return 0;
	if (credits_low(u)) {
		u->more = true;
		return 0;
	}
	if (level) {
		r = children_free(u, blk, level, lblk);
		if (r || u->more || lblk < u->from || lblk + level_span(u->per, level) > u->to)
			return r;
		r = run_free(u);
		if (!r)
			r = x4_bfree(u->h, u->i, blk, 1, true);
		if (!r)
			r = x4_raw_add_blocks(u->i, -1);
	} else {
		r = data_free(u, blk);
	}
	if (!r && holder) {
		r = jnl_get_write(u->h, holder);
		/* Another inode may have it too, and as something that it is checked to be once. */
		__atomic_store_n(&holder->verified, 0, __ATOMIC_RELAXED);
	}
	if (!r)
		*slot = 0;
	return r;
}

int x4_ind_remove(struct jnl_handle *h, struct x4_inode *i, uint32_t from, uint32_t to, bool metadata, bool *ret_more)
{
	struct unmap u = { .h = h, .i = i, .per = i->vol->block_size / 4, .from = from, .to = to, .metadata = metadata };
	int r = 0;

	/* To the end of the file means all that the pointers can reach, also beyond what a size can say. */
	if (to == X4_LBLK_END)
		u.to = UINT64_MAX;
	for (unsigned s = EXT2_N_BLOCKS; s-- > 0 && !r && !u.more;) {
		uint64_t start = slot_start(u.per, s);

		if (start < u.to && start + level_span(u.per, slot_level(s)) > u.from)
			r = pointer_free(&u, &i->raw->i_block[s], slot_level(s), start, NULL);
	}
	if (!r)
		r = run_free(&u);
	*ret_more = u.more;
	return r;
}
